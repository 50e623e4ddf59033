//! Between typed operations and engines: what lowering needs to know, and what raising is told.

use crate::{
    Closing, Errno, Error, Result,
    complete::cancel_and_drain,
    driver::{
        files::FileTable,
        perform,
        slot::{Link, Slot, finish},
        waiter::Waiter,
    },
    engine::Engine,
    op::{RawOp, Target},
};
use std::{cell::Cell, mem, ptr, rc::Rc, time::Duration};

/// Takes the operations of a batch in order, and submits each chain when it is complete.
///
/// Chains are short as a rule, so an operation goes from its struct through its slot into the queue while all of that
/// is still in the cache.
pub struct Lower<'e> {
    engine: &'e Engine,
    waiter: *const Waiter,
    /// How many slots the batch has.
    expected: u32,
    /// The calling thread does nothing but wait for this batch's only operation.
    alone: bool,
    /// First and last slot of the chain that is not complete; the list runs through its slots.
    chain_head: *mut Slot,
    chain_last: *mut Slot,
    /// How many slots were pushed, and how many of them belong to the chain that is not complete; the others are
    /// submitted.
    pushed: u32,
    open: u32,
    /// The time limit that the operation being lowered is under.
    limit: Option<Duration>,
    /// The task that runs the batch was cancelled, or its time is up: nothing is started, and this is why.
    refused: Option<Error>,
    /// Chains of this batch are numbered from here on, if somebody asked for a number.
    first_chain: Cell<u64>,
    /// The `Open` of this chain whose descriptor still wants a `Close`.
    opened: *mut Slot,
    /// The `Closing` that this chain opens into. There can be one only, for the operations name it as "the opened one".
    opens_for: *const Closing,
    /// The number, counted from 1, of the last operation that names a `FixedFile`.
    names_fixed: u32,
}

const NOT_FIXED: Error =
    Error::Unsupported(&"the kernel does not do this operation on a FixedFile; get a descriptor for it with Install");

thread_local! {
    static CHAINS: Cell<u64> = const { Cell::new(1) };
}

/// The first of a block of chain numbers. Lowering may run user code that lowers a batch of its own, so each takes a
/// block.
#[inline]
fn block_of_chains(most: u32) -> u64 {
    CHAINS.replace(CHAINS.get() + u64::from(most) + 1)
}

