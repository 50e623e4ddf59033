//! The counting semaphore.

mod common;

use aio::{Error, op::*};
use common::{each_engine, in_own_process, leaks_no_descriptor};
use std::time::Duration;

#[test]
fn it_counts() {
    each_engine(|_| {
        let source = EventSource::new().unwrap();
        for _ in 0..3 {
            source.notify();
        }
        aio::multi((Notify::new(&source), Notify::new(&source))).unwrap();
        for _ in 0..5 {
            assert_eq!(aio::single(WaitEvent::new(&source)), Ok(()));
        }
        assert_eq!(aio::single(WaitEvent::new(&source).timeout(Duration::from_millis(2))), Err(Error::TimedOut));
    });
}

#[test]
fn trying_takes_one_or_tells_that_there_is_none() {
    each_engine(|_| {
        let source = EventSource::new().unwrap();
        assert_eq!(source.try_wait(), Ok(false));
        aio::multi((Notify::new(&source).link(), Notify::new(&source))).unwrap();
        assert_eq!((source.try_wait(), source.try_wait(), source.try_wait()), (Ok(true), Ok(true), Ok(false)));
    });
}

#[test]
fn each_notification_ends_exactly_one_of_several_waits() {
    each_engine(|_| {
        let source = EventSource::new().unwrap();
        let waits =
            |n: usize| (0..n).map(|_| WaitEvent::new(&source).timeout(Duration::from_millis(30))).collect::<Vec<_>>();
        source.notify();
        source.notify();
        assert_eq!(aio::complete(waits(5)).unwrap().errors, 3);
        assert_eq!(source.try_wait(), Ok(false));
    });
}

#[test]
fn a_wait_ends_when_another_operation_of_the_batch_notifies() {
    each_engine(|_| {
        let source = EventSource::new().unwrap();
        let later = (Timeout::after(Duration::from_millis(2)).link(), Notify::new(&source));
        assert_eq!(aio::multi((WaitEvent::new(&source).link(), Nop::new(), later)), Ok(((), (), ((), ()))));
    });
}

#[test]
fn every_notification_of_four_threads_is_seen() {
    each_engine(|_| {
        const EACH: usize = 2500;
        let source = EventSource::new().unwrap();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..EACH).for_each(|_| source.notify()));
            }
            let mut seen = 0;
            while seen < 4 * EACH {
                let waits: Vec<_> = (0..50).map(|_| WaitEvent::new(&source)).collect();
                seen += aio::multi(waits).unwrap().len();
            }
        });
        assert_eq!(source.try_wait(), Ok(false), "and none was seen twice");
    });
}

#[test]
fn threads_can_wait_for_each_other_with_their_own_engines() {
    each_engine(|engine| {
        let (ping, pong) = (EventSource::new().unwrap(), EventSource::new().unwrap());
        std::thread::scope(|s| {
            s.spawn(|| {
                engine.config.run(|| {
                    for _ in 0..500 {
                        aio::multi((WaitEvent::new(&ping).link(), Notify::new(&pong))).unwrap();
                    }
                })
            });
            for _ in 0..500 {
                aio::multi((Notify::new(&ping).link(), WaitEvent::new(&pong))).unwrap();
            }
        });
    });
}

#[test]
fn it_is_closed_as_an_operation_and_by_dropping() {
    in_own_process("it_is_closed_as_an_operation_and_by_dropping", || {
        each_engine(|_| {
            leaks_no_descriptor(|| {
                let (a, b) = (EventSource::new().unwrap(), EventSource::new().unwrap());
                a.notify();
                assert_eq!(aio::multi((WaitEvent::new(&a), Close::new(b))), Ok(((), ())));
            });
        });
    });
}

#[test]
fn it_can_be_polled() {
    each_engine(|_| {
        let source = EventSource::new().unwrap();
        let idle = aio::single(Poll::new(&source, PollEvents::IN).timeout(Duration::from_millis(2)));
        assert_eq!(idle, Err(Error::TimedOut));
        source.notify();
        assert_eq!(
            aio::single(Poll::new(&source, PollEvents::IN | PollEvents::OUT)),
            Ok(PollEvents::IN | PollEvents::OUT)
        );
        assert_eq!(source.try_wait(), Ok(true), "polling takes nothing");
    });
}
