//! The few system calls that have no safe wrapper in rustix or nix.
//!
//! Nothing outside this module and [`crate::launch`] may be `unsafe`; every function here is a thin, total wrapper that
//! turns the kernel's answer into an `io::Result`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What `clone` gave us.
pub enum Forked {
    /// We are the parent; the child has this pid.
    Parent(i32),
    /// We are the child.
    Child,
}

/// `fork` with namespaces: the child starts in new namespaces for each flag.
///
/// The program is single-threaded, so that the child may go on allocating and locking as it likes.
pub fn fork_into(flags: libc::c_int) -> io::Result<Forked> {
    // SAFETY: without CLONE_VM and with a null stack, clone behaves as fork does; this program has only one thread.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(flags | libc::SIGCHLD), 0usize, 0usize, 0usize, 0usize)
    };
    match pid {
        0 => Ok(Forked::Child),
        pid if pid > 0 => i32::try_from(pid).map(Forked::Parent).map_err(|_| io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process at once, running no destructor and no exit handler.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// Enters the namespaces named by `flags` of a namespace file or a pidfd.
pub fn setns(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) })
}

/// Leaves namespaces for new ones.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(flags) })
}

/// `prctl` with up to two plain numbers.
pub fn prctl(option: libc::c_int, argument: libc::c_ulong, second: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: the options used here take numbers, not pointers.
    let result = unsafe { libc::prctl(option, argument, second, 0 as libc::c_ulong, 0 as libc::c_ulong) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: no memory is involved.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor from `first` on, except for those `kept`.
///
/// For a process that only executes another program or ends afterwards, and therefore never drops what owned them.
pub fn close_all_from(first: u32, kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.cast_unsigned()).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for (to, next) in kept.iter().map(|fd| (fd.checked_sub(1), fd + 1)).chain([(Some(u32::MAX), u32::MAX)]) {
        if let Some(to) = to.filter(|to| from <= *to) {
            // SAFETY: no memory is involved; the caller uses none of these descriptors any more.
            if unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        from = next;
    }
    Ok(())
}

/// Whether a descriptor was open when this program was executed: all that it has opened itself are close-on-exec.
pub fn is_inherited(number: u32) -> bool {
    let Ok(number) = RawFd::try_from(number) else { return false };
    // SAFETY: F_GETFD takes any number, and no memory is involved.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Replaces the process; returns only with the error.
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the process by the program behind a descriptor; returns only with the error.
pub fn execve_fd(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    // SAFETY: as for `execve`; the empty path with AT_EMPTY_PATH names the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// A detached read-only copy of the mount that holds `path`: what is opened or executed through it cannot be written
/// to, whoever asks.
pub fn read_only_mount_of(path: &CStr) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path is a valid string; a non-negative answer is a descriptor that is ours.
    let tree = unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    const MOUNT_ATTR_RDONLY: u64 = 1;
    set_mount_attributes(tree.as_fd(), MOUNT_ATTR_RDONLY)?;
    Ok(tree)
}

/// Adds attributes (`MOUNT_ATTR_…`) to the mount behind a descriptor.
pub fn set_mount_attributes(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    change_mount(mount, &MountChange { set: attributes, ..MountChange::default() }, false)
}

/// What is to change about a mount.
#[derive(Debug, Default)]
pub struct MountChange<'a> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear; it is done first.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
    /// The user namespace that maps owners, for `MOUNT_ATTR_IDMAP`.
    pub users: Option<BorrowedFd<'a>>,
}

/// Changes the mount behind a descriptor; with those below it, if it is `recursive`.
pub fn change_mount(mount: BorrowedFd<'_>, change: &MountChange<'_>, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        set: change.set,
        clear: change.clear,
        propagation: change.propagation,
        userns_fd: change.users.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure is the kernel's, of the size given, and lives through the call, as the descriptors do.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr as *const MountAttr,
            std::mem::size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts this process under a seccomp filter: `program` is an array of `struct sock_filter`, `flags` are
/// `SECCOMP_FILTER_FLAG_…`.
pub fn load_seccomp(program: &[u8], flags: u64) -> io::Result<()> {
    const INSTRUCTION_BYTES: usize = std::mem::size_of::<libc::sock_filter>();
    let Ok(len) = libc::c_ushort::try_from(program.len() / INSTRUCTION_BYTES) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // The kernel only reads, from wherever it is told; it needs no alignment.
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the structure is the kernel's, and both it and the program it points to live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            &filter as *const libc::sock_fprog,
        )
    };
    // With TSYNC a positive answer names a thread that could not be included; this program has only one.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the size of a terminal.
pub fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) })
}

