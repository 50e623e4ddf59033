//! Forked processes.

mod common;

use aio::{Config, SetupError, op::*, windowed};
use common::{each_backend, file_with, fork, in_own_process, pipe};
use std::{cell::Cell, os::unix::net::UnixStream, time::Duration};

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
