//! How a file is opened.

use super::File;
use crate::{
    op::{OpenAt, OpenFlags},
    single,
    transfer::uninterrupted,
};
use std::{
    io::{self, ErrorKind},
    path::Path,
};

/// How to open a file: [`std::fs::OpenOptions`], by `openat(2)`.
///
/// Nothing is chosen at first, so at least one of [`read`](Self::read), [`write`](Self::write) and
/// [`append`](Self::append) has to be.
///
/// ```
/// use aio::fs::{self, OpenOptions};
/// use std::io::Write;
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("log");
/// for entry in ["one\n", "two\n"] {
///     let mut log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
///     log.write_all(entry.as_bytes())?;
/// }
/// assert_eq!(fs::read_to_string(&path)?, "one\ntwo\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    mode: u32,
    flags: i32,
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, $name: bool) -> &mut OpenOptions {
            self.$name = $name;
            self
        }
    )*};
}

impl OpenOptions {
    /// Nothing chosen, and permissions of 0o666 for what is created.
    #[allow(clippy::new_without_default)]
    pub fn new() -> OpenOptions {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o666,
            flags: 0,
        }
    }

    choices! {
        /// The file can be read.
        read
        /// The file can be written. What it holds stays until it is overwritten.
        write
        /// The file can be written, and each write goes to its end, whoever else writes meanwhile (`O_APPEND`).
        append
        /// Empties the file; needs `write`.
        truncate
        /// Creates the file if it does not exist; needs `write` or `append`.
        create
        /// Creates the file, and fails with [`AlreadyExists`](ErrorKind::AlreadyExists) if anything has that name, a
        /// symbolic link included; `create` and `truncate` do not count then. Needs `write` or `append`.
        create_new
    }

    /// The permissions of a file that is created, less the process's umask. 0o666 if not given.
    pub fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.mode = mode;
        self
    }

    /// Further flags of `open(2)`, such as `libc::O_NOFOLLOW`. The access mode in them is ignored.
    pub fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.flags = flags;
        self
    }

    /// Opens the file. It is closed on `exec`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the choices contradict each other, and what `open(2)` lists.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let flags = self.access()? | self.creation()? | OpenFlags::from_bits_retain(self.flags & !libc::O_ACCMODE);
        let path = path.as_ref();
        Ok(uninterrupted(|| single(OpenAt::new(path).flags(flags).mode(self.mode)))?.into())
    }

    fn access(&self) -> io::Result<OpenFlags> {
        match (self.read, self.write, self.append) {
            (true, false, false) => Ok(OpenFlags::empty()),
            (false, true, false) => Ok(OpenFlags::WRITE_ONLY),
            (true, true, false) => Ok(OpenFlags::READ_WRITE),
            (false, _, true) => Ok(OpenFlags::WRITE_ONLY | OpenFlags::APPEND),
            (true, _, true) => Ok(OpenFlags::READ_WRITE | OpenFlags::APPEND),
            (false, false, false) => Err(refused("choose at least one of read, write and append")),
        }
    }

    fn creation(&self) -> io::Result<OpenFlags> {
        if !self.write && !self.append && (self.truncate || self.create || self.create_new) {
            return Err(refused("creating or emptying a file needs write or append"));
        }
        if self.append && self.truncate && !self.create_new {
            return Err(refused("append and truncate exclude each other"));
        }
        Ok(match (self.create_new, self.create, self.truncate) {
            (true, ..) => OpenFlags::CREATE | OpenFlags::EXCLUSIVE,
            (false, true, true) => OpenFlags::CREATE | OpenFlags::TRUNCATE,
            (false, true, false) => OpenFlags::CREATE,
            (false, false, true) => OpenFlags::TRUNCATE,
            (false, false, false) => OpenFlags::empty(),
        })
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, why)
}
