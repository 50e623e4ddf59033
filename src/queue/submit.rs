//! Single operations on their way into a queue and out of it.

use super::{
    Done, NotSubmitted, Queue, Token,
    place::{Act, Actor, NONE, Phase, Place},
};
use crate::{
    driver::slot::Link,
    lower::{Lower, Outcome, Raise},
    op::Op,
};
use std::ptr;

/// What a place holds of one operation.
pub(super) struct Single<O, M> {
    pub(super) op: O,
    pub(super) map: M,
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// Submits an operation. When it has ended, `map` makes an event of it and its result.
    ///
    /// It is given to the kernel by the next call that waits or polls, together with whatever else was submitted
    /// meanwhile.
    ///
    /// ```
    /// use aio::{Queue, op::*, queue::{Done, NotSubmitted}};
    ///
    /// let queue = Queue::new(1)?;
    /// let (a, b) = std::os::unix::net::UnixStream::pair()?;
    /// queue.submit(Send::new(a, "hello"), |done: Done<Send<_, _>>| done.result)?;
    /// // There is room for one. What does not fit comes back.
    /// let Err(NotSubmitted::Full(receive, map)) =
    ///     queue.submit(Recv::new(b, vec![0; 8]), |done| done.result)
    /// else { panic!("there is no room") };
    /// assert_eq!(queue.wait(1)?.next().unwrap().1, Ok(5));
    /// queue.submit(receive, map)?;
    /// assert_eq!(queue.wait(1)?.next().unwrap().1, Ok(5));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// What does not fit into a place does not compile:
    ///
    /// ```compile_fail,E0080
    /// let queue = aio::Queue::<()>::new(1).unwrap();
    /// let large = [0u8; 1000];
    /// queue.submit(aio::op::Nop::new(), move |_| println!("{large:?}"));
    /// ```
    ///
    /// Nor does what an owned queue could outlive:
    ///
    /// ```compile_fail,E0597
    /// use aio::{Queue, op::Recv};
    /// let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
    /// let queue = Queue::<()>::new(1).unwrap();
    /// let mut buffer = [0u8; 8];
    /// queue.submit(Recv::new(a, &mut buffer), |_| ());
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotSubmitted`], with operation and mapper. Whatever is wrong with the operation itself is in its event.
    #[inline]
    pub fn submit<O, M>(&self, op: O, map: M) -> Result<Token, NotSubmitted<O, M>>
    where
        O: Op + 'q,
        M: FnOnce(Done<O>) -> E + 'q,
    {
        self.submit_to(NONE, op, map)
    }

    /// Submits an operation as a member of a group.
    #[inline]
    pub(super) fn submit_to<O, M>(&self, group: u32, op: O, map: M) -> Result<Token, NotSubmitted<O, M>>
    where
        O: Op + 'q,
        M: FnOnce(Done<O>) -> E + 'q,
    {
        const { assert!(Place::<E, PLACE>::fits::<Single<O, M>>(), "{}", TOO_LARGE) };
        let place = match self.take() {
            Ok(place) => place,
            Err(why) => return Err(why.with(op, map)),
        };
        // SAFETY: the place is ours, and what is put into it fits; it goes with its function. It stays until the
        // operation has ended, since the queue's own end waits for that.
        unsafe {
            let held: *mut Single<O, M> = Place::payload_of(place);
            held.write(Single { op, map });
            let mut actor: Actor<'q, E, PLACE> = deliver::<O, M, E, PLACE>;
            if group != NONE {
                (*place).group.set(group);
                actor = deliver_with_care::<O, M, E, PLACE>;
            }
            self.start(place, &raw mut (*held).op, Phase::Submitted, actor);
            Ok(self.token(place))
        }
    }

    /// Lowers an operation that lies in a place, and gives it to the engine.
    ///
    /// # Safety
    /// The place was taken, and holds what `actor` expects, with the operation in it.
    #[inline]
    pub(super) unsafe fn start<O: Op>(
        &self,
        place: *mut Place<'q, E, PLACE>,
        op: *mut O,
        phase: Phase,
        actor: Actor<'q, E, PLACE>,
    ) {
        // SAFETY: promised by the caller.
        unsafe {
            (*place).actor.set(actor);
            let mut cx = Lower::new(&self.inner.engine, self.inner.waiter.as_ptr(), 1, false);
            // Lowering calls user code (`AsFd`), which may panic.
            let unwound = Unwound { queue: self, place };
            let raw = (*op).lower(&mut cx);
            std::mem::forget(unwound);
            (*place).phase.set(phase);
            self.inner.submitted.set(self.inner.submitted.get() + 1);
            cx.push(Place::slot_of(place), raw, Link::None);
            self.stir();
        }
    }

    /// Takes a free place.
    #[inline]
    pub(super) fn take(&self) -> Result<*mut Place<'q, E, PLACE>, Refusal> {
        let inner = &**self.inner;
        let free = inner.free.get();
        if !inner.engine.is_alive() {
            return Err(Refusal::Forked);
        }
        if inner.closing.get() {
            return Err(Refusal::Closed);
        }
        let Some(index) = free.checked_sub(1).and_then(|last| inner.stack.get(last as usize)) else {
            return Err(Refusal::Full);
        };
        inner.free.set(free - 1);
        let place = inner.places.wrapping_add(index.get() as usize);
        Ok(place)
    }

    /// Frees a place; what it held is gone.
    #[inline]
    pub(super) fn release(&self, place: *mut Place<'q, E, PLACE>) {
        self.release_plain(place);
        // SAFETY: places stay as long as the queue.
        let group = unsafe { (*place).group.replace(NONE) };
        if group != NONE {
            self.member_ended(group);
        }
    }

    /// Frees a place that belongs to no group.
    #[inline]
    fn release_plain(&self, place: *mut Place<'q, E, PLACE>) {
        let inner = &**self.inner;
        // SAFETY: places stay as long as the queue.
        let index = unsafe {
            (*place).phase.set(Phase::Free);
            (*place).generation.set((*place).generation.get() + 1);
            (*place).index
        };
        let free = inner.free.get();
        if let Some(entry) = inner.stack.get(free as usize) {
            entry.set(index);
            inner.free.set(free + 1);
        }
    }
}

/// Why no place was given.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    Full,
    TooLong,
    Closed,
    Forked,
}

impl Refusal {
    pub(super) fn with<O, M>(self, op: O, map: M) -> NotSubmitted<O, M> {
        match self {
            Refusal::Full => NotSubmitted::Full(op, map),
            Refusal::TooLong => NotSubmitted::TooLong(op, map),
            Refusal::Closed => NotSubmitted::Closed(op, map),
            Refusal::Forked => NotSubmitted::Forked(op, map),
        }
    }
}

pub(super) const TOO_LARGE: &str = "operation and mapper do not fit into a place of this queue; make its PLACE larger, or box what the mapper captures";

/// Drops what a place holds and frees it, if lowering it panics.
pub(super) struct Unwound<'a, 'q, E, const PLACE: usize> {
    pub(super) queue: &'a Queue<'q, E, PLACE>,
    pub(super) place: *mut Place<'q, E, PLACE>,
}

impl<E, const PLACE: usize> Drop for Unwound<'_, '_, E, PLACE> {
    fn drop(&mut self) {
        // SAFETY: the place holds what its function expects, and nothing was submitted.
        unsafe {
            ((*self.place).actor.get())(self.queue, self.place, Act::Drop);
        }
    }
}

/// Frees a place when the operation that was in it has been moved out and settled.
pub(super) struct Release<'a, 'q, E, const PLACE: usize>(
    pub(super) &'a Queue<'q, E, PLACE>,
    pub(super) *mut Place<'q, E, PLACE>,
);

impl<E, const PLACE: usize> Drop for Release<'_, '_, E, PLACE> {
    #[inline]
    fn drop(&mut self) {
        self.0.release(self.1);
    }
}

/// As [`Release`], for one that belongs to no group.
struct ReleasePlain<'a, 'q, E, const PLACE: usize>(&'a Queue<'q, E, PLACE>, *mut Place<'q, E, PLACE>);

impl<E, const PLACE: usize> Drop for ReleasePlain<'_, '_, E, PLACE> {
    #[inline]
    fn drop(&mut self) {
        self.0.release_plain(self.1);
    }
}

/// What is done with a [`Single`] that belongs to no group.
///
/// # Safety
/// As [`Actor`].
pub(super) unsafe fn deliver<'q, O, M, E, const PLACE: usize>(
    queue: &Queue<'q, E, PLACE>,
    place: *mut Place<'q, E, PLACE>,
    act: Act,
) -> Option<(Token, E)>
where
    O: Op,
    M: FnOnce(Done<O>) -> E,
{
    // SAFETY: promised by the caller: the place holds this, and nobody else takes it.
    unsafe {
        if act != Act::DeliverPlain {
            return deliver_with_care::<O, M, E, PLACE>(queue, place, act);
        }
        let outcome = Outcome::of_success(&*Place::slot_of(place), &queue.inner.engine);
        let token = queue.token(place);
        let release = ReleasePlain(queue, place);
        let Single { mut op, map } = ptr::read(Place::payload_of::<Single<O, M>>(place));
        let result = op.settle(outcome);
        drop(release);
        // The place is free: what the mapper submits may take it.
        Some((token, map(Done { result, op })))
    }
}

/// What is done with any other [`Single`], or in another way. Apart, so that the plain success has a short way.
///
/// # Safety
/// As [`Actor`].
#[cold]
#[inline(never)]
unsafe fn deliver_with_care<'q, O, M, E, const PLACE: usize>(
    queue: &Queue<'q, E, PLACE>,
    place: *mut Place<'q, E, PLACE>,
    act: Act,
) -> Option<(Token, E)>
where
    O: Op,
    M: FnOnce(Done<O>) -> E,
{
    // SAFETY: promised by the caller: the place holds this, and nobody else takes it.
    unsafe {
        let release = Release(queue, place);
        let Single { mut op, map } = ptr::read(Place::payload_of::<Single<O, M>>(place));
        if act == Act::Drop {
            return None;
        }
        let (token, slot) = (queue.token(place), &*Place::slot_of(place));
        let mut raise = Raise::after(&queue.inner.engine, queue.inner.broken.get());
        let outcome = raise.outcome(slot, slot.link());
        queue.inner.broken.set(raise.is_broken());
        let result = op.settle(outcome);
        drop(release);
        if act.delivers() { Some((token, map(Done { result, op }))) } else { None }
    }
}
