//! Who owns a descriptor when user code panics in the middle of a batch: it is closed once, and nobody else's with it.
//!
//! All of this is about which file gets a number that is free again, so each test has a process of its own: other tests
//! open and close theirs.

mod common;

use aio::{Closing, Job, SetupError, op::*};
use common::{each_engine, in_own_process, leaks_no_descriptor};
use std::{
    cell::{Cell, RefCell},
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

fn a_file() -> File {
    File::open("Cargo.toml").unwrap()
}

/// Files that have nothing to do with the batch, and are opened just when their numbers may be those of closed ones.
#[derive(Default)]
struct Bystanders(RefCell<Vec<File>>);

impl Bystanders {
    /// More than one, for other descriptors may be free as well.
    fn open(&self) {
        self.0.borrow_mut().extend((0..3).map(|_| common::file_with(b"bystander")));
    }

    /// Whether the test can fail: somebody has the number that must not be closed again.
    #[track_caller]
    fn assert_one_has(&self, number: i32) {
        assert!(self.0.borrow().iter().any(|file| file.as_raw_fd() == number), "{number} was not given out again");
    }

    #[track_caller]
    fn assert_all_open(self, when: &str) {
        common::assert_all_open(self.0.into_inner(), when);
    }
}

/// Panics when the operation on it starts, having finished what the batch has submitted until then.
struct PanicsAtStart<'b>(&'b Bystanders);

impl AsFd for PanicsAtStart<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        aio::single(Nop::new()).unwrap();
        self.0.open();
        std::panic::panic_any("as_fd")
    }
}

/// Panics when the operation on it is finished.
struct PanicsAtEnd<'b>(File, &'b Bystanders);

impl AsFd for PanicsAtEnd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for PanicsAtEnd<'_> {
    fn drop(&mut self) {
        self.1.open();
        std::panic::panic_any("drop");
    }
}

/// Runs what is to panic. The panics carry no message, so that the hook's output is short.
#[track_caller]
fn panics<T>(body: impl FnOnce() -> T) {
    assert!(catch_unwind(AssertUnwindSafe(body)).is_err(), "the panic has to arrive here");
}

#[test]
fn a_panic_after_a_close_was_submitted_does_not_close_the_number_twice() {
    in_own_process("a_panic_after_a_close_was_submitted_does_not_close_the_number_twice", || {
        each_engine(|engine| {
            let (file, bystanders, mut buf) = (a_file(), Bystanders::default(), [0u8; 4]);
            let number = file.as_raw_fd();
            let read = Read::new(PanicsAtStart(&bystanders), &mut buf);
            panics(|| aio::complete((Close::new(file), Nop::new(), read)));
            bystanders.assert_one_has(number);
            bystanders.assert_all_open(engine.name);
        });
    });
}

#[test]
fn a_panic_after_the_close_of_a_closing_was_submitted_leaves_it_empty() {
    in_own_process("a_panic_after_the_close_of_a_closing_was_submitted_leaves_it_empty", || {
        each_engine(|engine| {
            let (closing, bystanders, mut buf) = (Closing::new(a_file()), Bystanders::default(), [0u8; 4]);
            let read = Read::new(PanicsAtStart(&bystanders), &mut buf);
            panics(|| aio::complete((Close::new(&closing), read)));
            // As a number, for dropping the descriptor would close a bystander.
            let left = closing.into_inner().map(IntoRawFd::into_raw_fd);
            assert_eq!(left, None, "{}: a closed descriptor is given out", engine.name);
            bystanders.assert_all_open(engine.name);
        });
    });
}

#[test]
fn a_panic_while_results_are_taken_does_not_close_again_what_a_close_has_closed() {
    in_own_process("a_panic_while_results_are_taken_does_not_close_again_what_a_close_has_closed", || {
        each_engine(|engine| {
            let (file, bystanders, mut buf) = (a_file(), Bystanders::default(), [0u8; 4]);
            let number = file.as_raw_fd();
            let read = Read::new(PanicsAtEnd(a_file(), &bystanders), &mut buf);
            panics(|| aio::complete((read, Close::new(file))));
            bystanders.assert_one_has(number);
            bystanders.assert_all_open(engine.name);
        });
    });
}

