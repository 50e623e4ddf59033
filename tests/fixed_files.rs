//! Files in the table of a queue.

mod common;

use aio::{Backend, Closing, Error, FixedFile, Queue, Service, op::*};
use common::{descriptors, each_engine, engines, file_with, in_own_process, leaks_no_descriptor, os, pipe};
use std::{
    fs::{self, File},
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// A queue on each engine.
#[track_caller]
fn each_queue<E>(capacity: u32, test: impl Fn(&Queue<'static, E>)) {
    each_engine(|engine| test(&Queue::with_config(capacity, engine.config).unwrap()));
}

/// Runs one operation to its end.
fn run<O: Op + 'static>(queue: &Queue<'static, aio::Result<O::Value>>, op: O) -> aio::Result<O::Value>
where
    O::Value: 'static,
{
    queue.submit(op, |done| done.result).unwrap_or_else(|_| panic!("there is room"));
    let (_, event) = queue.wait(1).unwrap().next().unwrap();
    event
}

/// As [`run`], on a queue of its own type, where operations give different things.
macro_rules! on {
    ($queue:expr, $op:expr) => {{
        let result = std::rc::Rc::new(std::cell::RefCell::new(None));
        let there = result.clone();
        $queue
            .submit($op, move |done| {
                *there.borrow_mut() = Some(done.result);
            })
            .unwrap_or_else(|_| panic!("there is room"));
        assert_eq!($queue.wait(1).unwrap().count(), 1);
        std::rc::Rc::into_inner(result).unwrap().into_inner().unwrap()
    }};
}

fn invalid<T: std::fmt::Debug>(result: &aio::Result<T>) -> bool {
    matches!(result, Err(Error::Invalid(_)))
}

#[test]
fn a_registered_file_is_read_and_written() {
    each_queue::<()>(4, |queue| {
        let file = queue.register_file(file_with(b"hello")).unwrap();
        assert_eq!(on!(queue, Read::new(file.clone(), vec![0; 8]).at(1)), Ok(4));
        assert_eq!(on!(queue, Write::new(file.clone(), "J").at(0)), Ok(1));
        let parts = Box::leak(Box::new([IoSliceMut::new(Box::leak(Box::new([0; 3])))]));
        assert_eq!(on!(queue, Readv::new(file.clone(), parts).at(0)), Ok(3));
        assert_eq!(on!(queue, Writev::new(file.clone(), Box::leak(Box::new([IoSlice::new(b"!")]))).at(5)), Ok(1));
        assert_eq!(on!(queue, Fsync::new(file.clone())), Ok(()));
        assert_eq!(on!(queue, Fallocate::new(file.clone(), 0, 16)), Ok(()));
        assert_eq!(on!(queue, Fadvise::new(file.clone(), Advice::Sequential)), Ok(()));
        assert_eq!(on!(queue, Ftruncate::new(file.clone(), 6)), Ok(()));
        let mut text = String::new();
        File::from(on!(queue, Install::new(file.clone())).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "!", "it has the file's position, which is behind what `file_with` wrote");
        assert_eq!(on!(queue, Read::new(file, vec![0; 8]).at(0)), Ok(6));
    });
}

#[test]
fn on_a_ring_it_takes_no_descriptor() {
    in_own_process("on_a_ring_it_takes_no_descriptor", || {
        let install = Backend::probe().operation("Install").unwrap();
        for engine in engines() {
            let queue = Queue::<()>::with_config(4, engine.config).unwrap();
            let before = descriptors();
            let files = [
                queue.register_file(File::open("Cargo.toml").unwrap()).unwrap(),
                on!(queue, OpenAt::new("Cargo.toml").direct()).unwrap(),
                on!(queue, Socket::new(Domain::V4, SocketType::Stream).direct()).unwrap(),
            ];
            let can = engine.backend == Backend::IoUring && engine.name != "io_uring of 5.11";
            let native = can && install.io_uring == Some(Service::Ring);
            assert_eq!(descriptors() - before, if native { 0 } else { 3 }, "{}", engine.name);
            drop(files);
            assert_eq!(descriptors(), before);
        }
    });
}

#[test]
fn by_reference_as_well() {
    each_queue::<()>(4, |queue| {
        let (a, mut b) = UnixStream::pair().unwrap();
        let file: &'static FixedFile = Box::leak(Box::new(queue.register_file(a).unwrap()));
        b.write_all(b"hello").unwrap();
        assert_eq!(on!(queue, Recv::new(file, vec![0; 8])), Ok(5));
        assert_eq!(on!(queue, Send::new(file, "hello")), Ok(5));
    });
}

#[test]
fn sockets_from_the_first_call_to_the_last() {
    each_queue::<()>(4, |queue| {
        let listener = on!(queue, Socket::new(Domain::V4, SocketType::Stream).direct()).unwrap();
        let reuse = SetSockOpt::new(listener.clone(), option::ReuseAddr, true);
        assert_eq!(on!(queue, reuse), Ok(()));
        assert_eq!(on!(queue, Bind::new(listener.clone(), ([127, 0, 0, 1], 0))), Ok(()));
        assert_eq!(on!(queue, Listen::new(listener.clone(), 8)), Ok(()));
        let named = TcpListener::from(on!(queue, Install::new(listener.clone())).unwrap());
        let address = named.local_addr().unwrap();
        let client = on!(queue, Socket::new(Domain::V4, SocketType::Stream).direct()).unwrap();
        assert_eq!(on!(queue, Connect::new(client.clone(), address)), Ok(()));
        let accepted = on!(queue, Accept::new(listener.clone()).direct()).unwrap();
        assert_eq!(accepted.peer.ip().unwrap().ip(), address.ip());
        assert_eq!(on!(queue, Accept::new(listener.clone()).nonblocking().direct()).unwrap_err(), would_block());
        assert_eq!(on!(queue, Accept::new(listener).nonblocking()).unwrap_err(), would_block());
        assert_eq!(on!(queue, SendZc::new(client.clone(), "ping")), Ok(4));
        assert_eq!(on!(queue, Poll::new(accepted.file.clone(), PollEvents::IN)), Ok(PollEvents::IN));
        assert_eq!(on!(queue, Recv::new(accepted.file.clone(), vec![0; 8])), Ok(4));
        assert_eq!(on!(queue, Recv::new(accepted.file.clone(), vec![0; 8]).nonblocking()), Err(would_block()));
        assert_eq!(on!(queue, Write::new(accepted.file.clone(), "pong")), Ok(4));
        assert_eq!(on!(queue, Shutdown::new(accepted.file.clone(), std::net::Shutdown::Write)), Ok(()));
        assert_eq!(on!(queue, Read::new(client.clone(), vec![0; 8])), Ok(4));
        assert_eq!(on!(queue, Read::new(client.clone(), vec![0; 8])), Ok(0));
        drop(client);
        assert_eq!(on!(queue, Recv::new(accepted.file, vec![0; 8])), Ok(0), "closed with its last handle");
    });
}

fn would_block() -> Error {
    Error::Os(aio::Errno::new(libc::EAGAIN))
}

#[test]
fn messages_and_splices() {
    each_queue::<()>(4, |queue| {
        let (a, b) = UnixDatagram::pair().unwrap();
        let (a, b) = (queue.register_file(a).unwrap(), queue.register_file(b).unwrap());
        assert_eq!(on!(queue, Send::new(a, "datagram")), Ok(8));
        assert_eq!(on!(queue, RecvFrom::new(b, vec![0; 16])).unwrap().0, 8);
        let (output, input) = pipe();
        let (output, input) = (queue.register_file(output).unwrap(), queue.register_file(input).unwrap());
        let file = queue.register_file(file_with(b"splice")).unwrap();
        assert_eq!(on!(queue, Splice::new(file.clone(), input.clone(), 6).from_offset(0)), Ok(6));
        assert_eq!(on!(queue, Splice::new(output.clone(), file.clone(), 3).to_offset(3)), Ok(3));
        // One end in the table, the other one not.
        let plain = file_with(b"plain");
        let to = plain.try_clone().unwrap();
        assert_eq!(on!(queue, Splice::new(output.clone(), to, 3).to_offset(0)), Ok(3));
        assert_eq!(on!(queue, Splice::new(plain, input, 5).from_offset(0)), Ok(5));
        assert_eq!(on!(queue, Read::new(output, vec![0; 8])), Ok(5));
        assert_eq!(on!(queue, Read::new(file, vec![0; 8]).at(0)), Ok(6));
    });
}

#[test]
fn operations_with_many_results() {
    each_queue::<aio::Result<Vec<u8>>>(8, |queue| {
        let pool = queue.buf_pool(4, 64).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let file = queue.register_file(a).unwrap();
        queue.submit_multi(RecvMulti::new(file, &pool), |shot| shot.result.map(|bytes| bytes.to_vec())).unwrap();
        for text in ["one", "two", "three"] {
            b.write_all(text.as_bytes()).unwrap();
            assert_eq!(queue.wait(1).unwrap().next().unwrap().1.unwrap(), text.as_bytes());
        }
        drop(b);
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1.unwrap(), b"");
        assert!(queue.is_empty());
        let (output, mut input) = std::io::pipe().unwrap();
        let output = queue.register_file(output).unwrap();
        let token = queue
            .submit_multi(PollMulti::new(output.clone(), PollEvents::IN), |shot| shot.result.map(|_| vec![]))
            .unwrap();
        input.write_all(b"x").unwrap();
        assert!(queue.wait(1).unwrap().next().unwrap().1.is_ok());
        queue.cancel(token).unwrap();
        while !queue.is_empty() {
            queue.wait(1).unwrap().for_each(drop);
        }
        queue.submit_multi(ReadMulti::new(output, &pool), |shot| shot.result.map(|bytes| bytes.to_vec())).unwrap();
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1.unwrap(), b"x");
    });
}

