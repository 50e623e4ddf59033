//! Operations on names in directories.

use crate::{
    Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Op, PathArg, RawOp, lowered, open::CURRENT_DIR},
    sealed::Sealed,
};
use std::os::fd::BorrowedFd;

bitflags::bitflags! {
    /// What [`RenameAt`] does if the new name exists. Linux; `renameat2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct RenameFlags: u32 {
        /// Fails with `AlreadyExists` instead of replacing it.
        const NO_REPLACE = 1;
        /// Swaps the two names atomically.
        const EXCHANGE = 2;
    }
}

/// Renames: `renameat2(2)`. What has the new name is replaced, unless [`flags`](Self::flags) say otherwise.
///
/// ```
/// use aio::op::{RenameAt, RenameFlags};
///
/// let dir = tempfile::tempdir()?;
/// std::fs::write(dir.path().join("a"), "1")?;
/// std::fs::write(dir.path().join("b"), "2")?;
/// let dir_fd = std::fs::File::open(dir.path())?;
/// let rename = |flags| aio::single(RenameAt::new("a", "b").from_dir(&dir_fd).to_dir(&dir_fd).flags(flags));
/// assert_eq!(rename(RenameFlags::NO_REPLACE).unwrap_err().raw_os_error(), Some(libc::EEXIST));
/// rename(RenameFlags::EXCHANGE)?;
/// assert_eq!(std::fs::read(dir.path().join("a"))?, b"2");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_RENAMEAT`, Linux 5.11.
#[derive(Debug)]
pub struct RenameAt<'p, D = BorrowedFd<'static>, E = BorrowedFd<'static>> {
    from_dir: D,
    from: PathArg<'p>,
    to_dir: E,
    to: PathArg<'p>,
    flags: RenameFlags,
}

impl<'p> RenameAt<'p> {
    /// Renames `from` to `to`.
    pub fn new(from: impl Into<PathArg<'p>>, to: impl Into<PathArg<'p>>) -> RenameAt<'p> {
        let (from, to, flags) = (from.into(), to.into(), RenameFlags::empty());
        RenameAt { from_dir: CURRENT_DIR, from, to_dir: CURRENT_DIR, to, flags }
    }
}

impl<'p, D: Descriptor, E: Descriptor> RenameAt<'p, D, E> {
    /// A relative old path starts from this directory.
    pub fn from_dir<F: Descriptor>(self, from_dir: F) -> RenameAt<'p, F, E> {
        let RenameAt { from, to_dir, to, flags, .. } = self;
        RenameAt { from_dir, from, to_dir, to, flags }
    }

    /// A relative new path starts from this directory.
    pub fn to_dir<F: Descriptor>(self, to_dir: F) -> RenameAt<'p, D, F> {
        let RenameAt { from_dir, from, to, flags, .. } = self;
        RenameAt { from_dir, from, to_dir, to, flags }
    }

    /// What to do if the new name exists.
    pub fn flags(mut self, flags: RenameFlags) -> Self {
        self.flags = flags;
        self
    }
}

impl<D, E> Sealed for RenameAt<'_, D, E> {}

impl<D: Descriptor, E: Descriptor> Op for RenameAt<'_, D, E> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let dirs = (self.from_dir.lower_fd(cx), self.to_dir.lower_fd(cx));
        lowered(|| {
            let (from_dir, to_dir) = (dirs.0?, dirs.1?);
            let (from, to) = (self.from.lower()?, self.to.lower()?);
            Ok(RawOp::Rename { from_dir, from, to_dir, to, flags: self.flags.bits() })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.from_dir.finished(&outcome);
        self.to_dir.finished(&outcome);
        outcome.unit()
    }
}

/// Makes a hard link: `linkat(2)`. A symbolic link is linked itself, unless [`follow`](Self::follow) is asked for.
///
/// ```
/// let dir = tempfile::tempdir()?;
/// let (a, b) = (dir.path().join("a"), dir.path().join("b"));
/// std::fs::write(&a, "one")?;
/// aio::single(aio::op::LinkAt::new(&a, &b))?;
/// assert_eq!(std::fs::read(&b)?, b"one");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_LINKAT`, Linux 5.15; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct LinkAt<'p, D = BorrowedFd<'static>, E = BorrowedFd<'static>> {
    from_dir: D,
    from: PathArg<'p>,
    to_dir: E,
    to: PathArg<'p>,
    follow: bool,
}

impl<'p> LinkAt<'p> {
    /// Gives the file `existing` the further name `new`.
    pub fn new(existing: impl Into<PathArg<'p>>, new: impl Into<PathArg<'p>>) -> LinkAt<'p> {
        let (from, to) = (existing.into(), new.into());
        LinkAt { from_dir: CURRENT_DIR, from, to_dir: CURRENT_DIR, to, follow: false }
    }
}

impl<'p, D: Descriptor, E: Descriptor> LinkAt<'p, D, E> {
    /// A relative existing path starts from this directory.
    pub fn from_dir<F: Descriptor>(self, from_dir: F) -> LinkAt<'p, F, E> {
        let LinkAt { from, to_dir, to, follow, .. } = self;
        LinkAt { from_dir, from, to_dir, to, follow }
    }

    /// A relative new path starts from this directory.
    pub fn to_dir<F: Descriptor>(self, to_dir: F) -> LinkAt<'p, D, F> {
        let LinkAt { from_dir, from, to, follow, .. } = self;
        LinkAt { from_dir, from, to_dir, to, follow }
    }

    /// Links what a symbolic link leads to.
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }
}

