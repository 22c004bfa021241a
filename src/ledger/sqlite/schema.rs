//! The tables of the SQLite ledger and the steps that bring an older file to today's form.

use rusqlite_migration::{M, Migrations};

/// Every step in order; a step that was released is never changed.
pub fn migrations() -> Migrations<'static> {
    Migrations::new(steps())
}

/// The form that this version knows: SQLite's `user_version` counts the steps that were taken.
pub fn known() -> i64 {
    i64::try_from(steps().len()).unwrap_or(i64::MAX)
}

fn steps() -> Vec<M<'static>> {
    vec![
        M::up(
            "
        -- One row for each command id, kept for `ledger.retention` after its outcome.
        CREATE TABLE command (
            position      INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of acceptance, for good
            command_id    TEXT NOT NULL UNIQUE,
            content       BLOB NOT NULL,                     -- fingerprint: what makes a repeat the same command
            action        TEXT,                              -- NULL where it could not be read
            kf_account    TEXT,
            given         TEXT,                              -- the producer's fields, JSON; until there is an outcome
            state         TEXT NOT NULL,                     -- accepted, running, waiting, abandoned, finished
            generation    INTEGER NOT NULL DEFAULT 0,        -- 0, and one more for each replay
            attempts      INTEGER NOT NULL DEFAULT 0,        -- calls to WeChat begun
            attempts_before INTEGER NOT NULL DEFAULT 0,      -- those of earlier generations among them
            begun_at      INTEGER,                           -- the latest call
            answer_lost   INTEGER NOT NULL DEFAULT 0,        -- a call of this command may have landed unseen
            suspect       INTEGER NOT NULL DEFAULT 0,        -- under way when the process died: it runs alone next time
            deaths        INTEGER NOT NULL DEFAULT 0,        -- times that the process died while it ran alone as a suspect
            trouble       TEXT,                              -- why it waits
            trouble_since INTEGER,
            errcode       INTEGER,                           -- WeChat's latest answer while it waits
            errmsg        TEXT,
            received_at   INTEGER NOT NULL,                  -- milliseconds since 1970, like every time here
            age_from      INTEGER NOT NULL,                  -- first receipt of this generation
            seen_at       INTEGER NOT NULL,                  -- latest receipt
            finished_at   INTEGER,
            status        TEXT,
            reason        TEXT,
            detail        TEXT,
            data          TEXT,                              -- the event's data, byte for byte
            dead_letter   TEXT                               -- NULL, owed, confirmed
        ) STRICT;

        CREATE INDEX unfinished_of_account ON command (kf_account, position) WHERE state <> 'finished';

        -- What is known of each account, never pruned.
        CREATE TABLE account (
            kf_account     TEXT PRIMARY KEY,
            revision       INTEGER,                          -- the latest accepted
            last_action    TEXT NOT NULL,
            last_action_at INTEGER NOT NULL,
            last_position  INTEGER NOT NULL,                 -- of the latest accepted command
            last_delete_at INTEGER,                          -- when the latest accepted delete was sent
            lost_add_at    INTEGER                           -- when the latest add whose answer was lost was sent
        ) STRICT, WITHOUT ROWID;

        -- Who this ledger is: put-off copies carry it.
        CREATE TABLE identity (ledger_id TEXT NOT NULL) STRICT;
        INSERT INTO identity VALUES (lower(hex(randomblob(16))));
        ",
        ),
        M::up(
            "
        -- Pauses of Official Accounts that outlive the process.
        CREATE TABLE pause (
            wechat_id     TEXT NOT NULL,
            scope         TEXT NOT NULL,
            since         INTEGER NOT NULL,
            until         INTEGER NOT NULL,
            reason        TEXT NOT NULL,
            errcode       INTEGER,                           -- WeChat's answer, where it gave one
            errmsg        TEXT,
            detail        TEXT NOT NULL,
            PRIMARY KEY (wechat_id, scope)
        ) STRICT, WITHOUT ROWID;

        -- Tokens that can't be fetched again, or not without ending another. Whoever reads this file can use them.
        CREATE TABLE token (
            owner         TEXT PRIMARY KEY,
            origin        BLOB NOT NULL,                     -- fingerprint of the configuration it was fetched with
            access_token  TEXT NOT NULL,
            ends_at       INTEGER NOT NULL,
            refresh_token TEXT
        ) STRICT, WITHOUT ROWID;
        ",
        ),
        M::up(
            "
        -- Who may call WeChat for an account. `epoch` counts the claims; a claim is lost once there was another one.
        ALTER TABLE account ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE account ADD COLUMN holder TEXT;
        ALTER TABLE account ADD COLUMN lease_until INTEGER;
        CREATE INDEX claimed ON account (holder) WHERE holder IS NOT NULL;

        -- What was in flight when a worker without claims died.
        UPDATE account SET lost_add_at = max(coalesce(lost_add_at, 0), lost.begun_at)
        FROM (SELECT kf_account, max(begun_at) AS begun_at FROM command
              WHERE state = 'running' AND action = 'add' GROUP BY kf_account) AS lost
        WHERE account.kf_account = lost.kf_account;
        UPDATE command SET state = 'abandoned', answer_lost = 1, suspect = 1 WHERE state = 'running';

        -- Whether it was moved into a database: null, `begun` or `done` and the name of the move.
        ALTER TABLE identity ADD COLUMN moved TEXT;
        ",
        ),
        M::up(
            "
        -- The latest outcomes, for whoever looks at the worker.
        CREATE INDEX latest_outcomes ON command (finished_at) WHERE finished_at IS NOT NULL;
        ",
        ),
        M::up(
            "
        -- Claims are known to the one process that writes, and end with it: a command that is running tells of one.
        DROP INDEX claimed;
        ALTER TABLE account DROP COLUMN lease_until;
        ALTER TABLE account DROP COLUMN holder;
        ALTER TABLE account DROP COLUMN epoch;

        -- By a column that changes with the outcome alone, so that nothing before it touches the index.
        DROP INDEX unfinished_of_account;
        CREATE INDEX unfinished_of_account ON command (kf_account, position) WHERE finished_at IS NULL;
        ",
        ),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_migrations_apply_to_an_empty_file() {
        super::migrations().validate().unwrap();
    }
}
