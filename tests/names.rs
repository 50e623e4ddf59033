//! Operations on names: opening, renaming, removing, linking, asking.

mod common;

use aio::{Error, op::*};
use common::{each_engine, fifo, os};
use std::{
    ffi::CString,
    fs::{self, File},
    io::Write as _,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A directory with a descriptor of it.
fn dir() -> (tempfile::TempDir, File) {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    (dir, fd)
}

fn errno<T: std::fmt::Debug>(result: aio::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn open_flags_do_what_they_say() {
    each_engine(|_| {
        let (dir, fd) = dir();
        let open = |flags: OpenFlags| aio::single(OpenAt::new("f").dir(&fd).flags(flags).mode(0o640)).map(File::from);
        let create = OpenFlags::CREATE | OpenFlags::WRITE_ONLY;
        assert_eq!(errno(open(OpenFlags::empty())), Some(libc::ENOENT));
        open(create | OpenFlags::EXCLUSIVE).unwrap().write_all(b"one").unwrap();
        assert_eq!(dir.path().join("f").metadata().unwrap().permissions().mode() & 0o777, 0o640 & !umask());
        assert_eq!(errno(open(create | OpenFlags::EXCLUSIVE)), Some(libc::EEXIST));
        open(OpenFlags::WRITE_ONLY | OpenFlags::APPEND).unwrap().write_all(b"two").unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"onetwo");
        open(OpenFlags::READ_WRITE | OpenFlags::TRUNCATE).unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"");
        assert_eq!(errno(open(OpenFlags::DIRECTORY)), Some(libc::ENOTDIR));
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        let link = OpenAt::new("link").dir(&fd).flags(OpenFlags::NO_FOLLOW);
        assert_eq!(errno(aio::single(link)), Some(libc::ELOOP));
        let both = open(OpenFlags::WRITE_ONLY | OpenFlags::READ_WRITE);
        assert!(matches!(both, Err(Error::Invalid(_))));
    });
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(mask.trim(), 8).unwrap()
}

