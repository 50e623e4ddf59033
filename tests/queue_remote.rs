//! Queues and other threads, and queues in tasks.

mod common;

use aio::{Config, Error, Queue, SetupError, coro, op::*, queue::*};
use common::*;
use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const THREADS: usize = 4;
const EACH: usize = 25_000;

fn soon() -> Duration {
    Duration::from_millis(5)
}

fn tick(millis: u64) -> Timeout {
    Timeout::after(Duration::from_millis(millis))
}

#[test]
fn a_wake_before_a_wait_is_not_lost_and_many_are_one() {
    each_queue(|config| {
        let queue: Queue<()> = queue(4, config);
        let waker = queue.waker().unwrap();
        for count in [1, 2, 100] {
            (0..count).for_each(|_| waker.wake());
            assert_eq!(queue.wait(1).unwrap().count(), 0);
            let began = Instant::now();
            assert_eq!(queue.wait_until(began + soon()).unwrap().count(), 0);
            assert!(began.elapsed() >= soon(), "there is none left");
        }
        let other = waker.clone();
        queue.submit(Timeout::after(NEVER), |_| ()).unwrap();
        let waking = thread::spawn(move || {
            thread::sleep(soon());
            other.wake();
        });
        assert_eq!(queue.wait(1).unwrap().count(), 0);
        waking.join().unwrap();
        // It does not take away what there is.
        queue.submit(Nop::new(), |_| ()).unwrap();
        drop(queue.wait(1).unwrap());
        waker.wake();
        assert_eq!(queue.wait(1).unwrap().count(), 1);
        drop(queue);
        waker.wake();
    });
}

#[test]
fn wakes_of_many_threads_are_not_lost_in_effect() {
    each_queue(|config| {
        let queue: Queue<()> = queue(4, config);
        let done = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (waker, done) = (queue.waker().unwrap(), done.clone());
                thread::spawn(move || {
                    for _ in 0..EACH {
                        done.fetch_add(1, SeqCst);
                        waker.wake();
                    }
                })
            })
            .collect();
        // Each wake is after its count: whoever sees fewer is woken once more.
        let (mut seen, mut waits) = (0, 0);
        while seen < (THREADS * EACH) as u64 {
            assert_eq!(queue.wait(1).unwrap().count(), 0);
            seen = done.load(SeqCst);
            waits += 1;
        }
        assert!(waits <= THREADS * EACH + 1);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn events_of_many_threads_all_come_and_in_the_order_of_each() {
    each_queue(|config| {
        let queue: Queue<(usize, usize)> = queue(4, config);
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let poster = queue.poster().unwrap();
                thread::spawn(move || (0..EACH).for_each(|count| poster.post((number, count)).unwrap()))
            })
            .collect();
        // The queue has its own work meanwhile.
        let ticks = Rc::new(Cell::new(0));
        let count = ticks.clone();
        let again = move |_: &Queue<'static, _>, _| {
            count.set(count.get() + 1);
            Then::Again(tick(1))
        };
        let timer = queue.submit_callback(tick(1), again).unwrap();
        let mut next = [0; THREADS];
        while next.iter().sum::<usize>() < THREADS * EACH {
            for (token, (number, count)) in queue.wait(1).unwrap() {
                assert!(token.is_posted() && queue.cancel(token).is_err());
                assert_eq!(count, next[number]);
                next[number] += 1;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!timer.is_posted());
    });
}

#[test]
fn events_that_were_left_are_not_counted_again() {
    each_queue(|config| {
        let queue: Queue<u32> = queue(4, config);
        let poster = queue.poster().unwrap();
        (0..100).for_each(|number| poster.post(number).unwrap());
        assert_eq!(queue.poll().unwrap().next().map(|(_, number)| number), Some(0));
        poster.post(100).unwrap();
        assert!(taken(&queue).into_iter().eq(1..=100));
        // If more were thought to be there, no wait would wait. A late ring of the bell may end one or two.
        queue.submit(tick(20), |_| 0).unwrap();
        let waits = (1..).find(|_| queue.wait(1).unwrap().next().is_some()).unwrap();
        assert!(waits < 10, "{waits} waits");
    });
}

