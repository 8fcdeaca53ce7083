//! Lets clients in whose `:authority` is a bare socket path.
//!
//! gRPC libraries of 2016 send the path of the socket they dialled as `:authority`. That is no authority by RFC 3986, and
//! the HTTP/2 library answers it with a reset. This filter stands between the socket and the library and looks at nothing
//! but request header blocks: a literal `:authority` that is not valid is replaced by a valid one *that decodes to the same
//! length*, so that the dynamic tables of both ends, whose sizes count decoded lengths (RFC 7541 §4.1), stay in step and
//! later references by index find the valid one. Everything it does not understand passes through as it came: judging
//! the rest is the library's business.

mod hpack;
mod stream;

pub use stream::AuthorityFilter;

use bytes::{Buf, BufMut, BytesMut};

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// The largest frame a client may send, as we never announce a larger one (RFC 9113 §4.2).
const MAX_FRAME_BYTES: usize = 16_384;
/// A header block that is spread over more than this is passed on unseen.
const MAX_BLOCK_BYTES: usize = 64 * 1024;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What the next bytes of the connection are.
#[derive(Debug)]
enum State {
    /// This many bytes, to be passed on as they are; then a frame.
    Pass(usize),
    /// A frame header.
    Frame,
    /// A header block has begun and is not complete.
    Block(Block),
    /// Something cannot be understood: pass on everything.
    Blind,
}

/// A header block that is being collected.
#[derive(Debug)]
struct Block {
    /// The frames as they came.
    raw: BytesMut,
    /// The frame header of the HEADERS frame.
    head: FrameHeader,
    /// The priority fields, if there are any.
    priority: Option<[u8; 5]>,
    /// The fragments put together.
    fragment: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHeader {
    fn parse(bytes: &[u8]) -> Option<FrameHeader> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3, ..] = bytes else { return None };
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some(FrameHeader { length, kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]) })
    }

    fn put(self, out: &mut BytesMut) {
        // Lengths come from frames that were at most MAX_FRAME_BYTES long.
        out.put_uint(self.length as u64, 3);
        out.put_u8(self.kind);
        out.put_u8(self.flags);
        out.put_u32(self.stream);
    }
}

/// The state machine: bytes in, bytes out.
#[derive(Debug)]
struct Rewriter {
    state: State,
    input: BytesMut,
}

impl Rewriter {
    fn new() -> Rewriter {
        Rewriter { state: State::Pass(PREFACE_BYTES), input: BytesMut::new() }
    }

    /// Takes bytes from the client and appends what is ready to `out`.
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) {
        self.input.extend_from_slice(bytes);
        while self.step(out) {}
    }

    /// Does one thing; false when more input is needed.
    fn step(&mut self, out: &mut BytesMut) -> bool {
        match &mut self.state {
            State::Blind => {
                out.extend_from_slice(&self.input);
                self.input.clear();
                false
            }
            State::Pass(0) => {
                self.state = State::Frame;
                true
            }
            State::Pass(left) => {
                let now = (*left).min(self.input.len());
                out.extend_from_slice(&self.input[..now]);
                self.input.advance(now);
                *left -= now;
                now > 0
            }
            State::Frame => {
                let Some(head) = FrameHeader::parse(&self.input) else { return false };
                if head.kind != HEADERS || head.length > MAX_FRAME_BYTES {
                    self.state = State::Pass(FRAME_HEADER_BYTES + head.length);
                    return true;
                }
                let Some(raw) = self.take_frame(head) else { return false };
                self.begin_block(head, raw, out);
                true
            }
            State::Block(_) => {
                let Some(head) = FrameHeader::parse(&self.input) else { return false };
                if head.kind != CONTINUATION || head.length > MAX_FRAME_BYTES {
                    // Not allowed here: let the library see and refuse it.
                    self.give_up(out);
                    return true;
                }
                let Some(raw) = self.take_frame(head) else { return false };
                self.continue_block(head, raw, out);
                true
            }
        }
    }

    fn take_frame(&mut self, head: FrameHeader) -> Option<BytesMut> {
        let whole = FRAME_HEADER_BYTES + head.length;
        (self.input.len() >= whole).then(|| self.input.split_to(whole))
    }

    fn begin_block(&mut self, head: FrameHeader, raw: BytesMut, out: &mut BytesMut) {
        let Some((priority, fragment)) = open_headers(head, &raw[FRAME_HEADER_BYTES..]) else {
            out.extend_from_slice(&raw);
            self.state = State::Blind;
            return;
        };
        let block = Block { head, priority, fragment: fragment.to_vec(), raw };
        self.finish_or_wait(block, head.flags, out);
    }

    fn continue_block(&mut self, head: FrameHeader, raw: BytesMut, out: &mut BytesMut) {
        let State::Block(mut block) = std::mem::replace(&mut self.state, State::Frame) else { return };
        block.fragment.extend_from_slice(&raw[FRAME_HEADER_BYTES..]);
        block.raw.extend_from_slice(&raw);
        if head.stream != block.head.stream || block.raw.len() > MAX_BLOCK_BYTES {
            out.extend_from_slice(&block.raw);
            self.state = State::Blind;
            return;
        }
        self.finish_or_wait(block, head.flags, out);
    }

    fn finish_or_wait(&mut self, block: Block, flags: u8, out: &mut BytesMut) {
        if flags & END_HEADERS == 0 {
            self.state = State::Block(block);
            return;
        }
        match hpack::replace_authority(&block.fragment) {
            Some(fragment) => put_block(&block, &fragment, out),
            None => out.extend_from_slice(&block.raw),
        }
        self.state = State::Frame;
    }

    fn give_up(&mut self, out: &mut BytesMut) {
        if let State::Block(block) = std::mem::replace(&mut self.state, State::Blind) {
            out.extend_from_slice(&block.raw);
        }
    }
}

/// What the filter makes of bytes that arrive in these pieces.
pub fn rewrite(pieces: &[&[u8]], out: &mut BytesMut) {
    let mut rewriter = Rewriter::new();
    pieces.iter().for_each(|piece| rewriter.push(piece, out));
}

/// Splits the payload of a HEADERS frame (RFC 9113 §6.2); `None` when it is malformed.
fn open_headers(head: FrameHeader, payload: &[u8]) -> Option<(Option<[u8; 5]>, &[u8])> {
    let mut rest = payload;
    if head.flags & PADDED != 0 {
        let (&padding, after) = rest.split_first()?;
        rest = after.get(..after.len().checked_sub(usize::from(padding))?)?;
    }
    if head.flags & PRIORITY == 0 {
        return Some((None, rest));
    }
    let (priority, fragment) = rest.split_first_chunk::<5>()?;
    Some((Some(*priority), fragment))
}

/// Writes a header block as HEADERS and as many CONTINUATION frames as it takes, without padding.
fn put_block(block: &Block, fragment: &[u8], out: &mut BytesMut) {
    let priority = block.priority.as_ref().map_or(&[][..], |p| &p[..]);
    let (first, mut rest) = fragment.split_at(fragment.len().min(MAX_FRAME_BYTES - priority.len()));
    let end = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
    let flags = block.head.flags & !(PADDED | END_HEADERS) | end(rest);
    FrameHeader { length: priority.len() + first.len(), flags, ..block.head }.put(out);
    out.extend_from_slice(priority);
    out.extend_from_slice(first);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(MAX_FRAME_BYTES));
        rest = after;
        let stream = block.head.stream;
        FrameHeader { length: part.len(), kind: CONTINUATION, flags: end(rest), stream }.put(out);
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests;
