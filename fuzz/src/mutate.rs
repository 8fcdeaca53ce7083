//! Makes new inputs from old ones: bytes changed, cut, repeated and put together from several; in what is JSON also
//! values exchanged where they stand, because a byte changed at random rarely leaves JSON readable.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};
use serde_json::Value;

/// No input made here is longer.
const MAX_BYTES: usize = 64 << 10;

/// A new input made from one of `seeds`, perhaps with pieces of others.
pub(crate) fn mutate(seeds: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let Some(seed) = seeds.choose(random) else { return noise(random) };
    if random.random_ratio(1, 2) {
        if let Ok(mut value) = serde_json::from_slice::<Value>(seed) {
            let other = seeds.choose(random).and_then(|other| serde_json::from_slice(other).ok());
            for _ in 0..random.random_range(1..4) {
                in_json(&mut value, other.as_ref().unwrap_or(&Value::Null), random);
            }
            return value.to_string().into_bytes();
        }
    }
    let mut bytes = seed.clone();
    for _ in 0..random.random_range(1..8) {
        in_bytes(&mut bytes, seeds, random);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn noise(random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..256)];
    random.fill_bytes(&mut bytes);
    bytes
}

/// What breaks arithmetic and tables.
const ODD_BYTES: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'/', b'.', b'"', b'\\', b'\n', b' ', b'0'];
const ODD_NUMBERS: [u64; 9] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

fn in_bytes(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut SmallRng) {
    if bytes.is_empty() {
        *bytes = noise(random);
        return;
    }
    let at = random.random_range(0..bytes.len());
    let some = |random: &mut SmallRng| at..(at + 1 + random.random_range(0..64_usize)).min(bytes.len());
    match random.random_range(0..9) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes[at] = *ODD_BYTES.choose(random).unwrap_or(&0),
        3 => bytes.insert(at, *ODD_BYTES.choose(random).unwrap_or(&0)),
        4 => drop(bytes.drain(some(random))),
        5 => {
            let piece = bytes[some(random)].repeat(random.random_range(1..32));
            bytes.splice(at..at, piece);
        }
        6 => bytes.truncate(at),
        7 => {
            let number = ODD_NUMBERS.choose(random).unwrap_or(&0).wrapping_add(random.random_range(0..3));
            let width = [1, 2, 4, 8][random.random_range(0..4)];
            let raw = if random.random() {
                number.to_be_bytes()[8 - width..].to_vec()
            } else {
                number.to_le_bytes()[..width].to_vec()
            };
            for (to, from) in bytes[at..].iter_mut().zip(raw) {
                *to = from;
            }
        }
        _ => {
            let Some(other) = seeds.choose(random).filter(|other| !other.is_empty()) else { return };
            let from = random.random_range(0..other.len());
            let to = (from + random.random_range(1..256)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
    }
}

/// Goes down to some value and changes it.
fn in_json(value: &mut Value, other: &Value, random: &mut SmallRng) {
    let deeper = random.random_ratio(4, 5);
    match value {
        Value::Object(members) if deeper && !members.is_empty() => {
            let at = random.random_range(0..members.len());
            if let Some(member) = members.values_mut().nth(at) {
                in_json(member, other, random);
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = random.random_range(0..items.len());
            in_json(&mut items[at], other, random);
        }
        Value::Object(members) if random.random() => {
            let name = members.keys().nth(random.random_range(0..members.len().max(1))).cloned();
            if let Some(value) = name.and_then(|name| members.remove(&name)) {
                if random.random() {
                    members.insert(text(random), value);
                }
            }
        }
        Value::Array(items) if random.random() && items.len() < 256 => {
            let again: Vec<_> = items.iter().cycle().take(items.len() * 3).cloned().collect();
            items.extend(again);
        }
        Value::String(old) if random.random() => {
            let mut bytes = std::mem::take(old).into_bytes();
            in_bytes(&mut bytes, &[], random);
            *old = String::from_utf8_lossy(&bytes).into_owned();
        }
        _ => *value = fresh(other, random),
    }
}

fn fresh(other: &Value, random: &mut SmallRng) -> Value {
    match random.random_range(0..9) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        2 => (*ODD_NUMBERS.choose(random).unwrap_or(&0)).into(),
        3 => (-random.random_range(0..i64::MAX)).into(),
        4 => 1e300.into(),
        5 => text(random).into(),
        6 => Value::Array(Vec::new()),
        7 => Value::Object(serde_json::Map::new()),
        _ => other.clone(),
    }
}

fn text(random: &mut SmallRng) -> String {
    let odd = [
        "",
        "/",
        "..",
        "../../etc",
        "a\0b",
        "-1",
        "0",
        "18446744073709551616",
        "ä€𝄞",
        "%s",
        " ",
        "a:b:c",
        "::1",
        "=",
        ",",
    ];
    match random.random_range(0..4) {
        0 => "x".repeat(random.random_range(0..5000)),
        _ => odd.choose(random).map_or_else(String::new, |text| (*text).to_owned()),
    }
}
