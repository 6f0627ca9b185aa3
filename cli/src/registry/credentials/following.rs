//! A token that is read again when its file changes, for processes that live longer than a token may: every two seconds and on
//! SIGHUP, as certificates are. What open streams were opened with is not changed; when that is revoked the registry ends them,
//! and they are opened again with what is shown by then.

use std::{path::PathBuf, time::Duration};

use registry_client::Token;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};
use tokio_util::task::AbortOnDropHandle;

use super::{parse, read, token};
use crate::{
    args::{TokenArgs, TokenSource},
    failure::Failure,
};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// A token, and its file followed for as long as this is held.
pub(crate) struct Followed {
    token: Token,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Followed {
    /// What to show: always that of the file as it is by then.
    pub(crate) fn token(&self) -> Token {
        self.token.clone()
    }
}

/// The token that the flags name, if they name one; followed where that is a file. Within a runtime.
pub(crate) fn followed(args: &TokenArgs) -> Result<Option<Followed>, Failure> {
    let Some(TokenSource::File(file)) = &args.token else {
        return Ok(token(args)?.map(|token| Followed { token, _task: None }));
    };
    let used = read(file)?;
    let token = parse(&used)?;
    let hang_up = signal(SignalKind::hangup())
        .map_err(|error| Failure::new("the token's file cannot be followed").because(&error))?;
    let follower = Follower {
        token: token.clone(),
        used,
        trouble: None,
    };
    let task = tokio::spawn(follow(follower, file.clone(), hang_up));
    Ok(Some(Followed {
        token,
        _task: Some(AbortOnDropHandle::new(task)),
    }))
}

async fn follow(mut follower: Follower, file: PathBuf, mut hang_up: Signal) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(()) = hang_up.recv() => {}
        }
        let path = file.clone();
        // Disks can be slow; the threads of the runtime have calls to serve.
        let Ok(found) = tokio::task::spawn_blocking(move || read(&path)).await else {
            return;
        };
        match follower.take(found) {
            Found::Same => {}
            Found::Replaced => {
                tracing::info!(file = %file.display(), "the token's file has changed; the new one is shown from now on");
            }
            Found::Trouble(why) => {
                tracing::error!(%why, "the token's file cannot be used; the token that was read before is still shown");
            }
        }
    }
}

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing new.
    Same,
    /// Another token is shown.
    Replaced,
    /// There is none in it, which is said once.
    Trouble(String),
}

/// Decides what a file's content means. Not `Debug`: the token is in it.
struct Follower {
    token: Token,
    used: String,
    trouble: Option<String>,
}

impl Follower {
    fn take(&mut self, found: Result<String, Failure>) -> Found {
        let parsed = found.and_then(|text| parse(&text).map(|token| (text, token)));
        match parsed {
            Ok((text, _)) if text == self.used => {
                self.trouble = None;
                Found::Same
            }
            Ok((text, token)) => {
                self.token.replace(&token);
                self.used = text;
                self.trouble = None;
                Found::Replaced
            }
            Err(why) => {
                let why = why.to_string();
                if self.trouble.as_ref() == Some(&why) {
                    return Found::Same;
                }
                self.trouble = Some(why.clone());
                Found::Trouble(why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn another_token_is_taken_and_what_is_none_is_said_once() {
        let mut follower = Follower {
            token: "tsr_old".parse().expect("a token"),
            used: "tsr_old\n".to_owned(),
            trouble: None,
        };
        let mut take = |text: &str| follower.take(Ok(text.to_owned()));
        assert_eq!(take("tsr_old\n"), Found::Same);
        // Somebody is writing it.
        assert!(matches!(take(""), Found::Trouble(_)));
        assert_eq!(take(""), Found::Same);
        assert_eq!(take("tsr_new\n"), Found::Replaced);
        let Found::Trouble(why) = take("two canaries") else {
            panic!("is none");
        };
        assert!(!why.contains("canaries"), "{why}");
        assert_eq!(take("tsr_new\n"), Found::Same, "as it was");
        let gone = |follower: &mut Follower| follower.take(read(Path::new("/nowhere/token")));
        assert!(matches!(gone(&mut follower), Found::Trouble(_)));
        assert_eq!(gone(&mut follower), Found::Same);
    }
}
