//! Queues that are lent, callbacks, and user code that does the unexpected.

mod common;

use aio::{Config, Error, Queue, op::*, queue::*};
use common::*;
use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::Write as _,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

fn scope<'env, E, R>(config: Config, f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env, E, 512>) -> R) -> R {
    Queue::scope_with_config(8, config, f).unwrap()
}

fn tick(millis: u64) -> Timeout {
    Timeout::after(Duration::from_millis(millis))
}

/// Runs `f`, which panics, and gives what it says.
fn panics<R>(f: impl FnOnce() -> R) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(f)) else { panic!("it did not panic") };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().expect("a text").to_string(),
    }
}

/// A descriptor whose `as_fd` panics when it is called for the nth time, and that may panic when it is dropped.
struct Bad {
    fd: OwnedFd,
    calls_left: Cell<u32>,
    panics_at_the_end: bool,
    _dropped: Dropped,
}

impl Bad {
    fn new(calls: u32, drops: &Drops) -> Bad {
        let fd = UnixStream::pair().unwrap().0.into();
        Bad { fd, calls_left: Cell::new(calls), panics_at_the_end: false, _dropped: drops.one() }
    }
}

impl AsFd for Bad {
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert!(self.calls_left.get() > 0, "as_fd panics");
        self.calls_left.set(self.calls_left.get() - 1);
        self.fd.as_fd()
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        assert!(!self.panics_at_the_end, "drop panics");
    }
}

#[test]
fn what_a_scope_borrows_is_free_again_after_it() {
    each_queue(|config| {
        let ((a, mut b), mut buffers) = (UnixStream::pair().unwrap(), [[0u8; 4]; 3]);
        let began = Instant::now();
        let got = scope(config, |queue| {
            let [x, y, z] = &mut buffers;
            queue.submit(Recv::new(&a, x), |done| done.result).unwrap();
            b.write_all(b"abc").unwrap();
            let got = queue.wait(1).unwrap().next().unwrap().1;
            // Some have been seen by the kernel, some have not.
            queue.submit(Recv::new(&a, y), |done| done.result).unwrap();
            assert_eq!(queue.poll().unwrap().count(), 0);
            queue.submit(Recv::new(&a, z), |done| done.result).unwrap();
            queue.submit(Timeout::after(NEVER), |done| done.result.map(|()| 0)).unwrap();
            got
        });
        assert!(got == Ok(3) && began.elapsed() < Duration::from_secs(20));
        assert_eq!(buffers, [*b"abc\0", [0; 4], [0; 4]]);
        // Nobody receives what comes now.
        b.write_all(b"later").unwrap();
        assert_eq!(aio::single(Recv::new(&a, &mut [0u8; 8][..])), Ok(5));
        assert_eq!(buffers, [*b"abc\0", [0; 4], [0; 4]]);
    });
}

#[test]
fn a_panic_leaves_a_scope_when_everything_in_it_has_ended() {
    each_queue(|config| {
        let ((a, mut b), mut buffer, drops) = (UnixStream::pair().unwrap(), [0u8; 4], Drops::default());
        let said = panics(|| {
            scope(config, |queue| {
                let dropped = drops.one();
                queue.submit(Recv::new(&a, &mut buffer), move |_| drop(dropped)).unwrap();
                assert_eq!(queue.poll().unwrap().count(), 0);
                panic!("in a scope");
            })
        });
        assert_eq!((said.as_str(), drops.count()), ("in a scope", 1));
        b.write_all(b"abc").unwrap();
        assert_eq!((aio::single(Recv::new(&a, &mut [0u8; 8][..])), buffer), (Ok(3), [0; 4]));
    });
}

#[test]
fn mappers_and_callbacks_use_the_scope_itself() {
    each_queue(|config| {
        let seen = RefCell::new(Vec::new());
        scope(config, |queue| {
            queue
                .submit(Nop::new(), |_| {
                    queue.submit(Nop::new(), |_| seen.borrow_mut().push("inner")).unwrap();
                    seen.borrow_mut().push("outer");
                })
                .unwrap();
            queue.drain(|_, ()| {}).unwrap();
        });
        assert_eq!(seen.into_inner(), ["outer", "inner"]);
    });
}

