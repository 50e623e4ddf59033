//! Closing a descriptor in the chain that uses it.

mod common;

use aio::{Closing, Error, op::*};
use common::{each_engine, engines, in_own_process, leaks_no_descriptor, os, pipe};
use std::{
    fs::{self, File},
    io::IoSliceMut,
    os::{fd::AsFd, unix::net::UnixStream},
};

fn invalid<T>(result: &aio::Result<T>) -> bool {
    matches!(result, Err(Error::Invalid(_)))
}

#[test]
fn write_sync_and_close_in_one_chain() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = Closing::new(File::create(&path).unwrap());
        let done = aio::multi((
            Write::new(&file, b"one").at(0).link(),
            Write::new(&file, b"two").at(3).link(),
            Fsync::new(&file).hard_link(),
            Close::new(&file),
        ));
        assert_eq!(done, Ok((3, 3, (), ())));
        assert_eq!(fs::read(path).unwrap(), b"onetwo");
        assert!(file.into_inner().is_none());
    });
}

#[test]
fn open_read_and_close_in_one_chain() {
    each_engine(|_| {
        let (file, mut x, mut y) = (Closing::opening(), [0u8; 9], [0u8; 7]);
        let mut parts = [IoSliceMut::new(&mut y)];
        aio::multi((
            OpenAt::new("Cargo.toml").open_into(&file).link(),
            Read::new(&file, &mut x).link(),
            Readv::new(&file, &mut parts).at(1).hard_link(),
            Close::new(&file),
        ))
        .unwrap();
        assert_eq!((&x, &y), (b"[package]", b"package"));
    });
}

#[test]
fn create_fill_and_close_in_one_chain() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let (dir_fd, file) = (File::open(dir.path()).unwrap(), Closing::opening());
        let flags = OpenFlags::WRITE_ONLY | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
        aio::multi((
            OpenAt::new("new").dir(&dir_fd).flags(flags).mode(0o600).open_into(&file).link(),
            Fallocate::new(&file, 0, 8).link(),
            Write::new(&file, b"contents!").link(),
            Ftruncate::new(&file, 8).link(),
            Fsync::new(&file).data_only().link(),
            Close::new(&file),
        ))
        .unwrap();
        assert_eq!(fs::read(dir.path().join("new")).unwrap(), b"contents");
    });
}

#[test]
fn ask_about_a_file_in_the_chain_that_opens_it() {
    each_engine(|_| {
        let file = Closing::opening();
        let (_, stat, advised, ()) = aio::multi((
            OpenAt::new("Cargo.toml").open_into(&file).link(),
            Statx::of(&file).hard_link(),
            Fadvise::new(&file, Advice::Sequential).hard_link(),
            Close::new(&file),
        ))
        .unwrap();
        assert_eq!((stat.len(), advised), (fs::metadata("Cargo.toml").unwrap().len(), ()));
    });
}

#[test]
fn splice_from_a_file_in_the_chain_that_opens_it() {
    each_engine(|_| {
        let (file, (output, input), mut buf) = (Closing::opening(), pipe(), [0u8; 9]);
        let done = aio::complete((
            OpenAt::new("Cargo.toml").open_into(&file).link(),
            Splice::new(&file, &input, 9).hard_link(),
            Close::new(&file),
        ));
        // It may be refused, if it says so; it may not hit another descriptor.
        match done.unwrap().results.1 {
            Ok(9) => assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(9)),
            other => assert!(matches!(other, Err(Error::Invalid(_) | Error::Unsupported(_))), "{other:?}"),
        }
    });
}

#[test]
fn a_socket_and_a_pipe_can_be_closed_in_their_chain() {
    each_engine(|_| {
        let ((a, b), (output, input)) = (UnixStream::pair().unwrap(), pipe());
        let (socket, pipe) = (Closing::new(a), Closing::new(input));
        let done = aio::multi((
            (Send::new(&socket, b"bye").link(), Close::new(&socket)),
            (Write::new(&pipe, b"bye").link(), Close::new(&pipe)),
        ));
        assert_eq!(done, Ok(((3, ()), (3, ()))));
        let (mut x, mut y) = ([0u8; 8], [0u8; 8]);
        assert_eq!(aio::multi((Recv::new(&b, &mut x), Read::new(&output, &mut y))), Ok((3, 3)));
        let end = aio::multi((Recv::new(&b, &mut x), Read::new(&output, &mut y)));
        assert_eq!(end, Ok((0, 0)), "both were really closed");
    });
}

