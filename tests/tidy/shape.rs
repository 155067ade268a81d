//! Sizes, names, leftovers and text.

use crate::source::{Finding, Source, Tree, has_word, item_end, word_at};

/// Lines of a file, tests included.
const FILE_LINES_MAX: usize = 900;
/// Lines of a function from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a test module inside the file it tests.
const INNER_TEST_LINES_MAX: usize = 150;
/// Characters of a line.
const LINE_WIDTH_MAX: usize = 100;
/// Characters of a line with a text in it that the formatter does not break.
const TEXT_WIDTH_MAX: usize = 125;

/// Words that name nothing: as files, folders, modules or types, alone or as a part.
const EMPTY_WORDS: [&str; 8] = [
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "mgr",
];
/// Ends of type names that name nothing.
const EMPTY_SUFFIXES: [&str; 6] = ["Impl", "Handler", "Info", "Data", "Manager", "Helper"];

/// Checks the sizes of files, functions and inner test modules.
pub(crate) fn check_sizes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let lines = source.code.len();
        if lines > FILE_LINES_MAX {
            let text = format!("{lines} lines, {FILE_LINES_MAX} are the most: split the file");
            findings.push(source.finding(FILE_LINES_MAX, text));
        }
        check_functions(source, &mut findings);
        check_inner_tests(source, &mut findings);
    }
    findings
}

fn check_functions(source: &Source, findings: &mut Vec<Finding>) {
    for (index, line) in source.code.iter().enumerate() {
        let Some(at) = word_at(line, "fn", 0) else {
            continue;
        };
        let name: String = line[at + 2..]
            .trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        // A type such as `fn(u32)` has no name.
        if name.is_empty() {
            continue;
        }
        let length = item_end(&source.code, index, at) - index + 1;
        if length > FUNCTION_LINES_MAX {
            let text = format!("fn {name} has {length} lines, {FUNCTION_LINES_MAX} are the most");
            findings.push(source.finding(index, text));
        }
    }
}

fn check_inner_tests(source: &Source, findings: &mut Vec<Finding>) {
    if source.path.starts_with("tests/") {
        return;
    }
    for (index, line) in source.code.iter().enumerate() {
        if line.trim_start().starts_with("mod tests {") {
            let length = item_end(&source.code, index, 0) - index + 1;
            if length > INNER_TEST_LINES_MAX {
                let text = format!(
                    "{length} lines of tests inside the file, {INNER_TEST_LINES_MAX} are the \
                     most: move them to a sibling tests.rs"
                );
                findings.push(source.finding(index, text));
            }
        }
    }
}

/// Checks names of files, modules, types and functions.
pub(crate) fn check_names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if part.split('_').any(|word| EMPTY_WORDS.contains(&word)) {
                let text = format!("a file or folder called `{part}` says nothing");
                findings.push(source.finding(0, text));
            }
        }
        for (index, line) in source.code.iter().enumerate() {
            for (keyword, name) in declared(line) {
                if let Some(why) = empty_name(keyword, &name) {
                    findings.push(source.finding(index, format!("{keyword} {name}: {why}")));
                }
            }
        }
    }
    findings
}

/// Names that a line of code declares, with their keyword.
fn declared(line: &str) -> Vec<(&'static str, String)> {
    let mut names = Vec::new();
    for keyword in ["mod", "struct", "enum", "trait", "type", "union", "fn"] {
        let Some(at) = word_at(line, keyword, 0) else {
            continue;
        };
        let rest = line[at + keyword.len()..].trim_start();
        let name: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if !name.is_empty() {
            names.push((keyword, name));
        }
    }
    names
}

fn empty_name(keyword: &str, name: &str) -> Option<String> {
    if keyword == "fn" || keyword == "mod" {
        // A function may be about what is common; a module may not be a heap of it.
        let is_empty =
            |word: &str| EMPTY_WORDS.contains(&word) && (keyword, word) != ("fn", "common");
        let word = name.split('_').find(|word| is_empty(word))?;
        return Some(format!("`{word}` says nothing"));
    }
    let suffix = EMPTY_SUFFIXES
        .iter()
        .find(|suffix| name.ends_with(**suffix))?;
    Some(format!("the end `{suffix}` says nothing"))
}

/// Checks that no work is left in the text and no test is switched off.
pub(crate) fn check_leftovers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Spelt so that this file does not find itself.
    let marks = [
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
        concat!("HA", "CK"),
    ];
    let calls = ["todo!", "unimplemented!", "dbg!"];
    for source in &tree.sources {
        for (index, comment) in source.comments.iter().enumerate() {
            for mark in marks {
                if has_word(comment, mark) {
                    findings.push(source.finding(index, format!("`{mark}`: do it or issue it")));
                }
            }
        }
        for (index, line) in source.code.iter().enumerate() {
            for call in calls {
                if has_word(line, call) {
                    findings.push(source.finding(index, format!("`{call}` is not an answer")));
                }
            }
            let tight: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            if tight.contains("#[ignore") || tight.contains(",ignore)]") {
                findings.push(source.finding(index, "a test that does not run proves nothing"));
            }
        }
    }
    findings
}

