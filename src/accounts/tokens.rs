//! Access tokens: one fetch at a time for each source, renewed before they end, and never fetched in a loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::kept_token::{Asked, Turn};
use super::token_state::{State, Use};
use crate::ledger::{Ledger, LedgerError, Reader};
use crate::metrics::Metrics;
use crate::outcome::{AttemptFailure, Class, Failure, Reason};
use crate::secret::Secret;
use crate::wechat::{AppCredentials, Fetched, OwnServer, Token, WeChat};

/// Where an Official Account's token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    /// `stable_token`: repeats answer the same token, so that several programs can share an AppID. A new one is forced
    /// at most so many times a day, where WeChat refuses the one that it gives out.
    Stable { app: AppCredentials, forced_refreshes: u32 },
    /// `token`: each call ends the former token after five minutes.
    Legacy(AppCredentials),
    /// An organisation's own token server.
    Url(OwnServer),
    /// A third-party platform, named by its AppID, acts for the Official Account of this AppID. The refresh token is the
    /// one that the authorisation gave; WeChat changes it later.
    Authorizer { platform: String, app_id: String, refresh_token: Secret },
}

/// A third-party platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformSettings {
    pub app: AppCredentials,
    pub ticket: Ticket,
}

/// Where a platform keeps the verify ticket that WeChat pushes to it every ten minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ticket {
    File(PathBuf),
    Server(OwnServer),
}

/// What fetching needs.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub wechat: &'a WeChat,
    pub ledger: &'a Ledger,
    pub metrics: &'a Metrics,
}

/// Why there is no token.
#[derive(Debug)]
pub enum NoToken {
    /// Its source gave none.
    Failed {
        failed: Box<AttemptFailure>,
        /// WeChat itself was asked just now: not an organisation's own server, and not a while ago.
        asked_wechat: bool,
    },
    /// It can't be remembered: used without that, it might be lost.
    Ledger(LedgerError),
}

/// Why whoever reads beside the running worker gets no token.
#[derive(Debug)]
pub enum NotLent {
    /// Its source gave none.
    Failed(Box<AttemptFailure>),
    /// None is kept that is still good, and to fetch one would end the worker's.
    NoneKept,
    /// Whether one is kept can't be found out.
    Ledger(LedgerError),
}

/// What to know where none is kept.
pub const NONE_KEPT: &str =
    "The worker keeps no access token that is still good; to fetch one here would end the worker's. It fetches one with its next command.";

/// After a failed fetch nobody asks again for this long; it doubles with each failure.
const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// One source of tokens, and the token it gave last.
pub struct TokenSource {
    /// For whom, in metrics and logs, and in the ledger.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Whoever fetches holds it, the others wait for it: that is the single flight.
    state: Mutex<State>,
}

/// The kinds of sources, a platform's own among them.
pub(super) enum Kind {
    Stable { app: AppCredentials, forced_refreshes: u32 },
    Legacy(AppCredentials),
    Url(OwnServer),
    Authorizer { platform: Arc<TokenSource>, platform_id: String, app_id: String, refresh_token: Secret },
    Platform(PlatformSettings),
}

impl NoToken {
    fn asked(failed: AttemptFailure) -> Self {
        Self::Failed { failed: Box::new(failed), asked_wechat: true }
    }

    pub(super) fn not_asked(failed: AttemptFailure) -> Self {
        Self::Failed { failed: Box::new(failed), asked_wechat: false }
    }
}

impl TokenSource {
    /// A source for an Official Account, with that of the platform which acts for it. `None` where it needs one and there
    /// is none.
    pub fn new(wechat_id: &str, kind: TokenKind, platform: Option<Arc<Self>>) -> Option<Self> {
        let kind = match kind {
            TokenKind::Stable { app, forced_refreshes } => Kind::Stable { app, forced_refreshes },
            TokenKind::Legacy(app) => Kind::Legacy(app),
            TokenKind::Url(server) => Kind::Url(server),
            TokenKind::Authorizer { platform: platform_id, app_id, refresh_token } => {
                Kind::Authorizer { platform: platform?, platform_id, app_id, refresh_token }
            }
        };
        Some(Self { name: wechat_id.to_owned(), kind, state: Mutex::default() })
    }

    /// A source for a platform's own token.
    pub fn platform(settings: PlatformSettings) -> Self {
        Self { name: format!("platform {}", settings.app.app_id), kind: Kind::Platform(settings), state: Mutex::default() }
    }

