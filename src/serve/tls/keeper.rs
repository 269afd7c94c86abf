//! Keeps the CA Secret, the injected bundle and the served leaf in step.

use std::{net::IpAddr, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
        },
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use rcgen::SanType;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    Leaf,
    authority::{Authority, Ca, LEAF_RENEWAL, Step, life},
};
use crate::{
    admission::{ENFORCE_CONFIGURATION, FIX_CONFIGURATION, WEBHOOK_CONFIGURATION},
    api::labels::{MANAGED_BY, MANAGER},
    cluster::{
        Error, Result,
        error::{call, found, secret_call},
        server_clock::skew,
    },
    runtime::{clock, metrics::Metrics, readiness::Gate},
};

/// The Secret that all replicas share.
pub const SECRET: &str = "rampart-webhook-ca";
/// Owns `caBundle` in the webhook configuration, and nothing else.
const INJECTOR: &str = "rampart-ca-injector";
/// Everything is looked at again this often, by the wall clock: timers stand still while a machine
/// sleeps, and certificates do not.
const CHECK: Duration = Duration::from_mins(1);
/// The first pause after a failure; each is twice the one before, up to the longest.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

const SIGNING: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("next.crt", "next.key");
const RETIRED: &str = "retired.crt";
const END: &str = "-----END CERTIFICATE-----\n";

/// Names that the webhook is called by.
#[derive(Debug, Clone)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    fn alternatives(&self) -> anyhow::Result<Vec<SanType>> {
        let dns = self.dns.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        dns.chain(self.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)))).collect()
    }
}

/// Keeps the certificates.
pub struct Keeper {
    /// Client of the operator.
    pub client: Client,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Names that the webhook is called by.
    pub names: Names,
    /// What is served.
    pub leaf: Leaf,
    /// Metrics.
    pub metrics: Metrics,
    /// Opens when a certificate is served.
    pub certificate: Gate,
    /// Opens when the API server trusts it.
    pub bundle: Gate,
}

/// What the keeper remembers of its last look.
#[derive(Default)]
struct Seen {
    served: Option<Served>,
    /// That nobody is there to be told which CA to trust.
    is_unasked: bool,
}

/// What is served: by which CA, from when, and until when.
struct Served {
    by: String,
    from: Timestamp,
    until: Timestamp,
}

impl Served {
    fn is_fresh(&self, signing: &Ca, now: Timestamp) -> bool {
        self.by == signing.certificate && self.from <= now && self.until.duration_since(now) > LEAF_RENEWAL
    }
}

impl Keeper {
    /// Keeps them until the process stops.
    ///
    /// # Errors
    /// When a name is not one.
    pub async fn run(self, stopped: CancellationToken) -> anyhow::Result<()> {
        let names = self.names.alternatives()?;
        let (mut seen, mut retry) = (Seen::default(), RETRY);
        let only = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let configuration: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let secret: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        // An error is no change: what fails is tried again after a pause, not at once.
        let configuration = watcher(configuration, only(WEBHOOK_CONFIGURATION)).default_backoff();
        let configuration = configuration.filter_map(async |event| event.ok().map(drop));
        let secret = watcher(secret, only(SECRET)).default_backoff();
        let secret = secret.filter_map(async |event| event.ok().map(drop));
        let mut changes = std::pin::pin!(futures::stream::select(configuration, secret));
        loop {
            let pause = match self.pass(&names, &mut seen).await {
                // A step leads to the next one at once.
                Ok(true) => continue,
                Ok(false) => {
                    retry = RETRY;
                    CHECK
                }
                Err(error) => {
                    tracing::warn!(%error, "the webhook's certificate could not be looked after");
                    let pause = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    pause
                }
            };
            tokio::select! {
                _ = changes.next() => {}
                () = tokio::time::sleep(pause) => {}
                () = stopped.cancelled() => return Ok(()),
            }
        }
    }

    /// One look at everything; whether it changed the Secret.
    async fn pass(&self, names: &[SanType], seen: &mut Seen) -> anyhow::Result<bool> {
        // By the clock of who is to believe it.
        let now = clock::now().checked_sub(skew(&self.client).await?)?;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = found(secret_call(|| format!("reading Secret {SECRET}"), api.get(SECRET)).await)?;
        let authority = secret.as_ref().map(read).unwrap_or_default();
        let configuration = self.configuration().await?;
        let trusted = configuration.as_ref().and_then(trusted);
        let everywhere = match &authority.next {
            Some(next) if !self.is_everywhere(next).await => None,
            _ => trusted.as_deref(),
        };
        let step = authority.decide(everywhere, now);
        if step != Step::Keep {
            tracing::info!(?step, "the webhook's CA");
            self.write(&api, secret, &authority.after(step, now)?).await?;
            return Ok(true);
        }
        self.serve_leaf(&authority, names, &mut seen.served, now)?;
        let was_unasked = std::mem::replace(&mut seen.is_unasked, configuration.is_none());
        let Some(configuration) = configuration else {
            if !was_unasked {
                tracing::warn!(
                    "the ValidatingWebhookConfiguration {WEBHOOK_CONFIGURATION} is not there: is it installed?"
                );
            }
            return Ok(false);
        };
        let bundle = authority.bundle();
        if trusted.as_deref() != Some(&bundle) {
            self.inject(&configuration, &bundle).await?;
        }
        self.bundle.open();
        Ok(false)
    }

