//! A write-ahead log with group commit: a queue inside a struct, and a state machine that every event goes through.
//!
//! ```sh
//! cargo run --example state_machine -- LOG                    # 4 clients, 100 commands each
//! cargo run --example state_machine -- LOG --clients 8 --commands 1000
//! ```
//!
//! Clients, each a thread, post commands to the log's thread: add so much to this account. The log writes a record for
//! each, and answers when that is on the disk. Records of several clients go into one batch: it is written when it is
//! full, or when the timer ticks, as one chain, write → fsync. Some batches may be in flight at a time; their buffers
//! circulate, and are all the memory that the log uses.
//!
//! What the program knows (the accounts) it learns from committed records only. When it starts it reads the log that is
//! there and goes on behind its last whole record; at the end it reads everything again and compares.

use aio::{
    Error, Queue,
    op::{Fsync, Op as _, TimeoutMulti, Write},
    queue::{Done, Poster},
};
use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

const HELP: &str = "\
Writes commands to a log, several with one fsync, and reads it again.

usage: state_machine LOG [--clients N] [--commands N]

4 clients send 100 commands each, unless told otherwise. A log that exists goes on.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

/// As long as a batch can get.
const BATCH: usize = 4 << 10;
/// How many of them there are.
const BUFFERS: usize = 4;
/// How long a command waits for others at most.
const TICK: Duration = Duration::from_millis(1);

struct Options {
    log: PathBuf,
    clients: usize,
    commands: u64,
}

fn main() -> ExitCode {
    let options = match arguments() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("state_machine: {error}\nusage: state_machine LOG [--clients N] [--commands N]");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("state_machine: {}: {error}", options.log.display());
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, or nothing if that is help.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut log, mut clients, mut commands) = (None, 4, 100);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("clients") => clients = parser.value()?.parse()?,
            Long("commands") => commands = parser.value()?.parse()?,
            Value(path) if log.is_none() => log = Some(OsString::into(path)),
            other => return Err(other.unexpected()),
        }
    }
    let log = log.ok_or("name a log")?;
    Ok(Some(Options { log, clients, commands }))
}

/// Everything that can happen. The state machine sees nothing else.
enum Event {
    /// From a client's thread.
    Posted(Command),
    /// A client has no more commands.
    Finished,
    /// The two halves of a batch, in this order.
    Written(Done<Write<Arc<File>, Vec<u8>>>),
    Synced(u64, Result<(), Error>),
    Tick,
}

struct Command {
    account: usize,
    amount: i64,
    /// Where the client waits for the index of its record.
    answer: mpsc::Sender<u64>,
}

/// What the records say. The same from the running program and from the log that it has left.
#[derive(Default, PartialEq, Eq)]
struct Accounts {
    records: u64,
    totals: BTreeMap<usize, i64>,
}

impl Accounts {
    fn apply(&mut self, account: usize, amount: i64) {
        self.records += 1;
        *self.totals.entry(account).or_default() += amount;
    }
}

/// A record: a line of text with its checksum.
fn record(index: u64, account: usize, amount: i64) -> String {
    let text = format!("{index} {account} {amount}");
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// Reads a log up to its last whole record; gives what it says, and its length up to there.
fn replay(path: &Path) -> io::Result<(Accounts, u64)> {
    let (mut accounts, mut len) = (Accounts::default(), 0);
    for line in String::from_utf8_lossy(&std::fs::read(path)?).split_inclusive('\n') {
        let mut fields = line.split(' ').skip(1);
        let mut number = || fields.next().and_then(|field| field.parse::<i64>().ok()).unwrap_or_default();
        let (account, amount) = (number() as usize, number());
        if line != record(accounts.records, account, amount) {
            // The machine went down while this was written. Nobody was told that it is there.
            break;
        }
        accounts.apply(account, amount);
        len += line.len() as u64;
    }
    Ok((accounts, len))
}

/// A queue that lives as long as its owner, beside what its events change. They are two fields so that the loop can
/// lend out both.
struct Log {
    queue: Queue<'static, Event>,
    machine: Machine,
}

struct Machine {
    file: Arc<File>,
    /// Where the next batch goes.
    end: u64,
    /// The index of the next record.
    next: u64,
    /// Commands that are in no batch yet, because no buffer was free.
    waiting: VecDeque<Command>,
    /// The batch that is being filled, and those that are in flight, oldest first.
    batch: Batch,
    in_flight: VecDeque<Batch>,
    /// How many batches came before the first of these.
    committed: u64,
    free: Vec<Vec<u8>>,
    accounts: Accounts,
    clients: usize,
    failure: Option<Error>,
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    commands: Vec<Command>,
    durable: bool,
}

impl Log {
    fn open(options: &Options) -> io::Result<Log> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&options.log)?;
        let (accounts, end) = replay(&options.log)?;
        file.set_len(end)?;
        // A chain of two for each buffer, and the timer.
        let queue = Queue::new(2 * BUFFERS as u32 + 1)?;
        queue.submit_multi(TimeoutMulti::every(TICK), |_| Event::Tick)?;
        let machine = Machine {
            file: Arc::new(file),
            end,
            next: accounts.records,
            waiting: VecDeque::new(),
            batch: Batch::default(),
            in_flight: VecDeque::new(),
            committed: 0,
            free: std::iter::repeat_with(|| Vec::with_capacity(BATCH)).take(BUFFERS).collect(),
            accounts,
            clients: options.clients,
            failure: None,
        };
        Ok(Log { queue, machine })
    }

    /// Until all clients have finished.
    fn run(mut self) -> Result<Machine, Error> {
        let Log { queue, machine } = &mut self;
        queue.run(|_, event| {
            if let Err(error) = machine.handle(queue, event) {
                machine.failure.get_or_insert(error);
                queue.stop();
            }
        })?;
        machine.failure.take().map_or(Ok(self.machine), Err)
    }
}

