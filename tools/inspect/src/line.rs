//! The lines of an export: JSON, one object a line, nothing lost.
//!
//! First the head, then for each shard its names and its queues, then parts of bodies and
//! messages in the order of the log, and at last the end, which says how many there were: an
//! export that broke off is known as such. Bytes are text where they are UTF-8, or else base64.

use std::fmt;

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version of what is described here.
pub(crate) const EXPORT_VERSION: u64 = 1;
/// Longest line that is read: a record of the journal, each byte of it escaped.
pub(crate) const LINE_SIZE_MAX: u64 = 4 << 20;

/// Bytes: text, or an object with base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

#[derive(Serialize)]
struct Encoded {
    base64: String,
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded {
                base64: BASE64.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or an object with the one field base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bytes, A::Error> {
                let entry: Option<(String, String)> = map.next_entry()?;
                let Some((field, text)) = entry.filter(|(field, _)| field == "base64") else {
                    return Err(de::Error::custom("base64 is missing"));
                };
                if let Some((other, _)) = map.next_entry::<String, de::IgnoredAny>()? {
                    return Err(de::Error::unknown_field(&other, &["base64"]));
                }
                let bytes = BASE64.decode(text.as_bytes());
                bytes
                    .map(Bytes)
                    .map_err(|error| de::Error::custom(format!("{field}: {error}")))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Where the source ended: for people, and for telling two exports apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) shard: u16,
    pub(crate) epoch: u64,
    pub(crate) lsn: u64,
    pub(crate) block: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadLine {
    pub(crate) export_version: u64,
    pub(crate) shard_count: u16,
    /// Identity of the journal it was taken from.
    pub(crate) journal: String,
    pub(crate) sources: Vec<Source>,
}

/// Names up to which a shard gave names out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShardLine {
    pub(crate) shard: u16,
    pub(crate) message_floor: u64,
    pub(crate) queue_floor: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueLine {
    pub(crate) shard: u16,
    pub(crate) queue: u64,
    pub(crate) name: Bytes,
    pub(crate) address: Bytes,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) filter: Bytes,
    /// `anycast` or `multicast`.
    pub(crate) routing: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_auto_created: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_subscription: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_shared: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_no_local: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_paused: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_divert: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_retroactive: bool,
}

/// A part of the body of a message that comes later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartLine {
    pub(crate) shard: u16,
    pub(crate) upload: u64,
    pub(crate) offset: u64,
    pub(crate) body: Bytes,
}

/// A queue that a message is in, and how it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) queue: u64,
    #[serde(default, skip_serializing_if = "is_zero_u16")]
    pub(crate) attempts: u16,
    /// Not delivered before; zero: ready although `deliver_unix_ms` of the message says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ready_unix_ms: Option<u64>,
    /// Why it is on its way to another address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leaving: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageLine {
    pub(crate) shard: u16,
    pub(crate) message: u64,
    pub(crate) queues: Vec<Place>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) upload: u64,
    pub(crate) body_size: u64,
    pub(crate) timestamp_unix_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) expires_unix_ms: u64,
    pub(crate) priority: u8,
    pub(crate) encoding: u8,
    pub(crate) has_content_length: bool,
    pub(crate) is_durable: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) has_own_expiry: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) deliver_unix_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) group: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_group_end: bool,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) last_value: Bytes,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) duplicate_id: Bytes,
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub(crate) address: Bytes,
    pub(crate) head: Bytes,
    /// All of it, or what follows its parts.
    pub(crate) body: Bytes,
}

/// An id that an address has seen; its message is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DuplicateIdLine {
    pub(crate) shard: u16,
    pub(crate) message: u64,
    pub(crate) routing: String,
    pub(crate) address: Bytes,
    pub(crate) id: Bytes,
}

/// How many lines there were of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Totals {
    pub(crate) shards: u64,
    pub(crate) queues: u64,
    pub(crate) parts: u64,
    pub(crate) messages: u64,
    pub(crate) duplicate_ids: u64,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Line {
    Head(HeadLine),
    Shard(ShardLine),
    Queue(QueueLine),
    Part(PartLine),
    Message(MessageLine),
    DuplicateId(DuplicateIdLine),
    End(Totals),
}

impl Totals {
    pub(crate) fn note(&mut self, line: &Line) {
        match line {
            Line::Head(_) | Line::End(_) => {}
            Line::Shard(_) => self.shards += 1,
            Line::Queue(_) => self.queues += 1,
            Line::Part(_) => self.parts += 1,
            Line::Message(_) => self.messages += 1,
            Line::DuplicateId(_) => self.duplicate_ids += 1,
        }
    }
}

impl Line {
    /// Errors: no line of an export, in words.
    pub(crate) fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let line: Self = serde_json::from_slice(text).context("no line of an export")?;
        if let Self::Head(head) = &line
            && head.export_version != EXPORT_VERSION
        {
            bail!(
                "an export of version {}; this release reads {EXPORT_VERSION}",
                head.export_version
            );
        }
        Ok(line)
    }

    /// Without the line end.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }
}

/// Takes the lines of an export, wherever they go.
pub(crate) trait TakeLine {
    fn take(&mut self, line: &Line) -> anyhow::Result<()>;
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_zero_u16(value: &u16) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_kind_come_back() {
        for bytes in [
            &b""[..],
            b"text",
            b"\0\x01\"\\\n\r",
            b"\xff\xfe",
            "\u{e4}\u{1f600}".as_bytes(),
        ] {
            let line = Line::Part(PartLine {
                shard: 1,
                upload: u64::MAX,
                offset: 3,
                body: bytes.into(),
            });
            let text = line.text();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(Line::parse(text.as_bytes()).expect("a line"), line);
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let part = |rest: &str| {
            format!("{{\"what\":\"part\",\"shard\":0,\"upload\":1,\"offset\":0,{rest}}}")
        };
        assert!(Line::parse(part("\"body\":\"x\"").as_bytes()).is_ok());
        for wrong in [
            part("\"body\":7"),
            part("\"body\":{\"base64\":\"?\"}"),
            part("\"body\":{\"base64\":\"\",\"more\":1}"),
            part("\"body\":\"x\",\"more\":1"),
            part("\"no_body\":\"x\""),
            "{\"what\":\"nothing\"}".to_owned(),
            "[]".to_owned(),
        ] {
            assert!(Line::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
