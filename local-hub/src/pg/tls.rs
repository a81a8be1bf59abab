//! The certificate that the servers show on 127.0.0.1: one per Home, signed by itself, so that it is its own CA file.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use serde::{Deserialize, Serialize};

use super::PgError;
use super::account::Account;
use crate::files;

const DAY: u64 = 24 * 60 * 60;
/// Apple refuses server certificates that are valid for more than 825 days, even those a person trusts.
const VALID_DAYS: u64 = 800;
/// Clients re-read the file rarely, so the new one is there long before the old one ends.
const RENEW_DAYS_BEFORE: u64 = 60;
/// Clocks of containers and virtual machines may be a little behind.
const BACKDATE_DAYS: u64 = 1;

#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    /// Seconds since 1970. A server that started before has loaded an older certificate.
    pub(crate) made_at: u64,
}

/// Beside the certificate, so that its dates are known without parsing it.
#[derive(Serialize, Deserialize)]
struct Dates {
    made_at: u64,
    not_after: u64,
}

impl Tls {
    /// The certificate of the Home, made or renewed when needed. The caller holds the lock of the folder.
    pub(crate) fn ensure(dir: &Path, account: Option<Account>) -> Result<Tls, PgError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        Self::ensure_at(dir, account, now)
    }

    fn ensure_at(dir: &Path, account: Option<Account>, now: u64) -> Result<Tls, PgError> {
        let mut tls =
            Tls { cert: dir.join("server.crt"), key: dir.join("server.key"), ca: dir.join("ca.pem"), made_at: 0 };
        let dates = dir.join("dates.json");
        let kept: Option<Dates> = files::read_optional(&dates)
            .map_err(PgError::io("could not read", &dates))?
            .and_then(|text| serde_json::from_str(&text).ok());
        let whole = [&tls.cert, &tls.key, &tls.ca].iter().all(|f| f.is_file());
        match kept {
            Some(kept) if whole && now + RENEW_DAYS_BEFORE * DAY < kept.not_after => {
                tls.made_at = kept.made_at;
            }
            _ => {
                files::remove_file(&dates).map_err(PgError::io("could not delete", &dates))?;
                let made = Dates { made_at: now, not_after: now + VALID_DAYS * DAY };
                tls.write(&made)?;
                let text = serde_json::to_vec(&made).expect("two numbers are JSON");
                // Last, since it says that the others are whole.
                files::write_atomic(&dates, &text, 0o644).map_err(PgError::io("could not write", &dates))?;
                tls.made_at = now;
            }
        }
        if let Some(account) = account {
            std::os::unix::fs::lchown(&tls.key, Some(account.uid), Some(account.gid))
                .map_err(PgError::io("could not hand over", &tls.key))?;
        }
        Ok(tls)
    }

    fn write(&self, dates: &Dates) -> Result<(), PgError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "psn local hub");
        params.subject_alt_names = vec![
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            SanType::DnsName("localhost".try_into()?),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let at = |seconds: u64| (UNIX_EPOCH + Duration::from_secs(seconds)).into();
        params.not_before = at(dates.made_at.saturating_sub(BACKDATE_DAYS * DAY));
        params.not_after = at(dates.not_after);
        // ECDSA P-256: SCRAM channel binding (tls-server-end-point) does not work with Ed25519 in older libpq.
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?.pem();
        let write = |path: &Path, text: &str, mode| {
            files::write_atomic(path, text.as_bytes(), mode).map_err(PgError::io("could not write", path))
        };
        write(&self.key, &key.serialize_pem(), 0o600)?;
        write(&self.cert, &cert, 0o644)?;
        write(&self.ca, &cert, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn it_is_kept_until_it_nears_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let ensure = |now| Tls::ensure_at(dir.path(), None, now).unwrap();
        let read = |tls: &Tls| fs::read(&tls.ca).unwrap();
        let first = ensure(NOW);
        let pem = read(&first);
        assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----"));
        assert_eq!(fs::read(&first.cert).unwrap(), pem);
        assert_eq!(fs::metadata(&first.key).unwrap().permissions().mode() & 0o777, 0o600);
        let later = ensure(NOW + (VALID_DAYS - RENEW_DAYS_BEFORE - 1) * DAY);
        assert_eq!((read(&later), later.made_at), (pem.clone(), NOW));
        let due = NOW + (VALID_DAYS - RENEW_DAYS_BEFORE) * DAY;
        let renewed = ensure(due);
        assert_ne!(read(&renewed), pem);
        assert_eq!(renewed.made_at, due);
    }

    #[test]
    fn a_missing_or_torn_part_makes_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = Tls::ensure_at(dir.path(), None, NOW).unwrap();
        let pem = fs::read(&first.ca).unwrap();
        fs::remove_file(&first.key).unwrap();
        let second = fs::read(&Tls::ensure_at(dir.path(), None, NOW).unwrap().ca).unwrap();
        assert_ne!(second, pem);
        fs::write(dir.path().join("dates.json"), "{").unwrap();
        assert_ne!(fs::read(&Tls::ensure_at(dir.path(), None, NOW).unwrap().ca).unwrap(), second);
    }
}
