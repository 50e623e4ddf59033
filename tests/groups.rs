//! Several closures at once, values of each task, clocks, and reports.

mod common;

use aio::{
    Error,
    coro::{self, Builder, TaskLocal},
    op::*,
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    net::TcpListener,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1);

fn panics<R>(f: impl FnOnce() -> R) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else { panic!("it was to panic") };
    payload.downcast_ref::<&str>().map_or_else(|| payload.downcast_ref::<String>().unwrap().clone(), |&s| s.into())
}

/// Calls `f` in a task that 63 others have started below one another, so that what it spawns waits for its turn.
fn deep<R: 'static>(f: impl FnOnce() -> R + 'static) -> R {
    fn nest<R: 'static>(left: usize, f: impl FnOnce() -> R + 'static) -> R {
        if left == 0 {
            return f();
        }
        let f: Box<dyn FnOnce() -> R> = Box::new(f);
        coro::spawn(move || nest(left - 1, f)).join().unwrap()
    }
    nest(64, f)
}

#[test]
fn gather_gives_all_values_in_order_whoever_ends_first() {
    each_runtime(|| {
        let text = String::from("borrowed");
        let sleep = |ms: u64| coro::sleep(Duration::from_millis(ms)).unwrap();
        let start = Instant::now();
        let values = coro::gather((|| (sleep(4), text.len()).1, || (sleep(2), text.as_str()).1, || 'c'));
        assert_eq!(values, (8, "borrowed", 'c'));
        assert!(start.elapsed() >= Duration::from_millis(4));
        assert_eq!(coro::gather([3, 2, 1].map(|ms| move || (sleep(ms), ms).1)), [3, 2, 1]);
        let many: Vec<_> = (0..200u64).map(|i| move || (sleep(i % 5), i).1).collect();
        assert!(coro::gather(many).into_iter().eq(0..200));
        assert_eq!(coro::gather(Vec::<fn() -> u8>::new()), []);
    });
}

#[test]
fn a_race_cancels_the_losers_and_waits_for_them() {
    each_runtime(|| {
        let ended = Cell::new(0);
        let (a, _b) = UnixStream::pair().unwrap();
        let race = coro::race((
            || {
                let result = aio::single(Recv::new(&a, &mut [0u8; 8]));
                // The cleaning up of a loser is waited for.
                coro::shield(|| coro::sleep(SOON)).unwrap();
                ended.set(ended.get() + 1);
                result
            },
            || coro::sleep(SOON),
            || {
                let result = coro::park(1);
                ended.set(ended.get() + 1);
                result
            },
        ));
        assert_eq!((race.winner, ended.get()), (1, 2));
        assert_eq!(race.values, (Err(Error::Canceled), Ok(()), Err(Error::Canceled)));
    });
}

#[test]
fn what_a_loser_has_got_in_the_last_moment_is_not_lost() {
    each_runtime(|| {
        let (a, b) = UnixStream::pair().unwrap();
        for round in 0..50 {
            // Both are finished in the same turn, or one is.
            let race = coro::race((
                || aio::single(Recv::new(&a, &mut [0u8; 1])),
                || {
                    coro::sleep(Duration::from_micros(round * 3)).unwrap();
                    aio::single(Send::new(&b, "x"))
                },
            ));
            if race.values.0.is_err() {
                assert_eq!((race.winner, race.values.0), (1, Err(Error::Canceled)));
                assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 1])), Ok(1), "the byte is still there");
            }
            assert_eq!(race.values.1, Ok(1));
        }
    });
}

#[test]
fn a_race_that_is_over_at_once() {
    each_runtime(|| {
        let race = coro::race((|| 1, || coro::sleep(NEVER)));
        assert_eq!((race.winner, race.values), (0, (1, Err(Error::Canceled))));
        assert_eq!(coro::race([|| 7]).values, [7]);
        let all: Vec<_> = (0..100).map(|i| move || i).collect();
        assert_eq!(coro::race(all).winner, 0);
    });
    each_runtime(|| {
        let empty = panics(|| coro::race(Vec::<fn()>::new()));
        assert!(empty.contains("at least one"), "{empty}");
    });
}

#[test]
fn a_panic_in_a_group_goes_on_when_the_others_have_ended() {
    each_runtime(|| {
        let ended = Cell::new(0);
        let count = || {
            let result = coro::sleep(Duration::from_millis(2));
            ended.set(ended.get() + 1);
            result
        };
        assert_eq!(panics(|| coro::gather((count, || panic!("first"), count))), "first");
        assert_eq!(ended.get(), 2);
        let never = || {
            assert_eq!(coro::sleep(NEVER), Err(Error::Canceled));
            ended.set(ended.get() + 1);
        };
        let late = || {
            coro::yield_now().unwrap();
            panic!("ends the race");
        };
        assert_eq!(panics(|| coro::race((never, late, never))), "ends the race");
        assert_eq!(ended.get(), 4);
    });
}

