//! Messages on their way out: sealed until sent, sent once, and lost never.

use std::collections::BTreeSet;

use kit::{
    config::Env,
    failpoint::{Action, arm},
};
use testkit::Served;

use crate::{
    house::{House, eventually, sign_up},
    smtp::{Smtp, Turn},
    without::fails_without,
};

const FROM: (&str, &str) = ("BOARD3_MAIL_FROM", "Board3 <board3@example.com>");

/// A house whose messages go to this server.
async fn house_with(smtp: &Smtp) -> House {
    let setting = smtp.setting();
    House {
        served: testkit::serve_with(identity::SERVICE, &[("BOARD3_MAIL", &setting), FROM]).await,
    }
}

/// How many messages there are, how many of them are sent, and how many still hold what they say.
async fn table(served: &Served) -> (i64, i64, i64) {
    let admin = served.database.admin().await;
    let query = "select count(*), count(sent_at), count(content) from identity.outbound_messages";
    let row = admin.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// Whom a message that was taken is for.
fn recipient(message: &str) -> &str {
    let mut lines = message.lines();
    lines.find_map(|line| line.strip_prefix("To: ")).unwrap()
}

/// Everything that waits is due: nobody waits for the clock.
async fn hurry(house: &House) {
    house
        .sql("update outbound_messages set next_attempt_at = now() where sent_at is null")
        .await;
}

#[tokio::test]
async fn nobody_who_reads_the_table_learns_whom_a_message_is_for_or_what_it_says() {
    // Into a directory that is gone, so that messages stay in the table.
    let house = House::open().await;
    std::fs::remove_dir_all(house.served.mail().path()).unwrap();
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    let admin = house.served.database.admin().await;
    for table in ["outbound_messages", "sign_ups"] {
        let query = format!("select row_to_json(t)::text, t.content from identity.{table} t");
        let rows = admin.query(&query, &[]).await.unwrap();
        let [row] = rows.as_slice() else { panic!("one row") };
        let (row, content): (String, Vec<u8>) = (row.get(0), row.get(1));
        for canary in ["ada@", "example", "b3v_", "Confirm", "Board3", "bcrypt"] {
            assert!(!row.contains(canary), "{canary} in {row}");
            assert!(
                !content.windows(canary.len()).any(|part| part == canary.as_bytes()),
                "{canary}"
            );
        }
    }
    std::fs::create_dir_all(house.served.mail().path()).unwrap();
    house.served.mail().wait("ada@example.com", "Confirm").await;
    eventually("the content goes", async || table(&house.served).await == (1, 1, 0)).await;
}

#[tokio::test]
async fn a_message_that_is_refused_or_cut_off_is_sent_again_and_none_is_lost() {
    let smtp = Smtp::start(&[Turn::Refuse, Turn::Drop, Turn::Refuse, Turn::Drop]).await;
    let house = house_with(&smtp).await;
    let names = ["ada", "grace", "eve"];
    for name in names {
        house.auth("").sign_up(sign_up(name)).await.unwrap();
    }
    eventually("all are sent", async || {
        hurry(&house).await;
        table(&house.served).await == (3, 3, 0)
    })
    .await;
    let taken = smtp.taken();
    let mut recipients: Vec<_> = taken.iter().map(|message| recipient(message)).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, ["ada@example.com", "eve@example.com", "grace@example.com"]);
    for message in &taken {
        assert!(message.contains("\r\nFrom: Board3 <board3@example.com>\r\n") || message.starts_with("From: "));
        assert!(message.contains("\r\nb3v_"), "{message}");
    }
    assert_eq!(smtp.seen().len(), 7);
}

#[tokio::test]
async fn a_message_whose_taking_was_not_heard_of_is_sent_again_under_the_same_id() {
    let smtp = Smtp::start(&[Turn::TakeSilently]).await;
    let house = house_with(&smtp).await;
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    eventually("it is sent", async || {
        hurry(&house).await;
        table(&house.served).await == (1, 1, 0)
    })
    .await;
    let taken = smtp.taken();
    let id = |message: &str| {
        message
            .lines()
            .find(|line| line.starts_with("Message-ID: "))
            .map(str::to_owned)
    };
    assert_eq!((taken.len(), id(&taken[0])), (2, id(&taken[1])));
    assert!(id(&taken[0]).is_some());
}

