//! What comes back from the ring: completions, and what follows from them.

use super::{MORE, NOTIFICATION, ROLES, Role, Uring, again, hear, mapping::Completion};
use crate::{
    driver::{
        chain::{self, Step},
        multi::end as end_of_multi,
        slot::{Slot, State, finish, timer_of},
        waiter::Row,
    },
    op::RawOp,
};
use io_uring::squeue::Flags;
use std::ptr;

impl Uring {
    /// Takes all completions from the ring; tells whether there were any. Their places are given back before the next
    /// `enter`, so that the kernel has room when it waits.
    #[inline]
    pub(super) fn reap(&mut self) -> bool {
        let mut any = false;
        'look: loop {
            let available = self.ring.available();
            if available == 0 {
                break;
            }
            any = true;
            let (next, mut row) = (self.ring.next(), Row::new());
            for at in 0..available {
                let entry = next.place(at);
                // SAFETY: so many are available, and the kernel does not write there until they are taken. The address
                // comes from `push`, and a slot is not finished while an entry of it is in flight. A waiter waits until
                // it was told of all its slots.
                unsafe {
                    let (user_data, result) = ((*entry).user_data, (*entry).result);
                    let slot: *mut Slot = ptr::with_exposed_provenance_mut((user_data & !ROLES) as usize);
                    let role = user_data & ROLES;
                    if role != Role::Operation as u64 || !(*slot).take_plain_result(result) {
                        let completion = *entry;
                        drop(row);
                        // May enter the kernel, and take further completions.
                        self.ring.take(at + 1);
                        self.ring.publish_taken();
                        self.complete_with_care(slot, role, completion);
                        continue 'look;
                    }
                    row.push(slot);
                }
            }
            self.ring.take(available);
        }
        self.ring.publish_taken();
        any
    }

    /// Everything but an operation's only entry that has succeeded.
    ///
    /// # Safety
    /// `slot` is published and not finished, and this is the completion of an entry of it.
    unsafe fn complete_with_care(&mut self, slot: *mut Slot, role: u64, completion: Completion) {
        let Completion { result, flags, .. } = completion;
        if role == Role::Bell as u64 {
            self.extra += 1;
            // SAFETY: promised by the caller; whoever has made a door keeps its slot.
            return unsafe { hear(slot) };
        }
        let more = flags & MORE != 0;
        self.extra += u64::from(more);
        // SAFETY: promised by the caller.
        unsafe {
            let last = !more && (*slot).remove_entry();
            if role == Role::Operation as u64 && (*slot).op.shots().is_some() {
                self.complete_multi(slot, result, flags);
            } else if role == Role::Operation as u64 && flags & NOTIFICATION != 0 {
                // The result came before.
            } else if role == Role::Operation as u64 {
                let interruptible =
                    matches!((*slot).op, RawOp::Splice { .. } | RawOp::Tee { .. } | RawOp::Accept { .. });
                // The kernel's own numbers for a signal, as a cancel is one to a worker of the ring.
                let interrupted = (-516..=-512).contains(&result) || interruptible && result == -libc::EINTR;
                if interrupted && self.cancels > 0 {
                    // It may have been found by its descriptor, so it is not tried again.
                    (*slot).set_cancelled();
                }
                (*slot).set_result(match interrupted {
                    false => result,
                    true if (*slot).is_cancelled() => -libc::ECANCELED,
                    true => -libc::EINTR,
                });
                if !last {
                    // Nothing can end it any more; the kernel still has the buffer, or other entries of it. Another
                    // cancel would only be one more of these.
                    (*slot).set_state(State::Lingering);
                }
            } else {
                self.complete_side_entry(slot, role, result);
            }
            // Another entry may just have been added.
            if last && !(*slot).has_entries() {
                self.settle(slot);
            }
        }
    }

    /// # Safety
    /// `slot` is published and not finished.
    #[cold]
    unsafe fn complete_side_entry(&mut self, slot: *mut Slot, role: u64, result: i32) {
        // SAFETY: promised by the caller.
        unsafe {
            let limit = role == Role::LinkedTimeout as u64;
            // What the kernel does not find in a chain of its own has not started, and is not to be cancelled, unless it
            // is the limit that ran from its start.
            let lost = result == -libc::ENOENT && (limit || !(*slot).is_chained());
            let missed = result == -libc::EALREADY || lost;
            if limit && (result == -libc::ETIME || missed) {
                (*slot).set_expired();
            }
            if limit || role == Role::Cancel as u64 {
                if missed && (*slot).state() == State::Ring && (*slot).op.shots().is_none() {
                    self.cancel_later(slot);
                }
            } else if role == Role::Readiness as u64 {
                self.stepping -= 1;
                if (*slot).op.shots().is_some() {
                    return self.ready_multi(slot, result);
                }
                (*slot).set_state(State::Ring);
                if (*slot).is_cancelled() || result < 0 {
                    (*slot).set_result(if result < 0 { result } else { -libc::ECANCELED });
                    (*slot).set_state(State::Lingering);
                } else {
                    self.push_again(slot, Flags::empty());
                }
            }
        }
    }

    /// Ends an operation that has its result and no entry left, and goes on with its chain if the driver steps it.
    ///
    /// # Safety
    /// `slot` is published, not finished, and no entry of it is in flight.
    #[inline]
    pub(super) unsafe fn settle(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            if (*slot).op.shots().is_some() {
                if (*slot).is_ending() && (*slot).state() != State::Done {
                    end_of_multi(slot, (*slot).result());
                }
                return;
            }
            if matches!((*slot).op, RawOp::Timeout { .. }) && (*slot).result() == -libc::ETIME {
                (*slot).set_result(0);
            }
            if (*slot).is_cancelled() && again::is_no_answer(&(*slot).op, (*slot).result()) {
                // It would have been tried again, or a signal has told a worker of the cancel.
                (*slot).set_result(-libc::ECANCELED);
            }
            if (*slot).result() < 0 && !(*slot).is_chained() && self.try_again(slot) {
                return;
            }
            if (*slot).has_timer() {
                self.wheel.remove(timer_of(slot));
                (*slot).set_timer(false);
            }
            if (*slot).is_stepped() {
                self.step(slot);
            } else if (*slot).is_chained() {
                self.settle_chained(slot);
            } else {
                finish(slot);
            }
        }
    }

    /// # Safety
    /// As [`settle`](Self::settle), and the slot belongs to a stepped chain.
    #[cold]
    unsafe fn step(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller; a slot is not touched after `finish`.
        unsafe {
            let step = chain::step(slot);
            finish(slot);
            match step {
                Step::End => self.stepping -= 1,
                Step::Start(next) => self.start(next),
                Step::Skip(mut next) => {
                    self.stepping -= 1;
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
}
