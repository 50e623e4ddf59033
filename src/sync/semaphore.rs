//! So many at a time.

use super::waitlist::{self, How, Init, List, Lock, Mode, Turn};
use crate::{Error, coro::wait::Wake};
use std::fmt;

/// A number of permits, which are taken and given back: for so many at a time.
///
/// It is fair: whoever came first gets permits first, also if it wants many and others few.
///
/// ```
/// use aio::{coro, sync::Semaphore};
/// use std::{cell::Cell, time::Duration};
///
/// coro::run(|| {
///     let limit = Semaphore::new(2);
///     let (running, most) = (Cell::new(0), Cell::new(0));
///     coro::scope(|s| {
///         for _ in 0..6 {
///             s.spawn(|| {
///                 let _permit = limit.acquire(1)?;
///                 running.set(running.get() + 1);
///                 most.set(running.get().max(most.get()));
///                 coro::sleep(Duration::from_millis(1))?;
///                 running.set(running.get() - 1);
///                 Ok::<(), aio::Error>(())
///             });
///         }
///     });
///     assert_eq!((most.get(), limit.available()), (2, 2));
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub struct Semaphore<M: Mode> {
    /// What it starts with. It is a constant's part, so the state counts from there.
    initial: usize,
    state: M::Lock<State>,
}

struct State {
    /// The permits there are, less those that there were at first. Wraps.
    more: usize,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { more: 0, waiting: List::INIT };
}

impl<M: Mode> Semaphore<M> {
    /// A semaphore with so many permits.
    pub const fn new(permits: usize) -> Semaphore<M> {
        Semaphore { initial: permits, state: <M::Lock<State> as Lock<State>>::NEW }
    }

    /// Waits until there are `n` permits, and takes them. They are given back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting). The task that gives up has left the queue and taken nothing; those behind it, who
    /// may want less, go on.
    pub fn acquire(&self, n: usize) -> Result<Permit<'_, M>, Error> {
        const HOW: How = How::of("permits of a semaphore");
        let now = |state: &mut State| if self.enter(state, n) { Turn::Take(0) } else { Turn::Queue(n) };
        let result =
            waitlist::wait_as::<M, State>(HOW, &self.state, |state| &mut state.waiting, now, |_| (), |_, _| None);
        if result.is_err() {
            self.admit_waiting();
        }
        result.map(|_| Permit { semaphore: self, n })
    }

    /// Takes `n` permits if they are there, and nobody waits for some.
    pub fn try_acquire(&self, n: usize) -> Option<Permit<'_, M>> {
        self.state.with(|state| self.enter(state, n)).then(|| Permit { semaphore: self, n })
    }

    /// Puts in `n` permits, new ones or such that were [forgotten](Permit::forget). There can be `usize::MAX`; more are
    /// lost.
    ///
    /// ```
    /// use aio::{coro, sync::Semaphore};
    ///
    /// coro::run(|| {
    ///     let arrived = Semaphore::new(0);
    ///     coro::scope(|s| {
    ///         let waiter = s.spawn(|| arrived.acquire(3).map(|three| three.forget()));
    ///         arrived.add_permits(1);
    ///         arrived.add_permits(2);
    ///         waiter.join().unwrap()
    ///     })?;
    ///     assert_eq!(arrived.available(), 0);
    ///     Ok::<(), aio::Error>(())
    /// })??;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn add_permits(&self, n: usize) {
        self.state.with(|state| {
            let permits = self.permits(state).saturating_add(n);
            state.more = permits.wrapping_sub(self.initial);
        });
        self.admit_waiting();
    }

    /// How many permits there are.
    pub fn available(&self) -> usize {
        self.state.with(|state| self.permits(state))
    }

    fn permits(&self, state: &State) -> usize {
        self.initial.wrapping_add(state.more)
    }

    /// Takes permits for somebody, if there are so many.
    fn admit(&self, state: &mut State, n: usize) -> bool {
        let enough = self.permits(state) >= n;
        if enough {
            state.more = state.more.wrapping_sub(n);
        }
        enough
    }

    /// The same for one who has just come: behind those who wait.
    fn enter(&self, state: &mut State, n: usize) -> bool {
        state.waiting.is_empty() && self.admit(state, n)
    }

    fn next(&self, state: &mut State) -> Option<Wake> {
        let n = state.waiting.first_wants()?;
        if self.admit(state, n) { state.waiting.pop(0) } else { None }
    }

    fn admit_waiting(&self) {
        waitlist::wake_each(&self.state, |state| self.next(state));
    }
}

impl<M: Mode> fmt::Debug for Semaphore<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.available()).finish()
    }
}

/// Permits of a [`Semaphore`], until this is dropped.
#[must_use = "the permits are given back when this is dropped; `forget` keeps them"]
pub struct Permit<'a, M: Mode> {
    semaphore: &'a Semaphore<M>,
    n: usize,
}

impl<M: Mode> Permit<'_, M> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.n
    }

    /// They are not given back: the semaphore has so many less from now on.
    pub fn forget(mut self) {
        self.n = 0;
    }
}

impl<M: Mode> Drop for Permit<'_, M> {
    fn drop(&mut self) {
        if self.n > 0 {
            self.semaphore.add_permits(self.n);
        }
    }
}

impl<M: Mode> fmt::Debug for Permit<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("count", &self.n).finish_non_exhaustive()
    }
}
