//! Deliveries that may leave, on their way to the connection: bodies are looked up now, from the
//! block cache, from memory or from the disk, and passed on as far as the connection's window
//! reaches.

use forebay_journal::format::{FormatError, MessageFields, MessageFlags, Parts, Record};
use forebay_journal::storage::IoFailure;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Location, MessageId};
use rustc_hash::FxHashMap;

use super::filters::Filters;
use super::{Failure, Host, Replies};
use crate::frontend::{Deliver, Header, Message, Refusal, Reply};
use crate::queue::{Machine, Place, Settlement};
use crate::shard::ConnectionId;
use crate::shard::cold::{Cold, ColdFailure, ColdRead, Reader};
use crate::shard::link::{Delivery, Link, Streaming, Taker};

/// Bytes of a body in memory passed on at a time.
const PIECE_SIZE: usize = 64 * 1024;

/// Deliveries of one link that lead to nothing in one turn; what is left goes on in the next.
const STALE_PER_TURN_MAX: usize = 512;

/// What became of an attempt to pass something on.
pub(super) enum Pumped {
    /// This many bytes went; more can follow.
    Piece { bytes: u64, is_last: bool },
    /// The delivery's consumer is gone, or settled it before it came; or a browser does not want
    /// to see it.
    Stale,
    /// The message was settled while it was being passed on; its rest is nowhere.
    Gone,
    /// The body is being read from disk.
    Waiting,
    /// The body is not what it has to be.
    Damaged(Location, String),
}

impl Host {
    /// Passes on what fits the windows of the links that have something.
    pub(super) fn pump(&mut self, replies: &mut impl Replies) {
        for _ in 0..self.pumping.len() {
            let Some(id) = self.pumping.pop_front() else {
                return;
            };
            if let Some(link) = self.links.get_mut(&id) {
                link.is_pumping = false;
                self.pump_link(id, replies);
            }
        }
    }

    fn pump_link(&mut self, id: ConnectionId, replies: &mut impl Replies) {
        let mut stale_count = 0;
        while self.failure.is_none() {
            if stale_count >= STALE_PER_TURN_MAX {
                return self.wake_link(id);
            }
            let Some(link) = self.links.get_mut(&id) else {
                return;
            };
            if link.pending_bytes() >= self.window_bytes {
                return;
            }
            let (streaming, is_new) = match link.streaming {
                Some(streaming) => (streaming, false),
                None => match link.deliveries.front() {
                    Some(&delivery) => (Streaming { delivery, next: 0 }, true),
                    None => {
                        if self.browse(id) || self.follow(id) {
                            continue;
                        }
                        return;
                    }
                },
            };
            let pumped = if is_new {
                self.begin(&streaming.delivery, replies)
            } else {
                self.go_on(&streaming, replies)
            };
            stale_count += usize::from(matches!(pumped, Pumped::Stale));
            if let Pumped::Gone = pumped {
                // A body that was begun cannot end in another way.
                let gone = Reply::Refused {
                    refusal: Refusal::MessageGone,
                    about: None,
                    receipt: None,
                };
                replies.reply(id, &gone, 0);
                if let Taker::Departing = streaming.delivery.taker {
                    self.departure_broke(streaming.delivery.delivery_tag);
                }
            }
            if !self.note(id, &streaming, is_new, pumped) {
                return;
            }
        }
    }

