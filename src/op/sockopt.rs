//! Socket options.

use self::option::{Settable, Storage};
use crate::{
    Descriptor, Result,
    lower::{Lower, Outcome},
    op::{Op, RawOp, lowered},
    sealed::Sealed,
};

pub use option::SocketOption;

/// Reads a socket option: `getsockopt(2)`. The [module of options](option) lists them.
///
/// ```
/// use aio::op::{GetSockOpt, option};
///
/// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// assert!(!aio::single(GetSockOpt::new(&socket, option::Broadcast))?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_URING_CMD`, Linux 6.7, for options of the socket itself; by an ordinary system call otherwise.
#[derive(Debug)]
pub struct GetSockOpt<D, O> {
    fd: D,
    option: O,
    storage: Storage,
}

impl<D: Descriptor, O: SocketOption> GetSockOpt<D, O> {
    /// The output is the option's value.
    pub fn new(fd: D, option: O) -> GetSockOpt<D, O> {
        GetSockOpt { fd, option, storage: Storage::empty() }
    }
}

impl<D, O> Sealed for GetSockOpt<D, O> {}

impl<D: Descriptor, O: SocketOption> Op for GetSockOpt<D, O> {
    gives!(O::Value);

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            // Not every option fills as much of it as the one before.
            self.storage = Storage::empty();
            let value = self.storage.as_mut_ptr();
            Ok(RawOp::GetSockOpt { fd, level: O::LEVEL, name: O::NAME, value, len: O::SIZE })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<O::Value> {
        self.fd.finished(&outcome);
        outcome.unit()?;
        Ok(self.option.decode(&self.storage))
    }
}

/// Sets a socket option: `setsockopt(2)`. The [module of options](option) lists them.
///
/// ```
/// use aio::op::{GetSockOpt, Op, SetSockOpt, option};
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
/// let ((), set) = aio::multi((
///     SetSockOpt::new(&stream, option::NoDelay, true).link(),
///     GetSockOpt::new(&stream, option::NoDelay),
/// ))?;
/// assert!(set);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// `IORING_OP_URING_CMD`, Linux 6.7; by an ordinary system call on older kernels.
#[derive(Debug)]
pub struct SetSockOpt<D, O> {
    fd: D,
    _option: O,
    storage: Result<Storage>,
}

impl<D: Descriptor, O: Settable> SetSockOpt<D, O> {
    /// Sets the option to a value.
    pub fn new(fd: D, option: O, value: O::Value) -> SetSockOpt<D, O> {
        let storage = option.encode(value);
        SetSockOpt { fd, _option: option, storage }
    }
}

impl<D, O> Sealed for SetSockOpt<D, O> {}

impl<D: Descriptor, O: Settable> Op for SetSockOpt<D, O> {
    gives!(());

    fn lower(&mut self, cx: &mut Lower<'_>) -> RawOp {
        lowered(|| {
            let fd = self.fd.lower_fd(cx)?;
            let storage = self.storage.as_ref().map_err(|error| *error)?;
            Ok(RawOp::SetSockOpt { fd, level: O::LEVEL, name: O::NAME, value: storage.as_ptr(), len: O::SIZE })
        })
    }

    fn settle(&mut self, outcome: Outcome<'_>) -> Result<()> {
        self.fd.finished(&outcome);
        outcome.unit()
    }
}

/// The socket options, each a type of its own that knows its value's type.
pub mod option {
    use crate::{Errno, Error, Result, op::SocketType, sealed::Sealed};
    use libc::{c_int, c_void, linger, socklen_t, timeval};
    use std::{mem::offset_of, time::Duration};

    /// An option of a socket, with the type of its value. Sealed.
    pub trait SocketOption: Sealed {
        /// What [`GetSockOpt`](super::GetSockOpt) gives, and [`SetSockOpt`](super::SetSockOpt) takes.
        type Value;
        #[doc(hidden)]
        const LEVEL: c_int;
        #[doc(hidden)]
        const NAME: c_int;
        #[doc(hidden)]
        const SIZE: socklen_t;
        #[doc(hidden)]
        fn decode(&self, storage: &Storage) -> Self::Value;
    }

    /// An option that can be set. Sealed.
    #[diagnostic::on_unimplemented(message = "the socket option `{Self}` can only be read")]
    pub trait Settable: SocketOption {
        #[doc(hidden)]
        fn encode(&self, value: Self::Value) -> Result<Storage>;
    }

