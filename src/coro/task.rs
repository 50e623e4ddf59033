//! One task: its state, what was done to it, and the place for its result.

use super::{
    interrupt::Frame,
    local::Locals,
    routine::{Exposed, Routine, Run},
    scope::Children,
    wait::Reason,
};
use crate::{
    Error,
    sync::waitlist::{List, LocalLock, Lock},
};
use bitflags::bitflags;
use std::{
    any::Any,
    borrow::Cow,
    cell::{Cell, OnceCell, UnsafeCell},
    mem::{self, ManuallyDrop, MaybeUninit},
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

bitflags! {
    /// What was noted about a task.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) struct Mark: u8 {
        const CANCELED = 1;
        /// It runs even if it is cancelled before its first turn.
        const ALWAYS_RUNS = 1 << 1;
        /// Nothing is left that could end its wait.
        const HOPELESS = 1 << 2;
    }
}

/// The marks of one task.
pub(super) struct Marks(Cell<Mark>);

impl Marks {
    #[inline]
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.0.get().contains(mark)
    }

    /// Tells whether it was there.
    pub(super) fn add(&self, mark: Mark) -> bool {
        self.0.replace(self.0.get() | mark).contains(mark)
    }

    /// Tells whether it was there.
    pub(super) fn remove(&self, mark: Mark) -> bool {
        self.0.replace(self.0.get() - mark).contains(mark)
    }
}

/// A task, as the scheduler knows it; or, when that has ended, a record that may become [another](Self::begin).
pub(crate) struct Head {
    key: Cell<Key>,
    name: OnceCell<Cow<'static, str>>,
    pub(super) state: Cell<State>,
    /// The next one in the queue of those to be resumed.
    pub(super) next: Cell<*const Head>,
    /// What it runs on.
    pub(super) routine: Routine,
    /// What it is to run when its turn comes, if that is small.
    store: UnsafeCell<MaybeUninit<Store>>,
    pub(super) marks: Marks,
    /// Waits refused since it was cancelled, or since its time was up.
    pub(super) refused: Cell<u32>,
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
    outcome: Exposed,
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
            routine: Routine::new(),
            store: UnsafeCell::new(MaybeUninit::uninit()),
            marks: Marks(Cell::new(Mark::empty())),
            refused: Cell::new(0),
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
            outcome: Exposed::null(),
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
            routine: _,
            store: _,
            marks,
            refused,
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
        // Looking is cheaper than writing.
        if !marks.0.get().is_empty() {
            marks.0.set(Mark::empty());
            refused.set(0);
        }
        debug_assert!(name.get().is_none() && locals.is_empty() && refused.get() == 0);
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

    /// Why the task may not wait now, if so: somebody has cancelled it, or its time is up.
    #[inline]
    pub(super) fn interruption(&self) -> Option<Error> {
        if self.may_be_interrupted() { self.look_for_interruption() } else { None }
    }

    /// Whether it is worth to look for an [`interruption`](Self::interruption).
    #[inline]
    pub(super) fn may_be_interrupted(&self) -> bool {
        self.marks.has(Mark::CANCELED) || !self.frames.get().is_null()
    }

    /// Walks through the deadlines from the innermost on, until a shield covers the others. A shield of the parent's
    /// does not cover what somebody did to this task.
    #[cold]
    fn look_for_interruption(&self) -> Option<Error> {
        let mut late = false;
        let mut frame = self.frames.get();
        loop {
            if ptr::eq(frame, self.inherited.get()) && self.marks.has(Mark::CANCELED) {
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
        // What the parent's deadlines were the reason of.
        self.refused.set(0);
        self.scope.replace(ptr::null())
    }

    /// Whether it must not switch: during a panic, and where the user said so.
    #[inline]
    pub(super) fn is_fixed(&self) -> bool {
        self.unswitchable.get() > 0 || thread::panicking()
    }
}

/// What a task is made of: a closure, in its place on the spawner's frame, and what can be done with it.
#[derive(Clone, Copy)]
pub(super) struct Work {
    ways: &'static Ways,
    f: *const (),
}

struct Ways {
    /// Takes the closure out of its place and runs it.
    run: Run,
    /// Takes it out of its place, and tells where it is now.
    store: unsafe fn(task: &Head, f: *const ()) -> *const (),
    /// Takes it out of where it was stored, and runs it if the task is not cancelled.
    run_stored: Run,
}

/// Room for the closure of a task that waits for its turn.
type Store = [usize; 4];

const fn fits_into_store<F>() -> bool {
    size_of::<F>() <= size_of::<Store>() && align_of::<F>() <= align_of::<Store>()
}

impl Work {
    #[inline(always)]
    pub(super) fn new<T, F: FnOnce() -> T>(f: &ManuallyDrop<F>) -> Work {
        let ways = const { &Ways { run: run::<T, F>, store: store::<F>, run_stored: run_stored::<T, F> } };
        Work { ways, f: (&raw const *f).cast() }
    }
}

/// # Safety
/// `f` is an `F`, which is taken. It and `T` are valid until the task has ended, and so is its outcome, one for a `T`.
/// Called by the task itself.
unsafe fn run<T, F: FnOnce() -> T>(task: &Head, f: *const ()) {
    // SAFETY: promised by the caller.
    unsafe {
        let f = ptr::read(f.cast::<F>());
        task.run(|| catch_unwind(AssertUnwindSafe(f)).map_err(Failure::Panicked));
    }
}

/// # Safety
/// `f` is an `F`, which is taken. The task has none yet.
unsafe fn store<F>(task: &Head, f: *const ()) -> *const () {
    // SAFETY: promised by the caller; there is room.
    unsafe {
        let f = ptr::read(f.cast::<F>());
        if fits_into_store::<F>() {
            let place = task.store.get();
            place.cast::<F>().write(f);
            place.cast_const().cast()
        } else {
            Box::into_raw(Box::new(f)).cast_const().cast()
        }
    }
}

/// # Safety
/// As [`run`], for an `F` that was stored.
unsafe fn run_stored<T, F: FnOnce() -> T>(task: &Head, f: *const ()) {
    let f = f.cast::<F>().cast_mut();
    let never = task.marks.has(Mark::CANCELED) && !task.marks.has(Mark::ALWAYS_RUNS);
    // SAFETY: promised by the caller. What did not fit was boxed.
    unsafe {
        match (never, fits_into_store::<F>()) {
            (false, true) => run::<T, F>(task, f.cast()),
            (false, false) => {
                let f = Box::from_raw(f);
                task.run(|| catch_unwind(AssertUnwindSafe(f)).map_err(Failure::Panicked));
            }
            (true, fits) => {
                contain(|| if fits { f.drop_in_place() } else { drop(Box::from_raw(f)) });
                task.run(|| Err::<T, _>(Failure::NeverRan));
            }
        }
    }
}

/// What a task does, once it has a stack.
impl Head {
    /// Has it do this when it is resumed.
    #[inline(always)]
    pub(super) fn put(&self, work: Work) {
        self.routine.put(work.ways.run, work.f);
    }

    /// As [`put`](Self::put), for when its spawner has gone on.
    ///
    /// # Safety
    /// The closure is taken.
    pub(super) unsafe fn put_for_later(&self, work: Work) {
        // SAFETY: promised by the caller; nothing is stored.
        let stored = unsafe { (work.ways.store)(self, work.f) };
        self.routine.put(work.ways.run_stored, stored);
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
    /// It is an [`Outcome`] of what the task returns, and stays until there is another one or the task has ended.
    #[inline]
    pub(super) unsafe fn put_outcome(&self, outcome: *const ()) {
        self.outcome.set(outcome);
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
