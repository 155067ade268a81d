//! What was sent, confirmed and received: pure book-keeping that decides the exit status.
//!
//! Every message is (run, producer, sequence). The promises checked:
//! * each confirmed message is received when the consumers run to the end;
//! * none is received twice unless its second delivery carries the redelivered flag;
//! * one producer's messages arrive in order on a queue with a single consumer;
//! * none arrives that was never sent, or with another body.
//!
//! Two bits per message, so an hour at a million messages per second fits into memory.
//! Messages of other runs (left over in a queue) are counted apart and judged only when draining.

use rustc_hash::FxHashMap;

/// The key of one message, as its body carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageKey {
    /// Random number of the run that sent it.
    pub(crate) run: u32,
    /// Zero-based number of the producer within the run.
    pub(crate) producer: u32,
    /// Zero-based number of the message within the producer.
    pub(crate) sequence: u64,
}

/// How a message arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The delivery carried `redelivered:true`.
    pub(crate) is_redelivered: bool,
    /// The queue has one consumer, so order per producer is promised.
    pub(crate) is_ordered: bool,
    /// Length and filler of the body are those that were sent.
    pub(crate) is_intact: bool,
}

/// The book of one run, or of everything a drain meets.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u32,
    tracks: Vec<Track>,
    others: FxHashMap<(u32, u32), Track>,
    judges_others: bool,
    missing_count: u64,
    counts: Counts,
}

/// Totals of the book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages handed to a socket.
    pub(crate) sent: u64,
    /// Messages whose receipt came.
    pub(crate) confirmed: u64,
    /// Different messages received.
    pub(crate) received: u64,
    /// Second deliveries that carried the redelivered flag.
    pub(crate) redelivered: u64,
    /// Second deliveries without the flag: a violation.
    pub(crate) duplicates: u64,
    /// Later sequence before an earlier one: a violation.
    pub(crate) disorder: u64,
    /// Arrived without having been sent by this run's producer: a violation.
    pub(crate) invented: u64,
    /// Arrived with another body than was sent: a violation.
    pub(crate) corrupt: u64,
    /// Receipts for messages not in flight: a violation.
    pub(crate) receipts_unexpected: u64,
    /// Messages of other runs, or without our stamp.
    pub(crate) foreign: u64,
}

/// The judgement over a finished run.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// Totals.
    pub(crate) counts: Counts,
    /// Confirmed and never received; 0 when nobody consumed.
    pub(crate) missing: u64,
    /// Sent, receipt never came.
    pub(crate) unconfirmed: u64,
    /// Sentences that name each broken promise with an example; empty is good.
    pub(crate) violations: Vec<String>,
}

impl Ledger {
    /// Opens the book of one run of our own producers.
    pub(crate) fn new(run: u32, producers: u32) -> Self {
        let tracks = (0..producers).map(|_| Track::default()).collect();
        Self {
            run,
            tracks,
            others: FxHashMap::default(),
            judges_others: false,
            missing_count: 0,
            counts: Counts::default(),
        }
    }

    /// Opens a book for a drain: whatever run a message came from, duplicates and order are judged.
    pub(crate) fn of_unknown_runs() -> Self {
        Self {
            judges_others: true,
            ..Self::new(0, 0)
        }
    }

    /// Enters the next message of a producer as sent.
    pub(crate) fn sent(&mut self, producer: u32) {
        self.tracks[producer as usize].sent += 1;
        self.counts.sent += 1;
    }

    /// Enters a receipt. Returns false, and counts it, if that message was not waiting for one.
    pub(crate) fn confirm(&mut self, producer: u32, sequence: u64) -> bool {
        let track = &mut self.tracks[producer as usize];
        if sequence >= track.sent || !track.confirmed.insert(sequence) {
            self.counts.receipts_unexpected += 1;
            return false;
        }
        self.counts.confirmed += 1;
        if !track.received.contains(sequence) {
            self.missing_count += 1;
        }
        true
    }

