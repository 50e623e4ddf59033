//! Operations that are settled where they are, and run again.
#![allow(unsafe_code)]

use super::*;
use crate::{
    Backend, Closing, Config, Error,
    batch::{Entry, located},
    complete::{Host, Thread},
    driver::slot::Link,
    engine,
    lower::Raise,
    spare,
};
use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    net::UdpSocket,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    process::{Command, Stdio},
};

/// Runs an operation and leaves it where it is.
fn run<O: Op>(op: &mut O) -> Result<O::Value> {
    let run = |engine: &engine::Engine| {
        let mut slot = MaybeUninit::uninit();
        let place = &raw mut slot;
        // SAFETY: the operation is borrowed and the slot is a local; neither is touched until this returns.
        unsafe { Thread.run_to_end(engine, 1, "test", || located::<O>(place, 1), |cx| op.lower_into(&mut *place, cx)) };
        // SAFETY: lowered above, and finished.
        op.settle(Raise::new(engine).outcome(unsafe { slot.assume_init_ref() }, Link::None))
    };
    engine::existing(run).expect("a test runs on an engine")
}

/// Runs an operation behind one that fails, to which it is linked.
fn skip<O: Op>(op: &mut O) -> Result<O::Value> {
    let run = |engine: &engine::Engine| {
        let mut slots = [MaybeUninit::uninit(), MaybeUninit::uninit()];
        let (first, second) = (slots[0].as_mut_ptr(), &raw mut slots[1]);
        let failing = RawOp::Invalid(Error::Invalid(&"test"));
        // SAFETY: as in `run`.
        unsafe {
            let slots = || vec![first, second.cast()];
            Thread.run_to_end(engine, 2, "test", slots, |cx| {
                cx.push(first, failing, Link::Soft);
                op.lower_into(&mut *second, cx);
            });
        }
        let mut raise = Raise::new(engine);
        // SAFETY: both were lowered above, and are finished.
        unsafe {
            assert!(raise.outcome(slots[0].assume_init_ref(), Link::Soft).result().is_err());
            op.settle(raise.outcome(slots[1].assume_init_ref(), Link::None))
        }
    };
    engine::existing(run).expect("a test runs on an engine")
}

/// Calls `test` on each engine that exists here, or on the one that `AIO_BACKEND` demands.
fn each_engine(test: impl Fn()) {
    let all = match std::env::var_os("AIO_BACKEND") {
        Some(_) => vec![Config::new()],
        None => [Backend::IoUring, Backend::Epoll, Backend::Poll].map(|b| Config::new().backend(b)).into(),
    };
    let count = all.into_iter().filter(|config| config.run(&test).is_ok()).count();
    assert!(count > 0, "the poll emulation works everywhere");
}

#[test]
fn a_vector_grows_once_for_each_run() {
    each_engine(|| {
        let (output, mut input) = std::io::pipe().unwrap();
        let mut vec = Vec::with_capacity(16);
        let mut read = Read::new(&output, spare(&mut vec));
        for text in [&b"abc"[..], b"de", b"f"] {
            input.write_all(text).unwrap();
            assert_eq!(run(&mut read), Ok(text.len()));
        }
        drop(input);
        assert_eq!(run(&mut read), Ok(0));
        assert_eq!(vec, b"abcdef");
    });
}

#[test]
fn the_buffer_stays_also_after_an_error() {
    each_engine(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let mut recv = Recv::new(&a, vec![0u8; 8]).nonblocking();
        assert_eq!(run(&mut recv).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        assert_eq!(recv.buf().len(), 8);

        let mut send = Send::new(&b, b"hello".to_vec());
        assert_eq!(run(&mut send), Ok(5));
        assert_eq!(run(&mut recv), Ok(5));
        assert_eq!(&recv.buf()[..5], b"hello");

        send.buf_mut().truncate(2);
        recv.buf_mut()[..5].fill(0);
        assert_eq!(run(&mut send), Ok(2));
        assert_eq!(run(&mut recv), Ok(2));
        let (fd, buffer) = recv.into_parts();
        assert_eq!((fd.as_raw_fd(), &buffer[..]), (a.as_raw_fd(), &b"he\0\0\0\0\0\0"[..]));
        assert_eq!(send.into_buf(), b"he");
    });
}

