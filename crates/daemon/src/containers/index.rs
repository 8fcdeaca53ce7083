//! All containers, by id, by name, by the start of an id.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use super::container::Container;
use crate::error::{Error, Result};
use crate::records::Records;

/// The containers there are. The lock is held for look-ups only.
pub struct Containers {
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names point to ids; a name is taken before its container is there.
    names: HashMap<String, String>,
}

impl Containers {
    /// Reads them from the database.
    pub fn load(records: &Records) -> Result<Self> {
        let mut index = Index::default();
        for record in records.containers()? {
            index.names.insert(record.name.clone(), record.id.clone());
            index.by_id.insert(record.id.clone(), Container::new(record, records.clone()));
        }
        Ok(Self { index: RwLock::new(index) })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// By full id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.read().by_id.get(id).cloned()
    }

    /// By id, name (with or without its slash) or the start of an id.
    pub fn get(&self, name: &str) -> Result<Arc<Container>> {
        let index = self.read();
        if let Some(found) = index.by_id.get(name) {
            return Ok(found.clone());
        }
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Some(found) = index.names.get(bare).and_then(|id| index.by_id.get(id)) {
            return Ok(found.clone());
        }
        if bare.is_empty() {
            return Err(Error::InvalidParameter(format!("invalid name or ID supplied: {name:?}")));
        }
        let missing = || Error::NotFound(format!("No such container: {name}"));
        if !bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let from = (Bound::Included(bare.to_owned()), Bound::Unbounded);
        let mut matching = index.by_id.range(from).take_while(|(id, _)| id.starts_with(bare));
        match (matching.next(), matching.next()) {
            (Some((_, found)), None) => Ok(found.clone()),
            (Some(_), Some(_)) => {
                Err(Error::InvalidParameter(format!("multiple IDs found with provided prefix: {bare}")))
            }
            (None, _) => Err(missing()),
        }
    }

    /// All of them, newest first.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.read().by_id.values().cloned().collect();
        all.sort_by_cached_key(|c| std::cmp::Reverse(c.record().created));
        all
    }

    /// Takes a name for an id.
    pub fn take_name(&self, name: &str, id: &str) -> Result<()> {
        let mut index = self.write();
        match index.names.get(name) {
            Some(owner) if owner != id => Err(Error::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            ))),
            _ => {
                index.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back, if it is that id's.
    pub fn free_name(&self, name: &str, id: &str) {
        let mut index = self.write();
        if index.names.get(name).is_some_and(|owner| owner == id) {
            index.names.remove(name);
        }
    }

    /// Adds a container, whose name was taken.
    pub fn add(&self, container: Arc<Container>) {
        self.write().by_id.insert(container.id.clone(), container);
    }

    /// Forgets a container and its name.
    pub fn remove(&self, container: &Container) {
        let name = container.record().name.clone();
        self.free_name(&name, &container.id);
        self.write().by_id.remove(&container.id);
    }
}
