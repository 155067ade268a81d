//! Selectors against the specification, against an evaluator written another way, and against
//! texts that mean harm.

use super::{Properties, Truth, Value};

mod errors;
mod harm;
mod properties;
mod rules;

/// A message of a protocol with or without types.
#[derive(Clone, Debug, Default)]
struct Message<'a>(Vec<(&'a str, Value<'a>)>);

impl Properties for Message<'_> {
    fn get(&self, name: &str) -> Value<'_> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or(Value::Null, |(_, value)| *value)
    }
}

/// `T`, `F` or `U`, as the tables of 3.8.1.2 have it.
fn letter(truth: Truth) -> char {
    match truth {
        Truth::False => 'F',
        Truth::True => 'T',
        Truth::Unknown => 'U',
    }
}
