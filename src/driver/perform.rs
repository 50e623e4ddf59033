//! Operations by ordinary system calls: what the emulation does, and a ring that lacks an opcode.
//!
//! Two ways: [`now`] performs an operation whatever time it takes; [`attempt`] never waits.

mod accept;

use super::fault;
use crate::{
    op::{CURRENT_POSITION, CUT, Fd, RawOp},
    sys::{self, ret, ret_len},
};
use accept::accept;
use std::{
    os::fd::RawFd,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

/// What came of an [`attempt`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt {
    /// The result.
    Done(i32),
    /// The result, of a receive that had to cut a datagram: a success that breaks a soft link.
    Cut(i32),
    /// Not ready: to be attempted again when the descriptor is.
    Park,
    /// Only a call that may wait for a disk can tell.
    Worker,
    /// Nothing will tell when it is ready: to be attempted again after a moment.
    Later,
}

/// Reads and writes without an offset, and pipes, sockets and the like with any, which they ignore.
fn is_seekable_offset(offset: u64) -> bool {
    offset != CURRENT_POSITION
}

/// Performs an operation. It may wait for a disk, and does for a read or write of a file. Transfers on files go on
/// until they are complete, at the end of the file, or failed, as the kernel's own do.
///
/// # Safety
/// The operation's pointers are valid, as [`RawOp`] demands.
pub(crate) unsafe fn now(op: &RawOp) -> i32 {
    if let Some(error) = disturbed(op) {
        return error;
    }
    // SAFETY: promised by the caller.
    unsafe {
        match *op {
            RawOp::Nop | RawOp::Timeout { .. } => 0,
            RawOp::Invalid(_) => -libc::EINVAL,
            RawOp::Read { .. } | RawOp::Write { .. } | RawOp::Readv { .. } | RawOp::Writev { .. } => transfer(op, 0),
            RawOp::Fsync { fd, data_only: false } => ret(libc::fsync(fd.number())),
            RawOp::Fsync { fd, data_only: true } => sys::sync_data(fd.number()),
            RawOp::Close { fd } => ret(libc::close(fd.number())),
            RawOp::Truncate { fd, len } => ret(libc::ftruncate(fd.number(), len as libc::off_t)),
            RawOp::Allocate { fd, mode, offset, len } => sys::allocate(fd.number(), mode, offset, len),
            RawOp::Advise { fd, offset, len, advice } => sys::advise(fd.number(), offset, len, advice),
            RawOp::Splice { from, from_offset, to, to_offset, len, flags } => {
                let flags = flags | sys::SPLICE_NONBLOCK;
                sys::splice(from.number(), from_offset, to.number(), to_offset, len, flags)
            }
            RawOp::Tee { from, to, len, flags } => {
                sys::tee(from.number(), to.number(), len, flags | sys::SPLICE_NONBLOCK)
            }
            RawOp::Pipe { fds, flags } => sys::pipe(fds, flags),
            RawOp::Open { dir, path, flags, mode, .. } => ret(libc::openat(dir.number(), path, flags, mode)),
            RawOp::Statx { dir, path, flags, mask, out } => sys::statx(dir.number(), path, flags, mask, out),
            RawOp::Rename { from_dir, from, to_dir, to, flags } => {
                sys::rename(from_dir.number(), from, to_dir.number(), to, flags)
            }
            RawOp::Unlink { dir, path, flags } => ret(libc::unlinkat(dir.number(), path, flags)),
            RawOp::Mkdir { dir, path, mode } => ret(libc::mkdirat(dir.number(), path, mode as libc::mode_t)),
            RawOp::Symlink { target, dir, path } => ret(libc::symlinkat(target, dir.number(), path)),
            RawOp::Link { from_dir, from, to_dir, to, flags } => {
                ret(libc::linkat(from_dir.number(), from, to_dir.number(), to, flags))
            }
            RawOp::Install { fd } => ret(libc::fcntl(fd.number(), libc::F_DUPFD_CLOEXEC, 0)),
            RawOp::FutexWake { word, count } => sys::futex_wake(word, count),
            RawOp::WaitId { which, id, flags, info } => changed_child(which, id, flags, info),
            RawOp::Wake { bell } => {
                (*bell).ring();
                0
            }
            RawOp::CancelFd { .. } | RawOp::FutexWait { .. } | RawOp::Entry(_) => -libc::EOPNOTSUPP,
            RawOp::SendZc { .. } | RawOp::SendMsgZc { .. } => socket(&op.copying()),
            _ => socket(op),
        }
    }
}