#[test]
fn offsets_and_limits_hold_for_each_run() {
    each_engine(|| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut there = Read::new(&file, vec![0u8; 4]).at(2).timeout(Duration::from_secs(3600));
        for _ in 0..2 {
            assert_eq!(run(&mut there), Ok(4));
            assert_eq!(there.get_ref().buf(), b"2345");
            there.get_mut().buf_mut().fill(0);
        }

        let (a, mut b) = UnixStream::pair().unwrap();
        let mut recv = Recv::new(&a, vec![0u8; 4]).timeout(Duration::from_millis(1));
        assert_eq!(run(&mut recv), Err(Error::TimedOut));
        assert_eq!(run(&mut recv), Err(Error::TimedOut));
        b.write_all(b"x").unwrap();
        assert_eq!(run(&mut recv), Ok(1));
        assert_eq!(recv.into_inner().into_buf()[0], b'x');
        assert_eq!(run(&mut Timeout::after(Duration::from_micros(10)).timeout(Duration::from_secs(3600))), Ok(()));
    });
}

#[test]
fn each_run_has_an_address_of_its_own() {
    each_engine(|| {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (long, short) = (at("a name that is longer"), at("short"));
        let bound = |path| {
            let _ = std::fs::remove_file(path);
            UnixDatagram::bind(path).unwrap()
        };
        let to = at("to");
        let receiver = UnixDatagram::bind(&to).unwrap();
        let mut from = RecvFrom::new(&receiver, vec![0u8; 4]);
        let mut buffer = [0u8; 4];
        for path in [Some(&long), Some(&short), None, Some(&long)] {
            let sender = path.map_or_else(|| UnixDatagram::unbound().unwrap(), bound);
            let mut send = SendTo::new(&sender, "data", Address::unix(&to).unwrap());
            assert_eq!((run(&mut send), run(&mut send)), (Ok(4), Ok(4)));

            let (len, peer) = run(&mut from).unwrap();
            assert_eq!((len, peer.pathname()), (4, path.map(|path| path.as_path())));
            let mut parts = [IoSliceMut::new(&mut buffer)];
            assert_eq!(run(&mut RecvMsg::new(&receiver, &mut parts)).unwrap().peer, path.map(|_| peer));
        }
        assert_eq!(from.into_buf(), b"data");
    });
}

#[test]
fn an_accept_forgets_the_peer_before() {
    each_engine(|| {
        let dir = tempfile::tempdir().unwrap();
        let (to, name) = (dir.path().join("to"), dir.path().join("a name that is longer"));
        let listener = UnixListener::bind(&to).unwrap();
        let mut accept = Accept::new(&listener);
        for named in [false, true, false, true] {
            let socket = crate::single(Socket::new(Domain::Unix, SocketType::Stream)).unwrap();
            if named {
                let _ = std::fs::remove_file(&name);
                crate::single(Bind::new(&socket, Address::unix(&name).unwrap())).unwrap();
            }
            run(&mut Connect::new(&socket, Address::unix(&to).unwrap())).unwrap();
            assert_eq!(run(&mut accept).unwrap().peer.pathname(), named.then_some(name.as_path()));
        }
        assert_eq!(accept.into_descriptor().as_raw_fd(), listener.as_raw_fd());
    });
}

#[test]
fn a_message_tells_of_itself_only() {
    each_engine(|| {
        let (a, b) = UnixDatagram::pair().unwrap();
        let file = File::open("Cargo.toml").unwrap();
        let give = Control::new().rights(&[file.as_fd()]);
        let (mut buffer, mut room) = ([0u8; 4], Control::for_rights(1));
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut recv = RecvMsg::new(&b, &mut parts).control(&mut room);
        let long = [IoSlice::new(b"too long"), IoSlice::new(b".")];
        let mut with_file = SendMsg::new(&a, &long).control(&give);
        for _ in 0..2 {
            assert_eq!(run(&mut with_file), Ok(9));
            let first = run(&mut recv).unwrap();
            assert!(first.truncated && first.len == 4, "{first:?}");
            assert!(matches!(&first.control[..], [ControlMessage::Rights(files)] if files.len() == 1), "{first:?}");

            a.send(b"abc").unwrap();
            let second = run(&mut recv).unwrap();
            assert!(!second.truncated && second.len == 3 && second.control.is_empty(), "{second:?}");
        }
    });
}

