//! Waiting for events, and the end of a queue.

use super::{
    Events, Queue,
    place::{Act, NONE, Phase, Place},
};
use crate::{
    Error, Result, SetupError,
    complete::AbortOnUnwind,
    coro::{self, Runtime},
    driver::{
        slot::{Link, Slot, State},
        waiter::Waiter,
    },
    op::{Clock, Poll, PollEvents, RawOp},
    sys::Timespec,
};
use std::{
    mem::{self, ManuallyDrop, MaybeUninit},
    os::fd::BorrowedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    time::{Duration, Instant},
};

/// How long a task waits at most where nothing tells that there is something.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Calls a function when it is dropped.
struct Defer<F: Fn()>(F);

impl<F: Fn()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// Gives what was submitted to the kernel and waits until there are `at_least` events, or nothing is left that
    /// could end: fewer operations in flight never make it hang. Zero does not wait.
    ///
    /// It also returns when a [`Waker`](super::Waker) asked for that, with whatever there is, and while there is one it
    /// waits for it even if nothing is in flight; so it returns when the last handle of other threads was dropped. Where
    /// a [`poll`](Queue::poll) has taken what another thread had sent, it may return once with less than it was asked
    /// for: use it in a loop.
    ///
    /// Inside a [task](crate::coro) it suspends the task, on an engine that has a descriptor to wait for; a queue that
    /// was made outside of the runtime looks every millisecond.
    ///
    /// # Errors
    ///
    /// [`SetupError::Forked`] in a child of `fork`. In a task also [`Error::Canceled`] and [`Error::TimedOut`], if the
    /// task was cancelled or its time is up; nothing is lost then.
    #[inline]
    pub fn wait(&self, at_least: usize) -> Result<Events<'_, 'q, E, PLACE>> {
        let least = u32::try_from(at_least).unwrap_or(u32::MAX);
        let inner = &**self.inner;
        let plain = !inner.closing.get() && inner.engine.is_alive() && inner.post.get().is_none();
        if least <= self.ready() || !plain || Runtime::current_runtime().is_some() {
            return self.wait_with_care(least, None);
        }
        if !inner.paused.borrow().is_empty() {
            self.resume_paused();
        }
        self.turn_until(least);
        Ok(self.events())
    }

    /// As [`wait`](Queue::wait) for one event, but not beyond `deadline`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Queue::wait). That the time has passed is none: there are no events then.
    pub fn wait_until(&self, deadline: Instant) -> Result<Events<'_, 'q, E, PLACE>> {
        self.wait_with_care(1, Some(deadline))
    }

    /// Gives what was submitted to the kernel, and takes what is there, without waiting.
    ///
    /// # Errors
    ///
    /// As [`wait`](Queue::wait).
    pub fn poll(&self) -> Result<Events<'_, 'q, E, PLACE>> {
        self.wait_with_care(0, None)
    }

    /// Waits until everything in flight has ended, and hands each event to `f`; what that submits is waited for as well.
    /// A multishot operation does not end by itself: cancel it first.
    ///
    /// # Errors
    ///
    /// As [`wait`](Queue::wait).
    pub fn drain(&self, mut f: impl FnMut(super::Token, E)) -> Result<()> {
        // Not `wait`, which would wait for other threads if nothing is in flight.
        self.poll()?.for_each(|(token, event)| f(token, event));
        while !self.inner.closing.get() && (self.has_work() || self.ready() > 0) {
            self.wait(1)?.for_each(|(token, event)| f(token, event));
        }
        Ok(())
    }

    /// Hands events to `f` until nothing is in flight any more, and no other thread could send something, or until
    /// [`stop`](Queue::stop) is called. [Callbacks](Queue::submit_callback) are called on the way.
    ///
    /// ```
    /// use aio::{Queue, op::Timeout};
    /// use std::time::Duration;
    ///
    /// let queue = Queue::new(4)?;
    /// queue.submit(Timeout::after(Duration::from_millis(1)), |_| "tick")?;
    /// queue.submit(Timeout::after(Duration::from_secs(60)), |_| "never")?;
    /// let mut seen = Vec::new();
    /// queue.run(|_, event| {
    ///     seen.push(event);
    ///     queue.stop();
    /// })?;
    /// assert_eq!(seen, ["tick"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`wait`](Queue::wait).
    pub fn run(&self, mut f: impl FnMut(super::Token, E)) -> Result<()> {
        self.inner.stopped.set(false);
        let goes_on = || !self.inner.stopped.get() && !self.inner.closing.get();
        while goes_on() && (self.has_work() || self.ready() > 0 || self.has_remotes()) {
            for (token, event) in self.wait(1)? {
                f(token, event);
                if self.inner.stopped.get() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// As [`run`](Queue::run), for one round: what is there, or the first that comes.
    ///
    /// # Errors
    ///
    /// As [`wait`](Queue::wait).
    pub fn run_once(&self, mut f: impl FnMut(super::Token, E)) -> Result<()> {
        self.wait(1)?.for_each(|(token, event)| f(token, event));
        Ok(())
    }

    /// Makes [`run`](Queue::run) return when the event or callback that is being handled is done. What is in flight stays
    /// so.
    pub fn stop(&self) {
        self.inner.stopped.set(true);
    }

    #[inline]
    fn events(&self) -> Events<'_, 'q, E, PLACE> {
        Events { queue: self, left: self.ready() }
    }

    /// Whether the engine has operations that have not ended.
    #[inline]
    fn has_work(&self) -> bool {
        let inner = &**self.inner;
        let (streams, delivering) = (inner.streams.get(), inner.delivering.get());
        inner.submitted.get() > inner.sink.weight() + inner.rest_len.get()
            || streams > delivering
            // One that has paused does not go on before its mapper has returned.
            || delivering > 0 && self.lives()
    }

    /// Everything but the plainest way to wait.
    #[cold]
    fn wait_with_care(&self, least: u32, deadline: Option<Instant>) -> Result<Events<'_, 'q, E, PLACE>> {
        if !self.inner.engine.is_alive() {
            return Err(Error::Setup(SetupError::Forked));
        }
        if self.inner.closing.get() {
            // Called by what is being dropped with the queue.
            return Ok(Events { queue: self, left: 0 });
        }
        self.resume_paused();
        if least <= self.ready() {
            self.inner.engine.poll(true);
        } else if let Some(runtime) = Runtime::current_runtime()
            && runtime.may_switch()
        {
            self.wait_in_task(runtime, least, deadline)?;
        } else if let Some(deadline) = deadline {
            self.wait_with_alarm(least, deadline.saturating_duration_since(Instant::now()));
        } else {
            self.turn_until(least);
        }
        self.open_post();
        if self.ready() > 0 {
            // Others may wait for what was taken out of the engine here.
            self.stir();
        }
        Ok(self.events())
    }

    /// Runs the engine until there are so many events, or nothing is left to wait for.
    #[inline]
    fn turn_until(&self, least: u32) {
        let guard = AbortOnUnwind;
        loop {
            // First: it may find that the bell was rung already.
            let listens = self.listens();
            let ready = self.ready();
            if ready >= least || self.was_rung() || ready > 0 && !self.is_live() {
                break;
            }
            if !self.has_work() && !listens {
                break;
            }
            self.inner.engine.turn(least - ready);
        }
        mem::forget(guard);
    }

    /// Whether something is in flight that can end without its results being taken: an operation that pauses cannot.
    fn is_live(&self) -> bool {
        self.inner.streams.get() == 0 || self.lives() || self.listens()
    }

    /// Whether an operation is in flight that does not pause.
    fn lives(&self) -> bool {
        let inner = &**self.inner;
        let live = |index| {
            let place: *mut Place<'q, E, PLACE> = inner.places.wrapping_add(index as usize);
            // SAFETY: places stay as long as the queue; the slot of one that was submitted is initialised.
            unsafe {
                // What is over but for an entry in flight ends by itself.
                (*place).phase.get().has_slot()
                    && match (*Place::slot_of(place)).state() {
                        State::Done => false,
                        State::Held => (*Place::slot_of(place)).has_entries(),
                        _ => true,
                    }
            }
        };
        (0..inner.capacity).any(live)
    }

    /// Waits with a time limit, which the engine keeps for one slot of this frame.
    fn wait_with_alarm(&self, least: u32, limit: Duration) {
        let guard = AbortOnUnwind;
        let waiter = Waiter::new(1);
        let mut slot = MaybeUninit::<Slot>::uninit();
        let alarm = slot.as_mut_ptr();
        let at = Timespec::from_duration(limit);
        let op = RawOp::Timeout { clock: Clock::Monotonic, absolute: false, at };
        // SAFETY: slot and waiter stay in this frame until the timer has ended: it has fired, or was cancelled, which
        // ends a sleeping slot at once. Nothing in between unwinds.
        unsafe {
            Slot::init(alarm, op, Link::None, &waiter);
            self.inner.engine.submit(alarm, false);
            let over = || waiter.pending.get() == 0;
            while !over() {
                let listens = self.listens();
                // Nothing to wait for but the time is no reason to wait.
                if self.ready() >= least || self.was_rung() || !self.has_work() && !listens {
                    break;
                }
                self.inner.engine.turn(1);
            }
            if !over() {
                self.inner.engine.cancel(alarm);
            }
        }
        mem::forget(guard);
    }

    /// Suspends the calling task until its queue's engine has something to do.
    fn wait_in_task(&self, runtime: &Runtime, least: u32, deadline: Option<Instant>) -> Result<()> {
        let parked = &self.inner.parked;
        parked.set(parked.get() + 1);
        let _gone = Defer(|| parked.set(parked.get() - 1));
        loop {
            self.resume_paused();
            let listens = self.listens();
            self.inner.engine.poll(true);
            let nothing = !listens && !self.has_work();
            if self.ready() >= least || nothing || self.was_rung() || self.ready() > 0 && !self.is_live() {
                return Ok(());
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(());
            }
            let timer = self.inner.engine.next_timer();
            let timer = timer.map(|at| Duration::from_nanos(at.saturating_sub(crate::sys::monotonic())));
            let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
            let limit = timer.into_iter().chain(left).min();
            match self.inner.engine.pollable().filter(|_| self.inner.engine.is_pollable()) {
                Some(fd) => {
                    // SAFETY: the engine keeps its descriptor open, and lives as long as the queue.
                    let poll = Poll::new(unsafe { BorrowedFd::borrow_raw(fd) }, PollEvents::IN);
                    let stirred = &self.inner.stirred;
                    let (woken, _) = match limit {
                        Some(limit) => coro::select((crate::op::Op::timeout(poll, limit), stirred))?,
                        None => coro::select((poll, stirred))?,
                    };
                    match woken {
                        Some(Err(Error::TimedOut)) if runtime.interruption().is_none() => {}
                        Some(other) => drop(other?),
                        None => {}
                    }
                }
                None => coro::sleep(limit.map_or(LOOK_AGAIN, |limit| limit.min(LOOK_AGAIN)))?,
            }
        }
    }

    /// Closes the queue, unless this is a forked child, whose queue is the parent's.
    pub(super) fn close_if_alive(&self) {
        if self.inner.engine.is_alive() {
            self.close();
        }
    }

    /// Cancels everything, waits for its end, and drops what is left. Nothing can be submitted any more.
    pub(super) fn close(&self) {
        let inner = &**self.inner;
        inner.closing.set(true);
        let guard = AbortOnUnwind;
        let mut pause = Duration::from_micros(20);
        while self.cancel_all() > 0 && self.lives() {
            let before = self.ready();
            inner.engine.turn(1);
            // A hard chain goes on when its running operation ends, so what runs then is cancelled as well. The turn
            // may have brought nothing but the news that there was nothing to cancel yet.
            if self.ready() > before {
                pause = Duration::from_micros(20);
            } else {
                std::thread::sleep(pause);
                pause = (2 * pause).min(Duration::from_millis(5));
            }
        }
        mem::forget(guard);
        self.close_post();
        self.discard();
    }

    /// Drops all results, and what waits for members that will not come. A panic in the program's own `drop` leaks what
    /// it would have dropped, and the rest is dropped all the same.
    fn discard(&self) {
        let discard_one = || catch_unwind(AssertUnwindSafe(|| self.discard_one()));
        while discard_one().unwrap_or(true) {}
        // What a group waits for does not tell it any more.
        let places = |index| -> *mut Place<'q, E, PLACE> { self.inner.places.wrapping_add(index as usize) };
        // SAFETY: places stay as long as the queue.
        (0..self.inner.capacity).map(places).for_each(|place| unsafe { (*place).group.set(NONE) });
        for index in 0..self.inner.capacity {
            let place = places(index);
            // SAFETY: places stay as long as the queue; what waits holds what its function expects.
            unsafe {
                if (*place).phase.get() == Phase::Waiting {
                    let actor = (*place).actor.get();
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(actor(self, place, Act::Drop))));
                }
            }
        }
    }
}

impl<E, const PLACE: usize> Drop for Queue<'_, E, PLACE> {
    fn drop(&mut self) {
        if !self.inner.engine.is_alive() {
            // In a forked child everything is the parent's: it is leaked.
            return;
        }
        self.close();
        let places = ptr::slice_from_raw_parts_mut(self.inner.places, self.inner.capacity as usize);
        // SAFETY: made by `Box::into_raw`. Nothing is in flight any more, so nobody points into the places; and `inner` is
        // not used after this.
        unsafe {
            ManuallyDrop::drop(&mut self.inner);
            drop(Box::from_raw(places));
        }
    }
}
