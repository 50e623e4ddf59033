//! Events on their way out.

use super::{
    Queue, Token,
    place::{Act, Actor, Phase, Place},
};
use crate::driver::slot::{Link, Slot};
use std::ptr;

/// The events that are there, oldest first, each with its token; made by [`Queue::wait`] and its relatives. Those that
/// other threads have posted take turns with the others.
///
/// An event is made when it is taken: then its mapper is called, and its place is free again. Those that are not taken
/// stay in the queue. What is submitted meanwhile, and is finished at once, belongs to the next wait.
#[must_use = "events that are not taken stay in the queue"]
pub struct Events<'a, 'q, E, const PLACE: usize> {
    pub(super) queue: &'a Queue<'q, E, PLACE>,
    /// How many were there when it was made, counting those that give none.
    pub(super) left: u32,
}

/// What comes out of a queue next.
enum Next<'q, E, const PLACE: usize> {
    /// A single operation that has simply succeeded.
    Plain(*mut Place<'q, E, PLACE>, Actor<'q, E, PLACE>),
    Event(*mut Place<'q, E, PLACE>, Actor<'q, E, PLACE>),
    Callback(*mut Place<'q, E, PLACE>, Actor<'q, E, PLACE>),
    Posted,
    Nothing,
}

impl<E, const PLACE: usize> Iterator for Events<'_, '_, E, PLACE> {
    type Item = (Token, E);

    #[inline]
    fn next(&mut self) -> Option<(Token, E)> {
        while self.left > 0 {
            self.left -= 1;
            match self.queue.look() {
                // SAFETY: `look` has found it to be so.
                Next::Plain(place, actor) => return unsafe { actor(self.queue, place, Act::DeliverPlain) },
                Next::Event(place, actor) => {
                    // Straight from where it is made to where it goes: it may be large.
                    // SAFETY: `look` has found it to have a result.
                    return unsafe { actor(self.queue, place, Act::Deliver) };
                }
                Next::Callback(place, actor) => {
                    // SAFETY: as above. A callback gives no event.
                    unsafe { actor(self.queue, place, Act::Deliver) };
                }
                Next::Posted => return self.queue.take_posted(true),
                Next::Nothing => self.left = 0,
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
        inner.sink.weight() + inner.magazine.unread() + inner.rest_len.get() + inner.posted.get()
    }

    /// Finds the oldest result, and takes it off the counts.
    #[inline]
    fn look(&self) -> Next<'q, E, PLACE> {
        let inner = &**self.inner;
        if inner.posted.get() > 0 && self.is_posts_turn() {
            return Next::Posted;
        }
        let rest = inner.rest.get();
        let place = if rest.is_null() {
            let Some(slot) = inner.sink.pop() else { return Next::Nothing };
            let place = Place::of_slot(slot);
            // SAFETY: only slots of places get into the sink; the slot of one that was submitted is initialised.
            unsafe {
                if (*place).phase.get() == Phase::Submitted && (*slot).has_plainly_succeeded() {
                    inner.submitted.set(inner.submitted.get() - 1);
                    return Next::Plain(place, (*place).actor.get());
                }
            }
            inner.broken.set(false);
            place
        } else {
            rest
        };
        // SAFETY: only slots of places get into the sink, and those have results.
        unsafe {
            let actor = (*place).actor.get();
            let phase = self.count_out(place, rest.is_null());
            if phase == Phase::Recurring { Next::Callback(place, actor) } else { Next::Event(place, actor) }
        }
    }

    /// Whether what was posted comes before what has ended: the two take turns, but chains stay together.
    #[cold]
    fn is_posts_turn(&self) -> bool {
        let inner = &**self.inner;
        let turn = inner.rest.get().is_null() && (inner.sink.is_empty() || inner.posts_turn.get());
        inner.posts_turn.set(!turn);
        turn
    }

    /// Drops the oldest result; tells whether there was one.
    pub(super) fn discard_one(&self) -> bool {
        match self.look() {
            Next::Plain(place, actor) | Next::Event(place, actor) | Next::Callback(place, actor) => {
                // SAFETY: `look` has found it to have a result.
                drop(unsafe { actor(self, place, Act::Discard) });
                true
            }
            Next::Posted => {
                drop(self.take_posted(false));
                true
            }
            Next::Nothing => false,
        }
    }

    /// Takes a result off the counts; tells what kind it is of.
    ///
    /// # Safety
    /// The place holds something that has a result. It is the `first` of its chain, or stands alone.
    #[inline]
    unsafe fn count_out(&self, place: *mut Place<'q, E, PLACE>, first: bool) -> Phase {
        let inner = &**self.inner;
        // SAFETY: promised by the caller.
        let phase = unsafe { (*place).phase.get() };
        if phase == Phase::Streaming {
            inner.sink.took(0);
            return phase;
        }
        inner.submitted.set(inner.submitted.get() - 1);
        let slot: *const Slot = Place::slot_of(place);
        // SAFETY: promised by the caller; what was submitted has a slot.
        if phase == Phase::Submitted && !(first && unsafe { (*slot).link() } == Link::None) {
            // SAFETY: as above.
            unsafe { self.go_through_chain(slot, first) };
        }
        phase
    }

    /// Notes what is linked to a place.
    ///
    /// # Safety
    /// The slot is of a chain that has ended.
    #[cold]
    unsafe fn go_through_chain(&self, slot: *const Slot, first: bool) {
        let inner = &**self.inner;
        // SAFETY: promised by the caller: all of the chain is in place.
        unsafe {
            if first {
                let mut all = 1;
                let mut at = slot;
                while (*at).link() != Link::None {
                    at = (*at).next();
                    all += 1;
                }
                inner.sink.took(all);
                inner.rest_len.set(all);
            }
            let last = (*slot).link() == Link::None;
            inner.rest.set(if last { ptr::null_mut() } else { Place::of_slot((*slot).next()) });
            inner.rest_len.set(inner.rest_len.get() - 1);
        }
    }
}
