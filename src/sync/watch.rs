//! The latest of a value that changes, from many to everybody.
//!
//! Only the latest value is kept: a receiver that comes late, or is slow, sees that one and not those before it.
//!
//! ```
//! use aio::{coro, sync::watch};
//!
//! coro::run(|| {
//!     let (sender, mut config) = watch::channel("first");
//!     assert_eq!(config.get(), "first");
//!     let task = coro::spawn(move || config.recv());          // waits for a change
//!     sender.send("second");
//!     assert_eq!(task.join().unwrap(), Ok("second"));
//! })?;
//! # Ok::<(), aio::SetupError>(())
//! ```

use super::{
    error::RecvError,
    waitlist::{self, Counted, How, Init, List, Local, Lock, Mode, Tickets, Turn},
};
use std::fmt;

struct State<T, M: Mode> {
    /// Shared, so that no value is cloned or dropped under the lock. There is one as soon as the channel is open.
    value: Option<M::Counted<T>>,
    /// How many values there were.
    version: u64,
    senders: usize,
    tickets: Tickets,
    waiting: List,
}

impl<T, M: Mode> Init for State<T, M> {
    const INIT: State<T, M> =
        State { value: None, version: 0, senders: 1, tickets: Tickets::INIT, waiting: List::INIT };
}

struct Channel<T, M: Mode>(M::Lock<State<T, M>>);

impl<T, M: Mode> Channel<T, M> {
    /// Sets the value and wakes those who wait for one.
    fn set(&self, value: T) {
        let value = M::Counted::new(value);
        let (old, end) = self.0.with(|state| {
            state.version += 1;
            (state.value.replace(value), state.tickets.end())
        });
        waitlist::wake_each(&self.0, |state| state.waiting.pop_before(end, 0));
        // Last, for it is the user's code.
        drop(old);
    }
}

/// What `recv` waits for.
pub(super) const RECV: How = How::of("a change of a value");

/// A channel that holds a value.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    open(value)
}

/// A channel of either kind. The receiver has seen the first value.
pub(super) fn open<T, M: Mode>(value: T) -> (Sender<T, M>, Receiver<T, M>) {
    let channel = M::Counted::new(Channel(<M::Lock<State<T, M>> as Lock<State<T, M>>>::NEW));
    channel.set(value);
    (Sender { channel: channel.clone() }, Receiver { channel, seen: 1 })
}

/// Changes the value; made by [`channel`]. When all are gone, receivers that have seen the last value get
/// [`RecvError::Closed`].
pub struct Sender<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
}

/// Sees the value; made by [`channel`] and [`Sender::subscribe`].
pub struct Receiver<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
    /// The number of the last value that it has seen.
    seen: u64,
}

impl<T, M: Mode> Sender<T, M> {
    /// Replaces the value. Never waits, and needs no receivers.
    pub fn send(&self, value: T) {
        self.channel.set(value);
    }

    /// A new receiver, which has seen the value that there is now.
    pub fn subscribe(&self) -> Receiver<T, M> {
        Receiver { channel: self.channel.clone(), seen: self.channel.0.with(|state| state.version) }
    }
}

impl<T: Clone, M: Mode> Receiver<T, M> {
    /// The value that there is now. It counts as seen.
    pub fn get(&mut self) -> T {
        let (value, version) = self.channel.0.with(|state| (state.value.clone(), state.version));
        self.seen = version;
        match value {
            Some(value) => value.unwrap_or_clone(),
            None => unreachable!("it is set when the channel is opened"),
        }
    }

    /// Waits for a value that it has not seen, and gives the latest.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] if it has seen the last one and all senders are gone; [`RecvError::Interrupted`] as
    /// [any wait](super#waiting), with nothing seen.
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_as(RECV, |_| ())
    }

    pub(super) fn recv_as(&mut self, how: How, queued: impl FnOnce(&dyn Fn() -> bool)) -> Result<T, RecvError> {
        let seen = self.seen;
        let now = |state: &mut State<T, M>| {
            if state.version != seen || state.senders == 0 { Turn::Take(0) } else { state.tickets.draw() }
        };
        let list: fn(&mut State<T, M>) -> &mut List = |state| &mut state.waiting;
        waitlist::wait_as::<M, State<T, M>>(how, &self.channel.0, list, now, queued, |_, _| None)?;
        if self.has_changed() { Ok(self.get()) } else { Err(RecvError::Closed) }
    }
}

impl<T, M: Mode> Receiver<T, M> {
    /// Whether there is a value that it has not seen.
    pub fn has_changed(&self) -> bool {
        self.channel.0.with(|state| state.version != self.seen)
    }

    /// Whether all senders are gone. The last value may be unseen.
    pub fn is_closed(&self) -> bool {
        self.channel.0.with(|state| state.senders == 0)
    }
}

impl<T, M: Mode> Clone for Sender<T, M> {
    fn clone(&self) -> Sender<T, M> {
        self.channel.0.with(|state| state.senders += 1);
        Sender { channel: self.channel.clone() }
    }
}

impl<T, M: Mode> Clone for Receiver<T, M> {
    /// It has seen what this one has.
    fn clone(&self) -> Receiver<T, M> {
        Receiver { channel: self.channel.clone(), seen: self.seen }
    }
}

impl<T, M: Mode> Drop for Sender<T, M> {
    fn drop(&mut self) {
        let last = self.channel.0.with(|state| {
            state.senders -= 1;
            state.senders == 0
        });
        if last {
            waitlist::wake_all(&self.channel.0, |state| &mut state.waiting, 0);
        }
    }
}

impl<T, M: Mode> fmt::Debug for Sender<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T, M: Mode> fmt::Debug for Receiver<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("has_changed", &self.has_changed()).finish_non_exhaustive()
    }
}
