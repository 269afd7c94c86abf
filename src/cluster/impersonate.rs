//! Acting as a service account of a user's namespace: where a user chooses what is done, it is done with
//! that account's rights, never with Rampart's own.

use std::collections::HashMap;

use kube::{Client, Config};
use parking_lot::Mutex;

use super::{Error, Result, client};
use crate::runtime::metrics::Metrics;

/// Clients kept for reuse; one above, and all are made anew.
const KEPT: usize = 256;

/// Makes clients that act as service accounts.
pub struct Impersonator {
    config: Config,
    metrics: Metrics,
    clients: Mutex<HashMap<String, Client>>,
}

impl Impersonator {
    /// Impersonates from the operator's own configuration.
    #[must_use]
    pub fn new(config: Config, metrics: Metrics) -> Self {
        Self { config, metrics, clients: Mutex::default() }
    }

    /// A client that acts as a service account. The API server adds the groups that the account has.
    ///
    /// # Errors
    /// When the operator's own configuration is not usable.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<Client> {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&user) {
            return Ok(client.clone());
        }
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.clone());
        config.auth_info.impersonate_groups = None;
        let made = client::client(config, &self.metrics)
            .map_err(|error| Error::Api { doing: format!("acting as {user}"), source: Box::new(error) })?;
        if clients.len() >= KEPT {
            clients.clear();
        }
        clients.insert(user, made.clone());
        Ok(made)
    }
}
