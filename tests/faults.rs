//! What holds when nearly everything that may go wrong below an engine does, often and at once. See the page on testing
//! for what is injected where. Each test runs with several seeds on each engine; a failing one says which it was, and
//! `AIO_FAULT_SEED` repeats that.

mod common;
#[path = "common/net.rs"]
mod net;

use aio::{
    Backend, Config, Error, Queue, Shared, coro,
    faults::{Fault, Plan},
    net::{TcpListener, TcpStream},
    op::*,
    queue::Shot,
    sync::*,
    windowed,
};
use common::*;
use net::tcp_pair;
use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::{fd::OwnedFd, unix::fs::FileExt as _, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const RING: &[Fault] = &[Fault::Refusal, Fault::Withhold];
/// Where several operations go to the kernel together.
const SEVERAL: &[Fault] = &[Fault::Partial, Fault::Reorder, Fault::TinyQueue];
const READINESS: &[Fault] = &[Fault::Spurious, Fault::InterruptedWait, Fault::InterruptedCall];

/// Faults that a test has to have met on a ring, and on each emulation. Without them it would say nothing.
struct Needs<'a> {
    ring: &'a [&'a [Fault]],
    emulation: &'a [&'a [Fault]],
}

/// Runs a test with each seed on each engine.
#[track_caller]
fn under(plan: impl Fn(u64) -> Plan, needs: Needs, test: impl Fn(Config, &mut Random)) {
    let chosen = std::env::var("AIO_FAULT_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds: Vec<u64> = chosen.map_or_else(|| (1..=3).collect(), |seed| vec![seed]);
    let mut plans = Vec::new();
    for engine in engines() {
        for &seed in &seeds {
            let _watchdog = watchdog(engine.name);
            eprintln!("on {} with seed {seed}", engine.name);
            let plan = plan(seed);
            test(engine.config.faults(plan), &mut Random(seed));
            plans.push((engine.backend, plan));
        }
    }
    for backend in backends().into_iter().filter(|_| chosen.is_none()) {
        let needs = if backend == Backend::IoUring { needs.ring } else { needs.emulation };
        for &fault in needs.iter().copied().flatten() {
            let of_backend = plans.iter().filter(|(other, _)| *other == backend);
            let count: u64 = of_backend.map(|(_, plan)| plan.count(fault)).sum();
            assert!(count > 0, "{fault:?} was never injected on {backend}");
            eprintln!("{backend}: {fault:?} {count} times");
        }
    }
}

/// Tries again while there is no descriptor, as a program would that waits for others to close theirs.
fn persist<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match f() {
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {}
            other => return other,
        }
    }
}

fn pattern(len: usize, salt: u64) -> Vec<u8> {
    let mut random = Random(salt + 1);
    (0..len).map(|_| random.below(256) as u8).collect()
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1000];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn client(address: SocketAddr, number: u64) -> io::Result<()> {
    let mut stream = persist(|| TcpStream::connect(address))?;
    for message in 0..3 {
        let bytes = pattern(1 + (number as usize * 37 + message * 911) % 3000, number);
        stream.write_all(&bytes)?;
        let mut answer = vec![0; bytes.len()];
        stream.read_exact(&mut answer)?;
        assert!(answer == bytes, "message {message} of client {number} differs");
    }
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(stream.read(&mut [0])?, 0, "client {number} was sent too much");
    Ok(())
}

