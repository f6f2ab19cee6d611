//! What the C library keeps of memory that was freed: it has a heap for every few threads, and in each whatever is not at
//! its end. Does nothing where the C library is another one.

/// What is free at the end of a heap goes back to the kernel by itself if it is more than this.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 8 << 20;
/// From this size on, memory comes from the kernel and goes back to it each time.
#[cfg(target_env = "gnu")]
const MAPPED: i32 = 512 << 10;

/// Keeps memory that buffers will need again in a moment. Where the C library decides, it gives it back between one buffer and
/// the next, and the kernel clears each page anew: half a million pages of the sender's for a file of 4 GiB. For the whole process;
/// [`give_back`] is for when there is nothing to do.
pub(crate) fn keep() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and locks what it sets.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
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
