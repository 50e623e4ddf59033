//! What is done once.

use super::waitlist::{self, Flag, How, Init, List, Lock, Mode, Shared, Turn};
use crate::Error;
use std::{cell::UnsafeCell, fmt, mem};

/// A value that is made once, by whoever needs it first; the others wait for it meanwhile.
///
/// Making it may take waits. If that fails, panics, or is cancelled, the next one that waits tries with its own means.
/// An initialiser that needs the very value that it makes waits for itself.
///
/// ```
/// use aio::{coro, sync::OnceCell};
/// use std::time::Duration;
///
/// coro::run(|| {
///     let config = OnceCell::new();
///     let load = || {
///         coro::sleep(Duration::from_millis(1))?;
///         Ok::<_, aio::Error>(String::from("loaded once"))
///     };
///     coro::scope(|s| {
///         let tasks: Vec<_> = (0..3).map(|_| s.spawn(|| config.get_or_try_init(load))).collect();
///         for task in tasks {
///             assert_eq!(task.join().unwrap()?, "loaded once");
///         }
///         Ok::<(), aio::Error>(())
///     })
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct OnceCell<T, M: Mode> {
    /// Raised when the value is there, for good.
    ready: M::Flag,
    state: M::Lock<State>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is made by one thread and may be taken out by another, as by sending it, and is lent to many, as by
// `Sync`; the rest is `Sync` by itself.
unsafe impl<T: Send + Sync> Sync for OnceCell<T, Shared> {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Empty,
    /// Somebody makes the value.
    Busy,
    Ready,
}

struct State {
    stage: Stage,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { stage: Stage::Empty, waiting: List::INIT };
}

/// What those who wait are given.
const READY: usize = 0;
const TRY: usize = 1;

/// Lets the next one try, unless the value is there.
struct PassOn<'a, T, M: Mode>(&'a OnceCell<T, M>);

impl<T, M: Mode> Drop for PassOn<'_, T, M> {
    fn drop(&mut self) {
        let next = self.0.state.with(|state| {
            let next = state.waiting.pop(TRY);
            state.stage = if next.is_some() { Stage::Busy } else { Stage::Empty };
            next
        });
        if let Some(wake) = next {
            wake.wake();
        }
    }
}

impl<T, M: Mode> OnceCell<T, M> {
    /// A cell without a value.
    pub const fn new() -> OnceCell<T, M> {
        OnceCell { ready: M::Flag::DOWN, state: <M::Lock<State> as Lock<State>>::NEW, value: UnsafeCell::new(None) }
    }

    /// The value, if it was made.
    pub fn get(&self) -> Option<&T> {
        if !self.ready.is_up() {
            return None;
        }
        // SAFETY: the flag is raised after the last access by the one who made the value; from then on it is only lent,
        // until somebody has the cell for itself.
        unsafe { (*self.value.get()).as_ref() }
    }

    /// The value; made by `f` if there is none and nobody is about to make it.
    ///
    /// # Errors
    ///
    /// Those of `f`, and as [any wait](super#waiting) while another one makes the value.
    ///
    /// # Panics
    ///
    /// With a panic of `f`; the cell is as before.
    pub fn get_or_try_init<E: From<Error>>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if self.get().is_none() && self.wait()? == TRY {
            let pass_on = PassOn(self);
            let value = f()?;
            mem::forget(pass_on);
            self.fill(value);
        }
        match self.get() {
            Some(value) => Ok(value),
            None => unreachable!("it was just made"),
        }
    }

    /// As [`get_or_try_init`](Self::get_or_try_init), for what cannot fail.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting), while another one makes the value.
    ///
    /// # Panics
    ///
    /// With a panic of `f`; the cell is as before.
    pub fn get_or_init(&self, f: impl FnOnce() -> T) -> Result<&T, Error> {
        self.get_or_try_init(|| Ok(f()))
    }

    /// Sets the value.
    ///
    /// # Errors
    ///
    /// Gives it back if there is one, or somebody is about to make it.
    pub fn set(&self, value: T) -> Result<(), T> {
        let stage = self.state.with(|state| match state.stage {
            Stage::Empty => mem::replace(&mut state.stage, Stage::Busy),
            other => other,
        });
        if stage != Stage::Empty {
            return Err(value);
        }
        self.fill(value);
        Ok(())
    }

    /// Takes the value out. The cell can be used again.
    pub fn take(&mut self) -> Option<T> {
        mem::take(self).into_inner()
    }

    /// The value, if it was made.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// The value, if it was made.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut().as_mut()
    }

    /// Waits until the value is there, or it is the caller's part to make it.
    fn wait(&self) -> Result<usize, Error> {
        const HOW: How = How::of("a value that another one makes");
        let now = |state: &mut State| match state.stage {
            Stage::Ready => Turn::Take(READY),
            Stage::Busy => Turn::Queue(0),
            Stage::Empty => {
                state.stage = Stage::Busy;
                Turn::Take(TRY)
            }
        };
        let left = |state: &mut State, _| (state.stage == Stage::Ready).then_some(READY);
        waitlist::wait_as::<M, State>(HOW, &self.state, |state| &mut state.waiting, now, |_| (), left)
    }

    /// Sets the value, when the stage has become `Busy` for the caller.
    fn fill(&self, value: T) {
        // SAFETY: the stage is `Busy` for this caller alone, and nobody looks at the value before the flag is up.
        unsafe { *self.value.get() = Some(value) };
        self.ready.raise();
        self.state.with(|state| state.stage = Stage::Ready);
        waitlist::wake_all(&self.state, |state| &mut state.waiting, READY);
    }
}

impl<T, M: Mode> Default for OnceCell<T, M> {
    fn default() -> OnceCell<T, M> {
        OnceCell::new()
    }
}

impl<T: fmt::Debug, M: Mode> fmt::Debug for OnceCell<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(value) => f.debug_tuple("OnceCell").field(value).finish(),
            None => f.debug_tuple("OnceCell").field(&format_args!("<empty>")).finish(),
        }
    }
}

/// Something that is done once, by whoever comes first; the others wait for it meanwhile.
///
/// ```
/// use aio::{coro, sync::Once};
///
/// coro::run(|| {
///     let (once, mut done) = (Once::new(), 0);
///     for _ in 0..3 {
///         once.call_once(|| done += 1)?;
///     }
///     assert_eq!(done, 1);
///     Ok::<(), aio::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Once<M: Mode>(OnceCell<(), M>);

impl<M: Mode> Once<M> {
    /// Nothing was done.
    pub const fn new() -> Once<M> {
        Once(OnceCell::new())
    }

    /// Calls `f` if that was not done; waits while another one does it.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting), while another one does it.
    ///
    /// # Panics
    ///
    /// With a panic of `f`, which then does not count as done.
    pub fn call_once(&self, f: impl FnOnce()) -> Result<(), Error> {
        self.0.get_or_init(f).copied()
    }

    /// As [`call_once`](Self::call_once); if `f` fails it does not count as done.
    ///
    /// # Errors
    ///
    /// Those of `f`, and as there.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn try_call_once<E: From<Error>>(&self, f: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.0.get_or_try_init(f).copied()
    }

    /// Whether it was done.
    pub fn is_completed(&self) -> bool {
        self.0.get().is_some()
    }
}

impl<M: Mode> Default for Once<M> {
    fn default() -> Once<M> {
        Once::new()
    }
}

impl<M: Mode> fmt::Debug for Once<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Once").field(&self.is_completed()).finish()
    }
}
