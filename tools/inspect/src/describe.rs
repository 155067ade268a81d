//! One record as a line for people and as an object for programs.

mod checkpoint;

use std::collections::BTreeMap;

use forebay_journal::QueueId;
use forebay_journal::format::{
    Annotations, Departure, IdList, Kind, MessageFields, Outcome, Parts, QueueFlags, Record,
    Routing, Standing, Standings, Stands, TransactionState,
};
use serde_json::{Map, Value, json};

use crate::text::{PREVIEW_SIZE, base64, escaped, name, quoted, time};

/// Names of queues as far as known.
pub(crate) type QueueNames = BTreeMap<u64, Vec<u8>>;

/// Ids shown of a list before it is cut, unless all are asked for.
const IDS_SHOWN: usize = 8;

/// How records are shown.
pub(crate) struct Describer {
    pub(crate) names: QueueNames,
    /// Whole heads, bodies and lists.
    pub(crate) is_whole: bool,
}

pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::EpochStart => "epoch_start",
        Kind::Retained => "retained",
        Kind::CleanShutdown => "clean_shutdown",
        Kind::QueueDefine => "queue_define",
        Kind::QueueDelete => "queue_delete",
        Kind::Message => "message",
        Kind::Fragment => "fragment",
        Kind::UploadAbandoned => "upload_abandoned",
        Kind::Delivery => "delivery",
        Kind::Settle => "settle",
        Kind::Release => "release",
        Kind::Transaction => "transaction",
        Kind::Handout => "handout",
        Kind::Depart => "depart",
        Kind::Share => "share",
        Kind::DuplicateId => "duplicate_id",
        Kind::Moved => "moved",
        Kind::Checkpoint => "checkpoint",
        Kind::CheckpointMessage => "checkpoint_message",
    }
}

pub(crate) fn routing_name(routing: Routing) -> &'static str {
    match routing {
        Routing::Anycast => "anycast",
        Routing::Multicast => "multicast",
    }
}

pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Rejected => "rejected",
        Outcome::Expired => "expired",
        Outcome::DeadLettered => "dead_lettered",
        Outcome::Dropped => "dropped",
        Outcome::Replaced => "replaced",
        Outcome::Diverted => "diverted",
    }
}

pub(crate) fn state_name(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Prepared => "prepared",
        TransactionState::Committed => "committed",
        TransactionState::RolledBack => "rolled_back",
        TransactionState::Decided => "decided",
        TransactionState::Ended => "ended",
    }
}

fn bytes_of(parts: &Parts<'_>) -> Vec<u8> {
    parts.pieces().flatten().copied().collect()
}

impl Describer {
    /// Learns names from a definition.
    pub(crate) fn learn(&mut self, record: &Record<'_>) {
        if let Record::QueueDefine { queue, name, .. } = record {
            self.names.insert(queue.0, name.to_vec());
        }
    }

    pub(crate) fn queue(&self, queue: QueueId) -> String {
        match self.names.get(&queue.0) {
            Some(known) => format!("{} ({})", queue.0, name(known)),
            None => queue.0.to_string(),
        }
    }

    /// The record without its kind, for people.
    pub(crate) fn text(&self, record: &Record<'_>) -> String {
        self.standing_text(record)
            .or_else(|| self.traffic_text(record))
            .or_else(|| self.checkpoint_text(record))
            .unwrap_or_default()
    }

