//! Why a channel did not take or give a value.

use crate::Error;
use std::{fmt, io};

/// Why a channel gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// There is nothing left, and all senders are gone.
    #[error("the channel is closed")]
    Closed,
    /// The wait was given up. Nothing was taken from the channel.
    #[error(transparent)]
    Interrupted(#[from] Error),
}

/// Why a channel gave no value without a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// There is nothing now.
    #[error("the channel is empty")]
    Empty,
    /// There is nothing left, and all senders are gone.
    #[error("the channel is closed")]
    Closed,
}

/// Why a channel did not take a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// All receivers are gone.
    #[error("the channel is closed")]
    Closed,
    /// The wait for room was given up.
    #[error(transparent)]
    Interrupted(#[from] Error),
}

/// A channel did not take a value, which is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T> {
    /// What was to be sent.
    pub value: T,
    /// Why it was not.
    pub reason: SendFailure,
}

/// A channel did not take a value without a wait, and gives it back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// All receivers are gone.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// What was to be sent.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(value) | TrySendError::Closed(value) => value,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> std::error::Error for SendError<T> {}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full(..)",
            TrySendError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "the channel is full",
            TrySendError::Closed(_) => "the channel is closed",
        })
    }
}

impl<T> std::error::Error for TrySendError<T> {}

impl From<RecvError> for io::Error {
    /// A closed channel is `UnexpectedEof`.
    fn from(error: RecvError) -> io::Error {
        match error {
            RecvError::Closed => io::ErrorKind::UnexpectedEof.into(),
            RecvError::Interrupted(error) => error.into(),
        }
    }
}

impl From<TryRecvError> for io::Error {
    /// `WouldBlock`, or `UnexpectedEof` for a closed channel.
    fn from(error: TryRecvError) -> io::Error {
        match error {
            TryRecvError::Empty => io::ErrorKind::WouldBlock.into(),
            TryRecvError::Closed => io::ErrorKind::UnexpectedEof.into(),
        }
    }
}

impl<T> From<SendError<T>> for io::Error {
    /// Drops the value. A closed channel is `BrokenPipe`.
    fn from(error: SendError<T>) -> io::Error {
        match error.reason {
            SendFailure::Closed => io::ErrorKind::BrokenPipe.into(),
            SendFailure::Interrupted(error) => error.into(),
        }
    }
}

impl<T> From<TrySendError<T>> for io::Error {
    /// Drops the value. `WouldBlock`, or `BrokenPipe` for a closed channel.
    fn from(error: TrySendError<T>) -> io::Error {
        match error {
            TrySendError::Full(_) => io::ErrorKind::WouldBlock.into(),
            TrySendError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
        }
    }
}
