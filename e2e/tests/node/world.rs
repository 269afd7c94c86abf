//! The pods that all tests share, and the operator beside them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::{core::v1::Pod, core::v1::Service, networking::v1::NetworkPolicy};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use rampart::api::SecurityPolicy;
use rampart_e2e::{
    Node, Operator, fixtures,
    node::{agents, agents::Agent, image, network},
    operator::{self, Ports},
    stories, wait,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::programmed;

/// Namespaces of the pods, and a label of each.
pub(crate) const NAMESPACES: [(&str, &str); 3] = [("x", "one"), ("y", "two"), ("z", "one")];
/// Where names are resolved.
pub(crate) const SYSTEM: &str = "kube-system";
const DNS_ADDRESS: &str = "10.96.0.10";

/// Name, labels, and the number that it calls `http`.
type Described = (&'static str, [(&'static str, &'static str); 2], u16);
const PODS: [Described; 3] = [
    ("p0", [("a", "one"), ("b", "one")], 80),
    ("p1", [("a", "two"), ("b", "one")], 8080),
    ("p2", [("a", "two"), ("c", "one")], 80),
];

/// The workloads of the sample intent, and what they answer on besides 9000.
const SAMPLE: [(&str, u16); 4] =
    [("ai-marketing-platform", 8000), ("frontend", 8080), ("postgres", 5432), ("redis", 6379)];

/// A node with pods, and Rampart.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) operator: Mutex<Option<Operator>>,
    /// The pods as the API server has them.
    pub(crate) pods: Vec<Pod>,
    pub(crate) services: Vec<Service>,
}

impl World {
    /// Starts it all, and waits until every pod takes orders.
    ///
    /// # Errors
    /// When something is not ready in time.
    pub(crate) async fn start() -> Result<Self> {
        let node = Node::start().await?;
        let client = node.plane().client();
        let flag = monitoring_flag();
        let operator = Operator::install(node.plane(), &[&flag]).await?;
        for (namespace, team) in NAMESPACES {
            fixtures::namespace(&client, namespace, json!({"team": team})).await?;
        }
        fixtures::namespace(&client, stories::WEB, json!({})).await?;
        let agents_dir = node.agents_dir().display().to_string();
        let mut pods = vec![];
        for namespace in NAMESPACES.map(|(name, _)| name).into_iter().chain([SYSTEM, stories::WEB]) {
            fixtures::ready_for_pods(&client, namespace).await?;
        }
        for (namespace, _) in NAMESPACES {
            pods.extend(PODS.map(|(name, labels, http)| pod((namespace, name), &labels, &ports(http), &agents_dir)));
        }
        let dns = json!([
            {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": 53},
        ]);
        pods.push(pod((SYSTEM, "dns"), &[("k8s-app", "kube-dns")], &dns, &agents_dir));
        for (app, port) in SAMPLE {
            let ports = json!([{"containerPort": port}, {"containerPort": 9000}]);
            pods.push(pod((stories::WEB, app), &[("app", app)], &ports, &agents_dir));
        }
        for object in pods.iter().chain(&services()) {
            fixtures::apply(&client, object).await?;
        }
        let mut world = Self { node, operator: Mutex::new(Some(operator)), pods: vec![], services: vec![] };
        world.read(pods.len()).await.with_context(|| world.node.log_tail("kubelet"))?;
        Ok(world)
    }

    /// Reads pods and Services once all run.
    async fn read(&mut self, count: usize) -> Result<()> {
        let client = self.client();
        let all: Api<Pod> = Api::all(client.clone());
        let pods = wait::until("the pods to run", Duration::from_mins(3), || async {
            let pods = all.list(&ListParams::default()).await?.items;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!(ready == count, "{ready} of {count} are ready");
            Ok(pods)
        })
        .await?;
        try_join_all(pods.iter().map(|pod| async { self.agent(pod).ready().await })).await?;
        let services: Api<Service> = Api::all(client);
        self.services = services.list(&ListParams::default()).await?.items;
        self.pods = pods;
        Ok(())
    }

    /// A client with every right.
    pub(crate) fn client(&self) -> Client {
        self.node.plane().client()
    }

    /// The agent in a pod.
    pub(crate) fn agent(&self, pod: &Pod) -> Agent {
        self.node.agent(&name_of(pod))
    }

    /// Starts the operator again, after it was killed.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub(crate) async fn restart(&self, ports: Ports) -> Result<()> {
        let plane = self.node.plane();
        let kubeconfig = operator::kubeconfig(plane, plane.server()).await?;
        let operator = Operator::start(plane.dir(), &kubeconfig, ports, &[&monitoring_flag()])?;
        operator.ready().await?;
        *self.operator.lock().await = Some(operator);
        Ok(())
    }

    /// Flags that tell `rampart reach` what the operator reads in the cluster.
    pub(crate) fn facts(&self) -> Result<Vec<String>> {
        let server = self.node.plane().server();
        let server = server.strip_prefix("https://").context("the API server's address")?;
        Ok(vec![
            format!("--network-cluster-cidrs={},{}", network::PODS, network::SERVICES),
            format!("--network-api-server={server}"),
            monitoring_flag(),
        ])
    }

    /// Removes every policy, and waits until none is left.
    pub(crate) async fn clear(&self) -> Result<()> {
        let client = self.client();
        let policies: Api<NetworkPolicy> = Api::all(client.clone());
        let intents = Api::<SecurityPolicy>::all(client.clone()).list(&ListParams::default()).await?.items;
        for intent in &intents {
            programmed::disable(&client, &intent.namespace().unwrap_or_default(), &intent.name_any()).await?;
        }
        wait::until("the policies to go", wait::SOON, || async {
            let left = policies.list(&ListParams::default()).await?.items;
            for policy in left.iter().filter(|it| it.labels().is_empty()) {
                let own: Api<NetworkPolicy> = Api::namespaced(client.clone(), &policy.namespace().unwrap_or_default());
                own.delete(&policy.name_any(), &DeleteParams::default()).await?;
            }
            Ok(ensure!(left.is_empty(), "{} are left", left.len()))
        })
        .await?;
        for intent in intents {
            let own: Api<SecurityPolicy> = Api::namespaced(client.clone(), &intent.namespace().unwrap_or_default());
            own.delete(&intent.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

/// `namespace/name`, as `rampart reach` writes it, with a dot for a file's name.
pub(crate) fn name_of(pod: &Pod) -> String {
    format!("{}.{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// Who reads metrics here.
fn monitoring_flag() -> String {
    let pods = json!({"podSelector": {"matchLabels": {"c": "one"}},
                      "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}});
    format!("--network-monitoring={pods}")
}

/// What every pod answers on: some ports by name, which not all give to the same.
fn ports(http: u16) -> Value {
    let other = if http == 80 { 8080 } else { 80 };
    json!([
        {"name": "http", "containerPort": http}, {"containerPort": other}, {"name": "https", "containerPort": 443},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 8080, "protocol": "UDP"},
    ])
}

fn pod((namespace, name): (&str, &str), labels: &[(&str, &str)], ports: &Value, agents_dir: &str) -> Value {
    let labels: Value =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into();
    let listens = ports.as_array().into_iter().flatten();
    let listens =
        listens.map(|port| format!(":{}/{}", port["containerPort"], port["protocol"].as_str().unwrap_or("TCP")));
    let mut args = vec!["serve".to_owned(), format!("{}/{namespace}.{name}", agents::INSIDE)];
    args.extend(listens);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {
            "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "agent", "image": image::NAME, "imagePullPolicy": "Never", "args": args, "ports": ports,
                "volumeMounts": [{"name": "agents", "mountPath": agents::INSIDE}],
            }],
            "volumes": [{"name": "agents", "hostPath": {"path": agents_dir, "type": "Directory"}}],
        },
    })
}

/// A Service before one pod each, some by the names of ports; and that of DNS.
fn services() -> Vec<Value> {
    let service = |namespace: &str, name: &str, selector: Value, ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
               "spec": {"selector": selector, "ports": ports}})
    };
    let of_p0 = |namespace: &str| {
        let ports = json!([{"name": "web", "port": 8000, "targetPort": "http"},
                           {"name": "names", "port": 5353, "protocol": "UDP", "targetPort": 53}]);
        service(namespace, "front", json!({"a": "one"}), ports)
    };
    let of_p1 = |namespace: &str| {
        let ports = json!([{"name": "web", "port": 80, "targetPort": "http"}, {"name": "tls", "port": 443}]);
        service(namespace, "back", json!({"a": "two", "b": "one"}), ports)
    };
    let mut all: Vec<Value> = NAMESPACES.iter().flat_map(|(it, _)| [of_p0(it), of_p1(it)]).collect();
    let mut dns = service(
        SYSTEM,
        "kube-dns",
        json!({"k8s-app": "kube-dns"}),
        json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]),
    );
    dns["spec"]["clusterIP"] = json!(DNS_ADDRESS);
    all.push(dns);
    all
}
