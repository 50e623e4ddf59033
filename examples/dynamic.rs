//! Checksums of files, a few at a time, through a queue: `cargo run --example dynamic -- src/*.rs`.
//!
//! A file is opened, read piece by piece, and closed; each of these steps is submitted when the one before has ended,
//! while others are in flight. A line is printed for each file as soon as it is done, so they come in any order.
//!
//! The queue's events are an enum of the program's own. What an operation works on goes with it: a read takes the file
//! and the buffer by value, and its event brings both back for the next one.

use aio::{
    Error, Queue,
    op::{Close, OpenAt, Read},
    queue::Done,
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitCode,
};

const HELP: &str = "\
Prints the CRC-32 and the length of files.

usage: dynamic [--at-once N] FILE...

N files are open at a time, 8 unless it is given.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

/// As much as one read takes.
const PIECE: usize = 64 << 10;

struct Options {
    at_once: u32,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = match arguments() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("dynamic: {error}\nusage: dynamic [--at-once N] FILE...");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dynamic: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for, or nothing if that is help.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { at_once: 8, files: Vec::new() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("at-once") => options.at_once = parser.value()?.parse()?,
            Value(path) => options.files.push(OsString::into(path)),
            other => return Err(other.unexpected()),
        }
    }
    if options.files.is_empty() { Err("name a file".into()) } else { Ok(Some(options)) }
}

/// What comes out of the queue: which file, and what has happened to it.
enum Event {
    Opened(usize, Result<OwnedFd, Error>),
    Read(usize, Done<Read<File, Vec<u8>>>),
    Closed(usize, Result<(), Error>),
}

/// Operations in it live as long as they like: it owns all that they use.
type Events = Queue<'static, Event>;

/// What is known of a file.
struct Sum {
    path: PathBuf,
    hasher: crc32fast::Hasher,
    len: u64,
    failure: Option<Error>,
}

struct Sums {
    files: Vec<Sum>,
    /// How many of them were started.
    started: usize,
    /// Buffers that no read has. There are never more than files open at a time.
    buffers: Vec<Vec<u8>>,
    failed: usize,
}

/// Gives how many files could not be read.
fn run(options: Options) -> io::Result<usize> {
    let sum = |path| Sum { path, hasher: crc32fast::Hasher::new(), len: 0, failure: None };
    // A file has one operation in flight, whatever step it is at.
    let queue = Events::new(options.at_once)?;
    let mut sums =
        Sums { files: options.files.into_iter().map(sum).collect(), started: 0, buffers: Vec::new(), failed: 0 };
    for _ in 0..options.at_once {
        sums.start_next(&queue)?;
    }
    while !queue.is_empty() {
        // What an event leads to is submitted while other files' operations are in flight.
        for (_token, event) in queue.wait(1)? {
            sums.handle(&queue, event)?;
        }
    }
    let bytes: u64 = sums.files.iter().map(|file| file.len).sum();
    println!("{} files, {bytes} bytes; buffers made: {}", sums.files.len() - sums.failed, sums.buffers.len());
    Ok(sums.failed)
}

impl Sums {
    /// Opens the next file, if there is one.
    fn start_next(&mut self, queue: &Events) -> io::Result<()> {
        let at = self.started;
        if let Some(file) = self.files.get(at) {
            // The constructor of a variant can be the mapper; here the number of the file goes along.
            queue.submit(OpenAt::new(file.path.clone()), move |done| Event::Opened(at, done.result))?;
            self.started += 1;
        }
        Ok(())
    }

    fn handle(&mut self, queue: &Events, event: Event) -> io::Result<()> {
        match event {
            Event::Opened(at, Ok(file)) => {
                let buffer = self.buffers.pop().unwrap_or_else(|| vec![0; PIECE]);
                self.read(queue, at, Read::new(File::from(file), buffer))
            }
            Event::Opened(at, Err(error)) => self.ended(queue, at, Some(error)),
            Event::Read(at, Done { result: Ok(count @ 1..), op: read }) => {
                let file = &mut self.files[at];
                file.hasher.update(&read.buf()[..count]);
                file.len += count as u64;
                // The same operation, a little further on.
                self.read(queue, at, read)
            }
            Event::Read(at, Done { result, op: read }) => {
                self.files[at].failure = result.err();
                let (file, buffer) = read.into_parts();
                self.buffers.push(buffer);
                queue.submit(Close::new(file), move |done| Event::Closed(at, done.result))?;
                Ok(())
            }
            Event::Closed(at, result) => {
                let failure = self.files[at].failure.take().or(result.err());
                self.ended(queue, at, failure)
            }
        }
    }

    fn read(&self, queue: &Events, at: usize, read: Read<File, Vec<u8>>) -> io::Result<()> {
        queue.submit(read.at(self.files[at].len), move |done| Event::Read(at, done))?;
        Ok(())
    }

    fn ended(&mut self, queue: &Events, at: usize, failure: Option<Error>) -> io::Result<()> {
        let file = &mut self.files[at];
        let path = file.path.display();
        match failure {
            None => writeln!(io::stdout(), "{:08x} {:>9}  {path}", file.hasher.clone().finalize(), file.len)?,
            Some(error) => {
                eprintln!("dynamic: {path}: {error}");
                (self.failed, file.len) = (self.failed + 1, 0);
            }
        }
        self.start_next(queue)
    }
}
