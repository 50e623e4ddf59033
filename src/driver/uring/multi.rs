//! Multishot operations on a ring.
//!
//! The kernel gives result after result for one entry. It may stop doing so for reasons of its own (a full completion
//! queue, say); then the driver gives it another entry, so that for the program the operation ends only with an error,
//! the end of a stream, or a cancel. An operation whose results nobody takes is stopped by a cancel and started again
//! when there is room. Kernels before 6.7 lack some of it; there readiness is waited for, and [system
//! calls](crate::driver::multi) do the rest.
//!
//! Receiving from a Unix socket is given entry after entry: Linux 6.18 goes by the number of bytes that such a socket
//! still has, and if that is none waits for the next event, though the end may have come together with the last bytes.
//! A TCP socket says one when the end is near.

use super::{
    MORE, Role, Uring,
    encode::{self, Extent},
};
use crate::{
    driver::{
        files::Kind,
        multi::{self, Round, Tick},
        pool::Pool,
        shots::{Shot, Shots},
        slot::{Slot, State},
    },
    op::{Multi, RawOp},
    sys,
};
use io_uring::squeue::Flags;

/// `IORING_CQE_F_BUFFER`: a buffer was filled, whose number is in the upper half; and more will be put into it.
const BUFFER: u32 = 1 << 0;
const BUFFER_SHIFT: u32 = 16;
const BUFFER_MORE: u32 = 1 << 4;

impl Uring {
    /// Starts an operation, or goes on with one that has paused.
    ///
    /// # Safety
    /// `slot` is published, has no operation in flight, and holds a multishot operation that has not ended.
    pub(super) unsafe fn start_multi(&mut self, slot: *mut Slot, first: bool) {
        // SAFETY: promised by the caller.
        unsafe {
            let (fd, what, _) = multi::parts(slot);
            match what {
                Multi::Timeout { nanos, .. } => {
                    let now = sys::monotonic();
                    let at = if first { now.saturating_add(nanos) } else { multi::next_tick(slot, nanos, now) };
                    (*slot).set_due(at);
                    (*slot).set_state(State::Sleeping);
                    self.set_timer(slot, at);
                }
                _ if self.is_native(&what) => {
                    let what = if first { adapt(slot) } else { what };
                    self.reserve(1);
                    let data = slot.expose_provenance() as u64 | Role::Operation as u64;
                    let extent = match ((*slot).is_one_by_one(), first) {
                        (false, _) => Extent::All,
                        (true, true) => Extent::First,
                        (true, false) => Extent::Next,
                    };
                    let entry = encode::multi(fd, &what, extent);
                    self.ring.place().write(entry.user_data(data));
                    (*slot).add_entry(State::Ring);
                    self.doubtful = true;
                    self.ring.advance();
                }
                _ => self.attempt_multi(slot, first),
            }
        }
    }

    /// Whether the kernel does all of it. A poll is asked for again each time, when its result has been taken.
    fn is_native(&self, what: &Multi) -> bool {
        match what {
            Multi::Poll { .. } | Multi::Timeout { .. } => false,
            // SAFETY: the operation, which is published, keeps its pool.
            other => self.support.multishot() && other.pool().is_none_or(|pool| unsafe { (*pool).is_shared() }),
        }
    }

    /// # Safety
    /// As [`start_multi`](Self::start_multi).
    unsafe fn attempt_multi(&mut self, slot: *mut Slot, first: bool) {
        // SAFETY: promised by the caller.
        unsafe {
            let (fd, what, _) = multi::parts(slot);
            // The kernel itself looks first whether a descriptor is ready already.
            let round = match what {
                Multi::Poll { .. } => Round::Wait,
                _ => {
                    self.direct_calls += 1;
                    multi::round(slot, first)
                }
            };
            match round {
                Round::Wait => {
                    let events = match what {
                        Multi::Poll { events } => events,
                        _ => libc::POLLIN as u16,
                    };
                    self.stepping += 1;
                    self.reserve(1);
                    (*slot).set_state(State::Parked);
                    self.push(slot, encode::poll(fd, events), Flags::empty(), Role::Readiness);
                }
                Round::Pause => (*slot).set_state(State::Held),
                Round::End(result) => self.end_multi(slot, result),
            }
        }
    }

    /// The descriptor that a multishot operation waited for is ready, or the wait has ended.
    ///
    /// # Safety
    /// `slot` is published and holds a multishot operation that has not ended.
    pub(super) unsafe fn ready_multi(&mut self, slot: *mut Slot, result: i32) {
        // SAFETY: promised by the caller.
        unsafe {
            let (_, what, shots) = multi::parts(slot);
            if (*slot).is_cancelled() || result < 0 {
                return self.end_multi(slot, if result < 0 { result } else { -libc::ECANCELED });
            }
            if matches!(what, Multi::Poll { .. }) {
                (*slot).set_state(State::Held);
                shots.push(Shot::plain(result));
            } else {
                self.attempt_multi(slot, false);
            }
        }
    }

