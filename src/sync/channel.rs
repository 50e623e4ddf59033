//! Values from many to many.
//!
//! One who waits has a slot on its frame: a sender's holds its value, a receiver's is empty. Values go from slot to
//! queue and back under the lock, by whoever comes next, so what a channel holds is always in the order in which it was
//! sent, and nothing is set aside for anybody that might leave. While receivers wait the queue is empty and no sender
//! waits; while senders wait the queue is full.

use super::{
    error::{RecvError, SendError, SendFailure, TryRecvError, TrySendError},
    waitlist::{self, Counted, How, Init, List, Local, Lock, Mode, Turn},
};
use crate::coro::wait::Wake;
use std::{cell::UnsafeCell, collections::VecDeque, fmt};

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receivers: usize,
    sending: List,
    receiving: List,
}

impl<T> Init for State<T> {
    const INIT: State<T> =
        State { queue: VecDeque::new(), senders: 1, receivers: 1, sending: List::INIT, receiving: List::INIT };
}

pub(super) const RECV: How = How::of("a value in a channel");

/// What those who wait are given.
const CLOSED: usize = 0;
const MOVED: usize = 1;

/// Where the value of one who waits is. Belongs to whoever has the lock while its node is queued, and to its frame
/// before and after.
struct Slot<T>(UnsafeCell<Option<T>>);

impl<T> Slot<T> {
    fn new(value: Option<T>) -> Slot<T> {
        Slot(UnsafeCell::new(value))
    }

    fn place(&self) -> *const () {
        (&raw const self.0).cast()
    }

    /// # Safety
    /// The slot is the caller's now, as said above.
    #[expect(clippy::mut_from_ref, reason = "that is what the cell is for")]
    unsafe fn get(&self) -> &mut Option<T> {
        // SAFETY: promised by the caller.
        unsafe { &mut *self.0.get() }
    }

    /// # Safety
    /// `place` is that of a `Slot<T>`, which is the caller's until `'a` is over.
    unsafe fn at<'a>(place: *const ()) -> &'a mut Option<T> {
        // SAFETY: promised by the caller.
        unsafe { &mut *UnsafeCell::raw_get(place.cast()) }
    }
}

enum Offer {
    Sent(Option<Wake>),
    Full,
    Closed,
}

enum Taken<T> {
    Value(T, Option<Wake>),
    Empty,
    Closed,
}

impl<T> State<T> {
    /// Takes the value out of a slot, if there is somebody or some room for it.
    fn offer(&mut self, value: &mut Option<T>, capacity: usize) -> Offer {
        if self.receivers == 0 {
            return Offer::Closed;
        }
        if self.receiving.is_empty() {
            if self.queue.len() >= capacity {
                return Offer::Full;
            }
            self.queue.extend(value.take());
            return Offer::Sent(None);
        }
        // SAFETY: all nodes in this list have a slot for a `T`, and this has the lock.
        Offer::Sent(self.receiving.pop_with(MOVED, |place| unsafe { *Slot::at(place) = value.take() }))
    }

    /// Takes the oldest value.
    fn take(&mut self) -> Taken<T> {
        let oldest = self.queue.pop_front();
        let mut next = None;
        // SAFETY: all nodes in this list have a slot for a `T`, and this has the lock.
        let wake = self.sending.pop_with(MOVED, |place| next = unsafe { Slot::at(place).take() });
        match (oldest, next) {
            (Some(oldest), next) => {
                self.queue.extend(next);
                Taken::Value(oldest, wake)
            }
            (None, Some(value)) => Taken::Value(value, wake),
            (None, None) if self.senders == 0 => Taken::Closed,
            (None, None) => Taken::Empty,
        }
    }
}

struct Channel<T, M: Mode> {
    state: M::Lock<State<T>>,
    capacity: usize,
}

fn wake(wake: Option<Wake>) {
    if let Some(wake) = wake {
        wake.wake();
    }
}

/// A channel for up to `capacity` values that nobody has received yet. With 0 a value goes from hand to hand: `send`
/// waits until it is received.
///
/// Senders and receivers can be cloned; each value is received once, in the order in which they were sent. Whoever
/// waits first is served first.
///
/// ```
/// use aio::{coro, sync};
///
/// coro::run(|| {
///     let (sender, receiver) = sync::channel(2);
///     coro::scope(|s| {
///         s.spawn(move || {
///             for i in 0..5 {
///                 sender.send(i).unwrap();                // waits while there are two
///             }
///         });
///         assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
///     });
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    open(capacity)
}

