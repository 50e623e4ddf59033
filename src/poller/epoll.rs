//! `epoll(7)`, which keeps the registrations itself: there is no table here that could differ from the kernel's.

use super::{
    Events, Interest, Token,
    event::{ERR, Event, HUP, IN, OUT, PRI, RDHUP},
};
use crate::{sys, sys::ret};
use std::{
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// The mark of the descriptor that wakes.
const WAKE: u64 = u64::MAX;

pub(super) struct Epoll {
    /// Not closed in a forked child: see [`Drop`].
    epoll: ManuallyDrop<OwnedFd>,
    life: sys::fork::Life,
}

fn create() -> Result<OwnedFd, i32> {
    // SAFETY: takes a number only.
    match ret(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }) {
        // SAFETY: just made, and owned by nobody else.
        fd if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        error => Err(error),
    }
}

fn control(epoll: &OwnedFd, action: i32, fd: BorrowedFd<'_>, events: u32, mark: u64) -> Result<(), i32> {
    let mut event = libc::epoll_event { events, u64: mark };
    // SAFETY: the event is a local.
    match ret(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), action, fd.as_raw_fd(), &mut event) }) {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Whether epoll takes a descriptor; `None` if it cannot be asked.
pub(super) fn takes(fd: BorrowedFd<'_>) -> Option<bool> {
    let epoll = create().ok()?;
    Some(control(&epoll, libc::EPOLL_CTL_ADD, fd, 0, 0) != Err(-libc::EPERM))
}

fn events(interest: Interest) -> u32 {
    let mode = match interest {
        interest if interest.is_one_shot() => libc::EPOLLONESHOT as u32,
        interest if interest.is_edge() => libc::EPOLLET as u32,
        _ => 0,
    };
    u32::from(interest.bits_wanted()) | mode
}

impl Epoll {
    pub(super) fn new(wake: BorrowedFd<'_>, life: sys::fork::Life) -> Result<Epoll, i32> {
        let epoll = create()?;
        control(&epoll, libc::EPOLL_CTL_ADD, wake, libc::EPOLLIN as u32, WAKE)?;
        Ok(Epoll { epoll: ManuallyDrop::new(epoll), life })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    pub(super) fn register(&mut self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> Result<(), i32> {
        control(&self.epoll, libc::EPOLL_CTL_ADD, fd, events(interest), token.0 as u64)
    }

    pub(super) fn modify(&mut self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> Result<(), i32> {
        control(&self.epoll, libc::EPOLL_CTL_MOD, fd, events(interest), token.0 as u64)
    }

    pub(super) fn delete(&mut self, fd: BorrowedFd<'_>) -> Result<(), i32> {
        control(&self.epoll, libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits at most `limit` nanoseconds. Gives whether it was woken.
    pub(super) fn wait(&mut self, limit: Option<u64>, events: &mut Events) -> Result<bool, i32> {
        // More than that the kernel refuses.
        let max = events.kernel.len().min(i32::MAX as usize / size_of::<libc::epoll_event>());
        // SAFETY: the vector holds at least as many events.
        let count = unsafe { sys::epoll_wait(self.epoll.as_raw_fd(), events.kernel.as_mut_ptr(), max, limit) };
        if count < 0 {
            return Err(count);
        }
        let mut woken = false;
        for at in 0..count as usize {
            // Copied, for the structure is packed on some machines.
            let libc::epoll_event { events: bits, u64: mark } = events.kernel[at];
            if mark == WAKE {
                woken = true;
            } else {
                let bits = bits as u16 & (IN | OUT | PRI | ERR | HUP | RDHUP);
                events.push(Event::new(Token(mark as usize), bits));
            }
        }
        Ok(woken)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // A forked child may have closed all descriptors that it inherited, and the number be something else by now.
        if self.life.goes_on() {
            // SAFETY: dropped here only, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.epoll) };
        }
    }
}
