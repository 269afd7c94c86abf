use std::path::PathBuf;

use clap::{Parser, error::ErrorKind};
use jiff::Timestamp;

use super::{ReportCommand, files, html::html};
use crate::{
    cli::terminal::Paint,
    report::{Report, report},
};

/// As it is where it is piped.
fn text(report: &Report) -> String {
    super::text::text(report, Paint::default())
}

/// What tests/fixtures/report.yaml is told as, the day after its youngest time.
fn told() -> Report {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/report.yaml");
    let (world, unreadable, others) = files::world(&[fixture], None);
    assert!(unreadable.is_empty() && others == 0, "{unreadable:?}");
    let now: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
    report(&world, now)
}

/// Beside those of the other tests: `src` holds nothing that is long.
fn snapshot(name: &str, told: &str) {
    insta::with_settings!({snapshot_path => "../../../tests/snapshots", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, told);
    });
}

#[test]
fn as_text() {
    snapshot("report_as_text", &text(&told()));
}

#[test]
fn colours_change_no_text() {
    let painted = super::text::text(&told(), Paint::colors());
    assert!(painted.contains("\u{1b}[31moverdue for"), "{painted}");
    assert_eq!(anstream::adapter::strip_str(&painted).to_string(), text(&told()));
}

#[test]
fn as_json() {
    snapshot("report_as_json", &serde_json::to_string_pretty(&told()).unwrap());
}

#[test]
fn as_html() {
    snapshot("report_as_html", &html(&told()));
}

/// What the words of a cluster are told as.
fn with_reason(reason: &str) -> [String; 2] {
    let mut told = told();
    told.exceptions.items[0].reason = reason.into();
    [text(&told), html(&told)]
}

#[test]
fn words_of_a_cluster_are_never_markup() {
    let hostile = "<script>alert(1)</script><img src=x onerror=\"a\"> &lt; 'q' \"><b>";
    let [_, html] = with_reason(hostile);
    let escaped =
        "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=&quot;a&quot;&gt; &amp;lt; 'q' &quot;&gt;&lt;b&gt;";
    assert!(html.contains(escaped), "{html}");
    // Neither those of the test nor those of the fixture.
    for tag in ["<script", "<img", "<svg", "<b>", "<link", "<iframe", "url(", "@import"] {
        assert!(!html.contains(tag), "{tag}");
    }
    let links: Vec<&str> = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() > 8 && links.iter().all(|link| link.starts_with('#')), "{links:?}");
}

#[test]
fn words_of_a_cluster_steer_no_terminal_and_turn_no_order() {
    for told in with_reason("a\u{1b}[31mred\u{7}\u{202e}txt.exe\u{2066}\r\nb") {
        assert!(told.contains("a\u{fffd}[31mred\u{fffd}\u{fffd}txt.exe\u{fffd}\u{fffd} b"), "{told}");
        assert!(!told.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{2066}', '\r']));
    }
}

#[test]
fn what_does_not_go_on_by_itself_is_told() {
    let mut told = told();
    told.keys.items[0].suspend = true;
    told.keys.items[1].imported = true;
    told.retention.items[0].policies[0].suspended = true;
    let html = html(&told);
    for cell in [
        "2026-11-20T00:00:00Z (7 d ago), suspended<",
        "2027-01-20T00:00:00Z (in 54 d), by hand<",
        "<span class=\"warn\">ready (Ready), suspended<",
    ] {
        assert_eq!(html.matches(cell).count(), 1, "{cell} in {html}");
    }
}

#[test]
fn that_statuses_are_old_is_told_first() {
    let mut told = told();
    told.away_since = Some("2026-11-26T00:00:00Z".parse().unwrap());
    let text = text(&told);
    let line = text.lines().find(|line| line.contains("No controller")).unwrap();
    assert!(line.contains("since 2026-11-26T00:00:00Z (") && line.contains("as of then"), "{line}");
    assert!(html(&told).contains("No controller"));
    assert_eq!(serde_json::to_value(&told).unwrap()["awaySince"], "2026-11-26T00:00:00Z");
}

#[test]
fn a_misspelt_field_is_bad_input() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let policy = "{apiVersion: rampart.dev/v1alpha1, kind: SecurityPolicy, metadata: {name: p, namespace: n}, spec: {hardning: {}}}";
    std::fs::write(file.path(), policy).unwrap();
    let (world, unreadable, _) = files::world(&[file.path().into()], None);
    assert!(world.policies.items.is_empty() && unreadable[0].why.contains("field spec.hardning"), "{unreadable:?}");
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    report: ReportCommand,
}

#[test]
fn all_namespaces_may_be_asked_for_as_kubectl_does() {
    let only = |arguments: &[&str]| {
        let line = Line::try_parse_from([&["report"], arguments].concat());
        line.map(|line| line.report.only()).map_err(|error| error.kind())
    };
    assert_eq!(only(&[]), Ok(None));
    assert_eq!(only(&["-A"]), Ok(None));
    assert_eq!(only(&["--all-namespaces", "-o", "json"]), Ok(None));
    assert_eq!(only(&["-n", "shop"]), Ok(Some("shop".into())));
    assert_eq!(only(&["-A", "-n", "shop"]), Err(ErrorKind::ArgumentConflict));
}

/// Whether a requirement is met is for an assessor to say.
#[test]
fn nothing_is_called_compliant() {
    let told = told();
    let json = serde_json::to_string(&told).unwrap();
    for told in [text(&told), html(&told), json] {
        let lower = told.to_lowercase();
        let others = lower.replace("complianceascode", "");
        assert!(!others.contains("complian"), "{told}");
        assert!(lower.contains("supports"), "{told}");
    }
}

#[test]
fn what_was_not_read_is_told_where_it_is_missed() {
    let mut told = told();
    told.keys.items.clear();
    told.keys.unread = vec!["apikeys of all namespaces: forbidden".into()];
    told.unread = told.keys.unread.clone();
    for told in [text(&told), html(&told)] {
        assert_eq!(
            told.matches("could not read apikeys of all namespaces: forbidden").count(),
            if told.starts_with('<') { 1 } else { 2 },
            "{told}"
        );
        assert!(!told.contains("There are no keys"), "{told}");
    }
}
