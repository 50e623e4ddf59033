//! Runs a program on an engine, and tells what has come of it.

use super::{
    make::Maker,
    program::{Ending, H, Link, Many, Program, Shape, Step, Target, Thread, Unit},
    submit::{self, Chain},
    world::{Fd, World, summary},
};
use aio::{
    Closing, Config, Queue, coro, op,
    op::Boxed,
    queue::{Done, Shot, Token},
};
use std::{
    cell::OnceCell,
    fs::File,
    io::Write,
    net::TcpStream,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// The step that began last, counted from 0, for when it hangs.
pub static STEP: AtomicUsize = AtomicUsize::new(0);

/// What has come of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For each thread what its operations gave, and what they left behind.
    pub threads: Vec<Result<ThreadOutcome, String>>,
    /// Descriptors that are there and were not before, or the other way round.
    pub descriptors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ThreadOutcome {
    pub results: Vec<(String, Option<aio::Result<String>>)>,
    pub left: Vec<String>,
    /// Entries of the ring that have not completed.
    pub in_flight: u64,
}

pub fn run(program: &Program, config: Config) -> Outcome {
    let before = descriptors();
    let guarded = |thread: &Thread| {
        let outcome = catch_unwind(AssertUnwindSafe(|| run_thread(thread, config)));
        outcome.map_err(|panic| match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast::<&str>().map_or("a panic".into(), |text| text.to_string()),
        })
    };
    let threads = match &program.threads[..] {
        [one] => vec![guarded(one)],
        several => std::thread::scope(|scope| {
            let handles: Vec<_> = several.iter().map(|thread| scope.spawn(|| guarded(thread))).collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).collect()
        }),
    };
    let after = descriptors();
    let lost = before.iter().filter(|fd| !after.contains(fd)).map(|fd| format!("closed: {fd:?}"));
    let new = after.iter().filter(|fd| !before.contains(fd)).map(|fd| format!("open: {fd:?}"));
    Outcome { threads, descriptors: lost.chain(new).collect() }
}

fn descriptors() -> Vec<(String, String)> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let named = all
        .filter_map(|entry| Some((entry.file_name().into_string().unwrap(), std::fs::read_link(entry.path()).ok()?)));
    let mut list: Vec<_> = named.map(|(number, target)| (number, target.display().to_string())).collect();
    // The one that lists them.
    list.retain(|(_, target)| !target.contains("/fd"));
    list.sort();
    list
}

fn run_thread(thread: &Thread, config: Config) -> ThreadOutcome {
    let body = || {
        let maker = Rc::new(Maker { world: Rc::new(World::new()), trace: Rc::default() });
        let runner = Runner { maker: maker.clone(), config, tasks: thread.tasks, queue: OnceCell::new() };
        for (index, step) in thread.steps.iter().enumerate() {
            STEP.store(index, Ordering::Relaxed);
            runner.maker.trace.note(format!("step: {step:?}"));
            runner.step(step);
            runner.maker.world.settle();
        }
        drop(runner);
        let stats = aio::stats();
        let results = maker.trace.0.take();
        ThreadOutcome { results, left: maker.world.left(), in_flight: stats.submitted - stats.completed }
    };
    if thread.tasks {
        coro::Config::new().engine(config).run(body).expect("an engine")
    } else {
        config.run(body).expect("an engine")
    }
}

struct Runner {
    maker: Rc<Maker>,
    config: Config,
    /// Whether it runs in a task.
    tasks: bool,
    /// One for all steps.
    queue: OnceCell<Queue<'static, ()>>,
}

/// More than any step submits.
const PLACES: u32 = 32;

impl Runner {
    fn step(&self, step: &Step) {
        match step {
            Step::End { tasks, units, how } if *tasks && self.tasks => self.end_tasks(units, *how),
            Step::End { units, how, .. } => self.end(units, *how),
            Step::Multi { what, count } => self.multi(*what, *count),
            Step::OpenInto { shape, name, flags, links, len } => {
                let chain = self.open_into(*name, *flags, *links, *len);
                self.at_once(*shape, vec![chain]);
            }
            _ => {
                let (shape, units) = step.units().expect("a step that runs units");
                let chains = units.iter().map(|unit| self.chain(unit)).collect();
                self.at_once(shape, chains);
            }
        }
    }

    fn note(&self, what: impl Into<String>) {
        self.maker.trace.note(what.into());
    }

    fn chain(&self, unit: &Unit) -> Chain {
        let links = unit[..unit.len() - 1].iter().map(|item| item.link).collect();
        Chain { links, ops: unit.iter().map(|item| self.maker.make(item)).collect() }
    }