    /// The kernel has a result for a multishot operation. Its entry is still in flight if there is `MORE`.
    ///
    /// # Safety
    /// As [`ready_multi`](Self::ready_multi).
    pub(super) unsafe fn complete_multi(&mut self, slot: *mut Slot, result: i32, flags: u32) {
        // SAFETY: promised by the caller.
        unsafe {
            let (fd, what, shots) = multi::parts(slot);
            let pool = what.pool().map(|pool| &*pool);
            let result = if multi::is_end_of_stream(fd, &what, result) { 0 } else { result };
            let is_end = result == 0 && pool.is_some();
            match pool.filter(|_| flags & BUFFER != 0) {
                Some(pool) => push_filled(shots, pool, result, flags),
                None if result >= 0 && !is_end => shots.push(Shot::plain(result)),
                None => {}
            }
            if flags & MORE != 0 {
                return if shots.is_full() {
                    self.pause_multi(slot)
                };
            }
            let pausing = (*slot).is_pausing();
            (*slot).set_pausing(false);
            (*slot).set_state(State::Held);
            let interrupted = (-516..=-512).contains(&result) || result == -libc::EINTR;
            let stopped = result == -libc::ECANCELED && pausing;
            if (*slot).is_cancelled() {
                self.end_multi(slot, -libc::ECANCELED);
            } else if is_end || result < 0 && !interrupted && !stopped {
                self.end_multi(slot, result);
            } else if result > 0 && what.is_once() {
                self.end_multi(slot, 0);
            } else if !shots.is_full() {
                self.start_multi(slot, false);
            }
        }
    }

    /// Stops an operation whose results nobody takes.
    ///
    /// # Safety
    /// As [`ready_multi`](Self::ready_multi).
    #[cold]
    unsafe fn pause_multi(&mut self, slot: *mut Slot) {
        // Making room may take completions, the last one of this very operation among them.
        self.reserve(1);
        // SAFETY: promised by the caller; nobody takes shots meanwhile, so the slot stays.
        unsafe {
            let running = (*slot).state() == State::Ring && !(*slot).is_pausing() && !(*slot).is_cancelled();
            if running && (*slot).may_cancel() {
                (*slot).set_pausing(true);
                let target = slot.expose_provenance() as u64 | Role::Operation as u64;
                self.push(slot, encode::cancel(target), Flags::empty(), Role::Cancel);
            }
        }
    }

    /// # Safety
    /// As [`ready_multi`](Self::ready_multi); no operation of it is in flight.
    pub(super) unsafe fn end_multi(&mut self, slot: *mut Slot, result: i32) {
        // SAFETY: promised by the caller. Entries of the slot that are in flight still need it.
        unsafe {
            if (*slot).has_timer() {
                self.wheel.remove(super::timer_of(slot));
                (*slot).set_timer(false);
            }
            (*slot).set_state(State::Held);
            (*slot).set_ending(result);
            if !(*slot).has_entries() {
                multi::end(slot, result);
            }
        }
    }

    /// # Safety
    /// `slot` holds a periodic timer that is due.
    pub(super) unsafe fn tick_multi(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            match multi::tick(slot, sys::monotonic()) {
                Tick::At(at) => self.set_timer(slot, at),
                Tick::Pause => (*slot).set_state(State::Held),
                Tick::End => self.end_multi(slot, 0),
            }
        }
    }

    /// As [`Driver::resume`](crate::driver::Driver::resume).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn resume(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            if (*slot).state() == State::Held && !(*slot).is_ending() && !multi::parts(slot).2.is_full() {
                self.start_multi(slot, false);
            }
        }
    }
}

/// Takes note of what was filled: the parts of one buffer, or several buffers of which all but the last are full.
fn push_filled(shots: &Shots, pool: &Pool, result: i32, flags: u32) {
    let mut buffer = (flags >> BUFFER_SHIFT) as u16;
    let mut left = result.max(0) as u32;
    loop {
        let (len, following) = (left.min(pool.size()), pool.next(buffer));
        let part = pool.filled(buffer, len, flags & BUFFER_MORE != 0);
        if len == 0 {
            return pool.release(part);
        }
        shots.push(Shot { part: Some(part), ..Shot::plain(len as i32) });
        left -= len;
        if left == 0 {
            return;
        }
        buffer = following;
    }
}

/// Adapts an operation to what it works on. A message is for one buffer, and a Unix socket must not miss its end.
///
/// # Safety
/// As [`parts`](multi::parts).
unsafe fn adapt(slot: *mut Slot) -> Multi {
    // SAFETY: promised by the caller; the operation keeps its pool.
    unsafe {
        let RawOp::Multi { fd, what, .. } = &mut (*slot).op else { unreachable!("called for multishot operations") };
        if let Multi::Recv { pool, bundled, .. } = what {
            match fd.kind() {
                Kind::UnixStream => (*slot).set_one_by_one(),
                kind => *bundled = kind == Kind::Stream && (**pool).has_bundles(),
            }
        }
        *what
    }
}
