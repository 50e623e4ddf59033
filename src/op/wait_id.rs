//! Children by number, and what becomes of them short of their end.
#![allow(unsafe_code)]

use crate::{
    Error, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp},
    sealed::Sealed,
};
use std::{fmt, mem};

/// Which children [`WaitId`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Who {
    /// Any child of this process.
    Any,
    /// The one with this process number.
    Pid(u32),
    /// Any of this process group; 0 is the caller's own.
    Group(u32),
}

/// What has happened to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChildState {
    /// It has exited with this code.
    Exited(i32),
    /// This signal has killed it.
    Signaled(i32),
    /// This signal has killed it, and it has left a core dump.
    Dumped(i32),
    /// This signal has stopped it, or a debugger has.
    Stopped(i32),
    /// It goes on.
    Continued,
}

/// What [`WaitId`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Waited {
    /// The child's process number.
    pub pid: u32,
    /// The user that it runs as.
    pub uid: u32,
    /// What has happened.
    pub state: ChildState,
}

/// Waits until a child process has changed its state: `waitid(2)`.
///
/// By itself it waits for the end of a child and takes it, so that its number may go to another process. For a child
/// that [`Command`](std::process::Command) has started there is [`ChildExit`](super::ChildExit), which knows that the
/// number is still the child's; whoever takes one of those here takes it away from its `Child`, whose `wait` fails then.
///
/// ```
/// use aio::op::*;
/// use std::process::Command;
///
/// # #[allow(clippy::zombie_processes)]
/// # fn main() -> std::io::Result<()> {
/// let child = Command::new("sh").args(["-c", "exit 69"]).spawn()?;
/// let wait = WaitId::new(Who::Pid(child.id()));
/// match aio::single(wait) {
///     Ok(waited) => assert_eq!((waited.pid, waited.state), (child.id(), ChildState::Exited(69))),
///     Err(aio::Error::Unsupported(_)) => {}       // io_uring before Linux 6.7
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
///
/// Without any such child the error is `ECHILD`.
///
/// `IORING_OP_WAITID`, Linux 6.7; [`Unsupported`](Error::Unsupported) on older rings. The emulation looks every few
/// milliseconds.
pub struct WaitId {
    who: Who,
    flags: i32,
    info: libc::siginfo_t,
}

impl fmt::Debug for WaitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitId").field("who", &self.who).finish_non_exhaustive()
    }
}

impl WaitId {
    /// Waits until one of them has ended, and takes it.
    pub fn new(who: Who) -> WaitId {
        // SAFETY: zeros are a valid `siginfo_t`: integers.
        WaitId { who, flags: libc::WEXITED, info: unsafe { mem::zeroed() } }
    }

    /// Waits also until one was stopped by a signal.
    pub fn or_stopped(mut self) -> WaitId {
        self.flags |= libc::WSTOPPED;
        self
    }

    /// Waits also until one that was stopped goes on.
    pub fn or_continued(mut self) -> WaitId {
        self.flags |= libc::WCONTINUED;
        self
    }

    /// Leaves the child as it is, to be waited for again.
    pub fn leave(mut self) -> WaitId {
        self.flags |= libc::WNOWAIT;
        self
    }
}

impl Sealed for WaitId {}

impl Op for WaitId {
    gives!(Waited);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let (which, id) = match self.who {
            Who::Any => (libc::P_ALL, 0),
            Who::Pid(pid) => (libc::P_PID, pid),
            Who::Group(group) => (libc::P_PGID, group),
        };
        // The type differs between systems.
        #[allow(clippy::unnecessary_cast)]
        let which = which as u32;
        let op = RawOp::WaitId { which, id, flags: self.flags, info: &raw mut self.info };
        match cx.supports(&op) {
            true => op,
            false => RawOp::Invalid(Error::Unsupported(
                &"WaitId needs Linux 6.7 with io_uring, or the emulation (epoll or poll); for one child use ChildExit",
            )),
        }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<Waited> {
        outcome.unit()?;
        // SAFETY: the kernel has filled the fields of a child's signal in.
        let (pid, uid, status) = unsafe { (self.info.si_pid(), self.info.si_uid(), self.info.si_status()) };
        let state = match self.info.si_code {
            libc::CLD_EXITED => ChildState::Exited(status),
            libc::CLD_KILLED => ChildState::Signaled(status),
            libc::CLD_DUMPED => ChildState::Dumped(status),
            libc::CLD_CONTINUED => ChildState::Continued,
            // By a signal, or by a debugger.
            _ => ChildState::Stopped(status),
        };
        Ok(Waited { pid: pid as u32, uid, state })
    }
}
