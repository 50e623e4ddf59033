//! Buffers: what may be read into and written from.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::{
    fmt,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{Bound, RangeBounds},
    rc::Rc,
    slice,
    sync::Arc,
};

pub(crate) mod seal {
    pub trait Sealed {}
}

/// The most that one operation transfers, as `read(2)` has it: 2 GiB less a page.
pub(crate) const MAX_TRANSFER: usize = 0x7fff_f000;

/// The length as an engine takes it.
pub(crate) fn checked_len(len: usize) -> Result<u32> {
    match len {
        0..=MAX_TRANSFER => Ok(len as u32),
        _ => Err(Error::Invalid(&"the buffer is longer than one operation can transfer (2147479552 bytes); split it")),
    }
}

/// A buffer that an operation fills.
///
/// - `&mut [u8]`, `&mut [u8; N]`: the output is the number of bytes.
/// - `&mut [MaybeUninit<u8>]`: the output is the part that was filled, and the rest.
/// - [`spare(&mut vec)`](spare): appends to the vector. The output is the number of bytes.
/// - `Vec<u8>`, `Box<[u8]>`: owned; the output is the number of bytes and the buffer. All of its *length* is filled,
///   not its capacity. An operation that fails drops it; lend it to keep it.
/// - [`&Shared`](Shared) and its [parts](Shared::part): a buffer that several operations of a batch name.
///
/// A bare `&mut Vec<u8>` is refused, for it would be unclear whether to overwrite or to append:
///
/// ```compile_fail,E0277
/// let file = std::fs::File::open("Cargo.toml").unwrap();
/// let mut vec = Vec::with_capacity(64);
/// aio::single(aio::op::Read::new(&file, &mut vec));
/// ```
///
/// Sealed. What the library calls by itself cannot be called from outside, where it could say that bytes are filled
/// which are not:
///
/// ```compile_fail,E0133
/// let mut vec = Vec::with_capacity(64);
/// aio::BufMut::filled(&mut aio::spare(&mut vec), 1000);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a buffer that can be filled",
    label = "cannot be read into",
    note = "for a `Vec<u8>`: write `&mut vec[..]` to overwrite its contents, `aio::spare(&mut vec)` to append to it",
    note = "for an array: write `&mut array`; an array by value would move while the kernel writes to it"
)]
pub trait BufMut: seal::Sealed {
    /// What an operation gives that has filled the buffer. One that comes back with its result keeps the buffer, and
    /// gives the number of bytes.
    type Output;
    #[doc(hidden)]
    const SHARED: bool = false;
    /// Where the buffer is. Valid for writes of that length until the operation is settled.
    #[doc(hidden)]
    fn parts_mut(&mut self) -> Result<(*mut u8, u32)>;
    /// The number by which the engine knows the memory that the buffer is part of, counted from 1; 0 if it does not.
    #[doc(hidden)]
    #[inline]
    fn registered_as(&self, _engine: u64) -> u16 {
        0
    }
    /// The operation has put `len` bytes into the buffer. Called once for each operation that succeeds.
    ///
    /// # Safety
    /// That is so, it is not more than `parts_mut` gave, and the buffer was not touched since then.
    #[doc(hidden)]
    unsafe fn filled(&mut self, _len: usize) {}
    /// What a batch gives of it.
    ///
    /// # Safety
    /// `filled` was called last, with the same `len`.
    #[doc(hidden)]
    unsafe fn into_output(self, len: usize) -> Self::Output;
}

/// Bytes that an operation takes.
///
/// `&[u8]`, `&[u8; N]`, `&str`, `&String`, `&Vec<u8>`, `&Box<[u8]>`, [`&Shared`](Shared) and its [parts](Shared::part)
/// are lent, and the output is the number of bytes. `Vec<u8>`, `Box<[u8]>`, `String`, `Arc<[u8]>` and `Rc<[u8]>` are
/// owned, and the output is the number and the buffer.
///
/// Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a buffer that can be written from",
    note = "lend a slice (`&bytes[..]`) or give a `Vec<u8>`, `Box<[u8]>`, `String` or `Arc<[u8]>`"
)]
pub trait Buf: seal::Sealed {
    /// What an operation gives that has taken the bytes. One that comes back with its result keeps the buffer, and gives
    /// the number of bytes.
    type Output;
    #[doc(hidden)]
    const SHARED: bool = false;
    #[doc(hidden)]
    fn parts(&self) -> Result<(*const u8, u32)>;
    /// As [`BufMut::registered_as`].
    #[doc(hidden)]
    #[inline]
    fn registered_as(&self, _engine: u64) -> u16 {
        0
    }
    #[doc(hidden)]
    fn into_output(self, len: usize) -> Self::Output;
}

