//! From other threads into a runtime.

use super::{
    TaskId, interrupt,
    runtime::Runtime,
    spawn::Spec,
    task::{Key, contain},
    wait::{Ender, Wake},
};
use crate::{
    Error, Result,
    driver::{
        slot::{Link, Slot},
        waiter::{Waiter, Woken},
    },
    engine::Engine,
    op::{CURRENT_POSITION, Fd, RawOp},
    sys::{
        self,
        concurrent::{AtomicBool, AtomicUsize, EventSource, Mutex, MutexGuard, thread},
        fork::Life,
    },
};
use std::{
    cell::{Cell, OnceCell, RefCell, UnsafeCell},
    collections::VecDeque,
    fmt,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, PoisonError, atomic::Ordering},
};

#[cfg(all(loom, test))]
mod loom;

/// What other threads send.
enum Letter {
    /// A wait may have ended.
    Wake(Key),
    /// End its `park`.
    Unpark(TaskId),
    Run(Box<dyn FnOnce() + Send>),
}

/// The part of a runtime that other threads see.
pub(crate) struct Shared {
    letters: Mutex<Letters>,
    bell: EventSource,
    /// The bell has been rung, and what lies in the box was not taken since.
    rung: AtomicBool,
    remotes: AtomicUsize,
    /// The process that it belongs to. A forked child has a copy of the box, and the same bell.
    life: Life,
}

#[derive(Default)]
struct Letters {
    waiting: Vec<Letter>,
    /// No new tasks.
    closed: bool,
    /// Nothing any more.
    ended: bool,
}

