//! Events that other threads post.

use super::{Queue, Token, place::NONE, remote::Handle};
use crate::{
    Result,
    sys::concurrent::{Arc, Mutex},
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::PoisonError,
};

#[cfg(all(loom, test))]
mod loom;

/// What was posted and not fetched yet. `None` when the queue is gone.
type Mail<T> = Mutex<Option<Vec<T>>>;

/// Posts to a queue, from any thread; made by [`Queue::poster`] and [`Queue::poster_with`].
///
/// ```
/// use aio::Queue;
/// use std::thread;
///
/// let queue = Queue::new(1)?;
/// let poster = queue.poster()?;
/// thread::spawn(move || poster.post("hello"));
/// let (token, event) = queue.wait(1)?.next().expect("an event");
/// assert!(token.is_posted() && event == "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Poster<T> {
    bell: Handle,
    mail: Arc<Mail<T>>,
}

impl<T> Poster<T> {
    /// Puts something into the queue, after what was posted before by it and its clones. It takes no place.
    ///
    /// # Errors
    ///
    /// What was to be posted, if the queue is gone.
    pub fn post(&self, letter: T) -> Result<(), T> {
        match &mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(letters) => letters.push(letter),
            None => return Err(letter),
        }
        self.bell.ring();
        Ok(())
    }
}

impl<T> Clone for Poster<T> {
    fn clone(&self) -> Poster<T> {
        Poster { bell: self.bell.clone(), mail: self.mail.clone() }
    }
}

impl<T> fmt::Debug for Poster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poster")
    }
}

/// The queue's end of a [`Poster`], whatever that posts.
pub(super) trait Mailbox<E> {
    /// Fetches what was posted; gives how many letters that were.
    fn fetch(&self) -> u32;
    /// Whether something was posted that was not fetched.
    fn has_mail(&self) -> bool;
    /// Makes an event of the oldest letter that was fetched, if there is one; or drops it, if nobody wants that.
    fn open(&self, wanted: bool) -> Option<Option<E>>;
    /// Whether nobody can post any more, and nothing is left.
    fn is_done(&self) -> bool;
    /// Lets nobody post any more, and drops what was not fetched.
    fn close(&self);
}

/// With the types of what is posted and of what makes events of it.
struct Letters<T, M> {
    mail: Arc<Mail<T>>,
    fetched: RefCell<VecDeque<T>>,
    map: M,
}

impl<T, M> Letters<T, M> {
    fn with_mail<R>(&self, f: impl FnOnce(&mut Option<Vec<T>>) -> R) -> R {
        f(&mut self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T, E, M: Fn(T) -> E> Mailbox<E> for Letters<T, M> {
    fn fetch(&self) -> u32 {
        let mut fetched = self.fetched.borrow_mut();
        let before = fetched.len();
        self.with_mail(|mail| fetched.extend(mail.iter_mut().flat_map(|letters| letters.drain(..))));
        (fetched.len() - before) as u32
    }

    fn has_mail(&self) -> bool {
        self.with_mail(|mail| mail.as_ref().is_some_and(|letters| !letters.is_empty()))
    }

    fn open(&self, wanted: bool) -> Option<Option<E>> {
        // No borrow is held while the program's code runs.
        let letter = { self.fetched.borrow_mut().pop_front() }?;
        Some(wanted.then(|| (self.map)(letter)))
    }

    fn is_done(&self) -> bool {
        // First: nobody comes after the last poster has gone.
        Arc::strong_count(&self.mail) == 1 && !self.has_mail() && self.fetched.borrow().is_empty()
    }

    fn close(&self) {
        // Dropped when the lock is free again: what is in there may be anything.
        let letters = self.with_mail(Option::take);
        for letter in letters.into_iter().flatten() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(letter)));
        }
    }
}

impl<'q, E, const PLACE: usize> Queue<'q, E, PLACE> {
    /// A handle that posts events to this queue; otherwise as [`waker`](Queue::waker). It can be sent to other threads
    /// if events can.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poster(&self) -> Result<Poster<E>>
    where
        E: 'q,
    {
        self.poster_with(|event| event)
    }

    /// A handle that posts what `map` makes events of, on the queue's own thread. So it can be sent to other threads if
    /// `T` can, even where events hold something that cannot, as a [`PooledBuf`](crate::PooledBuf).
    ///
    /// ```
    /// use aio::{PooledBuf, Queue};
    /// use std::thread;
    ///
    /// enum Event {
    ///     Received(PooledBuf),
    ///     Command(String),
    /// }
    ///
    /// let queue = Queue::<Event>::new(4)?;
    /// let poster = queue.poster_with(Event::Command)?;
    /// thread::spawn(move || poster.post("stop".to_owned()));
    /// match queue.wait(1)?.next() {
    ///     Some((_, Event::Command(command))) => assert_eq!(command, "stop"),
    ///     _ => panic!("nothing else has happened"),
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`waker`](Queue::waker).
    pub fn poster_with<T: 'q>(&self, map: impl Fn(T) -> E + 'q) -> Result<Poster<T>> {
        let post = self.post()?;
        let mail = Arc::new(Mutex::new(Some(Vec::new())));
        let mailbox = Rc::new(Letters { mail: mail.clone(), fetched: RefCell::default(), map });
        let poster = Poster { bell: post.handle(), mail };
        let done = post.boxes.borrow_mut().extract_if(.., |mailbox| mailbox.is_done()).collect::<Vec<_>>();
        post.boxes.borrow_mut().push(mailbox);
        // The program's closures, which may do anything when they are dropped.
        drop(done);
        Ok(poster)
    }

    /// Fetches what other threads have posted.
    pub(super) fn fetch_mail(&self) {
        if let Some(post) = self.inner.post.get() {
            let fetched: u32 = post.boxes.borrow().iter().map(|mailbox| mailbox.fetch()).sum();
            self.inner.posted.set(self.inner.posted.get() + fetched);
        }
    }

    /// Whether other threads have posted something that was not fetched yet.
    pub(super) fn was_posted_to(&self) -> bool {
        let has_mail = |mailbox: &Rc<dyn Mailbox<E> + 'q>| mailbox.has_mail();
        self.inner.post.get().is_some_and(|post| post.boxes.borrow().iter().any(has_mail))
    }

    /// An event that another thread has posted. If it is not `wanted`, it is dropped as it was posted.
    #[cold]
    pub(super) fn take_posted(&self, wanted: bool) -> Option<(Token, E)> {
        self.inner.posted.set(self.inner.posted.get() - 1);
        let post = self.inner.post.get()?;
        let count = post.boxes.borrow().len();
        for _ in 0..count {
            // Each in turn. It is kept while it is used: the program may make others meanwhile.
            let at = post.turn.replace(post.turn.get().wrapping_add(1));
            let mailbox = { post.boxes.borrow().get(at % count).cloned() };
            if let Some(event) = mailbox.and_then(|mailbox| mailbox.open(wanted)) {
                let token = Token { generation: 0, index: NONE, queue: self.inner.id };
                return event.map(|event| (token, event));
            }
        }
        None
    }
}
