//! A Pod as checks see it.

use std::{borrow::Cow, fmt::Display, ops::Deref};

use crate::{
    ContainerKind, Excepted, Fix, Path, Pod,
    container::{Container, SecurityContext},
};

/// A Pod with the containers of all three lists in one, gathered once for all checks.
pub struct View<'p, 'a> {
    pod: &'p Pod<'a>,
    containers: Vec<Placed<'p, 'a>>,
    is_partial: bool,
    excepts: Excepts<'p>,
}

/// Says what is excepted, if something is.
type Excepts<'p> = Option<&'p dyn Fn(Excepted<'_>) -> bool>;

/// A container, with its list and its index there.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'p, 'a> {
    pub(crate) kind: ContainerKind,
    pub(crate) index: usize,
    pub(crate) container: &'p Container<'a>,
    excepts: Excepts<'p>,
}

/// Where checks put what would make the Pod pass, if anybody wants to know.
pub struct Fixes(Option<Vec<Fix>>);

impl<'p, 'a> View<'p, 'a> {
    pub(crate) fn of(pod: &'p Pod<'a>) -> Self {
        Self { pod, containers: pod.containers(), is_partial: false, excepts: None }
    }

    /// The same Pod without what is excepted.
    pub(crate) fn without<'q>(&self, excepted: &'q dyn Fn(Excepted<'_>) -> bool) -> View<'q, 'a>
    where
        'p: 'q,
    {
        let rest = self.containers().filter(|it| !excepted(Excepted::Container(it.kind, it.index)));
        let excepts = Some(excepted);
        let containers: Vec<_> = rest.map(|it| Placed { excepts, ..it }).collect();
        let is_partial = containers.len() < self.containers.len();
        View { pod: self.pod, containers, is_partial, excepts }
    }

    /// Whether some of the Pod's containers are excepted: what is set for the whole Pod is set for them, too.
    pub(crate) const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Whether a value of the Pod as a whole is to be overlooked.
    pub(crate) fn excepts(&self, value: &str) -> bool {
        self.excepts.is_some_and(|excepts| excepts(Excepted::Value(value)))
    }

    /// Every container, in the order in which the reference names them.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Placed<'p, 'a>> + Clone {
        self.containers.iter().copied()
    }
}

impl<'a> Deref for View<'_, 'a> {
    type Target = Pod<'a>;

    fn deref(&self) -> &Pod<'a> {
        self.pod
    }
}

impl<'p, 'a> Placed<'p, 'a> {
    pub(crate) const fn new(kind: ContainerKind, index: usize, container: &'p Container<'a>) -> Self {
        Self { kind, index, container, excepts: None }
    }

    /// Whether a value of it is to be overlooked.
    pub(crate) fn excepts(self, value: impl Display) -> bool {
        self.excepts.is_some_and(|excepts| excepts(Excepted::ValueOf(self.kind, self.index, &value.to_string())))
    }

    pub(crate) fn name(self) -> &'p str {
        &self.container.name
    }

    /// Its security settings.
    pub(crate) const fn context(self) -> Option<&'p SecurityContext<'a>> {
        self.container.context()
    }

    /// A field of it.
    pub(crate) fn field(self, field: impl Into<Cow<'static, str>>) -> Path {
        Path::container(self.kind, self.index, field)
    }
}

impl Fixes {
    pub(crate) const fn unwanted() -> Self {
        Self(None)
    }

    pub(crate) const fn wanted() -> Self {
        Self(Some(vec![]))
    }

    /// Adds fixes; they are only made where they are wanted.
    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = Fix>) {
        if let Some(fixes) = &mut self.0 {
            fixes.extend(more);
        }
    }

    /// What was added since the last time.
    pub(crate) fn take(&mut self) -> Vec<Fix> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
