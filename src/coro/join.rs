//! Handles of tasks: waiting for their end, cancelling them.

use super::{
    TaskId, interrupt,
    runtime::Runtime,
    select::Watch,
    stack::Stack,
    task::{Failure, Head, Outcome, State},
    wait::Reason,
};
use crate::{
    Error,
    sync::waitlist::{self, How, List, Local, Turn},
};
use std::{any::Any, fmt, io, ops::Deref, panic, ptr, rc::Rc};

/// Leads to a task, and owns its result. Dropping it detaches the task, which goes on.
///
/// It may outlive the runtime; by then the task has ended. A task that has never waited has left its result in the
/// handle, which is as large as that.
///
/// ```
/// use aio::coro;
///
/// coro::run(|| {
///     let task = coro::spawn(|| 6 * 7);
///     assert_eq!(task.join()?, 42);
///     Ok::<(), coro::JoinError>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct JoinHandle<T> {
    link: Link<T>,
}

enum Link<T> {
    /// The task ended before its spawner went on.
    Ended(TaskId, Result<T, Failure>),
    Kept(Kept<T>),
}

/// A task that may not have ended, and the place for its result.
struct Kept<T> {
    task: Rc<Head>,
    outcome: Rc<Outcome<T>>,
}

/// What is in it is never pinned.
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// For a task whose result goes to `outcome`.
    pub(super) fn new(task: Rc<Head>, outcome: Rc<Outcome<T>>) -> JoinHandle<T> {
        JoinHandle { link: Link::Kept(Kept { task, outcome }) }
    }

    /// For a task that has left its result.
    #[inline(always)]
    pub(super) fn ended(id: TaskId, result: Result<T, Failure>) -> JoinHandle<T> {
        JoinHandle { link: Link::Ended(id, result) }
    }

    /// The task, if it may not have ended.
    fn kept(&self) -> Option<&Head> {
        match &self.link {
            Link::Ended(..) => None,
            Link::Kept(kept) => Some(&kept.task),
        }
    }

    /// Waits for the end of the task and gives what it returned.
    ///
    /// If the wait itself is interrupted, the task is detached; use [`wait`](Self::wait) first to keep the handle.
    ///
    /// # Errors
    ///
    /// - [`JoinError::Panicked`] with the payload, if it panicked.
    /// - [`JoinError::NeverRan`] if it was cancelled before its first turn.
    /// - [`JoinError::Interrupted`] if the calling task was cancelled, is late, or must not wait here.
    #[inline]
    pub fn join(self) -> Result<T, JoinError> {
        match self.link {
            Link::Ended(_, result) => result.map_err(JoinError::from),
            Link::Kept(kept) => kept.join(),
        }
    }

    /// The result of a task that has ended.
    pub(super) fn take(self) -> Result<T, JoinError> {
        match self.link {
            Link::Ended(_, result) => result.map_err(JoinError::from),
            Link::Kept(kept) => kept.take(),
        }
    }

    /// Waits for the end of the task, and keeps the handle.
    ///
    /// # Errors
    ///
    /// As any wait: [`Error::Canceled`] or [`Error::TimedOut`] for the calling task, [`Error::NoSuspend`],
    /// [`Error::Deadlock`], and [`Error::WrongRuntime`] outside the task's runtime.
    #[inline]
    pub fn wait(&self) -> Result<(), Error> {
        self.kept().map_or(Ok(()), wait_for)
    }

    /// Asks the task to end: whatever it waits for, now or later, gives [`Error::Canceled`] at once, unless it is
    /// [shielded](super::shield). Operations in flight are cancelled and waited for. A task that has not had its first
    /// turn never runs.
    ///
    /// This only asks; [`join`](Self::join) tells when it has ended.
    pub fn cancel(&self) {
        if let Some(task) = self.kept() {
            cancel(task);
        }
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.kept().is_none_or(|task| task.state.get() == State::Done)
    }

    /// The task, without its result.
    pub fn task(&self) -> TaskId {
        match &self.link {
            Link::Ended(id, _) => *id,
            Link::Kept(kept) => TaskId::new(&kept.task),
        }
    }

    /// For [`select`](super::select).
    pub(super) fn enter_end(&self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<()> {
        let Some(task) = self.kept().filter(|task| task.state.get() != State::Done) else { return Some(()) };
        let list: fn(&mut List) -> &mut List = |list| list;
        let how = How::of("the end of a task").brief();
        let now = |_: &mut List| Turn::Queue(0);
        let meanwhile = |done: &dyn Fn() -> bool| rest(&Watch::new(done, before));
        waitlist::wait_as::<Local, List>(how, &task.joiners, list, now, meanwhile, |_, _| None).ok().map(drop)
    }

    pub(super) fn id(&self) -> u64 {
        self.task().number()
    }
}

pub(super) fn cancel(task: &Head) {
    // A runtime ends all of its tasks before it goes, so that of one that has not ended is this thread's; but not in a
    // forked child, which has left its parent's and may be in another one.
    if let Some(runtime) = Runtime::of_thread()
        && runtime.serial() == task.serial()
    {
        runtime.cancel(task);
    }
}

