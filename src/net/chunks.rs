//! What a stream receives, in the buffers that it has arrived in.

use super::{Stream, socket::within};
use crate::{
    Errno, Error, PooledBuf, Result,
    coro::{
        self, Runtime,
        stream::{Feed, Keep},
        wait::Reason,
    },
    op::{Poll, PollEvents, Recv, RecvMulti},
    single, spare,
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt, io, mem,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    time::Duration,
};

/// A stream's operation pauses when so many chunks wait to be taken, so that none has the pool for itself.
const AHEAD: u32 = 16;

/// The size of a buffer where there is no runtime.
const ALONE: usize = 16 << 10;

const NO_BUFFER: Error = Error::Os(Errno::new(libc::ENOBUFS));

/// What the peer of a stream sends, chunk after chunk: an iterator, made by
/// [`TcpStream::into_chunks`](super::TcpStream::into_chunks) and
/// [`UnixStream::into_chunks`](super::UnixStream::into_chunks).
///
/// A chunk is what has come at a time, in a buffer that was taken for it then: a connection on which nothing happens
/// holds none. The iterator ends when the peer ends the stream, and after an error.
///
/// ```
/// use aio::{coro, net::UnixStream};
/// use std::io::{Read, Write};
///
/// coro::run(|| {
///     let (a, mut b) = UnixStream::pair()?;
///     let echo = coro::spawn(move || {
///         let mut chunks = a.into_chunks();
///         while let Some(chunk) = chunks.next() {
///             chunks.stream().write_all(&chunk?)?;
///         }
///         Ok::<(), std::io::Error>(())
///     });
///     b.write_all(b"hello")?;
///     b.shutdown(std::net::Shutdown::Write)?;
///     let mut answer = String::new();
///     b.read_to_string(&mut answer)?;
///     assert_eq!(answer, "hello");
///     echo.join().unwrap()
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Receiving ahead
///
/// In a [task](crate::coro) one operation receives all (`IORING_OP_RECV` with `IORING_RECV_MULTISHOT`, used from Linux
/// 6.7 on; emulated elsewhere), from the first `next` on, into buffers of the runtime's pool, which
/// [`coro::Config::pool`] describes. It runs ahead of the loop, and pauses when 16 chunks wait to be taken, or somewhat
/// more if much comes at once. If the pool is used up, each `next` receives into a buffer of its own, until there are
/// buffers again. So it does outside of a runtime.
///
/// What was received ahead is here and not in the socket any more. That is why the iterator owns the stream;
/// [`into_parts`](Chunks::into_parts) gives both back. Whoever reads from [`stream`](Chunks::stream) meanwhile takes
/// chunks away from the iterator, or waits in vain.
///
/// # Errors
///
/// Those of a read. A task that is cancelled gets that as an item, and so does one whose time is up, be it the stream's
/// `read_timeout` or a [`coro::timeout`]; while the task is cancelled or late the iterator then ends, and otherwise it
/// goes on where it was.
#[must_use = "an iterator does nothing unless it is used"]
pub struct Chunks<S: Stream + 'static> {
    // Ended before the stream is closed.
    feed: Option<Feed<RecvMulti<Rc<S>>, Rest>>,
    stream: Rc<S>,
    rest: Rest,
    over: bool,
    /// The last item was that the task is cancelled or late.
    told: bool,
}

/// What was received when the operation was ended, in order.
#[derive(Clone, Default)]
struct Rest(Rc<RefCell<VecDeque<Result<PooledBuf>>>>);

impl Rest {
    fn pop(&self) -> Option<Result<PooledBuf>> {
        self.0.borrow_mut().pop_front()
    }
}

impl Keep<PooledBuf> for Rest {
    fn keep(&self, chunk: Result<PooledBuf>) {
        self.0.borrow_mut().push_back(chunk);
    }
}