    /// The held token, or a new one.
    ///
    /// # Errors
    /// Why there is none now.
    pub async fn get(&self, sources: Sources<'_>) -> Result<Token, NoToken> {
        let mut state = self.state.lock().await;
        self.catch_up(&mut state, sources.ledger).await?;
        let now = Instant::now();
        if let Some(held) = state.held.as_ref().filter(|held| now < held.renew_at) {
            return Ok(held.token.clone());
        }
        if let Some((until, failure)) = state.rest.as_ref().filter(|(until, _)| now < *until) {
            tracing::debug!(source = self.name, rest_ms = (*until - now).as_millis(), "no token is fetched yet");
            return state.still_good(now).ok_or_else(|| NoToken::not_asked(failure.clone()));
        }
        let turn = match self.ask_for_turn(&mut state, sources.ledger).await? {
            Asked::Turn(turn) => turn,
            Asked::Token(token) => {
                tracing::debug!(source = self.name, "another worker sees to the access token");
                state.fetched();
                return Ok(token);
            }
            Asked::InVain(failed) => {
                self.fetch_failed(&mut state, &failed);
                return Err(NoToken::not_asked(failed));
            }
        };
        match self.fetch_good(&mut state, &turn, sources).await {
            Ok(fetched) => {
                sources.metrics.token_fetched(&self.name, true);
                state.fetched();
                self.keep(&mut state, fetched, turn, sources.ledger).await
            }
            Err(error) => {
                turn.give_back(sources.ledger).await;
                let NoToken::Failed { failed, asked_wechat } = error else { return Err(error) };
                sources.metrics.token_fetched(&self.name, false);
                let token = self.fetch_failed(&mut state, &failed);
                token.ok_or(NoToken::Failed { failed, asked_wechat })
            }
        }
    }

    /// When the held token ends, or has ended, where one is held; nothing while somebody fetches one.
    pub fn ends_at(&self) -> Option<Option<Timestamp>> {
        let state = self.state.try_lock().ok()?;
        let now = Instant::now();
        let at = |ends_at: Instant| match ends_at.checked_duration_since(now) {
            Some(left) => Timestamp::now().checked_add(left).ok(),
            None => Timestamp::now().checked_sub(now.saturating_duration_since(ends_at)).ok(),
        };
        Some(state.held.as_ref().and_then(|held| at(held.ends_at)))
    }

