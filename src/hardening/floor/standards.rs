//! The Pod Security Standards as CEL: for each check of `rampart-pss` whether a pod violates it, and the
//! words of the reference for how.

use rampart_pss::{Applied, Exemption, values};

use super::{
    exceptions::Spared,
    form::{CONTAINERS, Form, Violated, some},
};
use crate::hardening::{
    cel::{concat, containers, join_present, plural, pod_and, quoted, set, string, strings},
    value::volume_in_cel,
};

const CONTEXT: &str = "object.spec.?securityContext";
const NOT_WINDOWS: &str = "!variables.windows";
const NO_USER_NAMESPACE: &str = "!variables.userNamespace";

/// Variables that the forms share.
pub(super) fn shared() -> Vec<(String, String)> {
    let list = |field: &str| format!("dyn(object.spec.?{field}.orValue([]))");
    [
        ("containers", [list("initContainers"), list("containers"), list("ephemeralContainers")].join(" + ")),
        // The same, whatever exceptions cover.
        ("every", "variables.containers".into()),
        // Without ephemeral ones; and those that go on running.
        ("lasting", [list("initContainers"), list("containers")].join(" + ")),
        (
            "running",
            format!(
                "{}.filter(c, c.?restartPolicy.orValue('') == 'Always') + {}",
                list("initContainers"),
                list("containers")
            ),
        ),
        ("volumes", "object.spec.?volumes.orValue([])".into()),
        ("annotations", "object.metadata.?annotations.orValue({})".into()),
        ("windows", "object.spec.?os.?name.orValue('') == 'windows'".into()),
        ("userNamespace", "!object.spec.?hostUsers.orValue(true)".into()),
    ]
    .map(|(name, expression)| (name.to_owned(), expression))
    .into()
}

/// The form of a check as it holds at a version; `None` for one that is not known here.
pub(super) fn form(applied: &Applied, spared: &Spared) -> Option<Form> {
    let form = decided(applied.check.id, applied.since, spared)?;
    Some(match applied.exempt {
        Some(Exemption::Windows) => form.only_if(NOT_WINDOWS),
        Some(Exemption::UserNamespace) => form.only_if(NO_USER_NAMESPACE),
        None => form,
    })
}

/// The form of how a check has decided since version 1.`since`, exemptions aside.
fn decided(check: &str, since: u32, spared: &Spared) -> Option<Form> {
    Some(match (check, since) {
        ("appArmorProfile", 0) => app_armor_profile(),
        ("capabilities_baseline", 0) => capabilities_baseline(spared),
        ("hostNamespaces", 0) => host_namespaces(),
        ("hostPathVolumes", 0) => host_path_volumes(spared),
        ("hostPorts", 0) => host_ports(spared),
        ("hostProbesAndHostLifecycle", 34) => host_probes(),
        ("privileged", 0) => privileged(),
        ("procMount", 0) | ("procMount_restricted", 35) => proc_mount(),
        ("seLinuxOptions", since) => se_linux_options(since),
        ("seccompProfile_baseline", 0) => seccomp_annotations(),
        ("seccompProfile_baseline", 19) => seccomp_baseline(),
        ("sysctls", since) => sysctls(since, spared),
        ("windowsHostProcess", 0) => windows_host_process(),
        ("allowPrivilegeEscalation", 8) => allow_privilege_escalation(),
        ("capabilities_restricted", 22) => capabilities_restricted(spared),
        ("restrictedVolumes", 0) => restricted_volumes(spared),
        ("runAsNonRoot", 0) => run_as_non_root(),
        ("runAsUser", 23) => run_as_user(),
        ("seccompProfile_restricted", 19) => seccomp_restricted(),
        _ => return None,
    })
}

/// Names of the bad containers.
fn names(bad: &str) -> String {
    format!("{CONTAINERS}.filter(c, {bad}).map(c, c.name)")
}

/// What containers hold in a list, all of it.
fn all_of(list: &str) -> String {
    format!("{CONTAINERS}.map(c, {list}).flatten()")
}

