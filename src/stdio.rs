//! The process's standard streams, by operations.
//!
//! [`stdin`], [`stdout`] and [`stderr`] give handles that are [`Read`](std::io::Read) or [`Write`](std::io::Write), and
//! [`AsFd`] for operations of your own. Terminals, pipes, sockets and files do alike.
//!
//! Nothing is buffered here: one call is one operation. [`BufReader`](std::io::BufReader) and
//! [`BufWriter`](std::io::BufWriter) add that. What [`std::io::stdin`] has buffered already is not seen here, and what
//! [`print!`] has buffered comes when that is flushed, so use one or the other.
//!
//! Unlike the standard library's handles these have no lock: two threads that write at once mix what they write, though
//! not within one operation on a file, a terminal or (up to `PIPE_BUF` bytes) a pipe. A call that is cancelled or times
//! out has taken nothing from a stream.
//!
//! ```
//! use std::io::Write;
//!
//! writeln!(aio::stdio::stdout(), "done: {}", 69)?;
//! # Ok::<(), std::io::Error>(())
//! ```

use crate::transfer::{impl_read, impl_write};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

/// The standard input, descriptor 0.
///
/// ```no_run
/// use std::io::{BufRead, BufReader};
///
/// for line in BufReader::new(aio::stdio::stdin()).lines() {
///     println!("{}", line?.to_uppercase());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Reading gives what `read(2)` gives; at the end of the input it gives 0 bytes.
pub fn stdin() -> Stdin {
    Stdin(io::stdin())
}

/// The standard output, descriptor 1.
///
/// # Errors
///
/// Writing gives what `write(2)` gives: [`BrokenPipe`](io::ErrorKind::BrokenPipe) if nobody reads it any more, unless
/// the process has chosen to be ended by `SIGPIPE`.
pub fn stdout() -> Stdout {
    Stdout(io::stdout())
}

/// The standard error stream, descriptor 2.
///
/// # Errors
///
/// As of [`stdout`].
pub fn stderr() -> Stderr {
    Stderr(io::stderr())
}

macro_rules! stream {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        #[derive(Debug)]
        pub struct $name(io::$name);

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }
    )*};
}

stream! {
    /// The standard input; made by [`stdin`].
    Stdin
    /// The standard output; made by [`stdout`].
    Stdout
    /// The standard error stream; made by [`stderr`].
    Stderr
}

impl_read!(Stdin, &Stdin; |_| 0);
impl_write!(Stdout, &Stdout, Stderr, &Stderr);
