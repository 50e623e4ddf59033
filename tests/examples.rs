//! The examples, as the programs that a newcomer runs, on every backend.

mod common;

use common::backends;
use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
    time::Duration,
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
    let Some((_, calls)) = traced("quiet") else { return };
    let (from, to) = (calls.find("getppid(").unwrap(), calls.rfind("getppid(").unwrap());
    let between: Vec<_> = calls[from..to].lines().skip(1).filter(|line| line.contains('(')).collect();
    assert!(between.len() == 1 && between[0].contains("io_uring_enter("), "{between:#?}");
}

/// What an example prints, and the system calls it makes on io_uring, as `strace -f` writes them down. Nothing if that
/// is not possible here.
fn traced(name: &str) -> Option<(String, String)> {
    let program = program(name)?;
    let skip = |why: &str| {
        skip("counting by strace", why);
        None
    };
    if !backends().contains(&aio::Backend::IoUring) {
        return skip("io_uring cannot be used here, or another backend is demanded");
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("calls");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&log).arg(program).env("AIO_BACKEND", "io_uring");
    let output = match strace.output() {
        Ok(output) => output,
        Err(error) => return skip(&format!("strace cannot be run: {error}")),
    };
    let (calls, err) = (fs::read_to_string(&log).unwrap_or_default(), String::from_utf8_lossy(&output.stderr));
    // A container may forbid tracing.
    if !calls.contains("execve(") {
        return skip(&format!("strace cannot trace: {err}"));
    }
    Some((succeeded(&output), calls))
}

/// What `coro` says its conversation took.
fn enters(text: &str) -> u32 {
    let line = text.lines().find_map(|line| line.strip_prefix("io_uring: ")).unwrap_or_else(|| panic!("{text}"));
    let (count, rest) = line.split_once(" × io_uring_enter for 17 operations").unwrap_or_else(|| panic!("{text}"));
    // What else there is are the operations that an old kernel's ring lacks.
    assert!(rest.is_empty() || !ring_has_sockets(), "{text}");
    count.parse().unwrap()
}

/// Whether the kernel's ring does all operations of `coro`: from Linux 6.11 on.
fn ring_has_sockets() -> bool {
    let probe = aio::Backend::probe();
    let by_ring = |name| probe.operation(name).unwrap().io_uring == Some(aio::Service::Ring);
    ["Socket", "SetSockOpt", "Bind", "Listen"].into_iter().all(by_ring)
}

#[test]
fn coro_has_its_conversation_in_few_system_calls() {
    each("coro", |backend, run| {
        let text = succeeded(&run(&[]));
        let spoken = [
            "server: hey",
            "server: I'm doing multiple IO ops at once",
            "server: how cool is that?",
            "client: dude, I don't care",
            "server: ok, bye",
            "client has heard everything",
        ];
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("server listens on 127.0.0.1:"), "{text}");
        assert_eq!(lines[1..7], spoken);
        match backend {
            "io_uring" => assert!(enters(&text) <= 6, "{text}"),
            _ => assert!(lines[7].starts_with(&format!("{backend}: ")), "{text}"),
        }
        assert_eq!(lines.len(), 8);
    });
}

#[test]
fn coro_talks_by_the_ring_alone_for_strace_too() {
    let Some((text, calls)) = traced("coro") else { return };
    let count = calls.lines().filter(|line| line.contains("io_uring_enter(")).count();
    assert!(count <= 6 && count == enters(&text) as usize, "{count} calls, but:\n{text}");
    if !ring_has_sockets() {
        return skip("sockets by the ring", "this kernel's does not have them; Linux 6.11 does");
    }
    // Asking for the address is one call that does not wait, and no operation.
    let sockets = ["socket", "bind", "listen", "accept", "connect", "setsockopt", "getsockopt", "shutdown"];
    let data = ["send", "recv", "poll_", "epoll", "select"];
    let of_sockets: Vec<_> = calls
        .lines()
        .filter(|line| {
            let call = line.split_whitespace().nth(1).unwrap_or_default();
            sockets.iter().chain(&data).any(|name| call.starts_with(name))
        })
        .collect();
    assert!(of_sockets.is_empty(), "{of_sockets:#?}");
    assert_eq!(calls.matches(" getsockname(").count(), 1);
}

