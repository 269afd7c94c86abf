//! Policies, violations, exceptions and networks.

use std::collections::BTreeMap;

use super::{Cell, Sheet, Table, Tone, listed, moment, or_dash, ready, state};
use crate::{
    api::{HardeningMode, NetworkMode},
    report::{ExceptionStanding, Exposure, Hardened, Isolation, Policy, Posture, Report, State, Workload},
};

/// Workloads that stand in the table.
const WORKLOADS: usize = 20;

pub(super) fn posture(report: &Report) -> Sheet {
    let namespaces: Vec<Vec<Cell>> = report.posture.items.iter().map(namespace).collect();
    let of = |it: &Posture| it.policies.iter().map(|policy| self::policy(&it.namespace, policy)).collect::<Vec<_>>();
    let policies = report.posture.items.iter().flat_map(of).collect();
    let tables = vec![
        Table::new(
            "Namespaces",
            &["Namespace", "Strictest hardening", "State", "Refused by", "Ingress isolated", "Egress isolated"],
            namespaces,
        ),
        Table::new(
            "Policies by namespace",
            &["Namespace", "Policy", "Hardening", "Refused by", "Network", "Data class", "Status"],
            policies,
        ),
    ];
    Sheet::new("posture", "Posture by namespace", &report.posture, tables).says(
        "What policies ask of the pods of each namespace, and what refuses pods that violate. Isolation is that of \
         Rampart's network intents that are in force.",
        "There are no namespaces.",
    )
}

fn namespace(it: &Posture) -> Vec<Cell> {
    let isolation = |isolation| match isolation {
        Isolation::All => Cell::new(Tone::Good, "all pods"),
        Isolation::Some => Cell::new(Tone::Warn, "in part"),
        Isolation::None => Cell::new(if it.system { Tone::Plain } else { Tone::Warn }, "no pods"),
    };
    let name = if it.system { format!("{} (system)", it.namespace) } else { it.namespace.clone() };
    let nothing = || Cell::new(if it.system { Tone::Plain } else { Tone::Warn }, "nothing is asked");
    vec![
        Cell::plain(name),
        it.hardening.as_ref().map_or_else(nothing, |it| Cell::plain(asked(it))),
        it.hardening.as_ref().map_or_else(|| Cell::plain("-"), force),
        Cell::plain(it.hardening.as_ref().map_or_else(|| "-".into(), enforcers)),
        isolation(it.ingress),
        isolation(it.egress),
    ]
}

/// How far hardening is in force: what is only audited is so by intent.
fn force(it: &Hardened) -> Cell {
    match (it.mode, it.state) {
        (HardeningMode::Enforce, State::Partial) => Cell::new(Tone::Bad, "paused: audited only"),
        (HardeningMode::Enforce, other) => state(other),
        (_, State::Asked) => state(State::Asked),
        _ => Cell::new(Tone::Warn, "observed, not refused"),
    }
}

fn asked(it: &Hardened) -> String {
    let rules = match it.rules.len() {
        0 => String::new(),
        1 => ", and 1 rule".into(),
        more => format!(", and {more} rules"),
    };
    format!("{:?} {}:{}{rules}", it.mode, it.level, it.version)
}

fn enforcers(it: &Hardened) -> String {
    listed(it.enforced_by.iter().map(|it| format!("{it:?}")))
}

fn policy(namespace: &str, it: &Policy) -> Vec<Cell> {
    let mut status = ready(it.ready, &it.reason);
    if it.suspended {
        status = Cell::new(Tone::Warn, format!("{}, suspended", status.text));
    }
    let network = or_dash(it.network.map(|mode| format!("{mode:?}")));
    vec![
        Cell::plain(namespace),
        Cell::plain(format!("{} {}", it.kind, it.name)),
        Cell::plain(or_dash(it.hardening.as_ref().map(asked))),
        Cell::plain(or_dash(it.hardening.as_ref().map(enforcers))),
        Cell::plain(if it.caps_keys { format!("{network}; caps keys") } else { network }),
        Cell::plain(or_dash(it.data_class.map(|class| format!("{class:?}")))),
        status,
    ]
}

pub(super) fn violations(report: &Report) -> Sheet {
    let rows = report.violations.items.iter().map(|it| {
        vec![
            Cell::plain(&it.rule),
            Cell::new(Tone::Bad, it.pods),
            Cell::plain(it.workloads.len()),
            Cell::plain(listed(&it.policies)),
        ]
    });
    let workloads = workloads(report);
    let (all, shown) = (workloads.len(), workloads.into_iter().take(WORKLOADS).collect::<Vec<_>>());
    let caption = format!("Workloads: {} of {all}", shown.len());
    let tables = vec![
        Table::new("Rules", &["Rule", "Pods", "Workloads", "Asked by"], rows.collect()),
        Table::new(caption, &["Workload", "Pods", "Rules", "What is wrong with it"], shown),
    ];
    Sheet::new("violations", "Violations by rule", &report.violations, tables).says(
        "Pods that are there and violate a policy, as statuses name them: 20 workloads a policy at the most. JSON has all.",
        "No status names a pod that violates a policy.",
    )
}

