//! A headless Chromium, driven through its own protocol over a pipe: pages of a given width and colour scheme, what they ask for,
//! what they complain about, and pictures of them.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::DEADLINE;

/// A browser with one tab.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What happened, as far as nobody has asked for it yet.
    events: VecDeque<Value>,
    /// The tab.
    session: String,
    sent: u64,
    /// Where it keeps what it has to keep.
    _folder: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Its protocol is spoken on the descriptors 3 and 4, which a process that is started here has not. Its sandbox needs a user
        // other than root; the only page that it shows is the worker's.
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars \
            --user-data-dir=\"$0\" --remote-debugging-pipe about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut process = Command::new("sh");
        process.args(["-c", script]).arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = process.spawn().expect("a shell");
        let commands = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut browser = Self { process, commands, answers, events: VecDeque::new(), session: String::new(), sent: 0, _folder: folder };
        let tab = browser.command("Target.createTarget", json!({"url": "about:blank"})).await;
        let attached = browser.command("Target.attachToTarget", json!({"targetId": tab["targetId"], "flatten": true})).await;
        browser.session = text(&attached["sessionId"]).to_owned();
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Gives the tab a size, in CSS pixels, and a colour scheme.
    pub async fn look(&mut self, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        self.command("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", features).await;
    }

    /// Opens a page and waits until it is all there.
    pub async fn open(&mut self, url: &str) {
        self.events.clear();
        let opened = self.command("Page.navigate", json!({"url": url})).await;
        assert_eq!(opened.get("errorText"), None, "{url}: {opened}");
        self.until_loaded().await;
    }

    /// Lets no page run a script of its own from now on.
    pub async fn without_script(&mut self) {
        self.command("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    /// Types into a field, presses Enter, and waits until the next page is all there.
    pub async fn submit(&mut self, field: &str, words: &str) {
        let document = self.command("DOM.getDocument", json!({})).await;
        let field = json!({"nodeId": document["root"]["nodeId"], "selector": field});
        let field = self.command("DOM.querySelector", field).await;
        self.command("DOM.focus", json!({"nodeId": field["nodeId"]})).await;
        self.command("Input.insertText", json!({"text": words})).await;
        self.events.clear();
        for kind in ["keyDown", "keyUp"] {
            let key = json!({"type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13});
            self.command("Input.dispatchKeyEvent", key).await;
        }
        self.until_loaded().await;
    }

    /// What the page says to an expression.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.command("Runtime.evaluate", asked).await;
        assert_eq!(answer.get("exceptionDetails"), None, "{answer}");
        answer["result"]["value"].clone()
    }

    /// Every address that was asked for since the page was opened.
    pub fn requested(&self) -> Vec<&str> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| text(&event["params"]["request"]["url"])).collect()
    }

    /// Everything that the page or the browser has complained of since then.
    pub fn complaints(&self) -> Vec<&Value> {
        let complains = |event: &&Value| {
            let method = text(&event["method"]);
            matches!(method, "Log.entryAdded" | "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Network.loadingFailed")
        };
        self.events.iter().filter(complains).collect()
    }

    /// Saves a picture of the whole page.
    pub async fn picture(&mut self, path: &Path) {
        let metrics = self.command("Page.getLayoutMetrics", json!({})).await;
        let size = &metrics["cssContentSize"];
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        let taken = self.command("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true, "clip": clip})).await;
        let file = std::fs::File::create(path).expect("the picture's file can be made");
        let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(file).spawn().expect("base64 (coreutils)");
        let mut stdin = decode.stdin.take().expect("it is piped");
        stdin.write_all(text(&taken["data"]).as_bytes()).await.expect("base64 reads");
        drop(stdin);
        assert!(decode.wait().await.expect("base64 ends").success());
    }

    /// Ends it in order, so that nothing of it is left.
    pub async fn close(mut self) {
        self.session.clear();
        self.command("Browser.close", json!({})).await;
        timeout(DEADLINE, self.process.wait()).await.expect("the browser ends in time").expect("it can be waited for");
    }

    async fn until_loaded(&mut self) {
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive().await;
            self.events.push_back(event);
        }
    }

    async fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut command = json!({"id": self.sent, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.as_str().into();
        }
        let line = format!("{command}\0");
        self.commands.write_all(line.as_bytes()).await.expect("the browser takes commands: is Debian's package chromium installed?");
        loop {
            let message = self.receive().await;
            if message["id"] == self.sent {
                assert_eq!(message.get("error"), None, "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    /// The next message: each ends with a NUL.
    async fn receive(&mut self) -> Value {
        let mut bytes = Vec::new();
        let read = timeout(DEADLINE, self.answers.read_until(0, &mut bytes)).await.expect("the browser answers in time");
        read.expect("the browser's answers can be read");
        assert_eq!(bytes.pop(), Some(0), "the browser has ended: is Debian's package chromium installed?");
        serde_json::from_slice(&bytes).expect("the browser speaks JSON")
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}
