//! Programs as plain data: what there is to work on, what is done with it, and what makes a program the same each time.
//!
//! A program leaves nothing to chance. What runs at once touches disjoint parts of the world ([`Item::touches`]); what
//! could wait for ever has a short limit and nobody who ends it, or is ended by something that comes for sure.

use std::fmt;

/// A descriptor of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum H {
    /// Files 0 to 2, open for reading and writing.
    File(u8),
    /// File 0, opened again.
    ReadOnly,
    /// File 1, opened again.
    WriteOnly,
    /// File 2, opened again.
    Append,
    /// File 0, with `O_PATH`.
    PathOnly,
    Dir,
    /// A number that no descriptor has.
    Missing,
    /// Pipes 0 and 1; the second with `O_NONBLOCK`.
    PipeR(u8),
    PipeW(u8),
    /// A pipe that nobody can write to, with some bytes in it.
    EndedR,
    /// A pipe that nobody can read from.
    BrokenW,
    /// A pipe that is full, and that nobody reads.
    FullW,
    /// Unix stream pairs 0 and 1, both ends; the second with `O_NONBLOCK`.
    Stream(u8, bool),
    /// One end of a pair whose other end is closed.
    Hung,
    /// A stream whose buffers are full, and that nobody reads.
    FullStream,
    Dgram(bool),
    Seq(bool),
    Tcp(bool),
    Udp(bool),
    /// A TCP socket that is not connected.
    Lonely,
    /// A TCP listener.
    Listener,
    /// One end of a stream that is left in peace, so that whatever waits for it waits for ever.
    Quiet,
    /// A TCP socket made for the operation that names it.
    Fresh,
    /// What the program has opened.
    Open(u8),
}

/// A set of parts of the world.
pub type Parts = u64;

pub const TREE: Parts = 1 << 0;
const FILES: Parts = 0b111 << 1;
const OPEN: Parts = 1 << 4;
const LISTENER: Parts = 1 << 5;
const LONELY: Parts = 1 << 6;

impl H {
    pub fn parts(self) -> Parts {
        let (first, bit) = match self {
            H::File(i) => return 1 << (1 + i),
            H::ReadOnly | H::PathOnly => return 1 << 1,
            H::WriteOnly => return 1 << 2,
            H::Append => return 1 << 3,
            H::Dir => return TREE,
            H::Missing | H::Quiet | H::Fresh => return 0,
            // It may be a file, or either end of whatever was made before.
            H::Open(_) => return OPEN | FILES | TREE,
            H::Listener => return LISTENER,
            H::Lonely => return LONELY,
            H::PipeR(i) | H::PipeW(i) => (10, i),
            H::EndedR => (12, 0),
            H::BrokenW => (13, 0),
            H::FullW => (14, 0),
            H::Stream(i, _) => (15, i),
            H::Hung => (17, 0),
            H::FullStream => (18, 0),
            H::Dgram(_) => (19, 0),
            H::Seq(_) => (20, 0),
            H::Tcp(_) => (21, 0),
            H::Udp(_) => (22, 0),
        };
        1 << (first + bit)
    }

    /// Whether it is on the disk, where operations end by themselves.
    pub fn is_on_disk(self) -> bool {
        self.parts() & (TREE | FILES) != 0 && !matches!(self, H::Open(_))
    }

    fn is_file(self) -> bool {
        matches!(self, H::File(_) | H::ReadOnly | H::WriteOnly | H::Append)
    }

    fn is_inet(self) -> bool {
        matches!(self, H::Tcp(_) | H::Udp(_))
    }
}

