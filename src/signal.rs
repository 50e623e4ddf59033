//! Signals, waited for by operations.
//!
//! A [`Signals`] is a stream of the signals that were chosen for it. While it exists they do what they do to it only:
//! `SIGTERM` no longer ends the process. When the last stream for a signal is gone, what was set up for it before is
//! back.
//!
//! ```
//! use aio::signal::{Signal, Signals};
//!
//! let mut signals = Signals::new([Signal::TERM, Signal::HUP])?;
//! # std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status()?;
//! match signals.recv()? {
//!     Signal::HUP => println!("reading the configuration again"),
//!     other => println!("ending because of {other}"),
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! All streams for a signal see it, whichever thread the system gives it to. As POSIX has it signals of one number that
//! come before anybody looks are one; a stream adds nothing to that, and loses none between two calls. What a signal
//! says besides its number (`siginfo_t`) is not kept.
//!
//! If all threads have blocked a signal (`pthread_sigmask(3)`) it is not seen until one lets it through.
//!
//! # Forks
//!
//! A child of `fork(2)` inherits the streams and sees its own signals by them, not its parent's. It cannot make, use or
//! drop one if another thread was just doing that while the process was forked: the lock is taken for ever then. `exec`
//! puts signals that were waited for back to what they do by default.

#[allow(unsafe_code)]
mod handler;
mod number;

pub use number::Signal;

use crate::{Error, is_canceled, op::WaitEvent, single};
use handler::Listener;
use std::{
    fmt,
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Waits for one `SIGINT`, which is what Ctrl-C sends.
///
/// Before this call and after it `SIGINT` does what it did, which is to end the process by default. A program that
/// waits for more than one, or that lets others know that it is ready before it calls this, makes a [`Signals`] first.
///
/// ```no_run
/// println!("press Ctrl-C");
/// aio::signal::ctrl_c()?;
/// println!("good-bye");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As [`Signals::new`] and [`Signals::recv`].
pub fn ctrl_c() -> io::Result<()> {
    Signals::new([Signal::INT])?.recv().map(drop)
}

/// A stream of signals.
///
/// It is an iterator too, which ends only by an error.
///
/// ```
/// use aio::signal::{Signal, Signals};
///
/// let mut signals = Signals::new([Signal::USR1])?;
/// # std::process::Command::new("kill").args(["-USR1", &std::process::id().to_string()]).status()?;
/// for signal in &mut signals {
///     assert_eq!(signal?, Signal::USR1);
///     break;
/// }
/// assert_eq!(signals.try_recv(), None);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Signals {
    listener: &'static Listener,
    /// Each signal, and how often it had come when it was last given.
    seen: Vec<(Signal, usize)>,
    /// Where the signal is in `seen` that was given last.
    last: usize,
    /// Somebody waits by the descriptor.
    watched: AtomicBool,
}

impl Signals {
    /// Listens to `signals`, which are [`Signal`]s or their numbers (`libc::SIGTERM`). Those that come from here on are
    /// seen.
    ///
    /// Handlers are installed with `SA_RESTART` and `SA_ONSTACK`: system calls go on, and a thread's alternate stack is
    /// used if it has one.
    ///
    /// A stream needs a descriptor, which stays open for the next stream when it is dropped.
    ///
    /// ```
    /// use aio::signal::{Signal, Signals};
    ///
    /// let error = Signals::new([Signal::TERM, Signal::KILL]).unwrap_err();
    /// assert_eq!(error.to_string(), "SIGKILL cannot be waited for: the system lets nobody catch it");
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there are none, for numbers that are no signals, and for those that
    /// nobody can wait for: `SIGKILL` and `SIGSTOP`, which the system does not let anybody catch, and `SIGSEGV`,
    /// `SIGBUS`, `SIGILL` and `SIGFPE`, which come from an instruction that would only run again. Otherwise `EMFILE`,
    /// `ENFILE` or `ENOMEM`, as `eventfd(2)`.
    pub fn new<S: Into<Signal>>(signals: impl IntoIterator<Item = S>) -> io::Result<Signals> {
        let mut stream =
            Signals { listener: handler::listener()?, seen: Vec::new(), last: 0, watched: AtomicBool::new(false) };
        for signal in signals {
            stream.add(signal.into())?;
        }
        match stream.seen.is_empty() {
            true => Err(io::Error::new(ErrorKind::InvalidInput, "no signals to wait for; give at least one")),
            false => Ok(stream),
        }
    }

