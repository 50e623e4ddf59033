//! Checked by loom: a result that the engine does not learn of would be a deadlock.

use super::*;
use crate::sys::concurrent::check;
use ::loom::thread;

#[test]
fn the_engine_learns_of_every_result() {
    check(|| {
        let results = Arc::new(Results { done: Mutex::default(), bell: EventSource::new().unwrap() });
        let threads = [1, 2].map(|slot| {
            let results = results.clone();
            thread::spawn(move || results.put(slot, 0))
        });
        let (mut taken, mut done) = (Vec::new(), Vec::new());
        // The engine looks even if it was not told.
        results.take(&mut done);
        loop {
            taken.append(&mut done);
            if taken.len() == 2 {
                break;
            }
            results.bell.wait_readable();
            results.take(&mut done);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        taken.sort_unstable();
        assert_eq!(taken, [(1, 0), (2, 0)]);
    });
}
