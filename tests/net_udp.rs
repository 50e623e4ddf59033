//! UDP in the standard library's shape, on every engine.

mod common;

use aio::net::UdpSocket;
use common::{each_backend, each_engine};
use std::{io::ErrorKind, net::Ipv4Addr, time::Duration};

const BRIEF: Duration = Duration::from_millis(20);
const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn datagrams_between_two() {
    each_engine(|_| {
        let (a, b) = (UdpSocket::bind(LOCAL).unwrap(), UdpSocket::bind("localhost:0").unwrap());
        let b = if b.local_addr().unwrap().is_ipv4() { b } else { UdpSocket::bind(LOCAL).unwrap() };
        let (from, to) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        assert_eq!(a.send_to(b"datagram", to).unwrap(), 8);
        assert_eq!(a.send_to(b"", to.to_string().as_str()).unwrap(), 0);
        let mut buffer = [0; 16];
        for _ in 0..2 {
            assert_eq!(b.peek_from(&mut buffer).unwrap(), (8, from));
        }
        // What does not fit is lost, and the next one is whole.
        assert_eq!(b.recv_from(&mut buffer[..4]).unwrap(), (4, from));
        assert_eq!(&buffer[..8], b"datagram");
        assert_eq!(b.recv_from(&mut buffer).unwrap(), (0, from));

        assert_eq!(kind(a.send(b"x")), kind(std::net::UdpSocket::bind(LOCAL).unwrap().send(b"x")));
        a.connect(to).unwrap();
        b.connect(from).unwrap();
        assert_eq!(a.peer_addr().unwrap(), to);
        assert_eq!(a.send(b"connected").unwrap(), 9);
        assert_eq!((b.peek(&mut buffer).unwrap(), b.recv(&mut buffer[..9]).unwrap()), (9, 9));
        assert_eq!(&buffer[..9], b"connected");

        b.set_read_timeout(Some(BRIEF)).unwrap();
        assert_eq!(kind(b.recv(&mut buffer)), ErrorKind::TimedOut);
        assert_eq!(kind(b.recv_from(&mut buffer)), ErrorKind::TimedOut);
        a.try_clone().unwrap().send(b"again").unwrap();
        assert_eq!(b.recv(&mut buffer).unwrap(), 5);
        assert_eq!(kind(a.send(&[0; 70_000])), kind(std::net::UdpSocket::from(a).send(&[0; 70_000])));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_datagram_that_nobody_takes_is_an_error_later() {
    each_engine(|_| {
        // An address of its own, so that no other test gets the port.
        let nobody = std::net::UdpSocket::bind("127.77.0.1:0").unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind(LOCAL).unwrap();
        socket.connect(nobody).unwrap();
        socket.send(b"hello?").unwrap();
        assert_eq!(kind(socket.recv(&mut [0; 8])), ErrorKind::ConnectionRefused);
        socket.send(b"hello?").unwrap();
        assert_eq!(socket.take_error().unwrap().unwrap().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn the_options_of_a_udp_socket() {
    each_backend(|_| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert!(!socket.broadcast().unwrap());
        socket.set_broadcast(true).unwrap();
        socket.set_ttl(5).unwrap();
        socket.set_multicast_ttl_v4(3).unwrap();
        socket.set_multicast_loop_v4(false).unwrap();
        assert_eq!((socket.broadcast().unwrap(), socket.ttl().unwrap()), (true, 5));
        assert_eq!((socket.multicast_ttl_v4().unwrap(), socket.multicast_loop_v4().unwrap()), (3, false));

        let (group, interface) = (Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::LOCALHOST);
        socket.join_multicast_v4(&group, &interface).unwrap();
        assert_eq!(kind(socket.join_multicast_v4(&group, &interface)), ErrorKind::AddrInUse);
        socket.leave_multicast_v4(&group, &interface).unwrap();
        assert_eq!(kind(socket.leave_multicast_v4(&group, &interface)), ErrorKind::AddrNotAvailable);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_group_of_ipv6() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    each_backend(|_| {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.set_multicast_loop_v6(true).unwrap();
        assert!(socket.multicast_loop_v6().unwrap());
        // The first interface is the loopback.
        let group: std::net::Ipv6Addr = "ff01::77".parse().unwrap();
        socket.join_multicast_v6(&group, 1).unwrap();
        socket.leave_multicast_v6(&group, 1).unwrap();
        assert_eq!(kind(socket.leave_multicast_v6(&group, 1)), ErrorKind::AddrNotAvailable);
    });
}
