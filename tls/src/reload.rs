//! Following the files: when to look, and what to do about what is found. [`Follower`] decides (pure but for the reading);
//! [`Watching`] owns the task.
//!
//! The content is compared and not the time of change: a Kubernetes volume swaps a symbolic link, `cp -p` keeps old times, and
//! reading three small files is cheaper than being wrong. Inotify would have to know all of these ways, too.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    files::{Contents, LoadError},
    handle::{Loaded, Tls},
};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Follows the files for as long as it is held.
#[derive(Debug)]
pub struct Watching {
    task: JoinHandle<()>,
}

impl Watching {
    pub(crate) fn start(tls: Tls) -> io::Result<Self> {
        let hang_up = signal(SignalKind::hangup())?;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            task: tokio::spawn(follow(Follower::new(tls), ticks, hang_up)),
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut follower: Follower, mut ticks: Interval, mut hang_up: Signal) {
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => Asked::ByTheClock,
            Some(()) = hang_up.recv() => Asked::BySignal,
        };
        // Disks can be slow; the threads of the runtime have calls to serve.
        let looked = tokio::task::spawn_blocking(move || {
            follower.look(asked);
            follower
        });
        match looked.await {
            Ok(back) => follower = back,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "certificates are no longer followed");
                }
                return;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ByTheClock,
    BySignal,
}

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing new.
    Same,
    /// The new files are used.
    Replaced,
    /// Broken, and perhaps only half written yet.
    Suspicious,
    /// Broken, and said so.
    Complained,
}

struct Follower {
    tls: Tls,
    /// The files that are used.
    used: u64,
    /// What was broken at the last look, and whether that was said.
    broken: Option<(u64, bool)>,
}

impl Follower {
    fn new(tls: Tls) -> Self {
        Self {
            used: tls.mark,
            broken: None,
            tls,
        }
    }

    fn look(&mut self, asked: Asked) -> Found {
        let settings = self.tls.settings();
        let (mark, outcome) = match Contents::read(settings) {
            Ok(contents) => (contents.mark(), Some(contents)),
            // All ways of being unreadable are one: the first is said.
            Err(error) => return self.broke(0, asked, &error),
        };
        if mark == self.used {
            self.broken = None;
            if asked == Asked::BySignal {
                tracing::info!("SIGHUP: the TLS files have not changed");
            }
            return Found::Same;
        }
        let loaded = outcome.map(|contents| Loaded::try_new(&contents, settings));
        match loaded {
            Some(Ok(loaded)) => {
                tracing::info!(
                    certificate = loaded.name(),
                    "the TLS files have changed; new connections use them"
                );
                self.tls.replace(loaded);
                self.used = mark;
                self.broken = None;
                Found::Replaced
            }
            Some(Err(error)) => self.broke(mark, asked, &error),
            None => Found::Same,
        }
    }

    /// A pair is replaced file by file, so what is broken once may be whole at the next look. It is said when it is still the
    /// same then, or when somebody has asked.
    fn broke(&mut self, mark: u64, asked: Asked, error: &LoadError) -> Found {
        let (seen, said) = match self.broken {
            Some((before, said)) if before == mark => (true, said),
            _ => (false, false),
        };
        let say = asked == Asked::BySignal || (seen && !said);
        if say {
            let cause = std::error::Error::source(error).map(tracing::field::display);
            tracing::error!(%error, cause, "the new TLS files cannot be used; the old ones still are");
        }
        self.broken = Some((mark, said || say));
        match (say, said) {
            (true, _) => Found::Complained,
            (false, true) => Found::Same,
            (false, false) => Found::Suspicious,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rcgen::KeyPair;

    use super::*;
    use crate::files::Settings;

    fn write(folder: &Path, certificate: &str, key: &str) {
        fs::write(folder.join("crt"), certificate).expect("written");
        fs::write(folder.join("key"), key).expect("written");
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a pair");
        let key: &KeyPair = &made.signing_key;
        (made.cert.pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_broken_is_said_once_and_what_is_mended_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = pair();
        write(folder.path(), &certificate, &key);
        let tls = Tls::load(Settings {
            certificate: Some(folder.path().join("crt")),
            key: Some(folder.path().join("key")),
            ..Settings::default()
        });
        let mut follower = Follower::new(tls.expect("good files"));
        assert_eq!(follower.look(Asked::ByTheClock), Found::Same);

        let (new_certificate, new_key) = pair();
        write(folder.path(), &new_certificate, &key);
        assert_eq!(
            follower.look(Asked::ByTheClock),
            Found::Suspicious,
            "half of it may be to come"
        );
        assert_eq!(follower.look(Asked::ByTheClock), Found::Complained);
        assert_eq!(follower.look(Asked::ByTheClock), Found::Same, "once");
        assert_eq!(
            follower.look(Asked::BySignal),
            Found::Complained,
            "unless somebody asks"
        );
        write(folder.path(), &new_certificate, &new_key);
        assert_eq!(follower.look(Asked::ByTheClock), Found::Replaced);
        assert_eq!(follower.look(Asked::ByTheClock), Found::Same);

        fs::remove_file(folder.path().join("key")).expect("removed");
        assert_eq!(follower.look(Asked::BySignal), Found::Complained);
        assert_eq!(follower.look(Asked::ByTheClock), Found::Same);
        write(folder.path(), &new_certificate, &new_key);
        assert_eq!(follower.look(Asked::ByTheClock), Found::Same, "as it was");
    }
}