#[test]
fn chat_server_shows_everybody_what_is_said() {
    each("chat_server", |backend, run| {
        let text = succeeded(&run(&["--selftest".as_ref()]));
        assert_eq!(text.matches("ok: ").count(), 3, "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with(&format!("{backend}: ")) && last.ends_with(" lines seen as they should be"), "{text}");
    });
}

#[test]
fn chat_server_ends_when_it_is_told_to() {
    let Some(program) = program("chat_server") else { return };
    for backend in backends() {
        let mut server = Command::new(&program);
        server.arg("127.0.0.1:0").env("AIO_BACKEND", backend.to_string());
        let mut server = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(server.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let address = first.strip_prefix("listening on ").and_then(|rest| rest.split_once(';')).unwrap().0;

        let mut client = BufReader::new(TcpStream::connect(address).unwrap());
        client.get_ref().write_all(b"somebody\n").unwrap();
        let mut seen = String::new();
        while !seen.contains("* somebody has joined\n") {
            assert_ne!(client.read_line(&mut seen).unwrap(), 0, "{seen}");
        }
        // SAFETY: sends a signal to a child that is not reaped yet.
        assert_eq!(unsafe { libc::kill(server.id() as libc::pid_t, libc::SIGINT) }, 0);
        seen.clear();
        client.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "", "it is only closed");

        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        let result = server.wait_with_output().unwrap();
        assert_eq!((succeeded(&result).as_str(), rest.as_str()), ("", "good-bye\n"));
    }
}

#[test]
fn chat_server_says_why_it_cannot_start() {
    each("chat_server", |_, run| {
        failed(&run(&["127.0.0.1:1".as_ref(), "more".as_ref()]), 2, "unexpected argument");
        failed(&run(&["--selftest".as_ref(), "127.0.0.1:0".as_ref()]), 2, "takes no address");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        failed(&run(&[address.as_ref()]), 1, "Address already in use");
        assert!(succeeded(&run(&["--help".as_ref()])).contains("usage: chat_server [ADDRESS]"));
    });
}

/// Runs an example that searches `dir` from within, so that the paths that it prints are short.
fn grep(program: &Path, backend: &str, dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program);
    let output = command.current_dir(dir).args(arguments).env("AIO_BACKEND", backend).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn parallel_grep_finds_what_is_there() {
    let Some(program) = program("parallel_grep") else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/deep/er")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("a/one"), "a needle\n\nnee needle needle\nnone").unwrap();
    fs::write(at("a/deep/two"), "needl").unwrap();
    fs::write(at("a/deep/er/last line"), "first\nneedle").unwrap();
    fs::write(at("b"), b"needle\n\xff is no UTF-8\n").unwrap();
    fs::write(at("binary"), b"needle\n\0").unwrap();
    // Searched on a worker thread, with the text at both ends and across what is read at a time.
    let mut large = "needle\n".to_owned() + &"straw\n".repeat(50_000);
    large.replace_range(8189..8195, "needle");
    fs::write(at("large"), large + "needle\n").unwrap();
    fs::write(at("nothing"), "").unwrap();
    symlink("..", at("a/up")).unwrap();
    symlink("b", at("link")).unwrap();
    let all = "a/deep/er/last line:2:needle\na/one:1:a needle\na/one:3:nee needle needle\nb:1:needle\n\
        large:1:needle\nlarge:1365:straneedlew\nlarge:50001:needle\n";
    for backend in backends() {
        let grep = |arguments: &[&str]| grep(&program, &backend.to_string(), dir.path(), arguments);
        let found = |text: &str| (Some(0), text.to_owned(), String::new());
        for tasks in ["1", "2", "100"] {
            let text = all.lines().map(|line| format!("./{line}\n")).collect::<String>();
            assert_eq!(grep(&["-j", tasks, "needle"]), found(&text));
        }
        assert_eq!(grep(&["needle", "b", "a/one"]), found("b:1:needle\na/one:1:a needle\na/one:3:nee needle needle\n"));
        assert_eq!(grep(&["-l", "needle", "large", "a"]), found("large\na/deep/er/last line\na/one\n"));
        assert_eq!(grep(&["needle", "link"]), found("link:1:needle\n"));
        assert_eq!(grep(&["straws", ".", "empty"]), (Some(1), String::new(), String::new()));
    }
}

#[test]
fn parallel_grep_says_what_it_cannot_read_and_goes_on() {
    let Some(program) = program("parallel_grep") else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("readable"), "needle\n").unwrap();
    fs::write(dir.path().join("secret"), "needle\n").unwrap();
    fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let root_reads_everything = fs::read(dir.path().join("secret")).is_ok();
    if root_reads_everything {
        skip("a file without permissions", "this user may read it");
    }
    for backend in backends() {
        let grep = |arguments: &[&str]| grep(&program, &backend.to_string(), dir.path(), arguments);
        let (code, out, err) = grep(&["needle", "missing", "readable"]);
        assert_eq!((code, out.as_str()), (Some(2), "readable:1:needle\n"));
        assert_eq!(err, "parallel_grep: missing: No such file or directory (os error 2)\n");
        if cfg!(target_os = "linux") {
            // Nobody can read the memory at address 0, not even root.
            let (code, out, err) = grep(&["needle", "/proc/self/mem", "readable"]);
            assert_eq!((code, out.as_str()), (Some(2), "readable:1:needle\n"));
            assert_eq!(err, "parallel_grep: /proc/self/mem: Input/output error (os error 5)\n");
        }
        if !root_reads_everything {
            let (code, out, err) = grep(&["needle", "."]);
            assert_eq!((code, out.as_str()), (Some(2), "./readable:1:needle\n"));
            assert_eq!(err, "parallel_grep: ./secret: Permission denied (os error 13)\n");
        }
        for wrong in [&[][..], &[""], &["two\nlines"], &["-j0", "needle"], &["-j", "many", "needle"], &["--fast"]] {
            let (code, out, err) = grep(wrong);
            assert_eq!((code, out.as_str()), (Some(2), ""));
            assert!(err.contains("usage: parallel_grep"), "{err}");
        }
        assert!(grep(&["--help"]).1.contains("usage: parallel_grep"));
    }
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

#[cfg(target_os = "linux")]
#[test]
fn deny_limits_root_too() {
    let (Some(deny), Some(immediate)) = (program("deny"), program("immediate")) else { return };
    let output = Command::new(&deny).arg("nofile=4").arg(&immediate).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && err.contains("Too many open files"), "{err}");
    let mut limited = Command::new(&deny);
    limited.args(["memlock=64", "nofile=100", "grep", "-h", "CapEff\\|locked memory"]);
    let text = succeeded(&limited.args(["/proc/self/status", "/proc/self/limits"]).output().unwrap());
    assert!(text.contains(&format!("Max locked memory         {0:<20} {0:<20}", 64 << 10)), "{text}");
    let capabilities = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let lock = 1 << 14;
    assert_eq!(u64::from_str_radix(capabilities.trim(), 16).unwrap() & lock, 0, "CAP_IPC_LOCK: {text}");
}

