//! Typed I/O operations in batches, on io_uring or on an emulation that gives the same results.
//!
//! An operation is a plain struct that borrows its descriptor and its buffer: [`op::Read`], [`op::Accept`],
//! [`op::Timeout`]. Any number of them make a batch, which goes to the kernel in one go and comes back with a typed
//! result for each. Descriptors and buffers are borrowed for exactly as long as the call takes.
//!
//! ```
//! use aio::op::Read;
//! use std::fs::File;
//!
//! let (f, g) = (File::open("Cargo.toml")?, File::open("src/lib.rs")?);
//! let (mut a, mut b) = ([0u8; 64], [0u8; 64]);
//!
//! let (n, m) = aio::multi((Read::new(&f, &mut a), Read::new(&g, &mut b)))?;
//! assert_eq!((n, m), (64, 64));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # How to start
//!
//! There are three functions: [`complete`] gives every operation's own result, [`multi`] the values or the first error,
//! [`single`] the value of one operation. The [operations](op) have builder methods for what they can do besides, and
//! three things that all of them can: [`timeout`](op::Op::timeout), [`link`](op::Op::link),
//! [`hard_link`](op::Op::hard_link).
//!
//! ```
//! use aio::{Error, op::*};
//! use std::{os::unix::net::UnixStream, time::Duration};
//!
//! let (a, b) = UnixStream::pair()?;
//! let mut buffer = [0u8; 16];
//! let done = aio::complete((
//!     Recv::new(&a, &mut buffer),
//!     Timeout::after(Duration::from_millis(1)).link(),    // when this has ended,
//!     Send::new(&b, "hello"),                             // this starts
//!     Recv::new(&b, &mut [0u8; 8]).timeout(Duration::from_millis(5)),
//! ))?;
//! assert_eq!(done.results, (Ok(5), Ok(()), Ok(5), Err(Error::TimedOut)));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! What a batch can be is listed at [`Batch`]: tuples, arrays, vectors, slices of [`Job`]s, and [`windowed`] iterators
//! for more operations than should be in flight at once. [`Shared`] is a buffer that several operations name,
//! [`Closing`] a descriptor that its own chain closes.
//!
//! # Where it ends
//!
//! - This is no async executor, and has no `Future`: a call returns when its batch is finished. On a plain thread it
//!   blocks that; in a [task](coro) it suspends it.
//! - Operations overlap with the others of their batch, not with the code around it. Tasks, threads and a [`Queue`] do
//!   that. Each thread has an engine of its own, made at first use and kept until the thread ends; so has each queue.
//! - A time limit or a [`Cancel`](op::Cancel) is a request. What the kernel, or a worker thread, is in the middle of
//!   and cannot interrupt is waited for, and then has a result.
//! - Nothing is async-signal-safe, except [`EventSource::notify`](op::EventSource::notify).
//! - A child of `fork(2)` gets a new engine. It cannot wait for what its parent had in flight; see
//!   [`SetupError::Forked`].
//!
//! # Tasks
//!
//! [`coro`] has stackful coroutines: inside [`coro::run`] the same functions suspend the calling task instead of
//! blocking the thread. [`net`], [`fs`], [`process`], [`signal`] and [`stdio`] have the types of the standard library
//! on top of the operations, and [`sync`] what tasks need to wait for one another.
//!
//! ```
//! use aio::{coro, net::{TcpListener, TcpStream}};
//! use std::io::{Read, Write};
//!
//! coro::run(|| {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let address = listener.local_addr()?;
//!     let server = coro::spawn(move || listener.accept()?.0.write_all(b"hello"));
//!     let mut text = String::new();
//!     TcpStream::connect(address)?.read_to_string(&mut text)?;
//!     assert_eq!(text, "hello");
//!     server.join()?
//! })??;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Tasks have [limits](coro#limits) that Rust cannot check: above all, code that uses a thread-local as a stack must
//! not be suspended.
//!
//! # The queue
//!
//! A [`Queue`] lives longer than a batch: operations are submitted to it while others are in flight, and it gives an
//! event of the program's own type for each that has ended. It has [multishot operations](op::MultiOp), [pools of
//! buffers](BufPool), chains, groups, callbacks, and handles for other threads.
//!
//! ```
//! use aio::{Queue, op::Read};
//!
//! let queue = Queue::new(8)?;
//! for name in ["Cargo.toml", "README.md"] {
//!     let read = Read::new(std::fs::File::open(name)?, vec![0; 5]);
//!     queue.submit(read, move |done| (name, done.result, done.op.into_buf()))?;
//! }
//! while !queue.is_empty() {
//!     for (_token, (name, count, bytes)) in queue.wait(1)? {
//!         println!("{name}: {:?}", &bytes[..count?]);
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Readiness alone
//!
//! [`poller`] is for programs that only want to be told when descriptors are ready: epoll and poll behind one type.
//!
//! # Engines
//!
//! [`Backend::IoUring`] is the kernel's own queue, from Linux 5.11 on; an opcode that a kernel lacks is done by an
//! ordinary system call, for that operation alone. [`Backend::Epoll`] and [`Backend::Poll`] emulate it with readiness,
//! timers and worker threads, and give the same results, which the tests check on each. Without a choice it is io_uring
//! where that can be used, and the emulation otherwise. `AIO_BACKEND=io_uring|epoll|poll` in the environment or a
//! [`Config`] chooses; [`Backend::probe`] tells what there is, and why not. [`stats`] counts what an engine does.
//!
//! # Soundness
//!
//! The kernel writes to memory that it was given until it says that it is done. Everything that it, or a worker, can
//! see therefore belongs to the frame of the call (or to an allocation which that frame owns), and the call neither
//! returns nor unwinds before the last operation has ended: user code that panics in between, in an iterator for
//! example, has its operations cancelled and waited for first, and if they can no longer be waited for the process is
//! aborted. What goes on after its call, as the operations of a queue do and those behind an iterator, lies in an
//! allocation that its queue or runtime owns, together with what it works on: a handle that is forgotten leaks and
//! never dangles. Otherwise descriptors are borrowed or owned by their operations, and what arrives too late for
//! anybody to want is closed. `docs/soundness.md` in the repository goes through it rule by rule.
//!
//! # Versions
//!
//! Rust 1.95 or newer. Raising that is not a breaking change, and is noted in the changelog.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

