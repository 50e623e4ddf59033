//! `select`: the first of several, and nothing lost.

mod common;

use aio::{
    Error,
    coro::{self, select},
    op::*,
    sync,
};
use common::*;
use std::{
    cell::Cell,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

fn soon() -> Timeout {
    Timeout::after(Duration::from_millis(2))
}

fn never() -> Timeout {
    Timeout::after(NEVER)
}

#[test]
fn the_first_operation_wins_and_the_others_are_cancelled() {
    each_runtime(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(select((Recv::new(&a, &mut buffer), soon(), never())), Ok((None, Some(Ok(())), None)));
        // Nothing of it is left: the thread is free, and what comes now is for the next one.
        (&_b).write_all(b"late").unwrap();
        assert_eq!(select((Recv::new(&a, &mut buffer), never())), Ok((Some(Ok(4)), None)));
    });
}

#[test]
fn an_operation_that_fails_has_happened() {
    each_runtime(|| {
        let file = write_only();
        let (read, late) = select((Read::new(&file, &mut [0u8; 8]), never())).unwrap();
        assert_eq!(read.unwrap().unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(late, None);
    });
}

#[test]
fn channels_tasks_and_events_win() {
    each_runtime(|| {
        let (sender, receiver) = sync::channel(1);
        let (one, mut other) = sync::oneshot::channel::<u8>();
        let (news, mut paper) = sync::broadcast::channel(4);
        let event = sync::Event::new();
        let ends = Cell::new(0);
        coro::scope(|s| {
            for turn in 0..5 {
                let (happens, sender, news, ends) = (&event, &sender, &news, &ends);
                let task = s.spawn(move || {
                    coro::sleep(if turn == 0 { Duration::from_millis(1) } else { NEVER }).ok();
                    ends.set(ends.get() + 1);
                });
                s.spawn(move || {
                    coro::sleep(Duration::from_millis(1)).unwrap();
                    match turn {
                        1 => sender.send(7).unwrap(),
                        2 => happens.set(),
                        3 => drop(news.send(9).unwrap()),
                        _ => {}
                    }
                });
                let late = Timeout::after(Duration::from_millis(if turn == 4 { 5 } else { 60_000 }));
                let got = select((&task, &receiver, &event, &mut paper, &mut other, late)).unwrap();
                match turn {
                    0 => assert_eq!(got, (Some(()), None, None, None, None, None)),
                    1 => assert_eq!(got, (None, Some(Ok(7)), None, None, None, None)),
                    2 => assert_eq!(got, (None, None, Some(Ok(())), None, None, None)),
                    3 => assert_eq!(got, (None, None, None, Some(Ok(9)), None, None)),
                    _ => assert_eq!(got, (None, None, None, None, None, Some(Ok(())))),
                }
                event.reset();
                task.cancel();
            }
        });
        assert_eq!(ends.get(), 5, "what is cancelled ends");
        one.send(3).unwrap();
        assert_eq!(select((&receiver, &mut other)), Ok((None, Some(Ok(3)))));
    });
}

#[test]
fn a_change_of_a_watched_value_wins() {
    each_runtime(|| {
        let (sender, mut config) = sync::watch::channel(1);
        assert_eq!(select((&mut config, soon())), Ok((None, Some(Ok(())))), "it has seen the first one");
        coro::scope(|s| {
            s.spawn(|| {
                coro::sleep(Duration::from_millis(1)).unwrap();
                (2..=3).for_each(|value| sender.send(value));
            });
            assert_eq!(select((&mut config, never())), Ok((Some(Ok(3)), None)), "the latest");
        });
        // One that comes while another arm has happened is seen then, or by the next call.
        let event = sync::Event::new();
        event.set();
        sender.send(4);
        assert_eq!(select((&event, &mut config)), Ok((Some(Ok(())), None)));
        assert_eq!(select((&mut config, &event)), Ok((Some(Ok(4)), None)));
        drop(sender);
        assert_eq!(select((&mut config, never())), Ok((Some(Err(sync::RecvError::Closed)), None)));

        let (sender, mut config) = sync::shared::watch::channel(1);
        let thread = std::thread::spawn(move || sender.send(2));
        assert_eq!(select((&mut config, never())), Ok((Some(Ok(2)), None)));
        thread.join().unwrap();
    });
}

#[test]
fn a_watched_value_that_changes_at_the_same_time_as_another_arm_is_given_as_well() {
    each_runtime(|| {
        let (sender, mut config) = sync::watch::channel(1);
        let event = sync::Event::new();
        coro::scope(|s| {
            s.spawn(|| {
                coro::yield_now().unwrap();
                event.set();
                sender.send(2);
            });
            assert_eq!(select((&event, &mut config)), Ok((Some(Ok(())), Some(Ok(2)))));
        });
        assert!(!config.has_changed());
    });
}

#[test]
fn an_arm_that_is_done_keeps_those_after_it_from_starting() {
    each_runtime(|| {
        let event = sync::Event::new();
        event.set();
        let before = aio::stats();
        assert_eq!(select((&event, Nop::new())), Ok((Some(Ok(())), None)));
        let cost = aio::stats() - before;
        assert_eq!((cost.submitted, cost.direct), (0, 0));
    });
}

#[test]
fn values_that_come_to_two_arms_at_once_are_both_given() {
    each_runtime(|| {
        let (send_a, recv_a) = sync::channel(1);
        let (send_b, recv_b) = sync::channel(1);
        let task = coro::spawn(move || {
            coro::yield_now().unwrap();
            send_a.send(1).unwrap();
            send_b.send(2).unwrap();
        });
        assert_eq!(select((&recv_a, &recv_b, never())), Ok((Some(Ok(1)), Some(Ok(2)), None)));
        task.join().unwrap();
    });
}

#[test]
fn no_connection_is_lost_between_an_accept_and_a_timer() {
    each_backend(|backend| {
        coro::Config::new()
            .backend(backend)
            .run(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let (mut accepted, mut clients) = (0, Vec::new());
                for i in 0..200 {
                    clients.push(TcpStream::connect(address).unwrap());
                    let limit = Timeout::after(Duration::from_micros(i % 40));
                    let (connection, _) = select((Accept::new(&listener), limit)).unwrap();
                    accepted += i32::from(connection.is_some_and(|result| result.is_ok()));
                }
                while accepted < 200 {
                    let (connection, late) = select((Accept::new(&listener), never())).unwrap();
                    assert!(connection.is_some_and(|result| result.is_ok()) && late.is_none());
                    accepted += 1;
                }
                assert_eq!(
                    select((Accept::new(&listener), soon())).map(|(a, b)| (a.is_none(), b)),
                    Ok((true, Some(Ok(()))))
                );
            })
            .unwrap();
    });
}

