//! The three ways to run operations and wait for them: [`complete`], [`multi`], [`single`].

use crate::{
    BatchError, Error, Result, SetupError,
    batch::{Batch, Done, not_started},
    coro::Runtime,
    driver::{
        slot::{Slot, State},
        waiter::Waiter,
    },
    engine::{self, Engine},
    lower::Lower,
    op::{Op, RawOp},
    sealed::Sealed,
};
use std::{
    fmt,
    io::{self, Write},
    mem,
    time::Duration,
};

/// Runs a batch and waits until all of it is finished.
///
/// Every operation has its own result, so one failure hides nothing; `errors` counts them. All operations go to the
/// kernel together: with io_uring a batch that finishes at once costs one system call on a thread that has run one
/// before.
///
/// ```
/// use aio::op::*;
/// use std::{fs::File, time::Duration};
///
/// let (f, g) = (File::open("Cargo.toml")?, File::open("src/lib.rs")?);
/// let (mut a, mut b) = ([0u8; 32], vec![0u8; 64]);
/// let done = aio::complete((
///     Read::new(&f, &mut a).at(0),
///     Read::new(&g, &mut b[..]),
///     Timeout::after(Duration::from_millis(5)),
/// ))?;
/// assert_eq!(done.results, (Ok(32), Ok(64), Ok(())));
/// assert_eq!(done.errors, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// One buffer cannot be written by two operations, nor read by one while another writes it:
///
/// ```compile_fail,E0499
/// # use aio::op::*;
/// # let f = std::fs::File::open("Cargo.toml").unwrap();
/// let mut buffer = [0u8; 32];
/// aio::complete((Read::new(&f, &mut buffer), Read::new(&f, &mut buffer)));
/// ```
///
/// A descriptor cannot be closed while an operation uses it:
///
/// ```compile_fail,E0505
/// # use aio::op::*;
/// # let f = std::fs::File::open("Cargo.toml").unwrap();
/// aio::complete((Read::new(&f, &mut [0u8; 32]), Close::new(f)));
/// ```
///
/// # Errors
///
/// Only if nothing was started: no engine could be set up, the batch is empty, or a chain is longer than the queue.
///
/// # Blocking
///
/// The calling thread blocks until the last operation is finished. It is not async-signal-safe.
pub fn complete<B: Batch>(batch: B) -> Result<Done<B::Results>, SetupError> {
    // SAFETY: not used after this call.
    match unsafe { engine::current() } {
        Some(engine) => match engine.scheduler() {
            Some(runtime) => in_task(batch, engine, runtime),
            None => on_thread(batch, engine),
        },
        None => engine::with_new(|engine| on_thread(batch, engine))?,
    }
}

// Apart from one another, so that a task's stack has the frame of one of them only.
#[inline(never)]
fn in_task<B: Batch>(batch: B, engine: &Engine, runtime: &Runtime) -> Result<Done<B::Results>, SetupError> {
    batch.run(engine, runtime)
}

#[inline(never)]
fn on_thread<B: Batch>(batch: B, engine: &Engine) -> Result<Done<B::Results>, SetupError> {
    batch.run(engine, Thread)
}

/// Runs a batch, and gives the outputs if all operations succeeded.
///
/// ```
/// use aio::op::*;
///
/// let f = std::fs::File::open("Cargo.toml")?;
/// let mut buffer = [0u8; 9];
/// let (n, ()) = aio::multi((Read::new(&f, &mut buffer).at(0).link(), Nop::new()))?;
/// assert_eq!(&buffer[..n], b"[package]");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The first operation that failed, by its position. All operations have ended by then; the outputs of those that
/// succeeded are dropped, which closes the descriptors among them. Use [`complete`] to keep them.
pub fn multi<B: Batch>(batch: B) -> Result<B::Values, BatchError> {
    B::into_values(complete(batch).map_err(not_started)?.results)
}

/// Runs one operation and gives its output.
///
/// ```
/// use aio::op::*;
///
/// let f = std::fs::File::open("Cargo.toml")?;
/// let mut buffer = [0u8; 9];
/// assert_eq!(aio::single(Read::new(&f, &mut buffer))?, 9);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The operation's own, or [`Error::Setup`] if no engine could be set up.
pub fn single<O: Op>(op: O) -> Result<O::Output> {
    complete(op).map_err(Error::Setup)?.results
}