/// A channel for any number of values: `send` never waits.
///
/// ```
/// use aio::{coro, sync};
///
/// coro::run(|| {
///     let (sender, receiver) = sync::unbounded();
///     (0..1000).for_each(|i| sender.send(i).unwrap());
///     drop(sender);
///     assert_eq!(receiver.into_iter().sum::<i32>(), 499_500);
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    open(usize::MAX)
}

/// A channel of either kind.
pub(super) fn open<T, M: Mode>(capacity: usize) -> (Sender<T, M>, Receiver<T, M>) {
    let channel = M::Counted::new(Channel { state: <M::Lock<State<T>> as Lock<State<T>>>::NEW, capacity });
    (Sender { channel: channel.clone() }, Receiver { channel })
}

/// Puts values into a channel; made by [`channel`] and [`unbounded`]. When all are gone, receivers get what is left and
/// then [`RecvError::Closed`].
pub struct Sender<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
}

/// Takes values out of a channel; made by [`channel`] and [`unbounded`]. When all are gone, what is left is dropped,
/// and senders get [`SendFailure::Closed`].
pub struct Receiver<T, M: Mode = Local> {
    channel: M::Counted<Channel<T, M>>,
}

impl<T, M: Mode> Sender<T, M> {
    /// Sends a value; waits for room.
    ///
    /// # Errors
    ///
    /// Gives the value back: [`SendFailure::Closed`] if all receivers are gone, [`SendFailure::Interrupted`] as
    /// [any wait](super#waiting). A value is either received, in the channel, or given back.
    ///
    /// ```
    /// use aio::{Error, coro, sync::{self, SendFailure}};
    /// use std::time::Duration;
    ///
    /// coro::run(|| {
    ///     let (sender, receiver) = sync::channel(0);
    ///     let late = coro::timeout(Duration::from_millis(1), || sender.send("hello")).unwrap_err();
    ///     assert_eq!((late.value, late.reason), ("hello", SendFailure::Interrupted(Error::TimedOut)));
    ///     drop(receiver);
    ///     assert_eq!(sender.send("hello").unwrap_err().reason, SendFailure::Closed);
    /// })?;
    /// # Ok::<(), aio::SetupError>(())
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        const HOW: How = How::of("room in a channel");
        let slot = Slot::new(Some(value));
        let mut woken = None;
        let now = |state: &mut State<T>| {
            // SAFETY: the slot's node is not queued.
            match state.offer(unsafe { slot.get() }, self.channel.capacity) {
                Offer::Sent(wake) => {
                    woken = wake;
                    Turn::Take(MOVED)
                }
                Offer::Closed => Turn::Take(CLOSED),
                Offer::Full => Turn::Queue(0),
            }
        };
        let how = HOW.slot(slot.place());
        let list: fn(&mut State<T>) -> &mut List = |state| &mut state.sending;
        let result = waitlist::wait_as::<M, State<T>>(how, &self.channel.state, list, now, |_| (), |_, _| None);
        wake(woken);
        let reason = match result {
            Ok(MOVED) => return Ok(()),
            Ok(_) => SendFailure::Closed,
            Err(error) => SendFailure::Interrupted(error),
        };
        match slot.0.into_inner() {
            Some(value) => Err(SendError { value, reason }),
            None => unreachable!("whoever takes the value says so"),
        }
    }

    /// Sends a value if there is room, or without room of its own (capacity 0) a receiver that waits.
    ///
    /// # Errors
    ///
    /// Gives the value back.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut value = Some(value);
        let offer = self.channel.state.with(|state| state.offer(&mut value, self.channel.capacity));
        match (offer, value) {
            (Offer::Full, Some(value)) => return Err(TrySendError::Full(value)),
            (Offer::Closed, Some(value)) => return Err(TrySendError::Closed(value)),
            (Offer::Sent(woken), _) => wake(woken),
            (_, None) => unreachable!("it is taken only if it is sent"),
        }
        Ok(())
    }

    /// Whether all receivers are gone.
    pub fn is_closed(&self) -> bool {
        self.channel.state.with(|state| state.receivers == 0)
    }

    /// How many values are in the channel.
    pub fn len(&self) -> usize {
        self.channel.state.with(|state| state.queue.len())
    }

    /// Whether no value is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values fit in; `None` if any number.
    pub fn capacity(&self) -> Option<usize> {
        (self.channel.capacity != usize::MAX).then_some(self.channel.capacity)
    }
}

