//! Time limits and shields of tasks.

mod common;

use aio::{
    Error, Result,
    coro::{self, Builder},
    op::*,
};
use common::*;
use std::{
    cell::Cell,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);
const CANCELED: Result<()> = Err(Error::Canceled);
const LATE: Result<()> = Err(Error::TimedOut);

#[test]
fn a_timeout_ends_what_is_inside() {
    each_runtime(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let late = coro::timeout(Duration::from_millis(3), || aio::single(Recv::new(&a, &mut [0u8; 8])));
        assert_eq!(late, Err(Error::TimedOut));
        assert_eq!(coro::sleep(SOON), Ok(()));
    });
}

#[test]
fn every_kind_of_wait_ends_at_the_deadline() {
    each_runtime(|| {
        let late = |wait: &dyn Fn() -> Result<()>| {
            let start = Instant::now();
            assert_eq!(coro::timeout(SOON, wait), LATE);
            assert!(start.elapsed() >= SOON);
            assert_eq!(coro::deadline(Instant::now() + SOON, wait), LATE);
            assert_eq!(coro::timeout(Duration::ZERO, wait), LATE);
        };
        late(&|| coro::sleep(NEVER));
        late(&|| coro::park(1));
        late(&|| {
            let task = coro::spawn(|| coro::park(1));
            let result = task.wait();
            task.cancel();
            result
        });
        let (a, _b) = UnixStream::pair().unwrap();
        late(&|| {
            let (mut x, mut y) = ([0u8; 8], [0u8; 8]);
            let chain = aio::complete((Recv::new(&a, &mut x).hard_link(), Recv::new(&a, &mut y))).unwrap();
            assert_eq!(chain.results, (Err(Error::TimedOut), Err(Error::TimedOut)));
            chain.results.0.map(drop)
        });
        late(&|| {
            let recvs = std::iter::repeat_with(|| Recv::new(&a, vec![0u8; 8]));
            let done = aio::complete(aio::windowed(recvs, 3)).unwrap();
            assert!(done.results.iter().all(|result| matches!(result, Err(Error::TimedOut))));
            LATE
        });
        // In a task, for a root that yields is a test of its own.
        let yields = coro::spawn(|| {
            coro::timeout(SOON, || {
                while coro::yield_now().is_ok() {}
                coro::yield_now()
            })
        });
        assert_eq!(yields.join().unwrap(), LATE);
    });
}

#[test]
fn the_earliest_of_nested_limits_counts_and_ends_with_its_closure() {
    each_runtime(|| {
        let (short, long) = (Duration::from_millis(2), NEVER);
        coro::timeout(long, || {
            assert_eq!(coro::timeout(short, || coro::sleep(NEVER)), LATE);
            assert_eq!(coro::sleep(SOON), Ok(()), "the outer one has time left");
        });
        coro::timeout(short, || {
            assert_eq!(coro::timeout(long, || coro::sleep(NEVER)), LATE);
            assert_eq!(coro::sleep(Duration::ZERO), LATE, "the outer one is over as well");
            assert_eq!(coro::timeout(long, || coro::sleep(Duration::ZERO)), LATE);
        });
        assert_eq!(coro::sleep(SOON), Ok(()));
        // A limit without end is none.
        assert_eq!(coro::timeout(Duration::MAX, || coro::sleep(SOON)), Ok(()));
        // Many at once, of which the 50th is over first.
        fn nest(depth: u32) -> Result<()> {
            if depth == 0 {
                return coro::sleep(NEVER);
            }
            let limit = if depth == 50 { SOON } else { NEVER };
            let result = coro::timeout(limit, || nest(depth - 1));
            assert_eq!(coro::yield_now(), if depth < 50 { LATE } else { Ok(()) }, "{depth}");
            result
        }
        assert_eq!(nest(100), LATE);
    });
}

#[test]
fn a_cancellation_wins_over_a_limit() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            coro::timeout(Duration::ZERO, || {
                assert_eq!(coro::sleep(SOON), LATE);
                coro::current().cancel();
                coro::sleep(SOON)
            })
        });
        assert_eq!(task.join().unwrap(), CANCELED);
        let task = coro::spawn(|| coro::timeout(NEVER, || coro::sleep(NEVER)));
        task.cancel();
        assert_eq!(task.join().unwrap(), CANCELED);
    });
}

#[test]
fn a_value_that_is_late_is_returned() {
    each_runtime(|| {
        let value = coro::timeout(SOON, || {
            assert_eq!(coro::sleep(NEVER), LATE);
            coro::shield(|| coro::sleep(SOON)).unwrap();
            "late"
        });
        assert_eq!(value, "late");
        assert_eq!(coro::timeout(Duration::ZERO, || 7), 7);
    });
}

#[test]
fn a_shield_keeps_a_limit_and_a_cancellation_off() {
    each_runtime(|| {
        let (start, body) = (Instant::now(), || coro::shield(|| coro::sleep(Duration::from_millis(5))));
        assert_eq!(coro::timeout(SOON, body), Ok(()));
        assert!(start.elapsed() >= Duration::from_millis(5));
        let task = coro::spawn(move || (body(), coro::sleep(SOON)));
        task.cancel();
        assert_eq!(task.join().unwrap(), (Ok(()), CANCELED));
        // A limit inside a shield is seen; the shield covers only what is outside.
        coro::timeout(Duration::ZERO, || {
            coro::shield(|| {
                assert_eq!(coro::sleep(Duration::ZERO), Ok(()));
                assert_eq!(coro::timeout(SOON, || coro::sleep(NEVER)), LATE);
                assert_eq!(coro::shield(|| coro::sleep(Duration::ZERO)), Ok(()));
                assert_eq!(coro::sleep(Duration::ZERO), Ok(()));
            });
            assert_eq!(coro::sleep(Duration::ZERO), LATE);
        });
    });
}

