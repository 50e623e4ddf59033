//! One task: its coroutine, its state, and the cell for its result.

use super::{
    interrupt::Frame,
    local::Locals,
    scope::Children,
    stack::{Stack, pointer},
    wait::Reason,
};
use crate::{
    Error,
    sync::waitlist::{List, LocalLock, Lock},
};
use corosensei::{Coroutine, CoroutineResult, Yielder, stack::StackPointer};
use std::{
    any::Any,
    borrow::Cow,
    cell::{Cell, OnceCell, UnsafeCell},
    mem::{self, ManuallyDrop},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, thread,
};

/// Where a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// On its stack, or below another one that it started.
    Running,
    /// In the queue of those to be resumed.
    Ready,
    /// Waits to be woken.
    Parked,
    Done,
}

/// Leads to a task that may have ended: an index into the runtime's table, and the id that the entry must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Key {
    pub(super) index: u32,
    pub(super) id: u64,
}

/// The coroutine that a task is.
pub(super) type Routine = Coroutine<(), (), (), Ends>;

/// What was noted about a task, together so that it is soon wiped.
#[derive(Default)]
pub(super) struct Marks {
    /// Waits refused since it was cancelled.
    pub(super) refused: Cell<u32>,
    pub(super) canceled: Cell<bool>,
    /// It was cancelled before it began.
    pub(super) never_run: Cell<bool>,
    /// It runs even if it is cancelled before.
    pub(super) always_runs: Cell<bool>,
    /// Nothing is left that could end its wait.
    pub(super) hopeless: Cell<bool>,
}

impl Marks {
    #[inline]
    fn clear(&self) {
        let marked = self.canceled.get() | self.never_run.get() | self.always_runs.get() | self.hopeless.get();
        // Looking is cheaper than writing.
        if marked || self.refused.get() > 0 {
            self.refused.set(0);
            self.canceled.set(false);
            self.never_run.set(false);
            self.always_runs.set(false);
            self.hopeless.set(false);
        }
    }
}

/// A task, as the scheduler knows it; or, when that has ended, a record that may become [another](Self::begin).
pub(crate) struct Head {
    key: Cell<Key>,
    name: OnceCell<Cow<'static, str>>,
    pub(super) state: Cell<State>,
    /// The next one in the queue of those to be resumed.
    pub(super) next: Cell<*const Head>,
    /// From when it is first suspended, or put into the queue.
    coroutine: UnsafeCell<Option<Routine>>,
    /// What it runs on. A stack of the caller's is left here.
    stack: Cell<Option<Stack>>,
    /// Its ends, guard included.
    range: Cell<(usize, usize)>,
    /// On the coroutine's stack, valid while it runs.
    yielder: Cell<*const Yielder<(), ()>>,
    pub(super) marks: Marks,
    /// The runtime's number.
    serial: u32,
    /// The innermost deadline or shield that the task is in.
    pub(super) frames: Cell<*const Frame>,
    /// The innermost of those that it has from its parent; the others are on its own stack.
    inherited: Cell<*const Frame>,
    /// The scope that it is a child of.
    pub(super) scope: Cell<*const Children>,
    /// How many `no_suspend`s it is in.
    pub(super) unswitchable: Cell<u32>,
    /// How many tasks wait below it for its first wait, each having spawned the next; 0 once it was suspended.
    pub(super) depth: Cell<u32>,
    pub(super) reason: Cell<Reason>,
    /// What `park` was given, while the task is parked by it.
    pub(super) parked_as: Cell<Option<u32>>,
    pub(super) locals: Locals,
    /// Those who wait for its end.
    pub(super) joiners: LocalLock<List>,
    /// Where the result goes: an `Outcome` of its type, or null if nobody will ask for it.
    outcome: Cell<*const ()>,
}

/// A result, once there is one.
pub(super) type Outcome<T> = Cell<Option<Result<T, Failure>>>;

/// Why a task gave no result.
pub(super) enum Failure {
    Panicked(Box<dyn Any + Send>),
    /// It was cancelled before it ran.
    NeverRan,
}

