//! Collectors behind TLS, over gRPC and over HTTP, with certificates that are believed and with others; and requests that are
//! compressed.

use std::{
    fs,
    io::Read as _,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, Response, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier},
};

use crate::process::{logged, run};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("valid");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("issued")
}

/// Certificate and key of `localhost` in PEM.
fn issued(by: &Authority) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("valid");
    let certificate = params.signed_by(&key, by).expect("issued");
    (certificate.pem(), key.serialize_pem())
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, text).expect("written");
    file.display().to_string()
}

/// What a collector was sent.
#[derive(Debug, Clone)]
struct Heard {
    version: Version,
    path: String,
    encoding: String,
    compressed: usize,
    spans: usize,
}

/// A collector behind TLS that takes gRPC and HTTP; demands a certificate of that authority where one is named.
struct Collector {
    endpoint: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    server: JoinHandle<()>,
}

impl Collector {
    async fn start(by: &Authority, clients_of: Option<&Authority>) -> Self {
        let (certificate, key) = issued(by);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients_of {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut believed = RootCertStore::empty();
                believed.add(authority.der().clone()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(believed.into(), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let mut config = builder.with_single_cert(chain, key).expect("they fit");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let told = Arc::clone(&heard);
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
                // It ends with its connection, and all of them with the test's runtime.
                drop(tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&told)));
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }));
            }
        });
        Self {
            endpoint: format!("https://localhost:{port}"),
            heard,
            server,
        }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("not poisoned").clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Answer = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

async fn answer(
    request: Request<hyper::body::Incoming>,
    heard: Arc<Mutex<Vec<Heard>>>,
) -> Result<Response<Answer>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await?.to_bytes();
    let is_grpc = head.headers[header::CONTENT_TYPE] == "application/grpc";
    let compressed = body.len();
    let named = if is_grpc { "grpc-encoding" } else { "content-encoding" };
    let encoding = head
        .headers
        .get(named)
        .map_or("", |value| value.to_str().expect("text"));
    // gRPC: whether it is compressed, and how long it is.
    let mut is_compressed = encoding == "gzip";
    if is_grpc {
        is_compressed = body.split_to(5)[0] == 1;
    }
    let mut message = body.to_vec();
    if is_compressed {
        message.clear();
        GzDecoder::new(&body[..]).read_to_end(&mut message).expect("gzip");
    }
    let request = ExportTraceServiceRequest::decode(message.as_slice()).expect("decodes");
    let scopes = request.resource_spans.iter().flat_map(|spans| &spans.scope_spans);
    heard.lock().expect("not poisoned").push(Heard {
        version: head.version,
        path: head.uri.path().to_owned(),
        encoding: encoding.to_owned(),
        compressed,
        spans: scopes.map(|scope| scope.spans.len()).sum(),
    });
    let nothing = ExportTraceServiceResponse::default().encode_to_vec();
    if !is_grpc {
        return Ok(Response::new(Full::new(Bytes::from(nothing)).boxed()));
    }
    let mut framed = vec![0; 5];
    framed.extend(nothing);
    let trailers = http::HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )]);
    let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let response = Response::builder().header(header::CONTENT_TYPE, "application/grpc");
    Ok(response.body(body.boxed()).expect("a response"))
}

/// Runs a process that makes three spans, with these variables on top.
async fn exports(variables: Vec<(&'static str, String)>) -> Vec<String> {
    let ran = tokio::task::spawn_blocking(move || {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        logged(&run(&variables))
    });
    ran.await.expect("it ran")
}

fn warnings(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.contains("\"WARN\"")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_behind_tls_is_spoken_to_over_grpc_and_http_compressed_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = authority();
    let believed = write(folder.path(), "ca.pem", &authority.pem());
    for (protocol, path) in [
        ("grpc", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        ("http/protobuf", "/v1/traces"),
    ] {
        for compression in ["none", "gzip"] {
            let collector = Collector::start(&authority, None).await;
            let lines = exports(vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.clone()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", compression.to_owned()),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", believed.clone()),
            ])
            .await;
            assert_eq!(warnings(&lines), Vec::<&String>::new(), "{protocol} {compression}");
            let heard = collector.heard();
            assert_eq!(heard.iter().map(|heard| heard.spans).sum::<usize>(), 3, "{heard:?}");
            for heard in heard {
                assert_eq!(heard.path, path);
                assert_eq!(heard.version, Version::HTTP_2, "agreed on by TLS: {heard:?}");
                let expected = if compression == "gzip" { "gzip" } else { "" };
                assert_eq!(heard.encoding, expected, "{heard:?}");
                assert!(heard.compressed > 0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_may_ask_for_a_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (servers, clients) = (authority(), authority());
    let collector = Collector::start(&servers, Some(&clients)).await;
    let (certificate, key) = issued(&clients);
    let with = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.clone()),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            write(folder.path(), "ca.pem", &servers.pem()),
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            write(folder.path(), "own.pem", &certificate),
        ),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", write(folder.path(), "own.key", &key)),
    ];
    let without = with[..2].to_vec();
    let lines = exports(without).await;
    let told = warnings(&lines);
    assert_eq!(told.len(), 1, "{lines:#?}");
    assert!(told[0].contains("traces cannot be exported"), "{}", told[0]);
    assert_eq!(collector.heard().len(), 0);

    let lines = exports(with).await;
    assert_eq!(warnings(&lines), Vec::<&String>::new());
    assert_eq!(collector.heard().iter().map(|heard| heard.spans).sum::<usize>(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_not_believed_and_files_that_are_none_are_told_clearly() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, wrong) = (authority(), authority());
    let collector = Collector::start(&right, None).await;
    let right = write(folder.path(), "ca.pem", &right.pem());
    let wrong = write(folder.path(), "other.pem", &wrong.pem());
    let empty = write(folder.path(), "empty.pem", "");
    let plain = collector.endpoint.replace("localhost", "127.0.0.1");
    for protocol in ["grpc", "http/protobuf"] {
        for (endpoint, authorities, expected) in [
            (
                &collector.endpoint,
                &wrong,
                "OTEL_EXPORTER_OTLP_CERTIFICATE names those that are",
            ),
            (&plain, &right, "the certificate of 127.0.0.1 was refused"),
            (&collector.endpoint, &empty, "empty.pem has none"),
            (
                &collector.endpoint,
                &"/nowhere.pem".to_owned(),
                "/nowhere.pem cannot be read",
            ),
        ] {
            let lines = exports(vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.clone()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", authorities.clone()),
            ])
            .await;
            let told = warnings(&lines);
            assert_eq!(told.len(), 1, "{protocol} {expected}: {lines:#?}");
            assert!(told[0].contains(expected), "{protocol}: {}", told[0]);
        }
    }
    assert_eq!(collector.heard().len(), 0);
}
