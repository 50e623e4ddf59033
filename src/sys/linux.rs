//! Linux.

use super::{Timespec, ret, ret_len};
use libc::{c_char, c_int};
use std::{
    os::fd::RawFd,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

pub(crate) type Statx = libc::statx;

/// Flags with which descriptors are made.
pub(crate) const SOCK_CLOEXEC: c_int = libc::SOCK_CLOEXEC;
pub(crate) const MSG_NOSIGNAL: c_int = libc::MSG_NOSIGNAL;
/// What a send needs besides `MSG_DONTWAIT` so as not to wait: nothing.
pub(crate) const MSG_NBIO: c_int = 0;
pub(crate) const MSG_CMSG_CLOEXEC: c_int = libc::MSG_CMSG_CLOEXEC;
/// What the kernel says of a file that has no readiness.
pub(crate) const NOT_POLLABLE: c_int = libc::EBADFD;
pub(crate) const AT_EMPTY_PATH: c_int = libc::AT_EMPTY_PATH;
pub(crate) const SPLICE_NONBLOCK: u32 = libc::SPLICE_F_NONBLOCK;
pub(crate) const CLOCK_BOOTTIME: libc::clockid_t = libc::CLOCK_BOOTTIME;

/// A page that reads as zeros in a forked child; null if the kernel has none (before 4.14).
pub(crate) fn page_wiped_on_fork() -> *mut u8 {
    // The smallest page that there is; what is mapped and advised is rounded up to whole ones.
    const SIZE: usize = 4096;
    // qemu's user mode emulation grants any advice and follows none, so its word is worth nothing.
    const NO_ADVICE: c_int = -1;
    // SAFETY: a fresh private mapping, which no one else knows.
    unsafe {
        let page = libc::mmap(
            ptr::null_mut(),
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        if libc::madvise(page, SIZE, NO_ADVICE) == 0 || libc::madvise(page, SIZE, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, SIZE);
            return ptr::null_mut();
        }
        page.cast()
    }
}

/// Without such a call (an emulator, a filter; not every libc says so itself) nothing can tell.
fn known(result: i32) -> i32 {
    if result == -libc::ENOSYS { -libc::EOPNOTSUPP } else { result }
}

/// `preadv2(2)` with `RWF_NOWAIT`: `-EAGAIN` if it would wait, `-EOPNOTSUPP` if the file cannot tell.
///
/// # Safety
/// `iov` points to `count` vectors of writable memory.
pub(crate) unsafe fn read_nowait(fd: RawFd, iov: *const libc::iovec, count: u32, offset: u64) -> i32 {
    // SAFETY: promised by the caller.
    known(ret_len(unsafe { libc::preadv2(fd, iov, count as c_int, offset as libc::off_t, libc::RWF_NOWAIT) }))
}

/// `pwritev2(2)` with `RWF_NOWAIT`, as [`read_nowait`].
///
/// # Safety
/// `iov` points to `count` vectors of readable memory.
pub(crate) unsafe fn write_nowait(fd: RawFd, iov: *const libc::iovec, count: u32, offset: u64) -> i32 {
    // SAFETY: promised by the caller.
    known(ret_len(unsafe { libc::pwritev2(fd, iov, count as c_int, offset as libc::off_t, libc::RWF_NOWAIT) }))
}

/// # Safety
/// `addr` and `len` are null, or valid for an address.
pub(crate) unsafe fn accept(fd: RawFd, addr: *mut libc::sockaddr, len: *mut libc::socklen_t, flags: c_int) -> i32 {
    // SAFETY: promised by the caller.
    ret(unsafe { libc::accept4(fd, addr, len, flags) })
}

pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> i32 {
    // SAFETY: takes numbers only.
    ret(unsafe { libc::socket(domain, kind, protocol) })
}

/// # Safety
/// `path` is a C string and `out` is writable.
pub(crate) unsafe fn statx(dir: RawFd, path: *const c_char, flags: c_int, mask: u32, out: *mut Statx) -> i32 {
    // SAFETY: promised by the caller.
    ret(unsafe { libc::statx(dir, path, flags, mask, out) })
}

/// # Safety
/// `from` and `to` are C strings.
pub(crate) unsafe fn rename(from_dir: RawFd, from: *const c_char, to_dir: RawFd, to: *const c_char, flags: u32) -> i32 {
    // SAFETY: promised by the caller. Through `syscall`, for musl lacks the wrapper.
    ret(unsafe { libc::syscall(libc::SYS_renameat2, from_dir, from, to_dir, to, flags) } as c_int)
}

pub(crate) fn allocate(fd: RawFd, mode: c_int, offset: u64, len: u64) -> i32 {
    // SAFETY: takes numbers only.
    ret(unsafe { libc::fallocate(fd, mode, offset as libc::off_t, len as libc::off_t) })
}

pub(crate) fn advise(fd: RawFd, offset: u64, len: u32, advice: c_int) -> i32 {
    // SAFETY: takes numbers only. Returns the error instead of setting `errno`.
    -unsafe { libc::posix_fadvise(fd, offset as libc::off_t, libc::off_t::from(len), advice) }
}

pub(crate) fn sync_data(fd: RawFd) -> i32 {
    // SAFETY: takes a number only.
    ret(unsafe { libc::fdatasync(fd) })
}

pub(crate) fn splice(from: RawFd, from_offset: u64, to: RawFd, to_offset: u64, len: u32, flags: u32) -> i32 {
    let (mut from_at, mut to_at) = (from_offset as libc::loff_t, to_offset as libc::loff_t);
    let pointer = |at: &mut libc::loff_t| if *at < 0 { ptr::null_mut() } else { ptr::from_mut(at) };
    // SAFETY: the offsets are locals, or null for the current position.
    ret_len(unsafe { libc::splice(from, pointer(&mut from_at), to, pointer(&mut to_at), len as usize, flags) })
}

/// `tee(2)`. Of nothing it would look at no descriptor, where a ring does.
pub(crate) fn tee(from: RawFd, to: RawFd, len: u32, flags: u32) -> i32 {
    if len == 0 {
        return if super::file_type(from).and(super::file_type(to)).is_ok() { 0 } else { -libc::EBADF };
    }
    // SAFETY: takes numbers only.
    ret_len(unsafe { libc::tee(from, to, len as usize, flags) })
}

/// `pipe2(2)`.
///
/// # Safety
/// `fds` is valid for two descriptors.
pub(crate) unsafe fn pipe(fds: *mut c_int, flags: c_int) -> i32 {
    // SAFETY: promised by the caller.
    ret(unsafe { libc::pipe2(fds, flags) })
}

/// Wakes up to `count` threads of this process that wait for a word.
pub(crate) fn futex_wake(word: *const AtomicU32, count: u32) -> i32 {
    // SAFETY: the kernel takes the address for a name; it touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, count) } as c_int)
}

/// Whether the system has what [`futex_wait`] needs (Linux 5.16).
pub(crate) fn has_futex_waitv() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        // SAFETY: waits for no word, which is an error.
        let result = ret(
            unsafe { libc::syscall(libc::SYS_futex_waitv, ptr::null::<u8>(), 0, 0, ptr::null::<u8>(), 0) } as c_int,
        );
        result == -libc::EINVAL
    })
}

