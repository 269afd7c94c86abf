//! The kinds of volumes.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::borrowed::Text;

/// Kinds that restricted allows, then those that it names when it refuses, in the order in which it
/// looks for them. The position in this list is the bit of [`Volume::sources`].
const SOURCES: [&str; 30] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "hostPath",
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
/// What the reference calls a volume without a source that it knows.
pub(crate) const UNKNOWN: &str = "unknown";
const ALLOWED: u32 = 9;
const HOST_PATH: u32 = 1 << ALLOWED;

/// A volume: its name, and which sources it has. The API server admits one source; the standards
/// decide about any number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Volume<'a> {
    pub(crate) name: Text<'a>,
    sources: u32,
}

impl Volume<'_> {
    /// Whether it shows files of the node.
    pub(crate) const fn is_host_path(&self) -> bool {
        self.sources & HOST_PATH != 0
    }

    /// The kind that restricted refuses, if it does: `unknown` for a volume without a known source.
    pub(crate) fn restricted_kind(&self) -> Option<&'static str> {
        if self.sources & (HOST_PATH - 1) != 0 {
            return None;
        }
        let first = usize::try_from(self.sources.trailing_zeros()).ok()?;
        Some(SOURCES.get(first).copied().unwrap_or(UNKNOWN))
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
            let present = map.next_value::<Option<IgnoredAny>>()?.is_some();
            let bit = SOURCES.iter().position(|source| *source == &*key);
            if let (true, Some(bit)) = (present, bit) {
                volume.sources |= 1 << bit;
            }
        }
        Ok(volume)
    }
}
