//! A target for `strace`: prints nothing, and does one batch of two reads when everything is set up.
//!
//! ```sh
//! cargo build --release --example quiet
//! strace -f target/release/examples/quiet 2>&1 | sed -n '/getppid/,/getppid/p'
//! ```
//!
//! The two calls of `getppid` stand around the batch, because nothing else in the program asks for that. With io_uring
//! there is one `io_uring_enter` between them and nothing else; see `docs/profiling.md`.

use aio::op::Read;
use std::{fs::File, io, os::unix::process::parent_id};

fn main() -> io::Result<()> {
    let root = env!("CARGO_MANIFEST_DIR");
    let (f, g) = (File::open(format!("{root}/Cargo.toml"))?, File::open(format!("{root}/src/lib.rs"))?);
    let (mut a, mut b) = ([0u8; 64], [0u8; 64]);

    // The first batch of a thread makes its engine; this is also what brings the files into the page cache.
    aio::multi((Read::new(&f, &mut a).at(0), Read::new(&g, &mut b).at(0)))?;

    let _ = parent_id();
    let done = aio::complete((Read::new(&f, &mut a).at(0), Read::new(&g, &mut b).at(0)));
    let _ = parent_id();

    let (n, m) = done?.results;
    if (n?, m?) == (a.len(), b.len()) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