/// Waits until `word`, if it holds `value`, is woken: 0 then, and `-EAGAIN` if it holds another. Or until `stop`, which
/// is zero, is changed and woken: `-ECANCELED`. `futex_waitv(2)`.
///
/// # Safety
/// `word` is valid until this returns.
pub(crate) unsafe fn futex_wait(word: *const AtomicU32, value: u32, stop: &AtomicU32) -> i32 {
    /// `struct futex_waitv`.
    #[repr(C)]
    struct Waited {
        value: u64,
        address: u64,
        flags: u32,
        reserved: u32,
    }
    const FUTEX_32: u32 = 2;
    let waited = |word: *const AtomicU32, value: u32| {
        let flags = FUTEX_32 | libc::FUTEX_PRIVATE_FLAG as u32;
        Waited { value: value.into(), address: word as u64, flags, reserved: 0 }
    };
    // If both are woken the kernel names the last one: a wake that was taken is not lost.
    let words = [waited(stop, 0), waited(word, value)];
    loop {
        // SAFETY: two words, valid as the caller promises; no limit.
        let result = ret(unsafe {
            libc::syscall(libc::SYS_futex_waitv, &words, words.len(), 0, ptr::null::<libc::timespec>(), 0)
        } as c_int);
        let stopped = stop.load(Ordering::Acquire) != 0;
        match result {
            1 => return 0,
            0 if stopped => return -libc::ECANCELED,
            error if error == -libc::EAGAIN && stopped => return -libc::ECANCELED,
            // A wake of the word that stops, which came for another use of that memory; or a signal.
            0 => {}
            error if error == -libc::EINTR => {}
            error => return error,
        }
    }
}

/// A descriptor that becomes readable when the process ends, or `-errno`. Since Linux 5.3.
pub(crate) fn pidfd(pid: libc::pid_t) -> i32 {
    // SAFETY: takes numbers only.
    ret(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int)
}

