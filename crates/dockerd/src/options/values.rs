//! The values of options that are more than a word, as a flag writes them and as daemon.json does.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Go's `strconv.ParseBool`, for switches.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax")),
    }
}

/// `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Before the first `=`.
    pub key: String,
    /// After it; empty without one.
    pub value: String,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// Pairs as a JSON object.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use super::*;

    pub fn serialize<S: Serializer>(pairs: &[Pair], serializer: S) -> Result<S::Ok, S::Error> {
        pairs.iter().map(|pair| (&pair.key, &pair.value)).collect::<BTreeMap<_, _>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pair>, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(key, value)| Pair { key, value }).collect())
    }
}

/// A size in bytes: `64m`, `1g`, `65536` (`k` is 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size(
    /// In bytes.
    pub u64,
);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid size: '{text}'");
        let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(invalid)? + 1;
        let number: f64 = text[..end].parse().map_err(|_| invalid())?;
        let suffix = text[end..].trim().to_ascii_lowercase();
        let shift = match suffix.strip_suffix("ib").or(suffix.strip_suffix('b')).unwrap_or(&suffix) {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(invalid()),
        };
        let bytes = number * (1_u64 << shift) as f64;
        if !(0.0..9.0e18).contains(&bytes) {
            return Err(invalid());
        }
        Ok(Self(bytes as u64))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// `name=soft[:hard]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ulimit {
    /// As in ulimit(1), lower case.
    pub name: String,
    /// The limit that is enforced; −1 is none.
    #[serde(default)]
    pub soft: i64,
    /// How far a process may raise it; −1 is without end.
    #[serde(default)]
    pub hard: i64,
}

/// The limits there are.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, limits) = text.split_once('=').ok_or(format!("invalid ulimit argument: {text}"))?;
        let number = |text: &str| text.parse::<i64>().map_err(|_| format!("invalid ulimit value: {text}"));
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        let ulimit = Self { name: name.to_owned(), soft, hard };
        ulimit.check().map(|()| ulimit)
    }
}

impl Ulimit {
    fn check(&self) -> Result<(), String> {
        if !ULIMITS.contains(&self.name.as_str()) {
            return Err(format!("invalid ulimit type: {}", self.name));
        }
        let without_end = |limit: i64| if limit < 0 { i64::MAX } else { limit };
        if without_end(self.soft) > without_end(self.hard) {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                self.soft, self.hard
            ));
        }
        Ok(())
    }
}

/// Limits as a JSON object by name.
pub(crate) mod ulimits {
    use std::collections::BTreeMap;

    use super::*;

    pub fn serialize<S: Serializer>(ulimits: &[Ulimit], serializer: S) -> Result<S::Ok, S::Error> {
        ulimits.iter().map(|ulimit| (&ulimit.name, ulimit)).collect::<BTreeMap<_, _>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ulimit>, D::Error> {
        let map = BTreeMap::<String, Ulimit>::deserialize(deserializer)?;
        for ulimit in map.values() {
            ulimit.check().map_err(serde::de::Error::custom)?;
        }
        Ok(map.into_values().collect())
    }
}

/// `name=path`, in the file with arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// As in `docker run --runtime`.
    pub name: String,
    /// The program.
    pub path: String,
    /// Arguments before the subcommand.
    pub args: Vec<String>,
}

impl FromStr for Runtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or(format!("invalid runtime argument: {text}"))?;
        let (name, path) = (name.trim(), path.trim());
        if name.is_empty() || path.is_empty() {
            return Err(format!("invalid runtime argument: {text}"));
        }
        Ok(Self { name: name.to_lowercase(), path: path.to_owned(), args: Vec::new() })
    }
}

/// Runtimes as a JSON object by name.
pub(crate) mod runtimes {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct InFile {
        #[serde(default)]
        path: String,
        #[serde(default)]
        runtime_args: Vec<String>,
    }

    pub fn serialize<S: Serializer>(runtimes: &[Runtime], serializer: S) -> Result<S::Ok, S::Error> {
        let in_file = |runtime: &Runtime| InFile { path: runtime.path.clone(), runtime_args: runtime.args.clone() };
        runtimes
            .iter()
            .map(|runtime| (&runtime.name, in_file(runtime)))
            .collect::<BTreeMap<_, _>>()
            .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Runtime>, D::Error> {
        let map = BTreeMap::<String, InFile>::deserialize(deserializer)?;
        let runtime = |(name, InFile { path, runtime_args }): (String, InFile)| match path.is_empty() {
            true => Err(serde::de::Error::custom(format!("runtime {name}: the path is missing"))),
            false => Ok(Runtime { name, path, args: runtime_args }),
        };
        map.into_iter().map(runtime).collect()
    }
}

/// `base=10.0.0.0/8,size=24`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// What subnets are cut from.
    pub base: String,
    /// Their prefix length.
    pub size: u8,
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut base, mut size) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("base", value)) => base = Some(value.to_owned()),
                Some(("size", value)) => {
                    size = Some(value.parse().map_err(|_| format!("invalid size value: {value} (must be integer)"))?);
                }
                Some((key, _)) => return Err(format!("unexpected key '{key}' in '{field}'")),
                None => return Err(format!("invalid field '{field}' must be a key=value pair")),
            }
        }
        match (base, size) {
            (Some(base), Some(size)) => Ok(Self { base, size }),
            _ => Err(format!("invalid address pool '{text}': base and size are needed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("64m", 64 << 20), ("1.5GiB", 3 << 29), ("10", 10), ("2 kb", 2048)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "m", "1x", "-1", "nan"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits() {
        assert_eq!("core=-1".parse(), Ok(Ulimit { name: "core".into(), soft: -1, hard: -1 }));
        for text in ["nofile", "nofile=x", "nofile=2:1", "nofile=-1:1", "wrong=1"] {
            assert!(text.parse::<Ulimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn pools() {
        assert_eq!("base=10.0.0.0/8,size=24".parse(), Ok(Pool { base: "10.0.0.0/8".into(), size: 24 }));
        for text in ["base=10.0.0.0/8", "size=24", "base=x,size=y", "x", "a=b"] {
            assert!(text.parse::<Pool>().is_err(), "{text}");
        }
    }
}
