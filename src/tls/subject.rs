//! Who a certificate is for, as text: the distinguished name of its subject, as RFC 4514 writes it.
//!
//! Two subjects have one text only when RFC 5280 calls them equal: what is special is escaped, and
//! what is no plain text stands as the hexadecimal digits of its DER.

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::der::{Der, Element, tag};

/// Short names of attributes: those of RFC 4514 §3, and two that are common.
const NAMES: [(&[u8], &str); 11] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

/// The subject of a certificate, `CN=reader,O=Example`; `None` when it has none.
#[must_use]
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let name = parsed.subject();
    let text = distinguished_name(name).unwrap_or_else(|| hexadecimal(name));
    (!text.is_empty()).then(|| text.into())
}

/// A sequence of sets of attributes, the last first.
fn distinguished_name(name: &[u8]) -> Option<String> {
    let mut sets = Vec::new();
    let mut der = Der::new(name);
    while !der.is_empty() {
        let mut attributes = Vec::new();
        let mut set = Der::new(der.expect(tag::SET)?);
        while !set.is_empty() {
            let mut attribute = Der::new(set.expect(tag::SEQUENCE)?);
            attributes.push(text_of(attribute.expect(tag::OBJECT_IDENTIFIER)?, attribute.next()?));
        }
        sets.push(attributes.join("+"));
    }
    sets.reverse();
    Some(sets.join(","))
}

fn text_of(kind: &[u8], value: Element<'_>) -> String {
    let name = NAMES.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name);
    let is_text = matches!(value.tag, tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING);
    let text = is_text.then(|| std::str::from_utf8(value.contents).ok()).flatten();
    match (name, text) {
        (Some(name), Some(text)) => format!("{name}={}", escaped(text)),
        (Some(name), None) => format!("{name}={}", hexadecimal(value.whole)),
        (None, _) => format!("{}={}", dotted(kind), hexadecimal(value.whole)),
    }
}

/// RFC 4514 §2.4; control characters as digits too, since they end up in logs.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, letter) in text.char_indices() {
        let edge = (at == 0 && matches!(letter, ' ' | '#')) || (at == last && letter == ' ');
        if letter.is_ascii_control() {
            let _ = write!(out, "\\{:02x}", u32::from(letter));
            continue;
        }
        if edge || matches!(letter, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2 + 1);
    if !bytes.is_empty() {
        text.push('#');
    }
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An object identifier in digits and dots (X.690 §8.19).
fn dotted(identifier: &[u8]) -> String {
    let mut text = String::new();
    let mut number: u128 = 0;
    for &byte in identifier {
        number = number << 7 | u128::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let first = (number / 40).min(2);
            let _ = write!(text, "{first}.{}", number - first * 40);
        } else {
            let _ = write!(text, ".{number}");
        }
        number = 0;
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::string::PrintableString;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn of(attributes: &[(DnType, DnValue)]) -> Option<Box<str>> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        subject(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn the_last_attribute_comes_first() {
        let text = of(&[
            (DnType::CountryName, "DE".into()),
            (DnType::OrganizationName, "Example".into()),
            (DnType::CommonName, "reader".into()),
        ]);
        assert_eq!(text.as_deref(), Some("CN=reader,O=Example,C=DE"));
    }

    #[test]
    fn a_value_cannot_pass_for_another_attribute() {
        for (value, written) in [
            ("a,O=b", "CN=a\\,O=b"),
            ("a+OU=b", "CN=a\\+OU=b"),
            (" a ", "CN=\\ a\\ "),
            ("#61", "CN=\\#61"),
            ("a\\,b\"<>;", "CN=a\\\\\\,b\\\"\\<\\>\\;"),
            ("a\nb\0", "CN=a\\0ab\\00"),
            ("Zoë", "CN=Zoë"),
        ] {
            assert_eq!(of(&[(DnType::CommonName, value.into())]).as_deref(), Some(written));
        }
    }

    #[test]
    fn the_two_usual_encodings_of_one_text_are_one_subject_and_others_are_digits() {
        let printable = DnValue::PrintableString(PrintableString::try_from("a b").unwrap());
        assert_eq!(of(&[(DnType::CommonName, printable)]), of(&[(DnType::CommonName, "a b".into())]));
        let bmp = DnValue::BmpString(rcgen::string::BmpString::try_from("a").unwrap());
        assert_eq!(of(&[(DnType::CommonName, bmp)]).as_deref(), Some("CN=#1e020061"));
        let unknown = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 55555, 7]);
        assert_eq!(of(&[(unknown, "a".into())]).as_deref(), Some("1.3.6.1.4.1.55555.7=#0c0161"));
    }

    #[test]
    fn no_subject_is_none() {
        assert_eq!(of(&[]), None);
    }
}
