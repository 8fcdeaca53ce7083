//! The engine's one nftables table: what it should hold, and bringing the kernel's to that.
//!
//! The table is `ip dormouse_<bridge>`. A published port is one element of a map, so that publishing is one small
//! batch whatever else is there. Wanted and applied state are kept apart; [`Firewall::sync`] sends the difference, and
//! if the kernel refuses it (someone flushed the ruleset) the whole table anew. It must never touch foreign tables.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::Ipv4Net;

use crate::nfnetlink::{self, Batch};
use crate::sys::lock;
use crate::{Error, Protocol, Result};

/// Rules of one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub subnet: Ipv4Net,
    pub masquerade: bool,
    pub internal: bool,
    pub icc: bool,
}

/// A port of the host; no address = all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub address: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
}

impl HostPort {
    fn map(&self) -> &'static str {
        if self.address.is_some() { "ports_at" } else { "ports" }
    }

    fn key(&self) -> String {
        let rest = format!("{} . {}", self.protocol.name(), self.port);
        self.address.map_or(rest.clone(), |address| format!("{address} . {rest}"))
    }
}

type Target = (Ipv4Addr, u16);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    bridges: BTreeMap<String, BridgeRules>,
    ports: BTreeMap<HostPort, Target>,
}

/// The table of one engine.
pub(crate) struct Firewall {
    table: String,
    wanted: Mutex<Rules>,
    /// What the kernel has; `None` before the first time and after a refusal.
    applied: Mutex<Option<Rules>>,
    enabled: AtomicBool,
}

impl Firewall {
    pub(crate) fn new(bridge: &str, enabled: bool) -> Self {
        let name: String = bridge.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Self {
            table: format!("dormouse_{name}"),
            wanted: Mutex::default(),
            applied: Mutex::new(None),
            enabled: AtomicBool::new(enabled),
        }
    }

    /// Are rules managed at all?
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// There is no `nft`, or it cannot work here.
    pub(crate) fn disable(&self) {
        self.enabled.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set_bridge(&self, name: &str, rules: BridgeRules) {
        lock(&self.wanted).bridges.insert(name.to_owned(), rules);
    }

    pub(crate) fn remove_bridge(&self, name: &str) {
        lock(&self.wanted).bridges.remove(name);
    }

    pub(crate) fn add_ports(&self, ports: impl IntoIterator<Item = (HostPort, Target)>) {
        lock(&self.wanted).ports.extend(ports);
    }

    pub(crate) fn remove_ports(&self, ports: &[HostPort]) {
        let mut wanted = lock(&self.wanted);
        for port in ports {
            wanted.ports.remove(port);
        }
    }

    /// Brings the kernel's table to what is wanted now, including what other callers have asked for meanwhile.
    pub(crate) fn sync(&self) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        let mut applied = lock(&self.applied);
        let wanted = lock(&self.wanted).clone();
        if applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let batch = applied.as_ref().and_then(|applied| port_changes(&self.table, applied, &wanted));
        if let Some(batch) = batch {
            match batch.send() {
                Ok(()) => {
                    *applied = Some(wanted);
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "firewall table is not as left; writing it anew"),
            }
        }
        *applied = None;
        // An engine without bridges leaves nothing behind.
        match wanted == Rules::default() {
            true => nft(&no_table(&self.table))?,
            false => nft(&whole_table(&self.table, &wanted))?,
        }
        *applied = Some(wanted);
        Ok(())
    }

    /// Takes the table away.
    pub(crate) fn delete(&self) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        let mut applied = lock(&self.applied);
        *applied = None;
        nft(&no_table(&self.table))
    }
}

/// Takes a table away whether it is there or not.
fn no_table(table: &str) -> String {
    format!("add table ip {table}\ndelete table ip {table}\n")
}

/// The batch from one port list to the next; `None` if more than ports has changed.
fn port_changes(table: &str, from: &Rules, to: &Rules) -> Option<Batch> {
    if from.bridges != to.bridges {
        return None;
    }
    let mut batch = Batch::new();
    let key = |port: &HostPort| nfnetlink::port_key(port.address, port.protocol, port.port);
    for (port, target) in &from.ports {
        if to.ports.get(port) != Some(target) {
            batch.delete_element(table, port.map(), &key(port));
        }
    }
    for (port, target) in &to.ports {
        if from.ports.get(port) != Some(target) {
            batch.add_element(table, port.map(), &key(port), *target);
        }
    }
    Some(batch)
}

fn element(port: &HostPort, target: &Target) -> String {
    format!("{} : {} . {}", port.key(), target.0, target.1)
}