/// What goes wrong with a system call before it is made, where tests want that. Reads and writes see to it themselves.
#[inline]
fn disturbed(op: &RawOp) -> Option<i32> {
    let needs_descriptor =
        matches!(op, RawOp::Open { .. } | RawOp::Socket { .. } | RawOp::Accept { .. } | RawOp::Pipe { .. });
    if needs_descriptor && fault::takes_descriptors() {
        return Some(-libc::EMFILE);
    }
    let may_be_interrupted = matches!(
        op,
        RawOp::Open { .. }
            | RawOp::Accept { .. }
            | RawOp::Recv { .. }
            | RawOp::Send { .. }
            | RawOp::RecvMsg { .. }
            | RawOp::SendMsg { .. }
            | RawOp::Fsync { .. }
            | RawOp::Truncate { .. }
            | RawOp::Allocate { .. }
            | RawOp::Splice { .. }
    );
    (may_be_interrupted && fault::interrupts()).then_some(-libc::EINTR)
}

/// Sends that neither wait nor raise a signal.
const QUIET: i32 = libc::MSG_DONTWAIT | sys::MSG_NBIO | sys::MSG_NOSIGNAL;

/// Operations on sockets, none of which waits.
///
/// # Safety
/// As [`now`].
unsafe fn socket(op: &RawOp) -> i32 {
    // SAFETY: promised by the caller.
    unsafe {
        match *op {
            RawOp::Socket { domain, kind, protocol, .. } => sys::socket(domain, kind, protocol),
            RawOp::Bind { fd, addr, len } => ret(libc::bind(fd.number(), addr, len)),
            RawOp::Listen { fd, backlog } => ret(libc::listen(fd.number(), backlog)),
            RawOp::Accept { fd, addr, len, flags, .. } => accept(fd.number(), addr, len, flags),
            RawOp::Connect { fd, addr, len } => connect(fd.number(), addr, len),
            RawOp::Recv { fd, buf, len, flags } => {
                ret_len(libc::recv(fd.number(), buf.cast(), len as usize, flags | libc::MSG_DONTWAIT))
            }
            RawOp::Send { fd, buf, len, flags } => {
                ret_len(libc::send(fd.number(), buf.cast(), len as usize, flags | QUIET))
            }
            RawOp::RecvMsg { fd, msg, flags } => ret_len(libc::recvmsg(fd.number(), msg, flags | libc::MSG_DONTWAIT)),
            RawOp::SendMsg { fd, msg, flags } => ret_len(libc::sendmsg(fd.number(), msg, flags | QUIET)),
            RawOp::Shutdown { fd, how } => ret(libc::shutdown(fd.number(), how)),
            RawOp::SetSockOpt { fd, level, name, value, len } => {
                ret(libc::setsockopt(fd.number(), level, name, value, len))
            }
            RawOp::GetSockOpt { fd, level, name, value, mut len } => {
                match ret(libc::getsockopt(fd.number(), level, name, value, &mut len)) {
                    0 => len as i32,
                    error => error,
                }
            }
            RawOp::Poll { fd, events } => poll(fd.number(), events),
            RawOp::ChildExit { pid, pidfd } if pidfd.number() < 0 => child_has_exited(pid),
            RawOp::ChildExit { pidfd, .. } => poll(pidfd.number(), libc::POLLIN as u16),
            _ => unreachable!("performed by `now`"),
        }
    }
}

/// The ready mask, or `-EAGAIN`. A descriptor that is not open is an error here, as it is for a ring.
fn poll(fd: RawFd, events: u16) -> i32 {
    // `poll(2)` passes over negative numbers, which some stand for a directory.
    if fd < 0 {
        return -libc::EBADF;
    }
    match sys::poll_one(fd, events, 0) {
        0 => -libc::EAGAIN,
        mask if mask > 0 && mask & i32::from(libc::POLLNVAL) != 0 => -libc::EBADF,
        mask => mask,
    }
}

