//! Each thread's own engine: made at first use, kept until the thread ends.

#[cfg(target_os = "linux")]
use crate::driver::uring::Door;
use crate::{
    Config, Error, Result, SetupError,
    coro::Runtime,
    driver::{
        Driver,
        buffers::{BufferTable, ClosesBuffers},
        files::{self, ClosesFiles, FileTable},
        pool::Pool,
        slot::Slot,
        waiter::Waiter,
    },
    op::RawOp,
    stats::Stats,
    sys::{self, fork::Life},
};
use std::{
    cell::{Cell, UnsafeCell},
    marker::PhantomData,
    os::fd::RawFd,
    ptr,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

/// A driver, and what has to be known about it without borrowing it.
pub struct Engine {
    /// What a queue's handles have with the driver; closed before that.
    files: ClosesFiles,
    buffers: ClosesBuffers,
    is_queues: Cell<bool>,
    /// Borrowed for the length of one of the calls below, each of which runs the driver and no user code: it cannot be
    /// borrowed twice. The type is `!Sync`.
    driver: UnsafeCell<Driver>,
    config: Config,
    serial: u64,
    /// The process that made it. In a forked child it must not be touched.
    life: Life,
    /// Set once by the scheduler that owns the engine.
    scheduler: Cell<*const Runtime>,
    /// What the process did with `SIGPIPE` when the engine was made.
    sigpipe_is_live: bool,
    /// Rings belong to their thread.
    _not_send: PhantomData<*const ()>,
}

impl Engine {
    pub(crate) fn new(config: Config) -> Result<Engine, SetupError> {
        static SERIALS: AtomicU64 = AtomicU64::new(1);
        Ok(Engine {
            files: ClosesFiles::default(),
            buffers: ClosesBuffers::default(),
            is_queues: Cell::new(false),
            driver: UnsafeCell::new(config.make_driver()?),
            config,
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            life: Life::current(),
            scheduler: Cell::new(ptr::null()),
            sigpipe_is_live: sys::sigpipe_is_live(),
            _not_send: PhantomData,
        })
    }

    /// Whether this is still the process that made the engine.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.life.goes_on()
    }

    pub(crate) fn sigpipe_is_live(&self) -> bool {
        self.sigpipe_is_live
    }

    /// Refuses a chain that could not be published as a whole.
    #[inline]
    pub(crate) fn check_chain(&self, len: u32) -> Result<(), SetupError> {
        let max = self.config.chain_limit();
        if len <= max { Ok(()) } else { Err(SetupError::ChainTooLong { len, max }) }
    }

    /// # Safety
    /// As [`Driver::submit`].
    #[inline]
    pub(crate) unsafe fn submit(&self, head: *mut Slot, alone: bool) {
        // SAFETY: promised by the caller; see `driver` for the borrow.
        unsafe { (*self.driver.get()).submit(head, alone) }
    }

    /// # Safety
    /// As [`Driver::submit_basic`].
    #[inline]
    pub(crate) unsafe fn submit_basic(&self, slot: *mut Slot, op: RawOp, waiter: *const Waiter, alone: bool) {
        // SAFETY: promised by the caller; see `driver` for the borrow.
        unsafe { (*self.driver.get()).submit_basic(slot, op, waiter, alone) }
    }

    /// As [`Driver::turn`].
    #[inline]
    pub(crate) fn turn(&self, want: u32) {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).turn(want) }
    }

    /// # Safety
    /// As [`Driver::cancel`].
    pub(crate) unsafe fn cancel(&self, slot: *mut Slot) {
        // SAFETY: promised by the caller; see `driver` for the borrow.
        unsafe { (*self.driver.get()).cancel(slot) }
    }

    /// As [`Driver::supports`].
    pub(crate) fn supports(&self, op: &RawOp) -> bool {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).supports(op) }
    }

    /// Tells engines apart.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// As [`Driver::make_pool`].
    pub(crate) fn make_pool(&self, count: u32, size: u32, incremental: bool) -> Result<Rc<Pool>, i32> {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).make_pool(count, size, incremental, self.serial) }
    }

    /// As [`Driver::door`].
    ///
    /// # Safety
    /// As there.
    #[cfg(target_os = "linux")]
    pub(crate) unsafe fn door(&self, slot: *mut Slot) -> Option<Door> {
        // SAFETY: promised by the caller; see `driver` for the borrow.
        unsafe { (*self.driver.get()).door(slot) }
    }

    /// The engine is a queue's own, whose handles are not used anywhere else.
    pub(crate) fn set_queues(&self) {
        self.is_queues.set(true);
    }

    /// The table of files. It is made now if there is none yet, with so many places.
    pub(crate) fn files(&self, capacity: Option<u32>) -> Result<&Rc<FileTable>> {
        if let Some(files) = self.files.0.get() {
            return match capacity {
                None => Ok(files),
                Some(_) => Err(Error::Invalid(&"the queue's table of files is in use; choose its size before")),
            };
        }
        if !self.is_queues.get() {
            return Err(Error::Invalid(&"only a Queue has a table of files: submit the operation to one"));
        }
        // SAFETY: see `driver`.
        let made = unsafe { (*self.driver.get()).make_files(capacity.unwrap_or(files::DEFAULT), self.serial) };
        let made = made.map_err(|_| {
            Error::Invalid(
                &"a chain that opens a file is in flight; make the larger table of files before, or after it",
            )
        })?;
        Ok(self.files.0.get_or_init(|| Rc::new(made)))
    }

    /// The table of memory for buffers.
    pub(crate) fn buffers(&self) -> &Rc<BufferTable> {
        // SAFETY: see `driver`.
        self.buffers.0.get_or_init(|| Rc::new(unsafe { (*self.driver.get()).make_buffers() }))
    }

    /// # Safety
    /// As [`Driver::resume`].
    pub(crate) unsafe fn resume(&self, slot: *mut Slot) {
        // SAFETY: promised by the caller; see `driver` for the borrow.
        unsafe { (*self.driver.get()).resume(slot) }
    }

    /// As [`Driver::poll`].
    pub(crate) fn poll(&self, thorough: bool) {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).poll(thorough) }
    }

    /// As [`Driver::pollable`].
    pub(crate) fn pollable(&self) -> Option<RawFd> {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).pollable() }
    }

    /// Whether whoever waits for that descriptor already is told in any case.
    pub(crate) fn is_pollable(&self) -> bool {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).is_pollable() }
    }

    /// As [`Driver::next_timer`].
    pub(crate) fn next_timer(&self) -> Option<u64> {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).next_timer() }
    }

    /// The scheduler whose tasks use this engine, if it is not a plain thread's.
    #[inline]
    pub(crate) fn scheduler(&self) -> Option<&Runtime> {
        // SAFETY: the scheduler owns the engine, so it lives as long.
        unsafe { self.scheduler.get().as_ref() }
    }

    pub(crate) fn release_opened(&self, opened: i32, closed: bool) {
        // A mapper may have forked; in the child the file is the parent's, as is the ring's table.
        if !self.is_alive() {
            return;
        }
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).release_opened(opened, closed) }
    }

    pub(crate) fn stats(&self) -> Stats {
        // SAFETY: see `driver`.
        unsafe { (*self.driver.get()).stats() }
    }
}