#[test]
fn a_mapper_that_panics_costs_its_event_only() {
    each_queue(|config| {
        let (queue, drops) = (queue(8, config), Drops::default());
        for number in 0..6 {
            let dropped = drops.one();
            let map = move |_: Done<Nop>| {
                let _dropped = &dropped;
                assert!(number % 2 == 1, "number {number}");
                number
            };
            queue.submit(Nop::new(), map).unwrap();
        }
        drop(queue.wait(6).unwrap());
        for number in [0, 1, 2, 3, 4, 5] {
            if number % 2 == 0 {
                assert_eq!(panics(|| queue.poll().unwrap().next()), format!("number {number}"));
            } else {
                assert_eq!(queue.poll().unwrap().next().unwrap().1, number);
            }
            assert_eq!((queue.len(), drops.count()), (5 - number, number + 1));
        }
        // In a chain, and of an operation with many results, which goes on.
        let chain = (Nop::new().link(), Nop::new().link(), Nop::new());
        queue.submit_chain(chain, (|_| 1, |_| panic!("two"), |_| 3)).unwrap();
        assert_eq!(queue.wait(3).unwrap().next().unwrap().1, 1);
        assert_eq!(panics(|| queue.wait(1).unwrap().next()), "two");
        assert_eq!(drained(&queue), [3]);
        let mut count = 0;
        let map = move |shot: Shot<TimeoutMulti>| {
            count += 1;
            assert!(count != 2, "the second");
            count + 10 * usize::from(shot.op.is_some())
        };
        queue.submit_multi(TimeoutMulti::every(Duration::from_millis(1)).times(3), map).unwrap();
        assert_eq!(collect(&queue, 1), [1]);
        assert_eq!(panics(|| collect(&queue, 1)), "the second");
        assert_eq!(drained(&queue), [13]);
        assert!(queue.is_empty());
    });
}

#[test]
fn an_operation_whose_descriptor_panics_is_not_submitted() {
    each_queue(|config| {
        let (queue, drops) = (queue(8, config), Drops::default());
        let bad = |calls| Bad::new(calls, &drops);
        let never = queue.submit(Timeout::after(NEVER), |_| ()).unwrap();
        let single = || queue.submit(Recv::new(bad(0), vec![0; 4]), |_| ());
        let multi = || queue.submit_multi(AcceptMulti::new(bad(0)), |_| ());
        let callback = || queue.submit_callback(Poll::new(bad(0), PollEvents::IN), |_, _| Then::End);
        let group = || queue.race(|_| ()).unwrap().submit(Recv::new(bad(0), vec![0; 4]), |_| ());
        for round in 0..20 {
            assert_eq!(panics(single), "as_fd panics");
            assert_eq!(panics(multi), "as_fd panics");
            assert_eq!(panics(callback), "as_fd panics");
            let (output, input) = pipe();
            let chain = || {
                let first = Recv::new(bad(1), vec![0; 4]);
                let last = Recv::new(bad(0), vec![0; 4]);
                let maps = (|_: Done<_>| (), |_: Done<_>| (), |_: Done<_>| ());
                queue.submit_chain((first.hard_link(), Close::new(input).link(), last), maps).unwrap()
            };
            assert_eq!(panics(chain), "as_fd panics");
            assert_eq!(aio::single(Read::new(&output, &mut [0u8; 1])), Ok(0), "the pipe is closed");
            assert_eq!((queue.len(), drops.count()), (1, 6 * round + 5));
            // The group has no member then, and its event comes all the same.
            assert_eq!(panics(group), "as_fd panics");
            assert_eq!(collect(&queue, 1), [()]);
            assert_eq!((queue.len(), drops.count()), (1, 6 * round + 6));
        }
        queue.cancel(never).unwrap();
        assert_eq!(drained(&queue), [()]);
    });
}

#[test]
fn a_callback_whose_operation_panics_when_it_starts_again_is_over() {
    each_queue(|config| {
        let (queue, drops, calls) = (queue::<()>(2, config), Drops::default(), Rc::new(Cell::new(0)));
        let count = calls.clone();
        let poll = Poll::new(Bad::new(3, &drops), PollEvents::OUT);
        let callback = move |_: &Queue<'static, ()>, done: Done<Poll<Bad>>| {
            count.set(count.get() + 1);
            Then::Again(done.op)
        };
        queue.submit_callback(poll, callback).unwrap();
        assert_eq!(panics(|| queue.run(|_, ()| {})), "as_fd panics");
        assert_eq!((calls.get(), queue.len(), drops.count()), (3, 0, 1));
        assert_eq!(Rc::strong_count(&calls), 1);
    });
}

