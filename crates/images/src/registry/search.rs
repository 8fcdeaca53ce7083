//! `docker search`: the first generation's search, which is the only one that registries have.

use serde::Deserialize;
use url::Url;

use super::session::{Endpoint, body, client, describe, endpoints_of};
use super::{DOCKER_DOMAIN, Registry};
use crate::{Error, Result};

/// Docker's own registry is searched elsewhere than it is pulled from.
const DOCKER_INDEX: &str = "index.docker.io";
/// A hundred results are far below this.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What it says about itself.
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default)]
    pub star_count: i64,
    /// Whether the registry's owners look after it.
    #[serde(default)]
    pub is_official: bool,
}

impl Registry {
    /// Searches the registry that `term` begins with (`host/word`), or Docker's own. At most `limit` results.
    pub async fn search(&self, term: &str, limit: usize) -> Result<Vec<SearchResult>> {
        if term.contains("://") {
            return Err(Error::Invalid(format!(
                "invalid repository name: repository name ({term}) should not have a scheme"
            )));
        }
        let (domain, word) = match term.split_once('/') {
            Some((host, word)) if host.contains(['.', ':']) || host == "localhost" => (host, word),
            _ => (DOCKER_DOMAIN, term),
        };
        // On Docker's own registry `library/` is left out of a name.
        let word = if domain == DOCKER_DOMAIN { word.strip_prefix("library/").unwrap_or(word) } else { word };
        let host = if domain == DOCKER_DOMAIN { DOCKER_INDEX } else { domain };
        let mut last = None;
        for endpoint in endpoints_of(&self.options, host) {
            match self.search_at(&endpoint, word, limit).await {
                Ok(found) => return Ok(found),
                // A registry that answered has had its say.
                Err(Failed::Answer(error)) => return Err(error),
                Err(Failed::Absent(error)) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Registry(format!("no address for {domain}"))))
    }

    async fn search_at(
        &self,
        endpoint: &Endpoint,
        word: &str,
        limit: usize,
    ) -> std::result::Result<Vec<SearchResult>, Failed> {
        let http = client(&self.options, endpoint).map_err(Failed::Answer)?;
        let base = format!("{}://{}/v1/search", endpoint.scheme, endpoint.host);
        let mut url = Url::parse(&base)
            .map_err(|_| Failed::Answer(Error::Invalid(format!("invalid registry host {:?}", endpoint.host))))?;
        url.query_pairs_mut().append_pair("q", word).append_pair("n", &limit.to_string());
        let response = http.get(url.clone()).header("X-Docker-Token", "true").send().await;
        let response = response.map_err(|error| Failed::Absent(describe("Get", &url, &error)))?;
        if !response.status().is_success() {
            return Err(Failed::Answer(Error::Registry(format!(
                "Unexpected status code {}",
                response.status().as_u16()
            ))));
        }
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            results: Option<Vec<SearchResult>>,
        }
        let data = body(response, MAX_ANSWER_BYTES).await.map_err(Failed::Answer)?;
        let answer: Answer = serde_json::from_slice(&data).map_err(|error| {
            Failed::Answer(Error::Registry(format!("error decoding registry search results: {error}")))
        })?;
        let mut results = answer.results.unwrap_or_default();
        results.truncate(limit);
        for result in &mut results {
            // What comes from outside ends up in terminals.
            result.name.retain(|c| !c.is_control());
            result.description.retain(|c| !c.is_control());
        }
        Ok(results)
    }
}

enum Failed {
    /// There is nobody at this address.
    Absent(Error),
    /// Somebody answered, badly.
    Answer(Error),
}