    fn queue(&self) -> &Queue<'static, ()> {
        self.queue.get_or_init(|| Queue::with_config(PLACES, self.config).unwrap())
    }

    fn at_once(&self, shape: Shape, chains: Vec<Chain>) {
        match shape {
            Shape::Tasks if self.tasks => {
                let run = |chain| coro::spawn(move || submit::batch(vec![chain]));
                let tasks: Vec<_> = chains.into_iter().map(run).collect();
                let errors: usize = tasks.into_iter().map(|task| task.join().unwrap()).sum();
                self.note(format!("{errors} errors"));
            }
            Shape::Queue => {
                let queue = self.queue();
                let count: usize = chains.into_iter().map(|chain| submit::submit(queue, chain).len()).sum();
                let mut events = 0;
                queue.drain(|_, ()| events += 1).unwrap();
                self.note(format!("{events} events of {count}, {} left", queue.len()));
            }
            _ => self.note(format!("{} errors", submit::batch(chains))),
        }
    }

    /// Ends what waits for ever in a queue.
    fn end(&self, units: &[Unit], how: Ending) {
        let own = matches!(how, Ending::Drop { .. }).then(|| Queue::with_config(PLACES, self.config).unwrap());
        let queue = own.as_ref().unwrap_or_else(|| self.queue());
        let chains = units.iter().map(|unit| self.chain(unit));
        let tokens: Vec<_> = chains.flat_map(|chain| submit::submit(queue, chain)).collect();
        let (Ending::Token { submitted }
        | Ending::Fd { submitted }
        | Ending::All { submitted }
        | Ending::Drop { submitted }) = how;
        if submitted {
            self.note(format!("{} at once", queue.poll().unwrap().count()));
        }
        match how {
            Ending::Token { .. } => {
                let results: Vec<_> = tokens.iter().map(|token| queue.cancel(*token)).collect();
                self.note(format!("cancelled: {results:?}"));
            }
            Ending::Fd { .. } => {
                let mut handles: Vec<H> = units.iter().filter_map(|unit| unit[0].op.handles()[0]).collect();
                handles.sort();
                handles.dedup();
                let counts: Vec<_> = handles.iter().map(|h| queue.cancel_fd(self.maker.world.fd(*h))).collect();
                self.note(format!("cancelled: {counts:?}"));
                queue.cancel_all();
            }
            Ending::All { .. } => self.note(format!("cancelled: {}", queue.cancel_all())),
            Ending::Drop { .. } => return drop(own),
        }
        let mut events = 0;
        queue.drain(|_, ()| events += 1).unwrap();
        let stale = tokens.iter().filter(|token| queue.cancel(**token).is_err()).count();
        self.note(format!("{events} events, {stale} stale tokens, {} left", queue.len()));
    }

    /// Ends tasks that wait for ever.
    fn end_tasks(&self, units: &[Unit], how: Ending) {
        let chains: Vec<_> = units.iter().map(|unit| self.chain(unit)).collect();
        let tasks: Vec<_> = chains
            .into_iter()
            .map(|chain| match how {
                Ending::Drop { .. } => coro::spawn(|| {
                    let batch = || submit::batch(vec![chain]);
                    coro::timeout(Duration::from_millis(2), batch)
                }),
                _ => coro::spawn(|| submit::batch(vec![chain])),
            })
            .collect();
        if let Ending::Token { submitted: true } | Ending::All { submitted: true } = how {
            coro::sleep(Duration::from_micros(100)).unwrap();
        }
        if !matches!(how, Ending::Drop { .. }) {
            tasks.iter().for_each(|task| task.cancel());
        }
        let errors: usize = tasks.into_iter().map(|task| task.join().unwrap()).sum();
        self.note(format!("{errors} errors"));
    }

    fn open_into(&self, name: u8, flags: i32, links: [Link; 3], len: u16) -> Chain {
        let world = &self.maker.world;
        // SAFETY: what is lent stays until the world is dropped, after all operations.
        let closing: &'static Closing = unsafe { &*world.lend(Closing::opening()) };
        let mut open = op::OpenAt::new(World::name(name)).dir(world.fd(H::Dir));
        open = open.flags(op::OpenFlags::from_bits_retain(flags)).mode(0o600);
        let bytes = vec![b'w'; len.into()];
        let ops = vec![
            self.noting("open into", open.open_into(closing), |(), _| String::new()),
            self.noting("write", op::Write::new(closing, bytes).at(3), |count, _| count.to_string()),
            self.noting("read", op::Read::new(closing, vec![0; 20]).at(0), |n, op| summary(&op.into_buf()[..n])),
            self.noting("close", op::Close::new(closing), |(), _| String::new()),
        ];
        Chain { links: links.to_vec(), ops }
    }

    fn noting<O: op::Op + 'static>(
        &self,
        what: &str,
        op: O,
        see: impl FnOnce(O::Value, O) -> String + 'static,
    ) -> Boxed<'static, ()> {
        let (trace, index) = (self.maker.trace.clone(), self.maker.trace.reserve(what.into()));
        Boxed::new(op, move |Done { result, op }| {
            let result = result.map(|value| see(value, op));
            let told = result.as_ref().map(drop).map_err(|error| *error);
            trace.set(index, result);
            told
        })
    }

    /// Gives an operation with many results something to do, one at a time.
    fn multi(&self, what: Many, count: u8) {
        let queue = Queue::<String>::with_config(8, self.config).unwrap();
        let token = self.submit_multi(&queue, what, count).expect("room");
        let mut seen = Vec::new();
        let look = |seen: &mut Vec<String>, limit| {
            let events = queue.wait_until(Instant::now() + limit).unwrap();
            let before = seen.len();
            seen.extend(events.map(|(_, text)| text));
            seen.len() > before
        };
        let ended = |seen: &[String]| seen.last().is_some_and(|text| text.ends_with("false"));
        let mut connections: Vec<OwnedFd> = Vec::new();
        let rounds = match what {
            Many::Timeout => 0,
            Many::Poll(_) => 1,
            _ => count,
        };
        for round in 0..=rounds {
            if round > 0 && !ended(&seen) {
                connections.extend(self.feed(what));
                look(&mut seen, Duration::from_millis(300));
            }
            // All that is there, before there is more: how much comes at once is the engine's business. And before a
            // cancel, which leaves the rest where it is.
            let ends = !matches!(what, Many::Poll(_) | Many::Timeout);
            while ends && !ended(&seen) && look(&mut seen, Duration::from_millis(2)) {}
        }
        if what != Many::Timeout && !ended(&seen) {
            queue.cancel(token).unwrap();
        }
        while !ended(&seen) {
            let some = look(&mut seen, Duration::from_secs(5));
            assert!(some, "an operation with many results does not end: {seen:?}");
        }
        match what {
            // Ticks that are late are left out.
            Many::Timeout => drop(seen.drain(..seen.len() - 1)),
            // It says once or several times that the same is there.
            Many::Poll(_) => seen.dedup(),
            _ => {}
        }
        self.note(format!("{what:?}: {seen:?}, {} left", queue.len()));
    }

    fn submit_multi(&self, queue: &Queue<'static, String>, what: Many, count: u8) -> Option<Token> {
        let fd = |h| self.maker.world.fd(h);
        let pool = || queue.buf_pool(4, 16).unwrap();
        let bytes = |buf: aio::PooledBuf| summary(&buf);
        match what {
            Many::Poll(i) => {
                let poll = op::PollMulti::new(fd(H::Stream(i, false)), op::PollEvents::IN);
                queue.submit_multi(poll, told(|events| format!("{events:?}"))).ok()
            }
            Many::Recv(i, side) => {
                queue.submit_multi(op::RecvMulti::new(fd(H::Stream(i, side)), &pool()), told(bytes)).ok()
            }
            Many::Read(i) => queue.submit_multi(op::ReadMulti::new(fd(H::PipeR(i)), &pool()), told(bytes)).ok(),
            Many::Accept => {
                let accept = op::AcceptMulti::new(fd(H::Listener));
                queue.submit_multi(accept, told(|_: OwnedFd| "a connection".into())).ok()
            }
            Many::Timeout => {
                let every = op::TimeoutMulti::every(Duration::from_micros(300)).times(count.into());
                queue.submit_multi(every, told(|_| String::new())).ok()
            }
        }
    }

    /// Brings about one result; a connection has to be kept meanwhile.
    fn feed(&self, what: Many) -> Option<OwnedFd> {
        let world = &self.maker.world;
        let send = |h, text: &str| {
            let Fd::Owned(fd) = world.fd(h) else { unreachable!("it is open") };
            // If that end was shut down, the other one has its end.
            let _ = File::from(fd.try_clone().unwrap()).write(text.as_bytes());
            None
        };
        match what {
            Many::Poll(i) | Many::Recv(i, false) => send(H::Stream(i, true), "some bytes"),
            Many::Recv(i, true) => send(H::Stream(i, false), "some others"),
            Many::Read(i) => send(H::PipeW(i), "bytes to read"),
            Many::Accept => {
                let address = world.address(Target::Listener).ip().unwrap();
                TcpStream::connect(address).ok().map(OwnedFd::from)
            }
            Many::Timeout => None,
        }
    }
}

/// A mapper that puts a result into words.
fn told<O: op::MultiOp>(see: impl Fn(O::Item) -> String) -> impl FnMut(Shot<O>) -> String {
    move |shot| format!("{:?}, more: {}", shot.result.map(&see), shot.more)
}
