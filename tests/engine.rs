//! Engines: what they cost, how they are chosen, and what they leave behind.

mod common;

use aio::{Backend, Config, Error, Service, SetupError, Unavailable, op::*};
use common::{
    NEVER, backends, descriptors, each_backend, each_backend_with, each_engine, fifo, file_with, in_own_process,
    leaks_no_descriptor, open_writer, pipe, variants_in_own_process,
};
use std::{
    cell::RefCell,
    fs::{self, File},
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

#[test]
fn two_reads_on_a_warm_thread_are_one_system_call() {
    each_backend(|backend| {
        let (f, g, mut a, mut b) = (file_with(b"one"), file_with(b"two"), [0u8; 3], [0u8; 3]);
        aio::multi((Read::new(&f, &mut a).at(0), Read::new(&g, &mut b).at(0))).unwrap();
        let before = aio::stats();
        aio::multi((Read::new(&f, &mut a).at(0), Read::new(&g, &mut b).at(0))).unwrap();
        let cost = aio::stats() - before;
        match backend {
            Backend::IoUring => {
                assert_eq!((cost.enters, cost.submitted, cost.completed, cost.system_calls()), (1, 2, 2, 1));
            }
            // One each, unless the filesystem cannot tell whether it would wait: then a worker does it.
            _ => assert!(cost.direct + cost.jobs >= 2 && cost.enters == 0, "{cost:?}"),
        }
    });
}

#[test]
fn a_pile_of_operations_is_one_system_call_on_a_ring() {
    each_backend(|backend| {
        aio::single(Nop::new()).unwrap();
        let before = aio::stats();
        aio::multi([Nop::new(); 128]).unwrap();
        let cost = aio::stats() - before;
        assert_eq!(cost.backend, Some(backend));
        assert_eq!(cost.system_calls(), u64::from(backend == Backend::IoUring), "{cost:?}");
    });
}

#[test]
fn a_thread_has_no_counters_before_its_first_batch() {
    std::thread::spawn(|| {
        assert_eq!(aio::stats(), aio::Stats::default());
        aio::single(Nop::new()).unwrap();
        assert!(aio::stats().backend.is_some());
    })
    .join()
    .unwrap();
}

#[test]
fn everything_completes_without_workers() {
    each_backend_with(
        |config| config.max_workers(0),
        |_| {
            let (file, (output, input), mut buf) = (file_with(b"abc"), pipe(), [0u8; 3]);
            let done = aio::multi((
                (OpenAt::new("Cargo.toml"), Statx::new("Cargo.toml"), Fsync::new(&file)),
                (Timeout::after(Duration::from_millis(1)).link(), Write::new(&input, b"x")),
                Read::new(&output, &mut buf).timeout(NEVER),
                Ftruncate::new(&file, 1),
            ));
            assert!(done.is_ok(), "{done:?}");
            assert_eq!(worker_threads(), 0);
        },
    );
}

/// The worker threads of this process, which must be the test's own.
fn worker_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("comm"));
    tasks.filter_map(|task| name(task).ok()).filter(|name| name.starts_with("aio-worker")).count()
}

