//! A pipeline of two child processes, written to and read from at the same time: `cargo run --example process_pipe`.
//!
//! It writes the numbers from 1 to 100000 to `grep 7 | cat -n`, line by line, and reads the result line by line: the
//! numbers that have a 7 in them, counted. It prints the first and the last of these lines, and how the children ended.
//!
//! One task writes and another reads. That has to be so: a pipe holds 64 KiB, and both children pass on what they
//! get. A program that wrote everything before it read anything would wait for `grep`, which waits for `cat`, which
//! waits for the program.

use aio::{
    coro,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use std::{
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    process::ExitCode,
    time::Duration,
};

const NUMBERS: u32 = 100_000;

/// It takes a fraction of a second; who has to wait so long waits for something that never comes.
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match coro::run(|| coro::timeout(LIMIT, pipeline)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("process_pipe: {error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("process_pipe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pipeline() -> io::Result<()> {
    let mut grep = spawn(Command::new("grep").arg("7").stdin(Stdio::piped()))?;
    // The pipe goes from one child to the other; this program does not see what is in it.
    let between = taken(&mut grep.stdout)?;
    let mut cat = spawn(Command::new("cat").arg("-n").stdin(between))?;
    let (input, output) = (taken(&mut grep.stdin)?, taken(&mut cat.stdout)?);

    let (written, lines) = coro::gather((|| write_numbers(input), || read_lines(output)));
    written?;
    let lines = lines?;

    // Both have ended, or are about to: they have read the end of their input.
    let (grep, cat) = (grep.wait()?, cat.wait()?);

    println!("$ seq {NUMBERS} | grep 7 | cat -n");
    match &lines[..] {
        [first, second, .., last] => println!("{first}\n{second}\n     …\n{last}"),
        few => println!("only {} lines", few.len()),
    }
    println!("{} of {NUMBERS} numbers have a 7 in them", lines.len());
    println!("grep: {grep}, cat: {cat}");
    if grep.success() && cat.success() { Ok(()) } else { Err(io::Error::other("a child has failed")) }
}

/// Starts a child whose output can be read.
fn spawn(command: &mut Command) -> io::Result<Child> {
    // If anything here fails and the `Child` is dropped, no process is left behind.
    command.stdout(Stdio::piped()).kill_on_drop(true).spawn()
}

/// One end of a pipe that was asked for by `Stdio::piped`, out of its `Child`, so that it can be closed before that.
fn taken<P>(pipe: &mut Option<P>) -> io::Result<P> {
    pipe.take().ok_or_else(|| io::Error::other("the child has no such pipe"))
}

fn write_numbers(input: ChildStdin) -> io::Result<()> {
    // Nothing is buffered by the pipe's own type: without this every line would be an operation.
    let mut input = BufWriter::new(input);
    for number in 1..=NUMBERS {
        writeln!(input, "{number}")?;
    }
    // Dropping it closes the pipe, by which `grep` knows that this was all. Not without this: a drop hides errors.
    input.flush()
}

fn read_lines(output: ChildStdout) -> io::Result<Vec<String>> {
    BufReader::new(output).lines().collect()
}
