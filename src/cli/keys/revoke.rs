//! `rampart keys revoke`.

use std::{
    io::{BufRead as _, IsTerminal as _},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    super::{BAD_INPUT, connection::block_on},
    place::Place,
    wait::{Look, refused, state, until},
};
use crate::{
    api::{ApiKey, GoDuration},
    keys::format::mask_keys,
};

/// As the CRD has it.
const LONGEST_REASON: usize = 256;
/// Of an imported token: what is left to do.
const ISSUER: &str = "The token is valid until you revoke it at the system that issued it, too";

/// Ends every version of a key at once and for ever. There is no overlap: who uses it is refused from then on.
///
/// Sets `spec.revocation`, which can't be taken back. Waits until the operator says that it is done. Exits 1 where that
/// was not in time; the revocation stands all the same. Of an imported token Rampart's copies alone go: revoke it at the
/// system that issued it, too.
#[derive(Debug, Args)]
pub(in crate::cli) struct Revoke {
    /// Name of the ApiKey.
    name: String,
    /// Why: Leaked, Compromised, NoLongerNeeded, or a word of your own. Everybody who may read the ApiKey reads it.
    #[arg(long)]
    reason: String,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Do not wait until it is done.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "5m")]
    timeout: GoDuration,
    #[command(flatten)]
    place: Place,
}

impl Revoke {
    pub(super) fn run(self) -> Result<ExitCode> {
        let reason = self.reason.trim();
        if let Some(problem) = problem(reason) {
            eprintln!("rampart: --reason {problem}");
            return Ok(ExitCode::from(BAD_INPUT));
        }
        block_on(async {
            let key = self.place.key(&self.name).await?;
            let Some(live) = key.read().await? else { return Ok(ExitCode::from(BAD_INPUT)) };
            let place = format!("{}/{}", key.namespace, key.name);
            let mut generation = live.metadata.generation;
            if let Some(before) = &live.spec.revocation {
                eprintln!("{place} is revoked already: {}", before.reason);
            } else {
                if !self.yes && !agreed(&place, &live)? {
                    return Ok(ExitCode::from(BAD_INPUT));
                }
                let asked = |live: &ApiKey| {
                    // Whoever was faster said why.
                    let reason = live.spec.revocation.as_ref().map_or(reason, |before| &before.reason);
                    Some(json!({"revocation": {"reason": reason}}))
                };
                let Some((_, after)) = key.change(asked).await? else { return Ok(ExitCode::from(BAD_INPUT)) };
                generation = after.metadata.generation;
                eprintln!("the revocation of {place} is asked for, and can't be taken back");
            }
            if self.no_wait {
                if live.spec.imported().is_some() {
                    eprintln!("{ISSUER}");
                }
                return Ok(ExitCode::SUCCESS);
            }
            until(&key, self.timeout.get(), |live| look(live, generation)).await
        })
    }
}

fn problem(reason: &str) -> Option<&'static str> {
    if reason.is_empty() || reason.chars().count() > LONGEST_REASON {
        Some("must say why, in 256 characters at the most")
    } else if mask_keys(reason) != reason {
        Some("holds a key: everybody who may read the ApiKey would read it; name its id instead")
    } else if reason.chars().any(char::is_control) {
        Some("must be one line of text")
    } else {
        None
    }
}

