//! `SIGPIPE` with its default action, as in a C program that the library is part of: sockets never raise it.

mod common;

use aio::op::*;
use common::{Engine, each_engine, in_own_process, os};
use std::os::unix::net::UnixStream;

fn closed_peer() -> UnixStream {
    UnixStream::pair().unwrap().0
}

#[test]
fn what_goes_to_a_closed_socket_is_an_error_and_no_signal() {
    in_own_process("what_goes_to_a_closed_socket_is_an_error_and_no_signal", || {
        // SAFETY: the default action, in a process that runs nothing but this test.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        // Engines look at the signal when they are made.
        each_engine(|engine: &Engine| {
            let socket = closed_peer();
            let name = engine.name;
            assert_eq!(aio::single(Send::new(&socket, b"x")), os(libc::EPIPE), "{name}");
            assert_eq!(aio::single(Write::new(&socket, b"x")), os(libc::EPIPE), "{name}");
            assert_eq!(aio::single(Write::new(&socket, b"x").nonblocking()), os(libc::EPIPE), "{name}");
        });
    });
}

#[test]
fn a_write_to_a_socket_still_takes_all_of_it_where_the_signal_is_live() {
    in_own_process("a_write_to_a_socket_still_takes_all_of_it_where_the_signal_is_live", || {
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        each_engine(|engine: &Engine| {
            let (a, b) = UnixStream::pair().unwrap();
            let (text, mut received) = (vec![7u8; 1 << 20], vec![0u8; 1 << 20]);
            let recv = Recv::new(&b, &mut received[..]).flags(RecvFlags::WAITALL);
            let done = aio::complete((Write::new(&a, &text), recv)).unwrap();
            assert_eq!(done.results, (Ok(1 << 20), Ok(1 << 20)), "{}", engine.name);
            assert_eq!(received, text);
        });
    });
}
