//! What can go wrong: [`Error`] for one operation, [`SetupError`] for a whole batch that could not start.

use crate::Backend;
use std::{fmt, io};

/// The result of one operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why one operation gave no value.
///
/// It is `Copy`, costs no allocation, prints like [`std::io::Error`], and converts into one with `?`.
///
/// ```
/// use aio::{Error, op::Read};
/// use std::os::fd::AsFd;
///
/// let dir = std::fs::File::open(".")?;
/// let error = aio::single(Read::new(dir.as_fd(), &mut [0u8; 8])).unwrap_err();
/// assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
/// assert_eq!(error.to_string(), "Is a directory (os error 21)");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody cancelled the operation, by [`Cancel`](crate::op::Cancel) for example, before it had a result.
    #[error("the operation was cancelled")]
    Canceled,
    /// An earlier operation of its chain failed or fell short, so this one was never started.
    #[error("the operation was skipped: an earlier one of its chain failed or fell short")]
    Skipped,
    /// The operation's own [`timeout`](crate::op::Op::timeout) expired before it had a result.
    #[error("the operation timed out")]
    TimedOut,
    /// A task would have to wait for another task where it must not be suspended: while it panics, or inside
    /// [`coro::no_suspend`](crate::coro::no_suspend).
    #[error("a task cannot wait for another one while it panics, or inside coro::no_suspend")]
    NoSuspend,
    /// Every task waits for another one, so none would ever go on. The tasks, and what each waits for, were printed to
    /// standard error.
    #[error("deadlock: every task waits for another one")]
    Deadlock,
    /// What is waited for belongs to another runtime, or to none, and nothing here can end the wait.
    #[error(
        "only a task of the runtime that this belongs to can wait for it; call it inside coro::run and on that thread, \
         or use what sync::shared has"
    )]
    WrongRuntime,
    /// The operating system refused the operation.
    #[error(transparent)]
    Os(#[from] Errno),
    /// The operation's arguments cannot be right; it was never started. The text says what to change.
    #[error("{0}")]
    Invalid(&'static &'static str),
    /// Neither this engine nor its emulation can do this on this system. The text says why.
    #[error("{0}")]
    Unsupported(&'static &'static str),
    /// All places of the queue's table of [`FixedFile`](crate::FixedFile)s are taken.
    #[error("the queue's table of files is full; drop a FixedFile, or give it more places with Queue::file_table")]
    FilesFull,
    /// No engine could be set up, so nothing was started.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

// Small enough for a result to travel in registers; texts are therefore behind two references.
const _: () = assert!(size_of::<Error>() == 16 && size_of::<Result<()>>() == 16);

impl Error {
    /// The operating system's error number, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Os(errno) => Some(errno.raw()),
            Error::Setup(setup) => setup.raw_os_error(),
            _ => None,
        }
    }

    /// The kind the equivalent [`io::Error`] has.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Error::Canceled => Errno::new(libc::ECANCELED).kind(),
            Error::Skipped | Error::NoSuspend | Error::WrongRuntime => io::ErrorKind::Other,
            Error::Deadlock => Errno::new(libc::EDEADLK).kind(),
            Error::TimedOut => io::ErrorKind::TimedOut,
            Error::Os(errno) => errno.kind(),
            Error::FilesFull => Errno::new(libc::ENFILE).kind(),
            Error::Invalid(_) => io::ErrorKind::InvalidInput,
            Error::Unsupported(_) => io::ErrorKind::Unsupported,
            Error::Setup(setup) => setup.kind(),
        }
    }
}

impl From<Error> for io::Error {
    /// `Canceled` becomes `ECANCELED`, without an allocation and never `Interrupted`, so that retry loops end;
    /// see [`is_canceled`].
    fn from(error: Error) -> io::Error {
        match error {
            Error::Canceled => io::Error::from_raw_os_error(libc::ECANCELED),
            Error::TimedOut => io::ErrorKind::TimedOut.into(),
            Error::Os(errno) => io::Error::from_raw_os_error(errno.raw()),
            other => io::Error::new(other.kind(), other),
        }
    }
}

/// Whether an [`io::Error`] says that the operation was cancelled.
///
/// ```
/// assert!(aio::is_canceled(&aio::Error::Canceled.into()));
/// assert!(!aio::is_canceled(&aio::Error::Skipped.into()));
/// ```
///
/// That of a batch as well, if that is why it failed.
pub fn is_canceled(error: &io::Error) -> bool {
    let batch = || error.get_ref()?.downcast_ref::<BatchError>();
    error.raw_os_error() == Some(libc::ECANCELED) || batch().is_some_and(|batch| batch.error == Error::Canceled)
}

