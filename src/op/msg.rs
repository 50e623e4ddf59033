//! Messages: several parts, an address, and control messages, which carry descriptors among other things.
#![allow(unsafe_code)]

use super::{addr::RawAddress, vectored::checked_parts};
use crate::{
    Descriptor, Error, Result,
    lower::{Lower, Outcome},
    op::{Address, Op, RawOp, RecvFlags, SendFlags, lowered},
    sealed::Sealed,
    sys,
};
use libc::{c_int, c_void};
use std::{
    fmt,
    io::{IoSlice, IoSliceMut},
    marker::PhantomData,
    mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// A `msghdr`, whose fields differ in type from one system to the next.
pub(super) struct Header(libc::msghdr);

impl Header {
    pub(super) fn new() -> Header {
        // SAFETY: zeros are a valid `msghdr`: integers, and pointers that may be null.
        Header(unsafe { mem::zeroed() })
    }

    pub(super) fn set_name(&mut self, address: *mut libc::sockaddr, len: libc::socklen_t) {
        self.0.msg_name = address.cast();
        self.0.msg_namelen = len;
    }

    pub(super) fn name_len(&self) -> libc::socklen_t {
        self.0.msg_namelen
    }

    pub(super) fn set_parts(&mut self, parts: *mut libc::iovec, count: u32) {
        self.0.msg_iov = parts;
        self.0.msg_iovlen = count as _;
    }

    fn set_control(&mut self, control: *mut u64, len: usize) {
        self.0.msg_control = if len == 0 { ptr::null_mut() } else { control.cast::<c_void>() };
        self.0.msg_controllen = len as _;
    }

    fn flags(&self) -> c_int {
        self.0.msg_flags
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::msghdr {
        &raw mut self.0
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Header")
    }
}

/// Bytes from the start of a control message to its data.
const DATA: usize = len_of(0);

/// The length of a control message with that much data, as its header says it.
const fn len_of(data: usize) -> usize {
    // SAFETY: computes with a number.
    unsafe { libc::CMSG_LEN(data as u32) as usize }
}

/// The same, and what follows it up to the next one.
fn space_for(data: usize) -> usize {
    // SAFETY: computes with a number.
    unsafe { libc::CMSG_SPACE(data as u32) as usize }
}

/// A buffer for control messages: those that [`SendMsg`] sends, or room for those that [`RecvMsg`] receives.
///
/// ```
/// use aio::op::*;
/// use std::{io::{IoSlice, IoSliceMut}, os::{fd::AsFd, unix::net::UnixStream}};
///
/// let (a, b) = UnixStream::pair()?;
/// let file = std::fs::File::open("Cargo.toml")?;
/// let give = Control::new().rights(&[file.as_fd()]);
/// aio::single(SendMsg::new(&a, &[IoSlice::new(b"a file")]).control(&give))?;
///
/// let (mut text, mut room) = ([0u8; 16], Control::for_rights(1));
/// let received = aio::single(RecvMsg::new(&b, &mut [IoSliceMut::new(&mut text)]).control(&mut room))?;
/// assert!(matches!(&received.control[..], [ControlMessage::Rights(files)] if files.len() == 1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
pub struct Control<'f> {
    /// Words, for the alignment of the headers in it.
    words: Vec<u64>,
    /// Bytes to be sent.
    len: usize,
    /// Descriptors whose numbers are in it are open as long as it is.
    _descriptors: PhantomData<BorrowedFd<'f>>,
}

impl<'f> Control<'f> {
    /// Nothing to send.
    pub fn new() -> Control<'f> {
        Control::default()
    }

    /// Room for control messages of that many bytes altogether, headers included.
    pub fn with_capacity(bytes: usize) -> Control<'f> {
        Control { words: vec![0; bytes.div_ceil(8)], len: 0, _descriptors: PhantomData }
    }

    /// Room for a message with that many descriptors.
    pub fn for_rights(count: usize) -> Control<'f> {
        Control::with_capacity(space_for(count * size_of::<c_int>()))
    }

    /// Gives the receiver copies of descriptors (`SCM_RIGHTS`, `unix(7)`), up to 253 in one message. On a stream socket
    /// at least one byte has to be sent with them.
    pub fn rights(mut self, descriptors: &[BorrowedFd<'f>]) -> Control<'f> {
        let numbers: Vec<u8> = descriptors.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()).collect();
        self.push(libc::SOL_SOCKET, libc::SCM_RIGHTS, &numbers);
        self
    }

    /// Cuts the bytes of the message into datagrams of that many each (`UDP_SEGMENT`, `udp(7)`). Linux 4.18.
    #[cfg(target_os = "linux")]
    pub fn segment_size(mut self, bytes: u16) -> Control<'f> {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &bytes.to_ne_bytes());
        self
    }

    fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let (start, end) = (self.len, self.len + space_for(data.len()));
        self.words.resize(end.div_ceil(8).max(self.words.len()), 0);
        self.len = end;
        // SAFETY: zeros are a valid `cmsghdr`, for it consists of integers.
        let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
        header.cmsg_len = len_of(data.len()) as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        let place = &mut bytes_mut(&mut self.words)[start..end];
        // SAFETY: `CMSG_SPACE` counts the header, so there is room for it.
        unsafe { place.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
        place[DATA..DATA + data.len()].copy_from_slice(data);
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({} bytes to send, room for {})", self.len, self.words.len() * 8)
    }
}

