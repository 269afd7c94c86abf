//! The kinds of volumes.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::borrowed::Text;

/// Kinds that restricted allows.
pub const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Kinds that restricted names when it refuses them, in the order in which it looks for them.
pub const REFUSED: [&str; 21] = [
    HOST_PATH,
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];
const HOST_PATH: &str = "hostPath";
/// What the reference calls a volume without a source that it knows.
pub const UNKNOWN: &str = "unknown";

/// What a volume is in an exception ([`crate::Values::Volume`]): the path of the node that it shows, where that is
/// absolute; else its type. The API server takes relative paths, too, and one of them may look like a type.
#[must_use]
pub fn excepted_as<'v>(host_path: Option<&'v str>, kind: &'v str) -> &'v str {
    host_path.filter(|path| path.starts_with('/')).unwrap_or(kind)
}

/// A volume: its name, and which sources it has. The API server admits one source; the standards
/// decide about any number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Volume<'a> {
    pub(crate) name: Text<'a>,
    allowed: bool,
    /// A bit for each of [`REFUSED`].
    refused: u32,
    host_path: Option<HostPath<'a>>,
}

/// A directory of the node.
#[derive(Debug, Clone, Default, Deserialize)]
struct HostPath<'a> {
    #[serde(borrow, default)]
    path: Text<'a>,
}

impl Volume<'_> {
    /// The path of the node that it shows.
    pub(crate) fn host_path(&self) -> Option<&str> {
        self.host_path.as_ref().map(|it| &*it.path)
    }

    /// The kind that restricted refuses, if it does: `unknown` for a volume without a known source.
    pub(crate) fn restricted_kind(&self) -> Option<&'static str> {
        let first = usize::try_from(self.refused.trailing_zeros()).ok()?;
        (!self.allowed).then(|| REFUSED.get(first).copied().unwrap_or(UNKNOWN))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Volume<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(VolumeVisitor)
    }
}

struct VolumeVisitor;

impl<'de> Visitor<'de> for VolumeVisitor {
    type Value = Volume<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a volume")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut volume = Volume::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if &*key == "name" {
                volume.name = map.next_value()?;
                continue;
            }
            let present = if &*key == HOST_PATH {
                volume.host_path = map.next_value()?;
                volume.host_path.is_some()
            } else {
                map.next_value::<Option<IgnoredAny>>()?.is_some()
            };
            if !present {
                continue;
            }
            volume.allowed |= ALLOWED.contains(&&*key);
            if let Some(bit) = REFUSED.iter().position(|source| *source == &*key) {
                volume.refused |= 1 << bit;
            }
        }
        Ok(volume)
    }
}
