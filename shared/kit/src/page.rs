//! Pages of a list: sizes, and opaque tokens that continue a list where it stopped.
//!
//! A token opens only for the list that made it: same RPC, same organization, same filter.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::crypto::KeyRing;
use crate::error::{Error, Reason, Violations};

const VERSION: u8 = 1;
const MAC: usize = 16;
const CONTEXT: &str = "page token";
/// Longer texts are no tokens of ours; nothing decodes them.
const LONGEST: usize = 2_048;

/// How many items a page has: 1 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(u16);

impl PageSize {
    /// The size when the request names none.
    pub const DEFAULT: PageSize = PageSize(50);
    /// The largest size; who asks for more gets this.
    pub const MAX: PageSize = PageSize(1_000);

    /// Reads `page_size`: 0 means 50, above 1,000 means 1,000, a negative one is a violation.
    pub fn parse(asked: i32, violations: &mut Violations) -> Option<PageSize> {
        match asked {
            ..0 => {
                violations.add("page_size", "must not be negative");
                None
            }
            0 => Some(PageSize::DEFAULT),
            1.. => Some(u16::try_from(asked).map_or(PageSize::MAX, |n| PageSize(n.min(1_000)))),
        }
    }

    /// The number of items.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The `LIMIT` of the query: one row more, which only tells that there is another page.
    #[must_use]
    pub fn fetch(self) -> i64 {
        i64::from(self.0) + 1
    }
}

/// One list as its tokens know it: the RPC, whose it is, and what it was filtered by.
pub struct Listing<'a> {
    ring: &'a KeyRing,
    bound: Vec<u8>,
}

impl<'a> Listing<'a> {
    /// The list of this RPC in this organization (or of this user, where there is none), under a
    /// filter that consists of everything but the page's size and token.
    ///
    /// # Panics
    /// When the filter does not become JSON; structs, tuples and texts always do.
    #[must_use]
    pub fn new(ring: &'a KeyRing, rpc: &str, owner: Uuid, filter: &impl Serialize) -> Listing<'a> {
        let filter = serde_json::to_vec(filter).expect("a filter becomes JSON");
        let mut bound = Vec::with_capacity(96);
        bound.push(VERSION);
        bound.extend_from_slice(owner.as_bytes());
        bound.extend_from_slice(blake3::hash(rpc.as_bytes()).as_bytes());
        bound.extend_from_slice(blake3::hash(&filter).as_bytes());
        Listing { ring, bound }
    }

    /// The token of the page after the one that ended at `cursor` (the keys of its last row).
    ///
    /// # Panics
    /// When the cursor does not become JSON.
    #[must_use]
    pub fn token(&self, cursor: &impl Serialize) -> String {
        let cursor = serde_json::to_vec(cursor).expect("a cursor becomes JSON");
        let mac = self.ring.keyed_hash(CONTEXT, &self.authenticated(&cursor));
        URL_SAFE_NO_PAD.encode([&[VERSION], &mac[..MAC], &cursor].concat())
    }

    /// Where the page of this token begins: after the cursor, or at the start if the token is empty.
    ///
    /// # Errors
    /// `PAGE_TOKEN_INVALID` when it is malformed or belongs to another list.
    pub fn open<C: DeserializeOwned>(&self, token: &str) -> Result<Option<C>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        let invalid = || Error::new(Reason::PageTokenInvalid, "the page token is not of this list");
        if token.len() > LONGEST {
            return Err(invalid());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let (head, cursor) = bytes.split_at_checked(1 + MAC).ok_or_else(invalid)?;
        let genuine = head[0] == VERSION && self.ring.matches(CONTEXT, &self.authenticated(cursor), &head[1..]);
        if !genuine {
            return Err(invalid());
        }
        serde_json::from_slice(cursor).map(Some).map_err(|_| invalid())
    }

    /// The page of rows that were fetched with [`PageSize::fetch`]; `cursor` gives the keys of the last.
    #[must_use]
    pub fn page<T, C: Serialize>(&self, mut rows: Vec<T>, size: PageSize, cursor: impl FnOnce(&T) -> C) -> Page<T> {
        let more = rows.len() > size.get();
        rows.truncate(size.get());
        let last = rows.last().filter(|_| more);
        let next = last.map_or_else(String::new, |row| self.token(&cursor(row)));
        Page { items: rows, next }
    }

    /// All before the cursor has a fixed length, so no two lists share an input.
    fn authenticated(&self, cursor: &[u8]) -> Vec<u8> {
        [&self.bound, cursor].concat()
    }
}

/// Some items of a list, and the token of those that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// The next page's token; empty on the last page.
    pub next: String,
}

