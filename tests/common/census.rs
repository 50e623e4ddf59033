//! What a process has of the system, so that a test can tell what an attack has left behind.
#![allow(dead_code)]

use crate::common::variants_in_own_process;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs, thread,
    time::{Duration, Instant},
};

/// With these, what is mapped beside the heap is nobody's but the program's and the library's: glibc makes no further
/// arenas, takes large blocks from the heap too, and keeps no stacks of threads that have ended.
const TUNABLES: &str = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=33554432:glibc.pthread.stack_cache_size=0";

/// The harness has its main thread and one for the test, which has a watchdog.
const OWN: usize = 3;

/// What a process has at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// What the descriptors lead to.
    files: BTreeMap<u32, String>,
    /// What the kernel says is in flight: polls that wait in rings, descriptors that epoll watches.
    in_flight: BTreeMap<u32, usize>,
    /// Threads by number, with their names.
    threads: BTreeMap<u32, String>,
    /// Bytes mapped, by what they are.
    mapped: BTreeMap<String, usize>,
}

impl Census {
    pub fn take() -> Census {
        let mut census = Census { threads: threads(), mapped: mapped(), ..Census::default() };
        for (number, target) in files() {
            if let Some(count) = waiting_in(number, &target) {
                census.in_flight.insert(number, count);
            }
            census.files.insert(number, target);
        }
        census
    }

    /// When nothing changes by itself any more: a thread that has ended, such as the watchdog of the engine before, is
    /// listed for a moment, and its stack is mapped.
    fn settled() -> Census {
        let given_up = Instant::now() + Duration::from_secs(10);
        let mut census = Census::take();
        while Instant::now() < given_up {
            breathe();
            let next = Census::take();
            if next == census && census.threads.len() <= OWN {
                break;
            }
            census = next;
        }
        census
    }

    /// In words, what is there that was not, and what is not there that was.
    pub fn changes(&self, now: &Census) -> Vec<String> {
        let mut changes = Vec::new();
        differing("descriptor", &self.files, &now.files, &mut changes);
        differing("in flight on descriptor", &self.in_flight, &now.in_flight, &mut changes);
        differing("thread", &self.threads, &now.threads, &mut changes);
        differing("bytes mapped,", &self.mapped, &now.mapped, &mut changes);
        changes
    }
}

fn differing<K: Ord + Debug, V: Eq + Debug>(
    what: &str,
    before: &BTreeMap<K, V>,
    now: &BTreeMap<K, V>,
    out: &mut Vec<String>,
) {
    let gone = before.iter().filter(|(key, _)| !now.contains_key(key));
    out.extend(gone.map(|(key, value)| format!("{what} {key:?} is gone: {value:?}")));
    for (key, value) in now {
        match before.get(key) {
            None => out.push(format!("{what} {key:?} is left: {value:?}")),
            Some(old) if old != value => out.push(format!("{what} {key:?}: {old:?} before, {value:?} now")),
            Some(_) => {}
        }
    }
}

fn files() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let named = entries.filter_map(|path| {
        let number = path.file_name()?.to_str()?.parse().ok()?;
        // The one that lists them is closed by the time of the second look, or shows itself.
        let target = fs::read_link(&path).ok()?.into_os_string().into_string().ok()?;
        let itself = target.starts_with("/proc/") && target.ends_with("/fd");
        (!itself).then_some((number, target))
    });
    named.collect()
}

fn waiting_in(number: u32, target: &str) -> Option<usize> {
    let (section, line) = match target {
        "anon_inode:[io_uring]" => ("PollList:", "op="),
        "anon_inode:[eventpoll]" => ("", "tfd:"),
        _ => return None,
    };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
    let from = info.find(section)?;
    Some(info[from..].lines().filter(|found| found.trim_start().starts_with(line)).count())
}

fn threads() -> BTreeMap<u32, String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| task.ok());
    let named = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, name.trim().to_owned()))
    });
    // The kernel's own for io_uring are the thread's and not the ring's, and stay for seconds.
    named.filter(|(_, name)| !name.starts_with("iou-")).collect()
}

/// Whether mappings can be told apart: elsewhere the C library's have to be taken for the library's.
fn maps_are_known() -> bool {
    cfg!(target_env = "gnu") && std::env::var("GLIBC_TUNABLES").is_ok_and(|tunables| tunables == TUNABLES)
}

fn mapped() -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    if !maps_are_known() {
        return sizes;
    }
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split_ascii_whitespace();
        let (range, what) = (words.next().unwrap(), words.nth(4).unwrap_or("anonymous"));
        // The heap and the first stack; programs and shared objects.
        if what.starts_with('[') || what.starts_with('/') && !line.ends_with("(deleted)") {
            continue;
        }
        let [start, end] = [0, 1].map(|at| usize::from_str_radix(range.split('-').nth(at).unwrap(), 16).unwrap());
        // Neighbours are one mapping to the kernel, so their number says nothing.
        *sizes.entry(what.to_owned()).or_default() += end - start;
    }
    // The shadow memory of a sanitizer, whose allocator maps as it likes.
    if sizes.get("anonymous").is_some_and(|size| *size > 1 << 40) {
        sizes.clear();
    }
    sizes
}

/// A moment, in which glibc also unmaps the stacks of detached threads that have ended: it does so when one is joined.
fn breathe() {
    thread::spawn(|| ()).join().unwrap();
    thread::sleep(Duration::from_millis(2));
}

/// Runs `attack`, and fails if the process has not everything back that it had before, and nothing else. `warm` runs
/// first: what is made once for a process or a thread is made then.
#[track_caller]
pub fn unchanged(what: &str, warm: impl FnOnce(), attack: impl FnOnce()) {
    warm();
    let before = Census::settled();
    attack();
    let given_up = Instant::now() + Duration::from_secs(10);
    loop {
        let changes = before.changes(&Census::take());
        if changes.is_empty() {
            return;
        }
        assert!(Instant::now() < given_up, "{what}: {changes:#?}");
        breathe();
    }
}

/// As [`in_own_process`](crate::common::in_own_process), for a test that counts mappings.
#[track_caller]
pub fn counted(name: &str, body: impl FnOnce()) {
    if std::env::var_os("AIO_TEST_RUNNER").is_some() {
        // In an emulator of processors the threads and mappings are not the program's alone.
        return eprintln!("SKIPPED {name}: the tests run in an emulator");
    }
    variants_in_own_process(name, &[("counted", &[("GLIBC_TUNABLES", TUNABLES)])], |_| body());
}
