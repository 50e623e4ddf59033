//! What a review tried.
#![cfg(target_os = "linux")]

mod common;

use aio::{FixedFile, Queue, coro, op::*};
use common::{Random, die_after, each_engine, each_queue, each_runtime, in_own_process};
use std::{
    cell::RefCell,
    io::Write as _,
    os::unix::net::UnixStream,
    rc::Rc,
    time::{Duration, Instant},
};

/// Takes events until the last one, or the time is over.
fn shots<E>(queue: &Queue<'static, (E, bool)>, what: &str) -> Vec<E> {
    let (mut all, end) = (vec![], Instant::now() + Duration::from_secs(2));
    loop {
        for (_, (event, more)) in queue.wait_until(end).unwrap() {
            all.push(event);
            if !more {
                return all;
            }
            assert!(all.len() < 200, "{what}: it does not end");
        }
        assert!(Instant::now() < end, "{what}: it hangs");
    }
}

/// As `an_end_that_comes_right_behind_the_last_bytes_is_not_missed`, for sockets in the queue's table.
fn fixed_ends(take: impl Fn(&Queue<'static, (aio::Result<usize>, bool)>, UnixStream) -> FixedFile) {
    const STREAMS: usize = 24;
    each_queue(|config| {
        for round in 0..10 {
            let queue = Queue::<(aio::Result<usize>, bool)>::with_config(STREAMS as u32 + 1, config).unwrap();
            let pool = queue.buf_pool(8192, 32).unwrap();
            let mut writers = Vec::new();
            for _ in 0..STREAMS {
                let (a, b) = UnixStream::pair().unwrap();
                let file = take(&queue, a);
                queue.submit_multi(RecvMulti::new(file, &pool), |s| (s.result.map(|b| b.len()), s.more)).unwrap();
                writers.push(b);
            }
            let writing = std::thread::spawn(move || {
                let mut random = Random(round + 1);
                for _ in 0..4_000 {
                    let (number, len) = (random.below(STREAMS as u64) as usize, 1 + random.below(60) as usize);
                    writers[number].write_all(&[7; 60][..len]).unwrap();
                }
            });
            let (mut ended, late) = (0, Instant::now() + Duration::from_secs(3));
            while ended < STREAMS {
                ended += queue.wait_until(late).unwrap().filter(|(_, (_, more))| !more).count();
                assert!(Instant::now() < late, "round {round}: {} streams have not ended", STREAMS - ended);
            }
            writing.join().unwrap();
        }
    });
}

#[test]
fn the_end_of_a_registered_unix_stream_is_not_missed() {
    fixed_ends(|queue, stream| queue.register_file(stream).unwrap());
}

#[test]
fn the_end_of_a_unix_stream_that_was_accepted_into_the_table_is_not_missed() {
    fixed_ends(|queue, stream| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let through = UnixStream::connect(&path).unwrap();
        let got: Rc<RefCell<Option<FixedFile>>> = Rc::default();
        let there = got.clone();
        let listener = queue.register_file(listener).unwrap();
        queue
            .submit(Accept::new(listener).direct(), move |done| {
                *there.borrow_mut() = Some(done.result.unwrap().file);
                (Ok(0), true)
            })
            .unwrap_or_else(|_| panic!("there is room"));
        while got.borrow().is_none() {
            queue.wait(1).unwrap().for_each(drop);
        }
        // What the test writes goes to `stream`'s peer, and from there to the one that was accepted.
        std::thread::spawn(move || {
            let (mut from, mut to) = (stream, through);
            let _ = std::io::copy(&mut from, &mut to);
        });

        got.borrow_mut().take().unwrap()
    });
}

#[test]
fn messages_of_a_fixed_stream_end() {
    each_engine(|engine| {
        let queue = Queue::<(aio::Result<usize>, bool)>::with_config(8, engine.config).unwrap();
        let pool = queue.buf_pool(8, 256).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut b = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (a, _) = listener.accept().unwrap();
        let file = queue.register_file(a).unwrap();
        queue.submit_multi(RecvMsgMulti::new(file, &pool), |s| (s.result.map(|m| m.bytes.len()), s.more)).unwrap();
        let _ = queue.poll().unwrap().count();
        b.write_all(b"world").unwrap();
        drop(b);
        shots(&queue, "recvmsg");
    });
}

