//! What is told where nothing new can be made: what an ApiKey asks for is refused, or what is written for it.

use jiff::SignedDuration;

use super::{ApiKeys, REFUSAL_CHECK, requested, waiting::waits};
use crate::{
    api::{ApiKey, GoDuration, Invalid, condition::Type},
    cluster::{Error, Result, status},
    controllers::Next,
    keys::{FORMAT_FIELD, Observed, Spec, Step, count_seldom, reached, refused, verifier_counts},
    runtime::clock,
};

impl ApiKeys {
    /// Tells why nothing new is made, and what else is known: no more than before where the spec can't be read.
    pub(super) async fn refuse(
        &self,
        key: &ApiKey,
        known: Option<(&Spec, &Observed, &Step)>,
        why: (&str, &str),
    ) -> Result<Next> {
        let now = clock::now();
        let mut status = key.status.clone().unwrap_or_default();
        status.observed_generation = key.metadata.generation;
        status.last_handled_reconcile_at = requested(key);
        let old = std::mem::take(&mut status.conditions);
        let ttl = known.map_or_else(|| ttl(key), |(spec, ..)| spec.ttl);
        let mut told = refused(key.metadata.generation, why, ttl, &status, now);
        if let Some((spec, seen, step)) = known {
            // Of a key in use they change all the time; by none of them it would be suspended as unused.
            count_seldom(spec, seen, &mut status, (self.settings.usage_interval, now));
            status.verifiers = verifier_counts(spec, seen);
            self.waiting.note(key, status.verifiers.as_ref().is_some_and(waits));
            reached(&mut told, spec, seen, &status, step, now);
        } else {
            let kinds = [Type::VerifiersSynced, Type::ConsumersUpdated].map(Type::as_str);
            for last in old.iter().filter(|it| kinds.contains(&it.type_.as_str())) {
                told.keep(last);
            }
        }
        status.conditions = told.carried_from(&old, now);
        status::report(&self.context.client, key, &status).await?;
        self.herald().ends_soon(key, &old, &status).await;
        self.herald().conflict(key, &old, &status.conditions).await;
        Ok(Next::After(REFUSAL_CHECK))
    }

    /// Hands back what kept a step from being taken. Where the API server refused it that is told: it may do so for ever.
    pub(super) async fn told(
        &self,
        key: &mut ApiKey,
        (spec, seen): (&Spec, &Observed),
        step: &Step,
        error: Error,
    ) -> Error {
        let Some(message) = refusal(step, &error, &self.settings.keys_namespace) else { return error };
        let told = self.report(key, spec, seen, seen.status.clone(), (step, Some(&message))).await;
        told.err().unwrap_or(error)
    }
}

/// Why nothing new is made of a spec that is only tolerated: by its own fault, or because caps allow less.
pub(super) fn reason(beyond: &Invalid) -> &'static str {
    if beyond.field == FORMAT_FIELD { "Invalid" } else { "NotPermitted" }
}

/// How long a version lives, where nothing else of the spec can be read.
fn ttl(key: &ApiKey) -> SignedDuration {
    let ttl = key.spec.ttl.unwrap_or(GoDuration::hours(8760));
    SignedDuration::try_from(ttl.get()).unwrap_or(SignedDuration::MAX)
}

/// What is told of a refusal, if it is one: never the API server's words about Secrets and records, which could quote
/// them.
fn refusal(step: &Step, error: &Error, keys_namespace: &str) -> Option<String> {
    let code = error.code()?;
    let of_record = matches!(step, Step::CreateRecord { .. } | Step::UpdateRecord { .. } | Step::EndRecord { .. });
    // Who changes a record that is gone by now looks again.
    if code == 404 && of_record && !matches!(step, Step::UpdateRecord { .. }) {
        return Some(format!(
            "no KeyRecord can be made: namespace {keys_namespace}, or the CRD keyrecords.rampart.dev, is missing: \
             install it again"
        ));
    }
    if !error.is_refusal() {
        return None;
    }
    let who = "a quota, a hold, an admission policy or missing rights refuse it";
    Some(match error {
        Error::Api { doing, .. } if of_record => format!("{doing}: the API server answered {code}: {who}"),
        Error::Secret { .. } => format!("{error}: {who}"),
        _ => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kube::core::Status;

    use super::*;
    use crate::api::RecordState;

    #[test]
    fn a_refusal_is_told_without_what_could_quote_a_key() {
        let end = Step::EndRecord {
            id: "0a".into(),
            n: 1,
            state: RecordState::Destroyed,
            replaced_by: None,
            expires_at: Timestamp::UNIX_EPOCH,
        };
        let told = |step: &Step, code: u16| {
            let source = Box::new(kube::Error::Api(Box::new(Status::failure("digest", "Invalid").with_code(code))));
            refusal(step, &Error::Api { doing: "writing".into(), source }, "rampart-keys").unwrap_or_default()
        };
        assert!(told(&end, 404).contains("namespace rampart-keys"));
        assert!(told(&end, 422).starts_with("writing: the API server answered 422: a quota"), "{}", told(&end, 422));
        assert_eq!(told(&Step::CreateSecret { n: 1 }, 422), "writing: digest");
        assert_eq!([401, 409, 500].map(|code| told(&end, code)), [""; 3]);
        assert_eq!(told(&Step::CreateSecret { n: 1 }, 404), "");
        let secret = Error::Secret { doing: "creating Secret s".into(), code: 403, reason: "Forbidden".into() };
        let told = refusal(&Step::CreateSecret { n: 1 }, &secret, "").unwrap();
        assert!(told.starts_with("creating Secret s: the API server answered 403 Forbidden: a quota"), "{told}");
    }
}
