//! Accepting connections without waiting for them.

use super::TAKING;
use crate::sys;
use std::{os::fd::RawFd, sync::PoisonError};

/// # Safety
/// `addr` and `len` are null, or valid for an address.
pub(super) unsafe fn accept(fd: RawFd, addr: *mut libc::sockaddr, len: *mut libc::socklen_t, flags: i32) -> i32 {
    // SAFETY: promised by the caller.
    let accept = || unsafe { sys::accept(fd, addr, len, flags) };
    if !sys::is_blocking(fd) {
        return accept();
    }
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = sys::poll_one(fd, libc::POLLIN as u16, 0);
    if ready < 0 {
        return ready;
    }
    // What does not listen may be reported too, as hung up.
    if ready == i32::from(libc::POLLIN) || listens(fd) {
        return if ready & i32::from(libc::POLLIN) != 0 { accept() } else { -libc::EAGAIN };
    }
    // The call would say so, or wait if the socket has begun to listen meanwhile. All others have nothing to wait for.
    if may_come_to_listen(fd) { -libc::EINVAL } else { accept() }
}

/// Whether connections can come.
fn listens(fd: RawFd) -> bool {
    let mut listens: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointers are to locals of the sizes given.
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut listens).cast(), &mut len) };
    listens != 0
}

/// Whether this is a socket of those kinds that wait for connections when they listen, and refuse to accept one when
/// they do not.
fn may_come_to_listen(fd: RawFd) -> bool {
    matches!(
        (sys::socket_type(fd), sys::socket_domain(fd)),
        (Ok(libc::SOCK_STREAM), libc::AF_UNIX | libc::AF_INET | libc::AF_INET6)
            | (Ok(libc::SOCK_SEQPACKET), libc::AF_UNIX)
    )
}
