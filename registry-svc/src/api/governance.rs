//! `tessera.registry.v1.GovernanceService`: promised by the wire, not there yet, and it says so.

use proto::registry::v1::{self as wire, governance_service_server::GovernanceService};
use service_host::status;
use tonic::{Request, Response, Status};

/// Answers UNIMPLEMENTED to everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Governance;

#[tonic::async_trait]
impl GovernanceService for Governance {
    async fn drain(&self, _request: Request<wire::DrainRequest>) -> Result<Response<wire::DrainResponse>, Status> {
        Err(status::unimplemented("Drain"))
    }

    async fn undrain(
        &self,
        _request: Request<wire::UndrainRequest>,
    ) -> Result<Response<wire::UndrainResponse>, Status> {
        Err(status::unimplemented("Undrain"))
    }

    async fn set_weight(
        &self,
        _request: Request<wire::SetWeightRequest>,
    ) -> Result<Response<wire::SetWeightResponse>, Status> {
        Err(status::unimplemented("SetWeight"))
    }
}
