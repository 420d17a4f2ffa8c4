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
