//! Mends the timers (`timerfd`) in `files.img`.
//!
//! A timer that goes off again and again, and has gone off without anybody having read it, shows no time until the next
//! time: the kernel goes on with it when it is read. CRIU sets it to exactly that, no time, which is what switches a timer
//! off. Everything that is quicker than a dump is in that state, because nobody reads while everything stands still. Such
//! a timer is given the least time there is.
//!
//! ```text
//! u32 0x54564319   an image
//! u32 0x56303138   files
//! u32 length       of the message
//! …                File
//! …
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use prost::Message;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, io};

const NAME: &str = "files.img";
/// No image of files is larger: some million files.
const MAX_BYTES: u64 = 256 << 20;
const COMMON: u32 = 0x5456_4319;
const FILES: u32 = 0x5630_3138;
/// `TFD_TIMER_ABSTIME`: CRIU adds the time of the wake to those.
const ABSOLUTE: u32 = 1;

/// The part of CRIU's `file_entry` that counts here.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    /// A [`Timer`].
    #[prost(bytes = "vec", optional, tag = "12")]
    timer: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timer {
    #[prost(uint32, optional, tag = "6")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "7")]
    seconds: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    nanoseconds: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    every_seconds: Option<u64>,
    #[prost(uint64, optional, tag = "10")]
    every_nanoseconds: Option<u64>,
}

/// Mends the images of a dump that has succeeded; says how many timers needed it.
pub fn mend(images: &Path) -> Result<usize> {
    let path = images.join(NAME);
    let what = || format!("read {NAME}");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // An older CRIU: a file for each kind.
        Err(rustix::io::Errno::NOENT) => return Ok(0),
        Err(errno) => return Err(io(what())(errno.into())),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io(what()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::Protocol(format!("{NAME} is too large")));
    }
    let Some((mended, count)) = mended(&bytes).filter(|(_, count)| *count > 0) else { return Ok(0) };
    let new = images.join(format!("{NAME}.new"));
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(&mended)?;
        std::fs::rename(&new, &path)
    };
    write().map_err(|err| {
        let _ = std::fs::remove_file(&new);
        io(format!("write {NAME}"))(err)
    })?;
    Ok(count)
}

/// `None` when it cannot be read.
fn mended(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if number(0)? != COMMON || number(4)? != FILES {
        return None;
    }
    let (mut out, mut at, mut count) = (bytes[..8].to_vec(), 8, 0);
    while at < bytes.len() {
        let length = number(at)? as usize;
        let message = bytes.get(at + 4..(at + 4).checked_add(length)?)?;
        at += 4 + length;
        let mut message = message.to_vec();
        if let Some(mut timer) = Entry::decode(&message[..]).ok()?.timer
            && stands(&Timer::decode(&timer[..]).ok()?)
        {
            // What comes twice counts as it comes last. Each time it has to be whole.
            timer.extend(Timer { nanoseconds: Some(1), ..Timer::default() }.encode_to_vec());
            message.extend(Entry { timer: Some(timer) }.encode_to_vec());
            count += 1;
        }
        out.extend(u32::try_from(message.len()).ok()?.to_le_bytes());
        out.extend(message);
    }
    Some((out, count))
}

/// Whether it would never go off again.
fn stands(timer: &Timer) -> bool {
    let zero = |number: Option<u64>| number.unwrap_or(0) == 0;
    zero(timer.seconds)
        && zero(timer.nanoseconds)
        && !(zero(timer.every_seconds) && zero(timer.every_nanoseconds))
        && timer.flags.unwrap_or(0) & ABSOLUTE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With members that are not known here.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Whole {
        #[prost(uint32, required, tag = "2")]
        id: u32,
        #[prost(message, optional, tag = "12")]
        timer: Option<WholeTimer>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct WholeTimer {
        #[prost(uint64, required, tag = "5")]
        ticks: u64,
        #[prost(uint64, required, tag = "8")]
        nanoseconds: u64,
        #[prost(uint64, required, tag = "10")]
        every: u64,
    }

    fn image(list: &[Whole]) -> Vec<u8> {
        let mut bytes = [COMMON.to_le_bytes(), FILES.to_le_bytes()].concat();
        for message in list.iter().map(Message::encode_to_vec) {
            bytes.extend((message.len() as u32).to_le_bytes());
            bytes.extend(message);
        }
        bytes
    }

    #[test]
    fn a_timer_that_stands_goes_on_and_nothing_else_changes() {
        let timer = |nanoseconds, every| Some(WholeTimer { ticks: 3, nanoseconds, every });
        let before = [
            Whole { id: 1, timer: None },
            Whole { id: 2, timer: timer(0, 30) },
            Whole { id: 3, timer: timer(7, 30) },
            Whole { id: 4, timer: timer(0, 0) },
        ];
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mend(dir.path()).unwrap(), 0);
        std::fs::write(dir.path().join(NAME), image(&before)).unwrap();
        assert_eq!(mend(dir.path()).unwrap(), 1);
        let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        let mut after = Vec::new();
        let mut at = 8;
        while at < bytes.len() {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            after.push(Whole::decode(&bytes[at + 4..at + 4 + length]).unwrap());
            at += 4 + length;
        }
        let mut expected = before.to_vec();
        expected[1].timer = timer(1, 30);
        assert_eq!(after, expected);
        assert_eq!(mend(dir.path()).unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let whole = image(&[Whole { id: 2, timer: Some(WholeTimer { ticks: 0, nanoseconds: 0, every: 1 }) }]);
        for cut in 0..whole.len() {
            assert!(mended(&whole[..cut]).is_none_or(|(_, count)| count == 0), "{cut}");
        }
        let mut long = whole;
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(mended(&long).is_none());
    }
}
