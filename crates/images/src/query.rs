//! Finding, listing and describing images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::containers::GraphDriver;
use crate::reference::AnyReference;
use crate::shared::{Image, State};
use crate::{Digest, Error, ImageConfig, Images, Reference, Result};

/// One image in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSummary {
    /// Its id.
    pub id: Digest,
    /// The image it was made from here, if any.
    pub parent: Option<Digest>,
    /// `name:tag`, as people write them.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// Seconds since the epoch; 0 when it does not say.
    pub created: i64,
    /// Bytes of all its layers' files.
    pub size: u64,
    /// Bytes of the layers it shares with other images; `None` when not asked for.
    pub shared_size: Option<u64>,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Everything about an image.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// Its id.
    pub id: Digest,
    /// The image it was made from here, if any.
    pub parent: Option<Digest>,
    /// `name:tag`, as people write them.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// What it says about itself.
    pub config: ImageConfig,
    /// Bytes of that, as stored.
    pub config_bytes: u64,
    /// Bytes of all its layers' files.
    pub size: u64,
    /// Where its layers are; `None` when it has none.
    pub graph_driver: Option<GraphDriver>,
    /// When a name was last pointed to it, nanoseconds since the epoch.
    pub last_tagged_ns: Option<i64>,
}

/// One step of an image's history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The image's id, or `<missing>`.
    pub id: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// The comment.
    pub comment: String,
    /// Bytes of the layer's files.
    pub size: u64,
    /// Names of the image.
    pub tags: Vec<String>,
}

/// Which images to list. Everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Also images without a name that others were made from.
    pub all: bool,
    /// Only those without (`true`) or with (`false`) a tag.
    pub dangling: Option<bool>,
    /// `key` or `key=value`.
    pub labels: Vec<String>,
    /// `key` or `key=value` it must not have.
    pub without_labels: Vec<String>,
    /// Patterns as Docker's: `*`, `?` and `[…]` within path components.
    pub references: Vec<String>,
    /// Names or ids of images it must be older than.
    pub before: Vec<String>,
    /// Names or ids of images it must be newer than.
    pub since: Vec<String>,
    /// Created before this, nanoseconds since the epoch.
    pub until_ns: Option<i128>,
    /// Compute shared sizes.
    pub shared_size: bool,
}

/// What images cost on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// Bytes of the files of all layers of images, each layer once.
    pub layers_bytes: u64,
    /// Bytes of the compressed blobs kept for save and push.
    pub blobs_bytes: u64,
}

impl Images {
    /// Finds an image by name, id or the beginning of its id.
    pub fn resolve(&self, name: &str) -> Result<Digest> {
        Ok(self.shared.state().find(name)?.id.clone())
    }

    /// The name an image is filed under when `name` is one (not an id): registry, repository and tag spelled out.
    pub fn resolve_reference(&self, name: &str) -> Option<Reference> {
        let reference = Reference::parse(name).ok()?.key();
        self.shared.state().references.contains_key(&reference).then_some(reference)
    }

    /// Everything about an image, by name or id.
    pub fn inspect(&self, name: &str) -> Result<ImageDetails> {
        let state = self.shared.state();
        let image = state.find(name)?;
        let (repo_tags, repo_digests) = state.names_of(&image.id);
        Ok(ImageDetails {
            id: image.id.clone(),
            parent: image.parent.clone(),
            repo_tags,
            repo_digests,
            config: image.config.clone(),
            config_bytes: image.raw_bytes,
            size: state.size_of(&image),
            graph_driver: self.image_driver(&image),
            last_tagged_ns: image.last_tagged_ns,
        })
    }

    /// What an image says about itself, by id: what a container made from it starts with.
    pub fn config(&self, id: &Digest) -> Result<ImageConfig> {
        let state = self.shared.state();
        state.images.get(id).map(|image| image.config.clone()).ok_or_else(|| Error::NoSuchImage(id.to_string()))
    }

