//! Forked processes.

mod common;

use aio::{Backend, Config, SetupError, op::*, windowed};
use common::{Forked, each_backend, each_engine, file_with, fork, in_own_process, pipe};
use std::{
    cell::Cell,
    fs::File,
    io::{PipeWriter, Read as _},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// A bit of everything, so that rings, selectors and workers are all used.
fn works() {
    let (file, (a, b), mut x, mut y) = (file_with(b"abc"), UnixStream::pair().unwrap(), [0u8; 3], [0u8; 2]);
    let done = aio::multi((
        (Read::new(&file, &mut x).at(0), Fsync::new(&file), OpenAt::new("Cargo.toml")),
        Recv::new(&a, &mut y),
        (Timeout::after(Duration::from_millis(1)).link(), Send::new(&b, b"hi")),
    ));
    assert!(done.is_ok(), "{done:?}");
    assert_eq!((&x, &y), (b"abc", b"hi"));
}

#[test]
fn a_child_has_an_engine_of_its_own_and_the_parent_keeps_its() {
    in_own_process("a_child_has_an_engine_of_its_own_and_the_parent_keeps_its", || {
        each_backend(|backend| {
            works();
            let before = aio::stats();
            let child = fork(|| {
                assert_eq!(aio::stats().backend, None, "none until the first use");
                works();
                assert_eq!(aio::stats().backend, Some(backend), "made like its parent's");
                works();
            });
            works();
            assert_eq!(child.wait(), 0);
            works();
            assert!((aio::stats() - before).system_calls() > 0, "still the same engine");
        });
    });
}

#[test]
fn a_child_of_the_threads_default_engine_and_its_child() {
    in_own_process("a_child_of_the_threads_default_engine_and_its_child", || {
        works();
        let child = fork(|| {
            works();
            let grandchild = fork(works);
            works();
            assert_eq!(grandchild.wait(), 0);
        });
        works();
        assert_eq!(child.wait(), 0);
    });
}

#[test]
fn a_child_that_exits_does_not_disturb_the_parents_operations() {
    in_own_process("a_child_that_exits_does_not_disturb_the_parents_operations", || {
        each_backend(|_| {
            let ((output, input), mut buf) = (pipe(), [0u8; 4]);
            aio::single(Nop::new()).unwrap();
            // Forks while another thread's operation is in flight; the child ends with and without using the library.
            std::thread::scope(|s| {
                let (output, buf) = (&output, &mut buf);
                let reader = s.spawn(move || aio::single(Read::new(output, buf)));
                std::thread::sleep(Duration::from_millis(5));
                assert_eq!(fork(|| ()).wait(), 0);
                assert_eq!(fork(works).wait(), 0);
                assert_eq!(aio::single(Write::new(&input, b"late")), Ok(4));
                assert_eq!(reader.join().unwrap(), Ok(4));
            });
            works();
        });
    });
}

#[test]
fn a_fork_inside_a_window_is_an_error_in_the_child_and_nothing_in_the_parent() {
    in_own_process("a_fork_inside_a_window_is_an_error_in_the_child_and_nothing_in_the_parent", || {
        each_backend(|_| {
            let ((output, input), child) = (pipe(), Cell::new(None));
            let parent = std::process::id();
            let units = (0..4).map(|i| {
                if i == 2 {
                    // SAFETY: the child goes on with this test's code, as a program's would; it ends below.
                    match unsafe { libc::fork() } {
                        0 => {}
                        pid => child.set(Some(pid)),
                    }
                }
                if i == 3 {
                    assert_eq!(std::process::id(), parent, "the child is asked for nothing more");
                    assert_eq!(aio::single(Write::new(&input, b"abcd")), Ok(4));
                }
                Read::new(&output, vec![0u8; 1])
            });
            let done = aio::complete(windowed(units, 8));
            let Some(child) = child.get() else {
                let as_expected = done.map(|_| ()) == Err(SetupError::Forked) && aio::single(Nop::new()) == Ok(());
                // SAFETY: ends the child, without what belongs to the parent.
                unsafe { libc::_exit(i32::from(!as_expected)) }
            };
            assert_eq!(done.unwrap().errors, 0);
            let mut status = 0;
            // SAFETY: the status is a local.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "exit code or signal of the child");
            works();
        });
    });
}

#[test]
fn a_configured_scope_can_be_left_in_the_child() {
    in_own_process("a_configured_scope_can_be_left_in_the_child", || {
        each_backend(|backend| {
            let mut child = None;
            Config::new()
                .backend(backend)
                .run(|| {
                    works();
                    child = Some(fork(|| {
                        let inner = Config::new().backend(backend).run(works);
                        assert!(inner.is_ok());
                        works();
                    }));
                    works();
                })
                .unwrap();
            assert_eq!(child.unwrap().wait(), 0);
        });
    });
}

#[test]
fn a_child_that_returns_from_its_parents_scope() {
    in_own_process("a_child_that_returns_from_its_parents_scope", || {
        each_backend(|backend| {
            let pid = Config::new().backend(backend).run(|| {
                works();
                // SAFETY: the child goes on with this test's code and ends below.
                let pid = unsafe { libc::fork() };
                works();
                pid
            });
            works();
            let pid = pid.unwrap();
            if pid == 0 {
                // SAFETY: ends the child, without what belongs to the parent.
                unsafe { libc::_exit(0) }
            }
            let mut status = 0;
            // SAFETY: the status is a local.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "exit code or signal of the child");
        });
    });
}

/// Forks in the middle of user code that a batch calls: the child goes on with it, as a program's would, and the caller
/// ends it. The child is 0.
fn fork_here() -> libc::pid_t {
    // SAFETY: the child goes on with the test's code and ends in it; should it hang instead, the alarm ends it.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            libc::alarm(10);
        }
        pid
    }
}

