//! The scheduler: which task runs next, and when to look at the engine.
//!
//! ```text
//!   ready tasks run ──▶ one look at the engine ──▶ what is finished wakes its tasks ──▶ …
//! ```
//!
//! All of it happens on the thread's own stack, which belongs to the root task: while the root waits, it schedules. A
//! task is resumed from there (or, the first time, by whoever spawned it) and goes back there when it waits.
//! Completions never switch to a task; they put it into the queue.

mod start;

use super::{
    Config,
    interrupt::Deadline,
    offload::{Chores, Errand},
    remote::Post,
    report,
    stack::{Pool, StackStats, Watch},
    stream::Streams,
    table::Table,
    task::{Head, Key, Mark, State},
    wait::{Reason, TaskWaiter},
};
use crate::{
    Error, SetupError,
    driver::waiter::Woken,
    engine::{self, Engine},
    sync::waitlist,
    threads::{Kind, Threads},
};
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

/// After so many resumptions timers and descriptors are looked at, even if tasks are always ready; and after so many
/// operations that were finished at once, a task lets others run.
const FAIR: u32 = 61;
/// The same for a task that yields again and again while no other is there: a look costs as much as many yields.
const ALONE: u32 = 4 * FAIR;
/// A cancelled task may ignore it so often, before the process ends.
const PATIENCE: u32 = 100_000;
/// So many of those who wait for batches are looked at before the engine waits.
const WATCHED: usize = 4;
/// Nanoseconds after which the end of a runtime says for whom it waits.
const SLOW: u64 = 1_000_000_000;

thread_local! {
    /// The thread's runtime. No destructor and no lazy value, so that a signal handler may read it.
    static RUNTIME: Cell<*const Runtime> = const { Cell::new(ptr::null()) };
}

/// Whether there is anything to wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// As far as is known.
    Fine,
    /// Every task waits for another one. That was reported, and the root was woken: it may help it.
    RootAsked,
    /// It knows, and has gone on.
    RootKnows,
}

pub(crate) struct Runtime {
    engine: Engine,
    /// Those whose operations are finished, and the deadlines that are over.
    woken: Woken,
    fired: Woken,
    /// First and last of the tasks to be resumed.
    ready: Cell<*const Head>,
    last: Cell<*const Head>,
    /// How many were ever put into the queue, and taken out as of the last look at the engine.
    queued: Cell<u32>,
    taken: Cell<u32>,
    /// The task that runs.
    running: Cell<*const Head>,
    root: Head,
    pub(super) table: Table,
    pool: RefCell<Pool>,
    pub(super) config: Config,
    /// Waits that something outside ends: the kernel, the clock, a worker, another thread.
    outstanding: Cell<i32>,
    pub(super) streams: Streams,
    pub(super) post: Post,
    pub(super) workers: Threads<Errand>,
    pub(super) chores: Chores,
    serial: u32,
    since_look: Cell<u32>,
    /// A few of those who wait for batches, and how many more there are.
    batches: Cell<[*const TaskWaiter; WATCHED]>,
    more_batches: Cell<u32>,
    /// Operations were submitted since the last look.
    submitted: Cell<bool>,
    /// Operations finished at once since the last switch.
    luck: Cell<u32>,
    outlook: Cell<Outlook>,
    closing: Cell<bool>,
    /// Counts for `stats`: tasks that were resumed, those that began to run at once left out; and those that did not.
    resumed: Cell<u64>,
    enqueued: Cell<u64>,
}

impl Runtime {
    fn new(config: Config) -> Result<Runtime, SetupError> {
        static SERIALS: AtomicU32 = AtomicU32::new(1);
        let (max, idle) = (config.max_workers, config.worker_idle);
        let workers = Threads::new(Kind { name: "aio-offload", max, idle, stack: None, signals: true, each: false });
        let serial = SERIALS.fetch_add(1, Ordering::Relaxed);
        let root = Head::new(serial, Key { index: 0, id: 0 });
        root.set_name(config.name.clone().unwrap_or("root".into()));
        Ok(Runtime {
            engine: Engine::new(config.engine)?,
            woken: Woken::new(),
            fired: Woken::new(),
            ready: Cell::new(ptr::null()),
            last: Cell::new(ptr::null()),
            queued: Cell::new(0),
            taken: Cell::new(0),
            running: Cell::new(ptr::null()),
            root,
            table: Table::new(serial),
            pool: RefCell::new(Pool::new()),
            config,
            outstanding: Cell::new(0),
            streams: Streams::new(),
            post: Post::new(),
            workers,
            chores: Chores::default(),
            serial,
            since_look: Cell::new(0),
            batches: Cell::new([ptr::null(); WATCHED]),
            more_batches: Cell::new(0),
            submitted: Cell::new(false),
            luck: Cell::new(0),
            outlook: Cell::new(Outlook::Fine),
            closing: Cell::new(false),
            resumed: Cell::new(0),
            enqueued: Cell::new(0),
        })
    }

