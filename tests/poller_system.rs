//! The poller and what is around it: limits, signals, other pollers, descriptors that are closed, forks, the environment.

mod common;
#[path = "common/poller.rs"]
mod helpers;

use aio::{
    Backend,
    poller::{Events, Interest, Poller, Token},
    signal::{Signal, Signals},
};
use common::{descriptors, die_after, file_with, fork, in_own_process};
use helpers::{NOW, SOON, drain, each, is_epoll, none, one, pair, wait};
use std::{
    collections::HashSet,
    io::{ErrorKind, Write as _, pipe},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[test]
fn twenty_thousand_events_in_one_wait() {
    const COUNT: usize = 20_000;
    in_own_process("twenty_thousand_events_in_one_wait", || {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is a local.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above.
        let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
        // Others need some as well. Notifiers stand in for what is missing.
        let open = COUNT.min(usize::try_from(limit.rlim_max).unwrap_or(COUNT).saturating_sub(100));
        if open < COUNT / 2 {
            eprintln!("SKIPPED: the limit of open files cannot be raised above {}", limit.rlim_max);
            return;
        }
        // One pipe with something in it, and many descriptors for it.
        let (output, mut input) = pipe().unwrap();
        input.write_all(b"x").unwrap();
        let sources: Vec<_> = (0..open).map(|_| output.try_clone().unwrap()).collect();
        each(|mut poller| {
            for (token, source) in sources.iter().enumerate() {
                poller.register(source, token, Interest::READ).unwrap();
            }
            let notifiers: Vec<_> = (open..COUNT).map(|token| poller.notifier(token)).collect();
            let mut events = Events::with_capacity(COUNT);
            for _ in 0..2 {
                notifiers.iter().for_each(|notifier| notifier.notify());
                assert_eq!(poller.wait(&mut events, SOON).unwrap(), COUNT);
                let tokens: HashSet<_> = events.iter().map(|event| event.token.0).collect();
                assert_eq!((tokens.len(), events.capacity()), (COUNT, COUNT));
            }
            for (token, source) in sources.iter().enumerate() {
                poller.modify(source, token, Interest::READ | Interest::EDGE).unwrap();
            }
            // In parts: everything once.
            let (mut part, mut tokens) = (Events::with_capacity(COUNT / 3), HashSet::new());
            for _ in 0..4 {
                poller.wait(&mut part, NOW).unwrap();
                assert!(part.iter().all(|event| tokens.insert(event.token)));
            }
            assert_eq!(tokens.len(), open);
            none(&mut poller);
            for source in &sources {
                poller.delete(source).unwrap();
            }
            none(&mut poller);
        });
    });
}

extern "C" fn ignore(_: libc::c_int) {}

#[test]
fn signals_interrupt_only_if_that_is_wanted() {
    in_own_process("signals_interrupt_only_if_that_is_wanted", || {
        // SAFETY: the handler does nothing; all zeros are valid for the rest.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(_) as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
        }
        each(|mut poller| {
            // SAFETY: takes nothing.
            let this = unsafe { libc::pthread_self() } as usize;
            let over = Arc::new(AtomicUsize::new(0));
            let thread = thread::spawn({
                let over = over.clone();
                move || {
                    while over.load(Ordering::SeqCst) == 0 {
                        thread::sleep(Duration::from_millis(3));
                        // SAFETY: the thread waits for this one.
                        unsafe { libc::pthread_kill(this as libc::pthread_t, libc::SIGUSR1) };
                    }
                }
            });
            let begin = Instant::now();
            assert_eq!(wait(&mut poller, Some(Duration::from_millis(50))), []);
            assert!(begin.elapsed() >= Duration::from_millis(50));
            poller.set_interruptible(true);
            let error = poller.wait(&mut Events::with_capacity(8), SOON).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Interrupted);
            over.store(1, Ordering::SeqCst);
            thread.join().unwrap();
        });
    });
}

fn raise(signal: Signal) {
    // SAFETY: the signal has a handler.
    assert_eq!(unsafe { libc::raise(signal.number()) }, 0);
}

