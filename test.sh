#!/usr/bin/env bash
# Installs what the tests need on a Debian machine that has Rust and a C compiler, and runs every test.
#
#   ./test.sh              all tests
#   ./test.sh --setup      only the installation
#   ./test.sh ARGUMENTS    passed to `cargo test`, such as `-p anylog-core`
set -euo pipefail
cd "$(dirname "$0")"

# Real parts: mosquitto and its clients, a PostgreSQL server, curl; strace, which shows and breaks system calls.
setup() {
    local missing=()
    command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
    [ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null || missing+=(mosquitto)
    command -v curl >/dev/null || missing+=(curl)
    command -v gzip >/dev/null || missing+=(gzip)
    command -v strace >/dev/null || missing+=(strace)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v mkfs.ext4 >/dev/null || [ -x /usr/sbin/mkfs.ext4 ] || missing+=(e2fsprogs)
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
    [ ${#missing[@]} -eq 0 ] && return
    echo "installing: ${missing[*]}"
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

setup
[ "${1:-}" = --setup ] && exit

if [ $# -gt 0 ]; then
    exec cargo test "$@"
fi
cargo test --workspace --all-targets
# The program once more with every logical database in PostgreSQL.
ANYLOG_TEST_DBMS=psql cargo test --workspace --test e2e
cargo test --workspace --doc