thread_local! {
    /// The engine in use. No destructor, so that it can be read while the thread ends.
    static CURRENT: Cell<*const Engine> = const { Cell::new(ptr::null()) };
    /// Owns the engine that the thread made for itself.
    static OWNED: Owned = const { Owned(Cell::new(ptr::null_mut())) };
}

struct Owned(Cell<*mut Engine>);

impl Drop for Owned {
    fn drop(&mut self) {
        let engine = self.0.get();
        if engine.is_null() {
            return;
        }
        if ptr::eq(CURRENT.get(), engine) {
            CURRENT.set(ptr::null());
        }
        // SAFETY: made by `Box::into_raw` in `with_new`; CURRENT no longer leads to it. Thread-local destructors run
        // when the frames of the thread have returned, or above them in `exit`, which never goes back to them.
        drop_unless_forked(unsafe { Box::from_raw(engine) });
    }
}

/// In a forked child an engine is leaked: its ring and its descriptors are shared with the parent.
fn drop_unless_forked(engine: Box<Engine>) {
    if engine.is_alive() {
        drop(engine);
    } else {
        std::mem::forget(engine);
    }
}

/// The thread's engine, if it has one that can be used.
///
/// # Safety
/// The reference is used only on this thread, and not after the calling frame has returned: whoever owns the engine,
/// its frame or the thread's locals, outlives that.
#[inline]
pub(crate) unsafe fn current<'e>() -> Option<&'e Engine> {
    // SAFETY: not null means alive: whoever owns the engine resets CURRENT before dropping it.
    let engine = unsafe { CURRENT.get().as_ref()? };
    if engine.is_alive() { Some(engine) } else { None }
}