#[test]
fn what_is_opened_is_closed_on_exec_unless_told_otherwise() {
    each_engine(|_| {
        let (usual, kept) = aio::multi((OpenAt::new("Cargo.toml"), OpenAt::new("Cargo.toml").inheritable())).unwrap();
        // SAFETY: reads flags of descriptors that are open.
        let flags = |fd: i32| unsafe { libc::fcntl(fd, libc::F_GETFD) };
        assert_eq!(flags(usual.as_raw_fd()) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        assert_eq!(flags(kept.as_raw_fd()) & libc::FD_CLOEXEC, 0);
    });
}

#[test]
fn paths_may_be_given_in_every_form() {
    each_engine(|_| {
        let (text, c) = (String::from("Cargo.toml"), CString::new("Cargo.toml").unwrap());
        aio::multi((
            (OpenAt::new("Cargo.toml"), OpenAt::new(&text), OpenAt::new(text.clone()), OpenAt::new(c.as_c_str())),
            (OpenAt::new(Path::new("Cargo.toml")), OpenAt::new(PathBuf::from("Cargo.toml"))),
            OpenAt::new(std::ffi::OsStr::new("Cargo.toml")),
        ))
        .unwrap();
    });
}

#[test]
fn paths_may_be_long_but_not_too_long_nor_hold_a_nul() {
    each_engine(|_| {
        let (dir, fd) = dir();
        // Around the length up to which a path is kept inline.
        for len in [254, 255, 256, 257, 300, 3000] {
            let path = format!("{}f", "./".repeat(len)).split_off(len + 1);
            assert!(path.len() >= len);
            let path = if path.starts_with('/') { format!(".{path}") } else { path };
            let flags = OpenFlags::CREATE | OpenFlags::WRITE_ONLY;
            aio::single(OpenAt::new(&path).dir(&fd).flags(flags)).unwrap();
            aio::single(UnlinkAt::new(path).dir(&fd)).unwrap();
        }
        let (name, path) = ("x".repeat(256), "x/".repeat(3000));
        assert_eq!(errno(aio::single(OpenAt::new(&name))), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(aio::single(OpenAt::new(&path))), Some(libc::ENAMETOOLONG));
        assert_eq!(aio::single(MkDirAt::new(&path)), os(libc::ENAMETOOLONG));
        let nul = "a\0b";
        let done = aio::complete((
            (OpenAt::new(nul), Statx::new(nul), UnlinkAt::new(nul), MkDirAt::new(nul)),
            (RenameAt::new(nul, "x"), RenameAt::new("x", nul), SymlinkAt::new("x", nul), LinkAt::new("x", nul)),
        ))
        .unwrap();
        assert_eq!(done.errors, 8);
        let (open, rename) = (done.results.0.0.unwrap_err(), done.results.1.1.unwrap_err());
        assert!(matches!((open, rename), (Error::Invalid(_), Error::Invalid(_))));
        assert!(open.to_string().contains("NUL"), "{open}");
        drop(dir);
    });
}

#[test]
fn rename_replaces_or_not_or_exchanges() {
    each_engine(|_| {
        let (dir, fd) = dir();
        let path = |name| dir.path().join(name);
        fs::write(path("a"), "1").unwrap();
        fs::write(path("b"), "2").unwrap();
        let rename = |from: &'static str, to: &'static str, flags| {
            aio::single(RenameAt::new(from, to).from_dir(&fd).to_dir(&fd).flags(flags))
        };
        assert_eq!(rename("a", "b", RenameFlags::NO_REPLACE), os(libc::EEXIST));
        assert_eq!(rename("a", "b", RenameFlags::EXCHANGE), Ok(()));
        assert_eq!((fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap()), (b"2".to_vec(), b"1".to_vec()));
        assert_eq!(rename("a", "b", RenameFlags::empty()), Ok(()));
        assert_eq!(fs::read(path("b")).unwrap(), b"2");
        assert_eq!(rename("a", "b", RenameFlags::empty()), os(libc::ENOENT));
        assert_eq!(rename("b", "c", RenameFlags::NO_REPLACE), Ok(()));
        assert_eq!(rename("c", "d", RenameFlags::EXCHANGE), os(libc::ENOENT));
        assert!(path("c").exists() && !path("b").exists());
    });
}

#[test]
fn unlink_removes_files_and_empty_directories() {
    each_engine(|_| {
        let (dir, fd) = dir();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "").unwrap();
        let sub = || UnlinkAt::new("sub").dir(&fd);
        assert_eq!(aio::single(sub()), os(libc::EISDIR));
        assert_eq!(aio::single(sub().directory()), os(libc::ENOTEMPTY));
        assert_eq!(aio::single(UnlinkAt::new("sub/file").dir(&fd).directory()), os(libc::ENOTDIR));
        assert_eq!(aio::multi((UnlinkAt::new("sub/file").dir(&fd).link(), sub().directory())), Ok(((), ())));
        assert_eq!(aio::single(sub()), os(libc::ENOENT));
    });
}

#[test]
fn mkdir_makes_directories_with_a_mode() {
    each_engine(|_| {
        let (dir, fd) = dir();
        assert_eq!(aio::single(MkDirAt::new("sub").dir(&fd).mode(0o700)), Ok(()));
        assert_eq!(dir.path().join("sub").metadata().unwrap().permissions().mode() & 0o777, 0o700 & !umask());
        assert_eq!(aio::single(MkDirAt::new("sub").dir(&fd)), os(libc::EEXIST));
        assert_eq!(aio::single(MkDirAt::new("x/y").dir(&fd)), os(libc::ENOENT));
        let chain = (MkDirAt::new("x").dir(&fd).link(), MkDirAt::new("x/y").dir(&fd));
        assert_eq!(aio::multi(chain), Ok(((), ())));
    });
}

