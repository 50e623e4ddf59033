//! What cancellation means, what a descriptor's kind and mode do not change, and that no operation of a batch waits for
//! ever for another one: the rows of the table that the engines have in common, on every engine.

mod common;

use aio::{Error, op::*};
use common::{NEVER, each_engine, os, pipe};
use std::{
    io::{IoSlice, IoSliceMut, Write as _},
    net,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

fn set_nonblocking(fd: &impl AsRawFd) {
    // SAFETY: changes a flag of a descriptor that is open.
    unsafe {
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK | libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))
    };
}

fn canceled<T>(result: &aio::Result<T>) -> bool {
    matches!(result, Err(Error::Canceled))
}

#[test]
fn a_cancelled_head_skips_its_soft_tail_and_runs_its_hard_tail() {
    each_engine(|engine| {
        if !engine.cancels_by_descriptor {
            return;
        }
        let ((a, _a), (b, _b), mut x, mut y) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap(), [0u8; 4], [0u8; 4]);
        let done = aio::complete((
            (Recv::new(&a, &mut x).link(), Nop::new()),
            (Recv::new(&b, &mut y).hard_link(), Nop::new()),
            (Cancel::fd(&a), Cancel::fd(&b)),
        ));
        let (soft, hard, cancels) = done.unwrap().results;
        assert!(canceled(&soft.0) && canceled(&hard.0), "{soft:?} {hard:?}");
        assert_eq!((soft.1, hard.1, cancels), (Err(Error::Skipped), Ok(()), (Ok(1), Ok(1))));
    });
}

#[test]
fn a_linked_operation_that_has_not_started_is_not_cancelled_and_runs_later() {
    each_engine(|engine| {
        if !engine.cancels_by_descriptor {
            return;
        }
        let (a, b) = UnixStream::pair().unwrap();
        (&b).write_all(b"later").unwrap();
        let mut buf = [0u8; 5];
        let wait = Timeout::after(Duration::from_millis(20));
        let done = aio::complete((wait.link(), Recv::new(&a, &mut buf), Cancel::fd(&a))).unwrap();
        assert_eq!(done.results, (Ok(()), Ok(5), Ok(0)));
    });
}

#[test]
fn a_cancel_that_finds_nothing_changes_no_result() {
    each_engine(|engine| {
        let (a, b) = UnixStream::pair().unwrap();
        (&b).write_all(b"done").unwrap();
        let mut buf = [0u8; 4];
        let done = aio::complete((Recv::new(&a, &mut buf).link(), Cancel::fd(&a))).unwrap();
        assert_eq!(done.results.0, Ok(4));
        match engine.cancels_by_descriptor {
            true => assert_eq!(done.results.1, Ok(0)),
            false => assert!(matches!(done.results.1, Err(Error::Unsupported(_))), "{done:?}"),
        }
    });
}

#[test]
fn a_cancel_ends_all_that_waits_for_the_open_file_under_any_number() {
    each_engine(|engine| {
        if !engine.cancels_by_descriptor {
            return;
        }
        let (a, _b) = UnixStream::pair().unwrap();
        let (clone, mut x, mut y) = (a.try_clone().unwrap(), [0u8; 4], [0u8; 4]);
        let poll = Poll::new(&a, PollEvents::IN);
        let done = aio::complete((Recv::new(&a, &mut x), Recv::new(&clone, &mut y), poll, Cancel::fd(&a))).unwrap();
        let (x, y, poll, count) = done.results;
        assert!(canceled(&x) && canceled(&y) && canceled(&poll), "{x:?} {y:?} {poll:?}");
        assert_eq!((count, done.errors), (Ok(3), 3));
    });
}

#[test]
fn pipes_ignore_an_explicit_offset() {
    each_engine(|_| {
        let (output, input) = pipe();
        let (mut x, mut y) = ([0u8; 3], [0u8; 4]);
        aio::multi((Write::new(&input, b"abc").at(5).link(), Read::new(&output, &mut x).at(1 << 40))).unwrap();
        let (write, mut read) = ([IoSlice::new(b"de"), IoSlice::new(b"fg")], [IoSliceMut::new(&mut y)]);
        aio::multi((Writev::new(&input, &write).at(7).link(), Readv::new(&output, &mut read).at(9))).unwrap();
        assert_eq!((&x, &y), (b"abc", b"defg"));
    });
}

#[test]
fn sockets_ignore_an_explicit_offset() {
    each_engine(|_| {
        let ((a, b), mut x) = (UnixStream::pair().unwrap(), [0u8; 3]);
        aio::multi((Write::new(&a, b"xyz").at(5).link(), Read::new(&b, &mut x).at(6))).unwrap();
        assert_eq!(&x, b"xyz");
    });
}

#[test]
fn descriptors_in_nonblocking_mode_wait_like_any_other() {
    each_engine(|_| {
        let ((output, input), (a, b), event) = (pipe(), UnixStream::pair().unwrap(), EventSource::new().unwrap());
        for fd in [&output as &dyn AsRawFd, &input, &a, &b] {
            set_nonblocking(&fd.as_raw_fd());
        }
        let (mut x, mut y, mut z) = ([0u8; 4], [0u8; 4], [0u8; 4]);
        let done = aio::complete((
            (Read::new(&output, &mut x), Read::new(&a, &mut y), WaitEvent::new(&event)),
            Timeout::after(Duration::from_millis(5)).link(),
            (Write::new(&input, b"ab").hard_link(), Write::new(&b, b"abc").hard_link(), Notify::new(&event)),
        ));
        assert_eq!(done.unwrap().results, ((Ok(2), Ok(3), Ok(())), Ok(()), (Ok(2), Ok(3), Ok(()))));
        let wait = Timeout::after(Duration::from_millis(5));
        let done = aio::complete((Recv::new(&a, &mut z), wait.link(), Send::new(&b, b"z"))).unwrap();
        assert_eq!(done.results, (Ok(1), Ok(()), Ok(1)));
    });
}

