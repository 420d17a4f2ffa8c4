//! The sweeps: every RPC of the suite against the running suite, each refusal with the positive control beside it.
//!
//! There is one row per RPC in `fixtures::ROWS`; an RPC without one and a row without an RPC fail.
//! The tests have more than one thread, so that connections close while a suite ends instead of holding it up.

mod admission;
mod fixtures;
mod foreign;
mod invalid;
mod lists;
mod pages;
mod people;
mod repeats;
mod row;
mod surface;
mod tables;
mod trail;
mod wire;
mod works;
mod world;

use std::collections::BTreeSet;

use api::policy::{METHODS, Method};
use prost_reflect::Kind;

use self::{
    fixtures::ROWS,
    row::{Row, Valid},
    world::{Tenant, World},
};
pub(crate) use self::{
    people::{add_role, confirm, sign_up},
    wire::call,
    world::canvas,
};

/// Every RPC with its row.
fn rows() -> impl Iterator<Item = (&'static Method, &'static Row)> {
    METHODS.iter().map(|method| {
        let row = ROWS.iter().find(|row| row.path == method.path).copied();
        (
            method,
            row.unwrap_or_else(|| panic!("{} has no row in the sweep", method.path)),
        )
    })
}

/// A call of each RPC that would succeed, and who makes it.
struct Prepared {
    method: &'static Method,
    row: &'static Row,
    valid: Valid,
    credential: String,
}

async fn prepared(world: &World, tenant: &Tenant) -> Vec<Prepared> {
    let mut all = Vec::new();
    for (method, row) in rows() {
        let valid = (row.valid)(world, tenant).await;
        let credential = match &valid.caller {
            Some(caller) => caller.clone(),
            None => world.credential(method, tenant).await,
        };
        all.push(Prepared {
            method,
            row,
            valid,
            credential,
        });
    }
    all
}

#[test]
fn every_rpc_has_one_row_and_every_row_an_rpc() {
    let rows: Vec<&str> = ROWS.iter().map(|row| row.path).collect();
    let methods: Vec<&str> = METHODS.iter().map(|method| method.path).collect();
    assert_eq!(
        rows.iter().collect::<BTreeSet<_>>().len(),
        rows.len(),
        "a row stands twice"
    );
    let missing: Vec<_> = methods.iter().filter(|path| !rows.contains(path)).collect();
    let idle: Vec<_> = rows.iter().filter(|path| !methods.contains(path)).collect();
    assert!(
        missing.is_empty() && idle.is_empty(),
        "without a row: {missing:?}, without an RPC: {idle:?}"
    );
}

#[test]
fn every_id_of_a_request_is_swept_with_another_organizations() {
    for (method, row) in rows() {
        let (input, _) = wire::types(method);
        for field in input
            .fields()
            .filter(|field| field.kind() == Kind::String)
            .filter(|field| field.name().ends_with("_id") || field.name().ends_with("_ids"))
        {
            let repeats = field.name() == "request_id" && method.takes_request_id;
            let swept = row.foreign.iter().any(|(name, ..)| *name == field.name());
            let text = row.texts.contains(&field.name());
            assert!(
                swept || repeats || text,
                "{}: {} is not swept",
                method.action,
                field.name()
            );
        }
        for name in row
            .required
            .iter()
            .chain(row.texts)
            .chain(row.foreign.iter().map(|(name, ..)| name))
        {
            // A choice is named as a whole where none of its fields is there.
            let chosen = input.oneofs().any(|choice| choice.name() == *name);
            assert!(
                chosen || wire::has(&input, name),
                "{} has no field {name}",
                method.action
            );
        }
    }
}