#[test]
fn what_panics_when_it_is_dropped_does_not_keep_the_rest_from_being_dropped() {
    each_queue(|config| {
        let drops = Drops::default();
        let queue = queue::<()>(16, config);
        let (a, mut b) = UnixStream::pair().unwrap();
        for number in 0..12 {
            let mut bad = Bad::new(9, &drops);
            bad.panics_at_the_end = number % 3 == 0;
            match number % 4 {
                0 => _ = queue.submit(Recv::new(bad, vec![0; 4]), |_| ()).unwrap(),
                1 => _ = queue.submit(Nop::new(), move |_| drop(bad)).unwrap(),
                2 => _ = queue.submit_multi(PollMulti::new(bad, PollEvents::IN), |_| ()).unwrap(),
                _ => _ = queue.submit_callback(Timeout::after(NEVER), move |_, _| (&bad, Then::End).1).unwrap(),
            }
        }
        let mut bad = Bad::new(9, &drops);
        bad.panics_at_the_end = true;
        std::mem::forget(queue.gather(move |_| drop(bad)).unwrap());
        queue.submit(Recv::new(a, vec![0; 4]), |_| ()).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(queue))).is_ok());
        assert_eq!(drops.count(), 13);
        assert_eq!(b.write_all(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe, "it is closed");
    });
}

#[test]
fn what_is_dropped_with_a_queue_finds_it_closed() {
    each_queue(|config| {
        let (seen, (a, _b)) = (RefCell::new(Vec::new()), UnixStream::pair().unwrap());
        scope::<(), _>(config, |queue| {
            let at_the_end = || {
                OnDrop(|| {
                    let closed = |refused: NotSubmitted<_, _>| matches!(refused, NotSubmitted::Closed(..));
                    let single = queue.submit(Nop::new(), |_| ()).map_err(closed);
                    let chain = (Nop::new().link(), Nop::new());
                    let chain = queue.submit_chain(chain, (|_| (), |_| ()));
                    let chain = matches!(chain, Err(NotSubmitted::Closed(..)));
                    let multi = queue.submit_multi(TimeoutMulti::every(NEVER), |_| ());
                    let multi = matches!(multi, Err(NotSubmitted::Closed(..)));
                    let group = matches!(queue.gather(|_| ()), Err(NotSubmitted::Closed(..)));
                    let waits = queue.wait(1).unwrap().count() + queue.poll().unwrap().count();
                    let waits = waits + queue.wait_until(Instant::now() + NEVER).unwrap().count();
                    queue.drain(|_, ()| panic!("an event")).unwrap();
                    queue.run(|_, ()| panic!("an event")).unwrap();
                    assert!(queue.waker().is_err() && queue.poster().is_err());
                    seen.borrow_mut().push((single, chain, multi, group, waits));
                })
            };
            // Two that have ended, and two that are in flight.
            let keep = at_the_end();
            queue.submit(Nop::new(), move |_| drop(keep)).unwrap();
            let keep = at_the_end();
            queue.submit_callback(Nop::new(), move |_, _| (&keep, Then::End).1).unwrap();
            drop(queue.wait(2).unwrap());
            let keep = at_the_end();
            queue.submit(Recv::new(&a, vec![0; 4]), move |_| drop(keep)).unwrap();
            let keep = at_the_end();
            queue.submit_multi(PollMulti::new(&a, PollEvents::IN), move |_| _ = &keep).unwrap();
        });
        assert_eq!(seen.into_inner(), [(Err(true), true, true, true, 0); 4]);
    });
}

