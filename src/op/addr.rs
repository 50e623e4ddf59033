//! Socket addresses, as people write them and as the kernel does.

use crate::{Error, Result, op::Domain};
use std::{
    ffi::OsStr,
    fmt,
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::unix::{ffi::OsStrExt, net::SocketAddr as UnixAddr},
    path::Path,
};

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;

/// The address of a socket.
///
/// Operations take anything that turns into one: a [`SocketAddr`], a pair such as `([127, 0, 0, 1], 8080)`, an address
/// of a Unix socket, or an `Address` that another operation gave.
///
/// ```
/// use aio::op::Address;
///
/// let web = Address::from(([127, 0, 0, 1], 8080));
/// assert_eq!(web.to_string(), "127.0.0.1:8080");
/// assert_eq!(web.ip().map(|ip| ip.port()), Some(8080));
///
/// let local = Address::unix("/run/service.sock")?;
/// assert_eq!(local.pathname(), Some("/run/service.sock".as_ref()));
/// # Ok::<(), aio::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Address {
    /// An IPv4 address and port.
    V4(SocketAddrV4),
    /// An IPv6 address and port.
    V6(SocketAddrV6),
    /// A named Unix socket: a path, or on Linux an abstract name.
    Unix(UnixAddr),
    /// None: a Unix socket that was never bound, or a peer of whom the kernel tells nothing, as of a connected TCP
    /// socket's.
    Unnamed,
    /// Of another family, in the system's own form.
    Other {
        /// The family, such as `AF_VSOCK`.
        family: i32,
        /// What follows the family in the system's structure.
        data: Box<[u8]>,
    },
}

impl Address {
    /// The address of a Unix socket with a path.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the path is empty, contains a zero byte, or is too long for the system (108 bytes on
    /// Linux, 104 on others, one of which ends the string).
    pub fn unix(path: impl AsRef<Path>) -> Result<Address> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() {
            return Err(Error::Invalid(&"the path of a Unix socket is empty; name a file"));
        }
        if bytes.contains(&0) {
            return Err(Error::Invalid(&"the path of a Unix socket contains a zero byte; leave it out"));
        }
        UnixAddr::from_pathname(path).map(Address::Unix).map_err(|_| {
            Error::Invalid(
                &"the path of a Unix socket is longer than the system allows (about 100 bytes); use a shorter one",
            )
        })
    }

    /// The address of a Unix socket with an abstract name: one that is no file, and is gone when the last socket is.
    /// `unix(7)` describes them. They are not protected by permissions.
    ///
    /// ```
    /// let address = aio::op::Address::abstract_name("service")?;
    /// assert_eq!(address.to_string(), "@service");
    /// # Ok::<(), aio::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the name is longer than 107 bytes.
    #[cfg(target_os = "linux")]
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Result<Address> {
        UnixAddr::from_abstract_name(name)
            .map(Address::Unix)
            .map_err(|_| Error::Invalid(&"an abstract name is longer than 107 bytes; use a shorter one"))
    }

    /// The IP address and port, if it is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match *self {
            Address::V4(address) => Some(SocketAddr::V4(address)),
            Address::V6(address) => Some(SocketAddr::V6(address)),
            _ => None,
        }
    }

    /// The path, if it is that of a Unix socket which has one.
    pub fn pathname(&self) -> Option<&Path> {
        match self {
            Address::Unix(address) => address.as_pathname(),
            _ => None,
        }
    }

    /// Whether it is [`Unnamed`](Address::Unnamed).
    pub fn is_unnamed(&self) -> bool {
        matches!(self, Address::Unnamed)
    }

    /// What [`Socket`](crate::op::Socket) takes to make a socket for this address.
    pub fn domain(&self) -> Domain {
        match *self {
            Address::V4(_) => Domain::V4,
            Address::V6(_) => Domain::V6,
            Address::Unix(_) | Address::Unnamed => Domain::Unix,
            Address::Other { family, .. } => Domain::Other(family),
        }
    }
}

