//! Records of a checkpoint: what is alive from before where a replay begins.

use forebay_journal::format::{
    CheckpointEntry, CheckpointFields, CheckpointFragment, Record, Stands,
};
use forebay_journal::{Location, QueueId};
use serde_json::{Value, json};

use super::{Describer, IDS_SHOWN, departure_name, text_or_base64};
use crate::text::{quoted, time};

fn state_text(state: Stands) -> String {
    match state {
        Stands::Ready => "ready".to_owned(),
        Stands::Delivered => "delivered".to_owned(),
        Stands::Delayed { ready_unix_ms } => format!("from {}", time(ready_unix_ms)),
        Stands::Leaving(reason) => format!("leaving ({})", departure_name(reason)),
    }
}

fn place_text(location: Location) -> String {
    let (segment, block) = (location.segment(), location.block_offset());
    format!("{segment}:{block}+{}", location.record_offset())
}

impl Describer {
    /// Of a record of a checkpoint.
    pub(super) fn checkpoint_text(&self, record: &Record<'_>) -> Option<String> {
        match *record {
            Record::Checkpoint { queue, entries, .. } => {
                let shown = if self.is_whole { usize::MAX } else { IDS_SHOWN };
                let listed = entries.iter().take(shown);
                let listed: Vec<_> = listed.map(|one| one.message().0.to_string()).collect();
                let plural = if entries.len() == 1 { "" } else { "s" };
                let mut text = format!(
                    "queue {}, ready message{plural} {}",
                    self.queue(queue),
                    listed.join(", ")
                );
                let rest = entries.len() - listed.len();
                if rest > 0 {
                    text += &format!(" and {rest} more");
                }
                Some(text)
            }
            Record::CheckpointMessage {
                queue,
                entry,
                fields,
                fragments,
                last_value,
            } => {
                let begin = format!("queue {}, message {}", self.queue(queue), entry.message().0);
                let rest = self.known_text(&entry, &fields, fragments, last_value);
                Some(begin + &rest)
            }
            _ => None,
        }
    }

    /// What a list of a checkpoint says of one message.
    pub(crate) fn entry_text(&self, queue: QueueId, entry: &CheckpointEntry) -> String {
        format!(
            "queue {}, ready, record at {}, delivered {} times",
            self.queue(queue),
            place_text(entry.location()),
            entry.attempts()
        )
    }

    fn known_text(
        &self,
        entry: &CheckpointEntry,
        fields: &CheckpointFields,
        fragments: &[CheckpointFragment],
        last_value: &[u8],
    ) -> String {
        let mut text = format!(" {}", state_text(fields.state));
        text += &format!(", record at {}", place_text(entry.location()));
        if entry.attempts() > 0 {
            text += &format!(", delivered {} times", entry.attempts());
        }
        if entry.priority() != 4 {
            text += &format!(", priority {}", entry.priority());
        }
        if fields.fragments_total > 0 {
            let (before, total) = (fields.fragments_before, fields.fragments_total);
            let upto = u64::from(before) + fragments.len() as u64;
            text += &format!(", fragments {} to {upto} of {total}", u64::from(before) + 1);
        } else if fields.is_shared {
            text += ", in several queues";
        }
        if fields.expires_unix_ms != 0 {
            text += &format!(", expires {}", time(fields.expires_unix_ms));
        }
        if fields.group != 0 {
            text += &format!(", group {:016x}", fields.group);
        }
        if fields.is_group_end {
            text += ", ends its group";
        }
        if !last_value.is_empty() {
            text += &format!(", last-value key {}", quoted(last_value, self.is_whole));
        }
        if fields.is_replaced {
            text += ", replaced by a later one";
        }
        text
    }
}

fn place_json(location: Location) -> Value {
    json!({
        "segment": location.segment().get(),
        "offset": location.block_offset(),
        "record_offset": location.record_offset(),
    })
}

fn entry_json(entry: &CheckpointEntry) -> Value {
    json!({
        "message": entry.message().0,
        "place": place_json(entry.location()),
        "size": entry.size_bytes(),
        "attempts": entry.attempts(),
        "priority": entry.priority(),
    })
}

/// Of a record of a checkpoint.
pub(super) fn checkpoint_json(record: &Record<'_>) -> Option<Value> {
    match *record {
        Record::Checkpoint {
            queue,
            latest_unix_ms,
            entries,
        } => Some(json!({
            "queue": queue.0,
            "latest_unix_ms": latest_unix_ms,
            "entries": entries.iter().map(entry_json).collect::<Vec<_>>(),
        })),
        Record::CheckpointMessage {
            queue,
            entry,
            fields,
            fragments,
            last_value,
        } => {
            let mut object = entry_json(&entry);
            object["queue"] = queue.0.into();
            put_fields(&fields, &mut object);
            let fragments = fragments.iter();
            let fragments = fragments.map(
                |part| json!({ "place": place_json(part.location()), "size": part.size_bytes() }),
            );
            object["fragments"] = fragments.collect::<Vec<_>>().into();
            object["last_value"] = text_or_base64(last_value);
            Some(object)
        }
        _ => None,
    }
}

fn put_fields(fields: &CheckpointFields, object: &mut Value) {
    let (state, ready_unix_ms, reason) = match fields.state {
        Stands::Ready => ("ready", 0, None),
        Stands::Delivered => ("delivered", 0, None),
        Stands::Delayed { ready_unix_ms } => ("delayed", ready_unix_ms, None),
        Stands::Leaving(reason) => ("leaving", 0, Some(departure_name(reason))),
    };
    object["state"] = state.into();
    object["ready_unix_ms"] = ready_unix_ms.into();
    object["reason"] = reason.into();
    object["expires_unix_ms"] = fields.expires_unix_ms.into();
    object["group"] = fields.group.into();
    object["is_group_end"] = fields.is_group_end.into();
    object["is_shared"] = fields.is_shared.into();
    object["is_replaced"] = fields.is_replaced.into();
    object["own_size"] = fields.own_size_bytes.into();
    object["fragments_before"] = fields.fragments_before.into();
    object["fragments_total"] = fields.fragments_total.into();
}
