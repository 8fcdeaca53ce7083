//! The Dockerfile instructions that `docker import` and `docker commit` take with `--change`: those that only describe
//! how a container runs. One instruction a line; a backslash at a line's end continues it.

use std::collections::BTreeMap;

use crate::config::{ContainerConfig, Empty, Healthcheck};
use crate::{Error, Result};

/// Some instructions cost far more than their letters.
const MAX_BYTES: usize = 64 << 10;

/// Applies the instructions, in order.
pub(crate) fn apply(config: &mut ContainerConfig, changes: &[String]) -> Result<()> {
    if changes.iter().map(String::len).sum::<usize>() > MAX_BYTES {
        return Err(Error::TooLarge(format!("more than {MAX_BYTES} bytes of changes")));
    }
    for line in changes.iter().flat_map(|change| logical_lines(change)) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        instruction(config, &word.to_ascii_uppercase(), rest.trim())?;
    }
    Ok(())
}

fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for part in text.lines() {
        let part = part.trim();
        if line.is_empty() && (part.is_empty() || part.starts_with('#')) {
            continue;
        }
        match part.strip_suffix('\\') {
            Some(part) => line.push_str(part),
            None => {
                line.push_str(part);
                lines.push(std::mem::take(&mut line));
            }
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn instruction(config: &mut ContainerConfig, word: &str, rest: &str) -> Result<()> {
    if rest.is_empty() && !matches!(word, "CMD" | "ENTRYPOINT") {
        return Err(Error::Invalid(format!("{word} requires at least one argument")));
    }
    match word {
        "CMD" => config.cmd = Some(command(config, rest)?),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest)?),
        "ENV" => {
            for (key, value) in pairs(word, rest)? {
                let prefix = format!("{key}=");
                let entry = format!("{prefix}{value}");
                match config.env.iter_mut().find(|old| old.starts_with(&prefix)) {
                    Some(old) => *old = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(word, rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                config.exposed_ports.get_or_insert_default().extend(ports(&port)?);
            }
        }
        "USER" => config.user = single(word, rest)?,
        "WORKDIR" => {
            let dir = single(word, rest)?;
            let base = if dir.starts_with('/') { "/" } else { config.working_dir.as_str() };
            config.working_dir = clean_join(base, &dir);
        }
        "VOLUME" => {
            for volume in json_list(rest).map_or_else(|| words(rest), Ok)? {
                if volume.trim().is_empty() {
                    return Err(Error::Invalid("VOLUME specified can not be an empty string".into()));
                }
                config.volumes.get_or_insert_default().insert(volume, Empty {});
            }
        }
        "STOPSIGNAL" => config.stop_signal = single(word, rest)?,
        "SHELL" => {
            config.shell = Some(
                json_list(rest)
                    .ok_or_else(|| Error::Invalid("SHELL requires the arguments to be in JSON form".into()))?,
            );
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match trigger.as_str() {
                "ONBUILD" => return Err(Error::Invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into())),
                "MAINTAINER" | "FROM" => {
                    return Err(Error::Invalid(format!("{trigger} isn't allowed as an ONBUILD trigger")));
                }
                _ => config.on_build.get_or_insert_default().push(rest.to_owned()),
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => return Err(Error::Invalid(format!("{word} is not a valid change command"))),
    }
    Ok(())
}

/// A JSON list of strings as it is; anything else is given to a shell.
fn command(config: &ContainerConfig, rest: &str) -> Result<Vec<String>> {
    if let Some(list) = json_list(rest) {
        return Ok(list);
    }
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
    command.push(rest.to_owned());
    Ok(command)
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// `key=value key2="a b"`, or the old form `key the whole rest`.
fn pairs(word: &str, rest: &str) -> Result<Vec<(String, String)>> {
    let words = words(rest)?;
    if !words.first().is_some_and(|first| first.contains('=')) {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::Invalid(format!("{word} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|pair| match pair.split_once('=') {
            Some(("", _)) => Err(Error::Invalid(format!("{word} names can not be blank"))),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                Err(Error::Invalid(format!("Syntax error - can't find = in {pair:?}. Must be of the form: name=value")))
            }
        })
        .collect()
}

/// Splits at blanks; quotes and backslashes keep them.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::Invalid(format!(
            "unexpected end of statement while looking for matching quote in {text:?}"
        )));
    }
    words.extend(word);
    Ok(words)
}

