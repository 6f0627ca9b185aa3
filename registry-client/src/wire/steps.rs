//! An open watch, heard step by step.

use std::time::Duration;

use proto::registry::v1;
use tonic::Streaming;

use super::{
    MAX_ANSWER,
    parts::{Assembled, Parts, Unfit},
    peer::Peer,
};
use crate::{connections::Seat, endpoints::within, error::Error, model::Told};

/// The steps of an open watch.
#[derive(Debug)]
pub(crate) struct Steps {
    peer: Peer,
    stream: Streaming<v1::WatchResponse>,
    /// Its name, for acknowledgements; empty before its first word.
    watch_id: String,
    parts: Parts,
    /// After the stream, so that it is given back when the stream has ended.
    seat: Seat,
}

/// What is heard on an open watch.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A step.
    Step(Told),
    /// A part of a snapshot that goes on: nothing to act upon yet, but the registry is not mute.
    Part,
}

impl Steps {
    pub(super) fn new(peer: Peer, stream: Streaming<v1::WatchResponse>, seat: Seat) -> Self {
        Self {
            peer,
            stream,
            watch_id: String::new(),
            parts: Parts::new(MAX_ANSWER),
            seat,
        }
    }

    /// The next step; `None` when the registry has ended the watch. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Told>, Error> {
        loop {
            match self.hear().await? {
                Some(Heard::Step(told)) => return Ok(Some(told)),
                Some(Heard::Part) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next word; `None` when the registry has ended the watch. Cancel safe.
    pub(crate) async fn hear(&mut self) -> Result<Option<Heard>, Error> {
        let message = self.stream.message().await;
        let Some(response) = message.map_err(|status| super::error(&self.peer.address, &status))? else {
            return Ok(None);
        };
        if self.watch_id != response.watch_id {
            self.watch_id.clone_from(&response.watch_id);
        }
        let endpoint = || self.peer.address.to_string();
        match self.parts.add(response) {
            Ok(Assembled::Whole(response)) => Ok(Some(Heard::Step(Told::from(*response)))),
            Ok(Assembled::Part) => Ok(Some(Heard::Part)),
            Err(Unfit::Malformed(problem)) => Err(Error::Malformed {
                endpoint: endpoint(),
                problem,
            }),
            Err(Unfit::TooLarge(problem)) => Err(Error::AnswerTooLarge {
                endpoint: endpoint(),
                problem,
            }),
        }
    }

    /// Tells the registry that all up to `revision` has been applied. Over the connection of the watch: behind one address there
    /// may be several replicas, of which only the one that serves the watch knows it.
    pub(crate) fn acknowledge(&self, revision: i64) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (peer, channel, watch_id) = (self.peer.clone(), self.seat.channel(), self.watch_id.clone());
        async move { within(&peer, peer.ack_watch(channel, watch_id, revision)).await }
    }

    /// The error of a watch that goes on in another history than the one it resumed.
    pub(crate) fn of_another_history(&self) -> Error {
        Error::Malformed {
            endpoint: self.peer.address.to_string(),
            problem: "a change of another history than the one that was resumed".to_owned(),
        }
    }

    /// The error of a watch that does not tell what it owes.
    pub(crate) fn silent(&self, after: Duration) -> Error {
        Error::Deadline {
            endpoint: self.peer.address.to_string(),
            after,
        }
    }
}
