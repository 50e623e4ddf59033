//! What an operation may work on: anything with a descriptor, or one that is closed in the same chain.
#![allow(unsafe_code)]

use crate::{
    Error, FixedFile, Result,
    lower::{Lower, Outcome},
    op::Fd,
};
use std::{
    cell::Cell,
    fmt,
    os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
};

mod seal {
    pub trait Sealed {}
}

/// What an operation works on: anything that is [`AsFd`], by reference or by value, a [`FixedFile`], or a
/// [`&Closing`](Closing).
///
/// The operation keeps it, so it stays open until the operation is finished. `as_fd` is called once, when the operation
/// starts.
///
/// Sealed. What the library calls by itself cannot be called from outside, where it would make a [`Closing`] forget
/// that an operation still uses it:
///
/// ```compile_fail,E0061
/// let closing = aio::Closing::opening();
/// aio::Descriptor::finished(&&closing);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no file descriptor",
    note = "give a reference to something that is `AsFd`: a `File`, a `TcpStream`, an `OwnedFd`, …"
)]
pub trait Descriptor: seal::Sealed {
    /// Whether operations with many results may work on it.
    #[doc(hidden)]
    const LASTS: bool = true;
    /// Called once for each operation, first of all.
    #[doc(hidden)]
    fn lower_fd(&self, cx: &mut Lower<'_>) -> Result<Fd>;
    /// Called once for each call of `lower_fd`, when the operation is finished.
    #[doc(hidden)]
    fn finished(&self, _outcome: &Outcome<'_>) {}
}

impl<T: AsFd> seal::Sealed for T {}

impl<T: AsFd> Descriptor for T {
    #[inline]
    fn lower_fd(&self, cx: &mut Lower<'_>) -> Result<Fd> {
        let number = self.as_fd().as_raw_fd();
        cx.check_alive();
        Ok(Fd::new(number))
    }
}

macro_rules! fixed {
    ($($handle:ty),*) => {$(
        impl seal::Sealed for $handle {}

        impl Descriptor for $handle {
            #[inline]
            fn lower_fd(&self, cx: &mut Lower<'_>) -> Result<Fd> {
                self.lower(cx)
            }
        }
    )*};
}

fixed!(FixedFile, &FixedFile);

/// What [`Close`](crate::op::Close) takes: anything that turns into an [`OwnedFd`], or a [`&Closing`](Closing).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be closed",
    note = "`Close` takes what owns its descriptor (a `File`, a `TcpStream`, an `OwnedFd`), or a `&Closing`"
)]
pub trait Closable: seal_closable::Sealed {
    #[doc(hidden)]
    type Held;
    #[doc(hidden)]
    fn hold(self) -> Self::Held;
    /// Gives up the ownership of the descriptor. From here on it belongs to the operation in its slot, which closes it
    /// even if nobody ever looks at the result.
    #[doc(hidden)]
    fn lower_close(held: &mut Self::Held, cx: &mut Lower<'_>) -> Result<Fd>;
    /// The operation has ended that `lower_close` was called for; it has closed the descriptor, or never ran.
    #[doc(hidden)]
    fn raise_close(held: &mut Self::Held, fd: Fd, closed: bool, outcome: &Outcome<'_>);
}

mod seal_closable {
    pub trait Sealed {}
}

impl<T: Into<OwnedFd>> seal_closable::Sealed for T {}

impl<T: Into<OwnedFd>> Closable for T {
    type Held = Option<OwnedFd>;

    fn hold(self) -> Option<OwnedFd> {
        Some(self.into())
    }

    fn lower_close(held: &mut Option<OwnedFd>, _cx: &mut Lower<'_>) -> Result<Fd> {
        let fd = held.take().ok_or(Error::Invalid(&"the descriptor was given to an earlier run of this operation"))?;
        Ok(Fd::new(fd.into_raw_fd()))
    }

    fn raise_close(_held: &mut Option<OwnedFd>, fd: Fd, closed: bool, _outcome: &Outcome<'_>) {
        if !closed {
            drop(owned(fd));
        }
    }
}

/// Takes back what `lower_close` gave up.
fn owned(fd: Fd) -> OwnedFd {
    // SAFETY: the number was an `OwnedFd`'s, and the operation that it was given up for has not run.
    unsafe { OwnedFd::from_raw_fd(fd.number()) }
}

/// A descriptor that several operations of one chain work on, and the last one closes.
///
/// [`Close`](crate::op::Close) owns what it closes, so that nothing else can use it at the same time. A `Closing` is
/// the exception: operations name it by reference, and the library checks that they all stand before its `Close`, in
/// the same chain. If the chain breaks before the `Close`, the descriptor stays in the `Closing`, which closes it when
/// it is dropped.
///
/// Write, make it durable, close, in one go:
///
/// ```
/// use aio::{Closing, op::*};
///
/// let dir = tempfile::tempdir()?;
/// let file = Closing::new(std::fs::File::create(dir.path().join("log"))?);
/// let (n, (), ()) = aio::multi((
///     Write::new(&file, b"entry").at(0).hard_link(),
///     Fsync::new(&file).hard_link(),
///     Close::new(&file),
/// ))?;
/// assert_eq!(n, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Open, read, close, where the file has no descriptor until the chain runs (a hard link closes it even if the file is
/// shorter than the buffer):
///
/// ```
/// use aio::{Closing, op::*};
///
/// let file = Closing::opening();
/// let mut text = [0u8; 9];
/// aio::multi((
///     OpenAt::new("Cargo.toml").open_into(&file).link(),
///     Read::new(&file, &mut text).hard_link(),
///     Close::new(&file),
/// ))?;
/// assert_eq!(&text, b"[package]");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Closing {
    fd: Cell<Option<OwnedFd>>,
    state: Cell<State>,
    /// Operations that name it and are not finished, and the chain they are in.
    users: Cell<u32>,
    chain: Cell<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Holds the descriptor with this number.
    Open(i32),
    /// Holds none yet.
    Awaiting,
    /// A chain opens it.
    Opening,
    /// Its `Close` was seen.
    Closing,
    Closed,
}

/// The operations that name it are in several chains.
const MIXED: u64 = u64::MAX;

impl Closing {
    /// Takes over an open descriptor.
    pub fn new(fd: impl Into<OwnedFd>) -> Closing {
        let fd = fd.into();
        let state = State::Open(fd.as_raw_fd());
        Closing { fd: Cell::new(Some(fd)), state: Cell::new(state), users: Cell::new(0), chain: Cell::new(MIXED) }
    }

