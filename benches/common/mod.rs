//! How the library is compared with a twin.

use std::time::Instant;

/// How often the two take turns.
const TURNS: usize = 1500;

/// Nanoseconds that an operation takes in the twin, and in the library. Both run alternately, in stretches of a
/// fraction of a millisecond, and the tenth that was fastest ends with the time that counts: what else goes on in the
/// machine makes a stretch slower, and never faster.
///
/// Each function performs `operations`.
pub fn compare(operations: usize, mut twin: impl FnMut(), mut own: impl FnMut()) -> (f64, f64) {
    let (mut twins, mut owns) = (Vec::with_capacity(TURNS), Vec::with_capacity(TURNS));
    for _ in 0..TURNS {
        twins.push(time(&mut twin));
        owns.push(time(&mut own));
    }
    let each = |nanos: f64| nanos / operations as f64;
    (each(fast(&mut twins)), each(fast(&mut owns)))
}

fn time(stretch: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    stretch();
    start.elapsed().as_nanos() as f64
}

fn fast(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}