/// The size of a terminal: rows, columns.
pub fn window_size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets the group list of this process. An empty list clears it.
pub fn set_groups(groups: &[libc::gid_t]) -> io::Result<()> {
    // SAFETY: pointer and length belong together. The raw call is used because glibc's would signal other threads,
    // of which there are none.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes this group in every sense (real, effective, saved).
pub fn set_gid(gid: libc::gid_t) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setresgid(gid, gid, gid) })
}

/// Becomes this user in every sense (real, effective, saved).
pub fn set_uid(uid: libc::uid_t) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}

/// Reads a resource limit of this process: soft, hard.
pub fn get_rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64.
    check(unsafe { libc::getrlimit64(resource, &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets a resource limit of this process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one rlimit64.
    check(unsafe { libc::setrlimit64(resource, &limit) })
}

/// How much of what was written to a TCP socket the kernel has not sent yet.
pub fn unsent_bytes(socket: BorrowedFd<'_>) -> io::Result<i32> {
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The state of a TCP socket, and how many have connected to a listener and were not accepted yet (of a connection: how
/// many segments are on their way).
pub fn tcp_state(socket: BorrowedFd<'_>) -> io::Result<(u8, u32)> {
    // The head of `struct tcp_info`: eight bytes, the first of which is the state, and four numbers; then `tcpi_unacked`.
    let mut info = [0u8; 28];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info[0], u32::from_ne_bytes([info[24], info[25], info[26], info[27]])))
}

/// Brings the loopback interface of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: socket takes numbers; the descriptor is ours; ifreq is zeroed, named, and lives through both calls.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd)?;
        let socket = OwnedFd::from_raw_fd(fd);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
            *slot = *byte as libc::c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts a session keyring of its own; kernels without keyrings are left alone. Without a name it is new for sure.
pub fn join_session_keyring(name: Option<&CStr>) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the name is a valid string, or null, which stands for none.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) };
    match io::Error::last_os_error() {
        _ if result >= 0 => Ok(()),
        err if err.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        err => Err(err),
    }
}

/// Gives back the signal state that a program expects at its start: nothing blocked, nothing ignored.
pub fn default_signals() {
    // SAFETY: SIG_DFL is a valid disposition for every signal, and an empty set is initialised before it is used.
    unsafe {
        for signal in 1..=64 {
            if signal != libc::SIGKILL && signal != libc::SIGSTOP {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// A real-time signal that programs may use: 34 to 64.
pub fn real_time_signal(number: i32) -> Option<rustix::process::Signal> {
    // SAFETY: the numbers are valid for the kernel, and not among those that the C library keeps for itself (32, 33).
    (34..=64).contains(&number).then(|| unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}

/// `struct sched_attr` of `sched_setattr(2)`.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerAttributes {
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`.
    pub runtime_ns: u64,
    /// For `SCHED_DEADLINE`.
    pub deadline_ns: u64,
    /// For `SCHED_DEADLINE`.
    pub period_ns: u64,
}

/// Changes the scheduling of the calling process.
pub fn set_scheduler(attributes: &SchedulerAttributes) -> io::Result<()> {
    #[repr(C)]
    struct Raw {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let SchedulerAttributes { policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns } = *attributes;
    let size = size_of::<Raw>() as u32;
    let raw = Raw { size, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns };
    // SAFETY: the structure has the size that it says, and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the execution domain of the calling process.
pub fn set_personality(domain: libc::c_ulong) -> io::Result<()> {
    // SAFETY: no memory is involved.
    if unsafe { libc::personality(domain) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
