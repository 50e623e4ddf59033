//! What makes a task's waits end early, and what keeps them from it: deadlines, shields, `no_suspend`.

use super::{runtime::Runtime, task::Head};
use crate::{
    driver::{
        slot::{Link, Slot},
        waiter::Waiter,
    },
    op::{Clock, RawOp},
    sys::{self, Timespec},
};
use std::{
    cell::Cell,
    mem::MaybeUninit,
    time::{Duration, Instant},
};

/// A deadline or a shield on the stack of the task that set it.
pub(super) enum Frame {
    Shield { outer: *const Frame },
    Deadline(Deadline),
}

/// The waiter comes first, so that the list of those that have fired leads to the deadline.
#[repr(C)]
pub(super) struct Deadline {
    waiter: Waiter,
    outer: *const Frame,
    task: *const Head,
    /// There was no time from the start.
    late: bool,
    /// The timer has fired.
    over: Cell<bool>,
    /// Children of the task are under it as well.
    pub(super) has_heirs: Cell<bool>,
}

impl Frame {
    pub(super) fn outer(&self) -> *const Frame {
        match self {
            Frame::Shield { outer } => *outer,
            Frame::Deadline(deadline) => deadline.outer,
        }
    }
}

impl Deadline {
    pub(super) fn is_over(&self) -> bool {
        self.late || self.over.get()
    }

    /// The deadline that a waiter of the list of fired ones is part of: notes that it is over, and gives its task.
    ///
    /// # Safety
    /// The waiter comes from that list.
    pub(super) unsafe fn fire<'d>(waiter: *const Waiter) -> (&'d Deadline, &'d Head) {
        // SAFETY: promised by the caller; only deadlines get on that list, and they leave it before they go.
        unsafe {
            let deadline = &*waiter.cast::<Deadline>();
            deadline.over.set(true);
            (deadline, &*deadline.task)
        }
    }
}

/// Takes a frame off its task's list.
struct Pop<'a>(&'a Head, *const Frame);

impl Drop for Pop<'_> {
    fn drop(&mut self) {
        self.0.frames.set(self.1);
        // What was refused because of this frame is no carelessness.
        if self.0.interruption().is_none() {
            self.0.refused.set(0);
        }
    }
}

/// Runs `f` under a time limit: once it is over, whatever the calling task waits for in `f` gives
/// [`Error::TimedOut`](crate::Error::TimedOut) at once, operations as well as locks, channels and sleeps.
///
/// What `f` returns is returned, also if it is late: nothing that was read or accepted is lost. Limits nest, and the
/// earliest counts. Children that are spawned into a [`scope`](super::scope) inside inherit the limit; detached tasks
/// do not. A [cancelled](super::JoinHandle::cancel) task sees [`Error::Canceled`](crate::Error::Canceled) instead.
///
/// ```
/// use aio::{Error, coro, sync::Event};
/// use std::time::Duration;
///
/// coro::run(|| {
///     let never = Event::new();
///     assert_eq!(coro::timeout(Duration::from_millis(5), || never.wait()), Err(Error::TimedOut));
///     assert_eq!(coro::sleep(Duration::from_millis(1)), Ok(()));      // the limit ended with its closure
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Panics
///
/// Outside a runtime.
pub fn timeout<R>(limit: Duration, f: impl FnOnce() -> R) -> R {
    let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    with_deadline(sys::monotonic().saturating_add(nanos), f)
}

/// As [`timeout`], until a moment.
///
/// # Panics
///
/// Outside a runtime.
pub fn deadline<R>(at: Instant, f: impl FnOnce() -> R) -> R {
    timeout(at.saturating_duration_since(Instant::now()), f)
}

