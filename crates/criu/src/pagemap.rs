//! Which pages of a task's memory the images hold, and where: `pagemap-<pid>.img`.
//!
//! ```text
//! u32 0x54564319   an image
//! u32 0x56084025   a page map
//! u32 length       of the message
//! …                Head: which pages-<id>.img the pages are in
//! u32 length
//! …                Entry: so many pages from this address on; those that are present follow each other in the pages file
//! …
//! ```
//!
//! The images may be anybody's: everything is bounded and checked, and what does not fit together is refused as a whole.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use prost::Message;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, io};

/// What a page has here. CRIU's images are made for it.
pub const PAGE_BYTES: u64 = 4096;
/// No page map is larger: some five million ranges.
const MAX_BYTES: u64 = 64 << 20;
/// No message in it is longer.
const MAX_MESSAGE: usize = 1 << 10;
/// Where the addresses of programs end (five levels of page tables).
const MAX_ADDRESS: u64 = 1 << 56;
const COMMON: u32 = 0x5456_4319;
const PAGEMAP: u32 = 0x5608_4025;
const IN_PARENT: u32 = 1;
const LAZY: u32 = 2;
const PRESENT: u32 = 4;

#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(uint32, tag = "1")]
    pages_id: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(uint64, tag = "1")]
    vaddr: u64,
    /// CRIU 4.2 has the number under 5, because it can be larger.
    #[prost(uint32, tag = "2")]
    compat_nr_pages: u32,
    #[prost(bool, optional, tag = "3")]
    in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    nr_pages: Option<u64>,
}

/// Consecutive pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Address of the first byte in the task.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// Where the first byte lies in the pages file.
    pub offset: u64,
}

/// One task's page map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pagemap {
    /// Number of the pages file.
    pub pages_id: u32,
    /// Pages that may come after the task runs, by address.
    pub lazy: Vec<Range>,
    /// How long the pages file is.
    pub file_bytes: u64,
    /// Some of the pages lie in another checkpoint.
    pub has_parent: bool,
    /// Some of the pages were left with a page server (`checkpoint --lazy-pages`).
    pub elsewhere: bool,
}

impl Pagemap {
    /// Bytes that may come later.
    pub fn lazy_bytes(&self) -> u64 {
        self.lazy.iter().map(|range| range.end - range.start).sum()
    }

    /// Reads that of the task with this pid (the one it has in its own pid namespace).
    pub fn read(images: impl AsFd, pid: i32) -> Result<Self> {
        let name = format!("pagemap-{pid}.img");
        let file = open(images, &name)?;
        let bytes = file.metadata().map_err(io(format!("read {name}")))?.len();
        if bytes > MAX_BYTES {
            return Err(Error::Image { name, reason: format!("it has {bytes} bytes, {MAX_BYTES} are allowed") });
        }
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(io(format!("read {name}")))?;
        parse(&text).map_err(|reason| Error::Image { name, reason: reason.into() })
    }

    /// Opens its pages file, which must be as long as the map says.
    pub fn open_pages(&self, images: impl AsFd) -> Result<File> {
        let name = format!("pages-{}.img", self.pages_id);
        let file = open(images, &name)?;
        let bytes = file.metadata().map_err(io(format!("read {name}")))?.len();
        if bytes < self.file_bytes {
            let reason = format!("it has {bytes} bytes instead of {}: it was cut short", self.file_bytes);
            return Err(Error::Image { name, reason });
        }
        Ok(file)
    }
}

/// The tasks that have a page map in these images, by pid.
pub fn tasks(images: &Path) -> Result<Vec<i32>> {
    let doing = || format!("read {}", images.display());
    let mut pids = Vec::new();
    for entry in std::fs::read_dir(images).map_err(io(doing()))? {
        let name = entry.map_err(io(doing()))?.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("pagemap-")?.strip_suffix(".img")?.parse().ok());
        pids.extend(pid.filter(|pid: &i32| *pid > 0));
    }
    pids.sort_unstable();
    Ok(pids)
}

fn open(images: impl AsFd, name: &str) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd: OwnedFd = rustix::fs::openat(images, name, flags, Mode::empty())
        .map_err(|errno| io(format!("open {name}"))(errno.into()))?;
    let file = File::from(fd);
    if !file.metadata().map_err(io(format!("read {name}")))?.is_file() {
        return Err(Error::Image { name: name.to_owned(), reason: "it is no regular file".into() });
    }
    Ok(file)
}