#[test]
fn sick_task_ends_alone() {
    each("sick_task", |_, run| {
        let output = run(&[]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && err.contains("this task is sick"), "{out}\n{err}");
        assert_eq!(out, "the task panicked: this task is sick; the others go on\nand end as they should\n");
    });
}

#[test]
fn dynamic_prints_checksums_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Empty, one piece, exactly one piece, several.
    let lens = [0, 5, 1 << 16, 300_000];
    let files: Vec<(PathBuf, Vec<u8>)> = lens.map(|len| (at(&len.to_string()), vec![len as u8 | 1; len])).into();
    files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let paths: Vec<&Path> = files.iter().map(|(path, _)| &**path).collect();
    each("dynamic", |_, run| {
        for at_once in ["1", "3"] {
            let options = ["--at-once".as_ref(), at_once.as_ref()];
            let text = succeeded(&run(&[&options[..], &paths[..]].concat()));
            for (path, bytes) in &files {
                let (sum, len, path) = (crc32fast::hash(bytes), bytes.len(), path.display());
                one_line_starts_with(&text, &format!("{sum:08x} {len:>9}  {path}"));
            }
            one_line_starts_with(&text, "4 files, 365541 bytes; buffers made: ");
            assert!(at_once != "1" || text.ends_with("buffers made: 1\n"), "{text}");
        }
        let (missing, directory) = (at("missing"), dir.path());
        let output = run(&[&missing, paths[1], directory]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), out.lines().count()), (Some(1), 2), "{out}{err}");
        assert!(err.contains("missing: No such file") && err.contains(": Is a directory"), "{err}");
        failed(&run(&[]), 2, "usage: dynamic");
        assert!(succeeded(&run(&["--help".as_ref()])).contains("usage: dynamic"));
    });
}

