//! JUnit XML: a suite a file, a case an object, a failure where it would be refused, an error where a
//! file can't be read.

use std::io::Write;

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite, XmlString};

use crate::cli::check::{
    Report,
    verdict::{Outcome, Severity},
};

pub(super) fn write(report: &Report, out: &mut impl Write) -> anyhow::Result<()> {
    let mut junit = Junit::new("rampart check");
    let mut suites: Vec<TestSuite> = vec![];
    let mut put = |file: &str, case: TestCase| {
        let known = suites.iter().rposition(|suite| suite.name.as_str() == file);
        let mut suite = known.map_or_else(|| TestSuite::new(file), |index| suites.remove(index));
        suite.add_test_case(case);
        suites.push(suite);
    };
    for outcome in &report.outcomes {
        put(&outcome.file, case(outcome));
    }
    for unreadable in &report.unreadable {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(unreadable.why.as_str()).set_type("unreadable");
        let line = unreadable.line.map(|line| format!("line {line}")).unwrap_or_default();
        put(&unreadable.file, TestCase::new(format!("readable {line}").trim_end(), status));
    }
    junit.add_test_suites(suites);
    // The schema of Jenkins' xUnit plugin (junit-10.xsd) knows `skipped` for a suite, but not for all of them.
    Ok(out.write_all(junit.to_string()?.replacen(" skipped=\"0\"", "", 1).as_bytes())?)
}

fn case(outcome: &Outcome) -> TestCase {
    let name = format!("{} {}/{}", outcome.kind, outcome.namespace, outcome.name);
    let refused = || outcome.violations.iter().filter(|row| row.severity == Severity::Error);
    let mut status =
        if outcome.allowed { TestCaseStatus::success() } else { TestCaseStatus::non_success(NonSuccessKind::Failure) };
    if !outcome.allowed {
        let rules: Vec<&str> = refused().map(|row| row.rule.as_str()).collect();
        let details: Vec<String> =
            refused().map(|row| format!("{} ({}) at {}", row.reason, row.detail, row.path)).collect();
        status.set_message(outcome.message.as_str()).set_type(rules.join(", ")).set_description(details.join("\n"));
    }
    let mut case = TestCase::new(name, status);
    case.set_classname(XmlString::new(&outcome.file));
    case
}