/// `-EAGAIN` if there is none yet.
///
/// # Safety
/// `info` is valid for writes.
unsafe fn changed_child(which: u32, id: u32, flags: i32, info: *mut libc::siginfo_t) -> i32 {
    // SAFETY: promised by the caller. If there is no child to tell of, the number stays as it was set.
    unsafe {
        info.write(std::mem::zeroed());
        match ret(libc::waitid(which as libc::idtype_t, id as libc::id_t, info, flags | libc::WNOHANG)) {
            0 if (*info).si_pid() == 0 => -libc::EAGAIN,
            result => result,
        }
    }
}

fn child_has_exited(pid: libc::pid_t) -> i32 {
    // SAFETY: all zeros is a valid `siginfo_t`, and the kernel writes to the local only.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        match ret(libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags)) {
            0 if info.si_pid() == 0 => -libc::EAGAIN,
            result => result,
        }
    }
}

/// Taken around "is it ready" and "take it" on descriptors in blocking mode, for which there is no way to ask for both
/// at once. It keeps this process's engines from taking each other's connection or input in between.
static TAKING: Mutex<()> = Mutex::new(());

/// Runs `call` if the descriptor is ready, so that it does not wait.
fn if_ready(fd: RawFd, events: i16, call: impl FnOnce() -> i32) -> i32 {
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    match sys::poll_one(fd, events as u16, 0) {
        0 => -libc::EAGAIN,
        error if error < 0 => error,
        _ => call(),
    }
}

/// Starts to connect. `-EINPROGRESS` means that the socket will become writable when it is decided.
///
/// # Safety
/// `addr` is valid for `len` bytes.
unsafe fn connect(fd: RawFd, addr: *const libc::sockaddr, len: libc::socklen_t) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { if sys::is_blocking(fd) { sys::begin_connect(fd, addr, len) } else { ret(libc::connect(fd, addr, len)) } }
}

/// How a connection attempt in the background has ended.
pub(crate) fn connect_outcome(fd: RawFd) -> Attempt {
    if sys::poll_one(fd, libc::POLLOUT as u16, 0) == 0 {
        return Attempt::Park;
    }
    let mut error: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointers are to locals of the sizes given.
    let failed =
        ret(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut len) });
    Attempt::Done(if failed < 0 { failed } else { -error })
}

/// Of what nothing tells when it has come.
fn later(result: i32) -> Attempt {
    if result == -libc::EAGAIN { Attempt::Later } else { Attempt::Done(result) }
}

/// Whether an operation that receives has nothing to wait for, since its socket was shut down.
pub(crate) fn has_ended(op: &RawOp, fd: Fd) -> bool {
    let receives = match op {
        RawOp::Recv { .. } | RawOp::RecvMsg { .. } => true,
        RawOp::Read { .. } | RawOp::Readv { .. } => sys::is_socket(fd.number()),
        _ => false,
    };
    receives && sys::poll_one(fd.number(), SHUT, 0) & i32::from(SHUT) == i32::from(SHUT)
}

#[cfg(target_os = "linux")]
const SHUT: u16 = (libc::POLLIN | libc::POLLRDHUP) as u16;
#[cfg(not(target_os = "linux"))]
const SHUT: u16 = (libc::POLLIN | libc::POLLHUP) as u16;

