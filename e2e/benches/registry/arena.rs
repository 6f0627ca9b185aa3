//! Who takes part in a figure: our registry, and what is installed of the others.

use crate::{
    Failed,
    server::{Kind, Server},
};

/// The opponents of one figure, on empty stores.
pub(crate) struct Arena {
    servers: Vec<(Kind, Server)>,
}

impl Arena {
    /// Starts those of `kinds` that are installed.
    pub(crate) async fn start(kinds: &[Kind]) -> Result<Self, Failed> {
        let mut servers = Vec::new();
        for &kind in kinds {
            if kind.is_installed() {
                servers.push((kind, kind.start().await?));
            }
        }
        Ok(Self { servers })
    }

    /// One of them, if it takes part.
    pub(crate) fn get(&self, kind: Kind) -> Option<&Server> {
        self.servers
            .iter()
            .find_map(|(other, server)| (*other == kind).then_some(server))
    }

    /// Our registry always takes part.
    pub(crate) fn tessera(&self) -> Result<&Server, Failed> {
        self.get(Kind::Tessera).ok_or_else(|| "the registry takes part".into())
    }

    /// Who takes part, in the order of this round: it rotates, since whoever is next finds warmer caches or a hotter machine.
    pub(crate) fn order(&self, round: usize) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.servers.iter().map(|(kind, _)| *kind).collect();
        let turns = round % kinds.len().max(1);
        kinds.rotate_left(turns);
        kinds
    }

    /// All of them, one by one.
    pub(crate) fn into_servers(self) -> impl Iterator<Item = (Kind, Server)> {
        self.servers.into_iter()
    }
}
