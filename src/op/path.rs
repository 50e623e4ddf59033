//! Paths as operations take them.

use crate::{Errno, Error, Result};
use libc::c_char;
use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fmt,
    mem::MaybeUninit,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// A path for an operation. It is made from `&str`, `&Path`, `&OsStr`, `&CStr`, `String` and `PathBuf`.
///
/// Up to 255 bytes are copied into the operation, longer ones onto the heap; a `&CStr` is used where it is. A path with
/// a NUL byte makes the operation fail with [`Error::Invalid`].
pub struct PathArg<'p> {
    text: Text<'p>,
    inline: [MaybeUninit<u8>; INLINE],
    heap: Option<CString>,
}

enum Text<'p> {
    C(&'p CStr),
    Lent(&'p [u8]),
    Owned(Vec<u8>),
}

const INLINE: usize = 256;

impl<'p> PathArg<'p> {
    fn new(text: Text<'p>) -> PathArg<'p> {
        PathArg { text, inline: [MaybeUninit::uninit(); INLINE], heap: None }
    }

    /// The empty path: the descriptor itself.
    pub(crate) fn empty() -> PathArg<'static> {
        PathArg::new(Text::C(c""))
    }

    /// The path as the kernel takes it. Valid as long as the argument neither moves nor ends.
    pub(crate) fn lower(&mut self) -> Result<*const c_char> {
        let bytes = match &self.text {
            Text::C(text) => return Ok(text.as_ptr()),
            Text::Lent(bytes) => bytes,
            Text::Owned(bytes) => &bytes[..],
        };
        // The kernel's own answers. A ring would find these out before it starts a chain, and fail all of it.
        if bytes.is_empty() {
            return Err(Error::Os(Errno::new(libc::ENOENT)));
        }
        if bytes.len() >= libc::PATH_MAX as usize {
            return Err(Error::Os(Errno::new(libc::ENAMETOOLONG)));
        }
        if bytes.contains(&0) {
            return Err(Error::Invalid(&"the path contains a NUL byte; the system cannot take such a name"));
        }
        if bytes.len() < INLINE {
            for (to, from) in self.inline.iter_mut().zip(bytes.iter().chain(&[0])) {
                to.write(*from);
            }
            return Ok(self.inline.as_ptr().cast());
        }
        let text = CString::new(bytes).map_err(|_| Error::Invalid(&"the path contains a NUL byte"))?;
        Ok(self.heap.insert(text).as_ptr())
    }
}

impl<'p> From<&'p CStr> for PathArg<'p> {
    fn from(path: &'p CStr) -> PathArg<'p> {
        PathArg::new(Text::C(path))
    }
}

impl<'p> From<&'p OsStr> for PathArg<'p> {
    fn from(path: &'p OsStr) -> PathArg<'p> {
        PathArg::new(Text::Lent(path.as_bytes()))
    }
}

impl<'p> From<&'p Path> for PathArg<'p> {
    fn from(path: &'p Path) -> PathArg<'p> {
        path.as_os_str().into()
    }
}

impl<'p> From<&'p PathBuf> for PathArg<'p> {
    fn from(path: &'p PathBuf) -> PathArg<'p> {
        path.as_os_str().into()
    }
}

impl<'p> From<&'p str> for PathArg<'p> {
    fn from(path: &'p str) -> PathArg<'p> {
        OsStr::new(path).into()
    }
}

impl<'p> From<&'p String> for PathArg<'p> {
    fn from(path: &'p String) -> PathArg<'p> {
        path.as_str().into()
    }
}

impl From<OsString> for PathArg<'_> {
    fn from(path: OsString) -> Self {
        PathArg::new(Text::Owned(path.into_vec()))
    }
}

impl From<String> for PathArg<'_> {
    fn from(path: String) -> Self {
        PathArg::new(Text::Owned(path.into_bytes()))
    }
}

impl From<PathBuf> for PathArg<'_> {
    fn from(path: PathBuf) -> Self {
        path.into_os_string().into()
    }
}

impl fmt::Debug for PathArg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match &self.text {
            Text::C(text) => text.to_bytes(),
            Text::Lent(bytes) => bytes,
            Text::Owned(bytes) => bytes,
        };
        OsStr::from_bytes(bytes).fmt(f)
    }
}