impl<D, E> Sealed for LinkAt<'_, D, E> {}

impl<D: Descriptor, E: Descriptor> Op for LinkAt<'_, D, E> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let dirs = (self.from_dir.lower_fd(cx), self.to_dir.lower_fd(cx));
        lowered(|| {
            let (from_dir, to_dir) = (dirs.0?, dirs.1?);
            let (from, to) = (self.from.lower()?, self.to.lower()?);
            let flags = if self.follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
            Ok(RawOp::Link { from_dir, from, to_dir, to, flags })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.from_dir.finished(&outcome);
        self.to_dir.finished(&outcome);
        outcome.unit()
    }
}

/// Removes a name: `unlinkat(2)`. A directory only with [`directory`](Self::directory), and if it is empty.
///
/// ```
/// use aio::op::UnlinkAt;
///
/// let dir = tempfile::tempdir()?;
/// std::fs::create_dir(dir.path().join("sub"))?;
/// assert!(aio::single(UnlinkAt::new(dir.path().join("sub"))).is_err());
/// aio::single(UnlinkAt::new(dir.path().join("sub")).directory())?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_UNLINKAT`, Linux 5.11.
#[derive(Debug)]
pub struct UnlinkAt<'p, D = BorrowedFd<'static>> {
    dir: D,
    path: PathArg<'p>,
    directory: bool,
}

impl<'p> UnlinkAt<'p> {
    /// Removes a file, or a symbolic link.
    pub fn new(path: impl Into<PathArg<'p>>) -> UnlinkAt<'p> {
        UnlinkAt { dir: CURRENT_DIR, path: path.into(), directory: false }
    }
}

impl<'p, D: Descriptor> UnlinkAt<'p, D> {
    /// A relative path starts from this directory.
    pub fn dir<E: Descriptor>(self, dir: E) -> UnlinkAt<'p, E> {
        UnlinkAt { dir, path: self.path, directory: self.directory }
    }

    /// Removes an empty directory instead.
    pub fn directory(mut self) -> Self {
        self.directory = true;
        self
    }
}

/// Makes a directory: `mkdirat(2)`.
///
/// ```
/// let dir = tempfile::tempdir()?;
/// aio::single(aio::op::MkDirAt::new(dir.path().join("sub")).mode(0o700))?;
/// assert!(dir.path().join("sub").is_dir());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_MKDIRAT`, Linux 5.15; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct MkDirAt<'p, D = BorrowedFd<'static>> {
    dir: D,
    path: PathArg<'p>,
    mode: u32,
}

impl<'p> MkDirAt<'p> {
    /// With the permissions 0o777, less the process's umask.
    pub fn new(path: impl Into<PathArg<'p>>) -> MkDirAt<'p> {
        MkDirAt { dir: CURRENT_DIR, path: path.into(), mode: 0o777 }
    }
}

impl<'p, D: Descriptor> MkDirAt<'p, D> {
    /// A relative path starts from this directory.
    pub fn dir<E: Descriptor>(self, dir: E) -> MkDirAt<'p, E> {
        MkDirAt { dir, path: self.path, mode: self.mode }
    }

    /// The permissions, less the process's umask.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// Makes a symbolic link: `symlinkat(2)`.
///
/// ```
/// let dir = tempfile::tempdir()?;
/// let link = dir.path().join("link");
/// aio::single(aio::op::SymlinkAt::new("anything", &link))?;
/// assert_eq!(std::fs::read_link(&link)?.to_str(), Some("anything"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SYMLINKAT`, Linux 5.15; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct SymlinkAt<'p, D = BorrowedFd<'static>> {
    target: PathArg<'p>,
    dir: D,
    path: PathArg<'p>,
}

impl<'p> SymlinkAt<'p> {
    /// Makes the link `path`, which leads to `target`. The target need not exist.
    pub fn new(target: impl Into<PathArg<'p>>, path: impl Into<PathArg<'p>>) -> SymlinkAt<'p> {
        SymlinkAt { target: target.into(), dir: CURRENT_DIR, path: path.into() }
    }
}

impl<'p, D: Descriptor> SymlinkAt<'p, D> {
    /// A relative link path starts from this directory.
    pub fn dir<E: Descriptor>(self, dir: E) -> SymlinkAt<'p, E> {
        SymlinkAt { target: self.target, dir, path: self.path }
    }
}

/// Operations in one directory that give nothing but success.
macro_rules! unit {
    ($name:ident, $this:ident, $dir:ident => $raw:expr) => {
        impl<D> Sealed for $name<'_, D> {}

        impl<D: Descriptor> Op for $name<'_, D> {
            gives!(());

            fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
                let $this = self;
                lowered(|| {
                    let $dir = $this.dir.lower_fd(cx)?;
                    Ok($raw)
                })
            }

            fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
                self.dir.finished(&outcome);
                outcome.unit()
            }
        }
    };
}

unit!(UnlinkAt, this, dir => RawOp::Unlink {
    dir,
    path: this.path.lower()?,
    flags: if this.directory { libc::AT_REMOVEDIR } else { 0 },
});
unit!(MkDirAt, this, dir => RawOp::Mkdir { dir, path: this.path.lower()?, mode: this.mode });
unit!(SymlinkAt, this, dir => RawOp::Symlink { target: this.target.lower()?, dir, path: this.path.lower()? });
