//! The server as an event loop: one multishot receive for each connection into a pool of buffers, which are sent back.

use crate::{
    Counts, Listeners,
    client::{Mode, Random},
    resources::Samples,
};
use aio::{
    BufPool, Config, Error, PooledBuf, Queue,
    op::{AcceptMulti, Op, RecvMulti, Send, Timeout},
    queue::{Done, Shot, Token},
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

type Socket = Rc<OwnedFd>;
type Receive = RecvMulti<Socket>;

enum Event {
    Accepted(Shot<AcceptMulti<OwnedFd>>),
    Received(u64, Shot<Receive>),
    Sent(u64, aio::Result<usize>, PooledBuf),
    /// It is time to break off.
    Late(u64),
    /// The clients have gone.
    Over,
}

struct Connection {
    socket: Socket,
    waiting: VecDeque<PooledBuf>,
    receive: Option<Token>,
    mode: Option<Mode>,
    sending: bool,
    /// Nothing more is received.
    ended: bool,
    /// Was broken off: nothing more is sent either.
    broken: bool,
}

struct Server<'a> {
    queue: &'a Queue<'static, Event>,
    pool: BufPool,
    counts: &'a Counts,
    random: Random,
    connections: HashMap<u64, Connection>,
    /// Sends in flight.
    sends: usize,
    /// Receives that the pool had no buffer for.
    hungry: Vec<(u64, Receive)>,
    over: bool,
}

/// What may still be in flight for each connection: a receive, a send, a timer; and as much again for those before it,
/// whose end is not known yet.
const PLACES: usize = 6;
/// More no queue has.
const MOST: u32 = 32_768;
const NO_FAULT: &str = "a send that takes so long is a hang";

pub fn serve(
    config: Config,
    connections: usize,
    listeners: Listeners,
    counts: &Counts,
    watch: &(dyn Fn() -> io::Result<Samples> + Sync),
) -> io::Result<Samples> {
    let queue = Queue::with_config(MOST.min((PLACES * connections + 256) as u32), config)?;
    for listener in listeners.tcp.into_iter().map(OwnedFd::from).chain([listeners.unix.into()]) {
        queue.submit_multi(AcceptMulti::new(listener), Event::Accepted)?;
    }
    let accepts = queue.len();
    let pool = queue.buf_pool(2048, 4096)?;
    let poster = queue.poster_with(|()| Event::Over)?;
    let mut server = Server {
        queue: &queue,
        pool,
        counts,
        random: Random::new(7),
        connections: HashMap::new(),
        sends: 0,
        hungry: vec![],
        over: false,
    };
    let samples = thread::scope(|s| {
        let watcher = s.spawn(move || {
            let samples = watch();
            let _ = poster.post(());
            samples
        });
        while !server.over {
            server.turn(queue.wait(1)?)?;
        }
        watcher.join().expect("it does not panic")
    })?;
    let given_up = Instant::now() + Duration::from_secs(30);
    while queue.len() > accepts && Instant::now() < given_up {
        server.turn(queue.wait_until(Instant::now() + Duration::from_millis(20))?)?;
    }
    let (open, left) = (server.connections.len(), queue.len());
    match (open, left == accepts) {
        (0, true) => Ok(samples),
        _ => Err(io::Error::other(format!("{open} connections and {left} operations are left"))),
    }
}