#[inline]
pub(super) fn wait_for(task: &Head) -> Result<(), Error> {
    if task.state.get() == State::Done { Ok(()) } else { wait_longer(task) }
}

fn wait_longer(task: &Head) -> Result<(), Error> {
    if Runtime::of_thread().is_some_and(|runtime| runtime.serial() != task.serial()) {
        return Err(Error::WrongRuntime);
    }
    let done = |_: &mut List| (task.state.get() == State::Done).then_some(0);
    let reason = Reason::numbered("the end of task", task.id());
    waitlist::wait::<Local, List>(&task.joiners, |list| list, reason, 0, done, |_| ()).map(drop)
}

impl<T> Kept<T> {
    #[inline(never)]
    fn join(self) -> Result<T, JoinError> {
        wait_for(&self.task).map_err(JoinError::Interrupted)?;
        self.take()
    }

    fn take(self) -> Result<T, JoinError> {
        match self.outcome.take() {
            Some(result) => result.map_err(JoinError::from),
            None => unreachable!("a task that has ended leaves a result"),
        }
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        // SAFETY: null, for nobody will ask for the result.
        unsafe { self.task.put_outcome(ptr::null()) };
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("id", &self.id()).field("finished", &self.is_finished()).finish()
    }
}

/// A task on a stack of the caller's; made by [`OnStack::spawn`](super::OnStack::spawn).
#[derive(Debug)]
pub struct StackHandle<T> {
    handle: JoinHandle<T>,
}

impl<T> StackHandle<T> {
    pub(super) fn new(handle: JoinHandle<T>) -> StackHandle<T> {
        StackHandle { handle }
    }

    /// Waits for the end of the task, and gives what it returned, and the stack.
    ///
    /// The wait cannot be interrupted: the stack is in use until the task has ended. If the calling task is cancelled
    /// or late, the one on the stack is cancelled.
    ///
    /// # Panics
    ///
    /// While the thread panics, inside [`no_suspend`](super::no_suspend), and outside the runtime, if the task has not
    /// ended.
    pub fn join(self) -> (Result<T, JoinError>, Stack) {
        if self.handle.wait().is_err() {
            self.handle.cancel();
            while !self.handle.is_finished() {
                if let Err(error) = interrupt::shield(|| self.handle.wait()) {
                    panic!("the stack of a task that has not ended cannot be given back: {error}");
                }
            }
        }
        let stack = self.handle.kept().and_then(|task| task.routine.left_stack());
        let Some(stack) = stack else { unreachable!("a task that has ended leaves the caller's stack") };
        (self.handle.take(), stack)
    }
}

impl<T> Deref for StackHandle<T> {
    type Target = JoinHandle<T>;

    fn deref(&self) -> &JoinHandle<T> {
        &self.handle
    }
}

/// Why a task gave no value.
#[non_exhaustive]
pub enum JoinError {
    /// It panicked, with this payload. The message has been printed.
    Panicked(Box<dyn Any + Send>),
    /// It was cancelled before its first turn.
    NeverRan,
    /// The one who waited for it cannot: it was cancelled itself, for example. The task goes on.
    Interrupted(Error),
}

impl JoinError {
    /// Goes on with the task's panic, if it was one; panics with the error's text otherwise.
    pub fn resume(self) -> ! {
        match self {
            JoinError::Panicked(payload) => panic::resume_unwind(payload),
            other => panic!("{other}"),
        }
    }

    /// The panic's message, if it was a text.
    fn message(&self) -> Option<&str> {
        match self {
            JoinError::Panicked(payload) => match payload.downcast_ref::<String>() {
                Some(text) => Some(text),
                None => payload.downcast_ref::<&str>().copied(),
            },
            _ => None,
        }
    }
}

impl From<Failure> for JoinError {
    fn from(failure: Failure) -> JoinError {
        match failure {
            Failure::Panicked(payload) => JoinError::Panicked(payload),
            Failure::NeverRan => JoinError::NeverRan,
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.message()) {
            (_, Some(message)) => write!(f, "the task panicked: {message}"),
            (JoinError::Panicked(_), None) => f.write_str("the task panicked"),
            (JoinError::NeverRan, _) => f.write_str("the task was cancelled before it began"),
            (JoinError::Interrupted(error), _) => write!(f, "waiting for the task was given up: {error}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(_) => f.debug_tuple("Panicked").field(&self.message().unwrap_or("..")).finish(),
            JoinError::NeverRan => f.write_str("NeverRan"),
            JoinError::Interrupted(error) => f.debug_tuple("Interrupted").field(error).finish(),
        }
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> io::Error {
        match error {
            JoinError::Interrupted(error) => error.into(),
            JoinError::NeverRan => Error::Canceled.into(),
            JoinError::Panicked(_) => io::Error::other(error.to_string()),
        }
    }
}
