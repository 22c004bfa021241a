//! What the ledger decides: pure, on the records that a transaction has loaded, the same for every database.
//!
//! A database loads all that the requests of a transaction are about, and holds it; the requests are decided here, one
//! after the other; then what has changed is written and committed. So there is one judge, and a transaction costs two
//! round trips however many requests share it.

mod accept;
mod claims;
mod outcomes;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::record::{AccountRecord, CommandRecord, Holder};
use super::{LedgerError, Position};

/// What a sheet has to hold for some requests to be decided: these commands, these accounts and those of these commands,
/// and everything unfinished of all of them.
#[derive(Debug, Default)]
pub struct Keys {
    pub command_ids: BTreeSet<String>,
    pub kf_accounts: BTreeSet<String>,
    pub positions: BTreeSet<Position>,
    /// All accounts that this process has claimed.
    pub claimed: bool,
    /// So many commands may be new.
    pub arrivals: usize,
}

/// By whom, when and by which times decisions are made.
#[derive(Debug, Clone)]
pub struct Terms {
    /// This process.
    pub holder: Holder,
    /// The present, by the ledger's clock.
    pub now: Timestamp,
    /// How long a claim lasts.
    pub lease: Duration,
    /// An unfinished command whose message was not seen for this long holds nobody up.
    pub patience: Duration,
    /// There may be other processes with claims that hold. Where not, those of others are over.
    pub shared: bool,
}

/// What a transaction has loaded.
#[derive(Debug)]
pub struct Records {
    pub commands: Vec<CommandRecord>,
    pub accounts: Vec<AccountRecord>,
    /// Positions for new commands, in their order; at least as many as may be new.
    pub free_positions: VecDeque<Position>,
}

/// The loaded records, and which of them have changed.
pub struct Sheet {
    terms: Terms,
    free_positions: VecDeque<Position>,
    commands: HashMap<Position, CommandRecord>,
    by_id: HashMap<String, Position>,
    accounts: HashMap<String, AccountRecord>,
    unfinished: HashMap<String, BTreeSet<Position>>,
    changed_commands: BTreeSet<Position>,
    changed_accounts: BTreeSet<String>,
    /// Those of which the claim has changed.
    changed_claims: BTreeSet<String>,
    /// What has reached its outcome here, in this order.
    ended: Vec<Position>,
}

impl Sheet {
    pub fn new(terms: Terms, records: Records) -> Self {
        let Records { commands, accounts, free_positions } = records;
        let mut sheet = Self {
            terms,
            free_positions,
            commands: HashMap::new(),
            by_id: HashMap::new(),
            accounts: accounts.into_iter().map(|account| (account.kf_account.clone(), account)).collect(),
            unfinished: HashMap::new(),
            changed_commands: BTreeSet::new(),
            changed_accounts: BTreeSet::new(),
            changed_claims: BTreeSet::new(),
            ended: Vec::new(),
        };
        for command in commands {
            sheet.add(command);
        }
        sheet.end_lapsed_claims();
        sheet
    }

    /// The commands that have changed, oldest first.
    pub fn changed_commands(&self) -> impl Iterator<Item = &CommandRecord> {
        self.changed_commands.iter().filter_map(|position| self.commands.get(position))
    }

    /// The commands that have reached their outcome here.
    pub fn ended(&self) -> impl Iterator<Item = &CommandRecord> {
        self.ended.iter().filter_map(|position| self.commands.get(position))
    }

    /// The accounts that have changed, their claims aside, in the order of their names.
    pub fn changed_accounts(&self) -> impl Iterator<Item = &AccountRecord> {
        self.changed_accounts.iter().filter_map(|name| self.accounts.get(name))
    }

    /// The accounts that have changed in any way, likewise.
    pub fn changed_accounts_and_claims(&self) -> impl Iterator<Item = &AccountRecord> {
        self.changed_accounts.union(&self.changed_claims).filter_map(|name| self.accounts.get(name))
    }

    /// The first position that is still free, where there is one.
    pub fn next_position(&self) -> Option<Position> {
        self.free_positions.front().copied()
    }

    /// An account that something was accepted for, and all that is unfinished of it: both leave the sheet.
    pub fn take_account(&mut self, kf_account: &str) -> Option<(AccountRecord, Vec<CommandRecord>)> {
        let account = self.accounts.remove(kf_account).filter(|account| account.latest.is_some())?;
        let unfinished = self.unfinished.remove(kf_account).unwrap_or_default();
        Some((account, unfinished.iter().filter_map(|position| self.commands.remove(position)).collect()))
    }

    /// The unfinished commands of an account whose messages are still about, oldest first.
    fn unfinished_of(&self, kf_account: &str) -> impl Iterator<Item = &CommandRecord> {
        let positions = self.unfinished.get(kf_account).into_iter().flatten();
        positions.filter_map(|position| self.commands.get(position)).filter(|command| self.is_seen(command))
    }

    /// Whether its message was seen within everybody's patience.
    fn is_seen(&self, command: &CommandRecord) -> bool {
        command.seen_at >= self.terms.now.checked_sub(self.terms.patience).unwrap_or(Timestamp::MIN)
    }

    fn add(&mut self, command: CommandRecord) {
        self.by_id.insert(command.command_id.clone(), command.position);
        if let (None, Some(kf_account)) = (&command.ended, &command.kf_account) {
            self.unfinished.entry(kf_account.clone()).or_default().insert(command.position);
        }
        self.commands.insert(command.position, command);
    }

    fn command(&self, position: Position) -> Result<&CommandRecord, LedgerError> {
        self.commands.get(&position).ok_or(LedgerError::Unreadable("no command where one should be"))
    }

    fn change(&mut self, position: Position) -> Result<&mut CommandRecord, LedgerError> {
        self.changed_commands.insert(position);
        self.commands.get_mut(&position).ok_or(LedgerError::Unreadable("no command where one should be"))
    }

    fn account_of(&self, position: Position) -> Result<String, LedgerError> {
        self.command(position)?.kf_account.clone().ok_or(LedgerError::Unreadable("a command to be carried out without an account"))
    }

    fn change_account(&mut self, kf_account: &str) -> &mut AccountRecord {
        self.changed_accounts.insert(kf_account.to_owned());
        self.account(kf_account)
    }

    /// For a change of its claim alone.
    fn change_claim(&mut self, kf_account: &str) -> &mut AccountRecord {
        self.changed_claims.insert(kf_account.to_owned());
        self.account(kf_account)
    }

    fn account(&mut self, kf_account: &str) -> &mut AccountRecord {
        self.accounts.entry(kf_account.to_owned()).or_insert_with(|| AccountRecord::unknown(kf_account))
    }
}

impl Keys {
    /// For a decision about one command.
    pub fn position(position: Position) -> Self {
        Self { positions: BTreeSet::from([position]), ..Self::default() }
    }

    /// For a decision about one account.
    pub fn account(kf_account: &str) -> Self {
        Self { kf_accounts: BTreeSet::from([kf_account.to_owned()]), ..Self::default() }
    }

    /// All that either needs.
    pub fn join(&mut self, other: &Self) {
        self.command_ids.extend(other.command_ids.iter().cloned());
        self.kf_accounts.extend(other.kf_accounts.iter().cloned());
        self.positions.extend(other.positions.iter().copied());
        self.claimed |= other.claimed;
        self.arrivals += other.arrivals;
    }
}
