//! Batches of one type: arrays, vectors, and slices of jobs that the caller keeps.

use super::{Batch, Done, Last, Raising, located};
use crate::{
    BatchError, Result, SetupError,
    complete::Host,
    engine::Engine,
    lower::{Lower, Raise},
    sealed::Sealed,
};
use std::{
    any::type_name,
    mem::{self, ManuallyDrop, MaybeUninit},
    ptr,
};

/// Slots on the frame up to this size; larger batches put theirs on the heap.
const ON_FRAME: usize = 32 << 10;

impl<L: Last, const N: usize> Sealed for [L; N] {}

impl<L: Last, const N: usize> Batch for [L; N] {
    type Results = [L::Results; N];
    type Values = [L::Values; N];

    fn run(mut self, engine: &Engine, host: impl Host) -> Result<Done<Self::Results>, SetupError> {
        if size_of::<[L::Slots; N]>() <= ON_FRAME {
            let mut slots = [const { MaybeUninit::uninit() }; N];
            run_slice(&mut self, &mut slots, engine, host)?;
            Ok(raise_array(self, &slots, engine))
        } else {
            let mut slots = Box::new_uninit_slice(N);
            run_slice(&mut self, &mut slots, engine, host)?;
            Ok(raise_array(self, &slots, engine))
        }
    }

    fn into_values(results: Self::Results) -> Result<Self::Values, BatchError> {
        let mut index = 0;
        let values: Result<Vec<_>, _> = results.into_iter().map(|r| L::values(r, &mut index)).collect();
        Ok(values?.try_into().unwrap_or_else(|_| unreachable!("one value for each of the results")))
    }
}

impl<L: Last> Sealed for Vec<L> {}

impl<L: Last> Batch for Vec<L> {
    type Results = Vec<L::Results>;
    type Values = Vec<L::Values>;

    fn run(mut self, engine: &Engine, host: impl Host) -> Result<Done<Self::Results>, SetupError> {
        let mut slots = Box::new_uninit_slice(self.len());
        run_slice(&mut self, &mut slots, engine, host)?;
        let mut cx = Raising(Raise::new(engine));
        let results = self
            .into_iter()
            .zip(&slots)
            // SAFETY: lowered and finished by `run_slice`.
            .map(|(entry, slots)| unsafe { entry.raise_from(slots, &mut cx) })
            .collect();
        Ok(Done { results, errors: cx.0.errors })
    }

    fn into_values(results: Self::Results) -> Result<Self::Values, BatchError> {
        let mut index = 0;
        results.into_iter().map(|r| L::values(r, &mut index)).collect()
    }
}

/// Lowers all entries and waits until all are finished. On success every slot is initialised and finished.
fn run_slice<L: Last>(
    entries: &mut [L],
    slots: &mut [MaybeUninit<L::Slots>],
    engine: &Engine,
    host: impl Host,
) -> Result<(), SetupError> {
    if entries.is_empty() {
        return Err(SetupError::EmptyBatch);
    }
    engine.check_chain(L::CHAINS.longest())?;
    let (count, places) = (entries.len(), slots.as_mut_ptr());
    let lower = |cx: &mut Lower<'_>| {
        for (i, entry) in entries.iter_mut().enumerate() {
            // SAFETY: there is a place for each entry.
            entry.lower_into(unsafe { &mut *places.add(i) }, cx);
        }
    };
    // SAFETY: entries and slots are exclusively borrowed until this returns, so they neither move nor change.
    unsafe { host.run_to_end(engine, slot_count::<L>(count), type_name::<L>(), || located::<L>(places, count), lower) };
    Ok(())
}

/// How many slots so many entries have.
///
/// # Panics
/// If they are 2³² or more: they would not fit into any memory.
fn slot_count<L: Last>(entries: usize) -> u32 {
    u32::try_from(entries).ok().and_then(|entries| entries.checked_mul(L::LEN)).expect("fewer than 2^32 operations")
}

