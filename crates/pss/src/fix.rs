//! Where in a Pod a violation stands, and what would mend it.

use std::{borrow::Cow, fmt};

use crate::ContainerKind;

/// A value that would make a check pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The field.
    pub path: Path,
    /// The value to set, as JSON; `None`: remove the field.
    pub value: Option<Cow<'static, str>>,
}

/// A field of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    place: Place,
    field: Cow<'static, str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Annotation,
    Spec,
    Container(ContainerKind, usize),
    Volume(usize),
}

impl Path {
    pub(crate) fn annotation(key: &str) -> Self {
        Self { place: Place::Annotation, field: Cow::Owned(key.into()) }
    }

    /// Below `spec`: names with dots between them, indexes in brackets.
    #[must_use]
    pub fn spec(field: impl Into<Cow<'static, str>>) -> Self {
        Self { place: Place::Spec, field: field.into() }
    }

    /// Below a container.
    #[must_use]
    pub fn container(kind: ContainerKind, index: usize, field: impl Into<Cow<'static, str>>) -> Self {
        Self { place: Place::Container(kind, index), field: field.into() }
    }

    /// Below a volume.
    #[must_use]
    pub fn volume(index: usize, field: impl Into<Cow<'static, str>>) -> Self {
        Self { place: Place::Volume(index), field: field.into() }
    }

    pub(crate) fn set(self, json: impl Into<Cow<'static, str>>) -> Fix {
        Fix { path: self, value: Some(json.into()) }
    }

    pub(crate) const fn remove(self) -> Fix {
        Fix { path: self, value: None }
    }

    /// The field as a JSON Pointer (RFC 6901) from the Pod's root: `/spec/containers/0/name`.
    #[must_use]
    pub fn pointer(&self) -> String {
        let below = self.field.replace(['.', '['], "/").replace(']', "");
        match &self.place {
            Place::Annotation => {
                format!("/metadata/annotations/{}", self.field.replace('~', "~0").replace('/', "~1"))
            }
            Place::Spec => format!("/spec/{below}"),
            Place::Container(kind, index) => format!("/spec/{}/{index}/{below}", kind.field()),
            Place::Volume(index) => format!("/spec/volumes/{index}/{below}"),
        }
    }
}

impl fmt::Display for Path {
    /// `spec.containers[0].securityContext.runAsNonRoot`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        match &self.place {
            Place::Annotation => write!(f, "metadata.annotations[{field}]"),
            Place::Spec => write!(f, "spec.{field}"),
            Place::Container(kind, index) => write!(f, "spec.{}[{index}].{field}", kind.field()),
            Place::Volume(index) => write!(f, "spec.volumes[{index}].{field}"),
        }
    }
}
