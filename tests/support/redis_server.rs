//! A real redis-server on a loopback port, with every fault a test needs. Ended when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;
use super::port::Port;
use super::tollgate::signal;

/// A running redis-server.
#[derive(Debug)]
pub(crate) struct RedisServer {
    program: &'static str,
    port: Port,
    arguments: Vec<String>,
    directory: TempDir,
    child: Option<Child>,
    /// Certificates, when it speaks TLS.
    pub(crate) tls: Option<TlsFiles>,
    login: Option<(String, String)>,
}

/// PEM files.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    /// The authority both sides trust.
    pub(crate) ca: PathBuf,
    /// A server's certificate and key.
    server: (PathBuf, PathBuf),
    /// A client's certificate and key.
    pub(crate) client: (PathBuf, PathBuf),
}

impl RedisServer {
    /// Starts a server on a free port; nothing is persisted.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments (`["--requirepass", "secret"]`).
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::not_started();
        server.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        server.restart();
        server
    }

    /// A server that is reached by TLS only, demands a client certificate, and has its own authority.
    pub(crate) fn start_with_tls() -> Self {
        let directory = TempDir::new().unwrap();
        let tls = TlsFiles::make(directory.path());
        let mut server = Self::not_started_with(&[], Some(&tls));
        server.directory = directory;
        server.restart();
        server
    }

    /// A port on which nothing listens yet; [`RedisServer::restart`] starts it there.
    pub(crate) fn not_started() -> Self {
        let directory = TempDir::new().unwrap();
        let program = "redis-server";
        Self { program, port: Port::take(), arguments: vec![], directory, child: None, tls: None, login: None }
    }

    /// The same with further arguments, and with TLS as [`RedisServer::start_with_tls`] if certificates are given.
    pub(crate) fn not_started_with(arguments: &[&str], tls: Option<&TlsFiles>) -> Self {
        let mut server = Self::not_started();
        server.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        if let Some(tls) = tls {
            server.arguments.extend(tls.arguments(server.port()));
            server.tls = Some(tls.clone());
        }
        server
    }

    /// A Valkey server, where the machine has one.
    pub(crate) fn start_valkey() -> Option<Self> {
        let there = Command::new("valkey-server").arg("--version").stdout(Stdio::null()).status();
        there.is_ok_and(|status| status.success()).then(|| {
            let mut server = Self::not_started();
            server.program = "valkey-server";
            server.restart();
            server
        })
    }

    /// Writes a configuration file, which the server reads before its arguments.
    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.configuration(), text).unwrap();
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("redis.conf")
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// `redis://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls.is_some() { "rediss" } else { "redis" }, self.port())
    }

    /// The user and password [`RedisServer::cli`] uses from now on.
    pub(crate) fn login(&mut self, user: &str, password: &str) {
        self.login = Some((user.to_owned(), password.to_owned()));
    }

    /// Starts it (again) on the same port, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let mut command = Command::new(self.program);
        if self.configuration().exists() {
            command.arg(self.configuration());
        }
        command
            .args(["--port", &self.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--daemonize", "no", "--enable-debug-command", "local"])
            .args(&self.arguments)
            .arg("--dir")
            .arg(self.directory.path())
            .stdin(Stdio::null())
            .arg("--logfile")
            .arg(self.directory.path().join("log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child =
            Some(command.spawn().expect("redis-server must be installed (Debian: apt-get install redis-server)"));
        eventually("redis-server answers", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("redis-server ended at once ({status}): {}", self.log());
            }
            self.answers().then_some(())
        });
    }

    fn answers(&self) -> bool {
        let reply = self.try_cli(&["PING"]);
        ["PONG", "NOAUTH", "NOPERM", "WRONGPASS"].iter().any(|word| reply.contains(word))
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: connections are accepted by the kernel, nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("it is running").id(), name);
    }

    /// Runs redis-cli and returns what it printed, errors of the server included.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = self.try_cli(arguments);
        assert!(!output.starts_with("Could not connect"), "{output}");
        output
    }

    /// Runs redis-cli against any server without login or TLS, from any thread.
    pub(crate) fn cli_of(port: u16, arguments: &[&str]) -> String {
        let output =
            Command::new("redis-cli").args(["-p", &port.to_string(), "--raw"]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn try_cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port().to_string(), "--raw"]);
        if let Some((user, password)) = &self.login {
            command.args(["--no-auth-warning", "--user", user, "--pass", password]);
        }
        if let Some(tls) = &self.tls {
            command.arg("--tls").arg("--cacert").arg(&tls.ca);
            command.arg("--cert").arg(&tls.client.0).arg("--key").arg(&tls.client.1);
        }
        let output = command.args(arguments).output().expect("redis-cli must be installed (Debian: redis-tools)");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        text.trim_end().to_owned()
    }

    /// One field of INFO.
    pub(crate) fn info(&self, field: &str) -> String {
        let info = self.cli(&["INFO", "everything"]);
        let prefix = format!("{field}:");
        info.lines().find_map(|line| line.trim().strip_prefix(&prefix).map(str::to_owned)).unwrap_or_default()
    }

    /// How often scripts were called that decide and settle; what else there is comes with its text.
    pub(crate) fn script_calls(&self) -> u64 {
        let line = self.info("cmdstat_evalsha");
        line.strip_prefix("calls=").and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    /// Every key but the set of living proxies, which changes by itself.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.cli(&["--scan"]).lines().filter(|key| !key.ends_with(":{~proxies}")).map(str::to_owned).collect()
    }

    /// Every key with its whole value, for "nothing changed".
    pub(crate) fn dump(&self) -> Vec<(String, String, String)> {
        let mut keys = self.keys();
        keys.sort();
        keys.into_iter()
            .map(|key| {
                // Of whatever type; printable, which the bytes themselves are not.
                let value = self.cli(&["--no-raw", "DUMP", &key]);
                let expiry = self.cli(&["PEXPIRETIME", &key]);
                (key, value, expiry)
            })
            .collect()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl TlsFiles {
    /// Makes an authority and what it certifies.
    pub(crate) fn make(directory: &Path) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.distinguished_name.push(DnType::CommonName, "authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
            let mut certificate = CertificateParams::new(names).unwrap();
            certificate.distinguished_name.push(DnType::CommonName, name);
            let certificate = certificate.signed_by(&key, &authority).unwrap();
            (write(&format!("{name}.pem"), certificate.pem()), write(&format!("{name}.key"), key.serialize_pem()))
        };
        Self { ca: write("ca.pem", authority.pem()), server: issue("server"), client: issue("client") }
    }

    /// What a server on this port is started with.
    fn arguments(&self, port: u16) -> impl Iterator<Item = String> {
        let file = |path: &Path| path.to_str().unwrap().to_owned();
        let arguments = [
            ("--tls-port", port.to_string()),
            ("--port", "0".to_owned()),
            ("--tls-cert-file", file(&self.server.0)),
            ("--tls-key-file", file(&self.server.1)),
            ("--tls-ca-cert-file", file(&self.ca)),
            ("--tls-auth-clients", "yes".to_owned()),
        ];
        arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value])
    }
}