fn single(word: &str, rest: &str) -> Result<String> {
    match <[String; 1]>::try_from(words(rest)?) {
        Ok([value]) => Ok(value),
        Err(_) => Err(Error::Invalid(format!("{word} requires exactly one argument"))),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<BTreeMap<String, Empty>> {
    let invalid = || Error::Invalid(format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::Invalid(format!("invalid proto: {protocol}")));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})).collect())
}

fn healthcheck(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) =
            flag.split_once('=').ok_or_else(|| Error::Invalid(format!("Missing a value on flag: {flag}")))?;
        match name {
            "interval" => check.interval = duration_ns(value)?,
            "timeout" => check.timeout = duration_ns(value)?,
            "start-period" => check.start_period = duration_ns(value)?,
            "start-interval" => check.start_interval = duration_ns(value)?,
            "retries" => {
                check.retries = value
                    .parse()
                    .ok()
                    .filter(|n: &i64| *n >= 0)
                    .ok_or_else(|| Error::Invalid("--retries cannot be negative".into()))?;
            }
            _ => return Err(Error::Invalid(format!("Unknown flag: {name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if arguments.trim().is_empty() => check.test = vec!["NONE".into()],
        "NONE" => return Err(Error::Invalid("HEALTHCHECK NONE takes no arguments".into())),
        "CMD" => {
            let arguments = arguments.trim();
            check.test = match json_list(arguments) {
                Some(list) if !list.is_empty() => [vec!["CMD".to_owned()], list].concat(),
                None if !arguments.is_empty() => vec!["CMD-SHELL".into(), arguments.into()],
                _ => return Err(Error::Invalid("Missing command after HEALTHCHECK CMD".into())),
            };
        }
        other => return Err(Error::Invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    }
    Ok(check)
}

/// Go's durations: `1h30m`, `1.5s`, `200ms`.
fn duration_ns(text: &str) -> Result<i64> {
    let invalid = || Error::Invalid(format!("time: invalid duration {text:?}"));
    let mut rest = text;
    let mut total = 0.0;
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        total += number
            * match &rest[digits..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(invalid()),
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() || total > i64::MAX as f64 { Err(invalid()) } else { Ok(total as i64) }
}

fn clean_join(base: &str, dir: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(dir.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Result<ContainerConfig> {
        let mut config = ContainerConfig::default();
        apply(&mut config, &changes.iter().map(|&c| c.to_owned()).collect::<Vec<_>>())?;
        Ok(config)
    }

    #[test]
    fn instructions_describe_how_a_container_runs() {
        let config = applied(&[
            r#"CMD ["/bin/sh"]"#,
            "ENTRYPOINT exec top -b",
            "ENV A=1 B=\"two words\"",
            "ENV C the rest of it",
            "ENV A=3",
            "EXPOSE 80 53/udp 8000-8001",
            "LABEL x=y",
            "USER nobody",
            "VOLUME /data /more",
            "WORKDIR /srv",
            "WORKDIR app/../www",
            "STOPSIGNAL SIGUSR1",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost",
        ])
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["/bin/sh"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec top -b"]);
        assert_eq!(config.env, ["A=3", "B=two words", "C=the rest of it"]);
        let ports: Vec<String> = config.exposed_ports.unwrap().into_keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.labels.unwrap()["x"], "y");
        assert_eq!(config.volumes.unwrap().len(), 2);
        assert_eq!(config.working_dir, "/srv/www");
        assert_eq!(config.on_build.unwrap(), ["RUN true"]);
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost"]);
    }

    #[test]
    fn others_and_broken_ones_are_refused() {
        for change in
            ["RUN true", "FROM x", "ENV", "ENV A", "EXPOSE x", "EXPOSE 9-1", "LABEL a=\"b", "SHELL sh", "USER a b"]
        {
            assert!(matches!(applied(&[change]), Err(Error::Invalid(_))), "{change}");
        }
        assert!(applied(&["RUN true"]).unwrap_err().to_string().contains("RUN is not a valid change command"));
    }
}
