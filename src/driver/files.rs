//! Files that an engine keeps for handles of the program: in the ring's table, or as descriptors of its own where there
//! is none. The same number of places either way.
//!
//! ```text
//! the ring's table ┌────────────┬──────────────────────────┐
//!                  │ 256 places │ as many as the program   │
//!                  │ of chains  │ asked for                │
//!                  └────────────┴──────────────────────────┘
//!                    direct.rs    FileTable: place + BASE
//! ```

use crate::{
    Error, Result,
    op::{Fd, Target},
    sys::{self, fork::Life},
};
#[cfg(target_os = "linux")]
use std::{cell::Cell, os::fd::RawFd};
use std::{
    cell::{OnceCell, RefCell},
    fmt, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    rc::Rc,
};

/// Places of a ring's table that chains use. Those of handles follow.
pub(crate) const BASE: u32 = 256;
/// Places for handles, if nobody has said how many.
pub(crate) const DEFAULT: u32 = 256;
/// The most: the kernel's own limit is a million for all.
pub(crate) const MOST: u32 = (1 << 20) - BASE;

/// What is known about a file in a table, which cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Other,
    /// Reads and writes go to a disk.
    Disk,
    /// A stream socket, or another one.
    Stream,
    Messages,
    /// A stream socket of this machine.
    UnixStream,
}

impl Kind {
    pub(crate) fn of(fd: i32) -> Kind {
        match sys::socket_type(fd) {
            Ok(libc::SOCK_STREAM) if sys::socket_domain(fd) == libc::AF_UNIX => Kind::UnixStream,
            Ok(libc::SOCK_STREAM) => Kind::Stream,
            Ok(_) => Kind::Messages,
            Err(_) if sys::is_disk(fd) => Kind::Disk,
            Err(_) => Kind::Other,
        }
    }
}

/// Numbers below any that a system call takes for a descriptor or a directory, so that a place which gets there by
/// mistake is an error and no other file. Kind and place are in the lower bits.
const LIMIT: i32 = -(1 << 30);
const KIND_SHIFT: u32 = 24;

impl Fd {
    /// A place of the ring's table.
    pub(crate) const fn in_table(place: u32, kind: Kind) -> Fd {
        Fd::new(i32::MIN + (((kind as u32) << KIND_SHIFT) | place) as i32)
    }

    /// The place of the ring's table, if it is that.
    #[inline]
    pub(crate) fn place(self) -> Option<u32> {
        (self.number() < LIMIT).then(|| self.number() as u32 & ((1 << KIND_SHIFT) - 1))
    }

    fn kind_in_table(self) -> Option<Kind> {
        self.place()?;
        Some(match (self.number() as u32 >> KIND_SHIFT) & 7 {
            0 => Kind::Other,
            1 => Kind::Disk,
            2 => Kind::Stream,
            3 => Kind::Messages,
            _ => Kind::UnixStream,
        })
    }

    /// As [`sys::is_disk`]. Of a file that was opened into the table nobody knows, and the answer is no.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(crate) fn is_disk(self) -> bool {
        self.kind_in_table().map_or_else(|| sys::is_disk(self.number()), |kind| kind == Kind::Disk)
    }

    /// What kind of file it is.
    pub(crate) fn kind(self) -> Kind {
        self.kind_in_table().unwrap_or_else(|| Kind::of(self.number()))
    }

    /// As [`sys::socket_type`].
    pub(crate) fn socket_type(self) -> Result<i32, i32> {
        match self.kind_in_table() {
            None => sys::socket_type(self.number()),
            Some(Kind::Stream | Kind::UnixStream) => Ok(libc::SOCK_STREAM),
            Some(Kind::Messages) => Ok(libc::SOCK_DGRAM),
            Some(_) => Err(-libc::ENOTSOCK),
        }
    }
}

