//! Tuples as batches and as parts of batches.

use super::{Chains, Entry, Last, Raising};
use crate::{BatchError, Result, driver::slot::Slot, lower::Lower, sealed::Sealed};
use std::mem::MaybeUninit;

macro_rules! tuple {
    ($($head:ident . $at:tt),* ; $last:ident . $end:tt) => {
        impl<$($head,)* $last> Sealed for ($($head,)* $last,) {}

        impl<$($head: Entry,)* $last: Last> Entry for ($($head,)* $last,) {
            type Results = ($($head::Results,)* $last::Results,);
            type Values = ($($head::Values,)* $last::Values,);
            type Slots = ($(MaybeUninit<$head::Slots>,)* MaybeUninit<$last::Slots>,);
            const LEN: u32 = $($head::LEN +)* $last::LEN;
            const CHAINS: Chains = {
                let so_far = (Chains::NONE, 0);
                $(let so_far = so_far.0.then(so_far.1, $head::CHAINS);)*
                so_far.0.then(so_far.1, $last::CHAINS).0
            };

            #[inline]
            fn lower_into(&mut self, slots: &mut MaybeUninit<Self::Slots>, cx: &mut Lower<'_>) {
                // SAFETY: a tuple of `MaybeUninit`s needs no initialisation.
                let slots = unsafe { slots.assume_init_mut() };
                $(self.$at.lower_into(&mut slots.$at, cx);)*
                self.$end.lower_into(&mut slots.$end, cx);
            }

            unsafe fn locate(slots: *mut MaybeUninit<Self::Slots>, found: &mut Vec<*mut Slot>) {
                let slots: *mut Self::Slots = slots.cast();
                // SAFETY: only addresses are taken, within the memory that the caller promises.
                unsafe {
                    $($head::locate(&raw mut (*slots).$at, found);)*
                    $last::locate(&raw mut (*slots).$end, found);
                }
            }

            #[inline]
            unsafe fn raise_from(self, slots: &MaybeUninit<Self::Slots>, cx: &mut Raising<'_>) -> Self::Results {
                // SAFETY: as above; the parts were initialised by `lower_into`, as the caller promises.
                unsafe {
                    let slots = slots.assume_init_ref();
                    ($(self.$at.raise_from(&slots.$at, cx),)* self.$end.raise_from(&slots.$end, cx),)
                }
            }

            fn values(results: Self::Results, index: &mut usize) -> Result<Self::Values, BatchError> {
                Ok(($($head::values(results.$at, index)?,)* $last::values(results.$end, index)?,))
            }
        }

        impl<$($head: Entry,)* $last: Last> Last for ($($head,)* $last,) {}
    };
}

tuple!(; A.0);
tuple!(A.0; B.1);
tuple!(A.0, B.1; C.2);
tuple!(A.0, B.1, C.2; D.3);
tuple!(A.0, B.1, C.2, D.3; E.4);
tuple!(A.0, B.1, C.2, D.3, E.4; F.5);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5; G.6);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6; H.7);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7; I.8);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7, I.8; J.9);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7, I.8, J.9; K.10);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7, I.8, J.9, K.10; L.11);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7, I.8, J.9, K.10, L.11; M.12);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7, I.8, J.9, K.10, L.11, M.12; N.13);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7, I.8, J.9, K.10, L.11, M.12, N.13; O.14);
tuple!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7, I.8, J.9, K.10, L.11, M.12, N.13, O.14; P.15);
