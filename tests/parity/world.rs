//! What a program works on: a directory, pipes, sockets; and what is left of them.

use super::program::{H, NAMES, Target};
use aio::op::{Address, EventSource};
use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt, symlink},
            net::{UnixDatagram, UnixStream},
        },
    },
    path::Path,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

/// A descriptor as operations take it.
#[derive(Clone)]
pub enum Fd {
    Owned(Arc<OwnedFd>),
    Missing,
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Fd::Owned(fd) => fd.as_fd(),
            // SAFETY: no descriptor has this number, so nobody else's is touched: the process may not have so many.
            Fd::Missing => unsafe { BorrowedFd::borrow_raw(0x3fff_ff00) },
        }
    }
}

impl Fd {
    fn new(fd: impl Into<OwnedFd>) -> Fd {
        Fd::Owned(Arc::new(fd.into()))
    }

    /// Whether operations on it may wait, as those on what is on the disk do not.
    pub fn may_wait(&self) -> bool {
        let Fd::Owned(fd) = self else { return false };
        let kind = fd.try_clone().and_then(|fd| File::from(fd).metadata()).map_or(0, |meta| meta.mode());
        matches!(kind & libc::S_IFMT, libc::S_IFIFO | libc::S_IFSOCK)
    }
}

pub const SLOTS: usize = 3;
pub const WORD: u32 = 7;

pub struct World {
    dir: tempfile::TempDir,
    fds: RefCell<BTreeMap<H, Fd>>,
    /// Ends that belong to a descriptor of the world and are not used.
    silent: RefCell<Vec<OwnedFd>>,
    pub open: RefCell<[Option<Arc<OwnedFd>>; SLOTS]>,
    refused: RefCell<Option<(SocketAddr, OwnedFd)>>,
    pub sources: [&'static EventSource; 2],
    pub words: [Arc<AtomicU32>; 2],
    /// Last, since all else may refer to it.
    lent: RefCell<Vec<Box<dyn Any>>>,
}

fn nonblocking(fd: &OwnedFd) {
    // SAFETY: sets a flag of a descriptor of ours.
    unsafe {
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK | libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))
    };
}

fn fill(fd: &OwnedFd) {
    let mut file = File::from(fd.try_clone().unwrap());
    nonblocking(fd);
    for size in [4096, 1] {
        while file.write(&vec![b'x'; size]).is_ok() {}
    }
}

