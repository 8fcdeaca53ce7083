//! One repository at one registry: which of its addresses answers, and requests with authentication.

use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::auth::{AuthState, Challenge, challenge};
use super::failure::{Failure, MAX_ERROR_BYTES};
use super::{Credentials, DOCKER_DOMAIN, DOCKER_HOST, RegistryOptions, tls};
use crate::{Error, Result};

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that gives nothing for so long is a broken connection.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// One repository at one registry.
pub(super) struct Session {
    pub(super) http: Client,
    /// `https://host/v2/`.
    pub(super) base: Url,
    pub(super) repository: String,
    pub(super) credentials: Credentials,
    pub(super) challenge: Option<Challenge>,
    pub(super) auth: AuthState,
    actions: &'static str,
}

/// One address of a registry.
pub(super) struct Endpoint {
    pub(super) scheme: &'static str,
    pub(super) host: String,
    unverified: bool,
    prefix: String,
}

impl Session {
    /// Finds the address at which the registry of `domain` answers. `actions` is `pull` or `pull,push`.
    pub(super) async fn open(
        options: &RegistryOptions,
        domain: &str,
        repository: &str,
        credentials: Credentials,
        actions: &'static str,
    ) -> Result<Self> {
        let mut last = None;
        for endpoint in endpoints(options, domain) {
            match Self::open_at(options, &endpoint, repository, credentials.clone(), actions).await {
                Ok(session) => return Ok(session),
                Err(error) => {
                    tracing::debug!(host = endpoint.host, scheme = endpoint.scheme, %error, "no registry here");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::Registry(format!("no address for {domain}"))))
    }

    /// The mirrors of a registry, as sessions that are opened one after the other.
    pub(super) async fn open_mirror(options: &RegistryOptions, mirror: &str, repository: &str) -> Result<Self> {
        let url = Url::parse(mirror).map_err(|_| Error::Invalid(format!("invalid mirror {mirror:?}")))?;
        let host = authority(&url).ok_or_else(|| Error::Invalid(format!("invalid mirror {mirror:?}")))?;
        let insecure = is_insecure(options, &host);
        let endpoint = Endpoint {
            scheme: if url.scheme() == "http" { "http" } else { "https" },
            unverified: insecure,
            prefix: url.path().trim_end_matches('/').to_owned(),
            host,
        };
        Self::open_at(options, &endpoint, repository, Credentials::default(), "pull").await
    }

    async fn open_at(
        options: &RegistryOptions,
        endpoint: &Endpoint,
        repository: &str,
        credentials: Credentials,
        actions: &'static str,
    ) -> Result<Self> {
        let http = client(options, endpoint)?;
        let base = format!("{}://{}{}/v2/", endpoint.scheme, endpoint.host, endpoint.prefix);
        let base =
            Url::parse(&base).map_err(|_| Error::Invalid(format!("invalid registry host {:?}", endpoint.host)))?;
        let mut session = Self {
            http,
            base,
            repository: repository.to_owned(),
            credentials,
            challenge: None,
            auth: AuthState::default(),
            actions,
        };
        let response = session.get_base().await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => session.challenge = challenge(response.headers()),
            status if status.is_success() => {}
            status => {
                return Err(Error::Registry(format!(
                    "Get \"{}\": received unexpected HTTP status: {status}",
                    session.base
                )));
            }
        }
        Ok(session)
    }

    pub(super) async fn get_base(&self) -> Result<Response> {
        let mut request = self.http.get(self.base.clone());
        if let Some(header) = self.auth.header() {
            request = request.header("authorization", header);
        }
        request.send().await.map_err(|error| describe("Get", &self.base, &error))
    }

