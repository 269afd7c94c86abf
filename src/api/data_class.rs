//! How much harm it does when data gets out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much harm it does when the data of some pods gets out, and so what is asked for them at the least.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataClass {
    /// None.
    Public,
    /// Little.
    Internal,
    /// Much: the network is deny by default.
    Confidential,
    /// Most: the network is deny by default.
    Restricted,
}

impl DataClass {
    /// Whether its network is deny by default, both ways.
    #[must_use]
    pub const fn is_isolated(self) -> bool {
        matches!(self, Self::Confidential | Self::Restricted)
    }
}

/// CEL of the rule that a class asks of a spec; [`crate::network::meets`] says the same and more.
pub(super) const CLASS_RULE: &str = "!has(self.dataClass) || !(self.dataClass in ['Confidential', 'Restricted']) || (has(self.network) && self.network.mode != 'Disabled' && 'Ingress' in self.network.isolate && 'Egress' in self.network.isolate)";
pub(super) const CLASS_MESSAGE: &str = "data of the classes Confidential and Restricted asks for isolation: set network.isolate: [Ingress, Egress], and a mode other than Disabled";
