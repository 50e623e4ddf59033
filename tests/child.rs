//! Waiting for child processes.

mod common;

use aio::{Error, op::*};
use common::{each_engine, pipe};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

const SOON: Duration = Duration::from_millis(10);

fn shell(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).spawn().unwrap()
}

/// Runs until its standard input ends, which it does when the `Child` is asked to.
fn waiting(script: &str) -> Child {
    Command::new("sh").args(["-c", &format!("read x; {script}")]).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_exit_code_is_told() {
    each_engine(|_| {
        for code in [0, 1, 69, 255] {
            assert_eq!(aio::single(ChildExit::new(&mut shell(&format!("exit {code}")))), Ok(Exit::Exited(code)));
        }
    });
}

#[test]
fn the_signal_is_told() {
    each_engine(|_| {
        let mut child = waiting("");
        child.kill().unwrap();
        assert_eq!(aio::single(ChildExit::new(&mut child)), Ok(Exit::Signaled(libc::SIGKILL)));
        assert_eq!(aio::single(ChildExit::new(&mut shell("kill -TERM $$"))), Ok(Exit::Signaled(libc::SIGTERM)));
    });
}

#[test]
fn a_child_that_is_dead_already_is_reported() {
    each_engine(|_| {
        let ((output, input), mut buf) = (pipe(), [0u8; 1]);
        let mut child = Command::new("sh").args(["-c", "exit 7"]).stdout(input).spawn().unwrap();
        // The end of its output means that it has exited, though not that it can be waited for; hence both ways.
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(0));
        std::thread::sleep(SOON);
        assert_eq!(aio::single(ChildExit::new(&mut child)), Ok(Exit::Exited(7)));
    });
}

#[test]
fn a_child_that_was_waited_for_is_reported_again() {
    each_engine(|_| {
        let mut child = shell("exit 3");
        child.wait().unwrap();
        assert_eq!(aio::single(ChildExit::new(&mut child)), Ok(Exit::Exited(3)));
        assert_eq!(aio::single(ChildExit::new(&mut child)), Ok(Exit::Exited(3)));
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn a_timeout_leaves_the_child_as_it_was() {
    each_engine(|_| {
        let mut child = waiting("exit 5");
        assert_eq!(aio::single(ChildExit::new(&mut child).timeout(SOON)), Err(Error::TimedOut));
        assert!(child.try_wait().unwrap().is_none());
        drop(child.stdin.take());
        assert_eq!(aio::single(ChildExit::new(&mut child)), Ok(Exit::Exited(5)));
    });
}

#[test]
fn several_children_and_other_operations_at_once() {
    each_engine(|_| {
        let (mut a, mut b) = (waiting("exit 1"), waiting("kill -9 $$"));
        let (stdin_a, stdin_b) = (a.stdin.take().unwrap(), b.stdin.take().unwrap());
        let done = aio::multi((
            (ChildExit::new(&mut a), ChildExit::new(&mut b)),
            (Timeout::after(SOON).link(), Close::new(stdin_b).link(), Timeout::after(SOON).link(), Close::new(stdin_a)),
        ));
        assert_eq!(done.unwrap().0, (Exit::Exited(1), Exit::Signaled(9)));
    });
}

#[test]
fn a_child_in_a_chain() {
    each_engine(|_| {
        let mut child = waiting("exit 0");
        let stdin = child.stdin.take().unwrap();
        let chain = (Close::new(stdin).link(), ChildExit::new(&mut child).link(), Nop::new());
        assert_eq!(aio::multi(chain), Ok(((), Exit::Exited(0), ())));
    });
}
