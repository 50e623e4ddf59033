//! What tests of tasks and of what they wait for share.
#![allow(dead_code)]

use aio::{Error, coro};
use std::time::Duration;

pub fn soon() -> Duration {
    Duration::from_millis(1)
}

/// Gives up a wait that nothing ends in every way that there is; `wait` finds its primitive blocked each time.
#[track_caller]
pub fn give_up(wait: impl Fn() -> Result<(), Error>) {
    let wait = &wait;
    coro::scope(|s| {
        let task = s.spawn(wait);
        assert!(!task.is_finished());
        task.cancel();
        assert_eq!(task.join().unwrap(), Err(Error::Canceled), "cancelled while it waits");
        let task = s.spawn(|| {
            assert_eq!(coro::park(0), Err(Error::Canceled));
            wait()
        });
        task.cancel();
        assert_eq!(task.join().unwrap(), Err(Error::Canceled), "cancelled before");
        // Several at once, from the middle of the queue.
        let tasks: Vec<_> = (0..5).map(|_| s.spawn(wait)).collect();
        for i in [2, 0, 4, 3, 1] {
            tasks[i].cancel();
            coro::yield_now().unwrap();
        }
        for task in tasks {
            assert_eq!(task.join().unwrap(), Err(Error::Canceled));
        }
    });
    assert_eq!(coro::timeout(soon(), wait), Err(Error::TimedOut));
    assert_eq!(coro::timeout(Duration::ZERO, wait), Err(Error::TimedOut));
    assert_eq!(coro::no_suspend(wait), Err(Error::NoSuspend));
    assert_eq!(aio::Config::new().run(wait).unwrap(), Err(Error::WrongRuntime));
    assert_eq!(wait(), Err(Error::Deadlock));
}
