//! What the tests share.
#![allow(dead_code)]

use aio::{Backend, Config, Queue, coro};
use std::{
    cell::Cell,
    ffi::{CString, OsString},
    fs::File,
    io::Write as _,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Output},
    rc::Rc,
    sync::mpsc,
    time::Duration,
};

/// Numbers that look random and are the same each time (xorshift). The seed is not 0.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % end
    }
}

/// Long enough that no test waits for it to end, on however slow a machine.
pub const NEVER: Duration = Duration::from_secs(3600);

/// One way to make an engine.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    pub name: &'static str,
    pub backend: Backend,
    pub config: Config,
    /// io_uring as it was before 5.19, which cannot cancel by descriptor.
    pub cancels_by_descriptor: bool,
}

fn engine(name: &'static str, backend: Backend) -> Engine {
    Engine { name, backend, config: Config::new().backend(backend), cancels_by_descriptor: true }
}

/// The engine that `AIO_BACKEND` demands, if any. It is then made by the automatic choice, so that this is tested too.
fn demanded() -> Option<Engine> {
    let (name, backend) = match std::env::var("AIO_BACKEND").ok()?.as_str() {
        "io_uring" => ("io_uring", Backend::IoUring),
        "epoll" => ("epoll", Backend::Epoll),
        "poll" => ("poll", Backend::Poll),
        _ => return None,
    };
    Some(Engine { config: Config::new(), ..engine(name, backend) })
}

/// The backends that exist here: where io_uring is denied, the emulations alone.
pub fn backends() -> Vec<Backend> {
    plain_engines().iter().map(|engine| engine.backend).collect()
}

fn plain_engines() -> Vec<Engine> {
    if let Some(engine) = demanded() {
        return vec![engine];
    }
    let all = [engine("io_uring", Backend::IoUring), engine("epoll", Backend::Epoll), engine("poll", Backend::Poll)];
    let usable: Vec<_> = all.into_iter().filter(|engine| engine.config.run(|| ()).is_ok()).collect();
    assert!(usable.iter().any(|engine| engine.backend == Backend::Poll), "the poll emulation works everywhere");
    usable
}

/// All backends, io_uring also as old kernels have it, and the emulations also without workers.
pub fn engines() -> Vec<Engine> {
    let mut all = plain_engines();
    for plain in all.clone() {
        if plain.backend != Backend::IoUring {
            all.push(Engine { name: "emulation without workers", config: plain.config.max_workers(0), ..plain });
            continue;
        }
        for (age, name) in [(0, "io_uring of 5.11"), (1, "io_uring of 5.19"), (2, "io_uring of 6.1")] {
            let config = plain.config.pretend_old_kernel(age);
            all.push(Engine { name, config, cancels_by_descriptor: age > 0, ..plain });
        }
        all.push(Engine { name: "io_uring with eight entries", config: plain.config.entries(8), ..plain });
    }
    all
}

#[track_caller]
fn on(engine: &Engine, test: impl FnOnce()) {
    // Shown if the test fails or hangs.
    eprintln!("on {}", engine.name);
    let _watchdog = watchdog(engine.name);
    engine.config.run(test).expect("the engine was usable just now");
}

/// A lost operation would hang the test for ever; this names the test and the engine instead.
pub fn watchdog(engine: &'static str) -> mpsc::Sender<()> {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let (alive, dropped) = mpsc::channel();
    std::thread::spawn(move || {
        // With faults everything takes longer.
        let patience = Duration::from_secs(if std::env::var_os("AIO_FAULTS").is_some() { 240 } else { 60 });
        if dropped.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Straight to the descriptor, past the harness, which keeps what is printed until the test has ended.
            let _ = writeln!(std::io::stderr(), "{test} hangs on {engine}");
            std::process::abort();
        }
    });
    alive
}

/// Runs a test once on each backend.
#[track_caller]
pub fn each_backend(test: impl Fn(Backend)) {
    for engine in plain_engines() {
        on(&engine, || test(engine.backend));
    }
}

/// Runs a test once on each way to make an engine.
#[track_caller]
pub fn each_engine(test: impl Fn(&Engine)) {
    for engine in engines() {
        on(&engine, || test(&engine));
    }
}

/// Runs a test on each backend, with a configuration changed by the test.
#[track_caller]
pub fn each_backend_with(change: impl Fn(Config) -> Config, test: impl Fn(Backend)) {
    for engine in plain_engines() {
        on(&Engine { config: change(engine.config), ..engine }, || test(engine.backend));
    }
}