/// Workloads that violate, each once for what is wrong with it.
fn workloads(report: &Report) -> Vec<Vec<Cell>> {
    let mut all: BTreeMap<&Workload, Vec<&str>> = BTreeMap::new();
    for rule in &report.violations.items {
        for workload in &rule.workloads {
            all.entry(workload).or_default().push(&rule.rule);
        }
    }
    let row = |(it, rules): (&Workload, Vec<&str>)| {
        let name = format!("{}/{} {}", it.namespace, it.name, it.kind);
        vec![Cell::plain(name), Cell::plain(it.pods), Cell::plain(listed(rules)), Cell::plain(&it.message)]
    };
    all.into_iter().map(row).collect()
}

pub(super) fn exceptions(report: &Report) -> Sheet {
    let rows = report.exceptions.items.iter().map(|it| {
        let told = match it.state {
            ExceptionStanding::Active => Cell::new(Tone::Warn, "in force"),
            ExceptionStanding::Expired => Cell::plain("has ended"),
            ExceptionStanding::NotPermitted => Cell::new(Tone::Bad, "not permitted"),
            ExceptionStanding::Unseen => Cell::new(Tone::Bad, "not seen by the operator"),
        };
        vec![
            Cell::plain(format!("{}/{}", it.namespace, it.name)),
            told,
            Cell::plain(moment(it.expires_at, report.generated_at)),
            Cell::plain(or_dash(it.pods_relying)),
            Cell::plain(listed(&it.rules)),
            Cell::plain(listed(&it.policies)),
            Cell::plain(&it.reason),
        ]
    });
    let head = &["Exception", "State", "Ends", "Pods relying", "Rules", "From", "Why"];
    Sheet::new("exceptions", "Exceptions", &report.exceptions, vec![Table::new("By end", head, rows.collect())])
        .says("What is admitted against a policy, and until when; the next to end first.", "There are no exceptions.")
}

pub(super) fn network(report: &Report) -> Sheet {
    let all = || report.network.items.iter();
    let findings = all().flat_map(|it| {
        let widened = it.widened_by.iter().map(|by| ("opened further by another NetworkPolicy", by.clone()));
        let beyond = it.not_expressible.iter().map(|what| ("no NetworkPolicy can say it", what.clone()));
        let found = it.findings.iter().map(|finding| ("finding", format!("{}: {}", finding.id, finding.message)));
        let told = found.chain(widened).chain(beyond);
        told.map(move |(kind, text)| vec![Cell::plain(name(it)), Cell::plain(kind), Cell::plain(text)])
    });
    let tables = vec![
        Table::new(
            "Intents",
            &[
                "Policy",
                "Mode",
                "State",
                "Isolates",
                "Pods",
                "Isolated now",
                "Open to all",
                "Addresses outside",
                "Would change",
            ],
            all().map(exposure).collect(),
        ),
        Table::new("What to know", &["Policy", "What", "Which"], findings.collect()),
    ];
    Sheet::new("network", "Network exposure", &report.network, tables).says(
        "Network intents of policies, whether they are in force, and what they leave open. Who reaches whom is told \
         by rampart reach and rampart explain.",
        "No policy has a network intent: what reaches what is not limited by Rampart.",
    )
}

fn name(it: &Exposure) -> String {
    it.namespace.iter().chain([&it.name]).cloned().collect::<Vec<_>>().join("/")
}

fn exposure(it: &Exposure) -> Vec<Cell> {
    let force = match (it.mode, it.state) {
        (NetworkMode::Preview, _) => Cell::new(Tone::Warn, "preview: nothing is written or removed"),
        (_, State::InForce) => state(State::InForce),
        (_, other) => Cell::new(
            Tone::Bad,
            format!("{}: {}", state(other).text, it.reason.as_deref().unwrap_or("no status says so")),
        ),
    };
    let isolated = it.isolated.map(|it| format!("ingress {}, egress {}", it.ingress, it.egress));
    let change = it.preview.map(|it| format!("deny {} pairs, allow {}", it.newly_denied, it.newly_allowed));
    let open = if it.open_to_all.is_empty() { Tone::Plain } else { Tone::Warn };
    vec![
        Cell::plain(name(it)),
        Cell::plain(format!("{:?}", it.mode)),
        force,
        Cell::plain(listed(it.isolate.iter().map(|way| format!("{way:?}")))),
        Cell::plain(or_dash(it.selected_pods)),
        Cell::plain(or_dash(isolated)),
        Cell::new(open, listed(&it.open_to_all)),
        Cell::plain(listed(&it.addresses)),
        Cell::plain(or_dash(change)),
    ]
}
