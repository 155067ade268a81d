//! Generated conditions against an evaluator that knows nothing of the one under test.
//!
//! It follows the words of 3.8.1 over a tree of its own: no short cut, no flat program, options
//! instead of an ordered truth, and patterns tried in every way.

use proptest::prelude::*;

use super::Message;
use crate::selector::{Selector, Truth, Value};

#[derive(Clone, Debug)]
enum Expression {
    And(Box<Self>, Box<Self>),
    Between(bool, Box<Self>, Box<Self>, Box<Self>),
    Compare(&'static str, Box<Self>, Box<Self>),
    Compute(char, Box<Self>, Box<Self>),
    In(bool, usize, Vec<&'static str>),
    IsNull(bool, usize),
    Like(bool, usize, String),
    Literal(Operand),
    Minus(Box<Self>),
    Name(usize),
    Not(Box<Self>),
    Or(Box<Self>, Box<Self>),
}

/// A value as the naive evaluator has it.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Bool(bool),
    Float(f64),
    Int(i64),
    Nothing,
    /// A text and whether it may be read as something else.
    Text(String, bool),
}

const NAMES: [&str; 6] = ["a", "$b", "c_3", "my-header", "or", "\u{e9}t\u{e9}"];

impl Expression {
    /// Writes it with every bracket, so that precedence is not what is tested here.
    fn text(&self) -> String {
        let not = |is_negated: &bool| if *is_negated { "NOT " } else { "" };
        match self {
            Self::And(left, right) => format!("({} AND {})", left.text(), right.text()),
            Self::Or(left, right) => format!("({} OR {})", left.text(), right.text()),
            Self::Not(inner) => format!("(NOT {})", inner.text()),
            Self::Minus(inner) => format!("(-{})", inner.text()),
            Self::Compare(sign, left, right) => {
                format!("({}{sign}{})", left.text(), right.text())
            }
            Self::Compute(sign, left, right) => {
                format!("({} {sign} {})", left.text(), right.text())
            }
            Self::Between(is_negated, value, low, high) => format!(
                "({} {}between {} and {})",
                value.text(),
                not(is_negated),
                low.text(),
                high.text()
            ),
            Self::In(is_negated, name, texts) => {
                let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
                format!(
                    "({} {}IN({}))",
                    named(*name),
                    not(is_negated),
                    texts.join(",")
                )
            }
            Self::Like(is_negated, name, pattern) => format!(
                "({} {}LIKE {} ESCAPE '!')",
                named(*name),
                not(is_negated),
                quoted(pattern)
            ),
            Self::IsNull(is_negated, name) => {
                format!("({} IS {}NULL)", named(*name), not(is_negated))
            }
            Self::Name(name) => named(*name),
            Self::Literal(Operand::Bool(value)) => value.to_string(),
            Self::Literal(Operand::Float(value)) => format!("{value:e}"),
            Self::Literal(Operand::Int(value)) => value.to_string(),
            Self::Literal(Operand::Text(text, _)) => quoted(text),
            Self::Literal(Operand::Nothing) => unreachable!("there is no literal of it"),
        }
    }

    fn truth(&self, message: &[Operand]) -> Option<bool> {
        match self {
            Self::And(left, right) => match (left.truth(message), right.truth(message)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.truth(message), right.truth(message)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(inner) => inner.truth(message).map(|holds| !holds),
            Self::Compare(sign, left, right) => {
                compare(sign, &left.operand(message), &right.operand(message))
            }
            // As the specification spells it out.
            Self::Between(is_negated, value, low, high) => {
                let compare = |sign, bound: &Self| {
                    Self::Compare(sign, value.clone(), Box::new(bound.clone()))
                };
                let (first, second) = if *is_negated {
                    (compare("<", low), compare(">", high))
                } else {
                    (compare(">=", low), compare("<=", high))
                };
                let (first, second) = (Box::new(first), Box::new(second));
                if *is_negated {
                    Self::Or(first, second).truth(message)
                } else {
                    Self::And(first, second).truth(message)
                }
            }
            Self::In(is_negated, name, texts) => match &message[*name] {
                Operand::Nothing => None,
                Operand::Text(text, _) => Some(texts.contains(&text.as_str()) != *is_negated),
                _ => Some(*is_negated),
            },
            Self::Like(is_negated, name, pattern) => match &message[*name] {
                Operand::Nothing => None,
                Operand::Text(text, _) => {
                    let (text, pattern): (Vec<_>, Vec<_>) =
                        (text.chars().collect(), pattern.chars().collect());
                    Some(like(&text, &pattern) != *is_negated)
                }
                _ => Some(*is_negated),
            },
            Self::IsNull(is_negated, name) => {
                Some((message[*name] == Operand::Nothing) != *is_negated)
            }
            Self::Compute(..) | Self::Literal(_) | Self::Minus(_) | Self::Name(_) => {
                compare("=", &self.operand(message), &Operand::Bool(true))
            }
        }
    }

    fn operand(&self, message: &[Operand]) -> Operand {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Name(name) => message[*name].clone(),
            Self::Minus(inner) => match inner.operand(message).number() {
                Some(Operand::Int(value)) => Operand::Int(value.wrapping_neg()),
                Some(Operand::Float(value)) => Operand::Float(-value),
                _ => Operand::Nothing,
            },
            Self::Compute(sign, left, right) => {
                compute(*sign, &left.operand(message), &right.operand(message))
            }
            _ => self.truth(message).map_or(Operand::Nothing, Operand::Bool),
        }
    }
}

impl Operand {
    fn number(&self) -> Option<Self> {
        match self {
            Self::Float(_) | Self::Int(_) => Some(self.clone()),
            Self::Text(text, true)
                if text.chars().all(|letter| "0123456789.e+-".contains(letter)) =>
            {
                let whole = text.parse().map(Self::Int);
                whole.or_else(|_| text.parse().map(Self::Float)).ok()
            }
            _ => None,
        }
    }

