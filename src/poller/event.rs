//! What is asked for and what is told: tokens, interests, events.

use std::{fmt, slice};

/// What the readiness of a socket's sending peer is called, where it has a name.
#[cfg(target_os = "linux")]
pub(super) const RDHUP: u16 = libc::POLLRDHUP as u16;
#[cfg(not(target_os = "linux"))]
pub(super) const RDHUP: u16 = 0;

pub(super) const IN: u16 = libc::POLLIN as u16;
pub(super) const PRI: u16 = libc::POLLPRI as u16;
pub(super) const OUT: u16 = libc::POLLOUT as u16;
pub(super) const ERR: u16 = libc::POLLERR as u16;
pub(super) const HUP: u16 = libc::POLLHUP as u16;

/// A number of the program's choice, which its events come with: an index into a table, for example.
///
/// `usize::MAX` is the only one that cannot be registered.
///
/// ```
/// use aio::poller::Token;
///
/// assert_eq!(Token::from(7), Token(7));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub usize);

impl From<usize> for Token {
    fn from(number: usize) -> Token {
        Token(number)
    }
}

bitflags::bitflags! {
    /// What to wait for, and how often to tell. Hang-ups and errors are told always, even with an empty interest.
    ///
    /// ```
    /// use aio::poller::Interest;
    ///
    /// let both = Interest::READ | Interest::WRITE;
    /// assert!((both | Interest::ONE_SHOT).contains(Interest::READ));
    /// assert!(Interest::empty().is_empty());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Interest: u8 {
        /// A read, or an accept, would not wait.
        const READ = 1;
        /// A write would not wait.
        const WRITE = 2;
        /// There is something urgent: out-of-band data, or a change of a file in `/sys` or `/proc` that tells so.
        const PRIORITY = 4;
        /// Edge mode: told when it becomes ready, and not again while it stays so. See [the module](super#modes).
        const EDGE = 8;
        /// One-shot mode: told once, then silent until [`Poller::modify`](super::Poller::modify). Wins over `EDGE`.
        const ONE_SHOT = 16;
    }
}

impl Interest {
    /// As `poll(2)` has it.
    pub(super) fn bits_wanted(self) -> u16 {
        let bit = |flag, bits| if self.contains(flag) { bits } else { 0 };
        bit(Interest::READ, IN | RDHUP) | bit(Interest::WRITE, OUT) | bit(Interest::PRIORITY, PRI)
    }

    pub(super) fn is_one_shot(self) -> bool {
        self.contains(Interest::ONE_SHOT)
    }

    pub(super) fn is_edge(self) -> bool {
        self.contains(Interest::EDGE) && !self.is_one_shot()
    }
}

/// What has happened to one source.
///
/// Several things may be true at once. They are as the system tells them: the end of a pipe is a `hang_up` without
/// `readable`, for example. [`can_read`](Event::can_read) and [`can_write`](Event::can_write) put them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The token that the source was registered with, or the notifier was made with.
    pub token: Token,
    /// There is something to read, or to accept, or the end of a stream. Only if the interest has `READ`.
    pub readable: bool,
    /// There is room to write. Only if the interest has `WRITE`.
    pub writable: bool,
    /// Both directions are closed: the other end of a pipe or of a connection is gone.
    pub hang_up: bool,
    /// Nothing more will come than what is there to read now: the peer has shut down its sending side, or there is a
    /// hang-up. Without a hang-up it is told on Linux only, and only if the interest has `READ`.
    pub read_closed: bool,
    /// There is an error, which the next read or write gives; or a pipe that nobody reads; or the descriptor was
    /// closed while it was registered, which `poll(2)` alone can tell.
    pub error: bool,
    /// There is something urgent. Only if the interest has `PRIORITY`.
    pub priority: bool,
    /// A [`Notifier`](super::Notifier) was used. Nothing else is true then.
    pub notified: bool,
}

impl Event {
    pub(super) fn new(token: Token, bits: u16) -> Event {
        let any = |mask| bits & mask != 0;
        Event {
            token,
            readable: any(IN),
            writable: any(OUT),
            hang_up: any(HUP),
            read_closed: any(RDHUP | HUP),
            error: any(ERR),
            priority: any(PRI),
            notified: false,
        }
    }

    pub(super) fn notification(token: Token) -> Event {
        Event { notified: true, ..Event::new(token, 0) }
    }

    /// Whether a read would not wait, whatever it gives: data, the end or an error.
    ///
    /// ```
    /// use aio::poller::{Events, Interest, Poller};
    ///
    /// let mut poller = Poller::new()?;
    /// let (output, input) = std::io::pipe()?;
    /// poller.register(&output, 0, Interest::READ)?;
    /// drop(input);
    /// let mut events = Events::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// assert!(events.iter().all(|event| event.hang_up && event.can_read()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn can_read(&self) -> bool {
        self.readable || self.read_closed || self.error
    }

    /// Whether a write would not wait, whatever it gives.
    ///
    /// ```
    /// use aio::poller::{Events, Interest, Poller};
    ///
    /// let mut poller = Poller::new()?;
    /// let (output, input) = std::io::pipe()?;
    /// poller.register(&input, 0, Interest::empty())?;
    /// drop(output);
    /// let mut events = Events::with_capacity(8);
    /// poller.wait(&mut events, None)?;
    /// assert!(events.iter().all(|event| event.error && event.can_write()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn can_write(&self) -> bool {
        self.writable || self.hang_up || self.error
    }
}

