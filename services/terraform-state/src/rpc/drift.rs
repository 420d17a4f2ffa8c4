//! DriftService.

mod detect;
mod watch;

use api::terraform_state::v1::{
    AcceptDriftRequest, AcceptDriftResponse, AcknowledgeDriftRequest, AcknowledgeDriftResponse, CreateDriftRuleRequest,
    CreateDriftRuleResponse, DeleteDriftRuleRequest, DeleteDriftRuleResponse, DetectDriftRequest, DetectDriftResponse,
    DriftLog, GetDriftLogRequest, GetDriftLogResponse, GetDriftSummaryRequest, GetDriftSummaryResponse,
    GetThreeWayViewRequest, GetThreeWayViewResponse, ListDriftLogsRequest, ListDriftLogsResponse,
    ListDriftRulesRequest, ListDriftRulesResponse, ResolveDriftRequest, ResolveDriftResponse, WatchDriftRequest,
    drift_service_server::DriftService,
};
use kit::{
    Error, Result,
    auth::scope::{OrgScope, admitted, admitted_stream},
    db::Tx,
};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{find, hold, listing};
use crate::{
    backend::Backend,
    model::{
        Caller,
        drift::{
            self, DriftFilter, DriftLogId, DriftStatus,
            check::{Figures, ViewRow},
            life::said,
            rule::{MOST_RULES, NewRule, Rule},
        },
    },
    store::{self, drift::By, drift::ViewFilter},
    wire::{
        drift::{self as wire, One, Said, Watch, rule::End, summary::Asked as Summary, view::row},
        list::{Asked, page},
    },
};

const MIB: usize = 1 << 20;
/// As many rows are read at once, and no more once there are as many bytes as a page has: values may be long.
const ROWS_AT_ONCE: usize = 100;
const MOST_PAGE_BYTES: usize = 4 * MIB;
/// The most that is told of what happened to one drift log.
const MOST_CHANGES: i64 = 100;

/// Answers DriftService.
pub(crate) struct Drifts {
    backend: Backend,
    figures: Figures,
}

impl Drifts {
    /// What checks find is counted from here on.
    pub(crate) fn new(backend: Backend) -> Self {
        let figures = Figures::default();
        let (checks, resources) = (figures.clone(), figures.clone());
        let metrics = &backend.kit.metrics;
        metrics.reading("drift_checks", "Checks for drift by what they found", move || {
            checks.checks()
        });
        metrics.reading("drifted_resources", "Drifted resources that checks found", move || {
            resources.resources()
        });
        Drifts { backend, figures }
    }
}

#[tonic::async_trait]
impl DriftService for Drifts {
    async fn detect_drift(
        &self,
        request: Request<Streaming<DetectDriftRequest>>,
    ) -> Result<Response<DetectDriftResponse>, Status> {
        let (scope, messages): (OrgScope, _) = admitted_stream(request)?;
        self.detect(scope, messages).await
    }

