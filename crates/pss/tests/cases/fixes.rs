//! What would mend a Pod, field by field. `corpus.rs` shows that fixes suffice; here they are also no more than
//! is needed.

use rampart_pss::{Level, Path, Pod, Version, explain};

const HARDENED: &str = r#""allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}"#;
const HARDENED_POD: &str = r#""runAsNonRoot": true, "seccompProfile": {"type": "Localhost"}"#;

/// `FIELD=JSON` to set, `-FIELD` to remove.
fn fixes(level: Level, minor: u32, pod: &str) -> Vec<String> {
    let pod: Pod<'_> = serde_json::from_str(pod).expect(pod);
    let violations = explain(level, Version::minor(minor), &pod);
    let fixes = violations.into_iter().flat_map(|violation| violation.fixes);
    let shown = fixes.map(|fix| match fix.value {
        Some(json) => format!("{}={json}", fix.path),
        None => format!("-{}", fix.path),
    });
    shown.collect()
}

fn baseline(spec: &str) -> Vec<String> {
    fixes(Level::Baseline, 37, &format!(r#"{{"spec": {{{spec}}}}}"#))
}

/// At restricted, of a pod that passes but for what a case adds to the Pod or to its container.
fn restricted(pod: &str, container: &str, more: &str) -> Vec<String> {
    let spec = format!(
        r#"{{"spec": {{"securityContext": {{{pod}}}, "containers": [{{"name": "a", "securityContext": {{{container}}}}}] {more}}}}}"#
    );
    fixes(Level::Restricted, 37, &spec)
}

#[test]
fn fields_of_the_pod() {
    assert_eq!(
        baseline(r#""hostNetwork": true, "hostPID": false, "hostIPC": true"#),
        ["-spec.hostNetwork", "-spec.hostIPC"]
    );
    assert_eq!(baseline(r#""volumes": [{"emptyDir": {}}, {"hostPath": {}}]"#), ["-spec.volumes[1].hostPath"]);
    let sysctls = r#"{"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.msgmax"}]}"#;
    assert_eq!(baseline(&format!(r#""securityContext": {sysctls}"#)), ["-spec.securityContext.sysctls[1]"]);
    assert_eq!(
        baseline(r#""securityContext": {"windowsOptions": {"hostProcess": true}}"#),
        ["spec.securityContext.windowsOptions.hostProcess=false"]
    );
    assert_eq!(
        baseline(r#""securityContext": {"seLinuxOptions": {"type": "a", "role": "b"}}"#),
        ["-spec.securityContext.seLinuxOptions.type", "-spec.securityContext.seLinuxOptions.role"]
    );
    assert_eq!(
        baseline(r#""securityContext": {"appArmorProfile": {"type": "Unconfined"}}"#),
        [r#"spec.securityContext.appArmorProfile={"type":"RuntimeDefault"}"#]
    );
    assert_eq!(
        baseline(r#""securityContext": {"seccompProfile": {"type": "Unconfined"}}"#),
        [r#"spec.securityContext.seccompProfile={"type":"RuntimeDefault"}"#]
    );
}

#[test]
fn fields_of_containers_in_their_list() {
    let init = |container: &str| baseline(&format!(r#""initContainers": [{{}}, {{{container}}}]"#));
    let context = |context: &str| init(&format!(r#""securityContext": {{{context}}}"#));
    let at = "spec.initContainers[1]";
    for (found, wanted) in [
        (context(r#""privileged": true"#), format!("{at}.securityContext.privileged=false")),
        (context(r#""procMount": "Unmasked""#), format!(r#"{at}.securityContext.procMount="Default""#)),
        (
            context(r#""capabilities": {"add": ["CHOWN", "NET_ADMIN", "KILL"]}"#),
            format!(r#"{at}.securityContext.capabilities.add=["CHOWN", "KILL"]"#),
        ),
        (context(r#""capabilities": {"add": ["NET_ADMIN"]}"#), format!("-{at}.securityContext.capabilities.add")),
        (context(r#""seLinuxOptions": {"user": "u"}"#), format!("-{at}.securityContext.seLinuxOptions.user")),
        (
            context(r#""windowsOptions": {"hostProcess": true}"#),
            format!("{at}.securityContext.windowsOptions.hostProcess=false"),
        ),
        (
            context(r#""appArmorProfile": {"type": "Unconfined"}"#),
            format!(r#"{at}.securityContext.appArmorProfile={{"type":"RuntimeDefault"}}"#),
        ),
        (
            context(r#""seccompProfile": {"type": "Unconfined"}"#),
            format!(r#"{at}.securityContext.seccompProfile={{"type":"RuntimeDefault"}}"#),
        ),
        (init(r#""ports": [{"hostPort": 0}, {"hostPort": 80}]"#), format!("-{at}.ports[1].hostPort")),
        (
            init(r#""startupProbe": {"tcpSocket": {"host": "h"}, "httpGet": {"host": ""}}"#),
            format!("-{at}.startupProbe.tcpSocket.host"),
        ),
        (
            init(r#""lifecycle": {"preStop": {"httpGet": {"host": "h"}}}"#),
            format!("-{at}.lifecycle.preStop.httpGet.host"),
        ),
    ] {
        assert_eq!(found, [wanted]);
    }
}

#[test]
fn annotations() {
    let (seccomp, app_armor) =
        ("container.seccomp.security.alpha.kubernetes.io/a", "container.apparmor.security.beta.kubernetes.io/b~c");
    let pod = format!(
        r#"{{"metadata": {{"annotations": {{"{seccomp}": "unconfined", "{app_armor}": "unconfined"}}}},
            "spec": {{"containers": [{{"name": "a"}}]}}}}"#
    );
    let remove = |key: &str| format!("-metadata.annotations[{key}]");
    assert_eq!(fixes(Level::Baseline, 18, &pod), [remove(app_armor), remove(seccomp)]);
    assert_eq!(fixes(Level::Baseline, 19, &pod), [remove(app_armor)]);
    let pod: Pod<'_> = serde_json::from_str(&pod).expect("a pod");
    let violation = explain(Level::Baseline, Version::LATEST, &pod).pop().expect("a violation");
    let pointers: Vec<String> = violation.fixes.iter().map(|fix| fix.path.pointer()).collect();
    assert_eq!(pointers, ["/metadata/annotations/container.apparmor.security.beta.kubernetes.io~1b~0c"]);
}

#[test]
fn what_restricted_asks_is_set_where_it_is_missing() {
    assert_eq!(restricted(HARDENED_POD, HARDENED, ""), [""; 0]);
    assert_eq!(
        restricted(HARDENED_POD, "", ""),
        [
            "spec.containers[0].securityContext.allowPrivilegeEscalation=false",
            r#"spec.containers[0].securityContext.capabilities.drop=["ALL"]"#,
        ]
    );
    let adding = |add: &str| {
        restricted(
            HARDENED_POD,
            &format!(r#""allowPrivilegeEscalation": false, "capabilities": {{"drop": ["ALL"], "add": [{add}]}}"#),
            "",
        )
    };
    let field = "spec.containers[0].securityContext.capabilities.add";
    assert_eq!(adding(r#""CHOWN", "NET_BIND_SERVICE""#), [format!(r#"{field}=["NET_BIND_SERVICE"]"#)]);
    assert_eq!(adding(r#""CHOWN""#), [format!("-{field}")]);
    let user = format!(r#""runAsUser": 0, {HARDENED}"#);
    assert_eq!(
        restricted(&format!(r#""runAsUser": 0, {HARDENED_POD}"#), &user, ""),
        ["-spec.securityContext.runAsUser", "-spec.containers[0].securityContext.runAsUser"]
    );
    let volumes = r#", "volumes": [{"secret": {}}, {"nfs": {}}, {"name": "v"}]"#;
    assert_eq!(restricted(HARDENED_POD, HARDENED, volumes), ["-spec.volumes[1].nfs", "spec.volumes[2].emptyDir={}"]);
}

#[test]
fn the_pods_settings_are_touched_only_where_they_do_not_do() {
    let (of_pod, of_container) =
        ("spec.securityContext.runAsNonRoot=true", "spec.containers[0].securityContext.runAsNonRoot=true");
    let seccomp = r#""seccompProfile": {"type": "RuntimeDefault"}"#;
    let refusing = format!(r#""runAsNonRoot": false, {HARDENED}"#);
    assert_eq!(restricted(HARDENED_POD, &refusing, ""), [of_container]);
    assert_eq!(restricted(seccomp, &refusing, ""), [of_container, of_pod]);
    assert_eq!(restricted(seccomp, HARDENED, ""), [of_pod]);

    let (profile, non_root) =
        (r#"securityContext.seccompProfile={"type":"RuntimeDefault"}"#, r#""runAsNonRoot": true"#);
    let unconfined = format!(r#""seccompProfile": {{"type": "Unconfined"}}, {HARDENED}"#);
    assert_eq!(restricted(non_root, HARDENED, ""), [format!("spec.{profile}")]);
    assert_eq!(restricted(non_root, &unconfined, ""), [format!("spec.containers[0].{profile}")]);
    let another = format!(r#", "ephemeralContainers": [{{"name": "e", "securityContext": {{{HARDENED}}}}}]"#);
    assert_eq!(
        restricted(non_root, &unconfined, &another),
        [format!("spec.containers[0].{profile}"), format!("spec.{profile}")]
    );
}

#[test]
fn paths_are_also_json_pointers() {
    use rampart_pss::ContainerKind::{Ephemeral, Regular};
    for (path, text, pointer) in [
        (Path::spec("hostPID"), "spec.hostPID", "/spec/hostPID"),
        (Path::spec("a.b[2].c"), "spec.a.b[2].c", "/spec/a/b/2/c"),
        (Path::volume(3, "nfs"), "spec.volumes[3].nfs", "/spec/volumes/3/nfs"),
        (Path::container(Regular, 0, "image"), "spec.containers[0].image", "/spec/containers/0/image"),
        (
            Path::container(Ephemeral, 1, "ports[0].hostPort"),
            "spec.ephemeralContainers[1].ports[0].hostPort",
            "/spec/ephemeralContainers/1/ports/0/hostPort",
        ),
    ] {
        assert_eq!((path.to_string().as_str(), path.pointer().as_str()), (text, pointer));
    }
}
