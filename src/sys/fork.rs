//! Notices that the process is a fork of the one that made an engine.
//!
//! The kernel shares a ring, an epoll descriptor and their wake-up descriptors with a forked child, and the child lacks
//! the worker threads. An engine must therefore not be touched in a child at all. One page that the kernel wipes on
//! fork tells in a single load whether that has happened; where there is no such page the process id does.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// What a process remembers about itself: different from its parent's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// On the page that is wiped. Kept here for those who ask often.
    mark: &'static AtomicU32,
    number: u32,
}

static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
/// Stands for the mark where there is no such page. No process has this number.
static NO_PAGE: AtomicU32 = AtomicU32::new(0);
/// Counts the lives of this line of processes; a child inherits its value and goes on from there.
static LIVES: AtomicU32 = AtomicU32::new(0);

impl Life {
    /// The life of this process.
    pub(crate) fn current() -> Life {
        // SAFETY: a page once stored in `PAGE` is never unmapped, and is mapped in children too.
        let Some(mark) = (unsafe { page().as_ref() }) else {
            return Life { mark: &NO_PAGE, number: std::process::id() };
        };
        let number = match mark.load(Ordering::Relaxed) {
            0 => {
                let fresh = LIVES.fetch_add(1, Ordering::Relaxed) + 1;
                // Another thread may have been faster; then its number counts.
                match mark.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => fresh,
                    Err(other) => other,
                }
            }
            number => number,
        };
        Life { mark, number }
    }

    /// Whether this is still the process that `current` was called in.
    #[inline]
    pub(crate) fn goes_on(self) -> bool {
        self.mark.load(Ordering::Relaxed) == self.number || self.is_that_process()
    }

    #[cold]
    fn is_that_process(self) -> bool {
        std::ptr::eq(self.mark, &NO_PAGE) && self.number == std::process::id()
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
