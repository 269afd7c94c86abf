//! A Pod as checks see it.

use std::ops::Deref;

use crate::{ContainerKind, Fix, Pod, container::Container};

/// A Pod with the containers of all three lists in one, gathered once for all checks.
pub struct View<'p, 'a> {
    pod: &'p Pod<'a>,
    containers: Vec<(ContainerKind, usize, &'p Container<'a>)>,
}

/// Where checks put what would make the Pod pass, if anybody wants to know.
pub struct Fixes(Option<Vec<Fix>>);

impl<'p, 'a> View<'p, 'a> {
    pub(crate) fn of(pod: &'p Pod<'a>) -> Self {
        Self { pod, containers: pod.containers().collect() }
    }

    /// Every container, in the order in which the reference names them, with its list and index.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (ContainerKind, usize, &'p Container<'a>)> + '_ {
        self.containers.iter().copied()
    }
}

impl<'a> Deref for View<'_, 'a> {
    type Target = Pod<'a>;

    fn deref(&self) -> &Pod<'a> {
        self.pod
    }
}

impl Fixes {
    pub(crate) const fn unwanted() -> Self {
        Self(None)
    }

    pub(crate) const fn wanted() -> Self {
        Self(Some(vec![]))
    }

    /// Adds a fix; it is only made where it is wanted.
    pub(crate) fn push(&mut self, fix: impl FnOnce() -> Fix) {
        if let Some(fixes) = &mut self.0 {
            fixes.push(fix());
        }
    }

    /// What was added since the last time.
    pub(crate) fn take(&mut self) -> Vec<Fix> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
