//! What [`select`](crate::coro::select) can wait for.

use super::{Mode, Receiver, RecvError, broadcast, channel, event, generic::Event, oneshot, watch};
use crate::{
    Error,
    coro::{Arm, ArmSealed, Watch},
};

impl<M: Mode> ArmSealed for &Event<M> {}

impl<M: Mode> Arm for &Event<M> {
    type Output = Result<(), Error>;
    const SHARED: bool = !M::LOCAL;

    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<Self::Output> {
        match self.wait_as(event::HOW.brief(), |done| rest(&Watch::new(done, before))) {
            Err(Error::Canceled) => None,
            result => Some(result),
        }
    }
}

impl<T, M: Mode> ArmSealed for &Receiver<T, M> {}

impl<T, M: Mode> Arm for &Receiver<T, M> {
    type Output = Result<T, RecvError>;
    const SHARED: bool = !M::LOCAL;

    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<Self::Output> {
        unless_canceled(self.recv_as(channel::RECV.brief(), |done| rest(&Watch::new(done, before))))
    }
}

impl<T, M: Mode> ArmSealed for &mut oneshot::Receiver<T, M> {}

impl<T, M: Mode> Arm for &mut oneshot::Receiver<T, M> {
    type Output = Result<T, RecvError>;
    const SHARED: bool = !M::LOCAL;

    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<Self::Output> {
        unless_canceled(self.recv_as(oneshot::RECV.brief(), |done| rest(&Watch::new(done, before))))
    }
}

impl<T: Clone, M: Mode> ArmSealed for &mut broadcast::Receiver<T, M> {}

impl<T: Clone, M: Mode> Arm for &mut broadcast::Receiver<T, M> {
    type Output = Result<T, broadcast::RecvError>;
    const SHARED: bool = !M::LOCAL;

    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<Self::Output> {
        use broadcast::{RecvError, TryRecvError};
        let wait = self.await_more(broadcast::RECV.brief(), |done| rest(&Watch::new(done, before)));
        match (self.try_recv(), wait) {
            (Ok(value), _) => Some(Ok(value)),
            (Err(TryRecvError::Lagged(lost)), _) => Some(Err(RecvError::Lagged(lost))),
            (Err(TryRecvError::Closed), _) => Some(Err(RecvError::Closed)),
            (Err(TryRecvError::Empty), Ok(()) | Err(Error::Canceled)) => None,
            (Err(TryRecvError::Empty), Err(error)) => Some(Err(RecvError::Interrupted(error))),
        }
    }
}

impl<T: Clone, M: Mode> ArmSealed for &mut watch::Receiver<T, M> {}

impl<T: Clone, M: Mode> Arm for &mut watch::Receiver<T, M> {
    type Output = Result<T, RecvError>;
    const SHARED: bool = !M::LOCAL;

    fn enter(self, before: Option<&Watch<'_>>, rest: impl FnOnce(&Watch<'_>)) -> Option<Self::Output> {
        unless_canceled(self.recv_as(watch::RECV.brief(), |done| rest(&Watch::new(done, before))))
    }
}

/// What was received; nothing if the wait was given up, for another arm was first.
fn unless_canceled<T>(result: Result<T, RecvError>) -> Option<Result<T, RecvError>> {
    match result {
        Err(RecvError::Interrupted(Error::Canceled)) => None,
        result => Some(result),
    }
}
