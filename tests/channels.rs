//! Channels among the tasks of a runtime.

mod common;

use aio::{
    Error, coro,
    sync::{self, RecvError, SendFailure, TryRecvError, TrySendError, broadcast, oneshot, watch},
};
use common::*;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

const SOON: Duration = Duration::from_millis(1);

/// Counts those of its kind that exist.
#[derive(Debug)]
struct Counted(u64, Rc<Cell<i64>>);

impl Counted {
    fn new(n: u64, alive: &Rc<Cell<i64>>) -> Counted {
        alive.set(alive.get() + 1);
        Counted(n, alive.clone())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Counted {
        Counted::new(self.0, &self.1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}

#[test]
fn values_come_in_order_through_any_capacity() {
    each_runtime(|| {
        for capacity in [0, 1, 3, 1000, usize::MAX] {
            let (sender, receiver) = sync::channel(capacity);
            assert_eq!(sender.capacity(), (capacity != usize::MAX).then_some(capacity));
            let task = coro::spawn(move || receiver.into_iter().collect::<Vec<_>>());
            for i in 0..200 {
                sender.send(i).unwrap();
                assert!(sender.len() <= capacity);
            }
            drop(sender);
            assert_eq!(task.join().unwrap(), (0..200).collect::<Vec<_>>());
        }
    });
}

#[test]
fn senders_that_wait_are_served_in_order() {
    each_runtime(|| {
        for capacity in [0, 2] {
            let (sender, receiver) = sync::channel(capacity);
            (0..capacity).for_each(|i| sender.try_send(i).unwrap());
            let tasks: Vec<_> = (capacity..capacity + 4)
                .map(|i| {
                    let sender = sender.clone();
                    coro::spawn(move || sender.send(i))
                })
                .collect();
            assert!(tasks.iter().all(|task| !task.is_finished()));
            assert_eq!(sender.try_send(99), Err(TrySendError::Full(99)));
            // The one that leaves takes its value along.
            tasks[1].cancel();
            coro::yield_now().unwrap();
            drop(sender);
            let left: Vec<_> = receiver.iter().collect();
            let expected: Vec<_> = (0..capacity + 4).filter(|i| *i != capacity + 1).collect();
            assert_eq!(left, expected);
            let results: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
            let error = results[1].unwrap_err();
            assert_eq!((error.value, error.reason), (capacity + 1, SendFailure::Interrupted(Error::Canceled)));
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
        }
    });
}

#[test]
fn receivers_that_wait_are_served_in_order() {
    each_runtime(|| {
        for capacity in [0, 2] {
            let (sender, receiver) = sync::channel(capacity);
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let receiver = receiver.clone();
                    coro::spawn(move || receiver.recv())
                })
                .collect();
            tasks[2].cancel();
            coro::yield_now().unwrap();
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            (0..3).for_each(|i| sender.try_send(i).unwrap());
            // What was sent to those who waited is not for those who come now.
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(sender.len(), 0);
            let results: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
            assert_eq!(results, [Ok(0), Ok(1), Err(RecvError::Interrupted(Error::Canceled)), Ok(2)]);
        }
    });
}

#[test]
fn without_capacity_a_value_goes_from_hand_to_hand() {
    each_runtime(|| {
        let (sender, receiver) = sync::channel(0);
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        let task = coro::spawn({
            let sender = sender.clone();
            move || sender.send(2)
        });
        assert!(!task.is_finished());
        assert_eq!((receiver.len(), receiver.try_recv()), (0, Ok(2)));
        assert_eq!(task.join().unwrap(), Ok(()));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let task = coro::spawn(move || receiver.recv());
        assert_eq!(sender.try_send(3), Ok(()));
        assert_eq!(sender.try_send(4), Err(TrySendError::Full(4)));
        assert_eq!(task.join().unwrap(), Ok(3));
        assert_eq!(sender.try_send(5), Err(TrySendError::Closed(5)));
    });
}

#[test]
fn what_is_sent_to_a_receiver_that_is_cancelled_is_received() {
    each_runtime(|| {
        let (sender, receiver) = sync::channel(0);
        let task = coro::spawn(move || receiver.recv());
        sender.try_send(1).unwrap();
        task.cancel();
        assert_eq!(task.join().unwrap(), Ok(1));

        let (sender, receiver) = sync::channel(0);
        let task = coro::spawn(move || sender.send(2));
        assert_eq!(receiver.try_recv(), Ok(2));
        task.cancel();
        assert_eq!(task.join().unwrap(), Ok(()), "it was taken");
    });
}

#[test]
fn waits_are_given_up() {
    each_runtime(|| {
        let (sender, receiver) = sync::channel(1);
        let recv = || receiver.recv().map_err(|error| (error, 0));
        let send = || sender.send(7).map_err(|error| (error.reason, error.value));
        let interrupted = |error| Err((RecvError::Interrupted(error), 0));
        assert_eq!(coro::timeout(SOON, recv), interrupted(Error::TimedOut));
        assert_eq!(coro::timeout(Duration::ZERO, recv), interrupted(Error::TimedOut));
        assert_eq!(coro::no_suspend(recv), interrupted(Error::NoSuspend));
        assert_eq!(aio::Config::new().run(recv).unwrap(), interrupted(Error::WrongRuntime));
        assert_eq!(recv(), interrupted(Error::Deadlock));
        send().unwrap();
        let interrupted = |error| Err((SendFailure::Interrupted(error), 7));
        assert_eq!(coro::timeout(SOON, send), interrupted(Error::TimedOut));
        assert_eq!(coro::timeout(Duration::ZERO, send), interrupted(Error::TimedOut));
        assert_eq!(coro::no_suspend(send), interrupted(Error::NoSuspend));
        assert_eq!(aio::Config::new().run(send).unwrap(), interrupted(Error::WrongRuntime));
        assert_eq!(send(), interrupted(Error::Deadlock));
        assert_eq!((receiver.len(), coro::timeout(Duration::ZERO, recv)), (1, Ok(7)), "what is there is taken");
        assert!(receiver.is_empty());
    });
}

#[test]
fn the_last_sender_closes() {
    each_runtime(|| {
        let (sender, receiver) = sync::channel(4);
        let task = coro::spawn({
            let receiver = receiver.clone();
            move || receiver.recv()
        });
        let other = sender.clone();
        drop(sender);
        assert!(!receiver.is_closed() && !task.is_finished());
        drop(other);
        assert_eq!(task.join().unwrap(), Err(RecvError::Closed));
        assert_eq!(receiver.recv(), Err::<(), _>(RecvError::Closed));

        let (sender, receiver) = sync::channel(4);
        sender.send(1).unwrap();
        drop(sender);
        assert!(receiver.is_closed());
        assert_eq!((receiver.recv(), receiver.try_recv()), (Ok(1), Err(TryRecvError::Closed)));
    });
}

#[test]
fn the_last_receiver_closes() {
    each_runtime(|| {
        let alive = Rc::new(Cell::new(0));
        let (sender, receiver) = sync::channel(2);
        sender.send(Counted::new(0, &alive)).unwrap();
        sender.send(Counted::new(1, &alive)).unwrap();
        let tasks: Vec<_> = (2..5)
            .map(|i| {
                let (sender, value) = (sender.clone(), Counted::new(i, &alive));
                coro::spawn(move || sender.send(value))
            })
            .collect();
        drop(receiver.clone());
        assert!(!sender.is_closed());
        drop(receiver);
        assert_eq!(alive.get(), 3, "what nobody can receive any more is dropped");
        for (i, task) in tasks.into_iter().enumerate() {
            let error = task.join().unwrap().unwrap_err();
            assert_eq!((error.value.0, error.reason), (i as u64 + 2, SendFailure::Closed));
        }
        assert!(matches!(sender.try_send(Counted::new(9, &alive)), Err(TrySendError::Closed(Counted(9, _)))));
        assert_eq!(alive.get(), 0);
    });
}

#[test]
fn a_value_may_use_its_channel_when_it_is_dropped() {
    struct Nosy(Option<sync::Sender<Nosy>>, Rc<Cell<bool>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                assert!(sender.is_closed());
                let refused = sender.try_send(Nosy(None, self.1.clone()));
                self.1.set(matches!(refused, Err(TrySendError::Closed(_))));
            }
        }
    }
    each_runtime(|| {
        let seen = Rc::new(Cell::new(false));
        let (sender, receiver) = sync::channel(1);
        assert!(sender.try_send(Nosy(Some(sender.clone()), seen.clone())).is_ok());
        drop(receiver);
        assert!(seen.get());
    });
}

