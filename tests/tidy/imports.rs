//! Who may import whom. Floors, ground first: F0 `now`, `limits`, `pattern`, `message`, the
//! journal crate; F1 protocol, queue, routing, selector, auth, replication; F2 frontend; F3 shard;
//! F4 runtime, housekeeping; F5 node and the binary. Siblings on F1 never meet.

use std::collections::BTreeMap;

use crate::source::{Finding, Source, Tree, word_at};

/// How much of the journal crate a module may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Journal {
    /// Nothing.
    No,
    /// Its words: ids and the format of facts, no engine.
    Words,
    /// All of it.
    All,
}

/// What of the journal crate counts as words.
const WORDS: [&str; 11] = [
    "BlockNumber",
    "Epoch",
    "JournalId",
    "Location",
    "Lsn",
    "MessageId",
    "QueueId",
    "SegmentId",
    "ShardId",
    "format",
    "ids",
];

/// Module of the broker, what it may name of the broker, what of the journal crate. `now`,
/// `limits` and `pattern` may be read by everybody above them.
const BROKER: &[(&str, &[&str], Journal)] = &[
    ("now", &[], Journal::No),
    ("limits", &[], Journal::No),
    ("pattern", &[], Journal::No),
    ("message", &[], Journal::Words),
    ("protocol", &["message"], Journal::No),
    ("queue", &["message"], Journal::Words),
    ("routing", &["message"], Journal::Words),
    ("selector", &["message"], Journal::No),
    ("auth", &["message"], Journal::No),
    ("replication", &["message"], Journal::All),
    (
        "frontend",
        &[
            "protocol", "queue", "message", "routing", "selector", "auth",
        ],
        Journal::Words,
    ),
    (
        "shard",
        &[
            "protocol",
            "queue",
            "message",
            "routing",
            "selector",
            "auth",
            "replication",
            "frontend",
        ],
        Journal::All,
    ),
    // Both on F4: they meet in the bell that one rings for the other. What housekeeping scans at
    // the start it replays into the queue machine.
    (
        "runtime",
        &["shard", "housekeeping", "message"],
        Journal::All,
    ),
    ("housekeeping", &["runtime", "queue"], Journal::All),
    (
        "node",
        &["runtime", "housekeeping", "shard", "frontend"],
        Journal::All,
    ),
];

/// Module of the journal crate and what it may name of it. Ground: `ids` and `format`. `storage` is
/// the port: its values (buffers, tickets) may be held by what writes, never by what recovers.
const JOURNAL: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("freed", &["ids"]),
    ("lsn", &[]),
    ("format", &["ids", "lsn"]),
    ("error", &["format", "ids", "lsn"]),
    ("storage", &["format", "ids", "lsn", "error"]),
    ("cache", &["format", "ids", "lsn", "storage"]),
    ("window", &["format", "ids", "lsn", "error", "storage"]),
    (
        "fuzz",
        &[
            "format", "ids", "lsn", "error", "storage", "reader", "recovery", "writer",
        ],
    ),
    ("segment", &["format", "ids", "lsn", "error"]),
    (
        "writer",
        &[
            "format", "ids", "lsn", "error", "segment", "window", "cache", "recovery", "storage",
        ],
    ),
    ("reader", &["format", "ids", "lsn", "error", "segment"]),
    (
        "recovery",
        &["format", "ids", "lsn", "error", "segment", "reader"],
    ),
    (
        "scrub",
        &["format", "ids", "lsn", "error", "segment", "reader"],
    ),
    ("reclaim", &["format", "ids", "lsn", "error", "segment"]),
    ("lease", &["format", "ids", "lsn", "error", "storage"]),
    ("journal", &["*"]),
    ("testing", &["*"]),
];

/// Modules that everybody above may read.
const OPEN: [&str; 3] = ["now", "limits", "pattern"];

