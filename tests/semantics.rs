//! What links mean: the rows of the table that the engines have in common, on every engine. `waiting.rs` has those
//! about cancellation and kinds of descriptors, `timeouts.rs` those about time limits.

mod common;

use aio::{Error, Shared, op::*};
use common::{each_engine, file_with, os, pipe, write_only};
use std::{
    io::{IoSlice, IoSliceMut, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    time::Duration,
};

const BAD: i32 = libc::EBADF;

#[test]
fn a_failing_head_skips_what_is_softly_linked_and_nothing_else() {
    each_engine(|_| {
        let (bad, mut buf) = (write_only(), [0u8; 4]);
        let done =
            aio::complete((Read::new(&bad, &mut buf).link(), Nop::new().link(), Nop::new(), Nop::new())).unwrap();
        assert_eq!(done.results, (os(BAD), Err(Error::Skipped), Err(Error::Skipped), Ok(())));
        assert_eq!(done.errors, 3);
    });
}

#[test]
fn a_failing_head_does_not_keep_what_is_hard_linked_from_running() {
    each_engine(|_| {
        let (bad, mut buf) = (write_only(), [0u8; 4]);
        let done = aio::complete((Read::new(&bad, &mut buf).hard_link(), Nop::new().link(), Nop::new())).unwrap();
        assert_eq!(done.results, (os(BAD), Ok(()), Ok(())));
        assert_eq!(done.errors, 1);
    });
}

#[test]
fn a_broken_chain_skips_everything_after_even_across_hard_links() {
    each_engine(|_| {
        let (bad, mut buf) = (write_only(), [0u8; 4]);
        let done = aio::complete((
            Read::new(&bad, &mut buf).link(),
            Nop::new().hard_link(),
            Nop::new().hard_link(),
            Nop::new().link(),
            Nop::new(),
        ));
        let skipped = Err(Error::Skipped);
        assert_eq!(done.unwrap().results, (os(BAD), skipped, skipped, skipped, skipped));
    });
}

#[test]
fn a_chain_may_break_in_its_middle() {
    each_engine(|_| {
        let (bad, mut a, mut b) = (write_only(), [0u8; 4], [0u8; 4]);
        let done = aio::complete((
            Nop::new().link(),
            Read::new(&bad, &mut a).hard_link(),
            Read::new(&bad, &mut b).link(),
            Nop::new(),
        ));
        assert_eq!(done.unwrap().results, (Ok(()), os(BAD), os(BAD), Err(Error::Skipped)));
    });
}

#[test]
fn an_operation_with_impossible_arguments_breaks_its_chain_in_its_turn() {
    each_engine(|_| {
        let done = aio::complete((Nop::new().link(), OpenAt::new("a\0b").link(), Nop::new(), Nop::new())).unwrap();
        let (first, open, skipped, other) = done.results;
        assert!(matches!(open, Err(Error::Invalid(_))), "{open:?}");
        assert_eq!((first, skipped, other), (Ok(()), Err(Error::Skipped), Ok(())));
        let done = aio::complete((OpenAt::new("a\0b").hard_link(), Nop::new())).unwrap();
        assert!(matches!(done.results, (Err(Error::Invalid(_)), Ok(()))));
        let bad = write_only();
        let mut buf = [0u8; 4];
        let done = aio::complete((Read::new(&bad, &mut buf).link(), OpenAt::new("a\0b"))).unwrap();
        assert!(matches!(done.results.1, Err(Error::Skipped)), "{done:?}");
    });
}

#[test]
fn an_operation_that_the_kernel_refuses_when_it_reads_the_entry_fails_in_its_turn_all_the_same() {
    each_engine(|_| {
        let long = "x".repeat(5000);
        let done = aio::complete((Nop::new().link(), OpenAt::new(&long).link(), Nop::new(), Nop::new())).unwrap();
        let (first, open, skipped, other) = done.results;
        assert_eq!(open.unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
        assert_eq!((first, skipped, other), (Ok(()), Err(Error::Skipped), Ok(())));
        let done = aio::complete((Nop::new().link(), OpenAt::new("").hard_link(), Nop::new())).unwrap();
        let (first, open, last) = done.results;
        assert_eq!(open.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!((first, last), (Ok(()), Ok(())));
    });
}

#[test]
fn a_short_read_breaks_a_soft_link_only() {
    each_engine(|_| {
        let file = file_with(b"foobar");
        let (mut a, mut b, mut c, mut d) = ([0u8; 4096], [0u8; 4096], [0u8; 6], [0u8; 6]);
        let done = aio::complete((
            (Read::new(&file, &mut a).at(0).link(), Nop::new()),
            (Read::new(&file, &mut b).at(0).hard_link(), Nop::new()),
            (Read::new(&file, &mut c).at(0).link(), Nop::new()),
            (Read::new(&file, &mut d).at(6).link(), Nop::new()),
            (Read::new(&file, &mut [0u8; 0]).at(0).link(), Nop::new()),
        ));
        let skipped = Err(Error::Skipped);
        let expected = ((Ok(6), skipped), (Ok(6), Ok(())), (Ok(6), Ok(())), (Ok(0), skipped), (Ok(0), Ok(())));
        assert_eq!(done.unwrap().results, expected);
    });
}

#[test]
fn a_short_vectored_read_breaks_a_soft_link() {
    each_engine(|_| {
        let file = file_with(b"foobar");
        let (mut a, mut b) = ([0u8; 4], [0u8; 4]);
        let mut parts = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        let done = aio::complete((Readv::new(&file, &mut parts).at(0).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(6), Err(Error::Skipped)));
        let mut whole = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b[..2])];
        assert_eq!(aio::complete((Readv::new(&file, &mut whole).at(0).link(), Nop::new())).unwrap().errors, 0);
    });
}

#[test]
fn a_short_write_breaks_a_soft_link() {
    each_engine(|_| {
        let (_output, input) = pipe();
        let much = vec![7u8; 1 << 20];
        let done = aio::complete((Write::new(&input, &much).link(), Nop::new())).unwrap();
        // As much as an empty pipe takes.
        assert_eq!(done.results, (Ok(65536), Err(Error::Skipped)));
        let (_output, input) = pipe();
        let parts = [IoSlice::new(&much[..9]), IoSlice::new(&much)];
        let done = aio::complete((Writev::new(&input, &parts).link(), Nop::new())).unwrap();
        assert!(matches!(done.results, (Ok(9..=65536), Err(Error::Skipped))), "{done:?}");
    });
}

#[test]
fn a_short_splice_breaks_a_soft_link() {
    each_engine(|_| {
        let ((output, input), file) = (pipe(), tempfile::tempfile().unwrap());
        aio::single(Write::new(&input, b"0123456789")).unwrap();
        let done = aio::complete((Splice::new(&output, &file, 100).to_offset(0).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(10), Err(Error::Skipped)));
        aio::single(Write::new(&input, b"0123456789")).unwrap();
        let done = aio::complete((Splice::new(&output, &file, 10).to_offset(0).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(10), Ok(())));
    });
}

#[test]
fn a_short_recv_and_the_end_of_the_stream_continue_a_chain() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        (&b).write_all(b"hey").unwrap();
        let mut buf = [0u8; 64];
        let done = aio::complete((Recv::new(&a, &mut buf).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(3), Ok(())));
        drop(b);
        let done = aio::complete((Recv::new(&a, &mut buf).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(0), Ok(())));
    });
}

