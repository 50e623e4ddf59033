//! Runs a command in an environment that denies it something:
//! `deny EPERM|ENOSYS|marks|memlock=KIB|nofile=NUMBER… COMMAND [ARGUMENT…]`.
//!
//! - `EPERM`, `ENOSYS`: io_uring, by seccomp, as the default filters of container runtimes do.
//! - `marks`: the guards of stacks that are marks in a page table (`MADV_GUARD_INSTALL`), as before Linux 6.13.
//! - `memlock=64`: more than 64 KiB of locked memory (`RLIMIT_MEMLOCK`), also to root, who otherwise may lock any.
//! - `nofile=64`: more than 64 descriptors (`RLIMIT_NOFILE`).
//!
//! ```sh
//! cargo build --example deny
//! target/debug/examples/deny EPERM cargo test --tests
//! target/debug/examples/deny memlock=0 nofile=64 cargo test --test queue
//! ```

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::{
        os::unix::process::CommandExt,
        process::{Command, ExitCode},
    };

    let mut arguments = std::env::args_os().skip(1).peekable();
    let mut denials = 0;
    while let Some(denied) = arguments.peek().and_then(|what| denial(what.to_str()?)) {
        if let Err(error) = denied.impose() {
            eprintln!("deny: cannot {denied}: {error}");
            return ExitCode::from(2);
        }
        arguments.next();
        denials += 1;
    }
    let Some(program) = arguments.next().filter(|_| denials > 0) else {
        eprintln!("usage: deny EPERM|ENOSYS|marks|memlock=KIB|nofile=NUMBER… COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    // All of it survives `execve`, and is inherited by everything that the command starts.
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("deny: cannot run {}: {error}", program.display());
    ExitCode::from(2)
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("deny: seccomp and io_uring exist on Linux only");
    std::process::ExitCode::from(2)
}

/// What is to be denied.
#[cfg(target_os = "linux")]
enum Denial {
    Rings(i32),
    Marks,
    Locking(libc::rlim_t),
    Descriptors(libc::rlim_t),
}

#[cfg(target_os = "linux")]
fn denial(what: &str) -> Option<Denial> {
    match what {
        "EPERM" => Some(Denial::Rings(libc::EPERM)),
        "ENOSYS" => Some(Denial::Rings(libc::ENOSYS)),
        "marks" => Some(Denial::Marks),
        _ => match what.split_once('=')? {
            ("memlock", kib) => Some(Denial::Locking(kib.parse::<libc::rlim_t>().ok()?.checked_mul(1024)?)),
            ("nofile", number) => Some(Denial::Descriptors(number.parse().ok()?)),
            _ => None,
        },
    }
}

#[cfg(target_os = "linux")]
impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Denial::Rings(_) | Denial::Marks => write!(f, "install the seccomp filter"),
            Denial::Locking(bytes) => write!(f, "limit locked memory to {bytes} bytes"),
            Denial::Descriptors(number) => write!(f, "limit descriptors to {number}"),
        }
    }
}

#[cfg(target_os = "linux")]
impl Denial {
    fn impose(&self) -> std::io::Result<()> {
        match *self {
            Denial::Rings(errno) => deny_io_uring(errno),
            Denial::Marks => deny_marks(),
            Denial::Locking(bytes) => {
                drop_ipc_lock()?;
                limit(libc::RLIMIT_MEMLOCK, bytes)
            }
            Denial::Descriptors(number) => limit(libc::RLIMIT_NOFILE, number),
        }
    }
}

#[cfg(target_os = "linux")]
fn limit(resource: libc::__rlimit_resource_t, most: libc::rlim_t) -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: reads a local.
    if unsafe { libc::setrlimit(resource, &limit) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Who has `CAP_IPC_LOCK` is not limited. The next `execve` takes from root what is not in the bounding set.
#[cfg(target_os = "linux")]
fn drop_ipc_lock() -> std::io::Result<()> {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    // SAFETY: both take numbers only.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_LOWER, CAP_IPC_LOCK, 0, 0);
        if libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) == 0 {
            return Ok(());
        }
    }
    let error = std::io::Error::last_os_error();
    // An ordinary user may not drop it, and has not got it.
    if error.raw_os_error() == Some(libc::EPERM) { Ok(()) } else { Err(error) }
}

#[cfg(target_os = "linux")]
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
#[cfg(target_os = "linux")]
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
#[cfg(target_os = "linux")]
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

#[cfg(target_os = "linux")]
fn step(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Makes the system calls of io_uring fail with `errno`.
#[cfg(target_os = "linux")]
fn deny_io_uring(errno: i32) -> std::io::Result<()> {
    // The filter sees `struct seccomp_data`, whose first word is the number of the system call. Those of io_uring are
    // the same on all architectures, so it need not ask for the architecture.
    install(&mut [
        step(LOAD, 0, 0, 0),
        step(EQUAL, libc::SYS_io_uring_setup as u32, 2, 0),
        step(EQUAL, libc::SYS_io_uring_enter as u32, 1, 0),
        step(EQUAL, libc::SYS_io_uring_register as u32, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ])
}

/// Makes the kernel not know an advice of `madvise`.
#[cfg(target_os = "linux")]
fn deny_marks() -> std::io::Result<()> {
    const MADV_GUARD_INSTALL: u32 = 102;
    let advice = std::mem::offset_of!(libc::seccomp_data, args) + 2 * size_of::<u64>();
    let low_half = if cfg!(target_endian = "big") { 4 } else { 0 };
    install(&mut [
        step(LOAD, 0, 0, 0),
        step(EQUAL, libc::SYS_madvise as u32, 0, 3),
        step(LOAD, advice as u32 + low_half, 0, 0),
        step(EQUAL, MADV_GUARD_INSTALL, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ])
}

/// Has a program decide on the system calls of this process and all it becomes or starts, for good.
#[cfg(target_os = "linux")]
fn install(program: &mut [libc::sock_filter]) -> std::io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: these take numbers and a pointer to a program, which outlives the calls; the kernel copies it.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
