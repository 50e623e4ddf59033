//! A chat over TCP: everybody sees who comes, what is said, and who leaves.
//!
//! ```sh
//! cargo run --release --example chat_server -- 127.0.0.1:6667     # then: nc 127.0.0.1 6667
//! cargo run --release --example chat_server -- --selftest         # clients in the same process check who sees what
//! ```
//!
//! Each connection is a task, and in it two more: one reads lines and gives them to a `sync::broadcast` channel, one
//! writes what comes out of the channel. Whoever does not keep up with what is said is dropped, and holds up nobody:
//! the channel tells a receiver that was too slow, and a write has a time limit. Ctrl-C ends it.

use aio::{
    coro,
    net::{TcpListener, TcpStream},
    op::{SetSockOpt, option},
    signal::{Signal, Signals},
    sync::broadcast::{self, Receiver, RecvError, Sender},
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt::{self, Display},
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

const HELP: &str = "\
A chat over TCP, for nc or telnet.

usage: chat_server [ADDRESS]        listens there; 127.0.0.1:6667 if nothing is said
       chat_server --selftest       checks itself with clients of its own

AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

/// Bytes of a line, and of a name.
const MAX_LINE: usize = 1024;
const MAX_NAME: usize = 20;

/// Bytes that the kernel keeps for one who does not read. What it has taken counts as written, so with more it would
/// take longer to notice.
const SEND_BUFFER: u32 = 16 << 10;

fn main() -> ExitCode {
    let result = match arguments() {
        Ok(Task::Help) => {
            println!("{HELP}");
            Ok(())
        }
        Ok(Task::Serve(address)) => run(|| serve_until_ctrl_c(&address)),
        Ok(Task::Selftest) => run(selftest::all),
        Err(error) => {
            eprintln!("chat_server: {error}\nusage: chat_server [ADDRESS] | --selftest");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    coro::run(root)?
}

enum Task {
    Help,
    Serve(String),
    Selftest,
}

fn arguments() -> Result<Task, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut address, mut selftest) = (None, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Task::Help),
            Long("selftest") => selftest = true,
            Value(text) if address.is_none() => address = Some(text.string()?),
            other => return Err(other.unexpected()),
        }
    }
    match (selftest, address) {
        (true, None) => Ok(Task::Selftest),
        (true, Some(_)) => Err("--selftest takes no address".into()),
        (false, address) => Ok(Task::Serve(address.unwrap_or("127.0.0.1:6667".to_owned()))),
    }
}

fn serve_until_ctrl_c(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    // Before anybody is told that it runs: until then Ctrl-C ends it the hard way.
    let mut signals = Signals::new([Signal::INT])?;
    println!("listening on {}; Ctrl-C ends it", listener.local_addr()?);
    let room = Room::new(Limits { backlog: 256, patience: Duration::from_secs(10) });
    // The loser is cancelled: either way what is left of the server ends here, connections included.
    let race = coro::race((|| room.serve(&listener), || signals.recv()));
    match race.winner {
        0 => race.values.0,
        _ => {
            race.values.1?;
            println!("good-bye");
            Ok(())
        }
    }
}

/// How slow a reader may be.
#[derive(Clone, Copy)]
struct Limits {
    /// Lines that it may be behind.
    backlog: usize,
    /// For how long it may take nothing at all, or not say its name.
    patience: Duration,
}

/// A line, formatted once for all who see it.
type Line = Rc<str>;

/// All that the connections share. They are tasks of one thread, and nothing here is borrowed across a wait.
struct Room {
    lines: Sender<Line>,
    names: RefCell<BTreeSet<String>>,
    limits: Limits,
}

impl Room {
    fn new(limits: Limits) -> Room {
        // Receivers come with the connections.
        let (lines, _) = broadcast::channel(limits.backlog);
        Room { lines, names: RefCell::default(), limits }
    }

