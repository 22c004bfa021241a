//! The simulated WeChat by itself: how long it takes, and that it is fast enough to measure others against.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Client, Url};
use serde_json::{Value, json};

use crate::OFFICIAL_ACCOUNTS;
use crate::simulator::{self, Simulator};

/// Calls in flight at once.
const CALLS: usize = 64;
/// For so long.
const FOR: Duration = Duration::from_secs(2);

/// Calls, one after the other, from which the time of one is taken.
const ALONE: u32 = 20;

/// Lets it take so long for each call.
pub async fn takes(simulator: &Simulator, latency: Duration) {
    simulator.put_faults(&json!([{"latency": format!("{}ms", latency.as_millis())}])).await;
}

/// How many calls have added or deleted a kf account.
pub async fn has_done(simulator: &Simulator) -> usize {
    count(simulator, |errcode| errcode == "0").await
}

/// How many such calls were made, whatever came of them.
pub async fn has_answered(simulator: &Simulator) -> usize {
    count(simulator, |_| true).await
}

async fn count(simulator: &Simulator, of: fn(&str) -> bool) -> usize {
    let calls = simulator.calls().await;
    let by_errcode = ["add", "del"].into_iter().filter_map(|endpoint| calls["calls"][endpoint].as_object()).flatten();
    let count: u64 = by_errcode.filter(|(errcode, _)| of(errcode)).filter_map(|(_, count)| count.as_u64()).sum();
    usize::try_from(count).expect("they can be counted")
}

/// A client that deletes a kf account that isn't there, and does nothing else.
pub struct Caller {
    simulator: Simulator,
    client: Client,
    url: Url,
    body: String,
}

impl Caller {
    pub async fn new() -> Self {
        let simulator = Simulator::start(&OFFICIAL_ACCOUNTS).await;
        let client = Client::builder().no_proxy().tls_certs_only([]).build().expect("a client of HTTP");
        let [wechat_id, ..] = OFFICIAL_ACCOUNTS;
        let token = token(&client, &simulator, wechat_id).await;
        let url = format!("{}/customservice/kfaccount/del?access_token={token}", simulator.url());
        let body = json!({"kf_account": format!("kf0@{wechat_id}")}).to_string();
        Self { simulator, client, url: Url::parse(&url).expect("a URL"), body }
    }

    async fn call(&self) {
        let request = self.client.post(self.url.clone()).body(self.body.clone());
        request.send().await.expect("WeChat answers").bytes().await.expect("WeChat answers in whole");
    }

    /// How many calls a second are answered, many in flight.
    pub async fn calls_a_second(self: Arc<Self>) -> f64 {
        takes(&self.simulator, Duration::ZERO).await;
        let began = Instant::now();
        let calls = (0..CALLS).map(|_| {
            let caller = Arc::clone(&self);
            tokio::spawn(async move {
                let mut count = 0;
                while began.elapsed() < FOR {
                    caller.call().await;
                    count += 1;
                }
                count
            })
        });
        let counts = join_all(calls).await;
        let count: u32 = counts.into_iter().map(|count| count.expect("nobody panics")).sum();
        f64::from(count) / began.elapsed().as_secs_f64()
    }

    /// How long one call takes by itself where WeChat is to take so long.
    pub async fn one_call(&self, latency: Duration) -> Duration {
        takes(&self.simulator, latency).await;
        let began = Instant::now();
        for _ in 0..ALONE {
            self.call().await;
        }
        began.elapsed() / ALONE
    }
}

async fn token(client: &Client, simulator: &Simulator, wechat_id: &str) -> String {
    let account = simulator::account(wechat_id);
    let [_, appid, secret] = account.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("an account is WECHAT_ID:APPID:SECRET") };
    let body = json!({"grant_type": "client_credential", "appid": appid, "secret": secret});
    let request = client.post(format!("{}/cgi-bin/stable_token", simulator.url())).body(body.to_string());
    let answer = request.send().await.expect("WeChat answers").bytes().await.expect("WeChat answers in whole");
    let answer: Value = serde_json::from_slice(&answer).expect("WeChat answers with JSON");
    answer["access_token"].as_str().expect("WeChat gives a token").to_owned()
}
