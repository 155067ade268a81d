//! One STOMP connection.

use std::borrow::Cow;
use std::rc::Rc;

use forebay_journal::format::{PRIORITY_DEFAULT, Routing};
use rustc_hash::FxHashMap;

use super::acknowledge::Outstanding;
use super::extras::{extras, has_content_length};
use super::output::{Interleaving, Source};
use super::series::{Awaited, Earned, Series, Span};
use super::several::{Part, Spread, check_sendable, subscribed};
use super::subscribe::{Names, Subscribed};
use super::temporary::{as_seen_by_others, is_own, rewrite_reply_to};
use super::transaction::Transactions;
use super::{ENCODING, Resolved, Unusable, resolve, wanted};
use crate::frontend::{
    Command, Deliver, Reply, SendCommand, SendPartCommand, Slow, Step, Subscription, Timeout,
    Users, Verdict,
};
use crate::now::Now;
use crate::protocol::stomp::encode::{self, Connected, ErrorFrame, MessageHead, Token};
use crate::protocol::stomp::{
    AckMode, Connect, Connection, Event, Limits, RoutingType, Send, StoredHead, Value, Version,
};
use crate::protocol::websocket::Pages;
use crate::queue::Policies;

/// What all STOMP connections of a shard share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds of the engine.
    pub limits: Limits,
    /// Who may connect.
    pub users: Users,
    /// Whether a SEND without a `persistent` header is persistent.
    pub is_persistent_by_default: bool,
    /// Messages in flight to a subscription that names no prefetch.
    pub prefetch_default: u32,
    /// Most subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Most transactions of one connection that are open at once.
    pub transactions_max: usize,
    /// What CONNECTED says about the server.
    pub server: String,
    /// Which web pages may connect by WebSocket.
    pub pages: Pages,
    /// How names route that say neither queue nor topic.
    pub policies: Policies,
}

/// State of one connection.
#[derive(Debug)]
pub struct Session {
    engine: Connection,
    pub(super) settings: Rc<Settings>,
    /// What CONNECTED called the session: no other connection has it, also not after a restart.
    pub(super) name: String,
    /// Whose durable subscriptions it may have, as CONNECT says; escaped, as their names begin.
    pub(super) client: Option<Box<[u8]>>,
    /// By the first of their numbers.
    pub(super) subscriptions: FxHashMap<u32, Subscribed>,
    /// Parts of those that consist of several, by number.
    pub(super) parts: FxHashMap<u32, Part>,
    pub(super) names: Names,
    pub(super) next_subscription: u32,
    /// Bytes of the selectors of its subscriptions.
    pub(super) selector_bytes: u32,
    /// Deliveries a client of STOMP 1.0 acknowledges without naming the subscription, and those of
    /// subscriptions that consist of several parts.
    pub(super) outstanding: Outstanding,
    /// What the last frame means to several destinations.
    pub(super) series: Series,
    pub(super) awaited: Awaited,
    /// A message for several destinations whose body is arriving.
    pub(super) spread: Option<Spread>,
    /// Shards of the node.
    pub(super) shard_count: u16,
    pub(super) transactions: Transactions,
    /// Decoded text and rewritten heads of the event under way.
    scratch: Scratch,
    interleaving: Interleaving,
    /// The last destination sent to: its text, how it routes, where in it the address starts.
    last_destination: Option<(String, Routing, usize)>,
}

/// Bytes of a command that is being made: the client's own, or rewritten ones in the scratch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text<'a> {
    Given(&'a [u8]),
    Address,
    Client,
    Head,
    Name,
    Receipt,
    DuplicateId,
    Selector,
}

#[derive(Debug, Default)]
pub(super) struct Scratch {
    address: Vec<u8>,
    head: Vec<u8>,
    pub(super) name: Vec<u8>,
    receipt: Vec<u8>,
    duplicate_id: Vec<u8>,
    pub(super) selector: Vec<u8>,
}

