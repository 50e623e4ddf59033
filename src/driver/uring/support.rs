//! What a ring can do by itself, opcode by opcode.

use super::{ring::Ring, setup};
use crate::op::RawOp;
use io_uring::opcode;

/// Opcodes that a ring supports. What it lacks is done by ordinary system calls, operation by operation.
#[derive(Clone, Copy, Default)]
pub(crate) struct Support {
    mkdir: bool,
    symlink: bool,
    link: bool,
    socket: bool,
    truncate: bool,
    bind: bool,
    listen: bool,
    socket_options: bool,
    links_late: bool,
    waits_nonblocking: bool,
    cancel_by_fd: bool,
    multishot: bool,
    send_zc: bool,
    send_msg_zc: bool,
    pipe: bool,
    futex: bool,
    wait_id: bool,
    accepts_nonblocking: bool,
    files: bool,
    bundles: bool,
}

impl Support {
    pub(crate) fn of(ring: &Ring) -> Support {
        let opcodes = if ring.uses_new_opcodes() { setup::probe(ring.fd()) } else { None };
        let Some(opcodes) = opcodes else { return Support::default() };
        let has = |code: u8| opcodes.has(code);
        Support {
            mkdir: has(opcode::MkDirAt::CODE),
            symlink: has(opcode::SymlinkAt::CODE),
            link: has(opcode::LinkAt::CODE),
            socket: has(opcode::Socket::CODE),
            truncate: has(opcode::Ftruncate::CODE),
            bind: has(opcode::Bind::CODE),
            listen: has(opcode::Listen::CODE),
            // The probe does not tell about commands of sockets; they came with the futex opcodes in 6.7.
            socket_options: has(opcode::FutexWait::CODE),
            // Files are looked up late since 5.17, when this feature bit came; `IORING_TIMEOUT_ETIME_SUCCESS` is of
            // 5.16.
            links_late: ring.skips_completions(),
            // Both came in 5.19, with the socket opcode.
            waits_nonblocking: has(opcode::Socket::CODE),
            cancel_by_fd: has(opcode::Socket::CODE),
            // The last of them, in 6.7; rings of buffers are of 5.19.
            multishot: has(opcode::ReadMulti::CODE),
            send_zc: has(opcode::SendZc::CODE),
            send_msg_zc: has(opcode::SendMsgZc::CODE),
            pipe: has(opcode::Pipe::CODE),
            wait_id: has(opcode::WaitId::CODE),
            futex: has(opcode::FutexWait::CODE) && has(opcode::FutexWake::CODE),
            // `IORING_ACCEPT_DONTWAIT` came with that feature bit.
            accepts_nonblocking: ring.sends_bundles(),
            // Whatever works on a descriptor works on a place of the table: the last to come were these, in 6.11.
            // They are there since 6.10, and took until 6.16 to be right; so did pipes.
            bundles: ring.sends_bundles() && has(opcode::Pipe::CODE),
            files: has(opcode::Bind::CODE) && has(opcode::Listen::CODE) && has(opcode::FixedFdInstall::CODE),
        }
    }

    /// Whether the ring does multishot operations, with buffers that the kernel takes.
    #[inline]
    pub(crate) fn multishot(&self) -> bool {
        self.multishot
    }

    /// Whether one completion of a receive may tell of several buffers.
    pub(crate) fn bundles(&self) -> bool {
        self.bundles
    }

    /// Whether the ring does all that is done with files of its table.
    pub(crate) fn files(&self) -> bool {
        self.files
    }

    /// Whether the ring does this operation, when nothing is linked to it.
    #[inline]
    pub(crate) fn has(&self, op: &RawOp) -> bool {
        match op {
            RawOp::Mkdir { .. } => self.mkdir,
            RawOp::Symlink { .. } => self.symlink,
            RawOp::Link { .. } => self.link,
            RawOp::Socket { .. } => self.socket,
            RawOp::Truncate { .. } => self.truncate,
            RawOp::Bind { .. } => self.bind,
            RawOp::Listen { .. } => self.listen,
            RawOp::SetSockOpt { .. } => self.socket_options,
            // The kernel's command reads options of the socket level only.
            RawOp::GetSockOpt { level, .. } => self.socket_options && *level == libc::SOL_SOCKET,
            // Alone it saves nothing over the system call, which does not wait either; many at once do.
            RawOp::Accept { nowait, .. } => !nowait || self.accepts_nonblocking || op.needs_ring(),
            RawOp::Install { fd } => self.files && fd.place().is_some(),
            RawOp::CancelFd { .. } => self.cancel_by_fd,
            RawOp::SendZc { .. } => self.send_zc,
            RawOp::SendMsgZc { .. } => self.send_msg_zc,
            RawOp::Pipe { .. } => self.pipe,
            RawOp::FutexWait { .. } | RawOp::FutexWake { .. } => self.futex,
            RawOp::WaitId { .. } => self.wait_id,
            RawOp::Invalid(_) | RawOp::Wake { .. } => false,
            _ => true,
        }
    }

    /// Whether the ring does this operation inside a chain of its own.
    #[inline]
    pub(crate) fn in_chain(&self, op: &RawOp) -> bool {
        match op {
            // Kernels before 5.17 look at the descriptors of all entries first, and fail the whole chain if one is bad.
            RawOp::Invalid(_) | RawOp::Timeout { .. } => self.links_late,
            // When its wait is cancelled the kernel says so, but takes it for a success that breaks no link, and a
            // linked timeout that has done it does not say that it has expired (seen on Linux 6.18).
            RawOp::FutexWait { .. } => false,
            _ => {
                let waits = self.waits_nonblocking || op.readiness().is_none();
                self.has(op) && waits && (op.takes_direct() || !op.names_opened())
            }
        }
    }
}
