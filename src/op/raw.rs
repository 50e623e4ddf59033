//! Operations as engines see them: numbers and raw pointers, no types, no lifetimes.
#![allow(unsafe_code)]

use crate::{
    Error,
    driver::{pool::Pool, shots::Shots},
    queue::Bell,
    sys,
};
use libc::{c_char, c_int, c_void};
use std::{os::fd::RawFd, sync::atomic::AtomicU32};

/// As an offset: read or write at the file's current position, and advance it.
pub(crate) const CURRENT_POSITION: u64 = u64::MAX;

/// A message did not fit.
pub(crate) const CUT: c_int = libc::MSG_TRUNC | libc::MSG_CTRUNC;

/// A descriptor as an engine sees it: a number, or the one that an earlier operation of the same chain opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fd(c_int);

impl Fd {
    /// The descriptor which the chain's own `Open` yields.
    pub const OPENED: Fd = Fd(-1000);

    #[inline]
    pub const fn new(fd: RawFd) -> Fd {
        Fd(fd)
    }

    #[inline]
    pub fn number(self) -> RawFd {
        self.0
    }

    #[inline]
    pub fn is_opened(self) -> bool {
        self == Fd::OPENED
    }
}

/// Where `Open` puts its descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Into the process's descriptor table; the result is its number.
    Table,
    /// Into the chain, for the operations that name [`Fd::OPENED`].
    Chain,
    /// Into a place of the ring's table.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Place(u32),
}

/// What a multishot operation does again and again.
#[derive(Clone, Copy, Debug)]
pub enum Multi {
    Accept,
    /// Ends after the first result if it is to be done `once`. Where the kernel may fill several buffers at a time it is
    /// told to.
    Recv {
        pool: *const Pool,
        flags: c_int,
        once: bool,
        bundled: bool,
    },
    Read {
        pool: *const Pool,
    },
    /// Each buffer begins with the kernel's `io_uring_recvmsg_out` and the address.
    RecvMsg {
        pool: *const Pool,
        msg: *mut libc::msghdr,
        flags: c_int,
    },
    Poll {
        events: u16,
    },
    /// Ends after `left` more; never if that is zero from the start.
    Timeout {
        nanos: u64,
        left: u32,
    },
}

impl Multi {
    /// Where the buffers come from.
    pub fn pool(&self) -> Option<*const Pool> {
        match *self {
            Multi::Recv { pool, .. } | Multi::Read { pool } | Multi::RecvMsg { pool, .. } => Some(pool),
            _ => None,
        }
    }

    /// Whether its first result is the only one: the operation then takes a buffer as the others do, and ends.
    pub fn is_once(&self) -> bool {
        matches!(self, Multi::Recv { once: true, .. })
    }
}