#[test]
fn connections_go_into_the_table_one_after_the_other() {
    each_queue::<aio::Result<FixedFile>>(8, |queue| {
        queue.file_table(3).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = queue.register_file(listener).unwrap();
        queue.submit_multi(AcceptMulti::new(listener).direct(), |shot| shot.result).unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut results = Vec::new();
        while results.len() < 3 {
            results.extend(queue.wait(1).unwrap().map(|(_, result)| result));
        }
        assert_eq!(results.pop().unwrap().unwrap_err(), Error::FilesFull);
        assert_eq!(clients[2].read(&mut [0]).unwrap(), 0, "closed");
        results.truncate(1);
        assert_eq!(clients[1].read(&mut [0]).unwrap(), 0, "closed with its handle");
        clients.push(TcpStream::connect(address).unwrap());
        queue.wait(1).unwrap().next().unwrap().1.expect("there is room again");
    });
}

#[test]
fn chains_of_a_queue() {
    each_queue::<aio::Result<usize>>(8, |queue| {
        let file = queue.register_file(tempfile::tempfile().unwrap()).unwrap();
        queue
            .submit_chain(
                (
                    Write::new(file.clone(), "durable").at(0).link(),
                    Fsync::new(file.clone()).hard_link(),
                    Read::new(file.clone(), vec![0; 7]).at(0).link(),
                    Read::new(file.clone(), vec![0; 7]).at(5).link(),
                    Nop::new(),
                ),
                (
                    |done| done.result,
                    |done| done.result.map(|()| 0),
                    |done| done.result,
                    |done| done.result,
                    |done| done.result.map(|()| 0),
                ),
            )
            .unwrap();
        let results: Vec<_> = queue.wait(5).unwrap().map(|(_, result)| result).collect();
        assert_eq!(results, [Ok(7), Ok(0), Ok(7), Ok(2), Err(Error::Skipped)]);
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (queue.register_file(a).unwrap(), queue.register_file(b).unwrap());
        let late = Recv::new(a.clone(), vec![0; 4]).timeout(Duration::from_millis(1));
        queue
            .submit_chain(
                (late.hard_link(), Send::new(b, "x").link(), Recv::new(a, vec![0; 4])),
                (|done| done.result, |done| done.result, |done| done.result),
            )
            .unwrap();
        let results: Vec<_> = queue.wait(3).unwrap().map(|(_, result)| result).collect();
        assert_eq!(results, [Err(Error::TimedOut), Ok(1), Ok(1)]);
    });
}

