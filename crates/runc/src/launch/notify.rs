//! Seccomp filters that ask somebody (`SCMP_ACT_NOTIFY`): hands the kernel's listener to the agent at `listenerPath`.
//!
//! The process that loads the filter says the number of its descriptor with one `write`, the only call that such a filter
//! may not ask about; docker-runc fetches the descriptor and hands it on. From then on the agent answers for whatever else
//! the process does.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use libcontainer::oci_spec::runtime::LinuxSeccomp;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;

use super::seccomp::Filter;
use super::sync::{Channel, Message};
use crate::error::{Doing, Error, Result};
use crate::state::{Record, Status};

/// What a container's processes are put under.
#[derive(Debug)]
pub enum Seccomp<'a> {
    /// A filter that decides by itself.
    Filter(Filter),
    /// One that asks.
    Asks(&'a LinuxSeccomp),
}

impl<'a> Seccomp<'a> {
    /// That of a profile; `root` is where programs are kept. If it asks somebody, there must be somebody.
    pub fn of(profile: Option<&'a LinuxSeccomp>, root: &Path) -> Result<Option<Self>> {
        let Some(asking) = profile.filter(|profile| libcontainer::seccomp::is_notify(profile)) else {
            return Ok(Filter::of(profile, root)?.map(Seccomp::Filter));
        };
        match asking.listener_path() {
            Some(path) if !path.as_os_str().is_empty() => Ok(Some(Seccomp::Asks(asking))),
            _ => Err(Error::Init("seccomp.listenerPath is missing, and an action is SCMP_ACT_NOTIFY".into())),
        }
    }

    /// Puts the calling process under it. Whoever is at the other end of `channel` hands the listener on.
    pub fn load(&self, channel: &Channel) -> Result<()> {
        let profile = match self {
            Seccomp::Filter(filter) => return filter.load(),
            Seccomp::Asks(profile) => profile,
        };
        let listener = libcontainer::seccomp::initialize_seccomp(&as_libcontainer_reads_it(profile)?)
            .map_err(|err| Error::Init(format!("error loading seccomp filter: {err}")))?;
        // libcontainer gives it as a number. It is left open: it is close-on-exec, and this process is about to execute.
        if let Some(listener) = listener {
            channel.send(&Message::Listener(listener))?;
            channel.expect(&Message::ListenerSent)?;
        }
        Ok(())
    }
}

/// libcontainer takes the second value of a masked comparison for the mask, and the first for what must be left.
fn as_libcontainer_reads_it(profile: &LinuxSeccomp) -> Result<LinuxSeccomp> {
    let mut value = serde_json::to_value(profile).doing(|| "encode the seccomp profile".into())?;
    let rules = value["syscalls"].as_array_mut().into_iter().flatten();
    for argument in rules.filter_map(|rule| rule["args"].as_array_mut()).flatten() {
        if argument["op"] == "SCMP_CMP_MASKED_EQ" {
            let (mask, left) = (argument["value"].take(), argument["valueTwo"].take());
            argument["value"] = if left.is_null() { json!(0) } else { left };
            argument["valueTwo"] = mask;
        }
    }
    serde_json::from_value(value).doing(|| "encode the seccomp profile".into())
}

/// Fetches descriptor `number` of process `pid`, which is one of this container's, and sends it to the agent.
pub fn forward(seccomp: Option<&LinuxSeccomp>, record: &Record, status: Status, pid: i32, number: i32) -> Result<()> {
    let path = seccomp.and_then(|seccomp| seccomp.listener_path().as_deref());
    let path = path.ok_or_else(|| Error::Init("a seccomp listener without seccomp.listenerPath".into()))?;
    let doing = || format!("fetch the seccomp listener of process {pid}");
    let process = Pid::from_raw(pid).ok_or(Error::NotRunning)?;
    let pidfd = pidfd_open(process, PidfdFlags::empty()).doing(doing)?;
    let listener = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).doing(doing)?;
    // The runtime specification's "container process state".
    let state = json!({
        "ociVersion": record.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": seccomp.and_then(|seccomp| seccomp.listener_metadata().as_deref()).unwrap_or_default(),
        "state": {
            "ociVersion": record.oci_version,
            "id": record.id,
            "status": status,
            "pid": record.pid,
            "bundle": record.bundle,
            "annotations": record.annotations
        }
    });
    let doing = || format!("failed to connect with seccomp agent at {}", path.display());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).doing(doing)?;
    let address = SocketAddrUnix::new(path).doing(doing)?;
    rustix::net::connect(&socket, &address).doing(doing)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Error::Init("no room for a descriptor".into()));
    }
    let text = state.to_string();
    let sent = rustix::net::sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)
        .doing(|| "send the seccomp listener to its agent".into())?;
    // What the first message had no room for.
    std::io::Write::write_all(&mut std::fs::File::from(socket), &text.as_bytes()[sent..])
        .doing(|| "send the container's state to the seccomp agent".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_handed_on_as_masks() {
        let profile: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["clone"], "action": "SCMP_ACT_NOTIFY", "args": [
                { "index": 0, "value": 7, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" },
                { "index": 1, "value": 7, "op": "SCMP_CMP_MASKED_EQ" },
                { "index": 2, "value": 7, "op": "SCMP_CMP_EQ" }
            ] }]
        }))
        .unwrap();
        let read = serde_json::to_value(as_libcontainer_reads_it(&profile).unwrap()).unwrap();
        let values = |index: usize| {
            let argument = &read["syscalls"][0]["args"][index];
            (argument["value"].as_u64(), argument["valueTwo"].as_u64())
        };
        assert_eq!((values(0), values(1), values(2)), ((Some(0), Some(7)), (Some(0), Some(7)), (Some(7), None)));
    }
}
