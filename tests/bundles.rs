//! Sending several buffers at once.

mod common;
#[path = "common/net.rs"]
mod net;

use aio::{Error, PooledBuf, Queue, op::*, queue::*};
use common::*;
use net::tcp_pair;
use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    thread,
};

fn pieces(lens: &[usize]) -> Vec<Vec<u8>> {
    let mut at = 0u32;
    let mut piece = |len: &usize| {
        (0..*len)
            .map(|_| {
                at += 1;
                (at ^ (at >> 8)) as u8
            })
            .collect()
    };
    lens.iter().map(&mut piece).collect()
}

#[test]
fn buffers_of_all_kinds_go_out_in_order_and_come_back() {
    each_engine(|_| {
        let (a, mut b) = tcp_pair();
        let bufs = pieces(&[3, 0, 1000, 1, 40_000]);
        let whole = bufs.concat();
        for zero_copy in [false, true] {
            let bundle = |flags| {
                let bundle = SendBundle::new(&a, bufs.clone()).flags(flags);
                if zero_copy { bundle.zero_copy() } else { bundle }
            };
            let mut into = vec![0; whole.len()];
            let receive = Recv::new(&b, &mut into[..]).flags(RecvFlags::WAITALL);
            let (sent, received) = aio::multi((bundle(SendFlags::WAITALL), receive)).unwrap();
            assert_eq!((sent, received), ((whole.len(), bufs.clone()), whole.len()));
            assert!(into == whole);
        }
        // Lent ones, and none.
        assert_eq!(aio::single(SendBundle::new(&a, vec!["ab", "c"])), Ok((3, vec!["ab", "c"])));
        assert_eq!(aio::single(SendBundle::new(&a, Vec::<&str>::new())), Ok((0, vec![])));
        let mut into = [0; 3];
        b.read_exact(&mut into).unwrap();
        assert_eq!(&into, b"abc");
        // One message.
        let (c, d) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        c.connect(d.local_addr().unwrap()).unwrap();
        assert_eq!(aio::single(SendBundle::new(&c, vec!["one ", "message"])).unwrap().0, 11);
        let mut into = [0; 32];
        assert_eq!(d.recv(&mut into).unwrap(), 11);
    });
}

#[test]
fn misuse_has_an_error_and_gives_all_back() {
    each_queue(|config| {
        let queue: Queue<Done<SendBundle<UnixStream, String>>> = queue(4, config);
        let (a, _b) = UnixStream::pair().unwrap();
        queue.submit(SendBundle::new(a, vec!["x".to_owned(); 1025]), |done| done).unwrap();
        let done = collect(&queue, 1).pop().unwrap();
        assert!(matches!(done.result, Err(Error::Invalid(_))), "{:?}", done.result);
        let (a, bufs) = done.op.into_parts();
        assert_eq!(bufs.len(), 1025);
        queue.submit(SendBundle::new(a, bufs[..1024].to_vec()), |done| done).unwrap();
        assert_eq!(collect(&queue, 1).pop().unwrap().result, Ok(1024));
        let (c, d) = UnixStream::pair().unwrap();
        drop(d);
        queue.submit(SendBundle::new(c, vec!["x".to_owned()]), |done| done).unwrap();
        assert_eq!(collect(&queue, 1).pop().unwrap().result, os(libc::EPIPE));
    });
}

#[test]
fn advancing_drops_what_was_sent_and_no_more() {
    let bundle = || SendBundle::new(std::io::stdout(), vec!["", "abc", "de", "", "f"]);
    for (count, left) in [(0, 4), (1, 4), (2, 4), (3, 3), (4, 3), (5, 1), (6, 0)] {
        let mut at_once = bundle();
        at_once.advance(count);
        assert_eq!(at_once.bufs().len(), left, "{count}");
        let mut by_one = bundle();
        (0..count).for_each(|_| by_one.advance(1));
        if count > 0 {
            assert_eq!(by_one.bufs(), at_once.bufs());
        }
    }
    let mut bundle = bundle();
    bundle.advance(2);
    assert!(catch_unwind(AssertUnwindSafe(|| bundle.advance(5))).is_err());
    bundle.advance(4);
    assert!(bundle.bufs().is_empty());
    bundle.advance(0);
    bundle.push("g");
    assert_eq!(bundle.into_bufs(), ["g"]);
}

/// What is received into a pool goes out again, many buffers at a time, with whatever part the kernel takes.
#[test]
fn a_stream_is_echoed_in_bundles() {
    const TOTAL: usize = 600_000;
    type Socket = Rc<TcpStream>;
    enum Event {
        Received(aio::Result<PooledBuf>, Option<RecvMulti<Socket>>),
        Sent(Done<SendBundle<Socket, PooledBuf>>),
    }
    each_queue(|config| {
        let queue: Queue<Event> = queue(8, config);
        let pool = queue.buf_pool(64, 512).unwrap();
        let (client, server) = tcp_pair();
        let server = Rc::new(server);
        let echoing = thread::spawn(move || {
            let data = pieces(&[TOTAL]).concat();
            thread::scope(|s| {
                s.spawn(|| {
                    (&client).write_all(&data).unwrap();
                    client.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let mut back = Vec::new();
                (&client).read_to_end(&mut back).unwrap();
                assert!(back == data, "{} bytes came back", back.len());
            });
        });
        let receive = |op| queue.submit_multi(op, |shot| Event::Received(shot.result, shot.op)).map(drop).unwrap();
        let send = |op| queue.submit(op, Event::Sent).map(drop).unwrap();
        receive(RecvMulti::new(server.clone(), &pool));
        let (mut waiting, mut hungry, mut idle, mut ended) = (Vec::new(), None, true, false);
        let (mut bundles, mut most) = (0, 0);
        while !(ended && idle && waiting.is_empty()) {
            let events: Vec<Event> = queue.wait(1).unwrap().map(|(_, event)| event).collect();
            for event in events {
                match event {
                    Event::Received(Ok(bytes), _) if bytes.is_empty() => ended = true,
                    Event::Received(Ok(bytes), _) => waiting.push(bytes),
                    Event::Received(Err(error), op) => {
                        assert_eq!(Err(error), os::<()>(libc::ENOBUFS));
                        hungry = op;
                    }
                    Event::Sent(mut done) => {
                        done.op.advance(done.result.unwrap());
                        idle = done.op.bufs().is_empty();
                        if !idle {
                            send(done.op);
                        }
                    }
                }
            }
            if idle && !waiting.is_empty() {
                (bundles, most) = (bundles + 1, most.max(waiting.len()));
                send(SendBundle::new(server.clone(), std::mem::take(&mut waiting)));
                idle = false;
            }
            if idle && let Some(op) = hungry.take() {
                receive(op);
            }
        }
        assert!(most > 1 && bundles > 0);
        server.shutdown(std::net::Shutdown::Write).unwrap();
        echoing.join().unwrap();
    });
}
