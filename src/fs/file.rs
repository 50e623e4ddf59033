//! Open files, and what is done with the whole of one.

use super::{FileTimes, Metadata, OpenOptions, Permissions};
use crate::{
    blocking::blocking,
    op::{Close, Fsync, Ftruncate, Statx},
    single,
    transfer::{append_text, impl_read, impl_write, read_at, write_at},
};
use std::{
    fmt,
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd},
    path::Path,
    process::Stdio,
    time::SystemTime,
};

/// What [`copy`] does in one trip to a worker, in bytes: a fraction of a second's worth on slow storage.
const COPIED_AT_ONCE: u64 = 64 << 20;

/// An open file: [`std::fs::File`], by operations.
///
/// Reading, writing and seeking use the file's position in the kernel, which [`try_clone`](Self::try_clone)s share;
/// [`read_at`](Self::read_at) and its kin leave it alone, so that several threads or tasks can use one file. Nothing is
/// buffered. Dropping it closes the file and hides what `close(2)` says; see [`close`](Self::close).
///
/// ```
/// use aio::fs::File;
/// use std::io::{Read, Seek, SeekFrom, Write};
///
/// let dir = tempfile::tempdir()?;
/// let mut file = File::create_new(dir.path().join("greeting"))?;
/// file.write_all(b"hello, world")?;
/// file.seek(SeekFrom::End(-5))?;
/// let mut end = String::new();
/// file.read_to_string(&mut end)?;
/// assert_eq!(end, "world");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct File(std::fs::File);

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// As `open(2)`: [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied). A directory
    /// can be opened, and then not read.
    pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file for writing. It is created if it does not exist, and emptied if it does.
    ///
    /// # Errors
    ///
    /// As `open(2)`: [`IsADirectory`](ErrorKind::IsADirectory), [`PermissionDenied`](ErrorKind::PermissionDenied).
    pub fn create(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Creates a file that does not exist yet, for reading and writing.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if the name is taken; otherwise as `open(2)`.
    pub fn create_new(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// Opens in another way; the same as [`OpenOptions::new`].
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Reads at `offset` bytes from the start, without using the file's position; may give less than there is room for,
    /// and gives 0 at the end.
    ///
    /// ```
    /// let file = aio::fs::File::open("Cargo.toml")?;
    /// let mut name = [0u8; 7];
    /// file.read_exact_at(&mut name, 1)?;
    /// assert_eq!(&name, b"package");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As `pread(2)`.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(self.as_fd(), buf, offset)
    }

    /// Fills all of `buf` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](ErrorKind::UnexpectedEof) if the file ends before; otherwise as `pread(2)`. The contents of
    /// `buf` are unspecified then.
    pub fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file ends before the buffer")),
                Ok(count) => (buf, offset) = (&mut buf[count..], offset + count as u64),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes at `offset` bytes from the start, without using the file's position; may write less than all. In append
    /// mode Linux writes to the end all the same.
    ///
    /// # Errors
    ///
    /// As `pwrite(2)`.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        write_at(self.as_fd(), buf, offset)
    }

    /// Writes all of `buf` from `offset` on.
    ///
    /// # Errors
    ///
    /// As `pwrite(2)`; how much was written before is unknown then.
    pub fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write_at(buf, offset) {
                Ok(0) => return Err(io::Error::new(ErrorKind::WriteZero, "the file takes no more bytes")),
                Ok(count) => (buf, offset) = (&buf[count..], offset + count as u64),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until data and metadata are on the disk.
    ///
    /// # Errors
    ///
    /// As `fsync(2)`. `EIO` tells about earlier writes, and is told once.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(single(Fsync::new(self))?)
    }

    /// Waits until the data, and what metadata is needed to read it, are on the disk.
    ///
    /// # Errors
    ///
    /// As `fdatasync(2)`.
    pub fn sync_data(&self) -> io::Result<()> {
        Ok(single(Fsync::new(self).data_only())?)
    }

    /// Sets the length in bytes. What is added reads as zeros; the file's position stays, even behind the end.
    ///
    /// # Errors
    ///
    /// As `ftruncate(2)`: `EINVAL` if the file is not open for writing, for example.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(single(Ftruncate::new(self, len))?)
    }

    /// What is known about the file.
    ///
    /// # Errors
    ///
    /// As `statx(2)`.
    pub fn metadata(&self) -> io::Result<Metadata> {
        Ok(single(Statx::of(self))?.into())
    }

    /// Sets the permissions.
    ///
    /// # Errors
    ///
    /// As `fchmod(2)`.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        blocking(|| self.0.set_permissions(permissions))
    }

    /// Sets when the file was last read and written, as far as `times` says.
    ///
    /// # Errors
    ///
    /// As `futimens(3)`: [`PermissionDenied`](ErrorKind::PermissionDenied) (or `EPERM`) if it is somebody else's file.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        blocking(|| self.0.set_times(times))
    }

    /// Sets when the file was last written.
    ///
    /// # Errors
    ///
    /// As [`set_times`](Self::set_times).
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(time))
    }

    /// A further descriptor of the same open file: it has the same position.
    ///
    /// # Errors
    ///
    /// `EMFILE`, if the process has too many descriptors.
    pub fn try_clone(&self) -> io::Result<File> {
        self.0.try_clone().map(File)
    }

    /// Closes the file, and tells what dropping it hides.
    ///
    /// # Errors
    ///
    /// As `close(2)`: an error tells about earlier writes, `EDQUOT` on a network file system for example. The file is
    /// closed in any case.
    pub fn close(self) -> io::Result<()> {
        Ok(single(Close::new(self))?)
    }

    /// How many bytes there are from the file's position to its end, as far as that can be told.
    fn remaining(&self) -> usize {
        let Ok(about) = self.metadata() else { return 0 };
        let position = if about.is_file() { (&self.0).stream_position().unwrap_or(0) } else { 0 };
        usize::try_from(about.len().saturating_sub(position)).unwrap_or(0)
    }
}

