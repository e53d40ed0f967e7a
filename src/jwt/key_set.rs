//! The keys that verify signatures, from a JSON Web Key Set (RFC 7517) or a PEM file (RFC 7468).
//!
//! A key is used for the algorithms that its type, its own `alg` and the configuration allow, and for no
//! other, whatever a token claims. Keys that cannot be used are left out, with the reason.

use jsonwebtoken::jwk::{AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::Value;
use smallvec::SmallVec;

/// The largest source of keys, bytes.
pub const LARGEST: usize = 256 * 1024;
/// Keys read of one source.
const MOST: usize = 100;
/// The longest name of a key that a message repeats, bytes.
const LONGEST_SHOWN: usize = 64;
/// Keys that one token is tried against.
const MOST_TRIED: usize = 4;
/// RSA moduli, bytes: 2048 to 8192 bits (RFC 7518 §3.3 demands 2048).
const RSA_SIZES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Keys that verify signatures.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    /// Keys of the source that nobody can use, and why; not those that are rightly for something else.
    ignored: Vec<String>,
    /// What they were made of.
    digest: Option<blake3::Hash>,
}

/// One key, and what it is good for.
#[derive(Debug)]
struct VerifyingKey {
    id: Option<Box<str>>,
    algorithms: SmallVec<[Algorithm; 6]>,
    key: DecodingKey,
}

/// Why there are no keys. What follows `; ` is the cure.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// More than [`LARGEST`] bytes.
    #[error("it is larger than 256 KiB; a key set is a few KiB")]
    TooLarge,
    /// Not a JSON Web Key Set.
    #[error("it is not a JSON Web Key Set; it should read {{\"keys\": [ … ]}}")]
    NotASet,
    /// Not PEM, or without a public key.
    #[error("it holds no PEM section PUBLIC KEY; a certificate's key is told by `openssl x509 -pubkey -noout`")]
    NoPublicKey,
    /// A private key, which nobody but the issuer should have.
    #[error("it holds a private key; `openssl pkey -pubout` writes the public one, which is all that is needed")]
    PrivateKey,
    /// Keys, but none that serves.
    #[error("none of its keys can be used: {}; signatures are verified with RSA, P-256, P-384 or Ed25519 keys", .0.join(", "))]
    NoneUsable(Vec<String>),
}

/// Why one key is not used.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Unusable {
    #[error("is a shared secret, with which whoever verifies could forge")]
    Secret,
    #[error("is a private key")]
    Private,
    #[error("is not for signatures")]
    Purpose,
    #[error("is of a kind that is not supported, or malformed")]
    Unsupported,
    #[error("is for no algorithm that is allowed")]
    Algorithm,
    #[error("has fewer than 2048 bits, or more than 8192")]
    Size,
}

