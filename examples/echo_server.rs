//! A TCP server that sends back what it receives, with a task for each connection.
//!
//! ```sh
//! cargo run --example echo_server                         # until Ctrl-C; talk to it with `nc 127.0.0.1 PORT`
//! cargo run --example echo_server -- --connections 3      # until three connections have ended
//! cargo run --example echo_server -- --selftest           # with clients of its own, which check every byte
//! ```
//!
//! It prints its address first, and what it has done at the end. A task is plain code on a stack of its own, so a
//! connection is a loop of `read` and `write_all`, as it would be with a thread for each; but all of them run on one
//! thread, and share what they count without a lock.

use aio::{
    coro, is_canceled,
    net::{TcpListener, TcpStream},
    signal::{Signal, Signals},
};
use std::{
    cell::Cell,
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    process::ExitCode,
    time::Duration,
};

const HELP: &str = "\
Sends back what it receives over TCP.

usage: echo_server [--listen ADDRESS] [--connections N] [--selftest]

Without --connections it runs until Ctrl-C. ADDRESS is 127.0.0.1:0 unless it is given.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

struct Options {
    listen: String,
    connections: usize,
    selftest: bool,
}

fn main() -> ExitCode {
    let options = match arguments() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("echo_server: {error}\nusage: echo_server [--listen ADDRESS] [--connections N] [--selftest]");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, or nothing if that is help.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { listen: "127.0.0.1:0".to_owned(), connections: usize::MAX, selftest: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("listen") => options.listen = parser.value()?.string()?,
            Long("connections") => options.connections = parser.value()?.parse()?,
            Long("selftest") => options.selftest = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// The first `?` is for the runtime, which may not get an engine; what the program does inside has its own errors.
fn run(options: &Options) -> io::Result<()> {
    coro::run(|| if options.selftest { selftest() } else { serve_until_ctrl_c(options) })?
}

/// What the server has done. All tasks run on the same thread, and switch only where they wait: cells are enough.
#[derive(Default)]
struct Counts {
    connections: Cell<u64>,
    bytes: Cell<u64>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connections: {}, bytes sent back: {}", self.connections.get(), self.bytes.get())
    }
}

fn serve_until_ctrl_c(options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind(&options.listen)?;
    // Before the address is printed: who reads that may press Ctrl-C at once.
    let mut signals = Signals::new([Signal::INT])?;
    println!("listening on {}", listener.local_addr()?);

    let counts = Counts::default();
    // Whichever ends first has the other cancelled. For the server that means all its connections too.
    let race = coro::race((|| signals.recv(), || serve(&listener, options.connections, &counts)));
    match (race.winner, race.values) {
        (0, (signal, _)) => println!("ended by {}; {counts}", signal?),
        (_, (_, ())) => println!("ended; {counts}"),
    }
    Ok(())
}

/// Serves so many connections, and returns when the last of them has ended.
fn serve(listener: &TcpListener, connections: usize, counts: &Counts) {
    // The children borrow from here, so the scope waits for them. If this task is cancelled, so are they.
    coro::scope(|s| {
        let accepted = listener.incoming().filter_map(|stream| stream.inspect_err(pause).ok());
        for stream in accepted.take(connections) {
            s.spawn(move || connection(stream, counts));
        }
    });
}

/// A connection went away before it was accepted, or there are too many open files. Some may be closed meanwhile;
/// without a pause this would be tried again and again. If the task is cancelled now, so is its next wait, which ends
/// the loop that called this.
fn pause(error: &io::Error) {
    eprintln!("accepting a connection: {error}");
    let _ = coro::sleep(Duration::from_millis(50));
}

/// One connection; an error is its own, and not the server's.
fn connection(stream: TcpStream, counts: &Counts) {
    counts.connections.set(counts.connections.get() + 1);
    match echo(stream, counts) {
        Err(error) if !is_canceled(&error) => eprintln!("a connection: {error}"),
        _ => {}
    }
}

fn echo(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    // On the task's stack, which has 256 KiB unless the runtime is configured otherwise.
    let mut buffer = [0; 8 << 10];
    loop {
        // Both suspend this task, and the others run.
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
        counts.bytes.set(counts.bytes.get() + count as u64);
    }
}

const CLIENTS: usize = 200;
const MESSAGES: usize = 10;

/// The server and its clients, all in this one thread.
fn selftest() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let counts = Counts::default();
    // It should take a fraction of a second. After these ten, everything that waits gives an error instead.
    let sent = coro::timeout(Duration::from_secs(10), || {
        coro::scope(|s| {
            let server = s.spawn(|| serve(&listener, CLIENTS, &counts));
            let clients: Vec<_> = (0..CLIENTS).map(|number| move || client(address, number)).collect();
            let sent = coro::gather(clients).into_iter().sum::<io::Result<usize>>();
            // One that has failed may never have connected, and would be waited for.
            if sent.is_err() {
                server.cancel();
            }
            sent
        })
    })?;
    println!("{CLIENTS} clients sent {MESSAGES} messages each, and every byte of {sent} came back");
    println!("the server has counted: {counts}");
    if counts.bytes.get() == sent as u64 { Ok(()) } else { Err(io::Error::other("the counts differ")) }
}

/// Sends messages and checks what comes back; gives the number of bytes.
fn client(address: SocketAddr, number: usize) -> io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    let mut sent = 0;
    for message in 0..MESSAGES {
        // Of all lengths up to a few KiB, and different in each message.
        let len = 1 + (number * 37 + message * 911) % 5000;
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + number * 7 + message) as u8).collect();
        stream.write_all(&bytes)?;
        let mut answer = vec![0; len];
        stream.read_exact(&mut answer)?;
        if answer != bytes {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("message {message} of client {number} differs"),
            ));
        }
        sent += len;
    }
    // Nothing more comes back than what was sent.
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(sent),
        _ => Err(io::Error::new(ErrorKind::InvalidData, format!("client {number} was sent too much"))),
    }
}
