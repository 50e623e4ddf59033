//! Unixes other than Linux: macOS and FreeBSD are checked for, the rest is as POSIX has it.

use super::ret;
use libc::{c_char, c_int};
use std::{mem::MaybeUninit, os::fd::RawFd, ptr, sync::atomic::AtomicU32};

/// What `statx(2)` gives on Linux, as far as `fstatat(2)` knows it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Statx {
    pub(crate) stx_mask: u32,
    pub(crate) stx_blksize: u32,
    pub(crate) stx_nlink: u32,
    pub(crate) stx_uid: u32,
    pub(crate) stx_gid: u32,
    pub(crate) stx_mode: u16,
    pub(crate) stx_ino: u64,
    pub(crate) stx_size: u64,
    pub(crate) stx_blocks: u64,
    pub(crate) stx_atime: StatxTime,
    pub(crate) stx_btime: StatxTime,
    pub(crate) stx_ctime: StatxTime,
    pub(crate) stx_mtime: StatxTime,
    pub(crate) stx_dev_major: u32,
    pub(crate) stx_dev_minor: u32,
}

/// A time in [`Statx`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct StatxTime {
    pub(crate) tv_sec: i64,
    pub(crate) tv_nsec: u32,
}

/// `SOCK_CLOEXEC`. macOS has no such flag: a bit that no socket type uses, which [`socket`] and [`accept`] take out
/// again.
#[cfg(not(target_vendor = "apple"))]
pub(crate) const SOCK_CLOEXEC: c_int = libc::SOCK_CLOEXEC;
#[cfg(target_vendor = "apple")]
pub(crate) const SOCK_CLOEXEC: c_int = 1 << 28;

/// Old versions of macOS lack it. There the sockets made here have `SO_NOSIGPIPE`, which does the same.
pub(crate) const MSG_NOSIGNAL: c_int = libc::MSG_NOSIGNAL;

/// What a send needs besides `MSG_DONTWAIT` so as not to wait. macOS heeds that flag when it receives, but when it
/// sends only this one, which its public headers leave out: `sosendcheck` in `bsd/kern/uipc_socket.c` of XNU, versions
/// old and new. Were it to go away, a send to a full socket in blocking mode would hold its thread up, and nothing
/// worse.
#[cfg(target_vendor = "apple")]
pub(crate) const MSG_NBIO: c_int = 0x20000;
#[cfg(not(target_vendor = "apple"))]
pub(crate) const MSG_NBIO: c_int = 0;

/// Of a file that has no readiness.
pub(crate) const NOT_POLLABLE: c_int = libc::EBADF;

/// Zero where there is none; then whoever takes a descriptor out of a message sets `FD_CLOEXEC`.
#[cfg(not(target_vendor = "apple"))]
pub(crate) const MSG_CMSG_CLOEXEC: c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
pub(crate) const MSG_CMSG_CLOEXEC: c_int = 0;

/// Linux's number, which means nothing to the systems here: [`statx`] takes it out and calls `fstat(2)`.
pub(crate) const AT_EMPTY_PATH: c_int = 0x1000;

/// For [`splice`], which there is not.
pub(crate) const SPLICE_NONBLOCK: u32 = 2;

/// macOS's monotonic clock goes on while the system sleeps, which is what is wanted. FreeBSD has no clock of which that
/// is documented.
pub(crate) const CLOCK_BOOTTIME: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// None: not all of these systems have one, and the process id does as well.
pub(crate) fn page_wiped_on_fork() -> *mut u8 {
    ptr::null_mut()
}

/// There is no `RWF_NOWAIT`: `-EOPNOTSUPP`, as Linux says of a file that cannot tell whether it would wait. The caller
/// has other ways then.
///
/// # Safety
/// None is needed; it is unsafe where there is such a call.
pub(crate) unsafe fn read_nowait(_fd: RawFd, _iov: *const libc::iovec, _count: u32, _offset: u64) -> i32 {
    -libc::EOPNOTSUPP
}

/// As [`read_nowait`].
///
/// # Safety
/// As [`read_nowait`].
pub(crate) unsafe fn write_nowait(_fd: RawFd, _iov: *const libc::iovec, _count: u32, _offset: u64) -> i32 {
    -libc::EOPNOTSUPP
}

/// # Safety
/// `addr` and `len` are null, or valid for an address.
#[cfg(not(target_vendor = "apple"))]
pub(crate) unsafe fn accept(fd: RawFd, addr: *mut libc::sockaddr, len: *mut libc::socklen_t, flags: c_int) -> i32 {
    // SAFETY: promised by the caller.
    ret(unsafe { libc::accept4(fd, addr, len, flags) })
}

