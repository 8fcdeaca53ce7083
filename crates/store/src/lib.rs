//! `dormouse.db`: one SQLite file in the data root, in WAL mode.
//!
//! Each crate that keeps records there opens its own connection and owns its own tables, whose names it prefixes with
//! nothing but their noun. A crate hands its migrations to [`open`]; they are numbered per crate and run once, each in
//! a transaction, so a SIGKILL in the middle of one leaves the version before it.
//!
//! Durability: `synchronous=NORMAL`. A killed process loses nothing; a power cut may lose the last transactions but
//! never leaves the file inconsistent. What must survive a power cut is fsynced by who writes it.

use std::path::Path;

use errors::{Kind, Kinded};
pub use rusqlite;
use rusqlite::{Connection, TransactionBehavior};

/// Name of the database file inside the data root.
pub const FILE_NAME: &str = "dormouse.db";

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite said no.
    #[error("{path}: {source}")]
    Sqlite {
        /// The database file.
        path: String,
        /// SQLite's own words.
        source: rusqlite::Error,
    },
    /// The file was written by a newer Dormouse.
    #[error("{path}: its {owner} tables have version {found}, this program knows up to {known}: use the newer dockerd")]
    TooNew {
        /// The database file.
        path: String,
        /// The crate whose tables they are.
        owner: String,
        /// Version in the file.
        found: usize,
        /// Newest version known here.
        known: usize,
    },
}

impl Kinded for Error {
    fn kind(&self) -> Kind {
        Kind::System
    }
}

/// Opens (or creates) the database below `data_root` and brings `owner`'s tables up to date.
///
/// `migrations[n]` takes the tables from version `n` to `n + 1`; a released migration is never edited.
pub fn open(data_root: &Path, owner: &str, migrations: &[&str]) -> Result<Connection, Error> {
    let path = data_root.join(FILE_NAME);
    let at = |source| Error::Sqlite { path: path.display().to_string(), source };
    let mut db = Connection::open(&path).map_err(at)?;
    db.busy_timeout(std::time::Duration::from_secs(10)).map_err(at)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(at)?;
    db.pragma_update(None, "synchronous", "NORMAL").map_err(at)?;
    db.pragma_update(None, "foreign_keys", true).map_err(at)?;
    db.pragma_update(None, "cache_size", -512).map_err(at)?;

    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(at)?;
    tx.execute_batch("CREATE TABLE IF NOT EXISTS migrations (owner TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        .map_err(at)?;
    let found: u32 = tx
        .query_row("SELECT COALESCE(MAX(version), 0) FROM migrations WHERE owner = ?1", [owner], |row| row.get(0))
        .map_err(at)?;
    let found = found as usize;
    let known = migrations.len();
    if found > known {
        return Err(Error::TooNew { path: path.display().to_string(), owner: owner.to_owned(), found, known });
    }
    for step in &migrations[found..] {
        tx.execute_batch(step).map_err(at)?;
    }
    tx.execute("INSERT OR REPLACE INTO migrations (owner, version) VALUES (?1, ?2)", (owner, known as u32))
        .map_err(at)?;
    tx.commit().map_err(at)?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_run_once_and_a_newer_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"];
        drop(open(dir.path(), "t", &steps[..1]).unwrap());
        drop(open(dir.path(), "t", &steps).unwrap());
        let db = open(dir.path(), "t", &steps).unwrap();
        db.execute("INSERT INTO a (x, y) VALUES (1, 2)", []).unwrap();
        assert!(matches!(open(dir.path(), "t", &steps[..1]), Err(Error::TooNew { found: 2, known: 1, .. })));
    }

    #[test]
    fn a_failed_migration_leaves_the_version_before_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path(), "t", &["CREATE TABLE a (x)", "nonsense"]).is_err());
        open(dir.path(), "t", &["CREATE TABLE a (x)"]).unwrap();
    }
}
