//! The table is a table: names are those that Prometheus wants, each once.

use super::*;

fn text_of(scrape: Scrape) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn names_are_distinct_and_said_though_no_shard_answers() {
    let shards = vec![ShardScrape {
        shard: 0,
        told: None,
        board: BoardSeen::default(),
        oldest_check_s: None,
        cut_bytes: 5,
    }];
    let identity = Identity {
        node: "a \"node\"\n".to_owned(),
        ..Identity::default()
    };
    let text = text_of(Scrape {
        identity,
        disk: Some((10, 4)),
        shards,
    });
    let typed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let mut names: Vec<&str> = typed
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(names.iter().all(|name| name.starts_with("forebay_")));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for line in &typed {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
    assert!(text.contains("\nforebay_shard_answers{shard=\"0\"} 0"));
    assert!(text.contains("forebay_log_cut_bytes{shard=\"0\"} 5"));
    assert!(text.contains("node=\"a \\\"node\\\"\\n\""), "{text}");
    assert!(
        !text.contains("\nforebay_connections{"),
        "it did not answer"
    );
}