/// Checks ASCII, width, tabs, line ends and the module doc.
pub(crate) fn check_text(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for (index, line) in source.text.lines().enumerate() {
            if let Some(letter) = line
                .chars()
                .find(|c| !c.is_ascii() || *c == '\t' || *c == '\r')
            {
                findings.push(source.finding(index, format!("{letter:?}: printable ASCII only")));
            }
            let width = line.chars().count();
            let width_max = if has_text(line) {
                TEXT_WIDTH_MAX
            } else {
                LINE_WIDTH_MAX
            };
            if width > width_max {
                findings.push(source.finding(index, format!("{width} columns wide")));
            }
        }
        let is_product = source.path.starts_with("src/") || source.path.starts_with("journal/src/");
        if is_product && !source.text.starts_with("//!") {
            findings
                .push(source.finding(0, "no module doc: what it owns, what it refuses to know"));
        }
    }
    findings
}

fn has_text(line: &str) -> bool {
    !line.trim_start().starts_with("//") && line.contains('"')
}

mod examples {
    use super::*;

    fn found(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
        rule(&Tree::of(&[(path, text)]))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn long_files_functions_and_tests_are_found() {
        let file = "// a\n".repeat(FILE_LINES_MAX);
        assert_eq!(found(check_sizes, "src/a.rs", &file).len(), 0);
        let lines = found(check_sizes, "src/a.rs", &format!("{file}// b\n"));
        assert!(lines[0].starts_with("src/a.rs:901: 901 lines"), "{lines:?}");
        let function =
            |count: usize| format!("\nfn long(a: [u8; 3]) {{\n{}}}\n", "a();\n".repeat(count));
        assert_eq!(found(check_sizes, "src/a.rs", &function(68)).len(), 0);
        let lines = found(check_sizes, "src/a.rs", &function(69));
        assert_eq!(lines, ["src/a.rs:2: fn long has 71 lines, 70 are the most"]);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// a\n".repeat(149));
        assert_eq!(found(check_sizes, "src/a.rs", &tests).len(), 1);
        let declaration = format!("trait T {{ fn f(a: [u8; 3]);\n{}}}\n", "//\n".repeat(80));
        assert_eq!(found(check_sizes, "src/a.rs", &declaration).len(), 0);
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(found(check_names, "src/utils.rs", "").len(), 1);
        assert_eq!(found(check_names, "src/queue/misc/mod.rs", "").len(), 1);
        for line in [
            "struct QueueManager;",
            "enum FrameInfo {}",
            "fn util_x() {}",
            "mod common;",
        ] {
            assert_eq!(found(check_names, "src/a.rs", line).len(), 1, "{line}");
        }
        for line in [
            "struct Database;",
            "fn informed() {}",
            "let x: fn(u8) = y;",
            "// utils",
        ] {
            assert_eq!(found(check_names, "src/a.rs", line).len(), 0, "{line}");
        }
    }

    #[test]
    fn leftovers_are_found() {
        let mark = format!("// {}: later\n", concat!("FIX", "ME"));
        assert_eq!(found(check_leftovers, "src/a.rs", &mark).len(), 1);
        for line in [
            "todo!()",
            "unimplemented!(\"x\")",
            "#[ignore]",
            "#[ignore = \"slow\"]",
        ] {
            assert_eq!(
                found(check_leftovers, "tests/a.rs", line).len(),
                1,
                "{line}"
            );
        }
        assert_eq!(
            found(
                check_leftovers,
                "src/a.rs",
                "// ignore it\nlet a = \"todo!\";"
            )
            .len(),
            0
        );
    }

    #[test]
    fn odd_text_is_found() {
        let path = "tests/a.rs";
        assert_eq!(found(check_text, path, "// \u{e9}\n").len(), 1);
        assert_eq!(found(check_text, path, "\tx\n").len(), 1);
        assert_eq!(found(check_text, path, &"x".repeat(101)).len(), 1);
        assert_eq!(found(check_text, path, &"x".repeat(100)).len(), 0);
        assert_eq!(
            found(check_text, path, &format!("{:?}", "x".repeat(110))).len(),
            0
        );
        assert_eq!(
            found(check_text, path, &format!("// {:?}", "x".repeat(110))).len(),
            1
        );
        assert_eq!(found(check_text, "src/a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(
            found(check_text, "src/a.rs", "//! A.\nfn a() {}\n").len(),
            0
        );
    }
}
