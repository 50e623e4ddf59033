//! Cancelling in a queue, and its chains.

mod common;

use aio::{Closing, Error, Queue, Result, op::*, queue::*};
use common::*;
use std::{
    cell::Cell,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

fn tick(millis: u64) -> Timeout {
    Timeout::after(Duration::from_millis(millis))
}

/// What was the result, with the names that chains have for it.
fn show<O: Op>(done: Done<O>) -> String
where
    O::Value: std::fmt::Debug,
{
    match done.result {
        Ok(value) => format!("{value:?}"),
        Err(Error::Os(errno)) => format!("errno {}", errno.raw()),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn a_cancel_ends_the_operation_that_it_names_and_no_other() {
    each_queue(|config| {
        let queue = queue(8, config);
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        let mut tokens: Vec<Token> = Vec::new();
        for (a, _) in &pairs {
            let recv = Recv::new(a.try_clone().unwrap(), vec![0; 4]);
            tokens.push(queue.submit(recv, |done| done.result).unwrap());
        }
        let (output, input) = pipe();
        tokens.push(queue.submit(Read::new(output, vec![0; 4]), |done| done.result).unwrap());
        tokens.push(queue.submit(Timeout::after(NEVER), |done| done.result.map(|()| 0)).unwrap());
        let poll = Poll::new(pairs[0].0.try_clone().unwrap(), PollEvents::IN);
        tokens.push(queue.submit(poll, |done| done.result.map(|_| 0)).unwrap());
        // Some before the engine has seen them, some after, each twice.
        for (round, at) in [1, 4, 0, 3, 5, 2].into_iter().enumerate() {
            queue.cancel(tokens[at]).unwrap();
            queue.cancel(tokens[at]).unwrap();
            assert_eq!(queue.wait(1).unwrap().next(), Some((tokens[at], Err(Error::Canceled))));
            assert_eq!(queue.cancel(tokens[at]), os(libc::ENOENT));
            assert_eq!(queue.len(), 5 - round);
            assert_eq!(taken(&queue), []);
        }
        drop(input);
    });
}

#[test]
fn a_result_that_is_there_is_not_changed_by_a_cancel() {
    each_queue(|config| {
        let (queue, (a, mut b)) = (queue(8, config), UnixStream::pair().unwrap());
        b.write_all(b"abc").unwrap();
        let recv = queue.submit(Recv::new(a, vec![0; 4]), |done| done.result).unwrap();
        let nop = queue.submit(Nop::new(), |done| done.result.map(|()| 7)).unwrap();
        drop(queue.wait(2).unwrap());
        for token in [recv, nop] {
            queue.cancel(token).unwrap();
        }
        queue.cancel_all();
        assert_eq!(taken(&queue), [Ok(3), Ok(7)]);
    });
}

#[test]
fn tokens_of_other_queues_and_of_earlier_times_name_nothing() {
    each_queue(|config| {
        let (queue, other) = (queue(1, config), queue(1, config));
        let foreign = other.submit(Timeout::after(NEVER), |done| done.result).unwrap();
        let mut stale = Vec::new();
        for round in 0..100_000 {
            let token = queue.submit(Nop::new(), |done| done.result).unwrap();
            assert_eq!(queue.wait(1).unwrap().next(), Some((token, Ok(()))));
            if round % 1000 == 0 {
                stale.push(token);
            }
        }
        let token = queue.submit(Timeout::after(NEVER), |done| done.result).unwrap();
        for old in stale {
            assert_eq!(queue.cancel(old), os(libc::ENOENT));
        }
        assert!(matches!(queue.cancel(foreign), Err(Error::Invalid(_))));
        assert!(matches!(other.cancel(token), Err(Error::Invalid(_))));
        assert_eq!((taken(&queue), taken(&other)), (vec![], vec![]));
        queue.cancel(token).unwrap();
        other.cancel(foreign).unwrap();
        assert_eq!((drained(&queue), drained(&other)), (vec![Err(Error::Canceled)], vec![Err(Error::Canceled)]));
    });
}

#[test]
fn a_cancel_by_descriptor_means_its_number_and_one_of_everything_means_all() {
    each_queue(|config| {
        let queue = queue(16, config);
        let (a, mut b) = UnixStream::pair().unwrap();
        let (a, copy) = (Arc::new(a), Arc::new(b.try_clone().unwrap()));
        let mut ended = Vec::new();
        for number in 0..3 {
            queue.submit(Recv::new(a.clone(), vec![0; 1]), move |done| (number, done.result)).unwrap();
        }
        queue.submit(Recv::new(copy.clone(), vec![0; 1]), |done| (3, done.result)).unwrap();
        queue.submit_multi(PollMulti::new(a.clone(), PollEvents::IN), |shot| (4, shot.result.map(|_| 0))).unwrap();
        assert_eq!(taken(&queue), []);
        assert_eq!(queue.cancel_fd(&b), 0, "the same socket, another number");
        assert_eq!(queue.cancel_fd(&a), 4);
        while ended.len() < 4 {
            ended.extend(queue.wait(1).unwrap().map(|(_, event)| event));
        }
        ended.sort_by_key(|&(number, _)| number);
        assert_eq!(ended, [0, 1, 2, 4].map(|number| (number, Err(Error::Canceled))));
        assert_eq!((queue.len(), queue.cancel_fd(&a)), (1, 0));
        queue.submit(Timeout::after(NEVER), |done| (5, done.result.map(|()| 0))).unwrap();
        queue.submit_multi(TimeoutMulti::every(NEVER), |shot| (6, shot.result.map(|()| 0))).unwrap();
        assert_eq!(queue.cancel_all(), 3);
        let mut ended = drained(&queue);
        ended.sort_by_key(|&(number, _)| number);
        assert_eq!(ended, [3, 5, 6].map(|number| (number, Err(Error::Canceled))));
        assert_eq!(queue.cancel_all(), 0);
        // The descriptors are as they were.
        (&*a).write_all(b"x").unwrap();
        b.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn ten_thousand_races_of_a_cancel_and_a_result_end_each_operation_once() {
    const ROUNDS: u32 = 10_000;
    each_queue(|config| {
        let (queue, (a, mut b)) = (queue(4, config), UnixStream::pair().unwrap());
        let started = Arc::new(AtomicU32::new(0));
        let go = started.clone();
        let writer = thread::spawn(move || {
            for round in 0..ROUNDS {
                while go.load(SeqCst) <= round {
                    thread::yield_now();
                }
                b.write_all(&[round as u8]).unwrap();
            }
            b
        });
        let (mut recv, mut random, mut canceled) = (Recv::new(a, vec![0u8; 1]), Random(1), 0);
        for round in 0..ROUNDS {
            let token = queue.submit(recv, |done| done).unwrap();
            assert_eq!(queue.poll().unwrap().count(), 0);
            started.store(round + 1, SeqCst);
            (0..random.below(3000)).for_each(|_| std::hint::spin_loop());
            queue.cancel(token).unwrap();
            let mut events = queue.wait(1).unwrap();
            let (which, mut done) = events.next().unwrap();
            assert!(which == token && events.next().is_none() && queue.is_empty());
            assert_eq!(queue.cancel(token), os(libc::ENOENT));
            if done.result == Err(Error::Canceled) {
                canceled += 1;
                queue.submit(done.op, |done| done).unwrap();
                done = queue.wait(1).unwrap().next().unwrap().1;
            }
            assert_eq!((done.result, done.op.buf()[0]), (Ok(1), round as u8), "a byte is lost or came twice");
            recv = done.op;
        }
        eprintln!("{canceled} of {ROUNDS} were cancelled");
        drop(writer.join().unwrap());
    });
}

#[test]
fn timers_that_race_their_cancels_end_once() {
    each_queue(|config| {
        let (queue, mut random, mut ways) = (queue(4, config), Random(7), [0, 0]);
        for _ in 0..2_000 {
            let timer = Timeout::after(Duration::from_nanos(random.below(20_000)));
            let token = queue.submit(timer, |done| done.result).unwrap();
            (0..random.below(300)).for_each(|_| std::hint::spin_loop());
            drop(queue.poll().unwrap());
            queue.cancel(token).unwrap();
            let events: Vec<_> = queue.wait(2).unwrap().collect();
            assert!(events == [(token, Ok(()))] || events == [(token, Err(Error::Canceled))], "{events:?}");
            ways[usize::from(events[0].1.is_err())] += 1;
        }
        assert!(ways[1] > 0);
    });
}

#[test]
fn an_operation_under_a_time_limit_ends_once_and_comes_back() {
    each_queue(|config| {
        let (queue, (a, mut b)) = (queue(4, config), UnixStream::pair().unwrap());
        let recv = Recv::new(a, vec![0u8; 4]).timeout(Duration::from_millis(2));
        queue.submit(recv, |done| done).unwrap();
        let done = queue.wait(1).unwrap().next().unwrap().1;
        assert_eq!(done.result, Err(Error::TimedOut));
        b.write_all(b"abc").unwrap();
        queue.submit(done.op, |done| done).unwrap();
        let done = queue.wait(1).unwrap().next().unwrap().1;
        // The limit is that of each run.
        assert_eq!((done.result, &done.op.into_inner().into_buf()[..3]), (Ok(3), &b"abc"[..]));
    });
}

#[test]
fn the_events_of_a_chain_come_together_and_in_order() {
    each_queue(|config| {
        let queue = queue(8, config);
        let tokens = queue
            .submit_chain(
                (Nop::new().link(), tick(5).hard_link(), Nop::new().link(), tick(1)),
                (|_| "a", |_| "b", |_| "c", |_| "d"),
            )
            .unwrap();
        queue.submit(Nop::new(), |_| "before").unwrap();
        assert_eq!(queue.len(), 5);
        let events: Vec<_> = queue.wait(5).unwrap().collect();
        let names: Vec<_> = events.iter().map(|&(_, name)| name).collect();
        assert_eq!(names, ["before", "a", "b", "c", "d"]);
        assert!(events[1..].iter().map(|&(token, _)| token).eq(tokens));
        // Taken one at a time, with others submitted in between.
        queue.submit_chain((Nop::new().link(), Nop::new().link(), Nop::new()), (|_| "a", |_| "b", |_| "c")).unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(queue.wait(1).unwrap().next().unwrap().1, name);
            queue.submit(Nop::new(), |_| "later").unwrap();
        }
        assert_eq!(drained(&queue), ["later"; 3]);
    });
}

#[test]
fn a_soft_link_breaks_and_a_hard_one_does_not() {
    each_queue(|config| {
        let queue = queue(8, config);
        let (file, denied) = (Arc::new(file_with(b"abcdef")), Arc::new(write_only()));
        let read = |file: &Arc<File>, len| Read::new(file.clone(), vec![0u8; len]).at(0);
        let run = |events: &[&str]| assert_eq!(drained(&queue), events);
        queue.submit_chain((read(&file, 6).link(), Nop::new()), (show, show)).unwrap();
        run(&["6", "()"]);
        queue.submit_chain((read(&file, 7).link(), Nop::new().link(), Nop::new()), (show, show, show)).unwrap();
        run(&["6", "Skipped", "Skipped"]);
        queue.submit_chain((read(&file, 7).hard_link(), Nop::new()), (show, show)).unwrap();
        run(&["6", "()"]);
        queue.submit_chain((read(&denied, 1).link(), Nop::new()), (show, show)).unwrap();
        run(&["errno 9", "Skipped"]);
        queue
            .submit_chain((read(&denied, 1).hard_link(), Nop::new().link(), read(&denied, 1)), (show, show, show))
            .unwrap();
        run(&["errno 9", "()", "errno 9"]);
        // A break in one chain does not break the next.
        queue.submit_chain((read(&denied, 1).link(), Nop::new()), (show, show)).unwrap();
        queue.submit_chain((Nop::new().link(), Nop::new()), (show, show)).unwrap();
        queue.submit(read(&file, 2), show).unwrap();
        let mut events = drained(&queue);
        events.sort();
        assert_eq!(events, ["()", "()", "2", "Skipped", "errno 9"]);
    });
}

#[test]
fn time_limits_in_chains_break_them_like_errors() {
    each_queue(|config| {
        let (queue, (a, mut b)) = (queue(16, config), UnixStream::pair().unwrap());
        let a = Arc::new(a);
        let recv = || Recv::new(a.clone(), vec![0u8; 4]);
        let soon = Duration::from_millis(2);
        queue.submit_chain((recv().timeout(soon).link(), Nop::new()), (show, show)).unwrap();
        assert_eq!(drained(&queue), ["TimedOut", "Skipped"]);
        queue.submit_chain((recv().timeout(soon).hard_link(), Nop::new()), (show, show)).unwrap();
        assert_eq!(drained(&queue), ["TimedOut", "()"]);
        queue.submit_chain((tick(1).link(), recv().timeout(soon)), (show, show)).unwrap();
        assert_eq!(drained(&queue), ["()", "TimedOut"]);
        b.write_all(b"abcd").unwrap();
        queue.submit_chain((recv().timeout(NEVER).link(), tick(1).timeout(NEVER)), (show, show)).unwrap();
        assert_eq!(drained(&queue), ["4", "()"]);
    });
}

#[test]
fn a_cancel_in_a_chain_ends_what_it_names() {
    each_queue(|config| {
        let (queue, (a, _b)) = (queue(16, config), UnixStream::pair().unwrap());
        let a = Arc::new(a);
        let recv = || Recv::new(a.clone(), vec![0u8; 4]);
        for started in [false, true] {
            let start = || {
                if started {
                    assert_eq!(taken(&queue), [""; 0]);
                }
            };
            let [first, _] = queue.submit_chain((recv().link(), Nop::new()), (show, show)).unwrap();
            start();
            queue.cancel(first).unwrap();
            assert_eq!(drained(&queue), ["Canceled", "Skipped"]);
            let [first, _] = queue.submit_chain((recv().hard_link(), Nop::new()), (show, show)).unwrap();
            start();
            queue.cancel(first).unwrap();
            assert_eq!(drained(&queue), ["Canceled", "()"]);
            let [_, last] = queue.submit_chain((Nop::new().link(), recv()), (show, show)).unwrap();
            start();
            // It may not have started yet, and then nothing happens.
            while queue.wait_until(std::time::Instant::now() + Duration::from_millis(1)).unwrap().len_hint() == 0 {
                queue.cancel(last).unwrap();
            }
            assert_eq!(drained(&queue), ["()", "Canceled"]);
        }
        // What is linked hard to what is cancelled starts all the same, as often as needed.
        queue.submit_chain((recv().hard_link(), recv().hard_link(), recv()), (show, show, show)).unwrap();
        let mut rounds = 0;
        while queue.wait_until(std::time::Instant::now() + Duration::from_millis(1)).unwrap().len_hint() == 0 {
            assert!(queue.cancel_all() > 0);
            rounds += 1;
            assert!(rounds < 5_000);
        }
        assert_eq!(drained(&queue), ["Canceled"; 3]);
    });
}

/// How many events there are, without taking one.
trait LenHint {
    fn len_hint(&self) -> usize;
}

impl<I: Iterator> LenHint for I {
    fn len_hint(&self) -> usize {
        self.size_hint().1.unwrap()
    }
}

#[test]
fn a_chain_is_taken_whole_or_not_at_all() {
    each_queue(|config| {
        let queue: Queue<String> = queue(3, config);
        let (file, drops) = (Arc::new(file_with(b"")), Drops::default());
        let write = || Write::new(file.clone(), "x").at(0);
        let (one, two, three, four) = (drops.one(), drops.one(), drops.one(), drops.one());
        let chain = (write().link(), write().link(), write().link(), write());
        let maps = (
            move |done| (show(done), drop(one)).0,
            move |done| (show(done), drop(two)).0,
            move |done| (show(done), drop(three)).0,
            move |done| (show(done), drop(four)).0,
        );
        let refused = queue.submit_chain(chain, maps).unwrap_err();
        assert!(matches!(refused, NotSubmitted::TooLong(..)) && !refused.is_full());
        assert_eq!((queue.len(), drops.count(), Arc::strong_count(&file)), (0, 0, 5));
        // It fits when it is shorter, but not while something else is there.
        let never = queue.submit(Timeout::after(NEVER), show).unwrap();
        let ((a, b, c, _), (x, y, z, _)) = refused.into_parts();
        drop(c);
        let refused = queue.submit_chain((a, b, write()), (x, y, z)).unwrap_err();
        assert!(refused.is_full() && queue.len() == 1);
        assert_eq!(taken(&queue), [""; 0]);
        assert_eq!(file.metadata().unwrap().len(), 0, "nothing of it has run");
        queue.cancel(never).unwrap();
        assert_eq!(drained(&queue), ["Canceled"]);
        let (chain, maps) = refused.into_parts();
        queue.submit_chain(chain, maps).unwrap();
        assert_eq!(drained(&queue), ["1"; 3]);
        assert_eq!((drops.count(), Arc::strong_count(&file)), (4, 1));
        // A time limit takes an entry of its own.
        let (a, b, c) = (tick(1).timeout(NEVER), tick(1).timeout(NEVER), Nop::new());
        let refused = queue.submit_chain((a.link(), b.link(), c), (show, show, show)).unwrap_err();
        assert!(matches!(refused, NotSubmitted::TooLong(..)));
    });
}

#[test]
fn a_chain_opens_reads_and_closes() {
    each_queue(|config| {
        let (mut bytes, file, closing) = ([0u8; 9], File::open("Cargo.toml").unwrap(), Closing::opening());
        Queue::<String, 512>::scope_with_config(4, config, |queue| {
            for _ in 0..3 {
                queue
                    .submit_chain(
                        (
                            OpenAt::new("Cargo.toml").open_into(&closing).link(),
                            Read::new(&closing, vec![0u8; 9]).at(0).link(),
                            Close::new(&closing),
                        ),
                        (show, |done: Done<Read<_, _>>| String::from_utf8(done.op.into_buf()).unwrap(), show),
                    )
                    .unwrap();
                let events: Vec<_> = queue.wait(3).unwrap().map(|(_, event)| event).collect();
                assert_eq!(events, ["()", "[package]", "()"]);
            }
            queue.submit(Read::new(&file, &mut bytes).at(0), show).unwrap();
            assert_eq!(queue.wait(1).unwrap().next().unwrap().1, "9");
        })
        .unwrap();
        assert_eq!(&bytes, b"[package]");
    });
}

#[test]
fn chains_of_every_length() {
    each_queue(|config| {
        let (queue, count) = (queue(16, config), Rc::new(Cell::new(0)));
        let map = || {
            let count = count.clone();
            move |done: Done<Nop>| {
                assert_eq!(done.result, Ok(()));
                count.set(count.get() + 1);
                count.get()
            }
        };
        let (n, l) = (|| Nop::new(), || Nop::new().link());
        let m = &map;
        queue.submit_chain((l(), n()), (m(), m())).unwrap();
        queue.submit_chain((l(), l(), n()), (m(), m(), m())).unwrap();
        queue.submit_chain((l(), l(), l(), n()), (m(), m(), m(), m())).unwrap();
        queue.submit_chain((l(), l(), l(), l(), n()), (m(), m(), m(), m(), m())).unwrap();
        assert!(drained(&queue).into_iter().eq(1..=14));
        queue.submit_chain((l(), l(), l(), l(), l(), n()), (m(), m(), m(), m(), m(), m())).unwrap();
        queue.submit_chain((l(), l(), l(), l(), l(), l(), n()), (m(), m(), m(), m(), m(), m(), m())).unwrap();
        assert!(drained(&queue).into_iter().eq(15..=27));
        let chain = (l(), l(), l(), l(), l(), l(), l(), n());
        queue.submit_chain(chain, (m(), m(), m(), m(), m(), m(), m(), m())).unwrap();
        assert!(drained(&queue).into_iter().eq(28..=35));
    });
}

#[test]
fn chains_and_single_operations_in_a_crowd_all_come_back() {
    each_queue(|config| {
        let queue: Queue<Result<()>> = queue(64, config);
        let (mut random, mut sent, mut came) = (Random(99), 0, 0);
        while sent < 5_000 {
            let step = match random.below(5) {
                0 => queue.submit(Nop::new(), |done| done.result).map(|_| 1).unwrap_or(0),
                1 => queue.submit(tick(0), |done| done.result).map(|_| 1).unwrap_or(0),
                2 => {
                    let chain = (Nop::new().link(), tick(0).hard_link(), Nop::new());
                    queue.submit_chain(chain, (|d| d.result, |d| d.result, |d| d.result)).map(|_| 3).unwrap_or(0)
                }
                3 => {
                    let chain = (tick(0).timeout(NEVER).link(), Nop::new());
                    queue.submit_chain(chain, (|d| d.result, |d| d.result)).map(|_| 2).unwrap_or(0)
                }
                _ => {
                    for (_, result) in queue.wait(random.below(64) as usize).unwrap().take(random.below(80) as usize) {
                        assert_eq!(result, Ok(()));
                        came += 1;
                    }
                    assert_eq!(queue.len(), sent - came);
                    0
                }
            };
            sent += step;
        }
        assert_eq!(came + drained(&queue).len(), sent);
    });
}

/// A cancel that finds nothing is given again where the kernel has only missed what it was for, and not here.
#[test]
fn a_cancel_before_its_turn_does_nothing_then_nor_later() {
    each_queue(|config| {
        let queue: Queue<Result<usize>> = queue(4, config);
        let [(a, mut first), (b, mut second)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let chain = (Recv::new(a, vec![0; 1]).hard_link(), Recv::new(b, vec![0; 1]));
        let tokens = queue.submit_chain(chain, (|done| done.result, |done| done.result)).unwrap();
        assert!(taken(&queue).is_empty());
        queue.cancel(tokens[1]).unwrap();
        let wait_for_nothing = || {
            let late = Instant::now() + Duration::from_millis(30);
            assert!(queue.wait_until(late).unwrap().next().is_none());
        };
        wait_for_nothing();
        first.write_all(b"x").unwrap();
        wait_for_nothing();
        second.write_all(b"y").unwrap();
        assert_eq!(drained(&queue), [Ok(1), Ok(1)]);
    });
}

#[test]
fn a_cancel_before_its_turn_leaves_the_time_limit_alone() {
    each_queue(|config| {
        let queue: Queue<Result<usize>> = queue(4, config);
        let [(a, mut first), (b, _second)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let limited = Recv::new(b, vec![0; 1]).timeout(Duration::from_millis(20));
        let chain = (Recv::new(a, vec![0; 1]).hard_link(), limited);
        let tokens = queue.submit_chain(chain, (|done| done.result, |done| done.result)).unwrap();
        assert!(taken(&queue).is_empty());
        queue.cancel(tokens[1]).unwrap();
        assert!(taken(&queue).is_empty());
        first.write_all(b"x").unwrap();
        assert_eq!(drained(&queue), [Ok(1), Err(Error::TimedOut)]);
    });
}
