//! Readiness alone: which descriptors can be read or written without waiting, for programs with a loop of their own.
//!
//! A [`Poller`] is `epoll(7)`, or `poll(2)` with the same results. It has nothing to do with the engines, which do
//! operations; it does none, and does not own, change or close what it watches.
//!
//! ```
//! use aio::poller::{Events, Interest, Poller, Token};
//! use std::{io::{Read, Write}, os::unix::net::UnixStream, time::Duration};
//!
//! let (mut a, mut b) = UnixStream::pair()?;
//! a.set_nonblocking(true)?;
//! let mut poller = Poller::new()?;
//! poller.register(&a, Token(1), Interest::READ)?;
//!
//! b.write_all(b"hello")?;
//! let mut events = Events::with_capacity(64);
//! poller.wait(&mut events, Some(Duration::from_secs(5)))?;
//! for event in &events {
//!     assert!(event.token == Token(1) && event.readable);
//!     assert_eq!(a.read(&mut [0; 16])?, 5);
//! }
//! poller.delete(&a)?;                             // before it is closed
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Modes
//!
//! | mode | told | again |
//! | --- | --- | --- |
//! | level, the default | while it is ready | with each wait |
//! | [`EDGE`](Interest::EDGE) | once it is ready | see below |
//! | [`ONE_SHOT`](Interest::ONE_SHOT) | once | after [`modify`](Poller::modify); hang-ups and errors too |
//!
//! In edge mode what was told (readable, writable, a hang-up) is told again for certain
//!
//! - after [`modify`](Poller::modify), if it is so then or later;
//! - after [`rearm`](Poller::rearm), likewise, for the directions that are named: to be called when a read or a write
//!   has given `WouldBlock`;
//! - when it has become so again after a wait began while it was not.
//!
//! It is not told again while it stays so and nothing happens. If something does happen meanwhile, if more data comes
//! for example, epoll tells at once and the emulation does not: `poll(2)` cannot see it. So read until `WouldBlock`,
//! and then say `rearm`, which costs nothing with epoll. A program that does so works on both.
//!
//! # Closing
//!
//! A source is borrowed for the call only. [`delete`](Poller::delete) it before you close it. If you do not, nothing is
//! closed twice or touched that is not yours, but what is told differs:
//!
//! - With epoll the registration belongs to the open file. It ends by itself, silently, when the last descriptor of
//!   that is closed. As long as a duplicate (`try_clone`, a forked child) is open its events go on, with the old token,
//!   and nobody can delete it but by closing the duplicates.
//! - With poll it belongs to the number. When a wait finds that closed, or to be another file meanwhile, it gives one
//!   last event with `error` and forgets it. Files that have no number of their own in the system (`eventfd(2)`) cannot
//!   be told apart: there the new one is watched in place of the old.
//!
//! Registering a reused number is no error in either case, but for those indistinguishable files with poll.
//!
//! # Forks
//!
//! A forked child shares its parent's epoll, and what it did to it would be done to the parent's. So all methods give
//! an error in a child, wakers and notifiers do nothing there, and dropping the poller closes nothing. The parent's
//! goes on. Make a new one in the child.
//!
//! # Tasks
//!
//! [`Poller::wait`] blocks its thread, tasks and all. In a task wait for the descriptor of the poller instead
//! ([`Poller::as_fd`]), by [`op::Poll`](crate::op::Poll), and then call it with a time of zero.

#[cfg(target_os = "linux")]
mod epoll;
mod event;
mod poll;
mod wake;

pub use event::{Event, Events, Interest, Token};
pub use wake::{Notifier, Waker};