impl Shared {
    fn new() -> Result<Shared> {
        Ok(Shared {
            letters: Mutex::default(),
            bell: EventSource::new()?,
            rung: AtomicBool::new(false),
            remotes: AtomicUsize::new(0),
            life: Life::current(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a letter into the box; gives it back if the runtime has ended.
    fn send(&self, letter: Letter) -> std::result::Result<(), Letter> {
        // First this, for in a child the lock may be held by a thread that it does not have.
        if !self.life.goes_on() {
            return Err(letter);
        }
        let mut letters = self.lock();
        // A task that is ending may still wait for another thread.
        if letters.ended || letters.closed && !matches!(letter, Letter::Wake(_)) {
            return Err(letter);
        }
        letters.waiting.push(letter);
        drop(letters);
        self.ring();
        Ok(())
    }

    /// What was sent since the last time.
    fn collect(&self) -> Vec<Letter> {
        // First this, then the box: whoever puts something in afterwards rings again.
        self.rung.swap(false, Ordering::AcqRel);
        mem::take(&mut self.lock().waiting)
    }

    /// Takes no new tasks from now on; gives those that were not collected.
    fn close(&self) -> Vec<Letter> {
        let mut letters = self.lock();
        letters.closed = true;
        letters.waiting.extract_if(.., |letter| !matches!(letter, Letter::Wake(_))).collect()
    }

    fn ring(&self) {
        if self.life.goes_on() && !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.notify();
        }
    }
}

/// The runtime's side.
pub(crate) struct Post {
    shared: OnceCell<Arc<Shared>>,
    /// Where the operation that waits for the bell lives, and who it tells.
    slot: UnsafeCell<MaybeUninit<Slot>>,
    waiter: UnsafeCell<Waiter>,
    unit: UnsafeCell<[u8; 8]>,
    done: Woken,
    armed: Cell<bool>,
    /// Tasks that were not started yet.
    backlog: RefCell<VecDeque<Box<dyn FnOnce() + Send>>>,
}

/// So many tasks are started before others get their turn: each takes a stack.
const AT_ONCE: usize = 256;

impl Post {
    pub(super) fn new() -> Post {
        Post {
            shared: OnceCell::new(),
            slot: UnsafeCell::new(MaybeUninit::uninit()),
            waiter: UnsafeCell::new(Waiter::new(0)),
            unit: UnsafeCell::new([0; 8]),
            done: Woken::new(),
            armed: Cell::new(false),
            backlog: RefCell::default(),
        }
    }

    fn shared(&self) -> Result<&Arc<Shared>> {
        if let Some(shared) = self.shared.get() {
            return Ok(shared);
        }
        let shared = Shared::new()?;
        Ok(self.shared.get_or_init(|| Arc::new(shared)))
    }

    /// Sees to it that the bell wakes the engine.
    pub(super) fn arm(&self, engine: &Engine) -> Result<()> {
        if self.armed.get() {
            return Ok(());
        }
        let fd = Fd::new(self.shared()?.bell.as_fd().as_raw_fd());
        let (buf, len) = (self.unit.get().cast(), sys::SEMAPHORE_UNIT as u32);
        let op = RawOp::Read { fd, buf, len, offset: CURRENT_POSITION, nowait: false, buffer: 0 };
        self.armed.set(true);
        // SAFETY: the runtime is boxed and stays until `end` has waited for the operation; it is not in flight now.
        unsafe {
            self.waiter.get().write(Waiter::listed(1, &self.done));
            let slot = self.slot.get().cast();
            Slot::init(slot, op, Link::None, self.waiter.get());
            engine.submit(slot, false);
        }
        Ok(())
    }

    /// Whether somebody outside may still have something to say.
    pub(super) fn is_awaited(&self) -> bool {
        self.armed.get() && self.shared.get().is_some_and(|shared| shared.remotes.load(Ordering::Acquire) > 0)
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.get()
    }

    #[inline]
    pub(super) fn has_rung(&self) -> bool {
        self.shared.get().is_some() && self.has_letters()
    }

    #[inline(never)]
    fn has_letters(&self) -> bool {
        !self.done.is_empty() || !self.backlog.borrow().is_empty()
    }

    /// Whether the bell was rung, and the engine has not told of it yet.
    pub(super) fn is_unheard(&self) -> bool {
        self.shared.get().is_some_and(|shared| shared.rung.load(Ordering::Acquire))
    }

    /// Does what the letters say.
    pub(super) fn deliver(&self, runtime: &Runtime) {
        let Some(shared) = self.shared.get() else { return };
        if self.done.pop().is_some() {
            self.armed.set(false);
            // It was armed before, so there is nothing that could fail.
            let _ = self.arm(runtime.engine());
        }
        for letter in shared.collect() {
            match letter {
                Letter::Wake(key) => runtime.wake_key(key),
                Letter::Unpark(task) => drop(task.wake()),
                Letter::Run(f) => self.backlog.borrow_mut().push_back(f),
            }
        }
        for _ in 0..AT_ONCE {
            let Some(f) = self.backlog.borrow_mut().pop_front() else { return };
            // Without a stack for it there is nobody to tell; whoever waits for its result learns of it. It is dropped
            // then, which may run the user's code: that must not get out of here, nor switch tasks.
            let start = || _ = Spec::default().queued().detached(runtime, f);
            contain(|| interrupt::apart(runtime.current(), start));
        }
    }

    /// Refuses new tasks from now on; those that wait to be started are dropped.
    pub(super) fn close(&self) {
        let Some(shared) = self.shared.get() else { return };
        for letter in shared.close() {
            contain(|| drop(letter));
        }
        loop {
            let Some(f) = self.backlog.borrow_mut().pop_front() else { return };
            contain(|| drop(f));
        }
    }

    /// Refuses everything, and waits for the end of what listens to the bell. No task is left.
    pub(super) fn end(&self, engine: &Engine) {
        if let Some(shared) = self.shared.get() {
            shared.lock().ended = true;
        }
        if !self.armed.get() {
            return;
        }
        // SAFETY: the slot was submitted; the waiter is looked at by this thread only.
        unsafe {
            let waiter = self.waiter.get();
            crate::complete::cancel_and_drain(engine, &[self.slot.get().cast()], &[waiter]);
        }
        self.done.pop();
        self.armed.set(false);
    }
}

impl Wake {
    /// For the calling task, or the calling thread.
    pub(crate) fn current(ender: Ender) -> Result<Wake> {
        match (Runtime::current_runtime(), ender) {
            (Some(runtime), Ender::Tasks) => Ok(Wake::Local(runtime.current().key())),
            (Some(runtime), Ender::Threads) => Ok(Wake::Task(runtime.post.shared()?.clone(), runtime.current().key())),
            (None, Ender::Threads) => Ok(Wake::Thread(thread::current())),
            (None, Ender::Tasks) => Err(Error::WrongRuntime),
        }
    }

    pub(crate) fn wake(self) {
        match self {
            Wake::Local(key) => {
                if let Some(runtime) = Runtime::of_thread() {
                    runtime.wake_key(key);
                }
            }
            Wake::Task(shared, key) => match Runtime::of_thread() {
                Some(runtime) if runtime.post.shared.get().is_some_and(|own| Arc::ptr_eq(own, &shared)) => {
                    runtime.wake_key(key);
                }
                // A runtime that has ended has no task that waits.
                _ => drop(shared.send(Letter::Wake(key))),
            },
            Wake::Thread(thread) => thread.unpark(),
        }
    }
}

/// A way into a runtime, from any thread: spawns tasks there.
///
/// As long as there is one, a runtime whose tasks all wait for one another is not taken for deadlocked. It does not
/// keep the runtime going: that ends when its root has returned, and what is sent afterwards is refused.
///
/// ```
/// use aio::coro;
///
/// coro::run(|| {
///     let remote = coro::remote()?;
///     let thread = std::thread::spawn(move || remote.spawn(|| 6 * 7).unwrap().join().unwrap());
///     coro::offload(move || assert_eq!(thread.join().unwrap(), 42))?;
///     Ok::<(), aio::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Remote {
    shared: Arc<Shared>,
}

/// The runtime has ended, or is about to: it takes no more tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runtime has ended")]
pub struct RuntimeEnded;

/// A [`Remote`] for the calling task's runtime.
///
/// # Errors
///
/// As `eventfd(2)`: `EMFILE`, `ENFILE`, `ENOMEM`.
///
/// # Panics
///
/// Outside a runtime.
pub fn remote() -> Result<Remote> {
    let runtime = Runtime::expect("coro::remote");
    let shared = runtime.post.shared()?.clone();
    runtime.post.arm(runtime.engine())?;
    shared.remotes.fetch_add(1, Ordering::AcqRel);
    Ok(Remote { shared })
}

impl Remote {
    /// Runs `f` as a new task of the runtime. Dropping the handle detaches it.
    ///
    /// # Errors
    ///
    /// [`RuntimeEnded`]; `f` is dropped.
    pub fn spawn<T, F>(&self, f: F) -> std::result::Result<super::RemoteHandle<T>, RuntimeEnded>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (run, handle) = super::remote_join::pair(f);
        self.shared.send(Letter::Run(Box::new(run))).map_err(|_| RuntimeEnded)?;
        Ok(handle)
    }
}

impl Remote {
    /// Wakes a task of the runtime if it is [parked](super::park) when the runtime learns of this. As with
    /// [`TaskId::wake`], a wake-up that comes before the task parks is not remembered.
    ///
    /// # Errors
    ///
    /// [`RuntimeEnded`].
    pub fn wake(&self, task: TaskId) -> std::result::Result<(), RuntimeEnded> {
        self.shared.send(Letter::Unpark(task)).map_err(|_| RuntimeEnded)
    }
}

impl Clone for Remote {
    fn clone(&self) -> Remote {
        self.shared.remotes.fetch_add(1, Ordering::AcqRel);
        Remote { shared: self.shared.clone() }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.shared.remotes.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The runtime may have waited for this one only.
            self.shared.ring();
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
