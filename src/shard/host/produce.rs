//! Messages coming in: whole, or piece by piece.

use forebay_journal::format::{Annotations, MessageFields, Parts, Record, Routing};
use forebay_journal::{AppendError, Lsn, QueueId};

use super::expire::{said_expiry, with_own_expiry};
use super::filters::Offered;
use super::room::Room;
use super::{Host, Lane, Taken, flags};
use crate::frontend::{Extras, Header, Refusal, SendCommand, SendPartCommand};
use crate::now::Now;
use crate::queue::{DestinationId, Fact, Place, Routed};
use crate::routing::split_queue;
use crate::shard::ConnectionId;
use crate::shard::bodies::message_cost;
use crate::shard::link::{Text, Upload, UploadTo};

/// What became of a whole message.
enum Enqueued {
    /// It is stored; its receipt waits for this LSN, zero for at once.
    Upto(Lsn),
    /// Memory has no room for so many bytes now; nothing changed.
    NoRoom { needed: u64 },
    /// Its address has no room now; nothing changed.
    Full,
}

/// What is known of a message besides its bytes.
pub(super) struct Incoming<'a> {
    pub(super) routing: Routing,
    pub(super) address: &'a [u8],
    pub(super) is_temporary: bool,
    pub(super) is_forwarded: bool,
    /// Who sends it, and on which connection.
    pub(super) client: Option<&'a [u8]>,
    pub(super) link: ConnectionId,
    /// Whether the sender wants it durable, and whether it may be.
    pub(super) is_persistent: bool,
    pub(super) may_be_journaled: bool,
    pub(super) fields: MessageFields,
    pub(super) extras: Extras<&'a [u8]>,
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Who makes a queue that is not there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Maker {
    /// It is temporary: whoever could has not.
    Nobody,
    /// The client, if it may.
    Client,
    /// The broker: it sends a message on to an address of its settings.
    Broker,
}

impl Maker {
    const fn of(is_temporary: bool, is_forwarded: bool) -> Self {
        match (is_temporary, is_forwarded) {
            (true, _) => Self::Nobody,
            (false, true) => Self::Broker,
            (false, false) => Self::Client,
        }
    }
}

/// Where a message goes: to all queues of an address, or to one of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) destination: DestinationId,
    pub(super) queue: Option<QueueId>,
}

impl From<DestinationId> for Target {
    fn from(destination: DestinationId) -> Self {
        let queue = None;
        Self { destination, queue }
    }
}

/// Whether patterns may match an address. They leave out temporary topics: those are for who knows
/// their names.
const fn may_match(routing: Routing, maker: Maker) -> bool {
    matches!(
        (routing, maker),
        (Routing::Multicast, Maker::Client | Maker::Broker)
    )
}

impl<'a> Incoming<'a> {
    pub(super) const fn maker(&self) -> Maker {
        Maker::of(self.is_temporary, self.is_forwarded)
    }

    pub(super) const fn may_match(&self) -> bool {
        may_match(self.routing, self.maker())
    }

