//! Operations with many results.

#[path = "common/net.rs"]
mod net;

mod common;

use aio::{Error, Queue, Result, op::*, queue::*};
use common::*;
use net::{closes_on_exec, tcp_pair, udp_pair};
use std::{
    collections::VecDeque,
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes or an error, and whether there will be more.
type Told = (Result<String>, bool);

fn told<O: MultiOp<Item = aio::PooledBuf>>(shot: Shot<O>) -> Told {
    assert_eq!(shot.op.is_some(), !shot.more);
    (shot.result.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()), shot.more)
}

fn more(text: &str) -> Told {
    (Ok(text.to_owned()), true)
}

const END: Told = (Ok(String::new()), false);
const CANCELED: Told = (Err(Error::Canceled), false);

fn failed(number: i32) -> Told {
    (os(number), false)
}

/// How many bytes the kernel has for whoever reads from a descriptor.
fn unread(fd: impl AsFd) -> usize {
    let mut count = 0;
    // SAFETY: the kernel writes an int.
    assert_eq!(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD as _, &mut count) }, 0);
    usize::try_from(count).unwrap()
}

#[test]
fn connections_are_accepted_one_after_the_other() {
    each_queue(|config| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let queue = queue(8, config);
        let mut accept = AcceptMulti::new(listener);
        let mut early: VecDeque<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        for _ in 0..2 {
            let token = queue.submit_multi(accept, |shot| (shot.result, shot.more, shot.op)).unwrap();
            for _ in 0..5 {
                let mut client = early.pop_front().unwrap_or_else(|| TcpStream::connect(address).unwrap());
                let (which, (accepted, more, op)) = queue.wait(1).unwrap().next().unwrap();
                assert!(which == token && more && op.is_none());
                let mut server = TcpStream::from(accepted.unwrap());
                assert!(closes_on_exec(&server));
                assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
                client.write_all(b"x").unwrap();
                assert_eq!(server.read(&mut [0; 4]).unwrap(), 1);
            }
            queue.cancel(token).unwrap();
            let (_, (result, more, op)) = queue.wait(1).unwrap().next().unwrap();
            assert_eq!((result.err(), more), (Some(Error::Canceled), false));
            accept = op.unwrap();
            assert!(queue.is_empty() && queue.cancel(token) == os(libc::ENOENT));
        }
        assert_eq!(accept.into_descriptor().local_addr().unwrap(), address);
    });
}

#[test]
fn what_cannot_be_accepted_or_received_from_ends_at_once() {
    each_queue(|config| {
        let queue: Queue<Told> = queue(8, config);
        let pool = queue.buf_pool(4, 256).unwrap();
        let accepted = |shot: Shot<AcceptMulti<OwnedFd>>| (shot.result.map(|_| String::new()), shot.more);
        queue.submit_multi(AcceptMulti::new(pipe().0), accepted).unwrap();
        assert_eq!(drained(&queue), [failed(libc::ENOTSOCK)]);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        queue.submit_multi(AcceptMulti::new(tcp_pair().0.into()), accepted).unwrap();
        assert_eq!(drained(&queue), [failed(libc::EINVAL)]);
        queue.submit_multi(RecvMulti::new(socket, &pool), told).unwrap();
        assert_eq!(drained(&queue), [failed(libc::ENOTCONN)]);
        queue.submit_multi(RecvMulti::new(pipe().0, &pool), told).unwrap();
        assert_eq!(drained(&queue), [failed(libc::ENOTSOCK)]);
        queue.submit_multi(ReadMulti::new(pipe().1, &pool), told).unwrap();
        assert_eq!(drained(&queue), [failed(libc::EBADF)]);
    });
}

#[test]
fn a_stream_is_received_until_it_ends() {
    each_queue(|config| {
        let queue: Queue<Told> = queue(8, config);
        let pool = queue.buf_pool(8, 16).unwrap();
        let (unix, tcp) = (UnixStream::pair().unwrap(), tcp_pair());
        let pairs = [(OwnedFd::from(unix.0), OwnedFd::from(unix.1)), (tcp.0.into(), tcp.1.into())];
        for (a, b) in pairs {
            let mut b = File::from(b);
            queue.submit_multi(RecvMulti::new(a, &pool), told).unwrap();
            for text in ["abc", "d", "0123456789abcdef"] {
                b.write_all(text.as_bytes()).unwrap();
                assert_eq!(collect(&queue, 1), [more(text)]);
            }
            b.write_all(b"more than a buffer").unwrap();
            drop(b);
            assert_eq!(drained(&queue), [more("more than a buff"), more("er"), END]);
        }
        // All of it there before the start.
        let (a, mut b) = UnixStream::pair().unwrap();
        b.write_all(b"abc").unwrap();
        b.shutdown(Shutdown::Write).unwrap();
        queue.submit_multi(RecvMulti::new(a, &pool), told).unwrap();
        assert_eq!(drained(&queue), [more("abc"), END]);
        // Flags that take no part in it are kept.
        let (a, _b) = tcp_pair();
        queue.submit_multi(RecvMulti::new(a, &pool).flags(RecvFlags::PEEK), told).unwrap();
        assert!(matches!(drained(&queue)[..], [(Err(Error::Invalid(_)), false)]));
    });
}

