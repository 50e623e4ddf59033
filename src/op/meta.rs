//! What is known about a file.
#![allow(unsafe_code)]

use crate::{
    Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Op, PathArg, RawOp, lowered, open::CURRENT_DIR},
    sealed::Sealed,
    sys,
};
use std::{
    fmt,
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    time::{Duration, SystemTime},
};

bitflags::bitflags! {
    /// Which fields [`Statx`] asks for. A file system may give more or fewer; see [`StatxResult::mask`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct StatxMask: u32 {
        /// The kind of file.
        const TYPE = 0x1;
        /// The permissions.
        const MODE = 0x2;
        /// The number of names.
        const LINKS = 0x4;
        /// The owner.
        const USER = 0x8;
        /// The group.
        const GROUP = 0x10;
        /// When it was last read.
        const ACCESSED = 0x20;
        /// When it was last written.
        const MODIFIED = 0x40;
        /// When its metadata last changed.
        const CHANGED = 0x80;
        /// The inode number.
        const INODE = 0x100;
        /// The length.
        const SIZE = 0x200;
        /// The storage used.
        const BLOCKS = 0x400;
        /// When it was made.
        const CREATED = 0x800;
        /// All that `stat(2)` gives.
        const BASIC = 0x7ff;
        /// That, and when it was made.
        const ALL = 0xfff;
    }
}

bitflags::bitflags! {
    /// How [`Statx`] looks. Linux; see `statx(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct StatxFlags: i32 {
        /// A symbolic link itself, not what it leads to.
        const NO_FOLLOW = libc::AT_SYMLINK_NOFOLLOW;
        /// Does not mount what the path would mount.
        const NO_AUTOMOUNT = 0x800;
        /// Asks a remote file system's server.
        const FORCE_SYNC = 0x2000;
        /// Takes what is known here.
        const DONT_SYNC = 0x4000;
    }
}

/// Finds out about a file: `statx(2)`.
///
/// ```
/// use aio::op::{FileType, Statx};
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// let (by_path, by_fd) = aio::multi((Statx::new("Cargo.toml"), Statx::of(&file)))?;
/// assert_eq!(by_path.file_type(), FileType::Regular);
/// assert_eq!(by_path.len(), file.metadata()?.len());
/// assert_eq!(by_path.inode(), by_fd.inode());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_STATX`, Linux 5.6.
pub struct Statx<'p, D = BorrowedFd<'static>> {
    dir: D,
    path: PathArg<'p>,
    flags: StatxFlags,
    of_descriptor: bool,
    mask: StatxMask,
    out: MaybeUninit<sys::Statx>,
}

impl<'p> Statx<'p> {
    /// The file at `path`, through symbolic links.
    pub fn new(path: impl Into<PathArg<'p>>) -> Statx<'p> {
        Statx::make(CURRENT_DIR, path.into(), false)
    }
}

impl<D: Descriptor> Statx<'static, D> {
    /// The open file itself.
    pub fn of(fd: D) -> Statx<'static, D> {
        Statx::make(fd, PathArg::empty(), true)
    }
}

impl<'p, D: Descriptor> Statx<'p, D> {
    fn make(dir: D, path: PathArg<'p>, of_descriptor: bool) -> Statx<'p, D> {
        let (flags, mask) = (StatxFlags::empty(), StatxMask::ALL);
        Statx { dir, path, flags, of_descriptor, mask, out: MaybeUninit::zeroed() }
    }

    /// A relative path starts from this directory.
    pub fn dir<E: Descriptor>(self, dir: E) -> Statx<'p, E> {
        let Statx { path, flags, of_descriptor, mask, out, .. } = self;
        Statx { dir, path, flags, of_descriptor, mask, out }
    }

