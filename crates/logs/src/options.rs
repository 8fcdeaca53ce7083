//! A container's log configuration, checked: nothing is accepted that is not then done.

use regex::Regex;

use crate::attributes::Tag;
use crate::error::{Error, Result};
use crate::sizes;

/// What Docker has and we have not (yet).
const DOCKERS_OTHER_DRIVERS: [&str; 8] =
    ["syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "etwlogs", "gcplogs"];

/// A checked log configuration.
#[derive(Debug, Clone)]
pub enum Settings {
    /// Keep nothing.
    None,
    /// One JSON object a line, in a file of the container's own.
    JsonFile(JsonFileOptions),
    /// Files of the container's own that only the engine reads, of a bounded size unless asked otherwise.
    Local(JsonFileOptions),
}

impl Settings {
    /// The driver's name, as in the container's configuration.
    pub fn driver(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::JsonFile(_) => "json-file",
            Self::Local(_) => "local",
        }
    }
}

/// The options of `json-file`.
#[derive(Debug, Clone)]
pub struct JsonFileOptions {
    /// Start a new file when the present one has reached this size; `None` is never.
    pub max_size_bytes: Option<u64>,
    /// How many files are kept, the one being written included. At least 1.
    pub max_files: u32,
    /// Compress the files that are no longer written.
    pub compress: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) labels_regex: Option<Regex>,
    pub(crate) env: Vec<String>,
    pub(crate) env_regex: Option<Regex>,
    pub(crate) tag: Option<Tag>,
}

impl Default for JsonFileOptions {
    fn default() -> Self {
        Self {
            max_size_bytes: None,
            max_files: 1,
            compress: false,
            labels: Vec::new(),
            labels_regex: None,
            env: Vec::new(),
            env_regex: None,
            tag: None,
        }
    }
}

/// Checks a log configuration as Docker does at `create`. An empty driver is `json-file`.
///
/// `mode=non-blocking` is accepted and changes nothing: a write here ends in the page cache and does not wait for a
/// reader or a network, which is what that mode is chosen for.
pub fn validate<'a, I>(driver: &str, options: I) -> Result<Settings>
where
    I: IntoIterator<Item = (&'a String, &'a String)>,
{
    let options: Vec<(&str, &str)> = options.into_iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    if driver == "none" {
        return Ok(Settings::None);
    }
    check_common(&options)?;
    match driver {
        "" | "json-file" => json_file(&options).map(Settings::JsonFile),
        "local" => local(&options).map(Settings::Local),
        other if DOCKERS_OTHER_DRIVERS.contains(&other) => Err(Error::DriverNotImplemented(other.to_owned())),
        other => Err(Error::UnknownDriver(other.to_owned())),
    }
}

/// The options that every driver has.
fn check_common(options: &[(&str, &str)]) -> Result<()> {
    let mode = value(options, "mode").unwrap_or_default();
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(Error::InvalidOption(format!("logger: logging mode not supported: {mode}")));
    }
    if let Some(size) = value(options, "max-buffer-size") {
        if mode != "non-blocking" {
            return Err(Error::InvalidOption(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned(),
            ));
        }
        sizes::parse_decimal(size)
            .map_err(|error| Error::InvalidOption(format!("error parsing option max-buffer-size: {error}")))?;
    }
    Ok(())
}

fn json_file(options: &[(&str, &str)]) -> Result<JsonFileOptions> {
    let mut parsed = JsonFileOptions::default();
    for &(option, value) in options {
        match option {
            "mode" | "max-buffer-size" => {}
            "max-size" => parsed.max_size_bytes = Some(max_size(value)?),
            "max-file" => parsed.max_files = max_files(value)?,
            "compress" => parsed.compress = boolean(value)?,
            "labels" => parsed.labels = names(value),
            "labels-regex" => parsed.labels_regex = regex(value)?,
            "env" => parsed.env = names(value),
            "env-regex" => parsed.env_regex = regex(value)?,
            "tag" => parsed.tag = Tag::parse(value)?,
            _ => return Err(Error::UnknownOption { option: option.to_owned(), driver: "json-file" }),
        }
    }
    if parsed.compress && (parsed.max_files == 1 || parsed.max_size_bytes.is_none()) {
        return Err(Error::InvalidOption(
            "compress cannot be true when max-file is less than 2 or max-size is not set".to_owned(),
        ));
    }
    Ok(parsed)
}

