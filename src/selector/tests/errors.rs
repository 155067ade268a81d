//! Every kind of refusal: where it is, and what it says.

use crate::selector::{ParseError, ParseErrorKind, Selector};

const REFUSALS: &str = include_str!("refusals.txt");

fn refusal(text: &str) -> ParseError {
    Selector::parse(text).expect_err(text)
}

#[test]
fn a_refusal_names_place_found_and_expected() {
    let rows = REFUSALS
        .lines()
        .filter(|row| !row.is_empty() && !row.starts_with('#'));
    for row in rows {
        let (text, expected) = row.split_once(" | ").unwrap();
        let expected = format!("Selector, {expected}");
        assert_eq!(refusal(text).to_string(), expected, "{row}");
    }
}

#[test]
fn what_was_found_is_shortened() {
    let text = format!("a = 1 '{}'", "\u{e4}".repeat(100));
    let ParseErrorKind::Unexpected { found, .. } = refusal(&text).kind().clone() else {
        panic!("another kind");
    };
    assert_eq!(*found, format!("'{}...", "\u{e4}".repeat(31)));
}

#[test]
fn each_bound_is_a_refusal() {
    let long = format!("a = '{}'", "x".repeat(8192));
    assert_eq!(
        refusal(&long).kind(),
        &ParseErrorKind::TooLong { max: 8192 }
    );
    // Short as it is written, long in the canonical form, where a space follows each comma.
    let list = |count| {
        let texts: Vec<_> = (0..count).map(|text| format!("'{text}'")).collect();
        format!("a IN({})", texts.join(","))
    };
    assert!(Selector::parse(&list(1100)).is_ok());
    assert!(list(1200).len() < 8192);
    let error = refusal(&list(1200));
    assert_eq!(error.kind(), &ParseErrorKind::TooLong { max: 8192 });

    let brackets = |depth| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Selector::parse(&brackets(64)).is_ok());
    assert_eq!(
        refusal(&brackets(65)).kind(),
        &ParseErrorKind::TooDeep { max: 64 }
    );
    assert_eq!(refusal(&brackets(65)).position(), 65);

    let terms = |count| vec!["a"; count].join(" OR ");
    assert!(Selector::parse(&terms(1023)).is_ok());
    assert_eq!(
        refusal(&terms(1024)).kind(),
        &ParseErrorKind::TooManyNodes { max: 1024 }
    );

    let pieces = |count| format!("a LIKE '{}%'", "%a".repeat(count));
    assert!(Selector::parse(&pieces(1023)).is_ok());
    let error = refusal(&pieces(1024));
    assert_eq!(error.kind(), &ParseErrorKind::TooManyNodes { max: 1024 });

    let pieces = |count| format!("a LIKE '{}%'", "%a_".repeat(count));
    assert!(Selector::parse(&pieces(63)).is_ok());
    assert!(Selector::parse(&pieces(65)).is_err());

    let part = |count: usize| format!("a LIKE '%_{}%'", "x".repeat(count - 1));
    assert!(Selector::parse(&part(64)).is_ok());
    let error = refusal(&part(65));
    assert_eq!(
        error.kind(),
        &ParseErrorKind::PatternPartTooLong { max: 64 }
    );
    assert_eq!(error.position(), 8);
    // Without a search there is no such bound.
    assert!(Selector::parse(&format!("a LIKE '_{0}%{0}%{0}_'", "x".repeat(100))).is_ok());
}
