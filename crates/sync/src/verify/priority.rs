//! Lets everything else go first: the processor, and the disk. Never changes another thread.

/// The nice value: whatever else wants the processor goes first.
const NICE: i32 = 19;
/// `IOPRIO_WHO_PROCESS` of this thread, and `IOPRIO_CLASS_IDLE` in the upper bits: `ioprio_set(2)`, which libc does not name.
const THREAD: libc::c_long = 1;
const IDLE: libc::c_long = 3 << 13;

/// From here on to the end of this thread.
pub(crate) fn lower_priority() {
    if let Err(errno) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%errno, "the priority stays what it is");
    }
    // SAFETY: the call takes three integers and touches no memory.
    #[expect(unsafe_code, reason = "neither std nor rustix has it")]
    let set = unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, 0 as libc::c_long, IDLE) };
    if set != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!("the priority at the disk stays what it is: {error}");
    }
}
