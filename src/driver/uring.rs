//! The native engine: slots become entries of an io_uring, one `enter` both submits and waits.

mod again;
#[cfg(feature = "faults")]
mod between;
mod chains;
mod completions;
mod direct;
mod encode;
mod mapping;
mod multi;
mod pools;
mod resources;
mod ring;
mod setup;
mod support;

pub(crate) use resources::{forget_buffers, forget_files, set_buffer, set_file};
pub(crate) use ring::{Features, Ring};
pub(crate) use support::Support;

use super::{
    chain, fatal, perform,
    slot::{Link, Slot, State, slot_of, timer_of},
    waiter::{Waiter, tell},
    wheel::Wheel,
};
use crate::{
    Backend,
    op::{Clock, RawOp},
    stats::Stats,
    sys,
};
use direct::DirectFiles;
use io_uring::squeue::{Entry, Flags};
use pools::Pools;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What the low bits of `user_data` say an entry is to its slot.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Role {
    Operation = 0,
    LinkedTimeout = 1,
    Cancel = 2,
    /// Waits for readiness on behalf of a kernel that answers `EAGAIN` for a non-blocking descriptor.
    Readiness = 3,
    /// No entry at all: another thread has rung.
    Bell = 4,
}

const ROLES: u64 = 15;

/// `IORING_CQE_F_MORE`: the entry has further completions.
const MORE: u32 = 1 << 1;

/// `IORING_CQE_F_NOTIF`: what follows a result that said `MORE`. The kernel no longer uses the buffer of a send.
const NOTIFICATION: u32 = 1 << 3;

/// Nanoseconds until an operation is cancelled again that the kernel has missed.
const MISSED: u64 = 5_000_000;

/// As many completions as there will be at once.
const MANY: u32 = 64;

/// Nanoseconds that several completions are waited for. Then the first will do.
const TOGETHER: u64 = 1_000_000;

/// How other threads ring at a ring.
pub(crate) struct Door {
    ring: OwnedFd,
    user_data: u64,
}

impl Door {
    /// 0, or `-errno`.
    pub(crate) fn ring(&self) -> i32 {
        setup::send_message(self.ring.as_raw_fd(), self.user_data)
    }
}

/// Somebody has rung: tells the slot's waiter, if it waits.
///
/// # Safety
/// The slot is initialised, and stays with its waiter.
unsafe fn hear(slot: *mut Slot) {
    // SAFETY: promised by the caller.
    unsafe {
        let waiter = (*slot).waiter();
        if (*waiter).pending.get() > 0 {
            tell(waiter, 1);
        }
    }
}

pub(crate) struct Uring {
    // Closed first: the kernel uses memory of what follows.
    ring: Ring,
    support: Support,
    direct: DirectFiles,
    pools: Pools,
    wheel: Wheel,
    /// Chains that are being stepped through, and operations that wait for readiness: what completes starts something.
    stepping: u32,
    /// Chains that the kernel holds together, and their entries.
    chains: u32,
    chain_entries: u32,
    /// There is an operation in flight whose answer may be [none](again).
    doubtful: bool,
    /// The kernel is older than 5.19, or the ring pretends so.
    is_old: bool,
    /// Cancels by descriptor so far.
    cancels: u32,
    /// Completions that were not the last of their entry, or of no entry.
    extra: u64,
    /// Other threads may ring.
    listens: bool,
    /// Calls of `enter`, and system calls for operations that the ring does not do.
    enters: u64,
    direct_calls: u64,
}

impl Uring {
    pub(crate) fn new(ring: Ring) -> Uring {
        let support = Support::of(&ring);
        let is_old = ring.is_before_5_19();
        let wheel = Wheel::new(sys::monotonic());
        Uring {
            ring,
            support,
            direct: DirectFiles::new(),
            pools: Pools::default(),
            wheel,
            stepping: 0,
            chains: 0,
            chain_entries: 0,
            doubtful: false,
            is_old,
            cancels: 0,
            extra: 0,
            listens: false,
            enters: 0,
            direct_calls: 0,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let (submitted, completed) = self.ring.counts();
        let backend = Some(Backend::IoUring);
        Stats { backend, enters: self.enters, submitted, completed, direct: self.direct_calls, ..Stats::default() }
    }

    /// Entries whose completion is still to come.
    #[inline]
    fn in_flight(&self) -> u32 {
        let (written, taken) = self.ring.counts();
        (written + self.extra - taken) as u32
    }

    /// # Safety
    /// As [`Driver::submit`](super::Driver::submit).
    #[inline]
    pub(crate) unsafe fn submit(&mut self, head: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            if (*head).link() == Link::None {
                self.start(head);
            } else {
                self.submit_chain(head);
            }
        }
    }

