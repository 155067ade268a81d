//! Markdown: one title, relative links that lead somewhere, and files named in documents and
//! comments that are there.

use crate::source::{Finding, Tree};

/// Checks every document.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    check_with(tree, &|path| tree.root.join(path).exists())
}

/// Checks with the question whether a path from the root exists as an argument.
fn check_with(tree: &Tree, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in &tree.documents {
        let finding = |index: usize, text: String| Finding {
            file: path.clone(),
            line: index + 1,
            text,
        };
        let lines = outside_fences(text);
        let titles: Vec<usize> = lines
            .iter()
            .filter(|(_, line)| line.starts_with("# "))
            .map(|(i, _)| *i)
            .collect();
        if titles.len() != 1 {
            let at = titles.get(1).copied().unwrap_or(0);
            findings.push(finding(
                at,
                format!("{} titles (`# `) instead of one", titles.len()),
            ));
        }
        for (index, line) in &lines {
            for target in links(line) {
                if let Some(file) = local(path, target)
                    && !exists(&file)
                {
                    findings.push(finding(*index, format!("dead link: {target} (no {file})")));
                }
            }
        }
    }
    findings
}

/// Folders of the checkout whose files documents name.
const NAMED_FOLDERS: [&str; 8] = [
    "benches/",
    "docs/",
    "fuzz/",
    "journal/src/",
    "journal/tests/",
    "src/",
    "tests/",
    "tools/",
];

/// Checks that files named in documents (as inline code) and documents named in comments exist.
pub(crate) fn check_names(tree: &Tree) -> Vec<Finding> {
    check_names_with(tree, &|path| tree.root.join(path).exists())
}

fn check_names_with(tree: &Tree, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut look = |file: &str, line: usize, name: &str| {
        if !exists(name) {
            let (file, text) = (file.to_owned(), format!("names {name}, which is not there"));
            findings.push(Finding { file, line, text });
        }
    };
    for (path, text) in &tree.documents {
        for (index, line) in outside_fences(text) {
            for name in line.split('`').skip(1).step_by(2) {
                if NAMED_FOLDERS.iter().any(|top| name.starts_with(top)) && is_path(name) {
                    look(path, index + 1, name);
                }
            }
        }
    }
    for source in &tree.sources {
        for (index, line) in source.comments.iter().enumerate() {
            for word in line.split(|letter: char| !is_path_letter(letter)) {
                let name = word.trim_end_matches('.');
                if name.starts_with("docs/") && name.ends_with(".md") {
                    look(&source.path, index + 1, name);
                }
            }
        }
    }
    findings
}

fn is_path(name: &str) -> bool {
    name.chars().all(is_path_letter)
}

fn is_path_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-')
}

/// Lines that are not inside a code fence, with their index.
fn outside_fences(text: &str) -> Vec<(usize, &str)> {
    let mut is_inside = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_inside = !is_inside;
        } else if !is_inside {
            lines.push((index, line));
        }
    }
    lines
}

/// Targets of `[text](target)` in a line, inline code aside.
fn links(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_code = false;
    let mut from = 0;
    for (at, letter) in line.char_indices() {
        if letter == '`' {
            is_code = !is_code;
        }
        if !is_code && at >= from && line[at..].starts_with("](") {
            let rest = &line[at + 2..];
            let end = rest.find([')', ' ']).unwrap_or(rest.len());
            found.push(&rest[..end]);
            from = at + 2 + end;
        }
    }
    found
}

/// The file from the root that a link means; none for other sites and places in the same file.
fn local(document: &str, target: &str) -> Option<String> {
    let file = target.split('#').next().unwrap_or_default();
    if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

mod examples {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::of(&[(path, text)]);
        let exists = |path: &str| path == "docs/format.md";
        check_with(&tree, &exists)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn titles_are_counted() {
        assert_eq!(
            found("a.md", "# One\ntext\n```\n# a comment\n```\n"),
            [""; 0]
        );
        assert_eq!(found("a.md", "text\n").len(), 1);
        assert_eq!(
            found("a.md", "# One\n\n# Two\n"),
            ["a.md:3: 2 titles (`# `) instead of one"]
        );
    }

    #[test]
    fn dead_links_are_found() {
        for line in [
            "[x](docs/format.md)",
            "[x](https://e.org/y)",
            "[x](#below)",
            "`[x](y.md)`",
        ] {
            assert_eq!(found("a.md", &format!("# T\n{line}\n")), [""; 0], "{line}");
        }
        assert_eq!(
            found(
                "docs/b.md",
                "# T\n[x](format.md#4) [y](../docs/format.md)\n"
            ),
            [""; 0]
        );
        let lines = found("docs/b.md", "# T\n\nsee [x](docs/format.md)\n");
        assert_eq!(
            lines,
            ["docs/b.md:3: dead link: docs/format.md (no docs/docs/format.md)"]
        );
    }

    #[test]
    fn names_of_files_that_are_gone_are_found() {
        let names = |path: &str, text: &str| -> Vec<String> {
            let exists = |path: &str| path == "src/main.rs" || path == "docs/format.md";
            check_names_with(&Tree::of(&[(path, text)]), &exists)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            names("a.md", "# T\n`src/main.rs` src/x.rs `src/{a,b}.rs`\n"),
            [""; 0]
        );
        assert_eq!(
            names("a.md", "# T\nsee `src/x.rs`\n"),
            ["a.md:2: names src/x.rs, which is not there"]
        );
        assert_eq!(names("src/a.rs", "//! See `docs/format.md` 4.\n"), [""; 0]);
        assert_eq!(
            names("src/a.rs", "//! See docs/x.md.\n"),
            ["src/a.rs:1: names docs/x.md, which is not there"]
        );
    }
}
