//! What identity knows: accounts, roles, sessions, keys and invitations, as values and rows.
//!
//! Nothing here reaches the database or the network; what is decided here is decided by pure functions.

mod account;
mod clock;
mod device;
mod email_token;
mod etag;
mod invitation;
mod key;
mod mail;
mod organization;
mod role;
mod session;
mod sign_up;
mod signing_key;
mod totp;
mod user;

pub(crate) use account::{Email, Name, NewAccount, Password, PasswordHash, Profile, Slug};
pub(crate) use clock::{from_microseconds, microseconds, now};
pub(crate) use device::{DeviceId, DeviceToken};
pub(crate) use email_token::{EmailToken, Purpose};
pub(crate) use etag::Etag;
pub(crate) use invitation::{Invitation, InvitationId, LIFETIME as INVITATION_LIFETIME, NewInvitation, OpenInvitation};
pub(crate) use key::{ApiKey, ApiKeyId, NewApiKey, NewServiceAccount, Owner, ServiceAccount, ServiceAccountId};
pub(crate) use mail::{Content as MailContent, Letter, Mail, MailId};
pub(crate) use organization::{
    DOMAIN_LIFETIME, Domain, DomainClaim, DomainVerification, DomainVerificationId, MOST_DOMAINS, MOST_OWNED, Mailbox,
    NewOrganization, Organization, OrganizationChange, OrganizationKey, RESTORABLE,
};
pub(crate) use role::{Description, Held, Holders, Member, Membership, Position, Role, RoleContent, RoleId};
pub(crate) use session::{
    Family, GRACE as SESSION_GRACE, IDLE as SESSION_IDLE, LIFETIME as SESSION_LIFETIME, Presented, RefreshToken,
    Session, SessionId, StandingSession,
};
pub(crate) use sign_up::{PendingAccount, RESET_LIFETIME, ResetId, SIGN_UP_LIFETIME, SignUpId, Taken};
pub(crate) use signing_key::{KeyState, SigningKey, Standing, Step};
pub(crate) use totp::{Code, RecoveryCodes, TotpSecret};
pub(crate) use user::{Account, Colleague, ProfileChange};
