//! An echo server on the long-lived queue against one that is written by hand.
//!
//! Both servers do the same: a multishot receive for each connection, into buffers that the kernel takes from a shared
//! ring, and a send of what has come out of the same buffer, which goes back to the ring after it. Each runs on a
//! thread of its own; one client talks to them in turn, over TCP on loopback, a message on every connection at a time.
//! The median of the ratios counts.
//!
//! Run with `cargo bench --bench queue_echo`.

#[cfg(target_os = "linux")]
mod linux {
    use aio::{
        Backend, BufPool, Config, PooledBuf, Queue,
        op::{RecvMulti, Send},
        queue::{Done, Shot},
    };
    use io_uring::{EnterFlags, IoUring, cqueue, opcode, types};
    use std::{
        alloc::{Layout, alloc_zeroed},
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd,
        rc::Rc,
        sync::atomic::{AtomicU16, Ordering},
        thread,
        time::Instant,
    };

    const ROUNDS: usize = 41;
    const CONNECTIONS: usize = 16;
    const BUFFERS: u16 = 64;
    const SIZE: u32 = 4096;
    const ENTRIES: u32 = 256;

    enum Event {
        Received(usize, Shot<RecvMulti<Rc<TcpStream>>>),
        Sent(Done<Send<Rc<TcpStream>, PooledBuf>>),
    }

    /// Echoes until all connections have ended.
    fn ours(connections: Vec<TcpStream>) {
        let config = Config::new().backend(Backend::IoUring);
        let queue = Queue::<'static, Event>::with_config(ENTRIES, config).expect("io_uring");
        let pool: BufPool = queue.buf_pool(BUFFERS.into(), SIZE as usize).expect("a pool");
        let connections: Vec<Rc<TcpStream>> = connections.into_iter().map(Rc::new).collect();
        for (at, connection) in connections.iter().enumerate() {
            let receive = RecvMulti::new(connection.clone(), &pool);
            queue.submit_multi(receive, move |shot| Event::Received(at, shot)).expect("room");
        }
        let mut open = connections.len();
        while open > 0 {
            for (_, event) in queue.wait(1).expect("events") {
                match event {
                    Event::Received(at, Shot { result, more, .. }) => {
                        let bytes = result.expect("bytes");
                        if !more {
                            open -= 1;
                        } else {
                            queue.submit(Send::new(connections[at].clone(), bytes), Event::Sent).expect("room");
                        }
                    }
                    Event::Sent(done) => {
                        let sent = done.result.expect("sent");
                        assert_eq!(sent, done.op.into_buf().len());
                    }
                }
            }
        }
    }

    /// A ring of free buffers, by hand.
    struct Buffers {
        ring: *mut types::BufRingEntry,
        memory: *mut u8,
        tail: u16,
    }

    impl Buffers {
        fn new(ring: &IoUring) -> Buffers {
            let entries = Layout::from_size_align(usize::from(BUFFERS) * 16, 4096).expect("a layout");
            let bytes = Layout::from_size_align(usize::from(BUFFERS) * SIZE as usize, 4096).expect("a layout");
            // SAFETY: neither is empty. Both leak, so that they outlive the ring.
            let (entries, memory) = unsafe { (alloc_zeroed(entries), alloc_zeroed(bytes)) };
            // SAFETY: the memory lives for ever.
            unsafe {
                let submitter = ring.submitter();
                submitter.register_buf_ring_with_flags(entries as u64, BUFFERS, 0, 0).expect("a ring of buffers");
            }
            let mut buffers = Buffers { ring: entries.cast(), memory, tail: 0 };
            (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
            buffers
        }

        fn address(&self, buffer: u16) -> *mut u8 {
            self.memory.wrapping_add(usize::from(buffer) * SIZE as usize)
        }

        fn give(&mut self, buffer: u16) {
            // SAFETY: within the ring, whose entry is free: there are as many as buffers. The kernel reads the tail
            // atomically.
            unsafe {
                let entry = &mut *self.ring.add(usize::from(self.tail & (BUFFERS - 1)));
                entry.set_addr(self.address(buffer) as u64);
                entry.set_len(SIZE);
                entry.set_bid(buffer);
                self.tail = self.tail.wrapping_add(1);
                let tail = types::BufRingEntry::tail(self.ring).cast::<AtomicU16>();
                (*tail).store(self.tail, Ordering::Release);
            }
        }
    }

