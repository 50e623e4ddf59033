//! io_uring denied by a seccomp filter, as container runtimes do.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod common;

use aio::{Backend, Config, Error, SetupError, Unavailable, op::*};
use common::{each_engine, file_with, pipe, variants_in_own_process};
use std::{os::unix::net::UnixStream, time::Duration};

const VARIANTS: &[(&str, &[(&str, &str)])] =
    &[("EPERM", &[("AIO_BACKEND", "auto")]), ("ENOSYS", &[("AIO_BACKEND", "auto")])];

/// Makes the system calls of io_uring fail with `errno`, in this thread and those it starts, for good.
fn deny(errno: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k: u32, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, libc::SYS_io_uring_setup as u32, 2, 0),
        step(EQUAL, libc::SYS_io_uring_enter as u32, 1, 0),
        step(EQUAL, libc::SYS_io_uring_register as u32, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers, and a program that outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &filter), 0);
    }
}

fn number(variant: &str) -> i32 {
    if variant == "EPERM" { libc::EPERM } else { libc::ENOSYS }
}

fn works() {
    let (file, (a, b), (output, input)) = (file_with(b"abc"), UnixStream::pair().unwrap(), pipe());
    let (mut x, mut y, mut z) = ([0u8; 3], [0u8; 2], [0u8; 9]);
    let done = aio::complete((
        (Read::new(&file, &mut x).at(0), Fsync::new(&file), OpenAt::new("Cargo.toml")),
        Recv::new(&a, &mut y),
        (Timeout::after(Duration::from_millis(1)).link(), Send::new(&b, b"hi"), Write::new(&input, b"ok")),
        (Read::new(&output, &mut z).link(), Nop::new()),
    ));
    let done = done.unwrap();
    assert_eq!((done.errors, done.results.3), (1, (Ok(2), Err(Error::Skipped))));
    assert_eq!((&x, &y), (b"abc", b"hi"));
}

#[test]
fn the_automatic_choice_falls_back_to_the_emulation() {
    variants_in_own_process("the_automatic_choice_falls_back_to_the_emulation", VARIANTS, |variant| {
        deny(number(variant));
        works();
        assert_eq!(aio::stats().backend, Some(Backend::Epoll));
        std::thread::spawn(works).join().unwrap();
        Config::new().run(works).unwrap();
        each_engine(|engine| {
            assert_ne!(engine.backend, Backend::IoUring);
            works();
        });
        assert_eq!(Backend::probe().automatic(), Ok(Backend::Epoll));
    });
}

#[test]
fn a_ring_that_is_demanded_gives_the_reason() {
    variants_in_own_process("a_ring_that_is_demanded_gives_the_reason", VARIANTS, |variant| {
        deny(number(variant));
        let error = Config::new().backend(Backend::IoUring).run(|| ()).unwrap_err();
        let why = if variant == "EPERM" { Unavailable::Denied } else { Unavailable::NotImplemented };
        assert_eq!((error, error.raw_os_error()), (SetupError::IoUring(why), Some(number(variant))));
        let text = error.to_string();
        assert!(text.contains("seccomp") && text.contains("epoll backend"), "{text}");
        let probe = Backend::probe();
        assert_eq!(probe.io_uring(), Err(why));
        assert!(probe.operations().iter().all(|row| row.io_uring.is_none()));
        assert!(probe.to_string().starts_with("io_uring cannot be used: "), "{probe}");
    });
}

#[test]
fn a_ring_demanded_by_the_environment_gives_the_reason_too() {
    let variants: &[(&str, &[(&str, &str)])] = &[("EPERM", &[("AIO_BACKEND", "io_uring")])];
    variants_in_own_process("a_ring_demanded_by_the_environment_gives_the_reason_too", variants, |variant| {
        deny(number(variant));
        let error = aio::single(Nop::new()).unwrap_err();
        assert_eq!(error, Error::Setup(SetupError::IoUring(Unavailable::Denied)));
        let io: std::io::Error = error.into();
        assert!(io.to_string().contains("seccomp"), "{io}");
        Config::new().backend(Backend::Poll).run(works).unwrap();
    });
}

/// What a kernel says when the ring does not fit into `RLIMIT_MEMLOCK`: those before 5.12, and 6.18 again.
#[test]
fn too_little_lockable_memory_falls_back_or_says_which_limit_to_raise() {
    let variants: &[(&str, &[(&str, &str)])] = &[("ENOMEM", &[("AIO_BACKEND", "auto")])];
    variants_in_own_process("too_little_lockable_memory_falls_back_or_says_which_limit_to_raise", variants, |_| {
        deny(libc::ENOMEM);
        works();
        assert_eq!(aio::stats().backend, Some(Backend::Epoll));
        let error = Config::new().backend(Backend::IoUring).run(|| ()).unwrap_err();
        assert_eq!(error, SetupError::IoUring(Unavailable::Memory));
        let text = error.to_string();
        assert!(text.contains("RLIMIT_MEMLOCK") && text.contains("Config::entries"), "{text}");
    });
}

/// The emulation needs descriptors as well, so being out of them is no reason to fall back to it.
#[test]
fn being_out_of_descriptors_is_told_and_not_hidden_by_a_fallback() {
    let variants: &[(&str, &[(&str, &str)])] = &[("EMFILE", &[("AIO_BACKEND", "auto")])];
    variants_in_own_process("being_out_of_descriptors_is_told_and_not_hidden_by_a_fallback", variants, |_| {
        deny(libc::EMFILE);
        let error = aio::complete(Nop::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert!(error.to_string().contains("ulimit -n"), "{error}");
    });
}
