//! Waiting until all are there.

use super::waitlist::{self, How, Init, List, Lock, Mode, Turn};
use crate::Error;
use std::fmt;

/// Where a number of tasks wait for one another. It can be used again at once.
///
/// ```
/// use aio::{coro, sync::Barrier};
///
/// coro::run(|| {
///     let barrier = Barrier::new(3);
///     let leaders: usize = coro::scope(|s| {
///         let tasks: Vec<_> = (0..3).map(|_| s.spawn(|| barrier.wait().unwrap())).collect();
///         tasks.into_iter().map(|task| usize::from(task.join().unwrap())).sum()
///     });
///     assert_eq!(leaders, 1);
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub struct Barrier<M: Mode> {
    size: usize,
    state: M::Lock<State>,
}

struct State {
    /// Those who wait now.
    arrived: usize,
    /// How often all were there. Wraps.
    round: usize,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { arrived: 0, round: 0, waiting: List::INIT };
}

impl<M: Mode> Barrier<M> {
    /// A barrier for `size` tasks, or threads if it is shared. With 0 or 1 nobody waits.
    pub const fn new(size: usize) -> Barrier<M> {
        Barrier { size, state: <M::Lock<State> as Lock<State>>::NEW }
    }

    /// Waits until all are there. Gives `true` to one of them, the last to come.
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting). The task that gives up does not count as there: one more has to come.
    pub fn wait(&self) -> Result<bool, Error> {
        const HOW: How = How::of("the others at a barrier");
        const PASSED: usize = 0;
        const LAST: usize = 1;
        let now = |state: &mut State| {
            if state.arrived + 1 < self.size {
                state.arrived += 1;
                return Turn::Queue(state.round);
            }
            state.arrived = 0;
            state.round = state.round.wrapping_add(1);
            Turn::Take(LAST)
        };
        let left = |state: &mut State, round| {
            if round != state.round {
                // All were there, and the last one is about to wake this one.
                return Some(PASSED);
            }
            state.arrived -= 1;
            None
        };
        let given = waitlist::wait_as::<M, State>(HOW, &self.state, |state| &mut state.waiting, now, |_| (), left)?;
        if given == LAST {
            // Those of the next round may be behind them already.
            waitlist::wake_each(&self.state, |state| {
                let over = state.waiting.first_wants()? != state.round;
                if over { state.waiting.pop(PASSED) } else { None }
            });
        }
        Ok(given == LAST)
    }
}

impl<M: Mode> fmt::Debug for Barrier<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrived = self.state.with(|state| state.arrived);
        f.debug_struct("Barrier").field("size", &self.size).field("arrived", &arrived).finish()
    }
}
