//! One value, once, from one to another.
//!
//! ```
//! use aio::{coro, sync::oneshot};
//!
//! coro::run(|| {
//!     let (sender, mut receiver) = oneshot::channel();
//!     coro::spawn(move || sender.send("done").unwrap());
//!     assert_eq!(receiver.recv(), Ok("done"));
//! })?;
//! # Ok::<(), aio::SetupError>(())
//! ```

use super::{
    error::{RecvError, SendError, SendFailure, TryRecvError},
    waitlist::{self, Counted, How, Init, List, Local, Lock, Mode, Turn},
};
use crate::Error;
use std::fmt;

pub(super) const RECV: How = How::of("a value in a oneshot channel");

struct State<T> {
    value: Option<T>,
    sender: bool,
    receiver: bool,
    receiving: List,
    closing: List,
}

impl<T> Init for State<T> {
    const INIT: State<T> =
        State { value: None, sender: true, receiver: true, receiving: List::INIT, closing: List::INIT };
}

struct Channel<T, M: Mode>(M::Lock<State<T>>);

/// A channel for one value.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    open()
}

/// A channel of either kind.
pub(super) fn open<T, M: Mode>() -> (Sender<T, M>, Receiver<T, M>) {
    let channel = M::Counted::new(Channel(<M::Lock<State<T>> as Lock<State<T>>>::NEW));
    (Sender { channel: channel.clone() }, Receiver { channel })
}

/// Sends the value; made by [`channel`]. If it is dropped instead, the receiver gets [`RecvError::Closed`].
pub struct Sender<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
}

/// Receives the value; made by [`channel`].
pub struct Receiver<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
}

impl<T, M: Mode> Sender<T, M> {
    /// Sends the value. Never waits.
    ///
    /// # Errors
    ///
    /// Gives it back if the receiver is gone: the reason is [`SendFailure::Closed`].
    pub fn send(self, value: T) -> Result<(), SendError<T>> {
        let mut value = Some(value);
        let wake = self.channel.0.with(|state| {
            if !state.receiver {
                return None;
            }
            state.value = value.take();
            state.receiving.pop(0)
        });
        if let Some(wake) = wake {
            wake.wake();
        }
        value.map_or(Ok(()), |value| Err(SendError { value, reason: SendFailure::Closed }))
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.channel.0.with(|state| !state.receiver)
    }

    /// Waits until the receiver is gone: nobody wants the value any more.
    ///
    /// ```
    /// use aio::{coro, sync::oneshot};
    ///
    /// coro::run(|| {
    ///     let (sender, receiver) = oneshot::channel::<u32>();
    ///     let task = coro::spawn(move || sender.closed());
    ///     drop(receiver);
    ///     assert_eq!(task.join().unwrap(), Ok(()));
    /// })?;
    /// # Ok::<(), aio::SetupError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [any wait](super#waiting).
    pub fn closed(&self) -> Result<(), Error> {
        const HOW: How = How::of("the end of a receiver");
        let now = |state: &mut State<T>| if state.receiver { Turn::Queue(0) } else { Turn::Take(0) };
        let list: fn(&mut State<T>) -> &mut List = |state| &mut state.closing;
        waitlist::wait_as::<M, State<T>>(HOW, &self.channel.0, list, now, |_| (), |_, _| None).map(drop)
    }
}

impl<T, M: Mode> Receiver<T, M> {
    /// Waits for the value. It is given once; after that the channel is closed.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] if the sender was dropped; [`RecvError::Interrupted`] as [any wait](super#waiting). The
    /// value is not lost then: it can be asked for again.
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_as(RECV, |_| ())
    }

    pub(super) fn recv_as(&mut self, how: How, queued: impl FnOnce(&dyn Fn() -> bool)) -> Result<T, RecvError> {
        let now = |state: &mut State<T>| if state.sender { Turn::Queue(0) } else { Turn::Take(0) };
        let list: fn(&mut State<T>) -> &mut List = |state| &mut state.receiving;
        match self.try_recv() {
            Ok(value) => return Ok(value),
            Err(TryRecvError::Closed) => return Err(RecvError::Closed),
            Err(TryRecvError::Empty) => {}
        }
        waitlist::wait_as::<M, State<T>>(how, &self.channel.0, list, now, queued, |_, _| None)?;
        self.try_recv().map_err(|_| RecvError::Closed)
    }

    /// Takes the value if it was sent.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or [`TryRecvError::Closed`] if there is no sender and no value.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.channel.0.with(|state| match state.value.take() {
            Some(value) => Ok(value),
            None if state.sender => Err(TryRecvError::Empty),
            None => Err(TryRecvError::Closed),
        })
    }
}

impl<T, M: Mode> Drop for Sender<T, M> {
    fn drop(&mut self) {
        self.channel.0.with(|state| state.sender = false);
        waitlist::wake_all(&self.channel.0, |state| &mut state.receiving, 0);
    }
}

impl<T, M: Mode> Drop for Receiver<T, M> {
    fn drop(&mut self) {
        self.channel.0.with(|state| state.receiver = false);
        waitlist::wake_all(&self.channel.0, |state| &mut state.closing, 0);
    }
}

impl<T, M: Mode> fmt::Debug for Sender<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl<T, M: Mode> fmt::Debug for Receiver<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