impl<'e> Lower<'e> {
    /// # Safety
    /// `waiter` waits for `expected` slots. It, and the slots that are pushed with all that their operations point to,
    /// stay in place until the waiter has no pending slot left, or `abandon` has returned.
    #[inline]
    pub(crate) unsafe fn new(engine: &'e Engine, waiter: *const Waiter, expected: u32, alone: bool) -> Lower<'e> {
        Lower {
            engine,
            waiter,
            expected,
            alone,
            chain_head: ptr::null_mut(),
            chain_last: ptr::null_mut(),
            pushed: 0,
            open: 0,
            limit: None,
            refused: None,
            first_chain: Cell::new(0),
            opened: ptr::null_mut(),
            opens_for: ptr::null(),
            names_fixed: 0,
        }
    }

    /// From here on every operation ends at once, as if it had been cancelled (or had timed out).
    pub(crate) fn refuse(&mut self, why: Error) {
        self.refused = Some(why);
    }

    /// The number of the engine.
    pub(crate) fn engine(&self) -> u64 {
        self.engine.serial()
    }

    /// The operation being lowered names a `FixedFile`.
    #[inline]
    pub(crate) fn note_fixed(&mut self) {
        self.names_fixed = self.pushed + 1;
    }

    /// The table of files of the queue that the operation goes to.
    pub(crate) fn files(&self) -> Result<&Rc<FileTable>> {
        self.engine.files(None)
    }

    /// Whether writing to a socket whose peer is gone would raise `SIGPIPE`.
    pub(crate) fn sigpipe_is_live(&self) -> bool {
        self.engine.sigpipe_is_live()
    }

    /// Whether the engine can do an operation at all.
    pub(crate) fn supports(&self, op: &RawOp) -> bool {
        self.engine.supports(op)
    }

    /// Puts the operation being lowered under a time limit; the shortest counts.
    pub(crate) fn limit(&mut self, limit: Duration) {
        self.limit = Some(self.limit.map_or(limit, |other| other.min(limit)));
    }

    /// The number of the chain that the operation being lowered belongs to, unique on this thread.
    pub(crate) fn chain(&self) -> u64 {
        if self.first_chain.get() == 0 {
            self.first_chain.set(block_of_chains(self.expected));
        }
        self.first_chain.get() + u64::from(self.pushed - self.open)
    }

    /// Called after user code. If that has forked, this may be the child, whose part of the batch is the parent's:
    /// there is nothing to go on with, and no way back through a batch that is half submitted.
    #[inline]
    pub(crate) fn check_alive(&self) {
        if !self.engine.is_alive() {
            forked();
        }
    }

    /// Notes that the chain being lowered opens into `closing`.
    pub(crate) fn open_for(&mut self, closing: &Closing) -> Result<()> {
        if !self.opens_for.is_null() {
            return Err(Error::Invalid(&"a chain can open one Closing only; use one chain for each"));
        }
        self.opens_for = closing;
        Ok(())
    }

    /// Whether the chain being lowered opens into `closing`.
    pub(crate) fn opens_for(&self, closing: &Closing) -> bool {
        ptr::eq(self.opens_for, closing)
    }

    /// Takes a lowered operation. `slot` must stay where it is until the operation is finished.
    #[inline]
    pub(crate) fn push(&mut self, slot: *mut Slot, op: RawOp, link: Link) {
        self.pushed += 1;
        let alone = link == Link::None && self.chain_head.is_null() && self.limit.is_none() && self.refused.is_none();
        if alone && op.is_basic() {
            // SAFETY: the caller hands out memory for one slot, which nobody else uses; the rest was promised to `new`.
            unsafe { self.engine.submit_basic(slot, op, self.waiter, self.alone) };
        } else {
            self.push_to_chain(slot, op, link);
        }
    }

    fn push_to_chain(&mut self, slot: *mut Slot, mut op: RawOp, link: Link) {
        self.open += 1;
        // On every engine alike, although an emulation could do it. The basic operations, which do not come here, take
        // any file.
        if self.names_fixed == self.pushed && !op.takes_fixed() {
            op = RawOp::Invalid(NOT_FIXED);
        }
        // SAFETY: the caller hands out memory for one slot, which nobody else uses.
        unsafe {
            Slot::init(slot, op, link, self.waiter);
            Slot::init_chained(slot, self.limit.take());
        }
        if self.chain_head.is_null() {
            self.chain_head = slot;
        } else {
            // SAFETY: `chain_last` was given to an earlier call, stays in place, and is not submitted yet.
            unsafe { (*self.chain_last).set_next(slot) };
        }
        self.chain_last = slot;
        match op {
            RawOp::Open { target: Target::Chain, .. } => self.opened = slot,
            RawOp::Close { fd } if fd.is_opened() => self.opened = ptr::null_mut(),
            _ => {}
        }
        if link == Link::None {
            if !self.opened.is_null() {
                self.refuse_opened();
            }
            let head = mem::replace(&mut self.chain_head, ptr::null_mut());
            self.open = 0;
            self.opens_for = ptr::null();
            // SAFETY: a whole chain; the rest was promised to `new`.
            unsafe {
                match self.refused {
                    None => self.engine.submit(head, self.alone),
                    Some(why) => refuse_chain(head, why),
                }
            }
        }
    }

    /// A chain has ended that opens a file for itself and does not close it.
    #[cold]
    fn refuse_opened(&mut self) {
        const WHY: Error =
            Error::Invalid(&"a file opened into a Closing must be closed by a later operation of the same chain");
        // SAFETY: the slot belongs to this list and is not published yet.
        unsafe { (*self.opened).op = RawOp::Invalid(WHY) };
        self.opened = ptr::null_mut();
    }

    /// After a panic: takes what will not come any more off the waiter's count, ends what was submitted, and closes the
    /// descriptors that nobody will ask for now. `slots` are those of the batch, in order.
    #[cold]
    pub(crate) fn abandon(&mut self, slots: &[*mut Slot]) {
        // What panicked may have forked before.
        self.check_alive();
        let (pushed, complete) = (self.pushed as usize, (self.pushed - self.open) as usize);
        let mut raise = Raise::new(self.engine);
        // SAFETY: promised to `new`; these were submitted, and none is in flight after the drain.
        unsafe {
            (*self.waiter).forget(self.expected - complete as u32);
            cancel_and_drain(self.engine, &slots[..complete], &[self.waiter]);
            for &slot in &slots[..complete] {
                let slot = &*slot;
                let result = raise.outcome(slot, slot.link()).result();
                match slot.op {
                    RawOp::Close { fd } if fd.is_opened() => {
                        self.engine.release_opened(slot.opened().get(), result != Err(Error::Skipped));
                    }
                    RawOp::Close { fd } if result == Err(Error::Skipped) => close(fd.number()),
                    RawOp::Open { target: Target::Table, .. }
                    | RawOp::Socket { target: Target::Table, .. }
                    | RawOp::Accept { target: Target::Table, .. }
                    | RawOp::Install { .. } => {
                        if let Ok(number) = result {
                            close(number as i32);
                        }
                    }
                    RawOp::Pipe { fds, .. } if result.is_ok() => {
                        close(*fds);
                        close(*fds.add(1));
                    }
                    _ => {}
                }
            }
            for &slot in &slots[complete..pushed] {
                if let RawOp::Close { fd } = (*slot).op
                    && !fd.is_opened()
                {
                    close(fd.number());
                }
            }
        }
    }
}

/// Ends a chain without starting it.
///
/// # Safety
/// As [`Engine::submit`].
#[cold]
unsafe fn refuse_chain(head: *mut Slot, why: Error) {
    let (mut next, mut broken) = (head, false);
    while !next.is_null() {
        // SAFETY: promised by the caller; a slot is not touched after `finish`.
        unsafe {
            let slot = &*next;
            let result = match slot.op {
                // A descriptor that was given away to be closed would be lost otherwise.
                RawOp::Close { fd } if !broken && fd.is_opened() => -libc::EBADF,
                RawOp::Close { .. } if !broken => perform::now(&slot.op),
                _ => -libc::ECANCELED,
            };
            if why == Error::TimedOut {
                slot.set_expired();
            }
            slot.set_result(result);
            broken = match slot.link() {
                Link::None => false,
                Link::Soft => result < 0,
                Link::Hard => broken,
            };
            let after = if slot.link() == Link::None { ptr::null_mut() } else { slot.next() };
            finish(mem::replace(&mut next, after));
        }
    }
}

#[cold]
fn forked() -> ! {
    crate::complete::complain(format_args!(
        "an AsFd forked the process in the middle of a batch; the child cannot go on, aborting it"
    ));
    std::process::abort();
}

/// # Safety
/// The descriptor belongs to an operation whose result nobody will see.
unsafe fn close(number: i32) {
    // SAFETY: promised by the caller.
    unsafe { libc::close(number) };
}

/// What an engine answered to one operation.
pub struct Outcome<'e> {
    result: Result<u32>,
    slot: &'e Slot,
    engine: &'e Engine,
}

