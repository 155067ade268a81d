//! What a program says of one message. Nothing is allocated; the depth is that of the program.

use super::node::{Conversion, Node, NodeId, Program};
use super::value::{Comparison, Properties, Truth, Value};

/// One program and one message.
pub(super) struct Evaluation<'a, P: ?Sized> {
    pub(super) program: &'a Program,
    pub(super) properties: &'a P,
}

impl<'a, P: Properties + ?Sized> Evaluation<'a, P> {
    /// The truth of the whole.
    #[inline]
    pub(super) fn run(&self) -> Truth {
        self.truth(self.program.nodes.len() - 1)
    }

    fn truth(&self, id: NodeId) -> Truth {
        match &self.program.nodes[id] {
            Node::All { operands } => {
                let mut least = Truth::True;
                for operand in &self.program.operands[operands.clone()] {
                    least = least.min(self.truth(*operand));
                    if least == Truth::False {
                        break;
                    }
                }
                least
            }
            Node::Any { operands } => {
                let mut greatest = Truth::False;
                for operand in &self.program.operands[operands.clone()] {
                    greatest = greatest.max(self.truth(*operand));
                    if greatest == Truth::True {
                        break;
                    }
                }
                greatest
            }
            Node::Not { operand } => self.truth(*operand).negated(),
            Node::Compare {
                comparison,
                left,
                right,
            } => comparison.apply(self.value(*left), self.value(*right)),
            Node::Between {
                is_negated,
                value,
                low,
                high,
            } => self.between(*is_negated, *value, *low, *high),
            Node::IsNull { is_negated, name } => {
                let is_null = self.property(*name) == Value::Null;
                Truth::from(is_null != *is_negated)
            }
            Node::In {
                is_negated,
                name,
                texts,
            } => self.text_test(*name, *is_negated, |text| {
                texts.binary_search_by(|one| (**one).cmp(text)).is_ok()
            }),
            Node::Like {
                is_negated,
                name,
                pattern,
            } => self.text_test(*name, *is_negated, |text| pattern.matches(text)),
            Node::Chain { .. } | Node::Literal(_) | Node::Property(_) | Node::Sign { .. } => {
                self.value(id).truth()
            }
        }
    }

    /// As the two comparisons that it stands for (3.8.1.1): NOT BETWEEN is outside, not "not
    /// inside", so that values of another type are neither.
    fn between(&self, is_negated: bool, value: NodeId, low: NodeId, high: NodeId) -> Truth {
        let value = self.value(value);
        let (low, high) = (self.value(low), self.value(high));
        if is_negated {
            let below = Comparison::Less.apply(value, low);
            below.max(Comparison::Greater.apply(value, high))
        } else {
            let above = Comparison::GreaterOrEqual.apply(value, low);
            above.min(Comparison::LessOrEqual.apply(value, high))
        }
    }

    /// Tests a string; without one it is unknown, of another type false before the NOT.
    #[inline]
    fn text_test(&self, name: usize, is_negated: bool, test: impl FnOnce(&str) -> bool) -> Truth {
        match self.property(name) {
            Value::Null => Truth::Unknown,
            value => Truth::from(value.string().is_some_and(test)).negated_if(is_negated),
        }
    }

    #[inline]
    fn value(&self, id: NodeId) -> Value<'a> {
        match &self.program.nodes[id] {
            Node::Literal(literal) => literal.value(),
            Node::Property(name) => self.property(*name),
            _ => self.computed(id),
        }
    }

    fn computed(&self, id: NodeId) -> Value<'a> {
        match &self.program.nodes[id] {
            Node::Chain { first, steps } => {
                let steps = &self.program.steps[steps.clone()];
                steps
                    .iter()
                    .fold(self.value(*first), |left, (arithmetic, right)| {
                        arithmetic.apply(left, self.value(*right))
                    })
            }
            Node::Sign {
                is_negative,
                operand,
            } => self.value(*operand).signed(*is_negative),
            _ => self.truth(id).into(),
        }
    }

    #[inline]
    fn property(&self, name: usize) -> Value<'a> {
        let value = self.properties.get(&self.program.names[name]);
        match (self.program.conversion, value) {
            (Conversion::Always, Value::Text(text)) => Value::Untyped(text),
            (Conversion::Never, Value::Untyped(text)) => Value::Text(text),
            _ => value,
        }
    }
}
