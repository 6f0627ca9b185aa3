//! Typed values out of positioned JSON, with every problem on the way noted along with its line and its path.
//!
//! A reader goes on after a problem: whoever corrects a file wants to hear of all of them at once.

use std::{fmt, str::FromStr, time::Duration};

use telemetry::rpc::code_name;
use tonic::Code;

use super::{
    json::{self, Member, Node, Value},
    problem::{Problem, Spot},
};

/// More of them would not be read by anybody.
const MAX_PROBLEMS: usize = 20;
/// The longest duration of protobuf's JSON form.
const MAX_SECONDS: u64 = 315_576_000_000;

/// The text that is read, and what was wrong with it so far.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

/// A value and the path that leads there.
#[derive(Clone, Debug)]
pub(super) struct Place<'n, 't> {
    pub(super) node: &'n Node<'t>,
    pub(super) path: String,
}

/// The members of an object, taken one by one: what nobody has asked for in the end is unknown.
#[derive(Debug)]
pub(super) struct Fields<'n, 't> {
    path: String,
    at: usize,
    members: Vec<(&'n Member<'t>, bool)>,
    known: Vec<&'static str>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            problems: Vec::new(),
        }
    }

    /// Notes what is wrong at an offset.
    pub(super) fn wrong_at(&mut self, offset: usize, path: &str, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let spot = self.spot_at(offset, path);
            self.problems.push(Problem::new(spot, message));
        }
    }

    /// Notes what is wrong with a value.
    pub(super) fn wrong(&mut self, place: &Place<'_, '_>, message: impl Into<String>) {
        self.wrong_at(place.node.at, &place.path, message);
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    /// Where a value stands, for problems that are found later.
    pub(super) fn spot(&self, place: &Place<'_, '_>) -> Spot {
        self.spot_at(place.node.at, &place.path)
    }

    /// The line of a value.
    pub(super) fn line(&self, offset: usize) -> usize {
        json::position(self.text, offset).0
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn spot_at(&self, offset: usize, path: &str) -> Spot {
        let (line, column) = json::position(self.text, offset);
        Spot {
            line,
            column,
            path: path.to_owned(),
        }
    }

    fn unexpected(&mut self, place: &Place<'_, '_>, wanted: &str) {
        self.wrong(place, format!("is {}; it must be {wanted}", place.node.value.kind()));
    }

    /// An object's members. One that is there twice is a problem: readers of JSON disagree about which counts.
    pub(super) fn object<'n, 'x>(&mut self, place: &Place<'n, 'x>) -> Option<Fields<'n, 'x>> {
        let Value::Object(members, _) = &place.node.value else {
            self.unexpected(place, "an object");
            return None;
        };
        for (index, member) in members.iter().enumerate() {
            if let Some(first) = members[..index].iter().find(|other| other.key == member.key) {
                let line = self.line(first.key_at);
                let path = join(&place.path, &member.key);
                self.wrong_at(
                    member.key_at,
                    &path,
                    format!("is here for the second time, after line {line}"),
                );
            }
        }
        Some(Fields {
            path: place.path.clone(),
            at: place.node.at,
            // What is there twice has its problem already.
            members: members
                .iter()
                .enumerate()
                .map(|(index, member)| (member, members[..index].iter().any(|other| other.key == member.key)))
                .collect(),
            known: Vec::new(),
        })
    }

    /// What nobody has asked for is unknown, and told with the name that was probably meant.
    pub(super) fn finish(&mut self, fields: Fields<'_, '_>) {
        for (member, taken) in &fields.members {
            if !taken {
                let path = join(&fields.path, &member.key);
                let meant = nearest(&member.key, fields.known.iter().copied());
                self.wrong_at(member.key_at, &path, format!("is no known setting{meant}"));
            }
        }
    }

    pub(super) fn list<'n, 'x>(&mut self, place: &Place<'n, 'x>) -> Vec<Place<'n, 'x>> {
        let Value::Array(items) = &place.node.value else {
            self.unexpected(place, "a list");
            return Vec::new();
        };
        let placed = items.iter().enumerate().map(|(index, node)| Place {
            node,
            path: format!("{}[{index}]", place.path),
        });
        placed.collect()
    }

    pub(super) fn flag(&mut self, place: &Place<'_, '_>) -> Option<bool> {
        if let Value::Bool(flag) = place.node.value {
            return Some(flag);
        }
        self.unexpected(place, "true or false");
        None
    }

    pub(super) fn is_text(&self, place: &Place<'_, '_>) -> bool {
        matches!(place.node.value, Value::String(_))
    }

    pub(super) fn text<'n>(&mut self, place: &Place<'n, '_>) -> Option<&'n str> {
        if let Value::String(text) = &place.node.value {
            return Some(text);
        }
        self.unexpected(place, "a string");
        None
    }

    /// A number within a range, both ends included. As in protobuf's JSON form it may be written as a string.
    pub(super) fn number<N>(&mut self, place: &Place<'_, '_>, least: N, most: N) -> Option<N>
    where
        N: FromStr + PartialOrd + fmt::Display,
    {
        let written = match &place.node.value {
            Value::Number(written) => written,
            Value::String(written) => written.as_str(),
            _ => {
                self.unexpected(place, &format!("a number from {least} to {most}"));
                return None;
            }
        };
        match written.parse::<N>() {
            Ok(number) if number >= least && number <= most => Some(number),
            _ => {
                self.wrong(
                    place,
                    format!("is {written}; it must be a number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// A duration in protobuf's JSON form: seconds with at most nine decimals and an `s`, as `"1.5s"`.
    pub(super) fn duration(&mut self, place: &Place<'_, '_>) -> Option<Duration> {
        let Value::String(written) = &place.node.value else {
            self.unexpected(place, "a duration such as \"1.5s\"");
            return None;
        };
        let duration = parse_duration(written);
        if duration.is_none() {
            self.wrong(place, format!("is {written:?}; it must be a duration such as \"1.5s\""));
        }
        duration
    }

    /// A duration above zero.
    pub(super) fn positive(&mut self, place: &Place<'_, '_>) -> Option<Duration> {
        let duration = self.duration(place)?;
        if duration.is_zero() {
            self.wrong(place, "must be above zero");
            return None;
        }
        Some(duration)
    }

    /// One of those words.
    pub(super) fn word<T: Copy>(&mut self, place: &Place<'_, '_>, words: &[(&'static str, T)]) -> Option<T> {
        let written = self.text(place)?;
        if let Some((_, meant)) = words.iter().find(|(word, _)| *word == written) {
            return Some(*meant);
        }
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let meant = nearest(written, all.iter().copied());
        self.wrong(
            place,
            format!("is {written:?}; it must be one of {}{meant}", all.join(", ")),
        );
        None
    }

    /// Status codes by name in any case, or by number, as gRFC A6 has them. None twice.
    pub(super) fn codes(&mut self, place: &Place<'_, '_>) -> Vec<Code> {
        let mut codes = Vec::new();
        for item in self.list(place) {
            let code = match &item.node.value {
                Value::String(name) => known_codes().find(|(known, _)| known.eq_ignore_ascii_case(name)),
                Value::Number(written) => known_codes().find(|(_, code)| written.parse() == Ok(i32::from(*code))),
                _ => None,
            };
            match code {
                None => {
                    let meant = match &item.node.value {
                        Value::String(name) => nearest(&name.to_ascii_uppercase(), known_codes().map(|(name, _)| name)),
                        _ => String::new(),
                    };
                    self.wrong(&item, format!("is no gRPC status code{meant}"));
                }
                Some((name, code)) if codes.contains(&code) => self.wrong(&item, format!("lists {name} twice")),
                Some((_, code)) => codes.push(code),
            }
        }
        codes
    }
}

impl<'n, 't> Place<'n, 't> {
    pub(super) fn root(node: &'n Node<'t>) -> Self {
        let path = String::new();
        Self { node, path }
    }
}

impl<'n, 't> Fields<'n, 't> {
    /// As of an object without members that stands there.
    pub(super) fn none(place: &Place<'n, 't>) -> Self {
        Self {
            path: place.path.clone(),
            at: place.node.at,
            members: Vec::new(),
            known: Vec::new(),
        }
    }

    /// The value of that member. `null` is as good as nothing, as in protobuf's JSON form.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Place<'n, 't>> {
        self.known.push(name);
        let (member, taken) = self.members.iter_mut().find(|(member, _)| member.key == name)?;
        *taken = true;
        let node = &member.node;
        (!matches!(node.value, Value::Null)).then(|| Place {
            node,
            path: join(&self.path, name),
        })
    }

    /// All that is left, whatever it is called.
    pub(super) fn take_rest(&mut self) -> Vec<(&'n str, Place<'n, 't>)> {
        let mut rest = Vec::new();
        for (member, taken) in &mut self.members {
            if !std::mem::replace(taken, true) {
                let place = Place {
                    node: &member.node,
                    path: join(&self.path, &member.key),
                };
                rest.push((member.key.as_str(), place));
            }
        }
        rest
    }

    /// The value of a member that has to be there.
    pub(super) fn need(&mut self, reader: &mut Reader<'_>, name: &'static str) -> Option<Place<'n, 't>> {
        let place = self.take(name);
        if place.is_none() {
            reader.wrong_at(self.at, &self.path, format!("has no {name}, and needs one"));
        }
        place
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the object begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

/// gRPC's, by name.
fn known_codes() -> impl Iterator<Item = (&'static str, Code)> {
    (0..17).map(|number| (code_name(number), Code::from_i32(number)))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn parse_duration(written: &str) -> Option<Duration> {
    let number = written.strip_suffix('s')?;
    let (seconds, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(decimals) || decimals.len() > 9 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok().filter(|seconds| *seconds <= MAX_SECONDS)?;
    let nanos: u32 = format!("{decimals:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

/// The known name that was probably meant, as a clause.
fn nearest(given: &str, known: impl Iterator<Item = &'static str>) -> String {
    let nearest = known.map(|name| (distance(given, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + given.len() / 4 => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

/// Levenshtein's distance, without regard to case.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_protobufs_json() {
        let seconds = Duration::from_secs_f64;
        for (written, meant) in [
            ("1s", Some(seconds(1.0))),
            ("1.5s", Some(seconds(1.5))),
            ("0.000000001s", Some(Duration::from_nanos(1))),
            ("0s", Some(Duration::ZERO)),
            ("315576000000s", Some(Duration::from_secs(MAX_SECONDS))),
            ("315576000001s", None),
            ("-1s", None),
            ("+1s", None),
            ("1", None),
            ("1ms", None),
            (".5s", None),
            ("1.s", None),
            ("1.0000000001s", None),
            ("1e3s", None),
            ("s", None),
        ] {
            assert_eq!(parse_duration(written), meant, "{written}");
        }
    }

    #[test]
    fn what_was_meant_is_guessed_from_what_is_near() {
        let known = || ["timeout", "waitForReady", "retryPolicy"].into_iter();
        assert_eq!(nearest("timeOut", known()), "; did you mean timeout?");
        assert_eq!(nearest("wait_for_ready", known()), "; did you mean waitForReady?");
        assert_eq!(nearest("retrypolicies", known()), "; did you mean retryPolicy?");
        assert_eq!(nearest("name", known()), "");
        assert_eq!((distance("kitten", "sitting"), distance("", "ab")), (3, 2));
    }
}
