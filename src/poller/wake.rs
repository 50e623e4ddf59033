//! What other threads reach a poller by.

use super::{Events, Token, event::Event};
use crate::sys::{
    concurrent::{AtomicBool, EventSource, Mutex, MutexGuard},
    fork::Life,
};
use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::BorrowedFd,
    sync::{Arc, PoisonError, atomic::Ordering::SeqCst},
};

#[cfg(all(loom, test))]
mod loom;

/// What a poller and those who wake it have in common.
pub(super) struct Shared {
    event: EventSource,
    /// The event was notified, or is about to be; nobody else needs to.
    signalled: AtomicBool,
    /// A waker was used.
    woken: AtomicBool,
    /// Notifiers that were used.
    queue: Mutex<VecDeque<Arc<Pending>>>,
    life: Life,
}

/// One notifier and its clones.
struct Pending {
    token: Token,
    /// It is in the queue.
    queued: AtomicBool,
}

impl Shared {
    pub(super) fn new(life: Life) -> io::Result<Shared> {
        let (signalled, woken) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Shared { event: EventSource::new()?, signalled, woken, queue: Mutex::default(), life })
    }

    /// Readable after a [`kick`](Self::kick).
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.event)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Arc<Pending>>> {
        // Nothing that is done under the lock can panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kick(&self) {
        if !self.signalled.swap(true, SeqCst) {
            self.event.notify();
        }
    }

    /// The descriptor was seen readable: takes what others have left.
    pub(super) fn take(&self, events: &mut Events) {
        // Emptied before the swap: whoever comes in between has nothing to write, and has left before that what is
        // looked at after it. A mere store would not see it.
        while let Ok(true) = self.event.try_wait() {}
        self.signalled.swap(false, SeqCst);
        events.woken |= self.woken.swap(false, SeqCst);
        let mut queue = self.queue();
        while events.room() > 0
            && let Some(pending) = queue.pop_front()
        {
            // Before the event is given: a notification that comes after what it makes the program do is another one.
            // What was written before one that is part of this is seen, which it would not be by a mere store.
            pending.queued.swap(false, SeqCst);
            events.push(Event::notification(pending.token));
        }
        let left = !queue.is_empty();
        drop(queue);
        if left {
            self.kick();
        }
    }
}

/// Ends a [`Poller::wait`](super::Poller::wait) from any thread.
///
/// If nobody waits the next wait ends at once. However often it was used before a wait ends, that wait ends by it, and
/// only that one; [`Events::woken`] tells. What was written before the call is seen after the wait.
///
/// It stays usable, and does nothing, when the poller is gone, and in a forked child.
///
/// ```
/// use aio::poller::{Events, Poller};
///
/// let mut poller = Poller::new()?;
/// let waker = poller.waker();
/// let thread = std::thread::spawn(move || waker.wake());
/// let mut events = Events::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// assert!(events.woken());
/// # thread.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Waker(pub(super) Arc<Shared>);

impl Waker {
    /// Ends the wait. Never waits itself.
    pub fn wake(&self) {
        // The descriptor is the parent's as well, which a child has no business to wake.
        if self.0.life.goes_on() {
            self.0.woken.store(true, SeqCst);
            self.0.kick();
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}

/// An event of the program's own, with a token: any thread notifies, [`Poller::wait`](super::Poller::wait) gives an
/// [`Event`] that is `notified`.
///
/// Notifications that come before the event is given are one. Clones are the same notifier. What was notified before
/// the last of them was dropped is still given. In a forked child it does nothing.
///
/// ```
/// use aio::poller::{Events, Poller, Token};
///
/// let mut poller = Poller::new()?;
/// let job_done = poller.notifier(7);
/// std::thread::spawn(move || job_done.notify());
/// let mut events = Events::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// let event = events.iter().next().unwrap();
/// assert!(event.notified && event.token == Token(7));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Notifier {
    shared: Arc<Shared>,
    pending: Arc<Pending>,
}

impl Notifier {
    pub(super) fn new(shared: Arc<Shared>, token: Token) -> Notifier {
        Notifier { shared, pending: Arc::new(Pending { token, queued: AtomicBool::new(false) }) }
    }

    /// Makes the event happen.
    pub fn notify(&self) {
        if self.shared.life.goes_on() && !self.pending.queued.swap(true, SeqCst) {
            self.shared.queue().push_back(self.pending.clone());
            self.shared.kick();
        }
    }

    /// The token of its events.
    pub fn token(&self) -> Token {
        self.pending.token
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("token", &self.pending.token).finish_non_exhaustive()
    }
}
