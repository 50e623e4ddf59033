//! The same, between tasks of several runtimes and plain threads.
//!
//! A task is suspended; a plain thread is blocked. See [`sync`](super) for what there is, and what the difference is.
//!
//! ```
//! use aio::{coro, sync::shared};
//!
//! let (requests, inbox) = shared::channel(16);
//! let server = std::thread::spawn(move || coro::run(|| inbox.iter().sum::<u32>()));
//! for i in 1..=4 {
//!     requests.send(i).unwrap();                          // a plain thread
//! }
//! drop(requests);
//! assert_eq!(server.join().unwrap()?, 10);
//! # Ok::<(), aio::SetupError>(())
//! ```

use super::{generic, waitlist::Shared};

/// An [`Event`](generic::Event) between threads.
pub type Event = generic::Event<Shared>;
/// A [`Mutex`](generic::Mutex) between threads.
pub type Mutex<T> = generic::Mutex<T, Shared>;
/// Access to the value of a [`Mutex`].
pub type MutexGuard<'a, T> = generic::MutexGuard<'a, T, Shared>;
/// An [`RwLock`](generic::RwLock) between threads.
pub type RwLock<T> = generic::RwLock<T, Shared>;
/// The value of an [`RwLock`], to read.
pub type ReadGuard<'a, T> = generic::ReadGuard<'a, T, Shared>;
/// The value of an [`RwLock`], to write.
pub type WriteGuard<'a, T> = generic::WriteGuard<'a, T, Shared>;
/// A [`Semaphore`](generic::Semaphore) between threads.
pub type Semaphore = generic::Semaphore<Shared>;
/// Permits of a [`Semaphore`].
pub type Permit<'a> = generic::Permit<'a, Shared>;
/// A [`Condvar`](generic::Condvar) between threads.
pub type Condvar = generic::Condvar<Shared>;
/// A [`Barrier`](generic::Barrier) between threads.
pub type Barrier = generic::Barrier<Shared>;
/// A [`OnceCell`](generic::OnceCell) between threads.
pub type OnceCell<T> = generic::OnceCell<T, Shared>;
/// A [`Once`](generic::Once) between threads.
pub type Once = generic::Once<Shared>;
/// A [`Sender`](super::Sender) between threads.
pub type Sender<T> = super::Sender<T, Shared>;
/// A [`Receiver`](super::Receiver) between threads.
pub type Receiver<T> = super::Receiver<T, Shared>;

/// As [`sync::channel`](super::channel()), between threads.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    super::channel::open(capacity)
}

/// As [`sync::unbounded`](super::unbounded), between threads.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    super::channel::open(usize::MAX)
}

/// As [`sync::oneshot`](super::oneshot), between threads.
///
/// ```
/// use aio::{coro, sync::shared::oneshot};
///
/// let (sender, mut receiver) = oneshot::channel();
/// let thread = std::thread::spawn(move || sender.send(42));
/// assert_eq!(coro::run(|| receiver.recv())?, Ok(42));
/// # thread.join().unwrap().unwrap();
/// # Ok::<(), aio::SetupError>(())
/// ```
pub mod oneshot {
    use crate::sync::{oneshot, waitlist::Shared};

    /// An [`oneshot::Sender`] between threads.
    pub type Sender<T> = oneshot::Sender<T, Shared>;
    /// An [`oneshot::Receiver`] between threads.
    pub type Receiver<T> = oneshot::Receiver<T, Shared>;

    /// As [`oneshot::channel`], between threads.
    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        oneshot::open()
    }
}

/// As [`sync::broadcast`](super::broadcast), between threads.
///
/// ```
/// use aio::{coro, sync::shared::broadcast};
///
/// let (sender, mut receiver) = broadcast::channel(4);
/// let thread = std::thread::spawn(move || coro::run(|| receiver.recv()));
/// sender.send("everybody").unwrap();
/// assert_eq!(thread.join().unwrap()?, Ok("everybody"));
/// # Ok::<(), aio::SetupError>(())
/// ```
pub mod broadcast {
    use crate::sync::{broadcast, waitlist::Shared};

    /// A [`broadcast::Sender`] between threads.
    pub type Sender<T> = broadcast::Sender<T, Shared>;
    /// A [`broadcast::Receiver`] between threads.
    pub type Receiver<T> = broadcast::Receiver<T, Shared>;
    pub use broadcast::{RecvError, TryRecvError};

    /// As [`broadcast::channel`], between threads.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0.
    pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        broadcast::open(capacity)
    }
}

/// As [`sync::watch`](super::watch), between threads.
///
/// ```
/// use aio::{coro, sync::shared::watch};
///
/// let (sender, mut level) = watch::channel(1);
/// let thread = std::thread::spawn(move || coro::run(|| level.recv()));
/// sender.send(2);
/// assert_eq!(thread.join().unwrap()?, Ok(2));
/// # Ok::<(), aio::SetupError>(())
/// ```
pub mod watch {
    use crate::sync::{waitlist::Shared, watch};

    /// A [`watch::Sender`] between threads.
    pub type Sender<T> = watch::Sender<T, Shared>;
    /// A [`watch::Receiver`] between threads.
    pub type Receiver<T> = watch::Receiver<T, Shared>;

    /// As [`watch::channel`], between threads.
    pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        watch::open(value)
    }
}