/// The files of one queue. Handles may outlive the queue; then there is nothing behind them.
pub(crate) struct FileTable {
    /// The number of the engine.
    engine: u64,
    /// The process that made it. A forked child touches nothing of its parent's.
    life: Life,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    capacity: u32,
    /// Places that nobody has.
    free: RefCell<Vec<u32>>,
    files: Files,
}

enum Files {
    /// In the process's table, by place.
    Descriptors(RefCell<Vec<Option<OwnedFd>>>),
    /// In the table of the ring with this descriptor, until it is closed.
    #[cfg(target_os = "linux")]
    Ring(Cell<Option<RawFd>>),
}

impl FileTable {
    fn new(engine: u64, capacity: u32, files: Files) -> FileTable {
        let free = RefCell::new((0..capacity).rev().collect());
        FileTable { engine, life: Life::current(), capacity, free, files }
    }

    /// With descriptors.
    pub(crate) fn of_descriptors(engine: u64, capacity: u32) -> FileTable {
        let files = (0..capacity).map(|_| None).collect();
        FileTable::new(engine, capacity, Files::Descriptors(RefCell::new(files)))
    }

    /// In a ring that has registered room for them.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_ring(engine: u64, capacity: u32, ring: RawFd) -> FileTable {
        FileTable::new(engine, capacity, Files::Ring(Cell::new(Some(ring))))
    }

    /// Takes a place, which is empty.
    pub(crate) fn reserve(self: &Rc<Self>, kind: Kind) -> Result<Kept> {
        let place = self.free.borrow_mut().pop().ok_or(Error::FilesFull)?;
        Ok(Kept { table: self.clone(), place, kind })
    }

    /// Moves a descriptor into a place.
    pub(crate) fn register(self: &Rc<Self>, fd: OwnedFd) -> Result<Kept> {
        let kept = self.reserve(Kind::of(fd.as_raw_fd()))?;
        match &self.files {
            Files::Descriptors(files) => files.borrow_mut()[kept.place as usize] = Some(fd),
            #[cfg(target_os = "linux")]
            Files::Ring(ring) => {
                let ring = ring.get().filter(|_| self.life.goes_on());
                let ring = ring.ok_or(Error::Invalid(&"the queue of this table of files is gone"))?;
                match super::uring::set_file(ring, BASE + kept.place, fd.as_raw_fd()) {
                    // The ring has the file now; the descriptor is closed.
                    0.. => drop(fd),
                    error => return Err(Error::Os(crate::Errno::new(-error))),
                }
            }
        }
        Ok(kept)
    }

    /// The queue goes: closes all that is left.
    fn close(&self) {
        if !self.life.goes_on() {
            return;
        }
        match &self.files {
            Files::Descriptors(files) => drop(mem::take(&mut *files.borrow_mut())),
            #[cfg(target_os = "linux")]
            Files::Ring(ring) => {
                if let Some(ring) = ring.take()
                    && self.free.borrow().len() < self.capacity as usize
                {
                    // The ring's own end would close them too, but some time later.
                    super::uring::forget_files(ring);
                }
            }
        }
    }

    fn vacate(&self, place: u32) {
        if !self.life.goes_on() {
            return;
        }
        match &self.files {
            Files::Descriptors(files) => {
                let file = files.borrow_mut().get_mut(place as usize).and_then(Option::take);
                drop(file);
            }
            #[cfg(target_os = "linux")]
            Files::Ring(ring) => {
                if let Some(ring) = ring.get() {
                    super::uring::set_file(ring, BASE + place, -1);
                }
            }
        }
        self.free.borrow_mut().push(place);
    }
}

/// Closes a table when its engine goes, whoever still has handles. It comes before the ring is closed.
#[derive(Default)]
pub(crate) struct ClosesFiles(pub(crate) OnceCell<Rc<FileTable>>);

impl Drop for ClosesFiles {
    fn drop(&mut self) {
        if let Some(table) = self.0.get() {
            table.close();
        }
    }
}

