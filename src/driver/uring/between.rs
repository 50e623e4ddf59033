//! A kernel that misbehaves, between the engine and the kernel; with the feature `faults` only.
//!
//! The engine's queues lie in memory of the same layout as a ring's, but it is this module that takes entries from there
//! and hands completions out. It gives the entries to a ring of the kernel's, and does with both what a kernel may do
//! and seldom does.
//!
//! ```text
//! engine ──entries──▶ queues that look like a ring's ──▶ Between ──▶ ring ──▶ kernel
//!        ◀─completions──                            ◀──          ◀──
//! ```
//!
//! It also watches the engine: a chain must be given to the kernel whole, and the bytes of a send without a copy must
//! not change before its notification was handed out. What breaks that ends the process.

use super::{
    MORE, NOTIFICATION,
    encode::Fields,
    mapping::{Completion, Queues},
    ring::{Features, Gate, Ring},
    setup::Params,
};
use crate::{
    driver::fatal,
    error::Unavailable,
    faults::{Fault, Plan, Stream},
    op::Fd,
    sys::{self, ret},
};
use io_uring::{opcode, squeue::Entry};
use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    slice,
    sync::atomic::{AtomicU32, Ordering},
};

/// Flags of an entry.
const LINKED: u8 = 1 << 2 | 1 << 3;
const FIXED_FILE: u8 = 1 << 0;
const ASYNC: u8 = 1 << 4;
const SELECTS_BUFFER: u8 = 1 << 5;
/// `IORING_NOP_INJECT_RESULT`: the entry has the result that its length gives.
const INJECT_RESULT: u32 = 1;
/// Multishot, by operation; goes where others have their priority.
const ACCEPT_MULTISHOT: u16 = 1 << 0;
const RECV_MULTISHOT: u16 = 1 << 1;
/// `IORING_ASYNC_CANCEL_FD`.
const CANCEL_FD: u32 = 1 << 1;

/// Of cancels that this module gives to the kernel itself; no slot has such an address.
const OWN: u64 = u64::MAX;

const OFF_SQES: i64 = 0x1000_0000;
const SETUP_NO_SQARRAY: u32 = 1 << 16;
const FLAG_CQ_OVERFLOW: u32 = 1 << 1;

/// How long the kernel is waited for at once while something is withheld, in nanoseconds.
const NAP: u64 = 20_000;

const REFUSALS: [i32; 4] = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM];

/// The far side of the engine's queues.
struct FarSide {
    sq_head: *const AtomicU32,
    sq_tail: *const AtomicU32,
    sq_flags: *const AtomicU32,
    sq_mask: u32,
    entries: *const Fields,
    cq_head: *const AtomicU32,
    cq_tail: *const AtomicU32,
    cq_entries: u32,
    completions: *mut Completion,
}

/// What is known of an entry that the kernel has.
struct Known {
    /// Entries with the same one complete in order.
    key: u64,
    multishot: bool,
    takes_buffers: bool,
    /// What to say instead of the kernel's result.
    result: Option<i32>,
    /// The engine has asked for its end.
    cancelled: bool,
    /// This module has.
    ending: Option<Ending>,
    sent: Option<Sent>,
}

/// How a multishot operation is being stopped behind the engine's back. Its results are withheld until it has ended.
#[derive(Clone, Copy)]
enum Ending {
    /// As if it had given its last result.
    Silent,
    WithError(i32),
}

/// Bytes that are being sent without a copy, and what they were.
struct Sent(Vec<(*const u8, Vec<u8>)>);

/// A completion that the engine does not have yet.
struct Pending {
    completion: Completion,
    key: u64,
    turns: u32,
    /// It takes a place in the kernel's queue.
    is_real: bool,
    sent: Option<Sent>,
}

/// A cancel that is on its way.
struct Late {
    entry: Fields,
    turns: u32,
    /// The engine has been given an answer.
    answered: bool,
}

