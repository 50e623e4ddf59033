//! Entries that the program builds itself.
#![cfg(target_os = "linux")]

mod common;

use aio::{Backend, Error, Queue, op::*, queue::Done};
use common::*;
use io_uring::{opcode, squeue::Entry, types::Fd};
use std::{os::fd::AsRawFd, time::Duration};

const SOON: Duration = Duration::from_millis(5);

/// # Safety
/// As [`Raw::new`].
unsafe fn raw(entry: Entry) -> Raw {
    // SAFETY: an entry is 64 bytes of plain data; the rest is promised by the caller.
    unsafe { Raw::new(std::mem::transmute::<Entry, [u64; 8]>(entry)) }
}

#[test]
fn raw_entries_are_for_rings_only() {
    each_engine(|engine| {
        // SAFETY: a no-op points to nothing.
        let nop = || unsafe { raw(opcode::Nop::new().build()) };
        if engine.backend == Backend::IoUring {
            assert_eq!(aio::single(nop()), Ok(0));
            return;
        }
        assert!(matches!(aio::single(nop()), Err(Error::Unsupported(_))));
        let done = aio::complete((nop().link(), Nop::new().hard_link(), Nop::new())).unwrap();
        assert!(matches!(done.results, (Err(Error::Unsupported(_)), Err(Error::Skipped), Err(Error::Skipped))));
    });
}

#[test]
fn raw_entries_give_the_kernels_numbers() {
    each_engine(|engine| {
        if engine.backend != Backend::IoUring {
            return;
        }
        let (file, mut bytes) = (file_with(b"raw bytes"), [0u8; 16]);
        let read = opcode::Read::new(Fd(file.as_raw_fd()), bytes.as_mut_ptr(), 16).offset(4).build();
        // SAFETY: the buffer and the file outlive the operation, and are not used meanwhile.
        assert_eq!(aio::single(unsafe { raw(read) }), Ok(5));
        assert_eq!(&bytes[..5], b"bytes");
        // SAFETY: as above.
        let fails = unsafe { raw(opcode::Read::new(Fd(write_only().as_raw_fd()), bytes.as_mut_ptr(), 16).build()) };
        assert_eq!(aio::single(fails), os(libc::EBADF));
        // SAFETY: an opcode that does not exist touches nothing.
        let unknown = unsafe { Raw::new([255, 0, 0, 0, 0, 0, 0, 0]) };
        assert_eq!(format!("{unknown:?}"), "Raw { opcode: 255, .. }");
        assert_eq!(aio::single(unknown), os(libc::EINVAL));
        let flags = opcode::Nop::new().build().flags(io_uring::squeue::Flags::IO_LINK).user_data(7);
        // SAFETY: a no-op points to nothing.
        assert!(matches!(aio::single(unsafe { raw(flags) }), Err(Error::Invalid(_))));
    });
}

#[test]
fn raw_entries_are_linked_limited_and_cancelled_like_any_operation() {
    each_engine(|engine| {
        if engine.backend != Backend::IoUring {
            return;
        }
        let (output, input) = pipe();
        let mut byte = [0u8; 1];
        // SAFETY: the buffer and the pipe outlive what is run here, and one operation at a time uses the buffer.
        let mut read = || unsafe { raw(opcode::Read::new(Fd(output.as_raw_fd()), byte.as_mut_ptr(), 1).build()) };
        let done = aio::complete((read().timeout(SOON).link(), Nop::new(), Nop::new())).unwrap();
        assert_eq!(done.results, (Err(Error::TimedOut), Err(Error::Skipped), Ok(())));
        let done = aio::complete((read().timeout(SOON).hard_link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Err(Error::TimedOut), Ok(())));
        assert_eq!(aio::single(read().timeout(SOON)), Err(Error::TimedOut));
        let done = aio::complete((Write::new(&input, "x").link(), read().link(), Nop::new())).unwrap();
        assert_eq!(done.results, (Ok(1), Ok(1), Ok(())));

        let queue = Queue::<Done<Raw>>::with_config(2, engine.config).unwrap();
        let token = queue.submit(read(), |done| done).unwrap();
        assert!(queue.wait_until(std::time::Instant::now() + SOON).unwrap().next().is_none());
        queue.cancel(token).unwrap();
        let Done { result, op } = queue.wait(1).unwrap().next().unwrap().1;
        assert_eq!(result, Err(Error::Canceled));
        // It can be run again.
        queue.submit(op, |done| done).unwrap();
        assert_eq!(aio::single(Write::new(&input, "y")), Ok(1));
        assert_eq!(queue.wait(1).unwrap().next().unwrap().1.result, Ok(1));
        drop(queue);
        assert_eq!(&byte, b"y");
    });
}
