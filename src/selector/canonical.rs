//! The canonical text of a selector: parsed again it is the same selector.

use std::fmt::{self, Write};

use super::lexer::needs_quotes;
use super::node::{Literal, Node, NodeId, Program};
use super::value::Arithmetic;

/// How tightly a node binds. An operand that binds no tighter than its place demands gets
/// brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Any,
    All,
    Not,
    Predicate,
    Sum,
    Product,
    Sign,
    Primary,
}

/// Writes a whole program with the prefix that it needs.
pub(super) fn canonical(program: &Program) -> String {
    let mut out = program.conversion.prefix().to_owned();
    if let Some(whole) = program.nodes.len().checked_sub(1) {
        // Writing to a string cannot fail.
        let _ = program.write(whole, &mut out);
    }
    out
}

impl Program {
    fn binding(&self, id: NodeId) -> Binding {
        match &self.nodes[id] {
            Node::Any { .. } => Binding::Any,
            Node::All { .. } => Binding::All,
            Node::Not { .. } => Binding::Not,
            Node::Between { .. }
            | Node::Compare { .. }
            | Node::In { .. }
            | Node::IsNull { .. }
            | Node::Like { .. } => Binding::Predicate,
            Node::Chain { steps, .. } => match self.steps[steps.start].0 {
                Arithmetic::Add | Arithmetic::Subtract => Binding::Sum,
                Arithmetic::Divide | Arithmetic::Multiply => Binding::Product,
            },
            Node::Sign { .. } => Binding::Sign,
            Node::Literal(_) | Node::Property(_) => Binding::Primary,
        }
    }

    /// Writes an operand, in brackets unless it binds tighter than `place`.
    fn write_within(&self, id: NodeId, place: Binding, out: &mut String) -> fmt::Result {
        if self.binding(id) > place {
            return self.write(id, out);
        }
        out.write_char('(')?;
        self.write(id, out)?;
        out.write_char(')')
    }

    fn write(&self, id: NodeId, out: &mut String) -> fmt::Result {
        let binding = self.binding(id);
        match &self.nodes[id] {
            Node::Any { operands } => self.write_logic(operands.clone(), " OR ", binding, out),
            Node::All { operands } => self.write_logic(operands.clone(), " AND ", binding, out),
            Node::Not { operand } => {
                out.write_str("NOT ")?;
                // NOT NOT needs no brackets.
                self.write_within(*operand, Binding::All, out)
            }
            Node::Chain { first, steps } => {
                self.write_within(*first, binding, out)?;
                for (arithmetic, operand) in &self.steps[steps.clone()] {
                    write!(out, " {} ", arithmetic.sign())?;
                    self.write_within(*operand, binding, out)?;
                }
                Ok(())
            }
            Node::Sign {
                is_negative,
                operand,
            } => {
                out.write_char(if *is_negative { '-' } else { '+' })?;
                self.write_within(*operand, binding, out)
            }
            Node::Literal(literal) => write_literal(literal, out),
            Node::Property(name) => write_name(&self.names[*name], out),
            Node::Compare {
                comparison,
                left,
                right,
            } => {
                self.write_within(*left, binding, out)?;
                write!(out, " {} ", comparison.sign())?;
                self.write_within(*right, binding, out)
            }
            Node::Between {
                is_negated,
                value,
                low,
                high,
            } => {
                self.write_within(*value, binding, out)?;
                out.write_str(negation(*is_negated))?;
                out.write_str(" BETWEEN ")?;
                self.write_within(*low, binding, out)?;
                out.write_str(" AND ")?;
                self.write_within(*high, binding, out)
            }
            Node::In { .. } | Node::IsNull { .. } | Node::Like { .. } => self.write_test(id, out),
        }
    }

    /// Writes what tests an identifier.
    fn write_test(&self, id: NodeId, out: &mut String) -> fmt::Result {
        match &self.nodes[id] {
            Node::IsNull { is_negated, name } => {
                write_name(&self.names[*name], out)?;
                write!(out, " IS{} NULL", negation(*is_negated))
            }
            Node::Like {
                is_negated,
                name,
                pattern,
            } => {
                write_name(&self.names[*name], out)?;
                write!(out, "{} LIKE ", negation(*is_negated))?;
                write_quoted(pattern.source(), '\'', out)?;
                let Some(escape) = pattern.escape() else {
                    return Ok(());
                };
                out.write_str(" ESCAPE ")?;
                write_quoted(escape.encode_utf8(&mut [0; 4]), '\'', out)
            }
            Node::In {
                is_negated,
                name,
                texts,
            } => {
                write_name(&self.names[*name], out)?;
                write!(out, "{} IN (", negation(*is_negated))?;
                for (index, text) in texts.iter().enumerate() {
                    out.write_str(if index == 0 { "" } else { ", " })?;
                    write_quoted(text, '\'', out)?;
                }
                out.write_char(')')
            }
            _ => Ok(()),
        }
    }

    fn write_logic(
        &self,
        operands: std::ops::Range<usize>,
        between: &str,
        binding: Binding,
        out: &mut String,
    ) -> fmt::Result {
        for (index, operand) in self.operands[operands].iter().enumerate() {
            out.write_str(if index == 0 { "" } else { between })?;
            self.write_within(*operand, binding, out)?;
        }
        Ok(())
    }
}

const fn negation(is_negated: bool) -> &'static str {
    if is_negated { " NOT" } else { "" }
}

fn write_literal(literal: &Literal, out: &mut String) -> fmt::Result {
    match literal {
        Literal::Bool(true) => out.write_str("TRUE"),
        Literal::Bool(false) => out.write_str("FALSE"),
        // Always with a point or an exponent, and read back to the same bits.
        Literal::Float(value) => write!(out, "{value:?}"),
        Literal::Int(value) => write!(out, "{value}"),
        Literal::Text(text) => write_quoted(text, '\'', out),
    }
}

fn write_name(name: &str, out: &mut String) -> fmt::Result {
    if needs_quotes(name) {
        write_quoted(name, '"', out)
    } else {
        out.write_str(name)
    }
}

fn write_quoted(text: &str, quote: char, out: &mut String) -> fmt::Result {
    out.write_char(quote)?;
    for letter in text.chars() {
        if letter == quote {
            out.write_char(quote)?;
        }
        out.write_char(letter)?;
    }
    out.write_char(quote)
}
