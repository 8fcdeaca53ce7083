//! `update`: changes limits of a running container.

use std::io::Read;
use std::path::Path;

use libcontainer::oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use crate::cli;
use crate::error::{Doing, Error, Result};
use crate::state::{Container, Status};

/// No limits file is larger.
const MAX_BYTES: u64 = 1 << 20;

/// `update`
pub fn update(root: &Path, arguments: &cli::Update) -> Result<i32> {
    let container = Container::open(root, &arguments.id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::NotRunning);
    }
    let value = match &arguments.resources {
        Some(file) => {
            let mut text = String::new();
            let doing = || format!("read {file}");
            if file == "-" {
                std::io::stdin().take(MAX_BYTES).read_to_string(&mut text).doing(doing)?;
            } else {
                std::fs::File::open(file).doing(doing)?.take(MAX_BYTES).read_to_string(&mut text).doing(doing)?;
            }
            serde_json::from_str(&text).doing(|| format!("parse {file}"))?
        }
        None => from_flags(arguments)?,
    };
    container.cgroups()?.apply(&resources(value)?)?;
    Ok(0)
}

/// The new limits that a document asks for.
pub(crate) fn resources(value: Value) -> Result<LinuxResources> {
    serde_json::from_value(without_zeros(value)).map_err(|err| Error::Invalid(format!("invalid resources: {err}")))
}

fn from_flags(arguments: &cli::Update) -> Result<Value> {
    let bytes = |text: &Option<String>| text.as_deref().map(parse_bytes).transpose();
    Ok(json!({
        "memory": {
            "limit": bytes(&arguments.memory)?,
            "reservation": bytes(&arguments.memory_reservation)?,
            "swap": bytes(&arguments.memory_swap)?
        },
        "cpu": {
            "shares": arguments.cpu_shares,
            "quota": arguments.cpu_quota,
            "period": arguments.cpu_period,
            "realtimeRuntime": arguments.cpu_rt_runtime,
            "realtimePeriod": arguments.cpu_rt_period,
            "cpus": arguments.cpuset_cpus,
            "mems": arguments.cpuset_mems
        },
        "pids": { "limit": arguments.pids_limit },
        "blockIO": { "weight": arguments.blkio_weight }
    }))
}

/// Zero and the empty string mean "as it is" in runc's file; whole sections without a value go.
fn without_zeros(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(name, value)| (name, without_zeros(value)))
                .filter(|(_, value)| match value {
                    Value::Null => false,
                    Value::Number(number) => number.as_f64() != Some(0.0),
                    Value::String(text) => !text.is_empty(),
                    Value::Object(map) => !map.is_empty(),
                    Value::Array(list) => !list.is_empty(),
                    Value::Bool(_) => true,
                })
                .collect(),
        ),
        other => other,
    }
}

/// `-1`, `4096`, `64m`, `1g`.
pub(crate) fn parse_bytes(text: &str) -> Result<i64> {
    let bad = || Error::Invalid(format!("invalid value for memory: {text:?}"));
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).and_then(|bytes| i64::try_from(bytes).ok()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("64m").unwrap(), 64 << 20);
        assert_eq!(parse_bytes("1GiB").unwrap(), 1 << 30);
        assert_eq!(parse_bytes("-1").unwrap(), -1);
        assert!(parse_bytes("x").is_err());
        assert!(parse_bytes("99999999999999999999").is_err());
    }

    #[test]
    fn zeros_are_left_as_they_are() {
        let value = without_zeros(json!({"memory": {"limit": 0}, "cpu": {"shares": 512, "cpus": ""}}));
        assert_eq!(value, json!({"cpu": {"shares": 512}}));
    }
}
