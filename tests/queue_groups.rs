//! Groups: one event for many operations.

mod common;

use aio::{Error, Queue, op::*, queue::*};
use common::*;
use std::{cell::RefCell, io::Write as _, os::unix::net::UnixStream, time::Duration};

fn tick(millis: u64) -> Timeout {
    Timeout::after(Duration::from_millis(millis))
}

fn show<O: Op>(done: Done<O>) -> String
where
    O::Value: std::fmt::Debug,
{
    format!("{:?}", done.result)
}

fn all(members: usize) -> String {
    format!("all {members}")
}

#[test]
fn the_event_of_a_group_comes_after_those_of_its_members() {
    each_queue(|config| {
        let queue = queue(16, config);
        for _ in 0..3 {
            let group = queue.gather(all).unwrap();
            let token = group.token();
            group.submit(tick(3), |_| "slow".into()).unwrap();
            group.submit(Nop::new(), |_| "fast".into()).unwrap();
            group.submit(tick(1), |_| "middle".into()).unwrap();
            assert_eq!((queue.len(), format!("{group:?}")), (4, "Group { members: 3, pending: 3, .. }".into()));
            drop(group);
            let events: Vec<_> = queue.wait(4).unwrap().collect();
            // The last wait may end before the group's event is made, with the last member.
            let rest: Vec<_> = queue.wait(1).unwrap().collect();
            let mut names: Vec<_> = events.iter().chain(&rest).map(|(_, name)| name.as_str()).collect();
            assert_eq!(names.pop(), Some("all 3"));
            names.sort();
            assert_eq!(names, ["fast", "middle", "slow"]);
            assert_eq!(events.iter().chain(&rest).next_back().unwrap().0, token);
            assert!(queue.is_empty() && queue.cancel(token) == os(libc::ENOENT));
        }
    });
}

#[test]
fn a_group_ends_when_its_handle_is_gone() {
    each_queue(|config| {
        let queue = queue(8, config);
        // Without a member.
        let group = queue.gather(all).unwrap();
        assert_eq!((taken(&queue), queue.len()), (vec![], 1));
        assert_eq!(queue.wait(1).unwrap().count(), 0, "nothing is in flight that could end");
        drop(group);
        assert_eq!(drained(&queue), ["all 0"]);
        drop(queue.race(all).unwrap());
        assert_eq!(drained(&queue), ["all 0"]);
        // After its members have ended, and with more in between.
        let group = queue.gather(all).unwrap();
        for _ in 0..20 {
            group.submit(Nop::new(), show).unwrap();
            assert_eq!(collect(&queue, 1), ["Ok(())"]);
            assert_eq!(taken(&queue), [""; 0]);
        }
        drop(group);
        assert_eq!(drained(&queue), ["all 20"]);
        // One that is forgotten never ends, and keeps nobody.
        std::mem::forget(queue.gather(all).unwrap());
        assert_eq!((drained(&queue).len(), queue.len()), (0, 1));
    });
}

#[test]
fn the_first_of_a_race_ends_the_others() {
    each_queue(|config| {
        let (queue, (a, _b)) = (queue(16, config), UnixStream::pair().unwrap());
        for first in 0..4 {
            let group = queue.race(all).unwrap();
            for member in 0..4 {
                let timer = if member == first { tick(1) } else { Timeout::after(NEVER) };
                group.submit(timer, move |done| format!("{member} {:?}", done.result)).unwrap();
            }
            group.submit(Recv::new(a.try_clone().unwrap(), vec![0; 4]), show).unwrap();
            let events = |shot: Shot<PollMulti<_>>| format!("{:?}", shot.result.map(drop));
            group.submit_multi(PollMulti::new(a.try_clone().unwrap(), PollEvents::IN), events).unwrap();
            drop(group);
            queue.submit(tick(2), |_| "another".into()).unwrap();
            let mut events = drained(&queue);
            let at = events.iter().position(|event| event == "another").unwrap();
            events.remove(at);
            assert_eq!(events.remove(0), format!("{first} Ok(())"));
            assert_eq!(events.pop().unwrap(), "all 6");
            assert!(events.len() == 5 && events.iter().all(|event| event.ends_with("Err(Canceled)")), "{events:?}");
        }
        // One that had its result already keeps it.
        let group = queue.race(all).unwrap();
        group.submit(Nop::new(), show).unwrap();
        group.submit(Nop::new(), show).unwrap();
        drop(queue.wait(2).unwrap());
        drop(group);
        assert_eq!(drained(&queue), ["Ok(())", "Ok(())", "all 2"]);
    });
}

