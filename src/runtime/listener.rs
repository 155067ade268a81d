//! Listening sockets: one per shard on the same port, and nobody else's there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// The longest a port is waited for that no process has, and the pause between two tries.
const ABANDONED_MAX: Duration = Duration::from_secs(2);
const ABANDONED_LOOK: Duration = Duration::from_millis(10);

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
    holder: Option<String>,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.error)?;
        if let Some(holder) = &self.holder {
            write!(f, "; it is held by {holder}")?;
        }
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    ". Remedy: stop that process, or choose another port (--stomp HOST:PORT)"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    ". Remedy: name an address of this machine (`ip address` lists them)"
                )
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    ". Remedy: choose a port above 1023, or allow the process to bind it"
                )
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ListenError {}

/// Opens `count` listening sockets on `address`; returns them with the address they got.
///
/// The first is bound without SO_REUSEPORT, so that it fails if anybody listens there; only then
/// the port is opened for our other shards. A port that no process has is waited for, briefly: the
/// kernel takes down a killed broker's ring, and with it the listener, after the process is gone.
/// Errors: the system's, with who holds the port if that can be told.
pub fn listen(
    address: SocketAddr,
    count: usize,
) -> Result<(Vec<OwnedFd>, SocketAddr), ListenError> {
    let mut waited = Duration::ZERO;
    loop {
        let error = match open_all(address, count) {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let is_taken = error.kind() == io::ErrorKind::AddrInUse;
        let holder = match is_taken.then(|| holder_of(address.port())) {
            Some(Holder::Process(name)) => Some(name),
            Some(Holder::Unknown) if waited < ABANDONED_MAX => {
                pause();
                waited += ABANDONED_LOOK;
                continue;
            }
            Some(Holder::Unknown) => Some("a process of another user".to_owned()),
            None => None,
        };
        return Err(ListenError {
            address,
            error,
            holder,
        });
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "nobody tells when the kernel is done with a port"
)]
fn pause() {
    std::thread::sleep(ABANDONED_LOOK);
}

fn open_all(address: SocketAddr, count: usize) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let first = open(address)?;
    // Rebinding right after a crash must work; SO_REUSEADDR never shares with a live listener.
    first.set_reuse_address(true)?;
    first.bind(&address.into())?;
    let bound = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no internet address"))?;
    let mut sockets = vec![first];
    if count > 1 {
        sockets[0].set_reuse_port(true)?;
        for _ in 1..count {
            let socket = open(address)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&bound.into())?;
            sockets.push(socket);
        }
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok((sockets.into_iter().map(OwnedFd::from).collect(), bound))
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
}

/// Who listens on a port.
enum Holder {
    Process(String),
    /// Nobody that can be seen: not ours to look at, or already dead.
    Unknown,
}

/// Finds the process that listens on a port, by the socket's inode in /proc.
fn holder_of(port: u16) -> Holder {
    find_holder(port).map_or(Holder::Unknown, Holder::Process)
}

#[allow(
    clippy::disallowed_methods,
    reason = "reads /proc once, to name who is in the way"
)]
fn find_holder(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = std::fs::read_to_string(table).ok()?;
            listening_inode(&table, port)
        })?;
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let is_holder = descriptors
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == &*wanted));
        if is_holder {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", command.trim()));
        }
    }
    None
}

/// The inode of the listening socket on `port` in a /proc/net/tcp table.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let found = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        // After the state: queues, timer, retransmits, uid, timeout, inode.
        (found == port && state == "0A")
            .then(|| fields.nth(5)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_may_listen_and_the_holder_is_named() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        for count in [1, 3] {
            let (sockets, bound) = listen(any, count).expect("a free port");
            assert_eq!(sockets.len(), count);
            let error = listen(bound, count).expect_err("taken").to_string();
            let pid = format!("process {}", std::process::id());
            assert!(error.contains(&pid), "{error}");
        }
    }
}
