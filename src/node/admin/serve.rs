//! Connections to the admin socket: so many at once, one request each, none for ever.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::limits::ADMIN_CONNECTIONS_MAX;

/// How long a request may take to arrive.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may last: a purge of many millions of messages fits.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// How long accepting rests when the machine is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves until it is told to stop.
pub(super) async fn serve(
    listener: UnixListener,
    router: Router,
    mut stopped: oneshot::Receiver<()>,
) {
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX as usize));
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            let (stream, _) = listener.accept().await.ok()?;
            Some((stream, permit))
        };
        tokio::select! {
            _ = &mut stopped => return,
            accepted = accepted => match accepted {
                Some((stream, permit)) => {
                    tokio::spawn(answer(stream, router.clone(), permit));
                }
                None => tokio::time::sleep(ACCEPT_REST).await,
            },
        }
    }
}

async fn answer(stream: UnixStream, router: Router, _permit: OwnedSemaphorePermit) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A peer that breaks off is its own business.
    let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
}
