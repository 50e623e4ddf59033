//! One task: its coroutine, its state, and the cell for its result.

use super::{interrupt::Frame, local::Locals, scope::Children, stack::Stack, wait::Reason};
use crate::{
    Error,
    sync::waitlist::{List, LocalLock, Lock},
};
use corosensei::{Coroutine, CoroutineResult, Yielder, stack::STACK_ALIGNMENT};
use std::{
    any::Any,
    borrow::Cow,
    cell::{Cell, RefCell, UnsafeCell},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    rc::Rc,
    thread,
};

/// What a closure may have captured to be put on its stack before that is in use. Corosensei panics above 1 KiB.
const LARGEST_ON_STACK: usize = 512;

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

/// What the scheduler knows of a task.
pub(crate) struct Head {
    key: Cell<Key>,
    name: Option<Cow<'static, str>>,
    pub(super) state: Cell<State>,
    /// The next one in the queue of those to be resumed.
    pub(super) next: Cell<*const Head>,
    coroutine: UnsafeCell<Option<Coroutine<(), (), (), Stack>>>,
    /// Of its stack.
    range: Cell<(usize, usize)>,
    /// On the coroutine's stack, valid while it runs.
    yielder: Cell<*const Yielder<(), ()>>,
    pub(super) canceled: Cell<bool>,
    /// It was cancelled before it began.
    pub(super) never_run: Cell<bool>,
    /// It runs even if it is cancelled before.
    pub(super) always_runs: Cell<bool>,
    /// The runtime's number.
    serial: Cell<u32>,
    /// The innermost deadline or shield that the task is in.
    pub(super) frames: Cell<*const Frame>,
    /// The innermost of those that it has from its parent; the others are on its own stack.
    inherited: Cell<*const Frame>,
    /// Waits refused since it was cancelled.
    pub(super) refused: Cell<u32>,
    /// Nothing is left that could end its wait.
    pub(super) hopeless: Cell<bool>,
    /// The scope that it is a child of.
    pub(super) scope: Cell<*const Children>,
    /// How many `no_suspend`s it is in.
    pub(super) unswitchable: Cell<u32>,
    pub(super) reason: Cell<Reason>,
    /// What `park` was given, while the task is parked by it.
    pub(super) parked_as: Cell<Option<u32>>,
    pub(super) locals: Locals,
    /// Those who wait for its end.
    pub(super) joiners: LocalLock<List>,
    /// Handles that may still ask for the result.
    handles: Cell<u32>,
    /// A stack of the caller's, when the task has ended on it.
    pub(super) returned: RefCell<Option<Stack>>,
}

/// A task with room for its result. Shared by the scheduler while the task lives, and by its handle.
pub(super) struct Task<O: ?Sized = dyn Anything> {
    pub(super) head: Head,
    outcome: O,
}

/// A result, once there is one.
pub(super) type Outcome<T> = RefCell<Option<Result<T, Failure>>>;

/// Why a task gave no result.
pub(super) enum Failure {
    Panicked(Box<dyn Any + Send>),
    /// It was cancelled before it ran.
    NeverRan,
}

