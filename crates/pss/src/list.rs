//! Lists that are as long as they can be.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// Items of one list at the most: a pod of so many containers or volumes is larger than etcd takes (1.5 MiB). A text
/// that says `[{},{},...]` would take a hundred times its size.
const MOST: usize = 2000;

/// Reads a list of containers or volumes; `null` is none, as it is to the API server.
///
/// # Errors
/// When it is no list, or has more than 2,000 items.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    deserializer.deserialize_option(ListVisitor(PhantomData))
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST} items")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = vec![];
        while let Some(item) = items.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            list.push(item);
        }
        Ok(Some(list))
    }
}

#[cfg(test)]
mod tests {
    use super::MOST;
    use crate::Pod;

    #[test]
    fn a_list_that_no_pod_has_is_refused_before_it_is_kept() {
        let read = |field: &str, items: usize| {
            let items = vec!["{}"; items].join(",");
            serde_json::from_str::<Pod<'_>>(&format!(r#"{{"spec":{{"{field}":[{items}]}}}}"#)).map(drop)
        };
        for field in ["containers", "initContainers", "ephemeralContainers", "volumes"] {
            assert!(read(field, MOST).is_ok(), "{field}");
            let error = read(field, MOST + 1).unwrap_err().to_string();
            assert!(error.starts_with("invalid length 2001, expected a list of at most 2000 items"), "{error}");
        }
        assert!(serde_json::from_str::<Pod<'_>>(r#"{"spec":{"containers":null}}"#).is_ok());
    }
}
