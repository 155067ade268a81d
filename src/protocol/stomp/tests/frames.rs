//! Generated clients: frames with arbitrary keys, values and bodies, written for a version.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::protocol::stomp::Version;

/// A `SEND` as its author means it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) destination: String,
    pub(super) receipt: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) has_content_length: bool,
}

/// Any text a version can carry in a header.
pub(super) fn text(version: Version) -> BoxedStrategy<String> {
    let mixed = prop_oneof![
        4 => "[a-z0-9/.-]{0,12}",
        2 => "[a-zA-Z:\\\\ \r\n\u{e9}\u{20ac}\u{1f980}]{0,8}",
        1 => any::<String>(),
    ];
    mixed
        .prop_map(move |text| {
            let text = text.replace('\0', "");
            match version {
                Version::V1_0 => text.replace(['\n', '\r'], "").trim().to_owned(),
                Version::V1_1 | Version::V1_2 => text,
            }
        })
        .boxed()
}

/// A user header's name: not empty, none that the broker knows.
fn name(version: Version) -> BoxedStrategy<String> {
    text(version)
        .prop_map(move |text| {
            let text = if version == Version::V1_0 {
                text.replace(':', "")
            } else {
                text
            };
            format!("x{text}")
        })
        .prop_map(|name| name.trim_end().to_owned())
        .boxed()
}

/// Any `SEND` of a version.
pub(super) fn message(version: Version) -> impl Strategy<Value = Message> {
    let headers = vec((name(version), text(version)), 0..8);
    let body = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..400)];
    (
        text(version),
        proptest::option::of(text(version)),
        headers,
        body,
        any::<bool>(),
    )
        .prop_map(|(destination, receipt, headers, body, wants_length)| {
            let has_content_length = wants_length || body.contains(&0);
            Message {
                destination,
                receipt,
                headers,
                body,
                has_content_length,
            }
        })
}

pub(super) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![
        Just(Version::V1_0),
        Just(Version::V1_1),
        Just(Version::V1_2)
    ]
}

/// Escapes as the specification says, written here a second time and differently on purpose.
pub(super) fn escape(text: &str, version: Version) -> String {
    match version {
        Version::V1_0 => text.to_owned(),
        Version::V1_1 => text
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace(':', "\\c"),
        Version::V1_2 => escape(text, Version::V1_1).replace('\r', "\\r"),
    }
}

pub(super) fn connect(version: Version) -> Vec<u8> {
    format!("CONNECT\naccept-version:{}\nhost:h\n\n\0", version.as_str()).into_bytes()
}

impl Message {
    /// Writes the frame, hop-by-hop headers between the others.
    pub(super) fn write(&self, version: Version, eol: &str) -> Vec<u8> {
        let mut lines = vec![format!(
            "destination:{}",
            escape(&self.destination, version)
        )];
        for (key, value) in &self.headers {
            lines.push(format!(
                "{}:{}",
                escape(key, version),
                escape(value, version)
            ));
        }
        if let Some(receipt) = &self.receipt {
            let middle = lines.len() / 2;
            lines.insert(middle, format!("receipt:{}", escape(receipt, version)));
        }
        if self.has_content_length {
            lines.push(format!("content-length:{}", self.body.len()));
        }
        let mut frame = format!("SEND{eol}{}{eol}{eol}", lines.join(eol)).into_bytes();
        frame.extend_from_slice(&self.body);
        frame.push(0);
        frame
    }
}
