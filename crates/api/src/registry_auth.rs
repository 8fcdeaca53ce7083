//! Registry credentials as clients send them. They are secrets: nothing here is logged or shown.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use serde::Deserialize;

use crate::backend::RegistryAuth;
use crate::error::{Error, Result};

/// The longest header that is looked at, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// URL-safe base64, padded or not.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    username: Option<String>,
    password: Option<String>,
    /// `user:password` in base64, instead of the two.
    auth: Option<String>,
    #[serde(rename = "serveraddress")]
    server_address: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(rename = "registrytoken")]
    registry_token: Option<String>,
}

/// The header `X-Registry-Auth`: base64 of a JSON object. `None` when it carries no credentials.
pub(crate) fn decode(header: &[u8]) -> Result<Option<RegistryAuth>> {
    if header.len() > MAX_BYTES {
        return Err(Error::invalid("invalid X-Registry-Auth header: too long"));
    }
    if header.is_empty() {
        return Ok(None);
    }
    let json = URL_SAFE
        .decode(header)
        .or_else(|_| STANDARD.decode(header))
        .map_err(|error| Error::invalid(format!("invalid X-Registry-Auth header: {error}")))?;
    from_json(&json)
}

/// The body of `POST /auth`.
pub(crate) fn from_json(json: &[u8]) -> Result<Option<RegistryAuth>> {
    // The parser's message may quote the input; it stays here.
    let config: Option<AuthConfig> = serde_json::from_slice(json)
        .map_err(|_| Error::invalid("invalid X-Registry-Auth header: not the JSON of an auth config"))?;
    let config = config.unwrap_or_default();
    let mut auth = RegistryAuth {
        username: config.username.unwrap_or_default(),
        password: config.password.unwrap_or_default(),
        identity_token: config.identity_token.unwrap_or_default(),
        registry_token: config.registry_token.unwrap_or_default(),
        server_address: config.server_address.unwrap_or_default(),
    };
    if auth.username.is_empty() {
        if let Some((username, password)) = config.auth.as_deref().and_then(split_basic) {
            (auth.username, auth.password) = (username, password);
        }
    }
    let carries_none =
        [&auth.username, &auth.password, &auth.identity_token, &auth.registry_token, &auth.server_address]
            .iter()
            .all(|field| field.is_empty());
    Ok((!carries_none).then_some(auth))
}

fn split_basic(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Vec<u8> {
        URL_SAFE.encode(json).into_bytes()
    }

    #[test]
    fn credentials_are_read() {
        let auth = decode(&header(r#"{"username":"u","password":"p\u00ff?>","serveraddress":"r"}"#)).unwrap().unwrap();
        assert_eq!(
            (auth.username.as_str(), auth.password.as_str(), auth.server_address.as_str()),
            ("u", "p\u{ff}?>", "r")
        );
        let auth = decode(&header(r#"{"auth":"dTpwOnE="}"#)).unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p:q"));
        let unpadded = header(r#"{"username":"uu"}"#).into_iter().filter(|byte| *byte != b'=').collect::<Vec<_>>();
        assert_eq!(decode(&unpadded).unwrap().unwrap().username, "uu");
    }

    #[test]
    fn nothing_is_none() {
        for json in ["{}", "null", r#"{"username":null}"#] {
            assert!(decode(&header(json)).unwrap().is_none(), "{json}");
        }
        assert!(decode(b"").unwrap().is_none());
    }

    #[test]
    fn garbage_is_refused_without_being_repeated() {
        for value in [&b"%%%"[..], b"aGFsbG8=", &vec![b'a'; MAX_BYTES + 1]] {
            assert!(decode(value).is_err());
        }
        let Err(error) = decode(&header(r#"{"username":"u","password":{"secret":1}}"#)) else { panic!() };
        assert!(!error.message.contains("secret"));
    }
}