    /// # Safety
    /// As [`Driver::submit_basic`](super::Driver::submit_basic).
    #[inline]
    pub(crate) unsafe fn submit_basic(&mut self, slot: *mut Slot, op: RawOp, waiter: *const Waiter) {
        self.reserve(1);
        self.doubtful |= self.is_doubtful(&op);
        let data = slot.expose_provenance() as u64 | Role::Operation as u64;
        // SAFETY: promised by the caller; the slot counts this entry from the start.
        unsafe {
            Slot::init_in_ring(slot, op, waiter);
            if !encode::write_common(&op, self.ring.place(), Flags::empty(), data) {
                unreachable!("every basic operation is a common one");
            }
            self.ring.advance();
        }
    }

    /// Starts an operation that no chain of the kernel's holds back: with the ring, with the wheel, or by a system
    /// call.
    ///
    /// # Safety
    /// `slot` is published and idle.
    #[inline]
    unsafe fn start(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            if (*slot).limit().is_some() {
                self.arm_limit(slot);
            }
            if matches!((*slot).op, RawOp::CancelFd { .. }) {
                self.cancels += 1;
            }
            if (*slot).op.is_zero_copy() && !self.support.has(&(*slot).op) {
                (*slot).op = (*slot).op.copying();
            }
            if let RawOp::Timeout { clock: Clock::Monotonic, absolute, at } = (*slot).op {
                let now = if absolute { 0 } else { sys::monotonic() };
                (*slot).set_state(State::Sleeping);
                self.set_timer(slot, now.saturating_add(at.nanos()));
            } else if (*slot).op.shots().is_some() {
                (*slot).set_careful();
                self.start_multi(slot, true);
            } else if self.support.has(&(*slot).op) {
                self.reserve(1);
                self.push_operation(slot, (*slot).op, Flags::empty());
            } else {
                self.start_directly(slot);
            }
        }
    }

    /// Performs what the ring does not do.
    ///
    /// # Safety
    /// As [`start`](Self::start).
    // Apart, as it takes a frame that tasks have to have room for.
    #[inline(never)]
    unsafe fn start_directly(&mut self, slot: *mut Slot) {
        self.direct_calls += 1;
        // SAFETY: promised by the caller.
        unsafe {
            (*slot).set_result(perform::now(&chain::resolved(&*slot)));
            self.settle(slot);
        }
    }

    /// # Safety
    /// `slot` is published, starts now, and has a limit.
    #[cold]
    unsafe fn arm_limit(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller. An operation that is a timer itself ends when the earlier of the two does.
        unsafe {
            let Some(limit) = (*slot).limit().map(|limit| limit.nanos()) else { return };
            let at = sys::monotonic().saturating_add(limit);
            match (*slot).op {
                RawOp::Timeout { clock: Clock::Monotonic, absolute, at: own } => {
                    let own = if absolute { own.nanos() } else { sys::monotonic().saturating_add(own.nanos()) };
                    if at < own {
                        (*slot).set_expired();
                        (*slot).op = RawOp::Timeout {
                            clock: Clock::Monotonic,
                            absolute: true,
                            at: sys::Timespec::from_nanos(at),
                        };
                    }
                }
                _ => self.set_timer(slot, at),
            }
        }
    }

    /// # Safety
    /// `slot` is published and has no timer.
    unsafe fn set_timer(&mut self, slot: *mut Slot, at: u64) {
        // SAFETY: promised by the caller: the timer lives in the slot, and `settle` removes it before the slot ends.
        unsafe {
            self.wheel.insert(timer_of(slot), at);
            (*slot).set_timer(true);
        }
    }

    /// Makes room for `entries` in the submission queue.
    #[inline]
    fn reserve(&mut self, entries: u32) {
        if !self.ring.has_room(entries) {
            self.make_room(entries);
        }
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, entries: u32) {
        while !self.ring.has_room(entries) {
            self.enter(0, None);
        }
    }

    /// Whether the ring's answer may be [none](again). Those of sockets stand, since 5.19, but for an accept that a
    /// signal has disturbed.
    #[inline]
    fn is_doubtful(&self, op: &RawOp) -> bool {
        match op {
            RawOp::Nop => false,
            RawOp::Recv { .. } | RawOp::Send { .. } | RawOp::RecvMsg { .. } | RawOp::SendMsg { .. } => self.is_old,
            RawOp::Connect { .. } | RawOp::Poll { .. } => self.is_old,
            _ => true,
        }
    }

    /// Puts the entry of a slot's operation into the submission queue.
    ///
    /// # Safety
    /// `slot` is published, what its operation points to lives as long, and there is room.
    #[inline]
    unsafe fn push_operation(&mut self, slot: *mut Slot, op: RawOp, flags: Flags) {
        self.doubtful |= self.is_doubtful(&op);
        let data = slot.expose_provenance() as u64 | Role::Operation as u64;
        // SAFETY: promised by the caller; the slot is not finished while `refs` counts this entry.
        unsafe {
            if !encode::write_common(&op, self.ring.place(), flags, data) {
                self.write_uncommon(slot, flags, data);
            }
            (*slot).add_entry(State::Ring);
            self.ring.advance();
        }
    }

    /// Writes the entry of an operation that is not among the most frequent. Apart, for it takes a frame that tasks
    /// have to have room for.
    ///
    /// # Safety
    /// As [`push_operation`](Self::push_operation).
    #[inline(never)]
    unsafe fn write_uncommon(&mut self, slot: *mut Slot, flags: Flags, data: u64) {
        // SAFETY: promised by the caller.
        unsafe {
            if (*slot).op.is_zero_copy() || matches!((*slot).op, RawOp::Entry(_)) {
                (*slot).set_careful();
            }
            self.ring.place().write(encode::encode(&*slot).flags(flags).user_data(data));
        }
    }

    /// Puts another entry for a slot into the submission queue.
    ///
    /// # Safety
    /// As [`push_operation`](Self::push_operation).
    unsafe fn push(&mut self, slot: *mut Slot, entry: Entry, flags: Flags, role: Role) {
        let data = slot.expose_provenance() as u64 | role as u64;
        // SAFETY: promised by the caller; the slot is not finished while `refs` counts this entry.
        unsafe {
            self.ring.place().write(entry.flags(flags).user_data(data));
            (*slot).add_entry((*slot).state());
            self.ring.advance();
        }
    }

    /// One system call: submits what is queued and waits for `want` completions, at most for `limit` nanoseconds.
    #[inline]
    fn enter(&mut self, want: u32, limit: Option<u64>) {
        self.enters += 1;
        match self.ring.enter(want, limit) {
            Ok(()) => {}
            Err(libc::EINTR | libc::ETIME) => {}
            Err(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                // The kernel is short of memory, or wants its completions taken first. What it has consumed is counted
                // by the ring's head, so the rest is simply submitted again.
                if !self.reap() {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
            Err(errno) => fatal("io_uring_enter failed", errno),
        }
    }

    /// As [`Driver::turn`](super::Driver::turn).
    #[inline]
    pub(crate) fn turn(&mut self, want: u32) {
        let limit = if self.wheel.is_empty() { None } else { self.until_next_timer() };
        if limit == Some(0) || self.ring.has_completion() {
            // Something can be finished at once.
            if self.ring.has_queued() || self.ring.has_deferred() {
                self.enter(0, None);
            }
        } else {
            debug_assert!(self.in_flight() > 0 || limit.is_some() || self.listens, "a turn with nothing to wait for");
            let want = self.sensible(want);
            let (_, before) = self.ring.counts();
            if want > 1 && self.doubtful {
                // What has come may be no answer, as that of a socket which was given an offset, and has to be tried
                // again before another operation can end. So the wait for all of them is a short one.
                self.enter(want, Some(limit.map_or(TOGETHER, |limit| limit.min(TOGETHER))));
            } else if want > 1 {
                self.enter(want, limit);
            } else if self.chains > 0 && self.ring.has_queued() {
                // The kernel does one step of its deferred work for each completion that it is asked for, and goes back
                // to sleep. Chains take many; so it is asked for more than there will be, and not to sleep.
                self.enter(self.in_flight().min(MANY), Some(0));
            }
            // A kernel that is short of memory has made `enter` take some already; there may be no other.
            if !self.ring.has_completion() && self.ring.counts().1 == before {
                let limit = if self.wheel.is_empty() { None } else { self.until_next_timer() };
                if limit != Some(0) {
                    self.enter(1, limit);
                }
            }
        }
        self.reap();
        if !self.wheel.is_empty() {
            self.expire();
        }
        if self.in_flight() == 0 {
            self.doubtful = false;
        }
    }

    /// As [`Driver::poll`](super::Driver::poll).
    pub(crate) fn poll(&mut self, thorough: bool) {
        loop {
            if self.ring.has_queued() || self.ring.has_deferred() {
                self.enter(0, None);
            }
            self.reap();
            if thorough && !self.wheel.is_empty() {
                self.expire();
            }
            // A time that is up has made a cancellation, or a chain its next step. Whoever waits for the descriptor now
            // would wait for the answer to something that the kernel does not have.
            if !self.ring.has_queued() {
                return;
            }
        }
    }

    /// As [`Driver::pollable`](super::Driver::pollable).
    pub(crate) fn pollable(&self) -> RawFd {
        self.ring.fd()
    }

    /// As [`Driver::door`](super::Driver::door).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn door(&mut self, slot: *mut Slot) -> Option<Door> {
        let ring = self.ring.duplicate()?;
        let door = Door { ring, user_data: slot.expose_provenance() as u64 | Role::Bell as u64 };
        // The first ring tells whether the kernel knows how. It finds nobody who waits.
        let known = self.support.multishot() && door.ring() == 0;
        self.listens |= known;
        known.then_some(door)
    }

    /// As [`Driver::is_pollable`](super::Driver::is_pollable).
    pub(crate) fn is_pollable(&self) -> bool {
        !self.ring.defers()
    }

    /// As [`Driver::next_timer`](super::Driver::next_timer).
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.wheel.next()
    }

    /// How many completions to wait for. Not more than one if what completes may lead to something being started that
    /// other operations depend on: a chain that is stepped through, or one that may have to be. Nor if another thread
    /// may ring.
    #[inline]
    fn sensible(&self, want: u32) -> u32 {
        let in_flight = self.in_flight();
        let only_a_chain = self.chains == 1 && in_flight <= self.chain_entries;
        if self.stepping > 0 || self.listens || self.chains > 0 && !only_a_chain {
            return 1;
        }
        want.min(in_flight).min(self.ring.completions()).max(1)
    }

    fn until_next_timer(&self) -> Option<u64> {
        self.wheel.next().map(|at| at.saturating_sub(sys::monotonic()))
    }

    /// Ends what the wheel says is due.
    #[cold]
    fn expire(&mut self) {
        self.wheel.advance(sys::monotonic());
        while let Some(timer) = self.wheel.pop() {
            let slot = slot_of(timer);
            // SAFETY: a timer is removed from the wheel before its slot is finished.
            unsafe {
                (*slot).set_timer(false);
                if (*slot).op.shots().is_some() {
                    self.tick_multi(slot);
                } else if (*slot).state() == State::Sleeping {
                    (*slot).set_result(if (*slot).has_expired() { -libc::ECANCELED } else { 0 });
                    self.settle(slot);
                } else if !matches!((*slot).op, RawOp::Close { .. }) {
                    // A cancelled `close` would lose what it was given.
                    if !(*slot).is_cancelled() {
                        (*slot).set_expired();
                    }
                    self.cancel(slot);
                }
            }
        }
    }

    /// The kernel has missed an operation that it was to cancel: its worker had just taken it, and may wait without
    /// having noticed (seen on Linux 6.18).
    ///
    /// # Safety
    /// `slot` is published and not finished, and holds no multishot operation.
    #[cold]
    unsafe fn cancel_later(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller. Its own limit does not matter any more.
        unsafe {
            if (*slot).has_timer() {
                self.wheel.remove(timer_of(slot));
            }
            self.set_timer(slot, sys::monotonic() + MISSED);
        }
    }

    /// # Safety
    /// As [`Driver::cancel`](super::Driver::cancel).
    pub(crate) unsafe fn cancel(&mut self, slot: *mut Slot) {
        // Making room may take completions, that of this very slot among them. So it comes first.
        self.reserve(1);
        // SAFETY: the caller promises that the slot is in place; nothing below takes completions.
        unsafe {
            match (*slot).state() {
                State::Held if (*slot).is_ending() => {}
                // It is not tried again, should its result ask for that.
                State::Lingering => (*slot).set_cancelled(),
                State::Sleeping | State::Held if (*slot).op.shots().is_some() => {
                    (*slot).set_cancelled();
                    self.end_multi(slot, -libc::ECANCELED);
                }
                State::Sleeping => {
                    (*slot).set_cancelled();
                    (*slot).set_result(-libc::ECANCELED);
                    self.settle(slot);
                }
                state @ (State::Ring | State::Parked) if (*slot).may_cancel() => {
                    (*slot).set_cancelled();
                    let role = if state == State::Ring { Role::Operation } else { Role::Readiness };
                    let target = slot.expose_provenance() as u64 | role as u64;
                    self.push(slot, encode::cancel(target), Flags::empty(), Role::Cancel);
                }
                _ => {}
            }
        }
    }

    /// As [`Driver::supports`](super::Driver::supports).
    pub(crate) fn supports(&self, op: &RawOp) -> bool {
        self.support.has(op)
    }

    pub(crate) fn release_opened(&mut self, opened: i32, closed: bool) {
        if !self.direct.release(&self.ring, opened, closed) {
            chain::close_opened(opened, closed);
        }
    }
}
