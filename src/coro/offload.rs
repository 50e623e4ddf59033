//! Blocking code, on threads, while the task waits.

use super::{
    interrupt, report,
    runtime::Runtime,
    task::Head,
    wait::{Ender, Reason, Wake},
};
use crate::{
    Result,
    complete::AbortOnUnwind,
    sys::concurrent::{self, AtomicBool},
    threads,
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::Ordering,
    thread,
};

#[cfg(all(loom, test))]
mod loom;

/// Runs blocking code on a worker thread while the calling task waits and the others go on. It may borrow.
///
/// The wait cannot be interrupted, for the code uses what it borrows until it ends. Give it a chance to end earlier
/// with [`offload_with`]. A panic goes on in the caller.
///
/// With [`max_workers(0)`](super::Config::max_workers) the code runs on the runtime's own thread, on the thread's
/// stack; outside a runtime, while a panic unwinds, and inside [`no_suspend`](super::no_suspend), it just runs.
///
/// ```
/// use aio::coro;
///
/// let data = vec![3, 1, 2];
/// coro::run(|| {
///     let sum = coro::offload(|| data.iter().sum::<i32>())?;      // something slow
///     assert_eq!(sum, 6);
///     Ok::<(), aio::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Canceled`](crate::Error::Canceled) or [`Error::TimedOut`](crate::Error::TimedOut) if the task is cancelled,
/// or late, already; `f` is not called.
pub fn offload<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    offload_with(|_| f())
}

/// As [`offload`], for code that can end early: the token tells it when nobody needs its result any more.
///
/// ```
/// use aio::coro;
/// use std::time::Duration;
///
/// coro::run(|| {
///     let rounds = coro::timeout(Duration::from_millis(5), || {
///         coro::offload_with(|token| {
///             let mut rounds = 1u64;
///             while !token.is_canceled() {
///                 rounds += 1;
///             }
///             rounds
///         })
///     });
///     assert!(rounds? > 0);
///     Ok::<(), aio::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As [`offload`].
pub fn offload_with<T: Send>(f: impl FnOnce(&CancelToken) -> T + Send) -> Result<T> {
    match Runtime::current_runtime() {
        Some(runtime) => {
            let me = runtime.current();
            match me.interruption() {
                None => Ok(on_worker(runtime, me, f)),
                Some(why) => {
                    runtime.refuse(me);
                    Err(why)
                }
            }
        }
        None => Ok(call_here(f, &CancelToken(AtomicBool::new(false)))),
    }
}

/// As [`offload`], also for a task that is cancelled, or late.
pub(crate) fn offload_surely<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    match Runtime::current_runtime() {
        Some(runtime) => on_worker(runtime, runtime.current(), |_| f()),
        None => call_here(|_| f(), &CancelToken(AtomicBool::new(false))),
    }
}

/// Calls the code on the caller's stack. Not inlined: what it needs of that would be taken from the task's stack even
/// where it runs on another one.
#[inline(never)]
fn call_here<T>(f: impl FnOnce(&CancelToken) -> T, token: &CancelToken) -> T {
    f(token)
}

fn on_worker<T: Send>(runtime: &Runtime, me: &Head, f: impl FnOnce(&CancelToken) -> T + Send) -> T {
    let token = CancelToken(AtomicBool::new(false));
    let here = runtime.config.max_workers == 0;
    if me.is_fixed() || here && me.is_root() || !here && runtime.post.arm(runtime.engine()).is_err() {
        return call_here(f, &token);
    }
    let job = Job::new(|| f(&token));
    // Nothing below returns or unwinds before the job is done: it is in this frame.
    let guard = AbortOnUnwind;
    // SAFETY: as said.
    unsafe { job.hand_over(runtime, me, &token) };
    mem::forget(guard);
    match job.result.into_inner() {
        Some(Ok(value)) => value,
        Some(Err(panic)) => resume_unwind(panic),
        None => unreachable!("a job that is done has a result"),
    }
}

