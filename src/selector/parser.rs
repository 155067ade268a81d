//! The grammar, by recursive descent with bounded nesting.
//!
//! ```text
//! any     = all { OR all }
//! all     = not { AND not }
//! not     = { NOT } predicate
//! predicate = sum [ comparison sum | [NOT] BETWEEN sum AND sum | IS [NOT] NULL
//!           | [NOT] IN ( text { , text } ) | [NOT] LIKE text [ ESCAPE text ] ]
//! sum     = product { (+ | -) product }
//! product = signed { (* | /) signed }
//! signed  = { + | - } ( number | text | TRUE | FALSE | identifier | ( any ) )
//! ```
//!
//! Source: Jakarta Messaging 3.1, 3.8.1.1.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::error::{ParseError, ParseErrorKind, shorten};
use super::lexer::{Lexer, Token, Word, is_space};
use super::node::{Conversion, Kind, Literal, NameId, Node, NodeId, Program};
use super::number::NumberLiteral;
use super::pattern::Pattern;
use super::value::{Arithmetic, Comparison};
use crate::limits::{SELECTOR_DEPTH_MAX, SELECTOR_NODES_MAX, SELECTOR_SIZE_MAX_BYTES};

const CONVERT: &str = "convert_string_expressions:";
const NO_CONVERT: &str = "no_convert_string_expressions:";
const HYPHENS: &str = "hyphenated_props:";
const NO_HYPHENS: &str = "no_hyphenated_props:";

/// Parses a whole selector with its prefixes.
pub(super) fn parse(text: &str) -> Result<Program, ParseError> {
    let max = SELECTOR_SIZE_MAX_BYTES as usize;
    if text.len() > max {
        return Err(ParseError::new(text, 0, ParseErrorKind::TooLong { max }));
    }
    let (start, conversion, has_hyphens) = read_prefixes(text);
    let mut parser = Parser {
        text,
        lexer: Lexer::new(text, start, has_hyphens),
        token: Token::End,
        at: start,
        depth: 0,
        searches: 0,
        known: BTreeMap::new(),
        program: Program {
            conversion,
            ..Program::default()
        },
    };
    parser.advance()?;
    if parser.token == Token::End {
        return Err(parser.error(ParseErrorKind::Empty));
    }
    let at = parser.at;
    let whole = parser.any()?;
    parser.expect_end()?;
    parser.check_condition(whole, at, None)?;
    Ok(parser.program)
}

/// Reads the prefixes in front: where the selector begins, and what they say. The last wins.
fn read_prefixes(text: &str) -> (usize, Conversion, bool) {
    let (mut conversion, mut has_hyphens) = (Conversion::AsTyped, false);
    let mut rest = text.trim_start_matches(is_space);
    loop {
        if let Some(behind) = rest.strip_prefix(CONVERT) {
            (rest, conversion) = (behind, Conversion::Always);
        } else if let Some(behind) = rest.strip_prefix(NO_CONVERT) {
            (rest, conversion) = (behind, Conversion::Never);
        } else if let Some(behind) = rest.strip_prefix(HYPHENS) {
            (rest, has_hyphens) = (behind, true);
        } else if let Some(behind) = rest.strip_prefix(NO_HYPHENS) {
            (rest, has_hyphens) = (behind, false);
        } else {
            return (text.len() - rest.len(), conversion, has_hyphens);
        }
    }
}

impl Conversion {
    /// The prefix that says so.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Always => CONVERT,
            Self::AsTyped => "",
            Self::Never => NO_CONVERT,
        }
    }
}

/// One token ahead.
struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    token: Token<'t>,
    /// Where `token` begins.
    at: usize,
    /// Brackets around `token`.
    depth: u32,
    /// What the searched pieces of patterns count as, in nodes.
    searches: usize,
    /// Numbers of the names met before.
    known: BTreeMap<Cow<'t, str>, NameId>,
    program: Program,
}

impl<'t> Parser<'t> {
    fn any(&mut self) -> Result<NodeId, ParseError> {
        self.logic(Word::Or, "OR", Self::all)
    }

    fn all(&mut self) -> Result<NodeId, ParseError> {
        self.logic(Word::And, "AND", Self::not)
    }

