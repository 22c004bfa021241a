//! The PostgreSQL of this test run (the one that `KF_TEST_POSTGRES_URL` names, else one private server for the whole test process)
//! with a database for each test, servers of a test's own, which it may kill, and a pooler to put before them.
//!
//! It leans on nothing else of the tests' support but what runs scripts and finds ports, so that the library's own tests can share it. What blocks gives way to the
//! other tasks of a runtime that has threads for them, and works without a runtime too.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use super::ports::free_port;
use super::script;

/// A server, and the script that looks after it where this process started it.
struct Server {
    url: String,
    script: Option<Child>,
}

/// A new database of the run's server, for this caller alone.
pub fn database() -> Database {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let find_or_start = || {
        match std::env::var("KF_TEST_POSTGRES_URL") {
        Ok(url) => Server { url, script: None },
        Err(_) => start(&[], Stdio::inherit()).expect(
            "these tests need PostgreSQL and none could be started: run `make test`, which installs it, or name a server in KF_TEST_POSTGRES_URL",
        ),
    }
    };
    let server = blocking(|| SERVER.get_or_init(find_or_start));
    Database::create(&server.url, true)
}

fn start(arguments: &[&OsStr], errors: Stdio) -> Option<Server> {
    script::start("private-postgres.sh", arguments, errors).map(|(url, script)| Server { url, script: Some(script) })
}

/// A database, gone with this value where its server stays.
pub struct Database {
    url: String,
    name: String,
    /// The server's own URL, where the database has to be dropped by hand.
    drop_at: Option<String>,
}

impl Database {
    fn create(server: &str, drop: bool) -> Self {
        let name = format!("kf_{:016x}", rand::random::<u64>());
        psql(server, &format!("CREATE DATABASE {name}")).unwrap_or_else(|error| panic!("can't make a database: {error}"));
        Self { url: with_database(server, &name), name, drop_at: drop.then(|| server.to_owned()) }
    }

    /// One that another value stands for.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), name: String::new(), drop_at: None }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Carries out statements, all in one transaction.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.rows(sql);
    }

    /// What a query finds, each value as PostgreSQL writes it, and `NULL` for nothing.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same where the server may refuse, with its complaint.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let text = psql(&self.url, sql)?;
        let rows = text.split_terminator(ROW).map(|row| row.split(COLUMN).map(str::to_owned).collect());
        Ok(rows.collect())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Whoever is still connected has to go; a test that fails because of this would hide why it failed.
        if let Some(server) = &self.drop_at {
            psql(server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).ok();
        }
    }
}

/// ASCII's own separators, which no value of a test holds.
const COLUMN: char = '\x1f';
const ROW: char = '\x1e';

/// A shell's words for the package's own program: the one on PATH chooses among Debian's clusters first.
pub fn psql_program() -> String {
    "exec \"$(ls -d /usr/lib/postgresql/*/bin/psql | sort -V | tail -n 1)\" \"$@\"".to_owned()
}