/// Checks every `crate::` and `super::` path, and every naming of the journal crate.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        if let Some(module) = module_of(&source.path, "src/") {
            check_broker(source, &module, &mut findings);
        } else if let Some(module) = module_of(&source.path, "journal/src/") {
            check_journal(source, &module, &mut findings);
        } else if source.path.starts_with("tools/inspect/") {
            for (index, line) in source.product_lines() {
                if word_at(line, "forebay::", 0).is_some() {
                    findings.push(source.finding(
                        index,
                        "the inspector needs only the journal crate, this names the broker",
                    ));
                }
            }
        }
    }
    findings
}

/// Checks that each module of both crates has a row: a new one must say where it stands.
pub(crate) fn check_places(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let place = module_of(&source.path, "src/").map(|m| (BROKER.iter().any(|r| r.0 == m), m));
        let place = place.or_else(|| {
            module_of(&source.path, "journal/src/").map(|m| (JOURNAL.iter().any(|r| r.0 == m), m))
        });
        if let Some((false, module)) = place {
            let text = format!("module `{module}` has no row in tests/tidy/imports.rs");
            findings.push(source.finding(0, text));
        }
    }
    findings
}

/// The module at the top of the crate that a file belongs to; none for crate roots.
fn module_of(path: &str, top: &str) -> Option<String> {
    let rest = path.strip_prefix(top)?;
    let first = rest.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(rest, "lib.rs" | "main.rs")).then(|| module.to_string())
}

fn check_broker(source: &Source, module: &str, findings: &mut Vec<Finding>) {
    let Some((_, allowed, journal)) = BROKER.iter().find(|row| row.0 == module) else {
        return;
    };
    for (index, target) in named_below(source, "src/") {
        let is_allowed = target == module
            || allowed.contains(&target.as_str())
            || OPEN.contains(&target.as_str()) && !OPEN.contains(&module);
        if is_module(&target) && !is_allowed {
            let text = format!("`{module}` may not import `{target}`: imports go down only");
            findings.push(source.finding(index, text));
        }
    }
    for (index, target) in named_after(&product_text(source), "forebay_journal") {
        let is_allowed = match journal {
            Journal::No => false,
            Journal::Words => WORDS.contains(&target.as_str()),
            Journal::All => true,
        };
        if !is_allowed {
            let text = format!("`{module}` may not name `{target}` of the journal crate");
            findings.push(source.finding(index, text));
        }
    }
}

fn check_journal(source: &Source, module: &str, findings: &mut Vec<Finding>) {
    let Some((_, allowed)) = JOURNAL.iter().find(|row| row.0 == module) else {
        return;
    };
    let known: BTreeMap<&str, ()> = JOURNAL.iter().map(|row| (row.0, ())).collect();
    for (index, target) in named_below(source, "journal/src/") {
        let is_allowed =
            target == module || allowed.contains(&target.as_str()) || allowed.contains(&"*");
        if known.contains_key(target.as_str()) && !is_allowed {
            let text = format!("journal module `{module}` may not import `{target}`");
            findings.push(source.finding(index, text));
        }
    }
}

fn is_module(name: &str) -> bool {
    BROKER.iter().any(|row| row.0 == name)
}

/// The code of a file without its tests, lines kept.
fn product_text(source: &Source) -> String {
    let lines: Vec<&str> = source
        .code
        .iter()
        .zip(&source.is_test)
        .map(|(line, is_test)| if *is_test { "" } else { line.as_str() })
        .collect();
    lines.join("\n")
}

/// First names behind every `root::` in a text.
fn named_after(text: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = word_at(text, root, from) {
        from = at + root.len();
        if let Some(rest) = text[from..].strip_prefix("::") {
            push_names(text, at, rest, &mut found);
        }
    }
    found
}

