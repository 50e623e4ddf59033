//! The examples, as the programs that a newcomer runs, on every backend.

mod common;

use common::backends;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Says why something was not tested, past the harness, which hides what a passing test prints.
fn skip(what: &str, why: &str) {
    // In one piece, for other tests print at the same time.
    let _ = std::io::stderr().write_all(format!("\nSKIPPED {what}: {why}\n").as_bytes());
}

/// The program of an example. `cargo test` builds them, beside the directory of this test's own program; `cargo test
/// --tests` does not.
fn program(name: &str) -> Option<PathBuf> {
    let here = std::env::current_exe().unwrap();
    let path = here.parent().unwrap().parent().unwrap().join("examples").join(name);
    if std::env::var_os("AIO_TEST_RUNNER").is_some() {
        skip(name, "the tests run in an emulator");
        return None;
    }
    if !path.exists() {
        skip(name, "it was not built; `cargo build --examples` does that, and so does a plain `cargo test`");
        return None;
    }
    Some(path)
}

/// Runs an example as often as there are backends, each chosen by the environment.
fn each(name: &str, test: impl Fn(&str, &dyn Fn(&[&Path]) -> Output)) {
    let Some(program) = program(name) else { return };
    for backend in backends() {
        let backend = backend.to_string();
        test(&backend, &|arguments| {
            Command::new(&program).args(arguments).env("AIO_BACKEND", &backend).output().unwrap()
        });
    }
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert_eq!(err, "");
    out.into_owned()
}

#[track_caller]
fn failed(output: &Output, code: i32, why: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(code), ""), "{err}");
    assert!(err.contains(why), "{err}");
}

#[test]
fn immediate_says_what_each_engine_did() {
    each("immediate", |backend, run| {
        let text = succeeded(&run(&[]));
        assert!(text.starts_with(&format!("{backend}\n")), "{text}");
        for line in ["    Cargo.toml", "    \"message 3\" came back", "1 of 1 engines used"] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
        assert!(text.matches(" system call").count() >= 3, "{text}");
        if backend == "io_uring" {
            assert!(text.contains("    1 system call: 1 io_uring_enter\n"), "four reads are one call:\n{text}");
        }
    });
}

#[test]
fn immediate_shows_all_engines_or_says_why_one_is_left_out() {
    let Some(program) = program("immediate") else { return };
    let text = succeeded(&Command::new(program).env_remove("AIO_BACKEND").output().unwrap());
    let usable = match aio::Backend::probe().io_uring() {
        Ok(()) => 3,
        Err(why) => {
            assert!(text.contains(&format!("left out: io_uring cannot be used: {why}")), "{text}");
            2
        }
    };
    assert!(text.contains(&format!("{usable} of 3 engines used")), "{text}");
}

#[test]
fn immediate_fails_if_what_was_demanded_does_not_exist() {
    let Some(program) = program("immediate") else { return };
    let output = Command::new(program).env("AIO_BACKEND", "quantum").output().unwrap();
    failed(&output, 1, "AIO_BACKEND is \"quantum\"; use io_uring, epoll, poll or auto");
}

#[test]
fn two_files_prints_the_beginnings_of_two_files() {
    each("two_files", |_, run| {
        let text = succeeded(&run(&[]));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("[package]") && lines[1].starts_with("//!"), "{text}");
    });
}

#[test]
fn quiet_prints_nothing() {
    each("quiet", |_, run| assert_eq!(succeeded(&run(&[])), ""));
}

