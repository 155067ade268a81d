//! Words and signs of a selector, one at a time.

use std::borrow::Cow;

use super::error::{ParseError, ParseErrorKind};
use super::number::{self, NumberLiteral};
use super::value::{Arithmetic, Comparison};

/// One word or sign.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'t> {
    Arithmetic(Arithmetic),
    Close,
    Comma,
    Comparison(Comparison),
    End,
    Name(Cow<'t, str>),
    Number(NumberLiteral),
    Open,
    Text(Cow<'t, str>),
    Word(Word),
}

/// Reserved words: case does not matter, and only quotes make names of them (3.8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
}

/// The reserved words as they are written.
const WORDS: [(&str, Word); 11] = [
    ("AND", Word::And),
    ("BETWEEN", Word::Between),
    ("ESCAPE", Word::Escape),
    ("FALSE", Word::False),
    ("IN", Word::In),
    ("IS", Word::Is),
    ("LIKE", Word::Like),
    ("NOT", Word::Not),
    ("NULL", Word::Null),
    ("OR", Word::Or),
    ("TRUE", Word::True),
];

/// Reads one text from its beginning to its end.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    has_hyphens: bool,
}

impl<'t> Lexer<'t> {
    /// Begins at `at` of `text`. With `has_hyphens` a hyphen within a name is a part of it.
    pub(super) const fn new(text: &'t str, at: usize, has_hyphens: bool) -> Self {
        Self {
            text,
            at,
            has_hyphens,
        }
    }

    /// Returns the next word or sign and the byte where it begins.
    pub(super) fn next(&mut self) -> Result<(Token<'t>, usize), ParseError> {
        self.at = self.text.len() - self.rest().trim_start_matches(is_space).len();
        let start = self.at;
        let Some(first) = self.rest().chars().next() else {
            return Ok((Token::End, start));
        };
        let token = match first {
            '\'' => Token::Text(self.quoted(first)?),
            '"' => Token::Name(self.quoted(first)?),
            _ if is_number(self.rest()) => self.number()?,
            _ if is_name_start(first) => self.word(),
            _ => self.sign(first)?,
        };
        if token == Token::Name("".into()) {
            return Err(self.error(start, ParseErrorKind::EmptyName));
        }
        Ok((token, start))
    }

    /// The byte behind what was read last.
    pub(super) const fn end(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Takes as many characters as fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let len = rest.find(|letter| !fits(letter)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// A text or name in quotes; the quote itself is written twice.
    fn quoted(&mut self, quote: char) -> Result<Cow<'t, str>, ParseError> {
        let start = self.at;
        self.at += quote.len_utf8();
        let mut decoded = Cow::Borrowed("");
        loop {
            let part = self.take_while(|letter| letter != quote);
            if self.rest().is_empty() {
                let kind = match quote {
                    '"' => ParseErrorKind::UnterminatedName,
                    _ => ParseErrorKind::UnterminatedText,
                };
                return Err(self.error(start, kind));
            }
            decoded += part;
            self.at += quote.len_utf8();
            if !self.rest().starts_with(quote) {
                return Ok(decoded);
            }
            self.at += quote.len_utf8();
            decoded += if quote == '"' { "\"" } else { "'" };
        }
    }

    /// Takes all that clings to a digit, so that `5abc` is one mistake and not two tokens.
    fn number(&mut self) -> Result<Token<'t>, ParseError> {
        let start = self.at;
        let is_radix = matches!(
            self.rest().as_bytes(),
            [b'0', b'x' | b'X' | b'b' | b'B', ..]
        );
        loop {
            let part = self.take_while(|letter| letter == '.' || is_name_part(letter));
            let is_exponent = !is_radix && part.ends_with(['e', 'E']);
            if !is_exponent || !self.rest().starts_with(['+', '-']) {
                break;
            }
            self.at += 1;
        }
        number::parse(&self.text[start..self.at])
            .map(Token::Number)
            .map_err(|kind| self.error(start, kind))
    }

    fn word(&mut self) -> Token<'t> {
        let has_hyphens = self.has_hyphens;
        let name = self.take_while(|letter| is_name_part(letter) || has_hyphens && letter == '-');
        let word = WORDS
            .iter()
            .find(|(word, _)| name.eq_ignore_ascii_case(word));
        match word {
            Some((_, word)) => Token::Word(*word),
            None => Token::Name(name.into()),
        }
    }

    fn sign(&mut self, first: char) -> Result<Token<'t>, ParseError> {
        let second = self.rest().chars().nth(1);
        let (token, len) = match (first, second) {
            ('<', Some('=')) => (Token::Comparison(Comparison::LessOrEqual), 2),
            ('<', Some('>')) => (Token::Comparison(Comparison::NotEqual), 2),
            ('>', Some('=')) => (Token::Comparison(Comparison::GreaterOrEqual), 2),
            ('<', _) => (Token::Comparison(Comparison::Less), 1),
            ('>', _) => (Token::Comparison(Comparison::Greater), 1),
            ('=', _) => (Token::Comparison(Comparison::Equal), 1),
            ('+', _) => (Token::Arithmetic(Arithmetic::Add), 1),
            ('-', _) => (Token::Arithmetic(Arithmetic::Subtract), 1),
            ('*', _) => (Token::Arithmetic(Arithmetic::Multiply), 1),
            ('/', _) => (Token::Arithmetic(Arithmetic::Divide), 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (',', _) => (Token::Comma, 1),
            (found, _) => {
                let kind = ParseErrorKind::UnexpectedCharacter { found };
                return Err(self.error(self.at, kind));
            }
        };
        self.at += len;
        Ok(token)
    }

    fn error(&self, at: usize, kind: ParseErrorKind) -> ParseError {
        ParseError::new(self.text, at, kind)
    }
}

/// Java's white space (3.8.1.1).
pub(super) const fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\x0c' | '\n' | '\r')
}

fn is_number(rest: &str) -> bool {
    match rest.as_bytes() {
        [b'.', second, ..] => second.is_ascii_digit(),
        [first, ..] => first.is_ascii_digit(),
        [] => false,
    }
}

/// Java's identifier start characters: letters, `_`, `$`, and of other scripts what the standard
/// library can tell; currency signs, connectors and marks that it cannot need quotes.
pub(super) fn is_name_start(letter: char) -> bool {
    matches!(letter, '_' | '$') || letter.is_alphabetic()
}

/// Java's identifier part characters, with the same reserve.
pub(super) fn is_name_part(letter: char) -> bool {
    is_name_start(letter) || letter.is_ascii_digit() || !letter.is_ascii() && letter.is_numeric()
}

/// Whether a name needs quotes: it is a reserved word, or none by the rules.
pub(super) fn needs_quotes(name: &str) -> bool {
    !name.starts_with(is_name_start)
        || !name.chars().all(is_name_part)
        || WORDS
            .iter()
            .any(|(word, _)| name.eq_ignore_ascii_case(word))
}
