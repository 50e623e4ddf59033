//! Groups: one event for many operations.

use super::{
    Done, NotSubmitted, Queue, Shot, Token,
    place::{Act, NONE, Phase, Place},
    submit::{Release, TOO_LARGE},
};
use crate::{
    driver::waiter::{Waiter, tell},
    op::{MultiOp, Op},
};
use std::{cell::Cell, fmt, ptr};

/// Operations that belong together: when all of them have ended, there is one more event, for the group. Made by
/// [`Queue::gather`] and [`Queue::race`].
///
/// The members' own events come as ever, before that of the group. A group can be a member of another one. It takes
/// members until this handle is dropped; if it got none, its event comes then.
///
/// ```
/// use aio::{Queue, op::Timeout};
/// use std::time::Duration;
///
/// let queue = Queue::new(8)?;
/// let group = queue.race(|members| format!("all {members} have ended"))?;
/// group.submit(Timeout::after(Duration::from_millis(1)), |done| format!("{:?}", done.result))?;
/// group.submit(Timeout::after(Duration::from_secs(60)), |done| format!("{:?}", done.result))?;
/// drop(group);
/// let mut events = Vec::new();
/// queue.drain(|_, event| events.push(event))?;
/// assert_eq!(events, ["Ok(())", "Err(Canceled)", "all 2 have ended"]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Group<'a, 'q, E, const PLACE: usize> {
    queue: &'a Queue<'q, E, PLACE>,
    token: Token,
}

/// What a place holds of a group. What can be used without knowing its type comes first.
#[repr(C)]
struct Held<M> {
    members: Members,
    map: M,
}

struct Members {
    /// Those that have not ended, and all.
    pending: Cell<u32>,
    all: Cell<u32>,
    /// It takes no more members.
    sealed: Cell<bool>,
    /// The first that ends ends the others.
    race: Cell<bool>,
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// A group whose event comes when all its members have ended. `map` gets their number.
    ///
    /// # Errors
    ///
    /// As [`submit`](Queue::submit): a group takes a place.
    pub fn gather<M>(&self, map: M) -> Result<Group<'_, 'q, E, PLACE>, NotSubmitted<(), M>>
    where
        M: FnOnce(usize) -> E + 'q,
    {
        self.group(NONE, false, map)
    }

    /// As [`gather`](Queue::gather); the first member whose event is taken ends the others. Each of these has its own
    /// event all the same: with [`Canceled`](crate::Error::Canceled), or with a result, if it had that already.
    ///
    /// # Errors
    ///
    /// As [`submit`](Queue::submit): a group takes a place.
    pub fn race<M>(&self, map: M) -> Result<Group<'_, 'q, E, PLACE>, NotSubmitted<(), M>>
    where
        M: FnOnce(usize) -> E + 'q,
    {
        self.group(NONE, true, map)
    }

    fn group<M>(&self, parent: u32, race: bool, map: M) -> Result<Group<'_, 'q, E, PLACE>, NotSubmitted<(), M>>
    where
        M: FnOnce(usize) -> E + 'q,
    {
        const { assert!(Place::<E, PLACE>::fits::<Held<M>>(), "{}", TOO_LARGE) };
        let place = match self.take() {
            Ok(place) => place,
            Err(why) => return Err(why.with((), map)),
        };
        let count = || Cell::new(0);
        let members = Members { pending: count(), all: count(), sealed: Cell::new(false), race: Cell::new(race) };
        // SAFETY: the place is ours, and what is put into it fits; it goes with its function.
        unsafe {
            Place::payload_of::<Held<M>>(place).write(Held { members, map });
            (*place).group.set(parent);
            (*place).actor.set(deliver::<M, E, PLACE>);
            (*place).waiter = Waiter::sunk(1, 1, &self.inner.sink, Place::slot_of(place));
            (*place).phase.set(Phase::Waiting);
        }
        if parent != NONE {
            self.member_came(parent);
        }
        Ok(Group { queue: self, token: self.token(place) })
    }

    fn members(&self, group: u32) -> &Members {
        let place: *mut Place<'q, E, PLACE> = self.inner.places.wrapping_add(group as usize);
        // SAFETY: a group's place is not freed before its last member has ended, and holds this first of all.
        unsafe { &*Place::payload_of::<Members>(place) }
    }

    fn member_came(&self, group: u32) {
        let members = self.members(group);
        members.pending.set(members.pending.get() + 1);
        members.all.set(members.all.get() + 1);
    }

    /// A member has ended, and its event was taken.
    #[cold]
    #[inline(never)]
    pub(super) fn member_ended(&self, group: u32) {
        let members = self.members(group);
        members.pending.set(members.pending.get() - 1);
        if members.race.replace(false) && !self.inner.closing.get() && self.inner.engine.is_alive() {
            self.cancel_members(group);
        }
        self.finish_group(group);
    }

