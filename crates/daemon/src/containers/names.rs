//! Container names: what is allowed, and making one up.

use rand::seq::IndexedRandom;

use crate::error::{Error, Result};

/// Checks a name as Docker does (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`), without its leading slash.
pub fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut chars = bare.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = bare.len() > 1 && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest {
        return Ok(bare);
    }
    Err(Error::InvalidParameter(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// A new random id: 64 hexadecimal digits, never all decimal in the first twelve (a short id must not look like a number).
pub fn random_id() -> String {
    loop {
        let bytes: [u8; 32] = rand::random();
        let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if !id[..12].bytes().all(|b| b.is_ascii_digit()) {
            return id;
        }
    }
}

/// A made-up name; `attempt` above zero adds a digit.
pub fn random_name(attempt: u32) -> String {
    let mut rng = rand::rng();
    let pick = |list: &[&'static str], rng: &mut rand::rngs::ThreadRng| list.choose(rng).copied().unwrap_or("dozing");
    let adjective = pick(ADJECTIVES, &mut rng);
    let noun = pick(NAMES, &mut rng);
    match attempt {
        0 => format!("{adjective}_{noun}"),
        n => format!("{adjective}_{noun}{}", n % 10),
    }
}

const ADJECTIVES: &[&str] = &[
    "awake", "balmy", "brisk", "calm", "cosy", "curled", "daring", "dozing", "drowsy", "eager", "early", "easy",
    "fair", "fleet", "fluffy", "fond", "frosty", "furry", "gentle", "glad", "golden", "hazel", "hushed", "jolly",
    "keen", "kind", "late", "light", "lively", "lucid", "lucky", "mellow", "merry", "mild", "modest", "napping",
    "nimble", "noble", "patient", "placid", "plucky", "polite", "prompt", "proud", "quick", "quiet", "ready", "rested",
    "serene", "sleepy", "sleek", "small", "snug", "soft", "spry", "still", "stoic", "sunny", "swift", "tender", "tidy",
    "vivid", "warm", "wary", "wise", "witty", "woken", "zesty",
];

const NAMES: &[&str] = &[
    "agnesi",
    "archimedes",
    "aryabhata",
    "babbage",
    "backus",
    "bardeen",
    "bell",
    "bohr",
    "boole",
    "borg",
    "brahmagupta",
    "carson",
    "cerf",
    "chandrasekhar",
    "church",
    "codd",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "einstein",
    "elion",
    "engelbart",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hertz",
    "hoare",
    "hodgkin",
    "hopper",
    "hypatia",
    "iverson",
    "kepler",
    "khayyam",
    "kilby",
    "knuth",
    "kovalevskaya",
    "lamport",
    "laplace",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "mendel",
    "mirzakhani",
    "napier",
    "neumann",
    "newton",
    "nightingale",
    "nobel",
    "noether",
    "pascal",
    "pasteur",
    "perlman",
    "planck",
    "ptolemy",
    "raman",
    "ramanujan",
    "ritchie",
    "rubin",
    "shannon",
    "sinoussi",
    "somerville",
    "swirles",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wiles",
    "wing",
    "wozniak",
    "wright",
    "wu",
    "yalow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(check("/web.1").unwrap(), "web.1");
        for bad in ["", "/", "a", "-ab", "a b", "a/b", "../x", "ä1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&random_name(0)).is_ok());
    }

    #[test]
    fn ids_are_hexadecimal() {
        let id = random_id();
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