/// How an operation moves bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// One buffer.
    Plain,
    /// Two buffers, of which the first has so many bytes.
    Vectored(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    Listener,
    Refused,
    Udp(bool),
    Unix(u8),
    Taken,
    Free,
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    NoDelay(bool),
    KeepAlive(bool),
    Linger(Option<u8>),
    RecvTimeout(u8),
    Ttl(u16),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Question {
    NoDelay,
    KeepAlive,
    Type,
    Error,
    Ttl,
    Linger,
}

/// An operation of the library, with all that it is given. Names are numbers of [`NAMES`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Nop,
    Timeout { micros: u16 },
    Read { h: H, len: u16, at: Option<u16>, now: bool, form: Form },
    Write { h: H, len: u16, at: Option<u16>, now: bool, form: Form },
    Fsync { h: H, data: bool },
    Ftruncate { h: H, len: u16 },
    Fallocate { h: H, at: u16, len: u16, flags: i32 },
    Fadvise { h: H, advice: u8, len: u16 },
    Open { name: u8, flags: i32, keep: u8 },
    Close { keep: u8 },
    Statx { name: u8, follow: bool },
    StatxOf { h: H },
    Rename { from: u8, to: u8, flags: u32 },
    Unlink { name: u8, directory: bool },
    MkDir { name: u8, mode: u16 },
    Symlink { target: u8, name: u8 },
    Link { from: u8, to: u8, follow: bool },
    Splice { from: H, to: H, len: u16, from_at: Option<u16>, to_at: Option<u16> },
    Tee { from: H, to: H, len: u16 },
    Pipe { keep: u8 },
    Socket { domain: u8, kind: u8, keep: u8 },
    Bind { h: H, to: Target },
    Listen { h: H },
    Accept { h: H, now: bool, keep: Option<u8> },
    Connect { h: H, to: Target },
    Recv { h: H, len: u16, flags: i32, now: bool },
    Send { h: H, len: u16, flags: i32, now: bool },
    RecvFrom { h: H, len: u16, now: bool },
    SendTo { h: H, len: u16, to: Target },
    RecvMsg { h: H, lens: (u8, u8), flags: i32, now: bool },
    SendMsg { h: H, lens: (u8, u8), rights: bool, now: bool },
    Shutdown { h: H, how: u8 },
    Set { h: H, to: Setting },
    Get { h: H, what: Question },
    Poll { h: H, events: u16 },
    CancelFd { h: H },
    WaitEvent { source: u8 },
    Notify { source: u8 },
    FutexWait { word: u8, right: bool },
    FutexWake { word: u8, count: u8 },
}

/// Names relative to the directory of the world.
pub const NAMES: [&str; 14] =
    ["f0", "f1", "f2", "dir", "link", "dangling", "new", "dir/in", "dir/new", "none/x", "f0/x", "loop", "", "nul\0"];

impl Op {
    /// The descriptors that it works on.
    pub fn handles(&self) -> [Option<H>; 2] {
        use Op::*;
        match *self {
            Splice { from, to, .. } | Tee { from, to, .. } => [Some(from), Some(to)],
            Read { h, .. } | Write { h, .. } | Fsync { h, .. } | Ftruncate { h, .. } | Fallocate { h, .. } => {
                [Some(h), None]
            }
            Fadvise { h, .. } | StatxOf { h } | Bind { h, .. } | Listen { h } | Accept { h, .. } => [Some(h), None],
            Recv { h, .. } | Send { h, .. } | RecvFrom { h, .. } | SendTo { h, .. } | Connect { h, .. } => {
                [Some(h), None]
            }
            RecvMsg { h, .. } | SendMsg { h, .. } | Shutdown { h, .. } | Set { h, .. } => [Some(h), None],
            Get { h, .. } | Poll { h, .. } | CancelFd { h } => [Some(h), None],
            _ => [None, None],
        }
    }

    pub fn touches(&self) -> Parts {
        use Op::*;
        let own = match self {
            Open { flags, .. } if flags & libc::O_TRUNC != 0 => TREE | FILES | OPEN,
            Open { .. } => TREE | OPEN,
            Statx { .. } => TREE | FILES,
            Rename { .. } | Unlink { .. } | MkDir { .. } | Symlink { .. } | Link { .. } => TREE,
            Close { .. } | Pipe { .. } | Socket { .. } | Accept { keep: Some(_), .. } => OPEN,
            Connect { to: Target::Listener, .. } => LISTENER,
            Bind { to: Target::Unix(_), .. } | Connect { to: Target::Unix(_), .. } => TREE,
            SendTo { .. } | Connect { to: Target::Udp(_), .. } => H::Udp(true).parts(),
            WaitEvent { source } | Notify { source } => 1 << (30 + source),
            FutexWait { word, .. } | FutexWake { word, .. } => 1 << (34 + word),
            _ => 0,
        };
        self.handles().into_iter().flatten().fold(own, |parts, h| parts | h.parts())
    }

