//! Syntax of an address, of a pattern of addresses and of one queue of an address. One door for
//! every protocol: what passes here can be journaled, hashed, printed and sent back to a client as
//! it is.

use core::fmt;

use crate::limits::ADDRESS_SIZE_MAX_BYTES;
use crate::pattern::{Pattern, PatternError};

/// Longest address in bytes.
pub const ADDRESS_SIZE_MAX: usize = ADDRESS_SIZE_MAX_BYTES as usize;

/// Between an address and the name of one of its queues, as Artemis has it.
const QUEUE_OF: &str = "::";

/// A checked address: UTF-8, 1 to [`ADDRESS_SIZE_MAX`] bytes, no control characters, and none of
/// the forms that name several addresses or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address<'a>(&'a str);

/// What a checked name can be. The texts are the names as they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name<'a> {
    /// One address.
    Address(Address<'a>),
    /// Every address that it matches ([`Pattern`]); no address looks like it.
    Pattern(&'a str),
    /// `address::queue`: one queue of an address, or of the pattern it is bound to.
    Queue(&'a str),
}

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
    /// Words of a pattern that make none.
    Pattern(PatternError),
    /// It is not one address but another form: refused, so that nothing makes a queue of it.
    Reserved {
        /// What it is.
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
            Self::Pattern(error) => write!(f, "address is a malformed wildcard: {error}"),
            Self::Reserved { form } => write!(f, "address is a {form}, and here one is meant"),
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
        match Name::parse(bytes)? {
            Name::Address(address) => Ok(address),
            Name::Pattern(_) => Err(AddressError::Reserved { form: "wildcard" }),
            Name::Queue(_) => Err(AddressError::Reserved {
                form: "fully qualified queue name",
            }),
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

impl<'a> Name<'a> {
    /// Checks a name, as [`Address::parse`] does, and tells what it is.
    ///
    /// Errors: see [`AddressError`]; of the reserved forms only the comma is left.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AddressError> {
        let Some((address, queue)) = split_queue(bytes) else {
            return Self::of_address(text(bytes)?);
        };
        let whole = core::str::from_utf8(bytes).map_err(not_utf8)?;
        // The address first: of two faults that is the one to name.
        Self::of_address(text(address)?)?;
        text(queue)?;
        Ok(Self::Queue(whole))
    }

    fn of_address(name: &'a str) -> Result<Self, AddressError> {
        if name.contains(',') {
            let form = "composite destination";
            return Err(AddressError::Reserved { form });
        }
        if !has_wildcard(name) {
            return Ok(Self::Address(Address(name)));
        }
        Pattern::parse(name).map_err(AddressError::Pattern)?;
        Ok(Self::Pattern(name))
    }

    /// The name as it was given.
    pub const fn as_str(&self) -> &'a str {
        match self {
            Self::Address(address) => address.as_str(),
            Self::Pattern(text) | Self::Queue(text) => text,
        }
    }

    /// Whether what it names is bound to a pattern of addresses, and so is on every shard.
    pub fn is_everywhere(&self) -> bool {
        match self {
            Self::Address(_) => false,
            Self::Pattern(_) => true,
            Self::Queue(text) => {
                let (address, _) = text.split_once(QUEUE_OF).unwrap_or((text, ""));
                has_wildcard(address)
            }
        }
    }
}

/// The address and the queue in the name of one queue of an address; none in any other name.
pub fn split_queue(name: &[u8]) -> Option<(&[u8], &[u8])> {
    // Nearly every name has no colon at all.
    let mut colons = memchr::memchr_iter(b':', name);
    let at = colons.find(|at| name[*at..].starts_with(QUEUE_OF.as_bytes()))?;
    Some((&name[..at], &name[at + QUEUE_OF.len()..]))
}

fn text(bytes: &[u8]) -> Result<&str, AddressError> {
    if bytes.is_empty() {
        return Err(AddressError::Empty);
    }
    if bytes.len() > ADDRESS_SIZE_MAX {
        return Err(AddressError::TooLong { size: bytes.len() });
    }
    let name = core::str::from_utf8(bytes).map_err(not_utf8)?;
    match name.char_indices().find(|(_, one)| one.is_control()) {
        Some((offset, _)) => Err(AddressError::ControlCharacter { offset }),
        None => Ok(name),
    }
}

fn not_utf8(error: core::str::Utf8Error) -> AddressError {
    AddressError::NotUtf8 {
        offset: error.valid_up_to(),
    }
}

/// Whether it has a word that stands for others. No address has.
fn has_wildcard(name: &str) -> bool {
    name.split('.').any(|word| matches!(word, "*" | ">" | "#"))
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
            (b"a.>.b", AddressError::Pattern(PatternError::NotLast)),
            (b"::b", AddressError::Empty),
            (b"a::", AddressError::Empty),
            (b"a,b::c", reserved("composite destination")),
        ] {
            assert_eq!(Address::parse(bytes), Err(error));
        }
        assert!(Address::parse(&long[1..]).is_ok());
    }

    #[test]
    fn each_form_is_known() {
        for (text, is_everywhere) in [
            ("a.b", false),
            ("a.*", true),
            (">", true),
            ("a::a", false),
            ("a::c.s,*::x", false),
            ("a.#::c.s", true),
        ] {
            let name = Name::parse(text.as_bytes()).expect(text);
            assert_eq!((name.as_str(), name.is_everywhere()), (text, is_everywhere));
        }
        assert_eq!(split_queue(b"a::b::c"), Some((&b"a"[..], &b"b::c"[..])));
        assert_eq!(split_queue(b"a:b:"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_pass_unchanged(bytes: Vec<u8>) {
            if let Ok(name) = Name::parse(&bytes) {
                prop_assert_eq!(name.as_str().as_bytes(), &bytes[..]);
                prop_assert_eq!(
                    Address::parse(&bytes).is_ok(),
                    matches!(name, Name::Address(_))
                );
            }
        }
    }
}
