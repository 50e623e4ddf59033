//! TCP in the standard library's shape, on every engine.

mod common;
#[path = "common/net.rs"]
mod net;

use aio::{
    net::{Keepalive, ListenOptions, TcpListener, TcpStream, ToAddrs, UdpSocket, lookup},
    op,
};
use common::{NEVER, each_backend, each_engine, in_own_process, leaks_no_descriptor};
use net::closes_on_exec;
use std::{
    io::{BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

const BRIEF: Duration = Duration::from_millis(20);
const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// One of ours, and its peer from the standard library.
fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

/// An address where nobody listens, as long as the socket lives.
fn refusing() -> (OwnedFd, SocketAddr) {
    let socket = aio::single(op::Socket::new(op::Domain::V4, op::SocketType::Stream)).unwrap();
    aio::single(op::Bind::new(&socket, LOCAL)).unwrap();
    let named = std::net::TcpListener::from(socket);
    let address = named.local_addr().unwrap();
    (named.into(), address)
}

fn has_v6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Bytes that differ from their neighbours and from those a page further.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 4096) as u8).collect()
}

#[test]
fn a_conversation_by_lines() {
    each_engine(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let client = std::net::TcpStream::connect(address).unwrap();
                for number in 0..20 {
                    writeln!(&client, "line {number}").unwrap();
                }
                client.shutdown(Shutdown::Write).unwrap();
                let lines: Vec<_> = BufReader::new(&client).lines().map(Result::unwrap).collect();
                assert_eq!(lines.len(), 20);
                assert!(lines.iter().enumerate().all(|(number, line)| *line == format!("line {number}!")));
            });
            let (stream, peer) = listener.accept().unwrap();
            assert_eq!(peer, stream.peer_addr().unwrap());
            assert_eq!(stream.local_addr().unwrap(), address);
            for line in BufReader::new(&stream).lines() {
                writeln!(&stream, "{}!", line.unwrap()).unwrap();
            }
            (&stream).flush().unwrap();
        });
    });
}

#[test]
fn much_data_goes_both_ways() {
    each_engine(|_| {
        let (mut stream, mut peer) = pair();
        let data = pattern(3 << 20);
        thread::scope(|scope| {
            let echo = peer.try_clone().unwrap();
            scope.spawn(move || std::io::copy(&mut &echo, &mut peer).unwrap());
            let (mut input, mut output) = stream.split();
            let data = &data;
            scope.spawn(move || {
                output.write_all(data).unwrap();
                output.as_ref().shutdown(Shutdown::Write).unwrap();
            });
            let mut back = vec![0; data.len()];
            input.read_exact(&mut back).unwrap();
            assert!(back == *data, "the bytes came back in another order");
        });
    });
}

#[test]
fn peek_and_empty_buffers() {
    each_engine(|_| {
        let (mut stream, mut peer) = pair();
        assert_eq!(stream.read(&mut []).unwrap(), 0);
        assert_eq!(stream.read_vectored(&mut []).unwrap(), 0);
        assert_eq!(stream.read_vectored(&mut [IoSliceMut::new(&mut [])]).unwrap(), 0);
        assert_eq!(stream.write(&[]).unwrap(), 0);
        peer.write_all(b"once").unwrap();
        let mut buffer = [0; 8];
        for _ in 0..2 {
            assert_eq!(stream.peek(&mut buffer).unwrap(), 4);
        }
        assert_eq!(stream.read(&mut buffer[..3]).unwrap(), 3);
        assert_eq!(stream.read(&mut buffer[3..]).unwrap(), 1);
        assert_eq!(&buffer, b"once\0\0\0\0");
    });
}

#[test]
fn several_buffers_in_one_call() {
    each_engine(|_| {
        let (mut stream, mut peer) = pair();
        let parts = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b" and body")];
        assert_eq!(stream.write_vectored(&parts).unwrap(), 13);
        let mut text = [0; 13];
        peer.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"head and body");

        peer.write_all(&text).unwrap();
        assert_eq!(stream.peek(&mut [0; 16]).unwrap(), 13);
        let (mut head, mut body) = ([0; 4], [0; 16]);
        let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
        assert_eq!(stream.read_vectored(&mut parts).unwrap(), 13);
        assert_eq!((&head, &body[..9]), (b"head", &b" and body"[..]));

        // More than one operation takes: the first ones count.
        let many = [IoSlice::new(b"x"); 1500];
        assert_eq!(stream.write_vectored(&many).unwrap(), 1024);
    });
}

