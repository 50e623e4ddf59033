//! A server under connections that come, break off, are cancelled and time out, for as long as one likes. Every byte
//! that comes back is checked; memory stays flat; descriptors, threads and tasks are back at the end.
//!
//! ```sh
//! cargo bench --bench soak                                                    # small: a few seconds for each engine
//! cargo bench --bench soak -- --connections 9000 --seconds 60
//! cargo bench --bench soak -- --backend epoll --server queue --total 1000000 --seconds 600
//! ```
//!
//! The clients are a process of their own, with an engine of the same kind: so each process has one descriptor for a
//! connection, and what the server holds can be told from what they hold. They come over TCP on several loopback
//! addresses, for each has its own ephemeral ports, and over a Unix socket. The first byte of a connection says what is
//! to become of it: only one that has asked for its own end may be cut off.

mod client;
mod queue;
mod resources;
mod tasks;

use aio::{
    Backend, Config,
    net::{TcpListener, UnixListener},
};
use resources::{Census, Samples};
use std::{
    cell::Cell,
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

const HELP: &str = "\
usage: soak [--connections N] [--seconds N] [--total N] [--messages N] [--pause MS] [--backend NAME] [--server NAME]
            [--seed N]

--connections   at a time (200)
--seconds       for each engine and server (2); with --total, the most that it may take
--total         ends after so many connections in all, and fails if there was no time for them
--messages      at most, in a connection (8)
--pause         at most, between two messages, in milliseconds (20)
--backend       io_uring, epoll or poll; all that can be used here unless it is given
--server        tasks or queue; both unless it is given
--seed          of what is random";

#[derive(Clone)]
pub struct Options {
    connections: usize,
    seconds: u64,
    total: Option<u64>,
    messages: u64,
    pause: u64,
    backend: Option<Backend>,
    server: Option<String>,
    seed: u64,
    /// Where the servers are: this process is the clients.
    clients_of: Vec<String>,
}

fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        connections: 200,
        seconds: 2,
        total: None,
        messages: 8,
        pause: 20,
        backend: None,
        server: None,
        seed: 1,
        clients_of: vec![],
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("connections") => options.connections = parser.value()?.parse()?,
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("total") => options.total = Some(parser.value()?.parse()?),
            Long("messages") => options.messages = parser.value()?.parse()?,
            Long("pause") => options.pause = parser.value()?.parse()?,
            Long("backend") => options.backend = Some(backend(&parser.value()?.string()?)?),
            Long("server") => options.server = Some(parser.value()?.string()?),
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("clients-of") => options.clients_of.push(parser.value()?.string()?),
            // `cargo bench` gives it to all.
            Long("bench") => {}
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn backend(name: &str) -> Result<Backend, String> {
    let all = [Backend::IoUring, Backend::Epoll, Backend::Poll];
    all.into_iter().find(|backend| backend.to_string() == name).ok_or(format!("there is no backend {name:?}"))
}

fn main() -> ExitCode {
    let options = match arguments() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("soak: {error}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let result = match options.clients_of.is_empty() {
        true => soak(&options),
        false => client::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options) -> io::Result<()> {
    let all = [Backend::IoUring, Backend::Epoll, Backend::Poll];
    let usable = |backend: &Backend| match options.backend {
        Some(wanted) => wanted == *backend,
        None => Config::new().backend(*backend).run(|| ()).is_ok(),
    };
    let servers = [("tasks", tasks::serve as Serve), ("queue", queue::serve)];
    for backend in all.into_iter().filter(usable) {
        for (name, serve) in servers.iter().filter(|(name, _)| options.server.as_deref().is_none_or(|s| s == *name)) {
            one(options, backend, name, *serve)?;
        }
    }
    Ok(())
}

/// What a server has seen. It runs on one thread.
#[derive(Default)]
pub struct Counts {
    accepted: Cell<u64>,
    bytes: Cell<u64>,
    canceled: Cell<u64>,
    late: Cell<u64>,
    resets: Cell<u64>,
    /// Errors that no client can have caused.
    failures: Cell<u64>,
}

impl Counts {
    /// One more.
    fn add(cell: &Cell<u64>) {
        cell.set(cell.get() + 1);
    }

    /// An error of a connection that was not meant to have one, except that clients break off.
    fn error(&self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Counts::add(&self.resets),
            _ => {
                eprintln!("soak: a connection: {error}");
                Counts::add(&self.failures);
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [accepted, bytes, canceled, late, resets] =
            [&self.accepted, &self.bytes, &self.canceled, &self.late, &self.resets].map(Cell::get);
        write!(f, "{accepted} accepted, {bytes} bytes echoed, {canceled} canceled, {late} timed out, {resets} reset")
    }
}

pub struct Listeners {
    tcp: Vec<TcpListener>,
    unix: UnixListener,
}

/// Serves until `watch` returns, which blocks, and then until nothing is left of the connections.
type Serve = fn(Config, usize, Listeners, &Counts, &(dyn Fn() -> io::Result<Samples> + Sync)) -> io::Result<Samples>;

/// One server on one engine.
fn one(options: &Options, backend: Backend, name: &str, serve: Serve) -> io::Result<()> {
    resources::allow_descriptors(options.connections + 100)?;
    // The thread's own engine, which binds the listeners, stays.
    aio::single(aio::op::Nop::new())?;
    let before = Census::settled();
    let (began, counts) = (Instant::now(), Counts::default());
    let directory = Directory::new()?;
    let samples = {
        let tcp = (1..=4).map(|host| TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))));
        let tcp = tcp.collect::<io::Result<Vec<_>>>()?;
        let unix = UnixListener::bind(directory.0.join("socket"))?;
        let mut addresses = tcp.iter().map(|l| Ok(l.local_addr()?.to_string())).collect::<io::Result<Vec<_>>>()?;
        addresses.push(directory.0.join("socket").display().to_string());
        let watch = || watch(options, backend, &addresses);
        serve(Config::new().backend(backend), options.connections, Listeners { tcp, unix }, &counts, &watch)?
    };
    drop(directory);
    println!("{backend}, {name}: {}; {counts}; {:.1} s", samples.told.trim(), began.elapsed().as_secs_f64());
    println!("{backend}, {name}: server {}, clients {}", samples.server(), samples.clients());
    let left = before.left();
    let failures = counts.failures.get();
    let flat = samples.check();
    for problem in left.iter().chain(&flat) {
        eprintln!("soak: {backend}, {name}: {problem}");
    }
    if failures > 0 || !left.is_empty() || !flat.is_empty() {
        return Err(io::Error::other(format!("{backend}, {name}: failed, {failures} errors of connections")));
    }
    Ok(())
}