#[inline]
fn raise_array<L: Last, const N: usize>(
    entries: [L; N],
    slots: &[MaybeUninit<L::Slots>],
    engine: &Engine,
) -> Done<[L::Results; N]> {
    let mut cx = Raising(Raise::new(engine));
    let entries = ManuallyDrop::new(entries);
    let mut done = MaybeUninit::<Done<[L::Results; N]>>::uninit();
    let place = done.as_mut_ptr();
    assert_eq!(slots.len(), N, "a slot for each entry");
    // SAFETY: each entry is read once, and not dropped where it was; if raising one panics the others leak. The slots
    // were lowered and finished by `run_slice`, one for each entry. Each result is written once, so `done` is whole at
    // the end.
    unsafe {
        let results = (&raw mut (*place).results).cast::<L::Results>();
        for (i, slots) in slots.iter().enumerate() {
            results.add(i).write(ptr::read(&entries[i]).raise_from(slots, &mut cx));
        }
        (&raw mut (*place).errors).write(cx.0.errors);
        done.assume_init()
    }
}

/// An operation (or tuple) and its result in one place that the caller keeps, so that a batch of any size needs no
/// allocation.
///
/// ```
/// use aio::{Job, op::*};
///
/// let files = [std::fs::File::open("Cargo.toml")?, std::fs::File::open("README.md")?];
/// let mut buffers = [[0u8; 64]; 2];
/// let mut jobs: Vec<_> =
///     files.iter().zip(&mut buffers).map(|(file, buffer)| Job::new(Read::new(file, buffer).at(0))).collect();
///
/// let done = aio::complete(&mut jobs[..])?;
/// assert_eq!(done.errors, 0);
/// for job in &mut jobs {
///     assert_eq!(job.take_results(), Some(Ok(64)));
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Job<L: Last> {
    state: State<L>,
    /// Its operations were given to an engine, and their results were not taken: after a panic they never are.
    running: bool,
    slots: MaybeUninit<L::Slots>,
}

enum State<L: Last> {
    Ready(L),
    Done(L::Results),
    Empty,
}

impl<L: Last> Job<L> {
    /// A job that is ready to run.
    pub fn new(entry: L) -> Job<L> {
        Job { state: State::Ready(entry), running: false, slots: MaybeUninit::uninit() }
    }

    /// Makes the job ready again, with another operation. An unread result is dropped.
    pub fn set(&mut self, entry: L) {
        (self.state, self.running) = (State::Ready(entry), false);
    }

    /// The result, if the job has run and nobody has taken it yet.
    pub fn take_results(&mut self) -> Option<L::Results> {
        match mem::replace(&mut self.state, State::Empty) {
            State::Done(results) => Some(results),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Whether the job is still to be run. A batch skips those that are not.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_)) && !self.running
    }
}

impl<L: Last> Sealed for &mut [Job<L>] {}

/// The results stay in the jobs; `results` is `()`. Jobs that have run before, and were not [`set`](Job::set) again,
/// are left alone; if there is no other, the batch is empty.
impl<L: Last> Batch for &mut [Job<L>] {
    type Results = ();
    type Values = ();

    fn run(self, engine: &Engine, host: impl Host) -> Result<Done<()>, SetupError> {
        let ready = self.iter().filter(|job| job.is_ready()).count();
        if ready == 0 {
            return Err(SetupError::EmptyBatch);
        }
        engine.check_chain(L::CHAINS.longest())?;
        let expected = slot_count::<L>(ready);
        let (jobs, len) = (self.as_mut_ptr(), self.len());
        let slots = || {
            let mut found = Vec::new();
            for i in 0..len {
                // SAFETY: within the slice, which is exclusively borrowed; only addresses of slots are taken.
                unsafe {
                    if (*jobs.add(i)).running {
                        L::locate(&raw mut (*jobs.add(i)).slots, &mut found);
                    }
                }
            }
            found
        };
        let lower = |cx: &mut Lower<'_>| {
            for i in 0..len {
                // SAFETY: within the slice, which is exclusively borrowed.
                let job = unsafe { &mut *jobs.add(i) };
                if let (State::Ready(entry), false) = (&mut job.state, job.running) {
                    job.running = true;
                    entry.lower_into(&mut job.slots, cx);
                }
            }
        };
        // SAFETY: the jobs are exclusively borrowed, so they neither move nor change until this returns.
        unsafe { host.run_to_end(engine, expected, type_name::<L>(), slots, lower) };
        let mut cx = Raising(Raise::new(engine));
        for job in self.iter_mut().filter(|job| job.running) {
            let State::Ready(entry) = mem::replace(&mut job.state, State::Empty) else { continue };
            // SAFETY: lowered above, and finished.
            job.state = State::Done(unsafe { entry.raise_from(&job.slots, &mut cx) });
            job.running = false;
        }
        Ok(Done { results: (), errors: cx.0.errors })
    }

    fn into_values((): ()) -> Result<(), BatchError> {
        Ok(())
    }
}
