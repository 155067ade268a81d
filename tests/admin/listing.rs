//! What an operator sees.

use serde_json::Value;

use super::*;

fn names(listed: &Value) -> Vec<&str> {
    let queues = listed["queues"].as_array().unwrap();
    queues
        .iter()
        .map(|queue| queue["name"].as_str().unwrap())
        .collect()
}

#[test]
fn a_list_shows_every_queue_of_every_shard_with_what_is_in_it() {
    with_shards("list", |setup| {
        let broker = setup.start();
        assert_eq!(names(&json(setup, &["list"])), [""; 0]);
        let mut client = connect_as(broker.address(), "c.1");
        for number in 0..6 {
            let queue = format!("/queue/q.{number}");
            send(&mut client, &queue, &["one", "two"]);
        }
        let delayed = [
            ("destination", "/queue/q.5"),
            ("AMQ_SCHEDULED_DELAY", "900000"),
        ];
        ask_with_body(&mut client, "SEND", &delayed, "later");
        let named = [
            ("id", "s"),
            ("destination", "/topic/t"),
            ("activemq.subscriptionName", "n"),
        ];
        ask(&mut client, "SUBSCRIBE", &named);
        let mut consumer = connect(broker.address());
        subscribe(&mut consumer, "/queue/q.4", "1");
        next_message(&mut consumer);
        let listed = json(setup, &["list"]);
        let expected = ["c\\.1.n", "q.0", "q.1", "q.2", "q.3", "q.4", "q.5"];
        assert_eq!(names(&listed), expected);
        assert_eq!(counts(setup, "q.4"), [1, 1, 0, 1]);
        assert_eq!(counts(setup, "q.5"), [2, 0, 1, 0]);
        let named = &listed["queues"][0];
        assert_eq!(named["address"], "t");
        assert_eq!(named["routing"], "multicast");
        assert_eq!(named["subscription"], true);
        let first = &listed["queues"][1];
        assert_eq!(first["routing"], "anycast");
        assert_eq!(first["durable"], true);
        assert_eq!(first["paused"], false);
        assert!(first["bytes"].as_u64().unwrap() >= 6);
        let queues = listed["queues"].as_array().unwrap();
        let on_last = |one: &&Value| one["shard"] == 1;
        let is_spread = queues.iter().any(|one| on_last(&one));
        assert_eq!(is_spread, setup.arguments.contains(&"2".to_owned()));
        let said = queue(setup, &["list"]);
        assert_eq!(said.out.lines().count(), 8, "{}", said.out);
        assert!(
            said.out.contains("durable subscription  c\\.1.n"),
            "{}",
            said.out
        );
        let said = queue(setup, &["show", "q.5"]);
        assert!(said.out.contains("aside      1"), "{}", said.out);
    });
}

#[test]
fn a_list_of_many_queues_comes_in_pages_that_name_each_queue_once() {
    with_shards("pages", |setup| {
        let broker = setup.start();
        let mut client = connect(broker.address());
        for number in 0..700 {
            let queue = format!("/queue/q.{number}");
            let headers = [("destination", queue.as_str())];
            client.send("SEND", &headers, b"x").unwrap();
        }
        ask_with_body(&mut client, "SEND", &[("destination", "/queue/last")], "x");
        // Receipts of other shards say nothing of this one: wait for what is listed.
        for number in 0..700 {
            let queue = format!("/queue/q.{number}");
            ask_with_body(&mut client, "SEND", &[("destination", &queue)], "y");
        }
        let (status, page) = http(&setup.data, "GET /v1/queues");
        let page: Value = serde_json::from_str(&page).unwrap();
        assert_eq!((status, names(&page).len()), (200, 256));
        assert!(page["next"].is_string());
        let listed = json(setup, &["list"]);
        let mut listed = names(&listed);
        assert_eq!(listed.len(), 701);
        listed.dedup();
        assert_eq!(listed.len(), 701);
    });
}

#[test]
fn health_tells_of_every_shard() {
    with_shards("health", |setup| {
        let broker = setup.start();
        let _client = connect(broker.address());
        let (status, body) = http(&setup.data, "GET /v1/health");
        let health: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &health["serving"]), (200, &Value::Bool(true)));
        assert_eq!(health["epoch"], 1);
        assert_eq!(health["quarantined_files"], 0);
        let shards = health["shards"].as_array().unwrap();
        assert!(shards.iter().all(|shard| shard["answers"] == true));
        let connections = shards
            .iter()
            .map(|shard| shard["connections"].as_u64().unwrap());
        assert_eq!(connections.sum::<u64>(), 1);
        assert_eq!(setup.arguments[1], shards.len().to_string());
    });
}

#[test]
fn a_name_that_two_have_wants_to_be_said_by_routing() {
    with_shards("ambiguous", |setup| {
        let broker = setup.start();
        let mut client = connect_as(broker.address(), "c");
        send(&mut client, "/queue/c.n", &["one"]);
        let named = [
            ("id", "s"),
            ("destination", "/topic/t"),
            ("activemq.subscriptionName", "n"),
        ];
        ask(&mut client, "SUBSCRIBE", &named);
        for verb in ["show", "pause", "purge", "delete"] {
            refused(setup, &[verb, "c.n"], REFUSED, "say which by routing");
        }
        let seen = json(setup, &["show", "c.n", "--routing", "multicast"]);
        assert_eq!(seen["address"], "t");
        json(setup, &["pause", "c.n", "--routing", "anycast"]);
        let seen = json(setup, &["show", "c.n", "--routing", "anycast"]);
        assert_eq!((&seen["paused"], &seen["ready"]), (&true.into(), &1.into()));
    });
}

#[test]
fn names_of_no_queue_are_refused() {
    with_shards("unknown", |setup| {
        let broker = setup.start();
        let mut client = connect(broker.address());
        // A plain subscription shares its topic's name and has none of its own.
        let plain = [("id", "p"), ("destination", "/topic/plain")];
        ask(&mut client, "SUBSCRIBE", &plain);
        for name in ["nobody", "/queue/q", "", "a/b?c#%", "plain", "\u{1b}[2J"] {
            for verb in ["show", "pause", "resume", "purge", "delete"] {
                let said = queue(setup, &[verb, name]);
                assert_eq!(said.code, REFUSED, "{verb} {name}: {said:?}");
                assert!(!said.err.contains('\u{1b}'), "{said:?}");
            }
        }
        assert_eq!(names(&json(setup, &["list"])), ["plain"]);
    });
}

#[test]
fn names_of_any_characters_are_found() {
    let mut setup = setup("characters", "2");
    let broker = setup.start();
    let mut client = connect(broker.address());
    for name in ["a/b", "a b%2Fc?d=e&f#g", "\u{fc}ber", "..", "pause"] {
        send(&mut client, &format!("/queue/{name}"), &["one"]);
        assert_eq!(counts(&setup, name), [1, 0, 0, 0], "{name}");
        assert_eq!(json(&setup, &["purge", name])["purged"], 1, "{name}");
    }
}
