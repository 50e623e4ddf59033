//! Operations on files: reading, writing, storage.

mod common;

use aio::{Error, Shared, op::*, spare};
use common::{each_engine, file_with, os, pipe, write_only};
use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Read as _, Seek as _, SeekFrom, Write as _},
    mem::MaybeUninit,
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// For what must not wait at all.
const PATIENCE: Duration = Duration::from_secs(5);
const TWO_GIB: usize = 2 << 30;

fn contents(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn reads_and_writes_at_an_offset_leave_the_position_alone() {
    each_engine(|_| {
        let (mut file, mut buf) = (file_with(b"0123456789"), [0u8; 4]);
        file.seek(SeekFrom::Start(2)).unwrap();
        assert_eq!(aio::single(Read::new(&file, &mut buf).at(5)), Ok(4));
        assert_eq!(&buf, b"5678");
        assert_eq!(aio::single(Write::new(&file, b"xy").at(0)), Ok(2));
        assert_eq!(file.stream_position().unwrap(), 2);
        assert_eq!(contents(&file), b"xy23456789");
    });
}

#[test]
fn reads_and_writes_without_an_offset_use_and_advance_the_position() {
    each_engine(|_| {
        let (mut file, mut x, mut y) = (file_with(b"0123456789"), [0u8; 3], [0u8; 3]);
        file.seek(SeekFrom::Start(1)).unwrap();
        let chain = (Read::new(&file, &mut x).link(), Read::new(&file, &mut y).link(), Write::new(&file, b"!!"));
        assert_eq!(aio::multi(chain), Ok((3, 3, 2)));
        assert_eq!((&x, &y), (b"123", b"456"));
        assert_eq!(file.stream_position().unwrap(), 9);
        assert_eq!(contents(&file), b"0123456!!9");
    });
}

#[test]
fn reading_at_and_past_the_end_gives_zero() {
    each_engine(|_| {
        let (file, mut x, mut y) = (file_with(b"abc"), [0u8; 3], [0u8; 3]);
        assert_eq!(aio::multi((Read::new(&file, &mut x).at(3), Read::new(&file, &mut y).at(1 << 40))), Ok((0, 0)));
    });
}

#[test]
fn a_descriptor_in_the_wrong_mode_is_refused() {
    each_engine(|_| {
        let (readable, writable) = (File::open("Cargo.toml").unwrap(), write_only());
        let (mut x, mut y) = ([0u8; 3], [0u8; 3]);
        let done = aio::complete((
            Read::new(&writable, &mut x),
            Readv::new(&writable, &mut [IoSliceMut::new(&mut y)]),
            Write::new(&readable, b"x"),
            Writev::new(&readable, &[IoSlice::new(b"x")]),
            Ftruncate::new(&readable, 0),
        ));
        let bad = || os(libc::EBADF);
        assert_eq!(done.unwrap().results, (bad(), bad(), bad(), bad(), os(libc::EINVAL)));
        let dir = File::open(".").unwrap();
        assert_eq!(aio::single(Read::new(&dir, &mut x)), os(libc::EISDIR));
    });
}

#[test]
fn vectored_transfers_fill_their_parts_in_order() {
    each_engine(|_| {
        let file = tempfile::tempfile().unwrap();
        let parts = [IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b"three")];
        assert_eq!(aio::single(Writev::new(&file, &parts).at(2)), Ok(8));
        assert_eq!(contents(&file), b"\0\0onethree");
        let (mut a, mut b) = ([0u8; 4], [0u8; 100]);
        let mut parts = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        assert_eq!(aio::single(Readv::new(&file, &mut parts).at(2)), Ok(8));
        assert_eq!((&a, &b[..4]), (b"onet", &b"hree"[..]));
        let many: Vec<_> = (0..1025).map(|_| IoSlice::new(b"x")).collect();
        assert_eq!(aio::single(Writev::new(&file, &many[1..]).at(0)), Ok(1024));
        assert!(matches!(aio::single(Writev::new(&file, &many)), Err(Error::Invalid(_))));
    });
}

