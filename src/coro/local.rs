//! Values of which each task has its own.

use super::{runtime::Runtime, task::contain};
use crate::Error;
use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

/// A value of which each task has its own, made when it is first used there, and dropped at the end of the task.
///
/// What `thread_local!` is for threads: tasks share their thread's, and must not be suspended while they borrow one.
///
/// ```
/// use aio::coro::{self, TaskLocal};
/// use std::cell::Cell;
///
/// static REQUEST: TaskLocal<Cell<u64>> = TaskLocal::new(|| Cell::new(0));
///
/// coro::run(|| {
///     REQUEST.with(|id| id.set(7));
///     let other = coro::spawn(|| REQUEST.with(|id| id.get()));
///     assert_eq!(other.join().unwrap(), 0);
///     assert_eq!(REQUEST.with(|id| id.get()), 7);
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub struct TaskLocal<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> TaskLocal<T> {
    /// A value that `init` makes for each task. Meant for a `static`.
    pub const fn new(init: fn() -> T) -> TaskLocal<T> {
        TaskLocal { init }
    }

    /// Calls `f` with the calling task's value. The task may be suspended in `f`.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        match self.try_with(f) {
            Ok(value) => value,
            Err(_) => panic!("a task-local was used outside a runtime; use it inside coro::run"),
        }
    }

    /// As [`with`](Self::with), with an error outside a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::WrongRuntime`] outside a runtime; `f` is dropped.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, Error> {
        let locals = &Runtime::current_runtime().ok_or(Error::WrongRuntime)?.current().locals;
        let key = (&raw const *self).addr();
        let known = locals.find(key);
        let value = match known {
            Some(value) => value,
            None => {
                // May be the user's, and may use task-locals.
                let fresh: Rc<dyn Any> = Rc::new((self.init)());
                locals.push(key, fresh.clone());
                fresh
            }
        };
        match value.downcast_ref() {
            Some(value) => Ok(f(value)),
            None => unreachable!("the address of a static stands for its type"),
        }
    }
}

impl<T> fmt::Debug for TaskLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLocal").finish_non_exhaustive()
    }
}

/// The values of one task.
#[derive(Default)]
pub(super) struct Locals {
    values: RefCell<Vec<(usize, Rc<dyn Any>)>>,
    /// There may be some. Looked at for each task that ends.
    any: Cell<bool>,
}

impl Locals {
    fn find(&self, key: usize) -> Option<Rc<dyn Any>> {
        self.values.borrow().iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone())
    }

    fn push(&self, key: usize, value: Rc<dyn Any>) {
        self.any.set(true);
        self.values.borrow_mut().push((key, value));
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any.get()
    }

    /// Drops the values, the youngest first. Their destructors may use task-locals, and so make new ones.
    #[inline]
    pub(super) fn clear(&self) {
        if self.any.get() {
            self.clear_all();
        }
    }

    #[cold]
    fn clear_all(&self) {
        loop {
            let last = self.values.borrow_mut().pop();
            let Some((_, value)) = last else { break };
            // None may be left: the scheduler would drop it, where it could do harm by panicking or waiting.
            contain(|| drop(value));
        }
        self.any.set(false);
    }
}
