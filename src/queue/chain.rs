//! Chains: operations that are submitted as one, each with a mapper of its own.

use super::{
    NotSubmitted, Queue, Token,
    place::{Act, Phase, Place},
    submit::{Refusal, Single, TOO_LARGE, deliver},
};
use crate::{
    driver::{
        slot::{Link, Slot},
        waiter::Waiter,
    },
    link::Linked,
    lower::Lower,
    op::Op,
    queue::Done,
};
use std::mem;

/// A tuple of two to eight operations, all but the last linked to the next one; see [`Queue::submit_chain`]. `M` is the
/// tuple of their mappers.
///
/// Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a chain, or `{M}` are not its mappers",
    note = "a chain is a tuple of two to eight operations; all but the last carry `.link()` or `.hard_link()`",
    note = "its mappers are a tuple of as many functions, each from `Done<…>` to the event"
)]
pub trait Chain<'q, M, E>: Sized {
    /// One token for each operation.
    type Tokens;

    #[doc(hidden)]
    fn submit<const PLACE: usize>(
        self,
        maps: M,
        queue: &Queue<'q, E, PLACE>,
    ) -> Result<Self::Tokens, NotSubmitted<Self, M>>;
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// Submits a chain: whole, or not at all.
    ///
    /// Each operation starts when the one before it has ended, as the links say ([`Op::link`]). There is an event for
    /// each, in order; they come together, when the last one has ended.
    ///
    /// ```
    /// use aio::{Queue, op::*};
    ///
    /// let file = std::sync::Arc::new(tempfile::tempfile()?);
    /// let queue = Queue::new(2)?;
    /// queue.submit_chain(
    ///     (Write::new(file.clone(), "durable").at(0).link(), Fsync::new(file)),
    ///     (|done| format!("{:?}", done.result), |done| format!("{:?}", done.result)),
    /// )?;
    /// let events: Vec<String> = queue.wait(2)?.map(|(_, event)| event).collect();
    /// assert_eq!(events, ["Ok(7)", "Ok(())"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotSubmitted`], with the operations and the mappers. A chain that has more operations than the queue has places
    /// is `TooLong`, and not `Full`.
    pub fn submit_chain<C, M>(&self, chain: C, maps: M) -> Result<C::Tokens, NotSubmitted<C, M>>
    where
        C: Chain<'q, M, E>,
    {
        chain.submit(maps, self)
    }

    /// Takes places for a chain: all or none.
    fn take_all<const N: usize>(&self, entries: u32) -> Result<[*mut Place<'q, E, PLACE>; N], Refusal> {
        if self.inner.engine.is_alive() && (N > self.capacity() || self.inner.engine.check_chain(entries).is_err()) {
            return Err(Refusal::TooLong);
        }
        if self.inner.engine.is_alive() && N > self.capacity() - self.len() {
            return Err(if self.inner.closing.get() { Refusal::Closed } else { Refusal::Full });
        }
        let mut places = [std::ptr::null_mut(); N];
        for place in &mut places {
            // Nothing can come between: the first fails, or none does.
            *place = self.take()?;
        }
        Ok(places)
    }
}

/// Ends what a chain has left behind, if lowering it panics.
struct Unwound<'a, 'e, 'q, E, const PLACE: usize> {
    queue: &'a Queue<'q, E, PLACE>,
    places: &'a [*mut Place<'q, E, PLACE>],
    cx: Lower<'e>,
}

impl<E, const PLACE: usize> Drop for Unwound<'_, '_, '_, E, PLACE> {
    fn drop(&mut self) {
        let slots: Vec<*mut Slot> = self.places.iter().map(|&place| Place::slot_of(place)).collect();
        self.cx.abandon(&slots);
        for &place in self.places {
            // SAFETY: the place holds what its function expects, and nothing was submitted.
            unsafe {
                ((*place).actor.get())(self.queue, place, Act::Drop);
            }
        }
    }
}

/// Lowers the operation that lies in a place, as the next one of its chain.
///
/// # Safety
/// The place holds a [`Single`] of these types.
unsafe fn lower<'q, O: Op, M, E, const PLACE: usize>(cx: &mut Lower<'_>, place: *mut Place<'q, E, PLACE>, link: Link) {
    // SAFETY: promised by the caller.
    unsafe {
        let held: *mut Single<O, M> = Place::payload_of(place);
        let raw = (*held).op.lower(cx);
        cx.push(Place::slot_of(place), raw, link);
    }
}