#[test]
fn a_broken_connection_ends_with_its_error() {
    each_queue(|config| {
        let queue: Queue<Told> = queue(8, config);
        let pool = queue.buf_pool(8, 16).unwrap();
        let (a, b) = tcp_pair();
        let mut copy = a.try_clone().unwrap();
        queue.submit_multi(RecvMulti::new(a, &pool), told).unwrap();
        (&b).write_all(b"abc").unwrap();
        assert_eq!(collect(&queue, 1), [more("abc")]);
        // A socket that is closed with data unread resets the connection.
        copy.write_all(b"never read").unwrap();
        while unread(&b) == 0 {
            thread::yield_now();
        }
        drop(b);
        assert_eq!(drained(&queue), [failed(libc::ECONNRESET)]);
    });
}

#[test]
fn what_came_before_a_cancel_is_delivered_before_its_end() {
    each_queue(|config| {
        let queue: Queue<Told> = queue(8, config);
        let pool = queue.buf_pool(8, 4).unwrap();
        for seen in [true, false] {
            let (a, mut b) = UnixStream::pair().unwrap();
            let copy = a.try_clone().unwrap();
            let token = queue.submit_multi(RecvMulti::new(a, &pool), told).unwrap();
            assert_eq!(taken(&queue), []);
            b.write_all(b"abcdefg").unwrap();
            if seen {
                drop(queue.wait(2).unwrap());
            }
            queue.cancel(token).unwrap();
            queue.cancel(token).unwrap();
            let mut events = drained(&queue);
            assert_eq!(events.pop(), Some(CANCELED));
            let got: String = events.into_iter().map(|(bytes, _)| bytes.unwrap()).collect();
            assert!(!seen || got == "abcdefg");
            // Nothing is lost: the rest is still in the socket.
            let mut rest = vec![0; unread(&copy)];
            (&copy).read_exact(&mut rest).unwrap();
            assert_eq!(got + std::str::from_utf8(&rest).unwrap(), "abcdefg");
        }
        // Before anything has happened.
        let token = queue.submit_multi(RecvMulti::new(UnixStream::pair().unwrap().0, &pool), told).unwrap();
        queue.cancel(token).unwrap();
        assert!([vec![CANCELED], vec![END]].contains(&drained(&queue)));
    });
}

#[test]
fn datagrams_are_received_one_by_one() {
    each_queue(|config| {
        let queue: Queue<Told> = queue(8, config);
        let pool = queue.buf_pool(8, 8).unwrap();
        let (a, b) = udp_pair();
        queue.submit_multi(RecvMulti::new(a, &pool), told).unwrap();
        let send = |text: &str| assert_eq!(b.send(text.as_bytes()).unwrap(), text.len());
        let messages = ["a", "bc", "12345678", "too long for a buffer", "d"];
        for text in messages {
            send(text);
        }
        let expected = ["a", "bc", "12345678", "too long", "d"].map(more);
        assert_eq!(collect(&queue, 5), expected);
        // An empty one ends it.
        send("e");
        send("");
        send("f");
        assert_eq!(drained(&queue), [more("e"), END]);
        let (a, b) = UnixDatagram::pair().unwrap();
        queue.submit_multi(RecvMulti::new(a, &pool), told).unwrap();
        for text in ["a", "bc"] {
            b.send(text.as_bytes()).unwrap();
        }
        assert_eq!(collect(&queue, 2), [more("a"), more("bc")]);
    });
}

/// A message: who sent it, its bytes, whether it was cut, whether there will be more.
type Letter = (Result<(Address, String, bool)>, bool);

