//! What `tests/parity.rs` has found, each once more by itself.
#![cfg(target_os = "linux")]

mod common;

use aio::{Backend, Error, Queue, Result, op::*};
use common::{Engine, each_engine, each_queue, file_with, os, pipe, runtime};
use std::{
    io::Write as _,
    net::{self, TcpListener, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    time::Duration,
};

const SOON: Duration = Duration::from_millis(2);

/// A queue in a task, on each engine.
fn each_queue_in_a_task(test: impl Fn(&Queue<'static, String, 1024>)) {
    each_engine(|engine| {
        let queue = || Queue::with_config(8, engine.config).unwrap();
        runtime(engine).run(|| test(&queue())).unwrap();
    });
}

fn text<O: Op>(done: aio::queue::Done<O>) -> String
where
    O::Value: std::fmt::Debug,
{
    format!("{:?}", done.result)
}

fn all(queue: &Queue<'static, String, 1024>) -> Vec<String> {
    let mut events = Vec::new();
    queue.drain(|_, event| events.push(event)).unwrap();
    events
}

#[test]
fn a_limit_expires_in_a_queue_that_a_task_waits_for() {
    each_queue_in_a_task(|queue| {
        let (a, _b) = UnixStream::pair().unwrap();
        queue.submit(Recv::new(a, vec![0; 4]).timeout(SOON), text).unwrap();
        assert_eq!(all(queue), ["Err(TimedOut)"]);
    });
}

#[test]
fn a_limit_reaches_what_is_linked_to_an_operation_on_a_file() {
    each_queue_in_a_task(|queue| {
        let (a, _b) = UnixStream::pair().unwrap();
        let chain = (UnlinkAt::new("/none/x").hard_link(), Recv::new(a, vec![0; 4]).timeout(SOON));
        queue.submit_chain(chain, (text, text)).unwrap();
        assert_eq!(all(queue)[1], "Err(TimedOut)");
        let ((_from, to), (a, _b)) = (pipe(), UnixStream::pair().unwrap());
        let tee = Tee::new(file_with(b""), to, 1);
        queue.submit_chain((tee.hard_link(), Recv::new(a, vec![0; 4]).timeout(SOON)), (text, text)).unwrap();
        assert_eq!(all(queue)[1], "Err(TimedOut)");
    });
}

#[test]
fn a_nonblocking_accept_does_not_wait_behind_an_operation_on_a_file() {
    each_queue_in_a_task(|queue| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let chain = (UnlinkAt::new("/none/x").hard_link(), Accept::new(listener).nonblocking().link(), Nop::new());
        queue.submit_chain(chain, (text, text, text)).unwrap();
        let events = all(queue);
        assert!(events[1].contains("Errno(11"), "{events:?}");
        assert_eq!(events[2], "Err(Skipped)");
    });
}

/// What a queue gives for a chain. If the engine is a ring, it must have got the chain's first operation alone.
#[track_caller]
fn in_steps(engine: &Engine, submit: impl FnOnce(&Queue<'static, String, 1024>)) -> Vec<String> {
    let queue = Queue::with_config(8, engine.config).unwrap();
    let before = queue.stats().submitted;
    submit(&queue);
    if engine.backend == Backend::IoUring {
        assert_eq!(queue.stats().submitted - before, 1);
    }
    all(&queue)
}

/// A worker of the kernel's that has done an operation goes on with the chain itself, now and then if the ring defers its
/// work, and does not start a limit that it finds there. So nothing of that may be given to the ring.
#[test]
fn what_is_bounded_is_not_given_to_a_ring_before_what_a_worker_does_has_ended() {
    fn check<O: Op + 'static>(engine: &Engine, head: impl Fn() -> O)
    where
        O::Value: std::fmt::Debug,
    {
        let (a, _b) = UnixStream::pair().unwrap();
        let recv = || Recv::new(a.try_clone().unwrap(), vec![0; 4]);
        let events = in_steps(engine, |queue| {
            queue.submit_chain((head().hard_link(), recv().timeout(SOON)), (text, text)).unwrap();
        });
        assert_eq!(events[1], "Err(TimedOut)");
        let events = in_steps(engine, |queue| {
            let chain = (head().hard_link(), Nop::new().link(), recv().timeout(SOON).hard_link(), Nop::new());
            queue.submit_chain(chain, (text, text, text, text)).unwrap();
        });
        assert_eq!(events[1..], ["Ok(())", "Err(TimedOut)", "Ok(())"]);
        let events = in_steps(engine, |queue| {
            queue.submit_chain((head().hard_link(), recv().nonblocking()), (text, text)).unwrap();
        });
        assert!(events[1].contains("Errno(11"), "{events:?}");
    }
    each_engine(|engine| {
        check(engine, || UnlinkAt::new("/none/x"));
        check(engine, || OpenAt::new("/dev/null"));
        check(engine, || Statx::new("/dev/null"));
        check(engine, || Read::new(file_with(b"text"), vec![0; 4]).at(0));
        check(engine, || Write::new(file_with(b""), "text").at(0));
        check(engine, || Fsync::new(file_with(b"")));
        // A worker does it for sure, and waits.
        let ((from, input), (_output, to)) = (pipe(), pipe());
        let (a, _b) = UnixStream::pair().unwrap();
        let events = in_steps(engine, |queue| {
            let recv = Recv::new(a, vec![0; 4]).timeout(SOON);
            queue.submit_chain((Splice::new(from, to, 1).hard_link(), recv), (text, text)).unwrap();
            assert!(queue.poll().unwrap().next().is_none());
            aio::single(Write::new(&input, "x")).unwrap();
        });
        assert_eq!(events, ["Ok(1)", "Err(TimedOut)"]);
    });
}

/// What a soft link does behind an operation that fails, and that is all.
#[track_caller]
fn breaks<O: Op>(op: O) {
    let done = aio::complete((op.link(), Nop::new().hard_link(), Nop::new())).unwrap();
    assert!(done.results.0.is_err());
    assert_eq!((done.results.1, done.results.2), (Err(Error::Skipped), Err(Error::Skipped)));
}

#[test]
fn a_failure_on_names_breaks_a_soft_link() {
    each_engine(|_| {
        breaks(RenameAt::new("/none/a", "/none/b"));
        breaks(UnlinkAt::new("/none/a"));
        breaks(MkDirAt::new("/none/a"));
        breaks(SymlinkAt::new("x", "/none/a"));
        breaks(LinkAt::new("/none/a", "/none/b"));
        breaks(Statx::new("/none/a"));
    });
}

#[test]
fn a_failure_of_fsync_and_its_like_breaks_a_soft_link() {
    each_engine(|_| {
        let (output, _input) = pipe();
        breaks(Fsync::new(&output));
        breaks(Fallocate::new(&output, 0, 1));
        breaks(Ftruncate::new(&output, 1));
        breaks(Fadvise::new(&output, Advice::Normal));
        breaks(Shutdown::new(&output, net::Shutdown::Both));
    });
}

#[test]
fn what_the_kernel_refuses_at_first_sight_takes_no_other_operation_with_it() {
    each_engine(|_| {
        let bad = || Socket::new(Domain::V4, SocketType::Other(77));
        let done = aio::complete((bad().hard_link(), Nop::new())).unwrap();
        assert_eq!((done.results.0.map(drop), done.results.1), (os(libc::EINVAL), Ok(())));
        let done = aio::complete((Nop::new().link(), bad().link(), Nop::new())).unwrap();
        let (first, refused, last) = done.results;
        assert_eq!((first, refused.map(drop), last), (Ok(()), os(libc::EINVAL), Err(Error::Skipped)));
        let done = aio::complete((Nop::new().link(), OpenAt::new("").hard_link(), Nop::new())).unwrap();
        let (first, refused, last) = done.results;
        assert_eq!((first, refused.map(drop), last), (Ok(()), os(libc::ENOENT), Ok(())));
    });
}

#[test]
fn accepting_on_what_does_not_listen_fails_at_once() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        let (output, _input) = pipe();
        assert_eq!(aio::single(Accept::new(&output).timeout(SOON)).map(drop), os(libc::ENOTSOCK));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let accepted = |result: Result<Accepted>| result.map(drop);
        assert_eq!(accepted(aio::single(Accept::new(&a).timeout(SOON))), os(libc::EINVAL));
        (&b).write_all(b"what it has is no connection").unwrap();
        assert_eq!(accepted(aio::single(Accept::new(&a).timeout(SOON))), os(libc::EINVAL));
        for (domain, kind) in [
            (Domain::V4, SocketType::Stream),
            (Domain::Unix, SocketType::Stream),
            (Domain::Unix, SocketType::SeqPacket),
        ] {
            let fresh = aio::single(Socket::new(domain, kind)).unwrap();
            assert_eq!(accepted(aio::single(Accept::new(&fresh).timeout(SOON))), os(libc::EINVAL));
        }
        assert_eq!(accepted(aio::single(Accept::new(&udp).timeout(SOON))), os(libc::EOPNOTSUPP));
        assert_eq!(accepted(aio::single(Accept::new(&udp).nonblocking())), os(libc::EOPNOTSUPP));
    });
}

