//! `make demo`: a real RabbitMQ, a simulated WeChat and the worker, and a story of commands whose results are shown and checked.
//!
//! It uses what a user has: the two binaries, RabbitMQ, and the documented messages. Whatever happens, it stops all that
//! it started. With `KEEP=1`, or the argument `keep`, it stays up until Ctrl-C.

mod client;
mod stage;
mod story;

use std::collections::HashMap;
use std::env;
use std::process::ExitCode;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use unicode_width::UnicodeWidthStr;

use client::Client;
use stage::{Result, Stage, http_get, within};
use story::{Expected, Step};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut stage = match Stage::new() {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("demo: can't make a temporary folder: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (shown, interrupted) = tokio::select! {
        shown = show(&mut stage) => (shown, false),
        stopped = told_to_stop() => (stopped.and(Err("stopped before the end of the story".into())), true),
    };
    let kept = match shown {
        Ok(()) if keep() => stay(&stage).await,
        other => other,
    };
    let cleared = clear(&mut stage, kept.is_err() && !interrupted).await;
    match kept.and(cleared) {
        Ok(()) => {
            println!("\nAll results are as they should be; everything that was started is stopped.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole demo, save for cleaning up.
async fn show(stage: &mut Stage) -> Result<()> {
    stage.set().await?;
    let mut client = within("subscribing to the results", Client::connect(&stage.amqp_url, &stage.prefix)).await?;
    let steps = story::steps();
    tell(&steps, &mut client).await?;
    look_at_wechat(&steps, &stage.wechat).await?;
    look_at_dead_letters(&client, &stage.prefix).await?;
    look_at_metrics(&stage.admin).await
}

/// Sends one command after another and shows each result as it arrives.
async fn tell(steps: &[Step], client: &mut Client) -> Result<()> {
    let table = Table::for_story(steps);
    println!();
    table.row(["sent", "command id", "account", "status", "effect or reason", "attempts"]);
    table.rule();
    let mut first: HashMap<&str, Value> = HashMap::new();
    for step in steps {
        within(step.sent, client.send(step.command_id, step.kf_account, &step.body)).await?;
        let event = within(step.sent, client.result_of(step.command_id)).await?;
        let data = &event["data"];
        let became = match step.result {
            Expected::New { .. } => effect_or_reason(data).to_owned(),
            Expected::AsBefore => format!("{} (as before)", effect_or_reason(data)),
        };
        let attempts = data["attempts"].to_string();
        table.row([step.sent, step.command_id, word(&data["kf_account"]), word(&data["status"]), &became, &attempts]);
        check(step, &event, first.get(step.command_id))?;
        first.entry(step.command_id).or_insert(event);
    }
    Ok(())
}

/// Holds a result against the story, a repeat against the first result of the same id.
fn check(step: &Step, event: &Value, first: Option<&Value>) -> Result<()> {
    let data = &event["data"];
    let wanted = match step.result {
        Expected::New { status, word: expected, attempts } => {
            if word(&data["status"]) == status && effect_or_reason(data) == expected && data["attempts"] == attempts {
                return Ok(());
            }
            format!("{status}, {expected}, {attempts} attempts")
        }
        Expected::AsBefore if first.is_some_and(|first| first == event) => return Ok(()),
        Expected::AsBefore => "the very event of the first time".into(),
    };
    Err(format!("{} ({}) should have been: {wanted}; it was: {event}", step.sent, step.command_id).into())
}

fn effect_or_reason(data: &Value) -> &str {
    if data["effect"].is_string() { word(&data["effect"]) } else { word(&data["error"]["reason"]) }
}

/// A string of the event, or a dash where it has none.
fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// The accounts that are left, and proof that no repeat and no wrong command has reached WeChat.
async fn look_at_wechat(steps: &[Step], address: &str) -> Result<()> {
    let accounts = get_json(address, "/control/accounts").await?;
    let mut found: Vec<_> =
        accounts["test"].as_array().into_iter().flatten().map(|kf| (word(&kf["kf_account"]), word(&kf["nickname"]))).collect();
    found.sort_unstable();
    println!("\nAccounts at WeChat now:");
    for (kf_account, nickname) in &found {
        println!("  {kf_account:<14}{nickname}");
    }
    if found != story::ACCOUNTS {
        return Err(format!("the accounts at WeChat should have been {:?}", story::ACCOUNTS).into());
    }

    let calls = get_json(address, "/control/calls").await?;
    let counts = ["add", "del"].map(|endpoint| {
        calls["calls"][endpoint].as_object().into_iter().flat_map(|answers| answers.values()).filter_map(Value::as_u64).sum::<u64>()
    });
    let made: u64 = counts.iter().sum();
    let wanted: u64 = steps.iter().map(|step| if let Expected::New { attempts, .. } = step.result { attempts } else { 0 }).sum();
    println!("Calls that it took: {made}; repeats and wrong commands took none.");
    if made == wanted { Ok(()) } else { Err(format!("WeChat should have been called {wanted} times").into()) }
}

async fn look_at_dead_letters(client: &Client, prefix: &str) -> Result<()> {
    let count = within("counting the dead letters", client.dead_letters()).await?;
    println!("Messages in {prefix}.dead, for a person to look at: {count}");
    if count == story::DEAD_LETTERS { Ok(()) } else { Err(format!("there should have been {} dead letters", story::DEAD_LETTERS).into()) }
}

async fn look_at_metrics(address: &str) -> Result<()> {
    let (_, metrics) = within("reading the metrics", http_get(address, "/metrics")).await?;
    println!("Metrics at http://{address}/metrics, for instance:");
    for name in ["kf_attempts_total{action=\"add\"}", "kf_repeats_total", "kf_events_total{result=\"confirmed\"}"] {
        let line = metrics.lines().find(|line| line.starts_with(name)).ok_or_else(|| format!("/metrics has no {name}"))?;
        println!("  {line}");
    }
    Ok(())
}

async fn get_json(address: &str, path: &str) -> Result<Value> {
    let (_, body) = within(path, http_get(address, path)).await?;
    Ok(serde_json::from_str(&body)?)
}

fn keep() -> bool {
    env::args().nth(1).is_some_and(|argument| argument == "keep") || env::var("KEEP").is_ok_and(|keep| keep == "1")
}

/// Leaves everything up for the person to look around.
async fn stay(stage: &Stage) -> Result<()> {
    println!(
        "\nEverything stays up until Ctrl-C. To look around:\n  \
         curl http://{}/metrics\n  curl http://{}/control/accounts\n  tail -f {}\n  {} --config {} result demo-01 --json\n\
         Broker: {} with the prefix {}",
        stage.admin,
        stage.wechat,
        stage.log().display(),
        stage::binary("kf-worker")?.display(),
        stage.config().display(),
        stage.amqp_url,
        stage.prefix,
    );
    told_to_stop().await
}

/// Returns on Ctrl-C and whatever else asks a program to end.
async fn told_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Stops everything, however the demo went; shows the end of the worker's log where it did not go well.
async fn clear(stage: &mut Stage, failed: bool) -> Result<()> {
    let worker_ended = stage.stop_worker().await;
    let log = stage.log_tail();
    if (failed || worker_ended.is_err()) && !log.is_empty() {
        eprintln!("\nThe end of the worker's log:\n{log}");
    }
    let removed = if stage.borrowed {
        within("removing the demo's queues", client::remove_topology(&stage.amqp_url, &stage.prefix)).await
    } else {
        Ok(())
    };
    let cleared = stage.clear().await;
    worker_ended.and(removed).and(cleared)
}

/// Columns wide enough for all that the story will show, since rows are printed as they come.
struct Table {
    widths: [usize; 6],
}

impl Table {
    fn for_story(steps: &[Step]) -> Self {
        let widest = |texts: &dyn Fn(&Step) -> &'static str| steps.iter().map(|step| texts(step).width()).max().unwrap_or(0);
        let word = |step: &Step| if let Expected::New { word, .. } = step.result { word } else { "" };
        Self {
            widths: [
                widest(&|step| step.sent),
                "command id".len(),
                widest(&|step| step.kf_account),
                "succeeded".len(),
                widest(&word),
                "attempts".len(),
            ],
        }
    }

    fn row(&self, cells: [&str; 6]) {
        // Chinese characters take two places, which padding by `format!` would count as one.
        let padded = cells.iter().zip(self.widths).map(|(cell, width)| format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width()))));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }

    fn rule(&self) {
        println!("{}", "-".repeat(self.widths.iter().sum::<usize>() + 2 * (self.widths.len() - 1)));
    }
}