    /// Makes the event of a group, if nothing is left that could delay it.
    fn finish_group(&self, group: u32) {
        let members = self.members(group);
        if members.pending.get() == 0 && members.sealed.get() {
            let place: *mut Place<'q, E, PLACE> = self.inner.places.wrapping_add(group as usize);
            self.inner.submitted.set(self.inner.submitted.get() + 1);
            // SAFETY: the group's place stays until its event has been taken; its waiter waits for this.
            unsafe { tell(&raw const (*place).waiter, 1) };
            self.stir();
        }
    }

    /// Whether a place that is in use is a member of a group, or of one within it. (They may be nested deeper than the
    /// stack.)
    fn is_within(&self, mut place: *mut Place<'q, E, PLACE>, group: u32) -> bool {
        loop {
            // SAFETY: places stay as long as the queue, and that of a group is not freed before its last member has
            // ended.
            match unsafe { (*place).group.get() } {
                NONE => return false,
                found if found == group => return true,
                outer => place = self.inner.places.wrapping_add(outer as usize),
            }
        }
    }

    /// Asks for the end of all members of a group.
    pub(super) fn cancel_members(&self, group: u32) {
        for index in 0..self.inner.capacity {
            let place: *mut Place<'q, E, PLACE> = self.inner.places.wrapping_add(index as usize);
            // SAFETY: places stay as long as the queue.
            if unsafe { (*place).phase.get() }.has_slot() && self.is_within(place, group) {
                self.cancel_place(place);
            }
        }
    }
}

impl<'a, 'q, E, const PLACE: usize> Group<'a, 'q, E, PLACE> {
    /// Submits a member, as [`Queue::submit`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn submit<O, M>(&self, op: O, map: M) -> Result<Token, NotSubmitted<O, M>>
    where
        O: Op + 'q,
        M: FnOnce(Done<O>) -> E + 'q,
    {
        self.counted(|| self.queue.submit_to(self.token.index, op, map))
    }

    /// Submits a member with many results, as [`Queue::submit_multi`]. It counts as ended with its last.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn submit_multi<O, M>(&self, op: O, map: M) -> Result<Token, NotSubmitted<O, M>>
    where
        O: MultiOp + 'q,
        M: FnMut(Shot<O>) -> E + 'q,
    {
        self.counted(|| self.queue.submit_multi_to(self.token.index, op, map))
    }

    /// Makes a group that is a member of this one, as [`Queue::gather`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn gather<M>(&self, map: M) -> Result<Group<'a, 'q, E, PLACE>, NotSubmitted<(), M>>
    where
        M: FnOnce(usize) -> E + 'q,
    {
        self.queue.group(self.token.index, false, map)
    }

    /// Makes a group that is a member of this one, as [`Queue::race`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn race<M>(&self, map: M) -> Result<Group<'a, 'q, E, PLACE>, NotSubmitted<(), M>>
    where
        M: FnOnce(usize) -> E + 'q,
    {
        self.queue.group(self.token.index, true, map)
    }

    /// The group's token: with it all members can be cancelled, even when this handle is gone.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Counts a member for as long as it is not sure whether it comes.
    fn counted<T, R>(&self, submit: impl FnOnce() -> Result<T, R>) -> Result<T, R> {
        self.queue.member_came(self.token.index);
        let result = submit();
        if result.is_err() {
            let members = self.queue.members(self.token.index);
            members.pending.set(members.pending.get() - 1);
            members.all.set(members.all.get() - 1);
        }
        result
    }
}

impl<E, const PLACE: usize> Drop for Group<'_, '_, E, PLACE> {
    fn drop(&mut self) {
        // In a child of `fork` nothing of this may be touched by the engine, and nothing is.
        self.queue.members(self.token.index).sealed.set(true);
        self.queue.finish_group(self.token.index);
    }
}

impl<E, const PLACE: usize> fmt::Debug for Group<'_, '_, E, PLACE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.queue.members(self.token.index);
        let (pending, all) = (members.pending.get(), members.all.get());
        f.debug_struct("Group").field("members", &all).field("pending", &pending).finish_non_exhaustive()
    }
}

/// What is done with a group's place.
///
/// # Safety
/// As [`Actor`](super::place::Actor).
unsafe fn deliver<'q, M, E, const PLACE: usize>(
    queue: &Queue<'q, E, PLACE>,
    place: *mut Place<'q, E, PLACE>,
    act: Act,
) -> Option<(Token, E)>
where
    M: FnOnce(usize) -> E,
{
    // SAFETY: promised by the caller: the place holds this, and nobody else takes it.
    let Held { members, map } = unsafe { ptr::read(Place::payload_of::<Held<M>>(place)) };
    let token = queue.token(place);
    drop(Release(queue, place));
    if act.delivers() { Some((token, map(members.all.get() as usize))) } else { None }
}