fn bytes_mut(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: the same memory, exclusively borrowed; any bytes are valid as words and words as bytes.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), mem::size_of_val(words)) }
}

/// A control message that was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlMessage {
    /// Descriptors that the sender gave (`SCM_RIGHTS`), closed on `exec`, and closed when they are dropped.
    Rights(Vec<OwnedFd>),
    /// A descriptor of the sending process (`SCM_PIDFD`, Linux 6.5), if the socket option `SO_PASSPIDFD` is set.
    PidFd(OwnedFd),
    /// Anything else, as `cmsg(3)` describes it.
    Other {
        /// The protocol it comes from, such as `SOL_SOCKET`.
        level: i32,
        /// What it is, by the protocol's number.
        kind: i32,
        /// The data in the system's own form.
        data: Vec<u8>,
    },
}

/// Takes the control messages out of a buffer that was all zeros when the kernel got it, descriptors first of all.
///
/// It goes by the messages' own lengths and does not ask the header how much there is: the header of an operation that
/// was cancelled half-way, or that took several turns, need not say so.
fn take_messages(words: &mut [u64]) -> Vec<ControlMessage> {
    let bytes = bytes_mut(words);
    let mut messages = Vec::new();
    let mut start = 0;
    while let Some(rest) = bytes.get(start..).filter(|rest| rest.len() >= DATA) {
        // SAFETY: `CMSG_LEN(0)` counts the header, so there are bytes enough, and any are a valid one.
        let header = unsafe { rest.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        #[allow(clippy::unnecessary_cast)]
        let len = header.cmsg_len as usize;
        if len < DATA {
            break;
        }
        // A message that was cut off may claim more than is there.
        messages.push(message(header.cmsg_level, header.cmsg_type, &rest[DATA..len.min(rest.len())]));
        start += space_for(len - DATA);
    }
    bytes.fill(0);
    messages
}

fn message(level: c_int, kind: c_int, data: &[u8]) -> ControlMessage {
    const SCM_PIDFD: c_int = 4;
    let numbers =
        || data.chunks_exact(size_of::<c_int>()).map(|number| c_int::from_ne_bytes(number.try_into().unwrap()));
    if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return ControlMessage::Rights(numbers().map(received_descriptor).collect());
    }
    if cfg!(target_os = "linux") && (level, kind) == (libc::SOL_SOCKET, SCM_PIDFD) {
        // Negative if the process is gone.
        if let Some(number) = numbers().next().filter(|number| *number >= 0) {
            return ControlMessage::PidFd(received_descriptor(number));
        }
    }
    ControlMessage::Other { level, kind, data: data.to_vec() }
}

