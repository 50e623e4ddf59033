//! Opening and closing.
#![allow(unsafe_code)]

use crate::{
    Closing, Descriptor, Error, Result,
    descriptor::Closable,
    lower::{Lower, Outcome},
    op::{Direct, Fd, Op, PathArg, RawOp, Target, lowered},
    sealed::Sealed,
};
use std::{
    fmt,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
};

/// The current directory, as the directory of relative paths. All operations on paths start from it unless told
/// otherwise.
// SAFETY: not a descriptor that could be closed, but the number which every call on paths takes for this directory.
pub const CURRENT_DIR: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };

/// The descriptor that an operation has given as its result.
pub(crate) fn owned(number: u32) -> OwnedFd {
    // SAFETY: called with the result of an operation that opens a descriptor, once, which owns it until here.
    unsafe { OwnedFd::from_raw_fd(number as i32) }
}

bitflags::bitflags! {
    /// How [`OpenAt`] opens: the flags of `open(2)`. Without any the file is opened for reading.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct OpenFlags: i32 {
        /// For writing only.
        const WRITE_ONLY = libc::O_WRONLY;
        /// For reading and writing.
        const READ_WRITE = libc::O_RDWR;
        /// Every write goes to the end.
        const APPEND = libc::O_APPEND;
        /// Creates the file if it does not exist, with the [mode](OpenAt::mode) given.
        const CREATE = libc::O_CREAT;
        /// With `CREATE`: fails with `AlreadyExists` if it does.
        const EXCLUSIVE = libc::O_EXCL;
        /// Empties the file.
        const TRUNCATE = libc::O_TRUNC;
        /// Fails with `NotADirectory` if it is none.
        const DIRECTORY = libc::O_DIRECTORY;
        /// Fails with `ELOOP` if the last part of the path is a symbolic link.
        const NO_FOLLOW = libc::O_NOFOLLOW;
        /// Does not make a terminal the controlling one.
        const NO_CTTY = libc::O_NOCTTY;
        /// Sets `O_NONBLOCK`. It matters for opening a FIFO and for other code; the operations here wait all the same.
        const NONBLOCK = libc::O_NONBLOCK;
        /// Writes are durable when they are done, data and metadata.
        const SYNC = libc::O_SYNC;
        /// Writes are durable when they are done, data only.
        const DATA_SYNC = libc::O_DSYNC;
        /// Bypasses the page cache; buffers, offsets and lengths have to be aligned.
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        const DIRECT = libc::O_DIRECT;
        /// Does not update the time of access.
        #[cfg(target_os = "linux")]
        const NO_ATIME = libc::O_NOATIME;
        /// A descriptor that only names the file.
        #[cfg(target_os = "linux")]
        const PATH = libc::O_PATH;
        /// A file without a name in the directory given.
        #[cfg(target_os = "linux")]
        const TEMPORARY = libc::O_TMPFILE;
        /// Signal-driven I/O.
        const ASYNC = libc::O_ASYNC;
    }
}

/// Opens a file: `openat(2)`. The output is an [`OwnedFd`], closed on `exec` unless made
/// [`inheritable`](Self::inheritable).
///
/// ```
/// use aio::op::{OpenAt, OpenFlags};
/// use std::{fs::File, io::Write as _};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("note");
/// let flags = OpenFlags::WRITE_ONLY | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
/// let mut file = File::from(aio::single(OpenAt::new(&path).flags(flags).mode(0o600))?);
/// file.write_all(b"made")?;
/// assert_eq!(std::fs::read(path)?, b"made");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_OPENAT`, Linux 5.6. A result that arrives after the operation was given up is closed.
#[derive(Debug)]
pub struct OpenAt<'p, D = BorrowedFd<'static>> {
    pub(super) dir: D,
    path: PathArg<'p>,
    flags: OpenFlags,
    mode: u32,
    inheritable: bool,
}

impl<'p> OpenAt<'p> {
    /// Opens for reading.
    pub fn new(path: impl Into<PathArg<'p>>) -> OpenAt<'p> {
        let flags = OpenFlags::empty();
        OpenAt { dir: CURRENT_DIR, path: path.into(), flags, mode: 0o666, inheritable: false }
    }
}

impl<'p, D: Descriptor> OpenAt<'p, D> {
    /// Relative paths start from this directory.
    pub fn dir<E: Descriptor>(self, dir: E) -> OpenAt<'p, E> {
        let OpenAt { path, flags, mode, inheritable, .. } = self;
        OpenAt { dir, path, flags, mode, inheritable }
    }