    /// Runs `f` as the root task of a new runtime on this thread, and then ends all tasks that are left.
    pub(super) fn enter<R>(config: Config, f: impl FnOnce(&Runtime) -> R) -> Result<R, SetupError> {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                RUNTIME.set(ptr::null());
            }
        }
        if !RUNTIME.get().is_null() {
            return Err(SetupError::InsideRuntime);
        }
        if std::thread::panicking() {
            return Err(SetupError::Panicking);
        }
        let watches = config.overflow_report;
        let runtime = Box::new(Runtime::new(config)?);
        let this: *const Runtime = &*runtime;
        runtime.running.set(&runtime.root);
        RUNTIME.set(this);
        let leave = Leave;
        // SAFETY: the runtime is boxed and owns its engine. The guards are dropped below, before it.
        let (current, watch) = unsafe {
            engine::attach(&runtime.engine, this);
            (engine::make_current(&runtime.engine), watches.then(Watch::new))
        };
        let result = catch_unwind(AssertUnwindSafe(|| f(&runtime)));
        let alive = runtime.engine.is_alive();
        if alive {
            runtime.close();
        }
        drop((watch, current, leave));
        if !alive {
            // A forked child has left its parent's runtime. Tasks, stacks and rings are the parent's.
            std::mem::forget(runtime);
        }
        match result {
            Ok(value) => Ok(value),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The runtime whose tasks may be switched here: not inside another engine's `Config::run`, not in a forked child.
    #[inline]
    pub(crate) fn current_runtime<'r>() -> Option<&'r Runtime> {
        // SAFETY: whoever calls this runs in a task of the runtime, whose frames end before it does.
        unsafe { engine::current() }?.scheduler()
    }

    /// The same, for what makes no sense without one.
    #[track_caller]
    #[inline]
    pub(super) fn expect<'r>(what: &str) -> &'r Runtime {
        #[cold]
        #[inline(never)]
        #[track_caller]
        fn outside(what: &str) -> ! {
            panic!("{what} was called outside a runtime; call it inside coro::run")
        }
        match Runtime::current_runtime() {
            Some(runtime) => runtime,
            None => outside(what),
        }
    }

    /// The runtime of this thread, only to wake its tasks.
    #[inline]
    pub(super) fn of_thread<'r>() -> Option<&'r Runtime> {
        // SAFETY: reset before the runtime goes.
        unsafe { RUNTIME.get().as_ref() }
    }

    #[inline]
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    #[inline]
    pub(super) fn woken(&self) -> &Woken {
        &self.woken
    }

    pub(super) fn fired(&self) -> &Woken {
        &self.fired
    }

    /// The task that runs.
    #[inline]
    pub(super) fn current(&self) -> &Head {
        // SAFETY: set from the start of `enter` on; the table keeps a task until it has ended.
        unsafe { &*self.running.get() }
    }

    /// The task that runs, for a signal handler.
    pub(super) fn running(&self) -> Option<&Head> {
        // SAFETY: as in `current`.
        unsafe { self.running.get().as_ref() }
    }

    pub(super) fn root(&self) -> &Head {
        &self.root
    }

    /// The same, for one who is about to wait all the same: counts that.
    pub(crate) fn refused(&self) -> Option<Error> {
        self.interruption().inspect(|_| self.refuse(self.current()))
    }

    /// Whether the calling task can be suspended here.
    pub(crate) fn may_switch(&self) -> bool {
        !self.current().is_fixed()
    }

    /// Why the calling task may not wait now, if so.
    pub(crate) fn interruption(&self) -> Option<Error> {
        self.current().interruption()
    }

    /// Takes note that the engine has something to do.
    #[inline]
    pub(super) fn note_submission(&self) {
        self.submitted.set(true);
    }

    /// Counts waits that something outside will end.
    pub(super) fn add_outstanding(&self, more: i32) {
        self.outstanding.set(self.outstanding.get() + more);
    }

    pub(super) fn stack_stats(&self) -> StackStats {
        let mut stats = self.pool.borrow().stats();
        // The table has one that waits as well.
        let spare = usize::from(self.table.has_spare());
        stats.in_use -= spare;
        stats.free += spare;
        stats
    }

    /// Puts a parked task into the queue. Others will look at what they wait for before they park.
    #[inline]
    pub(super) fn wake(&self, task: &Head) {
        if task.state.get() == State::Parked {
            self.make_ready(task);
        }
    }

    /// Wakes the task that a key leads to, if it has not ended.
    pub(super) fn wake_key(&self, key: Key) {
        if key.id == 0 {
            return self.wake(&self.root);
        }
        let task = self.table.get(key);
        if let Some(task) = task {
            self.wake(&task);
        }
    }

    #[inline]
    fn make_ready(&self, task: &Head) {
        task.state.set(State::Ready);
        task.next.set(ptr::null());
        let last = self.last.replace(task);
        if last.is_null() {
            self.ready.set(task);
        } else {
            // SAFETY: a task in the queue has not ended, so it is in the table or the root.
            unsafe { (*last).next.set(task) };
        }
        self.queued.set(self.queued.get().wrapping_add(1));
    }

    #[inline]
    fn next_ready(&self) -> Option<&Head> {
        // SAFETY: as above.
        let task = unsafe { self.ready.get().as_ref() }?;
        self.ready.set(task.next.get());
        if task.next.get().is_null() {
            self.last.set(ptr::null());
        }
        Some(task)
    }

    /// Suspends the calling task until somebody wakes it, for whatever reason. The caller looks whether it was the
    /// right one.
    #[inline(always)]
    pub(super) fn park(&self, me: &Head, reason: Reason) {
        me.reason.set(reason);
        me.state.set(State::Parked);
        self.leave(me);
    }

    /// Lets others run first, if there are any; tells whether they may have.
    #[inline(always)]
    pub(super) fn make_way(&self, me: &Head) -> bool {
        // Whoever has spawned this task eagerly is in no queue, but waits all the same.
        let nobody = me.depth.get() == 0 && self.ready.get().is_null() && !self.has_news();
        if nobody && self.since_look.get() < ALONE {
            self.since_look.set(self.since_look.get() + 1);
            return false;
        }
        self.step_back(me);
        true
    }

    /// Puts the calling task at the end of the queue.
    #[inline(always)]
    pub(super) fn step_back(&self, me: &Head) {
        me.reason.set(Reason::TURN);
        self.make_ready(me);
        self.leave(me);
    }

    #[inline(always)]
    fn leave(&self, me: &Head) {
        if me.is_root() {
            self.schedule();
        } else {
            // SAFETY: the calling task is `me`, and runs on its own stack.
            unsafe { me.routine.suspend() };
        }
        self.luck.set(0);
    }

    /// Runs a task until it waits or ends.
    ///
    /// Inlined, as all that surrounds a switch: a processor predicts returns by the calls that it has seen, and after a
    /// switch those were made on another stack.
    #[inline(always)]
    fn resume(&self, task: &Head) {
        task.state.set(State::Running);
        self.resumed.set(self.resumed.get() + 1);
        // SAFETY: it was ready, so it is not running.
        if self.switch_to(task, || unsafe { task.routine.resume() }) {
            self.end_kept(task);
        }
    }

    /// What surrounds `switch`, which lets the task run and tells whether it has ended.
    #[inline(always)]
    fn switch_to(&self, task: &Head, switch: impl FnOnce() -> bool) -> bool {
        let previous = self.running.replace(task);
        let ended = switch();
        debug_assert!(ptr::eq(self.running.get(), task), "whoever runs another task comes back first");
        self.running.set(previous);
        if !self.engine.is_alive() {
            report::forked();
        }
        ended
    }

    /// How often a task has begun to run, or went on.
    pub(super) fn switches(&self) -> u64 {
        self.resumed.get() + self.table.made() - self.enqueued.get()
    }

    /// Takes care of a task that has ended. As `end_first`, for one that was resumed: others may know it.
    #[inline(never)]
    fn end_kept(&self, task: &Head) {
        self.note_end(task);
        waitlist::wake_all(&task.joiners, |list| list, 0);
        self.leave_scope(task);
        self.remove(task);
        if self.closing.get() && self.table.is_empty() {
            self.wake(&self.root);
        }
    }

    #[inline(always)]
    fn note_end(&self, task: &Head) {
        task.state.set(State::Done);
        self.go_on();
    }

    #[inline(always)]
    fn leave_scope(&self, task: &Head) {
        if !task.scope.get().is_null() {
            // SAFETY: a scope waits for its children.
            unsafe { (*task.leave_scope()).one_less() };
        }
    }

    /// Takes what a task leaves, and the task, which may be gone then. A stack of the caller's is left to it.
    #[inline(never)]
    fn remove(&self, task: &Head) {
        // SAFETY: it has ended.
        if let Some(stack) = unsafe { task.routine.end() }
            && let Some(stack) = self.pool.borrow_mut().give(stack)
        {
            task.routine.leave_stack(stack);
        }
        drop(self.table.remove(task.key()));
    }

    /// Runs tasks until it is the root's turn.
    #[inline(never)]
    fn schedule(&self) {
        while !self.run_ready() {
            self.look();
        }
        // Otherwise a root that is always ready would keep the engine waiting.
        if self.since_look.get() >= FAIR || !self.has_ready() && self.has_news() {
            self.poll(self.since_look.get() >= FAIR);
        }
    }

    /// Whether the engine has something to do, as far as one can tell without asking it.
    #[inline]
    fn has_news(&self) -> bool {
        self.submitted.get() || !self.woken.is_empty() || !self.fired.is_empty() || self.post.has_rung()
    }

    /// Runs the tasks that are ready, and some that they wake; tells whether it is the root's turn.
    #[inline(always)]
    fn run_ready(&self) -> bool {
        let offered = self.queued.get().wrapping_sub(self.taken.get()).max(FAIR);
        let mut left = offered;
        let mut roots = false;
        while left > 0
            && let Some(task) = self.next_ready()
        {
            left -= 1;
            if task.is_root() {
                task.state.set(State::Running);
                roots = true;
                break;
            }
            self.resume(task);
        }
        self.taken.set(self.taken.get().wrapping_add(offered - left));
        self.since_look.set(self.since_look.get() + (offered - left));
        self.chores.run(self);
        roots
    }

    /// Runs the tasks that are ready, and looks at the engine. For the root, when it drives the runtime itself.
    pub(super) fn tick(&self) {
        if !self.engine.is_alive() {
            report::forked();
        }
        // SAFETY: the runtime stays, and the guard is dropped before this returns. Tasks expect their own engine, even
        // if the root calls this inside another one's `Config::run`.
        let _current = unsafe { engine::make_current(&self.engine) };
        // The root may call this where it must not switch.
        if !self.current().is_fixed() {
            self.run_ready();
        }
        self.poll(true);
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.get().is_null()
    }

    /// Different for each runtime of the process.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    /// Looks at the engine; waits there if there is nothing else to do.
    fn look(&self) {
        if !self.ready.get().is_null() {
            if self.has_news() || self.since_look.get() >= FAIR {
                self.poll(self.since_look.get() >= FAIR);
            }
        } else if !self.woken.is_empty() || !self.fired.is_empty() || self.post.has_rung() {
            // Something was finished while an operation blocked the thread, or there are more letters than are opened at
            // once. That may go on for ever.
            self.poll(self.since_look.get() >= FAIR);
        } else if self.outstanding.get() > 0 || !self.closing.get() && self.post.is_awaited() {
            self.since_look.set(0);
            self.submitted.set(false);
            self.go_on();
            self.engine.turn(self.needed());
            self.collect();
        } else if self.post.is_unheard() {
            // The last one that could ring did so, and went, before the engine has told of it.
            self.post.deliver(self);
        } else {
            self.give_up();
        }
    }

    /// How many operations have to end before any task can go on. Mostly one; but where a few tasks wait for batches
    /// the kernel may as well do several steps in one call.
    fn needed(&self) -> u32 {
        if self.more_batches.get() > 0 || self.post.is_armed() {
            return 1;
        }
        let waiting = self.batches.get().into_iter().filter(|waiter| !waiter.is_null());
        // SAFETY: those who wait take themselves off before they go.
        waiting.map(|waiter| unsafe { (*waiter).pending() }).min().unwrap_or(1)
    }

    /// Takes note of one who waits for operations, until `forget_batch`.
    // Not inlined: the frame of one who waits is to stay small.
    #[inline(never)]
    pub(super) fn note_batch(&self, waiter: &TaskWaiter) {
        let mut batches = self.batches.get();
        match batches.iter_mut().find(|place| place.is_null()) {
            Some(place) => *place = waiter,
            None => self.more_batches.set(self.more_batches.get() + 1),
        }
        self.batches.set(batches);
    }

    #[inline(never)]
    pub(super) fn forget_batch(&self, waiter: &TaskWaiter) {
        let mut batches = self.batches.get();
        match batches.iter_mut().find(|place| ptr::eq(**place, waiter)) {
            Some(place) => *place = ptr::null(),
            None => self.more_batches.set(self.more_batches.get() - 1),
        }
        self.batches.set(batches);
    }

    /// Looks at the engine without waiting.
    pub(super) fn poll(&self, thorough: bool) {
        if thorough {
            self.since_look.set(0);
        }
        self.submitted.set(false);
        self.engine.poll(thorough);
        self.collect();
    }

    /// Wakes those whose operations are finished or whose time is up, and takes what other threads have sent.
    pub(super) fn collect(&self) {
        while let Some(waiter) = self.woken.pop() {
            // SAFETY: only the waiters of tasks get on this list, and they stay until they have been taken off.
            unsafe {
                let waiter = &*waiter.cast::<TaskWaiter>();
                waiter.seen.set(true);
                self.wake(&*waiter.task);
            }
        }
        while let Some(waiter) = self.fired.pop() {
            self.add_outstanding(-1);
            // SAFETY: it comes from that list.
            let (deadline, task) = unsafe { Deadline::fire(waiter) };
            self.wake(task);
            if deadline.has_heirs.get() {
                self.wake_all();
            }
        }
        if self.post.has_rung() {
            self.post.deliver(self);
        }
    }

    /// Wakes all tasks, so that they look at what they wait for.
    fn wake_all(&self) {
        self.table.for_each(|task| self.wake(task));
        self.wake(&self.root);
    }

    /// Every task waits for another one. Lets the root know, and everybody if that does not help.
    #[cold]
    fn give_up(&self) {
        if self.outlook.get() == Outlook::Fine {
            report::deadlock(self);
        }
        self.root.marks.add(Mark::HOPELESS);
        if self.outlook.replace(Outlook::RootAsked) == Outlook::RootAsked {
            self.table.for_each(|task| _ = task.marks.add(Mark::HOPELESS));
            self.wake_all();
        } else {
            self.wake(&self.root);
        }
    }

    /// The root was told, and goes on.
    pub(super) fn root_knows(&self) {
        if self.outlook.get() == Outlook::RootAsked {
            self.outlook.set(Outlook::RootKnows);
        }
    }

    /// There is progress.
    #[inline]
    fn go_on(&self) {
        // Looking is cheaper than writing.
        if self.outlook.get() != Outlook::Fine {
            self.outlook.set(Outlook::Fine);
        }
    }

    /// A wait was refused to a cancelled task. If it does not take the hint, the others run, and after many times the
    /// process ends.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&self, me: &Head) {
        me.refused.set(me.refused.get() + 1);
        if me.refused.get() > PATIENCE {
            report::careless(me);
        }
        if me.refused.get() > 16 && !me.is_fixed() {
            self.step_back(me);
        }
    }

    /// An operation was finished without a switch. After many of them the others get their turn.
    #[inline]
    pub(super) fn pay_for_luck(&self, me: &Head) {
        self.luck.set(self.luck.get() + 1);
        if self.luck.get() > FAIR && !me.is_fixed() {
            self.step_back(me);
        }
    }

    /// Ends all tasks: what they wait for gives `Canceled` from now on.
    fn close(&self) {
        self.closing.set(true);
        self.go_on();
        let mut patience = SLOW;
        loop {
            // Both run the user's code, which may start tasks. Tasks may have made the box only now.
            self.root.locals.clear();
            self.post.close();
            let tasks = self.table.all();
            if tasks.is_empty() {
                break;
            }
            for task in tasks {
                self.cancel(&task);
            }
            self.wait_for_ends(&mut patience);
        }
        self.streams.end();
        self.post.end(&self.engine);
    }

    /// Waits until there is no task left, or a new one. Says for whom it waits if that takes long.
    fn wait_for_ends(&self, patience: &mut u64) {
        let born = self.table.made();
        let done = || self.table.is_empty() || self.table.made() != born;
        loop {
            self.nap(&self.root, *patience, done);
            if done() {
                return;
            }
            report::slow_end(self);
            *patience *= 4;
        }
    }

    /// Asks a task to end.
    pub(super) fn cancel(&self, task: &Head) {
        if task.state.get() == State::Done || task.marks.add(Mark::CANCELED) {
            return;
        }
        self.wake(task);
    }
}
