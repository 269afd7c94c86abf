//! Which checks there are at a level and version, and the values that they allow.

use rampart_pss::{Exemption, Level, Version, checks, values};

fn ids(level: Level, minor: u32) -> Vec<&'static str> {
    checks(level, Version::minor(minor)).iter().map(|applied| applied.check.id).collect()
}

const BASELINE: [&str; 12] = [
    "appArmorProfile",
    "capabilities_baseline",
    "hostNamespaces",
    "hostPathVolumes",
    "hostPorts",
    "hostProbesAndHostLifecycle",
    "privileged",
    "procMount",
    "seLinuxOptions",
    "seccompProfile_baseline",
    "sysctls",
    "windowsHostProcess",
];

fn without<'a>(all: &[&'a str], left_out: &[&str]) -> Vec<&'a str> {
    all.iter().copied().filter(|id| !left_out.contains(id)).collect()
}

#[test]
fn levels_bring_their_checks_and_restricted_replaces_some() {
    for minor in [0, 25, 37] {
        assert_eq!(ids(Level::Privileged, minor), [""; 0]);
    }
    assert_eq!(ids(Level::Baseline, 37), BASELINE);
    assert_eq!(ids(Level::Baseline, 33), without(&BASELINE, &["hostProbesAndHostLifecycle"]));
    let oldest = without(&BASELINE, &["hostProbesAndHostLifecycle", "hostPathVolumes"]);
    assert_eq!(ids(Level::Restricted, 7), [&oldest[..], &["restrictedVolumes", "runAsNonRoot"]].concat());
    let replaced = ["capabilities_baseline", "hostPathVolumes", "procMount", "seccompProfile_baseline"];
    let restricted = [
        "allowPrivilegeEscalation",
        "capabilities_restricted",
        "procMount_restricted",
        "restrictedVolumes",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile_restricted",
    ];
    assert_eq!(ids(Level::Restricted, 37), [without(&BASELINE, &replaced), restricted.to_vec()].concat());
    assert_eq!(ids(Level::Restricted, 99), ids(Level::Restricted, 37), "what is newer is as the newest");
}

#[test]
fn a_check_says_since_when_it_decides_so_and_whom_it_exempts() {
    let of = |id: &str, minor: u32| {
        let all = checks(Level::Restricted, Version::minor(minor));
        all.iter().find(|applied| applied.check.id == id).map(|applied| (applied.since, applied.exempt))
    };
    assert_eq!(of("sysctls", 26), Some((0, None)));
    assert_eq!(of("sysctls", 31), Some((29, None)));
    assert_eq!(of("allowPrivilegeEscalation", 7), None);
    assert_eq!(of("allowPrivilegeEscalation", 24), Some((8, None)));
    assert_eq!(of("allowPrivilegeEscalation", 25), Some((8, Some(Exemption::Windows))));
    assert_eq!(of("runAsUser", 34), Some((23, None)));
    assert_eq!(of("runAsUser", 35), Some((23, Some(Exemption::UserNamespace))));
}

#[test]
fn values_that_are_allowed_since_a_version() {
    let numbers = [0, 26, 27, 28, 29, 31, 32, 36, 37].map(|minor| values::sysctls(minor).count());
    assert_eq!(numbers, [5, 5, 6, 6, 10, 10, 12, 12, 14]);
    assert!(values::sysctls(27).any(|name| name == "net.ipv4.ip_local_reserved_ports"));
    let four = ["", "container_t", "container_init_t", "container_kvm_t"];
    assert_eq!((values::se_linux_types(0), values::se_linux_types(30)), (&four[..], &four[..]));
    assert_eq!(values::se_linux_types(31), [&four[..], &["container_engine_t"]].concat());
}

#[test]
fn what_is_newer_than_any_that_is_known_is_of_the_future() {
    let newest = Version::NEWEST_MINOR;
    let future = |version: Version| version.is_future();
    assert_eq!([newest, newest + 1].map(Version::minor).map(future), [false, true]);
    assert!(!Version::LATEST.is_future());
}
