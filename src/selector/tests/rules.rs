//! One row per rule, in `typed.txt` and `untyped.txt`: what it says of one message of a protocol
//! with types, and of one without.

use super::{Message, letter};
use crate::selector::{Selector, Truth, Value};

/// A message as AMQP or OpenWire has it.
fn typed() -> Message<'static> {
    Message(vec![
        ("JMSType", Value::Text("car")),
        ("JMSPriority", Value::Int(4)),
        ("color", Value::Text("blue")),
        ("weight", Value::Int(2501)),
        ("price", Value::Float(9.5)),
        ("isNew", Value::Bool(true)),
        ("isSold", Value::Bool(false)),
        ("digits", Value::Text("2")),
        ("phone", Value::Text("12993")),
        ("underscored", Value::Text("_foo")),
        ("least", Value::Int(i64::MIN)),
        ("greatest", Value::Int(i64::MAX)),
        ("nan", Value::Float(f64::NAN)),
        ("single", Value::Float(0.1_f32 as f64)),
        ("my-header", Value::Text("h")),
        ("a.b", Value::Int(1)),
        ("say \"x\"", Value::Int(2)),
        ("and", Value::Int(3)),
        ("$_1", Value::Int(5)),
        ("\u{e4}\u{df}", Value::Int(6)),
        ("empty", Value::Text("")),
        ("lines", Value::Text("a\nb")),
        ("cent", Value::Text("100%")),
        ("back", Value::Text("a\\b")),
        ("umlaut", Value::Text("z\u{fc}g")),
    ])
}

/// The same as headers of STOMP.
fn untyped() -> Message<'static> {
    Message(vec![
        ("color", Value::Untyped("blue")),
        ("weight", Value::Untyped("2501")),
        ("price", Value::Untyped("9.50")),
        ("isNew", Value::Untyped("true")),
        ("isSold", Value::Untyped("False")),
        ("digits", Value::Untyped("2")),
        ("also", Value::Untyped("2")),
        ("same", Value::Untyped("2.0")),
        ("large", Value::Untyped("9223372036854775808")),
        ("odd", Value::Untyped("1e1")),
        ("hex", Value::Untyped("0x10")),
        ("infinite", Value::Untyped("Infinity")),
        ("spaced", Value::Untyped(" 2")),
        ("signed", Value::Untyped("+2")),
        ("empty", Value::Untyped("")),
        ("point", Value::Untyped(".")),
    ])
}

const TYPED: &str = include_str!("typed.txt");
const UNTYPED: &str = include_str!("untyped.txt");

/// Checks each row of a table.
fn check(rows: &str, message: &Message<'_>) {
    let mut wrong = Vec::new();
    let rows = rows
        .lines()
        .filter(|row| !row.is_empty() && !row.starts_with('#'));
    for row in rows {
        let mut cells = row.split(" | ");
        let (Some(expected), Some(text), Some(_), None) =
            (cells.next(), cells.next(), cells.next(), cells.next())
        else {
            panic!("not three cells: {row}");
        };
        let found = match Selector::parse(text) {
            Ok(selector) => {
                let again = Selector::parse(selector.text()).unwrap();
                assert_eq!(again, selector, "{row}");
                let truth = selector.evaluate(message);
                assert_eq!(again.evaluate(message), truth, "{row}");
                assert_eq!(selector.matches(message), truth == Truth::True, "{row}");
                letter(truth)
            }
            Err(_) => '!',
        };
        if found.to_string() != expected {
            wrong.push(format!("{row}: {found}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn rules_hold_for_a_protocol_with_types() {
    check(TYPED, &typed());
}

#[test]
fn rules_hold_for_headers_without_types() {
    check(UNTYPED, &untyped());
}

/// Tables 3-4, 3-5 and 3-6 of 3.8.1.2, whole.
#[test]
fn truth_tables_are_those_of_the_specification() {
    const OPERANDS: [(&str, char); 3] = [("TRUE", 'T'), ("FALSE", 'F'), ("missing", 'U')];
    const AND: [&str; 3] = ["TFU", "FFF", "UFU"];
    const OR: [&str; 3] = ["TTT", "TFU", "TUU"];
    let message = Message::default();
    let ask = |text: &str| letter(Selector::parse(text).unwrap().evaluate(&message));
    for (row, (left, _)) in OPERANDS.iter().enumerate() {
        for (column, (right, _)) in OPERANDS.iter().enumerate() {
            let cell = |table: [&str; 3]| table[row].chars().nth(column).unwrap();
            assert_eq!(
                ask(&format!("{left} AND {right}")),
                cell(AND),
                "{left} AND {right}"
            );
            assert_eq!(
                ask(&format!("{left} OR {right}")),
                cell(OR),
                "{left} OR {right}"
            );
        }
    }
    for ((operand, _), expected) in OPERANDS.iter().zip("FTU".chars()) {
        assert_eq!(ask(&format!("NOT {operand}")), expected);
    }
}

#[test]
fn canonical_texts_are_tidy() {
    for (text, expected) in [
        ("a=1", "a = 1"),
        ("((a))  =  (1+2)*3", "a = (1 + 2) * 3"),
        ("a in('c','a','b','a')", "a IN ('a', 'b', 'c')"),
        ("not not not a", "NOT a"),
        ("NOT (NOT (a))", "NOT NOT a"),
        ("a = - - 5", "a = 5"),
        ("a = -(5)", "a = -5"),
        ("a = 0x10L OR b = 1e2", "a = 16 OR b = 100.0"),
        ("(a AND b) OR c AND (d OR e)", "a AND b OR c AND (d OR e)"),
        ("(a OR b) OR c", "(a OR b) OR c"),
        (
            "\"a\" = 1 AND \"a-b\" = \"or\"",
            "a = 1 AND \"a-b\" = \"or\"",
        ),
        ("hyphenated_props:a-b = 1", "\"a-b\" = 1"),
        (
            " no_hyphenated_props:convert_string_expressions:a='it''s'",
            "convert_string_expressions:a = 'it''s'",
        ),
        ("a not like 'x!%' escape '!'", "a NOT LIKE 'x!%' ESCAPE '!'"),
        ("a is not null", "a IS NOT NULL"),
        ("a = (b > 1)", "a = (b > 1)"),
        ("-(a+b) = +a", "-(a + b) = +a"),
        ("NOT (a = 1)", "NOT a = 1"),
    ] {
        assert_eq!(Selector::parse(text).unwrap().text(), expected);
    }
}

/// 3.8.1.1: space, horizontal tab, form feed and line terminator.
#[test]
fn white_space_is_that_of_java() {
    let selector = Selector::parse("\t\x0c\r\ncolor\n=\n'blue' ").unwrap();
    assert_eq!(selector.text(), "color = 'blue'");
    assert!(Selector::parse("color\u{a0}= 'blue'").is_err());
}

#[test]
fn each_name_is_told_once() {
    let selector = Selector::parse("a > 1 AND b IN ('x') AND a < 5 AND \"b\" IS NULL").unwrap();
    assert_eq!(selector.names().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn nothing_selects_everything() {
    for text in [
        "",
        " \t\r\n",
        "convert_string_expressions:",
        " hyphenated_props: ",
    ] {
        assert_eq!(Selector::parse_optional(text), Ok(None), "{text:?}");
    }
    assert!(Selector::parse_optional("TRUE").unwrap().is_some());
    assert!(Selector::parse_optional("a =").is_err());
}
