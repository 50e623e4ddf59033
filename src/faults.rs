//! For the tests of this crate: engines whose kernel misbehaves, by plan.
//!
//! What a kernel may do and seldom does is done often here, and the same way for the same seed. Some of it nobody may
//! ever notice; some of it programs see as errors and short counts that are documented, and have to cope with.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Something that goes wrong. The page on testing says where it is injected and what must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `enter` says `EINTR`, `EAGAIN`, `EBUSY` or `ENOMEM`, and has done nothing.
    Refusal,
    /// `enter` takes some of the entries only, and says so or gives an error.
    Partial,
    /// A chain finds the submission queue too full. Not injected, only counted: it follows from the one above.
    NoRoomForChain,
    /// The completion queue of the engine holds very few.
    TinyQueue,
    /// It has overflown. Follows from that, and is only counted.
    Overflow,
    /// Completions come in another order, those of one operation and of one chain apart.
    Reorder,
    /// Completions are withheld for some turns.
    Withhold,
    /// The notification that the kernel no longer uses a buffer comes long after the result.
    LateNotification,
    /// A cancel is answered with `EALREADY` or `ENOENT`; the operation ends later.
    LostCancel,
    /// A cancel takes its time.
    LateCancel,
    /// The kernel stops a multishot operation with its last result.
    EarlyEnd,
    /// An operation goes to one of the ring's workers right away.
    Punt,
    /// A worker takes its time.
    SlowWorker,
    /// A descriptor is reported that is not ready.
    Spurious,
    /// A signal interrupts the wait for descriptors.
    InterruptedWait,
    /// A signal interrupts a system call.
    InterruptedCall,
    /// Less is transferred than there is.
    Short,
    /// No buffer is free: `ENOBUFS`.
    NoBuffers,
    /// No descriptor is free: `EMFILE`.
    NoDescriptors,
    /// The kernel stops a multishot operation that has run with such an error.
    FailedShots,
}

const KINDS: usize = Fault::FailedShots as usize + 1;

/// What nobody may notice, and how rare it is: one time of so many.
const INVISIBLE: [(Fault, u32); 14] = [
    (Fault::Refusal, 32),
    (Fault::Partial, 4),
    (Fault::TinyQueue, 2),
    (Fault::Reorder, 2),
    (Fault::Withhold, 8),
    (Fault::LateNotification, 2),
    (Fault::LostCancel, 3),
    (Fault::LateCancel, 3),
    (Fault::EarlyEnd, 8),
    (Fault::Punt, 4),
    (Fault::SlowWorker, 4),
    (Fault::Spurious, 4),
    (Fault::InterruptedWait, 8),
    (Fault::InterruptedCall, 8),
];

const VISIBLE: [(Fault, u32); 4] =
    [(Fault::Short, 3), (Fault::NoBuffers, 8), (Fault::NoDescriptors, 8), (Fault::FailedShots, 16)];

/// Which faults engines have, and how often. Copies count together.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    seed: u64,
    rates: [u32; KINDS],
    counts: &'static [AtomicU64; KINDS],
}

impl Plan {
    /// No faults yet.
    pub fn new(seed: u64) -> Plan {
        // Plans are few, and their copies are everywhere.
        let counts = Box::leak(Box::new([const { AtomicU64::new(0) }; KINDS]));
        Plan { seed, rates: [0; KINDS], counts }
    }

    /// Those that nobody may notice.
    pub fn invisible(seed: u64) -> Plan {
        INVISIBLE.iter().fold(Plan::new(seed), |plan, &(fault, rate)| plan.with(fault, rate))
    }

    /// And those that programs have to cope with.
    pub fn all(seed: u64) -> Plan {
        VISIBLE.iter().fold(Plan::invisible(seed), |plan, &(fault, rate)| plan.with(fault, rate))
    }

    /// What `AIO_FAULTS` asks for: the invisible ones, by the seed that it is.
    pub fn from_environment() -> Option<Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        *PLAN.get_or_init(|| {
            let value = std::env::var("AIO_FAULTS").ok()?;
            let seed = value.parse().unwrap_or_else(|_| panic!("AIO_FAULTS is a number, not {value:?}"));
            Some(Plan::invisible(seed))
        })
    }

    /// One time of `rate`; never if that is 0.
    pub fn with(mut self, fault: Fault, rate: u32) -> Plan {
        self.rates[fault as usize] = rate;
        self
    }

    /// How often it has happened.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts[fault as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, fault: Fault) {
        self.counts[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The faults of an engine: others for each, and the same for the engines of a thread by name and order.
    pub(crate) fn stream(self) -> Stream {
        thread_local!(static ENGINES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
        let ordinal = ENGINES.replace(ENGINES.get() + 1);
        let mut hasher = DefaultHasher::new();
        (self.seed, std::thread::current().name(), ordinal).hash(&mut hasher);
        Stream { plan: self, state: hasher.finish() }
    }
}

/// The faults of one engine, or of one job of its workers.
pub(crate) struct Stream {
    plan: Plan,
    state: u64,
}

impl Stream {
    /// Numbers that look random (splitmix64).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    /// Whether it happens now. It is counted if so.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let rate = self.plan.rates[fault as usize];
        let now = rate > 0 && self.below(rate) == 0;
        if now {
            self.plan.add(fault);
        }
        now
    }

    /// Counts what has followed from something else.
    pub(crate) fn add(&self, fault: Fault) {
        self.plan.add(fault);
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u32 + 1) as usize);
        }
    }

    /// Other faults of the same plan.
    pub(crate) fn split(&mut self) -> Stream {
        Stream { plan: self.plan, state: self.next() }
    }
}