#[test]
fn no_value_is_lost_or_doubled_by_random_cancels() {
    each_runtime(|| {
        for capacity in [0, 1, 4] {
            let (alive, sent, received) = (Rc::new(Cell::new(0)), RefCell::new(vec![]), RefCell::new(vec![]));
            let (sender, receiver) = sync::channel(capacity);
            coro::scope(|s| {
                for number in 1..=4u64 {
                    let (sender, alive, sent) = (sender.clone(), &alive, &sent);
                    s.spawn(move || {
                        let mut random = Random(number + 100);
                        for i in 0..150 {
                            let value = Counted::new(number * 1000 + i, alive);
                            let limit = Duration::from_micros(random.below(40));
                            match coro::timeout(limit, || sender.send(value)) {
                                Ok(()) => sent.borrow_mut().push(number * 1000 + i),
                                Err(error) => assert_eq!(error.value.0, number * 1000 + i),
                            }
                            if random.below(4) == 0 {
                                coro::yield_now().unwrap();
                            }
                        }
                    });
                }
                for number in 1..=3 {
                    let (receiver, received) = (receiver.clone(), &received);
                    s.spawn(move || {
                        let mut random = Random(number);
                        loop {
                            let limit = Duration::from_micros(random.below(40));
                            match coro::timeout(limit, || receiver.recv()) {
                                Ok(value) => received.borrow_mut().push(value.0),
                                Err(RecvError::Closed) => return,
                                Err(RecvError::Interrupted(error)) => assert_eq!(error, Error::TimedOut),
                            }
                            // Its sticky limit is over; the others run.
                            coro::yield_now().unwrap();
                        }
                    });
                }
                drop((sender, receiver));
            });
            assert_eq!(alive.get(), 0);
            let (mut sent, mut received) = (sent.into_inner(), received.into_inner());
            assert!(!sent.is_empty());
            sent.sort_unstable();
            received.sort_unstable();
            assert_eq!(sent, received);
        }
    });
}