/// What `psql` writes, or its complaint. It sees none of the caller's `PG*` and `~/.psqlrc`.
fn psql(url: &str, sql: &str) -> Result<String, String> {
    let mut command = Command::new("sh");
    command.args(["-c", &psql_program(), "sh", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password"]);
    command.args(["--set=ON_ERROR_STOP=1", "--pset=null=NULL"]);
    command.arg(format!("--field-separator={COLUMN}")).arg(format!("--record-separator={ROW}"));
    command.args(["--command", sql, url]).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let output = blocking(|| command.output()).expect("a shell");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(text(&output.stderr).trim().to_owned());
    }
    // The last row ends in a new line instead of the separator.
    let mut rows = text(&output.stdout);
    if rows.ends_with('\n') {
        rows.pop();
        rows.push(ROW);
    }
    Ok(rows)
}

/// A server of a test's own, whatever server the other tests use: it can be killed, restarted, and started again with what it had on disk.
pub struct OwnServer {
    server: Server,
    port: u16,
    folder: TempDir,
    tls: bool,
}

impl OwnServer {
    pub fn start() -> Self {
        Self::start_new(false)
    }

    /// One that takes TLS only, and the file with the certificate of the authority that signed its own, which is for 127.0.0.1
    /// and localhost.
    pub fn start_with_tls() -> (Self, PathBuf) {
        let server = Self::start_new(true);
        let authority = server.folder.path().join("tls/ca.crt");
        (server, authority)
    }

    fn start_new(tls: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        Self { server: Self::start_in(&folder, port, tls), port, folder, tls }
    }

    /// The same server, with its data, after it was killed.
    pub fn start_again(&mut self) {
        self.server = Self::start_in(&self.folder, self.port, self.tls);
    }

    fn start_in(folder: &TempDir, port: u16, tls: bool) -> Server {
        // The script complains of a server that dies, which is just what these tests are for.
        let mut complaints = tempfile::tempfile().expect("a file for its complaints");
        let errors = complaints.try_clone().expect("a file for its complaints");
        let port = port.to_string();
        let mut arguments: Vec<&OsStr> = vec![folder.path().as_os_str(), port.as_ref()];
        if tls {
            arguments.insert(0, "--tls".as_ref());
        }
        blocking(|| start(&arguments, errors.into())).unwrap_or_else(|| {
            let mut text = String::new();
            complaints.rewind().and_then(|()| complaints.read_to_string(&mut text)).ok();
            panic!("this test needs a PostgreSQL server of its own: {text}")
        })
    }

    /// The URL of the database that every server has, as its superuser.
    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// A new database of this server.
    pub fn database(&self) -> Database {
        Database::create(self.url(), false)
    }

    /// SIGKILL, and waits until every process of the server is gone.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// As an operator restarts it: whoever is connected is thrown out, and for a moment nobody is let in.
    pub fn restart(&mut self) {
        self.end("INT");
        self.start_again();
    }

    /// Shows another certificate to whoever connects from now on, where it takes TLS; both as PEM.
    pub fn show_certificate(&self, certificate: &str, key: &str) {
        let folder = self.folder.path().join("tls");
        // Written over, so that they stay the server's own.
        fs::write(folder.join("server.crt"), certificate).expect("a certificate can be written");
        fs::write(folder.join("server.key"), key).expect("a key can be written");
        let database = Database::at(self.url());
        let loaded = || database.rows("SELECT pg_conf_load_time()");
        let before = loaded();
        database.execute("SELECT pg_reload_conf()");
        wait_until(|| loaded() != before, || "the server doesn't read its certificate again".to_owned());
    }

    fn end(&mut self, signal: &str) {
        let mut script = self.server.script.take().expect("the server was running");
        let pid_file = self.folder.path().join("data/postmaster.pid");
        let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$(head -n 1 \"$0\")\""]).arg(pid_file).arg(signal).status();
        blocking(|| script.wait()).ok();
        assert!(sent.is_ok_and(|status| status.success()), "the server was running");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Its folder has to outlast it.
        if let Some(mut script) = self.server.script.take() {
            drop(script.stdin.take());
            blocking(|| script.wait()).ok();
        }
    }
}

/// PgBouncer before a server, as a company's database often has it: each transaction may meet another of its two connections, so
/// that nothing of a session lasts (prepared statements, `SET`, advisory locks of a session). It refuses `options` in the URL.
pub struct Pooler {
    /// A shell that kills the pooler when its standard input closes, however this process ends.
    guard: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    /// Before a server that lets its user in without a password, such as `OwnServer` or the private one of the run.
    pub fn start(server: &str) -> Self {
        let (user, place) = server.strip_prefix("postgres://").and_then(|rest| rest.split_once('@')).expect("a URL with a user");
        let (host, server_port) = place.split('/').next().and_then(|place| place.split_once(':')).expect("a URL with a port");
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user={user}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 2\nserver_tls_sslmode = prefer\n"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, log) = (folder.path().join("pgbouncer.ini"), folder.path().join("log"));
        fs::write(&file, settings).expect("a file can be written");
        // It refuses to run as root, and becomes another user once it has read its settings.
        let program = r#"[ "$(id -u)" = 0 ] && set -- -u postgres "$@"; /usr/sbin/pgbouncer "$@" & cat; kill -KILL $!; wait"#;
        let guard = Command::new("sh")
            .args(["-c", program, "sh"])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a file for its log"))
            .process_group(0)
            .spawn()
            .expect("a shell");
        let pooler = Self { guard, port, _folder: folder };
        let complaint = || format!("PgBouncer doesn't start: {}", fs::read_to_string(&log).unwrap_or_default());
        wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok(), complaint);
        pooler
    }

    /// The way to a database of its server through it.
    pub fn url(&self, database: &Database) -> String {
        format!("postgres://kf@127.0.0.1:{}/{}", self.port, database.name)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        blocking(|| self.guard.wait()).ok();
    }
}

/// The same server's URL with another database; what follows it stays.
fn with_database(url: &str, name: &str) -> String {
    let (place, parameters) = url.split_once('?').map_or((url, String::new()), |(place, rest)| (place, format!("?{rest}")));
    let from = place.find("://").map_or(0, |at| at + 3);
    let end = place[from..].find('/').map_or(place.len(), |at| from + at);
    format!("{}/{name}{parameters}", &place[..end])
}

/// Asks again and again, and fails with the complaint in the end.
fn wait_until(is_so: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{}", complaint());
        blocking(|| std::thread::sleep(Duration::from_millis(10)));
    }
}

/// Waits for something outside this process; the other tasks of a runtime with several threads go on meanwhile.
fn blocking<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => block_in_place(wait),
        _ => wait(),
    }
}
