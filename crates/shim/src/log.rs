//! `shim-log.json`: what the shim has to say to whoever looks for the reason of a failure.
//!
//! Concatenated `{"level":…,"msg":…}` objects, one a line. The file is opened for each line, since a shim that is well
//! never writes one. It must never stop the shim: what cannot be written is lost.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

/// Where the lines go.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
}

impl Log {
    /// Lines go to the file `path`, which is made with the first of them.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Something that the shim goes on without.
    pub fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    /// Something that ends the shim or the container's start.
    pub fn error(&self, message: &str) {
        self.write("error", message);
    }

    fn write(&self, level: &str, message: &str) {
        let Ok(mut line) = serde_json::to_vec(&Line { level, msg: message }) else { return };
        line.push(b'\n');
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        let _ = file.and_then(|mut file| file.write_all(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_newlines_are_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim-log.json");
        let log = Log::new(path.clone());
        log.error("say \"no\"\nplease");
        log.warn("x");
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            text,
            "{\"level\":\"error\",\"msg\":\"say \\\"no\\\"\\nplease\"}\n{\"level\":\"warning\",\"msg\":\"x\"}\n"
        );
    }
}