#[test]
fn what_maps_for_posters_that_are_gone_goes_too() {
    each_queue(|config| {
        let drops = Drops::default();
        let queue: Queue<u32> = queue(4, config);
        for gone in 0..5 {
            let dropped = drops.one();
            let map = move |number| {
                let _ = &dropped;
                number
            };
            // Making one looks for those that nobody needs any more.
            let poster = queue.poster_with(map).unwrap();
            assert_eq!(drops.count(), gone);
            poster.post(7).unwrap();
            drop(poster);
            assert_eq!(taken(&queue), [7]);
        }
    });
}

#[test]
fn an_event_that_comes_too_late_comes_back() {
    each_queue(|config| {
        let queue: Queue<Box<i32>> = queue(4, config);
        let poster = queue.poster().unwrap();
        assert!(queue.is_empty());
        poster.post(Box::new(1)).unwrap();
        assert!(!queue.is_empty(), "although nobody has looked");
        assert_eq!(taken(&queue), [Box::new(1)]);
        assert!(queue.is_empty());
        poster.post(Box::new(2)).unwrap();
        let (waker, canceler) = (queue.waker().unwrap(), queue.canceler().unwrap());
        let token = queue.submit(Nop::new(), |_| Box::new(0)).unwrap();
        drop(queue);
        assert_eq!(poster.clone().post(Box::new(3)), Err(Box::new(3)));
        waker.wake();
        canceler.cancel(token);
    });
}

#[test]
fn posted_events_that_nobody_takes_are_dropped_with_the_queue() {
    each_queue(|config| {
        let drops = Drops::default();
        // From the same thread, for what counts the drops stays on it.
        let queue: Queue<Dropped> = queue(4, config);
        let poster = queue.poster().unwrap();
        (0..3).for_each(|_| poster.post(drops.one()).map_err(|_| ()).unwrap());
        drop(queue.poll().unwrap());
        (0..3).for_each(|_| poster.post(drops.one()).map_err(|_| ()).unwrap());
        drop(queue);
        assert_eq!(drops.count(), 6);
    });
}

#[test]
fn another_thread_cancels() {
    each_queue(|config| {
        let queue = queue(8, config);
        let (canceler, (a, _b)) = (queue.canceler().unwrap(), UnixStream::pair().unwrap());
        for _ in 0..50 {
            let recv = Recv::new(a.try_clone().unwrap(), vec![0; 4]);
            let tokens = [
                queue.submit(recv, |done| done.result.map(drop)).unwrap(),
                queue.submit(Timeout::after(NEVER), |done| done.result).unwrap(),
                queue.submit_multi(TimeoutMulti::every(NEVER), |shot| shot.result).unwrap(),
            ];
            let other = canceler.clone();
            let thread = thread::spawn(move || tokens.iter().rev().for_each(|&token| other.cancel(token)));
            let mut ended = Vec::new();
            while ended.len() < 3 {
                ended.extend(queue.wait(1).unwrap());
            }
            thread.join().unwrap();
            for (token, result) in ended {
                assert!(tokens.contains(&token) && result == Err(Error::Canceled));
            }
            // Stale by now.
            canceler.cancel(tokens[0]);
            queue.submit(tick(0), |done| done.result).unwrap();
            assert_eq!(collect(&queue, 1), [Ok(())]);
        }
    });
}

