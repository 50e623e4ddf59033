//! All tasks of a runtime that have not ended.

use super::task::{Key, Task};
use std::rc::Rc;

#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Option<Rc<Task>>>,
    free: Vec<u32>,
    /// Ids so far. 0 is the root, which is in no table.
    ids: u64,
}

impl Table {
    /// Enters a task, which gets its key. It is kept until it is removed.
    pub(super) fn insert(&mut self, task: Rc<Task>) {
        self.ids += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.entries.push(None);
                u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 tasks")
            }
        };
        task.head.set_key(Key { index, id: self.ids });
        self.entries[index as usize] = Some(task);
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Rc<Task>> {
        let task = self.entries[key.index as usize].take();
        debug_assert!(task.as_ref().is_some_and(|task| task.head.key() == key));
        self.free.push(key.index);
        task
    }

    /// The task that a key leads to, if it has not ended.
    pub(super) fn get(&self, key: Key) -> Option<Rc<Task>> {
        let task = self.entries.get(key.index as usize)?.as_ref()?;
        (task.head.key() == key).then(|| task.clone())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Task>> {
        self.entries.iter().flatten()
    }

    pub(super) fn all_cloned(&self) -> Vec<Rc<Task>> {
        self.all().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
