//! The stream of WaitInLine. Whose turn it is, `room` knows.

use std::sync::Arc;

use futures_util::{Stream, stream};
use identity::KeyPair;
use proto::ticket::v1::{self, WaitInLineResponse, wait_in_line_response};
use service_host::{DrainSignal, status};
use tonic::{Code, Status};

use super::convert;
use crate::{
    domain::line::Visitor,
    error, pass,
    room::{InLine, Word},
};

struct Waiting {
    in_line: InLine,
    visitor: Visitor,
    signer: Arc<KeyPair>,
    drain: DrainSignal,
    said: Option<Word>,
    ended: bool,
}

/// Positions as they change, then the pass. Ends with UNAVAILABLE when the instance drains: its line ends with it.
pub(super) fn words(
    in_line: InLine,
    visitor: Visitor,
    signer: Arc<KeyPair>,
    drain: DrainSignal,
) -> impl Stream<Item = Result<WaitInLineResponse, Status>> + Send + 'static {
    let waiting = Waiting {
        in_line,
        visitor,
        signer,
        drain,
        said: None,
        ended: false,
    };
    stream::unfold(waiting, |mut waiting| async move {
        if waiting.ended {
            return None;
        }
        let word = waiting.next().await;
        waiting.ended = !matches!(
            &word,
            Ok(WaitInLineResponse {
                word: Some(wait_in_line_response::Word::Place(_))
            })
        );
        Some((word, waiting))
    })
}

impl Waiting {
    /// The next word that is another one than the last.
    async fn next(&mut self) -> Result<WaitInLineResponse, Status> {
        loop {
            let word = tokio::select! {
                () = self.drain.wait() => return Err(error::draining()),
                word = self.in_line.next(self.said.is_none()) => word,
            };
            if self.said != Some(word) {
                self.said = Some(word);
                return self.told(word);
            }
        }
    }

    fn told(&self, word: Word) -> Result<WaitInLineResponse, Status> {
        use wait_in_line_response::Word as Told;
        let word = match word {
            Word::Wait { position, estimate } => Told::Place(v1::PlaceInLine {
                position,
                estimated_wait: Some(convert::duration(estimate)),
            }),
            Word::YourTurn { until } => Told::Pass(v1::Pass {
                pass: pass::sign(&self.signer, &self.visitor, until),
                expires_at: Some(convert::timestamp(until)),
            }),
            Word::Elsewhere => {
                let said = "the buyer waits in another stream, which has taken this place over";
                return Err(status::error(Code::Aborted, "WAITS_ELSEWHERE", said));
            }
        };
        Ok(WaitInLineResponse { word: Some(word) })
    }
}
