//! What the engine of a queue is told in advance: files and memory.

use super::Queue;
use crate::{
    Errno, Error, FixedBufs, FixedFile, Result, SetupError,
    driver::{
        buffers::{self, Registered},
        files,
    },
};
use std::os::fd::OwnedFd;

impl<E, const PLACE: usize> Queue<'_, E, PLACE> {
    /// Makes the queue's table of files with room for `capacity` of them, 1 to 1048320. Without this it is made when it
    /// is first needed, with 256 places. It cannot be changed later.
    ///
    /// ```
    /// use aio::{Error, Queue};
    /// use std::fs::File;
    ///
    /// let queue = Queue::<()>::new(4)?;
    /// queue.file_table(1)?;
    /// let file = queue.register_file(File::open("Cargo.toml")?)?;
    /// assert_eq!(queue.register_file(File::open("Cargo.toml")?).unwrap_err(), Error::FilesFull);
    /// drop(file);
    /// queue.register_file(File::open("Cargo.toml")?)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Invalid`](Error::Invalid) if there is a table already, if `capacity` is out of range, or with another 256 (the
    /// library's own) exceeds the number of descriptors that the process may have (`RLIMIT_NOFILE`), as the kernel
    /// demands; or if a chain with an [`open_into`](crate::op::OpenAt::open_into) is in flight in this queue.
    pub fn file_table(&self, capacity: usize) -> Result<()> {
        self.check_life()?;
        let capacity = u32::try_from(capacity).ok().filter(|&capacity| capacity > 0 && capacity <= files::MOST);
        let Some(capacity) = capacity else {
            return Err(Error::Invalid(&"a table of files has 1 to 1048320 places"));
        };
        if u64::from(capacity + files::BASE) > crate::sys::most_descriptors() {
            return Err(Error::Invalid(
                &"a table of files may have no more places, less 256, than the process may have descriptors; raise \
                  RLIMIT_NOFILE (ulimit -n) or make it smaller",
            ));
        }
        self.inner.engine.files(Some(capacity)).map(drop)
    }

    /// Moves a descriptor into the queue's table of files. The process's own is closed, whether it succeeds or not.
    ///
    /// # Errors
    ///
    /// [`FilesFull`](Error::FilesFull) if all places are taken, or the operating system's: `ENOMEM`, or `EBADF` for the
    /// descriptor of an io_uring.
    pub fn register_file(&self, fd: impl Into<OwnedFd>) -> Result<FixedFile> {
        let fd = fd.into();
        self.check_life()?;
        self.inner.engine.files(None)?.register(fd).map(FixedFile::new)
    }

    /// As [`cancel_fd`](Queue::cancel_fd), for all operations that were submitted with this file.
    ///
    /// # Errors
    ///
    /// [`Invalid`](Error::Invalid) if it is another queue's.
    pub fn cancel_file(&self, file: &FixedFile) -> Result<usize> {
        self.check_life()?;
        let name = file.name(self.inner.engine.serial())?;
        Ok(self.cancel_where(|mut op| op.fds_mut().into_iter().flatten().any(|fd| *fd == name)))
    }

    /// Makes `count` buffers of `size` bytes each, in memory that the kernel keeps locked: see [`FixedBufs`].
    ///
    /// # Errors
    ///
    /// - [`Invalid`](Error::Invalid) if one of the numbers is zero, or there are more than 1,048,576 buffers, or they
    ///   have more than 1 GiB together. Make several sets then.
    /// - [`SetupError::LockedMemory`] if the kernel does not lock that much: the process has neither `CAP_IPC_LOCK` nor
    ///   a sufficient `RLIMIT_MEMLOCK`, which counts what other rings of the user have locked, or there is no memory.
    /// - `ENOMEM` if the memory could not be allocated at all, `ENOSPC` if the queue has 1024 such sets of buffers.
    pub fn fixed_bufs(&self, count: usize, size: usize) -> Result<FixedBufs> {
        const RANGE: Error =
            Error::Invalid(&"fixed buffers have 1 byte to 1 GiB together, and are 1048576 at most; make several sets");
        self.check_life()?;
        let bytes = count.checked_mul(size).filter(|&bytes| bytes > 0 && bytes <= buffers::MOST && count <= 1 << 20);
        let bytes = bytes.ok_or(RANGE)?;
        let engine = &self.inner.engine;
        let memory = Registered::new(engine.buffers(), bytes, engine.serial()).map_err(|failure| match failure {
            buffers::Failure::Allocation => Error::Os(Errno::new(libc::ENOMEM)),
            buffers::Failure::Full => Error::Os(Errno::new(libc::ENOSPC)),
            buffers::Failure::Refused(errno) => SetupError::LockedMemory { errno: Errno::new(errno) }.into(),
        })?;
        // Both are less than the product, which was checked.
        Ok(FixedBufs::new(memory, count as u32, size as u32))
    }

    fn check_life(&self) -> Result<()> {
        if self.inner.engine.is_alive() { Ok(()) } else { Err(Error::Setup(SetupError::Forked)) }
    }
}