/// An operation as plain data.
///
/// The pointers stay valid until the operation's terminal completion: whoever builds one promises that.
#[derive(Clone, Copy, Debug)]
pub enum RawOp {
    Nop,
    /// Fails with this error when its turn comes.
    Invalid(Error),
    Read {
        fd: Fd,
        buf: *mut u8,
        len: u32,
        offset: u64,
        nowait: bool,
        /// The number of the registered memory that the buffer is part of, counted from 1; 0 if it is none.
        buffer: u16,
    },
    Write {
        fd: Fd,
        buf: *const u8,
        len: u32,
        offset: u64,
        nowait: bool,
        buffer: u16,
    },
    Readv {
        fd: Fd,
        iov: *const libc::iovec,
        count: u32,
        offset: u64,
        nowait: bool,
    },
    Writev {
        fd: Fd,
        iov: *const libc::iovec,
        count: u32,
        offset: u64,
        nowait: bool,
    },
    Fsync {
        fd: Fd,
        data_only: bool,
    },
    Open {
        dir: Fd,
        path: *const c_char,
        flags: c_int,
        mode: u32,
        target: Target,
    },
    Close {
        fd: Fd,
    },
    Statx {
        dir: Fd,
        path: *const c_char,
        flags: c_int,
        mask: u32,
        out: *mut sys::Statx,
    },
    Rename {
        from_dir: Fd,
        from: *const c_char,
        to_dir: Fd,
        to: *const c_char,
        flags: u32,
    },
    Unlink {
        dir: Fd,
        path: *const c_char,
        flags: c_int,
    },
    Mkdir {
        dir: Fd,
        path: *const c_char,
        mode: u32,
    },
    Symlink {
        target: *const c_char,
        dir: Fd,
        path: *const c_char,
    },
    Link {
        from_dir: Fd,
        from: *const c_char,
        to_dir: Fd,
        to: *const c_char,
        flags: c_int,
    },
    Truncate {
        fd: Fd,
        len: u64,
    },
    Allocate {
        fd: Fd,
        mode: c_int,
        offset: u64,
        len: u64,
    },
    Advise {
        fd: Fd,
        offset: u64,
        len: u32,
        advice: c_int,
    },
    Splice {
        from: Fd,
        from_offset: u64,
        to: Fd,
        to_offset: u64,
        len: u32,
        flags: u32,
    },
    /// Copies from one pipe into another.
    Tee {
        from: Fd,
        to: Fd,
        len: u32,
        flags: u32,
    },
    /// Makes two descriptors; the result is 0.
    Pipe {
        fds: *mut c_int,
        flags: c_int,
    },
    Socket {
        domain: c_int,
        kind: c_int,
        protocol: c_int,
        target: Target,
    },
    Bind {
        fd: Fd,
        addr: *const libc::sockaddr,
        len: libc::socklen_t,
    },
    Listen {
        fd: Fd,
        backlog: c_int,
    },
    Accept {
        fd: Fd,
        addr: *mut libc::sockaddr,
        len: *mut libc::socklen_t,
        flags: c_int,
        nowait: bool,
        target: Target,
    },
    Connect {
        fd: Fd,
        addr: *const libc::sockaddr,
        len: libc::socklen_t,
    },
    Recv {
        fd: Fd,
        buf: *mut u8,
        len: u32,
        flags: c_int,
    },
    Send {
        fd: Fd,
        buf: *const u8,
        len: u32,
        flags: c_int,
    },
    RecvMsg {
        fd: Fd,
        msg: *mut libc::msghdr,
        flags: c_int,
    },
    SendMsg {
        fd: Fd,
        msg: *const libc::msghdr,
        flags: c_int,
    },
    /// A `Send` whose buffer the kernel uses until the operation ends, if it can.
    SendZc {
        fd: Fd,
        buf: *const u8,
        len: u32,
        flags: c_int,
    },
    /// The same for `SendMsg`.
    SendMsgZc {
        fd: Fd,
        msg: *const libc::msghdr,
        flags: c_int,
    },
    Shutdown {
        fd: Fd,
        how: c_int,
    },
    SetSockOpt {
        fd: Fd,
        level: c_int,
        name: c_int,
        value: *const c_void,
        len: libc::socklen_t,
    },
    /// The result is the length of the value.
    GetSockOpt {
        fd: Fd,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        len: libc::socklen_t,
    },
    /// The result is the mask of what is ready.
    Poll {
        fd: Fd,
        events: u16,
    },
    /// Expires with success.
    Timeout {
        clock: super::Clock,
        absolute: bool,
        at: sys::Timespec,
    },
    /// Cancels what this engine has in flight on the same open file. The result is how many.
    CancelFd {
        fd: Fd,
    },
    /// Succeeds when the process has ended. `pidfd` is negative where the system has none.
    ChildExit {
        pid: libc::pid_t,
        pidfd: Fd,
    },
    /// Waits for what `waitid(2)` does.
    WaitId {
        which: u32,
        id: u32,
        flags: c_int,
        info: *mut libc::siginfo_t,
    },
    /// Rings a queue's bell.
    Wake {
        bell: *const Bell,
    },
    /// Waits until the word is woken, if it holds the value.
    FutexWait {
        word: *const AtomicU32,
        value: u32,
    },
    /// The result is how many were woken.
    FutexWake {
        word: *const AtomicU32,
        count: u32,
    },
    /// An entry as the program has built it; for rings only.
    Entry(*const [u64; 8]),
    /// A descriptor for a file that is in the ring's table, or one more for a file that has one.
    Install {
        fd: Fd,
    },
    /// Has many results, which go to `shots`. It stands alone, and has no limit.
    Multi {
        fd: Fd,
        what: Multi,
        shots: *const Shots,
    },
}

impl RawOp {
    /// Whether every engine does the operation by itself, and it is done so often that it has a short way through; and
    /// it names no descriptor that its own chain opens.
    #[inline(always)]
    pub fn is_basic(&self) -> bool {
        match self {
            RawOp::Nop => true,
            RawOp::Read { fd, .. } | RawOp::Write { fd, .. } | RawOp::Recv { fd, .. } | RawOp::Send { fd, .. } => {
                !fd.is_opened()
            }
            _ => false,
        }
    }

