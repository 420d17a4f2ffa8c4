//! Users' names, as identity last told them.

use diesel::prelude::{Queryable, Selectable};
use serde::{Deserialize, Serialize};

use crate::schema::user_names;

/// A user's name.
#[derive(Clone, Debug, Default, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = user_names, check_for_backend(diesel::pg::Pg))]
pub struct UserName {
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
}
