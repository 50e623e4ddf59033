//! Everything that is meant to break the library, on every engine, with a census around it: descriptors, threads,
//! mappings and what is in flight are back to what they were before, engines, queues and runtimes included.
#![cfg(target_os = "linux")]

#[path = "common/census.rs"]
mod census;
mod common;
#[path = "common/direct.rs"]
mod direct;
#[path = "kill_list/races.rs"]
mod races;

use aio::{Config, Error, Queue, coro, op::*, windowed};
use census::*;
use common::*;
use direct::*;
use std::{
    cell::RefCell,
    fs::File,
    hint::black_box,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, IntoRawFd as _},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

const CANCELED: aio::Result<()> = Err(Error::Canceled);

/// Something done to the library, on engines of its own.
type Attack = fn(&Engine);
/// So many races.
type Races = fn(&Engine, usize);

/// A test of the list: each attack on each way to make an engine, in a process of its own.
#[track_caller]
fn attacked(name: &str, attacks: &[(&str, Attack)]) {
    counted(name, || {
        each_engine(|engine| {
            for (what, attack) in attacks {
                unchanged(&format!("{what} on {}", engine.name), || attack(engine), || attack(engine));
            }
        });
    });
}

/// Fails if the calling thread's engine still has something that it has begun.
#[track_caller]
fn idle() {
    let stats = aio::stats();
    assert_eq!(stats.submitted, stats.completed, "entries in flight");
    assert_eq!(coro::stats().alive, 0, "tasks");
}

/// Runs `f`, and fails if memory that it has used and freed is written to afterwards.
#[track_caller]
fn frees_for_good(f: impl FnOnce()) {
    f();
    // The allocator hands the same memory out again.
    let mut fresh: Vec<_> = (0..32).map(|_| Aligned::new()).collect();
    thread::sleep(Duration::from_millis(5));
    assert!(fresh.iter_mut().all(|block| block.bytes().iter().all(|&byte| byte == 0)), "written to after its end");
}

/// Reads of the whole file, each into a block of its own.
fn reads<'f>(file: &'f File, blocks: &'f mut [Aligned]) -> impl Iterator<Item = Read<&'f File, &'f mut [u8]>> {
    blocks.iter_mut().enumerate().map(move |(i, block)| Read::new(file, block.bytes()).at((i * BLOCK) as u64))
}

fn blocks() -> Vec<Aligned> {
    (0..16).map(|_| Aligned::new()).collect()
}

/// A queue that goes while it reads.
fn dropped_queue(engine: &Engine) {
    frees_for_good(|| {
        let (dir, mut blocks) = (tempfile::tempdir().unwrap(), blocks());
        let file = large_file(&dir, 16);
        let begun = Queue::<_>::scope_with_config(32, engine.config, |queue| {
            for read in reads(&file, &mut blocks) {
                queue.submit(read, |done| done.result).unwrap();
            }
            queue.poll().unwrap().count() + queue.len()
        });
        assert_eq!(begun, Ok(16));
    });
}

/// A runtime that ends while its tasks read.
fn ended_runtime(engine: &Engine) {
    frees_for_good(|| {
        let dir = tempfile::tempdir().unwrap();
        let file = Rc::new(large_file(&dir, 16));
        let body = || {
            for at in 0..16 {
                let file = file.clone();
                coro::spawn(move || {
                    let mut block = Aligned::new();
                    let read = aio::single(Read::new(&*file, block.bytes()).at(at * BLOCK as u64));
                    assert!(matches!(read, Ok(BLOCK) | Err(Error::Canceled)), "{read:?}");
                });
            }
        };
        runtime(engine).run(body).unwrap();
        assert_eq!(Rc::strong_count(&file), 1, "every task has ended");
    });
}

#[test]
fn direct_reads_in_flight_at_the_end() {
    let attacks: &[(&str, Attack)] = &[("a queue", dropped_queue), ("a runtime", ended_runtime)];
    attacked("direct_reads_in_flight_at_the_end", attacks);
}

/// Panics once, where a value is expected.
fn gives_up<T>() -> T {
    panic!("in flight")
}

