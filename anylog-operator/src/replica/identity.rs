//! Who a node is: a key of its own, not an address (R22).
//!
//! The key is made at random when a node first runs an operator, and kept with its data. A node that comes back at another address is the same
//! node, and publishes the address; another node under the same policy has another key, and is refused.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::write_durably;

/// The name of the file below the journal's parent directory.
const FILE: &str = "node.key";

/// The node's key, made when there is none. Blocks.
///
/// # Errors
/// What the file system refuses.
pub(crate) fn key(directory: &Path) -> io::Result<String> {
    let (path, previous) = (directory.join(FILE), directory.join(format!("{FILE}.previous")));
    let found = read(&path)?;
    if let Some(key) = found {
        if read(&previous)?.as_ref() != Some(&key) {
            write_durably(&previous, line(&key).as_bytes())?;
        }
        return Ok(key);
    }
    let damaged = path.exists();
    let key = match read(&previous)? {
        Some(key) => {
            tracing::error!(file = %path.display(), "The node's key is damaged or lost; its copy is taken");
            key
        }
        None => {
            if damaged {
                tracing::error!(file = %path.display(), "The node's key is damaged, and so is its copy; the node gets another one");
            }
            format!("{:032x}", rand::random::<u128>())
        }
    };
    write_durably(&path, line(&key).as_bytes())?;
    write_durably(&previous, line(&key).as_bytes())?;
    Ok(key)
}

/// Where the key lies: beside the journal, so that it goes with the data.
pub(crate) fn directory(journal: &Path) -> PathBuf {
    journal.parent().unwrap_or(journal).join("replica")
}

/// The key and its checksum.
fn line(key: &str) -> String {
    format!("{key} {:08x}\n", crc32fast::hash(key.as_bytes()))
}

/// The key in a file; none when there is no file, or it is damaged.
fn read(path: &Path) -> io::Result<Option<String>> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let key = text.split_whitespace().next().unwrap_or_default();
    let is_key = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok((is_key && text == line(key)).then(|| key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_over_the_damage_of_either_file() {
        let home = tempfile::tempdir().unwrap();
        let made = key(home.path()).unwrap();
        assert_eq!(key(home.path()).unwrap(), made);
        for file in [FILE, "node.key.previous"] {
            for damage in [&b""[..], b"0123", b"\xff\xfe\n", format!("{made} 00000000\n").as_bytes()] {
                std::fs::write(home.path().join(file), damage).unwrap();
                assert_eq!(key(home.path()).unwrap(), made, "{file}");
            }
            std::fs::remove_file(home.path().join(file)).unwrap();
            assert_eq!(key(home.path()).unwrap(), made, "{file}");
        }
        // Both: it is another node then.
        for file in [FILE, "node.key.previous"] {
            std::fs::write(home.path().join(file), "x").unwrap();
        }
        assert_ne!(key(home.path()).unwrap(), made);
    }
}