    /// Writes the operation to its slot.
    ///
    /// The [basic](Self::is_basic) ones field by field: copied as a whole they would be read back from the frame in
    /// larger pieces than they were just written in, which stalls for longer than a no-op takes.
    ///
    /// # Safety
    /// `place` is valid for a write.
    #[inline]
    pub unsafe fn store(self, place: *mut RawOp) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                RawOp::Nop => place.write(RawOp::Nop),
                RawOp::Read { fd, buf, len, offset, nowait, buffer } => {
                    place.write(RawOp::Read { fd, buf, len, offset, nowait, buffer });
                }
                RawOp::Write { fd, buf, len, offset, nowait, buffer } => {
                    place.write(RawOp::Write { fd, buf, len, offset, nowait, buffer });
                }
                RawOp::Recv { fd, buf, len, flags } => place.write(RawOp::Recv { fd, buf, len, flags }),
                RawOp::Send { fd, buf, len, flags } => place.write(RawOp::Send { fd, buf, len, flags }),
                other => place.write(other),
            }
        }
    }

    /// A send that leaves its bytes where they are, as one that copies them; anything else as it is.
    #[inline]
    pub fn copying(self) -> RawOp {
        match self {
            RawOp::SendZc { fd, buf, len, flags } => RawOp::Send { fd, buf, len, flags },
            RawOp::SendMsgZc { fd, msg, flags } => RawOp::SendMsg { fd, msg, flags },
            other => other,
        }
    }

    /// Whether it is a send that leaves its bytes where they are.
    #[inline]
    pub fn is_zero_copy(&self) -> bool {
        matches!(self, RawOp::SendZc { .. } | RawOp::SendMsgZc { .. })
    }

    /// Whether a success with this result breaks a soft link all the same, because it fell short.
    ///
    /// The kernel decides by opcode, not by the kind of descriptor: a short read of a socket breaks the chain and a
    /// short receive does not, unless it asked for everything with `MSG_WAITALL`.
    ///
    /// # Safety
    /// The operation's pointers are still valid: the operation was not settled.
    pub unsafe fn falls_short(&self, result: u32) -> bool {
        match *self {
            RawOp::Read { len, .. } | RawOp::Write { len, .. } | RawOp::Splice { len, .. } | RawOp::Tee { len, .. } => {
                result < len
            }
            RawOp::Readv { iov, count, .. } | RawOp::Writev { iov, count, .. } => {
                // SAFETY: promised by the caller.
                u64::from(result) < unsafe { iov_len(iov, count as usize) }
            }
            RawOp::Recv { len, flags, .. } | RawOp::Send { len, flags, .. } | RawOp::SendZc { len, flags, .. } => {
                flags & libc::MSG_WAITALL != 0 && result < len
            }
            RawOp::RecvMsg { msg, flags, .. } => {
                // SAFETY: promised by the caller; the kernel has filled in the flags. A message that was cut counts as
                // short, although the buffers are full.
                flags & libc::MSG_WAITALL != 0
                    && unsafe { (*msg).msg_flags & CUT != 0 || u64::from(result) < msg_len(msg) }
            }
            RawOp::SendMsg { msg, flags, .. } | RawOp::SendMsgZc { msg, flags, .. } => {
                // SAFETY: promised by the caller.
                flags & libc::MSG_WAITALL != 0 && u64::from(result) < unsafe { msg_len(msg) }
            }
            _ => false,
        }
    }

    /// Whether it is a receive of everything or nothing. If it cuts a datagram, the kernel breaks a soft link and does
    /// not tell.
    pub fn may_break_in_silence(&self) -> bool {
        matches!(self, RawOp::Recv { flags, .. } if flags & libc::MSG_WAITALL != 0)
    }

    /// The descriptors that the operation names.
    pub fn fds_mut(&mut self) -> [Option<&mut Fd>; 2] {
        match self {
            RawOp::Read { fd, .. }
            | RawOp::Write { fd, .. }
            | RawOp::Readv { fd, .. }
            | RawOp::Writev { fd, .. }
            | RawOp::Fsync { fd, .. }
            | RawOp::Open { dir: fd, .. }
            | RawOp::Close { fd }
            | RawOp::Statx { dir: fd, .. }
            | RawOp::Unlink { dir: fd, .. }
            | RawOp::Mkdir { dir: fd, .. }
            | RawOp::Symlink { dir: fd, .. }
            | RawOp::Truncate { fd, .. }
            | RawOp::Allocate { fd, .. }
            | RawOp::Advise { fd, .. }
            | RawOp::Bind { fd, .. }
            | RawOp::Listen { fd, .. }
            | RawOp::Accept { fd, .. }
            | RawOp::Connect { fd, .. }
            | RawOp::Recv { fd, .. }
            | RawOp::Send { fd, .. }
            | RawOp::RecvMsg { fd, .. }
            | RawOp::SendMsg { fd, .. }
            | RawOp::SendZc { fd, .. }
            | RawOp::SendMsgZc { fd, .. }
            | RawOp::Shutdown { fd, .. }
            | RawOp::SetSockOpt { fd, .. }
            | RawOp::GetSockOpt { fd, .. }
            | RawOp::Poll { fd, .. }
            | RawOp::Multi { fd, .. }
            | RawOp::Install { fd }
            | RawOp::CancelFd { fd } => [Some(fd), None],
            RawOp::Rename { from_dir: from, to_dir: to, .. }
            | RawOp::Link { from_dir: from, to_dir: to, .. }
            | RawOp::Splice { from, to, .. }
            | RawOp::Tee { from, to, .. } => [Some(from), Some(to)],
            RawOp::Nop
            | RawOp::Invalid(_)
            | RawOp::Pipe { .. }
            | RawOp::Socket { .. }
            | RawOp::Timeout { .. }
            | RawOp::ChildExit { .. }
            | RawOp::WaitId { .. }
            | RawOp::Wake { .. }
            | RawOp::FutexWait { .. }
            | RawOp::FutexWake { .. }
            | RawOp::Entry(_) => [None, None],
        }
    }

    /// Where the results of a multishot operation go.
    #[inline]
    pub fn shots(&self) -> Option<*const Shots> {
        match *self {
            RawOp::Multi { shots, .. } => Some(shots),
            _ => None,
        }
    }

    /// Whether the operation names the descriptor that its own chain opens.
    #[inline]
    pub fn names_opened(&self) -> bool {
        match self {
            RawOp::Nop => false,
            RawOp::Read { fd, .. } | RawOp::Write { fd, .. } | RawOp::Recv { fd, .. } | RawOp::Send { fd, .. } => {
                fd.is_opened()
            }
            // Not inlined: the basic ones are asked about on the short way.
            other => other.any_is_opened(),
        }
    }

    fn any_is_opened(mut self) -> bool {
        self.fds_mut().into_iter().flatten().any(|fd| fd.is_opened())
    }

    /// Whether it may name a direct descriptor of a ring.
    pub fn takes_direct(&self) -> bool {
        matches!(
            self,
            RawOp::Read { .. }
                | RawOp::Write { .. }
                | RawOp::Readv { .. }
                | RawOp::Writev { .. }
                | RawOp::Fsync { .. }
                | RawOp::Close { .. }
                | RawOp::Truncate { .. }
                | RawOp::Allocate { .. }
                | RawOp::Advise { .. }
        )
    }

    /// Whether it may name a [`FixedFile`](crate::FixedFile), on whatever engine: whether a ring does all of it.
    pub fn takes_fixed(&self) -> bool {
        match self {
            RawOp::Open { .. } | RawOp::Statx { .. } | RawOp::Unlink { .. } | RawOp::Mkdir { .. } => false,
            RawOp::Symlink { .. } | RawOp::Rename { .. } | RawOp::Link { .. } | RawOp::ChildExit { .. } => false,
            RawOp::GetSockOpt { level, .. } => *level == libc::SOL_SOCKET,
            RawOp::Splice { .. } => true,
            // Which of two descriptors is meant is for each operation to say.
            other => { *other }.fds_mut()[1].is_none(),
        }
    }

    /// Whether it names a place of the ring's table, so that nothing but the ring can do it.
    pub fn needs_ring(&self) -> bool {
        let into_place = matches!(
            self,
            RawOp::Open { target: Target::Place(_), .. }
                | RawOp::Socket { target: Target::Place(_), .. }
                | RawOp::Accept { target: Target::Place(_), .. }
        );
        into_place || { *self }.fds_mut().into_iter().flatten().any(|fd| fd.place().is_some())
    }

    /// The offset of a read or write.
    pub fn offset_mut(&mut self) -> Option<&mut u64> {
        match self {
            RawOp::Read { offset, .. }
            | RawOp::Write { offset, .. }
            | RawOp::Readv { offset, .. }
            | RawOp::Writev { offset, .. } => Some(offset),
            _ => None,
        }
    }

    /// Whether the operation asked not to wait, so that `EAGAIN` is its answer and no reason to try again.
    pub fn is_nonblocking(&self) -> bool {
        match *self {
            RawOp::Read { nowait, .. }
            | RawOp::Write { nowait, .. }
            | RawOp::Readv { nowait, .. }
            | RawOp::Writev { nowait, .. }
            | RawOp::Accept { nowait, .. } => nowait,
            RawOp::Recv { flags, .. }
            | RawOp::Send { flags, .. }
            | RawOp::RecvMsg { flags, .. }
            | RawOp::SendMsg { flags, .. }
            | RawOp::SendZc { flags, .. }
            | RawOp::SendMsgZc { flags, .. } => flags & libc::MSG_DONTWAIT != 0,
            RawOp::Splice { flags, .. } | RawOp::Tee { flags, .. } => flags & sys::SPLICE_NONBLOCK != 0,
            _ => false,
        }
    }

    /// Whether the descriptor may be a file on a disk, for which there is no readiness.
    pub fn may_be_file(&self) -> bool {
        matches!(
            self,
            RawOp::Read { .. }
                | RawOp::Write { .. }
                | RawOp::Readv { .. }
                | RawOp::Writev { .. }
                | RawOp::Splice { .. }
        )
    }

    /// Whether a send or receive works on a stream of bytes, where a part may be followed by the rest.
    pub fn is_stream(&self) -> bool {
        match *self {
            RawOp::Recv { fd, flags, .. } | RawOp::RecvMsg { fd, flags, .. } => {
                flags & libc::MSG_PEEK == 0 && sys::is_stream(fd.number())
            }
            RawOp::Send { fd, .. } | RawOp::SendMsg { fd, .. } => sys::is_stream(fd.number()),
            _ => false,
        }
    }

    /// The descriptor whose readiness the operation may have to wait for, and the direction as a `poll(2)` mask.
    pub fn readiness(&self) -> Option<(Fd, u16)> {
        const IN: u16 = libc::POLLIN as u16;
        const OUT: u16 = libc::POLLOUT as u16;
        match *self {
            RawOp::Read { fd, .. } | RawOp::Readv { fd, .. } | RawOp::Accept { fd, .. } => Some((fd, IN)),
            RawOp::Recv { fd, flags, .. } | RawOp::RecvMsg { fd, flags, .. } => {
                let urgent = if flags & libc::MSG_OOB != 0 { libc::POLLPRI as u16 } else { 0 };
                Some((fd, IN | urgent))
            }
            RawOp::Write { fd, .. }
            | RawOp::Writev { fd, .. }
            | RawOp::Connect { fd, .. }
            | RawOp::Send { fd, .. }
            | RawOp::SendMsg { fd, .. }
            | RawOp::SendZc { fd, .. }
            | RawOp::SendMsgZc { fd, .. } => Some((fd, OUT)),
            RawOp::Splice { from, .. } | RawOp::Tee { from, .. } => Some((from, IN)),
            RawOp::ChildExit { pidfd, .. } => Some((pidfd, IN)),
            RawOp::Poll { fd, events } | RawOp::Multi { fd, what: Multi::Poll { events }, .. } => Some((fd, events)),
            RawOp::Multi { what: Multi::Timeout { .. }, .. } => None,
            RawOp::Multi { fd, .. } => Some((fd, IN)),
            _ => None,
        }
    }
}

/// # Safety
/// `iov` points to `count` valid vectors.
unsafe fn iov_len(iov: *const libc::iovec, count: usize) -> u64 {
    // SAFETY: as promised by the caller.
    (0..count).map(|i| unsafe { (*iov.add(i)).iov_len } as u64).sum()
}

/// # Safety
/// `msg` and the vectors it names are valid.
unsafe fn msg_len(msg: *const libc::msghdr) -> u64 {
    // SAFETY: as promised by the caller. The field's type differs between systems.
    #[allow(clippy::unnecessary_cast)]
    unsafe {
        iov_len((*msg).msg_iov, (*msg).msg_iovlen as usize)
    }
}
