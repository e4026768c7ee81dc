//! Where a node keeps its files: the documented directories under `<home>/AnyLog-Network`.

use std::io;
use std::path::{Component, Path, PathBuf};

use parking_lot::RwLock;

use crate::{Caller, CommandError, Dictionary, Status};

/// The folder under the home directory.
pub const ROOT: &str = "AnyLog-Network";

/// Dictionary name and path below the root of each directory that `create work directories` makes.
const DIRECTORIES: &[(&str, &str)] = &[
    ("anylog_dir", "anylog"),
    ("id_dir", "anylog"),
    ("blockchain_dir", "blockchain"),
    ("prep_dir", "data/prep"),
    ("watch_dir", "data/watch"),
    ("bkup_dir", "data/bkup"),
    ("err_dir", "data/error"),
    ("archive_dir", "data/archive"),
    ("distr_dir", "data/distr"),
    ("dbms_dir", "data/dbms"),
    ("journal_dir", "data/journal"),
    ("blobs_dir", "data/blobs"),
    ("bwatch_dir", "data/bwatch"),
    ("pem_dir", "data/pem"),
    ("test_dir", "data/test"),
    ("tmp_dir", "data/tmp"),
];

/// Dictionary name and path below the root of what is not a directory, or not made by the node.
const OTHERS: &[(&str, &str)] = &[
    ("local_scripts", "scripts"),
    ("blockchain_file", "blockchain/blockchain.json"),
    ("blockchain_new", "blockchain/blockchain.new"),
    ("blockchain_sql", "blockchain/blockchain.sql"),
];

/// The home directory of a node and the directories in it.
#[derive(Debug)]
pub struct WorkDirectories {
    home: RwLock<PathBuf>,
}

impl WorkDirectories {
    /// Work directories of a node at home in `home`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        let home = std::path::absolute(&home).unwrap_or(home);
        Self { home: RwLock::new(home) }
    }

    /// The home directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.home.read().clone()
    }

    /// `<home>/AnyLog-Network`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.home.read().join(ROOT)
    }

    /// Moves home: `set anylog home`.
    pub fn set_home(&self, home: impl Into<PathBuf>, dictionary: &Dictionary) {
        let home = home.into();
        *self.home.write() = std::path::absolute(&home).unwrap_or(home);
        self.publish(dictionary);
    }

    /// Puts the documented paths into the dictionary.
    pub fn publish(&self, dictionary: &Dictionary) {
        let root = self.root();
        let home = self.home();
        dictionary.set("anylog_path", home.display().to_string());
        dictionary.set("edgelake_path", home.display().to_string());
        for (name, path) in DIRECTORIES.iter().chain(OTHERS) {
            dictionary.set(name, root.join(path).display().to_string());
        }
    }

    /// Makes every work directory that is not there.
    pub fn create(&self) -> io::Result<()> {
        let root = self.root();
        DIRECTORIES.iter().try_for_each(|(_, path)| std::fs::create_dir_all(root.join(path)))
    }

    /// The directory that the dictionary names, which a script may have moved, else the documented one.
    #[must_use]
    pub fn directory(&self, dictionary: &Dictionary, name: &str) -> PathBuf {
        if let Some(path) = dictionary.get(name) {
            return PathBuf::from(path);
        }
        let known = DIRECTORIES.iter().chain(OTHERS).find(|(known, _)| *known == name);
        self.root().join(known.map_or("data/tmp", |(_, path)| path))
    }

    /// The path that a caller may use: any path from the node's own terminal, only one inside the work directories
    /// from a network. Relative paths are meant from the working directory, for a network caller from the root.
    pub fn permit(&self, caller: &Caller, path: &str) -> Result<PathBuf, CommandError> {
        if !caller.is_network() {
            return Ok(PathBuf::from(path));
        }
        let root = self.root();
        let resolved = resolve(&root.join(path));
        let root = root.canonicalize().unwrap_or(root);
        if resolved.starts_with(&root) {
            return Ok(resolved);
        }
        Err(CommandError::new(
            Status::UNAUTHORIZED,
            format!("The path '{path}' lies outside the work directories of this node"),
        )
        .hint(format!("over the network a path must lie below '{}'", root.display())))
    }
}

/// Resolves `..` and symbolic links as far as the path exists; the rest is appended without `..`.
fn resolve(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
        if let Ok(real) = plain.canonicalize() {
            plain = real;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::Surface;

    fn remote() -> Caller {
        let address: SocketAddr = "10.0.0.9:5000".parse().unwrap();
        Caller::network(Surface::Rest, address, true)
    }

    #[test]
    fn home_is_published_and_made() {
        let home = tempfile::tempdir().unwrap();
        let directories = WorkDirectories::new(home.path());
        let dictionary = Dictionary::new();
        directories.publish(&dictionary);
        directories.create().unwrap();
        directories.create().unwrap();
        for (name, _) in DIRECTORIES {
            assert!(Path::new(&dictionary.get(name).unwrap()).is_dir(), "{name}");
        }
        assert_eq!(
            dictionary.get("blockchain_file"),
            Some(directories.root().join("blockchain/blockchain.json").display().to_string())
        );
        assert!(!Path::new(&dictionary.get("local_scripts").unwrap()).exists());
        dictionary.set("watch_dir", "/elsewhere");
        assert_eq!(directories.directory(&dictionary, "watch_dir"), Path::new("/elsewhere"));
        dictionary.remove("watch_dir");
        assert_eq!(directories.directory(&dictionary, "watch_dir"), directories.root().join("data/watch"));
    }

    #[test]
    fn a_network_caller_stays_inside() {
        let home = tempfile::tempdir().unwrap();
        let directories = WorkDirectories::new(home.path());
        directories.create().unwrap();
        let root = directories.root();
        std::os::unix::fs::symlink("/etc", root.join("data/tmp/door")).unwrap();
        let inside = root.canonicalize().unwrap();
        for path in ["data/watch/a.json", "data/../data/./watch", "data/tmp/not/yet/there"] {
            assert!(directories.permit(&remote(), path).unwrap().starts_with(&inside), "{path}");
        }
        let absolute = root.join("data/watch").display().to_string();
        assert!(directories.permit(&remote(), &absolute).is_ok());
        for path in ["/etc/passwd", "../../etc", "data/../../x", "data/tmp/door/passwd", "data/tmp/door/../passwd"] {
            let error = directories.permit(&remote(), path).unwrap_err();
            assert_eq!(error.status, Status::UNAUTHORIZED, "{path}");
        }
        assert_eq!(directories.permit(&Caller::terminal(), "/etc/passwd").unwrap(), Path::new("/etc/passwd"));
    }

    proptest! {
        #[test]
        fn no_path_leads_outside(pieces in prop::collection::vec("(\\.\\.|\\.|data|tmp|door|[a-c/]{0,3})", 0..8)) {
            let home = tempfile::tempdir().unwrap();
            let directories = WorkDirectories::new(home.path());
            std::fs::create_dir_all(directories.root().join("data/tmp")).unwrap();
            std::os::unix::fs::symlink("/", directories.root().join("data/door")).unwrap();
            if let Ok(path) = directories.permit(&remote(), &pieces.join("/")) {
                prop_assert!(path.starts_with(directories.root().canonicalize().unwrap()));
                prop_assert!(path.components().all(|part| part != Component::ParentDir));
            }
        }
    }
}
