//! Attacks on the long-lived queue that have to come to nothing.

use aio::{
    Backend, Config, Queue, SetupError, coro,
    op::*,
    queue::{Done, Shot},
};
use std::{
    cell::{Cell, RefCell},
    net::UdpSocket,
    os::fd::{AsFd, BorrowedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

/// Runs `f` on a thread of its own, which must end soon.
fn soon(f: impl FnOnce() + std::marker::Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        f();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

/// One of each that there is; a ring may be denied.
fn backends() -> Vec<Config> {
    let all = [Backend::IoUring, Backend::Epoll, Backend::Poll].map(|backend| Config::new().backend(backend));
    let denied = |config: &Config| matches!(config.run(|| ()), Err(SetupError::IoUring(_)));
    all.into_iter().filter(|config| !denied(config)).collect()
}

/// A mapper of an operation that pauses waits itself; nothing is left that could end.
#[test]
fn wait_in_the_mapper_of_a_paused_stream() {
    soon(|| {
        for config in backends() {
            Queue::<bool, 512>::scope_with_config(4, config, |queue| {
                let source = EventSource::new().unwrap();
                source.notify();
                let token = queue
                    .submit_multi(PollMulti::new(source, PollEvents::IN), |shot: Shot<_>| {
                        if shot.more {
                            assert_eq!(queue.wait(1).unwrap().count(), 0);
                        }
                        shot.more
                    })
                    .unwrap();
                assert!(queue.wait(1).unwrap().next().unwrap().1);
                queue.cancel(token).unwrap();
                queue.drain(|_, _| ()).unwrap();
            })
            .unwrap();
        }
    });
}

/// An operation that has ended while the cancel that was to pause it is on its way.
#[test]
fn a_stream_that_ends_while_it_is_to_pause_is_dropped_with_the_queue() {
    soon(|| {
        for config in backends() {
            let mark = Rc::new(());
            let kept = mark.clone();
            let queue = Queue::<usize>::with_config(4, config).unwrap();
            let pool = queue.buf_pool(64, 64).unwrap();
            let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
            for _ in 0..100 {
                b.send_to(b"x", a.local_addr().unwrap()).unwrap();
            }
            queue
                .submit_multi(RecvMulti::new(a, &pool), move |shot: Shot<_>| {
                    let _ = &kept;
                    shot.result.map_or(0, |bytes| bytes.len())
                })
                .unwrap();
            let _ = queue.wait(64).unwrap();
            drop(queue);
            assert_eq!(Rc::strong_count(&mark), 1, "the mapper, and with it the socket, was leaked");
        }
    });
}

/// The last handle goes while the queue waits for it.
#[test]
fn the_last_handle_goes_while_the_queue_waits_for_it() {
    soon(|| {
        for config in backends() {
            let queue = Queue::<()>::with_config(4, config).unwrap();
            let waker = queue.waker().unwrap();
            let thread = thread::spawn(move || {
                thread::sleep(50 * MS);
                drop(waker);
            });
            queue.run(|_, ()| ()).unwrap();
            thread.join().unwrap();
        }
    });
}

/// As every program does it.
#[test]
fn a_thread_posts_and_ends() {
    soon(|| {
        let queue = Queue::<u32>::new(4).unwrap();
        let poster = queue.poster().unwrap();
        let thread = thread::spawn(move || {
            poster.post(1).unwrap();
            thread::sleep(50 * MS);
        });
        let mut sum = 0;
        queue.run(|_, n| sum += n).unwrap();
        assert_eq!(sum, 1);
        thread.join().unwrap();
    });
}

/// Nothing is in flight, but there is a handle.
#[test]
fn drain_of_an_empty_queue_with_a_handle() {
    soon(|| {
        let queue = Queue::<u32>::new(4).unwrap();
        let _waker = queue.waker().unwrap();
        queue.drain(|_, _| ()).unwrap();
    });
}

/// A mapper of a stream suspends its task; meanwhile there is more of the stream, and another task waits.
#[test]
fn a_task_suspended_in_the_mapper_of_a_stream() {
    soon(|| {
        coro::run(|| {
            let queue = Rc::new(Queue::<bool>::new(8).unwrap());
            let ticks = Rc::new(Cell::new(0));
            let seen = ticks.clone();
            let token = queue
                .submit_multi(TimeoutMulti::every(MS), move |shot: Shot<_>| {
                    if seen.replace(seen.get() + 1) == 0 {
                        coro::sleep(30 * MS).unwrap();
                    }
                    shot.more
                })
                .unwrap();
            let (one, two) = (queue.clone(), queue.clone());
            let first = coro::spawn(move || {
                let mut count = 0;
                while count < 3 {
                    count += one.wait(1).unwrap().count();
                }
            });
            let stop = Rc::new(Cell::new(false));
            let stopped = stop.clone();
            let second = coro::spawn(move || {
                while !stopped.get() {
                    let _ = two.wait(1).unwrap().count();
                }
            });
            first.join().unwrap();
            stop.set(true);
            second.join().unwrap();
            queue.cancel(token).unwrap();
        })
        .unwrap();
    });
}

/// One task waits; another one submits.
#[test]
fn a_task_submits_while_another_one_waits() {
    soon(|| {
        coro::run(|| {
            let queue = Rc::new(Queue::<u32>::new(8).unwrap());
            queue.submit(Timeout::after(Duration::from_secs(60)), |_| 0).unwrap();
            let one = queue.clone();
            let waits = coro::spawn(move || one.wait(1).unwrap().next().unwrap().1);
            coro::sleep(10 * MS).unwrap();
            queue.submit(Nop::new(), |_| 7).unwrap();
            assert_eq!(waits.join().unwrap(), 7);
        })
        .unwrap();
    });
}

/// Two tasks wait for one event each; the first takes what is there for both out of the engine, but one event only.
#[test]
fn two_tasks_wait_for_one_event_each() {
    soon(|| {
        for config in backends() {
            coro::run(|| {
                let queue = Rc::new(Queue::<u32>::with_config(8, config).unwrap());
                let wait = |queue: Rc<Queue<'static, u32>>| {
                    coro::spawn(move || {
                        loop {
                            if let Some(event) = queue.wait(1).unwrap().next() {
                                return event.1;
                            }
                        }
                    })
                };
                let keep = queue.submit(Timeout::after(Duration::from_secs(60)), |_| 0).unwrap();
                let (a, b) = (wait(queue.clone()), wait(queue.clone()));
                coro::sleep(5 * MS).unwrap();
                queue.submit(Timeout::after(MS), |_| 1).unwrap();
                queue.submit(Timeout::after(MS), |_| 2).unwrap();
                assert_eq!(a.join().unwrap() + b.join().unwrap(), 3);
                let c = wait(queue.clone());
                coro::sleep(5 * MS).unwrap();
                queue.cancel(keep).unwrap();
                assert_eq!(c.join().unwrap(), 0);
            })
            .unwrap();
        }
    });
}

/// Two tasks wait; the one that takes a result of an operation that pauses does not wait again.
#[test]
fn a_paused_stream_and_two_tasks() {
    soon(|| {
        coro::run(|| {
            let queue = Rc::new(Queue::<bool>::new(8).unwrap());
            let source = Rc::new(EventSource::new().unwrap());
            struct Of(Rc<EventSource>);
            impl AsFd for Of {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.0.as_fd()
                }
            }
            queue.submit_multi(PollMulti::new(Of(source.clone()), PollEvents::IN), |shot: Shot<_>| shot.more).unwrap();
            let wait = |queue: Rc<Queue<'static, bool>>| {
                coro::spawn(move || {
                    loop {
                        if let Some(event) = queue.wait(1).unwrap().next() {
                            return event.1;
                        }
                    }
                })
            };
            let (a, b) = (wait(queue.clone()), wait(queue.clone()));
            coro::sleep(5 * MS).unwrap();
            source.notify();
            assert!(a.join().unwrap());
            assert!(b.join().unwrap());
        })
        .unwrap();
    });
}

