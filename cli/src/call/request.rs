//! From the text on the command line to messages of the method's type. Pure: where the text came from is the caller's
//! business. An error names the field that is wrong, and the fields that there are.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// Whether a method takes one message or a stream of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    /// One message.
    One,
    /// Any number.
    Many,
}

/// Why the text is no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the request is no JSON")]
    Syntax { problem: String },
    #[error("the method takes one request, and there are {given}")]
    Count { given: usize },
    #[error("{message} has no field {path}")]
    UnknownField {
        path: String,
        message: String,
        fields: Vec<String>,
    },
    #[error("{}", place(path, message))]
    Field {
        path: String,
        message: String,
        problem: String,
    },
}

impl RequestError {
    /// The cause, where the first line does not say it all.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Syntax { problem } | Self::Field { problem, .. } => Some(problem),
            Self::Count { .. } | Self::UnknownField { .. } => None,
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Syntax { .. } => "give a JSON object, for example '{\"pageSize\": 10}'".to_owned(),
            Self::Count { .. } => "give one JSON object".to_owned(),
            Self::UnknownField { fields, .. } if fields.is_empty() => "it has none; give {}".to_owned(),
            Self::UnknownField { fields, .. } => format!("it has {}", fields.join(", ")),
            Self::Field { .. } => "see protobuf.dev/programming-guides/json for how each type is written".to_owned(),
        }
    }
}

fn place(path: &str, message: &str) -> String {
    if path.is_empty() {
        format!("the request is no {message}")
    } else {
        format!("field {path} is wrong")
    }
}

/// The messages that the text holds: JSON values one after the other, or for streams one array. No text is an empty
/// message, or an empty stream.
pub(crate) fn messages(text: &str, of: &MessageDescriptor, arity: Arity) -> Result<Vec<DynamicMessage>, RequestError> {
    let mut values = serde_json::Deserializer::from_str(text)
        .into_iter::<Value>()
        .collect::<Result<Vec<Value>, _>>()
        .map_err(|error| RequestError::Syntax {
            problem: error.to_string(),
        })?;
    match (arity, values.as_mut_slice()) {
        (Arity::One, []) => values.push(Value::Object(Map::new())),
        (Arity::One, [_]) => {}
        (Arity::One, several) => return Err(RequestError::Count { given: several.len() }),
        (Arity::Many, [Value::Array(elements)]) => values = std::mem::take(elements),
        (Arity::Many, _) => {}
    }
    values.iter().map(|value| message(value, of)).collect()
}

fn message(value: &Value, of: &MessageDescriptor) -> Result<DynamicMessage, RequestError> {
    DynamicMessage::deserialize(of.clone(), value).map_err(|error| {
        let Blamed { path, message, unknown } = blame(value, of, String::new());
        let name = message.full_name().to_owned();
        if unknown {
            let fields = message.fields().map(|field| field.json_name().to_owned()).collect();
            RequestError::UnknownField {
                path,
                message: name,
                fields,
            }
        } else {
            RequestError::Field {
                path,
                message: name,
                problem: error.to_string(),
            }
        }
    })
}

/// What is to blame for a value that does not fit.
struct Blamed {
    path: String,
    message: MessageDescriptor,
    unknown: bool,
}

/// Finds the innermost part of a wrong value that is wrong by itself: serde tells what is wrong, but not where.
fn blame(value: &Value, of: &MessageDescriptor, path: String) -> Blamed {
    let here = |path, unknown| Blamed {
        path,
        message: of.clone(),
        unknown,
    };
    // The well-known types have a JSON form of their own, which is not one of fields.
    if of.full_name().starts_with("google.protobuf.") {
        return here(path, false);
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        if fits(of, key, value.clone()) {
            continue;
        }
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let Some(field) = of.get_field_by_json_name(key).or_else(|| of.get_field_by_name(key)) else {
            return here(path, true);
        };
        return blame_field(value, of, &field, key, path);
    }
    here(path, false)
}

