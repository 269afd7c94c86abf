//! The proof that Rampart made a version Secret: after a restore that lost the status, a Secret is
//! adopted only with it, so that nobody can plant a key that they know.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Spec;

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

    fn over(&self, binding: &Binding<'_>) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        let version = binding.version.to_string();
        let spec = binding.spec;
        let fixed = [&spec.namespace, &spec.name, &spec.owner.customer_id, &version];
        let parts = fixed.into_iter().map(String::as_str).chain([binding.id, binding.digest]);
        // Lengths before the parts, so that no two bindings read the same.
        for part in parts.chain(spec.audiences.iter().map(String::as_str)) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Some(mac)
    }
}
