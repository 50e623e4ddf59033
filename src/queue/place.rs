//! Where an operation of a queue lives from its submission until its result is delivered.
//!
//! ```text
//!   place ┌────────────────────────────┐ 64-byte lines
//!         │ slot                       │  the engine's and the kernel's
//!         │ what to do, number         │
//!         │ operation and mapper       │  inline, PLACE bytes
//!         │ waiter                     │  of chains and the like
//!         └────────────────────────────┘
//! ```
//!
//! A no-op, or another small operation, touches two lines of it.
//!
//! A queue makes all its places at once. What is in one has lost its type; the function that is stored with it knows
//! it.

use super::{Queue, Token};
use crate::driver::{slot::Slot, waiter::Waiter};
use std::{
    cell::Cell,
    mem::{MaybeUninit, offset_of},
};

/// No place.
pub(super) const NONE: u32 = u32::MAX;

/// What is to be done with what is in a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// It has a result: free the place, and make an event of it.
    Deliver,
    /// The same, for a single operation that has [simply succeeded](Slot::has_plainly_succeeded).
    DeliverPlain,
    /// It has a result that nobody wants: drop it, with everything in the place.
    Discard,
    /// It was never submitted: drop everything in the place.
    Drop,
}

impl Act {
    /// Whether the result is to become an event.
    pub(super) fn delivers(self) -> bool {
        matches!(self, Act::Deliver | Act::DeliverPlain)
    }
}

/// The function that knows the type of what is in a place.
///
/// # Safety
/// Of calling one: the place belongs to the queue, it was filled together with this function, and what it holds has a
/// result that was not delivered yet, or was never submitted.
pub(super) type Actor<'q, E, const PLACE: usize> =
    unsafe fn(&Queue<'q, E, PLACE>, *mut Place<'q, E, PLACE>, Act) -> Option<(Token, E)>;

/// For a place that holds nothing yet.
///
/// # Safety
/// None is needed.
unsafe fn nothing<'q, E, const PLACE: usize>(
    _queue: &Queue<'q, E, PLACE>,
    _place: *mut Place<'q, E, PLACE>,
    _act: Act,
) -> Option<(Token, E)> {
    None
}

#[repr(C, align(64))]
pub(super) struct Place<'q, E, const PLACE: usize> {
    /// Comes first, so that a slot leads to its place.
    slot: MaybeUninit<Slot>,
    pub(super) actor: Cell<Actor<'q, E, PLACE>>,
    /// Counts how often the place was used; a token of an earlier time finds nothing.
    pub(super) generation: Cell<u64>,
    pub(super) index: u32,
    /// The group that is told when this has ended. None, while the place is free.
    pub(super) group: Cell<u32>,
    pub(super) phase: Cell<Phase>,
    /// It is noted that the operation has paused.
    pub(super) is_paused: Cell<bool>,
    payload: MaybeUninit<Aligned<PLACE>>,
    /// What waits for more than one slot, or for one of many results. Set by those that use it.
    pub(super) waiter: Waiter,
}

/// How far the use of a place has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// Also while it is being filled.
    Free,
    /// Its slot is initialised and was given to the engine.
    Submitted,
    /// The same, for an operation that is handled by a callback and gives no event.
    Recurring,
    /// The same, for an operation with many results.
    Streaming,
    /// Waits for something else than the engine: a group.
    Waiting,
}

#[repr(C, align(16))]
pub(super) struct Aligned<const PLACE: usize>([u8; PLACE]);

impl Phase {
    /// Whether its (last) event is still to come.
    pub(super) fn is_submitted(self) -> bool {
        self.has_slot() || self == Phase::Waiting
    }

    /// Whether the slot is initialised, and the engine's.
    pub(super) fn has_slot(self) -> bool {
        matches!(self, Phase::Submitted | Phase::Recurring | Phase::Streaming)
    }
}

impl<'q, E, const PLACE: usize> Place<'q, E, PLACE> {
    pub(super) fn empty(index: u32) -> Place<'q, E, PLACE> {
        Place {
            slot: MaybeUninit::uninit(),
            actor: Cell::new(nothing::<E, PLACE>),
            generation: Cell::new(0),
            index,
            group: Cell::new(NONE),
            phase: Cell::new(Phase::Free),
            is_paused: Cell::new(false),
            payload: MaybeUninit::uninit(),
            waiter: Waiter::new(0),
        }
    }

    /// Whether a payload fits; for assertions at compile time.
    pub(super) const fn fits<T>() -> bool {
        size_of::<T>() <= PLACE && align_of::<T>() <= align_of::<Aligned<PLACE>>()
    }

    /// The address of a place's slot.
    #[inline]
    pub(super) fn slot_of(place: *mut Self) -> *mut Slot {
        place.cast()
    }

    /// The place that a slot is part of.
    #[inline]
    pub(super) fn of_slot(slot: *mut Slot) -> *mut Self {
        slot.cast()
    }

    /// The address of what a place holds.
    #[inline]
    pub(super) fn payload_of<T>(place: *mut Self) -> *mut T {
        place.wrapping_byte_add(offset_of!(Self, payload)).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_spread_over_the_cache() {
        let lines = size_of::<Place<'_, (), { super::super::ROOM }>>() / 64;
        assert_eq!(lines % 2, 1, "an even number of lines would crowd into a part of it");
    }
}
