//! All tasks of a runtime that have not ended.

use super::task::{Head, Key, State};
use std::{
    cell::{Cell, RefCell},
    ptr,
    rc::Rc,
};

/// One that has ended before it was ever suspended, which nobody knows therefore, leaves its record for the next one,
/// with its place here and its stack: making it again would cost several times what running it does.
pub(super) struct Table {
    entries: RefCell<Entries>,
    /// A record with a stack of the usual size, spare if its task has ended: it stays here while it is another task, so
    /// that nothing has to be written when it becomes one. Or null.
    spare: Cell<*const Head>,
    /// Ids so far. 0 is the root, which is in no table.
    ids: Cell<u64>,
    /// The runtime's number.
    serial: u32,
}

#[derive(Default)]
struct Entries {
    /// Tasks, and the spare record.
    all: Vec<Option<Rc<Head>>>,
    free: Vec<u32>,
}

impl Table {
    pub(super) fn new(serial: u32) -> Table {
        Table { entries: RefCell::default(), spare: Cell::new(ptr::null()), ids: Cell::new(0), serial }
    }

    #[inline]
    fn next_id(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    /// Makes a task of the spare record, if there is one. It is kept until it is removed.
    #[inline]
    pub(super) fn add_spare(&self) -> Option<&Head> {
        let task = self.spare()?;
        task.begin(self.next_id());
        Some(task)
    }

    #[inline]
    fn spare(&self) -> Option<&Head> {
        // SAFETY: the table keeps a record until `remove` is called for it, which looks whether it is this one.
        let task = unsafe { self.spare.get().as_ref() };
        task.filter(|task| task.state.get() == State::Done)
    }

    /// Makes a task, which is kept until it is removed.
    pub(super) fn add(&self) -> Rc<Head> {
        let entries = &mut *self.entries.borrow_mut();
        let index = entries.free.pop().unwrap_or_else(|| {
            entries.all.push(None);
            u32::try_from(entries.all.len() - 1).expect("fewer than 2^32 tasks")
        });
        let id = self.next_id();
        let mut task = Rc::<Head>::new_uninit();
        if let Some(place) = Rc::get_mut(&mut task) {
            // In its place, for it is large.
            place.write(Head::new(self.serial, Key { index, id }));
        }
        // SAFETY: a new `Rc` has no other owner, so it was written.
        let task = unsafe { task.assume_init() };
        entries.all[index as usize].insert(task).clone()
    }

    /// Keeps the record of a task that has ended, unless there is another one. Nobody knows the task, it has no name,
    /// and a stack of the usual size.
    #[inline]
    pub(super) fn save(&self, task: &Head) -> bool {
        let is_it = ptr::eq(self.spare.get(), task);
        if !is_it && self.has_spare() {
            return false;
        }
        if !is_it {
            self.spare.set(task);
        }
        true
    }

    /// The task will not end below its spawner, and leaves nothing.
    pub(super) fn give_away(&self, task: &Head) {
        if ptr::eq(self.spare.get(), task) {
            self.spare.set(ptr::null());
        }
    }

    /// Whether there is no record that waits for another task, or will when its task has ended.
    pub(super) fn wants_spare(&self) -> bool {
        self.spare.get().is_null()
    }

    /// How many tasks there ever were.
    pub(super) fn made(&self) -> u64 {
        self.ids.get()
    }

    /// Removes a task that has ended, and has no stack of the pool's any more.
    pub(super) fn remove(&self, key: Key) -> Option<Rc<Head>> {
        let entries = &mut *self.entries.borrow_mut();
        let task = entries.all[key.index as usize].take();
        debug_assert!(task.as_ref().is_some_and(|task| task.key() == key));
        if let Some(task) = &task {
            self.give_away(task);
        }
        entries.free.push(key.index);
        task
    }

    /// The task that a key leads to, if it has not ended.
    pub(super) fn get(&self, key: Key) -> Option<Rc<Head>> {
        let entries = self.entries.borrow();
        let task = entries.all.get(key.index as usize)?.as_ref()?;
        (task.key() == key && task.state.get() != State::Done).then(|| task.clone())
    }

    /// Calls `f` with each task that has not ended; it neither makes nor ends any.
    pub(super) fn for_each(&self, f: impl FnMut(&Rc<Head>)) {
        self.entries.borrow().all.iter().flatten().filter(|task| task.state.get() != State::Done).for_each(f);
    }

    pub(super) fn all(&self) -> Vec<Rc<Head>> {
        let mut all = Vec::new();
        self.for_each(|task| all.push(task.clone()));
        all
    }

    pub(super) fn has_spare(&self) -> bool {
        self.spare().is_some()
    }

    pub(super) fn len(&self) -> usize {
        let entries = self.entries.borrow();
        entries.all.len() - entries.free.len() - usize::from(self.has_spare())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
