//! What `[[address]]` tables set, as clients meet it: who may make a queue, what a plain name
//! means, who is served, how long messages and queues live.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::broker::process::wait_until;
use crate::broker::stomp::{Client, Frame};
use crate::{
    PATIENCE, ask, browse, connect, next, next_message, send, subscribe, text, with_shards,
};

/// Milliseconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "expiry is a time of the wall clock"
)]
fn now_unix_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_millis()
}

#[test]
fn a_queue_that_nobody_may_make_is_refused_by_name_and_one_that_is_there_is_open() {
    with_shards("address-create", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        send(&mut client, "/queue/made.before", &[], "kept");
        running.kill();
        setup.config += "[[address]]\nmatch = \"made.#\"\nauto_create_queues = false\n";
        let running = setup.start();
        let address = running.address();
        for (command, header) in [("SEND", "persistent"), ("SUBSCRIBE", "id")] {
            let mut client = connect(address);
            let headers = [
                ("destination", "/queue/made.later"),
                (header, "true"),
                ("receipt", "r"),
            ];
            client.send(command, &headers, b"").unwrap();
            let error = next(&mut client);
            assert_eq!(error.command, "ERROR", "{error:?}");
            assert_eq!(error.header("receipt-id"), Some("r"));
            let said = text(&error);
            assert!(said.contains("there is no such queue"), "{said}");
            assert!(
                said.contains("(auto_create_queues); address: made.later"),
                "{said}"
            );
        }
        // Temporary queues and topics are not named, but made; and others make themselves.
        let mut client = connect(address);
        for (id, destination) in [("1", "/temp-queue/made"), ("2", "/topic/made.topic")] {
            let headers = [("id", id), ("destination", destination)];
            ask(&mut client, "SUBSCRIBE", &headers);
        }
        send(&mut client, "/queue/other", &[], "taken");
        assert_eq!(browse(&mut client, "/queue/made.before", "b"), ["kept"]);
        assert!(running.stop().success());
    });
}

#[test]
fn a_plain_name_is_a_queue_or_a_topic_as_its_address_says() {
    with_shards("address-routing", |setup| {
        setup.config += "[[address]]\nmatch = \"news.#\"\ndefault_routing = \"multicast\"\n\
                         [[address]]\nmatch = \"news.jobs\"\ndefault_routing = \"anycast\"\n";
        let running = setup.start();
        let address = running.address();
        let mut readers = [connect(address), connect(address)];
        for reader in &mut readers {
            ask(
                reader,
                "SUBSCRIBE",
                &[("id", "n"), ("destination", "news.eu")],
            );
        }
        let mut producer = connect(address);
        send(&mut producer, "news.eu", &[], "to all");
        send(&mut producer, "/topic/news.eu", &[], "to all again");
        send(&mut producer, "/queue/news.eu", &[], "to one");
        send(
            &mut producer,
            "news.eu",
            &[("destination-type", "ANYCAST")],
            "to one again",
        );
        for reader in &mut readers {
            let seen = [next_message(reader), next_message(reader)].map(|one| text(&one));
            assert_eq!(seen, ["to all", "to all again"]);
        }
        send(&mut producer, "news.jobs", &[], "a job");
        send(&mut producer, "plain", &[], "plain");
        assert_eq!(browse(&mut producer, "/queue/news.jobs", "1"), ["a job"]);
        assert_eq!(browse(&mut producer, "/queue/plain", "2"), ["plain"]);
        let left = browse(&mut producer, "/queue/news.eu", "3");
        assert_eq!(left, ["to one", "to one again"]);
        assert!(running.stop().success());
    });
}

