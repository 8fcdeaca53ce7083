//! Reads a tar: ustar, GNU long names, PAX. One entry at a time, nothing held but that entry's header.
//!
//! The `tar` crate decodes the 512-byte header; the records around it are read here because its reader holds extension
//! records of any length in memory.

use std::io::{self, Read};

use crate::{Entry, EntryKind, Error, Result, Timestamp};

const BLOCK: usize = 512;
/// Linux's PATH_MAX: a longer name could not be created anyway.
const MAX_NAME_BYTES: usize = 4096;
/// Extended attributes are at most 64 KiB each; nobody has many of that size.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// What an archive may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries.
    pub max_entries: u64,
    /// Bytes of the (uncompressed) archive.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// Ten million entries, 1 TiB: above any image seen, below what would hang a machine for good.
    fn default() -> Self {
        Self { max_entries: 10_000_000, max_bytes: 1 << 40 }
    }
}

/// Reads a tar. After [`TarReader::next_entry`], reading it gives that entry's content.
pub struct TarReader<R> {
    inner: R,
    limits: Limits,
    entries: u64,
    bytes: u64,
    /// Content of the present entry that was not read yet.
    content_left: u64,
    /// What fills up its last block.
    padding: u64,
    ended: bool,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Timestamp>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    /// Reads `inner`, which is not compressed.
    pub fn new(inner: R, limits: Limits) -> Self {
        Self { inner, limits, entries: 0, bytes: 0, content_left: 0, padding: 0, ended: false }
    }

    /// The next entry, or `None` at the end. What was not read of the one before is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip_content()?;
            let Some(block) = self.header_block()? else {
                return if extended { Err(Error::Truncated) } else { Ok(None) };
            };
            self.entries += 1;
            if self.entries > self.limits.max_entries {
                return Err(Error::TooLarge(format!("more than {} entries", self.limits.max_entries)));
            }
            let header = tar::Header::from_byte_slice(&block);
            verify_checksum(header, &block)?;
            let size = number("size", header.entry_size())?;
            self.set_content(size);
            match block[156] {
                b'x' => pax_records(&self.extension()?, &mut extensions)?,
                b'g' => self.skip_content()?,
                b'L' => extensions.path = Some(trim_nul(self.extension()?)),
                b'K' => extensions.link = Some(trim_nul(self.extension()?)),
                flag => return self.entry(header, flag, size, extensions).map(Some),
            }
            extended = true;
        }
    }

    /// Reads what follows the last entry, to the stream's end: who computes a digest needs every byte.
    pub fn drain(&mut self) -> Result<()> {
        self.skip_content()?;
        let mut buffer = [0; 16 << 10];
        loop {
            match self.inner.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.count(n as u64)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn entry(&mut self, header: &tar::Header, flag: u8, size: u64, ext: Extensions) -> Result<Entry> {
        let path = ext.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = ext.link.unwrap_or_else(|| header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default());
        let kind = match flag {
            b'0' | 0 if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'S' => return Err(Error::Unsupported("a sparse file")),
            other => return Err(Error::Invalid(format!("unknown entry type {:?}", other as char))),
        };
        if path.len() > MAX_NAME_BYTES || link.len() > MAX_NAME_BYTES {
            return Err(Error::Invalid(format!("a name longer than {MAX_NAME_BYTES} bytes")));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(Error::Invalid("a name with a NUL byte".into()));
        }
        // Only files have content, whatever the size field of another entry says (POSIX says to ignore it; some old
        // archives carry the file's size in a hard link's header without the content).
        let size = if kind == EntryKind::File { ext.size.unwrap_or(size) } else { 0 };
        self.set_content(size);
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => (
                number("device", header.device_major())?.unwrap_or(0),
                number("device", header.device_minor())?.unwrap_or(0),
            ),
            _ => (0, 0),
        };
        let seconds = number("mtime", header.mtime())? as i64;
        Ok(Entry {
            kind,
            size,
            mode: number("mode", header.mode())? & 0o7777,
            uid: owner(ext.uid.map_or_else(|| number("uid", header.uid()), Ok)?)?,
            gid: owner(ext.gid.map_or_else(|| number("gid", header.gid()), Ok)?)?,
            mtime: ext.mtime.unwrap_or(Timestamp { seconds, nanoseconds: 0 }),
            link: if matches!(kind, EntryKind::HardLink | EntryKind::Symlink) { link } else { Vec::new() },
            device,
            xattrs: ext.xattrs,
            path,
        })
    }

    fn set_content(&mut self, size: u64) {
        self.content_left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.content_left > MAX_EXTENSION_BYTES {
            return Err(Error::TooLarge(format!("an extension record of {} bytes", self.content_left)));
        }
        let mut data = vec![0; self.content_left as usize];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    /// A header's block; `None` at the end mark or at a clean end of the stream.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(0) => return Err(Error::Truncated),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.count(BLOCK as u64)?;
        self.ended = block.iter().all(|&b| b == 0);
        Ok((!self.ended).then_some(block))
    }

    fn skip_content(&mut self) -> Result<()> {
        let left = self.content_left.saturating_add(self.padding);
        if left > 0 {
            let skipped = io::copy(&mut self.inner.by_ref().take(left), &mut io::sink())?;
            self.count(skipped)?;
            if skipped != left {
                return Err(Error::Truncated);
            }
        }
        (self.content_left, self.padding) = (0, 0);
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.max_bytes {
            return Err(Error::TooLarge(format!("more than {} bytes", self.limits.max_bytes)));
        }
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.content_left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(Error::Truncated.into());
        }
        self.content_left -= n as u64;
        self.count(n as u64)?;
        Ok(n)
    }
}

