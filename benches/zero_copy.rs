//! `SendZc` against `Send`, over TCP on the loopback device, from 1 KiB to 1 MiB.
//!
//! Both run alternately in this process, so that a drift of the machine's speed hits both; the medians count. Another
//! thread reads and throws away. Once one send waits for the other, and once eight are in flight: a send without a copy
//! ends with the peer's acknowledgement, so one after the other measures the round trip above all.
//!
//! The loopback device copies what was not copied before, so what is seen here is what the way without a copy costs. To
//! see what it saves name a server on another machine that reads and throws away (`nc -lk 9 >/dev/null`).
//!
//! Run with `cargo bench --bench zero_copy`, or `cargo bench --bench zero_copy -- 192.0.2.1:9`.

use aio::op::{Send, SendFlags, SendZc};
use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

const ROUNDS: usize = 11;
const SIZES: [usize; 6] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const ALL: SendFlags = SendFlags::WAITALL;

fn connect() -> TcpStream {
    if let Some(address) = std::env::args().skip(1).find(|arg| arg.contains(':')) {
        return TcpStream::connect(address).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while peer.read(&mut buffer).unwrap() > 0 {}
    });
    stream
}

/// Microseconds for each of `count` sends, `depth` of them in flight.
fn measure(stream: &TcpStream, data: &[u8], count: usize, depth: usize, zero_copy: bool) -> f64 {
    let start = Instant::now();
    let errors = if zero_copy {
        let sends = (0..count).map(|_| SendZc::new(stream, data).flags(ALL));
        aio::complete(aio::windowed(sends, depth).for_each(|_, result| _ = result.unwrap())).unwrap().errors
    } else {
        let sends = (0..count).map(|_| Send::new(stream, data).flags(ALL));
        aio::complete(aio::windowed(sends, depth).for_each(|_, result| _ = result.unwrap())).unwrap().errors
    };
    assert_eq!(errors, 0);
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let stream = connect();
    stream.set_nodelay(true).unwrap();
    println!("{:>7} {:>10} {:>12} {:>12} {:>7}", "KiB", "in flight", "Send µs", "SendZc µs", "ratio");
    for depth in [1, 8] {
        for size in SIZES {
            let data = vec![1; size];
            let count = ((8 << 20) / size).clamp(16, 256);
            let (mut copied, mut in_place, mut ratios) = ([0.0; ROUNDS], [0.0; ROUNDS], [0.0; ROUNDS]);
            for round in 0..ROUNDS {
                copied[round] = measure(&stream, &data, count, depth, false);
                in_place[round] = measure(&stream, &data, count, depth, true);
                ratios[round] = in_place[round] / copied[round];
            }
            let (copied, in_place, ratio) = (median(&mut copied), median(&mut in_place), median(&mut ratios));
            println!("{:>7} {depth:>10} {copied:>12.1} {in_place:>12.1} {ratio:>7.2}", size >> 10);
        }
    }
}
