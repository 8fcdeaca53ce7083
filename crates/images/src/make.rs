//! Making images here: from a root file system's tar (`docker import`) and from a container (`docker commit`).

use std::io::Read;

use archive::{PackOptions, TarWriter, Whiteouts};

use crate::config::{ContainerConfig, History, ImageConfig, now_rfc3339};
use crate::extract::{Source, extract};
use crate::instructions;
use crate::progress::{Progress, ProgressSink};
use crate::shared::Lease;
use crate::{Digest, Error, Images, Reference, Result};

/// `docker import`'s options.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The new image's name, if any.
    pub name: Option<Reference>,
    /// Comment in its history.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// `os[/architecture[/variant]]`; this machine's when not given.
    pub platform: Option<String>,
    /// Bytes of the tar as it comes, if known; for progress only.
    pub bytes_total: Option<u64>,
}

/// `docker commit`'s options.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The new image's name, if any.
    pub name: Option<Reference>,
    /// What containers of it run as; the image's own when not given.
    pub config: Option<ContainerConfig>,
    /// Dockerfile instructions, applied to that.
    pub changes: Vec<String>,
    /// Author.
    pub author: String,
    /// Comment in its history.
    pub comment: String,
    /// The command in its history: what the container ran.
    pub created_by: String,
}

impl Images {
    /// Makes an image of one layer from a root file system's tar, compressed or not.
    pub fn import(&self, tar: impl Read + Send, options: &ImportOptions, progress: ProgressSink<'_>) -> Result<Digest> {
        let (os, architecture, variant) = platform(options.platform.as_deref())?;
        let mut config = ContainerConfig::default();
        instructions::apply(&mut config, &options.changes)?;
        let counted = Counted { inner: tar, bytes: 0, told: 0, total: options.bytes_total, tell: progress };
        let mut lease = self.shared.lease();
        let layer = extract(&self.shared, &mut lease, None, Source::Stream(Box::new(counted)), None)?;
        let created = now_rfc3339();
        let image = ImageConfig {
            architecture,
            variant,
            os,
            created: Some(created.clone()),
            comment: options.message.clone(),
            config,
            rootfs: crate::config::RootFs { diff_ids: vec![layer.diff_id], ..Default::default() },
            history: vec![History { created: Some(created), comment: options.message.clone(), ..History::default() }],
            ..ImageConfig::default()
        };
        self.finish(&image, None, options.name.as_ref(), &mut lease)
    }

    /// Makes an image from what a container wrote, on top of its image. The caller freezes the container if it is to be
    /// frozen.
    pub fn commit(&self, container: &str, options: &CommitOptions) -> Result<Digest> {
        let layer = self.container_layer(container)?;
        let mut lease = self.shared.lease();
        if let Some(chain) = &layer.chain {
            lease.layer(chain).ok_or_else(|| Error::NotFound(format!("layer {chain} does not exist")))?;
        }
        let parent = layer.image.filter(|id| self.shared.state().images.contains_key(id));
        let base = match &parent {
            Some(id) => self.config(id)?,
            None if layer.chain.is_none() => {
                let (os, architecture, variant) = platform(None)?;
                ImageConfig { os, architecture, variant, ..ImageConfig::default() }
            }
            None => return Err(Error::NotFound(format!("the image of container {container} was removed"))),
        };
        let mut config = options.config.clone().unwrap_or_else(|| base.config.clone());
        instructions::apply(&mut config, &options.changes)?;

        let upper = self.upper_dir(container)?;
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(Error::io("make a pipe"))?;
        let (reader, writer) = (std::fs::File::from(reader), std::fs::File::from(writer));
        let added = std::thread::scope(|scope| {
            let packing = scope.spawn(move || -> Result<()> {
                let mut tar = TarWriter::new(std::io::BufWriter::with_capacity(256 << 10, writer));
                let pack_options = PackOptions { whiteouts: Whiteouts::Oci, ..PackOptions::default() };
                archive::pack(&upper, &mut tar, &pack_options)?;
                tar.finish()?;
                Ok(())
            });
            let source = Source::Stream(Box::new(reader));
            let added = extract(&self.shared, &mut lease, layer.chain.as_ref(), source, None);
            match packing.join() {
                Ok(Ok(())) => added,
                // Whichever failed first broke the pipe for the other.
                Ok(Err(error)) => Err(added.err().filter(|e| !is_truncated(e)).unwrap_or(error)),
                Err(_) => Err(Error::Invalid("packing the container's files panicked".into())),
            }
        })?;

        let created = now_rfc3339();
        let mut image = ImageConfig {
            created: Some(created.clone()),
            author: options.author.clone(),
            comment: options.comment.clone(),
            container: container.to_owned(),
            docker_version: String::new(),
            config,
            ..base
        };
        image.rootfs.diff_ids.push(added.diff_id);
        image.history.push(History {
            created: Some(created),
            created_by: options.created_by.clone(),
            author: options.author.clone(),
            comment: options.comment.clone(),
            empty_layer: false,
        });
        self.finish(&image, parent, options.name.as_ref(), &mut lease)
    }

    fn finish(
        &self,
        image: &ImageConfig,
        parent: Option<Digest>,
        name: Option<&Reference>,
        lease: &mut Lease,
    ) -> Result<Digest> {
        let json = serde_json::to_vec(image).map_err(|error| Error::Invalid(error.to_string()))?;
        let id = self.shared.record_image(&json, parent, lease)?;
        if let Some(name) = name {
            self.shared.state().set_reference(&name.clone().or_latest(), &id)?;
        }
        Ok(id)
    }
}

fn is_truncated(error: &Error) -> bool {
    matches!(error, Error::Archive(archive::Error::Truncated))
}

/// Operating system, architecture and variant of `os[/architecture[/variant]]`.
fn platform(text: Option<&str>) -> Result<(String, String, String)> {
    let own = crate::platform::Platform::host();
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok((own.os, own.architecture, own.variant));
    };
    let platform = crate::platform::Platform::parse(text)?;
    if platform.os != "linux" {
        return Err(Error::Invalid(format!("operating system is not supported: {}", platform.os)));
    }
    Ok((platform.os, platform.architecture, platform.variant))
}

/// Tells how much was read, every mebibyte or so.
struct Counted<'a, R> {
    inner: R,
    bytes: u64,
    told: u64,
    total: Option<u64>,
    tell: ProgressSink<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        if self.bytes - self.told >= 1 << 20 || (n == 0 && self.bytes > self.told) {
            self.told = self.bytes;
            (self.tell)(Progress::bytes("", "Importing", self.bytes, self.total));
        }
        Ok(n)
    }
}