#[tokio::test]
async fn a_mailer_that_dies_before_it_has_noted_what_it_sent_sends_again() {
    let smtp = Smtp::start(&[]).await;
    let house = house_with(&smtp).await;
    // This house's mailer, and no other test's.
    let mut env = house.served.env.iter();
    let (_, instance) = env.find(|(name, _)| name == "BOARD3_INSTANCE").unwrap();
    let dying = arm(format!("mail.sent/{instance}"), Action::Error).only(1);
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    eventually("it dies", async || dying.hits() > 0).await;
    // It stays out of everybody's reach until its bearer counts as dead.
    assert_eq!((smtp.taken().len(), table(&house.served).await), (1, (1, 0, 1)));
    drop(dying);
    hurry(&house).await;
    eventually("it is sent", async || table(&house.served).await == (1, 1, 0)).await;
    assert_eq!(smtp.taken().len(), 2);
}

#[tokio::test]
async fn two_replicas_send_each_message_once() {
    let smtp = Smtp::start(&[]).await;
    let house = house_with(&smtp).await;
    let replica = kit::service::start(identity::SERVICE, Env::of(house.served.env.clone()))
        .await
        .unwrap();
    let names: Vec<_> = (0..24).map(|number| format!("person-{number}")).collect();
    let asked = names.iter().map(|name| {
        let mut client = house.auth("");
        async move { client.sign_up(sign_up(name)).await.unwrap() }
    });
    futures_util::future::join_all(asked).await;
    eventually("all are sent", async || table(&house.served).await == (24, 24, 0)).await;
    let taken = smtp.taken();
    let recipients: BTreeSet<_> = taken.iter().map(|message| recipient(message)).collect();
    assert_eq!((taken.len(), recipients.len()), (24, 24));
    drop(replica);
}

