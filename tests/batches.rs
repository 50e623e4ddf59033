//! Shapes of batches, and batches larger than the ring.

mod common;

use aio::{BatchError, Error, Job, SetupError, op::*, windowed};
use common::{NEVER, each_backend, each_backend_with, each_engine, file_with, os, pipe, write_only};
use std::{
    cell::Cell,
    io::Write as _,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

#[test]
fn a_tuple_holds_up_to_sixteen_operations_of_different_kinds() {
    each_engine(|_| {
        let (file, mut buf, n) = (file_with(b"0123456789"), [0u8; 4], Nop::new());
        let read = Read::new(&file, &mut buf).at(3);
        let zero = Timeout::after(Duration::ZERO);
        let done = aio::complete((n, n, n, n, n, n, n, read, zero, n, n, n, n, n, n, Fsync::new(&file))).unwrap();
        assert_eq!((done.results.7, done.results.8, done.results.15, done.errors), (Ok(4), Ok(()), Ok(()), 0));
        assert_eq!(&buf, b"3456");
        assert_eq!(aio::complete((n,)).unwrap().results, (Ok(()),));
    });
}

#[test]
fn tuples_nest_and_keep_their_shape() {
    each_engine(|_| {
        let n = Nop::new();
        let done = aio::complete(((n, (n, n)), n.link(), ((n,), n), (n, (n, (n, n.timeout(NEVER)))))).unwrap();
        let ok = Ok(());
        assert_eq!(done.results, ((ok, (ok, ok)), ok, ((ok,), ok), (ok, (ok, (ok, ok)))));
    });
}

#[test]
fn a_link_reaches_into_the_tuple_that_follows() {
    each_engine(|_| {
        let (bad, mut buf) = (write_only(), [0u8; 1]);
        let done = aio::complete((Read::new(&bad, &mut buf).link(), (Nop::new(), Nop::new()), Nop::new())).unwrap();
        assert_eq!(done.results, (os(libc::EBADF), (Err(Error::Skipped), Ok(())), Ok(())));
    });
}

#[test]
fn arrays_small_and_large() {
    each_engine(|_| {
        let file = file_with(b"0123456789");
        let mut bytes = [[0u8; 1]; 10];
        let mut at = 0;
        let reads = bytes.each_mut().map(|byte| {
            at += 1;
            Read::new(&file, byte).at(at - 1)
        });
        assert_eq!(aio::complete(reads).unwrap().results, [Ok(1); 10]);
        assert_eq!(&bytes.concat(), b"0123456789");
        assert_eq!(aio::multi([Nop::new(); 1000]), Ok([(); 1000]));
    });
}

#[test]
fn arrays_and_vectors_of_tuples_with_chains() {
    each_engine(|_| {
        let (bad, file) = (write_only(), file_with(b"x"));
        let mut bytes = [[0u8; 1]; 300];
        let units = bytes.iter_mut().enumerate().map(|(i, byte)| {
            (Read::new(if i % 3 == 0 { &bad } else { &file }, byte).at(0).link(), Nop::new().link(), Nop::new())
        });
        let done = aio::complete(units.collect::<Vec<_>>()).unwrap();
        for (i, results) in done.results.into_iter().enumerate() {
            let skipped = Err(Error::Skipped);
            let expected = if i % 3 == 0 { (os(libc::EBADF), skipped, skipped) } else { (Ok(1), Ok(()), Ok(())) };
            assert_eq!(results, expected, "unit {i}");
        }
        assert_eq!(done.errors, 300);
    });
}

#[test]
fn a_vector_may_be_much_longer_than_the_ring() {
    each_backend_with(
        |config| config.entries(8),
        |_| {
            let contents: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
            let file = file_with(&contents);
            let mut bytes = vec![0u8; 5000];
            let reads: Vec<_> = bytes
                .iter_mut()
                .enumerate()
                .map(|(i, b)| Read::new(&file, std::array::from_mut(b)).at(i as u64))
                .collect();
            let done = aio::complete(reads).unwrap();
            assert_eq!((done.results.len(), done.errors), (5000, 0));
            assert_eq!(bytes, contents);
        },
    );
}

#[test]
fn many_waiting_operations_may_be_longer_than_the_ring_and_its_completions() {
    each_backend_with(
        |config| config.entries(8),
        |_| {
            let (output, input) = pipe();
            let mut bytes = [[0u8; 1]; 200];
            let reads: Vec<_> = bytes.iter_mut().map(|byte| Read::new(&output, byte)).collect();
            std::thread::scope(|s| {
                s.spawn(|| {
                    let mut input = std::fs::File::from(input.try_clone().unwrap());
                    input.write_all(&[b'x'; 150]).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                    input.write_all(&[b'y'; 50]).unwrap();
                });
                assert_eq!(aio::complete(reads).unwrap().errors, 0);
            });
            assert_eq!(bytes.iter().filter(|byte| byte[0] == b'y').count(), 50);
        },
    );
}

#[test]
fn chains_are_never_split_however_the_ring_fills_up() {
    each_backend_with(
        |config| config.entries(8),
        |_| {
            let (bad, mut bufs) = (write_only(), [[0u8; 1]; 100]);
            // 3 and 8 have no common divisor, so a chain begins at every place of the ring.
            let units: Vec<_> =
                bufs.iter_mut().map(|buf| (Read::new(&bad, buf).link(), Nop::new().hard_link(), Nop::new())).collect();
            let done = aio::complete(units).unwrap();
            assert!(done.results.iter().all(|unit| unit.1 == Err(Error::Skipped) && unit.2 == Err(Error::Skipped)));
        },
    );
}

#[test]
fn a_chain_longer_than_the_ring_is_refused_and_nothing_of_its_batch_is_started() {
    each_backend_with(
        |config| config.entries(2),
        |_| {
            let (output, input) = pipe();
            let n = Nop::new();
            let refused = aio::complete((Write::new(&input, b"started"), n.link(), n.link(), n)).unwrap_err();
            assert_eq!(refused, SetupError::ChainTooLong { len: 3, max: 2 });
            assert!(refused.to_string().contains("Config::entries"), "{refused}");
            let limited = aio::complete((n.timeout(NEVER).link(), n)).unwrap_err();
            assert_eq!(limited, SetupError::ChainTooLong { len: 3, max: 2 });
            let jobs = &mut [Job::new((n.link(), n.link(), n))];
            assert!(aio::complete(&mut jobs[..]).is_err());
            assert!(jobs[0].is_ready(), "a job that was not started can be tried again");
            let window = aio::complete(windowed([(n.link(), n.link(), n)], 1)).unwrap_err();
            assert_eq!(window, SetupError::ChainTooLong { len: 3, max: 2 });
            let mut buf = [0u8; 8];
            assert_eq!(aio::single(Read::new(&output, &mut buf).nonblocking()), os(libc::EAGAIN));
            assert_eq!(aio::multi((n.link(), n)), Ok(((), ())));
        },
    );
}

#[test]
fn an_unlinked_operation_with_a_limit_is_no_chain() {
    each_backend_with(
        |config| config.entries(1),
        |_| {
            assert_eq!(aio::single(Nop::new().timeout(NEVER)), Ok(()));
            assert_eq!(aio::multi([(); 3].map(|()| Nop::new().timeout(NEVER))), Ok([(); 3]));
        },
    );
}

#[test]
fn empty_batches_are_errors_and_say_so() {
    each_engine(|_| {
        let empty = Err(SetupError::EmptyBatch);
        assert_eq!(aio::complete([] as [Nop; 0]).map(|_| ()), empty);
        assert_eq!(aio::complete(Vec::<Nop>::new()).map(|_| ()), empty);
        let mut jobs = [Job::new(Nop::new())];
        assert_eq!(aio::complete(&mut jobs[..0]).map(|_| ()), empty);
        aio::multi(&mut jobs[..]).unwrap();
        assert_eq!(aio::complete(&mut jobs[..]).map(|_| ()), empty, "all of its jobs have run");
        let error = BatchError { index: 0, error: Error::Setup(SetupError::EmptyBatch) };
        assert_eq!(aio::multi(Vec::<Nop>::new()), Err(error));
    });
}

#[test]
fn the_index_of_a_failure_counts_through_nested_tuples() {
    each_engine(|_| {
        let (bad, n) = (write_only(), Nop::new());
        let (mut x, mut y) = ([0u8; 1], [0u8; 1]);
        let failure = |at| BatchError { index: at, error: Error::Os(aio::Errno::new(libc::EBADF)) };
        let batch = (n, (n, (n, Read::new(&bad, &mut x))), n);
        assert_eq!(aio::multi(batch), Err(failure(3)));
        let two = vec![(n, n, Read::new(&bad, &mut x)), (n, n, Read::new(&bad, &mut y))];
        assert_eq!(aio::multi(two), Err(failure(2)));
        let mut file = file_with(b"x");
        file.write_all(b"y").unwrap();
        let later = [(n, Read::new(&file, &mut x).at(0)), (n, Read::new(&bad, &mut y).at(0))];
        assert_eq!(aio::multi(later), Err(failure(3)));
        let text = failure(3).to_string();
        assert!(text.starts_with("operation 3 of the batch failed: Bad file descriptor"), "{text}");
    });
}

#[test]
fn jobs_keep_their_results_and_can_be_used_again() {
    each_engine(|_| {
        let file = file_with(b"abcdef");
        let mut jobs: Vec<_> = (0..50).map(|i| Job::new(Read::new(&file, vec![0u8; 1]).at(i % 6))).collect();
        assert_eq!(aio::complete(&mut jobs[10..]).unwrap().errors, 0);
        assert!(jobs[0].is_ready() && jobs[0].take_results().is_none());
        for (i, job) in jobs.iter_mut().enumerate().skip(10) {
            let (len, byte) = job.take_results().unwrap().unwrap();
            assert_eq!((len, byte[0]), (1, b"abcdef"[i % 6]));
            assert!(job.take_results().is_none());
            job.set(Read::new(&file, byte).at(100));
        }
        let done = aio::complete(&mut jobs[..]).unwrap();
        assert_eq!(done.errors, 0);
        assert_eq!(jobs[0].take_results().unwrap().unwrap().0, 1);
        assert_eq!(jobs[10].take_results().unwrap().unwrap().0, 0, "past the end");
    });
}

#[test]
fn errors_are_counted_over_the_whole_batch() {
    each_engine(|_| {
        let (bad, (output, _input)) = (write_only(), pipe());
        let (mut x, mut y) = ([0u8; 1], [0u8; 1]);
        let done = aio::complete((
            (Read::new(&bad, &mut x).link(), Nop::new()),
            Read::new(&output, &mut y).timeout(Duration::from_millis(1)),
            Timeout::after(Duration::from_millis(1)),
            OpenAt::new("no\0where"),
        ));
        assert_eq!(done.unwrap().errors, 4);
    });
}

#[test]
fn a_window_gives_its_results_in_the_order_of_the_iterator() {
    each_engine(|_| {
        for width in [1, 2, 7, 64, 10_000] {
            let times = (0..40u64).map(|i| (Timeout::after(Duration::from_micros(i * 137 % 1000)).link(), Nop::new()));
            assert_eq!(aio::multi(windowed(times, width)), Ok(vec![((), ()); 40]), "width {width}");
        }
        let file = file_with(b"0123456789");
        let reads = (0..10).map(|i| Read::new(&file, vec![0u8; 1]).at(i));
        let bytes: Vec<u8> = aio::multi(windowed(reads, 3)).unwrap().into_iter().map(|(_, byte)| byte[0]).collect();
        assert_eq!(bytes, b"0123456789");
    });
}

#[test]
fn a_window_never_has_more_in_flight_than_its_width() {
    each_backend(|_| {
        let (started, finished, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let units = (0..100).map(|_| {
            started.set(started.get() + 1);
            most.set(most.get().max(started.get() - finished.get()));
            Timeout::after(Duration::from_micros(50))
        });
        let batch = windowed(units, 5).for_each(|_, _| finished.set(finished.get() + 1));
        assert_eq!(aio::multi(batch), Ok(100));
        assert_eq!((finished.get(), most.get()), (100, 5));
    });
}

#[test]
fn a_window_may_be_empty_and_may_be_longer_than_the_ring() {
    each_backend_with(
        |config| config.entries(4),
        |_| {
            let none = aio::complete(windowed(std::iter::empty::<Nop>(), 3)).unwrap();
            assert_eq!((none.results.len(), none.errors), (0, 0));
            assert_eq!(aio::multi(windowed(std::iter::repeat_n(Nop::new(), 5000), 100)).unwrap().len(), 5000);
        },
    );
}

#[test]
fn a_window_counts_errors_and_tells_them_with_their_place() {
    each_engine(|_| {
        let (bad, file) = (write_only(), file_with(b"x"));
        let unit = |i| (Read::new(if i % 4 == 0 { &bad } else { &file }, vec![0; 1]).at(0).link(), Nop::new());
        let mut failed = Vec::new();
        let done = aio::complete(windowed((0..20).map(unit), 6).for_each(|at, (read, after)| {
            assert_eq!(read.is_err(), after == Err(Error::Skipped));
            failed.extend(read.is_err().then_some(at));
        }));
        assert_eq!(done.unwrap().errors, 10);
        failed.sort_unstable();
        assert_eq!(failed, [0, 4, 8, 12, 16]);
        assert_eq!(aio::multi(windowed((1..20).map(unit), 6)).unwrap_err().index, 6);
    });
}

#[test]
fn the_iterator_of_a_window_may_use_the_library_itself() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        let units = (0..20u8).map(|i| {
            aio::single(Timeout::after(Duration::from_micros(100))).unwrap();
            assert_eq!(aio::single(Send::new(&b, &[i])), Ok(1));
            Recv::new(&a, vec![0u8; 1])
        });
        let got = aio::multi(windowed(units, 4)).unwrap();
        assert_eq!(got.iter().map(|(_, byte)| byte[0]).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        let inner = (0..5).map(|_| {
            assert_eq!(aio::multi(windowed([Nop::new(); 5], 2)).unwrap().len(), 5);
            Nop::new()
        });
        assert_eq!(aio::multi(windowed(inner, 2)).unwrap().len(), 5);
    });
}