/// Runs a test as the root of a runtime, once on each way to make an engine.
#[track_caller]
pub fn each_runtime(test: impl Fn()) {
    each_engine(|engine| runtime(engine).run(&test).unwrap());
}

/// As [`each_runtime`], on each backend only: for tests that take long.
#[track_caller]
pub fn each_backend_runtime(test: impl Fn(Backend)) {
    each_backend(|backend| coro::Config::new().backend(backend).run(|| test(backend)).unwrap());
}

/// Runs a test with the configuration of each way to make an engine: for queues, which have engines of their own.
#[track_caller]
pub fn each_queue(test: impl Fn(Config)) {
    for engine in engines() {
        eprintln!("on {}", engine.name);
        let _watchdog = watchdog(engine.name);
        test(engine.config);
    }
}

/// A queue with places of the usual size.
#[track_caller]
pub fn queue<E>(capacity: u32, config: Config) -> Queue<'static, E> {
    Queue::with_config(capacity, config).unwrap()
}

/// The events that are there, without waiting for more.
#[track_caller]
pub fn taken<E>(queue: &Queue<E>) -> Vec<E> {
    queue.poll().unwrap().map(|(_, event)| event).collect()
}

/// All events until nothing is in flight, in order.
#[track_caller]
pub fn drained<E>(queue: &Queue<E>) -> Vec<E> {
    let mut events = Vec::new();
    queue.drain(|_, event| events.push(event)).unwrap();
    events
}

/// Waits for so many events; others stay.
#[track_caller]
pub fn collect<E>(queue: &Queue<E>, count: usize) -> Vec<E> {
    let mut events = Vec::new();
    while events.len() < count {
        let left = count - events.len();
        events.extend(queue.wait(1).unwrap().map(|(_, event)| event).take(left));
    }
    events
}

pub fn runtime(engine: &Engine) -> coro::Config {
    coro::Config::new().engine(engine.config)
}

/// Waits for a condition that other tasks bring about, which takes a moment. Gives up in the end, for a test that fails
/// says more than one that hangs.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..5_000 {
        if condition() {
            return;
        }
        coro::sleep(Duration::from_millis(1)).unwrap();
    }
    panic!("{what}: has not come about within seconds");
}

/// Kills the process if the test, which has it for itself, takes longer than a bug that it looks for may take.
pub fn die_after(seconds: u32) {
    let slowness = if std::env::var_os("AIO_TEST_RUNNER").is_some() { 10 } else { 1 };
    // SAFETY: only arms a timer; the signal's default action ends the process.
    unsafe { libc::alarm(seconds * slowness) };
}

/// Counts how often it was dropped.
#[derive(Clone, Default)]
pub struct Drops(Rc<Cell<usize>>);

impl Drops {
    pub fn count(&self) -> usize {
        self.0.get()
    }

    /// Something to drop.
    pub fn one(&self) -> Dropped {
        Dropped(self.clone())
    }
}

pub struct Dropped(Drops);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() + 1);
    }
}

/// Calls a closure when it is dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A pipe as two descriptors: what it reads from, what it writes to.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let (output, input) = std::io::pipe().unwrap();
    (output.into(), input.into())
}

/// A file without a name that holds `bytes`, open for reading and writing.
pub fn file_with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A file that cannot be read: for operations that are to fail with `EBADF`.
pub fn write_only() -> File {
    let named = tempfile::NamedTempFile::new().unwrap();
    File::options().write(true).open(named.path()).unwrap()
}

/// Makes a FIFO in a directory.
pub fn fifo(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("fifo");
    let name = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    path
}

