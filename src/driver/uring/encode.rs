//! From plain operations to submission queue entries.

use super::direct;
use crate::{
    driver::slot::Slot,
    op::{CURRENT_POSITION, Clock, Fd, Multi, RawOp, Target},
    sys::Timespec,
};
use io_uring::{
    opcode,
    squeue::{Entry, Flags},
    types::{self, CancelBuilder, DestinationSlot, FsyncFlags, TimeoutFlags},
};

/// `IORING_ACCEPT_DONTWAIT` (6.10), which the crate lacks. It goes where other operations have their priority.
const ACCEPT_DONTWAIT: u16 = 1 << 1;

/// `.nonblocking()` as a flag of one read or write.
fn rw_flags(nowait: bool) -> i32 {
    if nowait { libc::RWF_NOWAIT } else { 0 }
}

/// `FUTEX2_SIZE_U32 | FUTEX2_PRIVATE`, and `FUTEX_BITSET_MATCH_ANY`.
const FUTEX_FLAGS: u32 = 2 | 128;
const ANY_WAKER: u64 = u32::MAX as u64;

/// `struct io_uring_sqe`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Fields {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) ioprio: u16,
    pub(super) fd: i32,
    offset: u64,
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) op_flags: u32,
    pub(super) user_data: u64,
    pub(super) buffer: u16,
    personality: u16,
    file: u32,
    rest: [u64; 2],
}

const _: () = assert!(size_of::<Fields>() == size_of::<Entry>());

impl Fields {
    #[inline]
    pub(super) fn new(opcode: u8, fd: Fd, address: u64, len: u32, offset: u64, op_flags: u32) -> Fields {
        let (flags, fd) = match fd.place() {
            None => (0, fd.number()),
            Some(place) => (Flags::FIXED_FILE.bits(), place as i32),
        };
        let (buffer, personality, file, rest) = (0, 0, 0, [0; 2]);
        Fields {
            opcode,
            flags,
            ioprio: 0,
            fd,
            offset,
            address,
            len,
            op_flags,
            user_data: 0,
            buffer,
            personality,
            file,
            rest,
        }
    }

    /// A read or write of registered memory, if it has a number.
    #[inline]
    fn of_memory(mut self, buffer: u16, opcode: u8) -> Fields {
        if buffer != 0 {
            (self.opcode, self.buffer) = (opcode, buffer - 1);
        }
        self
    }
}

/// Writes the whole entry for an operation that is [basic](RawOp::is_basic); tells whether it is.
///
/// Field by field: an entry that the crate builds goes through the frame, and copying it while its parts are still on
/// their way to memory stalls for longer than a no-op takes.
///
/// # Safety
/// `entry` is a place in the submission queue.
#[inline]
pub(super) unsafe fn write_common(op: &RawOp, entry: *mut Entry, flags: Flags, user_data: u64) -> bool {
    let mut fields = match *op {
        RawOp::Nop => Fields::new(opcode::Nop::CODE, Fd::new(-1), 0, 0, 0, 0),
        RawOp::Read { fd, buf, len, offset, nowait, buffer } if !fd.is_opened() => {
            // Kernels before 6.4 would have a read of nothing wait until a pipe is readable.
            let flags = rw_flags(nowait || len == 0 && fd.place().is_none());
            let fields = Fields::new(opcode::Read::CODE, fd, buf as u64, len, offset, flags as u32);
            fields.of_memory(buffer, opcode::ReadFixed::CODE)
        }
        RawOp::Write { fd, buf, len, offset, nowait, buffer } if !fd.is_opened() => {
            let flags = rw_flags(nowait) as u32;
            let fields = Fields::new(opcode::Write::CODE, fd, buf as u64, len, offset, flags);
            fields.of_memory(buffer, opcode::WriteFixed::CODE)
        }
        RawOp::Recv { fd, buf, len, flags } if !fd.is_opened() => {
            Fields::new(opcode::Recv::CODE, fd, buf as u64, len, 0, flags as u32)
        }
        RawOp::Send { fd, buf, len, flags } if !fd.is_opened() => {
            Fields::new(opcode::Send::CODE, fd, buf as u64, len, 0, flags as u32)
        }
        _ => return false,
    };
    fields.flags |= flags.bits();
    fields.user_data = user_data;
    // SAFETY: promised by the caller; the layouts are the same.
    unsafe { entry.cast::<Fields>().write(fields) };
    true
}

