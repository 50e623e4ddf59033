//! Those who wait for a primitive, in the order in which they came.
//!
//! A waiter is a [`Node`] on the frame that waits, so waiting takes no memory. Nodes are reached under the primitive's
//! lock only, but for the flag that says "woken": its store is the last access to a node that is not the waiter's own,
//! for the frame may be gone right after.

use crate::{
    Error,
    coro::wait::{self, Ender, Reason, Wake},
};
use std::{
    cell::{Cell, UnsafeCell},
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Who shares a primitive: [`Local`] or [`Shared`].
///
/// Sealed.
pub trait Mode: crate::sealed::Sealed + 'static {
    #[doc(hidden)]
    type Lock<S: Init>: Lock<S>;
    /// Whether nobody but tasks of the same runtime can end a wait.
    #[doc(hidden)]
    const LOCAL: bool;
}

/// The tasks of one runtime. Costs no atomic operation, and a wait that nothing can end is noticed.
#[derive(Debug)]
pub enum Local {}

/// Tasks of any runtime, and plain threads.
#[derive(Debug)]
pub enum Shared {}

impl crate::sealed::Sealed for Local {}
impl crate::sealed::Sealed for Shared {}

impl Mode for Local {
    type Lock<S: Init> = LocalLock<S>;
    const LOCAL: bool = true;
}

impl Mode for Shared {
    type Lock<S: Init> = SharedLock<S>;
    const LOCAL: bool = false;
}

/// A value that a constant can start with.
#[doc(hidden)]
pub trait Init {
    const INIT: Self;
}

/// Gives access to the state of a primitive, to one at a time. What runs inside is never the user's code.
#[doc(hidden)]
pub trait Lock<S: Init> {
    const NEW: Self;
    fn with<R>(&self, f: impl FnOnce(&mut S) -> R) -> R;
}

/// For one thread: not `Sync`.
#[doc(hidden)]
pub struct LocalLock<S>(UnsafeCell<S>, Cell<bool>);

impl<S: Init> Lock<S> for LocalLock<S> {
    const NEW: Self = LocalLock(UnsafeCell::new(S::INIT), Cell::new(false));

    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        struct Release<'a>(&'a Cell<bool>);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        assert!(!self.1.replace(true), "the state of a primitive is used in two places");
        let _release = Release(&self.1);
        // SAFETY: the flag says that nobody else has it, and the type is not `Sync`.
        f(unsafe { &mut *self.0.get() })
    }
}

/// For many threads.
#[doc(hidden)]
pub struct SharedLock<S>(Mutex<S>);

impl<S: Init> Lock<S> for SharedLock<S> {
    const NEW: Self = SharedLock(Mutex::new(S::INIT));

    fn with<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One who waits.
pub(crate) struct Node {
    prev: Cell<*const Node>,
    next: Cell<*const Node>,
    wake: Cell<Option<Wake>>,
    /// 0 while it waits; afterwards what it was given, plus one.
    given: AtomicUsize,
    queued: Cell<bool>,
    /// What it wants, in the primitive's own terms.
    #[allow(dead_code)]
    pub(crate) wants: usize,
}

impl Node {
    pub(crate) fn new(wants: usize) -> Node {
        Node {
            prev: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            wake: Cell::new(None),
            given: AtomicUsize::new(0),
            queued: Cell::new(false),
            wants,
        }
    }

    fn given(&self) -> Option<usize> {
        self.given.load(Ordering::Acquire).checked_sub(1)
    }
}

/// A queue of nodes.
pub(crate) struct List {
    first: *const Node,
    last: *const Node,
}

// SAFETY: the nodes are used under the lock that the list is in; their wakers may be used on any thread if the lock is a
// shared one, for then they are made for that.
unsafe impl Send for List {}

impl Init for List {
    const INIT: List = List { first: ptr::null(), last: ptr::null() };
}

#[allow(dead_code)]
impl List {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// What the first in the queue wants.
    pub(crate) fn first_wants(&self) -> Option<usize> {
        // SAFETY: a queued node is alive: its frame takes it off before it goes.
        unsafe { self.first.as_ref() }.map(|node| node.wants)
    }

