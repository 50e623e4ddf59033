//! From an operation as data to one of the library, which notes its result.

use super::{
    program::{Form, H, Item, Limit, Op, Question, Setting, Target},
    world::{SLOTS, WORD, World, summary},
};
use aio::{
    Result,
    op::{self, Boxed, option},
    queue::Done,
};
use std::{
    cell::RefCell,
    io::{IoSlice, IoSliceMut},
    net::Shutdown,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// What has come of each operation, in the order in which they were made. `None` if it was never told.
#[derive(Default)]
pub struct Trace(pub RefCell<Vec<(String, Option<Result<String>>)>>);

impl Trace {
    pub fn reserve(&self, what: String) -> usize {
        let mut all = self.0.borrow_mut();
        all.push((what, None));
        all.len() - 1
    }

    pub fn set(&self, index: usize, result: Result<String>) {
        let mut all = self.0.borrow_mut();
        let (what, place) = &mut all[index];
        assert!(place.is_none(), "two results of {what}: {place:?} and {result:?}");
        *place = Some(result);
    }

    /// Something that is no operation.
    pub fn note(&self, what: String) {
        self.0.borrow_mut().push((what, Some(Ok(String::new()))));
    }
}

const SHORT: Duration = Duration::from_millis(1);
/// A program in which it expires is in error, or the engine is.
const LONG: Duration = Duration::from_secs(5);

pub struct Maker {
    pub world: Rc<World>,
    pub trace: Rc<Trace>,
}

type Made = Boxed<'static, ()>;

impl Maker {
    fn limit(&self, item: &Item) -> Option<Duration> {
        // What was opened may be a file, whose operations must not be cut short, or a pipe, whose must.
        let opened = |h: &Option<H>| matches!(h, Some(H::Open(_)));
        let waits = |h: &Option<H>| h.is_some_and(|h| self.world.fd(h).may_wait());
        let handles = item.op.handles();
        match item.limit {
            Limit::None => None,
            _ if handles.iter().any(opened) && !handles.iter().any(waits) => Some(LONG),
            Limit::Zero => Some(Duration::ZERO),
            Limit::Short => Some(SHORT),
            Limit::Long => Some(LONG),
        }
    }

    fn put<O: op::Op + 'static>(&self, item: &Item, op: O, see: impl FnOnce(O::Value, O) -> String + 'static) -> Made {
        let index = self.trace.reserve(format!("{:?}", item.op));
        let trace = self.trace.clone();
        let note = move |result: Result<O::Value>, op: O| {
            let result = result.map(|value| see(value, op));
            let told = result.as_ref().map(drop).map_err(|error| *error);
            trace.set(index, result);
            told
        };
        match self.limit(item) {
            None => Boxed::new(op, move |Done { result, op }| note(result, op)),
            Some(limit) => Boxed::new(op.timeout(limit), move |Done { result, op }| note(result, op.into_inner())),
        }
    }

    /// Bytes that tell where they come from.
    fn bytes(&self, len: impl Into<usize>) -> Vec<u8> {
        let salt = self.trace.0.borrow().len();
        (0..len.into()).map(|i| b'A' + ((i + 7 * salt) % 26) as u8).collect()
    }

    /// Two buffers that stay as long as the world.
    fn lent(&self, bytes: Vec<u8>, first: impl Into<usize>) -> [*mut Vec<u8>; 2] {
        let (a, b) = bytes.split_at(first.into().min(bytes.len()));
        [self.world.lend(a.to_vec()), self.world.lend(b.to_vec())]
    }

    pub fn make(&self, item: &Item) -> Made {
        let fd = |h| self.world.fd(h);
        let unit = |(), _| String::new();
        match item.op {
            Op::Nop => self.put(item, op::Nop::new(), |(), _| String::new()),
            Op::Timeout { micros: u16::MAX } => {
                self.put(item, op::Timeout::after(Duration::from_secs(3600)), |(), _| String::new())
            }
            Op::Timeout { micros } => {
                self.put(item, op::Timeout::after(Duration::from_micros(micros.into())), |(), _| String::new())
            }
            Op::Read { .. } | Op::Write { .. } => self.transfer(item),
            Op::Fsync { h, data: false } => self.put(item, op::Fsync::new(fd(h)), unit),
            Op::Fsync { h, data: true } => self.put(item, op::Fsync::new(fd(h)).data_only(), |(), _| String::new()),
            Op::Ftruncate { h, len } => self.put(item, op::Ftruncate::new(fd(h), len.into()), |(), _| String::new()),
            Op::Fallocate { h, at, len, flags } => {
                let flags = op::FallocateFlags::from_bits_retain(flags);
                self.put(item, op::Fallocate::new(fd(h), at.into(), len.into()).flags(flags), |(), _| String::new())
            }
            Op::Fadvise { h, advice, len } => {
                use op::Advice::*;
                let advice = [Normal, Random, Sequential, WillNeed, DontNeed, NoReuse][usize::from(advice) % 6];
                self.put(item, op::Fadvise::new(fd(h), advice).range(0, len.into()), |(), _| String::new())
            }
            Op::Open { .. } | Op::Close { .. } | Op::Pipe { .. } | Op::Socket { .. } | Op::Accept { .. } => {
                self.opening(item)
            }
            Op::Statx { .. } | Op::StatxOf { .. } | Op::Rename { .. } | Op::Unlink { .. } | Op::MkDir { .. } => {
                self.names(item)
            }
            Op::Symlink { .. } | Op::Link { .. } => self.names(item),
            Op::Splice { from, to, len, from_at, to_at } => {
                let mut splice = op::Splice::new(fd(from), fd(to), len.into()).flags(op::SpliceFlags::NONBLOCK);
                splice = from_at.into_iter().fold(splice, |splice, at| splice.from_offset(at.into()));
                splice = to_at.into_iter().fold(splice, |splice, at| splice.to_offset(at.into()));
                self.put(item, splice, |count, _| count.to_string())
            }
            Op::Tee { from, to, len } => {
                let tee = op::Tee::new(fd(from), fd(to), len.into()).flags(op::SpliceFlags::NONBLOCK);
                self.put(item, tee, |count, _| count.to_string())
            }
            Op::Poll { h, events } => {
                let poll = op::Poll::new(fd(h), op::PollEvents::from_bits_retain(events));
                self.put(item, poll, |events, _| format!("{events:?}"))
            }
            Op::CancelFd { h } => self.put(item, op::Cancel::fd(fd(h)), |count, _| count.to_string()),
            Op::WaitEvent { source } => {
                self.put(item, op::WaitEvent::new(self.world.sources[usize::from(source)]), |(), _| String::new())
            }
            Op::Notify { source } => {
                self.put(item, op::Notify::new(self.world.sources[usize::from(source)]), |(), _| String::new())
            }
            Op::FutexWait { word, right } => {
                let value = if right { WORD } else { WORD + 1 };
                self.put(item, op::FutexWait::new(self.word(word), value), |(), _| String::new())
            }
            Op::FutexWake { word, count } => {
                self.put(item, op::FutexWake::new(self.word(word), count.into()), |count, _| count.to_string())
            }
            _ => self.on_socket(item),
        }
    }

    fn word(&self, index: u8) -> Arc<std::sync::atomic::AtomicU32> {
        self.world.words[usize::from(index)].clone()
    }

    fn transfer(&self, item: &Item) -> Made {
        let (h, len, at, now, form, writes) = match item.op {
            Op::Read { h, len, at, now, form } => (h, len, at, now, form, false),
            Op::Write { h, len, at, now, form } => (h, len, at, now, form, true),
            _ => unreachable!("not a transfer"),
        };
        /// What the four have in common.
        macro_rules! finished {
            ($op:expr, $see:expr) => {{
                let mut op = $op;
                if let Some(at) = at {
                    op = op.at(at.into());
                }
                if now {
                    op = op.nonblocking();
                }
                self.put(item, op, $see)
            }};
        }
        let fd = self.world.fd(h);
        match (form, writes) {
            (Form::Plain, true) => {
                finished!(op::Write::new(fd, self.bytes(len)), |count, _| count.to_string())
            }
            (Form::Plain, false) if len == 0 => {
                let nothing: &'static mut [u8] = &mut [];
                finished!(op::Read::new(fd, nothing), |count, _| count.to_string())
            }
            (Form::Plain, false) => {
                finished!(op::Read::new(fd, vec![0; len.into()]), |count, op| summary(&op.into_buf()[..count]))
            }
            (Form::Vectored(first), true) => {
                let [a, b] = self.lent(self.bytes(len), first);
                // SAFETY: what is lent stays until the world is dropped, after all operations; nothing changes it.
                let parts = unsafe { &*self.world.lend([IoSlice::new(&*a), IoSlice::new(&*b)]) };
                finished!(op::Writev::new(fd, parts.as_slice()), |count, _| count.to_string())
            }
            (Form::Vectored(first), false) => {
                let [a, b] = self.lent(vec![0; len.into()], first);
                // SAFETY: what is lent stays until the world is dropped, after all operations. Only this one uses it.
                let parts = unsafe { &mut *self.world.lend([IoSliceMut::new(&mut *a), IoSliceMut::new(&mut *b)]) };
                finished!(op::Readv::new(fd, parts.as_mut_slice()), move |count, _| {
                    // SAFETY: as above; the operation is over.
                    let bytes = unsafe { [&**a, &**b].concat() };
                    summary(&bytes[..count])
                })
            }
        }
    }

    /// What gives or takes a descriptor.
    fn opening(&self, item: &Item) -> Made {
        let world = self.world.clone();
        let keep = move |slot: u8, fd: OwnedFd| {
            if usize::from(slot) < SLOTS {
                world.keep(slot, fd);
            }
        };
        match item.op {
            Op::Open { name, flags, keep: slot } => {
                let flags = op::OpenFlags::from_bits_retain(flags);
                let open = op::OpenAt::new(World::name(name)).dir(self.world.fd(H::Dir)).flags(flags).mode(0o640);
                self.put(item, open, move |fd, _| {
                    keep(slot, fd);
                    "opened".into()
                })
            }
            Op::Close { keep: slot } => {
                let held = self.world.open.borrow_mut()[usize::from(slot)].take();
                match held.and_then(Arc::into_inner) {
                    Some(fd) => self.put(item, op::Close::new(fd), |(), _| "closed".into()),
                    None => self.put(item, op::Nop::new(), |(), _| "nothing to close".into()),
                }
            }
            Op::Pipe { keep: slot } => self.put(item, op::Pipe::new(), move |(output, input), _| {
                keep(slot, output);
                keep(slot + 1, input);
                "made".into()
            }),
            Op::Socket { domain, kind, keep: slot } => {
                use op::{Domain, SocketType};
                let domain = [Domain::V4, Domain::Unix, Domain::V6, Domain::Other(99)][usize::from(domain) % 4];
                let kind = [SocketType::Stream, SocketType::Datagram, SocketType::Other(77)][usize::from(kind) % 3];
                self.put(item, op::Socket::new(domain, kind), move |fd, _| {
                    keep(slot, fd);
                    "made".into()
                })
            }
            Op::Accept { h, now, keep: slot } => {
                let accept = op::Accept::new(self.world.fd(h));
                let accept = if now { accept.nonblocking() } else { accept };
                self.put(item, accept, move |accepted, _| {
                    let text = format!("from {:?}", accepted.peer.domain());
                    slot.into_iter().for_each(|slot| keep(slot, accepted.fd.try_clone().unwrap()));
                    text
                })
            }
            _ => unreachable!("opens nothing"),
        }
    }

    fn names(&self, item: &Item) -> Made {
        let (dir, name) = (|| self.world.fd(H::Dir), World::name);
        let seen = |stat: op::StatxResult| {
            let len = if stat.file_type() == op::FileType::Directory { 0 } else { stat.len() };
            format!("{:?} of {len}, {:o}", stat.file_type(), stat.permissions())
        };
        match item.op {
            Op::Statx { name: path, follow } => {
                let flags = if follow { op::StatxFlags::empty() } else { op::StatxFlags::NO_FOLLOW };
                self.put(item, op::Statx::new(name(path)).dir(dir()).flags(flags), move |stat, _| seen(stat))
            }
            Op::StatxOf { h } => self.put(item, op::Statx::of(self.world.fd(h)), move |stat, _| seen(stat)),
            Op::Rename { from, to, flags } => {
                let flags = op::RenameFlags::from_bits_retain(flags);
                let rename = op::RenameAt::new(name(from), name(to)).from_dir(dir()).to_dir(dir()).flags(flags);
                self.put(item, rename, |(), _| String::new())
            }
            Op::Unlink { name: path, directory } => {
                let unlink = op::UnlinkAt::new(name(path)).dir(dir());
                self.put(item, if directory { unlink.directory() } else { unlink }, |(), _| String::new())
            }
            Op::MkDir { name: path, mode } => {
                self.put(item, op::MkDirAt::new(name(path)).dir(dir()).mode(mode.into()), |(), _| String::new())
            }
            Op::Symlink { target, name: path } => {
                self.put(item, op::SymlinkAt::new(name(target), name(path)).dir(dir()), |(), _| String::new())
            }
            Op::Link { from, to, follow } => {
                let link = op::LinkAt::new(name(from), name(to)).from_dir(dir()).to_dir(dir());
                self.put(item, if follow { link.follow() } else { link }, |(), _| String::new())
            }
            _ => unreachable!("names nothing"),
        }
    }

    fn on_socket(&self, item: &Item) -> Made {
        let fd = |h| self.world.fd(h);
        let address = |to: Target| self.world.address(to);
        match item.op {
            Op::Bind { h, to } => self.put(item, op::Bind::new(fd(h), address(to)), |(), _| String::new()),
            Op::Listen { h } => self.put(item, op::Listen::new(fd(h), 8), |(), _| String::new()),
            Op::Connect { h, to } => self.put(item, op::Connect::new(fd(h), address(to)), |(), _| String::new()),
            Op::Recv { h, len, flags, now } => {
                let flags = op::RecvFlags::from_bits_retain(flags);
                if len == 0 {
                    let nothing: &'static mut [u8] = &mut [];
                    let recv = op::Recv::new(fd(h), nothing).flags(flags);
                    return self.put(item, if now { recv.nonblocking() } else { recv }, |count, _| count.to_string());
                }
                let recv = op::Recv::new(fd(h), vec![0; len.into()]).flags(flags);
                let recv = if now { recv.nonblocking() } else { recv };
                self.put(item, recv, |count, op| summary(&op.into_buf()[..count]))
            }
            Op::Send { h, len, flags, now } => {
                let send = op::Send::new(fd(h), self.bytes(len)).flags(op::SendFlags::from_bits_retain(flags));
                self.put(item, if now { send.nonblocking() } else { send }, |count, _| count.to_string())
            }
            Op::RecvFrom { h, len, now } => {
                let recv = op::RecvFrom::new(fd(h), vec![0; usize::from(len).max(1)]);
                let recv = if now { recv.nonblocking() } else { recv };
                self.put(item, recv, |(count, from), op| {
                    format!("{} from {:?}", summary(&op.into_buf()[..count]), from.ip().map(|ip| ip.ip()))
                })
            }
            Op::SendTo { h, len, to } => {
                self.put(item, op::SendTo::new(fd(h), self.bytes(len), address(to)), |count, _| count.to_string())
            }
            Op::RecvMsg { .. } | Op::SendMsg { .. } => self.message(item),
            Op::Shutdown { h, how } => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][usize::from(how) % 3];
                self.put(item, op::Shutdown::new(fd(h), how), |(), _| String::new())
            }
            Op::Set { h, to } => self.set(item, h, to),
            Op::Get { h, what } => self.get(item, h, what),
            _ => unreachable!("not on a socket"),
        }
    }

    fn message(&self, item: &Item) -> Made {
        match item.op {
            Op::RecvMsg { h, lens, flags, now } => {
                let [a, b] = self.lent(vec![0; usize::from(lens.0) + usize::from(lens.1)], lens.0);
                // SAFETY: what is lent stays until the world is dropped, after all operations. Only this one uses it.
                let (parts, room) = unsafe {
                    let parts = self.world.lend([IoSliceMut::new(&mut *a), IoSliceMut::new(&mut *b)]);
                    (&mut *parts, &mut *self.world.lend(op::Control::for_rights(1)))
                };
                let recv = op::RecvMsg::new(self.world.fd(h), parts.as_mut_slice());
                let recv = recv.control(room).flags(op::RecvFlags::from_bits_retain(flags));
                self.put(item, if now { recv.nonblocking() } else { recv }, move |got, op| {
                    drop(op);
                    // SAFETY: as above; the operation is over.
                    let bytes = unsafe { [&**a, &**b].concat() };
                    let from = got.peer.map(|peer| peer.domain());
                    let text = summary(&bytes[..got.len.min(bytes.len())]);
                    format!(
                        "{} {text} from {from:?} with {}, {:x}",
                        got.len,
                        got.control.len(),
                        got.flags & !libc::MSG_CMSG_CLOEXEC
                    )
                })
            }
            Op::SendMsg { h, lens, rights, now } => {
                let [a, b] = self.lent(self.bytes(usize::from(lens.0) + usize::from(lens.1)), lens.0);
                // SAFETY: what is lent stays until the world is dropped, after all operations; nothing changes it.
                let parts = unsafe { &*self.world.lend([IoSlice::new(&*a), IoSlice::new(&*b)]) };
                let mut send = op::SendMsg::new(self.world.fd(h), parts.as_slice());
                if rights {
                    let sent = self.world.lend(self.world.fd(H::File(0)));
                    // SAFETY: as above.
                    let control = op::Control::new().rights(&[unsafe { (*sent).as_fd() }]);
                    // SAFETY: as above.
                    send = send.control(unsafe { &*self.world.lend(control) });
                }
                self.put(item, if now { send.nonblocking() } else { send }, |count, _| count.to_string())
            }
            _ => unreachable!("not a message"),
        }
    }

    fn set(&self, item: &Item, h: H, to: Setting) -> Made {
        let fd = self.world.fd(h);
        let (seconds, none) = (|n: u8| Duration::from_secs(n.into()), |(), _| String::new());
        match to {
            Setting::NoDelay(on) => self.put(item, op::SetSockOpt::new(fd, option::NoDelay, on), none),
            Setting::KeepAlive(on) => {
                self.put(item, op::SetSockOpt::new(fd, option::KeepAlive, on), |(), _| String::new())
            }
            Setting::Linger(time) => {
                self.put(item, op::SetSockOpt::new(fd, option::Linger, time.map(seconds)), |(), _| String::new())
            }
            Setting::RecvTimeout(time) => {
                self.put(item, op::SetSockOpt::new(fd, option::RecvTimeout, Some(seconds(time))), |(), _| String::new())
            }
            Setting::Ttl(hops) => {
                self.put(item, op::SetSockOpt::new(fd, option::Ttl, hops.into()), |(), _| String::new())
            }
        }
    }

    fn get(&self, item: &Item, h: H, what: Question) -> Made {
        let fd = self.world.fd(h);
        macro_rules! ask {
            ($option:ident) => {
                self.put(item, op::GetSockOpt::new(fd, option::$option), |value, _| format!("{value:?}"))
            };
        }
        match what {
            Question::NoDelay => ask!(NoDelay),
            Question::KeepAlive => ask!(KeepAlive),
            Question::Type => ask!(Type),
            Question::Error => ask!(SocketError),
            Question::Ttl => ask!(Ttl),
            Question::Linger => ask!(Linger),
        }
    }
}
