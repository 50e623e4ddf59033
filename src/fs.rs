//! Files and directories, in the shape of [`std::fs`], by operations.
//!
//! The names and their meanings are the standard library's. What has an operation is done by it; the rest, such as
//! listing a directory, is given to a worker in pieces as large as is sensible. A [`File`] is
//! [`Read`](std::io::Read), [`Write`](std::io::Write) and [`Seek`](std::io::Seek), so
//! [`BufReader`](std::io::BufReader) and whatever else takes those works on it.
//!
//! ```
//! use aio::fs::{self, File};
//! use std::io::{BufRead, BufReader};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("notes/today");
//! fs::create_dir_all(path.parent().unwrap())?;
//! fs::write(&path, "one\ntwo\n")?;
//! let lines: Vec<String> = BufReader::new(File::open(&path)?).lines().collect::<Result<_, _>>()?;
//! assert_eq!(lines, ["one", "two"]);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Errors
//!
//! All functions give the operating system's own errors, which their man pages list. A path with a NUL byte is
//! [`InvalidInput`](std::io::ErrorKind::InvalidInput), an empty one [`NotFound`](std::io::ErrorKind::NotFound). If no
//! engine can be set up the error says so; see [`SetupError`](crate::SetupError).

mod dir;
mod file;
mod metadata;
mod names;
mod open;

pub use crate::op::FileType;
pub use dir::{DirEntry, ReadDir, create_dir, create_dir_all, read_dir, remove_dir, remove_dir_all};
pub use file::{File, copy, read, read_to_string, write};
pub use metadata::{Metadata, exists, metadata, set_permissions, symlink_metadata};
pub use names::{canonicalize, hard_link, read_link, remove_file, rename, symlink};
pub use open::OpenOptions;
pub use std::fs::{FileTimes, Permissions};
