//! What a server serves, asked of itself: grpc.reflection.v1 over the same channel as the call. Reads descriptors, and
//! judges nothing but their amount.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_reflect::{DescriptorError, DescriptorPool, ServiceDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::channel::Line;

/// More than any service imports; a server that goes on is not believed.
const MOST_FILES: usize = 2_000;
/// More than any schema has that a person calls by hand.
const MOST_BYTES: usize = 16 << 20;

/// Why a service cannot be described.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReflectionError {
    #[error("server reflection is not there")]
    Absent,
    #[error("the server does not serve {service}")]
    UnknownService { service: String, known: Vec<String> },
    #[error("server reflection failed")]
    Failed(#[source] Box<Status>),
    #[error("server reflection makes no sense: {0}")]
    Malformed(String),
    #[error("the descriptors of the server do not fit together")]
    Descriptors(#[source] DescriptorError),
}

impl From<Status> for ReflectionError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unimplemented => Self::Absent,
            _ => Self::Failed(Box::new(status)),
        }
    }
}

/// What a server has sent so far, by name.
#[derive(Default)]
struct Files {
    by_name: BTreeMap<String, FileDescriptorProto>,
    /// All that was read for them; a file that is sent again counts again, or the end of a call's patience would be the
    /// only bound.
    bytes: usize,
    received: usize,
}

/// A conversation with a server about what it serves.
struct Conversation {
    requests: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
}

/// Describes a service by its full name.
pub(crate) async fn describe(channel: Line, service: &str) -> Result<ServiceDescriptor, ReflectionError> {
    // One instance answers the whole conversation: two versions of a schema are never mixed.
    let first = MessageRequest::FileContainingSymbol(service.to_owned());
    let mut files = Files::default();
    let begun = Conversation::begin(channel.clone(), first).await;
    let kept = begun.and_then(|(conversation, answer)| files.keep(answer).map(|()| conversation));
    let mut conversation = match kept {
        Ok(conversation) => conversation,
        // Told by an answer or, as tonic does, by the end of the conversation.
        Err(ReflectionError::Failed(status)) if status.code() == Code::NotFound => {
            return Err(ReflectionError::UnknownService {
                service: service.to_owned(),
                known: services(channel).await?,
            });
        }
        Err(error) => return Err(error),
    };
    // A server may send what a file imports along with it, or wait until it is asked.
    while let Some(missing) = files.missing() {
        let answer = conversation
            .ask(MessageRequest::FileByFilename(missing.clone()))
            .await?;
        files.keep(answer)?;
        if !files.by_name.contains_key(&missing) {
            return Err(ReflectionError::Malformed(format!(
                "asked for {missing}, it sent something else"
            )));
        }
    }
    let set = FileDescriptorSet {
        file: files.by_name.into_values().collect(),
    };
    let pool = DescriptorPool::from_file_descriptor_set(set).map_err(ReflectionError::Descriptors)?;
    pool.get_service_by_name(service)
        .ok_or_else(|| ReflectionError::Malformed(format!("its files do not have {service}")))
}

impl Conversation {
    /// Opens with a question: some servers say nothing before they are asked.
    async fn begin(channel: Line, first: MessageRequest) -> Result<(Self, MessageResponse), ReflectionError> {
        // One question at a time.
        let (requests, receiver) = mpsc::channel(1);
        let unsent = |_| ReflectionError::Malformed("the conversation ended early".to_owned());
        requests.send(question(first)).await.map_err(unsent)?;
        let answers = ServerReflectionClient::new(channel)
            .server_reflection_info(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut conversation = Self { requests, answers };
        let answer = conversation.hear().await?;
        Ok((conversation, answer))
    }

    async fn ask(&mut self, request: MessageRequest) -> Result<MessageResponse, ReflectionError> {
        // A conversation that has ended says why when it is heard.
        let _ = self.requests.send(question(request)).await;
        self.hear().await
    }

    async fn hear(&mut self) -> Result<MessageResponse, ReflectionError> {
        let answer = self.answers.message().await?;
        answer
            .and_then(|answer| answer.message_response)
            .ok_or_else(|| ReflectionError::Malformed("the conversation ended early".to_owned()))
    }
}

/// The full names of all that a server serves.
async fn services(channel: Line) -> Result<Vec<String>, ReflectionError> {
    let (_, answer) = Conversation::begin(channel, MessageRequest::ListServices(String::new())).await?;
    match answer {
        MessageResponse::ListServicesResponse(list) => {
            // In order, and each once: some servers list v1 and v1alpha twice over.
            let names: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
            Ok(names.into_iter().collect())
        }
        other => Err(ReflectionError::Malformed(format!(
            "asked for services, it answered {other:?}"
        ))),
    }
}

fn question(request: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    }
}

impl Files {
    fn keep(&mut self, answer: MessageResponse) -> Result<(), ReflectionError> {
        match answer {
            MessageResponse::FileDescriptorResponse(response) => {
                for bytes in response.file_descriptor_proto {
                    self.add(&bytes)?;
                }
                Ok(())
            }
            MessageResponse::ErrorResponse(error) => {
                let code = Code::from_i32(error.error_code);
                Err(Status::new(code, error.error_message).into())
            }
            other => Err(ReflectionError::Malformed(format!(
                "asked for a file, it answered {other:?}"
            ))),
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), ReflectionError> {
        self.received += 1;
        self.bytes += bytes.len();
        if self.received > MOST_FILES {
            return Err(ReflectionError::Malformed(format!("more than {MOST_FILES} files")));
        }
        if self.bytes > MOST_BYTES {
            return Err(ReflectionError::Malformed(format!(
                "more than {} MiB",
                MOST_BYTES >> 20
            )));
        }
        let file = FileDescriptorProto::decode(bytes).map_err(|error| ReflectionError::Malformed(error.to_string()))?;
        self.by_name.insert(file.name().to_owned(), file);
        Ok(())
    }

    /// A file that another one imports, and that is not there yet.
    fn missing(&self) -> Option<String> {
        let mut imports = self.by_name.values().flat_map(|file| &file.dependency);
        imports.find(|import| !self.by_name.contains_key(*import)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use tonic_reflection::pb::v1::FileDescriptorResponse;

    use super::*;

    fn answer(files: Vec<FileDescriptorProto>) -> MessageResponse {
        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: files.iter().map(FileDescriptorProto::encode_to_vec).collect(),
        })
    }

    /// Only the rounds of the conversation were counted: a server could send any number of files in each, and files of any
    /// size.
    #[test]
    fn a_server_that_goes_on_sending_is_not_believed() {
        let file = |number: usize| FileDescriptorProto {
            name: Some(format!("{number}.proto")),
            ..FileDescriptorProto::default()
        };
        let mut files = Files::default();
        files
            .keep(answer((0..MOST_FILES).map(file).collect()))
            .expect("as many as may be");
        let error = files.keep(answer(vec![file(MOST_FILES)])).expect_err("one more");
        assert!(error.to_string().contains("more than 2000 files"), "{error}");

        let large = FileDescriptorProto {
            // A package of 9 MiB: no name of anything, but as good as any to weigh much.
            package: Some("a".repeat(9 << 20)),
            ..file(0)
        };
        let mut files = Files::default();
        files.keep(answer(vec![large.clone()])).expect("below the bound");
        // The same file again takes no more room, and yet it was sent.
        let error = files.keep(answer(vec![large])).expect_err("18 MiB");
        assert!(error.to_string().contains("more than 16 MiB"), "{error}");
    }
}
