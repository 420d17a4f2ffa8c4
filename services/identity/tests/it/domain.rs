//! Domains: asked for, proven, moved and taken away.

use api::identity::v1::{get_organization_request::Key, *};
use futures_util::future::join;
use kit::failpoint::{Action, arm};
use tonic::Status;

use crate::house::{House, Person, eventually, reason, violations};

async fn ask(house: &House, who: &Person, domain: &str, mailbox: DomainMailbox) -> Result<(), Status> {
    let request = RequestDomainVerificationRequest {
        domain: domain.to_owned(),
        mailbox: mailbox.into(),
        request_id: String::new(),
    };
    let answer = house
        .organizations(who.token())
        .request_domain_verification(request)
        .await?
        .into_inner();
    assert!(answer.expires_at.is_some());
    Ok(())
}

async fn token(house: &House, who: &Person, domain: &str) -> String {
    ask(house, who, domain, DomainMailbox::Unspecified).await.unwrap();
    let address = format!("postmaster@{domain}");
    house
        .served
        .mail()
        .wait(&address, "Confirm a domain")
        .await
        .token()
        .to_owned()
}

async fn verify(house: &House, who: &Person, token: &str) -> Result<Vec<String>, Status> {
    let request = VerifyDomainRequest {
        token: token.to_owned(),
        request_id: String::new(),
    };
    let answer = house
        .organizations(who.token())
        .verify_domain(request)
        .await?
        .into_inner();
    Ok(answer.organization.unwrap().domains)
}

async fn remove(house: &House, who: &Person, domain: &str) -> Result<Vec<String>, Status> {
    let request = RemoveDomainRequest {
        domain: domain.to_owned(),
        request_id: String::new(),
    };
    let answer = house
        .organizations(who.token())
        .remove_domain(request)
        .await?
        .into_inner();
    Ok(answer.organization.unwrap().domains)
}

async fn mine(house: &House, who: &Person) -> Organization {
    let request = GetOrganizationRequest {
        key: Some(Key::Id(who.org.clone())),
    };
    let found = house
        .organizations(who.token())
        .get_organization(request)
        .await
        .unwrap();
    found.into_inner().organization.unwrap()
}

#[tokio::test]
async fn a_domain_is_proven_by_its_mailbox_once_and_taken_away() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let before = mine(&house, &ada).await.etag;
    let first = token(&house, &ada, "example.org").await;
    assert_eq!(verify(&house, &ada, &first).await.unwrap(), ["example.org"]);
    assert_ne!(mine(&house, &ada).await.etag, before);
    assert_eq!(reason(verify(&house, &ada, &first).await), "EMAIL_TOKEN_INVALID");
    ask(&house, &ada, "A.example.org", DomainMailbox::Webmaster)
        .await
        .unwrap();
    let other = house
        .served
        .mail()
        .wait("webmaster@a.example.org", "Confirm a domain")
        .await;
    assert_eq!(
        verify(&house, &ada, other.token()).await.unwrap(),
        ["a.example.org", "example.org"]
    );
    assert_eq!(remove(&house, &ada, "EXAMPLE.org").await.unwrap(), ["a.example.org"]);
    assert_eq!(reason(remove(&house, &ada, "example.org").await), "RESOURCE_NOT_FOUND");
    assert_eq!(house.audited("identity.VerifyDomain").await.len(), 2);
}