#[test]
fn a_fork_in_the_last_call_of_an_iterator_does_not_let_the_child_wait() {
    in_own_process("a_fork_in_the_last_call_of_an_iterator_does_not_let_the_child_wait", || {
        each_engine(|engine| {
            let ((output, input), mut buf, mut child) = (pipe(), [0u8; 4], None);
            let mut read = Some(Read::new(&output, &mut buf));
            // The iterator ends while the read is in flight, in both processes.
            let units = std::iter::from_fn(|| {
                if let Some(read) = read.take() {
                    return Some(read);
                }
                if child.is_none() {
                    let pid = fork_here();
                    // The parent goes on when the child has ended, so that it cannot take the parent's bytes.
                    child = Some(if pid == 0 { None } else { Some(Forked(pid).wait()) });
                    if pid != 0 {
                        assert_eq!(aio::single(Write::new(&input, b"late")), Ok(4));
                    }
                }
                None
            });
            let done = aio::complete(windowed(units, 2));
            let Some(status) = child.expect("the iterator was asked to its end") else {
                let as_expected = done.map(|_| ()) == Err(SetupError::Forked);
                // SAFETY: ends the child, without what belongs to the parent.
                unsafe { libc::_exit(i32::from(!as_expected)) }
            };
            assert_eq!(status, 0, "{}: exit code or signal of the child", engine.name);
            assert_eq!(done.unwrap().results, [Ok(4)], "{}: the parent's read goes on", engine.name);
        });
    });
}

/// A file whose `as_fd` forks; the child's standard error is a pipe.
struct ForksAtStart<'f>(&'f File, &'f Cell<Option<libc::pid_t>>, &'f PipeWriter);

impl AsFd for ForksAtStart<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let pid = fork_here();
        if pid == 0 {
            // SAFETY: both are open, and what standard error was before is not needed in the child.
            unsafe { libc::dup2(self.2.as_raw_fd(), libc::STDERR_FILENO) };
        }
        self.1.set(Some(pid));
        self.0.as_fd()
    }
}

#[test]
fn a_fork_in_as_fd_aborts_the_child_and_is_nothing_to_the_parent() {
    in_own_process("a_fork_in_as_fd_aborts_the_child_and_is_nothing_to_the_parent", || {
        each_engine(|engine| {
            let (file, forked, (mut output, input)) = (file_with(b"abcd"), Cell::new(None), std::io::pipe().unwrap());
            let (mut x, mut y) = ([0u8; 4], [0u8; 4]);
            let done = aio::complete((
                Read::new(&file, &mut x).at(0),
                Read::new(ForksAtStart(&file, &forked, &input), &mut y).at(0),
            ));
            let child = forked.get().expect("as_fd was called");
            if child == 0 {
                // SAFETY: ends the child, without what belongs to the parent.
                unsafe { libc::_exit(7) }
            }
            assert_eq!(Forked(child).wait(), 128 + libc::SIGABRT, "{}: the child is to be aborted", engine.name);
            drop(input);
            let mut message = String::new();
            output.read_to_string(&mut message).unwrap();
            assert!(message.contains("AsFd"), "{}: the message does not say why: {message:?}", engine.name);
            assert_eq!(done.unwrap().results, (Ok(4), Ok(4)), "{}", engine.name);
            assert_eq!((&x, &y), (b"abcd", b"abcd"), "{}", engine.name);
            works();
        });
    });
}

#[test]
fn a_fork_in_as_fd_that_panics_in_the_child_is_not_drained_there() {
    struct ForksAndPanics<'f>(&'f File, &'f Cell<i32>);
    impl AsFd for ForksAndPanics<'_> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: the child runs nothing but the library's way out, which aborts it; the alarm ends it if that
            // hangs.
            self.1.set(unsafe { libc::fork() });
            if self.1.get() == 0 {
                // SAFETY: as above.
                unsafe { libc::alarm(5) };
                panic!("in the child only");
            }
            self.0.as_fd()
        }
    }
    in_own_process("a_fork_in_as_fd_that_panics_in_the_child_is_not_drained_there", || {
        each_engine(|engine| {
            let (file, child, (output, input)) = (file_with(b"abcd"), Cell::new(-1), common::pipe());
            let (mut x, mut y) = ([0u8; 4], [0u8; 4]);
            // The first read is in flight when the child unwinds.
            let done = aio::complete((
                Read::new(&output, &mut x),
                Read::new(ForksAndPanics(&file, &child), &mut y).at(0),
                Write::new(&input, b"over"),
            ));
            assert_eq!(Forked(child.get()).wait(), 128 + libc::SIGABRT, "{}: the child is to be aborted", engine.name);
            assert_eq!(done.unwrap().results, (Ok(4), Ok(4), Ok(4)), "{}", engine.name);
        });
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_child_does_not_get_the_rings_memory() {
    each_backend(|backend| {
        if backend != Backend::IoUring {
            return;
        }
        aio::single(Nop::new()).unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut is_ring, mut rings) = (false, 0);
        for line in smaps.lines() {
            match line.split_once(": ") {
                // The kernel's name for a mapping that fork does not copy.
                Some(("VmFlags", flags)) if is_ring => {
                    assert!(flags.split(' ').any(|flag| flag == "dc"), "{flags}");
                    rings += 1;
                }
                Some((name, _)) if !name.contains(' ') => {}
                _ => is_ring = line.contains("[io_uring]"),
            }
        }
        assert!(rings >= 2, "entries and completions are mapped\n{smaps}");
    });
}
