//! Checked by loom: every job is done once, whatever threads come and go.

use super::*;
use crate::sys::concurrent::{AtomicUsize, check};
use std::sync::atomic::Ordering::Relaxed;

struct Count(Arc<AtomicUsize>);

impl Job for Count {
    fn run(self) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn threads(max: usize, each: bool) -> Threads<Count> {
    let idle = Duration::from_secs(1);
    Threads::new(Kind { name: "model", max, idle, stack: None, signals: true, each })
}

#[test]
fn jobs_are_done_though_idle_threads_go() {
    check(|| {
        let done = Arc::new(AtomicUsize::new(0));
        let threads = threads(1, false);
        assert!(threads.give(Count(done.clone())).is_ok());
        let shared = threads.shared.clone();
        let clock = ::loom::thread::spawn(move || shared.work.let_time_pass());
        assert!(threads.give(Count(done.clone())).is_ok());
        clock.join().unwrap();
        drop(threads);
        assert_eq!(done.load(Relaxed), 2);
    });
}

#[test]
fn a_job_that_is_taken_back_is_not_done() {
    check(|| {
        let done = Arc::new(AtomicUsize::new(0));
        let threads = threads(1, false);
        assert!(threads.give(Count(done.clone())).is_ok());
        assert!(threads.give(Count(done.clone())).is_ok());
        let taken = usize::from(threads.take_back(|_| true).is_some());
        drop(threads);
        assert_eq!(done.load(Relaxed), 2 - taken);
    });
}

#[test]
fn two_threads_share_the_jobs() {
    check(|| {
        let done = Arc::new(AtomicUsize::new(0));
        let threads = threads(2, true);
        for _ in 0..2 {
            assert!(threads.give(Count(done.clone())).is_ok());
        }
        drop(threads);
        assert_eq!(done.load(Relaxed), 2);
    });
}
