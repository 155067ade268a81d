//! The paths of the admin side. docs/operating.md lists them.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use forebay_journal::ShardId;
use serde::Deserialize;

use super::super::damaged::DamagedShard;
use super::question::{Failure, Target};
use super::shape::{
    DamageReport, DoneReport, ErrorReport, HealthReport, ListReport, QueueReport, ShardReport,
    SpaceReport,
};
use super::{Api, metrics};
use crate::housekeeping::folder::disk_of;
use crate::shard::{AdminAsk, QueueSeen, Routing};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoutingWord {
    Anycast,
    Multicast,
}

// What is not known in a query is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    routing: Option<RoutingWord>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichForced {
    routing: Option<RoutingWord>,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    from: Option<String>,
}

type Name = Result<Path<String>, PathRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

/// All paths.
pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/v1/health", get(health))
        .route("/v1/queues", get(list))
        .route("/v1/queues/{name}", get(show).delete(delete))
        .route("/v1/queues/{name}/pause", post(pause))
        .route("/v1/queues/{name}/resume", post(resume))
        .route("/v1/queues/{name}/purge", post(purge))
        .fallback(|| no_such(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(|| {
            no_such(StatusCode::METHOD_NOT_ALLOWED, "not by this method")
        })
        .with_state(api)
}

async fn no_such(status: StatusCode, reason: &str) -> Response {
    let error = reason.to_owned();
    (status, Json(ErrorReport { error })).into_response()
}

async fn health(State(api): State<Api>) -> Response {
    let mut shards = Vec::new();
    for shard in api.desk.shards() {
        let told = api.desk.health(shard).await;
        let known = told.as_ref().ok();
        let mut damaged = api.identity.damaged.iter();
        let damage = damaged.find(|one| one.shard == shard);
        let is_stopping = told == Err(Failure::Stopping);
        shards.push(ShardReport {
            shard: shard.0,
            answers: known.is_some() || is_stopping,
            stopping: is_stopping || known.is_some_and(|one| one.is_stopping),
            connections: known.map_or(0, |one| one.connections as u64),
            queues: known.map_or(0, |one| one.queues as u64),
            disk_full: known.is_some_and(|one| one.is_disk_full),
            waiting_for_segment: known.is_some_and(|one| one.is_waiting_for_segment),
            refusing_messages: known.is_some_and(|one| one.is_refusing),
            space: known.map(|one| SpaceReport::from(one.space)),
            damages: damages_of(&api, shard).await,
            damage: damage.map(DamagedShard::report),
        });
    }
    let serving = shards.iter().all(|one| one.answers && !one.stopping);
    let status = if serving {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let disk = disk_of(&api.identity.data);
    let report = HealthReport {
        serving,
        node: api.identity.node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: api.identity.epoch,
        quarantined_files: api.identity.quarantine.files,
        quarantined_bytes: api.identity.quarantine.bytes,
        disk_size_bytes: disk.map(|(size, _)| size),
        disk_free_bytes: disk.map(|(_, free)| free),
        shards,
    };
    (status, Json(report)).into_response()
}

/// What the scrubber found in files that are still there, and whether anything needs them.
async fn damages_of(api: &Api, shard: ShardId) -> Vec<DamageReport> {
    let board = api.identity.boards.get(usize::from(shard.0));
    let damages = board.map(|board| board.seen().damages).unwrap_or_default();
    let mut reports = Vec::new();
    let mut last = None;
    for damage in damages {
        let needed = match last {
            Some((segment, needed)) if segment == damage.segment => needed,
            _ => api.desk.needed_records(shard, damage.segment).await.ok(),
        };
        last = Some((damage.segment, needed));
        reports.push(DamageReport::from((damage, needed)));
    }
    reports
}

async fn list(State(api): State<Api>, from: Asked<From>) -> Result<Json<ListReport>, Failure> {
    let Query(From { from }) = from.map_err(|_| BAD_QUERY)?;
    let (shard, place) = match from.as_deref() {
        None => (0, 0),
        Some(from) => parse_place(from).ok_or(Failure::Bad("`from` is not of a listing"))?,
    };
    if !api.desk.shards().any(|known| known.0 == shard) {
        return Err(Failure::Bad("`from` names no shard"));
    }
    let (queues, next) = api.desk.list(ShardId(shard), place).await?;
    let behind = api.desk.shards().find(|other| other.0 > shard);
    let next = match (next, behind) {
        (Some(place), _) => Some(format!("{shard}.{place}")),
        (None, Some(next)) => Some(format!("{next}.0")),
        (None, None) => None,
    };
    let queues = queues.into_iter().map(QueueReport::from).collect();
    let damaged = api.desk.damaged().iter().map(|shard| shard.0);
    Ok(Json(ListReport {
        queues,
        next,
        damaged_shards: damaged.collect(),
    }))
}

fn parse_place(from: &str) -> Option<(u16, u32)> {
    let (shard, place) = from.split_once('.')?;
    Some((shard.parse().ok()?, place.parse().ok()?))
}

async fn show(
    State(api): State<Api>,
    name: Name,
    which: Asked<Which>,
) -> Result<Json<QueueReport>, Failure> {
    let target = target(name, which)?;
    let seen = api.desk.find(&target).await?;
    Ok(Json(QueueReport::from(seen)))
}

async fn pause(
    api: State<Api>,
    name: Name,
    which: Asked<Which>,
) -> Result<Json<DoneReport>, Failure> {
    set_paused(api, target(name, which)?, true).await
}

async fn resume(
    api: State<Api>,
    name: Name,
    which: Asked<Which>,
) -> Result<Json<DoneReport>, Failure> {
    set_paused(api, target(name, which)?, false).await
}

async fn set_paused(
    State(api): State<Api>,
    target: Target,
    is_paused: bool,
) -> Result<Json<DoneReport>, Failure> {
    let ask = |seen: &QueueSeen| AdminAsk::Pause {
        queue: seen.queue,
        is_paused,
    };
    api.desk.operate(&target, ask).await?;
    Ok(Json(DoneReport {
        queue: target.name,
        paused: Some(is_paused),
        ..DoneReport::default()
    }))
}

async fn purge(
    State(api): State<Api>,
    name: Name,
    which: Asked<Which>,
) -> Result<Json<DoneReport>, Failure> {
    let target = target(name, which)?;
    let purged = api.desk.purge(&target).await?;
    Ok(Json(DoneReport {
        queue: target.name,
        purged: Some(purged),
        ..DoneReport::default()
    }))
}

async fn delete(
    State(api): State<Api>,
    name: Name,
    which: Asked<WhichForced>,
) -> Result<Json<DoneReport>, Failure> {
    let Query(WhichForced { routing, force }) = which.map_err(|_| BAD_QUERY)?;
    let target = target(name, Ok(Query(Which { routing })))?;
    let ask = |seen: &QueueSeen| AdminAsk::Delete {
        queue: seen.queue,
        is_forced: force,
    };
    api.desk.operate(&target, ask).await?;
    Ok(Json(DoneReport {
        queue: target.name,
        deleted: Some(true),
        ..DoneReport::default()
    }))
}

const BAD_QUERY: Failure = Failure::Bad("the query is not understood");

fn target(name: Name, which: Asked<Which>) -> Result<Target, Failure> {
    let Path(name) = name.map_err(|_| Failure::Bad("the name is not UTF-8"))?;
    let Query(Which { routing }) = which.map_err(|_| BAD_QUERY)?;
    let routing = routing.map(|word| match word {
        RoutingWord::Anycast => Routing::Anycast,
        RoutingWord::Multicast => Routing::Multicast,
    });
    Ok(Target { name, routing })
}
