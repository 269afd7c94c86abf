//! The certificates of an instance.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// First address of the service range: the `kubernetes` Service.
const FIRST_SERVICE_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// A certificate authority that writes what it issues into a directory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    /// The CA certificate, PEM.
    pub ca_pem: String,
}

/// A client certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

fn params(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    // Far apart, so that a test may move the clock of the operator by years.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2046, 1, 1);
    params
}

impl Authority {
    /// Makes a new authority and writes `ca.crt` and `ca.key`.
    ///
    /// # Errors
    /// When a key can't be made or a file can't be written.
    pub fn create(dir: &Path) -> Result<Self> {
        let mut ca = params("rampart-e2e-ca", None);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let ca_pem = ca.self_signed(&key)?.pem();
        write(dir, "ca.crt", &ca_pem)?;
        write(dir, "ca.key", &key.serialize_pem())?;
        Ok(Self { issuer: Issuer::new(ca, key), dir: dir.to_owned(), ca_pem })
    }

    /// Issues the API server's serving certificate as `apiserver.crt` and `apiserver.key`, also for the address
    /// of a real node.
    ///
    /// # Errors
    /// When a key can't be made or a file can't be written.
    pub fn serving(&self, node: Option<Ipv4Addr>) -> Result<()> {
        let mut params = params("kube-apiserver", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"] {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        let addresses = [Ipv4Addr::LOCALHOST.into(), FIRST_SERVICE_IP].into_iter().chain(node.map(IpAddr::from));
        params.subject_alt_names.extend(addresses.map(SanType::IpAddress));
        self.issue("apiserver", &params).map(drop)
    }

    /// Issues a client certificate as `NAME.crt` and `NAME.key`.
    ///
    /// # Errors
    /// When a key can't be made or a file can't be written.
    pub fn client(&self, name: &str, common_name: &str, organization: Option<&str>) -> Result<ClientCertificate> {
        let mut params = params(common_name, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, &params)
    }

    /// Writes the pair that signs service account tokens, `sa.key` and `sa.pub`.
    ///
    /// # Errors
    /// When a key can't be made or a file can't be written.
    pub fn service_accounts(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        write(&self.dir, "sa.key", &key.serialize_pem())?;
        write(&self.dir, "sa.pub", &key.public_key_pem())
    }

    fn issue(&self, name: &str, params: &CertificateParams) -> Result<ClientCertificate> {
        let key = KeyPair::generate()?;
        let issued =
            ClientCertificate { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() };
        write(&self.dir, &format!("{name}.crt"), &issued.certificate)?;
        write(&self.dir, &format!("{name}.key"), &issued.key)?;
        Ok(issued)
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