/// The bytes of an abstract name.
fn abstract_name(address: &UnixAddr) -> Option<&[u8]> {
    #[cfg(target_os = "linux")]
    return address.as_abstract_name();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = address;
        None
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::V4(a), Address::V4(b)) => a == b,
            (Address::V6(a), Address::V6(b)) => a == b,
            (Address::Unix(a), Address::Unix(b)) => {
                a.as_pathname() == b.as_pathname() && abstract_name(a) == abstract_name(b)
            }
            (Address::Unnamed, Address::Unnamed) => true,
            (Address::Other { family: a, data: x }, Address::Other { family: b, data: y }) => a == b && x == y,
            _ => false,
        }
    }
}

impl Eq for Address {}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::V4(address) => address.fmt(f),
            Address::V6(address) => address.fmt(f),
            Address::Unix(address) => match (address.as_pathname(), abstract_name(address)) {
                (Some(path), _) => path.display().fmt(f),
                (None, Some(name)) => write!(f, "@{}", name.escape_ascii()),
                (None, None) => f.write_str("(unnamed)"),
            },
            Address::Unnamed => f.write_str("(unnamed)"),
            Address::Other { family, .. } => write!(f, "(address of family {family})"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(address) => Address::V4(address),
            SocketAddr::V6(address) => Address::V6(address),
        }
    }
}

impl From<SocketAddrV4> for Address {
    fn from(address: SocketAddrV4) -> Address {
        Address::V4(address)
    }
}

impl From<SocketAddrV6> for Address {
    fn from(address: SocketAddrV6) -> Address {
        Address::V6(address)
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Address {
        SocketAddr::from(address).into()
    }
}

impl From<UnixAddr> for Address {
    fn from(address: UnixAddr) -> Address {
        if address.is_unnamed() { Address::Unnamed } else { Address::Unix(address) }
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Address {
        address.clone()
    }
}

const SIZE: usize = size_of::<libc::sockaddr_storage>();
const FAMILY: usize = offset_of!(libc::sockaddr, sa_family);
const DATA: usize = offset_of!(libc::sockaddr, sa_data);
const PATH: usize = offset_of!(libc::sockaddr_un, sun_path);

/// An address in the kernel's form: a `sockaddr_storage` and how much of it counts.
///
/// It is kept as bytes, all of them initialised, so that no kernel's idea of a length can make a read of it unsound.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; SIZE],
    len: libc::socklen_t,
}

const _: () = assert!(align_of::<RawAddress>() >= align_of::<libc::sockaddr_storage>());

impl RawAddress {
    /// Room for any address.
    pub(crate) fn empty() -> RawAddress {
        RawAddress { bytes: [0; SIZE], len: SIZE as libc::socklen_t }
    }

    /// What the kernel has put elsewhere; as much of it as an address can have.
    pub(crate) fn from_bytes(bytes: &[u8]) -> RawAddress {
        let mut raw = RawAddress::empty();
        let len = bytes.len().min(SIZE);
        raw.bytes[..len].copy_from_slice(&bytes[..len]);
        raw.len = len as libc::socklen_t;
        raw
    }

    /// Makes room for any address again, and names none until one is put here.
    pub(crate) fn clear(&mut self) {
        self.bytes[..DATA].fill(0);
        self.len = SIZE as libc::socklen_t;
    }

    pub(crate) fn encode(address: &Address) -> Result<RawAddress> {
        let mut raw = RawAddress::empty();
        match address {
            Address::V4(v4) => {
                raw.set_family(libc::AF_INET, size_of::<libc::sockaddr_in>());
                raw.put(offset_of!(libc::sockaddr_in, sin_port), &v4.port().to_be_bytes());
                raw.put(offset_of!(libc::sockaddr_in, sin_addr), &v4.ip().octets());
            }
            Address::V6(v6) => {
                raw.set_family(libc::AF_INET6, size_of::<libc::sockaddr_in6>());
                raw.put(offset_of!(libc::sockaddr_in6, sin6_port), &v6.port().to_be_bytes());
                raw.put(offset_of!(libc::sockaddr_in6, sin6_flowinfo), &v6.flowinfo().to_ne_bytes());
                raw.put(offset_of!(libc::sockaddr_in6, sin6_addr), &v6.ip().octets());
                raw.put(offset_of!(libc::sockaddr_in6, sin6_scope_id), &v6.scope_id().to_ne_bytes());
            }
            Address::Unix(unix) => match (unix.as_pathname(), abstract_name(unix)) {
                (Some(path), _) => {
                    // With the zero byte that ends it.
                    let path = path.as_os_str().as_bytes();
                    raw.set_family(libc::AF_UNIX, PATH + path.len() + 1);
                    raw.put(PATH, path);
                }
                (None, Some(name)) => {
                    raw.set_family(libc::AF_UNIX, PATH + 1 + name.len());
                    raw.put(PATH + 1, name);
                }
                (None, None) => return Err(UNNAMED),
            },
            Address::Unnamed => return Err(UNNAMED),
            Address::Other { family, data } => {
                if data.len() > SIZE - DATA {
                    return Err(Error::Invalid(
                        &"the address is longer than any that the system knows; shorten its data",
                    ));
                }
                raw.set_family(*family, DATA + data.len());
                raw.put(DATA, data);
            }
        }
        Ok(raw)
    }

