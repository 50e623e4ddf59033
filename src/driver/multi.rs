//! Multishot operations as every engine does them where the kernel does not: attempt after attempt, until one would
//! wait.

use super::{
    fault,
    perform::{self, Attempt},
    pool::{Part, Pool},
    shots::{Shot, Shots},
    slot::{Slot, State},
};
use crate::{
    op::{CURRENT_POSITION, Fd, Multi, RawOp, Target},
    sys::{self, ret_len},
};
use std::{mem, ptr};

/// How a round of attempts has ended.
pub(super) enum Round {
    /// The next attempt would wait for the descriptor.
    Wait,
    /// So much is there to be taken that the operation pauses.
    Pause,
    /// It is over, with this result.
    End(i32),
}

/// When a periodic timer fires next.
pub(super) enum Tick {
    At(u64),
    Pause,
    End,
}

/// The parts of a multishot operation.
///
/// # Safety
/// `slot` holds one that is published and has not ended.
pub(super) unsafe fn parts<'s>(slot: *mut Slot) -> (Fd, Multi, &'s Shots) {
    // SAFETY: promised by the caller; the shots stay until the operation has ended.
    unsafe {
        let RawOp::Multi { fd, what, shots } = (*slot).op else { unreachable!("called for multishot operations") };
        (fd, what, &*shots)
    }
}

/// Ends an operation; nobody touches its slot afterwards.
///
/// # Safety
/// As [`parts`]; no engine refers to the slot any more.
pub(super) unsafe fn end(slot: *mut Slot, result: i32) {
    // SAFETY: promised by the caller. Whoever takes the last shot may let the slot go, so that comes last.
    unsafe {
        (*slot).set_state(State::Done);
        parts(slot).2.push(Shot::last(result));
    }
}

/// Attempts the operation again and again. `first` is the round right after its start, in which a pool without a free
/// buffer is an error even if nothing has come yet, as it is for the kernel.
///
/// # Safety
/// As [`parts`].
pub(super) unsafe fn round(slot: *mut Slot, first: bool) -> Round {
    // SAFETY: promised by the caller.
    let (fd, what, shots) = unsafe { parts(slot) };
    // Of these an attempt could tell only if what it reads is not in memory.
    let is_file = || matches!(sys::file_type(fd.number()), Ok(libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK));
    if first && matches!(what, Multi::Read { .. }) && is_file() {
        return Round::End(-sys::NOT_POLLABLE);
    }
    let mut tries = 0;
    loop {
        if shots.is_full() {
            return Round::Pause;
        }
        // SAFETY: promised by the caller: the operation keeps its pool.
        let pool = what.pool().map(|pool| unsafe { &*pool });
        let buffer = pool.map(|pool| (pool, if fault::takes_buffers() { None } else { pool.take() }));
        if let Some((_, None)) = buffer {
            let nothing = (!first || tries > 0) && sys::poll_one(fd.number(), libc::POLLIN as u16, 0) == 0;
            return if nothing { Round::Wait } else { Round::End(-libc::ENOBUFS) };
        }
        let buffer = buffer.and_then(|(pool, buffer)| Some((pool, buffer?)));
        // SAFETY: promised by the caller; the buffer is free.
        let outcome = unsafe { attempt(fd, &what, buffer) };
        let outcome = match outcome {
            // SAFETY: promised by the caller.
            Attempt::Done(result) if unsafe { is_end_of_stream(fd, &what, result) } => Attempt::Done(0),
            other => other,
        };
        let filled = matches!(outcome, Attempt::Done(1..));
        if let (Some((pool, buffer)), false) = (buffer, filled) {
            pool.untake(buffer);
        }
        match outcome {
            Attempt::Park | Attempt::Later => return Round::Wait,
            // The kernel refuses what has no readiness.
            Attempt::Worker => return Round::End(-sys::NOT_POLLABLE),
            Attempt::Done(result) | Attempt::Cut(result) if result < 0 => return Round::End(result),
            Attempt::Done(0) | Attempt::Cut(0) if pool.is_some() => return Round::End(0),
            Attempt::Done(result) | Attempt::Cut(result) => {
                let part = buffer.map(|(pool, buffer)| pool.filled(buffer, result as u32, false));
                shots.push(Shot { part, ..Shot::plain(result) });
                if matches!(what, Multi::Poll { .. }) {
                    return Round::Pause;
                }
                if what.is_once() {
                    return Round::End(0);
                }
            }
        }
        tries += 1;
    }
}

