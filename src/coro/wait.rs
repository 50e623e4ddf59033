//! Waiting, as tasks do it: for operations, and for one another.

use super::{
    remote::Shared,
    runtime::Runtime,
    task::{Head, Key, Mark},
};
use crate::{
    Error,
    complete::{AbortOnUnwind, cancel_and_drain},
    driver::{
        slot::{Link, Slot, State},
        waiter::{Waiter, Woken},
    },
    lower::Lower,
    op::{Clock, RawOp},
    sys::{Timespec, concurrent::thread},
};
use std::{
    cell::Cell,
    fmt,
    mem::{self, MaybeUninit},
    sync::Arc,
};

/// What a task waits for, in words.
#[derive(Clone, Copy)]
pub(crate) struct Reason {
    what: &'static str,
    detail: Detail,
}

#[derive(Clone, Copy)]
enum Detail {
    None,
    /// There are several of it.
    Number(u64),
    /// `what` is the type of a batch, of which so many operations are to be finished.
    Batch(u32),
}

impl Reason {
    pub(super) const STARTING: Reason = Reason::of("its first turn");
    pub(super) const TURN: Reason = Reason::of("its turn");

    pub(crate) const fn of(what: &'static str) -> Reason {
        Reason { what, detail: Detail::None }
    }

    pub(crate) const fn numbered(what: &'static str, number: u64) -> Reason {
        Reason { what, detail: Detail::Number(number) }
    }

    const fn batch(what: &'static str, pending: u32) -> Reason {
        Reason { what, detail: Detail::Batch(pending) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail {
            Detail::None => f.write_str(self.what),
            Detail::Number(number) => write!(f, "{} {number}", self.what),
            Detail::Batch(pending) => {
                // The names of the operations, out of the name of a type: `(aio::op::recv::Recv<&mut [u8]>, …)`.
                let words = self.what.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                let names = words.filter_map(|path| path.strip_prefix("aio::op::")?.rsplit("::").next());
                let mut first = true;
                for name in names {
                    write!(f, "{}{name}", if mem::take(&mut first) { "" } else { ", " })?;
                }
                if pending > 1 { write!(f, " ({pending} in flight)") } else { Ok(()) }
            }
        }
    }
}

/// Who can end a wait, and what else can.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ender {
    /// Other tasks of the same runtime only.
    Tasks,
    /// Other threads, too.
    Threads,
}

/// The waiter of a task. The plain one comes first, so that the list of those that are done leads to the task.
#[repr(C)]
pub(super) struct TaskWaiter {
    pub(super) waiter: Waiter,
    pub(super) task: *const Head,
    /// The scheduler has taken it off the list.
    pub(super) seen: Cell<bool>,
}

impl TaskWaiter {
    pub(super) fn new(runtime: &Runtime, task: &Head, pending: u32) -> TaskWaiter {
        TaskWaiter { waiter: Waiter::listed(pending, runtime.woken()), task, seen: Cell::new(false) }
    }

    pub(super) fn pending(&self) -> u32 {
        self.waiter.pending.get()
    }

    /// Takes it off the list, where the scheduler has not; it has to be done.
    pub(super) fn leave(&self, runtime: &Runtime) {
        debug_assert!(self.pending() == 0);
        if !self.seen.get() {
            runtime.woken().remove(&raw const self.waiter);
        }
    }
}

/// Waits until `done`, as a task or, for what other threads can end, as a plain thread.
pub(crate) fn until(reason: Reason, ender: Ender, must: bool, done: impl Fn() -> bool) -> Result<(), Error> {
    match Runtime::current_runtime() {
        Some(runtime) => runtime.wait(reason, ender, must, done),
        None if done() => Ok(()),
        None if ender == Ender::Tasks => Err(Error::WrongRuntime),
        None => {
            while !done() {
                thread::park();
            }
            Ok(())
        }
    }
}

/// Whether a wait would be refused at once, and why. For those who give something away before they wait.
pub(crate) fn allowed(ender: Ender) -> Result<(), Error> {
    let Some(runtime) = Runtime::current_runtime() else {
        return if ender == Ender::Tasks { Err(Error::WrongRuntime) } else { Ok(()) };
    };
    let me = runtime.current();
    if let Some(why) = me.interruption() {
        runtime.refuse(me);
        return Err(why);
    }
    if me.is_fixed() && (thread::panicking() || ender == Ender::Tasks) { Err(Error::NoSuspend) } else { Ok(()) }
}

