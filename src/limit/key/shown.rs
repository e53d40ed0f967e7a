//! A subject as people are told it: without the network around it, and with every value hashed that clients
//! choose, as it would stand in Redis.

use super::{Hashing, Key, KeyPart, KeyValue, Subject, own, subject};
use std::borrow::Cow;

/// A subject as people are told it. `hashing` is how its values entered.
#[must_use]
pub fn shown(whole: &[u8], hashing: &Hashing) -> String {
    let subject = own(whole);
    let hashed = match (hashing, counted(subject)) {
        (Hashing::Hashed(_), _) => None,
        (Hashing::Raw, None) => Some(hash_part(subject)),
        (Hashing::Raw, Some(parts)) => {
            let mut all = Subject::new();
            for part in parts {
                subject::write_counted(&mut all, &hash_part(part));
            }
            Some(all)
        }
    };
    String::from_utf8_lossy(hashed.as_deref().unwrap_or(subject)).into_owned()
}

/// The parts of a subject that has several, each behind its length.
#[must_use]
pub fn counted(mut subject: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while !subject.is_empty() {
        let colon = subject.iter().take(8).position(|&byte| byte == b':')?;
        let length: usize = std::str::from_utf8(&subject[..colon]).ok()?.parse().ok()?;
        let end = colon.checked_add(1)?.checked_add(length)?;
        parts.push(subject.get(colon + 1..end)?);
        subject = &subject[end..];
    }
    (parts.len() > 1).then_some(parts)
}

/// One part, its value hashed when that may be a secret, or is not fit to be shown.
fn hash_part(text: &[u8]) -> Subject {
    let mut shown = Subject::new();
    let Some((part, value)) = part_of(text) else {
        shown.extend_from_slice(text);
        return shown;
    };
    let value = KeyValue { bytes: Cow::Borrowed(value), mark: None, address: None };
    subject::write(&mut shown, &part, &value, &Hashing::Hashed(None));
    shown
}

/// The part that a subject's part names, and its value; none of `ip=…` and `global`.
fn part_of(text: &[u8]) -> Option<(KeyPart, &[u8])> {
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let name = std::str::from_utf8(&text[..equals]).ok().filter(|name| *name != "ip")?;
    let [part] = Key::parse_part(name, 128).ok()?.try_into().ok()?;
    Some((part, &text[equals + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_choose_is_never_shown() {
        let hash = |value: &[u8]| format!("#{}", &blake3::hash(value).to_hex()[..32]);
        for (subject, expected) in [
            (&b"ip=192.0.2.1"[..], "ip=192.0.2.1".to_owned()),
            (b"ip=2001:db8::/48}ip=2001:db8::/64", "ip=2001:db8::/64".to_owned()),
            (b"global", "global".to_owned()),
            (b"route=orders", "route=orders".to_owned()),
            (b"header:x-key=#not-a-hash", format!("header:x-key={}", hash(b"#not-a-hash"))),
            (b"path:tenant=a b\n", format!("path:tenant={}", hash(b"a b\n"))),
            (b"jwt:sub=\"ann", format!("jwt:sub={}", hash(b"\"ann"))),
            (b"12:ip=192.0.2.114:header:x-a=bcd", format!("12:ip=192.0.2.144:header:x-a={}", hash(b"bcd"))),
        ] {
            assert_eq!(shown(subject, &Hashing::Raw), expected);
        }
        assert_eq!(shown(b"header:x-key=#abc", &Hashing::Hashed(None)), "header:x-key=#abc");
    }
}