impl seal::Sealed for &mut [u8] {}

impl BufMut for &mut [u8] {
    type Output = usize;

    fn parts_mut(&mut self) -> Result<(*mut u8, u32)> {
        Ok((self.as_mut_ptr(), checked_len(self.len())?))
    }

    unsafe fn into_output(self, len: usize) -> usize {
        len
    }
}

impl<const N: usize> seal::Sealed for &mut [u8; N] {}

impl<const N: usize> BufMut for &mut [u8; N] {
    type Output = usize;

    fn parts_mut(&mut self) -> Result<(*mut u8, u32)> {
        Ok((self.as_mut_ptr(), checked_len(N)?))
    }

    unsafe fn into_output(self, len: usize) -> usize {
        len
    }
}

impl seal::Sealed for &mut [MaybeUninit<u8>] {}

impl<'b> BufMut for &'b mut [MaybeUninit<u8>] {
    type Output = (&'b mut [u8], &'b mut [MaybeUninit<u8>]);

    fn parts_mut(&mut self) -> Result<(*mut u8, u32)> {
        Ok((self.as_mut_ptr().cast(), checked_len(self.len())?))
    }

    unsafe fn into_output(self, len: usize) -> Self::Output {
        let (filled, rest) = self.split_at_mut(len);
        // SAFETY: the first `len` bytes were written, as the caller promises.
        (unsafe { slice::from_raw_parts_mut(filled.as_mut_ptr().cast(), len) }, rest)
    }
}

/// The spare capacity of a vector; made by [`spare`].
pub struct Spare<'b>(&'b mut Vec<u8>);

/// Appends what an operation reads to `vec`, into its spare capacity. Reserve some first: the capacity does not grow.
///
/// ```
/// use aio::{op::Read, spare};
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// let mut text = Vec::with_capacity(9);
/// aio::single(Read::new(&file, spare(&mut text)))?;
/// assert_eq!(text, b"[package]");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spare(vec: &mut Vec<u8>) -> Spare<'_> {
    Spare(vec)
}

impl seal::Sealed for Spare<'_> {}

impl BufMut for Spare<'_> {
    type Output = usize;

    fn parts_mut(&mut self) -> Result<(*mut u8, u32)> {
        let spare = self.0.spare_capacity_mut();
        if spare.is_empty() {
            return Err(Error::Invalid(&"the vector has no spare capacity to read into; call `reserve` first"));
        }
        let len = spare.len().min(MAX_TRANSFER);
        Ok((spare.as_mut_ptr().cast(), len as u32))
    }

    unsafe fn filled(&mut self, len: usize) {
        // SAFETY: `len` bytes of the spare capacity were written, as the caller promises.
        unsafe { self.0.set_len(self.0.len() + len) };
    }

    unsafe fn into_output(self, len: usize) -> usize {
        len
    }
}

/// An owned buffer without length is a mistake that would look like the end of the file.
pub(crate) fn not_empty(len: usize) -> Result<u32> {
    if len == 0 {
        return Err(Error::Invalid(
            &"the owned buffer has length 0; an operation fills its length, not its capacity (`vec![0; n]`)",
        ));
    }
    checked_len(len)
}

macro_rules! owned {
    ($($owner:ty),*) => {$(
        impl seal::Sealed for $owner {}

        impl BufMut for $owner {
            type Output = (usize, $owner);

            fn parts_mut(&mut self) -> Result<(*mut u8, u32)> {
                Ok((self.as_mut_ptr(), not_empty(self.len())?))
            }

            unsafe fn into_output(self, len: usize) -> (usize, $owner) {
                (len, self)
            }
        }
    )*};
}

