//! `state`, `list`, `ps`.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::cli;
use crate::error::{Doing, Error, Result};
use crate::state::{Container, Status};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    oci_version: String,
    id: String,
    pid: i32,
    status: Status,
    bundle: String,
    rootfs: String,
    created: String,
    #[serde(skip_serializing_if = "std::collections::HashMap::is_empty")]
    annotations: std::collections::HashMap<String, String>,
    owner: String,
}

impl Row {
    fn of(container: &Container) -> Result<Self> {
        let record = &container.record;
        let status = container.status()?;
        Ok(Row {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status,
            bundle: record.bundle.display().to_string(),
            rootfs: record.rootfs.display().to_string(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: record.owner.clone(),
        })
    }
}

/// `state`
pub fn state(root: &Path, id: &str) -> Result<i32> {
    let row = Row::of(&Container::open(root, id)?)?;
    println!("{}", serde_json::to_string_pretty(&row).doing(|| "encode".into())?);
    Ok(0)
}

/// `list`
pub fn list(root: &Path, arguments: &cli::List) -> Result<i32> {
    let containers = Container::all(root)?;
    if arguments.quiet {
        for container in &containers {
            println!("{}", container.record.id);
        }
        return Ok(0);
    }
    let rows = containers.iter().map(Row::of).collect::<Result<Vec<_>>>()?;
    match arguments.format.as_str() {
        "json" => println!("{}", serde_json::to_string(&rows).doing(|| "encode".into())?),
        "table" => {
            let mut lines = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            lines.extend(
                rows.into_iter().map(|row| {
                    [row.id, row.pid.to_string(), row.status.to_string(), row.bundle, row.created, row.owner]
                }),
            );
            print_table(&lines);
        }
        _ => return Err(Error::Invalid("invalid format option".into())),
    }
    Ok(0)
}

fn print_table(lines: &[[String; 6]]) {
    let widths: Vec<usize> =
        (0..6).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0).max(8) + 4).collect();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.concat().trim_end());
    }
}

/// `ps`
pub fn ps(root: &Path, arguments: &cli::Ps) -> Result<i32> {
    let container = Container::open(root, &arguments.id)?;
    if matches!(container.status()?, Status::Stopped) {
        return Err(Error::NotRunning);
    }
    let pids = container.cgroups()?.pids()?;
    match arguments.format.as_str() {
        "json" => {
            println!("{}", serde_json::to_string(&pids).doing(|| "encode".into())?);
            return Ok(0);
        }
        "table" => (),
        _ => return Err(Error::Invalid("invalid format option".into())),
    }
    let default = ["-ef".to_owned()];
    let given = if arguments.args.is_empty() { &default[..] } else { &arguments.args };
    let output = Command::new("ps").args(given).output().doing(|| "run ps".into())?;
    if !output.status.success() {
        return Err(Error::Invalid(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_ascii_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::Invalid("couldn't find PID field in ps output".into()))?;
    println!("{header}");
    for line in lines {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|text| text.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(0)
}