#[test]
fn a_oneshot_gives_its_value_once() {
    each_runtime(|| {
        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(coro::timeout(SOON, || receiver.recv()), Err(RecvError::Interrupted(Error::TimedOut)));
        assert_eq!(receiver.recv(), Err(RecvError::Interrupted(Error::Deadlock)));
        let task = coro::spawn(move || (receiver.recv(), receiver.recv(), receiver.try_recv()));
        sender.send(5).unwrap();
        assert_eq!(task.join().unwrap(), (Ok(5), Err(RecvError::Closed), Err(TryRecvError::Closed)));

        let (sender, mut receiver) = oneshot::channel::<i32>();
        let task = coro::spawn(move || receiver.recv());
        drop(sender);
        assert_eq!(task.join().unwrap(), Err(RecvError::Closed));
    });
}

#[test]
fn a_oneshot_knows_when_nobody_wants_its_value() {
    each_runtime(|| {
        let alive = Rc::new(Cell::new(0));
        let (sender, receiver) = oneshot::channel();
        assert_eq!(coro::timeout(SOON, || sender.closed()), Err(Error::TimedOut));
        let sender = Rc::new(sender);
        let waiting = sender.clone();
        let task = coro::spawn(move || waiting.closed());
        assert!(!task.is_finished() && !sender.is_closed());
        drop(receiver);
        assert_eq!(task.join().unwrap(), Ok(()));
        let sender = Rc::into_inner(sender).unwrap();
        assert!(sender.is_closed());
        let error = sender.send(Counted::new(1, &alive)).unwrap_err();
        assert_eq!((error.value.0, error.reason), (1, SendFailure::Closed));
        drop(error);

        let (sender, receiver) = oneshot::channel();
        sender.send(Counted::new(2, &alive)).unwrap();
        assert_eq!(alive.get(), 1);
        drop(receiver);
        assert_eq!(alive.get(), 0);
    });
}

#[test]
fn a_broadcast_reaches_everybody_and_waits_for_nobody() {
    each_runtime(|| {
        let alive = Rc::new(Cell::new(0));
        let (sender, slow) = broadcast::channel(4);
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let mut receiver = sender.subscribe();
                coro::spawn(move || {
                    let mut sum = 0;
                    loop {
                        match receiver.recv() {
                            Ok(Counted(n, _)) => sum += n,
                            Err(error) => return (sum, error),
                        }
                    }
                })
            })
            .collect();
        let mut slow = slow;
        for i in 0..10 {
            assert_eq!(sender.send(Counted::new(i, &alive)).unwrap(), 4);
            coro::yield_now().unwrap();
        }
        assert_eq!((alive.get(), slow.len()), (4, 10));
        assert_eq!(slow.recv().unwrap_err(), broadcast::RecvError::Lagged(6));
        let mut copy = slow.clone();
        assert_eq!((slow.recv().unwrap().0, slow.try_recv().unwrap().0), (6, 7));
        let mut late = sender.subscribe();
        assert_eq!(late.try_recv().unwrap_err(), broadcast::TryRecvError::Empty);
        drop(sender);
        assert_eq!(late.recv().unwrap_err(), broadcast::RecvError::Closed);
        for task in tasks {
            assert_eq!(task.join().unwrap(), (45, broadcast::RecvError::Closed));
        }
        assert_eq!((8..10).map(|_| slow.recv().unwrap().0).collect::<Vec<_>>(), [8, 9]);
        assert_eq!(slow.recv().unwrap_err(), broadcast::RecvError::Closed);
        assert_eq!(copy.recv().unwrap().0, 6);
        drop((slow, copy, late));
        assert_eq!(alive.get(), 0);
    });
}

