//! Pairs of linked operations, one after the other, none of which waits: their results are the same everywhere.

use aio::{Config, op::*};
use arbitrary::Arbitrary;
use std::{
    fs::File,
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Action {
    Nop,
    ReadFile { len: u8, at: u8 },
    WriteFile { len: u8, at: u8 },
    Recv { len: u8, all: bool },
    Send { len: u8 },
    ReadPipe { len: u8 },
    WritePipe { len: u8 },
    Fsync,
}

#[derive(Arbitrary, Debug)]
pub struct Pair {
    first: Action,
    second: Action,
    hard: bool,
}

/// More are not run: buffers of sockets and pipes stay far from full.
const MOST: usize = 24;

struct Things {
    file: File,
    stream: [UnixStream; 2],
    pipe: [OwnedFd; 2],
}

static BYTES: [u8; 256] = [0x5a; 256];

/// Calls a macro with an expression that makes the operation.
macro_rules! with {
    ($action:expr, $things:ident, $op:ident => $body:expr) => {
        match $action {
            Action::Nop => {
                let $op = Nop::new();
                $body
            }
            Action::ReadFile { len, at } => {
                let $op = Read::new(&$things.file, vec![0; len.into()]).at(at.into());
                $body
            }
            Action::WriteFile { len, at } => {
                let $op = Write::new(&$things.file, &BYTES[..len.into()]).at(at.into());
                $body
            }
            Action::Recv { len, all } => {
                let flags = if all { RecvFlags::WAITALL } else { RecvFlags::empty() };
                let $op = Recv::new(&$things.stream[0], vec![0; len.into()]).flags(flags).nonblocking();
                $body
            }
            Action::Send { len } => {
                let $op = Send::new(&$things.stream[1], &BYTES[..len.into()]).nonblocking();
                $body
            }
            Action::ReadPipe { len } => {
                let $op = Read::new(&$things.pipe[0], vec![0; len.into()]).nonblocking();
                $body
            }
            Action::WritePipe { len } => {
                let $op = Write::new(&$things.pipe[1], &BYTES[..len.into()]).nonblocking();
                $body
            }
            Action::Fsync => {
                let $op = Fsync::new(&$things.file);
                $body
            }
        }
    };
}

/// What happened, in words.
pub fn run(config: Config, pairs: &[Pair]) -> Vec<String> {
    let pipe = std::io::pipe().unwrap();
    let (a, b) = UnixStream::pair().unwrap();
    let things = Things { file: tempfile::tempfile().unwrap(), stream: [a, b], pipe: [pipe.0.into(), pipe.1.into()] };
    let one = |pair: &Pair| {
        with!(pair.first, things, first => with!(pair.second, things, second => match pair.hard {
            false => format!("{:?}", aio::complete((first.link(), second)).unwrap().results),
            true => format!("{:?}", aio::complete((first.hard_link(), second)).unwrap().results),
        }))
    };
    let mut all: Vec<String> = config.run(|| pairs.iter().take(MOST).map(one).collect()).unwrap();
    let mut left = Vec::new();
    (&things.file).read_to_end(&mut left).unwrap();
    all.push(format!("{left:?}"));
    all
}
