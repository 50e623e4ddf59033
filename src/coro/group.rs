//! Several tasks at once: all of them, or the first.

use super::scope::{Scope, scope};
use sealed::Sealed;
use std::{cell::Cell, fmt};

/// What [`gather`] and [`race`] take: a tuple of up to eight closures, or an array or `Vec` of closures of one type.
///
/// Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a group of closures",
    note = "a group is a tuple of two to eight closures without arguments, or an array or a `Vec` of them"
)]
pub trait Group: Sealed {
    /// What the closures return: a tuple, an array or a `Vec` of it.
    type Values;

    #[doc(hidden)]
    fn run(self, race: Option<&Cell<Option<usize>>>) -> Self::Values;
}

mod sealed {
    /// Keeps [`Group`](super::Group) from being implemented outside.
    pub trait Sealed {}
}

/// Runs closures as tasks, and gives what they return when all have ended. They may borrow.
///
/// If the calling task is cancelled, so are they; they are waited for all the same.
///
/// ```
/// use aio::coro;
///
/// let text = String::from("borrowed");
/// coro::run(|| {
///     let (length, upper) = coro::gather((|| text.len(), || text.to_uppercase()));
///     assert_eq!((length, upper.as_str()), (8, "BORROWED"));
///     assert_eq!(coro::gather([1, 2, 3].map(|n| move || n * n)), [1, 4, 9]);
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Panics
///
/// With a panic of one of them, when all have ended; and where a [`scope`](super::scope) is not possible.
#[track_caller]
pub fn gather<G: Group>(group: G) -> G::Values {
    group.run(None)
}

/// Runs closures as tasks until the first has ended, cancels the others, and waits for them.
///
/// Every closure's value is given, the winner's among them: what a loser has read or accepted in the last moment is not
/// lost.
///
/// ```
/// use aio::{Error, coro};
/// use std::time::Duration;
///
/// coro::run(|| {
///     let sleep = |ms| move || coro::sleep(Duration::from_millis(ms));
///     let race = coro::race([sleep(60_000), sleep(1)]);
///     assert_eq!(race.winner, 1);
///     assert_eq!(race.values, [Err(Error::Canceled), Ok(())]);
/// })?;
/// # Ok::<(), aio::SetupError>(())
/// ```
///
/// # Panics
///
/// As [`gather`]; a panic ends the race as well. Also if the group is empty.
#[track_caller]
pub fn race<G: Group>(group: G) -> Race<G::Values> {
    let winner = Cell::new(None);
    let values = group.run(Some(&winner));
    match winner.get() {
        Some(winner) => Race { winner, values },
        None => panic!("a race needs at least one closure"),
    }
}

/// What [`race`] gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Race<V> {
    /// The position of the closure that ended first.
    pub winner: usize,
    /// What each of them returned.
    pub values: V,
}

impl<V: fmt::Debug> fmt::Debug for Race<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Race").field("winner", &self.winner).field("values", &self.values).finish()
    }
}

/// Runs one closure of a group; notes if it was the first to end, by a panic or not.
fn arm<T>(f: impl FnOnce() -> T, at: usize, race: Option<&Cell<Option<usize>>>, scope: &Scope<'_, '_>) -> T {
    struct Finish<'a>(Option<&'a Cell<Option<usize>>>, usize, &'a dyn Fn());
    impl Drop for Finish<'_> {
        fn drop(&mut self) {
            if let Some(winner) = self.0
                && winner.get().is_none()
            {
                winner.set(Some(self.1));
                (self.2)();
            }
        }
    }
    let nudge = || scope.nudge();
    let _finish = Finish(race, at, &nudge);
    f()
}

/// Ends a race when there is a winner, or the one who runs it is interrupted.
fn referee(scope: &Scope<'_, '_>, race: Option<&Cell<Option<usize>>>) {
    if let Some(winner) = race {
        let _ = scope.wait_until(|| winner.get().is_some() || scope.alive() == 0);
        scope.cancel();
    }
}

/// The value that a closure has left. If it panicked, the scope has done so as well.
fn left<T>(place: Cell<Option<T>>) -> T {
    place.into_inner().unwrap_or_else(|| unreachable!("a scope ends when its children have"))
}

macro_rules! group {
    ($($f:ident $t:ident $at:tt),*) => {
        impl<$($f: FnOnce() -> $t, $t),*> Sealed for ($($f,)*) {}

        impl<$($f: FnOnce() -> $t, $t),*> Group for ($($f,)*) {
            type Values = ($($t,)*);

            #[allow(non_snake_case)]
            fn run(self, race: Option<&Cell<Option<usize>>>) -> Self::Values {
                $(let $t = Cell::new(None);)*
                let ($($f,)*) = self;
                scope(|s| {
                    $(
                        let place = &$t;
                        s.spawn_always(move || place.set(Some(arm($f, $at, race, s))));
                    )*
                    referee(s, race);
                });
                ($(left($t),)*)
            }
        }
    };
}

group!(F0 T0 0, F1 T1 1);
group!(F0 T0 0, F1 T1 1, F2 T2 2);
group!(F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3);
group!(F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4);
group!(F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4, F5 T5 5);
group!(F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4, F5 T5 5, F6 T6 6);
group!(F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4, F5 T5 5, F6 T6 6, F7 T7 7);

impl<T, F: FnOnce() -> T> Sealed for Vec<F> {}

impl<T, F: FnOnce() -> T> Group for Vec<F> {
    type Values = Vec<T>;

    fn run(self, race: Option<&Cell<Option<usize>>>) -> Vec<T> {
        let places: Vec<_> = self.iter().map(|_| Cell::new(None)).collect();
        scope(|s| {
            for (at, f) in self.into_iter().enumerate() {
                let place = &places[at];
                s.spawn_always(move || place.set(Some(arm(f, at, race, s))));
            }
            referee(s, race);
        });
        places.into_iter().map(left).collect()
    }
}

impl<T, F: FnOnce() -> T, const N: usize> Sealed for [F; N] {}

impl<T, F: FnOnce() -> T, const N: usize> Group for [F; N] {
    type Values = [T; N];

    fn run(self, race: Option<&Cell<Option<usize>>>) -> [T; N] {
        let values = Vec::from(self).run(race);
        values.try_into().unwrap_or_else(|_| unreachable!("one value for each closure"))
    }
}