impl Head {
    #[inline(always)]
    pub(super) fn new(serial: u32, key: Key) -> Head {
        Head {
            key: Cell::new(key),
            name: OnceCell::new(),
            state: Cell::new(State::Running),
            next: Cell::new(ptr::null()),
            coroutine: UnsafeCell::new(None),
            stack: Cell::new(None),
            range: Cell::new((0, 0)),
            yielder: Cell::new(ptr::null()),
            marks: Marks::default(),
            serial,
            frames: Cell::new(ptr::null()),
            inherited: Cell::new(ptr::null()),
            scope: Cell::new(ptr::null()),
            unswitchable: Cell::new(0),
            depth: Cell::new(0),
            reason: Cell::new(Reason::STARTING),
            parked_as: Cell::new(None),
            locals: Locals::default(),
            joiners: <LocalLock<List> as Lock<List>>::NEW,
            outcome: Cell::new(ptr::null()),
        }
    }

    /// Makes another task of what was left by one that has ended.
    #[inline]
    pub(super) fn begin(&self, id: u64) {
        // All of them, so that none is forgotten.
        let Head {
            key,
            name,
            state,
            next: _,
            coroutine: _,
            stack: _,
            range: _,
            yielder: _,
            marks,
            serial: _,
            frames,
            inherited,
            scope,
            unswitchable,
            depth: _,
            reason: _,
            parked_as,
            locals,
            joiners: _,
            outcome: _,
        } = self;
        key.set(Key { id, ..key.get() });
        state.set(State::Running);
        marks.clear();
        debug_assert!(name.get().is_none() && locals.is_empty());
        debug_assert!(scope.get().is_null() && frames.get().is_null() && inherited.get().is_null());
        debug_assert!(unswitchable.get() == 0 && parked_as.get().is_none(), "a task takes back what it did");
    }

    pub(super) fn set_name(&self, name: Cow<'static, str>) {
        let first = self.name.set(name);
        debug_assert!(first.is_ok(), "a task gets one name, when it is made");
    }

    #[inline]
    pub(crate) fn key(&self) -> Key {
        self.key.get()
    }

    /// Whether it has begun to run.
    pub(super) fn has_begun(&self) -> bool {
        !self.yielder.get().is_null()
    }