impl Scratch {
    /// `client` is what the session calls its client.
    fn get<'a>(&'a self, client: &'a [u8], text: Text<'a>) -> &'a [u8] {
        match text {
            Text::Given(bytes) => bytes,
            Text::Address => &self.address,
            Text::Client => client,
            Text::Head => &self.head,
            Text::Name => &self.name,
            Text::Receipt => &self.receipt,
            Text::DuplicateId => &self.duplicate_id,
            Text::Selector => &self.selector,
        }
    }

    /// Keeps an address that had to be decoded.
    pub(super) fn address<'a>(&mut self, text: &Cow<'a, str>, address: &str) -> Text<'a> {
        match text {
            // The address is the end of the text, so its bytes are found without another search.
            Cow::Borrowed(text) => Text::Given(&text.as_bytes()[text.len() - address.len()..]),
            Cow::Owned(_) => {
                self.address.clear();
                self.address.extend_from_slice(address.as_bytes());
                Text::Address
            }
        }
    }

    fn duplicate_id<'a>(&mut self, id: Value<'a>) -> Text<'a> {
        match id.decode() {
            Cow::Borrowed(text) => Text::Given(text.as_bytes()),
            Cow::Owned(text) => {
                self.duplicate_id.clear();
                self.duplicate_id.extend_from_slice(text.as_bytes());
                Text::DuplicateId
            }
        }
    }

    pub(super) fn receipt<'a>(&mut self, receipt: Option<Value<'a>>) -> Option<Text<'a>> {
        receipt.map(|value| match value.decode() {
            Cow::Borrowed(text) => Text::Given(text.as_bytes()),
            Cow::Owned(text) => {
                self.receipt.clear();
                self.receipt.extend_from_slice(text.as_bytes());
                Text::Receipt
            }
        })
    }

    /// A head with its own temporary destinations as others name them.
    fn head_of<'a>(&mut self, head: &StoredHead<'a>, session: &str) -> Text<'a> {
        let stored: Vec<u8> = head.parts().flatten().copied().collect();
        self.head.clear();
        rewrite_reply_to(&stored, session, &mut self.head);
        Text::Head
    }

    fn head<'a>(&mut self, head: &StoredHead<'a>) -> Text<'a> {
        if let Some(run) = head.single_run() {
            return Text::Given(run);
        }
        self.head.clear();
        head.parts()
            .for_each(|part| self.head.extend_from_slice(part));
        Text::Head
    }
}

/// A refusal with the receipt of the frame refused.
pub(super) type Refused = (Unusable, Option<String>);

pub(super) fn owned(receipt: Option<Value<'_>>) -> Option<String> {
    receipt.map(|value| value.decode().into_owned())
}

impl Session {
    /// Starts a connection to a node of so many shards; `name` is what CONNECTED calls the session.
    pub fn new(settings: Rc<Settings>, name: String, shard_count: u16, now: Now) -> Self {
        Self {
            engine: Connection::new(settings.limits, now),
            settings,
            name,
            client: None,
            subscriptions: FxHashMap::default(),
            parts: FxHashMap::default(),
            names: Names::default(),
            next_subscription: 0,
            selector_bytes: 0,
            outstanding: Outstanding::default(),
            series: Series::default(),
            awaited: Awaited::default(),
            spread: None,
            shard_count,
            transactions: Transactions::default(),
            scratch: Scratch::default(),
            interleaving: Interleaving::default(),
            last_destination: None,
        }
    }

    pub(super) fn version(&self) -> Version {
        self.engine.version()
    }

    pub(super) fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    /// Whether the next event in `input` brings a message or a part of one.
    pub fn is_message_next(&self, input: &[u8]) -> bool {
        if let Some(is_message) = self.series.is_message_next() {
            return is_message;
        }
        // In the middle of a message everything belongs to it; else the input begins with a frame.
        self.engine.is_streaming() || {
            let start = input.iter().position(|byte| !matches!(byte, b'\n' | b'\r'));
            start.is_some_and(|at| input[at..].starts_with(b"SE"))
        }
    }

    /// Whether there is more to come of what was read.
    pub fn has_more(&self) -> bool {
        !self.series.is_empty()
    }