    /// The address, where the queue that a message is in may not say it.
    fn address_to_say(&self, routed: &Routed) -> &'a [u8] {
        if routed.says_address() {
            self.address
        } else {
            &[]
        }
    }

    fn said_expiry(&self) -> u64 {
        said_expiry(&self.fields, self.is_forwarded, self.head)
    }

    /// A message as it is sent, its body whole or not.
    fn of(link: ConnectionId, send: &SendCommand<&'a [u8]>, now: Now) -> Self {
        Self {
            routing: send.routing,
            address: send.address,
            is_temporary: send.is_temporary,
            is_forwarded: send.is_forwarded,
            client: send.client,
            link,
            is_persistent: send.is_persistent,
            may_be_journaled: send.is_persistent,
            fields: MessageFields {
                body_size: send.body.len() as u64,
                timestamp_unix_ms: now.unix_ms,
                priority: send.priority,
                expires_unix_ms: send.expires_unix_ms,
                encoding: send.encoding,
                flags: flags(send.has_content_length, send.is_persistent),
                transaction: send.transaction,
                ..MessageFields::default()
            },
            extras: send.extras,
            head: send.head,
            body: send.body,
        }
    }

    /// A message whose first pieces waited.
    pub(super) fn beginning(
        link: ConnectionId,
        upload: &'a Upload,
        body: &'a [u8],
        now: Now,
    ) -> Self {
        Self {
            routing: upload.routing,
            address: &upload.address,
            is_temporary: upload.is_temporary,
            is_forwarded: upload.is_forwarded,
            client: upload.client.as_deref(),
            link,
            is_persistent: upload.is_persistent,
            may_be_journaled: upload.is_persistent,
            fields: MessageFields {
                body_size: body.len() as u64,
                timestamp_unix_ms: now.unix_ms,
                priority: upload.priority,
                expires_unix_ms: upload.expires_unix_ms,
                encoding: upload.encoding,
                flags: flags(upload.has_content_length, upload.is_persistent),
                transaction: upload.transaction,
                ..MessageFields::default()
            },
            extras: upload.extras.as_ref(),
            head: &upload.head,
            body,
        }
    }

    fn annotations(&self, now_unix_ms: u64) -> Annotations<'a> {
        let extras = &self.extras;
        // A time that is over is no time to wait for.
        let is_later = extras.deliver_unix_ms > now_unix_ms;
        Annotations {
            deliver_unix_ms: if is_later { extras.deliver_unix_ms } else { 0 },
            group: extras.group,
            is_group_end: extras.is_group_end,
            ..Annotations::default()
        }
    }

    /// The message, owned and whole, until memory or its address has room for it. It counts for
    /// its connection alone: when that goes, so does this.
    fn wait(&self, to: UploadTo, receipt: Option<Text>) -> Upload {
        Upload {
            body_size: self.body.len() as u64,
            is_whole: true,
            ..self.begin(to, receipt)
        }
    }

    /// The message, owned, but for its body, of which pieces come.
    fn begin(&self, to: UploadTo, receipt: Option<Text>) -> Upload {
        Upload {
            routing: self.routing,
            address: self.address.to_vec(),
            is_temporary: self.is_temporary,
            is_forwarded: self.is_forwarded,
            client: self.client.map(Into::into),
            is_persistent: self.is_persistent,
            head: self.head.to_vec(),
            receipt,
            priority: self.fields.priority,
            expires_unix_ms: self.fields.expires_unix_ms,
            extras: self.extras.map(Text::new),
            has_content_length: self.fields.flags.has_content_length,
            encoding: self.fields.encoding,
            body_size: 0,
            transaction: self.fields.transaction,
            to,
            is_whole: false,
        }
    }
}

impl Host {
    pub(super) fn send(
        &mut self,
        link: ConnectionId,
        send: &SendCommand<&[u8]>,
        now: Now,
    ) -> Taken {
        if !send.is_complete {
            return self.begin_upload(link, send, now);
        }
        let incoming = Incoming::of(link, send, now);
        self.take_message(link, &incoming, send.receipt.map(Text::new))
    }

    fn take_message(
        &mut self,
        link: ConnectionId,
        incoming: &Incoming<'_>,
        receipt: Option<Text>,
    ) -> Taken {
        match self.enqueue(incoming) {
            Ok(Enqueued::Upto(lsn)) => {
                self.stats.received += 1;
                self.join(link, incoming.fields.transaction);
                let last_lsn = &mut self.link(link).last_lsn;
                *last_lsn = lsn.max(*last_lsn);
                self.confirm_sent(link, lsn, receipt);
                Taken::Yes
            }
            Ok(Enqueued::NoRoom { needed }) => {
                let to = UploadTo::Memory {
                    body: incoming.body.to_vec(),
                    needed,
                    is_reserved: false,
                };
                let upload = incoming.wait(to, receipt);
                self.link(link).uploads.insert(incoming.extras.copy, upload);
                Taken::YesButWait
            }
            Ok(Enqueued::Full) => {
                let to = UploadTo::Room {
                    held: incoming.body.to_vec(),
                    body_total: Some(incoming.fields.body_size),
                };
                let upload = incoming.wait(to, receipt);
                self.link(link).uploads.insert(incoming.extras.copy, upload);
                Taken::YesButWait
            }
            Err(refusal) => {
                self.spoil(link, incoming.fields.transaction);
                self.drop_upload(incoming.fields.upload);
                self.refuse_about(link, incoming.address, refusal, receipt);
                Taken::Yes
            }
        }
    }