    /// # Safety
    /// The node stays in place until it is woken or removed.
    unsafe fn push(&mut self, node: &Node) {
        node.prev.set(self.last);
        node.next.set(ptr::null());
        node.queued.set(true);
        // SAFETY: as in `first_wants`.
        match unsafe { self.last.as_ref() } {
            Some(last) => last.next.set(node),
            None => self.first = node,
        }
        self.last = node;
    }

    /// Takes a node off; `false` if it was woken before.
    fn remove(&mut self, node: &Node) -> bool {
        if !node.queued.replace(false) {
            return false;
        }
        // SAFETY: as in `first_wants`.
        unsafe {
            match node.prev.get().as_ref() {
                Some(prev) => prev.next.set(node.next.get()),
                None => self.first = node.next.get(),
            }
            match node.next.get().as_ref() {
                Some(next) => next.prev.set(node.prev.get()),
                None => self.last = node.prev.get(),
            }
        }
        true
    }

    /// Takes the first off the queue, gives it a value, and tells how to wake it: to be done when the lock is released.
    #[must_use]
    pub(crate) fn pop(&mut self, given: usize) -> Option<Wake> {
        // SAFETY: as in `first_wants`.
        let node = unsafe { self.first.as_ref() }?;
        self.remove(node);
        let wake = node.wake.take();
        // The last access: the frame of the node may go as soon as it sees this.
        node.given.store(given + 1, Ordering::Release);
        wake
    }
}

/// Waits in a primitive's queue; gives what it was given. `now` is asked first, under the lock, and what it gives is
/// taken without waiting.
///
/// If the wait is given up, the node is off the queue, and `left` has been called under the lock.
pub(crate) fn wait<M: Mode, S: Init>(
    lock: &M::Lock<S>,
    list: fn(&mut S) -> &mut List,
    reason: Reason,
    wants: usize,
    now: impl FnOnce(&mut S) -> Option<usize>,
    left: impl FnOnce(&mut S),
) -> Result<usize, Error> {
    /// Takes the node off the queue if the wait unwinds.
    struct Leave<'a, M: Mode, S: Init>(&'a M::Lock<S>, fn(&mut S) -> &mut List, &'a Node);
    impl<M: Mode, S: Init> Drop for Leave<'_, M, S> {
        fn drop(&mut self) {
            self.0.with(|state| (self.1)(state).remove(self.2));
        }
    }
    let ender = if M::LOCAL { Ender::Tasks } else { Ender::Threads };
    let node = Node::new(wants);
    let early = lock.with(|state| {
        if let Some(given) = now(state) {
            return Some(Ok(given));
        }
        match Wake::current(ender) {
            Ok(wake) => node.wake.set(Some(wake)),
            Err(error) => return Some(Err(error)),
        }
        // SAFETY: the node stays in this frame, which `leave` and the end of this function do not leave before it is
        // off the list.
        unsafe { list(state).push(&node) };
        None
    });
    if let Some(result) = early {
        return result;
    }
    let leave = Leave::<M, S>(lock, list, &node);
    let result = wait::until(reason, ender, false, || node.given().is_some());
    std::mem::forget(leave);
    match result {
        Ok(()) => Ok(node.given().unwrap_or_else(|| unreachable!("that ended the wait"))),
        Err(error) => {
            let was_queued = lock.with(|state| {
                let was_queued = list(state).remove(&node);
                if was_queued {
                    left(state);
                }
                was_queued
            });
            // What it was given in the last moment is not lost.
            if was_queued { Err(error) } else { Ok(node.given().unwrap_or_else(|| unreachable!("it was woken"))) }
        }
    }
}

/// Wakes all that are queued now.
pub(crate) fn wake_all<S: Init, L: Lock<S>>(lock: &L, list: fn(&mut S) -> &mut List, given: usize) {
    while let Some(wake) = lock.with(|state| list(state).pop(given)) {
        wake.wake();
    }
}
