//! What the operator's commands and the roles show to a registry: read where the flags say, and never said again.

use std::{fs::File, io::Read as _, path::Path};

use registry_client::{Bearer, Registry, Token};

use crate::{
    args::{TokenArgs, TokenSource},
    failure::Failure,
};

/// A token has 60 characters; a file that is larger is another one.
const MAX_FILE: u64 = 8 << 10;

mod following;

pub(crate) use following::{Followed, followed};

/// The token that the flags name, if they name one.
pub(crate) fn token(args: &TokenArgs) -> Result<Option<Token>, Failure> {
    token_of(args.token.as_ref(), "--token")
}

/// The token that this flag names, if it names one.
pub(crate) fn token_of(source: Option<&TokenSource>, flag: &str) -> Result<Option<Token>, Failure> {
    match source {
        None => Ok(None),
        // How a compose file says "none".
        Some(TokenSource::Given(text)) if text.is_empty() => Ok(None),
        Some(TokenSource::Given(text)) => parse_for(flag, text).map(Some),
        Some(TokenSource::File(file)) => parse_for(flag, &read(file)?).map(Some),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|error| Failure::usage(format!("the token cannot be read from {}", file.display())).because(&error))?;
    Ok(text)
}

fn parse(text: &str) -> Result<Token, Failure> {
    parse_for("--token", text)
}

fn parse_for(flag: &str, text: &str) -> Result<Token, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("{flag} cannot be used")).because(&error))
}

/// The registry with the token that the flags name.
pub(crate) fn show(registry: Registry, args: &TokenArgs) -> Result<Registry, Failure> {
    let Some(token) = token(args)? else {
        return Ok(registry);
    };
    with(registry, token, args)
}

/// What is shown to these endpoints: the token that the flags name, if they name one and if it may be sent there.
pub(crate) fn shown_to<'a>(
    endpoints: impl IntoIterator<Item = &'a str>,
    tls: Option<&tls::Client>,
    args: &TokenArgs,
) -> Result<Bearer, Failure> {
    let Some(token) = token(args)? else {
        return Ok(Bearer::default());
    };
    let registry = Registry::connect_with(endpoints, tls)
        .map_err(|error| Failure::usage("the address is wrong").because(&error))?;
    with(registry, token.clone(), args)?;
    Ok(Bearer::new(Some(token)))
}

/// The registry with this token, if it may be sent there.
pub(crate) fn with(registry: Registry, token: Token, args: &TokenArgs) -> Result<Registry, Failure> {
    if args.insecure {
        return Ok(registry.with_token_in_the_clear(token));
    }
    let shown = registry.with_token(token);
    shown.map_err(|error| Failure::usage("the token is not sent").because(&error))
}