impl<S: Stream + 'static> Chunks<S> {
    pub(super) fn new(stream: S) -> Chunks<S> {
        Chunks { feed: None, stream: Rc::new(stream), rest: Rest::default(), over: false, told: false }
    }

    /// The stream, to be written to.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Ends the iteration, and gives the stream back with the chunks that were received and not taken. They come before
    /// whatever is read from it now.
    pub fn into_parts(mut self) -> (S, Vec<PooledBuf>) {
        self.feed = None;
        let chunks = mem::take(&mut *self.rest.0.borrow_mut());
        let chunks = chunks.into_iter().flatten().filter(|chunk| !chunk.is_empty()).collect();
        match Rc::try_unwrap(self.stream) {
            Ok(stream) => (stream, chunks),
            Err(_) => unreachable!("only the operation had it, too"),
        }
    }

    /// The next chunk; no bytes at the end.
    fn receive(&mut self) -> Result<PooledBuf> {
        let runtime = Runtime::current_runtime();
        let is_foreign = |feed: &Feed<_, _>| !runtime.is_some_and(|runtime| feed.is_of(runtime));
        if self.feed.as_ref().is_some_and(is_foreign) {
            // It belongs to a runtime that is not running here, or has ended.
            self.feed = None;
        }
        if let Some(why) = runtime.and_then(Runtime::refused) {
            return Err(why);
        }
        match self.rest.pop() {
            None | Some(Err(NO_BUFFER)) => {}
            Some(chunk) => return chunk,
        }
        if let Some(runtime) = runtime {
            match self.receive_ahead(runtime) {
                Some(Err(NO_BUFFER)) | None => {}
                Some(result) => return result,
            }
        }
        recv_alone(self.stream.as_fd(), self.stream.reading_limit(), runtime)
    }

    /// The next chunk of the operation that receives all, if there is room in the pool.
    fn receive_ahead(&mut self, runtime: &Runtime) -> Option<Result<PooledBuf>> {
        if !self.feed.as_ref().is_some_and(Feed::is_live) {
            let pool = runtime.free_pool()?;
            self.feed.get_or_insert_with(|| {
                Feed::new(runtime, RecvMulti::new(self.stream.clone(), pool), self.rest.clone(), AHEAD, false)
            });
        }
        let feed = self.feed.as_ref()?;
        let next = limited(self.stream.reading_limit(), || feed.next(runtime, Reason::of("a chunk")));
        Some(next.and_then(|(chunk, _)| chunk))
    }
}

impl<S: Stream + 'static> Iterator for Chunks<S> {
    type Item = io::Result<PooledBuf>;

    fn next(&mut self) -> Option<io::Result<PooledBuf>> {
        let interrupted = || Runtime::current_runtime().is_some_and(|runtime| runtime.interruption().is_some());
        if self.over || self.told && interrupted() {
            return None;
        }
        let result = self.receive();
        self.told = matches!(result, Err(Error::Canceled | Error::TimedOut));
        match result {
            Ok(chunk) if !chunk.is_empty() => Some(Ok(chunk)),
            Ok(_) => {
                self.over = true;
                None
            }
            Err(error) => {
                self.over = !self.told;
                Some(Err(error.into()))
            }
        }
    }
}

impl<S: Stream + fmt::Debug> fmt::Debug for Chunks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chunks").field(&self.stream).finish()
    }
}

/// Receives once, into a buffer that is taken when something has come.
pub(super) fn recv_pooled(stream: &impl Stream) -> io::Result<PooledBuf> {
    let (fd, limit) = (stream.as_fd(), stream.reading_limit());
    let runtime = Runtime::current_runtime();
    if let Some(runtime) = runtime
        && let Some(pool) = runtime.free_pool()
    {
        match limited(limit, || runtime.recv_once(fd, pool)) {
            Err(NO_BUFFER) => {}
            result => return Ok(result?),
        }
    }
    Ok(recv_alone(fd, limit, runtime)?)
}

/// As an operation with this time limit.
fn limited<R>(limit: Option<Duration>, f: impl FnOnce() -> R) -> R {
    match limit {
        Some(limit) => coro::timeout(limit, f),
        None => f(),
    }
}

/// Receives once, into a buffer that is allocated when something has come.
fn recv_alone(fd: BorrowedFd<'_>, limit: Option<Duration>, runtime: Option<&Runtime>) -> Result<PooledBuf> {
    let size = runtime.map_or(ALONE, Runtime::buffer_size);
    loop {
        within(limit, Poll::new(fd, PollEvents::IN))?;
        let mut bytes = Vec::with_capacity(size);
        match single(Recv::new(fd, spare(&mut bytes)).nonblocking()) {
            // Somebody else was faster.
            Err(Error::Os(errno)) if errno.raw() == libc::EAGAIN => {}
            result => return result.and_then(|_| PooledBuf::alone(bytes)),
        }
    }
}
