//! What tasks are doing, for people.

use super::{
    runtime::Runtime,
    task::{Head, Mark, State},
};
use std::fmt;

/// The tasks of a runtime, and what each is doing; made by [`dump`]. Prints as a list.
#[derive(Clone, Debug)]
pub struct Dump {
    /// The tasks that have not ended; the root is the first.
    pub tasks: Vec<TaskReport>,
}

/// One task of a [`Dump`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskReport {
    /// Its number. The root's is 0.
    pub id: u64,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it waits for, in words; `None` if it is running or about to.
    pub waits_for: Option<String>,
    /// Whether somebody has asked it to end.
    pub canceled: bool,
}

/// What the tasks of the calling thread's runtime are doing.
///
/// ```
/// use aio::coro::{self, Builder};
/// use std::time::Duration;
///
/// coro::run(|| {
///     let task = Builder::new().name("sleeper").spawn(|| coro::sleep(Duration::from_secs(60)))?;
///     let dump = coro::dump();
///     assert_eq!(dump.tasks[1].name.as_deref(), Some("sleeper"));
///     assert_eq!(dump.tasks[1].waits_for.as_deref(), Some("Timeout"));
///     println!("{dump}");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
///
/// Outside a runtime.
pub fn dump() -> Dump {
    dump_of(Runtime::expect("coro::dump"))
}

pub(super) fn dump_of(runtime: &Runtime) -> Dump {
    let mut tasks = Vec::new();
    runtime.table.for_each(|task| tasks.push(describe(task)));
    tasks.sort_by_key(|task| task.id);
    tasks.insert(0, describe(runtime.root()));
    Dump { tasks }
}

fn describe(task: &Head) -> TaskReport {
    let waits = task.state.get() == State::Parked;
    TaskReport {
        id: task.id(),
        name: task.name().map(str::to_owned),
        waits_for: waits.then(|| task.reason.get().to_string()),
        canceled: task.marks.has(Mark::CANCELED),
    }
}

impl TaskReport {
    fn who(&self) -> String {
        match &self.name {
            Some(name) => format!("task {} \"{name}\"", self.id),
            None => format!("task {}", self.id),
        }
    }
}

impl fmt::Display for TaskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.who())?;
        match &self.waits_for {
            Some(what) => write!(f, " waits for {what}")?,
            None => f.write_str(" runs")?,
        }
        if self.canceled { f.write_str(" (cancelled)") } else { Ok(()) }
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, task) in self.tasks.iter().enumerate() {
            write!(f, "{}  {task}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// Every task waits for another one.
#[cold]
pub(super) fn deadlock(runtime: &Runtime) {
    crate::complete::complain(format_args!(
        "deadlock: every task waits, and nothing is left that could wake one:\n{}",
        dump_of(runtime)
    ));
}

/// The end of a runtime takes long.
#[cold]
pub(super) fn slow_end(runtime: &Runtime) {
    let mut dump = dump_of(runtime);
    dump.tasks.remove(0);
    crate::complete::complain(format_args!("the runtime cannot end yet; it waits for:\n{dump}"));
}

/// A task does not take its cancellation for an answer.
#[cold]
pub(super) fn careless(task: &Head) -> ! {
    crate::complete::complain(format_args!(
        "{} goes on waiting although each wait tells it that it was cancelled; a loop must end when \
         aio::is_canceled(&error); aborting",
        describe(task).who()
    ));
    std::process::abort();
}

/// A forked child has come back into the scheduler of its parent.
#[cold]
pub(super) fn forked() -> ! {
    crate::complete::complain(format_args!(
        "a forked child has come back into its parent's coroutine runtime; it must exec or exit; aborting"
    ));
    std::process::abort();
}
