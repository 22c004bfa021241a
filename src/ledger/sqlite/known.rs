//! What the writer knows by heart: the accounts that are at work, each with all that is unfinished of it.
//!
//! Nobody else writes to the file, so that it need not be read again for the next step of a command. Claims stand here alone:
//! they end with the process, and a command that is running in the file, but not here, tells of a worker that died.

use std::collections::{BTreeSet, HashMap};

use crate::ledger::record::{AccountRecord, CommandRecord, Holder};
use crate::ledger::sheet::Sheet;
use crate::ledger::{Epoch, Position};

/// Unfinished commands, and accounts, that are known at most, those with a claim aside. A few MiB.
const MOST: usize = 4_096;

/// The accounts, and what is common to all.
pub struct Known {
    accounts: HashMap<String, Account>,
    /// Whose the unfinished commands of known accounts are.
    account_of: HashMap<Position, String>,
    /// The first position that no command has ever had.
    next_position: Position,
    /// The latest of all claims: the epoch that accounts begin with, so that none is given twice.
    latest_epoch: Epoch,
}

/// One account.
pub struct Account {
    pub record: AccountRecord,
    pub unfinished: Vec<CommandRecord>,
}

impl Known {
    pub fn new(next_position: Position) -> Self {
        Self { accounts: HashMap::new(), account_of: HashMap::new(), next_position, latest_epoch: Epoch(0) }
    }

    pub fn account(&self, kf_account: &str) -> Option<&Account> {
        self.accounts.get(kf_account)
    }

    /// Whose an unfinished command is.
    pub fn account_of(&self, position: Position) -> Option<&String> {
        self.account_of.get(&position)
    }

    /// The accounts that somebody has claimed.
    pub fn claimed_by<'a>(&'a self, holder: &'a Holder) -> impl Iterator<Item = &'a String> {
        let claimed =
            self.accounts.iter().filter(move |(_, account)| account.record.lease.as_ref().is_some_and(|lease| lease.holder == *holder));
        claimed.map(|(kf_account, _)| kf_account)
    }

    pub fn next_position(&self) -> Position {
        self.next_position
    }

    pub fn latest_epoch(&self) -> Epoch {
        self.latest_epoch
    }

    /// Takes over what was committed of these accounts, all of which had been loaded in whole.
    pub fn learn(&mut self, kf_accounts: BTreeSet<String>, mut sheet: Sheet) {
        self.next_position = sheet.next_position().unwrap_or(self.next_position);
        for kf_account in kf_accounts {
            if let Some(former) = self.accounts.get(&kf_account) {
                former.unfinished.iter().for_each(|command| drop(self.account_of.remove(&command.position)));
            }
            let Some((record, unfinished)) = sheet.take_account(&kf_account) else { continue };
            self.latest_epoch = self.latest_epoch.max(record.epoch);
            self.account_of.extend(unfinished.iter().map(|command| (command.position, kf_account.clone())));
            self.accounts.insert(kf_account, Account { record, unfinished });
        }
        if self.account_of.len() > MOST || self.accounts.len() > MOST {
            self.accounts.retain(|_, account| account.record.lease.is_some());
            let accounts = &self.accounts;
            self.account_of.retain(|_, kf_account| accounts.contains_key(kf_account));
        }
    }
}
