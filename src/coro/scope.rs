//! Structured concurrency: children that borrow from their parent, which waits for them.

use super::{
    interrupt::{self, Frame},
    join::{JoinError, JoinHandle},
    report,
    runtime::Runtime,
    spawn::{Builder, Family, Spec},
    task::Head,
    wait::{Ender, Reason},
};
use crate::{Error, Result, complete::AbortOnUnwind};
use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt, io,
    marker::PhantomData,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Children that may borrow what outlives the [`scope`] call.
pub struct Scope<'scope, 'env: 'scope> {
    children: Children,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// What a scope knows of its children. They lead to it, and have ended when it goes.
pub(super) struct Children {
    runtime: *const Runtime,
    parent: *const Head,
    /// The deadlines that they are under as well.
    frames: *const Frame,
    alive: Cell<usize>,
    /// Of those whose panic nobody has asked for: their ids, and the payloads.
    panics: RefCell<Vec<(u64, Box<dyn Any + Send>)>>,
}

const ALL: Reason = Reason::of("the children of its scope");

impl Children {
    fn runtime(&self) -> &Runtime {
        // SAFETY: a scope lives in a task of the runtime, whose frames end before it does.
        unsafe { &*self.runtime }
    }

    /// The deadlines that children are under.
    pub(super) fn frames(&self) -> *const Frame {
        self.frames
    }

    pub(super) fn one_more(&self) {
        self.alive.set(self.alive.get() + 1);
    }

    /// A child has ended; nothing of it is left on a stack.
    pub(super) fn one_less(&self) {
        self.alive.set(self.alive.get() - 1);
        if self.alive.get() == 0 {
            self.nudge();
        }
    }

    /// Has the parent look at what it waits for.
    fn nudge(&self) {
        // SAFETY: the parent has not ended, for its scope has not.
        self.runtime().wake(unsafe { &*self.parent });
    }

    /// Calls `f` with each child that has not ended.
    fn for_each(&self, f: impl Fn(&Runtime, &Head)) {
        let tasks = self.runtime().table.all();
        for task in tasks.iter().filter(|task| std::ptr::eq(task.scope.get(), self)) {
            f(self.runtime(), task);
        }
    }

    fn cancel(&self) {
        self.for_each(|runtime, child| runtime.cancel(child));
    }

    /// Waits for the end of all children, whatever happens: they borrow from frames below this one.
    fn wait(&self) {
        // They would be left behind.
        let guard = AbortOnUnwind;
        let mut seen = None;
        while self.alive.get() > 0 {
            if !self.runtime().engine().is_alive() {
                report::forked();
            }
            // A parent that is late may be cancelled besides.
            let me = self.runtime().current();
            let cancelled = || seen == Some(Error::TimedOut) && me.interruption() == Some(Error::Canceled);
            let done = || self.alive.get() == 0 || cancelled();
            seen = match self.runtime().wait(ALL, Ender::Tasks, seen.is_some(), done) {
                Ok(()) if !cancelled() => break,
                // They are under the same deadline.
                Err(Error::TimedOut) => {
                    self.for_each(|runtime, child| runtime.wake(child));
                    Some(Error::TimedOut)
                }
                _ => {
                    self.cancel();
                    Some(Error::Canceled)
                }
            };
        }
        mem::forget(guard);
    }
}

/// Runs `f`, which may spawn children that borrow from the caller, and waits for all of them.
///
/// If the calling task is cancelled, so are the children; they are waited for all the same. Children are under the
/// deadlines that the caller is under. If `f` panics, the children are cancelled and waited for, and the panic goes on;
/// a child's panic that nobody has [asked for](ScopedJoinHandle::join) goes on here when all have ended.
///
/// ```
/// use aio::coro;
///
/// let words = ["a", "bc", "def"];
/// let mut total = 0;
/// coro::run(|| {
///     coro::scope(|s| {
///         let lengths: Vec<_> = words.iter().map(|word| s.spawn(move || word.len())).collect();
///         total = lengths.into_iter().map(|task| task.join().unwrap()).sum();
///     });
/// })?;
/// assert_eq!(total, 6);
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Panics
///
/// Outside a runtime, while a panic unwinds, and inside [`no_suspend`](super::no_suspend): children could not run.
/// There is [`try_scope`] for these.
#[track_caller]
pub fn scope<'env, R>(f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
    match try_scope(f) {
        Ok(value) => value,
        Err(Error::WrongRuntime) => panic!("coro::scope was called outside a runtime; call it inside coro::run"),
        Err(error) => panic!("coro::scope is not possible here: {error}"),
    }
}

/// As [`scope`], with an error where it is not possible.
///
/// # Errors
///
/// [`Error::WrongRuntime`] outside a runtime; [`Error::NoSuspend`] while a panic unwinds, and inside
/// [`no_suspend`](super::no_suspend). `f` is dropped.
pub fn try_scope<'env, R>(f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> Result<R> {
    let runtime = Runtime::current_runtime().ok_or(Error::WrongRuntime)?;
    let parent = runtime.current();
    if parent.is_fixed() {
        return Err(Error::NoSuspend);
    }
    let frames = parent.frames.get();
    interrupt::bequeath(frames);
    let scope = Scope {
        children: Children { runtime, parent, frames, alive: Cell::new(0), panics: RefCell::default() },
        scope: PhantomData,
        env: PhantomData,
    };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    if result.is_err() {
        scope.children.cancel();
    }
    scope.children.wait();
    let value = result.unwrap_or_else(|panic| resume_unwind(panic));
    match scope.children.panics.take().into_iter().next() {
        Some((_, panic)) => resume_unwind(panic),
        None => Ok(value),
    }
}

