//! The clients: each connects, sends, checks what comes back, and goes in one way or another, again and again.

use crate::{Options, resources};
use aio::{
    Error, coro,
    op::{Address, Connect, Domain, Recv, Send, SetSockOpt, Shutdown, Socket, SocketType, option},
};
use std::{
    cell::Cell,
    io,
    net::{self, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// Numbers that look random and are the same each time (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % end.max(1)
    }
}

/// What the server is to do with a connection; its first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Plain,
    /// Receive by one operation into buffers of a pool.
    Chunks,
    /// Break off when a time limit is over.
    Late,
    /// Cancel what waits.
    Canceled,
}

impl Mode {
    pub fn of(byte: u8) -> Mode {
        [Mode::Plain, Mode::Chunks, Mode::Late, Mode::Canceled][usize::from(byte % 4)]
    }
}

/// No session takes this long, on however busy a machine; one that does hangs.
const HANGS: Duration = Duration::from_secs(120);
const LONGEST: u64 = 6_000;

#[derive(Default)]
struct Clients {
    opened: Cell<u64>,
    bytes: Cell<u64>,
    cut: Cell<u64>,
    given_up: Cell<u64>,
    reset: Cell<u64>,
    retries: Cell<u64>,
    most: Cell<usize>,
    now: Cell<usize>,
}

pub fn run(options: &Options) -> io::Result<()> {
    resources::allow_descriptors(options.connections + 100)?;
    let addresses = options.clients_of.iter().map(|text| match text.parse::<SocketAddr>() {
        Ok(address) => Ok(Address::from(address)),
        Err(_) => Address::unix(text),
    });
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    let before = resources::Census::settled();
    let (clients, end) = (Clients::default(), Instant::now() + Duration::from_secs(options.seconds));
    let config = coro::Config::new().stack_size(64 << 10);
    config.run(|| {
        coro::try_scope(|s| {
            let tasks = (0..options.connections).map(|number| {
                let (clients, addresses) = (&clients, &addresses);
                let seed = options.seed.wrapping_mul(1 << 20).wrapping_add(number as u64);
                s.spawn(move || clients.sessions(options, addresses, Random::new(seed), end))
            });
            let tasks = tasks.collect::<Vec<_>>();
            let mut results =
                tasks.into_iter().map(|task| task.join().map_err(|error| io::Error::other(error.to_string()))?);
            // The first one that has failed ends all.
            results.try_for_each(|result| result).inspect_err(|_| s.cancel())
        })
    })???;
    let left = before.left();
    if !left.is_empty() {
        return Err(io::Error::other(format!("the clients have left {left:?}")));
    }
    let [opened, bytes, cut, given_up, reset, retries] =
        [&clients.opened, &clients.bytes, &clients.cut, &clients.given_up, &clients.reset, &clients.retries]
            .map(Cell::get);
    if let Some(total) = options.total.filter(|total| opened < *total) {
        return Err(io::Error::other(format!("there was time for {opened} connections only, and not for {total}")));
    }
    println!(
        "{opened} connections ({} at a time), {bytes} bytes came back right, {reset} reset, {given_up} given up, {cut} \
         cut off by the server, {retries} retries",
        clients.most.get()
    );
    Ok(())
}

/// A connection of a client, and the bytes that are to come back.
struct Session<'a> {
    clients: &'a Clients,
    socket: OwnedFd,
    tcp: bool,
    expected: Vec<u8>,
}