    /// An image's history, newest step first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        let state = self.shared.state();
        let image = state.find(name)?;
        let mut chains = image.chains.iter();
        let mut items: Vec<HistoryItem> = image
            .config
            .history
            .iter()
            .map(|step| {
                let layer = if step.empty_layer { None } else { chains.next().and_then(|c| state.layers.get(c)) };
                HistoryItem {
                    id: "<missing>".into(),
                    created: step.created.as_deref().and_then(seconds).unwrap_or(0),
                    created_by: step.created_by.clone(),
                    comment: step.comment.clone(),
                    size: layer.map_or(0, |layer| layer.bytes),
                    tags: Vec::new(),
                }
            })
            .collect();
        items.reverse();
        let mut next = Some(image);
        for item in &mut items {
            let Some(image) = next else { break };
            item.id = image.id.to_string();
            item.tags = state.names_of(&image.id).0;
            next = image.parent.as_ref().and_then(|parent| state.images.get(parent)).cloned();
        }
        Ok(items)
    }

    /// Lists images, newest first.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<ImageSummary>> {
        let state = self.shared.state();
        let mut before = filter.until_ns;
        for name in &filter.before {
            before = [before, state.find(name)?.config.created_ns()].into_iter().flatten().min();
        }
        let mut since = None;
        for name in &filter.since {
            since = [since, state.find(name)?.config.created_ns()].into_iter().flatten().max();
        }
        filter.references.iter().try_for_each(|pattern| check_pattern(pattern))?;
        let shared = if filter.shared_size { Some(state.shared_layers()) } else { None };
        let mut found = Vec::new();
        for image in state.images.values() {
            let created = image.config.created_ns();
            let in_time = before.is_none_or(|before| created.is_some_and(|created| created < before))
                && since.is_none_or(|since| created.is_some_and(|created| created > since));
            if !in_time || !labels_match(image, &filter.labels, &filter.without_labels) {
                continue;
            }
            if filter.dangling == Some(true) && state.has_children(&image.id) {
                continue;
            }
            let mut names = state.references_of(&image.id);
            if !filter.references.is_empty() {
                names.retain(|name| filter.references.iter().any(|pattern| matches_reference(pattern, name)));
            }
            let (repo_tags, repo_digests) = spell(&names);
            if names.is_empty() {
                let intermediate = !filter.all && state.has_children(&image.id);
                if intermediate || filter.dangling == Some(false) || !filter.references.is_empty() {
                    continue;
                }
            } else if filter.dangling == Some(true) && !repo_tags.is_empty() {
                continue;
            }
            found.push(ImageSummary {
                id: image.id.clone(),
                parent: image.parent.clone(),
                repo_tags,
                repo_digests,
                created: created.map_or(0, |ns| (ns / 1_000_000_000) as i64),
                size: state.size_of(image),
                shared_size: shared.as_ref().map(|shared| {
                    let layers = image.chains.iter().filter(|chain| shared.contains(*chain));
                    layers.filter_map(|chain| state.layers.get(chain)).map(|layer| layer.bytes).sum()
                }),
                labels: image.config.config.labels.clone(),
            });
        }
        found.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(found)
    }

    /// What images cost on disk.
    pub fn disk_usage(&self) -> DiskUsage {
        let state = self.shared.state();
        let blobs: HashMap<&Digest, u64> = state.layers.values().map(|l| (&l.blob, l.blob_bytes)).collect();
        DiskUsage {
            layers_bytes: state.layers.values().map(|layer| layer.bytes).sum(),
            blobs_bytes: blobs.values().sum(),
        }
    }

    /// Gives an image another name, as the API's `repo` and `tag`.
    pub fn tag(&self, name: &str, repository: &str, tag: &str) -> Result<Reference> {
        let target = Reference::parse(repository)?;
        if target.digest().is_some() {
            return Err(Error::InvalidReference("refusing to create a tag with a digest reference".into()));
        }
        let target = if tag.is_empty() { target } else { target.with_tag(tag)? }.or_latest();
        if target.familiar_name() == "sha256" {
            let words = "refusing to create an ambiguous tag using digest algorithm as name";
            return Err(Error::InvalidReference(words.into()));
        }
        let mut state = self.shared.state();
        let id = state.find(name)?.id.clone();
        state.set_reference(&target, &id)?;
        Ok(target)
    }

    fn image_driver(&self, image: &Image) -> Option<GraphDriver> {
        let mut dirs: Vec<PathBuf> = image.chains.iter().rev().map(|chain| self.shared.layer_dir(chain)).collect();
        if dirs.is_empty() {
            return None;
        }
        let upper = dirs.remove(0);
        let top = upper.parent().unwrap_or(&upper).to_owned();
        Some(GraphDriver { name: "overlay2", lower: dirs, upper, work: top.join("work"), merged: top.join("merged") })
    }
}

impl State {
    /// Finds an image by name, id or the beginning of its id.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Image>> {
        let (by_name, words) = match AnyReference::parse(name)? {
            AnyReference::Id(id) => (self.images.get(&id), id.to_string()),
            AnyReference::Named(reference) => {
                let key = reference.clone().key();
                let words = reference.or_latest().familiar();
                (self.references.get(&key).and_then(|id| self.images.get(id)), words)
            }
        };
        if let Some(image) = by_name {
            return Ok(Arc::clone(image));
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if !crate::digest::is_hex(prefix) || prefix.len() >= 64 {
            return Err(Error::NoSuchImage(words));
        }
        let mut matches = self.images.values().filter(|image| image.id.hex().starts_with(prefix));
        match (matches.next(), matches.next()) {
            (Some(image), None) => Ok(Arc::clone(image)),
            (Some(_), Some(_)) => Err(Error::Ambiguous(words)),
            _ => Err(Error::NoSuchImage(words)),
        }
    }

    pub(crate) fn size_of(&self, image: &Image) -> u64 {
        image.chains.iter().filter_map(|chain| self.layers.get(chain)).map(|layer| layer.bytes).sum()
    }

