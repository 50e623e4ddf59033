//! Operations with many results.
#![allow(unsafe_code)]

use super::{addr::RawAddress, msg::Header, open::owned, poll::PollEvents, raw::Multi, recv::RecvFlags};
use crate::{
    BufPool, Descriptor, Errno, Error, PooledBuf, Result,
    driver::{
        files::FileTable,
        multi::MessageHead,
        shots::{Shot, Shots},
    },
    lower::Lower,
    op::{Address, Direct, Fd, RawOp},
    sealed::Sealed,
    sys,
};
use std::{mem::size_of, os::fd::OwnedFd, rc::Rc, time::Duration};

/// An operation that goes on giving results until it ends: see [`Queue::submit_multi`](crate::Queue::submit_multi).
///
/// It ends with an error, with the end of what it reads, or when it is cancelled, and never for another reason, on no
/// engine; what the kernel stops for reasons of its own the library starts again. Each result says whether there will
/// be more. While a great many of its results wait to be taken, an operation pauses: connections then wait in the
/// listener's backlog, and data in the socket.
///
/// Sealed.
pub trait MultiOp: Sealed + Sized {
    /// One result.
    type Item;

    /// Describes the operation to an engine. Called once, when it no longer moves.
    #[doc(hidden)]
    fn lower_multi(&mut self, shots: *const Shots, cx: &mut Lower<'_>) -> Result<RawOp>;

    /// Turns one of the engine's answers into a result.
    ///
    /// # Safety
    /// The shot is the operation's own, and was not turned into anything before.
    #[doc(hidden)]
    unsafe fn item(&mut self, shot: Shot) -> Result<Self::Item>;
}

fn lower_fd<D: Descriptor>(fd: &D, cx: &mut Lower<'_>) -> Result<Fd> {
    const { assert!(D::LASTS, "a Closing is for the chain that closes it, and not for operations that go on") };
    fd.lower_fd(cx)
}

/// The number, or what went wrong.
fn number(shot: Shot) -> Result<u32> {
    match shot.result {
        error if error == -libc::ECANCELED => Err(Error::Canceled),
        error if error < 0 => Err(Error::Os(Errno::new(-error))),
        number => Ok(number as u32),
    }
}

/// The bytes, or nothing at the end.
///
/// # Safety
/// The shot is of an operation that uses this pool, and was not taken over before.
pub(crate) unsafe fn received(pool: &BufPool, shot: Shot) -> Result<PooledBuf> {
    // SAFETY: promised by the caller.
    let filled = shot.part.map(|part| unsafe { pool.taken_over(part, shot.result.max(0) as u32) });
    number(shot)?;
    Ok(filled.unwrap_or_else(PooledBuf::empty))
}

/// Accepts connection after connection: `accept4(2)` again and again. Each is closed on `exec`.
///
/// The peer's address is not told; ask the connection (`TcpStream::peer_addr`). A connection that nobody takes, because
/// the queue goes first, is closed.
///
/// ```
/// use aio::{Queue, op::AcceptMulti};
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let queue = Queue::new(8)?;
/// queue.submit_multi(AcceptMulti::new(listener), |shot| shot.result)?;
/// let clients = [TcpStream::connect(address)?, TcpStream::connect(address)?];
/// let mut accepted = Vec::new();
/// while accepted.len() < clients.len() {
///     for (_, connection) in queue.wait(1)? {
///         accepted.push(TcpStream::from(connection?));
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`, Linux 5.19; used from 6.7 on. `accept(2)` lists the errors.
pub struct AcceptMulti<D> {
    fd: D,
    /// Where a [`Direct`] one puts them.
    pub(super) files: Option<Rc<FileTable>>,
}

impl<D: std::fmt::Debug> std::fmt::Debug for AcceptMulti<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcceptMulti").field("fd", &self.fd).finish()
    }
}

impl<D: Descriptor> AcceptMulti<D> {
    /// Takes the connections of a listening socket.
    pub fn new(fd: D) -> AcceptMulti<D> {
        AcceptMulti { fd, files: None }
    }

    /// Puts the connections into the queue's table of files: each result is a [`FixedFile`](crate::FixedFile). See
    /// [`Direct`].
    pub fn direct(self) -> Direct<AcceptMulti<D>> {
        Direct::new(self)
    }

    /// The listener.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for AcceptMulti<D> {}

impl<D: Descriptor> MultiOp for AcceptMulti<D> {
    type Item = OwnedFd;

    fn lower_multi(&mut self, shots: *const Shots, cx: &mut Lower<'_>) -> Result<RawOp> {
        Ok(RawOp::Multi { fd: lower_fd(&self.fd, cx)?, what: Multi::Accept, shots })
    }

    unsafe fn item(&mut self, shot: Shot) -> Result<OwnedFd> {
        number(shot).map(owned)
    }
}

/// Receives again and again, each time into a buffer of a pool that is taken when data has come: `recv(2)`.
///
/// No bytes mean that the peer has ended the stream, and end the operation; so does an empty datagram. If the pool has
/// no free buffer it ends with `ENOBUFS`; nothing is lost, and it can be submitted again.
///
/// ```
/// use aio::{Queue, op::RecvMulti};
/// use std::{io::Write, os::unix::net::UnixStream};
///
/// let (a, mut b) = UnixStream::pair()?;
/// let queue = Queue::new(8)?;
/// let pool = queue.buf_pool(16, 4096)?;
/// queue.submit_multi(RecvMulti::new(a, &pool), |shot| (shot.result, shot.more))?;
/// b.write_all(b"hello")?;
/// for (_, (bytes, more)) in queue.wait(1)? {
///     assert_eq!((&*bytes?, more), (&b"hello"[..], true));
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_RECV` with `IORING_RECV_MULTISHOT`, Linux 6.0; used from 6.7 on. `recv(2)` lists the errors.
#[derive(Debug)]
pub struct RecvMulti<D> {
    fd: D,
    pool: BufPool,
    flags: RecvFlags,
}

impl<D: Descriptor> RecvMulti<D> {
    /// Receives into buffers of `pool`.
    pub fn new(fd: D, pool: &BufPool) -> RecvMulti<D> {
        RecvMulti { fd, pool: pool.clone(), flags: RecvFlags::empty() }
    }

    /// Receives in another way. [`PEEK`](RecvFlags::PEEK), [`WAITALL`](RecvFlags::WAITALL) and
    /// [`TRUNC`](RecvFlags::TRUNC) make no sense here and are refused.
    pub fn flags(mut self, flags: RecvFlags) -> RecvMulti<D> {
        self.flags = flags;
        self
    }

    /// The socket.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

fn checked(flags: RecvFlags) -> Result<i32> {
    if flags.intersects(RecvFlags::PEEK | RecvFlags::WAITALL | RecvFlags::TRUNC) {
        return Err(Error::Invalid(&"PEEK, WAITALL and TRUNC make no sense for a receive that goes on; use Recv"));
    }
    Ok(flags.bits())
}

impl<D> Sealed for RecvMulti<D> {}

impl<D: Descriptor> MultiOp for RecvMulti<D> {
    type Item = PooledBuf;

    fn lower_multi(&mut self, shots: *const Shots, cx: &mut Lower<'_>) -> Result<RawOp> {
        let what = Multi::Recv {
            pool: self.pool.lower(cx.engine())?,
            flags: checked(self.flags)?,
            once: false,
            bundled: false,
        };
        Ok(RawOp::Multi { fd: lower_fd(&self.fd, cx)?, what, shots })
    }

    unsafe fn item(&mut self, shot: Shot) -> Result<PooledBuf> {
        // SAFETY: promised by the caller; the operation has this pool.
        unsafe { received(&self.pool, shot) }
    }
}

/// Reads again and again from a pipe, a terminal, a socket or an `eventfd`, as [`RecvMulti`] does from a socket:
/// `read(2)`. A regular file, which has no readiness, is refused with `EBADFD` (`EBADF` where there is none).
///
/// `IORING_OP_READ_MULTISHOT`, Linux 6.7.
#[derive(Debug)]
pub struct ReadMulti<D> {
    fd: D,
    pool: BufPool,
}

impl<D: Descriptor> ReadMulti<D> {
    /// Reads into buffers of `pool`.
    pub fn new(fd: D, pool: &BufPool) -> ReadMulti<D> {
        ReadMulti { fd, pool: pool.clone() }
    }

    /// What was read from.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for ReadMulti<D> {}

impl<D: Descriptor> MultiOp for ReadMulti<D> {
    type Item = PooledBuf;

    fn lower_multi(&mut self, shots: *const Shots, cx: &mut Lower<'_>) -> Result<RawOp> {
        let what = Multi::Read { pool: self.pool.lower(cx.engine())? };
        Ok(RawOp::Multi { fd: lower_fd(&self.fd, cx)?, what, shots })
    }

    unsafe fn item(&mut self, shot: Shot) -> Result<PooledBuf> {
        // SAFETY: promised by the caller; the operation has this pool.
        unsafe { received(&self.pool, shot) }
    }
}

/// Receives message after message, and tells who sent each: `recvmsg(2)`.
///
/// A buffer of the pool takes the bytes and, before them, 144 bytes of address and lengths. A longer message loses its
/// end. An empty message is one like any other; on a stream it is the end of that, and of the operation. (For a stream
/// of the Unix family use [`RecvMulti`]: Linux 6.18 may miss its end here.) Control messages are not received;
/// descriptors that somebody sends are dropped by the kernel.
///
/// `IORING_OP_RECVMSG` with `IORING_RECV_MULTISHOT`, Linux 6.0; used from 6.7 on. `recvmsg(2)` lists the errors.
#[derive(Debug)]
pub struct RecvMsgMulti<D> {
    fd: D,
    pool: BufPool,
    flags: RecvFlags,
    template: Header,
}

/// What [`RecvMsgMulti`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct Message {
    /// Who sent it; [`Address::Unnamed`] if the kernel does not tell.
    pub peer: Address,
    /// Its bytes.
    pub bytes: PooledBuf,
    /// It was longer than the buffer, and its end is lost.
    pub truncated: bool,
}

/// Room for an address, so that what follows is aligned.
const NAME: usize = size_of::<libc::sockaddr_storage>();
/// What comes before the bytes of a message.
const BEFORE: usize = size_of::<MessageHead>() + NAME;

impl<D: Descriptor> RecvMsgMulti<D> {
    /// Receives into buffers of `pool`.
    pub fn new(fd: D, pool: &BufPool) -> RecvMsgMulti<D> {
        RecvMsgMulti { fd, pool: pool.clone(), flags: RecvFlags::empty(), template: Header::new() }
    }

    /// Receives in another way, as [`RecvMulti::flags`].
    pub fn flags(mut self, flags: RecvFlags) -> RecvMsgMulti<D> {
        self.flags = flags;
        self
    }

    /// The socket.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for RecvMsgMulti<D> {}

impl<D: Descriptor> MultiOp for RecvMsgMulti<D> {
    type Item = Message;

    fn lower_multi(&mut self, shots: *const Shots, cx: &mut Lower<'_>) -> Result<RawOp> {
        if self.pool.buf_size() <= BEFORE {
            return Err(Error::Invalid(
                &"the pool's buffers have no room for a message: they need more than 144 bytes",
            ));
        }
        self.template.set_name(std::ptr::null_mut(), NAME as libc::socklen_t);
        let pool = self.pool.lower(cx.engine())?;
        let what = Multi::RecvMsg { pool, msg: self.template.as_mut_ptr(), flags: checked(self.flags)? };
        Ok(RawOp::Multi { fd: lower_fd(&self.fd, cx)?, what, shots })
    }

    unsafe fn item(&mut self, shot: Shot) -> Result<Message> {
        // SAFETY: promised by the caller; the operation has this pool.
        let mut bytes = unsafe { received(&self.pool, shot) }?;
        let Some((before, _)) = bytes.split_at_checked(BEFORE) else {
            return Ok(Message { peer: Address::Unnamed, bytes, truncated: false });
        };
        // SAFETY: the bytes begin with one, and any are valid as numbers.
        let head = unsafe { before.as_ptr().cast::<MessageHead>().read_unaligned() };
        let name = &before[size_of::<MessageHead>()..];
        let peer = RawAddress::from_bytes(&name[..(head.name_len as usize).min(NAME)]).decode();
        let truncated = head.flags & libc::MSG_TRUNC as u32 != 0;
        bytes.advance(BEFORE);
        bytes.truncate(head.payload_len as usize);
        Ok(Message { peer, bytes, truncated })
    }
}

/// Tells each time that a descriptor is ready: `poll(2)` again and again.
///
/// It looks again when its last result has been taken. A descriptor that is still ready then is reported again, so that
/// nothing is missed; and it is reported once, not once for each event.
///
/// `IORING_OP_POLL_ADD`, Linux 5.1.
#[derive(Debug)]
pub struct PollMulti<D> {
    fd: D,
    events: PollEvents,
}

impl<D: Descriptor> PollMulti<D> {
    /// Waits for any of `events`, an error, or a hang-up.
    pub fn new(fd: D, events: PollEvents) -> PollMulti<D> {
        PollMulti { fd, events }
    }

    /// What was waited for.
    pub fn into_descriptor(self) -> D {
        self.fd
    }
}

impl<D> Sealed for PollMulti<D> {}

impl<D: Descriptor> MultiOp for PollMulti<D> {
    type Item = PollEvents;

    fn lower_multi(&mut self, shots: *const Shots, cx: &mut Lower<'_>) -> Result<RawOp> {
        let what = Multi::Poll { events: self.events.interest() };
        Ok(RawOp::Multi { fd: lower_fd(&self.fd, cx)?, what, shots })
    }

    unsafe fn item(&mut self, shot: Shot) -> Result<PollEvents> {
        number(shot).map(|mask| self.events.answer(mask))
    }
}

/// Lets time pass again and again.
///
/// The ticks are multiples of the interval, counted from the start by the monotonic clock. One that nobody could be
/// told of in time is left out.
///
/// ```
/// use aio::{Queue, op::TimeoutMulti};
/// use std::time::Duration;
///
/// let queue = Queue::new(8)?;
/// queue.submit_multi(TimeoutMulti::every(Duration::from_millis(1)).times(3), |tick| tick.more)?;
/// let mut ticks = Vec::new();
/// while !queue.is_empty() {
///     ticks.extend(queue.wait(1)?.map(|(_, more)| more));
/// }
/// assert_eq!(ticks, [true, true, false]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Kept by the engine; the kernel has the like since Linux 6.4.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutMulti {
    interval: Duration,
    times: u32,
}

impl TimeoutMulti {
    /// For ever. An interval of zero is refused.
    pub const fn every(interval: Duration) -> TimeoutMulti {
        TimeoutMulti { interval, times: 0 }
    }

    /// Ends after so many ticks. Zero is for ever.
    pub const fn times(mut self, times: u32) -> TimeoutMulti {
        self.times = times;
        self
    }
}

impl Sealed for TimeoutMulti {}

impl MultiOp for TimeoutMulti {
    type Item = ();

    fn lower_multi(&mut self, shots: *const Shots, _cx: &mut Lower<'_>) -> Result<RawOp> {
        if self.interval.is_zero() {
            return Err(Error::Invalid(&"an interval of zero would never let anything else happen"));
        }
        let nanos = sys::Timespec::from_duration(self.interval).nanos();
        Ok(RawOp::Multi { fd: Fd::new(-1), what: Multi::Timeout { nanos, left: self.times }, shots })
    }

    unsafe fn item(&mut self, shot: Shot) -> Result<()> {
        number(shot).map(drop)
    }
}
