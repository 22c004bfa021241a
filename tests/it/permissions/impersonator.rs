//! The tag `impersonator`: with it, and with nothing less, a user orders in anybody's name.

use super::tried::{Refusal, Tried};
use crate::support::broker::Message;
use crate::support::rabbitmq::OwnNode;
use crate::support::stage::{Stage, delete};
use crate::support::vhost::{PASSWORD, Vhost, deployed};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_tag_impersonator_lets_a_user_order_in_the_name_of_another() {
    // Tags are the user's in every vhost, so this one is of no other test.
    let user = "hr-impersonating";
    let definitions = deployed("definitions.json").replace("\"hr-onboarding\"", &format!("\"{user}\""));
    let vhost = Vhost::with(&definitions, &[(user, PASSWORD)]).await;
    let mut stage = Stage::in_vhost(&vhost).await;
    let mut settings = stage.settings();
    settings.set("amqp.url", vhost.url("kf-worker")).publisher("hr-offboarding", &["delete"], &["*@test"]);
    let worker = stage.worker_with(&settings).await;
    stage.wechat.put("anna@test");

    let words = format!("PRECONDITION_FAILED - user_id property set to 'hr-offboarding' but authenticated user was '{user}'");
    for tags in [&[][..], &["administrator"]] {
        OwnNode::shared().control(&[&["set_user_tags", user], tags].concat());
        let connection = vhost.connect(user).await;
        assert_eq!(Tried::SendAs("hr-offboarding").by(&connection).await, Err(Refusal(406, words.clone())), "{tags:?}");
    }
    OwnNode::shared().control(&["set_user_tags", user, "impersonator"]);
    let command = Message::json(&delete("c1", "anna@test")).user_id("hr-offboarding");
    vhost.client(user).await.publish(command).await;
    stage.events.of("c1").await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