/// Tells code on a worker that the task which waits for it was cancelled, or is late.
#[derive(Debug)]
pub struct CancelToken(AtomicBool);

impl CancelToken {
    /// Whether the code should end, because nobody needs its result.
    pub fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Blocking code on the frame of the task that waits for it.
struct Job<F, T> {
    f: concurrent::Cell<Option<F>>,
    result: concurrent::Cell<Option<thread::Result<T>>>,
    wake: concurrent::Cell<Option<Wake>>,
    done: AtomicBool,
}

/// A job of whatever type, on its way to a worker.
pub(super) struct Errand {
    job: *const (),
    run: unsafe fn(*const ()),
}

// SAFETY: what a job runs and gives is `Send` (`offload_with` asks for it), and its frame stays until it is done.
unsafe impl Send for Errand {}

impl threads::Job for Errand {
    fn run(self) {
        // SAFETY: the task that gave it waits for it.
        unsafe { (self.run)(self.job) };
    }
}

impl<F: FnOnce() -> T, T> Job<F, T> {
    fn new(f: F) -> Job<F, T> {
        Job {
            f: concurrent::Cell::new(Some(f)),
            result: concurrent::Cell::new(None),
            wake: concurrent::Cell::new(None),
            done: AtomicBool::new(false),
        }
    }

    /// Has the job run somewhere else, and waits for its end.
    ///
    /// # Safety
    /// The job stays where it is until this returns.
    unsafe fn hand_over(&self, runtime: &Runtime, me: &Head, token: &CancelToken) {
        let errand = Errand { job: (&raw const *self).cast(), run: Self::run };
        // Chores are done before the scheduler looks for what could wake anybody.
        let here = runtime.config.max_workers == 0;
        let ender = if here { Ender::Tasks } else { Ender::Threads };
        self.wake.set(Wake::current(ender).ok());
        if here {
            runtime.chores.add(errand);
        } else if let Err(errand) = runtime.workers.give(errand) {
            // SAFETY: the job is here, and nobody else has it.
            unsafe { (errand.run)(errand.job) };
        }
        let done = || {
            if me.interruption().is_some() {
                token.0.store(true, Ordering::Relaxed);
            }
            self.done.load(Ordering::Acquire)
        };
        while !done() {
            // The bell was armed before, so nothing can go wrong.
            let _ = runtime.wait(Reason::of("a worker thread"), ender, true, done);
        }
    }

    /// # Safety
    /// `job` leads to a job that stays until it is done, and is run once.
    #[inline(never)]
    unsafe fn run(job: *const ()) {
        // SAFETY: promised by the caller. The store is the last access, for the frame may go as soon as it is seen.
        unsafe {
            let job = &*job.cast::<Job<F, T>>();
            if let Some(f) = job.f.take() {
                job.result.set(Some(catch_unwind(AssertUnwindSafe(f))));
            }
            let wake = job.wake.take();
            job.done.store(true, Ordering::Release);
            if let Some(wake) = wake {
                wake.wake();
            }
        }
    }
}

/// Jobs for the thread's own stack.
#[derive(Default)]
pub(super) struct Chores {
    waiting: RefCell<VecDeque<Errand>>,
    any: Cell<bool>,
}

impl Chores {
    fn add(&self, errand: Errand) {
        self.waiting.borrow_mut().push_back(errand);
        self.any.set(true);
    }

    /// Runs them. They are not part of a task that could be suspended.
    #[inline]
    pub(super) fn run(&self, runtime: &Runtime) {
        if self.any.get() {
            self.run_all(runtime);
        }
    }

    #[cold]
    fn run_all(&self, runtime: &Runtime) {
        loop {
            let Some(errand) = self.waiting.borrow_mut().pop_front() else { return self.any.set(false) };
            interrupt::apart(runtime.current(), || threads::Job::run(errand));
            if !runtime.engine().is_alive() {
                report::forked();
            }
        }
    }
}
