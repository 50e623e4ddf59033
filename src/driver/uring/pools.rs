//! Pools of buffers that the kernel takes from.

use super::{Uring, setup};
use crate::driver::pool::{FreeRing, Pool};
use std::rc::Rc;

/// Those of one ring. The kernel knows a pool by its position.
#[derive(Default)]
pub(super) struct Pools(Vec<Option<Rc<Pool>>>);

impl Uring {
    /// As [`Driver::make_pool`](crate::driver::Driver::make_pool).
    pub(crate) fn make_pool(&mut self, count: u32, size: u32, incremental: bool, engine: u64) -> Result<Rc<Pool>, i32> {
        if !self.support.multishot() {
            return Pool::new(count, size, None, engine, 0).map(Rc::new).ok_or(libc::ENOMEM);
        }
        self.forget_unused();
        let group = self.pools.0.iter().position(Option::is_none).unwrap_or(self.pools.0.len());
        let group = u16::try_from(group).map_err(|_| libc::ENOSPC)?;
        let pool = self.register(count, size, incremental, engine, group)?;
        let place = usize::from(group);
        self.pools.0.resize(self.pools.0.len().max(place + 1), None);
        self.pools.0[place] = Some(pool.clone());
        Ok(pool)
    }

    fn register(&self, count: u32, size: u32, incremental: bool, engine: u64, group: u16) -> Result<Rc<Pool>, i32> {
        let mut ring = FreeRing::new(count).ok_or(libc::ENOMEM)?;
        // Parts of buffers would have to be told from whole ones.
        ring.bundles = self.support.bundles() && !incremental;
        // A buffer may be used in parts since 6.12; before that each has one.
        let failed = match setup::register_buffers(self.ring.fd(), ring.address(), count, group, incremental) {
            error if error == -libc::EINVAL && incremental => {
                setup::register_buffers(self.ring.fd(), ring.address(), count, group, false)
            }
            other => other,
        };
        if failed < 0 {
            return Err(-failed);
        }
        match Pool::new(count, size, Some(ring), engine, group) {
            Some(pool) => Ok(Rc::new(pool)),
            None => {
                setup::unregister_buffers(self.ring.fd(), group);
                Err(libc::ENOMEM)
            }
        }
    }

    /// Pools that only the ring itself still has.
    fn forget_unused(&mut self) {
        for (group, place) in self.pools.0.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|pool| Rc::strong_count(pool) == 1) {
                setup::unregister_buffers(self.ring.fd(), group as u16);
                *place = None;
            }
        }
    }
}
