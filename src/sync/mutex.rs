//! A value for one at a time.

use super::waitlist::{self, How, Init, List, Lock, Mode, Shared, Turn};
use crate::Error;
use std::{
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// A value that one task at a time has access to, also across waits.
///
/// It is fair: whoever came first gets it first, and a lock that is released with waiters is handed to the first of
/// them. There is no poisoning: if its holder panics it is released, with the value as it is by then. A task that locks
/// it twice waits for itself.
///
/// What tasks of a runtime share needs no lock as long as nothing waits in the middle: a `Cell` or a `RefCell` does.
///
/// ```
/// use aio::{coro, sync::Mutex};
///
/// coro::run(|| {
///     let total = Mutex::new(0);
///     coro::scope(|s| {
///         for _ in 0..4 {
///             s.spawn(|| {
///                 let mut total = total.lock()?;
///                 let before = *total;
///                 coro::yield_now()?;                 // the others run, and wait for the lock
///                 *total = before + 1;
///                 Ok::<(), aio::Error>(())
///             });
///         }
///     });
///     assert_eq!(total.into_inner(), 4);
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub struct Mutex<T: ?Sized, M: Mode> {
    state: M::Lock<State>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is given to one thread at a time, as by sending it; the rest is `Sync` by itself.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T, Shared> {}

struct State {
    locked: bool,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { locked: false, waiting: List::INIT };
}

impl<T, M: Mode> Mutex<T, M> {
    /// A mutex that is not locked.
    pub const fn new(value: T) -> Mutex<T, M> {
        Mutex { state: <M::Lock<State> as Lock<State>>::NEW, value: UnsafeCell::new(value) }
    }

    /// The value. Nobody else has access to it.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized, M: Mode> Mutex<T, M> {
    /// Waits until nobody else has the lock, and takes it. It is released when the guard is dropped.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting). The task that gives up has left the queue, and those behind it move up.
    pub fn lock(&self) -> Result<MutexGuard<'_, T, M>, Error> {
        const HOW: How = How::of("a mutex");
        self.lock_as(HOW)
    }

    /// As [`lock`](Self::lock), but neither a cancellation nor a deadline ends the wait.
    pub(super) fn lock_again(&self) -> Result<MutexGuard<'_, T, M>, Error> {
        const HOW: How = How::of("a mutex, to have it again").must();
        self.lock_as(HOW)
    }

    fn lock_as(&self, how: How) -> Result<MutexGuard<'_, T, M>, Error> {
        let now = |state: &mut State| if take(state) { Turn::Take(0) } else { Turn::Queue(0) };
        waitlist::wait_as::<M, State>(how, &self.state, |state| &mut state.waiting, now, |_| (), |_, _| None)?;
        Ok(self.guard())
    }

    /// Takes the lock if nobody has it, and nobody waits for it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T, M>> {
        self.state.with(take).then(|| self.guard())
    }

    fn guard(&self) -> MutexGuard<'_, T, M> {
        MutexGuard { mutex: self, value: PhantomData }
    }

    fn unlock(&self) {
        let next = self.state.with(|state| {
            let next = state.waiting.pop(0);
            state.locked = next.is_some();
            next
        });
        if let Some(wake) = next {
            wake.wake();
        }
    }

    /// Whether somebody has the lock.
    pub fn is_locked(&self) -> bool {
        self.state.with(|state| state.locked)
    }

    /// The value. Nobody else has access to it meanwhile, for `self` is borrowed.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// While somebody waits it is locked: it is handed from one to the next.
fn take(state: &mut State) -> bool {
    !std::mem::replace(&mut state.locked, true)
}

impl<T: Default, M: Mode> Default for Mutex<T, M> {
    fn default() -> Mutex<T, M> {
        Mutex::new(T::default())
    }
}

impl<T, M: Mode> From<T> for Mutex<T, M> {
    fn from(value: T) -> Mutex<T, M> {
        Mutex::new(value)
    }
}

impl<T: ?Sized + fmt::Debug, M: Mode> fmt::Debug for Mutex<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => f.debug_tuple("Mutex").field(&&*guard).finish(),
            None => f.debug_tuple("Mutex").field(&format_args!("<locked>")).finish(),
        }
    }
}

/// Access to the value of a [`Mutex`], until it is dropped. If it is forgotten, the mutex stays locked.
#[must_use = "the lock is released when the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized, M: Mode> {
    mutex: &'a Mutex<T, M>,
    /// It is `Send` and `Sync` as this is.
    value: PhantomData<&'a mut T>,
}

impl<'a, T: ?Sized, M: Mode> MutexGuard<'a, T, M> {
    /// The mutex that it belongs to.
    pub fn mutex(guard: &Self) -> &'a Mutex<T, M> {
        guard.mutex
    }
}

impl<T: ?Sized, M: Mode> Deref for MutexGuard<'_, T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: there is one guard at a time, by the state of the mutex, and it is borrowed.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized, M: Mode> DerefMut for MutexGuard<'_, T, M> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and it is borrowed for this alone.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized, M: Mode> Drop for MutexGuard<'_, T, M> {
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

impl<T: ?Sized + fmt::Debug, M: Mode> fmt::Debug for MutexGuard<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display, M: Mode> fmt::Display for MutexGuard<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
