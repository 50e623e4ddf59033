//! Reading and writing as [`std::io`] has it, by operations.

use crate::{
    Error, Result,
    buf::{MAX_TRANSFER, spare},
    op::{Read, Readv, Write, Writev},
    single,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::BorrowedFd,
};

/// The most buffers that one operation takes (`IOV_MAX`).
const MAX_PARTS: usize = 1024;

/// Enough to find out that a file ends, without an allocation.
const PROBE: usize = 32;

/// What a vector grows by at least while the length of its source is unknown.
const LEAST_GROWTH: usize = 8 << 10;

/// Repeats what a signal has interrupted.
pub(crate) fn uninterrupted<T>(mut run: impl FnMut() -> Result<T>) -> io::Result<T> {
    loop {
        match run() {
            Err(Error::Os(errno)) if errno.raw() == libc::EINTR => {}
            other => return Ok(other?),
        }
    }
}

pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let len = buf.len().min(MAX_TRANSFER);
    Ok(single(Read::new(fd, &mut buf[..len]))?)
}

pub(crate) fn read_at(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    check(offset)?;
    let len = buf.len().min(MAX_TRANSFER);
    Ok(single(Read::new(fd, &mut buf[..len]).at(offset))?)
}

pub(crate) fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    Ok(single(Write::new(fd, &buf[..buf.len().min(MAX_TRANSFER)]))?)
}

pub(crate) fn write_at(fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<usize> {
    check(offset)?;
    Ok(single(Write::new(fd, &buf[..buf.len().min(MAX_TRANSFER)]).at(offset))?)
}

/// The system's offsets are signed, and the operations take the largest number for the file's position.
fn check(offset: u64) -> io::Result<()> {
    i64::try_from(offset).map(drop).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

pub(crate) fn read_vectored(fd: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match fitting(parts.iter().map(|part| part.len())) {
        0 if !parts.is_empty() => read(fd, &mut parts[0]),
        count => Ok(single(Readv::new(fd, &mut parts[..count]))?),
    }
}

pub(crate) fn write_vectored(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    match fitting(parts.iter().map(|part| part.len())) {
        0 if !parts.is_empty() => write(fd, &parts[0]),
        count => Ok(single(Writev::new(fd, &parts[..count]))?),
    }
}

/// How many of the first buffers go into one operation.
fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut room = MAX_TRANSFER;
    let takes = |len: &usize| match room.checked_sub(*len) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    lengths.take(MAX_PARTS).take_while(takes).count()
}

/// Appends all that is left of a source of about `expected` bytes. What was read before an error stays in `bytes`.
pub(crate) fn read_to_end(fd: BorrowedFd<'_>, bytes: &mut Vec<u8>, expected: usize) -> io::Result<usize> {
    let (start, exact) = (bytes.len(), bytes.len().saturating_add(expected));
    bytes.try_reserve(expected)?;
    loop {
        if bytes.len() == bytes.capacity() {
            if expected > 0 && bytes.len() == exact {
                // A vector that was reserved for the whole of a file should not grow just to find its end.
                let mut probe = [0u8; PROBE];
                match uninterrupted(|| single(Read::new(fd, &mut probe)))? {
                    0 => return Ok(bytes.len() - start),
                    count => bytes.extend_from_slice(&probe[..count]),
                }
            }
            bytes.try_reserve(LEAST_GROWTH)?;
        }
        if uninterrupted(|| single(Read::new(fd, spare(bytes))))? == 0 {
            return Ok(bytes.len() - start);
        }
    }
}

/// Appends what `read` reads to `text`, which stays as it was if that is no UTF-8.
pub(crate) fn append_text(
    text: &mut String,
    read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut bytes = Vec::new();
    let result = read(&mut bytes);
    match String::from_utf8(bytes) {
        Ok(whole) if text.is_empty() => *text = whole,
        Ok(more) => text.push_str(&more),
        Err(_) => {
            let not_text = || io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
            return result.and_then(|_| Err(not_text()));
        }
    }
    result
}

/// [`io::Read`] for what is [`AsFd`](std::os::fd::AsFd), and tells by `expected` how much there may be to read.
macro_rules! impl_read {
    ($($type:ty),* ; $expected:expr) => {$(
        impl std::io::Read for $type {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                $crate::transfer::read(std::os::fd::AsFd::as_fd(self), buf)
            }

            fn read_vectored(&mut self, parts: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                $crate::transfer::read_vectored(std::os::fd::AsFd::as_fd(self), parts)
            }

            fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
                let expected: fn(&$type) -> usize = $expected;
                $crate::transfer::read_to_end(std::os::fd::AsFd::as_fd(self), bytes, expected(self))
            }

            fn read_to_string(&mut self, text: &mut String) -> std::io::Result<usize> {
                $crate::transfer::append_text(text, |bytes| self.read_to_end(bytes))
            }
        }
    )*};
}

/// [`io::Write`] for what is [`AsFd`](std::os::fd::AsFd). Nothing is buffered, so there is nothing to flush.
macro_rules! impl_write {
    ($($type:ty),*) => {$(
        impl std::io::Write for $type {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                $crate::transfer::write(std::os::fd::AsFd::as_fd(self), buf)
            }

            fn write_vectored(&mut self, parts: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                $crate::transfer::write_vectored(std::os::fd::AsFd::as_fd(self), parts)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    )*};
}

pub(crate) use {impl_read, impl_write};