/// Checks a log of `state_machine`; gives the sum of each account.
#[track_caller]
fn check_log(text: &str) -> [i64; 3] {
    let mut totals = [0; 3];
    for (index, line) in text.lines().enumerate() {
        let (record, sum) = line.rsplit_once(' ').unwrap();
        assert_eq!(sum, format!("{:08x}", crc32fast::hash(record.as_bytes())), "{line}");
        let fields: Vec<i64> = record.split(' ').map(|field| field.parse().unwrap()).collect();
        assert_eq!(fields[0], index as i64, "{line}");
        totals[fields[1] as usize] += fields[2];
    }
    totals
}

#[test]
fn state_machine_commits_in_groups_and_reads_its_log_again() {
    each("state_machine", |_, run| {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let options = ["--clients", "3", "--commands", "40"].map(Path::new);
        let arguments = [&[&*log][..], &options[..]].concat();
        for (before, after) in [(0, 120), (120, 240)] {
            let text = succeeded(&run(&arguments));
            one_line_starts_with(&text, &format!("found: {before} records"));
            one_line_starts_with(&text, "committed: 120 records in ");
            one_line_starts_with(&text, "the log says the same");
            let written = fs::read_to_string(&log).unwrap();
            assert_eq!(written.lines().count(), after);
            for (account, total) in check_log(&written).iter().enumerate() {
                one_line_starts_with(&text, &format!("account {account}: {total}"));
            }
            // As if the machine had gone down in the middle of a record.
            fs::write(&log, written + "240 1 77 0000").unwrap();
        }
        assert!(succeeded(&run(&["--help".as_ref()])).contains("usage: state_machine LOG"));
        failed(&run(&[]), 2, "usage: state_machine LOG");
        failed(&run(&[dir.path()]), 1, "Is a directory");
    });
}

#[track_caller]
fn one_line_starts_with(text: &str, start: &str) {
    assert_eq!(text.lines().filter(|line| line.starts_with(start)).count(), 1, "{start:?} in\n{text}");
}

#[test]
fn echo_server_serves_its_own_clients() {
    each("echo_server", |_, run| {
        let text = succeeded(&run(&["--selftest".as_ref()]));
        assert_eq!(
            text,
            "200 clients sent 10 messages each, and every byte of 5014000 came back\n\
             the server has counted: connections: 200, bytes sent back: 5014000\n"
        );
    });
}

