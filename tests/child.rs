//! Waiting for child processes.

mod common;

use aio::{Backend, Error, Queue, Service, coro, op::*};
use common::{Engine, each_engine, in_own_process, pipe, runtime};
use std::{
    os::unix::process::CommandExt,
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

/// Whether the engine has `WaitId`. Old rings have not, and say so.
fn waits_by_number(engine: &Engine) -> bool {
    let none = aio::single(WaitId::new(Who::Pid(1)));
    match none {
        Err(Error::Unsupported(_)) => {
            let row = Backend::probe().operation("WaitId").unwrap();
            assert_eq!(engine.backend, Backend::IoUring);
            assert!(engine.name != "io_uring" || row.io_uring == Some(Service::Unsupported));
            false
        }
        other => {
            assert_eq!(other.map(|_| ()), common::os(libc::ECHILD), "the first process is no child of ours");
            true
        }
    }
}

#[track_caller]
fn each_that_waits_by_number(test: impl Fn()) {
    each_engine(|engine| {
        if waits_by_number(engine) {
            test();
        }
    });
}

#[test]
#[allow(clippy::zombie_processes)]
fn children_are_waited_for_by_number_and_by_group() {
    each_that_waits_by_number(|| {
        let child = shell("exit 7");
        let wait = || WaitId::new(Who::Pid(child.id()));
        let left = aio::single(wait().leave()).unwrap();
        assert_eq!((left.pid, left.state), (child.id(), ChildState::Exited(7)));
        assert_eq!(aio::single(wait()), Ok(left), "it was left as it was");
        assert_eq!(aio::single(wait()).map(drop), common::os(libc::ECHILD), "it was taken");
        let child = Command::new("sh").args(["-c", "kill -TERM $$"]).process_group(0).spawn().unwrap();
        let waited = loop {
            match aio::single(WaitId::new(Who::Group(child.id()))) {
                // Where `spawn` does not wait for the child to be executed, it gets its group a moment later.
                Err(Error::Os(errno)) if errno.raw() == libc::ECHILD => std::thread::sleep(SOON),
                waited => break waited.unwrap(),
            }
        };
        assert_eq!((waited.pid, waited.state), (child.id(), ChildState::Signaled(libc::SIGTERM)));
        // SAFETY: takes nothing.
        assert_eq!(waited.uid, unsafe { libc::getuid() });
    });
}

#[test]
#[allow(clippy::zombie_processes)]
fn a_child_that_stops_and_goes_on_is_told_of() {
    each_that_waits_by_number(|| {
        let mut child = waiting("exit 3");
        let id = child.id();
        let signal = |number| {
            // SAFETY: takes numbers only; the child has not been waited for.
            assert_eq!(unsafe { libc::kill(id as libc::pid_t, number) }, 0);
        };
        let wait = || WaitId::new(Who::Pid(id)).or_stopped().or_continued();
        signal(libc::SIGSTOP);
        assert_eq!(aio::single(wait()).unwrap().state, ChildState::Stopped(libc::SIGSTOP));
        signal(libc::SIGCONT);
        assert_eq!(aio::single(wait()).unwrap().state, ChildState::Continued);
        drop(child.stdin.take());
        assert_eq!(aio::single(wait()).unwrap().state, ChildState::Exited(3));
    });
}

#[test]
fn a_wait_by_number_is_limited_cancelled_and_linked() {
    each_engine(|engine| {
        let mut child = waiting("exit 1");
        let wait = || WaitId::new(Who::Pid(child.id()));
        if !waits_by_number(engine) {
            let done = aio::complete((wait().link(), Nop::new())).unwrap();
            assert!(matches!(done.results, (Err(Error::Unsupported(_)), Err(Error::Skipped))));
            drop(child.stdin.take());
            child.wait().unwrap();
            return;
        }
        assert_eq!(aio::single(wait().timeout(SOON)), Err(Error::TimedOut));
        let done = aio::complete((wait().timeout(SOON).link(), Nop::new())).unwrap();
        assert_eq!(done.results.1, Err(Error::Skipped));
        let queue = Queue::<aio::Result<Waited>>::with_config(8, engine.config).unwrap();
        let token = queue.submit(wait(), |done| done.result).unwrap();
        assert!(queue.poll().unwrap().next().is_none());
        queue.cancel(token).unwrap();
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1, Err(Error::Canceled));
        // What is dropped while it waits takes nobody.
        queue.submit(wait(), |done| done.result).unwrap();
        drop(queue);
        let stdin = child.stdin.take().unwrap();
        let id = child.id();
        runtime(engine)
            .run(|| {
                let waiting = coro::spawn(move || aio::multi((WaitId::new(Who::Pid(id)).link(), Nop::new())));
                drop(stdin);
                assert_eq!(waiting.join().unwrap().unwrap().0.state, ChildState::Exited(1));
            })
            .unwrap();
        assert!(child.wait().is_err(), "it was taken away");
    });
}

#[test]
#[allow(clippy::zombie_processes)]
fn any_child_will_do() {
    in_own_process("any_child_will_do", || {
        each_that_waits_by_number(|| {
            let mut ids = [1, 2, 3].map(|code| (shell(&format!("exit {code}")).id(), ChildState::Exited(code)));
            let mut waited = ids.map(|_| {
                let waited = aio::single(WaitId::new(Who::Any)).unwrap();
                (waited.pid, waited.state)
            });
            ids.sort_by_key(|child| child.0);
            waited.sort_by_key(|child| child.0);
            assert_eq!(ids, waited);
            assert_eq!(aio::single(WaitId::new(Who::Any)).map(drop), common::os(libc::ECHILD));
        });
    });
}
