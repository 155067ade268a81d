//! Subscriptions of one STOMP connection: the client's names and ours. What a subscription wants
//! beside its destination is read in [`super::wanted`].

use forebay_journal::MessageId;
use forebay_journal::format::Routing;
use rustc_hash::FxHashMap;

use super::session::{Refused, Session, Text, owned};
use super::wanted::{Name, Wanted};
use super::{Resolved, Unusable, resolve, temporary};
use crate::frontend::{Command, Ending, Start, SubscribeCommand, Subscription};
use crate::protocol::stomp::encode::Token;
use crate::protocol::stomp::{AckMode, Headers, Subscribe, Unsubscribe};
use crate::queue::{Credit, Rank, Settlement};
use crate::routing::split_queue;

/// One subscription as the client knows it.
#[derive(Debug)]
pub(super) struct Subscribed {
    /// Its id; none for a client of STOMP 1.0 that gave none.
    pub(super) id: Option<Box<str>>,
    /// The destination as the client wrote it: goes back with each message.
    pub(super) destination: Box<str>,
    pub(super) ack: AckMode,
    /// Its name in the node if it is durable.
    pub(super) durable_name: Option<Box<[u8]>>,
    /// Bytes of its selector.
    pub(super) selector_size: u32,
    /// How many parts it consists of, if it names several destinations; else none.
    pub(super) parts: u32,
    /// How many of them have been browsed to their end.
    pub(super) browsed: u32,
}

/// Our names by the client's. In STOMP 1.0 the destination may stand for the id.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_id: FxHashMap<Box<str>, Subscription>,
    by_destination: FxHashMap<Box<str>, Subscription>,
    by_durable_name: FxHashMap<Box<[u8]>, Subscription>,
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
fn is_browser(
    headers: &Headers<'_>,
    routing: Routing,
    is_qualified: bool,
) -> Result<bool, Unusable> {
    let asked = headers.first("browser");
    if asked.is_none_or(|value| value.raw() != "true") {
        return Ok(false);
    }
    if routing == Routing::Multicast && !is_qualified {
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
        other => start_at(other).or_else(|| start_since(other)),
    };
    let details = || {
        format!(
            "{START}: {value:?} is not first, last, next, offset= with a message-id behind it, or \
             timestamp= with a time in whole seconds since 1970."
        )
    };
    let start = start.ok_or_else(|| Unusable::new("start malformed", details()))?;
    Ok(Some(start))
}

fn start_at(value: &str) -> Option<Start> {
    let (shard, message) = Token::parse_pair(value.strip_prefix("offset=")?)?;
    Some(Start::At {
        shard: u16::try_from(shard).ok()?,
        message: MessageId(message),
    })
}

