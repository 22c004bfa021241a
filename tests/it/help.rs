//! What people get who ask: help with examples, manual pages, completions, and an answer to every wrong turn.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::worker::kf_worker;

/// As wide as text is made where nobody says how wide the terminal is.
const WIDTH: usize = 100;

async fn run(arguments: &[&str]) -> Output {
    kf_worker().args(arguments).output().await.expect("the program runs")
}

/// What goes to stdout; nothing else may be said.
async fn printed(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Every subcommand there is, by the names of the manual pages.
async fn subcommands() -> BTreeSet<Vec<String>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    printed(&["man", folder.path().to_str().expect("a plain path")]).await;
    let files = std::fs::read_dir(folder.path()).expect("the folder is there");
    let pages = files.map(|file| file.expect("a file").file_name().into_string().expect("a plain name"));
    let found: BTreeSet<Vec<String>> =
        pages.map(|page| page.trim_end_matches(".1").split('-').skip(2).map(str::to_owned).collect()).collect();
    assert!(found.len() > 20, "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subcommand_has_help_with_examples_that_fits_a_terminal() {
    for words in subcommands().await {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = printed(&arguments).await;
        assert!(help.contains("Usage: kf-worker"), "{arguments:?}: {help}");
        assert!(!help.contains('\u{1b}'), "no colours where nobody sees them: {arguments:?}");
        let too_wide = help.lines().find(|line| unicode_width::UnicodeWidthStr::width(*line) > WIDTH && !line.contains("http"));
        assert_eq!(too_wide, None, "{arguments:?}");
        let leads_on = help.contains("Commands:") && !words.is_empty();
        assert!(leads_on || help.contains("Example"), "{arguments:?} shows no example:\n{help}");
        assert!(help.contains("Options of every subcommand"), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_read_can_be_read_as_json() {
    for words in [
        "check",
        "config show",
        "dead list",
        "dead show",
        "drift",
        "ledger migrate",
        "ledger prune",
        "partitions show",
        "result",
        "results",
        "send",
        "send add",
        "watch",
    ] {
        let arguments: Vec<&str> = words.split(' ').chain(["--help"]).collect();
        assert!(printed(&arguments).await.contains("--json"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_goes_to_stdout_or_into_a_folder() {
    let page = printed(&["man"]).await;
    assert!(page.contains(".TH kf-worker 1") && page.contains("kf\\-worker\\-send(1)"), "{page}");
    let output = run(&["man", "/proc/kf-worker"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/proc/kf-worker"));
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_take_the_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]).await;
        assert!(script.contains("healthcheck") && script.contains("dry-run"), "{shell}");
    }
    // Bash itself offers what fits.
    let script = printed(&["completions", "bash"]).await;
    let asks = "\nCOMP_WORDS=(kf-worker se); COMP_CWORD=1; _kf__worker kf-worker se kf-worker; echo \"${COMPREPLY[*]}\"\n";
    let mut bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash");
    let mut stdin = bash.stdin.take().expect("it is piped");
    stdin.write_all(format!("{script}{asks}").as_bytes()).await.expect("bash reads");
    drop(stdin);
    let output = bash.wait_with_output().await.expect("bash ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "send", "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_turns_are_answered_on_stderr_with_the_way_on() {
    for (arguments, words) in [
        (&[][..], &["Usage: kf-worker", "Examples:"][..]),
        (&["sned"], &["sned", "send"]),
        (&["send", "--fiel", "x.csv"], &["--fiel", "--file"]),
        (&["result"], &["<COMMAND_ID>", "--help"]),
        (&["completions", "csh"], &["csh", "bash"]),
        (&["dead", "list", "--reason", "nonsense"], &["nonsense", "no such reason"]),
        (&["run", "--log-format", "xml"], &["xml", "json"]),
    ] {
        let output = run(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty() && words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_and_for_those_who_want_them() {
    // `script` gives the program a terminal of 60 columns.
    let terminal = async |before: &str| {
        let line = format!("stty rows 24 cols 60; {before} {} send --help", env!("CARGO_BIN_EXE_kf-worker"));
        let output = Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output().await;
        String::from_utf8_lossy(&output.expect("script (bsdutils)").stdout).into_owned()
    };
    let coloured = terminal("env -u NO_COLOR").await;
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    let plain = terminal("NO_COLOR=1").await;
    assert!(!plain.contains("\u{1b}["), "{plain}");
    let options = plain.lines().filter(|line| line.starts_with("  ") && !line.contains("kf-worker"));
    assert!(options.clone().all(|line| unicode_width::UnicodeWidthStr::width(line.trim_end()) <= 60), "{plain}");
}