    fn add(&mut self, signal: Signal) -> io::Result<()> {
        if self.seen.iter().any(|(seen, _)| *seen == signal) {
            return Ok(());
        }
        if let Some(why) = signal.refusal() {
            return Err(refused(signal, why));
        }
        let count = handler::count(signal);
        handler::listen(self.listener, signal).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => refused(signal, "there is no such signal, or the C library keeps it for itself"),
            _ => error,
        })?;
        self.seen.push((signal, count));
        Ok(())
    }

    /// Waits for the next of the signals, unless one has come already. If several have, they take turns.
    ///
    /// # Errors
    ///
    /// Those of [`WaitEvent`]: the wait was cancelled, for example. No signal is lost by that.
    pub fn recv(&mut self) -> io::Result<Signal> {
        loop {
            self.listener.expect();
            if let Some(signal) = self.take() {
                if *self.watched.get_mut() {
                    self.tell_others();
                }
                return Ok(signal);
            }
            if !self.listener.is_own() {
                self.start_again()?;
                continue;
            }
            match single(WaitEvent::new(self.listener.event())) {
                Ok(()) => {}
                Err(Error::Os(errno)) if errno.raw() == libc::EINTR => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next of the signals, if one has come, without waiting.
    pub fn try_recv(&mut self) -> Option<Signal> {
        let signal = self.take();
        if signal.is_none() && *self.watched.get_mut() {
            // Whoever waits by the descriptor waits from here on, so what has come until now is looked for again.
            self.listener.expect();
            let signal = self.take();
            self.tell_others();
            return signal;
        }
        signal
    }

    /// Lets whoever waits by the descriptor know what has come and was not given yet.
    fn tell_others(&self) {
        if self.seen.iter().any(|(signal, seen)| handler::count(*signal) != *seen) {
            self.listener.wake();
        }
    }

    fn take(&mut self) -> Option<Signal> {
        let count = self.seen.len();
        for at in (1..=count).map(|step| (self.last + step) % count) {
            let (signal, seen) = &mut self.seen[at];
            let now = handler::count(*signal);
            if *seen != now {
                *seen = now;
                self.last = at;
                return Some(*signal);
            }
        }
        None
    }

    /// In a forked child: the descriptor is the parent's as well, which must not be woken by this process's signals,
    /// nor miss its own because this process has taken the news.
    fn start_again(&mut self) -> io::Result<()> {
        let fresh = handler::listener()?;
        handler::replace(self.listener, fresh);
        self.listener = fresh;
        Ok(())
    }
}

/// A descriptor that is readable when a signal has come, for a [`Poller`](crate::poller::Poller) and the like. To be
/// waited for, not read: call [`try_recv`](Signals::try_recv) until it gives `None`, which makes it unreadable again.
///
/// It stays open when the stream is dropped, for the next one. So take it out of a poller before. In a forked child it
/// tells nothing; make a new stream there.
///
/// ```
/// use aio::{poller::{Events, Interest, Poller}, signal::{Signal, Signals}};
///
/// let mut signals = Signals::new([Signal::USR2])?;
/// let mut poller = Poller::new()?;
/// poller.register(&signals, 1, Interest::READ)?;
/// # std::process::Command::new("kill").args(["-USR2", &std::process::id().to_string()]).status()?;
/// poller.wait(&mut Events::with_capacity(8), None)?;
/// while let Some(signal) = signals.try_recv() {
///     assert_eq!(signal, Signal::USR2);
/// }
/// poller.delete(&signals)?;
/// # Ok::<(), std::io::Error>(())
/// ```
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only from the first time on are signals written to it while nobody is in `recv`. Those that have come before
        // are to be told as well.
        if !self.watched.swap(true, Ordering::Relaxed) {
            self.listener.expect();
            self.tell_others();
        }
        self.listener.event().as_fd()
    }
}

fn refused(signal: Signal, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{signal} cannot be waited for: {why}"))
}

impl Iterator for Signals {
    type Item = io::Result<Signal>;

    /// [`recv`](Signals::recv); ends if the wait was [cancelled](is_canceled), so that a loop that passes over errors
    /// ends as well.
    fn next(&mut self) -> Option<io::Result<Signal>> {
        match self.recv() {
            Err(error) if is_canceled(&error) => None,
            result => Some(result),
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.seen.iter().map(|(signal, _)| signal)).finish()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        handler::release(self.listener, self.seen.iter().map(|(signal, _)| *signal));
    }
}