/// Aborts the process if a panic tries to leave the frame while an engine still knows its slots.
pub(crate) struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        complain(format_args!("a panic tried to leave a frame whose operations are in flight; aborting"));
        std::process::abort();
    }
}

/// Prints a message. Unlike `eprintln`, it does not panic if standard error is gone: those who complain have frames
/// below them that must not be unwound.
pub(crate) fn complain(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "aio: {message}");
}

/// Who waits for a batch: the thread, or the calling task of a runtime.
pub trait Host: Copy + Sealed {
    /// Lowers a batch of `expected` operations and returns when all of them are finished. `slots` tells where they are,
    /// in order; `what` is the batch's type, for reports.
    ///
    /// # Safety
    /// The slots that `lower` pushes, and everything their operations point to, stay in place and untouched until this
    /// returns or unwinds. The engine is the task's, or has no scheduler.
    unsafe fn run_to_end(
        self,
        engine: &Engine,
        expected: u32,
        what: &'static str,
        slots: impl Fn() -> Vec<*mut Slot>,
        lower: impl FnOnce(&mut Lower<'_>),
    );
}

impl Sealed for &Runtime {}

impl Host for &Runtime {
    #[inline]
    unsafe fn run_to_end(
        self,
        _engine: &Engine,
        expected: u32,
        what: &'static str,
        slots: impl Fn() -> Vec<*mut Slot>,
        lower: impl FnOnce(&mut Lower<'_>),
    ) {
        // SAFETY: promised by the caller.
        unsafe { self.finish(expected, what, &slots, lower) };
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Thread;

impl Sealed for Thread {}

impl Host for Thread {
    #[inline]
    unsafe fn run_to_end(
        self,
        engine: &Engine,
        expected: u32,
        _what: &'static str,
        slots: impl Fn() -> Vec<*mut Slot>,
        lower: impl FnOnce(&mut Lower<'_>),
    ) {
        let waiter = Waiter::new(expected);
        // SAFETY: promised by the caller; `waiter` lives until `pending` is zero, for nothing below returns before.
        let mut cx = unsafe { Lower::new(engine, &waiter, expected, expected == 1) };
        let end = EndOnUnwind(&mut cx, slots);
        lower(end.0);
        mem::forget(end);
        let guard = AbortOnUnwind;
        while waiter.pending.get() > 0 {
            engine.turn(waiter.pending.get());
        }
        mem::forget(guard);
    }
}

/// Lowering calls user code (`AsFd`). If that panics, what was submitted before is ended before the frame goes. The
/// guard is a local, so nobody can forget it.
struct EndOnUnwind<'a, 'e, S: Fn() -> Vec<*mut Slot>>(&'a mut Lower<'e>, S);

impl<S: Fn() -> Vec<*mut Slot>> Drop for EndOnUnwind<'_, '_, S> {
    fn drop(&mut self) {
        let guard = AbortOnUnwind;
        self.0.abandon(&(self.1)());
        mem::forget(guard);
    }
}

/// Cancels what is in flight and waits until it is finished. A chain whose links are hard goes on when its running
/// operation ends, so after each end what runs then is cancelled as well.
///
/// # Safety
/// The slots were submitted, and `waiters` are all that wait for them; they stay in place.
pub(crate) unsafe fn cancel_and_drain(engine: &Engine, slots: &[*mut Slot], waiters: &[*const Waiter]) {
    // SAFETY: promised by the caller.
    let pending = || waiters.iter().map(|&waiter| unsafe { (*waiter).pending.get() }).sum::<u32>();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let before = pending();
        if before == 0 {
            return;
        }
        for &slot in slots {
            // SAFETY: promised by the caller.
            unsafe {
                // A `close` is about to end, and what it was given would be lost.
                if (*slot).state() != State::Done && !matches!((*slot).op, RawOp::Close { .. }) {
                    engine.cancel(slot);
                }
            }
        }
        if pending() > 0 {
            engine.turn(1);
        }
        if pending() < before {
            pause = SHORTEST_PAUSE;
        } else {
            // The turn may have brought nothing but the news that there was nothing to cancel yet.
            std::thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