/// Whether two descriptors of this process are the same open file.
pub(crate) fn same_file(a: RawFd, b: RawFd) -> bool {
    const KCMP_FILE: c_int = 0;
    let pid = std::process::id() as libc::pid_t;
    // SAFETY: compares two numbers' meanings; touches no memory.
    a == b
        || match ret(unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, a, b) } as c_int) {
            // Left out of the kernel, or denied in a container. Sockets at least can be told apart by another way.
            error if error == -libc::ENOSYS || error == -libc::EPERM => {
                socket_inode(a).is_some_and(|inode| socket_inode(b) == Some(inode))
            }
            order => order == 0,
        }
}

/// What identifies a socket: each is opened once and has a number of its own.
fn socket_inode(fd: RawFd) -> Option<(libc::dev_t, libc::ino_t)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the structure on this frame if it returns 0.
    let stat = unsafe { (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| stat.assume_init()) }?;
    (stat.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some((stat.st_dev, stat.st_ino))
}

/// A counting semaphore as a descriptor pair (reader, writer), which are one here.
pub(crate) fn semaphore() -> Result<[RawFd; 2], i32> {
    // SAFETY: takes numbers only.
    match ret(unsafe { libc::eventfd(0, libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }) {
        fd if fd >= 0 => Ok([fd, fd]),
        error => Err(error),
    }
}

/// Bytes that one notification of a [`semaphore`] takes.
pub(crate) const SEMAPHORE_UNIT: usize = 8;

/// Waits for descriptors with a limit in nanoseconds, or none.
///
/// # Safety
/// `events` points to `max` writable events.
pub(crate) unsafe fn epoll_wait(epoll: RawFd, events: *mut libc::epoll_event, max: usize, limit: Option<u64>) -> i32 {
    use std::sync::atomic::AtomicBool;
    static LACKS_PWAIT2: AtomicBool = AtomicBool::new(false);
    if !LACKS_PWAIT2.load(Ordering::Relaxed) {
        let time = limit.map(Timespec::from_nanos);
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: promised by the caller; the time is null or a local in the kernel's layout.
        let count = ret(unsafe {
            libc::syscall(libc::SYS_epoll_pwait2, epoll, events, max as c_int, time, ptr::null::<u8>(), 8usize)
        } as c_int);
        match -count {
            libc::ENOSYS | libc::EPERM => LACKS_PWAIT2.store(true, Ordering::Relaxed),
            _ => return count,
        }
    }
    // Rounded up: waking early would mean spinning through the last fraction of a millisecond.
    let millis = limit.map_or(-1, |nanos| nanos.div_ceil(1_000_000).min(i32::MAX as u64) as c_int);
    // SAFETY: promised by the caller.
    ret(unsafe { libc::epoll_wait(epoll, events, max as c_int, millis) })
}

/// `ppoll(2)` with a limit in nanoseconds, or none.
pub(crate) fn poll(entries: &mut [libc::pollfd], limit: Option<u64>) -> i32 {
    let time = limit.map(|nanos| libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: a slice, and null or a local.
    ret(unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, time, ptr::null()) })
}

/// Begins to connect a socket that is in blocking mode, without blocking for longer than a tick.
///
/// There is no flag for a connect that does not wait, and the descriptor's own `O_NONBLOCK` is shared with whoever else
/// has it. The send time limit of the socket is as good: a connect that exceeds it goes on in the background and gives
/// `EINPROGRESS`. The old limit is put back.
///
/// # Safety
/// `addr` is valid for `len` bytes.
pub(crate) unsafe fn begin_connect(fd: RawFd, addr: *const libc::sockaddr, len: libc::socklen_t) -> i32 {
    const SIZE: libc::socklen_t = size_of::<libc::timeval>() as libc::socklen_t;
    let mut old = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let short = libc::timeval { tv_sec: 0, tv_usec: 1 };
    let mut old_len = SIZE;
    // SAFETY: the pointers are to locals of the sizes given, and to what the caller promises.
    unsafe {
        let option = (libc::SOL_SOCKET, libc::SO_SNDTIMEO);
        let failed = ret(libc::getsockopt(fd, option.0, option.1, (&raw mut old).cast(), &mut old_len));
        if failed < 0 {
            return failed;
        }
        let failed = ret(libc::setsockopt(fd, option.0, option.1, (&raw const short).cast(), SIZE));
        if failed < 0 {
            return failed;
        }
        let result = ret(libc::connect(fd, addr, len));
        libc::setsockopt(fd, option.0, option.1, (&raw const old).cast(), SIZE);
        result
    }
}

/// Whether writing to a closed pipe or socket raises `SIGPIPE` in this process.
pub(crate) fn sigpipe_is_live() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; the kernel fills the structure on this frame.
    unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction != libc::SIG_IGN
    }
}