    /// What the kernel has put here.
    pub(crate) fn decode(&self) -> Address {
        let len = (self.len as usize).min(SIZE);
        if len < DATA {
            return Address::Unnamed;
        }
        let family = i32::from(libc::sa_family_t::from_ne_bytes(self.take(FAMILY)));
        match family {
            libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
                let ip: [u8; 4] = self.take(offset_of!(libc::sockaddr_in, sin_addr));
                let port = u16::from_be_bytes(self.take(offset_of!(libc::sockaddr_in, sin_port)));
                Address::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port))
            }
            libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
                let ip: [u8; 16] = self.take(offset_of!(libc::sockaddr_in6, sin6_addr));
                Address::V6(SocketAddrV6::new(
                    ip.into(),
                    u16::from_be_bytes(self.take(offset_of!(libc::sockaddr_in6, sin6_port))),
                    u32::from_ne_bytes(self.take(offset_of!(libc::sockaddr_in6, sin6_flowinfo))),
                    u32::from_ne_bytes(self.take(offset_of!(libc::sockaddr_in6, sin6_scope_id))),
                ))
            }
            libc::AF_UNIX => decode_unix(&self.bytes[PATH..len]),
            libc::AF_UNSPEC => Address::Unnamed,
            _ => Address::Other { family, data: self.bytes[DATA..len].into() },
        }
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// The length that a message's header was given.
    pub(crate) fn set_len(&mut self, len: libc::socklen_t) {
        self.len = len;
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        self.bytes.as_mut_ptr().cast()
    }

    /// Where the kernel may put the length of what it puts into the rest.
    pub(crate) fn len_mut_ptr(&mut self) -> *mut libc::socklen_t {
        &raw mut self.len
    }

    fn set_family(&mut self, family: i32, len: usize) {
        // On the BSDs the first byte is the length, and the family takes one byte.
        if FAMILY == 1 {
            self.bytes[0] = len as u8;
        }
        self.put(FAMILY, &(family as libc::sa_family_t).to_ne_bytes());
        self.len = len as libc::socklen_t;
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        bytes
    }
}

const UNNAMED: Error = Error::Invalid(&"an unnamed address names nothing; give the address of a socket that was bound");

fn decode_unix(path: &[u8]) -> Address {
    let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
    if end > 0 {
        // A path that fills the kernel's field to the last byte does not fit into the standard library's type.
        let named = UnixAddr::from_pathname(OsStr::from_bytes(&path[..end]));
        return named.map_or_else(|_| Address::Other { family: libc::AF_UNIX, data: path.into() }, Address::Unix);
    }
    #[cfg(target_os = "linux")]
    if let Some(address) = path.get(1..).and_then(|name| UnixAddr::from_abstract_name(name).ok()) {
        return Address::Unix(address);
    }
    Address::Unnamed
}

