//! The long-lived queue: see [`Queue`].

mod chain;
mod event;
mod fixed;
mod group;
mod iter;
mod mail;
mod multi;
mod place;
mod recur;
mod remote;
mod scope;
mod submit;
mod wait;

pub use chain::Chain;
pub use event::{Done, NotSubmitted, Shot, Token};
pub use group::Group;
pub use iter::Events;
pub use mail::Poster;
pub use recur::Then;
pub(crate) use remote::Bell;
pub use remote::{Canceler, Waker};
pub use scope::Scope;

use crate::{
    BufPool, Config, Errno, Error, Result, SetupError,
    driver::{
        pool,
        shots::Magazine,
        slot::State,
        waiter::{Sink, Waiter},
    },
    engine::Engine,
    op::RawOp,
    stats::Stats,
    sync::Event,
};
use place::{Phase, Place};
use remote::Post;
use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

/// Bytes that an operation and its mapper may take by default.
const ROOM: usize = 512;

/// A queue that operations are submitted to at any time, and events are taken out of.
///
/// Each operation goes in with a *mapper*, a function that turns its result into an event of the program's own type
/// `E`; the constructor of an enum's variant is one. Events come out of [`wait`](Queue::wait) and its relatives, each
/// with the [`Token`] that its submission gave.
///
/// ```
/// use aio::{Queue, op::*, queue::Done};
/// use std::{sync::Arc, time::Duration};
///
/// enum Event {
///     Read(Done<Read<Arc<std::fs::File>, Vec<u8>>>),
///     Tick,
/// }
///
/// let queue = Queue::<Event>::new(16)?;
/// let file = Arc::new(std::fs::File::open("Cargo.toml")?);
/// queue.submit(Read::new(file, vec![0; 9]).at(0), Event::Read)?;
/// queue.submit(Timeout::after(Duration::from_millis(1)), |_| Event::Tick)?;
/// while !queue.is_empty() {
///     for (_token, event) in queue.wait(1)? {
///         match event {
///             // The operation comes back with its result, so that its buffer can be used again.
///             Event::Read(Done { result, op }) => assert_eq!(&op.into_buf()[..result?], b"[package]"),
///             Event::Tick => println!("tick"),
///         }
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Owned and borrowing
///
/// [`Queue::new`] gives a queue of one's own. What is submitted to it must be `'static`: descriptors and buffers by
/// value, or behind an `Arc`. [`Queue::scope`] lends a queue to a closure; what is submitted there may borrow whatever
/// outlives the call. (`'q` is how long operations live; an owned queue is a `Queue<'static, E>`.)
///
/// # Places
///
/// A queue has a place for each operation that it can have in flight, made once; submitting and delivering allocate
/// nothing. An operation and its mapper lie in their place, in `PLACE` bytes; larger ones do not compile. A place is
/// taken until the operation's event has been delivered.
///
/// # Where it waits
///
/// A queue has an engine of its own, with a ring or an emulation that does nothing else, and belongs to its thread.
/// [`wait`](Queue::wait) blocks the thread; in a [task](crate::coro) it suspends that.
///
/// # The end
///
/// Dropping a queue cancels what is in flight and waits for its end; mappers are not called then, and what operations
/// have produced is dropped. What cannot be cancelled is waited for: a disk, or a [`SendZc`](crate::op::SendZc) whose
/// peer neither reads nor goes. A queue that is forgotten leaks what is in flight, and harms nobody.
///
/// A child of `fork(2)` cannot use its parent's queue: every call gives an error.
pub struct Queue<'q, E, const PLACE: usize = ROOM> {
    inner: ManuallyDrop<Pinned<Inner<'q, E, PLACE>>>,
}

/// A box that others point into: moving a `Box` itself would claim that nobody else does.
struct Pinned<T>(NonNull<T>, PhantomData<T>);

impl<T> Pinned<T> {
    fn new(value: T) -> Pinned<T> {
        Pinned(NonNull::from(Box::leak(Box::new(value))), PhantomData)
    }
}

