//! From names to addresses.

use crate::{Error, Result, blocking::blocking};
use std::{
    io, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs},
    option, slice, vec,
};

/// What turns into addresses of the internet: the counterpart of [`ToSocketAddrs`], for the same types.
///
/// A literal address is taken as it is. A name (`"example.org:80"`, `("localhost", 80)`) is looked up as [`lookup`]
/// does it, which is the difference: the standard library's trait cannot tell what would block.
///
/// ```
/// use aio::net::{TcpListener, TcpStream, ToAddrs};
///
/// /// A service that is found by its number.
/// struct Service(u16);
///
/// impl ToAddrs for Service {
///     type Addrs = <str as ToAddrs>::Addrs;
///
///     fn to_addrs(&self) -> std::io::Result<Self::Addrs> {
///         ("localhost", self.0).to_addrs()
///     }
/// }
///
/// let listener = TcpListener::bind(("localhost", 0))?;
/// TcpStream::connect(Service(listener.local_addr()?.port()))?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ToAddrs {
    /// The addresses, in the order in which they are tried.
    type Addrs: Iterator<Item = SocketAddr>;

    /// Finds the addresses.
    ///
    /// # Errors
    ///
    /// Those of [`lookup`]; a literal address has none.
    fn to_addrs(&self) -> io::Result<Self::Addrs>;
}

/// Looks up a name by the standard library, `getaddrinfo(3)`, and waits for the answer: the thread that waits is one
/// where nothing else runs.
///
/// It is for what is [`ToSocketAddrs`] but not [`ToAddrs`], or to see all addresses. Nothing limits its time but the
/// system's own configuration.
///
/// ```
/// let addresses = aio::net::lookup(("localhost", 80))?;
/// assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// If the name is not known, the answer does not come, or the text is no name and port
/// ([`InvalidInput`](io::ErrorKind::InvalidInput)).
pub fn lookup(name: impl ToSocketAddrs + Send) -> io::Result<Vec<SocketAddr>> {
    blocking(move || name.to_socket_addrs().map(Iterator::collect))
}

/// Tries each address until one serves. Gives the last error.
pub(super) fn first_success<T>(
    addresses: impl ToAddrs,
    mut attempt: impl FnMut(SocketAddr) -> Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for address in addresses.to_addrs()? {
        match attempt(address) {
            Ok(value) => return Ok(value),
            // Whoever waits was told to stop; it is not this address that is to blame.
            Err(error @ (Error::Canceled | Error::TimedOut)) => return Err(error.into()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(no_address, io::Error::from))
}

/// The first address, for what can be tried only once.
pub(super) fn first(addresses: impl ToAddrs) -> io::Result<SocketAddr> {
    addresses.to_addrs()?.next().ok_or_else(no_address)
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "there is no address to use; the list or the answer is empty")
}

fn only(address: SocketAddr) -> vec::IntoIter<SocketAddr> {
    vec![address].into_iter()
}

impl ToAddrs for SocketAddr {
    type Addrs = option::IntoIter<SocketAddr>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        Ok(Some(*self).into_iter())
    }
}

macro_rules! literals {
    ($($literal:ty),*) => {$(
        impl ToAddrs for $literal {
            type Addrs = option::IntoIter<SocketAddr>;

            fn to_addrs(&self) -> io::Result<Self::Addrs> {
                SocketAddr::from(*self).to_addrs()
            }
        }
    )*};
}

literals!(SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToAddrs for str {
    type Addrs = vec::IntoIter<SocketAddr>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        self.parse().map_or_else(|_| lookup(self).map(Vec::into_iter), |address| Ok(only(address)))
    }
}

impl ToAddrs for (&str, u16) {
    type Addrs = vec::IntoIter<SocketAddr>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        let literal = self.0.parse::<IpAddr>();
        literal.map_or_else(|_| lookup(*self).map(Vec::into_iter), |ip| Ok(only((ip, self.1).into())))
    }
}

impl ToAddrs for String {
    type Addrs = vec::IntoIter<SocketAddr>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        self.as_str().to_addrs()
    }
}

impl ToAddrs for (String, u16) {
    type Addrs = vec::IntoIter<SocketAddr>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        (self.0.as_str(), self.1).to_addrs()
    }
}

impl<'a> ToAddrs for &'a [SocketAddr] {
    type Addrs = iter::Copied<slice::Iter<'a, SocketAddr>>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        Ok(self.iter().copied())
    }
}

impl<const N: usize> ToAddrs for [SocketAddr; N] {
    type Addrs = std::array::IntoIter<SocketAddr, N>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        Ok((*self).into_iter())
    }
}

impl ToAddrs for Vec<SocketAddr> {
    type Addrs = vec::IntoIter<SocketAddr>;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        Ok(self.clone().into_iter())
    }
}

impl<T: ToAddrs + ?Sized> ToAddrs for &T {
    type Addrs = T::Addrs;

    fn to_addrs(&self) -> io::Result<Self::Addrs> {
        (**self).to_addrs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Errno;

    const REFUSED: Error = Error::Os(Errno::new(libc::ECONNREFUSED));

    fn address(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn each_address_is_tried_until_one_serves() {
        let try_until = |good: u16| {
            first_success(
                [1, 2, 3].map(address),
                |address| if address.port() < good { Err(REFUSED) } else { Ok(address) },
            )
        };
        assert_eq!(try_until(2).unwrap(), address(2));
        assert_eq!(try_until(9).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let none = first_success(Vec::new(), |_| Ok(()));
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn no_further_address_is_tried_after_a_cancellation() {
        for told in [Error::Canceled, Error::TimedOut] {
            let mut tried = 0;
            let error = first_success([1, 2].map(address), |_| {
                tried += 1;
                Err::<(), _>(told)
            });
            assert_eq!((error.unwrap_err().kind(), tried), (told.kind(), 1));
        }
    }
}