#[test]
fn a_panic_of_the_iterator_ends_what_is_in_flight_and_goes_on() {
    each_engine(|_| {
        let (a, b) = UnixStream::pair().unwrap();
        let units = (0..10).map(|i| match i {
            5 => panic!("the iterator's own"),
            _ => Recv::new(&a, vec![0u8; 4]).timeout(NEVER),
        });
        let panic = catch_unwind(AssertUnwindSafe(|| aio::multi(windowed(units, 8)))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the iterator's own"));
        // Nobody is left that would take it.
        (&b).write_all(b"mine").unwrap();
        let mut buf = [0u8; 4];
        assert_eq!(aio::single(Recv::new(&a, &mut buf).nonblocking()), Ok(4));
    });
}

#[test]
fn a_panic_of_the_receiver_ends_what_is_in_flight_and_goes_on() {
    each_engine(|_| {
        let (output, input) = pipe();
        let units =
            (0..10).map(|i| Read::new(&output, vec![0u8; 1]).timeout(Duration::from_secs(u64::from(i > 0) * 60)));
        let run = || aio::complete(windowed(units, 10).for_each(|_, _| panic!("the receiver's own")));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the receiver's own"));
        assert_eq!(aio::single(Write::new(&input, b"!")), Ok(1));
        let mut buf = [0u8; 1];
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(1));
    });
}

#[test]
fn a_panic_ends_chains_with_hard_links_too() {
    each_engine(|_| {
        let (output, _input) = pipe();
        let units = (0..4).map(|i| {
            assert!(i < 3, "the iterator's own");
            let tail = (Read::new(&output, vec![0u8; 1]).hard_link(), Read::new(&output, vec![0u8; 1]));
            (Read::new(&output, vec![0u8; 1]).hard_link(), Nop::new().hard_link(), tail)
        });
        let panic = catch_unwind(AssertUnwindSafe(|| aio::multi(windowed(units, 8)))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the iterator's own"));
        assert_eq!(aio::single(Nop::new()), Ok(()));
    });
}