    /// The number of the runtime that the task belongs to.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn id(&self) -> u64 {
        self.key.get().id
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.get().map(|name| &**name)
    }

    /// Whether this is the thread's own stack.
    pub(super) fn is_root(&self) -> bool {
        self.key.get().id == 0
    }

    /// The lowest address of the stack, guard included, and the highest. The thread's own stack is not ours.
    pub(super) fn stack_range(&self) -> Option<(usize, usize)> {
        let range = self.range.get();
        (range.1 != 0).then_some(range)
    }

    /// Runs the task until it waits or ends; tells whether it has ended.
    ///
    /// # Safety
    /// The scheduler's: the task is not running.
    #[inline(always)]
    pub(super) unsafe fn resume(&self) -> bool {
        // SAFETY: promised by the caller: nobody else uses the coroutine, and what runs on it has no access to it.
        let coroutine = unsafe { (*self.coroutine.get()).as_mut() };
        match coroutine {
            Some(coroutine) => matches!(coroutine.resume(()), CoroutineResult::Return(())),
            None => unreachable!("a task that can be resumed has a coroutine"),
        }
    }

    /// Goes back to whoever resumed the task.
    ///
    /// # Safety
    /// Called by the task itself, on its own stack.
    #[inline(always)]
    pub(super) unsafe fn suspend(&self) {
        // SAFETY: set when the task began; the coroutine has not ended, since this runs on it.
        unsafe { (*self.yielder.get()).suspend(()) };
    }

    /// Gives the task what it runs on.
    pub(super) fn set_stack(&self, stack: Stack) {
        self.range.set(stack.range());
        self.stack.set(Some(stack));
    }

    /// Takes the stack of a task that has ended.
    pub(super) fn take_stack(&self) -> Option<Stack> {
        debug_assert!(self.state.get() == State::Done);
        self.stack.take()
    }

    /// Drops the coroutine of a task that has ended.
    ///
    /// # Safety
    /// The scheduler's: the task is not running.
    pub(super) unsafe fn drop_coroutine(&self) {
        // SAFETY: promised by the caller.
        unsafe { *self.coroutine.get() = None };
    }

    /// Why the task may not wait now, if so: somebody has cancelled it, or its time is up.
    #[inline]
    pub(super) fn interruption(&self) -> Option<Error> {
        if !self.marks.canceled.get() && self.frames.get().is_null() { None } else { self.look_for_interruption() }
    }

    /// Walks through the deadlines from the innermost on, until a shield covers the others. A shield of the parent's
    /// does not cover what somebody did to this task.
    #[cold]
    fn look_for_interruption(&self) -> Option<Error> {
        let mut late = false;
        let mut frame = self.frames.get();
        loop {
            if ptr::eq(frame, self.inherited.get()) && self.marks.canceled.get() {
                return Some(Error::Canceled);
            }
            // SAFETY: frames leave the list before they go: the own ones are on this stack, and those of the parent
            // stay until its scope has seen this task end.
            match unsafe { frame.as_ref() } {
                None | Some(Frame::Shield { .. }) => return late.then_some(Error::TimedOut),
                Some(here @ Frame::Deadline(deadline)) => {
                    late |= deadline.is_over();
                    frame = here.outer();
                }
            }
        }
    }

    /// Makes the task one of a scope's children, under the deadlines of that.
    pub(super) fn adopt(&self, children: &Children) {
        children.one_more();
        self.scope.set(children);
        self.frames.set(children.frames());
        self.inherited.set(children.frames());
    }

    /// Makes the task no scope's child any more; tells whose it was.
    pub(super) fn leave_scope(&self) -> *const Children {
        self.frames.set(ptr::null());
        self.inherited.set(ptr::null());
        self.scope.replace(ptr::null())
    }

    /// Whether it must not switch: during a panic, and where the user said so.
    #[inline]
    pub(super) fn is_fixed(&self) -> bool {
        self.unswitchable.get() > 0 || thread::panicking()
    }
}

/// What makes a record a task.
impl Head {
    /// Makes the coroutine of what the task is to run at once. Its closure stays on the spawner's frame until it runs:
    /// one word is handed over, for what is written as several and read as one makes the processor wait.
    ///
    /// # Safety
    /// The task is new and has a stack. When the coroutine is resumed for the first time, which is once, `f` is taken
    /// out of its place. From then on `f` and `T` are valid, and the task is in its place, until it has ended.
    #[inline(always)]
    pub(super) unsafe fn prepare_first<T, F: FnOnce() -> T>(&self, first: &First<'_, F>) -> ManuallyDrop<Routine> {
        let first: *const First<'_, F> = first;
        let body = move |yielder: &Yielder<(), ()>, ()| {
            // SAFETY: promised by the caller: both are there, and `f` is taken once.
            unsafe {
                let task: *const Head = (*first).task;
                // That of the last task on this stack was in the same place.
                if !ptr::eq((*task).yielder.get(), yielder) {
                    (*task).yielder.set(yielder);
                }
                let f = ptr::read(&*(*first).f);
                (*task).run(|| catch_unwind(AssertUnwindSafe(f)).map_err(Failure::Panicked));
            }
        };
        // SAFETY: promised by the caller.
        ManuallyDrop::new(unsafe { Coroutine::with_stack_unchecked(self.ends(), body) })
    }

