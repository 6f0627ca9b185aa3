//! What this server really serves: the services of the descriptor sets that its routes know.
//!
//! A descriptor set may describe more than one server's services. To list only what can be called here (in reflection, in
//! health, in errors), each described service is asked for a method that no service has; the answer shows who it was.

use std::collections::{BTreeMap, HashSet};

use futures_util::FutureExt as _;
use http::{Request, Response};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{body::Body, service::Routes};
use tower_service::Service as _;

/// Response extension: no service of the routes had the requested name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoSuchService;

/// The methods of health, which every server has and no descriptor set needs to describe.
const HEALTH: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];

/// Services and their methods, by full name.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    services: BTreeMap<String, Vec<String>>,
    /// Paths of the methods whose request is one message.
    one_request: HashSet<String>,
}

impl Catalogue {
    /// The described services that `routes` has. A set that is none is left out; building reflection will complain of it.
    pub(crate) fn of(routes: &Routes, descriptor_sets: &[&[u8]]) -> Self {
        let mut services = BTreeMap::new();
        let mut one_request = HashSet::from(HEALTH.map(str::to_owned));
        let sets = descriptor_sets
            .iter()
            .filter_map(|encoded| FileDescriptorSet::decode(*encoded).ok());
        for file in sets.flat_map(|set| set.file) {
            for service in &file.service {
                let name = match file.package() {
                    "" => service.name().to_owned(),
                    package => format!("{package}.{}", service.name()),
                };
                if is_served(routes, &name) {
                    let unary = service.method.iter().filter(|method| !method.client_streaming());
                    one_request.extend(unary.map(|method| format!("/{name}/{}", method.name())));
                    services.insert(
                        name,
                        service.method.iter().map(|method| method.name().to_owned()).collect(),
                    );
                }
            }
        }
        Self { services, one_request }
    }

    /// Full names of the services.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// Whether nothing is described.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The methods of a service, if it is served.
    pub(crate) fn methods_of(&self, service: &str) -> Option<&[String]> {
        self.services.get(service).map(Vec::as_slice)
    }

    /// Whether the request of the method at this path is one message; false if nobody knows.
    pub(crate) fn takes_one_message(&self, path: &str) -> bool {
        self.one_request.contains(path)
    }

    /// Every method as `pkg.Service/Method`.
    pub(crate) fn methods(&self) -> impl Iterator<Item = String> {
        self.services
            .iter()
            .flat_map(|(service, methods)| methods.iter().map(move |method| format!("{service}/{method}")))
    }
}

/// Answers for every path that no service has; replaces tonic's own, which cannot be told from a service's.
pub(crate) async fn no_such_service() -> Response<Body> {
    let mut response = tonic::Status::unimplemented("").into_http();
    response.extensions_mut().insert(NoSuchService);
    response
}

fn is_served(routes: &Routes, service: &str) -> bool {
    // No method can have this name: a hyphen is not part of an identifier.
    let Ok(request) = Request::post(format!("/{service}/no-such-method")).body(Body::empty()) else {
        return false;
    };
    match routes.clone().call(request).now_or_never() {
        Some(Ok(response)) => response.extensions().get::<NoSuchService>().is_none(),
        // Whoever takes time to answer is there.
        None => true,
    }
}
