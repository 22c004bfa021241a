//! Tokens that are dear: kept in the ledger, and fetched by one of the workers that share it at a time.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::token_state::State;
use super::tokens::{Kind, NoToken, TokenSource};
use crate::ledger::{FetchedToken, Fetcher, Ledger, StoredToken, TokenTurn};
use crate::outcome::{AttemptFailure, Class, Failure, Reason};
use crate::retry;
use crate::secret::Secret;
use crate::wechat::{Fetched, Token};

/// While another worker fetches a token, the ledger is looked into about so often.
const LOOK: Duration = Duration::from_millis(200);
/// Whoever has no token waits for so long at most for the one that another worker fetches, and fails then, since a worker
/// that died may have the turn for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The right to fetch, and what was kept when it was given. Tokens that are not kept need neither.
#[derive(Default)]
pub struct Turn {
    fetcher: Option<Fetcher>,
    before: Option<StoredToken>,
}

/// What came of asking for the turn.
pub enum Asked {
    Turn(Turn),
    /// It was not needed: another worker has fetched this one, or fetches another while this one is still good.
    Token(Token),
    /// Another worker has had it for as long as may be waited.
    InVain(AttemptFailure),
}

impl Turn {
    /// What the next token has to be asked for with, as it was kept.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.before.as_ref()?.refresh_token.as_ref()
    }

    /// Sees that the turn is not lost, before something is asked for that can be asked for once only. From here on it
    /// lasts anew.
    pub async fn prolong(&self, ledger: &Ledger) -> Result<(), NoToken> {
        let Some(fetcher) = &self.fetcher else { return Ok(()) };
        match ledger.token_turn(fetcher.clone()).await.map_err(NoToken::Ledger)? {
            TokenTurn::Yours => Ok(()),
            TokenTurn::Others(_) => Err(NoToken::not_asked(others_fetch())),
        }
    }

    /// Gives it back where nothing was fetched.
    pub async fn give_back(self, ledger: &Ledger) {
        let Some(fetcher) = self.fetcher else { return };
        if let Err(error) = ledger.end_token_turn(fetcher).await {
            tracing::debug!(%error, "the turn to fetch a token could not be given back; it runs out by itself");
        }
    }
}

impl TokenSource {
    /// Reads what the ledger holds, the first time; writes what could not be written before.
    pub(super) async fn catch_up(&self, state: &mut State, ledger: &Ledger) -> Result<(), NoToken> {
        let Some(owner) = self.owner() else { return Ok(()) };
        if !state.loaded {
            if let Some(kept) = self.kept(&owner, ledger).await? {
                state.adopt(&kept);
            }
            state.loaded = true;
        }
        if let Some(unsaved) = &state.unsaved {
            ledger.save_token(unsaved.clone()).await.map_err(NoToken::Ledger)?;
            state.unsaved = None;
        }
        Ok(())
    }

    /// Waits for the turn to fetch, or for the token that whoever has it fetches. Whoever gets the turn looks into the
    /// ledger once more, since another worker may have been there just before.
    pub(super) async fn ask_for_turn(&self, state: &mut State, ledger: &Ledger) -> Result<Asked, NoToken> {
        let Some(owner) = self.owner() else { return Ok(Asked::Turn(Turn::default())) };
        let fetcher = Fetcher::of(owner.clone());
        let mut until = None;
        loop {
            let answer = ledger.token_turn(fetcher.clone()).await.map_err(NoToken::Ledger)?;
            let before = self.kept(&owner, ledger).await?;
            let newer = before.as_ref().and_then(|kept| state.adopt(kept));
            let now = Instant::now();
            match (answer, newer) {
                (TokenTurn::Yours, None) => return Ok(Asked::Turn(Turn { fetcher: Some(fetcher), before })),
                (TokenTurn::Yours, Some(token)) => {
                    Turn { fetcher: Some(fetcher), before }.give_back(ledger).await;
                    return Ok(Asked::Token(token));
                }
                (TokenTurn::Others(left), newer) => {
                    if let Some(token) = newer.or_else(|| state.still_good(now)) {
                        return Ok(Asked::Token(token));
                    }
                    if now >= *until.get_or_insert(now + left.min(PATIENCE)) {
                        return Ok(Asked::InVain(others_fetch()));
                    }
                    tokio::time::sleep(LOOK / 2 + retry::jitter(LOOK)).await;
                }
            }
        }
    }

