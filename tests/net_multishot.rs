//! Connections and bytes that multishot operations bring to tasks.

mod common;

use aio::{
    Backend, Error, coro, is_canceled,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use common::{
    NEVER, Random, each_backend_runtime, each_engine, each_runtime, fork, in_own_process, leaks_no_descriptor, runtime,
};
use std::{
    collections::HashSet,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

const SOON: Duration = Duration::from_millis(5);
const LOCAL: &str = "127.0.0.1:0";

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Connections that wait to be accepted, each of which has sent its number.
fn clients(address: SocketAddr, numbers: std::ops::Range<u8>) -> Vec<std::net::TcpStream> {
    let clients = numbers.map(|number| {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(&[number]).unwrap();
        client
    });
    clients.collect()
}

fn number(mut stream: impl Read) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}

fn unix_pair() -> (UnixStream, std::os::unix::net::UnixStream) {
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    (a.into(), b)
}

/// A connection, and the other end in the hands of the standard library.
fn tcp_pair() -> (TcpStream, std::net::TcpStream) {
    let (listener, address) = listener();
    let client = std::net::TcpStream::connect(address).unwrap();
    (listener.accept().unwrap().0, client)
}

fn noise(len: usize) -> Vec<u8> {
    let mut random = Random(len as u64 | 1);
    (0..len).map(|_| random.below(256) as u8).collect()
}

#[test]
fn many_connections_come_in() {
    each_runtime(|| {
        let (listener, address) = listener();
        // More than are accepted ahead.
        let clients = clients(address, 0..200);
        let numbers: HashSet<u8> = listener.incoming().take(200).map(|stream| number(stream.unwrap())).collect();
        assert_eq!(numbers.len(), 200);
        drop(clients);

        coro::scope(|s| {
            let server = s.spawn(|| listener.incoming().take(20).map(|stream| number(stream.unwrap())).sum::<u8>());
            for number in 0..20 {
                TcpStream::connect(address).unwrap().write_all(&[number]).unwrap();
                coro::yield_now().unwrap();
            }
            assert_eq!(server.join().unwrap(), 190);
        });
    });
}

#[test]
fn so_they_do_through_a_unix_socket() {
    each_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let connect = |number| {
            let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
            client.write_all(&[number]).unwrap();
            client
        };
        let clients: Vec<_> = (0..9).map(connect).collect();
        let first: Vec<u8> = listener.incoming().take(4).map(|stream| number(stream.unwrap())).collect();
        assert_eq!(first, [0, 1, 2, 3]);
        let (fifth, peer) = listener.accept().unwrap();
        assert!(number(fifth) == 4 && peer.is_unnamed());
        let rest: Vec<u8> = listener.incoming().take(4).map(|stream| number(stream.unwrap())).collect();
        assert_eq!(rest, [5, 6, 7, 8]);
        drop(clients);
    });
}

#[test]
fn what_is_left_over_stays_with_the_listener() {
    each_runtime(|| {
        let (listener, address) = listener();
        let clients = clients(address, 0..10);
        let first: Vec<u8> = listener.incoming().take(3).map(|stream| number(stream.unwrap())).collect();
        assert_eq!(first, [0, 1, 2]);
        for client in &clients[3..5] {
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
        }
        assert_eq!(number(listener.incoming().next().unwrap().unwrap()), 5);
        // On another thread, without a runtime.
        let listener = thread::spawn(move || {
            assert_eq!(number(listener.accept().unwrap().0), 6);
            assert_eq!(number(listener.incoming().next().unwrap().unwrap()), 7);
            listener
        });
        let listener = listener.join().unwrap();
        drop(listener.try_clone().unwrap());
        drop(listener);
        for mut client in clients.into_iter().skip(8) {
            let end = client.read(&mut [0; 1]);
            assert!(matches!(end, Ok(0)) || end.is_err(), "closed with the listener");
        }
    });
}

