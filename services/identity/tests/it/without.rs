//! Each protection against two calls at once is proven by a run without it: the same test then fails.

use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

/// Whether a test of this binary, which passes here, fails in a process of its own in which a protection is taken away.
pub(crate) async fn fails_without(switch: &'static str, test: &'static str) -> bool {
    let run = spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("BOARD3_WITHOUT", switch)
            .env("BOARD3_LOG", "off")
            .stderr(Stdio::null())
            .output()
            .unwrap()
    });
    let output = run.await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let (passed, failed) = (told.contains(" 1 passed"), told.contains(" 1 failed"));
    assert!(passed != failed, "{test} did not run: {told}");
    failed
}

#[tokio::test]
async fn without_the_sessions_lock_racing_tabs_get_successors_that_end_the_session() {
    let test = "session::fifty_refreshes_at_once_get_one_successor_and_nobody_is_logged_out";
    assert!(fails_without("identity.session_lock", test).await);
}

#[tokio::test]
async fn without_the_organizations_lock_two_owners_demote_each_other() {
    let test = "member::the_last_owner_stays_one_also_when_two_demote_each_other_at_once";
    assert!(fails_without("identity.organization_lock", test).await);
}

#[tokio::test]
async fn without_the_factors_lock_a_code_works_twice_at_once() {
    let test = "totp::a_code_presented_twice_at_once_works_once";
    assert!(fails_without("identity.second_factor_lock", test).await);
}

#[tokio::test]
async fn without_the_last_codes_step_a_code_works_again() {
    let test = "totp::a_code_works_once";
    assert!(fails_without("identity.second_factor_step", test).await);
}

#[tokio::test]
async fn without_its_use_a_recovery_code_opens_two_sessions() {
    let test = "totp::a_login_asks_for_a_code_and_takes_each_once";
    assert!(fails_without("identity.recovery_code_use", test).await);
}

#[tokio::test]
async fn without_the_organizations_lock_two_owners_suspend_each_other() {
    let test = "suspension::the_last_owner_is_not_kept_out_also_not_by_two_at_once";
    assert!(fails_without("identity.organization_lock", test).await);
}

#[tokio::test]
async fn without_the_organizations_lock_the_last_two_owners_delete_themselves() {
    let test = "account::of_two_owners_who_delete_themselves_at_once_one_stays";
    assert!(fails_without("identity.organization_lock", test).await);
}

#[tokio::test]
async fn without_the_entry_lock_a_session_outlives_the_suspension() {
    let test = "suspension::who_signs_in_while_being_suspended_has_no_session_afterwards";
    assert!(fails_without("identity.entry_lock", test).await);
}

#[tokio::test]
async fn without_the_profiles_lock_two_changes_overwrite_each_other() {
    let test = "users::of_two_changes_at_once_one_is_refused";
    assert!(fails_without("identity.profile_lock", test).await);
}

#[tokio::test]
async fn without_the_organizations_lock_two_owners_remove_each_other() {
    let test = "ownership::the_last_owner_stays_also_when_two_remove_each_other_at_once";
    assert!(fails_without("identity.organization_lock", test).await);
}

#[tokio::test]
async fn without_its_guard_the_last_owner_goes() {
    let test = "account::the_last_owner_of_an_organization_keeps_the_account";
    assert!(fails_without("identity.last_owner", test).await);
}

#[tokio::test]
async fn without_etags_an_organization_is_changed_unseen() {
    let test = "organization::a_change_is_made_to_what_was_seen_also_when_two_change_it_at_once";
    assert!(fails_without("identity.etag", test).await);
}

#[tokio::test]
async fn without_the_domains_lock_its_former_owner_is_not_told() {
    let test = "domain::of_two_who_claim_a_domain_at_once_the_second_takes_it_from_the_first";
    assert!(fails_without("identity.domain_lock", test).await);
}

#[tokio::test]
async fn without_the_founders_lock_a_user_owns_one_too_many() {
    let test = "organization::a_user_owns_at_most_a_hundred_also_when_two_are_made_at_once";
    assert!(fails_without("identity.founder_lock", test).await);
}

#[tokio::test]
async fn without_the_look_at_changes_users_see_what_they_were() {
    let test = "own_view::every_change_of_what_users_see_of_themselves_is_seen_at_once";
    assert!(fails_without("view_changes.identity.own.v1", test).await);
}