    fn serve_leaf(
        &self,
        authority: &Authority,
        names: &[SanType],
        served: &mut Option<Served>,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let Some(signing) = &authority.signing else { return Ok(()) };
        if !served.as_ref().is_some_and(|served| served.is_fresh(signing, now)) {
            let (certificate, key) = signing.sign(names, now)?;
            self.leaf.serve(&certificate, &key)?;
            let (from, until) = life(&certificate);
            self.metrics.certificate_expiry.set(until);
            tracing::info!(%until, "a new certificate is served");
            *served = Some(Served { by: signing.certificate.clone(), from, until });
            self.certificate.open();
        }
        Ok(())
    }

    /// Whether the webhooks that the controller makes after the shipped ones carry a CA, as far as they are there. They
    /// get it from those a moment later.
    async fn is_everywhere(&self, ca: &Ca) -> bool {
        let enforce: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let fix: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let doing = |name: &str| format!("reading the webhook configuration {name}");
        let enforce = found(call(|| doing(ENFORCE_CONFIGURATION), enforce.get(ENFORCE_CONFIGURATION)).await);
        let fix = found(call(|| doing(FIX_CONFIGURATION), fix.get(FIX_CONFIGURATION)).await);
        match (enforce, fix) {
            (Ok(enforce), Ok(fix)) => carry(ca, enforce.as_ref(), fix.as_ref()),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "the next CA does not sign before every webhook is known to carry it");
                false
            }
        }
    }

    async fn configuration(&self) -> Result<Option<ValidatingWebhookConfiguration>> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let doing = || format!("reading the ValidatingWebhookConfiguration {WEBHOOK_CONFIGURATION}");
        found(call(doing, api.get(WEBHOOK_CONFIGURATION)).await)
    }

    async fn inject(&self, live: &ValidatingWebhookConfiguration, bundle: &str) -> Result<()> {
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let with_bundle = |name: &String| json!({"name": name, "clientConfig": {"caBundle": bundle}});
        let webhooks: Vec<_> = live.webhooks.iter().flatten().map(|webhook| with_bundle(&webhook.name)).collect();
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": WEBHOOK_CONFIGURATION, "uid": live.metadata.uid}, "webhooks": webhooks,
        });
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let doing = || "injecting the CA bundle".into();
        let params = PatchParams::apply(INJECTOR).force();
        call(doing, api.patch(WEBHOOK_CONFIGURATION, &params, &Patch::Apply(&patch))).await?;
        tracing::info!("the API server was told which CA to trust");
        Ok(())
    }

    /// Writes the Secret, unless another replica was faster: then theirs stands.
    async fn write(&self, api: &Api<Secret>, live: Option<Secret>, authority: &Authority) -> Result<()> {
        let data = authority.to_data();
        let written = if let Some(mut secret) = live {
            secret.data = Some(data);
            secret_call(|| format!("writing Secret {SECRET}"), api.replace(SECRET, &PostParams::default(), &secret))
                .await
        } else {
            let labels = [(MANAGED_BY.to_owned(), MANAGER.to_owned())].into();
            let metadata = ObjectMeta { name: Some(SECRET.into()), labels: Some(labels), ..ObjectMeta::default() };
            let secret = Secret { metadata, type_: Some("Opaque".into()), data: Some(data), ..Secret::default() };
            secret_call(|| format!("creating Secret {SECRET}"), api.create(&PostParams::default(), &secret)).await
        };
        match written {
            Err(Error::Secret { code: 409, .. }) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The bundle that every webhook of the configuration carries; `None` where they differ or lack it.
fn trusted(configuration: &ValidatingWebhookConfiguration) -> Option<String> {
    let webhooks = configuration.webhooks.iter().flatten();
    let mut bundles: Vec<_> = webhooks.map(|webhook| webhook.client_config.ca_bundle.as_ref()).collect();
    bundles.dedup();
    match bundles.as_slice() {
        [Some(bundle)] => String::from_utf8(bundle.0.clone()).ok(),
        _ => None,
    }
}

/// Whether every webhook of these configurations trusts a CA.
fn carry(
    ca: &Ca,
    enforce: Option<&ValidatingWebhookConfiguration>,
    fix: Option<&MutatingWebhookConfiguration>,
) -> bool {
    let carries = |client: &WebhookClientConfig| {
        let bundle = client.ca_bundle.as_ref().and_then(|bundle| std::str::from_utf8(&bundle.0).ok());
        bundle.is_some_and(|bundle| bundle.contains(ca.certificate.trim()))
    };
    let enforce = enforce.and_then(|it| it.webhooks.as_ref()).into_iter().flatten();
    let fix = fix.and_then(|it| it.webhooks.as_ref()).into_iter().flatten();
    enforce.map(|webhook| &webhook.client_config).chain(fix.map(|webhook| &webhook.client_config)).all(carries)
}

type Data = std::collections::BTreeMap<String, ByteString>;

fn read(secret: &Secret) -> Authority {
    let text = |name: &str| secret.data.as_ref()?.get(name).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    let ca = |(certificate, key): (&str, &str)| {
        Some(Ca { certificate: text(certificate)?, key: Zeroizing::new(text(key)?) })
    };
    let retired = text(RETIRED).unwrap_or_default();
    let retired = retired.split_inclusive(END).filter(|pem| !pem.trim().is_empty()).map(Into::into).collect();
    Authority { signing: ca(SIGNING), next: ca(NEXT), retired }
}

impl Authority {
    fn to_data(&self) -> Data {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = Data::new();
        for ((certificate, key), ca) in [(SIGNING, &self.signing), (NEXT, &self.next)] {
            if let Some(ca) = ca {
                data.insert(certificate.into(), bytes(&ca.certificate));
                data.insert(key.into(), bytes(&ca.key));
            }
        }
        if !self.retired.is_empty() {
            data.insert(RETIRED.into(), bytes(&self.retired.concat()));
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response, header::DATE};
    use kube::client::Body;

    use super::*;
    use crate::runtime::readiness::Readiness;

    /// An API server of 2020 that has the Secret, and nothing else.
    fn api_server(secret: &Secret) -> Client {
        let secret = serde_json::to_value(secret).unwrap();
        let answer = move |request: Request<Body>| {
            let (code, json) = match request.uri().path() {
                "/version" => (200_u16, json!({})),
                path if path.ends_with(SECRET) => (200, secret.clone()),
                _ => (404, json!({"status": "Failure", "message": "", "reason": "NotFound", "code": 404})),
            };
            let answer = Response::builder().status(code).header(DATE, "Fri, 17 Jan 2020 15:14:38 GMT");
            let answer = answer.body(Body::from(json.to_string().into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn without_a_configuration_a_leaf_is_served_by_the_api_servers_clock() {
        let then: Timestamp = "2020-01-17T15:14:38Z".parse().unwrap();
        let authority = Authority::default().after(Step::Create, then).unwrap();
        let readiness = Readiness::default();
        let keeper = Keeper {
            client: api_server(&Secret { data: Some(authority.to_data()), ..Secret::default() }),
            namespace: "rampart-system".into(),
            names: Names { dns: vec!["webhook.example.com".into()], addresses: vec![] },
            leaf: Leaf::default(),
            metrics: Metrics::default(),
            certificate: readiness.gate("certificate"),
            bundle: readiness.gate("bundle"),
        };
        let (names, mut seen) = (keeper.names.alternatives().unwrap(), Seen::default());
        assert!(!keeper.pass(&names, &mut seen).await.unwrap());
        assert!(seen.is_unasked);
        assert_eq!(readiness.missing(), ["bundle"], "nobody was told to trust it");
        assert!(seen.served.unwrap().until.duration_since(then).as_hours() < 8 * 24);
    }

    #[test]
    fn a_ca_signs_once_every_webhook_that_is_there_carries_it() {
        let next = Ca { certificate: "next\n".into(), key: Zeroizing::default() };
        let webhooks = |bundle: &str| {
            let client = json!({"caBundle": ByteString(bundle.into()), "url": "https://webhook.example.com/enforce"});
            json!({"webhooks": [{
                "name": "w.rampart.dev", "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            }]})
        };
        let enforce = |bundle| serde_json::from_value::<ValidatingWebhookConfiguration>(webhooks(bundle)).unwrap();
        let fix = |bundle| serde_json::from_value::<MutatingWebhookConfiguration>(webhooks(bundle)).unwrap();
        assert!(carry(&next, None, None));
        assert!(carry(&next, Some(&enforce("next\nnow\n")), Some(&fix("next\nnow\n"))));
        assert!(!carry(&next, Some(&enforce("now\n")), None));
        assert!(!carry(&next, Some(&enforce("next\nnow\n")), Some(&fix("now\n"))));
    }

    #[test]
    fn a_leaf_that_has_not_begun_is_made_anew() {
        let at = |hour: i64| Timestamp::from_second(hour * 3600).unwrap();
        let signing = Ca { certificate: "ca".into(), key: Zeroizing::default() };
        let served = Served { by: "ca".into(), from: at(100), until: at(268) };
        assert!(served.is_fresh(&signing, at(100)));
        assert!(!served.is_fresh(&signing, at(99)), "a clock was ahead");
        assert!(!served.is_fresh(&signing, at(200)), "it ends");
        assert!(!served.is_fresh(&Ca { certificate: "next".into(), ..signing }, at(100)));
    }
}
