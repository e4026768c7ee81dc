//! TLS to a server: `sslmode` and `sslrootcert` of a connection text, with the meaning that PostgreSQL's own programs give them.
//!
//! | `sslmode` | encrypted | the server proves who it is |
//! |---|---|---|
//! | `disable`, `allow` | no | no |
//! | `prefer` (default) | no; when `sslrootcert` is given, as `verify-ca` | |
//! | `require` | yes | only with `sslrootcert`, as `verify-ca` |
//! | `verify-ca` | yes | its certificate was issued by one of `sslrootcert` |
//! | `verify-full` | yes | the same, and it is for the host |
//!
//! Needs the feature `postgres-tls`; without it a connection that asks for TLS is refused, never made in the clear.

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::options::Options;

#[cfg(feature = "postgres-tls")]
mod connector;

/// How a connection is protected.
#[derive(Clone)]
pub(super) enum Tls {
    Off,
    #[cfg(feature = "postgres-tls")]
    On(connector::Connector),
}

/// How much of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Issuer,
    IssuerAndHost,
}

impl Tls {
    /// Takes the keys of TLS out of a connection text.
    pub(super) fn of(options: &mut Options) -> Result<Self, String> {
        let roots = options.take("sslrootcert");
        let mode = options.take("sslmode").unwrap_or_default();
        let check = match (mode.as_str(), &roots) {
            ("disable" | "allow", _) | ("" | "prefer", None) => return Ok(Self::Off),
            ("require", None) => Check::Nothing,
            ("" | "prefer" | "require" | "verify-ca", Some(_)) => Check::Issuer,
            ("verify-full", Some(_)) => Check::IssuerAndHost,
            ("verify-ca" | "verify-full", None) => {
                return Err(format!("sslmode={mode} needs sslrootcert=<file> with the certificates that are trusted"));
            }
            _ => {
                return Err(format!(
                    "sslmode '{mode}' is not one of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        Self::on(check, roots.as_deref())
    }

    #[cfg(feature = "postgres-tls")]
    fn on(check: Check, roots: Option<&str>) -> Result<Self, String> {
        connector::Connector::new(check, roots).map(Self::On)
    }

    #[cfg(not(feature = "postgres-tls"))]
    fn on(check: Check, roots: Option<&str>) -> Result<Self, String> {
        let _ = (check, roots);
        Err("the connection asks for TLS, and this program was built without it: build it with --features postgres-tls"
            .into())
    }

    /// Says to the client whether it has to use TLS.
    pub(super) fn prepare(&self, config: &mut Config) {
        config.ssl_mode(if matches!(self, Self::Off) { SslMode::Disable } else { SslMode::Require });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(text: &str) -> Result<Tls, String> {
        Tls::of(&mut Options::parse(text).unwrap())
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for off in ["", "sslmode=disable", "sslmode=prefer", "sslmode=allow sslrootcert=/x"] {
            assert!(matches!(tls(off), Ok(Tls::Off)), "{off}");
        }
        assert!(tls("sslmode=verify-full").err().unwrap().contains("sslrootcert"));
        assert!(tls("sslmode=on").err().unwrap().contains("verify-ca"));
        assert!(tls("sslmode=verify-ca sslrootcert=/not/there").is_err());
        assert_eq!(tls("sslmode=require").is_ok(), cfg!(feature = "postgres-tls"));
    }
}
