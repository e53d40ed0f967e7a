//! Legitimate clients beside an attack: from another address of this machine, each request on time.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::client::{Client, Request};

/// Clients that send requests until they are asked what came of it.
pub(crate) struct Bystander {
    running: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Bystander {
    /// So many clients at 127.0.0.2, each sending a request every `interval`.
    pub(crate) fn start(clients: usize, address: SocketAddr, interval: Duration) -> Self {
        let (running, answered) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicUsize>::default());
        let client = |_| {
            let (running, answered) = (Arc::clone(&running), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut errors = Vec::new();
                let mut client = None;
                let mut next = Instant::now();
                while running.load(Ordering::Relaxed) {
                    match ask(&mut client, address) {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => errors.push(error),
                    }
                    next += interval;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                errors
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { running, answered, clients }
    }

    /// Requests answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends them; how many requests were answered, if none failed.
    #[track_caller]
    pub(crate) fn stop(self) -> usize {
        self.running.store(false, Ordering::Relaxed);
        let errors: Vec<_> =
            self.clients.into_iter().flat_map(|client| client.join().expect("no client panics")).collect();
        let answered = self.answered.load(Ordering::Relaxed);
        assert!(
            errors.is_empty(),
            "{} of {answered} legitimate requests failed: {:?}",
            errors.len(),
            &errors[..errors.len().min(5)]
        );
        answered
    }
}

fn ask(client: &mut Option<Client>, address: SocketAddr) -> Result<(), String> {
    let mut open = match client.take() {
        Some(open) => open,
        None => connect(address).map_err(|error| format!("no connection: {error}"))?,
    };
    let answer = open.ask(&Request::get("/bystander")).map_err(|error| format!("no answer: {error}"))?;
    if answer.header("connection") != Some("close") {
        *client = Some(open);
    }
    if answer.status == 200 { Ok(()) } else { Err(format!("answered with {}", answer.status)) }
}

fn connect(address: SocketAddr) -> std::io::Result<Client> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.connect(&address.into())?;
    let stream: TcpStream = socket.into();
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok(Client::over(address, stream))
}
