//! What to run, and how.

use super::{Child, ExitStatus, Output, Stdio};
use crate::blocking::blocking;
use std::{ffi::OsStr, fmt, io, path::Path};

/// A program to run: [`std::process::Command`].
///
/// What only Unix has, such as the user or what runs before `exec`, is reached by [`as_std_mut`](Self::as_std_mut).
///
/// ```
/// use aio::process::Command;
///
/// let output = Command::new("echo").args(["one", "two"]).output()?;
/// assert_eq!(output.stdout, b"one two\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Command {
    inner: std::process::Command,
    /// Which of the child's standard streams were chosen here.
    chosen: [bool; 3],
    kill_on_drop: bool,
}

impl Command {
    /// Runs `program`, which is looked for in `PATH` unless there is a slash in it, without arguments, with this
    /// process's environment, current directory and standard streams.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        std::process::Command::new(program).into()
    }

    /// Adds an argument. No shell sees it.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Command {
        self.inner.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.inner.env(key, value);
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, vars: impl IntoIterator<Item = (K, V)>) -> &mut Command {
        self.inner.envs(vars);
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Command {
        self.inner.env_remove(key);
        self
    }

    /// Removes all variables: those inherited, and those set here before.
    pub fn env_clear(&mut self) -> &mut Command {
        self.inner.env_clear();
        self
    }

    /// The directory that the child starts in. Give the program by an absolute path then; from where a relative one
    /// counts is not specified.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Command {
        self.inner.current_dir(dir);
        self
    }

    /// The child's standard input: inherited if not given, and nothing at all with [`output`](Self::output).
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Command {
        self.inner.stdin(stdin);
        self.chosen[0] = true;
        self
    }

    /// The child's standard output: inherited if not given, and kept with [`output`](Self::output).
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Command {
        self.inner.stdout(stdout);
        self.chosen[1] = true;
        self
    }

    /// The child's standard error stream: inherited if not given, and kept with [`output`](Self::output).
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Command {
        self.inner.stderr(stderr);
        self.chosen[2] = true;
        self
    }

    /// Whether dropping a [`Child`] that has not been waited for kills it (`SIGKILL`) and waits for its end. If not,
    /// which is the default as in the standard library, it goes on by itself; see [`Child`].
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Command {
        self.kill_on_drop = kill;
        self
    }

    /// Starts the child.
    ///
    /// # Errors
    ///
    /// As `fork(2)` and `execve(2)`: [`NotFound`](io::ErrorKind::NotFound) or
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) if the program cannot be executed. A NUL byte in the
    /// program, an argument or a variable is [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn spawn(&mut self) -> io::Result<Child> {
        let child = blocking(|| self.inner.spawn())?;
        Ok(Child::new(child, self.kill_on_drop))
    }

    /// Runs the child to its end, and gives its status.
    ///
    /// ```
    /// let status = aio::process::Command::new("sh").args(["-c", "exit 69"]).status()?;
    /// assert_eq!(status.code(), Some(69));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::wait`].
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Runs the child to its end, and gives its status and what it has written. Its input is empty, and both outputs
    /// are kept, unless they were chosen otherwise.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::wait_with_output`].
    pub fn output(&mut self) -> io::Result<Output> {
        self.for_all_that_is_not_chosen([Stdio::null(), Stdio::piped(), Stdio::piped()]);
        let child = self.spawn();
        self.for_all_that_is_not_chosen([Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]);
        child?.wait_with_output()
    }

    fn for_all_that_is_not_chosen(&mut self, [stdin, stdout, stderr]: [Stdio; 3]) {
        if !self.chosen[0] {
            self.inner.stdin(stdin);
        }
        if !self.chosen[1] {
            self.inner.stdout(stdout);
        }
        if !self.chosen[2] {
            self.inner.stderr(stderr);
        }
    }

    /// The standard library's command, for what can be asked of it.
    pub fn as_std(&self) -> &std::process::Command {
        &self.inner
    }

    /// The standard library's command, for [`CommandExt`](std::os::unix::process::CommandExt) and the like. Standard
    /// streams chosen by it are not known to [`output`](Self::output), which makes its own choice then.
    ///
    /// The thread that forks may be one that ends long before this process does. `PR_SET_PDEATHSIG` in
    /// [`pre_exec`](std::os::unix::process::CommandExt::pre_exec) counts from the end of that thread, and would kill
    /// the child early.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.inner
    }
}

impl From<std::process::Command> for Command {
    fn from(inner: std::process::Command) -> Command {
        Command { inner, chosen: [false; 3], kill_on_drop: false }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
