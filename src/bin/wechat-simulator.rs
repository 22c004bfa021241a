//! `wechat-simulator`: WeChat's kf account calls on a local port, for demos, staging and tests.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use kf_worker::simulator::{Authorisation, Effect, OfficialAccount, Rule, Settings, Simulator, ThirdPartyPlatform, parse_duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// WeChat's kf account calls on a local port, for demos, staging and tests.
///
/// Answers add, del, getkflist, stable_token, token, api_component_token and api_authorizer_token with the documented
/// limits and errors. All state is in memory. Faults can be changed while it runs: GET, PUT or DELETE /control/faults.
/// See also GET /control/accounts, GET /control/calls, POST /control/tokens/expire,
/// PUT /control/official-accounts/WECHAT_ID/secret, PUT /control/official-accounts/WECHAT_ID/quota,
/// GET /control/platforms, POST /control/platforms/expire-tickets, POST /control/platforms/push-ticket and
/// POST /control/reset.
#[derive(Parser)]
#[command(name = "wechat-simulator", version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one, which the first line of output tells
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9300")]
    listen: SocketAddr,
    /// An Official Account; may be repeated
    #[arg(long = "account", value_name = "WECHAT_ID:APPID:SECRET", default_value = "test:wx0123456789abcdef:secret")]
    accounts: Vec<OfficialAccount>,
    /// A third-party platform, which may act for Official Accounts that have authorised it; may be repeated
    #[arg(long = "platform", value_name = "APPID:SECRET")]
    platforms: Vec<ThirdPartyPlatform>,
    /// An Official Account has authorised a platform, which got this first refresh token; may be repeated
    #[arg(long = "authorize", value_name = "WECHAT_ID:PLATFORM_APPID:REFRESH_TOKEN", requires = "platforms")]
    authorisations: Vec<Authorisation>,
    /// Keep the current verify ticket of the first platform in this file, as the platform itself would
    #[arg(long, value_name = "FILE", requires = "platforms")]
    ticket_file: Option<PathBuf>,
    /// How long an access token is good
    #[arg(long, value_name = "DURATION", default_value = "7200s", value_parser = parse_duration)]
    token_lifetime: Duration,
    /// How long the former token stays good beside the one that replaced it
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    token_overlap: Duration,
    /// Answer 45011 beyond this many calls a minute of one action of one Official Account
    #[arg(long, value_name = "N")]
    minute_quota: Option<u32>,
    /// Answer 45009 beyond this many calls a day (UTC+8) of one action of one Official Account
    #[arg(long, value_name = "N")]
    day_quota: Option<u32>,
    /// Let every call wait this long first
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    latency: Option<Duration>,
    /// Add up to this much to the latency, by chance
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    jitter: Option<Duration>,
    /// Answer this share of all calls with -1, system busy (0 to 1)
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    error_rate: Option<f64>,
    /// Do this share of all calls and close the connection without an answer (0 to 1)
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    lost_answer_rate: Option<f64>,
    /// Label answers text/plain, as WeChat sometimes does
    #[arg(long)]
    text_plain: bool,
}

// One thread: a simulator that takes one core leaves the others to what is tried against it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let settings = Settings::from(Arguments::parse());
    if let Err(sentence) = settings.check() {
        Arguments::command().error(ErrorKind::ValueValidation, sentence).exit()
    }
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("wechat-simulator: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT.
async fn serve(settings: Settings) -> Result<(), String> {
    let listen = settings.listen;
    let shutdown = stop_on_signal().map_err(|error| format!("can't watch for signals: {error}"))?;
    let simulator = Simulator::bind(settings).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{listen} is in use; stop what listens there or choose another address with --listen")
        }
        _ => format!("can't start on {listen}: {error}"),
    })?;
    // Nobody may be reading; the simulator serves all the same.
    let _ = writeln!(io::stdout(), "wechat-simulator listening on http://{}", simulator.address());
    simulator.run(shutdown).await.map_err(|error| format!("the server failed: {error}"))
}

/// A token that the first SIGTERM or SIGINT cancels.
fn stop_on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(shutdown)
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("it must be a number between 0 and 1".to_owned()),
    }
}

impl From<Arguments> for Settings {
    fn from(arguments: Arguments) -> Self {
        Self {
            faults: faults(&arguments),
            listen: arguments.listen,
            official_accounts: arguments.accounts,
            platforms: arguments.platforms,
            authorisations: arguments.authorisations,
            ticket_file: arguments.ticket_file,
            token_lifetime: arguments.token_lifetime,
            token_overlap: arguments.token_overlap,
            minute_quota: arguments.minute_quota,
            day_quota: arguments.day_quota,
            text_plain: arguments.text_plain,
        }
    }
}

/// The fault rules that the flags stand for.
fn faults(arguments: &Arguments) -> Vec<Rule> {
    let slow = Rule { latency: arguments.latency, jitter: arguments.jitter, ..Rule::default() };
    let share = |probability, effect| Rule { probability: Some(probability), effect: Some(effect), ..Rule::default() };
    let busy = arguments.error_rate.map(|rate| share(rate, Effect::Errcode(-1)));
    let lost = arguments.lost_answer_rate.map(|rate| share(rate, Effect::LostAnswer));
    [Some(slow), busy, lost]
        .into_iter()
        .flatten()
        // Without its flags, a rule has nothing to do.
        .filter(|rule| rule.check().is_ok())
        .collect()
}
