//! What a task runs on: a stack, and a coroutine there that runs one job after another.
//!
//! A coroutine that goes on with the next job costs one switch to it and one back. To make one for each job would cost
//! as much again. But one whose job has waited returns when that has ended: the calls on its stack were made before
//! others, and a processor that foresees returns is wrong about all that follow if some of them never return.

use super::{stack::Stack, task::Head};
use corosensei::{
    Coroutine, CoroutineResult, Yielder,
    stack::{Stack as _, StackPointer},
};
use std::{
    cell::{Cell, UnsafeCell},
    ptr,
};

/// Why a coroutine comes back to whoever resumed it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The job waits, and is to be resumed.
    Waits,
    /// It has ended, and there may be another one.
    Ended,
}

/// Does a job of which `what` tells more.
pub(super) type Run = unsafe fn(task: &Head, what: *const ());

/// One of these is part of each task's record. The root's has no stack: it runs on the thread's own.
pub(super) struct Routine {
    coroutine: UnsafeCell<Option<Coroutine<(), Stop, (), Ends>>>,
    /// On the coroutine's stack.
    yielder: Cell<*const Yielder<(), Stop>>,
    /// The next job, or the one that runs.
    run: Cell<Run>,
    what: Exposed,
    /// Another job may follow this one.
    stays: Cell<bool>,
    /// The ends of the stack, guard included.
    range: Cell<(usize, usize)>,
    stack: Cell<Option<Stack>>,
}

impl Routine {
    pub(super) fn new() -> Routine {
        Routine {
            coroutine: UnsafeCell::new(None),
            yielder: Cell::new(ptr::null()),
            run: Cell::new(|_, _| ()),
            what: Exposed::null(),
            stays: Cell::new(false),
            range: Cell::new((0, 0)),
            stack: Cell::new(None),
        }
    }

    /// Gives it the stack that its task's jobs are to run on.
    ///
    /// # Safety
    /// This is the routine of that task, has no stack, and stays in its place until the stack is [taken](Self::end).
    pub(super) unsafe fn begin(&self, task: *const Head, stack: Stack) {
        self.range.set(stack.range());
        let ends = Ends { base: stack.base(), limit: stack.limit() };
        self.stack.set(Some(stack));
        let body = move |yielder: &Yielder<(), Stop>, ()| {
            // SAFETY: promised by the caller. Whoever has put a job there keeps what it needs, and each is run once.
            unsafe {
                let routine = &(*task).routine;
                routine.yielder.set(yielder);
                loop {
                    (routine.run.get())(&*task, routine.what.get());
                    if !routine.stays.get() {
                        break;
                    }
                    yielder.suspend(Stop::Ended);
                }
            }
        };
        // SAFETY: nothing is borrowed. Nobody else uses the coroutine: it was none until now.
        unsafe { *self.coroutine.get() = Some(Coroutine::with_stack_unchecked(ends, body)) };
    }

    /// Takes the stack, if there is one.
    ///
    /// # Safety
    /// No job runs or waits.
    pub(super) unsafe fn end(&self) -> Option<Stack> {
        // SAFETY: promised by the caller.
        unsafe { self.reset() };
        self.stack.take()
    }

    /// Drops the coroutine.
    ///
    /// # Safety
    /// No job runs or waits.
    unsafe fn reset(&self) {
        // SAFETY: promised by the caller: nobody uses it. Between jobs there is nothing on its stack that would have to be dropped.
        unsafe {
            if let Some(coroutine) = &mut *self.coroutine.get() {
                coroutine.force_reset();
            }
            *self.coroutine.get() = None;
        }
    }

    /// Leaves a stack of the caller's here, for whoever comes for it.
    pub(super) fn leave_stack(&self, stack: Stack) {
        self.stack.set(Some(stack));
    }

    /// Takes what was left.
    pub(super) fn left_stack(&self) -> Option<Stack> {
        self.stack.take()
    }

    /// The lowest address of the stack, guard included, and the highest. The thread's own stack is not ours.
    pub(super) fn range(&self) -> Option<(usize, usize)> {
        let range = self.range.get();
        (range.1 != 0).then_some(range)
    }

    /// Whether the coroutine is to wait for another job after this one, instead of returning.
    pub(super) fn stay(&self, stays: bool) {
        self.stays.set(stays);
    }

    /// Puts the job there that is run next.
    #[inline(always)]
    pub(super) fn put(&self, run: Run, what: *const ()) {
        if !ptr::fn_addr_eq(self.run.get(), run) {
            self.run.set(run);
        }
        self.what.set(what);
    }

    /// Runs the job until it waits or ends; tells whether it has ended.
    ///
    /// # Safety
    /// There is a stack, and no job runs. There is one that waits or was [put](Self::put) there; what it needs stays
    /// until it has ended.
    #[inline(always)]
    pub(super) unsafe fn resume(&self) -> bool {
        // SAFETY: promised by the caller: nobody else uses the coroutine, and what runs on it has no access to it.
        let coroutine = unsafe { (*self.coroutine.get()).as_mut() };
        match coroutine.map(|coroutine| coroutine.resume(())) {
            Some(CoroutineResult::Yield(stop)) => stop == Stop::Ended,
            Some(CoroutineResult::Return(())) => true,
            None => unreachable!("what is resumed has a stack"),
        }
    }

    /// Goes back to whoever resumed the job.
    ///
    /// # Safety
    /// Called by the job itself, on its own stack.
    #[inline(always)]
    pub(super) unsafe fn suspend(&self) {
        // SAFETY: set before the first job; the coroutine has not ended, since this runs on it.
        unsafe { (*self.yielder.get()).suspend(Stop::Waits) };
    }
}

impl Drop for Routine {
    fn drop(&mut self) {
        // Only a spare one waits for another job. With a job on its stack, to drop the coroutine aborts the process.
        if self.stays.get() {
            // SAFETY: the record of a task that has not ended is kept, and this one goes; it is between two jobs.
            unsafe { self.reset() };
        }
    }
}

/// A pointer that is only written if it is another one than before, which is cheaper. What it leads to may be another
/// thing in the same place, so that its provenance is exposed.
pub(super) struct Exposed(Cell<usize>);

impl Exposed {
    pub(super) const fn null() -> Exposed {
        Exposed(Cell::new(0))
    }

    #[inline(always)]
    pub(super) fn set(&self, pointer: *const ()) {
        let address = pointer.expose_provenance();
        if self.0.get() != address {
            self.0.set(address);
        }
    }

    #[inline(always)]
    pub(super) fn get(&self) -> *const () {
        ptr::with_exposed_provenance(self.0.get())
    }
}

/// The ends of a routine's stack, which it keeps.
struct Ends {
    base: StackPointer,
    limit: StackPointer,
}

// SAFETY: they are those of a `Stack`, which promises the same, and is kept for as long as the coroutine.
unsafe impl corosensei::stack::Stack for Ends {
    #[inline]
    fn base(&self) -> StackPointer {
        self.base
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        self.limit
    }
}