impl<T> Page<T> {
    /// The same page of other items.
    pub fn map<U>(self, item: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(item).collect(),
            next: self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RPC: &str = "/board3.designs.v1.DesignService/ListDesigns";
    const ORG: Uuid = Uuid::from_u128(7);

    fn size(asked: i32) -> Option<usize> {
        PageSize::parse(asked, &mut Violations::new()).map(PageSize::get)
    }

    #[test]
    fn sizes_are_read_as_the_protos_say() {
        let sizes = [0, 1, 999, 1_000, 1_001, 70_000, i32::MAX].map(size);
        assert_eq!(sizes, [50, 1, 999, 1_000, 1_000, 1_000, 1_000].map(Some));
        let mut violations = Violations::new();
        assert_eq!(PageSize::parse(-1, &mut violations), None);
        let error = violations.into_result().unwrap_err();
        assert_eq!(error.violations()[0].field, "page_size");
    }

    #[test]
    fn tokens_walk_a_list_to_its_end() {
        let ring = KeyRing::ephemeral();
        let rows: Vec<u32> = (0..10).collect();
        let list = Listing::new(&ring, RPC, ORG, &("active",));
        let size = PageSize(3);
        let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let after: Option<u32> = list.open(&token).unwrap();
            let rest = rows
                .iter()
                .copied()
                .filter(|row| after.is_none_or(|after| *row > after));
            let limit = usize::try_from(size.fetch()).unwrap();
            let page = list.page(rest.take(limit).collect(), size, |row| *row);
            seen.extend(page.items);
            pages += 1;
            token = page.next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!((seen, pages), (rows, 4));
        let exact = list.page(vec![1, 2, 3], size, |row| *row);
        assert_eq!(exact.next, "");
        assert_eq!(list.page(Vec::<u32>::new(), size, |row| *row).next, "");
    }

    #[test]
    fn a_token_opens_for_its_own_list_only() {
        let ring = KeyRing::ephemeral();
        let list = Listing::new(&ring, RPC, ORG, &("active",));
        let token = list.token(&(17_i64, "id"));
        assert_eq!(list.open::<(i64, String)>(&token).unwrap(), Some((17, "id".to_owned())));

        let other_ring = KeyRing::ephemeral();
        let others = [
            Listing::new(&ring, "/other", ORG, &("active",)),
            Listing::new(&ring, RPC, Uuid::from_u128(8), &("active",)),
            Listing::new(&ring, RPC, ORG, &("archived",)),
            Listing::new(&other_ring, RPC, ORG, &("active",)),
        ];
        let mut refused: Vec<_> = others.iter().map(|other| other.open(&token)).collect();
        let mut changed = token.clone().into_bytes();
        changed[30] ^= 1;
        let changed = String::from_utf8(changed).unwrap();
        let long = token.repeat(100);
        for wrong in [
            "x",
            "%%%",
            "AQ",
            &token[1..],
            &changed,
            &long,
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            refused.push(list.open(wrong));
        }
        for result in refused {
            let result: Result<Option<(i64, String)>, Error> = result;
            assert_eq!(result.unwrap_err().reason(), Reason::PageTokenInvalid);
        }
        assert!(list.open::<u64>(&token).is_err());
    }

    #[test]
    fn tokens_survive_a_rotation_of_keys() {
        let (old, new) = ("0a".repeat(32), "0b".repeat(32));
        let before = KeyRing::parse(&old, "").unwrap();
        let after = KeyRing::parse(&new, &old).unwrap();
        let token = Listing::new(&before, RPC, ORG, &()).token(&5_u32);
        let list = Listing::new(&after, RPC, ORG, &());
        assert_eq!(list.open::<u32>(&token).unwrap(), Some(5));
    }
}
