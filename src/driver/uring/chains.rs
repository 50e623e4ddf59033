//! Chains: held together by the kernel, or stepped through by the driver where the kernel cannot.
//!
//! A chain of the kernel's may turn out not to have run at all, although nobody cancelled it: an entry that the kernel
//! refuses when it first looks at it (an unknown flag, say) takes the whole chain with it. Operations that say
//! `ECANCELED` are therefore held until the whole chain has been answered. If the first of them is among these, the
//! driver steps through the chain itself, and each operation fails or succeeds in its turn. The same goes for the rest
//! of a chain behind an answer that is [none](super::again).

use super::{Uring, again::Remedy, direct, encode};
use crate::{
    driver::slot::{Link, NOT_OPENED, Slot, State, finish},
    op::{CURRENT_POSITION, RawOp, Target},
};
use io_uring::squeue::Flags;
use std::ptr;

impl Uring {
    /// # Safety
    /// As [`Driver::submit`](crate::driver::Driver::submit).
    pub(super) unsafe fn submit_chain(&mut self, head: *mut Slot) {
        let (mut slots, mut entries, mut stepped, mut opens) = (0, 0, false, false);
        // The kernel's worker may go on with a chain where it has done an operation: it waits itself then, also for what
        // must not wait, and a time limit is never started (seen on Linux 6.18; seldom if work is deferred).
        let mut worker = false;
        // SAFETY: none of the slots is finished before one is started below.
        unsafe {
            for slot in slots_from(head) {
                // Behind a hard link the kernel would go on before a send could be tried again as a copy.
                if (*slot).op.is_zero_copy() && ((*slot).link() == Link::Hard || !self.support.has(&(*slot).op)) {
                    (*slot).op = (*slot).op.copying();
                }
                slots += 1;
                entries += 1 + u32::from((*slot).limit().is_some());
                stepped |= !self.support.in_chain(&(*slot).op);
                stepped |= (*slot).link() == Link::Hard && may_have_no_answer(&(*slot).op);
                stepped |= (*slot).link() == Link::Soft && fails_unnoticed(&(*slot).op);
                let bounded = (*slot).limit().is_some() || (*slot).op.is_nonblocking();
                stepped |= worker && bounded && may_wait(&(*slot).op);
                worker |= may_take_worker(&(*slot).op);
                opens |= matches!((*slot).op, RawOp::Open { target: Target::Chain, .. });
            }
        }
        let opened = if opens && !stepped { self.direct.take(&self.ring) } else { None };
        stepped |= opens && opened.is_none();
        // SAFETY: as above.
        unsafe {
            if stepped {
                slots_from(head).for_each(|slot| {
                    (*slot).set_stepped();
                    copy_if_linked(slot);
                });
                self.stepping += 1;
                self.start(head);
            } else {
                #[cfg(feature = "faults")]
                self.ring.note_chain(entries);
                self.reserve(entries);
                self.push_chain(head, opened);
                let chain = (*head).chained();
                chain.entries.set(entries);
                chain.unanswered.set(slots);
                chain.cancels.set(self.cancels);
                self.chains += 1;
                self.chain_entries += entries;
            }
        }
    }

    /// # Safety
    /// As [`submit_chain`](Self::submit_chain); there is room for all entries.
    unsafe fn push_chain(&mut self, head: *mut Slot, opened: Option<i32>) {
        // SAFETY: the slots are published, and no completion is reaped before all of them are pushed.
        unsafe {
            for slot in slots_from(head) {
                let link = (*slot).link();
                (*slot).set_chained(head);
                (*slot).opened().set(opened.unwrap_or(NOT_OPENED));
                let flags = match link {
                    Link::Hard => Flags::IO_HARDLINK,
                    Link::Soft => Flags::IO_LINK,
                    Link::None if (*slot).limit().is_some() => Flags::IO_LINK,
                    Link::None => Flags::empty(),
                };
                if matches!((*slot).op, RawOp::CancelFd { .. }) {
                    self.cancels += 1;
                }
                self.push_operation(slot, (*slot).op, flags);
                if let Some(limit) = (*slot).limit() {
                    let flags = if link == Link::None { Flags::empty() } else { Flags::IO_LINK };
                    self.push(slot, encode::linked_timeout(limit), flags, super::Role::LinkedTimeout);
                }
            }
        }
    }

