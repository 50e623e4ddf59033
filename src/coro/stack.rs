//! Stacks: slabs of address space, cut into stacks with a guard below each.
//!
//! ```text
//!  slab   ┌───────┬───────────────┬───────┬───────────────┬──
//!         │ guard │ stack 0     ◀ │ guard │ stack 1     ◀ │ …      ◀ grows down from here
//!         └───────┴───────────────┴───────┴───────────────┴──
//! ```
//!
//! A slab is one mapping however many stacks it holds: the guards are marks in its page table (`MADV_GUARD_INSTALL`,
//! Linux 6.13) and not mappings of their own. Older kernels get `mprotect(2)`, at two mappings for each stack. Memory
//! is used as it is touched. The stack given back last is taken first, for its memory is in the cache; what lies deeper
//! in the pile gives its memory back to the system.

mod memory;
mod overflow;

pub(super) use overflow::Watch;

use corosensei::stack::{STACK_ALIGNMENT, StackPointer};
use memory::Mapping;
use std::{fmt, io, ptr};

/// Address space below each stack that faults when touched. More than a page, for code in other languages does not
/// touch each page of a large frame.
const GUARD: usize = 64 << 10;
/// The smallest stack that makes sense: a panic with its message needs about as much.
const SMALLEST: usize = 16 << 10;
/// The largest.
const LARGEST: usize = 1 << 30;
/// Address space of the largest slab.
const LARGEST_SLAB: usize = 4 << 30;
/// Stacks start at different offsets, so that their hot ends do not fall into the same cache sets.
const COLOURS: usize = 16;
const COLOUR: usize = 64;
/// Unused stacks that keep their memory however few are in use.
const WARM: usize = 64;

/// A stack for a task: address space with a guard below it, of which memory is used as far down as it was touched.
///
/// Tasks take theirs from a pool. One that is made here is for [`Builder::on`](super::Builder::on), which runs a task
/// on it and gives it back with the result.
///
/// ```
/// use aio::coro::{self, Builder, Stack};
///
/// coro::run(|| {
///     let stack = Stack::new(1 << 20)?;
///     let (value, stack) = Builder::new().on(stack).spawn(|| 6 * 7).join();
///     assert_eq!(value?, 42);
///     assert!(stack.size() >= 1 << 20);
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Stack {
    /// The highest address, and the lowest with the guard.
    base: StackPointer,
    limit: StackPointer,
    /// Whose memory it is: the index of a pool's class, or one of the constants.
    origin: u32,
}

/// The stack has a mapping of its own.
const OWN: u32 = u32::MAX;
/// It belongs to whoever called `from_raw`.
const RAW: u32 = u32::MAX - 1;

impl Stack {
    /// A stack of at least `size` bytes: from 16 KiB to 1 GiB, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the size is outside that range; `ENOMEM` if there is no address space or, before Linux 6.13,
    /// no mapping left (`vm.max_map_count`).
    pub fn new(size: usize) -> io::Result<Stack> {
        let size = checked(size)?;
        let mapping = Mapping::new(GUARD + size)?;
        memory::guard(mapping.start(), GUARD)?;
        let limit = mapping.keep();
        Ok(Stack { base: pointer(limit + GUARD + size), limit: pointer(limit), origin: OWN })
    }

    /// A stack in memory of the caller's, of `len` bytes from `start` on. It grows from the end down.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if fewer than 16 KiB remain when both ends are aligned to 16 bytes.
    ///
    /// # Safety
    ///
    /// The memory is writable and used by nobody else until the `Stack` is dropped, and memory below it cannot be
    /// reached: a task that needs more than `len` bytes must fault there, which a guard of at least 64 KiB achieves.
    pub unsafe fn from_raw(start: *mut u8, len: usize) -> io::Result<Stack> {
        // Corosensei makes pointers of addresses, so the memory's provenance is exposed.
        let start = start.expose_provenance();
        let low = start.next_multiple_of(STACK_ALIGNMENT);
        let high = (start + len) & !(STACK_ALIGNMENT - 1);
        if high.saturating_sub(low) < SMALLEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a stack needs at least 16 KiB"));
        }
        Ok(Stack { base: pointer(high), limit: pointer(low), origin: RAW })
    }

    /// How many bytes a task can use of it.
    pub fn size(&self) -> usize {
        let guard = if self.origin == RAW { 0 } else { GUARD };
        self.base.get() - self.limit.get() - guard
    }

    /// The lowest address, guard included, and the highest. Below memory of a caller's there is supposed to be one.
    pub(super) fn range(&self) -> (usize, usize) {
        let limit = self.limit.get();
        (if self.origin == RAW { limit.saturating_sub(GUARD) } else { limit }, self.base.get())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.origin == OWN {
            // SAFETY: the stack was made by `new`, with these ends, and nobody is on it: a task takes its stack along.
            unsafe { memory::unmap(self.limit.get(), self.base.get() - self.limit.get()) };
        }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("size", &self.size()).finish_non_exhaustive()
    }
}

// SAFETY: there is a guard below (checked by `memory::guard`, or promised to `from_raw`), and at least `SMALLEST`
// bytes; both ends are aligned.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> StackPointer {
        self.base
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        self.limit
    }
}

/// The stacks of one runtime that nobody uses, by size.
pub(super) struct Pool {
    classes: Vec<Class>,
    guarded: u64,
    trimmed: u64,
    /// The most that was seen used of a stack, before its memory was given back.
    deepest: usize,
}

