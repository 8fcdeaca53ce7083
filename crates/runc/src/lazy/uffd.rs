//! userfaultfd (`man 2 ioctl_userfaultfd`) and the file that the pages come from: the calls that have no safe wrapper.
#![allow(unsafe_code)]

use std::fs::File;
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

    /// Gives the pages of a part of the file, from this address on. Says how many bytes were given, and why not more.
    pub fn copy(&self, start: u64, part: Part<'_>) -> (u64, rustix::io::Result<()>) {
        let mut copy = CopyRequest { dst: start, src: part.address, len: part.bytes, mode: 0, copy: 0 };
        // SAFETY: the kernel reads `len` bytes at `src`, which is mapped as long as `part` borrows the mapping (and where
        // the file has become shorter it answers EFAULT), and writes to the structure; the destination is in another
        // program, and checked by the kernel.
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

/// A file in memory, for the kernel to copy from. No Rust code ever looks into it: the file may change at any time.
#[derive(Debug)]
pub struct Mapping {
    address: u64,
    bytes: u64,
}

/// A part of a [`Mapping`].
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    address: u64,
    bytes: u64,
    mapping: std::marker::PhantomData<&'a Mapping>,
}

impl Mapping {
    /// Maps so many bytes of the file from its beginning. Nothing is read yet.
    pub fn of(file: &File, bytes: u64) -> io::Result<Self> {
        if bytes == 0 {
            return Ok(Mapping { address: 0, bytes: 0 });
        }
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping that the kernel places where nothing is.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { address: address as u64, bytes })
    }

    /// A part that is within it, both ends on page borders.
    pub fn part(&self, offset: u64, bytes: u64) -> Option<Part<'_>> {
        let is_within = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        is_within.then(|| Part { address: self.address + offset, bytes, mapping: std::marker::PhantomData })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: it is our own mapping, and no part outlives it.
            unsafe { libc::munmap(self.address as *mut libc::c_void, self.bytes as usize) };
        }
    }
}

impl Part<'_> {
    /// What of it begins so many bytes further on.
    pub fn from(self, skip: u64, bytes: u64) -> Self {
        let skip = skip.min(self.bytes);
        Part { address: self.address + skip, bytes: bytes.min(self.bytes - skip), ..self }
    }

    /// How long it is.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// Reads it. Fails where the file has become shorter or the disk does.
    pub fn read(self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_READ) {
            // Before Linux 5.14: it is read when it is copied.
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Forgets that it was read; the file stays cached as files do.
    pub fn forget(self) {
        // Only our own size is the matter.
        let _ = self.advise(libc::MADV_DONTNEED);
    }

    fn advise(self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is within a mapping of a file that is only read; neither advice changes what is in it.
        let result = unsafe { libc::madvise(self.address as *mut libc::c_void, self.bytes as usize, advice) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
