//! `poll(2)`, which every Unix has.

use crate::sys;
use std::{collections::HashMap, os::fd::RawFd};

#[derive(Default)]
pub(crate) struct Poll {
    entries: Vec<libc::pollfd>,
    /// Where a descriptor's entry is.
    places: HashMap<RawFd, usize>,
    /// The descriptor that stays armed after an event.
    always: Option<RawFd>,
}

impl Poll {
    pub(super) fn watch_always(&mut self, fd: RawFd) -> i32 {
        self.always = Some(fd);
        self.set(fd, libc::POLLIN);
        0
    }

    pub(super) fn arm(&mut self, fd: RawFd, events: u16) -> i32 {
        if sys::is_disk(fd) {
            return -libc::EPERM;
        }
        self.set(fd, events as i16);
        0
    }

    fn set(&mut self, fd: RawFd, events: i16) {
        let place = *self.places.entry(fd).or_insert(self.entries.len());
        if place == self.entries.len() {
            self.entries.push(libc::pollfd { fd, events: 0, revents: 0 });
        }
        self.entries[place].events = events;
    }

    pub(super) fn disarm(&mut self, fd: RawFd) {
        if self.always == Some(fd) {
            return;
        }
        if let Some(place) = self.places.remove(&fd) {
            self.entries.swap_remove(place);
            if let Some(moved) = self.entries.get(place) {
                self.places.insert(moved.fd, place);
            }
        }
    }

    pub(super) fn wait(&mut self, limit: Option<u64>, events: &mut Vec<(RawFd, u16)>) -> i32 {
        let count = sys::poll(&mut self.entries, limit);
        if count > 0 {
            let ready = self.entries.iter().filter(|entry| entry.revents != 0);
            events.extend(ready.map(|entry| (entry.fd, entry.revents as u16)));
        }
        count
    }
}
