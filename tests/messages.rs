//! Messages on every engine: several parts, addresses, and descriptors, none of which may leak.

mod common;
#[path = "common/net.rs"]
mod net;

use aio::{Error, op::*};
use common::each_engine;
use net::{closes_on_exec, tcp_pair};
use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Write as _},
    net::UdpSocket,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    thread,
    time::Duration,
};

const BRIEF: Duration = Duration::from_millis(20);

/// How many of this process's descriptors are this very file. Other tests open and close theirs meanwhile.
fn copies_of(path: &std::path::Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.path().read_link().ok());
    links.filter(|link| link == path).count()
}

#[test]
fn messages_of_several_parts_with_addresses() {
    each_engine(|_| {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (mut head, mut body) = ([0; 4], [0; 16]);
        let mut into = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
        let from = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"ad and body")];
        let (received, sent) =
            aio::multi((RecvMsg::new(&b, &mut into), SendMsg::new(&a, &from).to(b.local_addr().unwrap()))).unwrap();
        assert_eq!((sent, received.len), (13, 13));
        assert_eq!(received.peer, Some(a.local_addr().unwrap().into()));
        assert!(!received.truncated && !received.control_truncated && received.control.is_empty());
        assert_eq!((&head, &body[..9]), (b"head", &b" and body"[..]));

        let many = vec![IoSlice::new(b"x"); 1025];
        assert!(matches!(aio::single(SendMsg::new(&a, &many)), Err(Error::Invalid(_))));
        let mut many: Vec<_> = (0..1025).map(|_| IoSliceMut::new(&mut [])).collect();
        assert!(matches!(aio::single(RecvMsg::new(&a, &mut many)), Err(Error::Invalid(_))));
    });
}

/// A file of its own, so that its copies can be counted.
fn marked_file() -> (tempfile::NamedTempFile, std::path::PathBuf) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().canonicalize().unwrap();
    (file, path)
}

fn give(socket: impl AsFd, files: &[std::os::fd::BorrowedFd<'_>]) {
    let control = Control::new().rights(files);
    assert_eq!(aio::single(SendMsg::new(socket.as_fd(), &[IoSlice::new(b"x")]).control(&control)), Ok(1));
}

fn take(socket: impl AsFd, room: &mut Control<'_>) -> Received {
    let mut byte = [0; 1];
    aio::single(RecvMsg::new(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)]).control(room)).unwrap()
}

fn rights(control: Vec<ControlMessage>) -> Vec<OwnedFd> {
    control
        .into_iter()
        .flat_map(|message| match message {
            ControlMessage::Rights(files) => files,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn descriptors_travel_both_ways() {
    each_engine(|_| {
        let (file, path) = marked_file();
        std::fs::write(&path, "contents").unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        for (from, to) in [(&a, &b), (&b, &a)] {
            give(from, &[file.as_fd(), from.as_fd()]);
            let received = take(to, &mut Control::for_rights(2));
            assert!(!received.control_truncated);
            let files = rights(received.control);
            assert!(files.len() == 2 && files.iter().all(closes_on_exec));
            let (mut text, [first, _]) = ([0; 16], files.try_into().unwrap());
            assert_eq!(File::from(first).read_at(&mut text, 0).unwrap(), 8);
            assert_eq!(&text[..8], b"contents");
        }
        assert_eq!(copies_of(&path), 1);
    });
}

#[test]
fn received_descriptors_do_not_leak() {
    each_engine(|_| {
        let (file, path) = marked_file();
        let (a, b) = UnixStream::pair().unwrap();
        let mut room = Control::for_rights(2);
        for _ in 0..3 {
            give(&a, &[file.as_fd(); 2]);
            drop(take(&b, &mut room));
            assert_eq!(copies_of(&path), 1);
        }
        // More than there is room for: some come, the rest is closed by the kernel.
        give(&a, &[file.as_fd(); 9]);
        let received = take(&b, &mut room);
        assert!(received.control_truncated);
        let files = rights(received.control);
        assert!(!files.is_empty() && files.len() < 9);
        assert_eq!(copies_of(&path), 1 + files.len());
        drop(files);
        assert_eq!(copies_of(&path), 1);
        // No room at all, or nobody who asks.
        give(&a, &[file.as_fd()]);
        assert!(take(&b, &mut Control::new()).control_truncated);
        give(&a, &[file.as_fd()]);
        assert_eq!(aio::single(Recv::new(&b, &mut [0; 1])), Ok(1));
        assert_eq!(copies_of(&path), 1);
        // In a chain that breaks afterwards, through `multi`, which drops what succeeded.
        give(&a, &[file.as_fd()]);
        let mut byte = [0; 1];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let receive = RecvMsg::new(&b, &mut parts).control(&mut room);
        let error = aio::multi((receive.link(), Recv::new(&b, &mut [0; 1]).timeout(BRIEF))).unwrap_err();
        assert_eq!((error.index, error.error), (1, Error::TimedOut));
        assert_eq!(copies_of(&path), 1);
    });
}

#[test]
fn descriptors_of_a_cancelled_receive_do_not_leak() {
    each_engine(|_| {
        let (file, path) = marked_file();
        let (a, b) = UnixStream::pair().unwrap();
        let (mut bytes, mut room) = ([0; 2], Control::for_rights(4));
        // They arrive about when the time is over: all comes or nothing does.
        for _ in 0..50 {
            let received = thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(1));
                    give(&a, &[file.as_fd()]);
                });
                let mut parts = [IoSliceMut::new(&mut bytes)];
                let receive = RecvMsg::new(&b, &mut parts).control(&mut room);
                aio::single(receive.timeout(Duration::from_millis(1)))
            });
            let received = received.unwrap_or_else(|error| {
                assert_eq!(error, Error::TimedOut);
                take(&b, &mut room)
            });
            assert_eq!((received.len, copies_of(&path), rights(received.control).len()), (1, 2, 1));
        }
        assert_eq!(copies_of(&path), 1);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let all = RecvMsg::new(&b, &mut parts).control(&mut room).flags(RecvFlags::WAITALL);
        assert!(matches!(aio::single(all), Err(Error::Invalid(_))));
    });
}

