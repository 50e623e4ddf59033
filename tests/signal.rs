//! Waiting for signals. Each test is a process of its own, for what it sets up is the whole process's.

mod common;

use aio::{
    op::Read,
    signal::{Signal, Signals, ctrl_c},
};
use common::{each_backend, fork, in_own_process, leaks_no_descriptor, pipe};
use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    mem::MaybeUninit,
    os::fd::AsRawFd as _,
    process, ptr,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a signal to this thread, which has run the handler when this returns.
fn raise(signal: Signal) {
    // SAFETY: the tests have set up a handler for what they raise, or want what happens without.
    assert_eq!(unsafe { libc::raise(signal.number()) }, 0);
}

/// Sends a signal to the process: any of its threads may be given it, at any time.
fn send(signal: Signal) {
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(process::id() as libc::pid_t, signal.number()) }, 0);
}

/// What is set up for a signal: a handler's address, `SIG_DFL` or `SIG_IGN`.
fn disposition(signal: Signal) -> libc::sighandler_t {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; the structure is a local, in which all zeros are valid too.
    unsafe {
        assert_eq!(libc::sigaction(signal.number(), ptr::null(), action.as_mut_ptr()), 0);
        action.assume_init().sa_sigaction
    }
}

fn set_disposition(signal: Signal, handler: libc::sighandler_t) {
    // SAFETY: all handlers of the tests only count.
    assert_ne!(unsafe { libc::signal(signal.number(), handler) }, libc::SIG_ERR);
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn counting(_: libc::c_int) {
    COUNT.fetch_add(1, SeqCst);
}

fn counting_handler() -> libc::sighandler_t {
    counting as extern "C" fn(libc::c_int) as *const () as libc::sighandler_t
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_waiting_stream_is_woken() {
    in_own_process("a_waiting_stream_is_woken", || {
        each_backend(|_| {
            let mut signals = Signals::new([Signal::USR1, Signal::USR2]).unwrap();
            for signal in [Signal::USR1, Signal::USR2, Signal::USR1] {
                thread::scope(|s| {
                    s.spawn(|| {
                        thread::sleep(SOON);
                        send(signal);
                    });
                    assert_eq!(signals.recv().unwrap(), signal);
                });
                assert_eq!(signals.try_recv(), None);
            }
        });
    });
}

#[test]
fn any_thread_may_take_the_signal() {
    in_own_process("any_thread_may_take_the_signal", || {
        each_backend(|_| {
            let mut signals = Signals::new([Signal::USR1]).unwrap();
            thread::scope(|s| {
                s.spawn(|| {
                    thread::sleep(SOON);
                    raise(Signal::USR1);
                });
                assert_eq!(signals.recv().unwrap(), Signal::USR1);
            });
            // The stream may have been made on another thread, too.
            raise(Signal::USR1);
            let received = thread::scope(|s| s.spawn(|| signals.recv().unwrap()).join().unwrap());
            assert_eq!(received, Signal::USR1);
        });
    });
}

#[test]
fn what_comes_between_two_calls_is_kept_once_for_each_signal() {
    in_own_process("what_comes_between_two_calls_is_kept_once_for_each_signal", || {
        each_backend(|_| {
            let mut signals = Signals::new([libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP, libc::SIGUSR1]).unwrap();
            assert_eq!(signals.try_recv(), None);
            (0..3).for_each(|_| raise(Signal::USR2));
            raise(Signal::USR1);
            let mut both = [signals.recv().unwrap(), signals.recv().unwrap()];
            both.sort_by_key(|signal| signal.number());
            assert_eq!(both, [Signal::USR1, Signal::USR2]);
            assert_eq!(signals.try_recv(), None, "several of a number are one");
            raise(Signal::HUP);
            assert_eq!(signals.try_recv(), Some(Signal::HUP));
            assert_eq!(signals.try_recv(), None);
        });
    });
}

#[test]
fn a_frequent_signal_does_not_hide_another() {
    in_own_process("a_frequent_signal_does_not_hide_another", || {
        each_backend(|_| {
            let mut signals = Signals::new([Signal::USR1, Signal::TERM]).unwrap();
            raise(Signal::TERM);
            let received: Vec<_> = (0..2)
                .map(|_| {
                    raise(Signal::USR1);
                    signals.recv().unwrap()
                })
                .collect();
            assert!(received.contains(&Signal::TERM), "{received:?}");
        });
    });
}

#[test]
fn all_streams_for_a_signal_see_it() {
    in_own_process("all_streams_for_a_signal_see_it", || {
        each_backend(|_| {
            let mut a = Signals::new([Signal::USR1, Signal::USR2]).unwrap();
            let mut b = Signals::new([Signal::USR1]).unwrap();
            raise(Signal::USR1);
            assert_eq!((a.recv().unwrap(), b.recv().unwrap()), (Signal::USR1, Signal::USR1));
            raise(Signal::USR2);
            assert_eq!((a.recv().unwrap(), b.try_recv()), (Signal::USR2, None));
            // Both wait, on threads of their own.
            thread::scope(|s| {
                let waiting = [&mut a, &mut b].map(|stream| s.spawn(|| stream.recv().unwrap()));
                thread::sleep(SOON);
                send(Signal::USR1);
                waiting.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Signal::USR1));
            });
            raise(Signal::USR1);
            let mut late = Signals::new([Signal::USR1]).unwrap();
            assert_eq!(late.try_recv(), None, "it came before");
            drop(b);
            raise(Signal::USR1);
            assert_eq!((a.recv().unwrap(), late.recv().unwrap()), (Signal::USR1, Signal::USR1));
        });
    });
}