#[test]
fn a_read_gives_up_and_the_stream_lives_on() {
    each_engine(|_| {
        let (mut stream, mut peer) = pair();
        let mut buffer = [0; 8];
        stream.set_read_timeout(Some(BRIEF)).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), Some(BRIEF));
        let start = Instant::now();
        assert_eq!(kind(stream.read(&mut buffer)), ErrorKind::TimedOut);
        assert_eq!(kind(stream.peek(&mut buffer)), ErrorKind::TimedOut);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        assert_eq!(kind(stream.read_vectored(&mut parts)), ErrorKind::TimedOut);
        assert!(start.elapsed() >= 3 * BRIEF);

        peer.write_all(b"late").unwrap();
        stream.set_read_timeout(Some(NEVER)).unwrap();
        assert_eq!(stream.read(&mut buffer).unwrap(), 4);
        stream.set_read_timeout(None).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), None);
        stream.write_all(b"fine").unwrap();
        peer.read_exact(&mut buffer[..4]).unwrap();
        assert_eq!(&buffer[..4], b"fine");
    });
}

#[test]
fn a_write_gives_up_and_has_sent_what_it_said() {
    each_backend(|_| {
        let (mut stream, mut peer) = pair();
        stream.set_write_timeout(Some(BRIEF)).unwrap();
        let data = pattern(1 << 20);
        let mut sent = Vec::new();
        let error = loop {
            match stream.write(&data) {
                Ok(len) => sent.extend_from_slice(&data[..len]),
                Err(error) => break error,
            }
            assert!(sent.len() < 1 << 30, "the peer reads nothing, so there is room for so much only");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(stream);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), sent.len());
        assert!(received == sent);
    });
}

