//! The library at work on real files and sockets, on every engine that this system has:
//! `cargo run --release --example immediate`.
//!
//! It reads files of this repository in one batch, and exchanges messages over a TCP connection to itself in linked
//! batches. After each step it prints how many system calls that took. With `AIO_BACKEND=io_uring|epoll|poll` it uses
//! that engine only.

use aio::{Backend, Config, Shared, Stats, op::*};
use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind},
    net::TcpListener,
    os::fd::OwnedFd,
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    // What the environment demands is left to the library, which then chooses it by itself.
    let demanded = env::var_os("AIO_BACKEND").is_some_and(|name| !name.is_empty() && name != "auto");
    let backends = if demanded { &[Backend::Auto][..] } else { &[Backend::IoUring, Backend::Epoll, Backend::Poll] };
    let mut worked = 0;
    for &backend in backends {
        match Config::new().backend(backend).run(demonstrate) {
            Ok(Ok(())) => worked += 1,
            Ok(Err(error)) => {
                eprintln!("\nfailed: {error}");
                return ExitCode::FAILURE;
            }
            // Not every system has all of them; but what was asked for by name has to work.
            Err(why) if demanded => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
            Err(why) => println!("{backend}\n  left out: {why}\n"),
        }
    }
    println!("{worked} of {} engines used, all with the same results.", backends.len());
    println!("System calls are those that aio::stats() counts; docs/profiling.md says what it leaves out.");
    if worked > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn demonstrate() -> io::Result<()> {
    // The first operation of an engine; what it takes to set one up is not what the counts below are about.
    aio::single(Nop::new())?;
    println!("{}", aio::stats().backend.unwrap_or_default());
    read_files()?;
    let (client, server) = connect()?;
    exchange(&client, &server)?;
    println!();
    Ok(())
}

/// Prints what a step took.
fn report(before: Stats) {
    let cost = aio::stats() - before;
    let mut parts = Vec::new();
    for (count, what) in [
        (cost.enters, "io_uring_enter"),
        (cost.direct, "for single operations"),
        (cost.waits, "to wait for readiness"),
        (cost.registrations, "epoll_ctl"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let calls = cost.system_calls();
    print!("    {calls} system call{}", if calls == 1 { "" } else { "s" });
    print!("{}{}", if parts.is_empty() { "" } else { ": " }, parts.join(", "));
    if cost.jobs > 0 {
        print!("; and {} by worker threads", cost.jobs);
    }
    println!();
}

/// Whole files, one operation each, in one batch.
fn read_files() -> io::Result<()> {
    let names = ["Cargo.toml", "README.md", "src/lib.rs", "LICENSE-APACHE"];
    println!("  reading {} files in one batch", names.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let expected: Vec<Vec<u8>> = names.iter().map(|name| fs::read(root.join(name))).collect::<Result<_, _>>()?;
    let files: Vec<File> = names.iter().map(|name| File::open(root.join(name))).collect::<Result<_, _>>()?;
    let mut buffers: Vec<Vec<u8>> = expected.iter().map(|bytes| vec![0; bytes.len()]).collect();

    let before = aio::stats();
    let reads = files.iter().zip(&mut buffers).map(|(file, buffer)| Read::new(file, &mut buffer[..]).at(0));
    let counts = aio::multi(reads.collect::<Vec<_>>())?;

    for (name, count) in names.iter().zip(counts) {
        println!("    {name:<16} {count:>6} bytes");
    }
    report(before);
    if buffers == expected { Ok(()) } else { Err(io::Error::other("the files were read wrongly")) }
}

/// A TCP connection of this process to itself: what it takes to connect, in two batches of linked operations.
fn connect() -> io::Result<(OwnedFd, OwnedFd)> {
    println!("  connecting over the loopback interface");
    let before = aio::stats();
    let tcp = || Socket::new(Domain::V4, SocketType::Stream);
    let (socket, client) = aio::multi((tcp(), tcp()))?;
    // Listening is of no use if binding has failed: a link.
    aio::multi((Bind::new(&socket, ([127, 0, 0, 1], 0)).link(), Listen::new(&socket, 1)))?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    // Both ends at once, and no thread for either: each waits for the other.
    let (accepted, ()) = aio::multi((Accept::new(&listener), Connect::new(&client, address)))?;
    println!("    socket ×2, bind → listen, accept + connect");
    report(before);
    Ok((client, accepted.into()))
}

/// Questions and answers. Each is one batch of two chains; the server's knows the question only when it has run.
fn exchange(client: &OwnedFd, server: &OwnedFd) -> io::Result<()> {
    const MESSAGES: usize = 3;
    println!("  exchanging {MESSAGES} messages, each in one batch: client send → recv, server recv → send");
    let before = aio::stats();
    for i in 1..=MESSAGES {
        let question = format!("message {i}");
        let (mut answer, mut bytes) = (vec![0; question.len()], vec![0; question.len()]);
        // The server answers with what it received, so two operations name the same buffer.
        let echo = Shared::new(&mut bytes);
        let ((sent, answered), (received, returned)) = aio::multi((
            (Send::new(client, &question).link(), Recv::new(client, &mut answer[..]).flags(RecvFlags::WAITALL)),
            (Recv::new(server, &echo).link(), Send::new(server, &echo)),
        ))?;
        if [sent, answered, received, returned] != [question.len(); 4] || answer != question.as_bytes() {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("the answer to {question:?} is wrong")));
        }
        println!("    {question:?} came back");
    }
    report(before);
    Ok(())
}
