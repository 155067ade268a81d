//! Texts and patterns that mean harm: bounded work, bounded stack, no panic.

use proptest::prelude::*;

use super::Message;
use crate::selector::pattern::Pattern;
use crate::selector::{Selector, Value, fuzz};

/// Looks at the text while matching, in bytes.
fn looks(pattern: &str, text: &str) -> (bool, usize) {
    let mut bytes = 0;
    let matches = Pattern::new(pattern, None)
        .unwrap()
        .walk(text, &mut |len| bytes += len);
    (matches, bytes)
}

#[test]
fn a_pattern_looks_at_a_text_once() {
    let text = "a".repeat(100_000);
    for (pattern, matches) in [
        ("%a%a%a%a%b", false),
        ("%a%a%a%a%b%", false),
        ("%a%a%a%a%", true),
        ("%aaaaaaaaaaaaaaaab%", false),
        ("%a_a_a_a_a_a_a_ab%", false),
        ("%_%_%_%_%_%_%_%b%", false),
        ("%_a%_a%_a%_a%a_", true),
        ("a_a%a_b%_", false),
    ] {
        let (found, bytes) = looks(pattern, &text);
        assert_eq!(found, matches, "{pattern}");
        assert!(bytes <= text.len(), "{pattern} looked at {bytes} bytes");
    }
    // As many pieces as a selector can have.
    let (found, bytes) = looks(&"%a_".repeat(2000), &text);
    assert!(found && bytes <= text.len(), "{bytes}");
}

#[test]
fn nesting_is_refused_before_it_hurts() {
    // A thread with little stack: the deepest selector that is taken is parsed, written and
    // evaluated on it, and deeper ones are refused.
    let small = std::thread::Builder::new().stack_size(512 << 10);
    let run = small.spawn(|| {
        let deep = |depth: usize, open: &str, inner: &str, close: &str, end: &str| {
            let text = format!("{}{inner}{}{end}", open.repeat(depth), close.repeat(depth));
            let parsed = Selector::parse(&text);
            parsed.map(|selector| selector.matches(&Message(vec![("a", Value::Int(1))])))
        };
        for (levels, open, inner, close, end) in [
            (1, "(", "a = 1", ")", ""),
            (1, "NOT (", "a = 1", ")", ""),
            (2, "b AND (c OR NOT (", "a = 1", "))", ""),
            (1, "b OR NOT NOT c AND NOT NOT 1 = (", "a = 1", ")", ""),
            (1, "1 + 2 * -(", "a", ")", " = 0"),
        ] {
            assert!(deep(64 / levels, open, inner, close, end).is_ok(), "{open}");
            assert!(
                deep(64 / levels + 1, open, inner, close, end).is_err(),
                "{open}"
            );
        }
        for (open, inner) in [
            ("(", ""),
            ("NOT ", "a"),
            ("-(", "a"),
            ("a=(", "a"),
            ("- ", "a=1"),
        ] {
            for depth in [100, 1000, 2000, 100_000] {
                let _ = deep(depth, open, inner, "", "");
            }
        }
        assert_eq!(deep(2000, "NOT ", "a = 1", "", ""), Ok(true));
        assert_eq!(
            deep(1, "a = ", &format!("{}1", "- ".repeat(2000)), "", ""),
            Ok(true)
        );
        let chain = format!("{}1 = a + 511", "1 + ".repeat(500));
        assert!(
            !Selector::parse(&chain)
                .unwrap()
                .matches(&Message::default())
        );
    });
    run.unwrap().join().unwrap();
}

proptest! {
    #[test]
    fn any_text_is_a_selector_or_a_refusal(text in "\\PC*", seed: u8) {
        fuzz::exercise(&[&[seed][..], text.as_bytes()].concat());
    }

    #[test]
    fn any_words_are_a_selector_or_a_refusal(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..20),
        seed: u8,
    ) {
        fuzz::exercise(&[&[seed][..], words.concat().as_bytes()].concat());
    }
}

const WORDS: [&str; 40] = [
    "a",
    "b ",
    "\"c-d\"",
    "'x'",
    "''",
    "'%_%'",
    "1",
    "0x",
    ".5",
    "1e9",
    "5L",
    " ",
    "(",
    ")",
    "=",
    "<>",
    "<",
    ">=",
    "+",
    "-",
    "*",
    "/",
    ",",
    " AND ",
    " OR ",
    "NOT ",
    " BETWEEN ",
    " IN ('x')",
    " IN (",
    " LIKE ",
    " LIKE 'a%' ESCAPE 'a'",
    " ESCAPE ",
    " IS NULL",
    " IS NOT NULL",
    "TRUE",
    "false",
    "'",
    "\"",
    "convert_string_expressions:",
    "hyphenated_props:",
];