#[test]
fn cancelling_all_counts_a_chain_as_its_operations() {
    each_queue(|config| {
        for submitted in [false, true] {
            let queue = Queue::<()>::with_config(4, config).unwrap();
            let (a, _b) = UnixStream::pair().unwrap();
            queue.submit_chain((Recv::new(a, vec![0; 4]).link(), Nop::new()), (|_| (), |_| ())).unwrap();
            if submitted {
                assert_eq!(queue.poll().unwrap().count(), 0);
            }
            assert_eq!(queue.cancel_all(), 2);
            queue.drain(|_, ()| ()).unwrap();
        }
    });
}

#[test]
fn a_file_is_never_ready_for_what_cannot_happen_to_it() {
    each_engine(|_| {
        let file = file_with(b"bytes");
        for never in [PollEvents::PRI, PollEvents::empty()] {
            assert_eq!(aio::single(Poll::new(&file, never).timeout(SOON)), os(libc::EINVAL));
        }
        assert_eq!(aio::single(Poll::new(&file, PollEvents::IN)), Ok(PollEvents::IN));
    });
}

#[test]
fn a_poll_does_not_tell_what_it_was_not_asked() {
    each_engine(|_| {
        let (a, _) = UnixStream::pair().unwrap();
        assert_eq!(aio::single(Poll::new(&a, PollEvents::IN)), Ok(PollEvents::IN | PollEvents::HUP));
        let done = aio::complete((Nop::new().link(), Poll::new(&a, PollEvents::IN))).unwrap();
        assert_eq!(done.results.1, Ok(PollEvents::IN | PollEvents::HUP));
    });
}