/// The entry for any other operation, but for flags of a chain and `user_data`. Its pointers are the operation's own,
/// or point into the slot.
pub(super) fn encode(slot: &Slot) -> Entry {
    let mut op = slot.op;
    let mut fixed = false;
    for fd in op.fds_mut().into_iter().flatten().filter(|fd| fd.is_opened()) {
        let index = direct::index(slot.opened().get());
        fixed = index.is_some();
        *fd = Fd::new(index.map_or(slot.opened().get(), |index| index as i32));
    }
    if let RawOp::Splice { from, to, flags, .. } = &mut op {
        // Both ends may be in the table; the entry's flag is for the one that is written to.
        if let Some(place) = from.place() {
            (*from, *flags) = (Fd::new(place as i32), *flags | SPLICE_FD_IN_FIXED);
        }
        fixed |= in_table(to);
    } else if let Some(fd) = { op.fds_mut() }.into_iter().flatten().next() {
        fixed |= in_table(fd);
    }
    if let (RawOp::Close { fd }, true) = (op, fixed) {
        return opcode::Close::new(types::Fixed(fd.number() as u32)).build();
    }
    let entry = encode_file(&op, slot).or_else(|| encode_path(&op, slot)).unwrap_or_else(|| encode_other(&op, slot));
    if fixed { entry.flags(Flags::FIXED_FILE) } else { entry }
}

/// `SPLICE_F_FD_IN_FIXED`.
const SPLICE_FD_IN_FIXED: u32 = 1 << 31;

/// Turns a descriptor that is a place of the table into the entry's number of it; tells whether it is one.
fn in_table(fd: &mut Fd) -> bool {
    let Some(place) = fd.place() else { return false };
    *fd = Fd::new(place as i32);
    true
}

/// Where an operation is to put what it opens, if not into the process's table.
fn destination(target: Target) -> Option<DestinationSlot> {
    match target {
        Target::Place(place) => DestinationSlot::try_from_slot_target(place).ok(),
        Target::Table | Target::Chain => None,
    }
}

/// Operations on open files.
fn encode_file(op: &RawOp, _slot: &Slot) -> Option<Entry> {
    let fd = |fd: Fd| types::Fd(fd.number());
    Some(match *op {
        // What its chain opens is read by way of plain buffers; see `write_common` for the others.
        RawOp::Read { fd: f, buf, len, offset, nowait, .. } => {
            opcode::Read::new(fd(f), buf, len).offset(offset).rw_flags(rw_flags(nowait)).build()
        }
        RawOp::Write { fd: f, buf, len, offset, nowait, .. } => {
            opcode::Write::new(fd(f), buf, len).offset(offset).rw_flags(rw_flags(nowait)).build()
        }
        RawOp::Readv { fd: f, iov, count, offset, nowait } => {
            opcode::Readv::new(fd(f), iov, count).offset(offset).rw_flags(rw_flags(nowait)).build()
        }
        RawOp::Writev { fd: f, iov, count, offset, nowait } => {
            opcode::Writev::new(fd(f), iov, count).offset(offset).rw_flags(rw_flags(nowait)).build()
        }
        RawOp::Fsync { fd: f, data_only } => {
            let flags = if data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
            opcode::Fsync::new(fd(f)).flags(flags).build()
        }
        RawOp::Close { fd: f } => opcode::Close::new(fd(f)).build(),
        RawOp::Truncate { fd: f, len } => opcode::Ftruncate::new(fd(f), len).build(),
        RawOp::Allocate { fd: f, mode, offset, len } => {
            opcode::Fallocate::new(fd(f), len).offset(offset).mode(mode).build()
        }
        RawOp::Advise { fd: f, offset, len, advice } => {
            opcode::Fadvise::new(fd(f), len as libc::off_t, advice).offset(offset).build()
        }
        RawOp::Splice { from, from_offset, to, to_offset, len, flags } => {
            opcode::Splice::new(fd(from), from_offset as i64, fd(to), to_offset as i64, len).flags(flags).build()
        }
        RawOp::Tee { from, to, len, flags } => opcode::Tee::new(fd(from), fd(to), len).flags(flags).build(),
        _ => return None,
    })
}