#[test]
fn a_full_pipe_in_nonblocking_mode_waits_for_its_reader() {
    each_engine(|_| {
        let (output, input) = pipe();
        set_nonblocking(&input);
        let full = vec![1u8; 65536];
        assert_eq!(aio::single(Write::new(&input, &full)), Ok(65536));
        let mut taken = vec![0u8; 65536];
        let wait = Timeout::after(Duration::from_millis(5));
        let done =
            aio::complete((Write::new(&input, b"more"), wait.link(), Read::new(&output, &mut taken[..]))).unwrap();
        assert_eq!(done.results, (Ok(4), Ok(()), Ok(65536)));
    });
}

#[test]
fn a_listener_in_nonblocking_mode_waits_for_a_connection() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("s")).unwrap();
        let inet = net::TcpListener::bind("127.0.0.1:0").unwrap();
        unix.set_nonblocking(true).unwrap();
        inet.set_nonblocking(true).unwrap();
        let (path, address) = (dir.path().join("s"), inet.local_addr().unwrap());
        std::thread::scope(|s| {
            s.spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                let unix = UnixStream::connect(path).unwrap();
                (unix, net::TcpStream::connect(address).unwrap())
            });
            aio::multi((Accept::new(&unix), Accept::new(&inet))).unwrap();
        });
    });
}

#[test]
fn nonblocking_operations_give_would_block_at_once_and_break_their_chain() {
    each_engine(|_| {
        let ((output, input), (a, _b)) = (pipe(), UnixStream::pair().unwrap());
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        aio::single(Write::new(&input, &vec![1u8; 65536])).unwrap();
        let ((empty, _keep), mut x, mut y) = (pipe(), [0u8; 4], [0u8; 4]);
        let done = aio::complete((
            Read::new(&empty, &mut x).nonblocking().link(),
            Nop::new(),
            Recv::new(&a, &mut y).nonblocking(),
            Accept::new(&listener).nonblocking(),
            Write::new(&input, b"!").nonblocking(),
        ));
        let (read, skipped, recv, accept, write) = done.unwrap().results;
        assert_eq!(
            (read, skipped, recv, write),
            (os(libc::EAGAIN), Err(Error::Skipped), os(libc::EAGAIN), os(libc::EAGAIN))
        );
        assert_eq!(accept.unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        drop(output);
    });
}

#[test]
fn nonblocking_operations_take_what_is_there() {
    each_engine(|_| {
        let ((output, input), (a, b), mut x, mut y) = (pipe(), UnixStream::pair().unwrap(), [0u8; 4], [0u8; 4]);
        aio::multi((Write::new(&input, b"ab").nonblocking(), Send::new(&b, b"abc").nonblocking())).unwrap();
        let taken = aio::multi((Read::new(&output, &mut x).nonblocking(), Recv::new(&a, &mut y).nonblocking()));
        assert_eq!(taken, Ok((2, 3)));
    });
}

#[test]
fn a_chain_may_feed_another_operation_of_its_batch() {
    each_engine(|_| {
        let ((output, input), mut buf) = (pipe(), [0u8; 2]);
        let done = aio::complete((
            Read::new(&output, &mut buf),
            Nop::new().link(),
            Nop::new().link(),
            Write::new(&input, b"ok"),
        ));
        assert_eq!(done.unwrap().results, (Ok(2), Ok(()), Ok(()), Ok(2)));
    });
}

#[test]
fn a_chain_that_the_ring_cannot_do_alone_may_feed_another_operation() {
    each_engine(|_| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ((output, input), (a, b), mut x, mut y) = (pipe(), UnixStream::pair().unwrap(), [0u8; 2], [0u8; 2]);
        let chain = (
            Accept::new(&listener).nonblocking().hard_link(),
            Recv::new(&a, &mut y).link(),
            Nop::new().link(),
            Write::new(&input, b"ok"),
        );
        let done = aio::complete((Read::new(&output, &mut x), chain, Send::new(&b, b"go"))).unwrap();
        assert_eq!((done.results.0, done.results.2, done.errors), (Ok(2), Ok(2), 1));
    });
}

#[test]
fn a_batch_is_done_only_when_all_of_it_is() {
    each_engine(|engine| {
        let ((a, b), mut buf) = (UnixStream::pair().unwrap(), [0u8; 4]);
        let clone = b.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            (&clone).write_all(b"last").unwrap();
        });
        let done = aio::complete((Nop::new(), Recv::new(&a, &mut buf).timeout(NEVER), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(()), Ok(4), Ok(())), "{}", engine.name);
        writer.join().unwrap();
    });
}

#[test]
fn a_poll_of_the_current_directory_is_an_error_instead_of_a_wait() {
    each_engine(|_| {
        // It is no descriptor, but a negative number that `poll(2)` ignores. The limit ends the test if it waits.
        let ready = aio::single(Poll::new(CURRENT_DIR, PollEvents::IN).timeout(Duration::from_secs(10)));
        assert_eq!(ready, os(libc::EBADF));
    });
}