/// What a token's header asks for.
pub(super) enum Candidates<'a> {
    /// One of these has signed it, or nobody we know.
    Try(SmallVec<[&'a DecodingKey; MOST_TRIED]>),
    /// The key it names, or every key, is for other algorithms.
    OtherAlgorithm,
    /// No key has its name.
    Unknown,
}

impl KeySet {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// When it is none, or none of its keys can be used.
    pub fn from_json(contents: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        let contents = bounded(contents)?;
        let set: Value = serde_json::from_slice(contents).map_err(|_| KeySetError::NotASet)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotASet)?;
        let read = keys.iter().enumerate().map(|(position, key)| {
            let id = key.get("kid").and_then(Value::as_str).filter(|id| id.len() <= LONGEST_SHOWN);
            let name = id.map_or_else(|| format!("key {}", position + 1), |id| format!("key `{}`", id.escape_debug()));
            (name, read_jwk(key, allowed))
        });
        Self::of(contents, read)
    }

    /// Reads the public keys of a PEM file. They have no names, so each token is tried against them.
    ///
    /// # Errors
    /// When there is none, or a private key among them.
    pub fn from_pem(contents: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        let contents = bounded(contents)?;
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(contents) {
            match section.map_err(|_| KeySetError::NoPublicKey)? {
                (SectionKind::PublicKey, der) => keys.push(read_spki(&der, allowed)),
                (SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _) => {
                    return Err(KeySetError::PrivateKey);
                }
                _ => {}
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::NoPublicKey);
        }
        Self::of(contents, keys.into_iter().enumerate().map(|(position, key)| (format!("key {}", position + 1), key)))
    }

    fn of(
        contents: &[u8],
        read: impl Iterator<Item = (String, Result<VerifyingKey, Unusable>)>,
    ) -> Result<Self, KeySetError> {
        let mut set = Self { digest: Some(blake3::hash(contents)), ..Self::default() };
        let mut for_others = Vec::new();
        for (position, (name, key)) in read.enumerate() {
            match key {
                _ if position == MOST => {
                    set.ignored.push(format!("only the first {MOST} keys are read"));
                    break;
                }
                Ok(key) => set.keys.push(key),
                Err(why @ (Unusable::Purpose | Unusable::Algorithm)) => for_others.push(format!("{name} {why}")),
                Err(why) => set.ignored.push(format!("{name} {why}")),
            }
        }
        if !set.keys.is_empty() {
            return Ok(set);
        }
        set.ignored.append(&mut for_others);
        if set.ignored.is_empty() {
            set.ignored.push("there are none".to_owned());
        }
        Err(KeySetError::NoneUsable(set.ignored))
    }

    /// How many keys are used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys of the source that are not used though they might be meant to, each with the reason.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Whether both were made of the same bytes.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// The keys that may have made a signature. A token that names a key is tried against the keys of that
    /// name; where no key has a name (a PEM file), or the token names none, against all that are fit.
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Candidates<'_> {
        let named = |key: &&VerifyingKey| id.is_some() && key.id.as_deref() == id;
        let nameless = |key: &&VerifyingKey| id.is_none() || key.id.is_none();
        let fit = |key: &&VerifyingKey| key.algorithms.contains(&algorithm);
        let known = self.keys.iter().any(|key| named(&key));
        let eligible = || self.keys.iter().filter(|key| if known { named(key) } else { nameless(key) });
        let tried: SmallVec<_> = eligible().filter(fit).map(|key| &key.key).take(MOST_TRIED).collect();
        match (tried.is_empty(), eligible().next()) {
            (false, _) => Candidates::Try(tried),
            (true, Some(_)) => Candidates::OtherAlgorithm,
            (true, None) => Candidates::Unknown,
        }
    }
}

fn bounded(contents: &[u8]) -> Result<&[u8], KeySetError> {
    if contents.len() > LARGEST { Err(KeySetError::TooLarge) } else { Ok(contents) }
}

/// One JSON Web Key. Members that nobody understands are passed over, keys that nobody understands are not
/// used (RFC 7517 §4, §5).
fn read_jwk(key: &Value, allowed: &[Algorithm]) -> Result<VerifyingKey, Unusable> {
    if key.get("kty").and_then(Value::as_str) == Some("oct") {
        return Err(Unusable::Secret);
    }
    if key.get("d").is_some() {
        return Err(Unusable::Private);
    }
    let jwk: Jwk = serde_json::from_value(key.clone()).map_err(|_| Unusable::Unsupported)?;
    if !verifies(&jwk.common) {
        return Err(Unusable::Purpose);
    }
    let (fit, key) = public_key(&jwk.algorithm)?;
    let stated = jwk.common.key_algorithm.map(Algorithm::try_from).transpose().map_err(|_| Unusable::Algorithm)?;
    let fit = fit.iter().copied().filter(|algorithm| stated.is_none_or(|stated| stated == *algorithm));
    VerifyingKey::new(jwk.common.key_id.as_deref(), fit, key, allowed)
}