    /// A value in the kernel's form.
    #[doc(hidden)]
    #[derive(Clone, Copy, Debug)]
    #[repr(C, align(8))]
    pub struct Storage([u8; 16]);

    impl Storage {
        pub(super) fn empty() -> Storage {
            Storage([0; 16])
        }

        pub(super) fn as_ptr(&self) -> *const c_void {
            self.0.as_ptr().cast()
        }

        pub(super) fn as_mut_ptr(&mut self) -> *mut c_void {
            self.0.as_mut_ptr().cast()
        }

        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }

        fn take<const N: usize>(&self, at: usize) -> [u8; N] {
            let mut bytes = [0; N];
            bytes.copy_from_slice(&self.0[at..at + N]);
            bytes
        }
    }

    /// How a type of value looks to the kernel.
    trait Form<V> {
        const SIZE: usize;
        fn decode(storage: &Storage) -> V;
    }

    trait Encode<V>: Form<V> {
        fn encode(value: V) -> Result<Storage>;
    }

    struct Int;
    struct Flag;
    struct Size;
    struct Seconds;
    struct Time;
    struct Lingering;

    impl Form<c_int> for Int {
        const SIZE: usize = size_of::<c_int>();

        fn decode(storage: &Storage) -> c_int {
            c_int::from_ne_bytes(storage.take(0))
        }
    }

    impl Encode<c_int> for Int {
        fn encode(value: c_int) -> Result<Storage> {
            let mut storage = Storage::empty();
            storage.put(0, &value.to_ne_bytes());
            Ok(storage)
        }
    }

    impl Form<bool> for Flag {
        const SIZE: usize = Int::SIZE;

        /// Some systems give another number than one.
        fn decode(storage: &Storage) -> bool {
            Int::decode(storage) != 0
        }
    }

    impl Encode<bool> for Flag {
        fn encode(value: bool) -> Result<Storage> {
            Int::encode(value.into())
        }
    }

    impl Form<u32> for Size {
        const SIZE: usize = Int::SIZE;

        fn decode(storage: &Storage) -> u32 {
            Int::decode(storage).max(0) as u32
        }
    }

    impl Encode<u32> for Size {
        fn encode(value: u32) -> Result<Storage> {
            let value = c_int::try_from(value);
            Int::encode(value.map_err(|_| Error::Invalid(&"the socket option's value is above 2147483647; lower it"))?)
        }
    }

    /// Rounded up, for a time of zero is not allowed where a short one is.
    fn whole_seconds(time: Duration) -> Result<c_int> {
        let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
        c_int::try_from(seconds)
            .map_err(|_| Error::Invalid(&"the socket option's time is longer than 68 years; shorten it"))
    }

    impl Form<Duration> for Seconds {
        const SIZE: usize = Int::SIZE;

        fn decode(storage: &Storage) -> Duration {
            Duration::from_secs(Int::decode(storage).max(0) as u64)
        }
    }

    impl Encode<Duration> for Seconds {
        fn encode(value: Duration) -> Result<Storage> {
            Int::encode(whole_seconds(value)?)
        }
    }

    impl Form<Option<Duration>> for Time {
        const SIZE: usize = size_of::<timeval>();

        #[allow(clippy::unnecessary_cast)]
        fn decode(storage: &Storage) -> Option<Duration> {
            let seconds = libc::time_t::from_ne_bytes(storage.take(offset_of!(timeval, tv_sec)));
            let micros = libc::suseconds_t::from_ne_bytes(storage.take(offset_of!(timeval, tv_usec)));
            let time = Duration::from_secs(seconds.max(0) as u64) + Duration::from_micros(micros.max(0) as u64);
            (!time.is_zero()).then_some(time)
        }
    }

    impl Encode<Option<Duration>> for Time {
        fn encode(value: Option<Duration>) -> Result<Storage> {
            let value = value.unwrap_or_default();
            let micros = value.as_nanos().div_ceil(1000);
            let too_long =
                |_| Error::Invalid(&"the socket option's time is longer than the system can count; shorten it");
            let seconds: libc::time_t = (micros / 1_000_000).try_into().map_err(too_long)?;
            let mut storage = Storage::empty();
            storage.put(offset_of!(timeval, tv_sec), &seconds.to_ne_bytes());
            storage.put(offset_of!(timeval, tv_usec), &((micros % 1_000_000) as libc::suseconds_t).to_ne_bytes());
            Ok(storage)
        }
    }

    impl Form<Option<Duration>> for Lingering {
        const SIZE: usize = size_of::<linger>();

        fn decode(storage: &Storage) -> Option<Duration> {
            let seconds = c_int::from_ne_bytes(storage.take(offset_of!(linger, l_linger)));
            let on = c_int::from_ne_bytes(storage.take(offset_of!(linger, l_onoff))) != 0;
            on.then(|| Duration::from_secs(seconds.max(0) as u64))
        }
    }

    impl Encode<Option<Duration>> for Lingering {
        fn encode(value: Option<Duration>) -> Result<Storage> {
            let mut storage = Storage::empty();
            storage.put(offset_of!(linger, l_onoff), &c_int::from(value.is_some()).to_ne_bytes());
            storage.put(offset_of!(linger, l_linger), &whole_seconds(value.unwrap_or_default())?.to_ne_bytes());
            Ok(storage)
        }
    }

    /// An option that can be read; `settable!` adds the other half.
    macro_rules! readable {
        ($(#[$doc:meta])* $name:ident: $value:ty = $level:expr, $number:expr, $form:ident) => {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $name;

            impl Sealed for $name {}

            impl SocketOption for $name {
                type Value = $value;
                const LEVEL: c_int = $level;
                const NAME: c_int = $number;
                const SIZE: socklen_t = <$form as Form<$value>>::SIZE as socklen_t;

                fn decode(&self, storage: &Storage) -> $value {
                    $form::decode(storage)
                }
            }
        };
    }

    macro_rules! settable {
        ($($(#[$doc:meta])* $name:ident: $value:ty = $level:expr, $number:expr, $form:ident;)*) => {$(
            readable!($(#[$doc])* $name: $value = $level, $number, $form);

            impl Settable for $name {
                fn encode(&self, value: $value) -> Result<Storage> {
                    $form::encode(value)
                }
            }
        )*};
    }

    #[cfg(target_vendor = "apple")]
    const KEEP_IDLE: c_int = libc::TCP_KEEPALIVE;
    #[cfg(not(target_vendor = "apple"))]
    const KEEP_IDLE: c_int = libc::TCP_KEEPIDLE;

    settable! {
        /// `SO_REUSEADDR`: binds to an address that connections of before still use. Set it before binding.
        ReuseAddr: bool = libc::SOL_SOCKET, libc::SO_REUSEADDR, Flag;
        /// `SO_REUSEPORT`: several sockets bind to one address, and share what arrives. Set it before binding.
        ReusePort: bool = libc::SOL_SOCKET, libc::SO_REUSEPORT, Flag;
        /// `SO_KEEPALIVE`: notices that the peer is gone although nothing is sent.
        KeepAlive: bool = libc::SOL_SOCKET, libc::SO_KEEPALIVE, Flag;
        /// `SO_BROADCAST`: a datagram socket may send to broadcast addresses.
        Broadcast: bool = libc::SOL_SOCKET, libc::SO_BROADCAST, Flag;
        /// `SO_LINGER`: closing waits that long for the peer to take what was sent; zero resets the connection. In
        /// whole seconds, rounded up.
        Linger: Option<Duration> = libc::SOL_SOCKET, libc::SO_LINGER, Lingering;
        /// `SO_RCVBUF`: bytes that may wait to be received. Linux doubles the number for its own needs, and gives the
        /// double.
        RecvBuffer: u32 = libc::SOL_SOCKET, libc::SO_RCVBUF, Size;
        /// `SO_SNDBUF`: bytes that may wait to be sent; doubled likewise.
        SendBuffer: u32 = libc::SOL_SOCKET, libc::SO_SNDBUF, Size;
        /// `SO_RCVTIMEO`: how long ordinary system calls wait for data, `None` for ever. For operations of this library
        /// use [`timeout`](crate::op::Op::timeout).
        RecvTimeout: Option<Duration> = libc::SOL_SOCKET, libc::SO_RCVTIMEO, Time;
        /// `SO_SNDTIMEO`: how long ordinary system calls wait for room, `None` for ever; see [`RecvTimeout`].
        SendTimeout: Option<Duration> = libc::SOL_SOCKET, libc::SO_SNDTIMEO, Time;
        /// `TCP_NODELAY`: sends small pieces at once instead of gathering them.
        NoDelay: bool = libc::IPPROTO_TCP, libc::TCP_NODELAY, Flag;
        /// `TCP_KEEPIDLE`: how long a connection is idle before the first probe of [`KeepAlive`]. In whole seconds.
        KeepIdle: Duration = libc::IPPROTO_TCP, KEEP_IDLE, Seconds;
        /// `TCP_KEEPINTVL`: the time between probes. In whole seconds.
        KeepInterval: Duration = libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, Seconds;
        /// `TCP_KEEPCNT`: how many probes may go unanswered.
        KeepCount: u32 = libc::IPPROTO_TCP, libc::TCP_KEEPCNT, Size;
        /// `IP_TTL`: how many routers an IPv4 packet may pass.
        Ttl: u32 = libc::IPPROTO_IP, libc::IP_TTL, Size;
        /// `IPV6_V6ONLY`: an IPv6 socket does without IPv4. Set it before binding.
        V6Only: bool = libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, Flag;
    }

    #[cfg(target_os = "linux")]
    settable! {
        /// `UDP_SEGMENT`: cuts what is sent into datagrams of that many bytes each; 0 for none. Linux 4.18.
        UdpSegment: u32 = libc::SOL_UDP, libc::UDP_SEGMENT, Size;
    }

    struct ErrorNumber;

    impl Form<Option<Errno>> for ErrorNumber {
        const SIZE: usize = Int::SIZE;

        fn decode(storage: &Storage) -> Option<Errno> {
            Some(Int::decode(storage)).filter(|&number| number != 0).map(Errno::new)
        }
    }

    struct Kind;

    impl Form<SocketType> for Kind {
        const SIZE: usize = Int::SIZE;

        fn decode(storage: &Storage) -> SocketType {
            SocketType::from_number(Int::decode(storage))
        }
    }

    readable! {
        /// `SO_ERROR`: the error that is pending on the socket, if any. Reading takes it away.
        SocketError: Option<Errno> = libc::SOL_SOCKET, libc::SO_ERROR, ErrorNumber
    }

    readable! {
        /// `SO_TYPE`: how the socket carries data.
        Type: SocketType = libc::SOL_SOCKET, libc::SO_TYPE, Kind
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// What an option makes of a value, as the kernel would give it back.
        fn kept<O: Settable>(option: O, value: O::Value) -> O::Value {
            option.decode(&option.encode(value).unwrap())
        }

        #[test]
        fn times_are_rounded_up_to_what_the_system_can_count() {
            let nearly = |seconds| Duration::new(seconds, 1);
            assert_eq!(kept(KeepIdle, nearly(20)), Duration::from_secs(21));
            assert_eq!(kept(KeepInterval, Duration::from_secs(20)), Duration::from_secs(20));
            assert_eq!(kept(Linger, Some(nearly(2))), Some(Duration::from_secs(3)));
            assert_eq!(kept(Linger, Some(Duration::ZERO)), Some(Duration::ZERO));
            assert_eq!(kept(Linger, None), None);
            assert_eq!(kept(RecvTimeout, Some(nearly(0))), Some(Duration::from_micros(1)));
            assert_eq!(kept(SendTimeout, Some(nearly(3))), Some(Duration::new(3, 1000)));
            assert_eq!(kept(RecvTimeout, Some(Duration::new(1, 999_999_001))), Some(Duration::from_secs(2)));
            assert_eq!(kept(RecvTimeout, None), None);
        }

        #[test]
        fn what_the_system_cannot_count_is_refused() {
            let most = Duration::from_secs(c_int::MAX as u64);
            assert_eq!((kept(KeepIdle, most), kept(Linger, Some(most))), (most, Some(most)));
            let longer = most + Duration::from_nanos(1);
            assert!(matches!(KeepIdle.encode(longer), Err(Error::Invalid(_))));
            assert!(matches!(Linger.encode(Some(longer)), Err(Error::Invalid(_))));
            assert!(matches!(RecvTimeout.encode(Some(Duration::MAX)), Err(Error::Invalid(_))));
            assert_eq!(kept(Ttl, c_int::MAX as u32), c_int::MAX as u32);
            assert!(matches!(Ttl.encode(1 << 31), Err(Error::Invalid(_))));
        }

        #[test]
        fn strange_answers_of_the_system_make_sense() {
            let number = |number| Int::encode(number).unwrap();
            assert_eq!([0, 1, 2, -1].map(|n| NoDelay.decode(&number(n))), [false, true, true, true]);
            assert_eq!([-1, 0, 7].map(|n| Ttl.decode(&number(n))), [0, 0, 7]);
            assert_eq!([-1, 7].map(|n| KeepIdle.decode(&number(n))), [Duration::ZERO, Duration::from_secs(7)]);
            assert_eq!([0, 111].map(|n| SocketError.decode(&number(n))), [None, Some(Errno::new(111))]);
        }
    }
}
