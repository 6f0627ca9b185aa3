//! The flags of `tessera account`: what is done to the accounts' store itself.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::examples;

/// `tessera account`
#[derive(Debug, Args)]
#[command(after_help = examples::ACCOUNT, arg_required_else_help = true)]
pub(crate) struct AccountCommand {
    #[command(subcommand)]
    pub(crate) deed: AccountDeed,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountDeed {
    /// Make an account an operator or organiser: how the first operator comes to be
    Grant(GrantArgs),
    /// Print the public keys that access tokens are signed with, as a JSON Web Key Set
    Keys(AccountStore),
}

/// Where the accounts are.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccountStore {
    /// The store of the user service [default: users.db in --data-dir]
    #[arg(long, value_name = "FILE", env = "TESSERA_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,

    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "TESSERA_DATA_DIR", default_value = "./tessera-data")]
    pub(crate) data_dir: PathBuf,
}

/// `tessera account grant`
#[derive(Debug, Args)]
pub(crate) struct GrantArgs {
    /// The e-mail address of an account that has signed up
    #[arg(value_name = "EMAIL")]
    pub(crate) email: String,

    /// What it becomes, beside what it is
    #[arg(long, value_name = "ROLE", env = "TESSERA_ROLE", value_enum, required = true)]
    pub(crate) role: Vec<GrantedRole>,

    #[command(flatten)]
    pub(crate) store: AccountStore,
}

/// What an account can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GrantedRole {
    Buyer,
    Organiser,
    Operator,
}