    /// Routes and stores a whole message. Who sends durable ones needs no memory.
    fn enqueue(&mut self, incoming: &Incoming<'_>) -> Result<Enqueued, Refusal> {
        let nothing = Enqueued::Upto(Lsn::ZERO);
        let upload = incoming.fields.upload;
        let Some(target) = self.target(incoming.routing, incoming.address, incoming.maker())?
        else {
            self.drop_upload(upload);
            return Ok(nothing);
        };
        self.route(target, incoming)?;
        let duplicate_id = self.duplicate_id(target.destination, incoming);
        if let Some(answer) = self.turn_away(target, incoming, duplicate_id.as_deref())? {
            return Ok(answer);
        }
        let queue_count = self.routed.queue_count();
        if queue_count == 0 {
            self.drop_upload(upload);
            return Ok(nothing);
        }
        if upload != 0 {
            // Its beginning is in the journal, and nowhere else.
            self.routed.journal_anyway();
        }
        let place = if self.routed.is_journaled() {
            Place::NONE
        } else {
            let head_size = incoming.head.len() + incoming.address_to_say(&self.routed).len();
            let needed = message_cost(head_size as u64, incoming.body.len() as u64);
            if !incoming.is_forwarded && !self.bodies.has_room(needed) {
                return Ok(Enqueued::NoRoom { needed });
            }
            Place::Volatile(self.keep(incoming, queue_count))
        };
        let routed = std::mem::take(&mut self.routed);
        let head = Parts::One(incoming.head);
        let last_value = self.last_value(target.destination, incoming);
        let id = duplicate_id.as_deref().unwrap_or_default();
        let survives = self.keeps_ids(target.destination, incoming);
        let annotations = Annotations {
            duplicate_id: if survives { id } else { &[] },
            address: incoming.address_to_say(&routed),
            last_value: last_value.as_deref().unwrap_or_default().as_bytes(),
            ..incoming.annotations(self.now_unix_ms)
        };
        let body = Parts::One(incoming.body);
        let fields = with_own_expiry(&incoming.fields, &routed, incoming.said_expiry());
        let mut fact = routed.fact(fields, annotations, head, body);
        fact.volatile_id = if survives { &[] } else { id };
        let lsn = self.commit_admitted(&fact, place);
        if self.filters.has_consumers() {
            let header = self.header(incoming, &routed);
            let (encoding, head) = (incoming.fields.encoding, incoming.head);
            routed
                .queues()
                .for_each(|queue| self.look_at_arrival(queue, header, encoding, head));
        }
        self.routed = routed;
        Ok(Enqueued::Upto(lsn))
    }

    /// Finds out whether the message was there before, or its address has no room.
    fn turn_away(
        &mut self,
        target: Target,
        incoming: &Incoming<'_>,
        duplicate_id: Option<&[u8]>,
    ) -> Result<Option<Enqueued>, Refusal> {
        let upload = incoming.fields.upload;
        if duplicate_id.is_some_and(|id| self.is_known(target.destination, incoming, id)) {
            self.drop_upload(upload);
            // A copy that is there may be one of several of which others are not.
            if incoming.fields.transaction != 0 && incoming.extras.copy == 0 {
                return Err(Refusal::DuplicateInTransaction);
            }
            // The one it repeats may not be durable yet.
            return Ok(Some(Enqueued::Upto(self.last_lsn())));
        }
        // What comes in pieces was asked about when it began.
        if upload != 0 {
            return Ok(None);
        }
        Ok(match self.room(target, incoming)? {
            Room::Yes => None,
            Room::Later => Some(Enqueued::Full),
            Room::Never => Some(Enqueued::Upto(Lsn::ZERO)),
        })
    }

    /// The message that these fragments belong to goes nowhere.
    pub(super) fn drop_upload(&mut self, upload: u64) {
        if upload != 0 {
            let record = Record::UploadAbandoned { upload };
            self.commit_admitted(&Fact::from(record), Place::NONE);
        }
    }

    /// Finds the queues that want a message: into `self.routed`.
    fn route(&mut self, target: Target, incoming: &Incoming<'_>) -> Result<(), Refusal> {
        let (may_be_journaled, is_forwarded) = (incoming.may_be_journaled, incoming.is_forwarded);
        let Target { destination, queue } = target;
        let (machine, routed) = (&mut self.machine, &mut self.routed);
        let decided = match queue {
            Some(queue) => machine.decide_enqueue_alone(queue, may_be_journaled, routed),
            None => machine.decide_enqueue(destination, may_be_journaled, is_forwarded, routed),
        };
        decided.map_err(Refusal::Queue)?;
        if queue.is_none() && incoming.may_match() && machine.has_patterns() {
            machine.add_matching(destination, may_be_journaled, is_forwarded, routed);
        }
        if !self.filters.is_any_narrow() {
            return Ok(());
        }
        let header = self.header(incoming, &self.routed);
        let offered = Offered {
            link: incoming.link,
            client: incoming.client,
            header,
            encoding: incoming.fields.encoding,
            head: incoming.head,
        };
        self.filters.narrow(&offered, &mut self.routed);
        Ok(())
    }