/// Performs an operation without waiting. `progress` is what earlier attempts have transferred, and is kept up.
///
/// # Safety
/// As [`now`].
pub(crate) unsafe fn attempt(op: &RawOp, progress: &mut u32) -> Attempt {
    // SAFETY: promised by the caller.
    unsafe {
        match *op {
            RawOp::Read { .. } | RawOp::Readv { .. } | RawOp::Write { .. } | RawOp::Writev { .. } => {
                attempt_transfer(op, progress)
            }
            RawOp::Recv { .. } | RawOp::Send { .. } | RawOp::RecvMsg { .. } | RawOp::SendMsg { .. } => {
                attempt_message(op, progress)
            }
            RawOp::Connect { .. } => match now(op) {
                error if error == -libc::EINPROGRESS || error == -libc::EINTR => Attempt::Park,
                // A Unix socket whose peer's backlog is full. Nothing tells when there is room again.
                error if error == -libc::EAGAIN => Attempt::Later,
                result => Attempt::Done(result),
            },
            RawOp::ChildExit { pidfd, .. } if pidfd.number() < 0 => later(now(op)),
            RawOp::WaitId { .. } => later(now(op)),
            RawOp::Accept { .. } | RawOp::Poll { .. } | RawOp::ChildExit { .. } => loop {
                match now(op) {
                    error if error == -libc::EAGAIN && !op.is_nonblocking() => return Attempt::Park,
                    // A signal disturbs no operation.
                    error if error == -libc::EINTR => {}
                    result => return Attempt::Done(result),
                }
            },
            RawOp::Splice { from, from_offset, to, to_offset, .. } if !op.is_nonblocking() => {
                if let Some(error) = impossible_splice([(from, from_offset), (to, to_offset)]) {
                    return Attempt::Done(error);
                }
                // The ends that are pipes or sockets must be ready, so that the worker is not held up.
                if sys::poll_one(from.number(), libc::POLLIN as u16, 0) == 0 {
                    Attempt::Park
                } else if sys::poll_one(to.number(), libc::POLLOUT as u16, 0) == 0 {
                    Attempt::Later
                } else {
                    Attempt::Worker
                }
            }
            RawOp::Tee { from, to, .. } => {
                // If nobody reads the second pipe a signal is raised, which is for a worker to get.
                if sys::poll_one(to.number(), libc::POLLOUT as u16, 0) & i32::from(libc::POLLERR) != 0 {
                    return Attempt::Worker;
                }
                match now(op) {
                    error if error != -libc::EAGAIN || op.is_nonblocking() => Attempt::Done(error),
                    _ if sys::poll_one(from.number(), libc::POLLIN as u16, 0) == 0 => Attempt::Park,
                    _ => Attempt::Later,
                }
            }
            RawOp::FutexWait { word, value } if (*word).load(Ordering::Acquire) != value => {
                Attempt::Done(-libc::EAGAIN)
            }
            RawOp::Nop
            | RawOp::Invalid(_)
            | RawOp::Install { .. }
            | RawOp::Close { .. }
            | RawOp::Pipe { .. }
            | RawOp::FutexWake { .. }
            | RawOp::Wake { .. }
            | RawOp::Entry(_)
            | RawOp::Socket { .. }
            | RawOp::Bind { .. }
            | RawOp::Listen { .. }
            | RawOp::Shutdown { .. }
            | RawOp::SetSockOpt { .. }
            | RawOp::GetSockOpt { .. } => Attempt::Done(now(op)),
            _ => Attempt::Worker,
        }
    }
}

/// What `splice(2)` would say at once, without waiting for either end.
fn impossible_splice(ends: [(Fd, u64); 2]) -> Option<i32> {
    let kinds = ends.map(|(fd, _)| sys::file_type(fd.number()));
    if let Some(error) = kinds.iter().find_map(|kind| kind.err()) {
        return Some(error);
    }
    let is_pipe = kinds.map(|kind| kind == Ok(libc::S_IFIFO));
    if is_pipe == [false; 2] {
        return Some(-libc::EINVAL);
    }
    let misplaced = ends.iter().zip(is_pipe).any(|(end, is_pipe)| is_pipe && is_seekable_offset(end.1));
    misplaced.then_some(-libc::ESPIPE)
}