#[test]
fn a_broadcast_without_receivers_gives_values_back() {
    each_runtime(|| {
        let alive = Rc::new(Cell::new(0));
        let (sender, mut receiver) = broadcast::channel(2);
        let give_up = coro::timeout(SOON, || receiver.recv()).unwrap_err();
        assert_eq!(give_up, broadcast::RecvError::Interrupted(Error::TimedOut));
        assert_eq!(receiver.recv().unwrap_err(), broadcast::RecvError::Interrupted(Error::Deadlock));
        sender.send(Counted::new(0, &alive)).unwrap();
        drop(receiver);
        assert_eq!((alive.get(), sender.receivers()), (0, 0));
        assert_eq!(sender.send(Counted::new(1, &alive)).unwrap_err().value.0, 1);
        let mut again = sender.subscribe();
        assert!(again.is_empty());
        assert_eq!(sender.send(Counted::new(2, &alive)).unwrap(), 1);
        assert_eq!(again.recv().unwrap().0, 2);
        drop((again, sender));
        assert_eq!(alive.get(), 0);
    });
}

#[test]
fn a_watch_shows_the_latest_value() {
    each_runtime(|| {
        let alive = Rc::new(Cell::new(0));
        let (sender, mut receiver) = watch::channel(Counted::new(0, &alive));
        assert!(!receiver.has_changed());
        assert_eq!(coro::timeout(SOON, || receiver.recv()).unwrap_err(), RecvError::Interrupted(Error::TimedOut));
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Interrupted(Error::Deadlock));
        let mut other = receiver.clone();
        let task = coro::spawn(move || [(); 3].map(|()| other.recv().map(|value| value.0)));
        sender.send(Counted::new(1, &alive));
        sender.send(Counted::new(2, &alive));
        assert_eq!(alive.get(), 1, "only the latest is kept");
        let mut late = sender.clone().subscribe();
        assert_eq!((late.has_changed(), late.get().0), (false, 2));
        assert!(receiver.has_changed());
        assert_eq!((receiver.recv().unwrap().0, receiver.has_changed()), (2, false));
        coro::yield_now().unwrap();
        sender.send(Counted::new(3, &alive));
        drop(sender);
        assert!(receiver.is_closed());
        assert_eq!(receiver.recv().unwrap().0, 3, "the last value is seen all the same");
        assert_eq!(receiver.recv().unwrap_err(), RecvError::Closed);
        assert_eq!(task.join().unwrap(), [Ok(2), Ok(3), Err(RecvError::Closed)]);
        drop((receiver, late));
        assert_eq!(alive.get(), 0);
    });
}

#[test]
fn errors_become_io_errors() {
    use std::io::ErrorKind::*;
    let kind = |error: std::io::Error| error.kind();
    let send = |reason| sync::SendError { value: (), reason };
    assert_eq!(kind(RecvError::Closed.into()), UnexpectedEof);
    assert_eq!(kind(RecvError::Interrupted(Error::TimedOut).into()), TimedOut);
    assert_eq!(kind(TryRecvError::Empty.into()), WouldBlock);
    assert_eq!(kind(send(SendFailure::Closed).into()), BrokenPipe);
    assert!(aio::is_canceled(&send(SendFailure::Interrupted(Error::Canceled)).into()));
    assert_eq!(kind(TrySendError::Full(()).into()), WouldBlock);
    assert_eq!(send(SendFailure::Closed).to_string(), "the channel is closed");
    assert_eq!(format!("{:?}", TrySendError::Full(Rc::new(1))), "Full(..)");
}

#[test]
fn a_task_that_always_finds_something_starves_nobody() {
    each_runtime(|| {
        let (sender, receiver) = sync::channel(1);
        let over = std::rc::Rc::new(std::cell::Cell::new(false));
        let stop = over.clone();
        sender.send(0u32).unwrap();
        let busy = coro::spawn(move || {
            while !stop.get() {
                sender.send(receiver.recv().unwrap()).unwrap();
            }
        });
        coro::sleep(Duration::from_millis(1)).unwrap();
        over.set(true);
        busy.join().unwrap();
    });
}
