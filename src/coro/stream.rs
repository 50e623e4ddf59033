//! Operations with many results, as tasks use them.
//!
//! ```text
//!   Feed ──▶ Held: slot, shots, operation ◀── the runtime's list
//! ```
//!
//! What outlives the call that has submitted it cannot lie on a frame, nor belong to a handle that may be forgotten. So
//! an operation lives in an allocation which the runtime owns together with the handle. Whichever ends first ends the
//! operation and waits for that: the handle when it is dropped, and otherwise the runtime, after its last task. A
//! handle that is forgotten leaks its memory, and one that outlives the runtime finds an operation that has ended.

use super::{
    runtime::Runtime,
    wait::{Reason, TaskWaiter},
};
use crate::{
    BufPool, Error, PooledBuf, Result,
    complete::AbortOnUnwind,
    driver::{
        shots::{Magazine, Shots},
        slot::{Link, Slot, State},
        waiter::Waiter,
    },
    engine::Engine,
    lower::Lower,
    op::{Fd, Multi, MultiOp, RawOp},
};
use std::{
    cell::{Cell, OnceCell, RefCell, UnsafeCell},
    fmt,
    mem::{self, MaybeUninit},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    rc::Rc,
    thread,
    time::Duration,
};

/// What a runtime has for these operations.
pub(super) struct Streams {
    /// All that have a handle, or had one that was forgotten.
    all: RefCell<Vec<Rc<dyn Stream>>>,
    /// Where results wait to be taken.
    magazine: Magazine,
    /// Made at first use, if it can be.
    pool: OnceCell<Option<BufPool>>,
}

impl Streams {
    pub(super) fn new() -> Streams {
        Streams { all: RefCell::default(), magazine: Magazine::new(0), pool: OnceCell::new() }
    }

    fn add(&self, stream: Rc<dyn Stream>) {
        let mut all = self.all.borrow_mut();
        stream.core().at.set(all.len());
        all.push(stream);
    }

    fn remove(&self, core: &Core) {
        let mut all = self.all.borrow_mut();
        let at = core.at.get();
        let removed = all.swap_remove(at);
        if let Some(moved) = all.get(at) {
            moved.core().at.set(at);
        }
        drop(all);
        drop(removed);
    }

    /// Ends what is left when the runtime does. No task runs any more, and nothing here is user code.
    pub(super) fn end(&self) {
        while let Some(stream) = { self.all.borrow_mut().pop() } {
            stream.end();
            stream.leave();
        }
    }

    /// The pool of buffers, if it was made.
    pub(super) fn made_pool(&self) -> Option<&BufPool> {
        self.pool.get()?.as_ref()
    }
}

/// What takes over results that have come and nobody asked for.
pub(crate) trait Keep<T> {
    /// Takes one over.
    fn keep(&self, item: Result<T>);
}

/// An operation of whatever type.
trait Stream {
    fn core(&self) -> &Core;
    /// Cancels the operation, if it is in flight, and waits for its end. What it has produced is kept.
    fn end(&self);
    /// The runtime goes.
    fn leave(&self);
}

/// What does not depend on the type. In place until the operation has ended.
struct Core {
    slot: UnsafeCell<MaybeUninit<Slot>>,
    /// The slot's; nobody waits for that, but for its shots.
    waiter: Waiter,
    shots: Shots,
    /// When it has paused and nothing is left to be taken, it ends; otherwise it goes on.
    halts: bool,
    /// It was submitted, and its last shot was not taken.
    live: Cell<bool>,
    /// None, when it has gone.
    runtime: Cell<*const Runtime>,
    /// Its position in the runtime's list.
    at: Cell<usize>,
}

impl Core {
    fn slot(&self) -> *mut Slot {
        self.slot.get().cast()
    }

    fn runtime<'r>(&self) -> Option<&'r Runtime> {
        // SAFETY: a runtime lets all streams know before it goes. The reference is used for the length of a call, and
        // the runtime ends in a frame below.
        unsafe { self.runtime.get().as_ref() }
    }

    /// Goes on with an operation that has paused, or ends it. Not after each shot: pausing takes the kernel as long as
    /// several.
    fn go_on(&self, runtime: &Runtime) {
        // SAFETY: called while the operation is live: its slot was submitted, and has not ended if it is held.
        unsafe {
            if (*self.slot()).state() != State::Held {
                return;
            }
            if self.halts && self.shots.len() == 0 {
                drain(runtime.engine(), self.slot());
                self.live.set(false);
                // The end alone: nothing of it was in flight.
                while self.shots.pop().is_some() {}
            } else if !self.halts && self.shots.len() <= self.shots.limit() / 2 {
                runtime.engine().resume(self.slot());
                runtime.note_submission();
            }
        }
    }
}

struct Held<O, K> {
    core: Core,
    /// The operation, and who takes its results over. None, when the runtime has gone: what they own is given back
    /// even if the handle was forgotten.
    rest: RefCell<Option<(O, K)>>,
}

