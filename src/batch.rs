//! Batches: which shapes may be given to [`complete`](crate::complete), and what they give back.
//!
//! Data flows one way. A batch lowers its operations into [slots](crate::driver::slot), the engine works on the slots,
//! and the batch raises the results. While the engine works no user code runs on the frame that holds the slots.

mod many;
mod tuple;
mod windowed;

pub use many::Job;
pub use windowed::{ForEach, Windowed, windowed};

use crate::{
    BatchError, Error, Result, SetupError,
    complete::Host,
    driver::slot::{Link, Slot},
    engine::Engine,
    link::Linked,
    lower::{Lower, Raise},
    op::Op,
    sealed::Sealed,
};
use std::{any::type_name, mem::MaybeUninit};

/// What [`complete`](crate::complete) gives: every operation's own result, and how many of them are errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "operations can fail one by one; look at `results` or at `errors`"]
pub struct Done<R> {
    /// The results in the shape of the batch: a tuple for a tuple, a `Vec` for a `Vec`.
    pub results: R,
    /// How many of the operations gave an `Err`. An expired [`Timeout`](crate::op::Timeout) is not an error.
    pub errors: usize,
}

/// Something that can stand in a tuple: an operation, a linked operation, or another tuple.
///
/// Sealed. The methods are the library's own.
pub trait Entry: Sealed + Sized {
    /// The results, operation by operation.
    type Results;
    /// The outputs, if all succeeded.
    type Values;
    #[doc(hidden)]
    type Slots;
    /// How many operations it has.
    #[doc(hidden)]
    const LEN: u32;
    #[doc(hidden)]
    const CHAINS: Chains;

    #[doc(hidden)]
    fn lower_into(&mut self, slots: &mut MaybeUninit<Self::Slots>, cx: &mut Lower<'_>);
    /// The addresses of the slots, in order.
    ///
    /// # Safety
    /// `slots` points to memory for them.
    #[doc(hidden)]
    unsafe fn locate(slots: *mut MaybeUninit<Self::Slots>, found: &mut Vec<*mut Slot>);
    /// # Safety
    /// `slots` was initialised by `lower_into`, and all of them are finished.
    #[doc(hidden)]
    unsafe fn raise_from(self, slots: &MaybeUninit<Self::Slots>, cx: &mut crate::batch::Raising<'_>) -> Self::Results;
    #[doc(hidden)]
    fn values(results: Self::Results, index: &mut usize) -> Result<Self::Values, BatchError>;
}

/// How many queue entries the chains of a batch take, known from its type alone.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Chains {
    /// The chain that begins at the start.
    first: u32,
    longest: u32,
    /// Whether the last operation is linked to what follows.
    open: bool,
}

impl Chains {
    const NONE: Chains = Chains { first: 0, longest: 0, open: false };

    pub(crate) const fn longest(self) -> u32 {
        self.longest
    }

    /// Of one operation. If it stands alone, the engine itself keeps its time limit, which takes no entry.
    const fn of(entries: u32, open: bool) -> Chains {
        Chains { first: entries, longest: if open { entries } else { 1 }, open }
    }

    /// These, and then those; `carried` is what the chain has that is open between them.
    const fn then(self, carried: u32, next: Chains) -> (Chains, u32) {
        let length = carried + next.first;
        let longest = if carried > 0 && length > next.longest { length } else { next.longest };
        let longest = if longest > self.longest { longest } else { self.longest };
        let at_start = self.first == 0 || self.open && self.first == carried;
        let first = if at_start { length } else { self.first };
        (Chains { first, longest, open: next.open }, if next.open { length } else { 0 })
    }
}

/// Wraps the crate's own type, so that it can stand in a public trait.
#[doc(hidden)]
pub struct Raising<'e>(pub(crate) Raise<'e>);

/// Something that is whole by itself: an operation, or a tuple whose last operation is not linked.
#[diagnostic::on_unimplemented(
    message = "the last operation of a batch cannot be linked, and `{Self}` is",
    note = "drop its `.link()` or `.hard_link()`: there is nothing after it to be linked to"
)]
pub trait Last: Entry {}

impl<O: Op> Entry for O {
    type Results = Result<O::Output>;
    type Values = O::Output;
    type Slots = Slot;
    const LEN: u32 = 1;
    const CHAINS: Chains = Chains::of(O::ENTRIES, false);

    #[inline]
    fn lower_into(&mut self, slots: &mut MaybeUninit<Slot>, cx: &mut Lower<'_>) {
        let raw = self.lower(cx);
        cx.push(slots.as_mut_ptr(), raw, Link::None);
    }

    unsafe fn locate(slots: *mut MaybeUninit<Slot>, found: &mut Vec<*mut Slot>) {
        found.push(slots.cast());
    }

