//! Terraform's `http` backend at `/v1/states/{name}`, the outputs alone at `/v1/outputs/{name}` for
//! `terraform_remote_state`, and at `/v1/locks/{name}` for proxies that drop LOCK and UNLOCK.
//!
//! A GET is answered 404 only to an admitted caller whose organization has no such content: Terraform takes a 404 for
//! an empty state, and would make everything anew. Terraform shows nothing of an error but its status.

mod encoding;
mod refusal;
mod request;

use api::{
    policy::{self, Method},
    terraform_state::v1::{LockStateResponse, UnlockStateResponse, UploadStateResponse},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, header, request::Parts};
use http_body_util::StreamBody;
use kit::{
    Error, Reason, Result,
    auth::scope::{Admitted, OrgScope},
    crypto::KeyRing,
    db::Tx,
    ids::OrgId,
    rpc::Door,
};
use tonic::{Status, body::Body};
use uuid::Uuid;

use self::{
    encoding::{accepts_gzip, gzip},
    refusal::{ALLOWED, REQUEST_ID, refusal},
    request::{Incoming, collected, decoded, parameter, told_md5},
};
use crate::{
    backend::{
        Backend, bound_design, force_missing,
        lock::{bound_execution, hold_job, release, take, take_away},
        may_force, touchable,
    },
    content::{Arriving, Content, Place, Small},
    history,
    model::{
        Caller, StateId,
        lock::{LockId, mismatch},
        state::{Shown, State, StateName},
    },
    store,
    wire::lock::lock_info,
};

/// From how many bytes on an answer is compressed where that is accepted.
const WORTH_COMPRESSING: i64 = 1024;

/// What the history of locks tells of a lock that Terraform took away: it says nothing itself.
const FORCED: &str = "force-unlock by Terraform";

/// Speaks Terraform's `http` backend.
pub(crate) struct TerraformHttp {
    pub(crate) backend: Backend,
}

/// What Terraform wants, by method and path.
#[derive(Clone, Copy)]
enum Wanted {
    Read,
    Write,
    Lock,
    Unlock,
    /// Outputs, and nothing else of a state.
    Outputs,
    /// Nothing that a lock's address is for.
    Nothing,
}

/// A content that has come whole.
enum Arrived {
    /// It is sealed to whichever state has the name.
    Small(Small),
    /// It was sealed as it came.
    Sealed(Content),
}

impl Arrived {
    /// The state that it is for, or that is made for it.
    fn state(&self) -> StateId {
        match self {
            Arrived::Small(_) => StateId::new(),
            Arrived::Sealed(content) => content.place().state,
        }
    }

    /// The same as a version of this state.
    ///
    /// # Errors
    /// CONFLICT where it was sealed to another one.
    fn content(self, ring: &KeyRing, org: OrgId, state: StateId) -> Result<Content> {
        match self {
            Arrived::Small(small) => {
                let version = Uuid::new_v4();
                small.sealed(ring, Place { org, state, version })
            }
            Arrived::Sealed(content) if content.place().state == state => Ok(content),
            Arrived::Sealed(_) => Err(Error::new(
                Reason::Conflict,
                "the state was made by another call; try again",
            )),
        }
    }
}

/// What a request wants, and the encoded name of the state.
fn wanted(parts: &Parts) -> Option<(Wanted, &str)> {
    let path = parts.uri.path();
    let method = parts.method.as_str();
    if let Some(name) = path.strip_prefix("/v1/states/") {
        let wanted = match method {
            "GET" => Wanted::Read,
            "POST" | "PUT" => Wanted::Write,
            "LOCK" => Wanted::Lock,
            "UNLOCK" => Wanted::Unlock,
            _ => return None,
        };
        return Some((wanted, name));
    }
    if let Some(name) = path.strip_prefix("/v1/outputs/") {
        return (method == "GET").then_some((Wanted::Outputs, name));
    }
    let name = path.strip_prefix("/v1/locks/")?;
    match method {
        "POST" | "PUT" | "LOCK" => Some((Wanted::Lock, name)),
        "DELETE" | "UNLOCK" => Some((Wanted::Unlock, name)),
        _ => Some((Wanted::Nothing, name)),
    }
}

