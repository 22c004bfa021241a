//! What the tests' own PostgreSQL promises to those that stand on it: nothing committed is lost, and nothing of it stays behind.

use std::path::Path;

use super::support::postgres::{Database, OwnServer, Pooler, database};

/// The processes that work on a folder's data, by their working folder.
fn processes_of(server: &OwnServer) -> Vec<u32> {
    let folder = database_folder(&server.database());
    let entries = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A server from the root folder of another system stands below that.
    let folder = Path::new(&folder).strip_prefix("/").expect("the server names the whole path");
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.ends_with(folder))).collect()
}

fn database_folder(database: &Database) -> String {
    database.rows("SHOW data_directory").remove(0).remove(0)
}

fn answer_to(url: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
    Database::at(url).try_rows(sql)
}

#[test]
fn each_database_is_its_own_and_rows_are_read_as_they_are() {
    let (one, two) = (database(), database());
    one.execute("CREATE TABLE t (a text, b int); INSERT INTO t VALUES ('客服1\n|', NULL), ('', 2)");
    assert_eq!(one.rows("SELECT * FROM t ORDER BY b NULLS FIRST"), [["客服1\n|", "NULL"], ["", "2"]]);
    assert_eq!(one.rows("SELECT a FROM t WHERE b = 2"), [[""]]);
    assert_eq!(one.rows("SELECT * FROM t WHERE b = 3"), Vec::<Vec<String>>::new());
    assert_eq!(two.rows("SELECT to_regclass('t')"), [["NULL"]]);
    assert_eq!(two.rows("SELECT current_setting('fsync'), current_setting('server_encoding')"), [["on", "UTF8"]]);
    let name = one.rows("SELECT current_database()").remove(0).remove(0);
    drop(one);
    assert_eq!(two.rows(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")), [["0"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_has_all_that_was_committed_when_it_comes_back() {
    let mut server = OwnServer::start();
    let database = server.database();
    database.execute("CREATE TABLE t (a int)");
    database.execute("INSERT INTO t VALUES (1)");
    let processes = processes_of(&server);
    assert!(processes.len() > 3, "{processes:?}");
    server.kill();
    let left = processes.iter().filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok()).count();
    assert_eq!(left, 0, "processes of a killed server");
    server.start_again();
    assert_eq!(database.rows("SELECT a FROM t"), [["1"]]);
    server.restart();
    assert_eq!(database.rows("SELECT a FROM t"), [["1"]]);
    let folder = database_folder(&database);
    drop(server);
    assert!(!Path::new(&folder).exists(), "{folder}");
}

#[test]
fn a_server_with_tls_takes_nothing_else() {
    let (server, authority) = OwnServer::start_with_tls();
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let checked = format!("{}?sslmode=verify-full&sslrootcert={}", server.url(), authority.display());
    assert_eq!(answer_to(&checked, sql).expect("it is let in"), [["t"]]);
    let complaint = answer_to(&format!("{}?sslmode=disable", server.url()), sql).expect_err("nobody else is");
    assert!(complaint.contains("no encryption"), "{complaint}");
}

#[test]
fn a_pooler_hands_a_connection_with_its_settings_on_to_the_next_client() {
    let server = OwnServer::start();
    let own = server.database();
    let pooler = Pooler::start(server.url());
    let url = pooler.url(&own);
    let here = "SELECT current_database()";
    assert_eq!(answer_to(&url, here), answer_to(own.url(), here));
    // The setting outlives the client that made it, on a connection that the next client gets.
    answer_to(&url, "SET work_mem = '7MB'").expect("it can be set");
    assert_eq!(answer_to(&url, "SHOW work_mem").expect("it is told"), [["7MB"]]);
    let complaint = answer_to(&format!("{url}?options=-cwork_mem%3D1MB"), "SELECT 1").expect_err("it is refused");
    assert!(complaint.contains("unsupported startup parameter"), "{complaint}");
    drop(pooler);
    answer_to(&url, "SELECT 1").expect_err("nobody is there");
}