#[test]
fn a_poll_ends_when_the_peer_shuts_down_and_says_so_if_that_is_all() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        b.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(aio::single(Poll::new(&a, PollEvents::PRI)), Ok(PollEvents::RDHUP));
        assert_eq!(aio::single(Poll::new(&a, PollEvents::IN)), Ok(PollEvents::IN));
        let (queue, mut seen) = (Queue::new(2).unwrap(), Vec::new());
        queue.submit_multi(PollMulti::new(a, PollEvents::PRI), |shot| shot.result).unwrap();
        queue.wait(1).unwrap().take(1).for_each(|(_, result)| seen.push(result));
        assert_eq!(seen, [Ok(PollEvents::RDHUP)]);
    });
}

#[test]
fn options_of_what_is_no_socket_are_refused_as_such() {
    each_engine(|_| {
        let file = file_with(b"");
        let set = || SetSockOpt::new(&file, option::KeepAlive, true);
        assert_eq!(aio::single(set()), os(libc::ENOTSOCK));
        assert_eq!(aio::single(GetSockOpt::new(&file, option::KeepAlive)), os(libc::ENOTSOCK));
        let done = aio::complete((set().hard_link(), Nop::new())).unwrap();
        assert_eq!(done.results, (os(libc::ENOTSOCK), Ok(())));
    });
}

#[test]
fn a_read_with_an_offset_that_a_socket_ignores_times_out() {
    each_engine(|_| {
        let (a, _b) = UnixStream::pair().unwrap();
        let mut buffer = [0; 4];
        let read = Read::new(&a, &mut buffer).at(1).timeout(Duration::ZERO);
        assert_eq!(aio::single(read), Err(Error::TimedOut));
        let read = Read::new(&a, &mut buffer).at(1).timeout(Duration::ZERO);
        let done = aio::complete((Nop::new().link(), read)).unwrap();
        assert_eq!(done.results.1, Err(Error::TimedOut));
    });
}

#[test]
fn a_datagram_socket_that_was_shut_down_gives_nothing_and_does_not_wait() {
    each_engine(|_| {
        let (a, _b) = UnixDatagram::pair().unwrap();
        a.shutdown(net::Shutdown::Both).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(aio::single(Recv::new(&a, &mut buffer).timeout(common::NEVER)), Ok(0));
    });
}

#[test]
fn what_the_kernel_refuses_behind_a_broken_link_is_skipped() {
    each_engine(|_| {
        let strange = || Socket::new(Domain::V4, SocketType::Other(77));
        let done = aio::complete((strange().link(), strange().link(), Nop::new())).unwrap();
        assert!(matches!(done.results.0, Err(Error::Os(_))), "{:?}", done.results);
        assert_eq!(done.results.1.map(drop), Err(Error::Skipped));
        assert_eq!(done.results.2, Err(Error::Skipped));
    });
}

/// Linux 6.18 tries a send on a socket that was shut down for reading, and has no room, until a worker takes it, which may
/// not notice that it was cancelled meanwhile.
#[test]
fn a_cancel_that_the_kernel_misses_is_given_again() {
    each_queue(|config| {
        let (a, _b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        while (&a).write(&[0; 1000]).is_ok() {}
        a.set_nonblocking(false).unwrap();
        a.shutdown(net::Shutdown::Read).unwrap();
        let queue = Queue::<Result<usize>>::with_config(8, config).unwrap();
        for _ in 0..5 {
            queue.submit(Send::new(a.try_clone().unwrap(), b"x".to_vec()), |done| done.result).unwrap();
            queue.cancel_all();
            assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Err(Error::Canceled));
        }
        queue.submit(Send::new(a, b"x".to_vec()).timeout(SOON), |done| done.result).unwrap();
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Err(Error::TimedOut));
    });
}

#[test]
fn a_nonblocking_write_to_a_file_whose_system_cannot_tell_would_block() {
    each_engine(|_| {
        let (file, more) = (file_with(b""), file_with(b""));
        // Other systems can tell.
        let fits = |result: Result<usize>| assert!(result == Ok(1) || result == os(libc::EAGAIN), "{result:?}");
        fits(aio::single(Write::new(&file, b"x").nonblocking()));
        fits(aio::complete((Nop::new().link(), Write::new(&more, b"x").at(0).nonblocking())).unwrap().results.1);
    });
}
