//! Argon2id on a bounded pool. Knows nothing of accounts.
//!
//! A hash takes 19 MiB and tens of milliseconds of a core on purpose. Unbounded, a hundred sign-ins at once would take 1.9 GB
//! and starve the runtime: so at most one hash a core runs, a bounded queue waits, and the rest is told to come back.

use std::{fmt, sync::Arc, thread};

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version, password_hash::phc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::account::Password;

/// OWASP's first choice for Argon2id with little memory: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// How many may wait. At some 20 ms a hash, the last of them waits a bit over a second on two cores: longer than that, and
/// an answer that says "later" is worth more than the hash.
const QUEUE: usize = 128;

/// Hashes and verifies passwords. Clones share the pool.
#[derive(Clone)]
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    /// The hash of nobody's password: what is verified when there is no account, so that both answers take equally long.
    nobody: Arc<str>,
    /// One a core.
    workers: Arc<Semaphore>,
    /// Workers and queue together.
    places: Arc<Semaphore>,
}

/// Why a password was not hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Too many are waiting. A retry may help.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// Argon2 refused, or the pool is gone.
    #[error("a password could not be hashed: {0}")]
    Failed(String),
}

impl Passwords {
    /// A pool with a worker for each core.
    pub(crate) async fn new() -> Result<Self, PasswordError> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with_limits(cores, QUEUE).await
    }

    async fn with_limits(workers: usize, queue: usize) -> Result<Self, PasswordError> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(failed)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut pool = Self {
            argon2,
            nobody: Arc::from(""),
            workers: Arc::new(Semaphore::new(workers)),
            places: Arc::new(Semaphore::new(workers + queue)),
        };
        let nobody: [u8; 32] = rand::random();
        let hash = pool.run(move |argon2| hash(&argon2, &nobody)).await??;
        pool.nobody = hash.into();
        Ok(pool)
    }

    /// The password's hash in PHC form, with a new salt and the parameters inside.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        self.run(move |argon2| hash(&argon2, password.expose())).await?
    }

    /// Is it the password? Takes as long for an unknown account, which has no hash.
    pub(crate) async fn verify(&self, password: Password, known: Option<String>) -> Result<bool, PasswordError> {
        let nobody = self.nobody.clone();
        self.run(move |argon2| {
            let matches = argon2
                .verify_password(password.expose(), known.as_deref().unwrap_or(&nobody))
                .is_ok();
            matches && known.is_some()
        })
        .await
    }

    /// Runs `work` on a blocking thread when it is its turn. It keeps its place until it has ended, also when nobody waits
    /// for it any more: otherwise callers that give up would make room for more of them than there are cores.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| PasswordError::Overloaded)?;
        let turn = self.workers.clone().acquire_owned().await.map_err(failed)?;
        let argon2 = self.argon2.clone();
        let keep: [OwnedSemaphorePermit; 2] = [place, turn];
        tokio::task::spawn_blocking(move || {
            let done = work(argon2);
            drop(keep);
            done
        })
        .await
        .map_err(failed)
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, PasswordError> {
    let hash: phc::PasswordHash = argon2.hash_password(password).map_err(failed)?;
    Ok(hash.to_string())
}

fn failed(error: impl fmt::Display) -> PasswordError {
    PasswordError::Failed(error.to_string())
}

impl fmt::Debug for Passwords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Passwords").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::try_new(text.to_owned()).expect("in limits")
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_another_is_not() {
        let passwords = Passwords::new().await.expect("the pool");
        let hash = passwords.hash(password("correct horse")).await.expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let again = passwords.hash(password("correct horse")).await.expect("hashed");
        assert_ne!(hash, again, "a salt each");
        assert!(
            passwords
                .verify(password("correct horse"), Some(hash.clone()))
                .await
                .expect("verified")
        );
        assert!(
            !passwords
                .verify(password("battery staple"), Some(hash))
                .await
                .expect("verified")
        );
        assert!(
            !passwords
                .verify(password("correct horse"), None)
                .await
                .expect("verified")
        );
        assert!(
            !passwords
                .verify(password("correct horse"), Some("no hash".into()))
                .await
                .expect("verified")
        );
    }

    #[tokio::test]
    async fn beyond_the_queue_one_is_told_to_come_back() {
        let passwords = Passwords::with_limits(1, 1).await.expect("the pool");
        let turn = passwords
            .workers
            .clone()
            .acquire_owned()
            .await
            .expect("the only worker");
        let mut waiting = Box::pin(passwords.hash(password("the first one")));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let mut queued = Box::pin(passwords.hash(password("the second one")));
        assert!(futures_util::poll!(&mut queued).is_pending());
        let refused = passwords.hash(password("the third one")).await;
        assert!(matches!(refused, Err(PasswordError::Overloaded)), "{refused:?}");
        drop(turn);
        let (first, second) = tokio::join!(waiting, queued);
        assert!(first.is_ok() && second.is_ok());
    }
}