fn panicking_batch(engine: &Engine) {
    frees_for_good(|| {
        let (dir, mut blocks) = (tempfile::tempdir().unwrap(), blocks());
        let file = large_file(&dir, 16);
        let batch = || {
            let units = reads(&file, &mut blocks).chain(std::iter::once_with(gives_up));
            let result = catch_unwind(AssertUnwindSafe(|| aio::complete(windowed(units, 64)).map(drop)));
            assert!(result.is_err());
            idle();
        };
        engine.config.run(batch).unwrap();
    });
}

fn panicking_scope(engine: &Engine) {
    frees_for_good(|| {
        let (dir, mut blocks) = (tempfile::tempdir().unwrap(), blocks());
        let (file, (a, _b)) = (large_file(&dir, 16), UnixStream::pair().unwrap());
        let scope = AssertUnwindSafe(|| {
            Queue::<_>::scope_with_config(32, engine.config, |queue| {
                reads(&file, &mut blocks).for_each(|read| drop(queue.submit(read, drop)));
                queue.submit(Recv::new(&a, vec![0; 8]), |_| ()).unwrap();
                assert_eq!(queue.len(), 17);
                gives_up::<()>();
            })
        });
        assert!(catch_unwind(scope).is_err());
    });
}

fn panicking_tasks(engine: &Engine) {
    frees_for_good(|| {
        let dir = tempfile::tempdir().unwrap();
        let file = Rc::new(large_file(&dir, 16));
        let body = || {
            // A task whose children read into what is its own; the root beside others that read.
            let sick = coro::spawn(|| {
                let (a, _b) = UnixStream::pair().unwrap();
                let mut buf = [0u8; 8];
                coro::scope(|s| {
                    s.spawn(|| aio::single(Recv::new(&a, &mut buf)));
                    gives_up::<()>();
                });
            });
            assert!(sick.join().is_err());
            idle();
            for at in 0..8 {
                let file = file.clone();
                coro::spawn(move || {
                    let mut block = Aligned::new();
                    _ = aio::single(Read::new(&*file, block.bytes()).at(at * BLOCK as u64));
                });
            }
            gives_up::<()>();
        };
        assert!(catch_unwind(AssertUnwindSafe(|| runtime(engine).run(body))).is_err());
        assert_eq!(Rc::strong_count(&file), 1, "every task has ended");
    });
}

#[test]
fn a_panic_with_an_operation_in_flight() {
    let attacks: &[(&str, Attack)] =
        &[("a batch", panicking_batch), ("a queue", panicking_scope), ("tasks", panicking_tasks)];
    attacked("a_panic_with_an_operation_in_flight", attacks);
}

fn parked_tasks(engine: &Engine) {
    let drops = Drops::default();
    let (a, _b) = UnixStream::pair().unwrap();
    let a = Rc::new(a);
    let body = || {
        for number in 0..1_000 {
            let (a, one) = (a.clone(), drops.one());
            coro::spawn(move || {
                let _one = one;
                let ended = match number % 4 {
                    0 => coro::park(number),
                    1 => coro::sleep(NEVER),
                    2 => aio::single(Recv::new(&*a, &mut [0u8; 8])).map(drop),
                    _ => coro::timeout(NEVER, || coro::scope(|s| s.spawn(|| coro::park(1)).wait())),
                };
                assert_eq!(ended, CANCELED);
            });
        }
        assert_eq!(coro::stats().alive, 1_250);
    };
    runtime(engine).run(body).unwrap();
    assert_eq!((drops.count(), Rc::strong_count(&a)), (1_000, 1));
}

fn waiting_operations(engine: &Engine) {
    let drops = Drops::default();
    let (a, _b) = UnixStream::pair().unwrap();
    let a = Arc::new(a);
    let queue: Queue<()> = queue(1_000, engine.config);
    for number in 0..1_000 {
        let one = drops.one();
        match number % 2 {
            0 => queue.submit(Timeout::after(NEVER), move |_| _ = &one).unwrap(),
            _ => queue.submit(Recv::new(a.clone(), vec![0; 8]), move |_| _ = &one).unwrap(),
        };
    }
    assert_eq!((taken(&queue).len(), queue.len()), (0, 1_000));
    drop(queue);
    assert_eq!((drops.count(), Arc::strong_count(&a)), (1_000, 1));
}

