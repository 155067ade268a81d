//! Message selectors: the conditional expressions of Jakarta Messaging 3.1, section 3.8.1.
//!
//! [`Selector::parse`] turns a text into a flat program once; [`Selector::matches`] asks it about
//! one message, whose properties come through [`Properties`]. Invariants:
//! * whatever the text, parsing ends with a selector or a [`ParseError`]: length, nesting and
//!   number of nodes are bounded by `src/limits.rs`;
//! * evaluating allocates nothing, cannot fail, and takes time in proportion to the selector and
//!   the texts it looks at;
//! * the canonical text (`Display`) parses to the same selector; equality and hash are its.
//!
//! Where the specification leaves a choice, `docs/decisions/2026-11-27-selectors.md` says which
//! was made. It refuses to know protocols, messages, and which names are header fields: the
//! property source knows those.

pub mod fuzz;

mod canonical;
mod error;
mod evaluate;
mod lexer;
mod node;
mod number;
mod parser;
mod pattern;
mod value;

pub use error::{ParseError, ParseErrorKind};
pub use value::{Properties, Truth, Value};

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::limits::SELECTOR_SIZE_MAX_BYTES;
use evaluate::Evaluation;
use node::Program;

/// A parsed selector.
#[derive(Clone, Debug)]
pub struct Selector {
    program: Program,
    text: Box<str>,
}

impl Selector {
    /// Parses a selector with the prefixes that ActiveMQ and Artemis take.
    ///
    /// Errors: [`ParseError`], with the place; [`ParseErrorKind::Empty`] if there is nothing.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let program = parser::parse(text)?;
        let canonical = canonical::canonical(&program);
        let max = SELECTOR_SIZE_MAX_BYTES as usize;
        if canonical.len() > max {
            return Err(ParseError::new(text, 0, ParseErrorKind::TooLong { max }));
        }
        Ok(Self {
            program,
            text: canonical.into(),
        })
    }

    /// Parses what a client gave, where nothing means that it wants every message (3.8.1.1).
    ///
    /// Errors: [`ParseError`], as of [`Self::parse`], but never [`ParseErrorKind::Empty`].
    pub fn parse_optional(text: &str) -> Result<Option<Self>, ParseError> {
        match Self::parse(text) {
            Err(error) if *error.kind() == ParseErrorKind::Empty => Ok(None),
            result => result.map(Some),
        }
    }

    /// Tells whether a message is selected: only if the condition is true (3.8.1.1).
    #[inline]
    pub fn matches(&self, properties: &(impl Properties + ?Sized)) -> bool {
        self.evaluate(properties) == Truth::True
    }

    /// Evaluates the condition for one message.
    #[inline]
    pub fn evaluate(&self, properties: &(impl Properties + ?Sized)) -> Truth {
        let program = &self.program;
        Evaluation {
            program,
            properties,
        }
        .run()
    }

    /// Returns the canonical text: one space between words, brackets only where they are needed,
    /// numbers decimal, lists of IN sorted.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the memory it takes, in bytes, to within what the allocator adds.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.program.size_bytes() + self.text.len()
    }

    /// Returns each identifier of the selector once.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.program.names.iter().map(|name| &**name)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests;
