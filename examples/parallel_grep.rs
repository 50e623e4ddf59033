//! Searches files for a text: `cargo run --release --example parallel_grep -- TEXT [DIRECTORY...]`.
//!
//! One task walks through the directories. Several read and search the files that it finds, which they get by a bounded
//! channel; a large one is searched on a worker thread. The root prints, in the order of the walk: each file's result
//! comes by a `oneshot` of its own, and these stand in a queue in the order in which the files were found. Both queues
//! are bounded, so the walk gets no further ahead than makes sense, however slow the reader of the output is.

use aio::{
    coro,
    fs::{self, File},
    stdio,
    sync::{self, Receiver, Sender, oneshot},
};
use std::{
    ffi::OsString,
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

const HELP: &str = "\
Prints the lines of files that contain a text, as PATH:LINE:TEXT.

usage: parallel_grep [-l] [-j TASKS] TEXT [PATH...]

PATHs are files, or directories, whose files are all searched; without one it is the current directory. Binary files and
symbolic links in directories are passed over.

  -l, --files-with-matches  prints only the names of files that contain it
  -j, --tasks TASKS         how many tasks read files at the same time (16)

The exit code is 0 if the text was found, 1 if not, and 2 if something could not be read.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

/// The part of a file that is looked at first: if there is a zero byte in it the file is no text.
const HEAD: usize = 8 << 10;

/// Contents up to this length are searched at once: that takes less time than asking a worker thread. More would keep
/// the other tasks waiting.
const AT_ONCE: usize = 64 << 10;

struct Options {
    text: Vec<u8>,
    paths: Vec<PathBuf>,
    only_names: bool,
    tasks: usize,
}

fn main() -> ExitCode {
    let options = match arguments() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("parallel_grep: {error}\nusage: parallel_grep [-l] [-j TASKS] TEXT [PATH...]");
            return ExitCode::from(2);
        }
    };
    match coro::run(|| search(&options)).map_err(io::Error::from).flatten() {
        Ok(Summary { failed: false, found: true }) => ExitCode::SUCCESS,
        Ok(Summary { failed: false, found: false }) => ExitCode::FAILURE,
        Ok(_) => ExitCode::from(2),
        // As `head` does it: it has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parallel_grep: {error}");
            ExitCode::from(2)
        }
    }
}

/// What the command line says, or nothing if help was asked for.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut only_names, mut tasks, mut values) = (false, 16, Vec::<OsString>::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Short('l') | Long("files-with-matches") => only_names = true,
            Short('j') | Long("tasks") => tasks = parser.value()?.parse()?,
            Value(value) => values.push(value),
            other => return Err(other.unexpected()),
        }
    }
    let mut values = values.into_iter();
    let text = values.next().ok_or("a text to search for is needed")?.into_vec();
    let mut paths: Vec<PathBuf> = values.map(PathBuf::from).collect();
    if paths.is_empty() {
        paths.push(".".into());
    }
    match (text.is_empty(), text.contains(&b'\n'), tasks) {
        (true, ..) => Err("the text to search for is empty".into()),
        (_, true, _) => Err("a text of several lines is never found".into()),
        (.., 0) => Err("at least one task has to read".into()),
        _ => Ok(Some(Options { text, paths, only_names, tasks })),
    }
}

/// What the exit code tells.
#[derive(Default)]
struct Summary {
    found: bool,
    failed: bool,
}

/// What there is to print about a file, or why it could not be read.
type Report = Result<Vec<u8>, String>;

/// A file to read, and where the result goes.
struct Job {
    path: PathBuf,
    report: oneshot::Sender<Report>,
}

fn search(options: &Options) -> io::Result<Summary> {
    coro::scope(|s| {
        let (jobs, inbox) = sync::channel(options.tasks);
        let (order, reports) = sync::channel(4 * options.tasks);
        s.spawn(move || walk(&options.paths, &jobs, &order));
        for _ in 0..options.tasks {
            let inbox = inbox.clone();
            s.spawn(move || read_files(options, &inbox));
        }
        // What is left belongs to the tasks: when the walk has ended, so do they, one after the other. If printing
        // fails the reports have no receiver any more, and all end as well.
        drop(inbox);
        print(reports)
    })
}

