//! A `Closing` that is used wrongly is refused, and nobody else's descriptor is read or closed for it.

mod common;

use aio::{Closing, Error, op::*};
use common::{each_engine, in_own_process, leaks_no_descriptor, os, write_only};
use std::{
    cell::RefCell,
    fs::{self, File},
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    time::Duration,
};

fn invalid<T>(result: &aio::Result<T>) -> bool {
    matches!(result, Err(Error::Invalid(_)))
}

/// Files that have nothing to do with the batch, and are opened just when their numbers may be those of closed ones.
fn open_bystanders(files: &RefCell<Vec<File>>) {
    files.borrow_mut().extend((0..3).map(|_| common::file_with(b"bystander")));
}

#[track_caller]
fn assert_all_open(files: RefCell<Vec<File>>, when: &str) {
    common::assert_all_open(files.into_inner(), when);
}

/// A directory with files that are named by numbers and contain their number, four times.
fn numbered_files(count: u8) -> (tempfile::TempDir, impl Fn(u8) -> PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let path = move |i: u8| path.join(i.to_string());
    (0..count).for_each(|i| fs::write(path(i), [i; 4]).unwrap());
    (dir, path)
}

#[test]
fn a_refused_second_close_does_not_make_a_third_one_possible() {
    in_own_process("a_refused_second_close_does_not_make_a_third_one_possible", || {
        each_engine(|engine| {
            let (closing, bystanders) = (Closing::new(File::open("Cargo.toml").unwrap()), RefCell::default());
            // The first close waits while the second is refused and the third is asked for.
            let units = [20, 0, 0].map(|ms| (Timeout::after(Duration::from_millis(ms)).link(), Close::new(&closing)));
            let mut closed = [const { None }; 3];
            let each = |i: usize, (waited, result)| {
                assert_eq!(waited, Ok(()));
                closed[i] = Some(result);
                if i == 2 {
                    open_bystanders(&bystanders);
                }
            };
            assert_eq!(aio::complete(aio::windowed(units, 2).for_each(each)).unwrap().errors, 2, "{}", engine.name);
            let [first, second, third] = closed.map(Option::unwrap);
            assert_eq!(first, Ok(()), "{}", engine.name);
            assert!(invalid(&second) && invalid(&third), "{}: {second:?}, {third:?}", engine.name);
            assert_all_open(bystanders, engine.name);
            assert!(closing.into_inner().is_none(), "{}: it is closed", engine.name);
        });
    });
}

/// A file that runs something when an operation on it starts.
struct RunsAtStart<F: Fn()>(File, F);

impl<F: Fn()> AsFd for RunsAtStart<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (self.1)();
        self.0.as_fd()
    }
}

#[test]
fn a_close_in_a_batch_within_a_batch_is_of_another_chain() {
    each_engine(|engine| {
        let (closing, within) = (Closing::new(common::file_with(b"content")), RefCell::new(vec![]));
        let (mut x, mut y) = ([0u8; 4], [0u8; 4]);
        let file = RunsAtStart(common::file_with(b"another"), || {
            within.borrow_mut().push(aio::single(Close::new(&closing)));
        });
        let chain =
            (Read::new(&closing, &mut x).at(0).link(), Read::new(&file, &mut y).at(0).link(), Close::new(&closing));
        assert_eq!(aio::multi(chain), Ok((4, 4, ())), "{}", engine.name);
        assert!(!within.borrow().is_empty() && within.borrow().iter().all(invalid), "{}", engine.name);
        assert_eq!((&x, &y), (b"cont", b"anot"));
    });
}

/// A file that opens bystanders when the operation on it is finished.
struct OpensAtEnd<'b>(File, &'b RefCell<Vec<File>>);

impl AsFd for OpensAtEnd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for OpensAtEnd<'_> {
    fn drop(&mut self) {
        open_bystanders(self.1);
    }
}

#[test]
fn a_chain_that_opens_into_two_closings_is_refused_at_the_second_and_closes_the_first_once() {
    in_own_process("a_chain_that_opens_into_two_closings_is_refused_at_the_second_and_closes_the_first_once", || {
        each_engine(|engine| {
            let (a, b, bystanders, mut buf) = (Closing::opening(), Closing::opening(), RefCell::default(), [0u8; 4]);
            // Dropped after the first close: whoever is opened then may have the number that was closed.
            let other = OpensAtEnd(File::open("Cargo.toml").unwrap(), &bystanders);
            let done = aio::complete((
                OpenAt::new("Cargo.toml").open_into(&a).link(),
                Close::new(&a).link(),
                Read::new(other, &mut buf).hard_link(),
                OpenAt::new("no such file").open_into(&b).link(),
                Close::new(&b),
            ));
            let (open, close, read, second_open, second_close) = done.unwrap().results;
            assert_eq!((open, close, read), (Ok(()), Ok(()), Ok(4)), "{}", engine.name);
            assert!(invalid(&second_open), "{}: {second_open:?}", engine.name);
            assert_eq!(second_close, Err(Error::Skipped), "{}", engine.name);
            assert_all_open(bystanders, engine.name);
        });
    });
}

