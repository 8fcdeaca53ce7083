//! Pause, resume and new limits.

use std::sync::Arc;

use containerd_api::types::UpdateResource;
use serde_json::{Map, Value, json};

use super::Shared;
use super::container::Container;
use crate::error::Result;

/// Freezes or thaws the container.
pub async fn pause(shared: &Arc<Shared>, container: &Arc<Container>, freeze: bool) -> Result<()> {
    let what = if freeze { "pause" } else { "resume" };
    let _busy = shared.activity.begin(format!("{what} container {}", container.id()));
    let _changing = container.changing.lock().await;
    container.runtime.pause(container.id(), freeze).await
}

/// Gives the container new limits.
pub async fn resources(shared: &Arc<Shared>, container: &Arc<Container>, resources: &UpdateResource) -> Result<()> {
    let _busy = shared.activity.begin(format!("update container {}", container.id()));
    let _changing = container.changing.lock().await;
    container.runtime.update(container.id(), oci_resources(resources).to_string().as_bytes()).await
}

/// The OCI object. Zero and empty mean "leave it", and are left out: not every runtime reads a zero that way.
pub(super) fn oci_resources(r: &UpdateResource) -> Value {
    // Minus one travels as 2⁶⁴ − 1.
    let signed = |n: u64| (n != 0).then(|| Value::from(n as i64));
    let unsigned = |n: u64| (n != 0).then(|| Value::from(n));
    let text = |s: &str| (!s.is_empty()).then(|| Value::from(s));
    let section = |fields: Vec<(&str, Option<Value>)>| -> Map<String, Value> {
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    };
    let sections = [
        (
            "memory",
            section(vec![
                ("limit", signed(r.memory_limit)),
                ("reservation", signed(r.memory_reservation)),
                ("swap", signed(r.memory_swap)),
                ("kernel", signed(r.kernel_memory_limit)),
                ("kernelTCP", signed(r.kernel_tcp_memory_limit)),
            ]),
        ),
        (
            "cpu",
            section(vec![
                ("shares", unsigned(r.cpu_shares)),
                ("quota", signed(r.cpu_quota)),
                ("period", unsigned(r.cpu_period)),
                ("cpus", text(&r.cpuset_cpus)),
                ("mems", text(&r.cpuset_mems)),
            ]),
        ),
        ("blockIO", section(vec![("weight", unsigned(r.blkio_weight))])),
        ("pids", section(vec![("limit", signed(r.pids_limit))])),
    ];
    let mut out = json!({});
    for (name, fields) in sections.into_iter().filter(|(_, fields)| !fields.is_empty()) {
        out[name] = fields.into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_sent() {
        assert_eq!(oci_resources(&UpdateResource::default()), json!({}));
        let update = UpdateResource {
            memory_limit: 64 << 20,
            memory_swap: u64::MAX,
            cpuset_cpus: "0-1".into(),
            blkio_weight: 10,
            ..Default::default()
        };
        assert_eq!(
            oci_resources(&update),
            json!({"memory": {"limit": 67_108_864, "swap": -1}, "cpu": {"cpus": "0-1"}, "blockIO": {"weight": 10}})
        );
    }
}