/// Calls `f` with a new engine, which becomes the thread's.
#[cold]
pub(crate) fn with_new<R>(f: impl FnOnce(&Engine) -> R) -> Result<R, SetupError> {
    // SAFETY: as in `current`. A dead engine's memory is the child's own copy.
    let config = match unsafe { CURRENT.get().as_ref() } {
        Some(dead) => dead.config,
        None => Config::default_for_process()?,
    };
    let engine = Box::new(Engine::new(config)?);
    if OWNED.try_with(|_| ()).is_err() {
        // The thread is ending and its engine is gone. This call comes from another destructor: a temporary one serves
        // it.
        return Ok(f(&engine));
    }
    let engine = Box::into_raw(engine);
    CURRENT.set(engine);
    OWNED.with(|owned| {
        // What was there belongs to the parent of this forked process, and is leaked.
        owned.0.set(engine);
    });
    // SAFETY: owned by OWNED from now on, which drops it when the thread ends.
    Ok(f(unsafe { &*engine }))
}

/// Calls `f` with the thread's engine, if it has one.
pub(crate) fn existing<R>(f: impl FnOnce(&Engine) -> R) -> Option<R> {
    // SAFETY: not used after this call.
    unsafe { current() }.map(f)
}

/// Makes `config`'s engine the thread's while `f` runs.
pub(crate) fn scoped<R>(config: Config, f: impl FnOnce() -> R) -> Result<R, SetupError> {
    struct Owner(*mut Engine);
    impl Drop for Owner {
        fn drop(&mut self) {
            // SAFETY: made by `Box::into_raw` below; nothing leads to it any more, for `f` has returned or unwound, and
            // every frame that uses an engine waits for its operations.
            drop_unless_forked(unsafe { Box::from_raw(self.0) });
        }
    }
    let owner = Owner(Box::into_raw(Box::new(Engine::new(config)?)));
    // SAFETY: dropped before `owner`.
    let _current = unsafe { make_current(owner.0) };
    Ok(f())
}

/// Whether this is the thread's engine now.
#[inline]
pub(crate) fn is_current(engine: &Engine) -> bool {
    ptr::eq(CURRENT.get(), engine)
}

/// Makes an engine the thread's until the guard is dropped.
///
/// # Safety
/// The engine outlives the guard, which is dropped on this thread, in the reverse order of such guards.
pub(crate) unsafe fn make_current(engine: *const Engine) -> impl Drop {
    struct Restore(*const Engine);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    Restore(CURRENT.replace(engine))
}

/// Makes a scheduler's engine lead to it.
///
/// # Safety
/// The scheduler owns the engine.
pub(crate) unsafe fn attach(engine: &Engine, scheduler: *const Runtime) {
    engine.scheduler.set(scheduler);
}
