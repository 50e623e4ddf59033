//! No-ops through a long-lived queue: what the library adds to a hand-written loop.
//!
//! The twin uses the `io-uring` crate directly, with the same set-up flags and a registered ring descriptor, and does
//! what everybody does who has operations in flight: it keeps a context for each in a slab, finds it again by the index
//! in `user_data`, and makes an event of it, with a token that tells uses of a place apart. Both run alternately in this
//! process, and the fastest tenth of the rounds counts; the median of several pairs of a twin and a queue does.
//!
//! Run with `cargo bench --bench queue_nop`.

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
mod linux {
    use crate::common::compare;
    use aio::{Backend, Config, Queue, op::Nop};
    use io_uring::{EnterFlags, IoUring, opcode};
    use std::hint::black_box;

    /// In each round, of either.
    const OPERATIONS: usize = 2048;
    const PLACES: u32 = 256;

    /// Twins and queues are made anew so often, for it matters where in memory they are; the median counts.
    const PAIRS: usize = 7;

    /// What comes out of either queue.
    enum Event {
        Nop(Result<(), aio::Error>),
    }

    impl Event {
        fn is_error(&self) -> bool {
            let Event::Nop(result) = self;
            result.is_err()
        }
    }

    /// What the twin keeps of an operation in flight.
    struct Context {
        generation: u64,
        next_free: u32,
        number: u64,
    }

    /// The fastest loop that one can write by hand.
    struct Twin {
        ring: &'static mut IoUring,
        registered: io_uring::Submitter<'static>,
        slab: Vec<Context>,
        free: u32,
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
                .setup_cqsize(4 * PLACES)
                .build(PLACES)
                .expect("io_uring with DEFER_TASKRUN and NO_SQARRAY (Linux 6.6)");
            let ring: *mut IoUring = Box::leak(Box::new(ring));
            // SAFETY: leaked, so it lives for ever; the submitter reads the queue's indices only, and this thread uses
            // the two in turn.
            let (ring, mut registered) = unsafe { (&mut *ring, (*ring).submitter()) };
            registered.register_ring_fd().expect("a registered ring (Linux 5.18)");
            let slab = (1..=PLACES).map(|next_free| Context { generation: 0, next_free, number: 0 }).collect();
            Twin { ring, registered, slab, free: 0 }
        }

        fn batch(&mut self, size: usize) -> usize {
            let mut queue = self.ring.submission();
            for number in 0..size {
                let index = self.free;
                let context = &mut self.slab[index as usize];
                self.free = context.next_free;
                context.number = number as u64;
                // SAFETY: a no-op points to nothing.
                unsafe { queue.push(&opcode::Nop::new().build().user_data(index.into())).expect("room") };
            }
            drop(queue);
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: the entries are no-ops.
            unsafe { self.registered.enter::<()>(size as u32, size as u32, flags, None).expect("enter") };
            let (mut done, mut errors) = (0, 0);
            for entry in self.ring.completion() {
                let index = entry.user_data() as u32;
                let context = &mut self.slab[index as usize];
                let token = (index, context.generation);
                let result = if entry.result() < 0 { Err(aio::Error::Canceled) } else { Ok(()) };
                context.generation += 1;
                context.next_free = self.free;
                self.free = index;
                black_box((token.0, token.1));
                black_box(context.number);
                errors += usize::from(black_box(Event::Nop(result)).is_error());
                done += 1;
            }
            assert_eq!(done, size);
            errors
        }
    }

    fn ours(queue: &Queue<'static, Event>, size: usize) -> usize {
        for number in 0..size {
            let number = number as u64;
            let map = move |done: aio::queue::Done<Nop>| {
                black_box(number);
                Event::Nop(done.result)
            };
            queue.submit(Nop::new(), map).expect("room");
        }
        let (mut done, mut errors) = (0, 0);
        for (_token, Event::Nop(result)) in queue.wait(size).expect("events") {
            errors += usize::from(result.is_err());
            done += 1;
        }
        assert_eq!(done, size);
        errors
    }

    /// So many batches that all operations are done.
    fn repeat(size: usize, mut batch: impl FnMut() -> usize) {
        for _ in 0..OPERATIONS / size {
            assert_eq!(black_box(batch()), 0);
        }
    }

    pub(super) fn main() {
        const SIZES: [usize; 3] = [1, 16, 128];
        let mut times = SIZES.map(|_| vec![]);
        for _ in 0..PAIRS {
            let queue = match Queue::with_config(PLACES, Config::new().backend(Backend::IoUring)) {
                Ok(queue) => queue,
                Err(error) => return println!("skipped: {error}"),
            };
            let mut twin = Twin::new();
            for (size, times) in SIZES.into_iter().zip(&mut times) {
                times.push(compare(
                    OPERATIONS,
                    || repeat(size, || twin.batch(black_box(size))),
                    || repeat(size, || ours(&queue, black_box(size))),
                ));
            }
        }
        println!("{:>6} {:>12} {:>12} {:>8} {:>16}", "batch", "twin ns/op", "aio ns/op", "ratio", "of all pairs");
        for (size, mut times) in SIZES.into_iter().zip(times) {
            let ratio = |(theirs, own): (f64, f64)| own / theirs;
            times.sort_by(|&a, &b| ratio(a).total_cmp(&ratio(b)));
            let (theirs, own) = times[PAIRS / 2];
            let (least, most) = (ratio(times[0]), ratio(times[PAIRS - 1]));
            println!("{size:>6} {theirs:>12.1} {own:>12.1} {:>8.3} {least:>9.3}–{most:.3}", own / theirs);
        }
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: io_uring exists on Linux only");
}
