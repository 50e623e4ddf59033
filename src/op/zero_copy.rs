//! Sending without a copy of the bytes: the kernel uses the buffer itself until the peer has what was sent.

use super::{addr::RawAddress, msg::Header, recv::Part};
use crate::{
    Buf, Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Address, Control, Op, RawOp, Send, SendFlags, SendMsg, Settled},
    sealed::Sealed,
};
use std::io::IoSlice;

/// Sends to a socket without copying the bytes: [`Send`] with `MSG_ZEROCOPY`.
///
/// It ends only when the kernel no longer uses the buffer. For TCP that is when the peer's system has acknowledged the
/// bytes, and so it takes as long as [`Send`] and a round trip; and if the peer does not read, until it does. Until the
/// bytes were handed to the socket it can be cancelled and its [`timeout`](Op::timeout) counts; from there on it has
/// its result, and nothing hurries the end but the end of the connection. So do not wait for one on the thread that is
/// to read the other end.
///
/// Whatever is linked to it starts when the bytes were handed to the socket. In every other respect it is as [`Send`]:
/// it may send a part, and all with [`WAITALL`](SendFlags::WAITALL).
///
/// ```
/// use aio::op::*;
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let a = TcpStream::connect(listener.local_addr()?)?;
/// let (b, _) = listener.accept()?;
/// let (data, mut received) = (vec![7u8; 100_000], vec![0u8; 100_000]);
/// let (sent, len) = aio::multi((
///     SendZc::new(&a, &data).flags(SendFlags::WAITALL),
///     Recv::new(&b, &mut received[..]).flags(RecvFlags::WAITALL),
/// ))?;
/// assert_eq!((sent, len), (data.len(), data.len()));
/// assert!(received == data);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// It pays for large buffers to a network card; through the loopback device the kernel copies all the same. The page
/// "Zero copy" of the documentation has numbers.
///
/// The bytes are copied, as by [`Send`], where there is no other way: in the emulation, on older kernels, for sockets
/// that cannot do otherwise (Unix sockets), when `RLIMIT_MEMLOCK` is used up, when the buffer is a
/// [`Shared`](crate::Shared), which the next operation of its chain may write to, and before a
/// [`hard_link`](Op::hard_link).
///
/// `IORING_OP_SEND_ZC`, Linux 6.0, and with an address `IORING_OP_SENDMSG_ZC`, Linux 6.1; `send(2)` lists the errors.
#[derive(Debug)]
pub struct SendZc<D, B> {
    send: Send<D, B>,
    to: Option<To>,
}

/// An address, and what a message needs besides.
#[derive(Debug)]
struct To {
    address: Result<RawAddress>,
    part: Part,
    header: Header,
}

impl<D: Descriptor, B: Buf> SendZc<D, B> {
    /// Sends the bytes of `buf`; on a datagram socket as one message.
    pub fn new(fd: D, buf: B) -> SendZc<D, B> {
        SendZc { send: Send::new(fd, buf), to: None }
    }

    /// Sends to this address, and not to the one that the socket is connected to.
    pub fn to(mut self, address: impl Into<Address>) -> SendZc<D, B> {
        let address = RawAddress::encode(&address.into());
        self.to = Some(To { address, part: Part::new(), header: Header::new() });
        self
    }

    /// Sends in another way.
    pub fn flags(mut self, flags: SendFlags) -> SendZc<D, B> {
        self.send = self.send.flags(flags);
        self
    }

    /// Gives `WouldBlock` if there is no room at all, instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(mut self) -> SendZc<D, B> {
        self.send = self.send.nonblocking();
        self
    }

    /// The buffer.
    pub fn buf(&self) -> &B {
        self.send.buf()
    }

    /// The buffer, to be changed before the operation is run.
    pub fn buf_mut(&mut self) -> &mut B {
        self.send.buf_mut()
    }

    /// Gives up the operation for its buffer.
    pub fn into_buf(self) -> B {
        self.send.into_buf()
    }

    /// Gives up the operation for what it works on and its buffer.
    pub fn into_parts(self) -> (D, B) {
        self.send.into_parts()
    }
}

impl<D, B> Sealed for SendZc<D, B> {}

impl<D: Descriptor, B: Buf> Op for SendZc<D, B> {
    type Output = B::Output;
    type Value = usize;

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        let op = match (self.send.lower(cx), &mut self.to) {
            (RawOp::Send { fd, buf, len, flags }, None) => RawOp::SendZc { fd, buf, len, flags },
            (RawOp::Send { fd, buf, len, flags }, Some(To { address, part, header })) => match address {
                Ok(address) => {
                    // The kernel only reads what a message that is sent names.
                    header.set_name(address.as_mut_ptr(), address.len());
                    header.set_parts(part.set(buf.cast_mut(), len), 1);
                    RawOp::SendMsgZc { fd, msg: header.as_mut_ptr(), flags }
                }
                Err(error) => RawOp::Invalid(*error),
            },
            (refused, _) => refused,
        };
        // What comes next in the chain may write to a shared buffer, and would change what is still to be sent.
        if B::SHARED { op.copying() } else { op }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.send.settle(outcome)
    }

    fn output(self, len: Settled<usize>) -> B::Output {
        self.send.output(len)
    }
}

/// Sends a message from several parts without copying the bytes: [`SendMsg`] with `MSG_ZEROCOPY`.
///
/// It is to [`SendMsg`] what [`SendZc`] is to [`Send`]: read there when it ends, and when the bytes are copied all the
/// same. The output is the number of bytes.
///
/// ```
/// use aio::op::*;
/// use std::{io::IoSlice, net::UdpSocket};
///
/// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
/// assert_eq!(aio::single(SendMsgZc::new(&a, &parts).to(b.local_addr()?))?, 8);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_SENDMSG_ZC`, Linux 6.1; `sendmsg(2)` lists the errors.
#[derive(Debug)]
pub struct SendMsgZc<'v, D>(SendMsg<'v, D>);

impl<'v, D: Descriptor> SendMsgZc<'v, D> {
    /// Sends the parts one after the other. At most 1024 of them.
    pub fn new(fd: D, parts: &'v [IoSlice<'v>]) -> SendMsgZc<'v, D> {
        SendMsgZc(SendMsg::new(fd, parts))
    }

    /// Sends to this address, and not to the one that the socket is connected to.
    pub fn to(self, address: impl Into<Address>) -> SendMsgZc<'v, D> {
        SendMsgZc(self.0.to(address))
    }

    /// Sends control messages as well. These are copied in any case.
    pub fn control(self, control: &'v Control<'_>) -> SendMsgZc<'v, D> {
        SendMsgZc(self.0.control(control))
    }

    /// Sends in another way.
    pub fn flags(self, flags: SendFlags) -> SendMsgZc<'v, D> {
        SendMsgZc(self.0.flags(flags))
    }

    /// Gives `WouldBlock` if there is no room at all, instead of waiting (`MSG_DONTWAIT`).
    pub fn nonblocking(self) -> SendMsgZc<'v, D> {
        SendMsgZc(self.0.nonblocking())
    }
}

impl<D> Sealed for SendMsgZc<'_, D> {}

impl<D: Descriptor> Op for SendMsgZc<'_, D> {
    gives!(usize);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        match self.0.lower(cx) {
            RawOp::SendMsg { fd, msg, flags } => RawOp::SendMsgZc { fd, msg, flags },
            refused => refused,
        }
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<usize> {
        self.0.settle(outcome)
    }
}