/// An echo server that accepts in both ways, and its clients.
fn serve(config: Config) {
    const CLIENTS: usize = 12;
    let root = || {
        let listener = persist(|| TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        coro::scope(|s| {
            let clients: Vec<_> = (0..CLIENTS as u64).map(|number| s.spawn(move || client(address, number))).collect();
            let accepted = listener.incoming().filter_map(Result::ok).take(CLIENTS / 2);
            let mut served: Vec<_> = accepted.map(|stream| s.spawn(|| echo(stream))).collect();
            while served.len() < CLIENTS {
                let stream = persist(|| listener.accept()).unwrap().0;
                served.push(s.spawn(|| echo(stream)));
            }
            clients.into_iter().chain(served).for_each(|task| task.join().unwrap().unwrap());
        });
    };
    coro::Config::new().engine(config).run(root).unwrap();
}

#[test]
fn an_echo_server_and_its_clients_lose_no_byte() {
    let visible = &[Fault::Short, Fault::NoDescriptors];
    let needs = Needs { ring: &[RING, SEVERAL, visible], emulation: &[READINESS, &[Fault::Reorder], visible] };
    under(Plan::all, needs, |config, _| serve(config));
}

#[test]
fn an_echo_server_without_descriptors_now_and_then_leaks_none() {
    in_own_process("an_echo_server_without_descriptors_now_and_then_leaks_none", || {
        for engine in engines() {
            for seed in 1..3 {
                eprintln!("on {} with seed {seed}", engine.name);
                let plan = Plan::all(seed).with(Fault::NoDescriptors, 3).with(Fault::FailedShots, 3);
                leaks_no_descriptor(|| serve(engine.config.faults(plan)));
                // What an old ring does not do itself is not disturbed.
                let is_plain = engine.name == engine.backend.to_string();
                assert!(plan.count(Fault::NoDescriptors) > 0 || !is_plain);
            }
        }
    });
}

const CHUNK: usize = 3000;

#[test]
fn a_file_is_copied_by_chains_as_if_nothing_had_happened() {
    let needs = Needs { ring: &[RING, SEVERAL, &[Fault::NoRoomForChain]], emulation: &[&[Fault::InterruptedCall]] };
    under(Plan::invisible, needs, |config, random| {
        let bytes = pattern(40 * CHUNK + 17, random.below(1000));
        let (from, to) = (file_with(&bytes), file_with(b""));
        let mut memory = vec![0; bytes.len()];
        let parts: Vec<_> = memory.chunks_mut(CHUNK).map(Shared::new).collect();
        let chains = parts.iter().enumerate().map(|(at, part)| {
            let at = (at * CHUNK) as u64;
            (Read::new(&from, part).at(at).link(), Nop::new().hard_link(), Write::new(&to, part).at(at))
        });
        let results = config.run(|| aio::complete(chains.collect::<Vec<_>>()).unwrap().results).unwrap();
        for (read, nop, written) in results {
            assert_eq!((read, nop), (written, Ok(())));
            assert!(written == Ok(CHUNK) || written == Ok(17), "{written:?}");
        }
        drop(parts);
        assert!(memory == bytes && contents(&to) == bytes);
    });
}

fn contents(file: &File) -> Vec<u8> {
    let mut all = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

#[test]
fn a_file_is_copied_by_pieces_that_may_be_short() {
    let ring: &[&[Fault]] = &[RING, SEVERAL, &[Fault::Short, Fault::Punt]];
    let emulation: &[&[Fault]] = &[&[Fault::Short, Fault::InterruptedCall, Fault::SlowWorker, Fault::NoDescriptors]];
    let plan = |seed| Plan::all(seed).with(Fault::NoDescriptors, 2).with(Fault::SlowWorker, 2);
    under(plan, Needs { ring, emulation }, |config, random| {
        let bytes = pattern(20 * CHUNK + 17, random.below(1000));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("from"), &bytes).unwrap();
        let copy = || {
            let open = |name: &str, flags| {
                let path = dir.path().join(name);
                File::from(persist(|| Ok(aio::single(OpenAt::new(&path).flags(flags).mode(0o600))?)).unwrap())
            };
            let from = open("from", OpenFlags::empty());
            let to = open("to", OpenFlags::READ_WRITE | OpenFlags::CREATE);
            // What is left: where, and how much.
            let left = RefCell::new(vec![(0, bytes.len())]);
            while !left.borrow().is_empty() {
                let pieces: Vec<_> = left.take().into_iter().flat_map(|piece| split(piece, CHUNK)).collect();
                let reads = pieces.iter().map(|&(at, len)| Read::new(&from, vec![0; len]).at(at as u64));
                let read = aio::multi(windowed(reads, 7)).unwrap();
                let full = pieces.iter().zip(read).map(|(&(at, len), (count, buffer))| {
                    assert!(0 < count && count <= len);
                    left.borrow_mut().push((at + count, len - count));
                    (at, buffer[..count].to_vec())
                });
                for (at, buffer) in full {
                    let mut done = 0;
                    while done < buffer.len() {
                        let write = Write::new(&to, &buffer[done..]).at((at + done) as u64);
                        done += aio::single(write).unwrap();
                    }
                }
                left.borrow_mut().retain(|piece| piece.1 > 0);
            }
            // Several at once, for the emulation has workers do these.
            aio::multi([&from, &to, &from, &to].map(Fsync::new)).unwrap();
            assert!(contents(&to) == bytes);
        };
        config.run(copy).unwrap();
    });
}

fn split((at, len): (usize, usize), most: usize) -> Vec<(usize, usize)> {
    (0..len).step_by(most).map(|skip| (at + skip, most.min(len - skip))).collect()
}

/// Something that waits for the engine, for a moment or less.
fn wait_a_bit(random: &RefCell<Random>) -> aio::Result<()> {
    let choice = random.borrow_mut().below(3);
    match choice {
        0 => aio::single(Nop::new()),
        1 => coro::sleep(Duration::from_micros(50)),
        _ => coro::yield_now(),
    }
}

#[test]
fn locks_and_permits_are_free_again_and_messages_come_once_whoever_is_cancelled() {
    under(
        Plan::invisible,
        Needs { ring: &[RING, SEVERAL], emulation: &[&[Fault::InterruptedWait]] },
        |config, random| {
            let random = RefCell::new(Random(random.below(1 << 30) + 1));
            coro::Config::new().engine(config).run(|| meet(&random)).unwrap();
        },
    );
}

/// Tasks that share everything, of which some are cancelled in the middle.
fn meet(random: &RefCell<Random>) {
    const TASKS: usize = 16;
    let (mutex, semaphore, event) = (Mutex::new(0), Semaphore::new(3), Event::new());
    let (sender, receiver) = channel::<usize>(2);
    let (inside, holders, sent, received) = (Cell::new(false), Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
    let work = |number: usize| -> Result<(), Error> {
        event.wait()?;
        for round in 0..8 {
            let guard = mutex.lock()?;
            assert!(!inside.replace(true), "two hold the lock");
            let waited = wait_a_bit(random);
            inside.set(false);
            drop(guard);
            waited?;
            let permit = semaphore.acquire(1 + round % 3)?;
            holders.set(holders.get() + permit.count());
            assert!(holders.get() <= 3, "too many permits");
            let waited = wait_a_bit(random);
            holders.set(holders.get() - permit.count());
            drop(permit);
            waited?;
            if sender.send(number * 100 + round).is_ok() {
                sent.set(sent.get() + 1);
            }
        }
        Ok(())
    };
    coro::scope(|s| {
        let (work, sender) = (&work, &sender);
        let reader = s.spawn(|| {
            while let Ok(message) = receiver.recv() {
                received.borrow_mut().push(message);
                let _ = wait_a_bit(random);
            }
        });
        let tasks: Vec<_> = (0..TASKS).map(|number| s.spawn(move || work(number))).collect();
        event.set();
        for (number, task) in tasks.iter().enumerate() {
            coro::sleep(Duration::from_micros(300)).unwrap();
            if number % 3 == 0 {
                task.cancel();
            }
        }
        let ended: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
        assert!(ended.iter().enumerate().all(|(number, end)| number % 3 == 0 || end.is_ok()), "{ended:?}");
        eventually("all messages are received", || received.borrow().len() == sent.get());
        reader.cancel();
        assert_eq!(sender.len(), 0);
    });
    assert!(!mutex.is_locked() && semaphore.available() == 3 && sent.get() >= 8 * (TASKS - TASKS.div_ceil(3)));
    let mut messages = received.into_inner();
    messages.sort_unstable();
    messages.dedup();
    assert_eq!(messages.len(), sent.get(), "a message came twice");
}

/// What was received, an error, or the operation at its end.
enum Told<O> {
    Item(aio::PooledBuf),
    End(aio::Result<()>, O),
}

fn told<O: MultiOp<Item = aio::PooledBuf>>(shot: Shot<O>) -> Told<O> {
    match (shot.result, shot.op) {
        (Ok(bytes), None) => Told::Item(bytes),
        (result, Some(op)) => Told::End(result.map(|bytes| assert!(bytes.is_empty())), op),
        (Err(error), None) => panic!("{error:?} is not the end"),
    }
}

/// Receives all that is sent, in order; gives how often there was no buffer.
fn receive(config: Config, random: &mut Random) -> usize {
    let (near, mut far) = tcp_pair();
    let bytes = pattern(30_000, random.below(1000));
    let queue: Queue<Told<RecvMulti<OwnedFd>>> = queue(8, config);
    let pool = queue.buf_pool(16, 512).unwrap();
    queue.submit_multi(RecvMulti::new(OwnedFd::from(near), &pool), told).unwrap();
    let writer = thread::spawn({
        let bytes = bytes.clone();
        move || {
            for part in bytes.chunks(700) {
                far.write_all(part).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
        }
    });
    let (mut all, mut refused) = (Vec::new(), 0);
    while !queue.is_empty() {
        let told_now: Vec<_> = queue.wait(1).unwrap().map(|(_, event)| event).collect();
        for event in told_now {
            match event {
                Told::Item(part) => all.extend_from_slice(&part),
                Told::End(Ok(()), _) => {}
                Told::End(result, op) => {
                    assert_eq!(result, os(libc::ENOBUFS));
                    refused += 1;
                    queue.submit_multi(op, told).unwrap();
                }
            }
        }
    }
    writer.join().unwrap();
    assert_eq!(all.len(), bytes.len());
    assert!(all == bytes, "not what was sent");
    refused
}

#[test]
fn a_stream_received_with_a_pool_is_whole_though_the_kernel_stops_now_and_then() {
    // The pool is large enough for all that comes between two looks, but the kernel decides when it has none.
    let plan = |seed| Plan::invisible(seed).with(Fault::EarlyEnd, 3);
    let needs = Needs { ring: &[RING, &[Fault::EarlyEnd]], emulation: &[READINESS] };
    under(plan, needs, |config, random| _ = receive(config, random));
}

#[test]
fn a_stream_is_whole_though_there_is_no_buffer_now_and_then() {
    let plan = |seed| Plan::all(seed).with(Fault::FailedShots, 4);
    let needs =
        Needs { ring: &[RING, &[Fault::FailedShots, Fault::NoBuffers]], emulation: &[READINESS, &[Fault::NoBuffers]] };
    let refused = Cell::new(0);
    under(plan, needs, |config, random| refused.set(refused.get() + receive(config, random)));
    assert!(refused.get() > 0, "nobody was told");
}

#[test]
fn each_connection_is_accepted_once_though_accepting_ends_now_and_then() {
    let plan = |seed| Plan::all(seed).with(Fault::EarlyEnd, 4).with(Fault::FailedShots, 4);
    let ring: &[&[Fault]] = &[RING, &[Fault::EarlyEnd, Fault::FailedShots, Fault::NoDescriptors]];
    under(plan, Needs { ring, emulation: &[&[Fault::NoDescriptors]] }, |config, _| {
        const CONNECTIONS: usize = 30;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let queue = queue(4, config);
        let told = |shot: Shot<AcceptMulti<OwnedFd>>| (shot.result, shot.op);
        queue.submit_multi(AcceptMulti::new(OwnedFd::from(listener)), told).unwrap();
        let clients = thread::spawn(move || {
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                clients.push(std::net::TcpStream::connect(address).unwrap());
                thread::sleep(Duration::from_micros(200));
            }
            clients
        });
        let mut accepted = Vec::new();
        while accepted.len() < CONNECTIONS {
            let events: Vec<_> = queue.wait(1).unwrap().map(|(_, event)| event).collect();
            for (result, op) in events {
                match (result, op) {
                    (Ok(stream), None) => accepted.push(std::net::TcpStream::from(stream)),
                    (Err(error), Some(op)) => {
                        assert_eq!(error, Error::Os(aio::Errno::new(libc::EMFILE)));
                        queue.submit_multi(op, told).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut ends: Vec<_> = accepted.iter().map(|stream| stream.peer_addr().unwrap().port()).collect();
        let mut starts: Vec<_> =
            clients.join().unwrap().iter().map(|stream| stream.local_addr().unwrap().port()).collect();
        ends.sort_unstable();
        starts.sort_unstable();
        assert_eq!(starts, ends);
    });
}

#[test]
fn a_buffer_that_is_sent_from_in_place_comes_back_when_the_kernel_has_let_go() {
    let plan = |seed| Plan::invisible(seed).with(Fault::LateNotification, 1);
    let needs = Needs { ring: &[RING, &[Fault::LateNotification]], emulation: &[&[Fault::InterruptedCall]] };
    under(plan, needs, |config, random| {
        const ROUNDS: usize = 40;
        let (a, mut b) = tcp_pair();
        let (a, salt) = (Arc::new(a), random.below(1000));
        let message = move |round: usize| pattern(4000 + 100 * round, salt + round as u64);
        let reader = thread::spawn(move || {
            for round in 0..ROUNDS {
                let mut bytes = vec![0; message(round).len()];
                b.read_exact(&mut bytes).unwrap();
                assert!(bytes == message(round), "message {round} has changed on its way");
            }
            assert_eq!(b.read(&mut [0]).unwrap(), 0);
        });
        let queue = queue(4, config);
        for round in 0..ROUNDS {
            let send = SendZc::new(a.clone(), message(round)).flags(SendFlags::WAITALL);
            queue.submit(send, |done| done).unwrap();
            let (_, done) = queue.wait(1).unwrap().next().unwrap();
            assert_eq!(done.result, Ok(message(round).len()));
            // Ours again: who still looks at it sees this.
            done.op.into_buf().fill(0xee);
        }
        drop((queue, a));
        reader.join().unwrap();
    });
}

#[test]
fn chains_stay_whole_in_a_queue_that_is_nearly_full() {
    let needs = Needs { ring: &[RING, SEVERAL, &[Fault::NoRoomForChain, Fault::Overflow]], emulation: &[] };
    under(Plan::invisible, needs, |config, random| {
        let (good, bad, salt) = (file_with(b"x"), write_only(), random.below(100) as usize);
        let pipes: Vec<_> = (0..30).map(|_| pipe()).collect();
        let mut byte = [0; 1];
        let nowhere = Shared::new(&mut byte);
        let chains: Vec<_> = pipes
            .iter()
            .enumerate()
            .map(|(number, (_, input))| {
                // Every third one breaks at its head, and nothing of it may run.
                let breaks = (number + salt) % 3 == 0;
                let first = Read::new(if breaks { &bad } else { &good }, &nowhere).at(0);
                (
                    first.link(),
                    Write::new(input, "a").link(),
                    Nop::new().link(),
                    Write::new(input, "b").hard_link(),
                    Write::new(input, "c").link(),
                    Write::new(input, "d"),
                )
            })
            .collect();
        let results = config.entries(8).run(|| aio::complete(chains).unwrap().results).unwrap();
        drop(results);
        for (number, (output, input)) in pipes.into_iter().enumerate() {
            drop(input);
            let mut text = String::new();
            File::from(output).read_to_string(&mut text).unwrap();
            let wanted = if (number + salt) % 3 == 0 { "" } else { "abcd" };
            assert_eq!(text, wanted, "chain {number}");
        }
    });
}

#[test]
fn a_batch_that_overflows_the_completion_queue_is_answered_in_full() {
    under(Plan::invisible, Needs { ring: &[RING, SEVERAL, &[Fault::Overflow]], emulation: &[] }, |config, random| {
        let file = file_with(&pattern(256, 7));
        config
            .run(|| {
                for _ in 0..10 {
                    let places: Vec<u64> = (0..100).map(|_| random.below(256)).collect();
                    let reads: Vec<_> =
                        places.iter().map(|&at| (Nop::new(), Read::new(&file, vec![0; 1]).at(at))).collect();
                    let results = aio::multi(reads).unwrap();
                    for (&at, ((), (count, byte))) in places.iter().zip(results) {
                        assert_eq!((count, byte[0]), (1, pattern(256, 7)[at as usize]), "the answer of another one");
                    }
                }
            })
            .unwrap();
    });
}

#[test]
fn a_cancel_that_loses_its_race_ends_the_operation_once_and_takes_no_byte() {
    let needs = Needs { ring: &[RING, &[Fault::LostCancel, Fault::LateCancel]], emulation: &[READINESS] };
    under(Plan::invisible, needs, |config, random| {
        const ROUNDS: u32 = 100;
        let (a, mut b) = UnixStream::pair().unwrap();
        let queue = queue(4, config);
        let started = Arc::new(AtomicU32::new(0));
        let go = started.clone();
        let writer = thread::spawn(move || {
            for round in 0..ROUNDS {
                while go.load(SeqCst) <= round {
                    thread::yield_now();
                }
                b.write_all(&[round as u8]).unwrap();
            }
            b
        });
        let mut recv = Recv::new(a, vec![0u8; 1]);
        for round in 0..ROUNDS {
            let token = queue.submit(recv, |done| done).unwrap();
            assert_eq!(queue.poll().unwrap().count(), 0);
            // Before the byte comes, about when it does, or not at all.
            let early = random.below(2) == 0;
            if early {
                queue.cancel(token).unwrap();
            }
            started.store(round + 1, SeqCst);
            (0..random.below(3000)).for_each(|_| std::hint::spin_loop());
            if !early {
                queue.cancel(token).unwrap();
            }
            let mut events = queue.wait(1).unwrap();
            let (which, mut done) = events.next().unwrap();
            assert!(which == token && events.next().is_none() && queue.is_empty());
            if done.result == Err(Error::Canceled) {
                queue.submit(done.op, |done| done).unwrap();
                done = queue.wait(1).unwrap().next().unwrap().1;
            }
            assert_eq!((done.result, done.op.buf()[0]), (Ok(1), round as u8), "a byte is lost or came twice");
            recv = done.op;
        }
        drop(writer.join().unwrap());
    });
}

#[test]
fn who_only_polls_gets_all_of_what_was_held_back() {
    let needs = Needs { ring: &[RING, SEVERAL, &[Fault::Overflow]], emulation: &[READINESS] };
    under(Plan::invisible, needs, |config, random| {
        let queue = queue(16, config);
        for round in 0..10 {
            let pairs: Vec<_> = (0..16).map(|_| UnixStream::pair().unwrap()).collect();
            for (number, (a, _)) in pairs.iter().enumerate() {
                let recv = Recv::new(a.try_clone().unwrap(), vec![0; 1]);
                queue.submit(recv, move |done| (number, done.result, done.op.into_buf())).unwrap();
            }
            let mut unsent: Vec<_> = (0..16).collect();
            let (mut events, start) = (Vec::new(), Instant::now());
            while events.len() < 16 {
                // Few or many at once.
                for _ in 0..random.below(unsent.len() as u64 + 1) {
                    let number = unsent.swap_remove(random.below(unsent.len() as u64) as usize);
                    (&pairs[number].1).write_all(&[number as u8]).unwrap();
                }
                events.extend(taken(&queue));
                assert!(start.elapsed() < Duration::from_secs(20), "round {round}: {events:?} and nothing more");
            }
            events.sort_by_key(|event: &(usize, aio::Result<usize>, Vec<u8>)| event.0);
            let wanted: Vec<_> = (0..16).map(|number| (number, Ok(1), vec![number as u8])).collect();
            assert!(events == wanted && queue.is_empty(), "{events:?}");
        }
    });
}

/// Found by this: cancel after cancel kept an operation that had its result from ending.
#[test]
fn what_is_cancelled_again_and_again_ends_however_slow_the_cancels_are() {
    let plan = |seed| Plan::new(seed).with(Fault::LateCancel, 1).with(Fault::Withhold, 1);
    under(plan, Needs { ring: &[&[Fault::LateCancel]], emulation: &[] }, |config, _| {
        let (output, _input) = pipe();
        let reads = (0..4).map(|_| Read::new(&output, vec![0; 1]).timeout(NEVER));
        let ended = reads.map(Some).chain([None]).map(|read| read.expect("the end of the window"));
        let run = || catch_unwind(AssertUnwindSafe(|| aio::multi(windowed(ended, 8)))).is_err();
        assert!(config.run(run).unwrap());
    });
}

/// Found by this: a task that waits for its queue's ring waited for ever for what the ring had not got. It needs no faults
/// either: the kernel refuses the offset, and the second try was not submitted.
#[test]
fn a_task_does_not_wait_for_a_ring_that_has_not_been_given_everything() {
    let plan = |seed| Plan::new(seed).with(Fault::Refusal, 2).with(Fault::Partial, 2);
    under(plan, Needs { ring: &[&[Fault::Refusal, Fault::Partial]], emulation: &[] }, |config, _| {
        let wait = |config: Config| {
            let queue = queue(4, config);
            for round in 0..20 {
                let (a, b) = UnixStream::pair().unwrap();
                (&b).write_all(b"ab").unwrap();
                for _ in 0..2 {
                    let read = Read::new(a.try_clone().unwrap(), vec![0; 1]).at(5);
                    queue.submit(read, |done| done.result).unwrap();
                }
                assert_eq!(collect(&queue, 2), [Ok(1), Ok(1)], "round {round}");
            }
        };
        for config in [config.faults(Plan::new(0)), config] {
            coro::Config::new().engine(config).run(|| wait(config)).unwrap();
        }
    });
}

/// Found by this: it waited for readiness.
#[test]
fn an_interrupted_operation_that_must_not_wait_does_not() {
    let plan = |seed| Plan::new(seed).with(Fault::InterruptedCall, 2);
    under(plan, Needs { ring: &[], emulation: &[&[Fault::InterruptedCall]] }, |config, _| {
        let ((a, _b), (output, _input)) = (UnixStream::pair().unwrap(), pipe());
        config
            .run(|| {
                for _ in 0..20 {
                    let mut byte = [0];
                    assert_eq!(aio::single(Recv::new(&a, &mut byte[..]).nonblocking()), os(libc::EAGAIN));
                    assert_eq!(aio::single(Read::new(&output, &mut byte[..]).nonblocking()), os(libc::EAGAIN));
                }
            })
            .unwrap();
    });
}

#[test]
fn the_environment_gives_faults_to_every_engine() {
    const NAME: &str = "the_environment_gives_faults_to_every_engine";
    variants_in_own_process(NAME, &[("with", &[("AIO_FAULTS", "5")]), ("without", &[])], |variant| {
        for engine in engines() {
            let file = file_with(b"x");
            let read =
                || (0..200).for_each(|_| assert_eq!(aio::single(Read::new(&file, vec![0; 1]).at(0)).unwrap().0, 1));
            engine.config.run(read).unwrap();
        }
        let plan = Plan::from_environment();
        assert_eq!(plan.is_some(), variant == "with");
        for backend in backends() {
            let fault = if backend == Backend::IoUring { Fault::Withhold } else { Fault::InterruptedCall };
            assert!(plan.is_none_or(|plan| plan.count(fault) > 0), "on {backend}");
        }
    });
}
