//! What a process uses.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Raises the soft limit of descriptors as far as it goes.
pub fn allow_descriptors(count: usize) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills a local.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: reads a local.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if (limit.rlim_max as usize) < count {
        let why = format!("{count} descriptors are needed, and {} allowed: raise `ulimit -Hn`", limit.rlim_max);
        return Err(io::Error::other(why));
    }
    Ok(())
}

/// The descriptors of this process, with what they lead to, and how many threads it has.
#[derive(Clone, PartialEq, Eq)]
pub struct Census {
    descriptors: BTreeMap<String, PathBuf>,
    threads: usize,
}

impl Census {
    fn take() -> Census {
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let descriptors = entries.filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            // The one that lists them.
            (!target.ends_with("fd")).then(|| (entry.file_name().to_string_lossy().into_owned(), target))
        });
        let descriptors = descriptors.collect();
        // The kernel's own for io_uring stay for seconds.
        let threads = fs::read_dir("/proc/self/task").map_or(0, |tasks| {
            let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
            names.filter(|name| !name.starts_with("iou-")).count()
        });
        Census { descriptors, threads }
    }

    /// Now, or a moment later: a thread that was joined is listed for a moment after its end.
    pub fn settled() -> Census {
        std::thread::sleep(Duration::from_millis(20));
        Census::take()
    }

    /// What is there now and was not, in words.
    pub fn left(self) -> Vec<String> {
        let given_up = Instant::now() + Duration::from_secs(5);
        let mut now = Census::take();
        while now != self && Instant::now() < given_up {
            std::thread::sleep(Duration::from_millis(5));
            now = Census::take();
        }
        let left = now.descriptors.iter().filter(|left| self.descriptors.get(left.0) != Some(left.1));
        let mut left: Vec<_> =
            left.map(|(number, target)| format!("descriptor {number} is left: {target:?}")).collect();
        if now.threads != self.threads {
            left.push(format!("{} threads before, {} afterwards", self.threads, now.threads));
        }
        left
    }
}

/// Resident memory of both processes, in bytes, in the order of time.
#[derive(Default)]
pub struct Samples {
    memory: Vec<[usize; 2]>,
    /// What the clients have said.
    pub told: String,
}

impl Samples {
    pub fn take(&mut self, clients: u32) {
        let resident = |process: &str| {
            let text = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
            // SAFETY: a question about a constant.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            Some(text.split(' ').nth(1)?.parse::<usize>().ok()? * page)
        };
        // They may have ended just now.
        if let (Some(server), Some(clients @ 1..)) = (resident("self"), resident(&clients.to_string())) {
            self.memory.push([server, clients]);
        }
    }

    /// The most in the second quarter of the time, when everybody has come, and in the last.
    fn peaks(&self, process: usize) -> (usize, usize) {
        let count = self.memory.len();
        let most = |range: std::ops::Range<usize>| {
            self.memory[range].iter().map(|sample| sample[process]).max().unwrap_or_default()
        };
        (most(count / 4..count / 2), most(count - count / 4..count))
    }

    fn described(&self, process: usize) -> String {
        let (early, late) = self.peaks(process);
        format!("{:.1} MiB early, {:.1} MiB late", early as f64 / MIB, late as f64 / MIB)
    }

    pub fn server(&self) -> String {
        self.described(0)
    }

    pub fn clients(&self) -> String {
        self.described(1)
    }

    /// In words, what has grown.
    pub fn check(&self) -> Vec<String> {
        let grown = |(process, name): (usize, &str)| {
            let (early, late) = self.peaks(process);
            let described = self.described(process);
            (late > early + early / 10 + TOLERANCE).then(|| format!("the {name} memory has grown: {described}"))
        };
        [(0, "server's"), (1, "clients'")].into_iter().filter_map(grown).collect()
    }
}

const MIB: f64 = (1 << 20) as f64;

/// How much more there may be late than early, beside a tenth. How many connections are busy at one time is random, so
/// high-water marks of stacks and buffers still rise a little, and the allocator's heap with them: that is the tenth.
/// With 1,000,000 connections 4 MiB are not more than 8 bytes for each of the second half.
const TOLERANCE: usize = 4 << 20;