#[test]
fn poller_serves_its_own_clients() {
    each("poller", |_, run| {
        let text = succeeded(&run(&["--selftest".as_ref()]));
        one_line_starts_with(&text, "50 clients sent 10 messages each, and every byte of ");
        one_line_starts_with(&text, "the server has counted: connections: 50, bytes sent back: ");
    });
}

#[test]
fn udp_echo_serves_its_own_clients() {
    each("udp_echo", |_, run| {
        let text = succeeded(&run(&["--selftest".as_ref()]));
        one_line_starts_with(&text, "50 clients sent 20 messages each, and each came back as it was; repeated: ");
        one_line_starts_with(&text, "the server has counted: datagrams sent back: 1");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn tcp_proxy_forwards_for_its_own_clients() {
    each("tcp_proxy", |_, run| {
        let text = succeeded(&run(&["--selftest".as_ref()]));
        assert_eq!(text.matches(": 4194304 bytes to the upstream, 4194318 back\n").count(), 4, "{text}");
        one_line_starts_with(&text, "4 clients sent 4 MiB each through the proxy, and every byte came back");
    });
}

#[test]
fn ticker_ticks_until_its_time_is_over() {
    each("ticker", |_, run| {
        let text = succeeded(&run(&["0.45".as_ref()]));
        for clock in ["fast, every 100 ms", "steady, every 250 ms", "slow, every 400 ms"] {
            one_line_starts_with(&text, &format!("{clock}, ticks: "));
        }
        // However busy the machine is, the first clock is not the last to tick.
        assert!(text.lines().next().unwrap().ends_with("s  fast 1"), "{text}");
        let last = text.lines().last().unwrap();
        let seconds = last.strip_prefix("ended after ").and_then(|rest| rest.strip_suffix(" s"));
        assert!(seconds.unwrap().parse::<f64>().unwrap() >= 0.45, "{text}");
    });
}

#[test]
fn process_pipe_writes_and_reads_at_the_same_time() {
    each("process_pipe", |_, run| {
        let text = succeeded(&run(&[]));
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1..5], [&["1", "7"][..], &["2", "17"], &["…"], &["40951", "99997"]], "{text}");
        one_line_starts_with(&text, "40951 of 100000 numbers have a 7 in them");
        one_line_starts_with(&text, "grep: exit status: 0, cat: exit status: 0");
    });
}

#[test]
fn graceful_shutdown_ends_by_its_own_signal() {
    each("graceful_shutdown", |_, run| {
        assert_eq!(
            succeeded(&run(&["--selftest".as_ref()])),
            "raising SIGTERM\n\
             ended by SIGTERM; requests answered before: 3, finished in time: 4, cancelled: 2; \
             idle connections closed: 3\n\
             as it should be\n"
        );
    });
}

#[test]
fn servers_say_how_they_are_called() {
    for name in ["echo_server", "event_loop_echo", "poller", "udp_echo", "tcp_proxy", "graceful_shutdown", "ticker"] {
        let Some(program) = program(name) else { return };
        let run = |argument: &str| Command::new(&program).arg(argument).output().unwrap();
        assert!(succeeded(&run("--help")).contains(&format!("usage: {name}")));
        failed(&run("--fast"), 2, &format!("usage: {name}"));
    }
}

/// How long a test waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// An example that serves until it gets a signal.
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    /// Starts it, and waits until it has said its address.
    fn start(program: &Path, backend: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new(program);
        command.args(arguments).env("AIO_BACKEND", backend).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let Some(rest) = line.strip_prefix("listening on ") else { panic!("{line:?}") };
        let address = rest.split([',', '\n']).next().unwrap().to_owned();
        Server { child, output, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn signal(&self, number: i32) {
        // SAFETY: it is a child that has not been waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as libc::pid_t, number) }, 0);
    }

    /// What it has printed when it has ended, which has to be without an error.
    #[track_caller]
    fn ended(mut self) -> String {
        let (mut out, mut err) = (String::new(), String::new());
        self.output.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!((status.code(), &*err), (Some(0), ""), "{status}\n{out}");
        out
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts an example that serves, on each backend.
fn each_server(name: &str, arguments: &[&str], test: impl Fn(Server)) {
    let Some(program) = program(name) else { return };
    for backend in backends() {
        test(Server::start(&program, &backend.to_string(), arguments));
    }
}

#[track_caller]
fn read_to_end(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[track_caller]
fn expect(mut stream: &TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[test]
fn echo_server_ends_by_ctrl_c() {
    each_server("echo_server", &[], |server| {
        let (talking, _silent) = (server.connect(), server.connect());
        (&talking).write_all(b"hello").unwrap();
        expect(&talking, "hello");
        server.signal(libc::SIGINT);
        assert_eq!(read_to_end(&talking), "");
        let text = server.ended();
        // The silent one may not have been accepted yet.
        let counts = [1, 2].map(|n| format!("ended by SIGINT; connections: {n}, bytes sent back: 5\n"));
        assert!(counts.contains(&text), "{text}");
    });
    each_server("echo_server", &[], |server| {
        server.signal(libc::SIGINT);
        assert_eq!(server.ended(), "ended by SIGINT; connections: 0, bytes sent back: 0\n");
    });
}

#[test]
fn poller_ends_by_ctrl_c_and_waits_for_slow_clients() {
    each_server("poller", &[], |server| {
        let slow = server.connect();
        slow.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        // Until nothing fits into the buffers of either side, because nobody reads what comes back.
        let mut sent = 0;
        while let Ok(count @ 1..) = (&slow).write(&[b'x'; 1 << 16]) {
            sent += count;
        }
        let other = server.connect();
        (&other).write_all(b"hello").unwrap();
        expect(&other, "hello");
        slow.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&slow).len(), sent);
        server.signal(libc::SIGINT);
        let text = server.ended();
        one_line_starts_with(&text, &format!("ended by SIGINT; connections: 2, bytes sent back: {}", sent + 5));
    });
}

#[test]
fn echo_server_ends_after_so_many_connections() {
    each_server("echo_server", &["--connections", "2"], |server| {
        let streams = [server.connect(), server.connect()];
        for (stream, text) in streams.iter().zip(["one", "three"]) {
            let mut writer = stream;
            writer.write_all(text.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(stream), text);
        }
        assert_eq!(server.ended(), "ended; connections: 2, bytes sent back: 8\n");
    });
}

#[test]
fn event_loop_echo_ends_after_so_many_connections() {
    each_server("event_loop_echo", &["--connections", "3"], |server| {
        let streams = [server.connect(), server.connect(), server.connect()];
        // More than fits into the buffers on the way, so that sends are short and what is left is sent again.
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
        let [large, small, silent] = &streams;
        thread::scope(|s| {
            s.spawn(|| {
                { large }.write_all(&bytes).unwrap();
                large.shutdown(Shutdown::Write).unwrap();
            });
            // Meanwhile another one is served.
            { small }.write_all(b"three").unwrap();
            expect(small, "three");
            let mut back = Vec::new();
            { large }.read_to_end(&mut back).unwrap();
            assert!(back == bytes);
        });
        small.shutdown(Shutdown::Write).unwrap();
        silent.shutdown(Shutdown::Write).unwrap();
        assert_eq!((read_to_end(small), read_to_end(silent)), (String::new(), String::new()));
        assert_eq!(server.ended(), "ended; connections: 3, bytes sent back: 3000005\n");
    });
}

#[test]
fn event_loop_echo_ends_by_ctrl_c() {
    each_server("event_loop_echo", &[], |server| {
        let talking = server.connect();
        (&talking).write_all(b"hello").unwrap();
        expect(&talking, "hello");
        server.signal(libc::SIGINT);
        assert_eq!(read_to_end(&talking), "");
        assert_eq!(server.ended(), "ended by SIGINT; connections: 1, bytes sent back: 5\n");
    });
}

#[test]
fn udp_echo_ends_by_ctrl_c() {
    each_server("udp_echo", &[], |server| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = vec![0; 40_000];
        for len in [0, 1, 30_000] {
            let bytes = vec![len as u8; len];
            socket.send_to(&bytes, &*server.address).unwrap();
            // This thread has had a ring (`backends` tries them), of which the kernel still cleans up in its context.
            // That interrupts a receive with a time limit; those of a stream are repeated by the standard library.
            let received = loop {
                match socket.recv(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => break result.unwrap(),
                }
            };
            assert_eq!(received, len);
            assert!(buffer[..len] == bytes);
        }
        server.signal(libc::SIGINT);
        assert_eq!(server.ended(), "ended by SIGINT; datagrams sent back: 3\n");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn tcp_proxy_passes_on_each_end_by_itself() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    each_server("tcp_proxy", &[&address], |server| {
        let idle = server.connect();
        let (idle_upstream, _) = upstream.accept().unwrap();
        let client = server.connect();
        let (far, _) = upstream.accept().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        // The upstream ends first, and the client goes on.
        (&far).write_all(b"from the upstream").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&client), "from the upstream");
        (&client).write_all(b"from the client").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&far), "from the client");
        // It says so when both directions have ended, at a moment of its own.
        let (peer, mut server) = (client.local_addr().unwrap(), server);
        let mut line = String::new();
        server.output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{peer}: 15 bytes to the upstream, 17 back\n"));
        server.signal(libc::SIGINT);
        assert_eq!((read_to_end(&idle), read_to_end(&idle_upstream)), (String::new(), String::new()));
        assert_eq!(server.ended(), "ended by SIGINT\n");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn tcp_proxy_goes_on_if_the_upstream_is_not_there() {
    // An address where nobody listens any more.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    each_server("tcp_proxy", &[&address], |mut server| {
        for _ in 0..2 {
            assert_eq!(read_to_end(&server.connect()), "");
        }
        server.signal(libc::SIGINT);
        let (mut out, mut err) = (String::new(), String::new());
        server.output.read_to_string(&mut out).unwrap();
        server.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((&*out, err.matches("Connection refused").count()), ("ended by SIGINT\n", 2), "{err}");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn graceful_shutdown_lets_requests_finish() {
    each_server("graceful_shutdown", &["--grace", "60"], |server| {
        let (idle, working) = (server.connect(), server.connect());
        (&idle).write_all(b"work 0\n").unwrap();
        expect(&idle, "started\ndone\n");
        (&working).write_all(b"work 500\n").unwrap();
        expect(&working, "started\n");
        server.signal(libc::SIGINT);
        assert_eq!(read_to_end(&idle), "");
        // It takes no more connections, though it has not ended.
        assert!(TcpStream::connect(&server.address).is_err());
        assert_eq!(read_to_end(&working), "done\n");
        assert_eq!(
            server.ended(),
            "ended by SIGINT; requests answered before: 1, finished in time: 1, cancelled: 0; \
             idle connections closed: 1\n"
        );
    });
}

#[test]
fn graceful_shutdown_cancels_what_takes_too_long() {
    // By the end of the grace period, or before by a second signal.
    for (grace, second) in [("0.1", false), ("3600", true)] {
        each_server("graceful_shutdown", &["--grace", grace], |server| {
            let working = server.connect();
            (&working).write_all(b"work 3600000\n").unwrap();
            expect(&working, "started\n");
            server.signal(libc::SIGTERM);
            if second {
                // Two that come before anybody looks are one.
                thread::sleep(Duration::from_millis(200));
                server.signal(libc::SIGINT);
            }
            assert_eq!(read_to_end(&working), "cancelled\n");
            assert_eq!(
                server.ended(),
                "ended by SIGTERM; requests answered before: 0, finished in time: 0, cancelled: 1; \
                 idle connections closed: 0\n"
            );
        });
    }
}
