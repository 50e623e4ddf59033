//! What loom has, in the form in which this library uses it.

use crate::Result;
pub(crate) use loom::{
    cell::Cell,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicUsize},
    },
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{LockResult, OnceLock, atomic::Ordering::SeqCst},
    time::Duration,
};

/// Loom's, for constants as well: those are made before there is a model that it could belong to.
pub(crate) struct Mutex<T> {
    initial: std::sync::Mutex<Option<T>>,
    lock: OnceLock<loom::sync::Mutex<T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex { initial: std::sync::Mutex::new(Some(value)), lock: OnceLock::new() }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let make = || loom::sync::Mutex::new(self.initial.lock().unwrap().take().unwrap());
        self.lock.get_or_init(make).lock()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

/// Loom knows no time. Here it passes when a test says so.
pub(crate) struct Condvar {
    condvar: loom::sync::Condvar,
    late: std::sync::atomic::AtomicBool,
}

pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar { condvar: loom::sync::Condvar::new(), late: false.into() }
    }

    pub(crate) fn notify_one(&self) {
        self.condvar.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.condvar.notify_all();
    }

    /// Ends all waits with a time, present and future ones.
    pub(crate) fn let_time_pass(&self) {
        self.late.store(true, SeqCst);
        self.condvar.notify_all();
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let guard = if self.late.load(SeqCst) { guard } else { self.condvar.wait(guard).unwrap() };
        Ok((guard, WaitTimeoutResult(self.late.load(SeqCst))))
    }
}

/// A semaphore without a descriptor.
pub(crate) struct EventSource {
    count: loom::sync::Mutex<u64>,
    more: loom::sync::Condvar,
}

impl EventSource {
    pub(crate) fn new() -> Result<EventSource> {
        Ok(EventSource { count: loom::sync::Mutex::new(0), more: loom::sync::Condvar::new() })
    }

    pub(crate) fn notify(&self) {
        *self.count.lock().unwrap() += 1;
        self.more.notify_all();
    }

    pub(crate) fn try_wait(&self) -> Result<bool> {
        let mut count = self.count.lock().unwrap();
        let some = *count > 0;
        *count -= u64::from(some);
        Ok(some)
    }

    /// Waits until the descriptor would be readable. If it never is, loom tells of a deadlock.
    pub(crate) fn wait_readable(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.more.wait(count).unwrap();
        }
    }

    /// As an operation that reads it.
    pub(crate) fn wait(&self) {
        self.wait_readable();
        assert!(self.try_wait().unwrap(), "one thread reads it");
    }
}

/// For operations, which no model runs.
impl std::ops::Deref for EventSource {
    type Target = crate::op::EventSource;

    fn deref(&self) -> &crate::op::EventSource {
        unreachable!("a model has no descriptor")
    }
}

impl AsFd for EventSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("a model has no descriptor")
    }
}

/// Loom's threads, for the way in which std's are used here.
pub(crate) mod thread {
    use super::Condvar;
    pub(crate) use std::thread::{Result, panicking};
    use std::{sync::Arc, time::Duration};

    /// Not loom's own, for there whoever is unparked sees what was done before even if it has not parked.
    #[derive(Clone)]
    pub(crate) struct Thread(Arc<(loom::sync::Mutex<bool>, Condvar)>);

    loom::thread_local! {
        static CURRENT: Thread = Thread(Arc::new((loom::sync::Mutex::new(false), Condvar::new())));
    }

    pub(crate) fn current() -> Thread {
        CURRENT.with(Thread::clone)
    }

    pub(crate) fn park() {
        let Thread(thread) = current();
        let mut unparked = thread.0.lock().unwrap();
        while !*unparked {
            unparked = thread.1.wait_timeout(unparked, Duration::MAX).unwrap().0;
        }
        *unparked = false;
    }

    impl Thread {
        pub(crate) fn unpark(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_all();
        }
    }

    pub(crate) struct Builder(loom::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Builder {
            Builder(loom::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Builder {
            Builder(self.0.name(name))
        }

        pub(crate) fn stack_size(self, _size: usize) -> Builder {
            self
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            f: impl FnOnce() -> T + Send + 'static,
        ) -> std::io::Result<JoinHandle<T>> {
            self.0.spawn(f).map(JoinHandle)
        }
    }

    pub(crate) struct JoinHandle<T>(loom::thread::JoinHandle<T>);

    impl<T> JoinHandle<T> {
        pub(crate) fn join(self) -> Result<T> {
            self.0.join()
        }

        /// It is asked for only to keep fewer of them.
        pub(crate) fn is_finished(&self) -> bool {
            false
        }
    }
}

/// Runs `f` in all orders of its threads in which not more than three times one is interrupted where it could go on.
pub(crate) fn check(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}