#[test]
fn a_warm_batch_of_two_reads_is_one_system_call_for_strace_too() {
    let Some(program) = program("quiet") else { return };
    if !backends().contains(&aio::Backend::IoUring) {
        return skip("counting by strace", "io_uring cannot be used here, or another backend is demanded");
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("calls");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&log).arg(program).env("AIO_BACKEND", "io_uring");
    let output = match strace.output() {
        Ok(output) => output,
        Err(error) => return skip("counting by strace", &format!("strace cannot be run: {error}")),
    };
    let (calls, err) = (fs::read_to_string(&log).unwrap_or_default(), String::from_utf8_lossy(&output.stderr));
    // A container may forbid tracing.
    if !calls.contains("execve(") {
        return skip("counting by strace", &format!("strace cannot trace: {err}"));
    }
    succeeded(&output);
    let (from, to) = (calls.find("getppid(").unwrap(), calls.rfind("getppid(").unwrap());
    let between: Vec<_> = calls[from..to].lines().skip(1).filter(|line| line.contains('(')).collect();
    assert!(between.len() == 1 && between[0].contains("io_uring_enter("), "{between:#?}");
}

#[test]
fn copy_copies_whatever_the_length() {
    const CHUNK: usize = 256 << 10;
    each("copy", |backend, run| {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 16 * CHUNK, 17 * CHUNK + 4321] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + i / CHUNK * 7) as u8).collect();
            fs::write(&from, &bytes).unwrap();
            fs::set_permissions(&from, fs::Permissions::from_mode(0o640)).unwrap();
            // What is there already is longer, and must not shine through.
            fs::write(&to, vec![9; len + 100]).unwrap();
            let text = succeeded(&run(&[&from, &to]));
            let expected = format!("{len} bytes copied, CRC-32 {:08x}; {backend}: ", crc32fast::hash(&bytes));
            assert!(text.starts_with(&expected), "{text}");
            assert!(fs::read(&to).unwrap() == bytes, "{len} bytes differ on {backend}");
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o640);
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn copy_copies_what_has_no_length_before_it_is_read() {
    each("copy", |_, run| {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        succeeded(&run(&["/proc/version".as_ref(), &to]));
        assert_eq!(fs::read(to).unwrap(), fs::read("/proc/version").unwrap());
    });
}

#[test]
fn copy_refuses_what_it_cannot_copy_and_changes_nothing() {
    each("copy", |_, run| {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "contents").unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        symlink("file", at("soft")).unwrap();
        failed(&run(&[dir.path(), &at("new")]), 1, "is a directory; name a file");
        failed(&run(&[&at("file"), dir.path()]), 1, "is a directory; name a file");
        for other in ["file", "hard", "soft"] {
            failed(&run(&[&at("file"), &at(other)]), 1, "are the same file");
        }
        failed(&run(&[&at("missing"), &at("new")]), 1, "No such file or directory");
        failed(&run(&[&at("file"), "/dev/null".as_ref()]), 1, "is not a regular file");
        failed(&run(&[&at("file")]), 2, "usage: copy FROM TO");
        failed(&run(&[&at("file"), &at("new"), &at("more")]), 2, "unexpected argument");
        failed(&run(&["--fast".as_ref()]), 2, "--fast");
        assert!(succeeded(&run(&["--help".as_ref()])).contains("usage: copy FROM TO"));
        assert_eq!(fs::read(at("file")).unwrap(), b"contents");
        assert!(!at("new").exists());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn deny_takes_io_uring_away_from_a_program() {
    let (Some(deny), Some(immediate)) = (program("deny"), program("immediate")) else { return };
    let run = |errno: &str| Command::new(&deny).arg(errno).arg(&immediate).env_remove("AIO_BACKEND").output().unwrap();
    for (errno, why) in [("EPERM", "permission was denied"), ("ENOSYS", "the kernel does not know it")] {
        let output = run(errno);
        if String::from_utf8_lossy(&output.stderr).contains("cannot install the seccomp filter") {
            return skip("deny", "no seccomp here");
        }
        let text = succeeded(&output);
        assert!(text.contains(&format!("left out: io_uring cannot be used: {why}")), "{text}");
        assert!(text.contains("2 of 3 engines used"), "{text}");
    }
    failed(&run("EWHAT"), 2, "usage: deny EPERM|ENOSYS");
}
