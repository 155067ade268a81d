//! Why a text is no selector: always the client's fault.

use std::fmt;

/// A selector that was refused: where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    position: usize,
    kind: ParseErrorKind,
}

/// Every way in which a text can fail to be a selector.
///
/// Source: Jakarta Messaging 3.1, 3.8.1.1, but for the bounds, which are `src/limits.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// Nothing but white space and prefixes: no selector at all.
    Empty,
    /// `""` names nothing.
    EmptyName,
    /// `ESCAPE` is followed by a text that is not exactly one character.
    EscapeNotOneCharacter,
    /// Digits that are no number: `09`, `1.2.3`, `0x`, `5abc`.
    MalformedNumber {
        /// The digits and what clings to them, shortened.
        found: Box<str>,
    },
    /// An operand that can never be true or false.
    NotACondition {
        /// The operator that wants one; none at the top.
        operator: Option<&'static str>,
    },
    /// An operand that can never be a number.
    NotANumber {
        /// The operator that wants one.
        operator: &'static str,
    },
    /// `IN`, `LIKE` or `IS NULL` behind anything but an identifier.
    NotAnIdentifier {
        /// The operator that wants one.
        operator: &'static str,
    },
    /// A number that neither a Java long nor a Java double holds.
    NumberOutOfRange {
        /// The digits, shortened.
        found: Box<str>,
    },
    /// Between two `%` of a pattern with `_` in it there are too many characters.
    PatternPartTooLong {
        /// The limit in characters.
        max: usize,
    },
    /// Brackets or signs within each other beyond the limit.
    TooDeep {
        /// The limit in levels.
        max: usize,
    },
    /// The text, or its canonical form, is too long.
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// Too many operators and operands.
    TooManyNodes {
        /// The limit.
        max: usize,
    },
    /// Another word or sign than the grammar allows here.
    Unexpected {
        /// What stands there, shortened; empty at the end of the text.
        found: Box<str>,
        /// What could stand there.
        expected: &'static str,
    },
    /// A character that begins nothing.
    UnexpectedCharacter {
        /// The character.
        found: char,
    },
    /// A name in double quotes without its end.
    UnterminatedName,
    /// A text in single quotes without its end.
    UnterminatedText,
}

/// Characters of the refused text that an error repeats.
const FOUND_CHARACTERS_MAX: usize = 32;

impl ParseError {
    /// Makes the error for the place `at` (bytes) of `text`.
    pub(super) fn new(text: &str, at: usize, kind: ParseErrorKind) -> Self {
        let before = text.get(..at).unwrap_or(text);
        Self {
            position: before.chars().count() + 1,
            kind,
        }
    }

    /// Returns where it was found: the number of a character, the first is 1.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Returns what is wrong.
    pub const fn kind(&self) -> &ParseErrorKind {
        &self.kind
    }
}

/// Shortens a part of the text for an error.
pub(super) fn shorten(found: &str) -> Box<str> {
    match found.char_indices().nth(FOUND_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &found[..end]).into(),
        None => found.into(),
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector, character {}: {}", self.position, self.kind)
    }
}

/// The sentence: what is wrong and what would be right.
impl fmt::Display for ParseErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no condition."),
            Self::EmptyName => f.write_str("a name in double quotes is empty."),
            Self::EscapeNotOneCharacter => {
                f.write_str("ESCAPE takes a text of exactly one character.")
            }
            Self::MalformedNumber { found } => write!(f, "{found} is not a number."),
            Self::NotACondition { operator: None } => {
                f.write_str("this is a value, expected a condition.")
            }
            Self::NotACondition {
                operator: Some(operator),
            } => write!(f, "this is a value, {operator} takes conditions."),
            Self::NotANumber { operator } => {
                write!(f, "{operator} takes numbers, this can never be one.")
            }
            Self::NotAnIdentifier { operator } => write!(f, "{operator} follows an identifier."),
            Self::NumberOutOfRange { found } => {
                write!(f, "{found} is out of the range of numbers.")
            }
            Self::PatternPartTooLong { max } => write!(
                f,
                "a part of a pattern with _ between two % may have {max} characters at most."
            ),
            Self::TooDeep { max } => write!(f, "brackets may nest {max} levels at most."),
            Self::TooLong { max } => write!(f, "a selector may have {max} bytes at most."),
            Self::TooManyNodes { max } => {
                write!(
                    f,
                    "a selector may have {max} operators and operands at most."
                )
            }
            Self::Unexpected { found, expected } if found.is_empty() => {
                write!(f, "found the end, expected {expected}.")
            }
            Self::Unexpected { found, expected } => {
                write!(f, "found {found}, expected {expected}.")
            }
            Self::UnexpectedCharacter { found } => write!(f, "{found:?} has no meaning here."),
            Self::UnterminatedName => f.write_str("a name lacks its closing double quote."),
            Self::UnterminatedText => f.write_str("a text lacks its closing single quote."),
        }
    }
}

impl std::error::Error for ParseError {}
