//! What `records` shows when it is asked for less than all.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::path::Path;

use rig::{inspect, two_epochs};
use serde_json::Value;

fn records(data: &Path, filters: &[&str]) -> Vec<Value> {
    let args = [&["records", "--json"], filters].concat();
    let said = inspect(&args, data);
    assert_eq!(said.code, 0, "{said:?}");
    let lines = said.lines().into_iter();
    lines.filter(|line| line.get("lsn").is_some()).collect()
}

fn lsns(records: &[Value]) -> Vec<u64> {
    let lsns = records.iter().map(|record| record["lsn"].as_u64());
    lsns.map(|lsn| lsn.expect("a number")).collect()
}

#[test]
fn each_filter_keeps_what_it_says_and_nothing_else() {
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path();
    two_epochs(data, true);
    let all = records(data, &[]);
    let keep = |is_kept: &dyn Fn(&Value) -> bool| {
        let kept: Vec<_> = all.iter().filter(|one| is_kept(one)).cloned().collect();
        assert!(!kept.is_empty() && kept.len() < all.len());
        lsns(&kept)
    };
    let asked = |filters: &[&str]| lsns(&records(data, filters));

    assert_eq!(
        asked(&["--kind", "settle", "--kind", "delivery"]),
        keep(&|one| one["kind"] == "settle" || one["kind"] == "delivery")
    );
    assert_eq!(
        asked(&["--from", "7", "--upto", "30"]),
        keep(&|one| (7..=30).contains(&one["lsn"].as_u64().expect("a number")))
    );
    assert_eq!(asked(&["--segment", "2"]), keep(&|one| one["segment"] == 2));
    // Message 2 came, was delivered in a range, and settled.
    let named = keep(&|one| {
        one["message"] == 2
            || (one["kind"] == "delivery" && one["queue"] == 1)
            || (one["kind"] == "settle")
    });
    assert_eq!(asked(&["--message", "2"]), named);
    assert_eq!(named.len(), 3);
    // All filters hold at once.
    assert_eq!(
        asked(&["--message", "2", "--kind", "settle"]),
        keep(&|one| one["kind"] == "settle")
    );
    let said = inspect(&["records", "--message", "999"], data);
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn time_is_that_of_the_block() {
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path();
    two_epochs(data, false);
    let all = records(data, &[]).len();
    let count = |filters: &[&str]| records(data, filters).len();
    // The rig seals at 2023-11-14 22:13:20.
    assert_eq!(count(&["--since", "2023-11-14 22:13:20"]), all);
    assert_eq!(count(&["--since", "2023-11-14 22:13:20.001 UTC"]), 0);
    assert_eq!(count(&["--until", "1700000000000"]), all);
    assert_eq!(count(&["--until", "2023-11-14"]), 0);
}

#[test]
fn what_is_no_filter_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    for wrong in [
        ["--kind", "massage"],
        ["--since", "tomorrow"],
        ["--rate", "0"],
        ["--rate", "5 parsecs"],
    ] {
        let said = inspect(&[&["records"][..], &wrong[..]].concat(), data.path());
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.err.contains(wrong[1]) || said.err.contains("parsecs"),
            "{said:?}"
        );
    }
}
