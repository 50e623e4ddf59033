//! What the tests of the poller share.
#![allow(dead_code)]

use aio::{
    Backend,
    poller::{Event, Events, Poller},
};
use std::{io::Read as _, os::unix::net::UnixStream, time::Duration};

pub const NOW: Option<Duration> = Some(Duration::ZERO);
/// Long enough for anything that comes at all.
pub const SOON: Option<Duration> = Some(Duration::from_secs(30));

/// Runs a test on each.
#[track_caller]
pub fn each(test: impl Fn(Poller)) {
    for backend in [Backend::Epoll, Backend::Poll] {
        if backend == Backend::Epoll && !cfg!(target_os = "linux") {
            continue;
        }
        eprintln!("on {backend}");
        test(Poller::with(backend).unwrap());
    }
}

pub fn is_epoll(poller: &Poller) -> bool {
    poller.backend() == Backend::Epoll
}

#[track_caller]
pub fn wait(poller: &mut Poller, timeout: Option<Duration>) -> Vec<Event> {
    let mut events = Events::with_capacity(64);
    assert_eq!(poller.wait(&mut events, timeout).unwrap(), events.len());
    events.iter().copied().collect()
}

/// The only event that there is.
#[track_caller]
pub fn one(poller: &mut Poller) -> Event {
    let events = wait(poller, SOON);
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]
}

#[track_caller]
pub fn none(poller: &mut Poller) {
    assert_eq!(wait(poller, NOW), []);
}

pub fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// Reads until there is nothing.
pub fn drain(mut stream: &UnixStream) {
    while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
}