pub(super) struct Between {
    real: Queues,
    far: FarSide,
    stream: Stream,
    known: HashMap<u64, Known>,
    pending: Vec<Pending>,
    late: Vec<Late>,
    /// Completions seen whose places the kernel does not have back.
    seen: u32,
    /// Something may have been cancelled that this module does not know.
    cancels_by_descriptor: bool,
    /// Somebody may wait for the kernel's ring, which knows nothing of what is only in here.
    is_watched: bool,
}

impl Ring {
    /// A ring with such a kernel.
    pub(crate) fn with_faults(entries: u32, features: Features, plan: Plan) -> Result<Ring, Unavailable> {
        // More than the engine sees, for this module has entries of its own.
        let mut ring = Ring::new(entries.saturating_mul(2).max(8), features)?;
        let mut stream = plan.stream();
        let few = stream.strikes(Fault::TinyQueue);
        let completions = if few { stream.pick(&[2, 4, 8]) } else { entries * 4 };
        let near = memory(entries, completions).map_err(|_| Unavailable::Memory)?;
        let far = FarSide::of(&near);
        let is_watched = !ring.defers();
        let real = ring.replace_queues(near);
        ring.put_between(Between {
            real,
            far,
            stream,
            known: HashMap::new(),
            pending: Vec::new(),
            late: Vec::new(),
            seen: 0,
            cancels_by_descriptor: false,
            is_watched,
        });
        Ok(ring)
    }
}

/// Queues that look like a ring's to the engine.
fn memory(entries: u32, completions: u32) -> std::io::Result<Queues> {
    let mut params = Params::default();
    (params.sq_entries, params.cq_entries, params.flags) = (entries, completions, SETUP_NO_SQARRAY);
    (params.sq_off.head, params.sq_off.tail, params.sq_off.flags) = (0, 4, 8);
    (params.cq_off.head, params.cq_off.tail, params.cq_off.cqes) = (12, 16, 64);
    let len = OFF_SQES + (entries as usize * size_of::<Entry>()) as i64;
    // SAFETY: a fresh descriptor, and a number.
    unsafe {
        let fd = ret(libc::memfd_create(c"aio-faults".as_ptr(), libc::MFD_CLOEXEC));
        if fd < 0 {
            return Err(std::io::Error::from_raw_os_error(-fd));
        }
        let fd = OwnedFd::from_raw_fd(fd);
        if libc::ftruncate(fd.as_raw_fd(), len) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Queues::map(&fd, &params)
    }
}

impl FarSide {
    /// It is valid as long as the mappings of the queues.
    fn of(near: &Queues) -> FarSide {
        FarSide {
            sq_head: near.sq_head,
            sq_tail: near.sq_tail,
            sq_flags: near.sq_flags,
            sq_mask: near.sq_mask,
            entries: near.entries.cast_const().cast(),
            cq_head: near.cq_head,
            cq_tail: near.cq_tail,
            cq_entries: near.cq_entries,
            completions: near.completions.cast_mut(),
        }
    }

    fn queued(&self) -> u32 {
        // SAFETY: in the mapping, as are all of these; the ring keeps the queues as long as this.
        unsafe { (*self.sq_tail).load(Ordering::Acquire).wrapping_sub((*self.sq_head).load(Ordering::Relaxed)) }
    }

    /// The queued entry behind `skip` others.
    fn entry(&self, skip: u32) -> Fields {
        // SAFETY: within the array, and written by the engine, which does not touch it before it is consumed.
        unsafe {
            let at = (*self.sq_head).load(Ordering::Relaxed).wrapping_add(skip) & self.sq_mask;
            self.entries.add(at as usize).read()
        }
    }

    fn consume(&self, count: u32) {
        // SAFETY: as in `queued`.
        unsafe { (*self.sq_head).fetch_add(count, Ordering::Release) };
    }

    fn available(&self) -> u32 {
        // SAFETY: as in `queued`.
        unsafe { (*self.cq_tail).load(Ordering::Relaxed).wrapping_sub((*self.cq_head).load(Ordering::Acquire)) }
    }

