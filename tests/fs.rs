//! Files and directories, in the shape of the standard library.

mod common;

use aio::fs::{self, File, FileType, OpenOptions};
use common::{each_backend, each_engine, in_own_process, leaks_no_descriptor};
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, ErrorKind, IoSlice, IoSliceMut, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::{Duration, UNIX_EPOCH},
};
use tempfile::tempdir;

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("succeeded"),
        Err(error) => error.kind(),
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_is_written_is_read() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..300_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for len in [0, 1, 31, 32, 33, 8192, 300_000] {
            fs::write(&path, &bytes[..len]).unwrap();
            assert_eq!(fs::read(&path).unwrap(), &bytes[..len], "{len} bytes");
        }
        fs::write(&path, "short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
    });
}

#[test]
fn reading_to_the_end_appends_from_the_position_on() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::Start(4)).unwrap();
        let mut bytes = b">".to_vec();
        assert_eq!(file.read_to_end(&mut bytes).unwrap(), 6);
        assert_eq!(bytes, b">456789");
        assert_eq!(file.read_to_end(&mut bytes).unwrap(), 0);
        file.rewind().unwrap();
        let mut text = "text: ".to_owned();
        assert_eq!(file.read_to_string(&mut text).unwrap(), 10);
        assert_eq!(text, "text: 0123456789");
    });
}

#[test]
fn files_without_a_length_are_read_to_their_end() {
    each_backend(|_| {
        let (ours, theirs) = (fs::read("/proc/self/status").unwrap(), std::fs::read("/proc/self/status").unwrap());
        assert_eq!(ours.split(|b| *b == b'\n').next(), theirs.split(|b| *b == b'\n').next());
        assert!(ours.len() > 500, "{} bytes", ours.len());
    });
}

#[test]
fn what_is_no_text_is_told_and_leaves_the_string_alone() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"abc\xff").unwrap();
        assert_eq!(kind(fs::read_to_string(&path)), ErrorKind::InvalidData);
        let mut text = "before".to_owned();
        assert_eq!(kind(File::open(&path).unwrap().read_to_string(&mut text)), ErrorKind::InvalidData);
        assert_eq!(text, "before");
    });
}

#[test]
fn bad_paths_are_refused() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let (missing, file) = (dir.path().join("missing"), dir.path().join("file"));
        fs::write(&file, "x").unwrap();
        let below = file.join("below");
        for (path, expected) in [
            (&missing, ErrorKind::NotFound),
            (&below, ErrorKind::NotADirectory),
            (&PathBuf::from(""), ErrorKind::NotFound),
            (&PathBuf::from("a\0b"), ErrorKind::InvalidInput),
        ] {
            assert_eq!(kind(File::open(path)), expected, "open {path:?}");
            assert_eq!(kind(fs::read(path)), expected, "read {path:?}");
            assert_eq!(kind(fs::metadata(path)), expected, "metadata {path:?}");
            assert_eq!(kind(fs::symlink_metadata(path)), expected, "symlink_metadata {path:?}");
            assert_eq!(kind(fs::remove_file(path)), expected, "remove_file {path:?}");
            assert_eq!(kind(fs::remove_dir(path)), expected, "remove_dir {path:?}");
            assert_eq!(kind(fs::remove_dir_all(path)), expected, "remove_dir_all {path:?}");
            assert_eq!(kind(fs::read_dir(path)), expected, "read_dir {path:?}");
            assert_eq!(kind(fs::read_link(path)), expected, "read_link {path:?}");
            assert_eq!(kind(fs::canonicalize(path)), expected, "canonicalize {path:?}");
            assert_eq!(kind(fs::copy(path, &missing)), expected, "copy {path:?}");
            assert_eq!(kind(fs::rename(path, &missing)), expected, "rename {path:?}");
            assert_eq!(kind(fs::hard_link(path, &missing)), expected, "hard_link {path:?}");
            let permissions = fs::Permissions::from_mode(0o600);
            assert_eq!(kind(fs::set_permissions(path, permissions)), expected, "set_permissions {path:?}");
        }
        assert_eq!(kind(fs::symlink("target", "a\0b")), ErrorKind::InvalidInput);
        assert_eq!(kind(fs::create_dir_all("a\0b")), ErrorKind::InvalidInput);
        assert!(!missing.exists());
        assert!(!fs::exists(&missing).unwrap());
        assert!(fs::exists(&file).unwrap());
        assert_eq!(kind(fs::exists(&below)), ErrorKind::NotADirectory);
    });
}