#[test]
fn a_stream_of_signals_is_a_source() {
    in_own_process("a_stream_of_signals_is_a_source", || {
        each(|mut poller| {
            for mode in [Interest::READ, Interest::READ | Interest::EDGE] {
                let mut signals = Signals::new([Signal::USR1, Signal::USR2]).unwrap();
                // One that came before is told as well.
                raise(Signal::USR1);
                poller.register(&signals, 1, mode).unwrap();
                for count in [1, 2] {
                    assert!(one(&mut poller).readable);
                    for _ in 0..count {
                        assert!(signals.try_recv().is_some());
                    }
                    assert_eq!(signals.try_recv(), None);
                    none(&mut poller);
                    raise(Signal::USR1);
                    raise(Signal::USR2);
                }
                // `recv` leaves the other for the poller.
                assert!(one(&mut poller).readable);
                signals.recv().unwrap();
                poller.modify(&signals, 1, mode).unwrap();
                assert!(one(&mut poller).readable);
                assert!(signals.try_recv().is_some() && signals.try_recv().is_none());
                none(&mut poller);
                // Dropped with one that nobody has taken: the next stream, with the same descriptor, knows nothing.
                raise(Signal::USR2);
                poller.delete(&signals).unwrap();
            }
        });
    });
}

#[cfg(target_os = "linux")]
#[test]
fn pollers_nest_and_tasks_wait_for_them() {
    each(|mut outer| {
        let mut inner = Poller::with(Backend::Epoll).unwrap();
        let (a, mut b) = pair();
        inner.register(&a, 1, Interest::READ).unwrap();
        outer.register(&inner.as_fd().unwrap(), 2, Interest::READ).unwrap();
        none(&mut outer);
        b.write_all(b"x").unwrap();
        assert_eq!(one(&mut outer).token, Token(2));
        assert_eq!(one(&mut inner).token, Token(1));
        aio::single(aio::op::Poll::new(inner.as_fd().unwrap(), aio::op::PollEvents::IN)).unwrap();
        drain(&a);
        none(&mut outer);
        if is_epoll(&outer) {
            let error = inner.register(&outer.as_fd().unwrap(), 3, Interest::READ).unwrap_err();
            assert!(error.to_string().starts_with("pollers watch each other"), "{error}");
        } else {
            assert_eq!(outer.as_fd().unwrap_err().kind(), ErrorKind::Unsupported);
        }
    });
}

/// Makes `fd` another name for `other`'s file.
fn becomes(fd: i32, other: &impl AsFd) -> OwnedFd {
    // SAFETY: the number is free, which the processes of these tests see to, and the new owner of it is given back.
    unsafe {
        assert_eq!(libc::dup2(other.as_fd().as_raw_fd(), fd), fd);
        OwnedFd::from_raw_fd(fd)
    }
}

#[test]
fn a_closed_source_is_forgotten() {
    in_own_process("a_closed_source_is_forgotten", || {
        each(|mut poller| {
            for interest in [Interest::READ, Interest::READ | Interest::EDGE] {
                let (a, b) = pair();
                poller.register(&a, 1, interest).unwrap();
                let number = a.as_raw_fd();
                drop(a);
                if !is_epoll(&poller) {
                    // Once.
                    let event = one(&mut poller);
                    assert!(event.error && event.token == Token(1) && !event.readable);
                }
                none(&mut poller);
                // The number is free to be registered anew.
                let (c, mut d) = pair();
                let c = if c.as_raw_fd() == number { OwnedFd::from(c) } else { becomes(number, &c) };
                poller.register(&c, 2, interest).unwrap();
                d.write_all(b"x").unwrap();
                assert_eq!(one(&mut poller).token, Token(2));
                poller.delete(&c).unwrap();
                drop(b);
                none(&mut poller);
            }
        });
    });
}

#[test]
fn a_reused_number_is_not_taken_for_the_old_source() {
    in_own_process("a_reused_number_is_not_taken_for_the_old_source", || {
        each(|mut poller| {
            let (spare, mut writer) = pair();
            writer.write_all(b"x").unwrap();
            for known in [false, true] {
                let (a, _b) = pair();
                poller.register(&a, 1, Interest::READ).unwrap();
                let number = a.as_raw_fd();
                drop(a);
                let reused = becomes(number, &spare);
                if known {
                    // Registered before anybody has waited: as if the old one had never been.
                    poller.register(&reused, 2, Interest::READ).unwrap();
                    assert_eq!(one(&mut poller).token, Token(2));
                    poller.delete(&reused).unwrap();
                } else if is_epoll(&poller) {
                    none(&mut poller);
                } else {
                    let event = one(&mut poller);
                    assert!(event.error && !event.readable && event.token == Token(1));
                }
                assert_eq!(poller.delete(&reused).unwrap_err().kind(), ErrorKind::NotFound);
                none(&mut poller);
            }
        });
    });
}

