//! Two files in one call: `cargo run --example two_files`.

use aio::op::Read;
use std::fs::File;

fn main() -> std::io::Result<()> {
    let root = env!("CARGO_MANIFEST_DIR");
    let (f, g) = (File::open(format!("{root}/Cargo.toml"))?, File::open(format!("{root}/src/lib.rs"))?);
    let (mut a, mut b) = ([0u8; 64], [0u8; 64]);

    let (n, m) = aio::multi((Read::new(&f, &mut a), Read::new(&g, &mut b)))?;

    println!("{}…\n{}…", a[..n].escape_ascii(), b[..m].escape_ascii());
    Ok(())
}
