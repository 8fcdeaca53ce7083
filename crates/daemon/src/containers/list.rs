//! `ps`: a line for each container, and the filters. Reading a list takes no container's lock.

use std::collections::HashSet;
use std::sync::Arc;

use api::backend::ListOptions;
use api::filters::Filters;
use api::types::{ContainerSummary, Port, SummaryHostConfig, SummaryNetworkSettings};
use chrono::{DateTime, Utc};

use super::container::Container;
use super::mounts::MountPlan;
use super::record::Record;
use super::state::State;
use crate::Daemon;
use crate::error::{Error, Result};

const KNOWN: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// The filters, looked up once for the whole list.
struct Query<'a> {
    filters: &'a Filters,
    names: Vec<Name<'a>>,
    created_before: Option<DateTime<Utc>>,
    created_after: Option<DateTime<Utc>>,
    ancestors: Option<HashSet<String>>,
    networks: Vec<String>,
}

impl Daemon {
    /// Lists containers, newest first.
    pub(crate) async fn container_list(self: &Arc<Self>, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let query = self.query(&options.filters)?;
        // A status, an exit code or a limit mean those that do not run, too.
        let all =
            options.all || options.limit.is_some() || ["status", "exited"].iter().any(|f| options.filters.contains(f));
        let mut lines = Vec::new();
        let containers = self.containers.all();
        let links = self.link_names(&containers);
        for container in containers {
            if options.limit.is_some_and(|limit| lines.len() >= limit) {
                break;
            }
            let record = container.record();
            if (all || record.state.is_active()) && self.matches(&query, &container, &record) {
                let mut line = self.summary(&container, &record);
                line.names.extend(links.get(&record.id).into_iter().flatten().cloned());
                if options.size {
                    let (own, whole) = self.sizes(&record).await;
                    line.size_rw = own.unwrap_or(0);
                    line.size_root_fs = whole.unwrap_or(0);
                }
                lines.push(line);
            }
        }
        Ok(lines)
    }