#[test]
fn a_directory_is_not_a_file() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        assert_eq!(kind(fs::read(dir.path())), ErrorKind::IsADirectory);
        assert_eq!(kind(fs::write(dir.path(), "x")), ErrorKind::IsADirectory);
        assert_eq!(kind(fs::copy(dir.path(), dir.path().join("copy"))), ErrorKind::InvalidInput);
        assert_eq!(kind(fs::read_link(dir.path())), ErrorKind::InvalidInput);
        assert!(!dir.path().join("copy").exists());
    });
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        let mut refused = [
            OpenOptions::new(),
            OpenOptions::new().read(true).create(true).clone(),
            OpenOptions::new().read(true).truncate(true).clone(),
            OpenOptions::new().create_new(true).clone(),
            OpenOptions::new().append(true).truncate(true).clone(),
        ];
        for options in &mut refused {
            assert_eq!(kind(options.open(&path)), ErrorKind::InvalidInput, "{options:?}");
        }
        assert!(!path.exists());
    });
}

#[test]
fn options_do_what_they_say() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(kind(OpenOptions::new().write(true).open(&path)), ErrorKind::NotFound);
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        new.write_all(b"0123").unwrap();
        assert_eq!(kind(File::create_new(&path)), ErrorKind::AlreadyExists);
        assert!(new.read(&mut [0u8; 1]).is_err(), "open for writing only");
        assert!(File::open(&path).unwrap().write(b"x").is_err(), "open for reading only");

        let mut over = OpenOptions::new().write(true).create(true).open(&path).unwrap();
        over.write_all(b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x123");
        File::options().write(true).truncate(true).open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");

        let link = dir.path().join("link");
        fs::symlink(&path, &link).unwrap();
        let no_follow = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&link);
        assert_eq!(no_follow.unwrap_err().raw_os_error(), Some(libc::ELOOP));
        // The access mode comes from the choices alone.
        let mut reading = File::options().read(true).custom_flags(libc::O_WRONLY).open(&path).unwrap();
        assert_eq!(reading.read(&mut [0u8; 1]).unwrap(), 0);
        // SAFETY: asks for a flag of an open descriptor.
        assert_eq!(unsafe { libc::fcntl(reading.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
    });
}

#[test]
fn appending_goes_to_the_end_whatever_the_position() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("log");
        let open = || OpenOptions::new().read(true).append(true).create(true).open(&path).unwrap();
        let (mut a, mut b) = (open(), open());
        a.write_all(b"one,").unwrap();
        b.write_all(b"two,").unwrap();
        a.seek(SeekFrom::Start(0)).unwrap();
        a.write_all(b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one,two,three");
        a.rewind().unwrap();
        let mut start = [0u8; 3];
        a.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"one");
    });
}

#[test]
fn the_position_moves_as_in_the_standard_library() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        assert_eq!(file.seek(SeekFrom::End(-3)).unwrap(), 7);
        let mut byte = [0u8; 1];
        file.read_exact(&mut byte).unwrap();
        assert_eq!((&byte, file.stream_position().unwrap()), (b"7", 8));
        assert_eq!(file.seek(SeekFrom::Current(-8)).unwrap(), 0);
        assert_eq!(kind(file.seek(SeekFrom::Current(-1))), ErrorKind::InvalidInput);
        assert_eq!(kind(file.seek(SeekFrom::End(-11))), ErrorKind::InvalidInput);
        assert_eq!(file.stream_position().unwrap(), 0, "a refused seek changes nothing");
        assert_eq!(file.seek(SeekFrom::End(2)).unwrap(), 12);
        assert_eq!(file.read(&mut byte).unwrap(), 0);
        file.write_all(b"!").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"0123456789\0\0!");
        // Clones share the position, references too.
        let mut clone = file.try_clone().unwrap();
        clone.rewind().unwrap();
        (&file).read_exact(&mut byte).unwrap();
        assert_eq!((&byte, clone.stream_position().unwrap()), (b"0", 1));
    });
}