/// Groups in groups in groups.
#[test]
fn cancelling_deeply_nested_groups() {
    soon(|| {
        let nest = || {
            let queue = Queue::<u32>::new(4000).unwrap();
            let mut groups = vec![queue.gather(|n| n as u32).unwrap()];
            for _ in 1..3999 {
                groups.push(groups[groups.len() - 1].gather(|n| n as u32).unwrap());
            }
            groups[3998]
                .submit(Timeout::after(Duration::from_secs(60)), |done| u32::from(done.result.is_ok()))
                .unwrap();
            queue.cancel(groups[0].token()).unwrap();
            assert_eq!(queue.wait(1).unwrap().next().unwrap().1, 0);
        };
        coro::run(|| coro::spawn(nest).join().unwrap()).unwrap();
    });
}

/// What was posted panics when it is dropped; what else there is goes all the same.
#[test]
fn a_letter_that_panics_leaks_nothing_else() {
    struct Loud(bool);
    impl Drop for Loud {
        fn drop(&mut self) {
            if self.0 && !thread::panicking() {
                panic!("loud");
            }
        }
    }
    let mark = Rc::new(());
    let kept = mark.clone();
    let queue = Queue::<Loud>::new(4).unwrap();
    queue
        .submit(Timeout::after(Duration::from_secs(60)), move |_| {
            let _ = &kept;
            Loud(false)
        })
        .unwrap();
    queue.poster().unwrap().post(Loud(true)).ok().unwrap();
    let _ = catch_unwind(AssertUnwindSafe(|| drop(queue)));
    assert_eq!(Rc::strong_count(&mark), 1);
}