    /// Of a record about the journal itself or a queue's being.
    fn standing_text(&self, record: &Record<'_>) -> Option<String> {
        Some(match *record {
            Record::EpochStart {
                epoch,
                sealed_epoch,
                sealed_lsn,
                sealed_block,
                oldest_segment,
                message_floor,
                queue_floor,
                ..
            } => format!(
                "epoch {epoch}, seals epoch {sealed_epoch} at LSN {sealed_lsn} block {sealed_block}; \
                 oldest segment {oldest_segment}, floors {} and {}",
                message_floor.0, queue_floor.0
            ),
            Record::Retained {
                oldest_segment,
                message_floor,
                queue_floor,
            } => format!(
                "oldest segment {oldest_segment}, floors {} and {}",
                message_floor.0, queue_floor.0
            ),
            Record::CleanShutdown { unix_ms } => time(unix_ms),
            Record::QueueDefine {
                queue,
                routing,
                flags,
                address,
                name: queue_name,
                filter,
            } => format!(
                "queue {} named {} at address {}, {}{}{}",
                queue.0,
                name(queue_name),
                name(address),
                routing_name(routing),
                flag_names(flags),
                filter_text(filter)
            ),
            Record::QueueDelete { queue } => format!("queue {}", self.queue(queue)),
            _ => return None,
        })
    }

    /// Of a record about messages.
    fn traffic_text(&self, record: &Record<'_>) -> Option<String> {
        Some(match *record {
            Record::Message {
                fields,
                annotations,
                queues,
                head,
                body,
            } => self.message(&fields, &annotations, queues, [&head, &body]),
            Record::Moved {
                fields,
                annotations,
                queues,
                standings,
                head,
                body,
            } => {
                let standings: Vec<_> = standings.iter().map(standing_text).collect();
                let message = self.message(&fields, &annotations, queues, [&head, &body]);
                format!("{}: {message}", standings.join(", "))
            }
            Record::Fragment {
                upload,
                offset,
                body,
            } => format!(
                "upload {upload} from byte {offset}, {} B {}",
                body.size(),
                quoted(&bytes_of(&body), self.is_whole)
            ),
            Record::UploadAbandoned { upload } => format!("upload {upload}"),
            Record::Delivery {
                queue,
                priority,
                first,
                last,
            } => format!(
                "queue {}, messages {} to {} of priority {priority}",
                self.queue(queue),
                first.0,
                last.0
            ),
            Record::Settle {
                queue,
                transaction,
                outcome,
                messages,
            } => format!(
                "queue {}, {} {}{}",
                self.queue(queue),
                outcome_name(outcome),
                self.ids("message", messages),
                of_transaction(transaction)
            ),
            Record::Transaction { transaction, state } => {
                format!("transaction {transaction} {}", state_name(state))
            }
            _ => return self.list_text(record),
        })
    }

    /// Of a record that names messages of a queue.
    fn list_text(&self, record: &Record<'_>) -> Option<String> {
        Some(match *record {
            Record::Release {
                queue,
                transaction,
                ready_unix_ms,
                messages,
            } => format!(
                "queue {}, {}{}{}",
                self.queue(queue),
                self.ids("message", messages),
                from_time(ready_unix_ms),
                of_transaction(transaction)
            ),
            Record::Share { queue, pairs } => {
                let shared = pairs.pairs().map(|(source, message)| {
                    format!("message {} of queue {}", message.0, self.queue(source))
                });
                let shared: Vec<_> = shared.collect();
                format!("queue {}, {}", self.queue(queue), shared.join(", "))
            }
            Record::Handout { queue, messages } => {
                format!(
                    "queue {}, {}",
                    self.queue(queue),
                    self.ids("message", messages)
                )
            }
            Record::Depart {
                queue,
                transaction,
                reason,
                messages,
            } => format!(
                "queue {}, {} {}{}",
                self.queue(queue),
                departure_name(reason),
                self.ids("message", messages),
                of_transaction(transaction)
            ),
            Record::DuplicateId {
                message,
                routing,
                address,
                id,
            } => format!(
                "message {} at {} address {}, id {}",
                message.0,
                routing_name(routing),
                name(address),
                quoted(id, self.is_whole)
            ),
            _ => return None,
        })
    }

