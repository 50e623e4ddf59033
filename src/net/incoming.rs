//! The connections of a listener, one after the other.
//!
//! In a task one multishot accept gives them all. It runs ahead of the loop that takes them, so when it is ended some
//! may be left over. They go to their listener, which gives them out first.
//!
//! The kernel takes all connections that are there, however many, and only then can it be told to pause. So it is given
//! the listener only when none is left: at the start, and after a pause, batches of single accepts take them, which are
//! as large as they are wanted.

use crate::{
    Error, Result, complete,
    coro::{
        Runtime,
        stream::{Feed, Keep},
        wait::{Reason, pay_for_luck},
    },
    op::{Accept, AcceptMulti},
    sealed::Sealed,
};
use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// So many connections are accepted ahead of those who take them.
const AHEAD: u32 = 64;

/// How many are accepted at a time while there are more: first, and at most.
const FEW: usize = 4;
const MANY: usize = 32;

/// A listening socket of the standard library, and the connections that were accepted and not taken.
pub(super) struct Listening<S> {
    pub(super) inner: S,
    /// Made when somebody accepts ahead; until then all that it costs is a look.
    ahead: OnceLock<Arc<Ahead>>,
}

/// Connections that nobody has taken yet. Plain descriptors, which may go to any thread.
#[derive(Default)]
pub struct Ahead(Mutex<VecDeque<OwnedFd>>);

impl Ahead {
    fn queue(&self) -> MutexGuard<'_, VecDeque<OwnedFd>> {
        // Nothing in between leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keep<OwnedFd> for Arc<Ahead> {
    fn keep(&self, connection: Result<OwnedFd>) {
        // An error is one of a connection that has gone, or will come again.
        if let Ok(connection) = connection {
            self.queue().push_back(connection);
        }
    }
}

impl<S: AsFd> Listening<S> {
    pub(super) fn new(inner: S) -> Listening<S> {
        Listening { inner, ahead: OnceLock::new() }
    }

    /// For another descriptor of the same socket. What was accepted stays here.
    pub(super) fn alike(&self, inner: S) -> Listening<S> {
        Listening::new(inner)
    }

    /// Takes a connection that was accepted earlier. A task that is cancelled or late gets none, as from the system.
    pub(super) fn take_ahead(&self) -> Result<Option<OwnedFd>> {
        let Some(ahead) = self.ahead.get().filter(|ahead| !ahead.queue().is_empty()) else { return Ok(None) };
        if let Some(why) = Runtime::current_runtime().and_then(Runtime::refused) {
            return Err(why);
        }
        pay_for_luck();
        Ok(ahead.queue().pop_front())
    }

    /// What it takes to accept ahead; none if the process has no descriptor to spare.
    pub(super) fn share(&self) -> Option<(OwnedFd, Arc<Ahead>)> {
        let fd = self.inner.as_fd().try_clone_to_owned().ok()?;
        Some((fd, self.ahead.get_or_init(Arc::default).clone()))
    }

    /// Accepts up to so many connections that are there. Gives the first, and keeps the others; tells whether there may
    /// be more.
    pub(super) fn accept_some(&self, most: usize) -> Result<(Option<OwnedFd>, bool)> {
        let fd = self.inner.as_fd();
        let batch: Vec<_> = (0..most).map(|_| Accept::new(fd).nonblocking()).collect();
        let (mut first, mut more, mut failed) = (None, true, None);
        for result in complete(batch).map_err(Error::Setup)?.results {
            match result {
                Ok(accepted) if first.is_none() => first = Some(accepted.fd),
                Ok(accepted) => self.ahead.get_or_init(Arc::default).keep(Ok(accepted.fd)),
                Err(Error::Os(errno)) if errno.raw() == libc::EAGAIN => more = false,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (first, failed) {
            (None, Some(error)) => Err(error),
            (first, _) => Ok((first, more)),
        }
    }
}

/// The peer of a connection that was accepted earlier has no address any more, because it has gone. Systems that look
/// when they accept say so then.
pub(super) fn aborted(_: io::Error) -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNABORTED)
}

/// A socket that takes connections: [`TcpListener`](super::TcpListener), [`UnixListener`](super::UnixListener). Sealed.
pub trait Listener: Sealed {
    /// What a connection is.
    type Stream: From<OwnedFd>;

    #[doc(hidden)]
    fn accept_one(&self) -> Result<Self::Stream>;

    #[doc(hidden)]
    fn take_ahead(&self) -> Result<Option<OwnedFd>>;

    #[doc(hidden)]
    fn share(&self) -> Option<(OwnedFd, Arc<Ahead>)>;

    #[doc(hidden)]
    fn accept_some(&self, most: usize) -> Result<(Option<OwnedFd>, bool)>;
}

