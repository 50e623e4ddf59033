//! Names of files.

use crate::{
    blocking::blocking,
    op::{LinkAt, RenameAt, SymlinkAt, UnlinkAt},
    single,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Renames a file or a directory within its file system. What has the new name is replaced, atomically.
///
/// ```
/// use aio::fs;
///
/// let dir = tempfile::tempdir()?;
/// let (draft, page) = (dir.path().join("draft"), dir.path().join("page"));
/// fs::write(&page, "old")?;
/// fs::write(&draft, "new")?;
/// fs::rename(&draft, &page)?;
/// assert_eq!(fs::read(&page)?, b"new");
/// assert!(!fs::exists(&draft)?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As `rename(2)`: [`CrossesDevices`](io::ErrorKind::CrossesDevices) if the names are on different file systems, for
/// example.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    Ok(single(RenameAt::new(from.as_ref(), to.as_ref()))?)
}

/// Removes a file's name, and the file with its last one. A symbolic link is removed itself.
///
/// # Errors
///
/// As `unlink(2)`: [`NotFound`](io::ErrorKind::NotFound) if there is none, and
/// [`IsADirectory`](io::ErrorKind::IsADirectory) (or `EPERM`) for a directory.
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    Ok(single(UnlinkAt::new(path.as_ref()))?)
}

/// Gives the file `original` the further name `link`. A symbolic link is given another name itself.
///
/// # Errors
///
/// As `link(2)`: [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the name is taken, for example.
pub fn hard_link(original: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    Ok(single(LinkAt::new(original.as_ref(), link.as_ref()))?)
}

/// Makes `link` a symbolic link that leads to `original`, which need not exist. A relative `original` starts from the
/// directory of the link.
///
/// # Errors
///
/// As `symlink(2)`: [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the name is taken, for example.
pub fn symlink(original: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    Ok(single(SymlinkAt::new(original.as_ref(), link.as_ref()))?)
}

/// Where a symbolic link leads, as it is written in the link.
///
/// # Errors
///
/// As `readlink(2)`: [`InvalidInput`](io::ErrorKind::InvalidInput) if it is no symbolic link.
pub fn read_link(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    let path = path.as_ref();
    blocking(|| std::fs::read_link(path))
}

/// The absolute path of what exists at `path`, without symbolic links, `.` and `..`; see `realpath(3)`.
///
/// ```
/// let path = aio::fs::canonicalize("src/../Cargo.toml")?;
/// assert!(path.is_absolute() && path.ends_with("Cargo.toml"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As `realpath(3)`: [`NotFound`](io::ErrorKind::NotFound) if nothing is there.
pub fn canonicalize(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    let path = path.as_ref();
    blocking(|| std::fs::canonicalize(path))
}
