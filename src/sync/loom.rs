//! Checked by loom: whoever waits is woken, and what passes from thread to thread is seen there.

use super::shared::{self, broadcast, oneshot, watch};
use crate::sys::concurrent::{AtomicBool, Cell, check};
use ::loom::thread;
use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[test]
fn a_mutex_lets_one_in_at_a_time() {
    check(|| {
        let mutex = Arc::new(shared::Mutex::new(Cell::new(0)));
        let add = |mutex: &shared::Mutex<Cell<i32>>| {
            let value = mutex.lock().unwrap();
            value.set(value.get() + 1);
        };
        let threads = [(); 2].map(|()| {
            let mutex = mutex.clone();
            thread::spawn(move || add(&mutex))
        });
        add(&mutex);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(mutex.lock().unwrap().get(), 3);
    });
}

#[test]
fn readers_and_a_writer_do_not_meet() {
    check(|| {
        let lock = Arc::new(shared::RwLock::new(Cell::new(0)));
        let writer = {
            let lock = lock.clone();
            thread::spawn(move || lock.write().unwrap().set(1))
        };
        let reader = {
            let lock = lock.clone();
            thread::spawn(move || lock.read().unwrap().get())
        };
        assert!((0..2).contains(&lock.read().unwrap().get()));
        writer.join().unwrap();
        assert!((0..2).contains(&reader.join().unwrap()));
    });
}

#[test]
fn a_channel_of_one_place_gives_all_values_in_their_order() {
    check(|| {
        let (sender, receiver) = shared::channel(1);
        let thread = thread::spawn(move || {
            for i in 0..3 {
                sender.send(i).unwrap();
            }
        });
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
        thread.join().unwrap();
    });
}

#[test]
fn two_receivers_share_what_is_sent_and_learn_of_the_end() {
    check(|| {
        let (sender, receiver) = shared::channel(1);
        let threads = [(); 2].map(|()| {
            let receiver = receiver.clone();
            thread::spawn(move || receiver.iter().sum::<i32>())
        });
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(threads.map(|thread| thread.join().unwrap()).iter().sum::<i32>(), 3);
    });
}

#[test]
fn a_value_or_its_absence_arrives() {
    check(|| {
        let (sender, mut receiver) = oneshot::channel();
        let thread = thread::spawn(move || sender.send(7).unwrap());
        assert_eq!(receiver.recv(), Ok(7));
        thread.join().unwrap();
        let (sender, mut receiver) = oneshot::channel::<i32>();
        let thread = thread::spawn(move || drop(sender));
        assert!(receiver.recv().is_err());
        thread.join().unwrap();
    });
}

#[test]
fn permits_go_from_hand_to_hand() {
    check(|| {
        let semaphore = Arc::new(shared::Semaphore::new(1));
        let threads = [(); 2].map(|()| {
            let semaphore = semaphore.clone();
            thread::spawn(move || drop(semaphore.acquire(1).unwrap()))
        });
        for thread in threads {
            thread.join().unwrap();
        }
        drop(semaphore.acquire(1).unwrap());
    });
}

#[test]
fn a_notification_under_the_lock_is_not_missed() {
    check(|| {
        let pair = Arc::new((shared::Mutex::new(false), shared::Condvar::new()));
        let others = pair.clone();
        let thread = thread::spawn(move || {
            *others.0.lock().unwrap() = true;
            others.1.notify_one();
        });
        let mut ready = pair.0.lock().unwrap();
        while !*ready {
            ready = pair.1.wait(ready).unwrap();
        }
        drop(ready);
        thread.join().unwrap();
    });
}

#[test]
fn an_event_and_a_value_made_once_reach_everybody() {
    check(|| {
        let shared = Arc::new((shared::Event::new(), shared::OnceCell::new()));
        let threads = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.0.wait().unwrap();
                *shared.1.get_or_init(|| 7).unwrap()
            })
        });
        shared.0.set();
        assert_eq!(threads.map(|thread| thread.join().unwrap()), [7, 7]);
    });
}

#[test]
fn nobody_leaves_a_barrier_before_all_are_there_and_one_leads_each_time() {
    check(|| {
        let barrier = Arc::new(shared::Barrier::new(2));
        let came = Arc::new([(); 2].map(|()| [(); 2].map(|()| AtomicBool::new(false))));
        let meet = move |me: usize| {
            [0, 1].map(|round: usize| {
                // Relaxed, so that it is the barrier by which this is seen.
                came[me][round].store(true, Ordering::Relaxed);
                let leads = barrier.wait().unwrap();
                assert!(came[1 - me][round].load(Ordering::Relaxed), "the other one has not come");
                leads
            })
        };
        let thread = thread::spawn({
            let meet = meet.clone();
            move || meet(1)
        });
        let (one, two) = (meet(0), thread.join().unwrap());
        assert!(iter::zip(one, two).all(|(one, two)| one != two));
    });
}

