//! More attacks on the tasks and the engines below them: waits that must not wait for each other.

mod common;

use aio::{complete, coro, op::*};
use common::*;
use std::{
    cell::Cell,
    ffi::CString,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn an_arm_is_not_kept_waiting_by_the_batch_of_another_task() {
    each_runtime(|| {
        let ((a, a_peer), (b, b_peer)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let (c, c_peer) = UnixStream::pair().unwrap();
        let task = coro::spawn(move || {
            let (mut x, mut y) = ([0; 4], [0; 4]);
            let (x, y) = complete((Recv::new(&a, &mut x), Recv::new(&b, &mut y))).unwrap().results;
            (x.unwrap(), y.unwrap())
        });
        let thread = thread::spawn(move || {
            thread::sleep(SHORT);
            (&c_peer).write_all(b"go").unwrap();
        });
        let mut buffer = [0; 4];
        let (go, never) = coro::select((Recv::new(&c, &mut buffer), Timeout::after(NEVER))).unwrap();
        assert_eq!((go, never), (Some(Ok(2)), None));
        // Only now can the batch end.
        (&a_peer).write_all(b"x").unwrap();
        (&b_peer).write_all(b"xy").unwrap();
        assert_eq!(task.join().unwrap(), (1, 2));
        thread.join().unwrap();
    });
}

#[test]
fn what_has_to_be_tried_again_is_not_kept_waiting_by_its_batch() {
    each_runtime(|| {
        let (socket, peer) = UnixStream::pair().unwrap();
        let echo = thread::spawn(move || {
            let mut byte = [0];
            (&peer).read_exact(&mut byte).unwrap();
            (&peer).write_all(&byte).unwrap();
        });
        // A socket has no offset, which the ring does not overlook.
        let mut answer = [0; 4];
        let batch = (Write::new(&socket, b"x").at(5), Recv::new(&socket, &mut answer));
        assert_eq!(complete(batch).unwrap().results, (Ok(1), Ok(1)));
        echo.join().unwrap();
    });
}

#[test]
fn the_writing_end_of_a_fifo_is_not_kept_waiting_by_its_batch() {
    each_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the name ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let (socket, peer) = UnixStream::pair().unwrap();
        let other_end = path.clone();
        let reader = thread::spawn(move || {
            thread::sleep(SHORT);
            let _file = File::open(other_end).unwrap();
            (&peer).write_all(b"x").unwrap();
        });
        let mut answer = [0; 4];
        let open = OpenAt::new(path.as_path()).flags(OpenFlags::WRITE_ONLY);
        let (file, news) = complete((open, Recv::new(&socket, &mut answer))).unwrap().results;
        assert!(file.is_ok());
        assert_eq!(news, Ok(1));
        reader.join().unwrap();
    });
}

#[test]
fn a_chain_tries_again_before_it_goes_on() {
    each_runtime(|| {
        let (socket, peer) = UnixStream::pair().unwrap();
        let echo = thread::spawn(move || {
            let mut byte = [0];
            (&peer).read_exact(&mut byte).unwrap();
            (&peer).write_all(&byte).unwrap();
        });
        let mut answer = [0; 4];
        let batch = (Write::new(&socket, b"x").at(5).hard_link(), Recv::new(&socket, &mut answer));
        assert_eq!(complete(batch).unwrap().results, (Ok(1), Ok(1)));
        echo.join().unwrap();
    });
}

#[test]
fn what_was_sent_at_an_offset_comes_before_the_end() {
    each_runtime(|| {
        let (socket, peer) = UnixStream::pair().unwrap();
        let batch = (Write::new(&socket, b"x").at(5).hard_link(), Shutdown::new(&socket, std::net::Shutdown::Write));
        assert_eq!(complete(batch).unwrap().results, (Ok(1), Ok(())));
        let mut all = Vec::new();
        (&peer).read_to_end(&mut all).unwrap();
        assert_eq!(all, b"x");
    });
}

#[test]
fn timers_fire_in_the_midst_of_many_letters() {
    const MANY: usize = 100_000;
    each_runtime(|| {
        let done = Arc::new(AtomicUsize::new(0));
        let remote = coro::remote().unwrap();
        let count = done.clone();
        let sender = thread::spawn(move || {
            for _ in 0..MANY {
                let count = count.clone();
                drop(remote.spawn(move || count.fetch_add(1, Ordering::Relaxed)).unwrap());
            }
        });
        // Blocks the runtime, so that all of them are there.
        sender.join().unwrap();
        coro::sleep(Duration::from_millis(1)).unwrap();
        assert!(done.load(Ordering::Relaxed) < MANY, "the timer was looked at when all others had ended");
    });
}

#[test]
fn who_is_lucky_in_every_select_lets_others_run() {
    each_runtime(|| {
        let ran = Rc::new(Cell::new(false));
        let flag = ran.clone();
        let other = coro::Builder::new().later().spawn(move || flag.set(true)).unwrap();
        let mut rounds = 0;
        while !ran.get() {
            assert_eq!(coro::select((Nop::new(), Timeout::after(NEVER))), Ok((Some(Ok(())), None)));
            rounds += 1;
            assert!(rounds < 1000, "nobody else ever runs");
        }
        other.join().unwrap();
    });
}