    /// Takes connections until that is cancelled, which ends them too.
    fn serve(&self, listener: &TcpListener) -> io::Result<()> {
        coro::scope(|s| {
            for stream in listener.incoming() {
                match stream {
                    // A connection that fails has ended; those who are there are told by `Member`.
                    Ok(stream) => drop(s.spawn(move || self.attend(&stream))),
                    Err(error) => {
                        eprintln!("chat_server: a connection could not be taken: {error}");
                        // Too many descriptors, most likely. Somebody has to leave first.
                        coro::sleep(Duration::from_millis(100))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Everybody who is there sees it. Never waits.
    fn say(&self, line: impl Display) {
        // An error says that nobody is there.
        let _ = self.lines.send(format!("{line}\n").into());
    }

    /// One connection, from its first line to its last. What goes wrong with it is nobody else's concern.
    fn attend(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(self.limits.patience))?;
        aio::single(SetSockOpt::new(stream, option::SendBuffer, SEND_BUFFER))?;
        let mut input = BufReader::new(stream);
        let Some(mut member) = coro::timeout(self.limits.patience, || self.admit(&mut input))? else { return Ok(()) };

        let welcome = format!("* here: {}\n", Vec::from_iter(self.names.borrow().iter().cloned()).join(", "));
        // Before the announcement, so that everybody sees their own too: they are in from here on.
        let mut received = self.lines.subscribe();
        self.say(format_args!("* {} has joined", member.name));
        // Whoever ends first ends the other: there is nothing to write to one who has left, nor to read from one who
        // does not take what is written.
        let read = || self.read_lines(&mut input, &member.name);
        let write = || write_lines(stream, welcome, &mut received);
        let race = coro::race((read, write));
        if race.winner == 1 {
            member.end = race.values.1;
            // In vain perhaps; the limit holds for this as well.
            let mut output = stream;
            let _ = output.write_all(format!("* you are dropped: {}\n", member.end).as_bytes());
        }
        Ok(())
    }

    /// Asks for a name until there is a good one; `None` if the connection ends instead.
    fn admit(&self, input: &mut BufReader<&TcpStream>) -> io::Result<Option<Member<'_>>> {
        let mut output = *input.get_ref();
        output.write_all(b"* your name?\n")?;
        while let Some(name) = next_line(input)? {
            let good = |c: char| c.is_alphanumeric() || c == '-';
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(good) {
                output.write_all(b"* a name has up to 20 letters, digits and '-'; another one?\n")?;
            } else if !self.names.borrow_mut().insert(name.clone()) {
                output.write_all(b"* that name is taken; another one?\n")?;
            } else {
                return Ok(Some(Member { room: self, name, end: End::Left }));
            }
        }
        Ok(None)
    }

    /// The side of a connection that reads: its lines are for everybody.
    fn read_lines(&self, input: &mut BufReader<&TcpStream>, name: &str) -> io::Result<()> {
        while let Some(line) = next_line(input)? {
            if !line.is_empty() {
                self.say(format_args!("{name}: {line}"));
            }
        }
        Ok(())
    }
}

/// The side of a connection that writes. Gives the reason why it does not go on.
fn write_lines(mut stream: &TcpStream, welcome: String, received: &mut Receiver<Line>) -> End {
    let mut text = welcome;
    let mut turn = || {
        stream.write_all(text.as_bytes())?;
        text.clear();
        text.push_str(&received.recv()?);
        // All that has come meanwhile goes out at once, so that one who reads keeps up with any talker.
        while !received.is_empty() {
            text.push_str(&received.recv()?);
        }
        Ok(())
    };
    loop {
        if let Err(end) = turn() {
            return end;
        }
    }
}

/// How somebody's time in the room ends.
#[derive(Clone, Copy)]
enum End {
    /// By a closed connection, whoever has closed it.
    Left,
    /// So many lines were not kept any longer when it was their turn.
    Behind(u64),
    /// A write was over its limit.
    Stuck,
}

impl From<RecvError> for End {
    fn from(error: RecvError) -> End {
        match error {
            RecvError::Lagged(lost) => End::Behind(lost),
            RecvError::Closed | RecvError::Interrupted(_) => End::Left,
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        if error.kind() == ErrorKind::TimedOut { End::Stuck } else { End::Left }
    }
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Left => f.write_str("the connection has ended"),
            End::Behind(lines) => write!(f, "too slow by {lines} lines"),
            End::Stuck => f.write_str("takes nothing any more"),
        }
    }
}

/// Somebody who is in the room. Leaving it cannot be forgotten, also by a task that is cancelled.
struct Member<'r> {
    room: &'r Room,
    name: String,
    end: End,
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let Member { room, name, end } = self;
        room.names.borrow_mut().remove(name);
        match end {
            End::Left => room.say(format_args!("* {name} has left")),
            end => room.say(format_args!("* {name} is dropped: {end}")),
        }
    }
}

/// The next line, fit to be shown on somebody's terminal; `None` at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if input.take(MAX_LINE as u64).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() == MAX_LINE && !bytes.ends_with(b"\n") {
        return Err(io::Error::new(ErrorKind::InvalidData, "a line is too long"));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(text.trim().replace(char::is_control, "\u{fffd}")))
}

