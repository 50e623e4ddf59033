//! A child process, and the pipes to it.

use super::{ExitStatus, Output, Stdio};
use crate::{
    Error,
    blocking::blocking_surely,
    complete,
    op::{ChildExit, Read},
    single,
    transfer::{impl_read, impl_write, read_to_end},
    windowed,
};
use std::{
    cell::RefCell,
    io, iter,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// What one operation reads of an output, in bytes: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// A child process; made by [`Command::spawn`](super::Command::spawn).
///
/// Dropping it does nothing to the process, as in the standard library: it goes on, and when it has ended it stays in
/// the process table (a zombie), for nobody waits for it, until this process ends as well.
/// [`kill_on_drop`](super::Command::kill_on_drop) ends and removes it instead.
///
/// ```
/// use aio::process::Command;
/// use std::os::unix::process::ExitStatusExt;
///
/// let mut child = Command::new("sleep").arg("1000").spawn()?;
/// assert!(child.try_wait()?.is_none());
/// child.kill()?;
/// assert_eq!(child.wait()?.signal(), Some(libc::SIGKILL));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Child {
    /// What the child reads, if that is [`piped`](Stdio::piped). Take it to close it.
    pub stdin: Option<ChildStdin>,
    /// What the child writes, if that is piped.
    pub stdout: Option<ChildStdout>,
    /// What the child writes of errors, if that is piped.
    pub stderr: Option<ChildStderr>,
    process: Process,
}

/// Apart from the pipes, so that those can be moved out of a [`Child`].
#[derive(Debug)]
struct Process {
    child: std::process::Child,
    kill_on_drop: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kill_on_drop && matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            // Not by an operation: those of a cancelled task give up. What was killed ends soon.
            let _ = blocking_surely(|| self.child.wait());
        }
    }
}

impl Child {
    pub(super) fn new(mut child: std::process::Child, kill_on_drop: bool) -> Child {
        Child {
            stdin: child.stdin.take().map(|pipe| ChildStdin(pipe.into())),
            stdout: child.stdout.take().map(|pipe| ChildStdout(pipe.into())),
            stderr: child.stderr.take().map(|pipe| ChildStderr(pipe.into())),
            process: Process { child, kill_on_drop },
        }
    }

    /// The process's number. When the child has been waited for, the system may give it to another.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Ends the child by `SIGKILL`. If it has been waited for already, this does nothing.
    ///
    /// # Errors
    ///
    /// As `kill(2)`: [`PermissionDenied`](io::ErrorKind::PermissionDenied) if it runs as another user.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.child.kill()
    }

    /// Closes the child's standard input, if it is still here, and waits until the child has ended. If that was so
    /// before, its status is given again.
    ///
    /// The outputs are not read meanwhile: a child that writes more than a pipe holds waits for ever, unless they are
    /// read before, or by [`wait_with_output`](Self::wait_with_output).
    ///
    /// # Errors
    ///
    /// As `waitpid(2)` and [`ChildExit`]; the child is as before then.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        single(ChildExit::new(&mut self.process.child))?;
        // It has been waited for: this tells what is known already.
        self.process.child.wait()
    }

    /// The child's status if it has ended, without waiting.
    ///
    /// # Errors
    ///
    /// As `waitpid(2)`.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.child.try_wait()
    }

    /// Closes the child's standard input, reads both outputs, as far as they are piped, to their ends, and waits until
    /// the child has ended. Both are read at the same time, so the child never waits for room in one of them.
    ///
    /// ```
    /// use aio::process::{Command, Stdio};
    ///
    /// let child = Command::new("sh").args(["-c", "echo out; echo err >&2"])
    ///     .stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    /// let output = child.wait_with_output()?;
    /// assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As `read(2)` and [`wait`](Self::wait). What was read until then is lost, and the child is dropped.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        match (self.stdout.take(), self.stderr.take()) {
            (Some(out), Some(err)) => {
                drain_both([(out.as_fd(), &mut stdout), (err.as_fd(), &mut stderr)])?;
            }
            (Some(out), None) => _ = read_to_end(out.as_fd(), &mut stdout, 0)?,
            (None, Some(err)) => _ = read_to_end(err.as_fd(), &mut stderr, 0)?,
            (None, None) => {}
        }
        Ok(Output { status: self.wait()?, stdout, stderr })
    }
}

/// One of two sources that are read at the same time.
struct Source<'a> {
    fd: BorrowedFd<'a>,
    bytes: &'a mut Vec<u8>,
    /// The buffer for the next operation; while one is in flight it has it.
    chunk: Option<Vec<u8>>,
    /// The number of that operation.
    current: usize,
}

/// Appends all that two sources give, of which neither waits for the other.
fn drain_both(sources: [(BorrowedFd<'_>, &mut Vec<u8>); 2]) -> io::Result<()> {
    let sources = sources.map(|(fd, bytes)| Source { fd, bytes, chunk: Some(vec![0; CHUNK]), current: 0 });
    let (sources, ended, failure) = (RefCell::new(sources), RefCell::new(false), RefCell::new(None));
    let mut started = 0;
    // A read for each that has none, until one of the two has ended.
    let reads = iter::from_fn(|| {
        if *ended.borrow() {
            return None;
        }
        let mut sources = sources.borrow_mut();
        let source = sources.iter_mut().find(|source| source.chunk.is_some())?;
        source.current = started;
        started += 1;
        Some(Read::new(source.fd, source.chunk.take()?))
    });
    let batch = windowed(reads, 2).for_each(|at, result| {
        let mut sources = sources.borrow_mut();
        let Some(source) = sources.iter_mut().find(|source| source.chunk.is_none() && source.current == at) else {
            unreachable!("an operation belongs to the source that was given its number");
        };
        match result {
            Ok((0, _)) => ended.replace(true),
            Ok((count, chunk)) => {
                source.bytes.extend_from_slice(&chunk[..count]);
                source.chunk = Some(chunk);
                false
            }
            Err(Error::Os(errno)) if errno.raw() == libc::EINTR => {
                source.chunk = Some(vec![0; CHUNK]);
                false
            }
            Err(error) => {
                failure.borrow_mut().get_or_insert(error);
                ended.replace(true)
            }
        };
    });
    let _ = complete(batch)?;
    if let Some(error) = failure.into_inner() {
        return Err(error.into());
    }
    // The other one; of the one that has ended it finds the end once more.
    sources.into_inner().into_iter().try_for_each(|source| read_to_end(source.fd, source.bytes, 0).map(drop))
}

macro_rules! pipes {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        ///
        /// Dropping it closes the pipe. Nothing is buffered.
        #[derive(Debug)]
        pub struct $name(OwnedFd);

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

        impl From<$name> for OwnedFd {
            fn from(pipe: $name) -> OwnedFd {
                pipe.0
            }
        }

        /// For another child, which has the pipe as one of its standard streams.
        impl From<$name> for Stdio {
            fn from(pipe: $name) -> Stdio {
                pipe.0.into()
            }
        }
    )*};
}

pipes! {
    /// What a child reads. Writing gives [`BrokenPipe`](io::ErrorKind::BrokenPipe) when it reads no more.
    ChildStdin
    /// What a child writes to its standard output. The end comes when nobody has the other side open any more.
    ChildStdout
    /// What a child writes to its standard error stream. The end comes when nobody has the other side open any more.
    ChildStderr
}

impl_write!(ChildStdin, &ChildStdin);
impl_read!(ChildStdout, &ChildStdout, ChildStderr, &ChildStderr; |_| 0);
