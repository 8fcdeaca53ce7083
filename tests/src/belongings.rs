//! What an engine has on the machine for a running container outside its own files. It is the same before and after
//! everything that leaves the container running; what is more was left behind by something.

use std::collections::BTreeSet;
use std::fs;

use crate::engine::Engine;

impl Engine {
    /// Mounts, control groups, network namespaces, network devices and firewall rules for one container, in an order that
    /// makes two of these comparable. What stands still is named as such.
    #[track_caller]
    pub fn belongings(&self, id: &str) -> Vec<String> {
        let mut all: Vec<String> =
            self.sandbox.mounts().iter().map(|point| format!("mount {}", point.display())).collect();
        for group in self.sandbox.cgroups(&BTreeSet::from([id.to_owned()])) {
            let holds = |file: &str, text: &str| fs::read_to_string(group.join(file)).is_ok_and(|t| t.trim() == text);
            let frozen =
                holds("cgroup.freeze", "1") || ["FROZEN", "FREEZING"].iter().any(|state| holds("freezer.state", state));
            all.push(format!("control group {}{}", group.display(), if frozen { ", frozen" } else { "" }));
        }
        let names = |folder: std::path::PathBuf, what: &str| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| format!("{what} {}", entry.file_name().display())).collect()
        };
        all.extend(names(self.exec_root().join("netns"), "network namespace"));
        all.extend(names(self.exec_root().join("libcontainerd/containerd"), "state"));
        // Their names are made up anew at every start.
        let links = self.ok(&format!("ip -o link show master {}", self.bridge()));
        all.extend(links.lines().map(|_| "network device on the bridge".to_owned()));
        let address = self.inspect(id, "{{.NetworkSettings.IPAddress}}");
        let rules = self.ok("nft list ruleset");
        let names_it = |line: &&str| line.split(|c: char| !c.is_ascii_digit() && c != '.').any(|word| word == address);
        all.extend(rules.lines().filter(names_it).map(|_| "firewall rule".to_owned()));
        let pid = self.inspect(id, "{{.State.Pid}}");
        let inside = self.ok(&format!("nsenter -t {pid} -n nft list tables"));
        all.extend(inside.lines().map(|table| format!("firewall {table} inside")));
        all.sort();
        all
    }
}
