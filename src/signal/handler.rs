//! What happens when a signal comes.
//!
//! The handler runs in the middle of anything, on any thread, so it does nothing but loads and stores of atomics and
//! `write(2)`: it counts the signal, and wakes every listener that wants it. What it walks over is never freed:
//! listeners are kept with their descriptors, and go from one stream to the next. A late wake-up of a listener's former
//! stream is therefore one too many for the next, and nothing worse.

use super::Signal;
use crate::sys::{
    concurrent::{AtomicBool, AtomicU32, EventSource},
    fork::Life,
};
use libc::c_int;
use std::{
    array,
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

#[cfg(all(loom, test))]
mod loom;

/// The highest number of a signal that there is anywhere.
pub(super) const LAST: c_int = 127;

/// How often each signal has come.
static COUNTS: [AtomicUsize; LAST as usize + 1] = [const { AtomicUsize::new(0) }; LAST as usize + 1];

/// The first of the listeners; each leads to the next.
static FIRST: OnceLock<&'static Listener> = OnceLock::new();

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { installed: BTreeMap::new(), free: Vec::new() });

struct Registry {
    /// Signals that have streams: how many, and what was set up before.
    installed: BTreeMap<Signal, (usize, libc::sigaction)>,
    /// Listeners without a stream.
    free: Vec<&'static Listener>,
}

fn registry() -> MutexGuard<'static, Registry> {
    // Nothing that is done under the lock leaves it half done when it panics.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a stream waits by.
pub(super) struct Listener {
    /// One bit for each signal.
    wanted: [AtomicU32; (LAST as usize + 1) / 32],
    /// Nobody needs to wake it: that was done, or its stream is not waiting.
    woken: AtomicBool,
    event: EventSource,
    /// The process that has made it. A forked child shares the event with it.
    life: Life,
    next: OnceLock<&'static Listener>,
}

impl Listener {
    fn new() -> io::Result<Listener> {
        let (wanted, woken) = (array::from_fn(|_| AtomicU32::new(0)), AtomicBool::new(true));
        Ok(Listener { wanted, woken, event: EventSource::new()?, life: Life::current(), next: OnceLock::new() })
    }

    pub(super) fn event(&self) -> &EventSource {
        &self.event
    }

    /// Whether this process has made it.
    pub(super) fn is_own(&self) -> bool {
        self.life.goes_on()
    }

    /// From here on a signal wakes it. Its stream has to look at the counts after this and before it waits: whatever
    /// has written to the event before has counted before.
    pub(super) fn expect(&self) {
        if self.is_own() {
            // Emptied first: of what is written after the store nothing may be taken but by the stream when it waits,
            // or else `woken` would stay set while nothing wakes it.
            while let Ok(true) = self.event.try_wait() {}
            self.woken.swap(false, SeqCst);
        }
    }

    /// Makes the event readable.
    ///
    /// Async-signal-safe.
    pub(super) fn wake(&self) {
        if self.is_own() && !self.woken.swap(true, SeqCst) {
            self.event.notify();
        }
    }

    /// Nobody waits any more: the event is not readable, but for what a handler is just about to write.
    fn rest(&self) {
        self.woken.store(true, SeqCst);
        if self.is_own() {
            while let Ok(true) = self.event.try_wait() {}
        }
    }

    fn bit(&self, signal: c_int) -> Option<(&AtomicU32, u32)> {
        let number = usize::try_from(signal).ok()?;
        Some((self.wanted.get(number / 32)?, 1 << (number % 32)))
    }

    fn want(&self, signal: Signal, wanted: bool) {
        match self.bit(signal.number()) {
            Some((bits, bit)) if wanted => _ = bits.fetch_or(bit, SeqCst),
            Some((bits, bit)) => _ = bits.fetch_and(!bit, SeqCst),
            None => {}
        }
    }

    /// Async-signal-safe.
    fn notice(&self, signal: c_int) {
        let wants = self.bit(signal).is_some_and(|(bits, bit)| bits.load(SeqCst) & bit != 0);
        if wants {
            self.wake();
        }
    }
}

