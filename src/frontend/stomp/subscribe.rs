//! Subscriptions of one STOMP connection: the client's names and ours.
//!
//! A durable subscription is named `<client-id>.<name>` in the node, as in Artemis. Dots and
//! backslashes of the client id are escaped, so that no client reaches those of another one.

use forebay_journal::MessageId;
use forebay_journal::format::Routing;
use rustc_hash::FxHashMap;

use super::session::{Refused, Session, Text, owned};
use super::{Resolved, Unusable, resolve, temporary};
use crate::frontend::{Command, Start, SubscribeCommand, Subscription};
use crate::limits::ADDRESS_SIZE_MAX_BYTES;
use crate::protocol::stomp::encode::Token;
use crate::protocol::stomp::{AckMode, Headers, Subscribe, Unsubscribe};
use crate::queue::{Credit, Rank, Settlement};

/// One subscription as the client knows it.
#[derive(Debug)]
pub(super) struct Subscribed {
    /// Its id; none for a client of STOMP 1.0 that gave none.
    pub(super) id: Option<Box<str>>,
    /// The destination as the client wrote it: goes back with each message.
    pub(super) destination: Box<str>,
    pub(super) ack: AckMode,
    /// Its name if it is durable, as the client wrote it.
    pub(super) durable_name: Option<Box<str>>,
}

/// Our names by the client's. In STOMP 1.0 the destination may stand for the id.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_id: FxHashMap<Box<str>, Subscription>,
    by_destination: FxHashMap<Box<str>, Subscription>,
    by_durable_name: FxHashMap<Box<str>, Subscription>,
}

impl Names {
    pub(super) fn by_id(&self, id: &str) -> Option<Subscription> {
        self.by_id.get(id).copied()
    }

    fn insert(&mut self, subscription: Subscription, subscribed: &Subscribed) {
        match &subscribed.id {
            Some(id) => self.by_id.insert(id.clone(), subscription),
            None => self
                .by_destination
                .insert(subscribed.destination.clone(), subscription),
        };
        if let Some(name) = &subscribed.durable_name {
            self.by_durable_name.insert(name.clone(), subscription);
        }
    }

    fn remove(&mut self, subscribed: &Subscribed) {
        match &subscribed.id {
            Some(id) => self.by_id.remove(id),
            None => self.by_destination.remove(&subscribed.destination),
        };
        if let Some(name) = &subscribed.durable_name {
            self.by_durable_name.remove(name);
        }
    }
}

/// Longest name of a durable subscription in the node: it is journaled beside an address.
const NAME_SIZE_MAX: usize = ADDRESS_SIZE_MAX_BYTES as usize;
/// Headers that name the messages in flight: ActiveMQ's word and RabbitMQ's.
const PREFETCH: [&str; 2] = ["activemq.prefetchSize", "prefetch-count"];
/// Headers that say who is served first: ActiveMQ's word and that of Artemis and RabbitMQ.
const PRIORITY: [&str; 3] = ["activemq.priority", "consumer-priority", "x-priority"];
/// Header that names the bytes in flight, of Artemis.
const WINDOW: &str = "consumer-window-size";
/// Header that says where to begin, of RabbitMQ.
const START: &str = "x-stream-offset";
/// Header that asks to be served alone.
const EXCLUSIVE: &str = "activemq.exclusive";

/// Bytes in flight, as Artemis' header asks: none for no limit, zero for one message at a time.
fn window(headers: &Headers<'_>) -> Result<Option<u64>, Unusable> {
    let Some(value) = headers.first(WINDOW) else {
        return Ok(None);
    };
    match value.raw() {
        "-1" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let details = format!("{WINDOW}: {text:?} is not -1 or a number of bytes.");
            Unusable::new("window malformed", details)
        }),
    }
}

/// Whether the subscription only looks, as ActiveMQ's header asks.
fn is_browser(headers: &Headers<'_>, routing: Routing) -> Result<bool, Unusable> {
    let asked = headers.first("browser");
    if asked.is_none_or(|value| value.raw() != "true") {
        return Ok(false);
    }
    if routing == Routing::Multicast {
        let details = "A topic keeps nothing that could be looked at: only queues can be browsed.";
        return Err(Unusable::new("topics cannot be browsed", details));
    }
    Ok(true)
}

