//! Those who wait for a primitive, in the order in which they came.
//!
//! A waiter is a [`Node`] on the frame that waits, so waiting takes no memory. Nodes are reached under the primitive's
//! lock only, but for the flag that says "woken": its store is the last access to a node that is not the waiter's own,
//! for the frame may be gone right after.

use crate::{
    Error,
    coro::wait::{self, Ender, Reason, Wake},
    sys::concurrent::{self, AtomicUsize, Mutex},
};
use std::{
    cell::{Cell, UnsafeCell},
    ops::Deref,
    ptr,
    rc::Rc,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

#[cfg(all(loom, test))]
mod loom;

/// Who shares a primitive: [`Local`] or [`Shared`].
///
/// Sealed.
pub trait Mode: crate::sealed::Sealed + 'static {
    #[doc(hidden)]
    type Lock<S: Init>: Lock<S>;
    #[doc(hidden)]
    type Flag: Flag;
    #[doc(hidden)]
    type Counted<T>: Counted<T>;
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
    type Flag = Cell<bool>;
    type Counted<T> = Rc<T>;
    const LOCAL: bool = true;
}

impl Mode for Shared {
    type Lock<S: Init> = SharedLock<S>;
    type Flag = AtomicBool;
    type Counted<T> = Arc<T>;
    const LOCAL: bool = false;
}

/// A value that a constant can start with.
#[doc(hidden)]
pub trait Init {
    const INIT: Self;
}

/// Is raised once, and may be looked at without the lock.
#[doc(hidden)]
pub trait Flag {
    const DOWN: Self;
    /// What was done before it was raised is seen by whoever sees it raised.
    fn raise(&self);
    fn is_up(&self) -> bool;
}

impl Flag for Cell<bool> {
    const DOWN: Cell<bool> = Cell::new(false);

    fn raise(&self) {
        self.set(true);
    }

    #[inline]
    fn is_up(&self) -> bool {
        self.get()
    }
}

impl Flag for AtomicBool {
    const DOWN: AtomicBool = AtomicBool::new(false);

    fn raise(&self) {
        self.store(true, Ordering::Release);
    }

    #[inline]
    fn is_up(&self) -> bool {
        self.load(Ordering::Acquire)
    }
}

/// `Rc` or `Arc`.
#[doc(hidden)]
pub trait Counted<T>: Clone + Deref<Target = T> {
    fn new(value: T) -> Self;
    fn into_inner(self) -> Option<T>;
    fn unwrap_or_clone(self) -> T
    where
        T: Clone;
}

impl<T> Counted<T> for Rc<T> {
    fn new(value: T) -> Rc<T> {
        Rc::new(value)
    }

    fn into_inner(self) -> Option<T> {
        Rc::into_inner(self)
    }

    fn unwrap_or_clone(self) -> T
    where
        T: Clone,
    {
        Rc::unwrap_or_clone(self)
    }
}

impl<T> Counted<T> for Arc<T> {
    fn new(value: T) -> Arc<T> {
        Arc::new(value)
    }

    fn into_inner(self) -> Option<T> {
        Arc::into_inner(self)
    }

    fn unwrap_or_clone(self) -> T
    where
        T: Clone,
    {
        Arc::unwrap_or_clone(self)
    }
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
    prev: concurrent::Cell<*const Node>,
    next: concurrent::Cell<*const Node>,
    wake: concurrent::Cell<Option<Wake>>,
    /// 0 while it waits; afterwards what it was given, plus one.
    given: AtomicUsize,
    queued: concurrent::Cell<bool>,
    /// What it wants, in the primitive's own terms.
    wants: concurrent::Cell<usize>,
    /// A place on the frame that waits, in the primitive's own terms. Touched under the lock while the node is queued,
    /// and by that frame alone before and after.
    slot: *const (),
}