#[test]
fn a_limit_inside_a_shield_of_a_cancelled_task_works() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            coro::current().cancel();
            let late =
                coro::shield(|| coro::timeout(SOON, || (coro::sleep(NEVER), coro::shield(|| coro::sleep(SOON)))));
            (late, coro::yield_now())
        });
        assert_eq!(task.join().unwrap(), ((LATE, Ok(())), CANCELED));
    });
}

#[test]
fn frames_are_left_when_a_panic_unwinds_through_them() {
    each_runtime(|| {
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            coro::timeout(Duration::ZERO, || coro::shield(|| coro::timeout(SOON, || panic!("inside"))))
        }));
        assert!(unwound.is_err());
        assert_eq!(coro::sleep(3 * SOON), Ok(()));
        let task = coro::spawn(|| {
            coro::current().cancel();
            let unwound = catch_unwind(|| coro::shield(|| panic!("inside")));
            (unwound.is_err(), coro::yield_now())
        });
        assert_eq!(task.join().unwrap(), (true, CANCELED));
    });
}

#[test]
fn children_inherit_limits_and_detached_tasks_do_not() {
    each_runtime(|| {
        let detached = Rc::new(Cell::new(None));
        coro::timeout(SOON, || {
            let result = detached.clone();
            coro::spawn(move || result.set(Some(coro::sleep(Duration::from_millis(5)))));
            coro::scope(|s| {
                let child = s.spawn(|| {
                    let grandchild = coro::scope(|s| {
                        let task = s.spawn(|| coro::sleep(NEVER));
                        // The wait of its parent is over at the same time.
                        coro::shield(|| task.join().unwrap())
                    });
                    (grandchild, coro::sleep(NEVER))
                });
                let shielded = s.spawn(|| coro::shield(|| coro::sleep(3 * SOON)));
                let own = s.spawn(|| coro::timeout(NEVER, || coro::park(1)));
                coro::shield(|| {
                    assert_eq!(child.join().unwrap(), (LATE, LATE));
                    assert_eq!((shielded.join().unwrap(), own.join().unwrap()), (Ok(()), LATE));
                });
            });
        });
        eventually("the detached task ends", || detached.get().is_some());
        assert_eq!(detached.get(), Some(Ok(())));
    });
}

#[test]
fn a_child_that_waits_for_its_turn_is_under_the_limit_too() {
    each_runtime(|| {
        coro::timeout(SOON, || {
            assert_eq!(coro::sleep(NEVER), LATE);
            coro::scope(|s| {
                let child = s.spawn_with(Builder::new().later(), || coro::sleep(NEVER)).unwrap();
                assert_eq!(coro::shield(|| child.join()).unwrap(), LATE);
            });
        });
        // A scope outside of the limit is not under it, even if the child is spawned inside.
        coro::scope(|s| {
            let child = coro::timeout(Duration::ZERO, || s.spawn(|| coro::sleep(2 * SOON)));
            assert_eq!(child.join().unwrap(), Ok(()));
        });
        // Nor one inside a shield.
        coro::timeout(Duration::ZERO, || {
            coro::shield(|| coro::scope(|s| assert_eq!(s.spawn(|| coro::sleep(SOON)).join().unwrap(), Ok(()))));
        });
    });
}

#[test]
fn a_limit_that_races_a_byte_has_one_outcome_and_loses_nothing() {
    each_backend_runtime(|backend| {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut got, mut late) = (0, 0);
        for round in 0..5_000u64 {
            let peer = b.try_clone().unwrap();
            let sender = coro::spawn(move || {
                coro::sleep(Duration::from_micros(30)).unwrap();
                aio::single(Send::new(&peer, "x")).unwrap();
            });
            match coro::timeout(Duration::from_micros(round % 120 * 3), || aio::single(Recv::new(&a, &mut [0u8; 1]))) {
                Ok(1) => got += 1,
                Err(Error::TimedOut) => {
                    late += 1;
                    assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 1])), Ok(1), "the byte is still to come");
                }
                other => panic!("{backend}, round {round}: {other:?}"),
            }
            sender.join().unwrap();
        }
        assert!(got > 0 && late > 0, "{backend}: no race: {got} in time, {late} late");
        assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 1]).nonblocking()), os(libc::EAGAIN));
    });
}

// What was refused was counted over a task's whole life, limits as well as cancellations.
#[test]
fn a_task_may_be_late_as_often_as_it_likes() {
    in_own_process("a_task_may_be_late_as_often_as_it_likes", || {
        let polls = || {
            let (a, _b) = UnixStream::pair().unwrap();
            // A server that asks every now and then, without waiting, for as long as it lives.
            for _ in 0..110_000 {
                assert_eq!(
                    coro::timeout(Duration::ZERO, || aio::single(Recv::new(&a, &mut [0u8; 1]))),
                    Err(Error::TimedOut)
                );
            }
        };
        coro::run(polls).unwrap();
        coro::run(|| coro::spawn(polls).join().unwrap()).unwrap();
    });
}

// They did not look at the task's deadlines.
#[test]
fn a_limit_ends_an_operation_inside_no_suspend() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let rescue = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            std::io::Write::write(&mut &b, b"x").unwrap();
            b
        });
        let late = coro::timeout(SOON, || coro::no_suspend(|| aio::single(Recv::new(&a, &mut [0u8; 1]))));
        rescue.join().unwrap();
        assert_eq!(late, Err(Error::TimedOut));
    });
}
