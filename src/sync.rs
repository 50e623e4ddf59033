//! Waiting for one another.

pub(crate) mod waitlist;

pub use waitlist::{Local, Mode, Shared};
