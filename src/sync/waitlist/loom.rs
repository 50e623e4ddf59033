//! Checked by loom: a node is not touched any more when its frame may go.

use super::*;
use crate::sys::concurrent::{check, thread as own};
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
