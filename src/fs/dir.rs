//! Directories.

use super::{FileType, Metadata, metadata, symlink_metadata};
use crate::{
    blocking::blocking,
    op::{MkDirAt, UnlinkAt},
    single,
};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt,
    io::{self, ErrorKind},
    iter::FusedIterator,
    os::unix::fs::{DirEntryExt, FileTypeExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Entries that one trip to a worker fetches: enough that its cost does not show, few enough to begin soon.
const CHUNK: usize = 256;

/// The entries of a directory, in no particular order, without `.` and `..`.
///
/// They are fetched in chunks, so a worker is troubled once for a small directory. Entries that are made or removed
/// meanwhile may or may not be seen.
///
/// ```
/// let mut names = Vec::new();
/// for entry in aio::fs::read_dir("src/op")? {
///     names.push(entry?.file_name());
/// }
/// assert!(names.iter().any(|name| name == "nop.rs"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As `opendir(3)`: [`NotFound`](ErrorKind::NotFound), [`NotADirectory`](ErrorKind::NotADirectory). Each item may be
/// an error of `readdir(3)`, after which there are no more. In a task that is cancelled, or late, it is that error, and
/// the entries come when it no longer is.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    let path: Arc<Path> = path.as_ref().into();
    blocking(|| {
        let stream = Some(std::fs::read_dir(&path)?);
        let mut entries = ReadDir { path: Arc::clone(&path), stream, fetched: VecDeque::new() };
        entries.fetch();
        Ok(entries)
    })
}

/// The entries of a directory; made by [`read_dir`].
pub struct ReadDir {
    path: Arc<Path>,
    /// `None` when it has ended.
    stream: Option<std::fs::ReadDir>,
    fetched: VecDeque<io::Result<DirEntry>>,
}

impl ReadDir {
    fn fetch(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        self.fetched.extend(stream.take(CHUNK).map(|entry| Ok(DirEntry::new(&self.path, &entry?))));
        if self.fetched.len() < CHUNK {
            self.stream = None;
        }
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        if self.fetched.is_empty() && self.stream.is_some() {
            let fetched = blocking(|| {
                self.fetch();
                Ok(())
            });
            if let Err(error) = fetched {
                return Some(Err(error));
            }
        }
        self.fetched.pop_front()
    }
}

impl FusedIterator for ReadDir {}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadDir").field(&self.path).finish()
    }
}

/// An entry of a directory; see [`read_dir`].
pub struct DirEntry {
    dir: Arc<Path>,
    name: OsString,
    ino: u64,
    /// `None` if the system did not tell it along with the name.
    file_type: Option<FileType>,
}

impl DirEntry {
    fn new(dir: &Arc<Path>, entry: &std::fs::DirEntry) -> DirEntry {
        let file_type = entry.file_type().ok().map(converted);
        DirEntry { dir: Arc::clone(dir), name: entry.file_name(), ino: entry.ino(), file_type }
    }

    /// Its name in the directory.
    pub fn file_name(&self) -> OsString {
        self.name.clone()
    }

    /// Its path: that of the directory, as [`read_dir`] was given it, and the name.
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// What it is; a symbolic link is one, whatever it leads to. Nearly always known already.
    ///
    /// # Errors
    ///
    /// As [`symlink_metadata`], if the file system does not tell it along with the name.
    pub fn file_type(&self) -> io::Result<FileType> {
        self.file_type.map_or_else(|| Ok(self.metadata()?.file_type()), Ok)
    }

    /// What is known about it; of a symbolic link about itself.
    ///
    /// # Errors
    ///
    /// As [`symlink_metadata`]: [`NotFound`](ErrorKind::NotFound) if it was removed meanwhile.
    pub fn metadata(&self) -> io::Result<Metadata> {
        symlink_metadata(self.path())
    }

    /// Its inode number.
    pub fn ino(&self) -> u64 {
        self.ino
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirEntry").field(&self.path()).finish()
    }
}

fn converted(file_type: std::fs::FileType) -> FileType {
    match () {
        () if file_type.is_file() => FileType::Regular,
        () if file_type.is_dir() => FileType::Directory,
        () if file_type.is_symlink() => FileType::Symlink,
        () if file_type.is_fifo() => FileType::Fifo,
        () if file_type.is_socket() => FileType::Socket,
        () if file_type.is_char_device() => FileType::CharDevice,
        () if file_type.is_block_device() => FileType::BlockDevice,
        () => FileType::Unknown,
    }
}

/// Makes a directory with the permissions 0o777, less the process's umask.
///
/// # Errors
///
/// As `mkdir(2)`: [`AlreadyExists`](ErrorKind::AlreadyExists) if the name is taken, [`NotFound`](ErrorKind::NotFound)
/// if the directory that is to hold it does not exist.
pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    Ok(single(MkDirAt::new(path.as_ref()))?)
}

/// Makes a directory, and those on the way to it that do not exist. What exists already is no error, also if others
/// make the same at the same time.
///
/// # Errors
///
/// As [`create_dir`]; [`AlreadyExists`](ErrorKind::AlreadyExists) or [`NotADirectory`](ErrorKind::NotADirectory) if
/// something else is in the way. What was made until then stays.
pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let mut missing = Vec::new();
    // Without a `/.` at the end, which could only be made after what is before it.
    let path = path.as_ref().components().as_path();
    let mut at = Some(path).filter(|path| !path.as_os_str().is_empty());
    while let Some(path) = at {
        match create_if_missing(path) {
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = path.parent().ok_or(error)?;
                missing.push(path);
                // The parent of a relative name is the current directory.
                at = Some(parent).filter(|parent| !parent.as_os_str().is_empty());
            }
            Err(error) => return Err(error),
        }
    }
    missing.into_iter().rev().try_for_each(create_if_missing)
}

fn create_if_missing(path: &Path) -> io::Result<()> {
    match create_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound && metadata(path).is_ok_and(|about| about.is_dir()) => Ok(()),
        result => result,
    }
}

/// Removes an empty directory.
///
/// # Errors
///
/// As `rmdir(2)`: [`DirectoryNotEmpty`](ErrorKind::DirectoryNotEmpty), for example.
pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    Ok(single(UnlinkAt::new(path.as_ref()).directory())?)
}

/// Removes a directory and all that is in it. Symbolic links are removed, never followed, also if somebody replaces a
/// directory by one meanwhile. At `path` itself a symbolic link is removed as well.
///
/// A worker does all of it in one go, which cannot be cancelled.
///
/// # Errors
///
/// As [`read_dir`], [`remove_file`](super::remove_file) and [`remove_dir`]. What was removed until then is gone.
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    blocking(|| std::fs::remove_dir_all(path))
}
