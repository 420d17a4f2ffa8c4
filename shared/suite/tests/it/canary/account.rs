//! What comes by e-mail, second factors and what devices keep: shown once, and found nowhere else.

use std::collections::BTreeSet;

use api::identity::v1::{
    ChangePasswordRequest, ConfirmTotpRequest, DisableTotpRequest, EnrollTotpRequest, IntrospectTokenRequest,
    LoginRequest, LoginResponse, RegenerateRecoveryCodesRequest, RequestDomainVerificationRequest,
    RequestPasswordResetRequest, ResetPasswordRequest, RotateApiKeyRequest, VerifyDomainRequest, VerifyEmailRequest,
    auth_service_client::AuthServiceClient,
};
use tonic::Status;
use uuid::Uuid;

use super::{
    needles, plant,
    search::{Hay, Kind, Needle, Seen, gather, overhear, search},
    secret_part, signature,
};
use suite::totp;

use crate::{
    house::House,
    story::{Person, request_id},
    sweep::{confirm, sign_up},
};

async fn login(house: &House, request: &LoginRequest) -> Result<LoginResponse, Status> {
    let mut public = AuthServiceClient::new(house.identity().channel());
    Ok(public.login(request.clone()).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_from_mail_second_factors_and_devices_are_found_nowhere() {
    let house = House::open_with(&[("BOARD3_LOG", "debug"), ("BOARD3_LOG_SQL", "1")]).await;
    let heard = overhear(&house).await;
    let mut seen = Seen::default();
    let mut public = AuthServiceClient::new(house.identity().channel());
    let mut watch = house.mail().watch().unwrap();
    let forged = |token: &str| format!("{token}x");

    // An account by a token from the mail.
    let request = sign_up();
    let (email, first) = (request.email.clone(), request.password.clone());
    public.sign_up(request).await.expect("SignUp");
    let joining = watch.token(&email).await.unwrap();
    let verify = |token: String| VerifyEmailRequest {
        token,
        request_id: request_id(),
        ..Default::default()
    };
    seen.refused("a forged token", public.verify_email(verify(forged(&joining))).await);
    public.verify_email(verify(joining.clone())).await.expect("VerifyEmail");
    seen.refused("a token used twice", public.verify_email(verify(joining.clone())).await);

    // A device that is known again, and a password that is forgotten.
    let mut credentials = LoginRequest {
        email: email.clone(),
        password: first.clone(),
        ..Default::default()
    };
    let device = login(&house, &credentials).await.expect("Login").device_token;
    credentials.device_token = forged(&device);
    login(&house, &credentials)
        .await
        .expect("a forged device is a stranger's");
    credentials.device_token = device.clone();
    login(&house, &credentials).await.expect("a known device");
    let forgotten = RequestPasswordResetRequest { email: email.clone() };
    public
        .request_password_reset(forgotten)
        .await
        .expect("RequestPasswordReset");
    let resetting = watch.token(&email).await.unwrap();
    let second = format!("canary second {}", Uuid::new_v4().simple());
    let reset = |token: String, password: &str| ResetPasswordRequest {
        token,
        password: password.to_owned(),
        request_id: request_id(),
    };
    seen.refused(
        "a forged token",
        public.reset_password(reset(forged(&resetting), &second)).await,
    );
    seen.refused(
        "a short password",
        public.reset_password(reset(resetting.clone(), "short")).await,
    );
    public
        .reset_password(reset(resetting.clone(), &second))
        .await
        .expect("ResetPassword");
    seen.refused(
        "a token used twice",
        public.reset_password(reset(resetting.clone(), &second)).await,
    );

    // A second factor.
    let ada = house.login(&email, &second).await;
    let enroll = |password: &str| EnrollTotpRequest {
        password: password.to_owned(),
    };
    seen.refused("a wrong password", ada.auth(&house).enroll_totp(enroll(&first)).await);
    let secret = ada.auth(&house).enroll_totp(enroll(&second)).await.expect("EnrollTotp");
    let secret = secret.into_inner().secret;
    let wrong = ConfirmTotpRequest {
        code: totp::code(&secret, -1_000),
    };
    seen.refused("an old code", ada.auth(&house).confirm_totp(wrong).await);
    let codes = confirm(&house, &ada, &secret).await;
    let mut guarded = LoginRequest {
        email: email.clone(),
        password: second.clone(),
        ..Default::default()
    };
    seen.refused("no second factor", login(&house, &guarded).await);
    guarded.second_factor_code = codes[0].clone();
    let inside = login(&house, &guarded).await.expect("a recovery code").tokens.unwrap();
    seen.refused("a recovery code used twice", login(&house, &guarded).await);
    let inside = ada.clone().holding(inside);
    let renew = RegenerateRecoveryCodesRequest {
        password: second.clone(),
        code: totp::code(&secret, 0),
    };
    let renewed = inside.auth(&house).regenerate_recovery_codes(renew).await;
    let renewed = renewed.expect("RegenerateRecoveryCodes").into_inner().recovery_codes;
    let disable = |code: &str| DisableTotpRequest {
        password: second.clone(),
        code: code.to_owned(),
    };
    seen.refused(
        "a void recovery code",
        inside.auth(&house).disable_totp(disable(&codes[1])).await,
    );
    inside
        .auth(&house)
        .disable_totp(disable(&renewed[0]))
        .await
        .expect("DisableTotp");

    // A domain, a key's successor, and a new password with its session.
    let domain = format!("{}.example.test", Uuid::new_v4().simple());
    let request = RequestDomainVerificationRequest {
        domain: domain.clone(),
        request_id: request_id(),
        ..Default::default()
    };
    let mut organizations = inside.organizations(&house);
    organizations
        .request_domain_verification(request)
        .await
        .expect("RequestDomainVerification");
    let proving = watch.token(&format!("postmaster@{domain}")).await.unwrap();
    let verify = |token: String| VerifyDomainRequest {
        token,
        request_id: request_id(),
    };
    seen.refused(
        "a forged token",
        organizations.verify_domain(verify(forged(&proving))).await,
    );
    organizations
        .verify_domain(verify(proving.clone()))
        .await
        .expect("VerifyDomain");
    let key = house.api_key(&inside, &["designs.*.*"]).await;
    let listed = inside
        .api_keys(&house)
        .list_api_keys(api::identity::v1::ListApiKeysRequest::default())
        .await;
    let rotate = RotateApiKeyRequest {
        api_key_id: listed.expect("ListApiKeys").into_inner().api_keys[0].id.clone(),
        request_id: request_id(),
        ..Default::default()
    };
    let successor = inside
        .api_keys(&house)
        .rotate_api_key(rotate.clone())
        .await
        .expect("RotateApiKey");
    seen.refused("a key told twice", inside.api_keys(&house).rotate_api_key(rotate).await);
    for token in [&inside.access, &inside.refresh, &key.secret, &forged(&inside.refresh)] {
        let request = IntrospectTokenRequest { token: token.clone() };
        inside
            .auth(&house)
            .introspect_token(request)
            .await
            .expect("IntrospectToken");
    }
    let third = format!("canary third {}", Uuid::new_v4().simple());
    let change = ChangePasswordRequest {
        current_password: second.clone(),
        new_password: third.clone(),
        request_id: request_id(),
    };
    let changed = inside
        .auth(&house)
        .change_password(change)
        .await
        .expect("ChangePassword");
    let changed = changed.into_inner().tokens.unwrap();
    seen.refused(
        "a former password",
        house.try_login(&email, &second).await.map(|_: Person| ()),
    );

    let successor = successor.into_inner().secret;
    let mut secrets = vec![
        ("a password", first.as_str()),
        ("a second password", &second),
        ("a third password", &third),
        ("a sign-up's token", &joining),
        ("a reset's token", &resetting),
        ("a domain's token", &proving),
        ("a device's token", &device),
        ("a second factor's secret", &secret),
        ("an API key", secret_part(&key.secret)),
        ("an API key's successor", secret_part(&successor)),
        ("a refresh token", &inside.refresh),
        ("a new password's access token", signature(&changed.access_token)),
        ("a new password's refresh token", &changed.refresh_token),
    ];
    let bare: Vec<String> = codes.iter().chain(&renewed).map(|code| code.replace('-', "")).collect();
    for code in codes.iter().chain(&renewed).chain(&bare) {
        secrets.push(("a recovery code", code));
    }
    let mut needles = needles(&house, &secrets);
    needles.push(Needle::key(
        "a second factor's key",
        &hex::encode(totp::base32(&secret)),
    ));

    let mut hay = gather(&house).await;
    hay.push(Hay {
        kind: Kind::Redis,
        place: "what was said".to_owned(),
        text: heard.lock().await.clone(),
    });
    hay.extend(seen.0);
    assert!(
        hay.iter()
            .any(|hay| hay.kind == Kind::Log && hay.text.contains("EnrollTotp"))
    );
    let found: Vec<_> = search(&needles, &hay).into_iter().map(|(_, found)| found).collect();
    assert!(found.is_empty(), "{found:#?}");

    plant(&house, &joining).await;
    let found: BTreeSet<_> = search(&needles, &gather(&house).await)
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(found, [Kind::Log, Kind::Event, Kind::Redis, Kind::Table].into());
}
