//! What threads have in common: std's, or a model of it by which [loom] tries all orders in which they may act.
//!
//! [loom]: https://docs.rs/loom

#[cfg(all(loom, test))]
mod model;
#[cfg(all(loom, test))]
pub(crate) use model::*;

#[cfg(not(all(loom, test)))]
pub(crate) use crate::op::EventSource;
#[cfg(not(all(loom, test)))]
pub(crate) use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicUsize},
    },
    thread,
};
