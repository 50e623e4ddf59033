//! Checked by loom: whoever waits is woken, and a node is not touched any more when its frame may go.

use super::*;
use crate::{
    sync::shared,
    sys::concurrent::{Cell, check, thread as own},
};
use ::loom::thread;

#[test]
fn a_node_that_was_given_something_is_its_frames_own() {
    check(|| {
        let list = Arc::new(Mutex::new(List::INIT));
        let node = Node::new(ptr::null());
        node.wake.set(Wake::current(Ender::Threads).ok());
        // SAFETY: the node stays until it is off the list.
        unsafe { list.lock().unwrap().push(&node) };
        let others = list.clone();
        let thread = thread::spawn(move || {
            let wake = others.lock().unwrap().pop(0);
            wake.unwrap().wake();
        });
        while node.given().is_none() {
            own::park();
        }
        // As if something else were on the frame. Loom notices if the other thread uses any of it at the same time.
        assert!(node.wake.take().is_none());
        node.prev.set(ptr::null());
        node.next.set(ptr::null());
        node.queued.set(true);
        thread.join().unwrap();
    });
}

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
        let (sender, mut receiver) = shared::oneshot::channel();
        let thread = thread::spawn(move || sender.send(7).unwrap());
        assert_eq!(receiver.recv(), Ok(7));
        thread.join().unwrap();
        let (sender, mut receiver) = shared::oneshot::channel::<i32>();
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