#[test]
fn a_wait_ends_when_nobody_can_wake_it_any_more() {
    each_queue(|config| {
        let queue: Queue<u32> = queue(4, config);
        for way in 0..3 {
            let (wakers, poster) = ([queue.waker().unwrap(), queue.waker().unwrap()], queue.poster().unwrap());
            let canceler = queue.canceler().unwrap();
            let [a, b] = wakers.map(|waker| {
                thread::spawn(move || {
                    thread::sleep(soon());
                    drop(waker);
                })
            });
            let c = thread::spawn(move || {
                thread::sleep(soon());
                poster.post(7).unwrap();
                drop((poster, canceler));
            });
            let mut events = Vec::new();
            match way {
                0 => queue.run(|_, event| events.push(event)).unwrap(),
                1 => {
                    queue.drain(|_, event| events.push(event)).unwrap();
                    [a, b, c].into_iter().for_each(|thread| thread.join().unwrap());
                    events.extend(drained(&queue));
                    assert_eq!(events, [7]);
                    continue;
                }
                _ => {
                    while events.is_empty() {
                        events.extend(queue.wait(1).unwrap().map(|(_, event)| event));
                    }
                    assert_eq!(queue.wait(1).unwrap().count(), 0);
                }
            }
            assert_eq!(events, [7]);
            [a, b, c].into_iter().for_each(|thread| thread.join().unwrap());
        }
        assert_eq!(drained(&queue), []);
        queue.submit(tick(1), |_| 9).unwrap();
        assert_eq!(drained(&queue), [9]);
    });
}

#[test]
fn a_task_that_waits_for_a_queue_holds_up_no_other() {
    each_queue(|config| {
        coro::Config::new()
            .engine(config)
            .run(|| {
                let (a, mut b) = UnixStream::pair().unwrap();
                let received = Rc::new(Cell::new(false));
                let seen = received.clone();
                let task = coro::spawn(move || {
                    let queue = queue(4, config);
                    queue.submit(Recv::new(a, vec![0; 4]), |done| done.result).unwrap();
                    queue.submit_multi(TimeoutMulti::every(Duration::from_millis(1)), |_| Ok(0)).unwrap();
                    while queue.wait(1).unwrap().all(|(_, result)| result != Ok(3)) {}
                    seen.set(true);
                });
                for _ in 0..5 {
                    coro::sleep(Duration::from_millis(1)).unwrap();
                    assert!(!received.get());
                }
                b.write_all(b"abc").unwrap();
                eventually("the task receives", || received.get());
                task.join().unwrap();
            })
            .unwrap();
    });
}

#[test]
fn a_cancelled_task_loses_nothing_of_its_queue() {
    each_queue(|config| {
        coro::Config::new()
            .engine(config)
            .run(|| {
                let queue = Rc::new(queue(4, config));
                let (a, mut b) = UnixStream::pair().unwrap();
                queue.submit(Recv::new(a, vec![0; 4]), |done| done.result).unwrap();
                let waiting = queue.clone();
                let task = coro::spawn(move || waiting.wait(1).map(|events| events.count()));
                coro::sleep(soon()).unwrap();
                assert!(!task.is_finished());
                task.cancel();
                assert_eq!(task.join().unwrap(), Err(Error::Canceled));
                assert_eq!(coro::timeout(soon(), || queue.wait(1).map(|events| events.count())), Err(Error::TimedOut));
                let deadline = Instant::now() + soon();
                assert_eq!(queue.wait_until(deadline).unwrap().count(), 0);
                assert!(Instant::now() >= deadline);
                assert_eq!(queue.len(), 1);
                b.write_all(b"abc").unwrap();
                assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Ok(3));
                // Where nothing is in flight there is nothing to wait for.
                assert_eq!(queue.wait(1).unwrap().count(), 0);
            })
            .unwrap();
    });
}

#[test]
fn a_queue_from_outside_is_used_in_a_task_and_afterwards() {
    each_queue(|config| {
        let queue = queue(8, config);
        let (a, mut b) = UnixStream::pair().unwrap();
        queue.submit(Recv::new(a, vec![0; 4]), |done| done.result).unwrap();
        queue.submit(tick(2), |_| Ok(100)).unwrap();
        queue.submit(Timeout::after(NEVER), |_| Ok(200)).unwrap();
        coro::Config::new()
            .engine(config)
            .run(|| {
                let others = RefCell::new(0);
                coro::scope(|s| {
                    s.spawn(|| {
                        for _ in 0..3 {
                            coro::sleep(soon()).unwrap();
                            *others.borrow_mut() += 1;
                        }
                        b.write_all(b"abc").unwrap();
                    });
                    assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Ok(100));
                    assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Ok(3));
                    assert_eq!(*others.borrow(), 3, "the other task ran meanwhile");
                });
            })
            .unwrap();
        queue.cancel_all();
        assert_eq!(drained(&queue), [Ok(200)]);
    });
}

