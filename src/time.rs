//! Time, as tasks and threads wait for it: what [`coro`](crate::coro) has of it, under the name where people look.
//!
//! ```
//! use std::time::Duration;
//!
//! aio::coro::run(|| aio::time::sleep(Duration::from_millis(1)))??;
//! # Ok::<(), std::io::Error>(())
//! ```

pub use crate::coro::{Interval, deadline, interval, sleep, sleep_until, timeout};