    async fn list_drift_logs(
        &self,
        request: Request<ListDriftLogsRequest>,
    ) -> Result<Response<ListDriftLogsResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<DriftFilter> = request.try_into()?;
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let logs = self.backend.kit.db.read(&scope, async |tx| {
            match asked.filter.state {
                Some(id) => drop(find(tx, &scope, id).await?),
                // Not to be had by who is bound to a state.
                None => scope.within("state", "")?,
            }
            self.read(tx, &asked, after).await
        });
        let cursor = |log: &DriftLog| log.id.clone();
        let (drift_logs, next_page_token) = page(&listing, asked.size, logs.await?, cursor, |log| log);
        Ok(Response::new(ListDriftLogsResponse {
            drift_logs,
            next_page_token,
        }))
    }

    async fn get_drift_log(
        &self,
        request: Request<GetDriftLogRequest>,
    ) -> Result<Response<GetDriftLogResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let One(id) = request.try_into()?;
        let found = self.backend.kit.db.read(&scope, async |tx| {
            let log = store::drift::find(tx, id).await?;
            let log = log.ok_or_else(|| Error::not_found("drift_log", id))?;
            find(tx, &scope, log.state_id).await?;
            Ok((log, store::drift::list_changes_of(tx, id, MOST_CHANGES).await?))
        });
        let (log, changes) = found.await?;
        Ok(Response::new(GetDriftLogResponse {
            drift_log: Some(wire::log(log, &self.backend.ring)?),
            changes: changes.into_iter().map(Into::into).collect(),
        }))
    }

    async fn acknowledge_drift(
        &self,
        request: Request<AcknowledgeDriftRequest>,
    ) -> Result<Response<AcknowledgeDriftResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let said = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let drift_log = Some(self.say(tx, &scope, &said).await?);
            Ok(AcknowledgeDriftResponse { drift_log })
        });
        Ok(reply.await?)
    }

    async fn accept_drift(
        &self,
        request: Request<AcceptDriftRequest>,
    ) -> Result<Response<AcceptDriftResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let said = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let drift_log = Some(self.say(tx, &scope, &said).await?);
            Ok(AcceptDriftResponse { drift_log })
        });
        Ok(reply.await?)
    }

    async fn resolve_drift(
        &self,
        request: Request<ResolveDriftRequest>,
    ) -> Result<Response<ResolveDriftResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let said = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            let drift_log = Some(self.say(tx, &scope, &said).await?);
            Ok(ResolveDriftResponse { drift_log })
        });
        Ok(reply.await?)
    }

    async fn create_drift_rule(
        &self,
        request: Request<CreateDriftRuleRequest>,
    ) -> Result<Response<CreateDriftRuleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let new: NewRule = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            match new.state {
                Some(id) => drop(find(tx, &scope, id).await?),
                None => scope.within("state", "")?,
            }
            if store::drift::count_rules(tx).await? >= MOST_RULES {
                return Err(Error::violation("drift_rule", "is one too many: there are 500"));
            }
            let author = Caller::of(tx.principal())?;
            let rule = store::drift::insert_rule(tx, new, author).await?;
            tx.about(&rule);
            Ok(CreateDriftRuleResponse {
                drift_rule: Some(rule.into()),
            })
        });
        Ok(reply.await?)
    }

    async fn list_drift_rules(
        &self,
        request: Request<ListDriftRulesRequest>,
    ) -> Result<Response<ListDriftRulesResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<()> = request.try_into()?;
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let rows = self.backend.kit.db.read(&scope, async |tx| {
            scope.within("state", "")?;
            store::drift::list_rules(tx, after, asked.size.fetch()).await
        });
        let cursor = |rule: &Rule| rule.id;
        let (drift_rules, next_page_token) = page(&listing, asked.size, rows.await?, cursor, Into::into);
        Ok(Response::new(ListDriftRulesResponse {
            drift_rules,
            next_page_token,
        }))
    }

    async fn delete_drift_rule(
        &self,
        request: Request<DeleteDriftRuleRequest>,
    ) -> Result<Response<DeleteDriftRuleResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let End(id) = request.try_into()?;
        let reply = self.backend.kit.db.write(&scope, async |tx| {
            scope.within("state", "")?;
            let rule = store::drift::delete_rule(tx, id).await?;
            tx.about(&rule.ok_or_else(|| Error::not_found("drift_rule", id))?);
            Ok(DeleteDriftRuleResponse {})
        });
        Ok(reply.await?)
    }

    async fn get_drift_summary(
        &self,
        request: Request<GetDriftSummaryRequest>,
    ) -> Result<Response<GetDriftSummaryResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let Summary { state, days } = request.try_into()?;
        let numbers = self.backend.kit.db.read(&scope, async |tx| {
            match state {
                Some(id) => drop(find(tx, &scope, id).await?),
                None => scope.within("state", "")?,
            }
            store::drift::summary(tx, state, days).await
        });
        Ok(Response::new(numbers.await?.into()))
    }

    async fn get_three_way_view(
        &self,
        request: Request<GetThreeWayViewRequest>,
    ) -> Result<Response<GetThreeWayViewResponse>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let asked: Asked<ViewFilter> = request.try_into()?;
        let listing = listing(&self.backend.kit.ring, &scope, &asked.filter);
        let after = listing.open(&asked.token)?;
        let read = self.backend.kit.db.read(&scope, async |tx| {
            find(tx, &scope, asked.filter.state).await?;
            let view = store::drift::find_view(tx, asked.filter.state).await?;
            Ok((view, self.read_view(tx, &asked, after).await?))
        });
        let (view, rows) = read.await?;
        let cursor = |(place, _): &(i32, _)| *place;
        let (rows, next_page_token) = page(&listing, asked.size, rows, cursor, |(_, row)| row);
        Ok(Response::new(GetThreeWayViewResponse {
            rows,
            next_page_token,
            check_id: view.map(|(check, _)| check.to_string()).unwrap_or_default(),
            truncated: view.is_some_and(|(_, truncated)| truncated),
        }))
    }

    type WatchDriftStream = watch::Changes;

    async fn watch_drift(
        &self,
        request: Request<WatchDriftRequest>,
    ) -> Result<Response<Self::WatchDriftStream>, Status> {
        let (scope, request): (OrgScope, _) = admitted(request)?;
        let watch: Watch = request.try_into()?;
        Ok(Response::new(
            watch::begin(&self.backend.kit, &self.backend.ring, &scope, watch).await?,
        ))
    }
}

