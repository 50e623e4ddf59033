//! Forwards TCP connections to another server, without copying what they carry through this program. Linux only.
//!
//! ```sh
//! cargo run --example tcp_proxy -- 127.0.0.1:8080                             # until Ctrl-C
//! cargo run --example tcp_proxy -- localhost:8080 --listen 127.0.0.1:9090
//! cargo run --example tcp_proxy -- --selftest         # with an upstream and clients of its own, checking every byte
//! ```
//!
//! It prints its address first, a line for each connection that has ended, and a last one at Ctrl-C. Each connection
//! has two tasks, one for each direction, which `Splice` the bytes from one socket into a pipe and from there into the
//! other socket. The directions end separately: who has sent everything may still be waiting for the answer.

use aio::{
    coro, is_canceled,
    net::{TcpListener, TcpStream},
    op::{Op as _, Poll, PollEvents, Splice},
    signal::{Signal, Signals},
};
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    process::ExitCode,
    time::Duration,
};

/// What a pipe holds.
const CHUNK: u32 = 64 << 10;

const HELP: &str = "\
Forwards TCP connections to another server, until Ctrl-C.

usage: tcp_proxy UPSTREAM [--listen ADDRESS]
       tcp_proxy --selftest

UPSTREAM is HOST:PORT. ADDRESS is 127.0.0.1:0 unless it is given.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

enum Task {
    Help,
    Selftest,
    Forward { listen: String, upstream: String },
}

fn main() -> ExitCode {
    let task = match arguments() {
        Ok(task) => task,
        Err(error) => {
            eprintln!("tcp_proxy: {error}\nusage: tcp_proxy UPSTREAM [--listen ADDRESS]\n       tcp_proxy --selftest");
            return ExitCode::from(2);
        }
    };
    match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp_proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Task, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut listen, mut upstream, mut selftest) = ("127.0.0.1:0".to_owned(), None, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Task::Help),
            Long("selftest") => selftest = true,
            Long("listen") => listen = parser.value()?.string()?,
            Value(address) if upstream.is_none() => upstream = Some(address.string()?),
            other => return Err(other.unexpected()),
        }
    }
    match upstream {
        None if selftest => Ok(Task::Selftest),
        Some(upstream) if !selftest => Ok(Task::Forward { listen, upstream }),
        _ => Err("either an upstream or --selftest is needed".into()),
    }
}

/// The first `?` of each is for the runtime, which may not get an engine; what happens inside has its own errors.
fn run(task: &Task) -> io::Result<()> {
    match task {
        Task::Help => println!("{HELP}"),
        Task::Selftest => coro::run(selftest)??,
        Task::Forward { listen, upstream } => coro::run(|| serve_until_ctrl_c(listen, upstream))??,
    }
    Ok(())
}

fn serve_until_ctrl_c(listen: &str, upstream: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    // Before the address is printed: who reads that may press Ctrl-C at once.
    let mut signals = Signals::new([Signal::INT])?;
    println!("listening on {}, forwarding to {upstream}", listener.local_addr()?);
    // The server never ends by itself: the signal does it, and cancels all connections.
    let (signal, ()) = coro::race((|| signals.recv(), || serve(&listener, |stream| proxy(stream, upstream)))).values;
    println!("ended by {}", signal?);
    Ok(())
}

