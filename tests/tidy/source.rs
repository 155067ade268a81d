//! Files of the checkout, with Rust text split into code, comments and strings.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// One Rust file. All lines have the same numbers in every view.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Path from the root, with slashes.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// Code lines: comments, texts and characters are blanked.
    pub(crate) code: Vec<String>,
    /// Comment lines: everything else is blanked.
    pub(crate) comments: Vec<String>,
    /// Per line: belongs to a test (a file of tests, or an item under `#[cfg(test)]`).
    pub(crate) is_test: Vec<bool>,
}

/// All files that the rules look at.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) sources: Vec<Source>,
    /// Markdown files: path from the root and text.
    pub(crate) documents: Vec<(String, String)>,
}

/// Folders with Rust sources of ours.
const SOURCE_FOLDERS: [&str; 6] = ["src", "journal", "tools", "tests", "benches", "fuzz"];
/// Folders never looked into.
const SKIPPED: [&str; 8] = [
    "target",
    ".git",
    ".venv",
    "node_modules",
    "corpus",
    "artifacts",
    "forebay-data",
    "shared",
];

impl Tree {
    /// Reads the checkout.
    pub(crate) fn load() -> Self {
        let root = std::env::var_os("FOREBAY_TIDY_ROOT")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let mut files = Vec::new();
        walk(&root, &root, &mut files);
        files.sort();
        let mut tree = Self {
            root,
            sources: Vec::new(),
            documents: Vec::new(),
        };
        for path in files {
            let is_source = SOURCE_FOLDERS
                .iter()
                .any(|top| path.starts_with(&format!("{top}/")));
            let is_document = path.ends_with(".md");
            if !(is_source && path.ends_with(".rs") || is_document) {
                continue;
            }
            #[allow(clippy::disallowed_methods, reason = "the test reads the checkout")]
            let bytes = fs::read(tree.root.join(&path)).expect("a file just listed is readable");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if is_document {
                tree.documents.push((path, text));
            } else {
                tree.sources.push(Source::new(&path, &text));
            }
        }
        tree
    }

    /// A tree of given files: for the tests of the rules.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self {
            root: PathBuf::from("/none"),
            sources: Vec::new(),
            documents: Vec::new(),
        };
        for (path, text) in files {
            if path.ends_with(".md") {
                tree.documents
                    .push(((*path).to_string(), (*text).to_string()));
            } else {
                tree.sources.push(Source::new(path, text));
            }
        }
        tree
    }
}

impl Source {
    /// Splits a file.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let lines = |view: String| view.lines().map(str::to_string).collect::<Vec<_>>();
        let (code, comments) = (lines(code), lines(comments));
        let is_test = test_lines(path, &code);
        Self {
            path: path.to_string(),
            text: text.to_string(),
            code,
            comments,
            is_test,
        }
    }

    /// A finding in this file; `index` counts lines from zero.
    pub(crate) fn finding(&self, index: usize, text: impl Into<String>) -> Finding {
        Finding {
            file: self.path.clone(),
            line: index + 1,
            text: text.into(),
        }
    }

    /// Code lines that are not tests, with their index.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.is_test[*index])
            .map(|(index, line)| (index, line.as_str()))
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &path, files);
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// Finds whole words of code; identifiers next to the match make it another word.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    word_at(line, word, 0).is_some()
}

/// Finds the next whole word from a position on.
pub(crate) fn word_at(line: &str, word: &str, from: usize) -> Option<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut start = from;
    while let Some(found) = line.get(start..)?.find(word) {
        let at = start + found;
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let first_is_name = word.starts_with(is_name);
        let last_is_name = word.ends_with(is_name);
        if !(first_is_name && before.is_some_and(is_name)
            || last_is_name && after.is_some_and(is_name))
        {
            return Some(at);
        }
        start = at + word.len();
    }
    None
}

/// Splits a text into code and comments of the same shape: what belongs to the other is blanked,
/// and so are texts and characters in both.
fn split(text: &str) -> (String, String) {
    let letters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let (end, kind) = token(&letters, at);
        for letter in &letters[at..end] {
            let blank = if *letter == '\n' { '\n' } else { ' ' };
            code.push(if kind == Part::Code { *letter } else { blank });
            comments.push(if kind == Part::Comment {
                *letter
            } else {
                blank
            });
        }
        at = end;
    }
    (code, comments)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Text,
}

/// Gives the end of what begins at a position, and what it is.
fn token(letters: &[char], at: usize) -> (usize, Part) {
    let peek = |offset: usize| letters.get(at + offset).copied().unwrap_or('\0');
    match (peek(0), peek(1)) {
        ('/', '/') => (line_end(letters, at), Part::Comment),
        ('/', '*') => (block_end(letters, at), Part::Comment),
        ('"', _) => (text_end(letters, at + 1), Part::Text),
        ('r', '"' | '#') if !is_name_before(letters, at) => raw_end(letters, at, 1),
        ('b', 'r') if !is_name_before(letters, at) => raw_end(letters, at, 2),
        ('\'', _) => character_end(letters, at),
        _ => (at + 1, Part::Code),
    }
}

