//! Sizes as people write them in options: `10m`, `1.5GB`, `512 KiB`.

use crate::error::{Error, Result};

/// Parses a decimal size (`k` is 1000, also when written `KiB`: that is Docker's rule for log files).
pub fn parse_decimal(text: &str) -> Result<u64> {
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ');
    let Some(split) = split else { return Err(invalid_size(text)) };
    let (number, suffix) = text.split_at(split + 1);
    let number: f64 = number.trim_end_matches(' ').parse().map_err(|_| invalid_size(text))?;
    if !number.is_finite() || number < 0.0 {
        return Err(invalid_size(text));
    }
    let lower = suffix.to_ascii_lowercase();
    let unit = match lower.as_bytes() {
        [] | [b'b'] => 1.0,
        [unit] | [unit, b'b'] | [unit, b'i', b'b'] => match unit {
            b'k' => 1e3,
            b'm' => 1e6,
            b'g' => 1e9,
            b't' => 1e12,
            b'p' => 1e15,
            _ => return Err(invalid_suffix(suffix)),
        },
        _ => return Err(invalid_suffix(suffix)),
    };
    let bytes = number * unit;
    // Beyond 2^63 nothing on disk can follow.
    if bytes >= 9.2e18 {
        return Err(invalid_size(text));
    }
    Ok(bytes as u64)
}

fn invalid_size(text: &str) -> Error {
    Error::InvalidOption(format!("invalid size: '{text}'"))
}

fn invalid_suffix(suffix: &str) -> Error {
    Error::InvalidOption(format!("invalid suffix: '{suffix}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("10", 10), ("10b", 10), ("10k", 10_000), ("10m", 10_000_000), ("1.5GB", 1_500_000_000), ("2 KiB", 2000)]
        {
            assert_eq!(parse_decimal(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "k", "10x", "10mmm", "-1", "nan", "9999999p", "10 m b"] {
            assert!(parse_decimal(text).is_err(), "{text}");
        }
    }
}
