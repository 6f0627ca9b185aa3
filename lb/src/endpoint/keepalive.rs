//! When to ask a silent peer whether anybody is there, and when to take its silence for an answer.
//!
//! By gRFC A8: only while calls are under way, only after the peer has been silent for an interval, and with an interval twice
//! as long after a peer has said that it was asked too often. Peers with gRPC's own defaults take one ping in five minutes,
//! and none without calls, and end the connection after the third that is too early; what they send in between wipes the
//! slate clean. Whether an idle connection still leads anywhere is found out by the next call on it.
//!
//! [`Silence`] decides, and is pure; [`KeepAlive`] has the timer and the pings.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

/// The shortest that gRFC A8 allows.
const FIRST_INTERVAL: Duration = Duration::from_secs(10);
/// What gRPC's servers put up with by default.
const LONGEST_INTERVAL: Duration = Duration::from_secs(300);
/// A peer that was asked and has not said anything for this long is gone: from the plug being pulled to the loss noticed it
/// takes this and the interval at most, when a call is under way.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer may be silent before it is asked. Learnt by an endpoint, kept over its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace(Duration);

impl Default for Pace {
    fn default() -> Self {
        Self(FIRST_INTERVAL)
    }
}

impl Pace {
    /// For a peer that was asked too often.
    pub(super) fn slower(self) -> Self {
        Self((self.0 * 2).min(LONGEST_INTERVAL))
    }
}

/// Whether the peer said, with the GOAWAY that gRFC A8 prescribes, that it was asked too often.
pub(super) fn too_many_pings(error: &h2::Error) -> bool {
    error.is_go_away()
        && error.is_remote()
        && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
        // h2 shows the debug data in its message and nowhere else.
        && error.to_string().contains("too_many_pings")
}

/// What is known of a peer's silence.
#[derive(Debug)]
struct Silence {
    pace: Pace,
    since: Instant,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// No calls: the peer may be silent.
    Dormant,
    Listening,
    /// A ping is on its way.
    Asked,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Ping,
    Dead,
}

impl Silence {
    fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            since: now,
            phase: Phase::Dormant,
        }
    }

    /// Something came in. A peer that talks is there, whatever becomes of the ping: the answer may be queued behind megabytes.
    fn heard(&mut self, now: Instant) {
        self.since = now;
    }

    /// Dormant -> Listening: a call is under way. The peer is given time from here on.
    fn called(&mut self, now: Instant) {
        if self.phase == Phase::Dormant {
            (self.phase, self.since) = (Phase::Listening, now);
        }
    }

    /// Asked -> Listening
    fn answered(&mut self) {
        self.phase = Phase::Listening;
    }

    /// When to ask for a verdict, if nothing is heard before.
    fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Dormant => None,
            Phase::Listening => Some(self.since + self.pace.0),
            Phase::Asked => Some(self.since + TIMEOUT),
        }
    }

    fn judge(&mut self, now: Instant, calls: bool) -> Verdict {
        if self.due().is_none_or(|due| now < due) {
            return Verdict::Wait;
        }
        match self.phase {
            // Listening -> Dormant
            Phase::Listening if !calls => {
                self.phase = Phase::Dormant;
                Verdict::Wait
            }
            // Listening -> Asked
            Phase::Listening => {
                (self.phase, self.since) = (Phase::Asked, now);
                Verdict::Ping
            }
            Phase::Asked => Verdict::Dead,
            Phase::Dormant => Verdict::Wait,
        }
    }
}

/// Of one connection.
pub(super) struct KeepAlive {
    silence: Silence,
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    pub(super) fn new(pings: PingPong, pace: Pace) -> Self {
        let now = Instant::now();
        Self {
            silence: Silence::new(pace, now),
            pings,
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// Ready when the peer is dead. To be asked after the socket was read: what is in there already counts, however late we are.
    ///
    /// `heard`: whether anything came in since the last time; `calls`: whether any are under way.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>, heard: bool, calls: bool) -> Poll<()> {
        match self.silence.phase {
            Phase::Dormant if !calls => return Poll::Pending,
            Phase::Dormant => self.silence.called(Instant::now()),
            Phase::Listening | Phase::Asked if heard => self.silence.heard(Instant::now()),
            Phase::Listening | Phase::Asked => {}
        }
        if self.silence.phase == Phase::Asked {
            match self.pings.poll_pong(cx) {
                Poll::Ready(Ok(_)) => self.silence.answered(),
                // The connection is about to tell why.
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        // The timer only ever runs early: to set it anew whenever something is heard would cost every call.
        while let Some(due) = self.silence.due() {
            ready!(self.timer.as_mut().poll(cx));
            match self.silence.judge(Instant::now(), calls) {
                Verdict::Wait => {}
                Verdict::Ping if self.pings.send_ping(Ping::opaque()).is_err() => return Poll::Pending,
                Verdict::Ping => {}
                Verdict::Dead => return Poll::Ready(()),
            }
            self.timer.as_mut().reset(self.silence.due().unwrap_or(due));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_asked_too_often_is_asked_half_as_often_up_to_a_limit() {
        let mut pace = Pace::default();
        let mut seconds = Vec::new();
        for _ in 0..7 {
            seconds.push(pace.0.as_secs());
            pace = pace.slower();
        }
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
    }

    /// Plays `script`, a list of seconds and what happens then, and shows what is decided.
    fn check(script: &[(u64, &str, Verdict)]) {
        let start = Instant::now();
        let mut silence = Silence::new(Pace::default(), start);
        let mut calls = false;
        for (second, event, expected) in script {
            let now = start + Duration::from_secs(*second);
            match *event {
                "call" => {
                    calls = true;
                    silence.called(now);
                }
                "ended" => calls = false,
                "heard" => silence.heard(now),
                "pong" => {
                    silence.heard(now);
                    silence.answered();
                }
                _ => {}
            }
            assert_eq!(silence.judge(now, calls), *expected, "at {second}: {event}");
        }
    }

    #[test]
    fn only_silence_during_calls_is_asked_about() {
        use Verdict::{Dead, Ping, Wait};
        check(&[(0, "", Wait), (1000, "", Wait)]);
        check(&[
            (0, "call", Wait),
            (9, "", Wait),
            (10, "", Ping),
            (12, "", Wait),
            (13, "", Dead),
        ]);
        check(&[
            (0, "call", Wait),
            (10, "", Ping),
            (12, "pong", Wait),
            (21, "", Wait),
            (22, "", Ping),
        ]);
        check(&[(0, "call", Wait), (9, "heard", Wait), (18, "", Wait), (19, "", Ping)]);
        // The call counts, not how long the connection had been idle before.
        check(&[(500, "call", Wait), (509, "", Wait), (510, "", Ping)]);
        check(&[(0, "call", Wait), (9, "ended", Wait), (10, "", Wait), (500, "", Wait)]);
        check(&[
            (0, "call", Wait),
            (9, "ended", Wait),
            (10, "", Wait),
            (60, "call", Wait),
            (70, "", Ping),
        ]);
    }

    #[test]
    fn a_peer_that_talks_is_not_dead_however_late_its_pong() {
        use Verdict::{Dead, Ping, Wait};
        check(&[
            (0, "call", Wait),
            (10, "", Ping),
            (12, "heard", Wait),
            (14, "heard", Wait),
            (16, "", Wait),
            (17, "", Dead),
        ]);
    }
}
