//! TLS to a PostgreSQL server.
#![cfg(feature = "postgres-tls")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use anylog_dbms::{ConnectRequest, SqlValue};

use crate::server::Server;
use crate::support::{catalog, text, value};

/// A certificate for a host and its key, and the authority that issued it.
fn certificates(server: &Server, host: &str) {
    let directory = server.directory();
    let run = |arguments: &[&str]| {
        let status = Command::new("openssl").args(arguments).current_dir(directory).stderr(Stdio::null()).status();
        assert!(status.expect("openssl is installed").success(), "openssl {arguments:?}");
    };
    let subject = format!("/CN={host}");
    run(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=plant",
        "-days",
        "2",
    ]);
    run(&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", &subject]);
    fs::write(directory.join("names"), format!("subjectAltName=DNS:{host}")).unwrap();
    run(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "server.pem",
        "-extfile",
        "names",
        "-days",
        "2",
    ]);
    for file in ["server.key", "server.pem"] {
        let path = directory.join(file);
        chown(&path, Some(fs::metadata(directory).unwrap().uid()), None).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_connection_is_as_safe_as_its_text_asks() {
    let server = Server::start();
    certificates(&server, "localhost");
    let directory = server.directory().display().to_string();
    server
        .set(&format!("ssl_cert_file = '{directory}/server.pem'\nssl_key_file = '{directory}/server.key'\nssl = on\n"));
    let (_home, catalog) = catalog();
    let connect = |name: &str, tls: &str| {
        let connection = format!(
            "host={} port={} user=anylog {tls}",
            if name.contains("ip") { "127.0.0.1" } else { "localhost" },
            server.port
        );
        catalog.connect(ConnectRequest { connection, port: None, ..ConnectRequest::postgres(name, "", 0, "", "") })
    };
    let encrypted = |name: &str, tls: &str| {
        let database = connect(name, tls).unwrap_or_else(|error| panic!("{tls}: {error}"));
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        value(database.dbms().as_ref(), None, sql)
    };
    let ca = format!("sslrootcert={directory}/ca.pem");
    assert_eq!(encrypted("plain", "sslmode=disable"), SqlValue::Bool(false));
    assert_eq!(encrypted("required", "sslmode=require"), SqlValue::Bool(true));
    assert_eq!(encrypted("full", &format!("sslmode=verify-full {ca}")), SqlValue::Bool(true));
    // The certificate is for another name.
    assert_eq!(encrypted("ip_ca", &format!("sslmode=verify-ca {ca}")), SqlValue::Bool(true));
    let error = connect("ip_full", &format!("sslmode=verify-full {ca}")).unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    // It was issued by somebody else.
    fs::rename(server.directory().join("ca.pem"), server.directory().join("old.pem")).unwrap();
    certificates(&server, "localhost");
    let error = connect("stranger", &format!("sslmode=verify-ca {ca}")).unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
    let database = connect("old", &format!("sslmode=verify-ca sslrootcert={directory}/old.pem")).unwrap();
    assert_eq!(value(database.dbms().as_ref(), None, "SELECT 'x'::text"), text("x"));
}
