//! From the flags of security to what a process shows and believes. The files are read here, and what is wrong with them is told
//! with the flag that names them.

pub(crate) mod certs;

use tls::{LoadError, Settings, Tls, Watching};

use crate::{
    args::{ClientAuth, RegistryUrl, ServerTlsArgs, StoreTlsArgs, TlsArgs},
    failure::Failure,
};

/// TLS of a process that serves. It follows its files for as long as this is held.
pub(crate) struct Secured {
    pub(crate) tls: Tls,
    _watching: Watching,
}

/// TLS of a server; `None` without any flag.
pub(crate) fn server(args: &ServerTlsArgs) -> Result<Option<Secured>, Failure> {
    let files = &args.files;
    if args.tls_client_auth.is_some() && files.tls_cert.is_none() {
        return Err(
            Failure::usage("--tls-client-auth is for servers that speak TLS").advice("pass --tls-cert and --tls-key")
        );
    }
    let Some(tls) = load(files, client_auth(args))? else {
        return Ok(None);
    };
    let watching = followed(&tls)?;
    Ok(Some(Secured {
        tls,
        _watching: watching,
    }))
}

/// What a server with these flags asks of its clients.
pub(crate) fn client_auth(args: &ServerTlsArgs) -> tls::ClientAuth {
    match (args.tls_client_auth, &args.files.tls_cert, &args.files.tls_ca) {
        (Some(ClientAuth::None), ..) => tls::ClientAuth::None,
        (Some(ClientAuth::Optional), ..) => tls::ClientAuth::Optional,
        (Some(ClientAuth::Required), ..) => tls::ClientAuth::Required,
        (None, Some(_), Some(_)) => tls::ClientAuth::Required,
        (None, ..) => tls::ClientAuth::None,
    }
}

/// TLS of a server that dials these registries.
pub(crate) fn member(args: &ServerTlsArgs, registry: &[RegistryUrl]) -> Result<Option<Secured>, Failure> {
    let secured = server(args)?;
    let dials = secured.as_ref().is_some_and(|secured| secured.tls.client().is_some());
    match registry.iter().find(|url| url.as_str().starts_with("https://")) {
        Some(url) if !dials => Err(Failure::usage(format!(
            "{url} speaks TLS, and there is no CA bundle to verify it with"
        ))
        .advice("pass --tls-ca")),
        _ => Ok(secured),
    }
}

/// TLS of a command; `None` without --tls-ca.
pub(crate) fn client(args: &TlsArgs) -> Result<Option<tls::Client>, Failure> {
    let tls = load(args, tls::ClientAuth::None)?;
    Ok(tls.and_then(|tls| tls.client().cloned()))
}

/// TLS of a process that dials. It follows its files for as long as this is held.
pub(crate) struct Dials {
    pub(crate) client: tls::Client,
    _watching: Watching,
}

/// TLS to the store; `None` where it is spoken to without.
pub(crate) fn store(args: &StoreTlsArgs, is_secured: bool) -> Result<Option<Dials>, Failure> {
    let settings = Settings {
        certificate: args.store_cert.clone(),
        key: args.store_key.clone(),
        authorities: args.store_ca.clone(),
        client_auth: tls::ClientAuth::None,
    };
    if !is_secured {
        return match settings == Settings::default() {
            true => Ok(None),
            // Somebody believes that the store is spoken to with TLS.
            false => Err(Failure::usage(
                "--store-ca, --store-cert and --store-key are for a store that is spoken to with TLS",
            )
            .advice("pass --store etcds://HOST:PORT, or leave them out")),
        };
    }
    if settings.authorities.is_none() {
        return Err(
            Failure::usage("--store is etcds://, and there is no CA bundle to verify etcd's certificate with")
                .advice("pass --store-ca with the authority that issued it"),
        );
    }
    dials(&loaded(
        settings,
        "TLS to the store",
        "pass --store-cert and --store-key together",
    )?)
}

fn dials(tls: &Tls) -> Result<Option<Dials>, Failure> {
    let watching = followed(tls)?;
    Ok(tls.client().cloned().map(|client| Dials {
        client,
        _watching: watching,
    }))
}

/// TLS of a command that lives long; `None` without --tls-ca.
pub(crate) fn follower(args: &TlsArgs) -> Result<Option<Dials>, Failure> {
    match load(args, tls::ClientAuth::None)? {
        Some(tls) => dials(&tls),
        None => Ok(None),
    }
}

fn load(args: &TlsArgs, client_auth: tls::ClientAuth) -> Result<Option<Tls>, Failure> {
    if args.tls_cert.is_none() && args.tls_key.is_none() && args.tls_ca.is_none() {
        return Ok(None);
    }
    let settings = Settings {
        certificate: args.tls_cert.clone(),
        key: args.tls_key.clone(),
        authorities: args.tls_ca.clone(),
        client_auth,
    };
    loaded(settings, "TLS", "pass --tls-cert and --tls-key together").map(Some)
}

fn loaded(settings: Settings, what: &str, together: &str) -> Result<Tls, Failure> {
    Tls::load(settings).map_err(|error| {
        let failure = match &error {
            LoadError::Alone { .. } | LoadError::NothingToVerifyWith => Failure::usage(format!("{what} is not set up")),
            _ => Failure::new(format!("{what} cannot be set up")),
        };
        let failure = failure.because(&error);
        match &error {
            LoadError::Alone { .. } => failure.advice(together),
            LoadError::NothingToVerifyWith => failure.advice("pass --tls-ca, or --tls-client-auth none"),
            _ => failure.advice("correct the file; `tessera certs --out DIR` issues a set to begin with"),
        }
    })
}

fn followed(tls: &Tls) -> Result<Watching, Failure> {
    tls.watch()
        .map_err(|error| Failure::new("the TLS files cannot be followed").because(&error))
}
