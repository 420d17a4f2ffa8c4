//! Channels to the other services, each call carrying this service's own token, the caller's trace and request id.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::CURRENT;
use crate::{
    auth::token::{SERVICE_LIFETIME, SigningKey},
    config::Config,
    error::Error,
};

/// A channel for generated clients.
pub type PeerChannel = InterceptedService<Channel, PeerCredential>;

/// Channels to the services of the suite, connected when first used. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    channels: Arc<BTreeMap<String, Channel>>,
    credential: PeerCredential,
}

/// Puts this service's token on outgoing calls.
#[derive(Clone)]
pub struct PeerCredential(Arc<Signer>);

struct Signer {
    key: SigningKey,
    environment: Arc<str>,
    slice: &'static str,
    token: Mutex<Option<(MetadataValue<Ascii>, Instant)>>,
}

impl Peers {
    /// Channels as configured, for calls in the name of `slice`. Needs a tokio runtime.
    pub fn new(config: &Config, slice: &'static str) -> Self {
        let channels = config
            .peers
            .iter()
            .filter_map(|(name, address)| {
                let endpoint = Endpoint::from_shared(address.clone()).ok()?;
                let channel = endpoint
                    .connect_timeout(Duration::from_secs(1))
                    .timeout(Duration::from_secs(5))
                    .http2_keep_alive_interval(Duration::from_secs(10))
                    .keep_alive_timeout(Duration::from_secs(5))
                    .tcp_nodelay(true)
                    .connect_lazy();
                Some((name.clone(), channel))
            })
            .collect();
        let signer = Signer {
            key: SigningKey::from_seed(&config.service_key.0),
            environment: config.environment.clone(),
            slice,
            token: Mutex::new(None),
        };
        Peers {
            channels: Arc::new(channels),
            credential: PeerCredential(Arc::new(signer)),
        }
    }

    /// The channel to a slice.
    pub fn channel(&self, slice: &str) -> PeerChannel {
        let channel = self
            .channels
            .get(slice)
            .cloned()
            .expect("every slice has an address, at least the default one");
        InterceptedService::new(channel, self.credential.clone())
    }
}

impl Interceptor for PeerCredential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.authorization());
        // Work between calls has no current call; then there is nothing to pass on.
        let _ = CURRENT.try_with(|call| {
            for (name, value) in [("x-request-id", &call.request_id), ("traceparent", &call.traceparent)] {
                if let Ok(value) = value.parse() {
                    request.metadata_mut().insert(name, value);
                }
            }
            request.set_timeout(call.remaining().min(Duration::from_secs(5)));
        });
        Ok(request)
    }
}

impl Signer {
    fn authorization(&self) -> MetadataValue<Ascii> {
        let mut kept = self.token.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*kept {
            Some((token, since)) if since.elapsed() < SERVICE_LIFETIME / 2 => token.clone(),
            _ => {
                let text = format!("Bearer {}", self.key.sign_service(&self.environment, self.slice));
                let mut token: MetadataValue<Ascii> = text.parse().expect("a token is ASCII");
                token.set_sensitive(true);
                *kept = Some((token.clone(), Instant::now()));
                token
            }
        }
    }
}

/// A peer's failure as ours: it cannot be reached, or it broke; its own reasons are not ours.
pub fn peer_error(peer: &'static str, status: Status) -> Error {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted | Code::Unknown => {
            Error::unavailable(peer, status)
        }
        _ => Error::internal(status),
    }
}
