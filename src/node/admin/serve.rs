//! Connections to the admin side: so many at once at each door, one request each, none for ever.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::ADMIN_CONNECTIONS_MAX;

/// How long a request may take to arrive.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may last: a purge of many millions of messages fits.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// How long accepting rests when the machine is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Where connections come in.
pub(super) enum Door {
    /// The admin socket.
    Unix(UnixListener),
    /// The listener for metrics.
    Tcp(TcpListener),
}

enum Visitor {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Door {
    async fn accept(&self) -> io::Result<Visitor> {
        Ok(match self {
            Self::Unix(listener) => Visitor::Unix(listener.accept().await?.0),
            Self::Tcp(listener) => Visitor::Tcp(listener.accept().await?.0),
        })
    }
}

/// Serves for ever.
pub(super) async fn serve(door: Door, router: Router) {
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX as usize));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let router = router.clone();
        match door.accept().await {
            Ok(Visitor::Unix(stream)) => drop(tokio::spawn(answer(stream, router, permit))),
            Ok(Visitor::Tcp(stream)) => drop(tokio::spawn(answer(stream, router, permit))),
            Err(_) => tokio::time::sleep(ACCEPT_REST).await,
        }
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    _permit: OwnedSemaphorePermit,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A peer that breaks off is its own business.
    let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
}
