//! Second tries: answers of the ring that are not the operation's own.

use super::{Role, Uring, encode};
use crate::{
    driver::{
        chain,
        perform::{self, Attempt},
        slot::{Slot, State},
    },
    op::{CURRENT_POSITION, RawOp},
};
use io_uring::squeue::Flags;

/// What to do about an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// It stands.
    None,
    /// Kernels before 5.19 answer `EAGAIN` for a descriptor in non-blocking mode instead of waiting.
    Await,
    /// A pipe or socket has no offset, and an operation on it ignores the one given. The kernel does so for pipes only.
    WithoutOffset,
    /// The kernel tries to open without waiting first, which for the writing end of a FIFO is an error by itself.
    OpenAsync,
    /// The kernel cannot tell whether this kind of descriptor would wait (pipes before 6.4); the emulation can.
    AskOtherwise,
    /// Reading nothing does not wait, and needs no ring.
    Directly,
    /// This socket, or this much memory, cannot be sent from in place.
    Copy,
    /// It was given an offset and does not take one, and its time is up before it could be tried without. An operation
    /// has one attempt in any case.
    LastTry,
    /// A signal came in between, which disturbs no operation.
    Resume,
    /// Nobody asked for the end: the kernel could not start a worker, as when a signal came in between.
    Repeat,
}

impl Remedy {
    /// For an operation that stands alone, or whose turn it was in its chain.
    ///
    /// # Safety
    /// `slot` is published, has its result, and is not finished.
    pub(super) unsafe fn of(slot: *mut Slot) -> Remedy {
        // SAFETY: promised by the caller.
        let (op, result, cancelled) = unsafe { ((*slot).op, (*slot).result(), (*slot).is_cancelled()) };
        let has_offset = { op }.offset_mut().is_some_and(|offset| *offset != CURRENT_POSITION);
        if cancelled {
            return if result == -libc::ESPIPE && has_offset { Remedy::LastTry } else { Remedy::None };
        }
        match (-result, op) {
            _ if asks_to_wait(&op, result) => Remedy::Await,
            (libc::ESPIPE, _) if has_offset => Remedy::WithoutOffset,
            (libc::EOPNOTSUPP, RawOp::Read { len: 0, .. }) => Remedy::Directly,
            // As the ring says of what is no socket.
            (libc::EOPNOTSUPP, RawOp::SetSockOpt { .. } | RawOp::GetSockOpt { .. }) => Remedy::Directly,
            (
                libc::EOPNOTSUPP,
                RawOp::Read { .. } | RawOp::Readv { .. } | RawOp::Write { .. } | RawOp::Writev { .. },
            ) if op.is_nonblocking() => Remedy::AskOtherwise,
            (libc::ENXIO, RawOp::Open { flags, .. }) if flags & libc::O_NONBLOCK == 0 => Remedy::OpenAsync,
            (_, op) if asks_for_a_copy(&op, result) => Remedy::Copy,
            (libc::EINTR, RawOp::Splice { .. } | RawOp::Tee { .. } | RawOp::Accept { .. }) => Remedy::Resume,
            // A `close` that has run must not run again, whatever it said; nor what nobody here knows.
            (
                libc::ECANCELED,
                RawOp::Timeout { .. } | RawOp::Close { .. } | RawOp::FutexWait { .. } | RawOp::Entry(_),
            ) => Remedy::None,
            (libc::ECANCELED, op) => match op.readiness() {
                Some((fd, _)) if fd.is_opened() || !fd.is_disk() => Remedy::None,
                _ => Remedy::Repeat,
            },
            _ => Remedy::None,
        }
    }
}

/// Whether an operation that was cancelled has been ended by that, though its result says otherwise.
pub(super) fn is_no_answer(op: &RawOp, result: i32) -> bool {
    result == -libc::EINTR || asks_to_wait(op, result) || asks_for_a_copy(op, result)
}

/// Whether the ring has not waited where it had to.
fn asks_to_wait(op: &RawOp, result: i32) -> bool {
    let waits = !matches!(op, RawOp::Connect { .. }) && !op.is_nonblocking() && op.readiness().is_some();
    result == -libc::EAGAIN && waits
}

/// Whether a send that leaves its bytes where they are could not be done, or not like that: by this kind of socket,
/// with the memory that may be locked, in so many pieces, from such memory. If there is another reason the copy fails
/// as well.
fn asks_for_a_copy(op: &RawOp, result: i32) -> bool {
    let refusal = matches!(-result, libc::EOPNOTSUPP | libc::ENOMEM | libc::ENOBUFS | libc::EMSGSIZE | libc::EFAULT);
    refusal && op.is_zero_copy()
}

impl Uring {
    /// Tries an operation again if its answer is none; tells whether.
    ///
    /// # Safety
    /// `slot` is published, has its result, no entry in flight, and is not part of a chain of the kernel's.
    #[cold]
    pub(super) unsafe fn try_again(&mut self, slot: *mut Slot) -> bool {
        // SAFETY: promised by the caller.
        unsafe {
            match Remedy::of(slot) {
                Remedy::None => return false,
                Remedy::Await => {
                    let op = chain::resolved(&*slot);
                    let Some((fd, events)) = op.readiness() else { return false };
                    self.stepping += 1;
                    self.reserve(1);
                    (*slot).set_state(State::Parked);
                    self.push(slot, encode::poll(fd, events), Flags::empty(), Role::Readiness);
                }
                Remedy::WithoutOffset => {
                    if let Some(offset) = (*slot).op.offset_mut() {
                        *offset = CURRENT_POSITION;
                    }
                    self.push_again(slot, Flags::empty());
                }
                Remedy::LastTry => {
                    if let Some(offset) = (*slot).op.offset_mut() {
                        *offset = CURRENT_POSITION;
                    }
                    let answer = match perform::attempt(&chain::resolved(&*slot), &mut 0) {
                        Attempt::Done(result) => result,
                        _ => -libc::ECANCELED,
                    };
                    self.direct_calls += 1;
                    (*slot).set_result(answer);
                    return false;
                }
                // Nothing but the ring has the file; its answer has to do.
                Remedy::AskOtherwise | Remedy::Directly if (*slot).op.needs_ring() => return false,
                Remedy::AskOtherwise => {
                    self.direct_calls += 1;
                    if let Attempt::Done(result) = perform::attempt(&chain::resolved(&*slot), &mut 0) {
                        (*slot).set_result(result);
                    }
                    return false;
                }
                Remedy::Copy => {
                    (*slot).op = (*slot).op.copying();
                    self.push_again(slot, Flags::empty());
                }
                Remedy::Resume => self.push_again(slot, Flags::empty()),
                Remedy::OpenAsync if (*slot).count_try() => self.push_again(slot, Flags::ASYNC),
                Remedy::Repeat if (*slot).count_try() => self.push_again(slot, Flags::empty()),
                Remedy::Repeat if (*slot).op.needs_ring() => return false,
                Remedy::Repeat | Remedy::Directly => {
                    self.direct_calls += 1;
                    (*slot).set_result(perform::now(&chain::resolved(&*slot)));
                    return false;
                }
                Remedy::OpenAsync => return false,
            }
        }
        true
    }

    /// # Safety
    /// As [`try_again`](Self::try_again).
    pub(super) unsafe fn push_again(&mut self, slot: *mut Slot, flags: Flags) {
        self.reserve(1);
        // SAFETY: promised by the caller.
        unsafe { self.push_operation(slot, (*slot).op, flags) };
    }
}
