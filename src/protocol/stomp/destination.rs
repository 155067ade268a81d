//! What the name in a `destination` header means.
//!
//! Two families are read: that of ActiveMQ (a prefix says queue or topic) and that of Artemis (a
//! plain address; the headers `destination-type` and `subscription-type` say how it routes).

/// A destination name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// What kind of thing is named.
    pub kind: DestinationKind,
    /// Its name without the prefix (all of it for [`DestinationKind::Plain`] and
    /// [`DestinationKind::Composite`]). Never empty.
    pub name: &'a str,
}

/// What kind of thing a destination names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationKind {
    /// `name`: an address. A queue, unless a header or the broker's settings say otherwise.
    Plain,
    /// `/queue/name`
    Queue,
    /// `/topic/name`
    Topic,
    /// `a,b`: several at once, of ActiveMQ: see [`parts`].
    Composite,
    /// `/remote-temp-queue/name`: a temporary queue of some connection, as a `reply-to` names it.
    RemoteTempQueue,
    /// `/remote-temp-topic/name`: likewise.
    RemoteTempTopic,
    /// `/temp-queue/name`: a queue of this connection, gone with it.
    TempQueue,
    /// `/temp-topic/name`: a topic of this connection.
    TempTopic,
}

/// The destinations that a list names, in order; of any other text itself. Blanks around them do
/// not count.
///
/// Source: ActiveMQ's "Composite Destinations"; each has a prefix of its own.
pub fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// The name is empty, with or without a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptyName;

impl std::fmt::Display for EmptyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("The destination has no name.")
    }
}

impl std::error::Error for EmptyName {}

impl<'a> Destination<'a> {
    /// Takes a decoded `destination` value apart.
    ///
    /// A name with an unknown prefix is a plain address: to STOMP it is an opaque string.
    /// Errors: `EmptyName`. Source: STOMP 1.2 "SEND"; the prefixes as ActiveMQ defines them.
    pub fn parse(text: &'a str) -> Result<Self, EmptyName> {
        let (kind, name) = split(text);
        if name.is_empty() {
            return Err(EmptyName);
        }
        // Taken as one name, a list would swallow messages meant for several.
        if memchr::memchr(b',', text.as_bytes()).is_some() {
            return Ok(Self {
                kind: DestinationKind::Composite,
                name: text,
            });
        }
        Ok(Self { kind, name })
    }
}

fn split(text: &str) -> (DestinationKind, &str) {
    if !text.starts_with('/') {
        return (DestinationKind::Plain, text);
    }
    for (prefix, kind) in PREFIXES {
        if let Some(name) = text.strip_prefix(prefix) {
            return (kind, name);
        }
    }
    (DestinationKind::Plain, text)
}

const PREFIXES: [(&str, DestinationKind); 6] = [
    ("/queue/", DestinationKind::Queue),
    ("/topic/", DestinationKind::Topic),
    ("/temp-queue/", DestinationKind::TempQueue),
    ("/temp-topic/", DestinationKind::TempTopic),
    ("/remote-temp-queue/", DestinationKind::RemoteTempQueue),
    ("/remote-temp-topic/", DestinationKind::RemoteTempTopic),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_read() {
        use DestinationKind::*;
        let table = [
            ("/queue/a", Queue, "a"),
            ("/queue/a/b", Queue, "a/b"),
            ("/topic/a.b", Topic, "a.b"),
            ("orders", Plain, "orders"),
            ("/exchange/x", Plain, "/exchange/x"),
            ("/queueing", Plain, "/queueing"),
            ("/temp-queue/a", TempQueue, "a"),
            ("/temp-topic/a", TempTopic, "a"),
            ("/remote-temp-queue/a", RemoteTempQueue, "a"),
            ("/remote-temp-topic/a", RemoteTempTopic, "a"),
            ("/queue/a,/queue/b", Composite, "/queue/a,/queue/b"),
            ("address::queue", Plain, "address::queue"),
            ("/topic/a::c.s", Topic, "a::c.s"),
        ];
        for (text, kind, name) in table {
            assert_eq!(
                Destination::parse(text),
                Ok(Destination { kind, name }),
                "{text}"
            );
        }
        for text in ["", "/queue/", "/topic/", "/temp-queue/"] {
            assert_eq!(Destination::parse(text), Err(EmptyName), "{text:?}");
        }
    }

    #[test]
    fn a_list_is_taken_apart() {
        assert!(parts("/queue/a, /topic/b ,c").eq(["/queue/a", "/topic/b", "c"]));
        assert!(parts("/queue/a,").eq(["/queue/a", ""]));
        assert!(parts("a").eq(["a"]));
    }
}