fn letter<D: AsFd>(shot: Shot<RecvMsgMulti<D>>) -> Letter {
    assert_eq!(shot.op.is_some(), !shot.more);
    let open =
        |message: Message| (message.peer, String::from_utf8_lossy(&message.bytes).into_owned(), message.truncated);
    (shot.result.map(open), shot.more)
}

#[test]
fn messages_tell_who_has_sent_them() {
    each_queue(|config| {
        let queue: Queue<Letter> = queue(8, config);
        let pool = queue.buf_pool(8, 144 + 8).unwrap();
        for ip in [Ipv4Addr::LOCALHOST.into(), std::net::IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let Ok(a) = UdpSocket::bind((ip, 0)) else { continue };
            let address = a.local_addr().unwrap();
            let senders: Vec<_> = (0..3).map(|_| UdpSocket::bind((ip, 0)).unwrap()).collect();
            let token = queue.submit_multi(RecvMsgMulti::new(a, &pool), letter).unwrap();
            for (sender, text) in senders.iter().zip(["abc", "", "too long for it"]) {
                sender.send_to(text.as_bytes(), address).unwrap();
                let peer = Address::from(sender.local_addr().unwrap());
                let (text, cut) = if text.len() > 8 { ("too long", true) } else { (text, false) };
                assert_eq!(collect(&queue, 1), [(Ok((peer, text.to_owned(), cut)), true)]);
            }
            queue.cancel(token).unwrap();
            assert_eq!(drained(&queue), [(Err(Error::Canceled), false)]);
        }
        let dir = tempfile::tempdir().unwrap();
        let [receiver, named] = ["receiver", "sender"].map(|name| dir.path().join(name));
        let a = UnixDatagram::bind(&receiver).unwrap();
        queue.submit_multi(RecvMsgMulti::new(a, &pool), letter).unwrap();
        let sender = UnixDatagram::bind(&named).unwrap();
        sender.send_to(b"named", &receiver).unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"unnamed", &receiver).unwrap();
        let peer = Address::unix(&named).unwrap();
        let expected = [(peer, "named".to_owned(), false), (Address::Unnamed, "unnamed".to_owned(), false)];
        assert_eq!(collect(&queue, 2), expected.map(|message| (Ok(message), true)));
    });
}

#[test]
fn descriptors_that_come_with_a_message_are_closed() {
    each_queue(|config| {
        let queue: Queue<Letter> = queue(8, config);
        let pool = queue.buf_pool(8, 256).unwrap();
        let (a, b) = UnixDatagram::pair().unwrap();
        let token = queue.submit_multi(RecvMsgMulti::new(a, &pool), letter).unwrap();
        let (output, input) = pipe();
        let control = Control::for_rights(1).rights(&[input.as_fd()]);
        aio::single(SendMsg::new(&b, &[std::io::IoSlice::new(b"abc")]).control(&control)).unwrap();
        drop(control);
        drop(input);
        let (message, more) = collect(&queue, 1).remove(0);
        assert!(more && message.unwrap().1 == "abc");
        assert_eq!(aio::single(Read::new(&output, &mut [0u8; 1])), Ok(0), "nobody has the other end");
        queue.cancel(token).unwrap();
        assert_eq!(drained(&queue).len(), 1);
    });
}

#[test]
fn messages_that_have_no_room_are_refused() {
    each_queue(|config| {
        let queue: Queue<Letter> = queue(8, config);
        let (a, b) = udp_pair();
        let small = queue.buf_pool(4, 144).unwrap();
        queue.submit_multi(RecvMsgMulti::new(a.try_clone().unwrap(), &small), letter).unwrap();
        let room = queue.buf_pool(4, 145).unwrap();
        let refused = RecvMsgMulti::new(a.try_clone().unwrap(), &room).flags(RecvFlags::TRUNC);
        queue.submit_multi(refused, letter).unwrap();
        for event in drained(&queue) {
            assert!(matches!(event, (Err(Error::Invalid(_)), false)), "{event:?}");
        }
        queue.submit_multi(RecvMsgMulti::new(a, &room), letter).unwrap();
        b.send(b"x").unwrap();
        b.send(b"yz").unwrap();
        let peer = Address::from(b.local_addr().unwrap());
        let expected = [(peer.clone(), "x".to_owned(), false), (peer, "y".to_owned(), true)];
        assert_eq!(collect(&queue, 2), expected.map(|message| (Ok(message), true)));
    });
}

