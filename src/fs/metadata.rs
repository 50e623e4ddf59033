//! What is known about a file.

use super::Permissions;
use crate::{
    blocking::blocking,
    op::{FileType, Statx, StatxFlags, StatxMask, StatxResult, Timestamp},
    single,
};
use std::{
    fmt,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::SystemTime,
};

/// What is known about a file: [`std::fs::Metadata`], by `statx(2)`.
///
/// Made by [`metadata`], [`symlink_metadata`], [`File::metadata`](super::File::metadata) and
/// [`DirEntry::metadata`](super::DirEntry::metadata). It is a snapshot.
///
/// ```
/// let about = aio::fs::metadata("Cargo.toml")?;
/// assert!(about.is_file() && about.len() > 0);
/// assert!(about.modified()?.elapsed().is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Metadata(StatxResult);

impl From<StatxResult> for Metadata {
    fn from(result: StatxResult) -> Metadata {
        Metadata(result)
    }
}

// The length of a file, not of a collection.
#[allow(clippy::len_without_is_empty)]
impl Metadata {
    /// The length in bytes. For what is not a regular file the system decides what it means.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// What the file is.
    pub fn file_type(&self) -> FileType {
        self.0.file_type()
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type().is_file()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type().is_dir()
    }

    /// Whether it is a symbolic link, which only [`symlink_metadata`] finds.
    pub fn is_symlink(&self) -> bool {
        self.file_type().is_symlink()
    }

    /// The permissions, as [`set_permissions`] takes them.
    pub fn permissions(&self) -> Permissions {
        Permissions::from_mode(self.mode())
    }

    /// The kind of file and the permission bits, as `st_mode` in `inode(7)`.
    pub fn mode(&self) -> u32 {
        let kind = match self.file_type() {
            FileType::Regular => libc::S_IFREG,
            FileType::Directory => libc::S_IFDIR,
            FileType::Symlink => libc::S_IFLNK,
            FileType::Fifo => libc::S_IFIFO,
            FileType::Socket => libc::S_IFSOCK,
            FileType::CharDevice => libc::S_IFCHR,
            FileType::BlockDevice => libc::S_IFBLK,
            FileType::Unknown => 0,
        };
        #[allow(clippy::useless_conversion)] // The type differs from one system to the next.
        let kind = u32::from(kind);
        kind | self.0.permissions()
    }

    /// When it was last written.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) if the file system does not know.
    pub fn modified(&self) -> io::Result<SystemTime> {
        self.time(StatxMask::MODIFIED, self.0.modified())
    }

    /// When it was last read. Many systems keep this only roughly; see `noatime` in `mount(8)`.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) if the file system does not know.
    pub fn accessed(&self) -> io::Result<SystemTime> {
        self.time(StatxMask::ACCESSED, self.0.accessed())
    }

    /// When it was made.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) if the file system does not know, as many do not.
    pub fn created(&self) -> io::Result<SystemTime> {
        self.0.created().map(SystemTime::from).ok_or_else(unknown_time)
    }

    /// When its metadata last changed.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) if the file system does not know.
    pub fn changed(&self) -> io::Result<SystemTime> {
        self.time(StatxMask::CHANGED, self.0.changed())
    }

    fn time(&self, field: StatxMask, time: Timestamp) -> io::Result<SystemTime> {
        if self.0.mask().contains(field) { Ok(time.into()) } else { Err(unknown_time()) }
    }

    /// The user who owns it.
    pub fn uid(&self) -> u32 {
        self.0.user()
    }

    /// The group that owns it.
    pub fn gid(&self) -> u32 {
        self.0.group()
    }

    /// The inode number. Together with [`device`](Self::device) it tells whether two names are one file.
    pub fn ino(&self) -> u64 {
        self.0.inode()
    }

    /// The number of names (hard links).
    pub fn nlink(&self) -> u64 {
        self.0.links().into()
    }

    /// Major and minor number of the device that holds it.
    pub fn device(&self) -> (u32, u32) {
        self.0.device()
    }

    /// The storage used, in units of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    /// The size of block that suits transfers, in bytes.
    pub fn blksize(&self) -> u64 {
        self.0.block_size().into()
    }

    pub(super) fn is_same_file(&self, other: &Metadata) -> bool {
        (self.ino(), self.device()) == (other.ino(), other.device())
    }
}

fn unknown_time() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "the file system does not know this time of the file")
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("type", &self.file_type())
            .field("mode", &format_args!("{:#o}", self.mode()))
            .field("len", &self.len())
            .field("ino", &self.ino())
            .finish_non_exhaustive()
    }
}

impl FileType {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        *self == FileType::Regular
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        *self == FileType::Directory
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        *self == FileType::Symlink
    }
}

/// What is known about the file at `path`, through symbolic links.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) if there is none, or a symbolic link leads nowhere; otherwise as `statx(2)`.
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    Ok(single(Statx::new(path.as_ref()))?.into())
}

/// What is known about the file at `path`; of a symbolic link about itself.
///
/// # Errors
///
/// As [`metadata`].
pub fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    Ok(single(Statx::new(path.as_ref()).flags(StatxFlags::NO_FOLLOW))?.into())
}

/// Whether there is a file at `path`, through symbolic links.
///
/// ```
/// assert!(aio::fs::exists("Cargo.toml")?);
/// assert!(!aio::fs::exists("no such file")?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// If that cannot be found out, for lack of permission for a directory on the way for example.
pub fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    match metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets the permissions of the file at `path`, through symbolic links.
///
/// # Errors
///
/// As `chmod(2)`.
pub fn set_permissions(path: impl AsRef<Path>, permissions: Permissions) -> io::Result<()> {
    let path = path.as_ref();
    blocking(|| std::fs::set_permissions(path, permissions))
}
