//! As much of HPACK (RFC 7541) as it takes to find and replace one header.
//!
//! The name is only recognised by its index in the static table or spelled out, which is how every encoder sends it: the
//! static table is searched first.

use http::uri::Authority;

/// `:authority` in the static table.
const AUTHORITY_INDEX: usize = 1;
/// 'a' takes five bits in the Huffman code, and no symbol takes less, so a run of it is never longer than what it replaces.
const FILLER: u8 = b'a';

/// The block with its invalid `:authority` replaced; `None` when there is nothing to replace or it is malformed.
pub fn replace_authority(block: &[u8]) -> Option<Vec<u8>> {
    let mut rest = block;
    let mut out = None::<Vec<u8>>;
    while let Some(&first) = rest.first() {
        let start = rest;
        if first & 0x80 != 0 {
            integer(&mut rest, 7)?;
        } else if first & 0xe0 == 0x20 {
            integer(&mut rest, 5)?;
        } else {
            let name = integer(&mut rest, if first & 0x40 != 0 { 6 } else { 4 })?;
            let is_authority = if name == 0 { string(&mut rest)?.0 == b":authority" } else { name == AUTHORITY_INDEX };
            let head = &start[..start.len() - rest.len()];
            let (value, huffman) = string(&mut rest)?;
            if is_authority && Authority::try_from(value.as_slice()).is_err() && !value.is_empty() {
                let out = out.get_or_insert_with(|| block[..block.len() - start.len()].to_vec());
                out.extend_from_slice(head);
                put_filler(value.len(), huffman, out)?;
                continue;
            }
        }
        if let Some(out) = &mut out {
            out.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    out
}

/// §5.1.
fn integer(bytes: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let mask = (1_usize << prefix_bits) - 1;
    let (&first, mut rest) = bytes.split_first()?;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&next, after) = rest.split_first()?;
            rest = after;
            // Four bytes hold every length that fits into a block.
            if shift > 21 {
                return None;
            }
            value += usize::from(next & 0x7f) << shift;
            shift += 7;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    *bytes = rest;
    Some(value)
}

/// §5.2: the decoded string and whether it was Huffman-coded.
fn string(bytes: &mut &[u8]) -> Option<(Vec<u8>, bool)> {
    let huffman = bytes.first()? & 0x80 != 0;
    let length = integer(bytes, 7)?;
    let (raw, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    if !huffman {
        return Some((raw.to_vec(), false));
    }
    let mut decoded = Vec::with_capacity(raw.len() * 2);
    httlib_huffman::decode(raw, &mut decoded, httlib_huffman::DecoderSpeed::FourBits).ok()?;
    Some((decoded, true))
}

/// A valid authority of `length` bytes, coded the way the original was.
fn put_filler(length: usize, huffman: bool, out: &mut Vec<u8>) -> Option<()> {
    let plain = vec![FILLER; length];
    if huffman {
        let mut coded = Vec::with_capacity(length);
        httlib_huffman::encode(&plain, &mut coded).ok()?;
        put_length(coded.len(), 0x80, out);
        out.extend_from_slice(&coded);
    } else {
        put_length(length, 0, out);
        out.extend_from_slice(&plain);
    }
    Some(())
}

fn put_length(length: usize, flag: u8, out: &mut Vec<u8>) {
    if length < 0x7f {
        out.push(flag | length as u8);
        return;
    }
    out.push(flag | 0x7f);
    let mut left = length - 0x7f;
    while left >= 0x80 {
        out.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    out.push(left as u8);
}
