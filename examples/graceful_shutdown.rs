//! A server that ends politely at Ctrl-C or `SIGTERM`.
//!
//! ```sh
//! cargo run --example graceful_shutdown                     # then `echo "work 3000" | nc 127.0.0.1 PORT`, and Ctrl-C
//! cargo run --example graceful_shutdown -- --grace 2.5      # seconds, instead of five
//! cargo run --example graceful_shutdown -- --selftest       # with clients of its own; it raises the signal itself
//! ```
//!
//! A client sends lines `work N`, and gets `started` and, N milliseconds later, `done`. When the signal comes, the
//! server takes no more connections, closes those that are idle, and lets requests in progress finish within a grace
//! period. After that, or at a second signal, the rest is cancelled, and their clients are told so. The last line says
//! how many there were of each.

use aio::{
    coro::{self, ScopedJoinHandle},
    is_canceled,
    net::{TcpListener, TcpStream},
    signal::{Signal, Signals},
};
use std::{
    cell::{Cell, RefCell},
    fmt,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

const HELP: &str = "\
A server that ends politely at SIGINT or SIGTERM.

usage: graceful_shutdown [--listen ADDRESS] [--grace SECONDS] [--selftest]

ADDRESS is 127.0.0.1:0 and the grace period five seconds unless they are given.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

struct Options {
    listen: String,
    grace: Duration,
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
            eprintln!("graceful_shutdown: {error}");
            eprintln!("usage: graceful_shutdown [--listen ADDRESS] [--grace SECONDS] [--selftest]");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("graceful_shutdown: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, or nothing if that is help.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { listen: "127.0.0.1:0".to_owned(), grace: Duration::from_secs(5), selftest: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("listen") => options.listen = parser.value()?.string()?,
            Long("grace") => {
                let seconds = parser.value()?.parse()?;
                options.grace = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
            }
            Long("selftest") => options.selftest = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// The first `?` is for the runtime, which may not get an engine; what the program does inside has its own errors.
fn run(options: &Options) -> io::Result<()> {
    coro::run(|| {
        if options.selftest {
            return selftest();
        }
        let listener = TcpListener::bind(&options.listen)?;
        // Before the address is printed: who reads that may press Ctrl-C at once.
        let signals = Signals::new([Signal::INT, Signal::TERM])?;
        println!("listening on {}", listener.local_addr()?);
        let tally = Tally::default();
        let signal = serve(listener, signals, options.grace, &tally)?;
        println!("ended by {signal}; {tally}");
        Ok(())
    })?
}

/// What became of requests and connections. All tasks run on the same thread, so cells are enough.
#[derive(Default)]
struct Tally {
    /// The signal has come.
    stopping: Cell<bool>,
    answered: Cell<u32>,
    in_time: Cell<u32>,
    cancelled: Cell<u32>,
    idle: Cell<u32>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [answered, in_time, cancelled, idle] = self.numbers();
        write!(f, "requests answered before: {answered}, finished in time: {in_time}, cancelled: {cancelled}; ")?;
        write!(f, "idle connections closed: {idle}")
    }
}

impl Tally {
    fn numbers(&self) -> [u32; 4] {
        [self.answered.get(), self.in_time.get(), self.cancelled.get(), self.idle.get()]
    }
}

fn count(cell: &Cell<u32>) {
    cell.set(cell.get() + 1);
}

/// Serves until a signal comes, and then ends as the top of this file says. Gives the signal.
fn serve(listener: TcpListener, mut signals: Signals, grace: Duration, tally: &Tally) -> io::Result<Signal> {
    // The connections are children of this scope, which ends when all of them have.
    coro::scope(|s| {
        // Each with whether it is at work on a request.
        let connections = RefCell::new(Vec::<(ScopedJoinHandle<'_, ()>, Rc<Cell<bool>>)>::new());
        let accept = || {
            for stream in listener.incoming().filter_map(|stream| stream.inspect_err(pause).ok()) {
                let busy = Rc::new(Cell::new(false));
                let flag = busy.clone();
                let task = s.spawn(move || match connection(&stream, &flag, tally) {
                    Err(error) if !is_canceled(&error) => eprintln!("a connection: {error}"),
                    _ => {}
                });
                let mut connections = connections.borrow_mut();
                connections.retain(|(task, _)| !task.is_finished());
                connections.push((task, busy));
            }
        };
        // The first signal cancels accepting, and with it nothing else: connections are not children of that task.
        let (signal, ()) = coro::race((|| signals.recv(), accept)).values;
        let signal = signal.inspect_err(|_| s.cancel())?;

        // From here on the system refuses new connections.
        drop(listener);
        tally.stopping.set(true);
        let connections = connections.into_inner();
        for (task, _) in connections.iter().filter(|(_, busy)| !busy.get()) {
            task.cancel();
        }

        // Those at work have some time, unless somebody loses patience. Both waits are under the limit.
        let all_ended = || connections.iter().try_for_each(|(task, _)| task.wait());
        coro::timeout(grace, || coro::race((all_ended, || signals.recv())));
        // Nothing happens to those that have ended. The others are waited for at the end of the scope, which does not
        // take long: whatever they wait for gives an error.
        s.cancel();
        Ok(signal)
    })
}

/// A connection went away before it was accepted, or there are too many open files. Some may be closed meanwhile;
/// without a pause this would be tried again and again. If the task is cancelled now, so is its next wait, which ends
/// the loop that called this.
fn pause(error: &io::Error) {
    eprintln!("accepting a connection: {error}");
    let _ = coro::sleep(Duration::from_millis(50));
}

/// How long a client may take to take an answer when the server is about to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Answers the requests of one connection, one after the other.
fn connection(stream: &TcpStream, busy: &Cell<bool>, tally: &Tally) -> io::Result<()> {
    let mut requests = BufReader::new(stream);
    while !tally.stopping.get() {
        let mut line = String::new();
        // Idle: this is where a connection is cancelled if it has nothing to do.
        match requests.by_ref().take(64).read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                if is_canceled(&error) {
                    count(&tally.idle);
                }
                return Err(error);
            }
        }
        busy.set(true);
        let answer = match work(stream, &line) {
            Ok(()) => "done\n",
            Err(error) if is_canceled(&error) => "cancelled\n",
            Err(error) => return Err(error),
        };
        // A cancelled task can wait for nothing any more, not even to say so; and an answer should not be left half
        // written. The shield takes care of both, and the time limit inside of clients that do not read.
        coro::shield(|| coro::timeout(LAST_WORDS, || (&*stream).write_all(answer.as_bytes())))?;
        match answer {
            "cancelled\n" => count(&tally.cancelled),
            _ if tally.stopping.get() => count(&tally.in_time),
            _ => count(&tally.answered),
        }
        busy.set(false);
    }
    Ok(())
}

/// What a request is about. Here it is only waiting, by which a task can be cancelled, as by any other wait.
fn work(mut stream: &TcpStream, line: &str) -> io::Result<()> {
    let millis = line.strip_prefix("work ").and_then(|number| number.trim_end().parse().ok());
    let millis = millis.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("not a request: {line:?}")))?;
    stream.write_all(b"started\n")?;
    Ok(coro::sleep(Duration::from_millis(millis))?)
}