/// Everything that user code may do while it is called.
#[test]
fn reentrant_everything() {
    soon(|| {
        for config in backends() {
            struct Busy<'s, 'e> {
                queue: &'s aio::queue::Scope<'s, 'e, u32, 512>,
                source: EventSource,
                panics: bool,
            }
            impl AsFd for Busy<'_, '_> {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    let _ = self.queue.submit(Nop::new(), |_| 1);
                    self.queue.cancel_all();
                    let _ = self.queue.buf_pool(2, 64);
                    if let Ok(events) = self.queue.poll() {
                        for _ in events {}
                    }
                    if self.panics {
                        panic!("as_fd");
                    }
                    self.source.as_fd()
                }
            }
            impl Drop for Busy<'_, '_> {
                fn drop(&mut self) {
                    let _ = self.queue.submit(Nop::new(), |_| 1);
                    self.queue.cancel_all();
                    let _ = self.queue.waker();
                    if let Ok(group) = self.queue.gather(|_| 2) {
                        let _ = group.submit(Nop::new(), |_| 3);
                        std::mem::forget(group);
                    }
                    if let Ok(events) = self.queue.wait(1) {
                        for _ in events {}
                    }
                }
            }
            for round in 0..50 {
                Queue::<u32, 512>::scope_with_config(16, config, |queue| {
                    let busy = |panics| Busy { queue, source: EventSource::new().unwrap(), panics };
                    let held = RefCell::new(Vec::new());
                    let _ = held.try_borrow_mut().map(|mut held: std::cell::RefMut<'_, Vec<u32>>| held.push(1));
                    for panics in [false, true] {
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            let _ = queue.submit(Poll::new(busy(panics), PollEvents::IN), |done: Done<_>| {
                                drop(done);
                                4
                            });
                        }));
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            let _ = queue.submit_chain(
                                (
                                    Poll::new(busy(false), PollEvents::IN).hard_link(),
                                    Poll::new(busy(panics), PollEvents::IN).link(),
                                    Nop::new(),
                                ),
                                (|_: Done<_>| 4, |_: Done<_>| panic!("mapper"), |_: Done<_>| 6),
                            );
                        }));
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            let group = queue.race(|_| 9).unwrap();
                            let _ = group.submit_multi(PollMulti::new(busy(panics), PollEvents::IN), |_| {
                                for _ in queue.poll().unwrap() {}
                                queue.cancel_all();
                                8
                            });
                            let _ = group.submit(Poll::new(busy(panics), PollEvents::IN), |_| 4);
                            if round % 3 == 0 {
                                std::mem::forget(group);
                            }
                        }));
                    }
                    if round % 2 == 0 {
                        queue.cancel_all();
                        for _ in 0..20 {
                            let _ = catch_unwind(AssertUnwindSafe(|| {
                                for _ in queue.wait_until(Instant::now() + MS / 10).unwrap() {}
                            }));
                        }
                    }
                })
                .unwrap();
            }
        }
    });
}