#[test]
fn empty_buffers_transfer_nothing_and_are_no_error() {
    each_engine(|_| {
        let (file, (output, input), mut none) = (file_with(b"abc"), pipe(), [0u8; 0]);
        assert_eq!(aio::single(Read::new(&file, &mut none).at(0)), Ok(0));
        assert_eq!(aio::single(Write::new(&file, b"").at(0)), Ok(0));
        assert_eq!(aio::single(Write::new(&input, b"")), Ok(0));
        assert_eq!(aio::single(Readv::new(&file, &mut []).at(0)), Ok(0));
        assert_eq!(aio::single(Writev::new(&file, &[]).at(0)), Ok(0));
        assert_eq!(aio::single(Read::new(&output, &mut [0u8; 0])), Ok(0));
        assert_eq!(contents(&file), b"abc");
    });
}

#[test]
fn buffers_may_be_borrowed_uninitialised_or_owned() {
    each_engine(|_| {
        let file = file_with(b"0123456789");
        let mut raw = [MaybeUninit::uninit(); 16];
        let (filled, rest) = aio::single(Read::new(&file, &mut raw[..]).at(4)).unwrap();
        assert_eq!((&*filled, rest.len()), (&b"456789"[..], 10));
        let (len, vec) = aio::single(Read::new(&file, vec![0u8; 4]).at(0)).unwrap();
        assert_eq!((len, &vec[..]), (4, &b"0123"[..]));
        let (len, boxed) = aio::single(Read::new(&file, vec![0u8; 4].into_boxed_slice()).at(8)).unwrap();
        assert_eq!((len, &boxed[..2]), (2, &b"89"[..]));
        let (mut slice, mut whole) = (vec![0u8; 4], [0u8; 10]);
        assert_eq!(
            aio::multi((Read::new(&file, &mut slice[..]).at(1), Read::new(&file, &mut whole).at(0))),
            Ok((4, 10))
        );
        let empty = aio::single(Read::new(&file, Vec::with_capacity(10)));
        assert!(matches!(empty, Err(Error::Invalid(_))), "its length is filled, not its capacity");
    });
}

#[test]
fn bytes_to_write_may_be_borrowed_or_owned() {
    each_engine(|_| {
        let (file, arc, rc) = (tempfile::tempfile().unwrap(), Arc::<[u8]>::from(*b"arc"), Rc::<[u8]>::from(*b"rcr"));
        let (vec, boxed) = (b"vec".to_vec(), b"box".to_vec().into_boxed_slice());
        let values = aio::multi((
            (Write::new(&file, &vec).at(0), Write::new(&file, &boxed).at(3), Write::new(&file, "str").at(6)),
            (Write::new(&file, arc.clone()).at(9), Write::new(&file, rc.clone()).at(12)),
            Write::new(&file, String::from("own")).at(15),
            Write::new(&file, vec.clone()).at(18),
            Write::new(&file, boxed.clone()).at(21),
        ));
        let returned = ((3, 3, 3), ((3, arc), (3, rc)), (3, "own".to_owned()), (3, vec.clone()), (3, boxed.clone()));
        assert_eq!(values, Ok(returned));
        assert_eq!(contents(&file), b"vecboxstrarcrcrownvecbox");
    });
}

#[test]
fn spare_appends_and_sets_the_length() {
    each_engine(|_| {
        let (file, mut vec) = (file_with(b"456789"), b"0123".to_vec());
        vec.reserve_exact(6);
        assert_eq!(aio::single(Read::new(&file, spare(&mut vec)).at(0)), Ok(6));
        assert_eq!(vec, b"0123456789");
        vec.reserve(100);
        assert_eq!(aio::single(Read::new(&write_only(), spare(&mut vec))), os(libc::EBADF));
        assert_eq!(vec.len(), 10, "nothing was read");
        let mut full = Vec::new();
        assert!(matches!(aio::single(Read::new(&file, spare(&mut full))), Err(Error::Invalid(_))));
    });
}