    fn query<'a>(&self, filters: &'a Filters) -> Result<Query<'a>> {
        let invalid = |e: api::Error| Error::InvalidParameter(e.to_string());
        filters.validate(KNOWN).map_err(invalid)?;
        let one_of = |name: &str, known: &[&str]| match filters.get(name).find(|v| !known.contains(v)) {
            Some(value) => {
                let what = if name == "status" { "state" } else { name };
                let known = known.join(", ");
                Err(Error::InvalidParameter(format!(
                    "invalid filter '{name}={value}': invalid value for {what} ({value}): must be one of {known}"
                )))
            }
            None => Ok(()),
        };
        one_of("status", STATES)?;
        one_of("health", HEALTHS)?;
        for code in filters.get("exited") {
            code.parse::<i64>().map_err(|_| Error::InvalidParameter(format!("invalid filter 'exited={code}'")))?;
        }
        let created =
            |name: &str| filters.get(name).map(|c| Ok(self.container(c)?.record().created)).collect::<Result<Vec<_>>>();
        let ancestors = filters
            .contains("ancestor")
            .then(|| filters.get("ancestor").flat_map(|name| self.image_descendants(name)).collect());
        let networks = filters
            .get("network")
            .map(|name| self.networks.get(name).map_or_else(|_| name.to_owned(), |n| n.name))
            .collect();
        Ok(Query {
            filters,
            names: filters.get("name").map(Name::new).collect(),
            created_before: created("before")?.into_iter().min(),
            created_after: created("since")?.into_iter().max(),
            ancestors,
            networks,
        })
    }

    fn matches(&self, query: &Query<'_>, container: &Container, record: &Record) -> bool {
        let f = query.filters;
        let label = |key: &str| record.config.labels.get(key).map(String::as_str);
        let ran = !matches!(record.state, State::Created { .. });
        f.any("id", |wanted| record.id.starts_with(wanted))
            && (query.names.is_empty() || query.names.iter().any(|wanted| wanted.is_of(&record.name)))
            && f.matches_pairs("label", label)
            && f.matches_exactly("status", record.state.status())
            && f.any("exited", |wanted| {
                ran && !record.state.is_active() && wanted.parse() == Ok(record.state.exit_code())
            })
            && f.matches_exactly("health", container.health.status())
            && f.any("is-task", |wanted| matches!(wanted, "false" | "0"))
            && f.any("volume", |wanted| record.mounts.iter().any(|m| mount_matches(m, wanted)))
            && self.port_filters(f, record)
            && (query.networks.is_empty() || query.networks.iter().any(|n| record.networks.contains_key(n)))
            && query.ancestors.as_ref().is_none_or(|set| set.contains(&record.image_id))
            && query.created_before.is_none_or(|at| record.created < at)
            && query.created_after.is_none_or(|at| record.created > at)
    }

    /// As Docker: `publish` is a port of the host, `expose` one of the container, and either is enough.
    fn port_filters(&self, filters: &Filters, record: &Record) -> bool {
        if !filters.contains("publish") && !filters.contains("expose") {
            return true;
        }
        self.ports(record).iter().any(|port| {
            filters.get("publish").any(|wanted| port_matches(wanted, port.public_port, &port.r#type))
                || filters.get("expose").any(|wanted| port_matches(wanted, port.private_port, &port.r#type))
        })
    }

    fn summary(&self, container: &Container, record: &Record) -> ContainerSummary {
        let command = std::iter::once(&record.path).chain(&record.args).map(|w| quote(w)).collect::<Vec<_>>().join(" ");
        ContainerSummary {
            id: record.id.clone(),
            names: vec![format!("/{}", record.name)],
            image: self.image_name(record),
            image_id: record.image_id.clone(),
            command,
            created: record.created.timestamp(),
            ports: self.ports(record),
            labels: record.config.labels.clone().or_empty(),
            state: record.state.status().into(),
            status: status_text(container, record),
            host_config: SummaryHostConfig {
                network_mode: record.host_config.network_mode.clone(),
                ..Default::default()
            },
            network_settings: Some(SummaryNetworkSettings { networks: self.shown_networks(record) }),
            mounts: record.mounts.iter().filter(|m| m.listed).map(|m| m.to_point(&self.volumes)).collect(),
            ..ContainerSummary::default()
        }
    }

    /// The name it was made from, or the image's id when the name means another image now.
    fn image_name(&self, record: &Record) -> String {
        match self.images.resolve(&record.config.image) {
            Ok(id) if id.as_str() == record.image_id => record.config.image.clone(),
            _ => record.image_id.clone(),
        }
    }

    fn ports(&self, record: &Record) -> Vec<Port> {
        let mut ports = Vec::new();
        if record.state.running().is_none() {
            return ports;
        }
        let endpoints = self.networks.endpoints(&record.id);
        for binding in endpoints.iter().flat_map(|e| &e.ports) {
            ports.push(Port {
                ip: binding.host_ip.to_string(),
                private_port: binding.container_port,
                public_port: binding.host_port,
                r#type: binding.protocol.name().into(),
            });
        }
        for port in record.config.exposed_ports.keys() {
            if let Ok((number, protocol)) = super::network::parse_port(port)
                && !ports.iter().any(|p| p.private_port == number && p.r#type == protocol.name())
            {
                ports.push(Port { private_port: number, r#type: protocol.name().into(), ..Port::default() });
            }
        }
        ports
    }
}

/// A name that is asked for. As Docker: a regular expression found anywhere in it; the anchors are what people use.
enum Name<'a> {
    Pattern(regex::Regex),
    /// What is no pattern is text.
    Text(&'a str),
}

impl<'a> Name<'a> {
    fn new(wanted: &'a str) -> Self {
        // The pattern is a client's: keep its automaton small.
        match regex::RegexBuilder::new(wanted).size_limit(64 << 10).build() {
            Ok(pattern) => Self::Pattern(pattern),
            Err(_) => Self::Text(wanted.trim_start_matches('/')),
        }
    }

    fn is_of(&self, name: &str) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_match(name) || pattern.is_match(&format!("/{name}")),
            Self::Text(text) => name.contains(text),
        }
    }
}

fn mount_matches(mount: &MountPlan, wanted: &str) -> bool {
    mount.destination == wanted || mount.volume() == Some(wanted)
}

/// `80`, `80/tcp`, `80-90`, `80-90/udp`.
fn port_matches(wanted: &str, port: u16, protocol: &str) -> bool {
    let (range, wanted_protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) else { return false };
    (from..=to).contains(&port) && wanted_protocol == protocol
}

fn quote(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

/// `Up 2 minutes (healthy)`, `Exited (0) 3 hours ago`, …
fn status_text(container: &Container, record: &Record) -> String {
    let ago = |at: Option<DateTime<Utc>>| at.map(|at| human(Utc::now() - at)).unwrap_or_default();
    match &record.state {
        State::Created { .. } => "Created".into(),
        State::Running(r) if r.paused => format!("Up {} (Paused)", ago(Some(r.started_at))),
        State::Running(r) => match container.health.status() {
            "none" => format!("Up {}", ago(Some(r.started_at))),
            "starting" => format!("Up {} (health: starting)", ago(Some(r.started_at))),
            health => format!("Up {} ({health})", ago(Some(r.started_at))),
        },
        State::Restarting(e) => format!("Restarting ({}) {} ago", e.exit_code, ago(e.finished_at)),
        State::Exited(e) => format!("Exited ({}) {} ago", e.exit_code, ago(e.finished_at)),
        State::Removing(_) => "Removal In Progress".into(),
        State::Dead(_) => "Dead".into(),
    }
}

/// A duration as Docker says it.
pub fn human(duration: chrono::TimeDelta) -> String {
    let seconds = duration.num_seconds();
    let (minutes, hours) = (duration.num_minutes(), (duration.num_minutes() + 30) / 60);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", duration.num_hours() / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn durations_in_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3600, "About an hour"),
            (3 * 3600, "3 hours"),
            (72 * 3600, "3 days"),
        ] {
            assert_eq!(human(TimeDelta::seconds(seconds)), text);
        }
    }

    #[test]
    fn ports_and_names() {
        assert!(port_matches("80", 80, "tcp") && port_matches("70-90/tcp", 80, "tcp"));
        assert!(port_matches("53/udp", 53, "udp") && !port_matches("53", 53, "udp") && !port_matches("x", 0, "tcp"));
        for (wanted, is) in [("^web$", true), ("^/web", true), ("^eb", false), ("/we(", false), ("\\w{64}{64}", false)]
        {
            assert_eq!(Name::new(wanted).is_of("web"), is, "{wanted}");
        }
    }
}
