//! Which engine services the queue, and how large it is.

#[cfg(target_os = "linux")]
use crate::driver::uring::{Features, Ring, Uring};
use crate::{
    SetupError,
    driver::{
        Driver,
        ready::{Ready, Selector, WorkerLimits},
    },
    engine,
    error::Unavailable,
};
#[cfg(feature = "faults")]
use crate::{driver::fault::Faults, faults::Plan};
use std::{fmt, sync::OnceLock, time::Duration};

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// What `AIO_BACKEND` names (`io_uring`, `epoll`, `poll`), if it is set and not `auto`; otherwise io_uring if it
    /// can be used, epoll if not, and poll where there is no epoll.
    #[default]
    Auto,
    /// The kernel's io_uring (Linux 5.11 and newer). An opcode that the kernel lacks is done by an ordinary system
    /// call.
    IoUring,
    /// The emulation on `epoll(7)` and worker threads (Linux).
    Epoll,
    /// The emulation on `poll(2)` and worker threads (any Unix).
    Poll,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::IoUring => "io_uring",
            Backend::Epoll => "epoll",
            Backend::Poll => "poll",
        })
    }
}

/// How an engine is made.
///
/// ```
/// use aio::{Backend, Config, op::*};
///
/// let backend = Config::new().backend(Backend::Poll).entries(32).run(|| {
///     aio::single(Nop::new()).unwrap();
///     aio::stats().backend
/// })?;
/// assert_eq!(backend, Some(Backend::Poll));
/// # Ok::<(), aio::SetupError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a configuration does nothing until it is `run` or made the default"]
pub struct Config {
    backend: Backend,
    entries: u32,
    max_workers: usize,
    worker_idle: Duration,
    #[cfg(target_os = "linux")]
    features: Features,
    #[cfg(feature = "faults")]
    faults: Option<Plan>,
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

static DEFAULT: OnceLock<Config> = OnceLock::new();

impl Config {
    /// The most entries that a queue can have.
    pub(crate) const MAX_ENTRIES: u32 = 1 << 15;

    /// Automatic choice of the backend, 256 entries, at most 32 workers that stay idle for 5 seconds.
    pub const fn new() -> Config {
        Config {
            backend: Backend::Auto,
            entries: 256,
            max_workers: 32,
            worker_idle: Duration::from_secs(5),
            #[cfg(target_os = "linux")]
            features: Features::ALL,
            #[cfg(feature = "faults")]
            faults: None,
        }
    }

    /// Which engine to use.
    pub const fn backend(mut self, backend: Backend) -> Config {
        self.backend = backend;
        self
    }

    /// Entries of the submission queue: how many operations can go to the kernel in one system call, and how long a
    /// chain may be. Rounded up to a power of two, from 1 to 32768. A larger batch takes several system calls.
    pub const fn entries(mut self, entries: u32) -> Config {
        self.entries = if entries == 0 {
            1
        } else if entries > Config::MAX_ENTRIES {
            Config::MAX_ENTRIES
        } else {
            entries.next_power_of_two()
        };
        self
    }

    /// How many worker threads the emulation may start for what has no readiness, disks above all. With 0 such
    /// operations run on the calling thread, which they block.
    pub const fn max_workers(mut self, workers: usize) -> Config {
        self.max_workers = workers;
        self
    }

    /// How long an idle worker thread stays.
    pub const fn worker_idle(mut self, idle: Duration) -> Config {
        self.worker_idle = idle;
        self
    }

    /// Pretends to be on an old kernel: 0 is Linux 5.11, 1 is 5.19, 2 is 6.1. For tests of the fallbacks.
    #[doc(hidden)]
    #[cfg(target_os = "linux")]
    pub const fn pretend_old_kernel(mut self, age: u32) -> Config {
        self.features.no_sqarray = false;
        self.features.defer = age >= 2;
        self.features.taskrun = age >= 1;
        self.features.submit_all = age >= 1;
        self.features.registered = age >= 1;
        self.features.new_opcodes = age >= 1;
        self
    }

