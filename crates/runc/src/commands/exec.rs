//! `exec`.

use std::path::Path;

use libcontainer::oci_spec::runtime::Process;
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::cgroup::Below;
use crate::cli;
use crate::error::{Doing, Error, Result};
use crate::launch::create::{self, ConsoleSocket};
use crate::launch::exec::{self, Options};
use crate::launch::relay::{self, Terminal};
use crate::launch::wait;
use crate::spec;
use crate::state::Container;

/// `exec`
pub fn exec(root: &Path, arguments: &cli::Exec) -> Result<i32> {
    create::prepare()?;
    let container = Container::open(root, &arguments.id)?;
    if arguments.process_label.as_deref().is_some_and(|label| !label.is_empty()) {
        return Err(Error::NotImplemented("--process-label".into()));
    }
    let process = match &arguments.process {
        Some(path) => spec::load_process(path)?,
        None => from_flags(&container, arguments)?,
    };
    let mut options = Options {
        console_socket: arguments.console_socket.clone().map(ConsoleSocket::Path),
        pid_file: arguments.pid_file.clone(),
        preserve_fds: arguments.preserve_fds,
        ignore_paused: arguments.ignore_paused,
        groups: Below::parse(&arguments.cgroup)?,
    };
    if arguments.detach {
        exec::exec(&container, &process, options)?;
        return Ok(0);
    }
    let signals = wait::block_signals()?;
    if !arguments.no_subreaper {
        rustix::process::set_child_subreaper(Pid::from_raw(1)).doing(|| "become a subreaper".into())?;
    }
    let mut terminal = None;
    if process.terminal() == Some(true) && options.console_socket.is_none() {
        let (ours, theirs) = Terminal::new()?;
        options.console_socket = Some(ConsoleSocket::Connected(theirs));
        terminal = Some(ours);
    }
    let pid = exec::exec(&container, &process, options)?;
    let master = terminal.map(Terminal::receive).transpose()?;
    relay::stay(pid, &signals, master)
}

/// The container's process with what the flags change, as runc does it.
fn from_flags(container: &Container, arguments: &cli::Exec) -> Result<Process> {
    if arguments.args.is_empty() {
        return Err(Error::Invalid("process args cannot be empty".into()));
    }
    let spec = container.spec()?;
    let base = spec.process().as_ref().ok_or_else(|| Error::Invalid("\"process\" is missing".into()))?;
    let mut value = serde_json::to_value(base).doing(|| "encode the process".into())?;
    value["args"] = json!(arguments.args);
    value["terminal"] = json!(arguments.tty);
    if let Some(cwd) = &arguments.cwd {
        value["cwd"] = json!(cwd);
    }
    if let Some(profile) = &arguments.apparmor {
        value["apparmorProfile"] = json!(profile);
    }
    if arguments.no_new_privs {
        value["noNewPrivileges"] = json!(true);
    }
    if !arguments.env.is_empty() {
        let mut list = value["env"].as_array().cloned().unwrap_or_default();
        list.extend(arguments.env.iter().map(|entry| json!(entry)));
        value["env"] = Value::Array(list);
    }
    if let Some(user) = &arguments.user {
        let mut parts = user.splitn(2, ':').map(|part| {
            part.parse::<u32>().map_err(|_| Error::Invalid(format!("parsing {part:?} as int for uid failed")))
        });
        value["user"] = json!({ "uid": parts.next().transpose()?.unwrap_or(0), "gid": base.user().gid() });
        if let Some(gid) = parts.next().transpose()? {
            value["user"]["gid"] = json!(gid);
        }
    }
    if !arguments.additional_gids.is_empty() {
        value["user"]["additionalGids"] = json!(arguments.additional_gids);
    }
    for name in &arguments.cap {
        let upper = name.to_ascii_uppercase();
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        // Ambient ones are raised from inheritable ones, which the flag does not give.
        let has_inheritable = value["capabilities"]["inheritable"].as_array().is_some_and(|list| !list.is_empty());
        let ambient = has_inheritable.then_some("ambient");
        for set in ["bounding", "effective", "permitted"].into_iter().chain(ambient) {
            match value["capabilities"][set].as_array_mut() {
                Some(list) if !list.contains(&json!(name)) => list.push(json!(name)),
                Some(_) => (),
                None => value["capabilities"][set] = json!([name]),
            }
        }
    }
    serde_json::from_value(value).map_err(|err| Error::Invalid(err.to_string()))
}
