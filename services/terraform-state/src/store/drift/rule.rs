//! Rules.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{
        Caller, StateId,
        drift::rule::{DriftRuleId, NewRule, Rule},
    },
    schema::{clock_timestamp, drift_rules},
};

/// Makes a rule.
pub(crate) async fn insert_rule(tx: &mut Tx, new: NewRule, author: Caller) -> Result<Rule> {
    let created_at = crate::store::now(tx).await?;
    let rule = Rule {
        org_id: tx.org(),
        id: DriftRuleId::new(),
        state_id: new.state,
        address: new.address,
        resource_type: new.resource_type,
        path: new.path,
        kind: new.kind,
        severity: new.severity,
        reason: new.reason,
        expires_at: new.expires_at,
        author_kind: author.kind,
        author_id: author.id,
        created_at,
    };
    Ok(diesel::insert_into(drift_rules::table)
        .values(rule)
        .returning(Rule::as_returning())
        .get_result(tx)
        .await?)
}

/// How many rules there are.
pub(crate) async fn count_rules(tx: &mut Tx) -> Result<i64> {
    Ok(drift_rules::table
        .filter(drift_rules::org_id.eq(tx.org()))
        .count()
        .get_result(tx)
        .await?)
}

/// Rules, newest first, older than `after`; at most `limit`.
pub(crate) async fn list_rules(tx: &mut Tx, after: Option<DriftRuleId>, limit: i64) -> Result<Vec<Rule>> {
    let mut query = drift_rules::table
        .filter(drift_rules::org_id.eq(tx.org()))
        .order(drift_rules::id.desc())
        .limit(limit)
        .select(Rule::as_select())
        .into_boxed();
    if let Some(after) = after {
        query = query.filter(drift_rules::id.lt(after));
    }
    Ok(query.load(tx).await?)
}

/// The rules that are in force for a state, newest first.
pub(crate) async fn list_rules_for(tx: &mut Tx, state: StateId) -> Result<Vec<Rule>> {
    Ok(drift_rules::table
        .filter(drift_rules::org_id.eq(tx.org()))
        .filter(drift_rules::state_id.is_null().or(drift_rules::state_id.eq(state)))
        .filter(
            drift_rules::expires_at
                .is_null()
                .or(drift_rules::expires_at.gt(clock_timestamp().nullable())),
        )
        .order(drift_rules::id.desc())
        .select(Rule::as_select())
        .load(tx)
        .await?)
}

/// Ends a rule; `None` where there is none.
pub(crate) async fn delete_rule(tx: &mut Tx, id: DriftRuleId) -> Result<Option<Rule>> {
    Ok(diesel::delete(drift_rules::table.find((tx.org(), id)))
        .returning(Rule::as_returning())
        .get_result(tx)
        .await
        .optional()?)
}
