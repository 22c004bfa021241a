//! A call that a test holds at a barrier.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Answer, Endpoint, Shared};
use crate::support::DEADLINE;

/// A call that waits at a barrier, or will. Dropped, it closes the connection with nothing done.
pub struct Held {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    account: String,
    told: oneshot::Receiver<String>,
    go: oneshot::Sender<Answer>,
}

impl Held {
    pub(super) fn new(
        shared: Arc<Shared>,
        endpoint: Endpoint,
        account: &str,
        told: oneshot::Receiver<String>,
        go: oneshot::Sender<Answer>,
    ) -> Self {
        Self { shared, endpoint, account: account.to_owned(), told, go }
    }

    /// Waits until the call is there.
    pub async fn arrived(&mut self) {
        let told = timeout(DEADLINE, &mut self.told).await;
        told.unwrap_or_else(|_| panic!("{:?} of {} was not called", self.endpoint, self.account)).expect("the server lives");
    }

    /// Does the work of the call and goes on holding its answer.
    pub fn work(&self) {
        let errcode = self.shared.state().work(self.endpoint, &self.account, "held");
        assert_eq!(errcode, 0, "the held call had something to do");
    }

    /// Lets WeChat do and say its usual.
    pub fn release(self) {
        self.answer(Answer::Usual);
    }

    /// Answers the call.
    pub fn answer(self, answer: Answer) {
        self.go.send(answer).expect("the caller still waits for an answer");
    }
}
