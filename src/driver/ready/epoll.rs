//! `epoll(7)`.

use crate::{Errno, sys, sys::ret};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const BATCH: usize = 256;

/// Descriptors stay registered after their event, disarmed by `EPOLLONESHOT`, which spares a call when the next
/// operation waits for them. A disarmed registration reports nothing, so one that a descriptor's number outlives does
/// no harm: the kernel drops it with the open file, and arming finds out.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    /// Per descriptor: what is armed, and whether a registration is known.
    known: Vec<Known>,
    events: Vec<libc::epoll_event>,
    pub(super) registrations: u64,
}

#[derive(Clone, Copy, Default)]
struct Known {
    armed: u16,
    registered: bool,
}

impl Epoll {
    pub(super) fn new() -> Result<Epoll, Errno> {
        // SAFETY: takes a number only.
        let fd = ret(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
        if fd < 0 {
            return Err(Errno::new(-fd));
        }
        Ok(Epoll {
            // SAFETY: just made, and owned by nobody else.
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
            known: Vec::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; BATCH],
            registrations: 0,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn control(&mut self, action: i32, fd: RawFd, events: u32) -> i32 {
        self.registrations += 1;
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: the event is a local.
        ret(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), action, fd, &mut event) })
    }

    pub(super) fn watch_always(&mut self, fd: RawFd) -> i32 {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32)
    }

    pub(super) fn arm(&mut self, fd: RawFd, events: u16) -> i32 {
        let index = fd.max(0) as usize;
        if self.known.len() <= index {
            self.known.resize(index + 1, Known::default());
        }
        let Known { armed, registered } = self.known[index];
        if armed & events == events {
            return 0;
        }
        let interest = u32::from(events) | libc::EPOLLONESHOT as u32;
        let (first, second, unless) = if registered {
            (libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_ADD, -libc::ENOENT)
        } else {
            (libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_MOD, -libc::EEXIST)
        };
        let mut result = self.control(first, fd, interest);
        if result == unless {
            result = self.control(second, fd, interest);
        }
        self.known[index] = match result {
            0 => Known { armed: events, registered: true },
            _ => Known::default(),
        };
        result
    }

    pub(super) fn disarm(&mut self, fd: RawFd) {
        if let Some(known) = self.known.get_mut(fd.max(0) as usize)
            && known.armed != 0
        {
            *known = Known::default();
            self.control(libc::EPOLL_CTL_DEL, fd, 0);
        }
    }

    pub(super) fn fired(&mut self, fd: RawFd) {
        if let Some(known) = self.known.get_mut(fd.max(0) as usize) {
            known.armed = 0;
        }
    }

    pub(super) fn wait(&mut self, limit: Option<u64>, events: &mut Vec<(RawFd, u16)>) -> i32 {
        // SAFETY: the pointer and length are the vector's.
        let count = unsafe { sys::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), BATCH, limit) };
        for event in &self.events[..count.max(0) as usize] {
            events.push((event.u64 as RawFd, event.events as u16));
        }
        count
    }
}