#[test]
fn a_room_that_was_used_gives_nothing_away() {
    each_engine(|_| {
        let (file, path) = marked_file();
        let (a, b) = UnixStream::pair().unwrap();
        let mut room = Control::for_rights(4);
        give(&a, &[file.as_fd(); 4]);
        let files = rights(take(&b, &mut room).control);
        assert_eq!(aio::single(SendMsg::new(&a, &[IoSlice::new(b"x")]).control(&room)), Ok(1));
        let received = take(&b, &mut room);
        assert!(received.control.is_empty() && received.len == 1);
        assert_eq!(copies_of(&path), 1 + files.len());
    });
}

#[test]
fn peeked_descriptors_are_copies_of_their_own() {
    each_engine(|_| {
        let (file, path) = marked_file();
        let (a, b) = UnixStream::pair().unwrap();
        give(&a, &[file.as_fd()]);
        let (mut byte, mut room) = ([0; 1], Control::for_rights(1));
        let mut parts = [IoSliceMut::new(&mut byte)];
        let peek = RecvMsg::new(&b, &mut parts).control(&mut room).flags(RecvFlags::PEEK);
        assert_eq!(rights(aio::single(peek).unwrap().control).len(), 1);
        assert_eq!(rights(take(&b, &mut room).control).len(), 1);
        assert_eq!(copies_of(&path), 1);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn segments_of_a_datagram() {
    each_engine(|_| {
        let (a, b) = net::udp_pair();
        let control = Control::new().segment_size(4);
        assert_eq!(aio::single(SendMsg::new(&a, &[IoSlice::new(b"abcdefghij")]).control(&control)), Ok(10));
        for expected in [&b"abcd"[..], b"efgh", b"ij"] {
            let mut buffer = [0; 16];
            let len = aio::single(Recv::new(&b, &mut buffer)).unwrap();
            assert_eq!(&buffer[..len], expected);
        }
    });
}

#[test]
fn waitall_receives_all_parts_of_a_message() {
    each_engine(|_| {
        let (mut a, b) = tcp_pair();
        let sender = thread::spawn(move || {
            for part in [&b"abc"[..], b"defg", b"h"] {
                a.write_all(part).unwrap();
                thread::sleep(BRIEF);
            }
        });
        let (mut x, mut y) = ([0; 2], [0; 6]);
        let mut parts = [IoSliceMut::new(&mut x), IoSliceMut::new(&mut y)];
        let done = aio::complete((RecvMsg::new(&b, &mut parts).flags(RecvFlags::WAITALL).link(), Nop::new())).unwrap();
        assert_eq!((done.results.0.unwrap().len, done.results.1), (8, Ok(())));
        assert_eq!((&x, &y), (b"ab", b"cdefgh"));
        sender.join().unwrap();
    });
}