/// Asks on a terminal; elsewhere nobody can answer.
fn agreed(place: &str, live: &ApiKey) -> Result<bool> {
    let versions = live.status.as_ref().map(|status| status.versions.as_slice()).unwrap_or_default();
    let ids: Vec<&str> = versions.iter().filter(|it| !it.state.has_ended()).map(|it| it.id.as_str()).collect();
    let ids = if ids.is_empty() { "no version is known".into() } else { format!("ids {}", ids.join(", ")) };
    if !std::io::stdin().is_terminal() {
        eprintln!("rampart: {place} ({ids}) is not revoked: it can't be taken back, so say --yes");
        return Ok(false);
    }
    eprintln!("{}", warning(place, &ids, live));
    eprint!("Write the name of the ApiKey to go on: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let is_so = answer.trim() == place.rsplit('/').next().unwrap_or(place);
    if !is_so {
        eprintln!("rampart: nothing was changed");
    }
    Ok(is_so)
}

/// What revoking it does. Who has a token of another system is refused by nobody here.
fn warning(place: &str, ids: &str, live: &ApiKey) -> String {
    let what = format!("Every version of {place} ({ids}) ends at once and for ever");
    match live.spec.imported() {
        Some(_) => format!("{what}: consumers lose it. {ISSUER}."),
        None => format!("{what}; who uses it is refused from then on."),
    }
}

fn look(live: &ApiKey, generation: Option<i64>) -> Look {
    let status = live.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= generation;
    let ended = seen && status.versions.iter().all(|it| it.state.has_ended()) && status.next_version.is_none();
    let verifiers = status.verifiers.clone().unwrap_or_default();
    if ended && live.spec.imported().is_some() {
        return Look::Done(format!("Rampart has no copy any more. {ISSUER}"));
    }
    if ended && verifiers.up_to_date >= verifiers.desired {
        let told = match verifiers.desired {
            0 => "no verifier has reported lately".into(),
            all => format!("all {all} verifiers have it"),
        };
        return Look::Done(format!("no version is valid any more; {told}"));
    }
    if ended {
        return Look::Waiting(format!("{} of {} verifiers have it", verifiers.up_to_date, verifiers.desired));
    }
    // A revoked key is stalled for good: only what is still valid makes that a failure.
    match refused(&status, generation) {
        Some(why) => Look::Failed(format!("{why} (the revocation stands)")),
        None => Look::Waiting(state(live.status.as_ref(), generation)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::keys::format::ApiKeyText;

    #[test]
    fn a_reason_says_why_and_holds_no_key() {
        let key = ApiKeyText::new("acme", "0123abcd", &[7; 32]);
        assert_eq!(problem("Leaked in build log 17"), None);
        for bad in ["", &"a".repeat(257), "two\nlines", &format!("found {} on GitHub", key.expose())] {
            assert!(problem(bad).is_some_and(|said| !said.contains(key.expose())), "{bad}");
        }
    }

    #[test]
    fn nobody_is_told_that_an_imported_token_is_valid_no_more() {
        let key = |source: Value| -> ApiKey {
            let spec =
                json!({"owner": {"customerId": "shop"}, "audiences": ["a"], "secret": {"name": "s"}, "source": source});
            let ended = json!({"n": 1, "id": "a", "state": "Revoked", "createdAt": "2026-01-01T00:00:00Z",
                               "expiresAt": "2026-02-01T00:00:00Z"});
            serde_json::from_value(json!({"metadata": {"name": "k", "generation": 3}, "spec": spec,
                "status": {"observedGeneration": 3, "versions": [ended]}}))
            .unwrap()
        };
        let imported = key(json!({"imported": {"secretRef": {"name": "i", "key": "token"}, "format": "sk_[a-z]{40}"}}));
        let done = Look::Done(format!("Rampart has no copy any more. {ISSUER}"));
        assert_eq!(look(&imported, Some(3)), done);
        assert!(warning("shop/k", "ids a", &imported).contains(ISSUER));
        let generated = warning("shop/k", "ids a", &key(Value::Null));
        assert!(generated.contains("refused from then on") && !generated.contains(ISSUER), "{generated}");
    }

    #[test]
    fn it_is_done_when_nothing_lives_and_verifiers_have_it() {
        let look = |status: Value| {
            let key = json!({"metadata": {"name": "k", "generation": 3}, "spec": {"owner": {"customerId": "shop"},
                "audiences": ["a"], "role": "Viewer", "prefix": "shop", "secret": {"name": "s"}}, "status": status});
            super::look(&serde_json::from_value(key).unwrap(), Some(3))
        };
        let status = |state: &str, generation: i64, up_to_date: i32| {
            json!({"observedGeneration": generation, "verifiers": {"desired": 2, "upToDate": up_to_date}, "versions": [{
                "n": 1, "id": "a", "state": state, "createdAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-02-01T00:00:00Z"}]})
        };
        assert_eq!(
            look(status("Revoked", 3, 2)),
            Look::Done("no version is valid any more; all 2 verifiers have it".into())
        );
        assert_eq!(look(status("Revoked", 3, 1)), Look::Waiting("1 of 2 verifiers have it".into()));
        assert!(matches!(look(status("Revoked", 2, 2)), Look::Waiting(_)), "an older status");
        assert!(matches!(look(status("Current", 3, 2)), Look::Waiting(_)));
        assert!(matches!(look(json!({})), Look::Waiting(said) if said.contains("may not run")));
    }
}