    /// The address of something in the repository, such as `manifests/latest`; empty is the registry itself.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        let relative = match path {
            "" => String::new(),
            path => format!("{}/{path}", self.repository),
        };
        self.base.join(&relative).map_err(|_| Error::Invalid(format!("invalid registry path {path:?}")))
    }

    /// What a token has to be good for.
    pub(super) fn scope(&self) -> String {
        match self.actions {
            "" => String::new(),
            actions => format!("repository:{}:{actions}", self.repository),
        }
    }

    /// Sends a request whose body can be sent again, with authentication; answers with an error status are errors.
    pub(super) async fn request(
        &self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, String)],
        data: Option<&[u8]>,
    ) -> Outcome {
        let body = || data.map(|data| reqwest::Body::from(data.to_vec()));
        self.request_with(method, url, headers, body).await
    }

    /// As [`Session::request`], with a body made anew for each try.
    pub(super) async fn request_with(
        &self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, String)],
        body: impl Fn() -> Option<reqwest::Body>,
    ) -> Outcome {
        if self.auth.header().is_none() {
            if let Some(challenge) = &self.challenge {
                self.answer(challenge, false).await?;
            }
        }
        let mut tried_again = false;
        loop {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let value =
                    HeaderValue::from_str(value).map_err(|_| Error::Invalid(format!("invalid {name} header")))?;
                map.append(name.clone(), value);
            }
            let mut request = self.http.request(method.clone(), url.clone()).headers(map);
            // Credentials are for the registry, not for whatever storage it sends us to.
            if let Some(header) = self.auth.header().filter(|_| url.origin() == self.base.origin()) {
                request = request.header("authorization", header);
            }
            if let Some(body) = body() {
                request = request.body(body);
            }
            let response = request.send().await.map_err(|error| describe(verb(&method), url, &error))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            // A token may have run out, or be for too little.
            if status == StatusCode::UNAUTHORIZED && !tried_again {
                if let Some(challenge @ Challenge::Bearer { .. }) = challenge(response.headers()) {
                    tried_again = true;
                    self.answer(&challenge, false).await?;
                    continue;
                }
            }
            let body = super::session::body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
            return Err(RequestError::Refused(Failure::parse(status.as_u16(), &body)));
        }
    }
}

/// An answer, or why there is none.
pub(super) type Outcome = std::result::Result<Response, RequestError>;

/// Why a request has no answer.
pub(super) enum RequestError {
    /// The registry said no.
    Refused(Failure),
    /// It did not come to that.
    Failed(Error),
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(failure) => failure.error(),
            RequestError::Failed(error) => error,
        }
    }
}

/// A body of at most `limit` bytes.
pub(super) async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>> {
    let url = response.url().clone();
    let too_large = || Error::TooLarge(format!("Get \"{url}\": the answer is larger than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut data = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe("Get", &url, &error))? {
        if data.len() + chunk.len() > limit {
            return Err(too_large());
        }
        data.extend_from_slice(&chunk);
    }
    Ok(data.to_vec())
}

/// A failed request in the form Go gives it, with the cause at the bottom of it.
pub(super) fn describe(verb: &str, url: &Url, error: &reqwest::Error) -> Error {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let refused = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
    if cause.downcast_ref::<std::io::Error>().is_some_and(refused) {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        return Error::Registry(format!("{verb} \"{url}\": dial tcp {host}:{port}: connect: connection refused"));
    }
    if let Some(words) = tls_error(cause).and_then(tls_words) {
        return Error::Registry(format!("{verb} \"{url}\": {words}"));
    }
    Error::Registry(format!("{verb} \"{url}\": {cause}"))
}

/// The TLS error that this is, or that an I/O error was made of: such are not called sources.
fn tls_error<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    while let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        error = inner;
    }
    error.downcast_ref()
}

/// What Go says of the failures of TLS that people search the web for.
fn tls_words(error: &rustls::Error) -> Option<&'static str> {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
    match error {
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            Some("http: server gave HTTP response to HTTPS client")
        }
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            Some("tls: failed to verify certificate: x509: certificate signed by unknown authority")
        }
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => Some("tls: failed to verify certificate: x509: certificate has expired or is not yet valid"),
        _ => None,
    }
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "HEAD" => "Head",
        "POST" => "Post",
        "PUT" => "Put",
        "PATCH" => "Patch",
        _ => "Get",
    }
}

/// An HTTP client for one address of a registry.
pub(super) fn client(options: &RegistryOptions, endpoint: &Endpoint) -> Result<Client> {
    client_for(options, &endpoint.host, endpoint.unverified)
}

/// An HTTP client for `host` (with its port), whose certificate may be `unverified`.
pub(super) fn client_for(options: &RegistryOptions, host: &str, unverified: bool) -> Result<Client> {
    let mut client = Client::builder()
        .user_agent(&options.user_agent)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirects(unverified))
        .use_preconfigured_tls(tls::config(&options.certs_dir, host, unverified)?);
    if is_loopback(host) {
        client = client.no_proxy();
    }
    client.build().map_err(|error| Error::Registry(format!("HTTP client: {error}")))
}

fn redirects(insecure: bool) -> Policy {
    Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error(format!("stopped after {MAX_REDIRECTS} redirects"));
        }
        let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if from_tls && attempt.url().scheme() != "https" && !insecure {
            return attempt.error("refusing a redirect from https to http");
        }
        attempt.follow()
    })
}

fn endpoints(options: &RegistryOptions, domain: &str) -> Vec<Endpoint> {
    endpoints_of(options, if domain == DOCKER_DOMAIN { DOCKER_HOST } else { domain })
}

