//! A library that is loaded into CRIU for a dump, in front of the C library. It answers questions where the
//! kernel does not, or only after a long search:
//!
//! - `prlimit` of another user's process needs `CAP_SYS_RESOURCE`, which not every host's root has. The same numbers are in
//!   `/proc/<pid>/limits`, which root may read.
//! - `SO_PASSCRED` and `SO_PASSSEC` of a socket that is no unix socket: since Linux 6.16 the kernel says `EOPNOTSUPP`, and
//!   CRIU before 4.2 gives up on every TCP socket for that. What it said before was 0.
//!
//! - With the variable `DORMOUSE_WITHOUT_CONNECTION_TRACKING`, a dump of the tracked connections of a network namespace
//!   gives none. The kernel walks the table of all namespaces for it (a quarter of a million buckets is usual), twice, while
//!   everything stands still. What is asked instead is a dump of the expectations for an address family that has none:
//!   the answer has the same form and is empty.
//!
//! A seccomp filter on CRIU that asks us would do the same, but the kernel lets nobody under a filter suspend the filter of
//! another process, which CRIU must do with every container that has one.
//!
//! No standard library, and of the C library only `errno`: it is loaded into whatever C library CRIU was built with.
#![no_std]

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const SENDMSG: usize = 46;
    pub const GETSOCKOPT: usize = 55;
    pub const PRLIMIT64: usize = 302;
    pub const OPENAT: usize = 257;
    pub const READ: usize = 0;
    pub const CLOSE: usize = 3;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const SENDMSG: usize = 211;
    pub const GETSOCKOPT: usize = 209;
    pub const PRLIMIT64: usize = 261;
    pub const OPENAT: usize = 56;
    pub const READ: usize = 63;
    pub const CLOSE: usize = 57;
}

const EPERM: isize = 1;
const EOPNOTSUPP: isize = 95;
const SOL_SOCKET: i32 = 1;
const SO_PASSCRED: i32 = 16;
const SO_PASSSEC: i32 = 34;

const NLM_F_DUMP: u16 = 0x300;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
const GET_CONNECTIONS: u16 = 0x101;
/// `NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_GET`
const GET_EXPECTATIONS: u16 = 0x201;
/// `struct nlmsghdr` and `struct nfgenmsg`
const REQUEST_BYTES: usize = 16 + 4;
const AF_UNIX: u8 = 1;
const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;

extern "C" {
    fn __errno_location() -> *mut i32;
    static environ: *const *const u8;
}

#[repr(C)]
pub struct Vector {
    base: *mut u8,
    length: usize,
}

