//! A value for many readers or one writer.

use super::waitlist::{self, How, Init, List, Lock, Mode, Shared, Turn};
use crate::{Error, coro::wait::Wake};
use std::{
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// A value that many tasks at a time may read, or one may write.
///
/// It is fair: all wait in one queue, so a writer that waits keeps out the readers that come after it. A task that
/// reads must therefore not ask to read a second time: a writer may have come in between, and both would wait for ever.
/// If the writer gives up, the readers behind it go on. There is no poisoning.
///
/// ```
/// use aio::{coro, sync::RwLock};
///
/// coro::run(|| {
///     let config = RwLock::new("old");
///     coro::scope(|s| {
///         let (one, two) = (config.read().unwrap(), config.try_read().unwrap());
///         let writer = s.spawn(|| config.write().map(|mut config| *config = "new"));
///         assert!(config.try_read().is_none());           // the writer is first
///         assert_eq!((*one, *two), ("old", "old"));
///         drop((one, two));
///         writer.join().unwrap()
///     })?;
///     assert_eq!(*config.read()?, "new");
///     Ok::<(), aio::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct RwLock<T: ?Sized, M: Mode> {
    state: M::Lock<State>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is either lent to many threads, as by `Sync`, or given to one, as by sending it; the rest is `Sync`
// by itself.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T, Shared> {}

const READ: usize = 0;
const WRITE: usize = 1;

struct State {
    readers: usize,
    writer: bool,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { readers: 0, writer: false, waiting: List::INIT };
}

impl State {
    /// Lets one in, if there is room.
    fn admit(&mut self, wants: usize) -> bool {
        let room = !self.writer && (wants == READ || self.readers == 0);
        if room && wants == READ {
            self.readers += 1;
        } else if room {
            self.writer = true;
        }
        room
    }

    /// Lets in one who has just come: behind those who wait.
    fn enter(&mut self, wants: usize) -> bool {
        self.waiting.is_empty() && self.admit(wants)
    }

    /// Lets in the first who waits.
    fn next(&mut self) -> Option<Wake> {
        let wants = self.waiting.first_wants()?;
        if self.admit(wants) { self.waiting.pop(0) } else { None }
    }
}

impl<T, M: Mode> RwLock<T, M> {
    /// A lock that nobody has.
    pub const fn new(value: T) -> RwLock<T, M> {
        RwLock { state: <M::Lock<State> as Lock<State>>::NEW, value: UnsafeCell::new(value) }
    }

    /// The value. Nobody else has access to it.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized, M: Mode> RwLock<T, M> {
    /// Waits until nobody writes and no writer waits, and lends the value.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting). The task that gives up has left the queue.
    pub fn read(&self) -> Result<ReadGuard<'_, T, M>, Error> {
        self.lock(How::of("a lock to read"), READ)?;
        Ok(ReadGuard { lock: self, value: PhantomData })
    }

    /// Waits until nobody else has access, and gives the value.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting). The task that gives up has left the queue, and readers behind it go on.
    pub fn write(&self) -> Result<WriteGuard<'_, T, M>, Error> {
        self.lock(How::of("a lock to write"), WRITE)?;
        Ok(WriteGuard { lock: self, value: PhantomData })
    }

    fn lock(&self, how: How, wants: usize) -> Result<(), Error> {
        let now = |state: &mut State| if state.enter(wants) { Turn::Take(0) } else { Turn::Queue(wants) };
        let result =
            waitlist::wait_as::<M, State>(how, &self.state, |state| &mut state.waiting, now, |_| (), |_, _| None);
        if result.is_err() {
            self.admit_waiting();
        }
        result.map(drop)
    }

    /// Lends the value if nobody writes and no writer waits.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T, M>> {
        self.state.with(|state| state.enter(READ)).then(|| ReadGuard { lock: self, value: PhantomData })
    }

    /// Gives the value if nobody else has access, and nobody waits for it.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T, M>> {
        self.state.with(|state| state.enter(WRITE)).then(|| WriteGuard { lock: self, value: PhantomData })
    }

    /// The value. Nobody else has access to it meanwhile, for `self` is borrowed.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn admit_waiting(&self) {
        waitlist::wake_each(&self.state, State::next);
    }
}

impl<T: Default, M: Mode> Default for RwLock<T, M> {
    fn default() -> RwLock<T, M> {
        RwLock::new(T::default())
    }
}

impl<T, M: Mode> From<T> for RwLock<T, M> {
    fn from(value: T) -> RwLock<T, M> {
        RwLock::new(value)
    }
}

impl<T: ?Sized + fmt::Debug, M: Mode> fmt::Debug for RwLock<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(guard) => f.debug_tuple("RwLock").field(&&*guard).finish(),
            None => f.debug_tuple("RwLock").field(&format_args!("<locked>")).finish(),
        }
    }
}

/// The value of a [`RwLock`], to read, until this is dropped. If it is forgotten, nobody can write any more.
#[must_use = "the lock is released when the guard is dropped"]
pub struct ReadGuard<'a, T: ?Sized, M: Mode> {
    lock: &'a RwLock<T, M>,
    /// It is `Send` and `Sync` as this is.
    value: PhantomData<&'a T>,
}

/// The value of a [`RwLock`], to write, until this is dropped. If it is forgotten, the lock stays locked.
#[must_use = "the lock is released when the guard is dropped"]
pub struct WriteGuard<'a, T: ?Sized, M: Mode> {
    lock: &'a RwLock<T, M>,
    /// It is `Send` and `Sync` as this is.
    value: PhantomData<&'a mut T>,
}

impl<T: ?Sized, M: Mode> Deref for ReadGuard<'_, T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: while there is a reader there is no writer, by the state of the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, M: Mode> Deref for WriteGuard<'_, T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: there is one writer and nobody else, by the state of the lock, and its guard is borrowed.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, M: Mode> DerefMut for WriteGuard<'_, T, M> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed for this alone.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized, M: Mode> Drop for ReadGuard<'_, T, M> {
    fn drop(&mut self) {
        self.lock.state.with(|state| state.readers -= 1);
        self.lock.admit_waiting();
    }
}

impl<T: ?Sized, M: Mode> Drop for WriteGuard<'_, T, M> {
    fn drop(&mut self) {
        self.lock.state.with(|state| state.writer = false);
        self.lock.admit_waiting();
    }
}

impl<T: ?Sized + fmt::Debug, M: Mode> fmt::Debug for ReadGuard<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug, M: Mode> fmt::Debug for WriteGuard<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