fn allow_privilege_escalation() -> Form {
    let bad = "c.?securityContext.?allowPrivilegeEscalation.orValue(true)";
    let who = containers("variables.escalating");
    Form::new(
        Violated::each(bad),
        "allowPrivilegeEscalation != false",
        &[&who, "' must set securityContext.allowPrivilegeEscalation=false'"],
    )
    .with("escalating", names(bad))
}

fn app_armor_profile() -> Form {
    let kind = |context: &str| format!("{context}.?appArmorProfile.?type.orValue('RuntimeDefault')");
    let is_bad = |kind: &str| format!("!({kind} in ['RuntimeDefault', 'Localhost'])");
    let (of_pod, of_container) = (kind(CONTEXT), kind("c.?securityContext"));
    let (bad_pod, bad) = (is_bad(&of_pod), is_bad(&of_container));
    let annotation = "k.startsWith('container.apparmor.security.beta.kubernetes.io/') && \
                      !(variables.annotations[k] in ['', 'runtime/default'] || variables.annotations[k].startsWith('localhost/'))";
    let violated = Violated::either(format!("{bad_pod} || variables.annotations.exists(k, {annotation})"), &bad);
    let setters = [
        format!("({bad_pod} ? 'pod' : '')"),
        format!("(size(variables.apparmor) == 0 ? '' : {})", containers("variables.apparmor")),
        format!(
            "(size(variables.apparmorAnnotations) == 0 ? '' : {})",
            plural("variables.apparmorAnnotations", "annotation", "annotations")
        ),
    ];
    let reason = plural("variables.apparmorValues", "forbidden AppArmor profile (", "forbidden AppArmor profiles (");
    let who = join_present(&setters, " and ");
    let what = quoted("variables.apparmorValues");
    Form {
        violated,
        said: concat(&[&reason, &who, "' must not set AppArmor profile type to '", &what, "')'"]),
        variables: vec![],
    }
    .with("apparmor", names(&bad))
    .with("apparmorAnnotations", format!("variables.annotations.filter(k, {annotation})"))
    .with(
        "apparmorValues",
        format!(
            "{} + variables.apparmorAnnotations.map(k, k + '=' + strings.quote(variables.annotations[k])).sort()",
            set(&format!(
                "([{of_pod}].filter(t, {}) + {CONTAINERS}.map(c, string({of_container})).filter(t, {}))",
                is_bad("t"),
                is_bad("t")
            ))
        ),
    )
}

fn added() -> &'static str {
    "c.?securityContext.?capabilities.?add.orValue([])"
}

fn capabilities_baseline(spared: &Spared) -> Form {
    let forbidden = spared.of_container(&format!("!(n in {})", strings(values::CAPABILITIES_BASELINE)), "n");
    let bad = format!("{}.exists(n, {forbidden})", added());
    let (who, what) = (containers("variables.adding"), quoted("variables.added"));
    Form::new(
        Violated::each(&bad),
        "non-default capabilities",
        &[&who, "' must not include '", &what, "' in securityContext.capabilities.add'"],
    )
    .with("adding", names(&bad))
    .with("added", set(&all_of(&format!("{}.filter(n, {forbidden}).map(n, string(n))", added()))))
}

fn capabilities_restricted(spared: &Spared) -> Form {
    let missing = "!('ALL' in c.?securityContext.?capabilities.?drop.orValue([]))";
    let forbidden = spared.of_container(&format!("n != {}", string(values::CAPABILITY_RESTRICTED)), "n");
    let bad = format!("{}.exists(n, {forbidden})", added());
    let (missed, who, what) =
        (containers("variables.undropped"), containers("variables.adding"), quoted("variables.added"));
    let details = [
        format!(
            r#"(size(variables.undropped) == 0 ? '' : {missed} + ' must set securityContext.capabilities.drop=["ALL"]')"#
        ),
        format!(
            "(size(variables.adding) == 0 ? '' : {who} + ' must not include ' + {what} + ' in securityContext.capabilities.add')"
        ),
    ];
    let detail = join_present(&details, "; ");
    Form::new(Violated::each(format!("{missing} || {bad}")), "unrestricted capabilities", &[&detail])
        .with("undropped", names(missing))
        .with("adding", names(&bad))
        .with("added", set(&all_of(&format!("{}.filter(n, {forbidden}).map(n, string(n))", added()))))
}