/// # Safety
/// As [`now`]; `op` is a send or receive.
unsafe fn attempt_message(op: &RawOp, progress: &mut u32) -> Attempt {
    // SAFETY: promised by the caller.
    unsafe {
        let result = match *op {
            RawOp::Recv { fd, buf, len, flags } => {
                let mut part =
                    libc::iovec { iov_base: buf.add(*progress as usize).cast(), iov_len: (len - *progress) as usize };
                if op.may_break_in_silence() {
                    // Only a message header tells that a datagram was cut.
                    let mut header: libc::msghdr = std::mem::zeroed();
                    (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
                    let result = now(&RawOp::RecvMsg { fd, msg: &mut header, flags });
                    if result >= 0 && header.msg_flags & CUT != 0 {
                        return Attempt::Cut(*progress as i32 + result);
                    }
                    result
                } else {
                    now(&RawOp::Recv { fd, buf: part.iov_base.cast(), len: part.iov_len as u32, flags })
                }
            }
            RawOp::Send { fd, buf, len, flags } => {
                let rest = RawOp::Send { fd, buf: buf.add(*progress as usize), len: len - *progress, flags };
                now(&rest)
            }
            RawOp::RecvMsg { fd, msg, flags } if *progress > 0 => {
                let mut rest = Rest::of_message(&*msg, *progress);
                let mut header = rest.header(&*msg);
                header.msg_flags = 0;
                let result = now(&RawOp::RecvMsg { fd, msg: &mut header, flags });
                (*msg).msg_flags |= header.msg_flags;
                result
            }
            RawOp::SendMsg { fd, msg, flags } if *progress > 0 => {
                let mut rest = Rest::of_message(&*msg, *progress);
                now(&RawOp::SendMsg { fd, msg: &rest.header(&*msg), flags })
            }
            _ => now(op),
        };
        let total = *progress as i32 + result;
        match result {
            // A signal disturbs no operation, nor does it make one wait that is not to.
            error if error == -libc::EINTR => attempt_message(op, progress),
            error if error == -libc::EAGAIN && op.is_nonblocking() && *progress == 0 => Attempt::Done(error),
            error if error == -libc::EAGAIN && !op.is_nonblocking() => Attempt::Park,
            error if error < 0 && *progress > 0 => Attempt::Done(*progress as i32),
            error if error < 0 => Attempt::Done(error),
            // With MSG_WAITALL the rest is waited for, unless this was the end of the stream.
            count if count > 0 && op.falls_short(total as u32) && !op.is_nonblocking() && op.is_stream() => {
                *progress = total as u32;
                Attempt::Park
            }
            _ => Attempt::Done(total),
        }
    }
}

/// A vector and header for what is left of a message.
struct Rest(Vec<libc::iovec>);

impl Rest {
    /// # Safety
    /// `iov` points to `count` valid vectors.
    unsafe fn of(iov: *const libc::iovec, count: usize, mut done: u32) -> Rest {
        // SAFETY: promised by the caller.
        let all = unsafe { std::slice::from_raw_parts(iov, count) };
        let rest = all.iter().filter_map(|part| {
            let skip = (done as usize).min(part.iov_len);
            done -= skip as u32;
            let left = part.iov_len - skip;
            let base = part.iov_base.cast::<u8>().wrapping_add(skip).cast();
            (left > 0).then_some(libc::iovec { iov_base: base, iov_len: left })
        });
        Rest(rest.collect())
    }

    /// # Safety
    /// The vectors of the message are valid.
    unsafe fn of_message(msg: &libc::msghdr, done: u32) -> Rest {
        // The field's type differs between systems.
        #[allow(clippy::unnecessary_cast)]
        let count = msg.msg_iovlen as usize;
        // SAFETY: promised by the caller.
        unsafe { Rest::of(msg.msg_iov, count, done) }
    }

    /// No more than so many bytes of it.
    fn limited(mut self, mut len: usize) -> Rest {
        self.0.retain_mut(|part| {
            part.iov_len = part.iov_len.min(len);
            len -= part.iov_len;
            part.iov_len > 0
        });
        self
    }

    fn header(&mut self, of: &libc::msghdr) -> libc::msghdr {
        let mut header = *of;
        header.msg_iov = self.0.as_mut_ptr();
        header.msg_iovlen = self.0.len() as _;
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
        header
    }
}

/// The parts of a read or write.
struct Transfer {
    fd: RawFd,
    iov: *const libc::iovec,
    count: u32,
    offset: u64,
    nowait: bool,
    writes: bool,
}

impl Transfer {
    /// `one` is where the vector of an operation with a single buffer goes.
    fn of(op: &RawOp, one: &mut libc::iovec) -> Transfer {
        let (fd, iov, count, offset, nowait, writes) = match *op {
            RawOp::Read { fd, buf, len, offset, nowait, .. } => {
                *one = libc::iovec { iov_base: buf.cast(), iov_len: len as usize };
                (fd, &raw const *one, 1, offset, nowait, false)
            }
            RawOp::Write { fd, buf, len, offset, nowait, .. } => {
                *one = libc::iovec { iov_base: buf.cast_mut().cast(), iov_len: len as usize };
                (fd, &raw const *one, 1, offset, nowait, true)
            }
            RawOp::Readv { fd, iov, count, offset, nowait } => (fd, iov, count, offset, nowait, false),
            RawOp::Writev { fd, iov, count, offset, nowait } => (fd, iov, count, offset, nowait, true),
            _ => unreachable!("called for reads and writes only"),
        };
        Transfer { fd: fd.number(), iov, count, offset, nowait, writes }
    }

    /// # Safety
    /// As [`now`].
    unsafe fn waiting(&self, iov: *const libc::iovec, count: u32, offset: u64) -> i32 {
        if fault::interrupts() {
            return -libc::EINTR;
        }
        let (fd, count, at) = (self.fd, count as i32, offset as libc::off_t);
        // SAFETY: promised by the caller.
        unsafe {
            let result = match (self.writes, is_seekable_offset(offset)) {
                (false, true) => ret_len(libc::preadv(fd, iov, count, at)),
                (false, false) => ret_len(libc::readv(fd, iov, count)),
                (true, true) => ret_len(libc::pwritev(fd, iov, count, at)),
                (true, false) => ret_len(libc::writev(fd, iov, count)),
            };
            if result == -libc::ESPIPE { self.waiting(iov, count as u32, CURRENT_POSITION) } else { result }
        }
    }

    /// # Safety
    /// As [`now`].
    unsafe fn not_waiting(&self) -> i32 {
        if fault::interrupts() {
            return -libc::EINTR;
        }
        let call = if self.writes { sys::write_nowait } else { sys::read_nowait };
        // SAFETY: promised by the caller.
        unsafe {
            match call(self.fd, self.iov, self.count, self.offset) {
                error if error == -libc::ESPIPE => call(self.fd, self.iov, self.count, CURRENT_POSITION),
                result => result,
            }
        }
    }
}

/// Where the system cannot be asked not to wait.
impl Transfer {
    /// # Safety
    /// As [`now`].
    unsafe fn is_empty(&self) -> bool {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts(self.iov, self.count as usize) }.iter().all(|part| part.iov_len == 0)
    }

    /// Reads or writes a socket, which can be told not to wait by a flag of its own.
    ///
    /// # Safety
    /// As [`now`].
    unsafe fn as_message(&self) -> i32 {
        if fault::interrupts() {
            return -libc::EINTR;
        }
        // SAFETY: promised by the caller. All zeros is a valid header: no address, no vectors, no control messages.
        unsafe {
            let mut msg: libc::msghdr = std::mem::zeroed();
            (msg.msg_iov, msg.msg_iovlen) = (self.iov.cast_mut(), self.count as _);
            match self.writes {
                true => ret_len(libc::sendmsg(self.fd, &msg, QUIET)),
                // A read of nothing does not wait for anything.
                false if self.is_empty() => 0,
                false => ret_len(libc::recvmsg(self.fd, &mut msg, libc::MSG_DONTWAIT)),
            }
        }
    }

    /// Writes to a pipe in blocking mode that is ready. It takes `PIPE_BUF` bytes at once then; more would wait for the
    /// reader, so it is asked again after so many.
    ///
    /// # Safety
    /// As [`now`].
    unsafe fn in_parts(&self) -> i32 {
        let mut done = 0;
        loop {
            // SAFETY: promised by the caller.
            let result = unsafe {
                let part = Rest::of(self.iov, self.count as usize, done).limited(libc::PIPE_BUF);
                if part.0.is_empty() {
                    return done as i32;
                }
                self.waiting(part.0.as_ptr(), part.0.len() as u32, CURRENT_POSITION)
            };
            if result <= 0 {
                return if done > 0 { done as i32 } else { result };
            }
            done += result as u32;
            // Anything but room, such as a reader that is gone, is for the next operation to find.
            if sys::poll_one(self.fd, libc::POLLOUT as u16, 0) != i32::from(libc::POLLOUT) {
                return done as i32;
            }
        }
    }
}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Reads or writes, waiting, until all is transferred.
///
/// # Safety
/// As [`now`]; `op` is a read or write, of which `progress` bytes are done.
pub(crate) unsafe fn transfer(op: &RawOp, mut progress: u32) -> i32 {
    let mut one = NO_VECTOR;
    let transfer = Transfer::of(op, &mut one);
    loop {
        let offset =
            if is_seekable_offset(transfer.offset) { transfer.offset + u64::from(progress) } else { transfer.offset };
        // SAFETY: promised by the caller.
        let result = unsafe {
            if progress == 0 {
                transfer.waiting(transfer.iov, transfer.count, offset)
            } else {
                let rest = Rest::of(transfer.iov, transfer.count as usize, progress);
                transfer.waiting(rest.0.as_ptr(), rest.0.len() as u32, offset)
            }
        };
        match result {
            error if error == -libc::EINTR => {}
            error if error < 0 => return if progress > 0 { progress as i32 } else { error },
            0 => return progress as i32,
            count => {
                progress += count as u32;
                // SAFETY: promised by the caller.
                if !unsafe { op.falls_short(progress) } || !sys::is_disk(transfer.fd) {
                    return progress as i32;
                }
            }
        }
    }
}

