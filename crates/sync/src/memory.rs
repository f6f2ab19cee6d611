//! What the C library keeps of memory that was freed: it has a heap for every few threads, and in each whatever is not at
//! its end. Does nothing where the C library is another one.

/// Gives memory in which nothing is back to the kernel. Takes milliseconds.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and locks what it looks at.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    unsafe {
        libc::malloc_trim(0);
    }
}
