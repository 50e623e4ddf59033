//! The result of a task that another thread has spawned.

use super::{JoinError, task::Failure, wait::Reason};
use crate::sync::waitlist::{self, Init, List, Lock, Shared, SharedLock};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

struct Cell<T> {
    result: Mutex<Option<Result<T, Failure>>>,
    state: SharedLock<State>,
}

struct State {
    done: bool,
    waiting: List,
}

impl Init for State {
    const INIT: State = State { done: false, waiting: List::INIT };
}

impl<T> Cell<T> {
    fn set(&self, result: Result<T, Failure>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.state.with(|state| state.done = true);
        waitlist::wake_all(&self.state, |state| &mut state.waiting, 0);
    }
}

/// Says so if the task is dropped before it has run.
struct Promise<T>(Option<Arc<Cell<T>>>);

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            cell.set(Err(Failure::NeverRan));
        }
    }
}

/// What the runtime is to run, and the handle for its result.
pub(super) fn pair<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> (impl FnOnce() + Send + 'static, RemoteHandle<T>) {
    let cell = Arc::new(Cell { result: Mutex::new(None), state: SharedLock::NEW });
    let mut promise = Promise(Some(cell.clone()));
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(f)).map_err(Failure::Panicked);
        if let Some(cell) = promise.0.take() {
            cell.set(result);
        }
    };
    (run, RemoteHandle { cell })
}

/// Leads to a task that was spawned by [`Remote::spawn`](super::Remote::spawn), from any thread. Dropping it detaches
/// the task.
pub struct RemoteHandle<T> {
    cell: Arc<Cell<T>>,
}

impl<T> RemoteHandle<T> {
    /// Waits for the end of the task and gives what it returned. Blocks the thread, or parks the calling task.
    ///
    /// # Errors
    ///
    /// As [`JoinHandle::join`](super::JoinHandle::join). A task that the end of its runtime has kept from starting
    /// gives [`JoinError::NeverRan`].
    pub fn join(self) -> Result<T, JoinError> {
        let now = |state: &mut State| state.done.then_some(0);
        waitlist::wait::<Shared, State>(
            &self.cell.state,
            |state| &mut state.waiting,
            Reason::of("a task of another thread to end"),
            0,
            now,
            |_| (),
        )
        .map_err(JoinError::Interrupted)?;
        match self.cell.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(result) => result.map_err(JoinError::from),
            None => unreachable!("it is set before `done` is"),
        }
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.cell.state.with(|state| state.done)
    }
}

impl<T> fmt::Debug for RemoteHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHandle").field("finished", &self.is_finished()).finish()
    }
}
