//! The `filters` query parameter: for each name the values that are asked for.
//!
//! Two spellings are understood: `{"label":{"a":true}}` (what clients send) and `{"label":["a"]}` (the older one). Which
//! names exist is for the backend to say, with [`Filters::validate`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The longest parameter that is looked at, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Filters by name. Several values of a name are alternatives (of `label` and the like, all must hold).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Set(BTreeMap<String, bool>),
    List(Vec<String>),
    Null(()),
}

impl Filters {
    /// Reads the parameter. Empty means no filters.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_BYTES {
            return Err(Error::invalid("invalid filter: too long"));
        }
        let parsed: Option<BTreeMap<String, Values>> =
            serde_json::from_str(text).map_err(|error| Error::invalid(format!("invalid filter: {error}")))?;
        let mut filters = Self::default();
        for (name, values) in parsed.unwrap_or_default() {
            let values = match values {
                // Docker looks at the keys only.
                Values::Set(set) => set.into_keys().collect(),
                Values::List(list) => list.into_iter().collect(),
                Values::Null(()) => BTreeSet::new(),
            };
            filters.0.insert(name, values);
        }
        Ok(filters)
    }

    /// Adds a value.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().insert(value.into());
    }

    /// Takes a name out and gives its values.
    pub fn take(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).map(|values| values.into_iter().collect()).unwrap_or_default()
    }

    /// Whether there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name was given.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of a name, sorted.
    pub fn get(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// All names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(name, values)| (name.as_str(), values))
    }

    /// Refuses names that are not in `known`.
    pub fn validate(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The only value of a name as a boolean; `default` when the name was not given.
    pub fn bool_or(&self, name: &str, default: bool) -> Result<bool> {
        let Some(values) = self.0.get(name).filter(|values| !values.is_empty()) else { return Ok(default) };
        let parsed: BTreeSet<_> = values.iter().map(|value| parse_bool(value)).collect();
        match (parsed.len(), parsed.first()) {
            (1, Some(Some(value))) => Ok(*value),
            _ => {
                let shown: Vec<_> = values.iter().map(String::as_str).collect();
                Err(Error::invalid(format!("invalid filter '{name}=[{}]'", shown.join(" "))))
            }
        }
    }

    /// True when the name was not given, or one of its values is exactly this.
    pub fn matches_exactly(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| wanted == value)
    }

    /// True when the name was not given, or one of its values is a prefix of this.
    pub fn matches_prefix(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| value.starts_with(wanted))
    }

    /// True when the name was not given, or one of its values occurs in this.
    pub fn matches_substring(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| value.contains(wanted))
    }

    /// True when the name was not given, or the test holds for one of its values.
    pub fn any(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        match self.0.get(name) {
            Some(values) if !values.is_empty() => values.iter().any(|value| test(value)),
            _ => true,
        }
    }

    /// True when every `key` or `key=value` under the name holds of these pairs (`label`).
    pub fn matches_pairs<'a, F>(&self, name: &str, lookup: F) -> bool
    where
        F: Fn(&str) -> Option<&'a str>,
    {
        self.get(name).all(|wanted| holds(wanted, &lookup))
    }

    /// True when no `key` or `key=value` under the name holds of these pairs (`label!`).
    pub fn excludes_pairs<'a, F>(&self, name: &str, lookup: F) -> bool
    where
        F: Fn(&str) -> Option<&'a str>,
    {
        !self.get(name).any(|unwanted| holds(unwanted, &lookup))
    }
}

fn holds<'a>(wanted: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => lookup(key) == Some(value),
        None => lookup(wanted).is_some(),
    }
}

/// Booleans as filters spell them.
fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings() {
        for text in
            [r#"{"label":{"a":true,"b=c":true}}"#, r#"{"label":["a","b=c"]}"#, r#"{"label":{"a":false,"b=c":true}}"#]
        {
            let filters = Filters::parse(text).unwrap();
            assert_eq!(filters.get("label").collect::<Vec<_>>(), ["a", "b=c"], "{text}");
        }
        assert!(Filters::parse("").unwrap().is_empty());
        assert!(Filters::parse("null").unwrap().is_empty());
        assert!(Filters::parse(r#"{"a":null}"#).unwrap().contains("a"));
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["x", "[]", r#"{"a":1}"#, r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#, "\"", "{"] {
            assert_eq!(Filters::parse(text).unwrap_err().kind, errors::Kind::InvalidParameter, "{text}");
        }
        assert!(Filters::parse(&format!(r#"{{"a":["{}"]}}"#, "x".repeat(MAX_BYTES))).is_err());
    }

    #[test]
    fn unknown_names_are_named() {
        let filters = Filters::parse(r#"{"status":["a"],"bogus":["b"]}"#).unwrap();
        assert_eq!(filters.validate(&["status"]).unwrap_err().message, "invalid filter 'bogus'");
        assert!(filters.validate(&["status", "bogus"]).is_ok());
    }

    #[test]
    fn booleans() {
        let filters = Filters::parse(r#"{"dangling":["true"],"x":["maybe"],"y":["1","0"]}"#).unwrap();
        assert!(filters.bool_or("dangling", false).unwrap());
        assert!(filters.bool_or("absent", true).unwrap());
        assert_eq!(filters.bool_or("x", true).unwrap_err().message, "invalid filter 'x=[maybe]'");
        assert!(filters.bool_or("y", true).is_err());
    }

    #[test]
    fn pairs() {
        let filters = Filters::parse(r#"{"label":["a=1","b"],"label!":["c"]}"#).unwrap();
        let all = |key: &str| match key {
            "a" => Some("1"),
            "b" => Some(""),
            _ => None,
        };
        assert!(filters.matches_pairs("label", all));
        assert!(filters.excludes_pairs("label!", all));
        assert!(!filters.matches_pairs("label", |_| None));
        assert!(!filters.excludes_pairs("label!", |_| Some("")));
    }
}
