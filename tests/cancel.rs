//! Cancelling tasks, whatever they wait for.

mod common;

use aio::{
    Error, Result,
    coro::{self, Builder, JoinError},
    op::*,
    windowed,
};
use common::*;
use std::{
    cell::Cell,
    fs::File,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);

/// Cancels a task that waits, when the engine knows of it and when it does not yet, and gives what each has returned.
#[track_caller]
fn cancelled<R: 'static>(body: impl FnOnce() -> R + Clone + 'static) -> [R; 2] {
    let now = coro::spawn(body.clone());
    now.cancel();
    let later = coro::spawn(body);
    coro::sleep(SOON).unwrap();
    assert!(!later.is_finished(), "it was to wait");
    later.cancel();
    [now, later].map(|task| {
        task.cancel();
        task.join().unwrap()
    })
}

const CANCELED: Result<()> = Err(Error::Canceled);

#[test]
fn a_cancelled_wait_for_a_socket_or_a_pipe() {
    each_runtime(|| {
        let recv = || {
            let (a, _b) = UnixStream::pair().unwrap();
            aio::single(Recv::new(&a, &mut [0u8; 8])).map(drop)
        };
        assert_eq!(cancelled(recv), [CANCELED; 2]);
        let accept = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            aio::single(Accept::new(&listener)).map(drop)
        };
        assert_eq!(cancelled(accept), [CANCELED; 2]);
        let read = || {
            let (output, _input) = pipe();
            aio::single(Read::new(&output, &mut [0u8; 8])).map(drop)
        };
        assert_eq!(cancelled(read), [CANCELED; 2]);
        let poll = || {
            let (a, _b) = UnixStream::pair().unwrap();
            aio::single(Poll::new(&a, PollEvents::IN)).map(drop)
        };
        assert_eq!(cancelled(poll), [CANCELED; 2]);
        let event = || aio::single(WaitEvent::new(&EventSource::new().unwrap())).map(drop);
        assert_eq!(cancelled(event), [CANCELED; 2]);
    });
}

#[test]
fn a_cancelled_wait_for_time_a_child_or_a_task() {
    each_runtime(|| {
        assert_eq!(cancelled(|| coro::sleep(NEVER)), [CANCELED; 2]);
        assert_eq!(cancelled(|| coro::sleep_until(Instant::now() + NEVER)), [CANCELED; 2]);
        assert_eq!(cancelled(|| coro::interval(NEVER).tick().map(drop)), [CANCELED; 2]);
        assert_eq!(cancelled(|| coro::park(1)), [CANCELED; 2]);
        let join = || {
            let task = coro::spawn(|| coro::park(1));
            let result = task.wait();
            task.cancel();
            result
        };
        assert_eq!(cancelled(join), [CANCELED; 2]);
        let exit = || {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            let result = aio::single(ChildExit::new(&mut child)).map(drop);
            // It was neither reaped nor killed.
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            result
        };
        assert_eq!(cancelled(exit), [CANCELED; 2]);
    });
}

#[test]
fn a_yielding_task_is_told() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            while coro::yield_now().is_ok() {}
            coro::yield_now()
        });
        coro::sleep(SOON).unwrap();
        task.cancel();
        assert_eq!(task.join().unwrap(), CANCELED);
    });
}

#[test]
fn cancelled_chains() {
    each_runtime(|| {
        let soft = || {
            let (a, _b) = UnixStream::pair().unwrap();
            let mut buffer = [0u8; 8];
            let chain = (Recv::new(&a, &mut buffer).link(), Send::new(&a, "x").link(), Nop::new());
            aio::complete(chain).unwrap().results
        };
        let expected = (Err(Error::Canceled), Err(Error::Skipped), Err(Error::Skipped));
        assert_eq!(cancelled(soft), [expected; 2]);
        let hard = || {
            let (a, _b) = UnixStream::pair().unwrap();
            let (mut x, mut y, mut z) = ([0u8; 8], [0u8; 8], [0u8; 8]);
            let recv = (Recv::new(&a, &mut x).hard_link(), Recv::new(&a, &mut y).hard_link(), Recv::new(&a, &mut z));
            aio::complete(recv).unwrap().results
        };
        let expected = (Err(Error::Canceled), Err(Error::Canceled), Err(Error::Canceled));
        assert_eq!(cancelled(hard), [expected; 2], "what a hard link starts is cancelled as well");
        let limited = || {
            let (a, _b) = UnixStream::pair().unwrap();
            aio::single(Recv::new(&a, &mut [0u8; 8]).timeout(NEVER)).map(drop)
        };
        assert_eq!(cancelled(limited), [CANCELED; 2]);
    });
}