    /// Tags and digests of an image, as people write them.
    pub(crate) fn names_of(&self, image: &Digest) -> (Vec<String>, Vec<String>) {
        spell(&self.references_of(image))
    }

    /// The layers that more than one image has.
    fn shared_layers(&self) -> HashSet<&Digest> {
        let mut uses: HashMap<&Digest, usize> = HashMap::new();
        for chain in self.images.values().flat_map(|image| &image.chains) {
            *uses.entry(chain).or_default() += 1;
        }
        uses.into_iter().filter(|(_, count)| *count > 1).map(|(chain, _)| chain).collect()
    }
}

fn spell(names: &[Reference]) -> (Vec<String>, Vec<String>) {
    let (digests, tags): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.digest().is_some());
    let familiar = |names: Vec<&Reference>| names.into_iter().map(Reference::familiar).collect();
    (familiar(tags), familiar(digests))
}

fn seconds(rfc3339: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(rfc3339).ok().map(|time| time.timestamp())
}

pub(crate) fn labels_match(image: &Image, wanted: &[String], unwanted: &[String]) -> bool {
    let has = |filter: &String| {
        let Some(labels) = &image.config.config.labels else { return false };
        match filter.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(filter),
        }
    };
    wanted.iter().all(has) && !unwanted.iter().any(has)
}

fn matches_reference(pattern: &str, name: &Reference) -> bool {
    let names = [name.familiar(), name.familiar_name(), name.to_string(), name.name()];
    names.iter().any(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

/// Can this be a pattern at all?
fn check_pattern(pattern: &str) -> Result<()> {
    let mut rest = pattern.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match first {
            b'\\' if after.is_empty() => return Err(Error::Invalid("syntax error in pattern".into())),
            b'\\' => &after[1..],
            b'[' => match after.iter().skip(1).position(|&b| b == b']') {
                Some(at) => &after[at + 2..],
                None => return Err(Error::Invalid("syntax error in pattern".into())),
            },
            _ => after,
        };
    }
    Ok(())
}

/// Shell patterns as Go's `path.Match`: nothing matches a slash but a slash. At worst the product of the two lengths: of
/// several stars only the last one is ever tried again, since what an earlier one could take more of, the last one can too.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Behind the last star, and up to where it reaches in the text.
    let mut star = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, read));
            continue;
        }
        if at == pattern.len() && read == text.len() {
            return true;
        }
        if let Some(bytes) = text.get(read).and_then(|&c| one(&pattern[at..], c)) {
            at += bytes;
            read += 1;
            continue;
        }
        match star {
            Some((behind, reach)) if text.get(reach).is_some_and(|&c| c != b'/') => {
                (at, read) = (behind, reach + 1);
                star = Some((behind, reach + 1));
            }
            _ => return false,
        }
    }
}

/// How many bytes at the beginning of `pattern` match one byte of text, if they do.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    let (&first, rest) = pattern.split_first()?;
    let (matches, bytes) = match first {
        b'?' => (c != b'/', 1),
        b'\\' => (*rest.first()? == c, 2),
        b'[' => {
            let end = rest.iter().skip(1).position(|&b| b == b']')? + 1;
            let (negated, set) = match rest[..end].split_first() {
                Some((b'^', set)) => (true, set),
                _ => (false, &rest[..end]),
            };
            let mut inside = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == b'-' {
                    inside |= (set[at]..=set[at + 2]).contains(&c);
                    at += 3;
                } else {
                    inside |= set[at] == c;
                    at += 1;
                }
            }
            (c != b'/' && inside != negated, end + 2)
        }
        other => (other == c, 1),
    };
    matches.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{check_pattern, glob};

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length_times_the_name() {
        let (pattern, text) = (format!("{}b", "*a".repeat(500)), "a".repeat(1000));
        // Tried in every way there is this would take longer than the universe has been there.
        assert!(!glob(pattern.as_bytes(), text.as_bytes()));
        assert!(glob(pattern.as_bytes(), format!("{text}b").as_bytes()));
    }

    #[test]
    fn patterns_match_as_gos() {
        for (pattern, text) in [("a*", "abc"), ("*/b", "a/b"), ("[a-c]x", "bx"), ("[^a]x", "bx"), ("a?c", "abc")] {
            assert!(glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("a*", "a/b"), ("?", "/"), ("[a", "a"), ("ab", "abc"), ("[^b]x", "bx")] {
            assert!(!glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("*a*b*c", "xaybzc"), ("a*b*/*c", "aXbY/Zc"), ("*", ""), ("**", "ab"), ("\\*", "*")] {
            assert!(glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("*a*b", "ab/b"), ("a*b*c", "acb"), ("*/*", "a"), ("\\*", "a"), ("a**", "b")] {
            assert!(!glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for broken in ["[", "a[b", "x\\", "[]"] {
            assert!(check_pattern(broken).is_err(), "{broken}");
        }
        assert!(check_pattern("[]a]*\\[").is_ok());
    }
}
