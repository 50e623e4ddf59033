//! Waiting for one another: locks, signals and channels that suspend the calling task.
//!
//! | | |
//! | --- | --- |
//! | [`Event`] | something has happened, for all or for one |
//! | [`Mutex`], [`RwLock`] | a value for one at a time, or for many readers |
//! | [`Semaphore`] | so many at a time |
//! | [`Condvar`] | a change of what a mutex holds |
//! | [`Barrier`] | all are there |
//! | [`OnceCell`], [`Once`] | a value that is made once, something that is done once |
//! | [`channel`], [`unbounded`] | values from many to many, each received once |
//! | [`oneshot`] | one value |
//! | [`broadcast`] | values from many to everybody |
//! | [`watch`] | the latest of a value that changes |
//!
//! # Local and shared
//!
//! What is here is for the tasks of one runtime. It costs no atomic operation while nobody waits, cannot be shared with
//! another thread, and a wait that nothing can end is an error. Under the same names [`shared`] has what works between
//! tasks of several runtimes and plain threads, which it blocks.
//!
//! ```
//! use aio::{coro, sync::shared::Mutex};
//!
//! static TOTAL: Mutex<u32> = Mutex::new(0);
//!
//! let threads = [1, 2, 3].map(|i| {
//!     std::thread::spawn(move || coro::run(|| TOTAL.lock().map(|mut total| *total += i)).unwrap())
//! });
//! for thread in threads {
//!     thread.join().unwrap()?;
//! }
//! assert_eq!(*TOTAL.lock()?, 6);                          // a plain thread
//! # Ok::<(), aio::Error>(())
//! ```
//!
//! # Waiting
//!
//! Who waits first is served first, and waiting allocates no memory. What is there at once is taken at once, also by a
//! task that is cancelled; the `try_` forms never wait. A wait is given up with an error:
//!
//! - [`Error::Canceled`](crate::Error::Canceled) if the task is cancelled, and
//!   [`Error::TimedOut`](crate::Error::TimedOut) inside a [`timeout`](crate::coro::timeout) that is over. For plain
//!   threads there is neither.
//! - [`Error::NoSuspend`](crate::Error::NoSuspend) while a panic unwinds, and inside
//!   [`no_suspend`](crate::coro::no_suspend). What is shared blocks the thread there instead.
//! - [`Error::Deadlock`](crate::Error::Deadlock) if every task waits for another one. What is shared can be ended from
//!   outside, so it may wait for ever.
//! - [`Error::WrongRuntime`](crate::Error::WrongRuntime) outside a runtime. What is shared blocks the thread.
//! - [`Error::Os`](crate::Error::Os) if what is shared needs the descriptor that wakes a runtime from outside, for the
//!   first time, and the system has none left.
//!
//! Whoever gives up has left the queue, and those behind go on. What it was given in that moment counts: then the wait
//! succeeds, so no permit, notification or value is lost between two tasks.

mod arms;
mod barrier;
pub mod broadcast;
mod channel;
mod condvar;
mod error;
mod event;
#[cfg(all(loom, test))]
mod loom;
mod mutex;
mod once;
pub mod oneshot;
mod rwlock;
mod semaphore;
pub mod shared;
pub(crate) mod waitlist;
pub mod watch;

pub use channel::{IntoIter, Iter, Receiver, Sender, channel, unbounded};
pub use condvar::{WaitError, WaitResult};
pub use error::{RecvError, SendError, SendFailure, TryRecvError, TrySendError};
pub use waitlist::{Local, Mode, Shared};

/// The types behind the names in [`sync`](self) and [`shared`], for code that works with either: `M` is
/// [`Local`] or [`Shared`].
pub mod generic {
    #[cfg(doc)]
    use super::{Local, Shared};
    pub use super::{
        barrier::Barrier,
        condvar::Condvar,
        event::Event,
        mutex::{Mutex, MutexGuard},
        once::{Once, OnceCell},
        rwlock::{ReadGuard, RwLock, WriteGuard},
        semaphore::{Permit, Semaphore},
    };
}

/// An [`Event`](generic::Event) among the tasks of a runtime.
pub type Event = generic::Event<Local>;
/// A [`Mutex`](generic::Mutex) among the tasks of a runtime.
pub type Mutex<T> = generic::Mutex<T, Local>;
/// Access to the value of a [`Mutex`].
pub type MutexGuard<'a, T> = generic::MutexGuard<'a, T, Local>;
/// An [`RwLock`](generic::RwLock) among the tasks of a runtime.
pub type RwLock<T> = generic::RwLock<T, Local>;
/// The value of an [`RwLock`], to read.
pub type ReadGuard<'a, T> = generic::ReadGuard<'a, T, Local>;
/// The value of an [`RwLock`], to write.
pub type WriteGuard<'a, T> = generic::WriteGuard<'a, T, Local>;
/// A [`Semaphore`](generic::Semaphore) among the tasks of a runtime.
pub type Semaphore = generic::Semaphore<Local>;
/// Permits of a [`Semaphore`].
pub type Permit<'a> = generic::Permit<'a, Local>;
/// A [`Condvar`](generic::Condvar) among the tasks of a runtime.
pub type Condvar = generic::Condvar<Local>;
/// A [`Barrier`](generic::Barrier) among the tasks of a runtime.
pub type Barrier = generic::Barrier<Local>;
/// A [`OnceCell`](generic::OnceCell) among the tasks of a runtime.
pub type OnceCell<T> = generic::OnceCell<T, Local>;
/// A [`Once`](generic::Once) among the tasks of a runtime.
pub type Once = generic::Once<Local>;
