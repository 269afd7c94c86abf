//! One step of an ApiKey: one write, and what it has made.

use futures::future;

use super::ApiKeys;
use crate::{
    api::{ApiKey, Hooks},
    cluster::{Error, Result, kept_secrets::KeptSecrets, key_store::KeyStore, workloads},
    controllers::Next,
    keys::{Made, Observed, Spec, Step, decide},
    runtime::clock,
};

/// What came of a step.
pub(super) enum Taken {
    /// This, and all else is as it was seen.
    Made(Box<Made>),
    /// Something; what is there now is to be looked at.
    Other,
    /// There was nothing to do now.
    Nothing(Next),
}

/// Whether nothing but the status, and what was made of it, says what comes next.
fn is_plain(spec: &Spec) -> bool {
    spec.imported.is_none() && spec.restart_targets.is_empty() && spec.hooks == Hooks::default()
}

impl ApiKeys {
    /// Ends the records of a revoked key before anything else is looked at: verifiers are to know at once.
    pub(super) async fn end_revoked(&self, key: &mut ApiKey, (spec, kept): (&Spec, &KeptSecrets)) -> Result<()> {
        if spec.revoked.is_none() {
            return Ok(());
        }
        let store = self.store(spec, kept);
        let seen = store.observe_records(key.status.clone().unwrap_or_default()).await?;
        let step = decide(spec, &seen, clock::now());
        // All else is decided by all else.
        if matches!(step, Step::EndRecord { .. })
            && let Err(error) = self.take(key, (spec, kept), &seen, &step).await
        {
            return Err(self.told(key, (spec, &store.hear(seen)), &step, error).await);
        }
        Ok(())
    }

    /// Takes one step.
    pub(super) async fn take(
        &self,
        key: &mut ApiKey,
        (spec, kept): (&Spec, &KeptSecrets),
        seen: &Observed,
        step: &Step,
    ) -> Result<Taken> {
        let store = self.store(spec, kept);
        let mut made = None;
        match step {
            Step::Remember(status) => {
                self.report(key, spec, seen, (**status).clone(), (step, None)).await?;
                self.herald().remembered(key, spec, seen, status).await;
                // Else it is another Job, workload or token that matters now.
                made = key.status.clone().filter(|_| is_plain(spec)).map(Made::Status);
            }
            Step::CreateSecret { n } => {
                let secret = store.create_secret(*n).await?;
                // Another token may be supplied by now than the one that was seen.
                made = secret.filter(|_| spec.imported.is_none()).map(|secret| Made::Secret(*n, secret));
            }
            Step::CreateRecord { n, standing } => {
                let secret = seen.secrets.get(n).ok_or_else(|| Error::Unexpected("a record without a key".into()))?;
                let record = store.create_record(*n, secret, standing).await?;
                made = record.map(|record| Made::Record(secret.id.clone(), record));
            }
            Step::StartJob(job) => {
                // Without a verifier there is nobody to ask.
                let verifier = self.settings.selftest.verifier.as_deref().filter(|_| !seen.verifiers.is_empty());
                let started = store.start_job(job, &self.settings.selftest.image, verifier).await?;
                made = started.then(|| Made::Job(job.name(spec)));
            }
            Step::WriteConsumer { current, previous } => {
                made = Some(Made::Consumer(store.write_consumer(*current, *previous).await?));
            }
            Step::Restart { target, version, others } => {
                workloads::restart(&self.context.client, spec, target, (version, others)).await?;
            }
            Step::UpdateRecord { id, standing } => store.update_record(id, standing).await?,
            Step::EndRecord { .. } => end(&store, seen, step).await?,
            Step::DeleteSecret { n } => store.delete_secret(*n).await?,
            Step::AwaitVerifiers { .. }
            | Step::AwaitJob(_)
            | Step::Stuck { .. }
            | Step::Rest { .. }
            | Step::Refuse(_) => {
                self.report(key, spec, seen, seen.status.clone(), (step, None)).await?;
                return Ok(Taken::Nothing(self.next(key, spec, seen, step)));
            }
        }
        self.herald().taken(key, spec, seen, step).await;
        Ok(made.map_or(Taken::Other, |made| Taken::Made(Box::new(made))))
    }
}

/// Ends a record; those of a revoked key all together: however many versions live, verifiers are to know at once.
async fn end(store: &KeyStore<'_>, seen: &Observed, first: &Step) -> Result<()> {
    let (spec, mut seen, mut next, mut ends) = (store.spec, seen.clone(), first.clone(), vec![]);
    while let Step::EndRecord { id, n, state, replaced_by, expires_at } = next {
        let known = seen.records.get_mut(&id).map(|record| record.standing.state = state);
        ends.push(async move { store.end_record((&id, n), state, replaced_by, expires_at).await });
        if spec.revoked.is_none() || known.is_none() {
            break;
        }
        next = decide(spec, &seen, clock::now());
    }
    // What one of them meets keeps no other from its end.
    future::join_all(ends).await.into_iter().collect()
}
