//! What the broker refuses producers, consumers, the operator and the worker, word by word, and what it lets them do.

use lapin::options::{BasicGetOptions, BasicRejectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::tried::Tried::{Bind, Consume, DeclareExchange, DeclareOwnQueue, DeclareQueue, Delete, Get, Publish, Purge, SendAs, Unbind};
use super::tried::{Refusal, Tried};
use crate::support::eventually;
use crate::support::vhost::{Vhost, deployed};

/// What comes of a request.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Done,
    /// 403, for want of a right on this.
    NoAccess(&'static str),
    /// Another code, and a part of the words.
    Refused(u16, &'static str),
}

use Expected::{Done, NoAccess, Refused};

/// One request, and what comes of it.
type Line = (Tried<'static>, Expected);

/// What holds for all producers alike.
const PRODUCERS: &[Line] = &[
    // The broker takes what has no `user_id`; the worker's rules don't.
    (Publish("kf.commands", "anna@test"), Done),
    (Publish("kf.commands", "x@other"), NoAccess("topic 'x@other' in exchange 'kf.commands'")),
    (Publish("kf.commands", ""), NoAccess("topic '' in exchange 'kf.commands'")),
    (Publish("kf.events", "add.succeeded"), NoAccess("exchange 'kf.events'")),
    (Publish("kf.deferred.1m", "anna@test"), NoAccess("exchange 'kf.deferred.1m'")),
    (Publish("kf.partitions", "anna@test"), NoAccess("exchange 'kf.partitions'")),
    (Publish("amq.topic", "anna@test"), NoAccess("exchange 'amq.topic'")),
    (Publish("", "kf.commands"), NoAccess("exchange 'amq.default'")),
    (Publish("", "kf.dead"), NoAccess("exchange 'amq.default'")),
    (Publish("", "hr-results"), NoAccess("exchange 'amq.default'")),
    (Get("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Get("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Get("kf.deferred.1m"), NoAccess("queue 'kf.deferred.1m'")),
    (Get("hr-results"), NoAccess("queue 'hr-results'")),
    (Consume("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Consume("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Consume("hr-results"), NoAccess("queue 'hr-results'")),
    (Purge("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Purge("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Purge("hr-results"), NoAccess("queue 'hr-results'")),
    (Delete("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Delete("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Delete("hr-results"), NoAccess("queue 'hr-results'")),
    (DeclareQueue("mine"), NoAccess("queue 'mine'")),
    (DeclareExchange("mine"), NoAccess("exchange 'mine'")),
    // They may write to the exchange of that name, and that is a right on the queue's name as well.
    (Bind("kf.commands", "kf.commands"), NoAccess("exchange 'kf.commands'")),
    (Bind("kf.commands", "kf.events"), NoAccess("exchange 'kf.events'")),
    (Unbind("kf.commands", "kf.commands"), NoAccess("exchange 'kf.commands'")),
    (Bind("kf.dead", "kf.commands"), NoAccess("queue 'kf.dead'")),
];

/// Of one who waits for replies.
const DESK: &[Line] = &[
    (SendAs("hr-desk"), Done),
    (DeclareOwnQueue("kf-replies-2"), Done),
    (Consume("kf-replies-2"), Done),
    (Bind("kf-replies-2", "kf.events"), NoAccess("queue 'kf-replies-2'")),
    (Bind("kf-replies-2", "kf.commands"), NoAccess("queue 'kf-replies-2'")),
    (Publish("", "kf-replies-2"), NoAccess("exchange 'amq.default'")),
    (DeclareOwnQueue("kf-reply-2"), NoAccess("queue 'kf-reply-2'")),
    (Get("kf-replies-others"), Refused(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'kf-replies-others'")),
    (Consume("kf-replies-others"), Refused(405, "RESOURCE_LOCKED")),
    (Delete("kf-replies-others"), Refused(405, "RESOURCE_LOCKED")),
];

const CONSUMER: &[Line] = &[
    (Get("hr-results"), Done),
    (Consume("hr-results"), Done),
    // Who reads a queue can empty it.
    (Purge("hr-results"), Done),
    (Get("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Get("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Consume("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Get("hr-results-parked"), NoAccess("queue 'hr-results-parked'")),
    (Publish("kf.commands", "anna@test"), NoAccess("exchange 'kf.commands'")),
    (Publish("kf.events", "add.succeeded"), NoAccess("exchange 'kf.events'")),
    (Publish("", "hr-results"), NoAccess("exchange 'amq.default'")),
    (Bind("hr-results", "kf.events"), NoAccess("queue 'hr-results'")),
    (Bind("hr-results", "kf.commands"), NoAccess("queue 'hr-results'")),
    (Unbind("hr-results", "kf.events"), NoAccess("queue 'hr-results'")),
    (DeclareQueue("hr-results"), NoAccess("queue 'hr-results'")),
    (DeclareQueue("mine"), NoAccess("queue 'mine'")),
    (Delete("hr-results"), NoAccess("queue 'hr-results'")),
];

const OPERATOR: &[Line] = &[
    (Get("kf.dead"), Done),
    (Purge("kf.dead"), Done),
    (Publish("kf.commands", "anna@other"), Done),
    (DeclareOwnQueue("kf-watch-1"), Done),
    (Bind("kf-watch-1", "kf.events"), Done),
    (Consume("kf-watch-1"), Done),
    (Bind("kf-watch-1", "kf.commands"), NoAccess("exchange 'kf.commands'")),
    (DeclareOwnQueue("mine"), NoAccess("queue 'mine'")),
    (Publish("kf.events", "add.succeeded"), NoAccess("exchange 'kf.events'")),
    (Publish("", "kf.dead"), NoAccess("exchange 'amq.default'")),
    (Get("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Consume("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Get("hr-results"), NoAccess("queue 'hr-results'")),
    (Delete("kf.dead"), NoAccess("queue 'kf.dead'")),
];

const WORKER: &[Line] = &[
    (Consume("kf.commands"), Done),
    (Publish("kf.events", "add.succeeded"), Done),
    (Publish("kf.deferred.1m", "anna@test"), Done),
    (Publish("", "kf.dead"), Done),
    (Publish("kf.commands", "anna@test"), NoAccess("exchange 'kf.commands'")),
    (Get("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Get("hr-results"), NoAccess("queue 'hr-results'")),
    (Bind("kf.commands", "kf.commands"), NoAccess("queue 'kf.commands'")),
    (DeclareQueue("kf.commands.1"), NoAccess("queue 'kf.commands.1'")),
    (Delete("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Delete("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Delete("kf.deferred.1m"), NoAccess("queue 'kf.deferred.1m'")),
];

/// Nothing may be done with the numbers that monitoring sees.
const MONITORING: &[Line] = &[
    (Publish("kf.commands", "anna@test"), NoAccess("exchange 'kf.commands'")),
    (Get("kf.commands"), NoAccess("queue 'kf.commands'")),
    (Get("kf.dead"), NoAccess("queue 'kf.dead'")),
    (Purge("kf.dead"), NoAccess("queue 'kf.dead'")),
];

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_refused_what_is_not_theirs_and_told_what_that_is() {
    let vhost = Vhost::new().await;
    vhost.import(&deployed("topology.json")).await;
    // Somebody else of the same user waits for replies.
    let other = vhost.connect("hr-desk").await;
    assert_eq!(DeclareOwnQueue("kf-replies-others").by(&other).await, Ok(()));
    for (user, lines) in [
        ("hr-onboarding", PRODUCERS),
        ("hr-offboarding", PRODUCERS),
        ("hr-desk", PRODUCERS),
        ("hr-desk", DESK),
        ("hr-results", CONSUMER),
        ("kf-operator", OPERATOR),
        ("kf-worker-checked", WORKER),
        ("kf-monitoring", MONITORING),
    ] {
        let connection = vhost.connect(user).await;
        for (request, expected) in lines {
            let answer = request.by(&connection).await;
            match (expected, &answer) {
                (Done, Ok(())) => {}
                (NoAccess(what), Err(refusal)) if *refusal == Refusal::access(what, &vhost.name, user) => {}
                (Refused(code, words), Err(Refusal(said, text))) if code == said && text.contains(words) => {}
                _ => panic!("{user}, {request:?}: {expected:?} is expected, and it is {answer:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_in_the_name_of_another() {
    let vhost = Vhost::new().await;
    vhost.import(&deployed("topology.json")).await;
    for (user, another) in [
        ("hr-onboarding", "hr-offboarding"),
        ("hr-offboarding", "hr-onboarding"),
        ("hr-desk", "hr-offboarding"),
        ("kf-operator", "hr-onboarding"),
    ] {
        let connection = vhost.connect(user).await;
        assert_eq!(SendAs(user).by(&connection).await, Ok(()));
        let words = format!("PRECONDITION_FAILED - user_id property set to '{another}' but authenticated user was '{user}'");
        assert_eq!(SendAs(another).by(&connection).await, Err(Refusal(406, words)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_puts_aside_is_kept_where_it_can_not_reach() {
    let vhost = Vhost::new().await;
    assert_eq!(Publish("kf.events", "add.succeeded").by(&vhost.connect("kf-worker").await).await, Ok(()));
    let channel = vhost.connect("hr-results").await.create_channel().await.expect("a channel opens");
    let got =
        eventually("the event is there", async || channel.basic_get("hr-results".into(), BasicGetOptions::default()).await.ok()?).await;
    assert!(got.reject(BasicRejectOptions { requeue: false }).await.expect("it is put aside"));
    // RabbitMQ 4 lets nobody look who has no right there.
    vhost.permit("guest", ".*", ".*", ".*");
    let guest = vhost.log_in("guest", "guest").await.expect("it is the tests' own user");
    let looking = guest.create_channel().await.expect("a channel opens");
    eventually("it is kept", async || {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let parked = looking.queue_declare("hr-results-parked".into(), passive, FieldTable::default()).await.ok()?;
        (parked.message_count() == 1).then_some(())
    })
    .await;
    assert_eq!(Get("hr-results-parked").by(&vhost.connect("hr-results").await).await.map_err(|refusal| refusal.0), Err(403));
}
