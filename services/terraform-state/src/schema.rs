//! The slice's tables as diesel knows them; `migrations/terraform-state` is the truth.

#![allow(missing_docs, unreachable_pub)]
