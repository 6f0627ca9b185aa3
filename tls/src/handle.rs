//! The two sides of one set of files, and where they are loaded.

use std::{io, sync::Arc};

use rustls::crypto::CryptoProvider;

use crate::{
    client::{self, Client},
    files::{self, Contents, LoadError, Settings},
    identity::Identity,
    reload::Watching,
    server::{self, Server},
};

/// What a process needs for TLS. Cheap to clone; clones share what [`Tls::watch`] reloads.
#[derive(Debug, Clone)]
pub struct Tls {
    settings: Arc<Settings>,
    server: Option<Server>,
    client: Option<Client>,
    identity: Option<Arc<Identity>>,
    /// Of the files as they were loaded.
    pub(crate) mark: u64,
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// rustls says of a wrong pair that keys are inconsistent; people have files.
pub(crate) fn mismatch_or(settings: &Settings, error: rustls::Error) -> LoadError {
    match (&error, &settings.certificate, &settings.key) {
        (rustls::Error::InconsistentKeys(_), Some(certificate), Some(key)) => LoadError::Mismatch {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        _ => LoadError::Refused {
            problem: error.to_string(),
        },
    }
}

/// What the files make, all of it or nothing.
pub(crate) struct Loaded {
    server: Option<server::Configs>,
    client: Option<client::Config>,
    identity: Option<Identity>,
}

impl Loaded {
    pub(crate) fn try_new(contents: &Contents, settings: &Settings) -> Result<Self, LoadError> {
        let material = contents.parse(settings)?;
        Ok(Self {
            server: server::Configs::try_new(&material, settings)?,
            client: client::Config::try_new(&material, settings)?,
            identity: material.own.map(|own| own.identity),
        })
    }

    /// Who we are by now, in one word.
    pub(crate) fn name(&self) -> String {
        self.identity
            .as_ref()
            .map_or_else(|| "nobody".to_owned(), Identity::name)
    }
}

impl Tls {
    /// Reads the files. A key that others may read is warned of in the log.
    ///
    /// # Errors
    /// [`LoadError`] with the file and what is wrong with it.
    pub fn load(settings: Settings) -> Result<Self, LoadError> {
        let contents = Contents::read(&settings)?;
        let loaded = Loaded::try_new(&contents, &settings)?;
        if let Some(key) = &settings.key
            && files::is_open_to_others(key)
        {
            tracing::warn!(key = %key.display(), "everybody on this machine may read the private key; chmod 600 it");
        }
        Ok(Self {
            settings: Arc::new(settings),
            identity: loaded.identity.map(Arc::new),
            server: loaded.server.map(Server::new),
            client: loaded.client.map(Client::new),
            mark: contents.mark(),
        })
    }

    /// Follows the files from now on: every two seconds and on SIGHUP, for as long as the result is held. Must be called within
    /// a tokio runtime.
    ///
    /// What is changed and good is used for new connections; existing ones live on. What is changed and broken is logged,
    /// once, and the old goes on.
    ///
    /// # Errors
    /// If the operating system refuses to install a handler for SIGHUP.
    pub fn watch(&self) -> io::Result<Watching> {
        Watching::start(self.clone())
    }

    /// The side that is dialled; `None` without a certificate.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// The side that dials; `None` without a CA bundle.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Who we were when the files were loaded first; `None` without a certificate.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn replace(&self, loaded: Loaded) {
        if let (Some(server), Some(configs)) = (&self.server, loaded.server) {
            server.replace(configs);
        }
        if let (Some(client), Some(config)) = (&self.client, loaded.client) {
            client.replace(config);
        }
    }
}
