//! A name server whose records a test can change while it runs (RFC 1035, as much as is needed).

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A name server on a port of its own. Names that it does not know do not exist.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

/// What it knows, and how long that holds.
#[derive(Default)]
struct Zone {
    addresses: HashMap<String, Vec<Ipv4Addr>>,
    services: HashMap<String, Vec<Service>>,
    questions: usize,
    /// Questions are answered so much later.
    delay: Duration,
}

/// An SRV record.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) target: &'static str,
}

/// Seconds that every answer holds.
const TTL: u32 = 1;
const A: u16 = 1;
const SRV: u16 = 33;

impl NameServer {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let zone = Arc::<Mutex<Zone>>::default();
        let known = Arc::clone(&zone);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let delay = known.lock().expect("nobody panics").delay;
                std::thread::sleep(delay);
                if let Some(answer) = answer(&buffer[..length], &mut known.lock().expect("nobody panics")) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, zone }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the name has these addresses.
    pub(crate) fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.zone.lock().expect("nobody panics").addresses.insert(name.to_owned(), addresses.to_vec());
    }

    /// From now on it takes its time.
    pub(crate) fn delay(&self, delay: Duration) {
        self.zone.lock().expect("nobody panics").delay = delay;
    }

    /// From now on the name has these SRV records.
    pub(crate) fn set_services(&self, name: &str, services: &[Service]) {
        self.zone.lock().expect("nobody panics").services.insert(name.to_owned(), services.to_vec());
    }

    /// From now on the name does not exist.
    pub(crate) fn forget(&self, name: &str) {
        self.zone.lock().expect("nobody panics").addresses.remove(name);
    }

    /// Questions that were asked so far.
    pub(crate) fn questions(&self) -> usize {
        self.zone.lock().expect("nobody panics").questions
    }
}

/// The answer to a question; `None` to what is none.
fn answer(query: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let (mut name, mut at) = (Vec::new(), 12);
    while *query.get(at)? > 0 {
        let length = usize::from(query[at]);
        name.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let (name, question) = (name.join("."), query.get(12..at + 5)?);
    zone.questions += 1;
    let exists = zone.addresses.contains_key(&name) || zone.services.contains_key(&name);
    let records: Vec<Vec<u8>> = match kind {
        A => zone.addresses.get(&name).into_iter().flatten().map(|address| address.octets().to_vec()).collect(),
        SRV => zone.services.get(&name).into_iter().flatten().map(Service::data).collect(),
        _ => Vec::new(),
    };
    let count = u16::try_from(records.len()).expect("few records");
    let mut answer = query[..2].to_vec();
    // A response to a standard query, recursion available; code 3: no such name.
    answer.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1]);
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for data in records {
        answer.extend([0xC0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(TTL.to_be_bytes());
        answer.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

impl Service {
    fn data(&self) -> Vec<u8> {
        let numbers = [self.priority, self.weight, self.port];
        let mut data: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        for label in self.target.split('.') {
            data.push(u8::try_from(label.len()).expect("a label"));
            data.extend(label.as_bytes());
        }
        data.push(0);
        data
    }
}
