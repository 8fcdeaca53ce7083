//! Writes a tar: ustar headers, with PAX records for what does not fit in them. The same entries give the same bytes.

use std::io::{self, Read, Write};

use crate::{Entry, EntryKind, Error, Result, Timestamp};

const BLOCK: u64 = 512;
/// Seven octal digits.
const MAX_OCTAL_ID: u32 = 0o7_777_777;
/// Eleven octal digits.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;

/// Writes a tar. Without [`TarWriter::finish`] the archive has no end.
pub struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry without content.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        self.append_file(entry, io::empty()).map(drop)
    }

    /// Writes a small file.
    pub fn append_bytes(&mut self, entry: &Entry, content: &[u8]) -> Result<()> {
        let entry = Entry { size: content.len() as u64, ..entry.clone() };
        self.append_file(&entry, content).map(drop)
    }

    /// Writes a file with `entry.size` bytes of `content`. Returns how many bytes `content` lacked, which were filled
    /// with zeros: a file may shrink while it is read, and an archive has to be whole all the same.
    pub fn append_file(&mut self, entry: &Entry, content: impl Read) -> Result<u64> {
        self.header(entry)?;
        let copied = io::copy(&mut content.take(entry.size), &mut self.out)?;
        let missing = entry.size - copied;
        let padding = (BLOCK - entry.size % BLOCK) % BLOCK;
        io::copy(&mut io::repeat(0).take(missing + padding), &mut self.out)?;
        Ok(missing)
    }

    /// Writes the end mark.
    pub fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK as usize])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        let mut path = entry.path.clone();
        if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut header = tar::Header::new_ustar();
        let mut pax = Vec::new();
        name_field(&mut header.as_mut_bytes()[0..100], "path", &path, &mut pax);
        name_field(&mut header.as_mut_bytes()[157..257], "linkpath", &entry.link, &mut pax);
        header.set_entry_type(match entry.kind {
            EntryKind::File => tar::EntryType::Regular,
            EntryKind::HardLink => tar::EntryType::Link,
            EntryKind::Symlink => tar::EntryType::Symlink,
            EntryKind::CharDevice => tar::EntryType::Char,
            EntryKind::BlockDevice => tar::EntryType::Block,
            EntryKind::Directory => tar::EntryType::Directory,
            EntryKind::Fifo => tar::EntryType::Fifo,
        });
        header.set_mode(entry.mode & 0o7777);
        header.set_uid(u64::from(id_field("uid", entry.uid, &mut pax)));
        header.set_gid(u64::from(id_field("gid", entry.gid, &mut pax)));
        header.set_size(if entry.size > MAX_OCTAL_SIZE { 0 } else { entry.size });
        if entry.size > MAX_OCTAL_SIZE {
            pax_record("size", entry.size.to_string().as_bytes(), &mut pax);
        }
        let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(0);
        header.set_mtime(if seconds > MAX_OCTAL_SIZE { 0 } else { seconds });
        if entry.mtime.nanoseconds != 0 || u64::try_from(entry.mtime.seconds).is_err() || seconds > MAX_OCTAL_SIZE {
            pax_record("mtime", spell(entry.mtime).as_bytes(), &mut pax);
        }
        let device = |error| Error::Invalid(format!("device numbers of {:?}: {error}", entry.display()));
        header.set_device_major(entry.device.0).map_err(device)?;
        header.set_device_minor(entry.device.1).map_err(device)?;
        for (name, value) in &entry.xattrs {
            let key = format!("SCHILY.xattr.{}", String::from_utf8_lossy(name));
            pax_record(&key, value, &mut pax);
        }
        if !pax.is_empty() {
            let mut extension = tar::Header::new_ustar();
            let name = &b"PaxHeaders/entry"[..];
            extension.as_mut_bytes()[..name.len()].copy_from_slice(name);
            extension.set_entry_type(tar::EntryType::XHeader);
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(pax.len() as u64);
            extension.set_cksum();
            self.out.write_all(extension.as_bytes())?;
            let padding = (BLOCK - pax.len() as u64 % BLOCK) % BLOCK;
            pax.resize(pax.len() + padding as usize, 0);
            self.out.write_all(&pax)?;
        }
        header.set_cksum();
        Ok(self.out.write_all(header.as_bytes())?)
    }
}

fn name_field(field: &mut [u8], key: &str, name: &[u8], pax: &mut Vec<u8>) {
    let fits = name.len() <= field.len() && name.is_ascii();
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
    if !fits {
        pax_record(key, name, pax);
    }
}

fn id_field(key: &str, id: u32, pax: &mut Vec<u8>) -> u32 {
    if id <= MAX_OCTAL_ID {
        return id;
    }
    pax_record(key, id.to_string().as_bytes(), pax);
    0
}

/// The record begins with its own length, the digits of which count.
fn pax_record(key: &str, value: &[u8], pax: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} {key}=").as_bytes());
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn spell(time: Timestamp) -> String {
    match (time.seconds, time.nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanoseconds) if seconds >= 0 => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}
