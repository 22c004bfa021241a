//! `make-definitions.sh`: passwords of every kind become hashes that RabbitMQ takes, and what is missing is said.

use std::fs;

use super::tried::Refusal;
use crate::support::rabbitmq::OwnNode;
use crate::support::vhost::{Vhost, deployed, make_definitions};

/// What a shell, JSON or `printf` could take for something else.
const ODD: &str = r#"  it's "a" \x41\n $(id) `id` %s ü密码 \"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_taken_as_it_is_and_who_has_none_can_not_log_in() {
    // Passwords are the user's in every vhost, so these two are of no other test.
    let definitions = deployed("definitions.json").replace("\"hr-desk\"", "\"hr-odd\"").replace("\"hr-onboarding\"", "\"hr-without\"");
    let vhost = Vhost::with(&definitions, &[("hr-odd", &format!("{ODD}\n"))]).await;
    vhost.log_in("hr-odd", ODD).await.expect("the end of the line is no part of it");
    for (user, password) in [("hr-odd", "pw"), ("hr-odd", ""), ("hr-odd", ODD.trim()), ("hr-without", ""), ("hr-without", "pw")] {
        let error = vhost.log_in(user, password).await.expect_err("it is refused");
        assert_eq!(Refusal::of(&error).0, 403, "{user}: {error}");
    }
    // A password file that is gone takes the password away.
    vhost.forget_password("hr-odd");
    vhost.import(&definitions).await;
    let error = vhost.log_in("hr-odd", ODD).await.expect_err("it is refused");
    assert_eq!(Refusal::of(&error).0, 403, "{error}");
    assert!(OwnNode::shared().control(&["list_users"]).contains("hr-odd"), "the user is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_and_nothing_printed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let passwords = folder.path().to_str().expect("a plain path");
    fs::write(folder.path().join("hr-desk"), "\n").expect("a file can be written");
    let empty = format!("{passwords}/hr-desk is empty");
    for (arguments, words) in [
        (&["/nowhere"][..], "there is no folder /nowhere with a password file for each user"),
        (&["--vhost", "kf", "/nowhere"], "there is no folder /nowhere"),
        (&[passwords, "/nowhere.json"], "there is no file /nowhere.json"),
        (&[passwords], &empty),
        (&["--vhost", "\"", passwords], "--vhost wants a name"),
        (&["--vhost"], "--vhost wants a name"),
        (&[], "usage: make-definitions.sh"),
    ] {
        let output = make_definitions(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with("make-definitions: ") && said.contains(words), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
