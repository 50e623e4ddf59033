//! Callbacks: operations that are handled where their results are taken, and may start themselves again.

use super::{
    Done, NotSubmitted, Queue, Token,
    place::{Act, Phase, Place},
    submit::{Release, TOO_LARGE},
};
use crate::{lower::Raise, op::Op};
use std::{mem, ptr};

/// What becomes of an operation after its [callback](Queue::submit_callback).
#[derive(Debug)]
pub enum Then<O> {
    /// It is over.
    End,
    /// It is submitted again, or another one of its type in its stead: into the same place, under the same token, with
    /// the same callback. There is always room for it.
    Again(O),
}

/// What a place holds.
struct Recurring<O, C> {
    op: O,
    callback: C,
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// Submits an operation that is handled by a callback, and gives no event.
    ///
    /// The callback is called when events are taken, in order with these. It may submit, cancel and stop; what it gives
    /// decides whether the operation starts again. If it panics, so does whoever takes events.
    ///
    /// ```
    /// use aio::{Queue, op::Timeout, queue::{Done, Then}};
    /// use std::{cell::Cell, rc::Rc, time::Duration};
    ///
    /// let queue = Queue::<()>::new(4)?;
    /// let count = Rc::new(Cell::new(0));
    /// let ticks = count.clone();
    /// queue.submit_callback(Timeout::after(Duration::from_millis(1)), move |_queue, done: Done<Timeout>| {
    ///     ticks.set(ticks.get() + 1);
    ///     if ticks.get() < 3 { Then::Again(done.op) } else { Then::End }
    /// })?;
    /// // Until nothing is in flight any more.
    /// queue.run(|_, ()| {})?;
    /// assert_eq!(count.get(), 3);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`submit`](Queue::submit).
    pub fn submit_callback<O, C>(&self, op: O, callback: C) -> Result<Token, NotSubmitted<O, C>>
    where
        O: Op + 'q,
        C: FnMut(&Queue<'q, E, PLACE>, Done<O>) -> Then<O> + 'q,
    {
        const { assert!(Place::<E, PLACE>::fits::<Recurring<O, C>>(), "{}", TOO_LARGE) };
        let place = match self.take() {
            Ok(place) => place,
            Err(why) => return Err(why.with(op, callback)),
        };
        // SAFETY: as in `submit_to`.
        unsafe {
            let held: *mut Recurring<O, C> = Place::payload_of(place);
            held.write(Recurring { op, callback });
            self.start(place, &raw mut (*held).op, Phase::Recurring, call::<O, C, E, PLACE>);
            Ok(self.token(place))
        }
    }
}

/// What is done with a [`Recurring`].
///
/// # Safety
/// As [`Actor`](super::place::Actor).
unsafe fn call<'q, O, C, E, const PLACE: usize>(
    queue: &Queue<'q, E, PLACE>,
    place: *mut Place<'q, E, PLACE>,
    act: Act,
) -> Option<(Token, E)>
where
    O: Op,
    C: FnMut(&Queue<'q, E, PLACE>, Done<O>) -> Then<O>,
{
    // SAFETY: promised by the caller: the place holds this, and nobody else takes it.
    unsafe {
        // The place stays taken while the callback runs, so that there is room to start again.
        let release = Release(queue, place);
        let held: *mut Recurring<O, C> = Place::payload_of(place);
        let Recurring { mut op, mut callback } = ptr::read(held);
        if act == Act::Drop {
            return None;
        }
        let slot = &*Place::slot_of(place);
        let result = op.settle(Raise::after(&queue.inner.engine, false).outcome(slot, slot.link()));
        if act == Act::Discard {
            return None;
        }
        let then = callback(queue, Done { result, op });
        // A callback that has forked comes back in the child as well.
        if let Then::Again(op) = then
            && queue.inner.engine.is_alive()
        {
            mem::forget(release);
            held.write(Recurring { op, callback });
            queue.start(place, &raw mut (*held).op, Phase::Recurring, call::<O, C, E, PLACE>);
        }
        None
    }
}
