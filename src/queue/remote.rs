//! Handles for other threads: to wake a queue's thread, to cancel, to post events.

use super::{Queue, Token, mail::Mailbox};
#[cfg(target_os = "linux")]
use crate::driver::uring::Door;
use crate::{
    Error, Result, SetupError,
    driver::{
        slot::{Link, Slot, State},
        waiter::Waiter,
    },
    op::{CURRENT_POSITION, Fd, RawOp},
    sys::{
        concurrent::{AtomicBool, AtomicUsize, EventSource, Mutex},
        fork::Life,
    },
};
use std::{
    cell::{Cell, RefCell, UnsafeCell},
    fmt, mem,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    rc::Rc,
    sync::{Arc, PoisonError, atomic::Ordering::SeqCst},
};

#[cfg(all(loom, test))]
pub(super) mod loom;

/// What handles share with their queue, whatever its events are.
pub struct Bell {
    rope: Rope,
    /// It was rung, and nobody has come to look yet.
    rung: AtomicBool,
    cancels: Mutex<Vec<Token>>,
    closed: AtomicBool,
    /// Handles that other threads may have.
    handles: AtomicUsize,
    /// The process that made it: its ring is not for a forked child to ring at.
    life: Life,
}

/// What each handle has: the queue's thread is told when the last one goes.
pub(super) struct Handle(Arc<Bell>);

impl Handle {
    fn new(bell: &Arc<Bell>) -> Handle {
        bell.handles.fetch_add(1, SeqCst);
        Handle(bell.clone())
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        Handle::new(&self.0)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, SeqCst) == 1 && !self.0.closed.load(SeqCst) {
            self.0.ring();
        }
    }
}

impl std::ops::Deref for Handle {
    type Target = Bell;

    fn deref(&self) -> &Bell {
        &self.0
    }
}

/// What pulls it.
enum Rope {
    /// A message to the ring (`IORING_OP_MSG_RING`), which needs no operation that waits for it.
    #[cfg(target_os = "linux")]
    Door(Door),
    Source(EventSource),
    /// As a door; messages are counted.
    #[cfg(all(loom, test))]
    Model(EventSource),
}

impl Bell {
    fn new(rope: Rope) -> Bell {
        Bell {
            rope,
            rung: AtomicBool::new(false),
            cancels: Mutex::default(),
            closed: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
            life: Life::current(),
        }
    }

    /// Many rings before anybody looks cost one system call.
    pub(crate) fn ring(&self) {
        if !self.life.goes_on() || self.closed.load(SeqCst) || self.rung.swap(true, SeqCst) {
            return;
        }
        match &self.rope {
            // Only memory can be short, and nobody else would ring.
            #[cfg(target_os = "linux")]
            Rope::Door(door) => {
                while matches!(-door.ring(), libc::ENOMEM | libc::EAGAIN | libc::EOVERFLOW | libc::EINTR) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
            Rope::Source(source) => source.notify(),
            #[cfg(all(loom, test))]
            Rope::Model(messages) => messages.notify(),
        }
    }

    /// Whether whoever listens was told. `pending` is what it still waits for.
    #[inline]
    fn was_heard(&self, armed: bool, pending: &Cell<u32>) -> bool {
        if matches!(self.rope, Rope::Source(_)) || pending.get() > 0 || self.rung.load(SeqCst) {
            return armed && pending.get() == 0;
        }
        // A message that came late: what it told of was found before.
        pending.set(1);
        false
    }

    /// Takes the cancels that were sent. If it was `heard`, it can be rung again.
    fn answer(&self, heard: bool) -> Vec<Token> {
        if heard {
            // Before what was sent is taken, so that whoever comes later rings again. What was written before by those
            // who found it rung is seen, which it would not be by a mere store.
            self.rung.swap(false, SeqCst);
        }
        mem::take(&mut *self.cancels.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether other threads have handles, or had and have sent something.
    fn is_awaited(&self) -> bool {
        self.handles.load(SeqCst) > 0 || self.rung.load(SeqCst)
    }
}

/// The queue's end of it.
pub(super) struct Post<'q, E> {
    bell: Arc<Bell>,
    /// Those of all posters, and which comes next.
    pub(super) boxes: RefCell<Vec<Rc<dyn Mailbox<E> + 'q>>>,
    pub(super) turn: Cell<usize>,
    ear: Box<Ear>,
    /// The bell is listened to, or was rung and nobody has looked.
    armed: Cell<bool>,
}

/// What hears the bell.
struct Ear {
    slot: UnsafeCell<MaybeUninit<Slot>>,
    waiter: UnsafeCell<Waiter>,
    unit: UnsafeCell<[u8; 8]>,
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
pub struct Waker(Handle);

impl Waker {
    /// For an operation that rings it, and keeps this handle meanwhile.
    pub(crate) fn bell(&self) -> *const Bell {
        &raw const *self.0.0
    }

    /// Makes the queue's present or next wait return. Does nothing if the queue is gone.
    pub fn wake(&self) {
        self.0.ring();
    }
}

/// Cancels operations of a queue from any thread; made by [`Queue::canceler`].
#[derive(Clone)]
pub struct Canceler(Handle);

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
        Ok(Waker(Handle::new(&self.post()?.bell)))
    }

    /// A handle that cancels operations of this queue; otherwise as [`waker`](Queue::waker).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn canceler(&self) -> Result<Canceler> {
        Ok(Canceler(Handle::new(&self.post()?.bell)))
    }