/// Finds the files, directory by directory, each in the order of its names. Ends early if nobody wants them any more.
fn walk(paths: &[PathBuf], jobs: &Sender<Job>, order: &Sender<oneshot::Receiver<Report>>) {
    let hand_out = |path: PathBuf| {
        let (report, place) = oneshot::channel();
        order.send(place).is_ok() && jobs.send(Job { path, report }).is_ok()
    };
    let fail = |path: &Path, error: &io::Error| {
        let (report, place) = oneshot::channel();
        report.send(Err(about(path, error))).is_ok() && order.send(place).is_ok()
    };
    // Those that are still to be visited, the next one last.
    let mut left: Vec<(PathBuf, Kind)> = paths.iter().rev().map(|path| (path.clone(), Kind::Unknown)).collect();
    while let Some((path, kind)) = left.pop() {
        let wanted = match entries(&path, kind) {
            Ok(Some(entries)) => {
                left.extend(entries.into_iter().rev());
                true
            }
            Ok(None) => hand_out(path),
            Err(error) => fail(&path, &error),
        };
        if !wanted {
            return;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    File,
    Directory,
    Unknown,
}

/// The files and directories in a directory; nothing if `path` is none.
fn entries(path: &Path, kind: Kind) -> io::Result<Option<Vec<(PathBuf, Kind)>>> {
    let is_directory = match kind {
        // Of the command line, where a symbolic link is followed.
        Kind::Unknown => fs::metadata(path)?.is_dir(),
        kind => kind == Kind::Directory,
    };
    if !is_directory {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => entries.push((entry.path(), Kind::Directory)),
            kind if kind.is_file() => entries.push((entry.path(), Kind::File)),
            // Opening a FIFO would wait, and a link may lead in circles.
            _ => {}
        }
    }
    entries.sort();
    Ok(Some(entries))
}

/// Reads and searches files until there are no more.
fn read_files(options: &Options, inbox: &Receiver<Job>) {
    for Job { path, report } in inbox {
        let result = read_text(&path)
            .and_then(|text| match text.len() {
                ..=AT_ONCE => Ok(matches(&path, &text, options)),
                _ => Ok(coro::offload(|| matches(&path, &text, options))?),
            })
            .map_err(|error| about(&path, &error));
        // Nobody waits for it if printing has failed.
        let _ = report.send(result);
    }
}

/// All of a file; nothing of one that is binary.
fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut text = vec![0; HEAD];
    let len = file.read(&mut text)?;
    text.truncate(len);
    if text.contains(&0) {
        return Ok(Vec::new());
    }
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// What is to be printed about a file that contains `contents`.
fn matches(path: &Path, contents: &[u8], options: &Options) -> Vec<u8> {
    let (mut output, mut rest, mut line) = (Vec::new(), contents, 1);
    while let Some(at) = find(rest, &options.text) {
        output.extend_from_slice(path.as_os_str().as_bytes());
        if options.only_names {
            output.push(b'\n');
            break;
        }
        let start = rest[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = rest[at..].iter().position(|byte| *byte == b'\n').map_or(rest.len(), |len| at + len);
        line += rest[..start].iter().filter(|byte| **byte == b'\n').count();
        output.extend_from_slice(format!(":{line}:").as_bytes());
        output.extend_from_slice(&rest[start..end]);
        output.push(b'\n');
        rest = rest.get(end + 1..).unwrap_or_default();
        line += 1;
    }
    output
}

/// Where a text, which is not empty, begins in another one.
fn find(contents: &[u8], text: &[u8]) -> Option<usize> {
    let (first, _) = text.split_first()?;
    let mut from = 0;
    loop {
        from += contents[from..].iter().position(|byte| byte == first)?;
        if contents[from..].starts_with(text) {
            return Some(from);
        }
        from += 1;
    }
}

fn about(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Prints the reports in the order of the walk, whichever is ready first.
fn print(reports: Receiver<oneshot::Receiver<Report>>) -> io::Result<Summary> {
    let mut summary = Summary::default();
    for mut report in reports {
        match report.recv()? {
            Ok(lines) if lines.is_empty() => {}
            Ok(lines) => {
                summary.found = true;
                stdio::stdout().write_all(&lines)?;
            }
            Err(error) => {
                summary.failed = true;
                writeln!(stdio::stderr(), "parallel_grep: {error}")?;
            }
        }
    }
    Ok(summary)
}
