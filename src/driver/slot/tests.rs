//! What a slot notes, on its own.

use super::*;
use crate::op::Fd;

const LINKS: [Link; 3] = [Link::None, Link::Soft, Link::Hard];

/// A slot in memory of its own, for which nobody waits.
fn fresh(op: RawOp, link: Link) -> Box<MaybeUninit<Slot>> {
    let mut slot = Box::new(MaybeUninit::uninit());
    // SAFETY: memory for a slot, which nobody else knows.
    unsafe { Slot::init(slot.as_mut_ptr(), op, link, ptr::null()) };
    slot
}

/// # Safety
/// It is from `fresh`, or was initialised otherwise.
unsafe fn of(slot: &mut MaybeUninit<Slot>) -> &mut Slot {
    // SAFETY: promised by the caller.
    unsafe { slot.assume_init_mut() }
}

/// What may be noted about an operation, how that is done, and how it is asked for.
type Mark = (&'static str, fn(&mut Slot), fn(&Slot) -> bool);
const MARKS: [Mark; 10] = [
    ("expired", |slot| slot.set_expired(), Slot::has_expired),
    ("broken", |slot| slot.set_broken(), Slot::is_broken),
    ("cancelled", |slot| slot.set_cancelled(), Slot::is_cancelled),
    ("one by one", |slot| slot.set_one_by_one(), Slot::is_one_by_one),
    ("pausing", |slot| slot.set_pausing(true), Slot::is_pausing),
    ("ending", |slot| slot.set_ending(0), Slot::is_ending),
    ("chained", |slot| slot.set_chained(ptr::null_mut()), Slot::is_chained),
    ("stepped", |slot| slot.set_stepped(), Slot::is_stepped),
    ("timer", |slot| slot.set_timer(true), Slot::has_timer),
    ("may block", |slot| slot.set_may_block(), Slot::may_block),
];

fn marks(slot: &Slot) -> Vec<&'static str> {
    MARKS.iter().filter(|(_, _, is_set)| is_set(slot)).map(|(name, ..)| *name).collect()
}

#[test]
fn each_mark_of_a_slot_is_its_own() {
    for link in LINKS {
        for (name, set, _) in MARKS {
            let mut slot = fresh(RawOp::Nop, link);
            // SAFETY: it is fresh.
            let slot = unsafe { of(&mut slot) };
            assert_eq!(marks(slot), [""; 0]);
            set(slot);
            // What has expired is to end as if somebody had asked for it.
            let expected = if name == "expired" { vec!["expired", "cancelled"] } else { vec![name] };
            assert_eq!(marks(slot), expected);
            assert_eq!((slot.link(), slot.state(), slot.result()), (link, State::Idle, 0), "{name}");
            assert!(slot.limit().is_none() && !slot.has_entries());
        }
        let mut slot = fresh(RawOp::Nop, link);
        // SAFETY: as above.
        let slot = unsafe { of(&mut slot) };
        MARKS.iter().for_each(|(_, set, _)| set(slot));
        slot.set_careful();
        assert_eq!([(); 5].map(|()| slot.count_try()), [true, true, true, false, false]);
        assert_eq!((marks(slot).len(), slot.link()), (MARKS.len(), link));
        slot.set_pausing(false);
        slot.set_timer(false);
        assert_eq!((marks(slot).len(), slot.link()), (MARKS.len() - 2, link));
        slot.set_state(State::Ring);
        slot.unchain();
        assert!(!slot.is_chained() && !slot.is_broken() && slot.is_stepped() && slot.state() == State::Idle);
    }
}

#[test]
fn entries_are_counted_and_cancels_are_limited() {
    let mut slot = fresh(RawOp::Nop, Link::None);
    // SAFETY: it is fresh.
    let slot = unsafe { of(&mut slot) };
    for count in 1..=16 {
        assert!(slot.may_cancel(), "{count}");
        slot.add_entry(State::Ring);
        assert!(slot.has_entries() && slot.state() == State::Ring);
    }
    assert!(!slot.may_cancel());
    assert_eq!((0..16).filter(|_| slot.remove_entry()).count(), 1);
    assert!(!slot.has_entries());
}

#[test]
fn a_result_is_plain_if_nothing_else_is_known_of_the_operation() {
    let in_ring = || {
        let mut slot = Box::new(MaybeUninit::uninit());
        // SAFETY: memory for a slot, which nobody else knows.
        unsafe { Slot::init_in_ring(slot.as_mut_ptr(), RawOp::Nop, ptr::null()) };
        slot
    };
    let changes: [fn(&mut Slot); 4] = [
        |slot| slot.set_careful(),
        |slot| slot.add_entry(State::Ring),
        |slot| slot.set_may_block(),
        |slot| slot.set_state(State::Lingering),
    ];
    for (result, change, plain) in [(0, None, true), (5, None, true), (-1, None, false)]
        .into_iter()
        .chain(changes.map(|change| (5, Some(change), false)))
    {
        let mut slot = in_ring();
        // SAFETY: initialised above.
        let slot = unsafe { of(&mut slot) };
        assert!(slot.has_entries() && slot.state() == State::Ring);
        if let Some(change) = change {
            change(slot);
        }
        let state = slot.state();
        assert_eq!(slot.take_plain_result(result), plain);
        let expected = if plain { (result, State::Done, false) } else { (0, state, true) };
        assert_eq!((slot.result(), slot.state(), slot.has_entries()), expected);
    }
}

#[test]
fn a_soft_link_alone_breaks_and_by_what_is_short_of_success() {
    let read = RawOp::Read { fd: Fd::new(-1), buf: ptr::null_mut(), len: 8, offset: 0, nowait: false, buffer: 0 };
    for link in LINKS {
        for (result, breaks) in [(-libc::EIO, true), (0, true), (7, true), (8, false)] {
            let mut slot = fresh(read, link);
            // SAFETY: it is fresh, and its operation has no pointer that is looked at.
            let slot = unsafe { of(&mut slot) };
            slot.set_result(result);
            // SAFETY: as above.
            unsafe { slot.check_link() };
            assert_eq!(slot.is_broken(), breaks && link == Link::Soft, "{result} with {link:?}");
        }
    }
}

#[test]
fn limits_and_timers_are_where_they_were_put() {
    let mut slot = fresh(RawOp::Nop, Link::Soft);
    let place = slot.as_mut_ptr();
    assert_eq!(slot_of(timer_of(place)), place);
    // SAFETY: it is fresh.
    unsafe {
        assert_eq!(timer_of(place).cast_const(), (&raw const (*place).timer).cast());
        Slot::init_chained(place, Some(Duration::new(3, 5)));
        let slot = of(&mut slot);
        assert_eq!(slot.opened().get(), NOT_OPENED);
        assert_eq!(slot.limit().map(|limit| limit.nanos()), Some(3_000_000_005));
        slot.set_due(7);
        assert_eq!(slot.due(), 7);
    }
}
