//! Chains whose shape is known at run time only, as the tuples that the library takes.

use super::program::Link::{self, Hard, Soft};
use aio::{
    Queue,
    op::{Boxed, Op as _},
    queue::Token,
};

pub type Made = Boxed<'static, ()>;

/// A chain: its links, and its operations, which are one more.
pub struct Chain {
    pub links: Vec<Link>,
    pub ops: Vec<Made>,
}

/// Calls a macro with the methods that make the links.
macro_rules! by_links {
    (short $links:expr, $go:ident) => {
        match $links {
            [] => $go!(),
            [Soft] => $go!(link),
            [Hard] => $go!(hard_link),
            [Soft, Soft] => $go!(link link),
            [Soft, Hard] => $go!(link hard_link),
            [Hard, Soft] => $go!(hard_link link),
            [Hard, Hard] => $go!(hard_link hard_link),
            longer => unreachable!("{longer:?}"),
        }
    };
    ($links:expr, $go:ident) => {
        match $links {
            [Soft, Soft, Soft] => $go!(link link link),
            [Soft, Soft, Hard] => $go!(link link hard_link),
            [Soft, Hard, Soft] => $go!(link hard_link link),
            [Soft, Hard, Hard] => $go!(link hard_link hard_link),
            [Hard, Soft, Soft] => $go!(hard_link link link),
            [Hard, Soft, Hard] => $go!(hard_link link hard_link),
            [Hard, Hard, Soft] => $go!(hard_link hard_link link),
            [Hard, Hard, Hard] => $go!(hard_link hard_link hard_link),
            shorter => by_links!(short shorter, $go),
        }
    };
}

/// A macro that makes a tuple, of the operations that an iterator gives.
macro_rules! tuple {
    ($ops:ident: $($link:ident)*) => {
        ($($ops.next().unwrap().$link(),)* $ops.next().unwrap(),)
    };
}

fn complete(batch: impl aio::Batch) -> usize {
    aio::complete(batch).expect("an engine, and room for the chain").errors
}

/// Runs chains at once; gives the number of errors. Of chains that differ two can run at once, and the rest follows.
pub fn batch(mut chains: Vec<Chain>) -> usize {
    if chains.is_empty() {
        return 0;
    }
    if chains.iter().all(|chain| chain.links == chains[0].links) {
        return alike(chains);
    }
    let rest = chains.split_off(2);
    let (b, a) = (chains.pop().unwrap(), chains.pop().unwrap());
    let errors = if a.links == b.links || a.links.len() > 2 || b.links.len() > 2 {
        alike(vec![a]) + alike(vec![b])
    } else {
        let (links, mut ops) = (a.links, a.ops.into_iter());
        macro_rules! go {
            ($($link:ident)*) => { with_second(tuple!(ops: $($link)*), b) };
        }
        by_links!(short & links[..], go)
    };
    errors + batch(rest)
}

fn with_second(first: impl aio::Last, second: Chain) -> usize {
    let mut ops = second.ops.into_iter();
    macro_rules! go {
        ($($link:ident)*) => { complete((first, tuple!(ops: $($link)*))) };
    }
    by_links!(short & second.links[..], go)
}

/// The shapes of batches that take any number.
fn alike(chains: Vec<Chain>) -> usize {
    let links = chains[0].links.clone();
    macro_rules! go {
        ($($link:ident)*) => {{
            let all = chains.into_iter().map(|chain| {
                let mut ops = chain.ops.into_iter();
                tuple!(ops: $($link)*)
            });
            match all.len() {
                1 => all.map(complete).sum(),
                2 => complete(&mut all.map(aio::Job::new).collect::<Vec<_>>()[..]),
                3 => complete(aio::windowed(all, 3)),
                _ => complete(all.collect::<Vec<_>>()),
            }
        }};
    }
    by_links!(&links[..], go)
}

/// Submits a chain to a queue; its events are the places of its operations.
pub fn submit(queue: &Queue<'static, ()>, chain: Chain) -> Vec<Token> {
    let mut ops = chain.ops.into_iter();
    if chain.links.is_empty() {
        return vec![queue.submit(ops.next().unwrap(), |_| ()).unwrap()];
    }
    macro_rules! nothing {
        ($link:ident) => {
            |_| ()
        };
    }
    macro_rules! go {
        () => {
            unreachable!("no chain")
        };
        ($($link:ident)*) => {
            queue.submit_chain(tuple!(ops: $($link)*), ($(nothing!($link),)* |_| ())).unwrap().to_vec()
        };
    }
    // Of the long ones only those that are alike throughout: there are too many others.
    match (&chain.links[..], chain.links.contains(&Hard)) {
        ([_, _, _, _], false) => go!(link link link link),
        ([_, _, _, _], true) => go!(hard_link hard_link hard_link hard_link),
        ([_, _, _, _, _], false) => go!(link link link link link),
        ([_, _, _, _, _], true) => go!(hard_link hard_link hard_link hard_link hard_link),
        ([_, _, _, _, _, _], false) => go!(link link link link link link),
        ([_, _, _, _, _, _], true) => go!(hard_link hard_link hard_link hard_link hard_link hard_link),
        ([_, _, _, _, _, _, _], false) => go!(link link link link link link link),
        ([_, _, _, _, _, _, _], true) => go!(hard_link hard_link hard_link hard_link hard_link hard_link hard_link),
        (links, _) => by_links!(links, go),
    }
}
