//! The front end of no client: messages on their way from one queue to another address come out
//! of the one as deliveries and go into the other as sends, on whatever shard that is.
//!
//! It is a connection of its shard like any other, so that windows, lanes and waiting are those of
//! all: what a reply makes it say is looped back to it as input. One byte of that stands for one
//! [`Order`], which is kept here. Bounded by the connection's window.
//!
//! At the other address a forwarded message has a duplicate id that no client can give it: what is
//! sent again after a crash is there once.

use std::collections::VecDeque;

use forebay_journal::format::{Departure, Routing};

use super::{
    Command, Deliver, Extras, Reply, SendCommand, SendPartCommand, Step, header_of, stomp,
};

/// What a message on its way is told about itself, ahead of its delivery.
#[derive(Clone, Copy, Debug)]
pub struct Departs<B> {
    /// Name under which [`Command::Departed`] answers.
    pub tag: u64,
    /// Where it goes.
    pub address: B,
    /// Why it leaves.
    pub reason: Departure,
    /// The queue it leaves, as numbered by the shard.
    pub queue: u64,
    /// Address of that queue.
    pub origin_address: B,
    /// Name of that queue.
    pub origin_queue: B,
}

impl<B> Departs<B> {
    /// The same with its bytes held otherwise.
    pub fn map<C>(self, hold: &mut impl FnMut(B) -> C) -> Departs<C> {
        Departs {
            tag: self.tag,
            address: hold(self.address),
            reason: self.reason,
            queue: self.queue,
            origin_address: hold(self.origin_address),
            origin_queue: hold(self.origin_queue),
        }
    }
}

/// What is to be asked of the shards next.
#[derive(Debug)]
enum Order {
    Send(Box<Outgoing>),
    Part { bytes: Vec<u8>, is_last: bool },
    Abandon,
    Departed { tag: u64, is_taken: bool },
}

/// A message as it goes on.
#[derive(Debug)]
struct Outgoing {
    address: Vec<u8>,
    head: Vec<u8>,
    body: Vec<u8>,
    duplicate_id: [u8; DUPLICATE_ID_SIZE],
    receipt: [u8; 8],
    is_persistent: bool,
    priority: u8,
    has_content_length: bool,
    encoding: u8,
    expires_unix_ms: u64,
    body_size: u64,
    is_complete: bool,
}

/// A byte that no client's id has, shard, queue and message.
const DUPLICATE_ID_SIZE: usize = 1 + 2 + 8 + 8;

/// Forwards what leaves the queues of one shard.
#[derive(Debug)]
pub struct Forwarder {
    orders: VecDeque<Order>,
    /// The order that was handed out last: commands borrow from it.
    current: Order,
    departs: Option<Departs<Vec<u8>>>,
}

/// Stands for an order in the input.
const TICKET: u8 = b'.';

impl Default for Forwarder {
    fn default() -> Self {
        Self {
            orders: VecDeque::new(),
            current: Order::Abandon,
            departs: None,
        }
    }
}

impl Forwarder {
    /// Whether the next order is (part of) a message.
    pub fn is_message_next(&self) -> bool {
        let next = self.orders.front();
        next.is_some_and(|order| !matches!(order, Order::Departed { .. }))
    }

    /// Hands out the order that the next byte stands for.
    pub fn handle_input(&mut self) -> Step<'_> {
        let Some(order) = self.orders.pop_front() else {
            let (consumed, is_starved) = (0, true);
            return Step::Quiet {
                consumed,
                is_starved,
            };
        };
        self.current = order;
        let command = match &self.current {
            Order::Send(outgoing) => Command::Send(outgoing.command()),
            Order::Part { bytes, is_last } => Command::SendPart(SendPartCommand {
                copy: 0,
                bytes: bytes.as_slice(),
                is_last: *is_last,
            }),
            Order::Abandon => Command::AbandonSend,
            Order::Departed { tag, is_taken } => Command::Departed {
                tag: *tag,
                is_taken: *is_taken,
            },
        };
        let consumed = 1;
        Step::Command { consumed, command }
    }

    /// Makes orders of a reply.
    pub fn handle_reply(&mut self, reply: &Reply<&[u8]>, out: &mut Vec<u8>) {
        let order = match reply {
            Reply::Departs(departs) => {
                self.departs = Some(departs.map(&mut <[u8]>::to_vec));
                return;
            }
            Reply::Deliver(deliver) => {
                let Some(departs) = self.departs.take() else {
                    return;
                };
                Order::Send(Box::new(Outgoing::new(&departs, deliver)))
            }
            Reply::DeliverPart { bytes, is_last, .. } => Order::Part {
                bytes: bytes.to_vec(),
                is_last: *is_last,
            },
            Reply::Receipt { receipt } => departed(receipt, true),
            Reply::Refused {
                receipt: Some(receipt),
                ..
            } => departed(receipt, false),
            // The message was gone in the middle of its body.
            Reply::Refused { receipt: None, .. } => Order::Abandon,
            _ => return,
        };
        self.orders.push_back(order);
        out.push(TICKET);
    }
}

fn departed(receipt: &[u8], is_taken: bool) -> Order {
    let tag = receipt.try_into().map_or(0, u64::from_le_bytes);
    Order::Departed { tag, is_taken }
}

/// A dead letter stays until somebody takes it; what is diverted ends when its sender says.
fn expiry_of(departs: &Departs<Vec<u8>>, deliver: &Deliver<&[u8]>) -> u64 {
    if departs.reason != Departure::Diverted {
        return 0;
    }
    let expires = header_of(deliver.encoding, deliver.head, "expires");
    expires.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Outgoing {
    fn new(departs: &Departs<Vec<u8>>, deliver: &Deliver<&[u8]>) -> Self {
        let mut head = Vec::with_capacity(deliver.head.len() + 256);
        stomp::push_origin(departs, deliver, &mut head);
        head.extend_from_slice(deliver.head);
        let mut duplicate_id = [0; DUPLICATE_ID_SIZE];
        duplicate_id[1..3].copy_from_slice(&deliver.shard.to_le_bytes());
        duplicate_id[3..11].copy_from_slice(&departs.queue.to_le_bytes());
        duplicate_id[11..].copy_from_slice(&deliver.message.0.to_le_bytes());
        Self {
            address: departs.address.clone(),
            head,
            body: deliver.body.to_vec(),
            duplicate_id,
            receipt: departs.tag.to_le_bytes(),
            is_persistent: deliver.is_persistent,
            priority: deliver.priority,
            has_content_length: deliver.has_content_length,
            encoding: deliver.encoding,
            expires_unix_ms: expiry_of(departs, deliver),
            body_size: deliver.body_size,
            is_complete: deliver.is_complete,
        }
    }

    fn command(&self) -> SendCommand<&[u8]> {
        SendCommand {
            routing: Routing::Anycast,
            address: &self.address,
            is_temporary: false,
            is_forwarded: true,
            // Only topics ask.
            client: None,
            is_persistent: self.is_persistent,
            priority: self.priority,
            expires_unix_ms: self.expires_unix_ms,
            extras: Extras {
                deliver_unix_ms: 0,
                group: 0,
                is_group_end: false,
                copy: 0,
                duplicate_id: Some(&self.duplicate_id),
            },
            has_content_length: self.has_content_length,
            encoding: self.encoding,
            head: &self.head,
            body: &self.body,
            body_total: Some(self.body_size),
            is_complete: self.is_complete,
            receipt: Some(&self.receipt),
            transaction: 0,
        }
    }
}
