//! Waiting for the first of several things of different kinds.

use super::{
    JoinHandle, ScopedJoinHandle,
    runtime::Runtime,
    wait::{Ender, Reason},
};
use crate::{
    Error, Result,
    batch::{Entry, Raising, located},
    lower::{Lower, Raise},
    op::Op,
};
use std::mem::MaybeUninit;

mod sealed {
    /// Keeps [`Arm`](super::Arm) from being implemented outside.
    pub trait Sealed {}
}

pub(crate) use sealed::Sealed;

/// Something that [`select`] can wait for:
///
/// - an [operation](crate::op), a [`Timeout`](crate::op::Timeout) among them; its output is its result,
/// - `&JoinHandle` and `&ScopedJoinHandle`: the end of a task,
/// - `&Event` and `&Receiver` of [`sync`](crate::sync), `&mut` for the receivers of `oneshot`, `broadcast` and `watch`:
///   as their `wait` and `recv`.
///
/// Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that `select` can wait for",
    note = "it waits for operations, and for references to join handles, events and receivers; for anything else there \
            is `coro::race`, which takes closures"
)]
pub trait Arm: Sealed {
    /// What it gives.
    type Output;

    /// Whether something outside the runtime may end the wait by its own means.
    #[doc(hidden)]
    const SHARED: bool = false;

    /// Gets ready, calls `rest` unless it is done at once, and leaves again. What it was given by then is not lost.
    #[doc(hidden)]
    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<Self::Output>;
}

/// Looks at all arms that are ready to be given something.
#[doc(hidden)]
pub struct Watch<'a> {
    done: &'a dyn Fn() -> bool,
    before: Option<&'a Watch<'a>>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(done: &'a dyn Fn() -> bool, before: Option<&'a Watch<'a>>) -> Watch<'a> {
        Watch { done, before }
    }

    fn any(&self) -> bool {
        (self.done)() || self.before.is_some_and(Watch::any)
    }
}

/// What [`select`] takes: a tuple of up to eight [arms](Arm).
///
/// Sealed.
pub trait Arms: Sealed {
    /// What each arm gave, if it did.
    type Outputs;

    #[doc(hidden)]
    fn select(self) -> Result<Self::Outputs>;
}

/// Waits until the first of several things has happened, and gives what each has given: at least one is `Some`.
///
/// The others are given up. Operations are cancelled and waited for; if one has a result all the same, it is there, and
/// so is a value that came to two arms at once: nothing is lost. Arms are looked at in their order, and those after one
/// that is done at once are not started.
///
/// Costs no task, and no allocation but a few bytes for an operation that is given up. [`race`](super::race) is for
/// whole pieces of code.
///
/// ```
/// use aio::{coro, op::{Recv, Timeout}, sync};
/// use std::{os::unix::net::UnixStream, time::Duration};
///
/// coro::run(|| {
///     let (a, _b) = UnixStream::pair()?;
///     let (sender, receiver) = sync::channel(1);
///     let task = coro::spawn(move || {
///         coro::sleep(Duration::from_millis(1)).unwrap();
///         sender.send("news").unwrap();
///     });
///     let mut buffer = [0u8; 16];
///     let (read, news, late) = coro::select((
///         Recv::new(&a, &mut buffer),
///         &receiver,
///         Timeout::after(Duration::from_secs(60)),
///     ))?;
///     assert_eq!((read, news, late), (None, Some(Ok("news")), None));
///     task.join()?;
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As any wait, if no arm has given anything: [`Error::Canceled`], [`Error::TimedOut`], [`Error::Deadlock`];
/// [`Error::NoSuspend`] while a panic unwinds and inside [`no_suspend`](super::no_suspend); [`Error::WrongRuntime`]
/// outside a runtime.
pub fn select<A: Arms>(arms: A) -> Result<A::Outputs> {
    let runtime = Runtime::current_runtime().ok_or(Error::WrongRuntime)?;
    let me = runtime.current();
    if me.is_fixed() {
        return Err(Error::NoSuspend);
    }
    if let Some(why) = me.interruption() {
        runtime.refuse(me);
        return Err(why);
    }
    arms.select()
}