#[test]
fn two_tasks_wait_for_queues_of_their_own_and_wake_each_other() {
    each_queue(|config| {
        coro::Config::new()
            .engine(config)
            .run(|| {
                let queues: [Rc<Queue<'static, u32>>; 2] = [(); 2].map(|()| Rc::new(queue(4, config)));
                let posters = queues.each_ref().map(|queue| queue.poster().unwrap());
                coro::scope(|s| {
                    for (me, queue) in queues.iter().enumerate() {
                        let other = &posters[1 - me];
                        s.spawn(move || {
                            if me == 0 {
                                other.post(0).unwrap();
                            }
                            let mut last = 0;
                            while last < 100 {
                                for (_, number) in queue.wait(1).unwrap() {
                                    last = number + 1;
                                    other.post(number + 1).unwrap();
                                }
                            }
                        });
                    }
                });
            })
            .unwrap();
    });
}

#[test]
fn mappers_and_callbacks_in_a_task_suspend_it() {
    each_queue(|config| {
        coro::Config::new()
            .engine(config)
            .run(|| {
                let queue = queue(4, config);
                queue
                    .submit(Nop::new(), |_| {
                        coro::sleep(Duration::from_millis(1)).unwrap();
                        aio::complete((Nop::new(), tick(1))).unwrap().results.1.unwrap();
                        7
                    })
                    .unwrap();
                queue
                    .submit_callback(Nop::new(), |queue, _| {
                        coro::sleep(Duration::from_millis(1)).unwrap();
                        queue.submit(tick(1), |_| 8).unwrap();
                        Then::End
                    })
                    .unwrap();
                assert_eq!(drained(&queue), [7, 8]);
            })
            .unwrap();
    });
}

#[test]
fn handles_are_for_other_threads_and_queues_are_not() {
    fn send_and_sync<T: std::marker::Send + Sync>() {}
    send_and_sync::<(Waker, Canceler, Poster<u32>, Token)>();
    assert_eq!(Queue::<(), 512>::with_config(0, Config::new()).err().map(|error| error.raw_os_error()), Some(None));
    assert!(matches!(Queue::<()>::new(0), Err(SetupError::QueueSize { .. })));
}

#[test]
fn what_is_posted_and_what_has_ended_take_turns() {
    each_queue(|config| {
        let queue: Queue<u32> = queue(8, config);
        let poster = queue.poster().unwrap();
        queue.submit(Nop::new(), |_| 1).unwrap();
        let mut seen = Vec::new();
        // One event for each wait, and there is always another one.
        for _ in 0..4 {
            poster.post(0).unwrap();
            poster.post(0).unwrap();
            seen.extend(queue.wait(1).unwrap().next().map(|(_, event)| event));
        }
        assert!(seen.contains(&0) && seen.contains(&1), "{seen:?}");
        // A chain stays together.
        queue.drain(|_, _| {}).unwrap();
        queue.submit_chain((Nop::new().link(), Nop::new()), (|_| 2, |_| 3)).unwrap();
        poster.post(0).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(queue.wait(1).unwrap().next().map(|(_, event)| event));
        }
        assert!(seen.windows(2).any(|two| two == [2, 3]), "{seen:?}");
    });
}