fn verify_checksum(header: &tar::Header, block: &[u8; BLOCK]) -> Result<()> {
    let sum = |signed: bool| -> i64 {
        let value = |b: u8| if signed { i64::from(b as i8) } else { i64::from(b) };
        block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { value(b) }).sum()
    };
    let stored = i64::from(number("checksum", header.cksum())?);
    if stored != sum(false) && stored != sum(true) {
        return Err(Error::Invalid("a header's checksum is wrong".into()));
    }
    Ok(())
}

fn number<T>(field: &str, value: io::Result<T>) -> Result<T> {
    value.map_err(|error| Error::Invalid(format!("a header's {field}: {error}")))
}

/// `u32::MAX` means "leave as it is" to chown and is nobody's id.
fn owner(id: u64) -> Result<u32> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Error::Invalid(format!("owner {id}"))),
    }
}

fn trim_nul(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|&b| b == 0).unwrap_or(name.len()));
    name
}

/// `length key=value\n`, over and over, where length counts the whole record.
fn pax_records(mut data: &[u8], ext: &mut Extensions) -> Result<()> {
    let invalid = || Error::Invalid("a PAX record is malformed".into());
    while !data.is_empty() {
        let space = data.iter().take(20).position(|&b| b == b' ').ok_or_else(invalid)?;
        let length: usize = decimal(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(invalid)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(invalid());
        }
        let record = &data[space + 1..length - 1];
        data = &data[length..];
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(invalid)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => ext.path = Some(value.to_vec()),
            b"linkpath" => ext.link = Some(value.to_vec()),
            b"size" => ext.size = Some(decimal(value).ok_or_else(invalid)?),
            b"uid" => ext.uid = Some(decimal(value).ok_or_else(invalid)?),
            b"gid" => ext.gid = Some(decimal(value).ok_or_else(invalid)?),
            b"mtime" => ext.mtime = Some(timestamp(value).ok_or_else(invalid)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err(Error::Unsupported("a sparse file")),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    ext.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`.
fn timestamp(value: &[u8]) -> Option<Timestamp> {
    let negative = value.first() == Some(&b'-');
    let value = &value[usize::from(negative)..];
    let dot = value.iter().position(|&b| b == b'.').unwrap_or(value.len());
    let seconds = i64::try_from(decimal(&value[..dot])?).ok()?;
    let fraction = value.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |d| d - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}
