//! The emulation: a readiness loop with worker threads that gives the results a ring would.
//!
//! An operation is [attempted](super::perform) at once. What would have to wait is parked on its descriptor, put to
//! sleep, or handed to a worker thread if only a disk can tell. Chains are [stepped through](super::chain) here.

#[cfg(target_os = "linux")]
mod epoll;
mod multi;
mod parked;
mod poll;
mod selector;
mod workers;

pub(crate) use selector::Selector;
pub(crate) use workers::WorkerLimits;

use super::{
    chain::{self, Step},
    fatal,
    fault::Faults,
    multi::end as end_multi,
    perform::{self, Attempt},
    slot::{Link, Slot, State, finish, slot_of, timer_of},
    wheel::Wheel,
};
use crate::{
    Errno,
    error::SetupCall,
    op::{Clock, RawOp},
    stats::Stats,
    sys,
};
use parked::Parked;
use std::{collections::VecDeque, os::fd::RawFd};
use workers::Workers;

/// How long to wait before an attempt that nothing will wake is repeated.
const LATER: u64 = 2_000_000;
/// A clock that can be set is looked at again at least this often.
const CLOCK_CHECK: u64 = 500_000_000;

pub(crate) struct Ready {
    selector: Selector,
    parked: Parked,
    wheel: Wheel,
    /// Timeouts by clocks other than the monotonic one.
    clocks: Vec<*mut Slot>,
    workers: Workers,
    /// Slots to be started, in order.
    runnable: VecDeque<*mut Slot>,
    /// Descriptors reported ready by the last wait, and what waits for one of them.
    events: Vec<(RawFd, u16)>,
    waking: Vec<*mut Slot>,
    stats: Stats,
    faults: Faults,
}

impl Ready {
    pub(crate) fn new(mut selector: Selector, limits: WorkerLimits) -> Result<Ready, (SetupCall, Errno)> {
        let workers = Workers::new(limits)?;
        let backend = Some(selector.backend());
        let failed = selector.watch_always(workers.doorbell());
        if failed < 0 {
            return Err((SetupCall::EpollCtl, Errno::new(-failed)));
        }
        Ok(Ready {
            selector,
            parked: Parked::default(),
            wheel: Wheel::new(sys::monotonic()),
            clocks: Vec::new(),
            workers,
            runnable: VecDeque::new(),
            events: Vec::new(),
            waking: Vec::new(),
            stats: Stats { backend, ..Stats::default() },
            faults: Faults::NONE,
        })
    }

    /// Has things go wrong.
    #[cfg(feature = "faults")]
    pub(crate) fn set_faults(&mut self, mut faults: Faults) {
        self.workers.set_faults(faults.split());
        self.faults = faults;
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { registrations: self.selector.registrations(), ..self.stats }
    }

    /// # Safety
    /// As [`Driver::submit`](super::Driver::submit).
    pub(crate) unsafe fn submit(&mut self, head: *mut Slot, alone: bool) {
        let alone = alone && self.is_idle();
        let mut slot = head;
        // SAFETY: none of the slots is finished before `run` below.
        unsafe {
            loop {
                Slot::init_emulated(slot);
                if alone {
                    (*slot).set_may_block();
                }
                if (*slot).link() == Link::None {
                    break;
                }
                slot = (*slot).next();
            }
        }
        self.runnable.push_back(head);
        self.run();
    }

    fn is_idle(&self) -> bool {
        self.parked.is_empty() && self.workers.busy() == 0 && self.wheel.is_empty() && self.clocks.is_empty()
    }

    /// Starts what is to be started, until nothing is.
    fn run(&mut self) {
        while let Some(slot) = self.runnable.pop_front() {
            // SAFETY: what is runnable is published and not finished.
            unsafe { self.start(slot) };
        }
    }