impl Server<'_> {
    fn turn(&mut self, events: impl Iterator<Item = (Token, Event)>) -> io::Result<()> {
        events.into_iter().try_for_each(|(_, event)| self.handle(event))
    }

    fn handle(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Accepted(shot) => self.accepted(Rc::new(shot.result?))?,
            Event::Received(number, shot) => self.received(number, shot)?,
            Event::Sent(number, result, bytes) => self.sent(number, result, bytes)?,
            Event::Late(number) => self.late(number)?,
            Event::Over => self.over = true,
        }
        Ok(())
    }

    fn accepted(&mut self, socket: Socket) -> io::Result<()> {
        let number = self.counts.accepted.get();
        Counts::add(&self.counts.accepted);
        let connection = Connection {
            socket: socket.clone(),
            waiting: VecDeque::new(),
            receive: None,
            mode: None,
            sending: false,
            ended: false,
            broken: false,
        };
        self.connections.insert(number, connection);
        self.receive(number, RecvMulti::new(socket, &self.pool))
    }

    fn receive(&mut self, number: u64, receive: Receive) -> io::Result<()> {
        let token = self.queue.submit_multi(receive, move |shot| Event::Received(number, shot))?;
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.receive = Some(token);
        }
        Ok(())
    }

    fn received(&mut self, number: u64, shot: Shot<Receive>) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        if !shot.more {
            connection.receive = None;
        }
        match (shot.result, shot.op) {
            (Ok(bytes), _) if bytes.is_empty() => connection.ended = true,
            (Ok(bytes), _) => self.got(number, bytes)?,
            (Err(Error::Os(errno)), Some(op)) if errno.raw() == libc::ENOBUFS && !connection.broken => {
                self.hungry.push((number, op));
                if self.sends == 0 {
                    // No send will give a buffer back: they are all free already.
                    self.feed()?;
                }
            }
            (Err(error), _) => {
                connection.ended = true;
                let wanted = connection.broken && error == Error::Canceled;
                if !(wanted || is_no_buffer(error)) {
                    self.counts.error(&error.into());
                }
            }
        }
        self.send(number)
    }

    fn got(&mut self, number: u64, bytes: PooledBuf) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        if connection.mode.is_none() {
            let mode = Mode::of(bytes[0]);
            connection.mode = Some(mode);
            if matches!(mode, Mode::Late | Mode::Canceled) {
                let limit = Duration::from_micros(self.random.below(20_000));
                self.queue.submit(Timeout::after(limit), move |_| Event::Late(number))?;
            }
        }
        if !connection.broken {
            connection.waiting.push_back(bytes);
        }
        Ok(())
    }

    /// Sends what comes next, or ends the connection.
    fn send(&mut self, number: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&number).filter(|connection| !connection.sending) else {
            return Ok(());
        };
        if let Some(bytes) = connection.waiting.pop_front() {
            // The limit is armed each time, and never over.
            let send = Send::new(connection.socket.clone(), bytes).timeout(Duration::from_secs(120));
            let sent = move |done: Done<_>| {
                let op: aio::Timed<Send<Socket, PooledBuf>> = done.op;
                Event::Sent(number, done.result, op.into_inner().into_buf())
            };
            self.queue.submit(send, sent)?;
            connection.sending = true;
            self.sends += 1;
        } else if (connection.ended || connection.broken) && connection.receive.is_none() {
            // Closes it.
            self.connections.remove(&number);
        }
        Ok(())
    }

    fn sent(&mut self, number: u64, result: aio::Result<usize>, mut bytes: PooledBuf) -> io::Result<()> {
        self.sends -= 1;
        if result == Err(Error::TimedOut) {
            return Err(io::Error::other(NO_FAULT));
        }
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.sending = false;
            match result {
                Ok(count) => {
                    self.counts.bytes.set(self.counts.bytes.get() + count as u64);
                    bytes.advance(count);
                    if !bytes.is_empty() && !connection.broken {
                        // The rest, first.
                        connection.waiting.push_front(bytes);
                    }
                }
                Err(error) => {
                    connection.waiting.clear();
                    if !(connection.broken && error == Error::Canceled) {
                        self.counts.error(&error.into());
                    }
                }
            }
        }
        self.send(number)?;
        self.feed()
    }

    /// Breaks off as the client has asked for: cancels its receive, or all that there is on its descriptor.
    fn late(&mut self, number: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        connection.broken = true;
        connection.waiting.clear();
        let socket = connection.socket.clone();
        match (connection.mode, connection.receive) {
            (Some(Mode::Late), _) => {
                Counts::add(&self.counts.late);
                self.queue.cancel_fd(&socket);
            }
            (_, Some(token)) => {
                Counts::add(&self.counts.canceled);
                // Its last event may be waiting to be taken.
                let _ = self.queue.cancel(token);
            }
            _ => Counts::add(&self.counts.canceled),
        }
        self.send(number)
    }

    /// Receives again where there was no buffer, now that some may be free.
    fn feed(&mut self) -> io::Result<()> {
        for (number, op) in std::mem::take(&mut self.hungry) {
            match self.connections.get(&number) {
                Some(connection) if !connection.broken => self.receive(number, op)?,
                // The client has been cut off meanwhile.
                _ => self.send(number)?,
            }
        }
        Ok(())
    }
}

fn is_no_buffer(error: Error) -> bool {
    matches!(error, Error::Os(errno) if errno.raw() == libc::ENOBUFS)
}