/// Whether a key is meant for verifying signatures, as far as it says (RFC 7517 §4.2, §4.3).
fn verifies(common: &CommonParameters) -> bool {
    common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// The key itself, and the algorithms that its type is fit for.
fn public_key(parameters: &AlgorithmParameters) -> Result<(&'static [Algorithm], DecodingKey), Unusable> {
    let malformed = |_| Unusable::Unsupported;
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let key = DecodingKey::from_rsa_components(&rsa.n, &rsa.e).map_err(malformed)?;
            let DecodingKeyKind::RsaModulusExponent { n, e } = key.kind() else { return Err(Unusable::Unsupported) };
            let (n, e) = (without_zeros(n), without_zeros(e));
            let sound = RSA_SIZES.contains(&n.len());
            if sound { Ok((RSA, DecodingKey::from_rsa_raw_components(n, e))) } else { Err(Unusable::Size) }
        }
        AlgorithmParameters::EllipticCurve(point) => {
            let (fit, size): (&[_], _) = match point.curve {
                EllipticCurve::P256 => (&[Algorithm::ES256], 32),
                EllipticCurve::P384 => (&[Algorithm::ES384], 48),
                _ => return Err(Unusable::Unsupported),
            };
            let key = DecodingKey::from_ec_components(&point.x, &point.y).map_err(malformed)?;
            sized(key, 1 + 2 * size).map(|key| (fit, key))
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            let key = DecodingKey::from_ed_components(&pair.x).map_err(malformed)?;
            sized(key, 32).map(|key| (&[Algorithm::EdDSA][..], key))
        }
        _ => Err(Unusable::Unsupported),
    }
}

/// A number's bytes without leading zeros, which some issuers write (against RFC 7518 §6.3.1).
fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|&&byte| byte == 0).count()..]
}

fn sized(key: DecodingKey, size: usize) -> Result<DecodingKey, Unusable> {
    let fits = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == size);
    if fits { Ok(key) } else { Err(Unusable::Unsupported) }
}

/// Object identifiers as DER: RSA (RFC 8017), Ed25519 (RFC 8410), and the curves of RFC 5480.
const OID_RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const OID_P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// An RSA key of 2048 bits in a `SubjectPublicKeyInfo` has 294 bytes, one of 1024 bits 162.
const SMALLEST_RSA: usize = 270;

/// A `SubjectPublicKeyInfo` (RFC 5280 §4.1). The identifiers stand at its beginning; the verifier reads
/// the rest, and refuses a key that is not of the algorithm's type.
fn read_spki(der: &[u8], allowed: &[Algorithm]) -> Result<VerifyingKey, Unusable> {
    let names = |oid: &[u8]| der.iter().take(40).copied().collect::<Vec<_>>().windows(oid.len()).any(|at| at == oid);
    let (fit, key): (&[_], _) = if names(OID_RSA) {
        if der.len() < SMALLEST_RSA {
            return Err(Unusable::Size);
        }
        (RSA, DecodingKey::from_rsa_der(der))
    } else if names(OID_P256) {
        (&[Algorithm::ES256], DecodingKey::from_ec_der(der))
    } else if names(OID_P384) {
        (&[Algorithm::ES384], DecodingKey::from_ec_der(der))
    } else if names(OID_ED25519) {
        (&[Algorithm::EdDSA], DecodingKey::from_ed_der(der))
    } else {
        return Err(Unusable::Unsupported);
    };
    VerifyingKey::new(None, fit.iter().copied(), key, allowed)
}

impl VerifyingKey {
    fn new(
        id: Option<&str>,
        fit: impl Iterator<Item = Algorithm>,
        key: DecodingKey,
        allowed: &[Algorithm],
    ) -> Result<Self, Unusable> {
        let algorithms: SmallVec<_> = fit.filter(|algorithm| allowed.contains(algorithm)).collect();
        if algorithms.is_empty() {
            return Err(Unusable::Algorithm);
        }
        Ok(Self { id: id.map(Into::into), algorithms, key })
    }
}
