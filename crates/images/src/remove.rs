//! Removing names and images, with Docker's rules about what stands in the way.
//!
//! Hard conflicts (children, running containers) cannot be forced; soft ones (names, stopped containers) can. This crate
//! knows no containers: the caller says which there are.

use errors::{Kind, Kinded};

use crate::query::labels_match;
use crate::reference::AnyReference;
use crate::shared::{Image, State};
use crate::{Digest, Error, Images, Reference, Result};

/// A container that was made from an image.
#[derive(Debug, Clone)]
pub struct ImageUser {
    /// The container's id.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
    /// Its image.
    pub image: Digest,
}

/// One thing that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name of an image.
    Untagged {
        /// The name, as people write it.
        name: String,
        /// The image it was of.
        image: Digest,
    },
    /// An image.
    Image(Digest),
    /// A layer, by chain ID.
    Layer(Digest),
}

/// Which images to remove at once. Everything given must hold.
#[derive(Debug, Clone)]
pub struct PruneFilter {
    /// Only images without a tag (Docker's default), or all without a container.
    pub dangling: bool,
    /// Created before this, nanoseconds since the epoch.
    pub until_ns: Option<i128>,
    /// `key` or `key=value`.
    pub labels: Vec<String>,
    /// `key` or `key=value` it must not have.
    pub without_labels: Vec<String>,
}

#[derive(Clone, Copy)]
struct Conflicts {
    children: bool,
    running: bool,
    references: bool,
    stopped: bool,
}

const HARD: Conflicts = Conflicts { children: true, running: true, references: false, stopped: false };
const ALL: Conflicts = Conflicts { children: true, running: true, references: true, stopped: true };

struct Conflict {
    error: Error,
    used: bool,
}

impl Images {
    /// Removes a name, and the image with its last name; or an image by id.
    pub fn remove(&self, name: &str, force: bool, prune: bool, users: &[ImageUser]) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        let outcome = {
            let mut state = self.shared.state();
            remove(&mut state, name, force, prune, users, &mut removed)
        };
        // What was untagged before a conflict stays untagged, as in Docker.
        removed.extend(self.shared.collect()?.into_iter().map(Removed::Layer));
        outcome.map(|()| removed)
    }

    /// Removes all images that nothing uses. Returns them and the bytes of the layers that went.
    pub fn prune(&self, filter: &PruneFilter, users: &[ImageUser]) -> Result<(Vec<Removed>, u64)> {
        let (candidates, sizes) = {
            let state = self.shared.state();
            let sizes: std::collections::HashMap<Digest, u64> =
                state.layers.values().map(|layer| (layer.chain_id.clone(), layer.bytes)).collect();
            let candidates: Vec<(Digest, Vec<Reference>)> = state
                .images
                .values()
                .filter(|image| is_prunable(&state, image, filter))
                .map(|image| (image.id.clone(), state.references_of(&image.id)))
                .collect();
            (candidates, sizes)
        };
        let mut removed = Vec::new();
        for (id, names) in candidates {
            if filter.dangling && names.iter().any(|name| name.tag().is_some()) {
                continue;
            }
            let targets = if names.is_empty() {
                vec![id.hex().to_owned()]
            } else {
                names.iter().map(Reference::to_string).collect()
            };
            for target in targets {
                match self.remove(&target, false, true, users) {
                    Ok(mut more) => removed.append(&mut more),
                    Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {}
                    Err(error) => tracing::warn!(image = target, %error, "cannot prune an image"),
                }
            }
        }
        let bytes = removed.iter().filter_map(|r| if let Removed::Layer(chain) = r { sizes.get(chain) } else { None });
        let bytes = bytes.sum();
        Ok((removed, bytes))
    }
}

fn is_prunable(state: &State, image: &Image, filter: &PruneFilter) -> bool {
    let intermediate = state.has_children(&image.id) && (filter.dangling || state.references_of(&image.id).is_empty());
    let old_enough =
        filter.until_ns.is_none_or(|until| image.config.created_ns().is_some_and(|created| created <= until));
    !intermediate && old_enough && labels_match(image, &filter.labels, &filter.without_labels)
}

