//! Multishot operations in the emulation.

use super::Ready;
use crate::{
    driver::{
        multi::{self, Round, Tick},
        slot::{Slot, State},
    },
    op::Multi,
    sys,
};

impl Ready {
    /// Starts an operation, or goes on with one that has paused.
    ///
    /// # Safety
    /// `slot` is published and on no list, and holds a multishot operation that has not ended.
    pub(super) unsafe fn start_multi(&mut self, slot: *mut Slot, first: bool) {
        // SAFETY: promised by the caller.
        unsafe {
            let (_, what, _) = multi::parts(slot);
            let Multi::Timeout { nanos, .. } = what else { return self.attempt_multi(slot, first) };
            let now = sys::monotonic();
            let at = if first { now.saturating_add(nanos) } else { multi::next_tick(slot, nanos, now) };
            (*slot).set_due(at);
            (*slot).set_state(State::Sleeping);
            self.set_timer(slot, at);
        }
    }

    /// # Safety
    /// As [`start_multi`](Self::start_multi); it is no timer.
    pub(super) unsafe fn attempt_multi(&mut self, slot: *mut Slot, first: bool) {
        self.stats.direct += 1;
        // SAFETY: promised by the caller.
        unsafe {
            match self.faults.within(|| multi::round(slot, first)) {
                Round::Wait => self.park(slot),
                Round::Pause => (*slot).set_state(State::Held),
                Round::End(result) => self.settle(slot, result),
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
                Tick::End => self.settle(slot, 0),
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
            if (*slot).state() == State::Held && !multi::parts(slot).2.is_full() {
                self.start_multi(slot, false);
            }
        }
    }
}
