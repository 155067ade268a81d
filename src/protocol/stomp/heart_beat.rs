//! Heart-beats: what is agreed on, and the timers of one connection.

use super::decimal;
use super::error::{Error, ErrorKind};
use crate::now::Now;

/// What the server offers: the second pair of the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartBeatOffer {
    /// `sx`: the least milliseconds between two heart-beats we can guarantee; 0 is none.
    pub send_ms: u32,
    /// `sy`: the milliseconds we wish between two of the client; 0 is none wished.
    pub receive_ms: u32,
}

impl Default for HeartBeatOffer {
    fn default() -> Self {
        Self {
            send_ms: 10_000,
            receive_ms: 10_000,
        }
    }
}

/// What both sides agreed on. Zero in a direction: no heart-beats there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartBeat {
    /// We send at least every so many milliseconds.
    pub send_ms: u64,
    /// The client sends at least every so many milliseconds.
    pub receive_ms: u64,
}

impl HeartBeat {
    /// Agrees on the larger of what one can do and the other wishes, if both are not 0.
    ///
    /// `client` is the pair `(cx, cy)` of `CONNECT`. Source: STOMP 1.2 "Heart-beating".
    pub fn negotiate(client: (u64, u64), offer: HeartBeatOffer) -> Self {
        let agree = |able: u64, wished: u64| match (able, wished) {
            (0, _) | (_, 0) => 0,
            _ => able.max(wished),
        };
        let (able, wished) = client;
        Self {
            send_ms: agree(u64::from(offer.send_ms), wished),
            receive_ms: agree(able, u64::from(offer.receive_ms)),
        }
    }
}

/// Reads the value of `heart-beat`: two numbers, a comma between them, nothing else.
///
/// Errors: `HeartBeatMalformed`. Source: STOMP 1.2 "Heart-beating".
pub(super) fn parse_pair(text: &str) -> Result<(u64, u64), ErrorKind> {
    let (able, wished) = text.split_once(',').ok_or(ErrorKind::HeartBeatMalformed)?;
    let number = |digits| decimal::parse(digits).ok_or(ErrorKind::HeartBeatMalformed);
    Ok((number(able)?, number(wished)?))
}

/// What a timer asks the caller to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// Send one LF ([`super::encode::HEART_BEAT`]).
    SendHeartBeat,
    /// The client kept silent for too long: close ([`ErrorKind::PeerSilent`]).
    PeerSilent,
    /// No `CONNECT` in time: close ([`ErrorKind::ConnectTooLate`]).
    ConnectDeadline,
}

impl TimeoutAction {
    /// Returns the error to answer with before closing; none for a heart-beat to send.
    pub fn error(self) -> Option<Error> {
        match self {
            Self::SendHeartBeat => None,
            Self::PeerSilent => Some(Error::new(ErrorKind::PeerSilent, None)),
            Self::ConnectDeadline => Some(Error::new(ErrorKind::ConnectTooLate, None)),
        }
    }
}

/// The timers of one connection.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    connect_deadline_us: Option<u64>,
    send_interval_us: u64,
    silence_max_us: u64,
    sent_us: Option<u64>,
    received_us: u64,
    is_reading: bool,
}

impl Timers {
    pub(super) fn new(connect_deadline_us: u64, now: Now) -> Self {
        Self {
            connect_deadline_us: Some(now.monotonic_us.saturating_add(connect_deadline_us)),
            send_interval_us: 0,
            silence_max_us: 0,
            sent_us: None,
            received_us: now.monotonic_us,
            is_reading: true,
        }
    }

    /// Starts what was agreed on. Our own heart-beats wait for the first thing sent, so that
    /// none goes out before `CONNECTED`.
    pub(super) fn start(&mut self, agreed: HeartBeat, now: Now) {
        self.connect_deadline_us = None;
        self.received_us = now.monotonic_us;
        self.sent_us = None;
        self.send_interval_us = agreed.send_ms.saturating_mul(1_000 * SEND_NUM / SEND_DEN);
        let silence_us = agreed.receive_ms.saturating_mul(1_000 * SILENCE_FACTOR);
        self.silence_max_us = if agreed.receive_ms == 0 {
            0
        } else {
            silence_us.max(SILENCE_MIN_US)
        };
    }

    /// No more bytes are expected: only our own heart-beats go on.
    pub(super) fn expect_nothing(&mut self) {
        self.connect_deadline_us = None;
        self.silence_max_us = 0;
    }

    /// Stops all timers.
    pub(super) fn stop(&mut self) {
        self.expect_nothing();
        self.send_interval_us = 0;
    }

    pub(super) fn note_sent(&mut self, now: Now) {
        self.sent_us = Some(now.monotonic_us);
    }

    pub(super) fn note_received(&mut self, now: Now) {
        self.received_us = now.monotonic_us;
    }

    pub(super) fn set_reading(&mut self, is_reading: bool, now: Now) {
        if is_reading && !self.is_reading {
            self.received_us = now.monotonic_us;
        }
        self.is_reading = is_reading;
    }

    fn send_at_us(&self) -> Option<u64> {
        let sent_us = self.sent_us?;
        (self.send_interval_us > 0).then(|| sent_us.saturating_add(self.send_interval_us))
    }

