//! The place where one operation in flight lives: on the frame of whoever waits for it.

use super::{
    waiter::{Waiter, tell},
    wheel::Timer,
};
use crate::{op::RawOp, sys::Timespec};
use std::{
    cell::Cell,
    mem::{ManuallyDrop, MaybeUninit, offset_of},
    ptr,
    time::Duration,
};

#[cfg(all(test, target_os = "linux"))]
mod tests;

/// How an operation is tied to the next one of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Link {
    None,
    Soft,
    Hard,
}

/// No descriptor was opened by the chain.
pub(crate) const NOT_OPENED: i32 = -1;

/// One operation in flight. It must not move from its submission until it is finished; its address is what the kernel
/// hands back as `user_data`, whose low bits tell the entries of one slot apart.
///
/// What every operation touches comes first and fills one cache line.
#[repr(C, align(64))]
pub struct Slot {
    pub(crate) op: RawOp,
    /// The next operation of the chain. Initialised if there is one.
    next: MaybeUninit<*mut Slot>,
    waiter: *const Waiter,
    status: Cell<Status>,
    /// What the chain's `Open` yielded, handed from slot to slot. Initialised in chains.
    opened: MaybeUninit<Cell<i32>>,
    /// Initialised if the flag says so; the kernel reads it for a linked timeout.
    limit: MaybeUninit<Timespec>,
    /// Initialised by the driver when it arms it.
    pub(crate) timer: MaybeUninit<Timer>,
    engine: Engine,
}

/// What one engine or the other keeps.
union Engine {
    /// Initialised by the emulation.
    emulated: ManuallyDrop<MaybeUninit<Emulated>>,
    /// Initialised by the native engine in chains that the kernel holds together.
    #[cfg(target_os = "linux")]
    chained: ManuallyDrop<MaybeUninit<Chained>>,
}

// Three lines and not four: at a power of two the slots of a batch would crowd into a part of the cache.
const _: () = assert!(size_of::<Slot>() == 192);
const _: () = assert!(offset_of!(Slot, opened) == 64, "the hot part of a slot is one cache line");

/// What changes while an operation is in flight: one word, so that it is written at once.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Status {
    result: i32,
    /// The link, and what is known about the operation's way: the constants below.
    flags: u16,
    /// Entries published on the slot's behalf (itself, a timeout, a cancel) whose completion is still to come.
    refs: u8,
    state: State,
}

#[cfg(target_os = "linux")]
impl Status {
    /// Of an operation that stands alone, with a ring.
    const IN_RING: Status = Status { result: 0, flags: 0, refs: 1, state: State::Ring };

    /// All of it as a number, to be compared at once.
    #[inline]
    const fn word(self) -> u64 {
        // SAFETY: 8 bytes of plain data without padding.
        unsafe { std::mem::transmute(self) }
    }
}

/// What the emulation keeps of an operation.
pub(crate) struct Emulated {
    /// Neighbours in the list of a descriptor's waiters.
    pub(crate) list: Cell<[*mut Slot; 2]>,
    /// What has been transferred so far.
    pub(crate) progress: Cell<u32>,
    /// When the limit expires, in monotonic nanoseconds; 0 if there is none.
    pub(crate) deadline: Cell<u64>,
}

/// What the native engine keeps of a chain that the kernel holds together. All but `head` counts in the chain's head
/// only.
#[cfg(target_os = "linux")]
pub(crate) struct Chained {
    pub(crate) head: *mut Slot,
    /// Entries of the whole chain.
    pub(crate) entries: Cell<u32>,
    /// Slots whose result is still to come.
    pub(crate) unanswered: Cell<u32>,
    /// Slots that have a result and are not finished: it may be that the kernel never started them.
    pub(crate) held: Cell<u32>,
    /// The slot from which on the chain is to be tried again.
    pub(crate) again: Cell<*mut Slot>,
    /// How many cancels by descriptor there had been when the chain was submitted.
    pub(crate) cancels: Cell<u32>,
}

/// Where an operation is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// Not started: waits for its turn in the chain.
    Idle,
    /// With the kernel's ring.
    #[cfg(target_os = "linux")]
    Ring,
    /// Waits for a descriptor to become ready.
    Parked,
    /// Waits for time to pass.
    Sleeping,
    /// Waits for a moment, to be attempted again.
    Retry,
    /// In the queue of the workers, or being performed by one.
    Worker,
    /// Pauses until some of its results are taken.
    Held,
    /// Has its result, and the kernel still has its buffer, or other entries of it.
    #[cfg(target_os = "linux")]
    Lingering,
    /// Has its result.
    Done,
}

