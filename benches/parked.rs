//! Parked tasks: what each of a million costs in memory.
//!
//! Spawns tasks that wait to be woken, each on a stack of 64 KiB, looks at what the process uses then, and ends them.
//! Page tables count as well. Without any change to the system's settings, before Linux 6.13 about 32,000 fit, for each
//! guard is a mapping of its own there.
//!
//! Run with `cargo bench --bench parked`, or `cargo bench --bench parked -- 20000` for another number.

use aio::coro;
use std::time::Instant;

/// 5 GiB for a million.
const MOST: u64 = (5 << 30) / 1_000_000;

/// A line of `/proc/self/status`, in bytes.
fn status(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')).unwrap();
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn used() -> u64 {
    status("VmRSS") + status("VmPTE")
}

fn main() {
    let count = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000u64);
    let before = used();
    let start = Instant::now();
    coro::Config::new()
        .stack_size(64 << 10)
        .run(|| {
            let tasks: Vec<_> = (0..count).map(|_| coro::spawn(|| coro::park(1)).task()).collect();
            let parked = Instant::now();
            let bytes = used() - before;
            println!("{count} tasks parked in {:.2} s", (parked - start).as_secs_f64());
            println!("{:.2} GiB, {} bytes each, {} slabs", bytes as f64 / (1u64 << 30) as f64, bytes / count, {
                coro::stats().stacks.slabs
            });
            assert!(bytes <= count * MOST, "more than 5 GiB for a million");
            assert!(tasks.iter().all(|task| task.wake()));
            while tasks.iter().any(|task| task.is_alive()) {
                coro::yield_now().unwrap();
            }
            println!("woken and ended in {:.2} s", parked.elapsed().as_secs_f64());
        })
        .unwrap();
}