/// Top-level modules that a file's product code names, by `crate::` or by climbing with `super::`.
fn named_below(source: &Source, top: &str) -> Vec<(usize, String)> {
    let text = product_text(source);
    let depth = module_depth(source.path.strip_prefix(top).unwrap_or(&source.path));
    let mut found = named_after(&text, "crate");
    let mut from = 0;
    let climb = "super::".repeat(depth);
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(&climb)) {
        let at = from + at;
        from = at + climb.len();
        let continues = text[..at].ends_with("super::") || text[from..].starts_with("super::");
        if depth > 0 && !continues {
            push_names(&text, at, &text[from..], &mut found);
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// How many `super` lead from a file's module to the crate root.
fn module_depth(path: &str) -> usize {
    let parts = path
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| *part != "mod")
        .count();
    if matches!(path, "lib.rs" | "main.rs") {
        0
    } else {
        parts
    }
}

/// Adds the first names behind a path's root: one, or each of a braced group.
fn push_names(text: &str, at: usize, rest: &str, found: &mut Vec<(usize, String)>) {
    let line = text[..at].matches('\n').count();
    let name = |text: &str| {
        let name: String = text
            .trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        name
    };
    let Some(group) = rest.strip_prefix('{') else {
        found.push((line, name(rest)));
        return;
    };
    let mut depth = 1;
    let mut start = 0;
    for (index, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && letter == ',' {
            let entry = name(&group[start..index]);
            if !entry.is_empty() {
                found.push((line, entry));
            }
            start = index + 1;
        }
        if depth == 0 {
            return;
        }
    }
}

mod examples {
    use super::*;

    fn texts(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)]))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn an_import_upwards_or_sideways_is_found() {
        let cases = [
            (
                "src/queue/machine.rs",
                "use crate::shard::Gate;",
                "`queue` may not import `shard`",
            ),
            (
                "src/protocol/stomp/x.rs",
                "use crate::queue::Id;",
                "may not import `queue`",
            ),
            (
                "src/limits.rs",
                "use crate::now::Now;",
                "`limits` may not import `now`",
            ),
            (
                "src/shard/x.rs",
                "fn f() { crate::runtime::go(); }",
                "may not import `runtime`",
            ),
            (
                "src/frontend/x.rs",
                "use forebay_journal::writer::W;",
                "may not name `writer`",
            ),
            (
                "src/protocol/x.rs",
                "use forebay_journal::Lsn;",
                "may not name `Lsn` of the journal",
            ),
            (
                "src/runtime/x.rs",
                "use crate::{shard::A, node::B};",
                "may not import `node`",
            ),
            (
                "src/queue/mod.rs",
                "use super::protocol::X;",
                "may not import `protocol`",
            ),
            (
                "src/queue/a/b.rs",
                "use super::super::super::protocol::X;",
                "`protocol`",
            ),
            (
                "journal/src/recovery.rs",
                "use crate::storage::X;",
                "may not import `storage`",
            ),
            (
                "journal/src/format/x.rs",
                "use crate::writer::X;",
                "may not import `writer`",
            ),
            (
                "tools/inspect/src/main.rs",
                "use forebay::queue::X;",
                "names the broker",
            ),
        ];
        for (path, text, expected) in cases {
            let found = texts(path, text);
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found[0].starts_with(&format!("{path}:1: ")), "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn what_the_table_allows_is_no_finding() {
        for (path, text) in [
            (
                "src/queue/machine.rs",
                "use crate::{limits::X, message::Y};\nuse super::state::Z;",
            ),
            (
                "src/queue/a.rs",
                "use super::super::message::X;\nuse forebay_journal::Lsn;",
            ),
            (
                "src/shard/mod.rs",
                "use crate::frontend::X;\nuse forebay_journal::writer::W;",
            ),
            (
                "src/frontend/x.rs",
                "use forebay_journal::{Lsn, format::Record};",
            ),
            (
                "src/shard/mod.rs",
                "#[cfg(test)]\nmod tests {\n use crate::runtime::X;\n}",
            ),
            (
                "src/shard/mod.rs",
                "// crate::runtime is above\nconst A: &str = \"crate::node\";",
            ),
            ("src/main.rs", "use forebay::node;"),
            ("src/queue/a/b.rs", "use super::protocol::X;"),
        ] {
            assert_eq!(texts(path, text), [""; 0], "{path}");
        }
    }

    #[test]
    fn a_module_without_a_row_is_found() {
        let tree = Tree::of(&[
            ("src/gossip/mod.rs", ""),
            ("src/lib.rs", ""),
            ("src/now.rs", ""),
        ]);
        let found = check_places(&tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().contains("`gossip` has no row"));
    }
}
