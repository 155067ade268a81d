//! House rules that the compiler does not hold: one test per rule, one example per rule that the
//! rule catches what it is for.
//!
//! Failures name `file:line` and the rule. Folders that do not exist yet are no failure.
//! `FOREBAY_TIDY_ROOT` looks at another checkout. Sources of the rules: `docs/testing.md` and
//! `CONTRIBUTING.md`.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;

use source::{Finding, Tree};

/// Runs one rule over the whole tree and fails with all it found.
fn hold(rule: fn(&Tree) -> Vec<Finding>) {
    let tree = Tree::load();
    assert!(
        !tree.sources.is_empty(),
        "no source file below {}",
        tree.root.display()
    );
    let findings = rule(&tree);
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} finding(s):\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn imports_go_down_only() {
    hold(imports::check);
}

#[test]
fn every_module_has_a_place_in_the_table() {
    hold(imports::check_places);
}

#[test]
fn unsafe_stands_in_two_places_with_its_reason() {
    hold(purity::check_unsafe);
}

#[test]
fn crates_with_a_home_are_named_only_there() {
    hold(purity::check_homes);
}

#[test]
fn cores_touch_no_clock_file_socket_thread_or_lock() {
    hold(purity::check_cores);
}

#[test]
fn files_and_functions_keep_their_size() {
    hold(shape::check_sizes);
}

#[test]
fn names_say_what_things_are() {
    hold(shape::check_names);
}

#[test]
fn nothing_is_left_for_later() {
    hold(shape::check_leftovers);
}

#[test]
fn sources_are_ascii_and_modules_say_what_they_are() {
    hold(shape::check_text);
}

#[test]
fn documents_have_one_title_and_live_links() {
    hold(documents::check);
}

#[test]
fn files_that_documents_and_comments_name_are_there() {
    hold(documents::check_names);
}