#[test]
fn a_thousand_that_wait_at_teardown() {
    let attacks: &[(&str, Attack)] = &[("tasks", parked_tasks), ("a queue", waiting_operations)];
    attacked("a_thousand_that_wait_at_teardown", attacks);
}

#[test]
fn a_timeout_races_a_completion_a_hundred_thousand_times() {
    counted("a_timeout_races_a_completion_a_hundred_thousand_times", || {
        each_engine(|engine| {
            let ways: [(&str, Races); 3] =
                [("batches", races::in_batches), ("a queue", races::in_a_queue), ("tasks", races::in_tasks)];
            for (what, race) in &ways {
                let what = format!("{what} on {}", engine.name);
                unchanged(&what, || race(engine, 100), || race(engine, 100_000usize.div_ceil(ways.len())));
            }
        });
    });
}

/// A bit of everything, so that rings, selectors and workers are all used.
fn works() {
    let (file, (a, b), (mut x, mut y)) = (file_with(b"abc"), UnixStream::pair().unwrap(), ([0u8; 3], [0u8; 2]));
    let done = aio::multi((
        (Read::new(&file, &mut x).at(0), Fsync::new(&file), OpenAt::new("Cargo.toml")),
        Recv::new(&a, &mut y).flags(RecvFlags::WAITALL).timeout(NEVER),
        (Timeout::after(Duration::from_millis(1)).link(), Send::new(&b, b"hi")),
    ));
    assert!(done.is_ok(), "{done:?}");
    assert_eq!((&x, &y), (b"abc", b"hi"));
}

/// A queue works while one of its operations waits, and ends with that in flight.
fn queue_works(config: Config) {
    let (a, b) = UnixStream::pair().unwrap();
    let queue: Queue<aio::Result<usize>> = queue(8, config);
    let pool = queue.buf_pool(4, 64).unwrap();
    let receive = RecvMulti::new(a, &pool);
    queue.submit_multi(receive, |shot| shot.result.map(|bytes| bytes.len())).unwrap();
    queue.submit(Timeout::after(NEVER), |_| Ok(0)).unwrap();
    for _ in 0..10 {
        queue.submit(Send::new(b.try_clone().unwrap(), b"abc"), |done| done.result).unwrap();
        assert_eq!(collect(&queue, 2), [Ok(3); 2]);
    }
    assert_eq!(queue.len(), 2);
}

/// Tasks work in a runtime that ends with others left.
fn tasks_work(engine: &Engine) {
    let body = || {
        let tasks: Vec<_> = (0..4).map(|_| coro::spawn(works)).collect();
        coro::spawn(|| coro::sleep(NEVER));
        coro::offload(|| thread::sleep(Duration::from_micros(100))).unwrap();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    };
    runtime(engine).run(body).unwrap();
}

/// Forks in a batch, whose reads the child must not take.
fn fork_in_a_batch(engine: &Engine) {
    let batch = || {
        let ((output, input), mut child) = (pipe(), None);
        let units = (0..3).map(|number| {
            if number == 1 {
                child = Some(fork(|| {
                    works();
                    queue_works(Config::new());
                    coro::run(|| coro::spawn(works).join().unwrap()).unwrap();
                }));
            } else if number == 2 {
                assert_eq!(child.take().unwrap().wait(), 0);
                assert_eq!(aio::single(Write::new(&input, b"abc")), Ok(3));
            }
            Read::new(&output, vec![0u8])
        });
        assert_eq!(aio::complete(windowed(units, 8)).unwrap().errors, 0);
        idle();
    };
    engine.config.run(batch).unwrap();
}