#[test]
fn each_of_many_signals_wakes_its_waiter() {
    in_own_process("each_of_many_signals_wakes_its_waiter", || {
        each_backend(|_| {
            let mut signals = Signals::new([Signal::USR1]).unwrap();
            let (acknowledge, acknowledged) = mpsc::channel();
            thread::scope(|s| {
                s.spawn(move || {
                    for i in 0..500 {
                        send(Signal::USR1);
                        acknowledged.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("signal {i} is lost"));
                    }
                });
                for _ in 0..500 {
                    assert_eq!(signals.recv().unwrap(), Signal::USR1);
                    acknowledge.send(()).unwrap();
                }
            });
        });
    });
}

#[test]
fn a_flood_of_signals_ends_with_the_last() {
    in_own_process("a_flood_of_signals_ends_with_the_last", || {
        each_backend(|_| {
            let mut signals = Signals::new([Signal::USR1, Signal::USR2]).unwrap();
            thread::scope(|s| {
                s.spawn(|| {
                    (0..5000).for_each(|_| raise(Signal::USR1));
                    raise(Signal::USR2);
                });
                let before = (&mut signals).take_while(|signal| *signal.as_ref().unwrap() != Signal::USR2).count();
                assert!(before >= 1);
            });
            // At most the last of the flood, and nothing after it.
            signals.try_recv();
            assert_eq!(signals.try_recv(), None);
        });
    });
}

#[test]
fn what_was_set_up_before_is_put_back() {
    in_own_process("what_was_set_up_before_is_put_back", || {
        each_backend(|_| {
            set_disposition(Signal::USR1, counting_handler());
            set_disposition(Signal::USR2, libc::SIG_IGN);
            assert_eq!(disposition(Signal::TERM), libc::SIG_DFL);
            let before = COUNT.load(SeqCst);
            let first = Signals::new([Signal::USR1, Signal::USR2, Signal::TERM]).unwrap();
            let second = Signals::new([Signal::USR1]).unwrap();
            [Signal::USR1, Signal::USR2, Signal::TERM].into_iter().for_each(raise);
            drop(first);
            assert_eq!(disposition(Signal::TERM), libc::SIG_DFL);
            assert_eq!(disposition(Signal::USR2), libc::SIG_IGN);
            raise(Signal::USR1);
            assert_eq!(COUNT.load(SeqCst), before, "another stream is there");
            drop(second);
            raise(Signal::USR1);
            assert_eq!(COUNT.load(SeqCst), before + 1);
        });
    });
}