    fn silent_at_us(&self) -> Option<u64> {
        let is_watched = self.silence_max_us > 0 && self.is_reading;
        is_watched.then(|| self.received_us.saturating_add(self.silence_max_us))
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        // As of most clients, and asked after every input.
        let has_beats = self.send_interval_us > 0 || self.silence_max_us > 0;
        if !has_beats && self.connect_deadline_us.is_none() {
            return None;
        }
        [
            self.connect_deadline_us,
            self.silent_at_us(),
            self.send_at_us(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn handle_timeout(&mut self, now: Now) -> Option<TimeoutAction> {
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now.monotonic_us);
        if is_due(self.connect_deadline_us) {
            return Some(TimeoutAction::ConnectDeadline);
        }
        if is_due(self.silent_at_us()) {
            return Some(TimeoutAction::PeerSilent);
        }
        if is_due(self.send_at_us()) {
            // Counted as sent at once: a socket that takes nothing must not make the timer spin.
            self.note_sent(now);
            return Some(TimeoutAction::SendHeartBeat);
        }
        None
    }
}

/// A client may be late by its whole interval: its timers, the network and a pause of its
/// garbage collector add up, and a false alarm costs a redelivery of everything in flight.
/// Artemis waits 2.0 intervals as well. Source: STOMP 1.2 "Heart-beating", error margin.
const SILENCE_FACTOR: u64 = 2;

/// With intervals of a few milliseconds two of them are less than one scheduling pause.
const SILENCE_MIN_US: u64 = 1_000_000;

/// We send at 3/4 of the interval, since "at least every n milliseconds" is about arrival.
const SEND_NUM: u64 = 3;
const SEND_DEN: u64 = 4;

const _: () = assert!(1_000 * SEND_NUM / SEND_DEN < 1_000);

#[cfg(test)]
mod tests {
    use super::*;

    /// STOMP 1.2 "Heart-beating": MAX(cx, sy) and MAX(sx, cy), unless one of the pair is 0.
    #[test]
    fn negotiation_follows_the_table_of_the_specification() {
        let offer = |send_ms, receive_ms| HeartBeatOffer {
            send_ms,
            receive_ms,
        };
        let table = [
            ((0, 0), offer(10, 20), 0, 0),
            ((5, 0), offer(10, 20), 0, 20),
            ((0, 5), offer(10, 20), 10, 0),
            ((30, 40), offer(10, 20), 40, 30),
            ((5, 6), offer(0, 20), 0, 20),
            ((5, 6), offer(10, 0), 10, 0),
            ((5, 6), offer(0, 0), 0, 0),
            ((u64::MAX, u64::MAX), offer(10, 20), u64::MAX, u64::MAX),
        ];
        for (client, offer, send_ms, receive_ms) in table {
            let agreed = HeartBeat::negotiate(client, offer);
            assert_eq!(
                agreed,
                HeartBeat {
                    send_ms,
                    receive_ms
                },
                "{client:?} with {offer:?}"
            );
        }
    }

    #[test]
    fn the_header_is_two_numbers_and_a_comma() {
        assert_eq!(parse_pair("0,10000"), Ok((0, 10_000)));
        for text in [
            "", "1", "1,", ",1", "1,2,3", "-1,0", "+1,0", "1, 2", "1.5,0", "a,b",
        ] {
            assert_eq!(
                parse_pair(text),
                Err(ErrorKind::HeartBeatMalformed),
                "{text:?}"
            );
        }
        assert_eq!(
            parse_pair("18446744073709551616,0"),
            Err(ErrorKind::HeartBeatMalformed)
        );
    }

    #[test]
    fn a_silent_client_is_given_up_after_twice_its_interval() {
        let at = Now::from_monotonic_us;
        let mut timers = Timers::new(10_000_000, at(0));
        assert_eq!(timers.poll_timeout(), Some(10_000_000));
        timers.start(
            HeartBeat {
                send_ms: 0,
                receive_ms: 1_000,
            },
            at(0),
        );
        assert_eq!(timers.poll_timeout(), Some(2_000_000));
        timers.note_received(at(500_000));
        assert_eq!(timers.handle_timeout(at(2_000_000)), None);
        assert_eq!(
            timers.handle_timeout(at(2_500_000)),
            Some(TimeoutAction::PeerSilent)
        );
    }

    #[test]
    fn silence_does_not_count_while_we_do_not_read() {
        let at = Now::from_monotonic_us;
        let mut timers = Timers::new(1, at(0));
        timers.start(
            HeartBeat {
                send_ms: 0,
                receive_ms: 1_000,
            },
            at(0),
        );
        timers.set_reading(false, at(1_000));
        assert_eq!(timers.poll_timeout(), None);
        timers.set_reading(true, at(60_000_000));
        assert_eq!(timers.handle_timeout(at(60_000_001)), None);
        assert_eq!(timers.poll_timeout(), Some(62_000_000));
    }

    #[test]
    fn our_heart_beats_begin_after_connected_and_come_early() {
        let at = Now::from_monotonic_us;
        let mut timers = Timers::new(1, at(0));
        timers.start(
            HeartBeat {
                send_ms: 1_000,
                receive_ms: 0,
            },
            at(0),
        );
        assert_eq!(timers.poll_timeout(), None);
        timers.note_sent(at(100));
        assert_eq!(timers.poll_timeout(), Some(750_100));
        assert_eq!(
            timers.handle_timeout(at(750_100)),
            Some(TimeoutAction::SendHeartBeat)
        );
        assert_eq!(timers.handle_timeout(at(750_100)), None);
        assert_eq!(timers.poll_timeout(), Some(1_500_100));
    }

    #[test]
    fn the_largest_interval_does_not_overflow() {
        let mut timers = Timers::new(u64::MAX, Now::from_monotonic_us(u64::MAX));
        let agreed = HeartBeat {
            send_ms: u64::MAX,
            receive_ms: u64::MAX,
        };
        timers.start(agreed, Now::from_monotonic_us(7));
        timers.note_sent(Now::from_monotonic_us(7));
        assert_eq!(timers.poll_timeout(), Some(u64::MAX));
    }
}