/// The connections of a listener: an iterator, made by [`TcpListener::incoming`](super::TcpListener::incoming) and
/// [`UnixListener::incoming`](super::UnixListener::incoming).
///
/// It waits for each connection, gives an error of `accept(2)` as an item, and ends when the wait was cancelled, or the
/// time is over.
///
/// # Accepting ahead
///
/// In a [task](crate::coro) one operation accepts the connections that come (`IORING_OP_ACCEPT` with
/// `IORING_ACCEPT_MULTISHOT`, used from Linux 6.7 on; emulated elsewhere) until the iterator is dropped. It runs ahead
/// of the loop, and pauses when 64 connections wait to be taken; on a ring there are more if they come between two
/// looks of the runtime at it. Those that wait in the backlog at the start, or after a pause, are accepted first, at
/// most 32 at a time.
///
/// When the iterator is dropped, those that nobody has taken stay with the listener: its next `accept` or `incoming`
/// gives them out first, also on another thread; an `accept` that is waiting already does not. They belong to that
/// value: a clone does not have them, they are closed when it is dropped or converted, and an
/// [`Accept`](crate::op::Accept) that names it as a descriptor passes them by.
///
/// An iterator that is forgotten goes on accepting until its runtime ends.
///
/// It stays on its thread:
///
/// ```compile_fail,E0277
/// use aio::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:0").unwrap();
/// let mut incoming = listener.incoming();
/// std::thread::scope(|s| {
///     s.spawn(move || incoming.next());
/// });
/// ```
#[must_use = "an iterator does nothing unless it is used"]
pub struct Incoming<'l, L> {
    listener: &'l L,
    feed: Option<Feed<AcceptMulti<OwnedFd>, Arc<Ahead>>>,
    /// While there may be connections that the operation would take all at once: how many to accept.
    batch: Option<usize>,
}

impl<'l, L: Listener> Incoming<'l, L> {
    pub(super) fn new(listener: &'l L) -> Incoming<'l, L> {
        Incoming { listener, feed: None, batch: Some(FEW) }
    }

    fn take(&mut self) -> Result<L::Stream> {
        let runtime = Runtime::current_runtime();
        let is_foreign = |feed: &Feed<_, _>| !runtime.is_some_and(|runtime| feed.is_of(runtime));
        if self.feed.as_ref().is_some_and(is_foreign) {
            // Of a runtime that is not running here, or has ended. What it has accepted goes to the listener.
            self.feed = None;
        }
        if let Some(connection) = self.listener.take_ahead()? {
            return Ok(connection.into());
        }
        let Some(runtime) = runtime.filter(|runtime| self.feed.is_some() || runtime.may_switch()) else {
            return self.listener.accept_one();
        };
        if let Some(most) = self.batch {
            let (first, more) = self.listener.accept_some(most)?;
            self.batch = more.then_some((2 * most).min(MANY));
            if let Some(first) = first {
                return Ok(first.into());
            }
        }
        if self.feed.is_none() {
            let parts = self.listener.share();
            self.feed = parts.map(|(fd, ahead)| Feed::new(runtime, AcceptMulti::new(fd), ahead, AHEAD, true));
        }
        let Some(feed) = &self.feed else { return self.listener.accept_one() };
        let result = feed.next(runtime, Reason::of("a connection"));
        if !feed.is_live() {
            self.batch = Some(FEW);
        }
        result?.0.map(L::Stream::from)
    }
}

impl<L: Listener> Iterator for Incoming<'_, L> {
    type Item = io::Result<L::Stream>;

    fn next(&mut self) -> Option<io::Result<L::Stream>> {
        match self.take() {
            // A listener has no time limit of its own, so whoever waits was told to stop. A loop that skips errors
            // would never do so.
            Err(Error::Canceled | Error::TimedOut) => None,
            result => Some(result.map_err(io::Error::from)),
        }
    }
}

impl<L: fmt::Debug> fmt::Debug for Incoming<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(self.listener).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Errno;
    use std::cell::Cell;

    /// Listens to nothing, and gives the errors of a list.
    struct Told(Cell<&'static [Error]>);

    impl Sealed for Told {}

    impl Listener for Told {
        type Stream = OwnedFd;

        fn accept_one(&self) -> Result<OwnedFd> {
            let (first, rest) = self.0.get().split_first().expect("asked more often than expected");
            self.0.set(rest);
            Err(*first)
        }

        fn take_ahead(&self) -> Result<Option<OwnedFd>> {
            Ok(None)
        }

        fn share(&self) -> Option<(OwnedFd, Arc<Ahead>)> {
            None
        }

        fn accept_some(&self, _most: usize) -> Result<(Option<OwnedFd>, bool)> {
            Ok((None, false))
        }
    }

    #[test]
    fn it_ends_when_it_is_told_to_and_not_by_errors() {
        const ABORTED: Error = Error::Os(Errno::new(libc::ECONNABORTED));
        const EXPIRED: Error = Error::Os(Errno::new(libc::ETIMEDOUT));
        for end in [&[ABORTED, EXPIRED, Error::Canceled][..], &[ABORTED, EXPIRED, Error::TimedOut]] {
            let listener = Told(Cell::new(end));
            let numbers = Incoming::new(&listener).map(|item| item.unwrap_err().raw_os_error());
            assert_eq!(numbers.collect::<Vec<_>>(), [Some(libc::ECONNABORTED), Some(libc::ETIMEDOUT)]);
        }
    }
}
