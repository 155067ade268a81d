//! `export` and `import`: whatever a journal holds comes back, and comes out the same again.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_journal::format::{
    Annotations, Departure, IdList, MessageFields, Outcome, Parts, QueueFlags, Record, Routing,
    Standing, Stands, TransactionState,
};
use forebay_journal::{MessageId, QueueId};
use proptest::prelude::*;
use rig::{Journal, Said, files, inspect, two_epochs, with_flip};
use serde_json::Value;

/// What must come out: bodies by queue and message.
type Model = BTreeMap<(u64, u64), Vec<u8>>;

fn export(data: &Path) -> Said {
    let said = inspect(&["export"], data);
    assert_eq!(said.code, 0, "{said:?}");
    said
}

/// Imports text into a folder beside, and returns that.
fn import(text: &str, beside: &Path, name: &str) -> PathBuf {
    let (file, into) = (beside.join(format!("{name}.jsonl")), beside.join(name));
    std::fs::write(&file, text).expect("writes");
    let into_text = into.to_str().expect("a path");
    let said = inspect(
        &["import", "--segment-size", "1MiB", "--into", into_text],
        &file,
    );
    assert_eq!(said.code, 0, "{said:?}");
    into
}

/// All but the head, which names the source.
fn content(said: &Said) -> &str {
    said.out.split_once('\n').expect("lines").1
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        other => {
            let text = other["base64"].as_str().expect("a text or base64");
            data_encoding::BASE64
                .decode(text.as_bytes())
                .expect("base64")
        }
    }
}

/// Puts bodies together.
fn found(said: &Said) -> Model {
    let mut parts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut found = Model::new();
    for line in said.lines() {
        match line["what"].as_str() {
            Some("part") => {
                let upload = line["upload"].as_u64().expect("a number");
                parts
                    .entry(upload)
                    .or_default()
                    .extend(bytes(&line["body"]));
            }
            Some("message") => {
                let upload = line["upload"].as_u64().unwrap_or(0);
                let mut body = parts.remove(&upload).unwrap_or_default();
                body.extend(bytes(&line["body"]));
                let message = line["message"].as_u64().expect("a number");
                for place in line["queues"].as_array().expect("a list") {
                    let queue = place["queue"].as_u64().expect("a number");
                    found.insert((queue, message), body.clone());
                }
            }
            _ => {}
        }
    }
    found
}

/// Random histories; the model knows enters and settles alone, which is all that decides.
struct History {
    journal: Journal,
    data: PathBuf,
    model: Model,
    next_transaction: u64,
}

impl History {
    fn begin(data: &Path) -> Self {
        let mut journal = Journal::create_sized(data, 256 << 10);
        for (queue, flags) in [
            (1, QueueFlags::default()),
            (
                2,
                QueueFlags {
                    is_subscription: true,
                    is_shared: true,
                    ..QueueFlags::default()
                },
            ),
            (
                3,
                QueueFlags {
                    is_divert: true,
                    ..QueueFlags::default()
                },
            ),
            (4, QueueFlags::default()),
        ] {
            journal.append(&Record::QueueDefine {
                queue: QueueId(queue),
                routing: Routing::Multicast,
                flags,
                address: b"events",
                name: format!("name {queue}").as_bytes(),
                filter: if queue == 2 { b"a = 'b'" } else { b"" },
            });
        }
        Self {
            journal,
            data: data.to_owned(),
            model: Model::new(),
            next_transaction: 1 << 8,
        }
    }

    /// A queue and a message in it.
    fn pick(&self, pick: u64) -> Option<(u64, u64)> {
        let count = self.model.len() as u64;
        let index = pick.checked_rem(count)? as usize;
        self.model.keys().nth(index).copied()
    }

    fn send(&mut self, pick: u64, body: &[u8], fields: MessageFields) -> (u64, Vec<u64>) {
        let queues = [vec![1], vec![2], vec![1, 2, 3], vec![3]][pick as usize % 4].clone();
        let id = format!("id {pick}");
        let annotations = Annotations {
            deliver_unix_ms: if pick.is_multiple_of(7) { pick + 1 } else { 0 },
            group: pick % 3,
            is_group_end: pick.is_multiple_of(5),
            last_value: if pick.is_multiple_of(6) { b"key" } else { b"" },
            duplicate_id: if pick.is_multiple_of(2) {
                id.as_bytes()
            } else {
                b""
            },
            address: b"",
        };
        let message = self.journal.send_as(&queues, fields, annotations, body);
        (message, queues)
    }

    fn enter(&mut self, message: u64, queues: &[u64], body: &[u8]) {
        for queue in queues {
            self.model.insert((*queue, message), body.to_vec());
        }
    }

