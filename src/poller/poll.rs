//! `poll(2)`, which every Unix has and which remembers nothing: modes and registrations are kept here.

use super::{
    Events, Interest, Token,
    event::{ERR, Event, HUP},
};
use crate::{sys, sys::ret};
use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

const NVAL: u16 = libc::POLLNVAL as u16;

/// As far as the system tells one file from another. A number that was closed and is another file now can be found out
/// by it, unless both are of a kind that has one for all, as `eventfd(2)` on Linux.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: libc::dev_t,
    inode: libc::ino_t,
    kind: libc::mode_t,
}

impl Identity {
    fn of(fd: RawFd) -> Result<Identity, i32> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the kernel fills the structure on this frame if it returns 0.
        match ret(unsafe { libc::fstat(fd, stat.as_mut_ptr()) }) {
            0 => {
                // SAFETY: filled, see above.
                let stat = unsafe { stat.assume_init() };
                Ok(Identity { device: stat.st_dev, inode: stat.st_ino, kind: stat.st_mode & libc::S_IFMT })
            }
            error => Err(error),
        }
    }
}

/// The same, or `-EPERM` for what epoll refuses. `poll(2)` itself takes anything and calls it ready.
fn identify(fd: BorrowedFd<'_>) -> Result<Identity, i32> {
    let identity = Identity::of(fd.as_raw_fd())?;
    let refused = match identity.kind {
        libc::S_IFIFO | libc::S_IFSOCK => false,
        // Some devices cannot tell, `/dev/null` for one, and some files of `/proc` and `/sys` can. Only epoll knows.
        #[cfg(target_os = "linux")]
        kind @ (libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK | libc::S_IFCHR) => {
            !super::epoll::takes(fd).unwrap_or(kind == libc::S_IFCHR)
        }
        #[cfg(not(target_os = "linux"))]
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK => true,
        _ => false,
    };
    if refused { Err(-libc::EPERM) } else { Ok(identity) }
}

pub(super) struct Poll {
    /// What the kernel is asked. The first is the descriptor that wakes.
    polled: Vec<libc::pollfd>,
    /// What each is about; the first stands for nothing.
    entries: Vec<Entry>,
    /// Where a descriptor is in both.
    places: HashMap<RawFd, usize>,
    /// How many entries hold something back.
    held: usize,
    /// Where to begin to look, so that each has its turn if there is room for a few events only.
    start: usize,
    /// Whose turn it is if there is room for one event: the one that wakes, or a source.
    wake_waits: bool,
    /// Entries whose descriptors were found closed.
    gone: Vec<usize>,
}

struct Entry {
    fd: RawFd,
    token: Token,
    interest: Interest,
    identity: Identity,
    /// Edge mode: what was reported, and is not again until it was seen gone or is armed again.
    held: u16,
    /// One-shot mode: not reported yet.
    armed: bool,
}

impl Entry {
    fn new(fd: RawFd, token: Token, interest: Interest, identity: Identity) -> Entry {
        Entry { fd, token, interest, identity, held: 0, armed: true }
    }

    /// What the kernel is to wait for. It tells hang-ups and errors always; a descriptor of which that is not wanted
    /// (again) must be left out altogether, by a negative number.
    fn ask(&self) -> libc::pollfd {
        let silent = !self.armed || self.held & (HUP | ERR) != 0;
        let events = self.interest.bits_wanted() & !self.held;
        libc::pollfd { fd: if silent { !self.fd } else { self.fd }, events: events as i16, revents: 0 }
    }

    /// The same without anything held back.
    fn ask_all(&self) -> libc::pollfd {
        libc::pollfd { fd: self.fd, events: self.interest.bits_wanted() as i16, revents: 0 }
    }
}

impl Poll {
    pub(super) fn new(wake: BorrowedFd<'_>) -> Result<Poll, i32> {
        let fd = wake.as_raw_fd();
        let entry = Entry::new(fd, Token(usize::MAX), Interest::READ, Identity::of(fd)?);
        Ok(Poll {
            polled: vec![entry.ask()],
            entries: vec![entry],
            places: HashMap::new(),
            held: 0,
            start: 1,
            wake_waits: false,
            gone: Vec::new(),
        })
    }

    /// Where a descriptor is registered, and what it is.
    fn find(&mut self, fd: BorrowedFd<'_>) -> Result<(Option<usize>, Identity), i32> {
        let identity = identify(fd)?;
        let place = match self.places.get(&fd.as_raw_fd()) {
            // The number was registered as another file, which is closed: nothing is known of this one.
            Some(&place) if self.entries[place].identity != identity => {
                self.remove(place);
                None
            }
            place => place.copied(),
        };
        Ok((place, identity))
    }