#[test]
fn twenty_cancels_meet_a_queue_of_eight_entries() {
    each_runtime(|| {
        let batch = || {
            let pairs: Vec<_> = (0..20).map(|_| UnixStream::pair().unwrap()).collect();
            let recvs: Vec<_> = pairs.iter().map(|(a, _)| Recv::new(a, vec![0u8; 8])).collect();
            let done = aio::complete(recvs).unwrap();
            assert!(done.results.iter().all(|result| matches!(result, Err(Error::Canceled))));
            done.errors
        };
        assert_eq!(cancelled(batch), [20; 2]);
        // And when others fill the queue in the same turn.
        let (full, _peer) = UnixStream::pair().unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let socket = full.try_clone().unwrap();
                coro::spawn(move || aio::single(Recv::new(&socket, &mut [0u8; 8])).map(drop))
            })
            .collect();
        coro::sleep(SOON).unwrap();
        for task in &tasks {
            task.cancel();
            coro::spawn(|| aio::complete([(); 4].map(|()| Timeout::after(Duration::ZERO))).unwrap().errors);
        }
        for task in tasks {
            assert_eq!(task.join().unwrap(), CANCELED);
        }
    });
}

#[test]
fn an_infinite_window_ends_when_its_task_is_cancelled() {
    each_runtime(|| {
        let sleeps = || {
            let units = std::iter::repeat_with(|| Timeout::after(Duration::from_micros(50)));
            aio::complete(windowed(units, 4)).unwrap().errors > 0
        };
        assert_eq!(cancelled(sleeps), [true; 2]);
        let recvs = || {
            let (a, _b) = UnixStream::pair().unwrap();
            let units = std::iter::repeat_with(|| Recv::new(&a, vec![0u8; 8]));
            let done = aio::complete(windowed(units, 5)).unwrap();
            assert_eq!(done.results.len(), done.errors);
            (5..=6).contains(&done.errors)
        };
        assert_eq!(cancelled(recvs), [true; 2]);
    });
}

#[test]
fn what_is_impossible_is_not_looked_at_in_a_cancelled_task() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            assert_eq!(coro::sleep(NEVER), Err(Error::Canceled));
            aio::single(OpenAt::new("a\0b")).map(drop)
        });
        task.cancel();
        assert_eq!(task.join().unwrap(), Err(Error::Canceled));
    });
}

#[test]
fn cancellation_sticks() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            coro::current().cancel();
            let (a, b) = UnixStream::pair().unwrap();
            // None of these would have to wait.
            assert_eq!(aio::single(Send::new(&b, "x")), Err(Error::Canceled));
            assert_eq!(aio::single(Nop::new()), Err(Error::Canceled));
            assert_eq!(coro::sleep(Duration::ZERO), CANCELED);
            assert_eq!(coro::yield_now(), CANCELED);
            assert_eq!(coro::park(1), CANCELED);
            assert_eq!(coro::offload(|| 1), Err(Error::Canceled));
            assert_eq!(coro::spawn(|| coro::sleep(NEVER)).wait(), CANCELED);
            assert_eq!(aio::multi((Nop::new(), Nop::new())).unwrap_err().error, Error::Canceled);
            // What it spawns is not.
            let free = coro::spawn(|| coro::sleep(SOON));
            coro::shield(|| assert_eq!(free.join().unwrap(), Ok(())));
            a.set_nonblocking(true).unwrap();
            assert!(std::io::Read::read(&mut &a, &mut [0]).is_err(), "nothing was sent");
        });
        task.join().unwrap();
    });
}

