//! What operators want, made of questions to shards.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forebay_journal::{SegmentId, ShardId};

use super::desk::Desk;
use super::shape::ErrorReport;
use crate::shard::{AdminAsk, AdminTold, QueueRefused, QueueSeen, Routing, ShardHealth};

/// How often a queue is looked for anew that another one took the place of meanwhile.
const TRIES_MAX: usize = 3;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Several queues have the name.
    Ambiguous,
    /// What is asked for cannot be understood.
    Bad(&'static str),
    /// The shard has as many questions open as it may.
    Busy(ShardId),
    /// The shard does not serve, because its journal is damaged.
    Damaged(ShardId),
    /// The queue machine's reason.
    Refused(QueueRefused),
    /// The shard does not answer.
    Silent(ShardId),
    /// The broker stops.
    Stopping,
    /// No queue has the name.
    Unknown,
}

impl Failure {
    fn parts(&self) -> (StatusCode, String) {
        match self {
            Self::Ambiguous => (
                StatusCode::CONFLICT,
                "a queue and a subscription have this name: say which by routing, \
                 anycast or multicast"
                    .to_owned(),
            ),
            Self::Bad(reason) => (StatusCode::BAD_REQUEST, (*reason).to_owned()),
            Self::Busy(shard) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("shard {shard} is being asked too much at once: try again"),
            ),
            Self::Damaged(shard) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "shard {shard} does not serve, because its journal is damaged, and no other \
                     has it: `forebay status` says where"
                ),
            ),
            Self::Refused(QueueRefused::QueueInUse) => (
                StatusCode::CONFLICT,
                "somebody consumes from the queue: end that first, or force it".to_owned(),
            ),
            Self::Refused(refused) => (StatusCode::CONFLICT, refused.to_string()),
            Self::Silent(shard) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("shard {shard} did not answer in time; it may still do it"),
            ),
            Self::Stopping => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the broker is stopping".to_owned(),
            ),
            Self::Unknown => (
                StatusCode::NOT_FOUND,
                "there is no queue and no subscription of this name".to_owned(),
            ),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = self.parts();
        (status, Json(ErrorReport { error })).into_response()
    }
}

/// A queue as an operator names it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) routing: Option<Routing>,
}

impl Desk {
    pub(super) async fn health(&self, shard: ShardId) -> Result<ShardHealth, Failure> {
        match self.ask(shard, AdminAsk::Health).await? {
            AdminTold::Health(health) => Ok(health),
            other => unreachable!("asked for health, told {other:?}"),
        }
    }

    /// The queues of a shard from a place on, and where to go on.
    pub(super) async fn list(
        &self,
        shard: ShardId,
        place: u32,
    ) -> Result<(Vec<QueueSeen>, Option<u32>), Failure> {
        if self.damaged().contains(&shard) {
            return Ok((Vec::new(), None));
        }
        match self.ask(shard, AdminAsk::List { place }).await? {
            AdminTold::Queues { queues, next } => Ok((queues, next)),
            other => unreachable!("asked for queues, told {other:?}"),
        }
    }

    /// The queue that is meant.
    ///
    /// Errors: `Unknown`; `Ambiguous`; `Damaged`: the shards that serve do not have it; a shard
    /// does not answer.
    pub(super) async fn find(&self, target: &Target) -> Result<QueueSeen, Failure> {
        let mut found = Vec::new();
        for shard in self.shards().filter(|one| !self.damaged().contains(one)) {
            let name = target.name.as_bytes().into();
            match self.ask(shard, AdminAsk::Find { name }).await? {
                AdminTold::Queues { queues, .. } => found.extend(queues),
                other => unreachable!("asked for queues, told {other:?}"),
            }
        }
        found.retain(|one| target.routing.is_none_or(|routing| routing == one.routing));
        match (found.pop(), found.is_empty()) {
            (None, _) => {
                let damaged = self.damaged().first();
                Err(damaged.map_or(Failure::Unknown, |shard| Failure::Damaged(*shard)))
            }
            (Some(one), true) => Ok(one),
            (Some(_), false) => Err(Failure::Ambiguous),
        }
    }

    /// Asks the shard of a queue for something; looks again if another queue took its place.
    ///
    /// Errors: see [`Self::find`]; the shard refuses.
    pub(super) async fn operate(
        &self,
        target: &Target,
        ask: impl Fn(&QueueSeen) -> AdminAsk,
    ) -> Result<(QueueSeen, AdminTold), Failure> {
        for _ in 0..TRIES_MAX {
            let seen = self.find(target).await?;
            match self.ask(seen.shard, ask(&seen)).await? {
                AdminTold::Refused(QueueRefused::UnknownQueue) => {}
                AdminTold::Refused(refused) => return Err(Failure::Refused(refused)),
                told => return Ok((seen, told)),
            }
        }
        Err(Failure::Unknown)
    }

    /// How many records of a segment are still needed.
    pub(super) async fn needed_records(
        &self,
        shard: ShardId,
        segment: SegmentId,
    ) -> Result<u64, Failure> {
        match self.ask(shard, AdminAsk::Segment(segment)).await? {
            AdminTold::Segment { needed } => Ok(needed),
            _ => Err(Failure::Stopping),
        }
    }

    /// Purges a queue, a portion at a time, and tells how many messages went.
    pub(super) async fn purge(&self, target: &Target) -> Result<u64, Failure> {
        let begin = |seen: &QueueSeen| AdminAsk::Purge {
            queue: seen.queue,
            from: None,
        };
        let (seen, mut told) = self.operate(target, begin).await?;
        let mut purged = 0;
        loop {
            let AdminTold::Purged { messages, next } = told else {
                // The queue went meanwhile, and all that was left with it.
                return Ok(purged);
            };
            purged += messages;
            if next.is_none() {
                return Ok(purged);
            }
            let (queue, from) = (seen.queue, next);
            told = self
                .ask(seen.shard, AdminAsk::Purge { queue, from })
                .await?;
        }
    }
}
