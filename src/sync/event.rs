//! Something that happens.

use super::waitlist::{self, How, Init, List, Lock, Mode, Tickets, Turn};
use crate::Error;
use std::fmt;

/// Something that happens, and that others wait for.
///
/// A [manual](Event::new) event stays set until it is [reset](Event::reset), and lets everybody through. An
/// [auto-reset](Event::auto_reset) one lets one waiter through each time that it is set.
///
/// ```
/// use aio::{coro, sync::Event};
///
/// coro::run(|| {
///     let ready = Event::new();
///     coro::scope(|s| {
///         let waiter = s.spawn(|| ready.wait());
///         ready.set();
///         assert_eq!(waiter.join().unwrap(), Ok(()));
///     });
///     assert!(ready.is_set());
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub struct Event<M: Mode> {
    auto: bool,
    state: M::Lock<State>,
}

pub(super) const HOW: How = How::of("an event");

struct State {
    set: bool,
    tickets: Tickets,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { set: false, tickets: Tickets::INIT, waiting: List::INIT };
}

impl<M: Mode> Event<M> {
    /// An event that has not happened. It stays set once it is.
    pub const fn new() -> Event<M> {
        Event { auto: false, state: <M::Lock<State> as Lock<State>>::NEW }
    }

    /// An event that has not happened. Whoever it lets through resets it.
    ///
    /// ```
    /// use aio::{Error, coro, sync::Event};
    ///
    /// coro::run(|| {
    ///     let bell = Event::auto_reset();
    ///     bell.set();
    ///     bell.set();                                     // nobody has heard the first one yet
    ///     assert_eq!(bell.wait(), Ok(()));
    ///     assert_eq!(bell.wait(), Err(Error::Deadlock));  // it was reset, and nobody is there to set it
    /// })?;
    /// # Ok::<(), aio::SetupError>(())
    /// ```
    pub const fn auto_reset() -> Event<M> {
        Event { auto: true, state: <M::Lock<State> as Lock<State>>::NEW }
    }

    /// It has happened. Those who wait go on: all of them, or for an auto-reset event the one who came first. Without
    /// waiters it is remembered, once.
    pub fn set(&self) {
        if self.auto {
            let wake = self.state.with(|state| {
                let wake = state.waiting.pop(0);
                state.set |= wake.is_none();
                wake
            });
            return wake.into_iter().for_each(|wake| wake.wake());
        }
        let end = self.state.with(|state| {
            state.set = true;
            state.tickets.end()
        });
        // Those who come after a `reset` in the meantime are not meant.
        waitlist::wake_each(&self.state, |state| state.waiting.pop_before(end, 0));
    }

    /// It has not happened. Those who come from now on wait.
    pub fn reset(&self) {
        self.state.with(|state| state.set = false);
    }

    /// Whether it has happened, and was not reset since.
    pub fn is_set(&self) -> bool {
        self.state.with(|state| state.set)
    }

    /// Whether [`wait`](Self::wait) would go on at once. If so, an auto-reset event is reset, as by `wait`.
    pub fn try_wait(&self) -> bool {
        self.state.with(|state| self.pass(state))
    }

    fn pass(&self, state: &mut State) -> bool {
        let set = state.set;
        state.set &= !self.auto;
        set
    }

    /// Waits until it has happened; goes on at once if it has.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting). An auto-reset event that is set for a task which gives up at that moment counts
    /// for it: the task gets `Ok`.
    pub fn wait(&self) -> Result<(), Error> {
        self.wait_as(HOW, |_| ())
    }

    pub(super) fn wait_as(&self, how: How, queued: impl FnOnce(&dyn Fn() -> bool)) -> Result<(), Error> {
        let now = |state: &mut State| if self.pass(state) { Turn::Take(0) } else { state.tickets.draw() };
        waitlist::wait_as::<M, State>(how, &self.state, |state| &mut state.waiting, now, queued, |_, _| None).map(drop)
    }
}

impl<M: Mode> Default for Event<M> {
    fn default() -> Event<M> {
        Event::new()
    }
}

impl<M: Mode> fmt::Debug for Event<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("auto_reset", &self.auto).field("set", &self.is_set()).finish()
    }
}
