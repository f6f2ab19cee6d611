//! What the C library keeps of memory that was freed. It keeps very much: one heap for each of up to sixteen threads on a
//! machine of two cores, and in them whatever is not at their end. Does nothing where the C library is another one.

/// Heaps (`malloc(3)` calls them arenas) that threads share. With two nobody was seen to wait for another.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Makes all threads share few heaps. To be called by the process's first thread, before there are others.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number, before any other thread could read it.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Gives memory in which nothing is back to the kernel. Takes milliseconds.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and locks what it looks at.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    unsafe {
        libc::malloc_trim(0);
    }
}