fn host_namespaces() -> Form {
    let set = |field: &str| format!("object.spec.?{field}.orValue(false)");
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let said: Vec<String> = fields.map(|field| format!("({} ? '{field}=true' : '')", set(field))).into();
    Form::new(Violated::pod(fields.map(set).join(" || ")), "host namespaces", &[&join_present(&said, ", ")])
}

fn host_path_volumes(spared: &Spared) -> Form {
    let who = format!("{} + {}", plural("variables.hostPaths", "volume ", "volumes "), quoted("variables.hostPaths"));
    let bad = spared.of_pod("has(v.hostPath)", "v.hostPath.path");
    Form::new(Violated::pod(format!("variables.volumes.exists(v, {bad})")), "hostPath volumes", &[&who])
        .with("hostPaths", format!("variables.volumes.filter(v, {bad}).map(v, v.name)"))
}

fn host_ports(spared: &Spared) -> Form {
    let taken = spared.of_container("p.?hostPort.orValue(0) != 0", "string(p.hostPort)");
    let bad = format!("c.?ports.orValue([]).exists(p, {taken})");
    let who = containers("variables.takingPorts");
    let uses = plural("variables.takingPorts", " uses ", " use ");
    let noun = plural("variables.hostPorts", "hostPort ", "hostPorts ");
    Form::new(Violated::each(&bad), "hostPort", &[&who, &uses, &noun, "variables.hostPorts.join(', ')"])
        .with("takingPorts", names(&bad))
        .with("hostPorts", set(&all_of(&format!("c.?ports.orValue([]).filter(p, {taken}).map(p, string(p.hostPort))"))))
}

fn host_probes() -> Form {
    let handlers = values::PROBE_AND_LIFECYCLE_HANDLERS.map(|handler| format!("?c.?{}", handler.replace('.', ".?")));
    let handlers = format!("[{}]", handlers.join(", "));
    let host = |action: &str| format!("h.?{action}.?host.orValue('')");
    let (get, socket) = (host("httpGet"), host("tcpSocket"));
    let bad = format!("{handlers}.exists(h, {get} != '' || {socket} != '')");
    let hosts = format!("{handlers}.map(h, [{get}, {socket}]).flatten()");
    let who = containers("variables.calling");
    let uses = plural("variables.calling", " uses ", " use ");
    let noun = plural("variables.called", "probe or lifecycle host ", "probe or lifecycle hosts ");
    let what = quoted("variables.called");
    Form::new(Violated::each(&bad), "probe or lifecycle host", &[&who, &uses, &noun, &what])
        .with("calling", set(&format!("{CONTAINERS}.filter(c, {bad}).map(c, string(c.name))")))
        .with("called", set(&all_of(&format!("{hosts}.filter(h, h != '').map(h, string(h))"))))
}

fn privileged() -> Form {
    let bad = "c.?securityContext.?privileged.orValue(false)";
    let who = containers("variables.privileged");
    Form::new(Violated::each(bad), "privileged", &[&who, "' must not set securityContext.privileged=true'"])
        .with("privileged", names(bad))
}

fn proc_mount() -> Form {
    let value = "c.?securityContext.?procMount.orValue('Default')";
    let bad = format!("{value} != 'Default'");
    let (who, what) = (containers("variables.unmasking"), quoted("variables.procMounts"));
    Form::new(Violated::each(&bad), "procMount", &[&who, "' must not set securityContext.procMount to '", &what])
        .with("unmasking", names(&bad))
        .with("procMounts", set(&format!("{CONTAINERS}.filter(c, {bad}).map(c, string({value}))")))
}