/// `struct msghdr` on 64 bits.
#[repr(C)]
pub struct Header {
    name: *mut u8,
    name_length: u32,
    vectors: *mut Vector,
    vector_count: usize,
    control: *mut u8,
    control_length: usize,
    flags: i32,
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "x86_64")]
unsafe fn kernel(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    asm!("syscall", inlateout("rax") n as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
         in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn kernel(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    asm!("svc 0", in("x8") n, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
         in("x5") f, options(nostack));
    result
}

unsafe fn answer(result: isize) -> i32 {
    if result < 0 {
        *__errno_location() = -result as i32;
        return -1;
    }
    result as i32
}

/// `getsockopt(2)`
///
/// # Safety
/// As for the C function.
#[no_mangle]
pub unsafe extern "C" fn getsockopt(fd: i32, level: i32, name: i32, value: *mut u32, length: *mut u32) -> i32 {
    let result =
        kernel(number::GETSOCKOPT, fd as usize, level as usize, name as usize, value as usize, length as usize, 0);
    if result == -EOPNOTSUPP && level == SOL_SOCKET && (name == SO_PASSCRED || name == SO_PASSSEC) && *length >= 4 {
        *value = 0;
        *length = 4;
        return 0;
    }
    answer(result)
}

/// `sendmsg(2)`
///
/// # Safety
/// As for the C function.
#[no_mangle]
pub unsafe extern "C" fn sendmsg(fd: i32, message: *const Header, flags: i32) -> isize {
    if has_variable(b"DORMOUSE_WITHOUT_CONNECTION_TRACKING=") && (*message).vector_count == 1 {
        let vector = &*(*message).vectors;
        if vector.length >= REQUEST_BYTES && option(fd, SO_DOMAIN) == AF_NETLINK && option(fd, SO_PROTOCOL) == NETLINK_NETFILTER
        {
            // Length (4 bytes), kind, flags, sequence (4), port (4); then the address family.
            let kind = vector.base.add(4).cast::<u16>();
            let asks = vector.base.add(6).cast::<u16>().read_unaligned();
            if kind.read_unaligned() == GET_CONNECTIONS && asks & NLM_F_DUMP == NLM_F_DUMP {
                kind.write_unaligned(GET_EXPECTATIONS);
                *vector.base.add(16) = AF_UNIX;
            }
        }
    }
    let result = kernel(number::SENDMSG, fd as usize, message as usize, flags as usize, 0, 0, 0);
    if result < 0 {
        *__errno_location() = -result as i32;
        return -1;
    }
    result
}

unsafe fn option(fd: i32, name: i32) -> i32 {
    let mut value = 0i32;
    let mut length = 4u32;
    let (value_at, length_at) = (&mut value as *mut i32 as usize, &mut length as *mut u32 as usize);
    kernel(number::GETSOCKOPT, fd as usize, SOL_SOCKET as usize, name as usize, value_at, length_at, 0);
    value
}

/// Whether a variable is set whose name, with the equals sign, is this.
unsafe fn has_variable(name: &[u8]) -> bool {
    let mut entry = environ;
    while !entry.is_null() && !(*entry).is_null() {
        if name.iter().enumerate().all(|(at, byte)| *(*entry).add(at) == *byte) {
            return true;
        }
        entry = entry.add(1);
    }
    false
}

/// `prlimit(2)`
///
/// # Safety
/// As for the C function.
#[no_mangle]
pub unsafe extern "C" fn prlimit64(pid: i32, resource: u32, new: *const u64, old: *mut u64) -> i32 {
    let result = kernel(number::PRLIMIT64, pid as usize, resource as usize, new as usize, old as usize, 0, 0);
    if result == -EPERM && new.is_null() && !old.is_null() {
        if let Some((soft, hard)) = limits(pid, resource) {
            *old = soft;
            *old.add(1) = hard;
            return 0;
        }
    }
    answer(result)
}

/// `syscall(2)`: this is how CRIU calls `prlimit`.
///
/// # Safety
/// As for the C function.
#[no_mangle]
pub unsafe extern "C" fn syscall(
    number: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    if number == number::PRLIMIT64 {
        return prlimit64(a as i32, b as u32, c as *const u64, d as *mut u64) as isize;
    }
    let result = kernel(number, a, b, c, d, e, f);
    if (-4095..0).contains(&result) {
        *__errno_location() = -result as i32;
        return -1;
    }
    result
}

/// The line of `/proc/<pid>/limits`: the lines stand in the order of the numbers, the names are 25 wide.
unsafe fn limits(pid: i32, resource: u32) -> Option<(u64, u64)> {
    let mut path = [0u8; 32];
    let mut at = 0;
    for byte in *b"/proc/" {
        path[at] = byte;
        at += 1;
    }
    let mut scale = 1_000_000_000;
    while scale > 0 {
        if pid >= scale {
            path[at] = b'0' + (pid / scale % 10) as u8;
            at += 1;
        }
        scale /= 10;
    }
    for byte in *b"/limits" {
        path[at] = byte;
        at += 1;
    }
    let fd = kernel(number::OPENAT, -100isize as usize, path.as_ptr() as usize, 0o2000000, 0, 0, 0);
    if fd < 0 {
        return None;
    }
    let mut text = [0u8; 4096];
    let mut length = 0;
    while length < text.len() {
        let got =
            kernel(number::READ, fd as usize, text.as_mut_ptr().add(length) as usize, text.len() - length, 0, 0, 0);
        if got <= 0 {
            break;
        }
        length += got as usize;
    }
    kernel(number::CLOSE, fd as usize, 0, 0, 0, 0, 0);
    let line = text.get(..length)?.split(|byte| *byte == b'\n').nth(resource as usize + 1)?;
    let mut fields = line.get(25..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    Some((parse(fields.next()?)?, parse(fields.next()?)?))
}

fn parse(field: &[u8]) -> Option<u64> {
    if field == b"unlimited" {
        return Some(u64::MAX);
    }
    let mut number = 0u64;
    for byte in field {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}
