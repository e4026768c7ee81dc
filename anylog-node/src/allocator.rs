//! The program's allocator. Rows are many small allocations that one thread makes and another frees, which mimalloc is made for.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_get, mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`: milliseconds for which memory that was freed is kept for the next who asks.
const PURGE_DELAY: mi_option_t = 15;

/// What mimalloc 3 starts with. Under load it is worth a quarter of the memory that the node needs.
const DEFAULT: c_long = 1000;

/// Pauses between two groups of rows are shorter.
const SHORT: c_long = 10;

/// Has freed memory go back to the system soon. What `MIMALLOC_PURGE_DELAY` says in the environment stands.
pub(crate) fn give_back_soon() {
    // SAFETY: both calls read or write one number of a table of mimalloc, atomically, and take no pointer; a number that is no option
    // is refused there. The look before the change makes sure that the option is the one meant.
    #[allow(unsafe_code, reason = "mimalloc offers its options to C only")]
    unsafe {
        if mi_option_get(PURGE_DELAY) == DEFAULT {
            mi_option_set(PURGE_DELAY, SHORT);
        }
    }
}
