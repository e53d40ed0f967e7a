//! A real nginx in a single process on a loopback port, all its files in a directory of its own.
//! Ended when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;
use super::port::Port;

/// What every configuration here begins with. `$HTTP`, `$SERVER` and `$PORT` are filled in.
const CONFIGURATION: &str = "\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 8192; }
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000;
$HTTP
    server {
        listen 127.0.0.1:$PORT backlog=4096;
$SERVER
    }
}
";

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    port: Port,
    directory: TempDir,
    child: Child,
}

impl Nginx {
    /// Starts it with these directives in `http` and `server`, and waits until it listens. Paths in them
    /// are relative to its directory, where an empty file `empty` lies.
    pub(crate) fn start(http: &str, server: &str) -> Self {
        let (port, directory) = (Port::take(), tempfile::tempdir().expect("a directory"));
        let path = directory.path().join("nginx.conf");
        let number = port.number().to_string();
        let text = CONFIGURATION.replace("$HTTP", http).replace("$SERVER", server).replace("$PORT", &number);
        std::fs::write(&path, text).expect("the configuration can be written");
        std::fs::write(directory.path().join("empty"), "").expect("a file can be written");
        let child = Command::new("nginx")
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg(directory.path().join("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx must be installed (Debian: apt-get install nginx-light)");
        let mut nginx = Self { port, directory, child };
        eventually("nginx listens", || {
            if let Some(status) = nginx.child.try_wait().expect("it can be waited for") {
                panic!("nginx ended at once ({status}): {}", nginx.file("error.log"));
            }
            TcpStream::connect(nginx.address()).ok()
        });
        nginx
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// What a file in its directory holds; nothing when there is none.
    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// Waits until a log in its directory has this many lines; all of them.
    #[track_caller]
    pub(crate) fn log_lines(&self, name: &str, count: usize) -> Vec<String> {
        let read = || self.file(name).lines().map(str::to_owned).collect::<Vec<_>>();
        eventually("nginx has logged every request", || Some(read()).filter(|lines| lines.len() >= count))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("error log of nginx:\n{}", self.file("error.log"));
        }
    }
}