#[test]
fn limits_of_zero_are_refused() {
    each_backend(|_| {
        let (stream, _peer) = pair();
        stream.set_read_timeout(Some(BRIEF)).unwrap();
        assert_eq!(kind(stream.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
        assert_eq!(kind(stream.set_write_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
        assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (Some(BRIEF), None));
        let peer = stream.peer_addr().unwrap();
        assert_eq!(kind(TcpStream::connect_timeout(&peer, Duration::ZERO)), ErrorKind::InvalidInput);
        let socket = UdpSocket::bind(LOCAL).unwrap();
        assert_eq!(kind(socket.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_refused_connection_and_the_next_address() {
    each_engine(|_| {
        let (_socket, nobody) = refusing();
        assert_eq!(kind(TcpStream::connect(nobody)), ErrorKind::ConnectionRefused);
        assert_eq!(kind(TcpStream::connect_timeout(&nobody, NEVER)), ErrorKind::ConnectionRefused);

        let listener = TcpListener::bind(LOCAL).unwrap();
        let here = listener.local_addr().unwrap();
        let stream = TcpStream::connect(&[nobody, here][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
        assert!(closes_on_exec(&stream) && closes_on_exec(&listener));
        assert!(closes_on_exec(listener.accept().unwrap().0));
    });
}

#[test]
fn a_connection_that_nobody_answers_is_given_up() {
    each_backend(|_| {
        let listener = ListenOptions::new().backlog(0).bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        let results: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, 5 * BRIEF)).collect();
        assert!(results[0].is_ok());
        let last = results.into_iter().next_back().unwrap();
        assert_eq!(kind(last), ErrorKind::TimedOut, "there was to be no room for four");
    });
}

#[test]
fn names_are_looked_up() {
    each_engine(|_| {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = format!("localhost:{port}");
        for stream in [TcpStream::connect(&name), TcpStream::connect(&*name), TcpStream::connect(("localhost", port))] {
            assert_eq!(stream.unwrap().peer_addr().unwrap().port(), port);
        }
        TcpStream::connect(("localhost".to_owned(), port)).unwrap();

        // Too long for a label, so no server is asked.
        let unknown = format!("{}.invalid", "x".repeat(64));
        let error = TcpStream::connect((unknown.as_str(), port)).unwrap_err();
        assert!(error.kind() != ErrorKind::ConnectionRefused && error.to_string().contains("lookup"), "{error}");
        assert!(lookup((unknown, 1)).is_err());
        for nonsense in ["localhost", "localhost:port", ""] {
            assert_eq!(kind(TcpStream::connect(nonsense)), ErrorKind::InvalidInput, "{nonsense:?}");
        }
        assert_eq!(kind(TcpStream::connect(&[][..])), ErrorKind::InvalidInput);
    });
}

#[test]
fn what_is_an_address_is_the_same_as_in_the_standard_library() {
    fn all(addresses: impl ToAddrs) -> Vec<SocketAddr> {
        addresses.to_addrs().unwrap().collect()
    }
    let (v4, v6) = (SocketAddr::from(([1, 2, 3, 4], 5)), SocketAddr::from((Ipv6Addr::LOCALHOST, 6)));
    assert_eq!([all("1.2.3.4:5"), all(String::from("[::1]:6"))].concat(), [v4, v6]);
    assert_eq!([all(("1.2.3.4", 5)), all((String::from("::1"), 6))].concat(), [v4, v6]);
    assert_eq!([all((v4.ip(), 5)), all((Ipv6Addr::LOCALHOST, 6))].concat(), [v4, v6]);
    let by_reference = &v4;
    assert_eq!([all([v4, v6]), all(vec![v4]), all(&[v6][..]), all(by_reference)].concat(), [v4, v6, v4, v6, v4]);
    let (SocketAddr::V4(old), SocketAddr::V6(new)) = (v4, v6) else { unreachable!() };
    assert_eq!([all(old), all(new)].concat(), [v4, v6]);
    assert_eq!(lookup("1.2.3.4:5").unwrap(), [v4]);
}

#[test]
fn each_direction_ends_by_itself() {
    each_engine(|_| {
        let (mut stream, mut peer) = pair();
        stream.write_all(b"the last").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the last");
        assert_eq!(kind(stream.write(b"x")), ErrorKind::BrokenPipe);

        peer.write_all(b"answer").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!((&answer[..], stream.read(&mut [0; 4]).unwrap()), (&b"answer"[..], 0));
    });
}

#[test]
fn a_closed_peer_is_a_broken_pipe_and_no_signal() {
    in_own_process("a_closed_peer_is_a_broken_pipe_and_no_signal", || {
        // SAFETY: the default action, in a process that runs nothing but this test.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        each_engine(|_| {
            let (mut stream, peer) = pair();
            drop(peer);
            assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
            // The first may find the system willing; its answer then ends the next.
            let error = (0..1000).find_map(|_| {
                thread::sleep(Duration::from_millis(1));
                stream.write(b"anybody there?").err()
            });
            assert_eq!(error.unwrap().kind(), ErrorKind::BrokenPipe);
            let parts = [IoSlice::new(b"a"), IoSlice::new(b"b")];
            assert_eq!(kind(stream.write_vectored(&parts)), ErrorKind::BrokenPipe);
        });
    });
}

#[test]
fn connections_come_in_one_after_the_other() {
    each_engine(|_| {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..5u8 {
                    std::net::TcpStream::connect(address).unwrap().write_all(&[number]).unwrap();
                }
            });
            let numbers = listener.incoming().take(5).map(|stream| {
                let mut byte = [0];
                stream.unwrap().read_exact(&mut byte).unwrap();
                byte[0]
            });
            assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        });
        let clone = listener.try_clone().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        assert!(clone.accept().is_ok() && listener.take_error().unwrap().is_none());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn an_error_of_accept_is_an_item() {
    each_engine(|_| {
        let listener = TcpListener::bind(LOCAL).unwrap();
        aio::single(op::Shutdown::new(&listener, Shutdown::Both)).unwrap();
        assert_eq!(kind(listener.incoming().next().unwrap()), ErrorKind::InvalidInput);
        assert_eq!(kind(listener.accept()), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_address_in_use_is_told() {
    each_engine(|_| {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(kind(TcpListener::bind(address)), ErrorKind::AddrInUse);
        assert_ne!(TcpListener::bind([address, LOCAL.into()]).unwrap().local_addr().unwrap(), address);
        let socket = UdpSocket::bind(LOCAL).unwrap();
        assert_eq!(kind(UdpSocket::bind(socket.local_addr().unwrap())), ErrorKind::AddrInUse);

        let sharing = ListenOptions::new().reuse_port(true);
        let first = sharing.bind(LOCAL).unwrap();
        let second = sharing.bind(first.local_addr().unwrap()).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    });
}

#[test]
fn a_listener_is_restarted_while_its_connections_end() {
    each_backend(|_| {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        // The server closes first, so that it is its end that lingers.
        drop(listener.accept().unwrap());
        assert_eq!((&client).read(&mut [0; 1]).unwrap(), 0);
        drop((client, listener));
        assert_eq!(kind(ListenOptions::new().reuse_addr(false).bind(address)), ErrorKind::AddrInUse);
        TcpListener::bind(address).unwrap();
    });
}

#[test]
fn a_listener_for_both_families_or_one() {
    if !has_v6() {
        return;
    }
    each_engine(|_| {
        let both = ListenOptions::new().only_v6(false).bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = both.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (_server, peer) = both.accept().unwrap();
        assert_eq!(peer.ip().to_canonical(), client.local_addr().unwrap().ip());
        assert_eq!(kind(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))), ErrorKind::AddrInUse);

        let one = ListenOptions::new().only_v6(true).bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(one.local_addr().unwrap()).unwrap();
        assert_eq!(one.accept().unwrap().1, client.local_addr().unwrap());
    });
}

#[test]
fn clones_are_one_connection() {
    each_engine(|_| {
        let (mut stream, mut peer) = pair();
        stream.set_read_timeout(Some(BRIEF)).unwrap();
        let mut clone = stream.try_clone().unwrap();
        stream.set_read_timeout(None).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), Some(BRIEF));
        assert_eq!(kind(clone.read(&mut [0; 1])), ErrorKind::TimedOut);
        drop(clone);
        stream.write_all(b"still there").unwrap();
        let mut text = [0; 11];
        peer.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"still there");
    });
}

#[test]
fn owned_halves_go_their_own_ways() {
    each_engine(|_| {
        let (stream, mut peer) = pair();
        let (mut input, mut output) = stream.into_split();
        assert_eq!(output.write_vectored(&[IoSlice::new(b"to "), IoSlice::new(b"the end")]).unwrap(), 10);
        output.flush().unwrap();
        drop(output);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "to the end");
        peer.write_all(b"and back").unwrap();
        drop(peer);
        assert_eq!(input.as_ref().peek(&mut [0; 1]).unwrap(), 1);
        text.clear();
        input.read_to_string(&mut text).unwrap();
        assert_eq!(text, "and back");
    });
}

#[test]
fn halves_are_reunited_with_their_own() {
    each_backend(|_| {
        let ((a, a_peer), (b, _b_peer)) = (pair(), pair());
        let mut a_peer = TcpStream::from(a_peer);
        let ((a_in, a_out), (b_in, b_out)) = (a.into_split(), b.into_split());
        let error = a_in.reunite(b_out).unwrap_err();
        assert!(error.to_string().contains("different streams"));
        let (a_in, b_out) = (error.0, error.1);
        let mut a = a_out.reunite(a_in).unwrap();
        b_in.reunite(b_out).unwrap();
        a.write_all(b"whole").unwrap();
        let (a_in, a_out) = a.into_split();
        a_out.forget();
        a_peer.set_read_timeout(Some(BRIEF)).unwrap();
        let mut text = [0; 5];
        a_peer.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"whole");
        // Neither to reunite nor to forget has ended it; to drop the rest does.
        assert_eq!(kind(a_peer.read(&mut text)), ErrorKind::TimedOut);
        drop(a_in);
        assert_eq!(a_peer.read(&mut text).unwrap(), 0);
    });
}

#[test]
fn the_options_of_a_connection() {
    each_engine(|_| {
        let (stream, _peer) = pair();
        assert!(!stream.nodelay().unwrap());
        stream.set_nodelay(true).unwrap();
        stream.set_ttl(7).unwrap();
        assert!(stream.nodelay().unwrap() && stream.ttl().unwrap() == 7);
        assert_eq!(kind(stream.set_ttl(1000)), ErrorKind::InvalidInput);

        assert_eq!(stream.linger().unwrap(), None);
        stream.set_linger(Some(Duration::from_millis(1500))).unwrap();
        assert_eq!(stream.linger().unwrap(), Some(Duration::from_secs(2)));
        stream.set_linger(None).unwrap();
        assert_eq!(stream.linger().unwrap(), None);

        let probes = Keepalive { idle: Duration::from_secs(60), count: 3, ..Keepalive::default() };
        assert_eq!(stream.keepalive().unwrap(), None);
        stream.set_keepalive(Some(probes)).unwrap();
        assert_eq!(stream.keepalive().unwrap(), Some(probes));
        assert_eq!(kind(stream.set_keepalive(Some(Keepalive { count: 0, ..probes }))), ErrorKind::InvalidInput);
        stream.set_keepalive(None).unwrap();
        assert_eq!(stream.keepalive().unwrap(), None);

        let listener = TcpListener::bind(LOCAL).unwrap();
        listener.set_ttl(9).unwrap();
        assert_eq!(listener.ttl().unwrap(), 9);
        assert!(stream.take_error().unwrap().is_none());
    });
}

#[test]
fn a_connection_is_reset_by_a_linger_of_zero() {
    each_engine(|_| {
        let (stream, mut peer) = pair();
        stream.set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert_eq!(kind(peer.read(&mut [0; 1])), ErrorKind::ConnectionReset);
    });
}

#[test]
fn what_it_converts_from_and_to() {
    fn shared_by_threads<T: Send + Sync + std::fmt::Debug>() {}
    shared_by_threads::<(TcpListener, TcpStream, UdpSocket)>();
    each_backend(|_| {
        let (stream, mut peer) = pair();
        let (number, here) = (stream.as_raw_fd(), stream.local_addr().unwrap());
        assert!(format!("{stream:?}").contains(&here.to_string()));
        stream.set_read_timeout(Some(BRIEF)).unwrap();
        let theirs = std::net::TcpStream::from(stream);
        assert_eq!((theirs.as_raw_fd(), theirs.read_timeout().unwrap()), (number, None));
        let ours = TcpStream::from(OwnedFd::from(TcpStream::from(theirs)));
        assert_eq!((ours.as_raw_fd(), ours.read_timeout().unwrap()), (number, None));
        let number = ours.into_raw_fd();
        // SAFETY: `into_raw_fd` has given it up.
        let mut ours = TcpStream::from(unsafe { OwnedFd::from_raw_fd(number) });
        peer.write_all(b"same").unwrap();
        assert_eq!(aio::single(op::Recv::new(&ours, &mut [0; 2])), Ok(2));
        assert_eq!(ours.read(&mut [0; 4]).unwrap(), 2);

        let listener = TcpListener::from(std::net::TcpListener::bind(LOCAL).unwrap());
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server: TcpStream = aio::single(op::Accept::new(&listener)).unwrap().into();
        assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
        let socket = std::net::UdpSocket::from(UdpSocket::bind(LOCAL).unwrap());
        assert_eq!(UdpSocket::from(socket).local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    });
}

#[test]
fn a_descriptor_that_does_not_wait_is_waited_for() {
    each_engine(|_| {
        let (stream, peer) = pair();
        let stream = std::net::TcpStream::from(stream);
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from(stream);
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(BRIEF);
                (&peer).write_all(b"late").unwrap();
            });
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 4);
        });
    });
}

#[test]
fn no_descriptor_is_left_behind() {
    in_own_process("no_descriptor_is_left_behind", || {
        each_engine(|_| {
            leaks_no_descriptor(|| {
                let (_socket, nobody) = refusing();
                assert!(TcpStream::connect(nobody).is_err());
                let listener = TcpListener::bind(LOCAL).unwrap();
                let address = listener.local_addr().unwrap();
                assert!(TcpListener::bind(address).is_err() && TcpListener::bind([nobody, address]).is_err());
                let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
                for stream in listener.incoming().take(2) {
                    let (input, output) = stream.unwrap().into_split();
                    drop(input.reunite(output).unwrap().try_clone().unwrap());
                }
                drop(std::net::TcpStream::from(listener.accept().unwrap().0));
                drop(clients);
                assert!(UdpSocket::bind([LOCAL.into()]).unwrap().send_to(b"", "0.0.0.0:0").is_err());
            });
        });
    });
}
