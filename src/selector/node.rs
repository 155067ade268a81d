//! A parsed selector: nodes in one flat vector, operands before the operators that use them.

use std::ops::Range;

use super::pattern::Pattern;
use super::value::{Arithmetic, Comparison, Value};

/// Place of a node in [`Program::nodes`].
pub(super) type NodeId = usize;
/// Place of a name in [`Program::names`].
pub(super) type NameId = usize;

/// What a selector does. Nesting is bounded, chains of one operator are one node: so a walk may
/// recurse.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    /// Operands first; the last is the whole.
    pub(super) nodes: Vec<Node>,
    /// Operands of AND and OR.
    pub(super) operands: Vec<NodeId>,
    /// Operators and right operands of arithmetic.
    pub(super) steps: Vec<(Arithmetic, NodeId)>,
    /// Each identifier once.
    pub(super) names: Vec<Box<str>>,
    /// How values of properties are read.
    pub(super) conversion: Conversion,
}

/// What a prefix says about texts next to numbers and booleans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Conversion {
    /// `convert_string_expressions:`: every string property may be read as another type.
    Always,
    /// No prefix: the property's own type decides.
    #[default]
    AsTyped,
    /// `no_convert_string_expressions:`: even a header without a type is only a string.
    Never,
}

/// One operator with its operands, or one operand.
#[derive(Clone, Debug)]
pub(super) enum Node {
    All {
        operands: Range<usize>,
    },
    Any {
        operands: Range<usize>,
    },
    Between {
        is_negated: bool,
        value: NodeId,
        low: NodeId,
        high: NodeId,
    },
    /// `first`, then each step from left to right: all of `+ -`, or all of `* /`.
    Chain {
        first: NodeId,
        steps: Range<usize>,
    },
    Compare {
        comparison: Comparison,
        left: NodeId,
        right: NodeId,
    },
    In {
        is_negated: bool,
        name: NameId,
        /// Sorted, each once.
        texts: Box<[Box<str>]>,
    },
    IsNull {
        is_negated: bool,
        name: NameId,
    },
    Like {
        is_negated: bool,
        name: NameId,
        pattern: Box<Pattern>,
    },
    Literal(Literal),
    Not {
        operand: NodeId,
    },
    Property(NameId),
    Sign {
        is_negative: bool,
        operand: NodeId,
    },
}

// What `src/limits.rs` says of a selector's memory.
const _: () = assert!(size_of::<Node>() <= 56);

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Bool(bool),
    Float(f64),
    Int(i64),
    Text(Box<str>),
}

impl Literal {
    /// As an operand.
    #[inline]
    pub(super) const fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Text(text) => Value::Text(text),
        }
    }
}

/// What is known of an operand before there is a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Condition,
    Number,
    /// A property: anything.
    Property,
    Text,
}

impl Program {
    /// Memory of all parts, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let nodes = self.nodes.iter().map(|node| {
            size_of::<Node>()
                + match node {
                    Node::In { texts, .. } => texts
                        .iter()
                        .map(|text| size_of_val(text) + text.len())
                        .sum(),
                    Node::Like { pattern, .. } => pattern.size_bytes(),
                    Node::Literal(Literal::Text(text)) => text.len(),
                    _ => 0,
                }
        });
        let names = self.names.iter().map(|name| size_of_val(name) + name.len());
        nodes.chain(names).sum::<usize>()
            + size_of_val(self.operands.as_slice())
            + size_of_val(self.steps.as_slice())
    }

    /// The kind of a node's result.
    pub(super) fn kind(&self, id: NodeId) -> Kind {
        match &self.nodes[id] {
            Node::Chain { .. }
            | Node::Literal(Literal::Float(_) | Literal::Int(_))
            | Node::Sign { .. } => Kind::Number,
            Node::Literal(Literal::Text(_)) => Kind::Text,
            Node::Property(_) => Kind::Property,
            Node::All { .. }
            | Node::Any { .. }
            | Node::Between { .. }
            | Node::Compare { .. }
            | Node::In { .. }
            | Node::IsNull { .. }
            | Node::Like { .. }
            | Node::Literal(Literal::Bool(_))
            | Node::Not { .. } => Kind::Condition,
        }
    }
}