/// Clients in the process of the server, and on its thread.
mod selftest {
    use super::*;
    use aio::op::{Connect, Socket};
    use std::{cell::Cell, net::SocketAddr};

    /// More than any of this takes. What does not happen fails, instead of being waited for.
    const LONG: Duration = Duration::from_secs(20);
    const FLOOD: usize = 400;

    pub(super) fn all() -> io::Result<()> {
        let seen = Cell::new(0);
        let backlog = 64;
        let patient = Limits { backlog, patience: LONG };
        let hasty = Limits { backlog, patience: Duration::from_millis(500) };
        in_a_room(patient, |address| see_one_another(address, &seen))?;
        println!("ok: names are asked for; everybody sees who comes, what is said, and who leaves");
        in_a_room(patient, |address| one_falls_behind(address, &seen))?;
        println!("ok: one who falls behind is dropped, and nobody else misses a line");
        in_a_room(hasty, |address| one_is_stuck(address, &seen))?;
        println!("ok: one who takes nothing is dropped, and nobody else misses a line");
        println!("{}: {} lines seen as they should be", aio::stats().backend.unwrap_or_default(), seen.get());
        Ok(())
    }

    /// Runs a script against a server of its own, and sees that its end is the end of the connections that are left.
    fn in_a_room<'c>(limits: Limits, script: impl FnOnce(SocketAddr) -> io::Result<Vec<Client<'c>>>) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let room = Room::new(limits);
        coro::scope(|s| {
            let server = s.spawn(|| room.serve(&listener));
            let left = coro::timeout(LONG, || script(address));
            server.cancel();
            server.join()??;
            coro::timeout(LONG, || left?.iter_mut().try_for_each(Client::sees_the_end))
        })?;
        if room.names.borrow().is_empty() { Ok(()) } else { Err(wrong("somebody is left in the room")) }
    }

    fn see_one_another<'c>(address: SocketAddr, seen: &'c Cell<usize>) -> io::Result<Vec<Client<'c>>> {
        let mut ann = Client::join(address, "ann", "ann", seen)?;

        let mut bob = Client::connect(address, "bob", seen)?;
        bob.sees("* your name?")?;
        bob.says("b b")?;
        bob.sees("* a name has up to 20 letters, digits and '-'; another one?")?;
        bob.says("ann")?;
        bob.sees("* that name is taken; another one?")?;
        bob.says("bob")?;
        bob.sees("* here: ann, bob")?;
        both(&mut ann, &mut bob, "* bob has joined")?;

        ann.says("hello")?;
        both(&mut ann, &mut bob, "ann: hello")?;
        bob.says("\u{1b}[2Jgrüß dich")?;
        both(&mut ann, &mut bob, "bob: \u{fffd}[2Jgrüß dich")?;
        bob.says("")?;
        drop(bob);
        ann.sees("* bob has left")?;
        // A line without an end, and one that is too long.
        let rude = Client::join(address, "rude", "ann, rude", seen)?;
        ann.sees("* rude has joined")?;
        rude.input.get_ref().write_all(&[b'x'; MAX_LINE + 1])?;
        ann.sees("* rude has left")?;
        Ok(vec![ann])
    }

    fn one_falls_behind<'c>(address: SocketAddr, seen: &'c Cell<usize>) -> io::Result<Vec<Client<'c>>> {
        let mut ann = Client::join(address, "ann", "ann", seen)?;
        let mut slow = Client::join(address, "slow", "ann, slow", seen)?;
        ann.sees("* slow has joined")?;
        let mut bob = Client::join(address, "bob", "ann, bob, slow", seen)?;
        both(&mut ann, &mut slow, "* bob has joined")?;
        flood(&mut ann, &mut bob, "")?;

        // Only now does it go on reading, and finds the end of what was kept.
        let mut number = 0;
        let end = loop {
            let line = slow.line()?;
            if line != flooding(number) {
                break line;
            }
            number += 1;
        };
        let lost = end.strip_prefix("* you are dropped: ").ok_or_else(|| wrong(format!("slow has seen {end:?}")))?;
        slow.sees_the_end()?;
        both(&mut ann, &mut bob, &format!("* slow is dropped: {lost}"))?;
        ann.says("still here")?;
        both(&mut ann, &mut bob, "ann: still here")?;
        Ok(vec![ann, bob])
    }

    fn one_is_stuck<'c>(address: SocketAddr, seen: &'c Cell<usize>) -> io::Result<Vec<Client<'c>>> {
        const DROPPED: &str = "* statue is dropped: takes nothing any more";
        let mut ann = Client::join(address, "ann", "ann", seen)?;
        let _statue = Client::join(address, "statue", "ann, statue", seen)?;
        ann.sees("* statue has joined")?;
        let mut bob = Client::join(address, "bob", "ann, bob, statue", seen)?;
        ann.sees("* bob has joined")?;
        // That may come in the middle.
        if !flood(&mut ann, &mut bob, DROPPED)? {
            both(&mut ann, &mut bob, DROPPED)?;
        }
        Ok(vec![ann, bob])
    }

    fn flooding(number: usize) -> String {
        format!("ann: {number:0900}")
    }

    /// `ann` says much, a few lines at a time; both see all of it. Tells whether they have seen `aside` in between.
    fn flood(ann: &mut Client, bob: &mut Client, aside: &str) -> io::Result<bool> {
        let (mut seen_by_ann, mut seen_by_bob) = (false, false);
        for first in (0..FLOOD).step_by(16) {
            (first..first + 16).try_for_each(|number| ann.says(&format!("{number:0900}")))?;
            for number in first..first + 16 {
                seen_by_ann |= ann.sees_perhaps_after(aside, &flooding(number))?;
                seen_by_bob |= bob.sees_perhaps_after(aside, &flooding(number))?;
            }
        }
        if seen_by_ann == seen_by_bob {
            return Ok(seen_by_ann);
        }
        // It stood between their last lines.
        if seen_by_ann { bob.sees(aside) } else { ann.sees(aside) }?;
        Ok(true)
    }

    fn both(one: &mut Client, other: &mut Client, line: &str) -> io::Result<()> {
        one.sees(line)?;
        other.sees(line)
    }

    fn wrong(what: impl Into<String>) -> io::Error {
        io::Error::other(what.into())
    }

    struct Client<'c> {
        name: &'static str,
        input: BufReader<TcpStream>,
        seen: &'c Cell<usize>,
    }

    impl<'c> Client<'c> {
        fn connect(address: SocketAddr, name: &'static str, seen: &'c Cell<usize>) -> io::Result<Client<'c>> {
            let socket = aio::single(Socket::stream_for(&address.into()))?;
            // Little room, for those who are to be slow. It has to be known before connecting.
            aio::single(SetSockOpt::new(&socket, option::RecvBuffer, 4096))?;
            aio::single(Connect::new(&socket, address))?;
            Ok(Client { name, input: BufReader::new(socket.into()), seen })
        }

        /// Connects, gives the name, and sees who is there and that it is one of them.
        fn join(addr: SocketAddr, name: &'static str, here: &str, seen: &'c Cell<usize>) -> io::Result<Client<'c>> {
            let mut client = Client::connect(addr, name, seen)?;
            client.sees("* your name?")?;
            client.says(name)?;
            client.sees(&format!("* here: {here}"))?;
            client.sees(&format!("* {name} has joined"))?;
            Ok(client)
        }

        fn says(&self, line: &str) -> io::Result<()> {
            self.input.get_ref().write_all(format!("{line}\n").as_bytes())
        }

        /// The next line, or nothing at the end.
        fn line(&mut self) -> io::Result<String> {
            let mut line = String::new();
            let result = self.input.read_line(&mut line);
            result.map_err(|error| wrong(format!("{} waits for a line: {error}", self.name)))?;
            self.seen.set(self.seen.get() + usize::from(!line.is_empty()));
            Ok(line.trim_end_matches('\n').to_owned())
        }

        fn sees(&mut self, expected: &str) -> io::Result<()> {
            self.sees_perhaps_after("", expected).map(drop)
        }

        /// Sees `expected`, and tells whether `aside` came before it; an empty one does not.
        fn sees_perhaps_after(&mut self, aside: &str, expected: &str) -> io::Result<bool> {
            let mut line = self.line()?;
            let aside = !aside.is_empty() && line == aside;
            if aside {
                line = self.line()?;
            }
            match line == expected {
                true => Ok(aside),
                false => Err(wrong(format!("{} sees {line:?} instead of {expected:?}", self.name))),
            }
        }

        fn sees_the_end(&mut self) -> io::Result<()> {
            let rest = self.line()?;
            if rest.is_empty() { Ok(()) } else { Err(wrong(format!("{} sees {rest:?}, not the end", self.name))) }
        }
    }
}
