//! Coroutine tasks: sequential code that yields at each submission.
//!
//! Inside [`run`] the functions of this crate are the same functions, but what would block the thread suspends the
//! calling task instead, and the others run. A task is plain code with a stack of its own: no `async`, no `Future`, and
//! what an operation borrows stays borrowed for as long as it takes.
//!
//! ```
//! use aio::{coro, op::*};
//! use std::os::unix::net::UnixStream;
//!
//! coro::run(|| {
//!     let (a, b) = UnixStream::pair()?;
//!     coro::scope(|s| {
//!         let reader = s.spawn(|| {
//!             let mut buffer = [0; 5];
//!             aio::single(Recv::new(&a, &mut buffer)).map(|_| buffer)       // suspends this task
//!         });
//!         aio::single(Send::new(&b, "hello"))?;
//!         assert_eq!(&reader.join().unwrap()?, b"hello");
//!         Ok::<(), aio::Error>(())
//!     })?;
//!     Ok::<(), std::io::Error>(())
//! })??;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Tasks
//!
//! [`spawn`] starts a task, which runs at once until it waits for the first time; its [`JoinHandle`] waits for it or
//! cancels it. [`scope`] is for children that borrow from their parent, [`gather`] and [`race`] for a few at a time.
//! All tasks of a runtime run on the thread that called [`run`], one at a time, and switch only where they wait; so
//! data that they share needs no locks as long as nothing waits in the middle, and [`sync`](crate::sync) has what does.
//! For more threads, call `run` on each; [`Remote`] and [`sync::shared`](crate::sync::shared) reach across.
//!
//! # Cancellation
//!
//! Cancelling a task, or a [`timeout`], is an error value that waits give from then on, not an unwinding: a task ends
//! by its own `?`. Operations in flight are cancelled in the kernel and waited for first, so nothing is written to
//! memory that is gone. When the root, the closure that `run` was given, returns, the tasks that are left are cancelled
//! and waited for.
//!
//! # Limits
//!
//! What a coroutine cannot do, in any Rust library:
//!
//! - **Thread-locals used as a stack.** Code that keeps a pointer to a local in a thread-local for the time of a call
//!   (`scoped-tls` and its like), or that initialises a thread-local, must not be suspended meanwhile: another task of
//!   the thread could see the pointer after its local has gone, which is undefined behaviour that safe code can reach.
//!   Wrap such calls in [`no_suspend`]. Borrowing from `LocalKey::with` across a wait is the same.
//! - **Guards of std locks.** A task that waits while it holds a `std::sync::Mutex` blocks every other task that wants
//!   it, and thereby itself. The locks of [`sync`](crate::sync) suspend.
//! - **Blocking calls** of other libraries block all tasks; [`offload`] runs them on a thread.
//! - **While a panic unwinds** tasks are not switched: operations in destructors block the thread, and waits for other
//!   tasks give [`Error::NoSuspend`](crate::Error::NoSuspend).
//! - **Stacks are of a fixed size**, 256 KiB of address space unless [`Config::stack_size`] or [`Builder::stack_size`]
//!   says otherwise, of which memory is used as it is touched. Overflow ends the process with a message that names the
//!   task. Deep recursion, and some libraries (a TLS handshake in a debug build), want more.

mod config;
mod embed;
mod group;
mod id;
mod interrupt;
mod join;
mod local;
mod offload;
mod remote;
mod remote_join;
mod report;
mod routine;
mod runtime;
mod scope;
mod select;
mod spawn;
mod stack;
pub(crate) mod stream;
mod table;
mod task;
mod time;
pub(crate) mod wait;

pub use config::{Config, PoolStats, Stats, stats};
pub use embed::{Tick, Ticker, embed};
pub use group::{Group, Race, gather, race};
pub use id::{TaskId, current, park};
pub use interrupt::{deadline, no_suspend, shield, timeout};
pub use join::{JoinError, JoinHandle, StackHandle};
pub use local::TaskLocal;
pub(crate) use offload::offload_surely;
pub use offload::{CancelToken, offload, offload_with};
pub use remote::{Remote, RuntimeEnded, remote};
pub use remote_join::RemoteHandle;
pub use report::{Dump, TaskReport, dump};
pub(crate) use runtime::Runtime;
pub use scope::{Scope, ScopedJoinHandle, scope, try_scope};
pub use select::{Arm, Arms, select};
pub(crate) use select::{Sealed as ArmSealed, Watch};
pub use spawn::{Builder, OnStack, spawn};
pub use stack::{Stack, StackStats};
pub use time::{Interval, interval, sleep, sleep_until, yield_now};

use crate::SetupError;

/// Runs `f` as the root task of a new runtime on this thread, and gives what it returns.
///
/// `f` runs on the thread's own stack and may borrow. When it returns, or panics, the tasks that are left are
/// [cancelled](JoinHandle::cancel) and waited for. That takes as long as what they do cannot be cancelled: disk
/// operations that the device works on, and [`offload`]ed code. If it takes more than a second, standard error says for
/// whom.
///
/// ```
/// let answer = aio::coro::run(|| aio::coro::spawn(|| 42).join().unwrap())?;
/// assert_eq!(answer, 42);
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Errors
///
/// The engine could not be set up, or this thread is inside a runtime already ([`SetupError::InsideRuntime`]); `f` was
/// not called.
///
/// # Panics
///
/// With a panic of `f`, when all tasks have ended.
pub fn run<R>(f: impl FnOnce() -> R) -> Result<R, SetupError> {
    Config::new().run(f)
}
