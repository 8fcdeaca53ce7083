//! The tables in `dormouse.db`: networks, endpoints, reserved addresses and ports.
//!
//! They are read once at start; afterwards memory is the truth and every change is written before it is used.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Mutex;

use store::rusqlite::{Connection, params};

use crate::sys::lock;
use crate::{Endpoint, Network, Protocol, Result};

const MIGRATIONS: &[&str] = &["
    CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL);
    CREATE TABLE endpoints (
        id TEXT PRIMARY KEY, container_id TEXT NOT NULL, network_id TEXT NOT NULL, record TEXT NOT NULL,
        UNIQUE (container_id, network_id)
    );
    CREATE TABLE reserved_addresses (
        network_id TEXT NOT NULL, ipv4 TEXT NOT NULL, container_id TEXT NOT NULL, PRIMARY KEY (network_id, ipv4)
    );
", "
    CREATE TABLE reserved_ports (
        host_port INTEGER NOT NULL, protocol TEXT NOT NULL, container_id TEXT NOT NULL, PRIMARY KEY (host_port, protocol)
    );
"];

/// The open tables.
pub(crate) struct Records {
    db: Mutex<Connection>,
}

/// What they held at start.
#[derive(Default)]
pub(crate) struct Loaded {
    pub networks: Vec<Network>,
    pub endpoints: Vec<Endpoint>,
    pub reserved: Vec<(String, Ipv4Addr, String)>,
    pub reserved_ports: Vec<((u16, Protocol), String)>,
}

impl Records {
    /// Opens the tables and reads them. A record that cannot be read is reported and left out.
    pub(crate) fn open(data_root: &Path) -> Result<(Self, Loaded)> {
        let db = store::open(data_root, "network", MIGRATIONS)?;
        let loaded = Loaded {
            networks: read(&db, "SELECT record FROM networks")?,
            endpoints: read(&db, "SELECT record FROM endpoints")?,
            reserved: {
                let mut query = db.prepare("SELECT network_id, ipv4, container_id FROM reserved_addresses")?;
                let rows = query.query_map([], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
                })?;
                let mut reserved = Vec::new();
                for row in rows {
                    let (network, ipv4, container) = row?;
                    match ipv4.parse() {
                        Ok(ip) => reserved.push((network, ip, container)),
                        Err(_) => tracing::warn!(network, ipv4, "unreadable address reservation left out"),
                    }
                }
                reserved
            },
            reserved_ports: {
                let mut query = db.prepare("SELECT host_port, protocol, container_id FROM reserved_ports")?;
                let rows =
                    query.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))?;
                let mut reserved = Vec::new();
                for row in rows {
                    let (port, protocol, container) = row?;
                    match protocol.parse() {
                        Ok(protocol) => reserved.push(((port, protocol), container)),
                        Err(_) => tracing::warn!(port, protocol, "unreadable port reservation left out"),
                    }
                }
                reserved
            },
        };
        Ok((Self { db: Mutex::new(db) }, loaded))
    }

    pub(crate) fn put_network(&self, network: &Network) -> Result<()> {
        lock(&self.db)
            .prepare_cached("INSERT OR REPLACE INTO networks (id, name, record) VALUES (?1, ?2, ?3)")?
            .execute(params![network.id, network.name, json(network)?])?;
        Ok(())
    }

    pub(crate) fn delete_network(&self, id: &str) -> Result<()> {
        let mut db = lock(&self.db);
        let tx = db.transaction()?;
        tx.execute("DELETE FROM networks WHERE id = ?1", [id])?;
        tx.execute("DELETE FROM endpoints WHERE network_id = ?1", [id])?;
        tx.execute("DELETE FROM reserved_addresses WHERE network_id = ?1", [id])?;
        tx.commit()?;
        Ok(())
    }

    pub(crate) fn put_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        lock(&self.db)
            .prepare_cached(
                "INSERT OR REPLACE INTO endpoints (id, container_id, network_id, record) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![endpoint.id, endpoint.container_id, endpoint.network_id, json(endpoint)?])?;
        Ok(())
    }

    pub(crate) fn delete_endpoint(&self, id: &str) -> Result<()> {
        lock(&self.db).prepare_cached("DELETE FROM endpoints WHERE id = ?1")?.execute([id])?;
        Ok(())
    }

    pub(crate) fn delete_endpoints_of(&self, container_id: &str) -> Result<()> {
        lock(&self.db).prepare_cached("DELETE FROM endpoints WHERE container_id = ?1")?.execute([container_id])?;
        Ok(())
    }

    /// Keeps the address and the published ports of an endpoint for its container.
    pub(crate) fn put_reservation(&self, endpoint: &Endpoint, ipv4: Ipv4Addr) -> Result<()> {
        let mut db = lock(&self.db);
        let tx = db.transaction()?;
        tx.execute(
            "INSERT OR REPLACE INTO reserved_addresses (network_id, ipv4, container_id) VALUES (?1, ?2, ?3)",
            params![endpoint.network_id, ipv4.to_string(), endpoint.container_id],
        )?;
        for port in &endpoint.ports {
            tx.execute(
                "INSERT OR REPLACE INTO reserved_ports (host_port, protocol, container_id) VALUES (?1, ?2, ?3)",
                params![port.host_port, port.protocol.name(), endpoint.container_id],
            )?;
        }
        tx.commit()?;
        Ok(())
    }

    pub(crate) fn delete_reservations(&self, container_id: &str) -> Result<()> {
        let mut db = lock(&self.db);
        let tx = db.transaction()?;
        tx.execute("DELETE FROM reserved_addresses WHERE container_id = ?1", [container_id])?;
        tx.execute("DELETE FROM reserved_ports WHERE container_id = ?1", [container_id])?;
        tx.commit()?;
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(db: &Connection, sql: &str) -> Result<Vec<T>> {
    let mut query = db.prepare(sql)?;
    let rows = query.query_map([], |row| row.get::<_, String>(0))?;
    let mut found = Vec::new();
    for row in rows {
        let text = row?;
        match serde_json::from_str(&text) {
            Ok(record) => found.push(record),
            Err(error) => tracing::warn!(%error, record = text, "unreadable network record left out"),
        }
    }
    Ok(found)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| crate::Error::Io { what: "network record".to_owned(), source: std::io::Error::other(error) })
}