macro_rules! chain {
    ($count:literal: $($op:ident $link:ident $map:ident $at:tt),* ; $last:ident $last_map:ident $end:tt) => {
        impl<'q, E, $($op, const $link: bool, $map,)* $last, $last_map> Chain<'q, ($($map,)* $last_map,), E>
            for ($(Linked<$op, $link>,)* $last,)
        where
            $($op: Op + 'q, $map: FnOnce(Done<$op>) -> E + 'q,)*
            $last: Op + 'q,
            $last_map: FnOnce(Done<$last>) -> E + 'q,
        {
            type Tokens = [Token; $count];

            fn submit<const PLACE: usize>(
                self,
                maps: ($($map,)* $last_map,),
                queue: &Queue<'q, E, PLACE>,
            ) -> Result<[Token; $count], NotSubmitted<Self, ($($map,)* $last_map,)>> {
                const {
                    $(assert!(Place::<E, PLACE>::fits::<Single<$op, $map>>(), "{}", TOO_LARGE);)*
                    assert!(Place::<E, PLACE>::fits::<Single<$last, $last_map>>(), "{}", TOO_LARGE);
                };
                let entries = $($op::ENTRIES +)* $last::ENTRIES;
                let places = match queue.take_all::<$count>(entries) {
                    Ok(places) => places,
                    Err(why) => return Err(why.with(self, maps)),
                };
                let tokens = places.map(|place| queue.token(place));
                // SAFETY: the places are ours, and what is put into them fits; each goes with its function. They stay
                // until all of the chain has ended, for it has one waiter.
                unsafe {
                    $(queue.fill(places[$at], self.$at.op, maps.$at);)*
                    queue.fill(places[$end], self.$end, maps.$end);
                    queue.submit_filled(&places, |cx| {
                        $(lower::<$op, $map, E, PLACE>(cx, places[$at], Linked::<$op, $link>::LINK);)*
                        lower::<$last, $last_map, E, PLACE>(cx, places[$end], Link::None);
                    });
                }
                Ok(tokens)
            }
        }
    };
}

chain!(2: A LA MA 0; B MB 1);
chain!(3: A LA MA 0, B LB MB 1; C MC 2);
chain!(4: A LA MA 0, B LB MB 1, C LC MC 2; D MD 3);
chain!(5: A LA MA 0, B LB MB 1, C LC MC 2, D LD MD 3; F MF 4);
chain!(6: A LA MA 0, B LB MB 1, C LC MC 2, D LD MD 3, F LF MF 4; G MG 5);
chain!(7: A LA MA 0, B LB MB 1, C LC MC 2, D LD MD 3, F LF MF 4, G LG MG 5; H MH 6);
chain!(8: A LA MA 0, B LB MB 1, C LC MC 2, D LD MD 3, F LF MF 4, G LG MG 5, H LH MH 6; I MI 7);

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// Puts an operation and its mapper into a place.
    ///
    /// # Safety
    /// The place was taken, and they fit.
    unsafe fn fill<O: Op, M: FnOnce(Done<O>) -> E>(&self, place: *mut Place<'q, E, PLACE>, op: O, map: M) {
        // SAFETY: promised by the caller.
        unsafe {
            Place::payload_of::<Single<O, M>>(place).write(Single { op, map });
            (*place).actor.set(deliver::<O, M, E, PLACE>);
        }
    }

    /// Submits what lies in the places, as one chain.
    ///
    /// # Safety
    /// `lower` lowers what they hold, in order.
    unsafe fn submit_filled(&self, places: &[*mut Place<'q, E, PLACE>], lower: impl FnOnce(&mut Lower<'_>)) {
        let (head, count) = (places[0], places.len() as u32);
        // SAFETY: promised by the caller; the places are taken, and stay until the chain has ended.
        unsafe {
            (*head).waiter = Waiter::sunk(count, count, &self.inner.sink, Place::slot_of(head));
            let cx = Lower::new(&self.inner.engine, &raw const (*head).waiter, count, false);
            // Lowering calls user code (`AsFd`), which may panic. The chain is submitted with its last operation.
            let mut unwound = Unwound { queue: self, places, cx };
            lower(&mut unwound.cx);
            mem::forget(unwound);
            places.iter().for_each(|&place| (*place).phase.set(Phase::Submitted));
            self.inner.submitted.set(self.inner.submitted.get() + count);
            self.stir();
        }
    }
}