/// Something was there without a wait. After many times the others get their turn.
pub(crate) fn pay_for_luck() {
    if let Some(runtime) = Runtime::current_runtime() {
        runtime.pay_for_luck(runtime.current());
    }
}

/// Lowering calls user code (`AsFd`). If that panics, what was submitted before is ended before the frame goes, and the
/// waiter leaves the scheduler's list.
struct EndOnUnwind<'a, 'e> {
    cx: &'a mut Lower<'e>,
    slots: &'a dyn Fn() -> Vec<*mut Slot>,
    waiter: &'a TaskWaiter,
    runtime: &'a Runtime,
}

impl Drop for EndOnUnwind<'_, '_> {
    fn drop(&mut self) {
        let guard = AbortOnUnwind;
        self.cx.abandon(&(self.slots)());
        self.waiter.leave(self.runtime);
        mem::forget(guard);
    }
}

impl Runtime {
    /// Waits until `done`. It is looked at first, so what is done is never refused.
    ///
    /// # Errors
    /// The task is cancelled or late, unless it `must`; it must not switch here; or nothing is left that could end it.
    pub(crate) fn wait(&self, reason: Reason, ender: Ender, must: bool, done: impl Fn() -> bool) -> Result<(), Error> {
        let me = self.current();
        loop {
            if done() {
                return Ok(());
            }
            if !must && let Some(why) = me.interruption() {
                self.refuse(me);
                return Err(why);
            }
            if me.is_fixed() {
                if thread::panicking() || ender == Ender::Tasks {
                    return Err(Error::NoSuspend);
                }
                self.post.arm(self.engine())?;
                // Where the bell has rung before it was listened to, nothing may be left to wait for.
                if !self.post.has_rung() {
                    self.engine().turn(1);
                }
                self.collect();
                continue;
            }
            let outside = i32::from(ender == Ender::Threads);
            if outside > 0 {
                self.post.arm(self.engine())?;
            }
            self.add_outstanding(outside);
            self.park(me, reason);
            self.add_outstanding(-outside);
            if me.marks.remove(Mark::HOPELESS) && !done() {
                self.refuse(me);
                if !must && me.is_root() {
                    self.root_knows();
                }
                return Err(Error::Deadlock);
            }
        }
    }

    /// Lets the others run first.
    #[inline(always)]
    pub(super) fn yield_now(&self) -> Result<(), Error> {
        let me = self.current();
        if let Some(why) = me.interruption() {
            self.refuse(me);
            return Err(why);
        }
        // Nobody else has run otherwise.
        if me.is_fixed() || !self.make_way(me) { Ok(()) } else { me.interruption().map_or(Ok(()), Err) }
    }