    /// Enters a delivery.
    pub(crate) fn receive(&mut self, key: MessageKey, arrival: Arrival) {
        let is_own = key.run == self.run && (key.producer as usize) < self.tracks.len();
        let track = if is_own {
            &mut self.tracks[key.producer as usize]
        } else {
            self.counts.foreign += 1;
            if !self.judges_others {
                return;
            }
            self.others.entry((key.run, key.producer)).or_default()
        };
        if is_own && key.sequence >= track.sent {
            self.counts.invented += 1;
            return;
        }
        if is_own && !arrival.is_intact {
            self.counts.corrupt += 1;
        }
        if !track.received.insert(key.sequence) {
            let count = if arrival.is_redelivered {
                &mut self.counts.redelivered
            } else {
                &mut self.counts.duplicates
            };
            *count += 1;
            return;
        }
        self.counts.received += 1;
        if is_own && track.confirmed.contains(key.sequence) {
            self.missing_count -= 1;
        }
        if arrival.is_ordered && !arrival.is_redelivered && key.sequence < track.next_in_order {
            self.counts.disorder += 1;
        }
        track.next_in_order = track.next_in_order.max(key.sequence + 1);
    }

    /// Enters a delivery whose body carries no stamp of ours.
    pub(crate) fn receive_unstamped(&mut self) {
        self.counts.foreign += 1;
    }

    /// Says how many confirmed messages have not been received yet.
    pub(crate) fn missing_count(&self) -> u64 {
        self.missing_count
    }

    /// Gives the totals so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Judges. `is_consumed_to_end`: consumers ran until nothing more came, so missing is lost.
    pub(crate) fn verdict(&self, is_consumed_to_end: bool) -> Verdict {
        let counts = self.counts.clone();
        let unconfirmed = counts.sent - counts.confirmed;
        let missing = if is_consumed_to_end {
            self.missing_count
        } else {
            0
        };
        let mut violations = Vec::new();
        if missing > 0 {
            violations.push(format!(
                "{missing} confirmed but not received (first: {})",
                self.first_missing()
            ));
        }
        if unconfirmed > 0 {
            violations.push(format!(
                "{unconfirmed} sent but never confirmed (first: {})",
                self.first_unconfirmed()
            ));
        }
        let rest = [
            (
                counts.duplicates,
                "received twice without the redelivered flag",
            ),
            (
                counts.disorder,
                "out of order within one producer and queue",
            ),
            (counts.invented, "received but never sent"),
            (counts.corrupt, "received with another body than was sent"),
            (
                counts.receipts_unexpected,
                "receipts for messages that waited for none",
            ),
        ];
        violations.extend(
            rest.iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}")),
        );
        Verdict {
            counts,
            missing,
            unconfirmed,
            violations,
        }
    }

    fn first_missing(&self) -> String {
        self.first(|track, sequence| {
            track.confirmed.contains(sequence) && !track.received.contains(sequence)
        })
    }

    fn first_unconfirmed(&self) -> String {
        self.first(|track, sequence| !track.confirmed.contains(sequence))
    }

    /// Names the first message for which `is_it` holds.
    #[cold]
    fn first(&self, is_it: impl Fn(&Track, u64) -> bool) -> String {
        for (producer, track) in self.tracks.iter().enumerate() {
            if let Some(sequence) = (0..track.sent).find(|sequence| is_it(track, *sequence)) {
                return format!("producer {producer} sequence {sequence}");
            }
        }
        "none".to_owned()
    }
}

/// What is known of one producer.
#[derive(Debug, Default)]
struct Track {
    sent: u64,
    confirmed: Bits,
    received: Bits,
    next_in_order: u64,
}