#[test]
fn shared_buffers_and_their_parts_copy_through_a_chain() {
    each_engine(|_| {
        let (from, to, mut bytes) = (file_with(b"abcdefgh"), tempfile::tempfile().unwrap(), [0u8; 8]);
        let shared = Shared::new(&mut bytes);
        aio::multi((
            Read::new(&from, shared.part(..4)).at(4).link(),
            Read::new(&from, shared.part(4..)).at(0).link(),
            Write::new(&to, &shared).at(0),
        ))
        .unwrap();
        assert_eq!(contents(&to), b"efghabcd");
        assert_eq!(&bytes, b"efghabcd");
    });
}

#[test]
fn a_buffer_longer_than_one_transfer_is_refused_or_cut() {
    each_engine(|_| {
        let file = file_with(b"0123456789");
        // Neither is ever touched, so neither takes memory.
        let mut huge = Vec::<u8>::with_capacity(TWO_GIB + 5);
        let zeros = vec![0u8; TWO_GIB];
        let read = aio::single(Read::new(&file, huge.spare_capacity_mut()).at(0));
        assert!(matches!(read, Err(Error::Invalid(_))));
        let write = aio::complete((Write::new(&file, &zeros[..]).at(0).link(), Nop::new(), Nop::new())).unwrap();
        assert!(matches!(write.results, (Err(Error::Invalid(_)), Err(Error::Skipped), Ok(()))), "{write:?}");
        let parts = [IoSlice::new(&zeros[..TWO_GIB / 2]), IoSlice::new(&zeros[TWO_GIB / 2..])];
        assert!(matches!(aio::single(Writev::new(&file, &parts).at(0)), Err(Error::Invalid(_))));
        assert_eq!(contents(&file), b"0123456789", "nothing was written");
        // Spare capacity has no length that a caller chose, so it is cut instead.
        assert_eq!(aio::single(Read::new(&file, spare(&mut huge)).at(0)), Ok(10));
        assert_eq!(huge, b"0123456789");
    });
}

#[test]
fn large_transfers_are_whole() {
    each_engine(|_| {
        let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i * 7 % 255) as u8).collect();
        let (file, mut back) = (tempfile::tempfile().unwrap(), vec![0u8; 5_000_000]);
        let copy = (Write::new(&file, &bytes).at(0).link(), Read::new(&file, &mut back[..]).at(0));
        assert_eq!(aio::multi(copy), Ok((5_000_000, 5_000_000)));
        assert!(back == bytes);
    });
}

#[test]
fn reads_that_must_not_wait_take_what_is_in_memory() {
    each_engine(|_| {
        let (file, mut buf) = (file_with(b"cached"), [0u8; 6]);
        // Some filesystems cannot tell, and say so.
        match aio::single(Read::new(&file, &mut buf).at(0).nonblocking()) {
            Ok(6) => assert_eq!(&buf, b"cached"),
            other => assert!(matches!(other.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAGAIN))),
        }
    });
}

#[test]
fn fsync_in_both_forms_and_on_what_cannot_be_synced() {
    each_engine(|_| {
        let (file, (output, _input)) = (file_with(b"x"), pipe());
        let done = aio::complete((Fsync::new(&file), Fsync::new(&file).data_only(), Fsync::new(&output))).unwrap();
        assert_eq!(done.results, (Ok(()), Ok(()), os(libc::EINVAL)));
    });
}

#[test]
fn ftruncate_shrinks_and_grows() {
    each_engine(|_| {
        let file = file_with(b"0123456789");
        assert_eq!(aio::single(Ftruncate::new(&file, 4)), Ok(()));
        assert_eq!(contents(&file), b"0123");
        assert_eq!(aio::single(Ftruncate::new(&file, 6)), Ok(()));
        assert_eq!(contents(&file), b"0123\0\0");
        assert!(aio::single(Ftruncate::new(&file, u64::MAX)).is_err());
    });
}

