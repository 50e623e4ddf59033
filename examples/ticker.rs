//! Several clocks, a task for each, until their time is over: `cargo run --example ticker [-- SECONDS]`.
//!
//! Each prints a line when it ticks. After one second, or as many as were given, the time limit that all of them are
//! under ends whatever they wait for, and they say how often they have ticked.

use aio::{Error, coro};
use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

const HELP: &str = "\
Clocks that tick at different rates.

usage: ticker [SECONDS]

They tick for about one second unless it is given.
AIO_BACKEND=io_uring|epoll|poll chooses the engine.";

/// Names, and milliseconds between two ticks.
const CLOCKS: [(&str, u64); 3] = [("fast", 100), ("steady", 250), ("slow", 400)];

fn main() -> ExitCode {
    let limit = match arguments() {
        Ok(Some(limit)) => limit,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("ticker: {error}\nusage: ticker [SECONDS]");
            return ExitCode::from(2);
        }
    };
    match run(limit) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ticker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How long to tick, or nothing if help was asked for.
fn arguments() -> Result<Option<Duration>, lexopt::Error> {
    use lexopt::prelude::*;
    // A little more than a second, so that the last ticks do not come together with the end.
    let mut limit = Duration::from_millis(1040);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Value(text) => limit = Duration::try_from_secs_f64(text.parse()?).map_err(|error| error.to_string())?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(limit))
}

fn run(limit: Duration) -> io::Result<()> {
    let start = Instant::now();
    let ticks = coro::run(|| {
        // `gather` runs its closures as children of this task, so they are under its time limit as well.
        coro::timeout(limit, || coro::gather(CLOCKS.map(|(name, millis)| move || clock(name, millis, start))))
    })?;
    for ((name, millis), ticked) in CLOCKS.iter().zip(ticks) {
        println!("{name}, every {millis} ms, ticks: {}", ticked?);
    }
    println!("ended after {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Ticks until it is told to stop; gives how often.
fn clock(name: &str, millis: u64, start: Instant) -> Result<u64, Error> {
    let mut clock = coro::interval(Duration::from_millis(millis));
    let mut ticks = 0;
    loop {
        match clock.tick() {
            // More than one if the machine was so busy that some were missed. They stay in phase all the same.
            Ok(passed) => ticks += passed,
            // The limit, which ends a wait by an error. The task then ends as it likes; here, by what it has counted.
            Err(Error::TimedOut) => return Ok(ticks),
            Err(error) => return Err(error),
        }
        println!("{:5.2} s  {name} {ticks}", start.elapsed().as_secs_f64());
    }
}
