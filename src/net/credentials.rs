//! Who is at the other end of a Unix socket.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The process at the other end of a Unix socket, as it was when the connection was made; see
/// [`UnixStream::peer_cred`](super::UnixStream::peer_cred).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// The process's number. The process may be gone, and another may have its number.
    pub pid: i32,
    /// The user that it acts as.
    pub uid: u32,
    /// The group that it acts as.
    pub gid: u32,
}

pub(super) fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), (&raw mut peer).cast());
    // SAFETY: both pointers are to locals, and `len` is the size of the one that is filled.
    if unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, value, &mut len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Credentials { pid: peer.pid, uid: peer.uid, gid: peer.gid })
}