    /// Holds nothing yet: an [`OpenAt`](crate::op::OpenAt) with [`open_into`](crate::op::OpenAt::open_into) fills it,
    /// the following operations of that chain use it, and its `Close` has to stand in the same chain.
    pub fn opening() -> Closing {
        Closing { fd: Cell::new(None), state: Cell::new(State::Awaiting), users: Cell::new(0), chain: Cell::new(MIXED) }
    }

    /// The descriptor, if it was not closed.
    pub fn into_inner(self) -> Option<OwnedFd> {
        self.fd.take()
    }

    fn note_user(&self, cx: &Lower<'_>) {
        let users = self.users.get();
        let same = users == 0 || self.chain.get() == cx.chain();
        self.chain.set(if same { cx.chain() } else { MIXED });
        self.users.set(users + 1);
    }

    /// For `open_into`: the chain being lowered opens it.
    pub(crate) fn begin_opening(&self, cx: &mut Lower<'_>) -> Result<()> {
        match self.state.get() {
            State::Awaiting | State::Closed => {
                cx.open_for(self)?;
                self.state.set(State::Opening);
                Ok(())
            }
            _ => Err(Error::Invalid(&"a Closing can be opened into only while it holds no descriptor")),
        }
    }
}

impl Closing {
    /// The `open_into` that began it gave no descriptor, so that another can begin.
    pub(crate) fn opening_failed(&self) {
        if self.state.get() == State::Opening {
            self.state.set(State::Awaiting);
        }
    }
}

impl seal::Sealed for &Closing {}

impl Descriptor for &Closing {
    const LASTS: bool = false;

    fn lower_fd(&self, cx: &mut Lower<'_>) -> Result<Fd> {
        // Refused operations count too, for `finished` is called for each.
        self.note_user(cx);
        match self.state.get() {
            State::Open(number) => Ok(Fd::new(number)),
            State::Opening if cx.opens_for(self) => Ok(Fd::OPENED),
            State::Closing => Err(Error::Invalid(&"an operation names a Closing after its Close")),
            _ => Err(Error::Invalid(&"the Closing holds no descriptor: open into it earlier in the same chain")),
        }
    }

    fn finished(&self, _outcome: &Outcome<'_>) {
        self.users.set(self.users.get() - 1);
    }
}

impl seal_closable::Sealed for &Closing {}

impl<'c> Closable for &'c Closing {
    type Held = &'c Closing;

    fn hold(self) -> &'c Closing {
        self
    }

    fn lower_close(held: &mut &'c Closing, cx: &mut Lower<'_>) -> Result<Fd> {
        let holds = match held.state.get() {
            State::Open(_) => true,
            State::Opening => cx.opens_for(held),
            _ => false,
        };
        if !holds {
            return Err(Error::Invalid(&"the Closing holds no descriptor that could be closed"));
        }
        if held.users.get() > 0 && held.chain.get() != cx.chain() {
            return Err(Error::Invalid(
                &"every operation that names a Closing must be linked, directly or through others, to its Close",
            ));
        }
        held.state.set(State::Closing);
        Ok(held.fd.take().map_or(Fd::OPENED, |fd| Fd::new(fd.into_raw_fd())))
    }

    fn raise_close(held: &mut &'c Closing, fd: Fd, closed: bool, outcome: &Outcome<'_>) {
        held.state.set(State::Closed);
        if fd.is_opened() {
            outcome.release_opened(closed);
        } else if !closed {
            held.fd.set(Some(owned(fd)));
            held.state.set(State::Open(fd.number()));
        }
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing").field("state", &self.state.get()).finish_non_exhaustive()
    }
}