struct Bomb(Rc<RefCell<Vec<u32>>>, u32);
impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
        let log = self.0.clone();
        let n = self.1;
        // Spawns, and is never joined.
        coro::spawn(move || {
            let _ = coro::yield_now();
            log.borrow_mut().push(1000 + n);
        });
    }
}

#[test]
fn nested_to_the_depth() {
    each_runtime(|| {
        fn nest(level: u32, log: Rc<RefCell<Vec<u32>>>) -> (u32, Option<Bomb>, [u64; 9]) {
            if level.is_multiple_of(3) {
                let _ = coro::yield_now();
            }
            if level < 80 {
                let inner = log.clone();
                let task = coro::spawn(move || nest(level + 1, inner));
                if level % 5 == 1 {
                    let _ = coro::sleep(Duration::from_micros(50));
                }
                if level % 7 == 2 {
                    // Moved, then dropped while the task may run.
                    let held = Box::new(task);
                    let _ = coro::yield_now();
                    drop(held);
                } else if level % 11 == 3 {
                    std::mem::forget(task);
                } else {
                    match task.join() {
                        Ok((n, bomb, numbers)) => {
                            assert_eq!((n, numbers), (level + 1, [u64::from(level) + 1; 9]));
                            drop(bomb);
                        }
                        Err(coro::JoinError::Panicked(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            if level % 13 == 4 {
                let _late = Bomb(log.clone(), 5000 + level);
                panic!("level {level}");
            }
            (level, level.is_multiple_of(4).then(|| Bomb(log, level)), [u64::from(level); 9])
        }
        let log: Rc<RefCell<Vec<u32>>> = Rc::default();
        std::panic::set_hook(Box::new(|_| {}));
        for _ in 0..50 {
            let result = coro::spawn({
                let log = log.clone();
                move || nest(0, log)
            })
            .join();
            drop(result);
        }
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_handle_of_a_forked_runtime_wakes_nobody() {
    in_own_process("a_handle_of_a_forked_runtime_wakes_nobody", || {
        die_after(10);
        let parent = std::process::id();
        let (handle, child) = coro::run(|| {
            let task = coro::spawn(move || {
                let _ = coro::park(1);
                assert_eq!(std::process::id(), parent, "it runs in the child, in a runtime that does not know it");
            });
            // SAFETY: the child does nothing but leave the runtime, and use another one.
            (task, unsafe { libc::fork() })
        })
        .unwrap();
        if child == 0 {
            let test = || {
                coro::run(|| {
                    let other = coro::spawn(|| coro::sleep(Duration::from_millis(2)));
                    handle.cancel();
                    for _ in 0..200 {
                        coro::yield_now().unwrap();
                    }
                    assert!(!handle.is_finished(), "it is its parent's");
                    assert!(handle.wait().is_err());
                    assert_eq!(other.join().unwrap(), Ok(()));
                })
                .unwrap();
            };
            let code = i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_err());
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        assert_eq!(common::Forked(child).wait(), 0, "the child has failed");
        assert!(handle.join().is_ok());
    });
}

#[test]
fn a_futex_wait_without_a_thread_is_not_queued_behind_another() {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };
    in_own_process("a_futex_wait_without_a_thread_is_not_queued_behind_another", || {
        die_after(20);
        let config = aio::Config::new().backend(aio::Backend::Epoll);
        let queue = Queue::<(u32, aio::Result<()>)>::with_config(4, config).unwrap();
        let [a, b] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        queue.submit(FutexWait::new(a.clone(), 0), |done| (1, done.result)).unwrap_or_else(|_| panic!("there is room"));
        std::thread::sleep(Duration::from_millis(20));
        // The thread's own engine is made before memory is short.
        aio::single(Nop::new()).unwrap();
        if queue.poll().unwrap().any(|(_, (_, result))| matches!(result, Err(aio::Error::Unsupported(_)))) {
            return;
        }
        let pages: u64 =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
        // No room for another stack.
        let limit = libc::rlimit { rlim_cur: pages * 4096, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit is a local.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        queue.submit(FutexWait::new(b.clone(), 0), |done| (2, done.result)).unwrap_or_else(|_| panic!("there is room"));
        let late = Instant::now() + Duration::from_secs(2);
        let wake = FutexWake::all(b.clone());
        std::thread::sleep(Duration::from_millis(20));
        b.store(1, SeqCst);
        aio::single(wake).unwrap();
        let event = queue.wait_until(late).unwrap().next();
        assert!(matches!(event, Some((_, (2, _)))), "{event:?}: it waits for a thread that waits for something else");
    });
}

/// Wakers, posters and the end of a queue, all at once.
#[test]
fn bells_ring_while_a_queue_goes() {
    each_queue(|config| {
        for round in 0..300 {
            let queue = Queue::<u64>::with_config(4, config).unwrap();
            let (waker, poster, canceler) =
                (queue.waker().unwrap(), queue.poster().unwrap(), queue.canceler().unwrap());
            let token = queue.submit(Timeout::after(Duration::from_secs(60)), |_| 0).unwrap();
            let threads: Vec<_> = (0..2)
                .map(|n| {
                    let (waker, poster, canceler) = (waker.clone(), poster.clone(), canceler.clone());
                    std::thread::spawn(move || {
                        for i in 0..20 + n {
                            waker.wake();
                            let _ = poster.post(i);
                            canceler.cancel(token);
                        }
                    })
                })
                .collect();
            drop((waker, poster, canceler));
            for _ in 0..round % 5 {
                queue.wait(1).unwrap().for_each(drop);
            }
            if round % 3 == 0 {
                drop(queue);
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            } else {
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                queue.run(|_, _| {}).unwrap();
            }
        }
    });
}

/// Streams that are dropped, forgotten, moved to other tasks, and outlive their runtime.
#[test]
fn streams_go_at_any_time() {
    use aio::net::{TcpListener, TcpStream};
    use std::io::{Read as _, Write as _};
    each_engine(|engine| {
        for round in 0..12u32 {
            let kept = Rc::new(RefCell::new(Vec::<Box<dyn std::any::Any>>::new()));
            let keep = kept.clone();
            common::runtime(engine)
                .run(move || {
                    let listener: &'static TcpListener = Box::leak(Box::new(TcpListener::bind("127.0.0.1:0").unwrap()));
                    let address = listener.local_addr().unwrap();
                    let server = coro::spawn(move || {
                        let mut incoming = listener.incoming();
                        let mut tasks = vec![];
                        for n in 0..8 {
                            let stream = match coro::timeout(Duration::from_millis(300), || incoming.next()) {
                                Some(stream) => stream.unwrap(),
                                None => break,
                            };
                            let keep = keep.clone();
                            tasks.push(coro::spawn(move || {
                                let mut chunks = stream.into_chunks();
                                let first = coro::timeout(Duration::from_millis(u64::from(n % 3)), || chunks.next());
                                match (n + round) % 6 {
                                    0 => std::mem::forget(chunks),
                                    1 => keep.borrow_mut().push(Box::new(chunks)),
                                    2 => drop(coro::spawn(move || coro::no_suspend(|| drop(chunks)))),
                                    3 => drop(chunks.into_parts()),
                                    4 => {
                                        let _all = chunks.by_ref().take(3).count();
                                        keep.borrow_mut().push(Box::new(first));
                                    }
                                    _ => {
                                        let moved =
                                            coro::spawn(move || chunks.next().map(|chunk| chunk.map(|c| c.len())));
                                        moved.cancel();
                                        keep.borrow_mut().push(Box::new(moved));
                                    }
                                }
                            }));
                        }
                        match round % 3 {
                            0 => std::mem::forget(incoming),
                            1 => keep.borrow_mut().push(Box::new(incoming)),
                            _ => drop(incoming),
                        }
                        for task in tasks {
                            task.join().unwrap();
                        }
                    });
                    let mut clients = vec![];
                    for n in 0..8u32 {
                        clients.push(coro::spawn(move || {
                            let mut stream = TcpStream::connect(address).unwrap();
                            for _ in 0..n {
                                let _ = stream.write_all(&[7; 3000]);
                                let _ = coro::yield_now();
                            }
                            let _ = coro::timeout(Duration::from_millis(5), || stream.read(&mut [0; 8]));
                        }));
                    }
                    if round % 4 != 3 {
                        clients.into_iter().for_each(|client| client.join().unwrap());
                        server.join().unwrap();
                    }
                })
                .unwrap();
            // Handles of a runtime that has gone: used in another one, and dropped.
            common::runtime(engine).run(|| drop(kept.take())).unwrap();
        }
    });
}

/// What is held stays as it was written, whatever else is received, cancelled, ended and started again.
#[test]
fn no_buffer_is_given_out_twice() {
    use aio::PooledBuf;
    type Event = (usize, aio::Result<PooledBuf>, bool);
    for incremental in [false, true] {
        each_queue(|config| {
            let mut random = Random(7);
            let queue = Queue::<Event>::with_config(16, config).unwrap();
            let pool = if incremental { queue.incremental_buf_pool(4, 256) } else { queue.buf_pool(8, 64) }.unwrap();
            let mut peers: Vec<Option<Box<dyn std::io::Write>>> = (0..6).map(|_| None).collect();
            let mut tokens = [None; 6];
            let mut held: Vec<(PooledBuf, u8)> = vec![];
            let mut stamp = 0u8;
            for _ in 0..3000 {
                let at = random.below(6) as usize;
                if peers[at].is_none() && tokens[at].is_none() {
                    macro_rules! start {
                        ($socket:expr) => {
                            queue
                                .submit_multi(RecvMulti::new($socket, &pool), move |s| (at, s.result, s.more))
                                .unwrap_or_else(|_| panic!("there is room"))
                        };
                    }
                    let tcp = |queue: &Queue<Event>| {
                        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                        let b = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                        b.set_nonblocking(true).unwrap();
                        let _ = queue;
                        (listener.accept().unwrap().0, b)
                    };
                    let unix = || {
                        let (a, b) = UnixStream::pair().unwrap();
                        b.set_nonblocking(true).unwrap();
                        (a, b)
                    };
                    tokens[at] = Some(match random.below(4) {
                        0 => {
                            let (a, b) = unix();
                            peers[at] = Some(Box::new(b));
                            start!(a)
                        }
                        1 => {
                            let (a, b) = unix();
                            peers[at] = Some(Box::new(b));
                            start!(queue.register_file(a).unwrap())
                        }
                        2 => {
                            let (a, b) = tcp(&queue);
                            peers[at] = Some(Box::new(b));
                            start!(a)
                        }
                        _ => {
                            let (a, b) = tcp(&queue);
                            peers[at] = Some(Box::new(b));
                            start!(queue.register_file(a).unwrap())
                        }
                    });
                }
                match random.below(12) {
                    0 => peers[at] = None,
                    1 => {
                        if let Some(token) = tokens[at] {
                            let _ = queue.cancel(token);
                        }
                    }
                    2..6 => {
                        let len = 1 + random.below(90) as usize;
                        if let Some(peer) = &mut peers[at] {
                            let _ = peer.write(&[at as u8; 90][..len]);
                        }
                    }
                    6 | 7 if !held.is_empty() => {
                        let (buf, stamp) = held.swap_remove(random.below(held.len() as u64) as usize);
                        assert!(buf.iter().all(|&byte| byte == stamp), "somebody else has written to it");
                    }
                    _ => {}
                }
                for (_, (at, result, more)) in queue.poll().unwrap() {
                    if !more {
                        tokens[at] = None;
                        peers[at] = None;
                    }
                    if let Ok(mut buf) = result
                        && !buf.is_empty()
                    {
                        assert!(buf.iter().all(|&byte| byte == at as u8), "it holds what was sent");
                        stamp = stamp.wrapping_add(1) | 0x80;
                        buf.fill(stamp);
                        held.push((buf, stamp));
                    }
                }
            }
            assert!(held.iter().all(|(buf, stamp)| buf.iter().all(|byte| byte == stamp)));
            drop(held);
            queue.cancel_all();
            queue.drain(|_, _| {}).unwrap();
        });
    }
}

/// A place belongs to one file at a time, whatever was cancelled, late, skipped or dropped.
#[test]
fn a_place_is_one_files_own() {
    enum Event {
        Opened(u8, aio::Result<FixedFile>),
        Read(u8, aio::Result<usize>, Vec<u8>),
        Other,
    }
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..8u8)
        .map(|n| {
            let path = dir.path().join(n.to_string());
            std::fs::write(&path, [n; 16]).unwrap();
            path
        })
        .collect();
    let body = || {
        each_queue(|config| {
            let mut random = Random(3);
            let queue = Queue::<Event, 1024>::with_config(24, config).unwrap();
            queue.file_table(12).unwrap();
            let path = dir.path().join("socket");
            let _ = std::fs::remove_file(&path);
            let listener = Rc::new(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let mut files: Vec<(u8, FixedFile)> = vec![];
            let (mut tokens, mut read) = (vec![], 0);
            for _ in 0..4000 {
                let n = random.below(8) as u8;
                if queue.reserve(3).is_ok() {
                    match random.below(8) {
                        0 | 1 => {
                            let open = OpenAt::new(paths[n as usize].clone()).direct();
                            tokens.push(
                                queue
                                    .submit(open, move |done| Event::Opened(n, done.result))
                                    .unwrap_or_else(|_| panic!()),
                            );
                        }
                        2 => {
                            // Whatever is skipped leaves its place.
                            let failing = OpenAt::new("no such file").direct().link();
                            let open = OpenAt::new(paths[n as usize].clone()).direct();
                            let maps =
                                (|_| Event::Other, move |done: aio::queue::Done<_>| Event::Opened(n, done.result));
                            let _ = queue.submit_chain((failing, open), maps).unwrap_or_else(|_| panic!());
                        }
                        3 => {
                            let accept = Accept::new(listener.clone()).direct();
                            tokens.push(queue.submit(accept, |_| Event::Other).unwrap_or_else(|_| panic!()));
                            if random.below(2) == 0 {
                                let _ = UnixStream::connect(&path);
                            }
                        }
                        4 => {
                            if let Ok(file) = queue.register_file(std::fs::File::open(&paths[n as usize]).unwrap()) {
                                files.push((n, file));
                            }
                        }
                        5 | 6 if !files.is_empty() => {
                            let at = random.below(files.len() as u64) as usize;
                            let (n, file) =
                                if random.below(2) == 0 { files.swap_remove(at) } else { files[at].clone() };
                            let op = Read::new(file, vec![0; 32]).at(0);
                            let _ = queue.submit(op, move |done| Event::Read(n, done.result, done.op.into_buf()));
                        }
                        _ if !files.is_empty() => drop(files.swap_remove(random.below(files.len() as u64) as usize)),
                        _ => {}
                    }
                }
                if random.below(3) == 0 && !tokens.is_empty() {
                    let _ = queue.cancel(tokens.swap_remove(random.below(tokens.len() as u64) as usize));
                }
                if queue.reserve(3).is_err() {
                    tokens.drain(..).for_each(|token| queue.cancel(token).unwrap_or(()));
                    let _ = queue.wait_until(Instant::now() + Duration::from_millis(1)).map(|events| {
                        events.for_each(|(_, event)| check(event, &mut files, &mut read));
                    });
                }
                queue.poll().unwrap().for_each(|(_, event)| check(event, &mut files, &mut read));
            }
            assert!(read > 0, "it reads");
            if random.below(2) == 0 {
                drop(queue);
            }

            fn check(event: Event, files: &mut Vec<(u8, FixedFile)>, read: &mut u32) {
                match event {
                    Event::Opened(n, Ok(file)) => files.push((n, file)),
                    Event::Read(n, result, bytes) => {
                        assert_eq!((result, &bytes[..16]), (Ok(16), &[n; 16][..]), "the file of somebody else");
                        *read += 1;
                    }
                    _ => {}
                }
            }
        });
    };
    in_own_process("a_place_is_one_files_own", || common::leaks_no_descriptor(body));
}