impl Head {
    #[inline(always)]
    pub(super) fn new(name: Option<Cow<'static, str>>) -> Head {
        Head {
            key: Cell::new(Key { index: 0, id: 0 }),
            name,
            state: Cell::new(State::Running),
            next: Cell::new(ptr::null()),
            coroutine: UnsafeCell::new(None),
            range: Cell::new((0, 0)),
            yielder: Cell::new(ptr::null()),
            canceled: Cell::new(false),
            never_run: Cell::new(false),
            always_runs: Cell::new(false),
            serial: Cell::new(0),
            frames: Cell::new(ptr::null()),
            inherited: Cell::new(ptr::null()),
            refused: Cell::new(0),
            hopeless: Cell::new(false),
            scope: Cell::new(ptr::null()),
            unswitchable: Cell::new(0),
            reason: Cell::new(Reason::STARTING),
            parked_as: Cell::new(None),
            locals: Locals::new(),
            joiners: <LocalLock<List> as Lock<List>>::NEW,
            handles: Cell::new(1),
            returned: RefCell::new(None),
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key.get()
    }

    pub(super) fn set_key(&self, key: Key) {
        self.key.set(key);
    }

    /// Whether it has begun to run.
    pub(super) fn has_begun(&self) -> bool {
        !self.yielder.get().is_null()
    }

    /// The number of the runtime that the task belongs to.
    pub(super) fn serial(&self) -> u32 {
        self.serial.get()
    }

    pub(super) fn set_serial(&self, serial: u32) {
        self.serial.set(serial);
    }

    pub(super) fn id(&self) -> u64 {
        self.key.get().id
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
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

    /// Takes the stack of a task that has ended.
    ///
    /// # Safety
    /// The scheduler's: the task has ended.
    pub(super) unsafe fn take_stack(&self) -> Option<Stack> {
        // SAFETY: promised by the caller.
        unsafe { (*self.coroutine.get()).take() }.map(Coroutine::into_stack)
    }

    /// Why the task may not wait now, if so: somebody has cancelled it, or its time is up.
    #[inline]
    pub(super) fn interruption(&self) -> Option<Error> {
        if !self.canceled.get() && self.frames.get().is_null() { None } else { self.look_for_interruption() }
    }

    /// Walks through the deadlines from the innermost on, until a shield covers the others. A shield of the parent's
    /// does not cover what somebody did to this task.
    #[cold]
    fn look_for_interruption(&self) -> Option<Error> {
        let mut late = false;
        let mut frame = self.frames.get();
        loop {
            if ptr::eq(frame, self.inherited.get()) && self.canceled.get() {
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

    /// Whether it must not switch: during a panic, and where the user said so.
    #[inline]
    pub(super) fn is_fixed(&self) -> bool {
        self.unswitchable.get() > 0 || thread::panicking()
    }
}

impl<T> Task<Outcome<T>> {
    #[inline(always)]
    pub(super) fn new(name: Option<Cow<'static, str>>) -> Rc<Task<Outcome<T>>> {
        let mut task = Rc::<Task<Outcome<T>>>::new_uninit();
        if let Some(place) = Rc::get_mut(&mut task) {
            // In its place, for it is large.
            place.write(Task { head: Head::new(name), outcome: RefCell::new(None) });
        }
        // SAFETY: a new `Rc` has no other owner, so it was written.
        unsafe { task.assume_init() }
    }

    /// Gives the task its stack and what it is to run.
    ///
    /// # Safety
    /// The task is new, is resumed only while `f` and `T` are valid, and stays in its place until it has ended.
    pub(super) unsafe fn prepare<F: FnOnce() -> T>(self: &Rc<Self>, stack: Stack, f: F) {
        // SAFETY: promised by the caller. Boxed, the closure is as valid as before.
        unsafe {
            if size_of::<F>() <= LARGEST_ON_STACK && align_of::<F>() <= STACK_ALIGNMENT {
                self.prepare_small(stack, f);
            } else {
                self.prepare_small(stack, Box::new(f));
            }
        }
    }

    /// # Safety
    /// As [`prepare`](Self::prepare).
    unsafe fn prepare_small<F: FnOnce() -> T>(self: &Rc<Self>, stack: Stack, f: F) {
        let task = Rc::as_ptr(self);
        self.head.range.set(stack.range());
        let body = move |yielder: &Yielder<(), ()>, ()| {
            // SAFETY: the scheduler keeps the task until it has ended, and this is it.
            let task = unsafe { &*task };
            task.head.yielder.set(yielder);
            task.run(f);
        };
        // SAFETY: promised by the caller; nobody else uses the coroutine of a new task.
        unsafe { *self.head.coroutine.get() = Some(Coroutine::with_stack_unchecked(stack, body)) };
    }

    /// What a task does. Whatever is the user's is dropped here, as part of the task, and not by the scheduler.
    fn run<F: FnOnce() -> T>(&self, f: F) {
        let result = if self.head.never_run.get() {
            contain(|| drop(f));
            Err(Failure::NeverRan)
        } else {
            catch_unwind(AssertUnwindSafe(f)).map_err(Failure::Panicked)
        };
        self.head.locals.clear();
        if self.head.handles.get() > 0 {
            *self.outcome.borrow_mut() = Some(result);
        } else {
            contain(|| drop(result));
            // That may have made new ones.
            self.head.locals.clear();
        }
    }

    /// Takes the result, once there is one.
    pub(super) fn take_outcome(&self) -> Option<Result<T, Failure>> {
        self.outcome.borrow_mut().take()
    }

    /// The handle is gone: nobody will ask for the result.
    pub(super) fn detach(&self) {
        self.head.handles.set(self.head.handles.get() - 1);
        drop(self.take_outcome());
    }
}

/// Runs what may panic where a panic has nowhere to go. Its message has been printed.
pub(super) fn contain(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        // Dropping it might panic again.
        mem::forget(payload);
    }
}

/// Anything, of any lifetime: the scheduler does not look at results.
pub(super) trait Anything {}

impl<T> Anything for T {}
