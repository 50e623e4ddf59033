//! What multishot operations have produced and nobody has taken yet.
//!
//! Each such operation has a list of [`Shots`]. The lists of one queue (or runtime) run through one [`Magazine`], whose
//! places are allocated once: pumping allocates nothing, unless more arrives at a time than the kernel's own queue
//! holds.

use super::{
    pool::Part,
    waiter::{Waiter, tell},
};
use std::{
    cell::{Cell, RefCell},
    ptr,
};

/// One result of a multishot operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// A number, or `-errno`.
    pub(crate) result: i32,
    /// What was filled, out of the operation's pool.
    pub(crate) part: Option<Part>,
    /// This is not the last one.
    pub(crate) more: bool,
}

impl Shot {
    /// One of several that fills no buffer.
    pub(crate) const fn plain(result: i32) -> Shot {
        Shot { result, part: None, more: true }
    }

    /// The last one.
    pub(crate) const fn last(result: i32) -> Shot {
        Shot { more: false, ..Shot::plain(result) }
    }
}

const NONE: u32 = u32::MAX;

/// Places for shots.
pub(crate) struct Magazine {
    nodes: RefCell<Nodes>,
    /// Shots that nobody has taken yet.
    unread: Cell<u32>,
}

struct Nodes {
    all: Vec<(Shot, u32)>,
    free: u32,
}

impl Magazine {
    /// With places for so many shots before it has to grow.
    pub(crate) fn new(places: u32) -> Magazine {
        let all = (0..places).map(|at| (Shot::last(0), if at + 1 < places { at + 1 } else { NONE })).collect();
        let free = if places > 0 { 0 } else { NONE };
        Magazine { nodes: RefCell::new(Nodes { all, free }), unread: Cell::new(0) }
    }

    /// How many shots nobody has taken yet.
    #[inline]
    pub(crate) fn unread(&self) -> u32 {
        self.unread.get()
    }
}

/// The shots of one operation, in order. It stays in place, with its magazine, until the operation has ended.
pub struct Shots {
    magazine: *const Magazine,
    first: Cell<u32>,
    last: Cell<u32>,
    len: Cell<u32>,
    /// The operation pauses when so many wait to be taken.
    limit: u32,
    /// Told of the next shot, once.
    waiting: Cell<*const Waiter>,
    /// They cannot be taken now, and do not count as unread.
    hidden: Cell<bool>,
}

impl Shots {
    /// # Safety
    /// The magazine outlives this.
    pub(crate) unsafe fn new(magazine: *const Magazine, limit: u32) -> Shots {
        let nothing = || Cell::new(NONE);
        let (first, last, len) = (nothing(), nothing(), Cell::new(0));
        Shots { magazine, first, last, len, limit, waiting: Cell::new(ptr::null()), hidden: Cell::new(false) }
    }

    fn magazine(&self) -> &Magazine {
        // SAFETY: promised to `new`.
        unsafe { &*self.magazine }
    }

    /// How many wait to be taken.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.len.get()
    }

    /// The operation pauses when so many wait to be taken.
    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether so many wait that the operation has to pause.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.len.get() >= self.limit
    }

    /// Hides what there is and what comes, because nobody can take it, or shows it again.
    pub(crate) fn hide(&self, hidden: bool) {
        if self.hidden.replace(hidden) != hidden {
            let (unread, len) = (&self.magazine().unread, self.len.get());
            unread.set(if hidden { unread.get() - len } else { unread.get() + len });
        }
    }

    /// Has `waiter`, which waits for one, told of the next shot; or nobody, if it is null.
    ///
    /// # Safety
    /// `waiter` is valid until it was told, or this was called again.
    pub(crate) unsafe fn tell_next(&self, waiter: *const Waiter) {
        self.waiting.set(waiter);
    }

    pub(crate) fn push(&self, shot: Shot) {
        let magazine = self.magazine();
        let mut nodes = magazine.nodes.borrow_mut();
        let at = match nodes.free {
            NONE => {
                nodes.all.push((shot, NONE));
                (nodes.all.len() - 1) as u32
            }
            at => {
                nodes.free = nodes.all[at as usize].1;
                nodes.all[at as usize] = (shot, NONE);
                at
            }
        };
        match self.last.replace(at) {
            NONE => self.first.set(at),
            before => nodes.all[before as usize].1 = at,
        }
        drop(nodes);
        self.len.set(self.len.get() + 1);
        magazine.unread.set(magazine.unread.get() + u32::from(!self.hidden.get()));
        let waiting = self.waiting.replace(ptr::null());
        if !waiting.is_null() {
            // SAFETY: promised to `tell_next`.
            unsafe { tell(waiting, 1) };
        }
    }

    /// Takes the oldest.
    pub(crate) fn pop(&self) -> Option<Shot> {
        let at = self.first.get();
        if at == NONE {
            return None;
        }
        let magazine = self.magazine();
        let mut nodes = magazine.nodes.borrow_mut();
        let (shot, next) = nodes.all[at as usize];
        nodes.all[at as usize].1 = nodes.free;
        nodes.free = at;
        self.first.set(next);
        if next == NONE {
            self.last.set(NONE);
        }
        self.len.set(self.len.get() - 1);
        magazine.unread.set(magazine.unread.get() - u32::from(!self.hidden.get()));
        Some(shot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shots_come_back_in_order_and_their_places_are_used_again() {
        let magazine = Magazine::new(2);
        // SAFETY: the magazine outlives them.
        let (a, b) = unsafe { (Shots::new(&magazine, 3), Shots::new(&magazine, 3)) };
        for round in 0..10 {
            a.push(Shot::plain(round));
            b.push(Shot::plain(-round));
            a.push(Shot::plain(round + 100));
            assert!(!a.is_full());
            a.push(Shot::last(round + 200));
            assert!(a.is_full());
            assert_eq!((a.len(), b.len(), magazine.unread()), (3, 1, 4));
            let taken: Vec<i32> = std::iter::from_fn(|| a.pop()).map(|shot| shot.result).collect();
            assert_eq!(taken, [round, round + 100, round + 200]);
            assert_eq!(b.pop(), Some(Shot::plain(-round)));
            assert_eq!(b.pop(), None);
        }
        assert_eq!(magazine.unread(), 0);
        assert_eq!(magazine.nodes.borrow().all.len(), 4, "it has grown once, to what it needed");
    }

    #[test]
    fn whoever_waits_is_told_once() {
        let magazine = Magazine::new(4);
        // SAFETY: the magazine outlives them.
        let shots = unsafe { Shots::new(&magazine, 3) };
        let waiter = Waiter::new(1);
        // SAFETY: the waiter outlives the shots.
        unsafe { shots.tell_next(&waiter) };
        shots.push(Shot::plain(1));
        shots.push(Shot::plain(2));
        assert_eq!(waiter.pending.get(), 0);
    }
}
