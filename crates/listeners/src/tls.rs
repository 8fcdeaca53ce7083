//! TLS for TCP listeners, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};

/// The files of a TLS server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate (and what links it to its CA).
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
    /// A client must show a certificate that this CA has signed; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// Reads the files and makes an acceptor for TLS 1.2 and 1.3.
pub fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| Error::KeyPair(error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let refused =
                |reason: String| Error::Tls { what: "could not use CA certificate", path: ca.clone(), reason };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca, "could not read CA certificate")? {
                roots.add(certificate).map_err(|error| refused(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| refused(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&files.certificate, "could not read certificate")?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| Error::Tls {
        what: "could not read private key",
        path: files.key.clone(),
        reason: format!("{error}; an encrypted key cannot be used"),
    })?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| Error::KeyPair(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |reason: String| Error::Tls { what, path: path.to_owned(), reason };
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?.collect();
    let read = read.map_err(|error| failed(error.to_string()))?;
    if read.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    Ok(read)
}
