//! Checked by loom: letters are fetched once each, or given back.

use super::{super::remote::loom::Sleeper, *};
use crate::sys::concurrent::check;
use ::loom::thread;

type Box = Letters<std::sync::Arc<()>, fn(std::sync::Arc<()>)>;

fn mailbox(sleeper: &Sleeper) -> (Poster<std::sync::Arc<()>>, Box) {
    let mail = Arc::new(Mutex::new(Some(Vec::new())));
    let map: fn(std::sync::Arc<()>) = drop;
    (Poster { bell: sleeper.handle(), mail: mail.clone() }, Letters { mail, fetched: RefCell::default(), map })
}

fn all_letters_arrive(sleeper: &Sleeper) {
    let (poster, mailbox) = mailbox(sleeper);
    let threads = [poster.clone(), poster]
        .map(|poster| thread::spawn(move || assert!(poster.post(std::sync::Arc::new(())).is_ok())));
    let mut opened = 0;
    while sleeper.is_awaited() {
        sleeper.wait();
        mailbox.fetch();
        assert!(opened > 0 || !mailbox.is_done(), "two letters were not opened yet");
        while mailbox.open(true).is_some() {
            opened += 1;
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    // Those who have gone have posted before.
    mailbox.fetch();
    while mailbox.open(true).is_some() {
        opened += 1;
    }
    assert!(opened == 2 && mailbox.is_done());
}

#[test]
fn letters_arrive_as_long_as_somebody_may_post() {
    check(|| all_letters_arrive(&Sleeper::with_source()));
    check(|| all_letters_arrive(&Sleeper::with_door()));
}

#[test]
fn letters_to_a_queue_that_ends_are_given_back_or_dropped() {
    check(|| {
        let (poster, mailbox) = mailbox(&Sleeper::with_source());
        let letter = std::sync::Arc::new(());
        let thread = {
            let letter = letter.clone();
            thread::spawn(move || drop(poster.post(letter)))
        };
        mailbox.close();
        thread.join().unwrap();
        assert_eq!((std::sync::Arc::strong_count(&letter), mailbox.fetch()), (1, 0));
    });
}