#[test]
fn messages_of_a_stream_end_with_it() {
    each_queue(|config| {
        let queue: Queue<Letter> = queue(8, config);
        let pool = queue.buf_pool(8, 256).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        queue.submit_multi(RecvMsgMulti::new(a, &pool), letter).unwrap();
        b.write_all(b"abc").unwrap();
        assert_eq!(collect(&queue, 1), [(Ok((Address::Unnamed, "abc".to_owned(), false)), true)]);
        drop(b);
        let last = collect(&queue, 1).remove(0);
        assert_eq!(last, (Ok((Address::Unnamed, String::new(), false)), false));
        assert!(queue.is_empty());
    });
}

#[test]
fn a_pipe_is_read_until_it_ends() {
    each_queue(|config| {
        let queue: Queue<Told> = queue(8, config);
        let pool = queue.buf_pool(8, 16).unwrap();
        let (output, input) = pipe();
        let mut input = File::from(input);
        queue.submit_multi(ReadMulti::new(output, &pool), told).unwrap();
        for text in ["abc", "d", "0123456789abcdef"] {
            input.write_all(text.as_bytes()).unwrap();
            assert_eq!(collect(&queue, 1), [more(text)]);
        }
        input.write_all(b"abc").unwrap();
        drop(input);
        assert_eq!(drained(&queue), [more("abc"), END]);
        let (a, mut b) = UnixStream::pair().unwrap();
        let token = queue.submit_multi(ReadMulti::new(a, &pool), told).unwrap();
        b.write_all(b"socket").unwrap();
        assert_eq!(collect(&queue, 1), [more("socket")]);
        queue.cancel(token).unwrap();
        assert_eq!(drained(&queue), [CANCELED]);
    });
}

#[test]
fn an_event_source_is_read_as_often_as_it_was_notified() {
    each_queue(|config| {
        let source = EventSource::new().unwrap();
        Queue::<(Result<usize>, bool), 512>::scope_with_config(4, config, |queue| {
            let pool = queue.buf_pool(8, 8).unwrap();
            let map = |shot: Shot<ReadMulti<&EventSource>>| (shot.result.map(|bytes| bytes.len()), shot.more);
            let token = queue.submit_multi(ReadMulti::new(&source, &pool), map).unwrap();
            for count in 1..4 {
                (0..count).for_each(|_| source.notify());
                for _ in 0..count {
                    assert_eq!(queue.wait(1).unwrap().next().unwrap().1, (Ok(8), true));
                }
                assert_eq!(queue.poll().unwrap().count(), 0);
            }
            queue.cancel(token).unwrap();
            assert_eq!(queue.wait(1).unwrap().next().unwrap().1, (Err(Error::Canceled), false));
        })
        .unwrap();
    });
}

#[cfg(target_os = "linux")]
const NOT_POLLABLE: i32 = libc::EBADFD;
#[cfg(not(target_os = "linux"))]
const NOT_POLLABLE: i32 = libc::EBADF;

#[test]
fn what_has_no_readiness_is_not_read() {
    each_queue(|config| {
        let queue: Queue<Told> = queue(8, config);
        let pool = queue.buf_pool(8, 16).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let opened = ["Cargo.toml", dir.path().to_str().unwrap()].map(File::open);
        for file in opened.into_iter().map(Result::unwrap).chain([file_with(b"")]) {
            queue.submit_multi(ReadMulti::new(file, &pool), told).unwrap();
            assert_eq!(drained(&queue), [failed(NOT_POLLABLE)]);
        }
    });
}

#[test]
fn a_poll_tells_each_time_that_something_is_ready() {
    each_queue(|config| {
        let queue: Queue<(Result<PollEvents>, bool)> = queue(8, config);
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let poll = PollMulti::new(a.try_clone().unwrap(), PollEvents::IN);
        queue.submit_multi(poll, |shot| (shot.result, shot.more)).unwrap();
        assert_eq!(taken(&queue), []);
        for _ in 0..5 {
            // Once, and not once for each event.
            (0..3).for_each(|_| b.write_all(b"x").unwrap());
            assert_eq!(queue.wait(1).unwrap().collect::<Vec<_>>().len(), 1);
            // It is still ready.
            assert_eq!(collect(&queue, 2), [(Ok(PollEvents::IN), true); 2]);
            a.read_exact(&mut [0; 3]).unwrap();
            // It may have looked before that was read.
            let late = taken(&queue);
            assert!(late.len() <= 1, "{late:?}");
            for _ in 0..5 {
                assert_eq!(taken(&queue), []);
            }
        }
        drop(b);
        let (events, more) = collect(&queue, 1)[0];
        assert!(more && events.unwrap().contains(PollEvents::IN | PollEvents::HUP));
        assert_eq!(queue.cancel_all(), 1);
        let last = collect_last(&queue);
        assert_eq!(last, (Err(Error::Canceled), false));
        assert!(queue.is_empty());
    });
}

