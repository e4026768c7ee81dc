//! What tells this node from all others at a broker: made once, kept in the node's files.
//!
//! A broker keeps a session under the client id, so the id has to be the same after every start, and no other node may have it: two
//! clients with one id throw each other out without end. Neither the node's name nor its host or directory is unique; containers
//! made from one image share all three.

use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::path::Path;

use super::fingerprint;

/// The file and its copy, in the directory of the node's identifiers (`!id_dir`).
const FILES: [&str; 2] = ["message_client.id", "message_client.id.copy"];

/// The identity that is kept in `directory`; a new one when there is none.
///
/// # Errors
/// The directory cannot be made or written: the identity would change with the next start.
pub(crate) fn identity(directory: &Path) -> std::io::Result<String> {
    let known = FILES.map(|file| read(&directory.join(file)));
    let identity = known.iter().flatten().next().cloned().unwrap_or_else(fresh);
    for (file, known) in FILES.iter().zip(&known) {
        if known.as_ref() != Some(&identity) {
            write(directory, file, &identity)?;
        }
    }
    Ok(identity)
}

fn fresh() -> String {
    let chance = || std::hash::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", chance(), chance())
}

/// The identity in a file whose checksum is right.
fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let (identity, check) = text.trim_end().split_once(' ')?;
    (check == checksum(identity)).then(|| identity.to_owned())
}

fn checksum(identity: &str) -> String {
    format!("{:016x}", fingerprint([identity.as_bytes()]))
}

/// Whole or not at all, also when the power fails (R9).
fn write(directory: &Path, file: &str, identity: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let temporary = directory.join(format!("{file}.new"));
    let mut new = std::fs::File::create(&temporary)?;
    writeln!(new, "{identity} {}", checksum(identity))?;
    new.sync_all()?;
    std::fs::rename(&temporary, directory.join(file))?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    // R4, R9
    #[test]
    fn an_identity_is_kept_and_outlives_the_damage_of_one_file() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("anylog");
        let first = identity(&directory).unwrap();
        assert_eq!(identity(&directory).unwrap(), first);
        for (at, damage) in [(0, ""), (1, "\0\0\0\0"), (0, "0123 4567")] {
            std::fs::write(directory.join(FILES[at]), damage).unwrap();
            assert_eq!(identity(&directory).unwrap(), first);
        }
        let other = identity(&home.path().join("other")).unwrap();
        assert_ne!(first, other);
    }
}
