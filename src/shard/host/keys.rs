//! What names a message beside its place: the id by which it is recognized if it is sent again, and
//! the key of which it is the last.

use std::borrow::Cow;

use super::Host;
use super::produce::Incoming;
use crate::frontend::header_of;
use crate::queue::DestinationId;

impl Host {
    /// The id by which the message is recognized if it comes again, where the address remembers
    /// any. `self.routed` says where it goes.
    pub(super) fn duplicate_id<'a>(
        &self,
        destination: DestinationId,
        incoming: &Incoming<'a>,
    ) -> Option<Cow<'a, [u8]>> {
        let id = incoming.extras.duplicate_id?;
        let policy = self.machine.policy_of(destination)?;
        if !incoming.is_forwarded && policy.duplicate_ids_max == 0 {
            return None;
        }
        if !self.routed.has_matching() {
            return Some(id.into());
        }
        // It may have to be remembered with a pattern, where other addresses have ids as well.
        let address = incoming.address;
        let size = (address.len() as u16).to_le_bytes();
        Some([&size, address, id].concat().into())
    }

    /// Whether the message was there before; `id` is its [`Self::duplicate_id`].
    pub(super) fn is_known(
        &self,
        destination: DestinationId,
        incoming: &Incoming<'_>,
        id: &[u8],
    ) -> bool {
        let plain = incoming.extras.duplicate_id.unwrap_or_default();
        let machine = &self.machine;
        machine.is_duplicate(destination, plain)
            || (self.routed.has_matching() && machine.is_duplicate_of_matching(destination, id))
    }

    /// The key of which the message is the last, if its address keeps the last of each key alone.
    /// One without the header has none and stays.
    pub(super) fn last_value<'a>(
        &self,
        destination: DestinationId,
        incoming: &Incoming<'a>,
    ) -> Option<Cow<'a, str>> {
        let policy = self.machine.policy_of(destination)?;
        let header = policy.last_value_key.as_deref()?;
        header_of(incoming.fields.encoding, incoming.head, header)
    }

    /// Whether the ids of an address survive a restart. Those of messages that the broker sends on
    /// always do: by them none of these is twice where it goes.
    pub(super) fn keeps_ids(&self, destination: DestinationId, incoming: &Incoming<'_>) -> bool {
        let policy = self.machine.policy_of(destination);
        incoming.is_forwarded || policy.is_none_or(|policy| policy.is_duplicate_ids_persistent)
    }
}
