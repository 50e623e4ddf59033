//! No-ops through a ring: what the library adds to a hand-written loop.
//!
//! The twin uses the `io-uring` crate directly, with the same set-up flags and a registered ring descriptor, and does
//! the same job: it keeps the result of each operation and counts the errors. Both run alternately in this process, and
//! the fastest tenth of the rounds counts.
//!
//! Run with `cargo bench --bench nop`.

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
mod linux {
    use crate::common::compare;
    use aio::{Backend, Config, op::Nop};
    use io_uring::{EnterFlags, IoUring, opcode};
    use std::hint::black_box;

    /// In each round, of either.
    const OPERATIONS: usize = 2048;

    /// The fastest loop that one can write by hand.
    struct Twin {
        ring: &'static mut IoUring,
        registered: io_uring::Submitter<'static>,
    }

    impl Twin {
        fn new() -> Twin {
            let ring = IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag()
                .setup_no_sqarray()
                .setup_submit_all()
                .setup_clamp()
                .setup_cqsize(1024)
                .build(256)
                .expect("io_uring with DEFER_TASKRUN and NO_SQARRAY (Linux 6.6)");
            let ring: *mut IoUring = Box::leak(Box::new(ring));
            // SAFETY: leaked, so it lives for ever; the submitter reads the queue's indices only, and this thread uses
            // the two in turn.
            let (ring, mut registered) = unsafe { (&mut *ring, (*ring).submitter()) };
            registered.register_ring_fd().expect("a registered ring (Linux 5.18)");
            Twin { ring, registered }
        }

        fn batch(&mut self, size: usize, results: &mut [i32]) -> usize {
            let mut queue = self.ring.submission();
            for i in 0..size {
                // SAFETY: a no-op points to nothing.
                unsafe { queue.push(&opcode::Nop::new().build().user_data(i as u64)).expect("room") };
            }
            drop(queue);
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: the entries are no-ops.
            unsafe { self.registered.enter::<()>(size as u32, size as u32, flags, None).expect("enter") };
            let (mut done, mut errors) = (0, 0);
            for entry in self.ring.completion() {
                results[entry.user_data() as usize] = entry.result();
                errors += usize::from(entry.result() < 0);
                done += 1;
            }
            assert_eq!(done, size);
            errors
        }
    }

    fn ours(size: usize) {
        let errors = match size {
            1 => usize::from(aio::single(Nop::new()).is_err()),
            16 => aio::complete([const { Nop::new() }; 16]).expect("a batch").errors,
            _ => aio::complete([const { Nop::new() }; 128]).expect("a batch").errors,
        };
        assert_eq!(black_box(errors), 0);
    }

    pub(super) fn main() {
        let mut twin = Twin::new();
        let run = Config::new().backend(Backend::IoUring).run(|| {
            println!("{:>6} {:>12} {:>12} {:>8}", "batch", "twin ns/op", "aio ns/op", "ratio");
            for size in [1, 16, 128] {
                let mut results = [0; 128];
                let mut batch = || assert_eq!(black_box(twin.batch(size, black_box(&mut results))), 0);
                let rounds = OPERATIONS / size;
                let (theirs, own) =
                    compare(OPERATIONS, || (0..rounds).for_each(|_| batch()), || (0..rounds).for_each(|_| ours(size)));
                println!("{size:>6} {theirs:>12.1} {own:>12.1} {:>8.3}", own / theirs);
            }
        });
        if let Err(error) = run {
            println!("skipped: {error}");
        }
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: io_uring exists on Linux only");
}