#[test]
fn a_close_that_is_skipped_leaves_the_descriptor_for_another_try() {
    each_engine(|_| {
        let ((output, input), mut buf) = (pipe(), [0u8; 1]);
        let input = Closing::new(input);
        let done = aio::complete((Read::new(&input, &mut buf).link(), Close::new(&input))).unwrap();
        assert_eq!(done.results, (os(libc::EBADF), Err(Error::Skipped)));
        assert_eq!(aio::multi((Write::new(&input, b"x").link(), Close::new(&input))), Ok((1, ())));
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(1));
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(0), "closed the second time");
    });
}

#[test]
fn a_close_that_is_skipped_closes_what_it_owns() {
    each_engine(|_| {
        let ((output, input), (_keep, other), mut buf) = (pipe(), pipe(), [0u8; 1]);
        let done = aio::complete((Read::new(&other, &mut buf).link(), Close::new(input))).unwrap();
        assert_eq!(done.results, (os(libc::EBADF), Err(Error::Skipped)));
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(0));
    });
}

#[test]
fn into_inner_gives_back_what_was_not_closed() {
    each_engine(|_| {
        let (output, input) = pipe();
        let closing = Closing::new(input);
        assert_eq!(aio::single(Write::new(&closing, b"x")), Ok(1));
        let input = closing.into_inner().unwrap();
        assert_eq!(aio::single(Write::new(input.as_fd(), b"y")), Ok(1));
        let mut buf = [0u8; 2];
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(2));
    });
}

#[test]
fn an_opening_can_be_used_again_and_again() {
    each_engine(|_| {
        let file = Closing::opening();
        for _ in 0..600 {
            let mut buf = [0u8; 9];
            let open = OpenAt::new("Cargo.toml").open_into(&file);
            aio::multi((open.link(), Read::new(&file, &mut buf).hard_link(), Close::new(&file))).unwrap();
            assert_eq!(&buf, b"[package]");
        }
    });
}

#[test]
fn many_chains_may_open_at_once() {
    each_engine(|_| {
        let files: Vec<_> = (0..300).map(|_| Closing::opening()).collect();
        let mut buffers = vec![[0u8; 9]; 300];
        let chains = files.iter().zip(&mut buffers).map(|(file, buf)| {
            let open = OpenAt::new("Cargo.toml").open_into(file);
            (open.link(), Read::new(file, buf).hard_link(), Close::new(file))
        });
        assert_eq!(aio::complete(chains.collect::<Vec<_>>()).unwrap().errors, 0);
        assert!(buffers.iter().all(|buf| buf == b"[package]"));
    });
}

#[test]
fn a_failing_open_skips_or_fails_the_rest_and_can_be_tried_again() {
    each_engine(|_| {
        let (file, mut x, mut y, mut z) = (Closing::opening(), [0u8; 4], [0u8; 4], [0u8; 4]);
        let missing = || OpenAt::new("no such file").open_into(&file);
        let done = aio::complete((missing().link(), Read::new(&file, &mut x).link(), Close::new(&file))).unwrap();
        assert_eq!(done.results, (os(libc::ENOENT), Err(Error::Skipped), Err(Error::Skipped)));
        let read = Read::new(&file, &mut y).hard_link();
        let done = aio::complete((missing().hard_link(), read, Close::new(&file))).unwrap();
        assert_eq!(done.results, (os(libc::ENOENT), os(libc::EBADF), os(libc::EBADF)));
        let open = OpenAt::new("Cargo.toml").open_into(&file);
        assert!(aio::multi((open.link(), Read::new(&file, &mut z).link(), Close::new(&file))).is_ok());
    });
}

#[test]
fn no_form_leaks_a_descriptor_whatever_fails() {
    in_own_process("no_form_leaks_a_descriptor_whatever_fails", || {
        for engine in engines() {
            eprintln!("on {}", engine.name);
            let run = || {
                leaks_no_descriptor(|| {
                    let (mut x, mut big, file) = ([0u8; 4], vec![0u8; 1 << 20], Closing::opening());
                    let open = |path: &'static str| OpenAt::new(path).open_into(&file);
                    let close = || Close::new(&file);
                    let _ = aio::complete((open("nowhere").link(), Read::new(&file, &mut x).link(), close()));
                    let _ = aio::complete((open("nowhere").hard_link(), Read::new(&file, &mut x).hard_link(), close()));
                    let _ = aio::complete((open("Cargo.toml").link(), Read::new(&file, &mut big[..]).link(), close()));
                    let _ =
                        aio::complete((open("Cargo.toml").link(), Read::new(&file, &mut big[..]).hard_link(), close()));
                    let _ = aio::complete((open("Cargo.toml").link(), Write::new(&file, b"x").link(), close()));
                    let _ =
                        aio::complete((open("Cargo.toml").hard_link(), Write::new(&file, b"x").hard_link(), close()));
                    let _ = aio::complete((open("Cargo.toml"), Read::new(&file, &mut x)));
                    let _ = aio::complete((open("Cargo.toml").link(), Nop::new(), close()));
                    let (output, input) = pipe();
                    let input = Closing::new(input);
                    let _ = aio::complete((Read::new(&input, &mut x).link(), Close::new(&input)));
                    let _ = aio::complete((Read::new(&input, &mut x).link(), Close::new(output)));
                    let _ = aio::multi((OpenAt::new("Cargo.toml"), Read::new(&input, &mut x)));
                });
            };
            leaks_no_descriptor(|| engine.config.run(run).unwrap());
        }
    });
}

