//! Batches from iterators of any length, of which a bounded number of operations is in flight at a time.
#![allow(unsafe_code)]

use super::{Batch, Done, Entry, Last, Raising, located};
use crate::{
    BatchError, SetupError,
    complete::{AbortOnUnwind, Host, cancel_and_drain},
    coro::Runtime,
    driver::{
        slot::Slot,
        waiter::{Waiter, Woken},
    },
    engine::Engine,
    lower::{Lower, Raise},
    sealed::Sealed,
};
use std::{
    any::type_name,
    fmt,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
};

/// A batch of what an iterator yields, at most `width` of them in flight at a time. Each is an operation, or a tuple;
/// the operations of a tuple stay together.
///
/// By itself it gives the results in the order of the iterator, as a `Vec`. With [`for_each`](Windowed::for_each) each
/// result is handed on as soon as it is there, so that its buffer can be used again. The iterator is asked for more
/// when there is room, between waits; it may use the library itself. If it panics, what is in flight is cancelled and
/// waited for, and the panic goes on.
///
/// An iterator that yields nothing is no error: there are no results.
///
/// ```
/// use aio::op::Read;
///
/// // A file's length in chunks, eight reads at a time, without knowing how many it takes.
/// let file = std::fs::File::open("Cargo.toml")?;
/// let chunks = file.metadata()?.len().div_ceil(64);
/// let reads = (0..chunks).map(|i| Read::new(&file, vec![0u8; 64]).at(i * 64));
/// let mut text = Vec::new();
/// for chunk in aio::multi(aio::windowed(reads, 8))? {
///     let (len, bytes) = chunk;
///     text.extend_from_slice(&bytes[..len]);
/// }
/// assert_eq!(text, std::fs::read("Cargo.toml")?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
///
/// If `width` is 0.
pub fn windowed<I>(iterator: I, width: usize) -> Windowed<I::IntoIter>
where
    I: IntoIterator<Item: Last>,
{
    assert!(width > 0, "a window of width 0 would never start anything");
    Windowed { iterator: iterator.into_iter(), width }
}

/// A windowed batch; made by [`windowed`].
#[derive(Clone)]
pub struct Windowed<I> {
    iterator: I,
    width: usize,
}

impl<I: Iterator<Item: Last>> Windowed<I> {
    /// Hands each result to `f` as soon as it is there, with its position in the iterator. The batch's own results are
    /// the number of units that ran.
    ///
    /// ```
    /// use aio::op::Timeout;
    /// use std::time::Duration;
    ///
    /// let sleeps = [3, 1, 2].map(|ms| Timeout::after(Duration::from_millis(10 * ms)));
    /// let mut order = Vec::new();
    /// let done = aio::complete(aio::windowed(sleeps, 3).for_each(|i, _| order.push(i)))?;
    /// assert_eq!((order, done.results), (vec![1, 2, 0], 3));
    /// # Ok::<(), aio::SetupError>(())
    /// ```
    pub fn for_each<F>(self, f: F) -> ForEach<I, F>
    where
        F: FnMut(usize, <I::Item as Entry>::Results),
    {
        ForEach { window: self, f }
    }
}

/// A windowed batch that hands its results on; made by [`Windowed::for_each`].
#[derive(Clone)]
pub struct ForEach<I, F> {
    window: Windowed<I>,
    f: F,
}

impl<I> fmt::Debug for Windowed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windowed").field("width", &self.width).finish_non_exhaustive()
    }
}

impl<I, F> fmt::Debug for ForEach<I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForEach").field("width", &self.window.width).finish_non_exhaustive()
    }
}

impl<I> Sealed for Windowed<I> {}
impl<I, F> Sealed for ForEach<I, F> {}

impl<I: Iterator<Item: Last>> Batch for Windowed<I> {
    type Results = Vec<<I::Item as Entry>::Results>;
    type Values = Vec<<I::Item as Entry>::Values>;

