//! Child processes, in the shape of [`std::process`], by operations.
//!
//! A [`Command`] is the standard library's, and so is what it means; waiting for a child and talking to it goes by
//! operations.
//!
//! ```
//! use aio::process::{Command, Stdio};
//! use std::io::{Read, Write};
//!
//! let mut sort = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//! sort.stdin.take().unwrap().write_all(b"pear\napple\n")?; // and closes it
//! let mut sorted = String::new();
//! sort.stdout.take().unwrap().read_to_string(&mut sorted)?;
//! assert_eq!(sorted, "apple\npear\n");
//! assert!(sort.wait()?.success());
//! # Ok::<(), std::io::Error>(())
//! ```

mod child;
mod command;

pub use child::{Child, ChildStderr, ChildStdin, ChildStdout};
pub use command::Command;
pub use std::process::{ExitStatus, Output, Stdio};