#[test]
fn transfers_at_an_offset_leave_the_position_alone() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let mut file = File::create_new(dir.path().join("file")).unwrap();
        file.write_all(b"0123456789").unwrap();
        file.seek(SeekFrom::Start(3)).unwrap();
        file.write_all_at(b"abc", 8).unwrap();
        let mut buf = [0u8; 4];
        file.read_exact_at(&mut buf, 7).unwrap();
        assert_eq!(&buf, b"7abc");
        assert_eq!(file.read_at(&mut buf, 9).unwrap(), 2);
        assert_eq!(kind(file.read_exact_at(&mut buf, 9)), ErrorKind::UnexpectedEof);
        assert_eq!(file.write_at(b"", 100).unwrap(), 0);
        for offset in [u64::MAX, 1 << 63] {
            assert_eq!(kind(file.read_at(&mut buf, offset)), ErrorKind::InvalidInput);
            assert_eq!(kind(file.write_at(b"x", offset)), ErrorKind::InvalidInput);
            assert_eq!(kind(file.set_len(offset)), ErrorKind::InvalidInput);
            assert_eq!(kind(file.seek(SeekFrom::Start(offset))), ErrorKind::InvalidInput);
        }
        assert_eq!(file.stream_position().unwrap(), 3);
        assert_eq!(file.metadata().unwrap().len(), 11);
    });
}

#[test]
fn vectored_transfers_take_as_many_parts_as_fit() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        let mut file = File::create_new(dir.path().join("file")).unwrap();
        let parts: Vec<_> = (0..1500).map(|_| IoSlice::new(b"ab")).collect();
        assert_eq!(file.write_vectored(&parts).unwrap(), 2048, "1024 parts are one operation's limit");
        assert_eq!(file.write_vectored(&[]).unwrap(), 0);
        file.rewind().unwrap();
        let (mut a, mut b) = ([0u8; 3], [0u8; 2]);
        let count = file.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap();
        assert_eq!((count, &a, &b), (5, b"aba", b"ba"));
    });
}

#[test]
fn length_durability_and_permissions() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = File::create_new(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        file.sync_data().unwrap();
        file.set_len(4).unwrap();
        file.sync_all().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"0123");
        file.set_len(6).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"0123\0\0");
        assert!(File::open(&path).unwrap().set_len(0).is_err(), "not open for writing");
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(mode(&path), 0o640);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
        assert_eq!((mode(&path), file.metadata().unwrap().mode()), (0o4711, 0o104711));
        file.close().unwrap();
    });
}