/// An error number of the operating system, as in `errno(3)`. Prints as [`io::Error`] does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// Wraps a number such as `libc::ENOENT`.
    pub const fn new(number: i32) -> Errno {
        Errno(number)
    }

    /// The number.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The portable kind.
    pub fn kind(self) -> io::ErrorKind {
        io::Error::from_raw_os_error(self.0).kind()
    }

    /// The calling thread's `errno`.
    pub(crate) fn last() -> Errno {
        Errno(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

/// Why a batch could not start. Nothing was submitted, nothing has happened (but for [`Forked`](SetupError::Forked)).
///
/// The texts say what to do about it:
///
/// ```
/// let empty: [aio::op::Nop; 0] = [];
/// let error = aio::complete(empty).unwrap_err();
/// assert_eq!(error, aio::SetupError::EmptyBatch);
/// assert_eq!(error.to_string(), "the batch has no operations; give it at least one");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The array, vector or slice holds no operation.
    #[error("the batch has no operations; give it at least one")]
    EmptyBatch,
    /// A chain needs more entries than the queue has. A chain is never split, for its links would break.
    #[error(
        "a chain of linked operations needs {len} entries (a timeout takes one of its own) and the queue has {max}; \
         shorten the chain or raise Config::entries"
    )]
    ChainTooLong {
        /// Entries the chain needs.
        len: u32,
        /// Entries the queue has.
        max: u32,
    },
    /// A queue has at least one place, and not more than a ring has entries.
    #[error("a queue has 1 to {max} places, and {asked} were asked for")]
    QueueSize {
        /// The places asked for.
        asked: u32,
        /// The most that there can be.
        max: u32,
    },
    /// `AIO_BACKEND` holds something else than the name of a backend.
    #[error("AIO_BACKEND is {:?}; use io_uring, epoll, poll or auto, or unset it", std::env::var_os("AIO_BACKEND").unwrap_or_default())]
    UnknownBackend,
    /// The backend asked for does not exist on this platform.
    #[error("the {0} backend does not exist on this platform; use Backend::Auto or Backend::Poll")]
    NoSuchBackend(Backend),
    /// io_uring was demanded and cannot be used here.
    #[error("io_uring cannot be used: {0}")]
    IoUring(Unavailable),
    /// The operating system refused something that the engine needs.
    #[error("cannot set up the {backend} engine: {call} failed: {errno}{}", hint(*errno))]
    Engine {
        /// The backend.
        backend: Backend,
        /// The system call.
        call: SetupCall,
        /// Its error.
        errno: Errno,
    },
    /// The kernel refused to lock the memory of [`Queue::fixed_bufs`](crate::Queue::fixed_bufs).
    #[error(
        "the kernel does not lock so much memory for fixed buffers ({errno}); ask for fewer or smaller ones, raise \
         RLIMIT_MEMLOCK (ulimit -l) or give the process CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// Its error.
        errno: Errno,
    },
    /// The process was forked while the batch ran, and this is the child, where none of it can be waited for.
    #[error("the process was forked while the batch ran; what it had started belongs to the parent")]
    Forked,
    /// `Config::set_default` was called a second time, or after an engine had been made from the defaults.
    #[error("the process-wide configuration is already in use; call set_default once, before the first operation")]
    AlreadyConfigured,
    /// `coro::run` was called on a thread that is inside a runtime already.
    #[error("this thread is inside a coroutine runtime already; spawn a task in it, or use another thread")]
    InsideRuntime,
    /// `coro::run` was called while a panic unwinds, when tasks cannot be switched.
    #[error("a coroutine runtime cannot be started while a panic unwinds")]
    Panicking,
}

/// A system call that sets up an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupCall {
    /// `epoll_create1(2)`.
    #[error("epoll_create1")]
    EpollCreate,
    /// `epoll_ctl(2)`.
    #[error("epoll_ctl")]
    EpollCtl,
    /// `eventfd(2)`, or `pipe(2)` where there is none.
    #[error("eventfd")]
    EventFd,
}

/// What a kernel's io_uring lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Feature {
    /// `IORING_SETUP_CQSIZE` or `IORING_SETUP_CLAMP` (5.6).
    #[error("IORING_SETUP_CQSIZE or IORING_SETUP_CLAMP")]
    SetupFlags,
    /// `IORING_FEAT_SINGLE_MMAP` (5.4).
    #[error("IORING_FEAT_SINGLE_MMAP")]
    SingleMmap,
    /// `IORING_FEAT_NODROP` (5.5).
    #[error("IORING_FEAT_NODROP")]
    NoDrop,
    /// `IORING_FEAT_SUBMIT_STABLE` (5.5).
    #[error("IORING_FEAT_SUBMIT_STABLE")]
    SubmitStable,
    /// `IORING_FEAT_RW_CUR_POS` (5.6).
    #[error("IORING_FEAT_RW_CUR_POS")]
    CurrentPosition,
    /// `IORING_FEAT_EXT_ARG` (5.11).
    #[error("IORING_FEAT_EXT_ARG")]
    TimedWait,
}

