//! Round trips, and the corners of Go's JSON.

use serde_json::{Value, json};

use super::*;

fn round_trip<T>(value: &Value) -> Value
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let read: T = serde_json::from_value(value.clone()).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    let again: T = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(read, again);
    written
}

#[test]
fn null_and_missing_are_defaults_and_unknown_is_ignored() {
    let request: ContainerCreateRequest = serde_json::from_value(json!({
        "Image": "busybox", "Cmd": "true", "Hostname": null, "Env": null, "Labels": {"a": null}, "NoSuchField": [1],
        "HostConfig": {"Memory": null, "Binds": [], "PortBindings": {"80/tcp": null}, "ConsoleSize": null, "LogConfig": null},
        "NetworkingConfig": {"EndpointsConfig": {"bridge": null}},
    }))
    .unwrap();
    assert_eq!(request.config.image, "busybox");
    assert_eq!(request.config.cmd.as_slice(), ["true"]);
    assert!(request.config.env.is_null());
    assert_eq!(request.config.labels["a"], "");
    let host_config = request.host_config.unwrap();
    assert!(!host_config.binds.is_null() && host_config.binds.is_empty());
    assert!(host_config.port_bindings["80/tcp"].is_null());
    assert_eq!(host_config.resources.memory, 0);
    assert!(request.networking_config.unwrap().endpoints_config.contains_key("bridge"));
}

#[test]
fn host_config_keeps_null_apart_from_empty() {
    let written =
        round_trip::<HostConfig>(&json!({"Dns": [], "Binds": null, "Memory": 5, "PidsLimit": 7, "Init": true}));
    assert_eq!(written["Dns"], json!([]));
    assert_eq!(written["Binds"], Value::Null);
    assert_eq!(written["Memory"], 5);
    assert_eq!(written["PidsLimit"], 7);
    assert_eq!(written["OomKillDisable"], Value::Null);
    assert_eq!(written["ConsoleSize"], json!([0, 0]));
    assert_eq!(written["UTSMode"], "");
    assert_eq!(written["IOMaximumIOps"], 0);
    assert!(written.get("Sysctls").is_none() && written.get("Mounts").is_none());
}

#[test]
fn config_has_dockers_fields() {
    let written = round_trip::<ContainerConfig>(&json!({}));
    let mut names: Vec<_> = written.as_object().unwrap().keys().cloned().collect();
    names.sort();
    let mut expected = [
        "Hostname",
        "Domainname",
        "User",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "Env",
        "Cmd",
        "Image",
        "Volumes",
        "WorkingDir",
        "Entrypoint",
        "OnBuild",
        "Labels",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn wrong_types_are_refused() {
    assert!(serde_json::from_value::<ContainerCreateRequest>(json!({"Cmd": 5})).is_err());
    assert!(serde_json::from_value::<HostConfig>(json!({"Memory": "5"})).is_err());
    assert!(serde_json::from_value::<ContainerCreateRequest>(json!({"HostConfig": {"Memory": "5"}})).is_err());
    assert!(serde_json::from_value::<ContainerCreateRequest>(json!({"Env": [5]})).is_err());
    assert!(serde_json::from_value::<HostConfig>(json!({"Binds": "a:b"})).is_err());
}

#[test]
fn times_are_written_as_go_does() {
    assert_eq!(Timestamp::default().to_string(), "0001-01-01T00:00:00Z");
    assert_eq!(Timestamp::from_unix_seconds(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
    assert_eq!(Timestamp::from_unix_nanos(1_700_000_000_120_000_000).to_string(), "2023-11-14T22:13:20.12Z");
    let parsed = Timestamp::parse("2023-11-14T23:13:20.000000001+01:00").unwrap();
    assert_eq!(parsed.unix_nanos(), 1_700_000_000_000_000_001);
    assert_eq!(parsed.to_string(), "2023-11-14T22:13:20.000000001Z");
    assert!(serde_json::from_value::<Timestamp>(json!("")).unwrap().is_zero());
    assert!(serde_json::from_value::<Timestamp>(json!("yesterday")).is_err());
}

#[test]
fn progress_is_lean() {
    let progress = Progress {
        status: "Downloading".into(),
        id: "abc".into(),
        progress_detail: Some(ProgressDetail { current: 1, total: 2, ..Default::default() }),
        ..Default::default()
    };
    let text = serde_json::to_string(&progress).unwrap();
    assert_eq!(text, r#"{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"abc"}"#);
}

#[test]
fn events_and_stats_are_named_as_docker_names_them() {
    let event = EventMessage {
        r#type: "container".into(),
        action: "start".into(),
        actor: EventActor { id: "x".into(), attributes: Map::empty() },
        time_nano: 5,
        ..Default::default()
    };
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(text, r#"{"Type":"container","Action":"start","Actor":{"ID":"x","Attributes":{}},"timeNano":5}"#);
    let stats = serde_json::to_value(ContainerStats::default()).unwrap();
    assert_eq!(stats["cpu_stats"]["cpu_usage"]["total_usage"], 0);
    assert_eq!(stats["preread"], "0001-01-01T00:00:00Z");
}