#[test]
fn a_mapper_may_wait_for_others() {
    each_queue(|config| {
        scope(config, |queue| {
            let wait = |_: Done<Nop>| {
                let inner: Vec<_> = queue.wait(2).unwrap().map(|(_, event)| event).collect();
                assert_eq!(inner, ["nop", "tick"]);
                "outer"
            };
            queue.submit(Nop::new(), wait).unwrap();
            queue.submit(Nop::new(), |_| "nop").unwrap();
            queue.submit(tick(2), |_| "tick").unwrap();
            let events: Vec<_> = queue.wait(1).unwrap().map(|(_, event)| event).collect();
            assert_eq!(events, ["outer"]);
            // In the middle of a chain it gets the rest of that.
            let wait = |_: Done<Nop>| queue.wait(1).unwrap().next().unwrap().1;
            queue.submit_chain((Nop::new().link(), Nop::new()), (wait, |_| "last")).unwrap();
            assert_eq!(queue.wait(2).unwrap().map(|(_, event)| event).collect::<Vec<_>>(), ["last"]);
            // It may drain what there is.
            let wait = |_: Done<Nop>| {
                let mut count = 0;
                queue.drain(|_, _| count += 1).unwrap();
                if count == 3 { "drained" } else { "not drained" }
            };
            queue.submit(Nop::new(), wait).unwrap();
            (0..3).for_each(|at| _ = queue.submit(tick(at), |_| "tick").unwrap());
            let mut events = Vec::new();
            queue.drain(|_, event| events.push(event)).unwrap();
            assert_eq!(events, ["drained"]);
        });
    });
}

#[test]
fn a_mapper_finds_its_own_place_free() {
    each_queue(|config| {
        scope(config, |queue| {
            let again = |_: Done<Nop>| match queue.submit(Nop::new(), |_| "again") {
                Ok(_) => "first",
                Err(full) => panic!("{full}"),
            };
            queue.submit(Nop::new(), again).unwrap();
            (1..queue.capacity()).for_each(|_| _ = queue.submit(tick(60_000), |_| "tick").unwrap());
            assert!(queue.submit(Nop::new(), |_| "more").unwrap_err().is_full());
            let events = [(); 2].map(|()| queue.wait(1).unwrap().next().unwrap().1);
            assert_eq!(events, ["first", "again"]);
            queue.cancel_all();
        });
    });
}

#[test]
fn a_mapper_of_many_results_may_wait_for_others() {
    each_queue(|config| {
        let ((a, mut b), (c, d)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let (c, mut d) = (&c, &d);
        // Results that nobody has taken yet, one that has come back for the moment, and a poll, which looks again only
        // when its result was taken.
        for polls in [false, true] {
            b.write_all(&[1; 20]).unwrap();
            scope(config, |queue| {
                let pool = queue.buf_pool(32, 4).unwrap();
                let mut first = true;
                let mut wait = move |more: bool| {
                    if std::mem::take(&mut first) {
                        queue.submit(Recv::new(c, vec![0; 4]), |_| "received").unwrap();
                        assert_eq!(queue.poll().unwrap().count(), 0, "its own results are hidden");
                        d.write_all(b"x").unwrap();
                        assert_eq!(queue.wait(1).unwrap().next().unwrap().1, "received");
                        queue.submit(tick(1), |_| "tick").unwrap();
                        assert_eq!(queue.wait(1).unwrap().next().unwrap().1, "tick");
                        let soon = Instant::now() + Duration::from_millis(2);
                        assert_eq!(queue.wait_until(soon).unwrap().count(), 0);
                    }
                    if more { "more" } else { "end" }
                };
                let token = if polls {
                    queue.submit_multi(PollMulti::new(&a, PollEvents::IN), move |shot| wait(shot.more)).unwrap()
                } else {
                    queue.submit_multi(RecvMulti::new(&a, &pool), move |shot| wait(shot.more)).unwrap()
                };
                assert_eq!(queue.wait(1).unwrap().next().unwrap().1, "more");
                queue.cancel(token).unwrap();
                let mut events = Vec::new();
                queue.drain(|_, event| events.push(event)).unwrap();
                assert_eq!(events.pop(), Some("end"));
            });
        }
    });
}

#[test]
fn a_callback_starts_its_operation_again_until_it_says_that_it_is_over() {
    each_queue(|config| {
        // There is always room for it, however full the queue is.
        let (queue, calls) = (queue::<&str>(2, config), Rc::new(Cell::new(0)));
        let count = calls.clone();
        let callback = move |queue: &Queue<'static, &str>, done: Done<Timeout>| {
            assert_eq!((done.result, queue.len()), (Ok(()), 2));
            assert!(queue.submit(Nop::new(), |_| "too many").unwrap_err().is_full());
            count.set(count.get() + 1);
            if count.get() < 100 { Then::Again(tick(0)) } else { Then::End }
        };
        let never = queue.submit(Timeout::after(NEVER), |_| "never").unwrap();
        queue.submit_callback(tick(0), callback).unwrap();
        while calls.get() < 100 {
            assert_eq!(queue.wait(1).unwrap().count(), 0, "a callback gives no event");
        }
        assert_eq!((queue.len(), Rc::strong_count(&calls)), (1, 1));
        queue.cancel(never).unwrap();
        assert_eq!(drained(&queue), ["never"]);
    });
}

