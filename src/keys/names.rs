//! Names and permissions with a wildcard at the end.

use std::fmt;

/// Names that a policy lists: each as it is, or all that begin with what stands before a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// Reads names; the problem is of the first that has a wildcard elsewhere than at its end.
    ///
    /// # Errors
    /// The index of the name.
    pub fn parse(names: &[String]) -> Result<Self, usize> {
        let is_bad = |name: &String| name.is_empty() || name.strip_suffix('*').unwrap_or(name).contains('*');
        names.iter().position(is_bad).map_or_else(|| Ok(Self(names.to_vec())), Err)
    }

    /// Whether a name is one of them.
    #[must_use]
    pub fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => known == name,
        })
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Whether who has the one permission has the other, too: `orders.*` covers `orders.read`, and not `orders`.
#[must_use]
pub fn covers(granted: &str, asked: &str) -> bool {
    match granted.strip_suffix('*') {
        Some("") => true,
        // `models.*` keeps its dot: it is no permission for `modelsmith`.
        Some(above) => above.ends_with('.') && asked.len() > above.len() && asked.starts_with(above),
        None => granted == asked,
    }
}

/// The permissions that both have.
#[must_use]
pub fn common(one: &[String], other: &[String]) -> Vec<String> {
    let within = |some: &[String], all: &[String]| -> Vec<String> {
        some.iter().filter(|asked| all.iter().any(|granted| covers(granted, asked))).cloned().collect()
    };
    let mut both = within(one, other);
    both.extend(within(other, one));
    both.sort();
    both.dedup();
    both
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(ToOwned::to_owned).collect()
    }

    #[rstest]
    #[case("orders-api", "orders-api", true)]
    #[case("orders-api", "orders-api-2", false)]
    #[case("orders-*", "orders-api", true)]
    #[case("orders-*", "orders-", true)]
    #[case("orders-*", "order", false)]
    #[case("*", "anything", true)]
    #[case("a b*", "b1", true)]
    fn a_wildcard_stands_for_what_follows(#[case] names: &str, #[case] name: &str, #[case] is_one: bool) {
        assert_eq!(Names::parse(&list(names)).unwrap().contain(name), is_one);
    }

    #[rstest]
    #[case("a b*c", 1)]
    #[case("**", 0)]
    fn a_wildcard_stands_only_at_the_end(#[case] names: &str, #[case] bad: usize) {
        assert_eq!(Names::parse(&list(names)), Err(bad));
    }

    #[rstest]
    #[case("orders.read", "orders.read", true)]
    #[case("orders.*", "orders.read", true)]
    #[case("orders.*", "orders.lines.read", true)]
    #[case("orders.*", "orders.*", true)]
    #[case("orders.*", "orders", false)]
    #[case("orders.*", "ordersx.read", false)]
    #[case("orders.read", "orders.*", false)]
    #[case("*", "orders.*", true)]
    fn permissions_cover_what_is_below(#[case] granted: &str, #[case] asked: &str, #[case] is_covered: bool) {
        assert_eq!(covers(granted, asked), is_covered);
    }

    #[rstest]
    #[case("orders.*", "orders.read users.read", "orders.read")]
    #[case("*", "orders.* users.read", "orders.* users.read")]
    #[case("a.read", "b.read", "")]
    fn the_common_permissions_are_the_narrower_ones(#[case] one: &str, #[case] other: &str, #[case] both: &str) {
        assert_eq!(common(&list(one), &list(other)), list(both));
        assert_eq!(common(&list(other), &list(one)), list(both));
    }
}
