//! STOMP events to commands, replies to STOMP frames.
//!
//! Owns the names a client uses: its subscriptions and the tokens it acknowledges with. Knows no
//! policy. The bytes come plain or in WebSocket frames ([`Wire`]). What the messaging model does
//! not have yet is refused here, clearly (`features.md` 3.4).

mod acknowledge;
mod extras;
mod origin;
mod output;
mod properties;
mod series;
mod session;
mod several;
mod subscribe;
mod temporary;
mod transaction;
mod wanted;
mod websocket;
mod wire;

pub use origin::push_origin;
pub use properties::Properties;
pub use session::{Session, Settings};
pub use wire::Wire;

pub use crate::protocol::stomp::{HeartBeatOffer, Limits as EngineLimits};
pub use crate::protocol::websocket::Pages;

use std::borrow::Cow;

use forebay_journal::format::Routing;

use crate::protocol::stomp::destination::{Destination, DestinationKind};
use crate::protocol::stomp::{Headers, RoutingType};
use crate::queue::Policies;
use crate::routing::{Address, AddressError, Name, split_queue};

/// Encoding number of STOMP 1.2 header lines and a body (`docs/format.md` 6, message).
pub const ENCODING: u8 = 1;

/// The first value of a header in a stored head.
pub(super) fn header_of<'a>(head: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let headers = Headers::from_stored(head)?;
    Some(headers.first(name)?.decode())
}

/// Why a front end refuses what the engine let through: becomes an ERROR frame.
#[derive(Debug)]
struct Unusable {
    message: &'static str,
    details: String,
}

impl Unusable {
    fn new(message: &'static str, details: impl Into<String>) -> Self {
        Self {
            message,
            details: details.into(),
        }
    }

    /// A header that asks for something this release does not have.
    fn not_offered(header: &str) -> Self {
        Self::new(
            "not offered",
            format!("This release does not offer what the header {header} asks for."),
        )
    }
}

/// Where a destination leads.
#[derive(Clone, Copy, Debug)]
struct Resolved<'a> {
    routing: Routing,
    /// The end of the destination's text.
    address: &'a str,
    is_temporary: bool,
    /// Whether every shard has something of it.
    is_everywhere: bool,
}

/// Takes a destination apart, which is no list. Those of a connection alone are said as others name
/// them ([`temporary::as_seen_by_others`]).
fn resolve<'t>(
    text: &'t str,
    routing: Option<RoutingType>,
    policies: &Policies,
) -> Result<Resolved<'t>, Unusable> {
    let Destination { kind, name } = Destination::parse(text)
        .map_err(|empty| Unusable::new("destination without a name", empty.to_string()))?;
    let is_temporary = matches!(
        kind,
        DestinationKind::RemoteTempQueue | DestinationKind::RemoteTempTopic
    );
    // The word that tells queues from topics belongs to it, so that no other name meets it.
    let name = if is_temporary {
        &text[temporary::REMOTE.len()..]
    } else {
        name
    };
    let malformed = |error: AddressError| Unusable::new("destination malformed", error.to_string());
    let name = if is_temporary {
        Name::Address(Address::parse(name.as_bytes()).map_err(malformed)?)
    } else {
        Name::parse(name.as_bytes()).map_err(malformed)?
    };
    let by_name = match kind {
        DestinationKind::Topic | DestinationKind::RemoteTempTopic => Routing::Multicast,
        DestinationKind::Plain => {
            let whole = name.as_str().as_bytes();
            let address = split_queue(whole).map_or(whole, |(address, _)| address);
            policies.default_routing(address)
        }
        _ => Routing::Anycast,
    };
    let routing = match routing {
        Some(RoutingType::Anycast) => Routing::Anycast,
        Some(RoutingType::Multicast) => Routing::Multicast,
        None => by_name,
    };
    Ok(Resolved {
        routing: if is_temporary { by_name } else { routing },
        address: name.as_str(),
        is_temporary,
        is_everywhere: name.is_everywhere(),
    })
}