fn remove(
    state: &mut State,
    name: &str,
    force: bool,
    prune: bool,
    users: &[ImageUser],
    removed: &mut Vec<Removed>,
) -> Result<()> {
    let id = state.find(name)?.id.clone();
    let names = state.references_of(&id);
    let by_id = id.as_str().starts_with(name) || id.hex().starts_with(name);
    let mut quiet = false;
    if by_id {
        if is_single_reference(&names) {
            let mask = Conflicts { stopped: !force, ..HARD };
            if let Some(conflict) = check(state, &id, mask, users) {
                return Err(conflict.error);
            }
            for name in &names {
                untag(state, name, &id, removed)?;
            }
        }
    } else {
        if !force && is_single_reference(&names) {
            if let Some(user) = users.iter().find(|user| user.image == id) {
                return Err(Error::Conflict(format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                     referenced image {}",
                    short(&user.container),
                    id.short()
                )));
            }
        }
        let AnyReference::Named(reference) = AnyReference::parse(name)? else {
            return Err(Error::NoSuchImage(name.to_owned()));
        };
        let reference = reference.key();
        untag(state, &reference, &id, removed)?;
        let mut left = state.references_of(&id);
        let same = |other: &Reference| other.name() == reference.name();
        if reference.digest().is_none() && !left.iter().any(|other| other.digest().is_none() && same(other)) {
            // Digests of a repository mean nothing once its last tag is gone.
            for other in left.iter().filter(|other| same(other)) {
                untag(state, other, &id, removed)?;
            }
            left.retain(|other| !same(other));
        }
        if !left.is_empty() {
            return Ok(());
        }
        quiet = true;
    }
    delete(state, &id, force, prune, quiet, users, removed)
}

fn delete(
    state: &mut State,
    id: &Digest,
    force: bool,
    prune: bool,
    quiet: bool,
    users: &[ImageUser],
    removed: &mut Vec<Removed>,
) -> Result<()> {
    let (mut id, mut force, mut quiet) = (id.clone(), force, quiet);
    loop {
        if let Some(conflict) = check(state, &id, if force { HARD } else { ALL }, users) {
            let dangling = state.references_of(&id).is_empty() && !state.has_children(&id);
            if quiet && (!dangling || conflict.used) {
                return Ok(());
            }
            return Err(conflict.error);
        }
        let parent = state.images.get(&id).and_then(|image| image.parent.clone());
        for name in state.references_of(&id) {
            untag(state, &name, &id, removed)?;
        }
        state.remove_image(&id)?;
        removed.push(Removed::Image(id));
        match parent.filter(|parent| prune && state.images.contains_key(parent)) {
            Some(parent) => (id, force, quiet) = (parent, false, true),
            None => return Ok(()),
        }
    }
}

fn untag(state: &mut State, name: &Reference, image: &Digest, removed: &mut Vec<Removed>) -> Result<()> {
    state.remove_reference(name)?;
    removed.push(Removed::Untagged { name: name.familiar(), image: image.clone() });
    Ok(())
}

fn check(state: &State, id: &Digest, mask: Conflicts, users: &[ImageUser]) -> Option<Conflict> {
    let user = |running: bool| users.iter().find(|user| user.image == *id && user.running == running);
    let conflict = |how: &str, why: String, used: bool| {
        let words = format!("conflict: unable to delete {} ({how}) - {why}", id.short());
        Some(Conflict { error: Error::Conflict(words), used })
    };
    if mask.children && state.has_children(id) {
        return conflict("cannot be forced", "image has dependent child images".into(), false);
    }
    if let Some(user) = user(true).filter(|_| mask.running) {
        let why = format!("image is being used by running container {}", short(&user.container));
        return conflict("cannot be forced", why, true);
    }
    if mask.references && !state.references_of(id).is_empty() {
        return conflict("must be forced", "image is referenced in multiple repositories".into(), false);
    }
    if let Some(user) = user(false).filter(|_| mask.stopped) {
        let why = format!("image is being used by stopped container {}", short(&user.container));
        return conflict("must be forced", why, true);
    }
    None
}

/// Whether all names are of one repository, with at most one tag among them.
fn is_single_reference(names: &[Reference]) -> bool {
    let mut tags = names.iter().filter(|name| name.digest().is_none());
    let first = tags.next();
    let Some(single) = first.or(names.first()) else { return false };
    tags.next().is_none() && names.iter().all(|name| name.name() == single.name())
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}