    /// Operands between one logical operator: one is itself, more are one node.
    fn logic(
        &mut self,
        word: Word,
        operator: &'static str,
        operand: fn(&mut Self) -> Result<NodeId, ParseError>,
    ) -> Result<NodeId, ParseError> {
        let mut at = self.at;
        let mut operands = vec![operand(self)?];
        while self.token == Token::Word(word) {
            let last = operands.last().copied().unwrap_or_default();
            self.check_condition(last, at, Some(operator))?;
            self.advance()?;
            at = self.at;
            let next = operand(self)?;
            self.check_condition(next, at, Some(operator))?;
            operands.push(next);
        }
        if let [only] = *operands {
            return Ok(only);
        }
        let start = self.program.operands.len();
        self.program.operands.append(&mut operands);
        let operands = start..self.program.operands.len();
        self.push(if word == Word::Or {
            Node::Any { operands }
        } else {
            Node::All { operands }
        })
    }

    fn not(&mut self) -> Result<NodeId, ParseError> {
        let mut count = 0_u32;
        while self.take(&Token::Word(Word::Not))? {
            count += 1;
        }
        let at = self.at;
        let mut operand = self.predicate()?;
        if count > 0 {
            self.check_condition(operand, at, Some("NOT"))?;
        }
        for _ in 0..count {
            operand = self.negated(operand)?;
        }
        Ok(operand)
    }

    /// Three NOTs are one; two are not none, for they make a condition of a property.
    fn negated(&mut self, operand: NodeId) -> Result<NodeId, ParseError> {
        if let Node::Not { operand: inner } = self.program.nodes[operand]
            && matches!(self.program.nodes[inner], Node::Not { .. })
        {
            self.program.nodes.truncate(operand);
            return Ok(inner);
        }
        self.push(Node::Not { operand })
    }

    fn predicate(&mut self) -> Result<NodeId, ParseError> {
        let at = self.at;
        let left = self.sum()?;
        if let Token::Comparison(comparison) = self.token {
            return self.comparison(left, at, comparison);
        }
        if self.take(&Token::Word(Word::Is))? {
            let name = self.name(left, at, "IS NULL")?;
            let is_negated = self.take(&Token::Word(Word::Not))?;
            self.expect(&Token::Word(Word::Null), "NULL or NOT NULL")?;
            return self.push(Node::IsNull { is_negated, name });
        }
        let is_negated = self.take(&Token::Word(Word::Not))?;
        match self.token {
            Token::Word(Word::Between) => self.between(left, at, is_negated),
            Token::Word(Word::In) => self.list(left, at, is_negated),
            Token::Word(Word::Like) => self.like(left, at, is_negated),
            _ if is_negated => Err(self.unexpected("BETWEEN, IN or LIKE")),
            _ => Ok(left),
        }
    }

    fn comparison(
        &mut self,
        left: NodeId,
        left_at: usize,
        comparison: Comparison,
    ) -> Result<NodeId, ParseError> {
        self.advance()?;
        let at = self.at;
        let right = self.sum()?;
        if comparison.orders() {
            self.check_number(left, left_at, comparison.sign())?;
            self.check_number(right, at, comparison.sign())?;
        }
        self.push(Node::Compare {
            comparison,
            left,
            right,
        })
    }

    fn between(
        &mut self,
        value: NodeId,
        at: usize,
        is_negated: bool,
    ) -> Result<NodeId, ParseError> {
        self.check_number(value, at, "BETWEEN")?;
        self.advance()?;
        let at = self.at;
        let low = self.sum()?;
        self.check_number(low, at, "BETWEEN")?;
        self.expect(&Token::Word(Word::And), "AND and the upper bound")?;
        let at = self.at;
        let high = self.sum()?;
        self.check_number(high, at, "BETWEEN")?;
        self.push(Node::Between {
            is_negated,
            value,
            low,
            high,
        })
    }

    fn list(&mut self, left: NodeId, at: usize, is_negated: bool) -> Result<NodeId, ParseError> {
        let name = self.name(left, at, "IN")?;
        self.advance()?;
        self.expect(&Token::Open, "( and a list of texts")?;
        let mut texts: Vec<Box<str>> = Vec::new();
        loop {
            texts.push(self.text("a text in single quotes")?.into());
            if !self.take(&Token::Comma)? {
                break;
            }
        }
        self.expect(&Token::Close, ", or )")?;
        texts.sort_unstable();
        texts.dedup();
        self.push(Node::In {
            is_negated,
            name,
            texts: texts.into(),
        })
    }

