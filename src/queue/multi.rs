//! Operations with many results, in a queue.

use super::{
    NotSubmitted, Queue, Shot, Token,
    place::{Act, NONE, Phase, Place},
    submit::{Release, TOO_LARGE, Unwound},
};
use crate::{
    Error,
    driver::{
        shots::{self, Shots},
        slot::{Link, Slot, State},
        waiter::{Waiter, tell},
    },
    lower::Lower,
    op::{MultiOp, RawOp},
};
use std::{mem, ptr};

/// An operation pauses when so many of its results wait to be taken, or as many as the queue has places.
const FEW: u32 = 64;

/// What a place holds of an operation with many results.
struct Stream<O, M> {
    op: O,
    map: M,
    shots: Shots,
    /// It was never started, and this is why.
    refused: Option<Error>,
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// Submits an operation that gives many results. `map` makes an event of each.
    ///
    /// The last one says that there will be no [`more`](Shot::more), and brings the operation back; what ends one is
    /// told at [`MultiOp`]. To end it, [`cancel`](Queue::cancel) it: results that came before are delivered first.
    ///
    /// While as many of its results as the queue has places (or 64, if it has fewer) wait to be taken, an operation
    /// pauses; it goes on by itself.
    ///
    /// # Errors
    ///
    /// As [`submit`](Queue::submit).
    pub fn submit_multi<O, M>(&self, op: O, map: M) -> Result<Token, NotSubmitted<O, M>>
    where
        O: MultiOp + 'q,
        M: FnMut(Shot<O>) -> E + 'q,
    {
        self.submit_multi_to(NONE, op, map)
    }

    pub(super) fn submit_multi_to<O, M>(&self, group: u32, op: O, map: M) -> Result<Token, NotSubmitted<O, M>>
    where
        O: MultiOp + 'q,
        M: FnMut(Shot<O>) -> E + 'q,
    {
        const { assert!(Place::<E, PLACE>::fits::<Stream<O, M>>(), "{}", TOO_LARGE) };
        let place = match self.take() {
            Ok(place) => place,
            Err(why) => return Err(why.with(op, map)),
        };
        let inner = &**self.inner;
        // SAFETY: the place is ours, and what is put into it fits; it goes with its function. It stays until the last
        // shot is taken, and the magazine as long as the queue.
        unsafe {
            let held: *mut Stream<O, M> = Place::payload_of(place);
            let shots = Shots::new(&inner.magazine, inner.capacity.max(FEW));
            held.write(Stream { op, map, shots, refused: None });
            (*place).group.set(group);
            (*place).actor.set(deliver::<O, M, E, PLACE>);
            (*place).waiter = Waiter::sunk(1, 0, &inner.sink, Place::slot_of(place));
            let (waiter, shots) = (&raw const (*place).waiter, &raw const (*held).shots);
            let mut cx = Lower::new(&inner.engine, waiter, 1, false);
            let unwound = Unwound { queue: self, place };
            let lowered = (*held).op.lower_multi(shots, &mut cx);
            mem::forget(unwound);
            (*shots).tell_next(waiter);
            inner.streams.set(inner.streams.get() + 1);
            (*place).phase.set(Phase::Streaming);
            match lowered {
                Ok(raw) => cx.push(Place::slot_of(place), raw, Link::None),
                Err(why) => {
                    (*held).refused = Some(why);
                    Slot::init(Place::slot_of(place), RawOp::Nop, Link::None, waiter);
                    (*Place::slot_of(place)).set_state(State::Done);
                    (*shots).push(shots::Shot::last(0));
                }
            }
            self.stir();
            Ok(self.token(place))
        }
    }

    /// Goes on with operations that have paused and whose results were taken since.
    pub(super) fn resume_paused(&self) {
        while let Some((index, generation)) = { self.inner.paused.borrow_mut().pop() } {
            let place: *mut Place<'q, E, PLACE> = self.inner.places.wrapping_add(index as usize);
            // SAFETY: places stay as long as the queue; a stream that has not ended has its slot and its shots.
            unsafe {
                if (*place).generation.get() == generation && (*place).phase.get() == Phase::Streaming {
                    (*place).is_paused.set(false);
                    if (*Place::slot_of(place)).state() != State::Done {
                        self.inner.engine.resume(Place::slot_of(place));
                    }
                }
            }
        }
    }
}

/// Has a place listed again: at once, if it has more results, or with its next one.
struct Relist<'a, 'q, E, const PLACE: usize>(&'a Queue<'q, E, PLACE>, *mut Place<'q, E, PLACE>, *const Shots);

impl<E, const PLACE: usize> Drop for Relist<'_, '_, E, PLACE> {
    fn drop(&mut self) {
        let Relist(queue, place, shots) = *self;
        // SAFETY: the place holds a stream whose last shot was not taken, and is on no list.
        unsafe {
            let waiter = &raw const (*place).waiter;
            (*shots).hide(false);
            queue.inner.delivering.set(queue.inner.delivering.get() - 1);
            (*waiter).pending.set(1);
            if (*shots).len() > 0 {
                tell(waiter, 1);
            } else {
                (*shots).tell_next(waiter);
            }
            if (*Place::slot_of(place)).state() == State::Held && !(*place).is_paused.replace(true) {
                queue.inner.paused.borrow_mut().push(((*place).index, (*place).generation.get()));
            }
            queue.stir();
        }
    }
}

/// What is done with a [`Stream`]. It is not listed meanwhile, so that nobody else gets at the mapper.
///
/// # Safety
/// As [`Actor`](super::place::Actor).
unsafe fn deliver<'q, O, M, E, const PLACE: usize>(
    queue: &Queue<'q, E, PLACE>,
    place: *mut Place<'q, E, PLACE>,
    act: Act,
) -> Option<(Token, E)>
where
    O: MultiOp,
    M: FnMut(Shot<O>) -> E,
{
    // SAFETY: promised by the caller: the place holds this, and nobody else takes it.
    unsafe {
        let token = queue.token(place);
        let held: *mut Stream<O, M> = Place::payload_of(place);
        let shot = if act == Act::Drop { shots::Shot::last(0) } else { (*held).shots.pop()? };
        if shot.more {
            // What comes while the mapper runs cannot be taken before it has returned.
            (*held).shots.hide(true);
            queue.inner.delivering.set(queue.inner.delivering.get() + 1);
            let relist = Relist(queue, place, &raw const (*held).shots);
            let result = (*held).op.item(shot);
            let deliver = || ((*held).map)(Shot { result, more: true, op: None });
            let event = if act.delivers() { Some((token, deliver())) } else { None };
            drop(relist);
            return event;
        }
        let release = Release(queue, place);
        let Stream { mut op, mut map, refused, .. } = ptr::read(held);
        if act == Act::Drop {
            return None;
        }
        queue.inner.streams.set(queue.inner.streams.get() - 1);
        let result = match refused {
            Some(why) => Err(why),
            None => op.item(shot),
        };
        (*place).is_paused.set(false);
        drop(release);
        if act.delivers() { Some((token, map(Shot { result, more: false, op: Some(op) }))) } else { None }
    }
}
