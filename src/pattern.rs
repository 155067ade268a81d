//! Patterns of addresses: `orders.*`, `orders.#`.
//!
//! A pattern is words with dots between. `*` is exactly one word; `#` (Artemis) and, as the last
//! word, `>` (ActiveMQ) are any number of words, none included: `a.#` matches `a`. Every other
//! word is itself. An address is cut into words the same way, so `a..b` has an empty one.
//!
//! Patterns have a total order: the greater one is more specific. It is decided by the first place
//! at which they differ in kind (a literal word beats `*`, that beats the pattern's end, that beats
//! `#`), and if there is none by their texts. So the address itself beats every wildcard.

use core::cmp::Ordering;
use core::fmt;

/// A checked pattern. Two ways to write the same (`a.#` and `a.>`, `#.*` and `*.#`) are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    words: Box<[Word]>,
}

/// One word. The kinds are in order, the least specific first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Word {
    /// `#`: any number of words, none included.
    Any,
    /// `*`: exactly one.
    Single,
    /// Itself.
    Literal(Box<[u8]>),
}

/// Why a text is no pattern. Whoever wrote it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing was written.
    Empty,
    /// A wildcard letter and others in one word: nobody agrees what it would mean.
    Mixed {
        /// The wildcard.
        wildcard: char,
    },
    /// `>` is not the last word.
    NotLast,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the pattern is empty"),
            Self::Mixed { wildcard } => {
                write!(f, "{wildcard:?} stands alone between dots, never in a word")
            }
            Self::NotLast => write!(f, "'>' stands only at the end; '#' may stand anywhere"),
        }
    }
}

impl core::error::Error for PatternError {}

impl Pattern {
    /// Reads a pattern.
    ///
    /// Errors: [`PatternError`].
    /// Source: the wildcard syntax of Artemis with its default letters; `>` as ActiveMQ has it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let count = text.split('.').count();
        let mut words = Vec::with_capacity(count);
        for (index, word) in text.split('.').enumerate() {
            match word {
                ">" if index + 1 < count => return Err(PatternError::NotLast),
                "#" | ">" => {
                    if words.last() != Some(&Word::Any) {
                        words.push(Word::Any);
                    }
                }
                // `#.*` is `*.#`: in a run of wildcards those for one word go first.
                "*" if words.last() == Some(&Word::Any) => {
                    words.insert(words.len() - 1, Word::Single);
                }
                "*" => words.push(Word::Single),
                literal => {
                    if let Some(wildcard) = literal.chars().find(|one| "*#>".contains(*one)) {
                        return Err(PatternError::Mixed { wildcard });
                    }
                    words.push(Word::Literal(literal.as_bytes().into()));
                }
            }
        }
        Ok(Self {
            words: words.into(),
        })
    }

    /// Whether it names one address only.
    pub fn is_literal(&self) -> bool {
        self.words
            .iter()
            .all(|word| matches!(word, Word::Literal(_)))
    }

    /// Whether the address is one of those it means.
    ///
    /// Cost: no allocation. A `#` takes as few words as will do, and only the last one met ever
    /// takes more: at most words of the pattern times words of the address.
    pub fn matches(&self, address: &[u8]) -> bool {
        let mut words = &*self.words;
        let mut rest = Some(address);
        // Where to go on when what follows the last `#` does not fit: it takes one word more.
        let mut retry = None;
        loop {
            let fits = match words.split_first() {
                Some((Word::Any, behind)) => {
                    words = behind;
                    retry = Some((behind, rest));
                    continue;
                }
                Some((word, behind)) => rest.and_then(|rest| {
                    let (first, others) = split_word(rest);
                    let is_same = match word {
                        Word::Literal(literal) => **literal == *first,
                        Word::Any | Word::Single => true,
                    };
                    is_same.then_some((behind, others))
                }),
                None if rest.is_none() => return true,
                None => None,
            };
            (words, rest) = match (fits, retry) {
                (Some(next), _) => next,
                (None, Some((behind, Some(left)))) => {
                    let (_, others) = split_word(left);
                    retry = Some((behind, others));
                    (behind, others)
                }
                (None, _) => return false,
            };
        }
    }
}

/// The first word of what is left of an address, and what is left behind it; none is its end.
fn split_word(rest: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'.', rest) {
        Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
        None => (rest, None),
    }
}

impl Word {
    /// What a pattern has at a place where it may have ended; the greater one is more specific.
    const fn rank(word: Option<&Self>) -> u8 {
        match word {
            Some(Self::Any) => 0,
            None => 1,
            Some(Self::Single) => 2,
            Some(Self::Literal(_)) => 3,
        }
    }
}