    /// Reads one event from `input`, unless there is more to come of the one before.
    pub fn handle_input<'a>(
        &'a mut self,
        input: &'a [u8],
        now: Now,
        out: &mut Vec<u8>,
    ) -> Step<'a> {
        if let Some(command) = self.series.pop() {
            let (consumed, series) = (0, &self.series);
            let command = command.map(&mut |span| series.get(span));
            return Step::Command { consumed, command };
        }
        let window = &input[..input.len().min(self.settings.limits.input_size_max() + 1)];
        // By reference from here on: the event of a message is large.
        let next = self.engine.next_event(window, now);
        let parsed = match &next {
            Ok(parsed) => parsed,
            Err(error) => {
                if !self.interleaving.is_busy() {
                    error.encode(self.engine.version(), out);
                }
                return Step::Broken;
            }
        };
        let consumed = parsed.consumed;
        let translated = match &parsed.event {
            // Line ends and thrown-away input are consumed without an event.
            None => {
                let is_starved = consumed == 0 || consumed == input.len();
                return Step::Quiet {
                    consumed,
                    is_starved,
                };
            }
            Some(Event::Connect(connect)) => match self.connect(connect, out) {
                Ok(()) => {
                    return Step::Quiet {
                        consumed,
                        is_starved: false,
                    };
                }
                Err(refused) => Err(refused),
            },
            Some(Event::Disconnect(disconnect)) => {
                let receipt = self.scratch.receipt(disconnect.receipt);
                let receipt = receipt.map_or(&[][..], |text| self.scratch.get(&[], text));
                return Step::Goodbye { receipt };
            }
            // At once: nearly all are such.
            Some(Event::Send(send)) => self.send(send, now),
            Some(event) => self.translate(event),
        };
        match translated {
            Ok(None) => Step::Quiet {
                consumed,
                is_starved: false,
            },
            Ok(Some(command)) => {
                let client = self.client.as_deref().unwrap_or_default();
                let command = command.map(&mut |text| self.scratch.get(client, text));
                Step::Command { consumed, command }
            }
            Err((unusable, receipt)) => {
                self.say_error(unusable.message, &unusable.details, receipt.as_deref(), out);
                Step::Broken
            }
        }
    }

    fn connect(&mut self, connect: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        let login = connect.login.map(|value| value.decode());
        let passcode = connect.passcode.map(|value| value.decode());
        if !self
            .settings
            .users
            .admit(login.as_deref(), passcode.as_deref())
        {
            let details = "The login and passcode headers do not name a user of this broker.";
            return Err((Unusable::new("access refused", details), None));
        }
        let client_id = connect.client_id.map(|value| value.decode());
        let client_id = client_id.filter(|id| !id.is_empty());
        self.client = client_id.map(|id| wanted::escape_client(&id));
        encode::connected(
            out,
            &Connected {
                version: connect.version,
                heart_beat: self.settings.limits.heart_beat,
                session: &self.name,
                server: &self.settings.server,
            },
        );
        Ok(())
    }

    /// The command that an event means; none if there are several, in the series.
    fn translate<'a>(&mut self, event: &Event<'a>) -> Result<Option<Command<Text<'a>>>, Refused> {
        match event {
            Event::SendPart(part) if self.spread.is_some() => {
                self.spread_part(part.bytes, part.is_last);
                Ok(None)
            }
            Event::SendPart(part) => Ok(Some(Command::SendPart(SendPartCommand {
                copy: 0,
                bytes: Text::Given(part.bytes),
                is_last: part.is_last,
            }))),
            Event::Subscribe(subscribe) => self.subscribe(subscribe),
            Event::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            Event::Ack(ack) => self.acknowledge(ack, Verdict::Accept),
            Event::Nack(nack) if nack.is_requeued => self.acknowledge(nack, Verdict::Release),
            Event::Nack(nack) => self.acknowledge(nack, Verdict::Refuse),
            Event::Begin(begin) => self.begin(begin).map(Some),
            Event::Commit(commit) => self.end_transaction(commit, true).map(Some),
            Event::Abort(abort) => self.end_transaction(abort, false).map(Some),
            Event::Connect(_) | Event::Disconnect(_) | Event::Send(_) => {
                unreachable!("handled by the caller")
            }
        }
    }

    fn send<'a>(
        &mut self,
        send: &Send<'a>,
        now: Now,
    ) -> Result<Option<Command<Text<'a>>>, Refused> {
        let refused = |unusable| (unusable, owned(send.receipt));
        let given = send.destination.decode();
        let transaction = self.transactions.of(send.transaction).map_err(refused)?;
        if given.contains(',') {
            let command = self.message(send, transaction, now)?;
            self.spread(&given, send.routing, command)
                .map_err(refused)?;
            return Ok(None);
        }
        let destination = as_seen_by_others(given, &self.name);
        let Resolved {
            routing,
            address,
            is_temporary,
            ..
        } = self
            .resolve_send(&destination, send.routing)
            .map_err(refused)?;
        let command = self.message(send, transaction, now)?;
        Ok(Some(Command::Send(SendCommand {
            routing,
            address: self.scratch.address(&destination, address),
            is_temporary,
            client: self.sender(routing),
            ..command
        })))
    }

    /// Who sends, where somebody asks: only a topic's subscriptions can leave out what their own
    /// client sends.
    pub(super) fn sender<'a>(&self, routing: Routing) -> Option<Text<'a>> {
        let client = self.client.as_ref();
        let client = client.filter(|_| routing == Routing::Multicast);
        client.map(|_| Text::Client)
    }

    /// A message, but for where it goes.
    fn message<'a>(
        &mut self,
        send: &Send<'a>,
        transaction: u64,
        now: Now,
    ) -> Result<SendCommand<Text<'a>>, Refused> {
        let extras = extras(send, now)?;
        let extras = extras.map(|id| self.scratch.duplicate_id(id));
        let reply_to = send.reply_to.map(|value| value.decode());
        Ok(SendCommand {
            routing: Routing::Anycast,
            address: Text::Given(&[]),
            is_temporary: false,
            is_forwarded: false,
            client: None,
            is_persistent: send
                .persistent
                .unwrap_or(self.settings.is_persistent_by_default),
            priority: send.priority.unwrap_or(PRIORITY_DEFAULT),
            expires_unix_ms: send.expires_unix_ms.unwrap_or(0),
            extras,
            has_content_length: has_content_length(send),
            encoding: ENCODING,
            head: match reply_to {
                Some(to) if is_own(&to) => self.scratch.head_of(&send.stored_head, &self.name),
                _ => self.scratch.head(&send.stored_head),
            },
            body: Text::Given(send.body),
            body_total: send.body_total,
            is_complete: send.is_complete,
            receipt: self.scratch.receipt(send.receipt),
            transaction,
        })
    }

    /// The bytes of a command that is being made.
    pub(super) fn bytes<'b>(&'b self, text: Text<'b>) -> &'b [u8] {
        let client = self.client.as_deref().unwrap_or_default();
        self.scratch.get(client, text)
    }

    /// The same, in the series.
    pub(super) fn hold(&mut self, text: Text<'_>) -> Span {
        let client = self.client.as_deref().unwrap_or_default();
        self.series.hold(self.scratch.get(client, text))
    }

    /// Where a SEND leads. Most go where the one before went, and need no second look.
    fn resolve_send<'d>(
        &mut self,
        text: &'d str,
        routing: Option<RoutingType>,
    ) -> Result<Resolved<'d>, Unusable> {
        if routing.is_none()
            && let Some((known, by_name, start)) = &self.last_destination
            && known == text
        {
            return Ok(Resolved {
                routing: *by_name,
                address: &text[*start..],
                is_temporary: false,
                is_everywhere: false,
            });
        }
        let resolved = resolve(text, routing, &self.settings.policies)?;
        check_sendable(&resolved)?;
        if routing.is_none() && !resolved.is_temporary {
            let (by_name, start) = (resolved.routing, text.len() - resolved.address.len());
            // Its memory is used again: producers may take turns between destinations.
            let empty = (String::new(), by_name, start);
            let known = self.last_destination.get_or_insert(empty);
            known.0.clear();
            known.0.push_str(text);
            (known.1, known.2) = (by_name, start);
        }
        Ok(resolved)
    }

    /// Whether a body is under way.
    pub fn is_amid_body(&self) -> bool {
        self.interleaving.is_busy()
    }

    /// Bytes that wait for the end of a body under way.
    pub fn held_len(&self) -> usize {
        self.interleaving.held_len()
    }

    /// Where in the output of the last reply frames end that others follow; once.
    pub fn take_breaks(&mut self) -> Vec<usize> {
        self.interleaving.take_breaks()
    }

    /// Whether bytes of this shard's deliveries are held back.
    pub fn holds(&self, shard: u16) -> bool {
        self.interleaving.holds(Source::Shard(shard))
    }

    /// Writes what a reply means; false if the connection has to close after it.
    pub fn handle_reply(&mut self, reply: &Reply<&[u8]>, out: &mut Vec<u8>) -> bool {
        let version = self.version();
        match reply {
            Reply::Receipt { receipt } => {
                let receipt = match self.awaited.earn(receipt) {
                    Earned::Given(receipt) => receipt.into(),
                    Earned::All(receipt) => Cow::Owned(receipt.into_vec()),
                    Earned::Waiting => return true,
                };
                self.interleaving.write(Source::Control, true, out, |out| {
                    encode::receipt(out, version, &String::from_utf8_lossy(&receipt));
                });
            }
            Reply::Deliver(deliver) => self.deliver(deliver, out),
            Reply::DeliverPart {
                shard,
                bytes,
                is_last,
            } => {
                if self.interleaving.is_dropping(*shard) {
                    self.interleaving.set_dropping(*shard, !is_last);
                } else {
                    self.interleaving
                        .write(Source::Shard(*shard), *is_last, out, |out| {
                            push_body(bytes, *is_last, out);
                        });
                }
            }
            Reply::Refused {
                refusal,
                about,
                receipt,
            } => {
                let receipt = receipt.map(|receipt| self.awaited.name(receipt));
                let receipt = receipt.map(|receipt| String::from_utf8_lossy(receipt).into_owned());
                let details = match about {
                    Some(address) => {
                        format!("{refusal}; address: {}", String::from_utf8_lossy(address))
                    }
                    None => refusal.to_string(),
                };
                self.say_error("refused", &details, receipt.as_deref(), out);
                return false;
            }
            Reply::BrowseEnd {
                shard,
                subscription,
            } => self.end_browsing(*shard, *subscription, out),
            Reply::Slow(slow) if slow.is_sent_away => {
                self.say_slow(slow, out);
                return false;
            }
            Reply::Departs(_)
            | Reply::Slow(_)
            | Reply::Answered { .. }
            | Reply::Reported { .. }
            | Reply::Quota(_)
            | Reply::Synced
            | Reply::Hold
            | Reply::Resume => {}
        }
        true
    }

    /// What the client calls a subscription; none if that is over, or has no name.
    pub fn subscription_id(&self, subscription: Subscription) -> Option<&str> {
        let known = subscribed(&self.subscriptions, &self.parts, subscription);
        let (_, subscribed, _) = known?;
        subscribed.id.as_deref()
    }

    /// Tells the client why it is sent away.
    fn say_slow(&mut self, slow: &Slow<&[u8]>, out: &mut Vec<u8>) {
        let id = self.subscription_id(slow.subscription).unwrap_or_default();
        let details = format!(
            "Subscription {id:?} settled {} while messages waited for it: less than \
             slow_consumer_threshold, and slow_consumer_policy is to disconnect then; address: {}",
            slow.pace,
            String::from_utf8_lossy(slow.address)
        );
        self.say_error("slow consumer", &details, None, out);
    }

    fn deliver(&mut self, deliver: &Deliver<&[u8]>, out: &mut Vec<u8>) {
        let version = self.version();
        let known = subscribed(&self.subscriptions, &self.parts, deliver.subscription);
        let Some((first, subscribed, part)) = known else {
            return self
                .interleaving
                .set_dropping(deliver.shard, !deliver.is_complete);
        };
        let is_explicit = subscribed.ack != AckMode::Auto;
        let is_several = part.is_some();
        let destination = match part {
            None => Cow::Borrowed(&*subscribed.destination),
            Some(part) => part.destination_of(deliver.address),
        };
        let head = MessageHead {
            subscription: subscribed.id.as_deref(),
            message_id: Token::Pair(deliver.shard.into(), deliver.message.0),
            destination: &destination,
            ack: is_explicit
                .then(|| Token::Pair(deliver.subscription.0.into(), deliver.delivery_tag)),
            is_redelivered: deliver.is_redelivered,
            delivery_count: u32::from(deliver.attempts) + 1,
            content_length: deliver.has_content_length.then_some(deliver.body_size),
            own_expiry_unix_ms: deliver.own_expiry_unix_ms,
            group_first_key: std::str::from_utf8(deliver.group_first_key).unwrap_or_default(),
            stored_head: deliver.head,
        };
        let source = Source::Shard(deliver.shard);
        self.interleaving
            .write(source, deliver.is_complete, out, |out| {
                encode::message_head(out, version, &head);
                push_body(deliver.body, deliver.is_complete, out);
            });
        if is_explicit && (is_several || version == Version::V1_0) {
            self.outstanding.push(first, deliver);
        }
    }

    /// The message behind the last one that a browser sees: no body, and a header that says so, as
    /// ActiveMQ sends it.
    fn end_browsing(&mut self, shard: u16, subscription: Subscription, out: &mut Vec<u8>) {
        let version = self.version();
        if !self.note_browsed(subscription) {
            return;
        }
        let known = subscribed(&self.subscriptions, &self.parts, subscription);
        let Some((_, subscribed, _)) = known else {
            return;
        };
        let head = MessageHead {
            subscription: subscribed.id.as_deref(),
            message_id: Token::Pair(shard.into(), 0),
            destination: &subscribed.destination,
            ack: None,
            is_redelivered: false,
            delivery_count: 0,
            content_length: None,
            own_expiry_unix_ms: None,
            group_first_key: "",
            stored_head: b"browser:end\n",
        };
        self.interleaving
            .write(Source::Shard(shard), true, out, |out| {
                encode::message_head(out, version, &head);
                push_body(&[], true, out);
            });
    }

    /// Writes an ERROR frame and accepts nothing any more.
    ///
    /// In the middle of a body there is no place for a frame: then the connection only closes.
    pub fn say_error(
        &mut self,
        message: &str,
        details: &str,
        receipt_id: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        if !self.interleaving.is_busy() {
            let frame = ErrorFrame {
                message,
                details,
                receipt_id,
                lists_versions: false,
            };
            encode::error(out, self.engine.version(), &frame);
        }
        self.engine.close();
    }

    /// Bytes came in.
    pub fn note_received(&mut self, now: Now) {
        self.engine.note_received(now);
    }

    /// Bytes went out.
    pub fn note_sent(&mut self, now: Now) {
        self.engine.note_sent(now);
    }

    /// The broker stopped or began again to read.
    pub fn set_reading(&mut self, is_reading: bool, now: Now) {
        self.engine.set_reading(is_reading, now);
    }

    /// When a timer is due next, in monotonic microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.engine.poll_timeout()
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<u8>) -> Timeout {
        match self.engine.handle_timeout(now) {
            None => Timeout::None,
            Some(action) => match action.error() {
                // A body under way is heart-beat enough, and nothing may come between its parts.
                None if self.interleaving.is_busy() => {
                    self.engine.note_sent(now);
                    Timeout::None
                }
                None => {
                    out.extend_from_slice(encode::HEART_BEAT);
                    Timeout::Wrote
                }
                Some(_) if self.interleaving.is_busy() => Timeout::Broken,
                Some(error) => {
                    error.encode(self.engine.version(), out);
                    Timeout::Broken
                }
            },
        }
    }
}

fn push_body(bytes: &[u8], is_last: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
    if is_last {
        out.extend_from_slice(encode::FRAME_END);
    }
}