    /// Lowers a batch and waits until all of its operations are finished; see
    /// [`run_to_end`](crate::complete::Host::run_to_end).
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn finish(
        &self,
        expected: u32,
        what: &'static str,
        slots: &dyn Fn() -> Vec<*mut Slot>,
        lower: impl FnOnce(&mut Lower<'_>),
    ) {
        let me = self.current();
        let waiter = TaskWaiter::new(self, me, expected);
        // SAFETY: promised by the caller; `waiter` stays until it has no pending slot and is on no list.
        let mut cx = unsafe { Lower::new(self.engine(), (&raw const waiter).cast(), expected, false) };
        if me.may_be_interrupted() {
            self.refuse_interrupted(me, &mut cx);
        }
        self.note_submission();
        let end = EndOnUnwind { cx: &mut cx, slots, waiter: &waiter, runtime: self };
        lower(end.cx);
        mem::forget(end);
        let guard = AbortOnUnwind;
        // SAFETY: promised by the caller: the slots are submitted, and stay.
        unsafe { self.await_slots(me, &waiter, what, slots) };
        waiter.leave(self);
        mem::forget(guard);
        self.pay_for_luck(me);
    }

    /// Refuses a batch if its task is cancelled or late.
    // The frame of one who waits is to stay small.
    #[cold]
    #[inline(never)]
    fn refuse_interrupted(&self, me: &Head, cx: &mut Lower<'_>) {
        if let Some(why) = me.interruption() {
            self.refuse(me);
            cx.refuse(why);
        }
    }

    /// Lowers one operation and calls `meanwhile`, unless it is finished at once. If it is not finished then, cancels
    /// it, waits for its end, and tells so. The task may switch.
    ///
    /// # Safety
    /// As [`finish`](Self::finish).
    pub(super) unsafe fn run_while(
        &self,
        slots: &dyn Fn() -> Vec<*mut Slot>,
        lower: impl FnOnce(&mut Lower<'_>),
        meanwhile: impl FnOnce(&dyn Fn() -> bool),
    ) -> bool {
        let me = self.current();
        let waiter = TaskWaiter::new(self, me, 1);
        // SAFETY: promised by the caller; `waiter` stays until it has no pending slot and is on no list.
        let mut cx = unsafe { Lower::new(self.engine(), (&raw const waiter).cast(), 1, false) };
        self.note_submission();
        let end = EndOnUnwind { cx: &mut cx, slots, waiter: &waiter, runtime: self };
        lower(end.cx);
        if waiter.pending() > 0 {
            let _outside = self.outside();
            // Or else the engine would wait for the batch of another task to end.
            let _noted = self.noted(&waiter);
            meanwhile(&|| waiter.pending() == 0);
        }
        mem::forget(end);
        let guard = AbortOnUnwind;
        let cut = waiter.pending() > 0;
        if cut {
            let _outside = self.outside();
            // SAFETY: promised by the caller: the slot was submitted, and stays.
            unsafe { self.end_slots(me, &waiter, &slots(), Error::Canceled) };
        }
        waiter.leave(self);
        mem::forget(guard);
        self.pay_for_luck(me);
        cut
    }

    /// Has one who waits for operations noted, until this is dropped.
    fn noted<'a>(&'a self, waiter: &'a TaskWaiter) -> impl Drop {
        struct Noted<'a>(&'a Runtime, &'a TaskWaiter);
        impl Drop for Noted<'_> {
            fn drop(&mut self) {
                self.0.forget_batch(self.1);
            }
        }
        self.note_batch(waiter);
        Noted(self, waiter)
    }