    /// Books what was passed on; false if this link has to wait.
    fn note(
        &mut self,
        id: ConnectionId,
        streaming: &Streaming,
        is_new: bool,
        pumped: Pumped,
    ) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        match pumped {
            Pumped::Piece { bytes, is_last } => {
                link.pumped_bytes += bytes;
                let is_journaled = matches!(streaming.delivery.place, Place::Journal(_));
                self.stats.cache_hits += u64::from(is_journaled);
                if is_new {
                    link.deliveries.pop_front();
                    self.stats.delivered += 1;
                    let is_consumers = matches!(streaming.delivery.taker, Taker::Consumer(..));
                    let is_again = is_consumers && streaming.delivery.is_redelivered;
                    self.stats.redelivered += u64::from(is_again);
                }
                let next = if is_new { 0 } else { streaming.next + 1 };
                link.streaming = (!is_last).then_some(Streaming { next, ..*streaming });
                let delivery = streaming.delivery;
                if let Taker::Consumer(consumer, Settlement::OnHandover) = delivery.taker
                    && is_last
                {
                    let handed = (link.pumped_bytes, consumer, delivery.delivery_tag);
                    link.handed.push_back(handed);
                }
            }
            Pumped::Stale => {
                link.deliveries.pop_front();
                link.pass_over(&streaming.delivery);
            }
            Pumped::Gone => link.streaming = None,
            Pumped::Waiting => {
                self.stats.cache_misses += 1;
                self.waiting_for_disk.push(id);
                return false;
            }
            Pumped::Damaged(location, reason) => {
                let (segment, offset) = (location.segment(), location.block_offset());
                self.fail(Failure::Read(ColdFailure {
                    segment,
                    offset,
                    reason,
                }));
                return false;
            }
        }
        true
    }

    fn begin(&mut self, delivery: &Delivery, replies: &mut impl Replies) -> Pumped {
        let is_there = match delivery.taker {
            Taker::Consumer(consumer, _) => {
                let tag = delivery.delivery_tag;
                self.machine.is_outstanding(consumer, tag)
            }
            Taker::Browser(queue, _) | Taker::Follower(queue) => {
                self.machine.holds(queue, delivery.message)
            }
            Taker::BrowserAtEnd => return self.end_browsing(delivery, replies),
            // Its message may be on the disk still; then this is said again.
            Taker::Departing => self.announce(delivery, replies),
        };
        if !is_there {
            return Pumped::Stale;
        }
        let location = match delivery.place {
            Place::Journal(location) => location,
            Place::Volatile(slot) => return self.begin_volatile(delivery, slot, replies),
        };
        let (shard, group_first_key) = (self.shard, group_first_key(&self.machine, delivery));
        let reader = Reader::Subscription(delivery.link, delivery.subscription);
        match record_at(&self.writer, &mut self.cold, location, reader) {
            Found::Here(Ok(
                Record::Message {
                    fields,
                    annotations,
                    head: Parts::One(head),
                    body,
                    ..
                }
                | Record::Moved {
                    fields,
                    annotations,
                    head: Parts::One(head),
                    body,
                    ..
                },
            )) => {
                let header = header_of_record(shard, delivery.message, &fields);
                let offered = (header, fields.encoding, head);
                if !is_wanted(&self.filters, &mut self.links, delivery, offered) {
                    return Pumped::Stale;
                }
                let is_complete = fields.upload == 0;
                let address = address_of(&self.machine, delivery, annotations.address);
                let body = match body {
                    Parts::One(body) if is_complete => body,
                    _ => &[],
                };
                let deliver = deliver(
                    shard,
                    delivery,
                    &fields,
                    [address, head, body, group_first_key],
                    is_complete,
                );
                let bytes = (head.len() + body.len()) as u64;
                replies.reply(delivery.link, &Reply::Deliver(deliver), bytes);
                Pumped::Piece {
                    bytes,
                    is_last: is_complete,
                }
            }
            Found::Coming => Pumped::Waiting,
            other => other.damaged(location),
        }
    }

    fn begin_volatile(
        &mut self,
        delivery: &Delivery,
        slot: u32,
        replies: &mut impl Replies,
    ) -> Pumped {
        let Some(kept) = self.bodies.get(slot) else {
            return Pumped::Stale;
        };
        let offered = (kept.header, kept.encoding, &*kept.head);
        if !is_wanted(&self.filters, &mut self.links, delivery, offered) {
            return Pumped::Stale;
        }
        let fields = MessageFields {
            body_size: kept.body.len() as u64,
            encoding: kept.encoding,
            flags: MessageFlags {
                has_own_expiry: kept.has_own_expiry,
                ..super::flags(kept.has_content_length, false)
            },
            expires_unix_ms: kept.header.expires_unix_ms,
            ..MessageFields::default()
        };
        let is_complete = kept.body.len() <= PIECE_SIZE;
        let body = if is_complete {
            kept.body.as_slice()
        } else {
            &[]
        };
        let bytes = (kept.head.len() + body.len()) as u64;
        let deliver = deliver(
            self.shard,
            delivery,
            &fields,
            [
                address_of(&self.machine, delivery, &kept.address),
                &kept.head,
                body,
                group_first_key(&self.machine, delivery),
            ],
            is_complete,
        );
        replies.reply(delivery.link, &Reply::Deliver(deliver), bytes);
        if !is_complete {
            self.bodies.hold(slot);
        }
        Pumped::Piece {
            bytes,
            is_last: is_complete,
        }
    }

    /// Lets go of what a link holds of a body that was not passed on to its end.
    pub(super) fn drop_streaming(&mut self, id: ConnectionId) {
        let streaming = self
            .links
            .get_mut(&id)
            .and_then(|link| link.streaming.take());
        if let Some(Place::Volatile(slot)) = streaming.map(|streaming| streaming.delivery.place) {
            self.bodies.forget(slot);
        }
    }

    /// Passes on the next piece of a body that was begun.
    fn go_on(&mut self, streaming: &Streaming, replies: &mut impl Replies) -> Pumped {
        let (shard, delivery) = (self.shard, &streaming.delivery);
        let location = match delivery.place {
            Place::Journal(location) => location,
            Place::Volatile(slot) => {
                let Some(kept) = self.bodies.get(slot) else {
                    return Pumped::Damaged(Location::default(), "body is gone".to_owned());
                };
                let start = (streaming.next * PIECE_SIZE).min(kept.body.len());
                let end = (start + PIECE_SIZE).min(kept.body.len());
                let (bytes, is_last) = (&kept.body[start..end], end == kept.body.len());
                replies.reply(
                    delivery.link,
                    &Reply::DeliverPart {
                        shard: self.shard,
                        bytes,
                        is_last,
                    },
                    bytes.len() as u64,
                );
                let bytes = bytes.len() as u64;
                if is_last {
                    self.bodies.forget(slot);
                }
                return Pumped::Piece { bytes, is_last };
            }
        };
        let fragments = self.machine.fragments(delivery.message);
        if fragments.is_empty() {
            return Pumped::Gone;
        }
        let fragment = fragments.get(streaming.next);
        let (location, is_last) = fragment.map_or((location, true), |one| (one.location, false));
        let reader = Reader::Subscription(delivery.link, delivery.subscription);
        match record_at(&self.writer, &mut self.cold, location, reader) {
            Found::Here(Ok(
                Record::Fragment {
                    body: Parts::One(bytes),
                    ..
                }
                | Record::Message {
                    body: Parts::One(bytes),
                    ..
                }
                | Record::Moved {
                    body: Parts::One(bytes),
                    ..
                },
            )) => {
                let reply = Reply::DeliverPart {
                    shard,
                    bytes,
                    is_last,
                };
                replies.reply(delivery.link, &reply, bytes.len() as u64);
                Pumped::Piece {
                    bytes: bytes.len() as u64,
                    is_last,
                }
            }
            Found::Coming => Pumped::Waiting,
            other => other.damaged(location),
        }
    }

    pub(in crate::shard) fn poll_read(&mut self) -> Option<ColdRead> {
        let read = self.cold.poll_read();
        let read = read.or_else(|| self.relocation.poll_read());
        self.stats.reads += u64::from(read.is_some());
        read
    }

    pub(in crate::shard) fn handle_read(
        &mut self,
        chunk: u32,
        buffer: ReadBuffer,
        result: Result<usize, IoFailure>,
    ) {
        let read = self.relocation.handle_read(chunk, buffer, result);
        let Some((buffer, result)) = read else {
            return;
        };
        if let Err(failure) = self.cold.handle_read(chunk, buffer, result) {
            self.fail(Failure::Read(failure));
        }
        for id in std::mem::take(&mut self.waiting_for_disk) {
            self.wake_link(id);
        }
    }
}

