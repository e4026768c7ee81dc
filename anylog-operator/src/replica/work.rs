//! Files on their way between members: where they lie meanwhile, and how their content is named.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anylog_replica::message::Form;

use crate::OperatorError;
use crate::disk::create_directories;
use crate::error::file_error;
use crate::store::Settings;

/// The directory of files that come from other members, beside those that are prepared for the watch directory.
pub(super) fn directory(settings: &Settings) -> PathBuf {
    settings.prep_dir.join(".incoming")
}

/// An empty file without a name: it goes with its last user, however that ends.
pub(super) fn nameless(settings: &Settings) -> Result<File, OperatorError> {
    let directory = directory(settings);
    let path = directory.join(format!("{:016x}.given", rand::random::<u64>()));
    let make = || {
        create_directories(&directory)?;
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    };
    make().map_err(file_error(&path))
}

/// Names a content by its bytes. Never 0.
#[derive(Debug, Clone)]
pub(super) struct Namer(blake3::Hasher);

impl Namer {
    pub(super) fn new(form: Form) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(form as i32).to_le_bytes());
        Self(hasher)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// All bytes of a file.
    pub(super) fn update_all(&mut self, file: &mut File, path: &Path) -> Result<u64, OperatorError> {
        let mut read = || {
            file.seek(SeekFrom::Start(0))?;
            let (mut buffer, mut length) = (vec![0; 128 << 10], 0u64);
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return Ok(length),
                    Ok(count) => {
                        self.0.update(&buffer[..count]);
                        length += count as u64;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        read().map_err(file_error(path))
    }

    pub(super) fn name(&self) -> u64 {
        let hash = self.0.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(first).max(1)
    }
}
