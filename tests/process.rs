//! Child processes, in the shape of the standard library.

mod common;

use aio::{
    op::{Op as _, Read as ReadOp},
    process::{Child, Command, Stdio},
};
use common::{NEVER, each_backend, each_engine, in_own_process, leaks_no_descriptor};
use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    },
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(10);
const MIB: usize = 1 << 20;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Runs until it is killed, or its standard input ends.
fn waiting() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Whether there is such a process, be it a dead one that nobody has waited for.
fn exists(pid: u32) -> bool {
    // SAFETY: signal 0 is none; it asks whether there is the process.
    unsafe { libc::kill(pid as libc::pid_t, 0) == 0 }
}

#[test]
fn the_status_says_how_it_has_ended() {
    each_engine(|_| {
        for code in [0, 1, 69, 255] {
            let status = shell(&format!("exit {code}")).status().unwrap();
            assert_eq!((status.code(), status.success()), (Some(code), code == 0));
        }
        let status = shell("kill -TERM $$").status().unwrap();
        assert_eq!((status.code(), status.signal()), (None, Some(libc::SIGTERM)));
    });
}

#[test]
fn a_killed_child_is_waited_for_as_often_as_one_likes() {
    each_engine(|_| {
        let mut child = waiting();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        assert_eq!(child.wait().unwrap(), status);
        assert_eq!(child.try_wait().unwrap(), Some(status));
        // The number may be another process's by now: nothing is sent to it.
        child.kill().unwrap();
    });
}

#[test]
fn a_program_that_cannot_be_executed_is_an_error() {
    each_engine(|_| {
        assert_eq!(Command::new("/no/such/program").spawn().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(Command::new("no such program").status().unwrap_err().kind(), ErrorKind::NotFound);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Command::new(file.path()).output().unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(Command::new("sh").arg("a\0b").spawn().unwrap_err().kind(), ErrorKind::InvalidInput);
        let missing = Command::new("true").current_dir("/no/such/directory").spawn();
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn what_is_written_comes_back_from_cat() {
    each_engine(|_| {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdin, stdout) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
        let mut stdout = BufReader::new(stdout);
        for i in 0..50 {
            writeln!(stdin, "line {i}").unwrap();
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, format!("line {i}\n"));
        }
        drop(stdin);
        assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(cat.wait().unwrap().success());
    });
}

#[test]
fn waiting_closes_the_input() {
    each_engine(|_| {
        let mut child = waiting();
        assert!(child.wait().unwrap().success());
        assert!(child.stdin.is_none());
        let output = waiting().wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    });
}

#[test]
fn writing_to_a_child_that_reads_no_more_is_a_broken_pipe() {
    each_engine(|_| {
        let mut command = shell("exec <&-; echo closed; exec sleep 1000");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0u8; 7];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        // A child that another test is just about to execute may have the other side too, for a moment.
        let attempts = (0..1000).inspect(|_| thread::sleep(Duration::from_millis(1)));
        let error = attempts.into_iter().find_map(|_| stdin.write_all(b"x").err()).expect("nobody reads");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn both_outputs_are_read_at_the_same_time() {
    // More than a pipe holds of either, in an order in which reading one after the other would never end.
    let scripts = [
        ("head -c 1048576 /dev/zero; head -c 1048576 /dev/zero >&2", MIB, MIB),
        ("head -c 1048576 /dev/zero >&2; head -c 1048576 /dev/zero", MIB, MIB),
        ("head -c 1048576 /dev/zero >&2; exec 2>&-; sleep 0.05; echo late", 5, MIB),
        ("exec >&-; sleep 0.05; head -c 1048576 /dev/zero >&2", 0, MIB),
        ("for i in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/zero; head -c 100000 /dev/zero >&2; done", 800_000, 800_000),
        ("true", 0, 0),
    ];
    each_engine(|_| {
        for (script, out, err) in scripts {
            let output = shell(script).output().unwrap();
            assert_eq!((output.stdout.len(), output.stderr.len()), (out, err), "{script}");
            assert!(output.status.success());
        }
    });
}

#[test]
fn only_what_is_piped_is_kept() {
    each_engine(|_| {
        let script = "echo out; echo err >&2; exit 3";
        let run = |stdout, stderr| shell(script).stdout(stdout).stderr(stderr).spawn().unwrap().wait_with_output();
        let output = run(Stdio::piped(), Stdio::null()).unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b""[..]));
        let output = run(Stdio::null(), Stdio::piped()).unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b"err\n"[..]));
        assert_eq!(output.status.code(), Some(3));
        // What was chosen stays chosen, and the rest is kept.
        let output = shell(script).stderr(Stdio::null()).output().unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b""[..]));
    });
}

#[test]
fn output_chooses_for_itself_only() {
    each_backend(|_| {
        let mut command = shell("cat; echo out");
        assert_eq!(command.output().unwrap().stdout, b"out\n", "the input is empty");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        assert!(child.stdout.is_none() && child.stderr.is_none() && child.stdin.is_none());
        child.wait().unwrap();
        let mut inheriting = shell("true");
        assert!(inheriting.output().unwrap().status.success());
        let mut child = inheriting.spawn().unwrap();
        assert!(child.stdout.is_none() && child.stderr.is_none(), "inherited again");
        child.wait().unwrap();
    });
}