#[test]
fn a_connection_that_went_away_while_it_was_left_over_is_told() {
    each_runtime(|| {
        let (listener, address) = listener();
        let mut clients = clients(address, 0..3);
        assert_eq!(number(listener.incoming().next().unwrap().unwrap()), 0);
        // With zero, closing throws the connection away.
        aio::single(aio::op::SetSockOpt::new(&clients[1], aio::op::option::Linger, Some(Duration::ZERO))).unwrap();
        drop(clients.remove(1));
        match listener.accept() {
            // It was not accepted ahead, or the address was told before.
            Ok((_, peer)) => assert_ne!(peer, clients[1].local_addr().unwrap()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionAborted),
        }
        assert_eq!(number(listener.accept().unwrap().0), 2);
    });
}

#[test]
fn a_cancelled_task_ends_it() {
    each_runtime(|| {
        let (listener, address) = listener();
        coro::scope(|s| {
            let server = s.spawn(|| {
                let mut incoming = listener.incoming();
                let first = number(incoming.next().unwrap().unwrap());
                assert!(incoming.next().is_none() && incoming.next().is_none());
                drop(incoming);
                assert!(is_canceled(&listener.accept().unwrap_err()));
                first
            });
            let _clients = clients(address, 7..8);
            common::eventually("the second wait", || {
                coro::dump().tasks.iter().any(|task| task.waits_for.as_deref() == Some("a connection"))
            });
            coro::sleep(SOON).unwrap();
            server.cancel();
            assert_eq!(server.join().unwrap(), 7);
        });
        let _clients = clients(address, 8..9);
        assert_eq!(number(listener.accept().unwrap().0), 8);
    });
}

#[test]
fn it_goes_on_after_a_time_limit() {
    each_runtime(|| {
        let (listener, address) = listener();
        let mut incoming = listener.incoming();
        assert!(coro::timeout(SOON, || incoming.next()).is_none());
        assert!(coro::timeout(Duration::ZERO, || incoming.next()).is_none());
        let _clients = clients(address, 0..3);
        assert_eq!(number(incoming.next().unwrap().unwrap()), 0);
        assert!(coro::timeout(Duration::ZERO, || incoming.next()).is_none(), "nothing is taken after the end");
        assert_eq!(number(coro::no_suspend(|| incoming.next()).unwrap().unwrap()), 1);
        let outside = || incoming.next();
        let through_another = aio::Config::new().run(outside).unwrap();
        assert_eq!(number(through_another.unwrap().unwrap()), 2);
    });
}