impl<O: Op> Sealed for O {}

impl<O: Op> Arm for O {
    type Output = Result<O::Output>;

    fn enter(mut self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<Self::Output> {
        let runtime = Runtime::expect("coro::select");
        let mut slots = MaybeUninit::uninit();
        let place = &raw mut slots;
        // SAFETY: `self` and `slots` stay where they are, untouched, until `run_while` has returned.
        let cut = unsafe {
            let locate = || located::<O>(place, 1);
            let lower = |cx: &mut Lower<'_>| self.lower_into(&mut *place, cx);
            runtime.run_while(&locate, lower, |done| rest(&Watch::new(done, before)))
        };
        let mut cx = Raising(Raise::new(runtime.engine()));
        // SAFETY: lowered above, and finished.
        match unsafe { self.raise_from(&slots, &mut cx) } {
            Err(Error::Canceled) if cut => None,
            result => Some(result),
        }
    }
}

impl<T> Sealed for &JoinHandle<T> {}

impl<T> Arm for &JoinHandle<T> {
    type Output = ();

    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<()> {
        self.enter_end(before, rest)
    }
}

impl<T> Sealed for &ScopedJoinHandle<'_, T> {}

impl<T> Arm for &ScopedJoinHandle<'_, T> {
    type Output = ();

    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<()> {
        self.handle().enter_end(before, rest)
    }
}

/// Enters one arm inside the other, and waits in the innermost.
macro_rules! nest {
    ($runtime:ident, $shared:expr, $result:ident, $watch:expr;) => {{
        let reason = Reason::of("the first of several");
        let ender = if $shared { Ender::Threads } else { Ender::Tasks };
        let watch: &Watch<'_> = $watch;
        $result = $runtime.wait(reason, ender, false, || watch.any());
    }};
    ($runtime:ident, $shared:expr, $result:ident, $watch:expr; $arm:ident $out:ident $($more:tt)*) => {{
        let before: Option<&Watch<'_>> = $watch.into();
        $out = $arm.enter(before, |watch: &Watch<'_>| nest!($runtime, $shared, $result, watch; $($more)*));
    }};
}

macro_rules! arms {
    ($first:ident $f:ident $(, $a:ident $o:ident)*) => {
        impl<$first: Arm, $($a: Arm),*> Sealed for ($first, $($a,)*) {}

        impl<$first: Arm, $($a: Arm),*> Arms for ($first, $($a,)*) {
            type Outputs = (Option<$first::Output>, $(Option<$a::Output>,)*);

            #[allow(non_snake_case)]
            fn select(self) -> Result<Self::Outputs> {
                let runtime = Runtime::expect("coro::select");
                let ($first, $($a,)*) = self;
                let $f;
                $(let mut $o = None;)*
                let mut result = Ok(());
                nest!(runtime, $first::SHARED $(|| $a::SHARED)*, result, None; $first $f $($a $o)*);
                let any = $f.is_some() $(|| $o.is_some())*;
                match result {
                    Err(error) if !any => Err(error),
                    _ => Ok(($f, $($o,)*)),
                }
            }
        }
    };
}

arms!(A0 X0);
arms!(A0 X0, A1 X1);
arms!(A0 X0, A1 X1, A2 X2);
arms!(A0 X0, A1 X1, A2 X2, A3 X3);
arms!(A0 X0, A1 X1, A2 X2, A3 X3, A4 X4);
arms!(A0 X0, A1 X1, A2 X2, A3 X3, A4 X4, A5 X5);
arms!(A0 X0, A1 X1, A2 X2, A3 X3, A4 X4, A5 X5, A6 X6);
arms!(A0 X0, A1 X1, A2 X2, A3 X3, A4 X4, A5 X5, A6 X6, A7 X7);
