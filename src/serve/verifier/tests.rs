//! What breaks on the way from a question to its answer admits nobody.

use std::net::{Ipv4Addr, SocketAddr};

use jiff::Timestamp;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    api::KeyRecordSpec,
    keys::{
        format::ApiKeyText,
        verify::{Credentials, Route},
    },
};

const ID: &str = "0123abcd";

fn key() -> ApiKeyText {
    ApiKeyText::new("acme_live", ID, &[7; 32])
}

/// One whose id is known, and which is another: a digest apart.
fn other() -> ApiKeyText {
    ApiKeyText::new("acme_live", ID, &[8; 32])
}

fn desk() -> Desk {
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
    Desk { verifier: Arc::new(verifier), metrics: VerifierMetrics::default() }
}

#[test]
fn what_panics_has_not_admitted() {
    let (desk, key) = (desk(), key());
    let mut credentials = Credentials::default();
    credentials.header("x-api-key", key.expose().as_bytes());
    let route = Route { audience: Some("orders-api"), permission: None, customer: None };
    let request = Request { credentials, method: "GET", path: "/orders", route, source: None };
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
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = http::router(desk.clone(), ::http::HeaderName::from_static("x-rampart-source"));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
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
