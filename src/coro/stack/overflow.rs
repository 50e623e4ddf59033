//! Tells a task that overflowed its stack from other faults, and says so before the process ends.
//!
//! Without this the process would die of a bare segmentation fault: Rust's own handler knows the stacks of threads
//! only.

use super::GUARD;
use crate::coro::runtime::Runtime;
use std::{
    fmt::{self, Write},
    mem::{self, MaybeUninit},
    ptr,
    sync::OnceLock,
};

const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];
/// For the handler: it formats one line, or goes on to another handler.
const SIGNAL_STACK: usize = 64 << 10;

/// What the process did with the signals before.
static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();

/// While it lives, the handler can run on this thread, where it asks the thread's runtime whose stack it is.
pub(in crate::coro) struct Watch {
    /// The stack for handlers, if the thread had none.
    signal_stack: Option<Box<[MaybeUninit<u8>]>>,
}

impl Watch {
    pub(in crate::coro) fn new() -> Watch {
        PREVIOUS.get_or_init(install);
        Watch { signal_stack: give_signal_stack() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(own) = self.signal_stack.take() else { return };
        // SAFETY: all-zero is a valid value; the calls read and fill it.
        unsafe {
            let mut none: libc::stack_t = mem::zeroed();
            libc::sigaltstack(ptr::null(), &mut none);
            if ptr::addr_eq(none.ss_sp, own.as_ptr()) {
                none.ss_flags = libc::SS_DISABLE;
                libc::sigaltstack(&none, ptr::null_mut());
            } else {
                // Somebody has put another in its place, and may put it back.
                mem::forget(own);
            }
        }
    }
}

/// A handler cannot run on the stack that has overflowed. Rust's threads have another one; foreign ones may not.
fn give_signal_stack() -> Option<Box<[MaybeUninit<u8>]>> {
    // SAFETY: all-zero is a valid value, which the call fills; the new stack is kept while it is installed.
    unsafe {
        let mut old: libc::stack_t = mem::zeroed();
        libc::sigaltstack(ptr::null(), &mut old);
        if old.ss_flags & libc::SS_DISABLE == 0 {
            return None;
        }
        let mut memory = Box::new_uninit_slice(SIGNAL_STACK);
        let mut new: libc::stack_t = mem::zeroed();
        new.ss_sp = memory.as_mut_ptr().cast();
        new.ss_size = memory.len();
        (libc::sigaltstack(&new, ptr::null_mut()) == 0).then_some(memory)
    }
}

/// Puts our handler before those there are. It stays for good: another library may have kept its address by the time we
/// could take it away.
fn install() -> [libc::sigaction; 2] {
    SIGNALS.map(|signal| {
        // SAFETY: all-zero is a valid value; the handler only does what a handler may.
        unsafe {
            let mut old: libc::sigaction = mem::zeroed();
            let mut new: libc::sigaction = mem::zeroed();
            new.sa_sigaction = handle as *const () as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut new.sa_mask);
            libc::sigaction(signal, &new, &mut old);
            old
        }
    })
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid information, and these signals carry an address. This thread is interrupted, so
    // its runtime stays as it is.
    unsafe {
        let address = (*info).si_addr().addr();
        if let Some(runtime) = Runtime::of_thread()
            && let Some(task) = runtime.running()
            && let Some((lowest, highest)) = task.routine.range()
            && (lowest..lowest + GUARD).contains(&address)
        {
            report(task.id(), task.name(), highest - lowest - GUARD);
        }
        pass_on(signal, info, context);
    }
}

fn report(id: u64, name: Option<&str>, size: usize) -> ! {
    let mut line = Line { bytes: [0; 512], len: 0 };
    let _ = write!(line, "\naio: task {id} ");
    if let Some(name) = name {
        let _ = write!(line, "\"{name}\" ");
    }
    let _ = writeln!(
        line,
        "has overflowed its stack of {} KiB; give it a larger one with coro::Builder::stack_size, or all tasks with \
         coro::Config::stack_size; aborting",
        size.div_ceil(1024)
    );
    // SAFETY: the bytes are a local's; both calls may be made in a handler.
    unsafe {
        libc::write(2, line.bytes.as_ptr().cast(), line.len);
        libc::abort()
    }
}

/// Hands a fault that is none of ours to whoever had the signal before.
///
/// # Safety
/// To be called by the handler, with what it was given.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let index = SIGNALS.iter().position(|&other| other == signal).unwrap_or(0);
    // SAFETY: promised by the caller; an action that is neither default nor ignored holds a handler's address, of the
    // type that its flags say.
    unsafe {
        match PREVIOUS.get().map(|previous| &previous[index]) {
            Some(old) if old.sa_sigaction != libc::SIG_DFL && old.sa_sigaction != libc::SIG_IGN => {
                if old.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        mem::transmute(old.sa_sigaction);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(libc::c_int) = mem::transmute(old.sa_sigaction);
                    handler(signal);
                }
            }
            // The instruction faults again on return, and this time the process ends as it would have without us.
            _ => {
                let mut default: libc::sigaction = mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &default, ptr::null_mut());
            }
        }
    }
}

/// A line that needs no allocation. What does not fit is left out.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.len += count;
        Ok(())
    }
}