    fn deliver(&self, completion: Completion) {
        // SAFETY: within the array, and there is room: the engine has taken what was there.
        unsafe {
            let tail = (*self.cq_tail).load(Ordering::Relaxed);
            self.completions.add((tail & (self.cq_entries - 1)) as usize).write(completion);
            (*self.cq_tail).store(tail.wrapping_add(1), Ordering::Release);
        }
    }

    /// Whether there are completions that only another `enter` brings.
    fn set_overflow(&self, overflow: bool) {
        let flags = if overflow { FLAG_CQ_OVERFLOW } else { 0 };
        // SAFETY: as in `queued`.
        unsafe { (*self.sq_flags).store(flags, Ordering::Relaxed) };
    }
}

impl Sent {
    /// What an entry sends without a copy, if it does.
    ///
    /// # Safety
    /// The entry is the engine's, and valid.
    unsafe fn by(entry: &Fields) -> Option<Sent> {
        let part = |start: *const u8, len: usize| {
            // SAFETY: promised by the caller: memory that is sent from.
            (start, if len == 0 { vec![] } else { unsafe { slice::from_raw_parts(start, len) }.to_vec() })
        };
        let address = entry.address as *const u8;
        match entry.opcode {
            opcode::SendZc::CODE => Some(Sent(vec![part(address, entry.len as usize)])),
            opcode::SendMsgZc::CODE => {
                // SAFETY: promised by the caller.
                let parts = unsafe {
                    let msg = &*address.cast::<libc::msghdr>();
                    slice::from_raw_parts(msg.msg_iov, msg.msg_iovlen)
                };
                Some(Sent(parts.iter().map(|iov| part(iov.iov_base.cast(), iov.iov_len)).collect()))
            }
            _ => None,
        }
    }

    fn check(&self) {
        for (start, bytes) in &self.0 {
            // SAFETY: the engine was not told yet that the kernel has let go of it, so it is kept.
            if !bytes.is_empty() && unsafe { slice::from_raw_parts(*start, bytes.len()) } != bytes {
                fatal("a buffer has changed before the kernel let go of it", libc::EFAULT);
            }
        }
    }
}

impl Between {
    /// `io_uring_enter(2)` as the engine sees it.
    pub(super) fn enter(&mut self, gate: Gate, want: u32, limit: Option<u64>) -> Result<(), i32> {
        let queued = self.far.queued();
        if queued > 0 && self.far.entry(queued - 1).flags & LINKED != 0 {
            fatal("a chain was given to the kernel in parts", libc::EINVAL);
        }
        if self.stream.strikes(Fault::Refusal) {
            return Err(self.stream.pick(&REFUSALS));
        }
        let partly = queued > 1 && self.stream.strikes(Fault::Partial);
        let allowed = if partly { self.stream.below(queued) } else { queued };
        let consumed = self.forward(allowed);
        self.send_late();
        let missing = want.saturating_sub(self.far.available());
        let (want, nap) = match () {
            // The kernel does not wait then.
            () if consumed < queued || missing == 0 => (0, limit),
            () if self.pending.is_empty() && self.late.is_empty() => (missing + self.seen, limit),
            () => (self.seen + 1, Some(limit.map_or(NAP, |limit| limit.min(NAP)))),
        };
        let mut result = self.pass(gate, want, nap);
        while self.real.queued() > 0 && result.is_ok() {
            // Cancels of our own.
            result = self.pass(gate, 0, None);
        }
        self.release();
        match result {
            Err(libc::ETIME) if nap != limit => Ok(()),
            Ok(()) if consumed < queued && (consumed == 0 || self.stream.below(2) == 0) => {
                Err(self.stream.pick(&REFUSALS))
            }
            result => result,
        }
    }

    fn pass(&mut self, gate: Gate, want: u32, limit: Option<u64>) -> Result<(), i32> {
        self.real.publish();
        let result = gate.enter(self.real.queued(), want.min(self.real.capacity()), limit);
        while self.real.available() > self.seen {
            // SAFETY: so many are available.
            let completion = unsafe { *self.real.next().place(self.seen) };
            self.seen += 1;
            self.absorb(completion);
        }
        self.real.publish_taken();
        result
    }