    /// Has things go wrong. For the tests of this crate.
    #[doc(hidden)]
    #[cfg(feature = "faults")]
    pub const fn faults(mut self, plan: Plan) -> Config {
        self.faults = Some(plan);
        self
    }

    /// For a ring whose descriptor somebody waits for. Work that a ring defers until the next `enter` does not make it
    /// readable for one who waits already, and an eventfd registered with it rings once only for what an eventfd has
    /// started (both seen on Linux 6.18).
    #[cfg(target_os = "linux")]
    pub(crate) const fn pollable(mut self) -> Config {
        self.features.defer = false;
        self
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) const fn pollable(self) -> Config {
        self
    }

    /// Pretends nothing where there is no io_uring.
    #[doc(hidden)]
    #[cfg(not(target_os = "linux"))]
    pub const fn pretend_old_kernel(self, _age: u32) -> Config {
        self
    }

    /// Runs `f` with an engine made so. Everything that `f` does on this thread uses it; afterwards the thread has the
    /// engine it had before.
    ///
    /// # Errors
    ///
    /// The engine could not be set up; `f` was not called.
    pub fn run<R>(self, f: impl FnOnce() -> R) -> Result<R, SetupError> {
        engine::scoped(self, f)
    }

    /// Makes this the configuration of all engines that threads make for themselves.
    ///
    /// # Errors
    ///
    /// [`SetupError::AlreadyConfigured`] if that was done before, or an engine has been made from the defaults already.
    pub fn set_default(self) -> Result<(), SetupError> {
        DEFAULT.set(self).map_err(|_| SetupError::AlreadyConfigured)
    }

    pub(crate) fn default_for_process() -> Result<Config, SetupError> {
        Ok(*DEFAULT.get_or_init(Config::new))
    }

    /// How many entries the longest chain may need.
    pub(crate) fn chain_limit(&self) -> u32 {
        self.entries
    }

    pub(crate) fn make_driver(self) -> Result<Driver, SetupError> {
        let backend = match self.backend {
            Backend::Auto => from_environment()?,
            other => other,
        };
        match backend {
            Backend::Auto => self.make_uring().or_else(|error| match error {
                SetupError::IoUring(why) if why.allows_fallback() => self.make_best_ready(),
                other => Err(other),
            }),
            Backend::IoUring => self.make_uring(),
            Backend::Epoll => self.make_epoll(),
            Backend::Poll => self.make_ready(Backend::Poll, Selector::poll()),
        }
    }

    #[cfg(target_os = "linux")]
    fn make_uring(self) -> Result<Driver, SetupError> {
        #[cfg(feature = "faults")]
        if let Some(plan) = self.faults.or_else(Plan::from_environment) {
            let ring = Ring::with_faults(self.entries, self.features, plan).map_err(SetupError::IoUring)?;
            return Ok(Driver::Uring(Box::new(Uring::new(ring))));
        }
        let ring = Ring::new(self.entries, self.features).map_err(SetupError::IoUring)?;
        Ok(Driver::Uring(Box::new(Uring::new(ring))))
    }

    #[cfg(not(target_os = "linux"))]
    fn make_uring(self) -> Result<Driver, SetupError> {
        Err(SetupError::IoUring(Unavailable::NotLinux))
    }

    #[cfg(target_os = "linux")]
    fn make_epoll(self) -> Result<Driver, SetupError> {
        let selector = Selector::epoll().map_err(|errno| SetupError::Engine {
            backend: Backend::Epoll,
            call: crate::error::SetupCall::EpollCreate,
            errno,
        })?;
        self.make_ready(Backend::Epoll, selector)
    }

    #[cfg(not(target_os = "linux"))]
    fn make_epoll(self) -> Result<Driver, SetupError> {
        Err(SetupError::NoSuchBackend(Backend::Epoll))
    }

