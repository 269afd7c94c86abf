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

    /// After how long its data is too old at the latest, in hours: 365, 90, 30 and 7 days.
    #[must_use]
    pub const fn hours_kept(self) -> u64 {
        match self {
            Self::Public => 8760,
            Self::Internal => 2160,
            Self::Confidential => 720,
            Self::Restricted => 168,
        }
    }
}

/// CEL of the rule that a class asks of a spec; [`crate::network::meets`] says the same and more.
pub(super) const CLASS_RULE: &str = "!has(self.dataClass) || !(self.dataClass in ['Confidential', 'Restricted']) || (has(self.network) && self.network.mode != 'Disabled' && 'Ingress' in self.network.isolate && 'Egress' in self.network.isolate)";
pub(super) const CLASS_MESSAGE: &str = "data of the classes Confidential and Restricted asks for isolation: set network.isolate: [Ingress, Egress], and a mode other than Disabled";