/// The whole table as one atomic replacement.
fn whole_table(table: &str, rules: &Rules) -> String {
    let elements = |items: Vec<String>| {
        if items.is_empty() { String::new() } else { format!("elements = {{ {} }}; ", items.join(", ")) }
    };
    let bridges = |wanted: &dyn Fn(&BridgeRules) -> bool| {
        let chosen = rules.bridges.iter().filter(|(_, rules)| wanted(rules));
        elements(chosen.map(|(name, _)| format!("\"{name}\"")).collect())
    };
    let subnets = |wanted: &dyn Fn(&BridgeRules) -> bool| {
        let chosen = rules.bridges.values().filter(|rules| wanted(rules));
        elements(chosen.map(|rules| rules.subnet.to_string()).collect())
    };
    let within = {
        let chosen = rules.bridges.iter().filter(|(_, rules)| rules.icc);
        elements(chosen.map(|(name, _)| format!("\"{name}\" . \"{name}\"")).collect())
    };
    let ports = |specific: bool| {
        let chosen = rules.ports.iter().filter(|(port, _)| port.address.is_some() == specific);
        elements(chosen.map(|(port, target)| element(port, target)).collect())
    };
    let all = bridges(&|_| true);
    let internal = bridges(&|rules| rules.internal);
    let any_subnet = subnets(&|_| true);
    let outgoing = subnets(&|rules| rules.masquerade && !rules.internal);
    let (ports_any, ports_at) = (ports(false), ports(true));
    // Loopback addresses are routable on our bridges (so that 127.0.0.1:port reaches a container); `guard` keeps
    // containers from reaching the host's loopback in turn.
    format!(
        r#"add table ip {table}
delete table ip {table}
table ip {table} {{
	set bridges {{ type ifname; {all}}}
	set internal {{ type ifname; {internal}}}
	set within {{ type ifname . ifname; {within}}}
	set subnets {{ type ipv4_addr; flags interval; {any_subnet}}}
	set outgoing {{ type ipv4_addr; flags interval; {outgoing}}}
	map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; {ports_any}}}
	map ports_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {ports_at}}}
	chain publish {{
		meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @ports_at
		meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @ports
	}}
	chain guard {{
		type filter hook prerouting priority raw; policy accept;
		iifname @bridges ip daddr 127.0.0.0/8 drop
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump publish
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		fib daddr type local jump publish
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname @bridges ip saddr 127.0.0.0/8 masquerade
		oifname @bridges ip saddr @subnets ct status dnat masquerade
		oifname != @bridges ip saddr @outgoing masquerade
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname . oifname @within accept
		iifname @internal drop
		oifname @internal drop
		oifname @bridges ct state established,related accept
		oifname @bridges ct status dnat accept
		oifname @bridges drop
	}}
}}
"#
    )
}

fn nft(batch: &str) -> Result<()> {
    let failed = |error: std::io::Error| Error::Firewall(format!("cannot run nft: {error}"));
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A refusal shows in the exit status; a broken pipe here is only its shadow.
        let _ = stdin.write_all(batch.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Firewall(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Foreign rules that would drop containers' traffic, in words for the administrator.
pub(crate) fn foreign_policies() -> Vec<String> {
    let mut warnings = Vec::new();
    match Command::new("nft").args(["list", "chains"]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let mut table = String::new();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if let Some(name) = line.strip_prefix("table ") {
                    table = name.trim_end_matches([' ', '{']).to_owned();
                }
                if line.contains("hook forward") && line.contains("policy drop") && !table.starts_with("ip6") {
                    warnings.push(format!(
                        "WARNING: nftables table `{table}` drops forwarded packets by policy: containers may have no network"
                    ));
                }
            }
        }
        Ok(output) => {
            warnings.push(format!("WARNING: nft: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Err(error) => warnings.push(format!(
            "WARNING: cannot run nft ({error}): published ports are served by the engine itself, containers reach no \
             other host, and networks are not isolated. Install nftables"
        )),
    }
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter")
        && let Ok(output) = Command::new("iptables-legacy").args(["-S", "FORWARD"]).stdin(Stdio::null()).output()
        && String::from_utf8_lossy(&output.stdout).contains("-P FORWARD DROP")
    {
        warnings.push("WARNING: iptables-legacy's FORWARD policy is DROP: containers may have no network".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_is_wanted() {
        let mut rules = Rules::default();
        let subnet = "10.9.0.0/24".parse().unwrap();
        let open = BridgeRules { subnet, masquerade: true, internal: false, icc: true };
        let shut = BridgeRules { subnet: "10.9.1.0/24".parse().unwrap(), masquerade: true, internal: true, icc: false };
        rules.bridges.insert("br-a".to_owned(), open);
        rules.bridges.insert("br-b".to_owned(), shut);
        let port = HostPort { address: None, protocol: Protocol::Tcp, port: 8080 };
        rules.ports.insert(port, ("10.9.0.2".parse().unwrap(), 80));
        let text = whole_table("t", &rules);
        for line in [
            "set bridges { type ifname; elements = { \"br-a\", \"br-b\" }; }",
            "set internal { type ifname; elements = { \"br-b\" }; }",
            "set within { type ifname . ifname; elements = { \"br-a\" . \"br-a\" }; }",
            "set outgoing { type ipv4_addr; flags interval; elements = { 10.9.0.0/24 }; }",
            "elements = { tcp . 8080 : 10.9.0.2 . 80 }; }",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(port_changes("t", &rules, &Rules::default()).is_none());
    }
}