/// Has `connection` run for each connection, in a task of its own, until this one is cancelled.
fn serve(listener: &TcpListener, connection: impl Fn(TcpStream) -> io::Result<()>) {
    let connection = &connection;
    coro::scope(|s| {
        for stream in listener.incoming().filter_map(|stream| stream.inspect_err(pause).ok()) {
            s.spawn(move || match connection(stream) {
                Err(error) if !is_canceled(&error) => eprintln!("a connection: {error}"),
                _ => {}
            });
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

fn proxy(client: TcpStream, upstream: &str) -> io::Result<()> {
    let peer = client.peer_addr()?;
    let server = TcpStream::connect(upstream)?;
    let (sent, received) = coro::scope(|s| {
        // If one direction fails there is no use in the other, so it is cancelled. If it ends, the other goes on.
        let sent = s.spawn(|| forward(&client, &server).inspect_err(|_| s.cancel()));
        let received = s.spawn(|| forward(&server, &client).inspect_err(|_| s.cancel()));
        Ok::<_, io::Error>((sent.join()?, received.join()?))
    })?;
    // Of two errors, one may just be the cancellation by the other.
    let (sent, received) = match (sent, received) {
        (Err(first), Err(second)) => return Err(if is_canceled(&first) { second } else { first }),
        (sent, received) => (sent?, received?),
    };
    println!("{peer}: {sent} bytes to the upstream, {received} back");
    Ok(())
}

/// One direction, to its end; gives the number of bytes.
fn forward(from: &TcpStream, to: &TcpStream) -> io::Result<u64> {
    // `splice(2)` is between a pipe and something else. What goes through stays in the kernel.
    let (output, input) = io::pipe()?;
    let mut total = 0;
    loop {
        // A splice that has to wait keeps a thread of the kernel waiting with io_uring; a poll does not. So that comes
        // first, linked to the splice: both are submitted at once, and the task wakes up when the bytes are there.
        let ready = Poll::new(from, PollEvents::IN);
        // Of the two operations' errors it does not matter which it was.
        let (_, count) = aio::multi((ready.link(), Splice::new(from, &input, CHUNK))).map_err(|failed| failed.error)?;
        if count == 0 {
            break;
        }
        total += count as u64;
        // As much as is in the pipe. A slow receiver takes less at a time; waiting for it slows the sender down, too.
        let mut left = count;
        while left > 0 {
            left -= aio::single(Splice::new(&output, to, left as u32))?;
        }
    }
    // The end is passed on like the bytes. The other direction stays open.
    to.shutdown(Shutdown::Write)?;
    Ok(total)
}

const CLIENTS: usize = 4;
const BYTES: usize = 4 << 20;

/// The upstream, the proxy and the clients, all in this one thread.
fn selftest() -> io::Result<()> {
    let (upstream, proxied) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (upstream_address, address) = (upstream.local_addr()?.to_string(), proxied.local_addr()?);
    let all_clients = || -> io::Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|number| move || client(address, number)).collect();
        coro::gather(clients).into_iter().collect()
    };
    // The servers never end by themselves: when the clients have, or after half a minute, they are cancelled.
    let race = coro::timeout(Duration::from_secs(30), || {
        coro::race((
            all_clients,
            || serve(&upstream, echo_and_count),
            || serve(&proxied, |stream| proxy(stream, &upstream_address)),
        ))
    });
    let (checked, (), ()) = race.values;
    checked?;
    println!("{CLIENTS} clients sent {} MiB each through the proxy, and every byte came back", BYTES >> 20);
    Ok(())
}

/// The upstream: sends back what it gets, and after the end of that says how much it was.
fn echo_and_count(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return writeln!(stream, "{total} bytes");
        }
        stream.write_all(&buffer[..count])?;
        total += count;
    }
}

/// Sends and receives at the same time, for neither the proxy nor the upstream holds so much.
fn client(address: SocketAddr, number: usize) -> io::Result<()> {
    let bytes: Vec<u8> = (0..BYTES).map(|i| (i * 31 + i / 251 * 7 + number) as u8).collect();
    let stream = TcpStream::connect(address)?;
    let send = || {
        (&stream).write_all(&bytes)?;
        // The upstream says how much it got when it sees this end, and not before; its answer still comes.
        stream.shutdown(Shutdown::Write)
    };
    let receive = || {
        let mut answer = Vec::with_capacity(BYTES + 64);
        (&stream).read_to_end(&mut answer)?;
        Ok::<_, io::Error>(answer)
    };
    let (sent, answer) = coro::gather((send, receive));
    sent?;
    match answer?.split_at_checked(BYTES) {
        Some((echo, total)) if echo == bytes && total == format!("{BYTES} bytes\n").as_bytes() => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, format!("what came back to client {number} differs"))),
    }
}