/// How often a signal has come.
pub(super) fn count(signal: Signal) -> usize {
    usize::try_from(signal.number()).ok().and_then(|at| COUNTS.get(at)).map_or(0, |count| count.load(SeqCst))
}

/// A listener that wants nothing yet.
pub(super) fn listener() -> io::Result<&'static Listener> {
    let mut registry = registry();
    // In a forked child those that came from the parent are of no use.
    registry.free.retain(|listener| listener.is_own());
    if let Some(listener) = registry.free.pop() {
        return Ok(listener);
    }
    let fresh = Box::leak(Box::new(Listener::new()?));
    let mut place = &FIRST;
    while let Some(listener) = place.get() {
        place = &listener.next;
    }
    // Only under the lock are any added, so the place is still free.
    let _ = place.set(fresh);
    Ok(fresh)
}

/// Makes `listener` want `signal`.
pub(super) fn listen(listener: &Listener, signal: Signal) -> io::Result<()> {
    let mut registry = registry();
    match registry.installed.get_mut(&signal) {
        Some((streams, _)) => *streams += 1,
        None => {
            let before = install(signal)?;
            registry.installed.insert(signal, (1, before));
        }
    }
    listener.want(signal, true);
    Ok(())
}

/// Makes `new` want what `old` wants. `old`, of a parent process, is used no more.
pub(super) fn replace(old: &Listener, new: &Listener) {
    for (old, new) in old.wanted.iter().zip(&new.wanted) {
        new.store(old.swap(0, SeqCst), SeqCst);
    }
}

/// A stream for `signals` is gone.
pub(super) fn release(listener: &'static Listener, signals: impl Iterator<Item = Signal>) {
    let mut registry = registry();
    for signal in signals {
        listener.want(signal, false);
        if let Some((streams, before)) = registry.installed.get_mut(&signal) {
            *streams -= 1;
            if *streams == 0 {
                restore(signal, before);
                registry.installed.remove(&signal);
            }
        }
    }
    // The next stream of this listener tells when it waits.
    listener.rest();
    registry.free.push(listener);
}

extern "C" fn handler(signal: c_int) {
    let errno = errno();
    // SAFETY: it points to the thread's own `errno`, which exists as long as the thread.
    let before = unsafe { *errno };
    if let Some(count) = usize::try_from(signal).ok().and_then(|at| COUNTS.get(at)) {
        count.fetch_add(1, SeqCst);
    }
    let mut place = &FIRST;
    while let Some(listener) = place.get() {
        listener.notice(signal);
        place = &listener.next;
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Where the calling thread's `errno` is.
fn errno() -> *mut c_int {
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    use libc::___errno as location;
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    use libc::__errno as location;
    #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "hurd", target_os = "dragonfly"))]
    use libc::__errno_location as location;
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    use libc::__error as location;
    // SAFETY: takes nothing and cannot fail.
    unsafe { location() }
}

fn own_action() -> libc::sighandler_t {
    handler as extern "C" fn(c_int) as *const () as libc::sighandler_t
}

/// Sets up the handler; gives what was set up before.
fn install(signal: Signal) -> io::Result<libc::sigaction> {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a structure of numbers and an optional function, for which all zeros are valid. The handler does only
    // what is allowed in one, and lives as long as the process. `sigaction` fills `before` if it returns 0.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = own_action();
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        match libc::sigaction(signal.number(), &action, before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Puts back what was set up before, unless somebody has replaced the handler since.
fn restore(signal: Signal, before: &libc::sigaction) {
    let mut current = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: as in `install`; `before` is what `sigaction` has given.
    unsafe {
        if libc::sigaction(signal.number(), ptr::null(), current.as_mut_ptr()) == 0
            && current.assume_init().sa_sigaction == own_action()
        {
            libc::sigaction(signal.number(), before, ptr::null_mut());
        }
    }
}