impl<O: MultiOp, K: Keep<O::Item>> Held<O, K> {
    /// Takes the oldest shot; tells whether there will be more, unless the last one has been taken before.
    fn pop(&self, op: &mut O) -> Option<(Result<O::Item>, bool)> {
        let shot = self.core.shots.pop()?;
        self.core.live.set(shot.more);
        // SAFETY: the operation's own, and taken just now.
        Some((unsafe { op.item(shot) }, shot.more))
    }
}

impl<O: MultiOp, K: Keep<O::Item>> Stream for Held<O, K> {
    fn core(&self) -> &Core {
        &self.core
    }

    fn end(&self) {
        let Some(runtime) = self.core.runtime().filter(|_| self.core.live.get()) else { return };
        // SAFETY: it is live: the slot was submitted, and stays in this allocation.
        unsafe { drain(runtime.engine(), self.core.slot()) };
        let Some((op, keep)) = &mut *self.rest.borrow_mut() else { return };
        while let Some((item, more)) = self.pop(op) {
            let was_cancelled = !more && matches!(item, Err(Error::Canceled));
            if !was_cancelled {
                keep.keep(item);
            }
        }
    }

    fn leave(&self) {
        self.core.runtime.set(ptr::null());
        drop(self.rest.take());
    }
}

/// Cancels an operation and waits for its end, without a switch: it is one that can be cancelled at any time, so this
/// takes a moment, and a destructor may do it anywhere.
///
/// # Safety
/// `slot` holds a multishot operation of the engine. It was submitted, and stays in place.
unsafe fn drain(engine: &Engine, slot: *mut Slot) {
    let guard = AbortOnUnwind;
    // SAFETY: promised by the caller.
    let is_done = || unsafe { (*slot).state() == State::Done };
    let mut rounds = 0;
    while !is_done() {
        // SAFETY: promised by the caller; it has not ended.
        unsafe { engine.cancel(slot) };
        if !is_done() {
            engine.turn(1);
        }
        rounds += 1;
        if rounds > 2 && !is_done() {
            // There was nothing to cancel yet.
            thread::sleep(Duration::from_micros(20 * rounds.min(50)));
        }
    }
    mem::forget(guard);
}

/// The handle of an operation that gives one result after the other to the tasks of a runtime. It starts with the first
/// `next`; what has ended can be started again.
pub(crate) struct Feed<O: MultiOp + 'static, K: Keep<O::Item> + 'static>(Rc<Held<O, K>>);

impl<O: MultiOp + 'static, K: Keep<O::Item> + 'static> Feed<O, K> {
    /// The operation pauses when about `limit` results wait to be taken. If it `halts`, it is over then, once they have
    /// been taken. If there are any when it is ended by force, they go to `keep`.
    pub(crate) fn new(runtime: &Runtime, op: O, keep: K, limit: u32, halts: bool) -> Feed<O, K> {
        let core = Core {
            slot: UnsafeCell::new(MaybeUninit::uninit()),
            waiter: Waiter::new(1),
            // SAFETY: the magazine is part of the runtime, which is boxed. When that goes, no shot is left, and none
            // will come; without one the magazine is not touched.
            shots: unsafe { Shots::new(&runtime.streams.magazine, limit) },
            halts,
            live: Cell::new(false),
            runtime: Cell::new(runtime),
            at: Cell::new(0),
        };
        let held = Rc::new(Held { core, rest: RefCell::new(Some((op, keep))) });
        runtime.streams.add(held.clone());
        Feed(held)
    }

    /// Whether it is one of this runtime.
    pub(crate) fn is_of(&self, runtime: &Runtime) -> bool {
        ptr::eq(self.0.core.runtime.get(), runtime)
    }

    /// Whether the operation runs, or has results.
    pub(crate) fn is_live(&self) -> bool {
        self.0.core.live.get()
    }

    /// Waits for the next result, and tells whether there will be more before the operation has to be started again.
    ///
    /// # Errors
    /// The calling task is cancelled or late (nothing was taken then), or the operation could not be started.
    pub(crate) fn next(&self, runtime: &Runtime, reason: Reason) -> Result<(Result<O::Item>, bool)> {
        debug_assert!(self.is_of(runtime));
        let core = &self.0.core;
        if let Some(why) = runtime.refused() {
            return Err(why);
        }
        if !self.is_live() {
            self.start(runtime)?;
        }
        if core.shots.len() == 0 {
            // It may have paused since.
            core.go_on(runtime);
            if !self.is_live() {
                self.start(runtime)?;
            }
            runtime.await_shot(&core.shots, reason, || core.shots.len() > 0)?;
        } else {
            runtime.pay_for_luck(runtime.current());
        }
        let Some((op, _)) = &mut *self.0.rest.borrow_mut() else { return Err(Error::WrongRuntime) };
        let Some((item, more)) = self.0.pop(op) else { unreachable!("only this handle takes them") };
        if more {
            core.go_on(runtime);
        }
        Ok((item, more))
    }

