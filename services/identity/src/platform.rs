//! The platform's organization: who is in it is said by the operator's configuration alone, and some RPCs are only for it.

use kit::{Error, Reason, Result, auth::OrgScope, ids::OrgId};

/// Lets only callers of the platform's organization pass.
///
/// # Errors
/// CALLER_NOT_ALLOWED for everybody else, whatever they hold in their own organization.
pub(crate) fn platform_only(scope: &OrgScope) -> Result<()> {
    if scope.org() == OrgId::PLATFORM {
        Ok(())
    } else {
        Err(Error::new(
            Reason::CallerNotAllowed,
            "this RPC is for members of the platform's organization",
        ))
    }
}