#[test]
fn an_exclusive_queue_serves_one_consumer_after_the_other() {
    const QUEUE: &str = "/queue/single.a";
    with_shards("address-exclusive", |setup| {
        setup.config += "[[address]]\nmatch = \"single.*\"\ndefault_exclusive = true\n";
        let running = setup.start();
        let address = running.address();
        let mut consumers = [connect(address), connect(address)];
        for consumer in &mut consumers {
            let headers = [
                ("id", "0"),
                ("destination", QUEUE),
                ("ack", "client-individual"),
            ];
            ask(consumer, "SUBSCRIBE", &headers);
        }
        let mut producer = connect(address);
        for number in ["0", "1", "2", "3"] {
            send(&mut producer, QUEUE, &[], number);
        }
        let [mut first, mut second] = consumers;
        for number in ["0", "1", "2", "3"] {
            assert_eq!(text(&next_message(&mut first)), number);
        }
        drop(first);
        for number in ["0", "1", "2", "3"] {
            assert_eq!(text(&next_message(&mut second)), number);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn messages_live_as_long_as_their_address_lets_them() {
    with_shards("address-expiry", |setup| {
        setup.config += "[[address]]\nmatch = \"short.#\"\nexpiry_delay_ms = 300\n\
                         [[address]]\nmatch = \"short.capped\"\nmax_expiry_delay_ms = 300\n\
                         [[address]]\nmatch = \"long\"\nmin_expiry_delay_ms = 3600000\n\
                         [[address]]\nmatch = \"ever\"\nno_expiry = true\n";
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        let over = [("expires", "1000000000000")];
        let later = (now_unix_ms() + 3_600_000).to_string();
        let later = [("expires", &*later)];
        send(&mut client, "/queue/short.a", &[], "unasked");
        send(&mut client, "/queue/short.a", &later, "asked");
        send(&mut client, "/queue/short.capped", &later, "capped");
        send(&mut client, "/queue/long", &over, "lengthened");
        send(&mut client, "/queue/long", &later, "asked");
        send(&mut client, "/queue/ever", &over, "for ever");
        // In memory and in pieces as well.
        let body = vec![b'x'; 300_000];
        for persistent in ["true", "false"] {
            let headers = [
                ("destination", "/queue/short.b"),
                ("persistent", persistent),
            ];
            client.send("SEND", &headers, &body).unwrap();
        }
        send(&mut client, "/queue/short.b", &later, "asked");
        // A browser that is at a large body when its time is over loses its connection.
        let sent = now_unix_ms();
        wait_until(PATIENCE, "their time is over", || {
            now_unix_ms() > sent + 1000
        });
        for (queue, left) in [
            ("/queue/short.a", &["asked"][..]),
            ("/queue/short.capped", &[]),
            ("/queue/short.b", &["asked"]),
        ] {
            wait_until(PATIENCE, "the short-lived are gone", || {
                browse(&mut connect(address), queue, "b") == left
            });
        }
        // What was decided is what the journal says.
        running.kill();
        let running = setup.start();
        let mut client = connect(running.address());
        for (id, (queue, left)) in [
            ("/queue/short.a", &["asked"][..]),
            ("/queue/short.capped", &[]),
            ("/queue/long", &["lengthened", "asked"]),
            ("/queue/ever", &["for ever"]),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(browse(&mut client, queue, &id.to_string()), left);
        }
        assert!(running.stop().success());
    });
}

/// Whether the queue is there, where none makes itself. A browser uses nothing.
fn is_there(address: SocketAddr, queue: &str) -> bool {
    let mut client = connect(address);
    subscribe(&mut client, queue, &[("browser", "true")]);
    match next(&mut client) {
        frame if frame.command == "MESSAGE" => true,
        error => {
            assert!(text(&error).contains("no such queue"), "{error:?}");
            false
        }
    }
}

#[test]
fn a_queue_goes_when_nobody_uses_it_and_stays_gone() {
    const FULL: &str = "/queue/brief.full";
    const USED: &str = "/queue/brief.used";
    const LEFT: &str = "/queue/brief.left";
    with_shards("address-delete", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        for queue in [FULL, USED, LEFT] {
            send(&mut client, queue, &[], "a message");
        }
        running.kill();
        setup.config += "[[address]]\nmatch = \"brief.#\"\nauto_create_queues = false\n\
                         auto_delete_queues = true\nauto_delete_queues_delay_ms = 200\n";
        let running = setup.start();
        let address = running.address();
        let mut consumer = connect(address);
        for queue in [USED, LEFT] {
            let headers = [("id", queue), ("destination", queue), ("ack", "client")];
            ask(&mut consumer, "SUBSCRIBE", &headers);
            let message = next_message(&mut consumer);
            ask(
                &mut consumer,
                "ACK",
                &[("id", message.header("ack").unwrap())],
            );
        }
        ask(&mut consumer, "UNSUBSCRIBE", &[("id", LEFT)]);
        wait_until(PATIENCE, "what nobody uses goes", || {
            !is_there(address, LEFT)
        });
        assert!(is_there(address, USED) && is_there(address, FULL));
        running.kill();
        let running = setup.start();
        let address = running.address();
        assert!(!is_there(address, LEFT), "that was decided");
        // Its consumer went with the broker.
        wait_until(PATIENCE, "what nobody uses goes", || {
            !is_there(address, USED)
        });
        assert_eq!(browse(&mut connect(address), FULL, "b"), ["a message"]);
        assert!(running.stop().success());
    });
}

#[test]
fn who_takes_from_a_pattern_uses_its_queues() {
    const QUEUES: [&str; 3] = ["/queue/brief.a", "/queue/brief.b", "/queue/brief.c"];
    with_shards("address-pattern", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        for queue in QUEUES {
            send(&mut client, queue, &[], queue);
        }
        running.kill();
        setup.config += "[[address]]\nmatch = \"brief.#\"\nauto_create_queues = false\n\
                         auto_delete_queues = true\n";
        let running = setup.start();
        let address = running.address();
        let mut consumer = connect(address);
        let pattern = [
            ("id", "0"),
            ("destination", "/queue/brief.*"),
            ("ack", "client"),
        ];
        consumer.send("SUBSCRIBE", &pattern, b"").unwrap();
        for round in 0..2 {
            let frames = QUEUES.map(|_| next_message(&mut consumer));
            let last = frames[2].header("ack").unwrap();
            ask(&mut consumer, "ACK", &[("id", last)]);
            for queue in QUEUES.into_iter().filter(|_| round == 0) {
                // Empty, and still there.
                send(&mut connect(address), queue, &[], queue);
            }
        }
        ask(&mut consumer, "UNSUBSCRIBE", &pattern[..1]);
        wait_until(PATIENCE, "what nobody uses goes", || {
            QUEUES.iter().all(|queue| !is_there(address, queue))
        });
        assert!(running.stop().success());
    });
}

#[test]
fn a_queue_that_went_comes_back_when_it_is_named() {
    const QUEUE: &str = "/queue/brief";
    with_shards("address-again", |setup| {
        setup.config += "[[address]]\nmatch = \"brief\"\nauto_delete_queues = true\n";
        let running = setup.start();
        let mut client = connect(running.address());
        for round in ["0", "1", "2", "3"] {
            send(&mut client, QUEUE, &[], round);
            let headers = [("id", round), ("destination", QUEUE), ("ack", "client")];
            ask_and_take(&mut client, &headers, round);
        }
        // In pieces: the queue is empty while the message is on its way.
        let body = vec![b'x'; 300_000];
        let headers = [
            ("destination", QUEUE),
            ("persistent", "true"),
            ("receipt", "r"),
        ];
        client.send("SEND", &headers, &body).unwrap();
        assert_eq!(next(&mut client).header("receipt-id"), Some("r"));
        assert_eq!(
            browse(&mut client, QUEUE, "b"),
            [String::from_utf8(body).unwrap()]
        );
        assert!(running.stop().success());
    });
}

/// Subscribes, takes and acknowledges one message, and unsubscribes.
fn ask_and_take(client: &mut Client, headers: &[(&str, &str)], expected: &str) {
    ask(client, "SUBSCRIBE", headers);
    let message = next_message(client);
    assert_eq!(text(&message), expected);
    ask(client, "ACK", &[("id", message.header("ack").unwrap())]);
    ask(client, "UNSUBSCRIBE", &headers[..1]);
}

#[test]
fn what_the_last_consumer_leaves_goes_where_the_address_says_so() {
    const QUEUE: &str = "/queue/live";
    with_shards("address-purge", |setup| {
        setup.config += "[[address]]\nmatch = \"live\"\ndefault_purge_on_no_consumers = true\n";
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        send(&mut producer, QUEUE, &[], "to nobody");
        let mut consumer = connect(address);
        let headers = [("id", "0"), ("destination", QUEUE), ("ack", "client")];
        ask(&mut consumer, "SUBSCRIBE", &headers);
        for number in ["0", "1"] {
            send(&mut producer, QUEUE, &[], number);
            assert_eq!(text(&next_message(&mut consumer)), number);
        }
        ask(&mut consumer, "UNSUBSCRIBE", &[("id", "0")]);
        let nothing: [&str; 0] = [];
        assert_eq!(browse(&mut producer, QUEUE, "b"), nothing);
        // That was decided, so it stays so.
        running.kill();
        let running = setup.start();
        let mut consumer = connect(running.address());
        ask(&mut consumer, "SUBSCRIBE", &headers);
        let mut producer = connect(running.address());
        send(&mut producer, QUEUE, &[], "2");
        assert_eq!(text(&next_message(&mut consumer)), "2");
        assert!(running.stop().success());
    });
}

/// A SEND whose body comes in two halves.
struct Halves {
    client: Client,
    rest: Vec<u8>,
}

impl Halves {
    fn begin(address: SocketAddr, destination: &str) -> Self {
        let mut client = connect(address);
        let headers = [
            ("destination", destination),
            ("persistent", "true"),
            ("receipt", "halves"),
        ];
        let mut bytes = Vec::new();
        Frame::new("SEND", &headers, &[b'x'; 600_000]).encode(&mut bytes);
        let rest = bytes.split_off(400_000);
        client.send_bytes(&bytes).unwrap();
        Self { client, rest }
    }

    /// It is taken, wherever it leads.
    fn end(mut self) {
        self.client.send_bytes(&self.rest).unwrap();
        let answer = next(&mut self.client);
        assert_eq!(answer.header("receipt-id"), Some("halves"), "{answer:?}");
    }
}

#[test]
fn a_message_in_pieces_outlives_the_queue_it_was_for_by_nothing() {
    with_shards("address-pieces", |setup| {
        setup.config += "[[address]]\nmatch = \"live\"\ndefault_purge_on_no_consumers = true\n";
        let running = setup.start();
        let address = running.address();
        let mut other = connect(address);
        for _ in 0..5 {
            // Whoever was there for it goes while it comes: from a queue that is purged then, and
            // from a topic that somebody else still listens to.
            let mut reader = connect(address);
            ask(
                &mut reader,
                "SUBSCRIBE",
                &[("id", "q"), ("destination", "/queue/live")],
            );
            let name = ("activemq.subscriptionName", "s");
            let mut durable = Client::open(address).unwrap();
            let headers = [("accept-version", "1.2"), ("host", "/"), ("client-id", "c")];
            durable.send("CONNECT", &headers, b"").unwrap();
            assert_eq!(next(&mut durable).command, "CONNECTED");
            let topic = ("destination", "/topic/live");
            ask(&mut durable, "SUBSCRIBE", &[("id", "t"), topic, name]);
            let mut listener = connect(address);
            ask(&mut listener, "SUBSCRIBE", &[("id", "t"), topic]);
            let queue = Halves::begin(address, "/queue/live");
            let topic = Halves::begin(address, "/topic/live");
            // By then the first halves are there.
            send(&mut other, "/queue/other", &[], "after them");
            send(&mut other, "/queue/other", &[], "after them");
            ask(&mut reader, "UNSUBSCRIBE", &[("id", "q")]);
            ask(&mut durable, "UNSUBSCRIBE", &[("id", "t"), name]);
            queue.end();
            topic.end();
        }
        running.kill();
        let running = setup.start();
        let nothing: [&str; 0] = [];
        assert_eq!(
            browse(&mut connect(running.address()), "/queue/live", "b"),
            nothing
        );
        assert!(running.stop().success());
    });
}

#[test]
fn dead_letters_reach_their_address_whoever_may_make_queues() {
    const QUEUE: &str = "/queue/made.before";
    with_shards("address-dead", |setup| {
        let running = setup.start();
        send(&mut connect(running.address()), QUEUE, &[], "poison");
        running.kill();
        setup.config += "[[address]]\nmatch = \"#\"\nauto_create_queues = false\n";
        let running = setup.start();
        let address = running.address();
        assert!(!is_there(address, "/queue/DLQ"), "nobody needed it yet");
        let mut consumer = connect(address);
        subscribe(&mut consumer, QUEUE, &[("ack", "client-individual")]);
        for _ in 0..10 {
            let message = next_message(&mut consumer);
            let id = message.header("ack").unwrap();
            ask(&mut consumer, "NACK", &[("id", id)]);
        }
        wait_until(PATIENCE, "the dead letter is there", || {
            is_there(address, "/queue/DLQ")
        });
        assert_eq!(browse(&mut consumer, "/queue/DLQ", "b"), ["poison"]);
        assert!(running.stop().success());
    });
}
