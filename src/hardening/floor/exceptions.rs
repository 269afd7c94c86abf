//! Exceptions in an admission policy: one map by namespace, and for each check that some exception names,
//! its containers without the covered ones.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::form::{Form, Violated};
use crate::hardening::{
    Exception,
    cel::{selects, string, strings},
    rules::normal_in_cel,
    value::{Value, covered_in_cel},
};

/// Exceptions by namespace.
pub(super) type ByNamespace<'e> = BTreeMap<&'e str, &'e [Exception]>;

/// Exceptions that an admission policy has no room for, by namespace and name.
pub(super) type LeftOut = BTreeSet<(String, String)>;

/// Longest map, in characters; the API server admits expressions of 100,000. What does not fit is not
/// excepted, and told.
const LONGEST: usize = 80_000;

/// Dearest exceptions of one namespace, for each container of a pod that violates something, in the API server's units
/// of cost: it gives up at 1,000,000 in one variable. This leaves room for ten containers.
const DEAREST: usize = 90_000;
/// Longest name of an image that this is reckoned for, with a digest, in characters.
const NAME: usize = 160;

/// Lists of containers that forms are about.
const LISTS: [&str; 3] = ["containers", "lasting", "running"];

/// Whether exceptions cover all containers, in a form before [`except`].
pub(super) const ALL: &str = "(size(variables.every) > 0 && size(variables.containers) == 0)";

/// Rules that exceptions name.
#[derive(Default)]
pub(super) struct Lifted<'e> {
    /// For anything.
    whole: BTreeSet<&'e str>,
    /// For some values.
    by_value: BTreeSet<&'e str>,
}

impl<'e> Lifted<'e> {
    pub(super) fn by(excepted: &ByNamespace<'e>) -> Self {
        let mut lifted = Self::default();
        for (rule, values) in excepted.values().flat_map(|exceptions| exceptions.iter()).flat_map(|it| &it.rules) {
            let rules = if values.is_some() { &mut lifted.by_value } else { &mut lifted.whole };
            rules.insert(rule.as_str());
        }
        lifted
    }

    pub(super) fn whole(&self, rule: &str) -> bool {
        self.whole.contains(rule)
    }

    pub(super) fn spared(&self, rule: &str) -> Spared {
        Spared(self.by_value.contains(rule).then(|| string(rule)))
    }
}

/// What exceptions for some values take out of what is bad, if there are any: the rule that they name.
pub(super) struct Spared(Option<String>);

impl Spared {
    /// What is bad, but for a value of the container `c`.
    pub(super) fn of_container(&self, bad: &str, value: &str) -> String {
        self.but(bad, |rule| covered("c", &listed(rule, value)))
    }

    /// What is bad, but for a value of the Pod as a whole.
    pub(super) fn of_pod(&self, bad: &str, value: &str) -> String {
        self.but(bad, |rule| {
            let covered = covered("k", &format!("({rule} in e.of.rules || {})", listed(rule, value)));
            format!("(size(variables.every) > 0 && variables.every.all(k, {covered}))")
        })
    }

    fn but(&self, bad: &str, covered: impl Fn(&str) -> String) -> String {
        self.0.as_ref().map_or_else(|| bad.to_owned(), |rule| format!("({bad}) && !{}", covered(rule)))
    }
}

/// Whether an exception of `variables.covering`, `e`, lists a value of a rule.
fn listed(rule: &str, value: &str) -> String {
    covered_in_cel(&format!("e.of[?{rule}].orValue([])"), value)
}

/// Whether a container is covered by an exception `e` of which something holds.
fn covered(container: &str, lifts: &str) -> String {
    format!("variables.covering.exists(e, {container}.name in e.covered && {lifts})")
}

/// An exception as an admission policy has it.
struct Written<'e> {
    name: &'e str,
    entry: String,
    narrowed: Option<String>,
    cost: usize,
}

impl<'e> Written<'e> {
    fn of(namespace: &str, exception: &'e Exception) -> Self {
        Self {
            name: &exception.name,
            entry: entry(namespace, exception),
            narrowed: narrowed(namespace, exception),
            cost: cost(exception),
        }
    }

    fn length(&self) -> usize {
        self.entry.len().saturating_add(self.narrowed.as_ref().map_or(0, String::len)).saturating_add(4)
    }
}

/// What it costs at most to ask whether an exception is about a container: a match, a tenth of the name times a quarter
/// of the expression, and what goes from one image and one exception to the next.
fn cost(exception: &Exception) -> usize {
    let matched = |length: usize| length.div_ceil(4).saturating_mul(NAME.div_ceil(10)).saturating_add(10);
    let images = exception.images.iter().map(|pattern| matched(pattern.expression.len()));
    images.fold(50, usize::saturating_add)
}

