//! Timers: a hierarchical wheel whose entries live in the slots they belong to.
//!
//! Eight levels of 64 lists each. A list of level 0 spans 2¹⁶ ns (66 µs), and one of each further level 64 times as
//! much. Setting and removing a timer takes constant time and no memory. Within a list the exact time counts, so
//! nothing fires early and a sleep shorter than the span of a list is not rounded.

use std::{mem, ptr};

/// An entry of the wheel. It must not move while it is armed.
#[repr(C)]
pub(crate) struct Timer {
    prev: *mut Timer,
    next: *mut Timer,
    /// Monotonic nanoseconds.
    at: u64,
    list: u16,
}

const LEVELS: usize = 8;
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const TICK: u32 = 16;
const FIRED: usize = LEVELS * SLOTS;
/// Entries looked at for the exact time of the next one, before the start of the list has to do.
const EXACT: usize = 16;

pub(crate) struct Wheel {
    /// All lists before this tick are empty.
    tick: u64,
    heads: [*mut Timer; FIRED + 1],
    occupied: [u64; LEVELS],
    len: usize,
}

impl Wheel {
    /// An empty wheel. It starts at the time `now`.
    pub(crate) fn new(now: u64) -> Wheel {
        Wheel { tick: now >> TICK, heads: [ptr::null_mut(); FIRED + 1], occupied: [0; LEVELS], len: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer.
    ///
    /// # Safety
    /// `timer` is valid, and stays so without moving until it has been removed or popped.
    pub(crate) unsafe fn insert(&mut self, timer: *mut Timer, at: u64) {
        // SAFETY: promised by the caller.
        unsafe { timer.write(Timer { prev: ptr::null_mut(), next: ptr::null_mut(), at, list: 0 }) };
        self.len += 1;
        // SAFETY: as above.
        unsafe { self.push(timer, self.list_for(at)) };
    }

    /// Disarms a timer.
    ///
    /// # Safety
    /// `timer` was inserted and neither removed nor popped since.
    pub(crate) unsafe fn remove(&mut self, timer: *mut Timer) {
        self.len -= 1;
        // SAFETY: promised by the caller.
        unsafe { self.unlink(timer) };
    }

    /// Takes the earliest of the timers that `advance` found to have expired.
    pub(crate) fn pop(&mut self) -> Option<*mut Timer> {
        let timer = self.heads[FIRED];
        if timer.is_null() {
            return None;
        }
        // SAFETY: what is on a list is armed, hence valid.
        unsafe { self.remove(timer) };
        Some(timer)
    }

    /// Moves the wheel on to the time `now`; what has expired can then be popped.
    pub(crate) fn advance(&mut self, now: u64) {
        let target = now >> TICK;
        while let Some((level, list, start)) = self.first() {
            if start > target {
                break;
            }
            self.tick = self.tick.max(start);
            let mut timer = mem::replace(&mut self.heads[list], ptr::null_mut());
            self.occupied[level] &= !(1 << (list % SLOTS));
            let mut waiting = false;
            while !timer.is_null() {
                // SAFETY: what is on a list is armed, hence valid; `next` is read before the entry is put elsewhere.
                unsafe {
                    let next = (*timer).next;
                    let to = if (*timer).at <= now { FIRED } else { self.list_for((*timer).at) };
                    waiting |= to == list;
                    self.push(timer, to);
                    timer = next;
                }
            }
            if waiting {
                break;
            }
        }
        self.tick = self.tick.max(target);
        let fired = self.heads[FIRED];
        // SAFETY: what is on a list is armed, hence valid.
        if !fired.is_null() && unsafe { !(*fired).next.is_null() } {
            // SAFETY: as above; it is the whole list.
            self.heads[FIRED] = unsafe { sorted(fired) };
        }
    }

    /// A time at which to call `advance` again: exact for the next timer, or the start of the crowded list it is in.
    pub(crate) fn next(&self) -> Option<u64> {
        if !self.heads[FIRED].is_null() {
            return Some(0);
        }
        let (level, list, start) = self.first()?;
        let mut earliest = u64::MAX;
        let mut timer = self.heads[list];
        let mut seen = 0;
        while !timer.is_null() {
            if seen == EXACT && level > 0 {
                return Some(start << TICK);
            }
            // SAFETY: what is on a list is armed, hence valid.
            unsafe {
                earliest = earliest.min((*timer).at);
                timer = (*timer).next;
            }
            seen += 1;
        }
        Some(earliest)
    }

    /// The first list that is not empty: its level, its index and the tick at which it starts.
    fn first(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = level as u32 * BITS;
            let here = (self.tick >> shift) as u32 % SLOTS as u32;
            let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
            let start = ((self.tick >> shift) + u64::from(ahead)) << shift;
            let list = level * SLOTS + (here as usize + ahead as usize) % SLOTS;
            return Some((level, list, start));
        }
        None
    }

    fn list_for(&self, at: u64) -> usize {
        let tick = (at >> TICK).max(self.tick);
        let level = (63 - ((tick ^ self.tick) | (SLOTS as u64 - 1)).leading_zeros()) / BITS;
        let slot = (tick >> (level * BITS)) as usize % SLOTS;
        level as usize * SLOTS + slot
    }

    /// # Safety
    /// `timer` is armed and on no list.
    unsafe fn push(&mut self, timer: *mut Timer, list: usize) {
        let head = mem::replace(&mut self.heads[list], timer);
        // SAFETY: promised by the caller; the head of a list is armed, hence valid.
        unsafe {
            (*timer).prev = ptr::null_mut();
            (*timer).next = head;
            (*timer).list = list as u16;
            if !head.is_null() {
                (*head).prev = timer;
            }
        }
        if list != FIRED {
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
        }
    }

    /// # Safety
    /// `timer` is armed and on a list.
    unsafe fn unlink(&mut self, timer: *mut Timer) {
        // SAFETY: promised by the caller; neighbours on a list are armed, hence valid.
        unsafe {
            let Timer { prev, next, list, .. } = *timer;
            let list = usize::from(list);
            if !next.is_null() {
                (*next).prev = prev;
            }
            if !prev.is_null() {
                (*prev).next = next;
                return;
            }
            self.heads[list] = next;
            if next.is_null() && list != FIRED {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
    }
}

/// Sorts a list by time, by merging ever longer runs of it; gives its new head. Those that are late are many, and from
/// lists that span a long time, only after the thread was kept from looking.
///
/// # Safety
/// `head` begins a list of valid timers.
unsafe fn sorted(mut head: *mut Timer) -> *mut Timer {
    let mut width = 1;
    loop {
        let (mut rest, mut last, mut merges) = (mem::replace(&mut head, ptr::null_mut()), ptr::null_mut(), 0);
        while !rest.is_null() {
            merges += 1;
            // SAFETY: promised by the caller: only timers of the list are looked at, and the end of it is null.
            unsafe {
                let (mut left, mut right, mut lefts, mut rights) = (rest, rest, 0, width);
                while lefts < width && !right.is_null() {
                    right = (*right).next;
                    lefts += 1;
                }
                while lefts > 0 || rights > 0 && !right.is_null() {
                    let takes_left = lefts > 0 && (rights == 0 || right.is_null() || (*left).at <= (*right).at);
                    let (from, count) = if takes_left { (&mut left, &mut lefts) } else { (&mut right, &mut rights) };
                    let timer = *from;
                    (*from, *count) = ((*timer).next, *count - 1);
                    (*timer).prev = last;
                    match last.is_null() {
                        true => head = timer,
                        false => (*last).next = timer,
                    }
                    last = timer;
                }
                rest = right;
            }
        }
        if !last.is_null() {
            // SAFETY: as above.
            unsafe { (*last).next = ptr::null_mut() };
        }
        if merges <= 1 {
            return head;
        }
        width *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Boxed one by one, as the entries of a wheel lie apart.
    #[allow(clippy::vec_box)]
    fn fresh(n: usize) -> Vec<Box<mem::MaybeUninit<Timer>>> {
        (0..n).map(|_| Box::new(mem::MaybeUninit::uninit())).collect()
    }

    /// A cheap generator, so that a failure repeats.
    fn random(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    #[test]
    fn fires_in_time_and_never_early() {
        let mut seed = 88172645463325252;
        for round in 0..200 {
            let start = random(&mut seed) >> 2;
            let mut wheel = Wheel::new(start);
            let mut timers = fresh(100);
            let mut due: Vec<(u64, *mut Timer)> = Vec::new();
            for timer in &mut timers {
                let spread = 10 + random(&mut seed) % 40;
                let at = start + 1 + random(&mut seed) % (1 << spread);
                let timer = timer.as_mut_ptr();
                // SAFETY: boxed, and outlives the wheel's use of it.
                unsafe { wheel.insert(timer, at) };
                due.push((at, timer));
            }
            if round % 2 == 0 {
                for (_, timer) in due.split_off(50) {
                    // SAFETY: inserted above.
                    unsafe { wheel.remove(timer) };
                }
            }
            let mut now = start;
            while let Some(next) = wheel.next() {
                assert!(!wheel.is_empty());
                assert!(next > now, "a wake-up in the past would spin");
                let earliest = due.iter().map(|d| d.0).min().unwrap();
                assert!(next <= earliest, "slept past a timer");
                now = next;
                // Late now and then, so that many expire at once.
                now += if round % 3 == 0 { random(&mut seed) % (1 << 35) } else { 0 };
                wheel.advance(now);
                let mut before = 0;
                while let Some(timer) = wheel.pop() {
                    // SAFETY: boxed, and outlives the wheel's use of it.
                    let at = unsafe { (*timer).at };
                    assert!(before <= at, "a later one came first");
                    before = at;
                    let index = due.iter().position(|d| d.1 == timer).unwrap();
                    assert!(due.swap_remove(index).0 <= now, "fired early");
                }
                assert!(due.iter().all(|d| d.0 > now), "missed a timer");
            }
            assert!(due.is_empty() && wheel.is_empty());
        }
    }

    #[test]
    fn one_timer_takes_one_wake_up() {
        for delay in [1, 1_000, 50_000, 1_000_000, 3_600_000_000_000, u64::MAX >> 1] {
            let mut wheel = Wheel::new(12_345_678_901);
            let mut timer = fresh(1);
            // SAFETY: boxed, and outlives the wheel's use of it.
            unsafe { wheel.insert(timer[0].as_mut_ptr(), 12_345_678_901 + delay) };
            assert_eq!(wheel.next(), Some(12_345_678_901 + delay));
            wheel.advance(12_345_678_901 + delay);
            assert!(wheel.pop().is_some() && wheel.next().is_none());
        }
    }
    #[test]
    fn a_crowded_list_is_not_searched_for_its_earliest() {
        let one_list = 1u64 << (TICK + BITS);
        let (start, first) = (one_list * 64, one_list * 66 + 800_000);
        for (count, expected) in [(EXACT, first), (EXACT + 1, one_list * 66)] {
            let mut wheel = Wheel::new(start);
            let mut timers = fresh(count);
            for (after, timer) in timers.iter_mut().enumerate() {
                // SAFETY: boxed, and outlives the wheel's use of it.
                unsafe { wheel.insert(timer.as_mut_ptr(), first + after as u64) };
            }
            assert_eq!(wheel.next(), Some(expected), "{count} timers");
        }
    }
}
