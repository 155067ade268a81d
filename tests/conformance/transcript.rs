//! The format of a transcript.
//!
//! ```text
//! level: engine               engine, engine-only (limits, clock) or broker
//! limits: header_count_max=2  engine-only
//! # STOMP 1.2 "SEND"          the section the next steps rest on; a step without one is refused
//! C: SEND                     the client sends this line and LF
//! C:
//! C: hello^@                  ... and no LF after a line that ends with ^@ or ^.
//! S: RECEIPT                  the server sends a frame: command,
//! S: receipt-id:{r}           headers that it must have, in any order (others may be there),
//! S: !ack                     or must not have,
//! S:
//! S: *^@                      and body
//! S: ~closed                  the server closes
//! E: SEND destination=/a      the engine gives this event with these fields (only run there)
//! T: 1500                     so many milliseconds pass (engine-only); then
//! E: ~silent                  a timer says silent, late or beat
//! ```
//!
//! `C2:`, `S2:`, `E2:` are a second connection, and so on. `^@` is NUL, `^M` CR, `^^` a caret,
//! `^{xx}` any octet in hex, `^{xx*n}` n of them. `{name}` is a variable: bound when it is the
//! whole expected value of a header, replaced elsewhere; `{run}` differs from run to run. An
//! expected value or body may end with `*` for anything. In events `-` is an absent field.

use std::collections::BTreeMap;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Engine,
    EngineOnly,
    Broker,
}

#[derive(Debug)]
pub(crate) struct Transcript {
    pub(crate) name: String,
    pub(crate) level: Level,
    pub(crate) limits: BTreeMap<String, usize>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) section: Option<String>,
    /// Which connection.
    pub(crate) peer: String,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    /// Text to send, escapes and variables still in it.
    Client(String),
    /// A frame to expect, line by line.
    Server(Vec<String>),
    ServerCloses,
    Event(String),
    Pass(u64),
}

impl Transcript {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        Self::parse(path.file_name().unwrap().to_str().unwrap(), &text)
    }

    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let mut transcript = Self {
            name: name.into(),
            level: Level::Engine,
            limits: BTreeMap::new(),
            steps: vec![],
        };
        let mut section = None;
        for (index, line) in text.lines().enumerate() {
            let place = || format!("{name}:{}", index + 1);
            if let Some(comment) = line.strip_prefix('#') {
                if comment.contains("STOMP 1.") {
                    section = Some(comment.trim().to_owned());
                }
                continue;
            }
            let Some((label, rest)) = line.split_once(':') else {
                assert!(line.is_empty(), "{}: no colon", place());
                continue;
            };
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            match label {
                "level" => transcript.level = level(rest).unwrap_or_else(|| panic!("{}", place())),
                "limits" => transcript.limits.extend(rest.split(' ').map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap();
                    (key.to_owned(), value.parse().unwrap())
                })),
                _ => transcript.step(index + 1, &section, label, rest),
            }
        }
        transcript
    }

    fn step(&mut self, line: usize, section: &Option<String>, label: &str, rest: &str) {
        let (kind, peer) = label.split_at(1);
        if let Some(last) = self.steps.last_mut().filter(|last| last.peer == peer) {
            // Lines of one frame are one step.
            match (&mut last.action, kind) {
                (Action::Client(text), "C") => return text.push_str(&client_line(rest)),
                (Action::Server(lines), "S") if !lines.last().unwrap().ends_with("^@") => {
                    return lines.push(rest.to_owned());
                }
                _ => {}
            }
        }
        let action = match (kind, rest) {
            ("C", _) => Action::Client(client_line(rest)),
            ("S", "~closed") => Action::ServerCloses,
            ("S", _) => Action::Server(vec![rest.to_owned()]),
            ("E", _) => Action::Event(rest.to_owned()),
            ("T", _) => Action::Pass(rest.parse().unwrap()),
            _ => panic!("{}:{line}: unknown label {label}", self.name),
        };
        self.steps.push(Step {
            line,
            section: section.clone(),
            peer: peer.into(),
            action,
        });
    }
}

fn level(text: &str) -> Option<Level> {
    match text {
        "engine" => Some(Level::Engine),
        "engine-only" => Some(Level::EngineOnly),
        "broker" => Some(Level::Broker),
        _ => None,
    }
}

fn client_line(text: &str) -> String {
    if let Some(bare) = text.strip_suffix("^.") {
        bare.to_owned()
    } else if text.ends_with("^@") {
        text.to_owned()
    } else {
        format!("{text}^{{0a}}")
    }
}

/// Variables of one run.
#[derive(Debug, Default)]
pub(crate) struct Variables(BTreeMap<String, String>);

impl Variables {
    pub(crate) fn new(run: &str) -> Self {
        Self(BTreeMap::from([("run".to_owned(), run.to_owned())]))
    }

    /// Compares an expected value with an actual one; binds a variable that is all of it.
    pub(crate) fn matches(&mut self, expected: &str, actual: &[u8]) -> bool {
        let name = expected
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        if let Some(name) = name.filter(|name| !self.0.contains_key(*name)) {
            self.0
                .insert(name.to_owned(), String::from_utf8(actual.to_vec()).unwrap());
            return true;
        }
        match expected.strip_suffix('*') {
            Some(prefix) => actual.starts_with(&self.expand(prefix)),
            None => actual == self.expand(expected),
        }
    }

    /// Undoes escapes and replaces variables.
    pub(crate) fn expand(&self, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let after = &rest[first.len_utf8()..];
            rest = match first {
                '^' => push_escape(&mut out, after),
                '{' => match self.variable(after) {
                    Some((value, after)) => {
                        out.extend_from_slice(value.as_bytes());
                        after
                    }
                    None => {
                        out.push(b'{');
                        after
                    }
                },
                other => {
                    out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    after
                }
            };
        }
        out
    }

    fn variable<'a>(&self, text: &'a str) -> Option<(&str, &'a str)> {
        let (name, after) = text.split_once('}')?;
        Some((self.0.get(name)?, after))
    }
}

/// Appends what stands behind a caret; returns what follows.
fn push_escape<'a>(out: &mut Vec<u8>, text: &'a str) -> &'a str {
    if let Some(rest) = text.strip_prefix('{') {
        let (octet, after) = rest.split_once('}').expect("^{ has its }");
        let (octet, count) = octet.split_once('*').unwrap_or((octet, "1"));
        let octet = u8::from_str_radix(octet, 16).expect("^{xx} is hex");
        out.extend(std::iter::repeat_n(octet, count.parse().unwrap()));
        return after;
    }
    out.push(match text.chars().next() {
        Some('@') => 0,
        Some('M') => b'\r',
        Some('^') => b'^',
        other => panic!("unknown escape ^{other:?}"),
    });
    &text[1..]
}
