//! Starting tasks.

use super::{
    TaskId,
    join::{JoinHandle, StackHandle},
    runtime::Runtime,
    scope::Children,
    stack::Stack,
    task::{Head, Mark, Outcome, Work},
};
use corosensei::stack::STACK_ALIGNMENT;
use std::{
    borrow::Cow,
    io,
    mem::{self, ManuallyDrop},
    ptr,
    rc::Rc,
};

/// What a closure may have captured to be put on the task's stack.
const LARGEST_ON_STACK: usize = 512;

/// Who waits for a task to end, whatever happens.
pub(super) enum Family<'a> {
    None,
    Scope(&'a Children),
}

/// What has become of a task when its spawner goes on.
enum Started {
    /// It has never waited. Its record may be another task's by now.
    Ended(TaskId),
    Kept(Rc<Head>),
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
        let mut f = ManuallyDrop::new(f);
        // SAFETY: 'static, and the outcome is null. If it is not taken it is still there.
        unsafe {
            self.launch(runtime, Family::None, None, ptr::null(), Work::new(&f))
                .map(drop)
                .inspect_err(|_| ManuallyDrop::drop(&mut f))
        }
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
        // SAFETY: promised by the caller. Boxed, the closure is as valid as before.
        unsafe {
            // A frame for what is aligned to more may not fit onto a stack either.
            if size_of::<F>() <= LARGEST_ON_STACK && align_of::<F>() <= STACK_ALIGNMENT {
                self.start_small(runtime, family, stack, f)
            } else {
                self.start_small(runtime, family, stack, Box::new(f))
            }
        }
    }

    /// # Safety
    /// As [`start`](Self::start).
    #[inline(always)]
    unsafe fn start_small<T, F: FnOnce() -> T>(
        self,
        runtime: &Runtime,
        family: Family<'_>,
        stack: Option<Stack>,
        f: F,
    ) -> io::Result<JoinHandle<T>> {
        // On this frame until the task is suspended: one that never is needs no memory.
        let outcome = Outcome::new(None);
        let place = (&raw const outcome).cast();
        let mut f = ManuallyDrop::new(f);
        let work = Work::new(&f);
        // All but the last two is known where this is compiled, mostly.
        if self.is_plain()
            && !self.queued
            && stack.is_none()
            && runtime.may_start()
            && let Some(task) = runtime.table.add_spare()
        {
            // There is nothing in them; this way there are no flags either that say so.
            mem::forget((self, stack));
            // SAFETY: promised by the caller; one that has not ended gets another place, before it goes on.
            return Ok(unsafe { start_spare(runtime, family, task, place, work).handle(outcome) });
        }
        // SAFETY: as above. What was not taken is still there.
        unsafe {
            match self.launch(runtime, family, stack, place, work) {
                Ok(started) => Ok(started.handle(outcome)),
                Err(error) => {
                    ManuallyDrop::drop(&mut f);
                    Err(error)
                }
            }
        }
    }

    /// Makes a task and starts it: now, below the caller, or when its turn comes. One on a stack of the caller's is
    /// kept in any case. If it fails, the closure was not taken.
    ///
    /// # Safety
    /// As [`start`](Self::start), for what the work is made of. So does the outcome, if it is not null, until this has
    /// returned; it is one for that work.
    // Cold compared with tasks that only take what others have left.
    #[cold]
    #[inline(never)]
    unsafe fn launch(
        self,
        runtime: &Runtime,
        family: Family<'_>,
        stack: Option<Stack>,
        outcome: *const (),
        work: Work,
    ) -> io::Result<Started> {
        let (plain, keep) = (self.is_plain() && stack.is_none(), stack.is_some());
        let queued = self.queued;
        let task = self.make(runtime, stack)?;
        // SAFETY: promised by the caller.
        unsafe { task.put_outcome(outcome) };
        if let Family::Scope(children) = family {
            // From here on nothing fails: a scope waits for what it has adopted.
            task.adopt(children);
        }
        if queued || !runtime.may_start() {
            // SAFETY: promised by the caller.
            return Ok(Started::Kept(unsafe { runtime.enqueue(task, work) }));
        }
        let held = if keep { Some(runtime.known(task)) } else { None };
        task.put(work);
        let spare = plain && runtime.table.wants_spare();
        task.routine.stay(spare);
        // SAFETY: promised by the caller.
        if unsafe { runtime.run_first(task) } {
            let id = TaskId::new(task);
            runtime.end_first(task, spare);
            return Ok(held.map_or(Started::Ended(id), Started::Kept));
        }
        Ok(Started::Kept(runtime.keep(task)))
    }

    /// Makes the record of a task, on that stack or one of the pool's.
    fn make(self, runtime: &Runtime, stack: Option<Stack>) -> io::Result<&Head> {
        let task = runtime.make_task(stack, self.stack_size)?;
        if let Some(name) = self.name {
            task.set_name(name);
        }
        if self.always {
            task.marks.add(Mark::ALWAYS_RUNS);
        }
        Ok(task)
    }

    /// Whether it is like most tasks, which leave a record and a stack that the next such one can use.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.name.is_none() && self.stack_size.is_none() && !self.always
    }
}

impl Started {
    /// The task's handle.
    ///
    /// # Safety
    /// The outcome is of the task's type, and was the one given to it.
    #[inline(always)]
    unsafe fn handle<T>(self, outcome: Outcome<T>) -> JoinHandle<T> {
        match self {
            Started::Ended(id) => match outcome.into_inner() {
                Some(result) => JoinHandle::ended(id, result),
                None => unreachable!("a task that has ended leaves a result"),
            },
            Started::Kept(task) => {
                let outcome = Rc::new(outcome);
                // SAFETY: promised by the caller; the handle keeps it, and lets the task know when it goes.
                unsafe { task.put_outcome(Rc::as_ptr(&outcome).cast()) };
                JoinHandle::new(task, outcome)
            }
        }
    }
}

/// Starts a plain task on what another one has left, below the caller.
///
/// # Safety
/// As [`Spec::launch`].
#[inline(always)]
unsafe fn start_spare(runtime: &Runtime, family: Family<'_>, task: &Head, outcome: *const (), work: Work) -> Started {
    // SAFETY: promised by the caller.
    unsafe {
        task.put_outcome(outcome);
        if let Family::Scope(children) = family {
            task.adopt(children);
        }
        task.put(work);
        if runtime.run_first(task) {
            let id = TaskId::new(task);
            runtime.end_first(task, true);
            return Started::Ended(id);
        }
        Started::Kept(runtime.keep(task))
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
