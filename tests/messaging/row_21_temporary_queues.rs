//! Row 21: temporary queues and topics, request and reply.

use crate::broker::stomp::Client;
use crate::{ask, connect, next, next_message, send, subscribe, text, with_shards};

/// Answers one request at `reply-to`, upper case, from a connection of its own.
fn answer(server: &mut Client, replies: &mut Client) -> String {
    let request = next_message(server);
    let reply_to = request.header("reply-to").unwrap().to_owned();
    let correlation = request.header("correlation-id").unwrap().to_owned();
    let headers = [("correlation-id", correlation.as_str())];
    send(replies, &reply_to, &headers, &text(&request).to_uppercase());
    reply_to
}

#[test]
fn temporary_queues_bring_each_reply_to_who_asked() {
    with_shards("temporary", |setup| {
        let running = setup.start();
        let (mut server, mut replies) = (connect(running.address()), connect(running.address()));
        subscribe(&mut server, "/queue/service", &[("ack", "auto")]);
        // The same name on two connections: two queues.
        let mut askers = [connect(running.address()), connect(running.address())];
        for (number, asker) in askers.iter_mut().enumerate() {
            let headers = [("id", "0"), ("destination", "/temp-queue/replies")];
            ask(asker, "SUBSCRIBE", &headers);
            let correlation = number.to_string();
            let headers = [
                ("reply-to", "/temp-queue/replies"),
                ("correlation-id", correlation.as_str()),
            ];
            send(
                asker,
                "/queue/service",
                &headers,
                &format!("question {number}"),
            );
        }
        let names = [
            answer(&mut server, &mut replies),
            answer(&mut server, &mut replies),
        ];
        assert_ne!(names[0], names[1]);
        for (number, asker) in askers.iter_mut().enumerate() {
            let reply = next_message(asker);
            assert_eq!(text(&reply), format!("QUESTION {number}"));
            assert_eq!(reply.header("destination"), Some("/temp-queue/replies"));
            assert_eq!(reply.header("correlation-id"), Some(&*number.to_string()));
        }
        // Its owner may send to it, too.
        let [asker, _] = &mut askers;
        send(asker, "/temp-queue/replies", &[], "to myself");
        assert_eq!(text(&next_message(asker)), "to myself");
        assert!(running.stop().success());
    });
}

#[test]
fn temporary_queues_end_with_their_connection_and_belong_to_it_alone() {
    with_shards("temporary-end", |setup| {
        let running = setup.start();
        let (mut server, mut replies) = (connect(running.address()), connect(running.address()));
        subscribe(&mut server, "/queue/service", &[("ack", "auto")]);
        let mut asker = connect(running.address());
        subscribe(&mut asker, "/temp-queue/replies", &[]);
        let headers = [("reply-to", "/temp-queue/replies"), ("correlation-id", "1")];
        send(&mut asker, "/queue/service", &headers, "question");
        let reply_to = answer(&mut server, &mut replies);
        assert_eq!(text(&next_message(&mut asker)), "QUESTION");
        // Nobody else may listen there.
        let mut thief = connect(running.address());
        subscribe(&mut thief, &reply_to, &[]);
        let refused = next(&mut thief);
        assert_eq!(refused.command, "ERROR");
        assert_eq!(refused.header("message"), Some("not your destination"));
        // With its owner gone it is gone: late replies are taken, lead nowhere and make nothing.
        ask(&mut asker, "DISCONNECT", &[]);
        send(&mut replies, &reply_to, &[], "too late");
        running.kill();
        let running = setup.start();
        let said = running.said();
        assert!(said.contains("1 queues, 0 messages"), "{said}");
        assert!(running.stop().success());
    });
}

#[test]
fn temporary_topics_reach_all_who_listen_on_the_connection() {
    with_shards("temporary-topic", |setup| {
        let running = setup.start();
        let (mut server, mut replies) = (connect(running.address()), connect(running.address()));
        subscribe(&mut server, "/queue/service", &[("ack", "auto")]);
        let mut asker = connect(running.address());
        for id in ["a", "b"] {
            let headers = [("id", id), ("destination", "/temp-topic/t")];
            ask(&mut asker, "SUBSCRIBE", &headers);
        }
        let headers = [("reply-to", "/temp-topic/t"), ("correlation-id", "1")];
        send(&mut asker, "/queue/service", &headers, "question");
        answer(&mut server, &mut replies);
        let mut heard = [next_message(&mut asker), next_message(&mut asker)]
            .map(|message| message.header("subscription").unwrap().to_owned());
        heard.sort();
        assert_eq!(heard, ["a", "b"]);
        assert!(running.stop().success());
    });
}