#[test]
fn metadata_is_what_the_standard_library_says() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&path, "12345").unwrap();
        fs::symlink("file", &link).unwrap();
        fs::hard_link(&path, dir.path().join("second")).unwrap();
        // Who may, gives it to somebody else, for the superuser's own numbers are 0.
        let given = std::os::unix::fs::chown(&path, Some(12_345), Some(54_321)).is_ok();
        let about = fs::metadata(&path).unwrap();
        assert_eq!((about.uid(), about.gid()) == (12_345, 54_321), given);
        for path in [dir.path(), &path, &link] {
            let (ours, theirs) = (fs::metadata(path).unwrap(), std::fs::metadata(path).unwrap());
            assert_eq!((ours.len(), ours.mode(), ours.ino()), (theirs.len(), theirs.mode(), theirs.ino()));
            assert_eq!((ours.uid(), ours.gid()), (theirs.uid(), theirs.gid()));
            assert_eq!((ours.nlink(), ours.blocks()), (theirs.nlink(), theirs.blocks()));
            assert_eq!(ours.blksize(), theirs.blksize());
            assert_eq!(ours.permissions(), theirs.permissions());
            assert_eq!(ours.modified().unwrap(), theirs.modified().unwrap());
            assert_eq!(ours.accessed().unwrap(), theirs.accessed().unwrap());
            assert_eq!(ours.created().ok(), theirs.created().ok());
            let changed = ours.changed().unwrap().duration_since(UNIX_EPOCH).unwrap();
            let theirs_changed = Duration::new(theirs.ctime() as u64, theirs.ctime_nsec() as u32);
            assert_eq!(changed, theirs_changed);
            #[cfg(target_os = "linux")]
            assert_eq!(ours.device(), (libc::major(theirs.dev()), libc::minor(theirs.dev())));
            assert_eq!((ours.is_file(), ours.is_dir()), (theirs.is_file(), theirs.is_dir()));
            assert!(!ours.is_symlink(), "it was followed");
            let shown = format!("{ours:?}");
            assert!(shown.contains(&format!("mode: {:#o}, len: {}, ino: {}", ours.mode(), ours.len(), ours.ino())));
        }
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
        let link = fs::symlink_metadata(&link).unwrap();
        assert!(link.is_symlink() && !link.is_file() && link.len() == 4);
        assert_eq!(fs::metadata("/dev/null").unwrap().file_type(), FileType::CharDevice);
        assert_eq!(File::open(&path).unwrap().metadata().unwrap().len(), 5);
    });
}

#[test]
fn the_mode_says_what_kind_of_file_it_is() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let fifo = common::fifo(&dir);
        let all = [
            (&*fifo, FileType::Fifo),
            (&*socket, FileType::Socket),
            (Path::new("/dev/null"), FileType::CharDevice),
            (dir.path(), FileType::Directory),
        ];
        for (path, kind) in all {
            let ours = fs::metadata(path).unwrap();
            assert_eq!((ours.file_type(), ours.mode()), (kind, std::fs::metadata(path).unwrap().mode()));
            assert!(!ours.is_file() && ours.is_dir() == (kind == FileType::Directory));
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_time_that_the_file_system_does_not_know_is_an_error() {
    each_engine(|_| {
        let about = fs::metadata("/proc/self").unwrap();
        assert_eq!(kind(about.created()), ErrorKind::Unsupported);
        assert!(about.modified().is_ok());
    });
}

#[test]
fn names_are_renamed_linked_and_removed() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let at = |name| dir.path().join(name);
        fs::write(at("a"), "a").unwrap();
        fs::write(at("b"), "b").unwrap();
        fs::rename(at("a"), at("b")).unwrap();
        assert!(!fs::exists(at("a")).unwrap() && fs::exists(at("b")).unwrap());
        assert_eq!(kind(fs::exists(at("b").join("c"))), ErrorKind::NotADirectory, "that is not known");
        assert_eq!(fs::read(at("b")).unwrap(), b"a");
        fs::hard_link(at("b"), at("c")).unwrap();
        assert_eq!(kind(fs::hard_link(at("b"), at("c"))), ErrorKind::AlreadyExists);
        fs::symlink("c", at("d")).unwrap();
        assert_eq!(fs::read_link(at("d")).unwrap(), Path::new("c"));
        assert_eq!(fs::read(at("d")).unwrap(), b"a");
        assert_eq!(fs::canonicalize(at("d")).unwrap(), std::fs::canonicalize(at("c")).unwrap());
        fs::remove_file(at("c")).unwrap();
        assert_eq!(kind(fs::metadata(at("d"))), ErrorKind::NotFound);
        assert!(!fs::exists(at("d")).unwrap(), "a link that leads nowhere");
        fs::remove_file(at("d")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        assert_eq!(kind(fs::create_dir(at("dir"))), ErrorKind::AlreadyExists);
        assert!(fs::remove_file(at("dir")).is_err());
        assert_eq!(kind(fs::remove_dir(at("b"))), ErrorKind::NotADirectory);
        fs::remove_dir(at("dir")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    });
}

