//! The connections of a listener, one after the other.

use crate::{Error, Result, sealed::Sealed};
use std::{fmt, io};

/// A socket that takes connections: [`TcpListener`](super::TcpListener), [`UnixListener`](super::UnixListener). Sealed.
pub trait Listener: Sealed {
    /// What a connection is.
    type Stream;

    #[doc(hidden)]
    fn next_stream(&self) -> Result<Self::Stream>;
}

/// The connections of a listener: an iterator, made by [`TcpListener::incoming`](super::TcpListener::incoming) and
/// [`UnixListener::incoming`](super::UnixListener::incoming).
///
/// It waits for each connection, gives an error of `accept(2)` as an item, and ends when the wait was cancelled.
#[must_use = "an iterator does nothing unless it is used"]
pub struct Incoming<'l, L>(&'l L);

impl<'l, L: Listener> Incoming<'l, L> {
    pub(super) fn new(listener: &'l L) -> Incoming<'l, L> {
        Incoming(listener)
    }
}

impl<L: Listener> Iterator for Incoming<'_, L> {
    type Item = io::Result<L::Stream>;

    fn next(&mut self) -> Option<io::Result<L::Stream>> {
        match self.0.next_stream() {
            // A listener has no time limit of its own, so whoever waits was told to stop. A loop that skips errors
            // would never do so.
            Err(Error::Canceled | Error::TimedOut) => None,
            result => Some(result.map_err(io::Error::from)),
        }
    }
}

impl<L: fmt::Debug> fmt::Debug for Incoming<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(self.0).finish()
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
        type Stream = ();

        fn next_stream(&self) -> Result<()> {
            let (first, rest) = self.0.get().split_first().expect("asked more often than expected");
            self.0.set(rest);
            Err(*first)
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
