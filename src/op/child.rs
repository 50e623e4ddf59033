//! Child processes.

use crate::{
    Error, Result,
    error::Errno,
    lower::{Lower, Outcome},
    op::{Fd, Op, RawOp, lowered, open::owned},
    sealed::Sealed,
    sys,
};
use std::{
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ExitStatus},
};

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It has exited with this code.
    Exited(i32),
    /// This signal has killed it.
    Signaled(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        match status.signal() {
            Some(signal) => Exit::Signaled(signal),
            None => Exit::Exited(status.code().unwrap_or(-1)),
        }
    }
}

/// Waits until a child process has ended.
///
/// The child is borrowed exclusively, and is waited for by its own `wait` when it has ended, so that the process number
/// is never used after the system may have given it to another. If the operation fails or times out, the child is as
/// before. A child that ended earlier, or was waited for earlier, is reported too.
///
/// ```
/// use aio::op::{ChildExit, Exit};
/// use std::process::Command;
///
/// let mut child = Command::new("sh").args(["-c", "exit 69"]).spawn()?;
/// assert_eq!(aio::single(ChildExit::new(&mut child))?, Exit::Exited(69));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Waits for a process descriptor (`pidfd_open(2)`, Linux 5.3) to become readable; where there is none, it looks every
/// few milliseconds.
#[derive(Debug)]
pub struct ChildExit<'c> {
    child: &'c mut Child,
    pidfd: Option<OwnedFd>,
}

impl<'c> ChildExit<'c> {
    /// For a child of this process.
    pub fn new(child: &'c mut Child) -> ChildExit<'c> {
        ChildExit { child, pidfd: None }
    }

    /// A descriptor of the child, or none where the system has no such thing.
    fn open(&mut self) -> Result<Fd> {
        match sys::pidfd(self.child.id() as libc::pid_t) {
            number if number >= 0 => {
                let fd = self.pidfd.insert(owned(number as u32));
                Ok(Fd::new(fd.as_raw_fd()))
            }
            error if error == -libc::ENOSYS => Ok(Fd::new(-1)),
            error => Err(Error::Os(Errno::new(-error))),
        }
    }
}

impl Sealed for ChildExit<'_> {}

impl Op for ChildExit<'_> {
    gives!(Exit);

    fn lower(&mut self, _cx: &mut Lower<'_>) -> RawOp {
        lowered(|| match self.child.try_wait() {
            Ok(Some(_)) => Ok(RawOp::Nop),
            Ok(None) => Ok(RawOp::ChildExit { pid: self.child.id() as libc::pid_t, pidfd: self.open()? }),
            Err(error) => Err(Error::Os(Errno::new(error.raw_os_error().unwrap_or(libc::ECHILD)))),
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<Exit> {
        // No engine waits for it any more.
        self.pidfd = None;
        outcome.unit()?;
        match self.child.wait() {
            Ok(status) => Ok(status.into()),
            Err(error) => Err(Error::Os(Errno::new(error.raw_os_error().unwrap_or(libc::ECHILD)))),
        }
    }
}