/// Operations on names.
fn encode_path(op: &RawOp, slot: &Slot) -> Option<Entry> {
    let fd = |fd: Fd| types::Fd(fd.number());
    Some(match *op {
        RawOp::Open { dir, path, flags, mode, target } => {
            let place = match target {
                Target::Chain => direct::index(slot.opened().get()),
                Target::Place(place) => Some(place),
                Target::Table => None,
            };
            let place = place.and_then(|index| DestinationSlot::try_from_slot_target(index).ok());
            // A direct descriptor has no close-on-exec flag; the kernel refuses it.
            let flags = if place.is_some() { flags & !libc::O_CLOEXEC } else { flags };
            opcode::OpenAt::new(fd(dir), path).flags(flags).mode(mode).file_index(place).build()
        }
        RawOp::Statx { dir, path, flags, mask, out } => {
            opcode::Statx::new(fd(dir), path, out.cast()).flags(flags).mask(mask).build()
        }
        RawOp::Rename { from_dir, from, to_dir, to, flags } => {
            opcode::RenameAt::new(fd(from_dir), from, fd(to_dir), to).flags(flags).build()
        }
        RawOp::Unlink { dir, path, flags } => opcode::UnlinkAt::new(fd(dir), path).flags(flags).build(),
        RawOp::Mkdir { dir, path, mode } => opcode::MkDirAt::new(fd(dir), path).mode(mode).build(),
        RawOp::Symlink { target, dir, path } => opcode::SymlinkAt::new(fd(dir), target, path).build(),
        RawOp::Link { from_dir, from, to_dir, to, flags } => {
            opcode::LinkAt::new(fd(from_dir), from, fd(to_dir), to).flags(flags).build()
        }
        _ => return None,
    })
}

/// Sockets, time, and the rest.
fn encode_other(op: &RawOp, slot: &Slot) -> Entry {
    let fd = |fd: Fd| types::Fd(fd.number());
    match *op {
        RawOp::Socket { domain, kind, protocol, target } => {
            let place = destination(target);
            let kind = if place.is_some() { kind & !libc::SOCK_CLOEXEC } else { kind };
            opcode::Socket::new(domain, kind, protocol).file_index(place).build()
        }
        RawOp::Bind { fd: f, addr, len } => opcode::Bind::new(fd(f), addr, len).build(),
        RawOp::Listen { fd: f, backlog } => opcode::Listen::new(fd(f), backlog).build(),
        RawOp::Accept { fd: f, addr, len, flags, nowait, target } => {
            let place = destination(target);
            let flags = if place.is_some() { flags & !libc::SOCK_CLOEXEC } else { flags };
            let entry = opcode::Accept::new(fd(f), addr, len).flags(flags).file_index(place).build();
            if nowait { with_ioprio(entry, ACCEPT_DONTWAIT) } else { entry }
        }
        RawOp::Install { fd: f } => opcode::FixedFdInstall::new(types::Fixed(f.number() as u32), 0).build(),
        RawOp::Connect { fd: f, addr, len } => opcode::Connect::new(fd(f), addr, len).build(),
        RawOp::Recv { fd: f, buf, len, flags } => opcode::Recv::new(fd(f), buf, len).flags(flags).build(),
        RawOp::Send { fd: f, buf, len, flags } => opcode::Send::new(fd(f), buf, len).flags(flags).build(),
        RawOp::RecvMsg { fd: f, msg, flags } => opcode::RecvMsg::new(fd(f), msg).flags(flags as u32).build(),
        RawOp::SendMsg { fd: f, msg, flags } => opcode::SendMsg::new(fd(f), msg).flags(flags as u32).build(),
        RawOp::SendZc { fd: f, buf, len, flags } => opcode::SendZc::new(fd(f), buf, len).flags(flags).build(),
        RawOp::SendMsgZc { fd: f, msg, flags } => opcode::SendMsgZc::new(fd(f), msg).flags(flags as u32).build(),
        RawOp::Shutdown { fd: f, how } => opcode::Shutdown::new(fd(f), how).build(),
        RawOp::SetSockOpt { fd: f, level, name, value, len } => {
            opcode::SetSockOpt::new(fd(f), level as u32, name as u32, value, len).build()
        }
        RawOp::GetSockOpt { fd: f, level, name, value, len } => get_sock_opt(f, level, name, value, len),
        RawOp::Poll { fd: f, events } => opcode::PollAdd::new(fd(f), u32::from(events)).build(),
        RawOp::ChildExit { pidfd, .. } => poll(pidfd, libc::POLLIN as u16),
        RawOp::Timeout { .. } => timeout(slot),
        RawOp::Pipe { fds, flags } => opcode::Pipe::new(fds).flags(flags as u32).build(),
        RawOp::WaitId { which, id, flags, info } => opcode::WaitId::new(which, id, flags).infop(info).build(),
        RawOp::FutexWait { word, value } => {
            opcode::FutexWait::new(word.cast(), value.into(), ANY_WAKER, FUTEX_FLAGS).build()
        }
        RawOp::FutexWake { word, count } => {
            opcode::FutexWake::new(word.cast(), count.into(), ANY_WAKER, FUTEX_FLAGS).build()
        }
        // SAFETY: an entry is 64 bytes of plain data, and every bit pattern is one. The operation's pointers are valid,
        // as `RawOp` demands, this one among them.
        RawOp::Entry(entry) => unsafe { std::mem::transmute::<[u64; 8], Entry>(*entry) },
        RawOp::CancelFd { .. } => cancel_fd(slot),
        // An entry that is sure to fail in its turn, as the operation itself has to.
        _ => opcode::Fsync::new(types::Fd(-1)).build(),
    }
}