#[tokio::test]
async fn a_domain_changes_hands_on_a_new_proof() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let of_ada = token(&house, &ada, "example.org").await;
    assert_eq!(reason(verify(&house, &eve, &of_ada).await), "EMAIL_TOKEN_INVALID");
    verify(&house, &ada, &of_ada).await.unwrap();
    let seen = mine(&house, &ada).await;
    ask(&house, &eve, "example.org", DomainMailbox::Hostmaster)
        .await
        .unwrap();
    let of_eve = house
        .served
        .mail()
        .wait("hostmaster@example.org", "Confirm a domain")
        .await;
    assert_eq!(verify(&house, &eve, of_eve.token()).await.unwrap(), ["example.org"]);
    let after = mine(&house, &ada).await;
    assert_eq!(after.domains, Vec::<String>::new());
    assert_ne!(after.etag, seen.etag);
    let [lost] = &house.audited("identity.LoseDomain").await[..] else {
        panic!("one event")
    };
    assert_eq!(
        (&lost.organization_id, lost.resource.clone().unwrap().id.as_str()),
        (&ada.org, "example.org")
    );
    // Of who has it now the former owner learns nothing.
    assert!(!format!("{lost:?}").contains(&eve.user) && lost.caller_address.is_empty());
    assert_eq!(reason(remove(&house, &ada, "example.org").await), "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn of_two_who_claim_a_domain_at_once_the_second_takes_it_from_the_first() {
    let house = House::open().await;
    let (ada, eve) = (house.person("ada").await, house.person("eve").await);
    let domain = "claimed-at-once.example.org";
    let of_ada = token(&house, &ada, domain).await;
    ask(&house, &eve, domain, DomainMailbox::Hostmaster).await.unwrap();
    let letter = house.served.mail();
    let letter = letter.wait(&format!("hostmaster@{domain}"), "Confirm a domain").await;
    let claimed = arm(format!("identity.domain_claimed/{domain}"), Action::Hold).only(1);
    let second = async {
        claimed.held(1).await;
        let admin = house.served.database.admin().await;
        let waits = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        let release = async {
            eventually("the second waits", async || {
                admin.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0
            })
            .await;
            claimed.release();
        };
        join(verify(&house, &eve, letter.token()), release).await.0
    };
    let (first, second) = join(verify(&house, &ada, &of_ada), second).await;
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (vec![domain.to_owned()], vec![domain.to_owned()])
    );
    assert_eq!(mine(&house, &ada).await.domains, Vec::<String>::new());
    let lost = house.audited("identity.LoseDomain").await;
    let lost: Vec<_> = lost.iter().map(|event| event.organization_id.as_str()).collect();
    assert_eq!(lost, [ada.org.as_str()]);
}

#[tokio::test]
async fn what_is_no_token_is_refused_alike() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let good = token(&house, &ada, "example.org").await;
    let mut forged = good.clone().into_bytes();
    forged[50] = if forged[50] == b'A' { b'B' } else { b'A' };
    for wrong in ["nonsense", "b3d_", std::str::from_utf8(&forged).unwrap()] {
        assert_eq!(reason(verify(&house, &ada, wrong).await), "EMAIL_TOKEN_INVALID");
    }
    assert_eq!(violations(&verify(&house, &ada, "").await.unwrap_err()), ["token"]);
    house.sql("update domain_verifications set expires_at = now()").await;
    assert_eq!(reason(verify(&house, &ada, &good).await), "EMAIL_TOKEN_INVALID");
    for wrong in ["", "com", "127.0.0.1", "a_b.com"] {
        let refused = ask(&house, &ada, wrong, DomainMailbox::Unspecified).await.unwrap_err();
        assert_eq!(violations(&refused), ["domain"], "{wrong}");
        assert_eq!(violations(&remove(&house, &ada, wrong).await.unwrap_err()), ["domain"]);
    }
    let viewer = house.colleague(&ada, "grace", "viewer").await;
    assert_eq!(
        reason(ask(&house, &viewer, "example.org", DomainMailbox::Unspecified).await),
        "PERMISSION_MISSING"
    );
}

#[tokio::test]
async fn one_token_used_twice_at_once_works_once() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    for round in 0..5 {
        let token = token(&house, &ada, &format!("d{round}.example.org")).await;
        let (one, other) = join(verify(&house, &ada, &token), verify(&house, &ada, &token)).await;
        assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} {other:?}");
    }
    assert_eq!(house.count("organization_domains").await, 5);
}

#[tokio::test]
async fn a_domain_gets_three_messages_an_hour_and_who_asks_for_more_sees_no_difference() {
    let house = House::open_at_scale(1).await;
    let ada = house.person("ada").await;
    let mailboxes = [
        DomainMailbox::Postmaster,
        DomainMailbox::Hostmaster,
        DomainMailbox::Webmaster,
        DomainMailbox::Postmaster,
        DomainMailbox::Webmaster,
    ];
    for mailbox in mailboxes {
        ask(&house, &ada, "example.org", mailbox).await.unwrap();
    }
    assert_eq!(house.count("domain_verifications").await, 3);
    assert_eq!(
        house
            .count("outbound_messages where kind = 'domain_verification'")
            .await,
        3
    );
}
