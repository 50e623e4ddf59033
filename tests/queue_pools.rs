//! Pools of buffers.

mod common;

use aio::{Backend, BufPool, Config, Error, PooledBuf, Queue, Result, Service, Stats, op::*, queue::*};
use common::*;
use std::{
    collections::VecDeque,
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

/// What [`RecvMulti`] has given: bytes, and the operation when it is over.
type Got = (Result<PooledBuf>, Option<RecvMulti<UnixStream>>);

fn got(shot: Shot<RecvMulti<UnixStream>>) -> Got {
    assert_eq!(shot.op.is_some(), !shot.more);
    (shot.result, shot.op)
}

/// The bytes of the only event.
#[track_caller]
fn one(queue: &Queue<Got>) -> PooledBuf {
    let (bytes, op) = collect(queue, 1).pop().unwrap();
    assert!(op.is_none());
    bytes.unwrap()
}

/// The end for want of a buffer.
#[track_caller]
fn exhausted(queue: &Queue<Got>) -> RecvMulti<UnixStream> {
    let (error, op) = collect(queue, 1).pop().unwrap();
    assert_eq!(error.map(drop), os(libc::ENOBUFS));
    op.unwrap()
}

#[test]
fn a_pool_has_as_many_buffers_as_were_asked_for_or_a_few_more() {
    each_queue(|config| {
        let queue: Queue<()> = queue(4, config);
        for (asked, count) in [(1, 1), (2, 2), (3, 4), (1000, 1024), (32768, 32768)] {
            for pool in [queue.buf_pool(asked, 16), queue.incremental_buf_pool(asked, 16)] {
                let pool = pool.unwrap();
                assert_eq!((pool.count(), pool.buf_size()), (count, 16));
            }
        }
        for (count, size) in [(0, 16), (16, 0), (32769, 16), (usize::MAX, 16), (1, (1 << 30) + 1), (1, usize::MAX)] {
            assert!(matches!(queue.buf_pool(count, size), Err(Error::Invalid(_))), "{count} of {size}");
            assert!(matches!(queue.incremental_buf_pool(count, size), Err(Error::Invalid(_))));
        }
        let pool = queue.buf_pool(3, 100).unwrap();
        assert_eq!(format!("{pool:?}"), "BufPool(4 buffers of 100 bytes)");
    });
}

#[test]
fn an_exhausted_pool_ends_an_operation_and_no_byte_is_lost() {
    each_queue(|config| {
        let queue: Queue<Got> = queue(4, config);
        for incremental in [false, true] {
            let pool = if incremental { queue.incremental_buf_pool(2, 4) } else { queue.buf_pool(2, 4) }.unwrap();
            let (a, mut b) = UnixStream::pair().unwrap();
            let mut recv = RecvMulti::new(a, &pool);
            for _ in 0..5 {
                b.write_all(b"0123456789abcdef").unwrap();
                queue.submit_multi(recv, got).unwrap();
                let held = [one(&queue), one(&queue)];
                recv = exhausted(&queue);
                assert!(queue.is_empty());
                assert_eq!((&*held[0], &*held[1]), (&b"0123"[..], &b"4567"[..]));
                // It is exhausted from the start now.
                queue.submit_multi(recv, got).unwrap();
                recv = exhausted(&queue);
                drop(held);
                let token = queue.submit_multi(recv, got).unwrap();
                let held = [one(&queue), one(&queue)];
                assert_eq!((&*held[0], &*held[1]), (&b"89ab"[..], &b"cdef"[..]));
                // While nothing comes, no buffer is missing.
                for _ in 0..5 {
                    assert!(taken(&queue).is_empty());
                }
                drop(held);
                b.write_all(b"wxyz").unwrap();
                assert_eq!(&*one(&queue), b"wxyz");
                queue.cancel(token).unwrap();
                recv = drained(&queue).pop().unwrap().1.unwrap();
            }
        }
    });
}

#[test]
fn one_operation_takes_the_buffers_of_another() {
    each_queue(|config| {
        let queue: Queue<Got> = queue(4, config);
        let pool = queue.buf_pool(2, 4).unwrap();
        let [(a, mut b), (c, mut d)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        queue.submit_multi(RecvMulti::new(a, &pool), got).unwrap();
        queue.submit_multi(RecvMulti::new(c, &pool), got).unwrap();
        assert!(taken(&queue).is_empty());
        b.write_all(b"abcd").unwrap();
        let first = one(&queue);
        d.write_all(b"efgh").unwrap();
        let second = one(&queue);
        // Both wait on, without a buffer, until something comes.
        for _ in 0..5 {
            assert!(taken(&queue).is_empty());
        }
        b.write_all(b"ij").unwrap();
        let recv = exhausted(&queue);
        assert_eq!((&*first, &*second, queue.len()), (&b"abcd"[..], &b"efgh"[..], 1));
        drop(second);
        queue.submit_multi(recv, got).unwrap();
        assert_eq!(&*one(&queue), b"ij");
        d.write_all(b"kl").unwrap();
        drop(first);
        assert_eq!(&*one(&queue), b"kl");
    });
}

#[test]
fn buffers_are_used_again_and_again() {
    each_queue(|config| {
        let queue: Queue<Got> = queue(4, config);
        let (a, mut b) = UnixStream::pair().unwrap();
        let pool = queue.buf_pool(2, 8).unwrap();
        queue.submit_multi(RecvMulti::new(a, &pool), got).unwrap();
        for round in 0..10_000u32 {
            b.write_all(&round.to_ne_bytes()).unwrap();
            assert_eq!(*one(&queue), round.to_ne_bytes());
        }
    });
}

#[test]
fn a_pool_belongs_to_its_queue() {
    each_queue(|config| {
        let (queue, other): (Queue<Got>, Queue<Got>) = (queue(4, config), queue(4, config));
        let pool = other.buf_pool(4, 16).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        queue.submit_multi(RecvMulti::new(a, &pool), got).unwrap();
        let (error, op) = drained(&queue).pop().unwrap();
        assert!(matches!(error, Err(Error::Invalid(_))));
        // Nothing has happened to the operation.
        other.submit_multi(op.unwrap(), got).unwrap();
        b.write_all(b"abc").unwrap();
        assert_eq!(&*one(&other), b"abc");
    });
}

#[test]
fn buffers_outlive_their_queue_and_their_pool() {
    each_queue(|config| {
        for incremental in [false, true] {
            let queue: Queue<Got> = queue(4, config);
            let pool = if incremental { queue.incremental_buf_pool(4, 64) } else { queue.buf_pool(4, 64) }.unwrap();
            let (a, mut b) = UnixStream::pair().unwrap();
            queue.submit_multi(RecvMulti::new(a, &pool), got).unwrap();
            let mut held = Vec::new();
            for text in ["abc", "defg"] {
                b.write_all(text.as_bytes()).unwrap();
                held.push(one(&queue));
            }
            b.write_all(b"not taken").unwrap();
            drop(queue);
            assert_eq!((&*held[0], &*held[1]), (&b"abc"[..], &b"defg"[..]));
            held[0][0] = b'x';
            drop(pool);
            assert_eq!((&*held.remove(0), &*held[0]), (&b"xbc"[..], &b"defg"[..]));
        }
    });
}

#[test]
fn a_pool_may_go_before_what_uses_it() {
    each_queue(|config| {
        let queue: Queue<Got> = queue(4, config);
        for _ in 0..100 {
            let (a, mut b) = UnixStream::pair().unwrap();
            let pool = queue.buf_pool(2, 64).unwrap();
            let token = queue.submit_multi(RecvMulti::new(a, &pool), got).unwrap();
            drop(pool);
            // The numbers of pools that are gone are used again; those in use are not.
            let _others: Vec<BufPool> = (0..3).map(|_| queue.buf_pool(2, 64).unwrap()).collect();
            b.write_all(b"abc").unwrap();
            let bytes = one(&queue);
            queue.cancel(token).unwrap();
            assert_eq!(drained(&queue).pop().unwrap().0.map(drop), Err(Error::Canceled));
            assert_eq!(&*bytes, b"abc");
        }
    });
}

#[test]
fn pooled_bytes_are_sent_and_written_like_others() {
    enum Event {
        Got(Result<PooledBuf>, bool),
        Sent(Done<Send<UnixStream, PooledBuf>>),
        Written(Done<Write<File, PooledBuf>>),
    }
    each_queue(|config| {
        let queue: Queue<Event> = queue(8, config);
        let pool = queue.buf_pool(2, 64).unwrap();
        let [(a, mut b), (c, mut d)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let mut out = file_with(b"");
        queue.submit_multi(RecvMulti::new(a, &pool), |shot| Event::Got(shot.result, shot.more)).unwrap();
        // More rounds than buffers: each comes back.
        for round in 0..20 {
            b.write_all(format!("header{round:04}").as_bytes()).unwrap();
            let Event::Got(Ok(mut bytes), true) = collect(&queue, 1).remove(0) else { panic!("no bytes") };
            bytes.advance(6);
            assert!(catch_unwind(AssertUnwindSafe(|| bytes.advance(5))).is_err());
            bytes.truncate(100);
            assert_eq!(bytes.as_ref(), format!("{round:04}").as_bytes());
            queue.submit(Send::new(c.try_clone().unwrap(), bytes), Event::Sent).unwrap();
            let Event::Sent(done) = collect(&queue, 1).remove(0) else { panic!("not sent") };
            assert_eq!(done.result, Ok(4));
            let (_, mut bytes) = done.op.into_parts();
            bytes.truncate(2);
            bytes[0] = b'x';
            queue.submit(Write::new(out.try_clone().unwrap(), bytes).at(2 * round), Event::Written).unwrap();
            let Event::Written(done) = collect(&queue, 1).remove(0) else { panic!("not written") };
            assert_eq!(done.result, Ok(2));
        }
        let mut received = [0; 80];
        d.read_exact(&mut received).unwrap();
        let expected: String = (0..20).map(|round| format!("{round:04}")).collect();
        assert_eq!(std::str::from_utf8(&received).unwrap(), expected);
        let mut written = String::new();
        std::io::Seek::rewind(&mut out).unwrap();
        out.read_to_string(&mut written).unwrap();
        assert_eq!(written, "x0".repeat(20));
    });
}

#[test]
fn parts_of_a_buffer_do_not_overlap() {
    each_queue(|config| {
        let queue: Queue<Got> = queue(4, config);
        let pool = queue.incremental_buf_pool(64, 256).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut recv = Some(RecvMulti::new(a, &pool));
        let (mut random, mut held, mut next) = (Random(3), VecDeque::<(PooledBuf, Vec<u8>)>::new(), 0u8);
        for round in 0..5_000 {
            if let Some(recv) = recv.take() {
                queue.submit_multi(recv, got).unwrap();
            }
            let text: Vec<u8> = (0..1 + random.below(40)).map(|_| (next = next.wrapping_add(1), next).1).collect();
            b.write_all(&text).unwrap();
            let mut left = &text[..];
            // At the end of a buffer it may come in two parts.
            while !left.is_empty() {
                let mut bytes = one(&queue);
                let (part, rest) = left.split_at(bytes.len());
                assert_eq!(&*bytes, part, "round {round}");
                // A part is its owner's to write to.
                bytes.reverse();
                let reversed = part.iter().rev().copied().collect();
                held.push_back((bytes, reversed));
                left = rest;
            }
            while held.len() > 30 {
                let at = random.below(held.len() as u64) as usize;
                let (bytes, expected) = held.swap_remove_back(at).unwrap();
                assert_eq!(*bytes, *expected, "round {round}");
            }
            let mut ranges: Vec<_> = held.iter().map(|(bytes, _)| bytes.as_ptr_range()).collect();
            ranges.sort_by_key(|range| range.start);
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    });
}

#[test]
fn a_mebibyte_comes_intact_through_two_buffers() {
    const SIZE: usize = 64 << 10;
    const TOTAL: usize = 1 << 20;
    each_queue(|config| {
        for incremental in [false, true] {
            for tcp in [false, true] {
                let queue: Queue<(Result<PooledBuf>, Option<RecvMulti<OwnedFd>>)> = queue(4, config);
                let make = || if incremental { queue.incremental_buf_pool(2, SIZE) } else { queue.buf_pool(2, SIZE) };
                let pool = make().unwrap();
                let (a, b) = if tcp {
                    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    (OwnedFd::from(listener.accept().unwrap().0), OwnedFd::from(client))
                } else {
                    let (a, b) = UnixStream::pair().unwrap();
                    (a.into(), b.into())
                };
                let writing = thread::spawn(move || {
                    let (mut b, mut random, mut sent) = (UnixStream::from(b), Random(11), 0);
                    while sent < TOTAL {
                        let len = (1 + random.below(20_000) as usize).min(TOTAL - sent);
                        let bytes: Vec<u8> = (sent..sent + len).map(byte_at).collect();
                        b.write_all(&bytes).unwrap();
                        sent += len;
                    }
                });
                let (mut held, mut count, mut random) = (Vec::new(), 0, Random(12));
                let mut recv = Some(RecvMulti::new(a, &pool));
                'all: loop {
                    if let Some(recv) = recv.take() {
                        queue.submit_multi(recv, |shot| (shot.result, shot.op)).unwrap();
                    }
                    for (_, (result, op)) in queue.wait(1).unwrap() {
                        match result {
                            Ok(bytes) if bytes.is_empty() => break 'all,
                            Ok(bytes) => {
                                held.push((count, bytes));
                                count += held.last().unwrap().1.len();
                            }
                            Err(error) => {
                                assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
                                // Keeps all buffers for a while, then gives all back.
                                check(held.drain(..));
                            }
                        }
                        recv = op;
                    }
                    if random.below(3) == 0 {
                        check(held.drain(..));
                    }
                }
                check(held.drain(..));
                assert_eq!(count, TOTAL);
                writing.join().unwrap();
            }
        }
    });
}

fn byte_at(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

fn check(parts: impl Iterator<Item = (usize, PooledBuf)>) {
    for (start, bytes) in parts {
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == byte_at(start + at)), "at {start}");
    }
}

#[test]
fn pools_come_and_go_without_end() {
    each_queue(|config| {
        let queue: Queue<Got> = queue(4, config);
        let mut kept = Vec::new();
        for round in 0..2_000 {
            let pool = queue.buf_pool(1 << (round % 5), 32).unwrap();
            if round % 100 == 0 {
                kept.push(pool);
            }
        }
        for pool in &kept {
            let (a, mut b) = UnixStream::pair().unwrap();
            b.write_all(b"abc").unwrap();
            let token = queue.submit_multi(RecvMulti::new(a, pool), got).unwrap();
            assert_eq!(&*one(&queue), b"abc");
            queue.cancel(token).unwrap();
            drained(&queue);
        }
    });
}

/// A kernel may fill many buffers for one completion. Each is a result of its own all the same, and full but the last.
#[test]
fn streams_that_share_a_pool_lose_and_mix_no_bytes() {
    const TOTAL: usize = 400_000;
    const STREAMS: usize = 3;
    type Event = (usize, Result<PooledBuf>, Option<RecvMulti<OwnedFd>>);
    each_queue(|config| {
        let queue: Queue<Event> = queue(8, config);
        let pool = queue.buf_pool(32, 300).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let receive = |stream: usize, recv| {
            queue.submit_multi(recv, move |shot| (stream, shot.result, shot.op)).unwrap();
        };
        thread::scope(|s| {
            for stream in 0..STREAMS {
                let mut writer = TcpStream::connect(address).unwrap();
                receive(stream, RecvMulti::new(listener.accept().unwrap().0.into(), &pool));
                s.spawn(move || {
                    let mut random = Random(stream as u64 + 1);
                    let bytes: Vec<u8> = (0..TOTAL).map(|at| byte_at(at * (stream + 1))).collect();
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(rest.len().min(1 + random.below(20_000) as usize));
                        writer.write_all(now).unwrap();
                        rest = later;
                    }
                });
            }
            let mut random = Random(99);
            let (mut counts, mut held, mut open) = ([0; STREAMS], Vec::new(), STREAMS);
            let check = |(stream, start, bytes): (usize, usize, PooledBuf)| {
                let expected = |at: usize| byte_at((start + at) * (stream + 1));
                assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == expected(at)), "{stream} at {start}");
            };
            while open > 0 {
                let mut hungry = Vec::new();
                for (stream, result, op) in collect(&queue, 1) {
                    match result {
                        Ok(bytes) if bytes.is_empty() => open -= 1,
                        Ok(bytes) => {
                            let start = counts[stream];
                            counts[stream] += bytes.len();
                            held.push((stream, start, bytes));
                        }
                        Err(error) => {
                            assert_eq!(Err(error), os::<()>(libc::ENOBUFS));
                            hungry.push((stream, op.unwrap()));
                        }
                    }
                }
                // They come back in any order.
                while !held.is_empty() && (held.len() > 24 || !hungry.is_empty() || random.below(3) == 0) {
                    check(held.swap_remove(random.below(held.len() as u64) as usize));
                }
                hungry.into_iter().for_each(|(stream, recv)| receive(stream, recv));
            }
            held.into_iter().for_each(check);
            assert_eq!(counts, [TOTAL; STREAMS]);
        });
        // No buffer is missing.
        let (a, mut b) = UnixStream::pair().unwrap();
        b.write_all(&[0; 32 * 300]).unwrap();
        receive(0, RecvMulti::new(a.into(), &pool));
        let all = collect(&queue, 32);
        assert!(all.iter().all(|(_, bytes, _)| bytes.as_ref().is_ok_and(|bytes| bytes.len() == 300)), "{all:?}");
    });
}