/// The addresses at which a registry's host is looked for, in this order.
pub(super) fn endpoints_of(options: &RegistryOptions, host: &str) -> Vec<Endpoint> {
    let insecure = is_insecure(options, host);
    let at = |scheme| Endpoint { scheme, host: host.to_owned(), unverified: insecure, prefix: String::new() };
    if insecure { vec![at("https"), at("http")] } else { vec![at("https")] }
}

pub(super) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_insecure(options: &RegistryOptions, authority: &str) -> bool {
    let host = host_of(authority);
    let address = host.parse::<IpAddr>().ok();
    is_loopback(authority)
        || options.insecure.iter().any(|entry| {
            entry == authority || entry == host || address.is_some_and(|address| in_network(entry, address))
        })
}

fn in_network(network: &str, address: IpAddr) -> bool {
    let Some((base, length)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) if length <= 32 => {
            u32::MAX.checked_shl(32 - length).unwrap_or(0) & (u32::from(base) ^ u32::from(address)) == 0
        }
        (IpAddr::V6(base), IpAddr::V6(address)) if length <= 128 => {
            u128::MAX.checked_shl(128 - length).unwrap_or(0) & (u128::from(base) ^ u128::from(address)) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_what_is_listed_may_be_insecure() {
        let insecure = ["10.1.0.0/16", "r.example:5000", "plain.example"].map(str::to_owned).to_vec();
        let options = RegistryOptions { insecure, ..RegistryOptions::default() };
        for host in [
            "127.0.0.1:5000",
            "127.9.9.9",
            "localhost:1",
            "[::1]:5000",
            "10.1.2.3",
            "r.example:5000",
            "plain.example:9",
        ] {
            assert!(is_insecure(&options, host), "{host}");
        }
        for host in ["10.2.0.1", "r.example", "localhost.example", "127.example", "docker.io"] {
            assert!(!is_insecure(&options, host), "{host}");
        }
        assert!(in_network("0.0.0.0/0", "9.9.9.9".parse().unwrap()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_certificate_counts_only_if_it_is_known() {
        let certs = tempfile::tempdir().unwrap();
        let make = |dir: &str| {
            let out = std::process::Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    "2",
                ])
                .args(["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
                .arg(format!("{dir}/key.pem"))
                .arg("-out")
                .arg(format!("{dir}/cert.pem"))
                .output();
            out.is_ok_and(|out| out.status.success())
        };
        if !make(certs.path().to_str().unwrap()) {
            eprintln!("openssl is not installed: this test did nothing");
            return;
        }
        let from = certs.path().to_owned();
        let tls = move |root: &str| {
            for name in ["cert.pem", "key.pem"] {
                std::fs::copy(from.join(name), format!("{root}/{name}")).unwrap();
            }
            format!("  tls:\n    certificate: {root}/cert.pem\n    key: {root}/key.pem\n")
        };
        let Some(server) = super::super::tests::DebianRegistry::start_with(tls) else { return };
        let options = RegistryOptions { certs_dir: certs.path().join("certs.d"), ..RegistryOptions::default() };
        let open = async |unverified| {
            let endpoint = Endpoint { scheme: "https", host: server.host.clone(), unverified, prefix: String::new() };
            Session::open_at(&options, &endpoint, "x", Credentials::default(), "pull").await.map(drop)
        };
        let error = open(false).await.unwrap_err();
        assert!(error.to_string().contains("UnknownIssuer") || error.to_string().contains("certificate"), "{error}");
        open(true).await.unwrap();
        let host_dir = options.certs_dir.join(&server.host);
        std::fs::create_dir_all(&host_dir).unwrap();
        std::fs::copy(certs.path().join("cert.pem"), host_dir.join("ca.crt")).unwrap();
        open(false).await.unwrap();
        // The right certificate under another name is not the right one.
        let elsewhere = server.host.replace("127.0.0.1", "localhost");
        let other = Endpoint { scheme: "https", host: elsewhere.clone(), unverified: false, prefix: String::new() };
        std::fs::create_dir_all(options.certs_dir.join(&elsewhere)).unwrap();
        std::fs::copy(certs.path().join("cert.pem"), options.certs_dir.join(&elsewhere).join("ca.crt")).unwrap();
        let error =
            Session::open_at(&options, &other, "x", Credentials::default(), "pull").await.map(drop).unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
        std::fs::copy(certs.path().join("cert.pem"), host_dir.join("client.cert")).unwrap();
        assert!(open(false).await.unwrap_err().to_string().contains("missing key client.key"));
    }
}
