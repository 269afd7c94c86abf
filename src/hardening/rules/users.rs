//! Processes run as users and groups from a number on, which no account of a node has.

use rampart_pss::Path;

use super::{About, CONTAINERS, Complaint, Part, Pod, Rule, pod::Context};
use crate::api;

pub(super) static ABOUT: About = About {
    id: "users",
    title: "Processes run as users and groups from a number on",
    windows: false,
    depends_on: None,
    values: None,
};

#[derive(Debug)]
struct Least {
    uid: Option<i64>,
    gid: Option<i64>,
    fs_group: Option<i64>,
    explicit: bool,
}

const USER: &str = "runAsUser";
const GROUP: &str = "runAsGroup";
const FS_GROUP: &str = "fsGroup";

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    let users = wire.users.as_ref()?;
    let least = Least {
        uid: users.min_uid,
        gid: users.min_gid,
        fs_group: users.min_fs_group,
        explicit: users.require_explicit == Some(true),
    };
    (least.uid.or(least.gid).or(least.fs_group).is_some()).then(|| Box::new(least) as Box<dyn Rule>)
}

type Id = fn(&Context) -> Option<i64>;

impl Least {
    /// What a container's process runs as: field, value, least value.
    fn of_containers(&self) -> impl Iterator<Item = (&'static str, Id, i64)> {
        let user: Id = |context| context.run_as_user;
        let group: Id = |context| context.run_as_group;
        [(USER, user, self.uid), (GROUP, group, self.gid)]
            .into_iter()
            .filter_map(|(field, id, least)| Some((field, id, least?)))
    }

    /// Whether a value is refused.
    fn refuses(&self, value: Option<i64>, least: i64) -> bool {
        value.map_or(self.explicit, |value| value < least)
    }

    fn bad(&self, value: &str, least: i64) -> String {
        // An id that is not set counts as one that is high enough, or too low.
        let unset = if self.explicit { -1 } else { least };
        format!("{value}.orValue({unset}) < {least}")
    }
}

fn text(field: &str, least: i64) -> String {
    format!("must set securityContext.{field} to {least} or more")
}

impl Rule for Least {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let mut complaints = vec![];
        for (field, id, least) in self.of_containers() {
            let of_pod = pod.context().and_then(id);
            for it in pod.containers() {
                let own = it.context().and_then(id);
                if self.refuses(own.or(of_pod), least) {
                    complaints.push(Complaint::container(it, format!("securityContext.{field}"), &text(field, least)));
                }
            }
        }
        if let Some(least) = self.fs_group
            && self.refuses(pod.context().and_then(|context| context.fs_group), least)
        {
            let text = format!("pod {}", text(FS_GROUP, least));
            complaints.push(Complaint::pod(text, Path::spec(format!("securityContext.{FS_GROUP}"))));
        }
        complaints
    }

    fn form(&self) -> Vec<Part> {
        let of = |it: &str, field: &str| format!("{it}.?securityContext.?{field}");
        let mut parts: Vec<Part> = self
            .of_containers()
            .map(|(field, _, least)| {
                let effective = format!("{}.or({})", of("c", field), of("object.spec", field));
                Part::containers(CONTAINERS, self.bad(&effective, least), format!("'{}'", text(field, least)))
            })
            .collect();
        if let Some(least) = self.fs_group {
            let bad = self.bad(&of("object.spec", FS_GROUP), least);
            parts.push(Part::pod(bad, format!("'pod {}'", text(FS_GROUP, least))));
        }
        parts
    }
}