/// Where to begin among messages that stay, as RabbitMQ's header asks.
fn start(headers: &Headers<'_>) -> Result<Option<Start>, Unusable> {
    let Some(value) = headers.first(START) else {
        return Ok(None);
    };
    let value = value.decode();
    let start = match &*value {
        "first" => Some(Start::First),
        "last" => Some(Start::Last),
        "next" => Some(Start::Next),
        other => other
            .strip_prefix("offset=")
            .and_then(Token::parse_pair)
            .and_then(|(shard, message)| {
                Some(Start::At {
                    shard: u16::try_from(shard).ok()?,
                    message: MessageId(message),
                })
            }),
    };
    let details = || {
        format!(
            "{START}: {value:?} is not first, last, next or offset= with a message-id behind it."
        )
    };
    let start = start.ok_or_else(|| Unusable::new("start malformed", details()))?;
    Ok(Some(start))
}

fn rank(headers: &Headers<'_>) -> Result<Rank, Unusable> {
    let priority = PRIORITY.iter().find_map(|key| headers.first(key));
    let priority = match priority.map(|value| value.raw()) {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            let details = format!("{text:?} is not a whole number of 32 bits.");
            Unusable::new("consumer priority malformed", details)
        })?,
    };
    Ok(Rank {
        priority,
        is_exclusive: headers
            .first(EXCLUSIVE)
            .is_some_and(|value| value.raw() == "true"),
    })
}

