//! The door over TLS, by HTTP/2 and HTTP/1.1, and answers as gzip.

use std::{io::Read, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    certificate::Certificate,
    cli::{Checkout, terraform},
    world::{WORK, World, id, lock_info, state},
};

/// A world whose door speaks TLS, and its certificate.
struct Secured {
    world: World,
    certificate: Certificate,
    _files: tempfile::TempDir,
}

async fn secured() -> Secured {
    secured_for(None).await
}

/// One that lets in only clients that show this certificate, if there is one.
async fn secured_for(client: Option<&Certificate>) -> Secured {
    let certificate = Certificate::new();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = files.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut env = vec![
        ("BOARD3_TERRAFORM_TLS_CERTIFICATE", file("chain.pem", certificate.pem())),
        ("BOARD3_TERRAFORM_TLS_KEY", file("key.pem", certificate.key_pem())),
    ];
    env.extend(client.map(|client| ("BOARD3_TERRAFORM_TLS_CLIENT_CA", file("clients.pem", client.pem()))));
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Secured {
        world: World::with(&env).await,
        certificate,
        _files: files,
    }
}

/// A connection that offers these protocols.
async fn connected(secured: &Secured, protocols: &[&str]) -> tokio_rustls::client::TlsStream<TcpStream> {
    connected_as(secured, protocols, None).await
}

/// One that shows this certificate, if there is one.
async fn connected_as(
    secured: &Secured,
    protocols: &[&str],
    own: Option<&Certificate>,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(secured.certificate.der.clone().into()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key_pem().as_bytes()).unwrap();
            config.with_client_auth_cert(vec![own.der.clone().into()], key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(secured.world.door()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test]
async fn over_tls_http_2_is_chosen_where_it_is_offered() {
    let secured = secured().await;
    let http = secured.world.http(&WORK);
    for (offered, chosen) in [
        (vec!["h2", "http/1.1"], Some(b"h2".as_slice())),
        (vec!["http/1.1"], Some(b"http/1.1")),
        (vec![], None),
    ] {
        let stream = connected(&secured, &offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
    }
    let stream = TokioIo::new(connected(&secured, &["h2"]).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut ask = async |method: &str, path: &str, body: String| {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header("authorization", &http.authorization)
            .body(Full::<bytes::Bytes>::from(body))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        (
            answer.status().as_u16(),
            answer.into_body().collect().await.unwrap().to_bytes(),
        )
    };
    let (lock, path) = (id(), "/v1/states/team/prod");
    let info = lock_info(&lock, "OperationTypeApply");
    assert_eq!(ask("LOCK", path, info.clone()).await.0, 200);
    assert_eq!(ask("LOCK", path, lock_info(&id(), "x")).await.0, 423);
    let sent = state(1, "l", &"x".repeat(2_000_000));
    assert_eq!(ask("POST", &format!("{path}?ID={lock}"), sent.clone()).await.0, 200);
    let (status, body) = ask("GET", path, String::new()).await;
    assert_eq!((status, body == sent.as_bytes()), (200, true));
    assert_eq!(ask("UNLOCK", path, info).await.0, 200);
    drop(sender);
    connection.abort();
    // Who speaks in the clear is not understood, and the next one is served.
    let mut clear = TcpStream::connect(secured.world.door()).await.unwrap();
    let mut heard = Vec::new();
    {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        clear
            .write_all(b"GET /v1/states/prod HTTP/1.1\r\nhost: board3\r\n\r\n")
            .await
            .unwrap();
        let _ = clear.read_to_end(&mut heard).await;
    }
    assert!(!heard.starts_with(b"HTTP/"));
    connected(&secured, &["h2"]).await;
}

#[tokio::test]
async fn terraform_works_over_tls_and_http_2() {
    let Some(program) = terraform() else { return };
    let secured = secured().await;
    let token = secured.world.token(secured.world.org, &WORK);
    let ca = secured.certificate.pem();
    let checkout = Checkout::over_tls(program, secured.world.door(), "team/prod", &token, &ca).await;
    let planned = checkout.traced(&["plan", "-input=false"]).await;
    assert!(planned.contains("1 to add"), "{planned}");
    // Go says so itself.
    assert!(planned.contains("http2: Transport"), "{planned}");
    assert!(checkout.apply().await.well().contains("1 added"));
    assert!(checkout.apply().await.well().contains("No changes."));
    checkout
        .run(&["apply", "-destroy", "-auto-approve", "-input=false"])
        .await
        .well();
    assert_eq!(secured.world.versions("team/prod").await, 2);
    assert_eq!(secured.world.number("select count(*) from state_locks").await, 0);
}

/// What is answered over a connection that was made; nothing where the server ends it.
async fn answered(mut stream: tokio_rustls::client::TlsStream<TcpStream>, authorization: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!("GET /v1/states/none HTTP/1.0\r\nhost: board3\r\nauthorization: {authorization}\r\n\r\n");
    let mut heard = Vec::new();
    // With TLS 1.3 a client hears only now that its certificate is refused.
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = stream.read_to_end(&mut heard).await;
    }
    let heard = String::from_utf8_lossy(&heard).into_owned();
    heard.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn where_clients_must_show_a_certificate_nobody_comes_in_without_it_or_without_a_credential() {
    let (ours, strangers) = (Certificate::new(), Certificate::new());
    let secured = secured_for(Some(&ours)).await;
    let http = secured.world.http(&WORK);
    for (own, authorization, first_line) in [
        (Some(&ours), http.authorization.as_str(), "HTTP/1.0 404 Not Found"),
        (Some(&ours), "", "HTTP/1.0 401 Unauthorized"),
        (Some(&strangers), http.authorization.as_str(), ""),
        (None, http.authorization.as_str(), ""),
    ] {
        let stream = connected_as(&secured, &[], own).await;
        assert_eq!(answered(stream, authorization).await, first_line);
    }
    let Some(program) = terraform() else { return };
    let token = secured.world.token(secured.world.org, &WORK);
    let (ca, at) = (secured.certificate.pem(), (secured.world.door(), "prod"));
    let checkout = Checkout::over_mutual_tls(program, at, &token, &ca, &ours).await;
    assert!(checkout.apply().await.well().contains("1 added"));
    assert_eq!(secured.world.versions("prod").await, 1);
}

#[tokio::test]
async fn a_state_is_answered_as_gzip_to_those_who_accept_it() {
    let world = World::new().await;
    let http = world.http(&WORK);
    let sent = state(1, "l", &"0123456789".repeat(300_000));
    assert_eq!(http.post("prod", "", &sent).await.status, 200);
    let mut stream = TcpStream::connect(http.door).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!(
        "GET /v1/states/prod HTTP/1.0\r\nhost: board3\r\nauthorization: {}\r\naccept-encoding: gzip\r\n\r\n",
        http.authorization
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(
        head.contains("content-encoding: gzip\r\n") && head.contains("vary: accept-encoding\r\n"),
        "{head}"
    );
    assert!(answer.len() < sent.len() / 10, "{}", answer.len());
    let mut read = String::new();
    flate2::read::GzDecoder::new(&answer[end..])
        .read_to_string(&mut read)
        .unwrap();
    assert!(read == sent);
    let refused = [("accept-encoding", "gzip;q=0, identity")];
    let plain = http.ask_with("GET", "/v1/states/prod", &refused, b"").await;
    assert!(plain.header("content-encoding").is_none() && plain.body == sent.as_bytes());
}
