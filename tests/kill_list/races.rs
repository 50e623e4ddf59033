//! Time limits and completions that come at about the same time, in batches, in a queue, and in tasks.

use crate::common::{Engine, drained, queue, runtime};
use aio::{Error, Queue, coro, op::*, queue::Done};
use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};

/// Connections on which races are held, the byte that is sent next on each, and the shortest limit.
struct Tracks(Vec<(UnixStream, UnixStream)>, u32, Duration);

const TRACKS: usize = 32;
/// When the byte is sent.
const START: Duration = Duration::from_micros(200);
/// How far apart limits are.
const SPREAD: Duration = Duration::from_micros(200);
/// The shortest of a round's limits is none at all, or between these.
const STEP: Duration = Duration::from_micros(10);
const LONGEST: Duration = Duration::from_millis(5);

impl Tracks {
    fn new() -> Tracks {
        Tracks((0..TRACKS).map(|_| UnixStream::pair().unwrap()).collect(), 0, START - SPREAD / 2)
    }

    /// From far too early to far too late for the byte.
    fn limit(&self, track: usize) -> Duration {
        self.2 + Duration::from_micros((u64::from(self.1) * 7 + track as u64 * 11) % SPREAD.as_micros() as u64)
    }

    /// Has limits follow the bytes, which come later than planned where all is slow: a round of races that one side has
    /// won altogether tells nothing.
    fn adjust(&mut self, expired: usize) {
        self.2 = match expired {
            0 => self.2 / 2,
            TRACKS => (2 * self.2).clamp(STEP, LONGEST),
            _ => self.2,
        };
    }

    /// The byte was received, or is still there: once, and it is the one. Tells whether the time was over first.
    #[track_caller]
    fn judge(&self, track: usize, received: aio::Result<usize>, byte: u8) -> bool {
        let mut left = [0u8; 2];
        let rest = aio::single(Recv::new(&self.0[track].0, &mut left).nonblocking());
        match received {
            Ok(1) => assert_eq!((byte, rest.is_err()), (self.1 as u8, true), "round {}: received twice", self.1),
            Err(Error::TimedOut) => assert_eq!((rest, left[0]), (Ok(1), self.1 as u8), "round {}: lost", self.1),
            other => panic!("round {}: {other:?}", self.1),
        }
        received.is_err()
    }
}

/// Holds so many races in each of three ways; some are won by either side.
fn races(count: usize, mut round: impl FnMut(&Tracks) -> usize) {
    let (mut tracks, mut expired) = (Tracks::new(), 0);
    let rounds = count.div_ceil(TRACKS);
    for number in 0..rounds {
        tracks.1 = number as u32;
        let late = round(&tracks);
        tracks.adjust(late);
        expired += late;
    }
    assert!(count < 10_000 || (1..rounds * TRACKS).contains(&expired), "{expired} of {} expired", rounds * TRACKS);
}

pub fn in_batches(engine: &Engine, count: usize) {
    let round = |tracks: &Tracks| {
        let (mut bytes, sent) = ([[0u8; 1]; TRACKS], [tracks.1 as u8]);
        let units = tracks.0.iter().zip(&mut bytes).enumerate().map(|(i, ((a, b), byte))| {
            let recv = Recv::new(a, byte).timeout(tracks.limit(i));
            (recv, Timeout::after(START).link(), Send::new(b, &sent))
        });
        let done = aio::complete(units.collect::<Vec<_>>()).unwrap();
        let results = done.results.into_iter().enumerate();
        results.filter(|(i, (got, _, put))| *put == Ok(1) && tracks.judge(*i, *got, bytes[*i][0])).count()
    };
    engine.config.run(|| races(count, round)).unwrap();
}

pub fn in_a_queue(engine: &Engine, count: usize) {
    let queue: Queue<Option<(usize, aio::Result<usize>, u8)>> = queue(3 * TRACKS as u32, engine.config);
    let mut shared = None;
    let round = |tracks: &Tracks| {
        let ends = shared.get_or_insert_with(|| {
            let copy = |stream: &UnixStream| Arc::new(stream.try_clone().unwrap());
            tracks.0.iter().map(|(a, b)| (copy(a), copy(b))).collect::<Vec<_>>()
        });
        for (i, (a, b)) in ends.iter().enumerate() {
            let recv = Recv::new(a.clone(), vec![0u8]).timeout(tracks.limit(i));
            queue.submit(recv, move |done| Some((i, done.result, done.op.into_inner().into_buf()[0]))).unwrap();
            let chain = (Timeout::after(START).link(), Send::new(b.clone(), vec![tracks.1 as u8]));
            let sent = |done: Done<_>| {
                assert_eq!(done.result, Ok(1));
                None
            };
            queue.submit_chain(chain, (|_| None, sent)).unwrap();
        }
        let events = drained(&queue);
        assert_eq!((events.len(), queue.len()), (3 * TRACKS, 0));
        events.into_iter().flatten().filter(|(i, got, byte)| tracks.judge(*i, *got, *byte)).count()
    };
    races(count, round);
}

pub fn in_tasks(engine: &Engine, count: usize) {
    let round = |tracks: &Tracks| {
        coro::scope(|s| {
            let racers: Vec<_> = (0..TRACKS)
                .map(|i| {
                    let (a, b) = &tracks.0[i];
                    let byte = vec![tracks.1 as u8];
                    s.spawn(move || aio::multi((Timeout::after(START).link(), Send::new(b, byte))).unwrap());
                    s.spawn(move || {
                        let mut byte = [0u8; 1];
                        (coro::timeout(tracks.limit(i), || aio::single(Recv::new(a, &mut byte))), byte[0])
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
        })
        .into_iter()
        .enumerate()
        .filter(|(i, (got, byte))| tracks.judge(*i, *got, *byte))
        .count()
    };
    runtime(engine).run(|| races(count, round)).unwrap();
}