/// # Safety
/// `addr` and `len` are null, or valid for an address.
#[cfg(target_vendor = "apple")]
pub(crate) unsafe fn accept(fd: RawFd, addr: *mut libc::sockaddr, len: *mut libc::socklen_t, flags: c_int) -> i32 {
    // SAFETY: promised by the caller.
    let accepted = ret(unsafe { libc::accept(fd, addr, len) });
    if accepted < 0 {
        return accepted;
    }
    // Here the new socket inherits the listener's mode; elsewhere it does not, and what the caller gets is the same on
    // all.
    set_nonblocking(accepted, false);
    made_socket(accepted, flags)
}

#[cfg(not(target_vendor = "apple"))]
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> i32 {
    // SAFETY: takes numbers only.
    ret(unsafe { libc::socket(domain, kind, protocol) })
}

#[cfg(target_vendor = "apple")]
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> i32 {
    // SAFETY: takes numbers only.
    match ret(unsafe { libc::socket(domain, kind & !SOCK_CLOEXEC, protocol) }) {
        fd if fd >= 0 => made_socket(fd, kind),
        error => error,
    }
}

/// Gives a new socket what other systems give it when they make it. A process that another thread forks in between
/// inherits the descriptor; there is no way to avoid that on macOS.
#[cfg(target_vendor = "apple")]
fn made_socket(fd: RawFd, flags: c_int) -> i32 {
    let on: c_int = 1;
    // SAFETY: a descriptor just made, which nobody else knows; the pointer is to a local of the size given.
    unsafe {
        if flags & SOCK_CLOEXEC != 0 {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        let size = size_of::<c_int>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, (&raw const on).cast(), size);
    }
    fd
}

/// By `fstatat(2)`. All that it knows is filled in, whatever `mask` asks for. Of the flags only `AT_SYMLINK_NOFOLLOW`
/// is heeded: the others are hints about remote file systems.
///
/// # Safety
/// `path` is a C string and `out` is writable.
pub(crate) unsafe fn statx(dir: RawFd, path: *const c_char, flags: c_int, _mask: u32, out: *mut Statx) -> i32 {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: promised by the caller; the kernel fills the structure on this frame.
    let result = ret(unsafe {
        match flags & AT_EMPTY_PATH != 0 && *path == 0 {
            true if dir == libc::AT_FDCWD => libc::stat(c".".as_ptr(), stat.as_mut_ptr()),
            true => libc::fstat(dir, stat.as_mut_ptr()),
            false => libc::fstatat(dir, path, stat.as_mut_ptr(), flags & libc::AT_SYMLINK_NOFOLLOW),
        }
    });
    if result == 0 {
        // SAFETY: filled, for the call has succeeded; `out` is promised by the caller.
        unsafe { out.write(Statx::from(&stat.assume_init())) };
    }
    result
}

impl From<&libc::stat> for Statx {
    // The fields' types differ from one system to the next.
    #[allow(clippy::unnecessary_cast)]
    fn from(stat: &libc::stat) -> Statx {
        const BASIC: u32 = 0x7ff;
        const CREATED: u32 = 0x800;
        let time = |tv_sec, tv_nsec| StatxTime { tv_sec: tv_sec as i64, tv_nsec: tv_nsec as u32 };
        let made = time(stat.st_birthtime, stat.st_birthtime_nsec as i64);
        Statx {
            // A file system that does not remember says 0, or −1.
            stx_mask: if made.tv_sec > 0 { BASIC | CREATED } else { BASIC },
            stx_blksize: stat.st_blksize as u32,
            stx_nlink: stat.st_nlink as u32,
            stx_uid: stat.st_uid,
            stx_gid: stat.st_gid,
            stx_mode: stat.st_mode as u16,
            stx_ino: stat.st_ino as u64,
            stx_size: stat.st_size as u64,
            stx_blocks: stat.st_blocks as u64,
            stx_atime: time(stat.st_atime, stat.st_atime_nsec as i64),
            stx_btime: made,
            stx_ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
            stx_mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
            stx_dev_major: libc::major(stat.st_dev) as u32,
            stx_dev_minor: libc::minor(stat.st_dev) as u32,
        }
    }
}

