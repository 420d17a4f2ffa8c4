//! TLS of a door: certificate and key from files, HTTP/2 and HTTP/1.1 by ALPN, and whose certificates clients must show.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::Env;

/// What a door is served over TLS with. A new certificate is read at the next start.
#[derive(Clone)]
pub struct Tls(pub(crate) TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

impl Env {
    /// TLS where the first two variables name a chain of certificates and its key, both PEM; none where neither is set.
    /// Where the third names certificates too, a client must show one that they vouch for: beside its credential, which
    /// alone says who calls. `None` when a problem was noted.
    pub fn tls(&mut self, certificate: &str, key: &str, client_ca: &str) -> Option<Option<Tls>> {
        let clients = self.optional(client_ca);
        let (chain, secret) = match (self.optional(certificate), self.optional(key)) {
            (None, None) if clients.is_none() => return Some(None),
            (None, None) => {
                self.problem(format!("{client_ca} needs {certificate} and {key}"));
                return None;
            }
            (Some(chain), Some(secret)) => (chain, secret),
            (Some(_), None) | (None, Some(_)) => {
                self.problem(format!("{certificate} and {key} must be set together"));
                return None;
            }
        };
        let chain = chain_of(Path::new(&chain)).map_err(|problem| self.problem(format!("{certificate} {problem}")));
        let secret = PrivateKeyDer::from_pem_file(&secret)
            .map_err(|_| self.problem(format!("{key} must name a file with a private key in PEM")));
        let clients = clients.map(|clients| {
            let clients = chain_of(Path::new(&clients)).map_err(str::to_owned).and_then(roots);
            clients.map_err(|problem| self.problem(format!("{client_ca} {problem}")))
        });
        let (chain, secret, clients) = (chain.ok()?, secret.ok()?, clients.transpose().ok()?);
        let tls = acceptor(chain, secret, clients).map_err(|problem| self.problem(format!("{key} {problem}")));
        tls.ok().map(Some)
    }
}

fn chain_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let wrong = "must name a file with a chain of certificates in PEM";
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(|_| wrong)?
        .collect::<Result<_, _>>()
        .map_err(|_| wrong)?;
    if chain.is_empty() { Err(wrong) } else { Ok(chain) }
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|error| format!("holds a certificate that can vouch for none: {error}"))?;
    }
    Ok(roots)
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<RootCertStore>,
) -> Result<Tls, &'static str> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3");
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.expect("there are roots, and no lists of revoked certificates"))
        }
    };
    let mut config = config
        .with_single_cert(chain, key)
        .map_err(|_| "does not fit the certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls(TlsAcceptor::from(Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_at_the_start() {
        let file = |name: &str, content: &str| {
            let path = std::env::temp_dir().join(format!("board3-tls-{}-{name}", std::process::id()));
            std::fs::write(&path, content).expect("a file can be written");
            path.to_str().expect("a path of text").to_owned()
        };
        let empty = file("empty", "");
        for (variables, told) in [
            (vec![], ""),
            (vec![("CERT", "x")], "CERT and KEY must be set together"),
            (vec![("KEY", "x")], "CERT and KEY must be set together"),
            (vec![("CA", "x")], "CA needs CERT and KEY"),
            (vec![("CERT", "/nowhere"), ("KEY", "/nowhere")], "CERT must name a file"),
            (
                vec![("CERT", empty.as_str()), ("KEY", empty.as_str())],
                "CERT must name a file",
            ),
        ] {
            let mut env = Env::of(
                variables
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
            assert_eq!(env.tls("CERT", "KEY", "CA").is_some(), told.is_empty());
            let problems = env.take_problems();
            assert!(
                problems.first().is_none_or(|problem| problem.starts_with(told)),
                "{problems:?}"
            );
            assert_eq!(problems.is_empty(), told.is_empty(), "{problems:?}");
        }
        std::fs::remove_file(empty).expect("it was written");
    }
}