impl_read!(File; |file| file.remaining());
impl_read!(&File; |file| file.remaining());
impl_write!(File, &File);

impl Seek for &File {
    /// Moves the file's position; it may be behind the end, not before the start.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut file = &self.0;
        match to {
            // The others change a number in memory; for the end, a network file system has to ask its server.
            SeekFrom::End(_) => blocking(|| file.seek(to)),
            SeekFrom::Start(_) | SeekFrom::Current(_) => file.seek(to),
        }
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl IntoRawFd for File {
    fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> File {
        File(file)
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> File {
        File(fd.into())
    }
}

impl From<File> for std::fs::File {
    fn from(file: File) -> std::fs::File {
        file.0
    }
}

impl From<File> for OwnedFd {
    fn from(file: File) -> OwnedFd {
        file.0.into()
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        file.0.into()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All bytes of a file.
///
/// ```
/// assert!(aio::fs::read("Cargo.toml")?.starts_with(b"[package]"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As [`File::open`] and `read(2)`: [`IsADirectory`](ErrorKind::IsADirectory) for a directory.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a file, as text.
///
/// # Errors
///
/// [`InvalidData`](ErrorKind::InvalidData) if it is not UTF-8; otherwise as [`read`].
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let (mut file, mut text) = (File::open(path)?, String::new());
    append_text(&mut text, |bytes| file.read_to_end(bytes))?;
    Ok(text)
}

/// Makes `contents` all that a file holds. It is created if it does not exist.
///
/// # Errors
///
/// As [`File::create`] and `write(2)`. The file is not replaced atomically: it may be left with a part.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all(contents.as_ref())
}

/// Copies a regular file's contents and permissions. Gives the number of bytes.
///
/// What `to` held is lost; if it is a symbolic link, the file that it leads to is written. Where the file system can
/// share or copy the storage by itself (`copy_file_range(2)`), it does.
///
/// ```
/// use aio::fs;
///
/// let dir = tempfile::tempdir()?;
/// let copy = dir.path().join("copy");
/// assert_eq!(fs::copy("Cargo.toml", &copy)?, fs::metadata("Cargo.toml")?.len());
/// assert_eq!(fs::read(&copy)?, fs::read("Cargo.toml")?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// [`InvalidInput`](ErrorKind::InvalidInput) if `from` is not a regular file, or both are the same file, which is left
/// as it is. Otherwise as [`File::open`], [`File::create`], `read(2)` and `write(2)`; a part may have been copied then.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<u64> {
    let source = File::open(from)?;
    let about = source.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "only a regular file can be copied"));
    }
    // Not emptied before it is known to be another file.
    let target = OpenOptions::new().write(true).create(true).mode(about.mode() & 0o7777).open(to)?;
    let there = target.metadata()?;
    if there.is_same_file(&about) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a file cannot be copied onto itself"));
    }
    if there.is_file() {
        target.set_len(0)?;
        target.set_permissions(about.permissions())?;
    }
    let (from, mut to) = (&source.0, &target.0);
    let mut copied = 0;
    loop {
        let count = blocking(|| io::copy(&mut from.take(COPIED_AT_ONCE), &mut to))?;
        copied += count;
        if count < COPIED_AT_ONCE {
            return Ok(copied);
        }
    }
}
