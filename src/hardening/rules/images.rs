//! Where images come from, and how they are named.

use rampart_pss::Path;

use super::{
    About, CONTAINERS, Complaint, Part, Pod, Rule, Whose,
    reference::{self, Pattern, SHA256, normal_in_cel},
    told,
};
use crate::{
    api::{self, Invalid},
    hardening::cel::{string, strings},
};

pub(super) static ALLOW: About =
    About { id: "images.allow", title: "Images are of a list", windows: true, depends_on: None, values: None };
pub(super) static DENY: About =
    About { id: "images.deny", title: "Images are not of a list", windows: true, depends_on: None, values: None };
pub(super) static REQUIRE_DIGEST: About = About {
    id: "images.requireDigest",
    title: "Images are named by their digest",
    windows: true,
    depends_on: None,
    values: None,
};
pub(super) static FORBID_TAGS: About = About {
    id: "images.forbidTags",
    title: "Images have no tag of a list",
    windows: true,
    depends_on: None,
    values: None,
};

#[derive(Debug)]
enum Images {
    Allow(Vec<Pattern>),
    Deny(Vec<Pattern>),
    RequireDigest,
    ForbidTags(Vec<String>),
}

pub(super) fn parse(wire: &api::Rules) -> Result<Vec<Box<dyn Rule>>, Invalid> {
    let Some(images) = &wire.images else { return Ok(vec![]) };
    let patterns = |texts: &[String], field: &str| {
        let pattern = |(index, text): (usize, &String)| {
            let at = format!("spec.hardening.rules.images.{field}[{index}]");
            Pattern::parse(text).map_err(|problem| Invalid::at(at, problem))
        };
        texts.iter().enumerate().map(pattern).collect::<Result<Vec<_>, _>>()
    };
    let (allow, deny) = (patterns(&images.allow, "allow")?, patterns(&images.deny, "deny")?);
    let asked = [
        (!allow.is_empty()).then_some(Images::Allow(allow)),
        (!deny.is_empty()).then_some(Images::Deny(deny)),
        (images.require_digest == Some(true)).then_some(Images::RequireDigest),
        (!images.forbid_tags.is_empty()).then(|| Images::ForbidTags(images.forbid_tags.clone())),
    ];
    Ok(asked.into_iter().flatten().map(|rule| Box::new(rule) as Box<dyn Rule>).collect())
}

impl Images {
    /// Whether an image is refused. What is not the name of an image is, by every rule that asks
    /// something of names.
    fn refuses(&self, image: &str) -> bool {
        let known = |patterns: &[Pattern]| {
            let normal = reference::normal(image);
            patterns.iter().any(|pattern| pattern.matches(&normal))
        };
        let wrong = !reference::is_reference(image);
        match self {
            Self::Allow(patterns) => wrong || !known(patterns),
            Self::Deny(patterns) => wrong || known(patterns),
            Self::RequireDigest => wrong || !reference::has_digest(image),
            Self::ForbidTags(tags) => wrong || tags.iter().any(|tag| tag == reference::tag(image)),
        }
    }

    fn wanted(&self) -> String {
        let texts = |patterns: &[Pattern]| told(patterns.iter().map(|pattern| &pattern.text));
        match self {
            Self::Allow(patterns) => format!(", allowed: {}", texts(patterns)),
            Self::Deny(patterns) => format!(", denied: {}", texts(patterns)),
            Self::RequireDigest => ", which must end in @sha256: and a digest".into(),
            Self::ForbidTags(tags) => format!(", forbidden tags: {}", told(tags)),
        }
    }

    fn text(&self, image: &str) -> String {
        format!("uses the image {image}{}", self.wanted())
    }

    /// Whether an image in CEL is refused.
    fn bad(&self, image: &str) -> String {
        let known = |patterns: &[Pattern]| {
            let expressions = strings(patterns.iter().map(|pattern| &pattern.expression));
            // Once for all patterns: the API server gives up what costs too much.
            format!("[{}].exists(n, {expressions}.exists(p, n.matches(p)))", normal_in_cel(image))
        };
        let wrong = format!("!{image}.matches({})", string(reference::GRAMMAR.text));
        let bad = match self {
            Self::Allow(patterns) => format!("!({})", known(patterns)),
            Self::Deny(patterns) => known(patterns),
            Self::RequireDigest => format!("!{image}.matches({})", string(SHA256.text)),
            Self::ForbidTags(tags) => {
                // What stands before a digest, and after the last slash of that.
                let last = format!("{image}.split('@')[0].split('/')[size({image}.split('@')[0].split('/')) - 1]");
                let untagged = if tags.iter().any(|tag| tag == "latest") {
                    format!("!{image}.contains('@')")
                } else {
                    "false".into()
                };
                format!("({last}.contains(':') ? {last}.split(':')[1] in {} : {untagged})", strings(tags))
            }
        };
        format!("({wrong} || {bad})")
    }
}

impl Rule for Images {
    fn about(&self) -> &'static About {
        match self {
            Self::Allow(_) => &ALLOW,
            Self::Deny(_) => &DENY,
            Self::RequireDigest => &REQUIRE_DIGEST,
            Self::ForbidTags(_) => &FORBID_TAGS,
        }
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let of_containers = pod.containers().filter_map(|it| {
            let image = Some(it.container.image()).filter(|image| !image.is_empty())?;
            self.refuses(image).then(|| Complaint::container(it, "image", &self.text(image)))
        });
        let of_volumes = pod.volumes().filter_map(|(index, volume)| {
            let image = volume.image()?;
            let text = format!("volume \"{}\" {}", volume.name(), self.text(image));
            let complaint = || Complaint {
                about: Whose::OtherImage,
                ..Complaint::pod(text, Path::volume(index, "image.reference"))
            };
            self.refuses(image).then(complaint)
        });
        of_containers.chain(of_volumes).collect()
    }

    fn form(&self) -> Vec<Part> {
        let (container, volume) = ("string(c.?image.orValue(''))", "c.?image.?reference.orValue('')");
        let bad = |image: &str| format!("{image} != '' && {}", self.bad(image));
        let text = |image: &str| format!("'uses the image ' + {image} + {}", string(&self.wanted()));
        vec![
            Part::containers(CONTAINERS, bad(container), text(container)),
            Part::image_volumes(bad(volume), text(volume)),
        ]
    }
}