fn with_deadline<R>(at: u64, f: impl FnOnce() -> R) -> R {
    /// Ends the timer, also when `f` panics.
    struct Disarm<'a> {
        runtime: &'a Runtime,
        slot: *mut Slot,
        waiter: *const Waiter,
        deadline: &'a Deadline,
    }
    impl Drop for Disarm<'_> {
        fn drop(&mut self) {
            if !self.runtime.engine().is_alive() {
                // A forked child: the timer is its parent's.
                return;
            }
            // SAFETY: the slot was submitted, and it and the waiter are in the frame that this is dropped in.
            unsafe {
                if (*self.waiter).pending.get() > 0 {
                    self.runtime.engine().cancel(self.slot);
                }
                debug_assert!((*self.waiter).pending.get() == 0, "a sleeping slot ends when it is cancelled");
            }
            if !self.deadline.over.get() {
                self.runtime.fired().remove(self.waiter);
                self.runtime.add_outstanding(-1);
            }
        }
    }
    let runtime = Runtime::expect("coro::timeout");
    let task = runtime.current();
    let frame = Frame::Deadline(Deadline {
        waiter: Waiter::listed(1, runtime.fired()),
        outer: task.frames.get(),
        task,
        late: at <= sys::monotonic(),
        over: Cell::new(false),
        has_heirs: Cell::new(false),
    });
    let Frame::Deadline(own) = &frame else { unreachable!("it was just made") };
    let mut slot = MaybeUninit::<Slot>::uninit();
    let (place, waiter) = (slot.as_mut_ptr(), (&raw const *own).cast::<Waiter>());
    let op = RawOp::Timeout { clock: Clock::Monotonic, absolute: true, at: Timespec::from_nanos(at) };
    runtime.add_outstanding(1);
    // SAFETY: slot and waiter stay in this frame until `disarm` has ended the timer.
    unsafe {
        Slot::init(place, op, Link::None, waiter);
        runtime.engine().submit(place, false);
    }
    let _disarm = Disarm { runtime, slot: place, waiter, deadline: own };
    let _pop = Pop(task, task.frames.replace(&frame));
    f()
}

/// Runs `f` so that neither a cancellation of the calling task nor a deadline from outside ends a wait early. They are
/// seen again afterwards. For what must not be left half done.
///
/// ```
/// use aio::{Error, coro};
/// use std::time::Duration;
///
/// coro::run(|| {
///     let task = coro::spawn(|| {
///         let late = coro::sleep(Duration::from_secs(60));
///         assert_eq!(late, Err(Error::Canceled));
///         coro::shield(|| coro::sleep(Duration::from_millis(1)))      // cleaning up takes its time
///     });
///     task.cancel();
///     assert_eq!(task.join().unwrap(), Ok(()));
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Panics
///
/// Outside a runtime.
pub fn shield<R>(f: impl FnOnce() -> R) -> R {
    shielded(Runtime::expect("coro::shield").current(), f)
}

fn shielded<R>(task: &Head, f: impl FnOnce() -> R) -> R {
    let frame = Frame::Shield { outer: task.frames.get() };
    let _pop = Pop(task, task.frames.replace(&frame));
    f()
}

/// Runs `f` without ever switching to another task: operations in it block the thread.
///
/// For code that treats a thread-local as a stack, or initialises one: if another task ran in the middle, it would see
/// (and could end) what belongs to this one. Rust cannot check that; see the [limits](super#limits). What only another
/// task of this runtime could end, a local lock or channel, gives [`Error::NoSuspend`](crate::Error::NoSuspend) if it
/// would have to wait; new tasks wait for their first turn until `f` has returned. Where `f` waits for something that a
/// task of the same runtime has to do, a socket's other end for example, it waits for ever.
///
/// Outside a runtime it just runs `f`.
///
/// ```
/// use aio::{coro, op::Timeout};
/// use std::time::Duration;
///
/// coro::run(|| {
///     let other = coro::spawn(|| coro::yield_now().unwrap());
///     coro::no_suspend(|| aio::single(Timeout::after(Duration::from_millis(1)))).unwrap();
///     assert!(!other.is_finished());
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
pub fn no_suspend<R>(f: impl FnOnce() -> R) -> R {
    match Runtime::current_runtime() {
        Some(runtime) => fixed(runtime.current(), f),
        None => f(),
    }
}

/// Runs what is none of the task's doing, but happens in its name while it waits: it must not switch, and what ends the
/// task's own waits is no concern of it.
pub(super) fn apart<R>(task: &Head, f: impl FnOnce() -> R) -> R {
    fixed(task, || shielded(task, f))
}

/// Runs `f` while a task must not switch.
pub(super) fn fixed<R>(task: &Head, f: impl FnOnce() -> R) -> R {
    struct Leave<'a>(&'a Head);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.unswitchable.set(self.0.unswitchable.get() - 1);
        }
    }
    task.unswitchable.set(task.unswitchable.get() + 1);
    let _leave = Leave(task);
    f()
}

/// Marks the deadlines from `frames` on as those of children too.
pub(super) fn bequeath(frames: *const Frame) {
    let mut frame = frames;
    // SAFETY: the list of the calling task, whose frames are alive.
    while let Some(here) = unsafe { frame.as_ref() } {
        if let Frame::Deadline(deadline) = here {
            deadline.has_heirs.set(true);
        }
        frame = here.outer();
    }
}

const _: () = assert!(std::mem::offset_of!(Deadline, waiter) == 0);
