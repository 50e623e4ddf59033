//! What this system can do, operation by operation.

#[cfg(target_os = "linux")]
use crate::driver::uring::{Features, Ring, Support};
use crate::{
    Backend, Config, SetupError, Unavailable,
    driver::files::Kind,
    op::{CURRENT_POSITION, Clock, Fd, RawOp, Target},
    sys::Timespec,
};
use std::{fmt, ptr};

/// How an engine does an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Service {
    /// The ring does it.
    Ring,
    /// An ordinary system call that does not wait, on the calling thread.
    SystemCall,
    /// A system call when the descriptor is ready.
    Readiness,
    /// A system call on a worker thread, unless the page cache can serve it at once.
    Worker,
    /// The engine's own timers.
    Timer,
    /// Not at all; it gives [`Error::Unsupported`](crate::Error::Unsupported).
    Unsupported,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Service::Ring => "ring",
            Service::SystemCall => "system call",
            Service::Readiness => "readiness",
            Service::Worker => "worker",
            Service::Timer => "timer",
            Service::Unsupported => "unsupported",
        })
    }
}

/// One line of a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Supported {
    /// The operation's name in [`op`](crate::op).
    pub operation: &'static str,
    /// The Linux version whose io_uring does it.
    pub since: &'static str,
    /// How the io_uring backend does it here, if that can be used.
    pub io_uring: Option<Service>,
    /// How the emulation does it.
    pub emulation: Service,
}

/// What this system can do; made by [`Backend::probe`].
#[derive(Clone, Debug)]
pub struct Probe {
    io_uring: Result<(), Unavailable>,
    operations: Vec<Supported>,
}

impl Backend {
    /// Finds out what this system can do. It sets up a small ring for it, and takes it down again.
    ///
    /// ```
    /// let probe = aio::Backend::probe();
    /// match probe.io_uring() {
    ///     Ok(()) => assert_eq!(probe.operation("Read").unwrap().io_uring, Some(aio::Service::Ring)),
    ///     Err(why) => println!("io_uring cannot be used: {why}"),
    /// }
    /// ```
    pub fn probe() -> Probe {
        Probe::new()
    }
}

impl Probe {
    /// Whether io_uring can be used, and if not, why.
    ///
    /// # Errors
    ///
    /// The reason, in words that say what to do about it.
    pub fn io_uring(&self) -> Result<(), Unavailable> {
        self.io_uring
    }

    /// The backend that [`Backend::Auto`] leads to here.
    ///
    /// # Errors
    ///
    /// What setting it up would give.
    pub fn automatic(&self) -> Result<Backend, SetupError> {
        Config::new().run(|| crate::stats().backend.unwrap_or_default())
    }

    /// All operations.
    pub fn operations(&self) -> &[Supported] {
        &self.operations
    }

    /// One operation, by its name in [`op`](crate::op).
    pub fn operation(&self, name: &str) -> Option<Supported> {
        self.operations.iter().copied().find(|supported| supported.operation == name)
    }

    #[cfg(target_os = "linux")]
    fn new() -> Probe {
        let ring = Ring::new(1, Features::ALL);
        let support = ring.as_ref().map(Support::of);
        let operations = TABLE.iter().map(|row| row.describe(support.as_ref().ok())).collect();
        Probe { io_uring: ring.map(drop), operations }
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Probe {
        let operations = TABLE.iter().map(|row| row.supported(None)).collect();
        Probe { io_uring: Err(Unavailable::NotLinux), operations }
    }
}

/// The table that README shows.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Err(why) = self.io_uring {
            writeln!(f, "io_uring cannot be used: {why}")?;
        }
        writeln!(f, "{:<12} {:<12} {:<12} since Linux", "operation", "io_uring", "emulation")?;
        for row in &self.operations {
            let native = row.io_uring.map_or("-".into(), |service| service.to_string());
            writeln!(f, "{:<12} {native:<12} {:<12} {}", row.operation, row.emulation, row.since)?;
        }
        Ok(())
    }
}