    fn transaction(&mut self, pick: u64, body: &[u8]) {
        let transaction = self.next_transaction;
        self.next_transaction += 1 << 8;
        let fields = MessageFields {
            transaction,
            ..MessageFields::default()
        };
        let (message, queues) = self.send(pick, body, fields);
        let settled = self.pick(pick);
        if let Some((queue, message)) = settled {
            self.journal.append(&Record::Settle {
                queue: QueueId(queue),
                transaction,
                outcome: Outcome::Accepted,
                messages: IdList(&[message.into()]),
            });
        }
        // This shard coordinates its transactions: decided is a commit, prepared alone is not.
        let state = [
            TransactionState::Committed,
            TransactionState::RolledBack,
            TransactionState::Prepared,
            TransactionState::Decided,
        ][pick as usize % 4];
        if pick % 5 != 4 {
            self.journal
                .append(&Record::Transaction { transaction, state });
        }
        let is_committed = matches!(
            state,
            TransactionState::Committed | TransactionState::Decided
        );
        if pick % 5 != 4 && is_committed {
            self.enter(message, &queues, body);
            settled.map(|settled| self.model.remove(&settled));
        }
    }

    /// None, or one of its own.
    fn some_transaction(&mut self, pick: u64) -> u64 {
        if pick.is_multiple_of(3) {
            return 0;
        }
        self.next_transaction += 1 << 8;
        self.next_transaction
    }

    /// Commits or rolls back: messages stay in their queue either way.
    fn end(&mut self, transaction: u64, pick: u64) {
        if transaction == 0 {
            return;
        }
        let state = if pick.is_multiple_of(2) {
            TransactionState::Committed
        } else {
            TransactionState::RolledBack
        };
        self.journal
            .append(&Record::Transaction { transaction, state });
        self.next_transaction += 1 << 8;
    }

    /// A message that a queue has ready is in another one, too, which its record does not name.
    fn share(&mut self, body: &[u8], fields: MessageFields) {
        let annotations = Annotations::default();
        let message = self.journal.send_as(&[1], fields, annotations, body);
        self.journal.append(&Record::Share {
            queue: QueueId(4),
            pairs: IdList(&[1.into(), message.into()]),
        });
        self.enter(message, &[1, 4], body);
    }

    /// A message is written anew, or found so where nothing before tells of it.
    fn write_anew(&mut self, picked: Option<(u64, u64)>, pick: u64, body: &[u8]) {
        let stands = [
            Stands::Ready,
            Stands::Delivered,
            Stands::Delayed {
                ready_unix_ms: 5_000_000_000_000,
            },
            Stands::Leaving(Departure::Expired),
        ][pick as usize % 4];
        let standing = Standing {
            stands,
            attempts: (pick % 3000).min(2047) as u16,
            is_replaced: false,
        };
        let known = picked.filter(|_| pick.is_multiple_of(2));
        let Some((_, message)) = known else {
            let queues = [(1, standing), (2, standing)];
            let message = self.journal.send_moved(None, &queues, body);
            return self.enter(message, &[1, 2], body);
        };
        let body = self.model[&known.expect("picked")].clone();
        let queues = self.model.keys().filter(|(_, one)| *one == message);
        let queues: Vec<_> = queues.map(|(queue, _)| (*queue, standing)).collect();
        if body.len() < 60_000 {
            self.journal.send_moved(Some(message), &queues, &body);
        }
    }

    /// An upload whose message never comes, and a new epoch.
    fn restart(&mut self, body: &[u8]) {
        self.journal.append(&Record::Fragment {
            upload: u64::MAX >> 3,
            offset: 0,
            body: Parts::One(body),
        });
        self.journal.idle();
        self.journal = Journal::reopen(&self.data);
    }

    fn step(&mut self, (kind, pick, body): &(u8, u64, Vec<u8>)) {
        let fields = MessageFields {
            priority: (pick % 10) as u8,
            expires_unix_ms: pick % 3 * 4_000_000_000_000,
            ..MessageFields::default()
        };
        let picked = self.pick(*pick);
        let (queue, message) = picked.unwrap_or((1, 1));
        let (queue, one) = (QueueId(queue), [message.into()]);
        let messages = IdList(&one);
        match kind {
            0..=3 => {
                let (message, queues) = self.send(*pick, body, fields);
                self.enter(message, &queues, body);
            }
            4 => {
                let body = body.repeat(300);
                let message = self.journal.send_large(&[1, 2], &body, 20_000);
                self.enter(message, &[1, 2], &body);
            }
            5 => self.transaction(*pick, body),
            6 => {
                self.journal.append(&Record::Handout { queue, messages });
            }
            7 => self.journal.deliver(queue.0, message, message + 5),
            8 => {
                self.journal.append(&Record::Settle {
                    queue,
                    transaction: 0,
                    outcome: Outcome::Expired,
                    messages,
                });
                picked.map(|picked| self.model.remove(&picked));
            }
            9 => {
                let transaction = self.some_transaction(*pick);
                self.journal.append(&Record::Release {
                    queue,
                    transaction,
                    ready_unix_ms: pick % 2 * 5_000_000_000_000,
                    messages,
                });
                self.end(transaction, *pick);
            }
            10 => {
                let transaction = self.some_transaction(*pick);
                self.journal.append(&Record::Depart {
                    queue,
                    transaction,
                    reason: Departure::AttemptsExceeded,
                    messages,
                });
                self.end(transaction, *pick);
            }
            11 => {
                self.journal.append(&Record::DuplicateId {
                    message: MessageId(message),
                    routing: Routing::Multicast,
                    address: b"events",
                    id: b"seen",
                });
            }
            12 => self.restart(body),
            13 => self.share(body, fields),
            14 => self.write_anew(picked, *pick, body),
            _ => self.journal.idle(),
        }
    }
}

