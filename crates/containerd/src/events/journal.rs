//! The journal on disk: `<state-dir>/events.log`, one JSON object per line, oldest first.
//!
//! It is only ever appended to, or replaced as a whole by a rename. A line that was torn by a crash is dropped when the
//! file is opened; a broken line in the middle is skipped and said so. It must never keep the daemon from starting.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::Event;

/// No line of ours comes near; a longer one is not ours.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// The last append failed half way: what it left has to be cut off before the next.
    torn: bool,
    length: u64,
}

impl Journal {
    /// Opens or creates the journal and reads what it remembers.
    ///
    /// # Errors
    /// When the file can be neither read nor made.
    pub fn open(path: &Path) -> io::Result<(Journal, Vec<Event>)> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o755).open(path)?;
        let (events, length) = read(&file, path)?;
        if file.metadata()?.len() != length {
            warn!(path = %path.display(), "dropped a torn line at the end of the event journal");
            file.set_len(length)?;
        }
        Ok((Journal { path: path.to_path_buf(), file, torn: false, length }, events))
    }

    /// Appends one event.
    ///
    /// # Errors
    /// When it could not be written, for instance because the disk is full. The journal stays usable.
    pub fn append(&mut self, event: &Event) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        let line = line(event)?;
        match self.file.write_all(&line) {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.torn = true;
                Err(error)
            }
        }
    }

    /// Replaces the whole journal by these events.
    ///
    /// # Errors
    /// When that failed; the old journal is then still in place and in use.
    pub fn replace<'a>(&mut self, events: impl Iterator<Item = &'a Event>) -> io::Result<()> {
        let temporary = self.path.with_extension("log.tmp");
        let mut text = Vec::new();
        for event in events {
            text.extend_from_slice(&line(event)?);
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o755).open(&temporary)?;
        file.write_all(&text)?;
        fs::rename(&temporary, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.length = text.len() as u64;
        self.torn = false;
        Ok(())
    }
}

fn line(event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

/// Every readable event, and the length of the file up to and with the last whole line.
fn read(file: &File, path: &Path) -> io::Result<(Vec<Event>, u64)> {
    let mut reader = BufReader::new(file);
    let mut events = Vec::new();
    let mut whole = 0;
    let mut line = Vec::new();
    let mut skipped = 0_u64;
    loop {
        line.clear();
        let read = io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            if (read as u64) < MAX_LINE_BYTES {
                break;
            }
            // Too long to be ours: go on to its end.
            let rest = reader.skip_until(b'\n')?;
            whole += (read + rest) as u64;
            skipped += 1;
            continue;
        }
        whole += read as u64;
        match serde_json::from_slice(&line) {
            Ok(event) => events.push(event),
            Err(_) => skipped += 1,
        }
    }
    if skipped > 0 {
        warn!(path = %path.display(), skipped, "skipped broken lines of the event journal");
    }
    Ok((events, whole))
}

#[cfg(test)]
mod tests {
    use super::super::EventKind;
    use super::*;
    use chrono::{DateTime, Utc};

    fn event(n: i64) -> Event {
        let timestamp: DateTime<Utc> = DateTime::from_timestamp_nanos(n);
        Event {
            id: format!("c{n}"),
            kind: EventKind::Exit,
            timestamp,
            pid: "init".into(),
            status: 3,
            reason: String::new(),
        }
    }

    #[test]
    fn what_is_appended_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let (mut journal, old) = Journal::open(&path).unwrap();
        assert!(old.is_empty());
        journal.append(&event(1)).unwrap();
        journal.append(&event(2)).unwrap();
        drop(journal);
        let (_, events) = Journal::open(&path).unwrap();
        assert_eq!(events, [event(1), event(2)]);
    }

    #[test]
    fn a_torn_line_is_dropped_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let first = line(&event(1)).unwrap();
        let second = line(&event(2)).unwrap();
        for cut in 0..second.len() {
            let mut bytes = first.clone();
            bytes.extend_from_slice(&second[..cut]);
            fs::write(&path, &bytes).unwrap();
            let (mut journal, events) = Journal::open(&path).unwrap();
            assert_eq!(events, [event(1)], "cut at {cut}");
            journal.append(&event(3)).unwrap();
            let (_, events) = Journal::open(&path).unwrap();
            assert_eq!(events, [event(1), event(3)], "cut at {cut}");
        }
    }

    #[test]
    fn broken_lines_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let mut bytes = b"garbage\n\xff\xfe\n{}\n".to_vec();
        bytes.extend_from_slice(&vec![b'x'; 200_000]);
        bytes.push(b'\n');
        bytes.extend_from_slice(&line(&event(1)).unwrap());
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [event(1)]);
    }

    #[test]
    fn the_originals_journal_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let text = concat!(
            r#"{"id":"a","type":"start-container","timestamp":"2017-03-01T10:00:00.123456789Z"}"#,
            "\n",
            r#"{"id":"a","type":"exit","timestamp":"2017-03-01T10:00:01Z","pid":"init","status":-1}"#,
            "\n",
            r#"{"id":"a","type":"live","timestamp":"2017-03-01T10:00:02+02:00"}"#,
            "\n"
        );
        fs::write(&path, text).unwrap();
        let events = Journal::open(&path).unwrap().1;
        assert_eq!(events.len(), 3);
        assert_eq!(events[1].status, 255);
        assert_eq!(events[2].kind, EventKind::Other("live".into()));
    }

    #[test]
    fn replacing_keeps_appending() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let (mut journal, _) = Journal::open(&path).unwrap();
        for n in 0..5 {
            journal.append(&event(n)).unwrap();
        }
        journal.replace([event(3), event(4)].iter()).unwrap();
        journal.append(&event(5)).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [event(3), event(4), event(5)]);
    }
}
