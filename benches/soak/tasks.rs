//! The server in tasks: one for each connection.

use crate::{Counts, Listeners, client::Mode, client::Random, resources::Samples};
use aio::{
    Config, Error, coro, is_canceled,
    net::{Chunks, Stream},
    op::{Op, Recv, Send},
};
use std::{
    cell::RefCell,
    io::{self, Write as _},
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// A page on which a task suspends, and what the layers below need, fit several times.
const STACK: usize = 64 << 10;

struct Server<'a> {
    counts: &'a Counts,
    random: RefCell<Random>,
}

pub fn serve(
    engine: Config,
    _connections: usize,
    listeners: Listeners,
    counts: &Counts,
    watch: &(dyn Fn() -> io::Result<Samples> + Sync),
) -> io::Result<Samples> {
    let server = Server { counts, random: RefCell::new(Random::new(7)) };
    let config = coro::Config::new().engine(engine).stack_size(STACK).pool(1024, 4096);
    config.run(|| {
        coro::scope(|s| {
            let mut acceptors = Vec::new();
            for listener in &listeners.tcp {
                acceptors.push(s.spawn(|| {
                    for stream in server.accepted(listener.incoming()) {
                        s.spawn(|| server.connection(stream, |stream| server.chunks(stream.into_chunks())));
                    }
                }));
            }
            acceptors.push(s.spawn(|| {
                for stream in server.accepted(listeners.unix.incoming()) {
                    s.spawn(|| server.connection(stream, |stream| server.chunks(stream.into_chunks())));
                }
            }));
            let samples = coro::offload(watch)?;
            // The clients have gone, so the connections end by themselves.
            let given_up = Instant::now() + Duration::from_secs(30);
            while s.alive() > acceptors.len() && Instant::now() < given_up {
                coro::sleep(Duration::from_millis(5))?;
            }
            let left = s.alive() - acceptors.len();
            acceptors.iter().for_each(|acceptor| acceptor.cancel());
            let used = coro::stats().pool.used;
            if left > 0 || used > 0 {
                s.cancel();
                return Err(io::Error::other(format!("{left} tasks and {used} buffers are left")));
            }
            samples
        })
    })?
}

impl Server<'_> {
    /// Connections, until the task is cancelled.
    fn accepted<S>(&self, incoming: impl Iterator<Item = io::Result<S>>) -> impl Iterator<Item = S> {
        incoming.filter_map(|stream| match stream {
            Ok(stream) => {
                Counts::add(&self.counts.accepted);
                Some(stream)
            }
            Err(error) => {
                if !is_canceled(&error) {
                    self.counts.error(&error);
                }
                None
            }
        })
    }

    fn connection<S: AsFd>(&self, stream: S, chunks: impl FnOnce(S) -> io::Result<()>) {
        let mut buffer = vec![0; 4096];
        let first = match aio::single(Recv::new(&stream, &mut buffer[..])) {
            // One that broke off before its first byte.
            Ok(0) => return,
            Ok(count) => count,
            Err(error) => return self.counts.error(&error.into()),
        };
        let mode = Mode::of(buffer[0]);
        let result = self.send(&stream, &buffer[..first]).and_then(|()| match mode {
            Mode::Plain => self.echo(&stream, &mut buffer),
            Mode::Chunks => chunks(stream),
            Mode::Late => self.late(&stream, &mut buffer),
            Mode::Canceled => self.canceled(&stream, &mut buffer),
        });
        if let Err(error) = result {
            self.counts.error(&error);
        }
    }

    fn echo(&self, stream: &impl AsFd, buffer: &mut [u8]) -> io::Result<()> {
        let mut limit = self.random.borrow_mut().below(50);
        loop {
            // A limit that is often over: what comes just then must not be lost.
            match aio::single(Recv::new(stream, &mut *buffer).timeout(Duration::from_millis(limit))) {
                Ok(0) => return Ok(()),
                Ok(count) => self.send(stream, &buffer[..count])?,
                // Its own limit, or the task's, which is over for the next wait as well.
                Err(Error::TimedOut) => {
                    coro::yield_now()?;
                    limit = 1_000;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&self, stream: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = aio::single(Send::new(stream, bytes))?;
            bytes = &bytes[sent..];
            self.counts.bytes.set(self.counts.bytes.get() + sent as u64);
        }
        Ok(())
    }

    /// The time limit of a task ends it, in whatever it waits for.
    fn late(&self, stream: &impl AsFd, buffer: &mut [u8]) -> io::Result<()> {
        let limit = Duration::from_micros(self.random.borrow_mut().below(20_000));
        match coro::timeout(limit, || self.echo(stream, buffer)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Counts::add(&self.counts.late),
            result => return result,
        }
        Ok(())
    }

    /// The loser of a race is cancelled, in whatever it waits for.
    fn canceled(&self, stream: &impl AsFd, buffer: &mut [u8]) -> io::Result<()> {
        let limit = Duration::from_micros(self.random.borrow_mut().below(20_000));
        let race = coro::race((|| coro::sleep(limit), || self.echo(stream, buffer)));
        match race.values.1 {
            Err(error) if is_canceled(&error) => Counts::add(&self.counts.canceled),
            result => return result,
        }
        Ok(())
    }

    fn chunks<S: Stream + 'static>(&self, mut chunks: Chunks<S>) -> io::Result<()>
    where
        for<'s> &'s S: io::Write,
    {
        while let Some(chunk) = chunks.next() {
            let chunk = chunk?;
            chunks.stream().write_all(&chunk)?;
            self.counts.bytes.set(self.counts.bytes.get() + chunk.len() as u64);
        }
        Ok(())
    }
}
