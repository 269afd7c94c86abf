//! The examples of `docs/` and README: the API server takes each, with every field known to it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams, ValidationDirective};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("docs::every_example_is_taken_by_the_api_server", every_example_is_taken);
}

fn pages(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(if path.extension().is_some_and(|it| it == "md") { vec![path.to_owned()] } else { vec![] });
    }
    let mut found = vec![];
    for entry in std::fs::read_dir(path)? {
        found.extend(pages(&entry?.path())?);
    }
    Ok(found)
}

/// The objects of our group in the YAML blocks of a page.
fn examples(page: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(page)?;
    let mut objects = vec![];
    for block in text.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        objects.extend(fixtures::parse(block).with_context(|| format!("{}: {block}", page.display()))?);
    }
    objects.retain(|it| it["apiVersion"].as_str().is_some_and(|it| it.starts_with("rampart.dev/")));
    Ok(objects)
}

async fn every_example_is_taken(_: Env) -> Result<()> {
    // Of its own, for namespaces with the names of the pages.
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let _operator = Operator::install(&plane, &[]).await?;
    let client = plane.client();
    let params = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("kubectl").force()
    };
    let mut taken = 0;
    let root = fixtures::repository();
    for page in [pages(&root.join("docs"))?, pages(&root.join("README.md"))?].concat() {
        for mut example in examples(&page)? {
            if let Some(namespace) = example["metadata"]["namespace"].as_str() {
                fixtures::namespace(&client, namespace, json!({})).await?;
            }
            // Its day passes.
            if example["kind"] == "PolicyException" {
                let end = Timestamp::now().checked_add(SignedDuration::from_hours(240))?;
                example["spec"]["expiresAt"] = json!(Timestamp::from_second(end.as_second())?.to_string());
            }
            let name = example["metadata"]["name"].as_str().context("an example without a name")?;
            let answer = fixtures::api_of(&client, &example).await?.patch(name, &params, &Patch::Apply(&example)).await;
            answer.with_context(|| format!("{}: {} {name}", page.display(), example["kind"]))?;
            taken += 1;
        }
    }
    Ok(ensure!(taken >= 9, "only {taken} examples were found"))
}