#[test]
fn a_cancelled_task_and_one_that_is_late_are_told() {
    each_runtime(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let event = sync::Event::new();
        let wait = || select((Recv::new(&a, &mut [0u8; 8]), &event)).map(|_| ());
        assert_eq!(coro::timeout(Duration::from_millis(2), wait), Err(Error::TimedOut));
        coro::scope(|s| {
            let task = s.spawn(|| (wait(), wait()));
            task.cancel();
            assert_eq!(task.join().unwrap(), (Err(Error::Canceled), Err(Error::Canceled)));
        });
        // What a cancelled arm had been in is left: the event still works.
        event.set();
        assert_eq!(event.wait(), Ok(()));
    });
}

#[test]
fn a_select_that_nothing_can_end_is_a_deadlock() {
    each_runtime(|| {
        let (_sender, receiver) = sync::channel::<()>(1);
        assert_eq!(select((&receiver, &sync::Event::new())), Err(Error::Deadlock));
    });
}

#[test]
fn select_says_where_it_cannot_be_used() {
    assert_eq!(select((Nop::new(),)), Err(Error::WrongRuntime));
    each_runtime(|| {
        assert_eq!(coro::no_suspend(|| select((Nop::new(),))), Err(Error::NoSuspend));
    });
}

#[test]
fn what_other_threads_send_ends_a_select() {
    each_runtime(|| {
        let (sender, receiver) = sync::shared::channel(1);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(3));
            sender.send(5).unwrap();
        });
        assert_eq!(select((&receiver, never())), Ok((Some(Ok(5)), None)));
        thread.join().unwrap();
    });
}

#[test]
fn a_panic_while_an_arm_is_entered_ends_those_before_it() {
    struct Panics;
    impl AsFd for Panics {
        fn as_fd(&self) -> BorrowedFd<'_> {
            panic!("on purpose")
        }
    }
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let event = sync::Event::auto_reset();
        let mut buffer = vec![0u8; 8];
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let _ = select((Recv::new(&a, &mut buffer[..]), &event, Recv::new(Panics, &mut [0u8; 8])));
        }));
        assert!(outcome.is_err());
        (&b).write_all(b"late").unwrap();
        coro::sleep(Duration::from_millis(1)).unwrap();
        assert_eq!(buffer, [0; 8], "the first operation was over before its buffer was given back");
        // A frame that is gone would get it.
        event.set();
        assert!(event.try_wait());
    });
}

#[test]
fn a_race_of_a_select_with_what_it_waits_for_loses_nothing() {
    each_runtime(|| {
        let (sender, receiver) = sync::channel(4);
        coro::scope(|s| {
            s.spawn(move || {
                for i in 0..500u32 {
                    sender.send(i).unwrap();
                    if i % 3 == 0 {
                        coro::sleep(Duration::from_micros(u64::from(i % 50))).unwrap();
                    }
                }
            });
            let mut next = 0;
            while next < 500 {
                let limit = Timeout::after(Duration::from_micros(20));
                if let (Some(value), _) = select((&receiver, limit)).unwrap() {
                    assert_eq!(value, Ok(next));
                    next += 1;
                }
            }
        });
    });
}
