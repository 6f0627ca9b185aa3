//! The files: reading them, and saying what is wrong with one in words that name it. What is made of them is in `server` and
//! `client`.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

use crate::identity::{Identity, IdentityError};

/// More than any bundle of certificates: a system's whole list of authorities has some 250 KB. Keeps a wrong path from being
/// read into memory.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Where the files are, and what a server asks of its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Our certificate in PEM, the process's own first, intermediates after it. Goes with `key`.
    pub certificate: Option<PathBuf>,
    /// Its private key in PEM: PKCS #8, SEC 1 or PKCS #1, not encrypted. Goes with `certificate`.
    pub key: Option<PathBuf>,
    /// The authorities that we believe, in PEM: of servers that we dial, and of clients that dial us.
    pub authorities: Option<PathBuf>,
    /// What a server asks of its clients. Default: nothing.
    pub client_auth: ClientAuth,
}

/// Whether a server wants to see certificates of its clients. Those that are shown are always verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It does not ask.
    #[default]
    None,
    /// It asks, and takes clients without one as well.
    Optional,
    /// No connection without one.
    Required,
}

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// [`Settings::certificate`]
    Certificate,
    /// [`Settings::key`]
    Key,
    /// [`Settings::authorities`]
    Authorities,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
            Self::Authorities => "CA bundle",
        })
    }
}

/// Why the files do not make a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file that cannot be read.
    #[error("the {file} {} cannot be read", .path.display())]
    Unreadable {
        /// Which one.
        file: File,
        /// Where it should be.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A file that has not got in it what it should.
    #[error("the {file} {}: {problem}", .path.display())]
    Malformed {
        /// Which one.
        file: File,
        /// Where it is.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A certificate without key, or the other way round.
    #[error("there is a {is} and no {missing}; they go together")]
    Alone {
        /// What was given.
        is: File,
        /// What was not.
        missing: File,
    },
    /// Clients cannot be verified.
    #[error("client certificates are asked for, and there is no CA bundle to verify them with")]
    NothingToVerifyWith,
    /// Certificate and key are those of different pairs.
    #[error(
        "the private key {} is not that of the certificate {}; after a change, both files have to be replaced",
        .key.display(), .certificate.display()
    )]
    Mismatch {
        /// Of the certificate.
        certificate: PathBuf,
        /// Of the key.
        key: PathBuf,
    },
    /// rustls refuses what was read.
    #[error("TLS cannot be set up with these files: {problem}")]
    Refused {
        /// In rustls's words.
        problem: String,
    },
}

/// What the files have in them.
pub(crate) struct Material {
    pub(crate) own: Option<Own>,
    pub(crate) authorities: Option<Arc<RootCertStore>>,
}

/// Who we are.
pub(crate) struct Own {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) identity: Identity,
}

/// The files as bytes. Not `Debug`: the key is among them.
pub(crate) struct Contents {
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    /// # Errors
    /// A file that cannot be read, or half of a pair.
    pub(crate) fn read(settings: &Settings) -> Result<Self, LoadError> {
        match (&settings.certificate, &settings.key) {
            (Some(_), None) => return Err(alone(File::Certificate, File::Key)),
            (None, Some(_)) => return Err(alone(File::Key, File::Certificate)),
            _ => {}
        }
        Ok(Self {
            certificate: read(File::Certificate, settings.certificate.as_deref())?,
            key: read(File::Key, settings.key.as_deref())?,
            authorities: read(File::Authorities, settings.authorities.as_deref())?,
        })
    }

    /// Equal for equal contents; other contents have, but for accidents, another one.
    pub(crate) fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key, &self.authorities).hash(&mut hasher);
        hasher.finish()
    }

    /// # Errors
    /// A file that has not got in it what it should.
    pub(crate) fn parse(&self, settings: &Settings) -> Result<Material, LoadError> {
        let own = match (&self.certificate, &self.key, &settings.certificate, &settings.key) {
            (Some(certificate), Some(key), Some(certificate_path), Some(key_path)) => {
                let chain = certificates(File::Certificate, certificate_path, certificate)?;
                let identity = identity(certificate_path, &chain)?;
                let key = private_key(key_path, key)?;
                Some(Own { chain, key, identity })
            }
            _ => None,
        };
        let authorities = match (&self.authorities, &settings.authorities) {
            (Some(bundle), Some(path)) => Some(Arc::new(authorities(path, bundle)?)),
            _ => None,
        };
        Ok(Material { own, authorities })
    }
}

fn alone(is: File, missing: File) -> LoadError {
    LoadError::Alone { is, missing }
}

fn read(file: File, path: Option<&Path>) -> Result<Option<Vec<u8>>, LoadError> {
    let Some(path) = path else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(LoadError::Unreadable {
            file,
            path: path.to_owned(),
            source,
        }),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => Err(malformed(file, path, "it is larger than 4 MiB")),
        Ok(_) => Ok(Some(bytes)),
    }
}

fn malformed(file: File, path: &Path, problem: impl Into<String>) -> LoadError {
    LoadError::Malformed {
        file,
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn certificates(file: File, path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| malformed(file, path, format!("it is no PEM: {error}")))?;
    if found.is_empty() {
        return Err(malformed(
            file,
            path,
            "it has no -----BEGIN CERTIFICATE-----; PEM is wanted",
        ));
    }
    Ok(found)
}

/// A certificate that no peer would take as ours is better found by whoever starts the process.
fn identity(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Identity, LoadError> {
    let first = chain.first().map(|first| Identity::of_certificate(first));
    first
        .unwrap_or_else(|| Ok(Identity::default()))
        .map_err(|error| match error {
            IdentityError::Authority { .. } => malformed(
                File::Certificate,
                path,
                format!("{error}, and put that first into the file"),
            ),
            other => malformed(File::Certificate, path, other.to_string()),
        })
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, LoadError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound if contains(bytes, b"BEGIN ENCRYPTED PRIVATE KEY") => {
                "it is encrypted; take the password off: openssl pkey -in KEY -out PLAIN".to_owned()
            }
            pem::Error::NoItemsFound => "it has no private key in PEM (PKCS #8, SEC 1 or PKCS #1)".to_owned(),
            other => format!("it is no PEM: {other}"),
        };
        malformed(File::Key, path, problem)
    })
}

fn contains(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}

fn authorities(path: &Path, bytes: &[u8]) -> Result<RootCertStore, LoadError> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates(File::Authorities, path, bytes)?.into_iter().enumerate() {
        store.add(certificate).map_err(|error| {
            let problem = format!("certificate {} in it cannot be an authority: {error}", index + 1);
            malformed(File::Authorities, path, problem)
        })?;
    }
    Ok(store)
}

/// Whether others than owner and group may read the file; not on systems that have no such notion.
pub(crate) fn is_open_to_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}
