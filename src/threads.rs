//! Threads for what blocks: a bounded number of them, started on demand, that do one job after the other and end when
//! they have been idle for a while.

use crate::sys::concurrent::{Condvar, Mutex, MutexGuard, thread};
use std::{
    cell::RefCell,
    collections::VecDeque,
    mem, ptr,
    sync::{Arc, PoisonError},
    time::Duration,
};

#[cfg(all(loom, test))]
mod loom;

/// What the threads do. It must not panic.
pub(crate) trait Job: Send + 'static {
    fn run(self);
}

/// What the threads of one owner are like.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// How many there may be.
    pub(crate) max: usize,
    /// How long an idle one stays.
    pub(crate) idle: Duration,
    /// Bytes of stack, if it is not the default.
    pub(crate) stack: Option<usize>,
    /// Whether signals go to them as well. What they execute inherits that.
    pub(crate) signals: bool,
    /// A job may wait for ever, so none is queued behind those that run.
    pub(crate) each: bool,
}

/// The threads of one owner, who is on one thread. They end with it.
pub(crate) struct Threads<J: Job> {
    shared: Arc<Shared<J>>,
    kind: Kind,
    started: RefCell<Vec<thread::JoinHandle<()>>>,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    work: Condvar,
}

struct State<J> {
    queue: VecDeque<J>,
    idle: usize,
    threads: usize,
    closed: bool,
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Job> Threads<J> {
    pub(crate) fn new(kind: Kind) -> Threads<J> {
        let state = State { queue: VecDeque::new(), idle: 0, threads: 0, closed: false };
        let shared = Shared { state: Mutex::new(state), work: Condvar::new() };
        Threads { shared: Arc::new(shared), kind, started: RefCell::default() }
    }

    /// Hands a job over; gives it back if there may be no thread, and none could be started.
    pub(crate) fn give(&self, job: J) -> Result<(), J> {
        let mut state = self.shared.lock();
        if state.idle <= state.queue.len() && state.threads < self.kind.max {
            let mut started = self.started.borrow_mut();
            started.retain(|thread| !thread.is_finished());
            if let Some(thread) = spawn(self.shared.clone(), self.kind) {
                started.push(thread);
                state.threads += 1;
            } else if self.kind.each {
                return Err(job);
            }
        }
        if state.threads == 0 {
            return Err(job);
        }
        state.queue.push_back(job);
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Takes a job back that no thread has begun.
    pub(crate) fn take_back(&self, is_it: impl Fn(&J) -> bool) -> Option<J> {
        let mut state = self.shared.lock();
        let at = state.queue.iter().position(is_it)?;
        state.queue.remove(at)
    }
}

impl<J: Job> Drop for Threads<J> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for thread in self.started.get_mut().drain(..) {
            // Jobs do not panic; if one did, there is nothing to tell.
            let _ = thread.join();
        }
    }
}

fn spawn<J: Job>(shared: Arc<Shared<J>>, kind: Kind) -> Option<thread::JoinHandle<()>> {
    let mut builder = thread::Builder::new().name(kind.name.into());
    if let Some(stack) = kind.stack {
        builder = builder.stack_size(stack);
    }
    if kind.signals {
        return builder.spawn(move || work(&shared, kind.idle)).ok();
    }
    // A new thread starts with the signals of its maker blocked, so that signals go to the program's own threads.
    // SAFETY: the sets are locals, filled by the calls; only this thread's mask changes, and it is put back.
    unsafe {
        let (mut all, mut old) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let thread = builder.spawn(move || work(&shared, kind.idle));
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, ptr::null_mut());
        thread.ok()
    }
}

fn work<J: Job>(shared: &Shared<J>, patience: Duration) {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.queue.pop_front() {
            drop(state);
            job.run();
            state = shared.lock();
            continue;
        }
        if state.closed {
            break;
        }
        state.idle += 1;
        let (woken, timeout) = shared.work.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        if timeout.timed_out() && state.queue.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}
