//! Operations that put what they open into a queue's table of files, and the way back.
#![allow(unsafe_code)]

use super::{AcceptMulti, open::owned};
use crate::{
    Descriptor, FixedFile, Result,
    driver::{
        files::{Kept, Kind},
        shots::{Shot, Shots},
    },
    lower::{Lower, Outcome},
    op::{Accept, Address, Domain, MultiOp, Op, OpenAt, RawOp, Socket, SocketType, lowered},
    sealed::Sealed,
};
use std::os::fd::OwnedFd;

/// An operation that puts what it opens into the table of files of the [`Queue`](crate::Queue) it is submitted to,
/// instead of the process's descriptors; made by [`OpenAt::direct`], [`Socket::direct`], [`Accept::direct`] and
/// [`AcceptMulti::direct`].
///
/// The value is a [`FixedFile`], for `Accept` an [`AcceptedFile`]. What arrives too late for anybody to want leaves the
/// table at once. Where there is no table ([`FixedFile`] says where) the file has an ordinary descriptor behind it.
///
/// ```
/// use aio::{FixedFile, Queue, op::*, queue::Done};
///
/// enum Event {
///     Opened(aio::Result<FixedFile>),
///     Read(aio::Result<usize>, Vec<u8>),
/// }
///
/// let queue = Queue::new(4)?;
/// queue.submit(OpenAt::new("Cargo.toml").direct(), |done| Event::Opened(done.result))?;
/// let mut text: Vec<u8> = Vec::new();
/// while !queue.is_empty() {
///     for (_, event) in queue.wait(1)? {
///         match event {
///             Event::Opened(file) => {
///                 let read = Read::new(file?, vec![0; 9]).at(0);
///                 queue.submit(read, |done| Event::Read(done.result, done.op.into_buf()))?;
///             }
///             Event::Read(result, bytes) => text.extend(&bytes[..result?]),
///         }
///     }
/// }
/// assert_eq!(text, b"[package]");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Those of the operation, and
///
/// - [`FilesFull`](crate::Error::FilesFull): all places of the table are taken.
/// - [`Invalid`](crate::Error::Invalid): it was not submitted to a queue, but given to [`complete`](crate::complete).
///
/// The `file_index` of `IORING_OP_OPENAT` and `IORING_OP_ACCEPT` is of Linux 5.15, that of `IORING_OP_SOCKET` of 5.19;
/// used from 6.11 on.
#[derive(Debug)]
pub struct Direct<O> {
    op: O,
    /// Where the running operation puts it.
    place: Option<Kept>,
}

impl<O> Direct<O> {
    pub(super) fn new(op: O) -> Direct<O> {
        Direct { op, place: None }
    }

    /// Gives up the operation for the ordinary one.
    pub fn into_inner(self) -> O {
        self.op
    }
}

impl<O: Op> Direct<O> {
    /// Lowers the operation, and takes a place for what it will open.
    fn lower_to(&mut self, kind: impl FnOnce(&RawOp) -> Kind, cx: &mut Lower<'_>) -> RawOp {
        // First of all, as its descriptor has to be told in any case.
        let mut raw = self.op.lower(cx);
        let kind = kind(&raw);
        let (RawOp::Open { target, .. } | RawOp::Socket { target, .. } | RawOp::Accept { target, .. }) = &mut raw
        else {
            return raw;
        };
        match cx.files().and_then(|files| files.reserve(kind)) {
            Ok(place) => *target = self.place.insert(place).target(),
            Err(why) => raw = RawOp::Invalid(why),
        }
        raw
    }

    /// What the operation has opened. If it has failed, its place is free again.
    fn opened(&mut self, outcome: &Outcome<'_>) -> Result<FixedFile> {
        let place = self.place.take();
        let number = outcome.result()?;
        match place {
            Some(place) => {
                // SAFETY: the result of the operation that was lowered with this place, taken once.
                unsafe { place.fill(number) };
                Ok(FixedFile::new(place))
            }
            None => unreachable!("an operation without a place does not succeed"),
        }
    }
}

impl<O> Sealed for Direct<O> {}

impl<D: Descriptor> Op for Direct<OpenAt<'_, D>> {
    gives!(FixedFile);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        self.lower_to(|_| Kind::Other, cx)
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<FixedFile> {
        self.op.dir.finished(&outcome);
        self.opened(&outcome)
    }
}