/// Variables that say which exceptions hold for the Pod, and for which of its containers: `covering`, with what it
/// needs; and the exceptions that there was no room for, by namespace and name.
///
/// Images are what costs: each is asked about once, whatever rules are violated, and none for a pod that violates
/// nothing. Containers go by name: of two with the same the API server accepts neither.
///
/// On CREATE the creation time is the API server's own clock; on UPDATE there is none to be trusted, and
/// all that had not ended when the policy was compiled hold.
pub(super) fn variables(excepted: &ByNamespace<'_>) -> (Vec<(String, String)>, LeftOut) {
    let (mut namespaces, mut unselected, mut left_out) = (BTreeMap::new(), vec![], LeftOut::new());
    let mut all: Vec<(&str, Vec<Written<'_>>)> = excepted
        .iter()
        .map(|(namespace, exceptions)| (*namespace, exceptions.iter().map(|it| Written::of(namespace, it)).collect()))
        .collect();
    // Who has most goes short first.
    all.sort_by_key(|(_, written)| written.iter().map(Written::length).sum::<usize>());
    let mut left = LONGEST;
    for (namespace, written) in all {
        let mut left_here = DEAREST;
        for one in written {
            let needed = one.length().saturating_add(namespace.len()).saturating_add(8);
            if needed > left || one.cost > left_here {
                left_out.insert((namespace.to_owned(), one.name.to_owned()));
                continue;
            }
            left = left.saturating_sub(needed);
            left_here = left_here.saturating_sub(one.cost);
            namespaces.entry(namespace).or_insert_with(Vec::new).push(one.entry);
            unselected.extend(one.narrowed);
        }
    }
    let namespaces =
        namespaces.into_iter().map(|(name, entries)| format!("{}: [{}]", string(name), entries.join(", ")));
    let namespaces: Vec<String> = namespaces.collect();
    let of_time =
        "request.operation != 'CREATE' || timestamp(object.metadata.creationTimestamp) < timestamp(e.ends[0])";
    let normal = normal_in_cel("string(c.?image.orValue(''))");
    let variables = [
        ("labels", "object.metadata.?labels.orValue({})".to_owned()),
        ("unselected", format!("[{}]", unselected.join(", "))),
        ("exceptions", format!("{{{}}}", namespaces.join(", "))),
        (
            "active",
            format!(
                "variables.exceptions[?request.namespace].orValue([]).filter(e, !(e.id[0] in variables.unselected) && ({of_time}))"
            ),
        ),
        ("named", format!("variables.every.map(c, {{'name': string(c.name), 'image': {normal}}})")),
        (
            "covering",
            "variables.active.map(e, {'of': dyn(e), 'covered': dyn(variables.named.filter(n, \
             (size(e.containers) == 0 || n.name in e.containers) && e.images.exists(i, n.image.matches(i))).map(n, n.name))})"
                .to_owned(),
        ),
    ]
    .map(|(name, expression)| (name.to_owned(), expression));
    (variables.into(), left_out)
}

/// The exception's id where the Pod has not the labels that it is for.
fn narrowed(namespace: &str, exception: &Exception) -> Option<String> {
    let selected = selects(&exception.labels, "variables.labels")?;
    Some(format!("{selected} ? '' : {}", string(&id(namespace, exception))))
}

fn id(namespace: &str, exception: &Exception) -> String {
    format!("{namespace}/{}", exception.name)
}

/// All values are lists of strings: a map in CEL holds one type.
fn entry(namespace: &str, exception: &Exception) -> String {
    let images = exception.images.iter().map(|pattern| &pattern.expression);
    let whole = exception.rules.iter().filter(|(_, values)| values.is_none()).map(|(rule, _)| rule);
    let values = exception.rules.iter().filter_map(|(rule, values)| Some((rule, values.as_ref()?)));
    // By the rule's id, which no other key looks like.
    let values =
        values.map(|(rule, values)| format!(", {}: {}", string(rule), strings(values.iter().map(Value::in_cel))));
    format!(
        "{{'id': [{}], 'ends': [{}], 'rules': {}, 'containers': {}, 'images': {}{}}}",
        string(&id(namespace, exception)),
        string(&exception.expires.to_string()),
        strings(whole),
        strings(&exception.containers),
        strings(images),
        values.collect::<String>()
    )
}

/// The form of a rule, about the containers that no exception covers; and its variables, the lists first. The plain form
/// is asked before: an exception takes violations away, and adds none.
pub(super) fn except(rule: &str, form: &Form) -> Form {
    let suffix = rule.replace(['/', '.'], "_");
    let covered = covered("c", &format!("{} in e.of.rules", string(rule)));
    let mut names: Vec<String> = form.variables.iter().map(|(name, _)| name.clone()).collect();
    names.extend(LISTS.map(ToOwned::to_owned));
    // What the form calls by a shared name becomes its own.
    let own = |expression: &str| {
        let pattern = format!(r"\bvariables\.({})\b", names.join("|"));
        let renamed = |found: &regex::Captures<'_>| format!("{}_{suffix}", found.get(0).map_or("", |it| it.as_str()));
        Regex::new(&pattern)
            .map_or_else(|_| expression.to_owned(), |it| it.replace_all(expression, renamed).into_owned())
    };
    // By itself, for it may be long. What asks for ALL finds it never true there.
    let (plain, plainly) = (format!("plain_{suffix}"), form.violated.expression());
    let violated = own(&plainly);
    let said = own(&form.said);
    let own_variables: Vec<(String, String)> =
        form.variables.iter().map(|(name, expression)| (format!("{name}_{suffix}"), own(expression))).collect();
    let used = |list: &&&str| {
        let name = format!("variables.{list}_{suffix}");
        violated.contains(&name) || said.contains(&name) || own_variables.iter().any(|(_, text)| text.contains(&name))
    };
    let lists = LISTS
        .iter()
        .filter(used)
        .map(|list| (format!("{list}_{suffix}"), format!("variables.{list}.filter(c, !{covered})")));
    let excepted = Violated::pod(format!("variables.{plain} && ({violated})"));
    let variables = [(plain, plainly)].into_iter().chain(lists).chain(own_variables.iter().cloned()).collect();
    Form { violated: excepted, said, variables }
}

#[cfg(test)]
mod tests {
    use rampart_pss::{Level, Version};
    use serde_json::json;

    use super::*;
    use crate::hardening::{Demand, Exceptions, Rules, Standard, compile};

    fn exception(name: &str, images: &[String]) -> Exception {
        let exception = json!({"metadata": {"name": name}, "spec": {
            "policies": [{"kind": "SecurityPolicy", "name": "p"}], "rules": ["pss/privileged"], "images": images,
            "reason": "a test", "expiresAt": "2027-01-01T00:00:00Z"}});
        Exception::try_from(&serde_json::from_value(exception).unwrap()).unwrap()
    }

    fn named(names: impl Iterator<Item = String>) -> Exceptions {
        let images = [format!("registry.example.com/{}", "a".repeat(400))];
        names.map(|name| exception(&name, &images)).collect()
    }

    /// The variables where one namespace has exceptions, and how many are left out.
    fn enforced(exceptions: Exceptions) -> (BTreeMap<String, String>, usize) {
        let standard = Standard { level: Level::Baseline, version: Version::LATEST, rules: Rules::default() };
        let namespaces = [("shop".to_owned(), [(standard, exceptions)].into())].into();
        let floors = compile(&Demand { namespaces, ..Demand::default() });
        let [floor] = floors.as_slice() else { panic!("{} policies", floors.len()) };
        let variables = floor.policy.spec.clone().unwrap().variables.unwrap();
        (variables.into_iter().map(|it| (it.name, it.expression)).collect(), floor.left_out.len())
    }

    #[test]
    fn pods_that_violate_nothing_are_not_looked_up_and_each_image_is_asked_about_once() {
        let (variables, _) = enforced(vec![exception("agent", &["registry.example.com/agent".into()])]);
        let of = |name: &str| variables.get(name).unwrap().as_str();
        assert!(of("violates_privileged").starts_with("variables.plain_pss_privileged && ("));
        assert!(of("refused").contains(&format!("({})", of("violates_privileged"))));
        assert!(of("plain_pss_privileged").contains("variables.containers.exists("));
        let saying = |text: &str| {
            variables.iter().filter(|(_, it)| it.contains(text)).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(saying("lowerAscii"), ["named"]);
        assert_eq!(saying("variables.named"), ["covering"]);
        assert_eq!(saying("variables.covering"), ["containers_pss_privileged"]);
    }

    #[test]
    fn exceptions_of_a_namespace_cost_no_more_than_ten_containers_can_pay() {
        let registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/platform/observability";
        let left_out = |count: usize| {
            let images =
                |one: usize| (0..16).map(|image| format!("{registry}/agent-{one}-{image}")).collect::<Vec<_>>();
            enforced((0..count).map(|one| exception(&format!("e-{one}"), &images(one))).collect()).1
        };
        assert_eq!([12, 24].map(left_out), [0, 12]);
    }

    #[test]
    fn what_there_is_no_room_for_is_told() {
        let standard = Standard { level: Level::Baseline, version: Version::LATEST, rules: Rules::default() };
        let left_out = |many: usize| {
            let few = named(["only".to_owned()].into_iter());
            let many = named((0..many).map(|number| format!("e-{number}")));
            let namespaces = [("crowded", many), ("few", few)]
                .map(|(name, exceptions)| (name.to_owned(), [(standard.clone(), exceptions)].into()));
            let floors = compile(&Demand { namespaces: namespaces.into(), ..Demand::default() });
            let [floor] = floors.as_slice() else { panic!("{} policies", floors.len()) };
            let variables = floor.policy.spec.clone().unwrap().variables.unwrap();
            let map = variables.into_iter().find(|variable| variable.name == "exceptions").unwrap().expression;
            assert!(map.len() < LONGEST && map.contains("'few/only'"), "who has few goes short last");
            let is_there = |(namespace, name): &(String, String)| map.contains(&format!("'{namespace}/{name}'"));
            assert!(!floor.left_out.iter().any(is_there), "{:?}", floor.left_out);
            assert!(floor.left_out.iter().all(|(namespace, _)| namespace == "crowded"), "{:?}", floor.left_out);
            (map.matches("'id'").count(), floor.left_out.len())
        };
        assert_eq!(left_out(9), (10, 0));
        let (there, out) = left_out(999);
        assert!(there > 1 && out > 1 && there + out == 1000, "{there} are there, {out} are not");
    }
}