/// Docker's bounds for `local`: five files of 20 MiB, all but the last one compressed.
fn local(options: &[(&str, &str)]) -> Result<JsonFileOptions> {
    let mut parsed =
        JsonFileOptions { max_size_bytes: Some(20 << 20), max_files: 5, compress: true, ..JsonFileOptions::default() };
    for &(option, value) in options {
        match option {
            "mode" | "max-buffer-size" => {}
            "max-size" => parsed.max_size_bytes = Some(max_size(value)?),
            "max-file" => parsed.max_files = max_files(value)?,
            "compress" => parsed.compress = boolean(value)?,
            _ => {
                return Err(Error::InvalidOption(format!("unknown log opt '{option}' for log driver local")));
            }
        }
    }
    if parsed.compress && parsed.max_files == 1 {
        return Err(Error::InvalidOption("compression cannot be enabled when max file count is 1".to_owned()));
    }
    Ok(parsed)
}

fn max_size(value: &str) -> Result<u64> {
    match sizes::parse_decimal(value)? {
        0 => Err(Error::InvalidOption("max-size must be a positive number".to_owned())),
        bytes => Ok(bytes),
    }
}

fn max_files(value: &str) -> Result<u32> {
    match value.parse::<i64>() {
        Ok(files @ 1..=100_000) => Ok(files as u32),
        Ok(files) if files > 100_000 => Err(Error::InvalidOption("max-file cannot be more than 100000".to_owned())),
        Ok(_) => Err(Error::InvalidOption("max-file cannot be less than 1".to_owned())),
        Err(_) => Err(Error::InvalidOption(format!("max-file: invalid number: '{value}'"))),
    }
}

fn value<'a>(options: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    options.iter().find(|(option, _)| *option == name).map(|(_, value)| *value)
}

fn names(list: &str) -> Vec<String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn regex(pattern: &str) -> Result<Option<Regex>> {
    if pattern.is_empty() {
        return Ok(None);
    }
    // The pattern is a client's: keep its automaton small.
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map(Some)
        .map_err(|error| Error::InvalidOption(format!("invalid pattern '{pattern}': {error}")))
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::InvalidOption(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use errors::{Kind, Kinded};

    use super::*;

    fn check(driver: &str, options: &[(&str, &str)]) -> Result<Settings> {
        let options: BTreeMap<String, String> =
            options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        validate(driver, &options)
    }

    #[test]
    fn dockers_words() {
        for (driver, options, words) in [
            ("x", &[][..], "error looking up logging plugin x: plugin \"x\" not found"),
            ("json-file", &[("foo", "1")], "unknown log opt 'foo' for json-file log driver"),
            ("json-file", &[("max-file", "0")], "max-file cannot be less than 1"),
            ("json-file", &[("max-size", "0")], "max-size must be a positive number"),
            ("json-file", &[("max-size", "1q")], "invalid suffix: 'q'"),
            ("json-file", &[("mode", "maybe")], "logger: logging mode not supported: maybe"),
            (
                "json-file",
                &[("compress", "true")],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
        ] {
            let error = check(driver, options).unwrap_err();
            assert_eq!(error.to_string(), words);
            assert_eq!(error.kind(), Kind::InvalidParameter);
        }
        assert_eq!(check("syslog", &[]).unwrap_err().kind(), Kind::NotImplemented);
        let Settings::Local(local) = check("local", &[]).unwrap() else { panic!("another driver") };
        assert_eq!((local.max_size_bytes, local.max_files, local.compress), (Some(20 << 20), 5, true));
        assert!(check("local", &[("max-size", "1m"), ("max-file", "1"), ("compress", "false")]).is_ok());
        for (option, value) in [("max-file", "1"), ("labels", "a"), ("max-size", "0"), ("compress", "perhaps")] {
            assert_eq!(check("local", &[(option, value)]).unwrap_err().kind(), Kind::InvalidParameter, "{option}");
        }
    }

    #[test]
    fn good_options() {
        let settings =
            check("json-file", &[("max-size", "10m"), ("max-file", "3"), ("compress", "true"), ("labels", "a,b")]);
        let Settings::JsonFile(options) = settings.unwrap() else { panic!("json-file") };
        assert_eq!(options.max_size_bytes, Some(10_000_000));
        assert_eq!((options.max_files, options.compress), (3, true));
        assert_eq!(options.labels, ["a", "b"]);
        assert!(matches!(check("none", &[("anything", "goes")]), Ok(Settings::None)));
        assert!(matches!(check("", &[]), Ok(Settings::JsonFile(_))));
    }
}