#[test]
fn what_was_closed_is_not_closed_again() {
    each_engine(|| {
        let spent = |result| match result {
            Err(Error::Invalid(text)) => text.to_string().contains("an earlier run"),
            _ => false,
        };
        let (output, input) = std::io::pipe().unwrap();
        let mut close = Close::new(input);
        assert_eq!(run(&mut close), Ok(()));
        assert_eq!(crate::single(Read::new(&output, &mut [0u8; 1])), Ok(0));
        assert!(spent(run(&mut close)));
        assert!(spent(run(&mut close)));

        let closing = Closing::new(output);
        let mut close = Close::new(&closing);
        assert_eq!(run(&mut close), Ok(()));
        assert!(matches!(run(&mut close), Err(Error::Invalid(_))));
        assert!(closing.into_inner().is_none());
    });
}

#[test]
fn a_close_that_was_skipped_twice_closes_once() {
    // So high that no other test gets the number when it is free.
    const NUMBER: i32 = 200;
    each_engine(|| {
        let file = File::open("Cargo.toml").unwrap();
        // SAFETY: a call with numbers.
        let copy = || unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, NUMBER) };
        // SAFETY: nobody else uses the number.
        let open = || unsafe { libc::fcntl(NUMBER, libc::F_GETFD) } >= 0;
        assert_eq!(copy(), NUMBER);
        // SAFETY: just made.
        let mut close = Close::new(unsafe { OwnedFd::from_raw_fd(NUMBER) });
        assert_eq!(skip(&mut close), Err(Error::Skipped));
        assert!(!open());
        assert_eq!(copy(), NUMBER);
        assert_eq!(skip(&mut close), Err(Error::Skipped));
        assert!(open());
        // SAFETY: made a few lines above.
        drop(unsafe { OwnedFd::from_raw_fd(NUMBER) });
    });
}

#[test]
fn a_closing_counts_each_run() {
    each_engine(|| {
        let closing = Closing::new(File::open("Cargo.toml").unwrap());
        let mut read = Read::new(&closing, vec![0u8; 1]).at(0);
        assert_eq!((run(&mut read), run(&mut read)), (Ok(1), Ok(1)));
        // Refused if it thought that it was still used elsewhere.
        assert_eq!(run(&mut Close::new(&closing)), Ok(()));
        assert!(matches!(run(&mut read), Err(Error::Invalid(_))));
    });
}

#[test]
fn questions_are_answered_anew() {
    each_engine(|| {
        let file = tempfile::tempfile().unwrap();
        let mut statx = Statx::of(&file);
        for len in [10, 3] {
            assert_eq!(run(&mut Ftruncate::new(&file, len)), Ok(()));
            assert_eq!(run(&mut statx).unwrap().len(), len);
        }

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut get = GetSockOpt::new(&socket, option::Broadcast);
        for on in [true, false] {
            let mut set = SetSockOpt::new(&socket, option::Broadcast, on);
            assert_eq!((run(&mut set), run(&mut set)), (Ok(()), Ok(())));
            assert_eq!(run(&mut get), Ok(on));
        }

        let mut open = OpenAt::new("x".repeat(300));
        assert!(run(&mut open).is_err() && run(&mut open).is_err());
        let mut open = OpenAt::new("Cargo.toml".to_string());
        let (first, second) = (run(&mut open).unwrap(), run(&mut open).unwrap());
        assert_ne!(first.as_raw_fd(), second.as_raw_fd());

        let (a, mut b) = UnixStream::pair().unwrap();
        b.write_all(b"!").unwrap();
        let mut poll = Poll::new(&a, PollEvents::IN);
        assert_eq!((run(&mut poll), run(&mut poll)), (Ok(PollEvents::IN), Ok(PollEvents::IN)));
    });
}

#[test]
fn events_and_ends_come_again() {
    each_engine(|| {
        let source = EventSource::new().unwrap();
        let (mut notify, mut wait) = (Notify::new(&source), WaitEvent::new(&source));
        for _ in 0..2 {
            assert_eq!((run(&mut notify), run(&mut notify)), (Ok(()), Ok(())));
            assert_eq!((run(&mut wait), run(&mut wait)), (Ok(()), Ok(())));
        }
        assert!(!source.try_wait().unwrap());

        let mut sh = Command::new("sh");
        let mut child = sh.args(["-c", "read line; exit 7"]).stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let mut exit = ChildExit::new(&mut child).timeout(Duration::from_millis(1));
        assert_eq!(run(&mut exit), Err(Error::TimedOut));
        drop(input);
        let mut exit = exit.into_inner();
        assert_eq!((run(&mut exit), run(&mut exit)), (Ok(Exit::Exited(7)), Ok(Exit::Exited(7))));
    });
}
