//! Unix sockets in the standard library's shape, on every engine.

mod common;

use aio::net::{UnixDatagram, UnixListener, UnixStream};
use common::{NEVER, each_backend, each_engine, in_own_process, leaks_no_descriptor};
use std::{
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net::Shutdown,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

const BRIEF: Duration = Duration::from_millis(20);

fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn an_echo_by_path() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
        thread::scope(|scope| {
            let peer = scope.spawn(|| {
                let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
                stream.write_all(b"there and back").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text
            });
            let (stream, from) = listener.accept().unwrap();
            assert!(from.is_unnamed() && stream.peer_addr().unwrap().is_unnamed());
            std::io::copy(&mut &stream, &mut &stream).unwrap();
            drop(stream);
            assert_eq!(peer.join().unwrap(), "there and back");
        });
        let mut client = UnixStream::connect(&path).unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
        let mut server = listener.incoming().next().unwrap().unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(server.read(&mut [0; 4]).unwrap(), 1);
        assert!(listener.take_error().unwrap().is_none() && listener.try_clone().is_ok());
    });
}

#[test]
fn what_is_wrong_with_a_path_is_told() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert_eq!(kind(UnixStream::connect(&path)), ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(kind(UnixListener::bind(&path)), ErrorKind::AddrInUse);
        assert_eq!(kind(UnixDatagram::bind(&path)), ErrorKind::AddrInUse);
        drop(listener);
        assert_eq!(kind(UnixStream::connect(&path)), ErrorKind::ConnectionRefused);
        for path in ["", "a\0b", &"x".repeat(200)] {
            assert_eq!(kind(UnixStream::connect(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(UnixListener::bind(path)), ErrorKind::InvalidInput, "{path:?}");
            assert_eq!(kind(UnixDatagram::unbound().unwrap().send_to(b"x", path)), ErrorKind::InvalidInput, "{path:?}");
        }
        let unnamed = UnixStream::pair().unwrap().0.local_addr().unwrap();
        assert_eq!(kind(UnixStream::connect_addr(&unnamed)), ErrorKind::InvalidInput);
        assert_eq!(kind(UnixListener::bind_addr(&unnamed)), ErrorKind::InvalidInput);
    });
}

