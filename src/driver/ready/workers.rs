//! Threads for what has no readiness: disks, and paths to them.

use crate::{
    Errno, Error,
    driver::{fault::Faults, perform},
    error::SetupCall,
    op::RawOp,
    sys::{
        self,
        concurrent::{EventSource, Mutex, MutexGuard},
    },
    threads::{self, Kind, Threads},
};
use std::{
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

#[cfg(all(loom, test))]
mod loom;

/// How many worker threads an engine may have, and how long an idle one stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerLimits {
    pub(crate) max: usize,
    pub(crate) idle: Duration,
}

/// Stack of a worker: system calls and little else.
const STACK: usize = 128 << 10;

/// The workers of one engine.
pub(super) struct Workers {
    threads: Threads<Job>,
    /// One for each wait that may last, and what tells it to stop.
    waits: Threads<Job>,
    stops: Vec<(usize, Arc<AtomicU32>)>,
    results: Arc<Results>,
    /// Jobs given and not taken back as done.
    busy: usize,
    /// Results taken from the workers and not yet handed out.
    done: Vec<(usize, i32)>,
    faults: Faults,
}

/// What the workers have done, and what tells the engine.
struct Results {
    done: Mutex<Vec<(usize, i32)>>,
    /// Wakes the engine.
    bell: EventSource,
}

struct Job {
    slot: usize,
    op: RawOp,
    progress: u32,
    /// Ends the wait for a futex.
    stop: Option<Arc<AtomicU32>>,
    results: Arc<Results>,
    faults: Faults,
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
    if let RawOp::FutexWait { word, value } = *op {
        // The thread has nothing else to do, and nobody else can end the wait.
        // SAFETY: promised by the caller.
        return unsafe { sys::futex_wait(word, value, &AtomicU32::new(0)) };
    }
    loop {
        // SAFETY: promised by the caller.
        let result = unsafe { if progress > 0 { perform::transfer(op, progress) } else { perform::now(op) } };
        if result != -libc::EINTR || matches!(op, RawOp::Close { .. }) {
            return result;
        }
    }
}

impl threads::Job for Job {
    fn run(mut self) {
        self.faults.delay();
        // SAFETY: promised by whoever gave the job.
        let result = unsafe {
            match (self.op, &self.stop) {
                (RawOp::FutexWait { word, value }, Some(stop)) => sys::futex_wait(word, value, stop),
                (op, _) => self.faults.within(|| perform(&op, self.progress)),
            }
        };
        self.results.put(self.slot, result);
    }
}

impl Results {
    fn lock(&self) -> MutexGuard<'_, Vec<(usize, i32)>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, slot: usize, result: i32) {
        let mut done = self.lock();
        done.push((slot, result));
        if done.len() == 1 {
            self.bell.notify();
        }
    }

    /// Fills `into`, which is empty, with what is there; that is told once.
    fn take(&self, into: &mut Vec<(usize, i32)>) {
        let mut done = self.lock();
        if !done.is_empty() {
            std::mem::swap(&mut *done, into);
            while let Ok(true) = self.bell.try_wait() {}
        }
    }
}

impl Workers {
    pub(super) fn new(limits: WorkerLimits) -> Result<Workers, (SetupCall, Errno)> {
        let errno = |error: Error| Errno::new(error.raw_os_error().unwrap_or(libc::ENOMEM));
        let bell = EventSource::new().map_err(|error| (SetupCall::EventFd, errno(error)))?;
        let results = Results { done: Mutex::default(), bell };
        let WorkerLimits { max, idle } = limits;
        let kind = Kind { name: "aio-worker", max, idle, stack: Some(STACK), signals: false, each: false };
        Ok(Workers {
            threads: Threads::new(kind),
            waits: Threads::new(Kind { name: "aio-futex", max: usize::MAX, each: true, ..kind }),
            stops: Vec::new(),
            results: Arc::new(results),
            busy: 0,
            done: Vec::new(),
            faults: Faults::NONE,
        })
    }

    #[cfg(feature = "faults")]
    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The descriptor that is readable when a job is done.
    pub(super) fn doorbell(&self) -> RawFd {
        self.results.bell.as_fd().as_raw_fd()
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
        let stop = matches!(op, RawOp::FutexWait { .. }).then(|| Arc::new(AtomicU32::new(0)));
        let threads = if stop.is_some() { &self.waits } else { &self.threads };
        let job =
            Job { slot, op, progress, stop: stop.clone(), results: self.results.clone(), faults: self.faults.split() };
        let given = threads.give(job).is_ok();
        if given {
            self.busy += 1;
            self.stops.extend(stop.map(|stop| (slot, stop)));
        }
        given
    }

    /// Asks for the end of the wait for a futex. The job is done soon, with or without a result.
    pub(super) fn stop_wait(&self, slot: usize) {
        if let Some((_, stop)) = self.stops.iter().find(|wait| wait.0 == slot) {
            stop.store(1, Ordering::Release);
            sys::futex_wake(&**stop, 1);
        }
    }

    /// The thread of a wait is done with it.
    fn forget_wait(&mut self, slot: usize) {
        if let Some(at) = self.stops.iter().position(|wait| wait.0 == slot) {
            self.stops.swap_remove(at);
        }
    }

    /// Takes a job back that no worker has begun.
    pub(super) fn take_back(&mut self, slot: usize) -> bool {
        let is_it = |job: &Job| job.slot == slot;
        let taken = self.threads.take_back(is_it).is_some() || self.waits.take_back(is_it).is_some();
        if taken {
            self.busy -= 1;
            self.forget_wait(slot);
        }
        taken
    }

    /// The next job that is done: its slot and its result.
    pub(super) fn take_done(&mut self) -> Option<(usize, i32)> {
        if self.busy == 0 {
            return None;
        }
        if self.done.is_empty() {
            self.results.take(&mut self.done);
        }
        let (slot, result) = self.done.pop()?;
        self.busy -= 1;
        self.forget_wait(slot);
        Some((slot, result))
    }
}
