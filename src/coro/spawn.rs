//! Starting tasks.

use super::{
    join::{JoinHandle, StackHandle},
    runtime::Runtime,
    scope::Children,
    stack::Stack,
    task::{Anything, Outcome, Task},
};
use std::{borrow::Cow, io, mem, rc::Rc};

/// Who waits for a task to end, whatever happens.
pub(super) enum Family<'a> {
    None,
    Scope(&'a Children),
}

/// How a task is to be started.
#[derive(Default)]
pub(super) struct Spec {
    name: Option<Cow<'static, str>>,
    stack_size: Option<usize>,
    queued: bool,
    always: bool,
}

impl Spec {
    /// It waits for its turn.
    pub(super) fn queued(mut self) -> Spec {
        self.queued = true;
        self
    }

    /// It runs even if it is cancelled before its first turn.
    pub(super) fn always(mut self) -> Spec {
        self.always = true;
        self
    }

    /// Starts a task whose result nobody wants.
    pub(super) fn detached(self, runtime: &Runtime, f: impl FnOnce() + 'static) -> io::Result<()> {
        // SAFETY: 'static.
        unsafe { self.start(runtime, Family::None, None, f) }.map(drop)
    }

    /// Makes a task and starts it.
    ///
    /// # Safety
    /// `f` and `T` stay valid until the task has ended, and `T` until its handle is gone; so do the family and its
    /// deadlines.
    // Inlined, as is all that returns after a switch; see `Runtime::resume`.
    #[inline(always)]
    pub(super) unsafe fn start<T, F: FnOnce() -> T>(
        self,
        runtime: &Runtime,
        family: Family<'_>,
        stack: Option<Stack>,
        f: F,
    ) -> io::Result<JoinHandle<T>> {
        let stack = match stack {
            Some(stack) => stack,
            None => runtime.take_stack(self.stack_size)?,
        };
        let task = Task::<Outcome<T>>::new(self.name);
        task.head.set_serial(runtime.serial());
        task.head.always_runs.set(self.always);
        let entry: Rc<Task<dyn Anything + '_>> = task.clone();
        // SAFETY: only the lifetime changes. The scheduler does not look at results; it drops the task when that has
        // ended, when a result is left only if a handle is, which takes it before it goes.
        let entry: Rc<Task> = unsafe { mem::transmute(entry) };
        // SAFETY: promised by the caller; the table keeps the task until it has ended.
        unsafe { task.prepare(stack, f) };
        // Not earlier: a scope waits for what it has adopted.
        if let Family::Scope(children) = family {
            task.head.adopt(children);
        }
        runtime.table.borrow_mut().insert(entry);
        runtime.start(&task.head, !self.queued);
        Ok(JoinHandle::new(task))
    }
}

/// Starts a task. It runs at once, until it waits for the first time; then the caller goes on.
///
/// ```
/// use aio::coro;
/// use std::{cell::RefCell, rc::Rc};
///
/// let order = Rc::new(RefCell::new(vec![]));
/// coro::run(|| {
///     let log = order.clone();
///     let task = coro::spawn(move || {
///         log.borrow_mut().push("task runs");
///         coro::yield_now().unwrap();
///         log.borrow_mut().push("task goes on");
///     });
///     order.borrow_mut().push("spawned");
///     task.join().unwrap();
/// })?;
/// assert_eq!(*order.borrow(), ["task runs", "spawned", "task goes on"]);
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// It waits for its turn instead if 64 tasks have spawned one another without waiting, while a panic unwinds, and
/// inside [`no_suspend`](super::no_suspend).
///
/// # Panics
///
/// Outside a runtime, or if there is no memory for a stack; [`Builder::spawn`] gives an error then.
#[track_caller]
#[inline(always)]
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("cannot spawn a task: {error}"),
    }
}

/// How a task is started: its name, its stack, and when it begins.
///
/// ```
/// use aio::coro::{self, Builder};
///
/// coro::run(|| {
///     let task = Builder::new().name("deep").stack_size(1 << 20).spawn(|| coro::current().name())?;
///     assert_eq!(task.join()?.as_deref(), Some("deep"));
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing is started before `spawn`"]
pub struct Builder {
    name: Option<Cow<'static, str>>,
    stack_size: Option<usize>,
    later: bool,
}

impl Builder {
    /// No name, the runtime's stack size, started at once.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// The task's name: for reports, [`dump`](super::dump) and whoever asks.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Bytes of stack, from 16 KiB to 1 GiB, instead of the runtime's [default](super::Config::stack_size).
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// The task waits for its turn, instead of running at once.
    pub fn later(mut self) -> Builder {
        self.later = true;
        self
    }

    /// Has the task run on a stack of the caller's, which comes back when it is joined.
    pub fn on(self, stack: Stack) -> OnStack {
        OnStack { builder: self, stack }
    }

    /// Starts the task.
    ///
    /// # Errors
    ///
    /// No stack could be had: `InvalidInput` for a size that is out of range, `OutOfMemory` if address space, or before
    /// Linux 6.13 the number of mappings (`vm.max_map_count`), is used up.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    #[inline(always)]
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
        let runtime = Runtime::expect("coro::spawn");
        // SAFETY: 'static; no deadlines are inherited.
        unsafe { self.spec().start(runtime, Family::None, None, f) }
    }

    pub(super) fn spec(self) -> Spec {
        Spec { name: self.name, stack_size: self.stack_size, queued: self.later, always: false }
    }
}

/// How a task is started on a stack of the caller's; made by [`Builder::on`].
#[derive(Debug)]
#[must_use = "nothing is started before `spawn`"]
pub struct OnStack {
    builder: Builder,
    stack: Stack,
}

impl OnStack {
    /// Starts the task.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> StackHandle<T> {
        let runtime = Runtime::expect("coro::spawn");
        // SAFETY: 'static; no deadlines are inherited.
        match unsafe { self.builder.spec().start(runtime, Family::None, Some(self.stack), f) } {
            Ok(handle) => StackHandle::new(handle),
            Err(_) => unreachable!("there is a stack"),
        }
    }
}
