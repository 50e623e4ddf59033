//! The long-lived queue: submitting, waiting, and what comes back.

#[path = "common/net.rs"]
mod net;

mod common;

use aio::{Config, Error, Queue, SetupError, coro, op::*, queue::*};
use common::*;
use net::{tcp_pair, udp_pair};
use std::{
    cell::Cell,
    collections::HashSet,
    fs::File,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

fn tick(millis: u64) -> Timeout {
    Timeout::after(Duration::from_millis(millis))
}

#[test]
fn a_wait_for_more_than_is_in_flight_gives_what_there_is() {
    each_queue(|config| {
        let queue = queue(8, config);
        assert_eq!(queue.wait(1).unwrap().count(), 0);
        assert_eq!(queue.wait(usize::MAX).unwrap().count(), 0);
        for least in [3, 4, 8, 100, usize::MAX] {
            queue.submit(Nop::new(), |_| 1).unwrap();
            queue.submit(tick(1), |_| 2).unwrap();
            queue.submit(Nop::new(), |_| 3).unwrap();
            assert_eq!(queue.len(), 3);
            let mut events: Vec<i32> = queue.wait(least).unwrap().map(|(_, event)| event).collect();
            events.sort();
            assert_eq!(events, [1, 2, 3], "{least}");
            assert!(queue.is_empty());
        }
        // Sockets, pipes and chains count like anything else.
        let ((a, b), (output, input)) = (UnixStream::pair().unwrap(), pipe());
        queue.submit(Recv::new(a, vec![0; 8]), |_| 1).unwrap();
        queue.submit(Read::new(output, vec![0; 8]), |_| 2).unwrap();
        queue.submit_chain((tick(1).link(), Send::new(b, "x")), (|_| 3, |_| 4)).unwrap();
        queue.submit_chain((tick(1).link(), Write::new(input, "x")), (|_| 5, |_| 6)).unwrap();
        let mut events: Vec<i32> = queue.wait(50).unwrap().map(|(_, event)| event).collect();
        events.sort();
        assert_eq!(events, [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn a_wait_gives_at_least_as_many_as_it_was_asked_for() {
    each_queue(|config| {
        let queue = queue(32, config);
        for least in [1, 2, 5, 16] {
            for after in 0..16 {
                queue.submit(tick(after % 4), |done| assert_eq!(done.result, Ok(()))).unwrap();
            }
            let came = queue.wait(least).unwrap().count();
            assert!(came >= least, "{came} of {least}");
            assert_eq!(came + drained(&queue).len(), 16);
        }
    });
}

#[test]
fn events_that_are_not_taken_stay() {
    each_queue(|config| {
        let queue = queue(8, config);
        for number in 0..8 {
            queue.submit(Nop::new(), move |_| number).unwrap();
        }
        assert_eq!(queue.wait(8).unwrap().next().unwrap().1, 0);
        drop(queue.wait(8).unwrap());
        assert_eq!(queue.len(), 7);
        assert_eq!(queue.wait(1).unwrap().take(2).map(|(_, event)| event).collect::<Vec<_>>(), [1, 2]);
        // What is submitted while events are taken, and is finished at once, belongs to the next wait.
        let mut events = queue.wait(1).unwrap();
        assert_eq!(events.next().unwrap().1, 3);
        queue.submit(Nop::new(), |_| 8).unwrap();
        assert_eq!(events.map(|(_, event)| event).collect::<Vec<_>>(), [4, 5, 6, 7]);
        assert_eq!(drained(&queue), [8]);
    });
}

#[test]
fn a_poll_starts_what_was_submitted_and_does_not_wait() {
    each_queue(|config| {
        let (queue, (a, mut b)) = (queue(4, config), UnixStream::pair().unwrap());
        queue.submit(Recv::new(a, vec![0; 4]), |done| done.result).unwrap();
        for _ in 0..10 {
            assert_eq!(taken(&queue), []);
            assert_eq!(queue.wait(0).unwrap().count(), 0);
        }
        b.write_all(b"abc").unwrap();
        let mut events = Vec::new();
        while events.is_empty() {
            events = taken(&queue);
        }
        assert_eq!(events, [Ok(3)]);
        // Timers and disks as well.
        queue.submit(tick(1), |done| done.result.map(|()| 0)).unwrap();
        queue.submit(Read::new(file_with(b"abc"), vec![0; 3]).at(0), |done| done.result).unwrap();
        let mut count = 0;
        while count < 2 {
            count += taken(&queue).len();
        }
    });
}

#[test]
fn a_wait_with_a_deadline_ends_with_an_event_or_at_the_deadline() {
    each_queue(|config| {
        let queue = queue(4, config);
        let (began, soon) = (Instant::now(), Duration::from_millis(5));
        assert_eq!(queue.wait_until(began + NEVER).unwrap().count(), 0, "there is nothing to wait for");
        let never = queue.submit(Timeout::after(NEVER), |_| "never").unwrap();
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(queue.wait_until(began + soon).unwrap().count(), 0);
            assert!(began.elapsed() >= soon);
            assert_eq!(queue.wait_until(began).unwrap().count(), 0, "it has passed already");
        }
        queue.submit(tick(1), |_| "tick").unwrap();
        assert_eq!(queue.wait_until(Instant::now() + NEVER).unwrap().next().unwrap().1, "tick");
        // What is there already comes however late it is.
        queue.submit(Nop::new(), |_| "nop").unwrap();
        drop(queue.wait(1).unwrap());
        assert_eq!(queue.wait_until(began).unwrap().next().unwrap().1, "nop");
        queue.cancel(never).unwrap();
        assert_eq!(queue.wait_until(Instant::now() + NEVER).unwrap().next().unwrap(), (never, "never"));
        assert!(began.elapsed() < NEVER);
    });
}

#[test]
fn a_drain_waits_for_what_its_events_submit() {
    each_queue(|config| {
        let (queue, mut seen) = (queue(1, config), 0);
        queue.submit(Nop::new(), |_| 1).unwrap();
        queue
            .drain(|_, number| {
                seen += 1;
                assert_eq!(number, seen);
                if number < 100 {
                    queue.submit(tick(0), move |_| number + 1).unwrap();
                }
            })
            .unwrap();
        assert_eq!(seen, 100);
        queue.drain(|_, _| panic!("nothing is in there")).unwrap();
    });
}

#[test]
fn a_run_ends_when_nothing_is_left_or_when_it_is_stopped() {
    each_queue(|config| {
        let queue = queue(8, config);
        queue.run(|_, ()| panic!("nothing is in there")).unwrap();
        for _ in 0..5 {
            queue.submit(Nop::new(), |_| ()).unwrap();
        }
        let count = Cell::new(0);
        let stop_at = |at| {
            move |queue: &Queue<'static, ()>, count: &Cell<usize>| {
                count.set(count.get() + 1);
                if count.get() == at {
                    queue.stop();
                }
            }
        };
        queue.run(|_, ()| stop_at(2)(&queue, &count)).unwrap();
        assert_eq!((count.get(), queue.len()), (2, 3), "the others stay");
        queue.stop();
        queue.run(|_, ()| stop_at(100)(&queue, &count)).unwrap();
        assert_eq!((count.get(), queue.len()), (5, 0), "a run forgets earlier stops");
        queue.submit(tick(1), |_| ()).unwrap();
        queue.submit(Timeout::after(NEVER), |_| ()).unwrap();
        queue.run_once(|_, ()| count.set(count.get() + 1)).unwrap();
        assert_eq!((count.get(), queue.len()), (6, 1));
    });
}

#[test]
fn what_does_not_fit_comes_back_whole() {
    each_queue(|config| {
        let queue = queue::<usize>(2, config);
        assert_eq!((queue.capacity(), queue.len(), queue.reserve(2).is_ok()), (2, 0, true));
        assert!(matches!(queue.reserve(3), Err(Error::Invalid(_))));
        let token = queue.submit(Timeout::after(NEVER), |_| 0).unwrap();
        queue.submit(Nop::new(), |_| 1).unwrap();
        assert_eq!((queue.len(), queue.reserve(0).is_ok(), queue.reserve(1).is_err()), (2, true, true));
        let (file, bytes) = (Arc::new(file_with(b"abc")), vec![0u8; 3]);
        let (address, number) = (bytes.as_ptr(), Rc::new(7));
        let captured = number.clone();
        let refused = queue.submit(Read::new(file.clone(), bytes).at(0), move |done| *captured + done.result.unwrap());
        let Err(full @ NotSubmitted::Full(..)) = refused else { panic!("it is full") };
        assert!(full.is_full() && full.to_string().contains("full"));
        let (read, map) = full.into_parts();
        assert_eq!((read.buf().as_ptr(), Rc::strong_count(&number)), (address, 2));
        // All the other ways in are full as well.
        assert!(queue.submit_multi(TimeoutMulti::every(NEVER), |_| 0).unwrap_err().is_full());
        assert!(queue.submit_callback(Nop::new(), |_, _| Then::End).unwrap_err().is_full());
        assert!(queue.submit_chain((Nop::new().link(), Nop::new()), (|_| 0, |_| 0)).unwrap_err().is_full());
        assert!(queue.gather(|_| 0).unwrap_err().is_full());
        let error = std::io::Error::from(queue.submit(Nop::new(), |_| 0).unwrap_err());
        assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
        // A place is taken until the event is delivered, not only until the operation has ended.
        drop(queue.wait(1).unwrap());
        assert!(queue.submit(Nop::new(), |_| 0).unwrap_err().is_full());
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1, 1);
        queue.submit(read, map).unwrap();
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1, 10);
        assert_eq!((Rc::strong_count(&number), Arc::strong_count(&file)), (1, 1));
        queue.cancel(token).unwrap();
        assert_eq!(drained(&queue), [0]);
    });
}

#[test]
fn a_queue_has_at_least_one_place_and_at_most_32768() {
    each_queue(|config| {
        for asked in [0, 32769, 40000, u32::MAX] {
            let Err(error) = Queue::<(), 512>::with_config(asked, config) else { panic!("{asked}") };
            assert_eq!(error, SetupError::QueueSize { asked, max: 32768 });
            assert_eq!(Queue::<(), 512>::scope_with_config(asked, config, |_| panic!("called")).err(), Some(error));
        }
        // Neither the smallest nor an odd number is rounded.
        for asked in [1, 3, 1000] {
            let queue = queue(asked, config);
            let fits = |_| queue.submit(Nop::new(), |_| ()).is_ok();
            assert_eq!((0..2000).take_while(|&at| fits(at)).count(), asked as usize);
            assert_eq!(queue.capacity(), asked as usize);
            assert_eq!(queue.wait(asked as usize).unwrap().count(), asked as usize);
        }
    });
    assert!(matches!(Queue::<()>::new(0), Err(SetupError::QueueSize { asked: 0, .. })));
    assert!(matches!(Queue::<()>::new(40000), Err(SetupError::QueueSize { asked: 40000, .. })));
}

#[test]
fn tokens_are_different_and_their_events_name_them() {
    each_queue(|config| {
        let queue = queue(16, config);
        let mut all = HashSet::new();
        for _ in 0..10 {
            let tokens: Vec<Token> = (0..16).map(|number| queue.submit(Nop::new(), move |_| number).unwrap()).collect();
            for (token, number) in queue.wait(16).unwrap() {
                assert_eq!(token, tokens[number]);
            }
            all.extend(tokens);
        }
        assert_eq!(all.len(), 160);
    });
}

#[test]
fn operations_come_back_with_what_they_own_and_go_in_again() {
    enum Event {
        Read(Done<Read<File, Vec<u8>>>),
        Recv(Done<Recv<TcpStream, Vec<u8>>>),
        Send(Done<Send<TcpStream, Vec<u8>>>),
        Write(Done<Write<File, Vec<u8>>>),
        Tick(Done<Timeout>),
    }
    each_queue(|config| {
        let (queue, (a, b)) = (queue(8, config), tcp_pair());
        let [read, recv] = [(); 2].map(|()| vec![0u8; 8]);
        let (send, write) = (b"12345678".to_vec(), b"12345678".to_vec());
        let addresses = [&read, &recv, &send, &write].map(|bytes| bytes.as_ptr());
        queue.submit(Read::new(file_with(b"abcdefgh"), read).at(0), Event::Read).unwrap();
        queue.submit(Recv::new(a, recv).flags(RecvFlags::WAITALL), Event::Recv).unwrap();
        queue.submit(Send::new(b, send), Event::Send).unwrap();
        queue.submit(Write::new(file_with(b""), write).at(0), Event::Write).unwrap();
        queue.submit(tick(0), Event::Tick).unwrap();
        let mut rounds = [0; 5];
        queue
            .drain(|_, event| {
                let (kind, address, number) = match &event {
                    Event::Read(done) => (0, done.op.buf().as_ptr(), done.result),
                    Event::Recv(done) => (1, done.op.buf().as_ptr(), done.result),
                    Event::Send(done) => (2, done.op.buf().as_ptr(), done.result),
                    Event::Write(done) => (3, done.op.buf().as_ptr(), done.result),
                    Event::Tick(done) => (4, addresses[0], done.result.map(|()| 8)),
                };
                assert_eq!((number, address), (Ok(8), addresses[kind % 4]), "kind {kind}");
                rounds[kind] += 1;
                if rounds[kind] < 50 {
                    match event {
                        Event::Read(done) => queue.submit(done.op, Event::Read).map(drop).unwrap(),
                        Event::Recv(done) => queue.submit(done.op, Event::Recv).map(drop).unwrap(),
                        Event::Send(done) => queue.submit(done.op, Event::Send).map(drop).unwrap(),
                        Event::Write(done) => queue.submit(done.op, Event::Write).map(drop).unwrap(),
                        Event::Tick(done) => queue.submit(done.op, Event::Tick).map(drop).unwrap(),
                    }
                }
            })
            .unwrap();
        assert_eq!(rounds, [50; 5]);
    });
}

#[test]
fn accepts_and_datagrams_go_in_again() {
    each_queue(|config| {
        let queue = queue(4, config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut accept = Accept::new(listener);
        for _ in 0..20 {
            queue.submit(accept, |done| done).unwrap();
            let client = TcpStream::connect(address).unwrap();
            let done = queue.wait(1).unwrap().next().unwrap().1;
            let accepted = done.result.unwrap();
            let peer = TcpStream::from(accepted.fd).peer_addr().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            accept = done.op;
        }
        drop(queue);
        let (a, b) = udp_pair();
        let queue = common::queue(4, config);
        let from = b.local_addr().unwrap();
        let mut recv = RecvFrom::new(a, vec![0u8; 16]);
        for round in 0..20u8 {
            queue.submit(recv, |done| done).unwrap();
            b.send(&[round; 5]).unwrap();
            let done = queue.wait(1).unwrap().next().unwrap().1;
            let (len, peer) = done.result.unwrap();
            assert_eq!((len, peer.ip(), &done.op.buf()[..5]), (5, Some(from), &[round; 5][..]));
            recv = done.op;
        }
    });
}

#[test]
fn errors_are_in_the_events_and_the_operation_comes_back_with_them() {
    each_queue(|config| {
        let queue = queue(4, config);
        let buf = vec![0u8; 4];
        let address = buf.as_ptr();
        queue.submit(Read::new(write_only(), buf).at(0), |done| done).unwrap();
        let done = queue.wait(1).unwrap().next().unwrap().1;
        assert_eq!((done.result, done.op.buf().as_ptr()), (os(libc::EBADF), address));
    });
}

#[test]
fn a_close_in_a_queue_closes_whatever_becomes_of_it() {
    each_queue(|config| {
        let closes = |output: &std::os::fd::OwnedFd| {
            // Once all writers are closed, a pipe has ended.
            assert_eq!(aio::single(Read::new(output, &mut [0u8; 1])), Ok(0));
        };
        let queue = queue(4, config);
        let (output, input) = pipe();
        queue.submit(Close::new(input), |done| done.result).unwrap();
        assert_eq!(drained(&queue), [Ok(())]);
        closes(&output);
        // A cancel does not lose the descriptor, nor does it change the result.
        let (output, input) = pipe();
        let token = queue.submit(Close::new(input), |done| done.result).unwrap();
        queue.cancel(token).unwrap();
        queue.cancel_all();
        assert_eq!(drained(&queue), [Ok(())]);
        closes(&output);
        // In a chain that breaks before it, it has its descriptor back.
        let (output, input) = pipe();
        let read = Read::new(write_only(), vec![0u8; 4]).at(0);
        queue
            .submit_chain((read.link(), Close::new(input)), (|done| done.result.map(drop), |done| done.result))
            .unwrap();
        assert_eq!(drained(&queue), [os(libc::EBADF), Err(Error::Skipped)]);
        closes(&output);
        // In a queue that goes.
        let (output, input) = pipe();
        let (other, after) = pipe();
        queue.submit(Close::new(input), |done| done.result).unwrap();
        queue.submit_chain((tick(10_000).link(), Close::new(after)), (|done| done.result, |done| done.result)).unwrap();
        drop(queue);
        closes(&output);
        closes(&other);
    });
}

#[test]
fn places_may_be_larger_and_smaller_than_usual() {
    each_queue(|config| {
        let large = Queue::<[u8; 100], 4096>::with_config(2, config).unwrap();
        let bytes = [7u8; 3000];
        large.submit(Nop::new(), move |_| std::array::from_fn(|at| bytes[at * 30])).unwrap();
        assert_eq!(drained_large(&large), [[7; 100]]);
        let small = Queue::<(), 64>::with_config(2, config).unwrap();
        small.submit(Nop::new(), |_| ()).unwrap();
        assert_eq!(small.wait(1).unwrap().count(), 1);
    });
}

fn drained_large(queue: &Queue<[u8; 100], 4096>) -> Vec<[u8; 100]> {
    queue.wait(1).unwrap().map(|(_, event)| event).collect()
}

#[test]
fn queues_work_side_by_side_and_next_to_the_threads_engine() {
    each_queue(|config| {
        let (a, b) = (queue(4, config), queue(4, config));
        let (x, mut y) = UnixStream::pair().unwrap();
        a.submit(Recv::new(x, vec![0; 4]), |done| done.result).unwrap();
        b.submit(tick(1), |done| done.result).unwrap();
        assert_eq!(taken(&a), []);
        assert_eq!(drained(&b), [Ok(())]);
        assert_eq!(config.run(|| aio::single(Nop::new())).unwrap(), Ok(()));
        assert_eq!(aio::single(Nop::new()), Ok(()));
        y.write_all(b"abcd").unwrap();
        assert_eq!(drained(&a), [Ok(4)]);
        assert!(a.stats().system_calls() > 0);
    });
}

#[test]
fn a_batch_in_a_mapper_uses_the_threads_engine() {
    each_queue(|config| {
        let queue = queue(4, config);
        for number in 0..10 {
            queue
                .submit(Nop::new(), move |_| {
                    let (a, b) = aio::complete((Nop::new(), tick(0))).unwrap().results;
                    assert_eq!((a, b), (Ok(()), Ok(())));
                    number
                })
                .unwrap();
            assert_eq!(drained(&queue), [number]);
        }
    });
}

#[test]
fn what_is_printed_says_how_much_is_in_it() {
    let queue = queue(4, Config::new());
    queue.submit(Nop::new(), |_| ()).unwrap();
    assert_eq!(format!("{queue:?}"), "Queue { len: 1, capacity: 4, .. }");
}

/// A socket has no offset: the kernel refuses it, and what is tried again has to be submitted before the task waits.
#[test]
fn a_task_gets_the_result_of_a_second_try() {
    each_queue(|config| {
        let root = || {
            let (queue, (a, b)) = (queue(4, config), UnixStream::pair().unwrap());
            (&b).write_all(b"a").unwrap();
            queue.submit(Read::new(a, vec![0; 1]).at(5), |done| done.result).unwrap();
            assert_eq!(collect(&queue, 1), [Ok(1)]);
        };
        coro::Config::new().engine(config).run(root).unwrap();
    });
}