    /// What a selector may ask of a message that was routed.
    fn header(&self, incoming: &Incoming<'_>, routed: &Routed) -> Header {
        let fields = &incoming.fields;
        Header {
            shard: self.shard,
            message: routed.message(),
            priority: fields.priority,
            timestamp_unix_ms: fields.timestamp_unix_ms,
            expires_unix_ms: routed.expires_unix_ms(fields),
            is_persistent: incoming.is_persistent,
        }
    }

    /// Commits what [`Host::admits`] made room for.
    ///
    /// A failed disk is the only reason left; then the host stops and answers nothing any more.
    fn commit_admitted(&mut self, fact: &Fact<'_>, place: Place) -> Lsn {
        match self.commit(fact, place) {
            Ok(lsn) => lsn,
            Err(AppendError::Failed(failure)) => {
                self.fail(super::Failure::Write(failure));
                Lsn::ZERO.plus(u64::MAX)
            }
            Err(other) => panic!("admitted records do not fit: {other:?}"),
        }
    }

    /// Where an address leads. A queue is made when somebody names it, but for temporary ones; a
    /// topic nobody listens to is none.
    pub(super) fn target(
        &mut self,
        routing: Routing,
        address: &[u8],
        maker: Maker,
    ) -> Result<Option<Target>, Refusal> {
        if let Some(destination) = self.complete(routing, address) {
            return Ok(Some(destination.into()));
        }
        if let Maker::Nobody = maker {
            let found = self.machine.resolve(routing, address);
            return Ok(found.map(Target::from));
        }
        if let Some((address, queue)) = split_queue(address) {
            return self.target_of_name(routing, (address, queue), maker);
        }
        if self.machine.has_diverts() || self.machine.has_retroactive() {
            self.make_own(routing, address)?;
            if let Some(destination) = self.complete(routing, address) {
                return Ok(Some(destination.into()));
            }
        }
        if may_match(routing, maker) && self.machine.has_patterns() {
            return Ok(Some(self.machine.topic(address).into()));
        }
        Ok(self.make(routing, address, maker)?.map(Target::from))
    }

    /// An address that has all queues that it is to have.
    fn complete(&self, routing: Routing, address: &[u8]) -> Option<DestinationId> {
        let found = self.machine.resolve(routing, address);
        found.filter(|destination| self.machine.is_complete(*destination))
    }

    /// Where the full name of one queue leads: that of the address itself may be made.
    fn target_of_name(
        &mut self,
        routing: Routing,
        (address, queue): (&[u8], &[u8]),
        maker: Maker,
    ) -> Result<Option<Target>, Refusal> {
        if address == queue && routing == Routing::Anycast {
            return self.target(routing, address, maker);
        }
        let queue = self.machine.find_queue(routing, address, queue);
        let destination = queue.and_then(|queue| self.machine.destination_of(queue));
        let destination = destination.ok_or(Refusal::UnknownQueue)?;
        Ok(Some(Target { destination, queue }))
    }

    fn make(
        &mut self,
        routing: Routing,
        address: &[u8],
        maker: Maker,
    ) -> Result<Option<DestinationId>, Refusal> {
        let decision = &mut self.decision;
        let decided = match (routing, maker) {
            (Routing::Multicast, _) | (_, Maker::Nobody) => return Ok(None),
            (Routing::Anycast, Maker::Client) => self.machine.decide_queue(address, decision),
            (Routing::Anycast, Maker::Broker) => self.machine.decide_own_queue(address, decision),
        };
        decided.map_err(Refusal::Queue)?;
        self.commit_definition();
        Ok(self.machine.resolve(routing, address))
    }

    /// Makes the definition true that [`Host::admits`] made room for.
    pub(super) fn commit_definition(&mut self) {
        match self.commit_decision() {
            Ok(_) => {}
            Err(AppendError::Failed(failure)) => self.fail(super::Failure::Write(failure)),
            Err(other) => panic!("admitted records do not fit: {other:?}"),
        }
    }

