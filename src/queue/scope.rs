//! Queues that are lent to a closure, so that what is submitted may borrow.

use super::Queue;
use crate::{Config, SetupError};
use std::{
    marker::PhantomData,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// A queue that is lent to a closure by [`Queue::scope`]. Everything that a [`Queue`] can do it does.
pub struct Scope<'scope, 'env: 'scope, E, const PLACE: usize> {
    queue: Queue<'scope, E, PLACE>,
    _environment: PhantomData<&'env mut &'env ()>,
}

impl<'scope, E, const PLACE: usize> Deref for Scope<'scope, '_, E, PLACE> {
    type Target = Queue<'scope, E, PLACE>;

    fn deref(&self) -> &Queue<'scope, E, PLACE> {
        &self.queue
    }
}

impl<E, const PLACE: usize> std::fmt::Debug for Scope<'_, '_, E, PLACE> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.queue.fmt(f)
    }
}

impl<E> Queue<'_, E> {
    /// Lends a queue to a closure. What is submitted to it may borrow whatever outlives this call, and mappers may use
    /// the queue itself.
    ///
    /// When the closure returns or panics, what is still in flight is cancelled and waited for, before this goes on.
    ///
    /// ```
    /// use aio::{Queue, op::Read, queue::Done};
    ///
    /// let file = std::fs::File::open("Cargo.toml")?;
    /// let (mut a, mut b) = ([0u8; 9], [0u8; 9]);
    /// Queue::scope(4, |queue| {
    ///     queue.submit(Read::new(&file, &mut a).at(0), |done: Done<_>| done.result)?;
    ///     queue.submit(Read::new(&file, &mut b).at(0), |done: Done<_>| done.result)?;
    ///     for (_, read) in queue.wait(2)? {
    ///         assert_eq!(read?, 9);
    ///     }
    ///     std::io::Result::Ok(())
    /// })??;
    /// assert_eq!((&a, &b), (b"[package]", b"[package]"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// A buffer is borrowed until the scope ends, or its operation has come back:
    ///
    /// ```compile_fail,E0499
    /// use aio::{Queue, op::Recv};
    /// let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
    /// let mut buffer = [0u8; 8];
    /// Queue::scope(2, |queue| {
    ///     queue.submit(Recv::new(&a, &mut buffer), |_| ()).unwrap();
    ///     queue.submit(Recv::new(&a, &mut buffer), |_| ()).unwrap();
    /// });
    /// ```
    ///
    /// Nothing that the closure itself owns can be borrowed, for it ends before the operations do:
    ///
    /// ```compile_fail,E0597
    /// use aio::{Queue, op::Recv};
    /// let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
    /// Queue::scope(2, |queue| {
    ///     let mut buffer = [0u8; 8];
    ///     queue.submit(Recv::new(&a, &mut buffer), |_| ()).unwrap();
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Queue::new`]; `f` was not called then.
    pub fn scope<'env, R>(
        capacity: u32,
        f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env, E, { super::ROOM }>) -> R,
    ) -> Result<R, SetupError> {
        scoped(capacity, Config::default_for_process()?, f)
    }
}

impl<E, const PLACE: usize> Queue<'_, E, PLACE> {
    /// As [`scope`](Queue::scope), with places of `PLACE` bytes, on a chosen engine.
    ///
    /// # Errors
    ///
    /// As [`Queue::new`]; `f` was not called then.
    pub fn scope_with_config<'env, R>(
        capacity: u32,
        config: Config,
        f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env, E, PLACE>) -> R,
    ) -> Result<R, SetupError> {
        scoped(capacity, config, f)
    }
}

fn scoped<'env, E, R, const PLACE: usize>(
    capacity: u32,
    config: Config,
    f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env, E, PLACE>) -> R,
) -> Result<R, SetupError> {
    let scope = Scope { queue: Queue::make(capacity, config)?, _environment: PhantomData };
    let scope = Box::into_raw(Box::new(scope));
    // SAFETY: just made, and taken back below, when the closure has ended and nobody can use the reference any more.
    let result = catch_unwind(AssertUnwindSafe(|| f(unsafe { &*scope })));
    // What is dropped with the queue may use the reference still, so this goes before the scope is anybody's own.
    // SAFETY: as above.
    let closed = catch_unwind(AssertUnwindSafe(|| unsafe { (*scope).queue.close_if_alive() }));
    // SAFETY: made by `Box::into_raw`. Dropping it ends what is in flight, before what that borrows can go. In a forked
    // child the queue leaks.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(scope) })));
    match (result, closed.and(dropped)) {
        (Ok(value), Ok(())) => Ok(value),
        (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
    }
}
