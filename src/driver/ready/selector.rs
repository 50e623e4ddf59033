//! What tells when descriptors are ready: one type in front of `epoll(7)` and `poll(2)`.

#[cfg(target_os = "linux")]
use super::epoll::Epoll;
use super::poll::Poll;
use crate::Backend;
use std::os::fd::RawFd;

/// Interest is one-shot: after an event on a descriptor, or an error, it has to be [armed](Selector::arm) again. Events
/// may be spurious; whoever gets one attempts the operation and arms again if that would wait.
pub(crate) enum Selector {
    #[cfg(target_os = "linux")]
    Epoll(Epoll),
    Poll(Poll),
}

impl Selector {
    #[cfg(target_os = "linux")]
    pub(crate) fn epoll() -> Result<Selector, crate::Errno> {
        Epoll::new().map(Selector::Epoll)
    }

    pub(crate) fn poll() -> Selector {
        Selector::Poll(Poll::default())
    }

    pub(super) fn backend(&self) -> Backend {
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(_) => Backend::Epoll,
            Selector::Poll(_) => Backend::Poll,
        }
    }

    /// A descriptor that is readable while `wait` has something to report.
    pub(super) fn pollable(&self) -> Option<RawFd> {
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => Some(epoll.fd()),
            Selector::Poll(_) => None,
        }
    }

    /// How many system calls [`arm`](Self::arm) and [`disarm`](Self::disarm) have made.
    pub(super) fn registrations(&self) -> u64 {
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => epoll.registrations,
            Selector::Poll(_) => 0,
        }
    }

    /// Reports a descriptor as long as it is readable. 0, or `-errno`.
    pub(super) fn watch_always(&mut self, fd: RawFd) -> i32 {
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => epoll.watch_always(fd),
            Selector::Poll(poll) => poll.watch_always(fd),
        }
    }

    /// Reports a descriptor once when one of the events has happened. 0, `-EPERM` if it cannot be waited for, or
    /// another
    /// `-errno`.
    pub(super) fn arm(&mut self, fd: RawFd, events: u16) -> i32 {
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => epoll.arm(fd, events),
            Selector::Poll(poll) => poll.arm(fd, events),
        }
    }

    /// Forgets a descriptor.
    pub(super) fn disarm(&mut self, fd: RawFd) {
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => epoll.disarm(fd),
            Selector::Poll(poll) => poll.disarm(fd),
        }
    }

    /// Takes note that a descriptor was reported.
    pub(super) fn fired(&mut self, fd: RawFd) {
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => epoll.fired(fd),
            Selector::Poll(poll) => poll.disarm(fd),
        }
    }

    /// Waits for events, at most `limit` nanoseconds. Gives their number, or `-errno`.
    pub(super) fn wait(&mut self, limit: Option<u64>, events: &mut Vec<(RawFd, u16)>) -> i32 {
        events.clear();
        match self {
            #[cfg(target_os = "linux")]
            Selector::Epoll(epoll) => epoll.wait(limit, events),
            Selector::Poll(poll) => poll.wait(limit, events),
        }
    }
}