    /// Keeps a message that is not durable in memory.
    fn keep(&mut self, incoming: &Incoming<'_>, queue_count: usize) -> u32 {
        let slot = self.bodies.open();
        let header = self.header(incoming, &self.routed);
        let kept = self.bodies.get_mut(slot);
        kept.head.extend_from_slice(incoming.head);
        kept.body.extend_from_slice(incoming.body);
        kept.has_content_length = incoming.fields.flags.has_content_length;
        kept.has_own_expiry = header.expires_unix_ms != incoming.said_expiry();
        kept.encoding = incoming.fields.encoding;
        kept.header = header;
        let address = incoming.address_to_say(&self.routed);
        kept.address.extend_from_slice(address);
        self.bodies.charge(slot, queue_count as u32);
        slot
    }

    fn begin_upload(&mut self, link: ConnectionId, send: &SendCommand<&[u8]>, now: Now) -> Taken {
        let incoming = Incoming::of(link, send, now);
        let to = match self.upload_target(&incoming, send.body_total) {
            Ok(to) => to,
            Err(refusal) => {
                self.spoil(link, send.transaction);
                let receipt = send.receipt.map(Text::new);
                self.refuse_about(link, send.address, refusal, receipt);
                UploadTo::Nowhere
            }
        };
        let upload = incoming.begin(to, send.receipt.map(Text::new));
        self.link(link).uploads.insert(send.extras.copy, upload);
        self.upload_bytes(link, send.extras.copy, send.body);
        if self.may_go_on(link, now) {
            Taken::Yes
        } else {
            Taken::YesButWait
        }
    }

    /// Whether a connection that waits for memory or room may be read again; takes the message that
    /// waited.
    pub(in crate::shard) fn may_go_on(&mut self, link: ConnectionId, now: Now) -> bool {
        let uploads = self.links.get(&link).map(|link| &link.uploads);
        let Some((&last, _)) = uploads.and_then(|uploads| uploads.last_key_value()) else {
            return true;
        };
        // One at a time: what goes on may leave.
        (0..=last).all(|copy| self.may_copy_go_on(link, copy, now))
    }

    fn may_copy_go_on(&mut self, link: ConnectionId, copy: u16, now: Now) -> bool {
        self.refuse_upload(link, copy);
        if !self.has_room_at_address(link, copy, now) {
            return false;
        }
        let upload = self
            .links
            .get_mut(&link)
            .and_then(|link| link.uploads.get_mut(&copy));
        // What goes to the journal or nowhere needs no memory.
        let Some(Upload {
            to:
                UploadTo::Memory {
                    needed,
                    is_reserved,
                    ..
                },
            is_whole,
            is_forwarded,
            ..
        }) = upload
        else {
            return true;
        };
        if !*is_reserved {
            *is_reserved = self.bodies.reserve(*needed, *is_forwarded);
        }
        if !*is_reserved || !*is_whole {
            return *is_reserved;
        }
        // Its queue may have to be made again.
        self.admits(Lane::Message)
            && match self.link(link).uploads.remove(&copy) {
                Some(upload) => self.finish_upload(link, upload, &[], now) == Taken::Yes,
                None => true,
            }
    }

    pub(super) fn upload_target(
        &mut self,
        incoming: &Incoming<'_>,
        body_total: Option<u64>,
    ) -> Result<UploadTo, Refusal> {
        let maker = incoming.maker();
        let Some(target) = self.target(incoming.routing, incoming.address, maker)? else {
            return Ok(UploadTo::Nowhere);
        };
        match self.room(target, incoming)? {
            Room::Yes => {}
            Room::Later => {
                let held = Vec::new();
                return Ok(UploadTo::Room { held, body_total });
            }
            Room::Never => return Ok(UploadTo::Nowhere),
        }
        self.route(target, incoming)?;
        if self.routed.queue_count() == 0 {
            return Ok(UploadTo::Nowhere);
        }
        if self.routed.is_journaled() {
            return Ok(UploadTo::Journal { upload: 0 });
        }
        let max = self.bodies.max_bytes();
        // Unknown is as much as it may become: the front end stops it there, or memory does.
        let largest = self.message_size_max.min(max);
        let body_size = body_total.unwrap_or(largest);
        if body_size > max {
            return Err(Refusal::VolatileTooLarge { max });
        }
        let needed = message_cost(incoming.head.len() as u64, body_size);
        Ok(UploadTo::Memory {
            body: Vec::new(),
            needed,
            is_reserved: false,
        })
    }

