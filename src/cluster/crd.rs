//! Custom resource definitions without their schemas: those of a cluster take some hundred kilobytes each.

use std::borrow::Cow;

use k8s_openapi::{
    ClusterResourceScope,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceConversion, CustomResourceDefinition},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::Deserialize;

/// A custom resource definition.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Crd {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What it defines.
    #[serde(default)]
    pub spec: CrdSpec,
}

/// What it defines.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct CrdSpec {
    /// The API group.
    pub group: Option<String>,
    /// How versions are converted.
    pub conversion: Option<CustomResourceConversion>,
}

impl Resource for Crd {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        CustomResourceDefinition::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        CustomResourceDefinition::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        CustomResourceDefinition::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        CustomResourceDefinition::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
