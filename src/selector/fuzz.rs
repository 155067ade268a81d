//! An entry for fuzzers: one text as a selector, asked about one made-up message.
//!
//! It holds what must be true of all input: no panic, a canonical text that is the same selector,
//! the same answer from both, and the opposite answer from its negation.
//! `fuzz/fuzz_targets/selector.rs` and `tests/fuzz_smoke.rs` call it; a broker never does.

use super::{Properties, Selector, Value};

/// What may stand in front of a canonical text.
const PREFIXES: [&str; 2] = [
    "convert_string_expressions:",
    "no_convert_string_expressions:",
];

/// A message whose properties are made of a seed and their name.
struct MadeUp<'t> {
    seed: u8,
    text: &'t str,
}

impl Properties for MadeUp<'_> {
    fn get(&self, name: &str) -> Value<'_> {
        let octets = name.bytes().chain([self.seed]);
        let draw = octets.fold(7_u8, |sum, octet| sum.wrapping_mul(31).wrapping_add(octet));
        match draw % 12 {
            0 => Value::Null,
            1 => Value::Bool(draw >= 128),
            2 => Value::Int(i64::from(draw) - 100),
            3 => Value::Int(i64::MIN),
            4 => Value::Float(f64::from(draw) / 8.0),
            5 => Value::Float(f64::NAN),
            6 => Value::Text("text"),
            7 => Value::Text(self.text),
            8 => Value::Untyped(self.text),
            9 => Value::Untyped("-12"),
            10 => Value::Untyped("1.5e1"),
            _ => Value::Untyped("TRUE"),
        }
    }
}

/// Parses and evaluates, and panics if anything is wrong.
///
/// Shape: `data[0]` seeds the message, the rest is the selector. Returns whether it was one.
/// Panics: when a promise of the selector is broken; that is the finding.
pub fn exercise(data: &[u8]) -> bool {
    let [seed, text @ ..] = data else {
        return false;
    };
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let selector = match Selector::parse(text) {
        Ok(selector) => selector,
        Err(error) => {
            assert!(error.position() <= text.chars().count() + 1, "{error}");
            return false;
        }
    };
    let message = MadeUp { seed: *seed, text };
    let truth = selector.evaluate(&message);
    let canonical = selector.text();
    let again = Selector::parse(canonical).expect("the canonical text is a selector");
    assert_eq!(
        again.text(),
        canonical,
        "the canonical text is not canonical"
    );
    assert_eq!(again.evaluate(&message), truth, "{canonical}");
    let prefix = PREFIXES
        .iter()
        .find(|prefix| canonical.starts_with(**prefix));
    let prefix = prefix.copied().unwrap_or_default();
    let condition = &canonical[prefix.len()..];
    // Brackets and NOT may be what does not fit.
    if let Ok(negated) = Selector::parse(&format!("{prefix}NOT ({condition})")) {
        assert_eq!(negated.evaluate(&message), truth.negated(), "{canonical}");
    }
    true
}