/// Each case starts four processes: few, unless more are asked for.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    /// Export = what the records say; import and export again = the same.
    #[test]
    fn what_is_exported_comes_back(
        steps in proptest::collection::vec(
            (0..16_u8, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300)),
            0..60,
        ),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let mut history = History::begin(&data);
        steps.iter().for_each(|step| history.step(step));
        history.journal.idle();
        let first = export(&data);
        let found = found(&first);
        let keys = |model: &Model| model.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(keys(&found), keys(&history.model));
        prop_assert!(found == history.model, "another body");
        let copy = import(&first.out, folder.path(), "copy");
        prop_assert_eq!(inspect(&["verify"], &copy).code, 0);
        let second = export(&copy);
        for (before, after) in content(&first).lines().zip(content(&second).lines()) {
            // The end of a line is its body, which was compared already.
            let end = before.len().min(400);
            prop_assert!(before == after, "{}\nbecame\n{:.400}", &before[..end], after);
        }
        prop_assert_eq!(content(&first).lines().count(), content(&second).lines().count());
    }
}

#[test]
fn what_is_damaged_is_not_exported() {
    let data = tempfile::tempdir().expect("a folder");
    two_epochs(data.path(), false);
    let (_, _, path) = &files(data.path())[0];
    let said = with_flip(path, 3 * 4096 + 100, || inspect(&["export"], data.path()));
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("repair"), "{said:?}");
}

#[test]
fn nothing_is_made_of_what_is_no_export() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("makes");
    two_epochs(&data, true);
    let text = export(&data).out;
    let lines: Vec<_> = text.lines().collect();
    let without = |index: usize| {
        let mut lines = lines.clone();
        lines.remove(index);
        lines.join("\n")
    };
    let twice = |index: usize| {
        let mut lines = lines.clone();
        lines.insert(index, lines[index]);
        lines.join("\n")
    };
    let last = lines.len() - 1;
    for (what, wrong) in [
        ("no head", without(0)),
        ("no shard", without(1)),
        ("a queue less", without(2)),
        ("a message less", without(last - 1)),
        ("no end", without(last)),
        ("a line twice", twice(last - 1)),
        ("two ends", twice(last)),
        ("a queue twice", twice(2)),
        ("nothing", String::new()),
        (
            "another version",
            text.replace("\"export_version\":1", "\"export_version\":2"),
        ),
        (
            "priority 11",
            text.replacen("\"priority\":4", "\"priority\":11", 1),
        ),
        (
            "another body",
            text.replacen("\"body\":\"x", "\"body\":\"xx", 1),
        ),
        (
            "another queue",
            text.replacen("\"queue\":2}", "\"queue\":9}", 1),
        ),
        ("cut", text[..text.len() / 2].to_owned()),
    ] {
        let file = folder.path().join("wrong.jsonl");
        std::fs::write(&file, &wrong).expect("writes");
        let into = folder.path().join("new");
        let into = into.to_str().expect("a path");
        let said = inspect(&["import", "--into", into], &file);
        assert_eq!(said.code, 2, "{what}: {said:?}");
        assert!(!Path::new(into).exists(), "{what} left something");
        assert!(
            !folder.path().join("new.partial").exists(),
            "{what} left something"
        );
    }
    // Never over what is there.
    let file = folder.path().join("right.jsonl");
    std::fs::write(&file, &text).expect("writes");
    let into = data.to_str().expect("a path");
    assert_eq!(inspect(&["import", "--into", into], &file).code, 2);
    assert_eq!(inspect(&["verify"], &data).code, 0);
}

#[test]
fn nothing_is_written_into_the_journal_that_is_read() {
    let data = tempfile::tempdir().expect("a folder");
    two_epochs(data.path(), true);
    let inside = data.path().join("journal/new");
    let inside = inside.to_str().expect("a path");
    for command in [
        ["export", "--to"],
        ["undelete", "--into"],
        ["repair", "--into"],
        ["map", "--svg"],
    ] {
        let said = inspect(&[&command[..], &[inside]].concat(), data.path());
        assert_eq!(said.code, 2, "{command:?}: {said:?}");
        assert!(said.err.contains("inside the journal"), "{said:?}");
    }
    let listed = std::fs::read_dir(data.path().join("journal")).expect("lists");
    assert_eq!(listed.count(), 3, "the superblock and two epochs");
}