#[test]
fn a_direct_open_in_a_chain() {
    each_queue::<Option<FixedFile>>(8, |queue| {
        let (dir, name) = (tempfile::tempdir().unwrap(), "new");
        let handle = File::open(dir.path()).unwrap();
        let flags = OpenFlags::READ_WRITE | OpenFlags::CREATE;
        queue
            .submit_chain(
                (MkDirAt::new("sub").dir(handle.try_clone().unwrap()).link(), {
                    OpenAt::new(name).dir(handle).flags(flags).direct()
                }),
                (|_| None, |done| Some(done.result.unwrap())),
            )
            .unwrap();
        let file = queue.wait(2).unwrap().last().unwrap().1.unwrap();
        queue
            .submit(Write::new(file, "contents").at(0), |done| {
                assert_eq!(done.result, Ok(8));
                None
            })
            .unwrap();
        queue.wait(1).unwrap().for_each(drop);
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"contents");
        assert!(dir.path().join("sub").is_dir());
    });
}

#[test]
fn a_full_table_says_so() {
    each_queue::<()>(8, |queue| {
        queue.file_table(2).unwrap();
        assert!(invalid(&queue.file_table(2)), "once only");
        let open = || OpenAt::new("Cargo.toml").direct();
        let first = on!(queue, open()).unwrap();
        let _second = queue.register_file(File::open("Cargo.toml").unwrap()).unwrap();
        assert_eq!(on!(queue, open()).unwrap_err(), Error::FilesFull);
        assert_eq!(queue.register_file(File::open("Cargo.toml").unwrap()).unwrap_err(), Error::FilesFull);
        assert_eq!(on!(queue, Socket::new(Domain::V4, SocketType::Stream).direct()).unwrap_err(), Error::FilesFull);
        drop(first);
        // What fails gives its place back.
        for _ in 0..5 {
            assert_eq!(
                on!(queue, OpenAt::new("no such file").direct()).unwrap_err(),
                os::<()>(libc::ENOENT).unwrap_err()
            );
        }
        on!(queue, open()).unwrap();
    });
}

