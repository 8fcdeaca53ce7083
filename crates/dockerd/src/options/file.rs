//! daemon.json: read, checked against the flags, merged.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Map, Value};

use super::{Cli, Options, unsupported};

/// A larger file is not a configuration.
const MAX_BYTES: u64 = 1 << 20;

/// Options that may be in both: what both say is joined.
const JOINED: [&str; 1] = ["runtimes"];

/// The flags, and what the file adds. A file that is not there is an error only if it was asked for by name.
pub fn merge(cli: &Cli) -> anyhow::Result<Options> {
    let path = &cli.config_file;
    let context = || format!("unable to configure the Docker daemon with file {}", path.display());
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !cli.config_file_given => {
            return Ok(cli.options.clone());
        }
        Err(error) => return Err(error).with_context(context),
    };
    merge_text(&cli.options, &text).with_context(context)
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other("the file is larger than 1 MiB"));
    }
    Ok(text)
}

/// [`merge`] with the file's content.
pub fn merge_text(flags: &Options, text: &str) -> anyhow::Result<Options> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(flags.clone());
    }
    let mut file: Map<String, Value> = serde_json::from_str(text).map_err(|error| anyhow!("invalid JSON: {error}"))?;
    if let Some(old_name) = file.remove("graph") {
        file.entry("data-root").or_insert(old_name);
    }
    check_names(&file)?;
    let mut merged = given(flags)?;
    check_conflicts(&merged, &file)?;
    for (name, in_file) in file {
        match (merged.get_mut(&name), in_file) {
            (Some(Value::Object(flags)), Value::Object(in_file)) => {
                for (key, value) in in_file {
                    flags.entry(key).or_insert(value);
                }
            }
            (_, in_file) => {
                merged.insert(name, in_file);
            }
        }
    }
    serde_json::from_value(Value::Object(merged)).map_err(|error| anyhow!("invalid JSON: {error}"))
}

/// What was given, by the names of daemon.json.
fn given(options: &Options) -> anyhow::Result<Map<String, Value>> {
    let Value::Object(mut all) = serde_json::to_value(options)? else { bail!("options are an object") };
    all.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
    Ok(all)
}

fn check_names(file: &Map<String, Value>) -> anyhow::Result<()> {
    let Value::Object(known) = serde_json::to_value(Options::default())? else { bail!("options are an object") };
    let strange: Vec<&str> = file.keys().map(String::as_str).filter(|name| !known.contains_key(*name)).collect();
    // An empty or false value asks for nothing: {"features": {}} is in many files.
    let asks = |name: &&str| match &file[*name] {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => map.values().any(|value| *value != Value::Bool(false)),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let unknown: Vec<&str> = strange.iter().copied().filter(|name| unsupported::reason(name).is_none()).collect();
    if !unknown.is_empty() {
        bail!("the following directives don't match any configuration option: {}", unknown.join(", "));
    }
    let refused: Vec<String> = strange
        .iter()
        .copied()
        .filter(asks)
        .filter_map(|name| Some(format!("{name}: {}", unsupported::reason(name)?)))
        .collect();
    if !refused.is_empty() {
        bail!("the following directives cannot be used: {}", refused.join(", "));
    }
    Ok(())
}

fn check_conflicts(flags: &Map<String, Value>, file: &Map<String, Value>) -> anyhow::Result<()> {
    let conflicts: Vec<String> = flags
        .iter()
        .filter(|(name, _)| !JOINED.contains(&name.as_str()))
        .filter_map(|(name, flag)| {
            let in_file = file.get(name)?;
            Some(format!("{name}: (from flag: {}, from file: {})", shown(flag), shown(in_file)))
        })
        .collect();
    if !conflicts.is_empty() {
        bail!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        );
    }
    Ok(())
}

/// As Docker shows it: texts without quotes, lists as `[a b]`.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(flags: &Options, text: &str) -> String {
        format!("{:#}", merge_text(flags, text).unwrap_err())
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"{
            "debug": true, "hosts": ["unix:///x", "tcp://:1"], "labels": ["a=b"], "icc": false, "graph": "/data",
            "log-driver": "json-file", "log-opts": {"max-size": "1m"}, "default-shm-size": "32M", "mtu": 1400,
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 20, "Soft": 10}},
            "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
            "runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}},
            "dns": ["1.1.1.1"], "dns-opts": ["ndots:1"], "dns-search": ["x"], "insecure-registries": ["r:5000"],
            "features": {"containerd-snapshotter": false}, "exec-opts": ["native.cgroupdriver=cgroupfs"]
        }"#;
        let options = merge_text(&Options::default(), text).unwrap();
        assert_eq!((options.debug, options.icc, options.mtu), (Some(true), Some(false), Some(1400)));
        assert_eq!(options.data_root.as_deref(), Some(Path::new("/data")));
        assert_eq!(options.runtimes[0].args, ["--debug"]);
        assert_eq!(options.default_ulimits[0].soft, 10);
        assert_eq!(options.log_opts[0].value, "1m");
        // What is written back reads as the same.
        let again = serde_json::to_string(&serde_json::Value::Object(given(&options).unwrap())).unwrap();
        assert_eq!(merge_text(&Options::default(), &again).unwrap(), options);
        assert_eq!(merge_text(&options, "\u{feff} ").unwrap(), options);
    }

    #[test]
    fn conflicts_and_joins() {
        let flags = Options {
            debug: Some(true),
            labels: vec!["a=b".into()],
            runtimes: vec!["x=/x".parse().unwrap()],
            ..Default::default()
        };
        let error = refused(&flags, r#"{"labels": ["c=d", "e"], "debug": false, "icc": true}"#);
        assert_eq!(
            error,
            "the following directives are specified both as a flag and in the configuration file: \
             debug: (from flag: true, from file: false), labels: (from flag: [a=b], from file: [c=d e])"
        );
        let merged = merge_text(&flags, r#"{"runtimes": {"y": {"path": "/y"}}}"#).unwrap();
        let names: Vec<&str> = merged.runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
        assert_eq!((names, merged.debug), (vec!["x", "y"], Some(true)));
    }

    #[test]
    fn unknown_unsupported_and_malformed() {
        let none = Options::default();
        assert_eq!(
            refused(&none, r#"{"nonsense": 1}"#),
            "the following directives don't match any configuration option: nonsense"
        );
        assert!(refused(&none, r#"{"selinux-enabled": true}"#).contains("selinux-enabled: not implemented"));
        assert!(merge_text(&none, r#"{"selinux-enabled": false, "builder": {}}"#).is_ok());
        for text in ["{", "[]", r#"{"debug": "yes"}"#, r#"{"default-ulimits": {"x": {"Name": "x"}}}"#] {
            assert!(refused(&none, text).starts_with("invalid JSON: "), "{text}");
        }
        let cli = |given| Cli {
            config_file: "/nonexistent/daemon.json".into(),
            validate: false,
            version: false,
            config_file_given: given,
            options: Options::default(),
        };
        assert!(merge(&cli(false)).is_ok());
        assert!(merge(&cli(true)).is_err());
    }
}
