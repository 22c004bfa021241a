//! A WeChat to practise on: the two kf account calls, the list, the token calls and those of third-party platforms, with the documented
//! limits and errors, and faults on demand.
//!
//! It shares no code with the worker, so that a mistake in one does not hide in the other.
//! The way of one call: `server` reads it off the wire → `request` says what it asks for → `faults` may
//! spoil it → `platform` answers as WeChat would (`account`, `tokens`, `quota`; `third_party`, `tickets`, `grant`) →
//! `calls` counts it → `server` writes the answer, or `connection` cuts the line.
//!
//! Two things have similar names: `platform` is all of WeChat; a third-party platform is a program of somebody else that acts for
//! Official Accounts which have authorised it.
//!
//! Besides WeChat's own paths there is a control endpoint (`control`), for tests and demos:
//!
//! | call | what it does |
//! | --- | --- |
//! | `GET /control/accounts` | every kf account of every Official Account |
//! | `GET /control/calls` | calls by endpoint and answer: in all, by Official Account, and by kf account with the most at once |
//! | `GET /control/faults` | the fault rules in force |
//! | `PUT /control/faults` | replaces them: a JSON list of [`Rule`]s |
//! | `DELETE /control/faults` | removes them all, those given by flags too |
//! | `POST /control/tokens/expire` | ends every access token and component token at once; refresh tokens stay good |
//! | `PUT /control/official-accounts/{wechat_id}/secret` | the body is its AppSecret from now on; its access tokens end at once |
//! | `PUT /control/official-accounts/{wechat_id}/quota` | `{"action": "add", "day": 30, "minute": 5}`; left out is as for all |
//! | `GET /control/platforms` | every third-party platform's ticket, and its refresh token for each Official Account |
//! | `POST /control/platforms/expire-tickets` | ends every ticket, and no more are pushed |
//! | `POST /control/platforms/push-ticket` | pushes a new ticket to every third-party platform, and others every ten minutes again |
//! | `POST /control/reset` | back to the state at start: nothing added, handed out or counted; the first secrets, quotas and faults |

mod account;
mod calls;
mod connection;
mod control;
mod errcode;
mod faults;
mod grant;
mod official_account;
mod platform;
mod quota;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod third_party;
mod ticket_file;
mod tickets;
mod tokens;

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use faults::{Effect, Rule, parse_duration};
pub use official_account::OfficialAccount;
pub use request::Endpoint;
pub use third_party::{Authorisation, ThirdPartyPlatform};

use server::ServerState;

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The Official Accounts that exist.
    pub official_accounts: Vec<OfficialAccount>,
    /// The third-party platforms that exist.
    pub platforms: Vec<ThirdPartyPlatform>,
    /// Which Official Account has authorised which third-party platform.
    pub authorisations: Vec<Authorisation>,
    /// Where the current ticket of the first third-party platform is kept, as the platform itself would keep it.
    pub ticket_file: Option<PathBuf>,
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
    /// A free port, one Official Account (see [`OfficialAccount::default`]), WeChat's documented token times, no third-party
    /// platforms, no quotas and no faults.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            official_accounts: vec![OfficialAccount::default()],
            platforms: Vec::new(),
            authorisations: Vec::new(),
            ticket_file: None,
            token_lifetime: Duration::from_secs(7200),
            token_overlap: Duration::from_secs(300),
            minute_quota: None,
            day_quota: None,
            faults: Vec::new(),
            text_plain: false,
        }
    }
}

impl Settings {
    /// What contradicts itself in the settings, if anything does.
    ///
    /// # Errors
    /// With a sentence that names what is given twice, or not at all.
    pub fn check(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        let official_accounts = self.official_accounts.iter().flat_map(|account| [&account.wechat_id, &account.app_id]);
        let platforms = self.platforms.iter().map(|platform| &platform.app_id);
        if let Some(id) = official_accounts.chain(platforms).find(|id| !seen.insert(*id)) {
            return Err(format!("{id} is given twice"));
        }
        let mut authorised = HashSet::new();
        for Authorisation { wechat_id, platform, .. } in &self.authorisations {
            if !self.official_accounts.iter().any(|account| account.wechat_id == *wechat_id) {
                return Err(format!("{wechat_id} authorises a platform and is no Official Account"));
            }
            if !self.platforms.iter().any(|known| known.app_id == *platform) {
                return Err(format!("{wechat_id} authorises {platform}, which is no platform"));
            }
            if !authorised.insert((wechat_id, platform)) {
                return Err(format!("{wechat_id} authorises {platform} twice"));
            }
        }
        Ok(())
    }
}

/// A simulator that has its address and does not answer yet.
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
    state: ServerState,
}

impl Simulator {
    /// Takes the address of `settings.listen`, and writes the first ticket where a file for it is given.
    ///
    /// # Errors
    /// When the settings contradict themselves, the address can't be had or the ticket file can't be written.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        settings.check().map_err(|sentence| io::Error::new(io::ErrorKind::InvalidInput, sentence))?;
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let state = ServerState::new(&settings)?;
        Ok(Self { listener, address, settings, state })
    }

    /// The address it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers calls until `shutdown` is cancelled and what was being answered is finished.
    ///
    /// # Errors
    /// When the server itself fails, or a new ticket can't be written to its file.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        server::run(self.listener, self.settings, self.state, shutdown).await
    }
}