struct Row {
    operation: &'static str,
    since: &'static str,
    emulation: Service,
    /// An example, to ask an engine about.
    op: RawOp,
}

impl Row {
    #[cfg(target_os = "linux")]
    fn describe(&self, support: Option<&Support>) -> Supported {
        self.supported(support.map(|support| match (self.op, support.has(&self.op)) {
            (RawOp::Timeout { .. }, _) => Service::Timer,
            (_, true) => Service::Ring,
            (RawOp::CancelFd { .. } | RawOp::FutexWait { .. } | RawOp::WaitId { .. }, false) => Service::Unsupported,
            // As the ordinary sends.
            (RawOp::SendZc { .. } | RawOp::SendMsgZc { .. }, false) => Service::Ring,
            (_, false) => Service::SystemCall,
        }))
    }

    fn supported(&self, io_uring: Option<Service>) -> Supported {
        let emulation = match self.op {
            RawOp::FutexWait { .. } if !crate::sys::has_futex_waitv() => Service::Unsupported,
            _ => self.emulation,
        };
        Supported { operation: self.operation, since: self.since, io_uring, emulation }
    }
}

const NONE: Fd = Fd::OPENED;
const NOW: u64 = CURRENT_POSITION;

macro_rules! table {
    ($($operation:literal $since:literal $emulation:ident $op:expr;)*) => {
        &[$(Row { operation: $operation, since: $since, emulation: Service::$emulation, op: $op },)*]
    };
}