/// A place of a table, with what is in it; emptied when this is dropped.
pub(crate) struct Kept {
    table: Rc<FileTable>,
    place: u32,
    kind: Kind,
}

impl Kept {
    /// For an operation of the engine with this number.
    pub(crate) fn lower(&self, engine: u64) -> Result<Fd> {
        if self.table.engine != engine {
            return Err(Error::Invalid(
                &"the FixedFile belongs to a queue, and only that queue's operations can use it; get a descriptor with \
                  Install",
            ));
        }
        Ok(match &self.table.files {
            Files::Descriptors(files) => {
                Fd::new(files.borrow().get(self.place as usize).and_then(Option::as_ref).map_or(-1, OwnedFd::as_raw_fd))
            }
            #[cfg(target_os = "linux")]
            Files::Ring(_) => Fd::in_table(BASE + self.place, self.kind),
        })
    }

    /// Where an operation puts what it opens.
    pub(crate) fn target(&self) -> Target {
        match &self.table.files {
            Files::Descriptors(_) => Target::Table,
            #[cfg(target_os = "linux")]
            Files::Ring(_) => Target::Place(BASE + self.place),
        }
    }

    /// An operation with that target has succeeded, with this number.
    ///
    /// # Safety
    /// That is so, and nobody else has taken the number over.
    pub(crate) unsafe fn fill(&self, number: u32) {
        match &self.table.files {
            Files::Descriptors(files) => {
                // SAFETY: promised by the caller: an open descriptor that nobody owns.
                let fd = unsafe { OwnedFd::from_raw_fd(number as i32) };
                if let Some(place) = files.borrow_mut().get_mut(self.place as usize) {
                    *place = Some(fd);
                }
            }
            // The kernel has put it there.
            #[cfg(target_os = "linux")]
            Files::Ring(_) => {}
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.table.vacate(self.place);
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "place {}, {:?}", self.place, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        net::{TcpListener, UdpSocket},
        os::unix::net::{UnixDatagram, UnixStream},
    };

    #[test]
    fn places_look_like_nothing_else() {
        for kind in [Kind::Other, Kind::Disk, Kind::Stream, Kind::Messages, Kind::UnixStream] {
            for place in [0, 1, BASE, BASE + MOST] {
                let fd = Fd::in_table(place, kind);
                assert_eq!((fd.place(), fd.kind()), (Some(place), kind));
                assert!(!fd.is_opened());
            }
        }
        for other in [Fd::OPENED, Fd::new(-1), Fd::new(0), Fd::new(i32::MAX), Fd::new(libc::AT_FDCWD)] {
            assert_eq!(other.place(), None);
        }
    }
    #[test]
    fn the_kind_of_a_file_is_what_the_system_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (stream, _) = UnixStream::pair().unwrap();
        let (datagram, _) = UnixDatagram::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (pipe, _) = std::io::pipe().unwrap();
        let open_directory = File::open(directory.path()).unwrap();
        let all: [(&dyn AsRawFd, _, _); 7] = [
            (&file, Kind::Disk, Err(-libc::ENOTSOCK)),
            (&open_directory, Kind::Disk, Err(-libc::ENOTSOCK)),
            (&pipe, Kind::Other, Err(-libc::ENOTSOCK)),
            (&listener, Kind::Stream, Ok(libc::SOCK_STREAM)),
            (&stream, Kind::UnixStream, Ok(libc::SOCK_STREAM)),
            (&datagram, Kind::Messages, Ok(libc::SOCK_DGRAM)),
            (&udp, Kind::Messages, Ok(libc::SOCK_DGRAM)),
        ];
        for (at, (file, kind, socket)) in all.into_iter().enumerate() {
            // By its number, and in a table, where nobody can be asked.
            for fd in [Fd::new(file.as_raw_fd()), Fd::in_table(BASE, kind)] {
                assert_eq!((fd.kind(), fd.is_disk(), fd.socket_type()), (kind, kind == Kind::Disk, socket), "{at}");
            }
        }
    }
}