fn received_descriptor(number: c_int) -> OwnedFd {
    // SAFETY: the kernel has made this descriptor for the receiver of the message, and `take_messages` wipes the number
    // out of the buffer.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    if sys::MSG_CMSG_CLOEXEC == 0 {
        // SAFETY: sets a flag of a descriptor that is ours.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    fd
}

/// What [`RecvMsg`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// How many bytes were received. With [`RecvFlags::TRUNC`] it is the datagram's whole length, and may be more than
    /// the parts hold.
    pub len: usize,
    /// Who sent it, if the kernel tells.
    pub peer: Option<Address>,
    /// The control messages. Dropping them closes the descriptors among them.
    pub control: Vec<ControlMessage>,
    /// The message was longer than the parts, and its end is lost.
    pub truncated: bool,
    /// There were more control messages than there was room for; the kernel has dropped them.
    pub control_truncated: bool,
    /// All `msg_flags` of `recvmsg(2)`.
    pub flags: i32,
}

/// Receives a message into several parts, with the sender's address and control messages: `recvmsg(2)`.
///
/// Waits until there is something, as [`Recv`](crate::op::Recv) does.
///
/// ```
/// use aio::op::*;
/// use std::{io::{IoSliceMut, Write}, os::unix::net::UnixStream};
///
/// let (a, mut b) = UnixStream::pair()?;
/// b.write_all(b"head and body")?;
/// let (mut head, mut body) = ([0u8; 4], [0u8; 16]);
/// let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
/// let received = aio::single(RecvMsg::new(&a, &mut parts))?;
/// assert_eq!((received.len, &head, &body[..9]), (13, b"head", &b" and body"[..]));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_RECVMSG`, Linux 5.3; `recvmsg(2)` lists the errors.
#[derive(Debug)]
pub struct RecvMsg<'v, 'b, D> {
    fd: D,
    parts: &'v mut [IoSliceMut<'b>],
    control: &'v mut [u64],
    peer: RawAddress,
    header: Header,
    flags: i32,
}

impl<'v, 'b, D: Descriptor> RecvMsg<'v, 'b, D> {
    /// Fills the parts one after the other. At most 1024 of them.
    pub fn new(fd: D, parts: &'v mut [IoSliceMut<'b>]) -> RecvMsg<'v, 'b, D> {
        let (peer, header) = (RawAddress::empty(), Header::new());
        RecvMsg { fd, parts, control: &mut [], peer, header, flags: sys::MSG_CMSG_CLOEXEC }
    }

    /// Takes control messages as well, as many as there is room for. What was to be sent with `room` is forgotten. Does
    /// not go with [`RecvFlags::WAITALL`].
    pub fn control(mut self, room: &'v mut Control<'_>) -> RecvMsg<'v, 'b, D> {
        room.len = 0;
        room.words.fill(0);
        self.control = &mut room.words;
        self
    }

    /// Receives in another way.
    pub fn flags(mut self, flags: RecvFlags) -> RecvMsg<'v, 'b, D> {
        self.flags = self.flags & libc::MSG_DONTWAIT | flags.bits() | sys::MSG_CMSG_CLOEXEC;
        self
    }

    /// Gives `WouldBlock` instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> RecvMsg<'v, 'b, D> {
        self.flags |= libc::MSG_DONTWAIT;
        self
    }
}

impl<D> Sealed for RecvMsg<'_, '_, D> {}