#[test]
fn a_barrier_of_three_lets_all_go() {
    check(|| {
        let barrier = Arc::new(shared::Barrier::new(3));
        let threads = [(); 2].map(|()| {
            let barrier = barrier.clone();
            thread::spawn(move || barrier.wait().unwrap())
        });
        let leads = barrier.wait().unwrap();
        let leaders = threads.map(|thread| usize::from(thread.join().unwrap()));
        assert_eq!(leaders.iter().sum::<usize>() + usize::from(leads), 1);
    });
}

// Senders stay until all has arrived, for their end would wake whoever was forgotten.

#[test]
fn each_receiver_of_a_broadcast_gets_each_value_once() {
    check(|| {
        let (sender, receiver) = broadcast::channel(2);
        assert_eq!(sender.send(0).unwrap(), 1);
        let hear = |mut receiver: broadcast::Receiver<i32>| {
            assert_eq!((receiver.recv(), receiver.recv()), (Ok(0), Ok(1)));
            receiver
        };
        let hears = thread::spawn({
            let receiver = receiver.clone();
            move || drop(hear(receiver))
        });
        let sends = thread::spawn(move || {
            sender.send(1).unwrap();
            sender
        });
        let mut receiver = hear(receiver);
        hears.join().unwrap();
        assert_eq!(receiver.try_recv(), Err(broadcast::TryRecvError::Empty));
        drop(sends.join().unwrap());
    });
}

#[test]
fn a_receiver_that_lags_is_told_how_many_it_has_missed() {
    check(|| {
        let (sender, mut receiver) = broadcast::channel(1);
        let sends = thread::spawn(move || {
            for value in 0..3 {
                sender.send(value).unwrap();
            }
            sender
        });
        let mut next = 0;
        while next < 3 {
            match receiver.recv() {
                // What is lost is told before what comes behind it.
                Ok(value) => assert_eq!(value, next),
                Err(broadcast::RecvError::Lagged(lost)) => {
                    next += lost;
                    assert!(lost > 0 && next < 3, "the last one is kept");
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            next += 1;
        }
        drop(sends.join().unwrap());
        assert_eq!(receiver.recv(), Err(broadcast::RecvError::Closed));
    });
}

#[test]
fn the_last_sender_of_a_broadcast_ends_all_waits() {
    check(|| {
        let (sender, receiver) = broadcast::channel::<i32>(1);
        let hear = |mut receiver: broadcast::Receiver<i32>| receiver.recv();
        let hears = thread::spawn({
            let receiver = receiver.clone();
            move || hear(receiver)
        });
        let leaves = thread::spawn({
            let sender = sender.clone();
            move || drop(sender)
        });
        drop(sender);
        assert_eq!(hear(receiver), Err(broadcast::RecvError::Closed));
        assert_eq!(hears.join().unwrap(), Err(broadcast::RecvError::Closed));
        leaves.join().unwrap();
    });
}

#[test]
fn a_change_between_the_look_and_the_wait_is_not_missed() {
    check(|| {
        let (sender, mut receiver) = watch::channel(0);
        let changes = thread::spawn(move || {
            sender.send(1);
            sender.send(2);
            sender
        });
        let mut last = receiver.get();
        while last < 2 {
            let value = receiver.recv().unwrap();
            assert!(value > last, "it is a change");
            last = value;
        }
        drop(changes.join().unwrap());
        assert!(receiver.recv().is_err());
    });
}

#[test]
fn a_change_and_the_end_of_the_last_sender_reach_all_who_watch() {
    check(|| {
        let (sender, receiver) = watch::channel(0);
        let see = |mut receiver: watch::Receiver<i32>| {
            assert_eq!(receiver.recv(), Ok(1));
            assert!(receiver.recv().is_err());
        };
        let watches = thread::spawn({
            let receiver = receiver.clone();
            move || see(receiver)
        });
        let leaves = thread::spawn({
            let sender = sender.clone();
            move || drop(sender)
        });
        sender.send(1);
        drop(sender);
        see(receiver);
        watches.join().unwrap();
        leaves.join().unwrap();
    });
}

/// Counts its ends, in a way that loom need not know about.
struct Counts(Arc<AtomicUsize>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_value_for_a_receiver_that_goes_is_received_given_back_or_dropped() {
    check(|| {
        let ends = Arc::new(AtomicUsize::new(0));
        let (sender, mut receiver) = oneshot::channel();
        let receives = thread::spawn(move || match receiver.try_recv() {
            Ok(value) => Some(value),
            Err(error) => {
                assert_eq!(error, super::TryRecvError::Empty, "it is sent, not closed");
                None
            }
        });
        let sent = sender.send(Counts(ends.clone()));
        let received = receives.join().unwrap();
        assert!(sent.is_ok() || received.is_none(), "it is in two places");
        let kept = usize::from(sent.is_err()) + usize::from(received.is_some());
        assert_eq!(ends.load(Ordering::Relaxed), 1 - kept);
        drop((sent, received));
        assert_eq!(ends.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_sender_learns_that_its_receiver_is_gone() {
    check(|| {
        let (sender, receiver) = oneshot::channel::<i32>();
        let waits = thread::spawn(move || {
            sender.closed().unwrap();
            assert_eq!(sender.send(7).unwrap_err().value, 7);
        });
        drop(receiver);
        waits.join().unwrap();
    });
}
