//! Values of which each task has its own.

use super::{runtime::Runtime, task::contain};
use crate::Error;
use std::{any::Any, cell::RefCell, fmt, rc::Rc};

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
                locals.0.borrow_mut().push((key, fresh.clone()));
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
pub(super) struct Locals(RefCell<Vec<(usize, Rc<dyn Any>)>>);

impl Locals {
    pub(super) fn new() -> Locals {
        Locals(RefCell::default())
    }

    fn find(&self, key: usize) -> Option<Rc<dyn Any>> {
        self.0.borrow().iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone())
    }

    /// Drops the values, the youngest first. Their destructors may use task-locals, and so make new ones.
    pub(super) fn clear(&self) {
        loop {
            let last = self.0.borrow_mut().pop();
            let Some((_, value)) = last else { return };
            // None may be left: the scheduler would drop it, where it could do harm by panicking or waiting.
            contain(|| drop(value));
        }
    }
}