/// Whether a browser or follower wants to see a message; who holds it does.
fn is_wanted(
    filters: &Filters,
    links: &mut FxHashMap<ConnectionId, Link>,
    delivery: &Delivery,
    (header, encoding, head): (Header, u8, &[u8]),
) -> bool {
    match delivery.taker {
        Taker::Browser(_, Some(filter)) => {
            filters.matches(filter, &Message::new(header, encoding, head))
        }
        Taker::Follower(_) => {
            let link = links.get_mut(&delivery.link);
            let follower = link.and_then(|link| link.follower(delivery.subscription));
            // One that is gone wants nothing more.
            let Some(follower) = follower else {
                return false;
            };
            let says = |filter| filters.matches(filter, &Message::new(header, encoding, head));
            follower.wants(header.timestamp_unix_ms) && follower.filter.is_none_or(says)
        }
        _ => true,
    }
}

/// What a selector may ask of a message in the journal.
pub(super) fn header_of_record(shard: u16, message: MessageId, fields: &MessageFields) -> Header {
    Header {
        shard,
        message,
        priority: fields.priority,
        timestamp_unix_ms: fields.timestamp_unix_ms,
        expires_unix_ms: fields.expires_unix_ms,
        is_persistent: fields.flags.is_durable,
    }
}

/// A record that was looked for, if it is here and one: as it was read, since it is large.
#[allow(clippy::large_enum_variant, reason = "handed on at once, never kept")]
pub(super) enum Found<'a> {
    Here(Result<Record<'a>, FormatError>),
    Coming,
}

