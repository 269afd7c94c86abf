//! The webhook, through the API server.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration},
        core::v1::Pod,
    },
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use rampart::api::SecurityPolicy;
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("admission::modes_change_what_happens_to_a_pod", modes_change_what_happens_to_a_pod);
    tests.add("admission::a_changed_ca_bundle_is_put_back", changed_ca_bundle_is_put_back);
    tests.add("admission::debug_containers_are_judged_and_labels_are_not", debug_containers_are_judged);
}

async fn changed_ca_bundle_is_put_back(env: Env) -> Result<()> {
    let client = env.shared().await?.plane.client();
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client);
    let bundles = || async {
        let webhooks = api.get("rampart").await?.webhooks.unwrap_or_default();
        anyhow::Ok(webhooks.into_iter().map(|webhook| webhook.client_config.ca_bundle).collect::<Vec<_>>())
    };
    let good = bundles().await?;
    ensure!(good.len() == 4 && good.iter().all(Option::is_some), "{} bundles", good.len());
    // One of them trusts its CA twice over, so that nobody else's pod goes unjudged meanwhile: by another manager, as a
    // GitOps tool would do it.
    let once = good.iter().flatten().next().context("a bundle")?.0.as_slice();
    let twice = [once, b"\n".as_slice(), once].concat();
    let edit = json!({"webhooks": [{"name": "pods.rampart.dev", "clientConfig": {"caBundle": ByteString(twice)}}]});
    let edited = api.patch("rampart", &PatchParams::default(), &Patch::Strategic(&edit)).await?;
    let is_edited =
        |it: &ValidatingWebhook| it.name == "pods.rampart.dev" && !good.contains(&it.client_config.ca_bundle);
    ensure!(edited.webhooks.iter().flatten().any(is_edited), "the edit changed nothing");
    wait::until("the bundle to be back", wait::SOON, || async {
        ensure!(bundles().await? == good, "it is not");
        Ok(())
    })
    .await
}

/// What the API server says to a dry-run POST: status code, message or body, and warnings.
pub(crate) async fn post(client: &Client, path: &str, object: &Value) -> Result<(u16, String, Vec<String>)> {
    let request = http::Request::post(format!("{path}?dryRun=All"))
        .header("Content-Type", "application/json")
        .body(kube::client::Body::from(serde_json::to_vec(object)?))?;
    let answer = client.send(request).await?;
    let warnings =
        answer.headers().get_all("warning").iter().filter_map(|value| value.to_str().ok()).map(unquote).collect();
    let code = answer.status().as_u16();
    let body =
        http_body_util::BodyExt::collect(answer.into_body()).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((code, String::from_utf8_lossy(&body.to_bytes()).into_owned(), warnings))
}

/// `299 - "text"` with backslash escapes (RFC 7234, section 5.5).
fn unquote(header: &str) -> String {
    let quoted = header.split_once('"').map_or(header, |(_, rest)| rest.strip_suffix('"').unwrap_or(rest));
    let mut text = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

async fn modes_change_what_happens_to_a_pod(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let pod = serde_json::to_value(stories::root_pod()?)?;
    for (mode, code, warnings) in [("Audit", 201, 0), ("Warn", 201, 1), ("Enforce", 403, 0), ("Disabled", 201, 0)] {
        fixtures::apply(&client, &stories::hardening_policy(&namespace, mode)).await?;
        wait::until(&format!("mode {mode} to be in force"), wait::SOON, || async {
            let (found, body, said) = post(&client, &path, &pod).await?;
            ensure!((found, said.len()) == (code, warnings), "{found}, {said:?}: {body}");
            Ok(())
        })
        .await?;
    }
    // A deployment is warned about, never refused.
    fixtures::apply(&client, &stories::hardening_policy(&namespace, "Enforce")).await?;
    let deployment = &stories::sample_workloads()[0];
    let mut deployment = deployment.clone();
    deployment["metadata"]["namespace"] = json!(namespace);
    wait::until("a warning about a deployment", wait::SOON, || async {
        let (code, _, said) =
            post(&client, &format!("/apis/apps/v1/namespaces/{namespace}/deployments"), &deployment).await?;
        ensure!(code == 201 && said.len() == 1 && said[0].starts_with("would violate PodSecurity"), "{code}: {said:?}");
        Ok(())
    })
    .await
}

async fn debug_containers_are_judged(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    pods.create(&PostParams::default(), &stories::root_pod()?).await?;
    fixtures::apply(&client, &stories::hardening_policy(&namespace, "Enforce")).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "hardened").await?;
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let denied = wait::until("a debug container to be refused", wait::SOON, || async {
        match pods.patch_ephemeral_containers("root", &params, &Patch::Strategic(&debug)).await {
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(status.message),
            Err(other) => Err(other.into()),
            Ok(_) => bail!("it was admitted"),
        }
    })
    .await?;
    ensure!(denied.contains(r#"containers "main", "debug""#), "{denied}");
    // The pod is not hardened, but a label changes nothing that runs.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    pods.patch("root", &PatchParams::default(), &Patch::Merge(&label)).await?;
    Ok(())
}