    fn run(self, engine: &Engine, _host: impl Host) -> Result<Done<Self::Results>, SetupError> {
        let mut results = Vec::new();
        let (_, errors) = run(self, engine, |at, result| {
            if results.len() <= at {
                results.resize_with(at + 1, || None);
            }
            results[at] = Some(result);
        })?;
        Ok(Done { results: results.into_iter().flatten().collect(), errors })
    }

    fn into_values(results: Self::Results) -> Result<Self::Values, BatchError> {
        let mut index = 0;
        results.into_iter().map(|result| <I::Item as Entry>::values(result, &mut index)).collect()
    }
}

impl<I, F> Batch for ForEach<I, F>
where
    I: Iterator<Item: Last>,
    F: FnMut(usize, <I::Item as Entry>::Results),
{
    type Results = usize;
    type Values = usize;

    fn run(self, engine: &Engine, _host: impl Host) -> Result<Done<usize>, SetupError> {
        let (results, errors) = run(self.window, engine, self.f)?;
        Ok(Done { results, errors })
    }

    fn into_values(results: usize) -> Result<usize, BatchError> {
        Ok(results)
    }
}

/// One unit in flight, or room for one. It lives on the heap, where it neither moves nor unwinds.
struct Place<L: Last> {
    entry: Option<L>,
    slots: MaybeUninit<L::Slots>,
    waiter: Waiter,
    index: usize,
}

/// The window while it runs.
struct Window<'e, L: Last> {
    engine: &'e Engine,
    /// Raw, because the engine and the kernel point into the places meanwhile.
    places: *mut Place<L>,
    width: usize,
    free: Vec<usize>,
    woken: Box<Woken>,
    errors: usize,
}

fn run<I, F>(window: Windowed<I>, engine: &Engine, f: F) -> Result<(usize, usize), SetupError>
where
    I: Iterator<Item: Last>,
    F: FnMut(usize, <I::Item as Entry>::Results),
{
    engine.check_chain(<I::Item as Entry>::CHAINS.longest())?;
    let width = match window.iterator.size_hint() {
        (_, Some(most)) => window.width.min(most.max(1)),
        _ => window.width,
    };
    let places: Box<[Place<I::Item>]> = (0..width).map(|_| Place::empty()).collect();
    let places = Box::into_raw(places);
    let mut state = Window {
        engine,
        places: places.cast(),
        width,
        free: (0..width).rev().collect(),
        woken: Box::new(Woken::new()),
        errors: 0,
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| state.pump(window.iterator, f)));
    if !engine.is_alive() {
        // A fork inside the iterator: this is the child, and what is in flight belongs to the parent. The places are
        // leaked, with the list that leads to them.
        std::mem::forget(state.woken);
        return Err(SetupError::Forked);
    }
    if outcome.is_err() {
        state.cancel_all();
    }
    // SAFETY: made by `Box::into_raw` above; nothing is in flight any more, so nobody points into the places.
    drop(unsafe { Box::from_raw(places) });
    match outcome {
        Ok(result) => result.map(|count| (count, state.errors)),
        Err(panic) => resume_unwind(panic),
    }
}

impl<L: Last> Place<L> {
    fn empty() -> Place<L> {
        let (slots, waiter) = (MaybeUninit::uninit(), Waiter::listed(0, ptr::null()));
        Place { entry: None, slots, waiter, index: 0 }
    }
}