    #[inline]
    unsafe fn raise_from(self, slots: &MaybeUninit<Slot>, cx: &mut Raising<'_>) -> Self::Results {
        // SAFETY: initialised by `lower_into`, as the caller promises.
        self.raise(cx.0.outcome(unsafe { slots.assume_init_ref() }, Link::None))
    }

    fn values(results: Self::Results, index: &mut usize) -> Result<Self::Values, BatchError> {
        let at = *index;
        *index += 1;
        results.map_err(|error| BatchError { index: at, error })
    }
}

impl<O: Op> Last for O {}

impl<O, const HARD: bool> Linked<O, HARD> {
    pub(crate) const LINK: Link = if HARD { Link::Hard } else { Link::Soft };
}

impl<O: Op, const HARD: bool> Entry for Linked<O, HARD> {
    type Results = Result<O::Output>;
    type Values = O::Output;
    type Slots = Slot;
    const LEN: u32 = 1;
    const CHAINS: Chains = Chains::of(O::ENTRIES, true);

    #[inline]
    fn lower_into(&mut self, slots: &mut MaybeUninit<Slot>, cx: &mut Lower<'_>) {
        let raw = self.op.lower(cx);
        cx.push(slots.as_mut_ptr(), raw, Self::LINK);
    }

    unsafe fn locate(slots: *mut MaybeUninit<Slot>, found: &mut Vec<*mut Slot>) {
        found.push(slots.cast());
    }

    #[inline]
    unsafe fn raise_from(self, slots: &MaybeUninit<Slot>, cx: &mut Raising<'_>) -> Self::Results {
        // SAFETY: initialised by `lower_into`, as the caller promises.
        self.op.raise(cx.0.outcome(unsafe { slots.assume_init_ref() }, Self::LINK))
    }

    fn values(results: Self::Results, index: &mut usize) -> Result<Self::Values, BatchError> {
        <O as Entry>::values(results, index)
    }
}

/// What [`complete`](crate::complete), [`multi`](crate::multi) and [`single`](crate::single) take:
///
/// - one operation,
/// - a tuple of up to 16 operations, linked operations and smaller tuples,
/// - an array or a `Vec` of operations or of tuples, all of one type,
/// - a mutable slice of [`Job`]s, which keep operation and result in place,
/// - [`windowed`] iterators, of any length.
///
/// Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch",
    note = "a batch is an operation, a tuple of up to 16 of them, an array, a `Vec`, a `&mut [Job<_>]`, or `windowed(…)`",
    note = "the last operation of a tuple cannot carry `.link()` or `.hard_link()`"
)]
pub trait Batch: Sealed + Sized {
    /// The results, operation by operation.
    type Results;
    /// The outputs, if all succeeded.
    type Values;

    #[doc(hidden)]
    fn run(self, engine: &Engine, host: impl Host) -> Result<Done<Self::Results>, SetupError>;
    #[doc(hidden)]
    fn into_values(results: Self::Results) -> Result<Self::Values, BatchError>;
}

impl<L: Last> Batch for L {
    type Results = L::Results;
    type Values = L::Values;

    #[inline]
    fn run(mut self, engine: &Engine, host: impl Host) -> Result<Done<Self::Results>, SetupError> {
        engine.check_chain(L::CHAINS.longest())?;
        let mut slots = MaybeUninit::uninit();
        let place = &raw mut slots;
        // SAFETY: `self` and `slots` stay where they are, untouched, until `run_to_end` has returned.
        unsafe {
            let what = type_name::<L>();
            host.run_to_end(engine, L::LEN, what, || located::<L>(place, 1), |cx| self.lower_into(&mut *place, cx));
        }
        let mut cx = Raising(Raise::new(engine));
        // SAFETY: lowered above, and `run_to_end` returns when all of them are finished.
        let results = unsafe { self.raise_from(&slots, &mut cx) };
        Ok(Done { results, errors: cx.0.errors })
    }

    fn into_values(results: Self::Results) -> Result<Self::Values, BatchError> {
        L::values(results, &mut 0)
    }
}

/// The addresses of the slots of `count` entries, in order.
///
/// # Safety
/// `slots` points to memory for so many.
pub(crate) unsafe fn located<L: Entry>(slots: *mut MaybeUninit<L::Slots>, count: usize) -> Vec<*mut Slot> {
    let mut found = Vec::with_capacity(count * L::LEN as usize);
    // SAFETY: promised by the caller.
    (0..count).for_each(|i| unsafe { L::locate(slots.add(i), &mut found) });
    found
}

/// The error of a batch that could not start, as the error of its first operation.
pub(crate) fn not_started(error: SetupError) -> BatchError {
    BatchError { index: 0, error: Error::Setup(error) }
}