    fn make_best_ready(self) -> Result<Driver, SetupError> {
        if cfg!(target_os = "linux") { self.make_epoll() } else { self.make_ready(Backend::Poll, Selector::poll()) }
    }

    fn make_ready(self, backend: Backend, selector: Selector) -> Result<Driver, SetupError> {
        let limits = WorkerLimits { max: self.max_workers, idle: self.worker_idle };
        let failed = |(call, errno)| SetupError::Engine { backend, call, errno };
        #[cfg_attr(not(feature = "faults"), allow(unused_mut))]
        let mut ready = Ready::new(selector, limits).map_err(failed)?;
        #[cfg(feature = "faults")]
        if let Some(plan) = self.faults.or_else(Plan::from_environment) {
            ready.set_faults(Faults::new(plan));
        }
        Ok(Driver::Ready(Box::new(ready)))
    }
}

/// What `AIO_BACKEND` says. Read once.
pub(crate) fn from_environment() -> Result<Backend, SetupError> {
    static CHOICE: OnceLock<Result<Backend, SetupError>> = OnceLock::new();
    *CHOICE.get_or_init(|| {
        let Some(value) = std::env::var_os("AIO_BACKEND") else { return Ok(Backend::Auto) };
        match value.to_str() {
            Some("io_uring") => Ok(Backend::IoUring),
            Some("epoll") => Ok(Backend::Epoll),
            Some("poll") => Ok(Backend::Poll),
            Some("auto" | "") => Ok(Backend::Auto),
            _ => Err(SetupError::UnknownBackend),
        }
    })
}

impl Unavailable {
    /// Whether the emulation does where io_uring cannot be used for this reason. Being out of descriptors is no such
    /// reason: the emulation needs some as well.
    fn allows_fallback(&self) -> bool {
        !matches!(self, Unavailable::Os(errno) if matches!(errno.raw(), libc::EMFILE | libc::ENFILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Errno;

    #[test]
    fn entries_are_a_power_of_two_within_bounds() {
        let sizes = [(0, 1), (1, 1), (2, 2), (3, 4), (256, 256), (257, 512), (1 << 15, 1 << 15), (32_769, 1 << 15)];
        for (asked, entries) in sizes.into_iter().chain([(u32::MAX, 1 << 15)]) {
            assert_eq!(Config::new().entries(asked).chain_limit(), entries, "{asked}");
        }
    }

    #[test]
    fn a_backend_is_shown_as_the_environment_names_it() {
        let all = [Backend::Auto, Backend::IoUring, Backend::Epoll, Backend::Poll];
        assert_eq!(all.map(|backend| backend.to_string()), ["auto", "io_uring", "epoll", "poll"]);
    }

    // Were these wrong, the tests of the fallbacks would pass without trying any.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_old_kernel_lacks_what_came_after_it() {
        let of = |age| Config::new().pretend_old_kernel(age).features;
        let of_61 = Features { no_sqarray: false, ..Features::ALL };
        let of_519 = Features { defer: false, ..of_61 };
        let of_511 = Features { taskrun: false, submit_all: false, registered: false, new_opcodes: false, ..of_519 };
        assert_eq!([of(0), of(1), of(2)], [of_511, of_519, of_61]);
        assert_eq!(Config::new().features, Features::ALL);
        assert_eq!(Config::new().pollable().features, Features { defer: false, ..Features::ALL });
    }

    #[test]
    fn a_lack_of_descriptors_alone_does_not_lead_to_the_emulation() {
        for number in [libc::EMFILE, libc::ENFILE] {
            assert!(!Unavailable::Os(Errno::new(number)).allows_fallback(), "{number}");
        }
        let others = [Unavailable::NotImplemented, Unavailable::Disabled(1), Unavailable::Denied, Unavailable::Memory];
        for why in others.into_iter().chain([Unavailable::Os(Errno::new(libc::EINVAL)), Unavailable::NotLinux]) {
            assert!(why.allows_fallback(), "{why:?}");
        }
    }
}
