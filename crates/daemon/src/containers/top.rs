//! `top`: the host's `ps`, reduced to the container's processes.

use api::types::ContainerTop;

use crate::Daemon;
use crate::error::{Context, Error, Result};

impl Daemon {
    /// Lists a container's processes with `ps`'s arguments.
    pub(crate) async fn container_top(&self, name: &str, ps_args: &str) -> Result<ContainerTop> {
        let container = self.running(name)?;
        let args: Vec<&str> = match ps_args.trim() {
            "" => vec!["-ef"],
            args => args.split_whitespace().collect(),
        };
        if args.iter().any(|a| a.contains("pid=") && !a.contains("pid=PID")) {
            return Err(Error::InvalidParameter("specifying \"pid=\" with another title is not allowed".into()));
        }
        let state = self.containerd.state(&container.id).await?;
        let pids = state.map(|s| s.pids).unwrap_or_default();
        let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let run = |extra: Vec<String>| {
            let mut command = tokio::process::Command::new("ps");
            command.args(&args).args(extra).stdin(std::process::Stdio::null()).kill_on_drop(true);
            async move { command.output().await.context(|| "ps".into()) }
        };
        // `-q` selects in ps itself; not every kind of output goes with it.
        let mut output = run(vec!["-q".into(), list]).await?;
        if !output.status.success() {
            output = run(Vec::new()).await?;
        }
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            // The first line says what is wrong, the others how to do better.
            return Err(Error::System(format!("ps: {}", words.trim().lines().next().unwrap_or_default())));
        }
        let top = parse(&String::from_utf8_lossy(&output.stdout), &pids)?;
        self.container_event(&container.record(), "top", &[]);
        Ok(top)
    }
}

pub(super) fn parse(output: &str, pids: &[u32]) -> Result<ContainerTop> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|t| t == "PID")
        .ok_or_else(|| Error::System("Couldn't find PID field in ps output".into()))?;
    let mut processes = Vec::new();
    for line in lines {
        let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let ours = fields.get(column).and_then(|p| p.parse().ok()).is_some_and(|pid| pids.contains(&pid));
        if !ours {
            continue;
        }
        // The last column is the command line, spaces and all.
        if fields.len() > titles.len() {
            let rest = fields.split_off(titles.len() - 1);
            fields.push(rest.join(" "));
        }
        processes.push(fields);
    }
    Ok(ContainerTop { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes() {
        let output = "UID PID PPID CMD\nroot 1 0 init\nroot 42 1 sleep 1 2\n";
        let top = parse(output, &[42]).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(top.processes, [["root", "42", "1", "sleep 1 2"]]);
        assert!(parse("UID CMD\n", &[]).is_err());
    }
}