    /// How to look.
    pub fn flags(mut self, flags: StatxFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Which fields are wanted; all if not given.
    pub fn mask(mut self, mask: StatxMask) -> Self {
        self.mask = mask;
        self
    }
}

impl<D> fmt::Debug for Statx<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statx").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<D> Sealed for Statx<'_, D> {}

impl<D: Descriptor> Op for Statx<'_, D> {
    gives!(StatxResult);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let dir = self.dir.lower_fd(cx)?;
            let itself = if self.of_descriptor { sys::AT_EMPTY_PATH } else { 0 };
            let flags = self.flags.bits() | itself;
            let path = self.path.lower()?;
            Ok(RawOp::Statx { dir, path, flags, mask: self.mask.bits(), out: self.out.as_mut_ptr() })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<StatxResult> {
        self.dir.finished(&outcome);
        outcome.unit()?;
        // SAFETY: zeroed from the start, which is a valid value of a structure of numbers, and filled by the kernel.
        Ok(StatxResult(unsafe { self.out.assume_init() }))
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, or a pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Something else.
    Unknown,
}

/// A point in time of a file, since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Further nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> SystemTime {
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        let base = match time.seconds {
            0.. => SystemTime::UNIX_EPOCH + whole,
            _ => SystemTime::UNIX_EPOCH - whole,
        };
        base + Duration::from_nanos(time.nanoseconds.into())
    }
}

/// What [`Statx`] found out.
#[derive(Clone, Copy)]
pub struct StatxResult(sys::Statx);

macro_rules! time {
    ($(#[$doc:meta] $name:ident: $field:ident),*) => {$(
        #[$doc]
        pub fn $name(&self) -> Timestamp {
            Timestamp { seconds: self.0.$field.tv_sec, nanoseconds: self.0.$field.tv_nsec }
        }
    )*};
}

// The length of a file, not of a collection.
#[allow(clippy::len_without_is_empty)]
impl StatxResult {
    /// Which fields are valid.
    pub fn mask(&self) -> StatxMask {
        StatxMask::from_bits_truncate(self.0.stx_mask)
    }

    /// What the file is.
    pub fn file_type(&self) -> FileType {
        match libc::mode_t::from(self.0.stx_mode) & libc::S_IFMT {
            libc::S_IFREG => FileType::Regular,
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            _ => FileType::Unknown,
        }
    }

    /// The permission bits, as in `chmod(1)`.
    pub fn permissions(&self) -> u32 {
        u32::from(self.0.stx_mode) & 0o7777
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.0.stx_size
    }

    /// The storage used, in units of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.0.stx_blocks
    }

    /// The size of block that suits transfers, in bytes.
    pub fn block_size(&self) -> u32 {
        self.0.stx_blksize
    }

    /// The number of names.
    pub fn links(&self) -> u32 {
        self.0.stx_nlink
    }

    /// The owner.
    pub fn user(&self) -> u32 {
        self.0.stx_uid
    }

    /// The group.
    pub fn group(&self) -> u32 {
        self.0.stx_gid
    }

    /// The inode number.
    pub fn inode(&self) -> u64 {
        self.0.stx_ino
    }

    /// Major and minor number of the device that holds the file.
    pub fn device(&self) -> (u32, u32) {
        (self.0.stx_dev_major, self.0.stx_dev_minor)
    }

    time! {
        /// When it was last read.
        accessed: stx_atime,
        /// When it was last written.
        modified: stx_mtime,
        /// When its metadata last changed.
        changed: stx_ctime
    }

    /// When it was made, if the file system remembers.
    pub fn created(&self) -> Option<Timestamp> {
        let time = self.0.stx_btime;
        let known = self.mask().contains(StatxMask::CREATED);
        known.then_some(Timestamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec })
    }
}

impl fmt::Debug for StatxResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatxResult")
            .field("type", &self.file_type())
            .field("permissions", &format_args!("{:#o}", self.permissions()))
            .field("len", &self.len())
            .field("inode", &self.inode())
            .field("modified", &self.modified())
            .finish_non_exhaustive()
    }
}
