//! The programs that the demo starts, and stops again: a private RabbitMQ, the WeChat simulator and the worker.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs, future::Future};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A sentence for the person who runs the demo.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long anything may take; a private RabbitMQ on a busy machine is the slowest.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a stopped program may take to end.
const FAREWELL: Duration = Duration::from_secs(30);

/// What is up, and where it is.
pub struct Stage {
    dir: PathBuf,
    broker: Option<Child>,
    simulator: Option<Child>,
    worker: Option<Child>,
    /// The broker was there before the demo and is left as it was.
    pub borrowed: bool,
    pub amqp_url: String,
    pub prefix: String,
    /// `127.0.0.1:PORT` of the simulator.
    pub wechat: String,
    /// `127.0.0.1:PORT` of the worker's admin port.
    pub admin: String,
}

impl Stage {
    /// An empty stage in a new temporary folder.
    pub fn new() -> Result<Self> {
        let name = format!("kf-demo-{:08x}", rand::random::<u32>());
        let dir = env::temp_dir().join(&name);
        fs::create_dir(&dir)?;
        let given = env::var("KF_AMQP__URL").ok().filter(|url| !url.is_empty());
        Ok(Self {
            dir,
            broker: None,
            simulator: None,
            worker: None,
            borrowed: given.is_some(),
            // On a broker that others use, the demo's own prefix keeps it apart.
            prefix: if given.is_some() { name } else { "kf".into() },
            amqp_url: given.unwrap_or_default(),
            wechat: String::new(),
            admin: String::new(),
        })
    }

    /// Starts everything, one after another, each ready before the next.
    pub async fn set(&mut self) -> Result<()> {
        if self.borrowed {
            println!("RabbitMQ    the one of KF_AMQP__URL, everything under the prefix {}", self.prefix);
        } else {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/private-rabbitmq.sh");
            let broker = self.broker.insert(start(Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()))?);
            self.amqp_url = within("the private RabbitMQ", first_line(broker)).await?;
            println!("RabbitMQ    {}", self.amqp_url);
        }

        let mut simulator = Command::new(binary("wechat-simulator")?);
        simulator.args(["--listen", "127.0.0.1:0", "--account", "test:wx0123456789abcdef:demo-secret"]).stdout(Stdio::piped());
        let simulator = self.simulator.insert(start(&mut simulator)?);
        let line = within("the WeChat simulator", first_line(simulator)).await?;
        self.wechat = line.rsplit_once("http://").ok_or("the WeChat simulator doesn't say where it listens")?.1.to_owned();
        println!("WeChat      http://{} (simulated)", self.wechat);

        self.admin = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
        fs::write(self.config(), self.configuration())?;
        // It holds a secret, as a real one does.
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600))?;
        let mut worker = Command::new(binary("kf-worker")?);
        worker.args(["run", "--config"]).arg(self.config()).stderr(fs::File::create(self.log())?).stdout(Stdio::null());
        self.worker = Some(start(&mut worker)?);
        within("the worker", self.worker_is_ready()).await?;
        println!("kf-worker   http://{}", self.admin);
        Ok(())
    }

    fn configuration(&self) -> String {
        format!(
            r#"[amqp]
url = "{}"
prefix = "{}"

[wechat]
base_url = "http://{}"

[[official_account]]
wechat_id = "test"
app_id = "wx0123456789abcdef"
app_secret = "demo-secret"

[ledger]
url = "sqlite:{}/ledger.db"

[admin]
listen = "{}"
"#,
            self.amqp_url,
            self.prefix,
            self.wechat,
            self.dir.display(),
            self.admin
        )
    }

    async fn worker_is_ready(&mut self) -> Result<()> {
        loop {
            if let Some(status) = self.worker.as_mut().map(Child::try_wait).transpose()?.flatten() {
                return Err(format!("the worker ended while starting ({status})").into());
            }
            // Until its port is open there is nobody to ask.
            if let Ok((200, _)) = http_get(&self.admin, "/readyz").await {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where the worker's configuration is.
    pub fn config(&self) -> PathBuf {
        self.dir.join("kf-worker.toml")
    }

    /// Where the worker's log is.
    pub fn log(&self) -> PathBuf {
        self.dir.join("kf-worker.log")
    }

    /// The end of the worker's log; empty where there is none.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Asks the worker to end, which it does with exit code 0 once it has nothing in flight.
    pub async fn stop_worker(&mut self) -> Result<()> {
        let Some(mut worker) = self.worker.take() else { return Ok(()) };
        if let Some(id) = worker.id() {
            // The shell's own `kill`: the program is not on every machine.
            Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await?;
        }
        match timeout(FAREWELL, worker.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err("the worker did not end with exit code 0".into()),
            Err(_) => Err("the worker did not end on SIGTERM".into()),
        }
    }

    /// Stops what else was started and removes the temporary folder.
    pub async fn clear(&mut self) -> Result<()> {
        if let Some(mut simulator) = self.simulator.take() {
            simulator.kill().await?;
        }
        let ended = match self.broker.take() {
            Some(mut broker) => {
                // The script ends, and cleans up, when its standard input closes.
                drop(broker.stdin.take());
                timeout(FAREWELL, broker.wait()).await.is_ok()
            }
            None => true,
        };
        fs::remove_dir_all(&self.dir)?;
        if ended { Ok(()) } else { Err("the private RabbitMQ did not end".into()) }
    }
}

/// Starts a program in a process group of its own, so that Ctrl-C reaches the demo alone and it can stop things in order.
fn start(command: &mut Command) -> Result<Child> {
    let started = command.process_group(0).spawn();
    started.map_err(|error| format!("can't start {}: {error}", command.as_std().get_program().display()).into())
}

/// A binary of this project, built beside the demo; or whatever has its name in the folder that `KF_DEMO_PROGRAMS` names, such
/// as a script that runs it in a container.
pub fn binary(name: &str) -> Result<PathBuf> {
    let demo = env::current_exe()?;
    let built = demo.ancestors().nth(2).unwrap_or(Path::new("."));
    let path = env::var_os("KF_DEMO_PROGRAMS").map_or(built.to_owned(), PathBuf::from).join(name);
    if path.exists() { Ok(path) } else { Err(format!("{} isn't built; use `make demo`", path.display()).into()) }
}

/// The line by which a program says that it is ready.
async fn first_line(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.take().ok_or("its output can't be read")?;
    BufReader::new(stdout).lines().next_line().await?.ok_or_else(|| "it ended while starting".into())
}

/// Waits, but not for ever; says what was waited for.
pub async fn within<T>(what: &str, wait: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    match timeout(PATIENCE, wait).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}").into()),
        Err(_) => Err(format!("{what}: nothing after {} s", began.elapsed().as_secs()).into()),
    }
}

/// Status and body of a GET; HTTP/1.0, where the body ends with the connection.
pub async fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("that was no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("that was no HTTP answer")?;
    Ok((status, body.to_owned()))
}
