//! Reads of a file in the page cache through a queue: with a fixed file, a fixed buffer, or both, against neither.
//!
//! All four run alternately in this process, so that a drift of the machine's speed hits all; the median of the ratios
//! counts. The file lies in the directory that is given (the temporary one otherwise; try `/dev/shm` for tmpfs).
//!
//! Run with `cargo bench --bench fixed -- [DIRECTORY]`.

use aio::{Backend, BufMut, Config, Descriptor, Queue, op::Read};
use std::{fs::File, hint::black_box, io::Write, path::Path, sync::Arc, time::Instant};

const ROUNDS: usize = 31;
const BYTES_PER_ROUND: usize = 64 << 20;
const FILE: u64 = 32 << 20;
const PLACES: u32 = 64;

/// A queue, and what its operations work with while they are not in flight.
struct Reader<D, B> {
    queue: Queue<'static, (D, B)>,
    stock: Vec<(D, B)>,
    offset: u64,
}

impl<D: Descriptor + 'static, B: BufMut + 'static> Reader<D, B> {
    /// Nanoseconds for each operation.
    fn measure(&mut self, batch: usize, size: usize) -> f64 {
        let count = (BYTES_PER_ROUND / size / 4).min(30_000) / batch * batch;
        let start = Instant::now();
        for _ in 0..count / batch {
            for _ in 0..batch {
                let (file, buf) = self.stock.pop().expect("as many as the batch has");
                self.offset = (self.offset + 7 * size as u64) % (FILE - size as u64) / 4096 * 4096;
                let read = Read::new(file, buf).at(self.offset);
                let submitted = self.queue.submit(read, move |done| {
                    assert_eq!(done.result, Ok(size));
                    done.op.into_parts()
                });
                assert!(submitted.is_ok());
            }
            self.stock.extend(self.queue.wait(batch).expect("events").map(|(_, parts)| black_box(parts)));
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }
}

fn queue<E>() -> Queue<'static, E> {
    Queue::with_config(PLACES, Config::new().backend(Backend::IoUring)).expect("io_uring worked just now")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(file: &File, batch: usize, size: usize) {
    let plain_file = Arc::new(file.try_clone().unwrap());
    let mut plain = Reader { queue: queue(), stock: vec![], offset: 0 };
    plain.stock.extend((0..batch).map(|_| (plain_file.clone(), vec![0u8; size])));
    let mut of_file = Reader { queue: queue(), stock: vec![], offset: 0 };
    let fixed = of_file.queue.register_file(file.try_clone().unwrap()).unwrap();
    of_file.stock.extend((0..batch).map(|_| (fixed.clone(), vec![0u8; size])));
    let mut of_buf = Reader { queue: queue(), stock: vec![], offset: 0 };
    let bufs = of_buf.queue.fixed_bufs(batch, size).unwrap();
    of_buf.stock.extend((0..batch).map(|_| (plain_file.clone(), bufs.take().unwrap())));
    let mut of_both = Reader { queue: queue(), stock: vec![], offset: 0 };
    let bufs = of_both.queue.fixed_bufs(batch, size).unwrap();
    let fixed = of_both.queue.register_file(file.try_clone().unwrap()).unwrap();
    of_both.stock.extend((0..batch).map(|_| (fixed.clone(), bufs.take().unwrap())));

    let mut nanos = vec![];
    let mut ratios: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let base = plain.measure(batch, size);
        nanos.push(base);
        let others = [of_file.measure(batch, size), of_buf.measure(batch, size), of_both.measure(batch, size)];
        others.iter().zip(&mut ratios).for_each(|(nanos, ratios)| ratios.push(nanos / base));
    }
    let [file, buf, both] = ratios.each_mut().map(|ratios| median(ratios));
    println!("{size:>8} {batch:>6} {:>10.0} {file:>11.3} {buf:>13.3} {both:>6.3}", median(&mut nanos));
}

fn main() {
    if let Err(why) = Backend::probe().io_uring() {
        return println!("skipped: {why}");
    }
    // Cargo's own `--bench` comes last.
    let dir = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let dir = dir.map_or_else(std::env::temp_dir, |dir| Path::new(&dir).to_owned());
    let mut file = tempfile::tempfile_in(&dir).expect("a directory that can be written");
    file.write_all(&vec![7; FILE as usize]).expect("room for 32 MiB");
    println!("{}", dir.display());
    println!(
        "{:>8} {:>6} {:>10} {:>11} {:>13} {:>6}",
        "bytes", "batch", "plain ns", "fixed file", "fixed buffer", "both"
    );
    for (size, batch) in [(4096, 1), (4096, 32), (65536, 1), (65536, 16)] {
        compare(&file, batch, size);
    }
}