    /// The same, as fast as one can write it by hand.
    fn twin(connections: Vec<TcpStream>) {
        const SEND: u64 = 1 << 32;
        let mut ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_no_sqarray()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(4 * ENTRIES)
            .build(ENTRIES)
            .expect("io_uring");
        let mut buffers = Buffers::new(&ring);
        let (mut submitter, mut submissions, mut completions) = ring.split();
        submitter.register_ring_fd().expect("a registered ring");
        for (at, connection) in connections.iter().enumerate() {
            let receive = opcode::RecvMulti::new(types::Fd(connection.as_raw_fd()), 0).build().user_data(at as u64);
            // SAFETY: it points to nothing of ours but the ring of buffers, which leaks.
            unsafe { submissions.push(&receive).expect("room") };
        }
        let mut lengths = [0; BUFFERS as usize];
        let mut open = connections.len();
        while open > 0 {
            submissions.sync();
            let queued = submissions.len() as u32;
            // SAFETY: the entries are those below, whose buffers stay until they have completed.
            unsafe { submitter.enter::<()>(queued, 1, EnterFlags::GETEVENTS.bits(), None).expect("enter") };
            submissions.sync();
            completions.sync();
            for completion in &mut completions {
                let data = completion.user_data();
                assert!(completion.result() >= 0, "errno {}", -completion.result());
                if data & SEND != 0 {
                    let buffer = data as u16;
                    assert_eq!(completion.result(), lengths[usize::from(buffer)]);
                    buffers.give(buffer);
                } else if !cqueue::more(completion.flags()) {
                    open -= 1;
                } else {
                    let buffer = cqueue::buffer_select(completion.flags()).expect("a buffer");
                    lengths[usize::from(buffer)] = completion.result();
                    let fd = types::Fd(connections[data as usize].as_raw_fd());
                    let send = opcode::Send::new(fd, buffers.address(buffer), completion.result() as u32);
                    let send = send.flags(libc_nosignal()).build().user_data(SEND | u64::from(buffer));
                    // SAFETY: the buffer is ours until it is given back.
                    unsafe { submissions.push(&send).expect("room") };
                }
            }
        }
    }

    /// `MSG_NOSIGNAL`.
    fn libc_nosignal() -> i32 {
        0x4000
    }

    /// Connections to a server that runs on a thread of its own.
    struct Client {
        connections: Vec<TcpStream>,
        server: thread::JoinHandle<()>,
    }

    impl Client {
        fn of(server: fn(Vec<TcpStream>)) -> Client {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            let address = listener.local_addr().expect("its address");
            let (connections, accepted): (Vec<_>, Vec<_>) = (0..CONNECTIONS)
                .map(|_| {
                    let connection = TcpStream::connect(address).expect("a connection");
                    connection.set_nodelay(true).expect("an option");
                    let (accepted, _) = listener.accept().expect("its other end");
                    accepted.set_nodelay(true).expect("an option");
                    (connection, accepted)
                })
                .unzip();
            Client { connections, server: thread::spawn(move || server(accepted)) }
        }

        /// Nanoseconds for each message there and back.
        fn round(&mut self, size: usize, times: usize) -> f64 {
            let message = vec![7; size];
            let mut answer = vec![0; size];
            let start = Instant::now();
            for _ in 0..times {
                for connection in &mut self.connections {
                    connection.write_all(&message).expect("sent");
                }
                for connection in &mut self.connections {
                    connection.read_exact(&mut answer).expect("received");
                }
            }
            assert_eq!(answer, message);
            start.elapsed().as_nanos() as f64 / (times * CONNECTIONS) as f64
        }

        fn end(self) {
            drop(self.connections);
            self.server.join().expect("the server");
        }
    }

    fn median(values: &mut [f64]) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    pub(super) fn main() {
        if let Err(error) = Queue::<()>::with_config(1, Config::new().backend(Backend::IoUring)) {
            return println!("skipped: {error}");
        }
        let (mut theirs, mut own) = (Client::of(twin), Client::of(ours));
        println!("{:>6} {:>12} {:>12} {:>8}", "bytes", "twin ns/msg", "aio ns/msg", "ratio");
        for size in [64, 1024, 4096] {
            let (mut a, mut b, mut ratios) = (vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let (twin, aio) = (theirs.round(size, 200), own.round(size, 200));
                a.push(twin);
                b.push(aio);
                ratios.push(aio / twin);
            }
            println!("{size:>6} {:>12.0} {:>12.0} {:>8.3}", median(&mut a), median(&mut b), median(&mut ratios));
        }
        theirs.end();
        own.end();
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: io_uring exists on Linux only");
}