#[test]
fn a_callback_keeps_its_token() {
    each_queue(|config| {
        let (queue, (a, mut b)) = (queue::<()>(4, config), UnixStream::pair().unwrap());
        let results = Rc::new(RefCell::new(Vec::new()));
        let seen = results.clone();
        let token = queue
            .submit_callback(Recv::new(a, vec![0u8; 4]), move |_, done: Done<Recv<_, _>>| {
                seen.borrow_mut().push(done.result);
                if done.result.is_ok() { Then::Again(done.op) } else { Then::End }
            })
            .unwrap();
        for count in 1..=10 {
            b.write_all(b"abcd").unwrap();
            while results.borrow().len() < count {
                queue.run_once(|_, ()| {}).unwrap();
            }
        }
        queue.cancel(token).unwrap();
        queue.run(|_, ()| {}).unwrap();
        assert_eq!(results.borrow().split_last(), Some((&Err(Error::Canceled), &[Ok(4); 10][..])));
        assert_eq!(queue.cancel(token), os(libc::ENOENT));
    });
}

#[test]
fn a_callback_submits_cancels_stops_and_panics() {
    each_queue(|config| {
        let queue = queue::<u32>(8, config);
        let never = queue.submit(Timeout::after(NEVER), |done| done.result.is_err().into()).unwrap();
        queue
            .submit_callback(Nop::new(), move |queue, _| {
                queue.submit(Nop::new(), |_| 7).unwrap();
                queue.submit_callback(tick(1), |queue, _| (queue.stop(), Then::End).1).unwrap();
                queue.cancel(never).unwrap();
                Then::End
            })
            .unwrap();
        let mut events = Vec::new();
        queue.submit(Timeout::after(NEVER), |_| 9).unwrap();
        queue.run(|_, number| events.push(number)).unwrap();
        events.sort();
        assert_eq!((events, queue.len()), (vec![1, 7], 1));
        queue.submit_callback(Nop::new(), |_, _| panic!("in a callback")).unwrap();
        assert_eq!(panics(|| queue.run(|_, _| {})), "in a callback");
        assert_eq!(queue.len(), 1);
        queue.cancel_all();
        assert_eq!(drained(&queue), [9]);
    });
}

#[test]
fn a_callback_may_wait_for_others() {
    each_queue(|config| {
        let queue = queue::<u32>(4, config);
        let rounds = Rc::new(Cell::new(0));
        let count = rounds.clone();
        queue
            .submit_callback(Nop::new(), move |queue, done| {
                queue.submit(tick(1), |_| 7).unwrap();
                assert_eq!(queue.wait(5).unwrap().map(|(_, number)| number).collect::<Vec<_>>(), [7]);
                count.set(count.get() + 1);
                if count.get() < 5 { Then::Again(done.op) } else { Then::End }
            })
            .unwrap();
        queue.run(|_, _| panic!("taken inside")).unwrap();
        assert_eq!(rounds.get(), 5);
    });
}

#[test]
fn a_queue_that_is_stored_with_what_uses_it_goes_in_any_order() {
    each_queue(|config| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let queue: Rc<Queue<'static, ()>> = Rc::new(queue(4, config));
        let weak = Rc::downgrade(&queue);
        queue.submit_multi(AcceptMulti::new(listener), move |_| assert!(weak.upgrade().is_some())).unwrap();
        queue.submit(Read::new(File::open("Cargo.toml").unwrap(), vec![0; 4]).at(0), |_| ()).unwrap();
        assert_eq!(Rc::strong_count(&queue), 1);
        drop(queue);
    });
}
