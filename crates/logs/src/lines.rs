//! Chunks of output into lines. What has no line feed yet is carried until it has one, or until it is too long.

/// The longest piece of a line that is one record, in bytes; Docker's number.
pub const MAX_PIECE_BYTES: usize = 16 * 1024;

/// A carry buffer larger than this is given back when it is empty.
const KEEP_BYTES: usize = 4096;

/// Splits one stream.
#[derive(Debug, Default)]
pub struct Splitter {
    carry: Vec<u8>,
}

impl Splitter {
    /// Takes a chunk; calls `emit(text, complete)` for each line (complete: it had a line feed, which `text` does not
    /// contain) and for each piece of a line that is longer than [`MAX_PIECE_BYTES`].
    pub fn feed(&mut self, chunk: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        let mut rest = chunk;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let line = &rest[..at];
            rest = &rest[at + 1..];
            if self.carry.is_empty() {
                let tail = emit_pieces(line, &mut emit);
                emit(tail, true);
            } else {
                self.carry.extend_from_slice(line);
                let tail = emit_pieces(&self.carry, &mut emit);
                emit(tail, true);
                self.clear();
            }
        }
        if rest.is_empty() {
            return;
        }
        self.carry.extend_from_slice(rest);
        let tail = emit_pieces(&self.carry, &mut emit).len();
        let emitted = self.carry.len() - tail;
        self.carry.drain(..emitted);
    }

    /// Hands out what is carried: its process has ended the stream, not the line.
    pub fn flush(&mut self, mut emit: impl FnMut(&[u8], bool)) {
        if !self.carry.is_empty() {
            emit(&self.carry, false);
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.carry.clear();
        if self.carry.capacity() > KEEP_BYTES {
            self.carry = Vec::new();
        }
    }
}

/// Emits full pieces from the front as long as more than one is there; returns the rest.
fn emit_pieces<'a>(mut text: &'a [u8], emit: &mut impl FnMut(&[u8], bool)) -> &'a [u8] {
    while text.len() > MAX_PIECE_BYTES {
        let (piece, rest) = text.split_at(piece_end(text));
        emit(piece, false);
        text = rest;
    }
    text
}

/// Where the first piece ends: not within a character, if this is UTF-8 at all.
fn piece_end(text: &[u8]) -> usize {
    let is_continuation = |byte: u8| byte & 0xC0 == 0x80;
    (MAX_PIECE_BYTES - 3..=MAX_PIECE_BYTES).rev().find(|at| !is_continuation(text[*at])).unwrap_or(MAX_PIECE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        let mut splitter = Splitter::default();
        for chunk in chunks {
            splitter.feed(chunk, |text, complete| out.push((text.to_vec(), complete)));
        }
        splitter.flush(|text, complete| out.push((text.to_vec(), complete)));
        out
    }

    #[test]
    fn lines_across_chunks() {
        let lines = split(&[b"a\nb", b"c", b"", b"\n\nd\n", b"e"]);
        let expected: [(&[u8], bool); 5] = [(b"a", true), (b"bc", true), (b"", true), (b"d", true), (b"e", false)];
        assert_eq!(lines, expected.map(|(text, complete)| (text.to_vec(), complete)));
    }

    #[test]
    fn long_lines_are_cut_and_nothing_is_lost() {
        let text: String = "x€".repeat(20_000);
        for size in [1000, 16_384, 16_385, 65_536, text.len()] {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).chain([&b"\nnext\n"[..]]).collect();
            let lines = split(&chunks);
            let (last, pieces) = lines.split_last().unwrap();
            assert_eq!(last, &(b"next".to_vec(), true));
            assert!(pieces.iter().all(|(text, _)| text.len() <= MAX_PIECE_BYTES && std::str::from_utf8(text).is_ok()));
            let complete: Vec<bool> = pieces.iter().map(|(_, complete)| *complete).collect();
            assert!(complete[..complete.len() - 1].iter().all(|complete| !complete) && complete[complete.len() - 1]);
            assert_eq!(pieces.iter().flat_map(|(text, _)| text.clone()).collect::<Vec<u8>>(), text.as_bytes());
        }
        let binary = vec![0x80; 40_000];
        assert_eq!(split(&[&binary]).into_iter().flat_map(|(text, _)| text).collect::<Vec<u8>>(), binary);
    }
}
