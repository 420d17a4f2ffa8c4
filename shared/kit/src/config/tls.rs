//! TLS of a door: certificate and key from files, HTTP/2 and HTTP/1.1 by ALPN.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
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
    /// TLS where the two variables name a chain of certificates and its key, both PEM; none where neither is set.
    /// `None` when a problem was noted.
    pub fn tls(&mut self, certificate: &str, key: &str) -> Option<Option<Tls>> {
        let (chain, secret) = match (self.optional(certificate), self.optional(key)) {
            (None, None) => return Some(None),
            (Some(chain), Some(secret)) => (chain, secret),
            (Some(_), None) | (None, Some(_)) => {
                self.problem(format!("{certificate} and {key} must be set together"));
                return None;
            }
        };
        let chain = chain_of(Path::new(&chain)).map_err(|problem| self.problem(format!("{certificate} {problem}")));
        let secret = PrivateKeyDer::from_pem_file(&secret)
            .map_err(|_| self.problem(format!("{key} must name a file with a private key in PEM")));
        let tls = acceptor(chain.ok()?, secret.ok()?).map_err(|problem| self.problem(format!("{key} {problem}")));
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

fn acceptor(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Tls, &'static str> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_no_client_auth()
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
            assert_eq!(env.tls("CERT", "KEY").is_some(), told.is_empty());
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