/// What a child leaves: its value, or a panic that the scope keeps.
pub(super) struct Panicked;

impl<'scope> Scope<'scope, '_> {
    /// Starts a child. It runs at once, until it waits for the first time.
    ///
    /// # Panics
    ///
    /// If there is no memory for a stack; [`spawn_with`](Self::spawn_with) gives an error then.
    #[track_caller]
    pub fn spawn<T: 'scope>(&'scope self, f: impl FnOnce() -> T + 'scope) -> ScopedJoinHandle<'scope, T> {
        match self.spawn_with(Builder::new(), f) {
            Ok(handle) => handle,
            Err(error) => panic!("cannot spawn a task: {error}"),
        }
    }

    /// Starts a child as a [`Builder`] says.
    ///
    /// # Errors
    ///
    /// As [`Builder::spawn`].
    pub fn spawn_with<T: 'scope>(
        &'scope self,
        builder: Builder,
        f: impl FnOnce() -> T + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        self.start(builder.spec(), f)
    }

    /// Starts a child that runs even if it is cancelled before its first turn.
    #[track_caller]
    pub(super) fn spawn_always<T: 'scope>(&'scope self, f: impl FnOnce() -> T + 'scope) {
        if let Err(error) = self.start(Builder::new().spec().always(), f) {
            panic!("cannot spawn a task: {error}");
        }
    }

    fn start<T: 'scope>(
        &'scope self,
        spec: Spec,
        f: impl FnOnce() -> T + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        let children = &self.children;
        let body = move || {
            catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
                children.panics.borrow_mut().push((children.runtime().current().id(), panic));
                Panicked
            })
        };
        // SAFETY: the scope waits for its children before it ends, and what it borrows outlives it; the handle does not
        // outlive what its value borrows, as its type says. So do the frames, which the parent was in before.
        let handle = unsafe { spec.start(children.runtime(), Family::Scope(children), None, body)? };
        Ok(ScopedJoinHandle { handle, children })
    }

    /// Cancels all children that have not ended. They are waited for at the end of the scope.
    pub fn cancel(&self) {
        self.children.cancel();
    }

    /// Waits until no child is left, as the end of the scope does; but this wait can be interrupted, and under a
    /// [`timeout`](super::timeout) that is how long they have.
    ///
    /// ```
    /// use aio::{Error, coro};
    /// use std::time::Duration;
    ///
    /// coro::run(|| {
    ///     coro::scope(|s| {
    ///         s.spawn(|| coro::sleep(Duration::from_secs(60)));
    ///         let grace = Duration::from_millis(2);
    ///         assert_eq!(coro::timeout(grace, || s.wait()), Err(Error::TimedOut));
    ///         s.cancel();
    ///     });
    /// })?;
    /// # Ok::<(), aio::SetupError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As any wait; [`Error::Invalid`] if it is not the task that opened the scope which calls, and
    /// [`Error::WrongRuntime`] inside another engine, where the children cannot run.
    pub fn wait(&self) -> Result<()> {
        let runtime = self.children.runtime();
        if !std::ptr::eq(runtime.current(), self.children.parent) {
            return Err(Error::Invalid(&"only the task that opened a scope can wait for all of its children"));
        }
        if self.alive() == 0 {
            return Ok(());
        }
        // Others would be resumed with that engine as the thread's, which may be gone before they have ended.
        if Runtime::current_runtime().is_none() {
            return Err(Error::WrongRuntime);
        }
        runtime.wait(ALL, Ender::Tasks, false, || self.alive() == 0)
    }

    /// How many children have not ended.
    pub fn alive(&self) -> usize {
        self.children.alive.get()
    }

    /// Waits until `done`, at which one of the children calls [`nudge`](Self::nudge).
    pub(super) fn wait_until(&self, done: impl Fn() -> bool) -> Result<()> {
        self.children.runtime().wait(Reason::of("the first of its children"), Ender::Tasks, false, done)
    }

    pub(super) fn nudge(&self) {
        self.children.nudge();
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("alive", &self.alive()).finish_non_exhaustive()
    }
}

/// Leads to a child of a [`Scope`].
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<Result<T, Panicked>>,
    children: &'scope Children,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// As [`JoinHandle::join`]. A panic that is delivered here does not go on at the end of the scope.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn join(self) -> Result<T, JoinError> {
        self.wait().map_err(JoinError::Interrupted)?;
        let id = self.handle.id();
        match self.handle.take()? {
            Ok(value) => Ok(value),
            Err(Panicked) => {
                let mut panics = self.children.panics.borrow_mut();
                match panics.iter().position(|(other, _)| *other == id) {
                    Some(at) => Err(JoinError::Panicked(panics.remove(at).1)),
                    None => unreachable!("the scope keeps it until it was asked for"),
                }
            }
        }
    }

    /// As [`JoinHandle::wait`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn wait(&self) -> Result<()> {
        self.handle.wait()
    }

    /// As [`JoinHandle::cancel`].
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Whether the child has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    pub(super) fn handle(&self) -> &JoinHandle<Result<T, Panicked>> {
        &self.handle
    }

    /// As [`JoinHandle::task`].
    pub fn task(&self) -> super::TaskId {
        self.handle.task()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedJoinHandle").field(&self.handle).finish()
    }
}