#[test]
fn a_copy_has_the_contents_and_the_permissions() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let bytes: Vec<u8> = (0..1_000_000u32).map(|i| ((i * 7) >> 4) as u8).collect();
        fs::write(&from, &bytes).unwrap();
        for permissions in [0o751, 0o444, 0o666] {
            fs::set_permissions(&from, fs::Permissions::from_mode(permissions)).unwrap();
            assert_eq!(fs::copy(&from, &to).unwrap(), bytes.len() as u64);
            assert_eq!(mode(&to), permissions, "whatever the umask");
            assert!(fs::read(&to).unwrap() == bytes);
            fs::remove_file(&to).unwrap();
        }
        fs::write(&to, vec![1; 2_000_000]).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::copy(&from, &to).unwrap(), bytes.len() as u64);
        assert!(fs::read(&to).unwrap() == bytes, "what it held is gone");
        assert_eq!(mode(&to), 0o666);
        assert!(fs::copy("/proc/self/status", &to).unwrap() > 500, "a file that says its length is 0");
    });
}

#[test]
fn a_file_is_not_copied_onto_itself() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "precious").unwrap();
        fs::symlink("file", &link).unwrap();
        for to in [&file, &link] {
            assert_eq!(kind(fs::copy(&file, to)), ErrorKind::InvalidInput);
            assert_eq!(fs::read(&file).unwrap(), b"precious");
        }
    });
}

#[test]
fn all_missing_directories_are_made() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let deep = dir.path().join("a/b/c/d");
        fs::create_dir_all(&deep).unwrap();
        assert!(deep.is_dir());
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all("").unwrap();
        fs::create_dir_all("/").unwrap();
        fs::create_dir_all(dir.path().join("x/../y/.")).unwrap();
        assert!(dir.path().join("x").is_dir() && dir.path().join("y").is_dir());
        // A link to a directory is as good; one that leads nowhere is in the way.
        fs::symlink("a", dir.path().join("link")).unwrap();
        fs::create_dir_all(dir.path().join("link/z")).unwrap();
        assert!(dir.path().join("a/z").is_dir());
        fs::symlink("nowhere", dir.path().join("broken")).unwrap();
        assert_eq!(kind(fs::create_dir_all(dir.path().join("broken"))), ErrorKind::AlreadyExists);
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(kind(fs::create_dir_all(dir.path().join("file"))), ErrorKind::AlreadyExists);
        assert_eq!(kind(fs::create_dir_all(dir.path().join("file/a/b"))), ErrorKind::NotADirectory);
    });
}

#[test]
fn directories_that_others_make_at_the_same_time_are_no_error() {
    const THREADS: usize = 4;
    let dir = tempdir().unwrap();
    for round in 0..20 {
        let deep = dir.path().join(format!("{round}/a/b/c/d/e"));
        let start = Barrier::new(THREADS);
        thread::scope(|s| {
            for _ in 0..THREADS {
                s.spawn(|| {
                    start.wait();
                    fs::create_dir_all(&deep).unwrap();
                    assert!(deep.is_dir());
                });
            }
        });
    }
}

#[test]
fn all_entries_of_a_large_directory_are_seen_once() {
    let dir = tempdir().unwrap();
    let expected: BTreeSet<String> = (0..2345).map(|i| format!("entry {i}")).collect();
    for name in &expected {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    each_engine(|_| {
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(entry.path(), dir.path().join(&name));
            assert!(seen.insert(name), "{entry:?} twice");
        }
        assert!(seen == expected, "{} entries", seen.len());
    });
}

#[test]
fn entries_know_what_they_are() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("file"), "12345").unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        fs::symlink("dir", dir.path().join("link")).unwrap();
        let fifo = common::fifo(&dir);
        let mut entries: Vec<_> = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(|entry| entry.file_name());
        let types: Vec<_> = entries.iter().map(|entry| entry.file_type().unwrap()).collect();
        assert_eq!(types, [FileType::Directory, FileType::Fifo, FileType::Regular, FileType::Symlink]);
        assert_eq!(entries[2].metadata().unwrap().len(), 5);
        assert!(entries[3].metadata().unwrap().is_symlink());
        assert_eq!(entries[2].ino(), entries[2].metadata().unwrap().ino());
        fs::remove_file(&fifo).unwrap();
        assert_eq!(kind(entries[1].metadata()), ErrorKind::NotFound);
    });
}