    pub(super) fn post(&self) -> Result<&Post<'q, E>> {
        if !self.inner.engine.is_alive() {
            return Err(Error::Setup(SetupError::Forked));
        }
        if self.inner.closing.get() {
            return Err(Error::Invalid(&"the queue is being dropped, and takes nothing any more"));
        }
        if let Some(post) = self.inner.post.get() {
            return Ok(post);
        }
        // Boxed, so that a message to the ring finds it.
        let ear = Box::new(Ear {
            slot: UnsafeCell::new(MaybeUninit::uninit()),
            waiter: UnsafeCell::new(Waiter::new(0)),
            unit: UnsafeCell::new([0; 8]),
        });
        // SAFETY: the memory of a slot that nobody uses, and its waiter, which stay as long as the queue.
        unsafe { Slot::init(ear.slot.get().cast(), RawOp::Nop, Link::None, ear.waiter.get()) };
        let rope = self.rope(&ear)?;
        let bell = Bell::new(rope);
        Ok(self.inner.post.get_or_init(|| Post {
            bell: Arc::new(bell),
            boxes: RefCell::default(),
            turn: Cell::new(0),
            ear,
            armed: Cell::new(false),
        }))
    }

    #[cfg(target_os = "linux")]
    fn rope(&self, ear: &Ear) -> Result<Rope> {
        // SAFETY: initialised by the caller, and kept as long as the queue's engine runs.
        match unsafe { self.inner.engine.door(ear.slot.get().cast()) } {
            Some(door) => Ok(Rope::Door(door)),
            None => Ok(Rope::Source(EventSource::new()?)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn rope(&self, _ear: &Ear) -> Result<Rope> {
        Ok(Rope::Source(EventSource::new()?))
    }

    /// Whether other threads have handles, or had and have sent something.
    pub(super) fn has_remotes(&self) -> bool {
        self.inner.post.get().is_some_and(|post| post.bell.is_awaited())
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
            // SAFETY: the engine uses it while it runs, and not now.
            let pending = unsafe { &(*post.ear.waiter.get()).pending };
            post.bell.was_heard(post.armed.get(), pending)
        })
    }

    #[cold]
    fn arm(&self, post: &Post<'q, E>) {
        let ear = &*post.ear;
        // SAFETY: the waiter stays with its slot, and waits for nothing now.
        unsafe { (*ear.waiter.get()).pending.set(1) };
        match &post.bell.rope {
            Rope::Source(source) => {
                let fd = Fd::new(source.as_fd().as_raw_fd());
                let (buf, len) = (ear.unit.get().cast(), crate::sys::SEMAPHORE_UNIT as u32);
                let op = RawOp::Read { fd, buf, len, offset: CURRENT_POSITION, nowait: false, buffer: 0 };
                let slot: *mut Slot = ear.slot.get().cast();
                // SAFETY: slot, waiter and buffer are boxed, and kept by the queue, whose end waits for the operation. It
                // is not in flight now.
                unsafe {
                    Slot::init(slot, op, Link::None, ear.waiter.get());
                    self.inner.engine.submit(slot, false);
                }
            }
            // Somebody has rung before anybody listened.
            #[cfg(any(target_os = "linux", all(loom, test)))]
            _ if post.bell.rung.load(SeqCst) => {
                // SAFETY: as above.
                unsafe { (*ear.waiter.get()).pending.set(0) };
            }
            #[cfg(any(target_os = "linux", all(loom, test)))]
            _ => {}
        }
        post.armed.set(true);
    }

    /// If the bell was rung, takes what other threads have sent.
    pub(super) fn open_post(&self) {
        let Some(post) = self.inner.post.get() else { return };
        let heard = self.was_rung();
        post.armed.set(post.armed.get() && !heard);
        for token in post.bell.answer(heard) {
            // It may have ended meanwhile.
            let _ = self.cancel(token);
        }
        self.fetch_mail();
    }

    /// Ends the operation that waits for the bell, and tells other threads that nobody listens any more.
    pub(super) fn close_post(&self) {
        let Some(post) = self.inner.post.get() else { return };
        post.bell.closed.store(true, SeqCst);
        let in_flight = matches!(post.bell.rope, Rope::Source(_)) && post.armed.get();
        let slot: *mut Slot = post.ear.slot.get().cast();
        while in_flight && !self.was_rung() {
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
        let boxes = post.boxes.borrow().clone();
        boxes.iter().for_each(|mailbox| mailbox.close());
    }
}

impl<E> Post<'_, E> {
    pub(super) fn handle(&self) -> Handle {
        Handle::new(&self.bell)
    }
}