#[tokio::test]
async fn a_message_that_nobody_takes_for_three_days_is_given_up_and_kept() {
    let smtp = Smtp::start(&[Turn::Refuse; 100]).await;
    let house = house_with(&smtp).await;
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    eventually("it is tried", async || !smtp.seen().is_empty()).await;
    house
        .sql("update outbound_messages set created_at = now() - interval '73 hours'")
        .await;
    let admin = house.served.database.admin().await;
    eventually("it is given up", async || {
        hurry(&house).await;
        let query =
            "select count(*) from identity.outbound_messages where given_up_at is not null and content is not null";
        admin.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let tried = smtp.seen().len();
    hurry(&house).await;
    // Another message goes its way, and this one is not among those that are due.
    house.auth("").sign_up(sign_up("grace")).await.unwrap();
    eventually("the other is tried", async || smtp.seen().len() > tried).await;
    let metrics = house.served.running.kit.metrics.render();
    assert!(
        metrics.contains("outbound_messages{outcome=\"given_up\"} 1"),
        "{metrics}"
    );
    assert!(smtp.taken().is_empty());
}

#[tokio::test]
async fn a_message_that_the_server_refuses_for_ever_is_given_up_at_once_and_the_trail_says_so() {
    let smtp = Smtp::start(&[Turn::Reject]).await;
    let house = house_with(&smtp).await;
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    let given_up = "outbound_messages where given_up_at is not null and attempts = 1";
    eventually("it is given up", async || house.count(given_up).await == 1).await;
    hurry(&house).await;
    // Another message goes its way, and this one is not among those that are due.
    house.auth("").sign_up(sign_up("grace")).await.unwrap();
    eventually("the other is sent", async || smtp.taken().len() == 1).await;
    assert_eq!(smtp.seen(), [Turn::Reject, Turn::Take]);
    let [event] = &house.audited("identity.GiveUpMessage").await[..] else {
        panic!("one event")
    };
    assert_eq!(event.resource.clone().unwrap().r#type, "message");
    assert!(!format!("{event:?}").contains("example.com"));
    let metrics = house.served.running.kit.metrics.render();
    assert!(
        metrics.contains("outbound_messages{outcome=\"given_up\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_one_replica_has_in_hand_another_passes_by() {
    let smtp = Smtp::start(&[]).await;
    let house = house_with(&smtp).await;
    let replica = kit::service::start(identity::SERVICE, Env::of(house.served.env.clone()))
        .await
        .unwrap();
    let mut env = house.served.env.iter();
    let (_, instance) = env.find(|(name, _)| name == "BOARD3_INSTANCE").unwrap();
    let claimed = arm(format!("mail.claimed/{instance}"), Action::Hold);
    house.auth("").sign_up(sign_up("ada")).await.unwrap();
    claimed.held(1).await;
    house.auth("").sign_up(sign_up("grace")).await.unwrap();
    let admin = house.served.database.admin().await;
    let waits = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%outbound_messages%'";
    eventually("the other takes what is left, or waits", async || {
        claimed.hits() > 1 || admin.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    let in_hand = claimed.hits();
    claimed.release();
    eventually("both are sent", async || table(&house.served).await == (2, 2, 0)).await;
    let taken = smtp.taken();
    let recipients: BTreeSet<_> = taken.iter().map(|message| recipient(message)).collect();
    assert_eq!((taken.len(), recipients.len(), in_hand), (2, 2, 2));
    assert_eq!(house.count("outbound_messages where attempts = 1").await, 2);
    drop(replica);
}

#[tokio::test]
async fn without_the_claim_two_replicas_want_the_same_message() {
    let test = "mail::what_one_replica_has_in_hand_another_passes_by";
    assert!(fails_without("identity.mail_claim", test).await);
}

#[tokio::test]
async fn the_mailers_queries_are_planned_on_their_indexes() {
    let house = House::open().await;
    let admin = house.served.database.admin().await;
    admin
        .batch_execute(
            "set search_path = identity; set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off",
        )
        .await
        .unwrap();
    for (index, query) in [
        (
            "outbound_messages_due_idx",
            "select id from outbound_messages where sent_at is null and given_up_at is null
               and next_attempt_at <= clock_timestamp() order by next_attempt_at limit 8 for update skip locked",
        ),
        (
            "outbound_messages_sent_at_idx",
            "delete from outbound_messages where sent_at < now() - interval '1 day'",
        ),
        (
            "sign_ups_address_hash_idx",
            "select id from sign_ups where org_id = '00000000-0000-0000-0000-000000000001' and address_hash = ''",
        ),
        (
            "sign_ups_expires_at_idx",
            "delete from sign_ups where org_id = '00000000-0000-0000-0000-000000000001' and expires_at < now()",
        ),
        (
            "password_resets_user_id_idx",
            "delete from password_resets where org_id = '00000000-0000-0000-0000-000000000001'
               and user_id = '00000000-0000-0000-0000-000000000001'",
        ),
        (
            "password_resets_expires_at_idx",
            "delete from password_resets where org_id = '00000000-0000-0000-0000-000000000001' and expires_at < now()",
        ),
    ] {
        let plan = admin.query(&format!("explain {query}"), &[]).await.unwrap();
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
    }
}

#[tokio::test]
async fn a_house_without_mail_does_not_open() {
    let good = House::open().await;
    let without = |name: &str, value: &str| {
        let mut env = good.served.env.clone();
        env.retain(|(other, _)| other != name);
        env.push((name.to_owned(), value.to_owned()));
        env.push((FROM.0.to_owned(), FROM.1.to_owned()));
        Env::of(env)
    };
    for (value, told) in [
        ("", "BOARD3_MAIL is not set"),
        ("sendmail", "BOARD3_MAIL must be"),
        (
            "smtp://user:s3cr3t@localhost?tls=perhaps",
            "BOARD3_MAIL takes no parameter",
        ),
    ] {
        let problems = kit::service::start(identity::SERVICE, without("BOARD3_MAIL", value)).await;
        let problems = problems.err().unwrap().to_string();
        assert!(problems.contains(told) && !problems.contains("s3cr3t"), "{problems}");
    }
}