#[test]
fn links_symbolic_and_hard() {
    each_engine(|_| {
        let (dir, fd) = dir();
        let path = |name| dir.path().join(name);
        assert_eq!(aio::single(SymlinkAt::new("file", "soft").dir(&fd)), Ok(()), "its target need not exist");
        assert_eq!(aio::single(SymlinkAt::new("file", "soft").dir(&fd)), os(libc::EEXIST));
        assert_eq!(fs::read_link(path("soft")).unwrap(), Path::new("file"));
        let link = |from: &'static str, to: &'static str| LinkAt::new(from, to).from_dir(&fd).to_dir(&fd);
        assert_eq!(aio::single(link("file", "hard")), os(libc::ENOENT));
        fs::write(path("file"), "x").unwrap();
        assert_eq!(
            aio::multi((link("file", "hard"), link("soft", "same"), link("soft", "followed").follow())),
            Ok(((), (), ()))
        );
        assert_eq!(path("hard").metadata().unwrap().nlink(), 3);
        assert!(path("same").symlink_metadata().unwrap().is_symlink());
        assert!(path("followed").symlink_metadata().unwrap().is_file());
    });
}

#[test]
fn statx_agrees_with_the_system() {
    each_engine(|_| {
        let (dir, fd) = dir();
        let path = dir.path().join("f");
        fs::write(&path, b"12345").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        let file = File::open(&path).unwrap();
        let expected = path.metadata().unwrap();
        let by_path = Statx::new("f").dir(&fd);
        let followed = Statx::new("link").dir(&fd);
        let (by_path, by_fd, followed) = aio::multi((by_path, Statx::of(&file), followed)).unwrap();
        for stat in [by_path, by_fd, followed] {
            assert_eq!((stat.len(), stat.inode(), stat.links()), (5, expected.ino(), 1));
            assert_eq!((stat.user(), stat.group(), stat.blocks()), (expected.uid(), expected.gid(), expected.blocks()));
            assert_eq!((stat.file_type(), stat.permissions()), (FileType::Regular, expected.mode() & 0o7777));
            assert_eq!(SystemTime::from(stat.modified()), expected.modified().unwrap());
            assert!(stat.mask().contains(StatxMask::BASIC));
        }
        let link = aio::single(Statx::new("link").dir(&fd).flags(StatxFlags::NO_FOLLOW)).unwrap();
        assert_eq!(link.file_type(), FileType::Symlink);
        assert_eq!(aio::single(Statx::of(&fd)).unwrap().file_type(), FileType::Directory);
        let null = aio::single(Statx::new("/dev/null").mask(StatxMask::TYPE)).unwrap();
        assert_eq!(
            null.file_type() == FileType::CharDevice,
            fs::metadata("/dev/null").unwrap().file_type().is_char_device()
        );
        assert_eq!(errno(aio::single(Statx::new("nowhere").dir(&fd)).map(|_| ())), Some(libc::ENOENT));
    });
}

#[test]
fn relative_paths_start_from_the_current_directory_or_the_one_given() {
    each_engine(|_| {
        let src = File::open("src").unwrap();
        assert!(aio::single(OpenAt::new("lib.rs").dir(&src)).is_ok());
        assert!(aio::single(OpenAt::new("src/lib.rs").dir(CURRENT_DIR)).is_ok());
        assert!(aio::single(OpenAt::new("/proc/self/status").dir(&src)).is_ok(), "an absolute path needs none");
        let file = File::open("Cargo.toml").unwrap();
        assert_eq!(errno(aio::single(OpenAt::new("lib.rs").dir(file.as_fd()))), Some(libc::ENOTDIR));
    });
}

#[test]
fn opening_a_fifo_for_writing_waits_for_a_reader_unless_told_not_to() {
    each_engine(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(&dir);
        let open = |flags| OpenAt::new(&path).flags(OpenFlags::WRITE_ONLY | flags);
        assert_eq!(errno(aio::single(open(OpenFlags::NONBLOCK))), Some(libc::ENXIO));
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(10));
                // Whether somebody writes or not, this does not hang.
                let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
                std::thread::sleep(Duration::from_millis(50));
                drop(reader);
            });
            let opened = aio::single(open(OpenFlags::empty()));
            assert!(opened.is_ok(), "{opened:?}");
        });
    });
}

#[test]
fn a_close_really_closes() {
    each_engine(|_| {
        let (output, input) = common::pipe();
        let (event, mut buf) = (EventSource::new().unwrap(), [0u8; 1]);
        let file = File::open("Cargo.toml").unwrap();
        assert_eq!(aio::multi((Close::new(input), Close::new(event), Close::new(file))), Ok(((), (), ())));
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(0));
    });
}