impl<'e> Outcome<'e> {
    /// Of an operation that has [simply succeeded](Slot::has_plainly_succeeded).
    #[inline]
    pub(crate) fn of_success(slot: &'e Slot, engine: &'e Engine) -> Outcome<'e> {
        debug_assert!(slot.has_plainly_succeeded());
        Outcome { result: Ok(slot.result() as u32), slot, engine }
    }
}

impl Outcome<'_> {
    /// The kernel's number: a count, a descriptor, a mask.
    #[inline]
    pub(crate) fn result(&self) -> Result<u32> {
        self.result
    }

    /// A success without a value.
    #[inline]
    pub(crate) fn unit(&self) -> Result<()> {
        self.result.map(drop)
    }

    /// For the `Close` of what its own chain has opened: gives that back to the engine, which closes it unless this
    /// did.
    pub(crate) fn release_opened(&self, closed: bool) {
        self.engine.release_opened(self.slot.opened().get(), closed);
    }
}

/// Walks through the finished slots of a batch in order and decides what each result means.
pub(crate) struct Raise<'e> {
    engine: &'e Engine,
    /// The previous operation was softly linked to the next one, and broke the chain.
    broken: bool,
    /// How many gave an error.
    pub(crate) errors: usize,
}

impl<'e> Raise<'e> {
    pub(crate) fn new(engine: &'e Engine) -> Raise<'e> {
        Raise { engine, broken: false, errors: 0 }
    }

    /// In the middle of a chain, behind a link that may be broken.
    #[inline]
    pub(crate) fn after(engine: &'e Engine, broken: bool) -> Raise<'e> {
        Raise { engine, broken, errors: 0 }
    }

    /// Whether the last operation broke its link.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The one place where `ECANCELED` is told apart: it means skipped after a broken soft link, timed out when the
    /// operation's own limit had expired, and cancelled otherwise. `link` is the slot's.
    #[inline]
    pub(crate) fn outcome<'s>(&mut self, slot: &'s Slot, link: Link) -> Outcome<'s>
    where
        'e: 's,
    {
        let number = slot.result();
        let result = if number >= 0 { Ok(number as u32) } else { Err(self.failure(slot, -number)) };
        self.broken = match link {
            Link::None => false,
            // Consulted only if the next one says `ECANCELED`.
            Link::Soft => result.is_err() || slot.is_broken() || slot.op.may_break_in_silence(),
            Link::Hard => matches!(result, Err(Error::Skipped)),
        };
        self.errors += usize::from(result.is_err());
        Outcome { result, slot, engine: self.engine }
    }

    #[cold]
    fn failure(&self, slot: &Slot, errno: i32) -> Error {
        match (errno, slot.op) {
            (libc::ECANCELED, _) if self.broken => Error::Skipped,
            (_, RawOp::Invalid(error)) if errno != libc::ECANCELED => error,
            (libc::ECANCELED | libc::EINTR, _) if slot.has_expired() => Error::TimedOut,
            (libc::ECANCELED, _) => Error::Canceled,
            _ => Error::Os(Errno::new(errno)),
        }
    }
}