/// The last second that has four digits in its year: whoever asks for more means milliseconds.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Shape: POSIX seconds, as in RabbitMQ.
fn start_since(value: &str) -> Option<Start> {
    let digits = value.strip_prefix("timestamp=")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u64 = digits.parse().ok().filter(|_| is_number)?;
    (seconds <= SECONDS_MAX).then_some(Start::Since {
        unix_ms: seconds * 1000,
    })
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
    /// The command of a SUBSCRIBE; none if there are several, in the series.
    pub(super) fn subscribe<'a>(
        &mut self,
        subscribe: &Subscribe<'a>,
    ) -> Result<Option<Command<Text<'a>>>, Refused> {
        let given = subscribe.destination.decode();
        let id = subscribe.id.map(|id| id.decode());
        let refused = |unusable| (unusable, owned(subscribe.receipt));
        self.check_subscribe(id.as_deref(), &given)
            .map_err(refused)?;
        let destination = temporary::as_seen_by_others(given.clone(), &self.name);
        let resolved = if given.contains(',') {
            None
        } else {
            temporary::check_listener(&given).map_err(refused)?;
            let resolved = resolve(&destination, subscribe.routing, &self.settings.policies);
            Some(resolved.map_err(refused)?).filter(|one| !one.is_everywhere)
        };
        let Some(Resolved {
            routing,
            address,
            is_temporary,
            ..
        }) = resolved
        else {
            self.subscribe_to_several(subscribe, &given)
                .map_err(refused)?;
            return Ok(None);
        };
        let is_qualified = split_queue(address.as_bytes()).is_some();
        let command = self
            .read_subscribe(subscribe, routing, is_qualified)
            .map_err(refused)?;
        let subscription = self.enter(subscribe, &command, &given, 0);
        Ok(Some(Command::Subscribe(SubscribeCommand {
            subscription,
            address: self.scratch().address(&destination, address),
            is_temporary,
            ..command
        })))
    }

    /// What a SUBSCRIBE asks for, but for where and its number. The name and the selector are in
    /// the scratch. `is_qualified`: it names one queue of an address.
    pub(super) fn read_subscribe<'a>(
        &mut self,
        subscribe: &Subscribe<'a>,
        routing: Routing,
        is_qualified: bool,
    ) -> Result<SubscribeCommand<Text<'a>>, Unusable> {
        let headers = &subscribe.headers;
        let window = window(headers)?;
        let credit = match window {
            // Of Artemis: one at a time.
            Some(0) => Credit::Messages(1),
            _ => self.credit(headers)?,
        };
        let wanted = Wanted::read(subscribe, routing)?;
        if is_qualified && (wanted.name.is_some() || wanted.is_no_local) {
            let details = "The destination names a queue that is there: it has its name, and what \
                comes into it is settled.";
            return Err(Unusable::new("subscription to one queue", details));
        }
        self.keep_selector(&wanted)?;
        if let Some(name) = &wanted.name {
            self.write_name(name)?;
        }
        let name = wanted.name.as_ref();
        Ok(SubscribeCommand {
            subscription: Subscription(0),
            routing,
            address: Text::Given(&[]),
            part: None,
            is_temporary: false,
            is_browser: is_browser(headers, routing, is_qualified)?,
            start: start(headers)?,
            name: name.map(|_| Text::Name),
            is_durable: name.is_some_and(|name| name.is_durable),
            is_shared: name.is_some_and(|name| name.is_shared),
            is_no_local: wanted.is_no_local,
            is_retroactive: wanted.is_retroactive,
            selector: wanted.selector.as_ref().map(|_| Text::Selector),
            credit,
            credit_bytes: window.filter(|bytes| *bytes > 0),
            settlement: match subscribe.ack {
                AckMode::Auto => Settlement::OnHandover,
                AckMode::Client | AckMode::ClientIndividual => Settlement::ByConsumer,
            },
            rank: rank(headers)?,
            receipt: self.scratch().receipt(subscribe.receipt),
        })
    }

    /// Keeps a subscription of so many parts, none for a plain one; returns its first number.
    pub(super) fn enter(
        &mut self,
        subscribe: &Subscribe<'_>,
        command: &SubscribeCommand<Text<'_>>,
        given: &str,
        parts: u32,
    ) -> Subscription {
        let subscription = Subscription(self.next_subscription);
        self.next_subscription += parts.max(1);
        let selector = command.selector.map(|text| self.bytes(text).len() as u32);
        let durable_name = command.name.filter(|_| command.is_durable);
        let subscribed = Subscribed {
            id: subscribe.id.map(|id| id.decode().into()),
            destination: given.into(),
            // A browser holds nothing that could be acknowledged.
            ack: if command.is_browser {
                AckMode::Auto
            } else {
                subscribe.ack
            },
            durable_name: durable_name.map(|name| self.bytes(name).into()),
            selector_size: selector.unwrap_or(0),
            parts,
            browsed: 0,
        };
        self.selector_bytes += subscribed.selector_size;
        self.names.insert(subscription, &subscribed);
        self.subscriptions.insert(subscription.0, subscribed);
        subscription
    }

    fn check_subscribe(&self, id: Option<&str>, destination: &str) -> Result<(), Unusable> {
        self.check_room(1)?;
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

    /// Checks that so many subscriptions more, or parts of one, have room.
    pub(super) fn check_room(&self, more: usize) -> Result<(), Unusable> {
        let max = self.settings.subscriptions_max;
        if self.subscriptions.len() + self.parts.len() + more > max {
            let details = format!(
                "A connection has at most {max} subscriptions, each destination and each shard of \
                 a wildcard counted."
            );
            return Err(Unusable::new("too many subscriptions", details));
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
    ) -> Result<Option<Command<Text<'a>>>, Refused> {
        let refused = |unusable| (unusable, owned(unsubscribe.receipt));
        if unsubscribe.headers.durable_name().is_some() {
            return self.unsubscribe_durably(unsubscribe).map_err(refused);
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
        Ok(self.end(subscription, Ending::Detach, unsubscribe))
    }

    /// Ends a durable subscription for good, of this connection or one nobody is attached to.
    fn unsubscribe_durably<'a>(
        &mut self,
        unsubscribe: &Unsubscribe<'a>,
    ) -> Result<Option<Command<Text<'a>>>, Unusable> {
        if let Some(name) = Name::read(&unsubscribe.headers)? {
            self.write_name(&name)?;
        }
        let node_name = std::mem::take(&mut self.scratch().name);
        let own = self.names.by_durable_name.get(&*node_name).copied();
        self.scratch().name = node_name;
        let by_id = unsubscribe.id.and_then(|id| self.names.by_id(&id.decode()));
        if by_id.is_some() && by_id != own {
            let details = "The subscription with that id is not the durable one of that name.";
            return Err(Unusable::new("two subscriptions named", details));
        }
        if let Some(subscription) = own {
            return Ok(self.end(subscription, Ending::Delete, unsubscribe));
        }
        Ok(Some(Command::Forget {
            name: Text::Name,
            for_shared: None,
            receipt: self.scratch().receipt(unsubscribe.receipt),
        }))
    }

    fn end<'a>(
        &mut self,
        subscription: Subscription,
        ending: Ending,
        unsubscribe: &Unsubscribe<'a>,
    ) -> Option<Command<Text<'a>>> {
        let receipt = self.scratch().receipt(unsubscribe.receipt);
        let mut parts = 0;
        if let Some(subscribed) = self.subscriptions.remove(&subscription.0) {
            self.names.remove(&subscribed);
            self.selector_bytes -= subscribed.selector_size;
            parts = subscribed.parts;
        }
        self.outstanding.forget(subscription);
        if parts > 0 {
            self.end_parts(subscription, parts, ending, receipt);
            return None;
        }
        Some(Command::Unsubscribe {
            subscription,
            ending,
            receipt,
        })
    }
}