    fn like(&mut self, left: NodeId, at: usize, is_negated: bool) -> Result<NodeId, ParseError> {
        let name = self.name(left, at, "LIKE")?;
        self.advance()?;
        let pattern_at = self.at;
        let source = self.text("a pattern in single quotes")?;
        let mut escape = None;
        if self.take(&Token::Word(Word::Escape))? {
            let at = self.at;
            let text = self.text("a character in single quotes")?;
            let mut letters = text.chars();
            escape = letters.next();
            if escape.is_none() || letters.next().is_some() {
                return Err(self.error_at(at, ParseErrorKind::EscapeNotOneCharacter));
            }
        }
        let pattern = Pattern::new(&source, escape);
        let pattern = Box::new(pattern.map_err(|kind| self.error_at(pattern_at, kind))?);
        self.searches += pattern.weight();
        self.push(Node::Like {
            is_negated,
            name,
            pattern,
        })
    }

    fn sum(&mut self) -> Result<NodeId, ParseError> {
        self.chain(&[Arithmetic::Add, Arithmetic::Subtract], Self::product)
    }

    fn product(&mut self) -> Result<NodeId, ParseError> {
        self.chain(&[Arithmetic::Multiply, Arithmetic::Divide], Self::signed)
    }

    fn chain(
        &mut self,
        operators: &[Arithmetic; 2],
        operand: fn(&mut Self) -> Result<NodeId, ParseError>,
    ) -> Result<NodeId, ParseError> {
        let at = self.at;
        let first = operand(self)?;
        let mut steps = Vec::new();
        while let Token::Arithmetic(arithmetic) = self.token
            && operators.contains(&arithmetic)
        {
            if steps.is_empty() {
                self.check_number(first, at, arithmetic.sign())?;
            }
            self.advance()?;
            let at = self.at;
            let next = operand(self)?;
            self.check_number(next, at, arithmetic.sign())?;
            steps.push((arithmetic, next));
        }
        if steps.is_empty() {
            return Ok(first);
        }
        let start = self.program.steps.len();
        self.program.steps.append(&mut steps);
        let steps = start..self.program.steps.len();
        self.push(Node::Chain { first, steps })
    }

    /// A sign before a number belongs to the number; two minuses are one plus.
    fn signed(&mut self) -> Result<NodeId, ParseError> {
        let (mut last, mut is_negative) = (None, false);
        while let Token::Arithmetic(sign @ (Arithmetic::Add | Arithmetic::Subtract)) = self.token {
            last = Some(sign);
            is_negative ^= sign == Arithmetic::Subtract;
            self.advance()?;
        }
        let at = self.at;
        let operand = self.primary(is_negative)?;
        let Some(last) = last else {
            return Ok(operand);
        };
        self.check_number(operand, at, last.sign())?;
        match &mut self.program.nodes[operand] {
            Node::Literal(Literal::Int(value)) if is_negative => *value = value.wrapping_neg(),
            Node::Literal(Literal::Float(value)) if is_negative => *value = -*value,
            Node::Literal(_) => {}
            _ => {
                return self.push(Node::Sign {
                    is_negative,
                    operand,
                });
            }
        }
        Ok(operand)
    }

    fn primary(&mut self, is_negative: bool) -> Result<NodeId, ParseError> {
        let literal = match &mut self.token {
            Token::Open => return self.bracketed(),
            Token::Name(name) => {
                let name = std::mem::take(name);
                self.advance()?;
                let name = self.name_id(name);
                return self.push(Node::Property(name));
            }
            Token::Number(NumberLiteral::Decimal(value)) => {
                let value = *value;
                // The least long is written as minus and one more than the greatest.
                if value > i64::MAX.cast_unsigned() + u64::from(is_negative) {
                    let found = shorten(&self.text[self.at..self.lexer.end()]);
                    return Err(self.error(ParseErrorKind::NumberOutOfRange { found }));
                }
                Literal::Int(value.cast_signed())
            }
            Token::Number(NumberLiteral::Radix(value)) => Literal::Int(*value),
            Token::Number(NumberLiteral::Float(value)) => Literal::Float(*value),
            Token::Text(text) => Literal::Text(std::mem::take(text).into()),
            Token::Word(Word::True) => Literal::Bool(true),
            Token::Word(Word::False) => Literal::Bool(false),
            _ => return Err(self.unexpected("an identifier, a value or (")),
        };
        self.advance()?;
        self.push(Node::Literal(literal))
    }

