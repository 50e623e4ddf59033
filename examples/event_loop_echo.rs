//! A TCP server that sends back what it receives, in callback style: an event loop, and operations that start
//! themselves or each other again.
//!
//! ```sh
//! cargo run --example event_loop_echo                         # until Ctrl-C; talk to it with `nc 127.0.0.1 PORT`
//! cargo run --example event_loop_echo -- --connections 3      # until three connections have ended
//! ```
//!
//! It prints its address first, and what it has done at the end. `echo_server` is the same with a task for each
//! connection. Here one is an operation in flight, whose callback owns nothing: socket and buffer go from operation to
//! operation.
//!
//! - One `AcceptMulti` gives connection after connection, as events of the loop.
//! - A receive's callback submits a send, and is over. The callback of a send that was short gives the rest again, in
//!   the same place; that of the last part submits a receive.
//! - `run` calls all of them, until one calls `stop`.

use aio::{
    Error, Queue,
    op::{AcceptMulti, Poll, PollEvents, Recv, Send, Timeout},
    queue::{Done, Shot, Then, Token},
    signal::{Signal, Signals},
};
use std::{
    cell::Cell,
    fmt, io,
    net::{TcpListener, TcpStream},
    process::ExitCode,
    time::Duration,
};

const HELP: &str = "\
Sends back what it receives over TCP, in callback style.

usage: event_loop_echo [--listen ADDRESS] [--connections N]

Without --connections it runs until Ctrl-C. ADDRESS is 127.0.0.1:0 unless it is given.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

/// Connections at a time, and what else is in flight: the accept, the wait for a signal, and one place more, because a
/// callback that submits has its own place still.
const PLACES: u32 = 1024 + 3;

struct Options {
    listen: String,
    connections: u64,
}

fn main() -> ExitCode {
    let options = match arguments() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("event_loop_echo: {error}\nusage: event_loop_echo [--listen ADDRESS] [--connections N]");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("event_loop_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, or nothing if that is help.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { listen: "127.0.0.1:0".to_owned(), connections: u64::MAX };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("listen") => options.listen = parser.value()?.string()?,
            Long("connections") => options.connections = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// What the loop itself sees. Everything else is handled by callbacks.
enum Event {
    Accepted(Shot<AcceptMulti<TcpListener>>),
    /// There were too many open files, and some time has passed.
    Rested(AcceptMulti<TcpListener>),
}

/// Its operations and callbacks live for `'q`, and may borrow what lives longer: here the [`Server`].
type Loop<'q> = Queue<'q, Event>;

/// What is shared. Everything happens on one thread: cells are enough.
#[derive(Default)]
struct Server {
    wanted: u64,
    accepted: Cell<u64>,
    ended: Cell<u64>,
    bytes: Cell<u64>,
    signal: Cell<Option<Signal>>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connections: {}, bytes sent back: {}", self.accepted.get(), self.bytes.get())
    }
}

fn run(options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind(&options.listen)?;
    // Before the address is printed: who reads that may press Ctrl-C at once.
    let signals = Signals::new([Signal::INT])?;
    println!("listening on {}", listener.local_addr()?);
    if options.connections == 0 {
        println!("ended; {}", Server::default());
        return Ok(());
    }

    let server = Server { wanted: options.connections, ..Server::default() };
    // What is submitted in the scope may borrow the server.
    Queue::scope(PLACES, |queue| server.serve(queue, listener, signals))??;
    match server.signal.get() {
        Some(signal) => println!("ended by {signal}; {server}"),
        None => println!("ended; {server}"),
    }
    Ok(())
}

impl Server {
    fn serve<'q>(&'q self, queue: &Loop<'q>, listener: TcpListener, signals: Signals) -> io::Result<()> {
        let mut accept = queue.submit_multi(AcceptMulti::new(listener), Event::Accepted)?;
        // The poll owns the stream of signals, and its callback has it back.
        queue.submit_callback(Poll::new(signals, PollEvents::IN), |queue, done| {
            let mut signals = done.op.into_descriptor();
            self.signal.set(signals.try_recv());
            match self.signal.get() {
                Some(_) => {
                    queue.stop();
                    Then::End
                }
                None => Then::Again(Poll::new(signals, PollEvents::IN)),
            }
        })?;
        queue.run(|_, event| match event {
            Event::Accepted(Shot { result: Ok(connection), .. }) => self.accepted(queue, accept, connection.into()),
            Event::Accepted(Shot { result: Err(error), op, .. }) => {
                if let Some(op) = op.filter(|_| error != Error::Canceled) {
                    eprintln!("accepting a connection: {error}");
                    // Some files may be closed meanwhile; without a pause this would be tried again and again.
                    let rest = Timeout::after(Duration::from_millis(50));
                    submitted(queue.submit(rest, move |_| Event::Rested(op)));
                }
            }
            Event::Rested(op) => accept = submitted(queue.submit_multi(op, Event::Accepted)),
        })?;
        Ok(())
    }

    fn accepted<'q>(&'q self, queue: &Loop<'q>, accept: Token, stream: TcpStream) {
        if self.accepted.get() == self.wanted {
            // It came while the accept was being cancelled. Closed.
            return;
        }
        if queue.reserve(2).is_err() {
            return eprintln!("a connection: there are too many");
        }
        self.accepted.set(self.accepted.get() + 1);
        if self.accepted.get() == self.wanted {
            let _ = queue.cancel(accept);
        }
        self.receive(queue, stream, vec![0; 8 << 10]);
    }

    /// Waits for bytes, and sends them back.
    fn receive<'q>(&'q self, queue: &Loop<'q>, stream: TcpStream, buffer: Vec<u8>) {
        let callback = |queue: &Loop<'q>, Done { result, op }: Done<Recv<TcpStream, Vec<u8>>>| {
            let (stream, mut buffer) = op.into_parts();
            match result {
                Ok(0) => self.ended(queue, None),
                Ok(count) => {
                    buffer.truncate(count);
                    self.send(queue, stream, buffer);
                }
                Err(error) => self.ended(queue, Some(error)),
            }
            Then::End
        };
        submitted(queue.submit_callback(Recv::new(stream, buffer), callback));
    }

    /// Sends all bytes, and receives more.
    fn send<'q>(&'q self, queue: &Loop<'q>, stream: TcpStream, buffer: Vec<u8>) {
        let callback = |queue: &Loop<'q>, Done { result, mut op }: Done<Send<TcpStream, Vec<u8>>>| {
            match result {
                Ok(count) => {
                    self.bytes.set(self.bytes.get() + count as u64);
                    op.buf_mut().drain(..count);
                    if !op.buf().is_empty() {
                        return Then::Again(op);
                    }
                    let (stream, mut buffer) = op.into_parts();
                    buffer.resize(buffer.capacity(), 0);
                    self.receive(queue, stream, buffer);
                }
                Err(error) => self.ended(queue, Some(error)),
            }
            Then::End
        };
        submitted(queue.submit_callback(Send::new(stream, buffer), callback));
    }

    /// A connection has ended; an error is its own, and not the server's.
    fn ended(&self, queue: &Loop<'_>, error: Option<Error>) {
        if let Some(error) = error {
            eprintln!("a connection: {error}");
        }
        self.ended.set(self.ended.get() + 1);
        if self.ended.get() == self.wanted {
            queue.stop();
        }
    }
}

/// There is a place for everything, because a connection was let in only if there was.
fn submitted<T, O, M>(result: Result<T, aio::queue::NotSubmitted<O, M>>) -> T {
    result.expect("a place for each connection, and one more")
}
