//! How many wrong passwords are taken, and how many sign-ups. Pure: the time is an argument, the answer is "go on" or "not before".
//!
//! Locking an account after some wrong passwords is what everybody thinks of first, and it hands out a weapon: whoever knows an
//! address can keep its owner out. So what is counted is not the account:
//!
//! 1. Each pair of account and peer has a few attempts, and gets another one each half minute. Whoever hammers an account from
//!    elsewhere uses up their own pair.
//! 2. Each peer has more, over all accounts: trying one common password on many accounts is bounded by this one.
//! 3. Each account has many, over all peers from which it was never signed in to: what a hundred machines can guess together.
//!    It fills up again within seconds, so it slows and does not lock; and it does not count peers from which the account was
//!    signed in to before, so that its owner, at the usual place, is not held up by what others try.
//!
//! Only failures count: an attempt is taken when it begins, so that a thousand at once are no way round, and given back when
//! the password was right or was not looked at. An account that does not exist is counted like one that does: the answer must
//! not tell them apart.
//!
//! Signing up is counted by peer, apart from signing in: whoever makes accounts by the thousand behind one address keeps nobody
//! there from their own account. Two things are bounded. Each peer may make many accounts, and few more each minute: a crowd
//! behind one address, not a machine. And it may ask for few addresses that are taken: that answer tells who has an account.
//!
//! Memory is bounded: so many pairs, peers and accounts are remembered, and what does not fit shares one allowance.

use std::{collections::HashMap, hash::Hash, net::IpAddr, time::Duration};

use sha2::{Digest as _, Sha256};

use super::account::Email;

/// Typing errors of one person at one place.
const PAIR: Rate = Rate::new(5, Duration::from_secs(30));
/// Those of everybody behind one address; more than the password pool takes at once (`passwords`), or signing in at the same
/// moment, rightly, would count as guessing.
const PEER: Rate = Rate::new(256, Duration::from_secs(2));
/// What machines that never signed in may guess together. At its slowest, 43,200 guesses a day.
const ACCOUNT: Rate = Rate::new(100, Duration::from_secs(2));

/// Sign-ups from one peer that came to nothing, because the address was taken. More than the password pool takes at once: each
/// counts until it is answered.
const VAIN: Rate = Rate::new(256, Duration::from_secs(10));
/// Accounts that one peer makes. A machine hashes some 50 passwords a second: so many are a minute and a half of it.
const SIGN_UPS: Rate = Rate::new(4_096, Duration::from_secs(1));

/// How many of each are remembered. An entry has some 64 bytes: 32 MB if all maps are full.
const MOST: usize = 100_000;
/// A map that is full is looked through for entries that say nothing any more, at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What is remembered of attempts.
#[derive(Debug)]
pub(crate) struct Throttle {
    pairs: Buckets<(Account, Peer)>,
    peers: Buckets<Peer>,
    accounts: Buckets<Account>,
    vain: Buckets<Peer>,
    sign_ups: Buckets<Peer>,
    /// Where an account was signed in from.
    known: HashMap<(Account, Peer), Duration>,
    most: usize,
}

/// An attempt that was let through. Dropped, it counts as a failure: also that of a caller who did not wait for the answer.
#[derive(Debug)]
#[must_use]
pub(crate) struct Attempt {
    account: Account,
    peer: Peer,
    is_known: bool,
}

/// A sign-up that was let through. Dropped, it counts as one whose address was taken.
#[derive(Debug)]
#[must_use]
pub(crate) struct SignUp(Peer);

/// 128 bits of the address's SHA-256: of one size, and no list of addresses in a memory dump.
type Account = u128;

/// An IPv4 address, or the /64 of an IPv6 one, which is what one customer of a provider has.
type Peer = u128;

impl Throttle {
    pub(crate) fn new() -> Self {
        Self::with_most(MOST)
    }

    fn with_most(most: usize) -> Self {
        Self {
            pairs: Buckets::new(PAIR, most),
            peers: Buckets::new(PEER, most),
            accounts: Buckets::new(ACCOUNT, most),
            vain: Buckets::new(VAIN, most),
            sign_ups: Buckets::new(SIGN_UPS, most),
            known: HashMap::new(),
            most,
        }
    }

