//! Events on their way out.

use super::{
    Queue, Token,
    place::{Act, NONE, Phase, Place},
};
use crate::driver::slot::{Link, Slot};
use std::ptr;

/// The events that are there, oldest first, each with its token; made by [`Queue::wait`] and its relatives.
///
/// An event is made when it is taken: then its mapper is called, and its place is free again. Those that are not taken
/// stay in the queue. What is submitted meanwhile, and is finished at once, belongs to the next wait.
#[must_use = "events that are not taken stay in the queue"]
pub struct Events<'a, 'q, E, const PLACE: usize> {
    pub(super) queue: &'a Queue<'q, E, PLACE>,
    /// How many were there when it was made, counting those that give none.
    pub(super) left: u32,
}

impl<E, const PLACE: usize> Iterator for Events<'_, '_, E, PLACE> {
    type Item = (Token, E);

    #[inline]
    fn next(&mut self) -> Option<(Token, E)> {
        while self.left > 0 {
            self.left -= 1;
            let Some((token, event)) = self.queue.take_one(Act::Deliver) else {
                self.left = 0;
                return None;
            };
            if let Some(event) = event {
                return Some((token, event));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

impl<E, const PLACE: usize> std::fmt::Debug for Events<'_, '_, E, PLACE> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// How many results are there to be delivered.
    #[inline]
    pub(super) fn ready(&self) -> u32 {
        let inner = &**self.inner;
        inner.woken.weight() + inner.magazine.unread() + inner.rest_len.get() + inner.posted.get()
    }

    /// Takes the oldest result, and does with it what is asked for. `None` if there is none; the event is `None` if the
    /// operation gives none.
    #[inline]
    pub(super) fn take_one(&self, act: Act) -> Option<(Token, Option<E>)> {
        let inner = &**self.inner;
        if inner.posted.get() > 0 {
            let event = inner.inbox.borrow_mut().pop_front();
            inner.posted.set(inner.posted.get() - 1);
            return Some((Token { generation: 0, index: NONE, queue: inner.id }, event));
        }
        let rest = inner.rest.get();
        let place: *mut Place<'q, E, PLACE> = if rest.is_null() {
            let waiter = inner.woken.pop()?;
            inner.broken.set(false);
            waiter.cast_mut().cast()
        } else {
            rest
        };
        let token = self.token(place);
        // SAFETY: only waiters of places get on the list, and a waiter comes first in its place. What is on it has a
        // result.
        unsafe {
            let Some(actor) = (*place).actor.get() else { unreachable!("what is in a place has a function") };
            match (*place).phase.get() {
                Phase::Submitted => self.count_out(place),
                Phase::Waiting => inner.submitted.set(inner.submitted.get() - 1),
                _ => {}
            }
            Some((token, actor(self, place, act)))
        }
    }

    /// Takes a result off the counts; notes what is linked to it.
    ///
    /// # Safety
    /// The place holds an operation that was submitted and has a result.
    #[inline]
    unsafe fn count_out(&self, place: *mut Place<'q, E, PLACE>) {
        let inner = &**self.inner;
        inner.submitted.set(inner.submitted.get() - 1);
        let slot: *const Slot = Place::slot_of(place);
        // SAFETY: promised by the caller.
        unsafe {
            if (*slot).link() == Link::None {
                if !inner.rest.get().is_null() {
                    inner.rest.set(ptr::null_mut());
                    inner.rest_len.set(0);
                }
                return;
            }
            // The head's waiter counts for all of the chain.
            let left = if inner.rest.get().is_null() { (*place).waiter.weight() } else { inner.rest_len.get() };
            inner.rest_len.set(left - 1);
            inner.rest.set(Place::of_slot((*slot).next()));
        }
    }
}
