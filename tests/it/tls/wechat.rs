//! `https` to WeChat: no secret, token or nickname goes to a host whose certificate isn't believed.

use super::front::Front;
use crate::support::certificates::{Authority, Flaw};
use crate::support::eventually;
use crate::support::stage::{Stage, account, add, delete};
use crate::support::wechat::Endpoint;
use crate::support::worker::{Settings, Worker};

/// A front before the scripted WeChat, with a certificate without a flaw.
async fn front(stage: &Stage, authority: &Authority) -> Front {
    let target = stage.wechat.base_url();
    Front::before(target.strip_prefix("http://").expect("it speaks http"), &authority.server()).await
}

/// The settings of a worker that reaches WeChat, and the token server of one Official Account, through the front alone. It says
/// at its second failure in a row what the trouble is.
fn through(front: &Front, stage: &Stage) -> Settings {
    let mut settings = stage.settings();
    settings.set("wechat.base_url", format!("https://{}", front.address())).set("retry.budget", 1);
    let official = stage.wechat.official_account("test");
    settings.official_accounts = format!(
        "[[official_account]]\nwechat_id = \"test\"\napp_id = \"{}\"\napp_secret = \"{}\"\n\n\
         [[official_account]]\nwechat_id = \"other\"\ntoken = \"url\"\ntoken_url = \"https://{}/token-server/other\"\n\
         token_headers = [\"x-api-key: {}\"]\n\n",
        official.app_id,
        official.app_secret,
        front.address(),
        stage.wechat.api_key()
    );
    settings
}

/// Requests of any kind that have arrived at WeChat and the token server.
fn requests(stage: &Stage) -> usize {
    let endpoints = [Endpoint::StableToken, Endpoint::TokenServer, Endpoint::Add, Endpoint::Delete, Endpoint::List];
    endpoints.into_iter().map(|endpoint| stage.wechat.calls(endpoint).len()).sum::<usize>() + stage.wechat.strays().len()
}

/// Waits until the worker's log has said so often what is wrong with a certificate.
async fn told(worker: &Worker, words: &str, times: usize) {
    eventually(&format!("the worker says `{words}` of WeChat's certificate"), async || (worker.logged(words) >= times).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_and_a_token_server_whose_certificate_is_not_right_get_nothing_until_it_is() {
    let authority = Authority::new("the authority");
    let mut stage = Stage::new().await;
    let front = front(&stage, &authority).await;
    let ca_file = authority.write(stage.path("ca.pem"));
    let mut settings = through(&front, &stage);
    settings.set("wechat.ca_file", ca_file.to_str());
    let worker = stage.worker_with(&settings).await;
    for flaw in Flaw::ALL {
        front.show(&authority.flawed(flaw));
        let (believed, arrived) = (front.believed(), requests(&stage));
        let commands = ["test", "other"].map(|wechat_id| {
            let account = format!("{}@{wechat_id}", flaw.name());
            add(&account, &account, "安娜")
        });
        stage.send_all(&commands).await;
        told(&worker, flaw.words(), 2).await;
        assert_eq!((front.believed(), requests(&stage)), (believed, arrived), "{flaw:?}");

        front.show(&authority.server());
        for command in &commands {
            let account = account(command);
            stage.events.of(account).await.assert_succeeded("created");
            assert_eq!(stage.wechat.changes(account), [Endpoint::Add], "{flaw:?}: what never left did nothing");
            stage.outcome(&delete(&format!("delete-{account}"), account)).await.assert_succeeded("deleted");
        }
    }
    let secrets = [stage.wechat.official_account("test").app_secret, stage.wechat.api_key()];
    assert!(secrets.iter().all(|secret| !worker.log().contains(secret)), "{}", worker.log());
    assert_eq!(stage.settle(worker).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_is_believed_by_the_systems_authorities_only_where_none_are_given() {
    let authority = Authority::new("the authority");
    let mut stage = Stage::new().await;
    let front = front(&stage, &authority).await;
    let ca_file = authority.write(stage.path("ca.pem"));
    let stranger = Authority::new("another authority").write(stage.path("stranger.pem"));
    let mut mistaken = through(&front, &stage);
    mistaken.set("wechat.ca_file", stranger.to_str()).env("SSL_CERT_FILE", ca_file.to_str().expect("a plain path"));
    let mut worker = stage.worker_with(&mistaken).await;
    stage.send(&add("c1", "anna@test", "安娜")).await;
    told(&worker, Flaw::UnknownAuthority.words(), 1).await;
    assert_eq!((worker.terminate().await, front.believed()), (Some(0), 0));

    let mut systems = through(&front, &stage);
    systems.env("SSL_CERT_FILE", ca_file.to_str().expect("a plain path"));
    let worker = stage.worker_with(&systems).await;
    stage.events.of("c1").await.assert_succeeded("created");
    stage.outcome(&delete("c2", "anna@test")).await.assert_succeeded("deleted");
    assert_eq!(stage.settle(worker).await.len(), 0);
}