#[test]
fn a_race_that_is_decided_takes_members_that_run_their_course() {
    each_queue(|config| {
        let queue = queue(8, config);
        let group = queue.race(all).unwrap();
        group.submit(Nop::new(), show).unwrap();
        assert_eq!(collect(&queue, 1), ["Ok(())"]);
        group.submit(tick(1), show).unwrap();
        drop(group);
        assert_eq!(drained(&queue), ["Ok(())", "all 2"]);
    });
}

#[test]
fn a_cancel_of_a_group_ends_all_its_members() {
    each_queue(|config| {
        let queue = queue(16, config);
        let outside = queue.submit(Timeout::after(NEVER), |_| "outside".into()).unwrap();
        for early in [true, false] {
            let group = queue.gather(all).unwrap();
            let token = group.token();
            for _ in 0..3 {
                group.submit(Timeout::after(NEVER), show).unwrap();
            }
            let inner = group.gather(|members| format!("inner {members}")).unwrap();
            inner.submit(Timeout::after(NEVER), show).unwrap();
            drop(inner);
            if early {
                queue.cancel(token).unwrap();
                drop(group);
            } else {
                drop(group);
                assert_eq!(taken(&queue), [""; 0]);
                queue.cancel(token).unwrap();
            }
            queue.cancel(token).unwrap();
            let mut events = collect(&queue, 6);
            assert_eq!(events.pop().unwrap(), "all 4");
            assert_eq!(events.iter().filter(|&event| event == "Err(Canceled)").count(), 4);
            assert!(events.contains(&"inner 1".to_owned()));
            assert_eq!((queue.len(), queue.cancel(token)), (1, os(libc::ENOENT)));
        }
        queue.cancel(outside).unwrap();
        assert_eq!(drained(&queue), ["outside"]);
    });
}

#[test]
fn groups_in_groups_end_from_the_inside() {
    each_queue(|config| {
        let queue = queue(16, config);
        let outer = queue.gather(all).unwrap();
        let middle = outer.gather(|members| format!("middle {members}")).unwrap();
        let inner = middle.race(|members| format!("inner {members}")).unwrap();
        inner.submit(tick(1), |_| "first".into()).unwrap();
        inner.submit(Timeout::after(NEVER), |_| "second".into()).unwrap();
        outer.submit(Nop::new(), |_| "other".into()).unwrap();
        drop((outer, middle, inner));
        assert_eq!(drained(&queue), ["other", "first", "second", "inner 2", "middle 1", "all 2"]);
        // A group that ends decides the race that it is in.
        let outer = queue.race(all).unwrap();
        outer.submit(Timeout::after(NEVER), |_| "late".into()).unwrap();
        drop(outer.gather(|members| format!("empty {members}")).unwrap());
        drop(outer);
        assert_eq!(drained(&queue), ["empty 0", "late", "all 2"]);
    });
}

#[test]
fn what_does_not_fit_is_no_member() {
    each_queue(|config| {
        let queue = queue(3, config);
        let group = queue.gather(all).unwrap();
        group.submit(Nop::new(), show).unwrap();
        group.submit(tick(1), show).unwrap();
        assert!(group.submit(Nop::new(), show).unwrap_err().is_full());
        assert!(group.submit_multi(TimeoutMulti::every(NEVER), |_| String::new()).unwrap_err().is_full());
        assert!(group.gather(all).unwrap_err().is_full() && group.race(all).unwrap_err().is_full());
        assert_eq!(collect(&queue, 1), ["Ok(())"]);
        assert!(group.submit(Nop::new(), show).is_ok());
        drop(group);
        assert_eq!(drained(&queue), ["Ok(())", "Ok(())", "all 3"]);
        // Members alone, and one whose operation cannot even start.
        let group = queue.gather(all).unwrap();
        group.submit_multi(TimeoutMulti::every(Duration::ZERO), |shot| shot.result.is_err().to_string()).unwrap();
        drop(group);
        assert_eq!(drained(&queue), ["true", "all 1"]);
    });
}