fn is_name_before(letters: &[char], at: usize) -> bool {
    at > 0 && (letters[at - 1].is_alphanumeric() || letters[at - 1] == '_')
}

fn line_end(letters: &[char], at: usize) -> usize {
    letters[at..]
        .iter()
        .position(|c| *c == '\n')
        .map_or(letters.len(), |n| at + n)
}

/// Block comments nest.
fn block_end(letters: &[char], start: usize) -> usize {
    let mut at = start;
    let mut depth = 0;
    while at < letters.len() {
        match (letters[at], letters.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    letters.len()
}

fn text_end(letters: &[char], start: usize) -> usize {
    let mut at = start;
    while at < letters.len() {
        match letters[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    letters.len()
}

/// A raw text, or code when it is a raw identifier such as `r#type`.
fn raw_end(letters: &[char], start: usize, prefix: usize) -> (usize, Part) {
    let mut at = start + prefix;
    let mut hashes = 0;
    while letters.get(at) == Some(&'#') {
        (hashes, at) = (hashes + 1, at + 1);
    }
    if letters.get(at) != Some(&'"') {
        return (start + 1, Part::Code);
    }
    at += 1;
    while at < letters.len() {
        let closes = letters[at] == '"'
            && letters.len() >= at + 1 + hashes
            && letters[at + 1..at + 1 + hashes].iter().all(|c| *c == '#');
        if closes {
            return (at + 1 + hashes, Part::Text);
        }
        at += 1;
    }
    (letters.len(), Part::Text)
}

/// A character, or code when it is a lifetime.
fn character_end(letters: &[char], at: usize) -> (usize, Part) {
    match (letters.get(at + 1), letters.get(at + 2)) {
        (Some('\\'), _) => {
            let close = letters[at + 3..].iter().position(|c| *c == '\'');
            (close.map_or(letters.len(), |n| at + 4 + n), Part::Text)
        }
        (Some(_), Some('\'')) => (at + 3, Part::Text),
        _ => (at + 1, Part::Code),
    }
}

/// Says for each line whether it belongs to tests.
fn test_lines(path: &str, code: &[String]) -> Vec<bool> {
    let is_test_file = path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.starts_with("benches/")
        || path.starts_with("fuzz/");
    let mut is_test = vec![is_test_file; code.len()];
    for start in 0..code.len() {
        if code[start].contains("#[cfg(test)]") || code[start].contains("#[cfg(all(test") {
            let end = item_end(code, start, 0);
            is_test[start..=end].fill(true);
        }
    }
    is_test
}

/// Last line of the item that begins at a line and column: its closing brace or semicolon.
pub(crate) fn item_end(code: &[String], start: usize, column: usize) -> usize {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    let mut is_open = false;
    for (index, line) in code.iter().enumerate().skip(start) {
        let from = if index == start { column } else { 0 };
        for letter in line[from..].chars() {
            match letter {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                '{' => (depth, is_open) = (depth + 1, true),
                '}' => depth = depth.saturating_sub(1),
                ';' if depth == 0 && brackets == 0 => return index,
                _ => {}
            }
            if is_open && depth == 0 {
                return index;
            }
        }
    }
    code.len().saturating_sub(1)
}

mod examples {
    use super::*;

    #[test]
    fn comments_texts_and_characters_are_no_code() {
        let source = Source::new(
            "src/x.rs",
            "let a = \"unsafe // no\"; // glommio\nlet b = r#\"un\"safe\"#; /* x /* y */ z */ c\n\
             let d = '\"'; let e: &'static str = '\\''; r#type\n",
        );
        assert!(!source.code.join("\n").contains("unsafe"));
        assert!(source.code[1].trim_end().ends_with('c') && !source.code[1].contains('z'));
        assert!(source.code[2].contains("&'static str") && source.code[2].contains("r#type"));
        assert!(source.comments[0].contains("glommio") && !source.comments[0].contains("no\""));
    }

    #[test]
    fn test_modules_are_told_from_the_product() {
        let text = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n";
        let source = Source::new("src/x.rs", text);
        let product: Vec<usize> = source.product_lines().map(|(index, _)| index).collect();
        assert_eq!(product, [0, 1, 6]);
        let source = Source::new("src/x.rs", "#[cfg(test)]\nmod tests;\nfn c() {}\n");
        assert_eq!(source.is_test, [true, true, false]);
        assert!(Source::new("src/queue/tests.rs", "fn a() {}\n").is_test[0]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("use glommio::x", "glommio"));
        assert!(!has_word("use glommios::x", "glommio"));
        assert!(has_word("std::fs::read", "std::fs"));
        assert!(!has_word("std::fsx", "std::fs"));
    }
}
