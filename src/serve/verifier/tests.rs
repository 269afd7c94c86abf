//! What breaks on the way from a question to its answer admits nobody.

use std::net::{Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest,
    attribute_context::{HttpRequest, Request as Asked},
    authorization_client::AuthorizationClient,
};
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    api::KeyRecordSpec,
    keys::{
        format::ApiKeyText,
        verify::{Credentials, Route},
    },
    runtime::metrics::ConnectionMetrics,
};

const ID: &str = "0123abcd";

pub(super) fn key() -> ApiKeyText {
    ApiKeyText::new("acme_live", ID, &[7; 32])
}

/// One whose id is known, and which is another: a digest apart.
fn other() -> ApiKeyText {
    ApiKeyText::new("acme_live", ID, &[8; 32])
}

pub(super) fn desk() -> Desk {
    let record: KeyRecordSpec = serde_json::from_value(json!({
        "apiKey": {"namespace": "shop", "name": "orders", "version": 1}, "digest": key().digest(),
        "owner": {"customerId": "shop"}, "role": "Viewer", "verbs": ["Read"], "audiences": ["orders-api"],
        "state": "Active", "expiresAt": "2100-01-01T00:00:00Z",
        "limits": {"perSecond": 10_000, "burst": 10_000, "perMinute": 10_000, "perHour": 10_000, "perDay": 10_000},
    }))
    .unwrap();
    let verifier = Verifier::default();
    let mut changes = verifier.changes();
    changes.apply(ID, &record).unwrap();
    changes.commit();
    Desk {
        verifier: Arc::new(verifier),
        metrics: VerifierMetrics::default(),
        audit_sample: None,
        proxies: Proxies::default(),
    }
}

/// A call with a key, from an address.
fn call(key: &ApiKeyText) -> Request<'_> {
    let mut credentials = Credentials::default();
    credentials.header("x-api-key", key.expose().as_bytes());
    let route = Route { audience: Some("orders-api"), permission: None, customer: None };
    Request { credentials, method: "GET", path: "/orders", route, source: Some(Ipv4Addr::new(192, 0, 2, 7).into()) }
}

/// What the log says of ten admitted calls and two refused ones.
fn logged(audit_sample: Option<NonZero<u64>>) -> Vec<String> {
    let desk = Desk { audit_sample, ..desk() };
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(log.reopen().unwrap())).finish();
    tracing::subscriber::with_default(subscriber, || {
        let [good, bad] = [key(), other()];
        for _ in 0..10 {
            assert_eq!(desk.answer(&call(&good), Form::Plain, |answer| answer.status), 200);
        }
        for _ in 0..2 {
            assert_eq!(desk.answer(&call(&bad), Form::Plain, |answer| answer.status), 401);
        }
    });
    let text = std::fs::read_to_string(log.path()).unwrap();
    for key in [key(), other()] {
        let body = key.expose().rsplit('_').next().unwrap().to_owned();
        assert!(!text.contains(&body) && !text.contains(&key.digest()), "key material in {text}");
    }
    text.lines().map(str::to_owned).collect()
}

#[test]
fn one_of_so_many_admitted_calls_is_recorded_and_every_refusal() {
    for (one_of, wanted) in [(0, 0), (1, 10), (4, 3), (10, 1), (1000, 1)] {
        let lines = logged(NonZero::new(one_of));
        let admitted: Vec<&String> = lines.iter().filter(|line| line.contains(" admitted")).collect();
        assert_eq!(admitted.len(), wanted, "one of {one_of}: {lines:#?}");
        for line in admitted {
            let source = "source=192.0.2.7 audience=\"orders-api\" method=\"GET\"";
            let said = format!("one_of={one_of} key={ID} owner=\"shop\" role=\"Viewer\" {source}");
            assert!(line.contains("rampart::audit") && line.contains(&said), "{line}");
        }
        assert_eq!(lines.iter().filter(|line| line.contains(" refused")).count(), 2, "{lines:#?}");
    }
}

#[test]
fn both_protocols_keep_the_same_headers_from_the_service() {
    use crate::keys::verify::{REMOVED, REMOVED_LIST};
    assert_eq!(REMOVED_LIST, REMOVED.join(","));
}

#[test]
fn what_panics_has_not_admitted() {
    let (desk, key) = (desk(), key());
    let request = call(&key);
    assert_eq!(desk.answer(&request, Form::Plain, |answer| answer.status), 200);
    let broken = |answer: Answer<'_>| {
        assert_ne!(answer.status, 200, "what puts it into words breaks");
        answer.status
    };
    assert_eq!(desk.answer(&request, Form::Plain, broken), 503);
    // What is under a lock was whole: it goes on.
    assert_eq!(desk.answer(&request, Form::Plain, |answer| answer.status), 200);
}