/// The kernel's refusal is the error, and the descriptor is closed all the same.
#[test]
#[cfg(target_os = "linux")]
fn a_ring_takes_no_ring() {
    // Where there is none there is nothing to refuse.
    let Ok(ring) = io_uring::IoUring::new(1) else { return };
    in_own_process("a_ring_takes_no_ring", || {
        for engine in engines() {
            leaks_no_descriptor(|| {
                let queue = Queue::<()>::with_config(1, engine.config).unwrap();
                // SAFETY: the ring is open.
                let fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }.try_clone_to_owned().unwrap();
                let registered = queue.register_file(fd).map(drop);
                // Where the table is no ring's it takes any descriptor.
                let taken = registered == Ok(()) && engine.name != "io_uring";
                assert!(taken || registered == os(libc::EBADF), "{}: {registered:?}", engine.name);
            });
        }
    });
}

#[test]
fn capacities_that_make_no_sense() {
    each_queue::<()>(1, |queue| {
        for capacity in [0, 1 << 20, usize::MAX] {
            assert!(invalid(&queue.file_table(capacity)), "{capacity}");
        }
        queue.file_table(300).unwrap();
        let all: Vec<_> = (0..300).map(|_| queue.register_file(File::open("Cargo.toml").unwrap()).unwrap()).collect();
        assert_eq!(on!(queue, Read::new(all[299].clone(), vec![0; 9]).at(0)), Ok(9));
    });
    in_own_process("capacities_that_make_no_sense", || {
        let limit = libc::rlimit { rlim_cur: 300, rlim_max: 300 };
        // SAFETY: the pointer is to a local.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        for engine in engines() {
            let queue = Queue::<()>::with_config(1, engine.config).unwrap();
            let refused = |places| queue.file_table(places).unwrap_err().to_string();
            assert!(refused(100).contains("RLIMIT_NOFILE"));
            assert!(refused(1_048_320).contains("RLIMIT_NOFILE"), "the most that there can be");
            assert!(refused(1_048_321).contains("1 to 1048320 places"));
            // The table that nobody has asked for is made all the same, of whatever can be had.
            let file = queue.register_file(File::open("Cargo.toml").unwrap()).unwrap();
            assert_eq!(on!(queue, Read::new(file, vec![0; 9]).at(0)), Ok(9));
        }
    });
}

