//! Sizes of messages: the largest, and one byte more.

use crate::broker::stomp::{Client, Frame};
use crate::load::{
    Bystander, Load, Producer, body, leave, next, subscribe, take_in_order, until_closed,
};
use crate::{MIB, small};

#[test]
fn one_byte_too_many_is_refused_before_the_body_comes() {
    let mut setup = small("too-large").config("message_size_max = \"64KiB\"\n");
    let running = setup.start();
    let head = |length: u64, more: &str| {
        format!("SEND\ndestination:/queue/size\nreceipt:r\ncontent-length:{length}\n{more}\n")
    };
    for (length, more) in [
        (65_537, ""),
        (65_537, "persistent:true\n"),
        (u64::MAX, ""),
        (1 << 40, ""),
    ] {
        let mut client = Client::connect(running.address()).unwrap();
        client.send_bytes(head(length, more).as_bytes()).unwrap();
        // Not a byte of the body was sent.
        let frames = until_closed(&mut client);
        assert_eq!(frames.len(), 1, "{length}: {frames:?}");
        assert_eq!(frames[0].command, "ERROR", "{length}");
        assert_eq!(frames[0].header("receipt-id"), Some("r"), "{length}");
    }
    // Without a length it is found when it is there.
    let mut client = Client::connect(running.address()).unwrap();
    client
        .send_bytes(b"SEND\ndestination:/queue/size\n\n")
        .unwrap();
    client.send_bytes(&[b'x'; 65_537]).unwrap();
    assert_eq!(until_closed(&mut client)[0].command, "ERROR");
    // As large as allowed goes, and nothing of the others was kept.
    let mut client = subscribe(running.address(), "/queue/size", "auto");
    let largest = body(7, 65_536);
    let headers = [("destination", "/queue/size"), ("persistent", "true")];
    client.send("SEND", &headers, &largest).unwrap();
    let frame = next(&mut client);
    assert!(frame.body == largest, "{:?}", frame.headers);
    assert!(running.stop().success());
}

/// The largest message by default, durable and not, in and out, beside small ones.
#[test]
fn the_largest_message_goes_through_beside_small_ones() {
    let mut setup = small("largest");
    let running = setup.start();
    let address = running.address();
    let bystander = Bystander::start(address);
    for is_persistent in [true, false] {
        let load = Load {
            queue: "/queue/largest",
            count: 2,
            len: 64 << 20,
            is_persistent,
            window: 1,
        };
        let producer = Producer::start(address, load);
        let mut client = subscribe(address, "/queue/largest", "client");
        take_in_order(&mut client, 0..load.count, load.len);
        producer.join();
        leave(client);
        if is_persistent {
            let most = running.resident_max_bytes();
            println!("largest: {} MiB at most for durable ones", most / MIB);
            assert!(
                most < 120 * MIB,
                "{most} bytes: a durable body is not kept in memory"
            );
        }
    }
    bystander.finish("largest");
    assert!(running.stop().success());
}

/// Small frames for one connection wait for the body under way to it, and come whole behind it.
#[test]
fn receipts_come_between_large_messages_never_inside() {
    let mut setup = small("interleaved");
    let running = setup.start();
    let mut client = subscribe(running.address(), "/queue/interleaved", "auto");
    let large = body(1, 4 << 20);
    let send = |queue: &str, receipt: &str, body: &[u8]| {
        let headers = [
            ("destination", queue),
            ("persistent", "true"),
            ("receipt", receipt),
        ];
        Frame::new("SEND", &headers, body)
    };
    for round in 0..5 {
        let large_receipt = format!("large-{round}");
        client.queue(&send("/queue/interleaved", &large_receipt, &large));
        for small in 0..20 {
            let receipt = format!("small-{round}-{small}");
            client.queue(&send("/queue/aside", &receipt, b"s"));
        }
        client.flush().unwrap();
        let (mut receipts, mut bodies) = (0, 0);
        while (receipts, bodies) != (21, 1) {
            let frame = next(&mut client);
            match frame.command.as_str() {
                "RECEIPT" => receipts += 1,
                "MESSAGE" => {
                    assert!(frame.body == large, "a body of {} bytes", frame.body.len());
                    bodies += 1;
                }
                _ => panic!("{frame:?}"),
            }
        }
    }
    assert!(running.stop().success());
}