    fn message(
        &self,
        fields: &MessageFields,
        annotations: &Annotations<'_>,
        queues: IdList<'_>,
        [head, body]: [&Parts<'_>; 2],
    ) -> String {
        let queues: Vec<_> = queues.queues().map(|queue| self.queue(queue)).collect();
        let mut text = format!(
            "message {} to queue {}",
            fields.message.0,
            queues.join(", ")
        );
        text += &format!(", {} B", fields.body_size);
        if fields.upload != 0 {
            text += &format!(
                " ({} here, the rest in upload {})",
                body.size(),
                fields.upload
            );
        }
        if fields.priority != 4 {
            text += &format!(", priority {}", fields.priority);
        }
        if !fields.flags.is_durable {
            text += ", not durable";
        }
        if fields.expires_unix_ms != 0 {
            text += &format!(", expires {}", time(fields.expires_unix_ms));
        }
        text += &of_transaction(fields.transaction);
        text += &self.annotations(annotations);
        if head.size() > 0 {
            text += &format!(" head {}", quoted(&bytes_of(head), self.is_whole));
        }
        text + &format!(" body {}", quoted(&bytes_of(body), self.is_whole))
    }

    pub(crate) fn annotations(&self, annotations: &Annotations<'_>) -> String {
        let mut text = from_time(annotations.deliver_unix_ms);
        if annotations.group != 0 {
            text += &format!(", group {:016x}", annotations.group);
        }
        if annotations.is_group_end {
            text += ", ends its group";
        }
        if !annotations.last_value.is_empty() {
            text += &format!(
                ", last-value key {}",
                quoted(annotations.last_value, self.is_whole)
            );
        }
        if !annotations.duplicate_id.is_empty() {
            text += &format!(
                ", duplicate id {}",
                quoted(annotations.duplicate_id, self.is_whole)
            );
        }
        if !annotations.address.is_empty() {
            text += &format!(", sent to {}", quoted(annotations.address, self.is_whole));
        }
        text
    }

    fn ids(&self, noun: &str, ids: IdList<'_>) -> String {
        let shown = if self.is_whole { ids.len() } else { IDS_SHOWN };
        let listed: Vec<_> = ids
            .messages()
            .take(shown)
            .map(|id| id.0.to_string())
            .collect();
        let rest = ids.len() - listed.len();
        let more = if rest > 0 {
            format!(" and {rest} more")
        } else {
            String::new()
        };
        let plural = if ids.len() == 1 { "" } else { "s" };
        format!("{noun}{plural} {}{more}", listed.join(", "))
    }

    /// The record's fields by the names of `docs/format.md`.
    pub(crate) fn json(&self, record: &Record<'_>, object: &mut Map<String, Value>) {
        let fields = standing_json(record)
            .or_else(|| self.traffic_json(record))
            .or_else(|| checkpoint::checkpoint_json(record));
        if let Some(Value::Object(fields)) = fields {
            object.extend(fields);
        }
    }

    /// Of a record about messages.
    fn traffic_json(&self, record: &Record<'_>) -> Option<Value> {
        Some(match *record {
            Record::Message {
                fields,
                annotations,
                queues,
                head,
                body,
            } => self.message_json(&fields, &annotations, queues, [&head, &body]),
            Record::Moved {
                fields,
                annotations,
                queues,
                standings,
                head,
                body,
            } => {
                let mut object = self.message_json(&fields, &annotations, queues, [&head, &body]);
                object["standings"] = standings_json(standings);
                object
            }
            Record::Fragment {
                upload,
                offset,
                body,
            } => {
                let mut fields = json!({ "upload": upload, "body_offset": offset });
                self.put_bytes("body", &bytes_of(&body), &mut fields);
                fields
            }
            Record::UploadAbandoned { upload } => json!({ "upload": upload }),
            Record::Delivery {
                queue,
                priority,
                first,
                last,
            } => json!({
                "queue": queue.0,
                "priority": priority,
                "first": first.0,
                "last": last.0,
            }),
            Record::Settle {
                queue,
                transaction,
                outcome,
                messages,
            } => json!({
                "queue": queue.0,
                "transaction": transaction,
                "outcome": outcome_name(outcome),
                "messages": list(messages),
            }),
            Record::Transaction { transaction, state } => {
                json!({ "transaction": transaction, "state": state_name(state) })
            }
            _ => return list_json(record),
        })
    }

    fn message_json(
        &self,
        fields: &MessageFields,
        annotations: &Annotations<'_>,
        queues: IdList<'_>,
        [head, body]: [&Parts<'_>; 2],
    ) -> Value {
        let mut object = json!({
            "message": fields.message.0,
            "queues": list(queues),
            "transaction": fields.transaction,
            "upload": fields.upload,
            "body_size": fields.body_size,
            "timestamp_unix_ms": fields.timestamp_unix_ms,
            "expires_unix_ms": fields.expires_unix_ms,
            "priority": fields.priority,
            "encoding": fields.encoding,
            "has_content_length": fields.flags.has_content_length,
            "is_durable": fields.flags.is_durable,
            "has_own_expiry": fields.flags.has_own_expiry,
        });
        if !annotations.is_empty() {
            object["deliver_unix_ms"] = annotations.deliver_unix_ms.into();
            object["group"] = annotations.group.into();
            object["is_group_end"] = annotations.is_group_end.into();
            object["last_value"] = text_or_base64(annotations.last_value);
            object["duplicate_id"] = text_or_base64(annotations.duplicate_id);
        }
        self.put_bytes("head", &bytes_of(head), &mut object);
        self.put_bytes("body", &bytes_of(body), &mut object);
        object
    }

    /// Adds bytes: all of them as base64, or their beginning escaped; always their number.
    fn put_bytes(&self, field: &str, bytes: &[u8], object: &mut Value) {
        object[format!("{field}_here_size")] = bytes.len().into();
        if self.is_whole {
            object[format!("{field}_base64")] = base64(bytes).into();
        } else {
            let shown = &bytes[..bytes.len().min(PREVIEW_SIZE)];
            object[format!("{field}_preview")] = escaped(shown).into();
        }
    }
}

/// Of a record about the journal itself or a queue's being.
fn standing_json(record: &Record<'_>) -> Option<Value> {
    Some(match *record {
        Record::EpochStart {
            epoch,
            sealed_epoch,
            sealed_lsn,
            sealed_block,
            sealed_checksum,
            oldest_segment,
            message_floor,
            queue_floor,
        } => json!({
            "starts_epoch": epoch.get(),
            "sealed_epoch": sealed_epoch.get(),
            "sealed_lsn": sealed_lsn.get(),
            "sealed_block": sealed_block.get(),
            "sealed_checksum": sealed_checksum.to_string(),
            "oldest_segment": oldest_segment.get(),
            "message_floor": message_floor.0,
            "queue_floor": queue_floor.0,
        }),
        Record::Retained {
            oldest_segment,
            message_floor,
            queue_floor,
        } => json!({
            "oldest_segment": oldest_segment.get(),
            "message_floor": message_floor.0,
            "queue_floor": queue_floor.0,
        }),
        Record::CleanShutdown { unix_ms } => json!({ "unix_ms": unix_ms }),
        Record::QueueDefine {
            queue,
            routing,
            flags,
            address,
            name,
            filter,
        } => json!({
            "queue": queue.0,
            "queue_name": text_or_base64(name),
            "address": text_or_base64(address),
            "routing": routing_name(routing),
            "is_auto_created": flags.is_auto_created,
            "is_subscription": flags.is_subscription,
            "is_shared": flags.is_shared,
            "is_no_local": flags.is_no_local,
            "is_divert": flags.is_divert,
            "is_retroactive": flags.is_retroactive,
            "is_paused": flags.is_paused,
            "filter": text_or_base64(filter),
        }),
        Record::QueueDelete { queue } => json!({ "queue": queue.0 }),
        _ => return None,
    })
}

/// Of a record that names messages of a queue.
fn list_json(record: &Record<'_>) -> Option<Value> {
    Some(match *record {
        Record::Release {
            queue,
            transaction,
            ready_unix_ms,
            messages,
        } => json!({
            "queue": queue.0,
            "transaction": transaction,
            "ready_unix_ms": ready_unix_ms,
            "messages": list(messages),
        }),
        Record::Share { queue, pairs } => {
            let shared = pairs.pairs();
            let shared =
                shared.map(|(source, message)| json!({ "source": source.0, "message": message.0 }));
            json!({ "queue": queue.0, "shared": shared.collect::<Vec<_>>() })
        }
        Record::Handout { queue, messages } => {
            json!({ "queue": queue.0, "messages": list(messages) })
        }
        Record::Depart {
            queue,
            transaction,
            reason,
            messages,
        } => json!({
            "queue": queue.0,
            "transaction": transaction,
            "reason": departure_name(reason),
            "messages": list(messages),
        }),
        Record::DuplicateId {
            message,
            routing,
            address,
            id,
        } => json!({
            "message": message.0,
            "routing": routing_name(routing),
            "address": text_or_base64(address),
            "id": text_or_base64(id),
        }),
        _ => return None,
    })
}

/// Where a moved message stands, in words.
fn standing_text(standing: Standing) -> String {
    let mut text = match standing.stands {
        Stands::Ready => "ready".to_owned(),
        Stands::Delivered => "delivered".to_owned(),
        Stands::Delayed { ready_unix_ms } => format!("waiting{}", from_time(ready_unix_ms)),
        Stands::Leaving(reason) => format!("leaving, {}", departure_name(reason)),
    };
    if standing.attempts > 0 {
        text += &format!(", delivered {} times", standing.attempts);
    }
    if standing.is_replaced {
        text += ", replaced";
    }
    text
}

fn standings_json(standings: Standings<'_>) -> Value {
    let standings = standings.iter().map(|standing| {
        let (state, ready_unix_ms, reason) = match standing.stands {
            Stands::Ready => ("ready", 0, None),
            Stands::Delivered => ("delivered", 0, None),
            Stands::Delayed { ready_unix_ms } => ("waiting", ready_unix_ms, None),
            Stands::Leaving(reason) => ("leaving", 0, Some(departure_name(reason))),
        };
        json!({
            "state": state,
            "ready_unix_ms": ready_unix_ms,
            "reason": reason,
            "attempts": standing.attempts,
            "is_replaced": standing.is_replaced,
        })
    });
    standings.collect()
}

fn flag_names(flags: QueueFlags) -> String {
    [
        (flags.is_auto_created, ", made itself"),
        (flags.is_subscription, ", durable subscription"),
        (flags.is_shared, ", shared"),
        (flags.is_no_local, ", not what its client sends"),
        (flags.is_divert, ", divert"),
        (flags.is_retroactive, ", retroactive"),
        (flags.is_paused, ", paused"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect()
}

fn filter_text(filter: &[u8]) -> String {
    if filter.is_empty() {
        return String::new();
    }
    format!(", selector {}", quoted(filter, true))
}

fn from_time(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return String::new();
    }
    format!(", from {}", time(unix_ms))
}

pub(crate) fn departure_name(reason: Departure) -> &'static str {
    match reason {
        Departure::AttemptsExceeded => "attempts_exceeded",
        Departure::Rejected => "rejected",
        Departure::Expired => "expired",
        Departure::Diverted => "diverted",
    }
}

fn of_transaction(transaction: u64) -> String {
    if transaction == 0 {
        String::new()
    } else {
        format!(", in transaction {transaction}")
    }
}

fn list(ids: IdList<'_>) -> Vec<u64> {
    ids.messages().map(|id| id.0).collect()
}

/// A name as text if it is text, which all names that came by a protocol are.
pub(crate) fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": base64(bytes) }),
    }
}
