//! The flags of who is let in and what one shows to be let in: tokens, and listening without either.
//!
//! A token is read by the command that needs it, not here: an error of clap repeats what was given.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand};

use super::{examples, values};

/// What is shown to the registry.
#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// Token for the registry, or @FILE with it (better: other users of this machine can read command lines)
    #[arg(long, value_name = "TOKEN|@FILE", env = "TESSERA_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<TokenSource>,

    /// Do without protection where it is required: listen beyond this machine without TLS, or send a token without it
    #[arg(long, env = "TESSERA_INSECURE", value_parser = values::switch())]
    pub(crate) insecure: bool,
}

/// Whom a registry lets in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct AccessArgs {
    /// File of tokens, as `tessera token` writes it: who has none of them is refused. Read again when it changes and on
    /// SIGHUP
    #[arg(long, value_name = "FILE", env = "TESSERA_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,

    /// Token that this registry shows to itself, or @FILE with it: where tokens are asked for it finds the monitor by it
    /// (scope `read:default`), and without one it reports to none
    #[arg(long, value_name = "TOKEN|@FILE", env = "TESSERA_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<TokenSource>,

    /// Listen beyond this machine with neither tokens nor client certificates: everybody who reaches it may do
    /// everything
    #[arg(long, env = "TESSERA_INSECURE", value_parser = values::switch())]
    pub(crate) insecure: bool,
}

/// A token, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// Itself.
    Given(String),
    /// The file that has it.
    File(PathBuf),
}

impl FromStr for TokenSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            Some(file) => Self::File(file.into()),
            None => Self::Given(text.to_owned()),
        })
    }
}

/// Where it is, never what it is.
impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given([redacted])"),
            Self::File(file) => write!(f, "File({})", file.display()),
        }
    }
}

/// `tessera token`
#[derive(Debug, Args)]
#[command(after_help = examples::TOKEN, arg_required_else_help = true)]
pub(crate) struct TokenCommand {
    #[command(subcommand)]
    pub(crate) deed: TokenDeed,
}

/// What is done with a file of tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenDeed {
    /// Make a token: prints it once, and keeps its hash
    Issue(IssueArgs),
    /// List the tokens of a file
    List(TokenFile),
    /// Take a token out: calls with it are refused within 2 s, its open streams end within 5 s
    Revoke(RevokeArgs),
}

/// The file.
#[derive(Debug, Clone, Args)]
pub(crate) struct TokenFile {
    /// The file of tokens, which `tessera registry --tokens` reads
    #[arg(
        long,
        value_name = "FILE",
        env = "TESSERA_TOKENS",
        default_value = "./tessera-tokens.json"
    )]
    pub(crate) file: PathBuf,
}

/// `tessera token issue`
#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    pub(crate) file: TokenFile,

    /// Whose it is, for people
    #[arg(long, value_name = "NAME", env = "TESSERA_TOKEN_NAME")]
    pub(crate) name: String,

    /// What it may do; several times for several: read, read:NAMESPACE, register:NAMESPACE/SERVICE, operate,
    /// operate:NAMESPACE. `*` is every namespace or service; without a namespace `default` is meant
    #[arg(
        long,
        value_name = "SCOPE",
        env = "TESSERA_TOKEN_SCOPES",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) scope: Vec<String>,

    /// How long it is good for, for example 90d or 12h [default: until it is revoked]
    #[arg(long, value_name = "DURATION", env = "TESSERA_TOKEN_TTL", value_parser = lifetime)]
    pub(crate) ttl: Option<Duration>,
}

/// `tessera token revoke`
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The token's id: the part between the underscores, as `tessera token list` shows it
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) file: TokenFile,
}

/// Days too, unlike other durations: tokens live longer than calls.
fn lifetime(text: &str) -> Result<Duration, String> {
    const RIGHT: &str = "give a number with a unit, for example 90d, 12h, 30m or 10s; at most 3650d";
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "d" => 24 * 3_600,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return Err(RIGHT.to_owned()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=315_360_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(RIGHT.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_on_the_command_line_is_not_shown() {
        let Ok(given) = "tsr_canary".parse::<TokenSource>();
        let Ok(file) = "@/run/token".parse::<TokenSource>();
        assert_eq!(format!("{given:?} {file:?}"), "Given([redacted]) File(/run/token)");
    }

    #[test]
    fn lifetimes_have_a_unit() {
        for (text, expected) in [
            ("90d", Some(90 * 24 * 3_600)),
            ("12h", Some(12 * 3_600)),
            ("30m", Some(1_800)),
            ("1s", Some(1)),
            ("3650d", Some(315_360_000)),
            ("3651d", None),
            ("0s", None),
            ("90", None),
            ("d", None),
            ("-1d", None),
            ("1.5h", None),
            ("90 d", None),
            ("1w", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(lifetime(text).ok(), expected.map(Duration::from_secs), "{text}");
        }
    }
}
