//! Network devices of the host that move into the container's network namespace (`linux.netDevices`).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use libcontainer::network::address::AddressClient;
use libcontainer::network::link::LinkClient;
use libcontainer::network::network_device::{
    dev_change_net_namespace, resolve_device_name, setup_addresses_in_network_namespace,
};
use libcontainer::network::wrapper::create_network_client;
use libcontainer::oci_spec::runtime::LinuxNetDevice;

use crate::error::{Doing, Error, Result};
use crate::sys;

/// Moves them to the network namespace of `pid`, with their addresses, and brings them up. Whoever calls has one thread.
pub fn give(devices: &HashMap<String, LinuxNetDevice>, pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let target = File::open(&path).doing(|| format!("open {path}"))?;
    let own = File::open("/proc/self/ns/net").doing(|| "open /proc/self/ns/net".into())?;
    let failed = |name: &str, err: String| Error::Init(format!("move network device {name:?}: {err}"));
    for (name, device) in devices {
        let addresses =
            dev_change_net_namespace(name, target.as_raw_fd(), device).map_err(|err| failed(name, err.to_string()))?;
        let new_name = resolve_device_name(device, name);
        sys::setns(target.as_fd(), libc::CLONE_NEWNET).doing(|| "join the network namespace".into())?;
        let made = (|| {
            let mut links = LinkClient::new(create_network_client())?;
            let index = links.get_by_name(new_name)?.header.index;
            let mut client = AddressClient::new(create_network_client())?;
            setup_addresses_in_network_namespace(&addresses, index, new_name, &mut client)?;
            links.set_up(index)
        })();
        sys::setns(own.as_fd(), libc::CLONE_NEWNET).doing(|| "return to own network namespace".into())?;
        made.map_err(|err| failed(name, err.to_string()))?;
    }
    Ok(())
}
