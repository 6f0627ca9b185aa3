//! Where things are in etcd. Numbers are 16 hexadecimal digits, so that the order of keys is theirs.

use crate::model::{ReplicaId, Revision};

/// Of a registry that is given no other.
pub(super) const DEFAULT_PREFIX: &str = "/tessera/registry/";

/// The layout below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// `prefix` ends in '/'.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// What the store is: made once, never changed.
    pub(super) fn meta(&self) -> String {
        format!("{}meta", self.prefix)
    }

    /// The last commit. Its etcd revision is the fence that commits compare.
    pub(super) fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    /// All groups.
    pub(super) fn log(&self) -> String {
        format!("{}log/", self.prefix)
    }

    /// The group that begins with a revision.
    pub(super) fn group(&self, first: Revision) -> String {
        format!("{}log/{:016x}", self.prefix, first.get())
    }

    /// The revision that the group at a key begins with.
    pub(super) fn first_of(&self, key: &[u8]) -> Option<Revision> {
        let digits = key.strip_prefix(self.log().as_bytes())?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(Revision::new)
    }

    /// The parts of all groups that are too large for one request.
    pub(super) fn parts(&self) -> String {
        format!("{}part/", self.prefix)
    }

    /// The parts of all groups that begin with a revision.
    pub(super) fn parts_from(&self, first: Revision) -> String {
        format!("{}part/{:016x}/", self.prefix, first.get())
    }

    /// The parts of one group: those of a commit that was overtaken are beside those of the one that was first.
    pub(super) fn parts_of(&self, first: Revision, nonce: u64) -> String {
        format!("{}part/{:016x}/{nonce:016x}/", self.prefix, first.get())
    }

    /// The sessions of all replicas.
    pub(super) fn sessions(&self) -> String {
        format!("{}session/", self.prefix)
    }

    /// The session of one replica.
    pub(super) fn session(&self, replica: ReplicaId) -> String {
        format!("{}session/{replica}", self.prefix)
    }

    /// The replica whose session is at a key.
    pub(super) fn replica_of(&self, key: &[u8]) -> Option<ReplicaId> {
        let digits = std::str::from_utf8(key.strip_prefix(self.sessions().as_bytes())?).ok()?;
        u64::from_str_radix(digits, 16).ok().map(ReplicaId::from_bits)
    }

    /// Which checkpoint counts.
    pub(super) fn current(&self) -> String {
        format!("{}checkpoint/current", self.prefix)
    }

    /// Who writes the next one.
    pub(super) fn building(&self) -> String {
        format!("{}checkpoint/building", self.prefix)
    }

    /// The chunks of all checkpoints.
    pub(super) fn chunks(&self) -> String {
        format!("{}checkpoint/at/", self.prefix)
    }

    /// The chunks of one.
    pub(super) fn chunks_of(&self, revision: Revision, nonce: u64) -> String {
        format!("{}checkpoint/at/{:016x}-{nonce:016x}/", self.prefix, revision.get())
    }
}

/// One of several under a prefix.
pub(super) fn nth(prefix: &str, n: u32) -> String {
    format!("{prefix}{n:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_their_numbers_and_read_back() {
        let keys = Keys::new(DEFAULT_PREFIX);
        let (small, large) = (Revision::new(9), Revision::new(10));
        assert!(keys.group(small) < keys.group(large));
        assert_eq!(keys.first_of(keys.group(large).as_bytes()), Some(large));
        assert_eq!(keys.first_of(b"/tessera/registry/log/x"), None);
        let replica = ReplicaId::from_bits(7);
        assert_eq!(keys.replica_of(keys.session(replica).as_bytes()), Some(replica));
        assert!(nth("", 0xff) < nth("", 0x100));
    }
}
