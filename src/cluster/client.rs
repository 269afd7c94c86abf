//! The client: its configuration, a deadline on every call, a metric of every answer, and what can be read of it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, DynBody},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, Layer, Service, filter::FilterLayer, timeout::TimeoutLayer, util::MapResponseLayer};

use super::{error::CALL_DEADLINE, managers::readable};
use crate::runtime::metrics::{Metrics, RestLabels};

/// The API server ends a watch after at most 295 s, so a longer silence is a dead connection.
const SILENCE: Duration = Duration::from_mins(5);

/// Objects of one page of a watch's first list: small pages keep the peak of memory low.
pub const PAGE: u32 = 100;

/// Seconds after which a watch ends by itself and is resumed, where a connection that died without a word has to be found
/// out before a verifier that renews its report counts as gone.
pub const RESUMED_AFTER: u32 = 30;

/// Reads the configuration: of the given kubeconfig, of `KUBECONFIG`, or of the pod.
///
/// # Errors
/// When there is none, or it can't be read.
pub async fn config(kubeconfig: Option<&std::path::Path>, context: Option<&str>) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: context.map(Into::into), ..KubeConfigOptions::default() };
    let mut config = match kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None if context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer().await?,
    };
    config.read_timeout = Some(SILENCE);
    // Retries are the controllers' business, per object and with their own pauses.
    config.default_retry = false;
    Ok(config)
}

/// A client of that configuration.
///
/// # Errors
/// When the configuration holds no usable certificate or credential.
pub fn client(config: Config, metrics: &Metrics) -> kube::Result<Client> {
    let counted = Counted { metrics: metrics.clone() };
    let deadline = TimeoutLayer::new(CALL_DEADLINE);
    let plain = FilterLayer::new(only_plain);
    let readable = MapResponseLayer::new(readable::<Box<DynBody>>);
    let stack = ClientBuilder::try_from(config)?.with_layer(&readable).with_layer(&deadline);
    Ok(stack.with_layer(&counted).with_layer(&plain).build())
}

/// Refuses what asks for another thing than who wrote the call meant: no name in Kubernetes needs to be escaped in a
/// path, and the API server routes by the path as it reads without escapes.
fn only_plain(request: Request<Body>) -> Result<Request<Body>, BoxError> {
    let segments = || request.uri().path().split('/');
    if request.uri().path().contains('%') || segments().any(|it| it == "." || it == "..") {
        return Err("a name in the path of this call is not one that Kubernetes knows".into());
    }
    Ok(request)
}

/// Counts requests to the API server by answer.
#[derive(Clone)]
struct Counted {
    metrics: Metrics,
}

#[derive(Clone)]
struct CountedService<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Layer<S> for Counted {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountedService { inner, metrics: self.metrics.clone() }
    }
}

impl<S, B> Service<Request<Body>> for CountedService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (metrics, method) = (self.metrics.clone(), request.method().to_string());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or_else(|_| "<error>".into(), |answer| answer.status().as_u16().to_string());
            metrics.rest_requests.get_or_create(&RestLabels { method, code }).inc();
            answer
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{Either, Full, StreamBody};
    use hyper::body::{Bytes, Frame};
    use tokio::{sync::mpsc, time::Instant};

    use super::*;

    /// A client of an API server that has no objects and whose watches say nothing; and when each is asked for.
    pub(crate) fn silent() -> (Client, mpsc::UnboundedReceiver<Instant>) {
        let (asked, watches) = mpsc::unbounded_channel();
        let answer = move |request: Request<Body>| {
            let body = if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                let _ = asked.send(Instant::now());
                Either::Left(StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()))
            } else {
                let list = r#"{"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}"#;
                Either::Right(Full::new(Bytes::from_static(list.as_bytes())))
            };
            async move { Ok::<_, Infallible>(Response::new(body)) }
        };
        (Client::new(tower::service_fn(answer), "default"), watches)
    }

    /// How long the first watch was listened to before the next one was asked for.
    pub(crate) async fn until_next(mut watches: mpsc::UnboundedReceiver<Instant>) -> Option<Duration> {
        let first = watches.recv().await?;
        Some(watches.recv().await?.duration_since(first))
    }

    /// A client that nobody answers.
    pub(crate) fn nobody() -> Client {
        let refuse = |_: Request<Body>| async { Err::<Response<Body>, _>(std::io::Error::other("nobody is there")) };
        Client::new(tower::service_fn(refuse), "default")
    }

    /// A client that may do nothing.
    pub(crate) fn forbidden() -> Client {
        let refuse = |_: Request<Body>| async {
            let status = kube::core::Status::failure("no", "Forbidden").with_code(403);
            let body = serde_json::to_vec(&status).unwrap_or_default();
            Response::builder().status(403_u16).body(Body::from(body))
        };
        Client::new(tower::service_fn(refuse), "default")
    }

    #[test]
    fn a_name_leads_to_no_other_path() {
        let asked = |path: &str| only_plain(Request::get(path).body(Body::empty()).unwrap()).is_ok();
        assert!(asked("/api/v1/namespaces/shop/configmaps/a.b-c?labelSelector=a%3Db"));
        assert!(asked("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"));
        for path in ["/api/v1%2Fsecrets", "/api/v1/namespaces/shop/pods/../../kube-system/secrets/x", "/api/./v1"] {
            assert!(!asked(path), "{path}");
        }
    }
}