impl<T> std::ops::Deref for Pinned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: valid until this is dropped, and only ever shared.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak`.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Boxed: engine and operations in flight point to it.
struct Inner<'q, E, const PLACE: usize> {
    engine: Engine,
    places: *mut Place<'q, E, PLACE>,
    capacity: u32,
    /// Tells queues apart.
    id: u32,
    /// Places that are free: so many of the stack's entries. The places themselves are not touched to find one, for
    /// they have left the cache by then.
    stack: Box<[Cell<u32>]>,
    free: Cell<u32>,
    /// Slots that were submitted and whose events are not being delivered yet, multishot operations apart; and of these
    /// the operations that have not ended.
    submitted: Cell<u32>,
    streams: Cell<u32>,
    /// Streams whose mappers are running.
    delivering: Cell<u32>,
    /// Places whose operations have results.
    sink: Sink,
    /// Of every operation that stands alone: sees it into the sink.
    waiter: Cell<Waiter>,
    magazine: Magazine,
    /// The rest of the chain that is being delivered, and whether its link is broken.
    rest: Cell<*mut Place<'q, E, PLACE>>,
    rest_len: Cell<u32>,
    broken: Cell<bool>,
    /// Operations that have paused, and of whose results some were taken since.
    paused: RefCell<Vec<(u32, u64)>>,
    /// Tasks that wait for the queue, and what tells them that another task has done something with it: they wait for
    /// the engine's descriptor, which does not.
    parked: Cell<u32>,
    stirred: Event,
    closing: Cell<bool>,
    stopped: Cell<bool>,
    /// What other threads have sent. Made when the first of them gets a handle.
    post: OnceCell<Post<'q, E>>,
    /// How many events they have posted that were fetched, and whether it is their turn.
    posted: Cell<u32>,
    posts_turn: Cell<bool>,
    /// Operations live as long as `'q`, neither shorter nor longer.
    _operations: PhantomData<Cell<&'q ()>>,
}

impl<E> Queue<'static, E> {
    /// A queue with room for `capacity` operations, on the engine that [`Config`]'s defaults give.
    ///
    /// # Errors
    ///
    /// [`SetupError::QueueSize`] if `capacity` is 0 or more than 32768, or no engine could be set up.
    pub fn new(capacity: u32) -> Result<Queue<'static, E>, SetupError> {
        Queue::with_config(capacity, Config::default_for_process()?)
    }
}