impl<L: Last> Window<'_, L> {
    /// Keeps the window full until the iterator has ended; gives how many units there were.
    fn pump<I, F>(&mut self, iterator: I, mut f: F) -> Result<usize, SetupError>
    where
        I: Iterator<Item = L>,
        F: FnMut(usize, L::Results),
    {
        let mut iterator = iterator.fuse();
        let (mut count, mut interrupted) = (0, false);
        loop {
            while let Some(&at) = self.free.last() {
                if interrupted {
                    break;
                }
                // If it is, one more is started and refused, so that the results tell.
                interrupted = self.engine.scheduler().is_some_and(|runtime| runtime.interruption().is_some());
                let entry = iterator.next();
                if !self.engine.is_alive() {
                    return Err(SetupError::Forked);
                }
                let Some(entry) = entry else { break };
                self.start(at, count, entry);
                count += 1;
            }
            if self.free.len() == self.width {
                return Ok(count);
            }
            self.wait();
            while let Some(waiter) = self.woken.pop() {
                let (index, results) = self.finish(waiter);
                f(index, results);
                if !self.engine.is_alive() {
                    return Err(SetupError::Forked);
                }
            }
        }
    }

    fn start(&mut self, at: usize, index: usize, entry: L) {
        let place = self.places.wrapping_add(at);
        // SAFETY: the place is free, so nobody else points to it. It is on the heap and stays until its waiter has been
        // told, for every way out of `run` waits for that; `woken` is boxed and outlives it as well.
        unsafe {
            (*place).index = index;
            (*place).waiter = Waiter::listed(L::LEN, &raw const *self.woken);
            let entry = (*place).entry.insert(entry);
            let mut cx = Lower::new(self.engine, &raw const (*place).waiter, L::LEN, false);
            if let Some(why) = self.engine.scheduler().and_then(Runtime::refused) {
                cx.refuse(why);
            }
            // Lowering calls user code (`AsFd`), which may panic.
            let lowered = catch_unwind(AssertUnwindSafe(|| entry.lower_into(&mut (*place).slots, &mut cx)));
            if let Err(panic) = lowered {
                cx.abandon(&located::<L>(&raw mut (*place).slots, 1));
                // The place stays free. Its waiter may have got on the list.
                self.woken.remove(&raw const (*place).waiter);
                resume_unwind(panic);
            }
        }
        self.free.pop();
    }

    /// Waits until something is finished.
    fn wait(&self) {
        if let Some(runtime) = self.engine.scheduler() {
            // SAFETY: what is in flight was submitted, and its places stay.
            return unsafe { runtime.await_any(&self.woken, type_name::<L>(), &|| self.in_flight().0) };
        }
        let guard = AbortOnUnwind;
        while self.woken.is_empty() {
            self.engine.turn(1);
        }
        std::mem::forget(guard);
    }

    /// The slots that are in flight, and who waits for them.
    fn in_flight(&self) -> (Vec<*mut Slot>, Vec<*const Waiter>) {
        let (mut slots, mut waiters) = (Vec::new(), Vec::new());
        for at in (0..self.width).filter(|at| !self.free.contains(at)) {
            let place = self.places.wrapping_add(at);
            // SAFETY: only addresses are taken.
            unsafe {
                L::locate(&raw mut (*place).slots, &mut slots);
                waiters.push(&raw const (*place).waiter);
            }
        }
        (slots, waiters)
    }

    /// Raises the results of a unit that is finished, and frees its place.
    fn finish(&mut self, waiter: *const Waiter) -> (usize, L::Results) {
        let at = (0..self.width)
            // SAFETY: only the address is taken.
            .find(|&at| ptr::eq(unsafe { &raw const (*self.places.wrapping_add(at)).waiter }, waiter))
            .unwrap_or_else(|| unreachable!("the waiter is one of the window's"));
        let place = self.places.wrapping_add(at);
        self.free.push(at);
        let mut cx = Raising(Raise::new(self.engine));
        // SAFETY: the unit is finished, so nobody else points to its place.
        let (index, results) = unsafe {
            let Some(entry) = (*place).entry.take() else { unreachable!("a started place has its entry") };
            ((*place).index, entry.raise_from(&(*place).slots, &mut cx))
        };
        self.errors += cx.0.errors;
        (index, results)
    }

    /// After a panic: ends everything that is in flight. What it has produced is dropped.
    fn cancel_all(&mut self) {
        let guard = AbortOnUnwind;
        let (slots, waiters) = self.in_flight();
        // SAFETY: those units were submitted and their places stay.
        unsafe { cancel_and_drain(self.engine, &slots, &waiters) };
        std::mem::forget(guard);
        while let Some(waiter) = self.woken.pop() {
            // A panic while dropping a result must not hide the first one.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(self.finish(waiter))));
        }
    }
}