impl Op for Direct<Socket> {
    gives!(FixedFile);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let kind = match (self.op.kind, self.op.domain) {
            (SocketType::Stream, Domain::Unix) => Kind::UnixStream,
            (SocketType::Stream, _) => Kind::Stream,
            _ => Kind::Messages,
        };
        self.lower_to(|_| kind, cx)
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<FixedFile> {
        self.opened(&outcome)
    }
}

/// A connection that was accepted into a queue's table of files; what [`Accept::direct`] gives.
#[derive(Debug)]
pub struct AcceptedFile {
    /// The connection. Dropping its last handle closes it.
    pub file: FixedFile,
    /// Who connected; [`Address::Unnamed`] for most Unix sockets.
    pub peer: Address,
}

impl<D: Descriptor> Op for Direct<Accept<D>> {
    gives!(AcceptedFile);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let kind = |raw: &RawOp| match raw {
            // A connection is of its listener's type.
            RawOp::Accept { fd, .. } if fd.socket_type() != Ok(libc::SOCK_STREAM) => Kind::Messages,
            RawOp::Accept { fd, .. } if fd.kind() == Kind::UnixStream => Kind::UnixStream,
            _ => Kind::Stream,
        };
        self.lower_to(kind, cx)
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<AcceptedFile> {
        self.op.fd.finished(&outcome);
        let file = self.opened(&outcome)?;
        Ok(AcceptedFile { file, peer: self.op.peer.decode() })
    }
}

/// The connections go into the table when their results are taken, one by one: a multishot accept cannot be told which
/// places are free. One for which there is none is closed, its result is
/// [`FilesFull`](crate::Error::FilesFull), and the operation goes on.
impl<D: Descriptor> MultiOp for Direct<AcceptMulti<D>> {
    type Item = FixedFile;

    fn lower_multi(&mut self, shots: *const Shots, cx: &mut Lower<'_>) -> Result<RawOp> {
        let files = cx.files()?.clone();
        self.op.files = Some(files);
        self.op.lower_multi(shots, cx)
    }

    unsafe fn item(&mut self, shot: Shot) -> Result<FixedFile> {
        // SAFETY: promised by the caller.
        let connection = unsafe { self.op.item(shot) }?;
        match &self.op.files {
            Some(files) => files.register(connection).map(FixedFile::new),
            None => unreachable!("it was lowered, which sets the table"),
        }
    }
}

/// Gives a [`FixedFile`] a descriptor of the process: the way out of the queue's table. The value is an [`OwnedFd`],
/// closed on `exec`; the `FixedFile` stays what it is.
///
/// ```
/// use aio::{Queue, op::Install};
/// use std::{fs::File, io::Read};
///
/// let queue = Queue::new(1)?;
/// let file = queue.register_file(File::open("Cargo.toml")?)?;
/// queue.submit(Install::new(file), |done| done.result)?;
/// for (_, descriptor) in queue.wait(1)? {
///     let mut text = String::new();
///     File::from(descriptor?).read_to_string(&mut text)?;
///     assert!(text.starts_with("[package]"));
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Of anything else that has a descriptor it makes another one, as `dup(2)` does; so it works wherever `FixedFile`s do.
///
/// # Errors
///
/// `EMFILE` if the process has no descriptor left.
///
/// `IORING_OP_FIXED_FD_INSTALL`, Linux 6.8; used from 6.11 on, as tables are. Otherwise `fcntl(F_DUPFD_CLOEXEC)`.
#[derive(Debug)]
pub struct Install<D> {
    file: D,
}

impl<D: Descriptor> Install<D> {
    /// For this file.
    pub fn new(file: D) -> Install<D> {
        Install { file }
    }

    /// Gives up the operation for the file.
    pub fn into_descriptor(self) -> D {
        self.file
    }
}

impl<D> Sealed for Install<D> {}

impl<D: Descriptor> Op for Install<D> {
    gives!(OwnedFd);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| Ok(RawOp::Install { fd: self.file.lower_fd(cx)? }))
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<OwnedFd> {
        self.file.finished(&outcome);
        outcome.result().map(owned)
    }
}