fn hint(errno: Errno) -> &'static str {
    match errno.raw() {
        libc::EMFILE => "; close descriptors or raise the limit (ulimit -n)",
        libc::ENFILE => "; the whole system is out of file descriptors (fs.file-max)",
        libc::ENOMEM => "; free memory or lower Config::entries",
        _ => "",
    }
}

impl SetupError {
    /// The operating system's error number, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            SetupError::IoUring(why) => why.raw_os_error(),
            SetupError::Engine { errno, .. } | SetupError::LockedMemory { errno } => Some(errno.raw()),
            _ => None,
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            SetupError::IoUring(_) | SetupError::NoSuchBackend(_) => io::ErrorKind::Unsupported,
            SetupError::Engine { errno, .. } | SetupError::LockedMemory { errno } => errno.kind(),
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// Why io_uring cannot be used in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The kernel has no io_uring at all, or a filter pretends so (`ENOSYS`).
    #[error(
        "the kernel does not know it (Linux 5.11 or newer is needed), or a seccomp filter hides it; \
         use a newer kernel, or the epoll backend"
    )]
    NotImplemented,
    /// The kernel's io_uring lacks something that the engine cannot do without.
    #[error("this kernel's io_uring lacks {0}; use Linux 5.11 or newer, or the epoll backend")]
    TooOld(Feature),
    /// `kernel.io_uring_disabled` forbids it.
    #[error(
        "the setting kernel.io_uring_disabled is {0}; set it to 0 (sysctl kernel.io_uring_disabled=0), \
         or use the epoll backend"
    )]
    Disabled(u8),
    /// Permission was denied, as the default seccomp filters of container runtimes do.
    #[error(
        "permission was denied, probably by the seccomp filter of a container; allow io_uring_setup, io_uring_enter and \
         io_uring_register in it, or use the epoll backend"
    )]
    Denied,
    /// There was not enough lockable memory.
    #[error(
        "the ring does not fit into the memory this process may lock; raise RLIMIT_MEMLOCK (ulimit -l) or lower Config::entries"
    )]
    Memory,
    /// Another error of `io_uring_setup(2)` or of mapping its memory.
    #[error("{0}{hint}", hint = hint(*.0))]
    Os(Errno),
    /// This is not Linux.
    #[error("it exists on Linux only")]
    NotLinux,
}

impl Unavailable {
    /// The operating system's error number behind it, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Unavailable::NotImplemented => Some(libc::ENOSYS),
            Unavailable::Disabled(_) | Unavailable::Denied => Some(libc::EPERM),
            Unavailable::Memory => Some(libc::ENOMEM),
            Unavailable::Os(errno) => Some(errno.raw()),
            Unavailable::TooOld(_) | Unavailable::NotLinux => None,
        }
    }
}

/// The first failure of a batch that was run by [`multi`](crate::multi).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {index} of the batch failed: {error}")]
pub struct BatchError {
    /// Position of the operation in the batch, counted from 0 through nested tuples.
    pub index: usize,
    /// What happened to it.
    #[source]
    pub error: Error,
}