    pub(super) fn register(&mut self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> Result<(), i32> {
        let (place, identity) = self.find(fd)?;
        if place.is_some() {
            return Err(-libc::EEXIST);
        }
        let entry = Entry::new(fd.as_raw_fd(), token, interest, identity);
        self.places.insert(entry.fd, self.entries.len());
        self.polled.push(entry.ask());
        self.entries.push(entry);
        Ok(())
    }

    pub(super) fn modify(&mut self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> Result<(), i32> {
        let (place, identity) = self.find(fd)?;
        let place = place.ok_or(-libc::ENOENT)?;
        self.held -= usize::from(self.entries[place].held != 0);
        self.entries[place] = Entry::new(fd.as_raw_fd(), token, interest, identity);
        self.polled[place] = self.entries[place].ask();
        Ok(())
    }

    pub(super) fn delete(&mut self, fd: BorrowedFd<'_>) -> Result<(), i32> {
        let place = self.find(fd)?.0.ok_or(-libc::ENOENT)?;
        self.remove(place);
        Ok(())
    }

    /// Reports a direction of an edge again if it is ready.
    pub(super) fn rearm(&mut self, fd: BorrowedFd<'_>, interest: Interest) {
        if let Some(&place) = self.places.get(&fd.as_raw_fd()) {
            let entry = &mut self.entries[place];
            if entry.held != 0 {
                entry.held &= !(interest.bits_wanted() | HUP | ERR);
                self.held -= usize::from(entry.held == 0);
                self.polled[place] = entry.ask();
            }
        }
    }

    fn remove(&mut self, place: usize) {
        self.polled.swap_remove(place);
        let entry = self.entries.swap_remove(place);
        self.held -= usize::from(entry.held != 0);
        self.places.remove(&entry.fd);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.fd, place);
        }
    }

    /// Waits at most `limit` nanoseconds. Gives whether it was woken.
    pub(super) fn wait(&mut self, limit: Option<u64>, events: &mut Events) -> Result<bool, i32> {
        if self.held > 0 {
            self.look()?;
            let woken = self.collect(events)?;
            if woken || !events.is_empty() {
                return Ok(woken);
            }
        }
        match sys::poll(&mut self.polled, limit) {
            error if error < 0 => Err(error),
            0 => Ok(false),
            _ => self.collect(events),
        }
    }

    /// Finds out what that was held back is no longer ready. It cannot be waited for together with the rest, for what
    /// still is ready would end each wait at once.
    fn look(&mut self) -> Result<(), i32> {
        for (entry, polled) in self.entries.iter().zip(&mut self.polled).filter(|(entry, _)| entry.held != 0) {
            *polled = entry.ask_all();
        }
        let result = sys::poll(&mut self.polled, Some(0));
        for (entry, polled) in self.entries.iter_mut().zip(&mut self.polled).filter(|(entry, _)| entry.held != 0) {
            if result >= 0 {
                entry.held &= polled.revents as u16;
                self.held -= usize::from(entry.held == 0);
            }
            *polled = libc::pollfd { revents: polled.revents, ..entry.ask() };
        }
        if result < 0 { Err(result) } else { Ok(()) }
    }

    /// Takes what the kernel has said.
    fn collect(&mut self, events: &mut Events) -> Result<bool, i32> {
        if self.polled[0].revents as u16 & NVAL != 0 {
            // Somebody has closed a descriptor that was not his.
            return Err(-libc::EBADF);
        }
        let woken = self.polled[0].revents != 0;
        // Who was woken may need room for a notification.
        let mut room = events.room() - usize::from(woken);
        let mut gives_way = false;
        if room == 0 {
            self.wake_waits = !self.wake_waits;
            gives_way = self.wake_waits;
            room = usize::from(gives_way);
        }
        let len = self.entries.len();
        let start = if self.start < len { self.start } else { 1 };
        for place in (start..len).chain(1..start) {
            let bits = self.polled[place].revents as u16;
            let entry = &mut self.entries[place];
            if bits & !entry.held == 0 {
                continue;
            }
            if room == 0 {
                self.start = place;
                break;
            }
            room -= 1;
            // Closed, or closed and another file by now, whose events are none of ours.
            if bits & NVAL != 0 || Identity::of(entry.fd) != Ok(entry.identity) {
                events.push(Event::new(entry.token, ERR));
                self.gone.push(place);
                continue;
            }
            events.push(Event::new(entry.token, bits));
            if entry.interest.is_one_shot() {
                entry.armed = false;
            } else if entry.interest.is_edge() {
                self.held += usize::from(entry.held == 0);
                entry.held |= bits;
            } else {
                continue;
            }
            self.polled[place] = entry.ask();
        }
        // From the last to the first, because what is behind a removed one moves.
        self.gone.sort_unstable();
        while let Some(place) = self.gone.pop() {
            self.remove(place);
        }
        // Nobody was there to give way to, if there still is room.
        Ok(woken && !(gives_way && room == 0))
    }
}