fn parse(mut text: &[u8]) -> std::result::Result<Pagemap, &'static str> {
    if number(&mut text) != Some(COMMON) || number(&mut text) != Some(PAGEMAP) {
        return Err("it is no page map");
    }
    let head = Head::decode(message(&mut text)?.ok_or("it has no head")?).map_err(|_| "its head cannot be read")?;
    let mut map = Pagemap { pages_id: head.pages_id, ..Pagemap::default() };
    let mut last_end = 0;
    while let Some(bytes) = message(&mut text)? {
        let entry = Entry::decode(bytes).map_err(|_| "an entry cannot be read")?;
        let pages = entry.nr_pages.unwrap_or(entry.compat_nr_pages.into());
        let length = pages.checked_mul(PAGE_BYTES).ok_or("a range is too long")?;
        let end = entry.vaddr.checked_add(length).filter(|end| *end <= MAX_ADDRESS).ok_or("a range is too long")?;
        if entry.vaddr % PAGE_BYTES != 0 || entry.vaddr < last_end || length == 0 {
            return Err("its ranges are out of order");
        }
        last_end = end;
        let flags = entry.flags.unwrap_or(if entry.in_parent == Some(true) { IN_PARENT } else { PRESENT });
        map.has_parent |= flags & IN_PARENT != 0;
        map.elsewhere |= flags & (LAZY | PRESENT | IN_PARENT) == LAZY;
        if flags & PRESENT == 0 {
            continue;
        }
        let offset = map.file_bytes;
        map.file_bytes = offset.checked_add(length).ok_or("a range is too long")?;
        if flags & LAZY != 0 {
            match map.lazy.last_mut() {
                // Large areas come in pieces.
                Some(last) if last.end == entry.vaddr && last.offset + (last.end - last.start) == offset => {
                    last.end = end;
                }
                _ => map.lazy.push(Range { start: entry.vaddr, end, offset }),
            }
        }
    }
    Ok(map)
}

fn number(text: &mut &[u8]) -> Option<u32> {
    let (first, rest) = text.split_first_chunk()?;
    *text = rest;
    Some(u32::from_le_bytes(*first))
}

/// The next message; `None` at the end.
fn message<'a>(text: &mut &'a [u8]) -> std::result::Result<Option<&'a [u8]>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let length = number(text).ok_or("it was cut short")? as usize;
    if length > MAX_MESSAGE {
        return Err("an entry is too long");
    }
    let (message, rest) = text.split_at_checked(length).ok_or("it was cut short")?;
    *text = rest;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entries: &[Entry]) -> Vec<u8> {
        let mut text = [COMMON.to_le_bytes(), PAGEMAP.to_le_bytes()].concat();
        let mut add = |message: Vec<u8>| {
            text.extend((message.len() as u32).to_le_bytes());
            text.extend(message);
        };
        add(Head { pages_id: 7 }.encode_to_vec());
        entries.iter().for_each(|entry| add(entry.encode_to_vec()));
        text
    }

    fn entry(vaddr: u64, pages: u32, flags: u32) -> Entry {
        Entry { vaddr, compat_nr_pages: pages, in_parent: None, flags: Some(flags), nr_pages: None }
    }

    #[test]
    fn lazy_ranges_keep_their_place_in_the_file_and_are_joined() {
        let entries = [
            entry(0x1000, 2, PRESENT),
            entry(0x10000, 1, PRESENT | LAZY),
            entry(0x11000, 3, PRESENT | LAZY),
            entry(0x20000, 1, IN_PARENT),
            entry(0x30000, 1, PRESENT | LAZY),
        ];
        let map = parse(&image(&entries)).unwrap();
        assert_eq!((map.pages_id, map.file_bytes, map.has_parent), (7, 7 * PAGE_BYTES, true));
        let expected = [
            Range { start: 0x10000, end: 0x14000, offset: 0x2000 },
            Range { start: 0x30000, end: 0x31000, offset: 0x6000 },
        ];
        assert_eq!(map.lazy, expected);
        assert_eq!(map.lazy_bytes(), 5 * PAGE_BYTES);
    }

    #[test]
    fn large_numbers_of_newer_versions_are_read() {
        let large = Entry { nr_pages: Some(1 << 33), ..entry(0x1000, 0, PRESENT | LAZY) };
        assert_eq!(parse(&image(&[large])).unwrap().lazy_bytes(), (1 << 33) * PAGE_BYTES);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = image(&[entry(0x1000, 1, PRESENT)]);
        for cut in [3, 7, 9, good.len() - 1] {
            assert!(parse(&good[..cut]).is_err(), "{cut}");
        }
        for entries in [
            vec![entry(0x1001, 1, PRESENT)],
            vec![entry(0x2000, 1, PRESENT), entry(0x1000, 1, PRESENT)],
            vec![entry(0x1000, 2, PRESENT), entry(0x2000, 1, PRESENT)],
            vec![entry(0x1000, 0, PRESENT)],
            vec![entry(u64::MAX - 0xfff, 1, PRESENT)],
            vec![Entry { nr_pages: Some(u64::MAX), ..entry(0x1000, 0, PRESENT) }],
        ] {
            assert!(parse(&image(&entries)).is_err(), "{entries:?}");
        }
        let mut long = good;
        long.extend(u32::MAX.to_le_bytes());
        assert!(parse(&long).is_err());
    }

    #[test]
    fn a_short_pages_file_and_a_link_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let images = File::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("pagemap-1.img"), image(&[entry(0x1000, 2, PRESENT | LAZY)])).unwrap();
        std::fs::write(dir.path().join("pages-7.img"), vec![0; 8191]).unwrap();
        assert_eq!(tasks(dir.path()).unwrap(), [1]);
        let map = Pagemap::read(&images, 1).unwrap();
        assert!(map.open_pages(&images).unwrap_err().to_string().contains("cut short"));
        std::fs::write(dir.path().join("pages-7.img"), vec![0; 8192]).unwrap();
        map.open_pages(&images).unwrap();
        std::os::unix::fs::symlink("pagemap-1.img", dir.path().join("pagemap-2.img")).unwrap();
        assert!(Pagemap::read(&images, 2).is_err());
    }
}
