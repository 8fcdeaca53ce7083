//! The daemon's own tables in the database.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::OptionalExtension;

use crate::containers::record::Record;
use crate::error::{Error, Result};

/// Versions of the tables; a released one is never edited.
const MIGRATIONS: &[&str] =
    &["CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL);
     CREATE TABLE volumes (name TEXT PRIMARY KEY, record TEXT NOT NULL);
     CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);"];

/// Access to the tables; cloning it is cheap.
#[derive(Clone)]
pub struct Records {
    db: Arc<Mutex<Connection>>,
}

impl Records {
    /// Opens the tables in `data_root`.
    pub fn open(data_root: &Path) -> Result<Self> {
        Ok(Self { db: Arc::new(Mutex::new(store::open(data_root, "daemon", MIGRATIONS)?)) })
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held cannot have left a transaction open: each statement is its own.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a container, new or changed.
    pub fn put(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|e| Error::System(format!("cannot store container: {e}")))?;
        let db = self.db();
        let mut statement = db.prepare_cached(
            "INSERT INTO containers (id, name, record) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
        )?;
        statement.execute((&record.id, &record.name, text))?;
        Ok(())
    }

    /// Forgets a container.
    pub fn delete(&self, id: &str) -> Result<()> {
        self.db().execute("DELETE FROM containers WHERE id = ?1", [id])?;
        Ok(())
    }

    /// All containers that can be read; what cannot is reported and left where it is.
    pub fn containers(&self) -> Result<Vec<Record>> {
        let rows = self.rows("SELECT id, record FROM containers")?;
        Ok(rows.into_iter().filter_map(|(id, text)| parse(&id, &text)).collect())
    }

    /// Stores a volume.
    pub fn put_volume(&self, name: &str, record: &str) -> Result<()> {
        self.db().execute(
            "INSERT INTO volumes (name, record) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET record = excluded.record",
            [name, record],
        )?;
        Ok(())
    }

    /// Forgets a volume.
    pub fn delete_volume(&self, name: &str) -> Result<()> {
        self.db().execute("DELETE FROM volumes WHERE name = ?1", [name])?;
        Ok(())
    }

    /// All volumes: names and their records.
    pub fn volumes(&self) -> Result<Vec<(String, String)>> {
        self.rows("SELECT name, record FROM volumes")
    }

    /// A setting that is made once and kept, such as the engine's id.
    pub fn setting(&self, key: &str, make: impl FnOnce() -> String) -> Result<String> {
        let db = self.db();
        let found = db.query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0)).optional()?;
        if let Some(value) = found {
            return Ok(value);
        }
        let value = make();
        db.execute("INSERT INTO settings (key, value) VALUES (?1, ?2)", [key, &value])?;
        Ok(value)
    }

    fn rows(&self, query: &str) -> Result<Vec<(String, String)>> {
        let db = self.db();
        let mut statement = db.prepare(query)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

pub(crate) fn parse(id: &str, text: &str) -> Option<Record> {
    match serde_json::from_str::<Record>(text) {
        // Directories are found by it, and shown by its beginning.
        Ok(record) if record.id != id || id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            tracing::error!("container {id} has another id in its record and is left out");
            None
        }
        Ok(record) => Some(record),
        Err(e) => {
            tracing::error!("container {id} cannot be read from the database and is left out: {e}");
            None
        }
    }
}