#[test]
fn what_is_done_beats_a_cancellation() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let task = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
        coro::sleep(SOON).unwrap();
        aio::single(Send::new(&b, "x")).unwrap();
        coro::sleep(SOON).unwrap();
        task.cancel();
        assert_eq!(task.join().unwrap(), Ok(1));
        // A task that has ended can be joined by a cancelled one.
        let joiner = coro::spawn(|| {
            let ended = coro::spawn(|| 7);
            coro::current().cancel();
            assert_eq!(ended.wait(), Ok(()));
            ended.join().unwrap()
        });
        assert_eq!(joiner.join().unwrap(), 7);
    });
}

#[test]
fn cancelling_what_has_not_begun_or_has_ended() {
    each_runtime(|| {
        let drops = Drops::default();
        let (one, flag) = (drops.one(), Rc::new(Cell::new(false)));
        let ran = flag.clone();
        let task = Builder::new()
            .later()
            .spawn(move || {
                let _one = one;
                ran.set(true);
            })
            .unwrap();
        task.cancel();
        assert_eq!(drops.count(), 0, "it is dropped as part of the task");
        assert!(matches!(task.join(), Err(JoinError::NeverRan)));
        assert_eq!((flag.get(), drops.count()), (false, 1));

        let task = coro::spawn(|| 5);
        task.cancel();
        task.task().cancel();
        assert_eq!(task.join().unwrap(), 5);
    });
}

#[test]
fn cancelling_twice_and_by_id_and_by_itself() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            let first = coro::sleep(NEVER);
            coro::current().cancel();
            (first, coro::shield(|| coro::sleep(SOON)))
        });
        task.task().cancel();
        task.cancel();
        coro::yield_now().unwrap();
        task.cancel();
        assert_eq!(task.join().unwrap(), (CANCELED, Ok(())));
    });
}

#[test]
fn the_root_can_be_cancelled() {
    each_engine(|engine| {
        let result = runtime(engine).run(|| {
            let root = coro::current();
            coro::spawn(move || {
                coro::sleep(SOON).unwrap();
                root.cancel();
            });
            (coro::sleep(NEVER), coro::yield_now(), coro::shield(|| coro::sleep(SOON)))
        });
        assert_eq!(result, Ok((CANCELED, CANCELED, Ok(()))));
    });
}

#[test]
fn a_close_in_a_refused_batch_still_closes() {
    in_own_process("a_close_in_a_refused_batch_still_closes", || {
        each_runtime(|| {
            let open = || OwnedFd::from(File::open("Cargo.toml").unwrap());
            // Makes what the engine and the runtime have of their own.
            coro::spawn(|| ()).join().unwrap();
            coro::sleep(SOON).unwrap();
            let before = descriptors();
            let task = coro::spawn(move || {
                coro::current().cancel();
                assert_eq!(aio::single(Close::new(open())), Ok(()));
                assert_eq!(descriptors(), before, "alone");
                let done = aio::complete((Nop::new(), Close::new(open()))).unwrap().results;
                assert_eq!((done, descriptors()), ((Err(Error::Canceled), Ok(())), before));
                let done = aio::complete((Nop::new().hard_link(), Close::new(open()))).unwrap().results;
                assert_eq!((done, descriptors()), ((Err(Error::Canceled), Ok(())), before));
                let done = aio::complete((Nop::new().link(), Close::new(open()))).unwrap().results;
                assert_eq!((done, descriptors()), ((Err(Error::Canceled), Err(Error::Skipped)), before));
                let closes: Vec<_> = (0..20).map(|_| Close::new(open())).collect();
                assert_eq!((aio::complete(closes).unwrap().errors, descriptors()), (0, before));
                let closes = (0..20).map(|_| (Nop::new().link(), Close::new(open())));
                let _ = aio::complete(windowed(closes, 3)).unwrap();
                assert_eq!(descriptors(), before, "in a window");
            });
            task.join().unwrap();
            // One that waits behind what is cancelled.
            let task = coro::spawn(move || {
                let (a, _b) = UnixStream::pair().unwrap();
                let (soft, hard) = (open(), open());
                let number = hard.as_raw_fd();
                let results = aio::complete((
                    (Recv::new(&a, &mut [0u8; 1]).link(), Close::new(soft)),
                    (Recv::new(&a, &mut [0u8; 1]).hard_link(), Close::new(hard)),
                ));
                let ((recv, soft), (also, hard)) = results.unwrap().results;
                assert_eq!(
                    (recv, also, soft, hard),
                    (Err(Error::Canceled), Err(Error::Canceled), Err(Error::Skipped), Ok(()))
                );
                // SAFETY: asks about a number.
                assert_eq!(unsafe { libc::fcntl(number, libc::F_GETFD) }, -1);
            });
            coro::sleep(SOON).unwrap();
            task.cancel();
            task.join().unwrap();
            assert_eq!(descriptors(), before);
        });
    });
}