#[test]
fn a_group_of_a_cancelled_task_is_cancelled_and_waited_for() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            let sleep = || (coro::sleep(NEVER), coro::shield(|| coro::sleep(SOON)));
            let gathered = coro::gather((sleep, sleep));
            (gathered, coro::race((sleep, sleep)).values)
        });
        coro::yield_now().unwrap();
        task.cancel();
        let canceled = (Err(Error::Canceled), Ok(()));
        assert_eq!(task.join().unwrap(), ((canceled, canceled), (canceled, canceled)));
    });
}

#[test]
fn groups_of_tasks_that_wait_for_their_turn() {
    each_runtime(|| {
        assert_eq!(deep(|| coro::gather((|| 1, || 2))), (1, 2));
        let race = deep(|| coro::race((|| coro::sleep(NEVER), || coro::sleep(SOON))));
        assert_eq!((race.winner, race.values), (1, (Err(Error::Canceled), Ok(()))));
    });
}

// Children that are cancelled before their first turn left no value. That happened 64 eager spawns deep.
#[test]
fn a_group_of_a_task_that_was_cancelled_before_has_values_at_any_depth() {
    let sleep = || coro::sleep(NEVER);
    let both = (Err(Error::Canceled), Err(Error::Canceled));
    each_runtime(|| {
        let at_top = coro::spawn(move || {
            coro::current().cancel();
            (coro::gather((sleep, sleep)), coro::race((sleep, sleep)).values)
        });
        assert_eq!(at_top.join().unwrap(), (both, both));
        let gathered = deep(move || {
            coro::current().cancel();
            catch_unwind(AssertUnwindSafe(|| coro::gather((sleep, sleep)))).ok()
        });
        assert_eq!(gathered, Some(both));
        let raced = deep(move || {
            coro::current().cancel();
            catch_unwind(AssertUnwindSafe(|| coro::race((sleep, sleep)).values)).ok()
        });
        assert_eq!(raced, Some(both));
    });
}

#[test]
fn a_race_that_is_late_from_the_start_has_values_at_any_depth() {
    let sleep = || coro::sleep(NEVER);
    each_runtime(|| {
        let late = deep(move || {
            let race = || coro::timeout(Duration::ZERO, || coro::race((sleep, sleep)).values);
            catch_unwind(AssertUnwindSafe(race)).ok()
        });
        assert!(late.is_some());
    });
}

static NUMBER: TaskLocal<Cell<u64>> = TaskLocal::new(|| Cell::new(0));

#[test]
fn each_task_has_values_of_its_own_across_switches() {
    each_runtime(|| {
        NUMBER.with(|n| n.set(1));
        let tasks: Vec<_> = (10..20)
            .map(|i| {
                coro::spawn(move || {
                    assert_eq!(NUMBER.with(Cell::get), 0);
                    NUMBER.with(|n| {
                        n.set(i);
                        // A task may wait while it borrows its own value.
                        coro::yield_now().unwrap();
                        coro::sleep(Duration::from_micros(50)).unwrap();
                        assert_eq!(n.get(), i);
                    });
                    NUMBER.with(Cell::get)
                })
            })
            .collect();
        for (task, i) in tasks.into_iter().zip(10..) {
            assert_eq!(task.join().unwrap(), i);
        }
        assert_eq!(NUMBER.with(Cell::get), 1);
    });
    assert_eq!(NUMBER.try_with(Cell::get), Err(Error::WrongRuntime));
}

thread_local! {
    /// What the destructors below have to say. A test runs on a thread of its own.
    static LOG: RefCell<Vec<String>> = const { RefCell::new(vec![]) };
}

fn log(text: impl Into<String>) {
    LOG.with(|log| log.borrow_mut().push(text.into()));
}

struct Noted(&'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        log(self.0);
    }
}

static FIRST: TaskLocal<Noted> = TaskLocal::new(|| Noted("first"));
static SECOND: TaskLocal<Noted> = TaskLocal::new(|| Noted("second"));
static THIRD: TaskLocal<Noted> = TaskLocal::new(|| Noted("third"));

#[test]
fn values_of_a_task_are_dropped_at_its_end_the_youngest_first() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            FIRST.with(|_| SECOND.with(|_| THIRD.with(|_| ())));
            coro::yield_now().unwrap();
            let _last = Noted("local");
        });
        task.join().unwrap();
        assert_eq!(LOG.take(), ["local", "third", "second", "first"]);
    });
}

// They were dropped with the runtime, the oldest first.
#[test]
fn values_of_the_root_are_dropped_at_its_end_the_youngest_first() {
    each_engine(|engine| {
        runtime(engine).run(|| FIRST.with(|_| SECOND.with(|_| THIRD.with(|_| ())))).unwrap();
        assert_eq!(LOG.take(), ["third", "second", "first"]);
    });
}

struct Reader;

impl Drop for Reader {
    fn drop(&mut self) {
        log(format!("number {:?}", NUMBER.try_with(Cell::get)));
        FIRST.with(|_| ());
    }
}

static READER: TaskLocal<Reader> = TaskLocal::new(|| Reader);