#[async_trait::async_trait]
impl Door for TerraformHttp {
    fn method(&self, parts: &Parts) -> Option<&'static Method> {
        let (wanted, _) = wanted(parts)?;
        policy::find(match wanted {
            Wanted::Read => "/board3.terraform_state.v1.StateService/DownloadState",
            Wanted::Outputs => "/board3.terraform_state.v1.StateService/GetOutputs",
            Wanted::Write => "/board3.terraform_state.v1.StateService/UploadState",
            Wanted::Lock | Wanted::Nothing => "/board3.terraform_state.v1.LockService/LockState",
            Wanted::Unlock => "/board3.terraform_state.v1.LockService/UnlockState",
        })
    }

    fn credential(&self, headers: &HeaderMap) -> Result<Option<String>> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(None);
        };
        let invalid = || Error::new(Reason::CredentialInvalid, "the authorization header cannot be read");
        let (scheme, rest) = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .ok_or_else(invalid)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Some(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(invalid());
        }
        let pair = STANDARD.decode(rest.trim()).map_err(|_| invalid())?;
        let pair = String::from_utf8(pair).map_err(|_| invalid())?;
        // The user's name plays no part.
        let (_, password) = pair.split_once(':').ok_or_else(invalid)?;
        Ok(Some(password.to_owned()))
    }

    async fn serve(&self, scope: OrgScope, request: Request<Body>) -> Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let (wanted, name) = wanted(&parts).ok_or_else(|| Error::internal("a request without a method's policy"))?;
        let name = decoded(name).and_then(|name| StateName::parse(&name));
        let name = name.ok_or_else(|| Error::violation("name", StateName::RULE))?;
        scope.within("state", name.as_str())?;
        let request_id = scope.call().request_id.clone();
        let answer = match wanted {
            Wanted::Read => self.read(scope, name, &parts).await,
            Wanted::Outputs => self.outputs(scope, name).await,
            Wanted::Write => self.write(scope, name, &parts, body).await,
            Wanted::Lock => self.lock(scope, name, &parts, body).await,
            Wanted::Unlock => self.unlock(scope, name, &parts, body).await,
            Wanted::Nothing => Err(Error::new(Reason::MethodUnknown, "a lock has no such method")
                .with(ALLOWED, "POST, PUT, DELETE, LOCK, UNLOCK")),
        };
        answer.map_err(|error| error.with(REQUEST_ID, request_id))
    }

    fn refuse(&self, error: &Error) -> Response<Body> {
        refusal(error)
    }
}

impl TerraformHttp {
    async fn read(&self, scope: OrgScope, name: StateName, parts: &Parts) -> Result<Response<Body>> {
        let reading = self.backend.kit.db.read(&scope, async |tx| {
            let found = store::state::find_shown_named(tx, &name).await?;
            let Shown { state, version, lock } = found.ok_or_else(|| Error::not_found("state", name.as_str()))?;
            touchable(&scope, &state)?;
            tx.about(&state);
            let version = match version {
                Some(version) => version,
                None => history::version(tx, &state, None).await?,
            };
            let reading = self.backend.read(tx, &state, version).await?;
            if let Some(lock) = lock
                && lock.holder() == Caller::of(tx.principal())?
            {
                store::lock::update_seen(tx, state.id).await?;
            }
            Ok(reading)
        });
        let reading = reading.await?;
        let length = reading.version.size_bytes;
        let mut response = json_response(String::new());
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        let frame = |part: Result<Bytes>| part.map(http_body::Frame::data).map_err(Status::from);
        *response.body_mut() = if accepts_gzip(&parts.headers) && length >= WORTH_COMPRESSING {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Body::new(StreamBody::new(gzip(reading.parts()).map(frame)))
        } else {
            // With its length told, a body that breaks off is no success to anyone; gzip tells its own.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            Body::new(StreamBody::new(reading.parts().map(frame)))
        };
        Ok(response)
    }

    async fn outputs(&self, scope: OrgScope, name: StateName) -> Result<Response<Body>> {
        let reading = self.backend.kit.db.read(&scope, async |tx| {
            let state = store::state::find_named(tx, &name).await?;
            let state = state.ok_or_else(|| Error::not_found("state", name.as_str()))?;
            touchable(&scope, &state)?;
            tx.about(&state);
            let version = history::version(tx, &state, None).await?;
            history::open_to_us(&version, "name")?;
            self.backend.read(tx, &state, version).await
        });
        let shown = history::outputs_alone(reading.await?, history::may_reveal(&scope)).await?;
        let mut response = json_response(String::new());
        *response.body_mut() = Body::new(http_body_util::Full::from(shown));
        Ok(response)
    }