/// Linux's flags: 1 for "do not replace", 2 for "exchange". Without any it is `renameat(2)`.
///
/// # Safety
/// `from` and `to` are C strings.
pub(crate) unsafe fn rename(from_dir: RawFd, from: *const c_char, to_dir: RawFd, to: *const c_char, flags: u32) -> i32 {
    // SAFETY: promised by the caller.
    unsafe {
        match flags {
            0 => ret(libc::renameat(from_dir, from, to_dir, to)),
            #[cfg(target_vendor = "apple")]
            1 => ret(libc::renameatx_np(from_dir, from, to_dir, to, libc::RENAME_EXCL)),
            #[cfg(target_vendor = "apple")]
            2 => ret(libc::renameatx_np(from_dir, from, to_dir, to, libc::RENAME_SWAP)),
            // A link and an unlink would not be atomic, nor work for directories.
            #[cfg(not(target_vendor = "apple"))]
            1 | 2 => -libc::EOPNOTSUPP,
            _ => -libc::EINVAL,
        }
    }
}

/// Only the mode 0 of `fallocate(2)`, as `posix_fallocate(3)`.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn allocate(fd: RawFd, mode: c_int, offset: u64, len: u64) -> i32 {
    if mode != 0 {
        return -libc::EOPNOTSUPP;
    }
    // SAFETY: takes numbers only. Returns the error instead of setting `errno`.
    -unsafe { libc::posix_fallocate(fd, offset as libc::off_t, len as libc::off_t) }
}

/// Only the mode 0 of `fallocate(2)`. macOS adds storage at a file's end only, so the holes of a sparse file stay.
#[cfg(target_vendor = "apple")]
pub(crate) fn allocate(fd: RawFd, mode: c_int, offset: u64, len: u64) -> i32 {
    let Some(end) = offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()) else { return -libc::EFBIG };
    if len == 0 {
        return -libc::EINVAL;
    }
    if mode != 0 {
        return -libc::EOPNOTSUPP;
    }
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the structure on this frame, and it is used only if it has.
    let stat = unsafe {
        match ret(libc::fstat(fd, stat.as_mut_ptr())) {
            0 => stat.assume_init(),
            error => return error,
        }
    };
    let missing = end as i64 - stat.st_size;
    if missing <= 0 {
        // Nothing to add. Whether the range has its storage can be told only for a file that has no holes at all.
        let is_whole = stat.st_blocks.saturating_mul(512) >= stat.st_size;
        return if is_whole { 0 } else { -libc::EOPNOTSUPP };
    }
    let mut store = libc::fstore_t {
        fst_flags: libc::F_ALLOCATEALL,
        fst_posmode: libc::F_PEOFPOSMODE,
        fst_offset: 0,
        fst_length: missing,
        fst_bytesalloc: 0,
    };
    // SAFETY: the structure is a local.
    match ret(unsafe { libc::fcntl(fd, libc::F_PREALLOCATE, &raw mut store) }) {
        error if error < 0 => error,
        // SAFETY: takes numbers only.
        _ => ret(unsafe { libc::ftruncate(fd, end as libc::off_t) }),
    }
}

/// The numbers of the advice are the same here as on Linux. macOS has no such call, and a hint may be ignored.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn advise(fd: RawFd, offset: u64, len: u32, advice: c_int) -> i32 {
    // SAFETY: takes numbers only. Returns the error instead of setting `errno`.
    -unsafe { libc::posix_fadvise(fd, offset as libc::off_t, libc::off_t::from(len), advice) }
}

/// The numbers of the advice are the same here as on Linux. macOS has no such call, and a hint may be ignored.
#[cfg(target_vendor = "apple")]
pub(crate) fn advise(fd: RawFd, _offset: u64, _len: u32, _advice: c_int) -> i32 {
    // SAFETY: takes numbers only.
    ret(unsafe { libc::fcntl(fd, libc::F_GETFD) }).min(0)
}

/// macOS's libc has `fdatasync`, but its headers do not declare it, and it promises nothing.
pub(crate) fn sync_data(fd: RawFd) -> i32 {
    #[cfg(not(target_vendor = "apple"))]
    use libc::fdatasync as sync;
    #[cfg(target_vendor = "apple")]
    use libc::fsync as sync;
    // SAFETY: takes a number only.
    ret(unsafe { sync(fd) })
}

pub(crate) fn splice(_from: RawFd, _: u64, _to: RawFd, _: u64, _len: u32, _flags: u32) -> i32 {
    -libc::ENOSYS
}

pub(crate) fn tee(_from: RawFd, _to: RawFd, _len: u32, _flags: u32) -> i32 {
    -libc::ENOSYS
}

pub(crate) fn futex_wake(_word: *const AtomicU32, _count: u32) -> i32 {
    -libc::ENOSYS
}

pub(crate) fn has_futex_waitv() -> bool {
    false
}

/// # Safety
/// None is needed; it is unsafe where there is such a call.
pub(crate) unsafe fn futex_wait(_word: *const AtomicU32, _value: u32, _stop: &AtomicU32) -> i32 {
    -libc::ENOSYS
}

