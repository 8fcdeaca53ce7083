//! One line of output as one JSON object on one line, in Docker's format:
//!
//! ```text
//! {"log":"text\n","stream":"stdout","attrs":{"label":"value"},"time":"2006-01-02T15:04:05.999999999Z"}
//! ```
//!
//! `attrs` is there only when the container has any. A piece of a line that is too long, or that its process never ended,
//! has no `\n` in `log`. Reading has a fast path for exactly this shape and takes any other JSON object with these members.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::attributes::{self, Attributes};
use crate::time;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Standard output, and everything when there is a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamKind {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Stdout => b"stdout",
            Self::Stderr => b"stderr",
        }
    }
}

/// One line that was written, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it came from.
    pub stream: StreamKind,
    /// When it was read from the container, nanoseconds since the epoch.
    pub time_ns: i64,
    /// The bytes, with the line feed when the line had one.
    pub line: Bytes,
    /// Labels, environment and tag, when the log has them.
    pub attributes: Option<Arc<Attributes>>,
}

impl Entry {
    /// What the client gets: the line, after its attributes (`details`), after its time (`timestamps`), as asked for.
    pub fn render(&self, timestamps: bool, details: bool) -> Bytes {
        if !timestamps && !details {
            return self.line.clone();
        }
        let mut out = Vec::with_capacity(self.line.len() + 32);
        if timestamps {
            time::Formatter::default().append_fixed(&mut out, self.time_ns);
            out.push(b' ');
        }
        if details {
            let attributes = self.attributes.as_deref().map(attributes::for_details).unwrap_or_default();
            out.extend_from_slice(attributes.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(&self.line);
        out.into()
    }
}

/// Writes records.
#[derive(Debug, Default)]
pub struct Encoder {
    formatter: time::Formatter,
    /// `"attrs":{…},` or nothing.
    attributes: Vec<u8>,
}

impl Encoder {
    /// An encoder that puts these attributes in every record.
    pub fn new(chosen: &Attributes) -> Self {
        let mut attributes = Vec::new();
        if !chosen.is_empty() {
            attributes.extend_from_slice(b"\"attrs\":");
            // Strings to strings: cannot fail.
            attributes.extend_from_slice(&serde_json::to_vec(chosen).unwrap_or_else(|_| b"{}".to_vec()));
            attributes.push(b',');
        }
        Self { formatter: time::Formatter::default(), attributes }
    }

    /// Appends one record. `complete`: the line ended with a line feed, which `text` does not contain.
    pub fn append(&mut self, out: &mut Vec<u8>, stream: StreamKind, time_ns: i64, text: &[u8], complete: bool) {
        out.extend_from_slice(b"{\"log\":\"");
        escape(out, text);
        if complete {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(b"\",\"stream\":\"");
        out.extend_from_slice(stream.name());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.attributes);
        out.extend_from_slice(b"\"time\":\"");
        self.formatter.append_trimmed(out, time_ns);
        out.extend_from_slice(b"\"}\n");
    }
}

/// The bytes that may not stand in a JSON string as they are (`<`, `>`, `&`: Docker escapes them, so do we), and 0xE2, with
/// which U+2028 and U+2029 begin.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special[b'<' as usize] = true;
    special[b'>' as usize] = true;
    special[b'&' as usize] = true;
    special[0xE2] = true;
    special
};

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    if std::str::from_utf8(text).is_ok() {
        return escape_valid(out, text);
    }
    for chunk in text.utf8_chunks() {
        escape_valid(out, chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_valid(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !SPECIAL[byte as usize] {
            continue;
        }
        if byte == 0xE2 {
            if let [0x80, last @ (0xA8 | 0xA9), ..] = text[at + 1..] {
                out.extend_from_slice(&text[plain..at]);
                out.extend_from_slice(if last == 0xA8 { b"\\u2028" } else { b"\\u2029" });
                plain = at + 3;
            }
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
            }
        }
        plain = at + 1;
    }
    out.extend_from_slice(&text[plain..]);
}

/// Reads records. Lines share one buffer, and consecutive equal attributes share one map.
#[derive(Debug, Default)]
pub struct Decoder {
    text: BytesMut,
    attributes_json: Vec<u8>,
    attributes: Option<Arc<Attributes>>,
}

impl Decoder {
    /// Makes room for the lines of that many bytes of records. Decoding never makes them longer.
    pub fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
    }

