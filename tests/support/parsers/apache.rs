//! A real Apache httpd in a single process on a loopback port, all its files in a directory of its own.
//! Ended when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::eventually;
use crate::support::port::Port;

/// It hands what it understood to the server at `$INNER`, with a length of its own counting.
const CONFIGURATION: &str = "\
ServerRoot $DIRECTORY
DefaultRuntimeDir $DIRECTORY
ServerName localhost
PidFile httpd.pid
ErrorLog error.log
Listen 127.0.0.1:$PORT
$MODULES
User #65534
Group #65534
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
LimitRequestLine 65536
LimitRequestFieldSize 65536
LimitRequestFields 0
AllowEncodedSlashes NoDecode
ProxyPreserveHost On
ProxyAddHeaders Off
SetEnv proxy-sendcl 1
ProxyPass / http://$INNER/ nocanon responsefieldsize=65536
";

const MODULES: [&str; 6] = ["mpm_event", "authz_core", "env", "proxy", "proxy_http", "unixd"];

/// Where systems keep the modules, and what they call the program.
const HOMES: [(&str, &str); 3] =
    [("/usr/lib/apache2/modules", "apache2"), ("/usr/lib64/httpd/modules", "httpd"), ("/usr/lib/apache2", "httpd")];

/// A running Apache httpd.
#[derive(Debug)]
pub(crate) struct Apache {
    port: Port,
    directory: TempDir,
    child: Child,
}

impl Apache {
    /// Starts it in front of the server at `inner`, and waits until it listens.
    pub(crate) fn start(inner: SocketAddr) -> Self {
        let (port, directory) = (Port::take(), tempfile::tempdir().expect("a directory"));
        let home = HOMES.iter().find(|(modules, _)| Path::new(modules).join("mod_proxy_http.so").exists());
        let (modules, program) = home.expect("Apache httpd must be installed (Debian: apt-get install apache2)");
        let modules: Vec<_> = MODULES
            .iter()
            .filter(|name| Path::new(modules).join(format!("mod_{name}.so")).exists())
            .map(|name| format!("LoadModule {name}_module {modules}/mod_{name}.so"))
            .collect();
        let path = directory.path().join("httpd.conf");
        let text = CONFIGURATION
            .replace("$DIRECTORY", &directory.path().display().to_string())
            .replace("$PORT", &port.number().to_string())
            .replace("$MODULES", &modules.join("\n"))
            .replace("$INNER", &inner.to_string());
        std::fs::write(&path, text).expect("the configuration can be written");
        let child = Command::new(program)
            .args(["-X", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("Apache httpd must be installed (Debian: apt-get install apache2)");
        let mut apache = Self { port, directory, child };
        eventually("Apache listens", || {
            if let Some(status) = apache.child.try_wait().expect("it can be waited for") {
                panic!("Apache ended at once ({status}): {}", apache.errors());
            }
            TcpStream::connect(apache.address()).ok()
        });
        apache
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("error log of Apache:\n{}", self.errors());
        }
    }
}
