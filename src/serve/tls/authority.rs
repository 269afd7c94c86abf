//! The CA: what its Secret holds, and what is to be done about it, as a pure function of the time.
//!
//! A new CA is added to the bundle long before the old one ends, signs only after the API server has
//! been told to trust it, and the old one stays in the bundle until it ends.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

/// How long a CA lives.
pub(super) const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// A successor is made when this much is left.
const CA_OVERLAP: SignedDuration = SignedDuration::from_hours(120 * 24);
/// How long a new CA is trusted before it signs.
const PROPAGATION: SignedDuration = SignedDuration::from_hours(1);
/// How long a leaf lives.
const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A leaf is made anew when this much is left.
pub(super) const LEAF_RENEWAL: SignedDuration = SignedDuration::from_hours(4 * 24);
/// Clocks of other machines may be behind.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A CA and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ca {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Authority {
    /// The CA that signs.
    pub(super) signing: Option<Ca>,
    /// The CA that will.
    pub(super) next: Option<Ca>,
    /// CAs that signed before and have not ended, PEM.
    pub(super) retired: Vec<String>,
}

/// What is to be done about the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Make the first CA, or one in the place of one that can't be used.
    Create,
    /// Add a successor.
    AddNext,
    /// Let the successor sign.
    Promote,
    /// Forget CAs that have ended.
    DropEnded,
}

/// When a certificate begins, and when it ends; in the past, if it is none.
pub(super) fn life(certificate: &str) -> (Timestamp, Timestamp) {
    let life = || {
        let pem = Pem::iter_from_buffer(certificate.as_bytes()).next()?.ok()?;
        let certificate = pem.parse_x509().ok()?;
        let validity = certificate.validity();
        let [from, until] = [validity.not_before, validity.not_after].map(|time| time.timestamp());
        Some((Timestamp::from_second(from).ok()?, Timestamp::from_second(until).ok()?))
    };
    life().unwrap_or((Timestamp::MIN, Timestamp::MIN))
}

fn ends(certificate: &str) -> Timestamp {
    life(certificate).1
}

impl Authority {
    /// Every CA that the API server is to trust, newest first.
    pub(super) fn bundle(&self) -> String {
        let current = [&self.next, &self.signing].into_iter().flatten().map(|ca| ca.certificate.as_str());
        current.chain(self.retired.iter().map(String::as_str)).collect()
    }

    /// Decides, given the bundle that the API server is known to trust, whichever webhook it asks.
    pub(super) fn decide(&self, trusted: Option<&str>, now: Timestamp) -> Step {
        let Some(signing) = &self.signing else { return Step::Create };
        let (begins, end) = life(&signing.certificate);
        if begins.duration_since(now) > SKEW {
            // Made by a clock that was ahead: nobody believes what it signs.
            return Step::Create;
        }
        let left = end.duration_since(now);
        if let Some(next) = &self.next {
            let is_trusted = trusted.is_some_and(|bundle| bundle.contains(next.certificate.trim()));
            let made = ends(&next.certificate).checked_sub(CA_LIFETIME).unwrap_or(Timestamp::MAX);
            // Every API server must have heard of it, not only the one that was told.
            let is_known = now.duration_since(made) >= PROPAGATION;
            return match (is_trusted, left > SignedDuration::ZERO) {
                (true, true) if !is_known => Step::Keep,
                (true, _) => Step::Promote,
                (false, true) => Step::Keep,
                (false, false) => Step::Create,
            };
        }
        if left <= SignedDuration::ZERO {
            return Step::Create;
        }
        if left < CA_OVERLAP {
            return Step::AddNext;
        }
        let ended = self.retired.iter().any(|certificate| ends(certificate) <= now);
        if ended { Step::DropEnded } else { Step::Keep }
    }

