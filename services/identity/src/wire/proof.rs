//! Proofs that it is the user who asks: passwords and codes.

use api::identity::v1::{
    ChangePasswordRequest, ConfirmTotpRequest, DisableTotpRequest, EnrollTotpRequest, RegenerateRecoveryCodesRequest,
};
use kit::{Error, Result, Violations};
use secrecy::ExposeSecret;

use crate::model::{Code, Email, Password, Profile, Slug};

/// Longer texts are no codes, however they are grouped.
const LONGEST_CODE: usize = 64;

/// The caller's password and a code.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) password: Password,
    pub(crate) code: Code,
}

impl Proof {
    fn parse(password: String, code: &str) -> Result<Self> {
        let mut violations = Violations::new();
        let password = Password::parse("password", password, &mut violations);
        violations.length("code", code, 1, LONGEST_CODE);
        violations.finish(password.map(|password| Proof {
            password,
            code: Code::new(code),
        }))
    }
}

impl TryFrom<DisableTotpRequest> for Proof {
    type Error = Error;

    fn try_from(request: DisableTotpRequest) -> Result<Self> {
        Proof::parse(request.password, &request.code)
    }
}

impl TryFrom<RegenerateRecoveryCodesRequest> for Proof {
    type Error = Error;

    fn try_from(request: RegenerateRecoveryCodesRequest) -> Result<Self> {
        Proof::parse(request.password, &request.code)
    }
}

impl TryFrom<EnrollTotpRequest> for Password {
    type Error = Error;

    fn try_from(request: EnrollTotpRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let password = Password::parse("password", request.password, &mut violations);
        violations.finish(password)
    }
}

impl TryFrom<ConfirmTotpRequest> for Code {
    type Error = Error;

    fn try_from(request: ConfirmTotpRequest) -> Result<Self> {
        let code = Code::new(&request.code);
        if code.is_of_application() {
            Ok(code)
        } else {
            Err(Error::violation("code", "must be 6 digits"))
        }
    }
}

/// The present password and the one that shall take its place.
#[derive(Debug)]
pub(crate) struct PasswordChange {
    pub(crate) present: Password,
    pub(crate) new: Password,
}

impl PasswordChange {
    /// Chosen by the rules of a sign-up, for this account.
    pub(crate) fn parse(request: ChangePasswordRequest, owner: &Profile) -> Result<Self> {
        let mut violations = Violations::new();
        let own = [Some(Email::as_str(&owner.email)), Some(Slug::as_str(&owner.username))];
        let present = Password::parse("current_password", request.current_password, &mut violations);
        let new = Password::choose("new_password", request.new_password, &own, &mut violations);
        if let (Some(present), Some(new)) = (&present, &new) {
            let same = present.normalized().expose_secret() == new.normalized().expose_secret();
            violations.check(!same, "new_password", "must not be the present one");
        }
        let change = present.zip(new);
        violations.finish(change.map(|(present, new)| PasswordChange { present, new }))
    }
}
