//! How much of its stack a task uses to wait: the rest is the program's.

mod common;

use aio::{
    Backend,
    coro::{self, Builder, Stack},
    op::*,
    sync::Event,
};
use common::*;
use std::{cell::Cell, hint::black_box, os::unix::net::UnixStream, rc::Rc};

const SIZE: usize = 64 << 10;
const GUARD: usize = 64 << 10;
const UNUSED: u8 = 0xA5;

/// Memory of which it can be seen how far down a task has used it.
struct Measured(*mut u8);

impl Measured {
    fn new() -> Measured {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a mapping of its own, whose lower half is made to fault and whose upper half is filled.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), GUARD + SIZE, access, kind, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(start, GUARD, libc::PROT_NONE), 0);
            let memory = start.cast::<u8>().add(GUARD);
            memory.write_bytes(UNUSED, SIZE);
            Measured(memory)
        }
    }

    fn stack(&self) -> Stack {
        // SAFETY: nobody else uses the memory, and below it is a guard.
        unsafe { Stack::from_raw(self.0, SIZE) }.unwrap()
    }

    /// The lowest address that was written.
    fn lowest(&self) -> usize {
        // SAFETY: the memory is initialised; a task that wrote to it is suspended.
        let bytes = unsafe { std::slice::from_raw_parts(self.0, SIZE) };
        let unused = bytes.iter().position(|byte| *byte != UNUSED).unwrap();
        self.0.addr() + unused
    }
}

/// The address of something on the caller's frame.
#[inline(never)]
fn here() -> usize {
    let mark = 0u8;
    black_box(&raw const mark).addr()
}

/// Bytes that a task uses below the frame that waits.
fn used_by(wait: impl FnOnce() + 'static) -> usize {
    let memory = Measured::new();
    let frame = Rc::new(Cell::new(0));
    let place = frame.clone();
    let task = Builder::new().on(memory.stack()).spawn(move || {
        place.set(here());
        wait();
    });
    assert!(!task.is_finished());
    let used = frame.get() - memory.lowest();
    task.cancel();
    task.join().0.unwrap();
    used
}

// Measured 1000 bytes for an operation on a ring or a sleep, and up to 1.9 KiB in the emulation, where an operation is
// attempted first; an event takes 400 bytes. Without optimisation frames are several times as large.
#[test]
fn waiting_takes_little_stack() {
    each_runtime(|| {
        let ring = aio::stats().backend == Some(Backend::IoUring);
        let most = match (cfg!(debug_assertions), ring) {
            (true, _) => 8 << 10,
            (false, true) => 1024,
            (false, false) => 2 << 10,
        };
        let (a, _b) = UnixStream::pair().unwrap();
        let recv = used_by(move || _ = aio::single(Recv::new(&a, &mut [0u8; 8])));
        let (c, _d) = UnixStream::pair().unwrap();
        let read = used_by(move || _ = aio::single(Read::new(&c, &mut [0u8; 8])));
        let park = used_by(|| _ = coro::park(1));
        let event = used_by(|| _ = Event::new().wait());
        let sleep = used_by(|| _ = coro::sleep(NEVER));
        for used in [recv, read, park, event, sleep] {
            assert!(used <= most, "{used} bytes: recv {recv}, read {read}, park {park}, event {event}, sleep {sleep}");
        }
    });
}