fn collect_last<E>(queue: &Queue<E>) -> E {
    drained(queue).pop().unwrap()
}

#[test]
fn time_passes_again_and_again() {
    each_queue(|config| {
        let queue: Queue<(Result<()>, bool, bool)> = queue(8, config);
        let map = |shot: Shot<TimeoutMulti>| (shot.result, shot.more, shot.op.is_some());
        let (tick, last) = ((Ok(()), true, false), (Ok(()), false, true));
        let (interval, began) = (Duration::from_millis(2), Instant::now());
        let every = TimeoutMulti::every(interval);
        queue.submit_multi(every.times(5), map).unwrap();
        assert_eq!(drained(&queue), [tick, tick, tick, tick, last]);
        assert!(began.elapsed() >= 5 * interval);
        queue.submit_multi(every.times(1), map).unwrap();
        assert_eq!(drained(&queue), [last]);
        let token = queue.submit_multi(every, map).unwrap();
        assert_eq!(collect(&queue, 10), [tick; 10]);
        queue.cancel(token).unwrap();
        assert_eq!(collect_last(&queue), (Err(Error::Canceled), false, true));
        queue.submit_multi(TimeoutMulti::every(Duration::ZERO), map).unwrap();
        assert!(matches!(drained(&queue)[..], [(Err(Error::Invalid(_)), false, true)]));
        // Ticks that nobody could be told of are left out.
        queue.submit_multi(TimeoutMulti::every(Duration::from_millis(1)).times(3), map).unwrap();
        assert_eq!(taken(&queue), []);
        thread::sleep(Duration::from_millis(50));
        assert!(taken(&queue).len() < 3);
        assert_eq!(collect_last(&queue), last);
    });
}

#[test]
fn what_nobody_takes_stays_in_the_kernel_and_is_not_lost() {
    const BYTES: usize = 16 << 10;
    each_queue(|config| {
        let queue: Queue<Vec<u8>> = queue(4, config);
        let pool = queue.buf_pool(4096, 4).unwrap();
        let pairs: Vec<_> = (0..2).map(|_| UnixStream::pair().unwrap()).collect();
        let (mut sent, mut got) = ([0; 2], [vec![], vec![]]);
        for (number, (a, _)) in pairs.iter().enumerate() {
            let recv = RecvMulti::new(a.try_clone().unwrap(), &pool);
            let map = move |shot: Shot<RecvMulti<UnixStream>>| {
                let mut bytes = vec![number as u8];
                bytes.extend_from_slice(&shot.result.unwrap());
                bytes
            };
            queue.submit_multi(recv, map).unwrap();
        }
        for _ in 0..3 {
            for (number, (a, b)) in pairs.iter().enumerate() {
                let bytes: Vec<u8> = (0..BYTES).map(|at| (sent[number] + at) as u8).collect();
                (&*b).write_all(&bytes).unwrap();
                sent[number] += BYTES;
                (0..200).for_each(|_| drop(queue.poll().unwrap()));
                assert!(unread(a) > BYTES / 2, "{} of {BYTES} are left", unread(a));
            }
            // A wait for more than can come while nothing is taken does not hang.
            let (count, _) = (queue.wait(1_000_000).unwrap().size_hint().1.unwrap(), ());
            assert!((128..BYTES / 8).contains(&count), "{count}");
            while got.iter().map(Vec::len).sum::<usize>() < sent.iter().sum() {
                for (_, bytes) in queue.wait(1).unwrap() {
                    got[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
                }
            }
            assert_eq!(got.each_ref().map(Vec::len), sent);
        }
        for bytes in got {
            assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == at as u8), "not in order");
        }
    });
}

#[test]
fn connections_that_nobody_takes_stay_in_the_backlog() {
    each_queue(|config| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let queue: Queue<Option<TcpStream>> = queue(2, config);
        queue.submit_multi(AcceptMulti::new(listener), |shot| Some(shot.result.ok()?.into())).unwrap();
        for _ in 0..2 {
            let clients: Vec<_> = (0..110).map(|_| TcpStream::connect(address).unwrap()).collect();
            (0..200).for_each(|_| drop(queue.poll().unwrap()));
            let count = queue.wait(1).unwrap().size_hint().1.unwrap();
            assert!((64..100).contains(&count), "{count}");
            for client in &clients {
                let server = queue.wait(1).unwrap().next().unwrap().1.unwrap();
                assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
            }
        }
        assert_eq!(queue.len(), 1);
    });
}

