//! Queues that go while something is in flight.

#[path = "common/direct.rs"]
mod direct;
#[path = "common/net.rs"]
mod net;

mod common;

use aio::{Error, Queue, SetupError, op::*, queue::*};
use common::*;
use direct::*;
use net::tcp_pair;
use std::{
    cell::RefCell,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

#[test]
fn memory_that_is_freed_with_a_queue_is_not_written_any_more() {
    each_queue(|config| {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(large_file(&dir, 64));
        for round in 0..20 {
            let queue: Queue<()> = queue(32, config);
            let (mut peers, pool) = (Vec::new(), queue.buf_pool(64, 4096).unwrap());
            for at in 0..16 {
                queue.submit(Read::new(file.clone(), vec![0u8; BLOCK]).at((at * BLOCK) as u64), |_| ()).unwrap();
            }
            for _ in 0..8 {
                let (a, b) = UnixStream::pair().unwrap();
                queue.submit_multi(RecvMulti::new(a.try_clone().unwrap(), &pool), |_| ()).unwrap();
                queue.submit(Recv::new(a, vec![0u8; 4096]), |_| ()).unwrap();
                peers.push(b);
            }
            drop(queue.poll().unwrap());
            drop((queue, pool));
            // The allocator hands the same memory out again; whatever is still in flight would write to it.
            let fresh: Vec<_> = (0..16).map(|_| vec![0x55u8; BLOCK]).collect();
            let small: Vec<_> = (0..8).map(|_| vec![0x55u8; 4096]).collect();
            peers.iter_mut().for_each(|peer| _ = peer.write_all(&[0xBB; 100]));
            thread::sleep(Duration::from_millis(if round == 19 { 100 } else { 2 }));
            let intact = fresh.iter().chain(&small).all(|block| block.iter().all(|&byte| byte == 0x55));
            assert!(intact, "round {round}");
        }
    });
}

#[test]
fn a_queue_that_is_forgotten_harms_nobody() {
    each_queue(|config| {
        let dir = tempfile::tempdir().unwrap();
        let (file, (a, mut b)) = (Arc::new(large_file(&dir, 64)), UnixStream::pair().unwrap());
        let queue: Queue<()> = queue(32, config);
        for at in 0..16 {
            queue.submit(Read::new(file.clone(), vec![0; BLOCK]).at((at * BLOCK) as u64), |_| ()).unwrap();
        }
        let pool = queue.buf_pool(8, 64).unwrap();
        queue.submit_multi(RecvMulti::new(a, &pool), |_| ()).unwrap();
        drop(queue.poll().unwrap());
        std::mem::forget(queue);
        drop(pool);
        let fresh: Vec<_> = (0..16).map(|_| vec![0x55u8; BLOCK]).collect();
        b.write_all(b"nobody takes this").unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(fresh.iter().all(|block| block.iter().all(|&byte| byte == 0x55)));
    });
}

/// A queue with everything that waits.
fn waiting(config: aio::Config, started: bool) {
    let queue: Queue<()> = queue(32, config);
    let pool = queue.buf_pool(4, 256).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (a, b) = UnixStream::pair().unwrap();
    let (output, input) = pipe();
    let copy = || a.try_clone().unwrap();
    queue.submit(Accept::new(listener.try_clone().unwrap()), |_| ()).unwrap();
    queue.submit_multi(AcceptMulti::new(listener), |_| ()).unwrap();
    queue.submit(Recv::new(copy(), vec![0; 8]), |_| ()).unwrap();
    queue.submit(Recv::new(copy(), vec![0; 8]).timeout(NEVER), |_| ()).unwrap();
    queue.submit_multi(RecvMulti::new(copy(), &pool), |_| ()).unwrap();
    queue.submit_multi(RecvMsgMulti::new(copy(), &pool), |_| ()).unwrap();
    queue.submit(Poll::new(copy(), PollEvents::IN), |_| ()).unwrap();
    queue.submit_multi(PollMulti::new(copy(), PollEvents::IN), |_| ()).unwrap();
    queue.submit(Read::new(output.try_clone().unwrap(), vec![0; 8]), |_| ()).unwrap();
    queue.submit_multi(ReadMulti::new(output, &pool), |_| ()).unwrap();
    queue.submit(Timeout::after(NEVER), |_| ()).unwrap();
    queue.submit_multi(TimeoutMulti::every(NEVER), |_| ()).unwrap();
    queue.submit_callback(Timeout::after(NEVER), |_, done| Then::Again(done.op)).unwrap();
    let chain = (Recv::new(copy(), vec![0; 8]).hard_link(), Recv::new(copy(), vec![0; 8]).hard_link(), Nop::new());
    queue.submit_chain(chain, (|_| (), |_| (), |_| ())).unwrap();
    let _poster = queue.poster().unwrap();
    let group = queue.gather(|_| ()).unwrap();
    group.submit(Timeout::after(NEVER), |_| ()).unwrap();
    drop(group);
    if started {
        drop(queue.poll().unwrap());
    }
    let began = Instant::now();
    drop(queue);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop((b, input));
}

#[test]
fn a_queue_that_goes_ends_what_waits_and_leaks_no_descriptor() {
    in_own_process("a_queue_that_goes_ends_what_waits_and_leaks_no_descriptor", || {
        each_queue(|config| {
            leaks_no_descriptor(|| {
                waiting(config, true);
                waiting(config, false);
            });
        });
    });
}

#[test]
fn connections_that_were_accepted_and_not_delivered_are_closed() {
    in_own_process("connections_that_were_accepted_and_not_delivered_are_closed", || {
        each_queue(|config| {
            leaks_no_descriptor(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let queue: Queue<()> = queue(8, config);
                queue.submit_multi(AcceptMulti::new(listener.try_clone().unwrap()), drop).unwrap();
                queue.submit(Accept::new(listener), |_| ()).unwrap();
                let mut clients: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
                while queue.wait(1).unwrap().size_hint().1.unwrap() < 8 {}
                drop(queue);
                for client in &mut clients {
                    // Closed, or reset if it was still in the backlog.
                    assert!(!matches!(client.read(&mut [0; 1]), Ok(1..)));
                }
            });
        });
    });
}