/// Clients of the self-test: how long their request takes, in milliseconds, the last that they are told, and how many.
const IDLE: (u64, &str, u32) = (0, "done", 3);
const SHORT: (u64, &str, u32) = (500, "done", 4);
const LONG: (u64, &str, u32) = (60_000, "cancelled", 2);
const GRACE: Duration = Duration::from_millis(1200);

/// The server, its clients, and who ends it, all in this one thread.
fn selftest() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let signals = Signals::new([Signal::INT, Signal::TERM])?;
    let address = listener.local_addr()?;
    let (tally, ready) = (Tally::default(), Cell::new(0));
    let kinds = [IDLE, SHORT, LONG];
    let all_clients = || {
        let each = kinds.iter().flat_map(|&(millis, last, count)| (0..count).map(move |_| (millis, last)));
        let ready = &ready;
        let clients: Vec<_> = each.map(|(millis, last)| move || client(address, millis, last, ready)).collect();
        coro::gather(clients).into_iter().collect::<io::Result<()>>()
    };
    let raise = || {
        while ready.get() < kinds.map(|kind| kind.2).iter().sum() {
            coro::sleep(Duration::from_millis(1))?;
        }
        println!("raising SIGTERM");
        // SAFETY: it sends this thread a signal, for which there is a handler that does no harm.
        match unsafe { libc::raise(libc::SIGTERM) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let (signal, clients, raised) = coro::timeout(Duration::from_secs(10), || {
        coro::gather((|| serve(listener, signals, GRACE, &tally), all_clients, raise))
    });
    let signal = signal?;
    println!("ended by {signal}; {tally}");
    raised?;
    clients?;
    if tally.numbers() == [IDLE.2, SHORT.2, LONG.2, IDLE.2] {
        println!("as it should be");
        Ok(())
    } else {
        Err(io::Error::other("these are not the right numbers"))
    }
}

/// Sends one request and checks what comes until the server closes the connection.
fn client(address: SocketAddr, millis: u64, last: &str, ready: &Cell<u32>) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    writeln!(&stream, "work {millis}")?;
    let mut lines = BufReader::new(&stream).lines();
    let mut told = Vec::new();
    // One that will be idle is so when it has its answer, the others are at work when they have been told so.
    told.extend(lines.next());
    if millis == IDLE.0 {
        told.extend(lines.next());
    }
    ready.set(ready.get() + 1);
    told.extend(lines);
    let told = told.into_iter().collect::<io::Result<Vec<_>>>()?;
    if told == ["started", last] {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::InvalidData, format!("a client with {millis} ms of work was told {told:?}")))
    }
}
