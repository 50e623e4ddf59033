//! What may differ between engines, and whether anything else does.

use super::{common::Engine, program::Program, run::Outcome};
use std::fmt::Write;

/// A difference that is meant to be.
pub struct Allowed {
    pub why: &'static str,
    pub what: Difference,
}

pub enum Difference {
    /// Programs that are left out on some engines.
    LeftOut(fn(&Program, &Engine) -> bool),
    /// Results of an operation, of which the name is given, that are taken for the same.
    Results(&'static str, fn(&Told, &Told) -> bool),
    /// What no program has in it: see `Op::make_definite`.
    NotMade,
}

type Told = aio::Result<String>;

/// All that may differ. `docs/backends.md` promises each of them.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        why: "a ring before Linux 5.19 cannot cancel by descriptor",
        what: Difference::LeftOut(|program, engine| program.cancels_by_descriptor() && !engine.cancels_by_descriptor),
    },
    Allowed {
        why: "of several faults of a Splice the system call and the ring find different ones first",
        what: Difference::Results("Splice", |one, other| one.is_err() && other.is_err()),
    },
    Allowed {
        why: "a ring before Linux 6.7 cannot wait for a futex",
        what: Difference::LeftOut(|program, engine| program.waits_for_a_futex() && !engine.cancels_by_descriptor),
    },
    Allowed {
        why: "nobody says what a Read or Write of no bytes does on anything but a regular file, nor a Splice or Tee",
        what: Difference::NotMade,
    },
    Allowed {
        why: "whether a nonblocking transfer of a file has to wait depends on what is in memory",
        what: Difference::NotMade,
    },
    Allowed {
        why: "a receive with WAITALL and PEEK, of less than is wanted, gives the same bytes again",
        what: Difference::NotMade,
    },
    Allowed {
        why: "a pipe that was spliced to from a file has that file's pages, and shows what is written to them",
        what: Difference::NotMade,
    },
    Allowed {
        why: "a receive with WAITALL without room for descriptors or a whole message breaks its link, if the kernel tells",
        what: Difference::NotMade,
    },
    Allowed {
        why: "the kernel's ring tries more than a hundred times before it finds that a datagram socket was shut down",
        what: Difference::NotMade,
    },
    Allowed {
        why: "POSIX does not say what state a socket is in whose connection has failed",
        what: Difference::NotMade,
    },
];

/// Whether a program is meant to give the same on an engine as on others.
pub fn applies(program: &Program, engine: &Engine) -> bool {
    !ALLOWED
        .iter()
        .any(|allowed| matches!(allowed.what, Difference::LeftOut(leaves_out) if leaves_out(program, engine)))
}

fn are_alike(one: &(String, Option<Told>), other: &(String, Option<Told>)) -> bool {
    let ((what, Some(a)), (_, Some(b))) = (one, other) else { return one == other };
    let alike = |allowed: &Allowed| matches!(allowed.what, Difference::Results(op, alike) if what.starts_with(op) && alike(a, b));
    one == other || one.0 == other.0 && ALLOWED.iter().any(alike)
}

/// What is wrong with an outcome by itself, on whatever engine.
pub fn faults(outcome: &Outcome) -> String {
    let mut text = String::new();
    for fd in &outcome.descriptors {
        _ = writeln!(text, "    descriptors: {fd}");
    }
    for (number, thread) in outcome.threads.iter().enumerate() {
        match thread {
            Err(panic) => _ = writeln!(text, "    thread {number} has panicked: {panic}"),
            Ok(thread) if thread.in_flight > 0 => {
                _ = writeln!(text, "    thread {number}: {} in flight", thread.in_flight)
            }
            Ok(_) => {}
        }
    }
    text
}

/// Where two outcomes differ.
pub fn differences(a: (&str, &Outcome), b: (&str, &Outcome)) -> String {
    let mut text = String::new();
    for (number, (x, y)) in a.1.threads.iter().zip(&b.1.threads).enumerate() {
        let (Ok(x), Ok(y)) = (x, y) else { continue };
        let mut step = "";
        for (index, (one, other)) in x.results.iter().zip(&y.results).enumerate() {
            if one.0.starts_with("step: ") {
                step = &one.0;
            }
            if !are_alike(one, other) {
                _ = writeln!(text, "    thread {number}, in {step}\n    result {index}, {}:", one.0);
                _ = writeln!(text, "        {}: {:?}\n        {}: {:?} {}", a.0, one.1, b.0, other.1, other.0);
            }
        }
        if x.results.len() != y.results.len() {
            _ = writeln!(text, "    thread {number}: {} and {} results", x.results.len(), y.results.len());
        }
        if x.left != y.left {
            let missing = |these: &[String], those: &[String]| {
                these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>()
            };
            _ = writeln!(text, "    left behind by thread {number}:");
            _ = writeln!(
                text,
                "        {}: {:?}\n        {}: {:?}",
                a.0,
                missing(&x.left, &y.left),
                b.0,
                missing(&y.left, &x.left)
            );
        }
    }
    text
}