// The list was borrowed while a value was dropped.
#[test]
fn destructors_of_a_tasks_values_may_use_others() {
    each_runtime(|| {
        let task = coro::spawn(|| {
            NUMBER.with(|n| n.set(5));
            READER.with(|_| ());
        });
        task.join().unwrap();
        assert_eq!(LOG.take(), ["number Ok(5)", "first"]);
    });
}

// They were dropped when the runtime was no longer there.
#[test]
fn destructors_of_the_roots_values_may_use_others() {
    each_engine(|engine| {
        let result = catch_unwind(AssertUnwindSafe(|| {
            runtime(engine).run(|| {
                NUMBER.with(|n| n.set(6));
                READER.with(|_| ());
            })
        }));
        assert!(matches!(result, Ok(Ok(()))));
        assert_eq!(LOG.take(), ["number Ok(6)", "first"]);
    });
}

#[test]
fn a_value_whose_making_or_dropping_panics_harms_nobody_else() {
    static BAD: TaskLocal<u8> = TaskLocal::new(|| panic!("cannot be made"));
    static WORSE: TaskLocal<OnDrop<fn()>> = TaskLocal::new(|| OnDrop(|| panic!("cannot be dropped")));
    each_runtime(|| {
        let task = coro::spawn(|| {
            WORSE.with(|_| ());
            panics(|| BAD.with(|_| ()))
        });
        assert_eq!(task.join().unwrap(), "cannot be made");
        assert_eq!(coro::spawn(|| NUMBER.with(Cell::get)).join().unwrap(), 0);
    });
}

#[test]
fn an_interval_keeps_its_phase_and_counts_what_it_missed() {
    each_runtime(|| {
        let period = Duration::from_millis(2);
        let mut ticks = coro::interval(period);
        let first = ticks.next();
        let mut passed = 0;
        for _ in 0..3 {
            passed += ticks.tick().unwrap();
        }
        coro::sleep(10 * period).unwrap();
        let missed = ticks.tick().unwrap();
        assert!(missed >= 9, "{missed}");
        passed += missed;
        assert_eq!(ticks.next(), first + period * u32::try_from(passed).unwrap(), "in phase");
        assert!(ticks.next() > Instant::now() || Instant::now() >= first, "the next one is to come");
        // An interrupted tick is not lost.
        let before = ticks.next();
        let mut slow = coro::interval(NEVER);
        let due = slow.next();
        assert_eq!(coro::timeout(SOON, || slow.tick()), Err(Error::TimedOut));
        assert_eq!(slow.next(), due);
        assert_eq!(coro::timeout(Duration::ZERO, || ticks.tick()), Err(Error::TimedOut));
        assert_eq!(ticks.next(), before);
    });
    assert!(panics(|| coro::interval(Duration::ZERO)).contains("zero"));
}

#[test]
fn an_interval_that_is_longer_than_the_clock_goes_never_ticks() {
    each_runtime(|| {
        for period in [Duration::MAX, Duration::from_secs(i64::MAX as u64), Duration::from_secs(u64::MAX / 4)] {
            let mut ticks = coro::interval(period);
            assert_eq!(coro::timeout(SOON, || ticks.tick()), Err(Error::TimedOut));
        }
    });
}

#[test]
fn a_report_names_the_tasks_and_what_they_wait_for() {
    each_runtime(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let named = |name: &'static str| Builder::new().name(name);
        let reader = named("reader").spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8]))).unwrap();
        let id = reader.task();
        let reader = Rc::new(reader);
        let inner = reader.clone();
        let batch = move || {
            aio::complete((Accept::new(&listener), Timeout::after(NEVER), Poll::new(&listener, PollEvents::IN))).is_ok()
        };
        let all = [
            named("batch").spawn(batch).unwrap().task(),
            named("joiner").spawn(move || inner.wait()).unwrap().task(),
            named("parked").spawn(|| coro::park(77)).unwrap().task(),
            named("child").spawn(|| coro::scope(|s| _ = s.spawn(|| coro::park(1)))).unwrap().task(),
        ];
        let later = named("later").later().spawn(|| ()).unwrap();
        named("gone").spawn(|| ()).unwrap().join().unwrap();
        all[2].cancel();
        let dump = coro::dump();
        let text = dump.to_string();
        for line in [
            "task 0 \"root\" runs",
            "task 1 \"reader\" waits for Recv\n",
            "\"batch\" waits for Accept, Timeout, Poll (3 in flight)",
            &format!("\"joiner\" waits for the end of task {}", id.number()),
            "\"child\" waits for the children of its scope",
            "waits for being woken; its state is 1\n",
            "\"later\" runs",
            "\"parked\" runs (cancelled)",
        ] {
            assert!(format!("{text}\n").contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("gone"));
        assert_eq!((dump.tasks[0].id, dump.tasks.len()), (0, 1 + 1 + 4 + 1 + 1));
        assert!(dump.tasks.is_sorted_by_key(|task| task.id));
        later.join().unwrap();
    });
}
