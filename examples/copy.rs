//! Copies a file: `cargo run --release --example copy -- FROM TO`.
//!
//! Each chunk is a chain, a read and the write of what it has read, which name the same buffer. A window keeps several
//! chains in flight, as many as there are buffers. The copy gets the permissions of the original, is made durable, and
//! is compared with the original by checksum.

use aio::{Error, Shared, op::*, windowed};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    cell::RefCell,
    ffi::OsString,
    fmt::Display,
    fs::{self, File, Metadata},
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Bytes in one operation, and operations in flight: 4 MiB of buffers.
const CHUNK: usize = 256 << 10;
const WIDTH: usize = 16;

const HELP: &str = "\
Copies a file through windows of linked reads and writes, and verifies the copy.

usage: copy FROM TO

TO is created or overwritten, and gets the permissions of FROM.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

fn main() -> ExitCode {
    let (from, to) = match arguments() {
        Ok(Some(paths)) => paths,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("copy: {error}\nusage: copy FROM TO");
            return ExitCode::from(2);
        }
    };
    match run(&from, &to) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("copy: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The paths, or nothing if help was asked for.
fn arguments() -> Result<Option<(PathBuf, PathBuf)>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut paths: Vec<OsString> = Vec::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Value(path) if paths.len() < 2 => paths.push(path),
            other => return Err(other.unexpected()),
        }
    }
    match <[OsString; 2]>::try_from(paths) {
        Ok([from, to]) => Ok(Some((from.into(), to.into()))),
        Err(_) => Err("two paths are needed".into()),
    }
}