/// `pipe2(2)`, with no flag but `O_CLOEXEC`.
///
/// # Safety
/// `fds` is valid for two descriptors.
pub(crate) unsafe fn pipe(fds: *mut c_int, flags: c_int) -> i32 {
    // SAFETY: promised by the caller.
    #[cfg(not(target_vendor = "apple"))]
    return ret(unsafe { libc::pipe2(fds, flags) });
    #[cfg(target_vendor = "apple")]
    {
        let _ = flags;
        // SAFETY: promised by the caller; the descriptors were just made.
        unsafe {
            let result = ret(libc::pipe(fds));
            if result == 0 {
                libc::fcntl(*fds, libc::F_SETFD, libc::FD_CLOEXEC);
                libc::fcntl(*fds.add(1), libc::F_SETFD, libc::FD_CLOEXEC);
            }
            result
        }
    }
}

/// None; `-ENOSYS` makes the caller look at the child now and then.
pub(crate) fn pidfd(_pid: libc::pid_t) -> i32 {
    -libc::ENOSYS
}

/// Whether two descriptors of this process are the same open file, as far as their numbers tell: nothing else does on
/// all versions of these systems.
pub(crate) fn same_file(a: RawFd, b: RawFd) -> bool {
    a == b
}

/// A counting semaphore as a descriptor pair (reader, writer): a pipe that holds one byte per count.
pub(crate) fn semaphore() -> Result<[RawFd; 2], i32> {
    let mut ends = [-1; 2];
    // SAFETY: the array is a local.
    #[cfg(not(target_vendor = "apple"))]
    let result = ret(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) });
    // SAFETY: the array is a local.
    #[cfg(target_vendor = "apple")]
    let result = ret(unsafe { libc::pipe(ends.as_mut_ptr()) });
    if result < 0 {
        return Err(result);
    }
    #[cfg(target_vendor = "apple")]
    for end in ends {
        // SAFETY: takes numbers only; the descriptor was just made. There is no call that does it in one, as in
        // `made_socket`.
        unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
        set_nonblocking(end, true);
    }
    Ok(ends)
}

/// Bytes that one notification of a [`semaphore`] takes.
pub(crate) const SEMAPHORE_UNIT: usize = 1;

/// `ppoll(2)` with a limit in nanoseconds, or none.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn poll(entries: &mut [libc::pollfd], limit: Option<u64>) -> i32 {
    let time = limit.map(|nanos| libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: a slice, and null or a local.
    ret(unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, time, ptr::null()) })
}

/// `poll(2)` with a limit in nanoseconds, or none. Rounded up to milliseconds: waking early would mean spinning through
/// the last fraction of one.
#[cfg(target_vendor = "apple")]
pub(crate) fn poll(entries: &mut [libc::pollfd], limit: Option<u64>) -> i32 {
    let millis = limit.map_or(-1, |nanos| nanos.div_ceil(1_000_000).min(i32::MAX as u64) as c_int);
    // SAFETY: a slice.
    ret(unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, millis) })
}

/// Sets or clears `O_NONBLOCK`. Gives 0, or `-errno`.
fn set_nonblocking(fd: RawFd, on: bool) -> i32 {
    // SAFETY: takes numbers only.
    unsafe {
        let old = ret(libc::fcntl(fd, libc::F_GETFL));
        if old < 0 {
            return old;
        }
        let new = if on { old | libc::O_NONBLOCK } else { old & !libc::O_NONBLOCK };
        if new == old { 0 } else { ret(libc::fcntl(fd, libc::F_SETFL, new)).min(0) }
    }
}

/// Begins to connect a socket that is in blocking mode, without blocking.
///
/// There is no flag for that, and no time limit that `connect(2)` heeds, so the socket is in non-blocking mode for the
/// length of the call. Whoever uses the same socket at that moment may be told `EAGAIN`; it is not connected yet, so
/// there is not much to use it for.
///
/// # Safety
/// `addr` is valid for `len` bytes.
pub(crate) unsafe fn begin_connect(fd: RawFd, addr: *const libc::sockaddr, len: libc::socklen_t) -> i32 {
    let failed = set_nonblocking(fd, true);
    if failed < 0 {
        return failed;
    }
    // SAFETY: promised by the caller.
    let result = ret(unsafe { libc::connect(fd, addr, len) });
    set_nonblocking(fd, false);
    result
}

/// Whether writing to a closed pipe or socket raises `SIGPIPE` in this process.
pub(crate) fn sigpipe_is_live() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; the kernel fills the structure on this frame, in which all zeros would be valid too.
    unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction != libc::SIG_IGN
    }
}