    /// # Safety
    /// `slot` is published, and its turn has come.
    unsafe fn start(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            // System calls copy what they send.
            (*slot).op = chain::resolved(&*slot).copying();
            if (*slot).link() == Link::None {
                (*slot).op = self.faults.shorten((*slot).op);
            }
            if let RawOp::Timeout { clock, absolute, at } = (*slot).op {
                self.sleep(slot, clock, absolute, at.nanos());
            } else if (*slot).op.shots().is_some() {
                self.start_multi(slot, true);
            } else {
                if let Some(limit) = (*slot).limit() {
                    let at = sys::monotonic().saturating_add(limit.nanos());
                    (*slot).emulated().deadline.set(at);
                    self.set_timer(slot, at);
                }
                self.attempt(slot);
            }
        }
    }

    /// # Safety
    /// `slot` is a timeout that starts now.
    unsafe fn sleep(&mut self, slot: *mut Slot, clock: Clock, absolute: bool, nanos: u64) {
        // SAFETY: promised by the caller.
        unsafe {
            (*slot).set_state(State::Sleeping);
            let limit = (*slot).limit().map(|limit| sys::monotonic().saturating_add(limit.nanos()));
            let now = if absolute { 0 } else { sys::now(clock.id()) };
            let at = now.saturating_add(nanos);
            match (clock, limit) {
                (Clock::Monotonic, Some(limit)) if limit < at => {
                    (*slot).set_expired();
                    self.set_timer(slot, limit);
                }
                (Clock::Monotonic, _) => self.set_timer(slot, at),
                (_, limit) => {
                    (*slot).op = RawOp::Timeout { clock, absolute: true, at: sys::Timespec::from_nanos(at) };
                    self.clocks.push(slot);
                    if let Some(limit) = limit {
                        self.set_timer(slot, limit);
                    }
                }
            }
        }
    }

    /// # Safety
    /// `slot` is published and has no timer.
    unsafe fn set_timer(&mut self, slot: *mut Slot, at: u64) {
        // SAFETY: promised by the caller: the timer lives in the slot, and is removed before the slot ends.
        unsafe {
            self.wheel.insert(timer_of(slot), at);
            (*slot).set_timer(true);
        }
    }

    /// Tries to perform an operation now, and arranges for the next try if it would have to wait.
    ///
    /// # Safety
    /// `slot` is published, started, and on no list.
    unsafe fn attempt(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            let op = (*slot).op;
            if op.shots().is_some() {
                return self.attempt_multi(slot, false);
            }
            if let RawOp::CancelFd { fd } = op {
                let count = self.cancel_fd(fd.number());
                return self.settle(slot, count);
            }
            let mut progress = (*slot).emulated().progress.get();
            let outcome = match op {
                RawOp::Connect { fd, .. } if (*slot).state() == State::Parked => {
                    self.stats.direct += 1;
                    perform::connect_outcome(fd.number())
                }
                _ => {
                    let outcome = self.faults.within(|| perform::attempt(&op, &mut progress));
                    self.stats.direct += u64::from(outcome != Attempt::Worker && !matches!(op, RawOp::Nop));
                    outcome
                }
            };
            (*slot).emulated().progress.set(progress);
            let outcome = match (outcome, op.readiness()) {
                // A datagram socket that was shut down is ready, and has nothing, and says so to nobody who does not wait.
                (Attempt::Park, Some((fd, _))) if (*slot).state() == State::Parked && perform::has_ended(&op, fd) => {
                    Attempt::Done(progress as i32)
                }
                (outcome, _) => outcome,
            };
            match outcome {
                Attempt::Done(result) => self.settle(slot, result),
                Attempt::Cut(result) => {
                    if (*slot).link() == Link::Soft {
                        (*slot).set_broken();
                    }
                    self.settle(slot, result);
                }
                Attempt::Park => self.park(slot),
                Attempt::Worker => self.give_to_worker(slot),
                Attempt::Later => self.try_later(slot),
            }
        }
    }

    /// # Safety
    /// As [`attempt`](Self::attempt).
    unsafe fn park(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            let op = (*slot).op;
            let Some((fd, events)) = op.readiness() else { unreachable!("only what has readiness is parked") };
            if fd.number() < 0 {
                return self.settle(slot, -libc::EBADF);
            }
            // Not even an error can happen to a file; a ring says so too.
            if events == 0 && sys::is_disk(fd.number()) {
                return self.settle(slot, -libc::EINVAL);
            }
            (*slot).set_state(State::Parked);
            let interest = self.parked.add(fd.number(), slot, events);
            let failed = self.selector.arm(fd.number(), interest);
            if failed == 0 {
                return;
            }
            self.unpark(slot);
            match failed {
                // Not something that can be waited for: a file, always ready.
                error if error == -libc::EPERM && op.may_be_file() => self.give_to_worker(slot),
                // What it was asked about will never be; a ring says so too.
                error if error == -libc::EPERM && matches!(op, RawOp::Poll { .. }) => self.settle(slot, -libc::EINVAL),
                error if error == -libc::EPERM => self.settle(slot, i32::from(events)),
                error => self.settle(slot, error),
            }
        }
    }

    /// Takes a slot off its descriptor's list.
    ///
    /// # Safety
    /// `slot` is parked.
    unsafe fn unpark(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            let Some((fd, _)) = (*slot).op.readiness() else { unreachable!("only what has readiness is parked") };
            if self.parked.remove(fd.number(), slot) {
                self.selector.disarm(fd.number());
            }
        }
    }

    /// # Safety
    /// As [`attempt`](Self::attempt).
    unsafe fn give_to_worker(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller: the slot stays until the worker has reported, for it is not finished before.
        unsafe {
            (*slot).set_state(State::Worker);
            let alone = (*slot).may_block() && (*slot).limit().is_none();
            if !alone && self.workers.give(slot.expose_provenance(), (*slot).op, (*slot).emulated().progress.get()) {
                self.stats.jobs += 1;
            } else if !alone && matches!((*slot).op, RawOp::FutexWait { .. }) {
                // Nobody could end it on this thread. (`EAGAIN` would say that the word holds another value.)
                self.settle(slot, -libc::ENOMEM);
            } else {
                self.stats.direct += 1;
                let progress = (*slot).emulated().progress.get();
                let result = self.faults.within(|| workers::perform(&(*slot).op, progress));
                self.job_done(slot, result);
            }
        }
    }

    /// # Safety
    /// `slot` was given to a worker, or would have been.
    unsafe fn job_done(&mut self, slot: *mut Slot, result: i32) {
        // SAFETY: promised by the caller.
        unsafe {
            let waits = matches!((*slot).op, RawOp::Splice { .. } | RawOp::Tee { .. }) && !(*slot).op.is_nonblocking();
            match result {
                error if error == -libc::EAGAIN && waits && (*slot).has_expired() => {
                    self.settle(slot, -libc::ECANCELED);
                }
                error if error == -libc::EAGAIN && waits => self.try_later(slot),
                result => self.settle(slot, result),
            }
        }
    }

    /// # Safety
    /// As [`attempt`](Self::attempt).
    unsafe fn try_later(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller. A slot has one timer: it fires at the next try or at the operation's own
        // limit, whichever is first.
        unsafe {
            (*slot).set_state(State::Retry);
            if (*slot).has_timer() {
                self.wheel.remove(timer_of(slot));
            }
            let at = sys::monotonic() + LATER;
            self.set_timer(
                slot,
                match (*slot).emulated().deadline.get() {
                    0 => at,
                    deadline => at.min(deadline),
                },
            );
        }
    }

    /// An operation has its result: its chain goes on, and it ends.
    ///
    /// # Safety
    /// `slot` is published, on no list, and not finished; nobody touches it afterwards.
    unsafe fn settle(&mut self, slot: *mut Slot, result: i32) {
        // SAFETY: promised by the caller; a slot is not touched after `finish`.
        unsafe {
            if (*slot).has_timer() {
                self.wheel.remove(timer_of(slot));
                (*slot).set_timer(false);
            }
            (*slot).set_result(result);
            if (*slot).op.shots().is_some() {
                return end_multi(slot, result);
            }
            let step = chain::step(slot);
            finish(slot);
            match step {
                Step::End => {}
                Step::Start(next) => self.runnable.push_back(next),
                Step::Skip(mut next) => {
                    while !next.is_null() {
                        (*next).set_result(-libc::ECANCELED);
                        let after = chain::next_skipped(next);
                        finish(next);
                        next = after;
                    }
                }
            }
        }
    }

    /// As [`Driver::turn`](super::Driver::turn).
    pub(crate) fn turn(&mut self) {
        if !self.runnable.is_empty() {
            return self.run();
        }
        let limit = self.until_next();
        if limit.is_none() && !self.waits_for_events() {
            fatal("nothing is left to wait for, yet an operation is not finished", libc::EDEADLK);
        }
        self.look(limit);
    }

    /// As [`Driver::poll`](super::Driver::poll).
    pub(crate) fn poll(&mut self, thorough: bool) {
        self.run();
        if thorough && self.waits_for_events() {
            self.look(Some(0));
        } else if thorough {
            self.expire();
            self.run();
        }
    }

    /// As [`Driver::pollable`](super::Driver::pollable).
    pub(crate) fn pollable(&self) -> Option<RawFd> {
        self.selector.pollable()
    }

    /// As [`Driver::next_timer`](super::Driver::next_timer).
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.until_next().map(|nanos| sys::monotonic().saturating_add(nanos))
    }

    fn waits_for_events(&self) -> bool {
        !self.parked.is_empty() || self.workers.busy() > 0
    }

    /// Waits for events, at most for `limit` nanoseconds, and handles them and whatever else is due.
    fn look(&mut self, limit: Option<u64>) {
        self.stats.waits += 1;
        let mut events = std::mem::take(&mut self.events);
        let count = match self.faults.interrupt_wait() {
            true => -libc::EINTR,
            false => self.selector.wait(limit, &mut events),
        };
        match count {
            0.. => self.faults.disturb(&mut events, || self.parked.descriptors()),
            error if error == -libc::EINTR => events.clear(),
            error => fatal("waiting for descriptors failed", -error),
        }
        for (fd, _) in events.drain(..) {
            self.wake(fd);
        }
        self.events = events;
        self.collect_jobs();
        self.expire();
        self.run();
    }

    fn until_next(&self) -> Option<u64> {
        let timer = self.wheel.next().map(|at| at.saturating_sub(sys::monotonic()));
        let clock = self.clocks.iter().map(|&slot| {
            // SAFETY: a slot is on the list only until it is finished.
            let RawOp::Timeout { clock, at, .. } = (unsafe { (*slot).op }) else { unreachable!() };
            at.nanos().saturating_sub(sys::now(clock.id())).min(CLOCK_CHECK)
        });
        timer.into_iter().chain(clock).min()
    }

    /// Attempts what waits for a descriptor, in order, until one has to go on waiting.
    fn wake(&mut self, fd: RawFd) {
        if fd == self.workers.doorbell() {
            return;
        }
        let mut blocked = 0u16;
        let mut waiting = std::mem::take(&mut self.waking);
        self.parked.take(fd, &mut waiting);
        self.selector.fired(fd);
        for slot in waiting.drain(..) {
            // SAFETY: what is parked is published and not finished. An earlier one of them cannot have ended a later
            // one: they were taken off the list, so `cancel` does not find them there.
            unsafe {
                let events = (*slot).op.readiness().map_or(0, |(_, events)| events);
                if events & blocked != 0 && !matches!((*slot).op, RawOp::Poll { .. }) {
                    self.park(slot);
                    continue;
                }
                self.attempt(slot);
            }
            if self.parked.last_added() == slot {
                // SAFETY: it was parked again just now.
                blocked |= unsafe { (*slot).op.readiness() }.map_or(0, |(_, events)| events);
            }
        }
        self.waking = waiting;
    }

    /// Takes the results of the workers.
    fn collect_jobs(&mut self) {
        while let Some((slot, result)) = self.workers.take_done() {
            // SAFETY: `give_to_worker` exposed the address; the slot is not finished before its worker has reported.
            unsafe { self.job_done(std::ptr::with_exposed_provenance_mut(slot), result) };
        }
    }

    /// Ends what the clocks say is due.
    fn expire(&mut self) {
        if !self.wheel.is_empty() {
            self.wheel.advance(sys::monotonic());
            while let Some(timer) = self.wheel.pop() {
                // SAFETY: a timer is removed from the wheel before its slot is finished.
                unsafe { self.timer_fired(slot_of(timer)) };
            }
        }
        let mut at = 0;
        while let Some(&slot) = self.clocks.get(at) {
            // SAFETY: a slot is on the list only until it is finished.
            unsafe {
                let RawOp::Timeout { clock, at: due, .. } = (*slot).op else { unreachable!() };
                if sys::now(clock.id()) >= due.nanos() {
                    self.clocks.swap_remove(at);
                    self.settle(slot, 0);
                } else {
                    at += 1;
                }
            }
        }
    }

    /// # Safety
    /// `slot` is published, and its timer has just been popped.
    unsafe fn timer_fired(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            (*slot).set_timer(false);
            let deadline = (*slot).emulated().deadline.get();
            match (*slot).state() {
                State::Sleeping if (*slot).op.shots().is_some() => self.tick_multi(slot),
                State::Sleeping if matches!((*slot).op, RawOp::Timeout { clock: Clock::Monotonic, .. }) => {
                    let result = if (*slot).has_expired() { -libc::ECANCELED } else { 0 };
                    self.settle(slot, result);
                }
                State::Retry if deadline == 0 => self.attempt(slot),
                State::Retry if sys::monotonic() < deadline => {
                    self.set_timer(slot, deadline);
                    self.attempt(slot);
                }
                _ => {
                    (*slot).set_expired();
                    self.cancel(slot);
                }
            }
        }
    }

    /// # Safety
    /// As [`Driver::cancel`](super::Driver::cancel).
    pub(crate) unsafe fn cancel(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            match (*slot).state() {
                State::Parked => self.unpark(slot),
                State::Retry | State::Held => {}
                State::Sleeping => self.clocks.retain(|&other| other != slot),
                State::Worker if self.workers.take_back(slot.expose_provenance()) => {}
                // It reports soon, with or without a result.
                State::Worker if matches!((*slot).op, RawOp::FutexWait { .. }) => {
                    return self.workers.stop_wait(slot.expose_provenance());
                }
                // With a worker, which cannot be interrupted; not started; or done.
                _ => return,
            }
            let done = (*slot).emulated().progress.get() as i32;
            self.settle(slot, if done > 0 { done } else { -libc::ECANCELED });
        }
    }

    /// Cancels all that waits for the same open file; gives how many that were.
    fn cancel_fd(&mut self, fd: RawFd) -> i32 {
        let mut count = 0;
        for other in self.parked.descriptors() {
            if sys::same_file(fd, other) {
                for slot in self.parked.waiting(other) {
                    // SAFETY: what is parked is published and not finished; cancelling one leaves the others parked.
                    unsafe { self.cancel(slot) };
                    count += 1;
                }
            }
        }
        count
    }
}
