//! `tessera.monitor.v1.MonitorService`: reads requests, asks the driver and the core, writes answers. No rule lives here.

mod convert;
mod error;
mod gate;
mod read;
#[cfg(test)]
mod tests;

use proto::monitor::v1::{
    DependenciesRequest, DependenciesResponse, QueryRequest, QueryResponse, ReportRequest, ReportResponse, TopRequest,
    TopResponse,
    monitor_service_server::{MonitorService, MonitorServiceServer},
};
use service_host::{Peer, status};
use tonic::{Code, Request, Response, Status, service::Routes};

pub(crate) use self::gate::ApiGate;
/// The gRPC service's full name.
pub(crate) use proto::monitor::v1::monitor_service_server::SERVICE_NAME;

use crate::{
    access,
    driver::{self, Driver},
    monitor::MAX_PAGE_POINTS,
};

/// Answers the calls of one process.
#[derive(Debug, Clone)]
pub(crate) struct MonitorApi {
    driver: Driver,
}

impl MonitorApi {
    pub(crate) fn new(driver: Driver) -> Self {
        Self { driver }
    }

    /// As the host serves it.
    pub(crate) fn into_routes(self) -> Routes {
        // The largest request, a report, is kept below that by those who report.
        Routes::new(MonitorServiceServer::new(self).max_decoding_message_size(service_host::MAX_REQUEST_MESSAGE))
    }
}

#[tonic::async_trait]
impl MonitorService for MonitorApi {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let identity = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.identity.clone());
        let (service, report) = read::report(request.into_inner())?;
        if !access::may_report(identity.as_deref(), &service) {
            return Err(status::error(
                Code::PermissionDenied,
                "IDENTITY_MISMATCH",
                format!("this certificate is not that of {service}, and may not report as it"),
            ));
        }
        let applied = self.driver.report(report).await?;
        Ok(Response::new(ReportResponse {
            duplicate: applied.duplicate,
        }))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        let read::Query {
            selection,
            steps,
            group_by,
            page,
        } = read::query(request.into_inner(), driver::now())?;
        let fits = (MAX_PAGE_POINTS / steps.count().max(1)).clamp(1, u64::from(page.size));
        let limit = usize::try_from(fits).unwrap_or(1);
        let (answers, more) = self
            .driver
            .state()
            .query(&selection, steps, group_by, page.cursor.as_ref(), limit);
        let next_page_token = match answers.last() {
            Some((name, _)) if more => read::grouped_token(name),
            _ => String::new(),
        };
        let series = answers
            .into_iter()
            .map(|(name, answer)| convert::series(name, &answer, selection.side, steps));
        Ok(Response::new(QueryResponse {
            series: series.collect(),
            next_page_token,
            step: Some(convert::duration(std::time::Duration::from_secs(steps.step))),
            since: Some(convert::timestamp(steps.window.since)),
            until: Some(convert::timestamp(steps.window.until)),
        }))
    }

    async fn dependencies(
        &self,
        request: Request<DependenciesRequest>,
    ) -> Result<Response<DependenciesResponse>, Status> {
        let now = driver::now();
        let read::Graph { service, window, page } = read::dependencies(request.into_inner(), now)?;
        let (mut edges, window) = self.driver.state().edges(service.as_deref(), window, now);
        if let Some((caller, callee)) = &page.cursor {
            edges.retain(|edge| (&*edge.caller, &*edge.callee) > (caller.as_str(), callee.as_str()));
        }
        let next_page_token = page.cut(&mut edges, |edge| read::edge_token(&edge.caller, &edge.callee));
        let edges = edges.into_iter().map(|edge| convert::edge(edge, window.seconds()));
        Ok(Response::new(DependenciesResponse {
            dependencies: edges.collect(),
            next_page_token,
        }))
    }

    async fn top(&self, request: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        let now = driver::now();
        let (selection, window, order, limit) = read::top(request.into_inner(), now)?;
        let (mut rows, window) = self.driver.state().top(&selection, window, order, now);
        let found = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        rows.truncate(limit);
        let methods = rows
            .into_iter()
            .map(|row| convert::method(row, selection.side, window.seconds()));
        Ok(Response::new(TopResponse {
            methods: methods.collect(),
            found,
        }))
    }
}
