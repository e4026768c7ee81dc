//! Encrypted connections to other brokers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::connection::Ended;

/// Where systems keep the certificates that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a client of another broker encrypts. The broker's certificate is always checked, for its issuer and for the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// A file with trusted certificates in PEM form; by default `SSL_CERT_FILE`, else those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Files with the client's own certificate and its key in PEM form, for brokers that ask for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Makes encrypted connections to one broker.
#[derive(Clone)]
pub(crate) struct Encryption {
    connector: TlsConnector,
    host: ServerName<'static>,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Encryption {
    /// Reads the files; `host` is what the broker's certificate must name.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else, with its name.
    pub(crate) fn new(tls: &Tls, host: &str) -> Result<Self, CommandError> {
        let wrong = |what: String| CommandError::parameter(format!("TLS to {host} is not possible: {what}"));
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            wrong("a certificate cannot name this host".to_owned()).hint("name the broker by its host name")
        })?;
        let (file, roots) = trusted(tls.ca_file.as_deref()).map_err(|what| {
            wrong(what)
                .hint("name a file with the certificate of the broker's issuer in PEM form: ca_file = !pem_dir/ca.crt")
        })?;
        tracing::debug!(file = %file.display(), certificates = roots.len(), "Trusted issuers of brokers");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots);
        let config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let pair = identity(certificate, key).map_err(|what| {
                    wrong(what)
                        .hint("name files in PEM form: cert_file = !pem_dir/node.crt and key_file = !pem_dir/node.key")
                })?;
                builder
                    .with_client_auth_cert(pair.0, pair.1)
                    .map_err(|error| wrong(format!("'{}' and '{}': {error}", certificate.display(), key.display())))?
            }
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), host: name })
    }

    /// Encrypts a connection within the deadline.
    pub(super) async fn begin(&self, stream: TcpStream, deadline: Duration) -> Result<TlsStream<TcpStream>, Ended> {
        match tokio::time::timeout(deadline, self.connector.connect(self.host.clone(), stream)).await {
            Err(_) => Err(Ended::NoAnswer("the beginning of TLS", deadline)),
            Ok(Ok(stream)) => Ok(stream),
            // What rustls finds wrong stays wrong.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(Ended::Untrusted(error)),
            Ok(Err(error)) => Err(Ended::NoTls(error)),
        }
    }
}

/// The trusted certificates, and where they are from.
fn trusted(file: Option<&Path>) -> Result<(PathBuf, RootCertStore), String> {
    let named = file.map(Path::to_path_buf).or_else(|| std::env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    let file = match named {
        Some(file) => file,
        None => SYSTEM
            .iter()
            .map(PathBuf::from)
            .find(|file| file.is_file())
            .ok_or("this system has no trusted certificates")?,
    };
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold certificates of kinds that are not known here.
    let (_, _) = roots.add_parsable_certificates(certificates(&file)?);
    if roots.is_empty() {
        return Err(format!("'{}' holds no certificate", file.display()));
    }
    Ok((file, roots))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("'{}': {error}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?;
    found.collect::<Result<_, _>>().map_err(|error| wrong(&error))
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(certificate: &Path, key: &Path) -> Result<Pair, String> {
    let chain = certificates(certificate)?;
    if chain.is_empty() {
        return Err(format!("'{}' holds no certificate", certificate.display()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("'{}': {error}", key.display()))?;
    Ok((chain, key))
}
