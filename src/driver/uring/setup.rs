//! The system calls that make and configure a ring, and their structures.

use crate::sys::ret;
use io_uring::{opcode, types};
use std::os::fd::RawFd;

pub(super) const CQSIZE: u32 = 1 << 3;
pub(super) const CLAMP: u32 = 1 << 4;
pub(super) const SUBMIT_ALL: u32 = 1 << 7;
pub(super) const COOP_TASKRUN: u32 = 1 << 8;
pub(super) const TASKRUN_FLAG: u32 = 1 << 9;
pub(super) const SINGLE_ISSUER: u32 = 1 << 12;
pub(super) const DEFER_TASKRUN: u32 = 1 << 13;
pub(super) const NO_SQARRAY: u32 = 1 << 16;

pub(super) const FEATURE_SINGLE_MMAP: u32 = 1 << 0;
pub(super) const FEATURE_NODROP: u32 = 1 << 1;
pub(super) const FEATURE_SUBMIT_STABLE: u32 = 1 << 2;
pub(super) const FEATURE_RW_CUR_POS: u32 = 1 << 3;
pub(super) const FEATURE_EXT_ARG: u32 = 1 << 8;
pub(super) const FEATURE_CQE_SKIP: u32 = 1 << 11;
pub(super) const FEATURE_RECVSEND_BUNDLE: u32 = 1 << 14;

const UNREGISTER_BUFFERS: u32 = 1;
const UNREGISTER_FILES: u32 = 3;
const REGISTER_FILES_UPDATE: u32 = 6;
const REGISTER_PROBE: u32 = 8;
const REGISTER_FILES2: u32 = 13;
const REGISTER_BUFFERS2: u32 = 15;
const REGISTER_BUFFERS_UPDATE: u32 = 16;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const REGISTER_PBUF_RING: u32 = 22;
const UNREGISTER_PBUF_RING: u32 = 23;
const PBUF_RING_INC: u16 = 2;
const REGISTER_SEND_MSG_RING: u32 = 31;
const RSRC_REGISTER_SPARSE: u32 = 1;

/// `struct io_uring_params`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Params {
    pub(super) sq_entries: u32,
    pub(super) cq_entries: u32,
    pub(super) flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    pub(super) features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    pub(super) sq_off: SqOffsets,
    pub(super) cq_off: CqOffsets,
}

/// `struct io_sqring_offsets`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct SqOffsets {
    pub(super) head: u32,
    pub(super) tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    pub(super) flags: u32,
    dropped: u32,
    pub(super) array: u32,
    resv: u32,
    user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct CqOffsets {
    pub(super) head: u32,
    pub(super) tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    pub(super) cqes: u32,
    flags: u32,
    resv: u32,
    user_addr: u64,
}

const _: () = assert!(size_of::<Params>() == 120);

/// `io_uring_setup(2)`: a descriptor, or `-errno`. The kernel fills in the rest of the parameters.
pub(super) fn setup(entries: u32, params: &mut Params) -> i32 {
    // SAFETY: the structure has the kernel's layout.
    ret(unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut *params) } as i32)
}

/// `io_uring_register(2)`.
///
/// # Safety
/// `argument` is what `operation` takes, `count` times.
unsafe fn register<T>(fd: RawFd, operation: u32, argument: *mut T, count: u32) -> i32 {
    // SAFETY: promised by the caller.
    ret(unsafe { libc::syscall(libc::SYS_io_uring_register, fd, operation, argument, count) } as i32)
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    resv: u32,
    data: u64,
}

/// Registers a ring's descriptor with the calling thread; gives the index that stands for it.
pub(super) fn register_ring(fd: RawFd) -> Option<u32> {
    let mut update = Update { offset: u32::MAX, resv: 0, data: fd as u64 };
    // SAFETY: one update, whose offset the kernel writes.
    let count = unsafe { register(fd, REGISTER_RING_FDS, &mut update, 1) };
    (count == 1).then_some(update.offset)
}

/// Undoes `register_ring`.
pub(super) fn unregister_ring(fd: RawFd, index: u32) {
    let mut update = Update { offset: index, resv: 0, data: 0 };
    // SAFETY: one update.
    unsafe { register(fd, UNREGISTER_RING_FDS, &mut update, 1) };
}

/// `struct io_uring_rsrc_register`.
#[repr(C)]
struct Register {
    count: u32,
    flags: u32,
    resv: u64,
    data: u64,
    tags: u64,
}

/// Makes a table of `count` empty places: of direct descriptors or of buffers. 0, or `-errno`.
fn register_sparse(fd: RawFd, operation: u32, count: u32) -> i32 {
    let mut argument = Register { count, flags: RSRC_REGISTER_SPARSE, resv: 0, data: 0, tags: 0 };
    // SAFETY: the structure, whose size the kernel asks for as the count.
    unsafe { register(fd, operation, &mut argument, size_of::<Register>() as u32) }
}