impl<D: Descriptor> Op for RecvMsg<'_, '_, D> {
    gives!(Received);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let count = checked_parts(self.parts.len(), self.parts.iter().map(|part| part.len()).sum())?;
            // io_uring drops the flag silently when there is room for control messages.
            if self.flags & libc::MSG_WAITALL != 0 && !self.control.is_empty() {
                return Err(Error::Invalid(
                    &"WAITALL does not go with room for control messages; receive these first and the rest after them",
                ));
            }
            // What the kernel put there when it ran before does not count.
            self.peer.clear();
            self.header = Header::new();
            self.header.set_name(self.peer.as_mut_ptr(), self.peer.len());
            // The standard library promises that `IoSliceMut` has the layout of `iovec`.
            self.header.set_parts(self.parts.as_mut_ptr().cast(), count);
            self.header.set_control(self.control.as_mut_ptr(), mem::size_of_val(self.control));
            Ok(RawOp::RecvMsg { fd, msg: self.header.as_mut_ptr(), flags: self.flags })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<Received> {
        self.fd.finished(&outcome);
        // Before anything can fail, so that no descriptor is lost.
        let control = take_messages(self.control);
        let len = outcome.result()? as usize;
        self.peer.set_len(self.header.name_len());
        let peer = Some(self.peer.decode()).filter(|peer| !peer.is_unnamed());
        let flags = self.header.flags();
        let (truncated, control_truncated) = (flags & libc::MSG_TRUNC != 0, flags & libc::MSG_CTRUNC != 0);
        Ok(Received { len, peer, control, truncated, control_truncated, flags })
    }
}

/// Sends a message from several parts, to an address if that is given, and with control messages: `sendmsg(2)`.
///
/// Waits for room, and never raises a signal, as [`Send`](crate::op::Send). The output is the number of bytes.
///
/// ```
/// use aio::op::*;
/// use std::{io::IoSlice, net::UdpSocket};
///
/// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
/// assert_eq!(aio::single(SendMsg::new(&a, &parts).to(b.local_addr()?))?, 8);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SENDMSG`, Linux 5.3; `sendmsg(2)` lists the errors.
#[derive(Debug)]
pub struct SendMsg<'v, D> {
    fd: D,
    parts: &'v [IoSlice<'v>],
    control: &'v [u64],
    control_len: usize,
    address: Option<Result<RawAddress>>,
    header: Header,
    flags: i32,
}

impl<'v, D: Descriptor> SendMsg<'v, D> {
    /// Sends the parts one after the other. At most 1024 of them.
    pub fn new(fd: D, parts: &'v [IoSlice<'v>]) -> SendMsg<'v, D> {
        let (header, flags) = (Header::new(), sys::MSG_NOSIGNAL);
        SendMsg { fd, parts, control: &[], control_len: 0, address: None, header, flags }
    }

    /// Sends to this address, and not to the one that the socket is connected to.
    pub fn to(mut self, address: impl Into<Address>) -> SendMsg<'v, D> {
        self.address = Some(RawAddress::encode(&address.into()));
        self
    }

    /// Sends control messages as well.
    pub fn control(mut self, control: &'v Control<'_>) -> SendMsg<'v, D> {
        (self.control, self.control_len) = (&control.words, control.len);
        self
    }

    /// Sends in another way.
    pub fn flags(mut self, flags: SendFlags) -> SendMsg<'v, D> {
        self.flags = flags.over(self.flags);
        self
    }

    /// Gives `WouldBlock` if there is no room at all, instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> SendMsg<'v, D> {
        self.flags |= libc::MSG_DONTWAIT;
        self
    }
}

impl<D> Sealed for SendMsg<'_, D> {}

impl<D: Descriptor> Op for SendMsg<'_, D> {
    gives!(usize);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let count = checked_parts(self.parts.len(), self.parts.iter().map(|part| part.len()).sum())?;
            if let Some(address) = &mut self.address {
                let address = address.as_mut().map_err(|error| *error)?;
                self.header.set_name(address.as_mut_ptr(), address.len());
            }
            // The kernel only reads what a message that is sent names, and `IoSlice` has the layout of `iovec`.
            self.header.set_parts(self.parts.as_ptr().cast_mut().cast(), count);
            self.header.set_control(self.control.as_ptr().cast_mut(), self.control_len);
            Ok(RawOp::SendMsg { fd, msg: self.header.as_mut_ptr(), flags: self.flags })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.fd.finished(&outcome);
        Ok(outcome.result()? as usize)
    }
}