impl From<BatchError> for io::Error {
    fn from(batch: BatchError) -> io::Error {
        io::Error::new(batch.error.kind(), batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::ErrorKind;

    const ENGINE: SetupError =
        SetupError::Engine { backend: Backend::Poll, call: SetupCall::EventFd, errno: Errno::new(libc::EMFILE) };

    /// Each error with the number and the kind that it is to have.
    fn all() -> Vec<(Error, Option<i32>, ErrorKind)> {
        let locked = SetupError::LockedMemory { errno: Errno::new(libc::ENOMEM) };
        let of_ring = |why| Error::Setup(SetupError::IoUring(why));
        vec![
            (Error::Canceled, None, Errno::new(libc::ECANCELED).kind()),
            (Error::Skipped, None, ErrorKind::Other),
            (Error::NoSuspend, None, ErrorKind::Other),
            (Error::WrongRuntime, None, ErrorKind::Other),
            (Error::TimedOut, None, ErrorKind::TimedOut),
            (Error::Deadlock, None, ErrorKind::Deadlock),
            (Error::FilesFull, None, Errno::new(libc::ENFILE).kind()),
            (Error::Invalid(&"why"), None, ErrorKind::InvalidInput),
            (Error::Unsupported(&"why"), None, ErrorKind::Unsupported),
            (Error::Os(Errno::new(libc::ENOENT)), Some(libc::ENOENT), ErrorKind::NotFound),
            (Error::Setup(SetupError::EmptyBatch), None, ErrorKind::InvalidInput),
            (Error::Setup(SetupError::NoSuchBackend(Backend::Epoll)), None, ErrorKind::Unsupported),
            (Error::Setup(ENGINE), Some(libc::EMFILE), Errno::new(libc::EMFILE).kind()),
            (Error::Setup(locked), Some(libc::ENOMEM), ErrorKind::OutOfMemory),
            (of_ring(Unavailable::NotImplemented), Some(libc::ENOSYS), ErrorKind::Unsupported),
            (of_ring(Unavailable::Disabled(2)), Some(libc::EPERM), ErrorKind::Unsupported),
            (of_ring(Unavailable::Denied), Some(libc::EPERM), ErrorKind::Unsupported),
            (of_ring(Unavailable::Memory), Some(libc::ENOMEM), ErrorKind::Unsupported),
            (of_ring(Unavailable::Os(Errno::new(libc::EMFILE))), Some(libc::EMFILE), ErrorKind::Unsupported),
            (of_ring(Unavailable::TooOld(Feature::NoDrop)), None, ErrorKind::Unsupported),
            (of_ring(Unavailable::NotLinux), None, ErrorKind::Unsupported),
        ]
    }

    #[test]
    fn an_error_keeps_its_kind_and_its_text_as_one_of_the_standard_librarys() {
        for (error, number, kind) in all() {
            assert_eq!((error.raw_os_error(), error.kind()), (number, kind), "{error:?}");
            let converted = io::Error::from(error);
            assert_eq!(converted.kind(), kind, "{error:?}");
            match error {
                // These two are the standard library's own, without an allocation.
                Error::Canceled => assert_eq!(converted.raw_os_error(), Some(libc::ECANCELED)),
                Error::TimedOut => assert!(converted.get_ref().is_none()),
                _ => assert_eq!(converted.to_string(), error.to_string()),
            }
            let in_batch = io::Error::from(BatchError { index: 3, error });
            assert_eq!(in_batch.kind(), kind, "{error:?}");
            assert_eq!(in_batch.to_string(), format!("operation 3 of the batch failed: {error}"));
            if let Error::Setup(setup) = error {
                let converted = io::Error::from(setup);
                assert_eq!((converted.kind(), converted.to_string()), (kind, error.to_string()));
            }
        }
    }

    #[test]
    fn an_error_of_the_system_converts_without_a_box() {
        let converted = io::Error::from(Error::Os(Errno::new(libc::ENOENT)));
        assert_eq!(converted.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn only_what_was_cancelled_is_canceled() {
        for (error, ..) in all() {
            let expected = error == Error::Canceled;
            assert_eq!(is_canceled(&error.into()), expected, "{error:?}");
            assert_eq!(is_canceled(&BatchError { index: 0, error }.into()), expected, "{error:?} of a batch");
        }
        assert!(!is_canceled(&ErrorKind::Interrupted.into()));
    }

    #[test]
    fn a_number_is_shown_as_the_standard_library_shows_it() {
        let (errno, text) = (Errno::new(libc::ENOENT), io::Error::from_raw_os_error(libc::ENOENT).to_string());
        assert_eq!((errno.raw(), errno.kind()), (libc::ENOENT, ErrorKind::NotFound));
        assert_eq!(errno.to_string(), text);
        assert_eq!(format!("{errno:?}"), format!("Errno({}: {text})", libc::ENOENT));
        assert!(std::fs::File::open("no such file").is_err());
        assert_eq!(Errno::last(), errno);
    }

    #[test]
    fn what_is_short_comes_with_a_remedy() {
        let hints = [(libc::EMFILE, "ulimit -n"), (libc::ENFILE, "fs.file-max"), (libc::ENOMEM, "Config::entries")];
        for (number, remedy) in hints {
            let text = Unavailable::Os(Errno::new(number)).to_string();
            assert!(text.contains(remedy), "{text}");
        }
        let plain = Errno::new(libc::EINVAL);
        assert_eq!(Unavailable::Os(plain).to_string(), plain.to_string());
        assert!(ENGINE.to_string().contains("the poll engine: eventfd failed"), "{ENGINE}");
    }
}