    /// Writes what must survive this process into the ledger before anybody uses it, and gives the turn back with that.
    pub(super) async fn keep(&self, state: &mut State, fetched: Fetched, turn: Turn, ledger: &Ledger) -> Result<Token, NoToken> {
        let Some((fetcher, owner)) = turn.fetcher.zip(self.owner()) else { return Ok(state.hold(fetched.token, fetched.life)) };
        let token = StoredToken {
            owner: owner.clone(),
            origin: self.origin(),
            access_token: Secret::from(fetched.token.expose().to_owned()),
            ends_at: Timestamp::now().checked_add(fetched.life).unwrap_or(Timestamp::MAX),
            refresh_token: fetched.refresh_token,
        };
        let unsaved = FetchedToken { token, before: turn.before.map(|before| before.access_token), fetcher };
        state.unsaved = Some(unsaved.clone());
        let kept = match ledger.save_token(unsaved.clone()).await {
            Ok(kept) => kept,
            Err(error) => {
                if ledger.is_shared() {
                    tokio::spawn(keep_later(unsaved, ledger.clone()));
                }
                return Err(NoToken::Ledger(error));
            }
        };
        state.unsaved = None;
        if kept {
            return Ok(state.hold(fetched.token, fetched.life));
        }
        // This worker was stopped for so long that another one has fetched since: that one's token is the newer one.
        let newer = self.kept(&owner, ledger).await?.and_then(|kept| state.adopt(&kept));
        newer.ok_or_else(|| NoToken::not_asked(others_fetch()))
    }

    /// What the ledger holds for it, fetched under this configuration.
    async fn kept(&self, owner: &str, ledger: &Ledger) -> Result<Option<StoredToken>, NoToken> {
        let kept = ledger.token(owner.to_owned()).await.map_err(NoToken::Ledger)?;
        Ok(kept.filter(|kept| kept.origin == self.origin()))
    }

    /// Under which name the ledger keeps it; `None` for tokens that cost nothing to fetch again.
    fn owner(&self) -> Option<String> {
        match &self.kind {
            Kind::Stable { .. } | Kind::Url(_) => None,
            Kind::Legacy(_) | Kind::Authorizer { .. } | Kind::Platform(_) => Some(self.name.clone()),
        }
    }

    /// A fingerprint of what is configured: what was kept under another configuration is of no use.
    pub(super) fn origin(&self) -> Vec<u8> {
        let parts: [&str; 4] = match &self.kind {
            Kind::Stable { .. } | Kind::Url(_) => [""; 4],
            Kind::Legacy(app) => ["legacy", &app.app_id, app.app_secret.expose(), ""],
            Kind::Platform(platform) => ["platform", &platform.app.app_id, platform.app.app_secret.expose(), ""],
            Kind::Authorizer { platform_id, app_id, refresh_token, .. } => ["authorizer", platform_id, app_id, refresh_token.expose()],
        };
        Sha256::digest(parts.join("\0")).to_vec()
    }
}

/// Keeps a token as soon as the ledger can be written again. Nobody may ask this worker for a token until then, and the
/// others can't go on without a changed refresh token.
async fn keep_later(unsaved: FetchedToken, ledger: Ledger) {
    let mut failures = 1;
    loop {
        tokio::time::sleep(retry::before_reconnecting(failures)).await;
        if ledger.save_token(unsaved.clone()).await.is_ok() {
            return;
        }
        failures += 1;
    }
}

/// The failure of whoever could not fetch since another worker did.
fn others_fetch() -> AttemptFailure {
    let detail = "Another worker that shares the ledger is fetching the access token and has not kept one yet.";
    AttemptFailure::new(Class::Retry, Failure::new(Reason::TokenAwaited, detail))
}