#[test]
fn removing_all_of_a_directory_follows_no_link() {
    each_engine(|_| {
        let (dir, outside) = (tempdir().unwrap(), tempdir().unwrap());
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/file"), "").unwrap();
        fs::symlink(outside.path(), tree.join("a/link")).unwrap();
        fs::symlink("/nowhere", tree.join("a/b/broken")).unwrap();
        assert_eq!(kind(fs::remove_dir(&tree)), ErrorKind::DirectoryNotEmpty);
        fs::remove_dir_all(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
        // The directory itself may be a link.
        fs::symlink(outside.path(), &tree).unwrap();
        fs::remove_dir_all(&tree).unwrap();
        assert!(std::fs::symlink_metadata(&tree).is_err());
        assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
    });
}

#[test]
fn a_file_is_what_the_standard_traits_want() {
    each_backend(|_| {
        let dir = tempdir().unwrap();
        let path = dir.path().join("file");
        let mut writer = std::io::BufWriter::new(File::create(&path).unwrap());
        (0..1000).for_each(|i| writeln!(writer, "line {i}").unwrap());
        writer.into_inner().unwrap().sync_all().unwrap();
        let lines = BufReader::new(File::open(&path).unwrap()).lines();
        assert!(lines.enumerate().all(|(i, line)| line.unwrap() == format!("line {i}")));

        let std_file: std::fs::File = File::open(&path).unwrap().into();
        let fd: OwnedFd = File::from(std_file).into();
        let number = fd.as_raw_fd();
        let file = File::from(fd);
        assert_eq!(file.as_raw_fd(), number);
        assert!(format!("{file:?}").contains("file"), "{file:?}");
        let number = file.into_raw_fd();
        // SAFETY: it was given up just now, and nobody else knows the number.
        assert!(File::from(unsafe { OwnedFd::from_raw_fd(number) }).metadata().unwrap().is_file());
    });
}

#[test]
fn the_times_of_a_file_can_be_set() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        let then = UNIX_EPOCH + Duration::new(1_000_000_000, 5000);
        file.set_modified(then).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), then);
        let later = then + Duration::from_secs(1);
        file.set_times(fs::FileTimes::new().set_accessed(later)).unwrap();
        let about = file.metadata().unwrap();
        assert_eq!((about.accessed().unwrap(), about.modified().unwrap()), (later, then));
    });
}

#[test]
fn a_fifo_is_waited_for() {
    each_engine(|_| {
        let dir = tempdir().unwrap();
        let path = common::fifo(&dir);
        thread::scope(|s| {
            s.spawn(|| {
                let mut writer = common::open_writer(&path, || false).unwrap();
                std::io::Write::write_all(&mut writer, b"through ").unwrap();
                thread::sleep(Duration::from_millis(10));
                std::io::Write::write_all(&mut writer, b"a fifo").unwrap();
            });
            assert_eq!(fs::read_to_string(&path).unwrap(), "through a fifo");
        });
    });
}

#[test]
fn nothing_leaks_a_descriptor() {
    in_own_process("nothing_leaks_a_descriptor", || {
        each_backend(|_| {
            leaks_no_descriptor(|| {
                let dir = tempdir().unwrap();
                let path = dir.path().join("file");
                fs::write(&path, "x").unwrap();
                let file = File::open(&path).unwrap();
                let clone = file.try_clone().unwrap();
                clone.close().unwrap();
                fs::copy(&path, dir.path().join("copy")).unwrap();
                assert!(fs::copy(&path, &path).is_err());
                assert!(fs::copy(&path, dir.path().join("no/copy")).is_err());
                fs::create_dir_all(dir.path().join("a/b")).unwrap();
                (0..600).for_each(|i| fs::write(dir.path().join(format!("a/{i}")), "").unwrap());
                // Given up in the middle.
                assert!(fs::read_dir(dir.path().join("a")).unwrap().next().is_some());
                fs::remove_dir_all(dir.path().join("a")).unwrap();
            });
        });
    });
}