impl Clients {
    fn sessions(&self, options: &Options, addresses: &[Address], mut random: Random, end: Instant) -> io::Result<()> {
        // Not all at the same moment, which would be a test of the backlog.
        coro::sleep(Duration::from_millis(random.below(1 + options.connections as u64 / 10)))?;
        while Instant::now() < end && options.total.is_none_or(|total| self.opened.get() < total) {
            let address = &addresses[random.below(addresses.len() as u64) as usize];
            coro::timeout(HANGS, || self.session(options, address, &mut random)).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::TimedOut => io::Error::other("a session hangs"),
                    _ => error,
                }
            })?;
        }
        Ok(())
    }

    fn session(&self, options: &Options, address: &Address, random: &mut Random) -> io::Result<()> {
        let (socket, tcp) = self.connect(address)?;
        self.opened.set(self.opened.get() + 1);
        self.now.set(self.now.get() + 1);
        self.most.set(self.most.get().max(self.now.get()));
        let mut session = Session { clients: self, socket, tcp, expected: vec![] };
        let kind = random.below(16);
        let result = match kind {
            0 => session.until_cut(Mode::Late, random),
            1 => session.until_cut(Mode::Canceled, random),
            2 => {
                let limit = Duration::from_micros(random.below(5_000));
                match coro::timeout(limit, || session.talk(options, Mode::Plain, random)) {
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        self.given_up.set(self.given_up.get() + 1);
                        Ok(())
                    }
                    result => result,
                }
            }
            _ => {
                let mode = if kind.is_multiple_of(2) { Mode::Plain } else { Mode::Chunks };
                session.talk(options, mode, random).and_then(|()| session.leave(kind, random))
            }
        };
        self.now.set(self.now.get() - 1);
        result
    }

    /// A backlog that is full, and ports that are used up for a moment, are no faults.
    fn connect(&self, address: &Address) -> io::Result<(OwnedFd, bool)> {
        let tcp = matches!(address, Address::V4(_));
        let domain = if tcp { Domain::V4 } else { Domain::Unix };
        loop {
            let socket = aio::single(Socket::new(domain, SocketType::Stream))?;
            match aio::single(Connect::new(&socket, address)) {
                Ok(()) => return Ok((socket, tcp)),
                Err(Error::Os(errno)) if [libc::EAGAIN, libc::EADDRNOTAVAIL].contains(&errno.raw()) => {
                    self.retries.set(self.retries.get() + 1);
                    drop(socket);
                    coro::sleep(Duration::from_millis(10))?;
                }
                Err(error) => return Err(at("connecting", error)),
            }
        }
    }
}

/// An error with what was done.
fn at(what: &str, error: Error) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Whether the other side has gone, by an error that says so.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl Session<'_> {
    fn talk(&mut self, options: &Options, mode: Mode, random: &mut Random) -> io::Result<()> {
        for number in 0..=random.below(options.messages) {
            self.send(mode, number == 0, random)?;
            self.receive_all()?;
            coro::sleep(Duration::from_millis(random.below(options.pause + 1)))?;
        }
        Ok(())
    }

    fn send(&mut self, mode: Mode, first: bool, random: &mut Random) -> io::Result<()> {
        let mut message: Vec<u8> = (0..=random.below(LONGEST)).map(|_| random.below(256) as u8).collect();
        if first {
            message[0] = message[0] / 4 * 4 + mode as u8;
        }
        let mut sent = 0;
        self.expected.extend(&message);
        while sent < message.len() {
            sent += aio::single(Send::new(&self.socket, &message[sent..])).map_err(|error| at("sending", error))?;
        }
        Ok(())
    }

    /// Some of what is expected; 0 at the end of the stream.
    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = vec![0; 4096];
        let received = aio::single(Recv::new(&self.socket, &mut buffer[..]));
        let count = received.map_err(|error| at("receiving", error))?;
        if self.expected.get(..count) != Some(&buffer[..count]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "other bytes came back than were sent"));
        }
        self.expected.drain(..count);
        self.clients.bytes.set(self.clients.bytes.get() + count as u64);
        Ok(count)
    }

    fn receive_all(&mut self) -> io::Result<()> {
        while !self.expected.is_empty() {
            if self.receive()? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has ended a connection"));
            }
        }
        Ok(())
    }

    /// Goes on until the server breaks off, which it was asked for.
    fn until_cut(&mut self, mode: Mode, random: &mut Random) -> io::Result<()> {
        let mut talk = || {
            self.send(mode, true, random)?;
            let talks = random.below(2) == 0;
            loop {
                match self.receive() {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
                if talks && self.expected.is_empty() {
                    self.send(mode, false, random)?;
                }
            }
        };
        match talk() {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => self.clients.cut.set(self.clients.cut.get() + 1),
        }
        Ok(())
    }

    fn leave(&mut self, kind: u64, random: &mut Random) -> io::Result<()> {
        match kind % 5 {
            // Says that nothing more comes, gets the rest, and then the end and nothing else.
            0 | 1 => {
                self.send(Mode::Plain, false, random)?;
                aio::single(Shutdown::new(&self.socket, net::Shutdown::Write))?;
                self.receive_all()?;
                if self.receive()? != 0 {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "more came back than was sent"));
                }
            }
            2 => self.reset()?,
            // With bytes under way, in both directions.
            3 => {
                self.send(Mode::Plain, false, random)?;
                self.reset()?;
            }
            _ => self.send(Mode::Plain, false, random)?,
        }
        Ok(())
    }

    /// Closing it will be a reset, which also leaves no port behind in `TIME_WAIT`.
    fn reset(&self) -> io::Result<()> {
        if self.tcp {
            aio::single(SetSockOpt::new(&self.socket, option::Linger, Some(Duration::ZERO)))?;
        }
        self.clients.reset.set(self.clients.reset.get() + 1);
        Ok(())
    }
}