const SOFT: u16 = 1;
const HARD: u16 = 1 << 1;
/// There is a time limit of its own.
const HAS_LIMIT: u16 = 1 << 2;
/// It has expired.
const EXPIRED: u16 = 1 << 3;
/// `timer` is armed.
const HAS_TIMER: u16 = 1 << 4;
/// The result breaks the soft link to the next operation.
const BROKEN: u16 = 1 << 5;
/// Somebody asked for the operation's end. This and the next ones are the native engine's.
#[cfg(target_os = "linux")]
const CANCELLED: u16 = 1 << 6;
/// The driver starts the chain's operations one after the other.
#[cfg(target_os = "linux")]
const STEPPED: u16 = 1 << 7;
/// The kernel does.
#[cfg(target_os = "linux")]
const CHAINED: u16 = 1 << 8;
/// The calling thread has nothing else to do.
const BLOCKING: u16 = 1 << 9;
/// Counts second tries.
#[cfg(target_os = "linux")]
const TRY: u16 = 1 << 10;
#[cfg(target_os = "linux")]
const TRIES: u16 = 3 << 10;
/// A multishot operation of which each result needs an entry of its own.
#[cfg(target_os = "linux")]
const ONE_BY_ONE: u16 = 1 << 15;
/// An entry may have more than one completion.
#[cfg(target_os = "linux")]
const CAREFUL: u16 = 1 << 14;
/// A multishot operation that is to pause; and one that is over, but for entries in flight.
#[cfg(target_os = "linux")]
const PAUSING: u16 = 1 << 12;
#[cfg(target_os = "linux")]
const ENDING: u16 = 1 << 13;

impl Slot {
    /// Initialises a slot in place, for an operation that stands alone and has no limit. What it does not use stays as
    /// it is.
    ///
    /// # Safety
    /// `slot` is memory for a slot that nobody uses.
    #[inline]
    pub(crate) unsafe fn init(slot: *mut Slot, op: RawOp, link: Link, waiter: *const Waiter) {
        let flags = match link {
            Link::None => 0,
            Link::Soft => SOFT,
            Link::Hard => HARD,
        };
        let status = Status { result: 0, flags, refs: 0, state: State::Idle };
        // SAFETY: promised by the caller. The fields left out are `MaybeUninit`.
        unsafe {
            op.store(&raw mut (*slot).op);
            (&raw mut (*slot).waiter).write(waiter);
            (&raw mut (*slot).status).write(Cell::new(status));
        }
    }

    /// Initialises a slot for an operation whose entry is being given to the ring, and that stands alone.
    ///
    /// # Safety
    /// As [`init`](Self::init).
    #[inline]
    #[cfg(target_os = "linux")]
    pub(crate) unsafe fn init_in_ring(slot: *mut Slot, op: RawOp, waiter: *const Waiter) {
        // SAFETY: promised by the caller. The fields left out are `MaybeUninit`.
        unsafe {
            op.store(&raw mut (*slot).op);
            (&raw mut (*slot).waiter).write(waiter);
            (&raw mut (*slot).status).write(Cell::new(Status::IN_RING));
        }
    }

    /// Initialises what an operation of a chain, or one with a limit, has besides.
    ///
    /// # Safety
    /// `slot` was initialised, and is not published.
    pub(crate) unsafe fn init_chained(slot: *mut Slot, limit: Option<Duration>) {
        // SAFETY: promised by the caller.
        unsafe {
            (&raw mut (*slot).opened).write(MaybeUninit::new(Cell::new(NOT_OPENED)));
            if let Some(limit) = limit {
                (&raw mut (*slot).limit).write(MaybeUninit::new(Timespec::from_duration(limit)));
                (*slot).set(HAS_LIMIT, true);
            }
        }
    }

    /// The next operation of the chain. Only for one that is linked to it.
    #[inline]
    pub(crate) fn next(&self) -> *mut Slot {
        debug_assert!(self.link() != Link::None);
        // SAFETY: set when the next operation was lowered, before the chain was submitted.
        unsafe { self.next.assume_init() }
    }

    pub(crate) fn set_next(&mut self, next: *mut Slot) {
        self.next.write(next);
    }

    /// Initialises what the emulation keeps.
    ///
    /// # Safety
    /// `slot` is initialised, and nobody else uses it.
    pub(crate) unsafe fn init_emulated(slot: *mut Slot) {
        let fresh = Emulated { list: Cell::new([ptr::null_mut(); 2]), progress: Cell::new(0), deadline: Cell::new(0) };
        // SAFETY: promised by the caller.
        unsafe { (&raw mut (*slot).engine.emulated).write(ManuallyDrop::new(MaybeUninit::new(fresh))) };
    }

