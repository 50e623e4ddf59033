//! Threads for what has no readiness: disks, and paths to them.

use crate::{Errno, driver::perform, error::SetupCall, op::RawOp, sys};
use std::{
    collections::VecDeque,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How many worker threads an engine may have, and how long an idle one stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerLimits {
    pub(crate) max: usize,
    pub(crate) idle: Duration,
}

/// Stack of a worker: system calls and little else.
const STACK: usize = 128 << 10;

/// The workers of one engine. They are started on demand.
pub(super) struct Workers {
    shared: Arc<Shared>,
    limits: WorkerLimits,
    threads: Vec<thread::JoinHandle<()>>,
    /// Jobs given and not taken back as done.
    busy: usize,
    /// Results taken from the workers and not yet handed out.
    done: Vec<(usize, i32)>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Read end and write end of what wakes the engine; on Linux they are one.
    bell: [RawFd; 2],
    _owned: [Option<OwnedFd>; 2],
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    done: Vec<(usize, i32)>,
    idle: usize,
    threads: usize,
    closed: bool,
}

struct Job {
    slot: usize,
    op: RawOp,
    progress: u32,
}

// SAFETY: the pointers of the operation stay valid until the job is done, whichever thread does it, and the engine's
// thread does not touch what they point to meanwhile: that is the contract of `RawOp` and of `Workers::give`.
unsafe impl Send for Job {}

/// Performs what an operation has left to do, on whatever thread this is. A signal does not end it; a ring's operations
/// are not disturbed by signals either. (But for `close`, whose descriptor is gone even so.)
///
/// # Safety
/// As [`perform::now`].
pub(super) unsafe fn perform(op: &RawOp, progress: u32) -> i32 {
    loop {
        // SAFETY: promised by the caller.
        let result = unsafe { if progress > 0 { perform::transfer(op, progress) } else { perform::now(op) } };
        if result != -libc::EINTR || matches!(op, RawOp::Close { .. }) {
            return result;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the engine.
    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the bytes are a local. A full pipe or counter needs no further ring.
        unsafe { libc::write(self.bell[1], one.as_ptr().cast(), sys::SEMAPHORE_UNIT) };
    }

    fn silence(&self) {
        let mut buffer = [0u8; 64];
        let unit = sys::SEMAPHORE_UNIT.max(1);
        // SAFETY: the buffer is a local. The descriptor does not block.
        while unsafe { libc::read(self.bell[0], buffer.as_mut_ptr().cast(), buffer.len() / unit * unit) } > 0 {}
    }
}

impl Workers {
    pub(super) fn new(limits: WorkerLimits) -> Result<Workers, (SetupCall, Errno)> {
        let bell = sys::semaphore().map_err(|error| (SetupCall::EventFd, Errno::new(-error)))?;
        // SAFETY: just made, and owned by nobody else; a pair that is one descriptor is owned once.
        let owned = unsafe {
            let second = (bell[0] != bell[1]).then(|| OwnedFd::from_raw_fd(bell[1]));
            [Some(OwnedFd::from_raw_fd(bell[0])), second]
        };
        let shared = Shared { state: Mutex::default(), work: Condvar::new(), bell, _owned: owned };
        Ok(Workers { shared: Arc::new(shared), limits, threads: Vec::new(), busy: 0, done: Vec::new() })
    }

    /// The descriptor that is readable when a job is done.
    pub(super) fn doorbell(&self) -> RawFd {
        self.shared.bell[0]
    }

    /// Jobs that are not done, or whose result was not taken.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Hands a job over. `false` if there may be no worker, or none could be started: the caller does it then.
    ///
    /// # Safety
    /// What the operation points to stays valid and untouched until the job is taken back or done.
    pub(super) unsafe fn give(&mut self, slot: usize, op: RawOp, progress: u32) -> bool {
        let mut state = self.shared.lock();
        if state.idle <= state.queue.len() && state.threads < self.limits.max {
            self.threads.retain(|thread| !thread.is_finished());
            if let Some(thread) = spawn(self.shared.clone(), self.limits.idle) {
                self.threads.push(thread);
                state.threads += 1;
            }
        }
        if state.threads == 0 {
            return false;
        }
        state.queue.push_back(Job { slot, op, progress });
        drop(state);
        self.shared.work.notify_one();
        self.busy += 1;
        true
    }

    /// Takes a job back that no worker has begun.
    pub(super) fn take_back(&mut self, slot: usize) -> bool {
        let mut state = self.shared.lock();
        let Some(at) = state.queue.iter().position(|job| job.slot == slot) else { return false };
        state.queue.remove(at);
        self.busy -= 1;
        true
    }

    /// The next job that is done: its slot and its result.
    pub(super) fn take_done(&mut self) -> Option<(usize, i32)> {
        if self.busy == 0 {
            return None;
        }
        if self.done.is_empty() {
            let mut state = self.shared.lock();
            if state.done.is_empty() {
                return None;
            }
            std::mem::swap(&mut state.done, &mut self.done);
            self.shared.silence();
        }
        self.busy -= 1;
        self.done.pop()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker does not panic; if it did, there is nothing to tell.
            let _ = thread.join();
        }
    }
}

fn spawn(shared: Arc<Shared>, idle: Duration) -> Option<thread::JoinHandle<()>> {
    // A new thread starts with the signals of its maker blocked, so that signals go to the program's own threads.
    // SAFETY: the sets are locals, filled by the calls; only this thread's mask changes, and it is put back.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let thread =
            thread::Builder::new().name("aio-worker".into()).stack_size(STACK).spawn(move || work(&shared, idle));
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        thread.ok()
    }
}

fn work(shared: &Shared, patience: Duration) {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.queue.pop_front() {
            drop(state);
            // SAFETY: promised by whoever gave the job.
            let result = unsafe { perform(&job.op, job.progress) };
            state = shared.lock();
            state.done.push((job.slot, result));
            if state.done.len() == 1 {
                shared.ring();
            }
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