    /// A slot of a chain of the kernel's has its result and no entry in flight.
    ///
    /// # Safety
    /// That is so, and the slot is not finished.
    pub(super) unsafe fn settle_chained(&mut self, slot: *mut Slot) {
        // SAFETY: promised by the caller. The head stays in place until the last slot of the chain is finished, for all
        // have one waiter.
        unsafe {
            let head = (*slot).chained().head;
            let chain = (*head).chained();
            if (*slot).result() < 0 && is_cut_off(head, slot) {
                // The kernel has refused it before its turn came, as it has the one before.
                (*slot).set_result(-libc::ECANCELED);
            }
            let remedy = if (*slot).result() == -libc::ECANCELED { Remedy::None } else { Remedy::of(slot) };
            if remedy != Remedy::None && chain.again.get().is_null() {
                chain.again.set(slot);
            }
            let never_ran = |slot: *mut Slot| (*slot).result() == -libc::ECANCELED && !(*slot).is_cancelled();
            // The one that was refused has an error of its own, in a chain whose head has never run.
            let refused =
                !ptr::eq(head, slot) && (*slot).result() < 0 && (*head).state() != State::Done && never_ran(head);
            let hold = ptr::eq(chain.again.get(), slot) || never_ran(slot) || refused;
            chain.held.set(chain.held.get() + u32::from(hold));
            chain.unanswered.set(chain.unanswered.get() - 1);
            let (answered, held) = (chain.unanswered.get() == 0, chain.held.get());
            if answered {
                self.chains -= 1;
                self.chain_entries -= chain.entries.get();
            }
            if !hold {
                (*slot).check_link();
                finish(slot);
            }
            if answered && held > 0 {
                self.resolve_chain(head);
            }
        }
    }

    /// All slots of a chain have been answered, and some of them are held.
    ///
    /// # Safety
    /// That is so.
    #[cold]
    unsafe fn resolve_chain(&mut self, head: *mut Slot) {
        // SAFETY: promised by the caller. As long as a slot is held the waiter waits, so all of them are in place.
        unsafe {
            let chain = (*head).chained();
            let undisturbed = chain.cancels.get() == self.cancels;
            let from = match chain.again.get() {
                again if !again.is_null() => again,
                _ if undisturbed => stranded(head).unwrap_or(ptr::null_mut()),
                _ => ptr::null_mut(),
            };
            let all_held = |from| slots_from(from).all(|slot| (*slot).state() != State::Done);
            if !from.is_null() && all_held(from) {
                return self.step_from(from);
            }
            // Each is finished only after its successor is known: the last one may free them all.
            let held: Vec<*mut Slot> = slots_from(head).filter(|&slot| (*slot).state() != State::Done).collect();
            for slot in held {
                (*slot).check_link();
                finish(slot);
            }
        }
    }

    /// Steps through the rest of a chain that the kernel has not run.
    ///
    /// # Safety
    /// All slots from here on have been answered and are held.
    unsafe fn step_from(&mut self, from: *mut Slot) {
        // SAFETY: promised by the caller.
        unsafe {
            let opens = slots_from(from).any(|slot| matches!((*slot).op, RawOp::Open { target: Target::Chain, .. }));
            let opened = (*from).opened().get();
            if opens && direct::index(opened).is_some() {
                // The place is still empty; the file will get a descriptor of its own instead.
                self.direct.release(&self.ring, opened, true);
                slots_from(from).for_each(|slot| (*slot).opened().set(NOT_OPENED));
            }
            slots_from(from).for_each(|slot| {
                (*slot).unchain();
                copy_if_linked(slot);
            });
            self.stepping += 1;
            // An answer that was none comes again, and is dealt with then.
            self.start(from);
        }
    }
}