impl Found<'_> {
    pub(super) fn damaged(self, location: Location) -> Pumped {
        let reason = match self {
            Self::Here(Ok(record)) => format!("a message leads to a record {:?}", record.kind()),
            Self::Here(Err(error)) => error.to_string(),
            Self::Coming => return Pumped::Waiting,
        };
        Pumped::Damaged(location, reason)
    }
}

pub(super) fn record_at<'a>(
    writer: &'a forebay_journal::Writer,
    cold: &'a mut crate::shard::cold::ColdBlocks,
    location: Location,
    reader: Reader,
) -> Found<'a> {
    let block: &[u8] = match writer.block_in_memory(location) {
        Some(block) => block,
        None => match cold.block_at(location, reader) {
            Cold::Here(block) => block,
            Cold::Coming => return Found::Coming,
        },
    };
    Found::Here(Record::decode_at(block, location.record_offset()))
}

fn deliver<'a>(
    shard: u16,
    delivery: &Delivery,
    fields: &MessageFields,
    [address, head, body, group_first_key]: [&'a [u8]; 4],
    is_complete: bool,
) -> Deliver<&'a [u8]> {
    Deliver {
        subscription: delivery.subscription,
        delivery_tag: delivery.delivery_tag,
        shard,
        message: delivery.message,
        attempts: delivery.attempts,
        is_redelivered: delivery.is_redelivered,
        is_persistent: fields.flags.is_durable,
        priority: fields.priority,
        has_content_length: fields.flags.has_content_length,
        own_expiry_unix_ms: (fields.flags.has_own_expiry).then_some(fields.expires_unix_ms),
        encoding: fields.encoding,
        body_size: fields.body_size,
        group_first_key,
        address,
        head,
        body,
        is_complete,
    }
}

/// The address that a delivery names: of whom takes from or looks at queues, which may be many,
/// that of the queue; else the one it was sent to, if that is to be said.
fn address_of<'a>(machine: &'a Machine, delivery: &Delivery, sent_to: &'a [u8]) -> &'a [u8] {
    let own = match delivery.taker {
        Taker::Consumer(consumer, _) => machine.gathered_from(consumer),
        Taker::Browser(queue, _) => machine.anycast_address(queue),
        Taker::Follower(_) | Taker::BrowserAtEnd | Taker::Departing => None,
    };
    own.unwrap_or(sent_to)
}

/// The header that marks the delivery as the first of its group; empty for none.
fn group_first_key<'a>(machine: &'a Machine, delivery: &Delivery) -> &'a [u8] {
    let policy = delivery.first_of.and_then(|queue| machine.policy(queue));
    let key = policy.and_then(|policy| policy.group_first_key.as_deref());
    key.map_or(&[], str::as_bytes)
}