#[test]
fn operations_that_pause_go_with_their_queue() {
    in_own_process("operations_that_pause_go_with_their_queue", || {
        each_queue(|config| {
            leaks_no_descriptor(|| {
                for round in 0..100 {
                    let drops = Drops::default();
                    let queue: Queue<()> = queue(4, config);
                    let pool = queue.buf_pool(1024, 4).unwrap();
                    let (a, b) = tcp_pair();
                    (&b).write_all(&[7; 400]).unwrap();
                    let one = drops.one();
                    queue.submit_multi(RecvMulti::new(a, &pool), move |_| _ = &one).unwrap();
                    (0..round % 5).for_each(|_| drop(queue.poll().unwrap()));
                    (&b).write_all(&[7; 400]).unwrap();
                    (0..round % 3).for_each(|_| _ = queue.wait(1).unwrap().take(round % 7).count());
                    drop(queue);
                    assert_eq!(drops.count(), 1, "round {round}");
                }
            });
        });
    });
}

#[test]
fn a_child_can_neither_use_its_parents_queue_nor_harm_it() {
    in_own_process("a_child_can_neither_use_its_parents_queue_nor_harm_it", || {
        each_queue(|config| {
            let queue: Queue<aio::Result<usize>> = queue(8, config);
            let pool = queue.buf_pool(4, 16).unwrap();
            let (a, mut b) = UnixStream::pair().unwrap();
            let receive = |shot: Shot<RecvMulti<UnixStream>>| shot.result.map(|bytes| bytes.len());
            queue.submit_multi(RecvMulti::new(a.try_clone().unwrap(), &pool), receive).unwrap();
            let token = queue.submit(Timeout::after(NEVER), |_| Ok(0)).unwrap();
            assert_eq!(taken(&queue), []);
            let (waker, queue) = (queue.waker().unwrap(), RefCell::new(Some(queue)));
            let child = fork(|| {
                let queue = queue.take().unwrap();
                let forked = Err(Error::Setup(SetupError::Forked));
                let wait = |events: aio::Result<Events<'_, '_, _, 512>>| events.map(|events| events.count());
                assert_eq!(wait(queue.wait(1)), forked);
                assert_eq!(wait(queue.poll()), forked);
                assert_eq!(wait(queue.wait_until(Instant::now())), forked);
                assert_eq!(queue.run(|_, _| ()), Err(Error::Setup(SetupError::Forked)));
                assert_eq!(queue.cancel(token), Err(Error::Setup(SetupError::Forked)));
                assert!(matches!(queue.submit(Nop::new(), |_| Ok(0)), Err(NotSubmitted::Forked(..))));
                let chain = (Nop::new().link(), Nop::new());
                assert!(matches!(queue.submit_chain(chain, (|_| Ok(0), |_| Ok(0))), Err(NotSubmitted::Forked(..))));
                let multi = queue.submit_multi(TimeoutMulti::every(NEVER), |_| Ok(0));
                assert!(matches!(multi, Err(NotSubmitted::Forked(..))));
                assert!(queue.buf_pool(4, 16).is_err() && queue.poster().is_err());
                assert_eq!((queue.cancel_all(), queue.cancel_fd(&a)), (0, 0));
                drop(queue);
                // One of its own.
                let own: Queue<aio::Result<usize>> = common::queue(4, config);
                own.submit(Nop::new(), |done| done.result.map(|()| 1)).unwrap();
                assert_eq!(drained(&own), [Ok(1)]);
            });
            assert_eq!(child.wait(), 0);
            drop(waker);
            let queue = queue.take().unwrap();
            for _ in 0..20 {
                b.write_all(b"abc").unwrap();
                assert_eq!(collect(&queue, 1), [Ok(3)]);
            }
            queue.cancel(token).unwrap();
            assert_eq!(collect(&queue, 1), [Ok(0)]);
        });
    });
}

#[test]
fn a_queue_in_a_thread_local_ends_with_its_thread() {
    each_queue(|config| {
        thread_local! {
            static QUEUE: RefCell<Option<Queue<'static, ()>>> = const { RefCell::new(None) };
        }
        let (a, mut b) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || {
            let queue = queue(8, config);
            let pool = queue.buf_pool(4, 64).unwrap();
            queue.submit_multi(RecvMulti::new(a.try_clone().unwrap(), &pool), |_| ()).unwrap();
            queue.submit(Recv::new(a, vec![0; 8]), |_| ()).unwrap();
            queue.submit(Timeout::after(NEVER), |_| ()).unwrap();
            drop(queue.poll().unwrap());
            // The thread's own engine is used before and after.
            aio::single(Nop::new()).unwrap();
            QUEUE.set(Some(queue));
        });
        thread.join().unwrap();
        assert_eq!(b.read(&mut [0; 8]).unwrap(), 0, "what it received from is closed");
    });
}

#[test]
fn a_queue_that_holds_itself_is_leaked_and_its_thread_ends() {
    each_queue(|config| {
        let began = Instant::now();
        thread::spawn(move || {
            let queue: Rc<Queue<'static, ()>> = Rc::new(queue(4, config));
            let itself = queue.clone();
            queue.submit(Timeout::after(NEVER), move |_| drop(itself)).unwrap();
        })
        .join()
        .unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
    });
}