    /// Takes up to so many entries from the engine, but no part of a chain. Gives how many it were.
    fn forward(&mut self, allowed: u32) -> u32 {
        let mut consumed = 0;
        while consumed < allowed {
            let first = self.far.entry(consumed).user_data;
            let linked = |skip: &u32| self.far.entry(*skip).flags & LINKED != 0;
            let len = 1 + (consumed..allowed).take_while(linked).count() as u32;
            if consumed + len > allowed || !self.real.has_room(len + 2) {
                break;
            }
            for at in consumed..consumed + len {
                let entry = self.far.entry(at);
                let own_key = len == 1 || entry.opcode == opcode::LinkTimeout::CODE;
                let key = if own_key { entry.user_data } else { first };
                self.take_entry(entry, key, len > 1);
            }
            consumed += len;
        }
        self.far.consume(consumed);
        consumed
    }

    fn give(&mut self, entry: Fields) {
        // SAFETY: there is room (see `forward` and `submit_own`), and the entry is the engine's, or one of ours without
        // pointers.
        unsafe {
            self.real.place().cast::<Fields>().write(entry);
            self.real.advance();
        }
    }

    fn take_entry(&mut self, mut entry: Fields, key: u64, chained: bool) {
        if entry.opcode == opcode::AsyncCancel::CODE {
            if entry.op_flags & CANCEL_FD != 0 {
                self.cancels_by_descriptor = true;
            } else if !chained && self.hold_cancel(&entry) {
                return;
            }
            return self.give(entry);
        }
        let multishot = match entry.opcode {
            opcode::Accept::CODE => entry.ioprio & ACCEPT_MULTISHOT != 0,
            opcode::Recv::CODE | opcode::RecvMsg::CODE => entry.ioprio & RECV_MULTISHOT != 0,
            opcode::ReadMulti::CODE => true,
            _ => false,
        };
        let takes_buffers = entry.flags & SELECTS_BUFFER != 0;
        // Results of several operations may lie in one buffer, in the order in which they come.
        let key = if takes_buffers { OWN - 1 - u64::from(entry.buffer) } else { key };
        let result = self.failure(&entry, takes_buffers);
        // SAFETY: the engine's own entry, which is valid.
        let sent = unsafe { Sent::by(&entry) };
        let (cancelled, ending) = (false, None);
        let known = Known { key, multishot, takes_buffers, result, cancelled, ending, sent };
        self.known.insert(entry.user_data, known);
        match result {
            Some(result) => {
                entry.reduce_to_nop(result);
            }
            None => self.disturb(&mut entry, chained),
        }
        self.give(entry);
    }

    /// What an operation that needs a descriptor or a buffer fails with.
    fn failure(&mut self, entry: &Fields, takes_buffers: bool) -> Option<i32> {
        match entry.opcode {
            opcode::Accept::CODE
            | opcode::OpenAt::CODE
            | opcode::OpenAt2::CODE
            | opcode::Socket::CODE
            | opcode::Pipe::CODE => self.stream.strikes(Fault::NoDescriptors).then_some(-libc::EMFILE),
            _ if takes_buffers => self.stream.strikes(Fault::NoBuffers).then_some(-libc::ENOBUFS),
            _ => None,
        }
    }

    /// Makes an operation slower, or shorter if nothing is linked to it: the kernel would take it for complete.
    fn disturb(&mut self, entry: &mut Fields, chained: bool) {
        let is_plain = entry.flags & FIXED_FILE == 0;
        let kind = || if is_plain { sys::file_type(entry.fd) } else { Err(0) };
        let (may_be_short, may_wait) = match entry.opcode {
            opcode::Read::CODE | opcode::Write::CODE | opcode::ReadFixed::CODE | opcode::WriteFixed::CODE => {
                let kind = kind();
                let is_file = kind == Ok(libc::S_IFREG);
                (is_file || kind == Ok(libc::S_IFIFO), is_file && entry.op_flags == 0)
            }
            opcode::Recv::CODE | opcode::Send::CODE => {
                let plain = entry.ioprio == 0 && entry.flags & SELECTS_BUFFER == 0;
                let waits = entry.op_flags & libc::MSG_WAITALL as u32 != 0;
                let stream = is_plain && Fd::new(entry.fd).socket_type() == Ok(libc::SOCK_STREAM);
                (plain && !waits && stream, false)
            }
            opcode::Fsync::CODE | opcode::OpenAt::CODE | opcode::Statx::CODE => (false, true),
            _ => (false, false),
        };
        if may_be_short && !chained && entry.len > 1 && self.stream.strikes(Fault::Short) {
            entry.len = 1 + self.stream.below(entry.len - 1);
        }
        if may_wait && !chained && self.stream.strikes(Fault::Punt) {
            entry.flags |= ASYNC;
        }
    }

