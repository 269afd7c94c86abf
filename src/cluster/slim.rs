//! Kinds of others, with no more of their objects than is needed here: the schemas of a cluster's custom resource
//! definitions take some hundred kilobytes each.

use std::borrow::Cow;

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceConversion,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::Deserialize;

use crate::network::{PodMonitorSpec, ServiceMonitorSpec};

macro_rules! slim {
    ($(#[$doc:meta])* $name:ident: $spec:ty, $scope:ty, $kind:literal, $group:literal, $plural:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        pub struct $name {
            /// Metadata.
            pub metadata: ObjectMeta,
            /// What it says.
            #[serde(default)]
            pub spec: $spec,
        }

        impl Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

slim! {
    /// A custom resource definition.
    Crd: CrdSpec, ClusterResourceScope, "CustomResourceDefinition", "apiextensions.k8s.io", "customresourcedefinitions"
}

slim! {
    /// Services whose pods Prometheus reads metrics of (prometheus-operator).
    ServiceMonitor: ServiceMonitorSpec, NamespaceResourceScope, "ServiceMonitor", "monitoring.coreos.com", "servicemonitors"
}

slim! {
    /// Pods that Prometheus reads metrics of (prometheus-operator).
    PodMonitor: PodMonitorSpec, NamespaceResourceScope, "PodMonitor", "monitoring.coreos.com", "podmonitors"
}

/// What a custom resource definition says.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct CrdSpec {
    /// The API group.
    pub group: Option<String>,
    /// How versions are converted.
    pub conversion: Option<CustomResourceConversion>,
}