/// Forks while a queue has something in flight; the child drops the queue, the parent goes on with it.
fn fork_beside_a_queue(engine: &Engine) {
    let (a, mut b) = UnixStream::pair().unwrap();
    let own: Queue<aio::Result<usize>> = queue(8, engine.config);
    own.submit(Recv::new(a, vec![0; 8]), |done| done.result).unwrap();
    assert_eq!(taken(&own), []);
    let own = RefCell::new(Some(own));
    let child = fork(|| {
        let inherited = own.take().unwrap();
        assert!(inherited.poll().is_err());
        drop(inherited);
        queue_works(engine.config);
    });
    assert_eq!(child.wait(), 0);
    let own = own.take().unwrap();
    b.write_all(b"abc").unwrap();
    assert_eq!((drained(&own), own.len()), (vec![Ok(3)], 0));
}

fn fork_in_a_task(engine: &Engine) {
    let body = || {
        let (a, mut b) = UnixStream::pair().unwrap();
        let reader = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
        let forks = coro::spawn(|| {
            let child =
                fork(|| thread::spawn(|| coro::run(|| coro::spawn(works).join().unwrap())).join().unwrap().unwrap());
            assert_eq!(child.wait(), 0);
        });
        forks.join().unwrap();
        b.write_all(b"abc").unwrap();
        assert_eq!(reader.join().unwrap(), Ok(3));
        idle();
    };
    runtime(engine).run(body).unwrap();
}

#[test]
fn a_fork_with_operations_in_flight() {
    let attacks: &[(&str, Attack)] =
        &[("a batch", fork_in_a_batch), ("a queue", fork_beside_a_queue), ("a task", fork_in_a_task)];
    attacked("a_fork_with_operations_in_flight", attacks);
}

extern "C" fn nothing(_: libc::c_int) {}

/// A signal every so many microseconds that interrupts system calls; with 0 no more.
fn signals_every(micros: libc::suseconds_t) {
    // SAFETY: the handler does nothing, hence is async-signal-safe; the structures are locals.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
        let tick = libc::timeval { tv_sec: 0, tv_usec: micros };
        let timer = libc::itimerval { it_interval: tick, it_value: tick };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()), 0);
    }
}

fn storm(work: impl Fn()) {
    signals_every(200);
    (0..10).for_each(|_| work());
    signals_every(0);
}