/// An error that says which file it is about.
fn about<E: Display>(path: &Path) -> impl Fn(E) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn run(from: &Path, to: &Path) -> Result<String, String> {
    let (source, metadata, target) = open(from, to)?;
    let progress = ProgressBar::with_draw_target(Some(metadata.len()), draw_target());
    progress.set_style(
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let incomplete = |error: String| format!("{error}; {} is incomplete", to.display());

    let before = aio::stats();
    let copied = copy(&source, &target, metadata.len(), &progress).map_err(incomplete)?;
    target.set_permissions(metadata.permissions()).map_err(about(to)).map_err(incomplete)?;
    // After everything else, so that a crash afterwards loses nothing.
    aio::single(Fsync::new(&target)).map_err(about(to)).map_err(incomplete)?;
    let (cost, backend) = (aio::stats() - before, aio::stats().backend.unwrap_or_default());

    let sums = (checksum(&source, copied).map_err(about(from))?, checksum(&target, copied).map_err(about(to))?);
    progress.finish_and_clear();
    if sums.0 != sums.1 || target.metadata().map_err(about(to))?.len() != copied {
        return Err(format!("{} differs from {}: was it changed meanwhile?", to.display(), from.display()));
    }
    let calls = cost.system_calls();
    let workers = if cost.jobs > 0 { format!(" and {} by worker threads", cost.jobs) } else { String::new() };
    Ok(format!("{copied} bytes copied, CRC-32 {:08x}; {backend}: {calls} system calls{workers}", sums.0))
}

/// On a terminal, and nowhere else.
fn draw_target() -> ProgressDrawTarget {
    if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

/// Opens both, and refuses what cannot be copied before anything is changed.
fn open(from: &Path, to: &Path) -> Result<(File, Metadata, File), String> {
    // Asked before opening, for opening a FIFO would wait.
    refuse_irregular(from, &fs::metadata(from).map_err(about(from))?)?;
    let existing = fs::metadata(to);
    if let Ok(existing) = &existing {
        refuse_irregular(to, existing)?;
    }
    let source = File::from(aio::single(OpenAt::new(from)).map_err(about(from))?);
    let metadata = source.metadata().map_err(about(from))?;
    // Not emptied yet, for it may be the same file. Nobody else may read a new one before it has its permissions.
    let flags = OpenFlags::READ_WRITE | OpenFlags::CREATE;
    let target = File::from(aio::single(OpenAt::new(to).flags(flags).mode(0o600)).map_err(about(to))?);
    let other = target.metadata().map_err(about(to))?;
    if (metadata.dev(), metadata.ino()) == (other.dev(), other.ino()) {
        return Err(format!("{} and {} are the same file", from.display(), to.display()));
    }
    aio::single(Ftruncate::new(&target, 0)).map_err(about(to))?;
    Ok((source, metadata, target))
}

fn refuse_irregular(path: &Path, metadata: &Metadata) -> Result<(), String> {
    match metadata.file_type() {
        kind if kind.is_dir() => Err(format!("{} is a directory; name a file", path.display())),
        kind if !kind.is_file() => Err(format!("{} is not a regular file", path.display())),
        _ => Ok(()),
    }
}

/// Copies everything; gives the number of bytes.
fn copy(source: &File, target: &File, len: u64, progress: &ProgressBar) -> Result<u64, String> {
    copy_known(source, target, len, progress)?;
    // A file may have grown since its length was asked for, and some, in `/proc`, have none before they are read.
    let mut at = len;
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let count = aio::single(Read::new(source, &mut buffer[..]).at(at)).map_err(|error| error.to_string())?;
        if count == 0 {
            return Ok(at);
        }
        let written = aio::single(Write::new(target, &buffer[..count]).at(at)).map_err(|error| error.to_string())?;
        if written < count {
            return Err(short_write(written, count));
        }
        at += count as u64;
    }
}

/// Copies the `len` bytes that the file has as far as is known, out of order.
fn copy_known(source: &File, target: &File, len: u64, progress: &ProgressBar) -> Result<(), String> {
    let mut memory = vec![0u8; WIDTH.min(len.div_ceil(CHUNK as u64) as usize) * CHUNK];
    let pool: Vec<Shared> = memory.chunks_mut(CHUNK).map(Shared::new).collect();
    // Both closures use these in turn: the iterator takes a buffer, the other gives it back. A chain is in flight only
    // with a buffer of its own, for the window is as wide as the pool.
    let free: RefCell<Vec<usize>> = RefCell::new((0..pool.len()).collect());
    let used_by = RefCell::new(vec![0usize; pool.len()]);
    let failure: RefCell<Option<String>> = RefCell::new(None);

    let chunk_len = |index: usize| (len - (index * CHUNK) as u64).min(CHUNK as u64) as usize;
    let chains = (0..len.div_ceil(CHUNK as u64) as usize).map_while(|index| {
        // After a failure nothing new is started; what is in flight comes to its end.
        if failure.borrow().is_some() {
            return None;
        }
        let buffer = free.borrow_mut().pop()?;
        used_by.borrow_mut()[buffer] = index;
        let (part, at) = (pool[buffer].part(..chunk_len(index)), (index * CHUNK) as u64);
        Some((Read::new(source, part).at(at).link(), Write::new(target, part).at(at)))
    });
    let done = |index: usize, results: (Result<usize, Error>, Result<usize, Error>)| {
        let buffer = used_by.borrow().iter().enumerate().position(|(buffer, &user)| {
            // One that is free names the chunk it was last used for, which is another.
            user == index && !free.borrow().contains(&buffer)
        });
        free.borrow_mut().extend(buffer);
        let wanted = chunk_len(index);
        let problem = match results {
            (Ok(read), _) if read < wanted => "the file became shorter while it was copied".to_owned(),
            (Err(error), _) => format!("reading: {error}"),
            (_, Err(error)) => format!("writing: {error}"),
            (_, Ok(written)) if written < wanted => short_write(written, wanted),
            _ => return progress.inc(wanted as u64),
        };
        failure.borrow_mut().get_or_insert(problem);
    };
    if !pool.is_empty() {
        // Failures of single operations were looked at by `done`.
        let _ = aio::complete(windowed(chains, pool.len()).for_each(done)).map_err(|error| error.to_string())?;
    }
    failure.into_inner().map_or(Ok(()), Err)
}

fn short_write(written: usize, wanted: usize) -> String {
    format!("only {written} of {wanted} bytes could be written; is the disk full?")
}

/// The CRC-32 of the first `len` bytes. Chunks are read out of order, and their checksums combined in order.
fn checksum(file: &File, len: u64) -> Result<u32, String> {
    let chunks = len.div_ceil(CHUNK as u64) as usize;
    let buffers: RefCell<Vec<Vec<u8>>> = RefCell::default();
    let reads = (0..chunks).map(|index| {
        let at = (index * CHUNK) as u64;
        let mut buffer = buffers.borrow_mut().pop().unwrap_or_default();
        buffer.resize((len - at).min(CHUNK as u64) as usize, 0);
        Read::new(file, buffer).at(at)
    });
    let mut sums = vec![crc32fast::Hasher::new(); chunks];
    let mut failure = None;
    let each = |index: usize, result: Result<(usize, Vec<u8>), Error>| match result {
        Ok((count, buffer)) => {
            sums[index].update(&buffer[..count]);
            buffers.borrow_mut().push(buffer);
        }
        Err(error) => failure = Some(error.to_string()),
    };
    let _ = aio::complete(windowed(reads, WIDTH).for_each(each)).map_err(|error| error.to_string())?;
    match failure {
        Some(error) => Err(error),
        None => Ok(sums
            .iter()
            .fold(crc32fast::Hasher::new(), |mut all, chunk| {
                all.combine(chunk);
                all
            })
            .finalize()),
    }
}