#[test]
fn fallocate_grows_keeps_and_punches() {
    each_engine(|_| {
        let file = file_with(b"0123456789");
        assert_eq!(aio::single(Fallocate::new(&file, 0, 100)), Ok(()));
        assert_eq!(file.metadata().unwrap().len(), 100);
        assert_eq!(aio::single(Fallocate::new(&file, 0, 5000).flags(FallocateFlags::KEEP_SIZE)), Ok(()));
        assert_eq!(file.metadata().unwrap().len(), 100);
        let punch = Fallocate::new(&file, 2, 3).flags(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE);
        match aio::single(punch) {
            Ok(()) => assert_eq!(&contents(&file)[..10], b"01\x00\x00\x0056789"),
            refused => assert_eq!(refused, os(libc::EOPNOTSUPP)),
        }
        assert_eq!(aio::single(Fallocate::new(&file, 0, 0)), os(libc::EINVAL));
    });
}

#[test]
fn fadvise_takes_every_advice_and_refuses_a_pipe() {
    each_engine(|_| {
        let (file, (output, _input)) = (file_with(b"0123456789"), pipe());
        use Advice::*;
        for advice in [Normal, Random, Sequential, WillNeed, DontNeed, NoReuse] {
            assert_eq!(aio::single(Fadvise::new(&file, advice).range(0, 5)), Ok(()), "{advice:?}");
        }
        assert_eq!(aio::single(Fadvise::new(&output, WillNeed)), os(libc::ESPIPE));
    });
}

#[test]
fn splice_moves_from_a_pipe_to_a_file_and_back() {
    each_engine(|_| {
        let (file, (output, input), mut buf) = (tempfile::tempfile().unwrap(), pipe(), [0u8; 8]);
        aio::single(Write::new(&input, b"spliced!")).unwrap();
        assert_eq!(aio::single(Splice::new(&output, &file, 8).to_offset(2)), Ok(8));
        assert_eq!(contents(&file), b"\0\0spliced!");
        assert_eq!(aio::single(Splice::new(&file, &input, 100).from_offset(2)), Ok(8));
        assert_eq!(aio::single(Read::new(&output, &mut buf)), Ok(8));
        assert_eq!(&buf, b"spliced!");
        assert_eq!(aio::single(Splice::new(&file, &input, 100).from_offset(10)), Ok(0), "the end of the file");
    });
}

#[test]
fn splice_waits_for_a_pipe_unless_told_not_to() {
    each_engine(|_| {
        let (file, (output, input)) = (tempfile::tempfile().unwrap(), pipe());
        let now = Splice::new(&output, &file, 4).to_offset(0).flags(SpliceFlags::NONBLOCK);
        assert_eq!(aio::single(now), os(libc::EAGAIN));
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(5));
                File::from(input.try_clone().unwrap()).write_all(b"late").unwrap();
            });
            assert_eq!(aio::single(Splice::new(&output, &file, 4).to_offset(0)), Ok(4));
        });
        assert_eq!(contents(&file), b"late");
    });
}

#[test]
fn a_splice_that_is_impossible_does_not_wait() {
    each_engine(|_| {
        let (file, (output, _input)) = (file_with(b"abcd"), pipe());
        assert_eq!(aio::single(Splice::new(&file, &file, 4).to_offset(8)), os(libc::EINVAL));
        let offset = aio::single(Splice::new(&output, &file, 4).from_offset(3).timeout(PATIENCE));
        assert_eq!(offset, os(libc::ESPIPE), "a pipe has no offsets");
    });
}

#[test]
fn descriptors_may_be_owned_shared_or_borrowed() {
    each_engine(|_| {
        let (file, mut buf) = (file_with(b"abc"), [0u8; 3]);
        assert_eq!(aio::single(Read::new(file.as_fd(), &mut buf).at(0)), Ok(3));
        assert_eq!(aio::single(Read::new(Arc::new(file.try_clone().unwrap()), &mut buf).at(0)), Ok(3));
        assert_eq!(aio::single(Read::new(file, &mut buf).at(0)), Ok(3));
    });
}