#[test]
fn what_is_posted_is_mapped_on_the_queues_thread() {
    each_queue(|config| {
        // Events of this queue cannot go to other threads.
        let queue: Rc<Queue<Rc<String>>> = Rc::new(queue(8, config));
        let mapped = Rc::new(Cell::new(0));
        let numbers = {
            let (mapped, inner) = (mapped.clone(), Rc::downgrade(&queue));
            queue.poster_with(move |number: u32| {
                mapped.set(mapped.get() + 1);
                // It may use the queue, and find others' events there.
                if let Some(queue) = inner.upgrade() {
                    assert!(queue.poll().unwrap().take(1).all(|(token, _)| token.is_posted()));
                }
                Rc::new(number.to_string())
            })
        };
        let numbers = numbers.unwrap();
        let words = queue.poster_with(|word: &'static str| Rc::new(word.to_owned())).unwrap();
        let posting = thread::spawn(move || {
            words.post("one").unwrap();
            numbers.post(2).unwrap();
            (words, numbers)
        });
        let (words, numbers) = posting.join().unwrap();
        let seen: Vec<_> = queue.wait(2).unwrap().map(|(_, event)| event.to_string()).collect();
        assert!(!seen.is_empty() && seen.iter().all(|event| ["one", "2"].contains(&event.as_str())), "{seen:?}");
        let _ = queue.poll().unwrap().count();
        assert_eq!((mapped.get(), queue.is_empty()), (1, true));
        // What nobody wants any more is dropped as it was posted.
        numbers.post(3).unwrap();
        drop(Rc::into_inner(queue).unwrap());
        assert_eq!((mapped.get(), numbers.post(4), words.post("five")), (1, Err(4), Err("five")));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_does_not_ring_at_its_parents_queue() {
    each_queue(|config| {
        let queue: Queue<u32> = queue(4, config);
        let (waker, poster) = (queue.waker().unwrap(), queue.poster().unwrap());
        let child = fork(|| {
            waker.wake();
            let _ = poster.post(1);
        });
        assert_eq!(child.wait(), 0);
        // A wait that somebody had rung for would end before the timer.
        queue.submit(Timeout::after(soon()), |_| 2).unwrap();
        assert_eq!(queue.wait(1).unwrap().map(|(_, event)| event).collect::<Vec<_>>(), [2]);
    });
}

#[test]
fn an_operation_wakes_another_queue_in_its_turn() {
    each_queue(|config| {
        let (give, take) = std::sync::mpsc::channel();
        let flag = Arc::new(AtomicBool::new(false));
        let seen = flag.clone();
        let other = thread::spawn(move || {
            let queue = Queue::<()>::with_config(1, config).unwrap();
            give.send(queue.waker().unwrap()).unwrap();
            assert_eq!(queue.wait(1).unwrap().count(), 0);
            seen.load(SeqCst)
        });
        let waker = take.recv().unwrap();
        let mine = Queue::<u32>::with_config(8, config).unwrap();
        // A broken chain wakes nobody.
        let chain = (Read::new(file_with(b""), vec![0; 1]).link(), WakeQueue::new(waker.clone()));
        mine.submit_chain(
            chain,
            (
                |_: Done<_>| 1,
                |done: Done<WakeQueue>| {
                    assert_eq!(done.result, Err(Error::Skipped));
                    2
                },
            ),
        )
        .unwrap();
        assert_eq!(drained(&mine), [1, 2]);
        let steps = flag.clone();
        mine.submit_callback(Timeout::after(Duration::from_millis(5)), move |_, _| {
            steps.store(true, SeqCst);
            Then::End
        })
        .unwrap();
        while !flag.load(SeqCst) {
            mine.wait(1).unwrap().for_each(drop);
        }
        let chain = (Nop::new().link(), WakeQueue::new(waker).link(), Nop::new());
        mine.submit_chain(
            chain,
            (|_: Done<_>| 1, |done: Done<WakeQueue>| done.result.map_or(0, |()| 2), |_: Done<_>| 3),
        )
        .unwrap();
        assert_eq!(drained(&mine), [1, 2, 3]);
        assert!(other.join().unwrap(), "it was woken too early");
        // A queue may wake itself, and one that is gone.
        let waker = mine.waker().unwrap();
        mine.submit(WakeQueue::new(waker.clone()), |done| done.result.map_or(0, |()| 4)).unwrap();
        assert_eq!(drained(&mine), [4]);
        drop(mine);
        assert_eq!(aio::single(WakeQueue::new(waker)), Ok(()));
    });
}