#[test]
fn arguments_environment_and_directory_arrive() {
    each_backend(|_| {
        let dir = tempfile::tempdir().unwrap();
        let output = |command: &mut Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(output(Command::new("printf").arg("<%s>").args(["a b", "$HOME", ""])), "<a b><$HOME><>");
        let mut command = shell("echo $ONE $TWO ${HOME-no home}; pwd");
        command.env("ONE", "1").envs([("TWO", "2")]).env_remove("HOME").current_dir(dir.path());
        let expected = format!("1 2 no home\n{}\n", fs::canonicalize(dir.path()).unwrap().display());
        assert_eq!(output(&mut command), expected);
        assert_eq!(output(Command::new("/usr/bin/env").env("LOST", "1").env_clear().env("KEPT", "1")), "KEPT=1\n");
        assert!(format!("{command:?}").contains("pwd"));
        assert_eq!(command.as_std().get_current_dir(), Some(dir.path()));
    });
}

#[test]
fn pipes_go_from_one_child_to_the_next_and_from_files() {
    each_backend(|_| {
        let file = aio::fs::File::open("Cargo.toml").unwrap();
        let mut first = Command::new("cat").stdin(file).stdout(Stdio::piped()).spawn().unwrap();
        let second = Command::new("head").args(["-n", "1"]).stdin(first.stdout.take().unwrap()).output().unwrap();
        assert_eq!(second.stdout, b"[package]\n");
        first.wait().unwrap();
    });
}

#[test]
fn the_pipes_can_be_given_to_operations() {
    each_engine(|_| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.as_ref().unwrap();
        let nothing = aio::single(ReadOp::new(stdout, &mut [0u8; 8]).timeout(SOON));
        assert_eq!(nothing, Err(aio::Error::TimedOut));
        (&mut child.stdin.as_ref().unwrap()).write_all(b"later").unwrap();
        let mut text = [0u8; 8];
        assert_eq!(aio::single(ReadOp::new(stdout, &mut text)), Ok(5));
        let _: OwnedFd = child.stdout.take().unwrap().into();
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_dropped_child_goes_on_unless_it_is_to_be_killed() {
    each_engine(|_| {
        let mut child = waiting();
        let (pid, stdin) = (child.id(), child.stdin.take());
        drop(child);
        thread::sleep(SOON);
        assert!(exists(pid), "goes on");
        // SAFETY: the process is a child that nobody has waited for, so that the number is still its.
        unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        assert_eq!(common::Forked(pid as libc::pid_t).wait(), 128 + libc::SIGKILL);
        drop(stdin);

        let mut killed = Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
        assert!(killed.try_wait().unwrap().is_none());
        let pid = killed.id();
        drop(killed);
        assert!(!exists(pid), "neither alive nor a zombie");
        // One that has ended by itself, waited for and not.
        let mut ended = Command::new("true").kill_on_drop(true).spawn().unwrap();
        ended.wait().unwrap();
        drop(ended);
        let ended = Command::new("true").kill_on_drop(true).spawn().unwrap();
        let pid = ended.id();
        thread::sleep(SOON);
        drop(ended);
        assert!(!exists(pid));
    });
}

#[test]
fn waiting_is_over_when_the_child_is() {
    each_backend(|_| {
        let start = Instant::now();
        assert!(Command::new("sleep").arg("0.1").status().unwrap().success());
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn several_threads_have_children_of_their_own() {
    thread::scope(|s| {
        for code in 1..6 {
            s.spawn(move || {
                for _ in 0..5 {
                    let output = shell(&format!("echo {code}; exit {code}")).output().unwrap();
                    assert_eq!(output.status.code(), Some(code));
                    assert_eq!(output.stdout, format!("{code}\n").into_bytes());
                }
            });
        }
    });
}

#[test]
fn neither_zombies_nor_descriptors_are_left() {
    in_own_process("neither_zombies_nor_descriptors_are_left", || {
        each_backend(|_| {
            leaks_no_descriptor(|| {
                shell("exit 1").status().unwrap();
                shell("echo x; echo y >&2").output().unwrap();
                assert!(Command::new("/no/such/program").output().is_err());
                let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
                cat.stdin.as_mut().unwrap().write_all(b"x").unwrap();
                cat.kill().unwrap();
                cat.wait().unwrap();
                drop(Command::new("sleep").arg(NEVER.as_secs().to_string()).kill_on_drop(true).spawn().unwrap());
            });
            // SAFETY: asks for any child of this process; null for the status.
            let left = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
            assert_eq!((left, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ECHILD)));
        });
    });
}

/// The standard streams of a process of its own, which the test is the child of.
#[test]
fn the_standard_streams_are_read_and_written() {
    const NAME: &str = "the_standard_streams_are_read_and_written";
    if std::env::var_os("AIO_TEST_STDIO").is_some() {
        let mut lines = BufReader::new(aio::stdio::stdin()).lines();
        writeln!(aio::stdio::stdout(), "out: {}", lines.next().unwrap().unwrap()).unwrap();
        writeln!(aio::stdio::stderr(), "err: {}", lines.next().unwrap().unwrap()).unwrap();
        assert!(lines.next().is_none(), "the end of the input");
        return;
    }
    each_backend(|backend| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([NAME, "--exact", "--nocapture", "--test-threads=1"]).env("AIO_TEST_STDIO", "1");
        child.env("AIO_BACKEND", backend.to_string());
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"first\nsecond\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
        assert!(out.contains("out: first\n"), "{out}");
        assert!(err.contains("err: second\n"), "{err}");
    });
}
