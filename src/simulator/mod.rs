//! A WeChat to practise on: the two kf account calls, the list and the token calls, with the documented limits and errors, and faults on demand.
//!
//! It shares no code with the worker, so that a mistake in one does not hide in the other.
//! The way of one call: `server` reads it off the wire → `request` says what it asks for → `faults` may
//! spoil it → `platform` answers as WeChat would (`account`, `tokens`, `quota`) → `calls` counts it → `server` writes the answer, or
//! `connection` cuts the line.
//!
//! Besides WeChat's own paths there is a control endpoint, for tests and demos:
//!
//! | call | what it does |
//! | --- | --- |
//! | `GET /control/accounts` | every kf account of every Official Account |
//! | `GET /control/calls` | calls by endpoint and answer, in all and for each kf account, with those in flight and the most at once |
//! | `GET /control/faults` | the fault rules in force |
//! | `PUT /control/faults` | replaces them: a JSON list of [`Rule`]s |
//! | `DELETE /control/faults` | removes them all, those given by flags too |
//! | `POST /control/tokens/expire` | ends every token at once |
//! | `POST /control/reset` | back to the state at start: no kf accounts, no tokens, no counts, the first faults |

mod account;
mod calls;
mod connection;
mod errcode;
mod faults;
mod platform;
mod quota;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod tokens;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use account::OfficialAccount;
pub use faults::{Effect, Rule, parse_duration};

pub use request::Endpoint;

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The Official Accounts that exist.
    pub official_accounts: Vec<OfficialAccount>,
    /// How long a token is good.
    pub token_lifetime: Duration,
    /// How long the former token stays good beside the one that replaced it.
    pub token_overlap: Duration,
    /// Calls per minute of one action of one Official Account; unlimited when `None`.
    pub minute_quota: Option<u32>,
    /// Calls per day (from 00:00 at UTC+8) of one action of one Official Account; unlimited when `None`.
    pub day_quota: Option<u32>,
    /// The faults in force at start and after a reset.
    pub faults: Vec<Rule>,
    /// Label answers `text/plain`, as WeChat sometimes does.
    pub text_plain: bool,
}

impl Default for Settings {
    /// A free port, one Official Account (see [`OfficialAccount::default`]), WeChat's documented token times, no quotas and no faults.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            official_accounts: vec![OfficialAccount::default()],
            token_lifetime: Duration::from_secs(7200),
            token_overlap: Duration::from_secs(300),
            minute_quota: None,
            day_quota: None,
            faults: Vec::new(),
            text_plain: false,
        }
    }
}

/// A simulator that has its address and does not answer yet.
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
}

impl Simulator {
    /// Takes the address of `settings.listen`.
    ///
    /// # Errors
    /// When the address can't be had.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, settings })
    }

    /// The address it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers calls until `shutdown` is cancelled and what was being answered is finished.
    ///
    /// # Errors
    /// When the server itself fails.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        server::run(self.listener, self.settings, shutdown).await
    }
}