owned!(Vec<u8>, Box<[u8]>);

macro_rules! lent {
    ($([$($generics:tt)*] $borrow:ty),*) => {$(
        impl<$($generics)*> Buf for $borrow {
            type Output = usize;

            fn parts(&self) -> Result<(*const u8, u32)> {
                let bytes: &[u8] = (**self).as_ref();
                Ok((bytes.as_ptr(), checked_len(bytes.len())?))
            }

            fn into_output(self, len: usize) -> usize {
                len
            }
        }

        impl<$($generics)*> seal::Sealed for $borrow {}
    )*};
}

lent!([] &[u8], [const N: usize] &[u8; N], [] &str, [] &String, [] &Vec<u8>, [] &Box<[u8]>);

macro_rules! given {
    ($($owner:ty),*) => {$(
        impl Buf for $owner {
            type Output = (usize, $owner);

            fn parts(&self) -> Result<(*const u8, u32)> {
                let bytes: &[u8] = self.as_ref();
                Ok((bytes.as_ptr(), checked_len(bytes.len())?))
            }

            fn into_output(self, len: usize) -> (usize, $owner) {
                (len, self)
            }
        }
    )*};
}

given!(Vec<u8>, Box<[u8]>, String, Arc<[u8]>, Rc<[u8]>);

impl seal::Sealed for String {}
impl seal::Sealed for Arc<[u8]> {}
impl seal::Sealed for Rc<[u8]> {}

/// One buffer that several operations of a batch name, as when what one reads is what the next one writes.
///
/// It borrows the bytes exclusively and gives no access to them itself; look at them when the `Shared` is gone. Two
/// operations that use it at once without a link between them leave unspecified bytes in it, never anything worse.
///
/// A [`Recv`](crate::op::Recv) into it waits until all of it is filled (`MSG_WAITALL`), so that a short one breaks the
/// chain instead of letting the next operation send bytes that nobody received. On a datagram socket it is refused.
///
/// ```
/// use aio::{Shared, op::*};
///
/// let (from, to) = (std::fs::File::open("Cargo.toml")?, tempfile::tempfile()?);
/// let mut bytes = [0u8; 64];
/// let both = Shared::new(&mut bytes);
/// aio::multi((Read::new(&from, &both).at(0).link(), Write::new(&to, &both).at(0)))?;
/// assert_eq!(&bytes[..9], b"[package]");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// It stays on its thread:
///
/// ```compile_fail,E0277
/// let mut bytes = [0u8; 64];
/// let shared = aio::Shared::new(&mut bytes);
/// std::thread::scope(|s| { s.spawn(|| &shared); });
/// ```
pub struct Shared<'b> {
    start: *mut u8,
    len: usize,
    _bytes: PhantomData<&'b mut [u8]>,
}

impl<'b> Shared<'b> {
    /// Borrows `bytes` until the `Shared` and all its parts are gone.
    pub fn new(bytes: &'b mut [u8]) -> Shared<'b> {
        Shared { start: bytes.as_mut_ptr(), len: bytes.len(), _bytes: PhantomData }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it, to be used like the whole.
    ///
    /// # Panics
    ///
    /// If the range is not within the buffer.
    pub fn part(&self, range: impl RangeBounds<usize>) -> SharedPart<'_> {
        let start = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at.checked_add(1).expect("start of the range"),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&at) => at.checked_add(1).expect("end of the range"),
            Bound::Excluded(&at) => at,
            Bound::Unbounded => self.len,
        };
        assert!(start <= end && end <= self.len, "range {start}..{end} of a Shared with {} bytes", self.len);
        SharedPart { start: self.start.wrapping_add(start), len: end - start, _shared: PhantomData }
    }
}

/// A part of a [`Shared`] buffer; made by [`Shared::part`].
#[derive(Clone, Copy)]
pub struct SharedPart<'s> {
    start: *mut u8,
    len: usize,
    _shared: PhantomData<&'s Shared<'s>>,
}

impl fmt::Debug for Shared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes)", self.len)
    }
}