    async fn write(&self, scope: OrgScope, name: StateName, parts: &Parts, body: Body) -> Result<Response<Body>> {
        let given = match parameter(parts, "ID") {
            None => None,
            Some(id) => Some(LockId::parse(&id).ok_or_else(|| Error::violation("ID", LockId::RULE))?),
        };
        let md5 = told_md5(&parts.headers)?;
        let mut body = Incoming::new(body, u64::MAX);
        let mut share = self.backend.memory.share();
        let (start, whole) = body.start(&mut share).await?;
        let arrived = if whole {
            Arrived::Small(Small::read(start, md5, share).await?)
        } else {
            drop(share);
            Arrived::Sealed(self.long(&scope, &name, start, body, md5).await?)
        };
        let force = may_force(&scope);
        let written = self.backend.kit.db.write(&scope, async |tx| {
            let state = held(tx, &scope, arrived.state(), &name).await?;
            let mut content = arrived.content(&self.backend.ring, scope.org(), state.id)?;
            let written = self.backend.write(tx, &state, given.as_ref(), &mut content, force);
            let (version, created) = written.await?;
            Ok(UploadStateResponse {
                version: Some(version.into()),
                created,
            })
        });
        written.await.map_err(|error| match error.reason() {
            // Who writes without a lock is not to wait for it: what is sent is older than what the holder will write.
            Reason::StateLocked => mismatch("the state is locked, and the write names no lock"),
            _ => error,
        })?;
        Ok(empty())
    }

    /// A content that is longer than a chunk: it is sealed to the state that there is, or to one that is made then.
    async fn long(
        &self,
        scope: &OrgScope,
        name: &StateName,
        start: Vec<u8>,
        mut body: Incoming,
        md5: Option<[u8; 16]>,
    ) -> Result<Content> {
        let known = self.backend.kit.db.look(scope, async |tx| {
            let known = store::state::find_named(tx, name).await?;
            Ok((known, self.backend.limit_of(tx).await?))
        });
        let (known, limit) = known.await?;
        known.as_ref().map_or(Ok(()), |state| touchable(scope, state))?;
        let place = Place {
            org: scope.org(),
            state: known.map_or_else(StateId::new, |state| state.id),
            version: Uuid::new_v4(),
        };
        let mut arriving = Arriving::new(&self.backend.ring, place, limit, &self.backend.memory);
        arriving.push(&start).await?;
        body.limit = limit;
        while let Some(part) = body.part().await? {
            arriving.push(&part).await?;
        }
        arriving.finish(md5).await
    }

    async fn lock(&self, scope: OrgScope, name: StateName, parts: &Parts, body: Body) -> Result<Response<Body>> {
        let told = lock_info(&collected(&parts.headers, body).await?)?;
        let mut taken = None;
        let execution = bound_execution(&scope)?;
        let id = StateId::new();
        let mut tried = false;
        loop {
            let reply = self.backend.kit.db.write(&scope, async |tx| {
                hold_job(tx).await?;
                let state = held(tx, &scope, id, &name).await?;
                let lock = take(tx, &state, &told.lock, execution).await?;
                taken = Some(lock.info_json());
                Ok(LockStateResponse {
                    lock: Some(lock.into()),
                })
            });
            match reply.await {
                Ok(_) => return Ok(json_response(taken.unwrap_or_default())),
                Err(error) if self.backend.settled(&error, &mut tried).await => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn unlock(&self, scope: OrgScope, name: StateName, parts: &Parts, body: Body) -> Result<Response<Body>> {
        let body = collected(&parts.headers, body).await?;
        // Terraform's force-unlock sends nothing, not even the id that its user typed; OpenTofu's sends the id alone.
        let told = if body.trim_ascii().is_empty() {
            None
        } else {
            Some(lock_info(&body)?)
        };
        let forced = told.as_ref().is_none_or(|told| told.bare);
        if forced && !may_force(&scope) {
            return Err(force_missing());
        }
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let state = store::state::lock_named(tx, &name).await?;
            let state = state.ok_or_else(|| mismatch("there is no such state, and no lock of it"))?;
            touchable(&scope, &state)?;
            tx.about(&state);
            match &told {
                Some(told) if !told.bare => release(tx, &state, &told.lock.id, false).await?,
                told => {
                    let id = told.as_ref().map(|told| &told.lock.id);
                    if take_away(tx, &state, id, FORCED, false).await? {
                        // The call is an UnlockState; the trail tells who took a lock from another.
                        tx.acted("ForceUnlockState", &state);
                    }
                }
            }
            Ok(UnlockStateResponse {})
        });
        reply.await?;
        Ok(empty())
    }
}

/// The state of a name, made if there is none, held until the transaction ends. A job's belongs to the job's design.
async fn held(tx: &mut Tx, scope: &OrgScope, id: StateId, name: &StateName) -> Result<State> {
    let mut state = store::state::lock_named(tx, name).await?;
    if state.is_none() {
        state = store::state::insert(tx, id, name, bound_design(scope)?).await?;
    }
    if state.is_none() {
        // Another call has made it since, which the insert waited for.
        state = store::state::lock_named(tx, name).await?;
    }
    let state = state.ok_or_else(|| Error::internal("a state is neither there nor can it be made"))?;
    touchable(scope, &state)?;
    tx.about(&state);
    Ok(state)
}

fn json_response(body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::from(body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn empty() -> Response<Body> {
    Response::new(Body::empty())
}