fn question(key: &ApiKeyText) -> String {
    format!(
        "GET /check/orders HTTP/1.1\r\nHost: verifier\r\nConnection: close\r\nX-Rampart-Audience: orders-api\r\n\
         X-API-Key: {}\r\n\r\n",
        key.expose()
    )
}

/// A server of HTTP, and where it is.
async fn serving_http(desk: Desk) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, source) = (listener.local_addr().unwrap(), ::http::HeaderName::from_static("x-rampart-source"));
    let (connections, stopped) = (ConnectionMetrics::default(), CancellationToken::new());
    let serving = async move { http::serve_on(listener, desk, source, &connections, stopped).await };
    (address, tokio::spawn(serving))
}

/// The same over gRPC.
async fn serving_grpc(desk: Desk) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, stopped) = (ConnectionMetrics::default(), CancellationToken::new());
    let serving = async move { grpc::serve_on(listener, desk, None, &connections, stopped).await };
    (address, tokio::spawn(serving))
}

#[tokio::test]
async fn over_grpc_too_who_is_no_proxy_shuts_out_nobody_but_itself() {
    let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let desk = Desk { proxies, ..desk() };
    let (address, serving) = serving_grpc(desk.clone()).await;
    let mut client = AuthorizationClient::connect(format!("http://{address}")).await.unwrap();
    let mut ask = async |key: &ApiKeyText| {
        let headers = [("x-api-key".to_owned(), key.expose().to_owned())].into();
        let http = HttpRequest { method: "GET".into(), path: "/orders".into(), headers, ..HttpRequest::default() };
        let attributes = AttributeContext {
            request: Some(Asked { http: Some(http), ..Asked::default() }),
            context_extensions: [("audience".to_owned(), "orders-api".to_owned())].into(),
            ..AttributeContext::default()
        };
        let answer = client.check(CheckRequest { attributes: Some(attributes) }).await.unwrap().into_inner();
        tonic::Code::from(answer.status.unwrap().code)
    };
    assert_eq!(ask(&key()).await, tonic::Code::Ok);
    for _ in 0..6 {
        assert_eq!(ask(&other()).await, tonic::Code::Unauthenticated);
    }
    assert_eq!(ask(&key()).await, tonic::Code::ResourceExhausted, "the peer is held");
    assert_eq!(desk.answer(&call(&key()), Form::Plain, |answer| answer.status), 200, "nobody else is");
    serving.abort();
}

#[tokio::test]
async fn who_is_no_proxy_shuts_out_nobody_but_itself() {
    let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let victim: IpAddr = Ipv4Addr::new(192, 0, 2, 7).into();
    assert_eq!(proxies.client(Some(Ipv4Addr::new(10, 1, 2, 3).into()), Some(victim)), Some(victim));
    let desk = Desk { proxies, ..desk() };
    let (address, serving) = serving_http(desk.clone()).await;
    let stating = |key: &ApiKeyText| {
        let stated = format!("X-Rampart-Source: {victim}\r\nX-API-Key");
        question(key).replace("X-API-Key", &stated)
    };
    for _ in 0..6 {
        let bad = stating(&other());
        assert!(ask(address, &bad, bad.len(), true).await.starts_with("HTTP/1.1 401 "));
    }
    let good = stating(&key());
    assert!(ask(address, &good, good.len(), true).await.starts_with("HTTP/1.1 429 "), "the peer is held");
    assert_eq!(desk.answer(&call(&key()), Form::Plain, |answer| answer.status), 200, "the victim is not");
    serving.abort();
}

/// Sends a question up to a byte, and reads the answer or hangs up.
async fn ask(address: SocketAddr, question: &str, cut: usize, reads: bool) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&question.as_bytes()[..cut]).await.unwrap();
    let mut answer = vec![];
    if reads {
        if cut < question.len() {
            stream.shutdown().await.unwrap();
        }
        stream.read_to_end(&mut answer).await.unwrap();
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn who_hangs_up_anywhere_is_not_admitted() {
    let desk = desk();
    let (address, serving) = serving_http(desk.clone()).await;
    let whole = question(&key()).len();
    let (mut read, mut sent) = (0, 0);
    for cut in 0..=whole {
        for (key, good) in [(key(), true), (other(), false)] {
            for reads in [true, false] {
                let answer = ask(address, &question(&key), cut, reads).await;
                let admitted = answer.starts_with("HTTP/1.1 200 ");
                assert_eq!(admitted, good && reads && cut == whole, "{cut} of {whole} bytes: {answer}");
                read += u64::from(admitted);
                sent += u64::from(good && cut == whole);
            }
        }
    }
    let used = desk.verifier.used_since(Timestamp::UNIX_EPOCH);
    let count = used.first().map_or(0, |(_, used)| used.count);
    assert!(
        (read..=sent).contains(&count),
        "{count} uses of {read} answers that were read, and {sent} whole questions"
    );
    serving.abort();
}
