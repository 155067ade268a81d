//! Runs a transcript against the engine alone, and a server that is nothing but the engine.
//!
//! The host around the engine answers only what the engine decides: `CONNECTED` to a `CONNECT`
//! and `ERROR` to a mistake. Receipts and messages are a broker's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use forebay::now::Now;
use forebay::protocol::stomp::encode::{self, Connected};
use forebay::protocol::stomp::{
    Ack, AckMode, Connect, Connection, Event, Limits, Send, Subscribe, TimeoutAction, Transaction,
    Value,
};

use crate::transcript::{Action, Transcript, Variables};
use crate::wire;

/// Name and fields of an event, as `E:` lines have them.
type Told = (String, BTreeMap<&'static str, Vec<u8>>);

pub(crate) struct Host {
    connection: Connection,
    input: Vec<u8>,
    output: Vec<u8>,
    events: VecDeque<Told>,
    unfinished: Option<Told>,
    is_closed: bool,
}

/// Runs all steps, feeding what a client sends in pieces of `piece_len`; returns their number.
pub(crate) fn run(transcript: &Transcript, piece_len: usize) -> usize {
    let mut variables = Variables::new("1");
    let mut hosts: BTreeMap<&str, Host> = BTreeMap::new();
    let mut now = Now::from_monotonic_us(0);
    for step in &transcript.steps {
        let section = step.section.as_deref().unwrap_or_default();
        let place = format!("{}:{} ({section})", transcript.name, step.line);
        let host = hosts
            .entry(&step.peer)
            .or_insert_with(|| Host::new(limits(transcript), now));
        match &step.action {
            Action::Client(text) => {
                for piece in variables.expand(text).chunks(piece_len) {
                    host.receive(piece, now);
                }
            }
            Action::Server(expected) => match wire::take_frame(&mut host.output) {
                Some(frame) => frame.check(&place, expected, &mut variables),
                None => panic!("{place}: nothing was sent, {:?} was heard", host.events),
            },
            Action::ServerCloses => {
                assert!(
                    host.is_closed,
                    "{place}: not closed, {:?} was heard",
                    host.events
                );
                assert_eq!(host.output, b"", "{place}: more was sent");
            }
            Action::Event(expected) => {
                // CONNECT need not be expected: CONNECTED is.
                if !expected.starts_with("CONNECT") {
                    host.forget_connect();
                }
                let told = host.events.pop_front();
                let told = told.unwrap_or_else(|| panic!("{place}: nothing was heard"));
                check_event(&place, expected, &told, &mut variables);
            }
            Action::Pass(elapsed_ms) => {
                now.monotonic_us += elapsed_ms * 1_000;
                host.pass_time(now);
            }
        }
    }
    for host in hosts.values_mut() {
        host.forget_connect();
        let (events, output) = (&host.events, String::from_utf8_lossy(&host.output));
        assert!(
            events.is_empty(),
            "{}: not expected: {events:?}",
            transcript.name
        );
        assert!(
            output.trim_end().is_empty(),
            "{}: not expected: {output}",
            transcript.name
        );
    }
    transcript.steps.len()
}

fn limits(transcript: &Transcript) -> Limits {
    let mut limits = Limits::default();
    for (key, value) in &transcript.limits {
        match key.as_str() {
            "message_size_max" => limits.message_size_max = *value as u64,
            "header_bytes_max" => limits.header_bytes_max = *value,
            "header_count_max" => limits.header_count_max = *value,
            "body_inline_max" => limits.body_inline_max = *value,
            other => panic!("{}: unknown limit {other}", transcript.name),
        }
    }
    limits
}

fn check_event(place: &str, expected: &str, told: &Told, variables: &mut Variables) {
    let mut words = expected.split(' ');
    assert_eq!(
        words.next(),
        Some(told.0.as_str()),
        "{place}: heard {told:?}"
    );
    for word in words {
        let (field, value) = word.split_once('=').expect("an expected field has =");
        let is_right = match told.1.get(field) {
            None => value == "-",
            Some(actual) => variables.matches(value, actual),
        };
        assert!(is_right, "{place}: expected {word}, heard {told:?}");
    }
}

impl Host {
    fn new(limits: Limits, now: Now) -> Self {
        Self {
            connection: Connection::new(limits, now),
            input: Vec::new(),
            output: Vec::new(),
            events: VecDeque::new(),
            unfinished: None,
            is_closed: false,
        }
    }

    fn receive(&mut self, bytes: &[u8], now: Now) {
        self.connection.note_received(now);
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut start = 0;
        loop {
            match self.connection.next_event(&input[start..], now) {
                Ok(parsed) => {
                    start += parsed.consumed;
                    let Some(event) = parsed.event else { break };
                    self.hear(&event);
                    self.connection.note_sent(now);
                }
                Err(error) => {
                    error.encode(self.connection.version(), &mut self.output);
                    self.is_closed = true;
                }
            }
        }
        self.input = input[start..].to_vec();
    }

    fn forget_connect(&mut self) {
        if self
            .events
            .front()
            .is_some_and(|(name, _)| name == "CONNECT")
        {
            self.events.pop_front();
        }
    }

    fn pass_time(&mut self, now: Now) {
        while let Some(action) = self.connection.handle_timeout(now) {
            let name = match action {
                TimeoutAction::SendHeartBeat => "~beat",
                TimeoutAction::PeerSilent => "~silent",
                TimeoutAction::ConnectDeadline => "~late",
            };
            self.events.push_back((name.to_owned(), BTreeMap::new()));
            if let Some(error) = action.error() {
                error.encode(self.connection.version(), &mut self.output);
                self.is_closed = true;
            }
        }
    }

    fn hear(&mut self, event: &Event<'_>) {
        match event {
            Event::Connect(connect) => {
                let frame = Connected {
                    version: connect.version,
                    heart_beat: self.connection.limits().heart_beat,
                    session: "1",
                    server: "engine/0",
                };
                encode::connected(&mut self.output, &frame);
                self.events.push_back(tell(event));
            }
            Event::Send(send) if !send.is_complete => self.unfinished = Some(tell(event)),
            Event::SendPart(part) => {
                let mut told = self.unfinished.take().expect("a part follows its head");
                told.1
                    .get_mut("body")
                    .unwrap()
                    .extend_from_slice(part.bytes);
                if part.is_last {
                    self.events.push_back(told);
                } else {
                    self.unfinished = Some(told);
                }
            }
            _ => self.events.push_back(tell(event)),
        }
    }
}

/// Builds the fields of an event.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, Vec<u8>>);

impl Fields {
    fn value(mut self, name: &'static str, value: &Option<Value<'_>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name, value.decode().as_bytes().to_vec());
        }
        self
    }

    fn text(mut self, name: &'static str, text: impl ToString) -> Self {
        self.0.insert(name, text.to_string().into_bytes());
        self
    }

    fn maybe(self, name: &'static str, text: Option<impl ToString>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }
}

