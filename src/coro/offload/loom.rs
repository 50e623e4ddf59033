//! Checked by loom: a job on a frame is not touched any more when it is done.

use super::*;
use crate::sys::concurrent::{check, thread};

/// A job's address, on its way to a thread.
struct Address(*const (), unsafe fn(*const ()));

// SAFETY: the test waits until the job is done.
unsafe impl Send for Address {}

impl Address {
    fn of<F: FnOnce() -> T, T>(job: &Job<F, T>) -> Address {
        Address((&raw const *job).cast(), Job::<F, T>::run)
    }

    fn run(self) {
        // SAFETY: the job stays until it is done, and is run once.
        unsafe { (self.1)(self.0) };
    }
}

#[test]
fn the_frame_of_a_job_may_go_when_it_is_done() {
    check(|| {
        let job = Job::new(|| 7);
        job.wake.set(Wake::current(Ender::Threads).ok());
        let address = Address::of(&job);
        let worker = ::loom::thread::spawn(move || address.run());
        while !job.done.load(Ordering::Acquire) {
            thread::park();
        }
        // Loom notices if the other thread uses any of these at the same time.
        assert!(job.f.take().is_none() && job.wake.take().is_none());
        assert_eq!(job.result.into_inner().unwrap().unwrap(), 7);
        worker.join().unwrap();
    });
}