#[test]
fn a_connection_that_arrives_as_its_accept_is_cancelled_is_not_leaked() {
    in_own_process("a_connection_that_arrives_as_its_accept_is_cancelled_is_not_leaked", || {
        each_runtime(|| {
            let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
            let address = listener.local_addr().unwrap();
            let round = |i: u64| {
                let own = listener.clone();
                let task = coro::spawn(move || aio::single(Accept::new(&*own)).map(drop));
                if i.is_multiple_of(4) {
                    coro::yield_now().unwrap();
                }
                let client = TcpStream::connect(address).unwrap();
                match i % 3 {
                    0 => {}
                    1 => coro::yield_now().unwrap(),
                    _ => coro::sleep(Duration::from_micros(i % 50)).unwrap(),
                }
                task.cancel();
                let result = task.join().unwrap();
                if result.is_err() {
                    assert_eq!(result, CANCELED);
                    // Taken out of the backlog, if it is still there, for the next round.
                    drop(client);
                    listener.set_nonblocking(true).unwrap();
                    while listener.accept().is_ok() {}
                    listener.set_nonblocking(false).unwrap();
                }
                result.is_ok()
            };
            (0..10).for_each(|i| _ = round(i));
            let before = descriptors();
            let accepted = (0..1_000).filter(|&i| round(i)).count();
            assert!(accepted > 0, "never in time, so the race was none");
            assert_eq!(descriptors(), before);
        });
    });
}

#[test]
fn a_task_that_never_takes_the_hint_ends_the_process() {
    let name = "a_task_that_never_takes_the_hint_ends_the_process";
    let messages = dies(name, libc::SIGABRT, || {
        coro::run(|| {
            let careless = || {
                let (a, _b) = UnixStream::pair().unwrap();
                while aio::single(Recv::new(&a, &mut [0u8; 8])) != Ok(0) {}
            };
            Builder::new().name("careless").spawn(careless).unwrap();
        })
        .unwrap();
    });
    for message in messages {
        assert!(message.contains("\"careless\"") && message.contains("is_canceled"), "{message}");
    }
}

// A window did not count what it refused, nor let others run: this hung.
#[test]
fn a_loop_of_windows_that_never_takes_the_hint_ends_the_process() {
    let name = "a_loop_of_windows_that_never_takes_the_hint_ends_the_process";
    dies(name, libc::SIGABRT, || {
        die_after(10);
        coro::run(|| {
            coro::spawn(|| {
                let (a, _b) = UnixStream::pair().unwrap();
                while aio::complete(windowed([Recv::new(&a, vec![0u8; 8])], 1)).unwrap().errors <= 1 {}
            });
        })
        .unwrap();
    });
}

#[test]
fn a_careless_task_lets_the_others_run_meanwhile() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            let mut refused = 0;
            while refused < 5_000 {
                refused += i32::from(coro::sleep(NEVER) == CANCELED);
            }
        });
        let other = coro::spawn(|| {
            for _ in 0..100 {
                coro::yield_now().unwrap();
            }
            coro::sleep(SOON).unwrap();
        });
        task.cancel();
        other.join().unwrap();
        task.join().unwrap();
    });
}

// `park` noted its state before it was refused, so a wake-up claimed to have ended a wait that nobody waited.
#[test]
fn a_refused_park_is_not_woken() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            coro::current().cancel();
            (0..100).all(|_| coro::park(1) == CANCELED)
        });
        let mut woken = 0;
        while !task.is_finished() {
            woken += i32::from(task.task().wake());
            coro::shield(coro::yield_now).unwrap();
        }
        assert!(task.join().unwrap());
        assert_eq!(woken, 0);
    });
}
