//! Tokens that the user supplies, in a Secret of their own: read, and never written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::ListParams, core::PartialObjectMeta};

use super::{
    Result,
    error::{call, found, secret_call},
    key_store::KeyStore,
};
use crate::{
    api::{
        ApiKeyStatus, KeyRecord, RecordState,
        labels::{IMPORT, KEY_ID, MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME, TOKEN_EXPIRES_AT},
    },
    keys::{Fault, Import, SecretSeen, Token, TokenProblem, TokenText, read_end},
};

type Read<T> = std::result::Result<T, TokenProblem>;

impl KeyStore<'_> {
    /// The token that the user supplies, or why none can be taken; nothing for a key that is made here, or revoked.
    pub(super) async fn supplied(
        &self,
        status: &ApiKeyStatus,
        secrets: &BTreeMap<i64, SecretSeen>,
    ) -> Result<Option<Read<Token>>> {
        let Some(import) = self.spec.imported.as_ref().filter(|_| self.spec.revoked.is_none()) else { return Ok(None) };
        let token = match self.token(import).await? {
            Ok((token, _)) => token,
            Err(problem) => return Ok(Some(Err(problem))),
        };
        // What is a version already needs no second look.
        let pending = status.next_version.and_then(|n| secrets.get(&n));
        let mut known = status.versions.iter().map(|it| &it.id).chain(pending.map(|it| &it.id));
        let fault = if known.any(|id| *id == token.id) { None } else { self.fault(&token).await? };
        Ok(Some(fault.map_or(Ok(token), |fault| Err(import.problem(fault)))))
    }

    /// The token itself, to be copied.
    pub(super) async fn offered(&self, import: &Import) -> Result<Read<(Token, TokenText)>> {
        let (token, text) = match self.token(import).await? {
            Ok(read) => read,
            Err(problem) => return Ok(Err(problem)),
        };
        Ok(self.fault(&token).await?.map_or(Ok((token, text)), |fault| Err(import.problem(fault))))
    }

    async fn token(&self, import: &Import) -> Result<Read<(Token, TokenText)>> {
        let name = &import.secret;
        let secret = found(secret_call(|| format!("reading Secret {name}"), self.secrets().get(name)).await)?;
        Ok(read(import, secret.as_ref()).map_err(|fault| import.problem(fault)).map(|(text, ends)| {
            let digest = text.digest();
            (Token { id: self.adoption.token_id(&self.spec.namespace, &digest), digest, ends }, text)
        }))
    }

    /// What keeps a token that is strong enough from being taken.
    async fn fault(&self, token: &Token) -> Result<Option<Fault>> {
        let records: Api<KeyRecord> = Api::namespaced(self.client.clone(), self.keys_namespace);
        let id = &token.id;
        if let Some(record) = found(call(|| format!("reading KeyRecord {id}"), records.get(id)).await)? {
            return Ok(Some(match record.spec.state {
                RecordState::Revoked => Fault::Revoked,
                RecordState::Destroyed => Fault::Ended,
                RecordState::Active | RecordState::Deprecated | RecordState::Suspended => Fault::Taken,
            }));
        }
        let versions =
            ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}=ApiKey,{KEY_ID}={id}"));
        let versions = secret_call(|| "listing Secrets".into(), self.secrets().list_metadata(&versions)).await?;
        let is_others = |it: &PartialObjectMeta<Secret>| it.labels().get(OWNER_NAME) != Some(&self.spec.name);
        Ok(versions.items.iter().any(is_others).then_some(Fault::Taken))
    }
}

fn read(import: &Import, secret: Option<&Secret>) -> std::result::Result<(TokenText, Option<Timestamp>), Fault> {
    let secret = secret.ok_or(Fault::NoSecret)?;
    if secret.labels().get(MANAGED_BY).is_some_and(|it| it == MANAGER) {
        return Err(Fault::Made);
    }
    if secret.labels().get(IMPORT).is_none_or(|it| it != "true") {
        return Err(Fault::NotOptedIn);
    }
    let bytes = secret.data.as_ref().and_then(|data| data.get(&import.entry)).ok_or(Fault::NoEntry)?;
    let text = import.read(&bytes.0)?;
    let ends = secret.annotations().get(TOKEN_EXPIRES_AT).map(|at| read_end(at)).transpose()?;
    Ok((text, ends))
}
