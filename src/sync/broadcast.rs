//! Values from many to everybody.
//!
//! A channel keeps the last values that were sent, so many as it was made for. Each receiver gets each of them; one
//! that is too slow loses the oldest, and is told how many. Senders never wait.
//!
//! ```
//! use aio::{coro, sync::broadcast};
//!
//! coro::run(|| {
//!     let (sender, mut one) = broadcast::channel(8);
//!     let mut two = sender.subscribe();
//!     sender.send("news").unwrap();
//!     assert_eq!((one.recv(), two.recv()), (Ok("news"), Ok("news")));
//! })?;
//! # Ok::<(), aio::SetupError>(())
//! ```

use super::{
    error::{SendError, SendFailure},
    waitlist::{self, Counted, How, Init, List, Local, Lock, Mode, Tickets, Turn},
};
use crate::Error;
use std::{collections::VecDeque, fmt, io};

struct State<T, M: Mode> {
    /// Shared, so that no value is cloned or dropped under the lock.
    ring: VecDeque<M::Counted<T>>,
    /// How many values were sent before the first in the ring.
    first: u64,
    senders: usize,
    receivers: usize,
    tickets: Tickets,
    waiting: List,
}

impl<T, M: Mode> Init for State<T, M> {
    const INIT: State<T, M> = State {
        ring: VecDeque::new(),
        first: 0,
        senders: 1,
        receivers: 1,
        tickets: Tickets::INIT,
        waiting: List::INIT,
    };
}

impl<T, M: Mode> State<T, M> {
    /// How many values were sent.
    fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// The value that a receiver is at, which moves on.
    fn fetch(&mut self, next: &mut u64) -> Result<M::Counted<T>, TryRecvError> {
        let Some(at) = next.checked_sub(self.first) else {
            let lost = self.first - *next;
            *next = self.first;
            return Err(TryRecvError::Lagged(lost));
        };
        match self.ring.get(usize::try_from(at).unwrap_or(usize::MAX)) {
            Some(value) => {
                *next += 1;
                Ok(value.clone())
            }
            None if self.senders == 0 => Err(TryRecvError::Closed),
            None => Err(TryRecvError::Empty),
        }
    }
}

struct Channel<T, M: Mode> {
    state: M::Lock<State<T, M>>,
    capacity: usize,
}

pub(super) const RECV: How = How::of("a broadcast");

/// Why a receiver has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// It was too slow: so many values are lost. It goes on with the oldest that is kept.
    #[error("too slow: {0} values are lost")]
    Lagged(u64),
    /// It has seen everything, and all senders are gone.
    #[error("the channel is closed")]
    Closed,
    /// The wait was given up. Nothing is lost by that.
    #[error(transparent)]
    Interrupted(#[from] Error),
}

/// Why a receiver has no value without a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// It was too slow: so many values are lost. It goes on with the oldest that is kept.
    #[error("too slow: {0} values are lost")]
    Lagged(u64),
    /// It has seen everything that was sent so far.
    #[error("the channel is empty")]
    Empty,
    /// It has seen everything, and all senders are gone.
    #[error("the channel is closed")]
    Closed,
}

impl From<RecvError> for io::Error {
    /// A closed channel is `UnexpectedEof`.
    fn from(error: RecvError) -> io::Error {
        match error {
            RecvError::Lagged(_) => io::Error::other(error),
            RecvError::Closed => io::ErrorKind::UnexpectedEof.into(),
            RecvError::Interrupted(error) => error.into(),
        }
    }
}

/// A channel that keeps the last `capacity` values.
///
/// # Panics
///
/// If `capacity` is 0.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    open(capacity)
}

/// A channel of either kind.
pub(super) fn open<T, M: Mode>(capacity: usize) -> (Sender<T, M>, Receiver<T, M>) {
    assert!(capacity > 0, "a broadcast channel has to keep at least one value");
    let channel = M::Counted::new(Channel { state: <M::Lock<State<T, M>> as Lock<State<T, M>>>::NEW, capacity });
    (Sender { channel: channel.clone() }, Receiver { channel, next: 0 })
}

/// Sends values to all receivers; made by [`channel`]. When all are gone, receivers get what is kept and then
/// [`RecvError::Closed`].
pub struct Sender<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
}

/// Receives values, each once; made by [`channel`] and [`Sender::subscribe`].
pub struct Receiver<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
    /// The number of the value that comes next.
    next: u64,
}

