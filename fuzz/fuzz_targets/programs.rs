//! Programs of operations, made of the fuzzer's bytes. None may crash or hang, and what has one right answer has it on a
//! ring and on the emulation.
#![no_main]

mod chains;
mod queues;

use aio::{Backend, Config};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Program {
    chains: Vec<chains::Pair>,
    queue: Vec<queues::Step>,
    /// What becomes of the queue with all that is in flight.
    end: queues::End,
}

fuzz_target!(|program: Program| {
    let ring = Config::new().backend(Backend::IoUring);
    let emulations = [Config::new().backend(Backend::Epoll), Config::new().backend(Backend::Poll).max_workers(0)];
    let expected = chains::run(emulations[0], &program.chains);
    for config in [ring, ring.entries(8), emulations[1]] {
        assert_eq!(chains::run(config, &program.chains), expected);
    }
    for config in [ring, emulations[0]] {
        queues::run(config, &program.queue, program.end);
    }
});