    fn float(&self) -> f64 {
        match self {
            Self::Int(value) => *value as f64,
            Self::Float(value) => *value,
            _ => unreachable!("only numbers come here"),
        }
    }

    fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Text(text, true) => text.to_lowercase().parse().ok(),
            _ => None,
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Nothing => Value::Null,
            Self::Text(text, true) => Value::Untyped(text),
            Self::Text(text, false) => Value::Text(text),
        }
    }
}

fn compare(sign: &str, left: &Operand, right: &Operand) -> Option<bool> {
    if *left == Operand::Nothing || *right == Operand::Nothing {
        return None;
    }
    if let (Operand::Text(left, _), Operand::Text(right, _)) = (left, right) {
        match sign {
            "=" => return Some(left == right),
            "<>" => return Some(left != right),
            _ => {}
        }
    }
    if let (Some(left), Some(right)) = (left.number(), right.number()) {
        if let (Operand::Int(left), Operand::Int(right)) = (&left, &right) {
            return Some(ordered(sign, left, right));
        }
        return Some(ordered(sign, &left.float(), &right.float()));
    }
    match (sign, left.bool(), right.bool()) {
        ("=", Some(left), Some(right)) => Some(left == right),
        ("<>", Some(left), Some(right)) => Some(left != right),
        _ => Some(false),
    }
}

fn ordered<T: PartialOrd>(sign: &str, left: &T, right: &T) -> bool {
    match sign {
        "=" => left == right,
        "<>" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    }
}

fn compute(sign: char, left: &Operand, right: &Operand) -> Operand {
    match (left.number(), right.number()) {
        (Some(Operand::Int(left)), Some(Operand::Int(right))) => {
            // What does not fit wraps: computed wide, then cut.
            let (left, right) = (i128::from(left), i128::from(right));
            let wide = match sign {
                '+' => left + right,
                '-' => left - right,
                '*' => left * right,
                _ if right == 0 => return Operand::Nothing,
                _ => left / right,
            };
            Operand::Int(wide as i64)
        }
        (Some(left), Some(right)) => {
            let (left, right) = (left.float(), right.float());
            Operand::Float(match sign {
                '+' => left + right,
                '-' => left - right,
                '*' => left * right,
                _ => left / right,
            })
        }
        _ => Operand::Nothing,
    }
}

/// Tries everything; `!` escapes.
fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['!', plain @ ('%' | '_' | '!'), rest @ ..] => {
            text.first() == Some(plain) && like(&text[1..], rest)
        }
        ['%', rest @ ..] => (0..=text.len()).any(|skipped| like(&text[skipped..], rest)),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        [plain, rest @ ..] => text.first() == Some(plain) && like(&text[1..], rest),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn named(name: usize) -> String {
    match NAMES[name] {
        name @ ("my-header" | "or") => format!("\"{name}\""),
        name => name.to_owned(),
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab%_!\u{e9}]{0,6}",
        Just("it's".to_owned()),
        Just("TRUE".to_owned()),
        Just("false".to_owned()),
        "-?[0-9]{1,2}(\\.[0-9]?)?(e1)?",
    ]
}

fn operands() -> impl Strategy<Value = Operand> {
    prop_oneof![
        any::<bool>().prop_map(Operand::Bool),
        (-4..4_i64).prop_map(Operand::Int),
        any::<i64>().prop_map(Operand::Int),
        (-4..4_i8).prop_map(|value| Operand::Float(f64::from(value) / 2.0)),
        any::<f64>()
            .prop_filter("a literal", |value| value.is_finite())
            .prop_map(Operand::Float),
        texts().prop_map(|text| Operand::Text(text, false)),
    ]
}