/// Bytes that arrive in order, into buffers that are in use, shared, short of, given back at any time.
#[test]
fn pooled_bytes_are_nobody_elses() {
    use aio::PooledBuf;
    use std::{io::Write, os::unix::net::UnixStream};
    enum Event {
        Bytes(usize, Result<PooledBuf, aio::Error>, Option<RecvMulti<Rc<UnixStream>>>),
    }
    fn pattern(at: u64, stream: usize) -> u8 {
        (at.wrapping_mul(31).wrapping_add(at >> 7) as u8) ^ (stream as u8 * 77)
    }
    soon(|| {
        let mut seed = 0x1234_5678_9abc_def1u64;
        let mut below = move |end: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 20) % end
        };
        for config in backends() {
            for incremental in [false, true] {
                let queue = Queue::<Event>::with_config(8, config).unwrap();
                let pool =
                    if incremental { queue.incremental_buf_pool(4, 200) } else { queue.buf_pool(8, 50) }.unwrap();
                let mut pairs = Vec::new();
                for _ in 0..4 {
                    let (a, b) = UnixStream::pair().unwrap();
                    b.set_nonblocking(true).unwrap();
                    pairs.push((Rc::new(a), b, 0u64, 0u64));
                }
                let submit = |stream: usize, op: RecvMulti<Rc<UnixStream>>| {
                    queue
                        .submit_multi(op, move |shot: Shot<RecvMulti<Rc<UnixStream>>>| {
                            Event::Bytes(stream, shot.result, shot.op)
                        })
                        .map_err(|_| "full")
                        .unwrap()
                };
                let mut tokens: Vec<_> =
                    (0..4).map(|at| submit(at, RecvMulti::new(pairs[at].0.clone(), &pool))).collect();
                let mut held: Vec<(usize, u64, PooledBuf)> = Vec::new();
                let check = |(stream, start, bytes): &(usize, u64, PooledBuf)| {
                    for (at, &byte) in bytes.iter().enumerate() {
                        assert_eq!(byte, pattern(start + at as u64, *stream), "{incremental}");
                    }
                };
                for _ in 0..6000 {
                    match below(10) {
                        0..5 => {
                            let stream = below(4) as usize;
                            let (_, b, sent, _) = &mut pairs[stream];
                            let bytes: Vec<u8> = (0..1 + below(90)).map(|at| pattern(*sent + at, stream)).collect();
                            *sent += b.write(&bytes).unwrap_or(0) as u64;
                        }
                        5..7 => {
                            for (_, Event::Bytes(stream, result, op)) in queue.poll().unwrap() {
                                match result {
                                    Ok(bytes) => {
                                        assert!(!bytes.is_empty());
                                        let start = pairs[stream].3;
                                        pairs[stream].3 += bytes.len() as u64;
                                        held.push((stream, start, bytes));
                                        check(&held[held.len() - 1]);
                                    }
                                    Err(_) => tokens[stream] = submit(stream, op.unwrap()),
                                }
                            }
                        }
                        7..9 if !held.is_empty() => {
                            let mut gone = held.swap_remove(below(held.len() as u64) as usize);
                            check(&gone);
                            // What is one's own may be written.
                            gone.2.fill(0xEE);
                        }
                        _ if below(4) == 0 => drop(queue.cancel(tokens[below(4) as usize])),
                        _ => {}
                    }
                    held.iter().for_each(check);
                }
                assert!(pairs.iter().all(|pair| pair.3 > 500), "{:?}", pairs.iter().map(|p| p.3).collect::<Vec<_>>());
            }
        }
    });
}

/// In a child everything can be gone through and dropped, and the parent does not notice.
#[test]
fn a_mapper_that_forks() {
    soon(|| {
        for config in backends() {
            let queue = Queue::<i32>::with_config(8, config).unwrap();
            let group = queue.race(|_| 5).unwrap();
            // SAFETY: the child does nothing but what is tested here, and ends.
            let fork = |_: Done<Nop>| unsafe { libc::fork() };
            let pair = (Nop::new().hard_link(), Nop::new());
            queue.submit_chain(pair, (fork, |_: Done<Nop>| 2)).unwrap();
            group.submit(Nop::new(), |_| 3).unwrap();
            group.submit(Timeout::after(Duration::from_secs(60)), |_| 4).unwrap();
            let mut pid = None;
            let mut others = Vec::new();
            for (_, event) in queue.wait(3).unwrap() {
                match event {
                    2..=5 => others.push(event),
                    _ => pid = Some(event),
                }
            }
            // The kernel may get to the second of the chain last.
            others.sort();
            drop(group);
            if pid == Some(0) {
                assert!(queue.wait(1).is_err() && queue.submit(Nop::new(), |_| 0).is_err());
                drop(queue);
                // SAFETY: ends the child.
                unsafe { libc::_exit(if others == [2, 3] { 7 } else { 8 }) };
            }
            assert_eq!(others, [2, 3]);
            let mut status = 0;
            // SAFETY: the status is a local.
            assert!(unsafe { libc::waitpid(pid.unwrap(), &mut status, 0) } > 0);
            assert_eq!(libc::WEXITSTATUS(status), 7);
            queue.drain(|_, event| others.push(event)).unwrap();
            assert_eq!(others, [2, 3, 4, 5]);
        }
    });
}
