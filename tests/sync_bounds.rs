//! Which of the types of `sync` may go to, and be used from, other threads.

use aio::sync::{self, shared::*};
use std::cell::Cell;

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}

/// Whether a type has a trait, found out without being refused if it has not.
macro_rules! implements {
    ($what:ident: $trait:ident) => {{
        #[allow(dead_code)]
        trait No {
            const YES: bool = false;
        }
        impl<T: ?Sized> No for T {}
        struct Ask<T: ?Sized>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        impl<T: ?Sized + $trait> Ask<T> {
            const YES: bool = true;
        }
        <Ask<$what>>::YES
    }};
}

#[test]
fn the_shared_ones_are_send_and_sync_as_far_as_their_values_allow() {
    is_sync::<Event>();
    is_sync::<Semaphore>();
    is_sync::<Condvar>();
    is_sync::<Barrier>();
    is_sync::<Once>();
    is_send::<Permit<'static>>();
    is_sync::<Mutex<Cell<u8>>>();
    is_send::<Mutex<Cell<u8>>>();
    is_send::<MutexGuard<'static, Cell<u8>>>();
    is_sync::<MutexGuard<'static, u8>>();
    is_sync::<RwLock<u8>>();
    is_send::<RwLock<Cell<u8>>>();
    is_send::<ReadGuard<'static, u8>>();
    is_sync::<WriteGuard<'static, u8>>();
    is_sync::<OnceCell<u8>>();
    is_send::<OnceCell<Cell<u8>>>();
    is_sync::<Sender<Cell<u8>>>();
    is_send::<Receiver<Cell<u8>>>();
    is_send::<oneshot::Sender<Cell<u8>>>();
    is_send::<oneshot::Receiver<Cell<u8>>>();
    is_sync::<broadcast::Sender<u8>>();
    is_send::<broadcast::Receiver<u8>>();
    is_sync::<watch::Sender<u8>>();
    is_send::<watch::Receiver<u8>>();
    type Pointer = std::rc::Rc<u8>;
    type Guard = MutexGuard<'static, Cell<u8>>;
    type Lock = Mutex<Pointer>;
    type Cells = RwLock<Cell<u8>>;
    type Reading = ReadGuard<'static, Cell<u8>>;
    type Writing = WriteGuard<'static, Cell<u8>>;
    type Made = OnceCell<Cell<u8>>;
    type Sending = Sender<Pointer>;
    type Shot = oneshot::Receiver<Pointer>;
    type Broad = broadcast::Receiver<Cell<u8>>;
    assert!(!implements!(Guard: Sync) && !implements!(Lock: Sync) && !implements!(Lock: Send));
    assert!(!implements!(Cells: Sync) && !implements!(Reading: Send) && !implements!(Writing: Sync));
    assert!(!implements!(Made: Sync) && !implements!(Sending: Send) && !implements!(Shot: Send));
    type Watch = watch::Receiver<Cell<u8>>;
    assert!(!implements!(Broad: Send) && !implements!(Watch: Send));
}

#[test]
fn the_local_ones_stay_on_their_thread() {
    type Event = sync::Event;
    type Lock = sync::Mutex<u8>;
    type Guard = sync::MutexGuard<'static, u8>;
    type Rw = sync::RwLock<u8>;
    type Reading = sync::ReadGuard<'static, u8>;
    type Permit = sync::Permit<'static>;
    type Once = sync::OnceCell<u8>;
    type Sending = sync::Sender<u8>;
    type Receiving = sync::Receiver<u8>;
    type Shot = sync::oneshot::Sender<u8>;
    type Broad = sync::broadcast::Receiver<u8>;
    assert!(!implements!(Event: Sync) && !implements!(Lock: Sync) && !implements!(Rw: Sync));
    assert!(!implements!(Once: Sync) && !implements!(Guard: Send) && !implements!(Reading: Send));
    assert!(!implements!(Permit: Send) && !implements!(Sending: Send) && !implements!(Receiving: Send));
    assert!(!implements!(Shot: Send) && !implements!(Broad: Send));
    assert!(implements!(Lock: Send), "unused it may move");
}