/// Opens a FIFO for writing as soon as somebody has it open for reading, or is about to; gives up when `over` says so.
pub fn open_writer(fifo: &Path, over: impl Fn() -> bool) -> Option<File> {
    while !over() {
        // Waiting in `open` would hang the test if nobody came.
        match File::options().write(true).custom_flags(libc::O_NONBLOCK).open(fifo) {
            Ok(file) => return Some(file),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENXIO)),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// `Err` with an error number of the system.
pub fn os<T>(number: i32) -> aio::Result<T> {
    Err(aio::Error::Os(aio::Errno::new(number)))
}

/// Fails if one of the files that [`file_with`]`(b"bystander")` has made was closed behind its owner's back.
#[track_caller]
pub fn assert_all_open(files: Vec<File>, when: &str) {
    use std::os::{fd::IntoRawFd, unix::fs::FileExt};
    assert!(!files.is_empty(), "the code that opens them did not run");
    let mut content = [0u8; 9];
    let open = files.iter().all(|file| file.read_at(&mut content, 0).is_ok() && &content == b"bystander");
    if !open {
        // Dropping a closed one aborts the process, before the message below is seen.
        files.into_iter().for_each(|file| _ = file.into_raw_fd());
    }
    assert!(open, "{when}: a file that was opened meanwhile is closed");
}

/// How many descriptors this process has.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs `body` twice and finds descriptors that the second time has left behind. To be used in a process of its own,
/// for other tests open and close theirs.
#[track_caller]
pub fn leaks_no_descriptor(body: impl Fn()) {
    body();
    let before = descriptors();
    body();
    assert_eq!(descriptors(), before, "descriptors have leaked or are missing");
}

const CHILD: &str = "AIO_TEST_CHILD";

/// Runs `body` in a process of its own, in which the test `name` is the only one. `name` is that of the calling test.
#[track_caller]
pub fn in_own_process(name: &str, body: impl FnOnce()) {
    variants_in_own_process(name, &[("only", &[])], |_| body());
}

/// As [`in_own_process`], once for each variant, which is a name and an environment.
#[track_caller]
pub fn variants_in_own_process(name: &str, variants: &[(&str, &[(&str, &str)])], body: impl FnOnce(&str)) {
    if let Some(variant) = std::env::var_os(CHILD) {
        let variant = variant.into_string().unwrap();
        return body(&variant);
    }
    for (variant, environment) in variants {
        let mut command = this_test(name, variant);
        command.envs(environment.iter().copied());
        let output = command.output().unwrap();
        assert_passed(name, variant, &output);
    }
}

/// Runs `body` in a process of its own on each backend, which `signal` has to end. Gives what each said on standard
/// error. `name` is that of the calling test.
#[track_caller]
pub fn dies(name: &str, signal: i32, body: impl FnOnce()) -> Vec<String> {
    if std::env::var_os(CHILD).is_some() {
        die_after(30);
        body();
        panic!("the process has survived");
    }
    let backends = backends().into_iter();
    backends
        .map(|backend| {
            let mut command = this_test(name, "dies");
            let output = command.env("AIO_BACKEND", backend.to_string()).output().unwrap();
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.signal(), Some(signal), "{name} on {backend}: {}\n{out}\n{err}", output.status);
            err.into_owned()
        })
        .collect()
}

/// Runs `body` in a process of its own on each backend, and gives what each said on standard error.
#[track_caller]
pub fn stderr_of(name: &str, body: impl FnOnce()) -> Vec<String> {
    if std::env::var_os(CHILD).is_some() {
        die_after(30);
        body();
        return vec![];
    }
    let backends = backends().into_iter();
    backends
        .map(|backend| {
            let mut command = this_test(name, "stderr");
            let output = command.env("AIO_BACKEND", backend.to_string()).output().unwrap();
            assert_passed(name, "stderr", &output);
            String::from_utf8(output.stderr).unwrap()
        })
        .collect()
}

#[track_caller]
fn assert_passed(name: &str, variant: &str, output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A wrong name would run no test at all, and succeed.
    let passed = output.status.success() && out.contains("1 passed");
    assert!(passed, "{name} in its own process ({variant}): {}\n{out}\n{err}", output.status);
}

/// The command that runs this test binary's test `name` again. `AIO_TEST_RUNNER` names an emulator such as qemu.
pub fn this_test(name: &str, variant: &str) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match std::env::var("AIO_TEST_RUNNER") {
        Ok(runner) => {
            let mut words = runner.split_whitespace().map(OsString::from);
            let mut command = Command::new(words.next().unwrap());
            command.args(words).arg(program);
            command
        }
        Err(_) => Command::new(program),
    };
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, variant);
    command
}

/// What `fork` needs: runs `child` in a forked process, which ends with it; gives its exit code, or 128 and more if a
/// signal ended it. A panic in it is code 101.
pub fn fork(child: impl FnOnce()) -> Forked {
    // SAFETY: the child runs only the closure, which the tests keep to what works in a forked process of few threads.
    match unsafe { libc::fork() } {
        0 => {
            let code = if catch_unwind(AssertUnwindSafe(child)).is_ok() { 0 } else { 101 };
            // SAFETY: ends the process without running what belongs to the parent, such as the test harness.
            unsafe { libc::_exit(code) }
        }
        pid if pid > 0 => Forked(pid),
        _ => panic!("fork: {}", std::io::Error::last_os_error()),
    }
}

/// A child process by its number.
pub struct Forked(pub libc::pid_t);

impl Forked {
    pub fn wait(self) -> i32 {
        let mut status = 0;
        // SAFETY: the status is a local.
        while unsafe { libc::waitpid(self.0, &mut status, 0) } < 0 {
            assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted);
        }
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
    }
}
