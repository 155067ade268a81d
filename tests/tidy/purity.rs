//! What may be named where: `unsafe`, crates with one home, and the world outside a core.

use crate::source::{Finding, Source, Tree, has_word, word_at};

/// Places of `unsafe`: exact files, or folders with a slash at the end.
const UNSAFE_PLACES: [&str; 3] = [
    "journal/src/storage/buffer.rs",
    "src/runtime/reactor/",
    // A counting allocator, in a test only.
    "tests/alloc/counting.rs",
];

/// A crate's name and its only home in the product.
const HOMES: [(&str, &str); 5] = [
    ("glommio", "src/housekeeping/"),
    ("io_uring::", "src/runtime/reactor/"),
    ("axum", "src/node/admin/"),
    ("hyper", "src/node/"),
    ("tokio", "src/node/"),
];

/// The folders where the world may be named: everything else in both crates is a core.
const WORLDLY: [&str; 4] = [
    "src/runtime/",
    "src/housekeeping/",
    "src/node/",
    "src/main.rs",
];

/// Words that no core says, and what to do instead.
const WORLD: [(&str, &str); 19] = [
    ("Instant", "take `now: Now`"),
    ("SystemTime", "take `now: Now`"),
    ("std::time", "times are numbers with their unit in the name"),
    ("std::fs", "files belong to runtime, housekeeping and node"),
    ("std::net", "sockets belong to runtime"),
    ("std::os", "descriptors belong to runtime"),
    ("std::env", "settings come as arguments"),
    ("std::process", "ending the process belongs to node"),
    ("std::thread", "threads belong to runtime"),
    ("thread::sleep", "return a time to be called at"),
    ("thread_local!", "state is a field"),
    ("Mutex", "one owner per datum"),
    ("RwLock", "one owner per datum"),
    ("async", "cores are stepped, not awaited"),
    ("println!", "return a value, its caller speaks"),
    ("eprintln!", "return a value, its caller speaks"),
    (
        "tracing",
        "counters are fields, log lines belong to housekeeping",
    ),
    (
        "HashMap",
        "rustc_hash::FxHashMap, BTreeMap where output depends on order",
    ),
    (
        "HashSet",
        "rustc_hash::FxHashSet, BTreeSet where output depends on order",
    ),
];

/// Checks the places of `unsafe` and the comment above each.
pub(crate) fn check_unsafe(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for (index, line) in source.code.iter().enumerate() {
            if !has_word(line, "unsafe") {
                continue;
            }
            if !is_in(&source.path, &UNSAFE_PLACES) {
                findings.push(source.finding(
                    index,
                    format!(
                        "`unsafe` is allowed only in {}",
                        UNSAFE_PLACES.join(" and ")
                    ),
                ));
            } else if !is_signature(line) && !has_reason(source, index) {
                findings.push(source.finding(
                    index,
                    "no SAFETY comment above this `unsafe`: name each precondition and where it \
                     is upheld",
                ));
            }
        }
    }
    findings
}

/// Checks that crates with one home are named nowhere else in the product.
pub(crate) fn check_homes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree
        .sources
        .iter()
        .filter(|source| is_product(&source.path))
    {
        for (index, line) in source.product_lines() {
            for (name, home) in HOMES {
                if has_word(line, name) && !source.path.starts_with(home) {
                    let name = name.trim_end_matches(':');
                    let text = format!("`{name}` is named only in {home}");
                    findings.push(source.finding(index, text));
                }
            }
        }
    }
    findings
}

/// Checks that no core names the world. In the journal crate tests may not either for files: its
/// storage is simulated.
pub(crate) fn check_cores(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let is_journal = source.path.starts_with("journal/src/");
        let is_core = is_journal || source.path.starts_with("src/");
        if !is_core || is_in(&source.path, &WORLDLY) {
            continue;
        }
        for (index, line) in source.code.iter().enumerate() {
            let is_test = source.is_test[index];
            for (word, instead) in WORLD {
                let holds_in_tests = is_journal && word == "std::fs";
                if (!is_test || holds_in_tests) && says(line, word) {
                    let text = format!("a core does not say `{word}`: {instead}");
                    findings.push(source.finding(index, text));
                }
            }
        }
    }
    findings
}

/// Finds a word of [`WORLD`]; `FxHashMap` is another word, `std::{fs, net}` is the same.
fn says(line: &str, word: &str) -> bool {
    if has_word(line, word) {
        return true;
    }
    let Some(part) = word.strip_prefix("std::") else {
        return false;
    };
    let Some(at) = word_at(line, "std::{", 0) else {
        return false;
    };
    has_word(&line[at..], part)
}