/// How much of a multishot operation an entry is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// As much as the kernel does by itself.
    All,
    /// One result. The first is attempted at once, which takes a buffer whether something has come or not; for the
    /// others readiness is waited for.
    First,
    Next,
}

/// A multishot operation that the kernel does by itself; or one result of it, into a buffer that the kernel takes.
pub(super) fn multi(fd: Fd, what: &Multi, extent: Extent) -> Entry {
    const POLL_FIRST: u16 = 1;
    let mut fd = fd;
    let fixed = in_table(&mut fd);
    let fd = types::Fd(fd.number());
    // SAFETY: whoever submits the operation keeps its pool.
    let group = what.pool().map_or(0, |pool| unsafe { (*pool).group });
    let entry = match *what {
        Multi::Recv { flags, .. } if extent != Extent::All => {
            let receive = opcode::Recv::new(fd, std::ptr::null_mut(), 0).flags(flags).buf_group(group);
            let receive = if extent == Extent::Next { receive.ioprio(POLL_FIRST) } else { receive };
            receive.build().flags(Flags::BUFFER_SELECT)
        }
        Multi::Accept => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
        Multi::Recv { flags, once: true, .. } => {
            // A length of zero: as much as the buffer takes.
            let receive = opcode::Recv::new(fd, std::ptr::null_mut(), 0).flags(flags).buf_group(group).build();
            receive.flags(Flags::BUFFER_SELECT)
        }
        Multi::Recv { flags, bundled: true, .. } => opcode::RecvMultiBundle::new(fd, group).flags(flags).build(),
        Multi::Recv { flags, .. } => opcode::RecvMulti::new(fd, group).flags(flags).build(),
        Multi::Read { .. } => opcode::ReadMulti::new(fd, 0, group).offset(CURRENT_POSITION).build(),
        Multi::RecvMsg { msg, flags, .. } => opcode::RecvMsgMulti::new(fd, msg, group).flags(flags as u32).build(),
        Multi::Poll { .. } | Multi::Timeout { .. } => unreachable!("done by the driver"),
    };
    if fixed { entry.flags(Flags::FIXED_FILE) } else { entry }
}

pub(super) fn poll(mut fd: Fd, events: u16) -> Entry {
    let fixed = in_table(&mut fd);
    let entry = opcode::PollAdd::new(types::Fd(fd.number()), u32::from(events)).build();
    if fixed { entry.flags(Flags::FIXED_FILE) } else { entry }
}

