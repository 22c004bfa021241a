//! `kf-worker schema` prints what messages look like to whoever has nothing but the program.

use serde_json::Value;

use crate::support::worker::kf_worker;

/// Its exit code and what it printed on either stream, with a configuration that can't be read.
async fn schema(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = kf_worker();
    command.arg("schema").args(arguments).env("KF_CONFIG", "/no/such/file").env("KF_AMQP__URL", "nonsense");
    let output = command.output().await.expect("it can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_document_is_printed_as_it_is_kept_without_any_configuration() {
    let asyncapi = include_str!("../../docs/asyncapi.json");
    for (arguments, kept) in [
        (&[][..], asyncapi),
        (&["asyncapi"], asyncapi),
        (&["command"], include_str!("../../docs/schemas/command.json")),
        (&["cloudevent-command"], include_str!("../../docs/schemas/cloudevent-command.json")),
        (&["result"], include_str!("../../docs/schemas/result.json")),
    ] {
        assert_eq!(schema(arguments).await, (Some(0), kept.to_owned(), String::new()), "{arguments:?}");
        serde_json::from_str::<Value>(kept).expect("it is JSON");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_there_is_not_is_told_with_those_that_there_are() {
    let (code, data, told) = schema(&["results"]).await;
    assert_eq!((code, data.as_str()), (Some(2), ""));
    assert!(told.contains("command, cloudevent-command, result, asyncapi"), "{told}");
}
