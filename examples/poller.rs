//! A TCP server that sends back what it receives, on readiness alone: non-blocking sockets of the standard library, one
//! loop, and a table of connections.
//!
//! ```sh
//! cargo run --example poller                      # until Ctrl-C; talk to it with `nc 127.0.0.1 PORT`
//! cargo run --example poller -- --selftest        # with clients of its own, which check every byte
//! ```
//!
//! It prints its address first, and what it has done at the end. `echo_server` is the same on tasks: there a connection
//! is a loop of `read` and `write_all`, while here it is a buffer and two questions, what is there to send and may it
//! be sent now.

use aio::{
    poller::{Event, Events, Interest, Poller, Token},
    signal::{Signal, Signals},
};
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

const HELP: &str = "\
Sends back what it receives over TCP, on readiness alone.

usage: poller [--listen ADDRESS] [--selftest]

It runs until Ctrl-C. ADDRESS is 127.0.0.1:0 unless it is given.
AIO_BACKEND=epoll|poll chooses what it waits with.";

struct Options {
    listen: String,
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
            eprintln!("poller: {error}\nusage: poller [--listen ADDRESS] [--selftest]");
            return ExitCode::from(2);
        }
    };
    match if options.selftest { selftest() } else { serve_until_ctrl_c(&options) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("poller: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, or nothing if that is help.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { listen: "127.0.0.1:0".to_owned(), selftest: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("listen") => options.listen = parser.value()?.string()?,
            Long("selftest") => options.selftest = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
/// The first connection; the others follow.
const FIRST: usize = 2;

/// While the listener rests, because there are too many open files.
const REST: Duration = Duration::from_millis(50);

struct Server {
    poller: Poller,
    listener: TcpListener,
    /// When to accept again, if not now.
    rests_until: Option<Instant>,
    /// Each has the token of its place; places of those that have ended are used again.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    accepted: u64,
    bytes: u64,
}

struct Connection {
    stream: TcpStream,
    /// Received, and not sent back from `sent` on.
    buffer: Vec<u8>,
    sent: usize,
    /// What the poller waits for.
    interest: Interest,
}

impl Server {
    fn new(address: &str) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let mut poller = Poller::new()?;
        poller.register(&listener, LISTENER, Interest::READ)?;
        let (connections, free) = (Vec::new(), Vec::new());
        Ok(Server { poller, listener, rests_until: None, connections, free, accepted: 0, bytes: 0 })
    }

    /// One turn of the loop. Gives whether it was woken.
    fn turn(&mut self, events: &mut Events, mut other: impl FnMut(Token)) -> io::Result<bool> {
        // Timers are the loop's own: the wait is as long as the next of them, here the only one, is away.
        let rest = self.rests_until.map(|until| until.saturating_duration_since(Instant::now()));
        self.poller.wait(events, rest)?;
        if self.rests_until.is_some_and(|until| until <= Instant::now()) {
            self.rests_until = None;
            self.poller.modify(&self.listener, LISTENER, Interest::READ)?;
        }
        let mut accepts = false;
        for event in &*events {
            match event.token {
                LISTENER => accepts = true,
                Token(number) if number >= FIRST => self.connection(number - FIRST, event)?,
                token => other(token),
            }
        }
        // Last, so that no connection takes the place, and the events, of one that ends in this turn.
        if accepts {
            self.accept()?;
        }
        Ok(events.woken())
    }

    fn accept(&mut self) -> io::Result<()> {
        // A few at a time, so that the others have their turn too. In level mode the rest is told again.
        for _ in 0..16 {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    self.accepted += 1;
                    let place = self.free.pop().unwrap_or(self.connections.len());
                    if place == self.connections.len() {
                        self.connections.push(None);
                    }
                    self.poller.register(&stream, FIRST + place, Interest::READ)?;
                    let (buffer, interest) = (Vec::with_capacity(8 << 10), Interest::READ);
                    self.connections[place] = Some(Connection { stream, buffer, sent: 0, interest });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It went away before it was accepted, or there are too many open files. Without a rest the listener
                // would be told ready, and tried, again and again.
                Err(error) => {
                    eprintln!("accepting a connection: {error}");
                    self.poller.modify(&self.listener, LISTENER, Interest::empty())?;
                    self.rests_until = Some(Instant::now() + REST);
                    break;
                }
            }
        }
        Ok(())
    }

    fn connection(&mut self, place: usize, event: &Event) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        let wanted = match connection.echo(event, &mut self.bytes) {
            Ok(wanted) => wanted,
            // A connection's error is its own, and not the server's.
            Err(error) => {
                eprintln!("a connection: {error}");
                None
            }
        };
        match wanted {
            Some(wanted) if wanted == connection.interest => {}
            Some(wanted) => {
                self.poller.modify(&connection.stream, FIRST + place, wanted)?;
                connection.interest = wanted;
            }
            None => {
                // Before it is closed, which it is by being taken out of the table.
                self.poller.delete(&connection.stream)?;
                self.connections[place] = None;
                self.free.push(place);
            }
        }
        Ok(())
    }

    fn counted(&self) -> String {
        format!("connections: {}, bytes sent back: {}", self.accepted, self.bytes)
    }
}