impl Machine {
    fn handle(&mut self, queue: &Queue<'static, Event>, event: Event) -> Result<(), Error> {
        match event {
            Event::Posted(command) => self.waiting.push_back(command),
            Event::Finished => self.clients -= 1,
            Event::Tick => self.submit(queue)?,
            Event::Written(Done { result, op }) => {
                let mut buffer = op.into_buf();
                if result? < buffer.len() {
                    // The chain is broken then, and the batch is not synced.
                    return Err(Error::Invalid(&"a short write; is the disk full?"));
                }
                buffer.clear();
                self.free.push(buffer);
                // The other half follows, and makes room for the next chain.
                return Ok(());
            }
            Event::Synced(batch, result) => {
                result?;
                self.in_flight[(batch - self.committed) as usize].durable = true;
                self.commit();
            }
        }
        self.fill(queue)?;
        if self.clients == 0 && self.in_flight.is_empty() && self.batch.commands.is_empty() {
            // The timer would go on for ever. It ends with the queue.
            queue.stop();
        }
        Ok(())
    }

    /// Moves commands into the batch, as long as there is room.
    fn fill(&mut self, queue: &Queue<'static, Event>) -> Result<(), Error> {
        while let Some(command) = self.waiting.pop_front() {
            let record = record(self.next, command.account, command.amount);
            if self.batch.bytes.len() + record.len() > BATCH {
                self.submit(queue)?;
            }
            if self.batch.bytes.capacity() == 0 {
                match self.free.pop() {
                    Some(buffer) => self.batch.bytes = buffer,
                    None => {
                        self.waiting.push_front(command);
                        return Ok(());
                    }
                }
            }
            self.batch.bytes.extend_from_slice(record.as_bytes());
            self.batch.commands.push(command);
            self.next += 1;
        }
        Ok(())
    }

    /// Writes the batch, if there is something in it, and syncs it.
    fn submit(&mut self, queue: &Queue<'static, Event>) -> Result<(), Error> {
        if self.batch.commands.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let bytes = std::mem::take(&mut batch.bytes);
        let (at, number) = (self.end, self.committed + self.in_flight.len() as u64);
        self.end += bytes.len() as u64;
        self.in_flight.push_back(batch);
        queue.submit_chain(
            (Write::new(self.file.clone(), bytes).at(at).link(), Fsync::new(self.file.clone())),
            (Event::Written, move |done: Done<Fsync<_>>| Event::Synced(number, done.result)),
        )?;
        Ok(())
    }

    /// Batches may become durable in any order, but a record counts only if all before it do.
    fn commit(&mut self) {
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.durable) {
            self.committed += 1;
            for Command { account, amount, answer } in batch.commands {
                // A client that has gone does not want to know.
                let _ = answer.send(self.accounts.records);
                self.accounts.apply(account, amount);
            }
        }
    }
}

/// Posts commands, and waits for each to be durable.
fn client(number: usize, commands: u64, poster: &Poster<Event>) -> io::Result<()> {
    let mut last = None;
    for command in 0..commands {
        let amount = (command * 7919 + number as u64 * 31) as i64 % 2001 - 1000;
        let (answer, answered) = mpsc::channel();
        poster.post(Event::Posted(Command { account: number, amount, answer })).map_err(|_| ErrorKind::BrokenPipe)?;
        // A log that has failed drops the command, and that ends the wait.
        let index = answered.recv().map_err(io::Error::other)?;
        if last.replace(index) >= Some(index) {
            return Err(io::Error::other("a record was committed out of order"));
        }
    }
    Ok(())
}

fn run(options: &Options) -> io::Result<()> {
    let log = Log::open(options)?;
    let before = log.machine.accounts.records;
    println!("found: {before} records");
    let poster = log.queue.poster()?;
    let machine = thread::scope(|s| {
        let start = |number| {
            let poster = poster.clone();
            s.spawn(move || {
                let result = client(number, options.commands, &poster);
                // Whatever happened, the log must not wait for this one. An error means that it is gone itself.
                let _ = poster.post(Event::Finished);
                result
            })
        };
        let clients: Vec<_> = (0..options.clients).map(start).collect();
        // If it fails it is dropped here, with all commands, before the clients are waited for.
        let machine = log.run()?;
        let joined: io::Result<Vec<()>> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        joined.map(|_| machine)
    })?;

    let Machine { accounts, committed, .. } = machine;
    println!("committed: {} records in {committed} batches", accounts.records - before);
    for (account, total) in &accounts.totals {
        println!("account {account}: {total}");
    }
    let (read, _) = replay(&options.log)?;
    if read != accounts {
        return Err(io::Error::other("the log says something else"));
    }
    println!("the log says the same");
    Ok(())
}
