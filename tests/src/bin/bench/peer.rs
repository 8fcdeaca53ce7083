//! An engine behind its API socket, ours or another's.

use std::path::PathBuf;

use e2e::{Answer, Engine, request};
use serde_json::{Value, json};

const IMAGE: &str = "dormouse-bench";
/// By this label other engines' containers of ours are found again.
const LABEL: &str = "dormouse.bench";

/// An engine.
pub struct Peer {
    /// What it is called in the table.
    pub name: String,
    /// The folder that all its processes have on their command line; none for engines we did not start.
    pub home: Option<PathBuf>,
    socket: PathBuf,
}

impl Peer {
    pub fn ours(engine: &Engine) -> Self {
        Self { name: "dormouse".into(), home: Some(engine.home().to_path_buf()), socket: engine.socket() }
    }

    pub fn other(name: &str, socket: &str) -> Self {
        Self { name: name.into(), home: None, socket: socket.trim_start_matches("unix://").into() }
    }

    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer, String> {
        let text = body.map(|value| value.to_string()).unwrap_or_default();
        let headers: &[&str] = if text.is_empty() { &[] } else { &["Content-Type: application/json"] };
        let answer = request(&self.socket, method, path, headers, text.as_bytes());
        if answer.status < 400 {
            Ok(answer)
        } else {
            Err(format!("{method} {path}: {} {}", answer.status, answer.text().trim()))
        }
    }

    /// Imports the image.
    pub fn provide_image(&self) {
        let tar = std::fs::read(e2e::busybox_tar()).expect("read the image's tar");
        let path = format!("/images/create?fromSrc=-&repo={IMAGE}&tag=latest");
        let answer = request(&self.socket, "POST", &path, &["Content-Type: application/x-tar"], &tar);
        assert!(answer.status < 400, "{}: import: {}", self.name, answer.text());
    }

    pub fn create(&self, command: &[&str], network: &str) -> Result<String, String> {
        let body = json!({"Image": format!("{IMAGE}:latest"), "Cmd": command, "Labels": {LABEL: "1"},
            "Env": ["PATH=/bin"], "HostConfig": {"NetworkMode": network}});
        let answer = self.call("POST", "/containers/create", Some(body))?;
        answer.json()["Id"].as_str().map(str::to_owned).ok_or_else(|| "create gave no id".to_owned())
    }

    pub fn start(&self, id: &str) -> Result<(), String> {
        self.call("POST", &format!("/containers/{id}/start"), None).map(drop)
    }

    pub fn wait(&self, id: &str) -> Result<(), String> {
        self.call("POST", &format!("/containers/{id}/wait"), None).map(drop)
    }

    pub fn remove(&self, id: &str) -> Result<(), String> {
        self.call("DELETE", &format!("/containers/{id}?force=true"), None).map(drop)
    }

    pub fn run(&self, command: &[&str], network: &str) -> Result<String, String> {
        let id = self.create(command, network)?;
        self.start(&id)?;
        Ok(id)
    }

    pub fn exec(&self, id: &str, command: &[&str]) -> Result<(), String> {
        let body = json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true});
        let answer = self.call("POST", &format!("/containers/{id}/exec"), Some(body))?.json();
        let exec = answer["Id"].as_str().ok_or("exec gave no id")?;
        self.call("POST", &format!("/exec/{exec}/start"), Some(json!({"Detach": false, "Tty": false}))).map(drop)
    }

    pub fn checkpoint(&self, id: &str, name: &str) -> Result<(), String> {
        let body = json!({"CheckpointID": name, "Exit": true});
        self.call("POST", &format!("/containers/{id}/checkpoints"), Some(body)).map(drop)
    }

    pub fn wake(&self, id: &str, name: &str) -> Result<(), String> {
        self.call("POST", &format!("/containers/{id}/start?checkpoint={name}"), None).map(drop)
    }

    pub fn list(&self) -> Result<(), String> {
        self.call("GET", "/containers/json", None).map(drop)
    }

    /// Removes the containers and the image that were made here.
    pub fn remove_everything(&self) {
        let filter = format!("%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
        let list = self.call("GET", &format!("/containers/json?all=1&filters={filter}"), None);
        for container in list.map(|answer| answer.json()).iter().flat_map(|list| list.as_array()).flatten() {
            if let Some(id) = container["Id"].as_str() {
                let _ = self.remove(id);
            }
        }
        let _ = self.call("DELETE", &format!("/images/{IMAGE}:latest"), None);
    }
}