#[test]
fn one_completion_may_fill_many_buffers_of_a_stream() {
    each_queue(|config| {
        received_in_pieces(config);
    });
    // Those that pretend to be older do not. Pipes came when bundles were right.
    if Backend::probe().operation("Pipe").unwrap().io_uring == Some(Service::Ring) {
        let cost = received_in_pieces(Config::new().backend(Backend::IoUring));
        assert!(cost.completed < 31, "{cost:?}");
    }
}

/// Receives 31 buffers, and the end.
fn received_in_pieces(config: Config) -> Stats {
    let queue: Queue<(Result<PooledBuf>, bool)> = queue(4, config);
    let pool = queue.buf_pool(64, 100).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    let bytes: Vec<u8> = (0..3_030).map(byte_at).collect();
    writer.write_all(&bytes).unwrap();
    while reader.peek(&mut [0; 4_000]).unwrap() < bytes.len() {
        thread::yield_now();
    }
    let before = queue.stats();
    queue.submit_multi(RecvMulti::new(reader, &pool), |shot| (shot.result, shot.more)).unwrap();
    let mut parts = Vec::new();
    for (part, more) in collect(&queue, 31) {
        assert!(more);
        parts.push(part.unwrap());
    }
    let cost = queue.stats() - before;
    assert!(parts[..30].iter().all(|part| part.len() == 100), "{parts:?}");
    assert_eq!(parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<_>>(), bytes);
    drop((parts, writer));
    assert_eq!(collect(&queue, 1).pop().map(|(bytes, more)| (bytes.unwrap().len(), more)), Some((0, false)));
    cost
}

#[test]
fn a_datagram_is_for_one_buffer() {
    each_queue(|config| {
        let queue: Queue<Result<PooledBuf>> = queue(4, config);
        let pool = queue.buf_pool(8, 10).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        queue.submit_multi(RecvMulti::new(socket, &pool), |shot| shot.result).unwrap();
        for (sent, received) in [(&b"0123456789abcdef"[..], &b"0123456789"[..]), (b"xyz", b"xyz")] {
            sender.send_to(sent, address).unwrap();
            let parts = collect(&queue, 1);
            assert_eq!(&**parts[0].as_ref().unwrap(), received);
        }
        assert!(taken(&queue).is_empty());
    });
}