#[cfg(target_os = "linux")]
fn abstract_name(engine: &str, what: &str) -> std::os::unix::net::SocketAddr {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    let name = format!("aio net {what} {} {engine}", std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn abstract_names() {
    use std::os::linux::net::SocketAddrExt;
    each_engine(|engine| {
        let address = abstract_name(engine.name, "stream");
        let listener = UnixListener::bind_addr(&address).unwrap();
        assert_eq!(kind(UnixListener::bind_addr(&address)), ErrorKind::AddrInUse);
        let mut client = UnixStream::connect_addr(&address).unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(listener.accept().unwrap().0.read(&mut [0; 8]).unwrap(), 5);

        let (to, from) = (abstract_name(engine.name, "to"), abstract_name(engine.name, "from"));
        let (server, client) = (UnixDatagram::bind_addr(&to).unwrap(), UnixDatagram::bind_addr(&from).unwrap());
        client.send_to_addr(b"one", &to).unwrap();
        client.connect_addr(&to).unwrap();
        client.send(b"three").unwrap();
        for len in [3, 5] {
            let (received, sender) = server.recv_from(&mut [0; 8]).unwrap();
            assert_eq!((received, sender.as_abstract_name()), (len, from.as_abstract_name()));
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_peer_is_this_process() {
    each_backend(|_| {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let client = UnixStream::connect(dir.path().join("socket")).unwrap();
        let server = listener.accept().unwrap().0;
        for end in [client, server] {
            let peer = end.peer_cred().unwrap();
            // SAFETY: these calls only read what the process has.
            let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
            assert_eq!((peer.pid as u32, peer.uid, peer.gid), (std::process::id(), uid, gid));
        }
    });
}

#[test]
fn a_pair_with_halves() {
    each_engine(|_| {
        let (mut a, b) = UnixStream::pair().unwrap();
        let (mut input, mut output) = a.split();
        let (mut back, mut forth) = b.into_split();
        assert_eq!(output.write_vectored(&[IoSlice::new(b"to "), IoSlice::new(b"b")]).unwrap(), 4);
        let (mut x, mut y) = ([0; 3], [0; 3]);
        assert_eq!(back.read_vectored(&mut [IoSliceMut::new(&mut x), IoSliceMut::new(&mut y)]).unwrap(), 4);
        assert_eq!((&x, &y), (b"to ", b"b\0\0"));
        forth.write_all(b"end").unwrap();
        drop(forth);
        let mut text = String::new();
        input.read_to_string(&mut text).unwrap();
        assert_eq!(text, "end");
        output.as_ref().shutdown(Shutdown::Write).unwrap();
        assert_eq!(back.as_ref().peek(&mut x).unwrap(), 0);
    });
}

#[test]
fn a_closed_peer_is_a_broken_pipe_and_no_signal() {
    in_own_process("a_closed_peer_is_a_broken_pipe_and_no_signal", || {
        // SAFETY: the default action, in a process that runs nothing but this test.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        each_engine(|_| {
            let mut stream = UnixStream::pair().unwrap().0;
            assert_eq!(kind(stream.write(b"x")), ErrorKind::BrokenPipe);
            assert_eq!(kind(stream.write_vectored(&[IoSlice::new(b"x")])), ErrorKind::BrokenPipe);
            assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
        });
    });
}

#[test]
fn time_limits_and_what_remains() {
    each_engine(|_| {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        a.set_read_timeout(Some(BRIEF)).unwrap();
        a.set_write_timeout(Some(BRIEF)).unwrap();
        assert_eq!(kind(a.read(&mut [0; 4])), ErrorKind::TimedOut);
        assert_eq!(kind(a.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
        let mut sent = 0;
        let error = loop {
            match a.write(&[7; 50_000]) {
                Ok(len) => sent += len,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(b.read_to_end(&mut Vec::new()).unwrap(), sent);
        b.write_all(b"usable").unwrap();
        a.set_read_timeout(Some(NEVER)).unwrap();
        assert_eq!(a.read(&mut [0; 8]).unwrap(), 6);
    });
}

#[test]
fn datagrams() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let (to, from) = (dir.path().join("to"), dir.path().join("from"));
        let (server, client) = (UnixDatagram::bind(&to).unwrap(), UnixDatagram::bind(&from).unwrap());
        let mut buffer = [0; 16];
        assert_eq!(client.send_to(b"datagram", &to).unwrap(), 8);
        assert_eq!(UnixDatagram::unbound().unwrap().send_to(b"", &to).unwrap(), 0);
        for (len, room) in [(8, 16), (4, 4)] {
            let (received, sender) = match room {
                16 => server.peek_from(&mut buffer),
                _ => server.recv_from(&mut buffer[..room]),
            }
            .unwrap();
            assert_eq!((received, sender.as_pathname()), (len, Some(&*from)));
        }
        assert_eq!(&buffer[..8], b"datagram");
        let (len, sender) = server.recv_from(&mut buffer).unwrap();
        assert!(len == 0 && sender.is_unnamed());

        client.connect(&to).unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*to));
        client.send(b"connected").unwrap();
        assert_eq!((server.peek(&mut buffer).unwrap(), server.recv(&mut buffer).unwrap()), (9, 9));
        server.set_read_timeout(Some(BRIEF)).unwrap();
        assert_eq!(kind(server.recv(&mut buffer)), ErrorKind::TimedOut);
        assert_eq!(kind(client.connect(dir.path().join("nobody"))), ErrorKind::NotFound);

        let (a, b) = UnixDatagram::pair().unwrap();
        a.try_clone().unwrap().send(b"pair").unwrap();
        assert_eq!(b.recv(&mut buffer).unwrap(), 4);
        // Nobody takes any, so at some point there is no room.
        a.set_write_timeout(Some(BRIEF)).unwrap();
        let full = (0..100_000).find_map(|_| a.send(&[0; 1000]).err());
        assert_eq!(full.unwrap().kind(), ErrorKind::TimedOut);
        a.shutdown(Shutdown::Both).unwrap();
        assert_eq!(kind(a.send(b"x")), ErrorKind::BrokenPipe);
    });
}

#[test]
fn what_it_converts_from_and_to() {
    fn shared_by_threads<T: Send + Sync + std::fmt::Debug>() {}
    shared_by_threads::<(UnixListener, UnixStream, UnixDatagram)>();
    each_backend(|_| {
        let (a, mut b) = UnixStream::pair().unwrap();
        let number = a.as_raw_fd();
        let mut a = UnixStream::from(OwnedFd::from(std::os::unix::net::UnixStream::from(a)));
        assert_eq!(a.as_raw_fd(), number);
        a.write_all(b"same").unwrap();
        assert_eq!(b.read(&mut [0; 8]).unwrap(), 4);

        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let listener = UnixListener::from(listener);
        let _client = UnixStream::connect(dir.path().join("socket")).unwrap();
        let server: UnixStream = aio::single(aio::op::Accept::new(&listener)).unwrap().into();
        assert!(server.take_error().unwrap().is_none());
        let theirs = std::os::unix::net::UnixDatagram::from(UnixDatagram::unbound().unwrap());
        assert!(UnixDatagram::from(theirs).local_addr().unwrap().is_unnamed());
    });
}

#[test]
fn no_descriptor_is_left_behind() {
    in_own_process("no_descriptor_is_left_behind", || {
        each_engine(|_| {
            leaks_no_descriptor(|| {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("socket");
                assert!(UnixStream::connect(&path).is_err());
                let listener = UnixListener::bind(&path).unwrap();
                assert!(UnixListener::bind(&path).is_err() && UnixDatagram::bind(&path).is_err());
                let client = UnixStream::connect(&path).unwrap();
                let (input, output) = listener.accept().unwrap().0.into_split();
                drop((output, input, client));
                drop(UnixDatagram::pair().unwrap().0.try_clone().unwrap());
            });
        });
    });
}
