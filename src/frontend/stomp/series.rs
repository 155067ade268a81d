//! What one frame means to several destinations: commands one after another, and one receipt.
//!
//! They are handed out one by one, as each may have to wait, before more is read. Of receipts that
//! several commands have to earn the shards know only a name of ours, which no client can give: it
//! begins with NUL.

use std::collections::{BTreeMap, VecDeque};

use crate::frontend::Command;

/// Bytes of a series, as a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

/// Commands that wait to be handed out. Bounded: by the destinations of one frame, and by shards
/// for those that are everywhere.
#[derive(Debug, Default)]
pub(super) struct Series {
    commands: VecDeque<Command<Span>>,
    bytes: Vec<u8>,
}

impl Series {
    /// Whether all were handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether the next one is (part of) a message; none if there is no next one.
    pub(super) fn is_message_next(&self) -> Option<bool> {
        self.commands.front().map(Command::is_message)
    }

    /// Forgets the bytes of those that were handed out, before others come.
    pub(super) fn begin(&mut self) {
        if self.commands.is_empty() {
            self.bytes.clear();
        }
    }

    pub(super) fn hold(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.len();
        Span { start, end }
    }

    pub(super) fn push(&mut self, command: Command<Span>) {
        self.commands.push_back(command);
    }

    /// Takes the next one out; [`Self::get`] has its bytes until others are added.
    pub(super) fn pop(&mut self) -> Option<Command<Span>> {
        self.commands.pop_front()
    }

    pub(super) fn get(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.end]
    }
}

/// Receipts that several commands have to earn. Bounded as receipts on their way are: by what the
/// shards take in before it is durable.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// By number: what the client calls it, and how many answers are missing.
    receipts: BTreeMap<u64, (Box<[u8]>, u32)>,
    last: u64,
}

/// What a receipt of a shard comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Earned<'a> {
    /// The client asked for it and gets it.
    Given(&'a [u8]),
    /// The last answer to several commands: this is what the client called it.
    All(Box<[u8]>),
    /// Others are still missing.
    Waiting,
}

/// Our name of a receipt: NUL and a number.
pub(super) type OwnReceipt = [u8; 9];

impl Awaited {
    /// A receipt that is earned when so many commands are answered.
    pub(super) fn open(&mut self, receipt: &[u8], count: u32) -> OwnReceipt {
        self.last += 1;
        self.receipts.insert(self.last, (receipt.into(), count));
        let mut name = [0; 9];
        name[1..].copy_from_slice(&self.last.to_be_bytes());
        name
    }

    /// A shard gave a receipt.
    pub(super) fn earn<'a>(&mut self, receipt: &'a [u8]) -> Earned<'a> {
        let Some(number) = number(receipt) else {
            return Earned::Given(receipt);
        };
        let Some((_, missing)) = self.receipts.get_mut(&number) else {
            return Earned::Waiting;
        };
        *missing = missing.saturating_sub(1);
        if *missing > 0 {
            return Earned::Waiting;
        }
        let all = self.receipts.remove(&number);
        all.map_or(Earned::Waiting, |(receipt, _)| Earned::All(receipt))
    }

    /// What the client calls a receipt of a shard.
    pub(super) fn name<'a>(&'a self, receipt: &'a [u8]) -> &'a [u8] {
        let known = number(receipt).and_then(|number| self.receipts.get(&number));
        known.map_or(receipt, |(name, _)| name)
    }
}

fn number(receipt: &[u8]) -> Option<u64> {
    let (first, rest) = receipt.split_first()?;
    let number = rest.try_into().ok()?;
    (*first == 0).then(|| u64::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_earned_by_the_last_answer() {
        let mut awaited = Awaited::default();
        let [one, other] = [awaited.open(b"a", 2), awaited.open(b"b", 1)];
        assert_eq!(awaited.earn(b"a"), Earned::Given(b"a"));
        assert_eq!(
            (awaited.name(&one), awaited.name(b"x")),
            (&b"a"[..], &b"x"[..])
        );
        assert_eq!(awaited.earn(&one), Earned::Waiting);
        assert_eq!(awaited.earn(&other), Earned::All(Box::from(&b"b"[..])));
        assert_eq!(awaited.earn(&one), Earned::All(Box::from(&b"a"[..])));
        assert_eq!(awaited.earn(&one), Earned::Waiting);
        assert!(awaited.receipts.is_empty());
    }
}
