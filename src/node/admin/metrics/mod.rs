//! `GET /metrics`: the numbers of the node as Prometheus reads them.
//!
//! Nothing is kept for it: each scrape asks the shards, looks at what housekeeping says of their
//! files, and writes one table ([`families`]), which docs/operating.md lists.

mod families;

use std::time::Instant;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;

use super::desk::Desk;
use super::question::Failure;
use super::shape::ErrorReport;
use super::{Api, Identity};
use crate::housekeeping::BoardSeen;
use crate::housekeeping::folder::disk_of;
use crate::shard::{AdminAsk, AdminTold, ShardMetrics};

/// The format of the answer, as its readers ask for it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All there is to say at one moment.
#[derive(Debug)]
struct Scrape {
    identity: Identity,
    /// Bytes of the data folder's file system, and those of them that are free.
    disk: Option<(u64, u64)>,
    shards: Vec<ShardScrape>,
}

/// What is known of one shard.
#[derive(Debug)]
struct ShardScrape {
    shard: u16,
    /// `None` if it does not answer, or stops.
    told: Option<Box<ShardMetrics>>,
    board: BoardSeen,
    /// Seconds since the sealed segment that waits longest was checked.
    oldest_check_s: Option<f64>,
    cut_bytes: u64,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in families::FAMILIES {
            family.encode(self, &mut encoder)?;
        }
        Ok(())
    }
}

/// The path, for the listener that has no other.
pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(api)
}

/// Answers a scrape.
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let scrape = scrape(&api.desk, &api.identity).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            let error = error.to_string();
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            (status, Json(ErrorReport { error })).into_response()
        }
    }
}

async fn scrape(desk: &Desk, identity: &Identity) -> Scrape {
    let mut shards = Vec::new();
    for shard in desk.shards() {
        let told = desk.metrics(shard).await.ok();
        let index = usize::from(shard.0);
        let board = identity.boards.get(index);
        let board = board.map(|board| board.seen()).unwrap_or_default();
        shards.push(ShardScrape {
            shard: shard.0,
            told,
            oldest_check_s: board.oldest_check.map(age_s),
            board,
            cut_bytes: identity.cut_bytes.get(index).copied().unwrap_or(0),
        });
    }
    Scrape {
        identity: identity.clone(),
        disk: disk_of(&identity.data),
        shards,
    }
}

impl Desk {
    /// Asks a shard for its numbers.
    async fn metrics(&self, shard: forebay_journal::ShardId) -> Result<Box<ShardMetrics>, Failure> {
        match self.ask(shard, AdminAsk::Metrics).await? {
            AdminTold::Metrics(metrics) => Ok(metrics),
            _ => Err(Failure::Stopping),
        }
    }
}

fn age_s(at: Instant) -> f64 {
    at.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests;
