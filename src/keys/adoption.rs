//! The proof that Rampart made a version Secret: after a restore that lost the status, a Secret is
//! adopted only with it, so that nobody can plant a key that they know.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Spec, format::id_from};

/// What a version of a key is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The ApiKey.
    pub spec: &'a Spec,
    /// Number of the version.
    pub version: i64,
    /// Public id of the key.
    pub id: &'a str,
    /// Digest of the key.
    pub digest: &'a str,
    /// When it was made, as its Secret says: who makes that anew gives it no more time.
    pub created_at: &'a str,
}

/// The MAC key, kept in the Secret `rampart-adoption`.
#[derive(Clone)]
pub struct AdoptionKey(zeroize::Zeroizing<Vec<u8>>);

impl AdoptionKey {
    /// Least length in bytes.
    pub const LENGTH: usize = 32;

    /// Takes a MAC key, if it is long enough.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let bytes = zeroize::Zeroizing::new(bytes);
        (bytes.len() >= Self::LENGTH).then_some(Self(bytes))
    }

    /// HMAC-SHA-256 (RFC 2104) over everything that the key is bound to, in hex.
    #[must_use]
    pub fn mac(&self, binding: &Binding<'_>) -> String {
        self.over(binding).map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    /// Whether a MAC is right, in constant time.
    #[must_use]
    pub fn verify(&self, binding: &Binding<'_>, mac: &str) -> bool {
        let Ok(bytes) = hex::decode(mac) else { return false };
        self.over(binding).is_some_and(|mac| mac.verify_slice(&bytes).is_ok())
    }

    /// The public id of an imported token: the same whenever it is offered in a namespace, so that one that has ended
    /// there is known by its tombstone. Without the MAC key nobody can tell a token's id, or try tokens by it.
    #[must_use]
    pub fn token_id(&self, namespace: &str, digest: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        // No binding of a version begins with a length of zero.
        for part in ["", "imported", namespace, digest] {
            update(&mut mac, part);
        }
        let bytes = mac.finalize().into_bytes();
        let start = bytes.first_chunk::<8>().copied().unwrap_or_default();
        id_from(&start)
    }

    fn over(&self, binding: &Binding<'_>) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        let version = binding.version.to_string();
        let spec = binding.spec;
        let fixed = [&spec.namespace, &spec.name, &spec.owner.customer_id, &version];
        // A time comes first, which is no namespace: proofs of before had none, and are none any more.
        let parts = [binding.created_at].into_iter().chain(fixed.into_iter().map(String::as_str));
        for part in parts.chain([binding.id, binding.digest]).chain(spec.audiences.iter().map(String::as_str)) {
            update(&mut mac, part);
        }
        Some(mac)
    }
}

/// The length before the part, so that no two lists of them read the same.
fn update(mac: &mut Hmac<Sha256>, part: &str) {
    mac.update(&(part.len() as u64).to_be_bytes());
    mac.update(part.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Caps;

    #[test]
    fn a_proof_is_of_all_that_a_key_is_bound_to_and_of_when_it_was_made() {
        let spec = |name: &str, audience: &str| {
            let key = serde_json::json!({
                "metadata": {"name": name, "namespace": "n"},
                "spec": {"owner": {"customerId": "n"}, "audiences": [audience], "role": "Viewer", "prefix": "ab",
                         "secret": {"name": "s"}},
            });
            Spec::parse(&serde_json::from_value(key).unwrap(), &Caps::default()).unwrap()
        };
        let (ours, other, elsewhere) = (spec("k", "a"), spec("l", "a"), spec("k", "b"));
        let is = Binding { spec: &ours, version: 1, id: "id", digest: "digest", created_at: "2026-01-01T00:00:00Z" };
        let key = AdoptionKey::new(vec![7; 32]).unwrap();
        let mac = key.mac(&is);
        assert!(key.verify(&is, &mac));
        for no in [
            Binding { spec: &other, ..is },
            Binding { spec: &elsewhere, ..is },
            Binding { version: 2, ..is },
            Binding { id: "di", ..is },
            Binding { digest: "other", ..is },
            Binding { created_at: "2026-01-02T00:00:00Z", ..is },
            Binding { created_at: "", ..is },
        ] {
            assert!(!key.verify(&no, &mac), "{no:?}");
        }
        assert!(!AdoptionKey::new(vec![8; 32]).unwrap().verify(&is, &mac));
    }
}