fn is_product(path: &str) -> bool {
    path.starts_with("src/") || path.starts_with("journal/src/")
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
}

/// `unsafe fn` and `unsafe trait` state a contract in their docs; blocks and impls keep one.
fn is_signature(line: &str) -> bool {
    ["unsafe fn", "unsafe trait", "unsafe extern"]
        .iter()
        .any(|form| line.contains(form))
        || line.contains("unsafe_")
        || line.contains("(unsafe(")
}

/// Looks for SAFETY in the comment lines that touch this line: the same line, or the lines above
/// up to the last statement.
fn has_reason(source: &Source, index: usize) -> bool {
    let says = |line: usize| source.comments[line].contains("SAFETY:");
    if says(index) {
        return true;
    }
    for line in (0..index).rev() {
        if says(line) {
            return true;
        }
        let code = source.code[line].trim();
        let is_comment = code.is_empty() && !source.comments[line].trim().is_empty();
        let continues =
            !code.is_empty() && !code.ends_with([';', '{', '}']) || code.starts_with('#');
        if !is_comment && !continues {
            return false;
        }
    }
    false
}

mod examples {
    use super::*;

    fn count(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> usize {
        rule(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn unsafe_elsewhere_or_without_reason_is_found() {
        let reactor = "src/runtime/reactor/ring.rs";
        let bare = "fn f() {\n    unsafe { g() }\n}\n";
        let reasoned =
            "fn f() {\n    // SAFETY: g wants nothing.\n    // Really.\n    unsafe { g() }\n}\n";
        let behind = "// SAFETY: of f.\nfn f() {\n    h();\n    unsafe { g() }\n}\n";
        let bound =
            "fn f() {\n    // SAFETY: g wants nothing.\n    let x =\n        unsafe { g() };\n}\n";
        assert_eq!(count(check_unsafe, reactor, bare), 1);
        assert_eq!(count(check_unsafe, reactor, reasoned), 0);
        assert_eq!(count(check_unsafe, reactor, behind), 1);
        assert_eq!(count(check_unsafe, reactor, bound), 0);
        assert_eq!(
            count(check_unsafe, reactor, "unsafe impl Send for X {}\n"),
            1
        );
        assert_eq!(
            count(check_unsafe, "journal/src/storage/buffer.rs", reasoned),
            0
        );
        assert_eq!(
            count(check_unsafe, "journal/src/storage/memory.rs", reasoned),
            1
        );
        assert_eq!(count(check_unsafe, "tests/x.rs", reasoned), 1);
        assert_eq!(
            count(check_unsafe, "src/queue/x.rs", "#![forbid(unsafe_code)]\n"),
            0
        );
    }

    #[test]
    fn crates_away_from_home_are_found() {
        assert_eq!(
            count(
                check_homes,
                "src/shard/x.rs",
                "use glommio::LocalExecutor;\n"
            ),
            1
        );
        assert_eq!(
            count(
                check_homes,
                "src/runtime/x.rs",
                "use glommio::LocalExecutor;\n"
            ),
            1
        );
        assert_eq!(
            count(check_homes, "src/housekeeping/x.rs", "use glommio::X;\n"),
            0
        );
        assert_eq!(
            count(
                check_homes,
                "src/runtime/boot.rs",
                "io_uring::IoUring::new(8)\n"
            ),
            1
        );
        assert_eq!(
            count(
                check_homes,
                "src/runtime/reactor/mod.rs",
                "use io_uring::squeue;\n"
            ),
            0
        );
        assert_eq!(
            count(
                check_homes,
                "src/runtime/x.rs",
                "// glommio runs beside it\n"
            ),
            0
        );
    }

    #[test]
    fn the_world_in_a_core_is_found() {
        let core = "src/queue/x.rs";
        for (word, _) in WORLD {
            assert_eq!(
                count(check_cores, core, &format!("{word}\n")).min(1),
                1,
                "{word}"
            );
            let test = format!("#[cfg(test)]\nmod tests {{\n {word}\n}}\n");
            assert_eq!(count(check_cores, core, &test), 0, "{word} in a test");
            assert_eq!(
                count(check_cores, "src/node/x.rs", &format!("{word}\n")),
                0,
                "{word}"
            );
        }
        assert_eq!(count(check_cores, core, "use std::{fs, mem};\n"), 1);
        assert_eq!(count(check_cores, core, "use rustc_hash::FxHashMap;\n"), 0);
        let test = "#[cfg(test)]\nmod tests {\n use std::fs;\n}\n";
        assert_eq!(count(check_cores, "journal/src/writer.rs", test), 1);
    }
}