    /// Takes an attempt, or says how long to wait before the next one.
    pub(crate) fn attempt(&mut self, email: &Email, peer: IpAddr, now: Duration) -> Result<Attempt, Duration> {
        let attempt = Attempt {
            account: account(email),
            peer: network(peer),
            is_known: false,
        };
        let pair = (attempt.account, attempt.peer);
        let is_known = self.known.contains_key(&pair);
        // The peer's first: a peer that has none left makes no more entries in the other maps.
        let mut wait = self.peers.wait(&attempt.peer, now);
        if wait.is_zero() {
            wait = self.pairs.wait(&pair, now);
        }
        if wait.is_zero() && !is_known {
            wait = self.accounts.wait(&attempt.account, now);
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        self.peers.take(attempt.peer, now);
        self.pairs.take(pair, now);
        if !is_known {
            self.accounts.take(attempt.account, now);
        }
        Ok(Attempt { is_known, ..attempt })
    }

    /// The password was right.
    pub(crate) fn succeeded(&mut self, attempt: Attempt, now: Duration) {
        let pair = (attempt.account, attempt.peer);
        self.give_back(attempt);
        // Full: a new place is then one that is not known.
        if self.known.len() < self.most || self.known.contains_key(&pair) {
            self.known.insert(pair, now);
        }
    }

    /// Takes a sign-up, or says how long to wait before the next one.
    pub(crate) fn sign_up(&mut self, peer: IpAddr, now: Duration) -> Result<SignUp, Duration> {
        let peer = network(peer);
        let wait = self.vain.wait(&peer, now).max(self.sign_ups.wait(&peer, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.vain.take(peer, now);
        self.sign_ups.take(peer, now);
        Ok(SignUp(peer))
    }

    /// There is an account more.
    pub(crate) fn signed_up(&mut self, SignUp(peer): SignUp) {
        self.vain.give_back(&peer);
    }

    /// Nobody was told whether there is an account, and none was made.
    pub(crate) fn no_sign_up(&mut self, SignUp(peer): SignUp) {
        self.vain.give_back(&peer);
        self.sign_ups.give_back(&peer);
    }

    /// The password was not looked at.
    pub(crate) fn give_back(&mut self, attempt: Attempt) {
        self.peers.give_back(&attempt.peer);
        self.pairs.give_back(&(attempt.account, attempt.peer));
        if !attempt.is_known {
            self.accounts.give_back(&attempt.account);
        }
    }
}

fn account(email: &Email) -> Account {
    let digest = Sha256::digest(email.as_str());
    digest[..16].iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

fn network(peer: IpAddr) -> Peer {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits() & !(u128::from(u64::MAX)),
    }
}

/// So many at once, and another one each `period`.
#[derive(Debug, Clone, Copy)]
struct Rate {
    period: Duration,
    /// `period` times what may be taken at once.
    burst: Duration,
}

impl Rate {
    const fn new(at_once: u32, period: Duration) -> Self {
        Self {
            period,
            burst: period.saturating_mul(at_once),
        }
    }
}

/// Token buckets by key. Each is one instant, when it will be full again (the generic cell rate algorithm's theoretical arrival
/// time); one that is full says nothing and may be forgotten.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    most: usize,
    full_at: HashMap<K, Duration>,
    /// The bucket of all those that are not remembered for want of room.
    shared: Duration,
    swept_at: Duration,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Rate, most: usize) -> Self {
        Self {
            rate,
            most,
            full_at: HashMap::new(),
            shared: Duration::ZERO,
            swept_at: Duration::ZERO,
        }
    }

    /// How long until there is something to take; zero when there is.
    fn wait(&mut self, key: &K, now: Duration) -> Duration {
        self.sweep(now);
        let full_at = match self.full_at.get(key) {
            Some(full_at) => *full_at,
            None if self.has_room() => Duration::ZERO,
            None => self.shared,
        };
        let after = full_at.max(now) + self.rate.period;
        after.saturating_sub(now + self.rate.burst)
    }

    fn take(&mut self, key: K, now: Duration) {
        let full_at = if self.has_room() || self.full_at.contains_key(&key) {
            self.full_at.entry(key).or_default()
        } else {
            &mut self.shared
        };
        *full_at = (*full_at).max(now) + self.rate.period;
    }

    fn give_back(&mut self, key: &K) {
        let full_at = self.full_at.get_mut(key).unwrap_or(&mut self.shared);
        *full_at = full_at.saturating_sub(self.rate.period);
    }

    fn has_room(&self) -> bool {
        self.full_at.len() < self.most
    }

    fn sweep(&mut self, now: Duration) {
        if !self.has_room() && now >= self.swept_at + SWEEP_EVERY {
            self.swept_at = now;
            self.full_at.retain(|_, full_at| *full_at > now);
        }
    }
}

#[cfg(test)]
mod tests;