impl Connection {
    /// Does what can be done without waiting. Gives what to wait for next, or nothing at the end.
    fn echo(&mut self, event: &Event, bytes: &mut u64) -> io::Result<Option<Interest>> {
        if event.can_read() && self.sent == self.buffer.len() {
            self.buffer.resize(8 << 10, 0);
            self.sent = 0;
            let received = self.stream.read(&mut self.buffer);
            self.buffer.truncate(*received.as_ref().unwrap_or(&0));
            match received {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // It was ready, but that was no promise.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        while self.sent < self.buffer.len() {
            match self.stream.write(&self.buffer[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    *bytes += count as u64;
                }
                // The client does not take it fast enough. Nothing more is read before it does, so that the buffer
                // does not grow.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(Interest::WRITE)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Interest::READ))
    }
}

fn serve_until_ctrl_c(options: &Options) -> io::Result<()> {
    let mut server = Server::new(&options.listen)?;
    // Before the address is printed: who reads that may press Ctrl-C at once.
    let mut signals = Signals::new([Signal::INT])?;
    server.poller.register(&signals, SIGNALS, Interest::READ)?;
    println!("listening on {}", server.listener.local_addr()?);

    let mut events = Events::with_capacity(1024);
    loop {
        let mut signal = None;
        server.turn(&mut events, |token| {
            if token == SIGNALS {
                signal = signals.try_recv();
            }
        })?;
        if let Some(signal) = signal {
            println!("ended by {signal}; {}", server.counted());
            return server.poller.delete(&signals);
        }
    }
}

const CLIENTS: usize = 50;
const MESSAGES: usize = 10;

/// The server in this thread, its clients in others.
fn selftest() -> io::Result<()> {
    let mut server = Server::new("127.0.0.1:0")?;
    let (address, waker) = (server.listener.local_addr()?, server.poller.waker());
    let clients = thread::spawn(move || {
        let clients: Vec<_> = (0..CLIENTS).map(|number| thread::spawn(move || client(address, number))).collect();
        let sent = clients.into_iter().map(|client| client.join().unwrap()).sum::<io::Result<usize>>();
        waker.wake();
        sent
    });
    let mut events = Events::with_capacity(1024);
    while !server.turn(&mut events, |_| {})? {}
    let sent = clients.join().unwrap()?;
    println!("{CLIENTS} clients sent {MESSAGES} messages each, and every byte of {sent} came back");
    println!("the server has counted: {}", server.counted());
    if server.bytes == sent as u64 { Ok(()) } else { Err(io::Error::other("the counts differ")) }
}

/// Sends messages and checks what comes back; gives the number of bytes.
fn client(address: SocketAddr, number: usize) -> io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut sent = 0;
    for message in 0..MESSAGES {
        // Of all lengths up to some tens of KiB, more than a buffer, and different in each message.
        let len = 1 + (number * 3701 + message * 911) % 50_000;
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