#[cfg(target_os = "linux")]
use self::epoll::Epoll;
use self::{poll::Poll, wake::Shared};
use crate::{Backend, Errno, config, sys, sys::fork::Life};
use std::{
    fmt,
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

/// Waits for many descriptors at once. See [the module](self).
///
/// It is for one thread at a time, as its `&mut self` says: other threads send that one what they want registered, and
/// [wake](Waker) it.
pub struct Poller {
    selector: Selector,
    shared: Arc<Shared>,
    life: Life,
    interruptible: bool,
}

enum Selector {
    #[cfg(target_os = "linux")]
    Epoll(Epoll),
    Poll(Poll),
}

/// Calls a method that both have.
macro_rules! on {
    ($selector:expr, $each:ident => $call:expr) => {
        match $selector {
            #[cfg(target_os = "linux")]
            Selector::Epoll($each) => $call,
            Selector::Poll($each) => $call,
        }
    };
}

impl Poller {
    /// [`with`](Poller::with)[`(Backend::Auto)`](Backend::Auto).
    ///
    /// ```
    /// let poller = aio::poller::Poller::new()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`with`](Poller::with).
    pub fn new() -> io::Result<Poller> {
        Poller::with(Backend::Auto)
    }

    /// A poller that watches nothing yet.
    ///
    /// [`Backend::Auto`] is epoll where it exists, and poll elsewhere; `AIO_BACKEND=poll` in the environment makes it
    /// poll, while `io_uring` there is about engines and changes nothing.
    ///
    /// ```
    /// use aio::{Backend, poller::Poller};
    ///
    /// assert_eq!(Poller::with(Backend::Poll)?.backend(), Backend::Poll);
    /// let error = Poller::with(Backend::IoUring).unwrap_err();
    /// assert_eq!(error.to_string(), "a poller is epoll or poll, not io_uring; use Backend::Auto, Epoll or Poll");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for [`Backend::IoUring`], or if the environment names no backend;
    /// [`Unsupported`](ErrorKind::Unsupported) for [`Backend::Epoll`] where there is none; `EMFILE`, `ENFILE` or
    /// `ENOMEM`, as `epoll_create1(2)` and `eventfd(2)`.
    pub fn with(backend: Backend) -> io::Result<Poller> {
        let backend = match backend {
            Backend::Auto => match config::from_environment()? {
                Backend::Auto | Backend::IoUring if cfg!(target_os = "linux") => Backend::Epoll,
                Backend::Auto | Backend::IoUring => Backend::Poll,
                other => other,
            },
            other => other,
        };
        let life = Life::current();
        let shared = Shared::new(life)?;
        let selector = match backend {
            #[cfg(target_os = "linux")]
            Backend::Epoll => Epoll::new(shared.as_fd(), life).map(Selector::Epoll),
            #[cfg(not(target_os = "linux"))]
            Backend::Epoll => return Err(crate::SetupError::NoSuchBackend(backend).into()),
            Backend::Poll => Poll::new(shared.as_fd()).map(Selector::Poll),
            Backend::IoUring | Backend::Auto => {
                let what = "a poller is epoll or poll, not io_uring; use Backend::Auto, Epoll or Poll";
                return Err(io::Error::new(ErrorKind::InvalidInput, what));
            }
        };
        let selector = selector.map_err(error)?;
        Ok(Poller { selector, shared: Arc::new(shared), life, interruptible: false })
    }

    /// What it was made with: [`Backend::Epoll`] or [`Backend::Poll`].
    pub fn backend(&self) -> Backend {
        match &self.selector {
            #[cfg(target_os = "linux")]
            Selector::Epoll(_) => Backend::Epoll,
            Selector::Poll(_) => Backend::Poll,
        }
    }

    /// Watches a descriptor from here on.
    ///
    /// The source should be in non-blocking mode: that it was ready does not promise that it still is.
    ///
    /// ```
    /// use aio::poller::{Interest, Poller};
    ///
    /// let mut poller = Poller::new()?;
    /// let (output, _input) = std::io::pipe()?;
    /// poller.register(&output, 0, Interest::READ | Interest::EDGE)?;
    /// let error = poller.register(&output, 1, Interest::READ).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if it is registered; what was registered stays as it is.
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) for regular files, directories and some devices, which are
    /// always ready. [`InvalidInput`](ErrorKind::InvalidInput) for the token `usize::MAX`. `ENOMEM` and `ENOSPC`, as
    /// `epoll_ctl(2)`; `ELOOP` or `EINVAL` for pollers that watch each other. In a [forked child](self#forks) always.
    /// Nothing is left behind by any of them.
    pub fn register(
        &mut self,
        source: &(impl AsFd + ?Sized),
        token: impl Into<Token>,
        interest: Interest,
    ) -> io::Result<()> {
        let token = self.usable(token.into())?;
        on!(&mut self.selector, each => each.register(source.as_fd(), token, interest)).map_err(error)
    }

    /// Watches a registered descriptor for something else, or with another token, from here on; and once more in
    /// one-shot and edge mode, for what is ready now as well.
    ///
    /// ```
    /// use aio::poller::{Events, Interest, Poller};
    /// use std::time::Duration;
    ///
    /// let mut poller = Poller::new()?;
    /// let (_output, input) = std::io::pipe()?;
    /// let mut events = Events::with_capacity(8);
    /// poller.register(&input, 0, Interest::WRITE | Interest::ONE_SHOT)?;
    /// assert_eq!(poller.wait(&mut events, Some(Duration::ZERO))?, 1);
    /// assert_eq!(poller.wait(&mut events, Some(Duration::ZERO))?, 0);
    /// poller.modify(&input, 0, Interest::WRITE | Interest::ONE_SHOT)?;
    /// assert_eq!(poller.wait(&mut events, Some(Duration::ZERO))?, 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if it is not registered; otherwise as [`register`](Poller::register).
    pub fn modify(
        &mut self,
        source: &(impl AsFd + ?Sized),
        token: impl Into<Token>,
        interest: Interest,
    ) -> io::Result<()> {
        let token = self.usable(token.into())?;
        on!(&mut self.selector, each => each.modify(source.as_fd(), token, interest)).map_err(error)
    }

    /// Watches a descriptor no more. Events that a wait has given already stay where they are.
    ///
    /// ```
    /// use aio::poller::{Interest, Poller};
    ///
    /// let mut poller = Poller::new()?;
    /// let (output, _input) = std::io::pipe()?;
    /// poller.register(&output, 0, Interest::READ)?;
    /// poller.delete(&output)?;
    /// assert_eq!(poller.delete(&output).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if it is not registered; otherwise as [`register`](Poller::register).
    pub fn delete(&mut self, source: &(impl AsFd + ?Sized)) -> io::Result<()> {
        self.own()?;
        on!(&mut self.selector, each => each.delete(source.as_fd())).map_err(error)
    }

    /// To be called in edge mode when a read or a write has given `WouldBlock`: what `interest` names is told again
    /// when it is ready. See [Modes](self#modes).
    ///
    /// Epoll finds that out itself, so there it does nothing, and neither does it to what is not registered or not in
    /// edge mode.
    ///
    /// ```
    /// use aio::poller::{Events, Interest, Poller};
    /// use std::{io::{ErrorKind, Read, Write}, os::unix::net::UnixStream};
    ///
    /// let (mut a, mut b) = UnixStream::pair()?;
    /// a.set_nonblocking(true)?;
    /// let mut poller = Poller::new()?;
    /// let mut events = Events::with_capacity(8);
    /// poller.register(&a, 0, Interest::READ | Interest::EDGE)?;
    /// for _ in 0..3 {
    ///     b.write_all(b"hello")?;
    ///     assert_eq!(poller.wait(&mut events, None)?, 1);
    ///     while a.read(&mut [0; 16]).is_ok() {}
    ///     poller.rearm(&a, Interest::READ);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn rearm(&mut self, source: &(impl AsFd + ?Sized), interest: Interest) {
        match &mut self.selector {
            #[cfg(target_os = "linux")]
            Selector::Epoll(_) => {}
            Selector::Poll(poll) => poll.rearm(source.as_fd(), interest),
        }
    }

    /// Waits until something has happened, at most `timeout`, and gives the number of events. `None` waits for ever,
    /// [`Duration::ZERO`] not at all.
    ///
    /// It gives 0 if the time is over or a [`Waker`] was used ([`Events::woken`]), and never before that. A handled
    /// signal does not end it unless [`set_interruptible`](Poller::set_interruptible) says so.
    ///
    /// ```
    /// use aio::poller::{Events, Poller};
    /// use std::time::{Duration, Instant};
    ///
    /// let (mut poller, begin) = (Poller::new()?, Instant::now());
    /// assert_eq!(poller.wait(&mut Events::with_capacity(8), Some(Duration::from_micros(1500)))?, 0);
    /// assert!(begin.elapsed() >= Duration::from_micros(1500));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Interrupted`](ErrorKind::Interrupted), if that is wanted. In a [forked child](self#forks). With poll: `EINVAL`
    /// if the limit of open files (`ulimit -n`) was lowered below the number of sources.
    pub fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        /// So that the time fits into whatever the system counts by; then it goes on.
        const LONGEST: u64 = 24 * 3600 * 1_000_000_000;
        events.clear();
        self.own()?;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let end = timeout.map(|timeout| sys::monotonic().saturating_add(nanos(timeout)));
        let mut limit = timeout.map(|timeout| nanos(timeout).min(LONGEST));
        loop {
            match on!(&mut self.selector, each => each.wait(limit, events)) {
                Ok(true) => self.shared.take(events),
                Ok(false) => {}
                Err(interrupted) if interrupted == -libc::EINTR && !self.interruptible => {}
                Err(other) => return Err(error(other)),
            }
            let left = end.map(|end| end.saturating_sub(sys::monotonic()));
            if !events.is_empty() || events.woken || left == Some(0) {
                return Ok(events.len());
            }
            limit = left.map(|left| left.min(LONGEST));
        }
    }

    /// Whether a handled signal ends a wait, with [`Interrupted`](ErrorKind::Interrupted). Otherwise, as at the
    /// beginning, it goes on for the time that is left.
    ///
    /// ```
    /// let mut poller = aio::poller::Poller::new()?;
    /// poller.set_interruptible(true);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_interruptible(&mut self, interruptible: bool) {
        self.interruptible = interruptible;
    }

    /// What ends a wait from another thread. See [`Waker`].
    pub fn waker(&self) -> Waker {
        Waker(self.shared.clone())
    }

    /// An event of the program's own, which other threads make happen. See [`Notifier`].
    pub fn notifier(&self, token: impl Into<Token>) -> Notifier {
        Notifier::new(self.shared.clone(), token.into())
    }

    /// A descriptor that is readable while a wait would give something: epoll's own. To be waited for, by another
    /// poller or by [`op::Poll`](crate::op::Poll), and nothing else.
    ///
    /// ```
    /// use aio::{Backend, poller::{Events, Interest, Poller, Token}};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let (mut inner, mut outer) = (Poller::with(Backend::Epoll)?, Poller::new()?);
    /// outer.register(&inner.as_fd()?, 1, Interest::READ)?;
    /// inner.notifier(2).notify();
    ///
    /// let mut events = Events::with_capacity(8);
    /// outer.wait(&mut events, None)?;
    /// assert_eq!(events.iter().next().unwrap().token, Token(1));
    /// inner.wait(&mut events, None)?;
    /// assert_eq!(events.iter().next().unwrap().token, Token(2));
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) with [`Backend::Poll`], which has none; that is why this is not
    /// [`AsFd`]. In a [forked child](self#forks).
    pub fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.own()?;
        match &self.selector {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => Ok(epoll.as_fd()),
            Selector::Poll(_) => {
                let why = "a poller on poll has no descriptor that others could wait for; use Backend::Epoll";
                Err(io::Error::new(ErrorKind::Unsupported, why))
            }
        }
    }

    /// Fails in a child of the process that has made it.
    fn own(&self) -> io::Result<()> {
        match self.life.goes_on() {
            true => Ok(()),
            false => Err(io::Error::other("the poller belongs to the process that was forked; make one in the child")),
        }
    }

    fn usable(&self, token: Token) -> io::Result<Token> {
        self.own()?;
        match token {
            Token(usize::MAX) => {
                Err(io::Error::new(ErrorKind::InvalidInput, "the token usize::MAX is reserved; choose another"))
            }
            token => Ok(token),
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // In a child the descriptors' numbers may be something else by now; see `Epoll::drop` too.
        if !self.life.goes_on() {
            std::mem::forget(self.shared.clone());
        }
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

/// What the system's numbers mean here.
#[derive(Debug, thiserror::Error)]
#[error("{meaning}: {errno}")]
struct Refused {
    meaning: &'static str,
    errno: Errno,
}

fn error(number: i32) -> io::Error {
    let errno = Errno::new(-number);
    let meaning = match errno.raw() {
        libc::EEXIST => "the descriptor is registered already; use modify to change that",
        libc::ENOENT => "the descriptor is not registered with this poller",
        libc::EPERM => "regular files, directories and some devices cannot be waited for, they are always ready",
        libc::ELOOP => "pollers watch each other in a circle, or too deeply",
        libc::ENOSPC => "there are too many registrations (fs.epoll.max_user_watches)",
        other => return io::Error::from_raw_os_error(other),
    };
    io::Error::new(errno.kind(), Refused { meaning, errno })
}