/// # Safety
/// As [`now`]; `op` is a read or write.
unsafe fn attempt_transfer(op: &RawOp, progress: &mut u32) -> Attempt {
    let mut one = NO_VECTOR;
    let transfer = Transfer::of(op, &mut one);
    // SAFETY: promised by the caller.
    let result = unsafe { transfer.not_waiting() };
    // SAFETY: promised by the caller.
    let short = |count: i32| unsafe { op.falls_short(count as u32) };
    match result {
        error if error == -libc::EAGAIN && transfer.nowait => Attempt::Done(error),
        error if error == -libc::EAGAIN => {
            if sys::is_disk(transfer.fd) {
                Attempt::Worker
            } else {
                Attempt::Park
            }
        }
        // SAFETY: promised by the caller.
        error if error == -libc::EINTR => unsafe { attempt_transfer(op, progress) },
        // Readiness would never come.
        error if error == -libc::EOPNOTSUPP && !sys::is_open_for(transfer.fd, transfer.writes) => {
            Attempt::Done(-libc::EBADF)
        }
        // It cannot tell whether it would wait. For a disk, the ring says that it would.
        error if error == -libc::EOPNOTSUPP && transfer.nowait && !sys::is_pipe_or_socket(transfer.fd) => {
            Attempt::Done(if sys::is_disk(transfer.fd) { -libc::EAGAIN } else { error })
        }
        error if error == -libc::EOPNOTSUPP => {
            // SAFETY: promised by the caller.
            if sys::is_disk(transfer.fd) { Attempt::Worker } else { unsafe { guarded(op, &transfer) } }
        }
        // Only a part was in memory; a file's read goes on until the end.
        count if count > 0 && short(count) && !transfer.nowait && sys::is_disk(transfer.fd) => {
            *progress = count as u32;
            Attempt::Worker
        }
        result => Attempt::Done(result),
    }
}

/// Reads or writes what the system cannot be asked about: terminals, and before Linux 6.4 pipes and sockets. When it is
/// ready, and no more than it surely takes.
///
/// # Safety
/// As [`now`]; `op` is a read or write.
unsafe fn guarded(op: &RawOp, transfer: &Transfer) -> Attempt {
    let events = if transfer.writes { libc::POLLOUT } else { libc::POLLIN };
    // SAFETY: promised by the caller.
    let result = unsafe {
        if sys::is_socket(transfer.fd) {
            transfer.as_message()
        } else if transfer.is_empty() {
            transfer.waiting(transfer.iov, transfer.count, CURRENT_POSITION)
        } else {
            if_ready(transfer.fd, events, || {
                if transfer.writes && sys::is_blocking(transfer.fd) {
                    transfer.in_parts()
                } else {
                    transfer.waiting(transfer.iov, transfer.count, CURRENT_POSITION)
                }
            })
        }
    };
    match result {
        error if error == -libc::EAGAIN && !op.is_nonblocking() => Attempt::Park,
        // SAFETY: promised by the caller.
        error if error == -libc::EINTR => unsafe { guarded(op, transfer) },
        result => Attempt::Done(result),
    }
}