impl<T, M: Mode> Receiver<T, M> {
    /// Takes the oldest value; waits for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] if there is none and all senders are gone; [`RecvError::Interrupted`] as
    /// [any wait](super#waiting), with nothing taken: a task that gives up when a value is sent to it gets the value.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_as(RECV, |_| ())
    }

    pub(super) fn recv_as(&self, how: How, queued: impl FnOnce(&dyn Fn() -> bool)) -> Result<T, RecvError> {
        let slot = Slot::new(None);
        let mut woken = None;
        let now = |state: &mut State<T>| match state.take() {
            Taken::Value(value, wake) => {
                woken = wake;
                // SAFETY: the slot's node is not queued.
                unsafe { *slot.get() = Some(value) };
                Turn::Take(MOVED)
            }
            Taken::Closed => Turn::Take(CLOSED),
            Taken::Empty => Turn::Queue(0),
        };
        let how = how.slot(slot.place());
        let list: fn(&mut State<T>) -> &mut List = |state| &mut state.receiving;
        let result = waitlist::wait_as::<M, State<T>>(how, &self.channel.state, list, now, queued, |_, _| None);
        wake(woken);
        result?;
        slot.0.into_inner().ok_or(RecvError::Closed)
    }

    /// Takes the oldest value, if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], or [`TryRecvError::Closed`] if all senders are gone besides.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.channel.state.with(State::take) {
            Taken::Value(value, woken) => {
                wake(woken);
                Ok(value)
            }
            Taken::Empty => Err(TryRecvError::Empty),
            Taken::Closed => Err(TryRecvError::Closed),
        }
    }

    /// The values, as they come. Ends when the channel is closed, and also when a wait is given up; where that makes a
    /// difference, use [`recv`](Self::recv).
    pub fn iter(&self) -> Iter<'_, T, M> {
        Iter(self)
    }

    /// Whether all senders are gone. There may be values left.
    pub fn is_closed(&self) -> bool {
        self.channel.state.with(|state| state.senders == 0)
    }

    /// How many values are in the channel.
    pub fn len(&self) -> usize {
        self.channel.state.with(|state| state.queue.len())
    }

    /// Whether no value is in the channel.
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
    fn clone(&self) -> Receiver<T, M> {
        self.channel.state.with(|state| state.receivers += 1);
        Receiver { channel: self.channel.clone() }
    }
}

impl<T, M: Mode> Drop for Sender<T, M> {
    fn drop(&mut self) {
        let last = self.channel.state.with(|state| {
            state.senders -= 1;
            state.senders == 0
        });
        if last {
            waitlist::wake_all(&self.channel.state, |state| &mut state.receiving, CLOSED);
        }
    }
}

impl<T, M: Mode> Drop for Receiver<T, M> {
    fn drop(&mut self) {
        let left = self.channel.state.with(|state| {
            state.receivers -= 1;
            (state.receivers == 0).then(|| std::mem::take(&mut state.queue))
        });
        if left.is_some() {
            waitlist::wake_all(&self.channel.state, |state| &mut state.sending, CLOSED);
        }
        // Last, for it is the user's code.
        drop(left);
    }
}

/// The values of a channel, as they come; made by [`Receiver::iter`].
pub struct Iter<'a, T, M: Mode = Local>(&'a Receiver<T, M>);

impl<T, M: Mode> Iterator for Iter<'_, T, M> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'a, T, M: Mode> IntoIterator for &'a Receiver<T, M> {
    type Item = T;
    type IntoIter = Iter<'a, T, M>;

    fn into_iter(self) -> Iter<'a, T, M> {
        self.iter()
    }
}

/// The values of a channel, as they come; made from a [`Receiver`].
pub struct IntoIter<T, M: Mode = Local>(Receiver<T, M>);

impl<T, M: Mode> Iterator for IntoIter<T, M> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T, M: Mode> IntoIterator for Receiver<T, M> {
    type Item = T;
    type IntoIter = IntoIter<T, M>;

    fn into_iter(self) -> IntoIter<T, M> {
        IntoIter(self)
    }
}

impl<T, M: Mode> fmt::Debug for Sender<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T, M: Mode> fmt::Debug for Receiver<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T, M: Mode> fmt::Debug for Iter<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Iter").field(self.0).finish()
    }
}

impl<T, M: Mode> fmt::Debug for IntoIter<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IntoIter").field(&self.0).finish()
    }
}