impl Session {
    pub(super) fn subscribe<'a>(
        &mut self,
        subscribe: &Subscribe<'a>,
    ) -> Result<Command<Text<'a>>, Refused> {
        let given = subscribe.destination.decode();
        let id = subscribe.id.map(|id| id.decode());
        let refused = |unusable| (unusable, owned(subscribe.receipt));
        temporary::check_listener(&given).map_err(refused)?;
        let destination = temporary::as_seen_by_others(given.clone(), &self.name);
        let Resolved {
            routing,
            address,
            is_temporary,
        } = resolve(&destination, subscribe.routing, &self.settings.policies).map_err(refused)?;
        self.check_subscribe(subscribe, id.as_deref(), &given)
            .map_err(refused)?;
        let window = window(&subscribe.headers).map_err(refused)?;
        let credit = match window {
            // Of Artemis: one at a time.
            Some(0) => Credit::Messages(1),
            _ => self.credit(&subscribe.headers).map_err(refused)?,
        };
        let rank = rank(&subscribe.headers).map_err(refused)?;
        let is_browser = is_browser(&subscribe.headers, routing).map_err(refused)?;
        let start = start(&subscribe.headers).map_err(refused)?;
        let durable_name = subscribe.headers.durable_name().map(|name| name.decode());
        if let Some(name) = &durable_name {
            self.check_durable(routing, name).map_err(refused)?;
        }
        let subscription = Subscription(self.next_subscription);
        self.next_subscription += 1;
        let is_durable = durable_name.is_some();
        let subscribed = Subscribed {
            id: id.map(Into::into),
            destination: (*given).into(),
            // A browser holds nothing that could be acknowledged.
            ack: if is_browser {
                AckMode::Auto
            } else {
                subscribe.ack
            },
            durable_name: durable_name.map(Into::into),
        };
        self.names.insert(subscription, &subscribed);
        self.subscriptions.insert(subscription.0, subscribed);
        Ok(Command::Subscribe(SubscribeCommand {
            subscription,
            routing,
            address: self.scratch().address(&destination, address),
            is_temporary,
            is_browser,
            start,
            durable_name: is_durable.then_some(Text::Name),
            credit,
            credit_bytes: window.filter(|bytes| *bytes > 0),
            settlement: match subscribe.ack {
                AckMode::Auto => Settlement::OnHandover,
                AckMode::Client | AckMode::ClientIndividual => Settlement::ByConsumer,
            },
            rank,
            receipt: self.scratch().receipt(subscribe.receipt),
        }))
    }

    fn check_subscribe(
        &self,
        subscribe: &Subscribe<'_>,
        id: Option<&str>,
        destination: &str,
    ) -> Result<(), Unusable> {
        if subscribe.selector.is_some() {
            return Err(Unusable::not_offered("selector"));
        }
        let max = self.settings.subscriptions_max;
        if self.subscriptions.len() >= max {
            let details = format!("A connection has at most {max} subscriptions.");
            return Err(Unusable::new("too many subscriptions", details));
        }
        let is_taken = match id {
            Some(id) => self.names.by_id.contains_key(id),
            None => self.names.by_destination.contains_key(destination),
        };
        if is_taken {
            let details = "A subscription of this connection has that id already.";
            return Err(Unusable::new("subscription exists", details));
        }
        Ok(())
    }

    fn credit(&self, headers: &Headers<'_>) -> Result<Credit, Unusable> {
        let named = PREFETCH.iter().find_map(|key| headers.first(key));
        let Some(value) = named else {
            return Ok(Credit::Messages(self.settings.prefetch_default));
        };
        match value.raw().parse::<u32>() {
            // None in flight would mean none ever: STOMP has no way to ask for the next.
            Ok(messages) => Ok(Credit::Messages(messages.max(1))),
            Err(_) => Err(Unusable::new(
                "prefetch malformed",
                format!("{:?} is not a number of messages.", value.raw()),
            )),
        }
    }

    pub(super) fn unsubscribe<'a>(
        &mut self,
        unsubscribe: &Unsubscribe<'a>,
    ) -> Result<Command<Text<'a>>, Refused> {
        let refused = |unusable| (unusable, owned(unsubscribe.receipt));
        if let Some(name) = unsubscribe.headers.durable_name() {
            let name = name.decode();
            return self
                .unsubscribe_durably(unsubscribe, &name)
                .map_err(refused);
        }
        let names = &self.names;
        let subscription = match (unsubscribe.id, unsubscribe.destination) {
            (Some(id), _) => names.by_id(&id.decode()),
            (None, Some(destination)) => names.by_destination.get(&*destination.decode()).copied(),
            (None, None) => None,
        };
        let Some(subscription) = subscription else {
            let details = "UNSUBSCRIBE names no subscription of this connection.";
            return Err(refused(Unusable::new("no such subscription", details)));
        };
        Ok(self.end(subscription, false, unsubscribe))
    }

    /// Ends a durable subscription for good, of this connection or one nobody is attached to.
    fn unsubscribe_durably<'a>(
        &mut self,
        unsubscribe: &Unsubscribe<'a>,
        name: &str,
    ) -> Result<Command<Text<'a>>, Unusable> {
        self.check_durable(Routing::Multicast, name)?;
        let own = self.names.by_durable_name.get(name).copied();
        let by_id = unsubscribe.id.and_then(|id| self.names.by_id(&id.decode()));
        if by_id.is_some() && by_id != own {
            let details = format!("The subscription with that id is not the durable one {name:?}.");
            return Err(Unusable::new("two subscriptions named", details));
        }
        if let Some(subscription) = own {
            return Ok(self.end(subscription, true, unsubscribe));
        }
        Ok(Command::Forget {
            name: Text::Name,
            receipt: self.scratch().receipt(unsubscribe.receipt),
        })
    }

    fn end<'a>(
        &mut self,
        subscription: Subscription,
        is_for_good: bool,
        unsubscribe: &Unsubscribe<'a>,
    ) -> Command<Text<'a>> {
        if let Some(subscribed) = self.subscriptions.remove(&subscription.0) {
            self.names.remove(&subscribed);
        }
        self.outstanding.forget(subscription);
        Command::Unsubscribe {
            subscription,
            is_for_good,
            receipt: self.scratch().receipt(unsubscribe.receipt),
        }
    }

    /// Checks what a durable subscription needs, and writes its name in the node into the scratch.
    fn check_durable(&mut self, routing: Routing, name: &str) -> Result<(), Unusable> {
        if routing == Routing::Anycast {
            let details = "Only topics have durable subscriptions: a queue keeps its messages.";
            return Err(Unusable::new("durable subscription to a queue", details));
        }
        let Some(client_id) = self.client_id.clone() else {
            let details = "A durable subscription belongs to the client that the header client-id \
                of CONNECT names, and there was none.";
            return Err(Unusable::new("client-id missing", details));
        };
        if name.is_empty() {
            let details = "The name of the durable subscription is empty.";
            return Err(Unusable::new(
                "durable subscription without a name",
                details,
            ));
        }
        let node_name = &mut self.scratch().name;
        node_name.clear();
        for byte in client_id.bytes() {
            if matches!(byte, b'.' | b'\\') {
                node_name.push(b'\\');
            }
            node_name.push(byte);
        }
        node_name.push(b'.');
        node_name.extend_from_slice(name.as_bytes());
        let size = node_name.len();
        if size > NAME_SIZE_MAX {
            let details =
                format!("client-id and name make {size} bytes; {NAME_SIZE_MAX} are the most.");
            return Err(Unusable::new(
                "durable subscription's name too long",
                details,
            ));
        }
        Ok(())
    }
}
