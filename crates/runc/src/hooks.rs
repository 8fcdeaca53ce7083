//! OCI hooks, run through libcontainer with the state as the specification has it.

use std::collections::HashMap;

use libcontainer::container::{ContainerStatus, State};
use libcontainer::oci_spec::runtime::Hook;

use crate::error::{Error, Result};
use crate::state::{Record, Status};

/// Runs a list of hooks, one after the other. The first that fails ends it.
pub fn run(
    name: &'static str,
    hooks: Option<&Vec<Hook>>,
    record: &Record,
    status: Status,
    environment: Option<&HashMap<String, String>>,
) -> Result<()> {
    if hooks.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let status = match status {
        Status::Creating => ContainerStatus::Creating,
        Status::Created => ContainerStatus::Created,
        Status::Running | Status::Paused => ContainerStatus::Running,
        Status::Stopped => ContainerStatus::Stopped,
    };
    let pid = (status != ContainerStatus::Stopped && record.pid != 0).then_some(record.pid);
    let mut state = State::new(&record.id, status, pid, record.bundle.clone());
    state.oci_version = record.oci_version.clone();
    state.annotations = Some(record.annotations.clone());
    let cwd = record.bundle.is_dir().then_some(record.bundle.as_path()).filter(|_| !in_container(name));
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        let one = vec![hook.clone()];
        libcontainer::hooks::run_hooks(Some(&one), Some(&state), cwd, None, environment)
            .map_err(|err| Error::Hook { name, index, reason: chain(&err) })?;
    }
    Ok(())
}

/// These run in the container's namespaces, where the bundle's path may not exist.
fn in_container(name: &str) -> bool {
    matches!(name, "createContainer" | "startContainer")
}

fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// The environment as hooks without their own want it.
pub fn environment(list: &[String]) -> HashMap<String, String> {
    list.iter().filter_map(|entry| entry.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Whether there is a `createRuntime`, `prestart` or `createContainer` hook to stop for.
pub fn before_pivot(hooks: Option<&libcontainer::oci_spec::runtime::Hooks>) -> bool {
    #[allow(deprecated)]
    let lists = hooks.map(|hooks| [hooks.prestart(), hooks.create_runtime(), hooks.create_container()]);
    lists.is_some_and(|lists| lists.iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty())))
}