    /// Changes what POSIX leaves open; see the list of what may differ.
    fn make_definite(&mut self) {
        match self {
            Op::Read { h, len: len @ 0, .. } | Op::Write { h, len: len @ 0, .. } if !h.is_file() => *len = 1,
            // Its port may be anybody's, as long as it is not of the same protocol.
            Op::Bind { to: to @ Target::Udp(_), .. } => *to = Target::Free,
            Op::SendTo { to, .. } | Op::Connect { h: H::Udp(_), to }
                if matches!(to, Target::Listener | Target::Taken | Target::Refused) =>
            {
                *to = Target::Udp(false);
            }
            // A pipe would have the file's pages, and show what is written to them.
            Op::Splice { from, to, len, .. } if from.is_on_disk() => (*to, *len) = (*from, (*len).max(1)),
            // Descriptors may come along, or a message, for which it has no room.
            Op::Recv { h, flags, .. } if !matches!(h, H::Tcp(_)) => *flags &= !libc::MSG_WAITALL,
            Op::Splice { len: len @ 0, .. } | Op::Tee { len: len @ 0, .. } => *len = 1,
            Op::Read { h, now, .. } | Op::Write { h, now, .. } if h.is_on_disk() => *now = false,
            // To nowhere but where surely nobody is.
            Op::Connect { h: h @ (H::Lonely | H::Open(_)), to } if *to != Target::Listener => {
                (*h, *to) = (H::Fresh, Target::Refused);
            }
            Op::Recv { flags, .. } | Op::RecvMsg { flags, .. } if *flags & libc::MSG_PEEK != 0 => {
                *flags &= !libc::MSG_WAITALL;
            }
            Op::Shutdown { h: h @ (H::Dgram(_) | H::Udp(_) | H::Open(_) | H::Listener), .. } => *h = H::Fresh,
            // It would keep the bytes back for a while.
            Op::Send { h: H::Tcp(_) | H::Open(_), flags, .. } => *flags &= !libc::MSG_MORE,
            _ => {}
        }
    }

    /// Whether it may wait for something that nobody does, and its limit ends it reliably.
    pub fn may_wait(&self) -> bool {
        use Op::*;
        match *self {
            Read { h, now, .. } | Write { h, now, .. } => !now && !h.is_on_disk(),
            Accept { now, .. } | Recv { now, .. } | Send { now, .. } | RecvFrom { now, .. } => !now,
            RecvMsg { now, .. } | SendMsg { now, .. } => !now,
            SendTo { .. } | Poll { .. } | WaitEvent { .. } => true,
            FutexWait { right, .. } => right,
            _ => false,
        }
    }

    /// Whether it could come upon bytes on their way between two sockets of the internet.
    fn depends_on_arrival(&self) -> Parts {
        let inet = |h: &H| h.is_inet() || matches!(h, H::Listener | H::Lonely | H::Open(_));
        let other = match self {
            Op::SendTo { .. } => H::Udp(true).parts(),
            Op::Connect { to: Target::Listener, .. } => LISTENER,
            _ => 0,
        };
        self.handles().iter().flatten().filter(|h| inet(h)).fold(other, |parts, h| parts | h.parts())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    None,
    Zero,
    /// Expires.
    Short,
    /// Does not.
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Soft,
    Hard,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub op: Op,
    pub limit: Limit,
    /// To the next one, if there is one.
    pub link: Link,
}

/// A chain, or a single operation.
pub type Unit = Vec<Item>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// `aio::complete`.
    Batch,
    /// `aio::Queue`.
    Queue,
    /// A task for each unit, where the thread runs tasks.
    Tasks,
}

/// What one waits for and another brings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meeting {
    Stream(u8, bool),
    StreamAll(bool),
    Pipe(u8),
    Poll(u8, bool),
    Event(u8),
    Tcp(bool),
    Accept,
}

/// What is done to operations in a queue, or in a task, that would wait for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// `Queue::cancel` of each, or of a task.
    Token {
        submitted: bool,
    },
    Fd {
        submitted: bool,
    },
    All {
        submitted: bool,
    },
    /// The queue is dropped, or the time of the task is up.
    Drop {
        submitted: bool,
    },
}

/// An operation with many results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Many {
    Poll(u8),
    Recv(u8, bool),
    Read(u8),
    Accept,
    Timeout,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Units that have nothing to do with one another, at once.
    Run { shape: Shape, units: Vec<Unit> },
    /// One waits; a chain brings what it waits for, after a moment.
    Meet { shape: Shape, what: Meeting, micros: u16, link: Link, then: Op },
    /// Waiting operations on one descriptor, and a chain that cancels it after a moment.
    CancelFd { shape: Shape, h: H, waiting: u8, tail: Option<Link> },
    /// Waiting operations in a queue or a task, which are ended from outside.
    End { tasks: bool, units: Vec<Unit>, how: Ending },
    /// Many results, `count` times something that brings one, and a cancel.
    Multi { what: Many, count: u8 },
    /// A chain that opens a file for itself.
    OpenInto { shape: Shape, name: u8, flags: i32, links: [Link; 3], len: u16 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Thread {
    /// It runs in a task.
    pub tasks: bool,
    pub steps: Vec<Step>,
}

/// Threads, each with an engine and a world of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub threads: Vec<Thread>,
}

fn item(op: Op, limit: Limit, link: Link) -> Item {
    Item { op, limit, link }
}

