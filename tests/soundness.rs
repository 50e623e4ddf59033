//! Attacks on soundness that have to come to nothing: user code in unusual places.

mod common;

use aio::{Config, op::*};
use common::{NEVER, each_engine};
use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// A file whose `as_fd` and whose drop use the library themselves, while the batch is lowered and while it is raised.
struct Nested(File);

impl AsFd for Nested {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let mut buf = [0u8; 9];
        let sleep = Timeout::after(Duration::from_millis(1));
        let done = aio::multi((Read::new(&self.0, &mut buf).at(0).link(), Nop::new().hard_link(), sleep));
        assert_eq!(done, Ok((9, (), ())));
        self.0.as_fd()
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let mut buf = [0u8; 9];
        assert_eq!(aio::single(Read::new(&self.0, &mut buf).at(0).timeout(NEVER)), Ok(9));
    }
}

#[test]
fn descriptors_that_use_the_library_while_a_batch_is_lowered_and_raised() {
    each_engine(|_| {
        let file = || Nested(File::open("Cargo.toml").unwrap());
        let (mut a, mut b, mut c) = ([0u8; 4], [0u8; 4], [0u8; 4]);
        let done = aio::multi((
            Read::new(file(), &mut a).link(),
            Read::new(file(), &mut b).timeout(NEVER).hard_link(),
            Read::new(file(), &mut c),
        ));
        assert_eq!(done, Ok((4, 4, 4)));
        let reads = (0..10).map(|_| Read::new(file(), vec![0u8; 4]));
        assert_eq!(aio::multi(aio::windowed(reads, 3)).unwrap().len(), 10);
    });
}

#[test]
fn destructors_of_thread_locals_may_use_the_library_before_and_after_it_is_gone() {
    struct Last;
    impl Drop for Last {
        fn drop(&mut self) {
            aio::multi((Nop::new().link(), Nop::new())).unwrap();
            Config::new().run(|| aio::single(Nop::new()).unwrap()).unwrap();
        }
    }
    thread_local! {
        static LAST: Last = const { Last };
    }
    // Destructors run in the opposite order of first use, or in the same one; the library is used here in either.
    for first in [true, false] {
        let thread = std::thread::spawn(move || {
            if first {
                LAST.with(|_| ());
            }
            aio::single(Nop::new()).unwrap();
            LAST.with(|_| ());
        });
        thread.join().unwrap();
    }
    std::thread::spawn(|| LAST.with(|_| ())).join().unwrap();
}
