//! Buffers in memory that a queue's ring knows in advance.

mod common;

use aio::{Error, FixedBuf, Queue, SetupError, op::*};
use common::{each_engine, engines, file_with, in_own_process, os, pipe};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

type Event = (aio::Result<usize>, FixedBuf);

#[track_caller]
fn each_queue(capacity: u32, test: impl Fn(&Queue<'static, Event>)) {
    each_engine(|engine| test(&Queue::with_config(capacity, engine.config).unwrap()));
}

#[track_caller]
fn next(queue: &Queue<'static, Event>) -> Event {
    queue.wait(1).unwrap().next().unwrap().1
}

/// Reads into a buffer.
#[track_caller]
fn read<D: aio::Descriptor + 'static>(queue: &Queue<'static, Event>, fd: D, buf: FixedBuf, at: u64) -> Event {
    queue.submit(Read::new(fd, buf).at(at), |done| (done.result, done.op.into_buf())).unwrap();
    next(queue)
}

#[track_caller]
fn write<D: aio::Descriptor + 'static>(queue: &Queue<'static, Event>, fd: D, buf: FixedBuf, at: u64) -> Event {
    queue.submit(Write::new(fd, buf).at(at), |done| (done.result, done.op.into_buf())).unwrap();
    next(queue)
}

#[test]
fn what_is_written_is_read() {
    each_queue(4, |queue| {
        let bufs = queue.fixed_bufs(3, 5000).unwrap();
        assert_eq!((bufs.count(), bufs.buf_size(), bufs.free()), (3, 5000, 3));
        let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
        let fixed = queue.register_file(file.try_clone().unwrap()).unwrap();
        let (mut first, second) = (bufs.take().unwrap(), bufs.take().unwrap());
        first.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        let (result, mut first) = write(queue, file.clone(), first, 0);
        assert_eq!(result, Ok(5000));
        first.advance(4000);
        first.truncate(500);
        let (result, mut first) = write(queue, fixed.clone(), first, 5000);
        assert_eq!(result, Ok(500));
        first.reset();
        let (result, second) = read(queue, fixed, second, 0);
        assert_eq!((result, &second[..]), (Ok(5000), &first[..]));
        let (result, second) = read(queue, file, second, 5000);
        assert_eq!((result, &second[..500]), (Ok(500), &first[4000..4500]));
        assert_eq!(&second[500..], &first[500..], "the rest is as it was");
    });
}

#[test]
fn pipes_sockets_and_the_position() {
    each_queue(4, |queue| {
        let bufs = queue.fixed_bufs(2, 8).unwrap();
        let (output, input) = pipe();
        let mut buf = bufs.take().unwrap();
        buf.copy_from_slice(b"contents");
        buf.truncate(7);
        // Pipes and sockets ignore an offset.
        let (result, buf) = write(queue, input, buf, 100);
        assert_eq!(result, Ok(7));
        let (result, buf) = read(queue, output, buf, 3);
        assert_eq!((result, &buf[..7]), (Ok(7), &b"content"[..]));
        let (a, mut b) = UnixStream::pair().unwrap();
        let a = std::sync::Arc::new(a);
        let (result, buf) = write(queue, a.clone(), buf, 9);
        assert_eq!(result, Ok(7));
        b.write_all(b"answer").unwrap();
        let (result, mut buf) = read(queue, a.clone(), buf, 9);
        assert_eq!((result, &buf[..6]), (Ok(6), &b"answer"[..]));
        // Other operations take it as they take any buffer.
        buf.truncate(3);
        queue.submit(Send::new(a.clone(), buf), |done| (done.result, done.op.into_buf())).unwrap();
        let (result, mut buf) = next(queue);
        assert_eq!(result, Ok(3));
        buf.reset();
        b.write_all(b"more").unwrap();
        queue.submit(Recv::new(a, buf), |done| (done.result, done.op.into_buf())).unwrap();
        let (result, buf) = next(queue);
        assert_eq!((result, &buf[..4]), (Ok(4), &b"more"[..]));
        let mut text = [0; 10];
        b.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"contentans");
        let file = std::sync::Arc::new(file_with(b""));
        queue.submit(Write::new(file.clone(), buf), |done| (done.result, done.op.into_buf())).unwrap();
        let (result, _) = next(queue);
        assert_eq!(result, Ok(8));
    });
}

#[test]
fn in_chains() {
    each_queue(4, |queue| {
        let bufs = queue.fixed_bufs(3, 16).unwrap();
        let file = queue.register_file(file_with(b"0123456789")).unwrap();
        let [mut a, b, c] = [(); 3].map(|()| bufs.take().unwrap());
        a.fill(b'x');
        queue
            .submit_chain(
                (
                    Write::new(file.clone(), a).at(2).link(),
                    Read::new(file.clone(), b).at(0).link(),
                    Read::new(file, c).at(0),
                ),
                (
                    |done| (done.result, done.op.into_buf()),
                    |done| (done.result, done.op.into_buf()),
                    |done| (done.result, done.op.into_buf()),
                ),
            )
            .unwrap();
        let events: Vec<Event> = queue.wait(3).unwrap().map(|(_, event)| event).collect();
        assert_eq!((&events[1].1[..3], events[1].0, events[2].0), (&b"01x"[..], Ok(16), Ok(16)));
    });
}