fn blame_field(value: &Value, of: &MessageDescriptor, field: &FieldDescriptor, key: &str, path: String) -> Blamed {
    let (part, path, kind) = match value {
        Value::Array(elements) if field.is_list() => {
            let wrong = elements
                .iter()
                .enumerate()
                .find(|(_, element)| !fits(of, key, Value::from(vec![(*element).clone()])));
            match wrong {
                Some((index, element)) => (element, format!("{path}[{index}]"), field.kind()),
                None => (value, path, field.kind()),
            }
        }
        Value::Object(entries) if field.is_map() => {
            let one = |name: &String, entry: &Value| Value::from(Map::from_iter([(name.clone(), entry.clone())]));
            let wrong = entries.iter().find(|(name, entry)| !fits(of, key, one(name, entry)));
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            };
            match wrong {
                Some((name, entry)) => (entry, format!("{path}[{name:?}]"), kind),
                None => (value, path, kind),
            }
        }
        _ => (value, path, field.kind()),
    };
    match kind {
        Kind::Message(inner) if part.is_object() => blame(part, &inner, path),
        _ => Blamed {
            path,
            message: of.clone(),
            unknown: false,
        },
    }
}

/// Whether a message of this type may have this one field with this value.
fn fits(of: &MessageDescriptor, key: &str, value: Value) -> bool {
    let alone = Value::from(Map::from_iter([(key.to_owned(), value)]));
    DynamicMessage::deserialize(of.clone(), alone).is_ok()
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    fn create_event() -> MessageDescriptor {
        DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET)
            .expect("a descriptor set")
            .get_message_by_name("tessera.ticket.v1.CreateEventRequest")
            .expect("it is there")
    }

    fn wrong(text: &str) -> RequestError {
        messages(text, &create_event(), Arity::One).expect_err(text)
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let check = |text: &str, expected: &str| {
            let error = wrong(text);
            assert_eq!(error.to_string(), expected, "{error:?}");
        };
        check(
            r#"{"nope": 1}"#,
            "tessera.ticket.v1.CreateEventRequest has no field nope",
        );
        check(
            r#"{"event": {"titel": "x"}}"#,
            "tessera.ticket.v1.Event has no field event.titel",
        );
        check(r#"{"event": {"title": 5}}"#, "field event.title is wrong");
        check(
            r#"{"event": {"sections": [{"name": "A"}, {"rows": "many"}]}}"#,
            "field event.sections[1].rows is wrong",
        );
        check(
            r#"{"event": {"sections": [{"price": {"minorUnits": 1.5}}]}}"#,
            "field event.sections[0].price.minorUnits is wrong",
        );
        check(r#"{"event": {"startsAt": "soon"}}"#, "field event.startsAt is wrong");
        check(r#"{"event": []}"#, "field event is wrong");
        check("[]", "the request is no tessera.ticket.v1.CreateEventRequest");
        check("{", "the request is no JSON");
        check("{} {}", "the method takes one request, and there are 2");
    }

    #[test]
    fn an_unknown_field_is_answered_with_those_there_are() {
        assert_eq!(wrong(r#"{"nope": 1}"#).advice(), "it has requestId, event");
    }

    #[test]
    fn keys_of_maps_are_named() {
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("a descriptor set");
        let instance = pool
            .get_message_by_name("tessera.registry.v1.Instance")
            .expect("it is there");
        let error = messages(r#"{"metadata": {"a": "b", "c": 5}}"#, &instance, Arity::One).expect_err("wrong");
        assert_eq!(error.to_string(), "field metadata[\"c\"] is wrong");
    }

    #[test]
    fn streams_take_values_in_a_row_or_an_array() {
        let count = |text: &str, arity| messages(text, &create_event(), arity).map(|messages| messages.len());
        assert_eq!(count("", Arity::One), Ok(1));
        assert_eq!(count("", Arity::Many), Ok(0));
        assert_eq!(count("{}\n{}\n", Arity::Many), Ok(2));
        assert_eq!(count("[{}, {}, {}]", Arity::Many), Ok(3));
    }

    /// A deep value must be refused by the parser's own bound, not overflow the stack of the walk.
    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert_eq!(wrong(&deep).to_string(), "the request is no JSON");
    }
}
