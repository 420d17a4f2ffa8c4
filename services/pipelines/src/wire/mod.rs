//! Messages to values and back.
//!
//! Every request is read to its end: whoever breaks five rules hears of all five.

pub(crate) mod lease;
