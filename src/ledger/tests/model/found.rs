//! What the search has found, each as the shortest list of operations that showed it.

use super::*;

for_every_database! {
    an_add_whose_message_was_lost_does_not_come_back_after_a_newer_delete,
    what_is_in_flight_stays_so_when_an_older_one_that_was_lost_comes_back,
}

/// An add that held nobody up, since its message was not seen for so long, would have brought the account back.
async fn an_add_whose_message_was_lost_does_not_come_back_after_a_newer_delete(fixture: Fixture) {
    let operations = [
        ask(new(Action::Add)),
        Operation::Unseen(Which::Oldest(0)),
        ask(new(Action::Delete)),
        ask(Ask::Begin { which: Which::Any(0), alone: true }),
        ask(Ask::Finish { which: Which::Running(0), with: With::Latest, how: How::Succeeded }),
        ask(again(1)),
        ask(Ask::Begin { which: Which::Any(1), alone: true }),
    ];
    play(fixture, &operations).await;
}

async fn what_is_in_flight_stays_so_when_an_older_one_that_was_lost_comes_back(fixture: Fixture) {
    let put_off = Ask::Wait { which: Which::Any(0), with: With::Nothing, reason: Reason::SystemBusy, lost: false, called: false };
    let operations = [
        ask(new(Action::Add)),
        ask(put_off),
        Operation::Unseen(Which::Any(0)),
        ask(new(Action::Add)),
        ask(Ask::Begin { which: Which::Any(0), alone: true }),
        ask(new(Action::Delete)),
        ask(again(2)),
    ];
    play(fixture, &operations).await;
}

fn ask(ask: Ask) -> Operation {
    Operation::Ask(By::Worker(0), vec![ask])
}

fn new(action: Action) -> Ask {
    Ask::Accept(vec![Arriving::New { account: 0, action, revision: None, ago: None }])
}

/// The message before so many others.
fn again(nth: usize) -> Ask {
    Ask::Accept(vec![Arriving::Again(nth)])
}