    fn bracketed(&mut self) -> Result<NodeId, ParseError> {
        if self.depth == SELECTOR_DEPTH_MAX {
            let max = SELECTOR_DEPTH_MAX as usize;
            return Err(self.error(ParseErrorKind::TooDeep { max }));
        }
        self.depth += 1;
        self.advance()?;
        let inner = self.any()?;
        self.expect(&Token::Close, "an operator or )")?;
        self.depth -= 1;
        Ok(inner)
    }

    /// The name of an operand that has to be an identifier; its node is not needed.
    fn name(
        &mut self,
        operand: NodeId,
        at: usize,
        operator: &'static str,
    ) -> Result<NameId, ParseError> {
        let Node::Property(name) = self.program.nodes[operand] else {
            return Err(self.error_at(at, ParseErrorKind::NotAnIdentifier { operator }));
        };
        self.program.nodes.truncate(operand);
        Ok(name)
    }

    /// The number of a name, the same for the same name.
    fn name_id(&mut self, name: Cow<'t, str>) -> NameId {
        let names = &mut self.program.names;
        *self.known.entry(name).or_insert_with_key(|name| {
            names.push(name.as_ref().into());
            names.len() - 1
        })
    }

    fn text(&mut self, expected: &'static str) -> Result<Cow<'t, str>, ParseError> {
        let Token::Text(text) = &mut self.token else {
            return Err(self.unexpected(expected));
        };
        let text = std::mem::take(text);
        self.advance()?;
        Ok(text)
    }

    fn check_condition(
        &self,
        operand: NodeId,
        at: usize,
        operator: Option<&'static str>,
    ) -> Result<(), ParseError> {
        match self.program.kind(operand) {
            Kind::Condition | Kind::Property => Ok(()),
            Kind::Number | Kind::Text => {
                Err(self.error_at(at, ParseErrorKind::NotACondition { operator }))
            }
        }
    }

    fn check_number(
        &self,
        operand: NodeId,
        at: usize,
        operator: &'static str,
    ) -> Result<(), ParseError> {
        match self.program.kind(operand) {
            Kind::Number | Kind::Property => Ok(()),
            Kind::Condition | Kind::Text => {
                Err(self.error_at(at, ParseErrorKind::NotANumber { operator }))
            }
        }
    }

    fn push(&mut self, node: Node) -> Result<NodeId, ParseError> {
        let max = SELECTOR_NODES_MAX as usize;
        if self.program.nodes.len() + self.searches >= max {
            return Err(self.error(ParseErrorKind::TooManyNodes { max }));
        }
        self.program.nodes.push(node);
        Ok(self.program.nodes.len() - 1)
    }

    fn advance(&mut self) -> Result<(), ParseError> {
        (self.token, self.at) = self.lexer.next()?;
        Ok(())
    }

    /// Takes the token if it is this one.
    fn take(&mut self, token: &Token<'_>) -> Result<bool, ParseError> {
        let is_it = self.token == *token;
        if is_it {
            self.advance()?;
        }
        Ok(is_it)
    }

    fn expect(&mut self, token: &Token<'_>, expected: &'static str) -> Result<(), ParseError> {
        if self.take(token)? {
            Ok(())
        } else {
            Err(self.unexpected(expected))
        }
    }

    fn expect_end(&mut self) -> Result<(), ParseError> {
        if self.token == Token::End {
            Ok(())
        } else {
            Err(self.unexpected("an operator or the end"))
        }
    }

    fn unexpected(&self, expected: &'static str) -> ParseError {
        let found = self.text.get(self.at..self.lexer.end()).unwrap_or_default();
        let found = shorten(found);
        self.error(ParseErrorKind::Unexpected { found, expected })
    }

    fn error(&self, kind: ParseErrorKind) -> ParseError {
        self.error_at(self.at, kind)
    }

    fn error_at(&self, at: usize, kind: ParseErrorKind) -> ParseError {
        ParseError::new(self.text, at, kind)
    }
}
