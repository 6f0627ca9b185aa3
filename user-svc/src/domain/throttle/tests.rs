//! What attackers and owners get, at which second.

use super::*;

const HOME: &str = "192.0.2.1";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct World(Throttle);

impl World {
    fn new() -> Self {
        Self(Throttle::new())
    }

    fn attempt(&mut self, email: &str, peer: &str, now: u64) -> Result<Attempt, Duration> {
        let email = Email::try_new(email).expect("an address");
        self.0.attempt(&email, peer.parse().expect("an address"), secs(now))
    }

    /// How many wrong passwords in a row are looked at.
    fn fails(&mut self, email: &str, peer: &str, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| self.attempt(email, peer, now).is_ok()).count()
    }

    fn signs_in(&mut self, email: &str, peer: &str, now: u64) -> bool {
        self.attempt(email, peer, now)
            .map(|attempt| self.0.succeeded(attempt, secs(now)))
            .is_ok()
    }
}

#[test]
fn five_at_once_and_then_one_each_half_minute() {
    let mut world = World::new();
    assert_eq!(world.fails("ada@x", HOME, 100, 20), 5);
    assert_eq!(world.attempt("ada@x", HOME, 100).err(), Some(secs(30)));
    assert_eq!(world.attempt("ada@x", HOME, 120).err(), Some(secs(10)));
    assert_eq!(world.fails("ada@x", HOME, 130, 20), 1);
    assert_eq!(
        world.fails("ada@x", HOME, 100_000, 20),
        5,
        "never more than at the start"
    );
}

#[test]
fn a_right_password_costs_nothing_however_often() {
    let mut world = World::new();
    assert!((0..10_000).all(|_| world.signs_in("ada@x", HOME, 1)));
    assert_eq!(world.fails("ada@x", HOME, 1, 20), 5);
}

/// The promise: whoever hammers an account from elsewhere does not keep its owner out, also not with very many machines.
#[test]
fn hammering_an_account_does_not_keep_its_owner_out() {
    let mut world = World::new();
    assert!(world.signs_in("ada@x", HOME, 1));
    let mut guessed = 0;
    for machine in 0..2_000_u32 {
        let peer = format!("198.51.{}.{}", machine / 250, machine % 250);
        guessed += world.fails("ada@x", &peer, 10, 5);
    }
    assert_eq!(guessed, 100, "the account's own bound holds all of them together");
    assert!(world.signs_in("ada@x", HOME, 10), "at home, at once");
    // At a new place: slowed by seconds, not locked out.
    assert_eq!(world.attempt("ada@x", "203.0.113.9", 10).err(), Some(secs(2)));
    assert!(world.signs_in("ada@x", "203.0.113.9", 12));
}

#[test]
fn one_machine_cannot_try_one_password_on_everybody() {
    let mut world = World::new();
    let looked_at: usize = (0..10_000)
        .map(|user| world.fails(&format!("{user}@x"), HOME, 5, 1))
        .sum();
    assert_eq!(looked_at, 256);
    assert!(world.attempt("new@x", "192.0.2.2", 5).is_ok(), "its neighbour may");
}

#[test]
fn a_provider_s_customer_is_one_peer_whatever_address_it_takes() {
    let mut world = World::new();
    assert_eq!(world.fails("ada@x", "2001:db8:1:2::1", 5, 5), 5);
    assert_eq!(world.fails("ada@x", "2001:db8:1:2:ffff::9", 5, 5), 0);
    assert_eq!(world.fails("ada@x", "2001:db8:1:3::1", 5, 5), 5);
    assert_eq!(world.fails("ada@x", "192.0.2.7", 5, 5), 5);
    assert_eq!(
        world.fails("ada@x", "::ffff:192.0.2.7", 5, 5),
        0,
        "the same one, mapped"
    );
}

#[test]
fn what_was_not_looked_at_is_given_back() {
    let mut world = World::new();
    for _ in 0..1_000 {
        let attempt = world.attempt("ada@x", HOME, 5).expect("none was used up");
        world.0.give_back(attempt);
    }
    assert_eq!(world.fails("ada@x", HOME, 5, 20), 5);
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_shares_an_allowance() {
    let mut world = World(Throttle::with_most(10));
    let looked_at: usize = (0..1_000)
        .map(|machine| {
            let peer = format!("198.51.{}.{}", machine / 250, machine % 250);
            world.fails(&format!("{machine}@x"), &peer, 5, 1)
        })
        .sum();
    let remembered = [
        world.0.pairs.full_at.len(),
        world.0.peers.full_at.len(),
        world.0.accounts.full_at.len(),
        world.0.known.len(),
    ];
    assert_eq!(remembered, [10, 10, 10, 0]);
    assert_eq!(
        looked_at,
        10 + 5,
        "ten pairs of their own, and the five that the others share"
    );
    // Later there is room again, because what is remembered says nothing any more.
    assert_eq!(world.fails("new@x", "203.0.113.1", 10_000, 20), 5);
    let full = (0..100).filter(|at| world.signs_in(&format!("k{at}@x"), &format!("10.0.0.{at}"), 20_000));
    assert_eq!(full.count(), 100);
    assert_eq!(world.0.known.len(), 10);
}

/// Many people behind one address sign up, rightly, and each asks again when the answer was lost; a machine there is slowed to one
/// a second, and nobody elsewhere notices.
#[test]
fn a_crowd_behind_one_address_signs_up_and_a_machine_is_slowed() {
    let mut throttle = Throttle::new();
    let mut sign_ups = |peer: &str, now: u64, tries: usize| {
        let peer: IpAddr = peer.parse().expect("an address");
        let made = (0..tries).filter(|_| {
            let sign_up = throttle.sign_up(peer, secs(now));
            sign_up.map(|sign_up| throttle.signed_up(sign_up)).is_ok()
        });
        made.count()
    };
    assert_eq!(sign_ups(HOME, 100, 10_000), 4_096);
    assert_eq!(sign_ups(HOME, 110, 10_000), 10);
    assert_eq!(sign_ups("192.0.2.2", 110, 100), 100, "others");
    assert_eq!(sign_ups(HOME, 100_000, 10_000), 4_096, "never more than at the start");
}

/// Whoever looks for who has an account is slowed early, and what was not answered counts as nothing.
#[test]
fn asking_for_addresses_that_are_taken_is_slowed_early() {
    let mut throttle = Throttle::new();
    let peer: IpAddr = HOME.parse().expect("an address");
    for _ in 0..10_000 {
        let sign_up = throttle.sign_up(peer, secs(1)).expect("not answered");
        throttle.no_sign_up(sign_up);
    }
    let taken = (0..1_000).filter(|_| throttle.sign_up(peer, secs(1)).is_ok()).count();
    assert_eq!(taken, 256);
    assert_eq!(throttle.sign_up(peer, secs(1)).err(), Some(secs(10)));
    assert!(throttle.sign_up(peer, secs(11)).is_ok());
}

/// What is done to sign-ups from an address must keep nobody there from signing in.
#[test]
fn sign_ups_do_not_keep_anybody_from_signing_in() {
    let mut world = World::new();
    let peer: IpAddr = HOME.parse().expect("an address");
    while let Ok(sign_up) = world.0.sign_up(peer, secs(1)) {
        drop(sign_up);
    }
    assert!(world.signs_in("ada@x", HOME, 1));
    assert_eq!(world.fails("bob@x", HOME, 1, 20), 5);
}