    /// A token for whoever reads beside the running worker: fetched where that ends no other, else the one that the
    /// worker has kept in its ledger, where there is one.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn borrow(&self, wechat: &WeChat, ledger: Option<&Reader>) -> Result<Token, NotLent> {
        let fetched = match &self.kind {
            Kind::Stable { app, .. } => wechat.stable_token(app, false).await,
            Kind::Url(server) => wechat.token_from(server).await,
            Kind::Legacy(_) | Kind::Authorizer { .. } | Kind::Platform(_) => {
                let Some(ledger) = ledger else { return Err(NotLent::NoneKept) };
                let kept = ledger.token(&self.name).await.map_err(NotLent::Ledger)?.filter(|kept| kept.origin == self.origin());
                let kept = kept.filter(|kept| kept.ends_at > Timestamp::now());
                return kept.map(|kept| Token::new(kept.access_token.expose().to_owned())).ok_or(NotLent::NoneKept);
            }
        };
        fetched.map(|fetched| fetched.token).map_err(|failed| NotLent::Failed(Box::new(failed)))
    }

    /// Throws a refused token away, if it is still the one that is held: another call may have replaced it already.
    pub async fn refuse(&self, token: &Token) {
        self.state.lock().await.refuse(token, Instant::now());
    }

    /// Fetches until there is a token that may be used, which takes two fetches at most.
    async fn fetch_good(&self, state: &mut State, turn: &Turn, sources: Sources<'_>) -> Result<Fetched, NoToken> {
        let fetched = self.fetch(false, turn, sources).await?;
        let no_token = |class| Err(NoToken::asked(unchanged(class)));
        match state.consider(&fetched.token, Instant::now(), self.may_force(state)) {
            Use::Now => Ok(fetched),
            Use::NotBefore(wait) => no_token(Class::TokenUnchanged { wait }),
            Use::GivenUp => no_token(Class::ACCOUNT),
            Use::ForceAnother => {
                tracing::warn!(source = self.name, "WeChat refuses the token that it gives out; a new one is forced");
                state.count_forced();
                self.fetch(true, turn, sources).await
            }
        }
    }

    async fn fetch(&self, force: bool, turn: &Turn, sources: Sources<'_>) -> Result<Fetched, NoToken> {
        let wechat = sources.wechat;
        let fetched = match &self.kind {
            Kind::Stable { app, .. } => wechat.stable_token(app, force).await,
            Kind::Legacy(app) => wechat.legacy_token(app).await,
            Kind::Url(server) => wechat.token_from(server).await,
            Kind::Platform(platform) => match read_ticket(&platform.ticket, wechat).await {
                Ok(ticket) => wechat.platform_token(&platform.app, &ticket).await,
                Err(failed) => return Err(NoToken::not_asked(failed)),
            },
            Kind::Authorizer { platform, platform_id, app_id, refresh_token } => {
                let kept = turn.refresh_token();
                let asked_with = kept.unwrap_or(refresh_token);
                let mut fetched = fetch_authorizer((platform_id, platform), app_id, asked_with, turn, sources).await?;
                // Where WeChat gives no other, this one is still the one.
                fetched.refresh_token = fetched.refresh_token.or_else(|| kept.cloned());
                return Ok(fetched);
            }
        };
        let own_server = matches!(self.kind, Kind::Url(_));
        fetched.map_err(|failed| if own_server { NoToken::not_asked(failed) } else { NoToken::asked(failed) })
    }

    fn may_force(&self, state: &State) -> bool {
        match self.kind {
            Kind::Stable { forced_refreshes, .. } => state.forced_today() < forced_refreshes,
            _ => false,
        }
    }

    /// Whoever fails is not asked again at once; what is still good is used meanwhile.
    fn fetch_failed(&self, state: &mut State, failed: &AttemptFailure) -> Option<Token> {
        let rest = match failed.class {
            Class::TokenUnchanged { wait } => wait,
            _ => FIRST_REST.saturating_mul(1 << state.failures.min(10)).min(LONGEST_REST),
        };
        state.failures = state.failures.saturating_add(1);
        let same = state.rest.as_ref().is_some_and(|(_, before)| before.failure.reason == failed.failure.reason);
        if !same || state.failures == 1 {
            let (errcode, errmsg) = failed.failure.answered();
            let Failure { reason, detail, .. } = &failed.failure;
            tracing::warn!(source = self.name, %reason, errcode, errmsg, detail, "the access token could not be fetched");
        }
        state.rest = Some((Instant::now() + rest, failed.clone()));
        state.still_good(Instant::now())
    }
}

/// An authorizer's token, with the platform's own. That one is renewed once where WeChat refuses it.
async fn fetch_authorizer(
    (platform_id, platform): (&str, &TokenSource),
    app_id: &str,
    refresh_token: &Secret,
    turn: &Turn,
    sources: Sources<'_>,
) -> Result<Fetched, NoToken> {
    let mut renewed = false;
    loop {
        // Boxed, since a source that asks a source would have no known size.
        let platform_token = Box::pin(platform.get(sources)).await?;
        // The platform's token may have taken its time, and a refresh token that two workers ask with may be lost.
        turn.prolong(sources.ledger).await?;
        match sources.wechat.authorizer_token((platform_id, &platform_token), app_id, refresh_token).await {
            Err(failed) if failed.class == Class::Token && !renewed => {
                platform.refuse(&platform_token).await;
                renewed = true;
            }
            Err(failed) if failed.class == Class::Token => {
                return Err(NoToken::asked(AttemptFailure { class: Class::ACCOUNT, ..failed }));
            }
            fetched => return fetched.map_err(NoToken::asked),
        }
    }
}

async fn read_ticket(ticket: &Ticket, wechat: &WeChat) -> Result<Secret, AttemptFailure> {
    let no_ticket = |detail: String| AttemptFailure::new(Class::ACCOUNT, Failure::new(Reason::Misconfigured, detail));
    let text = match ticket {
        Ticket::Server(server) => wechat.ticket_from(server).await?,
        Ticket::File(path) => match tokio::fs::read_to_string(path).await {
            Ok(text) => Secret::from(text.trim().to_owned()),
            Err(error) => return Err(no_ticket(format!("The verify ticket can't be read from {}: {error}.", path.display()))),
        },
    };
    if text.expose().is_empty() {
        return Err(no_ticket("There is no verify ticket yet; WeChat pushes one to the platform every ten minutes.".to_owned()));
    }
    Ok(text)
}

/// The failure of a token that WeChat refused and gives out again.
fn unchanged(class: Class) -> AttemptFailure {
    let detail =
        "WeChat refused the access token and gives out the same one again; another program may be fetching tokens with the same AppID.";
    AttemptFailure::new(class, Failure::new(Reason::TokenRefused, detail))
}