    /// Makes the coroutine of what the task is to run when its turn comes.
    ///
    /// # Safety
    /// The task is new, has a stack, and is resumed only while `f` and `T` are valid and it is in its place.
    pub(super) unsafe fn prepare<T, F: FnOnce() -> T>(&self, f: F) {
        self.yielder.set(ptr::null());
        let task: *const Head = self;
        let body = move |yielder: &Yielder<(), ()>, ()| {
            // SAFETY: the scheduler keeps the task until it has ended, and this is it. Its outcome is of this type.
            unsafe {
                (*task).yielder.set(yielder);
                (*task).run_unless_canceled(f);
            }
        };
        // SAFETY: promised by the caller.
        unsafe { self.keep(Coroutine::with_stack_unchecked(self.ends(), body)) };
    }

    #[inline]
    fn ends(&self) -> Ends {
        Ends { task: self }
    }

    /// What a task does, if it is not cancelled before.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn run_unless_canceled<T, F: FnOnce() -> T>(&self, f: F) {
        // SAFETY: promised by the caller.
        unsafe {
            if self.marks.never_run.get() {
                contain(|| drop(f));
                self.run(|| Err::<T, _>(Failure::NeverRan));
            } else {
                self.run(|| catch_unwind(AssertUnwindSafe(f)).map_err(Failure::Panicked));
            }
        }
    }

    /// What a task does. Whatever is the user's is dropped here, as part of the task, and not by the scheduler.
    ///
    /// # Safety
    /// The task's outcome is null or leads to one for a `T`.
    #[inline(always)]
    unsafe fn run<T>(&self, f: impl FnOnce() -> Result<T, Failure>) {
        let result = f();
        // SAFETY: promised by the caller. Whoever owns the place keeps it until there is another one or none.
        let place = unsafe { self.outcome.get().cast::<Outcome<T>>().as_ref() };
        // Written into its place at once: a result that is put together elsewhere is copied, and that makes the
        // processor wait. There was none before.
        match (result, place) {
            (Ok(value), Some(place)) => mem::forget(place.replace(Some(Ok(value)))),
            (Err(failure), Some(place)) => leave_failure(place, failure),
            (Ok(value), None) => self.discard(value),
            (Err(failure), None) => self.discard(failure),
        }
        self.locals.clear();
    }

    /// Drops a result that nobody will ask for.
    #[cold]
    #[inline(never)]
    fn discard<T>(&self, unwanted: T) {
        self.locals.clear();
        // It may make new ones.
        contain(|| drop(unwanted));
    }

    /// From now on the result goes elsewhere; to null if nobody will ask for it.
    ///
    /// # Safety
    /// `T` is what the task returns, and the place stays until there is another one or the task has ended.
    #[inline]
    pub(super) unsafe fn put_outcome<T>(&self, outcome: *const Outcome<T>) {
        self.outcome.set(outcome.cast());
    }

    /// Keeps the coroutine, from now on to be [resumed](Self::resume).
    ///
    /// # Safety
    /// The scheduler's: the coroutine is the task's, and not running.
    pub(super) unsafe fn keep(&self, coroutine: Routine) {
        // SAFETY: promised by the caller: nobody else uses it.
        unsafe { *self.coroutine.get() = Some(coroutine) };
    }
}

/// What a task is to run at once, on its spawner's frame.
pub(super) struct First<'a, F> {
    pub(super) task: &'a Head,
    /// Taken out by the task.
    pub(super) f: ManuallyDrop<F>,
}

/// The ends of a task's stack, which the task keeps.
pub(super) struct Ends {
    /// Keeps the coroutine.
    task: *const Head,
}

// SAFETY: they are those of a `Stack`, which promises the same, and is kept for as long as the coroutine. So is the task.
unsafe impl corosensei::stack::Stack for Ends {
    #[inline]
    fn base(&self) -> StackPointer {
        // SAFETY: see above.
        pointer(unsafe { (*self.task).range.get() }.1)
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        // SAFETY: see above.
        pointer(unsafe { (*self.task).range.get() }.0)
    }
}

#[cold]
#[inline(never)]
fn leave_failure<T>(place: &Outcome<T>, failure: Failure) {
    place.set(Some(Err(failure)));
}

/// Runs what may panic where a panic has nowhere to go. Its message has been printed.
pub(super) fn contain(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        // Dropping it might panic again.
        mem::forget(payload);
    }
}