/// A thread that was joined is still listed until the kernel has taken it down, a moment later. An idle worker would
/// stay for seconds.
fn assert_no_worker_is_left() {
    let given_up = Instant::now() + Duration::from_secs(1);
    while worker_threads() > 0 && Instant::now() < given_up {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(worker_threads(), 0);
}

#[test]
fn workers_are_bounded_and_idle_ones_exit() {
    in_own_process("workers_are_bounded_and_idle_ones_exit", || {
        let idle = Duration::from_millis(50);
        each_backend_with(
            |config| config.max_workers(3).worker_idle(idle),
            |backend| {
                let file = file_with(b"abc");
                aio::multi((0..100).map(|_| Fsync::new(&file)).collect::<Vec<_>>()).unwrap();
                let most = if backend == Backend::IoUring { 0 } else { 3 };
                assert!(worker_threads() <= most, "{backend}");
                for _ in 0..1000 {
                    if worker_threads() == 0 {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                panic!("idle workers stay on {backend}");
            },
        );
    });
}

#[test]
fn an_engine_that_ends_takes_its_workers_and_descriptors_along() {
    in_own_process("an_engine_that_ends_takes_its_workers_and_descriptors_along", || {
        for backend in backends() {
            leaks_no_descriptor(|| {
                let file = file_with(b"abc");
                let sync = || aio::multi((0..20).map(|_| Fsync::new(&file)).collect::<Vec<_>>());
                Config::new().backend(backend).run(sync).unwrap().unwrap();
                assert_no_worker_is_left();
            });
            leaks_no_descriptor(|| {
                let work = || Config::new().backend(backend).run(|| aio::single(OpenAt::new("Cargo.toml")).map(drop));
                std::thread::scope(|s| s.spawn(work).join().unwrap().unwrap().unwrap());
            });
        }
    });
}

#[test]
fn a_thread_that_exits_leaves_no_descriptor() {
    in_own_process("a_thread_that_exits_leaves_no_descriptor", || {
        leaks_no_descriptor(|| {
            let work = || {
                let (file, mut buf) = (file_with(b"abc"), [0u8; 3]);
                aio::multi((Read::new(&file, &mut buf).at(0), Fsync::new(&file))).unwrap();
            };
            std::thread::scope(|s| {
                for thread in [s.spawn(work), s.spawn(work), s.spawn(work)] {
                    thread.join().unwrap();
                }
            });
        });
    });
}

#[test]
fn what_takes_long_does_not_stall_timers_and_sockets() {
    each_backend(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(&dir);
        let (served, over) = (EventSource::new().unwrap(), AtomicBool::new(false));
        std::thread::scope(|s| {
            s.spawn(|| {
                // The other end is opened only when the timer and the socket have been served, or it is too late.
                let served = || aio::single(WaitEvent::new(&served).timeout(Duration::from_secs(5)));
                let both = (served(), served());
                drop(open_writer(&path, || over.load(Relaxed)));
                assert_eq!(both, (Ok(()), Ok(())), "the open has stalled the rest");
            });
            let ((a, b), mut buf) = (UnixStream::pair().unwrap(), [0u8; 1]);
            aio::multi((
                OpenAt::new(&path),
                (Timeout::after(Duration::from_millis(5)).link(), Notify::new(&served).link(), Send::new(&b, b"!")),
                (Recv::new(&a, &mut buf).link(), Notify::new(&served)),
            ))
            .unwrap();
            over.store(true, Relaxed);
        });
    });
}

#[test]
fn a_descriptor_number_that_is_used_again_has_no_stale_events() {
    each_engine(|_| {
        for round in 0..50 {
            let ((output, input), mut x, mut y) = (pipe(), [0u8; 4], [0u8; 4]);
            // Waits and is given up, so that the engine has known the number.
            let early = aio::single(Read::new(&output, &mut x).timeout(Duration::from_micros(200)));
            assert_eq!(early, Err(Error::TimedOut));
            let late = (Timeout::after(Duration::from_micros(100)).link(), Write::new(&input, b"x"));
            aio::multi((Read::new(&output, &mut x), late)).unwrap();
            // A clone keeps the open file alive, and with it what the kernel has registered under the number.
            let clone = if round % 2 == 0 { Some(output.try_clone().unwrap()) } else { None };
            drop((output, input));
            let ((output, input), _clone) = (pipe(), clone);
            let read = aio::single(Read::new(&output, &mut y).timeout(Duration::from_micros(200)));
            assert_eq!(read, Err(Error::TimedOut), "round {round}");
            let late = (Timeout::after(Duration::from_micros(100)).link(), Write::new(&input, b"new"));
            assert_eq!(aio::multi((Read::new(&output, &mut y), late)), Ok((3, ((), 3))));
        }
    });
}

#[test]
fn many_descriptors_at_once() {
    each_backend(|_| {
        let pipes: Vec<_> = (0..200).map(|_| pipe()).collect();
        let mut buffers = vec![[0u8; 1]; 200];
        std::thread::scope(|s| {
            let inputs: Vec<_> = pipes.iter().rev().map(|(_, input)| input.try_clone().unwrap()).collect();
            s.spawn(|| inputs.into_iter().for_each(|input| File::from(input).write_all(b"x").unwrap()));
            let reads: Vec<_> =
                pipes.iter().zip(&mut buffers).map(|((output, _), buf)| Read::new(output, buf)).collect();
            assert_eq!(aio::multi(reads), Ok(vec![1; 200]));
        });
    });
}

#[test]
fn the_environment_chooses_the_backend_and_an_unknown_value_is_an_error() {
    let name = "the_environment_chooses_the_backend_and_an_unknown_value_is_an_error";
    let usable = backends();
    let mut variants: Vec<(&str, &[(&str, &str)])> = vec![
        ("epoll", &[("AIO_BACKEND", "epoll")]),
        ("poll", &[("AIO_BACKEND", "poll")]),
        ("auto", &[("AIO_BACKEND", "auto")]),
        ("", &[("AIO_BACKEND", "")]),
        ("kqueue", &[("AIO_BACKEND", "kqueue")]),
    ];
    if usable.contains(&Backend::IoUring) {
        variants.push(("io_uring", &[("AIO_BACKEND", "io_uring")]));
    }
    variants_in_own_process(name, &variants, |value| {
        let got = aio::complete(Nop::new()).map(|_| aio::stats().backend.unwrap());
        match value {
            "io_uring" => assert_eq!(got, Ok(Backend::IoUring)),
            "epoll" => assert_eq!(got, Ok(Backend::Epoll)),
            "poll" => assert_eq!(got, Ok(Backend::Poll)),
            "kqueue" => {
                assert_eq!(got, Err(SetupError::UnknownBackend));
                let text = got.unwrap_err().to_string();
                assert!(text.contains("AIO_BACKEND") && text.contains("kqueue") && text.contains("epoll"), "{text}");
                assert!(matches!(aio::single(Nop::new()), Err(Error::Setup(_))));
            }
            _ => assert!(got.is_ok(), "{got:?}"),
        }
        // What a program demands itself is not overruled.
        let demanded = Config::new().backend(Backend::Poll).run(|| aio::stats().backend);
        assert_eq!(demanded, Ok(Some(Backend::Poll)));
    });
}

#[test]
fn a_default_is_set_once_and_before_the_first_engine() {
    let name = "a_default_is_set_once_and_before_the_first_engine";
    variants_in_own_process(name, &[("before", &[]), ("after", &[])], |variant| {
        let poll = Config::new().backend(Backend::Poll);
        if variant == "before" {
            poll.set_default().unwrap();
            aio::single(Nop::new()).unwrap();
            assert_eq!(aio::stats().backend, Some(Backend::Poll));
            std::thread::spawn(|| {
                aio::single(Nop::new()).unwrap();
                assert_eq!(aio::stats().backend, Some(Backend::Poll));
            })
            .join()
            .unwrap();
        } else {
            aio::single(Nop::new()).unwrap();
        }
        assert_eq!(poll.set_default(), Err(SetupError::AlreadyConfigured));
    });
}

#[test]
fn configurations_nest_and_the_outer_engine_comes_back() {
    let outer = Config::new().backend(Backend::Poll);
    outer
        .run(|| {
            aio::multi([Nop::new(); 3]).unwrap();
            for backend in backends() {
                let inner = Config::new().backend(backend).run(|| {
                    aio::single(Nop::new()).unwrap();
                    aio::stats().backend
                });
                assert_eq!(inner, Ok(Some(backend)));
            }
            assert_eq!(aio::stats().backend, Some(Backend::Poll));
            let unwound = std::panic::catch_unwind(|| Config::new().backend(Backend::Epoll).run(|| panic!("inside")));
            assert!(unwound.is_err());
            assert_eq!(aio::stats().backend, Some(Backend::Poll));
        })
        .unwrap();
}

#[test]
fn the_probe_tells_what_there_is() {
    let probe = Backend::probe();
    let has_ring = Config::new().backend(Backend::IoUring).run(|| ()).is_ok();
    assert_eq!(probe.io_uring().is_ok(), has_ring);
    assert_eq!(probe.operations().len(), 49);
    for row in probe.operations() {
        assert_eq!(probe.operation(row.operation), Some(*row));
        assert_eq!(row.io_uring.is_some(), has_ring);
        assert!(row.emulation != Service::Ring, "{row:?}");
        assert!(row.since.starts_with("5.") || row.since.starts_with("6."), "{row:?}");
    }
    let read = probe.operation("Read").unwrap();
    assert_eq!((read.io_uring, read.emulation), (has_ring.then_some(Service::Ring), Service::Readiness));
    assert_eq!(probe.operation("OpenAt").unwrap().emulation, Service::Worker);
    assert_eq!(probe.operation("Timeout").unwrap().emulation, Service::Timer);
    assert_eq!(probe.operation("Nonsense"), None);
    assert!(probe.automatic().is_ok());
    let table = probe.to_string();
    assert!(table.contains("WaitEvent") && table.contains("worker"), "{table}");
}

#[test]
fn a_destructor_at_the_threads_end_may_use_the_library() {
    struct Late(mpsc::Sender<aio::Result<()>>);
    impl Drop for Late {
        fn drop(&mut self) {
            let _ = self.0.send(
                aio::multi((Nop::new().link(), Timeout::after(Duration::from_micros(1))))
                    .map(drop)
                    .map_err(|e| e.error),
            );
        }
    }
    thread_local!(static LATE: RefCell<Option<Late>> = const { RefCell::new(None) });
    in_own_process("a_destructor_at_the_threads_end_may_use_the_library", || {
        leaks_no_descriptor(|| {
            // The order in which thread-locals end is that of their making, or its reverse; both happen here.
            for engine_first in [false, true] {
                let (send, receive) = mpsc::channel();
                let thread = std::thread::spawn(move || {
                    if engine_first {
                        aio::single(Nop::new()).unwrap();
                    }
                    LATE.set(Some(Late(send)));
                    aio::single(Nop::new()).unwrap();
                });
                thread.join().unwrap();
                assert_eq!(receive.recv(), Ok(Ok(())));
            }
        });
    });
}

#[test]
fn running_out_of_descriptors_is_a_clear_error() {
    in_own_process("running_out_of_descriptors_is_a_clear_error", || {
        let usable = backends();
        aio::single(Nop::new()).unwrap();
        let limit = libc::rlimit { rlim_cur: 40, rlim_max: 40 };
        // SAFETY: the structure is a local.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        for backend in usable {
            let error = Config::new().backend(backend).run(|| ()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{backend}: {error}");
            assert!(error.to_string().contains("ulimit -n"), "{backend}: {error}");
        }
        let automatic = std::thread::spawn(|| aio::complete(Nop::new()).map(|_| ())).join().unwrap();
        assert_eq!(automatic.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        // Engines that exist go on, and tell it as the operation's own error.
        assert_eq!(aio::single(OpenAt::new("/dev/null")).unwrap_err().raw_os_error(), Some(libc::EMFILE));
        hoard.clear();
        assert!(aio::single(OpenAt::new("/dev/null")).is_ok());
        assert!(descriptors() < 40);
    });
}

#[test]
fn reasons_are_given_in_words() {
    let texts = [
        (Unavailable::Denied, "seccomp"),
        (Unavailable::Disabled(2), "kernel.io_uring_disabled is 2"),
        (Unavailable::Memory, "RLIMIT_MEMLOCK"),
        (Unavailable::NotImplemented, "newer kernel"),
    ];
    for (why, words) in texts {
        assert!(why.to_string().contains(words), "{why}");
        assert!(SetupError::IoUring(why).to_string().starts_with("io_uring cannot be used: "));
    }
}