const TABLE: &[Row] = table! {
    "Nop" "5.1" SystemCall RawOp::Nop;
    "Read" "5.6" Readiness RawOp::Read { fd: NONE, buf: ptr::null_mut(), len: 0, offset: NOW, nowait: false, buffer: 0 };
    "Write" "5.6" Readiness RawOp::Write { fd: NONE, buf: ptr::null(), len: 0, offset: NOW, nowait: false, buffer: 0 };
    "Readv" "5.1" Readiness RawOp::Readv { fd: NONE, iov: ptr::null(), count: 0, offset: NOW, nowait: false };
    "Writev" "5.1" Readiness RawOp::Writev { fd: NONE, iov: ptr::null(), count: 0, offset: NOW, nowait: false };
    "Fsync" "5.1" Worker RawOp::Fsync { fd: NONE, data_only: false };
    "OpenAt" "5.6" Worker RawOp::Open { dir: NONE, path: ptr::null(), flags: 0, mode: 0, target: Target::Table };
    "Close" "5.6" SystemCall RawOp::Close { fd: NONE };
    "Statx" "5.6" Worker RawOp::Statx { dir: NONE, path: ptr::null(), flags: 0, mask: 0, out: ptr::null_mut() };
    "RenameAt" "5.11" Worker RawOp::Rename {
        from_dir: NONE, from: ptr::null(), to_dir: NONE, to: ptr::null(), flags: 0,
    };
    "UnlinkAt" "5.11" Worker RawOp::Unlink { dir: NONE, path: ptr::null(), flags: 0 };
    "MkDirAt" "5.15" Worker RawOp::Mkdir { dir: NONE, path: ptr::null(), mode: 0 };
    "SymlinkAt" "5.15" Worker RawOp::Symlink { target: ptr::null(), dir: NONE, path: ptr::null() };
    "LinkAt" "5.15" Worker RawOp::Link { from_dir: NONE, from: ptr::null(), to_dir: NONE, to: ptr::null(), flags: 0 };
    "Ftruncate" "6.9" Worker RawOp::Truncate { fd: NONE, len: 0 };
    "Fallocate" "5.6" Worker RawOp::Allocate { fd: NONE, mode: 0, offset: 0, len: 0 };
    "Fadvise" "5.6" Worker RawOp::Advise { fd: NONE, offset: 0, len: 0, advice: 0 };
    "Splice" "5.7" Worker RawOp::Splice { from: NONE, from_offset: NOW, to: NONE, to_offset: NOW, len: 0, flags: 0 };
    "Tee" "5.8" Readiness RawOp::Tee { from: NONE, to: NONE, len: 0, flags: 0 };
    "Pipe" "6.16" SystemCall RawOp::Pipe { fds: ptr::null_mut(), flags: 0 };
    "Socket" "5.19" SystemCall RawOp::Socket { domain: 0, kind: 0, protocol: 0, target: Target::Table };
    "Bind" "6.11" SystemCall RawOp::Bind { fd: NONE, addr: ptr::null(), len: 0 };
    "Listen" "6.11" SystemCall RawOp::Listen { fd: NONE, backlog: 0 };
    "Accept" "5.5" Readiness RawOp::Accept {
        fd: NONE, addr: ptr::null_mut(), len: ptr::null_mut(), flags: 0, nowait: false, target: Target::Table,
    };
    "Connect" "5.5" Readiness RawOp::Connect { fd: NONE, addr: ptr::null(), len: 0 };
    "Recv" "5.6" Readiness RawOp::Recv { fd: NONE, buf: ptr::null_mut(), len: 0, flags: 0 };
    "Send" "5.6" Readiness RawOp::Send { fd: NONE, buf: ptr::null(), len: 0, flags: 0 };
    "RecvMsg" "5.3" Readiness RawOp::RecvMsg { fd: NONE, msg: ptr::null_mut(), flags: 0 };
    "SendMsg" "5.3" Readiness RawOp::SendMsg { fd: NONE, msg: ptr::null(), flags: 0 };
    "RecvFrom" "5.3" Readiness RawOp::RecvMsg { fd: NONE, msg: ptr::null_mut(), flags: 0 };
    "SendTo" "5.3" Readiness RawOp::SendMsg { fd: NONE, msg: ptr::null(), flags: 0 };
    "SendBundle" "5.3" Readiness RawOp::SendMsg { fd: NONE, msg: ptr::null(), flags: 0 };
    "SendZc" "6.0" Readiness RawOp::SendZc { fd: NONE, buf: ptr::null(), len: 0, flags: 0 };
    "SendMsgZc" "6.1" Readiness RawOp::SendMsgZc { fd: NONE, msg: ptr::null(), flags: 0 };
    "Shutdown" "5.11" SystemCall RawOp::Shutdown { fd: NONE, how: 0 };
    "SetSockOpt" "6.7" SystemCall RawOp::SetSockOpt { fd: NONE, level: 1, name: 0, value: ptr::null(), len: 0 };
    "GetSockOpt" "6.7" SystemCall RawOp::GetSockOpt { fd: NONE, level: 1, name: 0, value: ptr::null_mut(), len: 0 };
    "Poll" "5.1" Readiness RawOp::Poll { fd: NONE, events: 0 };
    "Timeout" "5.4" Timer RawOp::Timeout { clock: Clock::Monotonic, absolute: false, at: Timespec { sec: 0, nsec: 0 } };
    "Cancel" "5.19" SystemCall RawOp::CancelFd { fd: NONE };
    "ChildExit" "5.3" Readiness RawOp::ChildExit { pid: 0, pidfd: NONE };
    "WaitId" "6.7" Timer RawOp::WaitId { which: 0, id: 0, flags: 0, info: ptr::null_mut() };
    "Install" "6.8" SystemCall RawOp::Install { fd: Fd::in_table(0, Kind::Other) };
    "Notify" "5.6" Readiness RawOp::Write { fd: NONE, buf: ptr::null(), len: 0, offset: NOW, nowait: false, buffer: 0 };
    "WaitEvent" "5.6" Readiness RawOp::Read { fd: NONE, buf: ptr::null_mut(), len: 0, offset: NOW, nowait: false, buffer: 0 };
    "FutexWait" "6.7" Worker RawOp::FutexWait { word: ptr::null(), value: 0 };
    "FutexWake" "6.7" SystemCall RawOp::FutexWake { word: ptr::null(), count: 0 };
    "WakeQueue" "6.13" SystemCall RawOp::Wake { bell: ptr::null() };
    "Raw" "5.1" Unsupported RawOp::Entry(ptr::null());
};