impl<T, M: Mode> Sender<T, M> {
    /// Sends a value to all receivers that there are, and tells how many. Never waits: if there is no room the oldest
    /// value is dropped, and receivers that have not seen it will be told.
    ///
    /// # Errors
    ///
    /// Gives the value back if there is no receiver: the reason is [`SendFailure::Closed`]. There may be one
    /// [again](Self::subscribe).
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let mut value = Some(M::Counted::new(value));
        let (receivers, end, oldest) = self.channel.state.with(|state| {
            if state.receivers == 0 {
                return (0, state.tickets.end(), None);
            }
            let full = state.ring.len() == self.channel.capacity;
            let oldest = if full { state.ring.pop_front() } else { None };
            state.first += u64::from(full);
            state.ring.extend(value.take());
            (state.receivers, state.tickets.end(), oldest)
        });
        if let Some(value) = value.and_then(Counted::into_inner) {
            return Err(SendError { value, reason: SendFailure::Closed });
        }
        waitlist::wake_each(&self.channel.state, |state| state.waiting.pop_before(end, 0));
        // Last, for it is the user's code.
        drop(oldest);
        Ok(receivers)
    }

    /// A new receiver, for what is sent from now on.
    pub fn subscribe(&self) -> Receiver<T, M> {
        let next = self.channel.state.with(|state| {
            state.receivers += 1;
            state.end()
        });
        Receiver { channel: self.channel.clone(), next }
    }

    /// How many receivers there are.
    pub fn receivers(&self) -> usize {
        self.channel.state.with(|state| state.receivers)
    }
}

impl<T: Clone, M: Mode> Receiver<T, M> {
    /// The next value; waits for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Lagged`] if values were lost: the next call goes on with the oldest that is kept.
    /// [`RecvError::Closed`] if there are no more and all senders are gone. [`RecvError::Interrupted`] as
    /// [any wait](super#waiting); nothing is lost then.
    ///
    /// ```
    /// use aio::{coro, sync::broadcast::{self, RecvError}};
    ///
    /// coro::run(|| {
    ///     let (sender, mut receiver) = broadcast::channel(2);
    ///     (0..5).for_each(|i| drop(sender.send(i)));
    ///     drop(sender);
    ///     assert_eq!(receiver.recv(), Err(RecvError::Lagged(3)));
    ///     assert_eq!((receiver.recv(), receiver.recv()), (Ok(3), Ok(4)));
    ///     assert_eq!(receiver.recv(), Err(RecvError::Closed));
    /// })?;
    /// # Ok::<(), aio::SetupError>(())
    /// ```
    pub fn recv(&mut self) -> Result<T, RecvError> {
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Lagged(lost)) => return Err(RecvError::Lagged(lost)),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => self.await_more(RECV, |_| ())?,
            }
        }
    }

    /// Waits until `try_recv` has something to say.
    pub(super) fn await_more(&self, how: How, queued: impl FnOnce(&dyn Fn() -> bool)) -> Result<(), Error> {
        let next = self.next;
        let now = |state: &mut State<T, M>| {
            if next < state.end() || state.senders == 0 { Turn::Take(0) } else { state.tickets.draw() }
        };
        let list: fn(&mut State<T, M>) -> &mut List = |state| &mut state.waiting;
        waitlist::wait_as::<M, State<T, M>>(how, &self.channel.state, list, now, queued, |_, _| None).map(drop)
    }

    /// The next value, if there is one.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`TryRecvError::Empty`] where that would wait.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let value = self.channel.state.with(|state| state.fetch(&mut self.next))?;
        Ok(value.unwrap_or_clone())
    }
}

impl<T, M: Mode> Receiver<T, M> {
    /// How many values it has not seen, those included that are lost.
    pub fn len(&self) -> u64 {
        self.channel.state.with(|state| state.end() - self.next)
    }

    /// Whether it has seen everything that was sent so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T, M: Mode> Clone for Sender<T, M> {
    fn clone(&self) -> Sender<T, M> {
        self.channel.state.with(|state| state.senders += 1);
        Sender { channel: self.channel.clone() }
    }
}

impl<T, M: Mode> Clone for Receiver<T, M> {
    /// It goes on from where this one is.
    fn clone(&self) -> Receiver<T, M> {
        self.channel.state.with(|state| state.receivers += 1);
        Receiver { channel: self.channel.clone(), next: self.next }
    }
}

impl<T, M: Mode> Drop for Sender<T, M> {
    fn drop(&mut self) {
        let last = self.channel.state.with(|state| {
            state.senders -= 1;
            state.senders == 0
        });
        if last {
            waitlist::wake_all(&self.channel.state, |state| &mut state.waiting, 0);
        }
    }
}

impl<T, M: Mode> Drop for Receiver<T, M> {
    fn drop(&mut self) {
        let unseen = self.channel.state.with(|state| {
            state.receivers -= 1;
            (state.receivers == 0).then(|| std::mem::take(&mut state.ring))
        });
        // The user's code, so without the lock.
        drop(unseen);
    }
}

impl<T, M: Mode> fmt::Debug for Sender<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("receivers", &self.receivers()).finish_non_exhaustive()
    }
}

impl<T, M: Mode> fmt::Debug for Receiver<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}