/// Makes a table of `count` empty places for direct descriptors. 0, or `-errno`.
pub(super) fn register_files(fd: RawFd, count: u32) -> i32 {
    register_sparse(fd, REGISTER_FILES2, count)
}

/// Takes that table down, and closes what is in it.
pub(crate) fn unregister_files(fd: RawFd) {
    // SAFETY: it takes no argument.
    unsafe { register(fd, UNREGISTER_FILES, std::ptr::null_mut::<u8>(), 0) };
}

/// Puts a file into a place of the table, or nothing if it is -1. What was there is closed. Negative on failure.
pub(crate) fn set_file(fd: RawFd, index: u32, mut file: RawFd) -> i32 {
    let mut update = Update { offset: index, resv: 0, data: &raw mut file as u64 };
    // SAFETY: one update, which points to one number.
    unsafe { register(fd, REGISTER_FILES_UPDATE, &mut update, 1) }
}

/// Makes a table of `count` empty places for buffers. 0, or `-errno`.
pub(super) fn register_memory(fd: RawFd, count: u32) -> i32 {
    register_sparse(fd, REGISTER_BUFFERS2, count)
}

/// Takes that table down.
pub(crate) fn unregister_memory(fd: RawFd) {
    // SAFETY: it takes no argument.
    unsafe { register(fd, UNREGISTER_BUFFERS, std::ptr::null_mut::<u8>(), 0) };
}

/// Puts memory into a place of the table, or none if it is null. Negative on failure.
///
/// # Safety
/// The memory is valid for reads and writes until it is taken out again, or the ring is closed with nothing in flight.
pub(crate) unsafe fn set_memory(fd: RawFd, index: u32, start: *mut u8, len: usize) -> i32 {
    /// `struct io_uring_rsrc_update2`.
    #[repr(C)]
    struct Update2 {
        offset: u32,
        resv: u32,
        data: u64,
        tags: u64,
        count: u32,
        resv2: u32,
    }
    let mut part = libc::iovec { iov_base: start.cast(), iov_len: len };
    let data = &raw mut part as u64;
    let mut update = Update2 { offset: index, resv: 0, data, tags: 0, count: 1, resv2: 0 };
    // SAFETY: the structure, whose size the kernel asks for as the count; it points to one vector. The rest is promised
    // by the caller.
    unsafe { register(fd, REGISTER_BUFFERS_UPDATE, &mut update, size_of::<Update2>() as u32) }
}

/// `struct io_uring_buf_reg`.
#[derive(Default)]
#[repr(C)]
struct BufferRing {
    address: u64,
    entries: u32,
    group: u16,
    flags: u16,
    resv: [u64; 3],
}

/// Tells the kernel of a queue of free buffers at `address`. 0, or `-errno`.
pub(super) fn register_buffers(fd: RawFd, address: u64, entries: u32, group: u16, incremental: bool) -> i32 {
    let flags = if incremental { PBUF_RING_INC } else { 0 };
    let mut argument = BufferRing { address, entries, group, flags, ..BufferRing::default() };
    // SAFETY: one structure. The memory at the address stays until the ring is closed, or `unregister_buffers`.
    unsafe { register(fd, REGISTER_PBUF_RING, &mut argument, 1) }
}

/// Undoes `register_buffers`.
pub(super) fn unregister_buffers(fd: RawFd, group: u16) {
    let mut argument = BufferRing { group, ..BufferRing::default() };
    // SAFETY: one structure.
    unsafe { register(fd, UNREGISTER_PBUF_RING, &mut argument, 1) };
}

/// Has a ring complete an entry that it never had, with this `user_data`; from any thread, without a ring of its own
/// (Linux 6.13). 0, or `-errno`.
pub(crate) fn send_message(ring: RawFd, user_data: u64) -> i32 {
    let mut entry = opcode::MsgRingData::new(types::Fd(ring), 0, user_data, None).build();
    // SAFETY: one entry, which the kernel reads at once.
    unsafe { register(-1, REGISTER_SEND_MSG_RING, &mut entry, 1) }
}

/// Which opcodes a ring supports.
pub(super) struct Opcodes(Vec<u64>);

/// Asks for them.
pub(super) fn probe(fd: RawFd) -> Option<Opcodes> {
    const ENTRIES: usize = 256;
    // `struct io_uring_probe`: 16 bytes of header, then 8 for each opcode.
    let mut answer = vec![0u64; 2 + ENTRIES];
    // SAFETY: room for that many opcodes.
    let result = unsafe { register(fd, REGISTER_PROBE, answer.as_mut_ptr(), ENTRIES as u32) };
    (result == 0).then_some(Opcodes(answer))
}

impl Opcodes {
    pub(super) fn has(&self, opcode: u8) -> bool {
        const SUPPORTED: u16 = 1;
        // `struct io_uring_probe_op`: op, resv (1 byte each), flags (2), resv2 (4).
        let entry = self.0[2 + usize::from(opcode)].to_ne_bytes();
        u16::from_ne_bytes([entry[2], entry[3]]) & SUPPORTED != 0
    }
}
