//! Where the body of a frame ends, and whether it may be there at all.

use memchr::memchr;

use super::command::Command;
use super::error::ErrorKind;
use super::limits::Limits;
use super::version::Version;

/// How long a body is, and may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyRule {
    /// As `content-length` says; none: up to NUL.
    pub(super) length: Option<usize>,
    pub(super) size_max: usize,
    /// What a body breaks that is too long, or is not ended by NUL.
    error_too_long: ErrorKind,
    error_without_nul: ErrorKind,
}

impl BodyRule {
    /// A length beyond the limit is refused here, before a byte of the body is waited for.
    /// Source: STOMP 1.2 "Header content-length", "Size Limits".
    pub(super) fn of_message(
        content_length: Option<u64>,
        limits: &Limits,
    ) -> Result<Self, ErrorKind> {
        let max = limits.message_size_max;
        let error_too_long = ErrorKind::MessageTooLarge { max };
        let length = match content_length {
            None => None,
            Some(length) if length > max => return Err(error_too_long),
            Some(length) => Some(usize::try_from(length).map_err(|_| error_too_long)?),
        };
        Ok(Self {
            length,
            size_max: usize::try_from(max).unwrap_or(usize::MAX),
            error_too_long,
            error_without_nul: ErrorKind::BodyWithoutNul,
        })
    }

    /// Source: STOMP 1.2 "Body": only `SEND` of a client's frames may have one. In 1.0 ("The body
    /// of the SUBSCRIBE command is ignored") it is thrown away, up to the size of a head.
    pub(super) fn of_control(
        command: Command,
        version: Version,
        content_length: Option<u64>,
        limits: &Limits,
    ) -> Result<Self, ErrorKind> {
        let error = ErrorKind::BodyNotAllowed { command };
        let size_max = if version == Version::V1_0 {
            limits.header_bytes_max
        } else {
            0
        };
        let length = match content_length {
            None if version == Version::V1_0 => None,
            None => Some(0),
            Some(length) => Some(usize::try_from(length).map_err(|_| error)?),
        };
        if length.is_some_and(|length| length > size_max) {
            return Err(error);
        }
        Ok(Self {
            length,
            size_max,
            error_too_long: error,
            error_without_nul: error,
        })
    }

    /// Returns the length of the body when its end is in `after`, the bytes behind the head.
    ///
    /// The first `scanned` bytes are known to hold no NUL.
    pub(super) fn end(&self, after: &[u8], scanned: usize) -> Result<Option<usize>, ErrorKind> {
        if let Some(length) = self.length {
            // STOMP 1.2 "Header content-length": this number of octets MUST be read, NULs or
            // not, and the frame still needs to be terminated with NUL.
            return match after.get(length) {
                None => Ok(None),
                Some(0) => Ok(Some(length)),
                Some(_) => Err(self.error_without_nul),
            };
        }
        let unseen = after.get(scanned..).unwrap_or_default();
        let len = memchr(0, unseen).map(|found| scanned + found);
        if len.unwrap_or(after.len()) > self.size_max {
            return Err(self.error_too_long);
        }
        Ok(len)
    }

    /// Returns the rule for what is left when `taken` bytes are gone.
    pub(super) fn remaining(&self, taken: usize) -> Self {
        Self {
            length: self.length.map(|length| length.saturating_sub(taken)),
            size_max: self.size_max.saturating_sub(taken),
            ..*self
        }
    }
}