#[test]
fn a_recv_that_wants_all_breaks_a_chain_when_it_falls_short() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        (&b).write_all(b"hey").unwrap();
        drop(b);
        let mut buf = [0u8; 64];
        let done = aio::complete((Recv::new(&a, &mut buf).flags(RecvFlags::WAITALL).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(3), Err(Error::Skipped)));
    });
}

#[test]
fn a_recv_that_wants_all_waits_for_all() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        let mut buf = [0u8; 9];
        let done = aio::complete((
            Recv::new(&a, &mut buf).flags(RecvFlags::WAITALL).link(),
            Nop::new(),
            Send::new(&b, b"abc").link(),
            Timeout::after(Duration::from_millis(2)).link(),
            Send::new(&b, b"defghi"),
        ));
        assert_eq!(done.unwrap().errors, 0);
        assert_eq!(&buf, b"abcdefghi");
    });
}

#[test]
fn a_short_read_of_a_socket_breaks_a_chain_for_it_goes_by_operation() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        (&b).write_all(b"hey").unwrap();
        let mut buf = [0u8; 64];
        let done = aio::complete((Read::new(&a, &mut buf).link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(3), Err(Error::Skipped)));
    });
}

#[test]
fn a_recv_into_a_shared_buffer_never_lets_the_next_send_bytes_that_were_not_received() {
    each_engine(|_| {
        let ((a, peer), (c, d)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        (&peer).write_all(b"hey").unwrap();
        drop(peer);
        let mut buf = *b"old secrets";
        let both = Shared::new(&mut buf);
        let done = aio::complete((Recv::new(&a, &both).link(), Send::new(&c, &both))).unwrap();
        assert_eq!(done.results, (Ok(3), Err(Error::Skipped)));
        let mut seen = [0u8; 16];
        assert_eq!(aio::single(Recv::new(&d, &mut seen).nonblocking()), os(libc::EAGAIN));

        let (e, f) = UnixDatagram::pair().unwrap();
        e.send(b"hey").unwrap();
        let mut buf = [0u8; 8];
        let shared = Shared::new(&mut buf);
        let refused = aio::single(Recv::new(&f, &shared));
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    });
}
