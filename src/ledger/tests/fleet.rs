//! Several workers on one ledger: claims, what is lost with them, and who may still speak.

use super::*;

const LONG: Duration = Duration::from_secs(600);

/// Two workers on one database, with claims of these lengths.
async fn two(first: Duration, second: Duration) -> (Fixture, Opened, Opened) {
    let fixture = Fixture::postgres();
    let one = fixture.reopen(&Settings { lease: first, ..fixture.settings() }).await;
    let two = fixture.reopen(&Settings { lease: second, ..fixture.settings() }).await;
    (fixture, one, two)
}

fn succeeded(text: &str, ticket: Ticket, effect: Effect) -> Conclusion {
    let Arrived::Command(command) = arrived(&command(text)) else { panic!("{text}") };
    let history = History { attempts: 1, received_at: ticket.received_at, finished_at: Timestamp::UNIX_EPOCH };
    conclude(&command.given, Identity::Generation(0), &Outcome::Succeeded(effect.into()), history)
}

#[tokio::test]
async fn while_one_worker_calls_for_an_account_another_waits_for_that_account_alone() {
    let (_fixture, one, two) = two(LONG, LONG).await;
    let add = ticket(&one, "+1").await;
    begin(&one, add).await;
    let delete = ticket(&two, "-2").await;
    for position in [add.position, delete.position] {
        let Claim::Not(Obstacle::Held(left)) = two.begin(position).await.unwrap() else { panic!() };
        assert!(left > LONG / 2 && left <= LONG, "{left:?}");
    }
    let other = message(r#"{"command_id":"o","action":"delete","kf_account":"b@test"}"#);
    let Acceptance::Unfinished(other) = two.accept(vec![arrival(&other)]).await.unwrap().remove(0) else { panic!() };
    begin(&two, other).await;
    finish(&one, "+1", add, Effect::Created).await;
    assert!(matches!(two.begin(add.position).await.unwrap(), Claim::Not(Obstacle::Finished(_))));
    assert_eq!(begin(&two, delete).await.attempts, 1);
}

#[tokio::test]
async fn a_worker_that_wakes_up_late_records_nothing_and_is_told_what_was_recorded() {
    let (_fixture, late, next) = two(Duration::ZERO, LONG).await;
    let add = ticket(&late, "+1").await;
    let old = begin(&late, add).await;
    let taken = begin(&next, ticket(&next, "+1").await).await;
    assert_eq!((taken.attempts, taken.answer_lost_before), (2, true));
    assert!(taken.epoch > old.epoch);

    let recorded = late.ledger.finish(add.position, Some(old.epoch), succeeded("+1", add, Effect::Created), false).await.unwrap();
    assert!(recorded.finished.is_none() && recorded.ending == Ending::ClaimLost { may_be_back: false }, "{recorded:?}");
    let recorded = late.ledger.wait(add.position, Waiting { claim: Some(old.epoch), ..waiting(true) }).await.unwrap();
    assert!(recorded.finished.is_none() && recorded.ending != Ending::Ours, "{recorded:?}");

    let outcome = finish(&next, "+1", add, Effect::Unknown).await;
    let recorded = late.ledger.finish(add.position, Some(old.epoch), succeeded("+1", add, Effect::Created), false).await.unwrap();
    assert_eq!(recorded.finished.unwrap().conclusion.data, outcome.conclusion.data, "one outcome, the next worker's");
}

#[tokio::test]
async fn a_lost_claim_stays_lost_although_nobody_else_has_begun() {
    let (_fixture, late, next) = two(Duration::ZERO, LONG).await;
    let add = ticket(&late, "+1").await;
    let old = begin(&late, add).await;
    // The next worker only looks, and sees that the claim has run out.
    ticket(&next, "+1").await;
    let recorded = late.ledger.finish(add.position, Some(old.epoch), succeeded("+1", add, Effect::Created), false).await.unwrap();
    assert_eq!(recorded.ending, Ending::ClaimLost { may_be_back: false });
}

#[tokio::test]
async fn an_add_that_may_land_after_the_delete_is_deleted_once_more_and_only_then() {
    let (_fixture, late, next) = two(Duration::ZERO, LONG).await;
    let add = ticket(&late, "+1").await;
    let old = begin(&late, add).await;
    assert_eq!(next.begin_clean_up("a@test".to_owned()).await.unwrap(), CleanUp::NotWanted, "the account is wanted");
    let delete = ticket(&next, "-2").await;
    assert_eq!(next.begin_clean_up("a@test".to_owned()).await.unwrap(), CleanUp::NotWanted, "its delete is still to be called");
    begin(&next, delete).await;
    let recorded = late.ledger.finish(add.position, Some(old.epoch), succeeded("+1", add, Effect::Created), false).await.unwrap();
    assert_eq!(recorded.ending, Ending::ClaimLost { may_be_back: true });
    assert_eq!(recorded.finished.unwrap().conclusion.status, Status::Superseded);
    assert!(matches!(late.begin_clean_up("a@test".to_owned()).await.unwrap(), CleanUp::Held(_)), "the delete is being called");
    finish(&next, "-2", delete, Effect::None).await;
    let CleanUp::Begun(claim) = late.begin_clean_up("a@test".to_owned()).await.unwrap() else { panic!() };
    late.end_clean_up("a@test".to_owned(), claim).await.unwrap();
    let newer = ticket(&next, "+3").await;
    begin(&next, newer).await;
    assert_eq!(late.begin_clean_up("a@test".to_owned()).await.unwrap(), CleanUp::NotWanted, "a newer command wants the account");
}

#[tokio::test]
async fn after_a_clean_up_another_worker_may_call_for_the_account() {
    let (_fixture, one, two) = two(LONG, LONG).await;
    let delete = ticket(&one, "-1").await;
    begin(&one, delete).await;
    finish(&one, "-1", delete, Effect::Deleted).await;
    let CleanUp::Begun(claim) = one.begin_clean_up("a@test".to_owned()).await.unwrap() else { panic!() };
    let add = ticket(&two, "+2").await;
    assert!(matches!(two.begin(add.position).await.unwrap(), Claim::Not(Obstacle::Held(_))), "it is being deleted once more");
    one.end_clean_up("a@test".to_owned(), claim).await.unwrap();
    begin(&two, add).await;
}

#[tokio::test]
async fn who_has_not_called_gives_no_outcome_to_what_another_worker_is_calling_for() {
    let (_fixture, one, two) = two(LONG, LONG).await;
    let add = ticket(&one, "+1").await;
    begin(&one, add).await;
    let recorded = two.ledger.finish(add.position, None, succeeded("+1", add, Effect::Unknown), false).await.unwrap();
    assert!(recorded.finished.is_none() && recorded.ending == Ending::ClaimLost { may_be_back: false }, "{recorded:?}");
    let outcome = finish(&one, "+1", add, Effect::Created).await;
    assert!(outcome.conclusion.data.contains("created"), "{}", outcome.conclusion.data);
}

#[tokio::test]
async fn workers_that_accept_the_same_at_the_same_time_agree() {
    let (_fixture, one, two) = two(LONG, LONG).await;
    for round in 0..20 {
        let texts: Vec<String> = (0..10).map(|n| format!("{}{round}-{n}", if n % 2 == 0 { "+" } else { "-" })).collect();
        let arrivals = || texts.iter().map(|text| arrival(&command(text))).collect::<Vec<_>>();
        let reversed = || arrivals().into_iter().rev().collect::<Vec<_>>();
        let (mine, theirs) = tokio::join!(one.accept(arrivals()), two.accept(reversed()));
        let positions = |accepted: Vec<Acceptance>| {
            let position = |acceptance: Acceptance| match acceptance {
                Acceptance::Unfinished(ticket) => ticket.position,
                other => panic!("{other:?}"),
            };
            accepted.into_iter().map(position).collect::<Vec<_>>()
        };
        let (mine, mut theirs) = (positions(mine.unwrap()), positions(theirs.unwrap()));
        theirs.reverse();
        assert_eq!(mine, theirs);
        assert!(mine.is_sorted() || mine.iter().rev().is_sorted(), "the order of whoever came first: {mine:?}");
    }
}

#[tokio::test]
async fn an_orderly_end_gives_up_its_own_calls_alone() {
    let (fixture, one, two) = two(LONG, LONG).await;
    let other = message(r#"{"command_id":"o","action":"delete","kf_account":"b@test"}"#);
    let Acceptance::Unfinished(other) = two.accept(vec![arrival(&other)]).await.unwrap().remove(0) else { panic!() };
    begin(&two, other).await;
    let add = ticket(&one, "+1").await;
    begin(&one, add).await;
    one.release().await.unwrap();
    let again = ticket(&two, "+1").await;
    assert!(!again.suspect, "nobody has died");
    // The request that was given up may still be on its way.
    assert!(matches!(two.begin(again.position).await.unwrap(), Claim::Not(Obstacle::Held(_))));
    let Fixture::Postgres(database) = &fixture else { panic!() };
    database.execute("UPDATE kf_worker.account SET lease_until = now() WHERE kf_account = 'a@test'");
    let begun = begin(&two, ticket(&two, "+1").await).await;
    assert!(begun.answer_lost_before);
    assert!(matches!(one.begin(other.position).await.unwrap(), Claim::Not(Obstacle::Held(_))));
}

#[tokio::test]
async fn an_attempt_that_came_to_no_call_is_not_counted() {
    let fixture = Fixture::postgres();
    let ledger = fixture.open().await;
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    ledger.wait(add.position, Waiting { called: false, ..waiting(false) }).await.unwrap();
    assert_eq!(ticket(&ledger, "+1").await.attempts, 0);
}

#[tokio::test]
async fn one_worker_at_a_time_has_the_turn_to_fetch_a_token() {
    let (_fixture, one, two) = two(LONG, LONG).await;
    let [first, second, other] = ["test", "test", "other"].map(|owner| Fetcher::of(owner.to_owned()));
    assert_eq!(one.token_turn(first.clone()).await.unwrap(), TokenTurn::Yours);
    assert_eq!(one.token_turn(first.clone()).await.unwrap(), TokenTurn::Yours, "it has it already");
    let TokenTurn::Others(left) = two.token_turn(second.clone()).await.unwrap() else { panic!("it is the first one's") };
    assert!(left > 3 * LONG && left <= 4 * LONG, "{left:?}");
    // Even in one process: a source of another configuration is a stranger.
    assert_ne!(one.token_turn(second.clone()).await.unwrap(), TokenTurn::Yours);
    assert_eq!(two.token_turn(other).await.unwrap(), TokenTurn::Yours, "another owner's is another matter");
    two.end_token_turn(second.clone()).await.unwrap();
    assert_ne!(two.token_turn(second.clone()).await.unwrap(), TokenTurn::Yours, "nobody gives back what is not his");
    one.end_token_turn(first.clone()).await.unwrap();
    assert_eq!(two.token_turn(second).await.unwrap(), TokenTurn::Yours);
    assert_ne!(one.token_turn(first).await.unwrap(), TokenTurn::Yours);
}

#[tokio::test]
async fn a_turn_to_fetch_a_token_runs_out_and_ends_with_the_token_that_is_kept() {
    let (_fixture, late, next) = two(Duration::ZERO, LONG).await;
    let [first, second, third] = [(); 3].map(|()| Fetcher::of("test".to_owned()));
    let fetched = |text: &str, fetcher: &Fetcher| FetchedToken {
        token: StoredToken {
            owner: "test".to_owned(),
            origin: vec![1],
            access_token: Secret::from(text.to_owned()),
            ends_at: Timestamp::UNIX_EPOCH,
            refresh_token: None,
        },
        before: None,
        fetcher: fetcher.clone(),
    };
    assert_eq!(late.token_turn(first.clone()).await.unwrap(), TokenTurn::Yours);
    assert_eq!(next.token_turn(second.clone()).await.unwrap(), TokenTurn::Yours, "the first one's has run out");
    assert!(late.save_token(fetched("late", &first)).await.unwrap(), "nothing was kept since");
    assert_ne!(late.token_turn(third.clone()).await.unwrap(), TokenTurn::Yours, "a turn that was lost ends nobody else's");
    assert!(!next.save_token(fetched("next", &second)).await.unwrap(), "it was kept after this one was asked for");
    assert_eq!(late.token_turn(third).await.unwrap(), TokenTurn::Yours, "the turn is over all the same");
}

#[tokio::test]
async fn of_many_that_want_the_turn_at_the_same_time_one_has_it() {
    let (_fixture, one, two) = two(LONG, LONG).await;
    for round in 0..20 {
        let ask = |ledger: &Opened| ledger.ledger.clone();
        let asked = [ask(&one), ask(&two)].map(|ledger| async move { ledger.token_turn(Fetcher::of(round.to_string())).await.unwrap() });
        let answers = futures_util::future::join_all(asked).await;
        assert_eq!(answers.iter().filter(|answer| **answer == TokenTurn::Yours).count(), 1, "{answers:?}");
    }
}

#[tokio::test]
async fn workers_count_each_other_while_they_are_there() {
    let (fixture, one, two) = two(LONG, LONG).await;
    assert_eq!(one.attend().await.unwrap(), Attendance { index: 0, of: 1 });
    assert_eq!(two.attend().await.unwrap(), Attendance { index: 1, of: 2 });
    let three = fixture.open().await;
    assert_eq!(three.attend().await.unwrap(), Attendance { index: 2, of: 3 });
    one.leave().await.unwrap();
    assert_eq!(two.attend().await.unwrap(), Attendance { index: 0, of: 2 });
    assert_eq!(three.attend().await.unwrap(), Attendance { index: 1, of: 2 });
    let Fixture::Postgres(database) = &fixture else { panic!() };
    database.execute("UPDATE kf_worker.worker SET seen_at = seen_at - interval '11 seconds'");
    assert_eq!(three.attend().await.unwrap(), Attendance { index: 0, of: 1 }, "the other was not heard of for too long");
    assert_eq!(two.attend().await.unwrap(), Attendance { index: 0, of: 2 }, "and is back");
}

#[tokio::test]
async fn many_workers_may_make_the_tables_at_once() {
    let fixture = Fixture::postgres();
    let settings = fixture.settings();
    let opened = futures_util::future::join_all((0..8).map(|_| Ledger::open(&settings, metrics()))).await;
    let ids: Vec<String> = opened.into_iter().map(|ledger| ledger.unwrap().id().to_owned()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 32), "{ids:?}");
}

/// A user of the server, gone with this value together with what is its own in the database.
struct Role<'a> {
    name: String,
    database: &'a Database,
}

