//! Lists: what is asked for, and pages that fit in a message.

use api::designs::v1;
use kit::{
    Error, Violations, ids,
    page::{Listing, PageSize},
};
use prost::Message;
use serde::Serialize;

use super::{provider, status};
use crate::model::{Category, DesignId, design::DesignFilter, template::TemplateFilter};

/// The most bytes of a page's items; with what is around them, the answer stays below 4 MiB.
const MOST_BYTES: usize = (4 << 20) - (64 << 10);

/// One page of a list: which list, how long, and where it goes on.
#[derive(Debug)]
pub(crate) struct Asked<F> {
    pub(crate) filter: F,
    pub(crate) size: PageSize,
    pub(crate) token: String,
}

impl<F> Asked<F> {
    fn finish(filter: Option<F>, (size, token): (i32, String), mut violations: Violations) -> Result<Self, Error> {
        let size = PageSize::parse(size, &mut violations);
        let (filter, size) = violations.finish(filter.zip(size))?;
        Ok(Asked { filter, size, token })
    }
}

impl TryFrom<v1::ListDesignsRequest> for Asked<DesignFilter> {
    type Error = Error;

    fn try_from(request: v1::ListDesignsRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let filter = DesignFilter {
            status: status("status", request.status, &mut violations),
            creator: ids::optional("creator_id", &request.creator_id, &mut violations),
        };
        Asked::finish(Some(filter), (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListVersionsRequest> for Asked<DesignId> {
    type Error = Error;

    fn try_from(request: v1::ListVersionsRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let design = ids::required("design_id", &request.design_id, &mut violations);
        Asked::finish(design, (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListResourcesRequest> for Asked<DesignId> {
    type Error = Error;

    fn try_from(request: v1::ListResourcesRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let design = ids::required("design_id", &request.design_id, &mut violations);
        Asked::finish(design, (request.page_size, request.page_token), violations)
    }
}

impl TryFrom<v1::ListTemplatesRequest> for Asked<TemplateFilter> {
    type Error = Error;

    fn try_from(request: v1::ListTemplatesRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let category = Category::parse("category", request.category, &mut violations);
        let filter = TemplateFilter {
            category: Some(category).filter(|category| !category.is_empty()),
            cloud_provider: provider("cloud_provider", request.cloud_provider, &mut violations),
        };
        Asked::finish(Some(filter), (request.page_size, request.page_token), violations)
    }
}

/// A page as it fills up: it ends at its size, or before its message would be too large.
pub(crate) struct Page<'a, M, C> {
    listing: &'a Listing<'a>,
    size: usize,
    bytes: usize,
    items: Vec<M>,
    last: Option<C>,
    next: Option<String>,
}

impl<'a, M: Message, C: Serialize> Page<'a, M, C> {
    pub(crate) fn new(listing: &'a Listing<'a>, size: PageSize) -> Self {
        Page {
            listing,
            size: size.get(),
            bytes: 0,
            items: Vec::new(),
            last: None,
            next: None,
        }
    }

    /// Adds an item, whose place in the list is `cursor`, unless the page has ended; says whether it goes on.
    pub(crate) fn push(&mut self, cursor: C, item: M) -> bool {
        if self.next.is_some() {
            return false;
        }
        // An item costs its length, and a tag and a length of at most 5 bytes.
        let bytes = self.bytes + item.encoded_len() + 6;
        match &self.last {
            Some(last) if self.items.len() == self.size || bytes > MOST_BYTES => {
                self.next = Some(self.listing.token(last));
                false
            }
            _ => {
                self.bytes = bytes;
                self.items.push(item);
                self.last = Some(cursor);
                true
            }
        }
    }

    /// The items, and the token of the next page; empty for the last.
    pub(crate) fn finish(self) -> (Vec<M>, String) {
        (self.items, self.next.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kit::crypto::KeyRing;

    #[test]
    fn a_page_ends_before_its_message_is_too_large_and_the_next_goes_on_there() {
        let ring = KeyRing::ephemeral();
        let listing = Listing::new(&ring, "test", uuid::Uuid::nil(), &());
        let rows: Vec<v1::Version> = (0..10)
            .map(|number| v1::Version {
                number,
                message: "m".repeat(1 << 20),
                ..Default::default()
            })
            .collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let mut page = Page::new(&listing, PageSize::DEFAULT);
            for row in rows.iter().filter(|row| after.is_none_or(|after| row.number > after)) {
                if !page.push(row.number, row.clone()) {
                    break;
                }
            }
            let (versions, token) = page.finish();
            let message = v1::ListVersionsResponse {
                versions: versions.clone(),
                next_page_token: token.clone(),
            };
            assert!(message.encoded_len() < 4 << 20);
            seen.extend(versions.iter().map(|version| version.number));
            after = listing.open::<i32>(&token).unwrap();
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }
}
