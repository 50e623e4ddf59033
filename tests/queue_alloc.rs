//! A queue allocates nothing between its making and its end.

#[path = "common/allocations.rs"]
mod allocations;
mod common;

use aio::{Config, PooledBuf, Queue, Result, op::*, queue::*};
use allocations::allocations;
use common::*;
use std::{cell::Cell, fs::File, io::Write as _, os::unix::net::UnixStream, rc::Rc, sync::Arc, time::Duration};

const ROUNDS: usize = 100_000;

/// Pumps, after a while in which everything grows to what it needs, and counts allocations of this thread.
#[track_caller]
fn allocates_nothing(config: Config, what: &str, mut pump: impl FnMut(usize)) {
    pump(ROUNDS / 20);
    let before = allocations();
    pump(ROUNDS);
    let count = allocations() - before;
    let backend = config.run(|| (aio::single(Nop::new()).unwrap(), aio::stats().backend).1.unwrap()).unwrap();
    assert_eq!(count, 0, "{what} on {backend}");
}

#[test]
fn pumping_nops_allocates_nothing() {
    each_queue(|config| {
        let queue: Queue<Result<()>> = queue(16, config);
        allocates_nothing(config, "nops", |rounds| {
            for _ in 0..rounds / 16 {
                (0..16).for_each(|_| drop(queue.submit(Nop::new(), |done| done.result)));
                assert_eq!(queue.wait(16).unwrap().count(), 16);
            }
        });
        allocates_nothing(config, "chains", |rounds| {
            for _ in 0..rounds / 8 {
                let chain = || (Nop::new().link(), Nop::new());
                (0..4).for_each(|_| drop(queue.submit_chain(chain(), (|done| done.result, |done| done.result))));
                assert_eq!(queue.wait(8).unwrap().count(), 8);
            }
        });
    });
}

#[test]
fn a_buffer_that_circulates_is_the_only_one() {
    type Event = Done<Read<Arc<File>, Vec<u8>>>;
    each_queue(|config| {
        let queue: Queue<Event> = queue(8, config);
        let file = Arc::new(file_with(&[7; 4096]));
        for _ in 0..8 {
            queue.submit(Read::new(file.clone(), vec![0; 512]).at(0), |done| done).unwrap();
        }
        allocates_nothing(config, "reads", |rounds| {
            let mut count = 0;
            while count < rounds / 4 {
                for (_, done) in queue.wait(1).unwrap() {
                    assert_eq!(done.result, Ok(512));
                    queue.submit(done.op, |done| done).unwrap();
                    count += 1;
                }
            }
        });
    });
}

#[test]
fn timers_and_callbacks_allocate_nothing() {
    each_queue(|config| {
        let queue: Queue<Result<()>> = queue(8, config);
        allocates_nothing(config, "timers", |rounds| {
            for _ in 0..rounds / 32 {
                let timer = || Timeout::after(Duration::from_nanos(1));
                (0..8).for_each(|_| drop(queue.submit(timer(), |done| done.result)));
                assert_eq!(queue.wait(8).unwrap().count(), 8);
            }
        });
        let count = Rc::new(Cell::new(0));
        let calls = count.clone();
        queue
            .submit_callback(Nop::new(), move |_, done| {
                calls.set(calls.get() + 1);
                Then::Again(done.op)
            })
            .unwrap();
        allocates_nothing(config, "callbacks", |rounds| {
            let end = count.get() + rounds;
            while count.get() < end {
                assert_eq!(queue.wait(1).unwrap().count(), 0);
            }
        });
    });
}

#[test]
fn receiving_into_pooled_buffers_allocates_nothing() {
    each_queue(|config| {
        let queue: Queue<Result<PooledBuf>> = queue(8, config);
        let pool = queue.buf_pool(16, 64).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        queue.submit_multi(RecvMulti::new(a, &pool), |shot| shot.result).unwrap();
        allocates_nothing(config, "received", |rounds| {
            for _ in 0..rounds / 4 {
                b.write_all(b"abc").unwrap();
                let mut count = 0;
                while count < 3 {
                    count += queue.wait(1).unwrap().map(|(_, bytes)| bytes.unwrap().len()).sum::<usize>();
                }
            }
        });
    });
}
