//! A host alone whose disk is full.

use forebay_journal::format::{Parts, Record, Routing};
use forebay_journal::storage::WriteDone;
use forebay_journal::{Budget, ShardId};

use super::DiskFull;
use crate::frontend::{Command, Extras, Refusal, SendCommand, SendPartCommand};
use crate::now::Now;
use crate::shard::ConnectionId;
use crate::shard::host::space::tests::{host, prepare};
use crate::shard::host::{Answer, Host, Lane};

const NOW: Now = Now {
    monotonic_us: 1,
    unix_ms: 1_700_000_000_000,
};

fn client(number: u64) -> ConnectionId {
    ConnectionId::new(ShardId(0), number)
}

fn send<'a>(body: &'a [u8], receipt: &'a [u8], is_complete: bool) -> Command<&'a [u8]> {
    Command::Send(SendCommand {
        routing: Routing::Anycast,
        address: b"full",
        is_temporary: false,
        is_forwarded: false,
        client: None,
        is_persistent: true,
        priority: 4,
        expires_unix_ms: 0,
        extras: Extras {
            deliver_unix_ms: 0,
            group: 0,
            is_group_end: false,
            copy: 0,
            duplicate_id: None,
        },
        has_content_length: true,
        encoding: 0,
        head: b"",
        body,
        body_total: None,
        is_complete,
        receipt: Some(receipt),
        transaction: 0,
    })
}

fn part(bytes: &[u8], is_last: bool) -> Command<&[u8]> {
    let copy = 0;
    Command::SendPart(SendPartCommand {
        copy,
        bytes,
        is_last,
    })
}

/// Takes a command, and does the writes.
fn take(host: &mut Host, link: ConnectionId, command: &Command<&[u8]>) {
    host.handle(link, command, NOW);
    write_out(host);
}

fn write_out(host: &mut Host) {
    while let Some(write) = host.poll_write(NOW) {
        let (ticket, result) = (write.ticket, Ok(()));
        host.handle_write_done(WriteDone { ticket, result }, NOW);
    }
}

/// Fills all that is for messages; gives how many were taken.
fn fill(host: &mut Host) -> u64 {
    let body = [7; 50_000];
    let mut count = 0;
    while host.admits(Lane::Message) {
        take(host, client(1), &send(&body, b"r", true));
        count += 1;
    }
    host.answers.clear();
    host.note_disk_full();
    count
}

/// Receipts of the messages that were refused for the disk's sake since this was asked last.
fn refused(host: &mut Host) -> Vec<(ConnectionId, Option<Vec<u8>>)> {
    let answers = host.answers.drain(..);
    let refused = answers.filter_map(|(link, answer)| match answer {
        Answer::Refused {
            refusal: Refusal::DiskFull,
            about,
            receipt,
        } => {
            assert_eq!(about.as_ref().map(|text| text.bytes()), Some(&b"full"[..]));
            Some((link, receipt.map(|text| text.bytes().to_vec())))
        }
        _ => None,
    });
    refused.collect()
}

#[test]
fn messages_wait_unless_they_are_to_be_refused() {
    for policy in [DiskFull::Block, DiskFull::Fail] {
        let mut host = host(policy);
        assert!(fill(&mut host) > 10);
        let is_refusing = policy == DiskFull::Fail;
        assert_eq!(host.is_refusing(), is_refusing);
        assert_eq!(host.takes(client(2), Lane::Message), is_refusing);
        assert!(host.admits(Lane::Control), "settling goes on");
        // What the broker sends on waits either way.
        let forwarder = ConnectionId::forwarder(ShardId(3));
        assert!(!host.takes(forwarder, Lane::Message));
        if is_refusing {
            let before = host.machine.held();
            take(&mut host, client(2), &send(b"one more", b"here", true));
            let expected = vec![(client(2), Some(b"here".to_vec()))];
            assert_eq!(refused(&mut host), expected);
            assert_eq!(host.machine.held(), before);
        }
        prepare(&mut host);
        assert!(!host.is_refusing() && host.admits(Lane::Message));
    }
}

/// Of a message that is refused in its middle nothing is left, also if there is space for its end.
#[test]
fn a_message_that_has_begun_is_called_off() {
    let mut host = host(DiskFull::Fail);
    take(&mut host, client(2), &send(b"begun ", b"here", false));
    let count = fill(&mut host);
    take(&mut host, client(2), &part(b"and goes ", false));
    let expected = vec![(client(2), Some(b"here".to_vec()))];
    assert_eq!(refused(&mut host), expected);
    take(&mut host, client(2), &part(b"on ", false));
    prepare(&mut host);
    take(&mut host, client(2), &part(b"to its end", true));
    assert_eq!(refused(&mut host), vec![], "once is enough");
    assert_eq!(host.machine.held().messages, count);
}

/// Calling off takes room: without any nobody is refused, and all wait.
#[test]
fn nobody_is_refused_when_the_reserve_is_used_up() {
    let mut host = host(DiskFull::Fail);
    take(&mut host, client(2), &send(b"begun ", b"here", false));
    fill(&mut host);
    let other = Record::Fragment {
        upload: u64::MAX,
        offset: 0,
        body: Parts::One(&[7; 40_000]),
    };
    while host.admits(Lane::Control) {
        let appended = host.writer.append(&other, Budget::Control);
        assert!(appended.is_ok(), "{appended:?}");
        write_out(&mut host);
    }
    assert!(!host.is_refusing());
    assert!(!host.takes(client(2), Lane::Message));
    prepare(&mut host);
    assert!(host.takes(client(2), Lane::Message));
}