    /// What the Secret is to hold after a step.
    pub(super) fn after(mut self, step: Step, now: Timestamp) -> Result<Self, rcgen::Error> {
        match step {
            Step::Keep => {}
            Step::Create => {
                // What they signed is served until a replica has heard of this one.
                let before = [self.next.take(), self.signing.take()].into_iter().flatten().map(|ca| ca.certificate);
                self.retired.extend(before);
                self.retired.retain(|certificate| ends(certificate) > now);
                self.signing = Some(Ca::make(now)?);
            }
            Step::AddNext => self.next = Some(Ca::make(now)?),
            Step::Promote => {
                self.retired.extend(self.signing.take().map(|ca| ca.certificate));
                self.signing = self.next.take();
            }
            Step::DropEnded => self.retired.retain(|certificate| ends(certificate) > now),
        }
        Ok(self)
    }
}

fn validity(params: &mut CertificateParams, from: Timestamp, lifetime: SignedDuration) -> Option<()> {
    let time = |at: Timestamp| rcgen::date_time_ymd(1970, 1, 1).checked_add(time_of(at));
    params.not_before = time(from.checked_sub(SKEW).ok()?)?;
    params.not_after = time(from.checked_add(lifetime).ok()?)?;
    Some(())
}

fn time_of(at: Timestamp) -> time::Duration {
    time::Duration::seconds(at.as_second())
}

impl Ca {
    fn make(now: Timestamp) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("rampart-webhook-ca-{}", now.as_second()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, now, CA_LIFETIME).ok_or(rcgen::Error::Time)?;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Signs a leaf for these names: certificate and key, PEM.
    pub(super) fn sign(&self, names: &[SanType], now: Timestamp) -> Result<(String, Zeroizing<String>), rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "rampart-webhook");
        params.subject_alt_names = names.to_vec();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, now, LEAF_LIFETIME).ok_or(rcgen::Error::Time)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok((certificate, Zeroizing::new(key.serialize_pem())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    #[test]
    fn a_ca_is_followed_without_a_gap_in_trust() {
        let first = Authority::default().after(Step::Create, day(0)).unwrap();
        let mut authority = first.clone();
        assert_eq!(authority.decide(Some(&authority.bundle()), day(200)), Step::Keep);
        assert_eq!(authority.decide(Some(&authority.bundle()), day(250)), Step::AddNext);

        authority = authority.after(Step::AddNext, day(250)).unwrap();
        assert!(authority.signing == first.signing, "the old one still signs");
        assert_eq!(
            authority.decide(Some(&first.bundle()), day(250)),
            Step::Keep,
            "the API server does not know the new one yet"
        );
        assert_eq!(
            authority.decide(Some(&authority.bundle()), day(250)),
            Step::Keep,
            "not every API server may know it"
        );
        assert_eq!(authority.decide(Some(&authority.bundle()), day(251)), Step::Promote);

        authority = authority.after(Step::Promote, day(251)).unwrap();
        assert!(authority.signing != first.signing);
        assert!(authority.bundle().contains(&first.bundle()), "leaves of the old one are still trusted");
        assert_eq!(authority.decide(Some(&authority.bundle()), day(300)), Step::Keep);

        assert_eq!(authority.decide(Some(&authority.bundle()), day(366)), Step::DropEnded);
        authority = authority.after(Step::DropEnded, day(366)).unwrap();
        assert!(!authority.bundle().contains(&first.bundle()));
    }

    #[test]
    fn one_that_a_clock_made_that_was_ahead_is_replaced_and_stays_trusted() {
        let ahead = Authority::default().after(Step::Create, day(400)).unwrap();
        let trusted = ahead.bundle();
        assert_eq!(ahead.decide(Some(&trusted), day(0)), Step::Create);
        let authority = ahead.after(Step::Create, day(0)).unwrap();
        assert!(authority.bundle().contains(&trusted), "other replicas serve what it signed");
        assert_eq!(authority.decide(Some(&authority.bundle()), day(0)), Step::Keep);
    }

    #[test]
    fn one_that_ended_while_nobody_looked_is_replaced_at_once() {
        let authority = Authority::default().after(Step::Create, day(0)).unwrap();
        assert_eq!(authority.decide(Some(&authority.bundle()), day(400)), Step::Create);
        let junk = Authority {
            signing: Some(Ca { certificate: "junk".into(), key: Zeroizing::default() }),
            ..Authority::default()
        };
        assert_eq!(junk.decide(None, day(0)), Step::Create);
    }
}