/// A file whose `as_fd` panics, once, when it is told to.
struct PanicsOnce<'f>(&'f File, Cell<bool>);

impl AsFd for PanicsOnce<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.1.take() {
            std::panic::panic_any("once");
        }
        self.0.as_fd()
    }
}

#[test]
fn jobs_that_run_again_after_a_panic_do_not_close_again() {
    in_own_process("jobs_that_run_again_after_a_panic_do_not_close_again", || {
        each_engine(|engine| {
            let (file, x, y) = (a_file(), a_file(), a_file());
            let numbers = [x.as_raw_fd(), y.as_raw_fd()];
            let (mut a, mut b) = ([0u8; 4], [0u8; 4]);
            let job = |closed, panics, buf| {
                Job::new((Close::new(closed), Read::new(PanicsOnce(&file, Cell::new(panics)), buf)))
            };
            let mut jobs = [job(x, false, &mut a), job(y, true, &mut b)];
            panics(|| aio::complete(&mut jobs[..]));
            let bystanders = Bystanders::default();
            bystanders.open();
            numbers.iter().for_each(|&number| bystanders.assert_one_has(number));
            let again = aio::complete(&mut jobs[..]).map(drop);
            assert_eq!(again, Err(SetupError::EmptyBatch), "{}: they were given away, and run once", engine.name);
            drop(jobs);
            bystanders.assert_all_open(engine.name);
        });
    });
}

#[test]
fn a_panic_leaks_nothing_that_the_batch_has_opened() {
    in_own_process("a_panic_leaks_nothing_that_the_batch_has_opened", || {
        each_engine(|_| {
            leaks_no_descriptor(|| {
                let (bystanders, mut buf) = (Bystanders::default(), [0u8; 4]);
                let read = Read::new(PanicsAtStart(&bystanders), &mut buf);
                let socket = Socket::new(Domain::V4, SocketType::Stream);
                panics(|| aio::complete((OpenAt::new("Cargo.toml"), socket, read)));
            });
        });
    });
}

#[test]
fn a_panic_leaks_nothing_that_was_to_be_closed_by_an_unfinished_chain() {
    in_own_process("a_panic_leaks_nothing_that_was_to_be_closed_by_an_unfinished_chain", || {
        each_engine(|_| {
            leaks_no_descriptor(|| {
                let (closing, opening) = (Closing::new(a_file()), Closing::opening());
                let (bystanders, mut x, mut y) = (Bystanders::default(), [0u8; 4], [0u8; 4]);
                let read = |buf| Read::new(PanicsAtStart(&bystanders), buf);
                panics(|| aio::complete((Close::new(a_file()).link(), Close::new(&closing).link(), read(&mut x))));
                let open = OpenAt::new("Cargo.toml").open_into(&opening);
                panics(|| aio::complete((open.link(), Close::new(&opening).link(), read(&mut y))));
            });
        });
    });
}

#[test]
fn a_panic_leaks_nothing_that_a_skipped_close_was_to_close() {
    in_own_process("a_panic_leaks_nothing_that_a_skipped_close_was_to_close", || {
        each_engine(|_| {
            leaks_no_descriptor(|| {
                let opening = Closing::opening();
                let (bystanders, mut buf) = (Bystanders::default(), [0u8; 4]);
                let fails = || OpenAt::new("no such file").link();
                let read = Read::new(PanicsAtStart(&bystanders), &mut buf);
                panics(|| {
                    let given = (fails(), Close::new(a_file()));
                    let open = OpenAt::new("Cargo.toml").open_into(&opening).link();
                    aio::complete((given, (open, fails(), Close::new(&opening)), read))
                });
            });
        });
    });
}

#[test]
fn what_takes_a_closed_number_is_not_closed_with_it() {
    in_own_process("what_takes_a_closed_number_is_not_closed_with_it", || {
        each_engine(|engine| {
            let file = a_file();
            let number = file.as_raw_fd();
            let ((), opened) = aio::multi((Close::new(file).link(), OpenAt::new("Cargo.toml"))).unwrap();
            assert_eq!(opened.as_raw_fd(), number, "{}: the lowest number that is free", engine.name);
            assert!(File::from(opened).metadata().unwrap().is_file(), "{}", engine.name);
        });
    });
}