fn cancel_fd(slot: &Slot) -> Entry {
    let RawOp::CancelFd { fd } = slot.op else { unreachable!("called for these only") };
    let which = match fd.place() {
        Some(place) => CancelBuilder::fd(types::Fixed(place)),
        None => CancelBuilder::fd(types::Fd(fd.number())),
    };
    opcode::AsyncCancel2::new(which.all()).build()
}

/// Sets what the crate has no name for.
fn with_ioprio(entry: Entry, ioprio: u16) -> Entry {
    // SAFETY: an entry is 64 bytes of plain data without padding, every bit pattern is one, and the layouts are the
    // same.
    unsafe {
        let mut fields: Fields = std::mem::transmute(entry);
        fields.ioprio |= ioprio;
        std::mem::transmute(fields)
    }
}

pub(super) fn cancel(user_data: u64) -> Entry {
    opcode::AsyncCancel::new(user_data).build()
}

pub(super) fn linked_timeout(limit: &Timespec) -> Entry {
    opcode::LinkTimeout::new(kernel_time(limit)).build()
}

fn timeout(slot: &Slot) -> Entry {
    let RawOp::Timeout { clock, absolute, at } = &slot.op else { unreachable!("called for timeouts only") };
    let clock = match clock {
        Clock::Monotonic => TimeoutFlags::empty(),
        Clock::Boot => TimeoutFlags::BOOTTIME,
        Clock::Realtime => TimeoutFlags::REALTIME,
    };
    let absolute = if *absolute { TimeoutFlags::ABS } else { TimeoutFlags::empty() };
    // Only a chain of the kernel's needs to be told that expiring is no failure; the flag is of 5.16.
    let success = if slot.is_chained() { TimeoutFlags::ETIME_SUCCESS } else { TimeoutFlags::empty() };
    opcode::Timeout::new(kernel_time(at)).flags(clock | absolute | success).build()
}

/// The crate's own type of the same layout, two 64-bit numbers.
fn kernel_time(time: &Timespec) -> *const types::Timespec {
    const _: () = assert!(size_of::<types::Timespec>() == size_of::<Timespec>());
    std::ptr::from_ref(time).cast()
}

/// `SOCKET_URING_OP_GETSOCKOPT`, which the crate lacks: as its `SetSockOpt`, with another command.
fn get_sock_opt(fd: Fd, level: i32, name: i32, value: *mut libc::c_void, len: u32) -> Entry {
    const COMMAND: usize = 8;
    const GETSOCKOPT: u32 = 2;
    let entry = opcode::SetSockOpt::new(types::Fd(fd.number()), level as u32, name as u32, value, len).build();
    // SAFETY: an entry is 64 bytes of plain data without padding, and every bit pattern is one.
    unsafe {
        let mut bytes: [u8; 64] = std::mem::transmute(entry);
        bytes[COMMAND..COMMAND + 4].copy_from_slice(&GETSOCKOPT.to_ne_bytes());
        std::mem::transmute(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::files::Kind;

    fn fields(op: RawOp) -> Fields {
        let mut entry = opcode::Nop::new().build();
        // SAFETY: the entry is a local; the layouts are the same.
        unsafe {
            assert!(write_common(&op, &mut entry, Flags::IO_LINK, 7));
            std::mem::transmute(entry)
        }
    }

    #[test]
    fn registered_memory_and_places_of_the_table() {
        let (fd, buf) = (Fd::in_table(300, Kind::Disk), std::ptr::null_mut());
        let read = fields(RawOp::Read { fd, buf, len: 5, offset: 9, nowait: false, buffer: 3 });
        assert_eq!((read.opcode, read.buffer, read.fd, read.user_data), (opcode::ReadFixed::CODE, 2, 300, 7));
        assert_eq!(read.flags, (Flags::FIXED_FILE | Flags::IO_LINK).bits());
        let fd = Fd::new(4);
        let write = fields(RawOp::Write { fd, buf, len: 5, offset: 9, nowait: false, buffer: 0 });
        assert_eq!((write.opcode, write.buffer, write.fd), (opcode::Write::CODE, 0, 4));
        assert_eq!(write.flags, Flags::IO_LINK.bits());
    }
}
