//! `rampart check`: judges manifests as the webhook would judge the pods that come of them.

mod leaked;
mod networks;
mod output;
pub(super) mod policies;
#[cfg(test)]
mod tests;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use rampart_pss::{Level, Version};

use self::{
    output::Format,
    policies::{Judges, Labels, add_labels},
    verdict::{Outcome, Severity, judge},
};
use super::{
    BAD_INPUT, FOUND, cores,
    output::answered,
    source::{self, Found, Object, Unreadable},
    terminal::{Paint, Progress, fit},
};
use crate::{
    api::{AdmissionPolicy, Fix, HardeningMode},
    hardening::{Covering, Origin, Requirement, Rules},
    keys::format::mask_keys,
};

/// Judges manifests before they reach a cluster: files, directories, `-` for standard input; YAML of many documents,
/// JSON, lists, and every kind that holds a pod.
///
/// NetworkPolicies are looked at together: traps that their authors may be in are warnings (`network/<rule>`). API keys
/// of Rampart are found in objects of any kind (`data/apiKey`); what is told of one is its public id.
///
/// Pods are judged as they are written: where a policy says `fix: Apply`, they may be completed in the cluster, and
/// admitted although they are refused here.
///
/// Without --policy it judges at --level and --version. Exits 0 when nothing is refused, 1 when
/// something is, 2 when something can't be read (everything else is judged all the same).
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Files, directories, or `-`.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// A file or directory of SecurityPolicies, ClusterSecurityPolicies and PolicyExceptions; Namespaces in it, or among
    /// the manifests, give their labels. May be repeated.
    #[arg(long = "policy", value_name = "FILE", conflicts_with_all = ["level", "version"])]
    policies: Vec<PathBuf>,
    /// Namespace of manifests and policies that name none.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Level of the Pod Security Standards.
    #[arg(long, default_value = "restricted")]
    level: Level,
    /// Version of the standards: latest or v1.N.
    #[arg(long, default_value = "latest")]
    version: Version,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Where the answer goes, instead of standard output.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// What makes the command exit 1.
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOn,
}

/// What makes the command exit 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Something would be refused.
    #[default]
    Deny,
    /// Something would be refused or warned about.
    Warn,
    /// Nothing does.
    Never,
}

/// Everything there is to say.
#[derive(Debug, Default)]
struct Report {
    /// Objects with a pod, or with a key, in the order of the input.
    outcomes: Vec<Outcome>,
    /// NetworkPolicies, which are looked at together.
    networks: Vec<Object>,
    /// Labels of Namespaces among the manifests.
    labels: Labels,
    /// Objects that are judged without the labels of their namespace, and the places of their outcomes.
    open: Vec<(usize, Object)>,
    /// All other objects.
    skipped: usize,
    /// What could not be read.
    unreadable: Vec<Unreadable>,
}

