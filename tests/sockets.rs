//! Sockets on every engine: addresses, flags, messages with descriptors, options.

mod common;
#[path = "common/net.rs"]
mod net;

use aio::{Backend, Config, Errno, Error, Shared, op::*, spare};
use common::each_engine;
use net::{closes_on_exec, tcp_pair, udp_pair};
use std::{
    fs::File,
    io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

const BRIEF: Duration = Duration::from_millis(20);
const AMPLE: Duration = Duration::from_secs(10);

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A whole TCP conversation, from `socket` on, as operations.
fn converse(address: Address) {
    let server = aio::single(Socket::stream_for(&address)).unwrap();
    aio::multi((
        SetSockOpt::new(&server, option::ReuseAddr, true).link(),
        Bind::new(&server, &address).link(),
        Listen::new(&server, 8),
    ))
    .unwrap();
    let listener = TcpListener::from(server);
    let address = listener.local_addr().unwrap();
    let client = aio::single(Socket::stream_for(&address.into())).unwrap();
    assert!(closes_on_exec(&client));

    let (accepted, ()) = aio::multi((Accept::new(&listener), Connect::new(&client, address))).unwrap();
    let client = TcpStream::from(client);
    assert_eq!(accepted.peer, Address::from(client.local_addr().unwrap()));
    assert!(closes_on_exec(&accepted));
    let server = TcpStream::from(accepted);

    let (mut question, mut answer) = ([0; 4], [0; 4]);
    let sizes = aio::multi((
        Send::new(&client, b"ping").link(),
        Recv::new(&server, &mut question).link(),
        Send::new(&server, b"pong").link(),
        Recv::new(&client, &mut answer),
    ));
    assert_eq!(sizes.unwrap(), (4, 4, 4, 4));
    assert_eq!((&question, &answer), (b"ping", b"pong"));
}

#[test]
fn tcp_over_both_families() {
    each_engine(|_| {
        converse(([127, 0, 0, 1], 0).into());
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            converse((Ipv6Addr::LOCALHOST, 0).into());
        }
    });
}

#[test]
fn unix_stream_by_path_and_by_abstract_name() {
    each_engine(|engine| {
        let dir = tempfile::tempdir().unwrap();
        let path = Address::unix(dir.path().join("socket")).unwrap();
        let addresses = [
            path,
            #[cfg(target_os = "linux")]
            Address::abstract_name(format!("aio test {} {}", std::process::id(), engine.name)).unwrap(),
        ];
        for address in addresses {
            let server = aio::single(Socket::new(Domain::Unix, SocketType::Stream)).unwrap();
            aio::multi((Bind::new(&server, &address).link(), Listen::new(&server, 1))).unwrap();
            let client = aio::single(Socket::stream_for(&address)).unwrap();
            let (accepted, ()) = aio::multi((Accept::new(&server), Connect::new(&client, &address))).unwrap();
            assert_eq!(accepted.peer, Address::Unnamed);
            let mut buffer = [0; 8];
            let (mut stream, client) = (UnixStream::from(accepted), UnixStream::from(client));
            stream.write_all(b"hello").unwrap();
            assert_eq!(aio::single(Recv::new(&client, &mut buffer)), Ok(5));
            assert_eq!(Address::from(client.peer_addr().unwrap()), address);
        }
    });
}

#[test]
fn a_bound_unix_client_is_told_to_the_server() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("server")).unwrap();
        let name = Address::unix(dir.path().join("client")).unwrap();
        let client = aio::single(Socket::new(Domain::Unix, SocketType::Stream)).unwrap();
        let server = Address::unix(dir.path().join("server")).unwrap();
        let (accepted, (), ()) = aio::multi((
            Accept::new(&listener),
            Bind::new(&client, &name).link(),
            Connect::new(&client, &server).timeout(AMPLE),
        ))
        .unwrap();
        assert_eq!(accepted.peer, name);
    });
}

#[test]
fn datagrams_with_addresses() {
    each_engine(|_| {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut buffer = [0; 16];
        let (received, sent) =
            aio::multi((RecvFrom::new(&b, &mut buffer), SendTo::new(&a, b"datagram", b.local_addr().unwrap())))
                .unwrap();
        assert_eq!((received, sent), ((8, a.local_addr().unwrap().into()), 8));
        assert_eq!(&buffer[..8], b"datagram");

        let dir = tempfile::tempdir().unwrap();
        let bound = UnixDatagram::bind(dir.path().join("a")).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        let to = Address::unix(dir.path().join("a")).unwrap();
        assert_eq!(aio::single(SendTo::new(&other, vec![1, 2, 3], &to)), Ok((3, vec![1, 2, 3])));
        assert_eq!(aio::single(RecvFrom::new(&bound, vec![0; 4])), Ok(((3, vec![1, 2, 3, 0]), Address::Unnamed)));
    });
}

