//! The flags of TLS: which certificate a process shows, and whom it believes.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};

use super::{examples, values};

/// What a client needs for TLS, and most of what a server does.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// Our certificate in PEM, our own first, intermediates after it; followed when it changes
    #[arg(long, value_name = "FILE", env = "TESSERA_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key in PEM, not encrypted
    #[arg(long, value_name = "FILE", env = "TESSERA_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The authorities that we believe, in PEM; for public ones /etc/ssl/certs/ca-certificates.crt
    #[arg(long, value_name = "FILE", env = "TESSERA_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
}

/// What a server needs for TLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct ServerTlsArgs {
    #[command(flatten)]
    pub(crate) files: TlsArgs,

    /// Whether clients have to show a certificate [default: required with --tls-ca, else none]
    #[arg(long, value_name = "WHEN", env = "TESSERA_TLS_CLIENT_AUTH", value_enum)]
    pub(crate) tls_client_auth: Option<ClientAuth>,
}

/// What a registry needs for TLS to its store. Files of their own: an etcd is rarely of the authority that our clients believe,
/// and must not be believed by one that it is not of.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreTlsArgs {
    /// The authorities that etcd's certificate is believed by, in PEM; for --store etcds://
    #[arg(long, value_name = "FILE", env = "TESSERA_STORE_CA")]
    pub(crate) store_ca: Option<PathBuf>,

    /// The certificate in PEM that etcd is shown, where it asks for one; followed when it changes
    #[arg(long, value_name = "FILE", env = "TESSERA_STORE_CERT")]
    pub(crate) store_cert: Option<PathBuf>,

    /// Its private key in PEM, not encrypted
    #[arg(long, value_name = "FILE", env = "TESSERA_STORE_KEY")]
    pub(crate) store_key: Option<PathBuf>,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientAuth {
    // Not doc comments: clap would print them, and the flag says it already.
    None,
    Optional,
    Required,
}

/// `tessera certs`
#[derive(Debug, Args)]
#[command(after_help = examples::CERTS)]
pub(crate) struct CertsArgs {
    /// Folder for the files; made when missing. An authority that is there already issues again
    #[arg(long, value_name = "DIR", env = "TESSERA_CERTS_OUT")]
    pub(crate) out: PathBuf,

    /// Names or addresses under which the servers are dialled, besides localhost
    #[arg(long, value_name = "NAME|IP,…", env = "TESSERA_CERTS_HOSTS", value_delimiter = ',')]
    pub(crate) host: Vec<String>,

    /// Further services to issue for, besides registry-svc, ticket-svc and user-svc
    #[arg(long, value_name = "NAME,…", env = "TESSERA_CERTS_SERVICES", value_delimiter = ',', value_parser = values::name)]
    pub(crate) service: Vec<String>,

    /// The namespace that the services are of; the registry's own is always "default"
    #[arg(long, value_name = "NAME", env = "TESSERA_NAMESPACE", default_value = "default", value_parser = values::name)]
    pub(crate) namespace: String,

    /// The trust domain of the SPIFFE ids; processes of different ones do not speak to each other
    #[arg(
        long,
        value_name = "NAME",
        env = "TESSERA_CERTS_TRUST_DOMAIN",
        default_value = "tessera.local"
    )]
    pub(crate) trust_domain: String,

    /// How long the certificates are good; the authority itself ten times as long
    #[arg(long, value_name = "DAYS", env = "TESSERA_CERTS_DAYS")]
    #[arg(default_value_t = 30, allow_negative_numbers = true, value_parser = value_parser!(u16).range(1..=398))]
    pub(crate) days: u16,
}
