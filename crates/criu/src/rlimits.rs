//! Lets CRIU read other users' resource limits on a host whose root lacks `CAP_SYS_RESOURCE`.
//!
//! To dump a process CRIU asks for its limits with `prlimit`, which the kernel refuses for a process of another user
//! without that capability. The same numbers are in `/proc/<pid>/limits`, which root may read. So CRIU is started with a
//! seccomp filter that hands exactly this question (another process, nothing to set) to us, and we answer it from there.
//! Every other call goes to the kernel as ever. Only for dumps: what a restore makes would inherit the filter.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

const CAP_SYS_RESOURCE: u32 = 24;

/// Whether CRIU may not read the limits of other users' processes here: root lacks `CAP_SYS_RESOURCE`.
pub fn needed() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps >> CAP_SYS_RESOURCE & 1 == 0)
}

/// In the child: installs the filter and gives the descriptor on which questions arrive.
pub(crate) fn install() -> io::Result<OwnedFd> {
    #[cfg(target_arch = "x86_64")]
    const ARCH: u32 = 0xC000_003E;
    #[cfg(target_arch = "aarch64")]
    const ARCH: u32 = 0xC000_00B7;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Offsets in seccomp_data: nr 0, arch 4, arguments from 16, low half first on these machines.
    let mut program = [
        step(LOAD, 0, 0, 4),
        step(EQUAL, 0, 9, ARCH),
        step(LOAD, 0, 0, 0),
        step(EQUAL, 0, 7, libc::SYS_prlimit64 as u32),
        step(LOAD, 0, 0, 16),
        step(EQUAL, 5, 0, 0), // itself
        step(LOAD, 0, 0, 32),
        step(EQUAL, 0, 3, 0), // something to set
        step(LOAD, 0, 0, 36),
        step(EQUAL, 0, 1, 0),
        step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program and its description live through the call; a non-negative answer is a descriptor of ours.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &filter as *const libc::sock_fprog,
        );
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Answers one question. An error means that there is nobody left to ask.
pub(crate) fn answer(listener: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero is a valid value of the structure, and the kernel wants it so.
    let mut question: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the kernel fills one seccomp_notif.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut question) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let valid = || {
        // SAFETY: the kernel reads one u64.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &question.id) == 0 }
    };
    let [pid, resource, _, target, ..] = question.data.args;
    let error = match limits(pid as i32, resource as u32) {
        Err(err) => -err.raw_os_error().unwrap_or(libc::EPERM),
        Ok((soft, hard)) => {
            let mut bytes = [0u8; 16];
            bytes[..8].copy_from_slice(&soft.to_ne_bytes());
            bytes[8..].copy_from_slice(&hard.to_ne_bytes());
            let written = fs::OpenOptions::new()
                .write(true)
                .open(format!("/proc/{}/mem", question.pid))
                // The asker may have died and its pid be another's: look again once its memory is open.
                .and_then(|memory| if valid() { memory.write_all_at(&bytes, target) } else { Ok(()) });
            if written.is_ok() { 0 } else { -libc::EFAULT }
        }
    };
    let answer = libc::seccomp_notif_resp { id: question.id, val: 0, error, flags: 0 };
    // SAFETY: the kernel reads one seccomp_notif_resp. It fails when the asker has gone, which is no failure of ours.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &answer) };
    Ok(())
}

fn limits(pid: i32, resource: u32) -> io::Result<(u64, u64)> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/limits")).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    parse(&text, resource).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// `/proc/<pid>/limits` names the limits; the order of its lines is that of the numbers.
fn parse(text: &str, resource: u32) -> Option<(u64, u64)> {
    const NAMES: [&str; 16] = [
        "Max cpu time",
        "Max file size",
        "Max data size",
        "Max stack size",
        "Max core file size",
        "Max resident set",
        "Max processes",
        "Max open files",
        "Max locked memory",
        "Max address space",
        "Max file locks",
        "Max pending signals",
        "Max msgqueue size",
        "Max nice priority",
        "Max realtime priority",
        "Max realtime timeout",
    ];
    let name = NAMES.get(resource as usize)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut fields = line.split_ascii_whitespace().map(|field| match field {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some((fields.next()??, fields.next()??))
}

/// Sends the listener from the child to the parent.
pub(crate) fn send(socket: BorrowedFd<'_>, listener: &OwnedFd) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[io::IoSlice::new(b"l")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_kernel() {
        let text = fs::read_to_string("/proc/self/limits").unwrap();
        for resource in 0..16 {
            let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the kernel writes one rlimit64.
            assert_eq!(unsafe { libc::getrlimit64(resource, &mut limit) }, 0);
            assert_eq!(parse(&text, resource), Some((limit.rlim_cur, limit.rlim_max)), "{resource}");
        }
        assert_eq!(parse(&text, 16), None);
    }
}
