//! A pod such as a ReplicaSet makes in a shop's namespace: a server and its proxy, as restricted asks.

use serde_json::{Value, json};

fn security() -> Value {
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
           "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// The pod, as a client sends it.
pub(crate) fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "checkout-6d5f7b9c8d-",
            "labels": {"app.kubernetes.io/name": "checkout", "app.kubernetes.io/part-of": "shop",
                       "pod-template-hash": "6d5f7b9c8d"},
            "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-20T09:14:07Z"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-6d5f7b9c8d",
                "uid": "0d9c4f2e-51f7-4f5a-9f0f-3f1f2f6c7a10", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "containers": [server(), proxy()],
            "volumes": [{"name": "config", "configMap": {"name": "checkout"}}, {"name": "tmp", "emptyDir": {}}],
        },
    })
}

fn server() -> Value {
    json!({
        "name": "server", "image": "registry.example.com/shop/checkout:4.11.2",
        "args": ["--config=/etc/checkout/config.yaml"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [
            {"name": "DATABASE_HOST", "value": "postgres.shop.svc"},
            {"name": "DATABASE_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "checkout-database", "key": "password"}}},
        ],
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 10},
        "securityContext": security(),
        "volumeMounts": [{"name": "config", "mountPath": "/etc/checkout", "readOnly": true},
                         {"name": "tmp", "mountPath": "/tmp"}],
    })
}

fn proxy() -> Value {
    json!({
        "name": "proxy", "image": "registry.example.com/mesh/proxy:1.9.0",
        "args": ["--upstream=127.0.0.1:8080", "--listen=:8443"],
        "ports": [{"name": "https", "containerPort": 8443}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": security(),
    })
}
