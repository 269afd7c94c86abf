//! Kinds of others, with no more of their objects than is needed here: the schemas of a cluster's custom resource
//! definitions take some hundred kilobytes each, and the lists of a pod thirty times their text.

use std::borrow::Cow;

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceConversion,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::network::{PodMonitorSpec, ServiceMonitorSpec};

macro_rules! slim {
    (
        $(#[$doc:meta])*
        $name:ident: $spec:ty, $scope:ty, $kind:literal, $group:literal, $plural:literal $(, $status:ty)?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        pub struct $name {
            /// Metadata.
            pub metadata: ObjectMeta,
            /// What it says.
            #[serde(default)]
            pub spec: $spec,
            $(
                /// How it stands.
                #[serde(default)]
                pub status: $status,
            )?
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

slim! {
    /// A pod, as text until it is its turn: its lists are as long as whoever made it wants.
    Pod: Option<Box<RawValue>>, NamespaceResourceScope, "Pod", "", "pods", Option<Box<RawValue>>
}

impl Pod {
    /// Its metadata, and what else is asked of it.
    #[must_use]
    pub fn read(self) -> (ObjectMeta, Value) {
        let value = |text: Option<Box<RawValue>>| -> Value {
            text.and_then(|text| serde_json::from_str(text.get()).ok()).unwrap_or_default()
        };
        (self.metadata, json!({"spec": value(self.spec), "status": value(self.status)}))
    }
}

/// What a custom resource definition says.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct CrdSpec {
    /// The API group.
    pub group: Option<String>,
    /// How versions are converted.
    pub conversion: Option<CustomResourceConversion>,
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    #[test]
    fn a_pod_is_text_until_it_is_read() {
        let many = r#"["",""]"#;
        let pod = format!(
            r#"{{"metadata":{{"name":"p","namespace":"n"}},"spec":{{"containers":[{{"name":"a","args":{many}}}]}},"status":{{"phase":"Failed"}}}}"#
        );
        let list = format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{pod}]}}"#);
        let listed: ObjectList<Pod> = serde_json::from_str(&list).unwrap();
        // As Go writes it: what it is of comes first.
        let event = format!(r#"{{"type":"ADDED","object":{pod}}}"#);
        let WatchEvent::Added(seen) = serde_json::from_str::<WatchEvent<Pod>>(&event).unwrap() else {
            panic!("{event}")
        };
        for pod in listed.items.into_iter().chain([seen]) {
            assert!(pod.spec.as_ref().is_some_and(|spec| spec.get().contains(many)));
            let (metadata, data) = pod.read();
            assert_eq!(metadata.name.as_deref(), Some("p"));
            let spec = json!({"containers": [{"name": "a", "args": ["", ""]}]});
            assert_eq!(data, json!({"spec": spec, "status": {"phase": "Failed"}}));
        }
        let bare: Pod = serde_json::from_str(r#"{"metadata":{"name":"p"}}"#).unwrap();
        assert_eq!(bare.read().1, json!({"spec": null, "status": null}));
        assert_eq!(Pod::url_path(&(), Some("n")), "/api/v1/namespaces/n/pods");
    }
}
