//! Image archives made by hand: good ones in the two formats, and hostile ones no tool would write.

use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// A layer's tar, entry by entry. Names are written as they are given, however wicked.
#[derive(Default)]
pub struct Layer {
    tar: Vec<u8>,
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    /// An executable file.
    #[must_use]
    pub fn program(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", 0o755, content)
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    /// A block device.
    #[must_use]
    pub fn block_device(self, name: &str) -> Self {
        self.entry(EntryType::Block, name, "", 0o666, b"")
    }

    fn entry(mut self, kind: EntryType, name: &str, target: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        // Not `set_path`: that refuses what these tests are about.
        let gnu = header.as_gnu_mut().expect("a GNU header");
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if kind == EntryType::Block {
            header.set_device_major(7).expect("a small number fits");
            header.set_device_minor(0).expect("a small number fits");
        }
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// The bytes of the tar.
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }
}

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold(String::from("sha256:"), |text, byte| format!("{text}{byte:02x}"))
}

/// A blob with its media type.
#[derive(Clone)]
pub struct Blob {
    /// Its type.
    pub media_type: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// The descriptor that names it.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": digest(&self.bytes), "size": self.bytes.len()})
    }
}

/// An image that can be written as an archive or served by a registry.
pub struct ImageArchive {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
}

impl ImageArchive {
    /// An image of these layers that runs `command`.
    pub fn new(layers: Vec<Layer>, command: &[&str]) -> Self {
        let layers: Vec<Vec<u8>> = layers.into_iter().map(Layer::finish).collect();
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|tar| digest(tar)).collect::<Vec<_>>()},
            "history": layers.iter().map(|_| json!({"created": "2024-01-02T03:04:05Z", "created_by": "by hand"}))
                .collect::<Vec<_>>(),
        });
        Self { layers, config: config.to_string().into_bytes() }
    }

    /// An image of one layer that holds the machine's busybox, so that it can run.
    pub fn runnable(extra: Layer) -> Self {
        let busybox = std::fs::read("/bin/busybox").expect("read the machine's busybox");
        let base = Layer::new().directory("bin/").program("bin/busybox", &busybox).symlink("bin/sh", "busybox");
        Self::new(vec![base.symlink("bin/cat", "busybox").symlink("bin/ls", "busybox"), extra], &["sh"])
    }

    /// As `docker save` of old wrote it.
    pub fn docker_archive(&self, tag: &str) -> Vec<u8> {
        let config_name = format!("{}.json", &digest(&self.config)[7..]);
        let names: Vec<String> = (0..self.layers.len()).map(|n| format!("layer{n}/layer.tar")).collect();
        let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": names}]);
        let mut files: Vec<(String, Vec<u8>)> = names.into_iter().zip(self.layers.iter().cloned()).collect();
        files.push((config_name, self.config.clone()));
        files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
        pack(files)
    }

    /// The blobs of an OCI image, the manifest last; layers as `compress` makes them.
    pub fn oci_blobs(&self, compression: Compression) -> Vec<Blob> {
        let mut blobs: Vec<Blob> = self.layers.iter().map(|tar| compression.layer(tar)).collect();
        let config = Blob { media_type: "application/vnd.oci.image.config.v1+json", bytes: self.config.clone() };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": blobs.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        blobs.push(config);
        blobs.push(Blob {
            media_type: "application/vnd.oci.image.manifest.v1+json",
            bytes: manifest.to_string().into_bytes(),
        });
        blobs
    }

    /// As an OCI layout tar. `alter` may change the blobs after the descriptors that name them were made.
    pub fn oci_archive(&self, tag: &str, compression: Compression, alter: impl Fn(usize, &mut Vec<u8>)) -> Vec<u8> {
        let blobs = self.oci_blobs(compression);
        let mut manifest = blobs.last().expect("the manifest").descriptor();
        manifest["annotations"] = json!({"io.containerd.image.name": format!("docker.io/library/{tag}"),
            "org.opencontainers.image.ref.name": tag.rsplit(':').next()});
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest]});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        for (place, blob) in blobs.into_iter().enumerate() {
            let name = format!("blobs/sha256/{}", &digest(&blob.bytes)[7..]);
            let mut bytes = blob.bytes;
            alter(place, &mut bytes);
            files.push((name, bytes));
        }
        pack(files)
    }
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Compresses some bytes.
    pub fn compress(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::None => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).expect("write to memory");
                encoder.finish().expect("write to memory")
            }
            Self::Zstd => zstd::encode_all(bytes, 1).expect("write to memory"),
        }
    }

    fn layer(self, tar: &[u8]) -> Blob {
        let media_type = match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        Blob { media_type, bytes: self.compress(tar) }
    }
}

fn pack(files: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, &name, bytes.as_slice()).expect("write to memory");
    }
    archive.into_inner().expect("write to memory")
}