#[test]
fn a_member_with_many_results_counts_when_it_has_ended() {
    each_queue(|config| {
        let queue = queue(8, config);
        let group = queue.gather(all).unwrap();
        let timer = TimeoutMulti::every(Duration::from_millis(1)).times(3);
        group.submit_multi(timer, |shot| format!("tick {}", shot.more)).unwrap();
        drop(group);
        assert_eq!(drained(&queue), ["tick true", "tick true", "tick false", "all 1"]);
        // In a race it is decided by the last one, too.
        let (a, mut b) = UnixStream::pair().unwrap();
        let pool = queue.buf_pool(4, 16).unwrap();
        let group = queue.race(all).unwrap();
        group
            .submit_multi(RecvMulti::new(a, &pool), |shot| String::from_utf8(shot.result.unwrap().to_vec()).unwrap())
            .unwrap();
        group.submit(Timeout::after(NEVER), show).unwrap();
        drop(group);
        for text in ["abc", "de"] {
            b.write_all(text.as_bytes()).unwrap();
            assert_eq!(collect(&queue, 1), [text]);
        }
        drop(b);
        assert_eq!(drained(&queue), ["", "Err(Canceled)", "all 2"]);
    });
}

#[test]
fn mappers_of_groups_and_members_submit_and_panic() {
    each_queue(|config| {
        let order = RefCell::new(Vec::new());
        Queue::<(), 512>::scope_with_config(4, config, |queue| {
            let again = |members: usize| {
                order.borrow_mut().push(members);
                queue.submit(Nop::new(), |_| order.borrow_mut().push(99)).unwrap();
            };
            let group = queue.gather(again).unwrap();
            group.submit(Nop::new(), |_| panic!("a member")).unwrap();
            group.submit(Nop::new(), |_| order.borrow_mut().push(1)).unwrap();
            drop(group);
            let run = || queue.drain(|_, ()| {});
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
            queue.drain(|_, ()| {}).unwrap();
        })
        .unwrap();
        assert_eq!(order.into_inner(), [1, 2, 99], "a member that panics has ended");
    });
}

#[test]
fn a_queue_with_open_groups_goes() {
    each_queue(|config| {
        let drops = Drops::default();
        let (a, _b) = UnixStream::pair().unwrap();
        Queue::<(), 512>::scope_with_config(32, config, |queue| {
            let keep = || {
                let one = drops.one();
                move |_: usize| drop(one)
            };
            let open = queue.gather(keep()).unwrap();
            let one = drops.one();
            open.submit(Recv::new(&a, vec![0; 4]), move |_| drop(one)).unwrap();
            let race = open.race(keep()).unwrap();
            let one = drops.one();
            race.submit(Nop::new(), move |_| drop(one)).unwrap();
            let one = drops.one();
            race.submit(Timeout::after(NEVER), move |_| drop(one)).unwrap();
            let one = drops.one();
            race.submit_multi(PollMulti::new(&a, PollEvents::IN), move |_| _ = &one).unwrap();
            drop(race);
            let sealed = queue.gather(keep()).unwrap();
            let one = drops.one();
            sealed.submit(Timeout::after(NEVER), move |_| drop(one)).unwrap();
            drop(sealed);
            // With its event there.
            drop(queue.gather(keep()).unwrap());
            drop(queue.wait(1).unwrap());
            std::mem::forget(queue.race(keep()).unwrap());
            std::mem::forget(open);
            assert_eq!(drops.count(), 0);
        })
        .unwrap();
        assert_eq!(drops.count(), 10);
    });
}

#[test]
fn many_groups_at_once() {
    each_queue(|config| {
        let queue: Queue<Option<usize>> = queue(256, config);
        let (mut random, mut expected, mut got, mut members) = (Random(17), Vec::new(), Vec::new(), 0);
        for _ in 0..400 {
            while queue.reserve(12).is_err() {
                got.extend(queue.wait(1).unwrap().map(|(_, event)| event));
            }
            let count = random.below(10) as usize;
            let group = if random.below(2) == 0 { queue.gather(Some) } else { queue.race(Some) }.unwrap();
            for _ in 0..count {
                let timer = Timeout::after(Duration::from_micros(random.below(2000)));
                let ended = |result: aio::Result<()>| assert!(matches!(result, Ok(()) | Err(Error::Canceled)));
                group.submit(timer, move |done| (ended(done.result), None).1).unwrap();
            }
            members += count;
            expected.push(count);
        }
        got.extend(drained(&queue));
        let mut groups: Vec<usize> = got.iter().copied().flatten().collect();
        assert_eq!(got.len() - groups.len(), members);
        groups.sort();
        expected.sort();
        assert_eq!(groups, expected);
    });
}