/// A directory that goes at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Directory> {
        Ok(Directory(tempfile::tempdir()?.keep()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the clients, and looks meanwhile at what both processes use. Fails if the clients do.
fn watch(options: &Options, backend: Backend, addresses: &[String]) -> io::Result<Samples> {
    let number = |name: &str, value: u64| [format!("--{name}"), value.to_string()];
    let mut clients = Command::new(std::env::current_exe()?);
    clients.args(number("connections", options.connections as u64)).args(number("seconds", options.seconds));
    clients.args(number("messages", options.messages)).args(number("pause", options.pause));
    clients.args(number("seed", options.seed)).args(options.total.map(|total| number("total", total)).iter().flatten());
    clients.args(addresses.iter().flat_map(|address| ["--clients-of", address]));
    clients.env("AIO_BACKEND", backend.to_string()).stdout(Stdio::piped());
    let mut clients = clients.spawn()?;
    let (began, mut samples) = (Instant::now(), Samples::default());
    // Each client ends by itself, in the worst case when its own limit for a session is over.
    let most = Duration::from_secs(options.seconds + 300);
    while clients.try_wait()?.is_none() {
        samples.take(clients.id());
        if began.elapsed() > most {
            clients.kill()?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = clients.wait_with_output()?;
    samples.told = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(io::Error::other(format!("the clients have failed: {}", output.status)));
    }
    Ok(samples)
}
