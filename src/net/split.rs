//! Halves of a stream.

use crate::sealed::Sealed;
use std::{
    error, fmt,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

/// A stream that has halves: [`TcpStream`](super::TcpStream), [`UnixStream`](super::UnixStream). Sealed.
pub trait Stream: Sealed + AsFd {
    #[doc(hidden)]
    fn end_writing(&self);

    /// How long a receive may wait.
    #[doc(hidden)]
    fn reading_limit(&self) -> Option<Duration>;
}

/// The half of a borrowed stream that reads; made by [`TcpStream::split`](super::TcpStream::split) and
/// [`UnixStream::split`](super::UnixStream::split). `as_ref` gives the stream.
#[derive(Debug)]
pub struct ReadHalf<'s, S>(&'s S);

/// The half of a borrowed stream that writes; see [`ReadHalf`]. Dropping it ends nothing.
#[derive(Debug)]
pub struct WriteHalf<'s, S>(&'s S);

pub(super) fn lend<S>(stream: &mut S) -> (ReadHalf<'_, S>, WriteHalf<'_, S>) {
    (ReadHalf(stream), WriteHalf(stream))
}

/// The half of a stream that reads, and owns the stream together with the other; made by
/// [`TcpStream::into_split`](super::TcpStream::into_split) and
/// [`UnixStream::into_split`](super::UnixStream::into_split). `as_ref` gives the stream, which is closed when both
/// halves are gone.
#[derive(Debug)]
pub struct OwnedReadHalf<S>(Arc<S>);

/// The half of a stream that writes, and owns the stream together with an [`OwnedReadHalf`].
///
/// Dropping it ends its direction (`shutdown(2)`), so that the peer reads the end.
///
/// ```
/// use aio::net::UnixStream;
/// use std::io::{Read, Write};
///
/// let (a, mut b) = UnixStream::pair()?;
/// let (mut input, mut output) = a.into_split();
/// std::thread::spawn(move || output.write_all(b"all there is")); // and drops it
///
/// let mut text = String::new();
/// b.read_to_string(&mut text)?;
/// b.write_all(b"thanks")?;
/// let mut answer = [0; 6];
/// input.read_exact(&mut answer)?;
/// assert_eq!((text.as_str(), &answer), ("all there is", b"thanks"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct OwnedWriteHalf<S: Stream> {
    stream: Arc<S>,
    ends: bool,
}

pub(super) fn own<S: Stream>(stream: S) -> (OwnedReadHalf<S>, OwnedWriteHalf<S>) {
    let stream = Arc::new(stream);
    (OwnedReadHalf(Arc::clone(&stream)), OwnedWriteHalf { stream, ends: true })
}

/// Two halves that are not of one stream, as they were.
pub struct ReuniteError<S: Stream>(
    /// The half that reads.
    pub OwnedReadHalf<S>,
    /// The half that writes.
    pub OwnedWriteHalf<S>,
);

impl<S: Stream> OwnedReadHalf<S> {
    /// Makes a stream of its halves again.
    ///
    /// ```
    /// let (read, write) = aio::net::UnixStream::pair()?.0.into_split();
    /// let stream = read.reunite(write).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the other half is another stream's. The error gives both back.
    pub fn reunite(self, write: OwnedWriteHalf<S>) -> Result<S, ReuniteError<S>> {
        if !Arc::ptr_eq(&self.0, &write.stream) {
            return Err(ReuniteError(self, write));
        }
        write.forget();
        Ok(Arc::into_inner(self.0).expect("a stream has two halves"))
    }
}

impl<S: Stream> OwnedWriteHalf<S> {
    /// Makes a stream of its halves again; see [`OwnedReadHalf::reunite`].
    ///
    /// # Errors
    ///
    /// If the other half is another stream's. The error gives both back.
    pub fn reunite(self, read: OwnedReadHalf<S>) -> Result<S, ReuniteError<S>> {
        read.reunite(self)
    }

    /// Drops it without ending its direction, which then ends with the stream.
    pub fn forget(mut self) {
        self.ends = false;
    }
}

impl<S: Stream> Drop for OwnedWriteHalf<S> {
    fn drop(&mut self) {
        if self.ends {
            self.stream.end_writing();
        }
    }
}

impl<S: Stream> fmt::Debug for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReuniteError")
    }
}

impl<S: Stream> fmt::Display for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are of different streams; reunite each with the one it was split from")
    }
}

impl<S: Stream> error::Error for ReuniteError<S> {}

/// What each half is, given the stream in it.
macro_rules! halves {
    (read: $half:ty $(, $life:lifetime)?; $self:ident => $stream:expr) => {
        impl<$($life,)? S: Stream> AsRef<S> for $half {
            fn as_ref(&$self) -> &S {
                $stream
            }
        }

        impl<$($life,)? S: Stream> Read for $half
        where
            for<'r> &'r S: Read,
        {
            fn read(&mut $self, buf: &mut [u8]) -> io::Result<usize> {
                let mut stream: &S = $stream;
                stream.read(buf)
            }

            fn read_vectored(&mut $self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                let mut stream: &S = $stream;
                stream.read_vectored(parts)
            }
        }
    };
    (write: $half:ty $(, $life:lifetime)?; $self:ident => $stream:expr) => {
        impl<$($life,)? S: Stream> AsRef<S> for $half {
            fn as_ref(&$self) -> &S {
                $stream
            }
        }

        impl<$($life,)? S: Stream> Write for $half
        where
            for<'w> &'w S: Write,
        {
            fn write(&mut $self, bytes: &[u8]) -> io::Result<usize> {
                let mut stream: &S = $stream;
                stream.write(bytes)
            }

            fn write_vectored(&mut $self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
                let mut stream: &S = $stream;
                stream.write_vectored(parts)
            }

            /// Does nothing: what was written is the system's already.
            fn flush(&mut $self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

halves!(read: ReadHalf<'s, S>, 's; self => self.0);
halves!(read: OwnedReadHalf<S>; self => &self.0);
halves!(write: WriteHalf<'s, S>, 's; self => self.0);
halves!(write: OwnedWriteHalf<S>; self => &self.stream);
