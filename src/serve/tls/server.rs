//! The certificate that is served now, swapped while connections go on.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::ring::{cipher_suite, default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The certificate that is served now; none before the first was made.
#[derive(Clone, Default)]
pub struct Leaf {
    served: Arc<ArcSwapOption<CertifiedKey>>,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").finish_non_exhaustive()
    }
}

impl Leaf {
    /// Serves another certificate from now on.
    ///
    /// # Errors
    /// When certificate or key can't be read.
    pub fn serve(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = any_supported_type(&PrivateKeyDer::from_pem_slice(key.as_bytes())?)?;
        self.served.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served.load_full()
    }
}

/// TLS 1.3 preferred, 1.2 the least, and AEAD suites alone (RFC 9325, sections 3.1 and 4.2). HTTP/1.1 alone, as API
/// servers ask webhooks (`k8s.io/apiserver`, pkg/util/webhook/client.go).
///
/// # Errors
/// When the provider has none of the versions, which does not happen.
pub fn server_config(leaf: Leaf) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(leaf));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