impl<'a> Role<'a> {
    fn create(database: &'a Database) -> Self {
        let name = format!("kf_{:016x}", rand::random::<u64>());
        database.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'"));
        Self { name, database }
    }

    /// The database's URL for this user.
    fn url(&self) -> String {
        let (_, place) = self.database.url().split_once('@').unwrap();
        format!("postgres://{}:secret@{place}", self.name)
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        // A test that fails because of this would hide why it failed.
        self.database.try_rows(&format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name)).ok();
    }
}

#[tokio::test]
async fn a_user_that_may_not_create_schemas_uses_the_one_made_for_it() {
    let database = private_postgres::database();
    let role = Role::create(&database);
    let name = &role.name;
    assert_eq!(database.rows(&format!("SELECT has_database_privilege('{name}', current_database(), 'CREATE')")), [["f"]]);
    let Err(error) = open_at(&role.url()).await else { panic!("it has made the schema") };
    assert!(error.to_string().contains("make the schema `kf_worker` for it"), "{error}");
    database.execute(&format!("CREATE SCHEMA kf_worker AUTHORIZATION {name}"));
    for text in ["+1", "+2"] {
        carry_one(&open_at(&role.url()).await.unwrap_or_else(|error| panic!("{error}")), text).await;
    }
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_left_alone() {
    let fixture = Fixture::postgres();
    drop(fixture.open().await);
    let Fixture::Postgres(database) = &fixture else { panic!() };
    database.execute("UPDATE kf_worker.version SET version = 1000");
    let Err(error) = Ledger::open(&fixture.settings(), metrics()).await else { panic!() };
    assert!(error.to_string().contains("newer version") && !error.may_pass(), "{error}");
}

#[tokio::test]
async fn texts_that_the_database_can_not_hold_lose_nothing() {
    let fixture = Fixture::postgres();
    let ledger = fixture.open().await;
    // A refused message may name anything as its account, and WeChat may say anything.
    let refused = message(r#"{"command_id":"r","action":"add","nickname":"n","kf_account":"a\u0000b"}"#);
    let accepted = ledger.accept(vec![arrival(&refused), arrival(&command("+1"))]).await.unwrap();
    assert!(matches!(accepted[..], [Acceptance::Decided(_), Acceptance::Unfinished(_)]), "{accepted:?}");
    let add = ticket(&ledger, "+1").await;
    begin(&ledger, add).await;
    let answer = Some(Answer { errcode: -1, errmsg: "bu\0sy".to_owned() });
    ledger.wait(add.position, Waiting { answer, ..waiting(false) }).await.unwrap();
    ticket(&ledger, "+1").await;
}

/// A command's whole life, to see that a way to the database carries it.
async fn carry_one(ledger: &Opened, text: &str) {
    let ticket = ticket(ledger, text).await;
    begin(ledger, ticket).await;
    ledger.wait(ticket.position, waiting(false)).await.unwrap();
    begin(ledger, ticket).await;
    finish(ledger, text, ticket, Effect::Created).await;
}

async fn open_at(url: &str) -> Result<Opened, OpenError> {
    let settings = Settings { place: Place::parse(url).unwrap(), retention: DAY, patience: DAY, lease: LONG };
    Ok(Opened { ledger: Ledger::open(&settings, metrics()).await?, claims: RefCell::default() })
}

#[tokio::test]
async fn a_proxy_that_pools_transactions_may_stand_in_between() {
    let server = OwnServer::start();
    let database = server.database();
    let pooler = Pooler::start(server.url());
    // More workers than the proxy has connections, so that each transaction meets another one.
    let url = pooler.url(&database);
    let workers = futures_util::future::join_all((0..4).map(|_| open_at(&url))).await;
    let workers: Vec<Opened> = workers.into_iter().map(|worker| worker.unwrap_or_else(|error| panic!("{error}"))).collect();
    let lives = workers.iter().enumerate().map(async |(worker, ledger)| {
        for round in 0..10 {
            let body = format!(r#"{{"command_id":"{worker}-{round}","action":"delete","kf_account":"w{worker}@test"}}"#);
            let Acceptance::Unfinished(ticket) = ledger.accept(vec![arrival(&message(&body))]).await.unwrap().remove(0) else { panic!() };
            begin(ledger, ticket).await;
            finish(ledger, &format!("-{worker}-{round}"), ticket, Effect::Deleted).await;
            ledger.attend().await.unwrap();
            ledger.probe().await.unwrap();
        }
    });
    futures_util::future::join_all(lives).await;
    assert_eq!(database.rows("SELECT count(*) FROM kf_worker.command WHERE state = 'finished'"), [["40"]]);
    let reader = Reader::open(&Place::parse(&url).unwrap()).await.unwrap();
    assert!(matches!(reader.find("0-0").await.unwrap(), Lookup::Finished(_)));
}

#[tokio::test]
async fn a_certificate_is_checked_where_encryption_is_asked_for() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (server, authority) = OwnServer::start_with_tls();
    let database = server.database();
    let (plain, _) = database.url().split_once('?').unwrap_or((database.url(), ""));
    let checked = format!("{plain}?sslmode=require&sslrootcert={}", authority.display());
    carry_one(&open_at(&checked).await.unwrap_or_else(|error| panic!("{error}")), "+1").await;
    // The system's authorities don't know this one, and without encryption the server lets nobody in.
    for (url, told) in [(format!("{plain}?sslmode=require"), "certificate"), (format!("{plain}?sslmode=disable"), "no encryption")] {
        let Err(error) = open_at(&url).await else { panic!("{url}") };
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test]
async fn after_the_server_was_killed_or_restarted_the_ledger_goes_on_with_all_that_was_answered() {
    let mut server = OwnServer::start();
    let database = server.database();
    let ledger = open_at(database.url()).await.unwrap();
    carry_one(&ledger, "+1").await;
    server.restart();
    // The connection was lost while nothing was asked: that is not even noticed.
    carry_one(&ledger, "+2").await;
    server.kill();
    let Err(error) = ledger.accept(vec![arrival(&command("+3"))]).await else { panic!() };
    assert!(error.to_string().contains("database can't be used"), "{error}");
    assert!(ledger.probe().await.is_err());
    server.start_again();
    ledger.probe().await.unwrap();
    carry_one(&ledger, "+3").await;
    for text in ["+1", "+2"] {
        assert!(matches!(accept(&ledger, text).await, Acceptance::Repeat(_)), "{text}");
    }
}

#[tokio::test]
async fn a_worker_that_is_stopped_in_the_middle_of_a_transaction_holds_up_the_others_for_seconds_only() {
    let (fixture, one, _) = two(LONG, LONG).await;
    ticket(&one, "+1").await;
    let Fixture::Postgres(database) = &fixture else { panic!() };
    // What a transaction looks like whose worker was stopped after it had locked the account.
    let (client, connection) = tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(&crate::ledger::postgres::begin_statement()).await.unwrap();
    client.batch_execute("SELECT FROM kf_worker.account FOR UPDATE").await.unwrap();
    ticket(&one, "+2").await;
    assert!(connection.await.unwrap().is_err(), "the server has ended the other one");
}

#[tokio::test]
async fn a_position_that_is_another_commands_is_never_written_over() {
    let fixture = Fixture::postgres();
    let ledger = fixture.open().await;
    let first = finish_one(&ledger, "+1").await;
    let Fixture::Postgres(database) = &fixture else { panic!() };
    // As after a restore that forgot the sequence.
    database.execute("SELECT setval('kf_worker.position', 1, false)");
    assert!(ledger.accept(vec![arrival(&command("-2"))]).await.is_err());
    let Acceptance::Repeat(again) = accept(&ledger, "+1").await else { panic!() };
    assert_eq!(again.conclusion.data, first.conclusion.data);
    drop(ledger);
    // The next start puts it right.
    let ledger = fixture.open().await;
    ticket(&ledger, "-2").await;
}

async fn finish_one(ledger: &Opened, text: &str) -> Finished {
    let ticket = ticket(ledger, text).await;
    begin(ledger, ticket).await;
    finish(ledger, text, ticket, Effect::Created).await
}

#[tokio::test]
async fn a_worker_notices_that_another_ledger_stands_in_its_database() {
    let fixture = Fixture::postgres();
    let ledger = fixture.open().await;
    let Fixture::Postgres(database) = &fixture else { panic!() };
    for replaced in ["UPDATE kf_worker.identity SET move = 'x'", "UPDATE kf_worker.identity SET move = NULL, ledger_id = 'another'"] {
        database.execute(replaced);
        assert!(matches!(ledger.accept(vec![arrival(&command("+1"))]).await, Err(LedgerError::Replaced)));
    }
}

#[tokio::test]
async fn a_database_that_can_not_hold_every_nickname_is_refused() {
    let server = OwnServer::start();
    let database = server.database();
    database.execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let url = database.url().rsplit_once('/').unwrap().0.to_owned() + "/latin";
    let Err(error) = open_at(&url).await else { panic!() };
    assert!(error.to_string().contains("UTF8") && !error.may_pass(), "{error}");
}

#[tokio::test]
async fn a_nul_anywhere_in_a_command_hides_no_nickname() {
    let fixture = Fixture::postgres();
    let ledger = fixture.open().await;
    let body = r#"{"command_id":"1","action":"add","nickname":"n","kf_account":"a@test","meta":{"x":"a\u0000b"}}"#;
    ledger.accept(vec![arrival(&message(body))]).await.unwrap();
    assert_eq!(ledger.wanted("test".to_owned()).await.unwrap()[0].nickname.as_deref(), Some("n"));
}
