//! Every right of every user, on every name that matters: what is listed here is allowed, and all else is refused.

use lapin::Connection;

use super::tried::{Refusal, Tried};
use crate::support::rabbitmq::OwnNode;
use crate::support::vhost::{PASSWORD, USERS, Vhost, deployed};

/// Names of the worker's, of consumers' and of the broker's own, and one of nobody's. Rights are about names: there need not be
/// anything of that name, and a queue's and an exchange's are the same.
const NAMES: [&str; 26] = [
    "kf.commands",
    "kf.commands.0",
    "kf.commands.x",
    "kf.commands2",
    "kf.dead",
    "kf.events",
    "kf.events2",
    "kf.deferred.1m",
    "kf.partitions",
    "kf.parked",
    "kf.parked-owner",
    "kf.parking",
    "kf.unparking",
    "kf.sqlite-owner",
    "kf.check-1",
    "kf-replies-1",
    "kf-watch-1",
    "kfxcommands",
    "mykf.commands",
    "hr-results",
    "hr-results-parked",
    "hr-results2",
    "amq.default",
    "amq.topic",
    "amq.rabbitmq.trace",
    "mine",
];

/// A user and the names on which it has each right.
struct Rights {
    user: &'static str,
    configure: &'static [&'static str],
    write: &'static [&'static str],
    read: &'static [&'static str],
}

/// What a producer has.
const fn producer(user: &'static str) -> Rights {
    Rights { user, configure: &[], write: &["kf.commands"], read: &[] }
}

const RIGHTS: [Rights; 8] = [
    Rights {
        user: "kf-worker",
        configure: &[
            "kf.commands",
            "kf.commands.0",
            "kf.commands.x",
            "kf.commands2",
            "kf.dead",
            "kf.events",
            "kf.events2",
            "kf.deferred.1m",
            "kf.partitions",
            "kf.parked",
            "kf.parked-owner",
            "kf.parking",
            "kf.unparking",
            "kf.sqlite-owner",
            "kf.check-1",
        ],
        write: &[
            "kf.commands",
            "kf.commands.0",
            "kf.commands.x",
            "kf.events",
            "kf.deferred.1m",
            "kf.partitions",
            "kf.parked",
            "kf.parking",
            "kf.check-1",
            "amq.default",
        ],
        read: &["kf.commands", "kf.commands.0", "kf.commands.x", "kf.deferred.1m", "kf.partitions", "kf.parked", "kf.parking"],
    },
    Rights {
        user: "kf-worker-checked",
        configure: &["kf.parked", "kf.parked-owner", "kf.sqlite-owner", "kf.check-1"],
        write: &["kf.dead", "kf.events", "kf.deferred.1m", "kf.check-1", "amq.default"],
        read: &["kf.commands", "kf.commands.0", "kf.partitions", "kf.parked", "kf.parking"],
    },
    producer("hr-onboarding"),
    producer("hr-offboarding"),
    Rights { user: "hr-desk", configure: &["kf-replies-1"], write: &["kf.commands"], read: &["kf-replies-1"] },
    Rights { user: "hr-results", configure: &[], write: &[], read: &["hr-results"] },
    Rights {
        user: "kf-operator",
        configure: &["kf-watch-1"],
        write: &["kf.commands", "kf.commands.0", "kf.deferred.1m", "kf.parked", "kf.parking", "kf.unparking", "kf-watch-1"],
        read: &["kf.dead", "kf.events", "kf-watch-1"],
    },
    Rights { user: "kf-monitoring", configure: &[], write: &[], read: &[] },
];

/// The names for which the broker doesn't refuse what is tried. It looks at rights before it looks whether there is such a thing.
async fn allowed<'a>(
    vhost: &Vhost,
    user: &str,
    connection: &Connection,
    tried: impl Fn(&'a str) -> (Tried<'a>, &'static str),
) -> Vec<&'a str> {
    let mut allowed = Vec::new();
    for name in NAMES {
        let (request, kind) = tried(name);
        match request.by(connection).await {
            Err(refusal) if refusal.0 == 403 => {
                assert_eq!(refusal, Refusal::access(&format!("{kind} '{name}'"), &vhost.name, user), "{request:?}");
            }
            _ => allowed.push(name),
        }
    }
    allowed
}

/// The exchange of a name; the default exchange has none.
fn exchange(name: &str) -> &str {
    if name == "amq.default" { "" } else { name }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_user_has_the_rights_that_it_needs_and_no_other() {
    let vhost = Vhost::new().await;
    for Rights { user, configure, write, read } in RIGHTS {
        let connection = vhost.connect(user).await;
        // Deleting comes last: it is what `configure` is tried with.
        assert_eq!(allowed(&vhost, user, &connection, |name| (Tried::Get(name), "queue")).await, read, "{user} reads");
        let publish = |name| (Tried::Publish(exchange(name), "anna@test"), "exchange");
        assert_eq!(allowed(&vhost, user, &connection, publish).await, write, "{user} writes");
        assert_eq!(allowed(&vhost, user, &connection, |name| (Tried::Delete(name), "queue")).await, configure, "{user} configures");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_monitoring_has_a_tag_and_nobody_comes_to_another_vhost() {
    let mut vhost = Vhost::new().await;
    let users = OwnNode::shared().control(&["list_users"]);
    let tags = |user: &str| users.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix('\t')).map(str::to_owned);
    for user in USERS {
        let expected = if user == "kf-monitoring" { "[monitoring]" } else { "[]" };
        assert_eq!(tags(user).as_deref(), Some(expected), "{user} in {}:\n{users}", vhost.name);
    }
    let permitted = OwnNode::shared().control(&["list_permissions", "-p", &vhost.name, "--no-table-headers"]);
    let mut permitted: Vec<&str> = permitted.lines().filter_map(|line| line.split('\t').next()).collect();
    permitted.sort_unstable();
    let mut users = USERS;
    users.sort_unstable();
    assert_eq!(permitted, users);

    vhost.name = "%2f".to_owned();
    for user in USERS {
        let error = vhost.log_in(user, PASSWORD).await.expect_err("it is refused");
        assert_eq!(Refusal::of(&error), Refusal(530, format!("NOT_ALLOWED - access to vhost '/' refused for user '{user}'")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_sends_only_for_its_official_account_and_others_who_may_send_for_all() {
    let vhost = Vhost::new().await;
    vhost.import(&deployed("topology.json")).await;
    let own = ["a@test", "A_9@test", "abcdefghij@test"];
    let strange = ["a@other", "a@testing", "a@test.x", "x.a@test", "abcdefghijk@test", "a-b@test", "@test", "test", "#", ""];
    for user in ["hr-onboarding", "hr-offboarding", "hr-desk"] {
        let connection = vhost.connect(user).await;
        for key in own {
            assert_eq!(Tried::Publish("kf.commands", key).by(&connection).await, Ok(()), "{user} {key}");
        }
        for key in strange {
            let refusal = Refusal::access(&format!("topic '{key}' in exchange 'kf.commands'"), &vhost.name, user);
            assert_eq!(Tried::Publish("kf.commands", key).by(&connection).await, Err(refusal), "{user} {key}");
        }
    }
    for user in ["kf-worker", "kf-operator"] {
        let connection = vhost.connect(user).await;
        for key in own.into_iter().chain(strange) {
            assert_eq!(Tried::Publish("kf.commands", key).by(&connection).await, Ok(()), "{user} {key}");
        }
    }
}
