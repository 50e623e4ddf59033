//! Runs a command with io_uring denied by seccomp, as the default filters of container runtimes do:
//! `deny EPERM|ENOSYS COMMAND [ARGUMENT…]`.
//!
//! ```sh
//! cargo build --example deny
//! target/debug/examples/deny EPERM cargo test --tests
//! ```

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::{
        os::unix::process::CommandExt,
        process::{Command, ExitCode},
    };

    let mut arguments = std::env::args_os().skip(1);
    let errno = match arguments.next().as_deref().and_then(|name| name.to_str()) {
        Some("EPERM") => libc::EPERM,
        Some("ENOSYS") => libc::ENOSYS,
        _ => return usage(),
    };
    let Some(program) = arguments.next() else { return usage() };
    if let Err(error) = deny_io_uring(errno) {
        eprintln!("deny: cannot install the seccomp filter: {error}");
        return ExitCode::from(2);
    }
    // Filters survive `execve`, and are inherited by everything that the command starts.
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("deny: cannot run {}: {error}", program.display());
    ExitCode::from(2)
}

#[cfg(target_os = "linux")]
fn usage() -> std::process::ExitCode {
    eprintln!("usage: deny EPERM|ENOSYS COMMAND [ARGUMENT…]");
    std::process::ExitCode::from(2)
}

/// Makes the system calls of io_uring fail with `errno`, in this process and all it becomes or starts, for good.
#[cfg(target_os = "linux")]
fn deny_io_uring(errno: i32) -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k: u32, jt, jf| libc::sock_filter { code, jt, jf, k };
    // The filter sees `struct seccomp_data`, whose first word is the number of the system call. Those of io_uring are
    // the same on all architectures, so it need not ask for the architecture.
    let mut program = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, libc::SYS_io_uring_setup as u32, 2, 0),
        step(EQUAL, libc::SYS_io_uring_enter as u32, 1, 0),
        step(EQUAL, libc::SYS_io_uring_register as u32, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: these take numbers and a pointer to a program, which outlives the calls; the kernel copies it.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("deny: seccomp and io_uring exist on Linux only");
    std::process::ExitCode::from(2)
}