/// A growing set of small integers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds; false if it was there.
    fn insert(&mut self, index: u64) -> bool {
        let (word, bit) = Self::place(index);
        if word >= self.0.len() {
            self.0.resize((word + 1).max(self.0.len() * 2), 0);
        }
        let was = self.0[word];
        self.0[word] = was | bit;
        was & bit == 0
    }

    fn contains(&self, index: u64) -> bool {
        let (word, bit) = Self::place(index);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(index: u64) -> (usize, u64) {
        (
            usize::try_from(index / 64).unwrap_or(usize::MAX),
            1 << (index % 64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const RUN: u32 = 7;
    const GOOD: Arrival = Arrival {
        is_redelivered: false,
        is_ordered: true,
        is_intact: true,
    };

    fn key(producer: u32, sequence: u64) -> MessageKey {
        MessageKey {
            run: RUN,
            producer,
            sequence,
        }
    }

    fn sent_and_confirmed(count: u64) -> Ledger {
        let mut ledger = Ledger::new(RUN, 1);
        for sequence in 0..count {
            ledger.sent(0);
            assert!(ledger.confirm(0, sequence));
        }
        ledger
    }

    proptest! {
        /// Whatever order receipts and deliveries come in: missing = confirmed minus received.
        #[test]
        fn missing_is_the_difference_of_the_sets(
            steps in prop::collection::vec((any::<bool>(), 0_u32..3, 0_u64..200), 0..600)
        ) {
            let mut ledger = Ledger::new(RUN, 3);
            for producer in 0..3 { for _ in 0..200 { ledger.sent(producer); } }
            let (mut confirmed, mut received) = (BTreeSet::new(), BTreeSet::new());
            for (is_receipt, producer, sequence) in steps {
                if is_receipt {
                    let is_new = confirmed.insert((producer, sequence));
                    prop_assert_eq!(ledger.confirm(producer, sequence), is_new);
                } else {
                    received.insert((producer, sequence));
                    ledger.receive(key(producer, sequence), GOOD);
                }
                prop_assert_eq!(
                    ledger.missing_count(), confirmed.difference(&received).count() as u64
                );
            }
            prop_assert_eq!(ledger.counts().received, received.len() as u64);
            prop_assert_eq!(ledger.verdict(true).unconfirmed, 600 - confirmed.len() as u64);
        }
    }

    #[test]
    fn a_clean_run_has_no_violation() {
        let mut ledger = sent_and_confirmed(1000);
        (0..1000).for_each(|sequence| ledger.receive(key(0, sequence), GOOD));
        assert_eq!(ledger.verdict(true).violations, Vec::<String>::new());
    }

    #[test]
    fn a_lost_message_is_named_only_after_consuming_to_the_end() {
        let mut ledger = sent_and_confirmed(10);
        (0..10)
            .filter(|s| *s != 4)
            .for_each(|sequence| ledger.receive(key(0, sequence), GOOD));
        let verdict = ledger.verdict(true);
        assert_eq!(verdict.missing, 1);
        assert!(
            verdict.violations[0].contains("producer 0 sequence 4"),
            "{verdict:?}"
        );
        assert!(ledger.verdict(false).violations.is_empty());
    }

    #[test]
    fn a_second_delivery_needs_the_flag() {
        let mut ledger = sent_and_confirmed(1);
        ledger.receive(key(0, 0), GOOD);
        ledger.receive(
            key(0, 0),
            Arrival {
                is_redelivered: true,
                ..GOOD
            },
        );
        assert!(ledger.verdict(true).violations.is_empty());
        ledger.receive(key(0, 0), GOOD);
        assert_eq!(ledger.counts().duplicates, 1);
        assert_eq!(ledger.verdict(true).violations.len(), 1);
    }

    #[test]
    fn disorder_counts_only_where_order_is_promised() {
        let mut ledger = sent_and_confirmed(4);
        ledger.receive(key(0, 1), GOOD);
        ledger.receive(
            key(0, 0),
            Arrival {
                is_ordered: false,
                ..GOOD
            },
        );
        assert_eq!(ledger.counts().disorder, 0);
        ledger.receive(key(0, 3), GOOD);
        ledger.receive(key(0, 2), GOOD);
        assert_eq!(ledger.counts().disorder, 1);
    }

    #[test]
    fn strangers_and_inventions_are_told_apart() {
        let mut ledger = sent_and_confirmed(1);
        ledger.receive(
            MessageKey {
                run: 8,
                ..key(0, 0)
            },
            GOOD,
        );
        ledger.receive_unstamped();
        assert_eq!((ledger.counts().foreign, ledger.counts().invented), (2, 0));
        ledger.receive(key(0, 1), GOOD);
        assert_eq!(ledger.counts().invented, 1);
        ledger.receive(
            key(0, 0),
            Arrival {
                is_intact: false,
                ..GOOD
            },
        );
        assert_eq!(ledger.counts().corrupt, 1);
        assert!(!ledger.confirm(0, 0));
        assert_eq!(ledger.verdict(true).violations.len(), 3);
    }

    #[test]
    fn a_drain_judges_runs_it_did_not_send() {
        let mut ledger = Ledger::of_unknown_runs();
        for sequence in [0, 2, 1, 2] {
            ledger.receive(key(3, sequence), GOOD);
        }
        assert_eq!(
            (ledger.counts().disorder, ledger.counts().duplicates),
            (1, 1)
        );
        assert_eq!(ledger.counts().received, 3);
    }
}