/// Allocates something that stays until the list is dropped.
fn lend<T: 'static>(lent: &RefCell<Vec<Box<dyn Any>>>, value: T) -> *mut T {
    let pointer = Box::into_raw(Box::new(value));
    struct Owner<T>(*mut T);
    impl<T> Drop for Owner<T> {
        fn drop(&mut self) {
            // SAFETY: made by `Box::into_raw`, and dropped once.
            drop(unsafe { Box::from_raw(self.0) });
        }
    }
    lent.borrow_mut().push(Box::new(Owner(pointer)));
    pointer
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (name, len) in [("f0", 100), ("f1", 5000), ("f2", 0)] {
            fs::write(root.join(name), (0..len).map(|i| b'a' + (i % 23) as u8).collect::<Vec<_>>()).unwrap();
        }
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/in"), "inside").unwrap();
        symlink("f1", root.join("link")).unwrap();
        symlink("nothing", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let mut fds = BTreeMap::new();
        for (i, name) in ["f0", "f1", "f2"].iter().enumerate() {
            let path = root.join(name);
            fds.insert(H::File(i as u8), Fd::new(File::options().read(true).write(true).open(&path).unwrap()));
            let (h, file) = match i {
                0 => (H::ReadOnly, File::open(&path)),
                1 => (H::WriteOnly, File::options().write(true).open(&path)),
                _ => (H::Append, File::options().read(true).append(true).open(&path)),
            };
            fds.insert(h, Fd::new(file.unwrap()));
        }
        fds.insert(
            H::PathOnly,
            Fd::new(File::options().read(true).custom_flags(libc::O_PATH).open(root.join("f0")).unwrap()),
        );
        fds.insert(H::Dir, Fd::new(File::open(root).unwrap()));
        let lent = RefCell::default();
        // SAFETY: it stays until the world is dropped, when nothing refers to it.
        let source = || unsafe { &*lend(&lent, EventSource::new().unwrap()) };
        let sources = [source(), source()];
        let words = [Arc::new(AtomicU32::new(WORD)), Arc::new(AtomicU32::new(WORD))];
        let (silent, open, refused) = Default::default();
        World { dir, fds: RefCell::new(fds), silent, open, refused, sources, words, lent }
    }

    /// Memory that stays as long as the world, for operations that borrow it.
    pub fn lend<T: 'static>(&self, value: T) -> *mut T {
        lend(&self.lent, value)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn fd(&self, h: H) -> Fd {
        match h {
            H::Missing => return Fd::Missing,
            H::Open(slot) => return self.open.borrow()[usize::from(slot)].clone().map_or(Fd::Missing, Fd::Owned),
            H::Fresh => return Fd::new(tcp_socket()),
            _ => {}
        }
        if !self.fds.borrow().contains_key(&h) {
            self.make(h);
        }
        self.fds.borrow()[&h].clone()
    }

    fn both(&self, a: H, b: H, pair: (impl Into<OwnedFd>, impl Into<OwnedFd>), sets_nonblocking: bool) {
        let pair = [pair.0.into(), pair.1.into()];
        for (h, fd) in [a, b].into_iter().zip(pair) {
            if sets_nonblocking {
                nonblocking(&fd);
            }
            self.fds.borrow_mut().insert(h, Fd::new(fd));
        }
    }

    fn one(&self, h: H, fd: impl Into<OwnedFd>, silent: Option<OwnedFd>) {
        self.fds.borrow_mut().insert(h, Fd::new(fd));
        self.silent.borrow_mut().extend(silent);
    }

    fn make(&self, h: H) {
        let streams = || UnixStream::pair().unwrap();
        match h {
            H::PipeR(i) | H::PipeW(i) => self.both(H::PipeR(i), H::PipeW(i), std::io::pipe().unwrap(), i == 1),
            H::EndedR => {
                let (output, mut input) = std::io::pipe().unwrap();
                input.write_all(b"the last words").unwrap();
                self.one(h, output, None);
            }
            H::BrokenW => self.one(h, std::io::pipe().unwrap().1, None),
            H::FullW => {
                let (output, input) = std::io::pipe().unwrap();
                let input = OwnedFd::from(input);
                fill(&input);
                self.one(h, input, Some(output.into()));
            }
            H::Stream(i, _) => self.both(H::Stream(i, false), H::Stream(i, true), streams(), i == 1),
            H::Hung => {
                let (a, mut b) = streams();
                b.write_all(b"farewell").unwrap();
                self.one(h, a, None);
            }
            H::FullStream => {
                let (a, b) = streams();
                let a = OwnedFd::from(a);
                fill(&a);
                self.one(h, a, Some(b.into()));
            }
            H::Quiet => {
                let (a, b) = streams();
                self.one(h, a, Some(b.into()));
            }
            H::Dgram(_) => self.both(H::Dgram(false), H::Dgram(true), UnixDatagram::pair().unwrap(), false),
            H::Seq(_) => self.both(H::Seq(false), H::Seq(true), seq_pair(), false),
            H::Tcp(_) => self.both(H::Tcp(false), H::Tcp(true), super::net::tcp_pair(), false),
            H::Udp(_) => {
                let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
                self.both(H::Udp(false), H::Udp(true), (socket(), socket()), false);
            }
            H::Lonely => self.one(h, tcp_socket(), None),
            H::Listener => self.one(h, TcpListener::bind("127.0.0.1:0").unwrap(), None),
            _ => unreachable!("{h:?} is made with the world"),
        }
    }

    pub fn address(&self, target: Target) -> Address {
        let local = |h| {
            let Fd::Owned(fd) = self.fd(h) else { unreachable!() };
            UdpSocket::from(fd.try_clone().unwrap()).local_addr().unwrap()
        };
        match target {
            Target::Listener | Target::Taken => local(H::Listener).into(),
            Target::Udp(side) => local(H::Udp(side)).into(),
            Target::Unix(i) => Address::unix(self.path().join(["socket", "f0", "none/x"][usize::from(i) % 3])).unwrap(),
            Target::Free => SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            Target::Foreign => SocketAddr::from(([192, 0, 2, 1], 9)).into(),
            Target::Refused => {
                let mut refused = self.refused.borrow_mut();
                let (address, _) = refused.get_or_insert_with(|| {
                    // Bound, so that nobody else gets the port, and not listening.
                    let socket = tcp_socket();
                    let address = libc::sockaddr_in {
                        sin_family: libc::AF_INET as u16,
                        sin_port: 0,
                        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
                        sin_zero: [0; 8],
                    };
                    let len = size_of_val(&address) as u32;
                    // SAFETY: the address is a local of that length.
                    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
                    assert_eq!(bound, 0);
                    (UdpSocket::from(socket.try_clone().unwrap()).local_addr().unwrap(), socket)
                });
                (*address).into()
            }
        }
    }

    /// Keeps what an operation has opened, in place of what was there.
    pub fn keep(&self, slot: u8, fd: OwnedFd) {
        self.open.borrow_mut()[usize::from(slot)] = Some(Arc::new(fd));
    }

    /// Waits for what is on its way between sockets of the internet: loopback delivers at once as a rule, and a moment
    /// later on a busy machine. Nothing announces that, so all there is to do is to look whether it still changes.
    pub fn settle(&self) {
        let inet = |h: &H| matches!(h, H::Tcp(_) | H::Udp(_) | H::Listener | H::Lonely);
        let fds: Vec<Fd> = self.fds.borrow().iter().filter(|(h, _)| inet(h)).map(|(_, fd)| fd.clone()).collect();
        let open = self.open.borrow();
        let all = || fds.iter().cloned().chain(open.iter().flatten().cloned().map(Fd::Owned));
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until && all().any(|fd| unacknowledged(&fd)) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// What is left when the program is over, in words.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (h, fd) in &*self.fds.borrow() {
            let Fd::Owned(fd) = fd else { continue };
            match h {
                H::FullW | H::FullStream | H::BrokenW | H::PipeW(_) | H::Listener | H::Dir | H::PathOnly => {}
                H::File(_) | H::ReadOnly | H::WriteOnly | H::Append => {
                    // SAFETY: asks for the position of a descriptor of ours.
                    let at = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR) };
                    left.push(format!("{h:?} is at {at}"));
                }
                _ => left.push(format!("{h:?} holds {}", rest(fd))),
            }
        }
        for (slot, fd) in self.open.borrow().iter().enumerate() {
            left.push(format!("slot {slot}: {}", if fd.is_some() { "open" } else { "empty" }));
        }
        for (i, source) in self.sources.iter().enumerate() {
            let mut count = 0;
            while source.try_wait().unwrap() {
                count += 1;
            }
            left.push(format!("source {i} has {count}"));
        }
        tree(self.path(), Path::new(""), &mut left);
        left
    }

    /// The names that programs use are all that they can make.
    pub fn name(index: u8) -> &'static str {
        NAMES[usize::from(index) % NAMES.len()]
    }
}

