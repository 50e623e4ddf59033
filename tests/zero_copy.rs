//! Sending without copying, on every engine: results as of the ordinary sends, and buffers that stay until the kernel
//! has let go of them.

mod common;
#[path = "common/net.rs"]
mod net;

use aio::{Backend, Error, Queue, Shared, coro, op::*, queue::Done};
use common::*;
use net::{tcp_pair, udp_pair};
use std::{
    io::{ErrorKind, IoSlice, Read as _},
    net::{TcpStream, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const BRIEF: Duration = Duration::from_millis(20);
const ALL: SendFlags = SendFlags::WAITALL;

/// A byte that is in no pattern.
const OTHER: u8 = 255;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Whether this engine leaves bytes where they are: it has sent without a copy if it got more completions than it has
/// given entries. As sockets do that for whole pages only, this sends some.
fn is_native() -> bool {
    let (a, b) = tcp_pair();
    let (data, mut into) = (vec![1; 1 << 16], vec![0; 1 << 16]);
    let before = aio::stats();
    let recv = Recv::new(&b, &mut into[..]).flags(RecvFlags::WAITALL);
    aio::multi((SendZc::new(&a, &data).flags(ALL), recv)).unwrap();
    let after = aio::stats();
    after.completed - before.completed > after.submitted - before.submitted
}

/// Fills a socket until it takes no more; gives how much that was.
fn fill(socket: impl AsFd) -> usize {
    let (junk, mut total) = (vec![0; 1 << 16], 0);
    while let Ok(len) = aio::single(Send::new(socket.as_fd(), &junk).nonblocking()) {
        total += len;
    }
    total
}

/// A TCP socket that takes nothing and waits, for its connection does not come about. (One that is full may find room
/// after a while, for the kernel moves bytes together.)
fn stuck() -> (OwnedFd, Vec<OwnedFd>) {
    let listener = aio::single(Socket::new(Domain::V4, SocketType::Stream)).unwrap();
    aio::multi((Bind::new(&listener, ([127, 0, 0, 1], 0)).link(), Listen::new(&listener, 0))).unwrap();
    let listener = std::net::TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let mut others: Vec<OwnedFd> = Vec::new();
    loop {
        assert!(others.len() < 8, "the backlog is full after one");
        let socket = aio::single(Socket::new(Domain::V4, SocketType::Stream)).unwrap();
        if aio::single(Connect::new(&socket, address).timeout(5 * BRIEF)) == Err(Error::TimedOut) {
            others.push(listener.into());
            return (socket, others);
        }
        others.push(socket);
    }
}

/// Reads until the end.
fn reader(mut stream: TcpStream, after: Duration) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        thread::sleep(after);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    })
}

#[test]
fn all_bytes_arrive_whatever_their_number() {
    each_engine(|_| {
        let (a, b) = tcp_pair();
        for len in [1, 5, 4095, 4096, 70_001, 1 << 20] {
            let (data, mut into) = (pattern(len), vec![0; len]);
            let recv = Recv::new(&b, &mut into[..]).flags(RecvFlags::WAITALL);
            let (sent, received) = aio::multi((SendZc::new(&a, &data).flags(ALL), recv)).unwrap();
            assert_eq!((sent, received), (len, len));
            assert!(into == data);

            let recv = Recv::new(&b, &mut into[..]).flags(RecvFlags::WAITALL);
            let parts = [IoSlice::new(&data[..len / 3]), IoSlice::new(&data[len / 3..])];
            let sends = SendMsgZc::new(&a, &parts).flags(ALL);
            assert_eq!(aio::multi((sends, recv)).unwrap(), (len, len));
            assert!(into == data);
        }
        // An owned buffer comes back. Nothing at all can be sent as well.
        let (sent, vec) = aio::single(SendZc::new(&a, vec![7; 3])).unwrap();
        assert_eq!((sent, vec), (3, vec![7; 3]));
        assert_eq!(aio::single(SendZc::new(&a, "")), Ok(0));
        let op = SendZc::new(&a, String::from("taken apart"));
        assert_eq!((op.buf().len(), op.into_buf().as_str()), (11, "taken apart"));
    });
}