/// Stacks of one size.
struct Class {
    size: usize,
    slabs: Vec<Mapping>,
    /// Stacks of the newest slab that were never used.
    fresh: usize,
    /// Tops of the stacks that wait to be used again, the one given back last at the end. Those before `cold` have
    /// given their memory back.
    free: Vec<usize>,
    cold: usize,
    in_use: usize,
}

/// How a runtime's stacks are used; part of [`stats`](super::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackStats {
    /// Stacks of the pool with a task on them.
    pub in_use: usize,
    /// Stacks that wait to be used again.
    pub free: usize,
    /// Mappings of address space that hold them all.
    pub slabs: usize,
    /// How often a stack was used for the first time.
    pub made: u64,
    /// How often one gave its memory back to the system.
    pub trimmed: u64,
    /// Bytes of the stack that was used most, in whole pages: its high-water mark. 0 where the system cannot tell
    /// (other than Linux).
    pub deepest: usize,
}

impl Pool {
    pub(super) fn new() -> Pool {
        Pool { classes: Vec::new(), guarded: 0, trimmed: 0, deepest: 0 }
    }

    /// A stack of at least `size` bytes.
    pub(super) fn take(&mut self, size: usize) -> io::Result<Stack> {
        let index = match self.classes.iter().position(|class| class.size == size) {
            Some(index) => index,
            None => self.class(checked(size)?),
        };
        let class = &mut self.classes[index];
        let base = match class.free.pop() {
            Some(base) => {
                class.cold = class.cold.min(class.free.len());
                base
            }
            None => {
                let base = class.make()?;
                self.guarded += 1;
                base
            }
        };
        class.in_use += 1;
        let (low, _) = class.usable(base);
        Ok(Stack { base: pointer(base), limit: pointer(low - GUARD), origin: index as u32 })
    }

    fn class(&mut self, size: usize) -> usize {
        if let Some(index) = self.classes.iter().position(|class| class.size == size) {
            return index;
        }
        self.classes.push(Class { size, slabs: Vec::new(), fresh: 0, free: Vec::new(), cold: 0, in_use: 0 });
        self.classes.len() - 1
    }

    /// Takes a stack back; gives it to the caller if it is not the pool's.
    pub(super) fn give(&mut self, stack: Stack) -> Option<Stack> {
        if stack.origin >= RAW {
            return Some(stack);
        }
        let class = &mut self.classes[stack.origin as usize];
        class.in_use -= 1;
        class.free.push(stack.base.get());
        let warm = class.free.len() - class.cold;
        if warm > 2 * WARM.max(class.in_use) {
            // The older half: what is on top is used next.
            for base in &class.free[class.cold..class.cold + warm / 2] {
                let (low, high) = class.usable(*base);
                self.deepest = self.deepest.max(memory::resident(low, high));
                memory::discard(low, high - low);
            }
            class.cold += warm / 2;
            self.trimmed += warm as u64 / 2;
        }
        None
    }

    pub(super) fn stats(&self) -> StackStats {
        let mut stats =
            StackStats { made: self.guarded, trimmed: self.trimmed, deepest: self.deepest, ..Default::default() };
        for class in &self.classes {
            stats.in_use += class.in_use;
            stats.free += class.free.len();
            stats.slabs += class.slabs.len();
            for base in class.all() {
                stats.deepest = stats.deepest.max(memory::resident(base - class.size, base));
            }
        }
        stats
    }
}

impl Class {
    fn stride(&self) -> usize {
        GUARD + self.size
    }

    /// How many stacks the next slab has: more each time, so that few slabs hold many and few stacks reserve little.
    fn next_slab(&self) -> usize {
        let most = (LARGEST_SLAB / self.stride()).max(1);
        (8 << (2 * self.slabs.len()).min(40)).min(most)
    }

    /// The base of a stack that was never used.
    fn make(&mut self) -> io::Result<usize> {
        if self.fresh == 0 {
            let count = self.next_slab();
            self.slabs.push(Mapping::new(count * self.stride())?);
            self.fresh = count;
        }
        let Some(slab) = self.slabs.last() else { unreachable!("one was just made if there was none") };
        let end = slab.start() + slab.len() - (self.fresh - 1) * self.stride();
        memory::guard(end - self.stride(), GUARD)?;
        let colour = self.fresh % COLOURS * COLOUR;
        self.fresh -= 1;
        Ok(end - colour)
    }

    /// The part of a stack that is used, for the base of one.
    fn usable(&self, base: usize) -> (usize, usize) {
        // As `next_multiple_of`, without a division.
        let end = (base + memory::page_size() - 1) & !(memory::page_size() - 1);
        (end - self.size, end)
    }

    /// The ends of all stacks that were ever used.
    fn all(&self) -> impl Iterator<Item = usize> {
        let newest = self.slabs.len().wrapping_sub(1);
        self.slabs.iter().enumerate().flat_map(move |(i, slab)| {
            let made = slab.len() / self.stride() - if i == newest { self.fresh } else { 0 };
            (0..made).map(|n| slab.start() + (n + 1) * self.stride())
        })
    }
}

/// A size in whole pages, if it is one to be had.
fn checked(size: usize) -> io::Result<usize> {
    if !(SMALLEST..=LARGEST).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the size of a stack is from 16 KiB to 1 GiB"));
    }
    Ok(size.next_multiple_of(memory::page_size()))
}

#[inline]
pub(super) fn pointer(address: usize) -> StackPointer {
    StackPointer::new(address).unwrap_or_else(|| unreachable!("no mapping starts at 0"))
}

// The addresses of a pool are turned into pointers by corosensei, so the memory's provenance is exposed.
fn exposed(address: usize) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address)
}