fn properties() -> impl Strategy<Value = Operand> {
    prop_oneof![
        Just(Operand::Nothing),
        Just(Operand::Float(f64::NAN)),
        operands(),
        operands(),
        texts().prop_map(|text| Operand::Text(text, true)),
        texts().prop_map(|text| Operand::Text(text, true)),
    ]
}

fn names() -> impl Strategy<Value = Expression> {
    (0..NAMES.len()).prop_map(Expression::Name)
}

/// What can be a number, or a property that is none.
fn numbers() -> impl Strategy<Value = Expression> {
    let literals = operands()
        .prop_filter("a number", |value| value.number().is_some())
        .prop_map(Expression::Literal);
    prop_oneof![names(), literals].prop_recursive(3, 12, 2, |inner| {
        let pair = (
            prop::sample::select(vec!['+', '-', '*', '/']),
            inner.clone(),
            inner.clone(),
        );
        prop_oneof![
            inner.prop_map(|inner| Expression::Minus(Box::new(inner))),
            pair.prop_map(|(sign, left, right)| {
                Expression::Compute(sign, Box::new(left), Box::new(right))
            }),
        ]
    })
}

fn conditions() -> impl Strategy<Value = Expression> {
    let boxed = |inner| Box::new(inner);
    let equals = || {
        let either = || prop_oneof![numbers(), operands().prop_map(Expression::Literal)];
        (prop::sample::select(vec!["=", "<>"]), either(), either())
    };
    let orders = (
        prop::sample::select(vec!["<", "<=", ">", ">="]),
        numbers(),
        numbers(),
    );
    let texts_of_list =
        prop::collection::vec(prop::sample::select(vec!["a", "it's", "1", "b%"]), 1..4);
    let leaf = prop_oneof![
        names(),
        any::<bool>().prop_map(|value| Expression::Literal(Operand::Bool(value))),
        equals().prop_map(move |(sign, left, right)| {
            Expression::Compare(sign, boxed(left), boxed(right))
        }),
        orders.prop_map(move |(sign, left, right)| {
            Expression::Compare(sign, boxed(left), boxed(right))
        }),
        (any::<bool>(), numbers(), numbers(), numbers()).prop_map(
            move |(is_negated, value, low, high)| {
                Expression::Between(is_negated, boxed(value), boxed(low), boxed(high))
            }
        ),
        (any::<bool>(), 0..NAMES.len(), texts_of_list)
            .prop_map(|(is_negated, name, texts)| Expression::In(is_negated, name, texts)),
        (any::<bool>(), 0..NAMES.len(), "[ab%%_!\u{e9}]{0,8}")
            .prop_map(|(is_negated, name, pattern)| Expression::Like(is_negated, name, pattern)),
        (any::<bool>(), 0..NAMES.len())
            .prop_map(|(is_negated, name)| Expression::IsNull(is_negated, name)),
    ];
    leaf.prop_recursive(4, 24, 2, move |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone()
                .prop_map(move |(left, right)| Expression::And(boxed(left), boxed(right))),
            pair.clone()
                .prop_map(move |(left, right)| Expression::Or(boxed(left), boxed(right))),
            pair.prop_map(move |(left, right)| {
                Expression::Compare("=", boxed(left), boxed(right))
            }),
            inner.prop_map(move |inner| Expression::Not(boxed(inner))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_condition_says_what_the_naive_evaluator_says(
        condition in conditions(),
        message in prop::collection::vec(properties(), NAMES.len()),
    ) {
        let expected = match condition.truth(&message) {
            Some(holds) => Truth::from(holds),
            None => Truth::Unknown,
        };
        let values = NAMES.into_iter().zip(message.iter().map(Operand::value));
        let properties = Message(values.collect());
        let selector = Selector::parse(&condition.text()).unwrap();
        prop_assert_eq!(selector.evaluate(&properties), expected, "{}", &selector);
        // And so does the canonical text, with fewer brackets.
        let again = Selector::parse(selector.text()).unwrap();
        prop_assert_eq!(again.text(), selector.text());
        prop_assert_eq!(again.evaluate(&properties), expected, "{}", &again);
        prop_assert_eq!(again, selector);
    }

    #[test]
    fn a_pattern_matches_what_trying_everything_matches(
        text in "[ab\u{e9}]{0,10}",
        pattern in "[ab%%_\u{e9}]{0,8}",
    ) {
        let prepared = crate::selector::pattern::Pattern::new(&pattern, Some('!')).unwrap();
        let letters: Vec<_> = text.chars().collect();
        let expected = like(&letters, &pattern.chars().collect::<Vec<_>>());
        prop_assert_eq!(prepared.matches(&text), expected);
    }
}