    /// Decodes one record (without its line feed); `None` when it is not one.
    pub fn decode(&mut self, record: &[u8]) -> Option<Entry> {
        self.text.clear();
        match self.decode_usual(record) {
            Some(entry) => Some(entry),
            None => {
                self.text.clear();
                self.decode_any(record)
            }
        }
    }

    /// Exactly the shape that [`Encoder::append`] writes.
    fn decode_usual(&mut self, record: &[u8]) -> Option<Entry> {
        let rest = record.strip_prefix(b"{\"log\":\"")?;
        let rest = self.unescape(rest)?;
        let rest = rest.strip_prefix(b",\"stream\":\"std")?;
        let (stream, rest) = match rest {
            [b'o', b'u', b't', b'"', b',', rest @ ..] => (StreamKind::Stdout, rest),
            [b'e', b'r', b'r', b'"', b',', rest @ ..] => (StreamKind::Stderr, rest),
            _ => return None,
        };
        let rest = rest.strip_suffix(b"\"}")?;
        const TIME: &[u8] = b"\"time\":\"";
        let (attributes, time) = match rest.strip_prefix(TIME) {
            Some(time) => (None, time),
            None => {
                // The time is last and at most 35 bytes long.
                let from = rest.len().saturating_sub(35 + TIME.len());
                let at = from + memchr::memmem::rfind(&rest[from..], TIME)?;
                let json = rest[..at].strip_prefix(b"\"attrs\":")?.strip_suffix(b",")?;
                (self.shared_attributes(json)?, &rest[at + TIME.len()..])
            }
        };
        let time_ns = time::parse(time)?;
        Some(Entry { stream, time_ns, line: self.text.split().freeze(), attributes })
    }

    /// Any JSON object with the right members.
    fn decode_any(&mut self, record: &[u8]) -> Option<Entry> {
        #[derive(Deserialize)]
        struct Record {
            #[serde(default)]
            log: String,
            #[serde(default)]
            stream: String,
            #[serde(default)]
            attrs: Option<Attributes>,
            time: String,
        }
        let record: Record = serde_json::from_slice(record).ok()?;
        let stream = match record.stream.as_str() {
            "stdout" | "" => StreamKind::Stdout,
            "stderr" => StreamKind::Stderr,
            _ => return None,
        };
        let time_ns = time::parse(record.time.as_bytes())?;
        let attributes = record.attrs.filter(|attributes| !attributes.is_empty()).map(Arc::new);
        Some(Entry { stream, time_ns, line: record.log.into(), attributes })
    }

    /// Appends the JSON string that begins here (after its quote) to `text`; returns what follows its closing quote.
    fn unescape<'a>(&mut self, mut json: &'a [u8]) -> Option<&'a [u8]> {
        loop {
            let at = memchr::memchr2(b'"', b'\\', json)?;
            self.text.extend_from_slice(&json[..at]);
            if json[at] == b'"' {
                return Some(&json[at + 1..]);
            }
            let escaped = *json.get(at + 1)?;
            json = &json[at + 2..];
            let byte = match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'f' => 12,
                b'"' | b'\\' | b'/' => escaped,
                b'u' => {
                    let unit = hex4(json)?;
                    // Surrogates are rare (nobody who writes UTF-8 makes them): the slow path knows them.
                    let character = char::from_u32(unit)?;
                    self.text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    json = &json[4..];
                    continue;
                }
                _ => return None,
            };
            self.text.extend_from_slice(&[byte]);
        }
    }

    fn shared_attributes(&mut self, json: &[u8]) -> Option<Option<Arc<Attributes>>> {
        if json != self.attributes_json {
            let parsed: Attributes = serde_json::from_slice(json).ok()?;
            self.attributes = (!parsed.is_empty()).then(|| Arc::new(parsed));
            self.attributes_json = json.to_vec();
        }
        Some(self.attributes.clone())
    }
}

