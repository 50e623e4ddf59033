//! Naming tasks, and the simplest way for them to wait for one another.

use super::{
    join,
    runtime::Runtime,
    task::{Head, Key},
    wait::{Ender, Reason},
};
use crate::Error;

/// Leads to a task, which may have ended: then its methods do nothing. It may be sent to other threads, from where only
/// [`Remote::wake`](super::Remote::wake) reaches the task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TaskId {
    runtime: u32,
    key: Key,
}

/// The calling task.
///
/// ```
/// use aio::coro;
///
/// coro::run(|| {
///     assert_eq!(coro::current().number(), 0);                // the root
///     let task = coro::spawn(|| coro::current());
///     assert_eq!(task.join().unwrap().number(), 1);
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Panics
///
/// Outside a runtime.
#[track_caller]
pub fn current() -> TaskId {
    TaskId::new(Runtime::expect("coro::current").current())
}

/// Suspends the calling task until somebody [wakes](TaskId::wake) it. `state` says what it waits for: a number that the
/// program's tasks agree on, for [`TaskId::wake_if`].
///
/// Nothing but a wake-up ends it, and one that comes before is not remembered: this is for tasks that know of each
/// other what they are about. An [`Event`](crate::sync::Event) remembers.
///
/// ```
/// use aio::coro;
///
/// const HUNGRY: u32 = 1;
/// const TIRED: u32 = 2;
///
/// coro::run(|| {
///     let cat = coro::spawn(|| coro::park(HUNGRY));
///     assert!(!cat.task().wake_if(TIRED));
///     assert!(cat.task().wake_if(HUNGRY));
///     assert_eq!(cat.join().unwrap(), Ok(()));
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Errors
///
/// [`Error::Canceled`], [`Error::TimedOut`], [`Error::NoSuspend`] and [`Error::Deadlock`] as any wait;
/// [`Error::WrongRuntime`] outside a runtime.
pub fn park(state: u32) -> Result<(), Error> {
    let runtime = Runtime::current_runtime().ok_or(Error::WrongRuntime)?;
    let me = runtime.current();
    if me.is_fixed() {
        // The scheduler may be running this in the name of the root, which may be parked itself.
        return Err(me.interruption().unwrap_or(Error::NoSuspend));
    }
    if let Some(why) = me.interruption() {
        runtime.refuse(me);
        return Err(why);
    }
    me.parked_as.set(Some(state));
    let reason = Reason::numbered("being woken; its state is", u64::from(state));
    let result = runtime.wait(reason, Ender::Tasks, false, || me.parked_as.get().is_none());
    me.parked_as.set(None);
    result
}

impl TaskId {
    pub(super) fn new(task: &Head) -> TaskId {
        TaskId { runtime: task.serial(), key: task.key() }
    }

    /// The task's number, unique in its runtime: counted from 1, and 0 for the root.
    pub fn number(self) -> u64 {
        self.key.id
    }

    /// The task's name, if it has one, has not ended, and belongs to this thread's runtime.
    pub fn name(self) -> Option<String> {
        self.with(|_, task| task.name().map(str::to_owned)).flatten()
    }

    /// Wakes the task if it is [parked](park); tells whether it was.
    pub fn wake(self) -> bool {
        self.with(|runtime, task| wake_parked(runtime, task, None)).unwrap_or(false)
    }

    /// Wakes the task if it is [parked](park) with this state; tells whether it was.
    pub fn wake_if(self, state: u32) -> bool {
        self.with(|runtime, task| wake_parked(runtime, task, Some(state))).unwrap_or(false)
    }

    /// Asks the task to end, as [`JoinHandle::cancel`](super::JoinHandle::cancel).
    pub fn cancel(self) {
        self.with(|_, task| join::cancel(task));
    }

    /// Whether the task has not ended, as far as this thread's runtime knows it.
    pub fn is_alive(self) -> bool {
        self.with(|_, _| ()).is_some()
    }

    fn with<R>(self, f: impl FnOnce(&Runtime, &Head) -> R) -> Option<R> {
        let runtime = Runtime::of_thread().filter(|runtime| runtime.serial() == self.runtime)?;
        if self.key.id == 0 {
            return Some(f(runtime, runtime.root()));
        }
        let task = runtime.table.get(self.key)?;
        Some(f(runtime, &task))
    }
}

/// Ends a `park`, if the task is in one, and in this state if one is given.
pub(super) fn wake_parked(runtime: &Runtime, task: &Head, state: Option<u32>) -> bool {
    let Some(now) = task.parked_as.get() else { return false };
    let fits = state.is_none_or(|state| state == now);
    if fits {
        task.parked_as.set(None);
        runtime.wake(task);
    }
    fits
}