#[test]
fn peek_leaves_the_data() {
    each_engine(|_| {
        let (mut a, b) = tcp_pair();
        a.write_all(b"once").unwrap();
        for flags in [RecvFlags::PEEK, RecvFlags::PEEK, RecvFlags::empty()] {
            let mut buffer = [0; 8];
            assert_eq!(aio::single(Recv::new(&b, &mut buffer).flags(flags)), Ok(4));
            assert_eq!(&buffer[..4], b"once");
        }
        assert_eq!(kind(aio::single(Recv::new(&b, &mut [0; 8]).nonblocking())), ErrorKind::WouldBlock);
    });
}

#[test]
fn waitall_receives_all_of_it() {
    each_engine(|_| {
        let (mut a, b) = tcp_pair();
        let sender = thread::spawn(move || {
            for part in [&b"one "[..], b"two ", b"three"] {
                a.write_all(part).unwrap();
                thread::sleep(BRIEF);
            }
            a
        });
        let mut buffer = [0; 13];
        assert_eq!(aio::single(Recv::new(&b, &mut buffer).flags(RecvFlags::WAITALL)), Ok(13));
        assert_eq!(&buffer, b"one two three");
        // The end of the stream ends the wait too, and breaks the link.
        let mut a = sender.join().unwrap();
        a.write_all(b"end").unwrap();
        drop(a);
        let done = aio::complete((Recv::new(&b, &mut buffer).flags(RecvFlags::WAITALL).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(3), Err(Error::Skipped)));
    });
}

#[test]
fn waitall_sends_all_of_it() {
    each_engine(|_| {
        let (a, mut b) = UnixStream::pair().unwrap();
        let data = vec![7; 4 << 20];
        let reader = thread::spawn(move || {
            thread::sleep(BRIEF);
            let mut all = Vec::new();
            b.read_to_end(&mut all).unwrap();
            all
        });
        let parts = [IoSlice::new(&data[..99]), IoSlice::new(&data[99..])];
        let sent = aio::multi((
            Send::new(&a, &data).flags(SendFlags::WAITALL).link(),
            SendMsg::new(&a, &parts).flags(SendFlags::WAITALL).link(),
            Shutdown::new(&a, std::net::Shutdown::Write),
        ));
        assert_eq!(sent.unwrap(), (data.len(), data.len(), ()));
        assert_eq!(reader.join().unwrap().len(), 2 * data.len());
    });
}

#[test]
fn a_datagram_that_is_too_long_is_cut() {
    each_engine(|_| {
        let (a, b) = udp_pair();
        for flags in [RecvFlags::empty(), RecvFlags::TRUNC] {
            a.send(b"a long datagram").unwrap();
            assert_eq!(aio::single(Recv::new(&b, &mut [0; 6]).flags(flags)), Ok(6));
            a.send(b"a long datagram").unwrap();
            assert_eq!(aio::single(RecvFrom::new(&b, &mut [0; 6]).flags(flags)).unwrap().0, 6);
        }
        // Of the whole length nothing but `RecvMsg` knows.
        for (flags, len) in [(RecvFlags::PEEK, 6), (RecvFlags::PEEK | RecvFlags::TRUNC, 15), (RecvFlags::empty(), 6)] {
            if flags.contains(RecvFlags::PEEK) && !flags.contains(RecvFlags::TRUNC) {
                a.send(b"a long datagram").unwrap();
            }
            let mut buffer = [0; 6];
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = aio::single(RecvMsg::new(&b, &mut parts).flags(flags)).unwrap();
            assert_eq!((received.len, received.truncated), (len, true));
            assert_eq!(&buffer, b"a long");
        }
    });
}

#[test]
fn trunc_never_uncovers_memory_that_was_not_written() {
    each_engine(|_| {
        let (mut a, b) = tcp_pair();
        a.write_all(&[1; 20]).unwrap();
        let mut memory = [MaybeUninit::uninit(); 10];
        let (filled, _) = aio::single(Recv::new(&b, &mut memory[..]).flags(RecvFlags::TRUNC)).unwrap();
        assert_eq!(filled, [0; 10], "TCP has thrown the bytes away");
        let mut vec = Vec::with_capacity(10);
        aio::single(Recv::new(&b, spare(&mut vec)).flags(RecvFlags::TRUNC)).unwrap();
        assert_eq!(vec, [0; 10]);

        let (a, b) = udp_pair();
        a.send(&[1; 20]).unwrap();
        vec.clear();
        aio::single(Recv::new(&b, spare(&mut vec)).flags(RecvFlags::TRUNC)).unwrap();
        assert!(vec.len() == vec.capacity() && vec.iter().all(|&byte| byte == 1));
    });
}

