//! Requests that break the contract, each told with its field; and one that keeps it, over the driver and the disk.

use std::time::Duration;

use proto::monitor::v1;
use service_store::Violations;
use tonic::{Code, Request};

use super::*;
use crate::{monitor::Bounds, store::Store};

fn api(folder: &std::path::Path) -> (MonitorApi, driver::Writer) {
    let store = Store::open(&folder.join("monitor.redb")).expect("opens");
    let bounds = Bounds {
        series: 100,
        bytes: 1 << 20,
        reporters: 10,
    };
    let (driver, writer) = driver::start(store, bounds).expect("starts");
    (MonitorApi::new(driver), writer)
}

fn report(sequence: u64) -> v1::ReportRequest {
    let delta = v1::SeriesDelta {
        side: v1::Side::Provider.into(),
        method: "a.B/C".to_owned(),
        peer: "user-svc".to_owned(),
        codes: vec![
            v1::CodeCount { code: 0, calls: 3 },
            v1::CodeCount { code: 14, calls: 1 },
        ],
        latencies: Some(v1::Histogram {
            buckets: vec![100, 120],
            counts: vec![3, 1],
            total_micros: 9_000,
        }),
        ..Default::default()
    };
    v1::ReportRequest {
        reporter_id: "6f1c2b1e-3f0a-4f7e-9c55-0d2b8f6f2a10".to_owned(),
        sequence,
        service: "ticket-svc".to_owned(),
        instance_id: "t-1".to_owned(),
        interval_start: Some(convert::timestamp(driver::now())),
        interval: Some(convert::duration(Duration::from_secs(10))),
        series: vec![delta],
    }
}

#[tokio::test]
async fn the_same_report_counts_once_and_can_be_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (api, writer) = api(folder.path());
    let first = api.report(Request::new(report(1))).await.expect("counted").into_inner();
    let again = api
        .report(Request::new(report(1)))
        .await
        .expect("answered")
        .into_inner();
    assert!(!first.duplicate && again.duplicate);

    let top = api
        .top(Request::new(TopRequest::default()))
        .await
        .expect("answered")
        .into_inner();
    assert_eq!((top.found, top.methods.len()), (1, 1));
    let figures = top.methods[0].figures.clone().expect("figures");
    assert_eq!((figures.calls, figures.errors), (4, 1));
    assert!((figures.error_ratio - 0.25).abs() < 1e-9);
    let p50 = figures.latency.expect("calls").p50.expect("calls");
    assert_eq!(p50, convert::duration(telemetry::stats::buckets::middle(100)));

    let request = v1::QueryRequest {
        selection: Some(v1::Selection {
            service: "ticket-svc".to_owned(),
            ..Default::default()
        }),
        group_by: vec![v1::GroupBy::Caller.into()],
        ..Default::default()
    };
    let series = api.query(Request::new(request)).await.expect("answered").into_inner();
    assert_eq!(series.series.len(), 1);
    assert_eq!(series.series[0].caller, "user-svc");
    assert_eq!(series.series[0].points.len(), 1);
    assert_eq!(series.next_page_token, "");

    let edges = api
        .dependencies(Request::new(DependenciesRequest::default()))
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(edges.dependencies.len(), 1);
    assert_eq!(edges.dependencies[0].caller, "user-svc");
    assert_eq!(edges.dependencies[0].callee, "ticket-svc");
    drop(api);
    writer.end().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_by_its_field() {
    let refused = |change: &dyn Fn(&mut v1::ReportRequest), field: &str| {
        let mut request = report(1);
        change(&mut request);
        let status = read::report(request).expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(field), "{field}: {}", status.message());
    };
    refused(&|request| request.reporter_id.clear(), "reporter_id");
    refused(&|request| request.sequence = 0, "sequence");
    refused(&|request| request.service = "a b".to_owned(), "service");
    refused(&|request| request.instance_id = "\u{1b}[2J".to_owned(), "instance_id");
    refused(&|request| request.interval_start = None, "interval_start");
    refused(&|request| request.interval = None, "interval");
    refused(&|request| request.series[0].side = 0, "series[0].side");
    refused(&|request| request.series[0].side = 99, "series[0].side");
    refused(&|request| request.series[0].method.clear(), "series[0].method");
    refused(&|request| request.series[0].peer = "é".to_owned(), "series[0].peer");
    refused(&|request| request.series[0].codes[0].code = 17, "series[0].codes");
    refused(&|request| request.series[0].codes[1].code = 0, "series[0].codes");
    refused(
        &|request| request.series[0].latencies.as_mut().expect("set").buckets[1] = 464,
        "series[0].codes",
    );
    refused(
        &|request| request.series[0].latencies.as_mut().expect("set").buckets[1] = 100,
        "series[0].codes",
    );
    refused(
        &|request| {
            request.series[0].latencies.as_mut().expect("set").counts.pop();
        },
        "series[0].codes",
    );
    refused(
        &|request| request.series = vec![v1::SeriesDelta::default(); 501],
        "series",
    );
}

#[test]
fn questions_have_limits() {
    let now = driver::now();
    let ask = |change: &dyn Fn(&mut v1::QueryRequest)| {
        let mut request = v1::QueryRequest {
            selection: Some(v1::Selection {
                service: "ticket-svc".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        change(&mut request);
        read::query(request, now)
            .map(|_| ())
            .map_err(|status| status.message().to_owned())
    };
    let at = |seconds: i64| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let now = i64::try_from(now).expect("small");
    assert_eq!(ask(&|_| {}), Ok(()));
    for (change, field) in [
        (
            &(|request: &mut v1::QueryRequest| request.selection = None) as &dyn Fn(&mut v1::QueryRequest),
            "selection",
        ),
        (&|request| request.page_size = 201, "page_size"),
        (&|request| request.page_size = -1, "page_size"),
        (&|request| request.page_token = "x".to_owned(), "page_token"),
        (&|request| request.group_by = vec![1, 1], "group_by[1]"),
        (&|request| request.group_by = vec![9], "group_by[0]"),
        (
            &|request| request.step = Some(convert::duration(Duration::from_secs(9))),
            "step",
        ),
        (
            &|request| {
                request.window = Some(v1::Window {
                    since: at(now),
                    until: at(now - 10),
                });
            },
            "window.until",
        ),
        (
            &|request| {
                request.window = Some(v1::Window {
                    since: at(now - 36 * 24 * 3_600),
                    until: None,
                });
            },
            "window.since",
        ),
        (
            &|request| {
                request.window = Some(v1::Window {
                    since: at(i64::MAX),
                    until: None,
                });
            },
            "window.since",
        ),
        (
            &|request| request.selection.get_or_insert_default().side = 77,
            "selection.side",
        ),
        (
            &|request| {
                let selection = request.selection.get_or_insert_default();
                selection.side = v1::Side::Caller.into();
                selection.instance = "t-1".to_owned();
            },
            "selection.instance",
        ),
    ] {
        let told = ask(change).expect_err(field);
        assert!(told.contains(field), "{field}: {told}");
    }
    // A violation that nobody reads would let a request through.
    assert_eq!(Violations::default().into_iter().count(), 0);
}
