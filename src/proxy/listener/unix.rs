//! Listening on a Unix socket: a file that only its owners may connect to, that replaces what a dead
//! process left behind, and goes when the process ends.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use super::BACKLOG;

/// The file of a listening socket; removed when dropped, unless it is another one's by then or was left to another
/// process.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    file: (u64, u64),
    left: AtomicBool,
}

impl SocketFile {
    /// The file of a socket that this process looks after from now on.
    ///
    /// # Errors
    /// When it is not there, or its mode cannot be set.
    pub fn of(path: &Path, mode: u32) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        let file = (metadata.dev(), metadata.ino());
        let file = Self { path: path.to_owned(), file, left: AtomicBool::new(false) };
        file.set_mode(mode)?;
        Ok(file)
    }

    /// Says who may connect.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode))
    }

    /// The file of a socket that another process looks after, if it is there still; `None` where it is another file by
    /// now.
    #[must_use]
    pub fn of_other(path: &Path, file: (u64, u64)) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        let is_same = (metadata.dev(), metadata.ino()) == file;
        is_same.then(|| Self { path: path.to_owned(), file, left: AtomicBool::new(true) })
    }

    /// Device and inode.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.file
    }

    /// Leaves it to another process that listens there, too.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Looks after it from now on.
    pub fn keep(&self) {
        self.left.store(false, Ordering::Relaxed);
    }

    /// Whether another process looks after it.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

/// Listens at `path`, which whoever `mode` lets write may connect to.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_stale(path, &address)?;
        socket.bind(&address)?;
    }
    // Its mode is set before anybody can connect: nobody listens yet.
    let file = SocketFile::of(path, mode)?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Removes a socket on which nobody listens any more; anything else is left alone.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of this name that is no socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Whoever listens and is busy must not make us wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if !self.is_left() && std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // Where it cannot be removed, the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_that_a_dead_process_left_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (listener, file) = bind(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // As after a kill: the socket is closed, its file is there.
        drop(listener);
        std::mem::forget(file);
        let (_listener, file) = bind(&path, 0o660).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn a_file_that_somebody_else_put_there_meanwhile_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (_listener, file) = bind(&path, 0o600).unwrap();
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        let (_other, other) = bind(&path, 0o600).unwrap();
        drop(file);
        assert!(path.exists());
        drop(other);
    }
}