#[test]
fn a_new_ring_does_not_copy_and_counts_its_completions_right() {
    each_backend(|backend| {
        let supported = Backend::probe().operation("SendZc").unwrap().io_uring.is_some();
        assert_eq!(is_native(), backend == Backend::IoUring && supported);
        // Nothing is left over that a later batch would take for its own.
        assert_eq!(aio::complete((Nop::new(), Nop::new().link(), Nop::new())).unwrap().errors, 0);
    });
}

#[test]
fn datagrams_with_and_without_addresses() {
    each_engine(|_| {
        let (a, b) = udp_pair();
        // More pages than a packet has room for, from an odd address.
        let data = pattern(65_001);
        let mut into = vec![0; 65_507];
        for len in [0, 1, 1000, 65_000] {
            assert_eq!(aio::single(SendZc::new(&a, &data[1..=len])), Ok(len));
            assert_eq!(aio::single(Recv::new(&b, &mut into[..])), Ok(len));
            assert!(into[..len] == data[1..=len]);
        }
        let parts: Vec<IoSlice<'_>> = data[..40_000].chunks(500).map(IoSlice::new).collect();
        assert_eq!(aio::single(SendMsgZc::new(&a, &parts)), Ok(40_000));
        assert_eq!(aio::single(Recv::new(&b, &mut into[..])), Ok(40_000));
        assert!(into[..40_000] == data[..40_000]);
        assert_eq!(aio::single(SendZc::new(&a, vec![0; 70_000])), os(libc::EMSGSIZE));

        let (c, d) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = d.local_addr().unwrap();
        assert_eq!(aio::single(SendZc::new(&c, "to").to(to)), Ok(2));
        assert_eq!(aio::single(SendMsgZc::new(&c, &[IoSlice::new(b"there")]).to(to)), Ok(5));
        for text in ["to", "there"] {
            let (len, from) = aio::single(RecvFrom::new(&d, &mut into[..])).unwrap();
            assert_eq!((&into[..len], from), (text.as_bytes(), c.local_addr().unwrap().into()));
        }
        assert_eq!(aio::single(SendZc::new(&c, "nowhere")), aio::single(Send::new(&c, "nowhere")));
    });
}

#[test]
fn sockets_that_cannot_do_it_copy() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(aio::single(SendZc::new(&a, "alone").timeout(NEVER)), Ok(5));
        let parts = [IoSlice::new(b" ha"), IoSlice::new(b"rd")];
        let chain = (
            SendZc::new(&a, " soft").link(),
            SendMsgZc::new(&a, &parts).timeout(NEVER).hard_link(),
            Recv::new(&b, &mut buffer).flags(RecvFlags::WAITALL).timeout(NEVER).link(),
            Nop::new(),
            SendZc::new(&a, "!"),
        );
        assert_eq!(aio::multi(chain).unwrap(), (5, 5, 16, (), 1));
        let without: Vec<u8> = buffer.into_iter().filter(|&byte| byte != b'!').collect();
        assert_eq!(without, b"alone soft hard");

        let (c, d) = UnixDatagram::pair().unwrap();
        let file = file_with(b"given");
        let give = Control::new().rights(&[file.as_fd()]);
        assert_eq!(aio::single(SendMsgZc::new(&c, &[IoSlice::new(b"file")]).control(&give)), Ok(4));
        let mut room = Control::for_rights(1);
        let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
        let received = aio::single(RecvMsg::new(&d, &mut parts).control(&mut room)).unwrap();
        assert!(matches!(&received.control[..], [ControlMessage::Rights(files)] if files.len() == 1));
    });
}