#[test]
fn a_storm_of_signals() {
    let attacks: &[(&str, Attack)] = &[
        ("batches", |engine| {
            let batch = || {
                works();
                idle();
            };
            storm(|| engine.config.run(batch).unwrap());
        }),
        ("queues", |engine| storm(|| queue_works(engine.config))),
        ("tasks", |engine| storm(|| tasks_work(engine))),
    ];
    attacked("a_storm_of_signals", attacks);
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn endless(depth: usize) -> usize {
    let frame = black_box([depth; 64]);
    endless(depth + 1) + frame[depth % 64]
}

/// A task overflows its stack in a forked process, with operations in flight around it. That is the end of the
/// process, with a message; nothing of it is left in its parent, which had the same engines open.
fn overflow(engine: &Engine) {
    let body = || {
        let (a, mut b) = UnixStream::pair().unwrap();
        let reader = coro::spawn(move || aio::single(Recv::new(&a, &mut [0u8; 8])));
        let (mut output, input) = std::io::pipe().unwrap();
        let child = fork(|| {
            // SAFETY: both are open; the child's standard error is its own. It must not leave its core behind.
            unsafe {
                libc::dup2(input.as_raw_fd(), libc::STDERR_FILENO);
                libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            }
            let config = engine.config;
            let dies = move || {
                let queue: Queue<()> = queue(8, config);
                queue.submit(Timeout::after(NEVER), |_| ()).unwrap();
                coro::spawn(|| coro::sleep(NEVER));
                coro::Builder::new().name("recursive").spawn(|| endless(0)).unwrap().join().unwrap()
            };
            thread::spawn(move || coro::Config::new().engine(config).run(dies)).join().unwrap().unwrap();
        });
        drop(input);
        let mut message = String::new();
        output.read_to_string(&mut message).unwrap();
        assert_eq!(child.wait(), 128 + libc::SIGABRT, "{message}");
        assert!(message.contains("\"recursive\" has overflowed its stack of 256 KiB"), "{message}");
        b.write_all(b"abc").unwrap();
        assert_eq!(reader.join().unwrap(), Ok(3));
        idle();
    };
    runtime(engine).run(body).unwrap();
}

#[test]
fn a_stack_overflow() {
    attacked("a_stack_overflow", &[("a child", overflow)]);
}

thread_local! {
    static QUEUE: RefCell<Option<Queue<'static, ()>>> = const { RefCell::new(None) };
}

/// A thread ends with a queue in a thread-local that reads, from a socket and from a pipe.
fn exits_with_a_queue(engine: &Engine) {
    let (config, (a, mut b), (output, _input)) = (engine.config, UnixStream::pair().unwrap(), pipe());
    let thread = thread::spawn(move || {
        let queue = queue(8, config);
        let pool = queue.buf_pool(4, 64).unwrap();
        queue.submit_multi(RecvMulti::new(a.try_clone().unwrap(), &pool), |_| ()).unwrap();
        queue.submit(Recv::new(a, vec![0; 8]), |_| ()).unwrap();
        queue.submit(Read::new(output, vec![0; 8]), |_| ()).unwrap();
        assert_eq!((taken(&queue).len(), queue.len()), (0, 3));
        // The thread's own engine is used before and after.
        aio::single(Nop::new()).unwrap();
        QUEUE.set(Some(queue));
    });
    thread.join().unwrap();
    assert_eq!(b.read(&mut [0; 8]).unwrap(), 0, "what it received from is closed");
}

/// A thread ends, by a panic, in a runtime whose tasks read, and in a batch that does.
fn exits_with_tasks(engine: &Engine) {
    let (config, (output, _input)) = (engine.config, pipe());
    let thread = thread::spawn(move || {
        let body = || {
            for _ in 0..4 {
                let output = output.try_clone().unwrap();
                coro::spawn(move || aio::single(Read::new(&output, &mut [0u8; 8])));
            }
            let units = (0..4).map(|number| if number < 3 { Read::new(&output, vec![0u8; 8]) } else { gives_up() });
            aio::complete(windowed(units, 8)).map(drop)
        };
        coro::Config::new().engine(config).run(body)
    });
    assert!(thread.join().is_err());
}

/// As many threads as end with what they have begun on the engine that is the thread's by default.
fn exits_with_late_opens(engine: &Engine) {
    let config = engine.config;
    let work = move || {
        let body = || {
            let limit = Duration::from_micros(50);
            let opens = (0..8).map(|_| OpenAt::new("Cargo.toml").timeout(limit)).collect::<Vec<_>>();
            drop(aio::complete(opens));
            idle();
        };
        config.run(body).unwrap();
        works();
    };
    [(); 3].map(|()| thread::spawn(work)).into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn threads_that_exit_with_reads_pending() {
    let attacks: &[(&str, Attack)] =
        &[("a queue", exits_with_a_queue), ("tasks", exits_with_tasks), ("late files", exits_with_late_opens)];
    attacked("threads_that_exit_with_reads_pending", attacks);
}

/// Connections and files that arrive when nobody wants them any more.
fn late_descriptors(engine: &Engine) {
    let batch = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for round in 0..20 {
            let limit = Duration::from_micros(round * 5);
            let _client = TcpStream::connect(address).unwrap();
            let late = (Accept::new(&listener).timeout(limit), OpenAt::new("Cargo.toml").timeout(limit));
            drop(aio::complete(late));
            drop(aio::single(Accept::new(&listener).nonblocking()));
        }
        idle();
    };
    engine.config.run(batch).unwrap();
}

/// A queue with a bit of all that it may have goes: pools, connections not taken, a poster, a group, a waker.
fn full_queue(engine: &Engine) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let queue: Queue<()> = queue(16, engine.config);
    let (pool, parts) = (queue.buf_pool(4, 256).unwrap(), queue.incremental_buf_pool(2, 4096).unwrap());
    let (a, mut b) = UnixStream::pair().unwrap();
    queue.submit_multi(AcceptMulti::new(listener), drop).unwrap();
    queue.submit_multi(RecvMulti::new(a.try_clone().unwrap(), &pool), drop).unwrap();
    queue.submit_multi(RecvMulti::new(a.try_clone().unwrap(), &parts), drop).unwrap();
    queue.submit_multi(PollMulti::new(a, PollEvents::IN), drop).unwrap();
    queue.submit_multi(TimeoutMulti::every(Duration::from_micros(100)), drop).unwrap();
    let (group, _waker, poster) = (queue.gather(|_| ()).unwrap(), queue.waker().unwrap(), queue.poster().unwrap());
    group.submit(Timeout::after(NEVER), |_| ()).unwrap();
    let _clients = [(); 4].map(|()| TcpStream::connect(address).unwrap());
    b.write_all(&[7; 900]).unwrap();
    queue.wait(3).unwrap().take(2).count();
    thread::spawn(move || poster.post(()).unwrap()).join().unwrap();
    drop(group);
    drop(queue);
}