#[test]
fn shared_buffers_are_for_streams() {
    each_engine(|_| {
        let (mut a, b) = tcp_pair();
        let (c, mut d) = tcp_pair();
        let mut bytes = [0; 6];
        a.write_all(b"abc").unwrap();
        let rest = thread::spawn(move || {
            thread::sleep(BRIEF);
            a.write_all(b"def").unwrap();
        });
        let both = Shared::new(&mut bytes);
        assert_eq!(aio::multi((Recv::new(&b, &both).link(), Send::new(&c, &both))), Ok((6, 6)));
        rest.join().unwrap();
        let mut got = [0; 6];
        d.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abcdef");

        // The peer has gone: a short receive must not let the rest of the buffer be sent.
        let done = aio::complete((Recv::new(&b, &both).link(), Send::new(&c, &both))).unwrap();
        assert_eq!(done.results, (Ok(0), Err(Error::Skipped)));

        let (a, b) = udp_pair();
        a.send(b"x").unwrap();
        let done = aio::complete((Recv::new(&b, &both).link(), Send::new(&c, &both))).unwrap();
        assert!(matches!(done.results, (Err(Error::Unsupported(_)), Err(Error::Skipped))), "{done:?}");
        assert!(matches!(aio::single(RecvFrom::new(&b, &both)), Err(Error::Unsupported(_))));
        let file = File::open("/dev/null").unwrap();
        assert_eq!(aio::single(Recv::new(&file, &both)).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    });
}

#[test]
fn nonblocking_operations_would_block() {
    each_engine(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(kind(aio::single(Accept::new(&listener).nonblocking())), ErrorKind::WouldBlock);
        let (a, b) = UnixStream::pair().unwrap();
        assert_eq!(kind(aio::single(Recv::new(&a, &mut [0; 4]).nonblocking())), ErrorKind::WouldBlock);
        assert_eq!(kind(aio::single(RecvFrom::new(&a, &mut [0; 4]).nonblocking())), ErrorKind::WouldBlock);
        let mut buffer = [0; 4];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        assert_eq!(kind(aio::single(RecvMsg::new(&a, &mut parts).nonblocking())), ErrorKind::WouldBlock);
        let data = vec![0; 1 << 16];
        let full = loop {
            if let Err(error) = aio::single(Send::new(&b, &data).nonblocking()) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        let parts = [IoSlice::new(&data)];
        assert_eq!(kind(aio::single(SendMsg::new(&b, &parts).nonblocking())), ErrorKind::WouldBlock);
        // Flags given afterwards do not undo it.
        let flags = RecvFlags::PEEK;
        drop((a, b));
        let (a, _b) = UnixStream::pair().unwrap();
        assert_eq!(kind(aio::single(Recv::new(&a, &mut [0; 4]).nonblocking().flags(flags))), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_nonblocking_descriptor_is_waited_for() {
    each_engine(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            thread::sleep(BRIEF);
            let mut client = TcpStream::connect(address).unwrap();
            thread::sleep(BRIEF);
            client.write_all(b"late").unwrap();
        });
        let server = TcpStream::from(aio::single(Accept::new(&listener).timeout(AMPLE)).unwrap());
        server.set_nonblocking(true).unwrap();
        assert_eq!(aio::single(Recv::new(&server, &mut [0; 8]).timeout(AMPLE)), Ok(4));
        client.join().unwrap();
    });
}

#[test]
fn connecting_can_fail() {
    each_engine(|_| {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = || aio::single(Socket::new(Domain::V4, SocketType::Stream)).unwrap();
        assert_eq!(kind(aio::single(Connect::new(&socket(), gone))), ErrorKind::ConnectionRefused);
        // Without blocking, too.
        let other = TcpStream::from(socket());
        other.set_nonblocking(true).unwrap();
        assert_eq!(kind(aio::single(Connect::new(&other, gone))), ErrorKind::ConnectionRefused);

        let six = aio::single(Connect::new(&socket(), (Ipv6Addr::LOCALHOST, 1)));
        assert_eq!(six.unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        let dir = tempfile::tempdir().unwrap();
        let nobody = Address::unix(dir.path().join("nobody")).unwrap();
        let unix = aio::single(Socket::stream_for(&nobody)).unwrap();
        assert_eq!(kind(aio::single(Connect::new(&unix, &nobody))), ErrorKind::NotFound);
        assert!(matches!(aio::single(Connect::new(&unix, Address::Unnamed)), Err(Error::Invalid(_))));
        assert!(matches!(aio::single(SendTo::new(&unix, "x", Address::Unnamed)), Err(Error::Invalid(_))));
        assert!(matches!(aio::single(Bind::new(&unix, Address::Unnamed)), Err(Error::Invalid(_))));
    });
}

#[test]
fn making_and_naming_sockets_can_fail() {
    each_engine(|_| {
        let odd = aio::single(Socket::new(Domain::Other(12345), SocketType::Stream));
        assert_eq!(odd.unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = aio::single(Socket::new(Domain::V4, SocketType::Stream)).unwrap();
        let done = aio::complete((Bind::new(&socket, taken.local_addr().unwrap()).link(), Listen::new(&socket, 1)));
        let (bind, listen) = done.unwrap().results;
        assert_eq!((kind(bind), listen), (ErrorKind::AddrInUse, Err(Error::Skipped)));
        let file = File::open("/dev/null").unwrap();
        assert_eq!(aio::single(Listen::new(&file, 1)).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(aio::single(Accept::new(&file)).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        let not_connected = aio::single(Shutdown::new(&socket, std::net::Shutdown::Both));
        assert_eq!(kind(not_connected), ErrorKind::NotConnected);
    });
}

/// Rust programs ignore the signal from their start; here it would kill the test.
#[test]
fn sending_to_a_closed_peer_raises_no_signal() {
    #[allow(unsafe_code)]
    // SAFETY: sets a signal's disposition to what every C program has.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        assert_eq!(kind(aio::single(Send::new(&a, b"x"))), ErrorKind::BrokenPipe);
        assert_eq!(kind(aio::single(Send::new(&a, b"x").flags(SendFlags::WAITALL))), ErrorKind::BrokenPipe);
        assert_eq!(kind(aio::single(SendMsg::new(&a, &[IoSlice::new(b"x")]))), ErrorKind::BrokenPipe);
        assert_eq!(aio::single(Recv::new(&a, &mut [0; 4])), Ok(0));
    });
}

/// Waits actively, to meet the other thread within a microsecond if it runs.
fn meet(at: &AtomicUsize, value: usize) {
    let mut looks = 0;
    while at.load(SeqCst) < value {
        looks += 1;
        if looks < 10_000 { std::hint::spin_loop() } else { thread::yield_now() }
    }
}

/// The emulation looks first, and then calls; in between a socket may have begun to listen, and the call would wait.
#[test]
fn accepting_does_not_wait_past_its_limit_on_what_begins_to_listen() {
    let (ready, go) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let listen = |sockets: mpsc::Receiver<OwnedFd>, over: mpsc::Receiver<()>| {
        for (round, socket) in sockets.iter().enumerate() {
            ready.fetch_add(1, SeqCst);
            meet(&go, ready.load(SeqCst));
            (0..round * 7 % 400).for_each(|_| std::hint::spin_loop());
            aio::single(Listen::new(&socket, 1)).unwrap();
            if over.recv_timeout(AMPLE).is_err() {
                // Frees the other thread, which tells then.
                let _client = TcpStream::connect(TcpListener::from(socket).local_addr().unwrap()).unwrap();
                over.recv().unwrap();
            }
        }
    };
    each_engine(|_| {
        let ((hand, sockets), (tell, over)) = (mpsc::channel(), mpsc::channel());
        thread::scope(|s| {
            // By the system call itself.
            s.spawn(|| Config::new().backend(Backend::Poll).run(|| listen(sockets, over)).unwrap());
            let hand = hand;
            for _ in 0..400 {
                let socket = aio::single(Socket::new(Domain::V4, SocketType::Stream)).unwrap();
                aio::single(Bind::new(&socket, ([127, 0, 0, 1], 0))).unwrap();
                hand.send(socket.try_clone().unwrap()).unwrap();
                meet(&ready, go.load(SeqCst) + 1);
                go.fetch_add(1, SeqCst);
                let accepted = aio::single(Accept::new(&socket).timeout(Duration::from_micros(10))).map(drop);
                tell.send(()).unwrap();
                assert!(matches!(accepted, Err(Error::TimedOut | Error::Os(_))), "it has waited");
            }
        });
    });
}

#[test]
fn accepted_connections_that_nobody_wants_are_closed() {
    each_engine(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let error = aio::multi((Accept::new(&listener).link(), Accept::new(&listener).nonblocking())).unwrap_err();
        assert_eq!((error.index, error.error.kind()), (1, ErrorKind::WouldBlock));
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn options_are_set_and_read() {
    fn flips<O>(socket: impl AsFd, option: O)
    where
        O: option::Settable + SocketOption<Value = bool> + Copy + std::fmt::Debug,
    {
        for value in [true, false] {
            aio::single(SetSockOpt::new(socket.as_fd(), option, value)).unwrap();
            assert_eq!(aio::single(GetSockOpt::new(socket.as_fd(), option)), Ok(value), "{option:?}");
        }
    }
    fn keeps<O>(socket: impl AsFd, option: O, value: O::Value)
    where
        O: option::Settable<Value: Clone + PartialEq + std::fmt::Debug> + Copy + std::fmt::Debug,
    {
        aio::single(SetSockOpt::new(socket.as_fd(), option, value.clone())).unwrap();
        assert_eq!(aio::single(GetSockOpt::new(socket.as_fd(), option)), Ok(value), "{option:?}");
    }
    each_engine(|_| {
        let (tcp, _peer) = tcp_pair();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        flips(&tcp, option::NoDelay);
        flips(&tcp, option::KeepAlive);
        flips(&tcp, option::ReuseAddr);
        flips(&tcp, option::ReusePort);
        flips(&udp, option::Broadcast);
        let six = aio::single(Socket::new(Domain::V6, SocketType::Datagram)).unwrap();
        flips(&six, option::V6Only);
        keeps(&tcp, option::Linger, Some(Duration::from_secs(3)));
        keeps(&tcp, option::Linger, None);
        keeps(&tcp, option::Linger, Some(Duration::ZERO));
        keeps(&tcp, option::RecvTimeout, Some(Duration::from_millis(1500)));
        keeps(&tcp, option::SendTimeout, None);
        keeps(&tcp, option::KeepIdle, Duration::from_secs(20));
        keeps(&tcp, option::KeepInterval, Duration::from_secs(21));
        keeps(&tcp, option::KeepCount, 5);
        keeps(&udp, option::Ttl, 33);
        #[cfg(target_os = "linux")]
        keeps(&udp, option::UdpSegment, 1200);
        aio::single(SetSockOpt::new(&tcp, option::RecvBuffer, 20_000)).unwrap();
        assert_eq!(aio::single(GetSockOpt::new(&tcp, option::RecvBuffer)), Ok(40_000));
        aio::single(SetSockOpt::new(&tcp, option::SendBuffer, 20_000)).unwrap();
        assert_eq!(aio::single(GetSockOpt::new(&tcp, option::SendBuffer)), Ok(40_000));
        assert_eq!(aio::single(GetSockOpt::new(&tcp, option::Type)), Ok(SocketType::Stream));
        assert_eq!(aio::single(GetSockOpt::new(&udp, option::Type)), Ok(SocketType::Datagram));

        let too_long = Duration::from_secs(1 << 40);
        assert!(matches!(aio::single(SetSockOpt::new(&tcp, option::KeepIdle, too_long)), Err(Error::Invalid(_))));
        assert!(matches!(aio::single(SetSockOpt::new(&tcp, option::SendBuffer, u32::MAX)), Err(Error::Invalid(_))));
        let wrong = aio::single(SetSockOpt::new(&udp, option::NoDelay, true)).unwrap_err();
        assert_eq!(wrong.raw_os_error(), Some(libc::ENOPROTOOPT));
    });
}

#[test]
fn the_pending_error_is_taken() {
    each_engine(|_| {
        let nobody: SocketAddr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(aio::single(GetSockOpt::new(&udp, option::SocketError)), Ok(None));
        aio::multi((Connect::new(&udp, nobody).link(), Send::new(&udp, "x"))).unwrap();
        let refused = Some(Errno::new(libc::ECONNREFUSED));
        assert_eq!(aio::single(GetSockOpt::new(&udp, option::SocketError)), Ok(refused));
        assert_eq!(aio::single(GetSockOpt::new(&udp, option::SocketError)), Ok(None));
    });
}

#[test]
fn every_message_goes_to_one_receive() {
    each_engine(|_| {
        let (a, b) = UnixDatagram::pair().unwrap();
        let sender = thread::spawn(move || {
            thread::sleep(BRIEF);
            for number in 0..8u8 {
                a.send(&[number]).unwrap();
            }
        });
        let receives: Vec<_> = (0..8).map(|_| Recv::new(&b, vec![0; 1])).collect();
        let mut received = aio::multi(receives).unwrap();
        received.sort();
        assert!(received.into_iter().eq((0..8).map(|number| (1, vec![number]))));
        sender.join().unwrap();
    });
}