#[test]
fn errors_are_those_of_the_ordinary_sends() {
    each_engine(|_| {
        let file = file_with(b"");
        assert_eq!(aio::single(SendZc::new(&file, "x")), os(libc::ENOTSOCK));
        assert_eq!(aio::single(SendMsgZc::new(&file, &[IoSlice::new(b"x")])), os(libc::ENOTSOCK));
        let unconnected = aio::single(Socket::new(Domain::V4, SocketType::Stream)).unwrap();
        assert_eq!(aio::single(SendZc::new(&unconnected, "x")), aio::single(Send::new(&unconnected, "x")));
        let many = vec![IoSlice::new(b"x"); 1025];
        assert!(matches!(aio::single(SendMsgZc::new(&unconnected, &many)), Err(Error::Invalid(_))));

        let (a, b) = tcp_pair();
        aio::single(SetSockOpt::new(&a, option::NoDelay, true)).unwrap();
        drop(b);
        // The first one may still find room; its answer from the other end is that there is nobody.
        let _ = aio::single(SendZc::new(&a, "x"));
        let gone = aio::single(SendZc::new(&a, "x")).unwrap_err().kind();
        assert!(matches!(gone, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{gone:?}");
        let chain = aio::complete((SendZc::new(&a, "x").link(), Nop::new().hard_link(), Nop::new())).unwrap();
        assert_eq!(chain.results.0.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!((chain.results.1, chain.results.2), (Err(Error::Skipped), Err(Error::Skipped)));
    });
}

#[test]
fn waiting_for_room_can_be_refused_cancelled_or_limited() {
    each_engine(|engine| {
        for unix in [false, true] {
            let (a, _rest) = if unix {
                let (a, b) = UnixStream::pair().unwrap();
                fill(&a);
                (a.into(), vec![b.into()])
            } else {
                stuck()
            };
            assert_eq!(aio::single(SendZc::new(&a, "x").nonblocking()), os(libc::EAGAIN));
            assert_eq!(aio::single(SendMsgZc::new(&a, &[IoSlice::new(b"x")]).nonblocking()), os(libc::EAGAIN));
            assert_eq!(aio::single(SendZc::new(&a, "x").timeout(BRIEF)), Err(Error::TimedOut));
            let chain = (SendZc::new(&a, "x").timeout(BRIEF).link(), Nop::new());
            assert_eq!(aio::complete(chain).unwrap().results, (Err(Error::TimedOut), Err(Error::Skipped)));
            let chain = (SendZc::new(&a, "x").timeout(BRIEF).hard_link(), Nop::new());
            assert_eq!(aio::complete(chain).unwrap().results, (Err(Error::TimedOut), Ok(())));
            if engine.cancels_by_descriptor {
                let parts = [IoSlice::new(b"x")];
                let sends = (SendZc::new(&a, "x"), SendMsgZc::new(&a, &parts));
                let cancel = (Timeout::after(BRIEF).link(), Cancel::fd(&a));
                let done = aio::complete((sends.0, sends.1, cancel.0, cancel.1)).unwrap();
                assert_eq!(done.results, (Err(Error::Canceled), Err(Error::Canceled), Ok(()), Ok(2)));
            }
        }
    });
}

#[test]
fn what_was_sent_before_a_limit_counts_and_breaks_a_link_if_it_is_not_all() {
    each_engine(|_| {
        let (a, b) = tcp_pair();
        let data = pattern(32 << 20);
        // Nobody reads; so on a ring it ends when somebody does, after the limit.
        let reader = reader(b, 5 * BRIEF);
        let done =
            aio::complete((SendZc::new(&a, &data).flags(ALL).timeout(BRIEF).link(), Nop::new(), Nop::new())).unwrap();
        let (Ok(len), Err(Error::Skipped), Ok(())) = done.results else { panic!("{done:?}") };
        assert!(len > 0 && len < data.len());
        drop(a);
        assert!(reader.join().unwrap() == data[..len]);
    });
}

#[test]
fn what_is_linked_starts_when_the_bytes_were_handed_over() {
    each_engine(|_| {
        let data = pattern(16 << 20);
        for chain in 0..3 {
            let (a, mut b) = tcp_pair();
            let source = EventSource::new().unwrap();
            let all = thread::scope(|s| {
                // Nobody reads before what is linked to the send asks for it. The socket takes a part only, and not all
                // of that part finds room at the other end.
                let reader = s.spawn(|| {
                    aio::single(WaitEvent::new(&source)).unwrap();
                    let mut all = Vec::new();
                    b.read_to_end(&mut all).unwrap();
                    all
                });
                let (send, notify) = (SendZc::new(&a, &data), Notify::new(&source));
                let sent = match chain {
                    0 => aio::multi((send.link(), notify)).unwrap().0,
                    1 => aio::multi((send.timeout(NEVER).hard_link(), notify)).unwrap().0,
                    // The driver steps through this one, for the ring does not do the first part.
                    _ => {
                        let accept = Accept::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).nonblocking();
                        aio::complete((accept.hard_link(), send.link(), notify)).unwrap().results.1.unwrap()
                    }
                };
                a.shutdown(std::net::Shutdown::Both).unwrap();
                assert!(sent < data.len());
                (reader.join().unwrap(), sent)
            });
            assert!(all.0 == data[..all.1]);
        }
    });
}

#[test]
fn a_shared_buffer_is_not_changed_before_it_is_sent() {
    each_engine(|_| {
        let (a, b) = tcp_pair();
        let (mut bytes, file) = (pattern(1 << 18), file_with(&[0xff; 1 << 18]));
        let sent = bytes.clone();
        let reader = reader(b, BRIEF);
        let both = Shared::new(&mut bytes);
        let chain = (SendZc::new(&a, &both).flags(ALL).link(), Read::new(&file, &both).at(0));
        assert_eq!(aio::multi(chain).unwrap(), (1 << 18, 1 << 18));
        drop(a);
        assert!(reader.join().unwrap() == sent);
    });
}

#[test]
fn long_mixed_chains_and_many_at_once() {
    each_engine(|engine| {
        let (a, b) = tcp_pair();
        let (data, mut into) = (pattern(9_000), vec![0; 18_003]);
        let rounds = if engine.name.contains("eight") { 10 } else { 50 };
        for _ in 0..rounds {
            let parts = [IoSlice::new(&data[..4_500]), IoSlice::new(&data[4_500..])];
            let chain = (
                SendZc::new(&a, &data).flags(ALL).timeout(NEVER).link(),
                Send::new(&a, "abc").link(),
                SendMsgZc::new(&a, &parts).flags(ALL).link(),
                Recv::new(&b, &mut into[..]).flags(RecvFlags::WAITALL),
            );
            assert_eq!(aio::multi(chain).unwrap(), (9_000, 3, 9_000, 18_003));
            assert!(into[..9_000] == data && &into[9_000..9_003] == b"abc" && into[9_003..] == data);
        }
        let (c, d) = udp_pair();
        let sends = (0..300).map(|i| SendZc::new(&c, vec![i as u8; 100]));
        let mut count = 0;
        let done = aio::complete(aio::windowed(sends, 32).for_each(|_, result| {
            let (len, vec) = result.unwrap();
            assert_eq!((len, vec.len()), (100, 100));
            count += 1;
        }));
        assert_eq!((done.unwrap().errors, count), (0, 300));
        drop(d);
    });
}

#[test]
fn the_event_of_a_queue_comes_after_the_notification() {
    each_engine(|engine| {
        let native = is_native();
        let (a, b) = tcp_pair();
        let queue = Queue::<Done<SendZc<TcpStream, Vec<u8>>>>::with_config(4, engine.config).unwrap();
        let data = pattern(16 << 20);
        let token = queue.submit(SendZc::new(a, data.clone()), |done| done).unwrap();
        // The kernel takes a part of it, and nobody reads that.
        let until = std::time::Instant::now() + 5 * BRIEF;
        let mut early = queue.wait_until(until).unwrap();
        let done = if native {
            assert!(early.next().is_none(), "the kernel still needs the buffer");
            drop(early);
            // It has its result, which a cancel does not change.
            queue.cancel(token).unwrap();
            assert!(queue.poll().unwrap().next().is_none());
            let all = thread::spawn(move || {
                let mut all = Vec::new();
                (&b).read_to_end(&mut all).unwrap();
                all
            });
            let done = queue.wait(1).unwrap().next().unwrap().1;
            (done, all)
        } else {
            let done = early.next().unwrap().1;
            drop(early);
            (done, reader(b, Duration::ZERO))
        };
        let (Done { result, op }, all) = done;
        let (stream, buffer) = op.into_parts();
        assert!(buffer == data, "the buffer comes back");
        drop(stream);
        assert!(all.join().unwrap() == data[..result.unwrap()]);
    });
}

#[test]
fn a_queue_that_is_dropped_waits_until_the_kernel_has_let_go() {
    each_engine(|engine| {
        let native = is_native();
        let (a, b) = tcp_pair();
        let reads = Arc::new(AtomicBool::new(false));
        let data = pattern(16 << 20);
        let reader = thread::spawn({
            let reads = reads.clone();
            move || {
                thread::sleep(5 * BRIEF);
                reads.store(true, Ordering::SeqCst);
                let mut all = Vec::new();
                (&b).read_to_end(&mut all).unwrap();
                all
            }
        });
        let queue = Queue::<usize>::with_config(4, engine.config).unwrap();
        queue.submit(SendZc::new(a.try_clone().unwrap(), data.clone()), |done| done.result.unwrap()).unwrap();
        // One that does not get so far as to have a result, unless the socket finds room for some of it. (The kernel moves
        // bytes together.)
        let other = vec![OTHER; 1 << 20];
        queue.submit(SendZc::new(a.try_clone().unwrap(), other), |done| done.result.unwrap()).unwrap();
        assert!(queue.poll().unwrap().next().is_none() || !native);
        drop(queue);
        assert!(!native || reads.load(Ordering::SeqCst), "the kernel still used the buffer");
        drop(a);
        let all = reader.join().unwrap();
        let sent = all.iter().position(|&byte| byte == OTHER).unwrap_or(all.len());
        assert!(sent > 0 && all[..sent] == data[..sent], "what was sent is what was in the buffer");
        assert!(all[sent..].iter().all(|&byte| byte == OTHER), "and then some of the other one");
    });
}

#[test]
fn in_a_scope_buffers_are_borrowed_and_sent_again() {
    each_engine(|_| {
        let (a, b) = tcp_pair();
        let data = pattern(50_000);
        let reader = reader(b, Duration::ZERO);
        Queue::scope(2, |queue| {
            let mut send = Some(SendZc::new(&a, &data).flags(ALL));
            for _ in 0..20 {
                queue.submit(send.take().unwrap(), |done| done).unwrap();
                let done = queue.wait(1).unwrap().next().unwrap().1;
                assert_eq!(done.result, Ok(50_000));
                send = Some(done.op);
            }
        })
        .unwrap();
        drop(a);
        assert!(reader.join().unwrap() == data.repeat(20));
    });
}

#[test]
fn a_task_that_is_cancelled_waits_for_its_buffer() {
    each_runtime(|| {
        let (a, _rest) = stuck();
        coro::scope(|s| {
            let sender = s.spawn(|| {
                let local = [5u8; 1 << 14];
                aio::single(SendZc::new(&a, &local))
            });
            coro::sleep(BRIEF).unwrap();
            sender.cancel();
            assert_eq!(sender.join().unwrap(), Err(Error::Canceled));
        });
    });
}

#[test]
fn limits_that_race_results_leave_nothing_behind() {
    each_engine(|_| {
        let (a, b) = tcp_pair();
        let reader = reader(b, Duration::ZERO);
        let (data, mut total) = (pattern(1 << 18), 0);
        for round in 0..100 {
            let send = SendZc::new(&a, &data).flags(ALL).timeout(Duration::from_micros(round * 3));
            let done = aio::complete((send.link(), Nop::new(), Nop::new())).unwrap();
            match done.results {
                (Ok(len), after, Ok(())) => {
                    assert_eq!(after.is_ok(), len == data.len());
                    total += len;
                }
                (Err(Error::TimedOut), Err(Error::Skipped), Ok(())) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(a);
        assert_eq!(reader.join().unwrap().len(), total);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn without_memory_to_lock_the_bytes_are_copied() {
    in_own_process("without_memory_to_lock_the_bytes_are_copied", || {
        let before = backends();
        // SAFETY: only changes what this process may do.
        unsafe {
            // Enough for a ring.
            let few = libc::rlimit { rlim_cur: 256 << 10, rlim_max: 256 << 10 };
            assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &few), 0);
            if libc::geteuid() == 0 {
                // Root may lock as much as it likes.
                assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
            }
        }
        assert_eq!(backends(), before);
        each_backend(|_| {
            let (a, b) = tcp_pair();
            let (data, mut into) = (pattern(1 << 20), vec![0; 1 << 20]);
            let recv = Recv::new(&b, &mut into[..]).flags(RecvFlags::WAITALL);
            let (sent, _) = aio::multi((SendZc::new(&a, &data).flags(ALL), recv)).unwrap();
            assert_eq!(sent, data.len());
            assert!(into == data);
        });
    });
}