impl Meeting {
    /// Who waits, and who brings.
    pub fn ops(self) -> (Op, Op) {
        let recv = |h, len, flags| Op::Recv { h, len, flags, now: false };
        let send = |h, len| Op::Send { h, len, flags: 0, now: false };
        match self {
            Meeting::Stream(i, side) => (recv(H::Stream(i, side), 40, 0), send(H::Stream(i, !side), 7)),
            Meeting::StreamAll(side) => (recv(H::Stream(0, side), 9, libc::MSG_WAITALL), send(H::Stream(0, !side), 9)),
            Meeting::Pipe(i) => (
                Op::Read { h: H::PipeR(i), len: 30, at: None, now: false, form: Form::Plain },
                Op::Write { h: H::PipeW(i), len: 5, at: None, now: false, form: Form::Plain },
            ),
            Meeting::Poll(i, side) => {
                (Op::Poll { h: H::Stream(i, side), events: libc::POLLIN as u16 }, send(H::Stream(i, !side), 3))
            }
            Meeting::Event(source) => (Op::WaitEvent { source }, Op::Notify { source }),
            Meeting::Tcp(side) => (recv(H::Tcp(side), 6, libc::MSG_WAITALL), send(H::Tcp(!side), 6)),
            Meeting::Accept => (
                Op::Accept { h: H::Listener, now: false, keep: None },
                Op::Connect { h: H::Fresh, to: Target::Listener },
            ),
        }
    }
}

impl Step {
    /// The units that a step runs at once, if that is what it does.
    pub fn units(&self) -> Option<(Shape, Vec<Unit>)> {
        match self {
            Step::Run { shape, units } => Some((*shape, units.clone())),
            Step::Meet { shape, what, micros, link, then } => {
                let (waits, brings) = what.ops();
                let pause = item(Op::Timeout { micros: *micros }, Limit::None, Link::Soft);
                let chain = vec![pause, item(brings, Limit::Long, *link), item(then.clone(), Limit::None, Link::Soft)];
                // What is there already must not be taken for what is brought.
                Some((*shape, vec![vec![item(waits, Limit::Long, Link::Soft)], chain]))
            }
            Step::CancelFd { shape, h, waiting, tail } => {
                let reads = |_| {
                    let wait = Op::Poll { h: *h, events: libc::POLLPRI as u16 };
                    let first = item(wait, Limit::None, tail.unwrap_or(Link::Soft));
                    if tail.is_some() { vec![first, item(Op::Nop, Limit::None, Link::Soft)] } else { vec![first] }
                };
                // Of batches with several shapes only two chains run at once.
                let waiting = if tail.is_some() { *waiting } else { 1 };
                let mut units: Vec<Unit> = (0..waiting).map(reads).collect();
                let pause = item(Op::Timeout { micros: 300 }, Limit::None, tail.unwrap_or(Link::Soft));
                units.push(vec![pause, item(Op::CancelFd { h: *h }, Limit::None, Link::Soft)]);
                Some((*shape, units))
            }
            _ => None,
        }
    }
}

impl Program {
    pub fn cancels_by_descriptor(&self) -> bool {
        self.has(|op| matches!(op, Op::CancelFd { .. }))
    }

    pub fn waits_for_a_futex(&self) -> bool {
        self.has(|op| matches!(op, Op::FutexWait { .. }))
    }

    fn has(&self, what: impl Fn(&Op) -> bool) -> bool {
        let in_step = |step: &Step| {
            let units = step.units().map_or(vec![], |(_, units)| units);
            units.iter().flatten().any(|item| what(&item.op))
        };
        self.threads.iter().flat_map(|thread| &thread.steps).any(in_step)
    }

    pub fn operations(&self) -> usize {
        let count = |step: &Step| match step {
            Step::End { units, .. } => units.iter().map(Vec::len).sum(),
            Step::Multi { count, .. } => 1 + usize::from(*count),
            Step::OpenInto { .. } => 4,
            _ => step.units().map_or(0, |(_, units)| units.iter().map(Vec::len).sum()),
        };
        self.threads.iter().flat_map(|thread| &thread.steps).map(count).sum()
    }

    /// Takes out whatever would leave the result to chance.
    pub fn legal(mut self) -> Program {
        for thread in &mut self.threads {
            for step in &mut thread.steps {
                match step {
                    Step::Run { shape, units } => make_disjoint(*shape, units),
                    Step::End { units, .. } => units.iter_mut().for_each(make_endless),
                    Step::Meet { what, then, .. } => {
                        let (waits, brings) = what.ops();
                        // Its result must not depend on whether the meeting has taken place.
                        let both = waits.touches() | brings.touches();
                        then.make_definite();
                        if then.touches() & both != 0 || then.may_wait() {
                            *then = Op::Nop;
                        }
                    }
                    _ => {}
                }
            }
            thread
                .steps
                .retain(|step| !matches!(step, Step::Run { units, .. } | Step::End { units, .. } if units.is_empty()));
        }
        self.threads.retain(|thread| !thread.steps.is_empty());
        self
    }
}