    /// What the chain's `Open` yielded. Only for a slot of a chain.
    pub(crate) fn opened(&self) -> &Cell<i32> {
        // SAFETY: `init_chained` writes it. It is asked for only in chains, and of operations that name the opened one,
        // which `Lower` admits in the chain that opens it only.
        unsafe { self.opened.assume_init_ref() }
    }

    /// What the emulation keeps. Only for a slot that was submitted to it.
    #[inline]
    pub(crate) fn emulated(&self) -> &Emulated {
        // SAFETY: the emulation initialises it when the slot is submitted, and is the only one to call this.
        unsafe { self.engine.emulated.assume_init_ref() }
    }

    #[inline]
    pub(crate) fn limit(&self) -> Option<&Timespec> {
        // SAFETY: initialised whenever the flag is set, which only `init_chained` does.
        self.flag(HAS_LIMIT).then(|| unsafe { self.limit.assume_init_ref() })
    }

    /// Who waits for the operation.
    #[inline]
    #[cfg(target_os = "linux")]
    pub(crate) fn waiter(&self) -> *const Waiter {
        self.waiter
    }

    #[inline]
    pub(crate) fn result(&self) -> i32 {
        self.status.get().result
    }

    #[inline]
    pub(crate) fn set_result(&self, result: i32) {
        self.status.set(Status { result, ..self.status.get() });
    }

    /// How the operation is tied to the next one.
    #[inline]
    pub(crate) fn link(&self) -> Link {
        match self.status.get().flags & (SOFT | HARD) {
            SOFT => Link::Soft,
            HARD => Link::Hard,
            _ => Link::None,
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.status.get().state
    }

    #[inline]
    pub(crate) fn set_state(&self, state: State) {
        self.status.set(Status { state, ..self.status.get() });
    }

    /// Counts an entry that was published on the slot's behalf.
    #[inline]
    #[cfg(target_os = "linux")]
    pub(crate) fn add_entry(&self, state: State) {
        let status = self.status.get();
        self.status.set(Status { refs: status.refs + 1, state, ..status });
    }

    /// An entry of the slot has completed; tells whether it was the last.
    #[inline]
    #[cfg(target_os = "linux")]
    pub(crate) fn remove_entry(&self) -> bool {
        let status = self.status.get();
        self.status.set(Status { refs: status.refs - 1, ..status });
        status.refs == 1
    }

    /// Whether another cancel makes sense: many of them would not help, and their count is limited.
    #[cfg(target_os = "linux")]
    pub(crate) fn may_cancel(&self) -> bool {
        self.status.get().refs < 16
    }

    /// Whether entries of the slot are in flight.
    pub(crate) fn has_entries(&self) -> bool {
        self.status.get().refs > 0
    }

    /// Takes the result of an operation that ends with it: a success, no other entry, no limit, no chain. Tells whether
    /// it is one.
    #[inline]
    #[cfg(target_os = "linux")]
    pub(crate) fn take_plain_result(&self, result: i32) -> bool {
        let plain = result >= 0 && self.status.get().word() == Status::IN_RING.word();
        if plain {
            self.status.set(Status { result, refs: 0, state: State::Done, ..Status::IN_RING });
        }
        plain
    }

    /// Whether a finished operation stands alone and has succeeded, with nothing else to be known about it.
    #[inline]
    pub(crate) fn has_plainly_succeeded(&self) -> bool {
        let status = self.status.get();
        status.result >= 0 && status.flags == 0
    }

    #[inline]
    fn flag(&self, flag: u16) -> bool {
        self.status.get().flags & flag != 0
    }

    fn set(&self, flag: u16, on: bool) {
        let status = self.status.get();
        let flags = if on { status.flags | flag } else { status.flags & !flag };
        self.status.set(Status { flags, ..status });
    }

    /// Whether the operation's own time limit has expired.
    pub(crate) fn has_expired(&self) -> bool {
        self.flag(EXPIRED)
    }

    pub(crate) fn set_expired(&self) {
        self.set(EXPIRED, true);
    }

    /// Whether the result breaks the soft link to the next operation.
    pub(crate) fn is_broken(&self) -> bool {
        self.flag(BROKEN)
    }

    pub(crate) fn set_broken(&self) {
        self.set(BROKEN, true);
    }

    /// Finds out whether the result breaks the soft link to the next operation, while the operation's pointers are
    /// valid.
    ///
    /// # Safety
    /// The slot has its result and is not finished.
    pub(crate) unsafe fn check_link(&self) {
        let result = self.result();
        // SAFETY: promised by the caller.
        if self.link() == Link::Soft && (result < 0 || unsafe { self.op.falls_short(result as u32) }) {
            self.set_broken();
        }
    }

    /// Whether somebody asked for the operation's end: a cancel, or its own limit.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.flag(CANCELLED | EXPIRED)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn set_cancelled(&self) {
        self.set(CANCELLED, true);
    }

