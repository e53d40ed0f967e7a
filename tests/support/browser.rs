//! Headless Chromium, steered over the `WebDriver` protocol (W3C), which is JSON over HTTP.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, Request};
use super::eventually;
use super::tollgate::repository;

/// How long the driver may take for one command: a browser starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// The version of axe-core that pages are held against.
const AXE: &str = "4.14.1";

/// One window. Ends with the test.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

/// How a window looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) theme: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// What most people have.
pub(crate) const DESKTOP: Look = Look { theme: "light", width: 1280, height: 900 };

impl Browser {
    /// Opens a window.
    #[track_caller]
    pub(crate) fn start(look: Look) -> Self {
        let started = (0..5).find_map(|_| driver());
        let (driver, address) = started.expect("chromedriver does not start; tests/run installs it");
        let mut browser = Self { driver, address, session: String::new() };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let made = browser.command("POST", "/session", &wanted);
        made["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        let size = json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": false });
        browser.devtools("Emulation.setDeviceMetricsOverride", &size);
        // Pages that scroll smoothly would move away under a click.
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": look.theme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        browser.devtools("Emulation.setEmulatedMedia", &features);
        browser
    }

    /// Goes to an address and waits until the page has loaded.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.of_session("POST", "/url", &json!({ "url": url }));
    }

    /// What a piece of JavaScript returns.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.of_session("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same for one that awaits.
    #[track_caller]
    pub(crate) fn run_async(&self, script: &str) -> Value {
        let script =
            format!("const done = arguments[0]; (async () => {{ {script} }})().then(done, (e) => done(String(e)));");
        self.of_session("POST", "/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, expression: &str) {
        eventually(what, || (self.run(&format!("return !!({expression})")) == true).then_some(()));
    }

    /// The text of an element; empty without one.
    #[track_caller]
    pub(crate) fn text(&self, selector: &str) -> String {
        let found = self.run(&format!("return document.querySelector({selector:?})?.textContent ?? ''"));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks where people would.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        let found = self.of_session("POST", "/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|ids| ids.values().next()?.as_str()).expect("an element").to_owned();
        self.of_session("POST", &format!("/element/{id}/click"), &json!({}));
    }

    /// Errors of the console so far.
    #[track_caller]
    pub(crate) fn errors(&self) -> Vec<Value> {
        let lines = self.of_session("POST", "/se/log", &json!({ "type": "browser" }));
        let all = lines.as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING").collect()
    }

    /// Serious faults of accessibility, as axe-core finds them.
    #[track_caller]
    pub(crate) fn faults(&self) -> Vec<String> {
        self.run(&std::fs::read_to_string(axe()).expect("axe-core can be read"));
        let found = self.run_async("return (await axe.run()).violations");
        let found = found.as_array().unwrap_or_else(|| panic!("axe-core did not run: {found}")).clone();
        let serious = found.iter().filter(|fault| fault["impact"] == "serious" || fault["impact"] == "critical");
        serious.map(|fault| format!("{}: {} in {}", fault["id"], fault["help"], fault["nodes"][0]["html"])).collect()
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.of_session("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    #[track_caller]
    fn of_session(&self, method: &str, path: &str, body: &Value) -> Value {
        self.command(method, &format!("/session/{}{path}", self.session), body)
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut client = Client::connect(self.address);
        client.set_patience(PATIENCE);
        let request = Request::new(method, path).header("content-type", "application/json").body(&body.to_string());
        let answer = client.send(&request);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver alone would leave it.
        if let Ok(mut client) = Client::open(self.address) {
            let _ = client.exchange(&Request::new("DELETE", &format!("/session/{}", self.session)));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The driver, on a port that it finds by itself; now and then somebody else takes that in between.
fn driver() -> Option<(Child, SocketAddr)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver is missing: tests/run installs it");
    let lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
    let port = lines.map_while(Result::ok).find_map(|line| {
        let told = line.contains("started successfully on port");
        told.then(|| line.trim_end_matches('.').rsplit(' ').next()?.parse::<u16>().ok()).flatten()
    });
    let Some(port) = port else {
        let _ = driver.kill();
        let _ = driver.wait();
        return None;
    };
    Some((driver, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// axe-core's one file; npm fetches it once.
fn axe() -> PathBuf {
    static FETCHED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FETCHED.get_or_init(fetch_axe).clone()
}

fn fetch_axe() -> PathBuf {
    let folder = repository().join("target/tools/axe");
    let file = folder.join("node_modules/axe-core/axe.min.js");
    let package = std::fs::read_to_string(folder.join("node_modules/axe-core/package.json")).unwrap_or_default();
    if !file.exists() || !package.contains(&format!("\"version\": \"{AXE}\"")) {
        std::fs::create_dir_all(&folder).expect("a folder for tools");
        let npm = Command::new("npm")
            .args(["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
            .arg(&folder)
            .arg(format!("axe-core@{AXE}"))
            .stdout(Stdio::null())
            .status();
        assert!(npm.expect("npm is missing: tests/run installs it").success(), "npm could not fetch axe-core");
    }
    file
}