impl fmt::Debug for SharedPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedPart({} bytes)", self.len)
    }
}

macro_rules! shared {
    ($($handle:ty),*) => {$(
        impl seal::Sealed for $handle {}

        impl BufMut for $handle {
            type Output = usize;
            const SHARED: bool = true;

            fn parts_mut(&mut self) -> Result<(*mut u8, u32)> {
                Ok((self.start, checked_len(self.len)?))
            }

            unsafe fn into_output(self, len: usize) -> usize {
                len
            }
        }

        impl Buf for $handle {
            type Output = usize;
            const SHARED: bool = true;

            fn parts(&self) -> Result<(*const u8, u32)> {
                Ok((self.start, checked_len(self.len)?))
            }

            fn into_output(self, len: usize) -> usize {
                len
            }
        }
    )*};
}

shared!(&Shared<'_>, SharedPart<'_>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn one_operation_transfers_no_more_than_the_system_does() {
        assert_eq!([0, 1, MAX_TRANSFER].map(checked_len), [Ok(0), Ok(1), Ok(2_147_479_552)]);
        assert!(matches!(checked_len(MAX_TRANSFER + 1), Err(Error::Invalid(_))));
        assert!(matches!(not_empty(0), Err(Error::Invalid(_))));
        assert_eq!([1, MAX_TRANSFER].map(not_empty), [Ok(1), Ok(2_147_479_552)]);
        assert!(matches!(not_empty(MAX_TRANSFER + 1), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_part_is_where_its_range_says() {
        let mut bytes = [0u8; 8];
        let start = bytes.as_ptr();
        let shared = Shared::new(&mut bytes);
        let whole = Buf::parts(&&shared).unwrap();
        assert_eq!((whole, shared.len(), shared.is_empty()), ((start, 8), 8, false));
        let place = |part: SharedPart<'_>| {
            let (at, len) = Buf::parts(&part).unwrap();
            (at as usize - start as usize, len)
        };
        assert_eq!(place(shared.part(..)), (0, 8));
        assert_eq!(place(shared.part(2..5)), (2, 3));
        assert_eq!(place(shared.part(2..=5)), (2, 4));
        assert_eq!(place(shared.part(..=7)), (0, 8));
        assert_eq!(place(shared.part((Bound::Excluded(2), Bound::Unbounded))), (3, 5));
        assert_eq!(place(shared.part(8..)), (8, 0));
        assert_eq!(
            (format!("{shared:?}"), format!("{:?}", shared.part(1..))),
            ("Shared(8 bytes)".into(), "SharedPart(7 bytes)".into())
        );
        assert!(Shared::new(&mut []).is_empty());
    }

    #[test]
    fn a_range_that_is_not_within_a_shared_buffer_panics() {
        use Bound::{Excluded, Included, Unbounded};
        let outside: [(Bound<usize>, Bound<usize>); 6] = [
            (Unbounded, Excluded(9)),
            (Unbounded, Included(8)),
            (Included(9), Unbounded),
            (Included(5), Excluded(4)),
            (Excluded(usize::MAX), Unbounded),
            (Unbounded, Included(usize::MAX)),
        ];
        for range in outside {
            let part = catch_unwind(|| Shared::new(&mut [0u8; 8]).part(range).len);
            assert!(part.is_err(), "{range:?} is a part of {part:?} bytes");
        }
    }

    #[test]
    fn spare_capacity_is_what_is_behind_the_contents() {
        let mut vec = Vec::with_capacity(16);
        vec.extend(*b"abc");
        let (start, room) = (vec.as_ptr() as usize, vec.capacity() as u32 - 3);
        let mut buffer = spare(&mut vec);
        let (at, len) = buffer.parts_mut().unwrap();
        assert_eq!((at as usize - start, len), (3, room));
        // SAFETY: two bytes of it are written here.
        unsafe {
            at.copy_from(b"de".as_ptr(), 2);
            buffer.filled(2);
            assert_eq!(buffer.into_output(2), 2);
        }
        assert_eq!(vec, b"abcde");
        assert!(matches!(spare(&mut Vec::new()).parts_mut(), Err(Error::Invalid(_))));
    }
}
