//! Specs with `source.imported` that are refused.

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rampart::api::ApiKey;
use rampart_e2e::{fixtures, stories};
use serde_json::{Value, json};

use crate::{Env, imported::key};

pub(crate) async fn are_refused(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    let cases = [
        ("/source", json!({}), "source is either generated or imported"),
        ("/source/generated", json!({}), "source is either generated or imported"),
        ("/prefix", json!("ghp"), "leave out prefix, role"),
        ("/role", json!("Viewer"), "leave out prefix, role"),
        ("/suspended", json!(true), "leave out prefix, role"),
        ("/ttl", Value::Null, "needs a ttl"),
        ("/rotation/policy", json!("Disabled"), "replaced when you supply its successor"),
        ("/rotation/retireWhen", json!("ElapsedAndIdle"), "replaced when you supply its successor"),
        ("/secret/name", json!("github"), "must be another Secret"),
        ("/secret/deletionPolicy", json!("Retain"), "secret.deletionPolicy is Delete"),
        ("/source/imported/secretRef/name", json!("Bad/Name"), "spec.source.imported.secretRef.name"),
        ("/source/imported/format", json!("(a"), "spec.source.imported.format: is no regular expression"),
        ("/source/imported/format", json!("ghp_R.*"), "spec.source.imported.format: must be a name in front"),
    ];
    for (field, value, wanted) in cases {
        let mut bad = key(&namespace);
        let (parent, last) = field.rsplit_once('/').context("a pointer")?;
        let parent = bad.pointer_mut(&format!("/spec{parent}")).and_then(Value::as_object_mut).context("a parent")?;
        if value.is_null() {
            drop(parent.remove(last));
        } else {
            drop(parent.insert(last.to_owned(), value));
        }
        let params = PatchParams { dry_run: true, ..PatchParams::apply("user") };
        let api = fixtures::api_of(&client, &bad).await?;
        let refused = api.patch("orders", &params, &Patch::Apply(&bad)).await.err().context(field)?.to_string();
        ensure!(refused.contains(wanted), "{field}: {refused}");
    }
    let mut without = key(&namespace);
    without["spec"]["source"] = Value::Null;
    let refused = fixtures::apply(&client, &without).await.err().context("a key without a prefix")?.to_string();
    ensure!(refused.contains("prefix is required"), "{refused}");

    let mut made = stories::api_key(&namespace);
    (made["metadata"]["name"], made["spec"]["suspend"]) = (json!("made"), json!(true));
    fixtures::apply(&client, &made).await?;
    let change = json!({"spec": {"source": {"imported": {"secretRef": {"name": "github", "key": "token"}}},
        "prefix": null, "role": null, "ttl": "9000h"}});
    let refused = keys.patch("made", &PatchParams::default(), &Patch::Merge(&change)).await;
    let refused = refused.err().context("a key that was made became imported")?.to_string();
    ensure!(refused.contains("can't change between generated and imported"), "{refused}");
    Ok(())
}
