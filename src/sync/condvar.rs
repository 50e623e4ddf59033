//! Waiting for a change of what a mutex holds.

use super::{
    mutex::MutexGuard,
    waitlist::{self, How, Init, List, Lock, Mode, Tickets},
};
use crate::{Error, coro::wait};
use std::{fmt, io};

/// Waits for a change of what a [`Mutex`](super::Mutex) holds.
///
/// Waiting releases the mutex, and has it again afterwards. A notification that comes after the mutex was released is
/// not missed; nobody is woken without one. One that nobody waits for is not remembered.
///
/// ```
/// use aio::{coro, sync::{Condvar, Mutex}};
///
/// coro::run(|| {
///     let (jobs, changed) = (Mutex::new(Vec::new()), Condvar::new());
///     coro::scope(|s| {
///         let worker = s.spawn(|| {
///             let mut jobs = changed.wait_while(jobs.lock()?, |jobs| jobs.is_empty())?;
///             Ok::<_, aio::Error>(jobs.pop())
///         });
///         jobs.lock()?.push("sweep");
///         changed.notify_one();
///         assert_eq!(worker.join().unwrap()?, Some("sweep"));
///         Ok::<(), aio::Error>(())
///     })
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Condvar<M: Mode> {
    state: M::Lock<State>,
}

struct State {
    tickets: Tickets,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { tickets: Tickets::INIT, waiting: List::INIT };
}

impl<M: Mode> Condvar<M> {
    /// A condition variable that nobody waits for.
    pub const fn new() -> Condvar<M> {
        Condvar { state: <M::Lock<State> as Lock<State>>::NEW }
    }

    /// Releases the mutex, waits for a notification, and has the mutex again.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting). The error comes with the guard: the mutex is had again first, and neither a
    /// cancellation nor a deadline ends that wait. With `?` the guard is dropped, which releases the mutex. A task that
    /// was notified when it gave up gets `Ok`, so that no notification is lost.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T, M>) -> WaitResult<'a, T, M> {
        const HOW: How = How::of("a notification");
        if let Err(error) = wait::allowed(waitlist::ender::<M>()) {
            return Err(WaitError { error, guard: Some(guard) });
        }
        let mutex = MutexGuard::mutex(&guard);
        let mut held = Some(guard);
        let now = |state: &mut State| state.tickets.draw();
        let release = |_: &dyn Fn() -> bool| drop(held.take());
        let result =
            waitlist::wait_as::<M, State>(HOW, &self.state, |state| &mut state.waiting, now, release, |_, _| None);
        let again = match held {
            Some(guard) => Ok(guard),
            None => mutex.lock_again(),
        };
        match (result, again) {
            (Ok(_), Ok(guard)) => Ok(guard),
            (Err(error), Ok(guard)) => Err(WaitError { error, guard: Some(guard) }),
            (notified, Err(error)) => {
                if notified.is_ok() {
                    self.notify_one();
                }
                Err(WaitError { error, guard: None })
            }
        }
    }

    /// Waits for notifications as long as `condition` holds, which is looked at first and after each.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T, M>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> WaitResult<'a, T, M> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Wakes the one that waits for longest, if any.
    pub fn notify_one(&self) {
        if let Some(wake) = self.state.with(|state| state.waiting.pop(0)) {
            wake.wake();
        }
    }

    /// Wakes all that wait now.
    pub fn notify_all(&self) {
        let end = self.state.with(|state| state.tickets.end());
        waitlist::wake_each(&self.state, |state| state.waiting.pop_before(end, 0));
    }
}

impl<M: Mode> Default for Condvar<M> {
    fn default() -> Condvar<M> {
        Condvar::new()
    }
}

impl<M: Mode> fmt::Debug for Condvar<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

/// What a wait for a [`Condvar`] gives.
pub type WaitResult<'a, T, M> = Result<MutexGuard<'a, T, M>, WaitError<'a, T, M>>;

/// A wait for a [`Condvar`] was given up.
pub struct WaitError<'a, T: ?Sized, M: Mode> {
    /// Why.
    pub error: Error,
    /// The mutex, which is locked again. `None` only if that was not possible: its holder waits as well, and nobody is
    /// left to end that ([`Error::Deadlock`]), or the system has no descriptor for a wait between threads.
    pub guard: Option<MutexGuard<'a, T, M>>,
}

impl<T: ?Sized, M: Mode> From<WaitError<'_, T, M>> for Error {
    /// Releases the mutex.
    fn from(error: WaitError<'_, T, M>) -> Error {
        error.error
    }
}

impl<T: ?Sized, M: Mode> From<WaitError<'_, T, M>> for io::Error {
    /// Releases the mutex.
    fn from(error: WaitError<'_, T, M>) -> io::Error {
        error.error.into()
    }
}

impl<T: ?Sized, M: Mode> fmt::Display for WaitError<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for a notification was given up: {}", self.error)
    }
}

impl<T: ?Sized, M: Mode> fmt::Debug for WaitError<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitError").field("error", &self.error).field("locked", &self.guard.is_some()).finish()
    }
}

impl<T: ?Sized, M: Mode> std::error::Error for WaitError<'_, T, M> {}
