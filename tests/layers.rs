//! The layers of the standard library's shape, in tasks: both ends of everything are in one thread, so whatever blocked
//! it would hang.

mod common;

use aio::{
    Error, coro, fs, is_canceled,
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
    process::{Command, Stdio},
    signal::{Signal, Signals},
    time,
};
use common::*;
use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    time::Duration,
};

const SOON: Duration = Duration::from_millis(1);

/// Runs `f` while another task gets its turns, and calls `then` when it had a few. `f` waits for that: it never ends if
/// it keeps others from going on.
fn after_turns_of_another<R>(then: impl FnOnce(), f: impl FnOnce() -> R) -> R {
    coro::scope(|s| {
        s.spawn(|| {
            (0..5).for_each(|_| time::sleep(SOON).unwrap());
            then();
        });
        f()
    })
}

#[test]
fn tcp_by_name_with_lines_and_halves() {
    each_runtime(|| {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        coro::scope(|s| {
            let server = s.spawn(|| {
                let (stream, _) = listener.accept()?;
                let (reader, mut writer) = stream.into_split();
                for line in BufReader::new(reader).lines() {
                    writeln!(writer, "{}", line?.to_uppercase())?;
                }
                io::Result::Ok(())
            });
            let mut stream = TcpStream::connect(("localhost", port)).unwrap();
            stream.write_all(b"one\ntwo\n").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "ONE\nTWO\n");
            server.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_listener_that_is_cancelled_ends_and_can_be_used_again() {
    each_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        coro::scope(|s| {
            let server = s.spawn(|| listener.incoming().count());
            server.cancel();
            assert_eq!(server.join().unwrap(), 0, "there was no connection, and no item for the end");
        });
        let error = coro::timeout(SOON, || listener.accept()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    });
}

#[test]
fn a_connection_that_is_given_up_tries_no_other_address() {
    each_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        coro::scope(|s| {
            let client = s.spawn(|| {
                assert_eq!(time::sleep(NEVER), Err(Error::Canceled));
                TcpStream::connect(&[address, address][..]).map(drop)
            });
            client.cancel();
            assert!(is_canceled(&client.join().unwrap().unwrap_err()));
        });
        let late = coro::timeout(2 * SOON, || listener.accept()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut, "nobody has come");
    });
}

#[test]
fn datagrams_and_unix_streams() {
    each_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        coro::scope(|s| {
            s.spawn(|| {
                let mut buffer = [0; 16];
                let (n, from) = b.recv_from(&mut buffer).unwrap();
                b.send_to(&buffer[..n], from).unwrap();
                listener.accept().unwrap().0.write_all(b"over there").unwrap();
            });
            let mut buffer = [0; 16];
            a.send_to(b"ping", b.local_addr().unwrap()).unwrap();
            assert_eq!(a.recv(&mut buffer).unwrap(), 4);
            let mut text = String::new();
            UnixStream::connect(dir.path().join("socket")).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((&buffer[..4], text.as_str()), (&b"ping"[..], "over there"));
        });
    });
}

#[test]
fn a_limit_on_a_stream_leaves_it_usable() {
    each_runtime(|| {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        a.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(a.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::TimedOut);
        let late = coro::timeout(SOON, || b.read(&mut [0; 4]));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        b.write_all(b"now").unwrap();
        assert_eq!(a.read(&mut [0; 4]).unwrap(), 3);
    });
}

#[test]
fn a_stream_that_is_shut_down_ends_a_read_that_waits() {
    each_runtime(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        coro::scope(|s| {
            let reader = s.spawn(|| (&client).read(&mut [0; 8]));
            assert!(!reader.is_finished());
            client.shutdown(std::net::Shutdown::Both).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
        });
        assert_eq!((&server).read(&mut [0; 8]).unwrap(), 0, "the peer sees the end");
        // A reader that is cancelled leaves no operation behind that would keep the connection open.
        let (a, mut b) = UnixStream::pair().unwrap();
        let reader = coro::spawn(move || (&a).read(&mut [0; 8]));
        reader.cancel();
        assert!(is_canceled(&reader.join().unwrap().unwrap_err()));
        assert_eq!(b.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn others_go_on_while_a_child_runs() {
    each_backend_runtime(|_| {
        let (output, input) = pipe();
        // It ends when nobody can write to it any more.
        let child = || Command::new("cat").stdin(output).stdout(Stdio::null()).status();
        assert!(after_turns_of_another(|| drop(input), child).unwrap().success());
    });
}

// It is started by a worker thread.
#[test]
#[cfg(target_os = "linux")]
fn a_child_starts_with_no_signal_blocked() {
    each_backend_runtime(|_| {
        let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        assert_eq!(u64::from_str_radix(blocked.trim(), 16), Ok(0));
    });
}

#[test]
fn a_child_may_talk_in_both_directions_and_be_killed_by_another_task() {
    each_backend_runtime(|_| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let sent = vec![7u8; 1 << 20];
        let mut received = Vec::new();
        coro::scope(|s| {
            s.spawn(|| {
                input.write_all(&sent).unwrap();
                drop(input);
            });
            output.read_to_end(&mut received).unwrap();
        });
        assert!(received == sent);
        assert!(child.wait().unwrap().success());

        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        let id = child.id();
        coro::scope(|s| {
            s.spawn(move || {
                time::sleep(SOON).unwrap();
                // SAFETY: the child is not waited for yet, so its number is its own.
                unsafe { libc::kill(id as i32, libc::SIGKILL) };
            });
            assert!(!child.wait().unwrap().success());
        });
    });
}

#[test]
fn files_in_many_tasks() {
    each_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        coro::scope(|s| {
            for i in 0..40 {
                let path = dir.path().join(format!("file-{i}"));
                s.spawn(move || {
                    fs::write(&path, format!("text {i}")).unwrap();
                    let copy = path.with_extension("copy");
                    assert_eq!(fs::copy(&path, &copy).unwrap(), fs::metadata(&path).unwrap().len());
                    fs::rename(&copy, path.with_extension("moved")).unwrap();
                    assert_eq!(fs::read_to_string(path.with_extension("moved")).unwrap(), format!("text {i}"));
                    fs::remove_file(&path).unwrap();
                });
            }
        });
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 40);
        fs::remove_dir_all(dir.path()).unwrap();
    });
}

#[test]
fn a_cancelled_task_touches_no_file() {
    each_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let inner = path.clone();
        let task = coro::spawn(move || {
            assert_eq!(time::sleep(NEVER), Err(Error::Canceled));
            let errors = [
                fs::write(&inner, "text").unwrap_err(),
                fs::read_dir(inner.parent().unwrap()).map(drop).unwrap_err(),
                fs::canonicalize(&inner).map(drop).unwrap_err(),
                Command::new("true").spawn().map(drop).unwrap_err(),
            ];
            assert!(errors.iter().all(is_canceled), "{errors:?}");
            coro::shield(|| fs::write(&inner, "cleaned up"))
        });
        task.cancel();
        task.join().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cleaned up");
    });
}

#[test]
fn signals_wake_a_task() {
    in_own_process("signals_wake_a_task", || {
        each_backend_runtime(|_| {
            let mut signals = Signals::new([Signal::USR1]).unwrap();
            let raise = || {
                // SAFETY: the signal is handled.
                unsafe { libc::raise(libc::SIGUSR1) };
            };
            assert_eq!(after_turns_of_another(raise, || signals.recv()).unwrap(), Signal::USR1);
            let late = coro::timeout(SOON, || signals.recv()).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut);
        });
    });
}