    /// How to open.
    pub fn flags(mut self, flags: OpenFlags) -> Self {
        self.flags = flags;
        self
    }

    /// The permissions of a file that is created, less the process's umask. 0o666 if not given.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The descriptor stays open in programs that the process executes.
    pub fn inheritable(mut self) -> Self {
        self.inheritable = true;
        self
    }

    /// Opens for the following operations of the same chain only; see [`Closing`]. The output is `()`.
    pub fn open_into(self, closing: &Closing) -> OpenInto<'p, '_, D> {
        OpenInto { open: self, closing }
    }

    /// Opens into the queue's table of files: the value is a [`FixedFile`](crate::FixedFile). See [`Direct`].
    pub fn direct(self) -> Direct<OpenAt<'p, D>> {
        Direct::new(self)
    }

    fn lower_to(&mut self, target: Target, cx: &mut Lower<'_>) -> Result<RawOp> {
        let dir = self.dir.lower_fd(cx)?;
        if self.flags.contains(OpenFlags::WRITE_ONLY | OpenFlags::READ_WRITE) {
            return Err(Error::Invalid(&"WRITE_ONLY and READ_WRITE exclude each other"));
        }
        let cloexec = if self.inheritable { 0 } else { libc::O_CLOEXEC };
        let flags = self.flags.bits() | cloexec;
        Ok(RawOp::Open { dir, path: self.path.lower()?, flags, mode: self.mode, target })
    }
}

impl<D> Sealed for OpenAt<'_, D> {}

impl<D: Descriptor> Op for OpenAt<'_, D> {
    gives!(OwnedFd);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| self.lower_to(Target::Table, cx))
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<OwnedFd> {
        self.dir.finished(&outcome);
        outcome.result().map(owned)
    }
}

/// Opens a file into a [`Closing`]; made by [`OpenAt::open_into`].
#[derive(Debug)]
pub struct OpenInto<'p, 'c, D = BorrowedFd<'static>> {
    open: OpenAt<'p, D>,
    closing: &'c Closing,
}

impl<D> Sealed for OpenInto<'_, '_, D> {}

impl<D: Descriptor> Op for OpenInto<'_, '_, D> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let op = self.open.lower_to(Target::Chain, cx)?;
            self.closing.begin_opening(cx)?;
            Ok(op)
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.open.dir.finished(&outcome);
        let result = outcome.unit();
        if result.is_err() {
            self.closing.opening_failed();
        }
        result
    }
}

/// Closes a descriptor: `close(2)`. It owns what it closes, or names a [`Closing`].
///
/// Whatever the result, the descriptor is gone: an error such as `EIO` tells about earlier writes. If the operation is
/// skipped, what it owns is closed by dropping it. Where the operation comes back with its result it is spent: to run it
/// again is [`Invalid`](Error::Invalid), unless it names a `Closing` that holds a descriptor.
///
/// ```
/// use aio::op::Close;
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// aio::single(Close::new(file))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_CLOSE`, Linux 5.6.
pub struct Close<C: Closable> {
    held: C::Held,
    /// What the running operation owns.
    given: Option<Fd>,
}

impl<C: Closable> Close<C> {
    /// Takes what owns the descriptor.
    pub fn new(target: C) -> Close<C> {
        Close { held: target.hold(), given: None }
    }
}

impl<C: Closable> fmt::Debug for Close<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Close").finish_non_exhaustive()
    }
}

impl<C: Closable> Sealed for Close<C> {}

impl<C: Closable> Op for Close<C> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = C::lower_close(&mut self.held, cx)?;
            self.given = Some(fd);
            Ok(RawOp::Close { fd })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        let result = outcome.unit();
        if let Some(fd) = self.given.take() {
            // An operation that was skipped never ran. After any other error the number may belong to another file
            // already;
            // `EBADF` is what a chain's `Close` gets whose `OpenAt` failed.
            C::raise_close(&mut self.held, fd, result != Err(Error::Skipped), &outcome);
        }
        result
    }
}
