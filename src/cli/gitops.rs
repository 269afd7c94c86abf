//! How GitOps tools tell from an object of ours whether it is well: one rule, said in Argo CD's Lua and in Flux' CEL.
//!
//! The rule is kstatus' (`Reconciling`, `Stalled`, `Ready`, of the generation that `status.observedGeneration` names),
//! and besides knows what only waits for a person.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::api::{condition::Type, crds, has_conditions};

/// A thing to look for in an object.
#[derive(Clone, Copy)]
enum Sign {
    /// `spec.suspend`.
    Suspend,
    /// A condition that is true.
    True(Type),
    /// A condition for this reason.
    Reason(Type, &'static str),
}

/// What a tool says when it finds one of the signs.
struct Verdict {
    argo: &'static str,
    flux: &'static str,
    signs: &'static [Sign],
}

/// The first that fits decides; Flux asks in this order too. Where none does, the object is progressing.
const RULE: [Verdict; 4] = [
    Verdict { argo: "Progressing", flux: "inProgress", signs: &[Sign::True(Type::Reconciling)] },
    Verdict { argo: "Degraded", flux: "failed", signs: &[Sign::True(Type::Stalled)] },
    Verdict {
        argo: "Suspended",
        flux: "current",
        signs: &[
            Sign::Suspend,
            Sign::Reason(Type::Ready, "Suspended"),
            Sign::Reason(Type::Ready, crate::keys::IDLE),
            Sign::True(Type::BlastRadiusExceeded),
        ],
    },
    Verdict { argo: "Healthy", flux: "current", signs: &[Sign::True(Type::Ready)] },
];

impl Sign {
    fn lua(self) -> String {
        match self {
            Self::Suspend => "obj.spec ~= nil and obj.spec.suspend == true".into(),
            Self::True(kind) => format!("condition(\"{}\").status == \"True\"", kind.as_str()),
            Self::Reason(kind, reason) => format!("condition(\"{}\").reason == \"{reason}\"", kind.as_str()),
        }
    }

    fn cel(self) -> String {
        match self {
            Self::Suspend => "has(spec.suspend) && spec.suspend".into(),
            Self::True(kind) => {
                format!("status.conditions.exists(c, c.type == '{}' && c.status == 'True')", kind.as_str())
            }
            Self::Reason(kind, reason) => {
                format!("status.conditions.exists(c, c.type == '{}' && c.reason == '{reason}')", kind.as_str())
            }
        }
    }
}

/// Kinds that tell of themselves in conditions.
fn kinds() -> impl Iterator<Item = (String, String)> {
    crds().into_iter().filter(has_conditions).map(|crd| (crd.spec.group, crd.spec.names.kind))
}

/// The health check in Lua, of all kinds. Argo CD runs it without Lua's standard libraries.
pub(super) fn lua() -> String {
    let mut text = String::from(
        "-- Health of the kinds of rampart.dev, after kstatus: the conditions Reconciling, Stalled and Ready decide, and
-- status.observedGeneration says of which generation of the spec they speak.
local function condition(kind)
  for _, it in ipairs(obj.status.conditions) do
    if it.type == kind then
      return it
    end
  end
  return {}
end

if obj.status == nil or obj.status.conditions == nil then
  return {status = \"Progressing\", message = \"Waiting for Rampart\"}
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = \"Progressing\", message = \"Waiting for Rampart to see the newest spec\"}
end
",
    );
    for Verdict { argo, signs, .. } in RULE {
        let signs = signs.iter().map(|sign| sign.lua()).collect::<Vec<_>>().join(" or ");
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "if {signs} then\n  return {{status = \"{argo}\", message = condition(\"Ready\").message}}\nend\n"
        );
    }
    text.push_str("return {status = \"Progressing\", message = condition(\"Ready\").message}\n");
    text
}

/// What to put into Argo CD's ConfigMap: the same for each kind, since keys there can't hold wildcards.
pub(super) fn argocd_configmap() -> Value {
    let lua = lua();
    let data: Map<String, Value> = kinds()
        .map(|(group, kind)| (format!("resource.customizations.health.{group}_{kind}"), lua.as_str().into()))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "argocd-cm", "namespace": "argocd",
            "labels": {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"},
        },
        "data": data,
    })
}

/// A Kustomization of Flux for a directory of policies, with a health check for each kind.
pub(super) fn flux_kustomization() -> Value {
    let mut expressions = Map::new();
    for Verdict { flux, signs, .. } in RULE {
        let signs: Vec<String> = signs.iter().map(|sign| sign.cel()).collect();
        let before = expressions.get(flux).and_then(Value::as_str).map(ToOwned::to_owned);
        let all: Vec<String> = before.into_iter().chain(signs).collect();
        expressions.insert(flux.into(), all.join(" || ").into());
    }
    let checks: Vec<Value> = kinds()
        .map(|(group, kind)| {
            let mut check = Map::new();
            check.insert("apiVersion".into(), format!("{group}/v1alpha1").into());
            check.insert("kind".into(), kind.into());
            check.extend(expressions.clone());
            check.into()
        })
        .collect();
    json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": "policies", "namespace": "flux-system"},
        "spec": {
            "dependsOn": [{"name": "rampart"}],
            "interval": "10m",
            "path": "./policies",
            "prune": true,
            "sourceRef": {"kind": "GitRepository", "name": "flux-system"},
            "wait": true,
            "timeout": "5m",
            "healthCheckExprs": checks,
        },
    })
}