/// Streams that go on between calls, threads that help, and remotes end with their runtime.
fn full_runtime(engine: &Engine) {
    let body = || {
        let listener = aio::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = coro::spawn(move || listener.incoming().count());
        let (a, b) = aio::net::UnixStream::pair().unwrap();
        coro::spawn(move || a.into_chunks().count());
        let _clients = [(); 4].map(|()| TcpStream::connect(address).unwrap());
        let remote = coro::remote().unwrap();
        coro::offload(move || drop(remote.spawn(|| coro::sleep(NEVER)))).unwrap();
        coro::sleep(Duration::from_millis(1)).unwrap();
        assert!(!accepting.is_finished());
        coro::spawn(move || {
            assert!(coro::sleep(NEVER).is_err());
            drop(b);
        });
    };
    runtime(engine).run(body).unwrap();
}

#[test]
fn everything_that_can_be_made_goes_again() {
    let attacks: &[(&str, Attack)] = &[
        ("late descriptors", late_descriptors),
        ("a queue", full_queue),
        ("a runtime", full_runtime),
        ("all of it on another thread", |engine| {
            let engine = *engine;
            let all = move || [late_descriptors, full_queue, full_runtime].map(|attack| attack(&engine));
            thread::spawn(all).join().unwrap();
        }),
    ];
    attacked("everything_that_can_be_made_goes_again", attacks);
}

/// The tool itself: it names whatever is left, one of each.
#[test]
fn the_census_names_what_is_left() {
    fn finds(what: &str, attack: impl FnOnce()) {
        let before = Census::take();
        attack();
        let changes = before.changes(&Census::take());
        assert!(changes.len() == 1 && changes[0].contains(what), "{what:?}: {changes:#?}");
    }
    counted("the_census_names_what_is_left", || {
        die_after(60);
        unchanged("nothing", || (), || ());
        finds("is left: \"/", || _ = File::open("Cargo.toml").unwrap().into_raw_fd());
        let copy = File::open("Cargo.toml").unwrap();
        // SAFETY: closed behind its owner's back, who does not close it any more.
        finds("is gone: \"/", || assert_eq!(unsafe { libc::close(copy.into_raw_fd()) }, 0));
        finds("\"/dev/zero\" is left: 8192", || {
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            // SAFETY: a fresh mapping.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_NONE, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
        });
        finds("\"anonymous\"", || {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a fresh mapping.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
        });
        let sleeper = || thread::Builder::new().name("left behind".to_owned()).spawn(|| thread::sleep(NEVER)).unwrap();
        let before = Census::take();
        sleeper();
        thread::sleep(Duration::from_millis(50));
        let changes = before.changes(&Census::take());
        // The thread, and its stack.
        assert!(changes.len() == 2 && changes[0].contains("is left: \"left behind\""), "{changes:#?}");
        for backend in backends() {
            let queue: Queue<()> = queue(4, Config::new().backend(backend));
            let (a, _b) = UnixStream::pair().unwrap();
            let before = Census::take();
            queue.submit(Recv::new(a, vec![0; 8]), |_| ()).unwrap();
            assert_eq!(taken(&queue), []);
            let changes = before.changes(&Census::take());
            // The kernel knows of what waits in `poll` only while it is called.
            let known = if backend == aio::Backend::Poll { 0 } else { 1 };
            assert_eq!(changes.len(), known, "{backend}: {changes:#?}");
            assert!(changes.iter().all(|change| change.starts_with("in flight on descriptor")), "{changes:#?}");
        }
    });
}