impl<E, const PLACE: usize> Queue<'static, E, PLACE> {
    /// A queue with room for `capacity` operations, on a chosen engine.
    ///
    /// `Config`'s number of entries does not matter; the ring has as many as the queue has places.
    ///
    /// ```
    /// use aio::{Backend, Config, Queue, op::Nop};
    ///
    /// // Room for larger operations and mappers than usual.
    /// let queue = Queue::<(), 1024>::with_config(4, Config::new().backend(Backend::Poll))?;
    /// queue.submit(Nop::new(), |_| ())?;
    /// assert_eq!(queue.wait(1)?.count(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new`](Queue::new).
    pub fn with_config(capacity: u32, config: Config) -> Result<Queue<'static, E, PLACE>, SetupError> {
        Queue::make(capacity, config)
    }
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    fn make(capacity: u32, config: Config) -> Result<Queue<'q, E, PLACE>, SetupError> {
        const { assert!(PLACE.is_multiple_of(64), "the size of a queue's places is a multiple of 64 bytes") };
        static IDS: AtomicU32 = AtomicU32::new(1);
        if capacity == 0 || capacity > Config::MAX_ENTRIES {
            return Err(SetupError::QueueSize { asked: capacity, max: Config::MAX_ENTRIES });
        }
        // A task that waits for a queue waits for its ring's descriptor.
        let inside = crate::coro::Runtime::current_runtime().is_some();
        let config = if inside { config.pollable() } else { config };
        let engine = Engine::new(config.entries(capacity))?;
        engine.set_queues();
        let places: Box<[Place<'q, E, PLACE>]> = (0..capacity).map(Place::empty).collect();
        let queue = Queue {
            inner: ManuallyDrop::new(Pinned::new(Inner {
                engine,
                places: Box::into_raw(places).cast(),
                capacity,
                id: IDS.fetch_add(1, Ordering::Relaxed),
                stack: (0..capacity).rev().map(Cell::new).collect(),
                free: Cell::new(capacity),
                submitted: Cell::new(0),
                streams: Cell::new(0),
                delivering: Cell::new(0),
                sink: Sink::new(capacity),
                waiter: Cell::new(Waiter::new(0)),
                magazine: Magazine::new(4 * capacity.max(16)),
                rest: Cell::new(ptr::null_mut()),
                rest_len: Cell::new(0),
                broken: Cell::new(false),
                paused: RefCell::new(Vec::with_capacity(capacity as usize)),
                parked: Cell::new(0),
                stirred: Event::new(),
                closing: Cell::new(false),
                stopped: Cell::new(false),
                post: OnceCell::new(),
                posted: Cell::new(0),
                posts_turn: Cell::new(false),
                _operations: PhantomData,
            })),
        };
        // Now that it has its address.
        queue.inner.waiter.set(Waiter::through(&raw const queue.inner.sink));
        Ok(queue)
    }

    /// How many operations it has that have not been delivered.
    pub fn len(&self) -> usize {
        (self.inner.capacity - self.inner.free.get()) as usize
    }

    /// Whether nothing is in it: no operation, and nothing that other threads have posted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.ready() == 0 && !self.was_posted_to()
    }

    /// How many operations it has room for.
    pub fn capacity(&self) -> usize {
        self.inner.capacity as usize
    }

    /// Whether `count` more operations can be submitted now.
    ///
    /// # Errors
    ///
    /// An error that says so, if not.
    pub fn reserve(&self, count: usize) -> Result<()> {
        if count <= self.capacity() - self.len() {
            return Ok(());
        }
        Err(NotSubmitted::Full((), ()).into())
    }

    /// What the queue's engine has done.
    pub fn stats(&self) -> Stats {
        if self.inner.engine.is_alive() { self.inner.engine.stats() } else { Stats::default() }
    }

    /// Makes a pool of buffers for the operations of this queue: `count` of them (rounded up to a power of two, at most
    /// 32768), of `size` bytes each.
    ///
    /// # Errors
    ///
    /// `Invalid` if one of the numbers is zero or too large, or the operating system's error: `ENOMEM` if there is no
    /// memory (or, for a ring, `RLIMIT_MEMLOCK` allows no more), `ENOSPC` after 65536 pools that are in use.
    pub fn buf_pool(&self, count: usize, size: usize) -> Result<BufPool> {
        self.make_pool(count, size, false)
    }

    /// As [`buf_pool`](Queue::buf_pool), with buffers that several results share: each gets a part of its own, as large
    /// as what has come, and the next result begins behind it. A few large buffers then do for many small results.
    ///
    /// Linux 6.12; otherwise each result takes a whole buffer, as from any pool.
    ///
    /// # Errors
    ///
    /// As [`buf_pool`](Queue::buf_pool).
    pub fn incremental_buf_pool(&self, count: usize, size: usize) -> Result<BufPool> {
        self.make_pool(count, size, true)
    }

    fn make_pool(&self, count: usize, size: usize, incremental: bool) -> Result<BufPool> {
        let count = (1..=pool::MOST as usize).contains(&count).then(|| count.next_power_of_two());
        let size = u32::try_from(size).ok().filter(|&size| size > 0 && size <= 1 << 30);
        let (Some(count @ 1..), Some(size)) = (count, size) else {
            return Err(Error::Invalid(&"a pool has 1 to 32768 buffers, of 1 byte to 1 GiB each"));
        };
        if !self.inner.engine.is_alive() {
            return Err(Error::Setup(SetupError::Forked));
        }
        let pool = self.inner.engine.make_pool(count as u32, size, incremental);
        pool.map(BufPool::new).map_err(|errno| Error::Os(Errno::new(errno)))
    }

    /// Asks for the end of an operation. Its event comes in any case: with [`Error::Canceled`], or with a result that
    /// came first. Once a result is there a cancel does not change it.
    ///
    /// Of a chain, it ends the operation that it names; those linked to it are skipped, or started if the link is hard.
    /// Of a [group](Group), it ends all members.
    ///
    /// ```
    /// use aio::{Error, Queue, op::Timeout};
    /// use std::time::Duration;
    ///
    /// let queue = Queue::new(4)?;
    /// let token = queue.submit(Timeout::after(Duration::from_secs(60)), |done| done.result)?;
    /// queue.cancel(token)?;
    /// assert_eq!(queue.wait(1)?.next(), Some((token, Err(Error::Canceled))));
    /// assert!(queue.cancel(token).is_err(), "the token is stale");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `ENOENT` if its (last) event has been taken; [`Error::Invalid`] if it was never this queue's. It is no error to
    /// cancel twice, nor what has not started yet, nor what has its result; then nothing happens.
    pub fn cancel(&self, token: Token) -> Result<()> {
        if token.queue != self.inner.id {
            return Err(Error::Invalid(&"the token is another queue's"));
        }
        if !self.inner.engine.is_alive() {
            return Err(Error::Setup(SetupError::Forked));
        }
        let place = self.place(token.index).filter(|&place| {
            // SAFETY: places stay as long as the queue.
            unsafe { (*place).generation.get() == token.generation && (*place).phase.get().is_submitted() }
        });
        match place {
            Some(place) => {
                // It may have its result already. When it gets it depends on the engine, so that is no error.
                self.cancel_place(place);
                Ok(())
            }
            None => Err(Error::Os(Errno::new(libc::ENOENT))),
        }
    }

    /// Asks for the end of all operations that were submitted with this descriptor; gives their number. By number: those
    /// of a copy (`try_clone`) are not meant. Call it before the descriptor is closed.
    pub fn cancel_fd(&self, fd: impl AsFd) -> usize {
        let number = fd.as_fd().as_raw_fd();
        self.cancel_where(|mut op| op.fds_mut().into_iter().flatten().any(|fd| fd.number() == number))
    }

    /// Asks for the end of everything that is in flight; gives the number of operations. What is linked hard to one of
    /// them is started all the same.
    pub fn cancel_all(&self) -> usize {
        self.cancel_where(|_| true)
    }

    fn cancel_where(&self, matches: impl Fn(RawOp) -> bool) -> usize {
        if !self.inner.engine.is_alive() {
            return 0;
        }
        let places = || (0..self.inner.capacity).filter_map(|index| self.place(index));
        let found = |place: &*mut Place<'q, E, PLACE>| {
            let (place, slot) = (*place, Place::slot_of(*place));
            // SAFETY: places stay as long as the queue; the slot of one that was submitted is initialised.
            unsafe { (*place).phase.get().has_slot() && (*slot).state() != State::Done && matches((*slot).op) }
        };
        // First, since the end of one may be that of those which are linked to it.
        let count = places().filter(found).count();
        for place in places() {
            if found(&place) {
                self.cancel_place(place);
            }
        }
        count
    }

    /// Cancels what is in a place; tells whether there was something.
    fn cancel_place(&self, place: *mut Place<'q, E, PLACE>) -> bool {
        let slot = Place::slot_of(place);
        // SAFETY: places stay as long as the queue; the slot of one that was submitted is initialised, and its waiter
        // waits unless it is done.
        unsafe {
            match (*place).phase.get() {
                phase if phase.has_slot() && (*slot).state() != State::Done => {
                    // A `close` is about to end, and what it was given would be lost.
                    if !matches!((*slot).op, RawOp::Close { .. }) {
                        self.inner.engine.cancel(slot);
                        self.stir();
                    }
                    true
                }
                Phase::Waiting => {
                    self.cancel_members((*place).index);
                    true
                }
                _ => false,
            }
        }
    }

    /// Has tasks that wait for the queue look again.
    #[inline]
    fn stir(&self) {
        if self.inner.parked.get() > 0 {
            self.inner.stirred.set();
            self.inner.stirred.reset();
        }
    }

    fn place(&self, index: u32) -> Option<*mut Place<'q, E, PLACE>> {
        (index < self.inner.capacity).then(|| self.inner.places.wrapping_add(index as usize))
    }

    fn token(&self, place: *mut Place<'q, E, PLACE>) -> Token {
        // SAFETY: places stay as long as the queue.
        let (generation, index) = unsafe { ((*place).generation.get(), (*place).index) };
        Token { generation, index, queue: self.inner.id }
    }
}

impl<E, const PLACE: usize> fmt::Debug for Queue<'_, E, PLACE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