#[test]
fn a_duplicate_keeps_the_registration_of_epoll() {
    in_own_process("a_duplicate_keeps_the_registration_of_epoll", || {
        each(|mut poller| {
            let (a, mut b) = pair();
            let again = a.try_clone().unwrap();
            poller.register(&a, 1, Interest::READ).unwrap();
            drop(a);
            b.write_all(b"x").unwrap();
            let event = one(&mut poller);
            assert_eq!(event.token, Token(1));
            assert_eq!((event.readable, event.error), (is_epoll(&poller), !is_epoll(&poller)));
            assert_eq!(poller.delete(&again).unwrap_err().kind(), ErrorKind::NotFound);
            drop(again);
            none(&mut poller);
        });
    });
}

#[test]
fn a_forked_child_cannot_touch_its_parents_poller() {
    in_own_process("a_forked_child_cannot_touch_its_parents_poller", || {
        die_after(60);
        each(|mut poller| {
            let (a, mut b) = pair();
            poller.register(&a, 1, Interest::READ).unwrap();
            let (waker, notifier) = (poller.waker(), poller.notifier(2));
            let mut poller = Some(poller);
            let child = fork(|| {
                let mut theirs = poller.take().unwrap();
                let (error, open) = (theirs.delete(&a).unwrap_err(), descriptors());
                assert!(error.to_string().contains("make one in the child"), "{error}");
                assert!(theirs.register(&b, 1, Interest::READ).is_err());
                assert!(theirs.modify(&a, 1, Interest::READ).is_err());
                assert!(theirs.wait(&mut Events::with_capacity(8), NOW).is_err());
                assert!(theirs.as_fd().is_err());
                let backend = theirs.backend();
                waker.wake();
                notifier.notify();
                drop((theirs, waker.clone()));
                assert_eq!(descriptors(), open, "nothing is closed");
                let mut own = Poller::with(backend).unwrap();
                own.register(&a, 3, Interest::READ).unwrap();
                own.waker().wake();
                assert_eq!(wait(&mut own, None), []);
            });
            assert_eq!(child.wait(), 0);
            let poller = poller.as_mut().unwrap();
            none(poller);
            b.write_all(b"x").unwrap();
            assert_eq!(one(poller).token, Token(1));
            waker.wake();
            notifier.notify();
            wait(poller, NOW);
        });
    });
}

#[test]
fn pollers_leave_no_descriptor_behind() {
    in_own_process("pollers_leave_no_descriptor_behind", || {
        common::leaks_no_descriptor(|| {
            each(|mut poller| {
                let (a, _b) = pair();
                poller.register(&a, 1, Interest::READ).unwrap();
                let _ = poller.register(&file_with(b""), 1, Interest::READ);
                none(&mut poller);
            });
        });
    });
}

#[test]
fn it_can_go_to_another_thread() {
    fn is<T: Send + Sync>() {}
    is::<Poller>();
    is::<Events>();
    is::<aio::poller::Waker>();
    is::<aio::poller::Notifier>();
    is::<Signals>();
}

#[test]
fn the_environment_chooses_what_auto_is() {
    let name = "the_environment_chooses_what_auto_is";
    let choices = ["epoll", "poll", "io_uring", "auto", "strange"];
    let variants: Vec<_> = choices.iter().map(|choice| [("AIO_BACKEND", *choice)]).collect();
    let variants: Vec<_> = choices.iter().zip(&variants).map(|(choice, set)| (*choice, &set[..])).collect();
    common::variants_in_own_process(name, &variants, |variant| {
        let made = Poller::new().map(|poller| poller.backend().to_string()).map_err(|error| error.kind());
        let auto = if cfg!(target_os = "linux") { "epoll" } else { "poll" };
        match variant {
            "strange" => assert_eq!(made, Err(ErrorKind::InvalidInput)),
            "epoll" | "poll" => assert_eq!(made.as_deref(), Ok(variant)),
            _ => assert_eq!(made.as_deref(), Ok(auto)),
        }
    });
}
