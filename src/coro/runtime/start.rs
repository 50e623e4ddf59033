//! Making tasks, and running them for the first time.

use super::{
    super::{
        stack::Stack,
        task::{Head, Work},
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
        // SAFETY: it is new, and stays in its place.
        unsafe { task.routine.begin(task, stack) };
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

    /// Puts a new task into the queue, which will do that work.
    ///
    /// # Safety
    /// As [`Head::put_for_later`]. What it takes, and its outcome, stay valid until the task has ended.
    pub(in crate::coro) unsafe fn enqueue(&self, task: &Head, work: Work) -> Rc<Head> {
        // SAFETY: promised by the caller.
        unsafe { task.put_for_later(work) };
        self.enqueued.set(self.enqueued.get() + 1);
        self.make_ready(task);
        self.keep(task)
    }

    /// Takes note of a task that has not ended below its spawner.
    pub(in crate::coro) fn keep(&self, task: &Head) -> Rc<Head> {
        task.depth.set(0);
        task.routine.stay(false);
        self.table.give_away(task);
        if self.closing.get() {
            // It has to be ended as well.
            self.wake(&self.root);
        }
        self.known(task)
    }

    /// Runs a new task below the caller, until it waits or ends; tells whether it has ended.
    ///
    /// # Safety
    /// There is work for it, which it takes.
    #[inline(always)]
    pub(in crate::coro) unsafe fn run_first(&self, task: &Head) -> bool {
        let depth = self.current().depth.get() + 1;
        // That of the last task with this record, mostly.
        if task.depth.get() != depth {
            task.depth.set(depth);
        }
        // SAFETY: promised by the caller; a new task does not run.
        self.switch_to(task, || unsafe { task.routine.resume() })
    }

    /// Takes care of a task that has ended before it was suspended. One that may be spare is plain, and its coroutine
    /// stays. There may be another task in its place then.
    #[inline(always)]
    pub(in crate::coro) fn end_first(&self, task: &Head, spare: bool) {
        // It is not the last one, for which a root that closes the runtime would wait: the spawner goes on.
        self.note_end(task);
        self.leave_scope(task);
        if !(spare && self.table.save(task)) {
            self.remove(task);
        }
    }
}
