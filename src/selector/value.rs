//! Values of properties, three-valued truth, and what operators make of them.

use std::cmp::Ordering;

use super::number::looks_like;

/// Value of a property or header field, borrowed from its message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// A boolean.
    Bool(bool),
    /// A float or double; a float is widened, as Java does.
    Float(f64),
    /// A byte, short, int or long: all are 64 bits here.
    Int(i64),
    /// Not there, or without a value.
    #[default]
    Null,
    /// A string of a protocol that has types: never a number, whatever it looks like.
    Text(&'a str),
    /// A header of a protocol without types: a string, but next to a number or a boolean it is
    /// read as one if it looks like one.
    Untyped(&'a str),
}

/// Where the values of a message come from.
pub trait Properties {
    /// Looks up a name, case sensitive; [`Value::Null`] if the message has none of it.
    fn get(&self, name: &str) -> Value<'_>;
}

/// What a condition comes to. Ordered so that AND is the least and OR the greatest.
///
/// Source: Jakarta Messaging 3.1, 3.8.1.2, tables 3-4 to 3-6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    /// It does not hold.
    False,
    /// A value is missing that would decide it.
    Unknown,
    /// It holds.
    True,
}

impl Truth {
    /// Table 3-6: NOT leaves unknown as it is.
    #[must_use]
    pub const fn negated(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }

    /// Negates where `is_negated`.
    pub(super) const fn negated_if(self, is_negated: bool) -> Self {
        if is_negated { self.negated() } else { self }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

impl Comparison {
    /// The operator as it is written.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::NotEqual => "<>",
        }
    }

    /// Whether it orders, which only numbers can be (3.8.1.1).
    pub(super) const fn orders(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }

    /// `None` is the order of a NaN: Java lets it differ from everything and nothing else.
    fn holds(self, order: Option<Ordering>) -> bool {
        let Some(order) = order else {
            return self == Self::NotEqual;
        };
        match self {
            Self::Equal => order.is_eq(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::NotEqual => order.is_ne(),
        }
    }

    /// Compares two values: unknown if one is missing, false if their types are unlike (3.8.1.1).
    #[inline]
    pub(super) fn apply(self, left: Value<'_>, right: Value<'_>) -> Truth {
        match (left, right) {
            (Value::Null, _) | (_, Value::Null) => Truth::Unknown,
            (Value::Int(left), Value::Int(right)) => self.holds(Some(left.cmp(&right))).into(),
            (
                Value::Text(left) | Value::Untyped(left),
                Value::Text(right) | Value::Untyped(right),
            ) if !self.orders() => ((left == right) == (self == Self::Equal)).into(),
            _ => self.apply_converted(left, right).into(),
        }
    }

    /// The less usual pairs: numbers of two kinds, booleans, headers without a type.
    fn apply_converted(self, left: Value<'_>, right: Value<'_>) -> bool {
        if let (Some(left), Some(right)) = (left.number(), right.number()) {
            return self.holds(left.compare(right));
        }
        match (left.boolean(), right.boolean()) {
            (Some(left), Some(right)) => !self.orders() && (left == right) == (self == Self::Equal),
            _ => false,
        }
    }
}

/// Arithmetic operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Divide,
    Multiply,
    Subtract,
}

impl Arithmetic {
    /// The operator as it is written.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Divide => "/",
            Self::Multiply => "*",
            Self::Subtract => "-",
        }
    }

    /// Computes; null if an operand is none or no number, or an integer is divided by zero.
    pub(super) fn apply<'a>(self, left: Value<'_>, right: Value<'_>) -> Value<'a> {
        let (Some(left), Some(right)) = (left.number(), right.number()) else {
            return Value::Null;
        };
        if let (Number::Int(left), Number::Int(right)) = (left, right) {
            return match self {
                Self::Add => Value::Int(left.wrapping_add(right)),
                Self::Divide if right == 0 => Value::Null,
                Self::Divide => Value::Int(left.wrapping_div(right)),
                Self::Multiply => Value::Int(left.wrapping_mul(right)),
                Self::Subtract => Value::Int(left.wrapping_sub(right)),
            };
        }
        let (left, right) = (left.widened(), right.widened());
        Value::Float(match self {
            Self::Add => left + right,
            Self::Divide => left / right,
            Self::Multiply => left * right,
            Self::Subtract => left - right,
        })
    }
}

/// A value that is a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Float(f64),
    Int(i64),
}

impl Number {
    /// Java's promotion: next to a double, a long becomes one.
    const fn widened(self) -> f64 {
        match self {
            Self::Float(value) => value,
            Self::Int(value) => value as f64,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(&right)),
            _ => self.widened().partial_cmp(&other.widened()),
        }
    }
}

impl<'a> Value<'a> {
    /// Reads a number where one is wanted.
    pub(super) fn number(self) -> Option<Number> {
        match self {
            Self::Float(value) => Some(Number::Float(value)),
            Self::Int(value) => Some(Number::Int(value)),
            Self::Untyped(text) => looks_like(text),
            Self::Bool(_) | Self::Null | Self::Text(_) => None,
        }
    }

    /// Reads a boolean where one is wanted.
    fn boolean(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            Self::Untyped(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::Untyped(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    /// Reads a string where one is wanted.
    pub(super) fn string(self) -> Option<&'a str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }

    /// What a value says as a condition: the same as `= TRUE`.
    pub(super) fn truth(self) -> Truth {
        match self {
            Self::Null => Truth::Unknown,
            _ => (self.boolean() == Some(true)).into(),
        }
    }

    /// The number with a sign in front; null if it is none.
    pub(super) fn signed(self, is_negative: bool) -> Self {
        match self.number() {
            Some(Number::Int(value)) if is_negative => Self::Int(value.wrapping_neg()),
            Some(Number::Float(value)) if is_negative => Self::Float(-value),
            Some(Number::Int(value)) => Self::Int(value),
            Some(Number::Float(value)) => Self::Float(value),
            None => Self::Null,
        }
    }
}

/// A condition as an operand of `=` and `<>`.
impl From<Truth> for Value<'_> {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::False => Self::Bool(false),
            Truth::Unknown => Self::Null,
            Truth::True => Self::Bool(true),
        }
    }
}
