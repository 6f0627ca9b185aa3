//! Nobody hears of what is not durable: no answer, no watcher, no reader is ahead of the store.

use super::{Invariant, Seen, ensure};
use crate::{
    model::Revision,
    simulation::{request::Answer, truth::Truth},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Unheard;

impl Invariant for Unheard {
    fn name(&self) -> &'static str {
        "unheard"
    }

    fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Result<(), String> {
        let (who, revision) = match seen {
            Seen::Answered { request, answer, .. } => match told(answer) {
                Some(revision) => (request.from.to_string(), revision),
                None => return Ok(()),
            },
            Seen::Heard { watch, heard, .. } => (format!("watcher {watch}"), heard.revision()),
            Seen::Stepped { replica, hub, .. } | Seen::Started { replica, hub, .. } => {
                let shown = hub.look(crate::hub::View::revision);
                if shown <= truth.head() {
                    return Ok(());
                }
                (format!("every reader of registry {replica}"), shown)
            }
            _ => return Ok(()),
        };
        ensure(revision <= truth.head(), || {
            format!("{who} hears of revision {revision}, and {} is durable", truth.head())
        })
    }
}

fn told(answer: &Answer) -> Option<Revision> {
    match answer {
        Answer::Registered { revision, .. }
        | Answer::Deregistered(revision)
        | Answer::Governed(revision)
        | Answer::Found(revision, _)
        | Answer::Listed(revision, _) => Some(*revision),
        Answer::Updated(instance) => Some(instance.revision),
        Answer::Renewed(_) | Answer::Refused(_) | Answer::Undone(..) | Answer::Unknown => None,
    }
}
