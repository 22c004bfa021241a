//! TLS to the broker, the database and WeChat: who is believed, who is not, what is said of it, and that nothing is sent before.

mod broker;
mod client_certificates;
mod configuration;
mod front;
mod ledger;
mod wechat;

use crate::support::broker::Received;
use crate::support::stage::Stage;
use crate::support::worker::Worker;

/// Ends the worker in order. Where its connections were cut before an acknowledgement got through, an outcome was told again, and
/// said the same.
async fn settle(stage: &mut Stage, worker: Worker, outcomes: &[Received]) {
    for again in stage.settle(worker).await {
        let first = outcomes.iter().find(|outcome| outcome.command_id() == again.command_id());
        first.unwrap_or_else(|| panic!("nobody ordered {again:?}")).assert_repeated_by(&again);
    }
}
