//! runc with CRIU and no engine: what an engine above them cannot beat without replacing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hold;
use crate::sleep::Sleeper;

/// A bundle, and runc's own state, in a folder that goes away at the end.
pub struct Direct {
    folder: tempfile::TempDir,
}

impl Direct {
    /// Unpacks the image and writes a configuration; an error if there is no runc.
    pub fn prepare() -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("dormouse-bench").tempdir_in("/var/tmp").map_err(text)?;
        let direct = Self { folder };
        fs::create_dir_all(direct.rootfs()).map_err(text)?;
        tar::Archive::new(hold::image_tar().as_slice()).unpack(direct.rootfs()).map_err(text)?;
        direct.runc(&["--version"])?;
        Ok(direct)
    }

    fn rootfs(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    fn bundle(&self, id: &str) -> PathBuf {
        self.folder.path().join(id)
    }

    /// runc with a root of its own.
    fn runc(&self, args: &[&str]) -> Result<(), String> {
        let log = fs::File::create(self.folder.path().join("runc.log")).map_err(text)?;
        let status = Command::new("runc")
            .arg("--root")
            .arg(self.folder.path().join("state"))
            .args(args)
            .env("PATH", e2e::search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .map_err(|error| format!("runc: {error}"))?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(self.folder.path().join("runc.log")).unwrap_or_default();
        Err(format!("runc {}: {}", args.join(" "), log.lines().last().unwrap_or_default()))
    }

    fn write_bundle(&self, id: &str, mebibytes: u64, port: u16) -> Result<PathBuf, String> {
        let bundle = self.bundle(id);
        fs::create_dir_all(&bundle).map_err(text)?;
        if !bundle.join("config.json").exists() {
            let status = Command::new("runc").arg("spec").current_dir(&bundle).env("PATH", e2e::search_path()).status();
            if !status.is_ok_and(|status| status.success()) {
                return Err("runc spec failed".to_owned());
            }
        }
        let path = bundle.join("config.json");
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(&path).map_err(text)?).map_err(|error| error.to_string())?;
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["/bin/hold", mebibytes.to_string(), port.to_string()]);
        config["root"] = json!({"path": self.rootfs(), "readonly": true});
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| port == 0 || namespace["type"] != "network");
        }
        fs::write(&path, config.to_string()).map_err(text)?;
        Ok(bundle)
    }

    fn restore(&self, id: &str, bundle: &Path, images: &Path) -> Result<(), String> {
        let (bundle, images) = (bundle.to_string_lossy(), images.to_string_lossy());
        let mut args = vec!["restore", "--detach", "--bundle", &bundle, "--image-path", &images];
        args.extend(["--manage-cgroups-mode", "ignore", id]);
        self.runc(&args)
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

impl Sleeper for Direct {
    fn name(&self) -> &str {
        "runc + CRIU"
    }

    fn hold(&self, mebibytes: u64, port: u16) -> Result<String, String> {
        let id = format!("bench{port}");
        let bundle = self.write_bundle(&id, mebibytes, port)?;
        self.runc(&["run", "--detach", "--bundle", &bundle.to_string_lossy(), &id])?;
        Ok(id)
    }

    fn checkpoint(&self, id: &str, name: &str, leave_running: bool) -> Result<(), String> {
        let images = self.bundle(id).join(name);
        let images = images.to_string_lossy();
        let mut args = vec!["checkpoint", "--image-path", &images, "--manage-cgroups-mode", "ignore"];
        args.extend(leave_running.then_some("--leave-running"));
        args.push(id);
        self.runc(&args)
    }

    fn wake(&self, id: &str, name: &str) -> Result<(), String> {
        // A container that was checkpointed away may still be listed.
        let _ = self.runc(&["delete", "--force", id]);
        let bundle = self.bundle(id);
        self.restore(id, &bundle, &bundle.join(name))
    }

    fn remove_checkpoint(&self, id: &str, name: &str) -> Result<(), String> {
        fs::remove_dir_all(self.bundle(id).join(name)).map_err(text)
    }

    fn files(&self, id: &str, name: &str) -> Option<PathBuf> {
        Some(self.bundle(id).join(name))
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        self.runc(&["delete", "--force", id])?;
        fs::remove_dir_all(self.bundle(id)).map_err(text)
    }

    fn clones(&self, id: &str, count: usize) -> Result<Duration, String> {
        self.checkpoint(id, "seed", false)?;
        let _ = self.runc(&["delete", "--force", id]);
        let bundle = self.bundle(id);
        let images = bundle.join("seed");
        let names: Vec<String> = (0..count).map(|n| format!("clone{n}")).collect();
        let began = Instant::now();
        let made = names.iter().try_for_each(|name| self.restore(name, &bundle, &images));
        let took = began.elapsed();
        for name in &names {
            let _ = self.runc(&["delete", "--force", name]);
        }
        made.map(|()| took)
    }
}
