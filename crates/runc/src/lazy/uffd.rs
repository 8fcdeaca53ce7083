//! userfaultfd (`man 2 ioctl_userfaultfd`): the calls that have no safe wrapper in rustix or nix.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

const API: u64 = 0xaa;
const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_FORK: u8 = 0x13;
const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;
/// To be told when a task forks, moves, drops and unmaps memory: without it, strangers' programs cannot be served.
const NEEDED_FEATURES: u64 = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 6);
const MESSAGE_BYTES: usize = 32;
/// So many events are read at once.
const BATCH: usize = 16;

#[repr(C)]
struct ApiRequest {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeRequest {
    start: u64,
    len: u64,
}

#[repr(C)]
struct CopyRequest {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[repr(C)]
struct ZeroRequest {
    start: u64,
    len: u64,
    mode: u64,
    zeropage: i64,
}

const fn request(direction: u64, number: u64, size: usize) -> libc::c_ulong {
    (direction << 30) | ((size as u64) << 16) | (0xaa << 8) | number
}

const UFFDIO_API: libc::c_ulong = request(3, 0x3f, size_of::<ApiRequest>());
const UFFDIO_WAKE: libc::c_ulong = request(2, 0x02, size_of::<RangeRequest>());
const UFFDIO_COPY: libc::c_ulong = request(3, 0x03, size_of::<CopyRequest>());
const UFFDIO_ZEROPAGE: libc::c_ulong = request(3, 0x04, size_of::<ZeroRequest>());

/// What a task has done.
#[derive(Debug)]
pub enum Event {
    /// It waits for the page at this address.
    Fault(u64),
    /// It has a child with the same memory.
    Fork(Uffd),
    /// It has moved memory.
    Remap {
        /// From here.
        from: u64,
        /// To here.
        to: u64,
        /// So much of it.
        bytes: u64,
    },
    /// It no longer wants what was here, from one address to the other.
    Gone(u64, u64),
}

/// One address space whose missing pages are ours to give.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

impl From<OwnedFd> for Uffd {
    fn from(fd: OwnedFd) -> Self {
        Uffd(fd)
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether this kernel lets us serve any program's memory.
pub fn check_support() -> io::Result<()> {
    // SAFETY: takes flags only; a non-negative answer is a descriptor that is ours.
    let uffd = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    let mut api = ApiRequest { api: API, features: NEEDED_FEATURES, ioctls: 0 };
    // SAFETY: the request is the kernel's structure and lives through the call.
    if unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_API, &mut api) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Uffd {
    /// Reads what has happened, as far as it is there.
    pub fn events(&self) -> rustix::io::Result<Vec<Event>> {
        let mut buffer = [0; BATCH * MESSAGE_BYTES];
        let length = match rustix::io::read(&self.0, &mut buffer) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(errno) => return Err(errno),
        };
        Ok(buffer[..length].as_chunks::<MESSAGE_BYTES>().0.iter().filter_map(event).collect())
    }

    /// Gives pages from this address on, in memory of ours. Says how many bytes were given, and why not more.
    pub fn copy(&self, start: u64, bytes: &[u8]) -> (u64, rustix::io::Result<()>) {
        let mut copy =
            CopyRequest { dst: start, src: bytes.as_ptr() as u64, len: bytes.len() as u64, mode: 0, copy: 0 };
        // SAFETY: the kernel reads `len` bytes at `src`, which is the slice given, and writes to the structure; the
        // destination is in another program, and checked by the kernel.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_COPY, &mut copy) };
        answer(result, copy.copy)
    }

    /// Gives an empty page.
    pub fn zero(&self, start: u64, bytes: u64) -> rustix::io::Result<()> {
        let mut zero = ZeroRequest { start, len: bytes, mode: 0, zeropage: 0 };
        // SAFETY: the request is the kernel's structure and lives through the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_ZEROPAGE, &mut zero) };
        answer(result, zero.zeropage).1
    }

    /// Lets whoever waits for these pages look again.
    pub fn wake(&self, start: u64, bytes: u64) -> rustix::io::Result<()> {
        let range = RangeRequest { start, len: bytes };
        // SAFETY: as above; the kernel only reads it.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_WAKE, &range) };
        answer(result, 0).1
    }
}

fn answer(result: libc::c_int, done: i64) -> (u64, rustix::io::Result<()>) {
    let bytes = u64::try_from(done).unwrap_or(0);
    if result >= 0 {
        return (bytes, Ok(()));
    }
    let errno = Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
    (bytes, Err(errno))
}

fn event(message: &[u8; MESSAGE_BYTES]) -> Option<Event> {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&message[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    Some(match message[0] {
        EVENT_PAGEFAULT => Event::Fault(number(16)),
        EVENT_FORK => {
            let fd = i32::try_from(number(8) & u64::from(u32::MAX)).ok()?;
            // SAFETY: with this event the kernel has just given us a descriptor of this number.
            Event::Fork(Uffd(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        EVENT_REMAP => Event::Remap { from: number(8), to: number(16), bytes: number(24) },
        EVENT_REMOVE | EVENT_UNMAP => Event::Gone(number(8), number(16)),
        _ => return None,
    })
}