    fn start(&self, runtime: &Runtime) -> Result<()> {
        let core = &self.0.core;
        let Some((op, _)) = &mut *self.0.rest.borrow_mut() else { return Err(Error::WrongRuntime) };
        // SAFETY: nothing of it is in flight. Slot, waiter and shots stay in this allocation, and the operation with
        // what it owns as well: the runtime's list keeps it until the operation has ended.
        unsafe {
            let mut cx = Lower::new(runtime.engine(), &core.waiter, 1, false);
            let raw = op.lower_multi(&core.shots, &mut cx)?;
            core.live.set(true);
            cx.push(core.slot(), raw, Link::None);
        }
        runtime.note_submission();
        Ok(())
    }
}

impl<O: MultiOp + 'static, K: Keep<O::Item> + 'static> Drop for Feed<O, K> {
    fn drop(&mut self) {
        match self.0.core.runtime() {
            Some(runtime) if runtime.engine().is_alive() => {
                self.0.end();
                runtime.streams.remove(&self.0.core);
            }
            // A forked child: the operation is its parent's, but what that owns is here as well.
            Some(_) => drop(self.0.rest.take()),
            None => {}
        }
    }
}

impl<O: MultiOp, K: Keep<O::Item>> fmt::Debug for Feed<O, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("live", &self.is_live()).finish_non_exhaustive()
    }
}

impl Runtime {
    /// The pool of buffers, unless it is used up, or there is none.
    pub(crate) fn free_pool(&self) -> Option<&BufPool> {
        let pool = self.streams.pool.get_or_init(|| {
            let (count, size) = self.config.pool;
            let made = (count > 0).then(|| self.engine().make_pool(count, size, false));
            // Without memory for a pool there may be some for a buffer at a time.
            made?.ok().map(BufPool::new)
        });
        pool.as_ref().filter(|pool| pool.used() < pool.count())
    }

    /// The size of a buffer of the pool, also if there is none.
    pub(crate) fn buffer_size(&self) -> usize {
        self.config.pool.1 as usize
    }

    /// Receives once, into a buffer of `pool` that is taken when something has come; no bytes at the end of a stream.
    ///
    /// # Errors
    /// The task is cancelled or late, `ENOBUFS`, or those of `recv(2)`; nothing was received then.
    pub(crate) fn recv_once(&self, fd: BorrowedFd<'_>, pool: &BufPool) -> Result<PooledBuf> {
        if let Some(why) = self.refused() {
            return Err(why);
        }
        let buffers = pool.lower(self.engine().serial())?;
        let waiter = Waiter::new(1);
        let mut slot = MaybeUninit::<Slot>::uninit();
        let place = slot.as_mut_ptr();
        let guard = AbortOnUnwind;
        // SAFETY: slot, waiter and shots are in this frame, which nothing leaves before the operation has ended; the
        // caller lends descriptor and pool for that time. The magazine is the runtime's.
        let (first, cut) = unsafe {
            let shots = Shots::new(&self.streams.magazine, 2);
            let what = Multi::Recv { pool: buffers, flags: 0, once: true, bundled: false };
            Slot::init(place, RawOp::Multi { fd: Fd::new(fd.as_raw_fd()), what, shots: &shots }, Link::None, &waiter);
            self.engine().submit(place, false);
            self.note_submission();
            let done = || (*place).state() == State::Done;
            let cut = match done() {
                true => None,
                false => self.await_shot(&shots, Reason::of("a chunk"), done).err(),
            };
            if cut.is_some() {
                drain(self.engine(), place);
            }
            let first = shots.pop();
            // The end, after a result.
            while shots.pop().is_some() {}
            (first, cut)
        };
        mem::forget(guard);
        self.pay_for_luck(self.current());
        let Some(shot) = first else { unreachable!("what has ended has said so") };
        match cut {
            Some(why) if shot.result == -libc::ECANCELED => Err(why),
            // SAFETY: the shot is of an operation that uses this pool, and was taken just now.
            _ => unsafe { crate::op::received(pool, shot) },
        }
    }

    /// Waits until `done`, which a shot brings about: the kernel's, so it may take for ever.
    fn await_shot(&self, shots: &Shots, reason: Reason, done: impl Fn() -> bool) -> Result<()> {
        let me = self.current();
        let guard = AbortOnUnwind;
        let result = loop {
            if done() {
                break Ok(());
            }
            if let Some(why) = me.interruption() {
                self.refuse(me);
                break Err(why);
            }
            let bell = TaskWaiter::new(self, me, 1);
            // SAFETY: the bell is in this frame until it was told, or is taken back below.
            unsafe { shots.tell_next(&bell.waiter) };
            if me.is_fixed() {
                self.engine().turn(1);
                // Deadlines are noted there.
                self.collect();
            } else {
                self.add_outstanding(1);
                // Or else the engine would wait for the batch of another task to end.
                self.note_batch(&bell);
                self.park(me, reason);
                self.forget_batch(&bell);
                self.add_outstanding(-1);
            }
            if bell.pending() == 0 {
                bell.leave(self);
            } else {
                // SAFETY: nobody is told from now on.
                unsafe { shots.tell_next(ptr::null()) };
            }
        };
        mem::forget(guard);
        result
    }
}