#[test]
fn refused_second_openings_do_not_mix_up_later_chains() {
    each_engine(|engine| {
        let (_dir, path) = numbered_files(8);
        // If each of these gave back the first one's place twice, two chains below would get the same one.
        for _ in 0..4 {
            let (a, b) = (Closing::opening(), Closing::opening());
            let open = |closing| OpenAt::new("Cargo.toml").open_into(closing);
            let done =
                aio::complete((open(&a).link(), Close::new(&a).link(), open(&b).link(), Close::new(&b))).unwrap();
            assert!(invalid(&done.results.2), "{}: {done:?}", engine.name);
        }
        let closings: Vec<_> = (0..8).map(|_| Closing::opening()).collect();
        let mut buffers = vec![[99u8; 4]; 8];
        // They wait between opening and reading, so that all are open at once.
        let chains = (0..).zip(closings.iter().zip(&mut buffers)).map(|(i, (closing, buf))| {
            let open = OpenAt::new(path(i)).open_into(closing);
            let wait = Timeout::after(Duration::from_millis(3));
            (open.link(), wait.link(), Read::new(closing, buf).hard_link(), Close::new(closing))
        });
        let done = aio::complete(chains.collect::<Vec<_>>()).unwrap();
        assert_eq!(done.errors, 0, "{}: {done:?}", engine.name);
        let expected: Vec<_> = (0..8).map(|i| [i; 4]).collect();
        assert_eq!(buffers, expected, "{}: a chain has read another one's file", engine.name);
    });
}

#[test]
fn openings_that_overlap_in_one_chain_read_no_file_but_their_own() {
    in_own_process("openings_that_overlap_in_one_chain_read_no_file_but_their_own", || {
        each_engine(|engine| {
            let (_dir, path) = numbered_files(2);
            leaks_no_descriptor(|| {
                let (a, b, mut x, mut y) = (Closing::opening(), Closing::opening(), [9u8; 4], [9u8; 4]);
                let done = aio::complete((
                    OpenAt::new(path(0)).open_into(&a).link(),
                    OpenAt::new(path(1)).open_into(&b).link(),
                    Read::new(&a, &mut x).at(0).link(),
                    Read::new(&b, &mut y).at(0).hard_link(),
                    Close::new(&a).hard_link(),
                    Close::new(&b),
                ));
                let done = done.unwrap();
                assert!(invalid(&done.results.1), "{}: {done:?}", engine.name);
                assert!(done.results.2.is_err() && done.results.3.is_err(), "{}: {done:?}", engine.name);
                assert_eq!((x, y), ([9; 4], [9; 4]), "{}: something was read", engine.name);
            });
        });
    });
}

/// An opening whose chain was lowered, and broke before the file was opened. It never had a `Close` either.
fn skipped_opening() -> Closing {
    let (closing, unreadable, mut buf) = (Closing::opening(), write_only(), [0u8; 1]);
    let open = OpenAt::new("Cargo.toml").open_into(&closing);
    let done = aio::complete((Read::new(&unreadable, &mut buf).link(), open.link(), Nop::new())).unwrap();
    assert_eq!(done.results, (os(libc::EBADF), Err(Error::Skipped), Err(Error::Skipped)));
    closing
}

#[test]
fn an_opening_that_was_skipped_does_not_name_what_another_chain_opens() {
    each_engine(|engine| {
        let (skipped, opened, mut buf) = (skipped_opening(), Closing::opening(), [9u8; 4]);
        let open = OpenAt::new("Cargo.toml").open_into(&opened);
        let done = aio::complete((open.link(), Read::new(&skipped, &mut buf).hard_link(), Close::new(&opened)));
        let (_, read, _) = done.unwrap().results;
        assert!(invalid(&read), "{}: {read:?}", engine.name);
        assert_eq!(buf, [9; 4], "{}: read from a file that it does not name", engine.name);
    });
}

#[test]
fn an_opening_that_was_skipped_is_refused_on_another_thread_too() {
    each_engine(|engine| {
        let config = engine.config;
        // Both threads are new: their engines, and the numbers of their chains, begin alike.
        let closing = std::thread::spawn(move || config.run(skipped_opening).unwrap()).join().unwrap();
        let read = std::thread::spawn(move || {
            let mut buf = [0u8; 6];
            config.run(|| aio::single(Read::new(&closing, &mut buf).at(0))).unwrap()
        });
        let read = read.join().unwrap();
        assert!(invalid(&read), "{}: {read:?}", engine.name);
    });
}

#[test]
fn an_opening_after_a_refused_close_is_closed_even_if_its_own_close_is_skipped() {
    in_own_process("an_opening_after_a_refused_close_is_closed_even_if_its_own_close_is_skipped", || {
        each_engine(|engine| {
            leaks_no_descriptor(|| {
                let (closing, mut too_long) = (Closing::opening(), vec![0u8; 1 << 20]);
                let done = aio::complete((
                    Close::new(&closing),
                    OpenAt::new("Cargo.toml").open_into(&closing).link(),
                    Read::new(&closing, &mut too_long[..]).link(),
                    Close::new(&closing),
                ));
                let (refused, open, read, close) = done.unwrap().results;
                assert!(invalid(&refused), "{}: {refused:?}", engine.name);
                assert!(open.is_ok() && read.is_ok(), "{}: {open:?}, {read:?}", engine.name);
                assert_eq!(close, Err(Error::Skipped), "{}: the short read breaks the chain", engine.name);
            });
        });
    });
}