    /// Takes note that an entry of the slot may have more than one completion.
    #[cfg(target_os = "linux")]
    pub(crate) fn set_careful(&self) {
        self.set(CAREFUL, true);
    }

    /// Whether each result of a multishot operation needs an entry of its own.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_one_by_one(&self) -> bool {
        self.flag(ONE_BY_ONE)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn set_one_by_one(&self) {
        self.set(ONE_BY_ONE, true);
    }

    /// Whether a multishot operation is to pause.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_pausing(&self) -> bool {
        self.flag(PAUSING)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn set_pausing(&self, on: bool) {
        self.set(PAUSING, on);
    }

    /// Whether a multishot operation is over, but for entries in flight.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_ending(&self) -> bool {
        self.flag(ENDING)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn set_ending(&self, result: i32) {
        self.set(ENDING, true);
        self.set_result(result);
    }

    /// When a periodic timer was last due. Only for one that `set_due` was called for.
    pub(crate) fn due(&self) -> u64 {
        // SAFETY: `set_due` is called when the timer starts.
        unsafe { self.limit.assume_init_ref() }.nanos()
    }

    pub(crate) fn set_due(&mut self, at: u64) {
        self.limit.write(Timespec::from_nanos(at));
    }

    /// Counts a second try of the operation; tells whether it was not one too many.
    #[cfg(target_os = "linux")]
    pub(crate) fn count_try(&self) -> bool {
        let status = self.status.get();
        let more = status.flags & TRIES != TRIES;
        if more {
            self.status.set(Status { flags: status.flags + TRY, ..status });
        }
        more
    }

    /// Whether the kernel holds the slot's chain together.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_chained(&self) -> bool {
        self.flag(CHAINED)
    }

    /// Makes the slot part of a chain that the kernel holds together.
    #[cfg(target_os = "linux")]
    pub(crate) fn set_chained(&mut self, head: *mut Slot) {
        let chained = Chained {
            head,
            entries: Cell::new(0),
            unanswered: Cell::new(0),
            held: Cell::new(0),
            again: Cell::new(ptr::null_mut()),
            cancels: Cell::new(0),
        };
        self.engine.chained = ManuallyDrop::new(MaybeUninit::new(chained));
        self.set(CHAINED, true);
    }

    /// The chain of a chained slot.
    #[cfg(target_os = "linux")]
    pub(crate) fn chained(&self) -> &Chained {
        debug_assert!(self.is_chained());
        // SAFETY: written by `set_chained`, which set the flag.
        unsafe { self.engine.chained.assume_init_ref() }
    }

    /// Makes a chained slot part of a chain that the driver steps through, as if it had never been started.
    #[cfg(target_os = "linux")]
    pub(crate) fn unchain(&self) {
        self.set(CHAINED | BROKEN, false);
        self.set(STEPPED, true);
        self.set_state(State::Idle);
    }

    /// Whether the driver itself starts the chain's operations one after the other, instead of the kernel.
    #[cfg(target_os = "linux")]
    #[inline]
    pub(crate) fn is_stepped(&self) -> bool {
        self.flag(STEPPED)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn set_stepped(&self) {
        self.set(STEPPED, true);
    }

    /// Whether `timer` is armed.
    #[inline]
    pub(crate) fn has_timer(&self) -> bool {
        self.flag(HAS_TIMER)
    }

    pub(crate) fn set_timer(&self, armed: bool) {
        self.set(HAS_TIMER, armed);
    }

    /// Whether the thread has nothing else to do, so that the operation may block it.
    pub(crate) fn may_block(&self) -> bool {
        self.flag(BLOCKING)
    }

    pub(crate) fn set_may_block(&self) {
        self.set(BLOCKING, true);
    }
}

/// Ends a slot: its result is final, and no engine refers to it any more.
///
/// # Safety
/// `slot` is a published slot whose waiter is still waiting; the caller does not touch it afterwards.
#[inline]
pub(crate) unsafe fn finish(slot: *mut Slot) {
    // SAFETY: promised by the caller.
    unsafe {
        (*slot).set_state(State::Done);
        match (*(*slot).waiter).sink() {
            Some(sink) => sink.push(slot),
            None => tell((*slot).waiter, 1),
        }
    }
}

/// The timer of a slot, as a pointer from which [`slot_of`] may go back.
pub(crate) fn timer_of(slot: *mut Slot) -> *mut Timer {
    slot.wrapping_byte_add(offset_of!(Slot, timer)).cast()
}

/// The slot that a timer is part of.
pub(crate) fn slot_of(timer: *mut Timer) -> *mut Slot {
    timer.wrapping_byte_sub(offset_of!(Slot, timer)).cast()
}