#[test]
fn ten_thousand_files_pass_through_sixteen_places() {
    in_own_process("ten_thousand_files_pass_through_sixteen_places", || {
        for engine in engines() {
            eprintln!("on {}", engine.name);
            leaks_no_descriptor(|| {
                let queue = Queue::<aio::Result<FixedFile>>::with_config(16, engine.config).unwrap();
                queue.file_table(16).unwrap();
                for _ in 0..10_000 / 16 {
                    for _ in 0..16 {
                        queue.submit(OpenAt::new("Cargo.toml").direct(), |done| done.result).unwrap();
                    }
                    while !queue.is_empty() {
                        queue.wait(16).unwrap().for_each(|(_, file)| drop(file.unwrap()));
                    }
                }
                for _ in 0..1_000 {
                    queue.register_file(File::open("Cargo.toml").unwrap()).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_cancelled_accept_leaves_its_place() {
    each_queue::<aio::Result<AcceptedFile>>(8, |queue| {
        queue.file_table(1).unwrap();
        let listener = std::sync::Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        for round in 0..200 {
            let accept = Accept::new(listener.clone()).direct();
            let token = queue.submit(accept, |done| done.result).unwrap();
            queue.poll().unwrap().for_each(drop);
            // A connection may come first; then the cancel comes too late, or the connection does.
            let client = (round % 2 == 0).then(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let _ = queue.cancel(token);
            let (_, result) = queue.wait(1).unwrap().next().unwrap();
            match (client, result) {
                (None, result) => assert_eq!(result.unwrap_err(), Error::Canceled),
                (Some(mut client), Ok(accepted)) => {
                    drop(accepted);
                    assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed");
                }
                (Some(_), Err(error)) => {
                    assert_eq!(error, Error::Canceled);
                    listener.accept().unwrap();
                }
            }
        }
    });
}

#[test]
fn a_queue_may_go_with_everything_in_flight() {
    in_own_process("a_queue_may_go_with_everything_in_flight", || {
        for engine in engines() {
            eprintln!("on {}", engine.name);
            leaks_no_descriptor(|| {
                let queue = Queue::<()>::with_config(64, engine.config).unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let listener = queue.register_file(listener).unwrap();
                let (a, mut b) = UnixStream::pair().unwrap();
                let socket = queue.register_file(a).unwrap();
                let mut clients = vec![];
                for _ in 0..4 {
                    queue.submit(Accept::new(listener.clone()).direct(), |_| ()).unwrap();
                    queue.submit(Recv::new(socket.clone(), vec![0; 8]), |_| ()).unwrap();
                    queue.submit(OpenAt::new("Cargo.toml").direct(), |_| ()).unwrap();
                    queue.submit(Install::new(socket.clone()), |_| ()).unwrap();
                    clients.push(TcpStream::connect(address).unwrap());
                }
                queue.submit_multi(AcceptMulti::new(listener).direct(), |_| ()).unwrap();
                queue.poll().unwrap().take(1).for_each(drop);
                clients.push(TcpStream::connect(address).unwrap());
                drop(queue);
                assert_eq!(b.read(&mut [0; 8]).unwrap(), 0, "what is in the table is closed with the queue");
                drop(socket);
            });
        }
    });
}

#[test]
fn handles_that_outlive_their_queue() {
    each_engine(|engine| {
        let (a, mut b) = UnixStream::pair().unwrap();
        let first = Queue::<()>::with_config(2, engine.config).unwrap();
        let file = first.register_file(a).unwrap();
        let clone = file.clone();
        drop(first);
        // A ring's own end would close it some time later.
        b.set_nonblocking(true).unwrap();
        assert_eq!(b.read(&mut [0; 8]).unwrap(), 0, "closed with the queue");
        let second = Queue::<()>::with_config(2, engine.config).unwrap();
        assert!(invalid(&on!(second, Recv::new(file, vec![0; 8]))));
        assert!(invalid(&on!(second, Install::new(clone.clone()))));
        assert!(invalid(&second.cancel_file(&clone)));
        // Its number may be another file's by now, which must not be closed.
        let other = second.register_file(File::open("Cargo.toml").unwrap()).unwrap();
        drop(clone);
        assert_eq!(on!(second, Read::new(other, vec![0; 9]).at(0)), Ok(9));
    });
}

#[test]
fn another_queue_and_a_batch_refuse_it() {
    each_engine(|engine| {
        let [first, second] = [(); 2].map(|()| Queue::<()>::with_config(2, engine.config).unwrap());
        let file = first.register_file(file_with(b"first")).unwrap();
        let other = second.register_file(file_with(b"second")).unwrap();
        assert!(invalid(&on!(second, Read::new(file.clone(), vec![0; 8]).at(0))));
        assert!(invalid(&on!(first, Splice::new(file.clone(), other, 8))));
        assert!(invalid(&aio::single(Read::new(&file, &mut [0; 8]))));
        assert!(invalid(&aio::single(Write::new(file.clone(), "x"))));
        assert!(invalid(&aio::single(OpenAt::new("Cargo.toml").direct())));
        assert_eq!(on!(first, Read::new(file, vec![0; 8]).at(0)), Ok(5));
    });
}

#[test]
fn what_a_kernel_does_not_do_is_refused_everywhere() {
    each_engine(|engine| {
        // With room for a `Statx`.
        let queue = &Queue::<(), 1024>::with_config(2, engine.config).unwrap();
        let dir = queue.register_file(File::open(".").unwrap()).unwrap();
        let unsupported = |result: Result<(), Error>| matches!(result, Err(Error::Unsupported(_)));
        assert!(unsupported(on!(queue, OpenAt::new("Cargo.toml").dir(dir.clone())).map(drop)));
        assert!(unsupported(on!(queue, OpenAt::new("Cargo.toml").dir(dir.clone()).direct()).map(drop)));
        assert!(unsupported(on!(queue, Statx::of(dir.clone())).map(drop)));
        assert!(unsupported(on!(queue, UnlinkAt::new("no such file").dir(dir)).map(drop)));
        let socket = on!(queue, Socket::new(Domain::V4, SocketType::Stream).direct()).unwrap();
        assert!(unsupported(on!(queue, GetSockOpt::new(socket.clone(), option::NoDelay)).map(drop)));
        assert_eq!(on!(queue, SetSockOpt::new(socket.clone(), option::NoDelay, true)), Ok(()));
        assert_eq!(on!(queue, GetSockOpt::new(socket, option::ReuseAddr)), Ok(false));
    });
}

#[test]
fn installed_descriptors_are_ordinary_ones() {
    each_queue::<aio::Result<OwnedFd>>(2, |queue| {
        let (a, mut b) = UnixStream::pair().unwrap();
        let file = queue.register_file(a).unwrap();
        let fd = run(queue, Install::new(file.clone())).unwrap();
        // SAFETY: reads flags of an open descriptor.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        drop(file);
        let mut stream = UnixStream::from(fd);
        stream.write_all(b"still open").unwrap();
        assert_eq!(b.read(&mut [0; 16]).unwrap(), 10);
        drop(stream);
        assert_eq!(b.read(&mut [0; 16]).unwrap(), 0);
        let another = run(queue, Install::new(b)).unwrap();
        drop(another);
    });
}

#[test]
fn cancelling_by_file() {
    each_queue::<aio::Result<usize>>(8, |queue| {
        let [(a, _b), (c, mut d)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let (a, c) = (queue.register_file(a).unwrap(), queue.register_file(c).unwrap());
        for file in [&a, &a, &c] {
            queue.submit(Recv::new(file.clone(), vec![0; 8]), |done| done.result).unwrap();
        }
        queue.poll().unwrap().for_each(drop);
        assert_eq!(queue.cancel_file(&a), Ok(2));
        for _ in 0..2 {
            assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Err(Error::Canceled));
        }
        d.write_all(b"x").unwrap();
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Ok(1));
    });
}

#[test]
fn a_cancel_operation_by_file() {
    each_engine(|engine| {
        let queue = Queue::<aio::Result<u32>>::with_config(8, engine.config).unwrap();
        if !engine.cancels_by_descriptor {
            return;
        }
        let (a, _b) = UnixStream::pair().unwrap();
        let a = queue.register_file(a).unwrap();
        queue.submit(Recv::new(a.clone(), vec![0; 8]), |done| done.result.map(|len| len as u32)).unwrap();
        queue.submit(Cancel::fd(a), |done| done.result).unwrap();
        let mut results = vec![];
        while !queue.is_empty() {
            results.extend(queue.wait(1).unwrap().map(|(_, result)| result));
        }
        results.sort_by_key(Result::is_ok);
        assert_eq!(results, [Err(Error::Canceled), Ok(1)]);
    });
}

#[test]
fn closing_chains_work_beside_it() {
    each_engine(|engine| {
        let files: &'static [Closing] = Vec::leak((0..40).map(|_| Closing::opening()).collect());
        let queue = Queue::<aio::Result<usize>>::with_config(300, engine.config).unwrap();
        let chain = |file: &&'static Closing| {
            let file: &'static Closing = file;
            let read = Read::new(file, vec![0; 9]);
            let open = OpenAt::new("Cargo.toml").open_into(file);
            queue
                .submit_chain(
                    (open.link(), read.hard_link(), Close::new(file)),
                    (|done| done.result.map(|()| 0), |done| done.result, |done| done.result.map(|()| 0)),
                )
                .is_ok()
        };
        let submitted = files.iter().take(1).filter(chain).count();
        let kept = queue.register_file(File::open("Cargo.toml").unwrap()).unwrap();
        let submitted = submitted + files.iter().skip(1).filter(chain).count();
        assert_eq!(submitted, 40);
        queue.submit(Read::new(kept, vec![0; 8]).at(0), |done| done.result).unwrap_or_else(|_| panic!("there is room"));
        let mut sum = 0;
        while !queue.is_empty() {
            sum += queue.wait(1).unwrap().map(|(_, result)| result.unwrap()).sum::<usize>();
        }
        assert_eq!(sum, submitted * 9 + 8);
    });
}

#[test]
fn a_chain_comes_before_the_table() {
    each_engine(|engine| {
        let queue = Queue::<aio::Result<usize>>::with_config(8, engine.config).unwrap();
        let closing: &'static Closing = Box::leak(Box::new(Closing::opening()));
        let chain = || {
            let open = OpenAt::new("Cargo.toml").open_into(closing);
            queue
                .submit_chain(
                    (open.link(), Read::new(closing, vec![0; 9]).hard_link(), Close::new(closing)),
                    (|done| done.result.map(|()| 0), |done| done.result, |done| done.result.map(|()| 0)),
                )
                .unwrap_or_else(|_| panic!("there is room"));
        };
        let finish = || {
            while !queue.is_empty() {
                queue.wait(1).unwrap().for_each(|(_, result)| assert!(result.is_ok()));
            }
        };
        chain();
        // The emulation has run the chain by now, and never minds.
        let early = queue.file_table(400);
        assert!(early.is_ok() || invalid(&early), "{early:?}");
        finish();
        if early.is_err() {
            queue.file_table(400).expect("the chain has ended");
        }
        let files: Vec<_> = (0..400).map(|_| queue.register_file(File::open("Cargo.toml").unwrap()).unwrap()).collect();
        chain();
        queue.submit(Read::new(files[399].clone(), vec![0; 9]).at(0), |done| done.result).unwrap();
        finish();
    });
}

#[test]
fn a_write_to_a_socket_without_peer_raises_no_signal() {
    in_own_process("a_write_to_a_socket_without_peer_raises_no_signal", || {
        // SAFETY: restores the default action, which ends the process.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        for engine in engines() {
            let queue = Queue::<()>::with_config(4, engine.config).unwrap();
            let (a, b) = UnixStream::pair().unwrap();
            let a = queue.register_file(a).unwrap();
            drop(b);
            assert_eq!(on!(queue, Write::new(a, "x")), os(libc::EPIPE));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let accepted = on!(queue, Accept::new(listener).direct()).unwrap();
            drop(client);
            let failure = (0..100).find_map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                on!(queue, Write::new(accepted.file.clone(), "x")).err()
            });
            assert!(failure.is_some());
        }
    });
}

#[test]
fn a_forked_child_leaves_its_parents_files_alone() {
    in_own_process("a_forked_child_leaves_its_parents_files_alone", || {
        for engine in engines() {
            let queue = Queue::<()>::with_config(4, engine.config).unwrap();
            let file = queue.register_file(file_with(b"parent")).unwrap();
            let clone = std::mem::ManuallyDrop::new(file.clone());
            let code = common::fork(|| {
                assert!(queue.register_file(File::open("Cargo.toml").unwrap()).is_err());
                drop(std::mem::ManuallyDrop::into_inner(clone));
            });
            assert_eq!(code.wait(), 0);
            assert_eq!(on!(queue, Read::new(file, vec![0; 8]).at(0)), Ok(6));
        }
    });
}

#[test]
fn cancels_at_any_time_leave_all_places_free() {
    each_queue::<()>(32, |queue| {
        const PLACES: usize = 8;
        queue.file_table(PLACES).unwrap();
        let mut random = common::Random(7);
        let listener = std::sync::Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let mut clients = vec![];
        for _ in 0..500 {
            let mut tokens = vec![];
            for _ in 0..1 + random.below(8) {
                let submitted = match random.below(4) {
                    0 => queue.submit(OpenAt::new("Cargo.toml").direct(), |_| ()).ok(),
                    1 => queue.submit(Socket::new(Domain::V4, SocketType::Stream).direct(), |_| ()).ok(),
                    2 => queue.submit(OpenAt::new("no such file").direct(), |_| ()).ok(),
                    _ => queue.submit(Accept::new(listener.clone()).direct(), |_| ()).ok(),
                };
                tokens.extend(submitted);
                if random.below(8) == 0 {
                    clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
                }
            }
            if random.below(2) == 0 {
                queue.poll().unwrap().for_each(drop);
            }
            tokens.into_iter().for_each(|token| _ = queue.cancel(token));
            while !queue.is_empty() {
                queue.wait(1).unwrap().for_each(drop);
                queue.cancel_all();
            }
            // What was accepted, in vain or not, is closed; what was not waits in the backlog.
            clients.truncate(16);
        }
        let open = || queue.register_file(File::open("Cargo.toml").unwrap());
        let all: Vec<_> = (0..PLACES).map(|_| open().expect("free")).collect();
        assert_eq!(open().unwrap_err(), Error::FilesFull);
        drop(all);
    });
}

#[test]
fn a_panic_while_a_chain_is_lowered_gives_its_places_back() {
    struct Panics;
    impl AsFd for Panics {
        fn as_fd(&self) -> BorrowedFd<'_> {
            panic!("on purpose");
        }
    }
    each_queue::<()>(4, |queue| {
        queue.file_table(1).unwrap();
        for _ in 0..3 {
            let chain = (OpenAt::new("Cargo.toml").direct().link(), Read::new(Panics, vec![0; 8]));
            let submit = || queue.submit_chain(chain, (|_| (), |_| ())).is_ok();
            assert!(catch_unwind(AssertUnwindSafe(submit)).is_err());
            let accept = || queue.submit(Accept::new(Panics).direct(), |_| ()).is_ok();
            assert!(catch_unwind(AssertUnwindSafe(accept)).is_err());
        }
        on!(queue, OpenAt::new("Cargo.toml").direct()).expect("there is room");
    });
}
