//! Syntax of an address. One door for every protocol: what passes here can be journaled, hashed,
//! printed and sent back to a client as it is.

use core::fmt;

use crate::limits::ADDRESS_SIZE_MAX_BYTES;

/// Longest address in bytes.
pub const ADDRESS_SIZE_MAX: usize = ADDRESS_SIZE_MAX_BYTES as usize;

/// A checked address: UTF-8, 1 to [`ADDRESS_SIZE_MAX`] bytes, no control characters, and none of
/// the forms that will name several addresses or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address<'a>(&'a str);

/// Why a name is no address. The client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// A control character (among them NUL and line ends) at this byte.
    ControlCharacter {
        /// Byte offset.
        offset: usize,
    },
    /// No name at all.
    Empty,
    /// Not UTF-8 from this byte on.
    NotUtf8 {
        /// Byte offset.
        offset: usize,
    },
    /// A form with a meaning that is not built yet: refused, so that nothing makes a queue of it.
    Reserved {
        /// What it would be.
        form: &'static str,
    },
    /// More than [`ADDRESS_SIZE_MAX`] bytes.
    TooLong {
        /// Bytes found.
        size: usize,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlCharacter { offset } => {
                write!(f, "address has a control character at byte {offset}")
            }
            Self::Empty => write!(f, "address is empty"),
            Self::NotUtf8 { offset } => write!(f, "address is not UTF-8 at byte {offset}"),
            Self::Reserved { form } => write!(f, "address is a {form}: not supported yet"),
            Self::TooLong { size } => {
                write!(
                    f,
                    "address of {size} bytes is longer than {ADDRESS_SIZE_MAX}"
                )
            }
        }
    }
}

impl core::error::Error for AddressError {}

impl<'a> Address<'a> {
    /// Checks a name, without the prefix by which a protocol tells queues from topics.
    ///
    /// Errors: see [`AddressError`].
    /// Source: the reserved forms are those of ActiveMQ: words `*`, `>` and `#` between dots
    /// (wildcards), a comma (composite destination), `::` (fully qualified queue name).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AddressError> {
        if bytes.is_empty() {
            return Err(AddressError::Empty);
        }
        if bytes.len() > ADDRESS_SIZE_MAX {
            return Err(AddressError::TooLong { size: bytes.len() });
        }
        let name = core::str::from_utf8(bytes).map_err(|error| AddressError::NotUtf8 {
            offset: error.valid_up_to(),
        })?;
        if let Some((offset, _)) = name.char_indices().find(|(_, one)| one.is_control()) {
            return Err(AddressError::ControlCharacter { offset });
        }
        match reserved_form(name) {
            Some(form) => Err(AddressError::Reserved { form }),
            None => Ok(Self(name)),
        }
    }

    /// The name.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// The name as journaled.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

fn reserved_form(name: &str) -> Option<&'static str> {
    if name.contains(',') {
        return Some("composite destination");
    }
    if name.contains("::") {
        return Some("fully qualified queue name");
    }
    let is_wildcard = name.split('.').any(|word| matches!(word, "*" | ">" | "#"));
    is_wildcard.then_some("wildcard")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_pass_as_they_are() {
        for name in [
            "a",
            "orders.eu",
            "a/b c",
            "\u{e4}\u{4e2d}",
            "a*b",
            "x>y",
            "n#1",
            ":",
            "a:b",
        ] {
            let address = Address::parse(name.as_bytes()).map(|address| address.as_bytes());
            assert_eq!(address, Ok(name.as_bytes()));
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let long = [b'x'; ADDRESS_SIZE_MAX + 1];
        let reserved = |form| AddressError::Reserved { form };
        for (bytes, error) in [
            (&b""[..], AddressError::Empty),
            (&long, AddressError::TooLong { size: 1025 }),
            (b"ab\xff", AddressError::NotUtf8 { offset: 2 }),
            (b"a\0", AddressError::ControlCharacter { offset: 1 }),
            (b"\r\n", AddressError::ControlCharacter { offset: 0 }),
            (b"a,b", reserved("composite destination")),
            (b"a::b", reserved("fully qualified queue name")),
            (b"*", reserved("wildcard")),
            (b"a.>", reserved("wildcard")),
            (b"a.#.b", reserved("wildcard")),
        ] {
            assert_eq!(Address::parse(bytes), Err(error));
        }
        assert!(Address::parse(&long[1..]).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_pass_unchanged(bytes: Vec<u8>) {
            if let Ok(address) = Address::parse(&bytes) {
                prop_assert_eq!(address.as_bytes(), &bytes[..]);
            }
        }
    }
}
