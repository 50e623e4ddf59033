//! Handles for other threads: to wake a queue's thread, to cancel, to post events.

use super::{Queue, Token};
use crate::{
    Error, Result, SetupError,
    driver::{
        slot::{Link, Slot, State},
        waiter::Waiter,
    },
    op::{CURRENT_POSITION, EventSource, Fd, RawOp},
};
use std::{
    cell::{Cell, UnsafeCell},
    fmt, mem,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// What handles share with their queue, whatever its events are.
struct Bell {
    source: EventSource,
    /// It was rung, and nobody has come to look yet.
    rung: AtomicBool,
    cancels: Mutex<Vec<Token>>,
    closed: AtomicBool,
}

impl Bell {
    /// Many rings before anybody looks cost one system call.
    fn ring(&self) {
        if !self.rung.swap(true, SeqCst) {
            self.source.notify();
        }
    }
}

/// Events that were posted. `None` when the queue is gone.
type Mail<E> = Mutex<Option<Vec<E>>>;

/// The queue's end of it: an operation that waits for the bell.
pub(super) struct Post<E> {
    bell: Arc<Bell>,
    mail: Arc<Mail<E>>,
    slot: UnsafeCell<MaybeUninit<Slot>>,
    waiter: UnsafeCell<Waiter>,
    unit: UnsafeCell<[u8; 8]>,
    /// The operation is in flight, or has ended and nobody has looked.
    armed: Cell<bool>,
}

/// Wakes a queue's thread out of [`wait`](Queue::wait), from any thread; made by [`Queue::waker`].
///
/// A wake before the wait is not lost: that returns at once then. Many of them count as one.
///
/// ```
/// use aio::Queue;
/// use std::{thread, time::Duration};
///
/// let queue = Queue::<()>::new(1)?;
/// let waker = queue.waker()?;
/// thread::spawn(move || {
///     thread::sleep(Duration::from_millis(5));
///     waker.wake();
/// });
/// assert_eq!(queue.wait(1)?.count(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Waker(Arc<Bell>);

impl Waker {
    /// Makes the queue's present or next wait return. Does nothing if the queue is gone.
    pub fn wake(&self) {
        self.0.ring();
    }
}

/// Cancels operations of a queue from any thread; made by [`Queue::canceler`].
#[derive(Clone)]
pub struct Canceler(Arc<Bell>);

impl Canceler {
    /// Has the queue's thread [cancel](Queue::cancel) an operation, when it waits or polls. If that has ended by then,
    /// nothing happens.
    pub fn cancel(&self, token: Token) {
        if !self.0.closed.load(SeqCst) {
            self.0.cancels.lock().unwrap_or_else(PoisonError::into_inner).push(token);
            self.0.ring();
        }
    }
}

/// Posts events to a queue, from any thread; made by [`Queue::poster`].
///
/// ```
/// use aio::Queue;
/// use std::thread;
///
/// let queue = Queue::new(1)?;
/// let poster = queue.poster()?;
/// thread::spawn(move || poster.post("hello"));
/// let (token, event) = queue.wait(1)?.next().expect("an event");
/// assert!(token.is_posted() && event == "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Poster<E> {
    bell: Arc<Bell>,
    mail: Arc<Mail<E>>,
}

impl<E> Poster<E> {
    /// Puts an event into the queue, after those that are there. It takes no place.
    ///
    /// # Errors
    ///
    /// The event, if the queue is gone.
    pub fn post(&self, event: E) -> Result<(), E> {
        match &mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(letters) => letters.push(event),
            None => return Err(event),
        }
        self.bell.ring();
        Ok(())
    }
}

impl<E> Clone for Poster<E> {
    fn clone(&self) -> Poster<E> {
        Poster { bell: self.bell.clone(), mail: self.mail.clone() }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

impl fmt::Debug for Canceler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canceler")
    }
}

impl<E> fmt::Debug for Poster<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poster")
    }
}

impl Token {
    /// Whether it stands for an event that another thread has posted. There is nothing to cancel then.
    pub fn is_posted(&self) -> bool {
        self.index == super::place::NONE
    }
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// A handle that wakes this queue's thread. While there is one, a wait waits for it, even if nothing is in flight.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE` or `ENOMEM`: the first handle takes a descriptor. [`SetupError::Forked`] in a child of `fork`.
    pub fn waker(&self) -> Result<Waker> {
        Ok(Waker(self.post()?.bell.clone()))
    }

