//! The operating system, as far as it differs from one Unix to the next.
//!
//! Everything here follows the kernel's convention: a result is a number, negative for `-errno`. What all Unixes share
//! is called through `libc` where it is needed.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
mod unix;
#[cfg(not(target_os = "linux"))]
pub(crate) use unix::*;

pub(crate) mod concurrent;
pub(crate) mod fork;
mod pages;

pub(crate) use pages::Pages;

use crate::error::Errno;
use std::time::Duration;

/// Seconds and nanoseconds as the kernel's 64-bit interfaces take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timespec {
    pub(crate) sec: i64,
    pub(crate) nsec: i64,
}

/// Far enough in the future for "never", near enough that adding it to now does not overflow the kernel's nanoseconds.
const LONGEST: u64 = i64::MAX as u64 / 2_000_000_000;

impl Timespec {
    /// Saturates at about 146 years.
    #[inline]
    pub(crate) fn from_duration(duration: Duration) -> Timespec {
        match duration.as_secs() {
            sec if sec < LONGEST => Timespec { sec: sec as i64, nsec: i64::from(duration.subsec_nanos()) },
            _ => Timespec { sec: LONGEST as i64, nsec: 0 },
        }
    }

    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        (self.sec as u64).saturating_mul(1_000_000_000).saturating_add(self.nsec as u64)
    }

    pub(crate) fn from_nanos(nanos: u64) -> Timespec {
        Timespec { sec: (nanos / 1_000_000_000) as i64, nsec: (nanos % 1_000_000_000) as i64 }
    }
}

/// A system call's result in the kernel's convention.
#[inline]
pub(crate) fn ret(result: libc::c_int) -> i32 {
    if result < 0 { -Errno::last().raw() } else { result }
}

/// The same for calls that return a length.
#[inline]
pub(crate) fn ret_len(result: libc::ssize_t) -> i32 {
    if result < 0 { -Errno::last().raw() } else { result as i32 }
}

/// The time of a clock in nanoseconds.
#[inline]
pub(crate) fn now(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local; the clocks used exist on every supported system.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The monotonic clock, which all time limits count by.
#[inline]
pub(crate) fn monotonic() -> u64 {
    now(libc::CLOCK_MONOTONIC)
}

/// Calls `poll(2)` on one descriptor. Gives the ready mask, 0 for none, or `-errno`.
pub(crate) fn poll_one(fd: std::os::fd::RawFd, events: u16, millis: i32) -> i32 {
    let mut entry = libc::pollfd { fd, events: events as i16, revents: 0 };
    // SAFETY: one entry, on this frame.
    let count = ret(unsafe { libc::poll(&mut entry, 1, millis) });
    if count <= 0 { count } else { i32::from(entry.revents as u16) }
}

/// Whether a descriptor waits in the system call itself, because `O_NONBLOCK` is not set.
pub(crate) fn is_blocking(fd: std::os::fd::RawFd) -> bool {
    // SAFETY: reads flags of a descriptor, whichever it is.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK == 0
}

/// How many descriptors the process may have.
pub(crate) fn most_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    // The field's type differs between systems.
    #[allow(clippy::unnecessary_cast)]
    {
        limit.rlim_cur as u64
    }
}

/// Whether a descriptor was opened for writing, or for reading. It is not if it is not open at all.
pub(crate) fn is_open_for(fd: std::os::fd::RawFd, writing: bool) -> bool {
    // SAFETY: reads flags of a descriptor, whichever it is.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let wanted = if writing { libc::O_WRONLY } else { libc::O_RDONLY };
    flags >= 0 && (flags & libc::O_ACCMODE == wanted || flags & libc::O_ACCMODE == libc::O_RDWR)
}

/// The file type bits (`S_IFMT`) of a descriptor, or `-errno`.
pub(crate) fn file_type(fd: std::os::fd::RawFd) -> Result<libc::mode_t, i32> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the structure on this frame if it returns 0.
    match ret(unsafe { libc::fstat(fd, stat.as_mut_ptr()) }) {
        // SAFETY: filled, see above.
        0 => Ok(unsafe { stat.assume_init() }.st_mode & libc::S_IFMT),
        error => Err(error),
    }
}

/// Whether reads and writes of a descriptor go to a disk, where nothing tells when they would not wait.
pub(crate) fn is_disk(fd: std::os::fd::RawFd) -> bool {
    matches!(file_type(fd), Ok(libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR))
}

/// Whether a descriptor is a socket.
pub(crate) fn is_socket(fd: std::os::fd::RawFd) -> bool {
    matches!(file_type(fd), Ok(libc::S_IFSOCK))
}

/// Whether readiness alone tells if a descriptor would wait, without the system's help.
pub(crate) fn is_pipe_or_socket(fd: std::os::fd::RawFd) -> bool {
    matches!(file_type(fd), Ok(libc::S_IFIFO | libc::S_IFSOCK))
}

/// Whether a socket is a stream of bytes.
pub(crate) fn is_stream(fd: std::os::fd::RawFd) -> bool {
    socket_type(fd) == Ok(libc::SOCK_STREAM)
}

/// The family of a socket's own address, or `-errno`.
pub(crate) fn socket_domain(fd: std::os::fd::RawFd) -> i32 {
    let mut address = std::mem::MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the pointers are to locals of the sizes given; zeros are an address of no family.
    unsafe {
        match ret(libc::getsockname(fd, address.as_mut_ptr().cast(), &mut len)) {
            0 => i32::from((*address.as_ptr()).ss_family),
            error => error,
        }
    }
}

/// `SO_TYPE` of a socket, or `-errno`.
pub(crate) fn socket_type(fd: std::os::fd::RawFd) -> Result<i32, i32> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to locals of the sizes given.
    match ret(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &mut len) }) {
        0 => Ok(kind),
        error => Err(error),
    }
}
