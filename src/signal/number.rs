//! Which signal.

use std::fmt;

/// A signal, by its number.
///
/// ```
/// use aio::signal::Signal;
///
/// assert_eq!(Signal::from(libc::SIGTERM), Signal::TERM);
/// assert_eq!((Signal::TERM.number(), Signal::TERM.to_string()), (15, "SIGTERM".to_owned()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident = $number:ident),* $(,)?) => {
        impl Signal {
            $($(#[$doc])* pub const $name: Signal = Signal(libc::$number);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$number => Some(stringify!($number)),)*
                    _ => None,
                }
            }
        }
    };
}

signals! {
    /// The terminal is gone. Daemons take it as the wish to read their configuration again.
    HUP = SIGHUP,
    /// Ctrl-C.
    INT = SIGINT,
    /// Ctrl-\.
    QUIT = SIGQUIT,
    /// An instruction that does not exist. Cannot be waited for.
    ILL = SIGILL,
    /// A breakpoint.
    TRAP = SIGTRAP,
    /// `abort(3)`, which ends the process all the same.
    ABRT = SIGABRT,
    /// Memory that has nothing behind it. Cannot be waited for.
    BUS = SIGBUS,
    /// Arithmetic that has no result. Cannot be waited for.
    FPE = SIGFPE,
    /// The end. Cannot be waited for.
    KILL = SIGKILL,
    /// For the program's own use.
    USR1 = SIGUSR1,
    /// Memory that is not the process's. Cannot be waited for.
    SEGV = SIGSEGV,
    /// For the program's own use.
    USR2 = SIGUSR2,
    /// A write to a pipe or a socket that nobody reads.
    PIPE = SIGPIPE,
    /// A timer of `alarm(2)` or `setitimer(2)`.
    ALRM = SIGALRM,
    /// The wish that the process end.
    TERM = SIGTERM,
    /// A child has ended, stopped or gone on.
    CHLD = SIGCHLD,
    /// The process goes on after a stop.
    CONT = SIGCONT,
    /// A stop. Cannot be waited for.
    STOP = SIGSTOP,
    /// Ctrl-Z.
    TSTP = SIGTSTP,
    /// A read from the terminal in the background.
    TTIN = SIGTTIN,
    /// A write to the terminal in the background.
    TTOU = SIGTTOU,
    /// The terminal's window has another size.
    WINCH = SIGWINCH,
}

impl Signal {
    /// The number, as in `signal(7)`.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Why it cannot be waited for.
    pub(super) fn refusal(self) -> Option<&'static str> {
        match self {
            Signal::KILL | Signal::STOP => Some("the system lets nobody catch it"),
            Signal::SEGV | Signal::BUS | Signal::ILL | Signal::FPE => {
                Some("the instruction that has raised it would run again for ever")
            }
            Signal(1..=super::handler::LAST) => None,
            _ => Some("there is no such signal"),
        }
    }
}

impl From<i32> for Signal {
    fn from(number: i32) -> Signal {
        Signal(number)
    }
}

/// The name, `SIGTERM` for example, or `signal 40` for what has none.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