/// The longest chain of a batch on the smallest ring.
const LONGEST: usize = 4;

fn make_disjoint(shape: Shape, units: &mut Vec<Unit>) {
    let mut taken = 0;
    units.retain_mut(|unit| {
        if shape != Shape::Queue {
            unit.truncate(LONGEST);
        }
        let mut arriving = 0;
        unit.retain(|item| {
            let arrives = item.op.depends_on_arrival();
            let free = arriving & arrives == 0;
            arriving |= arrives;
            free
        });
        let touches = unit.iter().fold(0, |parts, item| parts | item.op.touches());
        let free = taken & touches == 0 && !unit.is_empty();
        // What is closed must not be named by others: they would keep it open.
        let closes = unit.iter().filter(|item| matches!(item.op, Op::Close { .. })).count();
        let names = unit.iter().filter(|item| item.op.touches() & OPEN != 0).count();
        let free = free && (closes == 0 || names == closes);
        if free {
            taken |= touches;
        }
        free
    });
    for item in units.iter_mut().flatten() {
        item.op.make_definite();
        item.limit = lawful(&item.op, item.limit);
    }
}

fn lawful(op: &Op, limit: Limit) -> Limit {
    match (op, limit) {
        // Whether a worker's job has begun when a short limit expires is left to chance.
        _ if !op.may_wait() && limit != Limit::None => Limit::Long,
        _ if !op.may_wait() => limit,
        // A worker of the emulation looks at the word only when its thread runs.
        (Op::FutexWait { .. }, _) => Limit::Short,
        (_, Limit::Zero) => Limit::Zero,
        _ => Limit::Short,
    }
}

/// Leaves operations that nothing ends: the first of a chain, and what follows it.
fn make_endless(unit: &mut Unit) {
    unit.truncate(LONGEST);
    if let Some(first) = unit.first_mut() {
        first.op = match first.op {
            Op::Write { len, .. } => {
                Op::Write { h: H::FullW, len: len.clamp(1, 64), at: None, now: false, form: Form::Plain }
            }
            Op::Send { len, .. } => Op::Send { h: H::FullStream, len: len.clamp(1, 64), flags: 0, now: false },
            Op::Recv { len, .. } => Op::Recv { h: H::Quiet, len: len.clamp(1, 64), flags: 0, now: false },
            Op::RecvMsg { lens, .. } => Op::RecvMsg { h: H::Quiet, lens, flags: 0, now: false },
            Op::Read { len, form, .. } => Op::Read { h: H::Quiet, len: len.clamp(1, 64), at: None, now: false, form },
            Op::Timeout { .. } => Op::Timeout { micros: u16::MAX },
            _ => Op::Poll { h: H::Quiet, events: libc::POLLIN as u16 },
        };
        first.limit = Limit::None;
    }
    for item in unit.iter_mut().skip(1) {
        if item.op.touches() != 0 {
            item.op = Op::Nop;
        }
        item.limit = Limit::None;
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = |f: &mut fmt::Formatter<'_>, unit: &Unit| {
            for (index, item) in unit.iter().enumerate() {
                write!(f, "{} {:?}", if index == 0 { "       " } else { "           " }, item.op)?;
                if item.limit != Limit::None {
                    write!(f, ".timeout({:?})", item.limit)?;
                }
                writeln!(
                    f,
                    "{}",
                    match item.link {
                        _ if index + 1 == unit.len() => "",
                        Link::Soft => ".link()",
                        Link::Hard => ".hard_link()",
                    }
                )?;
            }
            Ok(())
        };
        for thread in &self.threads {
            writeln!(f, "thread{}", if thread.tasks { " of tasks" } else { "" })?;
            for step in &thread.steps {
                match step {
                    Step::Run { shape, units } => {
                        writeln!(f, "    {shape:?}")?;
                        units.iter().try_for_each(|item| unit(f, item))?;
                    }
                    Step::End { tasks, units, how } => {
                        writeln!(f, "    End, tasks: {tasks}, {how:?}")?;
                        units.iter().try_for_each(|item| unit(f, item))?;
                    }
                    step => writeln!(f, "    {step:?}")?,
                }
            }
        }
        Ok(())
    }
}
