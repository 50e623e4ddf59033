//! Chains that the driver steps through itself: always in the emulation, and on a ring for what it cannot do.

use super::slot::{Link, NOT_OPENED, Slot};
use crate::op::{Fd, RawOp, Target};

/// What follows an operation that has its result.
pub(crate) enum Step {
    /// It was the last one.
    End,
    /// The next one starts.
    Start(*mut Slot),
    /// The chain is broken here; all that follow are to be finished with `-ECANCELED`.
    Skip(*mut Slot),
}

/// Finds out how the chain goes on after `slot`, and hands on the descriptor it opened.
///
/// # Safety
/// `slot` is a published slot that has its result but is not finished.
pub(crate) unsafe fn step(slot: *mut Slot) -> Step {
    // SAFETY: promised by the caller. The rest of the chain is published with the slot, and still waits.
    unsafe {
        let done = &*slot;
        if done.link() == Link::None {
            return Step::End;
        }
        hand_on(done);
        done.check_link();
        if done.is_broken() { Step::Skip(done.next()) } else { Step::Start(done.next()) }
    }
}

/// Takes the next of the operations that a broken chain skips.
///
/// # Safety
/// `slot` is a published slot that is not finished.
pub(crate) unsafe fn next_skipped(slot: *mut Slot) -> *mut Slot {
    // SAFETY: promised by the caller.
    unsafe {
        if (*slot).link() == Link::None {
            return std::ptr::null_mut();
        }
        hand_on(&*slot);
        (*slot).next()
    }
}

/// # Safety
/// `slot` is linked to a next one, which is published and not finished.
unsafe fn hand_on(slot: &Slot) {
    let opened = match slot.op {
        RawOp::Open { target: Target::Chain, .. } if slot.result() >= 0 => slot.result(),
        _ => slot.opened().get(),
    };
    // SAFETY: promised by the caller.
    unsafe { (*slot.next()).opened().set(opened) };
}

/// The operation with the chain's own descriptor put in.
pub(crate) fn resolved(slot: &Slot) -> RawOp {
    let mut op = slot.op;
    for fd in op.fds_mut().into_iter().flatten().filter(|fd| fd.is_opened()) {
        *fd = Fd::new(slot.opened().get());
    }
    op
}

/// Closes the descriptor that a chain opened and did not close.
pub(crate) fn close_opened(opened: i32, closed: bool) {
    if opened != NOT_OPENED && !closed {
        // SAFETY: the descriptor was opened by the chain for itself, and nobody else knows it.
        unsafe { libc::close(opened) };
    }
}