fn tcp_socket() -> OwnedFd {
    // SAFETY: makes a descriptor, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) }
}

fn seq_pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: the array has room for both.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) };
    assert_eq!(made, 0);
    // SAFETY: both were just made, and nobody else owns them.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into()
}

/// Whether a TCP socket has sent something that its peer's kernel has not taken yet.
fn unacknowledged(fd: &Fd) -> bool {
    let Fd::Owned(fd) = fd else { return false };
    let (mut left, mut state, mut len) = (0i32, [0u8; 104], 104);
    // SAFETY: all are locals of the length that is told.
    unsafe {
        let known = libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            state.as_mut_ptr().cast(),
            &raw mut len,
        );
        // Not of one that listens or is not connected.
        known == 0
            && ![7, 10].contains(&state[0])
            && libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) == 0
            && left > 0
    }
}

/// What can still be read, and what comes then.
fn rest(fd: &OwnedFd) -> String {
    nonblocking(fd);
    let Ok(copy) = fd.try_clone() else { return "nothing".into() };
    let (mut file, mut text) = (File::from(copy), String::new());
    let mut buffer = [0; 70_000];
    for _ in 0..100 {
        match file.read(&mut buffer) {
            Ok(0) => return text + "end",
            Ok(count) => text += &format!("{:?}, ", String::from_utf8_lossy(&buffer[..count])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return text + "nothing more",
            Err(error) => return text + &format!("{:?}", error.raw_os_error()),
        }
    }
    text + "and so on"
}

fn tree(root: &Path, below: &Path, left: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let (relative, path) = (below.join(&name), root.join(below).join(&name));
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.mode() & libc::S_IFMT {
            libc::S_IFREG => fs::read(&path).map_or("unreadable".into(), |bytes| summary(&bytes)),
            libc::S_IFLNK => format!("-> {}", fs::read_link(&path).unwrap().display()),
            _ => String::new(),
        };
        left.push(format!("{} {:o} {content}", relative.display(), meta.mode()));
        if meta.is_dir() {
            tree(root, &relative, left);
        }
    }
}

/// Long contents by their sum.
pub fn summary(bytes: &[u8]) -> String {
    if bytes.len() <= 64 {
        return format!("{:?}", String::from_utf8_lossy(bytes));
    }
    format!("{} bytes, {:08x}", bytes.len(), crc32fast::hash(bytes))
}
