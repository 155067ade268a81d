//! What a subscription wants beside its destination: a name, a selector, nothing of its own.
//!
//! A subscription with a name is `<client-id>.<name>` in the node, as in Artemis. Dots and
//! backslashes of the client id are escaped, so that no client reaches those of another one; and
//! no escaped client id begins with a backslash before a letter, so that what belongs to no client
//! (`\global`), and what is shared and not durable (`\volatile`), has a place of its own.

use forebay_journal::format::Routing;

use super::Unusable;
use super::properties::not_offered;
use super::session::Session;
use crate::limits::{ADDRESS_SIZE_MAX_BYTES, CONNECTION_SELECTORS_SIZE_MAX_BYTES};
use crate::protocol::stomp::{Headers, Subscribe, Value};
use crate::selector::Selector;

/// Longest name of a subscription in the node: it is journaled beside an address.
const NAME_SIZE_MAX: usize = ADDRESS_SIZE_MAX_BYTES as usize;
/// Begins the names of durable subscriptions that belong to no client.
const GLOBAL: &[u8] = b"\\global";
/// Begins the names of shared subscriptions that are not durable: JMS 2.0, 8.3.2, gives them names
/// beside those of durable ones.
const VOLATILE: &[u8] = b"\\volatile.";
/// Headers that leave out what the client itself sends: RabbitMQ's word and Artemis', ActiveMQ's,
/// and that of clients of Artemis' own protocol.
const NO_LOCAL: [&str; 3] = ["no-local", "activemq.noLocal", "noLocal"];
/// Header that names a subscription without saying that it is durable.
const NAME: &str = "subscription-name";
/// Header that asks for what a topic keeps, of ActiveMQ: a new subscription gets it anyway.
const RETROACTIVE: &str = "activemq.retroactive";

/// What a SUBSCRIBE asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: Option<Name>,
    pub(super) is_no_local: bool,
    pub(super) is_retroactive: bool,
    pub(super) selector: Option<Selector>,
}

/// The name of a subscription as the client gives it.
#[derive(Debug)]
pub(super) struct Name {
    text: String,
    pub(super) is_durable: bool,
    pub(super) is_shared: bool,
}

impl Wanted {
    pub(super) fn read(subscribe: &Subscribe<'_>, routing: Routing) -> Result<Self, Unusable> {
        let headers = &subscribe.headers;
        let name = Name::read(headers)?;
        if name.is_some() && routing == Routing::Anycast {
            let details = "Only topics have subscriptions with names: a queue keeps its messages.";
            return Err(Unusable::new(
                "subscription with a name to a queue",
                details,
            ));
        }
        let mut is_no_local = false;
        for key in NO_LOCAL {
            is_no_local |= flag(headers, key)?.unwrap_or(false);
        }
        let is_shared = name.as_ref().is_some_and(|name| name.is_shared);
        if is_no_local && (is_shared || routing == Routing::Anycast) {
            let details = "Only a topic's subscription that is not shared can leave out what its \
                own client sends.";
            return Err(Unusable::new("no-local not offered", details));
        }
        let selector = selector(subscribe.selector)?;
        Ok(Self {
            name,
            is_no_local,
            is_retroactive: flag(headers, RETROACTIVE)?.unwrap_or(true),
            selector,
        })
    }
}

impl Name {
    /// Reads the headers that give a subscription a name, if there are any.
    pub(super) fn read(headers: &Headers<'_>) -> Result<Option<Self>, Unusable> {
        let is_shared = flag(headers, "shared")?.unwrap_or(false);
        let is_durable = flag(headers, "durable")?;
        let (durable, own) = (headers.durable_name(), headers.first(NAME));
        let Some(name) = durable.or(own) else {
            if is_shared || is_durable == Some(true) {
                let details = "A subscription that is shared or durable has a name, and no header \
                    gives one.";
                return Err(Unusable::new("subscription without a name", details));
            }
            return Ok(None);
        };
        let unusable = |details| Err(Unusable::new("subscription's name unclear", details));
        if own.is_some_and(|own| own.raw() != name.raw()) {
            return unusable("Two headers give the subscription different names.");
        }
        if durable.is_some() && is_durable == Some(false) {
            return unusable(
                "One header names a durable subscription, another says durable:false.",
            );
        }
        let is_durable = durable.is_some();
        if !is_durable && !is_shared {
            return unusable("subscription-name goes with durable:true, shared:true or both.");
        }
        let text = name.decode().into_owned();
        if text.is_empty() {
            let details = "The name of the subscription is empty.";
            return Err(Unusable::new("subscription without a name", details));
        }
        Ok(Some(Self {
            text,
            is_durable,
            is_shared,
        }))
    }
}

/// A header that says yes or no.
fn flag(headers: &Headers<'_>, key: &str) -> Result<Option<bool>, Unusable> {
    match headers.first(key).map(|value| value.raw()) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => {
            let details = format!("{key}: {other:?} is neither true nor false.");
            Err(Unusable::new("header malformed", details))
        }
    }
}

fn selector(given: Option<Value<'_>>) -> Result<Option<Selector>, Unusable> {
    let Some(given) = given else { return Ok(None) };
    let parsed = Selector::parse_optional(&given.decode())
        .map_err(|error| Unusable::new("selector malformed", error.to_string()))?;
    if let Some(name) = parsed.as_ref().and_then(not_offered) {
        let details = format!(
            "No selector can ask for {name}: it has no value, or another one \
            for each delivery."
        );
        return Err(Unusable::new("selector not offered", details));
    }
    Ok(parsed)
}

/// A client id as the names of its subscriptions begin.
pub(super) fn escape_client(id: &str) -> Box<[u8]> {
    let mut escaped = Vec::with_capacity(id.len());
    for byte in id.bytes() {
        if matches!(byte, b'.' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped.into()
}

impl Session {
    /// Writes the name of a subscription in the node into the scratch.
    ///
    /// A shared subscription may belong to no client (JMS 2.0, 8.3.2 and 8.3.4).
    pub(super) fn write_name(&mut self, name: &Name) -> Result<(), Unusable> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None if name.is_shared => GLOBAL.into(),
            None => {
                let details = "A durable subscription that is not shared belongs to the client \
                    that the header client-id of CONNECT names, and there was none.";
                return Err(Unusable::new("client-id missing", details));
            }
        };
        let node_name = &mut self.scratch().name;
        node_name.clear();
        if !name.is_durable {
            node_name.extend_from_slice(VOLATILE);
        }
        node_name.extend_from_slice(&client);
        node_name.push(b'.');
        node_name.extend_from_slice(name.text.as_bytes());
        let size = node_name.len();
        if size > NAME_SIZE_MAX {
            let details =
                format!("client-id and name make {size} bytes; {NAME_SIZE_MAX} are the most.");
            return Err(Unusable::new("subscription's name too long", details));
        }
        Ok(())
    }

    /// Writes the selector into the scratch; returns its bytes, which count for the connection.
    pub(super) fn keep_selector(&mut self, wanted: &Wanted) -> Result<u32, Unusable> {
        let text = wanted.selector.as_ref().map_or("", Selector::text);
        let max = CONNECTION_SELECTORS_SIZE_MAX_BYTES;
        if self.selector_bytes as usize + text.len() > max as usize {
            let details = format!("The selectors of a connection have {max} bytes at most.");
            return Err(Unusable::new("too long selectors", details));
        }
        let kept = &mut self.scratch().selector;
        kept.clear();
        kept.extend_from_slice(text.as_bytes());
        Ok(text.len() as u32)
    }
}
