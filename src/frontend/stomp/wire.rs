//! A session and what carries its bytes: TCP alone, or WebSocket on the same port.
//!
//! The first bytes tell: an HTTP request begins with a method, STOMP with a command or a line end.
//! Plain STOMP is passed through, without a copy.

use super::session::Session;
use super::websocket::WebSocket;
use crate::frontend::{Reply, Step, Subscription, Timeout};
use crate::now::Now;
use crate::protocol::websocket::Handshake;

/// One STOMP connection.
#[derive(Debug)]
pub struct Wire {
    session: Session,
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    /// Too little came to tell.
    Unknown,
    Tcp,
    WebSocket(Box<WebSocket>),
}

impl Wire {
    /// Starts a connection; what carries it shows in the first bytes.
    pub fn new(session: Session) -> Self {
        Self {
            session,
            carrier: Carrier::Unknown,
        }
    }

    /// Whether the next event brings a message or a part of one.
    pub fn is_message_next(&self, input: &[u8]) -> bool {
        match &self.carrier {
            Carrier::Tcp => self.session.is_message_next(input),
            Carrier::WebSocket(socket) => socket.is_message_next(&self.session),
            // No message comes before CONNECT.
            Carrier::Unknown => false,
        }
    }

    /// Whether input was taken out of frames and not read yet, or not all that was read is said.
    pub fn has_kept_input(&self) -> bool {
        let is_kept = match &self.carrier {
            Carrier::Unknown | Carrier::Tcp => false,
            Carrier::WebSocket(socket) => socket.has_kept_input(),
        };
        is_kept || self.session.has_more()
    }

    /// Reads one event from `input`, or takes it out of frames.
    pub fn handle_input<'a>(
        &'a mut self,
        input: &'a [u8],
        now: Now,
        out: &mut Vec<u8>,
    ) -> Step<'a> {
        if matches!(self.carrier, Carrier::Unknown) {
            self.carrier = self.look(input);
        }
        match &mut self.carrier {
            Carrier::Tcp => self.session.handle_input(input, now, out),
            Carrier::WebSocket(socket) => socket.handle_input(&mut self.session, input, now, out),
            Carrier::Unknown => Step::Quiet {
                consumed: 0,
                is_starved: true,
            },
        }
    }

    /// What carries a connection that begins so.
    fn look(&self, input: &[u8]) -> Carrier {
        match Handshake::is_begun_by(input) {
            None => Carrier::Unknown,
            Some(false) => Carrier::Tcp,
            Some(true) => Carrier::WebSocket(Box::new(WebSocket::new(&self.session))),
        }
    }

    /// What the client calls a subscription.
    pub fn subscription_id(&self, subscription: Subscription) -> Option<&str> {
        self.session.subscription_id(subscription)
    }

    /// Whether a body is under way to the client.
    pub fn is_amid_body(&self) -> bool {
        self.session.is_amid_body()
    }

    /// Bytes that wait for the end of a body under way.
    pub fn held_len(&self) -> usize {
        self.session.held_len()
    }

    /// Whether bytes of this shard's deliveries are held back.
    pub fn holds(&self, shard: u16) -> bool {
        self.session.holds(shard)
    }

    /// Writes what a reply means; false if the connection has to close after it.
    pub fn handle_reply(&mut self, reply: &Reply<&[u8]>, out: &mut Vec<u8>) -> bool {
        match &mut self.carrier {
            Carrier::Unknown | Carrier::Tcp => self.session.handle_reply(reply, out),
            Carrier::WebSocket(socket) => socket.handle_reply(&mut self.session, reply, out),
        }
    }

    /// Bytes came in.
    pub fn note_received(&mut self, now: Now) {
        self.session.note_received(now);
    }

    /// Bytes went out.
    pub fn note_sent(&mut self, now: Now) {
        self.session.note_sent(now);
    }

    /// The broker stopped or began again to read.
    pub fn set_reading(&mut self, is_reading: bool, now: Now) {
        self.session.set_reading(is_reading, now);
    }

    /// When a timer is due next, in monotonic microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.session.poll_timeout()
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<u8>) -> Timeout {
        match &mut self.carrier {
            Carrier::Unknown | Carrier::Tcp => self.session.handle_timeout(now, out),
            Carrier::WebSocket(socket) => socket.handle_timeout(&mut self.session, now, out),
        }
    }

    /// Says why the broker closes the connection, and accepts nothing any more.
    pub fn say_error(&mut self, message: &str, details: &str, out: &mut Vec<u8>) {
        match &mut self.carrier {
            Carrier::Unknown | Carrier::Tcp => self.session.say_error(message, details, None, out),
            Carrier::WebSocket(socket) => {
                socket.say_error(&mut self.session, message, details, out);
            }
        }
    }

    /// Says what comes last on the connection.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.carrier {
            Carrier::Unknown | Carrier::Tcp => {}
            Carrier::WebSocket(socket) => socket.finish(out),
        }
    }
}

#[cfg(test)]
mod tests;