#[allow(unsafe_code)]
mod batch;
mod blocking;
mod buf;
#[allow(unsafe_code)]
mod complete;
mod config;
#[allow(unsafe_code)]
pub mod coro;
mod descriptor;
#[allow(unsafe_code)]
mod driver;
#[allow(unsafe_code)]
mod engine;
mod error;
#[cfg(feature = "faults")]
#[doc(hidden)]
pub mod faults;
mod fixed;
pub mod fs;
mod link;
#[allow(unsafe_code)]
mod lower;
pub mod net;
pub mod op;
#[allow(unsafe_code)]
pub mod poller;
mod pooled;
mod probe;
pub mod process;
#[allow(unsafe_code)]
pub mod queue;
pub mod signal;
mod stats;
pub mod stdio;
#[allow(unsafe_code)]
pub mod sync;
#[allow(unsafe_code)]
mod sys;
#[allow(unsafe_code)]
mod threads;
pub mod time;
mod transfer;

pub use batch::{Batch, Done, Entry, ForEach, Job, Last, Windowed, windowed};
pub use buf::{Buf, BufMut, Shared, SharedPart, Spare, spare};
pub use complete::{complete, multi, single};
pub use config::{Backend, Config};
pub use descriptor::{Closing, Descriptor};
pub use error::{BatchError, Errno, Error, Feature, Result, SetupCall, SetupError, Unavailable, is_canceled};
pub use fixed::{FixedBuf, FixedBufs, FixedFile};
pub use link::{Linked, Timed};
pub use pooled::{BufPool, PooledBuf};
pub use probe::{Probe, Service, Supported};
pub use queue::Queue;
pub use stats::{Stats, stats};

mod sealed {
    /// Keeps traits from being implemented outside the crate.
    pub trait Sealed {}
}

/// Compiles and runs the examples of the pages that are not part of this documentation.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../docs/operations.md")]
    struct Operations;
    #[doc = include_str!("../docs/batches-and-links.md")]
    struct BatchesAndLinks;
    #[doc = include_str!("../docs/backends.md")]
    struct Backends;
    #[doc = include_str!("../docs/soundness.md")]
    struct Soundness;
    #[doc = include_str!("../docs/profiling.md")]
    struct Profiling;
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/tasks.md")]
    struct Tasks;
    #[doc = include_str!("../docs/cancellation.md")]
    struct Cancellation;
    #[doc = include_str!("../docs/blocking-code.md")]
    struct BlockingCode;
    #[doc = include_str!("../docs/sync.md")]
    struct Sync;
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
    #[doc = include_str!("../docs/limits.md")]
    struct Limits;
    #[doc = include_str!("../docs/coming-from.md")]
    struct ComingFrom;
    #[doc = include_str!("../docs/zero-copy.md")]
    struct ZeroCopy;
    #[doc = include_str!("../docs/fixed-resources.md")]
    struct FixedResources;
    #[doc = include_str!("../docs/poller.md")]
    struct Poller;
    #[doc = include_str!("../docs/queue.md")]
    struct Queue;
    #[doc = include_str!("../docs/multishot-and-buffers.md")]
    struct MultishotAndBuffers;
}