#[test]
fn an_empty_part() {
    each_queue(2, |queue| {
        let bufs = queue.fixed_bufs(1, 16).unwrap();
        let mut buf = bufs.take().unwrap();
        assert!(bufs.take().is_none());
        buf.truncate(0);
        let file = std::sync::Arc::new(file_with(b"x"));
        let (result, buf) = write(queue, file.clone(), buf, 0);
        assert_eq!(result, Ok(0));
        let (result, buf) = read(queue, file, buf, 0);
        assert!(matches!(result, Err(Error::Invalid(_))), "as for any owned buffer: {result:?}");
        drop(buf);
        assert!(bufs.take().is_some());
    });
}

#[test]
fn another_queue_takes_it_as_a_plain_buffer() {
    each_engine(|engine| {
        let [first, second] = [(); 2].map(|()| Queue::<Event>::with_config(2, engine.config).unwrap());
        let bufs = first.fixed_bufs(1, 16).unwrap();
        // The same place in the other ring's table.
        let others = second.fixed_bufs(1, 16).unwrap();
        let file = std::sync::Arc::new(file_with(b"hello"));
        let (result, buf) = read(&second, file.clone(), bufs.take().unwrap(), 0);
        assert_eq!((result, &buf[..5]), (Ok(5), &b"hello"[..]));
        let (count, buf) = aio::single(Read::new(&*file, buf).at(1)).unwrap();
        assert_eq!((count, &buf[..4]), (4, &b"ello"[..]));
        drop(first);
        let (result, buf) = read(&second, file, buf, 2);
        assert_eq!((result, &buf[..3]), (Ok(3), &b"llo"[..]), "the memory lives on");
        drop(bufs);
        assert_eq!(&buf[..3], b"llo");
        assert_eq!(&others.take().unwrap()[..], [0; 16]);
    });
}

#[test]
fn a_queue_may_go_with_buffers_in_flight() {
    each_engine(|engine| {
        let queue = Queue::<Event>::with_config(8, engine.config).unwrap();
        let bufs = queue.fixed_bufs(8, 4096).unwrap();
        let (output, _input) = pipe();
        let output = queue.register_file(output).unwrap();
        let file = std::sync::Arc::new(file_with(&[7; 4096]));
        for _ in 0..4 {
            let pipe = Read::new(output.clone(), bufs.take().unwrap());
            queue.submit(pipe, |done| (done.result, done.op.into_buf())).unwrap();
            let disk = Read::new(file.clone(), bufs.take().unwrap()).at(0);
            queue.submit(disk, |done| (done.result, done.op.into_buf())).unwrap();
        }
        queue.poll().unwrap().take(1).for_each(drop);
        drop(queue);
        assert_eq!(bufs.free(), 8);
        drop(bufs);
    });
}

#[test]
fn many_sets_come_and_go() {
    each_queue(2, |queue| {
        let file = std::sync::Arc::new(file_with(b"hello"));
        for round in 0..2_000 {
            let bufs = queue.fixed_bufs(2, 4096).unwrap();
            if round % 100 == 0 {
                let (result, buf) = read(queue, file.clone(), bufs.take().unwrap(), 0);
                assert_eq!((result, &buf[..5]), (Ok(5), &b"hello"[..]));
            }
        }
        let kept: Vec<_> = (0..1024).map_while(|_| queue.fixed_bufs(1, 64).ok()).collect();
        assert_eq!(kept.len(), 1024);
        let (result, _) = read(queue, file, kept[1023].take().unwrap(), 0);
        assert_eq!(result, Ok(5));
        let more = queue.fixed_bufs(1, 64);
        assert!(more.is_ok() || more.map(drop) == os(libc::ENOSPC), "emulations have no limit");
    });
}

#[test]
fn sizes_that_make_no_sense() {
    each_queue(1, |queue| {
        for (count, size) in [(0, 1), (1, 0), (2, (1 << 30) - 1), (usize::MAX, 2), (1, (1 << 30) + 1)] {
            let refused = queue.fixed_bufs(count, size);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{count} of {size}: {refused:?}");
        }
    });
}

/// Without `CAP_IPC_LOCK`, which root has.
#[test]
#[cfg(target_os = "linux")]
fn more_memory_than_may_be_locked() {
    in_own_process("more_memory_than_may_be_locked", || {
        const IPC_LOCK: u32 = 14;
        drop_capability(IPC_LOCK);
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        // SAFETY: the pointer is to a local.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
        for engine in engines() {
            let Ok(queue) = Queue::<Event>::with_config(4, engine.config) else {
                // Old kernels lock the ring itself.
                continue;
            };
            let file = std::sync::Arc::new(file_with(b"hello"));
            match queue.fixed_bufs(16, 1 << 20) {
                // Nothing is locked there.
                Ok(_) => assert_ne!(engine.name, "io_uring"),
                Err(error) => {
                    assert!(matches!(error, Error::Setup(SetupError::LockedMemory { .. })), "{error:?}");
                    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
                    assert!(error.to_string().contains("raise RLIMIT_MEMLOCK"), "{error}");
                }
            }
            let bufs = queue.fixed_bufs(1, 1 << 16).unwrap();
            assert_eq!(read(&queue, file, bufs.take().unwrap(), 0).0, Ok(5));
        }
    });
}

/// Takes a capability off all sets of the calling thread.
#[cfg(target_os = "linux")]
fn drop_capability(number: u32) {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable; the lower half, then the upper one.
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: the structures of `capget(2)`, on this frame.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        sets[0].iter_mut().for_each(|set| *set &= !(1 << number));
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}
