//! A container's log: opened once, written by its output, read by `docker logs` and `attach --logs`.

use std::sync::Arc;

use ::logs::{ContainerInfo, Entry, Log, ReadOptions};
use api::backend::{BoxStream, LogOptions, Output, StreamKind};
use futures::{StreamExt, TryStreamExt};

use super::container::Container;
use crate::Daemon;
use crate::error::Result;

impl Daemon {
    /// The container's log.
    pub(crate) fn log(&self, container: &Arc<Container>) -> Result<Log> {
        container.log(|| {
            let record = container.record();
            let host = &record.host_config;
            let settings = ::logs::validate(&host.log_config.r#type, &*host.log_config.config)?;
            let info = ContainerInfo {
                id: record.id.clone(),
                name: record.name.clone(),
                image_id: record.image_id.clone(),
                image_name: record.config.image.clone(),
                labels: record.config.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
                env: record.config.env.to_vec(),
            };
            Ok(Log::open(&settings, &self.container_dir(&record.id), &info))
        })
    }

    /// Reads a log.
    pub(crate) fn container_logs(&self, name: &str, options: LogOptions) -> Result<(bool, BoxStream<Output>)> {
        let container = self.container(name)?;
        if !options.stdout && !options.stderr {
            return Err(crate::Error::InvalidParameter("Bad parameters: you must choose at least one stream".into()));
        }
        let record = container.record();
        let read = ReadOptions {
            follow: options.follow,
            tail: options.tail,
            since_ns: options.since_ns,
            until_ns: options.until_ns,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let batches = self.log(&container)?.read(read)?;
        let tty = record.tty();
        let stream = batches.map_err(api::Error::from).flat_map(move |batch| {
            let items: Vec<_> = match batch {
                Ok(entries) => entries
                    .iter()
                    .map(|entry| {
                        Ok(Output { stream: kind(entry), data: entry.render(options.timestamps, options.details) })
                    })
                    .collect(),
                Err(e) => vec![Err(e)],
            };
            futures::stream::iter(items)
        });
        Ok((tty, Box::pin(stream)))
    }
}

fn kind(entry: &Entry) -> StreamKind {
    match entry.stream {
        ::logs::StreamKind::Stdout => StreamKind::Stdout,
        ::logs::StreamKind::Stderr => StreamKind::Stderr,
    }
}
