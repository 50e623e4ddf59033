//! A UDP server that sends back what it receives.
//!
//! ```sh
//! cargo run --example udp_echo                    # until Ctrl-C; talk to it with `nc -u 127.0.0.1 PORT`
//! cargo run --example udp_echo -- --selftest      # with clients of its own, which check every datagram
//! ```
//!
//! It prints its address first, and what it has done at the end. The clients show what one has to do by oneself with
//! UDP: a datagram may be lost, so they wait for an answer for some time only, and send again.

use aio::{
    coro, is_canceled,
    net::UdpSocket,
    signal::{Signal, Signals},
};
use std::{
    cell::Cell,
    io::{self, ErrorKind},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

const HELP: &str = "\
Sends back what it receives over UDP, until Ctrl-C.

usage: udp_echo [--listen ADDRESS] [--selftest]

ADDRESS is 127.0.0.1:0 unless it is given.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

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
            eprintln!("udp_echo: {error}\nusage: udp_echo [--listen ADDRESS] [--selftest]");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp_echo: {error}");
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

/// The first `?` is for the runtime, which may not get an engine; what the program does inside has its own errors.
fn run(options: &Options) -> io::Result<()> {
    coro::run(|| if options.selftest { selftest() } else { serve_until_ctrl_c(options) })?
}

fn serve_until_ctrl_c(options: &Options) -> io::Result<()> {
    let socket = UdpSocket::bind(&options.listen)?;
    // Before the address is printed: who reads that may press Ctrl-C at once.
    let mut signals = Signals::new([Signal::INT])?;
    println!("listening on {}", socket.local_addr()?);
    let count = Cell::new(0);
    let race = coro::race((|| signals.recv(), || echo(&socket, &count)));
    match (race.winner, race.values) {
        (0, (signal, _)) => println!("ended by {}; datagrams sent back: {}", signal?, count.get()),
        (_, (_, served)) => served?,
    }
    Ok(())
}

/// Sends back what comes, until it is cancelled.
fn echo(socket: &UdpSocket, count: &Cell<u64>) -> io::Result<()> {
    // As long as a datagram can be. What does not fit would be lost.
    let mut buffer = vec![0; 65_535];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        match socket.send_to(&buffer[..len], from) {
            Ok(_) => count.set(count.get() + 1),
            Err(error) if is_canceled(&error) => return Err(error),
            // This one cannot be answered (its port may be 0, which nobody can send to); the next one may.
            Err(error) => eprintln!("answering {from}: {error}"),
        }
    }
}

const CLIENTS: usize = 50;
const MESSAGES: usize = 20;
/// How long an answer may take before the message is sent again, and how often it is sent.
const PATIENCE: Duration = Duration::from_millis(250);
const TRIES: usize = 20;

/// The server and its clients, all in this one thread.
fn selftest() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    let count = Cell::new(0);
    let all_clients = || {
        let clients: Vec<_> = (0..CLIENTS).map(|number| move || client(address, number)).collect();
        coro::gather(clients).into_iter().sum::<io::Result<usize>>()
    };
    // The server never ends by itself: when the clients have, it is cancelled.
    let race = coro::race((|| echo(&socket, &count), all_clients));
    let (served, repeated) = race.values;
    if race.winner == 0 {
        return served;
    }
    let repeated = repeated?;
    println!("{CLIENTS} clients sent {MESSAGES} messages each, and each came back as it was; repeated: {repeated}");
    println!("the server has counted: datagrams sent back: {}", count.get());
    Ok(())
}

/// Sends messages one by one, and checks what comes back; gives how many had to be sent again.
fn client(address: SocketAddr, number: usize) -> io::Result<usize> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    // From now on it receives from this address only.
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut repeated = 0;
    for message in 0..MESSAGES {
        repeated += exchange(&socket, number, message)?;
    }
    Ok(repeated)
}

/// One message and its answer; gives how often it was sent again.
fn exchange(socket: &UdpSocket, number: usize, message: usize) -> io::Result<usize> {
    // It begins with its number, by which a late answer to an earlier one is recognised. Up to a kilobyte follows.
    let head = [number as u8, message as u8];
    let body = (0..(number * 31 + message * 97) % 1000).map(|i| (i * 13 + number + message) as u8);
    let bytes: Vec<u8> = head.into_iter().chain(body).collect();
    let mut buffer = [0; 2048];
    for tries in 0..TRIES {
        socket.send(&bytes)?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(len) if buffer[..len] == bytes => return Ok(tries),
                // The answer to an earlier message, which was sent twice because the first seemed to be lost.
                Ok(2..) if buffer[0] == head[0] && buffer[1] < head[1] => {}
                Ok(_) => {
                    let what = format!("message {message} of client {number} came back changed");
                    return Err(io::Error::new(ErrorKind::InvalidData, what));
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, format!("message {message} of client {number} was never answered")))
}