fn restricted_volumes(spared: &Spared) -> Form {
    let allowed = values::VOLUMES_RESTRICTED.map(|kind| format!("has(v.{kind})")).join(" || ");
    let kind: String = values::VOLUMES_REFUSED.map(|kind| format!("has(v.{kind}) ? '{kind}' : ")).concat()
        + &string(values::VOLUME_UNKNOWN);
    let bad = spared.of_pod(&format!("!({allowed})"), &volume_in_cel("v", &kind));
    let names =
        format!("{} + {}", plural("variables.badVolumes", "volume ", "volumes "), quoted("variables.badVolumes"));
    let uses = plural("variables.badVolumes", " uses ", " use ");
    let types = plural("variables.badVolumeTypes", "restricted volume type ", "restricted volume types ");
    let what = quoted("variables.badVolumeTypes");
    Form::new(
        Violated::pod(format!("variables.volumes.exists(v, {bad})")),
        "restricted volume types",
        &[&names, &uses, &types, &what],
    )
    .with("badVolumes", format!("variables.volumes.filter(v, {bad}).map(v, v.name)"))
    .with("badVolumeTypes", set(&format!("variables.volumes.filter(v, {bad}).map(v, {kind})")))
}

fn run_as_non_root() -> Form {
    let pod_false = format!("!{CONTEXT}.?runAsNonRoot.orValue(true)");
    let pod_true = format!("{CONTEXT}.?runAsNonRoot.orValue(false)");
    let explicit = "!c.?securityContext.?runAsNonRoot.orValue(true)";
    let unset = "!c.?securityContext.?runAsNonRoot.hasValue()";
    let violated = Violated::either(&pod_false, format!("{explicit} || ({unset} && !{pod_true})"));
    let detail = format!(
        "({pod_false} || size(variables.rootful) > 0 ? {} + ' must not set securityContext.runAsNonRoot=false' : \
         'pod or ' + {} + ' must set securityContext.runAsNonRoot=true')",
        pod_and(&pod_false, "variables.rootful"),
        containers("variables.maybeRoot")
    );
    Form::new(violated, "runAsNonRoot != true", &[&detail])
        .with("rootful", names(explicit))
        .with("maybeRoot", names(unset))
}

fn run_as_user() -> Form {
    let pod = format!("{CONTEXT}.?runAsUser.orValue(1) == 0");
    let bad = "c.?securityContext.?runAsUser.orValue(1) == 0";
    let who = pod_and(&pod, "variables.asRoot");
    Form::new(Violated::either(&pod, bad), "runAsUser=0", &[&who, "' must not set runAsUser=0'"])
        .with("asRoot", names(bad))
}

fn se_linux_options(since: u32) -> Form {
    let types = strings(values::se_linux_types(since));
    let of = |context: &str, field: &str| format!("{context}.?seLinuxOptions.?{field}.orValue('')");
    let bad = |context: &str| {
        let kind = format!("!({} in {types})", of(context, "type"));
        format!("({kind} || {} != '' || {} != '')", of(context, "user"), of(context, "role"))
    };
    let (bad_pod, bad_container) = (bad(CONTEXT), bad("c.?securityContext"));
    let any = |field: &str| {
        format!("({} != '' || {})", of(CONTEXT, field), some(&format!("{} != ''", of("c.?securityContext", field))))
    };
    let kinds = format!(
        "([{}] + {CONTAINERS}.map(c, string({}))).filter(t, !(t in {types}))",
        of(CONTEXT, "type"),
        of("c.?securityContext", "type")
    );
    let what = [
        format!(
            "(size(variables.seLinuxTypes) == 0 ? '' : {} + {})",
            plural("variables.seLinuxTypes", "type ", "types "),
            quoted("variables.seLinuxTypes")
        ),
        format!("({} ? 'user may not be set' : '')", any("user")),
        format!("({} ? 'role may not be set' : '')", any("role")),
    ];
    let (who, what) = (pod_and(&bad_pod, "variables.seLinux"), join_present(&what, "; "));
    Form::new(
        Violated::either(&bad_pod, &bad_container),
        "seLinuxOptions",
        &[&who, "' set forbidden securityContext.seLinuxOptions: '", &what],
    )
    .with("seLinux", names(&bad_container))
    .with("seLinuxTypes", set(&kinds))
}

