//! Patterns of LIKE, prepared once so that matching takes time in proportion to the text.
//!
//! A pattern is cut at its `%`. The first and the last piece are compared where they must stand;
//! those between are searched from left to right, each behind the one before, and the leftmost
//! place of each is as good as any other. So no place is tried twice: a piece of plain characters
//! is found in linear time, one with `_` in it by shift-and over one machine word. A finder
//! prepared for each plain piece was 2 ns faster on a short text, not worth its memory.

use memchr::memmem;

use super::error::ParseErrorKind;
use crate::limits::{SELECTOR_MIXED_PIECE_NODES, SELECTOR_PATTERN_PART_MAX};

/// A prepared pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    source: Box<str>,
    escape: Option<char>,
    head: Piece,
    middle: Box<[Search]>,
    /// None: the pattern has no `%`, its head is all.
    tail: Option<Piece>,
}

/// One character of a pattern; none is `_`.
type Item = Option<char>;

/// A piece whose place is known.
#[derive(Clone, Debug)]
enum Piece {
    Mixed(Box<[Item]>),
    Plain(Box<str>),
}

/// A piece whose place is searched.
#[derive(Clone, Debug)]
enum Search {
    Mixed(ShiftAnd),
    Plain(Box<str>),
}

/// Finds a piece of up to 64 characters in one pass: bit `i` says that the first `i + 1` of them
/// end at the character just read.
#[derive(Clone, Debug)]
struct ShiftAnd {
    /// Places of `_`, where every character fits.
    any: u64,
    /// Places where this character fits, by character, `any` included.
    fits: Box<[(char, u64)]>,
    /// The last place.
    last: u64,
}

impl Pattern {
    /// Prepares a pattern. The escape takes the meaning from a `%`, `_` or itself behind it;
    /// before anything else it is a character like others.
    pub(super) fn new(source: &str, escape: Option<char>) -> Result<Self, ParseErrorKind> {
        let mut pieces = cut(source, escape);
        let head = Piece::new(pieces.remove(0));
        let tail = pieces.pop().map(Piece::new);
        let middle = pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .map(Search::new)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            source: source.into(),
            escape,
            head,
            middle,
            tail,
        })
    }

    /// The text it was made of.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Its escape character.
    pub(super) const fn escape(&self) -> Option<char> {
        self.escape
    }

    /// Returns how many nodes the pieces count as that are searched.
    pub(super) fn weight(&self) -> usize {
        let weights = self.middle.iter().map(|search| match search {
            Search::Mixed(_) => SELECTOR_MIXED_PIECE_NODES as usize,
            Search::Plain(_) => 1,
        });
        weights.sum()
    }

    /// Returns the memory it takes, in bytes, or a little more: a searched character takes 16.
    pub(super) fn size_bytes(&self) -> usize {
        let pieces = self.middle.len() * size_of::<Search>();
        size_of::<Self>() + pieces + self.source.len() * (1 + size_of::<(char, u64)>())
    }

    /// Tells whether all of `text` fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.walk(text, &mut |_| {})
    }

    /// Tells the same; `look` hears of each look at the text how many bytes it passed.
    pub(super) fn walk(&self, text: &str, look: &mut impl FnMut(usize)) -> bool {
        let Some(mut rest) = self.head.behind(text) else {
            return false;
        };
        look(text.len() - rest.len());
        let Some(tail) = &self.tail else {
            return rest.is_empty();
        };
        let Some(before) = tail.before(rest) else {
            return false;
        };
        look(rest.len() - before.len());
        rest = before;
        for search in &self.middle {
            let Some(behind) = search.behind(rest) else {
                look(rest.len());
                return false;
            };
            look(rest.len() - behind.len());
            rest = behind;
        }
        true
    }
}

/// Cuts at each `%` that is not escaped: at least one piece.
fn cut(source: &str, escape: Option<char>) -> Vec<Vec<Item>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut letters = source.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_escape = Some(letter) == escape;
        let escaped = letters
            .next_if(|next| is_escape && (matches!(next, '%' | '_') || Some(*next) == escape));
        match (escaped, letter) {
            (Some(escaped), _) => piece.push(Some(escaped)),
            (None, '%') if !is_escape => pieces.push(std::mem::take(&mut piece)),
            (None, '_') if !is_escape => piece.push(None),
            (None, _) => piece.push(Some(letter)),
        }
    }
    pieces.push(piece);
    pieces
}

impl Piece {
    fn new(items: Vec<Item>) -> Self {
        match items.iter().copied().collect::<Option<String>>() {
            Some(plain) => Self::Plain(plain.into()),
            None => Self::Mixed(items.into()),
        }
    }

    /// What follows the piece at the beginning of `text`.
    fn behind<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            // Comparing nothing costs 150 ns where its address is none: masked loads take a fault.
            Self::Plain(plain) if plain.is_empty() => Some(text),
            Self::Plain(plain) => text.strip_prefix(&**plain),
            Self::Mixed(items) => {
                let mut letters = text.chars();
                let fits = items.iter().all(|item| fits(*item, letters.next()));
                fits.then_some(letters.as_str())
            }
        }
    }

    /// What precedes the piece at the end of `text`.
    fn before<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Plain(plain) if plain.is_empty() => Some(text),
            Self::Plain(plain) => text.strip_suffix(&**plain),
            Self::Mixed(items) => {
                let mut letters = text.chars();
                let fits = items
                    .iter()
                    .rev()
                    .all(|item| fits(*item, letters.next_back()));
                fits.then_some(letters.as_str())
            }
        }
    }
}

fn fits(item: Item, letter: Option<char>) -> bool {
    letter.is_some() && (item.is_none() || item == letter)
}

impl Search {
    fn new(items: Vec<Item>) -> Result<Self, ParseErrorKind> {
        if let Some(plain) = items.iter().copied().collect::<Option<String>>() {
            return Ok(Self::Plain(plain.into()));
        }
        let max = SELECTOR_PATTERN_PART_MAX as usize;
        if items.len() > max {
            return Err(ParseErrorKind::PatternPartTooLong { max });
        }
        Ok(Self::Mixed(ShiftAnd::new(&items)))
    }

    /// What follows the first place where the piece is found.
    fn behind<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Plain(plain) => {
                let at = memmem::find(text.as_bytes(), plain.as_bytes())?;
                text.get(at + plain.len()..)
            }
            Self::Mixed(search) => search.behind(text),
        }
    }
}

impl ShiftAnd {
    fn new(items: &[Item]) -> Self {
        let places = |wanted: Item| {
            let fits = items
                .iter()
                .enumerate()
                .filter(|(_, item)| **item == wanted);
            fits.fold(0, |places, (place, _)| places | 1 << place)
        };
        let any: u64 = places(None);
        let mut letters: Vec<char> = items.iter().copied().flatten().collect();
        letters.sort_unstable();
        letters.dedup();
        let fits = letters
            .into_iter()
            .map(|letter| (letter, any | places(Some(letter))))
            .collect();
        Self {
            any,
            fits,
            last: 1 << (items.len() - 1),
        }
    }

    fn behind<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut begun = 0_u64;
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let found = self.fits.binary_search_by_key(&letter, |(fit, _)| *fit);
            let fits = found.map_or(self.any, |index| self.fits[index].1);
            begun = (begun << 1 | 1) & fits;
            if begun & self.last != 0 {
                return Some(letters.as_str());
            }
        }
        None
    }
}