    /// Stores bytes of a body that goes on.
    pub(super) fn upload_bytes(&mut self, link: ConnectionId, copy: u16, bytes: &[u8]) {
        let Some(mut upload) = self.link(link).uploads.remove(&copy) else {
            return;
        };
        let offset = upload.body_size;
        upload.body_size += bytes.len() as u64;
        match &mut upload.to {
            UploadTo::Journal { upload: number } if !bytes.is_empty() => {
                if *number == 0 {
                    *number = self.machine.next_upload();
                }
                let body = Parts::One(bytes);
                let record = Record::Fragment {
                    upload: *number,
                    offset,
                    body,
                };
                let lsn = self.commit_admitted(&Fact::from(record), Place::NONE);
                self.link(link).last_lsn = lsn;
            }
            UploadTo::Journal { .. } | UploadTo::Nowhere => {}
            UploadTo::Memory { body, .. } => body.extend_from_slice(bytes),
            UploadTo::Room { held, .. } => held.extend_from_slice(bytes),
        }
        self.link(link).uploads.insert(copy, upload);
    }

    pub(super) fn send_part(
        &mut self,
        link: ConnectionId,
        part: &SendPartCommand<&[u8]>,
        now: Now,
    ) -> Taken {
        let SendPartCommand {
            copy,
            bytes,
            is_last,
        } = *part;
        self.refuse_outgrown(link, copy, bytes.len() as u64);
        if !is_last {
            self.upload_bytes(link, copy, bytes);
            return Taken::Yes;
        }
        let Some(upload) = self.link(link).uploads.remove(&copy) else {
            return Taken::Yes;
        };
        self.finish_upload(link, upload, bytes, now)
    }

    /// Refuses a message of unknown length when it proves larger than the memory for it.
    fn refuse_outgrown(&mut self, link: ConnectionId, copy: u16, more: u64) {
        let max = self.bodies.max_bytes();
        let links = self.links.get_mut(&link);
        let Some(upload) = links.and_then(|link| link.uploads.get_mut(&copy)) else {
            return;
        };
        let UploadTo::Memory {
            needed,
            is_reserved,
            ..
        } = upload.to
        else {
            return;
        };
        if upload.body_size + more <= max {
            return;
        }
        upload.to = UploadTo::Nowhere;
        let receipt = upload.receipt.take();
        if is_reserved {
            self.bodies.release(needed);
        }
        self.refuse(link, Refusal::VolatileTooLarge { max }, receipt);
    }

    pub(super) fn finish_upload(
        &mut self,
        link: ConnectionId,
        mut upload: Upload,
        last: &[u8],
        now: Now,
    ) -> Taken {
        let body_size = upload.body_size + last.len() as u64;
        let to = std::mem::replace(&mut upload.to, UploadTo::Nowhere);
        let receipt = upload.receipt.take();
        let whole;
        let incoming = match to {
            UploadTo::Journal { upload: number } => {
                let mut incoming = Incoming::beginning(link, &upload, last, now);
                incoming.fields.upload = number;
                incoming.fields.body_size = body_size;
                incoming
            }
            UploadTo::Memory {
                mut body,
                needed,
                is_reserved,
            } => {
                if is_reserved {
                    self.bodies.release(needed);
                }
                body.extend_from_slice(last);
                whole = body;
                let mut incoming = Incoming::beginning(link, &upload, &whole, now);
                // It found its way into memory when it began.
                incoming.may_be_journaled = false;
                incoming.fields.flags.is_durable = false;
                incoming
            }
            UploadTo::Room { mut held, .. } => {
                held.extend_from_slice(last);
                whole = held;
                Incoming::beginning(link, &upload, &whole, now)
            }
            UploadTo::Nowhere => {
                self.confirm(link, Lsn::ZERO, receipt);
                return Taken::Yes;
            }
        };
        self.take_message(link, &incoming, receipt)
    }

    /// Throws away what arrived of an unfinished message, of all its copies.
    pub(super) fn abandon_uploads(&mut self, link: ConnectionId) -> Result<(), AppendError> {
        while let Some((&copy, upload)) = self.link(link).uploads.first_key_value() {
            if let UploadTo::Journal { upload } = upload.to
                && upload != 0
            {
                let record = Record::UploadAbandoned { upload };
                self.commit(&Fact::from(record), Place::NONE)?;
            }
            if let Some(Upload {
                to:
                    UploadTo::Memory {
                        needed,
                        is_reserved: true,
                        ..
                    },
                ..
            }) = self.link(link).uploads.remove(&copy)
            {
                self.bodies.release(needed);
            }
        }
        Ok(())
    }
}
