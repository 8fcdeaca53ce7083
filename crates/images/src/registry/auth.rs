//! Who we are to a registry: basic and bearer authentication, and `docker login`.

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;

use super::failure::{Failure, MAX_ERROR_BYTES};
use super::session::{Session, body, describe};
use super::{Credentials, Registry};
use crate::{Error, Result};

const MAX_TOKEN_BYTES: usize = 1 << 20;

/// The outcome of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// What to tell the user.
    pub status: String,
    /// A refresh token to keep instead of the password; empty if the registry gives none.
    pub identity_token: String,
}

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// What is sent along with requests.
#[derive(Default)]
pub(super) struct AuthState {
    header: Mutex<Option<String>>,
}

impl AuthState {
    pub(super) fn header(&self) -> Option<String> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, header: String) {
        *self.header.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
    }
}

impl Registry {
    /// Checks credentials against the registry `server` (a host, or a URL).
    pub async fn login(&self, server: &str, credentials: Credentials) -> Result<Login> {
        let host = server.split_once("://").map_or(server, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        let domain = if host.is_empty() || host == "index.docker.io" { super::DOCKER_DOMAIN } else { host };
        let session = Session::open(&self.options, domain, "", credentials, "").await?;
        let mut identity_token = String::new();
        if let Some(challenge) = session.challenge.clone() {
            identity_token = session.answer(&challenge, true).await?;
            let response = session.get_base().await?;
            if !response.status().is_success() {
                return Err(Error::Unauthorized(format!(
                    "login attempt to {} failed with status: {}",
                    session.url("")?,
                    response.status()
                )));
            }
        }
        Ok(Login { status: "Login Succeeded".into(), identity_token })
    }
}

impl Session {
    /// Gets what the challenge asks for and sends it from now on. Returns a refresh token if one was given.
    pub(super) async fn answer(&self, challenge: &Challenge, offline: bool) -> Result<String> {
        let credentials = &self.credentials;
        if !credentials.registry_token.is_empty() {
            self.auth.set(format!("Bearer {}", credentials.registry_token));
            return Ok(String::new());
        }
        match challenge {
            Challenge::Basic if credentials.username.is_empty() => {
                // Not "unauthorized": Docker answers 500 here, and at a 401 its CLI asks for a name and a password.
                Err(Error::Registry(format!("Get \"{}\": no basic auth credentials", self.url("")?)))
            }
            Challenge::Basic => {
                self.auth.set(basic(credentials));
                Ok(String::new())
            }
            Challenge::Bearer { realm, service, scope } => self.token(realm, service, scope, offline).await,
        }
    }

    async fn token(&self, realm: &str, service: &str, scope: &str, offline: bool) -> Result<String> {
        let credentials = &self.credentials;
        let mut url = Url::parse(realm).map_err(|_| Error::Registry(format!("invalid token realm {realm:?}")))?;
        let secret = !credentials.password.is_empty() || !credentials.identity_token.is_empty();
        if !matches!(url.scheme(), "http" | "https")
            || (secret && url.scheme() == "http" && self.base.scheme() == "https")
        {
            return Err(Error::Registry(format!("refusing to send credentials to the token service {realm:?}")));
        }
        let scope = if scope.is_empty() { self.scope() } else { scope.to_owned() };
        let request = if credentials.identity_token.is_empty() {
            {
                let mut query = url.query_pairs_mut();
                if !service.is_empty() {
                    query.append_pair("service", service);
                }
                if !scope.is_empty() {
                    query.append_pair("scope", &scope);
                }
                if offline {
                    query.append_pair("offline_token", "true").append_pair("client_id", "docker");
                }
                if !credentials.username.is_empty() {
                    query.append_pair("account", &credentials.username);
                }
            }
            let request = self.http.get(url.clone());
            if credentials.username.is_empty() { request } else { request.header("authorization", basic(credentials)) }
        } else {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .append_pair("service", service)
                .append_pair("client_id", "docker")
                .append_pair("refresh_token", &credentials.identity_token);
            if !scope.is_empty() {
                form.append_pair("scope", &scope);
            }
            self.http.post(url.clone()).header("content-type", "application/x-www-form-urlencoded").body(form.finish())
        };
        let response = request.send().await.map_err(|error| describe("Get", &url, &error))?;
        let status = response.status();
        if !status.is_success() {
            let failure = Failure::parse(status.as_u16(), &body(response, MAX_ERROR_BYTES).await.unwrap_or_default());
            let words = format!("Get \"{}\": {}", url, failure.words());
            return Err(match status.as_u16() {
                401 | 403 => Error::Unauthorized(words),
                _ => Error::Registry(words),
            });
        }
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
            #[serde(default)]
            refresh_token: String,
        }
        let token: Token = serde_json::from_slice(&body(response, MAX_TOKEN_BYTES).await?)
            .map_err(|error| Error::Registry(format!("unable to decode token response: {error}")))?;
        let bearer = if token.token.is_empty() { token.access_token } else { token.token };
        if bearer.is_empty() || bearer.contains(|c: char| c.is_control()) {
            return Err(Error::Registry("authorization server did not include a token in the response".into()));
        }
        self.auth.set(format!("Bearer {bearer}"));
        Ok(token.refresh_token)
    }
}

fn basic(credentials: &Credentials) -> String {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// The challenge of an answer that we can meet; bearer before basic, as Docker.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let mut bearer = (String::new(), String::new(), String::new());
            for (key, value) in parameters(rest) {
                match key.as_str() {
                    "realm" => bearer.0 = value,
                    "service" => bearer.1 = value,
                    "scope" => bearer.2 = value,
                    _ => {}
                }
            }
            return Some(Challenge::Bearer { realm: bearer.0, service: bearer.1, scope: bearer.2 });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

/// `key="quoted, value",key2=value2` (RFC 9110, authentication parameters).
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let rest = rest.trim_start();
        let (value, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, c)) = characters.next() {
                match c {
                    '\\' => value.extend(characters.next().map(|(_, c)| c)),
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    c => value.push(c),
                }
            }
            (value, &quoted[end..])
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].trim().to_owned(), &rest[end..])
        };
        found.push((key, value));
        text = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        assert_eq!(challenge(&headers), Some(Challenge::Basic));
        let bearer = r#"Bearer realm="https://a/t?x=1",service="s, \"q\"",scope="repository:a:pull,push",error=x"#;
        headers.append(WWW_AUTHENTICATE, bearer.parse().unwrap());
        let expected = Challenge::Bearer {
            realm: "https://a/t?x=1".into(),
            service: "s, \"q\"".into(),
            scope: "repository:a:pull,push".into(),
        };
        assert_eq!(challenge(&headers), Some(expected));
        for odd in ["", "=", "a=\"", "a=\\", ",,,=\"\\"] {
            parameters(odd);
        }
    }
}