    /// Something outside will end a wait, until this is dropped.
    fn outside(&self) -> impl Drop {
        struct Outside<'a>(&'a Runtime);
        impl Drop for Outside<'_> {
            fn drop(&mut self) {
                self.0.add_outstanding(-1);
            }
        }
        self.add_outstanding(1);
        Outside(self)
    }

    /// Waits until there is something on a list of waiters. If the task is interrupted, the operations are cancelled.
    ///
    /// # Safety
    /// `slots` gives what is in flight for the list. They were submitted, and stay until they are finished.
    pub(crate) unsafe fn await_any(&self, list: &Woken, what: &'static str, slots: &dyn Fn() -> Vec<*mut Slot>) {
        let me = self.current();
        if !list.is_empty() {
            return self.pay_for_luck(me);
        }
        let guard = AbortOnUnwind;
        let bell = TaskWaiter::new(self, me, 1);
        // SAFETY: the bell stays in this frame until it was told. The rest was promised by the caller.
        unsafe {
            list.set_bell((&raw const bell).cast());
            self.await_slots(me, &bell, what, slots);
        }
        bell.leave(self);
        mem::forget(guard);
    }

    /// # Safety
    /// `slots` gives all that `waiter` waits for. They were submitted, and stay until it has no pending one.
    unsafe fn await_slots(
        &self,
        me: &Head,
        waiter: &TaskWaiter,
        what: &'static str,
        slots: &dyn Fn() -> Vec<*mut Slot>,
    ) {
        if me.is_fixed() {
            // SAFETY: promised by the caller.
            return unsafe { self.await_fixed(me, waiter, slots) };
        }
        if waiter.pending() == 0 {
            return;
        }
        self.add_outstanding(1);
        self.note_batch(waiter);
        let mut asked = false;
        while waiter.pending() > 0 {
            // SAFETY: promised by the caller.
            if !asked && me.may_be_interrupted() && unsafe { self.end_interrupted(me, waiter, slots) } {
                asked = true;
                continue;
            }
            self.park(me, Reason::batch(what, waiter.pending()));
        }
        self.forget_batch(waiter);
        self.add_outstanding(-1);
    }

    /// Ends a batch if its task is cancelled or late; tells whether it is.
    ///
    /// # Safety
    /// As [`await_slots`](Self::await_slots).
    #[cold]
    #[inline(never)]
    unsafe fn end_interrupted(&self, me: &Head, waiter: &TaskWaiter, slots: &dyn Fn() -> Vec<*mut Slot>) -> bool {
        let Some(why) = me.interruption() else { return false };
        // SAFETY: promised by the caller.
        unsafe { self.end_slots(me, waiter, &slots(), why) };
        true
    }

    /// As [`await_slots`](Self::await_slots), without a switch.
    ///
    /// # Safety
    /// As there.
    #[cold]
    #[inline(never)]
    unsafe fn await_fixed(&self, me: &Head, waiter: &TaskWaiter, slots: &dyn Fn() -> Vec<*mut Slot>) {
        while waiter.pending() > 0 {
            let Some(why) = me.interruption() else {
                self.engine().turn(waiter.pending());
                // Deadlines are noted there.
                self.collect();
                continue;
            };
            let slots = slots();
            // SAFETY: promised by the caller.
            unsafe {
                if why == Error::TimedOut {
                    slots
                        .iter()
                        .filter(|slot| (***slot).state() != State::Done)
                        .for_each(|slot| (**slot).set_expired());
                }
                cancel_and_drain(self.engine(), &slots, &[&raw const waiter.waiter]);
            }
        }
    }

    /// Cancels operations and waits until they have ended. Once may not be enough: the kernel may not have got as far
    /// as starting one, and a hard chain goes on with its next operation.
    ///
    /// # Safety
    /// As [`await_slots`](Self::await_slots).
    // Not part of the way that every task waits on, whose frame is to stay small.
    #[cold]
    #[inline(never)]
    unsafe fn end_slots(&self, me: &Head, waiter: &TaskWaiter, slots: &[*mut Slot], why: Error) {
        let mut pause = SHORTEST_PAUSE;
        let mut before = waiter.pending();
        while waiter.pending() > 0 {
            for &slot in slots {
                // SAFETY: promised by the caller.
                unsafe {
                    // A `close` is about to end, and what it was given would be lost.
                    if (*slot).state() == State::Done || matches!((*slot).op, RawOp::Close { .. }) {
                        continue;
                    }
                    if why == Error::TimedOut {
                        (*slot).set_expired();
                    }
                    self.engine().cancel(slot);
                }
            }
            self.nap(me, pause, || waiter.pending() == 0);
            pause = if waiter.pending() < before { SHORTEST_PAUSE } else { (2 * pause).min(LONGEST_PAUSE) };
            before = waiter.pending();
        }
    }

    /// Waits for `nanos`, or until `done`, whatever comes first, and cannot be interrupted.
    pub(super) fn nap(&self, me: &Head, nanos: u64, done: impl Fn() -> bool) {
        if done() {
            return;
        }
        let timer = TaskWaiter::new(self, me, 1);
        let mut slot = MaybeUninit::<Slot>::uninit();
        let place = slot.as_mut_ptr();
        let at = Timespec::from_nanos(nanos);
        let op = RawOp::Timeout { clock: Clock::Monotonic, absolute: false, at };
        // SAFETY: slot and waiter stay in this frame until the timer has ended: it has fired, or was cancelled, which
        // ends a sleeping slot at once. Nothing in between unwinds.
        unsafe {
            Slot::init(place, op, Link::None, (&raw const timer).cast());
            self.engine().submit(place, false);
            while timer.pending() > 0 && !done() {
                self.park(me, Reason::of("operations to be cancelled"));
            }
            if timer.pending() > 0 {
                self.engine().cancel(place);
            }
        }
        timer.leave(self);
    }
}

/// Nanoseconds between attempts to cancel.
const SHORTEST_PAUSE: u64 = 20_000;
const LONGEST_PAUSE: u64 = 50_000_000;

/// Wakes whoever waits. It may come late: then it finds nobody.
pub(crate) enum Wake {
    /// A task of this thread's runtime.
    Local(Key),
    /// A task of some runtime.
    Task(Arc<Shared>, Key),
    /// A plain thread.
    Thread(thread::Thread),
}