/// The kind of seccomp profile, and whether one that is set confines nothing.
fn seccomp(context: &str) -> (String, String) {
    let kind = format!("{context}.?seccompProfile.?type.orValue('RuntimeDefault')");
    let bad = format!("!({kind} in ['RuntimeDefault', 'Localhost'])");
    (kind, bad)
}

/// Who sets a bad profile, and which.
fn seccomp_explicit() -> (String, [(&'static str, String); 2]) {
    let ((pod_kind, bad_pod), (kind, bad)) = (seccomp(CONTEXT), seccomp("c.?securityContext"));
    let (who, what) = (pod_and(&bad_pod, "variables.unconfined"), quoted("variables.seccompTypes"));
    let kinds = format!(
        "([{pod_kind}] + {CONTAINERS}.map(c, string({kind}))).filter(t, !(t in ['RuntimeDefault', 'Localhost']))"
    );
    let said = format!("{who} + ' must not set securityContext.seccompProfile.type to ' + {what}");
    (said, [("unconfined", names(&bad)), ("seccompTypes", set(&kinds))])
}

fn seccomp_baseline() -> Form {
    let ((_, bad_pod), (_, bad)) = (seccomp(CONTEXT), seccomp("c.?securityContext"));
    let (said, [unconfined, types]) = seccomp_explicit();
    Form::new(Violated::either(bad_pod, bad), "seccompProfile", &[&said])
        .with(unconfined.0, unconfined.1)
        .with(types.0, types.1)
}

fn seccomp_restricted() -> Form {
    let ((_, bad_pod), (_, bad)) = (seccomp(CONTEXT), seccomp("c.?securityContext"));
    let pod_unset = format!("!{CONTEXT}.?seccompProfile.hasValue()");
    let unset = "!c.?securityContext.?seccompProfile.hasValue()";
    let (said, [unconfined, types]) = seccomp_explicit();
    let inherit = containers("variables.seccompUnset");
    let detail = format!(
        "({bad_pod} || size(variables.unconfined) > 0 ? {said} : 'pod or ' + {inherit} + \
         ' must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"')"
    );
    let violated = Violated::either(bad_pod, format!("{bad} || ({unset} && {pod_unset})"));
    Form::new(violated, "seccompProfile", &[&detail])
        .with(unconfined.0, unconfined.1)
        .with(types.0, types.1)
        .with("seccompUnset", names(unset))
}

fn seccomp_annotations() -> Form {
    let keys = "(['seccomp.security.alpha.kubernetes.io/pod'] + variables.containers.map(c, \
                'container.seccomp.security.alpha.kubernetes.io/' + string(c.name)))";
    let bad = "k in variables.annotations && !(variables.annotations[k] in ['runtime/default', 'docker/default'] || \
               variables.annotations[k].startsWith('localhost/'))";
    let noun = plural("variables.seccompAnnotations", "forbidden annotation ", "forbidden annotations ");
    Form::new(
        Violated::pod(format!("{keys}.exists(k, {bad})")),
        "seccompProfile",
        &[&noun, "variables.seccompAnnotations.join(', ')"],
    )
    .with(
        "seccompAnnotations",
        set(&format!("{keys}.filter(k, {bad}).map(k, k + '=' + strings.quote(variables.annotations[k]))")),
    )
}

fn sysctls(since: u32, spared: &Spared) -> Form {
    let bad = spared.of_pod(&format!("!(s.name in {})", strings(values::sysctls(since))), "s.name");
    let all = format!("{CONTEXT}.?sysctls.orValue([])");
    let said = format!("{all}.filter(s, {bad}).map(s, s.name).join(', ')");
    Form::new(Violated::pod(format!("{all}.exists(s, {bad})")), "forbidden sysctls", &[&said])
}

fn windows_host_process() -> Form {
    let pod = format!("{CONTEXT}.?windowsOptions.?hostProcess.orValue(false)");
    let bad = "c.?securityContext.?windowsOptions.?hostProcess.orValue(false)";
    let who = pod_and(&pod, "variables.hostProcess");
    Form::new(
        Violated::either(&pod, bad),
        "hostProcess",
        &[&who, "' must not set securityContext.windowsOptions.hostProcess=true'"],
    )
    .with("hostProcess", names(bad))
}