impl Node {
    fn new(slot: *const ()) -> Node {
        Node {
            prev: concurrent::Cell::new(ptr::null()),
            next: concurrent::Cell::new(ptr::null()),
            wake: concurrent::Cell::new(None),
            given: AtomicUsize::new(0),
            queued: concurrent::Cell::new(false),
            wants: concurrent::Cell::new(0),
            slot,
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

// SAFETY: the nodes are used under the lock that the list is in; their wakers may be used on any thread if the lock is
// a shared one, for then they are made for that, and what is in their slots may be sent if the primitive may be shared.
unsafe impl Send for List {}

impl Init for List {
    const INIT: List = List { first: ptr::null(), last: ptr::null() };
}

impl List {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// What the first in the queue wants.
    pub(crate) fn first_wants(&self) -> Option<usize> {
        // SAFETY: a queued node is alive: its frame takes it off before it goes.
        unsafe { self.first.as_ref() }.map(|node| node.wants.get())
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
        self.pop_with(given, |_| ())
    }

    /// As [`pop`](Self::pop); before it is given anything, `f` may use its slot.
    #[must_use]
    pub(crate) fn pop_with(&mut self, given: usize, f: impl FnOnce(*const ())) -> Option<Wake> {
        // SAFETY: as in `first_wants`.
        let node = unsafe { self.first.as_ref() }?;
        self.remove(node);
        f(node.slot);
        let wake = node.wake.take();
        // The last access: the frame of the node may go as soon as it sees this.
        node.given.store(given + 1, Ordering::Release);
        wake
    }

    /// As [`pop`](Self::pop), if what the first wants is a [`Tickets`] number from before `end`.
    #[must_use]
    pub(crate) fn pop_before(&mut self, end: usize, given: usize) -> Option<Wake> {
        // Tickets may have wrapped; there are never so many waiters that this could be mistaken.
        let came_before = self.first_wants()?.wrapping_sub(end).cast_signed() < 0;
        if came_before { self.pop(given) } else { None }
    }
}

/// Numbers for waiters, so that those who were there at a moment can be told from those who came later.
pub(crate) struct Tickets(usize);

impl Init for Tickets {
    const INIT: Tickets = Tickets(0);
}

impl Tickets {
    /// For the next one to wait.
    pub(crate) fn draw(&mut self) -> Turn {
        let ticket = self.0;
        self.0 = ticket.wrapping_add(1);
        Turn::Queue(ticket)
    }

    /// Those drawn so far are from before this.
    pub(crate) fn end(&self) -> usize {
        self.0
    }
}

/// What one who comes is told, under the lock.
pub(crate) enum Turn {
    /// It takes this, and does not wait.
    Take(usize),
    /// It waits for this.
    Queue(usize),
}

/// How one waits.
pub(crate) struct How {
    reason: Reason,
    must: bool,
    brief: bool,
    slot: *const (),
}

impl How {
    /// For a reason, which reports name.
    pub(crate) const fn of(what: &'static str) -> How {
        How { reason: Reason::of(what), must: false, brief: false, slot: ptr::null() }
    }

    /// Neither a cancellation nor a deadline ends the wait.
    pub(crate) const fn must(mut self) -> How {
        self.must = true;
        self
    }

    /// The wait is given up, as if it had been cancelled, when `queued` returns: that waits for several things.
    pub(crate) const fn brief(mut self) -> How {
        self.brief = true;
        self
    }

    /// With a place that [`List::pop_with`] gives to whoever wakes.
    pub(crate) const fn slot(mut self, slot: *const ()) -> How {
        self.slot = slot;
        self
    }
}

/// Who can end a wait.
pub(crate) const fn ender<M: Mode>() -> Ender {
    if M::LOCAL { Ender::Tasks } else { Ender::Threads }
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
    left: impl Fn(&mut S),
) -> Result<usize, Error> {
    let how = How { reason, must: false, brief: false, slot: ptr::null() };
    let now = |state: &mut S| now(state).map_or(Turn::Queue(wants), Turn::Take);
    let left = |state: &mut S, _| {
        left(state);
        None
    };
    wait_as::<M, S>(how, lock, list, now, |_| (), left)
}

/// As [`wait`]. `queued` is called when it is in the queue, without the lock, with a question whether it was given
/// something since.
///
/// `left` is told what it wanted, and may find that this was as good as given; then that is the result. What the one
/// who leaves has blocked is for the caller to see to, when the lock is released.
pub(crate) fn wait_as<M: Mode, S: Init>(
    how: How,
    lock: &M::Lock<S>,
    list: fn(&mut S) -> &mut List,
    now: impl FnOnce(&mut S) -> Turn,
    queued: impl FnOnce(&dyn Fn() -> bool),
    left: impl Fn(&mut S, usize) -> Option<usize>,
) -> Result<usize, Error> {
    /// Takes the node off the queue if the wait unwinds.
    struct Leave<'a, M: Mode, S: Init>(&'a M::Lock<S>, fn(&mut S) -> &mut List, &'a Node);
    impl<M: Mode, S: Init> Drop for Leave<'_, M, S> {
        fn drop(&mut self) {
            self.0.with(|state| (self.1)(state).remove(self.2));
        }
    }
    let node = Node::new(how.slot);
    let early = lock.with(|state| {
        match now(state) {
            Turn::Take(given) => return Some(Ok(given)),
            Turn::Queue(wants) => node.wants.set(wants),
        }
        match Wake::current(ender::<M>()) {
            Ok(wake) => node.wake.set(Some(wake)),
            Err(error) => return Some(left(state, node.wants.get()).ok_or(error)),
        }
        // SAFETY: the node stays in this frame, which `leave` and the end of this function do not leave before it is
        // off the list.
        unsafe { list(state).push(&node) };
        None
    });
    if let Some(result) = early {
        if result.is_ok() {
            // There may always be something to take: what the task itself has given, or other threads.
            wait::pay_for_luck();
        }
        return result;
    }
    let leave = Leave::<M, S>(lock, list, &node);
    let is_given = || node.given().is_some();
    queued(&is_given);
    let result = match how.brief {
        false => wait::until(how.reason, ender::<M>(), how.must, is_given),
        true if is_given() => Ok(()),
        true => Err(Error::Canceled),
    };
    std::mem::forget(leave);
    let given = || node.given().unwrap_or_else(|| unreachable!("it was taken off by who gave it something"));
    match result {
        Ok(()) => Ok(given()),
        Err(error) => {
            let late = lock.with(|state| {
                let was_queued = list(state).remove(&node);
                was_queued.then(|| left(state, node.wants.get()))
            });
            match late {
                Some(Some(given)) => Ok(given),
                Some(None) => Err(error),
                // What it was given in the last moment is not lost.
                None => Ok(given()),
            }
        }
    }
}

/// Wakes one after the other, as long as `next` finds somebody to give something to.
pub(crate) fn wake_each<S: Init, L: Lock<S>>(lock: &L, mut next: impl FnMut(&mut S) -> Option<Wake>) {
    while let Some(wake) = lock.with(&mut next) {
        wake.wake();
    }
}

/// Wakes all that are queued, and those who come meanwhile.
pub(crate) fn wake_all<S: Init, L: Lock<S>>(lock: &L, list: fn(&mut S) -> &mut List, given: usize) {
    wake_each(lock, |state| list(state).pop(given));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_later_are_left_also_when_the_numbers_start_again() {
        let (mut list, mut tickets) = (List::INIT, Tickets(usize::MAX - 1));
        let nodes = [(); 5].map(|()| Node::new(ptr::null()));
        let mut end = 0;
        for (at, node) in nodes.iter().enumerate() {
            if at == 3 {
                end = tickets.end();
            }
            let Turn::Queue(ticket) = tickets.draw() else { unreachable!("it is a number") };
            node.wants.set(ticket);
            // SAFETY: the nodes stay where they are as long as the list.
            unsafe { list.push(node) };
        }
        assert_eq!(list.first_wants(), Some(usize::MAX - 1));
        for _ in 0..5 {
            // There is nobody to wake.
            assert!(list.pop_before(end, 7).is_none());
        }
        assert_eq!(nodes.each_ref().map(Node::given), [Some(7), Some(7), Some(7), None, None]);
        assert_eq!(list.first_wants(), Some(end));
    }
}