    /// Whether a cancel goes to the kernel later.
    fn hold_cancel(&mut self, entry: &Fields) -> bool {
        // If there is none its result is on its way, and once the cancel is answered its address may be another's.
        let Some(target) = self.known.get_mut(&entry.address) else { return false };
        target.cancelled = true;
        if self.is_watched {
            return false;
        }
        let lost = self.stream.strikes(Fault::LostCancel);
        if !lost && !self.stream.strikes(Fault::LateCancel) {
            return false;
        }
        let mut entry = *entry;
        if lost {
            let result = self.stream.pick(&[-libc::EALREADY, -libc::ENOENT]);
            let completion = Completion { user_data: entry.user_data, result, flags: 0 };
            self.hand_over(completion, entry.user_data, false, None);
            entry.user_data = OWN;
        }
        let turns = 1 + self.stream.below(20);
        self.late.push(Late { entry, turns, answered: lost });
        true
    }

    /// Gives the kernel the cancels that are due.
    fn send_late(&mut self) {
        for late in &mut self.late {
            late.turns -= 1;
        }
        while self.real.has_room(1)
            && let Some(at) = self.late.iter().position(|late| late.turns == 0)
        {
            let entry = self.late.swap_remove(at).entry;
            self.give(entry);
        }
        self.late.iter_mut().for_each(|late| late.turns = late.turns.max(1));
    }

    /// The kernel has completed something.
    fn absorb(&mut self, mut completion: Completion) {
        let Completion { user_data, result, flags } = completion;
        if user_data == OWN {
            return self.give_back();
        }
        let Some(mut known) = self.known.remove(&user_data) else {
            return self.hand_over(completion, user_data, true, None);
        };
        let more = flags & MORE != 0;
        if let Some(result) = known.result {
            completion.result = result;
        }
        if !more {
            // Its address may be that of another operation soon.
            self.late.retain(|late| !(late.answered && late.entry.address == user_data));
        }
        match known.ending {
            Some(ending) if !more && result == -libc::ECANCELED && !known.cancelled && !self.cancels_by_descriptor => {
                match ending {
                    Ending::WithError(error) => completion.result = error,
                    Ending::Silent => {
                        self.end_with_last(user_data);
                        return self.give_back();
                    }
                }
            }
            None if more && known.multishot && result > 0 => known.ending = self.stop_early(&known, user_data),
            _ => {}
        }
        let sent = if more { None } else { known.sent.take() };
        self.hand_over(completion, known.key, true, sent);
        if more {
            self.known.insert(user_data, known);
        }
    }

    /// Whether a multishot operation is to be stopped, and how.
    fn stop_early(&mut self, known: &Known, user_data: u64) -> Option<Ending> {
        if known.cancelled || self.cancels_by_descriptor || !self.real.has_room(1) {
            return None;
        }
        let ending = if self.stream.strikes(Fault::EarlyEnd) {
            Ending::Silent
        } else if self.stream.strikes(Fault::FailedShots) {
            Ending::WithError(if known.takes_buffers { -libc::ENOBUFS } else { -libc::EMFILE })
        } else {
            return None;
        };
        let cancel = opcode::AsyncCancel::new(user_data).build().user_data(OWN);
        // SAFETY: the layouts are the same.
        self.give(unsafe { std::mem::transmute::<Entry, Fields>(cancel) });
        Some(ending)
    }