/// # Safety
/// As [`round`]; `buffer` was taken from the pool.
unsafe fn attempt(fd: Fd, what: &Multi, buffer: Option<(&Pool, u16)>) -> Attempt {
    let (buf, len) = match buffer {
        Some((pool, buffer)) => (pool.address(Part { buffer, start: 0 }), pool.size()),
        None => (ptr::null_mut(), 0),
    };
    let single = match *what {
        Multi::Accept => {
            let flags = sys::SOCK_CLOEXEC;
            let (addr, len, target) = (ptr::null_mut(), ptr::null_mut(), Target::Table);
            RawOp::Accept { fd, addr, len, flags, nowait: false, target }
        }
        Multi::Recv { flags, .. } => RawOp::Recv { fd, buf, len, flags },
        Multi::Read { .. } => RawOp::Read { fd, buf, len, offset: CURRENT_POSITION, nowait: false, buffer: 0 },
        Multi::Poll { events } => RawOp::Poll { fd, events },
        // SAFETY: promised by the caller.
        Multi::RecvMsg { msg, flags, .. } => return unsafe { attempt_message(fd, &*msg, flags, buf, len) },
        Multi::Timeout { .. } => unreachable!("timers are not attempted"),
    };
    // SAFETY: the buffer is the operation's own now, of this length.
    unsafe { perform::attempt(&single, &mut 0) }
}

/// What the kernel puts in front of a message: `struct io_uring_recvmsg_out`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct MessageHead {
    pub(crate) name_len: u32,
    pub(crate) control_len: u32,
    pub(crate) payload_len: u32,
    pub(crate) flags: u32,
}

/// Whether this is the result for a stream that has ended, which gives empty messages from then on.
///
/// # Safety
/// As [`parts`].
pub(super) unsafe fn is_end_of_stream(fd: Fd, what: &Multi, result: i32) -> bool {
    let Multi::RecvMsg { msg, .. } = *what else { return false };
    // SAFETY: promised by the caller; the operation keeps its header.
    let before = mem::size_of::<MessageHead>() + unsafe { (*msg).msg_namelen } as usize;
    result >= 0 && result as usize == before && fd.socket_type() == Ok(libc::SOCK_STREAM)
}

/// Receives a message as the kernel lays it out: a head, room for the address, and the bytes.
///
/// # Safety
/// `buf` is valid for writes of `len` bytes.
unsafe fn attempt_message(fd: Fd, template: &libc::msghdr, flags: i32, buf: *mut u8, len: u32) -> Attempt {
    let before = mem::size_of::<MessageHead>() + template.msg_namelen as usize;
    if before > len as usize {
        return Attempt::Done(-libc::EFAULT);
    }
    // SAFETY: promised by the caller. All zeros is a valid header.
    unsafe {
        let payload = buf.add(before);
        let mut part = libc::iovec { iov_base: payload.cast(), iov_len: len as usize - before };
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_name = buf.add(mem::size_of::<MessageHead>()).cast();
        header.msg_namelen = template.msg_namelen;
        (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
        let room = part.iov_len;
        let result = ret_len(libc::recvmsg(fd.number(), &mut header, flags | libc::MSG_DONTWAIT));
        if result == -libc::EAGAIN || result == -libc::EINTR {
            return Attempt::Park;
        }
        if result < 0 {
            return Attempt::Done(result);
        }
        let head = MessageHead {
            name_len: header.msg_namelen,
            control_len: 0,
            payload_len: result as u32,
            flags: header.msg_flags as u32,
        };
        buf.cast::<MessageHead>().write_unaligned(head);
        Attempt::Done((before + (result as usize).min(room)) as i32)
    }
}

/// A periodic timer is due.
///
/// # Safety
/// As [`parts`]; it is a timer.
pub(super) unsafe fn tick(slot: *mut Slot, now: u64) -> Tick {
    // SAFETY: promised by the caller.
    unsafe {
        let (fd, what, shots) = parts(slot);
        let Multi::Timeout { nanos, left } = what else { unreachable!("called for timers only") };
        if left == 1 {
            return Tick::End;
        }
        (*slot).op = RawOp::Multi { fd, what: Multi::Timeout { nanos, left: left.saturating_sub(1) }, shots };
        shots.push(Shot::plain(0));
        if shots.is_full() { Tick::Pause } else { Tick::At(next_tick(slot, nanos, now)) }
    }
}

/// The first multiple of the interval that is still to come: what was missed is not made up for.
///
/// # Safety
/// As [`tick`].
pub(super) unsafe fn next_tick(slot: *mut Slot, nanos: u64, now: u64) -> u64 {
    // SAFETY: promised by the caller.
    unsafe {
        let (due, step) = ((*slot).due(), nanos.max(1));
        let missed = now.saturating_sub(due) / step;
        let next = due.saturating_add(step.saturating_mul(missed + 1));
        (*slot).set_due(next);
        next
    }
}