#[test]
fn a_timer_whose_ticks_nobody_takes_pauses() {
    each_queue(|config| {
        let queue: Queue<bool> = queue(2, config);
        let timer = TimeoutMulti::every(Duration::from_micros(100)).times(150);
        queue.submit_multi(timer, |shot| shot.more).unwrap();
        while queue.poll().unwrap().size_hint().1.unwrap() < 64 {}
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(1));
            drop(queue.poll().unwrap());
        }
        let count = queue.wait(1000).unwrap().size_hint().1.unwrap();
        assert_eq!(count, 64);
        let events = drained(&queue);
        assert_eq!(events.len(), 150);
        assert!(events[..149].iter().all(|&more| more) && !events[149]);
    });
}

#[test]
fn many_streams_at_once_keep_their_bytes_in_order() {
    const STREAMS: usize = 24;
    each_queue(|config| {
        let queue: Queue<(usize, Told)> = queue(STREAMS as u32, config);
        let pool = queue.buf_pool(8192, 32).unwrap();
        let mut writers = Vec::new();
        for number in 0..STREAMS {
            let (a, b) = UnixStream::pair().unwrap();
            queue.submit_multi(RecvMulti::new(a, &pool), move |shot| (number, told(shot))).unwrap();
            writers.push(b);
        }
        let writing = thread::spawn(move || {
            let (mut random, mut sent) = (Random(5), [0u64; STREAMS]);
            for _ in 0..4_000 {
                let number = random.below(STREAMS as u64) as usize;
                let text: String =
                    (0..1 + random.below(60)).map(|at| char::from(b'a' + ((sent[number] + at) % 26) as u8)).collect();
                sent[number] += text.len() as u64;
                writers[number].write_all(text.as_bytes()).unwrap();
            }
            (sent, writers)
        });
        let (mut got, mut ended) = ([0u64; STREAMS], 0);
        let mut writing = Some(writing);
        while ended < STREAMS {
            // The streams end when all has come; see the last test for why.
            if writing.as_ref().is_some_and(thread::JoinHandle::is_finished) {
                let (sent, writers) = writing.take().unwrap().join().unwrap();
                while got != sent {
                    receive(&queue, &mut got);
                }
                drop(writers);
            }
            ended += receive(&queue, &mut got);
        }
        assert!(queue.is_empty() && writing.is_none());
    });

    fn receive(queue: &Queue<(usize, Told)>, got: &mut [u64; STREAMS]) -> usize {
        let mut ended = 0;
        let soon = Instant::now() + Duration::from_millis(1);
        for (_, (number, (bytes, more))) in queue.wait_until(soon).unwrap() {
            for byte in bytes.unwrap().bytes() {
                assert_eq!(byte, b'a' + (got[number] % 26) as u8);
                got[number] += 1;
            }
            ended += usize::from(!more);
        }
        ended
    }
}

#[test]
fn an_end_that_comes_right_behind_the_last_bytes_is_not_missed() {
    const STREAMS: usize = 24;
    each_queue(|config| {
        for round in 0..20 {
            let queue: Queue<Told> = queue(STREAMS as u32, config);
            let pool = queue.buf_pool(8192, 32).unwrap();
            let mut writers = Vec::new();
            for at in 0..STREAMS {
                let (a, b) = UnixStream::pair().unwrap();
                if at % 2 == 0 {
                    queue.submit_multi(RecvMulti::new(a, &pool), told).unwrap();
                } else {
                    let file = queue.register_file(a).unwrap();
                    queue.submit_multi(RecvMulti::new(file, &pool), told).unwrap();
                }
                writers.push(b);
            }
            let writing = thread::spawn(move || {
                let mut random = Random(round + 1);
                for _ in 0..4_000 {
                    let (number, len) = (random.below(STREAMS as u64) as usize, 1 + random.below(60) as usize);
                    writers[number].write_all(&[7; 60][..len]).unwrap();
                }
            });
            let (mut ended, late) = (0, Instant::now() + Duration::from_secs(10));
            while ended < STREAMS {
                ended += queue.wait_until(late).unwrap().filter(|(_, (_, more))| !more).count();
                assert!(Instant::now() < late, "round {round}: {} streams have not ended", STREAMS - ended);
            }
            writing.join().unwrap();
        }
    });
}