#[test]
fn a_handler_that_somebody_else_has_set_up_since_stays() {
    in_own_process("a_handler_that_somebody_else_has_set_up_since_stays", || {
        let signals = Signals::new([Signal::USR1]).unwrap();
        set_disposition(Signal::USR1, counting_handler());
        drop(signals);
        assert_eq!(disposition(Signal::USR1), counting_handler());
    });
}

#[test]
fn signals_that_nobody_can_wait_for_are_refused() {
    in_own_process("signals_that_nobody_can_wait_for_are_refused", || {
        let refused = [Signal::KILL, Signal::STOP, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE];
        let before = refused.map(disposition);
        for signal in refused {
            let error = Signals::new([Signal::USR1, signal]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(&format!("{signal} cannot be waited for")), "{error}");
        }
        assert_eq!(refused.map(disposition), before);
        assert_eq!(disposition(Signal::USR1), libc::SIG_DFL, "what was set up until then is undone");
        for number in [0, -1, 65, 127, 128, i32::MIN, i32::MAX] {
            let error = Signals::new([number]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{number}");
            assert!(error.to_string().starts_with(&format!("signal {number} cannot be waited for: ")), "{error}");
        }
        assert_eq!(Signals::new([0i32; 0]).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn signals_without_a_name_are_signals_too() {
    in_own_process("signals_without_a_name_are_signals_too", || {
        let number = libc::SIGRTMIN() + 1;
        let mut signals = Signals::new([number, libc::SIGRTMAX()]).unwrap();
        raise(Signal::from(number));
        assert_eq!(signals.recv().unwrap().number(), number);
        assert_eq!(Signal::from(number).to_string(), format!("signal {number}"));
    });
}

#[test]
fn ctrl_c_waits_for_one() {
    in_own_process("ctrl_c_waits_for_one", || {
        // A shell ignores it for what it runs in the background.
        // SAFETY: no handler is set.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        each_backend(|_| {
            thread::scope(|s| {
                s.spawn(|| {
                    wait_until(|| disposition(Signal::INT) != libc::SIG_DFL);
                    send(Signal::INT);
                });
                ctrl_c().unwrap();
            });
            assert_eq!(disposition(Signal::INT), libc::SIG_DFL);
        });
    });
}

#[test]
fn operations_in_flight_are_not_disturbed() {
    in_own_process("operations_in_flight_are_not_disturbed", || {
        each_backend(|_| {
            let _signals = Signals::new([Signal::USR1]).unwrap();
            let (output, input) = pipe();
            let mut input = File::from(input);
            // SAFETY: this thread's own name, which stays valid until the scope has ended.
            let this = unsafe { libc::pthread_self() } as usize;
            let over = AtomicBool::new(false);
            thread::scope(|s| {
                s.spawn(|| {
                    for _ in 0..100 {
                        // SAFETY: the thread waits for this one.
                        unsafe { libc::pthread_kill(this as libc::pthread_t, libc::SIGUSR1) };
                        thread::sleep(Duration::from_micros(100));
                    }
                    assert!(!over.load(SeqCst));
                    input.write_all(b"data").unwrap();
                });
                let mut buf = [0u8; 8];
                assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(4));
                over.store(true, SeqCst);
            });
        });
    });
}

/// The handler's `write` is made to fail, so that it sets `errno`.
#[test]
#[cfg(target_os = "linux")]
fn the_handler_leaves_errno_alone() {
    in_own_process("the_handler_leaves_errno_alone", || {
        let numbers = || -> Vec<i32> {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
            // By what they are, for numbers are used again: that of the directory listed here, for one.
            let open =
                entries.filter(|entry| std::fs::read_link(entry).is_ok_and(|to| to.ends_with("anon_inode:[eventfd]")));
            open.map(|entry| entry.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect()
        };
        // The engine's own descriptors are there before.
        aio::single(aio::op::Nop::new()).unwrap();
        let before = numbers();
        let mut signals = Signals::new([Signal::USR1]).unwrap();
        let made: Vec<_> = numbers().into_iter().filter(|number| !before.contains(number)).collect();
        assert_eq!(made.len(), 1);
        raise(Signal::USR1);
        assert_eq!(signals.recv().unwrap(), Signal::USR1);
        let unwritable = File::open("/dev/null").unwrap();
        for number in made {
            // SAFETY: replaces the stream's descriptor, which is not used otherwise any more.
            assert_eq!(unsafe { libc::dup2(unwritable.as_raw_fd(), number) }, number);
        }
        // SAFETY: this thread's `errno`.
        unsafe { *libc::__errno_location() = 1234 };
        // SAFETY: the handler is set up.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(1234));
        assert_eq!(signals.try_recv(), Some(Signal::USR1), "it is counted all the same");
    });
}

#[test]
fn a_forked_child_sees_its_own_signals() {
    in_own_process("a_forked_child_sees_its_own_signals", || {
        each_backend(|_| {
            let mut signals = Signals::new([Signal::USR1, Signal::USR2]).unwrap();
            raise(Signal::USR1);
            assert_eq!(signals.recv().unwrap(), Signal::USR1);
            raise(Signal::USR1);
            let code = fork(|| {
                assert_eq!(signals.recv().unwrap(), Signal::USR1, "it came before the fork");
                raise(Signal::USR2);
                assert_eq!(signals.recv().unwrap(), Signal::USR2);
                thread::scope(|s| {
                    s.spawn(|| {
                        thread::sleep(SOON);
                        send(Signal::USR2);
                    });
                    assert_eq!(signals.recv().unwrap(), Signal::USR2);
                });
                let mut further = Signals::new([Signal::USR2]).unwrap();
                raise(Signal::USR2);
                assert_eq!((signals.recv().unwrap(), further.recv().unwrap()), (Signal::USR2, Signal::USR2));
            })
            .wait();
            assert_eq!(code, 0);
            assert_eq!(signals.recv().unwrap(), Signal::USR1);
            assert_eq!(signals.try_recv(), None, "the child's are not seen");
            thread::scope(|s| {
                s.spawn(|| {
                    thread::sleep(SOON);
                    send(Signal::USR2);
                });
                assert_eq!(signals.recv().unwrap(), Signal::USR2);
            });
        });
    });
}

#[test]
fn a_child_that_ends_is_a_signal() {
    in_own_process("a_child_that_ends_is_a_signal", || {
        each_backend(|_| {
            let mut signals = Signals::new([Signal::CHLD]).unwrap();
            let mut child = aio::process::Command::new("true").spawn().unwrap();
            assert_eq!(signals.recv().unwrap(), Signal::CHLD);
            assert!(child.wait().unwrap().success());
        });
    });
}

#[test]
fn streams_that_are_dropped_leave_one_descriptor_for_the_next() {
    in_own_process("streams_that_are_dropped_leave_one_descriptor_for_the_next", || {
        each_backend(|_| {
            leaks_no_descriptor(|| {
                for _ in 0..100 {
                    let mut signals = Signals::new([Signal::USR1]).unwrap();
                    raise(Signal::USR1);
                    assert_eq!(signals.recv().unwrap(), Signal::USR1);
                    assert!(Signals::new([Signal::KILL]).is_err());
                }
            });
        });
    });
}

#[test]
fn streams_come_and_go_while_signals_come() {
    in_own_process("streams_come_and_go_while_signals_come", || {
        each_backend(|_| {
            // Without it, a signal that comes when there is no stream would end the process.
            set_disposition(Signal::USR1, libc::SIG_IGN);
            let over = AtomicBool::new(false);
            thread::scope(|s| {
                s.spawn(|| {
                    while !over.load(SeqCst) {
                        send(Signal::USR1);
                    }
                });
                let streams = [(); 3].map(|()| {
                    s.spawn(|| {
                        for _ in 0..200 {
                            assert_eq!(Signals::new([Signal::USR1]).unwrap().recv().unwrap(), Signal::USR1);
                        }
                    })
                });
                let ended = streams.map(|thread| thread.join());
                over.store(true, SeqCst);
                ended.into_iter().for_each(|result| result.unwrap());
            });
        });
    });
}