fn hex4(json: &[u8]) -> Option<u32> {
    json.get(..4)?.iter().try_fold(0, |value, digit| Some(value * 16 + (*digit as char).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &[u8], complete: bool, attributes: &Attributes) -> Vec<u8> {
        let mut out = Vec::new();
        Encoder::new(attributes).append(&mut out, StreamKind::Stderr, 1_709_210_096_123_456_000, text, complete);
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    #[test]
    fn dockers_format_exactly() {
        let none = Attributes::new();
        for (text, complete, log) in [
            (&b"hello"[..], true, r"hello\n"),
            (b"", true, r"\n"),
            (b"part", false, "part"),
            (b"a\tb\"c\\d\r\x1b[0m<&>", true, r#"a\u0009b\"c\\d\r\u001b[0m\u003c\u0026\u003e\n"#),
            ("grün \u{2028}\u{2029}€ 😀".as_bytes(), true, "grün \\u2028\\u2029€ 😀\\n"),
            (b"x\xff\xe2\x82y\xe2", true, r"x\ufffd\ufffd\ufffdy\ufffd\n"),
        ] {
            let record = encode(text, complete, &none);
            let expected = format!(r#"{{"log":"{log}","stream":"stderr","time":"2024-02-29T12:34:56.123456Z"}}"#);
            assert_eq!(String::from_utf8(record).unwrap(), expected);
        }
    }

    #[test]
    fn both_paths_read_what_is_written() {
        let attributes: Attributes = [("k".to_owned(), "\"time\":\"x".to_owned())].into();
        for attributes in [Attributes::new(), attributes] {
            for text in ["", "plain", "tab\t quote\" \\ \u{1}\u{7f} <b>& \u{2028} € 😀", "\r\r"] {
                let record = encode(text.as_bytes(), true, &attributes);
                let mut decoder = Decoder::default();
                let fast = decoder.decode_usual(&record).expect("the usual shape");
                let slow = decoder.decode_any(&record).expect("any shape");
                assert_eq!(fast, slow);
                assert_eq!(fast.line, format!("{text}\n"));
                assert_eq!(fast.attributes.as_deref().cloned().unwrap_or_default(), attributes);
            }
        }
    }

    #[test]
    fn other_writers_records_and_garbage() {
        let mut decoder = Decoder::default();
        let other = br#"{"time":"2024-02-29T13:34:56+01:00","stream":"stdout","log":"\ud83d\ude00\n","x":1}"#;
        let entry = decoder.decode(other).unwrap();
        assert_eq!((&entry.line[..], entry.time_ns), ("😀\n".as_bytes(), 1_709_210_096_000_000_000));
        let surrogates = br#"{"log":"\ud83d\ude00","stream":"stdout","time":"2024-02-29T12:34:56Z"}"#;
        assert_eq!(decoder.decode(surrogates).unwrap().line, "😀");
        for garbage in
            [&b""[..], b"{", b"{\"log\":\"x", b"null", b"{\"log\":\"x\",\"stream\":\"stdout\",\"time\":\"\"}"]
        {
            assert!(decoder.decode(garbage).is_none());
        }
        let good = encode(b"still works", false, &Attributes::new());
        for cut in 0..good.len() {
            assert!(decoder.decode(&good[..cut]).is_none());
        }
        assert_eq!(decoder.decode(&good).unwrap().line, "still works");
    }

    #[test]
    fn rendering() {
        let entry = Entry {
            stream: StreamKind::Stdout,
            time_ns: 0,
            line: Bytes::from_static(b"x\n"),
            attributes: Some(Arc::new([("a".to_owned(), "b c".to_owned())].into())),
        };
        assert_eq!(entry.render(false, false), "x\n");
        assert_eq!(entry.render(true, false), "1970-01-01T00:00:00.000000000Z x\n");
        assert_eq!(entry.render(true, true), "1970-01-01T00:00:00.000000000Z a=b+c x\n");
    }
}