/// Where [`Poller::wait`](super::Poller::wait) puts events: as many at a time as it has room for.
///
/// All memory is taken at the beginning. What does not fit comes with the next waits, and no source is passed over for
/// ever.
///
/// ```
/// use aio::poller::Events;
///
/// let events = Events::with_capacity(20_000);
/// assert!(events.is_empty() && events.capacity() == 20_000);
/// ```
pub struct Events {
    list: Vec<Event>,
    capacity: usize,
    /// Where `epoll_wait(2)` writes.
    #[cfg(target_os = "linux")]
    pub(super) kernel: Vec<libc::epoll_event>,
    pub(super) woken: bool,
}

impl Events {
    /// Room for `capacity` events, or for one if that is 0.
    pub fn with_capacity(capacity: usize) -> Events {
        let capacity = capacity.max(1);
        Events {
            list: Vec::with_capacity(capacity),
            capacity,
            #[cfg(target_os = "linux")]
            kernel: vec![libc::epoll_event { events: 0, u64: 0 }; capacity],
            woken: false,
        }
    }

    /// How many events there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many events the last wait has given.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether the last wait has given none: the time was over, or a [`Waker`](super::Waker) was used.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a [`Waker`](super::Waker) was used before or during the last wait.
    ///
    /// ```
    /// use aio::poller::{Events, Poller};
    ///
    /// let mut poller = Poller::new()?;
    /// let mut events = Events::with_capacity(8);
    /// poller.waker().wake();
    /// poller.wait(&mut events, None)?;
    /// assert!(events.woken() && events.is_empty());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn woken(&self) -> bool {
        self.woken
    }

    /// The events of the last wait.
    pub fn iter(&self) -> slice::Iter<'_, Event> {
        self.list.iter()
    }

    /// Forgets the events. Each wait begins with that.
    pub fn clear(&mut self) {
        self.list.clear();
        self.woken = false;
    }

    pub(super) fn room(&self) -> usize {
        self.capacity - self.list.len()
    }

    /// There is room.
    pub(super) fn push(&mut self, event: Event) {
        debug_assert!(self.room() > 0);
        self.list.push(event);
    }
}

impl<'e> IntoIterator for &'e Events {
    type Item = &'e Event;
    type IntoIter = slice::Iter<'e, Event>;

    fn into_iter(self) -> slice::Iter<'e, Event> {
        self.iter()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("list", &self.list).field("woken", &self.woken).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_of_the_system_is_one_thing_that_is_told() {
        let told = |event: Event| {
            let all = [
                (event.readable, "readable"),
                (event.writable, "writable"),
                (event.hang_up, "hang_up"),
                (event.read_closed, "read_closed"),
                (event.error, "error"),
                (event.priority, "priority"),
                (event.notified, "notified"),
                (event.can_read(), "can_read"),
                (event.can_write(), "can_write"),
            ];
            all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, name)| name).collect::<Vec<_>>().join(" ")
        };
        let token = Token(7);
        assert_eq!(told(Event::new(token, 0)), "");
        assert_eq!(told(Event::new(token, IN)), "readable can_read");
        assert_eq!(told(Event::new(token, OUT)), "writable can_write");
        assert_eq!(told(Event::new(token, PRI)), "priority");
        assert_eq!(told(Event::new(token, ERR)), "error can_read can_write");
        assert_eq!(told(Event::new(token, HUP)), "hang_up read_closed can_read can_write");
        #[cfg(target_os = "linux")]
        assert_eq!(told(Event::new(token, RDHUP)), "read_closed can_read");
        assert_eq!(told(Event::new(token, IN | OUT)), "readable writable can_read can_write");
        assert_eq!(told(Event::notification(token)), "notified");
        assert_eq!((Event::new(token, IN).token, Event::notification(token).token), (token, token));
    }

    #[test]
    fn an_interest_asks_for_its_own_bits_and_one_shot_wins_over_edge() {
        let (read, write, priority) = (Interest::READ, Interest::WRITE, Interest::PRIORITY);
        let (edge, once) = (Interest::EDGE, Interest::ONE_SHOT);
        assert_eq!([read, write, priority].map(Interest::bits_wanted), [IN | RDHUP, OUT, PRI]);
        assert_eq!((read | write | priority | edge).bits_wanted(), IN | RDHUP | OUT | PRI);
        assert_eq!((edge | once).bits_wanted(), 0);
        assert_eq!([read, edge, once, edge | once].map(Interest::is_one_shot), [false, false, true, true]);
        assert_eq!([read, edge, once, edge | once].map(Interest::is_edge), [false, true, false, false]);
    }

    #[test]
    fn events_have_room_for_one_at_least() {
        for (asked, capacity) in [(0, 1), (1, 1), (3, 3)] {
            let mut events = Events::with_capacity(asked);
            assert_eq!((events.capacity(), events.room(), events.len()), (capacity, capacity, 0));
            assert!(events.is_empty() && !events.woken());
            for number in 0..capacity {
                events.push(Event::new(Token(number), IN));
            }
            assert_eq!((events.capacity(), events.room(), events.len()), (capacity, 0, capacity));
            assert!(!events.is_empty());
            assert!(events.iter().map(|event| event.token.0).eq(0..capacity));
            events.woken = true;
            assert!(events.woken());
            events.clear();
            assert!(events.is_empty() && events.room() == capacity && !events.woken());
        }
    }
}
