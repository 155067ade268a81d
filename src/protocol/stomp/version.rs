//! Versions of the protocol and how one is agreed on.

use super::error::ErrorKind;

/// A version of STOMP spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// STOMP 1.0: no escaping, padded headers, no heart-beats, no `NACK`.
    V1_0,
    /// STOMP 1.1: escaping of LF, colon and backslash; subscription ids are mandatory.
    V1_1,
    /// STOMP 1.2: CR LF line ends, escaping of CR, `ACK` by one `id`.
    V1_2,
}

impl Version {
    /// All versions as the `version` header of an `ERROR` frame lists them.
    pub const SUPPORTED: &'static str = "1.0,1.1,1.2";

    /// Returns the number as it stands in `accept-version` and `version`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// Picks the highest version that both sides speak.
    ///
    /// `accept` is the value of `accept-version`; none means that the client knows 1.0 only.
    /// Blanks around the list's elements are tolerated, unknown versions are passed over.
    /// Errors: `NoCommonVersion` when nothing is left.
    /// Source: STOMP 1.2 "Protocol Negotiation".
    pub fn negotiate(accept: Option<&str>) -> Result<Self, ErrorKind> {
        let Some(accept) = accept else {
            return Ok(Self::V1_0);
        };
        accept
            .split(',')
            .filter_map(|number| match number.trim() {
                "1.0" => Some(Self::V1_0),
                "1.1" => Some(Self::V1_1),
                "1.2" => Some(Self::V1_2),
                _ => None,
            })
            .max()
            .ok_or(ErrorKind::NoCommonVersion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins() {
        let table = [
            (None, Ok(Version::V1_0)),
            (Some("1.0"), Ok(Version::V1_0)),
            (Some("1.0,1.1,2.0"), Ok(Version::V1_1)),
            (Some("1.2,1.1,1.0"), Ok(Version::V1_2)),
            (Some("1.0, 1.2"), Ok(Version::V1_2)),
            (Some("2.0"), Err(ErrorKind::NoCommonVersion)),
            (Some("1.20"), Err(ErrorKind::NoCommonVersion)),
            (Some(""), Err(ErrorKind::NoCommonVersion)),
        ];
        for (accept, expected) in table {
            assert_eq!(
                Version::negotiate(accept),
                expected,
                "accept-version {accept:?}"
            );
        }
    }
}
