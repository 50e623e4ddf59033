//! The same programs, made by chance, on every engine: what comes of them must be the same.
//!
//! `docs/testing.md` says how to run any number of them, from any seed.
#![cfg(target_os = "linux")]

mod common;
#[path = "parity/compare.rs"]
mod compare;
#[path = "parity/generate.rs"]
mod generate;
#[path = "parity/make.rs"]
mod make;
#[path = "common/net.rs"]
mod net;
#[path = "parity/program.rs"]
mod program;
#[path = "parity/run.rs"]
mod run;
#[path = "parity/submit.rs"]
mod submit;
#[path = "parity/world.rs"]
mod world;

use common::Engine;
use program::Program;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use std::{
    cell::Cell,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const SEED: u64 = 1;
const PROGRAMS: u64 = 2000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The program that runs now, for when it hangs.
static NOW: Mutex<String> = Mutex::new(String::new());
static TURN: AtomicU64 = AtomicU64::new(0);
static INDEX: AtomicU64 = AtomicU64::new(0);

fn watch() {
    std::thread::spawn(|| {
        let mut seen = 0;
        loop {
            std::thread::sleep(Duration::from_secs(20));
            let turn = TURN.load(Ordering::Relaxed);
            if turn == seen {
                // Straight to the descriptor, past the harness, which keeps what is printed until the test has ended.
                let _ = writeln!(
                    std::io::stderr(),
                    "program {} of seed {} hangs in step {} {}",
                    INDEX.load(Ordering::Relaxed),
                    number("PARITY_SEED", SEED),
                    run::STEP.load(Ordering::Relaxed),
                    NOW.lock().unwrap()
                );
                std::process::abort();
            }
            seen = turn;
        }
    });
}

/// Runs a program on engines, the first of which is the measure of the others.
fn check(program: &Program, engines: &[Engine]) -> Result<u64, String> {
    let mut runs = 0;
    let mut first = None;
    for engine in engines.iter().filter(|engine| compare::applies(program, engine)) {
        *NOW.lock().unwrap() = format!("on {}:\n{program}", engine.name);
        TURN.fetch_add(1, Ordering::Relaxed);
        let outcome = run::run(program, engine.config);
        runs += 1;
        let faults = compare::faults(&outcome);
        if !faults.is_empty() {
            return Err(format!("on {}:\n{faults}", engine.name));
        }
        let (name, first) = first.get_or_insert_with(|| (engine.name, outcome.clone()));
        let differences = compare::differences((name, first), (engine.name, &outcome));
        if !differences.is_empty() {
            return Err(differences);
        }
    }
    Ok(runs)
}

fn rng(seed: u64, index: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// The backends, and one of the other ways to make an engine.
fn engines_for(index: u64, all: &[Engine]) -> Vec<Engine> {
    let plain = common::backends().len();
    let (plain, others) = all.split_at(plain);
    let other = others.get(index as usize % others.len().max(1));
    plain.iter().chain(other).copied().collect()
}

fn shrunk(seed: u64, index: u64, engines: &[Engine], tree: impl ValueTree<Value = Program>, why: String) -> String {
    let config = Config { failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng(seed, index));
    let again = (0..4).filter(|_| check(&tree.current(), engines).is_err()).count();
    let (first, original) = (Cell::new(true), tree.current().to_string());
    let result = runner.run_one(tree, |program| {
        // It has failed already; a divergence that comes and goes would be lost here.
        let is_first = first.replace(false);
        match check(&program, engines) {
            Err(why) => Err(TestCaseError::fail(why)),
            Ok(_) if again == 0 && is_first => Err(TestCaseError::fail(why.clone())),
            Ok(_) => Ok(()),
        }
    });
    let (why, program) = match result {
        Err(TestError::Fail(why, program)) => (why.to_string(), format!("{program}")),
        _ => (why, original),
    };
    format!(
        "program {index} of seed {seed} diverges (and {again} times of 4 again):\n{why}\nshrunk to\n{program}\nto see it again:\n    \
         PARITY_SEED={seed} PARITY_FIRST={index} PARITY_PROGRAMS=1 cargo test --test parity -- --nocapture\n"
    )
}

#[test]
fn programs_give_the_same_on_every_engine() {
    watch();
    let (seed, programs) = (number("PARITY_SEED", SEED), number("PARITY_PROGRAMS", PROGRAMS));
    let (from, most) = (number("PARITY_FIRST", 0), number("PARITY_OPERATIONS", u64::MAX));
    let keep_going = std::env::var_os("PARITY_KEEP_GOING").is_some();
    let (all, strategy, began) = (common::engines(), generate::programs(), Instant::now());
    // What is made once for the process, such as its workers, is made now.
    let _ = check(&Program { threads: vec![] }, &all);
    println!("may differ:");
    compare::ALLOWED.iter().for_each(|allowed| println!("    {}", allowed.why));
    let (mut operations, mut runs, mut done, mut failed) = (0, 0, 0, 0);
    for index in from..from.saturating_add(programs) {
        INDEX.store(index, Ordering::Relaxed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng(seed, index));
        let tree = strategy.new_tree(&mut runner).expect("a program");
        let (program, engines) = (tree.current(), engines_for(index, &all));
        match check(&program, &engines) {
            Ok(count) => {
                runs += count;
                operations += program.operations() as u64 * count;
            }
            Err(why) => {
                let report = shrunk(seed, index, &engines, tree, why);
                assert!(keep_going, "{report}");
                println!("{report}");
                failed += 1;
            }
        }
        done += 1;
        if operations >= most {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f32();
    println!(
        "{done} programs of seed {seed}, {runs} runs, {operations} operations, {failed} divergences, {seconds:.1} s"
    );
    assert_eq!(failed, 0);
}