impl Ord for Pattern {
    /// Greater is more specific.
    fn cmp(&self, other: &Self) -> Ordering {
        let places = self.words.len().max(other.words.len());
        let rank = |pattern: &Self, place| Word::rank(pattern.words.get(place));
        (0..places)
            .map(|place| rank(self, place).cmp(&rank(other, place)))
            .find(|order| order.is_ne())
            // All kinds are the same, and so is the length.
            .unwrap_or_else(|| self.words.cmp(&other.words))
    }
}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            match word {
                Word::Any => f.write_str("#")?,
                Word::Single => f.write_str("*")?,
                Word::Literal(text) => f.write_str(&String::from_utf8_lossy(text))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Word by word, trying everything.
    fn matches_naively(pattern: &[&str], address: &[&str]) -> bool {
        match pattern.split_first() {
            None => address.is_empty(),
            Some((&("#" | ">"), behind)) => {
                (0..=address.len()).any(|taken| matches_naively(behind, &address[taken..]))
            }
            Some((word, behind)) => address.split_first().is_some_and(|(first, others)| {
                (*word == "*" || word == first) && matches_naively(behind, others)
            }),
        }
    }

    #[test]
    fn words_match_as_artemis_and_activemq_say() {
        let table = [
            ("news.#", "news", true),
            ("news.#", "news.europe.sport", true),
            ("news.#", "newsletter", false),
            ("news.>", "news.europe", true),
            ("news.*", "news", false),
            ("news.*", "news.europe", true),
            ("news.*", "news.europe.sport", false),
            ("news.*.sport", "news.europe.sport", true),
            ("#.sport", "sport", true),
            ("#.sport", "news.europe.sport", true),
            ("#", "anything.at.all", true),
            ("*", "a..b", false),
            ("a.*.b", "a..b", true),
            ("a.b", "a.b.", false),
        ];
        for (text, address, expected) in table {
            let found = pattern(text).matches(address.as_bytes());
            assert_eq!(found, expected, "{text} {address}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let table = [
            ("", PatternError::Empty),
            ("a*.b", PatternError::Mixed { wildcard: '*' }),
            ("a.##", PatternError::Mixed { wildcard: '#' }),
            ("a.>.b", PatternError::NotLast),
        ];
        for (text, error) in table {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_more_specific_is_greater() {
        let table = [
            "#", "#.b.#", "#.b", "*.#", "*", "*.b", "a.#", "a", "a.*.#", "a.*", "a.*.c", "a.b.#",
            "a.b", "a.b.c",
        ];
        for pair in table.windows(2) {
            assert!(pattern(pair[0]) < pattern(pair[1]), "{pair:?}");
        }
        for (one, other) in [("a.>", "a.#"), ("#.*", "*.#"), ("#.#.a", "#.a")] {
            assert_eq!(pattern(one), pattern(other));
            assert_eq!(pattern(one).cmp(&pattern(other)), Ordering::Equal);
        }
    }

    #[test]
    fn the_worst_pattern_takes_no_power_of_its_length() {
        let hash = "#.a.".repeat(200) + "b";
        let address = "a.".repeat(511) + "a";
        assert!(!pattern(&hash).matches(address.as_bytes()));
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        "((a|b|c||\\*|#)\\.){0,5}(a|b|c|\\*|#|>)"
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_matches_as_a_naive_reader_does(
            text in any_pattern(),
            address in "((a|b|c|)\\.){0,6}(a|b|c|)",
        ) {
            let words: Vec<&str> = text.split('.').collect();
            let parts: Vec<&str> = address.split('.').collect();
            prop_assert_eq!(
                pattern(&text).matches(address.as_bytes()),
                matches_naively(&words, &parts)
            );
        }

        #[test]
        fn the_order_is_total_and_agrees_with_equality(
            one in any_pattern(), other in any_pattern(), third in any_pattern(),
        ) {
            let [a, b, c] = [&one, &other, &third].map(|text| pattern(text));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }

        #[test]
        fn an_address_beats_all_other_patterns_that_match_it(
            text in any_pattern(), address in "((a|b|c)\\.){0,6}(a|b|c)",
        ) {
            let (wild, exact) = (pattern(&text), pattern(&address));
            prop_assert!(exact.is_literal() && exact.matches(address.as_bytes()));
            if wild.matches(address.as_bytes()) && wild != exact {
                prop_assert!(exact > wild);
            }
        }

        #[test]
        fn what_is_shown_reads_back_the_same(text in any_pattern()) {
            let one = pattern(&text);
            prop_assert_eq!(&pattern(&one.to_string()), &one);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,20}", address in ".{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches(address.as_bytes());
            }
        }
    }
}
