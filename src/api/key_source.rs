//! Where the versions of a key come from.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the versions of a key come from: Rampart makes them (`generated`, the default), or another system does
/// (`imported`).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.generated) != has(self.imported)").message("source is either generated or imported"))]
pub struct KeySource {
    /// Rampart makes every version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Generated>,
    /// Another system makes every version, and you put it into a Secret of your own. Verifiers do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
}

/// Rampart makes every version.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Generated {}

/// A token that another system issued: checked for its form and its strength, watched for its end, and replaced when
/// you supply its successor. Rampart never makes one, and never writes to your Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Where you put the token, and later its successor.
    pub secret_ref: TokenRef,
    /// A regular expression (the syntax of RE2) that every token must match as a whole: `ghp_[A-Za-z0-9]{36}`. It has a
    /// name in front, and runs of characters with separators between them, and no more: whether a token matches is told.
    /// Without it, any text of printable ASCII characters that is strong enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub format: Option<String>,
}

/// An entry of a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TokenRef {
    /// Name of a Secret in the ApiKey's namespace, with the label `rampart.dev/import: "true"`: so its owner agrees. Its
    /// annotation `rampart.dev/token-expires-at`, RFC 3339, says when the system that issued the token ends it.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Name of its entry.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// CEL: whether `self`, a spec, is of an imported token.
macro_rules! imported {
    ($rest:literal) => {
        concat!("!(has(self.source) && has(self.source.imported)) || ", $rest)
    };
}

pub(super) const ONE_SOURCE_RULE: &str =
    "(has(self.source) && has(self.source.imported)) == (has(oldSelf.source) && has(oldSelf.source.imported))";
pub(super) const ONE_SOURCE_MESSAGE: &str = "source can't change between generated and imported: make another ApiKey";
pub(super) const PREFIX_RULE: &str = "(has(self.source) && has(self.source.imported)) || has(self.prefix)";
pub(super) const PREFIX_MESSAGE: &str = "prefix is required: every key begins with it";
pub(super) const GRANT_RULE: &str = "(has(self.source) && has(self.source.imported)) || has(self.role) != (has(self.permissions) && self.permissions.size() > 0)";
pub(super) const UNVERIFIED_RULE: &str = imported!(
    "!has(self.prefix) && !has(self.role) && !(has(self.permissions) && self.permissions.size() > 0) && !has(self.rateLimit) && !has(self.suspended)"
);
pub(super) const UNVERIFIED_MESSAGE: &str = "an imported token is checked by the system that issued it, and no verifier knows it: leave out prefix, role, permissions, rateLimit and suspended";
pub(super) const END_RULE: &str = imported!("has(self.ttl)");
pub(super) const END_MESSAGE: &str = "an imported token needs a ttl: say how long after it was supplied it may be used";
pub(super) const SUPPLY_RULE: &str = imported!(
    "self.rotation.policy != 'Disabled' && !(has(self.rotation.windows) && self.rotation.windows.size() > 0) && (!has(self.rotation.retireWhen) || self.rotation.retireWhen == 'Elapsed')"
);
pub(super) const SUPPLY_MESSAGE: &str = "an imported token is replaced when you supply its successor, and nobody sees it used: rotation.policy is Automatic (you are told when it is due) or Manual, without windows, and retireWhen is Elapsed";
pub(super) const OWN_SECRET_RULE: &str = imported!(
    "self.source.imported.secretRef.name != self.secret.name && (!has(self.secret.deletionPolicy) || self.secret.deletionPolicy == 'Delete')"
);
pub(super) const OWN_SECRET_MESSAGE: &str = "secret.name must be another Secret than source.imported.secretRef names, which is yours and stays when the ApiKey goes; so secret.deletionPolicy is Delete";