impl Report {
    /// Rules whose verdict a cluster may still change, and what of it.
    fn depends_on(&self) -> BTreeMap<String, &'static str> {
        let all = self.outcomes.iter().flat_map(|outcome| &outcome.open);
        all.filter_map(|about| Some((about.rule(), about.depends_on?))).collect()
    }

    /// Takes a share of the input, which comes after those before.
    fn append(&mut self, part: Self) {
        let before = self.outcomes.len();
        self.open.extend(part.open.into_iter().map(|(place, object)| (place.saturating_add(before), object)));
        self.outcomes.extend(part.outcomes);
        self.unreadable.extend(part.unreadable);
        self.networks.extend(part.networks);
        self.labels.extend(part.labels);
        self.skipped = self.skipped.saturating_add(part.skipped);
    }

    /// Judges once more what was judged without the labels of its namespace, where those came with the manifests; of
    /// other namespaces it says, once each, that nobody knows what covers them.
    fn settle(&mut self, judges: &mut Judges, namespace: &str) {
        judges.learn(std::mem::take(&mut self.labels));
        let mut told = BTreeSet::new();
        for (place, mut object) in std::mem::take(&mut self.open) {
            let own = object.namespace(namespace).to_owned();
            let open = judges.open(&own);
            if open.is_empty() {
                let keys = leaked::rows(&object);
                match judge(&mut object, judges, namespace) {
                    Ok(anew) => {
                        if let (Some(outcome), Some(mut anew)) = (self.outcomes.get_mut(place), anew) {
                            leaked::add(&mut anew, keys);
                            *outcome = anew;
                        }
                    }
                    Err(unreadable) => self.unreadable.push(unreadable),
                }
            } else if !told.contains(&own) {
                let why = format!(
                    "whether ClusterSecurityPolicy {} covers namespace {own} is not known: give the Namespace in PATHS or with --policy",
                    open.join(" or ")
                );
                self.unreadable.push(object.unreadable(why));
                told.insert(own);
            }
        }
    }

    fn denied(&self) -> usize {
        self.outcomes.iter().filter(|outcome| !outcome.allowed).count()
    }
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let report = self.report()?;
        let written = self.write(&report);
        for unreadable in &report.unreadable {
            eprintln!("{}", fit(&unreadable.to_string()));
        }
        answered(written, self.exit_code(&report))
    }

    fn report(&self) -> anyhow::Result<Report> {
        let (mut judges, mut report) = self.judges();
        let (files, missing) = source::files(&self.paths);
        report.unreadable.extend(missing);
        let progress = Progress::of("judging", files.len());
        let parts = cores::share(&files, |_, files| judge_share(files, &judges, &self.namespace, &progress))?;
        drop(progress);
        for part in parts {
            report.append(part);
        }
        report.settle(&mut judges, &self.namespace);
        networks::judge(&mut report, &self.namespace, &files);
        for unreadable in &mut report.unreadable {
            // A parser quotes what it does not understand.
            unreadable.why = mask_keys(&unreadable.why);
        }
        Ok(report)
    }

    fn exit_code(&self, report: &Report) -> ExitCode {
        if !report.unreadable.is_empty() {
            return ExitCode::from(BAD_INPUT);
        }
        let mut rows = report.outcomes.iter().flat_map(|outcome| &outcome.violations);
        let fails = match self.fail_on {
            FailOn::Deny => rows.any(|row| row.severity == Severity::Error),
            FailOn::Warn => rows.any(|row| row.severity != Severity::Note),
            FailOn::Never => false,
        };
        if fails { ExitCode::from(FOUND) } else { ExitCode::SUCCESS }
    }

    /// What to judge by; what is wrong with the policies' files is bad input too.
    fn judges(&self) -> (Judges, Report) {
        if !self.policies.is_empty() {
            let (policies, unreadable) = policies::read(&self.policies, &self.namespace);
            return (policies.into(), Report { unreadable, ..Report::default() });
        }
        let requirement = Requirement {
            mode: HardeningMode::Enforce,
            level: self.level,
            version: self.version,
            rules: Rules::default(),
            admission_policy: AdmissionPolicy::None,
            fix: Fix::Disabled,
        };
        let covering = Covering { origin: Origin::CommandLine, made: None, requirement, exceptions: Arc::default() };
        (Judges::Flags([covering].into()), Report::default())
    }

    fn write(&self, report: &Report) -> anyhow::Result<()> {
        let Some(path) = &self.output_file else {
            return self.output.write(report, &mut std::io::stdout().lock(), Paint::stdout());
        };
        let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        let mut file = std::io::BufWriter::new(file);
        self.output.write(report, &mut file, Paint::default())?;
        file.flush().with_context(|| format!("writing {}", path.display()))
    }
}

fn judge_share(files: &[impl AsRef<Path>], judges: &Judges, namespace: &str, progress: &Progress) -> Report {
    let mut report = Report::default();
    let reads_labels = judges.read_labels();
    for file in files {
        let Found { objects, unreadable } = source::read(file.as_ref());
        report.unreadable.extend(unreadable);
        for mut object in objects {
            if networks::is_one(&object) {
                report.networks.push(object);
                continue;
            }
            if reads_labels && let Err(why) = add_labels(&mut report.labels, &object.value) {
                report.unreadable.push(object.unreadable(why));
            }
            let keys = leaked::rows(&object);
            match judge(&mut object, judges, namespace) {
                Ok(Some(mut outcome)) => {
                    leaked::add(&mut outcome, keys);
                    if reads_labels && !judges.open(object.namespace(namespace)).is_empty() {
                        report.open.push((report.outcomes.len(), object));
                    }
                    report.outcomes.push(outcome);
                }
                Ok(None) if keys.is_empty() => report.skipped = report.skipped.saturating_add(1),
                Ok(None) => report.outcomes.extend(leaked::outcome(&object, namespace, keys)),
                Err(unreadable) => {
                    report.unreadable.push(unreadable);
                    // What can't be read as a pod can leak all the same.
                    report.outcomes.extend(leaked::outcome(&object, namespace, keys));
                }
            }
        }
        progress.step();
    }
    report
}