impl fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.decode().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses of which no two are the same.
    fn different() -> Vec<Address> {
        let v6 = |scope| Address::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 443, 7, scope));
        let other = |family, data: &[u8]| Address::Other { family, data: data.into() };
        #[cfg_attr(not(target_os = "linux"), allow(unused_mut))]
        let mut all = vec![
            Address::from(([127, 0, 0, 1], 80)),
            Address::from(([127, 0, 0, 1], 81)),
            v6(3),
            v6(4),
            Address::unix("/tmp/a socket").unwrap(),
            Address::unix("x".repeat(103)).unwrap(),
            other(40, &[]),
            other(40, &[1, 2, 3]),
            other(40, &[1, 2, 4]),
            other(41, &[1, 2, 3]),
            other(40, &[7; SIZE - DATA]),
        ];
        #[cfg(target_os = "linux")]
        for name in [&b""[..], b"name", b"a\0b", &[7; 107]] {
            all.push(Address::abstract_name(name).unwrap());
        }
        all
    }

    #[test]
    fn encoding_and_decoding_gives_the_same() {
        for address in different() {
            assert_eq!(RawAddress::encode(&address).unwrap().decode(), address);
        }
    }

    #[test]
    fn addresses_are_equal_only_if_all_of_them_is() {
        let mut all = different();
        all.push(Address::Unnamed);
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a == b, i == j, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn the_length_of_a_name_counts_what_ends_or_begins_it() {
        let encoded = |address: Result<Address>| {
            let raw = RawAddress::encode(&address.unwrap()).unwrap();
            raw.bytes[PATH..raw.len as usize].to_vec()
        };
        assert_eq!(encoded(Address::unix("/a/path")), b"/a/path\0");
        #[cfg(target_os = "linux")]
        assert_eq!(encoded(Address::abstract_name("name")), b"\0name");
    }

    #[test]
    fn addresses_are_shown_and_taken_apart() {
        let (v4, v6) = ("127.0.0.1:80".parse::<SocketAddr>().unwrap(), "[::1]:443".parse::<SocketAddr>().unwrap());
        let path = Some(Path::new("/a path"));
        #[cfg_attr(not(target_os = "linux"), allow(unused_mut))]
        let mut all = vec![
            (Address::from(v4), "127.0.0.1:80", Domain::V4, (Some(v4), None)),
            (Address::from(v6), "[::1]:443", Domain::V6, (Some(v6), None)),
            (Address::unix("/a path").unwrap(), "/a path", Domain::Unix, (None, path)),
            (Address::Unnamed, "(unnamed)", Domain::Unix, (None, None)),
            (
                Address::Other { family: 40, data: [1].into() },
                "(address of family 40)",
                Domain::Other(40),
                (None, None),
            ),
        ];
        #[cfg(target_os = "linux")]
        all.push((Address::abstract_name("a\0b").unwrap(), "@a\\x00b", Domain::Unix, (None, None)));
        for (address, text, domain, parts) in all {
            assert_eq!(address.to_string(), text);
            assert_eq!(address.domain(), domain, "{text}");
            assert_eq!((address.ip(), address.pathname()), parts, "{text}");
            assert_eq!(address.is_unnamed(), address == Address::Unnamed, "{text}");
        }
    }

    #[test]
    fn what_the_kernel_leaves_out_is_no_address() {
        let decoded = |family: i32, len: usize| {
            let mut raw = RawAddress::empty();
            raw.set_family(family, len);
            raw.decode()
        };
        for len in [0, DATA - 1, DATA, SIZE] {
            assert_eq!(decoded(libc::AF_UNSPEC, len), Address::Unnamed);
        }
        // Of an Internet address that is cut nothing can be believed.
        for (family, size) in
            [(libc::AF_INET, size_of::<libc::sockaddr_in>()), (libc::AF_INET6, size_of::<libc::sockaddr_in6>())]
        {
            assert!(matches!(decoded(family, size - 1), Address::Other { family: f, .. } if f == family));
            assert!(decoded(family, size).ip().is_some());
        }
        let mut used = RawAddress::encode(&Address::from(([127, 0, 0, 1], 80))).unwrap();
        used.clear();
        assert_eq!((used.decode(), used.len() as usize), (Address::Unnamed, SIZE));
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        for path in ["", "a\0b", &"x".repeat(200)] {
            assert!(matches!(Address::unix(path), Err(Error::Invalid(_))), "{path:?}");
        }
        assert!(RawAddress::encode(&Address::Unnamed).is_err());
        assert!(RawAddress::encode(&Address::Other { family: 40, data: vec![0; 127].into() }).is_err());
    }

    #[test]
    fn a_wrong_length_is_harmless() {
        for len in 0..200 {
            for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_UNSPEC, 40] {
                let mut raw = RawAddress::empty();
                raw.set_family(family, 0);
                raw.set_len(len);
                assert_eq!(raw.len(), len);
                let _ = raw.decode();
            }
        }
    }
}
