//! Making tasks, and running them for the first time.

use super::{
    super::{
        stack::Stack,
        task::{Head, Routine},
    },
    Runtime,
};
use crate::engine;
use std::{io, rc::Rc};

/// Tasks that run below one another, each having spawned the next. Deeper ones wait for their turn.
const DEEPEST: u32 = 64;

impl Runtime {
    /// Makes a task on that stack, or on one of this size.
    #[inline(never)]
    pub(in crate::coro) fn make_task(&self, stack: Option<Stack>, size: Option<usize>) -> io::Result<&Head> {
        if stack.is_none()
            && size.is_none_or(|size| size == self.config.stack_size)
            && let Some(task) = self.table.add_spare()
        {
            return Ok(task);
        }
        let stack = match stack {
            Some(stack) => stack,
            None => self.pool.borrow_mut().take(size.unwrap_or(self.config.stack_size))?,
        };
        let task = Rc::as_ptr(&self.table.add());
        // SAFETY: the table keeps the task until it has ended; nobody uses it for longer.
        let task = unsafe { &*task };
        task.set_stack(stack);
        Ok(task)
    }

    /// The task, for one who keeps it.
    pub(in crate::coro) fn known(&self, task: &Head) -> Rc<Head> {
        match self.table.get(task.key()) {
            Some(task) => task,
            None => unreachable!("a task that has not ended is in the table"),
        }
    }

    /// Whether a task may run below the caller.
    #[inline(always)]
    pub(in crate::coro) fn may_start(&self) -> bool {
        // Inside another engine's `Config::run` the task could not wait as a task.
        engine::is_current(&self.engine) && self.current().depth.get() < DEEPEST && !self.current().is_fixed()
    }

    /// Puts a new task into the queue, which will run `f`.
    ///
    /// # Safety
    /// As [`Head::prepare`].
    #[inline(never)]
    pub(in crate::coro) unsafe fn enqueue<T, F: FnOnce() -> T>(&self, task: &Head, f: F) -> Rc<Head> {
        // SAFETY: promised by the caller.
        unsafe { task.prepare::<T, F>(f) };
        self.enqueued.set(self.enqueued.get() + 1);
        self.make_ready(task);
        self.keep(task)
    }

    /// Takes note of a task that has not ended below its spawner.
    pub(in crate::coro) fn keep(&self, task: &Head) -> Rc<Head> {
        task.depth.set(0);
        if self.closing.get() {
            // It has to be ended as well.
            self.wake(&self.root);
        }
        self.known(task)
    }

    /// Runs a new task below the caller, until it waits or ends; tells whether it has ended.
    #[inline(always)]
    pub(in crate::coro) fn run_first(&self, task: &Head, coroutine: &mut Routine) -> bool {
        let depth = self.current().depth.get() + 1;
        // That of the last task with this record, mostly.
        if task.depth.get() != depth {
            task.depth.set(depth);
        }
        self.switch_to(task, || coroutine.resume(()).as_return().is_some())
    }

    /// As [`run_first`](Self::run_first), once for all kinds of closures.
    #[inline(never)]
    pub(in crate::coro) fn run_first_apart(&self, task: &Head, coroutine: &mut Routine) -> bool {
        self.run_first(task, coroutine)
    }

    /// Takes care of a task that has ended before it was suspended. A plain one has a stack of the usual size and no
    /// name. There may be another task in its place then.
    #[inline(always)]
    pub(in crate::coro) fn end_first(&self, task: &Head, plain: bool) {
        // It is not the last one, for which a root that closes the runtime would wait: the spawner goes on.
        self.note_end(task);
        self.leave_scope(task);
        if !(plain && self.table.save(task)) {
            self.remove(task);
        }
    }
}