fn tell(event: &Event<'_>) -> Told {
    let (name, fields) = match event {
        Event::Connect(connect) => ("CONNECT", tell_connect(connect)),
        Event::Send(send) => ("SEND", tell_send(send)),
        Event::SendPart(_) => unreachable!("parts are put together before"),
        Event::Subscribe(subscribe) => ("SUBSCRIBE", tell_subscribe(subscribe)),
        Event::Unsubscribe(unsubscribe) => {
            let fields = Fields::default()
                .value("id", &unsubscribe.id)
                .value("destination", &unsubscribe.destination)
                .value("receipt", &unsubscribe.receipt);
            ("UNSUBSCRIBE", fields)
        }
        Event::Ack(ack) => ("ACK", tell_ack(ack)),
        Event::Nack(ack) => ("NACK", tell_ack(ack)),
        Event::Begin(transaction) => ("BEGIN", tell_transaction(transaction)),
        Event::Commit(transaction) => ("COMMIT", tell_transaction(transaction)),
        Event::Abort(transaction) => ("ABORT", tell_transaction(transaction)),
        Event::Disconnect(disconnect) => (
            "DISCONNECT",
            Fields::default().value("receipt", &disconnect.receipt),
        ),
    };
    (name.to_owned(), fields.0)
}

fn tell_connect(connect: &Connect<'_>) -> Fields {
    Fields::default()
        .text("version", connect.version.as_str())
        .value("host", &connect.host)
        .value("login", &connect.login)
        .value("passcode", &connect.passcode)
        .value("client-id", &connect.client_id)
        .text("send-ms", connect.heart_beat.send_ms)
        .text("receive-ms", connect.heart_beat.receive_ms)
}

fn tell_send(send: &Send<'_>) -> Fields {
    let mut fields = Fields::default()
        .value("destination", &Some(send.destination))
        .maybe(
            "routing",
            send.routing.map(|routing| format!("{routing:?}")),
        )
        .value("receipt", &send.receipt)
        .value("transaction", &send.transaction)
        .maybe("persistent", send.persistent)
        .maybe("expires", send.expires_unix_ms)
        .maybe("priority", send.priority)
        .text("has-length", send.has_content_length);
    fields.0.insert(
        "stored",
        send.stored_head.parts().flatten().copied().collect(),
    );
    fields.0.insert("body", send.body.to_vec());
    fields
}

fn tell_subscribe(subscribe: &Subscribe<'_>) -> Fields {
    let ack = match subscribe.ack {
        AckMode::Auto => "auto",
        AckMode::Client => "client",
        AckMode::ClientIndividual => "client-individual",
    };
    Fields::default()
        .value("destination", &Some(subscribe.destination))
        .value("id", &subscribe.id)
        .text("ack", ack)
        .maybe(
            "routing",
            subscribe.routing.map(|routing| format!("{routing:?}")),
        )
        .value("selector", &subscribe.selector)
        .value("receipt", &subscribe.receipt)
}

fn tell_ack(ack: &Ack<'_>) -> Fields {
    Fields::default()
        .value("id", &ack.id)
        .value("message-id", &ack.message_id)
        .value("subscription", &ack.subscription)
        .value("transaction", &ack.transaction)
        .value("receipt", &ack.receipt)
}

fn tell_transaction(transaction: &Transaction<'_>) -> Fields {
    Fields::default()
        .value("transaction", &Some(transaction.transaction))
        .value("receipt", &transaction.receipt)
}

/// Starts a server that is nothing but the engine, for the life of the test process.
pub(crate) fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || serve_one(socket.unwrap()));
        }
    });
    addr
}

fn serve_one(mut socket: TcpStream) {
    let now = Now::from_monotonic_us(0);
    let mut host = Host::new(Limits::default(), now);
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = socket.read(&mut buffer) {
        host.receive(&buffer[..len], now);
        if socket.write_all(&host.output).is_err() {
            return;
        }
        host.output.clear();
        if host.is_closed {
            // STOMP 1.2 "Connection Lingering": read on, lest a reset overtakes the ERROR frame.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}