#[test]
fn an_error_is_an_item_and_it_goes_on() {
    each_runtime(|| {
        let (listener, _) = listener();
        aio::single(aio::op::Shutdown::new(&listener, Shutdown::Both)).unwrap();
        let mut incoming = listener.incoming();
        for _ in 0..3 {
            assert_eq!(incoming.next().unwrap().unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn descriptors_that_do_not_block_make_no_difference() {
    each_runtime(|| {
        let (listener, address) = listener();
        let listener = std::net::TcpListener::from(listener);
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from(listener);
        let (mut a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        b.set_nonblocking(true).unwrap();
        let mut chunks = UnixStream::from(b).into_chunks();
        coro::scope(|s| {
            let chunk = s.spawn(move || chunks.next().unwrap().unwrap().to_vec());
            let first = s.spawn(|| number(listener.incoming().next().unwrap().unwrap()));
            coro::sleep(SOON).unwrap();
            assert!(!chunk.is_finished() && !first.is_finished());
            a.write_all(b"hello").unwrap();
            let _clients = clients(address, 3..5);
            assert_eq!((first.join().unwrap(), chunk.join().unwrap()), (3, b"hello".to_vec()));
        });
    });
}

#[test]
fn it_goes_on_when_there_are_descriptors_again() {
    use std::os::fd::AsRawFd;
    fn limit(descriptors: u64) {
        let limit = libc::rlimit { rlim_cur: descriptors as libc::rlim_t, rlim_max: 1000 };
        // SAFETY: reads a local.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    }
    in_own_process("it_goes_on_when_there_are_descriptors_again", || {
        each_runtime(|| {
            limit(1000);
            let (listener, address) = listener();
            let clients = clients(address, 0..9);
            let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
            limit(next as u64 + 4);
            let (mut numbers, mut held, mut errors) = (HashSet::new(), Vec::new(), 0);
            let mut incoming = listener.incoming();
            while numbers.len() < 9 {
                match incoming.next().unwrap() {
                    Ok(stream) => {
                        numbers.insert(number(&stream));
                        held.push(stream);
                    }
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                        errors += 1;
                        assert!(errors < 100 && !held.is_empty(), "nothing can be accepted");
                        held.clear();
                    }
                }
            }
            assert!(errors > 0);
            drop((incoming, clients));
            limit(1000);
        });
    });
}

#[test]
fn a_panic_in_the_loop_leaves_the_rest() {
    each_runtime(|| {
        let (listener, address) = listener();
        let clients = clients(address, 0..5);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut incoming = listener.incoming();
            assert_eq!(number(incoming.next().unwrap().unwrap()), 0);
            // Taken while the panic unwinds.
            let _rest = common::OnDrop(|| assert_eq!(number(incoming.next().unwrap().unwrap()), 1));
            panic!("on purpose");
        }));
        assert_eq!(*panicked.unwrap_err().downcast_ref::<&str>().unwrap(), "on purpose");
        for expected in 2..5 {
            assert_eq!(number(listener.accept().unwrap().0), expected);
        }
        drop(clients);
        let task: coro::JoinHandle<()> = coro::spawn(move || {
            let _first = listener.incoming().next();
            panic!("on purpose");
        });
        let _client = TcpStream::connect(address).unwrap();
        assert!(task.join().is_err());
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn nothing_is_left_behind_however_it_ends() {
    in_own_process("nothing_is_left_behind_however_it_ends", || {
        each_engine(|engine| {
            leaks_no_descriptor(|| {
                // In tasks that wait, or that never came to take anything.
                runtime(engine)
                    .run(|| {
                        let (listener, address) = listener();
                        let waiting = coro::spawn(move || listener.incoming().count());
                        let (a, b) = unix_pair();
                        let chunks =
                            coro::spawn(move || a.into_chunks().map(|chunk| chunk.is_ok()).collect::<Vec<_>>());
                        let (c, d) = unix_pair();
                        let once = coro::spawn(move || c.recv_pooled().map(drop));
                        coro::sleep(SOON).unwrap();
                        let _clients = clients(address, 0..5);
                        assert!(!waiting.is_finished() && !chunks.is_finished() && !once.is_finished());
                        // The other ends stay open until all tasks are told to end.
                        coro::spawn(move || {
                            assert!(coro::sleep(NEVER).is_err());
                            drop((b, d));
                        });
                    })
                    .unwrap();
                // By handles that are forgotten, of a listener that goes before.
                runtime(engine)
                    .run(|| {
                        let (listener, address) = listener();
                        let mut incoming = listener.incoming();
                        let clients = clients(address, 0..5);
                        assert_eq!(number(incoming.next().unwrap().unwrap()), 0);
                        std::mem::forget(incoming);
                        drop(listener);
                        coro::sleep(SOON).unwrap();
                        drop(clients);
                    })
                    .unwrap();
                // By one that outlives the runtime, and finds what came for it.
                let (listener, address) = listener();
                let mut incoming = listener.incoming();
                let clients = clients(address, 0..6);
                runtime(engine).run(|| assert_eq!(number(incoming.next().unwrap().unwrap()), 0)).unwrap();
                assert_eq!(number(incoming.next().unwrap().unwrap()), 1);
                runtime(engine).run(|| assert_eq!(number(incoming.next().unwrap().unwrap()), 2)).unwrap();
                drop(incoming);
                assert_eq!(number(listener.accept().unwrap().0), 3);
                drop(clients);
            });
        });
    });
}

#[test]
fn a_child_of_fork_leaves_them_alone() {
    in_own_process("a_child_of_fork_leaves_them_alone", || {
        each_engine(|engine| {
            runtime(engine)
                .run(|| {
                    let (listener, address) = listener();
                    let mut incoming = Some(listener.incoming());
                    let _clients = clients(address, 0..2);
                    assert_eq!(number(incoming.as_mut().unwrap().next().unwrap().unwrap()), 0);
                    let (a, mut b) = unix_pair();
                    b.write_all(b"before").unwrap();
                    let mut chunks = Some(a.into_chunks());
                    assert_eq!(&*chunks.as_mut().unwrap().next().unwrap().unwrap(), b"before");
                    b.write_all(b"parent").unwrap();
                    let (c, mut d) = unix_pair();
                    d.write_all(b"child").unwrap();
                    let child = fork(|| {
                        drop(incoming.take());
                        let (mut stream, rest) = chunks.take().unwrap().into_parts();
                        assert!(rest.is_empty() && stream.write(b"from the child").is_ok());
                        assert_eq!(&*c.recv_pooled().unwrap(), b"child");
                    });
                    assert_eq!(child.wait(), 0);
                    assert_eq!(&*chunks.as_mut().unwrap().next().unwrap().unwrap(), b"parent");
                    assert_eq!(number(incoming.as_mut().unwrap().next().unwrap().unwrap()), 1);
                })
                .unwrap();
        });
    });
}

#[test]
fn it_does_not_run_far_ahead() {
    in_own_process("it_does_not_run_far_ahead", || {
        each_runtime(|| {
            let (listener, address) = listener();
            // Those that are there at the start.
            let mut clients = clients(address, 0..250);
            let before = common::descriptors();
            let mut incoming = listener.incoming();
            let mut streams: Vec<_> = incoming.by_ref().take(10).collect();
            coro::sleep(SOON).unwrap();
            assert!(common::descriptors() <= before + 10 + 64, "{}", common::descriptors() - before);
            streams.extend(incoming.by_ref().take(240));
            assert!(coro::timeout(SOON, || incoming.next()).is_none());
            // Those that come while nobody takes them: some between two looks at the ring.
            let before = common::descriptors();
            for _ in 0..200 {
                clients.push(std::net::TcpStream::connect(address).unwrap());
                coro::sleep(Duration::from_micros(20)).unwrap();
            }
            let ahead = common::descriptors() - before - 200;
            assert!(ahead < 100, "{ahead}");
            streams.extend(incoming.by_ref().take(200));
            assert!(streams.iter().all(Result::is_ok));
            assert!(coro::timeout(SOON, || incoming.next()).is_none());
        });
    });
}

#[test]
fn connections_that_are_ready_cost_no_call_each() {
    each_backend_runtime(|backend| {
        let (listener, address) = listener();
        let clients = clients(address, 0..100);
        let before = aio::stats();
        let streams: Vec<_> = listener.incoming().take(100).map(Result::unwrap).collect();
        let cost = aio::stats() - before;
        assert_eq!(streams.len(), 100);
        if backend == Backend::IoUring {
            assert!(cost.enters < 20, "{cost:?}");
            // Kernels before 6.10 have them accepted by calls of their own, where nobody waits.
            assert!(cost.direct == 0 || cost.direct >= 100, "{cost:?}");
        }
        drop(clients);
    });
}

#[test]
fn chunks_are_what_was_sent() {
    let sent = noise(1 << 20);
    each_runtime(|| {
        let check = |mut received: Box<dyn Iterator<Item = std::io::Result<aio::PooledBuf>>>| {
            let mut bytes = Vec::new();
            for chunk in received.by_ref() {
                let chunk = chunk.unwrap();
                assert!(!chunk.is_empty());
                bytes.extend_from_slice(&chunk);
            }
            assert!(bytes == sent && received.next().is_none());
        };
        thread::scope(|scope| {
            let (a, mut b) = tcp_pair();
            let sent = &sent;
            scope.spawn(move || b.write_all(sent).unwrap());
            check(Box::new(a.into_chunks()));
            let (a, mut b) = unix_pair();
            scope.spawn(move || b.write_all(sent).unwrap());
            check(Box::new(a.into_chunks()));
            let (a, mut b) = unix_pair();
            scope.spawn(move || b.write_all(sent).unwrap());
            let one_by_one = std::iter::from_fn(move || {
                Some(a.recv_pooled()).filter(|end| !matches!(end, Ok(end) if end.is_empty()))
            });
            check(Box::new(one_by_one));
        });
        assert_eq!(coro::stats().pool.used, 0);
    });
}

#[test]
fn a_pool_that_is_used_up_loses_nothing() {
    let sent = noise(100_000);
    for buffers in [0, 4] {
        each_engine(|engine| {
            let config = runtime(engine).pool(buffers, 1000);
            let result = config.run(|| {
                coro::scope(|s| {
                    let readers: Vec<_> = (0..5)
                        .map(|number| {
                            let (a, mut b) = unix_pair();
                            let sent = sent.clone();
                            thread::spawn(move || b.write_all(&sent).unwrap());
                            s.spawn(move || {
                                let mut kept = Vec::new();
                                for (at, chunk) in a.into_chunks().enumerate() {
                                    kept.push(chunk.unwrap());
                                    if at % (7 * number + 3) == 0 {
                                        coro::sleep(Duration::from_micros(100)).unwrap();
                                    }
                                }
                                kept.iter().flat_map(|chunk| chunk.to_vec()).collect::<Vec<_>>()
                            })
                        })
                        .collect();
                    for reader in readers {
                        assert!(reader.join().unwrap() == sent);
                    }
                });
                assert_eq!((coro::stats().pool.buffers, coro::stats().pool.used), (buffers, 0));
            });
            result.unwrap();
        });
    }
}

#[test]
fn idle_connections_hold_no_buffer() {
    each_engine(|engine| {
        let result = runtime(engine).pool(8, 1000).run(|| {
            coro::scope(|s| {
                let (ends, tasks): (Vec<_>, Vec<_>) = (0..40)
                    .map(|number| {
                        let (a, b) = unix_pair();
                        let chunks = move || {
                            if number % 2 == 0 { a.into_chunks().next().unwrap() } else { a.recv_pooled() }
                        };
                        (b, s.spawn(chunks))
                    })
                    .unzip();
                coro::sleep(SOON).unwrap();
                assert_eq!((coro::stats().pool.buffers, coro::stats().pool.used), (8, 0));
                let waiting =
                    coro::dump().tasks.iter().filter(|task| task.waits_for.as_deref() == Some("a chunk")).count();
                assert_eq!(waiting, 40);
                for (mut end, task) in ends.into_iter().zip(tasks) {
                    end.write_all(b"wake up").unwrap();
                    let chunk = task.join().unwrap().unwrap();
                    assert_eq!(&*chunk, b"wake up");
                    assert_eq!(coro::stats().pool.used, 1);
                }
                assert_eq!(coro::stats().pool.used, 0);
            });
        });
        result.unwrap();
    });
}

#[test]
fn a_stream_comes_back_with_what_it_has_received() {
    let sent = noise(50_000);
    each_runtime(|| {
        let (a, mut b) = unix_pair();
        let mut chunks = a.into_chunks();
        b.write_all(&sent).unwrap();
        let mut bytes = chunks.next().unwrap().unwrap().to_vec();
        assert!(chunks.stream().peer_addr().unwrap().is_unnamed());
        let (mut stream, rest) = chunks.into_parts();
        drop(b);
        rest.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        stream.read_to_end(&mut bytes).unwrap();
        assert!(bytes == sent);
        // One that was never used has nothing.
        assert!(stream.into_chunks().into_parts().1.is_empty());
    });
}

#[test]
fn chunks_outlive_their_runtime() {
    let sent = noise(50_000);
    each_engine(|engine| {
        let (a, mut b) = unix_pair();
        let mut chunks = a.into_chunks();
        b.write_all(&sent).unwrap();
        let mut bytes = Vec::new();
        runtime(engine).run(|| bytes.extend_from_slice(&chunks.next().unwrap().unwrap())).unwrap();
        bytes.extend_from_slice(&chunks.next().unwrap().unwrap());
        runtime(engine).run(|| bytes.extend_from_slice(&chunks.next().unwrap().unwrap())).unwrap();
        drop(b);
        chunks.for_each(|chunk| bytes.extend_from_slice(&chunk.unwrap()));
        assert!(bytes == sent);
    });
}

#[test]
fn a_wait_for_a_chunk_ends_with_the_task_or_its_time() {
    each_runtime(|| {
        let (a, mut b) = unix_pair();
        let mut chunks = a.into_chunks();
        let late = |chunk: Option<std::io::Result<_>>| chunk.unwrap().map(drop).unwrap_err().kind();
        coro::timeout(SOON, || {
            assert_eq!(late(chunks.next()), ErrorKind::TimedOut);
            assert!(chunks.next().is_none(), "a loop that skips errors ends");
        });
        chunks.stream().set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(late(chunks.next()), ErrorKind::TimedOut);
        assert_eq!(late(chunks.next()), ErrorKind::TimedOut);
        b.write_all(b"late").unwrap();
        assert_eq!(&*chunks.next().unwrap().unwrap(), b"late");
        let (a, rest) = chunks.into_parts();
        assert!(rest.is_empty());
        assert_eq!(a.recv_pooled().unwrap_err().kind(), ErrorKind::TimedOut);
        a.set_read_timeout(None).unwrap();

        let task = coro::spawn(move || {
            assert!(is_canceled(&a.recv_pooled().unwrap_err()));
            let mut chunks = a.into_chunks();
            assert!(is_canceled(&chunks.next().unwrap().unwrap_err()));
            assert!(chunks.next().is_none());
            let saved = coro::shield(|| chunks.next().unwrap().unwrap().to_vec());
            (saved, chunks.into_parts().0)
        });
        coro::sleep(SOON).unwrap();
        task.cancel();
        coro::sleep(SOON).unwrap();
        b.write_all(b"saved").unwrap();
        let (saved, a) = task.join().unwrap();
        assert_eq!(saved, b"saved");

        let task = coro::spawn(move || {
            let mut chunks = a.into_chunks();
            assert!(is_canceled(&chunks.next().unwrap().unwrap_err()));
            chunks.into_parts().0
        });
        coro::sleep(SOON).unwrap();
        task.cancel();
        let a = task.join().unwrap();
        b.write_all(b"kept").unwrap();
        assert_eq!(&*coro::no_suspend(|| a.recv_pooled()).unwrap(), b"kept");
        let mut chunks = a.into_chunks();
        b.write_all(b"fixed").unwrap();
        assert_eq!(&*coro::no_suspend(|| chunks.next()).unwrap().unwrap(), b"fixed");
    });
}

#[test]
fn an_error_ends_the_chunks() {
    each_runtime(|| {
        let (a, b) = tcp_pair();
        let mut chunks = a.into_chunks();
        assert!(coro::timeout(SOON, || chunks.next()).unwrap().is_err());
        aio::single(aio::op::SetSockOpt::new(&b, aio::op::option::Linger, Some(Duration::ZERO))).unwrap();
        drop(b);
        assert_eq!(chunks.next().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(chunks.next().is_none());
    });
}

#[test]
fn without_a_runtime_each_chunk_has_its_buffer() {
    each_engine(|_| {
        let (a, mut b) = unix_pair();
        b.write_all(b"one").unwrap();
        assert_eq!(&*a.recv_pooled().unwrap(), b"one");
        let mut chunks = a.into_chunks();
        b.write_all(b"two").unwrap();
        let mut two = chunks.next().unwrap().unwrap();
        two.advance(1);
        two[0] = b'W';
        two.truncate(1);
        assert_eq!(&*two, b"W");
        drop(b);
        assert!(chunks.next().is_none() && chunks.stream().recv_pooled().unwrap().is_empty());
    });
}

#[test]
fn a_forgotten_iterator_harms_nobody() {
    each_runtime(|| {
        let (a, mut b) = unix_pair();
        let mut chunks = a.into_chunks();
        b.write_all(b"first").unwrap();
        assert_eq!(&*chunks.next().unwrap().unwrap(), b"first");
        std::mem::forget(chunks);
        // Far more than is received ahead; the rest stays in the socket.
        b.set_nonblocking(true).unwrap();
        while b.write(&[0; 1000]).is_ok() {}
        coro::sleep(SOON).unwrap();
        let (c, mut d) = unix_pair();
        d.write_all(b"others go on").unwrap();
        assert_eq!(&*c.recv_pooled().unwrap(), b"others go on");
        assert_eq!(coro::timeout(SOON, || coro::sleep(NEVER)), Err(Error::TimedOut));
    });
}