/// The first slot of a chain that should have run and has not: the head, or what is linked hard to a head that the kernel
/// has refused when it first looked at it.
///
/// # Safety
/// As [`resolve_chain`](Uring::resolve_chain).
unsafe fn stranded(head: *mut Slot) -> Option<*mut Slot> {
    // SAFETY: promised by the caller.
    unsafe {
        if (*head).state() != State::Done {
            return Some(head);
        }
        let mut pairs = slots_from(head).zip(slots_from(head).skip(1));
        let (before, first) = pairs.find(|&(_, slot)| (*slot).state() != State::Done)?;
        ((*before).link() == Link::Hard && !(*first).is_cancelled()).then_some(first)
    }
}

/// Whether an operation before this one has ended so that this one does not run.
///
/// # Safety
/// As [`settle_chained`](Uring::settle_chained).
unsafe fn is_cut_off(head: *mut Slot, slot: *mut Slot) -> bool {
    // SAFETY: promised by the caller. What is finished has been looked at.
    unsafe {
        let mut pairs = slots_from(head).zip(slots_from(head).skip(1));
        pairs.find(|&(_, after)| ptr::eq(after, slot)).is_some_and(|(before, _)| {
            (*before).state() == State::Done && (*before).link() == Link::Soft && (*before).is_broken()
        })
    }
}

/// Whether a worker of the kernel may do an operation.
fn may_take_worker(op: &RawOp) -> bool {
    match op {
        RawOp::Nop | RawOp::Timeout { .. } => false,
        RawOp::Splice { .. } | RawOp::Tee { .. } => true,
        _ => !may_wait(op),
    }
}

/// Whether the kernel takes the failure of an operation for a success that breaks no soft link (seen on Linux 6.18).
fn fails_unnoticed(op: &RawOp) -> bool {
    let on_names = matches!(
        op,
        RawOp::Rename { .. }
            | RawOp::Unlink { .. }
            | RawOp::Mkdir { .. }
            | RawOp::Symlink { .. }
            | RawOp::Link { .. }
            | RawOp::Statx { .. }
    );
    let on_files = matches!(op, RawOp::Fsync { .. } | RawOp::Allocate { .. } | RawOp::Truncate { .. });
    on_names || on_files || matches!(op, RawOp::Shutdown { .. })
}

/// Whether the ring's answer to an operation may be [none](super::again): a socket that was given an offset. Behind a
/// hard link the kernel goes on all the same, before it could be tried again.
fn may_have_no_answer(op: &RawOp) -> bool {
    let has_offset = { *op }.offset_mut().is_some_and(|offset| *offset != CURRENT_POSITION);
    // What is no socket gets its error from the system call.
    has_offset && may_wait(op) || matches!(op, RawOp::SetSockOpt { .. } | RawOp::GetSockOpt { .. })
}

/// Whether an operation works on what may not be ready.
fn may_wait(op: &RawOp) -> bool {
    op.readiness().is_some_and(|(fd, _)| !fd.is_opened() && !fd.is_disk())
}

/// In a chain that is stepped through, what is linked to an operation starts when that has ended. A send from the place
/// where the bytes are may not end before what is linked to it, a receive at the other end, has run. So it copies.
///
/// # Safety
/// `slot` is published, and not started.
unsafe fn copy_if_linked(slot: *mut Slot) {
    // SAFETY: promised by the caller.
    unsafe {
        if (*slot).link() != Link::None && (*slot).op.is_zero_copy() {
            (*slot).op = (*slot).op.copying();
        }
    }
}

/// The slots of a chain, from this one on.
///
/// # Safety
/// They are in place as long as the iterator is used.
unsafe fn slots_from(first: *mut Slot) -> impl Iterator<Item = *mut Slot> {
    std::iter::successors(Some(first), |&slot| {
        // SAFETY: promised by the caller.
        unsafe { if (*slot).link() == Link::None { None } else { Some((*slot).next()) } }
    })
}
