//! The admin socket in the data folder: `admin.sock`, for its owner alone.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Name of the socket in the data folder.
const NAME: &str = "admin.sock";
/// Its name until it is as it should be.
const NEW_NAME: &str = "admin.sock.new";
/// Who may connect: the owner.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// The listening admin socket.
#[derive(Debug)]
pub(in crate::node) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Opens the socket of a data folder; call with the folder's lock held: what is there is a dead
/// broker's, and is replaced.
///
/// Errors: the system's: a file system without sockets, no permission.
pub(in crate::node) fn listen(folder: &Path) -> io::Result<AdminSocket> {
    let (_folder, names) = short_names(folder)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    remove_if_there(&names.join(NEW_NAME))?;
    socket.bind(&SockAddr::unix(names.join(NEW_NAME))?)?;
    // Nobody gets in before this: it does not listen yet.
    fs::set_permissions(names.join(NEW_NAME), Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    fs::rename(names.join(NEW_NAME), names.join(NAME))?;
    Ok(AdminSocket {
        listener: UnixListener::from(socket),
        path: folder.join(NAME),
    })
}

/// Connects to the broker that runs on a data folder.
///
/// Errors: the system's: `NotFound` and `ConnectionRefused` mean that there is none.
pub(in crate::node) fn connect(folder: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let (_folder, names) = short_names(folder)?;
    let stream = std::os::unix::net::UnixStream::connect(names.join(NAME))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

impl AdminSocket {
    /// The listener, non-blocking.
    ///
    /// Errors: out of descriptors.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Takes its name away: nobody is there any more.
    pub(super) fn remove(&self) {
        if let Err(error) = remove_if_there(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Another name of the folder, as short as an address of a socket has to be, good while the file is
/// open.
fn short_names(folder: &Path) -> io::Result<(File, PathBuf)> {
    let file = File::open(folder)?;
    let names = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Ok((file, names))
}

#[allow(clippy::disallowed_methods, reason = "a socket's name holds nothing")]
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_brokers_socket_is_replaced_whatever_the_length_of_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(150));
        fs::create_dir(&deep).unwrap();
        assert_eq!(connect(&deep).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(listen(&deep).unwrap());
        let refused = connect(&deep).unwrap_err().kind();
        assert_eq!(refused, io::ErrorKind::ConnectionRefused);
        let socket = listen(&deep).unwrap();
        connect(&deep).unwrap();
        let mode = fs::metadata(deep.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        socket.remove();
        assert_eq!(connect(&deep).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
