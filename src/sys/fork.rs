//! Notices that the process is a fork of the one that made an engine.
//!
//! The kernel shares a ring, an epoll descriptor and their wake-up descriptors with a forked child, and the child lacks
//! the worker threads. An engine must therefore not be touched in a child at all. One page that the kernel wipes on
//! fork tells in a single load whether that has happened; where there is no such page the process id does.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// What a process remembers about itself: different from its parent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life(u32);

static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
/// Counts the lives of this line of processes; a child inherits its value and goes on from there.
static LIVES: AtomicU32 = AtomicU32::new(0);

impl Life {
    /// The life of this process.
    pub(crate) fn current() -> Life {
        let page = page();
        if page.is_null() {
            return Life(std::process::id());
        }
        // SAFETY: a page once stored in `PAGE` is never unmapped, and is mapped in children too.
        let mark = unsafe { &*page };
        match mark.load(Ordering::Relaxed) {
            0 => {
                let fresh = LIVES.fetch_add(1, Ordering::Relaxed) + 1;
                // Another thread may have been faster; then its number counts.
                match mark.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => Life(fresh),
                    Err(other) => Life(other),
                }
            }
            number => Life(number),
        }
    }

    /// Whether this is still the process that `current` was called in.
    #[inline]
    pub(crate) fn goes_on(self) -> bool {
        let page = PAGE.load(Ordering::Relaxed);
        if page.is_null() {
            return self.0 == std::process::id();
        }
        // SAFETY: as in `current`.
        unsafe { (*page).load(Ordering::Relaxed) == self.0 }
    }
}

fn page() -> *const AtomicU32 {
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        return page;
    }
    let fresh = super::page_wiped_on_fork().cast::<AtomicU32>();
    if fresh.is_null() {
        return fresh;
    }
    match PAGE.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        // The loser's page stays mapped: 4 KiB, once.
        Err(first) => first,
    }
}