    /// A handle that cancels operations of this queue; otherwise as [`waker`](Queue::waker).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn canceler(&self) -> Result<Canceler> {
        Ok(Canceler(self.post()?.bell.clone()))
    }

    /// A handle that posts events to this queue; otherwise as [`waker`](Queue::waker). It can be sent to other threads
    /// if events can.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poster(&self) -> Result<Poster<E>> {
        let post = self.post()?;
        Ok(Poster { bell: post.bell.clone(), mail: post.mail.clone() })
    }

    fn post(&self) -> Result<&Post<E>> {
        if !self.inner.engine.is_alive() {
            return Err(Error::Setup(SetupError::Forked));
        }
        if self.inner.closing.get() {
            return Err(Error::Invalid(&"the queue is being dropped, and takes nothing any more"));
        }
        if let Some(post) = self.inner.post.get() {
            return Ok(post);
        }
        let (rung, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        let bell = Bell { source: EventSource::new()?, rung, cancels: Mutex::default(), closed };
        Ok(self.inner.post.get_or_init(|| Post {
            bell: Arc::new(bell),
            mail: Arc::new(Mutex::new(Some(Vec::new()))),
            slot: UnsafeCell::new(MaybeUninit::uninit()),
            waiter: UnsafeCell::new(Waiter::new(0)),
            unit: UnsafeCell::new([0; 8]),
            armed: Cell::new(false),
        }))
    }

    /// Whether other threads have handles.
    pub(super) fn has_remotes(&self) -> bool {
        self.inner.post.get().is_some_and(|post| Arc::strong_count(&post.bell) > 1)
    }

    /// Sees to it that the engine hears the bell, if there is somebody to ring it. Tells whether there is.
    #[inline]
    pub(super) fn listens(&self) -> bool {
        let Some(post) = self.inner.post.get() else { return false };
        if !post.armed.get() {
            self.arm(post);
        }
        self.has_remotes()
    }

    /// Whether the bell was rung.
    #[inline]
    pub(super) fn was_rung(&self) -> bool {
        self.inner.post.get().is_some_and(|post| {
            // SAFETY: read only; the engine writes to it while it runs, and not now.
            post.armed.get() && unsafe { (*post.waiter.get()).pending.get() } == 0
        })
    }

    #[cold]
    fn arm(&self, post: &Post<E>) {
        let slot: *mut Slot = post.slot.get().cast();
        let fd = Fd::new(post.bell.source.as_fd().as_raw_fd());
        let buf = post.unit.get().cast();
        let op =
            RawOp::Read { fd, buf, len: crate::sys::SEMAPHORE_UNIT as u32, offset: CURRENT_POSITION, nowait: false };
        // SAFETY: slot, waiter and buffer are boxed with the queue, whose end waits for the operation. It is not in
        // flight now.
        unsafe {
            post.waiter.get().write(Waiter::new(1));
            Slot::init(slot, op, Link::None, post.waiter.get());
            self.inner.engine.submit(slot, false);
        }
        post.armed.set(true);
    }

    /// If the bell was rung, takes what other threads have sent.
    pub(super) fn open_post(&self) {
        let Some(post) = self.inner.post.get() else { return };
        if self.was_rung() {
            post.armed.set(false);
            // Before what was sent is taken, so that whoever comes later rings again.
            post.bell.rung.store(false, SeqCst);
        }
        let cancels = mem::take(&mut *post.bell.cancels.lock().unwrap_or_else(PoisonError::into_inner));
        for token in cancels {
            // It may have ended meanwhile.
            let _ = self.cancel(token);
        }
        if let Some(letters) = &mut *post.mail.lock().unwrap_or_else(PoisonError::into_inner) {
            self.inner.posted.set(self.inner.posted.get() + letters.len() as u32);
            self.inner.inbox.borrow_mut().extend(letters.drain(..));
        }
    }

    /// Ends the operation that waits for the bell, and tells other threads that nobody listens any more.
    pub(super) fn close_post(&self) {
        let Some(post) = self.inner.post.get() else { return };
        post.bell.closed.store(true, SeqCst);
        let slot: *mut Slot = post.slot.get().cast();
        while post.armed.get() && !self.was_rung() {
            // SAFETY: the operation is in flight.
            unsafe {
                if (*slot).state() != State::Done {
                    self.inner.engine.cancel(slot);
                }
            }
            if !self.was_rung() {
                self.inner.engine.turn(1);
            }
        }
        // Dropped when the lock is free again: what is in there may be anything.
        let letters = post.mail.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(letters);
    }
}
