//! What a registry says when it says no, and what that is in Docker's words.

use serde::Deserialize;

use crate::{Error, Reference};

/// Registries' error documents are short; the rest of a long one is not read.
pub(super) const MAX_ERROR_BYTES: usize = 64 << 10;

/// The first of a registry's errors, or an answer that is none of its errors.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// Upper case with underscores; empty when the answer was no error document.
    pub(super) code: String,
    pub(super) message: String,
    pub(super) status: u16,
}

impl Failure {
    /// Reads an error answer's body.
    pub(super) fn parse(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            errors: Vec<Item>,
            #[serde(default)]
            details: Option<String>,
        }
        #[derive(Deserialize)]
        struct Item {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let document: Option<Document> = serde_json::from_slice(body).ok();
        let (mut item, details) = match document {
            Some(document) => (document.errors.into_iter().next(), document.details),
            None => (None, None),
        };
        if item.is_none() && status == 401 {
            item = Some(Item { code: "UNAUTHORIZED".into(), message: details.unwrap_or_default() });
        }
        // What comes from outside ends up in logs and terminals.
        let plain = |text: String, most: usize| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
        let (code, message) = item.map(|item| (item.code, item.message)).unwrap_or_default();
        let (code, mut message) = (plain(code, 100), plain(message, 2000));
        if message.is_empty() {
            message = default_message(&code).into();
        }
        Self { code, message, status }
    }

    /// `manifest unknown: manifest unknown`, as Docker spells a registry's error.
    pub(super) fn words(&self) -> String {
        if self.code.is_empty() {
            return format!("received unexpected HTTP status: {}", self.status);
        }
        format!("{}: {}", self.code.to_lowercase().replace('_', " "), self.message)
    }

    /// Whether asking again may help.
    pub(super) fn is_temporary(&self) -> bool {
        self.status >= 500 || self.status == 408 || self.status == 429
    }

    /// As the error of a pull of `reference`.
    pub(super) fn of_pull(&self, reference: &Reference) -> Error {
        let words = self.words();
        match self.code.as_str() {
            "DENIED" => Error::NotFound(format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': {words}",
                reference.familiar_name()
            )),
            "MANIFEST_UNKNOWN" => Error::NotFound(format!("manifest for {} not found: {words}", reference.familiar())),
            "NAME_UNKNOWN" => Error::NotFound(format!("repository {} not found: {words}", reference.familiar_name())),
            _ if self.status == 404 => {
                Error::NotFound(format!("manifest for {} not found: {words}", reference.familiar()))
            }
            _ => self.error(),
        }
    }

    /// As the error of anything else.
    pub(super) fn error(&self) -> Error {
        match (self.code.as_str(), self.status) {
            ("UNAUTHORIZED", _) | (_, 401) => Error::Unauthorized(self.words()),
            ("DENIED", _) => Error::Forbidden(self.words()),
            _ => Error::Registry(self.words()),
        }
    }
}

fn default_message(code: &str) -> &'static str {
    match code {
        "UNAUTHORIZED" => "authentication required",
        "DENIED" => "requested access to the resource is denied",
        "MANIFEST_UNKNOWN" => "manifest unknown",
        "NAME_UNKNOWN" => "repository name not known to registry",
        "BLOB_UNKNOWN" => "blob unknown to registry",
        "TOOMANYREQUESTS" => "too many requests",
        "UNSUPPORTED" => "The operation is unsupported.",
        _ => "unknown error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_does_not_write_to_the_terminal() {
        let body = r#"{"errors":[{"code":"A\u001b[31mB","message":"x\u001b[2Jy\n"}]}"#;
        assert_eq!(Failure::parse(404, body.as_bytes()).words(), "a[31mb: x[2Jy");
    }
}
