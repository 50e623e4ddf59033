//! The poller, on epoll and on poll, which have to give the same.

mod common;
#[path = "common/poller.rs"]
mod helpers;

use aio::poller::{Events, Interest, Token};
use common::file_with;
use helpers::{NOW, SOON, drain, each, none, one, pair, wait};
use std::{
    collections::HashSet,
    fs::File,
    io::{ErrorKind, Read as _, Write as _, pipe},
    net::UdpSocket,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[test]
fn level_tells_as_long_as_it_is_so() {
    each(|mut poller| {
        let (a, mut b) = pair();
        poller.register(&a, 3, Interest::READ).unwrap();
        none(&mut poller);
        b.write_all(b"x").unwrap();
        for _ in 0..3 {
            let event = one(&mut poller);
            assert_eq!(event.token, Token(3));
            assert!(event.readable && event.can_read());
            assert!(!event.writable && !event.hang_up && !event.read_closed && !event.error && !event.priority);
        }
        drain(&a);
        none(&mut poller);
    });
}

#[test]
fn both_directions_and_a_changed_interest() {
    each(|mut poller| {
        let (a, mut b) = pair();
        poller.register(&a, 1, Interest::READ | Interest::WRITE).unwrap();
        let event = one(&mut poller);
        assert!(event.writable && !event.readable);
        b.write_all(b"x").unwrap();
        let event = one(&mut poller);
        assert!(event.writable && event.readable);
        poller.modify(&a, 2, Interest::WRITE).unwrap();
        let event = one(&mut poller);
        assert!(event.writable && !event.readable && event.token == Token(2));
        poller.modify(&a, 2, Interest::empty()).unwrap();
        none(&mut poller);
        poller.modify(&a, 2, Interest::READ).unwrap();
        assert!(one(&mut poller).readable);
        poller.delete(&a).unwrap();
        none(&mut poller);
    });
}

#[test]
fn hang_ups_and_errors_are_told_without_being_asked_for() {
    each(|mut poller| {
        let (a, b) = pair();
        poller.register(&a, 1, Interest::empty()).unwrap();
        none(&mut poller);
        drop(b);
        let event = one(&mut poller);
        assert!(event.hang_up && event.read_closed && event.can_read() && event.can_write() && !event.readable);
        poller.delete(&a).unwrap();

        let (output, input) = pipe().unwrap();
        poller.register(&input, 2, Interest::empty()).unwrap();
        drop(output);
        let event = one(&mut poller);
        assert!(event.error && event.can_write());
        poller.delete(&input).unwrap();

        let (output, input) = pipe().unwrap();
        poller.register(&output, 3, Interest::READ).unwrap();
        drop(input);
        let event = one(&mut poller);
        assert!(event.hang_up && !event.error && event.can_read());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_peer_that_shuts_down_its_sending_side() {
    each(|mut poller| {
        let (a, b) = pair();
        poller.register(&a, 1, Interest::READ).unwrap();
        b.shutdown(std::net::Shutdown::Write).unwrap();
        let event = one(&mut poller);
        assert!(event.read_closed && event.readable && !event.hang_up);
        poller.modify(&a, 1, Interest::PRIORITY).unwrap();
        none(&mut poller);
    });
}

#[test]
fn an_error_of_a_datagram_socket() {
    each(|mut poller| {
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(nobody.local_addr().unwrap()).unwrap();
        drop(nobody);
        poller.register(&socket, 1, Interest::empty()).unwrap();
        socket.send(b"x").unwrap();
        let event = one(&mut poller);
        assert!(event.error && event.can_read() && event.can_write());
        assert_eq!(socket.take_error().unwrap().unwrap().kind(), ErrorKind::ConnectionRefused);
        none(&mut poller);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn something_urgent() {
    each(|mut poller| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let a = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (b, _) = listener.accept().unwrap();
        poller.register(&b, 1, Interest::PRIORITY).unwrap();
        none(&mut poller);
        // SAFETY: one byte of a static.
        assert_eq!(unsafe { libc::send(a.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
        let event = one(&mut poller);
        assert!(event.priority && !event.readable);
    });
}

#[test]
fn one_shot_is_silent_until_it_is_modified() {
    let once = Interest::READ | Interest::ONE_SHOT;
    for interest in [once, once | Interest::EDGE] {
        each(|mut poller| {
            let (a, mut b) = pair();
            poller.register(&a, 1, interest).unwrap();
            b.write_all(b"x").unwrap();
            assert!(one(&mut poller).readable);
            none(&mut poller);
            b.write_all(b"x").unwrap();
            none(&mut poller);
            poller.rearm(&a, Interest::READ);
            none(&mut poller);
            poller.modify(&a, 2, interest).unwrap();
            assert_eq!(one(&mut poller).token, Token(2));
            drop(b);
            none(&mut poller);
            // It is still registered.
            assert_eq!(poller.register(&a, 1, interest).unwrap_err().kind(), ErrorKind::AlreadyExists);
            poller.modify(&a, 2, interest).unwrap();
            let event = one(&mut poller);
            assert!(event.readable && event.hang_up);
            poller.delete(&a).unwrap();
        });
    }
}

#[test]
fn edge_tells_once_while_nothing_changes() {
    each(|mut poller| {
        let (a, mut b) = pair();
        poller.register(&a, 1, Interest::READ | Interest::WRITE | Interest::EDGE).unwrap();
        assert!(one(&mut poller).writable);
        none(&mut poller);
        b.write_all(b"xyz").unwrap();
        assert!(one(&mut poller).readable);
        none(&mut poller);
        // Not everything is taken, so nothing changes.
        (&a).read_exact(&mut [0; 1]).unwrap();
        none(&mut poller);
        poller.modify(&a, 2, Interest::READ | Interest::EDGE).unwrap();
        let event = one(&mut poller);
        assert!(event.readable && event.token == Token(2));
        none(&mut poller);
    });
}

#[test]
fn edge_tells_again_after_a_wait_began_when_it_was_not_so() {
    each(|mut poller| {
        let (a, mut b) = pair();
        poller.register(&a, 1, Interest::READ | Interest::EDGE).unwrap();
        for _ in 0..3 {
            b.write_all(b"x").unwrap();
            assert!(one(&mut poller).readable);
            none(&mut poller);
            drain(&a);
            none(&mut poller);
        }
        // The same wait, of which the beginning sees that nothing is there.
        b.write_all(b"x").unwrap();
        assert!(one(&mut poller).readable);
        drain(&a);
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            b.write_all(b"x").unwrap();
            b
        });
        assert!(one(&mut poller).readable);
        drop(writer.join().unwrap());
        let event = one(&mut poller);
        assert!(event.hang_up);
        none(&mut poller);
    });
}

#[test]
fn edge_tells_again_after_rearm() {
    each(|mut poller| {
        let (a, mut b) = pair();
        poller.register(&a, 1, Interest::READ | Interest::WRITE | Interest::EDGE).unwrap();
        assert!(one(&mut poller).writable);
        for _ in 0..3 {
            b.write_all(b"x").unwrap();
            assert!(one(&mut poller).readable);
            drain(&a);
            // No wait in between sees it without data.
            poller.rearm(&a, Interest::READ);
        }
        none(&mut poller);
        while (&a).write(&[0; 4096]).is_ok() {}
        poller.rearm(&a, Interest::WRITE);
        none(&mut poller);
        drain(&b);
        assert!(one(&mut poller).writable);
        none(&mut poller);
        poller.rearm(&b, Interest::READ);
    });
}

#[test]
fn edge_does_not_spin_on_a_hang_up() {
    each(|mut poller| {
        let (a, b) = pair();
        let (c, mut d) = pair();
        poller.register(&a, 1, Interest::READ | Interest::EDGE).unwrap();
        poller.register(&c, 2, Interest::READ | Interest::EDGE).unwrap();
        drop(b);
        assert!(one(&mut poller).hang_up);
        let begin = Instant::now();
        assert_eq!(wait(&mut poller, Some(Duration::from_millis(20))), []);
        assert!(begin.elapsed() >= Duration::from_millis(20));
        d.write_all(b"x").unwrap();
        assert_eq!(one(&mut poller).token, Token(2));
        none(&mut poller);
        poller.modify(&a, 3, Interest::READ | Interest::EDGE).unwrap();
        assert_eq!(one(&mut poller).token, Token(3));
    });
}

#[test]
fn misuse_gives_an_error_and_changes_nothing() {
    each(|mut poller| {
        let (a, mut b) = pair();
        let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(poller.modify(&a, 1, Interest::READ)), ErrorKind::NotFound);
        assert_eq!(kind(poller.delete(&a)), ErrorKind::NotFound);
        poller.register(&a, 1, Interest::READ).unwrap();
        let error = poller.register(&a, 2, Interest::WRITE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().starts_with("the descriptor is registered already; use modify"), "{error}");
        assert_eq!(kind(poller.register(&b, usize::MAX, Interest::READ)), ErrorKind::InvalidInput);
        assert_eq!(kind(poller.modify(&a, usize::MAX, Interest::READ)), ErrorKind::InvalidInput);
        assert_eq!(kind(poller.delete(&b)), ErrorKind::NotFound);
        none(&mut poller);
        b.write_all(b"x").unwrap();
        let event = one(&mut poller);
        assert!(event.token == Token(1) && event.readable);
        // Every other number is a token.
        poller.modify(&a, usize::MAX - 1, Interest::READ).unwrap();
        assert_eq!(one(&mut poller).token, Token(usize::MAX - 1));

        let mut refused = vec![file_with(b"x"), File::open("/").unwrap()];
        if cfg!(target_os = "linux") {
            refused.push(File::open("/dev/null").unwrap());
        }
        for file in &refused {
            let error = poller.register(file, 3, Interest::READ).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.to_string().starts_with("regular files, directories"), "{error}");
            assert_eq!(kind(poller.modify(file, 3, Interest::READ)), ErrorKind::PermissionDenied);
            assert_eq!(kind(poller.delete(file)), ErrorKind::PermissionDenied);
        }
        drain(&a);
        none(&mut poller);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_of_the_system_that_tells_of_changes() {
    each(|mut poller| {
        let mounts = File::open("/proc/self/mounts").unwrap();
        poller.register(&mounts, 1, Interest::PRIORITY).unwrap();
        none(&mut poller);
    });
}

#[test]
fn duplicates_are_sources_of_their_own() {
    each(|mut poller| {
        let (a, mut b) = pair();
        let again = a.try_clone().unwrap();
        poller.register(&a, 1, Interest::READ).unwrap();
        poller.register(&again, 2, Interest::READ).unwrap();
        b.write_all(b"x").unwrap();
        let tokens: HashSet<_> = wait(&mut poller, SOON).iter().map(|event| event.token.0).collect();
        assert_eq!(tokens, HashSet::from([1, 2]));
        poller.delete(&a).unwrap();
        assert_eq!(one(&mut poller).token, Token(2));
    });
}

#[test]
fn times_are_not_over_early() {
    each(|mut poller| {
        let (a, _b) = pair();
        poller.register(&a, 1, Interest::READ).unwrap();
        for micros in [1, 300, 999, 1000, 1001, 2500, 20_000] {
            let (timeout, begin) = (Duration::from_micros(micros), Instant::now());
            assert_eq!(wait(&mut poller, Some(timeout)), []);
            assert!(begin.elapsed() >= timeout, "{timeout:?}: {:?}", begin.elapsed());
        }
        let begin = Instant::now();
        for _ in 0..10 {
            none(&mut poller);
        }
        assert!(begin.elapsed() < Duration::from_secs(2));
        poller.waker().wake();
        // Longer than any system can count.
        assert_eq!(wait(&mut poller, Some(Duration::MAX)), []);
    });
}

#[test]
fn wakers_and_notifiers() {
    each(|mut poller| {
        let mut events = Events::with_capacity(2);
        let waker = poller.waker();
        // Before the wait, several times: once.
        for _ in 0..5 {
            waker.clone().wake();
        }
        assert_eq!(poller.wait(&mut events, None).unwrap(), 0);
        assert!(events.woken());
        poller.wait(&mut events, NOW).unwrap();
        assert!(!events.woken() && events.is_empty());

        // During the wait, from another thread.
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        poller.wait(&mut events, None).unwrap();
        assert!(events.woken());
        thread.join().unwrap();

        // More notifiers than there is room for: all come, each once.
        let notifiers: Vec<_> = (0..5).map(|token| poller.notifier(token)).collect();
        for notifier in notifiers.iter().chain(&notifiers) {
            notifier.notify();
        }
        let mut seen = vec![];
        for _ in 0..3 {
            poller.wait(&mut events, SOON).unwrap();
            assert!(!events.woken() && events.iter().all(|event| event.notified && !event.can_read()));
            seen.extend(events.iter().map(|event| event.token.0));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        none(&mut poller);
        assert_eq!(notifiers[4].token(), Token(4));

        // They outlive the poller.
        let waker = poller.waker();
        drop(poller);
        waker.wake();
        notifiers[0].notify();
    });
}

#[test]
fn no_wake_up_is_lost() {
    each(|mut poller| {
        const EACH: usize = 2000;
        let done = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (done, waker, notifier) = (done.clone(), poller.waker(), poller.notifier(number));
                thread::spawn(move || {
                    for _ in 0..EACH {
                        done.fetch_add(1, Ordering::SeqCst);
                        if number % 2 == 0 { waker.wake() } else { notifier.notify() }
                    }
                })
            })
            .collect();
        let mut events = Events::with_capacity(1);
        // Were one lost, this would wait for ever with the sum not reached.
        while done.load(Ordering::SeqCst) < 4 * EACH {
            poller.wait(&mut events, SOON).unwrap();
            assert!(events.woken() || !events.is_empty(), "nobody was woken");
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn little_room_leaves_nobody_out() {
    for capacity in [0, 1, 2, 3] {
        each(|mut poller| {
            let pairs: Vec<_> = (0..7).map(|_| pair()).collect();
            for (token, (a, _)) in pairs.iter().enumerate() {
                poller.register(a, token, Interest::WRITE).unwrap();
            }
            let notifier = poller.notifier(7);
            let mut events = Events::with_capacity(capacity);
            let mut seen = HashSet::new();
            // A notifier that is always ready is one among the others.
            for _ in 0..40 {
                notifier.notify();
                assert!(poller.wait(&mut events, SOON).unwrap() <= capacity.max(1));
                seen.extend(events.iter().map(|event| event.token.0));
            }
            assert_eq!(seen.len(), 8, "{seen:?} with {capacity} on {poller:?}");
        });
    }
}
