//! How an organization comes to be: under the slug that it names, or the first free one that its name suggests.

use kit::{Result, db::Tx};

use crate::{
    model::{Name, Slug},
    store,
};

/// How often another slug is tried for an organization that named none.
const SLUG_TRIES: usize = 8;

/// Makes the transaction's organization; whoever makes it its owner does so in the same transaction.
///
/// # Errors
/// RESOURCE_EXISTS of `field` where the named slug is taken, or each one that was tried.
pub(in crate::rpc) async fn insert_organization(
    tx: &mut Tx,
    name: &Name,
    slug: Option<&Slug>,
    field: &'static str,
) -> Result<Slug> {
    if let Some(slug) = slug {
        return if store::organization::insert(tx, name, slug).await? {
            Ok(slug.clone())
        } else {
            Err(store::exists(field))
        };
    }
    let stem = Slug::of_name(name);
    let mut slug = stem.clone();
    for _ in 0..SLUG_TRIES {
        if store::organization::insert(tx, name, &slug).await? {
            return Ok(slug);
        }
        slug = stem.with_suffix();
    }
    Err(store::exists(field))
}
