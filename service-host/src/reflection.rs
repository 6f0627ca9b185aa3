//! The services every server has beside its own: health, and reflection in both versions that tools ask for.

use tonic::{
    Code, Request, Status,
    service::{Interceptor, Routes, RoutesBuilder, interceptor::InterceptedService},
};

use crate::{
    catalogue::{self, Catalogue},
    health::Health,
    peer::Peer,
    status,
};

/// Routes with health and reflection added, and what they serve.
pub(crate) struct Furnished {
    pub(crate) routes: Routes,
    pub(crate) catalogue: Catalogue,
    pub(crate) health: Health,
}

/// Whom reflection describes a server to. Health is everybody's: it says that a server serves, and those who ask are probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Described {
    /// Whoever comes: where everybody may call everything, or a gate has decided before.
    ToAll,
    /// Whoever has shown a certificate. Over TLS a server is meant for some, and what it can do is their business: a map of all
    /// methods is the first thing that is asked for by those who have none.
    ToTheKnown,
}

impl Interceptor for Described {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let is_known = || {
            let peer = request.extensions().get::<Peer>();
            peer.is_some_and(|peer| peer.identity.is_some())
        };
        if *self == Self::ToAll || is_known() {
            return Ok(request);
        }
        Err(status::error(
            Code::Unauthenticated,
            "UNAUTHENTICATED",
            "this server describes itself to callers whose certificate it has verified, and to nobody else: show one, and have the \
             server ask for it (--tls-ca)",
        ))
    }
}

/// Largest reflection request, in bytes: one name of a symbol or a file, which its answer repeats and a stream may hold on
/// to.
const MAX_REQUEST: usize = 4 << 10;

/// Adds health and reflection.
///
/// The descriptor sets are constants of the build: one that cannot be used is a mistake that any test or start shows in
/// the log, and no reason to refuse calls.
pub(crate) fn furnish(routes: Routes, descriptor_sets: &[&'static [u8]], described: Described) -> Furnished {
    let routes = Routes::from(routes.into_axum_router().fallback(catalogue::no_such_service));
    let catalogue = Catalogue::of(&routes, descriptor_sets);
    let health = Health::new(catalogue.services());
    let mut builder: RoutesBuilder = routes.into();
    builder.add_service(health.service());
    if let Err(error) = add_reflection(&mut builder, &catalogue, descriptor_sets, described) {
        tracing::error!(%error, "reflection is not served: the file descriptor sets do not go together");
    }
    Furnished {
        routes: builder.routes().prepare(),
        catalogue,
        health,
    }
}

fn add_reflection(
    routes: &mut RoutesBuilder,
    catalogue: &Catalogue,
    descriptor_sets: &[&'static [u8]],
    described: Described,
) -> Result<(), tonic_reflection::server::Error> {
    let configured = |itself: &str| {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that tools can show the details of an error: they are Any values of these types.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health")
            .with_service_name(itself);
        for set in descriptor_sets {
            builder = builder.register_encoded_file_descriptor_set(set);
        }
        for service in catalogue.services() {
            builder = builder.with_service_name(service);
        }
        builder
    };
    // grpcurl asks for v1 first, older tools know only v1alpha.
    let v1 = configured("grpc.reflection.v1.ServerReflection")
        .build_v1()?
        .max_decoding_message_size(MAX_REQUEST);
    let v1alpha = configured("grpc.reflection.v1alpha.ServerReflection")
        .build_v1alpha()?
        .max_decoding_message_size(MAX_REQUEST);
    routes
        .add_service(InterceptedService::new(v1, described))
        .add_service(InterceptedService::new(v1alpha, described));
    Ok(())
}