#[test]
fn a_close_before_a_user_is_refused_for_the_user() {
    each_engine(|_| {
        let (_output, input) = pipe();
        let file = Closing::new(input);
        let done = aio::complete((Close::new(&file).hard_link(), Write::new(&file, b"x"))).unwrap();
        assert!(invalid(&done.results.1), "{done:?}");
        assert_eq!(done.results.0, Ok(()));
    });
}

#[test]
fn a_user_in_another_chain_keeps_the_close_from_running() {
    each_engine(|_| {
        let (output, input) = pipe();
        let file = Closing::new(input);
        let done = aio::complete((Write::new(&file, b"x"), Nop::new().link(), Close::new(&file))).unwrap();
        assert!(invalid(&done.results.2), "{done:?}");
        let done = aio::complete((Write::new(&file, b"y"), Write::new(&file, b"z").link(), Close::new(&file))).unwrap();
        assert!(invalid(&done.results.2), "{done:?}");
        let mut buf = [0u8; 8];
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(3), "still open, and all was written");
        assert_eq!(aio::multi((Write::new(&file, b"x").link(), Close::new(&file))), Ok((1, ())));
    });
}

#[test]
fn an_open_without_a_close_in_its_chain_is_refused() {
    each_engine(|_| {
        let (file, mut buf) = (Closing::opening(), [0u8; 4]);
        let open = || OpenAt::new("Cargo.toml").open_into(&file);
        let done = aio::complete((open().link(), Read::new(&file, &mut buf))).unwrap();
        assert!(invalid(&done.results.0), "{done:?}");
        assert_eq!(done.results.1, Err(Error::Skipped));
        let (alone, mut buf) = (Closing::opening(), [0u8; 4]);
        let done = aio::complete((OpenAt::new("Cargo.toml").open_into(&alone), Read::new(&alone, &mut buf))).unwrap();
        assert!(invalid(&done.results.0) && invalid(&done.results.1), "{done:?}");
    });
}

#[test]
fn a_misused_opening_can_be_used_rightly_afterwards() {
    each_engine(|_| {
        let (file, mut buf) = (Closing::opening(), [0u8; 9]);
        let _ = aio::complete((OpenAt::new("Cargo.toml").open_into(&file).link(), Read::new(&file, &mut buf)));
        let open = OpenAt::new("Cargo.toml").open_into(&file);
        let again = aio::multi((open.link(), Read::new(&file, &mut buf).link(), Close::new(&file)));
        assert_eq!(again, Ok(((), 9, ())));
    });
}

#[test]
fn a_batch_that_could_not_start_leaves_its_closing_as_it_was() {
    each_engine(|engine| {
        let (output, input) = pipe();
        let file = Closing::new(input);
        let n = Nop::new();
        let tight = engine
            .config
            .entries(2)
            .run(|| aio::complete((Write::new(&file, b"x").link(), n.link(), n.link(), Close::new(&file))));
        assert!(tight.unwrap().is_err());
        assert_eq!(aio::multi((Write::new(&file, b"x").link(), Close::new(&file))), Ok((1, ())));
        let mut buf = [0u8; 4];
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(1));
    });
}

#[test]
fn using_what_is_closed_or_was_never_open_is_refused() {
    each_engine(|_| {
        let (file, mut buf) = (Closing::opening(), [0u8; 4]);
        assert!(invalid(&aio::single(Read::new(&file, &mut buf))));
        assert!(invalid(&aio::single(Close::new(&file))));
        let file = Closing::new(File::open("Cargo.toml").unwrap());
        assert_eq!(aio::single(Close::new(&file)), Ok(()));
        assert!(invalid(&aio::single(Read::new(&file, &mut buf))));
        assert!(invalid(&aio::single(Close::new(&file))), "it must not close whatever has the number now");
    });
}