impl Drifts {
    /// What a person says of a drift log, kept.
    async fn say(&self, tx: &mut Tx, scope: &OrgScope, asked: &Said) -> Result<DriftLog> {
        let missing = || Error::not_found("drift_log", asked.id);
        let log = store::drift::find(tx, asked.id).await?.ok_or_else(missing)?;
        hold(tx, scope, log.state_id).await?;
        // Looked at anew: a check or somebody else may have had the state before.
        let log = store::drift::find(tx, asked.id).await?.ok_or_else(missing)?;
        tx.about(&log);
        let status: DriftStatus = said(log.status, asked.status)?;
        if status == log.status {
            return wire::log(log, &self.backend.ring);
        }
        store::drift::update_status(tx, &[log.id], status).await?;
        let by = By::Caller(Caller::of(tx.principal())?, &asked.reason);
        store::drift::insert_changes(tx, log.state_id, &[(log.id, Some(log.status), status)], by).await?;
        let log = store::drift::find(tx, asked.id).await?.ok_or_else(missing)?;
        wire::log(log, &self.backend.ring)
    }

    /// Logs after one: as many as tell whether there is another page.
    async fn read(
        &self,
        tx: &mut Tx,
        asked: &Asked<DriftFilter>,
        mut after: Option<DriftLogId>,
    ) -> Result<Vec<DriftLog>> {
        let (mut logs, mut bytes) = (Vec::new(), 0);
        while logs.len() <= asked.size.get() && bytes <= MOST_PAGE_BYTES {
            let limit = ROWS_AT_ONCE.min(asked.size.get() + 1 - logs.len());
            let rows: Vec<drift::DriftLog> = store::drift::list(tx, &asked.filter, after, limit).await?;
            let last = rows.len() < limit;
            for row in rows {
                after = Some(row.id);
                let log = wire::log(row, &self.backend.ring)?;
                bytes += log.encoded_len();
                logs.push(log);
            }
            if last {
                break;
            }
        }
        Ok(logs)
    }

    /// Rows of a view after a place, each with its place: as many as tell whether there is another page.
    async fn read_view(
        &self,
        tx: &mut Tx,
        asked: &Asked<ViewFilter>,
        mut after: Option<i32>,
    ) -> Result<Vec<(i32, api::terraform_state::v1::ThreeWayRow)>> {
        let (mut all, mut bytes) = (Vec::new(), 0);
        while all.len() <= asked.size.get() && bytes <= MOST_PAGE_BYTES {
            let limit = ROWS_AT_ONCE.min(asked.size.get() + 1 - all.len());
            let rows: Vec<ViewRow> = store::drift::list_view(tx, &asked.filter, after, limit).await?;
            let last = rows.len() < limit;
            for one in rows {
                let place = one.place;
                after = Some(place);
                let one = row(one, &self.backend.ring)?;
                bytes += one.encoded_len();
                all.push((place, one));
            }
            if last {
                break;
            }
        }
        Ok(all)
    }
}