    /// Makes a multishot operation's latest result its last one. The engine does not have it: see `release`.
    fn end_with_last(&mut self, user_data: u64) {
        let last = self.pending.iter_mut().rev().find(|pending| pending.completion.user_data == user_data);
        last.expect("what is being stopped is withheld").completion.flags &= !MORE;
    }

    fn hand_over(&mut self, completion: Completion, key: u64, is_real: bool, sent: Option<Sent>) {
        // What is withheld must not fill the kernel's queue, for what it waits for has to fit in there as well.
        let gives_back = is_real && self.seen > self.real.capacity() / 2;
        if gives_back {
            self.give_back();
        }
        let is_real = is_real && !gives_back;
        let turns = if completion.flags & NOTIFICATION != 0 && self.stream.strikes(Fault::LateNotification) {
            5 + self.stream.below(20)
        } else if self.stream.strikes(Fault::Withhold) {
            1 + self.stream.below(3)
        } else {
            0
        };
        self.pending.push(Pending { completion, key, turns, is_real, sent });
    }

    /// A completion will take no more place in the kernel's queue.
    fn give_back(&mut self) {
        self.seen -= 1;
        self.real.take(1);
    }

    /// Lets the engine see what it may see now, if there is room.
    fn release(&mut self) {
        let stopping = self.known.values().filter(|known| known.ending.is_some());
        let mut withheld: HashSet<u64> = stopping.map(|known| known.key).collect();
        let (mut due, mut kept) = (Vec::new(), Vec::new());
        for pending in self.pending.drain(..) {
            if pending.turns > 0 || withheld.contains(&pending.key) {
                withheld.insert(pending.key);
                kept.push(Pending { turns: pending.turns.saturating_sub(1), ..pending });
            } else {
                due.push(pending);
            }
        }
        if due.len() > 1 && self.stream.strikes(Fault::Reorder) {
            due = self.reordered(due);
        }
        let room = (self.far.cq_entries - self.far.available()) as usize;
        let overflows = due.len() > room;
        let rest = if overflows { due.split_off(room) } else { vec![] };
        for pending in due {
            if let Some(sent) = &pending.sent {
                sent.check();
            }
            self.far.deliver(pending.completion);
            if pending.is_real {
                self.give_back();
            }
        }
        self.real.publish_taken();
        if overflows {
            self.stream.add(Fault::Overflow);
        }
        // What is kept is later than what had to wait for room only if it is of another operation.
        self.pending = rest;
        self.pending.append(&mut kept);
        self.far.set_overflow(!self.pending.is_empty());
    }

    /// In any order, but for those with one key.
    fn reordered(&mut self, due: Vec<Pending>) -> Vec<Pending> {
        let mut keys: Vec<u64> = due.iter().map(|pending| pending.key).collect();
        self.stream.shuffle(&mut keys);
        let mut by_key: HashMap<u64, Vec<Pending>> = HashMap::new();
        for pending in due.into_iter().rev() {
            by_key.entry(pending.key).or_default().push(pending);
        }
        keys.iter().filter_map(|key| by_key.get_mut(key).and_then(Vec::pop)).collect()
    }

    /// Whether `enter` would bring something that nothing in the engine's queues tells of.
    pub(super) fn has_deferred(&self) -> bool {
        self.real.has_deferred() || self.real.available() > self.seen || !self.late.is_empty()
    }

    /// A chain is about to be queued.
    pub(super) fn note_chain(&self, has_room: bool) {
        if !has_room {
            self.stream.add(Fault::NoRoomForChain);
        }
    }
}

impl Fields {
    /// Nothing that ends with this result.
    fn reduce_to_nop(&mut self, result: i32) {
        let (flags, user_data) = (self.flags & LINKED, self.user_data);
        *self = Fields::new(opcode::Nop::CODE, Fd::new(-1), 0, result as u32, 0, INJECT_RESULT);
        (self.flags, self.user_data) = (flags, user_data);
    }
}
